# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""upsmon of each release lives through every order in which a UPS and its stand-in come and go."""

from __future__ import annotations

from itertools import product
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.sections import DUMMY_STATUS

# The first releases whose upsmon aborts when two flags that it does not know have followed each other.
ABORTS = (2, 8, 3)
OWN = "WAIT"  # what upsd says until it has a driver's data


def test_upsmon_survives_the_status_of_the_stand_in(nut: Any) -> None:
    orders = [[*order, "OL"] for order in product((OWN, DUMMY_STATUS, "OL"), repeat=4)]
    # a status from before the UPS was unplugged shuts nothing down either
    orders += [["OL", "OB", OWN, DUMMY_STATUS, OWN, "OL"], ["OB DISCHRG", DUMMY_STATUS, "OL"]]
    seen = nut.call_inside("play_statuses", scripts=orders)
    assert seen["code"] is None, seen["output"]


def test_upsmon_aborts_on_a_second_unknown_word(nut: Any) -> None:
    """Why the stand-in has no word of its own. If no release does it any more, it could have one."""
    seen = nut.call_inside("play_statuses", scripts=[[OWN, "ABSENT", "OL", "OL"]])
    assert (seen["code"] is not None) == (nut.version >= ABORTS), seen["output"]
