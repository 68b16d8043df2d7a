# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is all well? From what was seen on a host (observe.py), and what the inventory says, to findings.

The checks stand by subject in checks_*.py, each registered with the names that docs/doctor.md lists.
"""

from __future__ import annotations

from ..base.text import printable
from . import checks_files, checks_host, checks_logins, checks_shutdown, checks_ups
from .exam import PRIMARY, Exam, Expected, HostCheck
from .findings import FAILURE, UNKNOWN, Finding
from .observe import Observation

CHECKS: tuple[HostCheck, ...] = (
    *checks_files.check,
    *checks_ups.check,
    *checks_logins.check,
    *checks_shutdown.check,
    *checks_host.check,
)


def examine_host(seen: Observation, expected: Expected) -> list[Finding]:
    """Judge a host. Raises nothing: a check that fails itself says so."""
    exam = Exam(seen, expected)
    first = list(checks_files.check_installed(exam))
    if any(finding.verdict == FAILURE for finding in first):
        return first
    found: list[Finding] = []
    for check in CHECKS:
        if check.where == PRIMARY and not expected.primary:
            continue
        try:
            found += check.examine(exam)
        except Exception as error:
            words = f"the check itself failed: {type(error).__name__}: {printable(str(error))}"
            found.append(
                exam.make_finding(check.names[0], UNKNOWN, words, "this is a mistake in homelab.nut: please report it")
            )
    return found
