# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases in which Proxmox VE itself is in trouble: it is still starting its guests, has no quorum or HA, or its guests hang.

A minute of real life is some seconds here, where the collection waits for what happens and not for a time of its own.
"""

from __future__ import annotations

from .house import Case, Step
from .steps import (
    control_ups,
    reboot_machine,
    run_on,
    run_quietly,
    set_battery_low,
    set_up_guests,
    switch_mains,
    wait_for,
    wait_seconds,
    wait_until,
)
from .verdict import Expectation, guests_again, guests_back, guests_clean, guests_first

EACH_RELEASE = ("pve8", "pve9")
OUT = (switch_mains(False), wait_seconds(6))
OUTAGE = (*OUT, set_battery_low())
REPAIR = (run_quietly("primary", "lab-pve remove", privileged=True),)
NAS_VM, LOCAL_VM, NAS_CT = "101=qm,storage=nas,seconds=4", "102=qm,seconds=3", "201=pct,storage=nas,seconds=2"

SITE_NAS = "{{ 'truenas9' if inventory_hostname == 'pve9' else 'truenas' }}"
STAGE = {"name": "nas", "on_battery": 5, "storage_of": [SITE_NAS]}
STAGED = {"nut_server_stages": [STAGE]}
STAGED_FSD = {"nut_server_stages": [{**STAGE, "fsd": True}]}

STARTING = wait_until(
    "primary",
    "Proxmox VE is still starting its guests",
    '[ "$(systemctl show --property=ActiveState --value pve-guests.service)" = activating ]',
)
NAS_GUESTS_RUN = wait_until(
    "primary", "guests 101 and 201 run", "qm status 101 | grep running && pct status 201 | grep running", 90, False
)
STARTED = wait_until("primary", "Proxmox VE has started its guests", "systemctl is-active --quiet pve-guests.service")


def await_guest(number: int, kind: str = "qm") -> Step:
    """Wait until a guest runs."""
    return wait_until("primary", f"guest {number} runs", f"{kind} status {number} | grep -q 'status: running'")


# a whole power cut, from the low battery until the machines boot again
CYCLE = (
    *(
        *OUTAGE,
        wait_for("all down", 180),
        switch_mains(True),
        control_ups("the UPS skips its delay", "hurry"),
        wait_for("cut"),
    ),
    *(control_ups("the UPS skips its delay", "hurry"), wait_for("all run", 60)),
)
# all are logged in after the primary's reboot, and the battery is low while Proxmox VE is still starting its guests
SECOND_CUT = (wait_for("ready", 90), switch_mains(False), wait_seconds(6), STARTING, set_battery_low())

HA_WORDS = "guests 102 and 103, which HA manages, and a cluster with another machine"
HA_GUESTS = (LOCAL_VM, "103=qm,ha=1,seconds=3")
# a minute of the watchdog is 20 s here
HA_SETUP = "lab-pve ha-round 2; lab-pve watchdog 20; lab-pve cluster {other}"

CASES: tuple[Case, ...] = (
    Case(
        "guests-start-cut",
        "A power cut comes while Proxmox VE is still starting its guests after a boot: guest 103 waits for the `up` of 102",
        (
            set_up_guests(
                "guests 101 to 103", f"{LOCAL_VM},order=1", "103=qm,order=2,seconds=3", after="lab-pve up 102 120"
            ),
            *(reboot_machine("primary"), STARTING, await_guest(102), *SECOND_CUT),
        ),
        Expectation(max_wait=None, checks=(guests_clean(102, times=2), guests_clean(103))),
        EACH_RELEASE,
        repairs=REPAIR,
        ci_site="pve9",
    ),
    Case(
        "guests-delay-cut",
        "A power cut comes during startall-onboot-delay after a boot; guest 102 has been started by hand",
        (
            set_up_guests("guests 101, 102 and 201", NAS_VM, LOCAL_VM, NAS_CT, after="lab-pve onboot-delay 120"),
            *(reboot_machine("primary"), STARTING, run_on("primary", "guest 102 started by hand", "qm start 102")),
            *(await_guest(102), *SECOND_CUT),
        ),
        # 101 and 201 ran before the boot only
        Expectation(max_wait=None, checks=(guests_clean(102, times=2), guests_clean(101, 201))),
        EACH_RELEASE,
        repairs=REPAIR,
    ),
    Case(
        "nas-late",
        "After a power cut, TrueNAS's storage comes online 45 s after Proxmox VE has tried to start its guests",
        (
            set_up_guests("guests 101, 102 and 201", NAS_VM, LOCAL_VM, NAS_CT),
            *OUT,
            # guests that run do not notice
            run_on("primary", "storage nas offline", "lab-pve storage nas off"),
            set_battery_low(),
            *CYCLE[len(OUTAGE) :],
            *(STARTED, wait_seconds(45), run_on("primary", "storage nas online", "lab-pve storage nas on")),
            NAS_GUESTS_RUN,
        ),
        Expectation(max_wait=None, checks=(guests_clean(101, 102, 201), guests_back(101, 102, 201))),
        EACH_RELEASE,
        repairs=REPAIR,
        ci_site="pve8",
    ),
    Case(
        "guests-stuck",
        "A stage stops the guests on TrueNAS's storage and sets FSD; VM 103 is paused, VM 104 has an I/O error",
        (
            set_up_guests(
                "guests 101, 103, 104 and 201, of which 103 is paused, and 104 has an I/O error",
                *(NAS_VM, "103=qm,storage=nas,down=8", "104=qm,storage=nas,down=8", NAS_CT),
                after="lab-pve status 103 paused; lab-pve status 104 io-error",
            ),
            switch_mains(False),
        ),
        Expectation(checks=(guests_first(101, 103, 104, 201), guests_clean(101, 201))),
        EACH_RELEASE,
        repairs=REPAIR,
        ci_site="pve8",
        variables=STAGED_FSD,
    ),
    Case(
        "guests-locked",
        "A stage stops the guests on TrueNAS's storage and sets FSD; VM 101 has a stale backup lock",
        (
            set_up_guests("guests 101 and 201; 101 has a stale lock", NAS_VM, NAS_CT, after="lab-pve lock 101 backup"),
            switch_mains(False),
        ),
        Expectation(checks=(guests_first(101, 201), guests_clean(101, 201))),
        EACH_RELEASE,
        repairs=REPAIR,
        ci_site="pve9",
        variables=STAGED_FSD,
    ),
    Case(
        "no-quorum-boot",
        "Proxmox VE boots without quorum, so it waits forever to start its guests; a stage sets FSD",
        (
            set_up_guests("guests 101 and 201", NAS_VM, NAS_CT, after="lab-pve quorum off"),
            *(reboot_machine("primary"), STARTING, wait_for("ready", 90), switch_mains(False)),
        ),
        Expectation(max_wait=None),
        EACH_RELEASE,
        repairs=REPAIR,
        variables=STAGED_FSD,
    ),
    Case(
        "no-quorum-back",
        "A stage stops the guests on TrueNAS's storage without quorum; the mains return, and the quorum 75 s later",
        (
            set_up_guests("guests 101, 102 and 201", NAS_VM, LOCAL_VM, NAS_CT),
            *(
                switch_mains(False),
                run_on("primary", "quorum lost", "lab-pve quorum off", privileged=True),
                wait_seconds(22),
            ),
            *(
                switch_mains(True),
                wait_seconds(75),
                run_on("primary", "quorum back", "lab-pve quorum on", privileged=True),
            ),
            NAS_GUESTS_RUN,
        ),
        Expectation("stays", checks=(guests_again(101, 201),)),
        EACH_RELEASE,
        repairs=REPAIR,
        ci_site="pve8",
        variables=STAGED,
    ),
    Case(
        "ha-together",
        "HA manages VM 103, and another machine is a node of the cluster; `nut_server_gate.cluster` is `together`",
        (await_guest(103), *OUTAGE),
        # the primary does not wait for the other node
        Expectation(late=("nas", "media"), rules=(), max_wait=None, checks=(guests_clean(102, 103),)),
        EACH_RELEASE,
        # a real node stops its guests before it leaves the cluster
        before=(set_up_guests(HA_WORDS, *HA_GUESTS, after=f"{HA_SETUP} --lasts 30"),),
        repairs=REPAIR,
        ci_site="pve8",
        variables={"nut_server_gate": {"cluster": "together"}, "nut_client_shutdown_time": 20},
    ),
    Case(
        "ha-disarm",
        "HA manages VM 103, and another machine is a node of the cluster; `nut_server_gate.cluster` is `disarm`",
        (await_guest(103), *OUTAGE),
        Expectation(max_wait=None, checks=(guests_clean(102, 103),)),
        # HA of Proxmox VE 8 can't be disarmed
        ("pve9",),
        nas_seconds=25,
        before=(set_up_guests(HA_WORDS, *HA_GUESTS, after=HA_SETUP),),
        repairs=REPAIR,
        ci_site="pve9",
        variables={"nut_server_gate": {"cluster": "disarm"}},
    ),
)
