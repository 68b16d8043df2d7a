# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Odd values: what TrueNAS takes, what the module lets through, and whether upsmon lives with the latter.

TrueNAS's verdicts are those of the real releases (recordings, and their code as it was run). The lab's stand-in decides
as they do, so each is checked against it. The module may refuse more than TrueNAS, never less.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.module_utils._truenas import ups
from ansible_collections.homelab.nut.plugins.modules import truenas_ups
from truenas import accounts
from truenas import ups as stand_in
from truenas.middleware import ClientConnection, Middleware
from truenas.releases import RELEASES
from truenas.service import ServiceState, StateFile

SECONDARY = {
    "mode": "SLAVE",
    "identifier": "ups",
    "remotehost": "192.0.2.10",
    "monuser": "truenas",
    "monpwd": "Abc-123_x",
    "shutdown": "LOWBATT",
}
MODERN = ("25.04", "25.10", "26")
ALL, NONE, ONLY_25_04 = (True, True, True), (False, False, False), (True, False, False)
YES, NO = True, False

# field, value, whether 25.04, 25.10 and 26 take it, whether the module does
PAYLOADS: list[tuple[str, Any, tuple[bool, bool, bool], bool]] = [
    # identifier: TrueNAS searches ^[a-z0-9\.\-_]+$ without regard to case, so a newline at the end passes
    ("identifier", "ups", ALL, YES),
    ("identifier", "My.UPS_1-a", ALL, YES),
    ("identifier", "", NONE, NO),
    ("identifier", "my ups", NONE, NO),
    ("identifier", " ups", NONE, NO),
    ("identifier", "ups ", NONE, NO),
    ("identifier", "ups\n", ALL, NO),
    ("identifier", "ups\r", NONE, NO),
    ("identifier", "u\tps", NONE, NO),
    ("identifier", "u\0ps", NONE, NO),
    ("identifier", "ups@pve", NONE, NO),
    ("identifier", "ups#1", NONE, NO),
    ("identifier", "\u00fcps", NONE, NO),
    ("identifier", "up\u017f", ALL, NO),  # LATIN SMALL LETTER LONG S is an s, without regard to case
    ("identifier", "\u212aey", ALL, NO),  # KELVIN SIGN is a k
    ("identifier", "u" * 120, ALL, YES),
    ("identifier", "u" * 121, ALL, NO),  # its database says 120, and nobody checks
    ("identifier", "u" * 1025, NONE, NO),
    # remotehost: TrueNAS looks only whether it is empty, and not longer than a text may be
    ("remotehost", "pve.lan", ALL, YES),
    ("remotehost", "", NONE, NO),
    ("remotehost", " ", ALL, NO),
    ("remotehost", "pve lan", ALL, NO),
    ("remotehost", " pve", ALL, NO),
    ("remotehost", "pve\n", ALL, NO),
    ("remotehost", "pve\r\n", ALL, NO),
    ("remotehost", "pve\tlan", ALL, NO),
    ("remotehost", "p\0ve", ALL, NO),
    ("remotehost", "pve#1", ALL, NO),
    ("remotehost", 'pve"', ALL, NO),
    ("remotehost", "pve\\", ALL, NO),
    ("remotehost", "p=ve", ALL, NO),
    ("remotehost", "p\u00fcve.lan", ALL, NO),
    ("remotehost", "fd00::5", ALL, NO),
    ("remotehost", "[fd00::5]", ALL, YES),
    ("remotehost", "fe80::1%eth0", ALL, NO),
    ("remotehost", "[fe80::1%eth0]", ALL, YES),
    ("remotehost", '[fe80::1%"]', ALL, NO),
    ("remotehost", "[fd00::5]:3493", ALL, NO),
    ("remotehost", "pve.lan:3493", ALL, NO),
    ("remotehost", "ups@pve.lan", ALL, NO),
    ("remotehost", "http://pve.lan/", ALL, NO),
    ("remotehost", "h" * 50, ALL, YES),
    ("remotehost", "h" * 51, ALL, YES),  # its database says 50, and nobody checks
    ("remotehost", "h" * 253, ALL, YES),
    ("remotehost", "h" * 254, ALL, NO),
    ("remotehost", "h" * 1025, NONE, NO),
    # remoteport
    ("remoteport", 1, ALL, YES),
    ("remoteport", 65535, ALL, YES),
    ("remoteport", 0, NONE, NO),
    ("remoteport", 65536, NONE, NO),
    ("remoteport", -1, NONE, NO),
    ("remoteport", 10**30, NONE, NO),
    ("remoteport", True, NONE, NO),
    ("remoteport", "3493", ONLY_25_04, YES),  # for Ansible this is a number, and it is sent as one
    ("remoteport", "nut", NONE, NO),
    ("remoteport", "", NONE, NO),
    # monuser and monpwd
    *[
        (field, value, taken, ours)
        for field in ("monuser", "monpwd")
        for value, taken, ours in (
            ("Abc-123_x", ALL, YES),
            ("", NONE, NO),
            ("a b", NONE, NO),
            (" ab", NONE, NO),
            ("ab ", NONE, NO),
            ("a#b", NONE, NO),
            ("a\nb", ALL, NO),
            ("ab\n", ALL, NO),
            ("ab\r", ALL, NO),
            ("a\tb", ALL, NO),
            ("a\0b", ALL, NO),
            ("a\x7fb", ALL, YES),
            ("a\\b", ALL, NO),
            ("a=b", ALL, NO),
            ('"ab', ALL, NO),
            ('a"b', ALL, YES),
            ("a'b", ALL, YES),
            ("a$b;c|d&e!f%g^h*i(j)k", ALL, YES),
            ("p\u00e4ss", ALL, NO),
            ("\U0001f50b", ALL, NO),
            ("p" * 501, ALL, YES),
            ("p" * 502, ALL, NO),
            ("p" * 1024, ALL, NO),
            ("p" * 1025, NONE, NO),
        )
    ],
    # how to shut down
    ("shutdown", "BATT", ALL, YES),
    ("shutdown", "batt", NONE, NO),
    ("shutdown", "", NONE, NO),
    ("mode", "slave", NONE, NO),
    ("mode", "SECONDARY", NONE, NO),
    ("shutdowntimer", 0, ALL, YES),
    ("shutdowntimer", -1, ALL, NO),
    ("shutdowntimer", 2**31 - 1, ALL, YES),
    ("shutdowntimer", True, NONE, NO),
    ("shutdowntimer", "30", ONLY_25_04, YES),
    ("hostsync", 0, ALL, YES),
    ("hostsync", -1, NONE, NO),
    ("hostsync", 2**31 - 1, ALL, YES),
    ("hostsync", 2**31, ALL, NO),
    ("hostsync", False, NONE, NO),
    ("nocommwarntime", 300, ALL, YES),
    ("nocommwarntime", -1, ALL, NO),
    ("nocommwarntime", True, NONE, NO),
    ("shutdowncmd", "/sbin/shutdown -P now", ALL, YES),
    ("shutdowncmd", "/bin/sh -c 'a; b=c'", ALL, YES),
    ("shutdowncmd", '/bin/sh -c "a"', ALL, NO),
    ("shutdowncmd", "a\\", ALL, NO),
    ("shutdowncmd", "a # b", ALL, NO),
    ("shutdowncmd", "a\nNOTIFYCMD b", ALL, NO),
    ("shutdowncmd", "a\tb", ALL, NO),
    ("shutdowncmd", "a\0b", ALL, NO),
    ("shutdowncmd", "\u00e4", ALL, NO),
    ("shutdowncmd", "x" * 255, ALL, YES),
    ("shutdowncmd", "x" * 256, ALL, NO),  # its database says 255, and nobody checks
    ("shutdowncmd", "x" * 1025, NONE, NO),
    # what a secondary has no use for, and TrueNAS keeps
    ("powerdown", True, ALL, YES),
    ("powerdown", "yes", NONE, YES),  # for Ansible this is true, and it is sent as that
    ("powerdown", "maybe", NONE, NO),
    ("rmonitor", 1, NONE, YES),
    ("description", "f\u00fcr alle, = # ' $", ALL, YES),
    ("description", "a\nb", ALL, NO),
    ("description", 'a"b', ALL, NO),
    ("description", "d" * 120, ALL, YES),
    ("description", "d" * 121, ALL, NO),
    ("description", "d" * 1025, NONE, NO),
    ("driver", "no-such-driver", NONE, YES),  # only TrueNAS knows its drivers
    ("port", "auto", ALL, YES),
    ("port", "auto\n[x]", ALL, NO),
    ("port", "p" * 1025, NONE, NO),
    ("options", "community = x\nsnmp_version = v2c", ALL, YES),
    ("options", "o" * 1025, ALL, YES),
    ("options", "a\0b", ALL, NO),
    ("optionsupsd", "LISTEN 192.0.2.1 3493", ALL, YES),
    ("optionsupsd", "o" * 1025, ALL, YES),
    ("extrausers", "[x]\n  password = \u00e4", ALL, YES),
    ("extrausers", "e" * 1025, ALL, YES),
    ("extrausers", "a\0b", ALL, NO),
]
#: Only the machine itself can know: the module lets these through, and tells TrueNAS's refusal.
ONLY_TRUENAS_KNOWS = {("driver", "no-such-driver")}

