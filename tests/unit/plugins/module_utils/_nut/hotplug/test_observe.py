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
    Machine,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def stamps(root: Path) -> dict[Path, tuple[int, ...]]:
    """Return what changes of each file when it is written, without its access time."""
    seen = {path: path.stat() for path in root.rglob("*") if "bin" not in path.parts}
    return {path: (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns) for path, status in seen.items()}


def test_observation_changes_nothing(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    machine.serve()
    before = stamps(machine.root)
    look = machine.host().observe_host()
    assert look.has_changes
    assert look.steps[1:] == (
        f"{ENUMERATE}: [ups] is 051d:0002 at pci-0000:00:14.0-usb-0:1, which is new",
        "reload nut-server.service: sections were added to ups.conf or removed from it",
    )
    assert look.steps[0].startswith(f"write {machine.path}: [ups] is 051d:0002 American")
    assert "+[ups]\n" in look.render_diff()
    assert stamps(machine.root) == before
    assert machine.did == []


def test_systemd_failure_is_raised(machine: Machine) -> None:
    machine.systemctl = lambda words: (1, "no bus")  # type: ignore[method-assign]
    with pytest.raises(ReconcileError, match=r"can't ask systemd.*no bus"):
        machine.host().observe_host()


def test_unreadable_ups_conf_is_raised(machine: Machine) -> None:
    machine.path.unlink()
    machine.path.mkdir()
    with pytest.raises(ReconcileError, match=r"can't read .*ups\.conf"):
        machine.host().observe_host()


def test_unreachable_upsd_causes_no_restart_and_no_note(served: Machine) -> None:
    (served.folder / "upsd.conf").write_text("LISTEN 127.0.0.1 1\n")
    served.go()
    assert served.did == []
    assert not served.leaves.exists()


def test_unreadable_sysfs_falls_back_to_lsusb(machine: Machine) -> None:
    machine.policy["sysfs"] = str(machine.root / "none")
    machine.scanner = (0, "")
    run = machine.run

    def with_lsusb(command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "lsusb":
            return 0, "Bus 001 Device 004: ID 051d:0002 American Power Conversion Uninterruptible Power Supply\n"
        return run(command)

    machine.run = with_lsusb  # type: ignore[method-assign]
    machine.go()
    assert "ups" in machine.conf.sections
    assert [line for line in machine.said if "using lsusb instead" in line]


def test_without_sysfs_and_lsusb_observation_fails(machine: Machine) -> None:
    machine.policy["sysfs"] = str(machine.root / "none")
    run = machine.run
    machine.run = lambda command: (127, "not found") if command[0] == "lsusb" else run(command)  # type: ignore[method-assign]
    with pytest.raises(ReconcileError, match="USB bus"):
        machine.go()


def test_scanner_is_asked_about_unknown_driver(machine: Machine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.scanner = (0, 'USB:driver="nutdrv_qx",port="auto",vendorid="1234",productid="5678",bus="001"\n')
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert dict(machine.conf.sections["ups"].keys)["driver"] == "nutdrv_qx"
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked


@pytest.mark.parametrize("ids", [APC, CPS])
def test_scanner_is_not_asked_about_known_driver(machine: Machine, ids: str) -> None:
    machine.bus.plug("1-1", ids)
    machine.bus.plug("1-2", "8087:0024", hid=False)
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked


def test_device_unknown_to_scanner_is_asked_about_once(machine: Machine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert machine.asked.count(["nut-scanner", "-U", "-q", "-P"]) == 1
    assert [line for line in machine.said if "is not served" in line]
    assert machine.is_quiet
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked
    assert machine.said == []
    machine.bus.unplug("1-1")
    machine.go()
    assert machine.memory.scanned == ()
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert machine.asked.count(["nut-scanner", "-U", "-q", "-P"]) == 1


def test_failed_scanner_is_asked_again(machine: Machine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.scanner = (255, "no such option")
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert [line for line in machine.said if "no such option" in line]
    assert not machine.leaves.exists()
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] in machine.asked


def test_rule_with_driver_needs_no_scanner(machine: Machine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.policy["rules"] = [{"vendor": "1234", "driver": "nutdrv_qx"}]
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked
    assert "ups" in machine.conf.sections


def test_ups_conf_is_completed_for_play(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    text, resolution = machine.host().complete_ups_conf(WANTED)
    conf = ups_conf.parse_ups_conf(text)
    assert dict(conf.sections["ups"].keys)["vendorid"] == "051d"
    assert conf.settings == (("maxretry", "3"),)
    assert text.startswith("# Written by Ansible\n")
    assert resolution.plugged["ups"].device.ids == APC
    assert machine.did == []


def test_play_overrides_edited_section(served: Machine) -> None:
    (served.folder / "ups.conf.wanted").write_text(WANTED)
    served.go()
    served.path.write_text(
        served.path.read_text().replace("[ups]", "[ups]\n    pollfreq = 7")
        + "\n[mine]\n    driver = snmp-ups\n    port = x\n"
    )
    text, _resolution = served.host().complete_ups_conf(WANTED)
    assert "pollfreq" not in text
    assert "[mine]" not in text


def test_section_written_by_play_does_not_count_as_edited(served: Machine) -> None:
    """nut-hotplug's state still has the section from before the play."""
    wanted = WANTED + "    pollinterval = 5\n"
    text, resolution = served.host().complete_ups_conf(wanted)
    (served.folder / "ups.conf.wanted").write_text(wanted)
    served.path.write_text(text)
    served.host().note_written(text, resolution)
    served.bus.unplug("1-1")
    served.bus.plug("1-1", CPS, serial="CPS123456789")
    served.go()
    assert not [line for line in served.said if "by hand" in line]
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"


def test_edit_equal_to_resolution_does_not_count_as_edited(served: Machine) -> None:
    wanted = WANTED + "    pollinterval = 5\n"
    text, _resolution = served.host().complete_ups_conf(wanted)
    (served.folder / "ups.conf.wanted").write_text(wanted)
    served.path.write_text(text)
    assert not served.go().written
    assert served.memory.written["ups"] == ups_conf.render_sections([served.conf.sections["ups"]])


def test_play_does_not_change_section_of_working_driver(machine: Machine) -> None:
    """The UPS was absent during the first play, and its driver found it by itself."""
    (machine.folder / "ups.conf.wanted").write_text(WANTED)
    machine.path.write_text('[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n')
    machine.units["nut-driver@ups.service"] = ("active", "enabled")
    machine.bus.plug("1-1", APC)
    machine.go()
    text, _resolution = machine.host().complete_ups_conf(WANTED)
    assert "vendorid" not in text
    machine.status["ups"] = "ERR DATA-STALE"
    machine.serve()
    text, _resolution = machine.host().complete_ups_conf(WANTED)
    assert "vendorid" in text
    # declared keys count for more than pins
    machine.status.clear()
    machine.serve()
    text, _resolution = machine.host().complete_ups_conf(WANTED + "    serial = 5B.*\n")
    assert "5B.*" in text


def test_lsusb_alone_changes_no_existing_section(served: Machine) -> None:
    before = served.path.read_text()
    served.bus.unplug("1-1")
    shutil.rmtree(served.bus.sysfs / "bus")
    served.lsusb = f"Bus 001 Device 009: ID {APC} American Power Conversion\n"
    served.go()
    assert served.path.read_text() == before


def test_lost_state_does_not_make_served_ups_new(served: Machine) -> None:
    (served.root / "state/state.json").unlink()
    begin = served.now
    served.go()
    assert served.now - begin < decide.GRACE
    assert served.did == []


def test_lsusb_alone_gives_declared_ups_no_other_name(machine: Machine) -> None:
    """lsusb shows no serial numbers, so a UPS that a fixed section selects by serial could be taken for an unknown one."""
    fixed = '[rack]\n    driver = "usbhid-ups"\n    port = "auto"\n    serial = "5B1234T56789"\n'
    shutil.rmtree(machine.bus.sysfs / "bus")
    machine.lsusb = f"Bus 001 Device 009: ID {APC} American Power Conversion\n"
    text, resolution = machine.host().complete_ups_conf(fixed)
    assert list(ups_conf.parse_ups_conf(text).sections) == ["rack"]
    assert set(resolution.plugged) == {"rack"}
    # a name that accepts any UPS does not take it either
    text, resolution = machine.host().complete_ups_conf(fixed + '\n[other]\n    driver = "auto"\n    port = "auto"\n')
    assert set(resolution.plugged) == {"rack"}


def test_nothing_changes_while_nut_is_reinstalled(served: Machine) -> None:
    (served.folder / "ups.conf.wanted").write_text(WANTED + "    waitbeforereconnect = 3\n")
    served.go()
    before = served.path.read_text()
    served.bus.plug("1-2", CPS, serial="CPS123456789")
    outcome = served.go(release=None)
    assert not [name for name in served.did if "driver@ups." in name]
    assert served.path.read_text().startswith(before)
    assert outcome.observation.is_incomplete


def test_emptied_wanted_file_leaves_sections_alone(served: Machine) -> None:
    (served.folder / "ups.conf.wanted").write_text("# emptied\n")
    outcome = served.go()
    assert not [remark for remark in outcome.observation.remarks if "by hand" in remark]
    assert not outcome.changed


def test_found_sections_survive_play(served: Machine) -> None:
    served.bus.plug("1-2", CPS, serial="CPS123456789")
    served.go()
    text, _resolution = served.host().complete_ups_conf(WANTED.replace("[ups]", "[rack]"))
    assert {"rack"} < set(ups_conf.parse_ups_conf(text).sections)
