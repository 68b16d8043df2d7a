# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What else a host needs: TLS, a clock that is right, and a journal without troubles."""

from __future__ import annotations

from ..base.clock import format_time
from ..base.text import printable
from .exam import DAY, DEPLOY, TROUBLES, Exam, Findings, Registry
from .findings import OK, WARNING
from .journal import list_troubles as find_troubles

check = Registry()


CERTIFICATE_WARNING = 30 * DAY


@check("tls")
def check_tls(exam: Exam) -> Findings:
    """Can the secondaries trust upsd, and for how long?"""
    if not exam.expected.tls:
        return
    if exam.seen.tls is None:
        return
    if exam.seen.tls.trouble:
        yield exam.fail("tls", printable(exam.seen.tls.trouble), DEPLOY)
        return
    left = exam.seen.tls.ends - exam.seen.now
    words = f"{exam.seen.tls.version}; its certificate is good for {left / DAY:.0f} days more"
    if left <= 0:
        yield exam.fail("tls", "upsd's certificate has expired: nobody can log in", DEPLOY)
    else:
        yield exam.make_finding(
            "tls", WARNING if left < CERTIFICATE_WARNING else OK, words, DEPLOY if left < CERTIFICATE_WARNING else ""
        )


@check("clock")
def check_clock(exam: Exam) -> Findings:
    """Does something keep the clock right?"""
    yield from exam.report_unseen("clock", "clock")
    if exam.seen.synchronized is False:
        words = "nothing keeps the clock right: the kernel calls it not synchronized"
        yield exam.note("clock", words, "systemctl status chrony systemd-timesyncd")
    elif exam.seen.synchronized:
        yield exam.ok("clock", "synchronized")


@check("journal")
def check_journal(exam: Exam) -> Findings:
    """What went wrong in the last day?"""
    yield from exam.report_unseen("journal", "journal")
    troubles = find_troubles(exam.seen.journal)
    said = [
        f"{words} ({f'{times} times, last' if times > 1 else 'once,'} {format_time(last)})"
        for words, times, last in troubles
    ]
    if said:
        more = f"; and {len(said) - TROUBLES} more" if len(said) > TROUBLES else ""
        yield exam.note("journal", "; ".join(said[:TROUBLES]) + more, "journalctl -u 'nut-*' -S -1d")
    if not troubles and "journal" not in exam.seen.troubles:
        yield exam.ok("journal", "no trouble in the last day")