IDS = [f"{field}-{ascii(value)[:24]}-{len(str(value))}" for field, value, _unused, __ in PAYLOADS]


class Upsmon:
    """Nobody starts it here."""

    def start_service(self, _unused: Mapping[str, str]) -> str:
        raise AssertionError("started")

    def stop_service(self) -> None:
        raise AssertionError("stopped")

    def read_state(self) -> ServiceState:
        return ServiceState(running=False)


def taken_by(release: str, settings: Mapping[str, Any], data: Path) -> bool:
    """Whether the stand-in of this release, which is a secondary already, takes this update."""
    state = StateFile(data / f"{release}.json")
    state.save_state({"ups": SECONDARY})
    middleware = Middleware(
        release=RELEASES[release],
        accounts=accounts.parse_accounts(accounts.LAB_USERS, accounts.LAB_API_KEYS),
        state=state,
        runner=Upsmon(),
        clock=time.time,
    )
    connection = ClientConnection(
        remote="", secure=True, user=accounts.parse_accounts(accounts.LAB_USERS, []).users["admin"]
    )
    frame = {"jsonrpc": "2.0", "id": 1, "method": "ups.update", "params": [settings]}
    answer = json.loads(middleware.receive_frame(connection, json.dumps(frame)).answer or "")
    if "error" in answer:
        # refused, and for that value
        assert answer["error"]["data"]["errname"] == "EINVAL"
        assert {entry[0].rpartition(".")[2] for entry in answer["error"]["data"]["extra"]} == set(settings)
    return "result" in answer


