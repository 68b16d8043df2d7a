# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import (
    Release,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.values import find_wrong_values

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOKWORM, TRIXIE, SID = (2, 8, 0), (2, 8, 1), (2, 8, 5)
USERS = "[u]\npassword = p\n"
SCHED = "CMDSCRIPT /bin/x\nPIPEFN /run/nut/p\nLOCKFN /run/nut/l\n"
HID = "[ups]\n    driver = usbhid-ups\n    port = auto\n"

RIGHT: dict[str, tuple[str, str, Release | None]] = {
    "quotes in nut.conf": (
        "nut.conf",
        "# a\n\nMODE='netserver'\nUPSD_OPTIONS=\"-4 -D\"\nALLOW_NO_DEVICE=\nFOO=b\n",
        None,
    ),
    "POWEROFF_WAIT": ("nut.conf", "POWEROFF_WAIT=15m\n", BOOKWORM),
    "POWEROFF_WAIT in quotes": ("nut.conf", 'POWEROFF_WAIT="30s"\n', TRIXIE),
    "half a second": ("nut.conf", "POWEROFF_WAIT=0.5\n", TRIXIE),
    "an undocumented NUT variable": ("nut.conf", "NUT_QUIET_INIT_BANNER=true\n", None),
    "LISTEN": (
        "upsd.conf",
        "LISTEN 192.0.2.1\nLISTEN :: 3493\nLISTEN *\nLISTEN nas.lan 65535\nLISTEN fe80::1%eth0\n",
        None,
    ),
    "upsd leaves unknown words to the daemon": ("upsd.conf", "FOO\nmaxage x\n", None),
    "booleans": ("upsd.conf", "ALLOW_NO_DEVICE Yes\nDISABLE_WEAK_SSL 1\nDEBUG_MIN 0\n", None),
    "users": (
        "upsd.users",
        '[u]\nPASSWORD = "a b"\nactions = set FSD\nactions=SET\ninstcmds = ALL\nUPSMON Primary\n[v]\npassword = p\nupsmon slave\n',
        None,
    ),
    "upsmon.conf": (
        "upsmon.conf",
        'SHUTDOWNEXIT no\nSHUTDOWNEXIT 15\nOFFDURATION -1\nCERTHOST h "c d" 1 0\nNOTIFYMSG onbatt "100%% of %s"\n'
        "NOTIFYFLAG ONBATT IGNORE\nNOTIFYFLAG FSD EXEC+SYSLOG+WALL\nMONITOR a@b 0 u p secondary\nFINALDELAY 0\n",
        None,
    ),
    "two parts": ("upsmon.conf", 'NOTIFYMSG ALARM "%s: %s"\nNOTIFYMSG OTHER "no part"\n', (2, 8, 3)),
    "two parts, release unknown": ("upsmon.conf", 'NOTIFYMSG NOTOTHER "%s: %s"\n', None),
    "no AT": ("upssched.conf", "CMDSCRIPT /bin/x\n", None),
    "AT": (
        "upssched.conf",
        SCHED
        + "AT ONBATT * START-TIMER a 30\nAT online u@h CANCEL-TIMER a\nAT ONLINE * CANCEL-TIMER a b\nAT FSD * EXECUTE a\n"
        "AT ONBATT * START-TIMER-SHARED a 0\n",
        None,
    ),
    "sections": (
        "ups.conf",
        "maxretry = 3\nsynchronous = auto\n"
        + HID
        + 'ondelay = -1\npollonly\nusb_set_altinterface\ndefault.a = ""\nfoo = x\nbar\n',
        None,
    ),
    "an alternate interface": ("ups.conf", HID + "usb_set_altinterface = 1\nusb_hid_ep_in=0x81\n", None),
    "a key of another driver": ("ups.conf", "[a]\ndriver = snmp-ups\nport = x\npollfreq = abc\n", None),
    "a directive of a newer NUT": ("ups.conf", "newthing = 3\n", (2, 8, 6)),
    "an event of a newer NUT": ("upsmon.conf", "NOTIFYFLAG NEWTHING EXEC\n", (2, 9, 0)),
    "a command of a newer NUT": ("upssched.conf", SCHED + "NEW x\nAT NEW * NEW-TIMER a\n", (2, 9, 0)),
    "a user's key of a newer NUT": ("upsd.users", USERS + "new = x\n", (2, 9, 0)),
    "STATEPATH as Debian has it": ("upsd.conf", "STATEPATH /run/nut/\n", None),
}


