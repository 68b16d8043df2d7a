# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts in the lab, one after another, each with something that goes wrong: what is done, and what must be true afterwards."""

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
    attacked,
    attacked_by_stranger,
    boot,
    cut,
    deaf,
    empty,
    hardware,
    hears,
    killed,
    low,
    mains,
    on,
    quietly,
    reboot,
    wait,
    when,
)
from .verdict import Want, begins_within, guests_again, guests_ended, guests_first, primary_within, took

BOTH = ("pve8", "pve9")
OUT = (mains(False), wait(6))
OUTAGE = (*OUT, low())
WRONG_LOGIN = "sed -i '/^MONITOR/s/ [^ ]* slave$/ wrong slave/; /^MONITOR/s/ [^ ]* secondary$/ wrong secondary/' /etc/nut/upsmon.conf"
KEPT = "cp -p /etc/nut/upsmon.conf /root/upsmon.conf.kept"
BACK = "[ ! -e /root/upsmon.conf.kept ] || { mv /root/upsmon.conf.kept /etc/nut/upsmon.conf; systemctl restart nut-monitor; }"
FULL = """
for path in /var/log/nut /var/lib/nut-shutdown; do
    rm -rf /run/kept && cp -a "$path" /run/kept && mount -t tmpfs -o size=256k,mode=0755 full "$path" && cp -a /run/kept/. "$path"
    head -c 262144 /dev/zero >"$path/filler" || true
done 2>/dev/null
"""
# the user nut, whom drivers and upsd run as, fills the file system of POWERDOWNFLAG: its space, or the number of its files
RUN_FULL = """
mount -o remount,size=20m /run
runuser -u nut -- sh -c 'head -c 20971520 /dev/zero >/run/nut/filler; : >/run/nut/filler.too' || true
"""
RUN_OUT_OF_FILES = """
mount -o remount,nr_inodes=$(($(df --output=iused /run | tail -n 1) + 20)) /run
runuser -u nut -- sh -c 'n=0; while : >/run/nut/filler.$n; do n=$((n + 1)); done' || true
"""
# two guests on TrueNAS's disks, one on Proxmox's own
GUESTS = on("primary", "guests 101 and 201 on TrueNAS, 102 here", "lab-pve setup --nas truenas")
NO_GUESTS = (quietly("primary", "lab-pve remove"),)
STAGE = {"name": "nas", "on_battery": 5, "storage_of": ["truenas"]}
EITHER = Want("either", rules=(), soon=None)
STAYS = Want("stays")
# upsmon's poll, 5 s, and FINALDELAY of a secondary, 5 s; and no attack may delay that by more than 15 s
IN_TIME = Want(soon=None, also=(begins_within(12 + 15),))
SHORT_OUTAGE = 23  # seconds: longer than DEADTIME, and the battery is full

