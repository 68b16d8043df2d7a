# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter.ups_conf import FilterModule

ups_conf = FilterModule().filters()["ups_conf"]


def test_sections_have_all_keys_of_the_devices() -> None:
    device = {"name": "ups", "desc": "UPS #1", "pollonly": True, "serial": "", "override": {"battery.charge.low": 20}}
    devices = [{**device, "options": {"lowbatt": 30}}, {"name": "spare"}]
    assert ups_conf(devices) == (
        '[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n    desc = "UPS \\#1"\n    pollonly\n'
        '    override.battery.charge.low = "20"\n    lowbatt = "30"\n\n'
        '[spare]\n    driver = "usbhid-ups"\n    port = "auto"\n'
    )


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([{"name": "a b"}], "nut_server_devices: device 'a b': a name may have only"),
        ([{"name": "ups"}, {"name": "ups"}], "nut_server_devices: two devices are called ups"),
        ([{"name": "ups", "bus": "1", "options": {"bus": "1"}}], "nut_server_devices: device ups: bus is given twice"),
        ([{"name": "ups", "desc": "a\nb"}], "nut_server_devices: device ups: desc: character 2"),
    ],
)
def test_invalid_device_is_refused(devices: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        ups_conf(devices)
