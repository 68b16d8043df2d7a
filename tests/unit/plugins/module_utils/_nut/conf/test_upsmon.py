# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar, upsmon
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.upsmon import Monitor


@pytest.mark.parametrize(
    ("system", "ups", "host", "port"),
    [
        ("ups@localhost", "ups", "localhost", 3493),
        ("ups@192.0.2.1:1234", "ups", "192.0.2.1", 1234),
        ("ups", "ups", "localhost", 3493),
        ("ups@", "ups", "localhost", 3493),
        ("ups@pve:", "ups", "pve", 3493),
        ("ups@[2001:db8::1]", "ups", "2001:db8::1", 3493),
        ("ups@[2001:db8::1]:1234", "ups", "2001:db8::1", 1234),
        ("ups@[::1]:", "ups", "::1", 3493),
        # the old file of a host may have anything: no port, but no exception
        ("ups@pve:nut", "ups", "pve", 0),
        ("ups@pve:-1", "ups", "pve", 0),
        ("ups@pve:\u0663", "ups", "pve", 0),
        ("ups@::1", "ups", "", 0),
        ("ups@[::1]:x", "ups", "::1", 0),
    ],
)
def test_system_is_split_into_ups_host_and_port(system: str, ups: str, host: str, port: int) -> None:
    monitor = Monitor(system, 1, "u", "p", "secondary")
    assert (monitor.ups, monitor.host, monitor.port) == (ups, host, port)


UPSMON = """\
# MONITOR ups@commented 1 a b primary
MONITOR ups@localhost 1 monitor "se cret" primary  # as shipped
  MONITOR "spare@192.0.2.1" 0 media \\#1 slave
MONITOR half@localhost 1 monitor
MONITOR nopower@localhost x monitor secret primary
monitor lower@localhost 1 monitor secret primary
NOTMONITOR a b c d e
MINSUPPLIES 2
MINSUPPLIES 3
SHUTDOWNCMD "/sbin/shutdown -h +0"
EMPTY
"""


def test_monitor_lines_are_read() -> None:
    assert upsmon.read_monitors(UPSMON) == (
        Monitor("ups@localhost", 1, "monitor", "se cret", "primary"),
        Monitor("spare@192.0.2.1", 0, "media", "#1", "slave"),
    )
    assert upsmon.read_monitors("") == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [("MINSUPPLIES", "3"), ("SHUTDOWNCMD", "/sbin/shutdown -h +0"), ("EMPTY", None), ("minsupplies", None), ("NIX", None)],
)  # fmt: skip
def test_last_value_of_a_directive_is_read(name: str, value: str | None) -> None:
    assert grammar.find_directive(UPSMON, name) == value


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", ""),
        ("CERTVERIFY 0\n", ""),
        ("CERTVERIFY 1\n", "pve"),
        ("CERTVERIFY 1\nCERTHOST other o 0 0\n", "pve"),
        ("CERTVERIFY 1\nCERTHOST pve name 1 1\n", "name"),
        ("CERTVERIFY 1\nCERTHOST pve name 0 1\n", ""),
        ("CERTHOST pve a 0 0\nCERTHOST pve b 1 1\n", "b"),
    ],
)
def test_certificate_name_is_read_from_certhost(text: str, name: str) -> None:
    assert upsmon.certificate_name(text, "pve") == name
