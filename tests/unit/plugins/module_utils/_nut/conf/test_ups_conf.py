# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar, ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import DEVICE
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import DeviceError, Section, UpsConf
from hypothesis import given
from hypothesis import strategies as st

KEYS: dict[str, tuple[dict[str, Any], tuple[tuple[str, str | None], ...]]] = {
    "defaults": ({"name": "ups"}, (("driver", "usbhid-ups"), ("port", "auto"))),
    "empty is default": (
        {"name": "ups", "driver": "", "port": None, "desc": None, "options": None},
        (("driver", "usbhid-ups"), ("port", "auto")),
    ),
    "driver and port first": (
        {"options": {"pollinterval": 5}, "desc": "Rack", "port": "/dev/ttyS0", "driver": "apcsmart", "name": "ups"},
        (("driver", "apcsmart"), ("port", "/dev/ttyS0"), ("desc", "Rack"), ("pollinterval", "5")),
    ),
    "flags": (
        {"name": "ups", "options": {"pollonly": True, "ignorelb": False, "nolock": None, "sdorder": 0}},
        (("driver", "usbhid-ups"), ("port", "auto"), ("pollonly", None), ("sdorder", "0")),
    ),
    "values": (
        {"name": "ups", "options": {"serial": "", "override.battery.charge.low": 20, "default.ups.delay_start": 1.5}},
        (
            ("driver", "usbhid-ups"),
            ("port", "auto"),
            ("serial", ""),
            ("override.battery.charge.low", "20"),
            ("default.ups.delay_start", "1.5"),
        ),
    ),
    "in the order of the playbook": (
        {"name": "ups", "options": {"z": "1", "a": "2"}},
        (("driver", "usbhid-ups"), ("port", "auto"), ("z", "1"), ("a", "2")),
    ),
    "keys of the driver": (
        {
            "name": "ups",
            "serial": "000123",
            "powervalue": 2,
            "pollonly": True,
            "offdelay": 0,
            "bus": "",
            "vendorid": None,
            "explore": False,
            "desc": "Rack",
            "options": {"langid_fix": "0x409"},
            "lowbatt": 30,
        },
        (
            ("driver", "usbhid-ups"),
            ("port", "auto"),
            ("desc", "Rack"),
            ("serial", "000123"),
            ("pollonly", None),
            ("offdelay", "0"),
            ("langid_fix", "0x409"),
            ("lowbatt", "30"),
        ),
    ),
    "variables of the UPS": (
        {
            "name": "ups",
            "override": {"battery.charge.low": 20, "ups.mfr": "", "ups.model": None},
            "default": {"ups.delay.start": 1.5, "ups.start.auto": "yes"},
            "ignorelb": True,
        },
        (
            ("driver", "usbhid-ups"),
            ("port", "auto"),
            ("override.battery.charge.low", "20"),
            ("override.ups.mfr", ""),
            ("default.ups.delay.start", "1.5"),
            ("default.ups.start.auto", "yes"),
            ("ignorelb", None),
        ),
    ),
    "no variables": ({"name": "ups", "default": None, "override": {}}, (("driver", "usbhid-ups"), ("port", "auto"))),
    "no desc": ({"name": "ups", "desc": ""}, (("driver", "usbhid-ups"), ("port", "auto"))),
    "the longest desc": (
        {"name": "ups", "desc": "#" * 248 + "x"},
        (("driver", "usbhid-ups"), ("port", "auto"), ("desc", "#" * 248 + "x")),
    ),
    "powervalue is ignored": ({"name": "ups", "powervalue": 0}, (("driver", "usbhid-ups"), ("port", "auto"))),
}


@pytest.mark.parametrize(("device", "keys"), KEYS.values(), ids=KEYS.keys())
def test_device_becomes_a_section(device: dict[str, Any], keys: tuple[tuple[str, str | None], ...]) -> None:
    assert ups_conf.build_section(device) == Section("ups", keys)


NAMES = ["", None, "a b", "a.b", "a@b", "a/b", "ü", "default", "ups\n", "[ups]", "a]b"]


@pytest.mark.parametrize("name", NAMES)
def test_invalid_name_is_refused(name: Any) -> None:
    with pytest.raises(DeviceError, match="a name may have only letters, digits, hyphens and underscores"):
        ups_conf.build_section({"name": name})


