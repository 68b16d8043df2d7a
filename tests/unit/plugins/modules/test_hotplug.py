# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.observation import diff_ups_conf
from ansible_collections.homelab.nut.plugins.modules import hotplug
from ansible_collections.homelab.nut.tests.unit.support.hotplug_host import (
    UPS_CONF,
    UsbHost,
    run_module,
    usb_host,
)

EATON = {"ids": "0463:ffff", "manufacturer": "EATON", "product": "5E", "serial": "G123H45678"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsbHost]:
    with usb_host(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def run(host: UsbHost, capfd: pytest.CaptureFixture[str]) -> Any:
    def run_it(**options: Any) -> dict[str, Any]:
        log = str(host.root / "var/log/nut/hotplug.log")
        return run_module(hotplug, capfd, **{"policy": host.policy, "log": log, "wait": 0, **options})

    return run_it


def test_healthy_host_is_not_changed(host: UsbHost, run: Any) -> None:
    host.bus.plug_in()
    result = run()
    assert result == {
        "changed": False,
        "actions": [],
        "msg": "nothing to do",
        "names": {
            "ups": {
                "ids": "051d:0002",
                "manufacturer": "American Power Conversion",
                "product": "Back-UPS ES 700G FW:871.O4 .I USB FW:O4",
                "serial": "5B1234T56789",
                "place": "pci-0000:00:14.0-usb-0:1",
                "driver": "usbhid-ups",
                "status": ["OL", "CHRG"],
                "error": "",
            }
        },
        "absent": [],
        "unserved": [],
        "deferred": [],
        "remarks": [],
    }
    assert host.told == []
    assert host.conf.read_text() == UPS_CONF


def test_returned_values_are_documented(host: UsbHost, run: Any) -> None:
    host.bus.plug_in()
    result = run()
    documented = yaml.safe_load(hotplug.RETURN)
    assert set(result) - {"changed"} == set(documented)
    assert set(result["names"]["ups"]) == set(documented["names"]["contains"])


def second(host: UsbHost) -> None:
    """Plug in an undeclared UPS beside one that is identified by its keys."""
    host.conf.write_text(f'{UPS_CONF}    vendorid = "051d"\n    snmp_password = "secret1"\n')
    host.conf.chmod(0o640)
    host.bus.plug_in("1-1")
    host.bus.plug_in("1-2", **EATON)
    host.serve_upses("ups", "ups2")


def test_second_ups_is_added(host: UsbHost, run: Any) -> None:
    second(host)
    result = run(_ansible_diff=True)
    assert result["changed"]
    assert set(result["names"]) == {"ups", "ups2"}
    assert result["names"]["ups2"]["ids"] == "0463:ffff"
    assert any(line.startswith("start nut-driver-enumerator.service: ") for line in result["actions"])
    assert result["msg"] == "; ".join(result["actions"])
    assert "[ups2]" in host.conf.read_text()
    (diff,) = result["diff"]
    assert "+[ups2]" in diff["prepared"]
    assert "start nut-driver-enumerator.service" in host.told
    assert "[ups2]" in (host.root / "var/log/nut/hotplug.log").read_text()
    again = run()
    assert (again["changed"], again["actions"]) == (False, [])
    assert "diff" not in again


def test_check_mode_changes_nothing(host: UsbHost, run: Any) -> None:
    second(host)
    before = host.conf.read_text()
    result = run(_ansible_check_mode=True)
    assert result["changed"]
    assert any(line.startswith("start nut-driver-enumerator.service: ") for line in result["actions"])
    assert "+[ups2]" in result["diff"][0]["prepared"]
    assert host.told == []
    assert host.conf.read_text() == before
    assert not (host.root / "var/lib/nut-hotplug").exists()
    assert not (host.root / "var/log/nut/hotplug.log").exists()
    assert not (host.root / "run/homelab-nut.lock").exists()


def test_diff_hides_secrets(host: UsbHost, run: Any) -> None:
    second(host)
    result = run(_ansible_check_mode=True)
    assert "secret1" not in str(result)


def test_changed_secret_shows_no_value() -> None:
    before, after = (
        f"[ups]\n    driver = snmp-ups\n    authPassword = {password}\n" for password in ("secret1", "secret2")
    )
    assert diff_ups_conf(before, after) == "/etc/nut/ups.conf: only a secret or a comment changes\n"


@pytest.mark.parametrize(("check_mode", "failed"), [(True, False), (False, True)])
def test_host_without_nut_fails(host: UsbHost, run: Any, check_mode: bool, failed: bool) -> None:
    (host.root / "etc/nut/nut.conf").unlink()
    result = run(_ansible_check_mode=check_mode)
    assert result.get("failed", False) == failed
    assert "make ups tags=ups" in result["msg"]
    if not failed:
        assert not result["changed"]
        assert result["msg"].startswith("can't tell what would be done. NUT")
        assert "warnings" not in result, "hotplug_service warns"
    assert list((host.root / "var").rglob("*.json")) == []


def test_ups_without_data_is_a_warning(host: UsbHost, run: Any) -> None:
    host.bus.plug_in()
    host.upsd.answers["LIST VAR ups"] = "ERR DATA-STALE\n"
    result = run()
    assert result["names"]["ups"]["status"] == []
    assert result["names"]["ups"]["error"] == "DATA-STALE"
    assert any(
        "ups (051d:0002) is plugged in, but upsd has no fresh data for it: DATA-STALE" in warning
        for warning in result["warnings"]
    )


def test_absent_and_unserved_upses_are_returned(host: UsbHost, run: Any) -> None:
    host.conf.write_text(f'{UPS_CONF}    vendorid = "051d"\n')
    host.conf.chmod(0o640)
    host.bus.plug_in("1-2", **EATON)
    result = run(policy={**host.policy, "default_name": ""})
    assert result["absent"] == ["ups"]
    assert [line.startswith("0463:ffff EATON 5E serial G123H45678 at ") for line in result["unserved"]] == [True]
    assert any("0463:ffff" in warning for warning in result["warnings"])


def test_deferred_work_is_returned(host: UsbHost, run: Any) -> None:
    """The driver of a fixed section hangs, while another UPS is on battery."""
    second(host)
    host.upsd.answers["LIST VAR ups"] = 'BEGIN LIST VAR ups\nVAR ups ups.status "OB"\nEND LIST VAR ups\n'
    before = host.told.copy()
    result = run()
    assert all(any(line in warning for warning in result["warnings"]) for line in result["deferred"])
    assert not [action for action in host.told if action not in before and action.startswith("restart nut-server")]


def test_failed_action_fails(host: UsbHost, run: Any) -> None:
    second(host)
    host.refuses = "start nut-driver-enumerator.service"
    result = run()
    assert result["failed"]
    assert result["msg"].startswith("failed: ")
    assert "Job failed." in result["msg"]
    assert "nut-driver-enumerator.service" in result["msg"]


@pytest.mark.parametrize("policy", [{"nonsense": 1}, {"rules": [{}]}])
def test_invalid_policy_fails(run: Any, policy: dict[str, Any]) -> None:
    result = run(policy=policy)
    assert result["failed"]
    assert result["msg"].startswith("$.")


def test_policy_of_host_is_default(host: UsbHost, run: Any) -> None:
    host.bus.plug_in(**EATON)
    path = host.root / "etc/nut/hotplug.json"
    path.write_text('{"sysfs": "%s", "dev": "%s"}' % (host.bus.sysfs, host.bus.dev))  # noqa: UP031
    assert list(run(policy=None, policy_path=str(path))["names"]) == ["ups"]
    path.write_text("{")
    result = run(policy=None, policy_path=str(path))
    assert result["failed"]
    assert str(path) in result["msg"]


def test_program_continues_with_state_of_module(host: UsbHost, run: Any) -> None:
    host.bus.plug_in()
    run()
    assert (host.root / "run/nut-hotplug.quiet").is_file()
    assert (host.root / "var/lib/nut-hotplug/state.json").is_file()
