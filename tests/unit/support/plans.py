# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.inventory import usual_limit
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    Constraint,
    Plan,
    PlanMachine,
    ProxmoxGuests,
    StagePlan,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.planner import make_plan
from hypothesis import strategies as st

PVE = PlanMachine("pve", "primary", "pve")
NAS = PlanMachine("truenas", "secondary", "truenas", shutdown_time=60)
MEDIA = PlanMachine("media", "guest", "qm", shutdown_time=40, shutdown_limit=90, needs=("truenas",), guest_id=101)
ROUTER = PlanMachine("router", "guest", "qm", shutdown_time=25, shutdown_limit=90, guest_id=103)
UPS = Supply(
    runtime=3000,
    runtime_low=600,
    charge_low=10,
    charge=100,
    offdelay=30,
    ondelay=60,
    driver="usbhid-ups",
    ignorelb=True,
)
TIMING = Timing(guests_time=120, poweroff_wait=200)
STAGE = StagePlan("nas-guests", runtime=1000, guests=("media",), fsd=True)


@dataclass(frozen=True)
class PlanSite:
    """The input of a plan, with methods that change a part of it."""

    machines: tuple[PlanMachine, ...] = (PVE, NAS, MEDIA, ROUTER)
    supplies: tuple[Supply, ...] = (UPS,)
    timing: Timing = TIMING
    stages: tuple[StagePlan, ...] = (STAGE,)

    def make_plan(self, proxmox: ProxmoxGuests | None = None) -> Plan:
        return make_plan(self.machines, self.supplies, self.timing, self.stages, proxmox)

    def change_machine(self, name: str, /, **changes: Any) -> PlanSite:
        machines = tuple(replace(machine, **changes) if machine.name == name else machine for machine in self.machines)
        return replace(self, machines=machines)

    def add_machines(self, *machines: PlanMachine) -> PlanSite:
        return replace(self, machines=(*self.machines, *machines))

    def change_ups(self, **changes: Any) -> PlanSite:
        return replace(self, supplies=(replace(self.supplies[0], **changes), *self.supplies[1:]))

    def change_timing(self, **changes: Any) -> PlanSite:
        return replace(self, timing=replace(self.timing, **changes))

    def change_stage(self, **changes: Any) -> PlanSite:
        return replace(self, stages=(replace(self.stages[0], **changes), *self.stages[1:]))


SITE = PlanSite()
UNSTAGED = replace(SITE.change_machine("media", needs=()), stages=())


def find_constraint(plan: Plan, name: str, about: str = "") -> Constraint:
    (constraint,) = (each for each in plan.constraints if (each.name, each.about) == (name, about))
    return constraint


def find_span(plan: Plan, machine: str, what: str, worst: bool = False) -> tuple[float, float]:
    events = plan.worst if worst else plan.events
    (event,) = (each for each in events if (each.machine, each.what) == (machine, what))
    return event.at, event.until


DOCKER = PlanMachine("docker", "secondary", "linux", shutdown_time=20, shutdown_limit=50, needs=("truenas",))
STORE = PlanMachine("store", "guest", "qm", shutdown_time=20, shutdown_limit=50, guest_id=110)
CLIENT = PlanMachine("client", "guest", "pct", shutdown_time=20, shutdown_limit=50, needs=("store",), guest_id=111)
LATER = StagePlan("later", runtime=900)
OPEN = UNSTAGED.change_timing(guests_time=None)


@st.composite
def draw_site(draw: st.DrawFn) -> PlanSite:
    """Draw a site close to the point at which its plan fails, where mistakes would show."""
    seconds = st.integers(0, 90)
    secondaries = [
        PlanMachine(
            f"host{number}",
            "secondary",
            draw(st.sampled_from(["truenas", "linux"])),
            draw(st.integers(0, 40)),
            shutdown := draw(seconds),
            draw(st.just(usual_limit(shutdown)) | st.integers(shutdown, shutdown + 60)),
        )
        for number in range(draw(st.integers(0, 3)))
    ]
    guests = [
        PlanMachine(
            f"guest{number}",
            "guest",
            draw(st.sampled_from(["qm", "pct"])),
            0,
            shutdown := draw(seconds),
            draw(st.just(usual_limit(shutdown)) | seconds),
            tuple(secondary.name for secondary in secondaries[:1]) if draw(st.booleans()) else (),
        )
        for number in range(draw(st.integers(0, 3)))
    ]
    users = tuple(guest.name for guest in guests if guest.needs)
    timing = Timing(
        pollfreq=draw(st.integers(1, 9)),
        pollfreqalert=draw(st.integers(1, 5)),
        hostsync=draw(st.integers(10, 60)),
        finaldelay=draw(st.integers(0, 20)),
        deadtime=30,
        settle=draw(st.sampled_from([0.5, 3, 8])),
        own_shutdown=draw(seconds),
        guests_time=draw(st.integers(60, 200)),
        killpower=draw(st.integers(1, 20)),
        margin=draw(st.integers(0, 40)),
        release=draw(st.sampled_from(["2.8.0", "2.8.1", "2.8.3"])),
    )
    supply = Supply(
        offdelay=draw(st.none() | st.integers(0, 130)),
        ondelay=draw(st.none() | st.integers(60, 300)),
        mfr=draw(st.sampled_from(["CPS", "APC"])),
        driver=draw(st.sampled_from(["usbhid-ups", "nutdrv_qx"])),
        ignorelb=draw(st.booleans()),
        pollfreq=draw(st.none() | st.integers(1, 40)),
        pollinterval=draw(st.integers(1, 3)),
        charge=draw(st.none() | st.integers(20, 100)),
    )
    site = PlanSite((PVE, *secondaries, *guests), (supply,), timing, ())
    if users and draw(st.integers(0, 9)):
        site = replace(site, stages=(StagePlan("stage", on_battery=1, guests=users, fsd=draw(st.booleans())),))
    needed = site.make_plan().needed
    if draw(st.booleans()):
        # most drawn sites have several mistakes; in half of them only the battery may be too short
        site = site.change_timing(hostsync=needed["hostsync"], guests_time=needed["guests_time"])
        site = site.change_ups(offdelay=needed["offdelay"]["ups"], ondelay=needed["ondelay"]["ups"])
        for name, limit in needed["limits"].items():
            site = site.change_machine(name, shutdown_limit=limit)
        needed = site.make_plan().needed
    if draw(st.booleans()):
        site = site.change_timing(
            reserve=max(0, needed["reserve"] + draw(st.integers(-60, 90))),
            reserve_minimum=draw(st.none() | st.integers(0, 90)),
        )
    least = needed["runtime_low"]
    low = max(1, least + draw(st.integers(-60, 60)))
    full = low + draw(st.integers(-60, 600))
    site = site.change_ups(runtime_low=low, runtime=max(1, full), charge_low=draw(st.none() | st.integers(5, 60)))
    if not site.stages:
        return site
    kind = draw(st.sampled_from(["runtime", "charge", "on_battery"]))
    value = {
        "runtime": low + max(guest.shutdown_limit for guest in guests) + draw(st.integers(0, 90)),
        "charge": draw(st.integers(30, 100)),
        "on_battery": draw(st.integers(0, 200)),
    }[kind]
    return site.change_stage(**{"on_battery": None, kind: value})
