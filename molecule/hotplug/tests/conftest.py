# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What this scenario's tests share: both primaries, at once, each with one UPS that is served."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from homelab import Lab
from hotplug.primary import TIMER, Primary, still_up
from testinfra.host import Host

Case = Callable[[Primary], object]
SECONDARIES = ("truenas", "media", "truenas9")


@pytest.fixture(scope="session")
def inventory() -> Path:
    """Return the inventory of this scenario."""
    return Path(__file__).resolve().parents[1] / "inventory"


@pytest.fixture(scope="session")
def primaries(lab: Lab, on: Callable[[str], Host]) -> list[Primary]:
    """Return the primaries: NUT 2.8.0 with a UPS that has a serial number, NUT 2.8.1 with one that has none."""
    found = [
        Primary(lab, on("pve8"), "pve8", ("truenas", "media"), "apc", "cps"),
        Primary(lab, on("pve9"), "pve9", ("truenas9",), "cps", "apc"),
    ]
    for one in found:
        one.sh(f"systemctl stop {TIMER}")
        one.remember()
    return found


def at_once(primaries: list[Primary], case: Case) -> None:
    """Do the same at each primary. Raises the first error."""
    with concurrent.futures.ThreadPoolExecutor(len(primaries)) as pool:
        for done in [pool.submit(case, one) for one in primaries]:
            done.result()


@pytest.fixture
def both(lab: Lab, primaries: list[Primary]) -> Iterator[Callable[[Case], None]]:
    """Return a function that tries a case at both primaries. Whatever it does, no secondary is shut down or logged out."""
    at_once(primaries, Primary.prepare)
    yield lambda case: at_once(primaries, case)
    assert still_up(lab, SECONDARIES)
    assert all(one.clients() == {*one.secondaries} for one in primaries)
