# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases: power cuts in which something goes wrong, each with its steps and what must be true afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import Lab
from .house import Case, House
from .podman import LabError
from .steps import (
    attack_from_outside,
    attack_upsd,
    boot_machine,
    control_ups,
    cut_network,
    empty_battery,
    kill_program,
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
from .verdict import Expectation, begins_within, guests_again, guests_ended, guests_first, nas_takes, primary_within

BOTH = ("pve8", "pve9")
OUT = (switch_mains(False), wait_seconds(6))
OUTAGE = (*OUT, set_battery_low())
WRONG_LOGIN = "sed -i '/^MONITOR/s/ [^ ]* slave$/ wrong slave/; /^MONITOR/s/ [^ ]* secondary$/ wrong secondary/' /etc/nut/upsmon.conf"
KEPT = "cp -p /etc/nut/upsmon.conf /root/upsmon.conf.kept"
BACK = "[ ! -e /root/upsmon.conf.kept ] || { mv /root/upsmon.conf.kept /etc/nut/upsmon.conf; systemctl restart nut-monitor; }"
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
GUESTS = run_on("primary", "guests 101 and 201 on TrueNAS, 102 here", "lab-pve setup --nas truenas")
NO_GUESTS = (run_quietly("primary", "lab-pve remove"),)
STAGE = {"name": "nas", "on_battery": 5, "storage_of": ["truenas"]}
EITHER = Expectation("either", rules=(), max_wait=None)
STAYS = Expectation("stays")
# upsmon polls every 5 s, and FINALDELAY of a secondary is 5 s; an attack may delay that by 15 s
IN_TIME = Expectation(max_wait=None, checks=(begins_within(12 + 15),))
SHORT_OUTAGE = 23  # seconds: longer than DEADTIME, and the battery is full

CASES: tuple[Case, ...] = (
    # TrueNAS's time
    Case(
        "nas-5",
        "TrueNAS takes 5 s to go down",
        OUTAGE,
        Expectation(checks=(nas_takes(5),)),
        BOTH,
        nas_seconds=5,
        ci_site="pve8",
    ),
    Case(
        "nas-20",
        "TrueNAS takes 20 s",
        OUTAGE,
        Expectation(checks=(nas_takes(20),)),
        BOTH,
        nas_seconds=20,
        ci_site="pve9",
    ),
    Case(
        "nas-60",
        "TrueNAS takes 60 s",
        OUTAGE,
        Expectation(checks=(nas_takes(60),)),
        ("pve9",),
        nas_seconds=60,
        ci_site="pve9",
    ),
    # TrueNAS does not do its part
    Case(
        "nas-stopped",
        "upsmon on TrueNAS does not run",
        (run_on("nas", "upsmon stopped", "systemctl stop nut-monitor"), wait_seconds(2), *OUTAGE),
        Expectation(late=("nas",), lost=("nas",), rules=("limit",), max_wait=None, checks=(primary_within(90),)),
        repairs=(run_quietly("nas", "systemctl start nut-monitor"),),
        ci_site="pve8",
    ),
    Case(
        "nas-password",
        "TrueNAS has the wrong password, and never logs in",
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
        "TrueNAS hangs for ever in its shutdown",
        OUTAGE,
        Expectation(late=("nas",), lost=("nas",), rules=("limit",), max_wait=None, checks=(primary_within(90),)),
        nas_seconds=100000,
    ),
    Case(
        "nas-hangs-battery",
        "TrueNAS hangs for ever, and the battery lasts 75 s more",
        OUTAGE,
        Expectation(late=("nas",), lost=("nas",), rules=("battery",), max_wait=None, checks=(primary_within(90),)),
        ("pve9",),
        nas_seconds=100000,
        battery_seconds=75,
        ci_site="pve9",
    ),
    Case(
        "nas-crashes",
        "TrueNAS's plug is pulled on battery",
        (*OUT, pull_plug("nas"), wait_seconds(2), set_battery_low()),
        Expectation(max_wait=None, checks=(primary_within(60),)),
    ),
    Case(
        "nas-reboots",
        "TrueNAS is rebooted on battery, and the battery is low when it is back",
        (*OUT, reboot_machine("nas"), wait_for("all logged in", 60), set_battery_low()),
        Expectation(),
        ("pve9",),
    ),
    # the network
    Case(
        "nas-deaf",
        "TrueNAS loses its network when the battery gets low",
        (*OUT, cut_network("nas"), set_battery_low()),
        # it knows that the UPS was on battery, and goes by itself; silent means down
        Expectation(late=("nas",), lost=("nas",), max_wait=None, checks=(primary_within(90),)),
        repairs=restore_network("nas"),
    ),
    Case(
        "nas-deaf-exporting",
        "TrueNAS loses its network while it exports its pools (12 s)",
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
        "TrueNAS loses its network on battery, half a minute before that is low",
        (*OUT, cut_network("nas"), wait_seconds(30), set_battery_low()),
        Expectation(late=("nas",), lost=("nas",), max_wait=None, checks=(primary_within(90),)),
        ("pve9",),
        repairs=restore_network("nas"),
    ),
    Case(
        "nas-deaf-back",
        "TrueNAS loses its network on battery for 40 s, and the mains return before the battery is low",
        (*OUT, cut_network("nas"), wait_seconds(40), *restore_network("nas"), wait_seconds(5), switch_mains(True)),
        STAYS,
        repairs=restore_network("nas"),
    ),
    Case(
        "primary-deaf",
        "Proxmox's own network is gone in the gate",
        (*OUTAGE, wait_for("gate"), cut_network("primary")),
        # silent means down for it, too; TrueNAS has its time
        Expectation(late=("nas",), rules=("down", "assumed", "limit"), max_wait=None, checks=(primary_within(110),)),
        nas_seconds=8,
        repairs=restore_network("primary"),
    ),
    Case(
        "dns-gone",
        "The name server is gone when the gate begins",
        (
            *OUT,
            run_on("primary", "no name server", "echo 'nameserver 192.0.2.1' > /etc/resolv.conf"),
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
        BOTH,
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
        "The mains return in the gate",
        (*OUTAGE, wait_for("gate"), wait_seconds(2), switch_mains(True)),
        Expectation(),
        ("pve9",),
        nas_seconds=12,
        ci_site="pve9",
    ),
    Case(
        "back-poweroff",
        "The mains return when Proxmox has begun to power off",
        (*OUTAGE, wait_for("primary begins"), switch_mains(True)),
        Expectation(),
        ci_site="pve8",
    ),
    Case(
        "back-down",
        "The mains return when all are down, before the UPS cuts the power",
        (*OUTAGE, wait_for("all down"), switch_mains(True)),
        Expectation(),
        ("pve9",),
    ),
    Case(
        "back-cut",
        "The mains return when the UPS has cut the power",
        (
            *OUTAGE,
            wait_for("all down"),
            control_ups("hurry", "hurry"),
            wait_for("cut"),
            wait_seconds(2),
            switch_mains(True),
        ),
        Expectation(),
    ),
    Case(
        "low-twice",
        "The battery is low, the mains flicker, and it is low again",
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
        "The battery is low for a second, and the mains are back",
        (*OUTAGE, wait_seconds(1), switch_mains(True)),
        EITHER,
        ("pve9",),
    ),
    Case(
        "outage-at-boot",
        "A second power cut while the machines boot after the first one; the battery is low at once",
        (
            *OUTAGE,
            wait_for("all down"),
            switch_mains(True),
            control_ups("hurry", "hurry"),
            wait_for("cut"),
            control_ups("hurry", "hurry"),
            wait_for("all run"),
            wait_seconds(3),
            switch_mains(False),
            set_battery_low(),
        ),
        # TrueNAS may be asked to go before it has logged in, or not at all if it comes late
        Expectation(max_wait=None),
        ("pve9",),
    ),
    # upsd
    Case(
        "upsd-mains",
        "upsd is killed on mains, half a minute before the power cut",
        (kill_program("upsd"), wait_seconds(30), *OUTAGE),
        Expectation(),
        BOTH,
        ci_site="pve8",
    ),
    Case(
        "upsd-battery",
        "upsd is killed on battery, 20 s before that is low",
        (*OUT, kill_program("upsd"), wait_seconds(20), set_battery_low()),
        Expectation(rules=("down", "limit"), max_wait=None),
        BOTH,
        ci_site="pve9",
    ),
    Case(
        "upsd-battery-back",
        "upsd is killed on battery, and the mains return 20 s later",
        (*OUT, kill_program("upsd"), wait_seconds(20), switch_mains(True)),
        EITHER,
        BOTH,
        watch_seconds=40,
    ),
    Case(
        "upsd-fsd",
        "upsd is killed at the FSD",
        (*OUTAGE, wait_for("FSD"), kill_program("upsd")),
        Expectation(max_wait=None),
        BOTH,
        ci_site="pve8",
    ),
    Case(
        "upsd-gate",
        "upsd is killed in the gate",
        (*OUTAGE, wait_for("gate"), kill_program("upsd")),
        Expectation(),
        BOTH,
        nas_seconds=12,
        ci_site="pve9",
    ),
    Case(
        "upsd-hangs",
        "upsd hangs in the gate (SIGSTOP)",
        (*OUTAGE, wait_for("gate"), run_on("primary", "upsd stopped", "kill -STOP $(pidof upsd)")),
        Expectation(),
        ("pve9",),
        nas_seconds=12,
    ),
    # upsd, attacked by a machine that may reach it, and by one that may not: asked, and never listened to
    Case(
        "upsd-blocked-mains",
        "A secondary blocks upsd from 15 s before the power cut on",
        (attack_upsd("other", 120), wait_seconds(15), *OUTAGE),
        IN_TIME,
        BOTH,
    ),
    Case(
        "upsd-blocked-battery",
        "A secondary blocks upsd on battery, 15 s before that is low",
        (*OUT, attack_upsd("other", 120), wait_seconds(15), set_battery_low()),
        IN_TIME,
        BOTH,
    ),
    Case(
        "upsd-blocked-low",
        "A secondary blocks upsd when the battery gets low",
        (*OUT, attack_upsd("other", 120), set_battery_low()),
        IN_TIME,
        BOTH,
    ),
    Case(
        "upsd-blocked-fsd",
        "A secondary blocks upsd at the FSD",
        (*OUTAGE, wait_for("FSD"), attack_upsd("other", 120)),
        IN_TIME,
        BOTH,
    ),
    Case(
        "upsd-blocked-short",
        "A secondary blocks upsd on battery, and the mains return 23 s later",
        (*OUT, attack_upsd("other", SHORT_OUTAGE + 10), wait_seconds(SHORT_OUTAGE), switch_mains(True)),
        STAYS,
        BOTH,
        watch_seconds=30,
    ),
    Case(
        "upsd-stranger-short",
        "A stranger attacks upsd on battery, and the mains return 23 s later",
        (*OUT, attack_from_outside(SHORT_OUTAGE + 10), wait_seconds(SHORT_OUTAGE), switch_mains(True)),
        STAYS,
        BOTH,
        watch_seconds=30,
    ),
    Case(
        "upsd-stranger-low",
        "A stranger attacks upsd when the battery gets low",
        (*OUT, attack_from_outside(60), set_battery_low()),
        IN_TIME,
        BOTH,
    ),
    # upsmon on the primary
    Case(
        "upsmon-mains",
        "upsmon is killed on mains, half a minute before the power cut",
        (kill_program("upsmon"), wait_seconds(30), *OUTAGE),
        Expectation(),
        BOTH,
        ci_site="pve8",
    ),
    Case(
        "upsmon-battery",
        "upsmon is killed on battery, 10 s before that is low",
        (*OUT, kill_program("upsmon"), wait_seconds(10), set_battery_low()),
        Expectation(),
        BOTH,
        ci_site="pve8",
    ),
    Case(
        "upsmon-fsd",
        "upsmon is killed at the FSD",
        (*OUTAGE, wait_for("FSD"), kill_program("upsmon")),
        Expectation(),
        BOTH,
        ci_site="pve9",
    ),
    Case(
        "upsmon-gate",
        "upsmon, which has ended after its SHUTDOWNCMD, is started again in the gate",
        (*OUTAGE, wait_for("gate"), run_on("primary", "upsmon restarted", "systemctl restart nut-monitor")),
        Expectation(),
        BOTH,
        nas_seconds=12,
        ci_site="pve8",
    ),
    Case(
        "upsmon-gate-back",
        "upsmon is started again in the gate, after the mains have returned",
        (
            *(*OUTAGE, wait_for("gate"), switch_mains(True), wait_seconds(4)),
            run_on("primary", "upsmon restarted", "systemctl restart nut-monitor"),
        ),
        Expectation(),
        BOTH,
        nas_seconds=15,
        ci_site="pve9",
    ),
    Case(
        "nas-upsmon",
        "upsmon on TrueNAS is killed on battery",
        (*OUT, kill_program("upsmon", "nas"), wait_seconds(8), set_battery_low()),
        Expectation(
            late=("nas",), lost=("nas",), rules=("down", "limit"), max_wait=None, checks=(primary_within(120),)
        ),
        repairs=(run_quietly("nas", "systemctl start nut-monitor"),),
    ),
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
        "The gate's program is killed as often as it comes",
        (
            *(*OUTAGE, wait_for("gate")),
            run_on(
                "primary",
                "gate killed again and again",
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
        "The gate's program is stopped (SIGSTOP)",
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
        "nut-shutdown is gone from the disk",
        (run_on("primary", "nut-shutdown gone", "mv /usr/local/sbin/nut-shutdown /root/"), *OUTAGE),
        Expectation(late=("nas", "media"), lost=("nas",), rules=(), max_wait=None, checks=(primary_within(60),)),
        ("pve9",),
        repairs=(run_quietly("primary", "mv /root/nut-shutdown /usr/local/sbin/"),),
    ),
    Case(
        "disk-full",
        "The disk of Proxmox is full",
        (run_on("primary", "/var full", FULL, privileged=True), *OUTAGE),
        Expectation(rules=(), checks=(primary_within(60),)),
        nas_seconds=8,
        repairs=(run_quietly("primary", "umount /var/log/nut /var/lib/nut-shutdown", privileged=True),),
    ),
    # the file system of POWERDOWNFLAG
    Case(
        "run-full",
        "/run of Proxmox is full: the user nut has filled it",
        (run_on("primary", "/run full", RUN_FULL, privileged=True), *OUTAGE),
        Expectation(rules=(), checks=(primary_within(60),)),
        BOTH,
        nas_seconds=8,
        ci_site="pve8",
    ),
    Case(
        "run-files",
        "/run of Proxmox takes no more files: upsmon can't even make its POWERDOWNFLAG",
        (run_on("primary", "/run takes no more files", RUN_OUT_OF_FILES, privileged=True), *OUTAGE),
        Expectation(rules=(), checks=(primary_within(60),)),
        BOTH,
        nas_seconds=8,
    ),
    Case(
        "fsd-forged",
        "`nut-shutdown fsd` on mains; the user nut has forged upsmon's pid file",
        (
            run_on(
                "primary",
                "upsmon.pid forged",
                "runuser -u nut -- sh -c 'rm -f /run/nut/upsmon.pid; echo 1 >/run/nut/upsmon.pid'",
            ),
            run_on("primary", "nut-shutdown fsd", "nut-shutdown fsd"),
        ),
        Expectation(),
        BOTH,
        ci_site="pve9",
    ),
    # the driver, the UPS's USB cable
    Case(
        "driver-battery",
        "The driver is killed on battery, 25 s before that is low",
        (*OUT, kill_program("usbhid-ups"), wait_seconds(25), set_battery_low()),
        Expectation(rules=("down", "limit"), max_wait=None),
        BOTH,
    ),
    Case(
        "driver-battery-back",
        "The driver is killed on battery, and the mains return 25 s later",
        (*OUT, kill_program("usbhid-ups"), wait_seconds(25), switch_mains(True)),
        EITHER,
        BOTH,
        watch_seconds=40,
    ),
    Case(
        "driver-gate",
        "The driver is killed in the gate",
        (*OUTAGE, wait_for("gate"), kill_program("usbhid-ups")),
        Expectation(),
        ("pve9",),
        nas_seconds=12,
    ),
    Case(
        "unplugged-battery",
        "The UPS's USB cable is pulled on battery, and put back when all are down; then the battery is empty",
        (
            *OUT,
            control_ups("USB cable pulled", "unplug"),
            wait_for("all down", 180),
            control_ups("USB cable back", "replug"),
            empty_battery(),
        ),
        # nobody can tell the UPS to cut the power, so only an empty battery does
        Expectation(rules=("down", "limit"), max_wait=None),
    ),
    Case(
        "unplugged-back",
        "The UPS's USB cable is pulled on battery and put back after 10 s",
        (
            *OUT,
            control_ups("USB cable pulled", "unplug"),
            wait_seconds(10),
            control_ups("USB cable back", "replug"),
            wait_seconds(10),
            set_battery_low(),
        ),
        Expectation(rules=("down", "limit"), max_wait=None),
        BOTH,
    ),
    Case(
        "unplugged-gate",
        "The UPS's USB cable is pulled in the gate, and put back before its end",
        (
            *OUTAGE,
            wait_for("gate"),
            control_ups("USB cable pulled", "unplug"),
            wait_seconds(4),
            control_ups("USB cable back", "replug"),
        ),
        Expectation(),
        ("pve9",),
        nas_seconds=15,
    ),
    Case(
        "ups-hangs",
        "The UPS's firmware hangs in the gate, until TrueNAS is down",
        (
            *(*OUTAGE, wait_for("gate"), control_ups("firmware hangs", "hang", how="nak")),
            *(wait_for("nas down"), control_ups("firmware works", "unhang")),
        ),
        Expectation(),
        nas_seconds=12,
    ),
    # Proxmox's guests
    Case(
        "guests",
        "Proxmox has guests, some of them on TrueNAS's storage, and no stage",
        (GUESTS, wait_seconds(2), *OUTAGE),
        Expectation(checks=(guests_ended(102),)),
        repairs=NO_GUESTS,
    ),
    Case(
        "stage",
        "A stage stops the guests on TrueNAS's storage after 5 s on battery, and then calls FSD; the battery is never low",
        (GUESTS, wait_seconds(2), switch_mains(False)),
        Expectation(checks=(guests_first(101, 201), guests_ended(101, 102, 201))),
        repairs=NO_GUESTS,
        variables={"nut_server_stages": [{**STAGE, "fsd": True}]},
        ci_site="pve8",
    ),
    Case(
        "stage-back",
        "A stage stops the guests on TrueNAS's storage after 5 s on battery, and the mains return",
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
        "Proxmox is rebooted on battery; the battery is low when it is back",
        (*OUT, reboot_machine("primary"), wait_for("battery", 60), wait_seconds(10), set_battery_low()),
        Expectation(rules=("down", "limit"), max_wait=None),
        BOTH,
        ci_site="pve9",
    ),
    Case(
        "primary-reboots-back",
        "Proxmox is rebooted on battery, and the mains return when it is back",
        (*OUT, reboot_machine("primary"), wait_for("battery", 60), wait_seconds(10), switch_mains(True)),
        EITHER,
        BOTH,
        watch_seconds=30,
    ),
    Case(
        "primary-crashes",
        "Proxmox's plug is pulled in the gate; it boots, and the battery is low still",
        (*OUTAGE, wait_for("gate"), wait_seconds(1), pull_plug("primary"), wait_seconds(1), boot_machine("primary")),
        Expectation(max_wait=None),
        nas_seconds=12,
        ci_site="pve8",
    ),
    Case(
        "admin-poweroff",
        "The admin powers Proxmox off on battery; then the battery is empty",
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
        "The admin powers Proxmox off in the gate",
        (*OUTAGE, wait_for("gate"), run_on("primary", "systemctl poweroff", "systemctl poweroff")),
        Expectation(late=("nas",), rules=(), max_wait=None),
        ("pve9",),
        nas_seconds=8,
    ),
    Case(
        "admin-fsd",
        "The admin calls `upsmon -c fsd` on mains",
        (run_on("primary", "upsmon -c fsd", "/sbin/upsmon -c fsd"),),
        Expectation(),
        BOTH,
    ),
)

RELEASES = {"pve8": "2.8.0", "pve9": "2.8.1"}


def format_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of docs/cases.md."""
    lines = [
        "| case | what is done | NUT | what happened (seconds) | verdict |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        verdict = "held" if not row["problems"] else f"**FAILED**: {'; '.join(row['problems'])}"
        cells = (f"`{row['case']}`", row["words"], RELEASES.get(row["site"], row["site"]), row["happened"], verdict)
        lines.append(f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def choose_cases(names: Sequence[str], sites: Sequence[str], ci: bool) -> dict[str, list[Case]]:
    """Return the cases to play at each site. Raise LabError for an unknown name."""
    unknown = sorted(set(names) - {case.name for case in CASES})
    if unknown:
        raise LabError(f"no case {', '.join(unknown)}. Cases: {', '.join(case.name for case in CASES)}")
    # cases that need another deployment come last
    return {
        site: [
            case
            for case in sorted(CASES, key=lambda case: bool(case.variables))
            if site in case.sites
            and (not names or case.name in names)
            and (not ci or case.ci_site == site or bool(names))
        ]
        for site in sites
    }


def play_cases(
    lab: Lab, plan: Mapping[str, Sequence[Case]], say: Callable[[str], None], keep: Path, tries: int = 1
) -> list[dict[str, Any]]:
    """Play the cases of each site, all sites in parallel. Return the rows, and save them to the file `keep` as they come.

    A case is played up to `tries` times until it holds. A row's `earlier` has the failed attempts.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    lock = threading.Lock()
    errors: list[str] = []

    def ordered_rows() -> list[dict[str, Any]]:
        return [rows[case.name, site] for case in CASES for site in plan if (case.name, site) in rows]

    def play_site(site: str) -> None:
        try:
            with House(lab, site, lambda words: say(f"{site} {words}")) as house:
                house.ensure_ready()
                for case in plan[site]:
                    earlier: list[dict[str, Any]] = []
                    while len(earlier) < tries:
                        row = {**house.play_case(case), "earlier": list(earlier)}
                        held = "held" if not row["problems"] else row["problems"]
                        say(f"{site} {case.name}: {held} ({row['took']:.0f} s)")
                        with lock:
                            rows[case.name, site] = row
                            keep.write_text(json.dumps(ordered_rows(), indent=1) + "\n")
                        if not row["problems"]:
                            break
                        earlier.append({name: row[name] for name in ("problems", "happened", "journals")})
        except LabError as error:
            errors.append(f"{site}: {error}")

    threads = [threading.Thread(target=play_site, args=(site,)) for site in plan if plan[site]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise LabError("; ".join(errors))
    return ordered_rows()
