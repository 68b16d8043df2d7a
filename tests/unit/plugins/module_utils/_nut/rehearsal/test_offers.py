# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    offers,
)
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import MEDIA, NAS, make_house


@pytest.mark.parametrize(
    ("seconds", "better"), [(43.2, 52), (10.0, 12), (10.1, 13), (0.0, 5), (4.1, 5), (4.2, 6), (100.0, 120), (12.5, 15)]
)
def test_offered_time_is_rounded_up_with_margin(seconds: float, better: int) -> None:
    assert offers.round_up(seconds) == better


def test_offer_names_file_and_line() -> None:
    offered = offers.find_offers(make_house(), {"nas": 43.2, "media": 2.5, "pve": 12.0}, "pve", 30)
    assert [offer.inventory_line for offer in offered] == [
        "host_vars/nas.yml: nut_client_shutdown_time: 52  # measured 43.2 s plus 20 %, rounded up",
        "host_vars/pve.yml, or its group's file in group_vars: nut_server_shutdown_time: 15  # measured 12.0 s plus 20 %, rounded up",
    ]
    assert [(offer.name, offer.now, offer.shutdown_time) for offer in offered] == [("nas", 60.0, 52), ("pve", 30, 15)]


def test_sent_offers_get_the_inventory_names() -> None:
    """Offers come as JSON; the primary may use another name for itself."""
    offered = offers.find_offers(make_house(), {"nas": 43.2, "pve": 12.0}, "pve", 30)
    sent = json.loads(json.dumps([dataclasses.asdict(offer) for offer in offered]))
    assert offers.read_offers(sent, "pve", ["nas"]) == offered
    assert [offer.name for offer in offers.read_offers(sent, "proxmox", ["nas"])] == ["nas", "proxmox"]


@pytest.mark.parametrize(
    ("measured", "now", "offered"),
    [
        (50.0, 60, False),
        (49.0, 60, False),
        (45.0, 60, False),
        (44.1, 60, True),
        (55.0, 60, False),
        (55.1, 60, True),
        (56.0, 61, True),
    ],
)
def test_small_difference_is_not_offered(measured: float, now: float, *, offered: bool) -> None:
    house = make_house({**NAS, "shutdown_time": now})
    assert bool(offers.find_offers(house, {"nas": measured}, "pve", None)) is offered


def test_unmeasured_time_is_not_offered() -> None:
    assert offers.find_offers(make_house(), {"nas": None}, "pve", 30) == []
    # a time that is too short is always corrected
    assert (
        offers.find_offers(make_house({**MEDIA, "shutdown_time": 4}), {"media": 4.1}, "pve", None)[0].shutdown_time == 5
    )
    assert offers.find_offers(make_house({**MEDIA, "shutdown_time": 4}), {"media": 3.9}, "pve", None) == []
    assert (
        offers.find_offers(make_house({**MEDIA, "shutdown_time": 5}), {"media": 5.1}, "pve", None)[0].shutdown_time == 7
    )
    assert offers.find_offers(make_house({**MEDIA, "shutdown_time": 20}), {"media": 2.0}, "pve", None)[
        0
    ].inventory_line.endswith("rounded up, minimum 5")
