# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Collect what a plan is made from on this host: the module's options, upsd's values of the UPSes, and Proxmox VE's guests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..base.systemd import Run
from ..inventory import usual_limit
from ..kinds import LINUX
from ..net import readings, snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..proxmox.guests import IDS, GuestsError, is_node
from ..proxmox.selection import Selector
from . import placement
from .model import AUTO, GUEST, PRIMARY, Plan, PlanError, PlanMachine, ProxmoxGuests, StagePlan, Supply, Timing
from .placement import GuestPlacement
from .planner import make_plan
from .supplies import written_delays

# Members of a Supply, and the variables of upsd that hold them
READINGS = ("runtime", "runtime_low", "charge", "charge_low")
NUMBERS = {
    "offdelay": "ups.delay.shutdown",
    "ondelay": "ups.delay.start",
    "pollfreq": "driver.parameter.pollfreq",
    "pollinterval": "driver.parameter.pollinterval",
}
TEXTS = {
    "mfr": ("device.mfr", "ups.mfr"),
    "driver": ("driver.name",),
    "vendorid": ("ups.vendorid", "driver.parameter.vendorid"),
}
FLAG = "driver.flag.ignorelb"
# Members of a stage that a StagePlan has; the others select its guests
STAGE_MEMBERS = tuple(member.name for member in fields(StagePlan) if member.name != "guests")


def plan_for_host(
    options: Mapping[str, Any], run: Run, root: Path = Path("/"), deployed_runtime_low: float | None = None
) -> tuple[Plan, bool]:
    """Return a plan made from the options of the module shutdown_plan, and whether upsd serves all its UPSes.

    Raises PlanError; with must_answer also UpsdFailure and GuestsError.
    """
    supplies, timing, is_asked = options["supplies"], _without_unset(options["timing"]), False
    if options["ask"]:
        is_asked, release, served = _query_upsd(options, [supply["name"] for supply in supplies])
        supplies = [fill_supply(supply, served.get(supply["name"].lower(), {})) for supply in supplies]
        if release is not None:
            timing.setdefault("release", release)
    machines = tuple(_read_machine(machine) for machine in options["machines"])
    if options["guests"] and not is_node(root):
        machines = tuple(
            replace(machine, kind=LINUX.name) if machine.role == PRIMARY else machine for machine in machines
        )
    stages = [read_stage(stage, machines) for stage in options["stages"]]
    placed = GuestPlacement(machines, tuple(stage for stage, _selector in stages), ProxmoxGuests())
    if options["guests"]:
        selectors = {stage.name: selector for stage, selector in stages}
        placed = _place_guests(placed, selectors, run, root, options["must_answer"])
    plan = make_plan(
        placed.machines,
        [
            written_delays(supply, given.get("driver"), given.get("vendorid"))
            for given, supply in zip(options["supplies"], (Supply(**_without_unset(each)) for each in supplies))
        ],
        Timing(
            **{
                **timing,
                "runtime_low": _read_runtime_low(timing.get("runtime_low")),
                "deployed_runtime_low": deployed_runtime_low,
            }
        ),
        placed.stages,
        placed.proxmox,
    )
    return plan, is_asked


def _without_unset(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that are set, so that defaults apply to the others."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items() if value is not None
    }


def _read_runtime_low(value: Any) -> float | str | None:
    """Return a number of seconds, AUTO, or None. Raises PlanError."""
    if value in (None, "", AUTO):
        return value or None
    seconds = readings.parse_quantity(str(value))
    if not seconds:
        raise PlanError(f"timing: runtime_low {value!r} is neither a number of seconds nor {AUTO}")
    return seconds


def _read_machine(options: Mapping[str, Any]) -> PlanMachine:
    return PlanMachine(**{"shutdown_limit": usual_limit(options["shutdown_time"]), **_without_unset(options)})


