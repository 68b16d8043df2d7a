# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""upsmon.conf, upsd.users and where upsd listens, as data: who watches which UPS, and who may."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import grammar

PRIMARY = ("primary", "master")
SECONDARY = ("secondary", "slave")
PORT = 3493
# Seconds after which upsd drops a silent client (server/upsd.c)
IDLE_SECONDS = 60
# What LISTEN may say for an upsd that its own host reaches by a loopback address
LOOPBACK = ("127.0.0.1", "localhost", "0.0.0.0", "*")
LOOPBACK_6 = ("::1", "::")


@dataclass(frozen=True)
class Monitor:
    """One MONITOR line. system is NUT's own form: ups@host[:port]."""

    system: str
    power: int
    user: str
    password: str
    type: str

    @property
    def ups(self) -> str:
        """The UPS's name."""
        return self.system.partition("@")[0]

    @property
    def host(self) -> str:
        """The host that serves it; an IPv6 address without its brackets."""
        return self._address[0]

    @property
    def port(self) -> int:
        """The port that upsd listens on there; 0 if what is written there is no port."""
        return self._address[1]

    @property
    def _address(self) -> tuple[str, int]:
        where = self.system.partition("@")[2] or "localhost"
        if where.startswith("["):
            host, _unused, rest = where[1:].partition("]")
            port = rest.lstrip(":")
        else:
            host, _unused, port = where.partition(":")
        return host, (int(port) if re.fullmatch("[0-9]{1,5}", port) else 0) if port else PORT


@dataclass(frozen=True)
class User:
    """One [user] of upsd.users, as far as a check needs it. type is the word behind upsmon, "" if there is none."""

    name: str
    password: str
    type: str


def monitors(upsmon_conf: str) -> tuple[Monitor, ...]:
    """Read the MONITOR lines of an upsmon.conf. As in NUT, the first one of a system counts."""
    found: dict[str, Monitor] = {}
    for line in grammar.parse(upsmon_conf):
        if line.words[0] == "MONITOR" and len(line.words) >= 6 and line.words[2].isdigit():
            _unused, system, power, user, password, kind = line.words[:6]
            found.setdefault(system, Monitor(system, int(power), user, password, kind))
    return tuple(found.values())


def listening(upsd_conf: str) -> list[tuple[str, int]]:
    """Read the LISTEN lines of an upsd.conf: address, as it is written, and port."""
    listen = [line.words[1:] for line in grammar.parse(upsd_conf) if line.words[0] == "LISTEN" and len(line.words) > 1]
    return [(words[0], int(words[1]) if len(words) > 1 and words[1].isdigit() else PORT) for words in listen]


def is_loopback(address: str) -> bool:
    """Return whether an address of LISTEN is one of the loopback interface, which is always there."""
    return re.fullmatch(r"127\.[0-9.]+|::1|(ip6-)?localhost", address) is not None


def own_addresses(upsd_conf: str) -> list[str]:
    """Return the addresses of LISTEN that this host must have for itself: neither all of them, nor loopback."""
    every = (*LOOPBACK, *LOOPBACK_6)
    return [address for address, _unused in listening(upsd_conf) if address not in every and not is_loopback(address)]


def is_reachable(upsd_conf: str) -> bool:
    """Return whether upsd listens for more than its own host."""
    return any(not is_loopback(address) for address, _unused in listening(upsd_conf))


def directive(text: str, name: str) -> str | None:
    """Return the value of a directive of upsmon.conf or upsd.conf, None if it is not there. As in NUT, the last counts."""
    values = [line.words[1] for line in grammar.parse(text) if line.words[0] == name and len(line.words) > 1]
    return values[-1] if values else None


def certificate_name(upsmon_conf: str, host: str) -> str:
    """Say under which name upsmon checks the certificate of the upsd at HOST: CERTHOST's, else HOST itself.

    Empty if it does not check it.
    """
    found = [
        line.words[2:]
        for line in grammar.parse(upsmon_conf)
        if line.words[:2] == ("CERTHOST", host) and len(line.words) == 5
    ]
    # upsmon takes the last
    name, verify = found[-1][:2] if found else (host, directive(upsmon_conf, "CERTVERIFY") or "0")
    return name if verify == "1" else ""


def users(upsd_users: str) -> dict[str, User]:
    """Read upsd.users as upsd does (server/user.c): the first password of a user counts, and all that upsmon gives it."""
    found: dict[str, User] = {}
    name = ""
    for line in grammar.parse(upsd_users):
        first, *rest = line.words
        if first.startswith("[") and first.endswith("]"):
            # upsd ignores the header of a user that it has: what follows still belongs to the one before
            name = name if first[1:-1] in found else first[1:-1]
            found.setdefault(name, User(name, "", ""))
        elif name not in found:
            continue
        elif first.lower() == "password" and rest[:1] == ["="] and len(rest) > 1 and not found[name].password:
            found[name] = User(name, rest[1], found[name].type)
        elif first.lower() == "upsmon" and rest:
            # upsd takes a = before it, too. Who is a primary stays one
            kind = rest[1 if rest[0] == "=" and len(rest) > 1 else 0].lower()
            if kind in PRIMARY or (kind in SECONDARY and found[name].type not in PRIMARY):
                found[name] = User(name, found[name].password, kind)
    return found


# Of a name's addresses upsd takes the first that it can have: of localhost ::1, where there is IPv6 (2.8.0, 2.8.1). So it
# is asked by the name, too, and not by 127.0.0.1.
_HERE = {
    "127.0.0.1": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",
    "*": "127.0.0.1",
    "localhost": "localhost",
    "::1": "::1",
    "::": "::1",
}


def local_upsd(upsd_conf: str) -> list[tuple[str, int]]:
    """Return where this host's upsd can be asked, by its LISTEN lines; the best place first. NUT may not have had them all."""
    places = [(_HERE.get(name, name), port) for name, port in listening(upsd_conf)]
    return sorted(places, key=lambda place: place[0] not in _HERE) or [("localhost", PORT)]
