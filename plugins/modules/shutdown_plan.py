#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module homelab.nut.shutdown_plan. Most of this file is its documentation."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shutdown_plan
short_description: Plan a shutdown and check that the battery lasts
version_added: 0.1.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Computes when each machine goes down after the battery is low, usually and in the worst case, and when the UPS cuts the power.
  - Checks the conditions for that, for example that a secondary begins to go down within C(HOSTSYNC), and that the battery lasts until all
    machines are off. Each condition is returned with its slack in seconds and, if it fails, with what to change.
  - Returns the plan as data and as a table. The filter P(homelab.nut.shutdown_picture#filter) draws it as a page with a timeline.
  - On Proxmox VE it also reads the guests, whose storage they use, which stage stops them, and what high availability does (O(guests)).
  - A plan is feasible (RV(feasible)) if all machines are off before a charged battery is empty, provided that each takes its usual time. It
    holds (RV(holds)) if all conditions are met even when each machine takes as long as it may.
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
    description: All machines that the UPS powers, and the guests of the primary that matter. Exactly one of them is the primary.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the machine.
        type: str
        required: true
      role:
        description:
          - V(primary) is the machine to which the UPS is connected.
          - V(secondary) is a machine that shuts down when the primary orders it over the network.
          - V(guest) is a virtual machine or container on the primary, which the primary stops.
        type: str
        choices: [primary, secondary, guest]
        required: true
      kind:
        description:
          - Kind of machine. A primary is V(pve) or V(linux), a secondary V(truenas), V(linux), V(unmanaged) or V(pve).
          - A guest is a virtual machine, V(qm), or a container, V(pct).
        type: str
        choices: [pve, linux, truenas, unmanaged, qm, pct]
        required: true
      begin_time:
        description: Longest time from FSD until a secondary begins to go down, that is, its C(POLLFREQ) and its C(FINALDELAY).
        type: float
        default: 10
      shutdown_time:
        description: Usual time from then until the machine is down. Ignored for the primary, whose times are in O(timing).
        type: float
        default: 60
      shutdown_limit:
        description:
          - The primary waits no longer than this for the machine.
          - Defaults to one and a half times O(machines[].shutdown_time), and at least 30 s more than that.
        type: float
      needs:
        description: Names of the machines whose storage this machine uses. It must be down before they begin to go down.
        type: list
        elements: str
        default: []
      guest_id:
        description:
          - Number of the machine on Proxmox VE, if it runs on the primary. A secondary may run there, too.
          - A guest with this number that O(guests) finds keeps the name and the times of this entry.
        type: int
      ups:
        description: The UPS that powers a secondary, if it is not the primary's.
        type: str
        default: ""
      address:
        description: Names and addresses of a secondary, as the primary sees it. They identify the guests that use its storage.
        type: list
        elements: str
        default: []
  supplies:
    description: The UPSes. The battery of each must last.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the UPS, as in C(ups.conf).
        type: str
        default: ups
      runtime:
        description: How long the battery lasts now, with all machines on (C(battery.runtime)).
        type: float
      runtime_low:
        description: The battery is low when this much time is left (C(battery.runtime.low)).
        type: float
      charge:
        description: The charge in percent to which O(supplies[].runtime) belongs (C(battery.charge)). Taken as 100 if not known.
        type: float
      charge_low:
        description: The battery is low at this charge in percent (C(battery.charge.low)).
        type: float
      offdelay:
        description: Seconds from the order to cut the power until it is off (C(ups.delay.shutdown)). Defaults to the driver's own default.
        type: float
      ondelay:
        description: Seconds from that order until the power is on again (C(ups.delay.start)). Defaults to the driver's own default.
        type: float
      mfr:
        description: Manufacturer of the UPS. A CyberPower counts its delays in whole minutes.
        type: str
      vendorid:
        description: USB vendor ID. It also identifies a CyberPower.
        type: str
      driver:
        description: Driver of the UPS. V(auto) counts as C(usbhid-ups). So does a UPS without a driver.
        type: str
      ignorelb:
        description:
          - Whether NUT instead of the UPS decides when the battery is low, by O(supplies[].runtime_low) and O(supplies[].charge_low).
        type: bool
      pollfreq:
        description:
          - Seconds between two readings of the time left.
          - Defaults to 30, or to 12 for a CyberPower with NUT 2.8.3 or later.
        type: float
      pollinterval:
        description: Seconds between two readings of the status. Defaults to 2.
        type: float
      powervalue:
        description: How many of the primary's power supplies it feeds. V(0) is a UPS that powers other machines only. Defaults to 1.
        type: int
      reports_runtime:
        description:
          - Whether the UPS itself reports C(battery.runtime). C(upsd) tells if O(ask=true).
          - Without it, NUT can't decide by the time left when the battery is low, and the plan recommends other changes.
        type: bool
  timing:
    description: The times in NUT's files on the primary, and how long the primary itself takes.
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
      elsewhere:
        description:
          - UPSes of other hosts, as V(ups@host), that keep the primary up when its own are low. Once they are low, too, C(upsmon) gives
            their primaries HOSTSYNC to set FSD, unless C(nut-stages) sets it.
        type: list
        elements: str
        default: []
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
        description: A host must be silent for this long to count as down.
        type: float
        default: 3
      own_shutdown:
        description: Longest time that the primary itself takes to shut down, without its guests.
        type: float
        default: 30
      guests_time:
        description:
          - Longest time to stop all guests that no stage stops.
          - Defaults to what Proxmox VE needs for its guests (O(guests)), which is 0 if there are none.
          - Defaults to 180, Proxmox VE's own limit for one virtual machine, if the guests are not read or can't be read.
        type: float
      killpower:
        description: Longest time from the order to cut the power until the primary is off.
        type: float
        default: 10
      poweroff_wait:
        description: C(POWEROFF_WAIT). Not checked if not given.
        type: float
      margin:
        description: Battery time that is kept back as a safety margin.
        type: float
        default: 30
      release:
        description: Release of NUT. Defaults to that of C(upsd) if O(ask=true), else to 2.8.1.
        type: str
      reserve:
        description:
          - Battery time that C(nut-shutdown) keeps for the primary once the usual times have passed.
          - Not checked if not given.
        type: float
      reserve_minimum:
        description: Battery time that it keeps for the primary at any time. Not checked if not given.
        type: float
      runtime_low:
        description:
          - C(nut-stages) begins the shutdown when this much battery is left, even if the UPS does not report a low battery yet.
          - With V(auto) the plan chooses as much as the worst case needs, or as the battery allows, and returns it as RV(plan.runtime_low).
          - By default only the UPS decides.
        type: raw
      cluster:
        description:
          - What is done about HA's watchdog if secondaries are other nodes of the primary's Proxmox VE cluster, as in
            C(nut_server_gate.cluster).
        type: str
        choices: ['', together, disarm]
        default: ''
  stages:
    description: What to do before the battery is low, in this order. A stage starts when the first of its triggers is reached.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the stage.
        type: str
        required: true
      on_battery:
        description: Trigger. Seconds since the mains failed.
        type: float
      charge:
        description: Trigger. Charge in percent.
        type: float
      runtime:
        description: Trigger. Seconds that the battery still lasts.
        type: float
      guests:
        description:
          - The guests to stop. Each is a name in O(machines), the number of a guest, or a dictionary with C(id) and C(seconds), the time
            that this guest has.
        type: list
        elements: raw
        default: []
      tags:
        description: Stops the guests that have one of these tags. Needs O(guests=true).
        type: list
        elements: str
        default: []
      storage_of:
        description:
          - Stops the guests that use storage of these machines. Needs O(guests=true).
          - Names in O(machines), which stand for their O(machines[].address); or other names and addresses.
        type: list
        elements: str
        default: []
      fsd:
        description: Whether to set FSD after the stage, which begins the shutdown of all machines.
        type: bool
        default: false
      seconds:
        description:
          - Time for each guest that the stage finds and that has no time of its own. Defaults to the time that Proxmox VE gives it.
          - The plan allows at least this much for the whole stage, or the longest limit of its guests if that is longer.
        type: float
  guests:
    description:
      - Whether to read the guests of Proxmox VE on this host. Those that run, start at boot or are listed by number in a stage become
        machines of the plan.
      - A secondary in O(machines) with a O(machines[].guest_id) is not one of them. It goes down by itself, and the primary waits for it.
      - Guests of high availability are stopped by HA, after the others and with HA's own times.
    type: bool
    default: false
  ask:
    description: Whether to ask C(upsd) for values that are not given in O(supplies).
    type: bool
    default: false
  host:
    description: Address of C(upsd), as seen from the host on which this module runs.
    type: str
    default: localhost
  port:
    description: Port of C(upsd).
    type: int
    default: 3493
  timeout:
    description: Seconds to wait for answers of C(upsd).
    type: int
    default: 5
  must_answer:
    description:
      - Whether to fail if C(upsd) can't be reached or does not serve a UPS, or if the guests can't be read.
      - With V(false) the plan is made from what is known, as before a first deployment. RV(asked) tells whether C(upsd) answered.
    type: bool
    default: true
  enforce:
    description:
      - When the task fails. A plan that can't be judged because too little is known never fails.
      - V(none) never fails because of the plan.
      - V(expected) fails if the plan is not feasible, that is if the battery would be empty too early even if every machine takes its
        usual time. A guest that outlives the machine whose storage it uses does not make a plan infeasible.
      - V(limits) fails if the plan does not hold.
    type: str
    choices: [none, expected, limits]
    default: none
"""

EXAMPLES = r"""
- name: Check that the battery lasts until TrueNAS and Proxmox are down
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

- name: Check before a deployment that the plan is feasible, with the guests that Proxmox VE has
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

- name: Draw the plan
  ansible.builtin.copy:
    content: "{{ plan.plan | homelab.nut.shutdown_picture }}"
    dest: plan.html
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
holds:
  description: Whether all conditions are met even if each machine takes as long as it may. None if too little is known.
  returned: always
  type: bool
feasible:
  description:
    - Whether all machines are off before a charged battery is empty if each takes its usual time, the primary waits long enough for that,
      and high availability does not move guests to another node. None if too little is known.
  returned: always
  type: bool
asked:
  description: Whether C(upsd) was asked and serves all UPSes of the plan.
  returned: always
  type: bool
proxmox:
  description: Whether the host is a node of Proxmox VE.
  returned: always
  type: bool
ha:
  description: Remarks about Proxmox VE's high availability. Empty if it manages no guest, or if guests were not read.
  returned: always
  type: list
  elements: str
  sample: [HA manages 1 guest (104)]
guests:
  description: The guests of the primary. Those that a stage stops come first.
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
      description: Number of the guest. None if it was given without one.
      type: int
    kind:
      description: V(qm) or V(pct).
      type: str
    name:
      description: Name on Proxmox VE, or empty.
      type: str
    machine:
      description: Name in the plan.
      type: str
    stage:
      description: The stage that stops it. Empty if the primary stops it when it goes down.
      type: str
    seconds:
      description: Time that it has for its shutdown.
      type: float
    why:
      description: Why that stage stops it, or whose storage it uses.
      type: str
    needs:
      description: The machines whose storage it uses.
      type: list
      elements: str
    ha:
      description: Whether high availability manages it.
      type: bool
plan:
  description: The plan.
  returned: always
  type: dict
  contains:
    verdict:
      description: Whether the plan holds, and what fails or is tightest, in one line.
      type: str
      sample: The plan holds. The tightest condition is shutdown limit (truenas), with 27 s to spare
    begin:
      description: When the shutdown begins, and why then, in one line.
      type: str
      sample: >-
        The shutdown begins with 420 s of battery left (enough for the worst case of this plan), or earlier if the UPS reports a low
        battery.
    events:
      description: What each machine does, and when, in seconds from the trigger, if each takes its usual time.
      type: list
      elements: dict
      sample:
        - {at: 10, machine: truenas, until: 70, what: goes down, worst: false}
    worst:
      description: The same if each takes as long as it may.
      type: list
      elements: dict
    constraints:
      description: The conditions. Failing ones come first, then those about which too little is known, then the tightest.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the condition.
          type: str
          sample: HOSTSYNC
        about:
          description: The machine, UPS or stage that it is about, or empty.
          type: str
          sample: truenas
        holds:
          description: Whether it is met. None if too little is known.
          type: bool
        have:
          description: The value that there is.
          type: float
          sample: 30
        need:
          description: The value that is needed.
          type: float
          sample: 10
        slack:
          description: The difference of the two. Negative if the condition fails.
          type: float
          sample: 20
        reason:
          description: The arithmetic, in words.
          type: str
          sample: truenas begins to go down up to 10 s after FSD; HOSTSYNC gives 30 s
        remedy:
          description: What to change or to measure, or empty.
          type: str
          sample: set nut_server_runtime_low to 382
    runtime_low:
      description: With how many seconds of battery left C(nut-stages) begins the shutdown. None if it does not.
      type: float
      sample: 420
    first_mark:
      description: What begins the shutdown before C(nut-stages) sees its own mark. Empty if nothing does.
      type: str
    problems:
      description: What is wrong with the plan and what to do about it, as lines. Empty if it does not fail.
      type: list
      elements: str
    runtime_low_reason:
      description: Why so much.
      type: str
      sample: enough for the worst case of this plan
    cluster_nodes:
      description: The secondaries that are other nodes of the primary's Proxmox VE cluster.
      type: list
      elements: str
    others:
      description: The UPSes that power other machines, and not the primary.
      type: list
      elements: dict
    needed:
      description:
        - The settings that the plan needs.
        - C(reserve) is the battery time that the primary needs from its own poweroff on. C(reserve_minimum) is the same without guests and
          without margin. C(gate_timeout) is the longest time that the gate may have to wait.
      type: dict
      sample: {deadtime: 15, finaldelay: 2, gate_timeout: 92, hostsync: 30, reserve: 220, reserve_minimum: 40, runtime_low: 382}
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
      description: The machines of the plan, with the guests that were found.
      type: list
      elements: dict
    supplies:
      description: The UPSes, with C(upsd)'s values.
      type: list
      elements: dict
    stages:
      description: The stages of the plan.
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
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.spelling import list_words
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.upsd import PORT
from ansible_collections.homelab.nut.plugins.module_utils._nut.kinds import KINDS
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.errors import UpsdFailure
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import data, model, observe
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import draw_table
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.cluster import WAYS
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import GuestsError, is_node
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import find_deployed_runtime_low
from ansible_collections.homelab.nut.plugins.module_utils._options import suboptions_of


def build_spec() -> dict[str, Any]:
    """Return the argument spec."""
    kinds = list(dict.fromkeys(kind for kinds in model.KINDS.values() for kind in kinds))
    machine = suboptions_of(model.PlanMachine, without_default=["shutdown_limit"])
    machine["role"]["choices"], machine["kind"]["choices"] = list(model.KINDS), kinds
    # None means "not given": upsd may know the value
    from_upsd = [field.name for field in fields(model.Supply) if field.name != "name"]
    names = {"type": "list", "elements": "str", "default": []}
    stage = {
        **suboptions_of(model.StagePlan),
        "guests": {**names, "elements": "raw"},
        "tags": names,
        "storage_of": names,
    }
    timing = {**suboptions_of(model.Timing, without_default=["release"]), "runtime_low": {"type": "raw"}}
    del timing["deployed_runtime_low"]  # read from the host's policy
    timing["cluster"]["choices"] = list(WAYS)
    supply = suboptions_of(model.Supply, without_default=from_upsd)
    del supply["watched"]  # the plan sets it
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
    module = Module(argument_spec=build_spec(), supports_check_mode=True)
    proxmox = is_node()
    try:
        deployed = find_deployed_runtime_low() if module.params["ask"] else None
        plan, is_asked = observe.plan_for_host(module.params, make_runner(module), deployed_runtime_low=deployed)
    except (model.PlanError, UpsdFailure, GuestsError) as error:
        module.fail_json(msg=str(error), proxmox=proxmox)
    if not any(machine["role"] == "secondary" for machine in module.params["machines"]):
        module.warn(
            f"{plan.primary.name} has no secondaries, so it waits for no machine: machines on its UPS must be in one of the groups "
            f"{list_words(KINDS, 'or')} of the inventory"
        )
    kept = data.plan_to_dict(plan)
    result = {name: kept[name] for name in ("holds", "feasible", "guests", "ha")}
    result.update(asked=is_asked, proxmox=proxmox, plan=kept, msg=draw_table(plan))
    if {"none": True, "expected": plan.feasible, "limits": plan.holds}[module.params["enforce"]] is False:
        module.fail_json(**result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