def read_stage(options: Mapping[str, Any], machines: Sequence[PlanMachine]) -> tuple[StagePlan, Selector]:
    """Return a stage, and the selector of its guests. Guests that MACHINES lists need no selector. Raises PlanError."""
    names = {machine.name for machine in machines}
    listed = [
        guest for guest in options["guests"] if isinstance(guest, str) and (guest in names or not guest.isdigit())
    ]
    ids = [read_guest(guest, options["name"]) for guest in options["guests"] if guest not in listed]
    numbers = {number for number, _seconds in ids}
    listed += [machine.name for machine in machines if machine.role == GUEST and machine.guest_id in numbers]
    members = {name: options[name] for name in STAGE_MEMBERS if options.get(name) is not None}
    selector = Selector(tuple(ids), tuple(options["tags"]), tuple(options["storage_of"]), options["seconds"])
    return StagePlan(**{**members, "guests": tuple(dict.fromkeys(listed))}), selector


def read_guest(item: Any, stage: str) -> tuple[int, float | None]:
    """Return the number of a guest, and its own seconds if it has any. Raises PlanError."""
    entry = item if isinstance(item, Mapping) else {"id": item}
    number, seconds = str(entry.get("id")), entry.get("seconds")
    length = None if seconds is None else readings.parse_quantity(str(seconds))
    is_number = number.isascii() and number.isdigit() and int(number[:10]) in IDS
    if not is_number or not set(entry) <= {"id", "kind", "seconds"} or (length is None and seconds is not None):
        raise PlanError(f"stage {stage}: {item!r} is not a guest; write 101 or {{id: 101, seconds: 60}}")
    return int(number), length


def _query_upsd(
    options: Mapping[str, Any], names: Sequence[str]
) -> tuple[bool, str | None, dict[str, Mapping[str, str]]]:
    """Return whether upsd serves all these UPSes, its release, and UPS -> variables (empty for a UPS without data).

    Raises UpsdFailure if upsd must answer.
    """
    try:
        with UpsdClient(options["host"], options["port"], timeout=options["timeout"]) as client:
            release = client.get_version()
            upses = snapshot.take_snapshot(client, names if options["must_answer"] else None)
    except UpsdFailure:
        if options["must_answer"]:
            raise
        return False, None, {}
    served = {ups.name.lower(): ups.variables for ups in upses}
    return all(name.lower() in served for name in names), release, served


def fill_supply(options: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """Return a supply, with upsd's values where no option is set."""
    supply, reading = dict(options), readings.read_variables(variables)
    numbers = {name: getattr(reading, name) for name in READINGS}
    numbers |= {name: readings.parse_quantity(variables.get(variable)) for name, variable in NUMBERS.items()}
    supply.update({name: number for name, number in numbers.items() if supply.get(name) is None})
    for name, candidates in TEXTS.items():
        if supply.get(name) in {None, "", "auto"}:
            supply[name] = next((variables[key] for key in candidates if variables.get(key)), supply.get(name))
    if supply.get("ignorelb") is None:
        supply["ignorelb"] = variables.get(FLAG) in {"enabled", "1"}
    if supply.get("reports_runtime") is None and variables:
        supply["reports_runtime"] = reading.runtime is not None
    return supply


def _place_guests(
    placed: GuestPlacement, selectors: Mapping[str, Selector], run: Run, root: Path, must_answer: bool
) -> GuestPlacement:
    """Return the machines and stages with the guests of this host. Raises PlanError; with must_answer also GuestsError."""
    selectors = {name: placement.with_addresses(selector, placed.machines) for name, selector in selectors.items()}
    try:
        host = placement.observe_host(run, root)
    except GuestsError as error:
        if must_answer:
            raise
        return GuestPlacement(placed.machines, placed.stages, ProxmoxGuests(problem=str(error)))
    resolve = placement.look_up_names(placed.machines, selectors.values(), host)
    return placement.place_guests(placed.machines, placed.stages, selectors, host, resolve)
