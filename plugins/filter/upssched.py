# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.upssched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: upssched
short_description: What upssched needs to hear of a UPS, and what it does then
version_added: 0.2.0
description:
  - Turns rules into the AT lines of C(upssched.conf), and into the flags by which C(upsmon) calls C(upssched).
  - Stops at a rule that would never do anything, such as one that names a UPS which this host does not watch.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: systems, notifyflag, role
options:
  _input:
    description: The rules, as in the variable C(nut_server_upssched_rules).
    type: list
    elements: dict
    required: true
  systems:
    description: For the name of each UPS, what its MONITOR line calls it. C(upssched) compares with that, letter by letter.
    type: dict
    required: true
  notifyflag:
    description: The flags that are set anyway, as C(NOTIFYFLAG) in the variable C(nut_server_upsmon_conf).
    type: dict
    default: {}
  role:
    description: The role whose variable has the rules, for messages.
    type: str
    choices: [nut_server, nut_client]
    default: nut_server
"""

EXAMPLES = r"""
- name: Let a timer run when the mains fail
  ansible.builtin.debug:
    msg: "{{ rules | homelab.nut.upssched({'ups': 'ups@localhost:3493'}) }}"
  vars:
    rules:
      - {notifytype: ONBATT, ups: ups, command: START-TIMER, name: early, seconds: 300}
"""

RETURN = r"""
_value:
  description: C(at), the words of each line behind AT, and C(notifyflag), for each type of event the word of its NOTIFYFLAG.
  type: dict
  sample:
    at: [[ONBATT, "ups@localhost:3493", START-TIMER, early, 300]]
    notifyflag: {ONBATT: SYSLOG+WALL+EXEC}
"""


def upssched(
    rules: Sequence[Mapping[str, Any]],
    systems: Mapping[str, str],
    notifyflag: Mapping[str, Sequence[str]] | None = None,
    role: str = "nut_server",
) -> dict[str, Any]:
    """Make AT lines and the flags that they need. Raises AnsibleFilterError for a rule that could do nothing."""
    from ..module_utils._nut.conf import upssched_rules as library
    from ..module_utils._nut.conf.settings import SettingsError

    try:
        return {"at": library.write_rules(rules, systems), "notifyflag": library.join_flags(rules, notifyflag)}
    except SettingsError as error:
        raise AnsibleFilterError(f"{role}_upssched_rules: {error}") from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"upssched": upssched}
