# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which UPSes power a host, and which of them decides when it goes down."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.feeds import (
    NEVER,
    Feeds,
    FeedsError,
    read_feeds,
    read_monitored_feeds,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.upsmon import read_monitors

ONE = Feeds({"ups": 1})
ROUTER = Feeds({"ups": 1, "router": 0})
REDUNDANT = Feeds({"left": 1, "right": 1}, 1)
BOTH = Feeds({"left": 1, "right": 1}, 2)


@pytest.mark.parametrize(
    ("model", "left", "deciding"),
    [
        (ONE, {"ups": 60}, "ups"),
        (ONE, {"ups": NEVER}, None),
        (ONE, {}, None),
        (ROUTER, {"ups": 600, "router": 5}, "ups"),
        (ROUTER, {"ups": NEVER, "router": 5}, None),
        (ROUTER, {"router": 5}, None),
        (REDUNDANT, {"left": 20, "right": 600}, "right"),
        (REDUNDANT, {"left": 20, "right": NEVER}, None),
        (REDUNDANT, {"left": 20}, "left"),
        (BOTH, {"left": 20, "right": NEVER}, "left"),
        (BOTH, {"left": 700, "right": 600}, "right"),
        (BOTH, {"right": 600}, "right"),
        (Feeds({"a": 1, "b": 1, "c": 1}, 2), {"a": 10, "b": 20, "c": 30}, "b"),
        (Feeds({"a": 2, "b": 1}, 2), {"a": 10, "b": 20}, "a"),
        (Feeds({"a": 2, "b": 1}, 2), {"a": 20, "b": 10}, "a"),
    ],
)
def test_deciding_ups_is_the_one_that_leaves_too_few_supplies(model: Feeds, left: Any, deciding: str | None) -> None:
    assert model.find_deciding(left) == deciding


@pytest.mark.parametrize(
    ("model", "is_redundant"),
    [(ONE, False), (ROUTER, False), (REDUNDANT, True), (BOTH, False), (Feeds({"a": 2, "b": 1}, 2), True)],
)
def test_redundancy_means_that_one_ups_may_be_lost(model: Feeds, is_redundant: bool) -> None:
    assert model.is_redundant is is_redundant


@pytest.mark.parametrize(
    ("devices", "minsupplies", "expected"),
    [
        ([{"name": "ups"}], None, Feeds({"ups": 1}, 1)),
        ([{"name": "ups", "powervalue": 2}], "2", Feeds({"ups": 2}, 2)),
        (
            [{"name": "ups", "powervalue": 1}, {"name": "router", "powervalue": 0}],
            None,
            Feeds({"ups": 1, "router": 0}, 1),
        ),
        ([{"name": "left", "powervalue": 1}, {"name": "right", "powervalue": "1"}], 1, REDUNDANT),
        ([{"name": "left", "powervalue": 1}, {"name": "right", "powervalue": 1}], 2, BOTH),
    ],
)
def test_feeds_are_what_the_inventory_says(devices: Any, minsupplies: Any, expected: Feeds) -> None:
    assert read_feeds("pve", devices, minsupplies) == expected


@pytest.mark.parametrize(
    ("devices", "minsupplies", "question"),
    [
        ([{"name": "rack"}, {"name": "desk"}], None, "does not say whether rack or desk powers pve: set powervalue"),
        (
            [{"name": "rack", "powervalue": 1}, {"name": "desk"}],
            1,
            "does not say whether desk powers pve: set powervalue",
        ),
        (
            [{"name": "rack", "powervalue": 1}, {"name": "desk", "powervalue": 1}],
            None,
            "pve is powered by rack and desk, and nothing says whether it stays up on one of them: set MINSUPPLIES in "
            "nut_server_upsmon_conf to 1 if it does, or to 2 if it needs them all",
        ),
        ([{"name": "ups", "powervalue": "two"}], None, "must be whole numbers"),
    ],
)
def test_inventory_that_does_not_say_what_powers_the_host_is_asked(
    devices: Any, minsupplies: Any, question: str
) -> None:
    with pytest.raises(FeedsError) as caught:
        read_feeds("pve", devices, minsupplies)
    assert question in str(caught.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ONE, "goes down when ups is low"),
        (ROUTER, "goes down when ups is low"),
        (
            REDUNDANT,
            "is redundant: it stays up on left or right alone, and goes down when both left and right are low",
        ),
        (BOTH, "needs all of its power supplies: it goes down when left or right is low"),
        (
            Feeds({"a": 1, "b": 1, "c": 1}, 2),
            "is redundant: it needs 2 of its 3 power supplies on a, b, c, and goes down when fewer are left",
        ),
        (
            Feeds({"a": 1, "b": 1, "c": 1}),
            "is redundant: it stays up on a, b or c alone, and goes down when all of a, b, c are low",
        ),
        (Feeds({"router": 0}), ""),
        (Feeds({}), ""),
    ],
)
def test_need_of_a_host_is_described(model: Feeds, words: str) -> None:
    assert model.describe_need() == words


@pytest.mark.parametrize(
    ("ups", "secondaries", "words"),
    [
        ("ups", (), "powers this host"),
        ("ups", ("nas", "media"), "powers this host, nas and media"),
        ("router", ("nas",), "powers nas"),
        ("router", (), "powers nothing that is known here"),
        ("unknown", (), "powers nothing that is known here"),
    ],
)
def test_machines_of_a_ups_are_described(ups: str, secondaries: tuple[str, ...], words: str) -> None:
    assert ROUTER.describe_powered(ups, secondaries) == words


def test_monitor_lines_tell_what_powers_a_host() -> None:
    monitors = read_monitors(
        "MONITOR rack@localhost:3493 1 a b primary\nMONITOR router@[::1] 0 a b primary\nMONITOR rack@192.0.2.9 1 a b secondary\n"
    )
    assert read_monitored_feeds(monitors, "2") == Feeds({"rack": 1, "router": 0, "rack@192.0.2.9": 1}, 2)
    assert read_monitored_feeds(monitors, "2", ["Rack", "router"]).power == {
        "Rack": 1,
        "router": 0,
        "rack@192.0.2.9": 1,
    }
    by_address = read_monitors("MONITOR rack@192.0.2.10 1 a b primary\n")
    assert read_monitored_feeds(by_address, None, ["rack"]).power == {"rack": 1}
    assert read_monitored_feeds(monitors, None).minsupplies == 1
    assert read_monitored_feeds((), "x") == Feeds({}, 1)
