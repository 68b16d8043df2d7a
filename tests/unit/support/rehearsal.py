# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A house for the tests of the rehearsals: its policy, its host, what upsd and systemd say there, and what was seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal.aftermath import Aftermath
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal.job import TIMING, Job, RehearsalHost
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal.notes import MachineNotes, Notes
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import ShutdownPolicy, check_policy

NAS = {"name": "nas", "addresses": ["192.0.2.20"], "shutdown_time": 60, "shutdown_limit": 120}
MEDIA = {"name": "media", "addresses": ["192.0.2.30", "2001:db8::30"], "shutdown_time": 5, "shutdown_limit": 40}
NEAR = {"name": "nas", "addresses": ["127.0.0.2"], "ports": [9], "shutdown_time": 60, "shutdown_limit": 120}
VM = {"name": "vm", "guest": {"kind": "qm", "id": 100}, "shutdown_time": 10, "shutdown_limit": 40}
CONF = """\
SHUTDOWNCMD "/bin/systemctl start --no-block nut-shutdown.service || /sbin/shutdown -h +0"
POWERDOWNFLAG /run/nut-killpower
HOSTSYNC 30
FINALDELAY 5
"""
ANSWERS = {
    "LIST UPS": 'BEGIN LIST UPS\nUPS ups "x"\nEND LIST UPS\n',
    "LIST VAR ups": (
        'BEGIN LIST VAR ups\nVAR ups ups.status "OL"\nVAR ups battery.runtime "900"\n'
        'VAR ups ups.delay.start "30"\nEND LIST VAR ups\n'
    ),
    "LIST CLIENT ups": "BEGIN LIST CLIENT ups\nCLIENT ups 127.0.0.1\nCLIENT ups 127.0.0.2\nEND LIST CLIENT ups\n",
    "GET VAR ups ups.status": 'VAR ups ups.status "OL"\n',
}


def make_policy(*machines: Any, **changes: Any) -> ShutdownPolicy:
    whole = {"version": 1, "upses": [], "machines": list(machines), "settle": 3, "reserve": 30, "timeout": 150}
    return check_policy({**whole, **changes})


def make_house(*machines: Any, **changes: Any) -> ShutdownPolicy:
    """Return a policy with a UPS and the given machines, two by default."""
    return make_policy(*(machines or (NAS, MEDIA)), **{"upses": [{"name": "ups"}], **changes})


def make_drill_job(*machines: Any, **changes: Any) -> Job:
    more = {"timing": {**TIMING, "HOSTSYNC": 30}, "runtime": 900.0, "outage": 10.0, "primary": "pve", **changes}
    return Job(make_policy(*(machines or (NAS, VM))), **more)


def make_notes(**changes: Any) -> Notes:
    machines = {"nas": MachineNotes(True), "media": MachineNotes(True)}
    return dataclasses.replace(Notes("t0", "b0", "pve", 1000.0, 1000.0, machines), **changes)


SEEN = make_notes(
    fsd=1002.0,
    ended=1080.0,
    machines={"nas": MachineNotes(True, 1008.0, 1068.5), "media": MachineNotes(True, 1007.5, 1010.0)},
    steps=((1002.0, "pve: upsmon set FSD"),),
)
AFTER = Aftermath(True, end=1120.0, guests=30.0, reason="all are down", poweroff=1079.5)


def resolve_name(name: str, seconds: float) -> tuple[str, ...]:
    assert seconds > 0
    if name == "nowhere":
        raise OSError(name)
    return (name,)


def make_host(root: Path, run: Any = None, *, conf: str | None = CONF, **changes: Any) -> RehearsalHost:
    """Return a host below ROOT with upsmon.conf, systemd and systemd-run. run: Systemd() by default."""
    host = RehearsalHost(
        run or RehearsalSystemd(), ["python", "me"], resolve_name, root, **{"user": lambda: 0, **changes}
    )
    if conf is not None:
        host.conf_path.parent.mkdir(parents=True, exist_ok=True)
        host.conf_path.write_text(conf)
    (root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    (root / "bin").mkdir(exist_ok=True)
    (root / "bin/systemd-run").touch(0o755)
    return host


class RehearsalSystemd:
    """systemctl, which reports an inactive gate and an active upsmon, and systemd-run. ran: every command."""

    def __init__(self, code: int = 0) -> None:
        self.code = code  # exit code of systemd-run
        self.ran: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.ran.append(list(command))
        if command[:2] != ["systemctl", "show"]:
            return (self.code, "Job failed.\n") if "systemd-run" in command[0] else (0, "")
        if command[-1] == "pve-guests.service":
            return 0, "LoadState=not-found\nActiveState=inactive\n"
        gate = "Id=a\nLoadState=loaded\nActiveState=inactive\nSubState=dead\nUnitFileState=static\nMainPID=0"
        upsmon = "Id=b\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=7"
        return 0, f"{gate}\n\n{upsmon}\n"


class Journal:
    """journalctl. entries: time and message id; "" for entries without a unit."""

    def __init__(self, *entries: tuple[float, str], code: int = 0) -> None:
        self.entries, self.code = entries, code
        self.asked: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        assert command[0] == "journalctl"
        assert "--output=json" in command
        self.asked.append(list(command))
        chosen = [entry for entry in self.entries if bool(entry[1]) == ("UNIT=pve-guests.service" in command)]
        if "--reverse" in command:
            chosen = chosen[::-1][:1]
        lines = [json.dumps({"__REALTIME_TIMESTAMP": f"{at * 1e6:.0f}", "MESSAGE_ID": kind}) for at, kind in chosen]
        return self.code, "".join(f"{line}\n" for line in [*lines, "no json"])
