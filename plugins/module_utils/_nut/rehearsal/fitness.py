# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the site is ready for a real shutdown: UPSes on mains, the gate in place, all machines logged in and answering."""

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
    """Whether the site is ready; each line says what is wrong and what to do."""

    problems: tuple[str, ...]  # what prevents a real shutdown
    remarks: tuple[str, ...]  # what to know before it


@dataclass(frozen=True)
class FitnessFacts:
    """What was observed on the host."""

    upses: Mapping[str, snapshot.UpsState | str]  # state of each UPS, or why upsd did not report it
    addresses: Mapping[str, frozenset[str]]  # machine -> its addresses, normalized
    seen: Mapping[str, bool | None]  # machine -> whether it is up; None if unknown
    conf: str | None  # text of upsmon.conf; None if it can't be read
    gate: systemd.Unit
    upsmon: systemd.Unit


def judge_fitness(policy: ShutdownPolicy, facts: FitnessFacts, need: float | None = None) -> Fitness:
    """Judge whether the site is ready. need: seconds of battery that the plan needs from FSD on, None if unknown."""
    problems = list(_list_program_problems(facts))
    remarks: list[str] = []
    if not policy.upses:
        problems.append("the policy names no UPS. Add one to nut_server_devices and run the playbook")
    for ups in policy.upses:
        state = facts.upses.get(str(ups), "upsd was not asked")
        if isinstance(state, str):
            problems.append(f"{ups}: cannot tell whether it is on mains: {state}")
            continue
        problems += _list_power_problems(state, need)
        remarks += _list_power_remarks(state, need)
    states = [state for state in facts.upses.values() if not isinstance(state, str)]
    logged_in = {hostnames.normal_address(client) for state in states for client in state.clients}
    for machine in policy.machines if states else ():
        if not facts.addresses.get(machine.name):
            problems.append(
                f"{machine.name}: its name does not resolve on this host, so its shutdown can't be seen. Check its address"
            )
        elif not logged_in & facts.addresses[machine.name]:
            problems.append(
                f"{machine.name} is not logged in to upsd: it would miss the shutdown and lose power while running. "
                f"Logged in: {', '.join(sorted(logged_in)) or 'none'}. Run the playbook for it, or check its upsmon"
            )
        elif facts.seen.get(machine.name) is not True:
            silent = facts.seen.get(machine.name) is False
            problems.append(
                f"{machine.name} is logged in but {'does not answer' if silent else 'it is unknown whether it is up'}: this host would "
                "take it for down. See nut-shutdown status, and check its firewall"
            )
    if facts.conf is not None and not grammar.find_directive(facts.conf, "POWERDOWNFLAG"):
        remarks.append(
            "upsmon.conf has no POWERDOWNFLAG: the UPS will not cut the power, so no machine starts again automatically. "
            "You will have to press the power buttons"
        )
    return Fitness(tuple(problems), tuple(remarks))


def _list_program_problems(facts: FitnessFacts) -> Iterator[str]:
    """Yield problems of the host's own programs."""
    if not facts.gate.active:
        yield f"{systemd.GATE} is not installed: this host would not wait for the others. Set nut_server_gate.enabled and run the playbook"
    elif facts.gate.enabled.startswith("masked"):
        yield f"{systemd.GATE} is masked: this host would not power off. Run systemctl unmask {systemd.GATE}"
    elif facts.gate.runs:
        yield f"{systemd.GATE} is running: a shutdown is under way"
    if not facts.upsmon.runs:
        yield f"{systemd.MONITOR} is not running, so nothing would set FSD. See systemctl status {systemd.MONITOR}"
    if facts.conf is None:
        yield f"{CONF} can't be read. The role nut_server writes this file"
    elif systemd.GATE not in (grammar.find_directive(facts.conf, "SHUTDOWNCMD") or ""):
        yield f"the SHUTDOWNCMD in {CONF} does not start {systemd.GATE}: this host would not wait for the others"


def _list_power_problems(state: snapshot.UpsState, need: float | None) -> Iterator[str]:
    """Yield problems of a UPS."""
    if not state.fresh:
        yield f"{state.name}: cannot tell whether it is on mains: {state.error or 'it has no status yet'}"
        return
    reading = state.reading
    if not reading.is_plainly_on_mains:
        yield f"{state.name} reports {' '.join(state.status)}, which does not count as on mains. Wait until it does"
    charge, low = reading.charge, reading.charge_low
    if charge is not None and low is not None and charge <= low:
        yield f"{state.name} has a charge of {charge:g} %; {low:g} % counts as low. Wait until it is charged"
    if need is not None and reading.runtime is not None and reading.runtime < need:
        yield (
            f"{state.name} would last {reading.runtime:.0f} s if the mains failed now; the plan needs {need:.0f} s. "
            "Wait until it is charged, or see make plan"
        )


def _list_power_remarks(state: snapshot.UpsState, need: float | None) -> Iterator[str]:
    """Yield what to know about a UPS. Not every UPS reports ups.delay.start, its ondelay."""
    if state.reading.runtime is None and need is not None:
        yield f"{state.name} reports no runtime. Begin only if it is charged"
    if readings.parse_quantity(state.variables.get("ups.delay.start")) is None:
        yield (
            f"{state.name} does not report when it restores power after cutting it (ups.delay.start, ondelay), so it may stay off. "
            "Be near its power button"
        )


def observe_host(policy: ShutdownPolicy, host: RehearsalHost) -> FitnessFacts:
    """Observe what judge_fitness() needs."""
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
    return FitnessFacts(upses, find_addresses(policy, host.names), seen, host.read_upsmon_conf(), gate, upsmon)


def find_addresses(policy: ShutdownPolicy, names: hostnames.Resolve) -> dict[str, frozenset[str]]:
    """Return each machine's addresses, normalized. Guests have addresses too: they log in like any other machine."""
    wanted = {name for machine in policy.machines for name in machine.addresses}
    resolved, _problems = hostnames.resolve_names(wanted, NAME_SECONDS, names)
    return {
        machine.name: frozenset(
            hostnames.normal_address(address) for name in machine.addresses for address in resolved[name]
        )
        for machine in policy.machines
    }
