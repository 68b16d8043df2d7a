# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-watch: polls this host's upsd every second, and unblocks or restarts it when it hangs. watch.py decides."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable

from ..base import systemd
from ..base.clock import CLOCK, Clock
from ..base.hostnames import LOOPBACK, join_host
from ..base.text import printable
from ..conf import grammar, upsd
from ..conf.upsd import local_upsd
from ..net.client import UpsdClient
from ..net.errors import Unreachable, UpsdError, UpsdFailure
from ..net.upsd_process import ClientConnection, ProcessEnded, SocketAccessDenied, Sockets, UpsdProcess
from . import watch

INTERVAL = 1.0
"""Seconds between two polls."""
ASK_SECONDS = 0.5
"""Time limit for upsd's answers, which take a millisecond. upsmon waits 5 s, so a hung upsd must be helped within that."""
SILENT_ASK_SECONDS = 0.4
"""The same, after a failed poll."""
SILENT_INTERVAL = 0.2
"""Seconds between two polls after a failed one."""
SAMPLE_SECONDS = 0.1
"""Seconds between two looks at the connections."""
LISTEN_INTERVAL = 30.0
"""Seconds between two checks of the LISTEN addresses."""
SAVE_INTERVAL = 60.0
"""Seconds between two saves of events that are only counted: an attacker must not control how much is written to the disk."""


