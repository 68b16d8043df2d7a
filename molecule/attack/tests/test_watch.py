# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-watch on mains: a secondary that sends requests and never reads, and an upsd that hangs."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

import pytest
from homelab import attack, verdict
from support import show_unit, wait_until

SITES = {"pve8": "media", "pve9": "truenas9"}
PATIENCE = 5.0
"""Seconds that upsmon waits for an answer (clients/upsclient.c), before a poll counts as failed."""

# polls like upsmon, on one connection; prints the longest time to an answer in seconds, and how many polls failed
ASK = """
import socket, sys, time
end, longest, lost = time.monotonic() + float(sys.argv[1]), 0.0, 0
connection = socket.create_connection(("127.0.0.1", 3493), timeout=60)
while time.monotonic() < end:
    asked = time.monotonic()
    try:
        connection.sendall(b"GET VAR ups ups.status\\n")
        lost += not connection.recv(200).startswith(b"VAR")
    except OSError:
        lost += 1
        connection = socket.create_connection(("127.0.0.1", 3493), timeout=60)
    longest = max(longest, time.monotonic() - asked)
    time.sleep(0.2)
print(longest, lost)
"""


def python_command(program: str, *words: str) -> str:
    return " ".join(map(shlex.quote, ("python3", "-c", program, *words)))


def read_load() -> float:
    """Return this machine's load average per processor."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("connections", [1, 8])
def test_upsd_answers_while_a_secondary_attacks(on: Any, site: str, connections: int) -> None:
    """No poll of a connected upsmon fails, and upsd is not restarted. Without nut-watch, upsd would not answer at all."""
    primary = on(site)
    pid = show_unit(primary, "nut-server")
    program = python_command(attack.__loader__.get_source(attack.__name__), site, "3493", "20", str(connections))  # type: ignore[union-attr]
    on(SITES[site]).check_output(f"{program} >/dev/null 2>&1 &")
    longest, lost = primary.check_output(python_command(ASK, "15")).split()
    assert float(longest) < PATIENCE + verdict.extra_time(read_load())
    assert int(lost) == 0
    assert show_unit(primary, "nut-server") == pid


@pytest.mark.parametrize("site", SITES)
def test_attacker_address_is_reported(on: Any, site: str) -> None:
    primary = on(site)
    address = on(SITES[site]).check_output("hostname -I").split()[0]
    events = json.loads(primary.check_output("nut-shutdown status --json"))["upsd"]
    assert address in {event["address"] for event in events}
    assert address in primary.check_output("nut-shutdown status")
    assert address in primary.check_output("journalctl --unit nut-watch --output cat")
    assert f"watch: {address}" in primary.file("/var/log/nut/shutdown.log").content_string


@pytest.mark.parametrize("site", SITES)
def test_hanging_upsd_is_restarted(on: Any, site: str) -> None:
    primary = on(site)
    pid = show_unit(primary, "nut-server")
    primary.check_output(f"kill -STOP {pid}")
    wait_until(
        lambda: show_unit(primary, "nut-server") not in (pid, "0"),
        30 + verdict.extra_time(read_load()),
        "upsd to be restarted",
    )
    wait_until(
        lambda: primary.run("upsc ups@localhost ups.status").stdout.split()[:1] == ["OL"], 30, "upsd to serve the UPS"
    )
    assert "Restarted it" in primary.check_output("journalctl --unit nut-watch --output cat")


@pytest.mark.parametrize("site", SITES)
def test_watch_runs_with_few_privileges(on: Any, site: str) -> None:
    output = on(site).check_output("systemd-analyze security nut-watch.service --no-pager | tail -1")
    assert float(output.split(":")[1].split()[0]) < 4
