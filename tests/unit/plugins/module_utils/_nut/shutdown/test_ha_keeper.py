# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import ha_keeper
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.ha_keeper import HaKeeper


class Switch:
    """Takes requests until it is told not to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.takes, self.is_ours = True, False

    def disarm(self) -> bool:
        self.told.append("disarm")
        self.is_ours = True
        return self.takes

    def arm(self) -> bool:
        self.told.append("arm")
        self.is_ours = not self.takes
        return self.takes


class Outage:
    """A keeper, and a clock."""

    def __init__(self, *, is_wanted: bool = True) -> None:
        self.now, self.switch, self.jobs = 0.0, Switch(), list[Any]()
        self.keeper = HaKeeper(self.switch, is_wanted, lambda: self.now, lambda job: job())  # type: ignore[arg-type]

    def pass_time(self, seconds: int, *, since: float | None, fsd: bool = False, on_mains: bool = False) -> None:
        for _second in range(seconds):
            self.now += 1
            seconds_out = None if since is None else self.now - since
            self.keeper.update(outage_seconds=seconds_out, fsd=fsd, on_mains=on_mains)


def test_ha_is_disarmed_once_in_an_outage_and_armed_after_it() -> None:
    outage = Outage()
    outage.pass_time(29, since=0)
    assert outage.switch.told == []
    outage.pass_time(300, since=0)
    assert outage.switch.told == ["disarm"]
    outage.pass_time(100, since=None, on_mains=True)
    assert outage.switch.told == ["disarm", "arm"]


def test_fsd_disarms_ha_at_once() -> None:
    outage = Outage()
    outage.pass_time(1, since=0, fsd=True)
    assert outage.switch.told == ["disarm"]


def test_request_is_repeated_until_ha_takes_it() -> None:
    outage = Outage()
    outage.switch.takes = False
    outage.pass_time(120, since=0)
    assert 5 <= len(outage.switch.told) <= 8
    outage.switch.takes = True
    outage.pass_time(120, since=0)
    assert outage.switch.told.count("disarm") == len(outage.switch.told) <= 9


def test_ha_is_armed_after_a_boot() -> None:
    outage = Outage(is_wanted=False)
    outage.switch.is_ours, outage.switch.takes = True, False
    outage.pass_time(60, since=None)
    assert outage.switch.told == []
    outage.pass_time(40, since=None, on_mains=True)
    assert set(outage.switch.told) == {"arm"}
    assert len(outage.switch.told) >= 2


@pytest.mark.parametrize("fsd", [False, True])
def test_ha_is_left_alone_if_the_user_has_not_chosen_that(fsd: bool) -> None:
    outage = Outage(is_wanted=False)
    outage.pass_time(300, since=0, fsd=fsd)
    outage.pass_time(300, since=None, on_mains=True)
    assert outage.switch.told == []


def test_second_request_waits_for_the_first() -> None:
    outage = Outage()
    outage.keeper.run_in_thread = outage.jobs.append
    outage.pass_time(300, since=0)
    assert len(outage.jobs) == 1
    assert ha_keeper.OUTAGE_SECONDS < 60
