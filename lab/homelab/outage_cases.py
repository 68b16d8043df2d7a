# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases about TrueNAS, the network, and mains that return at the worst moment."""

from __future__ import annotations

from .house import EACH_RELEASE, Case
from .steps import (
    OUT,
    OUTAGE,
    control_ups,
    cut_network,
    pull_plug,
    reboot_machine,
    restore_network,
    run_on,
    run_quietly,
    set_battery_low,
    switch_mains,
    wait_for,
    wait_seconds,
)
from .verdict import EITHER, STAYS, Expectation, nas_takes, primary_within

WRONG_LOGIN = "sed -i '/^MONITOR/s/ [^ ]* slave$/ wrong slave/; /^MONITOR/s/ [^ ]* secondary$/ wrong secondary/' /etc/nut/upsmon.conf"
KEPT = "cp -p /etc/nut/upsmon.conf /root/upsmon.conf.kept"
BACK = "[ ! -e /root/upsmon.conf.kept ] || { mv /root/upsmon.conf.kept /etc/nut/upsmon.conf; systemctl restart nut-monitor; }"

CASES: tuple[Case, ...] = (
    # TrueNAS's time
    Case(
        "nas-5",
        "TrueNAS takes 5 s to shut down",
        OUTAGE,
        Expectation(checks=(nas_takes(5),)),
        EACH_RELEASE,
        nas_seconds=5,
        ci_site="pve8",
    ),
    Case(
        "nas-20",
        "TrueNAS takes 20 s to shut down",
        OUTAGE,
        Expectation(checks=(nas_takes(20),)),
        EACH_RELEASE,
        nas_seconds=20,
        ci_site="pve9",
    ),
    Case(
        "nas-60",
        "TrueNAS takes 60 s to shut down",
        OUTAGE,
        Expectation(checks=(nas_takes(60),)),
        ("pve9",),
        nas_seconds=60,
        ci_site="pve9",
    ),
    # TrueNAS does not do its part
    Case(
        "nas-stopped",
        "upsmon on TrueNAS is not running",
        (run_on("nas", "upsmon stopped", "systemctl stop nut-monitor"), wait_seconds(2), *OUTAGE),
        Expectation(late=("nas",), lost=("nas",), rules=("limit",), max_wait=None, checks=(primary_within(90),)),
        repairs=(run_quietly("nas", "systemctl start nut-monitor"),),
        ci_site="pve8",
    ),
    Case(
        "nas-password",
        "TrueNAS has the wrong password and never logs in",
        (
            run_on("nas", "wrong password", f"{KEPT}; {WRONG_LOGIN}; systemctl restart nut-monitor"),
            wait_seconds(8),
            *OUTAGE,
        ),
        # it may read the UPS without a login, and goes down by what it reads
        Expectation(late=("nas",), lost=("nas",), rules=("limit", "down"), max_wait=None, checks=(primary_within(90),)),
        repairs=(run_quietly("nas", BACK),),
    ),
    Case(
        "nas-hangs",
        "TrueNAS hangs during its shutdown and never goes down",
        OUTAGE,
        Expectation(late=("nas",), lost=("nas",), rules=("limit",), max_wait=None, checks=(primary_within(90),)),
        nas_seconds=100000,
    ),
    Case(
        "nas-hangs-battery",
        "TrueNAS hangs during its shutdown, and the battery lasts only 75 s more",
        OUTAGE,
        Expectation(late=("nas",), lost=("nas",), rules=("battery",), max_wait=None, checks=(primary_within(90),)),
        ("pve9",),
        nas_seconds=100000,
        battery_seconds=75,
        ci_site="pve9",
    ),
    Case(
        "nas-crashes",
        "TrueNAS's power cord is pulled on battery",
        (*OUT, pull_plug("nas"), wait_seconds(2), set_battery_low()),
        Expectation(max_wait=None, checks=(primary_within(60),)),
    ),
    Case(
        "nas-reboots",
        "TrueNAS is rebooted on battery; the battery becomes low once it is back",
        (*OUT, reboot_machine("nas"), wait_for("all logged in", 60), set_battery_low()),
        Expectation(),
        ("pve9",),
    ),
    # the network
    Case(
        "nas-deaf",
        "TrueNAS loses its network when the battery becomes low",
        (*OUT, cut_network("nas"), set_battery_low()),
        # it knows that the UPS was on battery, and goes by itself; silent means down
        Expectation(late=("nas",), lost=("nas",), max_wait=None, checks=(primary_within(90),)),
        repairs=restore_network("nas"),
    ),
    Case(
        "nas-deaf-exporting",
        "TrueNAS loses its network while it exports its pools, which takes 12 s",
        (*OUTAGE, wait_for("nas begins"), wait_seconds(2), cut_network("nas")),
        # silent means down: the primary may go first, but TrueNAS must be down when the UPS cuts the power
        Expectation(late=("nas",), max_wait=None, checks=(primary_within(60),)),
        ("pve9",),
        nas_seconds=12,
        repairs=restore_network("nas"),
        ci_site="pve9",
    ),
    Case(
        "nas-deaf-early",
        "TrueNAS loses its network on battery, 30 s before the battery is low",
        (*OUT, cut_network("nas"), wait_seconds(30), set_battery_low()),
        Expectation(late=("nas",), lost=("nas",), max_wait=None, checks=(primary_within(90),)),
        ("pve9",),
        repairs=restore_network("nas"),
    ),
    Case(
        "nas-deaf-back",
        "TrueNAS loses its network for 40 s on battery, and the mains return before the battery is low",
        (*OUT, cut_network("nas"), wait_seconds(40), *restore_network("nas"), wait_seconds(5), switch_mains(True)),
        STAYS,
        repairs=restore_network("nas"),
    ),
    Case(
        "primary-deaf",
        "Proxmox VE loses its own network while the gate waits",
        (*OUTAGE, wait_for("gate"), cut_network("primary")),
        # silent means down for it, too; TrueNAS has its time
        Expectation(late=("nas",), rules=("down", "assumed", "limit"), max_wait=None, checks=(primary_within(110),)),
        nas_seconds=8,
        repairs=restore_network("primary"),
    ),
    Case(
        "dns-gone",
        "The name server is unreachable when the gate begins",
        (
            *OUT,
            run_on("primary", "name server unreachable", "echo 'nameserver 192.0.2.1' > /etc/resolv.conf"),
            set_battery_low(),
        ),
        Expectation(max_wait=15.0),
        nas_seconds=8,
        repairs=(run_quietly("primary", "true"),),
    ),
    # the mains return
    Case(
        "back-early",
        "The mains return before the battery is low",
        (*OUT, wait_seconds(4), switch_mains(True)),
        STAYS,
        EACH_RELEASE,
        ci_site="pve9",
    ),
    Case(
        "back-hostsync",
        "The mains return between FSD and the gate",
        (*OUTAGE, wait_for("FSD"), switch_mains(True)),
        Expectation(),
        ci_site="pve8",
    ),
    Case(
        "back-gate",
        "The mains return while the gate waits",
        (*OUTAGE, wait_for("gate"), wait_seconds(2), switch_mains(True)),
        Expectation(),
        ("pve9",),
        nas_seconds=12,
        ci_site="pve9",
    ),
    Case(
        "back-poweroff",
        "The mains return after Proxmox VE has begun to power off",
        (*OUTAGE, wait_for("primary begins"), switch_mains(True)),
        Expectation(),
        ci_site="pve8",
    ),
    Case(
        "back-down",
        "The mains return after every machine is down, before the UPS cuts the power",
        (*OUTAGE, wait_for("all down"), switch_mains(True)),
        Expectation(),
        ("pve9",),
    ),
    Case(
        "back-cut",
        "The mains return after the UPS has cut the power",
        (
            *OUTAGE,
            wait_for("all down"),
            control_ups("the UPS skips its delay", "hurry"),
            wait_for("cut"),
            wait_seconds(2),
            switch_mains(True),
        ),
        Expectation(),
    ),
    Case(
        "low-twice",
        "The battery is low; the mains return twice for half a second, and each time the battery is low again",
        (
            *OUTAGE,
            wait_seconds(1),
            switch_mains(True),
            wait_seconds(0.5),
            switch_mains(False),
            set_battery_low(),
            wait_seconds(3),
            switch_mains(True),
            wait_seconds(0.5),
            switch_mains(False),
            set_battery_low(),
        ),
        Expectation(),
        ci_site="pve8",
    ),
    Case(
        "low-second",
        "The battery is low for one second before the mains return",
        (*OUTAGE, wait_seconds(1), switch_mains(True)),
        EITHER,
        ("pve9",),
    ),
    Case(
        "outage-at-boot",
        "A second power cut comes while the machines boot after the first one; the battery is low at once",
        (
            *OUTAGE,
            wait_for("all down"),
            switch_mains(True),
            control_ups("the UPS skips its delay", "hurry"),
            wait_for("cut"),
            control_ups("the UPS skips its delay", "hurry"),
            wait_for("all run"),
            wait_seconds(3),
            switch_mains(False),
            set_battery_low(),
        ),
        # TrueNAS may be asked to go before it has logged in, or not at all if it comes late
        Expectation(max_wait=None),
        ("pve9",),
    ),
)