@pytest.mark.parametrize("name", ["ups", "UPS-1", "a_b", "1", 5])
def test_valid_name_is_accepted(name: Any) -> None:
    assert ups_conf.build_section({"name": name}).name == str(name)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "without a name": ({"serial": "1"}, "device '': a name may have only"),
    "options as a list": ({"name": "ups", "options": ["pollonly"]}, "device ups: options must map keys to values"),
    "options as text": ({"name": "ups", "options": "pollonly"}, "device ups: options must map keys to values"),
    **{
        f"{key} under options": ({"name": "ups", "options": {key: "x"}}, f"device ups: {key} belongs to the device itself")
        for key in ("driver", "port", "desc", "name")
    },
    "a key with a blank": ({"name": "ups", "options": {"a b": 1}}, "device ups: 'a b' is not a key of ups.conf"),
    "a key that ends the section": ({"name": "ups", "options": {"x\n[y]": 1}}, "is not a key of ups.conf"),
    "a device key with a blank": ({"name": "ups", "a b": 1}, "device ups: 'a b' is not a key of ups.conf"),
    "a misspelled device key": ({"name": "ups", "ofdelay": 1}, "there is no key ofdelay. Did you mean offdelay?"),
    "a key of another driver": (
        {"name": "ups", "driver": "snmp-ups", "community": "x"},
        "there is no key community. Write a key of a driver other than usbhid-ups as options: {community: ...}",
    ),
    "a flag that is neither true nor false": (
        {"name": "ups", "pollonly": "perhaps"},
        "device ups: pollonly: 'perhaps' is neither true nor false",
    ),
    "a key beside options and under options": (
        {"name": "ups", "serial": "1", "options": {"serial": "1"}},
        "device ups: serial is given twice, perhaps once under options. Remove one",
    ),
    "a key twice in different case": ({"name": "ups", "pollOnly": True, "pollonly": True}, "device ups: pollonly is given twice"),
    "a variable twice": (
        {"name": "ups", "options": {"default.ups.mfr": "a"}, "default": {"ups.mfr": "b"}},
        "device ups: default.ups.mfr is given twice",
    ),
    "variables as a list": ({"name": "ups", "default": ["x"]}, "device ups: default must map variables to values"),
    "a boolean for a variable": (
        {"name": "ups", "override": {"ups.start.auto": False}},
        "device ups: override.ups.start.auto is a boolean in YAML. Put NUT's own word in quotes",
    ),
    "a variable with a blank": ({"name": "ups", "override": {"a b": 1}}, "device ups: 'override.a b' is not a key of ups.conf"),
    "a mapping for a key": ({"name": "ups", "serial": {"a": 1}}, "device ups: serial must be a string, a number, or true"),
    **{
        f"{key} as a flag": ({"name": "ups", key: True}, f"device ups: {key} must be a string") for key in ("driver", "port", "desc")
    },
    "a desc too long for an answer": (
        {"name": "ups", "desc": "#" * 249},
        "device ups: desc has 249 characters, too many for upsd's answer of 512 bytes",
    ),
    "an empty key": ({"name": "ups", "options": {"": 1}}, "'' is not a key of ups.conf"),
    "a list as value": ({"name": "ups", "options": {"serial": [1]}}, "device ups: serial must be a string, a number, or true"),
    "newline": ({"name": "ups", "desc": "a\nb"}, "device ups: desc: character 2 (U+000A) is a control character"),
    "not ASCII": ({"name": "ups", "desc": "Büro"}, "device ups: desc: character 2 (U+00FC) is not ASCII"),
    "too long": ({"name": "ups", "options": {"x": "y" * 513}}, "device ups: x: the word has 513 characters"),
}  # fmt: skip


