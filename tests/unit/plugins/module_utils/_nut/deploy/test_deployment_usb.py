# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf_text import MARK
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import actions
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import Deployment
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.observe import ReconcileError
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    PRIMARY,
    SPARE_SECTION,
    Place,
)
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import SysfsTree

if TYPE_CHECKING:
    pass


ASKED = '# Written by Ansible (homelab.nut)\nmaxretry = 3\n\n[ups]\n    driver = "auto"\n    port = "auto"\n    desc = "Rack"\n'


def on_bus(tree: SysfsTree, **changes: Any) -> UsbPolicy:
    return UsbPolicy(sysfs=str(tree.sysfs), dev=str(tree.dev), **changes)


def section(text: str, name: str = "ups") -> dict[str, str | None]:
    return dict(ups_conf.parse_ups_conf(text).sections[name].keys)


def settle(place: Place, deployment: Deployment) -> None:
    decided = deployment.plan_change()
    deployment.apply_change(decided)
    for name in ups_conf.parse_ups_conf(deployment.new_files["ups.conf"]).sections:
        place.systemd.start_process(systemd.driver_unit(name))


def test_ups_on_the_network_needs_no_usb(place: Place, tmp_path: Path) -> None:
    """A virtual machine or a container may have no USB at all."""
    place.write_files(PRIMARY)
    conf = "maxretry = 3\n\n[ups]\n    driver = snmp-ups\n    port = 192.0.2.9\n"
    policy = UsbPolicy(sysfs=str(tmp_path / "none"), dev=str(tmp_path / "none"))
    deployment = place.make_deployment({**PRIMARY, "ups.conf": conf}, policy=policy)
    assert section(deployment.new_files["ups.conf"]) == {"driver": "snmp-ups", "port": "192.0.2.9"}
    assert deployment.warnings == []


def test_host_without_usb_is_deployed_with_named_drivers(place: Place, tmp_path: Path) -> None:
    place.write_files({**PRIMARY, "ups.conf": "[ups]\n    driver = usbhid-ups\n    port = auto\n"})
    policy = UsbPolicy(sysfs=str(tmp_path), dev=str(tmp_path))
    for driver in ("snmp-ups", "dummy-ups", "usbhid-ups"):
        conf = f"maxretry = 3\n\n[ups]\n    driver = {driver}\n    port = somewhere\n"
        deployment = place.make_deployment({**PRIMARY, "ups.conf": conf}, policy=policy)
        assert section(deployment.new_files["ups.conf"]) == {"driver": driver, "port": "somewhere"}
        assert deployment.warnings == []


def test_host_without_usb_refuses_an_auto_driver(place: Place, tmp_path: Path) -> None:
    place.write_files(PRIMARY)
    policy = UsbPolicy(sysfs=str(tmp_path), dev=str(tmp_path))
    with pytest.raises(ReconcileError, match=r"this host has no USB bus .* the driver of ups is auto"):
        place.make_deployment({**PRIMARY, "ups.conf": ASKED}, policy=policy)


