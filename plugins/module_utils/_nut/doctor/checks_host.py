# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host around NUT: upsd's certificate, the clock, and the journal."""

from __future__ import annotations

from ..base.clock import format_time
from ..base.systemd import SERVER
from ..base.text import printable
from .exam import DAY, DEPLOY, TROUBLES, Exam, Findings, Registry
from .findings import OK, WARNING
from .journal import list_troubles

check = Registry()


CERTIFICATE_WARNING = 30 * DAY


@check("tls")
def check_tls(exam: Exam) -> Findings:
    """Check that secondaries can trust upsd's certificate, and how long it remains valid."""
    if not exam.expected.tls:
        return
    if exam.seen.tls is None:
        return
    if exam.seen.tls.trouble:
        yield exam.fail("tls", printable(exam.seen.tls.trouble), DEPLOY, about=[SERVER, "nut.conf"])
        return
    left = exam.seen.tls.ends - exam.seen.now
    message = f"{exam.seen.tls.version}; upsd's certificate is valid for {left / DAY:.0f} more days"
    if left <= 0:
        yield exam.fail("tls", "upsd's certificate has expired, so secondaries can't log in", DEPLOY)
    else:
        yield exam.make_finding(
            "tls", WARNING if left < CERTIFICATE_WARNING else OK, message, DEPLOY if left < CERTIFICATE_WARNING else ""
        )


@check("clock")
def check_clock(exam: Exam) -> Findings:
    """Check that the clock is synchronized."""
    yield from exam.report_unseen("clock", "clock")
    if exam.seen.synchronized is False:
        message = "the clock is not synchronized"
        yield exam.note("clock", message, "systemctl status chrony systemd-timesyncd")
    elif exam.seen.synchronized:
        yield exam.ok("clock", "synchronized")


@check("journal")
def check_journal(exam: Exam) -> Findings:
    """List the last day's problems from the journal, without those that a deployment or a shutdown caused."""
    yield from exam.report_unseen("journal", "journal")
    troubles = list_troubles(exam.seen.journal, exam.seen.deployed)
    lines = [
        f"{message} ({f'{times} times, last' if times > 1 else 'once,'} {format_time(last)})"
        for message, times, last in troubles
    ]
    if lines:
        more = f"; and {len(lines) - TROUBLES} more" if len(lines) > TROUBLES else ""
        yield exam.note("journal", "; ".join(lines[:TROUBLES]) + more, "journalctl -u 'nut-*' -S -1d")
    if not troubles and "journal" not in exam.seen.troubles:
        yield exam.ok("journal", "no problems in the last day")