@pytest.mark.parametrize(("device", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_invalid_device_is_refused(device: dict[str, Any], message: str) -> None:
    with pytest.raises(DeviceError) as caught:
        ups_conf.build_section(device)
    assert message in str(caught.value)


def test_duplicate_name_is_refused() -> None:
    devices = [{"name": "a"}, {"name": "b"}, {"name": "a"}, {"name": "B"}, {"name": "b"}]
    with pytest.raises(DeviceError, match=r"two devices are called a, b\."):
        ups_conf.build_sections(devices)


def test_driver_and_port_come_first_in_a_section() -> None:
    keys = (("sdorder", "1"), ("port", "old"), ("driver", "x"), ("nolock", None), ("port", "y"))
    assert ups_conf.render_sections([Section("ups", keys)]) == (
        '[ups]\n    driver = "x"\n    port = "old"\n    port = "y"\n    sdorder = "1"\n    nolock\n'
    )


def test_sections_are_rendered() -> None:
    devices = [
        {"name": "ups", "desc": 'UPS #1 "rack" \\ = [x]', "options": {"pollonly": True, "offdelay": 60}},
        {"name": "spare", "driver": "dummy-ups", "port": "spare.dev"},
    ]
    assert ups_conf.render_sections(ups_conf.build_sections(devices)) == (
        "[ups]\n"
        '    driver = "usbhid-ups"\n'
        '    port = "auto"\n'
        '    desc = "UPS \\#1 \\"rack\\" \\\\ = [x]"\n'
        "    pollonly\n"
        '    offdelay = "60"\n'
        "\n"
        "[spare]\n"
        '    driver = "dummy-ups"\n'
        '    port = "spare.dev"\n'
    )
    assert ups_conf.render_sections([]) == ""


PARSED: dict[str, tuple[str, UpsConf]] = {
    "empty": ("", UpsConf((), {})),
    "as shipped": ("# [ups]\nmaxretry = 3\n", UpsConf((("maxretry", "3"),), {})),
    "globals and flags": (
        "maxretry=3\nnowait\n[ups]\n  driver = usbhid-ups # it\n  pollonly\n",
        UpsConf(
            (("maxretry", "3"), ("nowait", None)),
            {"ups": Section("ups", (("driver", "usbhid-ups"), ("pollonly", None)))},
        ),
    ),
    "a section in two parts": (
        "[a]\nx = 1\n[b]\n[a]\ny = 2\n",
        UpsConf((), {"a": Section("a", (("x", "1"), ("y", "2"))), "b": Section("b", ())}),
    ),
    # NUT reads only the first word
    "text after a header": (
        '[a] b = c\nx = 1\n"[d e]" f\ny\n',
        UpsConf((), {"a": Section("a", (("x", "1"),)), "d e": Section("d e", (("y", None),))}),
    ),
    "lines that NUT skips": (
        "pollinterval 5\n[a]\nx y\nz =\nx y z\n= =\n[b\nx = 1 2\n",
        UpsConf((), {"a": Section("a", (("[b", None), ("x", "1")))}),
    ),
    "no newline at the end": ("[a]\nx = 1\nflag", UpsConf((), {"a": Section("a", (("x", "1"),))})),
    "Windows line ends": ("[a]\r\nx = 1\r\ny\r\n", UpsConf((), {"a": Section("a", (("x", "1"), ("y", None)))})),
    "continued lines": ('[a]\nx = \\\n1\ny = "1 \\\n2"\n', UpsConf((), {"a": Section("a", (("x", "1"), ("y", "1 2")))})),
    "text like a header": ('[a]\ndesc = "[b]"\n', UpsConf((), {"a": Section("a", (("desc", "[b]"),))})),
}  # fmt: skip


@pytest.mark.parametrize(("text", "conf"), PARSED.values(), ids=PARSED.keys())
def test_text_is_parsed(text: str, conf: UpsConf) -> None:
    assert ups_conf.parse_ups_conf(text) == conf
    assert list(ups_conf.parse_ups_conf(text).sections) == list(conf.sections)


def test_order_of_keys_matters_but_not_blanks_and_comments() -> None:
    conf = ups_conf.parse_ups_conf("[a]\ndriver = x\nport = auto\n")
    assert conf == ups_conf.parse_ups_conf('# c\n\n  [a]\n\tdriver="x" # d\n\n port  = "auto"\n')
    assert conf != ups_conf.parse_ups_conf("[a]\nport = auto\ndriver = x\n")
    assert conf != ups_conf.parse_ups_conf("[a]\ndriver = x\nport = auto\nport = auto\n")


TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
NAME = st.from_regex(ups_conf.NAME, fullmatch=True).filter(lambda name: name != "default")
KEY = st.from_regex(ups_conf.KEY, fullmatch=True).map(str.lower)
VALUES = st.dictionaries(KEY, st.one_of(TEXT, st.integers()), max_size=2)
KEYS_OF_DRIVERS = st.dictionaries(KEY, st.one_of(TEXT, st.integers(), st.just(True)), max_size=4)
OPTIONS = KEYS_OF_DRIVERS.map(lambda keys: {f"o.{key}": value for key, value in keys.items()})
BESIDE = st.dictionaries(
    st.sampled_from(
        sorted(key for key, directive in DEVICE.items() if directive.kind in ("seconds", "integer", "word"))
    ),
    TEXT,
    max_size=4,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"name": NAME},
            optional={
                "desc": TEXT,
                "options": OPTIONS,
                "port": TEXT,
                "driver": TEXT,
                "default": VALUES,
                "override": VALUES,
            },
        ).flatmap(lambda device: BESIDE.map(lambda more: {**more, **device})),
        unique_by=lambda device: device["name"].lower(),
        max_size=3,
    )
)
def test_rendered_sections_are_read_back(devices: list[dict[str, Any]]) -> None:
    made = ups_conf.build_sections(devices)
    text = ups_conf.render_sections(made)
    assert grammar.find_problems(text) == []
    assert ups_conf.parse_ups_conf(text) == UpsConf((), {section.name: section for section in made})


# Complete files

