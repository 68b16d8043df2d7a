# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""upsmon.conf as data: the UPSes that upsmon monitors, and its logins."""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import grammar
from .upsd import PORT


@dataclass(frozen=True)
class Monitor:
    """A MONITOR line."""

    system: str  # ups@host[:port]
    power: int
    user: str
    password: str
    type: str

    @property
    def ups(self) -> str:
        """The name of the UPS."""
        return self.system.partition("@")[0]

    @property
    def host(self) -> str:
        """The host that serves the UPS; an IPv6 address without brackets."""
        return self._host_and_port[0]

    @property
    def port(self) -> int:
        """The port of that host's upsd; 0 if it is not a valid port."""
        return self._host_and_port[1]

    @property
    def _host_and_port(self) -> tuple[str, int]:
        where = self.system.partition("@")[2] or "localhost"
        if where.startswith("["):
            host, _unused, rest = where[1:].partition("]")
            port = rest.lstrip(":")
        else:
            host, _unused, port = where.partition(":")
        return host, (int(port) if re.fullmatch("[0-9]{1,5}", port) else 0) if port else PORT


def read_monitors(upsmon_conf: str) -> tuple[Monitor, ...]:
    """Read the MONITOR lines of an upsmon.conf. As in NUT, the first line for a system counts."""
    found: dict[str, Monitor] = {}
    for line in grammar.parse_lines(upsmon_conf):
        if line.words[0] == "MONITOR" and len(line.words) >= 6 and line.words[2].isdigit():
            _unused, system, power, user, password, kind = line.words[:6]
            found.setdefault(system, Monitor(system, int(power), user, password, kind))
    return tuple(found.values())


def certificate_name(upsmon_conf: str, host: str) -> str:
    """Return the name that the certificate of the upsd at HOST must have: that of CERTHOST, otherwise HOST.

    "" if upsmon does not verify the certificate.
    """
    found = [
        line.words[2:]
        for line in grammar.parse_lines(upsmon_conf)
        if line.words[:2] == ("CERTHOST", host) and len(line.words) == 5
    ]
    # the last one counts
    name, verify = found[-1][:2] if found else (host, grammar.find_directive(upsmon_conf, "CERTVERIFY") or "0")
    return name if verify == "1" else ""
