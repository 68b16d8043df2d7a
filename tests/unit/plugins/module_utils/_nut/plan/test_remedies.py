# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.tests.unit.support.plans import (
    SITE,
    UNSTAGED,
    Site,
    get,
)


def test_the_remedy_of_a_stage_counts_with_the_other_remedies() -> None:
    made = SITE.ups(runtime_low=100, charge_low=None).stage(runtime=200).plan()
    assert f"to {made.needed['runtime_low'] + 35 + 90}" in get(made, "stage", "nas-guests").remedy


def remedy(site: Site, name: str = "low battery") -> str:
    return get(site.plan(), name, "ups").remedy


def test_the_low_mark_is_one_variable() -> None:
    late = UNSTAGED.ups(runtime_low=100, charge_low=None)
    assert remedy(late) == "set nut_server_runtime_low to 382"
    assert remedy(late, "usual times") == "set nut_server_runtime_low to 382"
    unknown = UNSTAGED.ups(runtime=None, runtime_low=None)
    assert remedy(unknown) == "set nut_server_runtime_low to 382, if upsc ups shows battery.runtime"
    assert remedy(unknown.ups(reports_runtime=True)) == "set nut_server_runtime_low to 382"


def test_a_mark_that_is_more_than_the_battery_has_is_no_remedy() -> None:
    small = UNSTAGED.ups(runtime=382, runtime_low=100, charge_low=None)
    assert remedy(small).startswith(
        "set nut_server_runtime_low to 169 (enough unless a machine takes longer than usual; for that, provide 382 s of battery"
    )
    assert remedy(small.ups(runtime=383)) == "set nut_server_runtime_low to 382"
    # half a charge: the full battery counts
    assert remedy(small.ups(runtime=192, charge=50)) == "set nut_server_runtime_low to 382"
    assert remedy(small.ups(runtime=169)).startswith("provide 382 s of battery: a larger or new battery")
    tiny = small.ups(runtime=100)
    assert remedy(tiny, "usual times").startswith("provide 169 s of battery: a larger or new battery")
    by_the_ups = small.ups(ignorelb=False)
    # then NUT decides, which notices later than the UPS does
    assert remedy(by_the_ups).startswith("set nut_server_runtime_low to 169 ")


def test_a_ups_that_does_not_say_what_is_left() -> None:
    """NUT's drivers don't start with ignorelb if they can know neither the charge nor the time left."""
    silent = UNSTAGED.ups(reports_runtime=False, runtime_low=100, charge_low=None)
    assert remedy(silent) == (
        "ups does not report battery.runtime, so NUT can't decide by it: set ignorelb: true and override: {battery.charge.low: 13} "
        "for ups in nut_server_devices"
    )
    assert remedy(silent.ups(runtime=1500, charge=50)) == remedy(silent)
    assert "at which charge 382 s are left" in remedy(silent.ups(runtime=None))
    assert "nut_server_runtime_low" not in remedy(silent.ups(runtime=None))
    mute = remedy(silent.ups(runtime=None, charge=None))
    assert "a stage with fsd: true" in mute
    assert "leaves 382 s" in mute
