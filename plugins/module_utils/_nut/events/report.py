# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports events: to the journal, with structured fields, and to nut-notify, which records and delivers them.

Nothing here waits. The journal gets a datagram that is dropped if the journal hangs; nut-notify finds a file in its inbox.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Callable, Protocol

from ..base import files, paths, records
from ..base.text import printable
from .catalog import CRITICAL, DETAIL, INFO, WARNING, Event

VERSION = 1  # of a file in the inbox
TEXT = 500  # characters of an event's text
SUBJECT = 100  # characters of an event's subject
INBOX_LIMIT = 1000  # files in the inbox; without a working nut-notify they would fill the disk
JOURNAL = "run/systemd/journal/socket"
_NUMBERS = itertools.count()  # of the events that this process has reported
PRIORITIES = {DETAIL: 6, INFO: 5, WARNING: 4, CRITICAL: 2}  # severity -> the journal's priority

QueueWork = Callable[[Path, Callable[[], None]], None]
"""Runs work that writes a file, now or in a thread. The work may raise OSError or files.WriteError."""


class ReportEvent(Protocol):
    """Reports an event. Never raises, and never waits."""

    def __call__(self, name: str, subject: str, text: str = "") -> None:
        """Report an event. name: one of catalog.KINDS; subject: the UPS, machine, stage or guest; text: a sentence."""


def write_at_once(path: Path, work: Callable[[], None]) -> None:
    """Do work that writes a file now, for a program that may wait for its disk. An event that can't be written is lost."""
    with contextlib.suppress(OSError, files.WriteError):
        work()


def ignore_event(name: str, subject: str, text: str = "") -> None:
    """Report nothing: for a rehearsal, and for tests."""


def make_event(name: str, subject: str, text: str, at: float, source: str) -> Event:
    """Return an event whose texts are safe for a terminal, a log and a message. Raise ValueError for an unknown name."""
    return Event(name, printable(subject, SUBJECT), printable(text, TEXT), at, source)


def list_fields(event: Event) -> dict[str, str]:
    """Return the structured fields with which the journal records an event."""
    return {
        "MESSAGE": f"{event.title}{f': {event.text}' if event.text else ''}",
        "PRIORITY": str(PRIORITIES[event.kind.severity]),
        "SYSLOG_IDENTIFIER": "homelab-nut",
        "NUT_EVENT": event.name,
        "NUT_SEVERITY": event.kind.severity,
        "NUT_SUBJECT": event.subject,
        "NUT_SOURCE": event.source,
    }


def send_to_journal(fields: Mapping[str, str], root: Path = Path("/")) -> None:
    """Send an entry to the journal. It is lost if there is no journal or its socket is full."""
    text = "".join(f"{name}={value}\n" for name, value in fields.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(text.encode("utf-8", "backslashreplace"), str(root / JOURNAL))


class Reporter:
    """Reports the events of one of our programs, which runs as root."""

    def __init__(
        self, source: str, queue_work: QueueWork, wall: Callable[[], float] = time.time, root: Path = Path("/")
    ) -> None:
        """source: the part of our programs that reports."""
        self.source, self.queue_work, self.wall, self.root = source, queue_work, wall, root

    def __call__(self, name: str, subject: str, text: str = "") -> None:
        """Report an event. name: one of catalog.KINDS."""
        event = make_event(name, subject, text, self.wall(), self.source)
        send_to_journal(list_fields(event), self.root)
        # sorted by name is sorted by time
        path = self.root / paths.NOTIFY_INBOX / f"{event.at:017.6f}-{os.getpid()}-{next(_NUMBERS):06d}.json"
        # in the thread, because a disk may hang
        self.queue_work(path.parent, lambda: self._fill_inbox(path, event))

    def _fill_inbox(self, path: Path, event: Event) -> None:
        if not (self.root / paths.NOTIFY_POLICY).exists():
            return  # this host has no notifications
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if sum(1 for _file in path.parent.iterdir()) < INBOX_LIMIT:
            files.replace_private_file(path, records.dump_record(event, VERSION))


def name_host() -> str:
    """Return the short name of this host."""
    return socket.gethostname().partition(".")[0] or "this host"