@pytest.mark.parametrize(("name", "text", "release"), RIGHT.values(), ids=RIGHT.keys())
def test_right_values_are_accepted(name: str, text: str, release: Release | None) -> None:
    assert find_wrong_values({name: text}, release) == []


# file -> text -> message
WRONG: dict[str, dict[str, str]] = {
    "upsmon.conf": {
        "POLLFREQ abc": "POLLFREQ is 'abc', must be a whole number of seconds, without a unit",
        "DEADTIME 5s": "DEADTIME is '5s', must be a whole number of seconds, without a unit",
        "DEADTIME 99999999999": "DEADTIME is '99999999999', must be a whole number of",
        "DEADTIME 5 6": "DEADTIME has 2 values, must be a whole number of seconds",
        "DEADTIME = 15": "DEADTIME is followed by =, which NUT does not allow here: it must be a whole number",
        "NOTIFYCMD a b": "NOTIFYCMD has 2 values, must be one text, in quotes if it has blanks",
        "debug_min x": "DEBUG_MIN is 'x', must be a whole number",
        "CERTVERIFY yes": "CERTVERIFY is 'yes', must be 0 or 1",
        "ALARMCRITICAL no": "ALARMCRITICAL is 'no', must be 0 or 1",
        "SHUTDOWNEXIT never": "SHUTDOWNEXIT is 'never', must be yes, no, or a whole number of seconds",
        "POWERDOWNFLAG flag": "POWERDOWNFLAG is 'flag', must be a path that begins with /",
        "MONITOR u@h one a b primary": "MONITOR u@h is malformed, must be UPS@HOST, a whole",
        "CERTHOST h c yes 1": "CERTHOST h is malformed, must be a host, the name",
        "CERTIDENT a": "CERTIDENT is malformed, must be the name of a certificate",
        "NOTIFYFLAG ONBATT SYSLOG+EXECC": "NOTIFYFLAG ONBATT is malformed, must be a type of",
        "NOTIFYFLAG ONBATT syslog": "SYSLOG, WALL and EXEC joined by +, or IGNORE",
        "NOTIFYFLAG ONBATT IGNORE+EXEC": "SYSLOG, WALL and EXEC joined by +, or IGNORE",
        "NOTIFYFLAG ONBATT SYSLOG WALL": "SYSLOG, WALL and EXEC joined by +, or IGNORE",
        "NOTIFYFLAG ONBAT EXEC": "NOTIFYFLAG ONBAT: NUT has no such type of notification. Did you mean ONBATT?",
        "NOTIFYMSG ONBAT x": "NOTIFYMSG ONBAT: NUT has no such type of notification",
        'NOTIFYMSG ONBATT "%s %s"': "NOTIFYMSG ONBATT: the text may have one %s for the UPS, and no other %. Write %% for a percent",
        'NOTIFYMSG ALARM "%s %s %s"': "NOTIFYMSG ALARM: the text may have one %s",
        "NOTIFYMSG ONBATT 50%d": "NOTIFYMSG ONBATT: the text may have one %s for the UPS, and no other %.",
        'NOTIFYMSG ONBATT "at 50%"': "NOTIFYMSG ONBATT: the text may have one %s for the UPS, and no other %.",
        "NOTIFYMSG ONBATT %%%": "NOTIFYMSG ONBATT: the text may have one %s for the UPS, and no other %.",
        "CERTFILE /x": "CERTFILE is refused: Debian's NUT is built with NSS",
    },
    "upsd.conf": {
        "MAXAGE -1": "MAXAGE is '-1', must be a whole number of at least 1",
        "MAXAGE 00": "MAXAGE is '00', must be a whole number of at least 1",
        "MAXAGE": "MAXAGE has no value, must be a whole number of at least 1",
        "LISTEN 192.0.2.1:3493": "LISTEN 192.0.2.1:3493 is malformed, must be an address (or *) and, unless it is 3493, the port",
        "LISTEN 192.0.2.300": "LISTEN 192.0.2.300 is malformed",
        "LISTEN [::1] 3493": "LISTEN [::1] is malformed",
        "LISTEN 192.0.2.1 nut": "LISTEN 192.0.2.1 is malformed",
        "LISTEN 192.0.2.1 0": "LISTEN 192.0.2.1 is malformed",
        "LISTEN 192.0.2.1 65536": "LISTEN 192.0.2.1 is malformed",
        "LISTEN 192.0.2.0/24": "LISTEN 192.0.2.0/24 is malformed",
        "ALLOW_NO_DEVICE maybe": "ALLOW_NO_DEVICE is 'maybe', must be true or false (or yes, no, on, off, 1, 0)",
        "CERTFILE /x": "CERTFILE is refused: Debian's NUT is built with NSS",
        "CERTREQUEST 2": "CERTREQUEST is refused: Debian's NUT is built without it",
        "ACCEPT all": "ACCEPT is refused: upsd accepts it without effect",
        "STATEPATH /var/state": "STATEPATH is /var/state, but the drivers create their sockets in /run/nut",
    },
    "nut.conf": {
        "MODE = netserver": "nut.conf, line 1: the shell and systemd can't read this as NAME=value.",
        "\nMODE=none # why": "nut.conf, line 2: the shell and systemd can't read this as NAME=value.",
        "export MODE=none": "nut.conf, line 1: the shell and systemd can't read this as NAME=value",
        'UPSD_OPTIONS="-4': "nut.conf, line 1: the shell and systemd can't read this as NAME=value",
        'UPSD_OPTIONS="$A"': "nut.conf, line 1: the shell and systemd can't read this as NAME=value",
        "MODE=server": "MODE is 'server', must be none or standalone or netserver or netclient",
        "POWEROFF_WAIT=5min": "POWEROFF_WAIT is '5min', must be a time for sleep(1)",
        "POWEROF_WAIT=30s": "NUT has no variable POWEROF_WAIT. Did you mean POWEROFF_WAIT?",
        "NUT_DEBUG_LEVEL=yes": "NUT_DEBUG_LEVEL is 'yes', must be a whole number",
    },
    "ups.conf": {
        HID + "pollinterval = 0": "ups.conf, [ups]: pollinterval is '0', must be a whole number of at least 1",
        "pollinterval = 0": "pollinterval is '0', must be a whole number of at least 1",
        HID + "OffDelay = soon": "ups.conf, [ups]: OffDelay is 'soon', must be a whole number of seconds",
        HID + "offdelay 30": "ups.conf, [ups]: offdelay has no = before its value, so NUT ignores it. Write offdelay = VALUE",
        HID + "foo 30": "ups.conf, [ups]: foo has no = before its value, so NUT ignores it",
        HID + "override.battery.charge.low": "override.battery.charge.low has no value, must be one text",
        HID + "desc = my ups": "ups.conf, [ups]: desc has 2 values, must be one text, in quotes if it has blanks",
        HID + "ignorelb = no": "ups.conf, [ups]: ignorelb is a flag, and set by its presence, whatever its value",
        "synchronous = maybe": "synchronous is 'maybe', must be yes or no or auto",
        "a = 1\n[x]\n": "ups.conf, line 1: NUT has no directive a, and would silently ignore it",
        "nowait": "nowait is refused: systemd waits for the drivers",
        "nowait = yes": "nowait is refused: systemd waits for the drivers",
        "chroot = /x": "chroot is refused: upsd would look for the drivers' sockets outside of it",
    },
    "upsd.users": {
        USERS + "foo = x": "upsd.users, [u]: line 3 is not a setting of a user. The settings are password, actions, instcmds, upsmon",
        USERS + "[v": "upsd.users, line 3: upsd does not read this as a [user]. It must end with ], and the name must have no blank",
        USERS + "actions = SET LOGIN": "upsd.users, [u]: the action 'LOGIN' is neither SET nor FSD",
        USERS + "actions SET": "upsd.users, [u]: actions has no = and value, so upsd ignores it",
        "[u]\npassword = a b": "upsd.users, [u]: the password is more than one word. Put quotes around it",
        USERS + "upsmon primry": "upsd.users, [u]: upsmon is 'primry', must be primary or secondary or master or slave",
        USERS + "upsmon = primary": "upsd.users, [u]: upsmon is followed by =, which NUT does not allow here: it must be primary",
        "actions = SET\n" + USERS: "upsd.users, line 1: it is before the first [user], so upsd ignores it",
        USERS + "allowfrom = x": "upsd.users, [u]: allowfrom is refused: upsd accepts it without effect",
    },
    "upssched.conf": {
        SCHED + "AT ONBATT * STARTTIMER a 5": "AT ONBATT: upssched has no command 'STARTTIMER'. Did you mean START-TIMER?",
        SCHED + "AT ONBATT * execute a": "AT ONBATT: upssched has no command 'execute'",
        SCHED + "AT ONBATT * START-TIMER a": "AT ONBATT: START-TIMER a needs a whole number of seconds",
        SCHED + "AT ONBATT * START-TIMER a 5m": "START-TIMER a needs a whole number of seconds: NUT takes anything else for 0",
        SCHED + "AT ONLINE * CANCEL-TIMER-MATCHED a": "AT ONLINE: CANCEL-TIMER-MATCHED is refused: it exists only in NUT's manual",
        SCHED + "AT ONBATT * EXECUTE a b": "AT ONBATT: EXECUTE takes one word. Put quotes around it",
        SCHED + "AT ONBATT * EXECUTE": "AT ONBATT is malformed, must be a type of notification, a UPS (or *)",
        SCHED + "AT ONBAT * EXECUTE a": "AT ONBAT: NUT has no such type of notification",
        "AT ONBATT * EXECUTE a\n" + SCHED: "CMDSCRIPT and PIPEFN and LOCKFN must come before the first AT",
        "CMDSCRIPT /x\nLOCKFN /l\nAT FSD * EXECUTE a\nAT FSD * EXECUTE b\nPIPEFN /p": "PIPEFN must come before the first AT",
        "CMDSCRIPT /x\nPIPEFN /p\nLOCKFN l": "LOCKFN is 'l', must be a path that begins with /",
        "cmdscript /x": "upssched.conf, line 1: upssched has no directive 'cmdscript', and would ignore it",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"), [(name, *case) for name, texts in WRONG.items() for case in texts.items()]
)
@pytest.mark.parametrize("release", [None, BOOKWORM, SID])
def test_wrong_value_is_reported(name: str, text: str, message: str, release: Release | None) -> None:
    (sentence,) = find_wrong_values({name: text + "\n"}, release)
    assert sentence.startswith(name)
    assert message in sentence
    assert not sentence.endswith(".")


def test_quotes_that_nut_2_8_0_would_keep_are_refused() -> None:
    files = {"nut.conf": 'POWEROFF_WAIT="30"\n'}
    for release in (None, BOOKWORM):
        (wrong,) = find_wrong_values(files, release)
        assert "nut.conf: POWEROFF_WAIT must have no quotes: NUT 2.8.0 would reboot this host at once" in wrong
    assert find_wrong_values(files, TRIXIE) == []


def test_second_placeholder_is_refused_before_nut_2_8_3() -> None:
    (wrong,) = find_wrong_values({"upsmon.conf": 'NOTIFYMSG ALARM "%s %s"\n'}, (2, 8, 2))
    assert "NOTIFYMSG ALARM: the text may have one %s for the UPS" in wrong


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("upsd.users", "[u]\npassword s3cret\n"),
        ("upsd.users", "[u]\npassword = s3cret s3cret\n"),
        ("upsd.users", "[u]\ns3cret\n"),
        ("upsd.users", "s3cret\n"),
        ("upsmon.conf", "MONITOR u@h 1 me s3cret = x primary\n"),
        ("upsmon.conf", "CERTIDENT s3cret\n"),
        ("upsd.conf", "CERTIDENT a s3cret x\n"),
        ("upsmon.conf", "DEADTIME 5 MONITOR u@h 1 me s3cret primary\n"),
        ("nut.conf", "MONITOR u@h 1 me s3cret primary\n"),
    ],
)
def test_secrets_are_never_shown(name: str, text: str) -> None:
    wrong = find_wrong_values({name: text}, None)
    assert wrong
    assert "s3cret" not in "".join(wrong)


STATE_PATHS: dict[str, tuple[dict[str, str], Release | None, bool]] = {
    "both": ({"ups.conf": "STATEPATH = /x/\n"}, SID, True),
    "release unknown": ({"ups.conf": "statepath = /x\n"}, None, True),
    "only the drivers have a path": ({"ups.conf": "statepath = /y\n"}, SID, False),
    "drivers that don't know the key": ({"ups.conf": "statepath = /x\n"}, (2, 8, 2), False),
    "no path": ({"ups.conf": ""}, SID, False),
    "a path for all": ({"nut.conf": "MODE=netserver\nNUT_STATEPATH=/x\n"}, TRIXIE, True),
}


@pytest.mark.parametrize(("files", "release", "right"), STATE_PATHS.values(), ids=STATE_PATHS.keys())
def test_state_paths_of_upsd_and_drivers_must_match(
    files: Mapping[str, str], release: Release | None, right: bool
) -> None:
    wrong = find_wrong_values({**files, "upsd.conf": "STATEPATH /x\n"}, release)
    assert ("STATEPATH is /x, but the drivers" in "".join(wrong)) is not right
