# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import picture
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    CUT,
    GATE,
    GOES,
    POWEROFF,
    Machine,
    Plan,
    PlannedGuest,
    Proxmox,
    StagePlan,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.planner import make_plan
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.text import spell_verdict
from hypothesis import given
from hypothesis import strategies as st

MACHINES = (
    Machine("pve", "primary", "pve"),
    Machine("truenas", "secondary", "truenas", shutdown_time=60),
    Machine("docker", "secondary", "linux", shutdown_time=20, shutdown_limit=50),
    Machine("media", "guest", "qm", shutdown_time=40, shutdown_limit=90, needs=("truenas",)),
    Machine("router", "guest", "qm", shutdown_time=25, shutdown_limit=90),
)
UPS = Supply(runtime=1500, runtime_low=480, offdelay=30, ondelay=60, ignorelb=True)
STAGE = StagePlan("nas-guests", runtime=700, guests=("media",), fsd=True)
TIMING = Timing(guests_time=120)
VOID = {"meta", "br"}


def made(machines: tuple[Machine, ...] = MACHINES, ups: tuple[Supply, ...] = (UPS,), timing: Timing = TIMING) -> Plan:
    names = {one.name for one in machines}
    return make_plan(machines, ups, timing, [STAGE] if "media" in names else [])


def drawing(one: Plan, seen: picture.Seen | None = None) -> ET.Element:
    """Read the drawing as XML, which is stricter than HTML."""
    return ET.fromstring(picture.svg(one, seen))  # noqa: S314 - our own


def bars(root: ET.Element) -> dict[str, dict[str, float]]:
    """Return the places of all bars by what they say."""
    found = {}
    for drawn in root.iter("rect"):
        (title,) = drawn
        found[title.text or ""] = {name: float(drawn.attrib[name]) for name in ("x", "y", "width", "height")}
    return found


def starting(root: ET.Element, words: str) -> dict[str, float]:
    (found,) = (place for said, place in bars(root).items() if said.startswith(words))
    return found


class Page(HTMLParser):
    """Checks that each element is closed; collects the text, tags and attributes."""

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


# --- the page


def test_the_page_needs_nothing_but_itself() -> None:
    page = picture.html(made(), {"truenas": (8, 61)})
    assert page.startswith("<!DOCTYPE html>\n")
    read = Page(page)
    assert not {"script", "img", "link", "iframe", "object", "use", "image"} & set(read.tags)
    assert not {"src", "href", "onload"} & {name for name, _value in read.attributes}
    assert "url(" not in page
    assert "@import" not in page
    assert "://" not in page


def test_it_is_light_and_dark() -> None:
    page = picture.html(made())
    light, dark = page.split("@media (prefers-color-scheme: dark)")
    names = re.compile(r"(--[a-z0-9-]+):")
    light_names = set(names.findall(light))
    dark = dark.split("} }")[0]
    assert light_names == set(names.findall(dark))
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", page)) <= light_names
    assert len(light_names) > 20


def luminance(colour: str) -> float:
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
def test_words_can_be_read(words: str, ground: str, dark: bool) -> None:
    """The contrast that WCAG asks of text (AA)."""
    half = picture._STYLE.split("@media (prefers-color-scheme: dark)")[dark]
    colours = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", half))
    low, high = sorted((luminance(colours[words]), luminance(colours[ground])))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_what_the_page_says() -> None:
    one = made()
    page = Page(picture.html(one))
    assert spell_verdict(one) in page.text
    for each in one.constraints:
        assert each.words in page.text
    assert "1:14" in page.text
    assert "docker 50" in page.text
    assert "The shutdown, as planned" in page.text
    assert "seen" not in page.text
    assert ("class", "verdict ok") in page.attributes


