# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.advice import list_advice
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import (
    Release,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOKWORM, TRIXIE, SID = (2, 8, 0), (2, 8, 1), (2, 8, 5)
USERS = "[u]\npassword = p\n"
SCHED = "CMDSCRIPT /bin/x\nPIPEFN /run/nut/p\nLOCKFN /run/nut/l\n"
HID = "[ups]\n    driver = usbhid-ups\n    port = auto\n"

SECONDARY = {"nut.conf": "MODE=netclient\n", "upssched.conf": "", "upsmon.conf": "OFFDURATION 30\n"}
PRIMARY = {**SECONDARY, "ups.conf": HID, "upsd.conf": "LISTEN 0.0.0.0\n", "upsd.users": USERS}
REDUNDANT = "OFFDURATION 30\nMONITOR left@localhost 1 m p primary\nMONITOR right@localhost 1 m p primary\n"
OLD = ["once a UPS has calibrated", "this secondary logs out"]
EVENT = "OFFDURATION 30\nNOTIFYCMD /x\nNOTIFYFLAG ONBATT EXEC\n"
ALARM = "OFFDURATION 30\nNOTIFYCMD /x\nNOTIFYFLAG alarm SYSLOG+EXEC\n"

ADVICE: dict[str, tuple[Mapping[str, str], Release, list[str]]] = {
    "a secondary, 2.8.0": (SECONDARY, BOOKWORM, ["once a UPS has calibrated", "this secondary logs out"]),
    "a primary, 2.8.0": (PRIMARY, BOOKWORM, ["once a UPS has calibrated"]),
    "a secondary, 2.8.1": (SECONDARY, TRIXIE, ["once a UPS has calibrated", "upsmon ignores DEADTIME"]),
    "a primary, 2.8.1": (
        PRIMARY, TRIXIE, ["once a UPS has calibrated", "upsmon ignores DEADTIME"],
    ),
    "a primary, 2.8.2": (
        PRIMARY, (2, 8, 2), ["upsmon ignores DEADTIME", "the enumerator does not restart"],
    ),
    "a secondary, 2.8.3": (SECONDARY, (2, 8, 3), []),
    "a primary, 2.8.5": (PRIMARY, SID, []),
    "no OFFDURATION": ({"upsmon.conf": ""}, (2, 8, 3), ["a UPS that reports OFF for 30 s counts as lost"]),
    "SHUTDOWNEXIT is not held": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT no\n"}, (2, 8, 4), ["SHUTDOWNEXIT keeps the login"]),
    "SHUTDOWNEXIT of a minute": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT 60\n"}, (2, 8, 4), []),
    "SHUTDOWNEXIT of more": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT 61\n"}, (2, 8, 4), ["SHUTDOWNEXIT keeps the login"]),
    "SHUTDOWNEXIT yes": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT Yes\n"}, (2, 8, 4), []),
    "SHUTDOWNEXIT is held": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT no\n"}, SID, []),
    "alarms and a shell, 2.8.2": ({"upsmon.conf": ALARM}, (2, 8, 2), ["upsmon ignores DEADTIME"]),
    "alarms and a shell, 2.8.3": ({"upsmon.conf": ALARM}, (2, 8, 3), ["upsmon passes a UPS's alarm texts to a shell"]),
    "alarms and a shell, 2.8.6": ({"upsmon.conf": ALARM}, (2, 8, 6), []),
    "alarms without a shell": ({"upsmon.conf": ALARM.replace("+EXEC", "")}, SID, []),
    "alarms without a command": ({"upsmon.conf": ALARM.replace("NOTIFYCMD /x", "")}, SID, []),
    "other events": ({"upsmon.conf": ALARM.replace("alarm", "ONBATT")}, SID, []),
    "harmless messages": ({"upsmon.conf": EVENT + "NOTIFYMSG ONBATT \"it's on battery\"\n"}, SID, []),
    "a message with a $": ({"upsmon.conf": EVENT + "NOTIFYMSG ONBATT \"costs 5$\"\n"}, BOOKWORM, [*OLD, "the message for NOTIFYCMD"]),
    "a message with a quote": ({"upsmon.conf": EVENT + r'NOTIFYMSG ONLINE "a \"b\""' + "\n"}, SID, ["the message for NOTIFYCMD"]),
    "a message with a $, 2.8.6": ({"upsmon.conf": EVENT + "NOTIFYMSG ONBATT \"costs 5$\"\n"}, (2, 8, 6), []),
    "a message with a $ for nobody": ({"upsmon.conf": "OFFDURATION 3\nNOTIFYMSG ONBATT \"costs 5$\"\n"}, SID, []),
    "a timer, 2.8.0": ({"upssched.conf": SCHED + "AT ONBATT * START-TIMER a 5\n"}, BOOKWORM, ["upssched uses a whole processor"]),
    "a timer, 2.8.1": ({"upssched.conf": SCHED + "AT ONBATT * START-TIMER a 5\n"}, TRIXIE, []),
    "no timer": ({"upssched.conf": SCHED + "AT ONBATT * EXECUTE a\n"}, BOOKWORM, []),
    "TLS": ({"upsd.conf": "CERTPATH /etc/nut/tls\n"}, TRIXIE, ["with TLS, a machine that begins a handshake"]),
    "several LISTEN, 2.8.0": (
        {"upsd.conf": "LISTEN 192.0.2.1\nLISTEN 192.0.2.2\n"}, BOOKWORM,
        ["of several LISTEN addresses, upsd insists only on the last one"],
    ),
    "LISTEN with loopback, 2.8.1": ({"upsd.conf": "LISTEN 127.0.0.1\nLISTEN 192.0.2.1\n"}, TRIXIE, []),
    "several LISTEN, 2.8.1": (
        {"upsd.conf": "LISTEN 192.0.2.1\nLISTEN 192.0.2.2\n"}, TRIXIE,
        ["of several LISTEN addresses, upsd insists only on the first one"],
    ),
    "several LISTEN, 2.8.2": ({"upsd.conf": "LISTEN 192.0.2.1\nLISTEN ::1\n"}, (2, 8, 2), []),
    "LISTEN ::, 2.8.0": ({"upsd.conf": "LISTEN ::\n"}, BOOKWORM, []),
    "LISTEN ::, 2.8.2": ({"upsd.conf": "LISTEN ::\nLISTEN 127.0.0.1\n"}, (2, 8, 2), ["LISTEN :: covers only IPv6"]),
    "LISTEN :: and IPv4": ({"upsd.conf": "LISTEN ::\nLISTEN 0.0.0.0\n"}, (2, 8, 2), []),
    "allow_killpower, 2.8.2": (
        {"ups.conf": HID + "allow_killpower\n"}, (2, 8, 2),
        ["the enumerator does not restart", "allow_killpower of [ups] has no effect"],
    ),
    "allow_killpower, 2.8.3": ({"ups.conf": HID + "allow_killpower\n"}, (2, 8, 3), []),
    "a discharge as calibration, 2.8.1": (
        {"ups.conf": HID + "onlinedischarge_calibration\n"}, TRIXIE,
        ["onlinedischarge_calibration of [ups] makes every discharge look like a calibration"],
    ),
    "a discharge as calibration, 2.8.3": ({"ups.conf": HID + "onlinedischarge_calibration\n"}, (2, 8, 3), []),
    "device": ({"ups.conf": HID + "device = 004\n"}, SID, ["[ups] is identified by device, a number that changes"]),
    "redundant UPSes, 2.8.0": (
        {"upsmon.conf": REDUNDANT}, BOOKWORM, ["once a UPS has calibrated", "a UPS that has switched itself off", "this secondary"],
    ),
    "both UPSes needed, 2.8.0": (
        {"upsmon.conf": REDUNDANT + "MINSUPPLIES 2\n"}, BOOKWORM, ["once a UPS has calibrated", "this secondary logs out"],
    ),
    "a UPS of the router, 2.8.0": (
        {"upsmon.conf": REDUNDANT.replace("1 m", "0 m", 1)}, BOOKWORM, ["once a UPS has calibrated", "this secondary logs out"],
    ),
    "redundant UPSes, 2.8.1": ({"upsmon.conf": REDUNDANT}, TRIXIE, ["once a UPS has calibrated", "upsmon ignores DEADTIME"]),
    "no UPS": ({"ups.conf": "maxretry = 3\n"}, TRIXIE, []),
    "no file": ({}, BOOKWORM, []),
}  # fmt: skip


@pytest.mark.parametrize(("files", "release", "begins"), ADVICE.values(), ids=ADVICE.keys())
def test_advice_names_problem_and_remedy(files: Mapping[str, str], release: Release, begins: list[str]) -> None:
    messages = [str(advice) for advice in list_advice(files, release)]
    number = ".".join(map(str, release))
    assert [words.startswith(f"NUT {number}: {begin}") for words, begin in zip(messages, begins, strict=True)] == [
        True
    ] * len(begins)
    # two sentences: the problem, and what to do
    assert all(words.count(". ") == 1 and words.endswith(".") for words in messages)


# begins of the problems for which something must be done; the others need no action
DUE = (
    "a UPS that has switched itself off",
    "upsmon passes a UPS's alarm texts to a shell",
    "the message for NOTIFYCMD",
    "LISTEN :: covers only IPv6",
    "allow_killpower of",
    "onlinedischarge_calibration of",
    "[ups] is identified by device",
)


@pytest.mark.parametrize(("files", "release", "begins"), ADVICE.values(), ids=ADVICE.keys())
def test_advice_is_due_only_if_something_must_be_done(
    files: Mapping[str, str], release: Release, begins: list[str]
) -> None:
    due = [advice.is_due for advice in list_advice(files, release)]
    assert due == [begin.startswith(DUE) for begin in begins]
