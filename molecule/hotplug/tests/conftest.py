# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fixtures that this scenario's tests share: both primaries, each with one UPS that upsd serves."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from homelab import Lab
from hotplug.primary import TIMER, HotplugPrimary, are_running
from testinfra.host import Host

Case = Callable[[HotplugPrimary], object]
SECONDARIES = ("truenas", "media", "truenas9")


@pytest.fixture(scope="session")
def inventory() -> Path:
    """Return the inventory of this scenario."""
    return Path(__file__).resolve().parents[1] / "inventory"


@pytest.fixture(scope="session")
def primaries(lab: Lab, on: Callable[[str], Host]) -> list[HotplugPrimary]:
    """Return the primaries: NUT 2.8.0 with a UPS that has a serial number, and NUT 2.8.1 with a UPS that has none."""
    found = [
        HotplugPrimary(lab, on("pve8"), "pve8", ("truenas", "media"), "apc", "cps"),
        HotplugPrimary(lab, on("pve9"), "pve9", ("truenas9",), "cps", "apc"),
    ]
    for primary in found:
        primary.run_shell(f"systemctl stop {TIMER}")
        primary.remember_state()
    return found


def run_in_parallel(primaries: list[HotplugPrimary], case: Case) -> None:
    """Run a case on each primary. Raise the first error."""
    with concurrent.futures.ThreadPoolExecutor(len(primaries)) as pool:
        for done in [pool.submit(case, primary) for primary in primaries]:
            done.result()


@pytest.fixture
def run_on_both(lab: Lab, primaries: list[HotplugPrimary]) -> Iterator[Callable[[Case], None]]:
    """Return a function that runs a case on both primaries. At the end, check that every secondary is up and logged in."""
    run_in_parallel(primaries, HotplugPrimary.prepare_test)
    yield lambda case: run_in_parallel(primaries, case)
    assert are_running(lab, SECONDARIES)
    assert all(primary.list_clients() == {*primary.secondaries} for primary in primaries)
