# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import directives, grammar, releases, upsmon
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.releases import DEVICE, DIRECTIVES, NOTIFY_TYPES
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.releases import Release

BOOKWORM, TRIXIE, SID = (2, 8, 0), (2, 8, 1), (2, 8, 5)
RELEASES = [(2, 7, 4), BOOKWORM, TRIXIE, (2, 8, 2), (2, 8, 3), (2, 8, 4), SID]

# What the tables say

ENTRIES = {
    f"{place}: {name}": one
    for place, table in (*DIRECTIVES.items(), ("section", DEVICE), ("AT", directives.AT_COMMANDS))
    for name, one in table.items()
}


@pytest.mark.parametrize("one", ENTRIES.values(), ids=ENTRIES.keys())
def test_each_entry_is_whole(one: directives.Directive) -> None:
    assert one.kind in directives.KINDS or "|" in one.kind
    # one fate for each: refused everywhere, refused where it is unknown, or left out
    assert [bool(one.needed), bool(one.never), bool(one.without)].count(True) <= 1
    assert not (one.needed + one.never + one.without).endswith(".")
    assert RELEASES[0] <= one.since <= (2, 8, 6)


SINCE: dict[str, Release] = {
    "upsmon.conf: SHUTDOWNEXIT": TRIXIE,
    "upsmon.conf: OBLBDURATION": (2, 8, 3),
    "upsd.conf: ALLOW_NOT_ALL_LISTENERS": (2, 8, 2),
    "nut.conf: NUT_DEBUG_PROCNAME": SID,
    "upssched.conf: DEBUG_MIN": SID,
    "section: busport": TRIXIE,
    # global since ever, but in a section NUT 2.8.1 calls it invalid
    "section: maxstartdelay": (2, 8, 3),
    "section: usb_hid_ep_in": (2, 8, 2),
    "section: onlinedischarge_onbattery": (2, 8, 2),
    "section: powercom_sdcmd_discrete_delay": (2, 8, 4),
}


@pytest.mark.parametrize(("name", "since"), SINCE.items())
def test_since_when(name: str, since: Release) -> None:
    assert ENTRIES[name].since == since


def test_types_of_notifications() -> None:
    counted = [len([name for name, since in NOTIFY_TYPES.items() if since <= release]) for release in RELEASES]
    assert counted == [10, 11, 15, 16, 30, 30, 31]


# Which release it is

SAID: dict[str, Release | None] = {
    "Network UPS Tools upsmon 2.8.0\n": BOOKWORM,
    "Network UPS Tools upsd 2.8.5 release\n": SID,
    "fopen: no 10.0.0.1\nNetwork UPS Tools upsmon 2.8.1\nupsnotify: failed 1.2.3\n": TRIXIE,
    "Network UPS Tools upsmon 2.8.2.2396-2396+g31650d455 (development iteration after 2.8.2)": (2, 8, 2),
    "Network UPS Tools - Generic HID driver 0.47 (2.8.0)\nUSB communication driver 0.43": BOOKWORM,
    "Network UPS Tools upsmon 2.10.11": (2, 10, 11),
    "upsmon disabled, please adjust the configuration to your needs": None,
    "": None,
}


@pytest.mark.parametrize(("said", "release"), SAID.items())
def test_the_release_in_what_a_program_says(said: str, release: Release | None) -> None:
    assert releases.version(said) == release


INSTALLED: dict[str, tuple[dict[str, str], Release | None, list[list[str]]]] = {
    "upsmon is asked": (
        {"upsmon": "Network UPS Tools upsmon 2.8.1", "upsd": "Network UPS Tools upsd 2.8.0"},
        TRIXIE,
        [["/nut/upsmon", "-V"]],
    ),
    "then upsd": (
        {"upsmon": "upsmon disabled", "upsd": "Network UPS Tools upsd 2.8.0"},
        BOOKWORM,
        [["/nut/upsmon", "-V"], ["/nut/upsd", "-V"]],
    ),
    "upsd alone": ({"upsd": "Network UPS Tools upsd 2.8.0"}, BOOKWORM, [["/nut/upsd", "-V"]]),
    "none": ({}, None, []),
}


@pytest.mark.parametrize(("programs", "release", "run"), INSTALLED.values(), ids=INSTALLED.keys())
def test_the_installed_release(programs: Mapping[str, str], release: Release | None, run: list[list[str]]) -> None:
    asked = []

    def runner(command: Sequence[str]) -> tuple[int, str]:
        asked.append(list(command))
        return 0, programs[Path(command[0]).name]

    found = releases.installed(runner, lambda name: Path("/nut", name) if name in programs else None)
    assert found == release
    assert asked == run


# What a release does not know

USERS = "[u]\npassword = p\n"
SCHED = "CMDSCRIPT /bin/x\nPIPEFN /run/nut/p\nLOCKFN /run/nut/l\n"
HID = "[ups]\n    driver = usbhid-ups\n    port = auto\n"

