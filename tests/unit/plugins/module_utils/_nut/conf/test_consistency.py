# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import consistency
from ansible_collections.homelab.nut.tests.unit.support.nut_files import PRIMARY, SECONDARY, with_text

if TYPE_CHECKING:
    from collections.abc import Mapping

RIGHT = {
    "primary": PRIMARY,
    "secondary": SECONDARY,
    "standalone": with_text("nut.conf", "MODE=netserver", "MODE=standalone"),
    "the last MODE counts": with_text("nut.conf", "MODE=netserver", "MODE=none\nMODE=netserver"),
    "master and slave": with_text("upsmon.conf", "primary", "master", with_text("upsd.users", "primary", "master")),
    "another host has other users": with_text("upsmon.conf", "localhost:3493", "192.0.2.7"),
    "a UPS that feeds others": with_text(
        "upsmon.conf", "MINSUPPLIES", "MONITOR ups@[2001:db8::1] 0 nobody x secondary\nMINSUPPLIES"
    ),
    "two supplies": with_text(
        "upsmon.conf", "MINSUPPLIES 1", "MONITOR ups@192.0.2.7 1 x y slave\nMINSUPPLIES 2"
    ),
    "no MINSUPPLIES": with_text("upsmon.conf", "MINSUPPLIES 1\n", ""),
    "TLS that is forced": with_text(
        "upsmon.conf", "MINSUPPLIES", "FORCESSL 1\nMINSUPPLIES", with_text("upsd.conf", "MAXAGE", "CERTPATH /c\nMAXAGE")
    ),
    "TLS that is forced on a secondary": with_text("upsmon.conf", "MINSUPPLIES", "FORCESSL 1\nMINSUPPLIES", SECONDARY),
    "enough connections": with_text("upsd.conf", "MAXAGE 15", "MAXAGE 15\nMAXCONN 10"),
    "a long path of a socket": {**PRIMARY, "upssched.conf": f"PIPEFN {'/' * 107}\nLOCKFN /run/nut/l\n"},
    "a comment need not be ASCII": with_text("ups.conf", "[ups]", "# Büro\n[ups]"),
}  # fmt: skip


@pytest.mark.parametrize("files", RIGHT.values(), ids=RIGHT.keys())
def test_consistent_files_have_no_problem(files: Mapping[str, str]) -> None:
    assert consistency.find_inconsistencies(files) == []


