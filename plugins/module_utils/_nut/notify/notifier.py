# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The service nut-notify: takes in events, records them, and delivers them to the targets.

Each target has at most one attempt at a time, in a process of its own, so one that hangs delays neither the others nor anything
else on this host. What is not delivered yet is in the state file, and outlives a reboot.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import files, paths, records
from ..base.cli import PrintText
from ..base.clock import CLOCK, Clock, format_time
from ..base.log import append_line
from ..events.catalog import Event
from ..events.report import VERSION as EVENT_VERSION
from ..events.report import list_fields, make_event, name_host, send_to_journal
from ..shutdown.report import GateReport, read_report
from . import outbox
from .outbox import Message, Outbox, Queue
from .sender import Attempt, Post
from .targets import Target

WAIT = 1.0  # seconds between two rounds
BUSY_WAIT = 0.2  # the same, while a message is being sent
INBOX_STEP = 50  # events that a round takes from the inbox

Begin = Callable[[Target, Post], Attempt]


def explain_return(report: GateReport | str | None, saved: Outbox, boot: str) -> str:
    """Return when the shutdown began that this host has come back from; "" if it has not come back from one."""
    if not saved.boot or saved.boot == boot or not isinstance(report, GateReport) or report.mode != "gate":
        return ""
    if report.ended_at < saved.began:
        return ""  # it was before the boot in which the state was saved
    waited = [machine.name for machine in report.machines if machine.given_up and machine.down is None]
    missing = f" {', '.join(waited)} did not go down before the power was cut." if waited else ""
    return f"The shutdown began at {format_time(report.began)}.{missing}"