LEFT_OUT: dict[str, tuple[str, Release, str, str, str]] = {
    "upsmon.conf": (
        "upsmon.conf", BOOKWORM, "MINSUPPLIES 1\nOFFDURATION 30 # why\nDEADTIME 15\n", "MINSUPPLIES 1\nDEADTIME 15\n",
        "upsmon.conf: OFFDURATION is known from NUT 2.8.1 on, and this host has 2.8.0. "
        "It is left out: a UPS that is OFF is then no reason to shut down.",
    ),
    "without a meaning": (
        "upsmon.conf", (2, 7, 4), "NOTIFYFLAG CAL EXEC\n", "",
        "upsmon.conf: NOTIFYFLAG CAL is known from NUT 2.8.0 on, and this host has 2.7.4. "
        "It is left out: upsmon never says it there.",
    ),
    "a key of all drivers": (
        "ups.conf", TRIXIE, "[a]\ndriver = dummy-ups\nport = x\nmaxretry = 3\ndesc = b\n", "[a]\ndriver = dummy-ups\nport = x\ndesc = b\n",
        "ups.conf, [a]: maxretry is known from NUT 2.8.3 on, and this host has 2.8.1. "
        "It is left out: the global one holds for all UPSes.",
    ),
    "a key of usbhid-ups, in capital letters": (
        "ups.conf", BOOKWORM, HID + "WaitBeforeReconnect = 30\n", HID,
        "ups.conf, [ups]: WaitBeforeReconnect is known from NUT 2.8.1 on, and this host has 2.8.0. "
        "It is left out: the driver tries to reconnect at once.",
    ),
    "the global part": (
        "ups.conf", TRIXIE, "maxretry = 3\nSTATEPATH = /run/x\n" + HID, "maxretry = 3\n" + HID,
        "ups.conf: STATEPATH is known from NUT 2.8.3 on, and this host has 2.8.1. "
        "It is left out: the drivers put their sockets where Debian's NUT has them.",
    ),
    "nut.conf": (
        "nut.conf", BOOKWORM, "MODE=netserver\n# NUT_DEBUG_LEVEL=1\n NUT_DEBUG_LEVEL=\"3\"\nPOWEROFF_WAIT=30s\n",
        "MODE=netserver\n# NUT_DEBUG_LEVEL=1\nPOWEROFF_WAIT=30s\n",
        "nut.conf: NUT_DEBUG_LEVEL is known from NUT 2.8.1 on, and this host has 2.8.0. It is left out: only the logs differ.",
    ),
    "upsd.conf": (
        "upsd.conf", TRIXIE, "ALLOW_NOT_ALL_LISTENERS true\nLISTEN 0.0.0.0\n", "LISTEN 0.0.0.0\n",
        "upsd.conf: ALLOW_NOT_ALL_LISTENERS is known from NUT 2.8.2 on, and this host has 2.8.1. "
        "It is left out: older ones never insist on all addresses.",
    ),
    "any case": (
        "upsmon.conf", (2, 7, 4), "debug_min 1\n", "",
        "upsmon.conf: debug_min is known from NUT 2.8.0 on, and this host has 2.7.4. It is left out: only the logs differ.",
    ),
    "a message": (
        "upsmon.conf", TRIXIE, 'NOTIFYMSG ONBATT "a %s"\nNOTIFYMSG eco "b %s"\n', 'NOTIFYMSG ONBATT "a %s"\n',
        "upsmon.conf: NOTIFYMSG ECO is known from NUT 2.8.3 on, and this host has 2.8.1. "
        "It is left out: upsmon never says it there.",
    ),
    "an AT": (
        "upssched.conf", BOOKWORM, "AT ONBATT * EXECUTE a\nAT OFF * EXECUTE b\n", "AT ONBATT * EXECUTE a\n",
        "upssched.conf: AT OFF is known from NUT 2.8.1 on, and this host has 2.8.0. It is left out: upsmon never says it there.",
    ),
    "an AT that never comes, with a command that is unknown": (
        "upssched.conf", BOOKWORM, "AT ECO * START-TIMER-SHARED a 5\n", "",
        "upssched.conf: AT ECO is known from NUT 2.8.3 on, and this host has 2.8.0. It is left out: upsmon never says it there.",
    ),
    "a line in pieces": (
        "upsmon.conf", BOOKWORM, "HOSTSYNC 30\nOFFDURATION \\\n30 \\\n# still\nDEADTIME 15\n", "HOSTSYNC 30\nDEADTIME 15\n",
        "upsmon.conf: OFFDURATION is known from NUT 2.8.1 on, and this host has 2.8.0. "
        "It is left out: a UPS that is OFF is then no reason to shut down.",
    ),
    "quotes over two lines": (
        "upsmon.conf", BOOKWORM, 'NOTIFYMSG OFF "a \\\n DEADTIME 3" # b\nDEADTIME 15\n', "DEADTIME 15\n",
        "upsmon.conf: NOTIFYMSG OFF is known from NUT 2.8.1 on, and this host has 2.8.0. "
        "It is left out: upsmon never says it there.",
    ),
    "the end of a file without a newline": (
        "upsmon.conf", BOOKWORM, "# a\nOFFDURATION \\\n30", "# a\n",
        "upsmon.conf: OFFDURATION is known from NUT 2.8.1 on, and this host has 2.8.0. "
        "It is left out: a UPS that is OFF is then no reason to shut down.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "release", "text", "fitted", "said"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_left_out(name: str, release: Release, text: str, fitted: str, said: str) -> None:
    other = {"other.conf": "OFFDURATION 30\n"}
    assert releases.fit({name: text, **other}, release) == releases.Fitted({name: fitted, **other}, (said,), ())


KEPT: dict[str, tuple[str, Release, str]] = {
    "known": ("upsmon.conf", TRIXIE, "OFFDURATION 30\n"),
    "known to nobody": ("upsmon.conf", BOOKWORM, "OFDURATION 30\nNOTIFYMSG FOO a\n"),
    "misspelled, as the daemon will say": ("upsmon.conf", BOOKWORM, "offduration 30\n"),
    "a comment": ("upsmon.conf", BOOKWORM, "# OFFDURATION 30\n"),
    "inside a text": ("upsmon.conf", BOOKWORM, 'SHUTDOWNCMD "OFFDURATION \\\nOFFDURATION 30"\n'),
    "another driver's key": ("ups.conf", BOOKWORM, "[a]\ndriver = nutdrv_qx\nport = auto\nbusport = 001\n"),
    "a section without a driver": ("ups.conf", BOOKWORM, "[a]\nport = auto\nwaitbeforereconnect = 1\n"),
    "a variable of others": ("nut.conf", BOOKWORM, "TZ=UTC\nexport NUT_DEBUG_LEVEL=1\nNUT_DEBUG_LEVEL = 1\n"),
    "families": ("ups.conf", BOOKWORM, HID + "default.battery.charge.low = 30\noverride.ups.mfr = X\n"),
    "what NUT reads otherwise than written": ("upsmon.conf", BOOKWORM, 'NOTIFYMSG ONBATT "a\nOFFDURATION 30\n"\n'),
    "what is refused everywhere": ("upsmon.conf", BOOKWORM, "CERTFILE /x\n"),
    "a command that is refused everywhere": ("upssched.conf", BOOKWORM, "AT ONLINE * CANCEL-TIMER-MATCHED a\n"),
    "no newline": ("upsmon.conf", BOOKWORM, "DEADTIME 15"),
    "strange newlines": ("upsmon.conf", BOOKWORM, "DEADTIME 15\r\n# \x0b\x0c\u2028\n\n\n"),
}


@pytest.mark.parametrize(("name", "release", "text"), KEPT.values(), ids=KEPT.keys())
def test_kept(name: str, release: Release, text: str) -> None:
    assert releases.fit({name: text}, release) == releases.Fitted({name: text}, (), ())


def test_a_sentence_is_said_once() -> None:
    fitted = releases.fit({"upssched.conf": "AT OFF * EXECUTE a\nAT OFF u@h EXECUTE b\n"}, BOOKWORM)
    assert fitted.files == {"upssched.conf": ""}
    assert len(fitted.left_out) == 1


REFUSED: dict[str, tuple[str, Release, str, str]] = {
    "busport": (
        "ups.conf", BOOKWORM, HID + 'busport = "004"\n',
        "ups.conf, [ups]: busport is known from NUT 2.8.1 on, and this host has 2.8.0. It can't be left out: UPSes that",
    ),
    "subdriver": ("ups.conf", BOOKWORM, HID + "subdriver = MGE\n", "It can't be left out: the driver would choose"),
    "onlinedischarge_onbattery": ("ups.conf", TRIXIE, HID + "onlinedischarge_onbattery\n", "call it onlinedischarge: write that"),
    "sdcommands of any driver": (
        "ups.conf", TRIXIE, "[a]\ndriver = nutdrv_qx\nport = auto\nsdcommands = load.off\n", "ups.conf, [a]: sdcommands is known",
    ),
    "a timer that would not run": ("upssched.conf", TRIXIE, "AT ONBATT * START-TIMER-SHARED a 5\n", "Use START-TIMER on this host."),
}  # fmt: skip


@pytest.mark.parametrize(("name", "release", "text", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_where_leaving_it_out_is_unsafe(name: str, release: Release, text: str, said: str) -> None:
    fitted = releases.fit({name: text}, release)
    assert (fitted.files, fitted.left_out) == ({name: text}, ())
    (sentence,) = fitted.refused
    assert said in sentence


# One value of each kind that NUT takes
SAMPLES = {
    **{"number": "1", "positive": "2", "integer": "-1", "seconds": "5", "boolean": "True", "exit": "no", "hex": "0x81"},
    **{
        "delay": "30s",
        "word": "abc",
        "text": '"a b"',
        "path": "/run/nut",
        "flag": "",
        "number?": "",
        "words": "SET FSD",
    },
    **{"listen": "192.0.2.1 3493", "monitor": "u@h 1 a b primary", "identity": "a b", "certhost": "h c 1 0"},
    **{"notifymsg": 'ONBATT "a %s"', "notifyflag": "ONBATT SYSLOG+EXEC", "at": "ONLINE * EXECUTE a"},
}


def sample(kind: str) -> str:
    return SAMPLES[kind] if kind in SAMPLES else kind.partition("|")[0]


def written(name: str, word: str, one: directives.Directive) -> str:
    value = sample(one.kind)
    if word in ("actions", "instcmds", "password"):
        return f"{word} = {value}"
    if name == "ups.conf":
        return f"{word.replace('*', 'a.b')} = {value}" if value else word
    return f"{word}={value}" if name == "nut.conf" else f"{word} {value}"


Known = tuple[str, "Release"]


def known(name: str, table: Mapping[str, directives.Directive]) -> list[Known]:
    lines = [(written(name, word, one), one.since) for word, one in table.items() if not one.needed + one.never]
    if name == "upsmon.conf":
        for kind, since in NOTIFY_TYPES.items():
            lines += [(f'NOTIFYMSG {kind} "a %s"', since), (f"NOTIFYFLAG {kind} IGNORE", since)]
    return lines


def around(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["", "# OFFDURATION 5\n", "\n", "  \t\n", "# ü\n", "# NUT_DEBUG_LEVEL=1\n"])


def decorated(name: str, line: str) -> st.SearchStrategy[str]:
    forms = [f"{line}\n", f"  {line} \n"]
    if name != "nut.conf":
        forms += [f"{line} # a \\\n", re.sub(r" (?=\w)", " \\\\\n", line, count=1) + "\n"]
        # a backslash behind quotes would begin another word
        forms += [] if line.endswith('"') else [f"{line}\\\n\n"]
    return st.sampled_from(forms)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, list[tuple[str, Release]]]:
    """Make a file as pieces of text, each with the release since which NUT knows it."""
    name = draw(st.sampled_from(sorted(DIRECTIVES)))
    pieces: list[tuple[str, Release]] = []

    def some(table: Mapping[str, directives.Directive]) -> None:
        for line, since in draw(st.lists(st.sampled_from(known(name, table)), max_size=6)):
            pieces.append((draw(around(name)), RELEASES[0]))
            pieces.append((draw(decorated(name, line)), since))

    if name == "upssched.conf":
        pieces.append((SCHED, RELEASES[0]))
    if name != "upsd.users":
        some(DIRECTIVES[name])
    if name == "ups.conf":
        for header in draw(st.lists(st.sampled_from("abc"), unique=True)):
            pieces.append((f"[{header}]\ndriver = usbhid-ups\nport = auto\n", RELEASES[0]))
            some({key: one for key, one in DEVICE.items() if key not in ("driver", "port")})
    if name == "upsd.users":
        pieces.append(("[u]\n", RELEASES[0]))
        some(DIRECTIVES[name])
    return name, pieces


@given(files(), st.sampled_from(RELEASES))
def test_what_a_release_knows_survives_byte_for_byte(
    made: tuple[str, list[tuple[str, Release]]], release: Release
) -> None:
    name, pieces = made
    text = "".join(piece for piece, _unused in pieces)
    fitted = releases.fit({name: text}, release)
    assert fitted.files == {name: "".join(piece for piece, since in pieces if since <= release)}
    assert fitted.refused == ()
    assert bool(fitted.left_out) == any(since > release for _unused, since in pieces)
    again = releases.fit(fitted.files, release)
    assert again == releases.Fitted(fitted.files, (), ())
    assert releases.wrong_values({name: text.replace("[u]", "[u]\npassword = x")}, release) == []


GARBAGE = st.one_of(
    st.text(),
    st.text(alphabet=' \t\n\\"#=[]%+*aA1_'),
    st.lists(
        st.sampled_from(
            [
                *chain(*DIRECTIVES.values()),
                *DEVICE,
                *NOTIFY_TYPES,
                "=",
                "\n",
                "\\",
                '"',
                "#",
                " ",
                "[u]",
                "%",
                "-1",
                "START-TIMER",
            ]
        )
    ).map(" ".join),
)


@given(st.dictionaries(st.sampled_from(sorted([*DIRECTIVES, "x"])), GARBAGE), st.sampled_from([*RELEASES, (3, 0, 0)]))
def test_garbage(made: Mapping[str, str], release: Release) -> None:
    fitted = releases.fit(made, release)
    assert releases.fit(fitted.files, release).files == fitted.files
    assert releases.advice(made, release) == [*dict.fromkeys(releases.advice(made, release))]
    for one in (release, None):
        assert all(isinstance(words, str) for words in releases.wrong_values(made, one))
    # what is left is read as it was read before
    for name in set(made) - {"nut.conf", "x"}:
        before = [line.words for line in grammar.parse(made[name])]
        after = [line.words for line in grammar.parse(fitted.files[name])]
        rest = iter(before)
        assert all(words in rest for words in after)


# What NUT would take for something else in silence

RIGHT: dict[str, tuple[str, str, Release | None]] = {
    "quotes in nut.conf": (
        "nut.conf",
        "# a\n\nMODE='netserver'\nUPSD_OPTIONS=\"-4 -D\"\nALLOW_NO_DEVICE=\nFOO=b\n",
        None,
    ),
    "POWEROFF_WAIT": ("nut.conf", "POWEROFF_WAIT=15m\n", BOOKWORM),
    "POWEROFF_WAIT in quotes": ("nut.conf", 'POWEROFF_WAIT="30s"\n', TRIXIE),
    "half a second": ("nut.conf", "POWEROFF_WAIT=0.5\n", TRIXIE),
    "a variable of NUT's that is not in its manual": ("nut.conf", "NUT_QUIET_INIT_BANNER=true\n", None),
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
    "another driver's own": ("ups.conf", "[a]\ndriver = snmp-ups\nport = x\npollfreq = abc\n", None),
    "a newer NUT may know it": ("ups.conf", "newthing = 3\n", (2, 8, 6)),
    "a newer NUT's event": ("upsmon.conf", "NOTIFYFLAG NEWTHING EXEC\n", (2, 9, 0)),
    "a newer NUT's command": ("upssched.conf", SCHED + "NEW x\nAT NEW * NEW-TIMER a\n", (2, 9, 0)),
    "a newer NUT's users": ("upsd.users", USERS + "new = x\n", (2, 9, 0)),
    "STATEPATH as Debian has it": ("upsd.conf", "STATEPATH /run/nut/\n", None),
}


@pytest.mark.parametrize(("name", "text", "release"), RIGHT.values(), ids=RIGHT.keys())
def test_right_values(name: str, text: str, release: Release | None) -> None:
    assert releases.wrong_values({name: text}, release) == []


# file -> text -> what is said of it
WRONG: dict[str, dict[str, str]] = {
    "upsmon.conf": {
        "POLLFREQ abc": "POLLFREQ is 'abc', and must be a whole number of seconds, without a unit",
        "DEADTIME 5s": "DEADTIME is '5s', and must be a whole number of seconds, without a unit",
        "DEADTIME 99999999999": "DEADTIME is '99999999999', and must be a whole number of",
        "DEADTIME 5 6": "DEADTIME has 2 values, and must be a whole number of seconds",
        "DEADTIME = 15": "DEADTIME has a = behind it, and NUT takes none there: it must be a whole number",
        "NOTIFYCMD a b": "NOTIFYCMD has 2 values, and must be one text, in quotes if it has blanks",
        "debug_min x": "DEBUG_MIN is 'x', and must be a whole number",
        "CERTVERIFY yes": "CERTVERIFY is 'yes', and must be 0 or 1",
        "ALARMCRITICAL no": "ALARMCRITICAL is 'no', and must be 0 or 1",
        "SHUTDOWNEXIT never": "SHUTDOWNEXIT is 'never', and must be yes, no, or a whole number of seconds",
        "POWERDOWNFLAG flag": "POWERDOWNFLAG is 'flag', and must be a path that begins with /",
        "MONITOR u@h one a b primary": "MONITOR u@h is not as NUT takes it, and must be UPS@HOST, a whole",
        "CERTHOST h c yes 1": "CERTHOST h is not as NUT takes it, and must be a host, the name",
        "CERTIDENT a": "CERTIDENT is not as NUT takes it, and must be the name of a certificate",
        "NOTIFYFLAG ONBATT SYSLOG+EXECC": "NOTIFYFLAG ONBATT is not as NUT takes it, and must be a type of",
        "NOTIFYFLAG ONBATT syslog": "SYSLOG, WALL, EXEC with + between, or IGNORE alone",
        "NOTIFYFLAG ONBATT IGNORE+EXEC": "SYSLOG, WALL, EXEC with + between, or IGNORE alone",
        "NOTIFYFLAG ONBATT SYSLOG WALL": "SYSLOG, WALL, EXEC with + between, or IGNORE alone",
        "NOTIFYFLAG ONBAT EXEC": "NOTIFYFLAG ONBAT: NUT has no notification of that type. It has ONLINE, ONBATT,",
        "NOTIFYMSG ONBAT x": "NOTIFYMSG ONBAT: NUT has no notification of that type",
        'NOTIFYMSG ONBATT "%s %s"': "NOTIFYMSG ONBATT: its text may have one %s for the UPS, and no other %. Write %% for a percent",
        'NOTIFYMSG ALARM "%s %s %s"': "NOTIFYMSG ALARM: its text may have one %s",
        "NOTIFYMSG ONBATT 50%d": "NOTIFYMSG ONBATT: its text may have one %s for the UPS, and no other %.",
        'NOTIFYMSG ONBATT "at 50%"': "NOTIFYMSG ONBATT: its text may have one %s for the UPS, and no other %.",
        "NOTIFYMSG ONBATT %%%": "NOTIFYMSG ONBATT: its text may have one %s for the UPS, and no other %.",
        "CERTFILE /x": "CERTFILE is refused: Debian's NUT is built with NSS",
    },
    "upsd.conf": {
        "MAXAGE -1": "MAXAGE is '-1', and must be a whole number of at least 1",
        "MAXAGE 00": "MAXAGE is '00', and must be a whole number of at least 1",
        "MAXAGE": "MAXAGE has no value, and must be a whole number of at least 1",
        "LISTEN 192.0.2.1:3493": "LISTEN 192.0.2.1:3493 is not as NUT takes it, and must be an address (or *), and the port",
        "LISTEN 192.0.2.300": "LISTEN 192.0.2.300 is not as NUT takes it",
        "LISTEN [::1] 3493": "LISTEN [::1] is not as NUT takes it",
        "LISTEN 192.0.2.1 nut": "LISTEN 192.0.2.1 is not as NUT takes it",
        "LISTEN 192.0.2.1 0": "LISTEN 192.0.2.1 is not as NUT takes it",
        "LISTEN 192.0.2.1 65536": "LISTEN 192.0.2.1 is not as NUT takes it",
        "LISTEN 192.0.2.0/24": "LISTEN 192.0.2.0/24 is not as NUT takes it",
        "ALLOW_NO_DEVICE maybe": "ALLOW_NO_DEVICE is 'maybe', and must be true or false (or yes, no, on, off, 1, 0)",
        "CERTFILE /x": "CERTFILE is refused: Debian's NUT is built with NSS",
        "CERTREQUEST 2": "CERTREQUEST is refused: Debian's NUT is built without it",
        "ACCEPT all": "ACCEPT is refused: upsd only pretends to take it",
        "STATEPATH /var/state": "STATEPATH is /var/state, but the drivers put their sockets into /run/nut",
    },
    "nut.conf": {
        "MODE = netserver": "nut.conf, line 1: this is not NAME=value as the shell and systemd read it.",
        "\nMODE=none # why": "nut.conf, line 2: this is not NAME=value as the shell and systemd read it.",
        "export MODE=none": "nut.conf, line 1: this is not NAME=value",
        'UPSD_OPTIONS="-4': "nut.conf, line 1: this is not NAME=value",
        'UPSD_OPTIONS="$A"': "nut.conf, line 1: this is not NAME=value",
        "MODE=server": "MODE is 'server', and must be none or standalone or netserver or netclient",
        "POWEROFF_WAIT=5min": "POWEROFF_WAIT is '5min', and must be a time as sleep(1) takes it",
        "POWEROF_WAIT=30s": "POWEROF_WAIT is no variable of NUT. POWEROFF_WAIT is",
        "NUT_DEBUG_LEVEL=yes": "NUT_DEBUG_LEVEL is 'yes', and must be a whole number",
    },
    "ups.conf": {
        HID + "pollinterval = 0": "ups.conf, [ups]: pollinterval is '0', and must be a whole number of at least 1",
        "pollinterval = 0": "pollinterval is '0', and must be a whole number of at least 1",
        HID + "OffDelay = soon": "ups.conf, [ups]: OffDelay is 'soon', and must be a whole number of seconds",
        HID + "offdelay 30": "ups.conf, [ups]: offdelay has no = before its value, and NUT ignores it. Write offdelay = VALUE",
        HID + "foo 30": "ups.conf, [ups]: foo has no = before its value, and NUT ignores it",
        HID + "override.battery.charge.low": "override.battery.charge.low has no value, and must be one text",
        HID + "desc = my ups": "ups.conf, [ups]: desc has 2 values, and must be one text, in quotes if it has blanks",
        HID + "ignorelb = no": "ups.conf, [ups]: ignorelb is set by standing there, whatever is behind its =",
        "synchronous = maybe": "synchronous is 'maybe', and must be yes or no or auto",
        "a = 1\n[x]\n": "ups.conf, line 1: a is no directive of NUT, which would ignore it in silence",
        "nowait": "nowait is refused: systemd waits for a driver itself",
        "nowait = yes": "nowait is refused: systemd waits for a driver itself",
        "chroot = /x": "chroot is refused: upsd would look for the drivers' sockets outside of it",
    },
    "upsd.users": {
        USERS + "foo = x": "upsd.users, [u]: line 3 is no setting of a user. There are password, actions, instcmds, upsmon",
        USERS + "[v": "upsd.users, line 3: upsd does not take this for a [user]. It must end with ], and a user name has no blank",
        USERS + "actions = SET LOGIN": "upsd.users, [u]: the action 'LOGIN' is neither SET nor FSD",
        USERS + "actions SET": "upsd.users, [u]: actions has no = with a value behind it, and upsd ignores it",
        "[u]\npassword = a b": "upsd.users, [u]: the password is more than one word. Put quotes around it",
        USERS + "upsmon primry": "upsd.users, [u]: upsmon is 'primry', and must be primary or secondary or master or slave",
        USERS + "upsmon = primary": "upsd.users, [u]: upsmon has a = behind it, and NUT takes none there: it must be primary",
        "actions = SET\n" + USERS: "upsd.users, line 1: it stands before the first [user], so upsd ignores it",
        USERS + "allowfrom = x": "upsd.users, [u]: allowfrom is refused: upsd only pretends to take it",
    },
    "upssched.conf": {
        SCHED + "AT ONBATT * STARTTIMER a 5": "AT ONBATT: upssched has no command 'STARTTIMER'. It has START-TIMER,",
        SCHED + "AT ONBATT * execute a": "AT ONBATT: upssched has no command 'execute'",
        SCHED + "AT ONBATT * START-TIMER a": "AT ONBATT: START-TIMER a needs a whole number of seconds",
        SCHED + "AT ONBATT * START-TIMER a 5m": "START-TIMER a needs a whole number of seconds: NUT takes anything else for 0",
        SCHED + "AT ONLINE * CANCEL-TIMER-MATCHED a": "AT ONLINE: CANCEL-TIMER-MATCHED is refused: only NUT's manual knows it",
        SCHED + "AT ONBATT * EXECUTE a b": "AT ONBATT: EXECUTE takes one word. Put quotes around it",
        SCHED + "AT ONBATT * EXECUTE": "AT ONBATT is not as NUT takes it, and must be a type of notification, a UPS (or *)",
        SCHED + "AT ONBAT * EXECUTE a": "AT ONBAT: NUT has no notification of that type",
        "AT ONBATT * EXECUTE a\n" + SCHED: "CMDSCRIPT and PIPEFN and LOCKFN must stand before the first AT",
        "CMDSCRIPT /x\nLOCKFN /l\nAT FSD * EXECUTE a\nAT FSD * EXECUTE b\nPIPEFN /p": "PIPEFN must stand before the first AT",
        "CMDSCRIPT /x\nPIPEFN /p\nLOCKFN l": "LOCKFN is 'l', and must be a path that begins with /",
        "cmdscript /x": "upssched.conf, line 1: 'cmdscript' is no directive of upssched, which would ignore it",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "said"), [(name, *one) for name, texts in WRONG.items() for one in texts.items()]
)
@pytest.mark.parametrize("release", [None, BOOKWORM, SID])
def test_wrong_values(name: str, text: str, said: str, release: Release | None) -> None:
    (sentence,) = releases.wrong_values({name: text + "\n"}, release)
    assert sentence.startswith(name)
    assert said in sentence
    assert not sentence.endswith(".")


def test_quotes_that_nut_2_8_0_would_not_take_away() -> None:
    files = {"nut.conf": 'POWEROFF_WAIT="30"\n'}
    for release in (None, BOOKWORM):
        (wrong,) = releases.wrong_values(files, release)
        assert "nut.conf: POWEROFF_WAIT must have no quotes: NUT 2.8.0 would reboot this host at once" in wrong
    assert releases.wrong_values(files, TRIXIE) == []


def test_two_parts_where_upsmon_knows_one() -> None:
    (wrong,) = releases.wrong_values({"upsmon.conf": 'NOTIFYMSG ALARM "%s %s"\n'}, (2, 8, 2))
    assert "NOTIFYMSG ALARM: its text may have one %s for the UPS" in wrong


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
def test_secrets_are_never_told(name: str, text: str) -> None:
    wrong = releases.wrong_values({name: text}, None)
    assert wrong
    assert "s3cret" not in "".join(wrong)


STATE_PATHS: dict[str, tuple[dict[str, str], Release | None, bool]] = {
    "both": ({"ups.conf": "STATEPATH = /x/\n"}, SID, True),
    "release unknown": ({"ups.conf": "statepath = /x\n"}, None, True),
    "the drivers alone are told": ({"ups.conf": "statepath = /y\n"}, SID, False),
    "drivers that don't know it": ({"ups.conf": "statepath = /x\n"}, (2, 8, 2), False),
    "nobody is told": ({"ups.conf": ""}, SID, False),
    "all are told": ({"nut.conf": "MODE=netserver\nNUT_STATEPATH=/x\n"}, TRIXIE, True),
}


@pytest.mark.parametrize(("files", "release", "right"), STATE_PATHS.values(), ids=STATE_PATHS.keys())
def test_upsd_looks_where_the_drivers_put_their_sockets(
    files: Mapping[str, str], release: Release | None, right: bool
) -> None:
    wrong = releases.wrong_values({**files, "upsd.conf": "STATEPATH /x\n"}, release)
    assert ("STATEPATH is /x, but the drivers" in "".join(wrong)) is not right


# What a release is known to be bad at

SECONDARY = {"nut.conf": "MODE=netclient\n", "upssched.conf": "", "upsmon.conf": "OFFDURATION 30\n"}
PRIMARY = {**SECONDARY, "ups.conf": HID, "upsd.conf": "LISTEN 0.0.0.0\n", "upsd.users": USERS}
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
    "no OFFDURATION": ({"upsmon.conf": ""}, (2, 8, 3), ["a UPS that says OFF for 30 s counts as lost"]),
    "SHUTDOWNEXIT is not held": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT no\n"}, (2, 8, 4), ["SHUTDOWNEXIT holds the login"]),
    "SHUTDOWNEXIT of a minute": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT 60\n"}, (2, 8, 4), []),
    "SHUTDOWNEXIT of more": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT 61\n"}, (2, 8, 4), ["SHUTDOWNEXIT holds the login"]),
    "SHUTDOWNEXIT yes": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT Yes\n"}, (2, 8, 4), []),
    "SHUTDOWNEXIT is held": ({"upsmon.conf": "OFFDURATION 3\nSHUTDOWNEXIT no\n"}, SID, []),
    "alarms and a shell, 2.8.2": ({"upsmon.conf": ALARM}, (2, 8, 2), ["upsmon ignores DEADTIME", "before 2.8.6 the message"]),
    "alarms and a shell, 2.8.3": ({"upsmon.conf": ALARM}, (2, 8, 3), ["upsmon gives what a UPS says of its alarms to a shell"]),
    "alarms and a shell, 2.8.6": ({"upsmon.conf": ALARM}, (2, 8, 6), []),
    "alarms without a shell": ({"upsmon.conf": ALARM.replace("+EXEC", "")}, SID, ["before 2.8.6 the message"]),
    "alarms without a command": ({"upsmon.conf": ALARM.replace("NOTIFYCMD /x", "")}, SID, []),
    "other events": ({"upsmon.conf": ALARM.replace("alarm", "ONBATT")}, SID, ["before 2.8.6 the message"]),
    "a timer, 2.8.0": ({"upssched.conf": SCHED + "AT ONBATT * START-TIMER a 5\n"}, BOOKWORM, ["upssched takes a whole processor"]),
    "a timer, 2.8.1": ({"upssched.conf": SCHED + "AT ONBATT * START-TIMER a 5\n"}, TRIXIE, []),
    "no timer": ({"upssched.conf": SCHED + "AT ONBATT * EXECUTE a\n"}, BOOKWORM, []),
    "TLS": ({"upsd.conf": "CERTPATH /etc/nut/tls\n"}, TRIXIE, ["with TLS, a machine that begins a handshake"]),
    "several LISTEN, 2.8.0": ({"upsd.conf": "LISTEN 192.0.2.1\nLISTEN 192.0.2.2\n"}, BOOKWORM, ["of several LISTEN only the last one"]),
    "LISTEN with loopback, 2.8.1": ({"upsd.conf": "LISTEN 127.0.0.1\nLISTEN 192.0.2.1\n"}, TRIXIE, []),
    "several LISTEN, 2.8.1": ({"upsd.conf": "LISTEN 192.0.2.1\nLISTEN 192.0.2.2\n"}, TRIXIE, ["of several LISTEN only the first one"]),
    "several LISTEN, 2.8.2": ({"upsd.conf": "LISTEN 192.0.2.1\nLISTEN ::1\n"}, (2, 8, 2), []),
    "LISTEN ::, 2.8.0": ({"upsd.conf": "LISTEN ::\n"}, BOOKWORM, []),
    "LISTEN ::, 2.8.2": ({"upsd.conf": "LISTEN ::\nLISTEN 127.0.0.1\n"}, (2, 8, 2), ["LISTEN :: is for IPv6 alone"]),
    "LISTEN :: and IPv4": ({"upsd.conf": "LISTEN ::\nLISTEN 0.0.0.0\n"}, (2, 8, 2), []),
    "allow_killpower, 2.8.2": (
        {"ups.conf": HID + "allow_killpower\n"}, (2, 8, 2),
        ["the enumerator does not restart", "allow_killpower of [ups] does nothing"],
    ),
    "allow_killpower, 2.8.3": ({"ups.conf": HID + "allow_killpower\n"}, (2, 8, 3), []),
    "a discharge as calibration, 2.8.1": (
        {"ups.conf": HID + "onlinedischarge_calibration\n"}, TRIXIE,
        ["onlinedischarge_calibration of [ups] makes a calibration"],
    ),
    "a discharge as calibration, 2.8.3": ({"ups.conf": HID + "onlinedischarge_calibration\n"}, (2, 8, 3), []),
    "device": ({"ups.conf": HID + "device = 004\n"}, SID, ["[ups] is told by device, a number that changes"]),
    "no UPS": ({"ups.conf": "maxretry = 3\n"}, TRIXIE, []),
    "no file": ({}, BOOKWORM, []),
}  # fmt: skip


@pytest.mark.parametrize(("files", "release", "begins"), ADVICE.values(), ids=ADVICE.keys())
def test_advice(files: Mapping[str, str], release: Release, begins: list[str]) -> None:
    said = releases.advice(files, release)
    number = ".".join(map(str, release))
    assert [words.startswith(f"NUT {number}: {begin}") for words, begin in zip(said, begins, strict=True)] == [
        True
    ] * len(begins)
    # what is bad, and what to do
    assert all(words.count(". ") == 1 and words.endswith(".") for words in said)


# Addresses that may not be there


@pytest.mark.parametrize("order", [("127.0.0.1", "192.0.2.1"), ("192.0.2.1", "127.0.0.1")])
@pytest.mark.parametrize(
    ("release", "first", "more"),
    [
        (BOOKWORM, "192.0.2.1", ""),
        (TRIXIE, "127.0.0.1", ""),
        ((2, 8, 2), None, "ALLOW_NOT_ALL_LISTENERS true\n"),
    ],
)
def test_upsd_starts_though_an_address_is_not_there(
    order: tuple[str, str], release: Release, first: str | None, more: str
) -> None:
    """2.8.0 insists on the last LISTEN, 2.8.1 on the first, later ones on all: it must be loopback, which is always there."""
    text = f"# ours\nLISTEN {order[0]} 3493\nMAXAGE 15\nLISTEN {order[1]} 3493"
    fitted = releases.fit({"upsd.conf": text}, release).files["upsd.conf"]
    others = [one for one in order if one != first]
    expected = (first, *others) if first else order
    assert [address for address, _port in upsmon.listening(fitted)] == list(expected)
    assert fitted.startswith("# ours\nLISTEN")
    assert "\nMAXAGE 15\n" in fitted
    assert fitted.endswith(more)
    assert releases.fit({"upsd.conf": fitted}, release).files["upsd.conf"] == fitted


@pytest.mark.parametrize(
    "text",
    [
        "LISTEN 0.0.0.0\n",
        "LISTEN 127.0.0.1\nLISTEN ::1\n",
        "LISTEN 192.0.2.1\n",
        "ALLOW_NOT_ALL_LISTENERS false\nLISTEN 127.0.0.1\nLISTEN 192.0.2.1\n",
        "MAXAGE 15\n",
        "",
    ],
)
def test_where_nothing_has_to_be_done_for_that(text: str) -> None:
    assert releases.fit({"upsd.conf": text}, (2, 8, 2)).files["upsd.conf"] == text
