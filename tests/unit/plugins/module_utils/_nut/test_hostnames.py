# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import threading

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut import hostnames


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.1.1", "127.0.0.1"),
        ("::1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.3", "192.0.2.3"),
        ("192.0.2.3", "192.0.2.3"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("truenas", "truenas"),
    ],
)
def test_normal_address(text: str, normal: str) -> None:
    assert hostnames.normal_address(text) == normal


def test_resolving_takes_no_longer_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def dead_name_server(*args: object, **more: object) -> list[object]:
        answered.wait(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", dead_name_server)
    try:
        with pytest.raises(TimeoutError, match=r"not resolved within 0\.1 s"):
            hostnames.resolve("pve", 0.1)
    finally:
        answered.set()


def test_resolve() -> None:
    assert hostnames.resolve("192.0.2.3", 1) == ("192.0.2.3",)
    assert {hostnames.normal_address(address) for address in hostnames.resolve("localhost", 5)} == {"127.0.0.1"}
