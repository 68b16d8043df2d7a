# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.check import TEXT_LIMIT
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import (
    DeviceRule,
    UsbPolicy,
    UsbPolicyError,
    check_policy,
    parse_policy,
)
from hypothesis import given
from hypothesis import strategies as st


def device(**changes: Any) -> UsbDevice:
    given_: dict[str, Any] = {
        "name": "1-1.4",
        "vendor_id": "051d",
        "product_id": "0002",
        "manufacturer": "American Power Conversion",
        "product": "Back-UPS ES 700G FW:871.O4 .I USB FW:O4  ",
        "serial": "5B1234T56789",
        "bus": 1,
        "device": 4,
        "place": "pci-0000:00:14.0-usb-0:1.4",
    }
    return UsbDevice(**{**given_, **changes})


def refusal(data: object) -> list[str]:
    with pytest.raises(UsbPolicyError) as caught:
        check_policy(data)
    return str(caught.value).split("\n")


def test_empty_object_is_the_default() -> None:
    assert check_policy({}) == parse_policy("{}") == UsbPolicy()
    assert (UsbPolicy().default_name, UsbPolicy().takeover, UsbPolicy().absent) == ("ups", True, "keep")
    assert (UsbPolicy().sysfs, UsbPolicy().dev, UsbPolicy().debug, UsbPolicy().patterns) == ("/sys", "/dev", False, ())


def test_every_member_is_read() -> None:
    data = {
        "version": 1,
        "sysfs": "/mock/sys",
        "dev": "/x",
        "default_name": "",
        "takeover": False,
        "absent": "dummy",
        "patterns": ["3746:FFFF", "1234:*", "*delta*"],
        "rules": [
            {"vendor": "051D", "ignore": True},
            {
                "serial": "5B*",
                "name": "rack",
                "driver": "nutdrv_qx",
                "options": {"subdriver": "cypress", "novendor": True, "norating": False, "lowbatt": 30},
            },
        ],
        "debug": True,
    }
    options = (("subdriver", "cypress"), ("novendor", None), ("lowbatt", "30"))
    assert parse_policy(json.dumps(data)) == UsbPolicy(
        "/mock/sys",
        "/x",
        "",
        False,
        "dummy",
        ("3746:FFFF", "1234:*", "*delta*"),
        (
            DeviceRule(1, vendor="051D", ignore=True),
            DeviceRule(2, serial="5B*", name="rack", driver="nutdrv_qx", options=options),
        ),
        True,
    )


