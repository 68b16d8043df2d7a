# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What else a host needs: TLS, a clock that is right, and a journal without troubles."""

from __future__ import annotations

from ..base.clock import stamp
from ..base.text import printable
from .findings import OK, WARNING
from .journal import troubles as find_troubles
from .look import DAY, DEPLOY, TROUBLES, Found, Look, Registry

check = Registry()


CERTIFICATE_WARNING = 30 * DAY


@check("tls")
def check_tls(look: Look) -> Found:
    """Can the secondaries trust upsd, and for how long?"""
    if not look.expected.tls:
        return
    if look.seen.tls is None:
        return
    if look.seen.tls.trouble:
        yield look.fail("tls", printable(look.seen.tls.trouble), DEPLOY)
        return
    left = look.seen.tls.ends - look.seen.now
    words = f"{look.seen.tls.version}; its certificate is good for {left / DAY:.0f} days more"
    if left <= 0:
        yield look.fail("tls", "upsd's certificate has expired: nobody can log in", DEPLOY)
    else:
        yield look.judge(
            "tls", WARNING if left < CERTIFICATE_WARNING else OK, words, DEPLOY if left < CERTIFICATE_WARNING else ""
        )


@check("clock")
def check_clock(look: Look) -> Found:
    """Does something keep the clock right?"""
    yield from look.blind("clock", "clock")
    if look.seen.synchronized is False:
        words = "nothing keeps the clock right: the kernel calls it not synchronized"
        yield look.note("clock", words, "systemctl status chrony systemd-timesyncd")
    elif look.seen.synchronized:
        yield look.ok("clock", "synchronized")


@check("journal")
def check_journal(look: Look) -> Found:
    """What went wrong in the last day?"""
    yield from look.blind("journal", "journal")
    troubles = find_troubles(look.seen.journal)
    said = [
        f"{words} ({f'{times} times, last' if times > 1 else 'once,'} {stamp(last)})" for words, times, last in troubles
    ]
    if said:
        more = f"; and {len(said) - TROUBLES} more" if len(said) > TROUBLES else ""
        yield look.note("journal", "; ".join(said[:TROUBLES]) + more, "journalctl -u 'nut-*' -S -1d")
    if not troubles and "journal" not in look.seen.troubles:
        yield look.ok("journal", "no trouble in the last day")
