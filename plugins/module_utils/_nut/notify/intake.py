# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What upsmon reports, and what this host knows of it: upsmon's events come from the user nut, so they are hostile input."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Callable

from ..base import files
from ..base.clock import format_time
from ..events.catalog import OF_UPSMON, Event
from ..events.report import make_event, name_host
from ..net.readings import read_variables
from ..shutdown.policy import ShutdownPolicy, UpsAddress

SIZE = 500  # bytes of a datagram
RATE, RATE_SECONDS = 40, 600.0
"""So many events of upsmon are believed in so many seconds; the rest is dropped."""

GROUP = "nut"
AskUpsd = Callable[[UpsAddress], "Mapping[str, str] | None"]
_SYSTEM = re.compile(r"[A-Za-z0-9][A-Za-z0-9@.:_\[\]-]{0,79}")


# The sender's end, as the user nut


def encode_event(environment: Mapping[str, str]) -> bytes:
    """Return the datagram for an event of upsmon, from the environment that it gives its NOTIFYCMD."""
    words = (environment.get("NOTIFYTYPE", ""), environment.get("UPSNAME", ""))
    return "\n".join(words).encode("utf-8", "backslashreplace")[:SIZE]


def send_event(data: bytes, path: Path) -> None:
    """Hand a datagram to nut-notify. Raise OSError if it is not there or too busy; never waits."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(data, str(path))


# The receiver's end, as root


def open_socket(path: Path, group: str | int = GROUP) -> socket.socket:
    """Return the socket that root and a group may send to. Raise OSError or LookupError."""
    gid = files.resolve_owner((0, group))[1]
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    listener.setblocking(False)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    os.chown(path, -1, gid, follow_symlinks=False)
    path.chmod(0o660)
    return listener


class Intake:
    """Reads upsmon's datagrams, within limits."""

    def __init__(self, listener: socket.socket, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """clock, wall: the seconds of a clock that never goes back, and since 1970."""
        self.listener, self.clock, self.wall = listener, clock, wall
        self.accepted: deque[float] = deque(maxlen=RATE)
        self._complained = False

    def read_events(self) -> list[Event]:
        """Return what has arrived. At most RATE datagrams are read at a time."""
        found: list[Event] = []
        for _datagram in range(RATE):
            try:
                data = self.listener.recv(SIZE)
            except OSError:
                break
            if (event := self._judge_datagram(data)) is not None:
                found.append(event)
        return found

    def _judge_datagram(self, data: bytes) -> Event | None:
        kind, _newline, system = data.decode("utf-8", "replace").partition("\n")
        name = OF_UPSMON.get(kind)
        if name is None or not (system == "" or _SYSTEM.fullmatch(system)):
            return None
        now = self.clock()
        if len(self.accepted) == RATE and now - self.accepted[0] < RATE_SECONDS:
            if self._complained:
                return None
            self._complained = True
            text = f"More than {RATE} in {RATE_SECONDS / 60:g} minutes. Further ones are dropped until there are fewer."
            return make_event("events-dropped", name_host(), text, self.wall(), "notify")
        self.accepted.append(now)
        self._complained = False
        return make_event(name, name_ups(system) or name_host(), "", self.wall(), "upsmon")


def name_ups(system: str) -> str:
    """Return how a message names a UPS: without its host if that is this one."""
    name, _at, host = system.partition("@")
    return name if host.rpartition(":")[0] in ("localhost", "127.0.0.1") or host == "localhost" else system


# What a message adds


def describe_power(event: Event, policy: ShutdownPolicy | None, ask: AskUpsd) -> str:
    """Return what upsd says about the UPS of an event, and when the machines would shut down; "" if there is nothing to say."""
    if event.name not in ("mains-failed", "battery-low", "mains-returned") or policy is None:
        return ""
    ups = next((each for each in policy.upses if event.subject in (each.name, str(each))), None)
    variables = None if ups is None else ask(ups)
    if variables is None:
        return ""
    reading = read_variables(variables)
    shown = []
    if reading.runtime is not None and event.name != "mains-returned":
        shown.append(
            f"{reading.runtime / 60:.0f} min left" if reading.runtime >= 90 else f"{reading.runtime:.0f} s left"
        )
    if reading.charge is not None:
        shown.append(f"charge {reading.charge:.0f} %")
    words = f"The battery has {' and '.join(shown)}." if shown else ""
    if event.name != "mains-failed" or reading.runtime is None or policy.runtime_low is None:
        return words
    at = event.at + max(reading.runtime - policy.runtime_low, 0.0)
    names = [machine.name for machine in policy.machines]
    return (
        f"{words} If the mains do not return, {list_machines(names)} at about {format_time(at)[11:16]}."
        if names
        else words
    )


def list_machines(names: Sequence[str]) -> str:
    """Return the subject and verb of a sentence about machines that shut down."""
    if len(names) == 1:
        return f"{names[0]} shuts down"
    return f"{', '.join(names[:-1])} and {names[-1]} shut down"
