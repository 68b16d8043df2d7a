# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter.directives import FilterModule
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from hypothesis import given
from hypothesis import strategies as st

directives = FilterModule().filters()["directives"]

ASCII = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (None, []),
        ("", []),
        ([], []),
        ({}, []),
        (0, ["X 0"]),
        (-1, ["X -1"]),
        ("/run/nut", ["X /run/nut"]),
        ("/sbin/shutdown -h +0", ['X "/sbin/shutdown -h +0"']),
        (["me #1", ""], ['X "me \\#1" ""']),
        ([["ONBATT", "*", 5], ["ONLINE", "a b"]], ["X ONBATT * 5", 'X ONLINE "a b"']),
        (True, ["X yes"]),
        (False, ["X no"]),
    ],
)
def test_value_becomes_lines(value: Any, lines: list[str]) -> None:
    lines_made = directives({"SHUTDOWNEXIT": value}, "upsmon.conf").splitlines()
    assert lines_made == [line.replace("X", "SHUTDOWNEXIT") for line in lines]


@pytest.mark.parametrize(
    ("name", "value", "lines"),
    [
        ("NOTIFYMSG", {"ONBATT": "%s", "OFF": "a b"}, ["ONBATT %s", 'OFF "a b"']),
        ("NOTIFYFLAG", {"ONBATT": ["EXEC", "WALL"], "FSD": "IGNORE"}, ["ONBATT EXEC+WALL", "FSD IGNORE"]),
        ("CERTIDENT", {"nickname": "me", "password": "p q"}, ['me "p q"']),
        ("CERTIDENT", {"nickname": "me"}, ['me ""']),
        ("CERTHOST", {"host": "a", "certname": "b"}, ["a b 1 1"]),
        ("CERTHOST", [{"host": "a", "certname": "b", "forcessl": "no"}, ["c", "d", 0, True]], ["a b 1 0", "c d 0 1"]),
    ],
)
def test_dict_becomes_lines(name: str, value: Any, lines: list[str]) -> None:
    assert directives({name: value}, "upsmon.conf").splitlines() == [f"{name} {line}" for line in lines]


def test_each_file_has_its_syntax() -> None:
    assert directives({"DATAPATH": "/a b", "MAXAGE": 1}, "upsd.conf") == 'DATAPATH "/a b"\nMAXAGE 1'
    assert directives({"user": "a b", "debug_min": 1}, "ups.conf") == 'user = "a b"\ndebug_min = 1'
    assert directives({"UPSD_OPTIONS": "a b", "MODE": "none"}, "nut.conf") == "UPSD_OPTIONS='a b'\nMODE=none"


@pytest.mark.parametrize("value", [True, "yes", "true", 1, "on"])
@pytest.mark.parametrize(
    ("name", "file", "line"),
    [
        ("FORCESSL", "upsmon.conf", "FORCESSL 1"),
        ("ALLOW_NO_DEVICE", "nut.conf", "ALLOW_NO_DEVICE=true"),
        ("NUT_DEBUG_PID", "nut.conf", "NUT_DEBUG_PID=true"),
    ],
)
def test_true_is_spelled_as_in_the_file(value: Any, name: str, file: str, line: str) -> None:
    assert directives({name: value}, file) == line


@pytest.mark.parametrize("value", [False, "no", "false", 0, "off"])
@pytest.mark.parametrize(
    ("name", "file", "line"),
    [
        ("FORCESSL", "upsmon.conf", "FORCESSL 0"),
        # must override upsd.conf
        ("ALLOW_NO_DEVICE", "nut.conf", "ALLOW_NO_DEVICE=false"),
        # NUT takes any value for a yes
        ("NUT_DEBUG_PID", "nut.conf", ""),
    ],
)
def test_false_is_spelled_as_in_the_file(value: Any, name: str, file: str, line: str) -> None:
    assert directives({name: value}, file) == line


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NOTIFYCMD", "a\nb", "upsmon.conf: NOTIFYCMD: character 2"),
        ("NOTIFYCMD", "Büro", "upsmon.conf: NOTIFYCMD: character 2"),
        ("FORCESSL", "perhaps", "upsmon.conf: FORCESSL: 'perhaps' is neither true nor false"),
        ("NOTIFYMSG", {False: "x"}, "upsmon.conf: NOTIFYMSG: .*Put OFF in quotes"),
        ("CERTIDENT", {"password": "secret"}, "upsmon.conf: CERTIDENT: nickname is missing$"),
        ("CERTHOST", [{"host": "a", "certnam": "b"}], "CERTHOST: certnam is not one of .* Did you mean certname\\?"),
        ("POLLFREQ", {"a": 1}, "upsmon.conf: POLLFREQ: the value is neither a string nor a number"),
        ("NOTIFYCOMMAND", "x", "upsmon.conf: there is no directive NOTIFYCOMMAND"),
    ],
)
def test_invalid_value_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        directives({name: value}, "upsmon.conf")


@given(ASCII)
def test_nut_reads_back_any_text(text: str) -> None:
    (line,) = grammar.parse_lines(directives({"CERTIDENT": [text, "end"]}, "upsd.conf") + "\n")
    assert line.words == ("CERTIDENT", text, "end")


def test_shell_reads_back_any_text() -> None:
    texts = ["".join(map(chr, range(0x20, 0x7F))), "a b", "10m", "-D -D", "x\\", '"', "$HOME `id` $(id)"]
    for text in texts:
        line = directives({"UPSD_OPTIONS": text}, "nut.conf")
        script = f'{line}\nprintf %s "$UPSD_OPTIONS"'
        shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={})
        assert shell.stdout == text


def test_nut_conf_has_no_unnecessary_quotes() -> None:
    """Debian 12 passes the quotes of POWEROFF_WAIT to sleep, which fails, and the host reboots immediately."""
    assert directives({"POWEROFF_WAIT": "10m", "MODE": "netserver"}, "nut.conf") == "POWEROFF_WAIT=10m\nMODE=netserver"
