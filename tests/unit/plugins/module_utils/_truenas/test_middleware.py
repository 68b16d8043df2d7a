# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test that secrets in TrueNAS's messages are masked."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import (
    CallFailed,
    call_error,
    cut_middle,
    mask_secrets,
    shorten_log,
)

LINES = '[x]\n  password = "Canary one"\n\tcommunity=Canary2 # see\n'


@pytest.mark.parametrize(
    ("text", "secrets", "clean"),
    [
        ("bad word Secret-123.", ["Secret-123"], "bad word ********."),
        ("xSecret-123x", ["Secret-123"], "x********x"),
        ("nothing", [], "nothing"),
        ("nothing", [""], "nothing"),
        ("nothing ", [" ", "\n"], "nothing "),
        # The longest first, else a rest of it stays.
        ("Secret-123-more", ["Secret-123", "Secret-123-more"], "********"),
        # A short one only by itself.
        ("the ups service of nas.lan: nas", ["nas"], "the ups service of ********.lan: ********"),
        ("canasta nas_1 nas1", ["nas"], "canasta nas_1 nas1"),
        ("a.b axb", [".", "x"], "a.b axb"),
        # As JSON and Python write it.
        (json.dumps({"p": 'Say "cheese" \u00e4'}), ['Say "cheese" \u00e4'], '{"p": "********"}'),
        (repr("it's a\\secret"), ["it's a\\secret"], '"********"'),
        (ascii("it's \u00e4 secret"), ["it's \u00e4 secret"], '"********"'),
        # Lines of a file: all of them, each, or a value.
        (f"all: {' '.join(LINES.split())}", [LINES], "all: ********"),
        ('line 2: password = "Canary one"', [LINES], "line 2: ********"),
        ("bad value Canary one", [LINES], "bad value ********"),
        ("community=Canary2 # see", [LINES], "********"),
        ("a word like see or community stays", [LINES], "a word like see or community stays"),
        # Ordinary settings among the lines are no secrets.
        ("127.0.0.1:21527: 15 of 60", ["x = 1\npollinterval = 15\noffdelay = 60"], "127.0.0.1:21527: 15 of 60"),
        (
            "port auto of 192.0.2.10:161",
            ["port = auto\nmibs = ietf\nhost=192.0.2.10:161"],
            "port auto of 192.0.2.10:161",
        ),
        ("community 15, 192.0.2.15", ["community = 15"], "community ********, 192.0.2.15"),
        ("key Canary-long", ["sometimes = Canary-long"], "key ********"),
        # A short number is masked outside of addresses only.
        ("10.0.0.15:15 [fd00::5]:15 user 15.", ["15"], "10.0.0.15:15 [fd00::5]:15 user ********."),
        ("15.0.0.1 and 15:30 and 15", ["15"], "15.0.0.1 and 15:30 and ********"),
        ('{"monpwd": "15"} monpwd=15', ["15"], '{"monpwd": "********"} monpwd=********'),
        ("fd00::5 and 5", ["5"], "fd00::5 and ********"),
        ("nas.lan:443 ups@nas:443 443", ["443"], "nas.lan:443 ups@nas:443 ********"),
        ("password:443, a.user:443@nas.lan", ["443"], "password:********, a.user:********@nas.lan"),
        ("192.0.2.10:3493 and 0.2", ["0.2"], "192.0.2.10:3493 and ********"),
        # As a URL writes it, also as an argument.
        ("ups://nas:p%40ss%2Fw%25rd@192.0.2.10", ["p@ss/w%rd"], "ups://nas:********@192.0.2.10"),
        ("ups://nas:p%40ss%2fw%25rd@192.0.2.10", ["p@ss/w%rd"], "ups://nas:********@192.0.2.10"),
        ("?key=Canary+one%2Ftwo", ["Canary one/two"], "?key=********"),
        ("?key=Canary%20one/two", ["Canary one/two"], "?key=********"),
        ("ups://nas:a%24b@192.0.2.10", ["a$b"], "ups://nas:********@192.0.2.10"),
        ("&lt;Canary&gt;&amp;&quot;", ['<Canary>&"'], "********"),
        # JSON in a text of JSON.
        (json.dumps(json.dumps({"p": 'Say "cheese" \u00e4'})), ['Say "cheese" \u00e4'], r'"{\"p\": \"********\"}"'),
        (json.dumps({"p": 'Say "cheese" \u00e4'}, ensure_ascii=False), ['Say "cheese" \u00e4'], '{"p": "********"}'),
        ("\ud800 stays", ["Canary\ud800"], "\ud800 stays"),
    ],
)
def test_secrets_are_masked(text: str, secrets: list[str], clean: str) -> None:
    assert mask_secrets(text, secrets) == clean


