# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify import deliver

URL = "tgram://123456:s3cr3t%2Dtoken/chat-987?to=alice%40example.org"
JOB = {"url": URL, "title": "T", "body": "B", "severity": "critical"}


def make_apprise(answer: Any, *, known: bool = True, logged: str = "") -> tuple[Any, list[Any]]:
    """Return a module like apprise, and what it was asked to send."""
    sent: list[Any] = []

    class Apprise:
        def add(self, url: str) -> bool:
            sent.append(url)
            return known

        def notify(self, **words: str) -> bool:
            sent.append(words)
            if logged:
                logging.getLogger("apprise").warning(logged)
            if isinstance(answer, Exception):
                raise answer
            return bool(answer)

    return SimpleNamespace(Apprise=Apprise), sent


def test_a_message_is_sent_with_its_severity() -> None:
    apprise, sent = make_apprise(True)
    deliver.deliver(json.dumps(JOB).encode(), lambda: apprise)
    assert sent == [URL, {"body": "B", "title": "T", "notify_type": "failure", "body_format": "text"}]


FAILURES: dict[str, tuple[Any, str]] = {
    "refused": (make_apprise(False, logged="Failed to send to Telegram: Unauthorized, error=401.")[0], "error=401"),
    "refused without a word": (make_apprise(False)[0], "the service refused it"),
    "unknown": (make_apprise(False, known=False)[0], "Apprise does not know this kind of URL"),
    "raises": (
        make_apprise(RuntimeError(f"can't reach {URL} as s3cr3t-token"))[0],
        "RuntimeError: can't reach *** as ***",
    ),
    "repeats the secret": (
        make_apprise(False, logged="no bot 123456:s3cr3t-token for alice@example.org")[0],
        "no bot ***",
    ),
}


@pytest.mark.parametrize(("apprise", "words"), FAILURES.values(), ids=FAILURES)
def test_a_failure_says_why_without_the_secret(apprise: Any, words: str) -> None:
    with pytest.raises(deliver.DeliveryError) as caught:
        deliver.deliver(json.dumps(JOB).encode(), lambda: apprise)
    assert words in str(caught.value)
    for secret in ("s3cr3t", "123456", "chat-987", "alice"):
        assert secret not in str(caught.value)


def test_a_host_without_apprise_says_what_to_install() -> None:
    def load() -> Any:
        raise ModuleNotFoundError("No module named 'apprise'")

    with pytest.raises(deliver.DeliveryError, match="Install Debian's package apprise"):
        deliver.deliver(json.dumps(JOB).encode(), load)


@pytest.mark.parametrize("job", [b"", b"[]", b"{}", b"\xff", b'{"url": "x"}', b"[" * 9999])
def test_a_job_that_can_not_be_read_is_refused(job: bytes) -> None:
    with pytest.raises(deliver.DeliveryError, match="can't be read"):
        deliver.deliver(job)
