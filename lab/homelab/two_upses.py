# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases in which Proxmox has two UPSes: either is enough for it, or it needs both, or one powers other machines only."""

from __future__ import annotations

from .house import EACH_RELEASE, OWN_PORT, SECOND_PORT, Case
from .steps import (
    OUT,
    control_ups,
    empty_battery,
    plug_in_again,
    run_on,
    set_battery_low,
    set_quietly,
    switch_mains,
    wait_for,
    wait_seconds,
)
from .verdict import STAYS, Expectation, begins_within, nas_takes

AT_ONCE = 12 + 15  # seconds from the low battery to the first machine's shutdown: polls, FINALDELAY and a busy machine
BY_STAGE = AT_ONCE + 20  # if nut-stages begins it, after 15 s of LB

# Two UPSes. The secondaries are on the first one
OWN_LOW, SECOND_LOW = "ups: battery low", "second: battery low"
PULL_SECOND = control_ups("second: USB cable unplugged", "unplug", port=SECOND_PORT)
PLUG_SECOND = control_ups("second: USB cable plugged in", "replug", port=SECOND_PORT)
STOP_SECOND_DRIVER = run_on("primary", "driver of second stopped", "systemctl kill --signal=STOP nut-driver@second")
SECOND_OUT = (switch_mains(False, SECOND_PORT), wait_seconds(6), set_battery_low(SECOND_PORT))


def make_site_variables(second: int, minsupplies: int, **more: object) -> dict[str, object]:
    """Return the variables of a site with two UPSes. second: powervalue of the second one."""
    return {
        "nut_server_devices": [
            {"name": "ups", "driver": "auto", "powervalue": 1},
            {"name": "second", "vendorid": "0463", "powervalue": second},
        ],
        "nut_server_upsmon_conf": {"MINSUPPLIES": minsupplies},
        "nut_client_ups": "ups",
        # otherwise nut-hotplug could name the second UPS before it is declared
        "nut_hotplug_default_name": "",
        **more,
    }


SPARE = make_site_variables(1, 1)
NEEDED = make_site_variables(1, 2)
# a stage that the first UPS never reaches, because its battery is full until it is low
ROUTER = make_site_variables(0, 1, nut_server_stages=[{"name": "early", "charge": 50, "fsd": True}])

CASES: tuple[Case, ...] = (
    # two UPSes, each of which is enough for Proxmox
    Case(
        "two-spare-low",
        "Two UPSes, either is enough: one becomes low, and the one that powers the secondaries is on mains",
        (*SECOND_OUT, wait_seconds(35), switch_mains(True, SECOND_PORT)),
        STAYS,
        EACH_RELEASE,
        variables=SPARE,
        second_ups="spare",
    ),
    Case(
        "two-own-low",
        "Two UPSes, either is enough: the one that powers the secondaries runs empty, and the other is on mains",
        (
            *(switch_mains(False, OWN_PORT), wait_seconds(6), set_battery_low(OWN_PORT)),
            *(wait_for("secondaries down"), empty_battery(OWN_PORT), wait_seconds(2), switch_mains(True, OWN_PORT)),
            control_ups("the UPS skips its delay", "hurry", port=OWN_PORT),
        ),
        Expectation("secondaries"),
        EACH_RELEASE,
        variables=SPARE,
        second_ups="spare",
    ),
    Case(
        "two-both-low",
        "Two UPSes, either is enough: one becomes low, and the other 20 s later",
        (*OUT, set_battery_low(SECOND_PORT), wait_seconds(20), set_battery_low(OWN_PORT)),
        Expectation(checks=(begins_within(AT_ONCE, OWN_LOW),)),
        EACH_RELEASE,
        variables=SPARE,
        second_ups="spare",
    ),
    Case(
        "two-lost",
        "Two UPSes, either is enough: one is unplugged from USB on mains, and the other becomes low in a power cut",
        (
            *(PULL_SECOND, wait_seconds(20), *OUT, set_battery_low(OWN_PORT)),
            *(wait_for("all down", 180), PLUG_SECOND, empty_battery()),
        ),
        # upsmon takes the lost one to be on mains for ever; nut-stages does not
        Expectation(checks=(begins_within(BY_STAGE, OWN_LOW),)),
        EACH_RELEASE,
        repairs=(plug_in_again(),),
        variables=SPARE,
        second_ups="spare",
    ),
    Case(
        "two-hangs",
        "Two UPSes, either is enough: the driver of one hangs before a power cut, and the other becomes low in it",
        (STOP_SECOND_DRIVER, wait_seconds(20), *OUT, set_battery_low(OWN_PORT)),
        Expectation(checks=(begins_within(BY_STAGE, OWN_LOW),)),
        EACH_RELEASE,
        ci_site="pve9",
        variables=SPARE,
        second_ups="spare",
    ),
    Case(
        "two-lost-battery",
        "Two UPSes, either is enough: one is unplugged from USB on battery, and the other becomes low 20 s later",
        (
            *(*OUT, PULL_SECOND, wait_seconds(20), set_battery_low(OWN_PORT)),
            *(wait_for("all down", 180), PLUG_SECOND, empty_battery()),
        ),
        Expectation(checks=(begins_within(AT_ONCE, OWN_LOW),)),
        EACH_RELEASE,
        repairs=(plug_in_again(),),
        variables=SPARE,
        second_ups="spare",
    ),
    # two UPSes, one of which powers a router only
    Case(
        "two-router-low",
        "A router's UPS becomes low, and Proxmox VE's own UPS is on mains",
        (*SECOND_OUT, wait_seconds(40), switch_mains(True, SECOND_PORT)),
        STAYS,
        EACH_RELEASE,
        variables=ROUTER,
        second_ups="router",
    ),
    Case(
        "two-router-first",
        "A router's UPS becomes low with 20 s left, and Proxmox VE's own UPS 25 s later",
        (
            *(*OUT, set_battery_low(SECOND_PORT)),
            control_ups("second: 20 s left", "set", port=SECOND_PORT, values={"runtime": 20}),
            *(wait_seconds(25), set_battery_low(OWN_PORT)),
        ),
        Expectation(checks=(begins_within(AT_ONCE, OWN_LOW), nas_takes(12))),
        EACH_RELEASE,
        nas_seconds=12,
        repairs=(set_quietly(SECOND_PORT, runtime=2400),),
        variables=ROUTER,
        second_ups="router",
    ),
    # two UPSes, both of which Proxmox needs
    Case(
        "two-needed",
        "Two UPSes, and Proxmox VE needs both: one becomes low, and the one that powers the secondaries is on mains",
        SECOND_OUT,
        Expectation(checks=(begins_within(AT_ONCE, SECOND_LOW),)),
        EACH_RELEASE,
        variables=NEEDED,
        second_ups="needed",
    ),
)