CASES: tuple[Case, ...] = (
    # TrueNAS's time
    Case(
        "nas-5",
        "TrueNAS takes 5 s to go down",
        OUTAGE,
        Want(also=(took(5),)),
        BOTH,
        nas=5,
        ci="pve8",
    ),
    Case(
        "nas-20",
        "TrueNAS takes 20 s",
        OUTAGE,
        Want(also=(took(20),)),
        BOTH,
        nas=20,
        ci="pve9",
    ),
    Case(
        "nas-60",
        "TrueNAS takes 60 s",
        OUTAGE,
        Want(also=(took(60),)),
        ("pve9",),
        nas=60,
        ci="pve9",
    ),
    # TrueNAS does not do its part
    Case(
        "nas-stopped",
        "upsmon on TrueNAS does not run",
        (on("nas", "upsmon stopped", "systemctl stop nut-monitor"), wait(2), *OUTAGE),
        Want(late=("nas",), lost=("nas",), rules=("limit",), soon=None, also=(primary_within(90),)),
        mended=(quietly("nas", "systemctl start nut-monitor"),),
        ci="pve8",
    ),
    Case(
        "nas-password",
        "TrueNAS has the wrong password, and never logs in",
        (
            on("nas", "wrong password", f"{KEPT}; {WRONG_LOGIN}; systemctl restart nut-monitor"),
            wait(8),
            *OUTAGE,
        ),
        # it may read the UPS without a login, and goes down by what it reads
        Want(late=("nas",), lost=("nas",), rules=("limit", "down"), soon=None, also=(primary_within(90),)),
        mended=(quietly("nas", BACK),),
    ),
    Case(
        "nas-hangs",
        "TrueNAS hangs for ever in its shutdown",
        OUTAGE,
        Want(late=("nas",), lost=("nas",), rules=("limit",), soon=None, also=(primary_within(90),)),
        nas=100000,
    ),
    Case(
        "nas-hangs-battery",
        "TrueNAS hangs for ever, and the battery lasts 75 s more",
        OUTAGE,
        Want(late=("nas",), lost=("nas",), rules=("battery",), soon=None, also=(primary_within(90),)),
        ("pve9",),
        nas=100000,
        battery=75,
        ci="pve9",
    ),
    Case(
        "nas-crashes",
        "TrueNAS's plug is pulled on battery",
        (*OUT, cut("nas"), wait(2), low()),
        Want(soon=None, also=(primary_within(60),)),
    ),
    Case(
        "nas-reboots",
        "TrueNAS is rebooted on battery, and the battery is low when it is back",
        (*OUT, reboot("nas"), when("all logged in", 60), low()),
        Want(),
        ("pve9",),
    ),
    # the network
    Case(
        "nas-deaf",
        "TrueNAS loses its network when the battery gets low",
        (*OUT, deaf("nas"), low()),
        # it knows that the UPS was on battery, and goes by itself; silent means down
        Want(late=("nas",), lost=("nas",), soon=None, also=(primary_within(90),)),
        mended=hears("nas"),
    ),
    Case(
        "nas-deaf-exporting",
        "TrueNAS loses its network while it exports its pools (12 s)",
        (*OUTAGE, when("nas begins"), wait(2), deaf("nas")),
        # silent means down: the primary may go first, but TrueNAS must be down when the UPS cuts the power
        Want(late=("nas",), soon=None, also=(primary_within(60),)),
        ("pve9",),
        nas=12,
        mended=hears("nas"),
        ci="pve9",
    ),
    Case(
        "nas-deaf-early",
        "TrueNAS loses its network on battery, half a minute before that is low",
        (*OUT, deaf("nas"), wait(30), low()),
        Want(late=("nas",), lost=("nas",), soon=None, also=(primary_within(90),)),
        ("pve9",),
        mended=hears("nas"),
    ),
    Case(
        "nas-deaf-back",
        "TrueNAS loses its network on battery for 40 s, and the mains return before the battery is low",
        (*OUT, deaf("nas"), wait(40), *hears("nas"), wait(5), mains(True)),
        STAYS,
        mended=hears("nas"),
    ),
    Case(
        "primary-deaf",
        "Proxmox's own network is gone in the gate",
        (*OUTAGE, when("gate"), deaf("primary")),
        # silent means down for it, too; TrueNAS has its time
        Want(late=("nas",), rules=("down", "assumed", "limit"), soon=None, also=(primary_within(110),)),
        nas=8,
        mended=hears("primary"),
    ),
    Case(
        "dns-gone",
        "The name server is gone when the gate begins",
        (*OUT, on("primary", "no name server", "echo 'nameserver 192.0.2.1' > /etc/resolv.conf"), low()),
        Want(soon=15.0),
        nas=8,
        mended=(quietly("primary", "true"),),
    ),
    # the mains return
    Case(
        "back-early",
        "The mains return before the battery is low",
        (*OUT, wait(4), mains(True)),
        STAYS,
        BOTH,
        ci="pve9",
    ),
    Case(
        "back-hostsync",
        "The mains return between FSD and the gate",
        (*OUTAGE, when("FSD"), mains(True)),
        Want(),
        ci="pve8",
    ),
    Case(
        "back-gate",
        "The mains return in the gate",
        (*OUTAGE, when("gate"), wait(2), mains(True)),
        Want(),
        ("pve9",),
        nas=12,
        ci="pve9",
    ),
    Case(
        "back-poweroff",
        "The mains return when Proxmox has begun to power off",
        (*OUTAGE, when("primary begins"), mains(True)),
        Want(),
        ci="pve8",
    ),
    Case(
        "back-down",
        "The mains return when all are down, before the UPS cuts the power",
        (*OUTAGE, when("all down"), mains(True)),
        Want(),
        ("pve9",),
    ),
    Case(
        "back-cut",
        "The mains return when the UPS has cut the power",
        (*OUTAGE, when("all down"), hardware("hurry", "hurry"), when("cut"), wait(2), mains(True)),
        Want(),
    ),
    Case(
        "low-twice",
        "The battery is low, the mains flicker, and it is low again",
        (
            *OUTAGE,
            wait(1),
            mains(True),
            wait(0.5),
            mains(False),
            low(),
            wait(3),
            mains(True),
            wait(0.5),
            mains(False),
            low(),
        ),
        Want(),
        ci="pve8",
    ),
    Case(
        "low-second",
        "The battery is low for a second, and the mains are back",
        (*OUTAGE, wait(1), mains(True)),
        EITHER,
        ("pve9",),
    ),
    Case(
        "outage-at-boot",
        "A second power cut while the machines boot after the first one; the battery is low at once",
        (
            *OUTAGE,
            when("all down"),
            mains(True),
            hardware("hurry", "hurry"),
            when("cut"),
            hardware("hurry", "hurry"),
            when("all run"),
            wait(3),
            mains(False),
            low(),
        ),
        # TrueNAS may be asked to go before it has logged in, or not at all if it comes late
        Want(soon=None),
        ("pve9",),
    ),
    # upsd
    Case(
        "upsd-mains",
        "upsd is killed on mains, half a minute before the power cut",
        (killed("upsd"), wait(30), *OUTAGE),
        Want(),
        BOTH,
        ci="pve8",
    ),
    Case(
        "upsd-battery",
        "upsd is killed on battery, 20 s before that is low",
        (*OUT, killed("upsd"), wait(20), low()),
        Want(rules=("down", "limit"), soon=None),
        BOTH,
        ci="pve9",
    ),
    Case(
        "upsd-battery-back",
        "upsd is killed on battery, and the mains return 20 s later",
        (*OUT, killed("upsd"), wait(20), mains(True)),
        EITHER,
        BOTH,
        stays=40,
    ),
    Case(
        "upsd-fsd",
        "upsd is killed at the FSD",
        (*OUTAGE, when("FSD"), killed("upsd")),
        Want(soon=None),
        BOTH,
        ci="pve8",
    ),
    Case(
        "upsd-gate",
        "upsd is killed in the gate",
        (*OUTAGE, when("gate"), killed("upsd")),
        Want(),
        BOTH,
        nas=12,
        ci="pve9",
    ),
    Case(
        "upsd-hangs",
        "upsd hangs in the gate (SIGSTOP)",
        (*OUTAGE, when("gate"), on("primary", "upsd stopped", "kill -STOP $(pidof upsd)")),
        Want(),
        ("pve9",),
        nas=12,
    ),
    # upsd, attacked by a machine that may reach it, and by one that may not: asked, and never listened to
    Case(
        "upsd-blocked-mains",
        "A secondary blocks upsd from 15 s before the power cut on",
        (attacked("other", 120), wait(15), *OUTAGE),
        IN_TIME,
        BOTH,
    ),
    Case(
        "upsd-blocked-battery",
        "A secondary blocks upsd on battery, 15 s before that is low",
        (*OUT, attacked("other", 120), wait(15), low()),
        IN_TIME,
        BOTH,
    ),
    Case(
        "upsd-blocked-low",
        "A secondary blocks upsd when the battery gets low",
        (*OUT, attacked("other", 120), low()),
        IN_TIME,
        BOTH,
    ),
    Case(
        "upsd-blocked-fsd",
        "A secondary blocks upsd at the FSD",
        (*OUTAGE, when("FSD"), attacked("other", 120)),
        IN_TIME,
        BOTH,
    ),
    Case(
        "upsd-blocked-short",
        "A secondary blocks upsd on battery, and the mains return 23 s later",
        (*OUT, attacked("other", SHORT_OUTAGE + 10), wait(SHORT_OUTAGE), mains(True)),
        STAYS,
        BOTH,
        stays=30,
    ),
    Case(
        "upsd-stranger-short",
        "A stranger attacks upsd on battery, and the mains return 23 s later",
        (*OUT, attacked_by_stranger(SHORT_OUTAGE + 10), wait(SHORT_OUTAGE), mains(True)),
        STAYS,
        BOTH,
        stays=30,
    ),
    Case(
        "upsd-stranger-low",
        "A stranger attacks upsd when the battery gets low",
        (*OUT, attacked_by_stranger(60), low()),
        IN_TIME,
        BOTH,
    ),
    # upsmon on the primary
    Case(
        "upsmon-mains",
        "upsmon is killed on mains, half a minute before the power cut",
        (killed("upsmon"), wait(30), *OUTAGE),
        Want(),
        BOTH,
        ci="pve8",
    ),
    Case(
        "upsmon-battery",
        "upsmon is killed on battery, 10 s before that is low",
        (*OUT, killed("upsmon"), wait(10), low()),
        Want(),
        BOTH,
        ci="pve8",
    ),
    Case(
        "upsmon-fsd",
        "upsmon is killed at the FSD",
        (*OUTAGE, when("FSD"), killed("upsmon")),
        Want(),
        BOTH,
        ci="pve9",
    ),
    Case(
        "upsmon-gate",
        "upsmon, which has ended after its SHUTDOWNCMD, is started again in the gate",
        (*OUTAGE, when("gate"), on("primary", "upsmon restarted", "systemctl restart nut-monitor")),
        Want(),
        BOTH,
        nas=12,
        ci="pve8",
    ),
    Case(
        "upsmon-gate-back",
        "upsmon is started again in the gate, after the mains have returned",
        (
            *(*OUTAGE, when("gate"), mains(True), wait(4)),
            on("primary", "upsmon restarted", "systemctl restart nut-monitor"),
        ),
        Want(),
        BOTH,
        nas=15,
        ci="pve9",
    ),
    Case(
        "nas-upsmon",
        "upsmon on TrueNAS is killed on battery",
        (*OUT, killed("upsmon", "nas"), wait(8), low()),
        Want(late=("nas",), lost=("nas",), rules=("down", "limit"), soon=None, also=(primary_within(120),)),
        mended=(quietly("nas", "systemctl start nut-monitor"),),
    ),
    # the gate
    Case(
        "gate-killed",
        "The gate's program is killed once",
        (*OUTAGE, when("gate"), wait(1), on("primary", "gate killed", "systemctl kill --signal=KILL nut-shutdown")),
        Want(),
        nas=12,
    ),
    Case(
        "gate-killed-always",
        "The gate's program is killed as often as it comes",
        (
            *(*OUTAGE, when("gate")),
            on(
                "primary",
                "gate killed again and again",
                "(for _ in $(seq 40); do systemctl kill --signal=KILL nut-shutdown; sleep 0.25; done) >/dev/null 2>&1 &",
            ),
        ),
        # there is nothing left that could wait, but the end is a poweroff
        Want(late=("nas", "media"), lost=("nas",), rules=(), soon=None, also=(primary_within(60),)),
        ("pve9",),
        nas=12,
    ),
    Case(
        "gate-hangs",
        "The gate's program is stopped (SIGSTOP)",
        (*OUTAGE, when("gate"), wait(1), on("primary", "gate stopped", "systemctl kill --signal=STOP nut-shutdown")),
        Want(rules=(), soon=None, also=(primary_within(180),)),
        nas=8,
    ),
    Case(
        "gate-missing",
        "nut-shutdown is gone from the disk",
        (on("primary", "nut-shutdown gone", "mv /usr/local/sbin/nut-shutdown /root/"), *OUTAGE),
        Want(late=("nas", "media"), lost=("nas",), rules=(), soon=None, also=(primary_within(60),)),
        ("pve9",),
        mended=(quietly("primary", "mv /root/nut-shutdown /usr/local/sbin/"),),
    ),
    Case(
        "disk-full",
        "The disk of Proxmox is full",
        (on("primary", "/var full", FULL, privileged=True), *OUTAGE),
        Want(rules=(), also=(primary_within(60),)),
        nas=8,
        mended=(quietly("primary", "umount /var/log/nut /var/lib/nut-shutdown", privileged=True),),
    ),
    # the file system of POWERDOWNFLAG
    Case(
        "run-full",
        "/run of Proxmox is full: the user nut has filled it",
        (on("primary", "/run full", RUN_FULL, privileged=True), *OUTAGE),
        Want(rules=(), also=(primary_within(60),)),
        BOTH,
        nas=8,
        ci="pve8",
    ),
    Case(
        "run-files",
        "/run of Proxmox takes no more files: upsmon can't even make its POWERDOWNFLAG",
        (on("primary", "/run takes no more files", RUN_OUT_OF_FILES, privileged=True), *OUTAGE),
        Want(rules=(), also=(primary_within(60),)),
        BOTH,
        nas=8,
    ),
    Case(
        "fsd-forged",
        "`nut-shutdown fsd` on mains; the user nut has forged upsmon's pid file",
        (
            on(
                "primary",
                "upsmon.pid forged",
                "runuser -u nut -- sh -c 'rm -f /run/nut/upsmon.pid; echo 1 >/run/nut/upsmon.pid'",
            ),
            on("primary", "nut-shutdown fsd", "nut-shutdown fsd"),
        ),
        Want(),
        BOTH,
        ci="pve9",
    ),
    # the driver, the UPS's USB cable
    Case(
        "driver-battery",
        "The driver is killed on battery, 25 s before that is low",
        (*OUT, killed("usbhid-ups"), wait(25), low()),
        Want(rules=("down", "limit"), soon=None),
        BOTH,
    ),
    Case(
        "driver-battery-back",
        "The driver is killed on battery, and the mains return 25 s later",
        (*OUT, killed("usbhid-ups"), wait(25), mains(True)),
        EITHER,
        BOTH,
        stays=40,
    ),
    Case(
        "driver-gate",
        "The driver is killed in the gate",
        (*OUTAGE, when("gate"), killed("usbhid-ups")),
        Want(),
        ("pve9",),
        nas=12,
    ),
    Case(
        "unplugged-battery",
        "The UPS's USB cable is pulled on battery, and put back when all are down; then the battery is empty",
        (
            *OUT,
            hardware("USB cable pulled", "unplug"),
            when("all down", 180),
            hardware("USB cable back", "replug"),
            empty(),
        ),
        # nobody can tell the UPS to cut the power, so only an empty battery does
        Want(rules=("down", "limit"), soon=None),
    ),
    Case(
        "unplugged-back",
        "The UPS's USB cable is pulled on battery and put back after 10 s",
        (
            *OUT,
            hardware("USB cable pulled", "unplug"),
            wait(10),
            hardware("USB cable back", "replug"),
            wait(10),
            low(),
        ),
        Want(rules=("down", "limit"), soon=None),
        BOTH,
    ),
    Case(
        "unplugged-gate",
        "The UPS's USB cable is pulled in the gate, and put back before its end",
        (
            *OUTAGE,
            when("gate"),
            hardware("USB cable pulled", "unplug"),
            wait(4),
            hardware("USB cable back", "replug"),
        ),
        Want(),
        ("pve9",),
        nas=15,
    ),
    Case(
        "ups-hangs",
        "The UPS's firmware hangs in the gate, until TrueNAS is down",
        (
            *(*OUTAGE, when("gate"), hardware("firmware hangs", "hang", how="nak")),
            *(when("nas down"), hardware("firmware works", "unhang")),
        ),
        Want(),
        nas=12,
    ),
    # Proxmox's guests
    Case(
        "guests",
        "Proxmox has guests, some of them on TrueNAS's storage, and no stage",
        (GUESTS, wait(2), *OUTAGE),
        Want(also=(guests_ended(102),)),
        mended=NO_GUESTS,
    ),
    Case(
        "stage",
        "A stage stops the guests on TrueNAS's storage after 5 s on battery, and then calls FSD; the battery is never low",
        (GUESTS, wait(2), mains(False)),
        Want(also=(guests_first(101, 201), guests_ended(101, 102, 201))),
        mended=NO_GUESTS,
        variables={"nut_server_stages": [{**STAGE, "fsd": True}]},
        ci="pve8",
    ),
    Case(
        "stage-back",
        "A stage stops the guests on TrueNAS's storage after 5 s on battery, and the mains return",
        (GUESTS, wait(2), mains(False), wait(22), mains(True)),
        Want("stays", also=(guests_again(101, 201),)),
        mended=NO_GUESTS,
        variables={"nut_server_stages": [STAGE]},
        # the mains must have been back for 30 s, and the guests are started one after the other
        stays=60,
    ),
    # the primary, and its admin
    Case(
        "primary-reboots",
        "Proxmox is rebooted on battery; the battery is low when it is back",
        (*OUT, reboot("primary"), when("battery", 60), wait(10), low()),
        Want(rules=("down", "limit"), soon=None),
        BOTH,
        ci="pve9",
    ),
    Case(
        "primary-reboots-back",
        "Proxmox is rebooted on battery, and the mains return when it is back",
        (*OUT, reboot("primary"), when("battery", 60), wait(10), mains(True)),
        EITHER,
        BOTH,
        stays=30,
    ),
    Case(
        "primary-crashes",
        "Proxmox's plug is pulled in the gate; it boots, and the battery is low still",
        (*OUTAGE, when("gate"), wait(1), cut("primary"), wait(1), boot("primary")),
        Want(soon=None),
        nas=12,
        ci="pve8",
    ),
    Case(
        "admin-poweroff",
        "The admin powers Proxmox off on battery; then the battery is empty",
        (*OUT, on("primary", "systemctl poweroff", "systemctl poweroff"), when("all down", 180), empty()),
        # that is no shutdown of NUT's, and the admin's own order; nobody may lose power while it runs
        Want(late=("nas", "media"), rules=(), soon=None),
    ),
    Case(
        "admin-poweroff-gate",
        "The admin powers Proxmox off in the gate",
        (*OUTAGE, when("gate"), on("primary", "systemctl poweroff", "systemctl poweroff")),
        Want(late=("nas",), rules=(), soon=None),
        ("pve9",),
        nas=8,
    ),
    Case(
        "admin-fsd",
        "The admin calls `upsmon -c fsd` on mains",
        (on("primary", "upsmon -c fsd", "/sbin/upsmon -c fsd"),),
        Want(),
        BOTH,
    ),
)

