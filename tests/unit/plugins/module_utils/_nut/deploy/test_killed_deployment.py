# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deployment that is killed, and what runs next: another play, or the agent, also after a reboot."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files as base_files
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import sets, systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import actions, apply
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import deployment as deploy_deployment
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import reconcile
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import policy
from ansible_collections.homelab.nut.tests.unit.support import killed
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, serve_answers
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import APC, HotplugMachine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import ModuleType

pytestmark = pytest.mark.slow

DRIVER = "nut-driver@ups.service"
READS = {
    DRIVER: ("ups.conf",),
    systemd.SERVER: ("nut.conf", "upsd.conf", "upsd.users"),
    systemd.MONITOR: ("nut.conf", "upsmon.conf"),
}


class Primary(HotplugMachine):
    """A host whose units remember the files they were started with, even if the process that started them was killed."""

    def __init__(self, root: Path, server: FakeUpsd) -> None:
        super().__init__(root, server)
        self.loaded: dict[str, dict[str, str]] = {}
        self.units.update(
            {
                **dict.fromkeys(READS, ("active", "enabled")),
                systemd.ALL: ("active", "enabled"),
                systemd.DRIVERS: ("active", "enabled"),
                systemd.ENUMERATOR: ("inactive", "enabled"),
                systemd.WATCHER: ("inactive", "disabled"),
            }
        )
        self.old = self.files("secret1", "", 15)
        self.new = self.files("secret2", "    ignorelb\n", 20)
        for name, text in self.old.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o640)
        (root / "systemd/nut-driver.target.wants").mkdir(parents=True)
        (root / "systemd/nut-driver.target.wants" / DRIVER).touch()
        self.bus.plug_in("1-1", APC)
        self.run_hotplug()
        self.boots()
        self.run_hotplug()
        assert self.is_quiet

    def files(self, password: str, option: str, age: int) -> dict[str, str]:
        where = f"127.0.0.1 {self.server.port}"
        head = "# Written by Ansible (homelab.nut).\n"
        return {
            "nut.conf": f"{head}MODE=netserver\n",
            "upsd.users": f"{head}[monitor]\n    password = {password}\n    upsmon primary\n",
            "upsd.conf": f"{head}LISTEN {where}\nMAXAGE {age}\n",
            "ups.conf": f"{head}\n[ups]\n    driver = usbhid-ups\n    port = auto\n    vendorid = 051d\n{option}",
            "upssched.conf": f"{head}CMDSCRIPT /bin/true\n",
            "upsmon.conf": f"{head}MONITOR ups@127.0.0.1:{self.server.port} 1 monitor {password} primary\nMINSUPPLIES 1\n",
        }

    def run_systemctl(self, words: list[str]) -> tuple[int, str]:
        unit = words[-1]
        ran = self.units.get(unit, ("", ""))[0] == "active"
        result = super().run_systemctl(words)
        if unit in READS and (words[0] in ("restart", "reload") or (words[0] == "start" and not ran)):
            self.loaded[unit] = self.on_disk(unit)
        if words[0] not in ("show", "reset-failed"):
            (self.root / "systemd.json").write_text(json.dumps([self.units, self.loaded]))
        return result

    def on_disk(self, unit: str) -> dict[str, str]:
        return {name: (self.folder / name).read_text() for name in READS[unit]}

    def recall(self) -> None:
        """Read from the log what a killed process made systemd do."""
        if (self.root / "systemd.json").exists():
            found, self.loaded = json.loads((self.root / "systemd.json").read_text())
            self.units = {name: (active, enabled) for name, (active, enabled) in found.items()}

    def boots(self) -> None:
        """Start all units with the current files, with an empty /run, as after a reboot."""
        for path in self.room.iterdir():
            path.unlink()
        self.units.update(dict.fromkeys(READS, ("active", "enabled")))
        self.loaded = {unit: self.on_disk(unit) for unit in READS}

    def deployment(self, files: Mapping[str, str] | None) -> deploy_deployment.Deployment:
        return deploy_deployment.Deployment(
            files,
            self.make_local(lambda _name: None),
            reconcile.HotplugHost,
            policy=policy.check_policy({"sysfs": str(self.bus.sysfs), "dev": str(self.bus.dev)}),
        )

    def play(self, files: Mapping[str, str] | None) -> bool:
        """Deploy as the module config does. Returns whether anything was done."""
        deployment = self.deployment(files)
        with deployment.local.hold_lock(0):
            deployment = self.deployment(files)
            plan = deployment.plan_change()
            if plan:
                deployment.require_mains()
                deployment.apply_change(plan)
            deployment.remove_old_certificates()
        return bool(plan)

    def read(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir()}

    def is_new(self) -> bool:
        """Return whether the files are new; raise if they are neither new nor old, or something was left behind."""
        found = self.read()
        assert found in (self.old, self.new)
        assert not (self.root / "ours").exists() or not list((self.root / "ours").iterdir())
        assert not [path.name for path in self.room.iterdir() if path.name.startswith(".")]
        assert {path.stat().st_mode & 0o777 for path in self.folder.iterdir()} == {0o640}
        return found == self.new

    def is_half_done(self) -> bool:
        """Return whether a killed run left anything to do or to remove."""
        left = [*self.folder.glob(f"{base_files.PREFIX}*"), *self.root.glob("ours/*"), *self.room.glob("*pending.json")]
        return bool(left)

    def assert_taken_up(self) -> None:
        """Check that all units run with the current files."""
        assert {unit: self.units[unit] for unit in READS} == dict.fromkeys(READS, ("active", "enabled"))
        assert self.loaded == {unit: self.on_disk(unit) for unit in READS}
        assert not (self.room / "homelab-nut-pending.json").exists()


