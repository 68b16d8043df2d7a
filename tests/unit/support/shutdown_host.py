# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host for tests of nut-shutdown's command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_shutdown

PLACES = {"policy": "shutdown.json", "state": "gate.json", "report": "last.json", "log": "log", "root": "."}
TAKES = {
    "status": "policy state report root",
    "guests": "policy report root",
    "check": "policy report root",
    "refresh": "policy report root",
    "drill": "policy",
    "record": "policy report",
    "fsd": "policy",
    "gate": "policy report root state log",
    "stages": "policy report root state log",
    "hold": "policy log",
    "watch": "state log",
}
"""The path options of each command."""
GUEST = {"name": "vm", "guest": {"kind": "qm", "id": 100}, "shutdown_time": 10, "shutdown_limit": 60}


class ShutdownProgram:
    """A host below a directory, on which the program runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out: list[str] = []
        self.err: list[str] = []
        self.slept: list[float] = []
        self.ran: list[list[str]] = []
        self.says = "status: stopped"
        self.lists: dict[str, str] = {}
        self.environment: dict[str, str] = {}

    def write_policy(self, **changes: Any) -> None:
        whole = {"version": 1, "upses": [], "machines": [GUEST], "settle": 3, "reserve": 30, "timeout": 100, **changes}
        (self.folder / "shutdown.json").write_text(json.dumps(whole))

    def by_systemd(self, unit: str = "nut-shutdown.service") -> None:
        """Run the following calls as the main process of a systemd unit."""
        self.environment = {"INVOCATION_ID": "5f", "SYSTEMD_EXEC_PID": str(os.getpid())}
        (self.folder / "proc/self").mkdir(parents=True, exist_ok=True)
        (self.folder / "proc/self/cgroup").write_text(f"0::/system.slice/{unit}\n")

    def run_qm(self, command: Any) -> tuple[int, str]:
        self.ran.append(list(command))
        return 0, self.lists.get(command[-2], "") if command[-1] == "list" else self.says

    def __call__(self, *words: str) -> int:
        taken = TAKES.get(words[0], "").split() if "--help" not in words else []
        return nut_shutdown.main(
            [*words, *(f"--{option}={self.folder / PLACES[option]}" for option in taken)],
            self.out.append,
            self.err.append,
            environment=self.environment,
            run=self.run_qm,
            sleep=self.slept.append,
        )

    def read_json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


def install_proxmox(folder: Path) -> None:
    local = folder / "etc/pve/local"
    for name in ("qemu-server", "lxc"):
        (local / name).mkdir(parents=True)
    (local / "qemu-server/101.conf").write_text("name: mail\ntags: nas\nscsi0: local:101/a.qcow2\n")
    (local / "qemu-server/103.conf").write_text("name: onnas\nstartup: down=40\nscsi0: nas:103/a.qcow2\n")
    (local / "qemu-server/104.conf").write_text("name: other\nscsi0: local:104/a.qcow2\n")
    (local / "qemu-server/105.conf").write_text("name: model\ntemplate: 1\ntags: nas\n")
    (local / "lxc/102.conf").write_text("hostname: films\nstartup: down=70\n")
    (folder / "etc/pve/storage.cfg").write_text("nfs: nas\n\tserver 192.0.2.20\n\tpath /mnt/pve/nas\n")


STAGES = [
    {"name": "nas", "on_battery": 60, "guests": [{"id": 101, "seconds": 90}, 999], "tags": ["none"], "seconds": 30},
    {"name": "late", "charge": 30, "guests": [101], "storage_of": ["192.0.2.20", "nowhere.invalid"]},
]
IDLE = [
    "stage nas: no guest here has the number 999",
    "stage nas: no guest here has the tag none",
    "stage late: can't resolve nowhere.invalid, so can't tell which guests use its storage",
]
"""The remarks about these stages on this host."""
