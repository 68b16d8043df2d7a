# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What to change where a plan does not hold: all that names a variable of the roles, or a setting of Proxmox VE."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..conf.settings import variable_of
from .model import PlanMachine, StagePlan, Supply
from .needed import needed_stage_runtime, sum_terms, terms_as_expected
from .supplies import notice_time, when_charged
from .timeline import PlanInputs

FREEZE = "set shutdown_policy to freeze: Datacenter, Options, HA Settings"
SHORTER_STARTUP = "or give them less time in Proxmox (startup: down=...)"


def spell_number(value: float) -> str:
    """Write a number with one digit after the point, if any."""
    return f"{value:.1f}".removesuffix(".0")


def spell_sum(terms: Iterable[tuple[float, str]]) -> str:
    """Write a sum with what each part is."""
    terms = list(terms)
    parts = [f"{spell_number(value)} ({what})" for value, what in terms if value]
    return f"{' + '.join(parts) or '0'} = {spell_number(sum_terms(terms))} s"


def spell_trigger(stage: StagePlan) -> str:
    """Write what starts a stage."""
    parts = [
        f"{stage.on_battery:g} s on battery" if stage.on_battery is not None else "",
        f"charge {stage.charge:g} %" if stage.charge is not None else "",
        f"{stage.runtime:g} s left" if stage.runtime is not None else "",
    ]
    return " or ".join(part for part in parts if part)


def set_variable(name: str, value: float) -> str:
    """Name a variable of the role nut_server, and what it must be."""
    return f"set nut_server_{name} to {spell_number(value)}"


def set_directive(name: str, value: float, file: str = "upsmon.conf", unit: str = "") -> str:
    """Name a directive of one of NUT's files, the variable that holds it, and what it must be."""
    return f"set {name} in {variable_of('nut_server', file)} to {spell_number(value)}{unit}"


def set_delays(supply: Supply, **delays: float) -> str:
    """Name offdelay or ondelay of a UPS, or both, and what they must be."""
    (first, value), *others = delays.items()
    words = f"set {first} of {supply.name} in nut_server_devices to {spell_number(value)}"
    return "".join([words, *(f" and {name} to {spell_number(value)}" for name, value in others)])


def larger_battery(need: float) -> str:
    """Return what helps if a battery is too small."""
    return (
        f"{spell_number(math.ceil(need))} s need a larger or new battery, less load, or shorter limits and guests_time"
    )


def measure_runtime(name: str) -> str:
    """Return how it is found out how long the battery of a UPS lasts."""
    return f"read battery.runtime (upsc {name}) with all machines on, or measure it on battery, and give it as runtime"


def earlier_mark(given: PlanInputs, supply: Supply, needed: Mapping[str, Any]) -> str:
    """Return what makes a battery count as low early enough: at the limits, or at least as expected if it can't be more.

    NUT can decide by what it is told only, and its drivers don't start with ignorelb where neither battery.runtime nor battery.charge
    is known (drivers/main.c).
    """
    name, full = supply.name, when_charged(supply).runtime
    noticed = notice_time(replace(supply, ignorelb=True), given.timing.release) / 2
    expected = math.ceil(sum_terms(terms_as_expected(given, noticed)))
    want = needed["runtime_low"]
    if full is not None and want >= full:
        if expected >= full:
            return larger_battery(want)
        want = expected
    if supply.says_runtime is not False:
        only = f", if upsc {name} shows battery.runtime" if supply.says_runtime is None and full is None else ""
        less = f" (all goes well if nothing takes longer than expected; {larger_battery(needed['runtime_low'])})"
        return set_variable("runtime_low", want) + only + (less if want < needed["runtime_low"] else "")
    words = f"{name} does not say battery.runtime, so that NUT can't decide by it: "
    if supply.charge is None:
        return (
            f"{words}measure on battery how long it lasts with all machines on, and let a stage with fsd: true begin after so many "
            f"seconds on battery (on_battery) that {want} s are left"
        )
    if full is None:
        return (
            f"{words}measure on battery at which charge {want} s are left, and set ignorelb: true and override: {{battery.charge.low: "
            f"that charge}} for {name} in nut_server_devices"
        )
    percent = min(math.ceil(100 * want / full), 100)
    return f"{words}set ignorelb: true and override: {{battery.charge.low: {percent}}} for {name} in nut_server_devices"


def set_stage_runtime(given: PlanInputs, stage: StagePlan, needed: Mapping[str, Any]) -> str:
    """Return when a stage must begin."""
    runtime = needed_stage_runtime(given, given.stage_takes(stage, worst=True), needed["runtime_low"])
    return f"set runtime of stage {stage.name} to {runtime}"


def add_to_stage(given: PlanInputs, guest: PlanMachine, owner: PlanMachine, needed: Mapping[str, Any]) -> str:
    """Return how a guest comes into a stage. By OWNER's storage only those are found that Proxmox was asked for."""
    if guest.name not in {row.machine for row in given.proxmox.guests}:
        return f"put {guest.name} into the guests of a stage"
    if given.stages:
        return f"add storage_of: [{owner.name}] to a stage of nut_server_stages"
    most = max(other.shutdown_limit for other in given.unstaged if owner.name in other.needs)
    runtime = needed_stage_runtime(given, most, needed["runtime_low"])
    stage = f"{{name: guests, runtime: {runtime}, storage_of: [{owner.name}], fsd: true}}"
    return f"add {stage} to nut_server_stages"
