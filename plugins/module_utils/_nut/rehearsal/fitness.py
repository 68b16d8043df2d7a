# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether this host is fit for a real shutdown: all logged in, all answering, the gate in its place, and the UPS on mains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..base import hostnames, systemd
from ..conf import grammar
from ..net import readings, snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..shutdown import observe
from ..shutdown.policy import ShutdownPolicy
from .job import CONF, RehearsalHost

NAME_SECONDS = 5.0


@dataclass(frozen=True)
class Fitness:
    """What is to be said of a real shutdown now, in words, with what to do."""

    problems: tuple[str, ...]  # what stands against it
    remarks: tuple[str, ...]  # what one has to know before it


@dataclass(frozen=True)
class FitnessFacts:
    """What there is on the host."""

    upses: Mapping[str, snapshot.UpsState | str]  # what upsd says of each, or why it says nothing
    addresses: Mapping[str, frozenset[str]]  # of each machine, normal ones
    seen: Mapping[str, bool | None]  # whether each machine is up; None if nobody can tell
    conf: str | None  # upsmon.conf, None if it can't be read
    gate: systemd.Unit
    upsmon: systemd.Unit


def judge_fitness(policy: ShutdownPolicy, found: FitnessFacts, need: float | None = None) -> Fitness:
    """Return what stands against a real shutdown. need: seconds that the plan wants of the battery from FSD on, None if not known."""
    problems = list(_program_problems(found))
    remarks: list[str] = []
    if not policy.upses:
        problems.append("the policy names no UPS, so there is nothing whose shutdown could begin")
    for ups in policy.upses:
        said = found.upses.get(str(ups), "upsd was not asked")
        if isinstance(said, str):
            problems.append(f"{ups}: nobody can tell whether it is on mains: {said}")
            continue
        problems += _power_problems(said, need)
        remarks += _power_remarks(said, need)
    states = [state for state in found.upses.values() if not isinstance(state, str)]
    inside = {hostnames.normal_address(client) for state in states for client in state.clients}
    for machine in policy.machines if states else ():
        if not found.addresses.get(machine.name):
            problems.append(f"{machine.name} has no address here, so nobody sees when it goes. Is its name right?")
        elif not inside & found.addresses[machine.name]:
            problems.append(
                f"{machine.name} is not logged in to upsd: it would not hear of the shutdown, and lose its power while it runs. "
                f"Logged in are {', '.join(sorted(inside)) or 'none'}. Run the play for it, or see its upsmon"
            )
        elif found.seen.get(machine.name) is not True:
            silent = found.seen.get(machine.name) is False
            problems.append(
                f"{machine.name} is logged in, but {'does not answer' if silent else 'nobody can tell whether it is up'}: this host "
                "would take it for down. See nut-shutdown status, and its firewall"
            )
    if found.conf is not None and not grammar.find_directive(found.conf, "POWERDOWNFLAG"):
        remarks.append(
            "upsmon.conf has no POWERDOWNFLAG: the UPS is not told to cut the power, so nothing starts again by itself. "
            "Somebody has to press the buttons"
        )
    return Fitness(tuple(problems), tuple(remarks))


def _program_problems(found: FitnessFacts) -> Iterator[str]:
    """Yield what of the host's own programs stands against it."""
    if not found.gate.active:
        yield f"{systemd.GATE} is not installed: this host would not wait for the others. Run the play (nut_server_gate.enabled)"
    elif found.gate.enabled.startswith("masked"):
        yield f"{systemd.GATE} is masked: this host would not power off by it. systemctl unmask {systemd.GATE}"
    elif found.gate.runs:
        yield f"{systemd.GATE} runs already: a shutdown is under way"
    if not found.upsmon.runs:
        yield f"{systemd.MONITOR} does not run: there is no upsmon that could set FSD. systemctl status {systemd.MONITOR}"
    if found.conf is None:
        yield f"{CONF} can't be read. The role nut_server writes it"
    elif systemd.GATE not in (grammar.find_directive(found.conf, "SHUTDOWNCMD") or ""):
        yield f"the SHUTDOWNCMD in {CONF} does not start {systemd.GATE}: this host would not wait for the others"


def _power_problems(state: snapshot.UpsState, need: float | None) -> Iterator[str]:
    """Yield why this UPS stands against it."""
    if not state.fresh:
        yield f"{state.name}: nobody can tell whether it is on mains: {state.error or 'it has no status yet'}"
        return
    reading = state.reading
    if not reading.is_plainly_on_mains:
        yield f"{state.name} says {' '.join(state.status)}, and must be plainly on mains (OL). Wait until it is"
    charge, low = reading.charge, reading.charge_low
    if charge is not None and low is not None and charge <= low:
        yield f"{state.name} is charged to {charge:g} %, and counts as low at {low:g} %. Wait until it is charged"
    if need is not None and reading.runtime is not None and reading.runtime < need:
        yield (
            f"{state.name} lasts {reading.runtime:.0f} s, and the plan wants {need:.0f} s, should the mains fail meanwhile. "
            "Wait until it is charged; or see make plan"
        )


def _power_remarks(state: snapshot.UpsState, need: float | None) -> Iterator[str]:
    """Yield what one has to know of this UPS. ups.delay.start: ondelay; not every UPS can."""
    if state.reading.runtime is None and need is not None:
        yield f"{state.name} does not say how long it lasts. Begin only if it is charged"
    if readings.parse_quantity(state.variables.get("ups.delay.start")) is None:
        yield (
            f"{state.name} does not say when it gives power again after it has cut it (ups.delay.start, ondelay): it may stay off. "
            "Be where its button is"
        )


def observe_host(policy: ShutdownPolicy, host: RehearsalHost) -> FitnessFacts:
    """Look at all that judge() goes by."""
    seen, _readings = observe.observe_once(policy, host.run, host.names)
    upses: dict[str, snapshot.UpsState | str] = {}
    for ups in policy.upses:
        try:
            with UpsdClient(ups.host, ups.port, observe.ASK_INTERVAL) as client:
                upses[str(ups)] = snapshot.take_snapshot(client, [ups.name])[0]
        except (UpsdFailure, grammar.Unencodable) as error:
            upses[str(ups)] = str(error)
    try:
        units = systemd.show_units([systemd.GATE, systemd.MONITOR], host.run)
    except systemd.UnitError:
        units = {}
    gate, upsmon = (units.get(name, systemd.ABSENT) for name in (systemd.GATE, systemd.MONITOR))
    return FitnessFacts(upses, find_addresses(policy, host.names), seen, host.upsmon_conf(), gate, upsmon)


def find_addresses(policy: ShutdownPolicy, names: hostnames.Resolve) -> dict[str, frozenset[str]]:
    """Return each machine's addresses, as upsd and we compare them. A guest has them, too: it logs in like any other."""
    wanted = {name for machine in policy.machines for name in machine.addresses}
    found, _problems = hostnames.resolve_names(wanted, NAME_SECONDS, names)
    return {
        machine.name: frozenset(
            hostnames.normal_address(address) for name in machine.addresses for address in found[name]
        )
        for machine in policy.machines
    }