WRONG: dict[str, tuple[object, list[tuple[str, str]]]] = {
    "no object": ([], [("$", "object")]),
    "nothing": (None, [("$", "object")]),
    "unknown key": ({"ruels": []}, [("$.ruels", "rules")]),
    "odd key": ({"a b": 1}, [('$["a b"]', "rules")]),
    "version": ({"version": 2}, [("$.version", "must be 1")]),
    "version true": ({"version": True}, [("$.version", "must be 1")]),
    "relative": ({"sysfs": "sys"}, [("$.sysfs", "begins with /")]),
    "name": ({"default_name": "my ups"}, [("$.default_name", "letters")]),
    "newline in a name": ({"default_name": "ups\n"}, [("$.default_name", "control")]),
    "default": ({"default_name": "default"}, [("$.default_name", "default")]),
    "long name": ({"default_name": "a" * 65}, [("$.default_name", "Shorten")]),
    "truth": ({"takeover": "yes"}, [("$.takeover", "true or false")]),
    "number for a truth": ({"debug": 1}, [("$.debug", "true or false")]),
    "absent": ({"absent": "gone"}, [("$.absent", "keep or dummy")]),
    "no list": ({"patterns": "x", "rules": {}}, [("$.patterns", "list"), ("$.rules", "list")]),
    "many": ({"patterns": ["a"] * 1001}, [("$.patterns", "1000")]),
    "short id": ({"patterns": ["3746:fff"]}, [("$.patterns[0]", "four hexadecimal")]),
    "vendor star": ({"patterns": ["*:ffff"]}, [("$.patterns[0]", "four hexadecimal")]),
    "all devices": ({"patterns": ["ok", "**"]}, [("$.patterns[1]", "every device")]),
    "empty pattern": ({"patterns": [""]}, [("$.patterns[0]", "empty")]),
    "number for a text": ({"patterns": [5]}, [("$.patterns[0]", "quotes")]),
    "matches all": ({"rules": [{"name": "x"}]}, [("$.rules[0]", "every device")]),
    "rule is no object": ({"rules": ["x"]}, [("$.rules[0]", "object")]),
    "0x": ({"rules": [{"vendor": "0x051d"}]}, [("$.rules[0].vendor", "without 0x")]),
    "YAML's number": ({"rules": [{"product": 2}]}, [("$.rules[0].product", "quotes")]),
    "rule's key": ({"rules": [{"serial": "1", "desc": "x"}]}, [("$.rules[0].desc", "rule")]),
    "ignored with a name": (
        {"rules": [{"serial": "1", "ignore": True, "name": "x"}]},
        [("$.rules[0].name", "ignored")],
    ),
    "auto": ({"rules": [{"serial": "1", "driver": "auto"}]}, [("$.rules[0].driver", "leave it out")]),
    "driver of no bus": ({"rules": [{"serial": "1", "driver": "dummy-ups"}]}, [("$.rules[0].driver", "dummy-ups")]),
    "a path for a driver": ({"rules": [{"serial": "1", "driver": "../sh"}]}, [("$.rules[0].driver", "letters")]),
    "option's key": (
        {"rules": [{"serial": "1", "options": {"a b": 1}}]},
        [('$.rules[0].options["a b"]', "not a valid key")],
    ),
    "own option": (
        {"rules": [{"serial": "1", "options": {"Driver": "x"}}]},
        [("$.rules[0].options.Driver", "not into options")],
    ),
    "newline in an option": (
        {"rules": [{"serial": "1", "options": {"x": "a\nb"}}]},
        [("$.rules[0].options.x", "ASCII")],
    ),
    "umlaut in an option": ({"rules": [{"serial": "1", "options": {"x": "ä"}}]}, [("$.rules[0].options.x", "ASCII")]),
    "long option": ({"rules": [{"serial": "1", "options": {"x": "a" * 513}}]}, [("$.rules[0].options.x", "512")]),
    "id as a number": (
        {"rules": [{"serial": "1", "options": {"VendorID": 463}}]},
        [("$.rules[0].options.VendorID", "quotes")],
    ),
    "id as a flag": (
        {"rules": [{"serial": "1", "options": {"serial": True}}]},
        [("$.rules[0].options.serial", "must be a string")],
    ),
    "list in an option": (
        {"rules": [{"serial": "1", "options": {"x": []}}]},
        [("$.rules[0].options.x", "must be a string")],
    ),
    "huge number": ({"rules": [{"serial": "1", "options": {"x": 10**400}}]}, [("$.rules[0].options.x", "number")]),
    "no number": ({"rules": [{"serial": "1", "options": {"x": float("nan")}}]}, [("$.rules[0].options.x", "number")]),
    "twice in another case": (
        {"rules": [{"serial": "1", "options": {"x": 1, "X": 2}}]},
        [("$.rules[0].options", "twice")],
    ),
    "all at once": (
        {"version": 3, "rules": [{"serial": "1"}, {"ignore": 1, "vendor": ""}], "extra": 0},
        [("$.extra", ""), ("$.version", ""), ("$.rules[1].vendor", ""), ("$.rules[1].ignore", "")],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_problem_is_named_with_path_and_remedy(case: str) -> None:
    data, expected = WRONG[case]
    said = refusal(data)
    assert [line.split(": ")[0] for line in said] == [path for path, _unused in expected]
    for line, (_path, words) in zip(said, expected):
        assert words in line


TEXTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "line 1"),
    "cut": ('{"default_name": "ups"\n', "line 2"),
    "deep": ("[" * 100_000, "brackets"),
    "deep in a rule": ('{"rules":' * 100_000, "brackets"),
    "latin": (b'{"default_name": "\xe4"}', "UTF-8"),
    "surrogate": ('{"default_name": "\udce4"}', "UTF-8"),
    "half a character": (r'{"patterns": ["\ud800"]}', "$.patterns[0]"),
    "long": (" " * (TEXT_LIMIT + 1), "characters"),
    "digits": ('{"version": ' + "1" * 500_000 + "}", "$.version"),
    "digits below zero": (
        '{"rules": [{"port": "1-1", "options": {"x": -' + "1" * 500_000 + "}}]}",
        "$.rules[0].options.x",
    ),
    "exponent": ('{"rules": [{"port": "1-1", "options": {"x": 1e999}}]}', "$.rules[0].options.x"),
    "NaN": ('{"version": NaN}', "$.version"),
    "twice": ('{"debug": true, "debug": false}', "$.debug: is given twice"),
    "twice in a rule": ('{"rules": [{"serial": "a", "serial": "b"}]}', "$.rules[0].serial: is given twice"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_hostile_json_is_refused_with_a_short_message(case: str) -> None:
    text, words = TEXTS[case]
    with pytest.raises(UsbPolicyError, match=r"^\$") as caught:
        parse_policy(text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


@given(st.one_of(st.text(), st.binary()))
def test_parse_policy_raises_only_policy_errors(text: str | bytes) -> None:
    with contextlib.suppress(UsbPolicyError):
        parse_policy(text)


# Matching devices

GLOBS: dict[str, tuple[dict[str, str], bool]] = {
    "id": ({"vendor": "051D"}, True),
    "other id": ({"vendor": "0463"}, False),
    "id is no text": ({"vendor": "face"}, False),
    "both ids": ({"vendor": "051d", "product": "0002"}, True),
    "one of two": ({"vendor": "051d", "product": "0003"}, False),
    "text in any case": ({"vendor": "american*"}, True),
    "all of it": ({"vendor": "american"}, False),
    "blanks at the end": ({"product": "*FW:O4"}, True),
    "question mark": ({"serial": "5b1234t5678?"}, True),
    "class": ({"serial": "[4-6]B*"}, True),
    "not in the class": ({"serial": "[!4-6]B*"}, False),
    "range the wrong way round": ({"serial": "[z-a]*"}, False),
    "port": ({"port": "1-1.4"}, True),
    "other port": ({"port": "1-1"}, False),
    "place": ({"port": "pci-0000:00:14.0-*:1.4"}, True),
}


@pytest.mark.parametrize("case", GLOBS)
def test_rule_matches_if_all_patterns_match(case: str) -> None:
    given_, expected = GLOBS[case]
    policy = check_policy({"rules": [{"serial": "none"}, given_]})
    rule = policy.rule_for(device())
    assert (rule.number if rule else None) == (2 if expected else None)
    assert policy.explain_match(device()) == ("rule 2" if expected else "")


def test_first_matching_rule_counts() -> None:
    policy = check_policy(
        {"rules": [{"serial": "5B*", "ignore": True}, {"vendor": "051d", "name": "x"}], "patterns": ["051d:*"]}
    )
    assert policy.is_ignored(device())
    assert policy.explain_match(device()) == ""
    assert not policy.is_ignored(device(serial=""))
    assert policy.explain_match(device(serial="")) == "rule 2"
    assert not policy.is_ignored(device(vendor_id="0463", serial=""))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("051D:0002", True),
        ("051d:*", True),
        ("051d:0003", False),
        ("0463:*", False),
        ("*CONVERSION", True),
        ("back-ups*", True),
        ("power", False),
        ("*5B1234*", False),
    ],
)
def test_pattern_makes_a_device_a_ups(pattern: str, expected: bool) -> None:
    assert check_policy({"patterns": [pattern]}).explain_match(device()) == (f"pattern {pattern}" if expected else "")


def test_pattern_of_many_stars_is_fast() -> None:
    policy = check_policy({"rules": [{"vendor": "*a" * 127 + "b"}], "patterns": ["*a" * 127 + "b"]})
    assert policy.explain_match(device(manufacturer="a" * 1000, product="a" * 1000)) == ""


@given(st.text(st.characters(), min_size=1, max_size=20), st.text(st.characters(), max_size=20))
def test_matching_never_raises(pattern: str, text: str) -> None:
    rule = DeviceRule(1, vendor=pattern, serial=pattern, port=pattern)
    assert rule.matches_device(device(vendor_id="0001", manufacturer=text, serial=text, name=text, place=text)) in (
        True,
        False,
    )


# Anything

WORDS = st.one_of(
    st.sampled_from(
        ["", "ups", "default", "auto", "dummy-ups", "usbhid-ups", "051d", "0x051d", "3746:ffff", "3746:*", "3746:fff"]
    ),
    st.sampled_from(
        [
            "*",
            "*delta*",
            "a:b",
            "/sys",
            "sys",
            "ups\n",
            "a b",
            "keep",
            "dummy",
            "ä",
            "\x7f",
            "\ud800",
            "serial",
            "Serial",
        ]
    ),
    st.sampled_from(["pollonly", "driver", "x.y"]),
    st.sampled_from([64, 65, 256, 257, 512, 513]).map(lambda length: "a" * length),
    st.text(st.characters(), max_size=6),
)
VALUES = st.one_of(
    WORDS,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from([1, 1.0, 10**15, 10**15 + 1, 10**400]),
)
ANYTHING = st.recursive(
    VALUES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3))
)
OPTIONS = st.dictionaries(WORDS, VALUES, max_size=3)
RULES = st.fixed_dictionaries(
    {},
    optional={
        **{key: st.one_of(WORDS, VALUES) for key in ("vendor", "product", "serial", "port", "name", "driver")},
        "ignore": st.one_of(st.booleans(), VALUES),
        "options": st.one_of(OPTIONS, ANYTHING),
        "more": VALUES,
    },
)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        **{
            key: st.one_of(WORDS, VALUES)
            for key in ("version", "sysfs", "dev", "default_name", "takeover", "absent", "debug")
        },
        "patterns": st.one_of(st.lists(WORDS, max_size=3), ANYTHING),
        "rules": st.one_of(st.lists(RULES, max_size=3), ANYTHING),
        "more": VALUES,
    },
)
GOOD_RULES = st.fixed_dictionaries(
    {"port": st.sampled_from(["1-*", "usb"])},
    optional={
        "vendor": st.sampled_from(["051d", "APC*"]),
        "name": st.sampled_from(["ups", "rack"]),
        "driver": st.sampled_from(["usbhid-ups", "nutdrv_qx"]),
        "options": OPTIONS,
        "ignore": st.just(False),
    },
)


@given(st.one_of(POLICIES, ANYTHING, st.fixed_dictionaries({"rules": st.lists(GOOD_RULES, max_size=2)})))
def test_accepted_options_survive_ups_conf(data: Any) -> None:
    try:
        policy = check_policy(data)
    except UsbPolicyError:
        return
    for rule in policy.rules:
        made = ups_conf.Section("x", (("driver", "x"), *rule.options))
        assert ups_conf.parse_ups_conf(ups_conf.render_sections((made,))).sections == {"x": made}
