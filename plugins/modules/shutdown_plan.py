#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module homelab.nut.shutdown_plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shutdown_plan
short_description: Plan a shutdown, and say whether the battery lasts
version_added: 0.1.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Works out who goes down when after the battery is low, as a rule and at worst, and when the UPS cuts the power.
  - Says what must be so for that, such as that a secondary begins to go down within C(HOSTSYNC), and that the battery lasts until all are
    off; by how many seconds it is so; and what to change where it is not.
  - Shows it as a table. The filter P(homelab.nut.shutdown_picture#filter) draws it as a page with a timeline.
  - On Proxmox VE it finds the guests by itself, whose storage each uses, which stage stops it, and what high availability does (O(guests)).
  - Two questions are answered. A plan is feasible (RV(feasible)) if all are off before a charged battery is empty when nothing takes
    longer than usual. It holds (RV(holds)) if that is so at the limits, too, with all else that must be so.
  - All times are in seconds.
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.attributes.read_only
attributes:
  platform:
    platforms: posix
    support: full
options:
  machines:
    description: All that hangs on the UPS, and the guests of the primary that matter. One of them is the primary.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      role:
        description: Whether it has the UPS, hears of it over the network, or is a guest of the primary that the primary stops.
        type: str
        choices: [primary, secondary, guest]
        required: true
      kind:
        description:
          - What it is. A primary is V(pve) or V(linux), a secondary V(truenas), V(linux) or V(pve).
          - A guest is a virtual machine, V(qm), or a container, V(pct).
        type: str
        choices: [pve, linux, truenas, qm, pct]
        required: true
      begin_time:
        description: How long it takes a secondary at most from FSD until it begins to go down. That is its poll and its C(FINALDELAY).
        type: float
        default: 10
      shutdown_time:
        description: How long it takes from there until it is down, as a rule. Not used of the primary, whose times are in O(timing).
        type: float
        default: 60
      shutdown_limit:
        description:
          - How long it is waited for at most.
          - If not given, half as long again as O(machines[].shutdown_time), and 30 s more at least.
        type: float
      needs:
        description: The names of the machines whose storage it uses, so that it must be down before they begin to go down.
        type: list
        elements: str
        default: []
      guest_id:
        description:
          - Its number, if it is a guest of the primary. A secondary may be one, too.
          - A guest that is found (O(guests)) with this number has the name and the times that are given here.
        type: int
      address:
        description: Names or addresses of a secondary, as the primary sees it. The guests on storage from there are found by them.
        type: list
        elements: str
        default: []
  supplies:
    description: The UPSes. Each by itself must last.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its name, as in C(ups.conf).
        type: str
        default: ups
      runtime:
        description: How long the battery lasts now, with all machines on (C(battery.runtime)).
        type: float
      runtime_low:
        description: How much of that is left when the battery is low (C(battery.runtime.low)).
        type: float
      charge:
        description: The charge in percent to which O(supplies[].runtime) belongs (C(battery.charge)). V(100) if not known.
        type: float
      charge_low:
        description: The charge in percent at which the battery is low (C(battery.charge.low)).
        type: float
      offdelay:
        description: Seconds from the order to cut the power to the cut (C(ups.delay.shutdown)). The driver's default if not known.
        type: float
      ondelay:
        description: Seconds from that order until there is power again (C(ups.delay.start)). The driver's default if not known.
        type: float
      mfr:
        description: Its maker. A CyberPower counts delays in whole minutes.
        type: str
      vendorid:
        description: The id of its maker on the USB bus, by which a CyberPower is known as well.
        type: str
      driver:
        description: Its driver. V(auto), and none, count as C(usbhid-ups).
        type: str
      ignorelb:
        description: Whether NUT, not the UPS, decides when the battery is low, by O(supplies[].runtime_low) and O(supplies[].charge_low).
        type: bool
      pollfreq:
        description: Seconds between two readings of the time that is left. If not known, 30, or 12 of a CyberPower from NUT 2.8.3 on.
        type: float
      pollinterval:
        description: Seconds between two readings of the status. If not known, 2.
        type: float
      says_runtime:
        description:
          - Whether the UPS says C(battery.runtime) by itself. C(upsd) tells, if it is asked.
          - Without it NUT can't decide by the time that is left when the battery is low; so what to change is another thing.
        type: bool
  timing:
    description: What stands in NUT's files on the primary, and how long the primary takes.
    type: dict
    default: {}
    suboptions:
      pollfreq:
        description: C(POLLFREQ).
        type: float
        default: 5
      pollfreqalert:
        description: C(POLLFREQALERT).
        type: float
        default: 5
      hostsync:
        description: C(HOSTSYNC).
        type: float
        default: 30
      finaldelay:
        description: C(FINALDELAY).
        type: float
        default: 5
      deadtime:
        description: C(DEADTIME).
        type: float
        default: 15
      maxage:
        description: C(MAXAGE).
        type: float
        default: 15
      settle:
        description: How long a host must be silent to count as down.
        type: float
        default: 3
      own_shutdown:
        description: How long the primary takes at most to go down, without its guests.
        type: float
        default: 30
      guests_time:
        description:
          - How long it takes at most to stop all guests that no stage stops.
          - If not given, it is worked out from the guests (O(guests)), as Proxmox VE stops them. V(0) if there are none.
          - V(180), Proxmox VE's own limit for one virtual machine, if they are not asked for or can't be read.
        type: float
      killpower:
        description: How long it takes at most to tell the UPS to cut, until the system is off.
        type: float
        default: 10
      poweroff_wait:
        description: C(POWEROFF_WAIT). Not set if not given.
        type: float
      margin:
        description: What is kept back of the battery.
        type: float
        default: 30
      release:
        description: The release of NUT. If not given, that of C(upsd) if it is asked, else V(2.8.1).
        type: str
      reserve:
        description:
          - What C(nut-shutdown) leaves of the battery to the primary, once the expected times are over.
          - Not looked at if not given.
        type: float
      least:
        description: What it leaves at any time. Not looked at if not given.
        type: float
  stages:
    description: What is done before the battery is low, in this order. Each starts with whichever of its triggers comes first.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name.
        type: str
        required: true
      on_battery:
        description: Starts after so many seconds on battery.
        type: float
      charge:
        description: Starts at so many percent of charge.
        type: float
      runtime:
        description: Starts when the battery lasts only so many seconds.
        type: float
      guests:
        description:
          - The names of the guests in O(machines) that it stops.
          - Or numbers of guests; or dictionaries with C(id) and C(seconds), which is how long this one has.
        type: list
        elements: raw
        default: []
      tags:
        description: It stops the guests that have one of these tags, if O(guests) are asked for.
        type: list
        elements: str
        default: []
      storage_of:
        description:
          - It stops the guests that use storage of these machines, if O(guests) are asked for.
          - Names in O(machines), whose O(machines[].address) count; or names and addresses.
        type: list
        elements: str
        default: []
      fsd:
        description: Whether it then begins the shutdown.
        type: bool
        default: false
      seconds:
        description:
          - How long each guest has that was found and has no time of its own. As long as Proxmox VE gives it, if not given.
          - And the least time that is counted for all guests of this stage. The longest limit of one of them counts if it is longer.
        type: float
  guests:
    description:
      - Whether Proxmox VE on this host is asked for its guests. Those that run, that start at boot, or that a stage names by number, become
        machines of the plan.
      - One that is a secondary in O(machines), by its O(machines[].guest_id), is none of them; it goes down by itself, and is waited for.
      - Guests of high availability are stopped by that, after the others, with its own times.
    type: bool
    default: false
  ask:
    description: Whether C(upsd) is asked for what is not given in O(supplies).
    type: bool
    default: false
  host:
    description: Where C(upsd) listens, as seen from the host on which this module runs.
    type: str
    default: localhost
  port:
    description: The port on which C(upsd) listens.
    type: int
    default: 3493
  timeout:
    description: How many seconds it may take to ask.
    type: int
    default: 5
  must_answer:
    description:
      - Whether it is a failure that C(upsd) can't be asked, does not serve a UPS, or that the guests can't be read.
      - If V(false), the plan is made of what is known, as before a first deployment. RV(asked) tells.
    type: bool
    default: true
  enforce:
    description:
      - When the task fails. What can't be told is no failure.
      - V(none) does not fail because of the plan.
      - V(expected) fails if the plan is not feasible. A guest that is not stopped before the machine whose storage it uses is no reason for
        that; it does not hold then.
      - V(limits) fails if the plan does not hold.
    type: str
    choices: [none, expected, limits]
    default: none
"""

EXAMPLES = r"""
- name: See whether the battery lasts until TrueNAS and Proxmox are down
  homelab.nut.shutdown_plan:
    machines:
      - {name: pve, role: primary, kind: pve}
      - {name: truenas, role: secondary, kind: truenas, shutdown_time: 60}
      - {name: media, role: guest, kind: qm, guest_id: 101, shutdown_time: 40, shutdown_limit: 90, needs: [truenas]}
    supplies:
      - {name: ups, runtime_low: 480, ignorelb: true}
    stages:
      - {name: nas-guests, runtime: 700, guests: [media], fsd: true}
    ask: true
    enforce: limits
  register: plan

- name: See before a deployment that it can work, with the guests of Proxmox VE as they are
  homelab.nut.shutdown_plan:
    machines:
      - {name: pve, role: primary, kind: pve}
      - {name: truenas, role: secondary, kind: truenas, address: [192.0.2.20, nas.example.org]}
    supplies:
      - {name: ups}
    stages:
      - name: nas-guests
        on_battery: 120
        runtime: 900
        storage_of: [truenas]
        tags: [nas]
        guests: [101, {id: 102, seconds: 60}]
        seconds: 90
    guests: true
    ask: true
    must_answer: false
    enforce: expected

- name: Draw it
  ansible.builtin.copy:
    content: "{{ plan.plan | homelab.nut.shutdown_picture }}"
    dest: plan.html
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
holds:
  description: Whether all that must be so is so, even if each machine takes as long as it may. None if too little is known.
  returned: always
  type: bool
feasible:
  description:
    - Whether all are off before a charged battery is empty, each machine is waited for as long as it usually takes, and high availability
      moves no guests away, if all goes as expected. None if too little is known.
  returned: always
  type: bool
asked:
  description: Whether C(upsd) was asked, and knows all UPSes of the plan.
  returned: always
  type: bool
ha:
  description: What a person should know of Proxmox VE's high availability. Empty if it works no guest, or was not asked for.
  returned: always
  type: list
  elements: str
  sample: [HA works 1 guest (104)]
guests:
  description: The guests of the primary that are in the plan. Those that a stage stops come first.
  returned: always
  type: list
  elements: dict
  sample:
    - id: 101
      kind: qm
      name: web
      machine: 101 web
      stage: nas-guests
      seconds: 90
      why: its disk is on storage nas, on 192.0.2.20
      needs: [truenas]
      ha: false
  contains:
    id:
      description: Its number. None if it was given without one.
      type: int
    kind:
      description: V(qm) or V(pct).
      type: str
    name:
      description: Its name on Proxmox VE, or empty.
      type: str
    machine:
      description: Its name in the plan.
      type: str
    stage:
      description: The stage that stops it. Empty if the primary does, when it goes down.
      type: str
    seconds:
      description: How long it has for its shutdown.
      type: float
    why:
      description: Why that stage stops it, or whose storage it uses, in words.
      type: str
    needs:
      description: The machines whose storage it uses.
      type: list
      elements: str
    ha:
      description: Whether high availability works it.
      type: bool
plan:
  description: The plan.
  returned: always
  type: dict
  contains:
    verdict:
      description: Whether it holds, and what is tight, in one line.
      type: str
      sample: The plan holds. Tightest is order (truenas), with 27 s to spare
    events:
      description: Who does what from when until when, in seconds from the trigger, as a rule.
      type: list
      elements: dict
      sample:
        - {at: 10, machine: truenas, until: 70, what: goes down, worst: false}
    worst:
      description: The same at worst.
      type: list
      elements: dict
    constraints:
      description: What must be so. What is not so comes first, then what can't be told, then the tightest.
      type: list
      elements: dict
      contains:
        name:
          description: What it is.
          type: str
          sample: HOSTSYNC
        about:
          description: The machine, UPS or stage, or empty.
          type: str
          sample: truenas
        holds:
          description: Whether it is so. None if that can't be told.
          type: bool
        have:
          description: What there is.
          type: float
          sample: 30
        need:
          description: What there must be.
          type: float
          sample: 10
        slack:
          description: The difference. Less than 0 if it is not so.
          type: float
          sample: 20
        words:
          description: How that comes.
          type: str
          sample: truenas begins to go down up to 10 s after FSD; HOSTSYNC gives 30 s
        remedy:
          description: What to change or to find out, or empty.
          type: str
          sample: set nut_server_runtime_low to 382
    needed:
      description:
        - What the settings must be.
        - C(reserve) is what the primary wants of the battery from its own poweroff on. C(least) is that without guests, and without
          anything kept back.
      type: dict
      sample: {deadtime: 15, finaldelay: 2, hostsync: 30, least: 40, longest: 92, reserve: 220, runtime_low: 382}
    holds:
      description: As RV(holds).
      type: bool
    feasible:
      description: As RV(feasible).
      type: bool
    guests:
      description: As RV(guests).
      type: list
      elements: dict
    ha:
      description: As RV(ha).
      type: list
      elements: str
    machines:
      description: The machines, as planned for, with the guests that were found.
      type: list
      elements: dict
    supplies:
      description: The UPSes, with what C(upsd) said of them.
      type: list
      elements: dict
    stages:
      description: The stages, as planned for.
      type: list
      elements: dict
msg:
  description: The plan as a table.
  returned: always
  type: str
"""

from dataclasses import fields
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._command import make_runner
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.upsd import PORT
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.errors import UpsdFailure
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import data, model, observe
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import draw_table
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import GuestsError
from ansible_collections.homelab.nut.plugins.module_utils._options import suboptions_of


def spec() -> dict[str, Any]:
    """Return what Ansible checks the options by."""
    kinds = list(dict.fromkeys(kind for kinds in model.KINDS.values() for kind in kinds))
    machine = suboptions_of(model.PlanMachine, without_default=["shutdown_limit"])
    machine["role"]["choices"], machine["kind"]["choices"] = list(model.KINDS), kinds
    # upsd may know what is not given
    asked = [field.name for field in fields(model.Supply) if field.name != "name"]
    names = {"type": "list", "elements": "str", "default": []}
    stage = {
        **suboptions_of(model.StagePlan),
        "guests": {**names, "elements": "raw"},
        "tags": names,
        "storage_of": names,
    }
    timing = suboptions_of(model.Timing, without_default=["release"])
    supply = suboptions_of(model.Supply, without_default=asked)
    return {
        "machines": {"type": "list", "elements": "dict", "required": True, "options": machine},
        "supplies": {"type": "list", "elements": "dict", "required": True, "options": supply},
        "timing": {"type": "dict", "default": {}, "options": timing},
        "stages": {"type": "list", "elements": "dict", "default": [], "options": stage},
        "ask": {"type": "bool", "default": False},
        "host": {"type": "str", "default": "localhost"},
        "port": {"type": "int", "default": PORT},
        "timeout": {"type": "int", "default": 5},
        "guests": {"type": "bool", "default": False},
        "must_answer": {"type": "bool", "default": True},
        "enforce": {"type": "str", "default": "none", "choices": ["none", "expected", "limits"]},
    }


def main() -> None:
    module = Module(argument_spec=spec(), supports_check_mode=True)
    try:
        plan, asked = observe.plan_for_host(module.params, make_runner(module))
    except (model.PlanError, UpsdFailure, GuestsError) as error:
        module.fail_json(msg=str(error))
    kept = data.plan_to_dict(plan)
    result = {name: kept[name] for name in ("holds", "feasible", "guests", "ha")}
    result.update(asked=asked, plan=kept, msg=draw_table(plan))
    if {"none": True, "expected": plan.feasible, "limits": plan.holds}[module.params["enforce"]] is False:
        module.fail_json(**result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
