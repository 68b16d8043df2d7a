# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut import parseconf, ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.ups_conf import DeviceError, Section, UpsConf
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
    "powervalue is upsmon's": ({"name": "ups", "powervalue": 0}, (("driver", "usbhid-ups"), ("port", "auto"))),
}


@pytest.mark.parametrize(("device", "keys"), KEYS.values(), ids=KEYS.keys())
def test_a_device(device: dict[str, Any], keys: tuple[tuple[str, str | None], ...]) -> None:
    assert ups_conf.section(device) == Section("ups", keys)


NAMES = ["", None, "a b", "a.b", "a@b", "a/b", "ü", "default", "ups\n", "[ups]", "a]b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_unit_can_have(name: Any) -> None:
    with pytest.raises(DeviceError, match="a name is made of letters, digits, hyphen and underscore"):
        ups_conf.section({"name": name})


@pytest.mark.parametrize("name", ["ups", "UPS-1", "a_b", "1", 5])
def test_a_name(name: Any) -> None:
    assert ups_conf.section({"name": name}).name == str(name)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "a key of the driver beside it": (
        {"name": "ups", "serial": "1", "vendorid": "2"},
        "device ups: unknown key serial, vendorid. A device has desc, driver, name, options, port, powervalue; "
        "keys of the driver go under options",
    ),
    "without a name": ({"serial": "1"}, "device ?: unknown key serial"),
    "options as a list": ({"name": "ups", "options": ["pollonly"]}, "device ups: options must map keys to values"),
    "options as text": ({"name": "ups", "options": "pollonly"}, "device ups: options must map keys to values"),
    **{
        f"{key} under options": ({"name": "ups", "options": {key: "x"}}, f"device ups: {key} belongs to the device itself")
        for key in ("driver", "port", "desc", "name")
    },
    "a key with a blank": ({"name": "ups", "options": {"a b": 1}}, "device ups: 'a b' is no key of ups.conf"),
    "a key that ends the section": ({"name": "ups", "options": {"x\n[y]": 1}}, "is no key of ups.conf"),
    "an empty key": ({"name": "ups", "options": {"": 1}}, "'' is no key of ups.conf"),
    "a list as value": ({"name": "ups", "options": {"serial": [1]}}, "device ups: serial must be a text, a number, or true"),
    "newline": ({"name": "ups", "desc": "a\nb"}, "device ups: desc: character 2 (U+000A) is a control character"),
    "not ASCII": ({"name": "ups", "desc": "Büro"}, "device ups: desc: character 2 (U+00FC) is not ASCII"),
    "too long": ({"name": "ups", "options": {"x": "y" * 513}}, "device ups: x: the word has 513 characters"),
}  # fmt: skip


@pytest.mark.parametrize(("device", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_device_that_cannot_be_written(device: dict[str, Any], said: str) -> None:
    with pytest.raises(DeviceError) as caught:
        ups_conf.section(device)
    assert said in str(caught.value)


def test_two_devices_of_one_name() -> None:
    devices = [{"name": "a"}, {"name": "b"}, {"name": "a"}, {"name": "B"}, {"name": "b"}]
    with pytest.raises(DeviceError, match=r"two devices are called a, b\."):
        ups_conf.sections(devices)


def test_rendered() -> None:
    devices = [
        {"name": "ups", "desc": 'UPS #1 "rack" \\ = [x]', "options": {"pollonly": True, "offdelay": 60}},
        {"name": "spare", "driver": "dummy-ups", "port": "spare.dev"},
    ]
    assert ups_conf.render(ups_conf.sections(devices)) == (
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
    assert ups_conf.render([]) == ""


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
    "what looks like a header": ('[a]\ndesc = "[b]"\n', UpsConf((), {"a": Section("a", (("desc", "[b]"),))})),
}


@pytest.mark.parametrize(("text", "conf"), PARSED.values(), ids=PARSED.keys())
def test_parsed(text: str, conf: UpsConf) -> None:
    assert ups_conf.parse(text) == conf
    assert list(ups_conf.parse(text).sections) == list(conf.sections)


def test_comments_and_blanks_are_no_difference_and_order_is() -> None:
    one = ups_conf.parse("[a]\ndriver = x\nport = auto\n")
    assert one == ups_conf.parse('# c\n\n  [a]\n\tdriver="x" # d\n\n port  = "auto"\n')
    assert one != ups_conf.parse("[a]\nport = auto\ndriver = x\n")
    assert one != ups_conf.parse("[a]\ndriver = x\nport = auto\nport = auto\n")


TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
NAME = st.from_regex(ups_conf.NAME, fullmatch=True).filter(lambda name: name != "default")
OPTIONS = st.dictionaries(
    st.from_regex(ups_conf.KEY, fullmatch=True).filter(lambda key: key not in ("driver", "port", "desc", "name")),
    st.one_of(TEXT, st.integers(), st.just(True)),
    max_size=4,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"name": NAME}, optional={"desc": TEXT, "options": OPTIONS, "port": TEXT, "driver": TEXT}
        ),
        unique_by=lambda device: device["name"].lower(),
        max_size=3,
    )
)
def test_what_is_rendered_is_read_back(devices: list[dict[str, Any]]) -> None:
    made = ups_conf.sections(devices)
    text = ups_conf.render(made)
    assert parseconf.problems(text) == []
    assert ups_conf.parse(text) == UpsConf((), {one.name: one for one in made})