@pytest.fixture
def primaries(tmp_path: Path) -> Iterator[Callable[[], Primary]]:
    """Create one host after another."""
    shared = Path("/dev/shm")  # noqa: S108 - a disk that is fast to sync
    root = shared / f"homelab-nut-test-{os.getpid()}" if os.access(shared, os.W_OK) else tmp_path
    with serve_answers({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}) as server:

        def make() -> Primary:
            shutil.rmtree(root, ignore_errors=True)
            root.mkdir()
            return Primary(root, server)

        yield make
    shutil.rmtree(root)


def kill(
    host: Primary,
    files: Mapping[str, str] | None,
    line: int,
    modules: tuple[ModuleType, ...] = (deploy_deployment, apply, sets),
) -> bool:
    """Deploy and get killed at one line of the code that changes the host."""
    deployment = host.deployment(files)
    plan = deployment.plan_change()
    was_killed = killed.kill_at_line(line, lambda: deployment.apply_change(plan), modules, times=2)
    host.recall()
    return was_killed


def next_play(host: Primary) -> None:
    host.play(host.new)
    assert host.is_new()


def agent(host: Primary) -> None:
    assert not (host.is_half_done() and host.is_quiet)
    for _run in range(2):
        host.run_hotplug()
        host.now += 60
    assert host.is_quiet
    host.is_new()


def agent_after_a_reboot(host: Primary) -> None:
    host.boots()
    agent(host)


@pytest.mark.parametrize(
    ("follows", "modules"),
    [
        (next_play, (deploy_deployment, apply, sets)),
        (agent, (deploy_deployment, apply, sets)),
        (agent_after_a_reboot, (sets,)),
    ],
)
def test_deployment_killed_at_each_line_is_completed(
    primaries: Callable[[], Primary], follows: Callable[[Primary], None], modules: tuple[ModuleType, ...]
) -> None:
    outcomes = []
    for line in itertools.count(1):
        host = primaries()
        was_killed = kill(host, host.new, line, modules)
        follows(host)
        host.assert_taken_up()
        outcomes.append(host.is_new())
        # sections that a play wrote do not count as edited by hand
        assert not [words for words in host.make_host().observe_host().remarks if "by hand" in words], line
        assert host.play(host.new) == (not outcomes[-1])
        host.assert_taken_up()
        assert host.is_new()
        if not was_killed:
            break
    assert outcomes == sorted(outcomes)
    assert outcomes[-1]
    assert follows is next_play or not outcomes[0]
    assert len(outcomes) > 60


def test_on_battery_files_are_completed_without_restarts(primaries: Callable[[], Primary]) -> None:
    for line in itertools.count(1):
        host = primaries()
        assert kill(host, host.new, line, (sets,))
        if (
            host.on_disk(systemd.SERVER) != host.loaded[systemd.SERVER]
            and host.on_disk(systemd.MONITOR) == host.loaded[systemd.MONITOR]
        ):
            break  # upsd.users has the new password, upsmon.conf the old one
    host.status["ups"] = "OB DISCHRG"
    host.run_hotplug()
    assert host.is_new()
    assert host.did == []
    assert not host.is_quiet
    waiting = [words for words in host.said if words.startswith("deferred: ")]
    assert {" ".join(words.split()[1:3]) for words in waiting} == {
        f"start {systemd.ENUMERATOR}",
        f"restart {DRIVER}",
        f"reload {systemd.SERVER}",
        f"restart {systemd.MONITOR}",
    }
    host.run_hotplug()
    assert host.did == []
    host.status.clear()
    agent(host)
    host.assert_taken_up()


def test_exited_upsmon_is_started_on_battery(primaries: Callable[[], Primary]) -> None:
    host = primaries()
    note = [
        {"verb": verb, "unit": unit, "reason": ""}
        for verb, unit in (("restart", systemd.MONITOR), ("restart", systemd.SERVER))
    ]
    (host.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    host.units[systemd.MONITOR] = ("failed", "enabled")
    host.status["ups"] = "OB DISCHRG"
    host.run_hotplug()
    assert host.did == [f"restart {systemd.MONITOR}"]


def test_reload_does_not_replace_pending_restart(primaries: Callable[[], Primary]) -> None:
    """The play owed a restart of upsd, and nut-hotplug has a reason of its own to reload it."""
    host = primaries()
    note = [{"verb": "restart", "unit": systemd.SERVER, "reason": "LISTEN changed"}]
    (host.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    host.bus.plug_in("1-2", APC, serial="another")
    host.run_hotplug()
    assert f"restart {systemd.SERVER}" in host.did
    assert f"reload {systemd.SERVER}" not in host.did


def test_removal_killed_at_any_line_is_completed(primaries: Callable[[], Primary]) -> None:
    for line in itertools.count(1, 2):
        host = primaries()
        was_killed = kill(host, None, line)
        host.play(None)
        assert host.read() == {name: actions.STUBS[name] for name in host.old}, line
        assert [host.units[unit][0] for unit in READS] == ["inactive"] * 3
        assert not (host.root / "ours").exists()
        if not was_killed:
            break


@pytest.mark.parametrize("follows", [next_play, agent])
def test_leftovers_of_killed_check_are_removed(
    primaries: Callable[[], Primary], follows: Callable[[Primary], None]
) -> None:
    host = primaries()
    scratch = host.room / f"{base_files.CHECK}x1y2"
    scratch.mkdir()
    (scratch / "upsd.users").write_text("password")
    follows(host)
    assert not scratch.exists()