@dataclass
class Notifier:
    """The service."""

    targets: tuple[Target, ...]
    begin: Begin
    log: PrintText
    read_upsmon: Callable[[], Sequence[Event]] = tuple  # what has come from upsmon
    describe: Callable[[Event], str] = lambda _event: ""  # a sentence that is added to an event of upsmon
    root: Path = Path("/")
    clock: Clock = CLOCK
    host: str = field(default_factory=name_host)
    state: Outbox = field(default_factory=Outbox, init=False)
    attempts: dict[str, tuple[Attempt, Message]] = field(default_factory=dict, init=False)  # by Target.key
    _handled: set[str] = field(default_factory=set, init=False)  # files of the inbox that are not removed yet
    _failed: dict[str, str] = field(default_factory=dict, init=False)  # what was last logged about a target or a file
    _saved: str = field(default="", init=False)

    def load(self) -> None:
        """Read the state. After a shutdown, report that this host is up again."""
        boot, path = self.clock.boot(), self.root / paths.NOTIFY_STATE
        with contextlib.suppress(FileNotFoundError):
            try:
                self.state = records.read_record(Outbox, path, outbox.VERSION)
            except (OSError, records.RecordError) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                self.log(f"can't use {path} ({error}): messages that were not sent yet are lost")
        came_back = explain_return(read_report(self.root / paths.GATE_REPORT), self.state, boot)
        if self.state.boot != boot:
            # another network, another chance
            queues = {key: replace(queue, retry_at=0.0, failures=0) for key, queue in self.state.queues.items()}
            self.state = replace(self.state, queues=queues, boot=boot, began=self.clock.wall())
        if came_back:
            self.read_inbox(None)  # what was reported before the reboot comes first
            self.take_in(make_event("host-returned", self.host, came_back, self.clock.wall(), "notify"))
        self.save()

    def run_forever(self, listener: socket.socket, alive: Callable[[], None]) -> None:
        """Work until the process is ended."""
        while True:
            alive()
            self.run_round()
            select.select([listener], [], [], BUSY_WAIT if self.attempts else WAIT)

    def run_round(self) -> None:
        """Take in new events, and go on with the deliveries."""
        for event in self.read_upsmon():
            send_to_journal(list_fields(event), self.root)
            self.take_in(replace(event, text=" ".join(filter(None, (event.text, self.describe(event))))))
        self.read_inbox()
        for target in self.targets:
            self.advance(target)
        self.save()

    # Events

    def read_inbox(self, most: int | None = INBOX_STEP) -> None:
        """Take in what the other programs have reported. most: how many events; None: all."""
        inbox = self.root / paths.NOTIFY_INBOX
        try:
            names = sorted(path.name for path in inbox.iterdir() if path.suffix == ".json")
        except FileNotFoundError:
            return
        except OSError as error:
            self.log_once("inbox", f"can't read {inbox}: {error.strerror}")
            return
        for name in [name for name in names if name not in self._handled][:most]:
            self._handled.add(name)
            try:
                event = records.read_record(Event, inbox / name, EVENT_VERSION)
            except (OSError, records.RecordError) as error:
                self.log(f"can't use {inbox / name}: {error}")
            else:
                self.take_in(event)

    def take_in(self, event: Event) -> None:
        """Record an event, and queue it for each target that wants it."""
        self.record(event)
        self.state, is_burst = outbox.note_recent(self.state, event)
        for target in self.targets:
            if target.wants(event):
                sending = self.attempts[target.key][1] if target.key in self.attempts else None
                queue = self.state.queues.get(target.key, Queue())
                self.set_queue(target, outbox.add_event(queue, event, sending, is_burst=is_burst))

    def record(self, event: Event) -> None:
        """Append an event to the log of events."""
        path = self.root / paths.EVENTS_LOG
        try:
            append_line(path, json.dumps(to_data(event)))
        except OSError as error:
            self.log_once(str(path), f"can't write {path}: {error.strerror}")

    # Deliveries

    def advance(self, target: Target) -> None:
        """Look after the attempt that runs, and begin the next."""
        now = self.clock.wall()
        if target.key in self.attempts:
            attempt, message = self.attempts[target.key]
            outcome = attempt.poll()
            if outcome is None:
                return
            del self.attempts[target.key]
            queue = self.state.queues.get(target.key, Queue())
            if outcome:
                self.log_once(target.key, f"{target.label}: {message.event.name} was not sent, trying again: {outcome}")
                self.set_queue(target, outbox.note_failed(queue, now))
            else:
                self._failed.pop(target.key, None)
                self.log(f"{target.label}: sent {message.event.name} ({message.event.subject})")
                self.set_queue(target, outbox.note_sent(queue, message))
        queue = outbox.drop_old(self.state.queues.get(target.key, Queue()), now)
        self.set_queue(target, queue)
        if (due := queue.find_due(now)) is not None:
            title, body = outbox.compose_text(due, self.host, now, queue.dropped)
            post = Post(title, body, due.event.kind.severity, due.event.at)
            self.attempts[target.key] = (self.begin(target, post), due)

    def set_queue(self, target: Target, queue: Queue) -> None:
        """Replace the queue of a target."""
        others = {key: each for key, each in self.state.queues.items() if key != target.key}
        kept = {target.key: queue} if queue != Queue() else {}
        self.state = replace(self.state, queues={**others, **kept})

    # The state file and the log

    def save(self) -> None:
        """Save the state if it has changed, and then remove what it contains from the inbox."""
        known = {target.key for target in self.targets}
        queues = {key: queue for key, queue in self.state.queues.items() if key in known}
        text = records.dump_record(replace(self.state, queues=queues), outbox.VERSION)
        if text != self._saved:
            path = self.root / paths.NOTIFY_STATE
            try:
                files.replace_private_file(path, text)
            except (OSError, files.WriteError) as error:
                self.log_once(str(path), str(error))
                return
            self._saved = text
        for name in list(self._handled):
            with contextlib.suppress(FileNotFoundError):
                (self.root / paths.NOTIFY_INBOX / name).unlink()
            self._handled.discard(name)

    def log_once(self, subject: str, line: str) -> None:
        """Log a problem unless it is the last that was logged about this subject."""
        if self._failed.get(subject) != line:
            self._failed[subject] = line
            self.log(line)


def to_data(event: Event) -> Mapping[str, str]:
    """Return an event as a line of the log has it."""
    return {
        "time": format_time(event.at),
        "event": event.name,
        "severity": event.kind.severity,
        "subject": event.subject,
        "title": event.title,
        "text": event.text,
        "source": event.source,
    }
