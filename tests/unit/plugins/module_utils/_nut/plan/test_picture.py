# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import picture
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    PlanMachine,
    PlannedGuest,
    ProxmoxGuests,
    StagePlan,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.planner import make_plan
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import spell_verdict
from ansible_collections.homelab.nut.tests.unit.support.drawn import (
    MACHINES,
    STAGE,
    TIMING,
    UPS,
    make_example,
    parse_drawing,
)
from hypothesis import given
from hypothesis import strategies as st

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that every element is closed; collects text, tags and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.words)


def test_page_is_self_contained() -> None:
    page = picture.draw_page(make_example(), {"truenas": (8, 61)})
    assert page.startswith("<!DOCTYPE html>\n")
    read = Page(page)
    assert not {"script", "img", "link", "iframe", "object", "use", "image"} & set(read.tags)
    assert not {"src", "href", "onload"} & {name for name, _value in read.attributes}
    assert "url(" not in page
    assert "@import" not in page
    assert "://" not in page


def test_page_has_light_and_dark_colours() -> None:
    page = picture.draw_page(make_example())
    light, dark = page.split("@media (prefers-color-scheme: dark)")
    names = re.compile(r"(--[a-z0-9-]+):")
    light_names = set(names.findall(light))
    dark = dark.split("} }")[0]
    assert light_names == set(names.findall(dark))
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", page)) <= light_names
    assert len(light_names) > 20


def compute_luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(
    ("words", "ground"),
    [
        ("ink", "card"), ("ink", "page"), ("soft", "card"), ("on-up", "up"), ("on-up", "gate"), ("on-go", "go"),
        ("on-go", "go2"), ("seen", "card"), ("ok", "ok-soft"), ("no", "no-soft"), ("open", "open-soft"),
    ],
)  # fmt: skip
def test_text_has_enough_contrast(words: str, ground: str, dark: bool) -> None:
    """WCAG AA requires this contrast of text."""
    half = picture._STYLE.split("@media (prefers-color-scheme: dark)")[dark]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", half))
    low, high = sorted((compute_luminance(colours[words]), compute_luminance(colours[ground])))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_page_shows_verdict_and_constraints() -> None:
    plan = make_example()
    page = Page(picture.draw_page(plan))
    assert spell_verdict(plan) in page.text
    for each in plan.constraints:
        assert each.reason in page.text
    assert "1:14" in page.text
    assert "docker 50" in page.text
    assert "Shutdown plan of pve" in page.text
    assert "measured" not in page.text
    assert ("class", "verdict ok") in page.attributes


def test_page_shows_remedies_of_failing_and_undecided_constraints() -> None:
    plan = make_example(
        ups=(Supply(runtime_low=100, offdelay=30, ondelay=60),), timing=Timing(hostsync=4, guests_time=120)
    )
    page = Page(picture.draw_page(plan))
    assert ("class", "verdict no") in page.attributes
    assert "Write into host_vars/pve.yml, under nut_server_upsmon_conf: HOSTSYNC: 30" in page.text
    assert "\u22126 s" in page.text
    assert "unknown" in page.words
    assert page.words.count("fails") == sum(each.holds is False for each in plan.constraints)
    assert "too short" in page.text
    unknown = Page(picture.draw_page(make_example(ups=(Supply(offdelay=30, ondelay=60),))))
    assert ("class", "verdict open") in unknown.attributes
    assert "not known, see Conditions" in unknown.text


def test_tiles_show_time_to_spare() -> None:
    page = Page(picture.draw_page(make_example()))
    # low at 480 s, noticed after 30 s; off after 5 + 30 + 5 + 92 + 120 + 30 + 10 s
    assert "7:30" in page.words
    assert "worst case: 2:38 to spare" in page.words
    assert "truenas is down" in page.words


def test_page_lists_guests_with_their_stopper() -> None:
    assert "Guests" not in Page(picture.draw_page(make_example(MACHINES[:3]))).text
    machines = (*MACHINES[:3], PlanMachine("101 web", "guest", "qm", needs=("truenas",), guest_id=101), MACHINES[4])
    rows = (
        PlannedGuest("101 web", 101, "qm", "web", "", 78, "it has the tag nas"),
        PlannedGuest("router", 7, "pct", "r", "", 60, ha=True),
    )
    plan = make_plan(
        machines, [UPS], TIMING, [StagePlan("nas-guests", runtime=700, guests=("101 web",))], ProxmoxGuests(guests=rows)
    )
    words = Page(picture.draw_page(plan)).words
    start = words.index("Guests")
    assert (
        words[start + 1]
        == "Stages stop their guests before the battery is low. pve stops the others when it goes down."
    )
    table = [word for word in words[start + 2 :] if word.strip()]
    assert table[:4] == ["guest", "stopped by", "within", "why"]
    assert table[4:9] == ["101 web", "virtual machine 101", "stage nas-guests", "78 s", "it has the tag nas"]
    assert table[9:13] == ["router", "container 7", "HA", "60 s"]
    assert "battery time that ends the gate at any time" in words


def test_constraint_without_numbers_shows_no_slack() -> None:
    ha = ("HA manages 1 guest (104)", "shutdown_policy is migrate")
    fails = Page(picture.draw_page(make_plan(MACHINES, [UPS], TIMING, [STAGE], ProxmoxGuests(ha=ha, migrates=True))))
    place = fails.words.index("HA")
    assert fails.words[place - 1 : place + 3] == [
        "fails", "HA", "HA manages 1 guest (104); shutdown_policy is migrate",
        "Set shutdown_policy to freeze (Datacenter, Options, HA Settings)",
    ]  # fmt: skip


HOSTILE = [
    '<script>alert("x")</script>',
    '"><svg onload=alert(1)>',
    "a&b</title></text></svg>",
    "' onmouseover='x",
    "{}%s\x00\x1b[31m\x9f",
    "\ud800",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_escaped(name: str) -> None:
    machines = (PlanMachine(name, "primary", "pve"), PlanMachine(name + "2", "secondary", "linux"))
    guest = PlanMachine(name + "4", "guest", "qm", guest_id=1)
    found = ProxmoxGuests(guests=(PlannedGuest(guest.name, 1, "qm", name, "", 9, name),), ha=(name,))
    plan = make_plan(
        (*machines, guest), [Supply(name, mfr=name)], Timing(hostsync=0), [StagePlan(name, runtime=5)], found
    )
    seen = {name: (1.0, 2.0), name + "3": (1.0, None)}
    clean = Page(picture.draw_page(make_example(), {"truenas": (1.0, 2.0)}))
    page = Page(picture.draw_page(plan, seen))
    assert set(page.tags) <= {*clean.tags, "div"}
    assert {key for key, _value in page.attributes} <= {key for key, _value in clean.attributes} | {"fill-opacity"}
    assert parse_drawing(plan, seen) is not None
    picture.draw_page(plan, seen).encode("utf-8")


@given(st.text(min_size=1, max_size=60))
def test_page_accepts_any_name(name: str) -> None:
    plan = make_plan([PlanMachine(name, "primary", "pve")], [Supply(name)], Timing())
    parse_drawing(plan, {name: (3.0, 4.0)})
    assert set(Page(picture.draw_page(plan)).tags) <= set(Page(picture.draw_page(make_example())).tags) | {"div"}