RELEASES = {"pve8": "2.8.0", "pve9": "2.8.1"}


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Draw the table of what happened."""
    lines = [
        "| case | what is done | NUT | what happened (seconds) | verdict |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        verdict = "held" if not row["problems"] else f"**FAILED**: {'; '.join(row['problems'])}"
        cells = (f"`{row['case']}`", row["words"], RELEASES.get(row["site"], row["site"]), row["happened"], verdict)
        lines.append(f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def chosen(names: Sequence[str], sites: Sequence[str], ci: bool) -> dict[str, list[Case]]:
    """Return which cases are played at which site. Raises LabError for a name that no case has."""
    unknown = sorted(set(names) - {case.name for case in CASES})
    if unknown:
        raise LabError(f"no such case: {', '.join(unknown)}. There are: {', '.join(case.name for case in CASES)}")
    # those that need another deployment come last
    return {
        site: [
            case
            for case in sorted(CASES, key=lambda case: bool(case.variables))
            if site in case.sites and (not names or case.name in names) and (not ci or case.ci == site or bool(names))
        ]
        for site in sites
    }


def play(
    lab: Lab, plan: Mapping[str, Sequence[Case]], say: Callable[[str], None], keep: Path, tries: int = 1
) -> list[dict[str, Any]]:
    """Play the cases of each site, the sites beside each other; return the rows, which are also kept in a file as they come.

    tries: how often a case is played, at most, until it holds. What was seen of those that did not is in the row's `earlier`.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    lock = threading.Lock()
    errors: list[str] = []

    def ordered() -> list[dict[str, Any]]:
        return [rows[case.name, site] for case in CASES for site in plan if (case.name, site) in rows]

    def work(site: str) -> None:
        try:
            with House(lab, site, lambda words: say(f"{site} {words}")) as house:
                house.ready()
                for case in plan[site]:
                    earlier: list[dict[str, Any]] = []
                    while len(earlier) < tries:
                        row = {**house.play(case), "earlier": list(earlier)}
                        held = "held" if not row["problems"] else row["problems"]
                        say(f"{site} {case.name}: {held} ({row['took']:.0f} s)")
                        with lock:
                            rows[case.name, site] = row
                            keep.write_text(json.dumps(ordered(), indent=1) + "\n")
                        if not row["problems"]:
                            break
                        earlier.append({name: row[name] for name in ("problems", "happened", "journals")})
        except LabError as error:
            errors.append(f"{site}: {error}")

    threads = [threading.Thread(target=work, args=(site,)) for site in plan if plan[site]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise LabError("; ".join(errors))
    return ordered()
