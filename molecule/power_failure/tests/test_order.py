# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The order in which the machines went down, from their own times."""

from __future__ import annotations

import json

import pytest
from homelab import outage
from support import status, until

SECONDARIES = [("pve8", "truenas"), ("pve8", "media"), ("pve9", "truenas9")]


@pytest.fixture(scope="module")
def falls(lab):
    """Return what was seen: site -> host -> fall."""
    return {site: {fall.host: fall for fall in seen} for site, seen in outage.load(lab.state / "outage.json").items()}


@pytest.mark.parametrize(("site", "secondary"), SECONDARIES)
def test_the_secondary_was_down_before_the_primary_began(falls, site, secondary):
    """TrueNAS first, completely; then Proxmox."""
    assert falls[site][secondary].down is not None
    assert falls[site][site].began is not None
    assert falls[site][secondary].down < falls[site][site].began


@pytest.mark.parametrize(("site", "name", "seconds"), [("pve8", "truenas", 5), ("pve9", "truenas9", 60)])
def test_truenas_really_took_its_time(falls, site, name, seconds):
    """The lab's TrueNAS exports its pools for so long; a quick one alone would prove nothing."""
    assert seconds <= falls[site][name].down - falls[site][name].began < seconds + 10


@pytest.mark.parametrize("site", ["pve8", "pve9"])
def test_the_primary_did_not_wait_for_nothing(falls, site):
    """It sees that TrueNAS is down, however long that takes: silent for 3 s, and 3 s more. On a machine that tests at once: 12."""
    down = max(fall.down for fall in falls[site].values() if fall.role == "secondary")
    assert falls[site][site].began - down <= 12


@pytest.mark.parametrize("site", ["pve8", "pve9"])
def test_the_primary_went_down_by_itself_and_soon(falls, site):
    """NUT's poll, the secondaries' start, their shutdown, its own: half a minute is ample besides TrueNAS's own time."""
    assert falls[site][site].down is not None
    assert falls[site][site].down < {"pve8": 5, "pve9": 60}[site] + 40
    assert outage.problems(list(falls[site].values())) == []


@pytest.mark.parametrize("site", ["pve8", "pve9"])
def test_the_ups_cuts_the_power(lab, site):
    """The last thing a primary does. Else nothing would start when the mains return before the battery is empty."""
    until(lambda: not json.loads(lab.ups(site, "status", "--json"))["upses"][0]["outlets"], 60, "the outlets are off")


def test_all_comes_back_by_itself(lab, on):
    """The mains return: the machines start, and each secondary logs in, with nobody there and no play."""
    lab.up(lab.sites())
    for site, secondaries in {"pve8": 2, "pve9": 1}.items():
        until(lambda site=site: status(on(site))[:1] == ["OL"], 60, f"{site} serves its UPS")
        until(lambda site=site, count=secondaries: len(clients(on(site))) > count, 60, f"{site}: all logged in")
        assert on(site).run("test -e /run/nut/killpower").rc == 1


def clients(host) -> list[str]:
    """Return who is logged in."""
    return host.run("upsc -c ups@localhost 2>/dev/null").stdout.split()
