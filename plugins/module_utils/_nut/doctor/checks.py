# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare what was observed on a host (observe.py) with what the inventory says, and return findings.

The checks live in checks_*.py, one file a subject. Each is registered with the names that docs/doctor.md lists.
"""

from __future__ import annotations

from ..base.text import printable
from . import checks_files, checks_host, checks_logins, checks_shutdown, checks_ups
from .exam import DEPLOY, PRIMARY, Exam, Expected, HostCheck
from .findings import FAILURE, TAKEN_AWAY, UNKNOWN, Finding
from .observe import HostObservation

CHECKS: tuple[HostCheck, ...] = (
    *checks_files.check,
    *checks_ups.check,
    *checks_logins.check,
    *checks_shutdown.check,
    *checks_host.check,
)


def examine_host(seen: HostObservation, expected: Expected) -> list[Finding]:
    """Run all checks on a host. Never raises: a check that crashes becomes a finding."""
    exam = Exam(seen, expected)
    installed = list(checks_files.check_installed(exam))
    if any(finding.verdict == FAILURE for finding in installed):
        return installed
    if exam.is_taken_away:
        return [exam.warn("installed", TAKEN_AWAY, DEPLOY)]
    results: list[Finding] = []
    for check in CHECKS:
        if check.where == PRIMARY and not expected.primary:
            continue
        try:
            results += check.examine(exam)
        except Exception as error:
            message = f"this check crashed: {type(error).__name__}: {printable(str(error))}"
            results.append(
                exam.make_finding(check.names[0], UNKNOWN, message, "this is a bug in homelab.nut: please report it")
            )
    return results
