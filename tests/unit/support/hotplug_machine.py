# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with a USB bus, NUT's files, systemd and upsd, for tests of nut-hotplug."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.base.process import Find
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.apply import LocalNut
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import memory as hotplug_memory
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import quiet
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.act import HotplugOutcome
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.reconcile import HotplugHost
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import policy
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, answers
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import SysfsTree

if TYPE_CHECKING:
    from collections.abc import Sequence

APC, CPS = "051d:0002", "0764:0501"
RULES = """\
#  various models  - usbhid-ups
ATTR{idVendor}=="051d", ATTR{idProduct}=="0002", MODE="664", GROUP="nut"
#  various models  - usbhid-ups
ATTR{idVendor}=="0764", ATTR{idProduct}=="0501", MODE="664", GROUP="nut"
#  various models  - nutdrv_qx
ATTR{idVendor}=="0665", ATTR{idProduct}=="5161", MODE="664", GROUP="nut"
"""
WANTED = "# Written by Ansible\nmaxretry = 3\n\n[ups]\n    driver = auto\n    port = auto\n"
ENUMERATE = "start nut-driver-enumerator.service"


class Machine:
    """A host with a bus, files, systemd and upsd; drivers find their UPS as soon as they are started."""

    def __init__(self, root: Path, server: FakeUpsd) -> None:
        self.root, self.server = root, server
        self.bus = SysfsTree(root)
        self.bus.root_hub()
        self.folder, self.room = root / "nut", root / "run"
        for folder in (self.folder, self.room, root / "rules", root / "bin"):
            folder.mkdir()
        (root / "rules/62-nut-usbups.rules").write_text(RULES)
        (self.folder / "nut.conf").write_text("MODE=netserver\n")
        (self.folder / "ups.conf").write_text("")
        (self.folder / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {server.port}\n")
        self.now = 1000.0
        self.asked: list[list[str]] = []
        self.did: list[str] = []
        self.said: list[str] = []
        self.units: dict[str, tuple[str, str]] = {"nut-server.service": ("active", "enabled")}
        self.status: dict[str, str] = {}  # upsd's answer for each UPS; for others it follows from the unit
        self.refuses: dict[str, str] = {}  # driver -> the message with which it refuses its section
        self.fails: set[str] = set()  # commands of systemctl that fail
        self.lsusb = ""
        self.ends_at = ""  # the command that finds its unit exited
        self.scanner: tuple[int, str] = (0, "")
        self.events: list[Any] = []  # called one after another while nut-hotplug pauses
        self.boot = "boot"
        self.policy: dict[str, Any] = {}
        self.coarse = 0.0  # the shortest pause, in seconds

    # The parts of the host

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        words = list(command)
        self.asked.append(words)
        if words[0] == "systemctl":
            return self.systemctl(words[1:])
        if words[0] == "nut-scanner":
            return self.scanner
        if words[0] == "lsusb":
            return 0, self.lsusb
        if words[0] == "setpriv":
            words = words[words.index("env") :]
            name = Path(next(word for word in words[1:] if "=" not in word)).name
            self.checked = (Path(words[1].partition("=")[2]) / "ups.conf").read_text()
            return 0, self.refuses.get(name, "Network UPS Tools")
        raise AssertionError(words)

    def systemctl(self, words: list[str]) -> tuple[int, str]:
        verb, names = words[0], words[words.index("--") + 1 :] if "--" in words else words[-1:]
        if verb == "show":
            blocks = []
            for name in names:
                active, enabled = self.units.get(name, ("", ""))
                load = "loaded" if active else "not-found"
                pid = 7 if active == "active" else 0
                blocks.append(
                    f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={enabled}\nMainPID={pid}\n"
                )
            return 0, "\n".join(blocks)
        if verb == "reset-failed":
            return 0, ""
        self.did.append(f"{verb} {names[0]}")
        if f"{verb} {names[0]}" == self.ends_at:
            self.units[names[0]] = ("failed", "enabled")
        if f"{verb} {names[0]}" in self.fails:
            return 1, "it failed"
        if names[0] == "nut-driver-enumerator.service":
            for name in self.conf.sections:
                self.units.setdefault(f"nut-driver@{name}.service", ("active", "enabled"))
        else:
            active = {"stop": "inactive", "disable": "inactive"}.get(verb, "active")
            self.units[names[0]] = (active, self.units.get(names[0], ("", "enabled"))[1])
        self.serve()
        return 0, ""

    def serve(self) -> None:
        """Set upsd's answers from the state of the units."""
        running = list(self.conf.sections)
        of = {
            name: self.status.get(
                name,
                "OL"
                if self.units.get(f"nut-driver@{name}.service", ("",))[0] == "active"
                else "ERR DRIVER-NOT-CONNECTED",
            )
            for name in running
        }
        self.server.answers.update(answers(**of))
        for name, text in of.items():
            self.server.answers[f"GET VAR {name} ups.status"] = (
                f"{text}\n" if text.startswith("ERR") else f'VAR {name} ups.status "{text}"\n'
            )

    def pause(self, seconds: float) -> None:
        self.now += max(seconds, self.coarse)
        if self.events:
            self.events.pop(0)()

    # What tests check

    @property
    def path(self) -> Path:
        return self.folder / "ups.conf"

    @property
    def conf(self) -> ups_conf.UpsConf:
        return ups_conf.parse_ups_conf(self.path.read_text() if self.path.exists() else "")

    @property
    def memory(self) -> hotplug_memory.HotplugState:
        return hotplug_memory.load_state(self.root / "state/state.json")

    @property
    def leaves(self) -> Path:
        return self.room / "nut-hotplug.quiet"

    @property
    def is_quiet(self) -> bool:
        return quiet.is_quiet(str(self.leaves), self.now)

    def local(self, finder: Find) -> LocalNut:
        return LocalNut(
            self.run,
            conf_dir=self.folder,
            hotplug_state=self.root / "state/state.json",
            run_dir=self.room,
            manifest=self.root / "ours/set.json",
            unit_dir=self.root / "systemd",
            owner=(os.getuid(), os.getgid()),
            finder=finder,
        )

    def host(self, **more: Any) -> HotplugHost:
        rules = policy.check_policy({"sysfs": str(self.bus.sysfs), "dev": str(self.bus.dev), **self.policy})
        for driver in ("usbhid-ups", "nutdrv_qx", "dummy-ups"):
            (self.root / "bin" / driver).touch()
        given = {
            "release": (2, 8, 1),
            "udev_tables": [self.root / "rules"],
            "say": self.said.append,
            "boot": lambda: self.boot,
            **more,
        }
        return HotplugHost(
            rules,
            self.local(lambda name: path if (path := self.root / "bin" / name).exists() else None),
            clock=lambda: self.now,
            wall=lambda: 1_700_000_000.0 + self.now,
            pause=self.pause,
            **given,
        )

    def go(self, **more: Any) -> HotplugOutcome:
        """Run nut-hotplug once. Forget what was done before."""
        self.did.clear()
        self.said.clear()
        self.asked.clear()
        self.serve()
        return self.host(**more).run()
