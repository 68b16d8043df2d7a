# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.doctor_report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..module_utils._nut.doctor import findings

DOCUMENTATION = r"""
name: doctor_report
short_description: All that the doctor found, in order
version_added: 0.2.0
description:
  - Puts together what was registered on each host, for machines. Hosts come in the order of the input, of each the worst first.
  - A host of which nothing is known could not be reached, which is a failure.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: hostvars, clients
options:
  _input:
    description: The names of the hosts that were to be looked at.
    type: list
    elements: str
    required: true
  hostvars:
    description:
      - The variable C(hostvars). Used of each host are C(__nut_server_doctor) or C(__nut_client_doctor), the result of
        M(homelab.nut.doctor); C(__nut_client_doctor_truenas), that of M(homelab.nut.truenas_ups) in check mode;
        C(__nut_client_doctor_login), that of M(homelab.nut.ups_info) on its primary; and C(__nut_doctor_trouble), the result of what
        stopped the examination.
    type: dict
    required: true
  clients:
    description: The secondaries, as the filter P(homelab.nut.clients#filter) lists them.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Keep it
  ansible.builtin.copy:
    content: "{{ ansible_play_hosts_all | homelab.nut.doctor_report(hostvars) | to_nice_json }}"
    dest: doctor.json
    mode: "0600"
"""

RETURN = r"""
_value:
  description: A dictionary with format (1), verdict, code (the exit code), summary and findings, as in C(docs/doctor.md).
  type: dict
"""

# what a host may have sent instead of what was asked for
_WRONG = (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError)


def _of(host: str, own: Mapping[str, Any], primaries: Mapping[str, str]) -> list[findings.Finding]:
    """Judge what was registered on a host. One that has sent something else hides no other."""
    from ..module_utils._nut.doctor import checks_others

    try:
        return _judged(host, own, primaries)
    except _WRONG as error:
        return [
            checks_others.judge_unexamined(host, {"msg": f"its answer can't be read: {type(error).__name__}: {error}"})
        ]


def _judged(host: str, own: Mapping[str, Any], primaries: Mapping[str, str]) -> list[findings.Finding]:
    from ..module_utils._nut.doctor import checks_others, findings

    found: list[findings.Finding] = []
    result = own.get("__nut_server_doctor", own.get("__nut_client_doctor"))
    if isinstance(result, Mapping) and "findings" in result:
        # of others it may tell only what it sees as their primary
        found += [
            one for one in findings.from_json(result).findings if one.host == host or primaries.get(one.host) == host
        ]
    if isinstance(own.get("__nut_client_doctor_truenas"), Mapping):
        found += checks_others.judge_truenas(host, own["__nut_client_doctor_truenas"])
    login = own.get("__nut_client_doctor_login")
    # skipped where the primary is looked at itself, and tells of it
    if isinstance(login, Mapping) and not login.get("skipped"):
        found += checks_others.judge_login(primaries.get(host, "its primary"), host, login)
    if own.get("__nut_doctor_trouble"):
        found.append(checks_others.judge_unexamined(host, own["__nut_doctor_trouble"]))
    elif not found:
        found.append(checks_others.judge_unexamined(host, result if isinstance(result, Mapping) else None))
    return found


def doctor_report(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], clients: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Put together what was found."""
    from ..module_utils._nut.doctor import findings

    primaries = {one["name"]: one["primary"] for one in clients}
    all_found = [one for host in hosts for one in _of(host, hostvars[host], primaries)]
    # a secondary that was left out of the run is not judged by the way
    return findings.merge_findings(hosts, [one for one in all_found if one.host in hosts]).to_json()


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"doctor_report": doctor_report}