# characters that are special to the parser, and words that are special in the file
ODD = st.lists(
    st.sampled_from(
        [
            *"\"#\\= \t\n\r[]'",
            "\\\n",
            "\u00e9",
            "\x01",
            "\x7f",
            "[a]",
            '"[b c]"',
            "driver",
            "port",
            " = ",
            "x y",
            "\n[d]\n",
            "e = f\n",
        ]
    ),
    max_size=30,
).map("".join)


@given(ODD)
def test_rewritten_file_has_the_same_meaning(text: str) -> None:
    conf = ups_conf.parse_ups_conf(text)
    again = ups_conf.render_conf(conf)
    assert grammar.find_problems(again) == []
    read = ups_conf.parse_ups_conf(again)
    assert (read.settings, list(read.sections)) == (conf.settings, list(conf.sections))
    for name, section in conf.sections.items():
        driver, port = ([pair for pair in section.keys if pair[0] == key] for key in ("driver", "port"))
        others = [pair for pair in section.keys if pair[0] not in ("driver", "port")]
        assert list(read.sections[name].keys) == [*driver, *port, *others]
    assert ups_conf.render_conf(read) == again


def test_complete_file_is_rewritten() -> None:
    text = """\
# as written by the user
nowait
maxretry=3
[office] # the first
\tdesc = UPS\\ \\#1
\tport=auto
\tdriver="usbhid-ups"
[a.b@c]
"[d e]"
"f g" = h
"""
    assert (
        ups_conf.render_conf(ups_conf.parse_ups_conf(text))
        == """\
nowait
maxretry = "3"

[office]
    driver = "usbhid-ups"
    port = "auto"
    desc = "UPS \\#1"

[a.b@c]

"[d e]"
    "f g" = "h"
"""
    )
    assert ups_conf.render_conf(ups_conf.parse_ups_conf("x = 1\n")) == 'x = "1"\n'
    assert ups_conf.render_conf(ups_conf.parse_ups_conf("")) == ""


@pytest.mark.parametrize(("value", "written"), [(True, "yes"), (False, "no"), ("auto", "auto")])
def test_synchronous_is_written_as_yes_or_no(value: object, written: str) -> None:
    """YAML reads an unquoted yes as true."""
    assert dict(ups_conf.build_section({"name": "ups", "synchronous": value}).keys)["synchronous"] == written


@pytest.mark.parametrize("where", ["top", "options"])
@pytest.mark.parametrize("key", ["vendorid", "productid", "serial"])
def test_digits_must_be_quoted(where: str, key: str) -> None:
    """YAML reads 0463 as 307."""
    device = {"name": "ups", key: 307} if where == "top" else {"name": "ups", "options": {key: 307}}
    with pytest.raises(DeviceError, match=f"device ups: YAML reads {key} as a number.*quotes"):
        ups_conf.build_section(device)


@pytest.mark.parametrize(
    ("device", "powering", "order"),
    [
        ({"powervalue": 0}, [], -1),
        ({"powervalue": "0"}, ["other"], -1),
        ({"powervalue": 0}, ["RACK"], None),
        ({"powervalue": 1}, [], None),
        ({}, [], None),
        ({"powervalue": 0, "sdorder": 0}, [], 0),
        ({"powervalue": 0, "SdOrder": 2}, [], None),
        ({"powervalue": 0, "options": {"sdorder": 1}}, [], None),
        ({"powervalue": 1, "sdorder": -1}, [], -1),
    ],
)
def test_ups_that_powers_no_machine_keeps_its_outlets_on(
    device: dict[str, Any], powering: list[str], order: int | None
) -> None:
    (spared,) = ups_conf.spare_devices([{"name": "rack", **device}], powering)
    assert spared.get("sdorder") == order
    assert device.items() <= spared.items()


@pytest.mark.parametrize(
    ("device", "delays"),
    [
        ({"vendorid": "0764"}, {"offdelay": "60", "ondelay": "120"}),
        ({"options": {"VendorID": "0764"}, "ondelay": -1}, {"offdelay": "60", "ondelay": "-1"}),
        ({"vendorid": "0764", "options": {"OffDelay": 180}}, {"offdelay": "180"}),
        ({"vendorid": "0764", "driver": "nutdrv_qx"}, {}),
        # the host finds out what it is
        ({"vendorid": "0764", "driver": "auto"}, {}),
        ({"vendorid": "051d"}, {}),
        ({}, {}),
    ],
)
def test_declared_cyberpower_gets_delays_of_whole_minutes(device: dict[str, Any], delays: dict[str, str]) -> None:
    (section,) = ups_conf.build_sections([{"name": "ups", **device}])
    keys = {key.lower(): value for key, value in ups_conf.add_delays(section).keys}
    assert {key: keys[key] for key in ("offdelay", "ondelay") if key in keys} == delays