@dataclass
class UpsdWatcher:
    """The loop of nut-watch."""

    upsd_conf: Path
    memory: watch.WatchMemory
    log: Callable[[str], None]
    save: Callable[[str], None]  # saves the text of the memory
    run: systemd.Run  # runs systemctl
    alive: Callable[[], None]  # called in each round
    clock: Clock = CLOCK
    process: UpsdProcess | None = field(default=None, init=False)
    last_statuses: dict[str, str] = field(default_factory=dict, init=False)  # UPS -> see watch.latest_power_status()
    floods: watch.FloodDetector = field(default_factory=watch.FloodDetector, init=False)
    _client: UpsdClient | None = field(default=None, init=False)
    _closed: frozenset[int] = field(
        default=frozenset(), init=False
    )  # inodes of closed sockets that upsd may still hold
    _logged_once: set[str] = field(default_factory=set, init=False)
    _listen_checked: float = field(default=0.0, init=False)  # when the LISTEN addresses were checked last
    _deaf: tuple[str, ...] = field(default=(), init=False)  # the addresses that failed that check
    _saved: float = field(default=0.0, init=False)  # when the memory was saved last
    _has_unsaved: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Start the silence now, until upsd answers."""
        self.silence = watch.UpsdSilence(self.clock.now())

    def watch_forever(self) -> None:
        """Run rounds for ever."""
        while True:
            self.alive()
            self.run_round()
            self.clock.sleep(SILENT_INTERVAL if self.silence.asks else INTERVAL)

    def run_round(self) -> None:
        """Poll upsd once, and help it if it does not answer."""
        if self._has_unsaved and self.clock.now() - self._saved >= SAVE_INTERVAL:
            self.save_memory()
        try:
            try:
                statuses = self.ask_statuses(SILENT_ASK_SECONDS if self.silence.asks else ASK_SECONDS)
            except (UpsdFailure, grammar.Unencodable, OSError):
                self.unblock_upsd(self.find_process())
                return
            self.silence = watch.UpsdSilence(self.clock.now())
            self.look_for_floods(self.find_process())
            self.check_listening(statuses)
        except ProcessEnded:
            self.lose_process()
        except (SocketAccessDenied, systemd.UnitError) as error:
            self.log_once(f"can't watch upsd: {error}")

    @property
    def power_source(self) -> str:
        """The source of power, from what upsd reported last."""
        return watch.power_source(self.last_statuses.values())

    # Polling upsd

    def ask_statuses(self, seconds: float) -> Mapping[str, str]:
        """Return the status of each UPS. Keep the connection until it fails; statuses received before that are remembered."""
        if self._client is None:
            self._client = self.connect_upsd(seconds)
        try:
            self._client.timeout = seconds
            self._client.renew_timeout()
            names = self._client.list_ups()
            self.last_statuses = {name: self.last_statuses.get(name, "") for name in names}
            statuses = {}
            for name in names:
                statuses[name] = self.ask_status(self._client, name)
                self.last_statuses[name] = watch.latest_power_status(self.last_statuses[name], statuses[name])
        except (Unreachable, OSError):
            self._client.close()
            self._client = None
            raise
        return statuses

    def connect_upsd(self, seconds: float) -> UpsdClient:
        """Connect to upsd, and note its release, which may have changed.

        The request is needed: the kernel accepts a connection even if upsd hangs.
        """
        host, port = local_upsd(self.read_conf())[0]
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(UpsdClient(host, port, seconds))
            release = client.get_version()
            stack.pop_all()
        if release != self.memory.release:
            self.memory = replace(self.memory, release=release)
            self.save_memory()
        return client

    @staticmethod
    def ask_status(client: UpsdClient, name: str) -> str:
        """Return the status of a UPS; "" if upsd answers with an error, such as DATA-STALE."""
        try:
            return client.get_var(name, "ups.status")
        except UpsdError:
            return ""

    def read_conf(self) -> str:
        """Return the text of upsd.conf; "" if it can't be read."""
        try:
            return self.upsd_conf.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""

    # The process of upsd

    def find_process(self) -> UpsdProcess:
        """Return upsd's process. Limit how long a new one may block in a write. Raise ProcessEnded if upsd is not running."""
        if self.process and self.process.has_ended():
            self.lose_process()
        if self.process is None:
            pid = systemd.show_units([systemd.SERVER], self.run)[systemd.SERVER].pid
            if not pid:
                raise ProcessEnded
            self.process = UpsdProcess(pid)
            try:
                self.process.limit_write_time()
            except SocketAccessDenied as error:
                self.log_once(f"can't reach upsd's connections ({error}): if upsd hangs, nut-watch can only restart it")
        return self.process

    def lose_process(self) -> None:
        """Forget a process that has ended, and its silence: systemd restarts it."""
        if self.process:
            self.process.close()
            self.process, self._closed = None, frozenset()
        self.silence = watch.UpsdSilence(self.clock.now())

    def read_sockets(self, process: UpsdProcess) -> Sockets:
        """Return upsd's connections. If they can't be read, return only whether it listens, which counts as work waiting."""
        try:
            return process.read_sockets()
        except SocketAccessDenied:
            return Sockets((), int(is_open(*local_upsd(self.read_conf())[0])))

    # Helping upsd

    def look_for_floods(self, process: UpsdProcess) -> None:
        """Report clients that send without reading, although the write limit keeps them from blocking upsd."""
        for address in self.floods.note_look(self.read_sockets(process), self.clock.now()):
            message = f"{address} sends commands to upsd and does not read the answers. upsd drops its connections"
            self.record_event(watch.FLOODED, address, message)

    def unblock_upsd(self, process: UpsdProcess) -> None:
        """Close the connections that block upsd, or restart it if it hangs and none does."""
        before = self.read_sockets(process)
        self.clock.sleep(SAMPLE_SECONDS)
        now, activity, moment = self.read_sockets(process), process.read_activity(), self.clock.now()
        silent = moment - self.silence.since
        blocking = [
            connection for connection in watch.blocking_connections(before, now) if connection.inode not in self._closed
        ]
        if blocking:
            inodes = frozenset(connection.inode for connection in blocking)
            process.close_connections(inodes)
            self._closed |= inodes
            self.report_blocked(blocking, silent)
        self.silence = self.silence.with_look(moment, activity, now.has_work)
        due = watch.is_restart_due(
            self.silence,
            moment,
            activity,
            power=self.power_source,
            hasty=watch.is_hasty(self.memory.release),
            has_work=now.has_work,
        )
        if due and not blocking:
            self.restart_upsd(f"upsd did not answer for {silent:.0f} s")

    def report_blocked(self, connections: Sequence[ClientConnection], silent: float) -> None:
        """Report which connections were closed, an event per address."""
        for address in sorted({connection.address for connection in connections}):
            ports = sorted(connection.port for connection in connections if connection.address == address)
            message = (
                f"{address} blocked upsd for {silent:.1f} s: it sent commands and did not read the answers. "
                f"Closed its connections from port {', '.join(map(str, ports[:8]))}{', ...' if len(ports) > 8 else ''}"
            )
            self.record_event(watch.BLOCKED, address, message)

    def restart_upsd(self, why: str) -> bool:
        """Kill and restart upsd, since a hung upsd ignores SIGTERM. Return False if it was restarted too often."""
        moment = self.clock.now()
        if not self.memory.may_restart(moment):
            message = f"{why}. Not restarting it: it was restarted {watch.RESTARTS} times in the last hour"
            self.record_event(watch.NOT_RESTARTED, "", message)
            return False
        self.memory = self.memory.with_restart(moment)
        self.record_event(watch.RESTARTED, "", f"{why}. Restarted it")
        self.save_memory()  # before the restart, so that it counts even if this program is killed
        for command in (["kill", "--signal=KILL"], ["restart"]):
            code, output = self.run(["systemctl", *command, systemd.SERVER])
            if code:
                self.log(f"systemctl {command[0]} {systemd.SERVER} failed: {printable(output.strip())}")
        self.lose_process()
        return True

    # The addresses on which upsd listens

    def check_listening(self, statuses: Mapping[str, str]) -> None:
        """On mains, restart upsd if it does not listen on an address of upsd.conf that this host has got since."""
        moment = self.clock.now()
        if (
            not watch.is_mains_seen(self.last_statuses.values(), statuses.values())
            or moment - self._listen_checked < LISTEN_INTERVAL
        ):
            return
        self._listen_checked = moment
        deaf = tuple(join_host(*place) for place in upsd.read_listen_lines(self.read_conf()) if is_deaf(*place))
        again = tuple(place for place in deaf if place in self._deaf and place not in self.memory.restarted_for)
        self._deaf = deaf
        if again:
            # only once per address, because another restart would not help either; one that was refused does not count
            before = self.memory.restarted_for
            self.memory = replace(self.memory, restarted_for=deaf)
            why = f"upsd does not listen on {', '.join(again)}, although LISTEN names it and this host has it"
            if not self.restart_upsd(why):
                self.memory = replace(self.memory, restarted_for=before)
        elif not deaf and self.memory.restarted_for:
            self.memory = replace(self.memory, restarted_for=())
            self.save_memory()

    # The log and the memory

    def record_event(self, kind: str, address: str, message: str) -> None:
        """Add an event to the memory. Log and save a new one at once; a repeated one is only counted, and saved later."""
        moment = self.clock.wall()
        self.memory, is_news = self.memory.with_event(watch.WatchEvent(kind, address, message, moment, moment))
        self._has_unsaved = True
        if is_news:
            self.save_memory()
            self.log(message)

    def save_memory(self) -> None:
        """Save the memory."""
        self.save(watch.dump_memory(self.memory))
        self._saved, self._has_unsaved = self.clock.now(), False

    def log_once(self, message: str) -> None:
        """Log a message unless it has been logged before."""
        if message not in self._logged_once:
            self._logged_once.add(message)
            self.log(message)


def is_deaf(address: str, port: int) -> bool:
    """Return whether an address is this host's, but nothing listens there. Always False for a host name."""
    numeric = {"*": "0.0.0.0"}.get(address, address)
    if not re.fullmatch(r"[0-9.]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%.+)?", numeric):
        return False
    try:
        family, *_unused, place = socket.getaddrinfo(numeric, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as trial:
            trial.bind((place[0], 0, *place[2:]))
    except OSError:
        return False
    return not is_open({"0.0.0.0": LOOPBACK, "::": "::1"}.get(numeric, numeric), port, unsure=True)


def is_open(address: str, port: int, *, unsure: bool = False) -> bool:
    """Return whether something listens there; `unsure` if that is unknown."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return unsure
    return True
