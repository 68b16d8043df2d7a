# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.modules import usb_ups_info
from ansible_collections.homelab.nut.tests.unit.support.hotplug_host import UsbHost, run_module, usb_host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UsbHost]:
    with usb_host(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def run(host: UsbHost, capfd: pytest.CaptureFixture[str]) -> Any:
    def run_usb_ups_info(**options: Any) -> dict[str, Any]:
        result = run_module(usb_ups_info, capfd, **{"policy": host.policy, **options})
        assert host.told == []
        return result

    return run_usb_ups_info


@pytest.mark.parametrize("check_mode", [False, True])
def test_ups_is_listed_with_name_and_status(host: UsbHost, run: Any, check_mode: bool) -> None:
    host.bus.plug_in("1-1", serial="5B1234T56789")
    host.bus.plug_in("1-2", ids="046d:c31c", manufacturer="Logitech", product="Keyboard", serial=None, hid=False)
    result = run(_ansible_check_mode=check_mode)
    (ups,) = result.pop("devices")
    assert result == {"changed": False, "configured": True, "absent": [], "remarks": []}
    assert isinstance(ups.pop("accessible"), (bool, type(None)))
    assert ups == {
        "ids": "051d:0002",
        "manufacturer": "American Power Conversion",
        "product": "Back-UPS ES 700G FW:871.O4 .I USB FW:O4",
        "serial": "5B1234T56789",
        "serial_trusted": True,
        "bus": "001",
        "device": "002",
        "busport": "001",
        "port": "1-1",
        "place": "pci-0000:00:14.0-usb-0:1",
        "ups": True,
        "why": "NUT's table",
        "driver": "usbhid-ups",
        "name": "ups",
        "unserved": "",
        "status": ["OL", "CHRG"],
    }


def test_return_values_are_documented(host: UsbHost, run: Any) -> None:
    host.bus.plug_in()
    result = run()
    documented = yaml.safe_load(usb_ups_info.RETURN)
    assert set(result) - {"changed"} == set(documented)
    assert set(result["devices"][0]) == set(documented["devices"]["contains"])


def test_all_lists_other_devices_after_the_upses(host: UsbHost, run: Any) -> None:
    host.bus.plug_in("1-2", ids="046d:c31c", manufacturer="Logi\udcfftech", product="Keyboard", serial=None, hid=False)
    host.bus.plug_in("1-3")
    assert [device["port"] for device in run()["devices"]] == ["1-3"]
    ups, *others = run(all=True)["devices"]
    assert ups["port"] == "1-3"
    assert {device["port"] for device in others} == {"usb1", "1-2"}
    (keyboard,) = (device for device in others if device["port"] == "1-2")
    assert keyboard["manufacturer"] == "Logi\ufffdtech"
    assert (keyboard["ups"], keyboard["name"], keyboard["driver"], keyboard["why"]) == (False, "", "", "")


def test_absent_ups_is_listed_on_an_empty_bus(run: Any) -> None:
    result = run()
    assert (result["devices"], result["absent"]) == ([], ["ups"])


def test_unserved_ups_has_a_reason(host: UsbHost, run: Any) -> None:
    host.bus.plug_in("1-1")
    host.bus.plug_in("1-4", ids="0463:ffff", manufacturer="EATON", product="5E", serial="G123H45678")
    _first, second = run(policy={**host.policy, "default_name": ""})["devices"]
    assert (second["ids"], second["name"]) == ("0463:ffff", "")
    assert second["unserved"]


@pytest.mark.parametrize("conf", [None, "MODE=none\n"])
def test_host_without_nut_lists_future_names(host: UsbHost, run: Any, conf: str | None) -> None:
    path = host.root / "etc/nut/nut.conf"
    path.unlink() if conf is None else path.write_text(conf)
    host.bus.plug_in()
    result = run(policy={**host.policy, "default_name": "rack"})
    (ups,) = result["devices"]
    assert not result["configured"]
    assert (ups["name"], ups["status"], ups["ups"]) == ("rack", [], True)


def test_policy_is_read_from_the_host(host: UsbHost, run: Any) -> None:
    host.bus.plug_in(ids="1234:0001", hid=False)
    path = host.root / "etc/nut/hotplug.json"
    assert run()["devices"] == []
    path.write_text('{"sysfs": "%s", "dev": "%s", "patterns": ["1234:*"]}' % (host.bus.sysfs, host.bus.dev))  # noqa: UP031
    (ups,) = run(policy=None, policy_path=str(path))["devices"]
    assert ups["why"] == "pattern 1234:*"
    path.write_text('{"absent": "gone"}')
    result = run(policy=None, policy_path=str(path))
    assert result["failed"]
    assert result["msg"].startswith(f"{path}: $.absent")


def test_invalid_policy_fails(run: Any) -> None:
    result = run(policy={"nonsense": 1})
    assert result["failed"]
    assert "$.nonsense" in result["msg"]


def test_host_without_usb_has_no_devices(host: UsbHost, run: Any) -> None:
    (host.root / "sys").mkdir(exist_ok=True)
    for path in ("etc/nut/nut.conf", "none"):
        result = run(policy={"sysfs": str(host.root / "sys")})
        assert (result["devices"], result["remarks"]) == ([], [])
        (host.root / path).unlink(missing_ok=True)


def test_missing_bus_fails(host: UsbHost, run: Any) -> None:
    result = run(policy={"sysfs": str(host.root / "nowhere")})
    assert result["failed"]
    assert "lsusb" in result["msg"]
    (host.root / "etc/nut/nut.conf").unlink()
    assert run(policy={"sysfs": str(host.root / "nowhere")})["failed"]
