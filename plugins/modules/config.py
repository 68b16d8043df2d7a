#!/usr/bin/python
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module homelab.nut.config."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config
short_description: NUT's configuration of a host, checked and taken up as one
version_added: 0.1.0
description:
  - Puts a set of NUT's files in place on a host and makes NUT use them, with the fewest restarts that do.
  - First it looks whether every UPS is plainly on mains. A restart while one is on battery can shut down every host on it,
    so then nothing is changed, unless O(force) is set.
  - Then the files are checked together, and by the host's own NUT in a scratch directory. Only a set that passes is
    put in place, each file at once or not at all.
  - Only what a change touches is restarted or reloaded. The drivers' units are made by NUT's own enumerator, which this module
    calls itself; its path unit, which would race with that, is disabled.
  - In the end C(upsd) itself is asked whether it serves every UPS fresh and lists this host's C(upsmon) among its clients.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  files:
    description:
      - The files, name to text. A primary has V(nut.conf), V(ups.conf), V(upsd.conf), V(upsd.users) and V(upsmon.conf),
        a secondary V(nut.conf) and V(upsmon.conf).
    type: dict
    required: true
  wait:
    description: How many seconds to wait until drivers, C(upsd) and C(upsmon) serve.
    type: int
    default: 60
  require_ups:
    description: Whether a UPS that C(upsd) does not serve fresh in the end is a failure. If V(false), it is a warning.
    type: bool
    default: true
  force:
    description: Go on though a UPS is on battery, low, calibrating, bypassed or off.
    type: bool
    default: false
extends_documentation_fragment:
  - homelab.nut.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Passwords are replaced by a mark.
  idempotent:
    support: full
  platform:
    support: full
    platforms: debian
"""

EXAMPLES = r"""
- name: Configure a secondary
  homelab.nut.config:
    files:
      nut.conf: "{{ lookup('ansible.builtin.template', 'nut.conf.j2') }}"
      upsmon.conf: "{{ lookup('ansible.builtin.template', 'upsmon.conf.j2') }}"
"""

RETURN = r"""
files:
  description: The files that were replaced, or would be.
  returned: always
  type: list
  elements: str
actions:
  description: What was done to units, or would be, with the reason.
  returned: always
  type: list
  elements: str
  sample: ["restart nut-monitor.service: upsmon.conf changed"]
upses:
  description: What C(upsd) of this host says of its UPSes in the end, name to status.
  returned: success, when not in check mode
  type: dict
  sample: {"ups": "OL CHRG"}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._command import runner
from ..module_utils._nut.deploy import DeployError, Deployment
from ..module_utils._nut.units import UnitError, last_words


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "dict", "required": True, "no_log": True},
            "wait": {"type": "int", "default": 60},
            "require_ups": {"type": "bool", "default": True},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    files = module.params["files"]
    result: dict[str, object] = {"changed": False, "files": [], "actions": []}
    try:
        deployment = Deployment({name: str(files[name]) for name in files}, runner(module))
    except OSError as error:
        module.fail_json(msg=f"NUT's files can't be read: {error}")
    try:
        deployment.known()
        plan = deployment.plan()
        if plan:
            if not module.params["force"]:
                deployment.guard()
            deployment.check()
            result.update(
                changed=True, files=list(plan.changed), actions=[str(one) for one in (*plan.before, *plan.after)]
            )
            result["diff"] = [{"prepared": deployment.diff(plan)}]
        if module.check_mode:
            module.exit_json(**result)
        if plan:
            deployment.apply(plan)
    except (DeployError, UnitError, OSError, LookupError) as error:  # LookupError: there is no group nut
        done = {
            "changed": bool(deployment.done or deployment.written),
            "files": deployment.written,
            "actions": [str(one) for one in deployment.done],
        }
        module.fail_json(msg=str(error), **done)
    verdict = deployment.verify(module.params["wait"])
    result["upses"] = dict(verdict.status)
    wrong = list(verdict.logged_out)
    if module.params["require_ups"]:
        wrong += verdict.unserved
    else:
        for words in verdict.unserved:
            module.warn(words)
    if wrong:
        words = "\n".join(f"{unit} said last:\n{last_words(unit, deployment.runner)}" for unit in verdict.suspects)
        module.fail_json(
            msg="the configuration is in place, but after "
            f"{module.params['wait']} s NUT does not serve: {'; '.join(wrong)}.\n{words}",
            **result,
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