@pytest.fixture(scope="module")
def argument_spec() -> dict[str, Any]:
    """What the module tells Ansible."""
    caught: dict[str, Any] = {}

    def module(argument_spec: dict[str, Any], **_unused: Any) -> None:
        caught.update(argument_spec)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(truenas_ups, "Module", module)
        with pytest.raises(SystemExit):
            truenas_ups.main()
    return caught


def sent(spec: dict[str, Any], field: str, value: Any) -> dict[str, Any] | None:
    """What the module sends for this option; None if it refuses it, or Ansible does."""
    checked = ArgumentSpecValidator({field: spec[field]}).validate({field: value})
    given = {field: checked.validated_parameters[field]}
    if checked.error_messages or ups.find_problems(given):
        return None
    return ups.normalise_settings(given)


def test_enough_payloads_are_covered() -> None:
    assert len(PAYLOADS) >= 60
    assert {field for field, *_unused in PAYLOADS} == set(ups.SETTINGS)
    assert [key for key, count in Counter(IDS).items() if count > 1] == []


@pytest.mark.parametrize("payload", PAYLOADS, ids=IDS)
def test_payload_is_refused_or_harmless(
    argument_spec: dict[str, Any], tmp_path: Path, payload: tuple[str, Any, tuple[bool, ...], bool]
) -> None:
    field, value, taken, ours = payload
    assert tuple(taken_by(release, {field: value}, tmp_path) for release in MODERN) == taken
    settings = sent(argument_spec, field, value)
    assert (settings is not None) is ours
    if settings is None or (field, value) in ONLY_TRUENAS_KNOWS:
        return
    for release in MODERN:
        assert taken_by(release, settings, tmp_path)
    upsmon_lives_with({**SECONDARY, **settings})


def upsmon_lives_with(settings: Mapping[str, Any]) -> None:
    """NUT's own grammar reads from TrueNAS's unquoted, unescaped files what was meant."""
    whole = {**stand_in.DEFAULTS, **settings}
    files = stand_in.render_files(whole)
    monitor, *others = [line.words for line in grammar.parse_lines(files["upsmon.conf"])]
    name = f"{whole['identifier']}@{whole['remotehost']}:{whole['remoteport']}"
    assert monitor == ("MONITOR", name, "1", whole["monuser"], whole["monpwd"], "SLAVE")
    host = whole["remotehost"]
    assert host.startswith("[") or ":" not in host  # else upsmon can't tell the port
    expected = {
        "SHUTDOWNCMD": whole["shutdowncmd"] or "/sbin/shutdown -P now",
        "HOSTSYNC": str(whole["hostsync"]),
        **({"NOCOMMWARNTIME": str(whole["nocommwarntime"])} if whole["nocommwarntime"] else {}),
        **({"POWERDOWNFLAG": "/etc/killpower"} if whole["powerdown"] else {}),
        "NOTIFYCMD": "/usr/sbin/upssched",
    }
    assert {words[0]: words[1] for words in others if words[0] != "NOTIFYFLAG"} == expected
    assert all(len(words) == (3 if words[0] == "NOTIFYFLAG" else 2) for words in others)
    rules = [line.words for line in grammar.parse_lines(files["upssched.conf"])]
    if whole["shutdown"] == "BATT":
        assert ("AT", "ONBATT", "*", "START-TIMER", "SHUTDOWN", str(whole["shutdowntimer"])) in rules


@pytest.mark.parametrize(
    "settings",
    [
        {"monpwd": "a\\b"},
        {"monpwd": '"ab'},
        {"monpwd": "p\u00e4ss"},
        {"identifier": "ups\n"},
        {"remotehost": "fd00::5"},
        {"remotehost": "pve\n"},
        {"shutdowncmd": 'a "b"'},
        {"shutdowncmd": "a\\"},
    ],
)
def test_check_detects_broken_upsmon_conf(settings: dict[str, Any]) -> None:
    """Without this, test_payload_is_refused_or_harmless would prove nothing."""
    with pytest.raises((AssertionError, ValueError)):
        upsmon_lives_with({**SECONDARY, **settings})
