# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is different with the newest NUT (Debian 14): its tables of UPSes, its drivers, and its upsmon. Only with TESTS=all."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from homelab import Lab
from homelab.podman import run_podman
from hotplug.primary import TIMER, HotplugPrimary, are_running, driver_unit
from support import NEWEST, read_status, wait_until
from testinfra.host import Host

UNIT = driver_unit("ups")
SECONDARIES = ("truenas14", "media14")

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def deployed(lab: Lab, on: Callable[[str], Host]) -> HotplugPrimary:
    """Return the primary."""
    (name,) = NEWEST
    primary = HotplugPrimary(lab, on(name), name, SECONDARIES, "apc", "eaton")
    primary.run_shell(f"systemctl stop {TIMER}")
    primary.remember_state()
    return primary


@pytest.fixture
def primary(lab: Lab, deployed: HotplugPrimary) -> Iterator[HotplugPrimary]:
    """Return the primary. At the end, check that every secondary is up and logged in."""
    deployed.prepare_test()
    yield deployed
    assert are_running(lab, SECONDARIES)
    wait_until(lambda: deployed.list_clients() == {*SECONDARIES}, 20, "the secondaries to be logged in")


def test_ups_of_another_make_takes_over_the_name(primary: HotplugPrimary) -> None:
    """Its driver alone is started anew. NUT's tables know an EcoFlow since 2.8.3."""
    before = primary.list_processes()
    for model, maker in (("eaton", "EATON"), ("ecoflow", "EcoFlow")):
        primary.swap_ups(model)
        primary.start_service()
        primary.wait_until_served(ups_mfr=maker)
    after = primary.list_processes()
    assert {unit: pid for unit, pid in after.items() if unit != UNIT} == {
        unit: pid for unit, pid in before.items() if unit != UNIT
    }


def test_driver_is_chosen_where_the_table_names_several(primary: HotplugPrimary) -> None:
    """NUT's table has blazer_usb and nutdrv_qx for it; nut-scanner is not asked."""
    primary.run_shell("cp -P /usr/bin/nut-scanner /root/; ln -sf /bin/false /usr/bin/nut-scanner")
    try:
        primary.control_ups("plug", "megatec", "--port", "2")
        primary.start_service()
        wait_until(lambda: "ups2" in primary.read_sections(), 30, "ups.conf to have the UPS")
        assert primary.read_sections()["ups2"]["driver"] == "nutdrv_qx"
        primary.wait_until_served("ups2")
    finally:
        primary.run_shell("mv /root/nut-scanner /usr/bin/nut-scanner")


def test_upsmons_survive_the_stand_in(primary: HotplugPrimary) -> None:
    """upsmon of 2.8.3 and later aborted when the UPS was back."""
    monitors = {name: _monitor_of(primary, name) for name in (primary.name, *SECONDARIES)}
    primary.change_policy(absent="dummy")
    for _round in range(2):
        primary.control_ups("unplug", "--port", "1")
        primary.run_service()
        wait_until(lambda: not primary.is_served(), 20, "its data to become stale")
        primary.run_service()
        primary.pass_time(40)
        primary.run_service()
        wait_until(lambda: read_status(primary.host) == ["wait", "wait"], 20, "upsd to serve the stand-in")
        # upsmon polls every five seconds
        wait_until(lambda: primary.list_clients() == {*SECONDARIES}, 20, "the secondaries to log in")
        primary.control_ups("replug", "--port", "1")
        primary.start_service()
        primary.wait_until_served(driver_name="usbhid-ups")
        wait_until(lambda: primary.list_clients() == {*SECONDARIES}, 20, "the secondaries to log in")
    assert monitors == {name: _monitor_of(primary, name) for name in monitors}


def _monitor_of(primary: HotplugPrimary, name: str) -> str:
    """Return the process ids of upsmon on a machine."""
    return run_podman("exec", primary.lab.container_name(name), "pgrep", "-x", "upsmon").stdout