def test_what_fails_and_what_is_not_known_is_said_with_its_remedy() -> None:
    one = made(ups=(Supply(runtime_low=100, offdelay=30, ondelay=60),), timing=Timing(hostsync=4, guests_time=120))
    page = Page(picture.html(one))
    assert ("class", "verdict no") in page.attributes
    assert "Set nut_server_hostsync to 30" in page.text
    assert "\u22126 s" in page.text
    assert "unknown" in page.words
    assert page.words.count("fails") == sum(each.holds is False for each in one.constraints)
    assert "too short, at worst" in page.text
    unknown = Page(picture.html(made(ups=(Supply(offdelay=30, ondelay=60),))))
    assert ("class", "verdict open") in unknown.attributes
    assert "not known: see below" in unknown.text


def test_the_figures_say_what_is_to_spare() -> None:
    page = Page(picture.html(made()))
    # low at 480 s, noticed after 30 s; off after 5 + 30 + 5 + 92 + 120 + 30 + 10 s
    assert "7:30" in page.words
    assert "2:38 to spare, at worst" in page.words
    assert "truenas is down" in page.words


def test_the_guests_and_who_stops_them() -> None:
    assert "Who stops which guest" not in Page(picture.html(made(MACHINES[:3]))).text
    machines = (*MACHINES[:3], Machine("101 web", "guest", "qm", needs=("truenas",), guest_id=101), MACHINES[4])
    rows = (
        PlannedGuest("101 web", 101, "qm", "web", "", 78, "it has the tag nas"),
        PlannedGuest("router", 7, "pct", "r", "", 60, ha=True),
    )
    one = make_plan(
        machines, [UPS], TIMING, [StagePlan("nas-guests", runtime=700, guests=("101 web",))], Proxmox(guests=rows)
    )
    words = Page(picture.html(one)).words
    start = words.index("Who stops which guest")
    assert (
        words[start + 1]
        == "A stage stops its guests before the battery is low; pve stops the others when it goes down."
    )
    table = [word for word in words[start + 2 :] if word.strip()]
    assert table[:3] == ["stopped by", "has", "why"]
    assert table[3:8] == ["101 web", "virtual machine 101", "stage nas-guests", "78 s", "it has the tag nas"]
    assert table[8:12] == ["router", "container 7", "HA", "60 s"]
    assert "kept for it at any time" in words


