# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What all parts of a rehearsal share: its errors, the host that it is held on, and what the inner half of a drill is given."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

from ..base import hostnames, jsontext, paths
from ..base.clock import CLOCK, Clock
from ..base.systemd import Run
from ..conf import grammar
from ..shutdown.policy import VERSION, ShutdownPolicy, check_policy

CONF = Path("/etc/nut/upsmon.conf")

# NUT's defaults (clients/upsmon.c), in seconds; TrueNAS has them, and can't be told otherwise
TIMING = {"POLLFREQ": 5, "POLLFREQALERT": 5, "HOSTSYNC": 15, "DEADTIME": 15, "FINALDELAY": 5}

STARTING = 60.0
"""Seconds that NUT's programs have for being ready and logged in."""

ENDING = 5.0
"""Seconds that they have for their end, after which they are killed."""

LOOK = 0.2
"""Seconds from one look to the next."""

Output = Callable[[str], None]


class RehearsalError(Exception):
    """A rehearsal can't be held, or could not be ended; the message says why."""


class RehearsalRefused(RehearsalError):
    """There is none now, and nothing was done; the message says why, and what to do, a line each."""


class RehearsalStopped(RehearsalError):
    """Somebody wants it to end."""


@dataclass(frozen=True)
class RehearsalHost:
    """This host, as a rehearsal asks and works it."""

    run: Run  # runs a program of it
    program: Sequence[str] = ()  # our own, as its file is run
    names: hostnames.Resolve = hostnames.resolve_name  # gives the addresses of a name
    root: Path = Path("/")
    clock: Clock = CLOCK
    user: Callable[[], int] = os.geteuid

    @property
    def conf_path(self) -> Path:
        """Return where its upsmon.conf is."""
        return self.root / CONF.relative_to("/")

    @property
    def token_path(self) -> Path:
        """Return where a recorder writes its token. It is gone after a reboot; the kernel's own id of a boot is none of a container's."""
        return self.root / paths.SHUTDOWN_RUN / "live"

    def upsmon_conf(self) -> str | None:
        """Return the text of its upsmon.conf, None if it can't be read."""
        try:
            return self.conf_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None


@dataclass(frozen=True)
class Job:
    """What the inner half has to know, and can't look up."""

    policy: ShutdownPolicy  # of the machines alone: without UPSes and stages
    timing: Mapping[str, int]  # of the primary's upsmon, s
    runtime: float | None  # of the real UPS, s; None if it does not say
    outage: float  # s on battery, before that is low
    primary: str

    @property
    def time_limit(self) -> float:
        """Return after how many seconds it must be over, whatever happens."""
        wait = 2 * max(self.timing["POLLFREQ"], self.timing["POLLFREQALERT"])
        waits = self.timing["HOSTSYNC"] + self.timing["FINALDELAY"] + wait + self.timing["DEADTIME"]
        return math.ceil(STARTING + self.outage + waits + self.policy.longest + 60)

    def to_json(self) -> str:
        """Write it as one line of JSON."""
        return json.dumps({**asdict(self), "policy": {"version": VERSION, **asdict(self.policy)}})


def read_job(text: str) -> Job:
    """Read what dump() wrote. Raises RehearsalError."""
    try:
        data = jsontext.parse_json(text)
        data["policy"] = check_policy(data["policy"])
        return Job(**data)
    except (ValueError, TypeError, LookupError) as error:
        raise RehearsalError(f"what the drill was given can't be understood: {error}") from None


def read_timing(upsmon_conf: str) -> dict[str, int]:
    """Read the seconds that count from the text of an upsmon.conf, as upsmon does: what is no number is 0."""
    found = dict(TIMING)
    for name in found:
        value = grammar.find_directive(upsmon_conf, name)
        if value is not None:
            number = re.match(r"\s*([0-9]{1,9})", value)
            found[name] = int(number[1]) if number else 0
    return found


def name_primary(policy: ShutdownPolicy) -> str:
    """Return this host's name, or what tells it from the others if one of them is called so."""
    name = platform.node().partition(".")[0] or "this host"
    return f"{name} (this host)" if name in {machine.name for machine in policy.machines} else name


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM, SIGINT and SIGHUP call STOP. Nothing is broken off where it stands: what was started is ended in order."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda _number, _frame: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
