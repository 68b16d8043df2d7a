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
  - Shows it as a table, and as a page with a timeline.
  - All times are in seconds.
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
    details:
      - This module does not modify anything.
  diff_mode:
    support: N/A
    details:
      - This module does not modify anything.
  idempotent:
    support: full
    details:
      - This module does not modify anything.
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
      limit:
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
        description: Its number, if it is a guest of the primary. A secondary may be one, too.
        type: int
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
        description: How long it takes at most to stop all guests. V(180) is Proxmox's own limit for one virtual machine.
        type: float
        default: 180
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
        description: The names of the guests in O(machines) that it stops.
        type: list
        elements: str
        default: []
      fsd:
        description: Whether it then begins the shutdown.
        type: bool
        default: false
      seconds:
        description: How long its guests may take together. At least the longest limit of them.
        type: float
  seen:
    description:
      - What was seen of a shutdown, or of its rehearsal, to be drawn beside what is planned.
      - By the name of a machine when it began to go down, and when it was down, in seconds from the trigger on. None for what was not seen.
    type: dict
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
  enforce:
    description: Whether the task fails if the plan does not hold. What can't be told is no failure.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: See whether the battery lasts until TrueNAS and Proxmox are down
  homelab.nut.shutdown_plan:
    machines:
      - {name: pve, role: primary, kind: pve}
      - {name: truenas, role: secondary, kind: truenas, shutdown_time: 60}
      - {name: media, role: guest, kind: qm, guest_id: 101, shutdown_time: 40, limit: 90, needs: [truenas]}
    supplies:
      - {name: ups, runtime_low: 480, ignorelb: true}
    stages:
      - {name: nas-guests, runtime: 700, guests: [media], fsd: true}
    ask: true
    enforce: true
  register: plan

- name: Draw it
  ansible.builtin.copy:
    content: "{{ plan.picture }}"
    dest: plan.html
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
holds:
  description: Whether the plan holds. None if too little is known.
  returned: always
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
          sample: set nut_server_hostsync to 30
    needed:
      description: What the settings must be.
      type: dict
      sample: {deadtime: 15, finaldelay: 5, hostsync: 30, longest: 92, reserve: 220, runtime_low: 382}
    holds:
      description: As RV(holds).
      type: bool
    machines:
      description: The machines, as planned for.
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
picture:
  description: The plan as a page of HTML, which needs nothing but itself.
  returned: always
  type: str
msg:
  description: The plan as a table.
  returned: always
  type: str
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.homelab.nut.plugins.module_utils._nut import monitors, picture, plan, upsd

