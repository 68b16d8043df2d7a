# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Findings made without running on the host: TrueNAS, the clock, logins as the primary sees them, and hosts out of reach."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..base.text import as_text, one_line, printable
from .findings import FAILURE, NOTE, OK, TAKEN_AWAY, UNKNOWN, WARNING, Finding

SKEW_NOTE, SKEW_WARNING = 5.0, 60.0
"""Seconds. Running the module takes some, so a smaller difference can't be measured."""

# what Ansible puts before the message of a filter
_WRAPPING = re.compile(r"^(?:Task failed: |Action failed: |.*The (?:filter|lookup) plugin '[a-z_.]+' failed: )*")

NAMES = ("reachable", "python", "skew", "settings", "service", "login")
"""The checks in this file, as docs/doctor.md names them."""


def judge_skew(host: str, ahead: float, unsure: float) -> Finding:
    """Judge how many seconds a host's clock is ahead of the Ansible controller's. unsure: the error of AHEAD, in seconds."""
    off = max(abs(ahead) - unsure, 0.0)
    message = f"the clock is {off:.0f} s {'ahead of' if ahead > 0 else 'behind'} the Ansible controller's"
    if off <= SKEW_NOTE:
        return Finding(
            "skew", host, OK, f"the clock agrees with the Ansible controller's (measured to {max(unsure, 0.1):.1f} s)"
        )
    return Finding(
        "skew", host, WARNING if off > SKEW_WARNING else NOTE, message, "systemctl status chrony systemd-timesyncd"
    )


def judge_truenas(host: str, result: Mapping[str, Any], primary: str = "", primary_away: bool = False) -> list[Finding]:
    """Judge TrueNAS by what the module truenas_ups would change. Its login is checked on the primary.

    primary_away: whether NUT was taken away from its primary on purpose, and so from TrueNAS, if its UPS service is off.
    """
    if result.get("skipped"):
        return [Finding("settings", host, UNKNOWN, "TrueNAS was not queried")]
    # a task with failed_when: false reports failed as false; only a module that succeeded returns the service
    if result.get("failed") or result.get("unreachable") or "service" not in result:
        return [
            Finding(
                "settings",
                host,
                UNKNOWN,
                f"TrueNAS can't be queried: {printable(as_text(result.get('msg') or 'no answer'), 300)}",
                "see docs/truenas.md, Troubleshooting",
            )
        ]
    done = [str(action) for action in result.get("actions", ())]
    sets = [action for action in done if action.startswith("set ")]
    other = [action for action in done if not action.startswith("set ")]
    todo = f"make ups tags=ups limit={f'{primary},' if primary else ''}{host}"
    if primary_away and any(action.startswith("started") for action in done):
        return [Finding("settings", host, WARNING, TAKEN_AWAY, todo)]
    results = []
    if sets:
        fields = sets[0].removeprefix("set ").partition(";")[0]
        results.append(Finding("settings", host, FAILURE, f"UPS settings differ from the inventory: {fields}", todo))
    else:
        results.append(
            Finding(
                "settings",
                host,
                OK,
                f"UPS settings match the inventory (TrueNAS {result.get('version') or 'of unknown version'})",
            )
        )
    if other:
        problems = [
            {"started": "is not running", "enabled": "does not start at boot"}.get(action.split()[0], action)
            for action in other
        ]
        stopped = any(action.startswith("started") for action in other)
        results.append(
            Finding("service", host, FAILURE if stopped else WARNING, f"the UPS service {' and '.join(problems)}", todo)
        )
    else:
        results.append(Finding("service", host, OK, "the UPS service is running and starts at boot"))
    return results


def judge_login(primary: str, host: str, result: Mapping[str, Any]) -> list[Finding]:
    """Judge a secondary's login by the result of the module ups_info on its primary, where the primary itself is not checked."""
    if result.get("failed") or result.get("unreachable") or "missing_clients" not in result:
        why = printable(as_text(result.get("msg") or "it is not part of this run"), 200)
        return [Finding("login", host, UNKNOWN, f"could not be checked: {primary} can't be queried ({why})")]
    if result["missing_clients"]:
        return [
            Finding(
                "login",
                host,
                FAILURE,
                f"not logged in on {primary}, so it would not shut down in a power cut",
                f"make doctor limit={primary},{host}",
            )
        ]
    return [Finding("login", host, OK, f"logged in on {primary}")]


def judge_unexamined(host: str, result: Mapping[str, Any] | None) -> Finding:
    """Return why a host could not be checked. result: of the module check_login, or of the task that failed."""
    if result and result.get("problem"):
        message, todo = (printable(one_line(as_text(result.get(key) or "")), 500) for key in ("problem", "remedy"))
        return Finding("reachable", host, FAILURE, message, todo)
    why = printable(one_line(as_text((result or {}).get("msg") or "no answer")), 300)
    why = _WRAPPING.sub("", why)
    connect_verbosely = f"make doctor limit={host} args=-vvv"
    if (result or {}).get("unreachable") or result is None:
        todo = f"check that it is on; {connect_verbosely}"
        return Finding("reachable", host, FAILURE, f"can't be reached: {why}", todo)
    if re.search(r"python\S*: (?:not found|No such file)|interpreter", why):
        return Finding("python", host, FAILURE, f"has no Python that Ansible can use: {why}", "apt install python3")
    return Finding("reachable", host, FAILURE, f"could not be checked: {why}", connect_verbosely)
