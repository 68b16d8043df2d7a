#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module homelab.nut.ups_command."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ups_command
short_description: Give a UPS a command, set its variables, or test its battery
version_added: 0.1.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Tells NUT's server, C(upsd), to have a UPS do something, and waits for what becomes of it. C(upsd)'s C(OK) means only that
    the driver was told.
  - A battery test is watched to its end, and judged.
  - What could cut the power of what hangs on the UPS is refused, unless O(may_cut_power) says that it may. So is what could empty
    its battery, unless O(may_drain_battery) does. What is not known to be harmless counts as able to cut the power.
  - It needs a user of C(upsd) with the right to do it, C(nut_server_users) of the role P(homelab.nut.nut_server#role). It does not log
    in as a client of the UPS, so no primary waits for it.
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.upsd
attributes:
  check_mode:
    support: full
    details:
      - All is checked but whether the user has the right. That shows only when the order is given.
  diff_mode:
    support: partial
    details:
      - Shows the variables that are set.
  idempotent:
    support: partial
    details:
      - A variable that has its value is not set again. A command, a test and FSD are done each time.
  platform:
    platforms: posix
    support: full
options:
  ups:
    description: The name of the UPS, as in C(ups.conf).
    type: str
    required: true
  username:
    description:
      - The user of C(upsd.users).
      - Not needed in check mode, and not where nothing has to be done.
    type: str
  password:
    description: The user's password. Without O(tls), it is to be read on the way.
    type: str
  command:
    description:
      - An instant command, such as V(beeper.disable). M(homelab.nut.ups_info) lists what a UPS has.
      - V(test.battery.start.quick) and all that could empty the battery is done on mains only, and with O(minimum_charge).
    type: str
  value:
    description: The value that goes with O(command), for the few that take one.
    type: str
  variables:
    description:
      - Variables of the UPS and what they shall be, such as C(battery.charge.low). What is so already is left alone. Numbers are
        compared as numbers.
      - All are checked before the first one is set. It stops at the first that fails.
      - Words that YAML takes for something else, such as C(yes) and C(off), need quotes.
    type: dict
  test:
    description:
      - Test the battery.
      - V(quick) takes some seconds and little charge, V(deep) empties the battery until it is low, and needs O(may_drain_battery).
      - It is refused while the UPS is not plainly on mains, or has less than O(minimum_charge).
      - Whether the test passed is taken from C(ups.test.result). A UPS that does not have it is judged by what was seen, that it ran
        on its battery and came back, and by the flag C(RB).
    type: str
    choices: [quick, deep]
  fsd:
    description:
      - Set the flag FSD, with which every host on the UPS goes down, and after which the primary may let it cut the power. Nothing
        takes it back. Needs O(may_cut_power).
    type: bool
    default: false
  tracking:
    description:
      - Whether to ask for what the driver made of the order. NUT can since 2.8.0.
      - Without, the result of a command is V(unknown); a variable is read again in any case.
    type: bool
    default: true
  wait:
    description:
      - How many seconds to wait for the result.
      - If not given, 10 for a command and for each variable, 120 for a quick test, and 14400 for a deep one.
    type: int
  minimum_charge:
    description: The percent of charge below which the battery is not tested. A UPS that does not tell its charge is tested.
    type: int
    default: 90
  may_cut_power:
    description:
      - Whether O(command), O(variables) or O(fsd) may be something that could cut the power of what hangs on the UPS.
      - That is each of C(load.off), C(load.cycle), C(shutdown.*) but C(shutdown.stop), the same of an outlet, C(bypass.*),
        C(driver.*), C(test.failure.start), and each command and variable that is not known to be harmless.
    type: bool
    default: false
  may_drain_battery:
    description:
      - Whether O(command) or O(test) may be something that could empty the battery, C(test.battery.start), C(test.battery.start.deep)
        or C(calibrate.start).
      - If the mains fail then or in the hours after, nothing is left. Some UPSes say that they are on battery meanwhile, and not that they
        are calibrating. Then all hosts do what they do in a power cut, and go down.
    type: bool
    default: false
notes:
  - Exactly one of O(command), O(variables), O(test) and O(fsd) is needed.
seealso:
  - module: homelab.nut.ups_info
"""

EXAMPLES = r"""
- name: Silence the beeper at night
  homelab.nut.ups_command:
    ups: ups
    username: admin
    password: "{{ lookup('homelab.nut.password', inventory_hostname, user='admin') }}"
    command: beeper.disable

- name: Call the battery low earlier
  homelab.nut.ups_command:
    ups: ups
    username: admin
    password: "{{ vault_nut_admin_password }}"
    variables:
      battery.charge.low: 30
      battery.runtime.low: 600

- name: Test the battery, and fail if it did not pass
  homelab.nut.ups_command:
    host: pve.home.lan
    ca_path: /etc/ssl/certs/house-ca.pem
    ups: ups
    username: admin
    password: "{{ vault_nut_admin_password }}"
    test: quick
  register: battery
  failed_when: battery is failed or battery.verdict != 'passed'

- name: Restart what hangs on the second outlet
  homelab.nut.ups_command:
    ups: rack
    username: admin
    password: "{{ vault_nut_admin_password }}"
    command: outlet.2.load.cycle
    may_cut_power: true
"""

RETURN = r"""
result:
  description:
    - What became of the order. V(none) if there was nothing to do, V(planned) in check mode.
    - V(unknown) if it was sent, and nobody can tell more.
    - V(failed) and V(pending), which means that there was no answer in time, fail the module. So does V(unknown) of a variable.
  returned: if nothing was refused
  type: str
  choices: [success, failed, pending, unknown, planned, none]
command:
  description: The instant command that was given, as the UPS spells it.
  returned: with O(command) and O(test)
  type: str
  sample: test.battery.start.quick
variables:
  description: The variables that had to be set, in the order in which they were.
  returned: with O(variables)
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: battery.charge.low
    before:
      description: What it was.
      type: str
      sample: "10"
    after:
      description: What it was to be, as the UPS spells it.
      type: str
      sample: "30"
    seen:
      description: What it was in the end, or none if nothing was sent.
      type: str
      sample: "30"
    result:
      description: As RV(result).
      type: str
      sample: success
verdict:
  description:
    - What the test showed. V(failed) fails the module.
    - V(unknown) if the UPS showed no sign of a test, has not ended it in time, or says neither the one nor the other.
  returned: with O(test), not in check mode
  type: str
  choices: [passed, failed, unknown]
test_result:
  description: C(ups.test.result) in the end, as it is. Empty if the UPS has none.
  returned: with O(test), not in check mode
  type: str
  sample: Done and passed
seconds:
  description: How many seconds the test was watched.
  returned: with O(test), not in check mode
  type: int
  sample: 14
msg:
  description: What was done and seen, in one line.
  returned: always
  type: str
  sample: "test.battery.start.quick on ups: passed: it says 'Done and passed'"
"""

from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils import _upsd
from ansible_collections.homelab.nut.plugins.module_utils._command import warn
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import battery_test, commands
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors


def wanted(variables: dict[str, Any]) -> dict[str, str]:
    """Return the variables as texts. Raises instcmd.Refused for what has no plain spelling in NUT."""
    found = {}
    for name, value in variables.items():
        if isinstance(value, bool):
            raise commands.OrderRefused(
                f"{name} is {str(value).lower()}, which YAML made of a word like yes or off: put the word in quotes"
            )
        if not isinstance(value, (str, int, float)):
            raise commands.OrderRefused(f"{name} is {value!r}: a variable is a text or a number")
        found[str(name)] = str(value)
    return found


def give(module: Module, operator: commands.Operator, permission: commands.Permission) -> dict[str, Any]:
    """Give a command."""
    options = module.params
    command, ups = options["command"], options["ups"]
    if module.check_mode:
        name = operator.plan_command(command, permission)
        return {"changed": True, "result": "planned", "command": name, "msg": f"{name} would be given to {ups}"}
    outcome = operator.give_command(command, options["value"], permission, seconds(options))
    if outcome.result == "unknown":
        warn(module, f"{command} on {ups}: {outcome.explanation}")
    return {
        "failed": outcome.result in ("failed", "pending"),
        "changed": outcome.result != "failed",
        "result": outcome.result,
        "command": command,
        "msg": f"{command} on {ups}: {outcome.explanation}",
    }


def put(module: Module, operator: commands.Operator, permission: commands.Permission) -> dict[str, Any]:
    """Set variables."""
    options = module.params
    settings = wanted(options["variables"])
    if module.check_mode:
        planned = operator.plan_settings(settings, permission)
        rows = [row(one, None) for one in planned]
        result = "planned" if planned else "none"
        said = ", ".join(f"{one.name} would be {one.after}, is {one.before}" for one in planned)
    else:
        done = operator.set_variables(settings, permission, seconds(options))
        planned = tuple(setting for setting, _unused in done)
        rows = [row(one, outcome) for one, outcome in done]
        result = done[-1][1].result if done else "none"
        said = "; ".join(f"{one.name}: {outcome.explanation}" for one, outcome in done)
    return {
        "failed": result in ("failed", "pending", "unknown"),
        "changed": any(one["result"] != "failed" for one in rows),
        "result": result,
        "variables": rows,
        "diff": {
            "before": {one.name: one.before for one in planned},
            "after": {one.name: one.after for one in planned},
        },
        "msg": f"{options['ups']}: {said or 'all is as wanted'}",
    }


def row(setting: commands.Setting, outcome: commands.OrderOutcome | None) -> dict[str, Any]:
    """Return a variable in the form that RETURN describes."""
    return {
        "name": setting.name,
        "before": setting.before,
        "after": setting.after,
        "seen": outcome.value if outcome else None,
        "result": outcome.result if outcome else "planned",
    }


def examine(module: Module, operator: commands.Operator, permission: commands.Permission) -> dict[str, Any]:
    """Test the battery."""
    options = module.params
    kind, ups = options["test"], options["ups"]
    command = operator.plan_battery_test(kind, permission)
    if module.check_mode:
        return {"changed": True, "result": "planned", "command": command, "msg": f"{command} would be given to {ups}"}
    verdict = operator.test_battery(kind, permission, options["wait"])
    if verdict.verdict == "unknown":
        warn(module, f"{command} on {ups}: {verdict.explanation}")
    return {
        "failed": verdict.verdict == "failed",
        "changed": True,
        "result": "success" if verdict.verdict != "unknown" else "unknown",
        "command": command,
        "verdict": verdict.verdict,
        "test_result": verdict.result,
        "seconds": int(verdict.seconds),
        "msg": f"{command} on {ups}: {verdict.verdict}: {verdict.explanation}",
    }


def force(module: Module, operator: commands.Operator, permission: commands.Permission) -> dict[str, Any]:
    """Set FSD."""
    ups = module.params["ups"]
    if module.check_mode:
        operator.check_fsd(permission)
        return {"changed": True, "result": "planned", "msg": f"{ups} would be given the flag FSD"}
    outcome = operator.set_fsd(permission)
    return {"changed": True, "result": outcome.result, "msg": outcome.explanation}


def seconds(options: dict[str, Any]) -> float:
    """Return how long an order is waited for."""
    return commands.SECONDS if options["wait"] is None else options["wait"]


def main() -> None:
    module = Module(
        argument_spec={
            **_upsd.OPTIONS,
            "ups": {"type": "str", "required": True},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "command": {"type": "str"},
            "value": {"type": "str"},
            "variables": {"type": "dict"},
            "test": {"type": "str", "choices": [battery_test.QUICK, battery_test.DEEP]},
            "fsd": {"type": "bool", "default": False},
            "tracking": {"type": "bool", "default": True},
            "wait": {"type": "int"},
            "minimum_charge": {"type": "int", "default": int(battery_test.LEAST_CHARGE)},
            "may_cut_power": {"type": "bool", "default": False},
            "may_drain_battery": {"type": "bool", "default": False},
        },
        mutually_exclusive=_upsd.MUTUALLY_EXCLUSIVE,
        required_together=[("username", "password")],
        required_by={"value": ["command"]},
        supports_check_mode=True,
    )
    options = module.params
    asked = [name for name in ("command", "variables", "test", "fsd") if options[name] not in (None, False)]
    if len(asked) != 1:
        module.fail_json(
            msg=f"exactly one of command, variables, test and fsd is needed; given: {', '.join(asked) or 'none'}"
        )
    if bool(options["username"]) != bool(options["password"]):
        # an empty one passes required_together
        module.fail_json(msg="username and password are needed together, and one of them is empty")
    operator = commands.Operator(
        _upsd.opener(module), options["ups"], options["username"] or "", options["password"] or "", options["tracking"]
    )
    permission = commands.Permission(options["may_cut_power"], options["may_drain_battery"], options["minimum_charge"])
    do = {"command": give, "variables": put, "test": examine, "fsd": force}[asked[0]]
    try:
        result = do(module, operator, permission)
    except (commands.OrderRefused, net_errors.UpsdFailure) as error:
        module.fail_json(msg=str(error))
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
