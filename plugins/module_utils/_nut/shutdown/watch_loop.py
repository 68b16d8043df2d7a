# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The watch over this host's upsd: asks it each second, and helps it when it says nothing. What to do, watch.py decides."""

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
ASK_SECONDS = 0.5
"""What upsd has for its answers; it needs a millisecond. upsmon waits 5 s, so upsd must be free again by then."""
AGAIN_SECONDS = 0.4
"""The same, and the pause before, while it is known to say nothing."""
AGAIN_PAUSE = 0.2
SAMPLE_SECONDS = 0.1
"""Between two looks at the connections."""
LISTEN_INTERVAL = 30.0
SAVE_INTERVAL = 60.0
"""Between two saves of the memory where nothing is news: how much is written must not be up to who attacks upsd."""


@dataclass
class UpsdWatcher:
    """The loop, and what it knows. log takes a line for people; save the text of the memory. alive is called in each round."""

    upsd_conf: Path
    memory: watch.Memory
    log: Callable[[str], None]
    save: Callable[[str], None]
    run: systemd.Run
    alive: Callable[[], None]
    clock: Clock = CLOCK
    process: UpsdProcess | None = field(default=None, init=False)
    last_words: dict[str, str] = field(default_factory=dict, init=False)  # of each UPS, about its power
    floods: watch.Floods = field(default_factory=watch.Floods, init=False)
    _client: UpsdClient | None = field(default=None, init=False)
    _closed: frozenset[int] = field(default=frozenset(), init=False)  # sockets that upsd, being stopped, may still have
    _told: set[str] = field(default_factory=set, init=False)
    _listened: float = field(default=0.0, init=False)
    _deaf: tuple[str, ...] = field(default=(), init=False)
    _saved: float = field(default=0.0, init=False)
    _unsaved: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Begin now."""
        self.silence = watch.Silence(self.clock.now())

    def watch_forever(self) -> None:
        """Go on for ever."""
        while True:
            self.alive()
            self.run_round()
            self.clock.sleep(AGAIN_PAUSE if self.silence.asks else INTERVAL)

    def run_round(self) -> None:
        """Ask upsd once, and do what is to be done."""
        if self._unsaved and self.clock.now() - self._saved >= SAVE_INTERVAL:
            self.save_memory()
        try:
            try:
                statuses = self.ask_statuses(AGAIN_SECONDS if self.silence.asks else ASK_SECONDS)
            except (UpsdFailure, grammar.Unencodable, OSError):
                self.unblock_upsd(self.find_process())
                return
            self.silence = watch.Silence(self.clock.now())
            self.look_for_floods(self.find_process())
            self.check_listening(statuses)
        except ProcessEnded:
            self.lose_process()
        except (SocketAccessDenied, systemd.UnitError) as error:
            self.say_once(f"upsd can't be watched: {error}")

    @property
    def power_source(self) -> str:
        """Where the power comes from, as far as upsd said before it fell silent."""
        return watch.power_source(self.last_words.values())

    # Asking

    def ask_statuses(self, seconds: float) -> Mapping[str, str]:
        """Ask upsd for the status of each UPS. The connection stays, until it fails; what was heard before that counts."""
        if self._client is None:
            self._client = self.connect_upsd(seconds)
        try:
            self._client.timeout = seconds
            self._client.renew_timeout()
            names = self._client.list_ups()
            self.last_words = {name: self.last_words.get(name, "") for name in names}
            statuses = {}
            for name in names:
                statuses[name] = self.ask_status(self._client, name)
                self.last_words[name] = watch.latest_power_status(self.last_words[name], statuses[name])
        except (Unreachable, OSError):
            self._client.close()
            self._client = None
            raise
        return statuses

    def connect_upsd(self, seconds: float) -> UpsdClient:
        """Return a connection to upsd. It may be another release by now; one that does not answer is what it was.

        A connection alone is no answer: the kernel makes it, in the place of a upsd that hangs.
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
        """Return the status of a UPS; "" if its data are stale, which is an answer, too."""
        try:
            return client.get_var(name, "ups.status")
        except UpsdError:
            return ""

    def read_conf(self) -> str:
        """Return the text of upsd.conf, "" without one."""
        try:
            return self.upsd_conf.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""

    # The process

    def find_process(self) -> UpsdProcess:
        """Return upsd's process. A new one is told how long it may wait to write. Raises Gone if there is none."""
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
                self.say_once(f"can't reach upsd's connections ({error}): if upsd hangs, nut-watch can only restart it")
        return self.process

    def lose_process(self) -> None:
        """Forget a process that has ended: upsd does not hang, it is not there. systemd starts it again."""
        if self.process:
            self.process.close()
            self.process, self._closed = None, frozenset()
        self.silence = watch.Silence(self.clock.now())

    def read_sockets(self, process: UpsdProcess) -> Sockets:
        """Return the connections of upsd. Where they can't be had: whether it can be connected to, which is work for it."""
        try:
            return process.read_sockets()
        except SocketAccessDenied:
            return Sockets((), int(is_open(*local_upsd(self.read_conf())[0])))

    # What is done

    def look_for_floods(self, process: UpsdProcess) -> None:
        """Report who sends and does not read, though upsd, with its time limit, is not blocked by that."""
        for address in self.floods.note_look(self.read_sockets(process), self.clock.now()):
            words = f"{address} sends commands to upsd and does not read the answers. upsd drops its connections"
            self.record_event(watch.FLOODED, address, words)

    def unblock_upsd(self, process: UpsdProcess) -> None:
        """Close the connections that block upsd, or restart it, where it sleeps and none does."""
        before = self.read_sockets(process)
        self.clock.sleep(SAMPLE_SECONDS)
        now, activity, moment = self.read_sockets(process), process.read_activity(), self.clock.now()
        silent = moment - self.silence.since
        stuck = [found for found in watch.blocking_connections(before, now) if found.inode not in self._closed]
        if stuck:
            inodes = frozenset(connection.inode for connection in stuck)
            process.close_connections(inodes)
            self._closed |= inodes
            self.report_blocked(stuck, silent)
        self.silence = self.silence.with_look(moment, activity, now.has_work)
        due = watch.is_restart_due(
            self.silence,
            moment,
            activity,
            power=self.power_source,
            hasty=watch.is_hasty(self.memory.release),
            has_work=now.has_work,
        )
        if due and not stuck:
            self.restart_upsd(f"upsd said nothing for {silent:.0f} s")

    def report_blocked(self, stuck: Sequence[ClientConnection], silent: float) -> None:
        """Report whose connections were closed."""
        for address in sorted({connection.address for connection in stuck}):
            ports = sorted(connection.port for connection in stuck if connection.address == address)
            words = (
                f"{address} blocked upsd for {silent:.1f} s: it sent commands and did not read the answers. "
                f"Closed its connections from port {', '.join(map(str, ports[:8]))}{', ...' if len(ports) > 8 else ''}"
            )
            self.record_event(watch.BLOCKED, address, words)

    def restart_upsd(self, why: str) -> bool:
        """Restart upsd, which is killed: it would not hear a polite word. Return False where there were enough restarts."""
        moment = self.clock.now()
        if not self.memory.may_restart(moment):
            words = f"{why}. Not restarting it: it was restarted {watch.RESTARTS} times in the last hour"
            self.record_event(watch.LEFT, "", words)
            return False
        self.memory = self.memory.with_restart(moment)
        self.record_event(watch.RESTARTED, "", f"{why}. Restarted it")
        self.save_memory()  # before it is done, news or not: whatever happens then, it must count
        for command in (["kill", "--signal=KILL"], ["restart"]):
            code, said = self.run(["systemctl", *command, systemd.SERVER])
            if code:
                self.log(f"systemctl {command[0]} {systemd.SERVER} failed: {printable(said.strip())}")
        self.lose_process()
        return True

    # Where it listens

    def check_listening(self, statuses: Mapping[str, str]) -> None:
        """Restart upsd, on mains, if it does not listen on an address of upsd.conf that this host has by now."""
        moment = self.clock.now()
        if (
            not watch.is_mains_seen(self.last_words.values(), statuses.values())
            or moment - self._listened < LISTEN_INTERVAL
        ):
            return
        self._listened = moment
        deaf = tuple(join_host(*place) for place in upsd.read_listen_lines(self.read_conf()) if is_deaf(*place))
        again = tuple(place for place in deaf if place in self._deaf and place not in self.memory.tried)
        self._deaf = deaf
        if again:
            # once: what a restart does not mend, another one does not mend either. One that was not allowed is none
            before = self.memory.tried
            self.memory = replace(self.memory, tried=deaf)
            words = f"upsd does not listen on {', '.join(again)}, although LISTEN names it and this host has it"
            if not self.restart_upsd(words):
                self.memory = replace(self.memory, tried=before)
        elif not deaf and self.memory.tried:
            self.memory = replace(self.memory, tried=())
            self.save_memory()

    # What is told

    def record_event(self, kind: str, address: str, words: str) -> None:
        """Remember an event. It is told once, and then only counted for a while; a count is saved now and then."""
        moment = self.clock.wall()
        self.memory, is_news = self.memory.with_event(watch.WatchEvent(kind, address, words, moment, moment))
        self._unsaved = True
        if is_news:
            self.save_memory()
            self.log(words)

    def save_memory(self) -> None:
        """Hand over the memory, to be written."""
        self.save(watch.dump_memory(self.memory))
        self._saved, self._unsaved = self.clock.now(), False

    def say_once(self, words: str) -> None:
        """Tell what does not change by being told again."""
        if words not in self._told:
            self._told.add(words)
            self.log(words)


def is_deaf(address: str, port: int) -> bool:
    """Return whether an address is this host's, and nobody listens there. A name of a host is never deaf."""
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
    """Return whether something listens there; UNSURE if that can't be told."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    except OSError:
        return unsure
    return True
