# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's units on a TrueNAS, without systemd: what the lab's stand-in starts and stops in unit tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from truenas.service import ServiceState

PID = 4242  # what the recordings show


@dataclass
class FakeUnits:
    """A ServiceRunner. With `log` upsmon fails to start. `pid_step` is between the process ids of two starts."""

    running: bool = False
    log: str = ""
    pid_step: int = 1
    pid: int = PID
    calls: list[str] = field(default_factory=list)
    files: Mapping[str, str] = field(default_factory=dict)
    drivers: set[str] = field(default_factory=set)  # units that nut-driver-enumerator has enabled

    @property
    def starts(self) -> int:
        return self.calls.count("start")

    def start_service(self, files: Mapping[str, str]) -> str:
        assert files
        self.pid += self.pid_step if self.starts else 0
        self.calls.append("start")
        self.files = files
        if "ups.conf" in files:
            self.drivers.update(f"nut-driver@{name}.service" for name in re.findall(r"^\[(.+)\]", files["ups.conf"]))
        self.running = not self.log
        return self.log

    def stop_service(self) -> None:
        self.calls.append("stop")
        self.running = False

    def read_state(self) -> ServiceState:
        return ServiceState(self.running, (self.pid,) if self.running else ())

    def read_failed_units(self) -> Mapping[str, str]:
        if "ups.conf" in self.files:
            return {}
        text = "upsdrvctl[7]: FATAL: The '/etc/nut/ups.conf' file does not exist or is not readable"
        return {unit: f"systemd[1]: {unit}: Failed with result 'exit-code'.\n{text}" for unit in sorted(self.drivers)}
