# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make sure that guests are shut down at a poweroff while Proxmox VE is still starting them, or has failed to.

pve-guests.service is active only after all guests have been started. Until then, which without a quorum is for ever, a poweroff
ends it without its ExecStop=, and the guests are killed. Sources: pve-manager (services/pve-guests.service, bin/pve-startall-delay,
PVE/API2/Nodes.pm: startall, stopall), systemd 252 and 257; releases 8 and 9.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from ..base.systemd import MONITOR, Run
from ..base.text import one_line
from .cluster import read_quorum
from .guests import read_text

UNIT = "pve-guests.service"
STOP_UNIT = "nut-stop-guests.service"

# how long the start of the guests is interrupted, and after how many seconds with SIGKILL
INTERRUPT_SECONDS = 15.0
_KILL_SECONDS = 6.0
_PAUSE = 0.5
# how long Proxmox VE's stopall may take at the poweroff, in seconds. Each guest has its own timeout, and they stop in groups
STOP_LIMIT = 1800

_STOPALL = "/usr/bin/pvesh --nooutput create /nodes/localhost/stopall"
# At the poweroff the order is reversed: it stops the guests when pve-guests.service has ended, and before these end
_AFTER = ("pve-cluster.service", "pve-ha-lrm.service", "lxc.service", "remote-fs.target", "network.target", MONITOR)

Log = Callable[[str], None]
Clock = Callable[[], float]
Pause = Callable[[float], None]

STARTING = "activating"
# The unit's states in which systemd runs its ExecStop= at a poweroff, or runs it already
_STOPS_GUESTS = ("active", "deactivating", "reloading")


def read_state(run: Run) -> str:
    """Return the state of pve-guests.service, such as STARTING; "" without such a unit, or if systemd does not answer."""
    return _show(run).get("ActiveState", "")


@dataclass(frozen=True)
class GuestStart:
    """How far Proxmox VE is with the start of its guests after a boot."""

    state: str  # of pve-guests.service
    message: str = ""  # what is special about it, "" if all guests have been started
    remedy: str = ""  # what the user can do, "" if nothing is necessary
    is_endless: bool = False  # it does not end by itself


def observe_start(run: Run, root: Path = Path("/")) -> GuestStart:
    """Return how far Proxmox VE is with the start of its guests. Raises GuestsError."""
    shown = _show(run)
    state = shown.get("ActiveState", "")
    look = f"systemctl status {UNIT}"
    if state == "failed":
        message = f"{UNIT} has failed: Proxmox VE may not have started all of its guests"
        return GuestStart(state, message, f"{look}; start the missing guests by hand: qm start, pct start")
    if state != STARTING:
        return GuestStart(state)
    starting = f"{UNIT} is still starting"
    quorum = read_quorum(root)
    if quorum and not quorum.is_there:
        nodes = " and ".join(quorum.offline)
        message = f"{starting}: waiting for quorum{f' ({nodes} offline)' if nodes else ''}. Until then no guest starts, also not by hand"
        remedy = f"start {nodes or 'the other nodes'}; if they stay off: pvecm expected {quorum.online}"
        return GuestStart(state, message, remedy, is_endless=True)
    if _has_pid(shown, "ControlPID") and not _has_pid(shown, "MainPID"):
        match = re.search(
            r"^startall-onboot-delay:[ \t]*([0-9]+)", read_text(root / "etc/pve/local/config"), re.MULTILINE
        )
        what = f"the delay of {match.group(1)} s (startall-onboot-delay)" if match else ""
        charge = "the charge of the battery (nut_server_return)"
        return GuestStart(state, f"{starting}: waiting for {what or charge}. Then the guests start")
    return GuestStart(state, f"{starting} its guests, one after the other")


def describe_state(state: str) -> str:
    """Return what a shutdown does about the guests that Proxmox VE is starting, for a drill."""
    if not state:
        return ""
    if state in _STOPS_GUESTS:
        return f"{UNIT} is {state}: at the poweroff, Proxmox VE would shut down its guests"
    if state == STARTING:
        return f"{UNIT} is still starting guests: that would be interrupted, and {STOP_UNIT} would shut them down at the poweroff"
    return (
        f"{UNIT} is {state}, so Proxmox VE would not shut down its guests: {STOP_UNIT} would do it at the poweroff. "
        f"See systemctl status {UNIT}"
    )


def prepare_poweroff(run: Run, log: Log, *, clock: Clock = time.monotonic, pause: Pause = time.sleep) -> None:
    """Interrupt the start of guests, and have them shut down at the poweroff, unless Proxmox VE itself will do that. Never raises.

    Takes about INTERRUPT_SECONDS at most, plus the time limits of `run`.
    """
    state = read_state(run)
    if not state or state in _STOPS_GUESTS:
        return
    if state == STARTING:
        log(f"{UNIT} is still starting guests: interrupting it")
        began = clock()
        state = _interrupt_start(run, clock, pause)
        log(f"{UNIT} is {state or 'in an unknown state'} after {clock() - began:.1f} s")
    else:
        log(f"{UNIT} is {state}: Proxmox VE will not shut down its guests")
    code, said = run(_stop_command())
    if code and "already" not in said:
        log(f"can't have the guests shut down at the poweroff: {one_line(said) or code}. They lose their power")
    else:
        log(f"{STOP_UNIT} will shut down the guests at the poweroff, within {STOP_LIMIT} s")


def _interrupt_start(run: Run, clock: Clock, pause: Pause) -> str:
    """Kill what the unit runs until it has ended starting, and return its state then.

    systemctl stop is refused (RefuseManualStop=). Before the start itself the unit may run a delay (ExecStartPre=), a control
    process; systemd goes on to the start if that is killed.
    """
    began = clock()
    while (shown := _show(run)).get("ActiveState") == STARTING and clock() - began < INTERRUPT_SECONDS:
        whom = next(
            (whom for whom, key in (("main", "MainPID"), ("control", "ControlPID")) if _has_pid(shown, key)), ""
        )
        if whom:
            name = "KILL" if clock() - began >= _KILL_SECONDS else "TERM"
            run(["systemctl", "kill", f"--kill-whom={whom}", f"--signal=SIG{name}", "--", UNIT])
        pause(_PAUSE)
    return shown.get("ActiveState", "")


def _has_pid(shown: Mapping[str, str], key: str) -> bool:
    return shown.get(key, "0") not in ("", "0")


def _stop_command() -> list[str]:
    """Return the command that has the guests stopped when this host powers off.

    In a unit of its own: children of nut-shutdown.service would be in its sandbox, in which guests can't be stopped.
    """
    return [
        "systemd-run",
        "--quiet",
        "--collect",
        f"--unit={STOP_UNIT}",
        "--description=Shut down the guests that Proxmox VE does not shut down",
        "--service-type=oneshot",
        "--remain-after-exit",
        f"--property=Before={UNIT}",
        *(f"--property=After={unit}" for unit in _AFTER),
        f"--property=ExecStop={_STOPALL}",
        f"--property=TimeoutStopSec={STOP_LIMIT}",
        "/bin/true",
    ]


def _show(run: Run) -> dict[str, str]:
    """Return the unit's properties; {} without such a unit."""
    code, said = run(["systemctl", "show", "--property=LoadState,ActiveState,MainPID,ControlPID", "--", UNIT])
    shown = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    return {} if code or shown.get("LoadState") != "loaded" else shown
