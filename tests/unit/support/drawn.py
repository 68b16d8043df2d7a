# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from xml.etree import ElementTree as ET

from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import drawing
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    Plan,
    PlanMachine,
    StagePlan,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.planner import make_plan

MACHINES = (
    PlanMachine("pve", "primary", "pve"),
    PlanMachine("truenas", "secondary", "truenas", shutdown_time=60),
    PlanMachine("docker", "secondary", "linux", shutdown_time=20, shutdown_limit=50),
    PlanMachine("media", "guest", "qm", shutdown_time=40, shutdown_limit=90, needs=("truenas",)),
    PlanMachine("router", "guest", "qm", shutdown_time=25, shutdown_limit=90),
)
UPS = Supply(runtime=1500, runtime_low=480, offdelay=30, ondelay=60, ignorelb=True)
STAGE = StagePlan("nas-guests", runtime=700, guests=("media",), fsd=True)
TIMING = Timing(guests_time=120)


def make_example(
    machines: tuple[PlanMachine, ...] = MACHINES, ups: tuple[Supply, ...] = (UPS,), timing: Timing = TIMING
) -> Plan:
    names = {machine.name for machine in machines}
    return make_plan(machines, ups, timing, [STAGE] if "media" in names else [])


def parse_drawing(plan: Plan, seen: drawing.ObservedTimes | None = None) -> ET.Element:
    """Return the drawing, parsed as XML, which is stricter than HTML."""
    return ET.fromstring(drawing.draw_timeline(plan, seen))  # noqa: S314 - our own