def test_name_of_the_machine_is_not_masked() -> None:
    text = "nas.lan: login refused for nas; nas.lan:8443 and 8443"
    assert mask_secrets(text, ["nas", "8443"], ["nas.lan", "nas.lan:8443"]) == (
        "nas.lan: login refused for ********; nas.lan:8443 and ********"
    )


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("short", "short"),
        ("a\x1bb\n", "a\\x1bb\\n"),
        ("a" * 2000, "a" * 2000),
        ("a" * 5000 + "the verdict", "a" * 995 + " ... " + "a" * 989 + "the verdict"),
        ("\x1b" * 5000, None),
    ],
)
def test_long_message_keeps_its_end(text: str, cut: str | None) -> None:
    shown = cut_middle(text)
    assert len(shown) <= 2000
    assert shown.isprintable()
    assert cut in (None, shown)


LOG = [f"line {number} of upsmon" for number in range(100)]


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("one line", "one line"),
        ("[EFAULT] a\n\n  b\tc\n", "[EFAULT] a b c"),
        ("[EFAULT] " + "\n".join(LOG), "[EFAULT] (the last 15 of 100 lines) " + " ".join(LOG[-15:])),
        ("\n".join(LOG), "(the last 15 of 100 lines) " + " ".join(LOG[-15:])),
        # never a part of a line, where a secret might be cut
        ("a\n" + "b" * 2000, "a " + "b" * 2000),
        ("\n".join(["a" * 700] * 3), "(the last 1 of 3 lines) " + "a" * 700),
    ],
)
def test_log_is_cut_to_its_last_lines(text: str, short: str) -> None:
    assert shorten_log(text) == short


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        ({"code": -32602, "message": "Invalid params"}, True),
        ({"code": -32601, "message": "Method does not exist"}, True),
        ({"code": -32001, "data": {"errname": "EINVAL", "extra": [["ups_update.port", "required", 22]]}}, True),
        ({"code": -32001, "data": {"errname": "EACCES", "reason": "[EACCES] Not authorized"}}, True),
        ({"code": -32001, "data": {"errname": "ENOTAUTHENTICATED"}}, True),
        ({"code": -32001, "data": {"errname": "EINVAL", "reason": "'data'"}}, False),
        ({"code": -32001, "data": {"errname": "EFAULT", "reason": "[EFAULT] netdata"}}, False),
        ({"code": -32001, "data": {"errname": "ESERVICESTARTFAILURE", "extra": ["ups"]}}, False),
        ({"data": {"errname": "EINVAL", "reason": "[EINVAL] x", "extra": [["x", "y"]]}}, True),
        (None, False),
    ],
)
def test_refusal_is_told_from_a_failure_on_the_way(error: object, refused: bool) -> None:
    """After a refusal TrueNAS has done nothing; after any other failure it may have."""
    failure = call_error("nas.lan", "ups.update", error)
    assert isinstance(failure, CallFailed)
    assert failure.refused is refused


def test_refused_value_over_midclt_is_not_told_from_another_failure() -> None:
    """`[EINVAL] netdata: no room` looks like a refused value, but TrueNAS has saved the settings before."""
    error = {
        "code": None,
        "data": {"errname": "EINVAL", "reason": "[EINVAL] netdata: no room", "extra": [["netdata", "x"]]},
    }
    assert call_error("nas.lan", "ups.update", error, local=True).refused is False
