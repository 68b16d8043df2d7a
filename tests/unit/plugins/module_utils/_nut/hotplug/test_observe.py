# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import decide
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.observe import ReconcileError
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    APC,
    CPS,
    ENUMERATE,
    WANTED,
    HotplugMachine,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def stamps(root: Path) -> dict[Path, tuple[int, ...]]:
    """Return what changes of each file when it is written, without its access time."""
    seen = {path: path.stat() for path in root.rglob("*") if "bin" not in path.parts}
    return {path: (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns) for path, status in seen.items()}


def test_observation_changes_nothing(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.update_upsd()
    before = stamps(machine.root)
    look = machine.make_host().observe_host()
    assert look.has_changes
    assert look.steps[1:] == (
        f"{ENUMERATE}: [ups] is 051d:0002 at pci-0000:00:14.0-usb-0:1, which is new",
        "reload nut-server.service: sections were added to ups.conf or removed from it",
    )
    assert look.steps[0].startswith(f"write {machine.path}: [ups] is 051d:0002 American")
    assert "+[ups]\n" in look.render_diff()
    assert stamps(machine.root) == before
    assert machine.did == []


def test_systemd_failure_is_raised(machine: HotplugMachine) -> None:
    machine.run_systemctl = lambda words: (1, "no bus")  # type: ignore[method-assign]
    with pytest.raises(ReconcileError, match=r"can't ask systemd.*no bus"):
        machine.make_host().observe_host()


def test_unreadable_ups_conf_is_raised(machine: HotplugMachine) -> None:
    machine.path.unlink()
    machine.path.mkdir()
    with pytest.raises(ReconcileError, match=r"can't read .*ups\.conf"):
        machine.make_host().observe_host()


def test_unreachable_upsd_causes_no_restart_and_no_note(served: HotplugMachine) -> None:
    (served.folder / "upsd.conf").write_text("LISTEN 127.0.0.1 1\n")
    served.run_hotplug()
    assert served.did == []
    assert not served.leaves.exists()


def test_unreadable_sysfs_falls_back_to_lsusb(machine: HotplugMachine) -> None:
    machine.policy["sysfs"] = str(machine.root / "none")
    machine.scanner = (0, "")
    run = machine.run_command

    def with_lsusb(command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "lsusb":
            return 0, "Bus 001 Device 004: ID 051d:0002 American Power Conversion Uninterruptible Power Supply\n"
        return run(command)

    machine.run_command = with_lsusb  # type: ignore[method-assign]
    machine.run_hotplug()
    assert "ups" in machine.conf.sections
    assert [line for line in machine.said if "using lsusb instead" in line]


def test_without_sysfs_and_lsusb_observation_fails(machine: HotplugMachine) -> None:
    machine.policy["sysfs"] = str(machine.root / "none")
    run = machine.run_command
    machine.run_command = lambda command: (127, "not found") if command[0] == "lsusb" else run(command)  # type: ignore[method-assign]
    with pytest.raises(ReconcileError, match="USB bus"):
        machine.run_hotplug()


@pytest.fixture
def without_usb(machine: HotplugMachine) -> HotplugMachine:
    """A host whose kernel has no USB bus, and that has no lsusb."""
    shutil.rmtree(machine.bus.sysfs / "bus/usb")
    run = machine.run_command
    machine.run_command = lambda command: (127, "not found") if command[0] == "lsusb" else run(command)  # type: ignore[method-assign]
    return machine


@pytest.mark.parametrize("driver", ["dummy-ups", "snmp-ups", "usbhid-ups"])
def test_host_without_usb_needs_none_for_a_named_driver(without_usb: HotplugMachine, driver: str) -> None:
    text = f"[rack]\n    driver = {driver}\n    port = somewhere\n"
    without_usb.path.write_text(text)
    without_usb.run_hotplug()
    assert without_usb.path.read_text() == text
    assert without_usb.said == []


def test_host_without_usb_may_have_no_ups(without_usb: HotplugMachine) -> None:
    without_usb.run_hotplug()
    assert without_usb.conf.sections == {}


def test_host_without_usb_has_no_ups_for_an_auto_driver(without_usb: HotplugMachine) -> None:
    (without_usb.folder / "ups.conf.wanted").write_text("[rack]\n    driver = auto\n    port = auto\n")
    with pytest.raises(
        ReconcileError, match=r"no USB bus .*, and the driver of rack is auto.*name the driver in nut_server_devices"
    ):
        without_usb.run_hotplug()


def test_scanner_is_asked_about_unknown_driver(machine: HotplugMachine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.scanner = (0, 'USB:driver="nutdrv_qx",port="auto",vendorid="1234",productid="5678",bus="001"\n')
    machine.bus.plug_in("1-1", "1234:5678", hid=False)
    machine.run_hotplug()
    assert dict(machine.conf.sections["ups"].keys)["driver"] == "nutdrv_qx"
    machine.run_hotplug()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked


@pytest.mark.parametrize("ids", [APC, CPS])
def test_scanner_is_not_asked_about_known_driver(machine: HotplugMachine, ids: str) -> None:
    machine.bus.plug_in("1-1", ids, serial=None)
    machine.bus.plug_in("1-2", "8087:0024", hid=False)
    machine.run_hotplug()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked


def test_device_unknown_to_scanner_is_asked_about_once(machine: HotplugMachine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.bus.plug_in("1-1", "1234:5678", hid=False)
    machine.run_hotplug()
    assert machine.asked.count(["nut-scanner", "-U", "-q", "-P"]) == 1
    assert [line for line in machine.said if "is not served" in line]
    assert machine.is_quiet
    machine.run_hotplug()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked
    assert machine.said == []
    machine.bus.unplug_device("1-1")
    machine.run_hotplug()
    assert machine.memory.scanned == ()
    machine.bus.plug_in("1-1", "1234:5678", hid=False)
    machine.run_hotplug()
    assert machine.asked.count(["nut-scanner", "-U", "-q", "-P"]) == 1


def test_failed_scanner_is_asked_again(machine: HotplugMachine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.scanner = (255, "no such option")
    machine.bus.plug_in("1-1", "1234:5678", hid=False)
    machine.run_hotplug()
    assert [line for line in machine.said if "no such option" in line]
    assert not machine.leaves.exists()
    machine.run_hotplug()
    assert ["nut-scanner", "-U", "-q", "-P"] in machine.asked


def test_rule_with_driver_needs_no_scanner(machine: HotplugMachine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.policy["rules"] = [{"vendor": "1234", "driver": "nutdrv_qx"}]
    machine.bus.plug_in("1-1", "1234:5678", serial=None, hid=False)
    machine.run_hotplug()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked
    assert "ups" in machine.conf.sections


def test_ups_conf_is_completed_for_play(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    text, resolution = machine.make_host().complete_ups_conf(WANTED)
    conf = ups_conf.parse_ups_conf(text)
    assert dict(conf.sections["ups"].keys)["vendorid"] == "051d"
    assert conf.settings == (("maxretry", "3"),)
    assert text.startswith("# Written by Ansible\n")
    assert resolution.plugged["ups"].device.ids == APC
    assert machine.did == []


def test_play_overrides_edited_section(served: HotplugMachine) -> None:
    (served.folder / "ups.conf.wanted").write_text(WANTED)
    served.run_hotplug()
    served.path.write_text(
        served.path.read_text().replace("[ups]", "[ups]\n    pollfreq = 7")
        + "\n[mine]\n    driver = snmp-ups\n    port = x\n"
    )
    text, _resolution = served.make_host().complete_ups_conf(WANTED)
    assert "pollfreq" not in text
    assert "[mine]" not in text


def test_section_written_by_play_does_not_count_as_edited(served: HotplugMachine) -> None:
    """nut-hotplug's state still has the section from before the play."""
    wanted = WANTED + "    pollinterval = 5\n"
    text, resolution = served.make_host().complete_ups_conf(wanted)
    (served.folder / "ups.conf.wanted").write_text(wanted)
    served.path.write_text(text)
    served.make_host().note_written(text, resolution)
    served.bus.unplug_device("1-1")
    served.bus.plug_in("1-1", CPS, serial="CPS123456789")
    served.run_hotplug()
    assert not [line for line in served.said if "by hand" in line]
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"


def test_edit_equal_to_resolution_does_not_count_as_edited(served: HotplugMachine) -> None:
    wanted = WANTED + "    pollinterval = 5\n"
    text, _resolution = served.make_host().complete_ups_conf(wanted)
    (served.folder / "ups.conf.wanted").write_text(wanted)
    served.path.write_text(text)
    assert not served.run_hotplug().written
    assert served.memory.written["ups"] == ups_conf.render_sections([served.conf.sections["ups"]])


def test_edited_section_is_remembered_until_a_play(served: HotplugMachine) -> None:
    served.path.write_text(served.path.read_text().replace("[ups]", "[ups]\n    pollfreq = 7"))
    served.run_hotplug()
    assert served.memory.edited == {"ups": ups_conf.render_sections([served.conf.sections["ups"]])}
    (served.folder / "ups.conf.wanted").write_text(WANTED)
    text, resolution = served.make_host().complete_ups_conf(WANTED)
    served.path.write_text(text)
    served.make_host().note_written(text, resolution)
    served.run_hotplug()
    assert served.memory.edited == {}


def test_play_does_not_change_section_of_working_driver(machine: HotplugMachine) -> None:
    """The UPS was absent during the first play, and its driver found it by itself."""
    (machine.folder / "ups.conf.wanted").write_text(WANTED)
    machine.path.write_text('[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n')
    machine.units["nut-driver@ups.service"] = ("active", "enabled")
    machine.bus.plug_in("1-1", APC)
    machine.run_hotplug()
    text, _resolution = machine.make_host().complete_ups_conf(WANTED)
    assert "vendorid" not in text
    machine.status["ups"] = "ERR DATA-STALE"
    machine.update_upsd()
    text, _resolution = machine.make_host().complete_ups_conf(WANTED)
    assert "vendorid" in text
    # declared keys count for more than pins
    machine.status.clear()
    machine.update_upsd()
    text, _resolution = machine.make_host().complete_ups_conf(WANTED + "    serial = 5B.*\n")
    assert "5B.*" in text


def test_lsusb_alone_changes_no_existing_section(served: HotplugMachine) -> None:
    before = served.path.read_text()
    served.bus.unplug_device("1-1")
    shutil.rmtree(served.bus.sysfs / "bus")
    served.lsusb = f"Bus 001 Device 009: ID {APC} American Power Conversion\n"
    served.run_hotplug()
    assert served.path.read_text() == before


def test_lost_state_does_not_make_served_ups_new(served: HotplugMachine) -> None:
    (served.root / "state/state.json").unlink()
    begin = served.now
    served.run_hotplug()
    assert served.now - begin < decide.GRACE
    assert served.did == []


def test_lsusb_alone_gives_declared_ups_no_other_name(machine: HotplugMachine) -> None:
    """lsusb shows no serial numbers, so a UPS that a fixed section selects by serial could be taken for an unknown one."""
    fixed = '[rack]\n    driver = "usbhid-ups"\n    port = "auto"\n    serial = "5B1234T56789"\n'
    shutil.rmtree(machine.bus.sysfs / "bus")
    machine.lsusb = f"Bus 001 Device 009: ID {APC} American Power Conversion\n"
    text, resolution = machine.make_host().complete_ups_conf(fixed)
    assert list(ups_conf.parse_ups_conf(text).sections) == ["rack"]
    assert set(resolution.plugged) == {"rack"}
    # a name that accepts any UPS does not take it either
    text, resolution = machine.make_host().complete_ups_conf(
        fixed + '\n[other]\n    driver = "auto"\n    port = "auto"\n'
    )
    assert set(resolution.plugged) == {"rack"}


def test_nothing_changes_while_nut_is_reinstalled(served: HotplugMachine) -> None:
    (served.folder / "ups.conf.wanted").write_text(WANTED + "    waitbeforereconnect = 3\n")
    served.run_hotplug()
    before = served.path.read_text()
    served.bus.plug_in("1-2", CPS, serial="CPS123456789")
    outcome = served.run_hotplug(release=None)
    assert not [name for name in served.did if "driver@ups." in name]
    assert served.path.read_text().startswith(before)
    assert outcome.observation.is_incomplete


def test_emptied_wanted_file_leaves_sections_alone(served: HotplugMachine) -> None:
    (served.folder / "ups.conf.wanted").write_text("# emptied\n")
    outcome = served.run_hotplug()
    assert not [remark for remark in outcome.observation.remarks if "by hand" in remark]
    assert not outcome.changed


def test_found_sections_survive_play(served: HotplugMachine) -> None:
    served.bus.plug_in("1-2", CPS, serial="CPS123456789")
    served.run_hotplug()
    text, _resolution = served.make_host().complete_ups_conf(WANTED.replace("[ups]", "[rack]"))
    assert {"rack"} < set(ups_conf.parse_ups_conf(text).sections)
