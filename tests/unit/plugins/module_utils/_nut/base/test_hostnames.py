# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import threading

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import hostnames


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
def test_address_is_normalized(text: str, normal: str) -> None:
    assert hostnames.normal_address(text) == normal


def test_resolving_stops_at_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def dead_name_server(*args: object, **more: object) -> list[object]:
        answered.wait(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", dead_name_server)
    try:
        with pytest.raises(TimeoutError, match=r"not resolved within 0\.1 s"):
            hostnames.resolve_name("pve", 0.1)
    finally:
        answered.set()


def test_name_is_resolved_to_addresses() -> None:
    assert hostnames.resolve_name("192.0.2.3", 1) == ("192.0.2.3",)
    assert {hostnames.normal_address(address) for address in hostnames.resolve_name("localhost", 5)} == {"127.0.0.1"}


def test_names_are_resolved_concurrently() -> None:
    """Each lookup waits until all have started, so sequential lookups would never end."""
    asked = threading.Barrier(3)

    def resolve(name: str, _seconds: float) -> list[str]:
        asked.wait(30)
        if name == "away":
            raise OSError("no such name")
        return [] if name == "empty" else [f"192.0.2.{len(name)}"]

    found, problems = hostnames.resolve_names(["nas", "away", "empty", "fe80::1%eth0"], 60, resolve)
    assert found == {"nas": ("192.0.2.3",), "away": (), "empty": (), "fe80::1%eth0": ("fe80::1%eth0",)}
    assert {name: str(error) for name, error in problems.items()} == {
        "away": "no such name",
        "empty": "it has no address",
    }


def test_names_share_one_time_limit() -> None:
    answered = threading.Event()

    def resolve(name: str, _seconds: float) -> list[str]:
        if name != "nas":
            answered.wait(60)
        return ["192.0.2.5"]

    try:
        found, problems = hostnames.resolve_names(["a", "b", "nas"], 1, resolve)
    finally:
        answered.set()
    assert found == {"a": (), "b": (), "nas": ("192.0.2.5",)}
    assert str(problems["a"]) == str(problems["b"]) == "the name was not resolved within 1 s"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("nas", ("nas",)),
        ("192.0.2.20,2001:db8::20", ("192.0.2.20", "2001:db8::20")),
        (" 192.0.2.20 , [2001:db8::20] ,", ("192.0.2.20", "2001:db8::20")),
        ("[fd00::5]", ("fd00::5",)),
        ("nas,nas", ("nas",)),
        (" , []", ()),
    ],
)
def test_addresses_of_a_machine_are_split(text: str, parts: tuple[str, ...]) -> None:
    assert hostnames.split_addresses(text) == parts


def test_machine_with_several_names_has_the_addresses_of_all() -> None:
    def ask(name: str, _seconds: float) -> list[str]:
        if name == "gone":
            raise OSError("unknown")
        return {"nas": ["192.0.2.20", "2001:db8::20"], "nas6": ["2001:db8::21"]}[name]

    found, problems = hostnames.resolve_names(["nas,nas6", "gone,nas6", "gone", "192.0.2.9,gone"], 5, ask)
    assert found == {
        "nas,nas6": ("192.0.2.20", "2001:db8::20", "2001:db8::21"),
        "gone,nas6": ("2001:db8::21",),
        "gone": (),
        "192.0.2.9,gone": ("192.0.2.9",),
    }
    assert list(problems) == ["gone"]
