# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What to change if a plan does not hold: the texts that name a variable of the roles or a setting of Proxmox VE."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..conf.settings import variable_of
from .model import AUTO, PlanMachine, StagePlan, Supply
from .needed import SHORT_OUTAGE, needed_stage_runtime, runtime_notice_time, sum_terms, usual_terms, worst_terms
from .supplies import fit_delays, when_charged
from .timeline import PlanInputs

FREEZE = "set shutdown_policy to freeze (Datacenter, Options, HA Settings)"
SHORTER_STARTUP = "or give them less time in Proxmox (startup: down=...)"


def spell_number(value: float) -> str:
    """Return a number with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def spell_sum(terms: Iterable[tuple[float, str]]) -> str:
    """Return a sum as text, such as "5 (FINALDELAY) + 30 (guests) = 35 s". Terms of 0 are left out."""
    terms = list(terms)
    parts = [f"{spell_number(value)} ({what})" for value, what in terms if value]
    return f"{' + '.join(parts) or '0'} = {spell_number(sum_terms(terms))} s"


def spell_trigger(stage: StagePlan) -> str:
    """Return what starts a stage, as text."""
    parts = [
        f"{stage.on_battery:g} s on battery" if stage.on_battery is not None else "",
        f"charge {stage.charge:g} %" if stage.charge is not None else "",
        f"{stage.runtime:g} s left" if stage.runtime is not None else "",
    ]
    return " or ".join(part for part in parts if part)


def write_into(host: str, entry: str, under: str = "", why: str = "") -> str:
    """Return the remedy "write this into the variables of a host". under: the variable, or its part, to which ENTRY is added.

    ENTRY comes last, so that it can be copied.
    """
    return f"write into host_vars/{host}.yml{f', under {under}' if under else ''}{f' ({why})' if why else ''}: {entry}"


def set_variable(inputs: PlanInputs, name: str, value: float | str, why: str = "") -> str:
    """Return the remedy "set a variable of the role nut_server"; with a dot in NAME: a key of one."""
    under, _dot, key = name.rpartition(".")
    entry = f"{key if under else f'nut_server_{key}'}: {value if isinstance(value, str) else spell_number(value)}"
    return write_into(inputs.primary.name, entry, f"nut_server_{under}" if under else "", why)


def set_directive(inputs: PlanInputs, name: str, value: float, file: str = "upsmon.conf", unit: str = "") -> str:
    """Return the remedy "set a directive of one of NUT's files", with the variable that holds it."""
    return write_into(inputs.primary.name, f"{name}: {spell_number(value)}{unit}", variable_of("nut_server", file))


def set_delays(inputs: PlanInputs, supply: Supply, **delays: float) -> str:
    """Return the remedy "set offdelay or ondelay of a UPS", or both, with values that its driver takes; else what to do instead."""
    fitted = fit_delays(supply, **delays)
    if not fitted:
        return read_driver_manual(supply)
    entry = ", ".join(f"{name}: {spell_number(value)}" for name, value in fitted.items())
    return write_into(inputs.primary.name, entry, f"{supply.name} in nut_server_devices")


def read_driver_manual(supply: Supply) -> str:
    """Return the remedy for a driver that has no offdelay or ondelay, or counts them in other units, and would refuse ours."""
    return f"see `man {supply.driver}`, and test it with make drill-live"


def larger_battery(needed: Mapping[str, Any]) -> str:
    """Return the remedy for a battery that is too small: the same number wherever it is too small."""
    worst = needed["runtime_low"]
    return (
        f"provide {worst + SHORT_OUTAGE} s of battery ({worst} for the worst case, and {SHORT_OUTAGE} so that a short outage shuts nothing "
        "down): a larger or new battery, less load, or shorter limits and guests_time"
    )


def measure_runtime(name: str) -> str:
    """Return how to find out how long the battery of a UPS lasts."""
    return (
        f"see why upsd does not serve battery.runtime of {name} (upsc {name}; make doctor). If the UPS never reports it, measure how long "
        "the battery lasts with all machines on: the module shutdown_plan takes that as runtime"
    )


def earlier_mark(inputs: PlanInputs, supply: Supply, needed: Mapping[str, Any]) -> str:
    """Return how to make a battery count as low early enough: for the worst case, or for the usual run if it lasts no longer.

    NUT can only decide by what the UPS reports: its drivers don't start with ignorelb if neither battery.runtime nor battery.charge
    is known (drivers/main.c).
    """
    name, full = supply.name, when_charged(supply).runtime
    if inputs.timing.runtime_low == AUTO and supply.reports_runtime is not False:
        # the plan has chosen as much as the battery allows
        return larger_battery(needed) if full is not None else measure_runtime(name)
    noticed = runtime_notice_time(supply, inputs.timing) / 2
    usual = math.ceil(sum_terms(usual_terms(inputs, noticed)))
    mark = needed["runtime_low"]
    if full is not None and mark >= full:
        if usual >= full:
            return larger_battery(needed)
        mark = usual
    if supply.reports_runtime is not False:
        why = f"if upsc {name} shows battery.runtime" if supply.reports_runtime is None and full is None else ""
        if mark == needed["runtime_low"]:
            why = why or _explain_age(mark, sum_terms(worst_terms(inputs, supply)))
        else:
            why = f"enough unless a machine takes longer than usual; for that, {larger_battery(needed)}"
        return set_variable(inputs, "runtime_low", mark, why)
    return _decide_by_charge(supply, mark)


def let_nut_decide(supply: Supply, seconds: float) -> str:
    """Return how to make NUT decide that the battery of a UPS is low with SECONDS left, instead of the UPS."""
    if supply.reports_runtime is False:
        return _decide_by_charge(supply, math.ceil(seconds))
    proviso = (
        f", if upsc {supply.name} shows battery.runtime"
        if supply.reports_runtime is None and supply.runtime is None
        else ""
    )
    return override_low(supply, "runtime", seconds) + proviso


def override_low(supply: Supply, what: str, value: float) -> str:
    """Return the remedy "let NUT decide by the charge or the runtime". A driver starts only if the UPS reports that (drivers/main.c)."""
    mark = f"override: {{battery.{what}.low: {spell_number(value)}}}"
    return f"set ignorelb: true and {mark} for {supply.name} in nut_server_devices"


def _decide_by_charge(supply: Supply, mark: int) -> str:
    """Return how to make NUT decide that a battery is low with MARK seconds left, for a UPS that does not report its runtime."""
    name, full = supply.name, when_charged(supply).runtime
    text = f"NUT can't decide by battery.runtime, which {name} does not report: "
    if supply.charge is None:
        return (
            f"{text}measure how long it lasts on battery with all machines on, and add a stage with fsd: true whose on_battery "
            f"leaves {mark} s"
        )
    if full is None:
        return (
            f"{text}measure on battery at which charge {mark} s are left, and set ignorelb: true and override: {{battery.charge.low: "
            f"that charge}} for {name} in nut_server_devices"
        )
    return text + override_low(supply, "charge", min(math.ceil(100 * mark / full), 100))


def _explain_age(mark: float, need: float) -> str:
    """Return why a mark of nut-stages is higher than the sum of its terms; "" if it is not."""
    more = mark - need
    return f"{spell_number(need)} s, and {spell_number(more)} s for the age of its readings" if more > 0.5 else ""


def later_mark(inputs: PlanInputs, supply: Supply, needed: Mapping[str, Any]) -> str:
    """Return how to make a battery count as low later: charged, SUPPLY is low as soon as the mains fail."""
    reports_charge, supply = supply.charge is not None, when_charged(supply)
    most = math.floor((supply.runtime or 0) - SHORT_OUTAGE)
    if supply.watched is not None and supply.watched > most:
        return set_variable(inputs, "runtime_low", AUTO) if needed["runtime_low"] < most else larger_battery(needed)
    if supply.ignorelb:
        return f"lower battery.runtime.low and battery.charge.low of {supply.name} in nut_server_devices"
    in_the_ups = f"lower battery.charge.low or battery.runtime.low in the UPS itself (upsrw -l {supply.name})"
    if reports_charge:
        return f"{in_the_ups}, or let NUT decide: {override_low(supply, 'charge', 20)}"
    if supply.reports_runtime is False:
        return in_the_ups
    if needed["runtime_low"] > most:
        return larger_battery(needed)
    return f"{in_the_ups}, or let NUT decide: {override_low(supply, 'runtime', needed['runtime_low'])}"


def set_stage_runtime(inputs: PlanInputs, stage: StagePlan, needed: Mapping[str, Any]) -> str:
    """Return the remedy for a stage that begins too late."""
    runtime = needed_stage_runtime(inputs, inputs.stage_time_to_stop(stage, worst=True), needed["runtime_low"])
    return f"set runtime of stage {stage.name} to {runtime}"


def add_to_stage(inputs: PlanInputs, guest: PlanMachine, owner: PlanMachine, needed: Mapping[str, Any]) -> str:
    """Return how to make a stage stop a guest. `storage_of` finds only guests that were read from Proxmox."""
    if guest.name not in {row.machine for row in inputs.proxmox.guests}:
        return f"add {guest.name} to the guests of a stage"
    if inputs.stages:
        return f"add storage_of: [{owner.name}] to a stage of nut_server_stages"
    longest = max(other.shutdown_limit for other in inputs.unstaged_guests if owner.name in other.needs)
    runtime = needed_stage_runtime(inputs, longest, needed["runtime_low"])
    stage = f"{{name: guests, runtime: {runtime}, storage_of: [{owner.name}], fsd: true}}"
    return f"add {stage} to nut_server_stages"
