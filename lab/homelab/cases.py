# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Power cuts in the lab, one after another, each with something that goes wrong; what happened, and whether it was right.

CASES says what is done, and what must be true afterwards. House does it to a site's machines, and is the physics of it: who has
no power stops at once, and who gets power starts. judge() looks at what was seen, and at nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import CHECKOUT, Lab, _moment
from .hosts import SITES, Host
from .podman import PODMAN, LabError, podman, run

SETTLE = 3.0  # nut_server_gate_settle, as the lab's inventory leaves it
SOON = 8.0
"""Seconds from the end of the last secondary to the begin of the primary's shutdown, at most: SETTLE, up to 3 s for a look at the
machines and for systemd, and FINALDELAY, if that secondary is down as soon as it has logged out."""

QUEUE_SECONDS = 3.0
"""What is added to each limit for each further process that waits for a processor: on a machine that runs other tests at the
same time, each of the gate's looks, and systemd's first step, wait for one."""

READY_SECONDS = 120.0  # from power to a homelab that serves its UPS; 15 to 30 on two cores
TICK = 0.4
DRAIN_INTERVAL = 2.0

# What the primary says of itself, a line for each change: status of the UPS, POWERDOWNFLAG, and whether the gate has begun. The
# shell asks upsd itself, and starts no program: three times a second, it would take more of the machine than what it watches.
WATCH = """
trap '' PIPE
ask() {
    status=none
    [ -n "$open" ] || { { exec 3<>/dev/tcp/localhost/3493; } 2>/dev/null && open=yes; } || return
    if printf 'GET VAR ups ups.status\\n' >&3 && read -r -t 2 answer <&3; then
        case $answer in VAR*) status=${answer#*\\"}; status=${status%\\"*} ;; esac
    else
        exec 3>&-
        open=
    fi
}
while :; do
    ask 2>/dev/null
    flag=-; [ -e /run/nut/killpower ] && flag=flag
    gate=-; [ -e /run/nut-shutdown/gate.json ] && gate=gate
    new="$status|$flag|$gate"
    [ "$new" = "$old" ] || { echo "$EPOCHREALTIME|$new"; old=$new; }
    read -r -t 0.3 _line
    [ $? -gt 128 ] || exit 0
done
"""

GONE = "pkill -KILL -x {0}"  # of any program, all its processes


# What is seen


@dataclass(frozen=True)
class Fall:
    """How a machine went down. began, down: seconds since the case began; began is None if it had no time to.

    how: "shutdown", by itself; "lost", it ran when its outlet went off; "pulled" and "reboot", the case did it; "stopped", it
    ended without a shutdown.
    """

    host: str
    role: str
    began: float | None
    down: float
    how: str


@dataclass(frozen=True)
class Seen:
    """What was seen of a case. Times: seconds since it began.

    events: what happened to whom, in words. cuts: when the outlets went off. gate: the report of nut-shutdown, if it ran.
    asleep: who stayed off though there was power. unwell: what was wrong when all had been up again for a while. busy: how many
    processes there were for each processor, at most.
    """

    primary: str
    secondaries: tuple[str, ...]
    falls: tuple[Fall, ...] = ()
    cuts: tuple[float, ...] = ()
    events: tuple[tuple[float, str], ...] = ()
    gate: Mapping[str, Any] | None = None
    asleep: tuple[str, ...] = ()
    unwell: tuple[str, ...] = ()
    guests: tuple[tuple[float, int, str], ...] = ()
    busy: float = 0.0

    @property
    def patience(self) -> float:
        """Seconds that all may take longer."""
        return patience(self.busy)

    def last(self, host: str) -> Fall | None:
        """Return how a machine went down at last, but for reboots."""
        found = [fall for fall in self.falls if fall.host == host and fall.how != "reboot"]
        return found[-1] if found else None


def patience(busy: float) -> float:
    """Return how many seconds a limit is longer on a machine with so many processes for each processor."""
    return QUEUE_SECONDS * max(0.0, busy - 1)


# What must be true

Check = Callable[[Seen], "list[str]"]