def test_auto_driver_is_chosen_on_host(place: Place, tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    place.write_files(PRIMARY)
    files = {**PRIMARY, "ups.conf": ASKED}
    policy = on_bus(tree, default_name="")
    deployment = place.make_deployment(files, policy=policy)
    assert section(deployment.new_files["ups.conf"]) == {"driver": "usbhid-ups", "port": "auto", "desc": "Rack"}
    tree.plug_in()
    deployment = place.make_deployment(files, policy=policy)
    completed = section(deployment.new_files["ups.conf"])
    assert (
        completed.items()
        >= {"driver": "usbhid-ups", "vendorid": "051d", "serial": "5B1234T56789", "desc": "Rack"}.items()
    )
    assert ups_conf.parse_ups_conf(deployment.new_files["ups.conf"]).settings == (("maxretry", "3"),)
    decided = deployment.plan_change()
    assert decided.written_files == (actions.WANTED, "ups.conf")
    assert '+    driver = "auto"' in decided.render_diff()
    settle(place, deployment)
    assert place.read_texts()[actions.WANTED] == ASKED
    assert stat.S_IMODE((place.folder / actions.WANTED).stat().st_mode) == 0o640
    again = place.make_deployment(files, policy=policy)
    assert not again.plan_change()
    tree.unplug_device("1-1")
    assert not place.make_deployment(files, policy=policy).plan_change(), "the name and its section stay"


def test_undeclared_upses_are_ignored_without_policy(place: Place, tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    place.write_files(PRIMARY)
    tree.plug_in()
    tree.plug_in("1-2", "0764:0501", "CPS", "CP1500", None)
    fixed = place.make_deployment(PRIMARY)
    assert not fixed.plan_change()
    found = place.make_deployment(PRIMARY, policy=on_bus(tree))
    assert set(ups_conf.parse_ups_conf(found.new_files["ups.conf"]).sections) == {"ups", "ups2"}
    assert MARK in found.new_files["ups.conf"]
    assert actions.WANTED not in found.new_files
    settle(place, found)
    tree.unplug_device("1-2")
    later = place.make_deployment(PRIMARY, policy=on_bus(tree))
    assert not later.plan_change(), "what was found once keeps its name"


def test_declared_driver_replaces_auto(place: Place, tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    place.write_files(PRIMARY)
    settle(place, place.make_deployment({**PRIMARY, "ups.conf": ASKED}, policy=on_bus(tree)))
    deployment = place.make_deployment(PRIMARY, policy=on_bus(tree))
    assert deployment.new_files["ups.conf"] == PRIMARY["ups.conf"]
    deployment.check_files()
    settle(place, deployment)
    assert place.read_texts()[actions.WANTED] == "\n"
    assert not place.make_deployment(PRIMARY, policy=on_bus(tree)).plan_change()


def test_removal_empties_ups_conf_wanted(place: Place, tmp_path: Path) -> None:
    place.write_files({**PRIMARY, actions.WANTED: ASKED})
    deployment = place.make_deployment(None)
    deployment.apply_change(deployment.plan_change())
    assert ups_conf.parse_ups_conf(place.read_texts()[actions.WANTED]).sections == {}


def test_deployment_removes_foreign_and_restores_edited_sections(place: Place, tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.plug_in()
    files = {**PRIMARY, "ups.conf": ASKED}
    place.write_files(PRIMARY)
    settle(place, place.make_deployment(files, policy=on_bus(tree)))
    right = place.read_texts()["ups.conf"]
    place.write_files({"ups.conf": right.replace("5B1234T56789", "OTHER") + SPARE_SECTION})
    assert place.make_deployment(files, policy=on_bus(tree)).new_files["ups.conf"] == right


@pytest.mark.parametrize(("shown", "pinned"), [(',serial="G123E45678"', True), ("", False)])
def test_only_serial_that_nut_reads_is_written(place: Place, tmp_path: Path, shown: str, pinned: bool) -> None:
    tree = SysfsTree(tmp_path)
    tree.plug_in("1-1", "0463:ffff", "EATON", "Eaton 9E", "G123E45678")
    place.write_files(PRIMARY)
    place.systemd.scanner = f'USB:driver="usbhid-ups",port="auto",vendorid="0463",productid="FFFF"{shown},bus="001"\n'
    deployment = place.make_deployment({**PRIMARY, "ups.conf": ASKED}, policy=on_bus(tree))
    assert ("serial" in section(deployment.new_files["ups.conf"])) == pinned
    assert any("can't read the serial number" in warning for warning in deployment.warnings) == (not pinned)


@pytest.mark.parametrize("key", ["vendorid = 0643", "productid = 0003", "serial = STICKER"])
def test_ups_that_is_nearly_meant_is_named(place: Place, tmp_path: Path, key: str) -> None:
    tree = SysfsTree(tmp_path)
    tree.plug_in()
    place.write_files(PRIMARY)
    conf = f"[my-ups]\n    driver = usbhid-ups\n    port = auto\n    {key}\n"
    deployment = place.make_deployment({**PRIMARY, "ups.conf": conf}, policy=on_bus(tree))
    (warning,) = [line for line in deployment.warnings if line.startswith("[my-ups]: no UPS on the bus has its ")]
    assert "The nearest is 051d:0002 at pci-0000:00:14.0-usb-0:1: its " in warning
