# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host on which our own programs are installed: a folder, and systemd."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.installation import (
    Installation,
    InstallPlan,
)

ME = (os.getuid(), os.getgid())
OWNERS = {"root": ME, "nut": ME}
FILES = {name: f"text of {name}\n" for name in kits.HOTPLUG.places}
RULES = "63-nut-hotplug.rules"
LOG = Path("/var/log/nut/hotplug.log")


class KitMachine:
    """A host with NUT, as far as an installation can see: a folder, and systemd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for place in kits.HOTPLUG.places.values():
            (root / place.path).parent.mkdir(parents=True, exist_ok=True)
        for folder in ("run/udev", "usr/local/sbin", "var/lib", "var/log/nut"):
            (root / folder).mkdir(parents=True)
        (root / "run/udev/control").touch()
        (root / "etc/nut/nut.conf").write_text("# ours\nMODE=netserver\n")
        (root / "etc/nut/ups.conf").touch()
        self.told: list[str] = []
        self.timer = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
        self.service = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
        self.refuses = ""
        self.sandbox = 0  # what a unit ends with that tries one

    def run_command(self, command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "systemd-run":
            return self.sandbox, ""
        if command[:2] == ["systemctl", "show"]:
            assert list(command[-2:]) == ["nut-hotplug.timer", "nut-hotplug.service"]
            blocks = [
                "".join(f"{key}={value}\n" for key, value in block.items()) for block in (self.timer, self.service)
            ]
            return (1, "no bus") if self.refuses == "show" else (0, "\n".join(blocks))
        self.told.append(" ".join(command))
        return (1, "no.\n") if self.refuses == self.told[-1] else (0, "")

    def install_kit(self, wanted: Mapping[str, str] | None = None) -> InstallPlan:
        installation = Installation(FILES if wanted is None else wanted, self.run_command, LOG, self.root, OWNERS)
        plan = installation.plan_install()
        installation.apply_plan(plan)
        self.timer = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "UnitFileState": "enabled",
            "NeedDaemonReload": "no",
        }
        self.service = {"LoadState": "loaded", "ActiveState": "inactive", "NeedDaemonReload": "no"}
        return plan

    def remove_kit(self) -> InstallPlan:
        installation = Installation(None, self.run_command, LOG, self.root, OWNERS)
        plan = installation.plan_install()
        installation.apply_plan(plan)
        return plan


SHUTDOWN = {name: f"text of {name}\n" for name in kits.SHUTDOWN.places}
NO_STAGES = {**SHUTDOWN, "nut-stages.service": ""}
NONE = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
RUNS = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}


class KitSystemd:
    """systemd, as far as these services can see, and how it starts units in their sandboxes. The watch of upsd runs, unless told."""

    def __init__(
        self, stages: Mapping[str, str] | None = None, watch: Mapping[str, str] | None = None, **service: str
    ) -> None:
        self.service = {**NONE, **service}
        self.stages = {**NONE, **(stages or {})}
        self.watch = dict(RUNS if watch is None else watch)
        self.running: tuple[str, ...] = ()
        self.sandbox: dict[str, int] = {}  # a line of a sandbox -> what a unit with it ends with
        self.tried: list[Sequence[str]] = []
        self.drop_ins: dict[str, str] = {}  # unit -> the paths of its drop-ins
        self.told: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "systemd-run":
            self.tried.append(command)
            return max((self.sandbox.get(word, 0) for word in command), default=0), ""
        if command[:2] == ["systemctl", "show"]:
            names = command[command.index("--") + 1 :]
            if "--property=DropInPaths" in command:
                return 0, "\n\n".join(f"DropInPaths={self.drop_ins.get(name, '')}" for name in names)
            if names != ["nut-stages.service", "nut-watch.service", "nut-shutdown.service"]:
                return 0, "\n\n".join(f"ActiveState={'in' * (name not in self.running)}active" for name in names)
            blocks = (self.stages, self.watch, self.service)
            return 0, "\n".join("".join(f"{key}={value}\n" for key, value in block.items()) for block in blocks)
        self.told.append(" ".join(command))
        return 0, ""


def gate_on(
    root: Path, systemd: KitSystemd, wanted: Mapping[str, str] | None, *, renewed: bool = False
) -> Installation:
    for place in kits.SHUTDOWN.places.values():
        if ".d/homelab-nut" not in place.path:
            (root / place.path).parent.mkdir(parents=True, exist_ok=True)
    log = Path("/var/log/nut/shutdown.log")
    return Installation(wanted, systemd, log, root, OWNERS, kits.SHUTDOWN, renewed)


SANDBOX = "# a comment\n[Service]\n# another\nProtectSystem=strict\nSystemCallFilter=~@mount\nNoNewPrivileges=yes\n"
SANDBOXED = {**SHUTDOWN, **dict.fromkeys(kits.SANDBOXES, SANDBOX)}
PENDING = "run/homelab-nut-pending.json"


def install_sandboxed(
    root: Path, systemd: KitSystemd, wanted: Mapping[str, str] = SANDBOXED
) -> tuple[Installation, InstallPlan]:
    """Bring a host to WANTED, on which a driver is enabled."""
    (root / "run").mkdir(exist_ok=True)
    (root / "etc/systemd/system/nut-driver.target.wants").mkdir(parents=True, exist_ok=True)
    (root / "etc/systemd/system/nut-driver.target.wants/nut-driver@ups.service").touch()
    installation = gate_on(root, systemd, wanted)
    plan = installation.plan_install()
    installation.apply_plan(plan)
    systemd.stages = dict(RUNS)
    return installation, plan
