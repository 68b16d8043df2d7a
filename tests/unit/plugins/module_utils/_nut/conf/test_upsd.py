# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import upsd
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.upsd import User

USERS: dict[str, tuple[str, dict[str, User]]] = {
    "both types": (
        '[monitor]\n  password = "a b"\n  upsmon primary\n\n[media]\n  password = s\n  upsmon secondary\n',
        {"monitor": User("monitor", "a b", "primary"), "media": User("media", "s", "secondary")},
    ),
    "in any case": ("[x]\nPassWord = a\nUPSMON master\n", {"x": User("x", "a", "master")}),
    "with =": ("[x]\npassword=a\nupsmon = slave\n", {"x": User("x", "a", "slave")}),
    "the first password counts": ("[x]\npassword = a\npassword = b\n", {"x": User("x", "a", "")}),
    "the first password of two sections": (
        "[x]\npassword = a\n[y]\n[x]\npassword = b\nupsmon primary\n",
        {"x": User("x", "a", ""), "y": User("y", "b", "primary")},
    ),
    "case of names": ("[x]\npassword = a\n[X]\npassword = b\n", {"x": User("x", "a", ""), "X": User("X", "b", "")}),
    "password without a section": ("password = a\nupsmon primary\n", {}),
    "password without =": ("[x]\npassword a\n", {"x": User("x", "", "")}),
    "a broken header": ("[x]\n[y\npassword = a\n", {"x": User("x", "a", "")}),
    "other rights": ("[x]\nactions = SET\ninstcmds = ALL\n", {"x": User("x", "", "")}),
    "nothing": ("# [x]\n", {}),
}  # fmt: skip


@pytest.mark.parametrize(("text", "users"), USERS.values(), ids=USERS.keys())
def test_users_are_read(text: str, users: dict[str, User]) -> None:
    assert upsd.read_users(text) == users


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", [("localhost", 3493)]),
        ("LISTEN 0.0.0.0\n", [("127.0.0.1", 3493)]),
        ("LISTEN 0.0.0.0 4000\n", [("127.0.0.1", 4000)]),
        ("LISTEN * 4000\n", [("127.0.0.1", 4000)]),
        ("LISTEN 192.0.2.1 4000\nLISTEN 127.0.0.1 5000\n", [("127.0.0.1", 5000), ("192.0.2.1", 4000)]),
        ("LISTEN :: 4000\n", [("::1", 4000)]),
        # upsd binds the first possible address of a name, which may be ::1
        ("LISTEN localhost 4001\n", [("localhost", 4001)]),
        ("LISTEN 192.0.2.1 4000\nLISTEN 192.0.2.2 5000\n", [("192.0.2.1", 4000), ("192.0.2.2", 5000)]),
    ],
)
def test_local_addresses_of_upsd_come_first(text: str, places: list[tuple[str, int]]) -> None:
    assert upsd.local_upsd(text) == places


@pytest.mark.parametrize(
    ("listen", "sockets"),
    [
        ("localhost", ["127.0.0.1", "::1"]),
        ("*", ["0.0.0.0", "::"]),
        ("0.0.0.0", ["0.0.0.0"]),
        ("::", ["::"]),
        ("192.0.2.1", ["192.0.2.1"]),
        ("2001:DB8:0::1", ["2001:db8::1"]),
        ("pve.lan", ["127.0.0.1", "::1", "0.0.0.0", "::", "192.0.2.1", "2001:db8::1"]),
    ],
)
def test_listen_line_matches_only_own_sockets(listen: str, sockets: list[str]) -> None:
    addresses = ["127.0.0.1", "::1", "0.0.0.0", "::", "192.0.2.1", "2001:db8::1"]
    assert [address for address in addresses if upsd.is_listen((listen, 3493), (address, 3493))] == sockets
    assert not any(upsd.is_listen((listen, 3493), (address, 3494)) for address in addresses)


def test_local_ports_are_those_on_loopback() -> None:
    assert upsd.local_ports("LISTEN 127.0.0.1 1\nLISTEN * 2\nLISTEN 192.0.2.1 3\nLISTEN localhost\n") == [1, 2, 3493]
    assert upsd.local_ports("") == []
