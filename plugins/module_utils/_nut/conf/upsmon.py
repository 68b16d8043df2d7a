# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""upsmon.conf as data: which UPSes are watched, and as whom."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import grammar
from .upsd import PORT


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


def read_monitors(upsmon_conf: str) -> tuple[Monitor, ...]:
    """Read the MONITOR lines of an upsmon.conf. As in NUT, the first one of a system counts."""
    found: dict[str, Monitor] = {}
    for line in grammar.parse_lines(upsmon_conf):
        if line.words[0] == "MONITOR" and len(line.words) >= 6 and line.words[2].isdigit():
            _unused, system, power, user, password, kind = line.words[:6]
            found.setdefault(system, Monitor(system, int(power), user, password, kind))
    return tuple(found.values())


def certificate_name(upsmon_conf: str, host: str) -> str:
    """Return the name under which upsmon checks the certificate of the upsd at HOST: CERTHOST's, else HOST itself.

    Empty if it does not check it.
    """
    found = [
        line.words[2:]
        for line in grammar.parse_lines(upsmon_conf)
        if line.words[:2] == ("CERTHOST", host) and len(line.words) == 5
    ]
    # upsmon takes the last
    name, verify = found[-1][:2] if found else (host, grammar.find_directive(upsmon_conf, "CERTVERIFY") or "0")
    return name if verify == "1" else ""
