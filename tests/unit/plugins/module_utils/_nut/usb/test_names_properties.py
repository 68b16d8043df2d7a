# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf_text import (
    compose_text,
    found_sections,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import resolve_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.resolution import KnownUpses
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    BUSES,
    POLICIES,
    RELEASES,
    draw_known,
    known_after,
    section_keys,
)
from hypothesis import given


@given(draw_known(), BUSES, POLICIES, RELEASES)
def test_resolution_is_consistent_and_idempotent(
    was: KnownUpses, upses: tuple[UsbUps, ...], policy: UsbPolicy, release: Any
) -> None:
    res = resolve_names(was, upses, policy, release)
    # the text of ups.conf parses to the same sections
    text = compose_text("# Header", res.conf, res.found)
    assert ups_conf.parse_ups_conf(text) == res.conf
    assert found_sections(text) == res.found
    assert res.found <= res.conf.sections.keys()
    # no fixed section changes
    wanted = was.wanted.sections if was.wanted else {}
    for name in res.fixed:
        assert res.conf.sections[name] in (was.conf.sections.get(name), wanted.get(name))
    for name, section in was.conf.sections.items():
        if name not in was.found and name not in wanted:
            assert res.conf.sections[name] == section
    # each UPS has one name, or a reason for having none
    served = [*res.plugged.values()]
    devices = [found_ups.device for found_ups in (*served, *(found_ups for found_ups, _why in res.unserved))]
    assert len(devices) == len({device.name for device in devices})
    ignored = {found_ups.device.name for found_ups in upses if policy.is_ignored(found_ups.device)}
    assert {device.name for device in devices} == {found_ups.device.name for found_ups in upses} - ignored
    assert not res.plugged.keys() & set(res.absent)
    assert all(ups_conf.NAME.fullmatch(name) for name in res.conf.sections)
    # our sections have a driver
    for name, section in res.conf.sections.items():
        if name not in res.fixed:
            assert section.keys[0][0] == "driver"
            assert section_keys(section)["driver"] not in ("", "auto")
    # messages contain no texts of devices
    for remark in (*res.remarks, *(why for _ups, why in res.unserved)):
        assert remark.isprintable()
    # idempotent
    again = resolve_names(known_after(was, res), upses, policy, release)
    assert again.conf == res.conf
    assert [*again.conf.sections] == [*res.conf.sections]
    assert (again.fixed, again.edited) == (res.fixed, res.edited)
    assert (again.found, again.memory, dict(again.plugged)) == (res.found, res.memory, dict(res.plugged))
