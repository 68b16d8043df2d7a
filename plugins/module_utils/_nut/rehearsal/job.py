# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shared by all parts of a rehearsal: its errors, its host, and the job that the inner half of a drill is given."""

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

# NUT's defaults (clients/upsmon.c), s; TrueNAS uses them and offers no setting
TIMING = {"POLLFREQ": 5, "POLLFREQALERT": 5, "HOSTSYNC": 15, "DEADTIME": 15, "FINALDELAY": 5}

STARTING = 60.0
"""Seconds for NUT's programs to start and log in."""

ENDING = 5.0
"""Seconds for NUT's programs to stop before they are killed."""

LOOK = 0.2
"""Seconds between two looks."""

Output = Callable[[str], None]


class RehearsalError(Exception):
    """A rehearsal can't run or could not finish; the message says why."""


class RehearsalRefused(RehearsalError):
    """A rehearsal was refused and nothing was done. The message has a line for each reason, with what to do."""


class RehearsalStopped(RehearsalError):
    """The rehearsal was stopped on request."""


@dataclass(frozen=True)
class RehearsalHost:
    """The host that a rehearsal runs on."""

    run: Run  # runs a program on it
    program: Sequence[str] = ()  # command line of nut-shutdown itself
    names: hostnames.Resolve = hostnames.resolve_name  # resolves a name to addresses
    root: Path = Path("/")
    clock: Clock = CLOCK
    user: Callable[[], int] = os.geteuid

    @property
    def conf_path(self) -> Path:
        """Return the path of upsmon.conf."""
        return self.root / CONF.relative_to("/")

    @property
    def token_path(self) -> Path:
        """Return the path of the recorder's token, which a reboot deletes. The kernel's boot id would miss a container's reboot."""
        return self.root / paths.SHUTDOWN_RUN / "live"

    def read_upsmon_conf(self) -> str | None:
        """Return the text of upsmon.conf; None if it can't be read."""
        try:
            return self.conf_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None


@dataclass(frozen=True)
class Job:
    """What the inner half must know but can't look up inside its sandbox."""

    policy: ShutdownPolicy  # its machines only, without UPSes and stages
    timing: Mapping[str, int]  # directives of the primary's upsmon, s
    runtime: float | None  # of the real UPS, s; None if not reported
    outage: float  # s on battery until the battery is low
    primary: str  # name of this host

    @property
    def time_limit(self) -> float:
        """Return the time limit of the whole drill in seconds."""
        wait = 2 * max(self.timing["POLLFREQ"], self.timing["POLLFREQALERT"])
        waits = self.timing["HOSTSYNC"] + self.timing["FINALDELAY"] + wait + self.timing["DEADTIME"]
        return math.ceil(STARTING + self.outage + waits + self.policy.timeout + 60)

    def to_json(self) -> str:
        """Return the job as one line of JSON."""
        return json.dumps({**asdict(self), "policy": {"version": VERSION, **asdict(self.policy)}})


def read_job(text: str) -> Job:
    """Parse what Job.to_json() wrote. Raises RehearsalError."""
    try:
        data = jsontext.parse_json(text)
        data["policy"] = check_policy(data["policy"])
        return Job(**data)
    except (ValueError, TypeError, LookupError) as error:
        raise RehearsalError(f"the job of the drill is malformed: {error}") from None


def read_timing(upsmon_conf: str) -> dict[str, int]:
    """Return upsmon's timing directives in seconds, parsed as upsmon does: a value that is not a number is 0."""
    timing = dict(TIMING)
    for name in timing:
        value = grammar.find_directive(upsmon_conf, name)
        if value is not None:
            number = re.match(r"\s*([0-9]{1,9})", value)
            timing[name] = int(number[1]) if number else 0
    return timing


def name_primary(policy: ShutdownPolicy) -> str:
    """Return this host's name, with "(this host)" appended if a machine of the policy has the same name."""
    name = platform.node().partition(".")[0] or "this host"
    return f"{name} (this host)" if name in {machine.name for machine in policy.machines} else name


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call STOP on SIGTERM, SIGINT and SIGHUP, so that everything started is stopped in order, not interrupted."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda _number, _frame: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
