# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Put the findings of all hosts together: in order, and each with the cause that it follows from.

A host that is off is also not logged in, but that is a single failure, with a single remedy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .findings import FAILURE, NOTE, UNKNOWN, VERDICTS, WARNING, DoctorReport, Finding, is_about_same, name_finding

HOST, PRIMARY = "host", "primary"


@dataclass(frozen=True)
class _Rule:
    """Findings of a check that follow from those of other checks."""

    consequence: str  # the check
    where: str  # HOST: the causes are on the same host; PRIMARY: on its primary
    causes: tuple[str, ...]  # checks, the deepest cause first
    only: tuple[str, ...] = (FAILURE, WARNING, UNKNOWN, NOTE)  # verdicts of the consequence


_RULES = (
    _Rule("login", HOST, ("reachable", "installed", "mode", "units", "service", "settings", "upsmon", "files", "access", "port")),
    _Rule(
        "login", PRIMARY,
        ("reachable", "installed", "mode", "units", "upsd", "listening", "firewall", "users", "driver", "policy"),
    ),
    _Rule("port", HOST, ("access",)),
    _Rule("port", PRIMARY, ("reachable", "installed", "mode", "usb", "permissions", "units", "driver", "upsd", "listening", "firewall")),
    _Rule("upsd", HOST, ("mode", "units", "listening")),
    _Rule("tls", HOST, ("mode", "units", "upsd")),
    _Rule("units", HOST, ("mode", "usb", "permissions")),
    _Rule("driver", HOST, ("usb", "permissions", "units")),
    _Rule("upsmon", HOST, ("usb", "permissions", "units", "driver"), only=(WARNING,)),
    _Rule("plan", HOST, ("mode", "usb", "permissions", "units", "driver", "upsd"), only=(UNKNOWN, NOTE)),
    _Rule("files", HOST, ("mode", "upsmon")),
    _Rule("restarted", HOST, ("files", "shutdowncmd", "users", "upsmon")),
    _Rule("settings", HOST, ("reachable", "login"), only=(UNKNOWN,)),
    _Rule("clock", HOST, ("skew",)),
    _Rule("journal", HOST, ("usb", "permissions", "units", "driver", "upsd", "port", "login")),
)  # fmt: skip


def merge_findings(
    hosts: Sequence[str], findings: Iterable[Finding], primaries: Mapping[str, str] | None = None
) -> DoctorReport:
    """Put the findings of all hosts in order, and link each to its cause. Where two hosts checked the same login, keep the worse verdict.

    primaries: of each secondary, by name.
    """
    grouped: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        grouped.setdefault((finding.host, finding.check), []).append(replace(finding, because=""))
    kept: list[Finding] = []
    for group in grouped.values():
        if group[0].check == "login":
            # The primary and the secondary have both checked this login.
            kept.append(min(group, key=lambda finding: VERDICTS.index(finding.verdict)))
        else:
            kept += dict.fromkeys(group)
    order = {name: number for number, name in enumerate(hosts)}
    return DoctorReport(
        tuple(
            sorted(
                _link_causes(kept, primaries or {}),
                key=lambda finding: (
                    order.get(finding.host, len(order)),
                    VERDICTS.index(finding.verdict),
                    bool(finding.because),
                ),
            )
        )
    )


def _link_causes(findings: Sequence[Finding], primaries: Mapping[str, str]) -> list[Finding]:
    """Return the findings, each with the cause that it follows from, if there is one.

    A cause is at least as bad as what follows from it, so leaving out what follows hides nothing.
    """
    places: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        places.setdefault((finding.host, finding.check), []).append(finding)
    direct: dict[Finding, Finding] = {}
    for finding in findings:
        cause = _find_cause(finding, places, primaries)
        if cause is not None and _find_root(cause, direct) != finding:
            direct[finding] = cause
    return [
        replace(finding, because=name_finding(_find_root(finding, direct))) if finding in direct else finding
        for finding in findings
    ]


def _find_cause(
    finding: Finding, places: Mapping[tuple[str, str], Sequence[Finding]], primaries: Mapping[str, str]
) -> Finding | None:
    for rule in _RULES:
        if rule.consequence != finding.check or finding.verdict not in rule.only:
            continue
        host = finding.host if rule.where == HOST else primaries.get(finding.host, finding.host)
        for check in rule.causes:
            for other in places.get((host, check), ()):
                if _is_as_bad(other, finding) and is_about_same(finding, other):
                    return other
    return None


def _is_as_bad(cause: Finding, consequence: Finding) -> bool:
    return cause.verdict != NOTE and VERDICTS.index(cause.verdict) <= VERDICTS.index(consequence.verdict)


def _find_root(finding: Finding, direct: Mapping[Finding, Finding]) -> Finding:
    """Return the finding that has no cause itself. There are no circles in DIRECT."""
    while finding in direct:
        finding = direct[finding]
    return finding
