# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.tests.unit.support.plans import (
    SITE,
    UNSTAGED,
    PlanSite,
    find_constraint,
)


def test_stage_remedy_assumes_other_remedies() -> None:
    plan = SITE.change_ups(runtime_low=100, charge_low=None).change_stage(runtime=200).make_plan()
    assert f"to {plan.needed['runtime_low'] + 35 + 90}" in find_constraint(plan, "stage", "nas-guests").remedy


def find_remedy(site: PlanSite, name: str = "low battery") -> str:
    return find_constraint(site.make_plan(), name, "ups").remedy


def test_late_low_battery_remedy_is_runtime_low() -> None:
    late = UNSTAGED.change_ups(runtime_low=100, charge_low=None)
    assert find_remedy(late).endswith(": nut_server_runtime_low: 393")
    assert find_remedy(late) == find_remedy(late, "usual times")
    assert "(382 s, and 11 s for the age of its readings)" in find_remedy(late)
    assert find_remedy(late, "usual times").endswith(": nut_server_runtime_low: 393")
    unknown = UNSTAGED.change_ups(runtime=None, runtime_low=None)
    assert find_remedy(unknown) == (
        "write into host_vars/pve.yml (if upsc ups shows battery.runtime): nut_server_runtime_low: 393"
    )
    assert find_remedy(unknown.change_ups(reports_runtime=True)).endswith(": nut_server_runtime_low: 393")


def test_runtime_low_remedy_never_exceeds_battery() -> None:
    small = UNSTAGED.change_ups(runtime=393, runtime_low=100, charge_low=None)
    assert find_remedy(small).startswith(
        "write into host_vars/pve.yml (enough unless a machine takes longer than usual; for that, provide 453 s of battery"
    )
    assert find_remedy(small).endswith(": nut_server_runtime_low: 175")
    assert find_remedy(small.change_ups(runtime=394)).endswith(": nut_server_runtime_low: 393")
    # at half charge the full battery counts
    assert find_remedy(small.change_ups(runtime=197, charge=50)).endswith(": nut_server_runtime_low: 393")
    assert find_remedy(small.change_ups(runtime=169)).startswith("provide 453 s of battery (393 for")
    tiny = small.change_ups(runtime=100)
    assert find_remedy(tiny, "usual times").startswith("provide 453 s of battery (393 for")
    by_the_ups = small.change_ups(ignorelb=False)
    # the remedy makes nut-stages decide, which notices later than the UPS
    assert find_remedy(by_the_ups).endswith(": nut_server_runtime_low: 175")


def test_ups_without_runtime_gets_remedy_by_charge() -> None:
    """NUT's drivers don't start with ignorelb if neither charge nor runtime is known."""
    silent = UNSTAGED.change_ups(reports_runtime=False, runtime_low=100, charge_low=None)
    assert find_remedy(silent) == (
        "NUT can't decide by battery.runtime, which ups does not report: set ignorelb: true and override: {battery.charge.low: 13} "
        "for ups in nut_server_devices"
    )
    assert find_remedy(silent.change_ups(runtime=1500, charge=50)) == find_remedy(silent)
    assert "at which charge 382 s are left" in find_remedy(silent.change_ups(runtime=None))
    assert "nut_server_runtime_low" not in find_remedy(silent.change_ups(runtime=None))
    mute = find_remedy(silent.change_ups(runtime=None, charge=None))
    assert "a stage with fsd: true" in mute
    assert "leaves 382 s" in mute
