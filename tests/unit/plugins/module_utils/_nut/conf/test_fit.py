# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import directives, grammar, ups_conf, upsd
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.advice import list_advice
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import (
    DEVICE,
    DIRECTIVES,
    NOTIFY_TYPES,
    Release,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.fit import Fitted, fit_files, unfit_key
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.values import find_wrong_values
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping

BOOKWORM, TRIXIE, SID = (2, 8, 0), (2, 8, 1), (2, 8, 5)
RELEASES = [(2, 7, 4), BOOKWORM, TRIXIE, (2, 8, 2), (2, 8, 3), (2, 8, 4), SID]
USERS = "[u]\npassword = p\n"
SCHED = "CMDSCRIPT /bin/x\nPIPEFN /run/nut/p\nLOCKFN /run/nut/l\n"
HID = "[ups]\n    driver = usbhid-ups\n    port = auto\n"

LEFT_OUT: dict[str, tuple[str, Release, str, str, str]] = {
    "upsmon.conf": (
        "upsmon.conf", BOOKWORM, "MINSUPPLIES 1\nOFFDURATION 30 # why\nDEADTIME 15\n", "MINSUPPLIES 1\nDEADTIME 15\n",
        "upsmon.conf: OFFDURATION needs NUT 2.8.1, but this host has 2.8.0. "
        "It is left out: a UPS that is OFF doesn't cause a shutdown.",
    ),
    "without effect": (
        "upsmon.conf", (2, 7, 4), "NOTIFYFLAG CAL EXEC\n", "",
        "upsmon.conf: NOTIFYFLAG CAL needs NUT 2.8.0, but this host has 2.7.4. "
        "It is left out: this host's upsmon never sends it.",
    ),
    "a key of all drivers": (
        "ups.conf", TRIXIE, "[a]\ndriver = dummy-ups\nport = x\nmaxretry = 3\ndesc = b\n", "[a]\ndriver = dummy-ups\nport = x\ndesc = b\n",
        "ups.conf, [a]: maxretry needs NUT 2.8.3, but this host has 2.8.1. "
        "It is left out: the global one applies to all UPSes.",
    ),
    "a key of usbhid-ups, in capital letters": (
        "ups.conf", BOOKWORM, HID + "WaitBeforeReconnect = 30\n", HID,
        "ups.conf, [ups]: WaitBeforeReconnect needs NUT 2.8.1, but this host has 2.8.0. "
        "It is left out: the driver tries to reconnect at once.",
    ),
    "the global part": (
        "ups.conf", TRIXIE, "maxretry = 3\nSTATEPATH = /run/x\n" + HID, "maxretry = 3\n" + HID,
        "ups.conf: STATEPATH needs NUT 2.8.3, but this host has 2.8.1. "
        "It is left out: the drivers create their sockets where Debian's NUT has them.",
    ),
    "nut.conf": (
        "nut.conf", BOOKWORM, "MODE=netserver\n# NUT_DEBUG_LEVEL=1\n NUT_DEBUG_LEVEL=\"3\"\nPOWEROFF_WAIT=30s\n",
        "MODE=netserver\n# NUT_DEBUG_LEVEL=1\nPOWEROFF_WAIT=30s\n",
        "nut.conf: NUT_DEBUG_LEVEL needs NUT 2.8.1, but this host has 2.8.0. It is left out: only the logs differ.",
    ),
    "upsd.conf": (
        "upsd.conf", TRIXIE, "ALLOW_NOT_ALL_LISTENERS true\nLISTEN 0.0.0.0\n", "LISTEN 0.0.0.0\n",
        "upsd.conf: ALLOW_NOT_ALL_LISTENERS needs NUT 2.8.2, but this host has 2.8.1. "
        "It is left out: older releases never require all addresses.",
    ),
    "any case": (
        "upsmon.conf", (2, 7, 4), "debug_min 1\n", "",
        "upsmon.conf: debug_min needs NUT 2.8.0, but this host has 2.7.4. It is left out: only the logs differ.",
    ),
    "a message": (
        "upsmon.conf", TRIXIE, 'NOTIFYMSG ONBATT "a %s"\nNOTIFYMSG eco "b %s"\n', 'NOTIFYMSG ONBATT "a %s"\n',
        "upsmon.conf: NOTIFYMSG ECO needs NUT 2.8.3, but this host has 2.8.1. "
        "It is left out: this host's upsmon never sends it.",
    ),
    "an AT": (
        "upssched.conf", BOOKWORM, "AT ONBATT * EXECUTE a\nAT OFF * EXECUTE b\n", "AT ONBATT * EXECUTE a\n",
        "upssched.conf: AT OFF needs NUT 2.8.1, but this host has 2.8.0. It is left out: this host's upsmon never sends it.",
    ),
    "an AT for an unknown event with an unknown command": (
        "upssched.conf", BOOKWORM, "AT ECO * START-TIMER-SHARED a 5\n", "",
        "upssched.conf: AT ECO needs NUT 2.8.3, but this host has 2.8.0. It is left out: this host's upsmon never sends it.",
    ),
    "a continued line": (
        "upsmon.conf", BOOKWORM, "HOSTSYNC 30\nOFFDURATION \\\n30 \\\n# still\nDEADTIME 15\n", "HOSTSYNC 30\nDEADTIME 15\n",
        "upsmon.conf: OFFDURATION needs NUT 2.8.1, but this host has 2.8.0. "
        "It is left out: a UPS that is OFF doesn't cause a shutdown.",
    ),
    "quotes over two lines": (
        "upsmon.conf", BOOKWORM, 'NOTIFYMSG OFF "a \\\n DEADTIME 3" # b\nDEADTIME 15\n', "DEADTIME 15\n",
        "upsmon.conf: NOTIFYMSG OFF needs NUT 2.8.1, but this host has 2.8.0. "
        "It is left out: this host's upsmon never sends it.",
    ),
    "no newline at the end": (
        "upsmon.conf", BOOKWORM, "# a\nOFFDURATION \\\n30", "# a\n",
        "upsmon.conf: OFFDURATION needs NUT 2.8.1, but this host has 2.8.0. "
        "It is left out: a UPS that is OFF doesn't cause a shutdown.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "release", "text", "fitted", "message"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_unknown_directive_is_omitted(name: str, release: Release, text: str, fitted: str, message: str) -> None:
    other = {"other.conf": "OFFDURATION 30\n"}
    assert fit_files({name: text, **other}, release) == Fitted({name: fitted, **other}, (message,), ())


KEPT: dict[str, tuple[str, Release, str]] = {
    "known": ("upsmon.conf", TRIXIE, "OFFDURATION 30\n"),
    "unknown to all releases": ("upsmon.conf", BOOKWORM, "OFDURATION 30\nNOTIFYMSG FOO a\n"),
    "misspelled": ("upsmon.conf", BOOKWORM, "offduration 30\n"),
    "a comment": ("upsmon.conf", BOOKWORM, "# OFFDURATION 30\n"),
    "inside a text": ("upsmon.conf", BOOKWORM, 'SHUTDOWNCMD "OFFDURATION \\\nOFFDURATION 30"\n'),
    "another driver's key": ("ups.conf", BOOKWORM, "[a]\ndriver = nutdrv_qx\nport = auto\nbusport = 001\n"),
    "a section without a driver": ("ups.conf", BOOKWORM, "[a]\nport = auto\nwaitbeforereconnect = 1\n"),
    "another program's variable": ("nut.conf", BOOKWORM, "TZ=UTC\nexport NUT_DEBUG_LEVEL=1\nNUT_DEBUG_LEVEL = 1\n"),
    "keys with a wildcard": ("ups.conf", BOOKWORM, HID + "default.battery.charge.low = 30\noverride.ups.mfr = X\n"),
    "text that NUT changes": ("upsmon.conf", BOOKWORM, 'NOTIFYMSG ONBATT "a\nOFFDURATION 30\n"\n'),
    "a directive that is always refused": ("upsmon.conf", BOOKWORM, "CERTFILE /x\n"),
    "a command that is always refused": ("upssched.conf", BOOKWORM, "AT ONLINE * CANCEL-TIMER-MATCHED a\n"),
    "no newline": ("upsmon.conf", BOOKWORM, "DEADTIME 15"),
    "strange newlines": ("upsmon.conf", BOOKWORM, "DEADTIME 15\r\n# \x0b\x0c\u2028\n\n\n"),
}


@pytest.mark.parametrize(("name", "release", "text"), KEPT.values(), ids=KEPT.keys())
def test_known_directive_is_kept(name: str, release: Release, text: str) -> None:
    assert fit_files({name: text}, release) == Fitted({name: text}, (), ())


def test_message_is_not_repeated() -> None:
    fitted = fit_files({"upssched.conf": "AT OFF * EXECUTE a\nAT OFF u@h EXECUTE b\n"}, BOOKWORM)
    assert fitted.files == {"upssched.conf": ""}
    assert len(fitted.left_out) == 1


REFUSED: dict[str, tuple[str, Release, str, str]] = {
    "busport": (
        "ups.conf", BOOKWORM, HID + 'busport = "004"\n',
        "ups.conf, [ups]: busport needs NUT 2.8.1, but this host has 2.8.0. It can't be left out, because UPSes that",
    ),
    "subdriver": ("ups.conf", BOOKWORM, HID + "subdriver = MGE\n", "It can't be left out, because the driver would choose"),
    "onlinedischarge_onbattery": ("ups.conf", TRIXIE, HID + "onlinedischarge_onbattery\n", "call it onlinedischarge: use that"),
    "sdcommands of any driver": (
        "ups.conf", TRIXIE, "[a]\ndriver = nutdrv_qx\nport = auto\nsdcommands = load.off\n", "ups.conf, [a]: sdcommands needs NUT 2.8.3",
    ),
    "a timer without a command": ("upssched.conf", TRIXIE, "AT ONBATT * START-TIMER-SHARED a 5\n", "Use START-TIMER on this host."),
}  # fmt: skip


@pytest.mark.parametrize(("name", "release", "text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_unsafe_omission_is_refused(name: str, release: Release, text: str, message: str) -> None:
    fitted = fit_files({name: text}, release)
    assert (fitted.files, fitted.left_out) == ({name: text}, ())
    (sentence,) = fitted.refused
    assert message in sentence


# a valid value of each kind
SAMPLES = {
    **{"number": "1", "positive": "2", "integer": "-1", "seconds": "5", "boolean": "True", "exit": "no", "hex": "0x81"},
    **{
        "delay": "30s",
        "word": ".*",  # a key of ups.conf is a regular expression
        "text": '"a b"',
        "path": "/run/nut",
        "flag": "",
        "number?": "",
        "words": "SET FSD",
    },
    **{"listen": "192.0.2.1 3493", "monitor": "u@h 1 a b primary", "identity": "a b", "certhost": "h c 1 0"},
    **{"notifymsg": 'ONBATT "a %s"', "notifyflag": "ONBATT SYSLOG+EXEC", "at": "ONLINE * EXECUTE a"},
}


def find_sample(kind: str) -> str:
    return SAMPLES[kind] if kind in SAMPLES else kind.partition("|")[0]


def write_line(name: str, word: str, directive: directives.Directive) -> str:
    value = find_sample(directive.kind)
    if word in ("actions", "instcmds", "password"):
        return f"{word} = {value}"
    if name == "ups.conf":
        return f"{word.replace('*', 'a.b')} = {value}" if value else word
    return f"{word}={value}" if name == "nut.conf" else f"{word} {value}"


Known = tuple[str, "Release"]


def list_known_lines(name: str, table: Mapping[str, directives.Directive]) -> list[Known]:
    lines = [
        (write_line(name, word, directive), directive.since)
        for word, directive in table.items()
        if not directive.needed + directive.never
    ]
    if name == "upsmon.conf":
        for kind, since in NOTIFY_TYPES.items():
            lines += [(f'NOTIFYMSG {kind} "a %s"', since), (f"NOTIFYFLAG {kind} IGNORE", since)]
    return lines


def draw_comment(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from(["", "# OFFDURATION 5\n", "\n", "  \t\n", "# ü\n", "# NUT_DEBUG_LEVEL=1\n"])


def decorate_line(name: str, line: str) -> st.SearchStrategy[str]:
    forms = [f"{line}\n", f"  {line} \n"]
    if name != "nut.conf":
        forms += [f"{line} # a \\\n", re.sub(r" (?=\w)", " \\\\\n", line, count=1) + "\n"]
        # a backslash after a quote would begin another word
        forms += [] if line.endswith('"') else [f"{line}\\\n\n"]
    return st.sampled_from(forms)


@st.composite
def make_file(draw: st.DrawFn) -> tuple[str, list[tuple[str, Release]]]:
    """Return the name of a file and its text in pieces, each with the first release that knows it."""
    name = draw(st.sampled_from(sorted(DIRECTIVES)))
    pieces: list[tuple[str, Release]] = []

    def add_pieces(table: Mapping[str, directives.Directive]) -> None:
        for line, since in draw(st.lists(st.sampled_from(list_known_lines(name, table)), max_size=6)):
            pieces.append((draw(draw_comment(name)), RELEASES[0]))
            pieces.append((draw(decorate_line(name, line)), since))

    if name == "upssched.conf":
        pieces.append((SCHED, RELEASES[0]))
    if name != "upsd.users":
        add_pieces(DIRECTIVES[name])
    if name == "ups.conf":
        for header in draw(st.lists(st.sampled_from("abc"), unique=True)):
            pieces.append((f"[{header}]\ndriver = usbhid-ups\nport = auto\n", RELEASES[0]))
            add_pieces({key: directive for key, directive in DEVICE.items() if key not in ("driver", "port")})
    if name == "upsd.users":
        pieces.append(("[u]\n", RELEASES[0]))
        add_pieces(DIRECTIVES[name])
    return name, pieces


@given(make_file(), st.sampled_from(RELEASES))
def test_known_lines_are_kept_byte_for_byte(made: tuple[str, list[tuple[str, Release]]], release: Release) -> None:
    name, pieces = made
    text = "".join(piece for piece, _unused in pieces)
    fitted = fit_files({name: text}, release)
    assert fitted.files == {name: "".join(piece for piece, since in pieces if since <= release)}
    assert fitted.refused == ()
    assert bool(fitted.left_out) == any(since > release for _unused, since in pieces)
    again = fit_files(fitted.files, release)
    assert again == Fitted(fitted.files, (), ())
    assert find_wrong_values({name: text.replace("[u]", "[u]\npassword = x")}, release) == []


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
def test_any_text_is_fitted(made: Mapping[str, str], release: Release) -> None:
    fitted = fit_files(made, release)
    assert fit_files(fitted.files, release).files == fitted.files
    assert list_advice(made, release) == [*dict.fromkeys(list_advice(made, release))]
    for known_release in (release, None):
        assert all(isinstance(words, str) for words in find_wrong_values(made, known_release))
    # the remaining text is read like before
    for name in set(made) - {"nut.conf", "x"}:
        before = [line.words for line in grammar.parse_lines(made[name])]
        after = [line.words for line in grammar.parse_lines(fitted.files[name])]
        rest = iter(before)
        assert all(words in rest for words in after)


# text that NUT would silently misread


# addresses that may be missing


@pytest.mark.parametrize("order", [("127.0.0.1", "192.0.2.1"), ("192.0.2.1", "127.0.0.1")])
@pytest.mark.parametrize(
    ("release", "first", "more"),
    [
        (BOOKWORM, "192.0.2.1", ""),
        (TRIXIE, "127.0.0.1", ""),
        ((2, 8, 2), None, "ALLOW_NOT_ALL_LISTENERS true\n"),
    ],
)
def test_loopback_is_the_listen_line_that_upsd_requires(
    order: tuple[str, str], release: Release, first: str | None, more: str
) -> None:
    """2.8.0 requires the last LISTEN, 2.8.1 the first, later releases all. Loopback always exists."""
    text = f"# ours\nLISTEN {order[0]} 3493\nMAXAGE 15\nLISTEN {order[1]} 3493"
    fitted = fit_files({"upsd.conf": text}, release).files["upsd.conf"]
    others = [address for address in order if address != first]
    expected = (first, *others) if first else order
    assert [address for address, _port in upsd.read_listen_lines(fitted)] == list(expected)
    assert fitted.startswith("# ours\nLISTEN")
    assert "\nMAXAGE 15\n" in fitted
    assert fitted.endswith(more)
    assert fit_files({"upsd.conf": fitted}, release).files["upsd.conf"] == fitted


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
def test_listen_lines_without_risk_are_unchanged(text: str) -> None:
    assert fit_files({"upsd.conf": text}, (2, 8, 2)).files["upsd.conf"] == text


@pytest.mark.parametrize("release", [(2, 8, 0), (2, 8, 1), (2, 8, 3), (2, 9, 0)])
@pytest.mark.parametrize("driver", ["usbhid-ups", "nutdrv_qx"])
def test_single_key_gets_the_same_verdict_as_in_the_file(driver: str, release: Release) -> None:
    keys = [key.replace("*", "x") for key in directives.DEVICE]
    for key in (*keys, "POLLFREQ", "default.battery.charge", "no-such-key"):
        text = ups_conf.render_sections((Section("ups", (("driver", driver), (key, "1"))),))
        fitted = fit_files({"ups.conf": text}, release)
        assert unfit_key("ups", driver, key, release) == "".join((*fitted.left_out, *fitted.refused))


@pytest.mark.parametrize(
    ("text", "before", "since"),
    [
        ("LISTEN :: 3493\nLISTEN 0.0.0.0 3493\n", "LISTEN :: 3493\n", "LISTEN :: 3493\nLISTEN 0.0.0.0 3493\n"),
        ("LISTEN 0.0.0.0\nLISTEN ::\nMAXAGE 15\n", "LISTEN ::\nMAXAGE 15\n", "LISTEN 0.0.0.0\nLISTEN ::\nMAXAGE 15\n"),
        ("LISTEN :: 3493\nLISTEN 0.0.0.0 3494\n", None, None),
        ("LISTEN ::1 3493\nLISTEN 0.0.0.0 3493\n", None, None),
    ],
)
def test_all_of_ipv4_is_left_out_where_all_of_ipv6_serves_it(text: str, before: str | None, since: str | None) -> None:
    assert fit_files({"upsd.conf": text}, (2, 8, 0)).files["upsd.conf"] == (before or text)
    assert fit_files({"upsd.conf": text}, (2, 8, 1)).files["upsd.conf"] == (since or text)