def test_what_has_no_number_has_none_to_spare() -> None:
    ha = ("HA works 1 guest (104)", "shutdown_policy is migrate")
    fails = Page(picture.html(make_plan(MACHINES, [UPS], TIMING, [STAGE], Proxmox(ha=ha, migrates=True))))
    place = fails.words.index("HA")
    assert fails.words[place - 1 : place + 3] == [
        "fails", "HA", "HA works 1 guest (104); shutdown_policy is migrate",
        "Set shutdown_policy to freeze: Datacenter, Options, HA Settings",
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
def test_names_are_escaped(name: str) -> None:
    machines = (Machine(name, "primary", "pve"), Machine(name + "2", "secondary", "linux"))
    guest = Machine(name + "4", "guest", "qm", guest_id=1)
    found = Proxmox(guests=(PlannedGuest(guest.name, 1, "qm", name, "", 9, name),), ha=(name,))
    one = make_plan(
        (*machines, guest), [Supply(name, mfr=name)], Timing(hostsync=0), [StagePlan(name, runtime=5)], found
    )
    seen = {name: (1.0, 2.0), name + "3": (1.0, None)}
    clean = Page(picture.html(made(), {"truenas": (1.0, 2.0)}))
    page = Page(picture.html(one, seen))
    assert set(page.tags) <= {*clean.tags, "div"}
    assert {key for key, _value in page.attributes} <= {key for key, _value in clean.attributes} | {"fill-opacity"}
    assert drawing(one, seen) is not None
    picture.html(one, seen).encode("utf-8")


@given(st.text(min_size=1, max_size=60))
def test_any_name_makes_a_page(name: str) -> None:
    one = make_plan([Machine(name, "primary", "pve")], [Supply(name)], Timing())
    drawing(one, {name: (3.0, 4.0)})
    assert set(Page(picture.html(one)).tags) <= set(Page(picture.html(made())).tags) | {"div"}


def test_a_long_name_is_cut_short_and_told_in_full() -> None:
    name = "a-very-long-name-of-a-machine-in-the-rack"
    page = picture.svg(make_plan([Machine(name, "primary", "pve")], [UPS], Timing()))
    assert f"<title>{name}</title>" in page
    assert ">a-very-long-name-of-a-ma\u2026<" in page


# --- the timeline


def test_a_bar_is_where_its_time_is() -> None:
    one = made()
    at = picture.scale(one)
    root = drawing(one)
    goes = starting(root, "truenas goes down")
    (event,) = (each for each in one.events if (each.machine, each.what) == ("truenas", GOES))
    assert goes["x"] == pytest.approx(at.x(event.at), abs=0.1)
    assert goes["x"] + goes["width"] == pytest.approx(at.x(event.until), abs=0.1)
    gate = starting(root, f"pve {GATE}")
    assert gate["x"] + gate["width"] == pytest.approx(at.x(one.at(POWEROFF) or 0), abs=0.1)
    assert starting(root, "truenas runs until")["x"] == pytest.approx(at.x(at.first))
    # the limit, around it
    limit = starting(root, "truenas may take until 1:45")
    assert limit["x"] == pytest.approx(goes["x"], abs=0.1)
    assert limit["x"] + limit["width"] == pytest.approx(at.x(105), abs=0.1)
    assert limit["y"] < goes["y"]
    assert limit["y"] + limit["height"] > goes["y"] + goes["height"]
    feeds = starting(root, "ups feeds all")
    assert feeds["x"] + feeds["width"] == pytest.approx(at.x(one.at(CUT, "ups") or 0), abs=0.1)


def test_the_rows_are_in_the_order_in_which_they_are_down() -> None:
    places = bars(drawing(made()))
    rows = [
        next(place["y"] for said, place in places.items() if said.startswith(start))
        for start in ("ups feeds", "media goes", "docker goes", "truenas goes", "router goes", "pve stops")
    ]
    assert rows == sorted(rows)
    assert len(set(rows)) == len(rows)


def test_nothing_leaves_the_drawing() -> None:
    one = made()
    for seen in (None, {"truenas": (8.0, 2000.0), "ghost": (-500.0, None), "pve": (None, 9.0), "docker": (None, None)}):
        root = drawing(one, seen)
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for drawn in root.iter("rect"):
            assert float(drawn.attrib["x"]) >= 0
            assert float(drawn.attrib["width"]) > 0
            assert float(drawn.attrib["x"]) + float(drawn.attrib["width"]) <= width
            assert float(drawn.attrib["y"]) + float(drawn.attrib["height"]) <= height
        for line in root.iter("line"):
            assert all(0 <= float(line.attrib[name]) <= width for name in ("x1", "x2"))
        for words in root.iter("text"):
            assert float(words.attrib["y"]) <= height


@given(st.lists(st.tuples(st.floats(-50, 300), st.integers(1, 30)), max_size=12))
def test_no_label_covers_another(drawn: list[tuple[float, int]]) -> None:
    at = picture.Scale(-100, 300)
    found = picture.lanes([picture.Moment(when, "x" * length) for when, length in drawn], at)
    assert len(found) == len(drawn)
    for place, (one, x, lane) in enumerate(found):
        assert x >= picture.GUTTER
        assert x + one.width <= picture.WIDTH
        for other, its_x, its_lane in found[:place]:
            assert lane != its_lane or x >= its_x + other.width or its_x >= x + one.width


def test_the_moments_of_all() -> None:
    words = [each.text for each in drawing(made()).iter("text")]
    for label in ("trigger 0:00", "FSD 0:03", "power off 1:14", "UPS cuts 2:49"):
        assert label in words
    assert "latest power off 2:12" in words
    assert "latest UPS cuts 5:22" in words
    looks = {each.text: each.attrib.get("class") for each in drawing(made()).iter("text")}
    assert looks["power off 1:14"] != looks["latest power off 2:12"]
    two = drawing(made(ups=(UPS, Supply("second", 1500, 480, ignorelb=True, offdelay=40, ondelay=60))))
    assert "UPS cuts (second) 2:59" in [each.text for each in two.iter("text")]


def test_an_empty_battery_is_drawn_where_it_is_near() -> None:
    short = made(ups=(Supply(runtime=900, runtime_low=250, offdelay=30, ondelay=60, ignorelb=True),))
    assert "battery empty" in [each.text for each in drawing(short).iter("text")]
    assert "battery empty" not in [each.text for each in drawing(made()).iter("text")]


def test_a_stage_long_before_the_trigger_does_not_squeeze_the_rest() -> None:
    stage = StagePlan("early", on_battery=10, guests=("media",))
    one = make_plan(MACHINES, [Supply(runtime=20_000, runtime_low=480, ignorelb=True)], TIMING, [stage])
    at = picture.scale(one)
    assert at.first > -at.last
    assert "media goes down" not in " ".join(bars(drawing(one)))
    assert any((each.text or "").startswith("down at \u22125:") for each in drawing(one).iter("text"))


def test_clock() -> None:
    assert [picture.clock(each) for each in (0, 9.4, 59.5, 74, 3599.4, 3600, -25, -0.2)] == [
        "0:00", "0:09", "1:00", "1:14", "59:59", "1:00:00", "\u22120:25", "0:00",
    ]  # fmt: skip


@given(st.floats(-5000, 0), st.floats(10, 200_000))
def test_the_axis_has_some_marks_and_not_too_many(first: float, last: float) -> None:
    marks = picture.Scale(first, last).marks()
    assert 1 <= len(marks) <= picture.MARKS + 1
    assert 0 in marks
    assert all(first <= mark <= last for mark in marks)


# --- what was seen


def test_seen_beside_planned() -> None:
    one = made()
    seen = {"truenas": (8.2, 61.0), "docker": (7.5, None), "pve": (None, 150.0), "router": (None, None), "nas2": (3, 9)}
    at = picture.scale(one, seen)
    root = drawing(one, seen)
    planned, drawn = starting(root, "truenas goes down"), starting(root, "truenas, seen to be down at 1:01")
    assert drawn["x"] == pytest.approx(at.x(8.2), abs=0.1)
    assert drawn["x"] + drawn["width"] == pytest.approx(at.x(61), abs=0.1)
    assert planned["y"] + planned["height"] < drawn["y"] < planned["y"] + picture.ROW_SEEN
    # three lines of words fit into a row
    assert abs(planned["y"] - starting(root, "docker goes down")["y"]) >= 3 * 16 + 8
    endless = starting(root, "docker, not seen to be down")
    assert endless["x"] + endless["width"] == pytest.approx(at.x(at.last), abs=0.1)
    assert not [said for said in bars(root) if said.startswith("router,")]
    assert not [said for said in bars(root) if said.startswith("pve, seen to be down")]
    assert starting(root, "pve, seen to run until 2:30")
    words = ["".join(each.itertext()) for each in root.iter("text")]
    assert "seen down at 1:01" in words
    assert "began at 0:08, not seen down" in words
    assert "not seen" in words
    assert "nas2nas2" in words  # the name, and the same as a title
    assert "not in the plan" in words


def test_what_was_seen_later_than_planned_is_on_the_drawing() -> None:
    assert picture.scale(made(), {"truenas": (8, 2000)}).last > 2000
    assert picture.scale(made(), {"truenas": (-100, None)}).first < -100
    assert "The shutdown, planned and seen" in picture.html(made(), {})
