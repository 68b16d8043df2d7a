# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases in which something is wrong on the primary: the gate, its disk, the driver, its guests, or its administrator."""

from __future__ import annotations

from .house import EACH_RELEASE, Case
from .steps import (
    OUT,
    OUTAGE,
    boot_machine,
    control_ups,
    empty_battery,
    kill_program,
    pull_plug,
    reboot_machine,
    run_on,
    run_quietly,
    set_battery_low,
    set_up_guests,
    switch_mains,
    wait_for,
    wait_seconds,
)
from .verdict import EITHER, Expectation, guests_again, guests_ended, guests_first, primary_within

FULL = """
for path in /var/log/nut /var/lib/nut-shutdown; do
    rm -rf /run/kept && cp -a "$path" /run/kept && mount -t tmpfs -o size=256k,mode=0755 full "$path" && cp -a /run/kept/. "$path"
    head -c 262144 /dev/zero >"$path/filler" || true
done 2>/dev/null
"""
# the user nut fills the file system of POWERDOWNFLAG: its space, or its number of files
RUN_FULL = """
mount -o remount,size=20m /run
runuser -u nut -- sh -c 'head -c 20971520 /dev/zero >/run/nut/filler; : >/run/nut/filler.too' || true
"""
RUN_OUT_OF_FILES = """
mount -o remount,nr_inodes=$(($(df --output=iused /run | tail -n 1) + 20)) /run
runuser -u nut -- sh -c 'n=0; while : >/run/nut/filler.$n; do n=$((n + 1)); done' || true
"""
# two guests on TrueNAS's storage, one on Proxmox's own
GUESTS = set_up_guests("guests 101 and 201 on TrueNAS's storage, 102 on local storage")
NO_GUESTS = (run_quietly("primary", "lab-pve remove", privileged=True),)
STAGE = {"name": "nas", "on_battery": 5, "storage_of": ["truenas"]}

