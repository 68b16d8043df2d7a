# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files, systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import enumerator
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.act import permit_node
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    APC,
    CPS,
    ENUMERATE,
    HotplugMachine,
)

if TYPE_CHECKING:
    pass


def test_exited_upsd_is_restarted_instead_of_reloaded(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.fails.add("reload nut-server.service")
    machine.ends_at = "reload nut-server.service"
    outcome = machine.run_hotplug()
    assert machine.did[-1] == "restart nut-server.service"
    assert outcome.failed == ()


def test_failed_reload_does_not_restart_running_upsd(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.fails.add("reload nut-server.service")
    outcome = machine.run_hotplug()
    assert "restart nut-server.service" not in machine.did
    assert any("reload nut-server.service" in line for line in outcome.failed)


def test_failed_enumerator_is_reported(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.fails.add(ENUMERATE)
    outcome = machine.run_hotplug()
    assert any(ENUMERATE in line for line in outcome.failed)
    assert not machine.leaves.exists()


def test_section_refused_by_nut_is_not_written(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.refuses["usbhid-ups"] = "Fatal error: 'x' is not a valid variable name for this driver."
    outcome = machine.run_hotplug()
    assert machine.path.read_text() == ""
    assert machine.did == []
    assert not outcome.written
    assert len(outcome.failed) == 1
    assert "'x' is not a valid variable" in outcome.failed[0]
    assert machine.said == list(outcome.failed)
    assert machine.memory.tries == {}
    assert not machine.leaves.exists()
    assert "[ups]" in machine.checked
    assert [path.name for path in machine.room.iterdir()] == ["homelab-nut.lock"]


def test_refusal_of_a_declared_ups_alone_can_fail_a_play(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.refuses["usbhid-ups"] = "Fatal error: no"
    outcome = machine.run_hotplug()
    assert outcome.excused == outcome.failed
    (machine.folder / "ups.conf.wanted").write_text("[ups]\n    driver = auto\n")
    outcome = machine.run_hotplug()
    assert (len(outcome.failed), outcome.excused) == (1, ())


def test_refusal_is_logged_once(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.refuses["usbhid-ups"] = "Fatal error: no"
    machine.run_hotplug()
    machine.now += 60
    outcome = machine.run_hotplug()
    assert machine.said == []
    assert outcome.failed
    assert len(machine.memory.history) == 1
    machine.refuses.clear()
    assert machine.run_hotplug().written


def test_refused_section_does_not_block_start_of_dead_driver(served: HotplugMachine) -> None:
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.bus.plug_in("1-2", "0665:5161", hid=False)
    served.refuses["nutdrv_qx"] = "Fatal error: no"
    served.run_hotplug()
    assert served.did == ["start nut-driver@ups.service"]
    assert list(served.conf.sections) == ["ups"]


def test_refusal_does_not_count_as_attempt(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    machine.refuses["usbhid-ups"] = "Fatal error: no"
    machine.update_upsd()
    host = machine.make_host()
    look = host.observe_host()
    assert look.plan.tries["ups"].count == 1
    assert host.apply_plan(look).failed
    assert machine.memory.tries == {}


def test_missing_driver_program_is_reported(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", "0665:5161", hid=False)
    host = machine.make_host()
    (machine.root / "bin/nutdrv_qx").unlink()
    machine.update_upsd()
    outcome = host.run()
    assert "no driver 'nutdrv_qx'" in outcome.failed[0]
    assert machine.path.read_text() == ""


def test_full_disk_is_reported(served: HotplugMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    text = served.path.read_text()
    real = files.replace_files

    def full(texts: Any, mode: int, owner: Any = None) -> None:
        if served.path in texts:
            raise files.WriteError("no space left")
        real(texts, mode, owner)

    monkeypatch.setattr(files, "replace_files", full)
    served.bus.plug_in("1-2", CPS, serial="CPS123456789")
    outcome = served.run_hotplug()
    assert [line for line in outcome.failed if "no space left" in line]
    assert served.path.read_text() == text
    assert served.units["nut-driver@ups.service"][0] == "active"


def test_unwritable_state_is_logged(machine: HotplugMachine) -> None:
    (machine.root / "state").write_text("a file")
    machine.bus.plug_in("1-1", APC)
    outcome = machine.run_hotplug()
    assert outcome.written
    assert [line for line in machine.said if "can't save the state" in line]


def test_refused_section_does_not_block_other_sections(served: HotplugMachine) -> None:
    served.policy["rules"] = [{"vendor": "0665", "driver": "nutdrv_qx", "options": {"nonsense": "1"}}]
    served.refuses["nutdrv_qx"] = "Fatal error: 'nonsense' is not a valid variable name for this driver."
    served.bus.plug_in("1-2", "0665:5161", "Maker", "Model", None)
    outcome = served.run_hotplug()
    assert any("nonsense" in line for line in outcome.failed)
    served.bus.unplug_device("1-1")
    served.bus.plug_in("1-1", CPS, serial="CPS123456789")
    served.run_hotplug()
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"
    assert list(served.conf.sections) == ["ups"]


@pytest.mark.parametrize("by_hand", [True, False])
def test_enumerator_does_not_restart_unchanged_drivers(served: HotplugMachine, by_hand: bool) -> None:
    """Somebody edited a section and restarted its driver, and the enumerator has not run since."""
    seen = {name: systemd.checksum_path(name, served.root / "systemd") for name in ("ups", "")}
    for name, path in seen.items():
        path.parent.mkdir(parents=True)
        what = "SECTION_CHECKSUM" if name else "SECTION_CHECKSUM_GLOBAL"
        path.write_text(
            f"[Service]\nEnvironment='{what}={enumerator.section_checksum(served.path.read_text(), name)}'\n"
        )
    before = {name: path.read_text() for name, path in seen.items()}
    if by_hand:
        served.path.write_text("debug_min = 1\n" + served.path.read_text().replace("[ups]", "[ups]\n    pollfreq = 7"))
    served.bus.plug_in("1-2", CPS, serial="CPS123456789")
    served.run_hotplug()
    text = served.path.read_text()
    for name, path in seen.items():
        assert str(enumerator.section_checksum(text, name)) in path.read_text()
        assert (path.read_text() != before[name]) is by_hand
    assert ("daemon-reload daemon-reload" in served.did) is by_hand
    if by_hand:
        assert served.did.index("daemon-reload daemon-reload") < served.did.index(ENUMERATE)


def test_edited_section_survives_rewrite(served: HotplugMachine) -> None:
    edited = served.path.read_text().replace("[ups]", "[ups]\n    pollfreq = 7")
    served.path.write_text(edited)
    for name, serial in (("1-2", "CPS123456789"), ("1-3", "CPS987654321")):
        served.bus.plug_in(name, CPS, serial=serial)
        assert served.run_hotplug().written
        assert ("pollfreq", "7") in served.conf.sections["ups"].keys, "it is left as it is, however often we write"


def test_permit_sets_group_and_mode(tmp_path: Path) -> None:
    node = tmp_path / "bus/usb/001/004"
    node.parent.mkdir(parents=True)
    os.mkfifo(node, 0o600)
    permit_node(tmp_path, "/dev/bus/usb/001/004", os.getgid())
    assert stat.S_IMODE(node.stat().st_mode) == 0o660


@pytest.mark.parametrize("node", ["/etc/passwd", "/dev/../etc/passwd", "/dev", "/dev/bus/../../x", "bus/usb/001/004"])
def test_permit_refuses_path_outside_dev(tmp_path: Path, node: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)):
        permit_node(tmp_path, node, os.getgid())


def test_permit_refuses_regular_file(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("")
    (tmp_path / "node").chmod(0o600)
    with pytest.raises(ValueError, match="not a device"):
        permit_node(tmp_path, "/dev/node", os.getgid())
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o600


def test_permit_follows_no_link(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    (tmp_path / "node").symlink_to(fifo)
    (tmp_path / "real").mkdir()
    os.mkfifo(tmp_path / "real/node", 0o600)
    (tmp_path / "dir").symlink_to(tmp_path / "real")
    for node in ("/dev/node", "/dev/dir/node"):
        with pytest.raises((ValueError, OSError)):
            permit_node(tmp_path, node, os.getgid())
    assert stat.S_IMODE(fifo.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "real/node").stat().st_mode) == 0o600


def test_permit_closes_all_handles(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _round in range(3):
        with pytest.raises(FileNotFoundError):
            permit_node(tmp_path, "/dev/none", os.getgid())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
