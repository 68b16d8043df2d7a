# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The cases in which upsd or upsmon is killed, hangs, or is attacked."""

from __future__ import annotations

from .house import EACH_RELEASE, Case
from .steps import (
    OUT,
    OUTAGE,
    attack_from_outside,
    attack_upsd,
    kill_program,
    run_on,
    run_quietly,
    set_battery_low,
    switch_mains,
    wait_for,
    wait_seconds,
    wait_until,
)
from .verdict import EITHER, STAYS, Expectation, begins_within, primary_within

# upsmon polls every 5 s, and FINALDELAY of a secondary is 5 s; an attack may delay that by 15 s
IN_TIME = Expectation(max_wait=None, checks=(begins_within(12 + 15),))
# root's starts SHUTDOWNCMD, nut's watches the UPS; seen twice, as nut's outlives root's for a moment
BOTH_PROCESSES = " && sleep 1 && ".join(["pgrep -x -u root upsmon && pgrep -x -u nut upsmon"] * 2)
SHORT_OUTAGE = 23  # seconds: longer than DEADTIME, and the battery is full

CASES: tuple[Case, ...] = (
    # upsd
    Case(
        "upsd-mains",
        "upsd is killed on mains, 30 s before the power cut",
        (kill_program("upsd"), wait_seconds(30), *OUTAGE),
        Expectation(),
        EACH_RELEASE,
        ci_site="pve8",
    ),
    Case(
        "upsd-battery",
        "upsd is killed on battery, 20 s before the battery is low",
        (*OUT, kill_program("upsd"), wait_seconds(20), set_battery_low()),
        Expectation(rules=("down", "limit"), max_wait=None),
        EACH_RELEASE,
        ci_site="pve9",
    ),
    Case(
        "upsd-battery-back",
        "upsd is killed on battery, and the mains return 20 s later",
        (*OUT, kill_program("upsd"), wait_seconds(20), switch_mains(True)),
        EITHER,
        EACH_RELEASE,
        watch_seconds=40,
    ),
    Case(
        "upsd-fsd",
        "upsd is killed at FSD",
        (*OUTAGE, wait_for("FSD"), kill_program("upsd")),
        Expectation(max_wait=None),
        EACH_RELEASE,
        ci_site="pve8",
    ),
    Case(
        "upsd-gate",
        "upsd is killed while the gate waits",
        (*OUTAGE, wait_for("gate"), kill_program("upsd")),
        Expectation(),
        EACH_RELEASE,
        nas_seconds=12,
        ci_site="pve9",
    ),
    Case(
        "upsd-hangs",
        "upsd hangs (SIGSTOP) while the gate waits",
        (*OUTAGE, wait_for("gate"), run_on("primary", "upsd stopped", "kill -STOP $(pidof upsd)")),
        Expectation(),
        ("pve9",),
        nas_seconds=12,
    ),
    # upsd, attacked by a machine that may reach it, and by one that may not: asked, and never listened to
    Case(
        "upsd-blocked-mains",
        "A secondary blocks upsd, beginning 15 s before the power cut",
        (attack_upsd("other", 120), wait_seconds(15), *OUTAGE),
        IN_TIME,
        EACH_RELEASE,
    ),
    Case(
        "upsd-blocked-battery",
        "A secondary blocks upsd on battery, beginning 15 s before the battery is low",
        (*OUT, attack_upsd("other", 120), wait_seconds(15), set_battery_low()),
        IN_TIME,
        EACH_RELEASE,
    ),
    Case(
        "upsd-blocked-low",
        "A secondary begins to block upsd when the battery becomes low",
        (*OUT, attack_upsd("other", 120), set_battery_low()),
        IN_TIME,
        EACH_RELEASE,
    ),
    Case(
        "upsd-blocked-fsd",
        "A secondary begins to block upsd at FSD",
        (*OUTAGE, wait_for("FSD"), attack_upsd("other", 120)),
        IN_TIME,
        EACH_RELEASE,
    ),
    Case(
        "upsd-blocked-short",
        "A secondary blocks upsd on battery, and the mains return 23 s later",
        (*OUT, attack_upsd("other", SHORT_OUTAGE + 10), wait_seconds(SHORT_OUTAGE), switch_mains(True)),
        STAYS,
        EACH_RELEASE,
        watch_seconds=30,
    ),
    Case(
        "upsd-stranger-short",
        "A machine outside the homelab attacks upsd on battery, and the mains return 23 s later",
        (*OUT, attack_from_outside(SHORT_OUTAGE + 10), wait_seconds(SHORT_OUTAGE), switch_mains(True)),
        STAYS,
        EACH_RELEASE,
        watch_seconds=30,
    ),
    Case(
        "upsd-stranger-low",
        "A machine outside the homelab attacks upsd when the battery becomes low",
        (*OUT, attack_from_outside(60), set_battery_low()),
        IN_TIME,
        EACH_RELEASE,
    ),
    # upsmon on the primary
    Case(
        "upsmon-mains",
        "upsmon is killed on mains, 30 s before the power cut",
        (kill_program("upsmon"), wait_seconds(30), *OUTAGE),
        Expectation(),
        EACH_RELEASE,
        ci_site="pve8",
    ),
    Case(
        "upsmon-battery",
        "upsmon is killed on battery, 10 s before the battery is low",
        (*OUT, kill_program("upsmon"), wait_seconds(10), set_battery_low()),
        Expectation(),
        EACH_RELEASE,
        ci_site="pve8",
    ),
    Case(
        "upsmon-parent",
        "The process of upsmon that stays root is killed on mains, 30 s before the power cut",
        (
            run_on("primary", "root's process of upsmon killed", "pkill -KILL -x -u root upsmon"),
            wait_until("primary", "upsmon runs as root and as nut", BOTH_PROCESSES, 30),
            wait_seconds(30),
            *OUTAGE,
        ),
        Expectation(),
        EACH_RELEASE,
    ),
    Case(
        "upsmon-fsd",
        "upsmon is killed at FSD",
        (*OUTAGE, wait_for("FSD"), kill_program("upsmon")),
        Expectation(),
        EACH_RELEASE,
        ci_site="pve9",
    ),
    Case(
        "upsmon-gate",
        "upsmon, which exits after running SHUTDOWNCMD, is started again while the gate waits",
        (*OUTAGE, wait_for("gate"), run_on("primary", "upsmon restarted", "systemctl restart nut-monitor")),
        Expectation(),
        EACH_RELEASE,
        nas_seconds=12,
        ci_site="pve8",
    ),
    Case(
        "upsmon-gate-back",
        "upsmon is started again while the gate waits, after the mains have returned",
        (
            *(*OUTAGE, wait_for("gate"), switch_mains(True), wait_seconds(4)),
            run_on("primary", "upsmon restarted", "systemctl restart nut-monitor"),
        ),
        Expectation(),
        EACH_RELEASE,
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
)
