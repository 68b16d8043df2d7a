# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.upsmon import Monitor
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import login
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers

KNOWN = {"USERNAME media": "OK\n", "PASSWORD secret2": "OK\n"}


def monitor_at(port: int) -> Monitor:
    return Monitor(f"ups@127.0.0.1:{port}", 1, "media", "secret2", "secondary")


def test_accepted_login_ends_at_once() -> None:
    """While it lasts, the primary would wait for one machine more."""
    with serve_answers(KNOWN) as fake:
        assert login.try_monitor(monitor_at(fake.port), "") == login.LoginAnswer(login.ACCEPTED)
        assert fake.asked == ["USERNAME media", "PASSWORD secret2", "LOGIN ups", "LOGOUT"]


@pytest.mark.parametrize("code", ["ACCESS-DENIED", "UNKNOWN-UPS"])
def test_refused_login_names_user_and_code(code: str) -> None:
    with serve_answers({**KNOWN, "LOGIN ups": f"ERR {code}\n"}) as fake:
        answer = login.try_monitor(monitor_at(fake.port), "")
    assert answer.verdict == login.REFUSED
    assert answer.why == f"upsd at 127.0.0.1:{fake.port} does not accept the login media to ups ({code})"


def test_login_to_unreachable_upsd_is_unknown() -> None:
    with serve_answers() as fake:
        port = fake.port
    answer = login.try_monitor(monitor_at(port), "")
    assert answer.verdict == login.UNKNOWN
    assert "connection refused" in answer.why


@pytest.mark.parametrize("conf", ["CERTVERIFY 1\n", "CERTHOST 127.0.0.1 name 1 1\n"])
def test_login_of_upsmon_with_tls_is_not_sent_in_clear_text(conf: str) -> None:
    with serve_answers({**KNOWN, "STARTTLS": "ERR FEATURE-NOT-CONFIGURED\n"}) as fake:
        answer = login.try_monitor(monitor_at(fake.port), conf, "the CA")
        assert fake.asked == ["STARTTLS"]
    assert answer.verdict == login.UNKNOWN


def test_upsmon_that_verifies_no_certificate_logs_in_without_tls() -> None:
    with serve_answers(KNOWN) as fake:
        assert login.try_monitor(monitor_at(fake.port), "CERTVERIFY 0\n", "the CA").verdict == login.ACCEPTED
