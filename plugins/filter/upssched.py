# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.upssched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: upssched
short_description: Translate upssched rules into lines for upssched.conf and upsmon.conf
version_added: 0.2.0
description:
  - Translates rules into the AT lines of C(upssched.conf), and into the NOTIFYFLAG settings that make C(upsmon) call C(upssched).
  - Fails for a rule that could never take effect, for example because this host does not monitor its UPS.
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
    description: The name of each UPS, and its name in the MONITOR line, which C(upssched) compares literally.
    type: dict
    required: true
  notifyflag:
    description: Flags that the user sets, as C(NOTIFYFLAG) in the variable C(nut_server_upsmon_conf). They are kept.
    type: dict
    default: {}
  role:
    description: The role that the rules belong to, for error messages.
    type: str
    choices: [nut_server, nut_client]
    default: nut_server
  all_events:
    description: Whether NOTIFYCMD is to be run for all types of events that every supported release of NUT has.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Start a timer on a power failure
  ansible.builtin.debug:
    msg: "{{ rules | homelab.nut.upssched({'ups': 'ups@localhost:3493'}) }}"
  vars:
    rules:
      - {notifytype: ONBATT, ups: ups, command: START-TIMER, name: early, seconds: 300}
"""

RETURN = r"""
_value:
  description: C(at) holds the words of each AT line, and C(notifyflag) the flags of each type of event.
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
    *,
    all_events: bool = False,
) -> dict[str, Any]:
    """Return AT lines and the flags that they need. Raises AnsibleFilterError for a rule without effect."""
    from ..module_utils._nut.conf import upssched_rules as library
    from ..module_utils._nut.conf.settings import SettingsError

    with raise_as_filter_error(SettingsError, prefix=f"{role}_upssched_rules: "):
        return {
            "at": library.write_rules(rules, systems),
            "notifyflag": library.join_flags(rules, notifyflag, all_events=all_events),
        }


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"upssched": upssched}
