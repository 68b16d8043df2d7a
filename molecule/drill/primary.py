# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A primary of this scenario, and the state that no drill may change."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from homelab import Lab
from homelab.podman import run_podman
from support import read_status, show_unit, wait_until
from testinfra.host import Host

INVENTORY = Path(__file__).resolve().parent / "inventory"
UNITS = ("nut-server", "nut-monitor", "nut-driver@ups")
UNIT = "nut-shutdown-drill"
SITES = {"pve8": ("truenas", "media"), "pve9": ("truenas9",)}


@dataclass
class DrillPrimary:
    """A primary and its secondaries; `before` is their state before the first test."""

    lab: Lab
    host: Host
    name: str
    secondaries: tuple[str, ...]
    before: dict[str, str] = field(default_factory=dict)

    def read_state(self) -> dict[str, str]:
        """Return what a shutdown, crash or FSD would change: start times of machines and daemons, states of NUT and the UPS."""
        found = {
            name: run_podman(
                "inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}", self.lab.container_name(name)
            ).stdout
            for name in (self.name, *self.secondaries)
        }
        found.update({unit: show_unit(self.host, unit) for unit in UNITS})
        found["gate"] = show_unit(self.host, "nut-shutdown.service", "ActiveState")
        found["killpower"] = str(self.host.file("/run/nut-killpower").exists)
        ups = json.loads(self.lab.control_ups(self.name, "status", "--json"))["upses"][0]
        found["the UPS"] = f"outlets {ups['outlets']}, to be cut in {ups['shutdown_in']}"
        return found

    def assert_unchanged(self) -> None:
        """Fail if the state has changed, a secondary has logged out, or something of a drill is left."""
        wait_until(lambda: show_unit(self.host, UNIT, "ActiveState") in ("inactive", ""), 30, "the drill's unit to end")
        assert self.read_state() == self.before
        assert read_status(self.host)[:1] == ["OL"]
        assert len(self.list_clients()) == 1 + len(self.secondaries)
        assert self.host.run("pgrep -f 'drill --insid[e]|^drill[-]|dummy[-]ups'").stdout == ""
        assert not self.host.file(f"/run/{UNIT}").exists

    def start_ssh(self, command: str) -> subprocess.Popen[str]:
        """Start a command on the primary by ssh."""
        return subprocess.Popen(
            ["ssh", "-F", str(self.lab.state / "ssh_config"), self.name, command],
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def list_clients(self) -> list[str]:
        """Return the addresses of the upsmons that are logged in to its upsd."""
        return self.host.run("upsc -c ups@localhost 2>/dev/null").stdout.split()
