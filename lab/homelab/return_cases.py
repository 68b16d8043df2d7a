# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases of the way back: machines that stay off and are woken, and a battery that must be charged first."""

from __future__ import annotations

from .house import EACH_RELEASE, OWN_PORT, Case, House, Step
from .network_card import MAC_TEMPLATE
from .proxmox_cases import CYCLE, LOCAL_VM, REPAIR
from .steps import (
    OUT,
    OUTAGE,
    control_ups,
    set_quietly,
    set_up_guests,
    switch_mains,
    wait_for,
    wait_seconds,
    wait_until,
)
from .verdict import WOKEN, Expectation, not_before, woken

WAKE = {"nut_client_wake": {"mac": MAC_TEMPLATE}}
CHARGE = {**WAKE, "nut_server_return": {"charge": 50}}
CHARGED = "the battery has 60 %"


def enable_wake(*stay_off: str) -> Step:
    """Enable Wake-on-LAN. stay_off: machines that do not start when they get power."""

    def run_step(house: House) -> None:
        house.enable_wake([house.resolve_name(who) for who in stay_off])

    return run_step


def cut_off_secondaries() -> Step:
    """Cut the network of all secondaries, so that each shuts down by itself."""

    def run_step(house: House) -> None:
        for name in house.secondaries:
            house.note_event(f"{name}: network down")
            house.run_script(name, "ip link set eth0 down", privileged=True)

    return run_step


def await_all_back(seconds: float = 150) -> Step:
    """Wait until nut-shutdown says that all are back. During an outage it says nothing about the one before."""
    return wait_until(
        "primary", "all are back", "nut-shutdown status | grep -q 'after the last outage: all back after'", seconds
    )


def set_charge(words: str, charge: int) -> Step:
    """Set the charge of the battery."""
    return control_ups(words, "set", values={"charge": charge})


CASES: tuple[Case, ...] = (
    Case(
        "return-alone",
        "The secondaries lose their network on battery, and shut down by themselves; the mains return, and they are woken",
        (
            *(enable_wake(), *OUT, cut_off_secondaries(), wait_for("secondaries down", 90), switch_mains(True)),
            await_all_back(),
        ),
        Expectation("secondaries", checks=(woken(),)),
        EACH_RELEASE,
        variables=WAKE,
    ),
    Case(
        "return-off",
        "TrueNAS stays off when the power returns, and is woken",
        (enable_wake("nas"), *OUTAGE, *CYCLE[len(OUTAGE) : -1], wait_for("all run", 120), await_all_back()),
        Expectation(checks=(woken("nas"),)),
        EACH_RELEASE,
        variables=WAKE,
    ),
    Case(
        "return-charge",
        "The battery must have 50 % before guests start and TrueNAS is woken; a second cut comes before it has",
        (
            *(enable_wake("nas"), set_up_guests("guest 102", LOCAL_VM), *OUTAGE, *CYCLE[len(OUTAGE) : -2]),
            set_charge("the battery has 20 %", 20),
            control_ups("the UPS skips its delay", "hurry"),
            wait_until("primary", "upsd serves the UPS", "upsc ups@localhost ups.status | grep -q '^OL'"),
            *(wait_seconds(45), switch_mains(False), wait_seconds(10), switch_mains(True), wait_seconds(45)),
            *(set_charge(CHARGED, 60), wait_for("all run", 120)),
            wait_until("primary", "guest 102 runs", "qm status 102 | grep -q running", 90),
            await_all_back(),
        ),
        Expectation(max_wait=None, checks=(woken("nas"), not_before(CHARGED, "102", WOKEN))),
        EACH_RELEASE,
        repairs=(*REPAIR, set_quietly(OWN_PORT, charge=100)),
        variables=CHARGE,
    ),
)
