#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module homelab.nut.ups_command."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ups_command
short_description: Run an instant command on a UPS, set its variables, or test its battery
version_added: 0.1.0
author: The homelab.nut contributors (@homelab-nut)
description:
  - Asks NUT's server, C(upsd), to do something with a UPS, and waits for the result. C(upsd)'s own C(OK) only means that the
    driver has received the order.
  - Follows a battery test to its end, and says whether the battery passed.
  - Refuses anything that could cut the power of the machines on the UPS unless O(may_cut_power) is set, and anything that could
    empty the battery unless O(may_drain_battery) is set. Anything that is not known to be harmless counts as able to cut the power.
  - Needs a user of C(upsd) with the right to do it; see C(nut_server_users) of the role P(homelab.nut.nut_server#role). The user does
    not log in as a client of the UPS, so no primary waits for this module.
extends_documentation_fragment:
  - homelab.nut.attributes
  - homelab.nut.upsd
attributes:
  check_mode:
    support: full
    details:
      - Checks everything except whether the user has the right to do it. Only the order itself shows that.
  diff_mode:
    support: partial
    details:
      - Shows the variables that are set.
  idempotent:
    support: partial
    details:
      - A variable that already has the value is not set again. Commands, tests and FSD are carried out every time.
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
      - A user of C(upsd.users).
      - Not needed in check mode, or if there is nothing to do.
    type: str
  password:
    description: The user's password. Without O(tls), it crosses the network in plain text.
    type: str
  command:
    description:
      - An instant command, such as V(beeper.disable). M(homelab.nut.ups_info) lists the commands of a UPS.
      - V(test.battery.start.quick) and all commands that could empty the battery are refused unless the UPS is on mains with at least
        O(minimum_charge).
    type: str
  value:
    description: The argument of O(command), for the few commands that take one.
    type: str
  variables:
    description:
      - Variables of the UPS and the values to set, such as C(battery.charge.low). Numbers are compared as numbers.
      - All of them are checked before the first one is set. The module stops at the first one that fails.
      - Quote words that YAML would convert, such as C(yes) and C(off).
    type: dict
  test:
    description:
      - Test the battery.
      - V(quick) takes some seconds and little charge. V(deep) discharges the battery until it is low, and needs O(may_drain_battery).
      - Refused while the UPS is not clearly on mains, or has less than O(minimum_charge).
      - The result comes from C(ups.test.result). If the UPS doesn't report one, the test has passed if the UPS was seen on
        battery and then on mains again, without the flag C(RB).
    type: str
    choices: [quick, deep]
  fsd:
    description:
      - Set the flag FSD (forced shutdown). Every host on the UPS shuts down, and the primary may then have the UPS cut the power. This
        can't be undone. Needs O(may_cut_power).
    type: bool
    default: false
  tracking:
    description:
      - Whether to ask C(upsd) what the driver did with the order. NUT can do this since 2.8.0.
      - Without it, the result of a command is V(unknown). Variables are read back in any case.
    type: bool
    default: true
  wait:
    description:
      - Seconds to wait for the result.
      - By default 10 for a command and for each variable, 120 for a quick test, and 14400 for a deep one.
    type: int
  minimum_charge:
    description: Refuse to test a battery with a charge below this percentage. A UPS that does not report its charge is tested anyway.
    type: int
    default: 90
  may_cut_power:
    description:
      - Allow a O(command), O(variables) or O(fsd) that could cut the power of the machines on the UPS.
      - These are C(load.off), C(load.cycle), C(shutdown.*) except C(shutdown.stop), the same for a single outlet, C(bypass.*),
        C(driver.*), C(test.failure.start), and every command and variable that is not known to be harmless.
    type: bool
    default: false
  may_drain_battery:
    description:
      - Allow a O(command) or O(test) that could empty the battery. These are C(test.battery.start), C(test.battery.start.deep) and
        C(calibrate.start).
      - If the mains fail during the test or in the hours after it, the battery is empty. During a calibration, some UPSes report that they
        are on battery, and not that they are calibrating. All hosts then shut down as in a power cut.
    type: bool
    default: false
notes:
  - Exactly one of O(command), O(variables), O(test) and O(fsd) is required.
seealso:
  - module: homelab.nut.ups_info
"""

EXAMPLES = r"""
- name: Silence the beeper
  homelab.nut.ups_command:
    ups: ups
    username: admin
    password: "{{ lookup('homelab.nut.password', inventory_hostname, user='admin') }}"
    command: beeper.disable

- name: Report a low battery earlier
  homelab.nut.ups_command:
    ups: ups
    username: admin
    password: "{{ vault_nut_admin_password }}"
    variables:
      battery.charge.low: 30
      battery.runtime.low: 600

- name: Test the battery, and fail unless it passes
  homelab.nut.ups_command:
    host: pve.home.lan
    ca_path: /etc/ssl/certs/house-ca.pem
    ups: ups
    username: admin
    password: "{{ vault_nut_admin_password }}"
    test: quick
  register: battery
  failed_when: battery is failed or battery.verdict != 'passed'

- name: Power-cycle the second outlet
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
    - The result of the order. V(none) if there was nothing to do, V(planned) in check mode.
    - V(unknown) if the order was sent and its result can't be determined.
    - The module fails if the result is V(failed), if it is V(pending), which means that the driver did not answer in time, or if it
      is V(unknown) for a variable.
  returned: if nothing was refused
  type: str
  choices: [success, failed, pending, unknown, planned, none]
command:
  description: The instant command, as the UPS spells it.
  returned: with O(command) and O(test)
  type: str
  sample: test.battery.start.quick
variables:
  description: The variables whose value had to change, in the order in which they were set.
  returned: with O(variables)
  type: list
  elements: dict
  contains:
    name:
      description: The name of the variable.
      type: str
      sample: battery.charge.low
    before:
      description: The value before.
      type: str
      sample: "10"
    after:
      description: The requested value, as the UPS spells it.
      type: str
      sample: "30"
    seen:
      description: The value that was read back, or null if nothing was sent.
      type: str
      sample: "30"
    result:
      description: As RV(result).
      type: str
      sample: success
verdict:
  description:
    - The result of the test. The module fails if it is V(failed).
    - V(unknown) if the UPS showed no sign of a test, did not finish it in time, or does not report whether it passed.
  returned: with O(test), not in check mode
  type: str
  choices: [passed, failed, unknown]
test_result:
  description: The final value of C(ups.test.result). Empty if the UPS has no such variable.
  returned: with O(test), not in check mode
  type: str
  sample: Done and passed
seconds:
  description: Seconds for which the test was watched.
  returned: with O(test), not in check mode
  type: int
  sample: 14
msg:
  description: What was done and the result, in one line.
  returned: always
  type: str
  sample: "test.battery.start.quick on ups: passed: the UPS reports 'Done and passed'"
"""

from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils import _upsd
from ansible_collections.homelab.nut.plugins.module_utils._command import warn_with_host
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import battery_test, commands
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors


def format_values(variables: dict[str, Any]) -> dict[str, str]:
    """Return the values as NUT spells them. Raises OrderRefused for a value that is neither a text nor a number."""
    texts = {}
    for name, value in variables.items():
        if isinstance(value, bool):
            raise commands.OrderRefused(
                f"{name} is {str(value).lower()}: YAML converts words such as yes and off; put the word in quotes"
            )
        if not isinstance(value, (str, int, float)):
            raise commands.OrderRefused(f"{name} is {value!r}, must be a text or a number")
        texts[str(name)] = str(value)
    return texts


def give_command(module: Module, operator: commands.Operator, permission: commands.Permission) -> dict[str, Any]:
    """Give an instant command to the UPS."""
    options = module.params
    command, ups = options["command"], options["ups"]
    if module.check_mode:
        name = operator.plan_command(command, permission)
        return {"changed": True, "result": "planned", "command": name, "msg": f"{name} would be given to {ups}"}
    outcome = operator.give_command(command, options["value"], permission, wait_seconds(options))
    if outcome.result == "unknown":
        warn_with_host(module, f"{command} on {ups}: {outcome.explanation}")
    return {
        "failed": outcome.result in ("failed", "pending"),
        "changed": outcome.result != "failed",
        "result": outcome.result,
        "command": command,
        "msg": f"{command} on {ups}: {outcome.explanation}",
    }


def set_variables(module: Module, operator: commands.Operator, permission: commands.Permission) -> dict[str, Any]:
    """Set variables."""
    options = module.params
    settings = format_values(options["variables"])
    if module.check_mode:
        planned = operator.plan_settings(settings, permission)
        rows = [to_row(setting, None) for setting in planned]
        result = "planned" if planned else "none"
        changes = ", ".join(
            f"{setting.name} would change from {setting.before} to {setting.after}" for setting in planned
        )
    else:
        done = operator.set_variables(settings, permission, wait_seconds(options))
        planned = tuple(setting for setting, _unused in done)
        rows = [to_row(setting, outcome) for setting, outcome in done]
        result = done[-1][1].result if done else "none"
        changes = "; ".join(f"{setting.name}: {outcome.explanation}" for setting, outcome in done)
    return {
        "failed": result in ("failed", "pending", "unknown"),
        "changed": any(row["result"] != "failed" for row in rows),
        "result": result,
        "variables": rows,
        "diff": {
            "before": {setting.name: setting.before for setting in planned},
            "after": {setting.name: setting.after for setting in planned},
        },
        "msg": f"{options['ups']}: {changes or 'all variables have these values already'}",
    }


def to_row(setting: commands.Setting, outcome: commands.OrderOutcome | None) -> dict[str, Any]:
    """Return a variable as an element of RV(variables)."""
    return {
        "name": setting.name,
        "before": setting.before,
        "after": setting.after,
        "seen": outcome.value if outcome else None,
        "result": outcome.result if outcome else "planned",
    }


def test_battery(module: Module, operator: commands.Operator, permission: commands.Permission) -> dict[str, Any]:
    """Test the battery of the UPS."""
    options = module.params
    kind, ups = options["test"], options["ups"]
    command = operator.plan_battery_test(kind, permission)
    if module.check_mode:
        return {"changed": True, "result": "planned", "command": command, "msg": f"{command} would be given to {ups}"}
    verdict = operator.test_battery(kind, permission, options["wait"])
    if verdict.verdict == "unknown":
        warn_with_host(module, f"{command} on {ups}: {verdict.explanation}")
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


def set_fsd(module: Module, operator: commands.Operator, permission: commands.Permission) -> dict[str, Any]:
    """Set FSD on the UPS."""
    ups = module.params["ups"]
    if module.check_mode:
        operator.check_fsd(permission)
        return {"changed": True, "result": "planned", "msg": f"FSD would be set on {ups}"}
    outcome = operator.set_fsd(permission)
    return {"changed": True, "result": outcome.result, "msg": outcome.explanation}


def wait_seconds(options: dict[str, Any]) -> float:
    """Return how long to wait for the result of an order."""
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
            msg=f"exactly one of command, variables, test and fsd is required; given: {', '.join(asked) or 'none'}"
        )
    if bool(options["username"]) != bool(options["password"]):
        # required_together lets an empty string pass
        module.fail_json(msg="username and password are required together, but one of them is empty")
    operator = commands.Operator(
        _upsd.make_client_opener(module),
        options["ups"],
        options["username"] or "",
        options["password"] or "",
        options["tracking"],
    )
    permission = commands.Permission(options["may_cut_power"], options["may_drain_battery"], options["minimum_charge"])
    carry_out = {"command": give_command, "variables": set_variables, "test": test_battery, "fsd": set_fsd}[asked[0]]
    try:
        result = carry_out(module, operator, permission)
    except (commands.OrderRefused, net_errors.UpsdFailure) as error:
        module.fail_json(msg=str(error))
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
