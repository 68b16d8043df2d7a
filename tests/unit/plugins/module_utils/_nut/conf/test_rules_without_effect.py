# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.files import NutFiles
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.rules_without_effect import RULE_CHECKS

if TYPE_CHECKING:
    from collections.abc import Mapping

MONITOR = "MONITOR ups@localhost:3493 1 monitor secret1 primary\n"
DESK = "MONITOR desk@localhost:3493 1 monitor secret1 primary\n"
NOTIFY = "NOTIFYCMD /sbin/upssched\n" + "".join(
    f"NOTIFYFLAG {event} SYSLOG+EXEC\n" for event in ("ONBATT", "ONLINE", "LOWBATT", "COMMBAD", "COMMOK")
)
SCHED = "CMDSCRIPT /bin/x\nPIPEFN /run/nut/p\nLOCKFN /run/nut/l\n"
START = "AT ONBATT * START-TIMER early 300\n"
CANCEL = "AT ONLINE * CANCEL-TIMER early\n"


def timers(rules: str, upsmon_conf: str = NOTIFY) -> dict[str, str]:
    return {"upsmon.conf": upsmon_conf, "upssched.conf": SCHED + rules}


RULES: dict[str, tuple[Mapping[str, str], list[str]]] = {
    "no file": ({}, []),
    "rules without upssched": (
        timers(START + CANCEL, "NOTIFYCMD /bin/tell\nNOTIFYFLAG ONBATT EXEC\nNOTIFYFLAG ONLINE EXEC\n"),
        ["no AT line is ever used, because NOTIFYCMD is /bin/tell"],
    ),
    "rules without NOTIFYCMD": (
        timers(START + CANCEL, MONITOR),
        ["no AT line is ever used, because there is no NOTIFYCMD"],
    ),
    "rule without EXEC": (
        timers("AT REPLBATT * EXECUTE tell\nAT FSD * EXECUTE tell\n"),
        ["AT REPLBATT and FSD is never used, because its NOTIFYFLAG in upsmon.conf has no EXEC"],
    ),
    "rule in lower case": (timers("AT onbatt * EXECUTE tell\n"), []),
    "timer and its cancel": (timers(START + CANCEL), []),
    "timer without a cancel": (
        timers(START),
        ["timer early starts at ONBATT, and no CANCEL-TIMER early at ONLINE stops it"],
    ),
    "timer cancelled elsewhere": (
        timers(START + "AT ONBATT * CANCEL-TIMER early\n"),
        ["timer early starts at ONBATT, and no CANCEL-TIMER early at ONLINE stops it"],
    ),
    "timer cancelled under another name": (
        timers(START + "AT ONLINE * CANCEL-TIMER erly\n"),
        [
            "CANCEL-TIMER erly names a timer that no START-TIMER starts; the timers are early",
            "timer early starts at ONBATT, and no CANCEL-TIMER early at ONLINE stops it",
        ],
    ),
    "cancel without a timer": (timers(CANCEL), ["CANCEL-TIMER early names a timer that no START-TIMER starts"]),
    "timer of an event without an end": (
        timers("AT ONLINE * START-TIMER back 60\nAT ONBATT * CANCEL-TIMER back\n"),
        [],
    ),
    "shared timer without a cancel": (
        timers("AT ONBATT * START-TIMER-SHARED early 300\n"),
        ["timer early starts at ONBATT, and no CANCEL-TIMER"],
    ),
    "rules of a program that may call upssched": (
        timers(START + CANCEL, NOTIFY.replace("/sbin/upssched", "/bin/tell")),
        ["because NOTIFYCMD is /bin/tell"],
    ),
    "rule whose EXEC a later line takes away": (
        timers("AT ONBATT * EXECUTE tell\n", f"{NOTIFY}NOTIFYFLAG ONBATT SYSLOG\n"),
        ["AT ONBATT is never used, because its NOTIFYFLAG"],
    ),
    "rule for a UPS without its host": (
        timers("AT ONBATT ups EXECUTE tell\n", MONITOR + NOTIFY),
        [
            "AT lines for ups are never used: upssched compares the name, letter by letter, with the MONITOR lines, which "
            "have ups@localhost:3493"
        ],
    ),
    "rule for the UPS of a MONITOR line": (timers("AT ONBATT ups@localhost:3493 EXECUTE tell\n", MONITOR + NOTIFY), []),
    "timer cancelled by another UPS": (
        timers(
            "AT ONBATT ups@localhost:3493 START-TIMER early 300\nAT ONLINE desk@localhost:3493 CANCEL-TIMER early\n",
            MONITOR + DESK + NOTIFY,
        ),
        ["timer early starts at ONBATT, and no CANCEL-TIMER early at ONLINE stops it"],
    ),
    "timer of all UPSes cancelled by one": (
        timers(START + "AT ONLINE desk@localhost:3493 CANCEL-TIMER early\n", MONITOR + DESK + NOTIFY),
        ["timer early starts at ONBATT, and no CANCEL-TIMER early at ONLINE stops it"],
    ),
    "timer of all UPSes cancelled by the only one": (
        timers(START + "AT ONLINE ups@localhost:3493 CANCEL-TIMER early\n", MONITOR + NOTIFY),
        [],
    ),
    "timer of one UPS cancelled by all": (
        timers("AT ONBATT ups@localhost:3493 START-TIMER early 300\n" + CANCEL, MONITOR + DESK + NOTIFY),
        [],
    ),
    "timers of two UPSes": (
        timers(
            "".join(
                f"AT ONBATT {name}@localhost:3493 START-TIMER {name} 30\nAT ONLINE {name}@localhost:3493 CANCEL-TIMER {name}\n"
                for name in ("ups", "desk")
            ),
            MONITOR + DESK + NOTIFY,
        ),
        [],
    ),
    "timer that starts twice in an outage": (
        timers(START + "AT LOWBATT * START-TIMER early 60\n" + CANCEL),
        [
            "timer early starts 2 times in one outage (ONBATT and LOWBATT), and CANCEL-TIMER at ONLINE stops only one of them"
        ],
    ),
    "timer that starts twice and is cancelled twice": (
        timers(START + "AT LOWBATT * START-TIMER early 60\n" + CANCEL * 2),
        [],
    ),
    "timer that is cancelled before it starts again": (
        timers(START + "AT LOWBATT * CANCEL-TIMER early\nAT LOWBATT * START-TIMER early 60\n" + CANCEL),
        [],
    ),
    "shared timer that starts twice": (
        timers((START + "AT LOWBATT * START-TIMER early 60\n").replace("TIMER", "TIMER-SHARED") + CANCEL),
        [],
    ),
    "timers of two kinds of events": (
        timers(START + CANCEL + "AT COMMBAD * START-TIMER gone 10\nAT COMMOK * CANCEL-TIMER gone\n"),
        [],
    ),
}


@pytest.mark.parametrize(("files", "problems"), RULES.values(), ids=RULES.keys())
def test_rules_and_timers_without_effect_are_named(files: Mapping[str, str], problems: list[str]) -> None:
    found = [problem for check in RULE_CHECKS for problem in check(NutFiles.of(files))]
    assert len(found) == len(problems)
    for (problem, remedy), expected in zip(found, problems):
        assert expected in problem
        assert remedy


def test_program_that_may_call_upssched_is_left_the_benefit_of_the_doubt() -> None:
    files = NutFiles.of(timers(START + CANCEL, NOTIFY.replace("/sbin/upssched", "/bin/tell")))
    ((_problem, remedy),) = (problem for check in RULE_CHECKS for problem in check(files))
    assert remedy.endswith(", unless that program calls upssched")