WRONG: dict[str, tuple[Mapping[str, str], str]] = {
    "no newline": (with_text("upsd.conf", "15\n", "15"), "upsd.conf: the last line has no newline, so NUT drops it"),
    "nut.conf without newline": (with_text("nut.conf", "server\n", "server"), "nut.conf: the last line has no newline"),
    "a # in quotes": (with_text("upsmon.conf", "secret1", "sec#ret1"), "upsmon.conf, line 1: a # inside quotes"),
    "open quotes": (with_text("ups.conf", '"auto"', '"auto'), "ups.conf, line 3: quotes are still open"),
    "not ASCII": (with_text("upsd.users", "secret1", "geheim-ü"), "upsd.users, line 2: NUT drops the character U+00FC"),
    "MODE=none": (with_text("nut.conf", "netserver", "none"), "nut.conf: MODE is none, must be netserver or standalone"),
    "a primary as netclient": (with_text("nut.conf", "netserver", "netclient"), "MODE is netclient, must be netserver"),
    "a secondary as netserver": (
        with_text("nut.conf", "netclient", "netserver", SECONDARY), "MODE is netserver, must be netclient,"
    ),
    "a secondary without a mode": (with_text("nut.conf", "netclient", "none", SECONDARY), "MODE is none, must be netclient,"),
    "unknown MODE": (with_text("nut.conf", "netserver", "server"), "nut.conf: MODE is server, must be"),
    "a comment is no MODE": (with_text("nut.conf", "\nMODE=netserver", ""), "nut.conf: MODE is not set, must"),
    "blank in MODE": (with_text("nut.conf", "MODE=n", "MODE= n"), "MODE is  netserver, must be netserver or standalone"),
    "blank before MODE": (with_text("nut.conf", "\nMODE=", "\nMODE ="), "nut.conf: MODE is not set"),
    "a second MODE": (with_text("nut.conf", "server\n", "server\nMODE=none\n"), "nut.conf: MODE is none"),
    "unknown UPS": (
        with_text("upsmon.conf", "ups@", "usp@"),
        "upsmon.conf: MONITOR usp@localhost:3493: ups.conf has no [usp]. It has: ups",
    ),
    "no UPS": ({**PRIMARY, "ups.conf": "maxretry = 3\n"}, "ups.conf has no [ups]. It has: none"),
    "unknown user": (with_text("upsmon.conf", "monitor ", "monitr "), "localhost:3493: upsd.users has no [monitr]"),
    "another password": (
        with_text("upsmon.conf", "secret1", "secret2"),
        "upsmon.conf: MONITOR ups@localhost:3493: the password differs from that of [monitor] in upsd.users",
    ),
    "a secondary with the type primary": (
        with_text("upsmon.conf", 'monitor "secret1"', "media s"),
        "[media] in upsd.users is not a primary, so upsmon could not set FSD",
    ),
    "unknown type": (with_text("upsmon.conf", "primary", "primry"), "the last word is neither primary nor secondary"),
    "port": (with_text("upsmon.conf", ":3493", ":nut", SECONDARY), "MONITOR ups@192.0.2.1:nut: the port is not a number"),
    "IPv6 without brackets": (with_text("upsmon.conf", "192.0.2.1:3493", "2001:db8::1", SECONDARY), "an IPv6 address in brackets"),
    "too little power": (
        with_text("upsmon.conf", "MINSUPPLIES 1", "MINSUPPLIES 2"),
        "upsmon.conf: MINSUPPLIES is 2, but the power values of the MONITOR lines add up to 1: upsmon would not start",
    ),
    "no power": (with_text("upsmon.conf", "1 monitor", "0 monitor"), "MINSUPPLIES is 1, but the power values of the MONITOR lines"),
    "no MONITOR": (with_text("upsmon.conf", "MONITOR", "# MONITOR", SECONDARY), "MINSUPPLIES is 1, but"),
    "MINSUPPLIES 0": (with_text("upsmon.conf", "MINSUPPLIES 1", "MINSUPPLIES 0"), "this host would never shut down"),
    "no SHUTDOWNCMD": (with_text("upsmon.conf", "SHUTDOWNCMD /bin/true", ""), "SHUTDOWNCMD is missing or empty"),
    "empty SHUTDOWNCMD": (with_text("upsmon.conf", "/bin/true", '" "'), "SHUTDOWNCMD is missing or empty"),
    "POLLFREQ 0": (with_text("upsmon.conf", "MINSUPPLIES", "POLLFREQ 0\nMINSUPPLIES"), "POLLFREQ is 0, must be 1 to 59"),
    "POLLFREQALERT 60": (
        with_text("upsmon.conf", "MINSUPPLIES", "POLLFREQALERT 60\nMINSUPPLIES", SECONDARY),
        "POLLFREQALERT is 60, must be 1 to 59",
    ),
    "upsd not reachable from the host": (
        with_text("upsd.conf", "LISTEN", "LISTEN 192.0.2.10 3493\n# LISTEN"),
        "no LISTEN line of upsd.conf lets this host connect to port 3493",
    ),
    "upsd on another port": (
        with_text("upsd.conf", "LISTEN", "LISTEN 127.0.0.1 3500\n# LISTEN"),
        "no LISTEN line of upsd.conf lets this host connect to port 3493",
    ),
    "MINSUPPLIES by word": (with_text("upsmon.conf", "MINSUPPLIES 1", "MINSUPPLIES one"), "MINSUPPLIES is one, but"),
    "no MINSUPPLIES and no power": (
        with_text("upsmon.conf", "1 media", "0 media", with_text("upsmon.conf", "MINSUPPLIES 1\n", "", SECONDARY)),
        "MINSUPPLIES is 1, but",
    ),
    "TLS that upsd does not offer": (
        with_text("upsmon.conf", "MINSUPPLIES", "FORCESSL 1\nMINSUPPLIES"),
        "MONITOR ups@localhost:3493: FORCESSL is 1, but upsd.conf has no CERTPATH: upsmon could not connect",
    ),
    "too few connections": (
        with_text("upsd.conf", "MAXAGE 15", "MAXAGE 15\nMAXCONN 9"), "upsd.conf: MAXCONN is 9, but upsd needs 10: one for each UPS,",
    ),
    "one file for socket and lock": (
        {**PRIMARY, "upssched.conf": "PIPEFN /run/nut/x\nLOCKFN /run/nut/x\n"}, "upssched.conf: PIPEFN and LOCKFN are the same file",
    ),
    "too long a path of a socket": (
        {**PRIMARY, "upssched.conf": f"PIPEFN {'/' * 108}\n"}, "PIPEFN has 108 characters, and the path of a socket may have 107",
    ),
    "a status that never changes": (
        with_text("ups.conf", "port", "Override.ups.status = OL\n    port"),
        "ups.conf, [ups]: Override.ups.status replaces the status of the UPS for ever, so no power cut would be noticed",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("files", "expected"), WRONG.values(), ids=WRONG.keys())
def test_inconsistency_is_reported(files: Mapping[str, str], expected: str) -> None:
    wrong = consistency.find_inconsistencies(files)
    assert expected in "\n".join(wrong)
    assert not [line for line in wrong if "secret" in line or "geheim" in line]


@pytest.mark.parametrize("host", ["localhost:3493", "localhost", "127.0.0.1", "[::1]:3493"])
def test_password_is_compared_for_any_name_of_this_host(host: str) -> None:
    files = with_text("upsmon.conf", "localhost:3493", host, with_text("upsd.users", "secret1", "other"))
    (wrong,) = consistency.find_inconsistencies(files)
    assert "the password differs" in wrong


def test_each_mistake_is_reported_once() -> None:
    files = with_text("nut.conf", "netserver", "none", with_text("upsmon.conf", "ups@", "usp@"))
    assert len(consistency.find_inconsistencies(files)) == 2


def test_wrong_values_are_reported() -> None:
    wrong = consistency.find_inconsistencies({**SECONDARY, "upsmon.conf": SECONDARY["upsmon.conf"] + "DEADTIME 15s\n"})
    assert any("DEADTIME" in message for message in wrong)


@pytest.mark.parametrize("name", ["a+b", "a/b"])
def test_section_name_must_be_valid_for_a_unit(name: str) -> None:
    section = f"[{name}]\ndriver = dummy-ups\nport = x\n"
    assert any(
        f"[{name}]: the name of a UPS may have only" in message
        for message in consistency.find_inconsistencies({**PRIMARY, "ups.conf": PRIMARY["ups.conf"] + section})
    )


def test_section_names_that_differ_only_in_case_are_reported() -> None:
    section = "[UPS]\ndriver = dummy-ups\nport = x\n"
    wrong = consistency.find_inconsistencies({**PRIMARY, "ups.conf": PRIMARY["ups.conf"] + section})
    assert sum("differ only in case" in message for message in wrong) == 2


def test_certverify_without_certpath_is_reported() -> None:
    wrong = consistency.find_inconsistencies({**SECONDARY, "upsmon.conf": SECONDARY["upsmon.conf"] + "CERTVERIFY 1\n"})
    assert any("CERTVERIFY without CERTPATH" in message for message in wrong)


def test_last_line_of_a_directive_counts() -> None:
    """As in NUT, so that extra lines override the template."""
    wrong = consistency.find_inconsistencies({**SECONDARY, "upsmon.conf": SECONDARY["upsmon.conf"] + "MINSUPPLIES 0\n"})
    assert any("MINSUPPLIES is 0" in message for message in wrong)


@pytest.mark.parametrize("blanks", ["  ", "\t"])
def test_mode_with_blanks_before_the_name_is_recognized(blanks: str) -> None:
    """A shell ignores the blanks, and with MODE=none a reboot could cut the power."""
    wrong = consistency.find_inconsistencies({**PRIMARY, "nut.conf": f"MODE=netserver\n{blanks}MODE=none\n"})
    assert any("MODE is none" in message for message in wrong)


@pytest.mark.parametrize(
    ("listen", "part"),
    [
        ("LISTEN 127.0.0.1\nLISTEN 0.0.0.0\n", "127.0.0.1"),
        ("LISTEN *\nLISTEN 192.0.2.1\n", "192.0.2.1"),
        ("LISTEN ::\nLISTEN ::1\n", "::1"),
        ("LISTEN 0.0.0.0\nLISTEN ::1\n", ""),
        ("LISTEN 0.0.0.0\nLISTEN 127.0.0.1 4000\n", ""),
        ("LISTEN 0.0.0.0\nLISTEN localhost\n", ""),
        ("LISTEN 127.0.0.1\nLISTEN 192.0.2.1\n", ""),
    ],
)
def test_overlapping_listen_addresses_are_reported(listen: str, part: str) -> None:
    wrong = [
        message
        for message in consistency.find_inconsistencies({**PRIMARY, "upsd.conf": listen})
        if "is part of" in message
    ]
    assert [message.split()[2] for message in wrong] == ([part] if part else [])