@dataclass(frozen=True)
class Want:
    """What must be true of a case.

    ends: "stays", nobody goes down; "cycle", all go down, lose their power, and come back; "either" of them, and nothing between.
    late: who may be up when the primary begins to power off. lost: who may lose its power while it runs. rules: by which of them
    the gate must have ended; () if it need not have run. soon: how long after the last secondary the primary begins; None: not
    looked at. also: what else.
    """

    ends: str = "cycle"
    late: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    rules: tuple[str, ...] = ("down",)
    soon: float | None = SOON
    also: tuple[Check, ...] = ()


def judge(want: Want, seen: Seen) -> list[str]:
    """Say in words what was wrong. Nothing: it was as it must be."""
    hosts = (seen.primary, *seen.secondaries)
    fell = [fall for fall in seen.falls if fall.how in ("shutdown", "lost", "stopped")]
    wrong = [f"{host} stayed off, and nothing would have started it" for host in seen.asleep]
    wrong += [
        f"{fall.host} lost its power while it ran" for fall in fell if fall.how == "lost" and fall.host not in want.lost
    ]
    wrong += [f"{fall.host} stopped without a shutdown" for fall in fell if fall.how == "stopped"]
    if want.ends == "cycle" or (want.ends == "either" and fell):
        wrong += _cycle(want, seen, hosts)
    elif fell:
        wrong += [f"{fall.host} went down" for fall in fell]
    elif seen.cuts:
        wrong.append("the UPS cut its outlets")
    return [*wrong, *(words for check in want.also for words in check(seen)), *seen.unwell]


def _cycle(want: Want, seen: Seen, hosts: Sequence[str]) -> list[str]:
    wrong = [f"{host} did not go down" for host in hosts if seen.last(host) is None]
    primary = seen.last(seen.primary)
    if primary is None or primary.how != "shutdown" or primary.began is None:
        return [*wrong, f"{seen.primary} began no shutdown of its own"]
    if not [cut for cut in seen.cuts if cut >= primary.down]:
        wrong.append("the UPS did not cut its outlets, so nothing starts when the mains return")
    for host in seen.secondaries:
        fall = seen.last(host)
        if fall and host not in want.late and fall.down >= primary.began:
            wrong.append(
                f"{host} was not down when {seen.primary} began to power off, {fall.down - primary.began:.1f} s too late"
            )
    if want.rules:
        rule = seen.gate["rule"] if seen.gate else None
        if rule not in want.rules:
            wrong.append(f"the gate ended by the rule {rule}, not {' or '.join(want.rules)}")
    after = waited(seen)
    if want.soon is not None and after is not None and after > want.soon + seen.patience:
        most = want.soon + seen.patience
        wrong.append(f"{seen.primary} began {after:.1f} s after the last secondary was down; {most:g} s at most")
    return wrong


def waited(seen: Seen) -> float | None:
    """Return the seconds from the end of the last secondary to the begin of the primary's own shutdown, if there are such."""
    primary = seen.last(seen.primary)
    downs = [fall.down for host in seen.secondaries if (fall := seen.last(host))]
    if primary is None or primary.began is None or not downs:
        return None
    return primary.began - max(downs)


def took(seconds: float) -> Check:
    """TrueNAS really took that long: a quick one would prove nothing."""

    def check(seen: Seen) -> list[str]:
        fall = seen.last(seen.secondaries[0])
        if fall is None or fall.began is None or fall.down - fall.began < seconds:
            return [f"{seen.secondaries[0]} did not take {seconds:g} s to go down"]
        return []

    return check


def primary_within(seconds: float) -> Check:
    """The primary began that soon after the battery was low (or after the FSD)."""

    def check(seen: Seen) -> list[str]:
        fall = seen.last(seen.primary)
        start = next((at for at, words in seen.events if words in ("battery low", "FSD")), None)
        if start is None or fall is None or fall.began is None or fall.began - start > seconds + seen.patience:
            return [f"{seen.primary} did not begin to power off within {seconds:g} s"]
        return []

    return check