# what upsd is asked for, and which member of a Supply it is
NUMBERS = {
    "runtime": "battery.runtime",
    "runtime_low": "battery.runtime.low",
    "charge": "battery.charge",
    "charge_low": "battery.charge.low",
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


def filled(given: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """Return a supply with what upsd says of it where nothing was given. Quantities that are none are left out."""
    supply = dict(given)
    for name, variable in NUMBERS.items():
        if supply.get(name) is None:
            value = upsd.typed_value(variable.replace("driver.parameter.", ""), variables.get(variable, ""))
            supply[name] = value if not isinstance(value, str) and value >= 0 else None
    for name, candidates in TEXTS.items():
        if supply.get(name) in {None, "", "auto"}:
            supply[name] = next((variables[each] for each in candidates if variables.get(each)), supply.get(name))
    if supply.get("ignorelb") is None:
        supply["ignorelb"] = variables.get(FLAG) in {"enabled", "1"}
    return supply


def ask(open_client: Callable[[], upsd.Client], names: list[str]) -> tuple[str, dict[str, Mapping[str, str]]]:
    """Return upsd's release, and what it says of each of these UPSes; nothing of one without data. Raises UpsdFailure."""
    with open_client() as client:
        release = client.version()
        return release, {one.name.lower(): one.variables for one in upsd.snapshot(client, names)}


def known(options: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what was not given, so that the library's own default counts."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items() if value is not None
    }


def planned(options: Mapping[str, Any]) -> plan.Plan:
    """Make the plan from the module's options. Raises PlanError and UpsdFailure."""
    supplies, timing = options["supplies"], known(options["timing"])
    if options["ask"]:
        release, said = ask(
            lambda: upsd.Client(options["host"], options["port"], timeout=options["timeout"]),
            [one["name"] for one in supplies],
        )
        supplies = [filled(one, said.get(one["name"].lower(), {})) for one in supplies]
        timing.setdefault("release", release)
    return plan.plan(
        [plan.Machine(**known(one)) for one in options["machines"]],
        [plan.Supply(**known(one)) for one in supplies],
        plan.Timing(**timing),
        [plan.StagePlan(**known(one)) for one in options["stages"]],
    )


def seen(given: Mapping[str, Any] | None) -> dict[str, tuple[float | None, float | None]] | None:
    """Return what was seen as the picture takes it. Raises PlanError."""
    if given is None:
        return None
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, pair in given.items():
        try:
            began, down = (None if one is None else float(one) for one in pair)
        except (TypeError, ValueError):
            began = down = math.nan
        if not all(one is None or math.isfinite(one) for one in (began, down)):
            raise plan.PlanError(
                f"seen: {name} must be two numbers of seconds, or null where nothing was seen, not {pair!r}"
            )
        found[name] = began, down
    return found


def spec() -> dict[str, Any]:
    """Return what Ansible checks the options by."""

    def numbers(*names: str, **defaults: float) -> dict[str, Any]:
        asked: dict[str, Any] = {name: {"type": "float"} for name in names}
        return {**asked, **{name: {"type": "float", "default": value} for name, value in defaults.items()}}

    names = {"type": "list", "elements": "str", "default": []}
    kinds = list(dict.fromkeys(kind for kinds in plan.KINDS.values() for kind in kinds))
    machine = {
        "name": {"type": "str", "required": True},
        "role": {"type": "str", "required": True, "choices": list(plan.KINDS)},
        "kind": {"type": "str", "required": True, "choices": kinds},
        "needs": names,
        "guest_id": {"type": "int"},
        **numbers("limit", begin_time=10, shutdown_time=60),
    }
    supply = {
        "name": {"type": "str", "default": "ups"},
        "ignorelb": {"type": "bool"},
        **{name: {"type": "str"} for name in TEXTS},
        **numbers(*NUMBERS),
    }
    timing = {
        "release": {"type": "str"},
        **numbers("poweroff_wait", pollfreq=5, pollfreqalert=5, hostsync=30, finaldelay=5, deadtime=15, maxage=15),
        **numbers(settle=3, own_shutdown=30, guests_time=180, killpower=10, margin=30),
    }
    stage = {
        "name": {"type": "str", "required": True},
        "guests": names,
        "fsd": {"type": "bool", "default": False},
        **numbers("on_battery", "charge", "runtime", "seconds"),
    }
    return {
        "machines": {"type": "list", "elements": "dict", "required": True, "options": machine},
        "supplies": {"type": "list", "elements": "dict", "required": True, "options": supply},
        "timing": {"type": "dict", "default": {}, "options": timing},
        "stages": {"type": "list", "elements": "dict", "default": [], "options": stage},
        "seen": {"type": "dict"},
        "ask": {"type": "bool", "default": False},
        "host": {"type": "str", "default": "localhost"},
        "port": {"type": "int", "default": monitors.PORT},
        "timeout": {"type": "int", "default": 5},
        "enforce": {"type": "bool", "default": False},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=spec(), supports_check_mode=True)
    try:
        shown = seen(module.params["seen"])
        made = planned(module.params)
    except (plan.PlanError, upsd.UpsdFailure) as error:
        module.fail_json(msg=str(error))
    drawn = picture.html(made, seen=shown)
    result = {"holds": made.holds, "plan": plan.to_dict(made), "picture": drawn, "msg": plan.table(made)}
    if module.params["enforce"] and made.holds is False:
        module.fail_json(**result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
