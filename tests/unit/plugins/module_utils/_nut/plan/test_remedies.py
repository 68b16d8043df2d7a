# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.tests.unit.support.plans import (
    SITE,
    UNSTAGED,
    Site,
    find_constraint,
)


def test_stage_remedy_assumes_other_remedies() -> None:
    plan = SITE.ups(runtime_low=100, charge_low=None).stage(runtime=200).plan()
    assert f"to {plan.needed['runtime_low'] + 35 + 90}" in find_constraint(plan, "stage", "nas-guests").remedy


def find_remedy(site: Site, name: str = "low battery") -> str:
    return find_constraint(site.plan(), name, "ups").remedy


def test_late_low_battery_remedy_is_runtime_low() -> None:
    late = UNSTAGED.ups(runtime_low=100, charge_low=None)
    assert find_remedy(late) == "set nut_server_runtime_low to 382"
    assert find_remedy(late, "usual times") == "set nut_server_runtime_low to 382"
    unknown = UNSTAGED.ups(runtime=None, runtime_low=None)
    assert find_remedy(unknown) == "set nut_server_runtime_low to 382, if upsc ups shows battery.runtime"
    assert find_remedy(unknown.ups(reports_runtime=True)) == "set nut_server_runtime_low to 382"


def test_runtime_low_remedy_never_exceeds_battery() -> None:
    small = UNSTAGED.ups(runtime=382, runtime_low=100, charge_low=None)
    assert find_remedy(small).startswith(
        "set nut_server_runtime_low to 169 (enough unless a machine takes longer than usual; for that, provide 382 s of battery"
    )
    assert find_remedy(small.ups(runtime=383)) == "set nut_server_runtime_low to 382"
    # at half charge the full battery counts
    assert find_remedy(small.ups(runtime=192, charge=50)) == "set nut_server_runtime_low to 382"
    assert find_remedy(small.ups(runtime=169)).startswith("provide 382 s of battery: a larger or new battery")
    tiny = small.ups(runtime=100)
    assert find_remedy(tiny, "usual times").startswith("provide 169 s of battery: a larger or new battery")
    by_the_ups = small.ups(ignorelb=False)
    # the remedy makes NUT decide, which notices later than the UPS
    assert find_remedy(by_the_ups).startswith("set nut_server_runtime_low to 169 ")


def test_ups_without_runtime_gets_remedy_by_charge() -> None:
    """NUT's drivers don't start with ignorelb if neither charge nor runtime is known."""
    silent = UNSTAGED.ups(reports_runtime=False, runtime_low=100, charge_low=None)
    assert find_remedy(silent) == (
        "NUT can't decide by battery.runtime, which ups does not report: set ignorelb: true and override: {battery.charge.low: 13} "
        "for ups in nut_server_devices"
    )
    assert find_remedy(silent.ups(runtime=1500, charge=50)) == find_remedy(silent)
    assert "at which charge 382 s are left" in find_remedy(silent.ups(runtime=None))
    assert "nut_server_runtime_low" not in find_remedy(silent.ups(runtime=None))
    mute = find_remedy(silent.ups(runtime=None, charge=None))
    assert "a stage with fsd: true" in mute
    assert "leaves 382 s" in mute
