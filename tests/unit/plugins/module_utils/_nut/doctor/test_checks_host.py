# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import JournalEntry
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    WARNING,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import (
    TlsResult,
)
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import EXPECTED, NOW, SEEN


def test_unsynchronized_clock_is_a_note() -> None:
    found = examine_host(replace(SEEN, synchronized=False), EXPECTED)
    assert [finding.verdict for finding in found if finding.check == "clock"] == [NOTE]


def test_journal_problems_are_notes() -> None:
    seen = replace(
        SEEN,
        journal=tuple(
            JournalEntry(NOW - at, "nut-server.service", "Data for UPS [ups] is stale - check driver") for at in (9, 5)
        ),
    )
    found = [finding for finding in examine_host(seen, EXPECTED) if finding.check == "journal"]
    assert [finding.verdict for finding in found] == [NOTE]
    assert found[0].seen.startswith("driver of ups gets no data from it (2 times, last 20")


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (TlsResult("TLSv1.3", NOW + 31 * 86400), OK),
        (TlsResult("TLSv1.3", NOW + 29 * 86400), WARNING),
        (TlsResult("TLSv1.3", NOW - 1), FAILURE),
        (TlsResult("", 0.0, "upsd answered FEATURE-NOT-CONFIGURED"), FAILURE),
    ],
)
def test_certificate_is_judged_by_trust_and_expiry(seen: TlsResult, verdict: str) -> None:
    found = [
        finding
        for finding in examine_host(replace(SEEN, tls=seen), replace(EXPECTED, tls=True))
        if finding.check == "tls"
    ]
    assert [finding.verdict for finding in found] == [verdict]
