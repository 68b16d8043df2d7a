# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.health import judge_health
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.memory import HotplugState, Plugging
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.snapshot import UpsState

USB = "[my-ups]\n    driver = usbhid-ups\n    port = auto\n"
STAND_IN = "[my-ups]\n    driver = dummy-ups\n    port = nut-hotplug-absent.dev\n"
NETWORK = "[my-ups]\n    driver = snmp-ups\n    port = 192.0.2.1\n"
PLUGGED = HotplugState(plugged={"my-ups": Plugging(1, 2, 3.0)})


def make_state(error: str = "", status: str = "OL") -> UpsState:
    flags = () if error else (status,)
    return UpsState("my-ups", "", flags, not error and status != "WAIT", error or None, {}, (), None)


@pytest.mark.parametrize(
    ("conf", "state", "memory", "expected"),
    [
        (USB, make_state(), PLUGGED, []),
        (USB, make_state("DATA-STALE"), PLUGGED, ["my-ups: DATA-STALE, although its UPS is plugged in"]),
        (USB, make_state(status="WAIT"), PLUGGED, ["my-ups: its driver is starting, although its UPS is plugged in"]),
        # it is known to be absent
        (USB, make_state("DATA-STALE"), HotplugState(), []),
        (USB, None, PLUGGED, ["my-ups: upsd does not serve it"]),
        (NETWORK, make_state("DATA-STALE"), HotplugState(), ["my-ups: DATA-STALE"]),
        ("", None, HotplugState(), []),
    ],
)
def test_each_ups_is_fresh_or_known_to_be_absent(
    conf: str, state: UpsState | None, memory: HotplugState, expected: list[str]
) -> None:
    sections = ups_conf.parse_ups_conf(conf).sections.values()
    assert judge_health(sections, [state] if state else [], memory) == expected
