# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is judged without a exam at the host itself: TrueNAS, a clock, a login as the primary sees it, a host that can't be reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..base.text import as_text, one_line, printable
from .findings import FAILURE, NOTE, OK, UNKNOWN, WARNING, Finding

SKEW_NOTE, SKEW_WARNING = 5.0, 60.0
"""Seconds. A run of the module takes some, so less than that can't be told."""

NAMES = ("reachable", "python", "skew", "settings", "service", "login")
"""The names of what is found here, as docs/doctor.md has them."""


def judge_skew(host: str, ahead: float, unsure: float) -> Finding:
    """Judge how far a host's clock is ahead of the one where Ansible runs. unsure: seconds that it may be more or less."""
    off = max(abs(ahead) - unsure, 0.0)
    words = f"its clock is {off:.0f} s {'ahead of' if ahead > 0 else 'behind'} the one where Ansible runs"
    if off <= SKEW_NOTE:
        return Finding("skew", host, OK, f"its clock is right, as far as can be told ({max(unsure, 0.1):.1f} s)")
    return Finding(
        "skew", host, WARNING if off > SKEW_WARNING else NOTE, words, "systemctl status chrony systemd-timesyncd"
    )


def judge_truenas(host: str, result: Mapping[str, Any]) -> list[Finding]:
    """Judge TrueNAS by what the module truenas_ups would do to it. Its login is seen on the primary."""
    if result.get("skipped"):
        return [Finding("settings", host, UNKNOWN, "TrueNAS was not asked")]
    if result.get("failed") or result.get("unreachable"):
        return [
            Finding(
                "settings",
                host,
                UNKNOWN,
                f"TrueNAS can't be asked: {printable(as_text(result.get('msg') or 'no answer'), 300)}",
                "see docs/truenas.md, Troubles",
            )
        ]
    done = [str(action) for action in result.get("actions", ())]
    sets = [action for action in done if action.startswith("set ")]
    other = [action for action in done if not action.startswith("set ")]
    todo = f"make pve tags=ups limit={host}"
    found = []
    if sets:
        fields = sets[0].removeprefix("set ").partition(";")[0]
        found.append(
            Finding("settings", host, FAILURE, f"its UPS settings are not as the inventory has them: {fields}", todo)
        )
    else:
        found.append(
            Finding(
                "settings",
                host,
                OK,
                f"as the inventory has them (TrueNAS {result.get('version') or 'of an unknown release'})",
            )
        )
    if other:
        lacks = [
            {"started": "does not run", "enabled": "does not start at boot"}.get(action.split()[0], action)
            for action in other
        ]
        grave = any(action.startswith("started") for action in other)
        found.append(
            Finding("service", host, FAILURE if grave else WARNING, f"its UPS service {' and '.join(lacks)}", todo)
        )
    else:
        found.append(Finding("service", host, OK, "its UPS service runs, and starts at boot"))
    return found


def judge_login(primary: str, host: str, result: Mapping[str, Any]) -> list[Finding]:
    """Judge a secondary's login by what the module ups_info said on its primary, where that is not looked at itself."""
    if result.get("failed") or result.get("unreachable") or "missing_clients" not in result:
        why = printable(as_text(result.get("msg") or "it is not in this run"), 200)
        return [Finding("login", host, UNKNOWN, f"not looked at: {primary} can't be asked ({why})")]
    if result["missing_clients"]:
        return [
            Finding(
                "login",
                host,
                FAILURE,
                f"not logged in on {primary}. It would not be told of a power cut",
                f"make doctor limit={primary},{host}",
            )
        ]
    return [Finding("login", host, OK, f"logged in on {primary}")]


def judge_unexamined(host: str, result: Mapping[str, Any] | None) -> Finding:
    """Return why a host could not be looked at."""
    told = printable(one_line(as_text((result or {}).get("msg") or "no answer")), 300)
    if (result or {}).get("unreachable") or result is None:
        return Finding("reachable", host, FAILURE, f"can't be reached: {told}", f"is it on? ansible -m ping {host}")
    if re.search(r"python\S*: (?:not found|No such file)|interpreter", told):
        return Finding("python", host, FAILURE, f"has no Python that Ansible can use: {told}", "apt install python3")
    return Finding("reachable", host, FAILURE, f"could not be looked at: {told}", "make doctor args=-vvv")
