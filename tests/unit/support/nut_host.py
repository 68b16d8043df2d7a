# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with NUT, simulated in a folder: its files, its units, and the commands that they get."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.apply import LocalNut
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.change import UnitAction
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import Deployment
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import reconcile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

UPS = "nut-driver@ups.service"
SPARE = "nut-driver@spare.service"
PRIMARY = {
    "nut.conf": "MODE=netserver\n",
    "upsd.users": '[monitor]\n    password = "secret1"\n    upsmon primary\n',
    "upsd.conf": 'LISTEN "127.0.0.1" 3493\nMAXAGE 15\n',
    "ups.conf": 'maxretry = 3\n\n[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n',
    "upssched.conf": "CMDSCRIPT /bin/true\n",
    "upsmon.conf": "MONITOR ups@localhost:3493 1 monitor secret1 primary\nMINSUPPLIES 1\nFINALDELAY 5\nSHUTDOWNCMD /bin/true\n",
}
SECONDARY = {
    "nut.conf": "MODE=netclient\n",
    "upssched.conf": "CMDSCRIPT /bin/true\n",
    "upsmon.conf": "MONITOR ups@192.0.2.1:3493 1 media secret2 secondary\nMINSUPPLIES 1\nSHUTDOWNCMD /bin/true\n",
}
TWO = PRIMARY["ups.conf"] + '\n[spare]\n    driver = "usbhid-ups"\n    port = "auto"\n'


def with_text(name: str, old: str, new: str, files: Mapping[str, str] | None = None) -> dict[str, str]:
    files = files or PRIMARY
    assert old in files[name]
    return {**files, name: files[name].replace(old, new)}


def healthy_units(*drivers: str, **changes: Unit) -> dict[str, Unit]:
    """Return the states of the units of a healthy host. changes: keyed by the last word of the unit's name."""
    running = Unit("active", "enabled", 1)
    found = {
        systemd.SERVER: replace(running, pid=11),
        systemd.MONITOR: replace(running, pid=12),
        systemd.ALL: replace(running, pid=0),
        systemd.DRIVERS: replace(running, pid=0),
        systemd.ENUMERATOR: Unit("inactive", "enabled", 0),
        systemd.WATCHER: Unit("inactive", "disabled", 0),
    }
    found.update({name: replace(running, pid=20 + number) for number, name in enumerate(drivers or (UPS,))})
    names = {"server": systemd.SERVER, "monitor": systemd.MONITOR, "watcher": systemd.WATCHER, "ups": UPS}
    found.update({names[name]: unit for name, unit in changes.items()})
    return found


def describe_actions(actions: Sequence[UnitAction]) -> list[str]:
    return [f"{action.verb} {action.unit}" for action in actions]


STOPPED = Unit("inactive", "enabled", 0)
FAILED = Unit("failed", "enabled", 0)
ENUMERATE = f"start {systemd.ENUMERATOR}"
RESTART_SERVER = f"restart {systemd.SERVER}"
RESTART_MONITOR = f"restart {systemd.MONITOR}"
STOP_UPS, START_UPS = f"stop {UPS}", f"start {UPS}"
RELOAD_SERVER = f"reload {systemd.SERVER}"
OFF = Unit("inactive", "disabled", 0)


SPARE_SECTION = '\n[spare]\n    driver = "usbhid-ups"\n    port = "auto"\n'


class NutSystemd:
    """A systemd whose units obey, and which records its commands."""

    def __init__(self, found: dict[str, Unit]) -> None:
        self.found = dict(found)
        self.told: list[str] = []
        self.refused: dict[str, str] = {}
        self.enumerator: Callable[[], None] = lambda: None
        self.journal: dict[str, str] = {}
        self.shipped = ""  # dpkg's list of files and checksums
        self.scanner = ""  # the output of nut-scanner
        self._pid = 1000

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        program, *words = command
        if program == "journalctl":
            return 0, self.journal.get(words[0].partition("=")[2], "")
        others = {"dpkg-query": (0, self.shipped), "nut-scanner": (0, self.scanner), "lsusb": (127, "not found")}
        if program in others:
            return others[program]
        assert program == "systemctl"
        names = words[words.index("--") + 1 :] if "--" in words else words[1:]
        if words[0] == "show":
            return 0, "\n".join(map(self._show_unit, names))
        (name,) = names
        verb = " ".join(word for word in words if word not in ("--", name))
        self.told.append(f"{verb} {name}")
        if self.told[-1] in self.refused:
            return 1, self.refused[self.told[-1]]
        if verb in ("start", "restart"):
            self.start_process(name)
            if name == systemd.ENUMERATOR:
                self.enumerator()
        return 0, ""

    def start_process(self, name: str) -> None:
        """Give a unit a new process."""
        self._pid += 1
        self.found[name] = Unit("active", "enabled", self._pid)

    def _show_unit(self, name: str) -> str:
        unit = self.found.get(name, ABSENT)
        load = "not-found" if unit == ABSENT else "loaded"
        return (
            f"Id={name}\nLoadState={load}\nActiveState={unit.active or 'inactive'}\n"
            f"UnitFileState={unit.enabled}\nMainPID={unit.pid}\n"
        )


class Place:
    """A host: folders for NUT's files and for /run, its systemd, and a clock that only advances by waiting."""

    def __init__(self, root: Path) -> None:
        self.folder, self.room, self.boot = root / "nut", root / "run", root / "nut-driver.target.wants"
        for folder in (self.folder, self.room, self.boot):
            folder.mkdir()
        self.manifest = root / "ours" / "set.json"
        self.systemd = NutSystemd(healthy_units())
        self.now = 0.0

    def write_files(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o640)

    def read_texts(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir() if path.is_file()}

    def make_deployment(self, new: Mapping[str, str] | None, **changes: Any) -> Deployment:
        def pause(seconds: float) -> None:
            self.now += seconds

        here: dict[str, Any] = {
            "conf_dir": self.folder,
            "run_dir": self.room,
            "hotplug_state": self.room / "state.json",
            "manifest": self.manifest,
            "unit_dir": self.boot.parent,
            "owner": (os.getuid(), os.getgid()),
            "runner": self.systemd,
            "finder": lambda _name: None,
        }
        local = LocalNut(**{name: changes.pop(name, value) for name, value in here.items()})
        return Deployment(new, local, reconcile.HotplugHost, clock=lambda: self.now, pause=pause, **changes)


def primary_at(port: int) -> dict[str, str]:
    files = with_text("upsmon.conf", "3493", str(port))
    return with_text("upsd.conf", "3493", str(port), files)


def secondary_at(port: int, ups: str = "ups") -> dict[str, str]:
    return with_text("upsmon.conf", "ups@192.0.2.1:3493", f"{ups}@127.0.0.1:{port}", SECONDARY)
