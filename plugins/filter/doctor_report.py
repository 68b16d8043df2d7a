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
short_description: Combine the doctor's findings on all hosts into one report
version_added: 0.2.0
description:
  - Combines the results that the play registered on each host into one machine-readable report, with the hosts in the order of the
    input and the worst finding of each host first.
  - Reports a host without any result as unreachable, which is a failure.
author:
  - The homelab.nut contributors (@homelab-nut)
positional: hostvars, clients
options:
  _input:
    description: The names of the hosts to be examined.
    type: list
    elements: str
    required: true
  hostvars:
    description:
      - The variable C(hostvars). The filter reads four results of each host. C(__nut_server_doctor) or C(__nut_client_doctor) is the
        result of M(homelab.nut.doctor). C(__nut_client_doctor_truenas) is the result of M(homelab.nut.truenas_ups) in check mode.
        C(__nut_client_doctor_login) is the result of M(homelab.nut.ups_info) on its primary. C(__nut_doctor_trouble) is the result of
        the task that stopped the examination.
    type: dict
    required: true
  clients:
    description: The secondaries, as returned by P(homelab.nut.clients#filter).
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Save the report
  ansible.builtin.copy:
    content: "{{ ansible_play_hosts_all | homelab.nut.doctor_report(hostvars) | to_nice_json }}"
    dest: doctor.json
    mode: "0600"
"""

RETURN = r"""
_value:
  description: C(format) (1), C(verdict), C(code) (the exit code), C(summary) and C(findings), as described in C(docs/doctor.md).
  type: dict
"""

# raised by results that are not of the expected form: a host may send anything
_MALFORMED = (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError)


def _judge_host(
    host: str, hostvars: Mapping[str, Mapping[str, Any]], primaries: Mapping[str, str]
) -> list[findings.Finding]:
    """Return the findings of one host. A host with malformed results does not hide the findings of others."""
    from ..module_utils._nut.doctor import checks_others

    try:
        return _read_results(host, hostvars, primaries)
    except _MALFORMED as error:
        trouble = {"msg": f"its answer can't be read: {type(error).__name__}: {error}"}
        return [checks_others.judge_unexamined(host, trouble)]


def _is_away(primary: str, hostvars: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return whether NUT was taken away from a primary on purpose, by what it reports."""
    from ..module_utils._nut.doctor import findings

    try:
        return any(
            finding.seen == findings.TAKEN_AWAY
            for finding in findings.from_json(hostvars[primary]["__nut_server_doctor"]).findings
        )
    except _MALFORMED:
        return False  # _judge_host() reports it


def _read_results(
    host: str, hostvars: Mapping[str, Mapping[str, Any]], primaries: Mapping[str, str]
) -> list[findings.Finding]:
    from ..module_utils._nut.doctor import checks_others, findings

    own = hostvars[host]
    check = own.get("__nut_login")
    if isinstance(check, Mapping) and check.get("problem"):
        return [checks_others.judge_unexamined(host, check)]
    judged: list[findings.Finding] = []
    result = own.get("__nut_server_doctor", own.get("__nut_client_doctor"))
    if isinstance(result, Mapping) and "findings" in result:
        # a host may report on itself, and a primary on its secondaries
        reported = findings.from_json(result).findings
        judged += [finding for finding in reported if host in (finding.host, primaries.get(finding.host))]
    if isinstance(own.get("__nut_client_doctor_truenas"), Mapping):
        primary = primaries.get(host, "")
        judged += checks_others.judge_truenas(
            host, own["__nut_client_doctor_truenas"], primary, _is_away(primary, hostvars)
        )
    login = own.get("__nut_client_doctor_login")
    # skipped if the primary is examined in the same run and reports the login
    if isinstance(login, Mapping) and not login.get("skipped"):
        judged += checks_others.judge_login(primaries.get(host, "its primary"), host, login)
    if own.get("__nut_doctor_trouble"):
        judged.append(checks_others.judge_unexamined(host, own["__nut_doctor_trouble"]))
    elif not judged:
        judged.append(checks_others.judge_unexamined(host, result if isinstance(result, Mapping) else None))
    return judged


def doctor_report(
    hosts: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]], clients: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return the report on all hosts."""
    from ..module_utils._nut.doctor import merge

    primaries = {client["name"]: client["primary"] for client in clients}
    judged = [finding for host in hosts for finding in _judge_host(host, hostvars, primaries)]
    # unmanaged machines are no hosts of a play: their primary reports on them
    unmanaged = [client["name"] for client in clients if not client["managed"] and client["primary"] in hosts]
    shown = [*hosts, *unmanaged]
    # a primary also reports on secondaries that are not part of this run
    return merge.merge_findings(shown, [finding for finding in judged if finding.host in shown], primaries).to_json()


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"doctor_report": doctor_report}
