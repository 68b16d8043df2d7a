# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.no_effect import find_ineffective

if TYPE_CHECKING:
    from collections.abc import Mapping

UPS = "[ups]\n    driver = usbhid-ups\n    port = auto\n"
MONITOR = "MONITOR ups@localhost:3493 1 monitor secret1 primary\n"
NOTIFY = "NOTIFYCMD /bin/tell\nNOTIFYFLAG ONBATT SYSLOG+EXEC\n"
FLAG = "POWERDOWNFLAG /run/k\n"


def ups(*keys: str) -> dict[str, str]:
    return {"ups.conf": UPS + "".join(f"    {key}\n" for key in keys)}


def primary(upsmon_conf: str, *keys: str, **files: str) -> dict[str, str]:
    """Return the files of a primary. files: more of them, without .conf."""
    return {
        **ups(*keys),
        "upsmon.conf": MONITOR + upsmon_conf,
        **{f"{name}.conf": text for name, text in files.items()},
    }


INEFFECTIVE: dict[str, tuple[Mapping[str, str], list[str]]] = {
    "no file": ({}, []),
    "file of another program": ({"ups.conf.wanted": UPS}, []),
    "low mark by override": (
        ups("override.battery.charge.low = 50"),
        ["override.battery.charge.low has no effect without ignorelb"],
    ),
    "low mark by default": (
        ups("default.battery.runtime.low = 300"),
        ["[ups]: default.battery.runtime.low has no effect"],
    ),
    "low mark in capitals": (
        ups("OVERRIDE.battery.runtime.low = 300"),
        ["[ups]: override.battery.runtime.low has no effect"],
    ),
    "low marks, both": (
        ups("override.battery.charge.low = 50", "override.battery.runtime.low = 900"),
        ["override.battery.charge.low has no effect", "override.battery.runtime.low has no effect"],
    ),
    "low mark with ignorelb": (ups("ignorelb", "override.battery.charge.low = 50"), []),
    "other override": (ups("override.battery.packs = 2"), []),
    "low mark of the UPS itself": (ups("lowbatt = 50"), []),
    "low mark of dummy-ups": (
        {"ups.conf": "[x]\ndriver = dummy-ups\nport = x.dev\noverride.battery.charge.low = 50\n"},
        [],
    ),
    "EXEC without NOTIFYCMD": (
        {"upsmon.conf": "NOTIFYFLAG ONBATT SYSLOG+EXEC\nNOTIFYFLAG ONLINE EXEC\n"},
        ["NOTIFYFLAG ONBATT and ONLINE has EXEC, and there is no NOTIFYCMD to run"],
    ),
    "EXEC with NOTIFYCMD": ({"upsmon.conf": "NOTIFYCMD /bin/tell\nNOTIFYFLAG ONBATT SYSLOG+EXEC\n"}, []),
    "NOTIFYCMD without EXEC": (
        {"upsmon.conf": "NOTIFYCMD /bin/tell\nNOTIFYFLAG ONBATT SYSLOG\n"},
        ["NOTIFYCMD is never run, because no NOTIFYFLAG has EXEC"],
    ),
    "NOTIFYCMD without NOTIFYFLAG": (
        {"upsmon.conf": "NOTIFYCMD /bin/tell\n"},
        ["NOTIFYCMD is never run, because no NOTIFYFLAG"],
    ),
    "NOTIFYFLAG that a later one hides": (
        {"upsmon.conf": f"{NOTIFY}NOTIFYFLAG ONBATT SYSLOG\n"},
        [
            "NOTIFYCMD is never run, because no NOTIFYFLAG has EXEC",
            "NOTIFYFLAG ONBATT is set twice, and only the last line counts",
        ],
    ),
    "message of an event that is ignored": (
        {"upsmon.conf": "NOTIFYMSG onbatt x\nNOTIFYFLAG ONBATT IGNORE\n"},
        ["NOTIFYMSG ONBATT has no effect, because its NOTIFYFLAG is IGNORE"],
    ),
    "message of an event that is not ignored": ({"upsmon.conf": "NOTIFYMSG ONBATT x\nNOTIFYFLAG ONLINE IGNORE\n"}, []),
    "runtime that is fixed": (
        ups("override.battery.runtime = 900"),
        ["override.battery.runtime shows this value for ever"],
    ),
    "charge that is fixed": (
        ups("OVERRIDE.battery.charge = 100"),
        ["override.battery.charge shows this value for ever"],
    ),
    "runtime until the UPS has its own": (ups("default.battery.runtime = 900"), []),
    "runtime of dummy-ups": (
        {"ups.conf": "[x]\ndriver = dummy-ups\nport = x.dev\noverride.battery.runtime = 50\n"},
        [],
    ),
    "default beside an override": (
        ups("default.battery.packs = 1", "override.battery.packs = 2"),
        ["default.battery.packs has no effect beside override.battery.packs"],
    ),
    "default and override of different variables": (ups("default.battery.packs = 1", "override.battery.date = 2"), []),
    "interruptonly beside pollonly": (
        ups("pollonly", "interruptonly"),
        ["interruptonly has no effect beside pollonly"],
    ),
    "interruptonly": (ups("interruptonly"), []),
    "no POWERDOWNFLAG": (primary(""), ["there is no POWERDOWNFLAG, so no UPS is told to cut its power"]),
    "delays without POWERDOWNFLAG": (
        primary("", "offdelay = 60", "ondelay = 120"),
        ["and offdelay of [ups] and ondelay of [ups] has no effect"],
    ),
    "delays": (primary(FLAG, "offdelay = 60", "ondelay = 120"), []),
    "delays of a UPS that is not told to cut its power": (
        primary(FLAG, "sdorder = -1", "offdelay = 60"),
        ["[ups]: offdelay has no effect with sdorder -1"],
    ),
    "UPS that is not told to cut its power": (primary(FLAG, "sdorder = -1"), []),
    "secondary without POWERDOWNFLAG": ({"upsmon.conf": "MONITOR ups@192.0.2.1 1 nas x secondary\n"}, []),
    "DISABLE_WEAK_SSL without TLS": (
        {"upsd.conf": "DISABLE_WEAK_SSL true\n"},
        ["DISABLE_WEAK_SSL has no effect without CERTPATH"],
    ),
    "DISABLE_WEAK_SSL false without TLS": ({"upsd.conf": "DISABLE_WEAK_SSL no\n"}, []),
    "DISABLE_WEAK_SSL with TLS": ({"upsd.conf": "DISABLE_WEAK_SSL 1\nCERTPATH /c\n"}, []),
    "CERTIDENT without TLS": (
        {"upsmon.conf": "CERTIDENT me pass\n"},
        ["upsmon.conf: CERTIDENT has no effect without CERTPATH"],
    ),
    "CERTIDENT with TLS": ({"upsmon.conf": "CERTIDENT me pass\nCERTPATH /c\n"}, []),
    "certificate of a host that is not monitored": (
        {"upsmon.conf": f"{MONITOR}CERTPATH /c\nCERTHOST pve.lan pve 1 1\n"},
        ["CERTHOST pve.lan has no effect, because no MONITOR line has that host, but localhost"],
    ),
    "certificate of a host that is monitored": (
        {
            "upsmon.conf": "MONITOR ups@[2001:db8::1]:3493 1 nas x secondary\nCERTPATH /c\nCERTHOST 2001:db8::1 pve 1 1\n"
        },
        [],
    ),
    "secondary of an upsd for this host only": (
        {"upsd.conf": "LISTEN 127.0.0.1\nLISTEN ::1\n", "upsd.users": "[nas]\npassword = x\nupsmon secondary\n"},
        ["upsd listens on loopback only, so nas of upsd.users can't log in from another host"],
    ),
    "secondary of an upsd without LISTEN": (
        {"upsd.conf": "MAXAGE 15\n", "upsd.users": "[nas]\npassword = x\nupsmon slave\n"},
        ["upsd listens on loopback only"],
    ),
    "secondary of an upsd for all": (
        {"upsd.conf": "LISTEN 0.0.0.0\n", "upsd.users": "[nas]\npassword = x\nupsmon secondary\n"},
        [],
    ),
    "upsd for this host only": (
        {"upsd.conf": "LISTEN 127.0.0.1\n", "upsd.users": "[m]\npassword = x\nupsmon primary\n"},
        [],
    ),
    "directive that is set again": (
        {"upsmon.conf": "HOSTSYNC 15\nHOSTSYNC 30\nHOSTSYNC 45\n"},
        ["upsmon.conf: HOSTSYNC is set 3 times, and only the last line counts"],
    ),
    "directive that is set again to the same": ({"upsmon.conf": "HOSTSYNC 15\nHOSTSYNC 15\n"}, []),
    "variable that is set again": (
        {"nut.conf": "MODE=none\nMODE=netserver\n"},
        ["nut.conf: MODE is set twice, and only the last line counts"],
    ),
    "global directive that a section has, too": ({"ups.conf": f"maxretry = 3\n{UPS}maxretry = 4\n"}, []),
    "directives that may be set several times": (
        {
            "upsd.conf": "LISTEN 127.0.0.1\nLISTEN ::1\n",
            "upsmon.conf": "NOTIFYFLAG ONBATT SYSLOG\nNOTIFYFLAG ONLINE IGNORE\n",
        },
        [],
    ),
    "password that is set again": (
        {"upsmon.conf": "CERTPATH /c\nCERTIDENT me pass1\nCERTIDENT me pass2\n"},
        ["upsmon.conf: CERTIDENT is set twice, and only the last line"],
    ),
    "options of an init script": (
        {"nut.conf": 'MODE=netserver\nUPSD_OPTIONS="-D"\n'},
        ["UPSD_OPTIONS has no effect: systemd starts upsd without"],
    ),
    "empty options": ({"nut.conf": 'UPSD_OPTIONS=""\nUPSMON_OPTIONS=\n'}, []),
    "primary of this host by its address": (
        {"upsd.conf": "LISTEN 192.0.2.9\n", "upsmon.conf": "MONITOR ups@192.0.2.9 1 m x primary\n"},
        [],
    ),
    "primary of a UPS elsewhere": (
        {"upsmon.conf": "MONITOR ups@10.5.0.5 0 monitor x primary\n"},
        ["MONITOR ups@10.5.0.5 is of type primary, and that upsd runs on another host"],
    ),
    "master of a UPS elsewhere": (
        {"upsmon.conf": "MONITOR ups@nas 0 monitor x master\n"},
        ["MONITOR ups@nas is of type primary"],
    ),
    "primary of a UPS here": ({"upsmon.conf": MONITOR + "MONITOR ups@[::1] 0 m x primary\n"}, []),
    "secondary of a UPS elsewhere": ({"upsmon.conf": "MONITOR ups@10.5.0.5 1 monitor x secondary\n"}, []),
}


@pytest.mark.parametrize(("files", "problems"), INEFFECTIVE.values(), ids=INEFFECTIVE.keys())
def test_settings_without_effect_are_named(files: Mapping[str, str], problems: list[str]) -> None:
    found = find_ineffective(files)
    assert len(found) == len(problems)
    for (problem, remedy), expected in zip(found, problems):
        assert expected in problem
        assert remedy
        assert "pass" not in problem + remedy