def guests_first(*numbers: int) -> Check:
    """These guests were down before the first secondary began to go down."""

    def check(seen: Seen) -> list[str]:
        fall = seen.last(seen.secondaries[0])
        wrong = []
        for number in numbers:
            down = next((at for at, one, what in seen.guests if one == number and what in ("down", "killed")), None)
            if down is None or fall is None or fall.began is None or down >= fall.began:
                wrong.append(f"guest {number} was not down before {seen.secondaries[0]} began to go down")
        return wrong

    return check


def guests_ended(*numbers: int) -> Check:
    """These guests went down by themselves, before the primary was down."""

    def check(seen: Seen) -> list[str]:
        fall = seen.last(seen.primary)
        wrong = []
        for number in numbers:
            down = next((at for at, one, what in seen.guests if one == number and what == "down"), None)
            if down is None or fall is None or down >= fall.down:
                wrong.append(f"guest {number} did not go down by itself")
        return wrong

    return check


def guests_again(*numbers: int) -> Check:
    """These guests were stopped, and started again."""

    def check(seen: Seen) -> list[str]:
        wrong = []
        for number in numbers:
            done = [what for _at, one, what in seen.guests if one == number]
            if done[-3:] != ["told", "down", "started"]:
                wrong.append(
                    f"guest {number} was not stopped and started again: {', '.join(done) or 'nothing is known of it'}"
                )
        return wrong

    return check


# What is done: each step is a function of the house


Step = Callable[["House"], None]


def mains(on: bool) -> Step:
    """Take the mains away, or bring them back."""
    return lambda house: house.mains(on)


def low() -> Step:
    """The battery is low."""
    return lambda house: house.low()


def empty() -> Step:
    """The battery is empty: whoever runs loses its power."""
    return lambda house: house.empty()


def hardware(words: str, command: str, **request: object) -> Step:
    """Do something to the UPS, as lab/ups does."""

    def step(house: House) -> None:
        house.note(words)
        house.hardware(command, **request)

    return step


def wait(seconds: float) -> Step:
    """Let time pass."""
    return lambda house: time.sleep(seconds)


def when(phase: str, seconds: float = 120.0) -> Step:
    """Wait for something: see House.is_at."""
    return lambda house: house.when(phase, seconds)


def on(who: str, words: str, script: str, privileged: bool = False) -> Step:
    """Run a script on a machine, as root. who: primary, nas, or a name."""

    def step(house: House) -> None:
        house.note(f"{house.name(who)}: {words}")
        house.execute(who, script, privileged=privileged)

    return step


def quietly(who: str, script: str, privileged: bool = False) -> Step:
    """Put something right after a case, if it still needs it."""

    def step(house: House) -> None:
        house.execute(who, script, privileged=privileged, check=False)

    return step


def killed(program: str, who: str = "primary", after: str = "") -> Step:
    """Kill a program, all its processes, by SIGKILL."""
    return on(who, f"{program} killed{after}", GONE.format(program))


def cut(who: str) -> Step:
    """Pull the plug of a machine."""
    return lambda house: house.pull(who)


def boot(who: str) -> Step:
    """Start a machine whose plug was pulled."""
    return lambda house: house.boot(who)


def reboot(who: str) -> Step:
    """Reboot a machine as its admin does, and wait until it is up again."""
    return lambda house: house.reboot(who)


def deaf(who: str) -> Step:
    """Take a machine's network away."""
    return on(who, "network gone", "ip link set eth0 down", privileged=True)


def hears(who: str) -> tuple[Step, ...]:
    """Give it back."""
    return (quietly(who, "ip link set eth0 up", privileged=True),)


@dataclass(frozen=True)
class Case:
    """A power cut. words: what is done. sites: where. nas: seconds that TrueNAS takes to go down.

    battery: seconds that it lasts from "low" on; None: for ever. stays: seconds to watch before "nobody goes down" is believed.
    mended: what is put right after it. ci: at which site each run of the tests has it.
    variables: Ansible's extra variables that it is deployed with.
    """

    name: str
    words: str
    steps: tuple[Step, ...]
    want: Want = field(default_factory=Want)
    sites: tuple[str, ...] = ("pve8",)
    nas: float = 5.0
    battery: float | None = None
    stays: float = 20.0
    mended: tuple[Step, ...] = ()
    ci: str = ""
    variables: Mapping[str, object] | None = None


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
# two guests on TrueNAS's disks, one on Proxmox's own
GUESTS = on("primary", "guests 101 and 201 on TrueNAS, 102 here", "lab-pve setup --nas truenas")
NO_GUESTS = (quietly("primary", "lab-pve remove"),)
STAGE = {"name": "nas", "on_battery": 5, "storage_of": ["truenas"]}
EITHER = Want("either", rules=(), soon=None)
STAYS = Want("stays")

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


