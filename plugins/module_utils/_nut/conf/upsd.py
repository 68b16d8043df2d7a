# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""upsd.conf and upsd.users as data: where upsd listens, and who may log in."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..base.hostnames import normal_address
from . import grammar

PRIMARY = ("primary", "master")
SECONDARY = ("secondary", "slave")
PORT = 3493
# Seconds after which upsd drops a silent client (server/upsd.c)
IDLE_SECONDS = 60

# LISTEN addresses that include loopback -> the address to query upsd at. upsd binds the first address of a name that it can,
# so with IPv6, localhost is ::1 (2.8.0, 2.8.1). Therefore upsd is queried at the name, not at 127.0.0.1.
_HERE = {
    "127.0.0.1": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",
    "*": "127.0.0.1",
    "localhost": "localhost",
    "::1": "::1",
    "::": "::1",
}


@dataclass(frozen=True)
class User:
    """A [user] of upsd.users."""

    name: str
    password: str
    type: str  # the word after upsmon, "" if there is none


def read_listen_lines(upsd_conf: str) -> list[tuple[str, int]]:
    """Return the address, as written, and port of each LISTEN line of an upsd.conf."""
    listen = [
        line.words[1:] for line in grammar.parse_lines(upsd_conf) if line.words[0] == "LISTEN" and len(line.words) > 1
    ]
    return [(words[0], int(words[1]) if len(words) > 1 and words[1].isdigit() else PORT) for words in listen]


def is_loopback(address: str) -> bool:
    """Return whether an address of LISTEN is a loopback address, which always exists."""
    return re.fullmatch(r"127\.[0-9.]+|::1|(ip6-)?localhost", address) is not None


def is_everywhere(address: str) -> bool:
    """Return whether an address of LISTEN means all addresses, at least of one family."""
    return address in ("0.0.0.0", "*", "::")


def is_listen(listen: tuple[str, int], place: tuple[str, int]) -> bool:
    """Return whether a LISTEN line asks for a socket with this address and port. For a name, any address will do."""
    (name, wanted_port), (address, port) = listen, place
    if port != wanted_port:
        return False
    if name == "*":
        return is_everywhere(address)
    if name == "localhost":
        return address in ("127.0.0.1", "::1")
    if re.fullmatch(r"[0-9.]+|.*:.*", name):
        # a socket for all IPv4 addresses does not cover IPv6
        return address == name if is_everywhere(name) else normal_address(address) == normal_address(name)
    return True


def own_addresses(upsd_conf: str) -> list[str]:
    """Return the LISTEN addresses that this host must have: without loopback, and those that mean all addresses."""
    addresses = [address for address, _unused in read_listen_lines(upsd_conf)]
    return [address for address in addresses if not is_everywhere(address) and not is_loopback(address)]


def is_reachable(upsd_conf: str) -> bool:
    """Return whether other hosts can reach upsd."""
    return any(not is_loopback(address) for address, _unused in read_listen_lines(upsd_conf))


def local_ports(upsd_conf: str) -> list[int]:
    """Return the ports of LISTEN lines that include loopback."""
    return [port for address, port in read_listen_lines(upsd_conf) if address in _HERE]


def local_upsd(upsd_conf: str) -> list[tuple[str, int]]:
    """Return where this host's upsd can be queried, the best place first. upsd may have failed to bind some of them."""
    places = [(_HERE.get(name, name), port) for name, port in read_listen_lines(upsd_conf)]
    return sorted(places, key=lambda place: place[0] not in _HERE) or [("localhost", PORT)]


def read_users(upsd_users: str) -> dict[str, User]:
    """Read upsd.users as upsd does (server/user.c): the first password of a user counts, and all its upsmon lines."""
    found: dict[str, User] = {}
    name = ""
    for line in grammar.parse_lines(upsd_users):
        first, *rest = line.words
        if first.startswith("[") and first.endswith("]"):
            # upsd ignores a repeated header, so the following lines belong to the previous user
            name = name if first[1:-1] in found else first[1:-1]
            found.setdefault(name, User(name, "", ""))
        elif name not in found:
            continue
        elif first.lower() == "password" and rest[:1] == ["="] and len(rest) > 1 and not found[name].password:
            found[name] = User(name, rest[1], found[name].type)
        elif first.lower() == "upsmon" and rest:
            # upsd also accepts a = before the word. A primary stays a primary
            kind = rest[1 if rest[0] == "=" and len(rest) > 1 else 0].lower()
            if kind in PRIMARY or (kind in SECONDARY and found[name].type not in PRIMARY):
                found[name] = User(name, found[name].password, kind)
    return found
