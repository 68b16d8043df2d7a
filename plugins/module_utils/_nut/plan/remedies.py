# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What to change if a plan does not hold: the texts that name a variable of the roles or a setting of Proxmox VE."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..conf.settings import variable_of
from .model import PlanMachine, StagePlan, Supply
from .needed import needed_stage_runtime, sum_terms, usual_terms
from .supplies import notice_time, when_charged
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


def set_variable(name: str, value: float) -> str:
    """Return the remedy "set a variable of the role nut_server"."""
    return f"set nut_server_{name} to {spell_number(value)}"


def set_directive(name: str, value: float, file: str = "upsmon.conf", unit: str = "") -> str:
    """Return the remedy "set a directive of one of NUT's files", with the variable that holds it."""
    return f"set {name} in {variable_of('nut_server', file)} to {spell_number(value)}{unit}"


def set_delays(supply: Supply, **delays: float) -> str:
    """Return the remedy "set offdelay or ondelay of a UPS", or both."""
    (first, value), *others = delays.items()
    text = f"set {first} of {supply.name} in nut_server_devices to {spell_number(value)}"
    return "".join([text, *(f" and {name} to {spell_number(value)}" for name, value in others)])


def larger_battery(need: float) -> str:
    """Return the remedy for a battery that is too small."""
    seconds = spell_number(math.ceil(need))
    return f"provide {seconds} s of battery: a larger or new battery, less load, or shorter limits and guests_time"


def measure_runtime(name: str) -> str:
    """Return how to find out how long the battery of a UPS lasts."""
    return f"read battery.runtime (upsc {name}) with all machines on, or measure it on battery, and pass it to shutdown_plan as runtime"


def earlier_mark(inputs: PlanInputs, supply: Supply, needed: Mapping[str, Any]) -> str:
    """Return how to make a battery count as low early enough: for the worst case, or for the usual run if it lasts no longer.

    NUT can only decide by what the UPS reports: its drivers don't start with ignorelb if neither battery.runtime nor battery.charge
    is known (drivers/main.c).
    """
    name, full = supply.name, when_charged(supply).runtime
    noticed = notice_time(replace(supply, ignorelb=True), inputs.timing.release) / 2
    usual = math.ceil(sum_terms(usual_terms(inputs, noticed)))
    mark = needed["runtime_low"]
    if full is not None and mark >= full:
        if usual >= full:
            return larger_battery(mark)
        mark = usual
    if supply.reports_runtime is not False:
        proviso = f", if upsc {name} shows battery.runtime" if supply.reports_runtime is None and full is None else ""
        worst = f" (enough unless a machine takes longer than usual; for that, {larger_battery(needed['runtime_low'])})"
        return set_variable("runtime_low", mark) + proviso + (worst if mark < needed["runtime_low"] else "")
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
    percent = min(math.ceil(100 * mark / full), 100)
    return f"{text}set ignorelb: true and override: {{battery.charge.low: {percent}}} for {name} in nut_server_devices"


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
