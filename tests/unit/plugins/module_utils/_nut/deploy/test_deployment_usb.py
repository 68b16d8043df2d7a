# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf_text import MARK
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import actions
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import Deployment
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
        place.systemd.begin(systemd.driver_unit(name))


def test_auto_driver_is_chosen_on_host(place: Place, tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    place.holds(PRIMARY)
    files = {**PRIMARY, "ups.conf": ASKED}
    policy = on_bus(tree, default_name="")
    deployment = place.deployment(files, policy=policy)
    assert section(deployment.new_files["ups.conf"]) == {"driver": "usbhid-ups", "port": "auto", "desc": "Rack"}
    tree.plug()
    deployment = place.deployment(files, policy=policy)
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
    assert place.texts()[actions.WANTED] == ASKED
    assert stat.S_IMODE((place.folder / actions.WANTED).stat().st_mode) == 0o640
    again = place.deployment(files, policy=policy)
    assert not again.plan_change()
    tree.unplug("1-1")
    assert not place.deployment(files, policy=policy).plan_change(), "the name and its section stay"


def test_undeclared_upses_are_ignored_without_policy(place: Place, tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    place.holds(PRIMARY)
    tree.plug()
    tree.plug("1-2", "0764:0501", "CPS", "CP1500", None)
    fixed = place.deployment(PRIMARY)
    assert not fixed.plan_change()
    found = place.deployment(PRIMARY, policy=on_bus(tree))
    assert set(ups_conf.parse_ups_conf(found.new_files["ups.conf"]).sections) == {"ups", "ups2"}
    assert MARK in found.new_files["ups.conf"]
    assert actions.WANTED not in found.new_files
    settle(place, found)
    tree.unplug("1-2")
    later = place.deployment(PRIMARY, policy=on_bus(tree))
    assert not later.plan_change(), "what was found once keeps its name"


def test_declared_driver_replaces_auto(place: Place, tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    place.holds(PRIMARY)
    settle(place, place.deployment({**PRIMARY, "ups.conf": ASKED}, policy=on_bus(tree)))
    deployment = place.deployment(PRIMARY, policy=on_bus(tree))
    assert deployment.new_files["ups.conf"] == PRIMARY["ups.conf"]
    deployment.check_files()
    settle(place, deployment)
    assert place.texts()[actions.WANTED] == "\n"
    assert not place.deployment(PRIMARY, policy=on_bus(tree)).plan_change()


def test_removal_empties_ups_conf_wanted(place: Place, tmp_path: Path) -> None:
    place.holds({**PRIMARY, actions.WANTED: ASKED})
    deployment = place.deployment(None)
    deployment.apply_change(deployment.plan_change())
    assert ups_conf.parse_ups_conf(place.texts()[actions.WANTED]).sections == {}


def test_deployment_removes_foreign_and_restores_edited_sections(place: Place, tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    tree.plug()
    files = {**PRIMARY, "ups.conf": ASKED}
    place.holds(PRIMARY)
    settle(place, place.deployment(files, policy=on_bus(tree)))
    right = place.texts()["ups.conf"]
    place.holds({"ups.conf": right.replace("5B1234T56789", "OTHER") + SPARE_SECTION})
    assert place.deployment(files, policy=on_bus(tree)).new_files["ups.conf"] == right