CASES: tuple[Case, ...] = (
    # the gate
    Case(
        "gate-killed",
        "The gate's program is killed once",
        (
            *OUTAGE,
            wait_for("gate"),
            wait_seconds(1),
            run_on("primary", "gate killed", "systemctl kill --signal=KILL nut-shutdown"),
        ),
        Expectation(),
        nas_seconds=12,
    ),
    Case(
        "gate-killed-always",
        "The gate's program is killed each time it starts",
        (
            *(*OUTAGE, wait_for("gate")),
            run_on(
                "primary",
                "gate killed each time it starts",
                "(for _ in $(seq 40); do systemctl kill --signal=KILL nut-shutdown; sleep 0.25; done) >/dev/null 2>&1 &",
            ),
        ),
        # there is nothing left that could wait, but the end is a poweroff
        Expectation(late=("nas", "media"), lost=("nas",), rules=(), max_wait=None, checks=(primary_within(60),)),
        ("pve9",),
        nas_seconds=12,
    ),
    Case(
        "gate-hangs",
        "The gate's program hangs (SIGSTOP)",
        (
            *OUTAGE,
            wait_for("gate"),
            wait_seconds(1),
            run_on("primary", "gate stopped", "systemctl kill --signal=STOP nut-shutdown"),
        ),
        Expectation(rules=(), max_wait=None, checks=(primary_within(180),)),
        nas_seconds=8,
    ),
    Case(
        "gate-missing",
        "nut-shutdown is missing from the disk",
        (run_on("primary", "nut-shutdown removed", "mv /usr/local/sbin/nut-shutdown /root/"), *OUTAGE),
        Expectation(late=("nas", "media"), lost=("nas",), rules=(), max_wait=None, checks=(primary_within(60),)),
        ("pve9",),
        repairs=(run_quietly("primary", "mv /root/nut-shutdown /usr/local/sbin/"),),
    ),
    Case(
        "disk-full",
        "Proxmox VE's disk is full",
        (run_on("primary", "/var full", FULL, privileged=True), *OUTAGE),
        Expectation(rules=(), checks=(primary_within(60),)),
        nas_seconds=8,
        repairs=(run_quietly("primary", "umount /var/log/nut /var/lib/nut-shutdown", privileged=True),),
    ),
    # the file system of POWERDOWNFLAG
    Case(
        "run-full",
        "Proxmox VE's /run is full: the user nut has filled it",
        (run_on("primary", "/run full", RUN_FULL, privileged=True), *OUTAGE),
        Expectation(rules=(), checks=(primary_within(60),)),
        EACH_RELEASE,
        nas_seconds=8,
        ci_site="pve8",
    ),
    Case(
        "run-files",
        "Proxmox VE's /run has no inodes left, so upsmon can't even create POWERDOWNFLAG",
        (run_on("primary", "/run has no inodes left", RUN_OUT_OF_FILES, privileged=True), *OUTAGE),
        Expectation(rules=(), checks=(primary_within(60),)),
        EACH_RELEASE,
        nas_seconds=8,
    ),
    Case(
        "fsd-forged",
        "The administrator runs `nut-shutdown fsd` on mains, after the user nut has forged upsmon's PID file",
        (
            run_on(
                "primary",
                "upsmon.pid forged",
                "runuser -u nut -- sh -c 'rm -f /run/nut/upsmon.pid; echo 1 >/run/nut/upsmon.pid'",
            ),
            run_on("primary", "nut-shutdown fsd", "nut-shutdown fsd"),
        ),
        Expectation(),
        EACH_RELEASE,
        ci_site="pve9",
    ),
    # the driver, the UPS's USB cable
    Case(
        "driver-battery",
        "The driver is killed on battery, 25 s before the battery is low",
        (*OUT, kill_program("usbhid-ups"), wait_seconds(25), set_battery_low()),
        Expectation(rules=("down", "limit"), max_wait=None),
        EACH_RELEASE,
    ),
    Case(
        "driver-battery-back",
        "The driver is killed on battery, and the mains return 25 s later",
        (*OUT, kill_program("usbhid-ups"), wait_seconds(25), switch_mains(True)),
        EITHER,
        EACH_RELEASE,
        watch_seconds=40,
    ),
    Case(
        "driver-gate",
        "The driver is killed while the gate waits",
        (*OUTAGE, wait_for("gate"), kill_program("usbhid-ups")),
        Expectation(),
        ("pve9",),
        nas_seconds=12,
    ),
    Case(
        "unplugged-battery",
        "The UPS's USB cable is unplugged on battery, and plugged in again once every machine is down; then the battery runs empty",
        (
            *OUT,
            control_ups("USB cable unplugged", "unplug"),
            wait_for("all down", 180),
            control_ups("USB cable plugged in", "replug"),
            empty_battery(),
        ),
        # nobody can tell the UPS to cut the power, so only an empty battery does
        Expectation(rules=("down", "limit"), max_wait=None),
    ),
    Case(
        "unplugged-back",
        "The UPS's USB cable is unplugged on battery, and plugged in again 10 s later",
        (
            *OUT,
            control_ups("USB cable unplugged", "unplug"),
            wait_seconds(10),
            control_ups("USB cable plugged in", "replug"),
            wait_seconds(10),
            set_battery_low(),
        ),
        Expectation(rules=("down", "limit"), max_wait=None),
        EACH_RELEASE,
    ),
    Case(
        "unplugged-gate",
        "The UPS's USB cable is unplugged while the gate waits, and plugged in again 4 s later",
        (
            *OUTAGE,
            wait_for("gate"),
            control_ups("USB cable unplugged", "unplug"),
            wait_seconds(4),
            control_ups("USB cable plugged in", "replug"),
        ),
        Expectation(),
        ("pve9",),
        nas_seconds=15,
    ),
    Case(
        "ups-hangs",
        "The UPS's firmware hangs while the gate waits, until TrueNAS is down",
        (
            *(*OUTAGE, wait_for("gate"), control_ups("firmware hangs", "hang", how="nak")),
            *(wait_for("nas down"), control_ups("firmware recovers", "unhang")),
        ),
        Expectation(),
        nas_seconds=12,
    ),
    # Proxmox's guests
    Case(
        "guests",
        "Proxmox VE has guests, two of them on TrueNAS's storage, and no stage stops them",
        (GUESTS, wait_seconds(2), *OUTAGE),
        Expectation(checks=(guests_ended(102),)),
        repairs=NO_GUESTS,
    ),
    Case(
        "stage",
        "After 5 s on battery, a stage stops the guests on TrueNAS's storage and then sets FSD; the battery never becomes low",
        (GUESTS, wait_seconds(2), switch_mains(False)),
        Expectation(checks=(guests_first(101, 201), guests_ended(101, 102, 201))),
        repairs=NO_GUESTS,
        variables={"nut_server_stages": [{**STAGE, "fsd": True}]},
        ci_site="pve8",
    ),
    Case(
        "stage-back",
        "After 5 s on battery, a stage stops the guests on TrueNAS's storage; then the mains return",
        (GUESTS, wait_seconds(2), switch_mains(False), wait_seconds(22), switch_mains(True)),
        Expectation("stays", checks=(guests_again(101, 201),)),
        repairs=NO_GUESTS,
        variables={"nut_server_stages": [STAGE]},
        # the mains must have been back for 30 s, and the guests are started one after the other
        watch_seconds=60,
    ),
    # the primary, and its admin
    Case(
        "primary-reboots",
        "Proxmox VE is rebooted on battery; the battery becomes low once it is back",
        (*OUT, reboot_machine("primary"), wait_for("battery", 60), wait_seconds(10), set_battery_low()),
        Expectation(rules=("down", "limit"), max_wait=None),
        EACH_RELEASE,
        ci_site="pve9",
    ),
    Case(
        "primary-reboots-back",
        "Proxmox VE is rebooted on battery, and the mains return once it is back",
        (*OUT, reboot_machine("primary"), wait_for("battery", 60), wait_seconds(10), switch_mains(True)),
        EITHER,
        EACH_RELEASE,
        watch_seconds=30,
    ),
    Case(
        "primary-crashes",
        "Proxmox VE's power cord is pulled while the gate waits; it boots while the battery is still low",
        (*OUTAGE, wait_for("gate"), wait_seconds(1), pull_plug("primary"), wait_seconds(1), boot_machine("primary")),
        Expectation(max_wait=None),
        nas_seconds=12,
        ci_site="pve8",
    ),
    Case(
        "admin-poweroff",
        "The administrator powers Proxmox VE off on battery; then the battery runs empty",
        (
            *OUT,
            run_on("primary", "systemctl poweroff", "systemctl poweroff"),
            wait_for("all down", 180),
            empty_battery(),
        ),
        # that is no shutdown of NUT's, and the admin's own order; nobody may lose power while it runs
        Expectation(late=("nas", "media"), rules=(), max_wait=None),
    ),
    Case(
        "admin-poweroff-gate",
        "The administrator powers Proxmox VE off while the gate waits",
        (*OUTAGE, wait_for("gate"), run_on("primary", "systemctl poweroff", "systemctl poweroff")),
        Expectation(late=("nas",), rules=(), max_wait=None),
        ("pve9",),
        nas_seconds=8,
    ),
    Case(
        "admin-fsd",
        "The administrator runs `upsmon -c fsd` on mains",
        (run_on("primary", "upsmon -c fsd", "/sbin/upsmon -c fsd"),),
        Expectation(),
        EACH_RELEASE,
    ),
)
