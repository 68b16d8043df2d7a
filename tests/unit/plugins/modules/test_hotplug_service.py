# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils import _host, _service
from ansible_collections.homelab.nut.plugins.modules import hotplug_service
from ansible_collections.homelab.nut.tests.unit.support.hotplug_host import run_module
from ansible_collections.homelab.nut.tests.unit.support.kit_host import FILES, OWNERS, KitMachine


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KitMachine:
    found = KitMachine(tmp_path)
    monkeypatch.setattr(_host, "ROOT", tmp_path)
    monkeypatch.setattr(_service, "OWNERS", OWNERS)
    monkeypatch.setattr(_service, "make_runner", lambda _module: found.run_command)
    return found


@pytest.fixture
def run(machine: KitMachine, capfd: pytest.CaptureFixture[str]) -> Any:
    def run_it(**options: Any) -> dict[str, Any]:
        given = {} if options.get("state") == "absent" else {"files": FILES, "log": "/var/log/nut/hotplug.log"}
        return run_module(hotplug_service, capfd, **{**given, "wait": 0, **options})

    return run_it


def test_service_is_installed_and_removed(machine: KitMachine, run: Any) -> None:
    result = run(_ansible_diff=True)
    assert result["changed"]
    assert result["files"] == list(FILES)
    assert "systemctl start nut-hotplug.timer: not running" in result["actions"]
    assert "+text of hotplug.json\n" in result["diff"][0]["prepared"]
    assert set(result) - {"changed", "diff"} == set(yaml.safe_load(hotplug_service.RETURN))
    machine.install_kit()
    again = run()
    assert again == {"changed": False, "files": [], "removed": [], "actions": []}
    gone = run(state="absent")
    assert gone["changed"]
    assert str(machine.root / "etc/systemd/system/nut-hotplug.timer") in gone["removed"]
    assert not (machine.root / "etc/nut/hotplug.json").exists()


def test_check_mode_changes_nothing(machine: KitMachine, run: Any) -> None:
    result = run(_ansible_check_mode=True)
    assert result["changed"]
    assert result["files"] == list(FILES)
    assert machine.told == []
    assert not (machine.root / "etc/nut/hotplug.json").exists()
    assert not (machine.root / "run/homelab-nut.lock").exists()


@pytest.mark.parametrize("check_mode", [False, True])
def test_host_without_nut_fails(machine: KitMachine, run: Any, check_mode: bool) -> None:
    (machine.root / "etc/nut/nut.conf").unlink()
    result = run(_ansible_check_mode=check_mode)
    assert machine.told == []
    assert not (machine.root / "etc/udev/rules.d/63-nut-hotplug.rules").exists()
    if check_mode:
        assert (result["changed"], result["files"]) == (True, list(FILES))
        (warning,) = result["warnings"]
        assert "would be installed after NUT, which is not there yet" in str(warning)
    else:
        assert result["failed"]
        assert "make ups tags=ups" in result["msg"]


def test_removal_works_without_nut(machine: KitMachine, run: Any) -> None:
    """NUT was removed before."""
    machine.install_kit()
    (machine.root / "etc/nut/nut.conf").write_text("MODE=none\n")
    assert run(state="absent")["changed"]


def test_locked_host_fails(machine: KitMachine, run: Any) -> None:
    with (machine.root / "run/homelab-nut.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run()["failed"]
        assert machine.told == []
        assert not run(_ansible_check_mode=True).get("failed")
    assert run()["changed"]


def test_failed_systemctl_fails(machine: KitMachine, run: Any) -> None:
    machine.refuses = "systemctl start nut-hotplug.timer"
    result = run()
    assert result["failed"]
    assert result["msg"] == "systemctl start nut-hotplug.timer failed: no."
    assert result["files"] == list(FILES)


def test_present_requires_files(run: Any) -> None:
    assert "files must be" in run(files=None)["msg"]
    assert "files must be" in run(files={"x": "y"})["msg"]


def test_missing_group_nut_fails(machine: KitMachine, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_service, "OWNERS", {"root": OWNERS["root"]})
    monkeypatch.setattr("grp.getgrnam", {}.__getitem__)
    result = run()
    assert result["failed"]
    assert "nut" in result["msg"]
