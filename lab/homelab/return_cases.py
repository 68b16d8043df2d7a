# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases of the way back: machines that are late, stay off or are woken, and a battery that must be charged first."""

from __future__ import annotations

import shlex

from .house import EACH_RELEASE, OWN_PORT, Case, House, Step
from .network_card import MAC_TEMPLATE
from .proxmox_cases import CYCLE, LOCAL_VM, NAS_CT, NAS_VM, REPAIR
from .steps import (
    OUT,
    boot_machine,
    control_ups,
    set_quietly,
    set_up_guests,
    switch_mains,
    wait_for,
    wait_seconds,
    wait_until,
)
from .verdict import LATE, PLUGGED_IN, WOKEN, Expectation, guests_back, guests_clean, not_before, woken

WAKE = {"nut_client_wake": {"mac": MAC_TEMPLATE}}
CHARGE = {**WAKE, "nut_server_return": {"charge": 50}}
CHARGED = "the battery has 60 %"
LIMIT = {**WAKE, "nut_server_return": {"limit": 60}}
CUT = CYCLE[:-1]
"""A whole power cut, until the UPS restores the power, without machines that stay off."""
GUESTS = set_up_guests("guests 101, 102 and 201", NAS_VM, LOCAL_VM, NAS_CT)


def enable_wake(*stay_off: str, is_deaf: bool = False) -> Step:
    """Enable Wake-on-LAN. stay_off: machines that do not start when they get power. is_deaf: nor when they are woken."""

    def run_step(house: House) -> None:
        house.enable_wake([house.resolve_name(who) for who in stay_off], is_deaf=is_deaf)

    return run_step


def cut_off_secondaries() -> Step:
    """Cut the network of all secondaries, so that each shuts down by itself."""

    def run_step(house: House) -> None:
        for name in house.secondaries:
            house.note_event(f"{name}: network down")
            house.run_script(name, "ip link set eth0 down", privileged=True)

    return run_step


def await_status(words: str, pattern: str, seconds: float = 150) -> Step:
    """Wait until a line of nut-shutdown's status has this extended regular expression."""
    return wait_until("primary", words, f"nut-shutdown status | grep -qE {shlex.quote(pattern)}", seconds)


def await_all_back(seconds: float = 150) -> Step:
    """Wait until nut-shutdown says that all are back. During an outage it says nothing about the one before."""
    return await_status("all are back", "after the last outage: all back after", seconds)


def set_charge(words: str, charge: int) -> Step:
    """Set the charge of the battery."""
    return control_ups(words, "set", values={"charge": charge})


def expect_guests_after(event: str) -> Expectation:
    """Return that all guests come back, those with disks on TrueNAS (101 and 201) not before an event. event: how it ends."""
    checks = (guests_clean(101, 102, 201), guests_back(101, 102, 201), not_before(event, "101", "201"))
    return Expectation(max_wait=None, checks=checks)


def make_late_case(seconds: float) -> Case:
    """Return the case of a TrueNAS that boots so many seconds after it has got power."""
    return Case(
        f"return-nas-{seconds:g}",
        f"TrueNAS boots {seconds:g} s after it has got power, and guests 101 and 201 are on its storage",
        (GUESTS, *CUT, wait_for("all run", seconds + 120), await_all_back(240)),
        expect_guests_after(LATE),
        EACH_RELEASE,
        nas_late=seconds,
        repairs=REPAIR,
    )


CASES: tuple[Case, ...] = (
    *(make_late_case(seconds) for seconds in (5, 60, 300)),
    Case(
        "return-alone",
        "The secondaries lose their network on battery, and shut down by themselves; the mains return, and they are woken",
        (
            # each has heard of the outage
            *(enable_wake(), *OUT, wait_seconds(8)),
            *(cut_off_secondaries(), wait_for("secondaries down", 90), switch_mains(True)),
            await_all_back(),
        ),
        Expectation("secondaries", checks=(woken(),)),
        # with NUT 2.8.0 they stay up
        ("pve9", "pve14"),
        variables=WAKE,
    ),
    Case(
        "return-off",
        "TrueNAS stays off when the power returns, and is woken",
        (enable_wake("nas"), *CUT, wait_for("all run", 120), await_all_back()),
        Expectation(checks=(woken("nas"),)),
        EACH_RELEASE,
        variables=WAKE,
    ),
    Case(
        "return-twice",
        "TrueNAS stays off when the power returns, and a second cut comes before it is up; after that one it is woken",
        (
            *(enable_wake("nas", is_deaf=True), *CUT),
            # the others are back
            await_status("TrueNAS is awaited", "waiting for truenas[0-9]*( [(]woken [^)]*[)])?, for"),
            *(*CUT, enable_wake("nas"), wait_for("all run", 120), await_all_back()),
        ),
        Expectation(max_wait=None, checks=(woken("nas"),)),
        EACH_RELEASE,
        variables=WAKE,
    ),
    Case(
        "return-never",
        "TrueNAS stays off when the power returns, and nothing wakes it; it is missing until someone switches it on",
        (
            *(GUESTS, enable_wake("nas", is_deaf=True), *CUT),
            await_status(
                "TrueNAS is missing", "after the last outage: not back after .*: truenas[0-9]* [(]woken .*", 240
            ),
            *(boot_machine("nas"), wait_for("all run"), await_all_back()),
        ),
        expect_guests_after(PLUGGED_IN),
        EACH_RELEASE,
        repairs=REPAIR,
        variables=LIMIT,
    ),
    Case(
        "return-charge",
        "The battery must have 50 % before guests start and TrueNAS is woken; a second cut comes before it has",
        (
            *(enable_wake("nas"), set_up_guests("guest 102", LOCAL_VM), *CUT[:-1]),
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
