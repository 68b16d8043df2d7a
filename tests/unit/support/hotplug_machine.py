# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with a USB bus, NUT's files, systemd and upsd, for tests of nut-hotplug."""

from __future__ import annotations

import json
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
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, make_answers
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
ASLEEP = 100.0  # seconds that the host has slept: systemd's clock stood still meanwhile
ENUMERATE = "start nut-driver-enumerator.service"


class HotplugMachine:
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
        self.unreadable: set[str] = (
            set()
        )  # keys of ups.conf whose texts NUT can't read: a driver with such a key finds nothing
        # what a driver reads of its UPS when it starts, by section. Only of these drivers the kernel shows what they have open.
        self.ups_says: dict[str, str] = {}
        self.shows_files = (
            True  # whether the files that drivers have open may be read; otherwise sysfs shows who has a UPS
        )
        self.pids: dict[str, int] = {}
        self.journal: list[tuple[float, str, str]] = []  # (seconds ago, unit, line)
        self.values: dict[str, str] = {}  # variables that upsd serves of each UPS besides ups.status
        self.lsusb = ""
        self.ends_at = ""  # the command that finds its unit exited
        self.scanner: tuple[int, str] = (0, "")
        self.events: list[Any] = []  # called one after another while nut-hotplug pauses
        self.pauses: Any = lambda: None  # called at each pause
        self.boot = "boot"
        self.policy: dict[str, Any] = {}
        self.coarse = 0.0  # the shortest pause, in seconds
        self.systemctl_seconds = 0.0  # that each command of systemctl takes which starts or stops something
        self.start_seconds = 0.0  # that a driver's unit takes to become active
        self.find_seconds = 0.0  # after which upsd has data from an active driver
        self.begun: dict[str, float] = {}  # when each driver's unit was started

    # The parts of the host

    def run_command(self, command: Sequence[str]) -> tuple[int, str]:
        words = list(command)
        self.asked.append(words)
        if words[0] == "systemctl":
            return self.run_systemctl(words[1:])
        if words[0] == "nut-scanner":
            return self.scanner
        if words[0] == "lsusb":
            return 0, self.lsusb
        if words[0] == "setpriv":
            words = words[words.index("env") :]
            name = Path(next(word for word in words[1:] if "=" not in word)).name
            self.checked = (Path(words[1].partition("=")[2]) / "ups.conf").read_text()
            return 0, self.refuses.get(name, "Network UPS Tools")
        if words[0] == "journalctl":
            return 0, "\n".join(
                self.journal_line(*entry) for entry in self.journal if f"_SYSTEMD_UNIT={entry[1]}" in words
            )
        raise AssertionError(words)

    def journal_line(self, ago: float, unit: str, line: str) -> str:
        at = int((1_700_000_000 + self.now - ago) * 1e6)
        return json.dumps({"__REALTIME_TIMESTAMP": str(at), "_SYSTEMD_UNIT": unit, "MESSAGE": line})

    def run_systemctl(self, words: list[str]) -> tuple[int, str]:
        verb, names = words[0], words[words.index("--") + 1 :] if "--" in words else words[-1:]
        if verb == "show":
            blocks = []
            for name in names:
                active, enabled = self.units.get(name, ("", ""))
                ready = self.begun.get(name, -self.start_seconds) + self.start_seconds
                if active == "active" and self.now < ready:
                    active = "activating"
                load = "loaded" if active else "not-found"
                pid = self.pid_of(name) if active == "active" else 0
                blocks.append(
                    f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={enabled}\nMainPID={pid}\n"
                    f"StateChangeTimestampMonotonic={(ready - ASLEEP) * 1e6:.0f}\n"
                )
            return 0, "\n".join(blocks)
        if verb == "reset-failed":
            return 0, ""
        self.did.append(f"{verb} {names[0]}")
        self.now += self.systemctl_seconds
        if f"{verb} {names[0]}" == self.ends_at:
            self.units[names[0]] = ("failed", "enabled")
        if f"{verb} {names[0]}" in self.fails:
            return 1, "it failed"
        if names[0] == "nut-driver-enumerator.service":
            for name in self.conf.sections:
                unit = f"nut-driver@{name}.service"
                if unit not in self.units:
                    self.units[unit] = (self.state_after_start(unit), "enabled")
        else:
            active = {"stop": "inactive", "disable": "inactive"}.get(verb) or self.state_after_start(names[0])
            self.units[names[0]] = (active, self.units.get(names[0], ("", "enabled"))[1])
            if names[0].startswith("nut-driver@") and active == "active":
                self.open_device(names[0][len("nut-driver@") : -len(".service")])
        self.update_upsd()
        return 0, ""

    def state_after_start(self, unit: str) -> str:
        """Return the state of a unit that was just started."""
        section = self.conf.sections.get(unit.partition("@")[2].removesuffix(".service"))
        self.begun[unit] = self.now
        return "failed" if section and self.unreadable & {key for key, _value in section.keys} else "active"

    def pid_of(self, unit: str) -> int:
        return self.pids.setdefault(unit, 7 + len(self.pids))

    def open_device(self, name: str) -> None:
        """Let the driver of a section open its UPS, as it does when it starts: it reads the UPS, or finds none."""
        if name not in self.ups_says:
            return
        vendor = dict(self.conf.sections[name].keys).get("vendorid", "051d")
        found = [
            folder
            for folder in self.bus.sysfs.glob("bus/usb/devices/*-*")
            if (folder / "idVendor").exists() and (folder / "idVendor").read_text().strip() == vendor
        ]
        for device in found:
            self.bus.show_driver(device.name, "usbfs")
        if not self.shows_files:
            self.status[name] = self.ups_says[name] if found else "ERR DRIVER-NOT-CONNECTED"
            return
        folder = self.root / f"proc/{self.pid_of(f'nut-driver@{name}.service')}/fd"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "3").unlink(missing_ok=True)
        if found:
            bus, number = (int((found[0] / name).read_text()) for name in ("busnum", "devnum"))
            (folder / "3").symlink_to(self.bus.dev / f"bus/usb/{bus:03d}/{number:03d}")
        self.status[name] = self.ups_says[name] if found else "ERR DRIVER-NOT-CONNECTED"

    def has_data(self, unit: str) -> bool:
        """Return whether a driver runs and has had time to start and to find its UPS."""
        begun = self.begun.get(unit)
        is_ready = begun is None or self.now >= begun + self.start_seconds + self.find_seconds
        return self.units.get(unit, ("",))[0] == "active" and is_ready

    def update_upsd(self) -> None:
        """Set upsd's answers from the state of the units."""
        of = {
            name: self.status.get(
                name, "OL" if self.has_data(f"nut-driver@{name}.service") else "ERR DRIVER-NOT-CONNECTED"
            )
            for name in self.conf.sections
        }
        self.server.answers.update(make_answers(**of))
        for name, text in of.items():
            self.server.answers[f"GET VAR {name} ups.status"] = (
                f"{text}\n" if text.startswith("ERR") else f'VAR {name} ups.status "{text}"\n'
            )
            if self.values and not text.startswith("ERR"):
                lines = [f'VAR {name} {key} "{value}"\n' for key, value in {**self.values, "ups.status": text}.items()]
                self.server.answers[f"LIST VAR {name}"] = (
                    f"BEGIN LIST VAR {name}\n{''.join(lines)}END LIST VAR {name}\n"
                )

    def advance_clock(self, seconds: float) -> None:
        self.now += max(seconds, self.coarse)
        if self.start_seconds or self.find_seconds:
            self.update_upsd()
        self.pauses()
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

    def make_local(self, finder: Find) -> LocalNut:
        return LocalNut(
            self.run_command,
            conf_dir=self.folder,
            hotplug_state=self.root / "state/state.json",
            run_dir=self.room,
            manifest=self.root / "ours/set.json",
            unit_dir=self.root / "systemd",
            owner=(os.getuid(), os.getgid()),
            finder=finder,
        )

    def make_host(self, **more: Any) -> HotplugHost:
        rules = policy.check_policy({"sysfs": str(self.bus.sysfs), "dev": str(self.bus.dev), **self.policy})
        for driver in ("usbhid-ups", "nutdrv_qx", "dummy-ups"):
            (self.root / "bin" / driver).touch()
        given = {
            "release": (2, 8, 1),
            "udev_tables": [self.root / "rules"],
            "say": self.said.append,
            "boot": lambda: self.boot,
            "proc": self.root / "proc",
            **more,
        }
        return HotplugHost(
            rules,
            self.make_local(lambda name: path if (path := self.root / "bin" / name).exists() else None),
            clock=lambda: self.now,
            monotonic=lambda: self.now - ASLEEP,
            wall=lambda: 1_700_000_000.0 + self.now,
            pause=self.advance_clock,
            **given,
        )

    def run_hotplug(self, **more: Any) -> HotplugOutcome:
        """Run nut-hotplug once. Forget what was done before."""
        self.did.clear()
        self.said.clear()
        self.asked.clear()
        self.update_upsd()
        return self.make_host(**more).run()