# The edge


class House:
    """A site's machines, its UPS, and the wires between them; and what is seen of all that."""

    def __init__(self, lab: Lab, site: str, say: Callable[[str], None]) -> None:
        """Take the site over; it must be up, with one UPS."""
        self.lab, self.site, self.say = lab, site, say
        self.hosts: dict[str, Host] = {host.name: host for host in SITES[site]}
        self.primary = next(host.name for host in SITES[site] if host.ups)
        self.nas = next(host.name for host in SITES[site] if host.kind == "truenas")
        self.secondaries = (self.nas, *(name for name in self.hosts if name not in (self.primary, self.nas)))
        self.lock = threading.RLock()
        self.pids = {name: self._pid(name) for name in self.hosts}
        self.since = dict.fromkeys(self.hosts, 0.0)  # when each was started last
        self.begun: dict[str, float | None] = dict.fromkeys(self.hosts)
        self.doing: dict[str, str] = {}
        self.power, self.drained, self.full = True, 0.0, 0
        self.empty_at: float | None = None
        self.heard = ("", "-", "-")
        self.case: Case | None = None
        self.busy = 0.0
        self.deployed: Mapping[str, object] | None = None
        self.start = time.time()
        self.events: list[tuple[float, str]] = []
        self.falls: list[Fall] = []
        self.cuts: list[float] = []
        self.halt = threading.Event()
        self.ears: subprocess.Popen[str] | None = None
        self.broken: Exception | None = None
        self.physics = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> House:
        self._listen()
        self.physics.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.halt.set()
        self.physics.join()
        if self.ears and self.ears.stdin:
            self.ears.stdin.close()
            self.ears.wait()

    # A case

    def play(self, case: Case) -> dict[str, Any]:
        """Do a case, and return its row. Raises LabError if the site can't be brought back to what it was."""
        if case.variables != self.deployed:
            self.say(f"{case.name}: deploying {json.dumps(case.variables)}")
            deploy(self.lab, self.hosts, case.variables)
            self.deployed = case.variables
        self.execute("nas", f"echo {case.nas:g} >/etc/lab/shutdown-seconds")
        with self.lock:
            self.case, self.start = case, time.time()
            self.events, self.falls, self.cuts, self.busy = [], [], [], 0.0
        (self.lab.state / "hosts" / self.primary / "guests").unlink(missing_ok=True)
        unwell = []
        try:
            for step in case.steps:
                step(self)
        except LabError as error:
            unwell.append(f"the case could not be played: {error}")
        asleep = self._end(case)
        guests = self._guests()
        unwell += self._recover(case)
        seen = replace(self.seen(asleep, unwell), guests=guests)
        want = replace(
            case.want,
            late=tuple(self.name(one) for one in case.want.late),
            lost=tuple(self.name(one) for one in case.want.lost),
        )
        problems = judge(want, seen)
        if unwell:
            self._rescue()
        return {
            "case": case.name,
            "site": self.site,
            "words": case.words,
            "happened": story(seen),
            "problems": problems,
            "waited": waited(seen),
            "busy": round(seen.busy, 1),
            "rule": seen.gate["rule"] if seen.gate else None,
            "falls": [asdict(fall) for fall in seen.falls],
            "took": round(time.time() - self.start, 1),
        }

    def seen(self, asleep: Sequence[str], unwell: Sequence[str]) -> Seen:
        """Return what was seen of this case."""
        gate = None
        with contextlib.suppress(LabError, ValueError):
            report = json.loads(self.execute("primary", "cat /var/lib/nut-shutdown/last.json"))
            gate = report if report["began"] >= self.start - 1 else None
        with self.lock:
            return Seen(
                self.primary,
                self.secondaries,
                tuple(self.falls),
                tuple(self.cuts),
                tuple(sorted(self.events)),
                gate,
                tuple(asleep),
                tuple(unwell),
                busy=self.busy,
            )

    def _guests(self) -> tuple[tuple[float, int, str], ...]:
        """Return what Proxmox's guests noted of themselves: when, which, what."""
        try:
            lines = (self.lab.state / "hosts" / self.primary / "guests").read_text().splitlines()
        except FileNotFoundError:
            return ()
        return tuple((float(at) - self.start, int(number), what) for at, number, what in map(str.split, lines))

    def _end(self, case: Case) -> list[str]:
        """Watch until nothing more happens, let the mains return and the UPS do its cycle. Returns who stayed off."""
        stays = case.want.ends != "cycle"
        hopeless = {self.name(one) for one in case.want.lost}
        begun = time.time()
        while not set(self.running()) <= (hopeless if self.primary not in self.running() else set()):
            quiet = case.stays if stays and not self.goes() else 130.0
            if time.time() - max([begun, *(self.start + at for at, _words in self.events)]) > quiet:
                break
            self._alive()
            time.sleep(TICK)
        if not self.hardware("status")["mains"]:
            # the UPS is told at the very end, and podman may have seen that end before
            time.sleep(1)
            self.hurry(hopeless)
            self.mains(True)
        if set(self.running()) == set(self.hosts) and not self.pending():
            return []
        # whoever is off gets its power back from the UPS alone
        deadline = time.monotonic() + 150
        idle = 0
        while time.monotonic() < deadline and not (set(self.running()) == set(self.hosts) and not self.pending()):
            self.hurry(hopeless)
            idle = 0 if self.pending() or not self.power or any(self.begun.values()) else idle + 1
            if idle > 12:
                break
            self._alive()
            time.sleep(1)
        asleep = sorted(set(self.hosts) - set(self.running()))
        for name in asleep:
            self.note(f"{name} stays off")
        return asleep

    def goes(self) -> bool:
        """Say whether somebody goes down, has gone, or is about to."""
        status, flag, gate = self.heard
        about = "FSD" in status.split() or flag != "-" or gate != "-"
        return about or any(self.begun.values()) or any(fall.how == "shutdown" for fall in self.falls)

    def hurry(self, hopeless: set[str]) -> None:
        """Spare the time in which nothing happens: all are down, but the UPS waits."""
        if set(self.running()) <= hopeless and self.pending():
            self.hardware("hurry")
            # the machines must lose their power before it is there again
            deadline = time.monotonic() + 10
            while self.power != all(one["outlets"] for one in self._upses()) and time.monotonic() < deadline:
                time.sleep(0.1)

    def pending(self) -> bool:
        """Say whether the UPS is about to switch its outlets, or has them off."""
        return not all(one["outlets"] and one["shutdown_in"] < 0 for one in self._upses())

    def _recover(self, case: Case) -> list[str]:
        """Start who is still off, and wait until all is as before. Returns what is not."""
        for name in sorted(set(self.hosts) - set(self.running())):
            self._start(name)
        deadline = time.monotonic() + READY_SECONDS
        again = 0.0
        while True:
            # more than once: a machine that is just starting may not be ready for it
            if time.monotonic() >= again:
                again = time.monotonic() + 15
                for step in case.mended:
                    step(self)
            wrong = self.unwell()
            if not wrong:
                return []
            if time.monotonic() > deadline:
                return [f"when all was over: {words}" for words in wrong]
            self._alive()
            time.sleep(1)

    def ready(self) -> None:
        """Have all as it must be before the first case. Raises LabError if that can't be had."""
        deadline = time.monotonic() + 20
        while self.unwell():
            if time.monotonic() > deadline:
                self._rescue()
                return
            time.sleep(1)

    def _rescue(self) -> None:
        """Start all machines anew, as a person would who does not know why. Raises LabError if that does not help."""
        self.say("all machines are started anew")
        if not self.hardware("status")["upses"]:
            self.hardware("replug")
        with contextlib.suppress(LabError):
            self.hardware("unhang")
        self.mains(True)
        for name in self.hosts:
            if name in self.running():
                self.pull(name)
            deadline = time.monotonic() + 30
            while name in self.running() and time.monotonic() < deadline:
                time.sleep(TICK)
            self._start(name)
        deadline = time.monotonic() + READY_SECONDS
        while wrong := self.unwell():
            if time.monotonic() > deadline:
                raise LabError(f"{self.site} does not come back: {'; '.join(wrong)}")
            time.sleep(1)

    def unwell(self) -> list[str]:
        """Say what is not as it should be between two cases."""
        away = [f"{name} is off" for name in self.hosts if name not in self.running()]
        if away:
            return away
        status, flag, gate = self.heard
        wrong = [] if status.split()[:1] == ["OL"] and "FSD" not in status else [f"upsd says {status or 'nothing'}"]
        wrong += [f"{self.primary} has the POWERDOWNFLAG"] if flag != "-" else []
        wrong += [f"{self.primary} has a gate"] if gate != "-" else []
        if self.pending():
            wrong.append("the UPS is about to cut its outlets")
        if not wrong:
            try:
                there = int(self.execute("primary", "upsc -c ups@localhost 2>/dev/null | sort -u | wc -l"))
            except (LabError, ValueError):
                there = 0
            if there < len(self.hosts):
                wrong.append(f"{there} of {len(self.hosts)} are logged in at upsd")
        return wrong

    # Deeds

    def name(self, who: str) -> str:
        """Return the host of a role, or of a name."""
        return {"primary": self.primary, "nas": self.nas}.get(who, who)

    def note(self, words: str, at: float | None = None) -> None:
        """Note that something happened, now or at a time (seconds since 1970)."""
        with self.lock:
            since = (time.time() if at is None else at) - self.start
            self.events.append((round(since, 1), words))
        self.say(f"{self.case.name if self.case else ''}: {since:6.1f} s  {words}")

    def mains(self, on: bool) -> None:
        """Take the mains away, or bring them back."""
        self.note(f"mains {'on' if on else 'off'}")
        with self.lock:
            self.hardware("mains", on=on)
            if on and self.empty_at is not None:
                self.empty_at = None
                self.hardware("set", values={"runtime": self.full})

    def low(self) -> None:
        """The battery is low; from here on it lasts as long as the case says."""
        self.note("battery low")
        self.hardware("low")
        if self.case and self.case.battery:
            with self.lock:
                self.full = self._upses()[0]["state"]["runtime"]
                self.empty_at = time.time() + self.case.battery

    def empty(self) -> None:
        """The battery is empty."""
        self.note("battery empty")
        self.hardware("empty")

    def execute(self, who: str, script: str, *, privileged: bool = False, check: bool = True) -> str:
        """Run a script on a machine, past its network; return what it prints. Raises LabError if it fails."""
        more = ["--privileged"] if privileged else []
        container = self.lab.container(self.name(who))
        return podman("exec", *more, container, "sh", "-c", script, check=check).stdout

    def when(self, phase: str, seconds: float) -> None:
        """Wait for a phase. Raises LabError if it does not come."""
        deadline = time.monotonic() + seconds
        while not self.is_at(phase):
            if time.monotonic() > deadline:
                raise LabError(f"not within {seconds:g} s: {phase}")
            self._alive()
            time.sleep(0.1)

    def is_at(self, phase: str) -> bool:
        """Say whether a case has come to a phase."""
        status, _flag, gate = self.heard
        ran = {fall.host for fall in self.falls}
        looks: dict[str, Callable[[], bool]] = {
            "battery": lambda: "OB" in status.split(),
            "FSD": lambda: "FSD" in status.split(),
            "gate": lambda: gate == "gate",
            "primary begins": lambda: self.begun[self.primary] is not None,
            "nas begins": lambda: self.begun[self.nas] is not None,
            "nas down": lambda: self.nas in ran and self.nas not in self.running(),
            "all down": lambda: not self.running(),
            "all run": lambda: self.power and len(self.running()) == len(self.hosts),
            "all logged in": lambda: "OB" in status.split() and self._clients() >= len(self.hosts),
            "cut": lambda: not self.power,
        }
        return looks[phase]()

    def _clients(self) -> int:
        return int(self.execute("primary", "upsc -c ups@localhost 2>/dev/null | sort -u | wc -l", check=False) or 0)

    def pull(self, who: str) -> None:
        """Pull a machine's plug."""
        name = self.name(who)
        self.note(f"{name}: plug pulled")
        with self.lock:
            self.doing[name] = "pulled"
            podman("kill", self.lab.container(name))

    def boot(self, who: str) -> None:
        """Start a machine."""
        name = self.name(who)
        deadline = time.monotonic() + 30
        while name in self.running() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.note(f"{name}: plug back")
        self._start(name)

    def reboot(self, who: str) -> None:
        """Reboot a machine: what podman sees as an end is followed by a start."""
        name = self.name(who)
        self.note(f"{name}: reboot")
        with self.lock:
            self.doing[name] = "reboot"
        self.execute(who, "systemctl reboot", check=False)
        deadline = time.monotonic() + 90
        while name in self.running():
            if time.monotonic() > deadline:
                raise LabError(f"{name} does not reboot within 90 s")
            time.sleep(0.1)
        self._start(name)

    def running(self) -> list[str]:
        """Name the machines that run."""
        with self.lock:
            return [name for name, pid in self.pids.items() if pid]

    def hardware(self, command: str, **request: object) -> dict[str, Any]:
        """Ask the UPS's emulator. Raises LabError if it refuses."""
        folder = self.lab.state / "usb" / self.primary
        # a socket's path is short, so it is named through its open directory
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(f"/proc/self/fd/{directory}/control")
                client.sendall(json.dumps({"command": command, **request}).encode() + b"\n")
                with client.makefile("rb") as stream:
                    answer: dict[str, Any] = json.loads(stream.readline())
        finally:
            os.close(directory)
        if not answer.get("ok"):
            raise LabError(f"the UPS of {self.primary}: {answer.get('error')}")
        return answer

    def _upses(self) -> list[dict[str, Any]]:
        status = self.hardware("status")
        return [*status["upses"], *status["unplugged"]]

    # Physics

    def _run(self) -> None:
        missed = 0
        while not self.halt.wait(TICK):
            try:
                self._tick()
                missed = 0
            except Exception as error:
                # told by whoever waits for something; on a machine that does much else, one answer may come too late
                missed += 1
                if missed > 5:
                    self.broken = error
                    return

    def _alive(self) -> None:
        if self.broken:
            raise LabError(f"the watch of {self.site} failed: {type(self.broken).__name__}: {self.broken}")

    def _tick(self) -> None:
        with self.lock:
            self.busy = max(self.busy, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
            self._battery()
            upses = self._upses()
            power = all(one["outlets"] for one in upses)
            for name, pid in self.pids.items():
                if pid:
                    self._look(name, pid)
            if self.power and not power:
                at = max(
                    _moment(event["time"])
                    for one in upses
                    for event in one["events"]
                    if event["event"] == "outlets off"
                )
                self.cuts.append(at - self.start)
                self.note("the UPS cuts the power", at)
                for name in self.running():
                    self.doing[name] = "lost"
                    podman("kill", self.lab.container(name), check=False)
            if power and not self.power:
                self.note("the UPS gives power")
                self.power = True
                for name in self.hosts:
                    if name not in self.running():
                        self._start(name)
            self.power = power

    def _battery(self) -> None:
        if self.empty_at is None or time.time() - self.drained < DRAIN_INTERVAL:
            return
        self.drained = time.time()
        left = self.empty_at - time.time()
        self.hardware("set", values={"runtime": max(round(left), 1)})
        if left <= 0:
            self.empty_at = None
            self.hardware("empty")

    def _look(self, name: str, pid: int) -> None:
        """Note a machine's begin and end."""
        began = None
        with contextlib.suppress(FileNotFoundError, ValueError):
            began = float((self.lab.state / "hosts" / name / "shutdown-began").read_text())
        if began is not None and began > self.since[name] and self.begun[name] is None:
            self.begun[name] = began
            self.note(f"{name} begins to shut down", began)
        if Path(f"/proc/{pid}").exists():
            return
        state = json.loads(podman("inspect", "--type", "container", self.lab.container(name)).stdout)[0]["State"]
        if state["Status"] in ("running", "stopping"):
            return
        down = _moment(state["FinishedAt"])
        started = self.begun[name]
        how = self.doing.pop(name, "shutdown" if started is not None else "stopped")
        role = "primary" if name == self.primary else "secondary"
        self.falls.append(Fall(name, role, None if started is None else started - self.start, down - self.start, how))
        self.pids[name], self.begun[name] = 0, None
        if name == self.primary:
            self.heard = ("", "-", "-")
        self.note(f"{name} is down" if how == "shutdown" else f"{name} is down ({how})", down)

    def _start(self, name: str) -> None:
        """Give a machine power."""
        with self.lock:
            if self.pids[name]:
                return
            self.doing.pop(name, None)
            self.since[name] = time.time()
            podman("start", self.lab.container(name))
            self.pids[name] = self._pid(name)
        if name == self.primary:
            self._listen()

    def _pid(self, name: str) -> int:
        return int(podman("inspect", "--format", "{{.State.Pid}}", self.lab.container(name)).stdout)

    def _listen(self) -> None:
        """Hear what the primary says of itself."""
        ears = subprocess.Popen(
            [*PODMAN, "exec", "--interactive", self.lab.container(self.primary), "bash", "-c", WATCH],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.ears = ears

        def listen() -> None:
            for line in ears.stdout or ():
                at, status, flag, gate = line.strip().split("|")
                with self.lock:
                    if self.ears is not ears:
                        return
                    old, self.heard = self.heard, (status, flag, gate)
                for words in changes(old, self.heard):
                    self.note(words, float(at))

        threading.Thread(target=listen, daemon=True).start()


def changes(old: tuple[str, str, str], new: tuple[str, str, str]) -> list[str]:
    """Say in words what is new of what the primary says of itself."""
    words = []
    before, now = set(old[0].split()), set(new[0].split())
    if "FSD" in now and "FSD" not in before:
        words.append("FSD")
    elif new[0] == "none" and old[0] not in ("none", ""):
        words.append("upsd says nothing")
    elif old[0] == "none" and now and new[0] != "none":
        words.append(f"upsd says {new[0]}")
    if new[1] != "-" and old[1] == "-":
        words.append("POWERDOWNFLAG")
    elif new[1] == "-" and old[1] != "-":
        words.append("POWERDOWNFLAG gone")
    if new[2] != "-" and old[2] == "-":
        words.append("the gate begins")
    return words


# What is shown


def story(seen: Seen) -> str:
    """Tell what happened, in the order of time."""
    events = [(at, words) for at, words in seen.events if words != "POWERDOWNFLAG"]
    events += [(at, f"guest {number} {what}") for at, number, what in seen.guests if what != "told"]
    if seen.gate and seen.gate.get("rule"):
        steps = seen.gate["steps"]
        start = next((at for at, words in events if words == "the gate begins"), None)
        if start is not None and steps:
            events.append((round(start + steps[-1][0], 1), f"the gate ends ({seen.gate['rule']})"))
    return "; ".join(f"{at:.0f} {words}" for at, words in sorted(events))


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


def play(lab: Lab, plan: Mapping[str, Sequence[Case]], say: Callable[[str], None], keep: Path) -> list[dict[str, Any]]:
    """Play the cases of each site, the sites beside each other; return the rows, which are also kept in a file as they come."""
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
                    row = house.play(case)
                    say(
                        f"{site} {case.name}: {'held' if not row['problems'] else row['problems']} ({row['took']:.0f} s)"
                    )
                    with lock:
                        rows[case.name, site] = row
                        keep.write_text(json.dumps(ordered(), indent=1) + "\n")
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


def deploy(lab: Lab, hosts: Iterable[str], variables: Mapping[str, object] | None = None) -> None:
    """Deploy hosts by the main playbook, as a user does."""
    extra = ["--extra-vars", json.dumps(variables)] if variables else []
    run(
        [
            "ansible-playbook",
            f"--limit={','.join(hosts)}",
            "-i",
            str(CHECKOUT / "inventories" / "lab"),
            str(CHECKOUT / "playbooks" / "pve.yml"),
            *extra,
        ],
        env={**os.environ, "LAB": lab.name, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
