# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import drawing, picture
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    CUT,
    GOES_DOWN,
    POWEROFF,
    WAITS_GATE,
    PlanMachine,
    StagePlan,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.planner import make_plan
from ansible_collections.homelab.nut.tests.unit.support.drawn import MACHINES, TIMING, UPS, make_example, parse_drawing
from hypothesis import given
from hypothesis import strategies as st


def find_bars(root: ET.Element) -> dict[str, dict[str, float]]:
    """Return tooltip -> place, for all bars."""
    found = {}
    for drawn in root.iter("rect"):
        (title,) = drawn
        found[title.text or ""] = {name: float(drawn.attrib[name]) for name in ("x", "y", "width", "height")}
    return found


def find_bar(root: ET.Element, words: str) -> dict[str, float]:
    (found,) = (place for said, place in find_bars(root).items() if said.startswith(words))
    return found


def test_long_name_is_shortened_and_complete_in_tooltip() -> None:
    name = "a-very-long-name-of-a-machine-in-the-rack"
    page = drawing.draw_timeline(make_plan([PlanMachine(name, "primary", "pve")], [UPS], Timing()))
    assert f"<title>{name}</title>" in page
    assert ">a-very-long-name-of-a-ma\u2026<" in page


def test_bars_match_times_of_events() -> None:
    plan = make_example()
    at = drawing.choose_scale(plan)
    root = parse_drawing(plan)
    goes = find_bar(root, "truenas goes down")
    (event,) = (each for each in plan.events if (each.machine, each.what) == ("truenas", GOES_DOWN))
    assert goes["x"] == pytest.approx(at.to_pixels(event.at), abs=0.1)
    assert goes["x"] + goes["width"] == pytest.approx(at.to_pixels(event.until), abs=0.1)
    gate = find_bar(root, f"pve {WAITS_GATE}")
    assert gate["x"] + gate["width"] == pytest.approx(at.to_pixels(plan.time_of(POWEROFF) or 0), abs=0.1)
    assert find_bar(root, "truenas runs until")["x"] == pytest.approx(at.to_pixels(at.first))
    # the limit is a frame around the bar
    limit = find_bar(root, "truenas may take until 1:45")
    assert limit["x"] == pytest.approx(goes["x"], abs=0.1)
    assert limit["x"] + limit["width"] == pytest.approx(at.to_pixels(105), abs=0.1)
    assert limit["y"] < goes["y"]
    assert limit["y"] + limit["height"] > goes["y"] + goes["height"]
    feeds = find_bar(root, "ups powers all machines")
    assert feeds["x"] + feeds["width"] == pytest.approx(at.to_pixels(plan.time_of(CUT, "ups") or 0), abs=0.1)


def test_rows_are_ordered_by_shutdown() -> None:
    places = find_bars(parse_drawing(make_example()))
    rows = [
        next(place["y"] for said, place in places.items() if said.startswith(start))
        for start in ("ups powers", "media goes", "docker goes", "truenas goes", "router goes", "pve stops")
    ]
    assert rows == sorted(rows)
    assert len(set(rows)) == len(rows)


def test_no_element_leaves_drawing() -> None:
    plan = make_example()
    for seen in (None, {"truenas": (8.0, 2000.0), "ghost": (-500.0, None), "pve": (None, 9.0), "docker": (None, None)}):
        root = parse_drawing(plan, seen)
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
def test_labels_do_not_overlap(drawn: list[tuple[float, int]]) -> None:
    at = drawing.TimelineScale(-100, 300)
    found = drawing.choose_lanes([drawing.DrawnMoment(when, "x" * length) for when, length in drawn], at)
    assert len(found) == len(drawn)
    for place, (moment, x, lane) in enumerate(found):
        assert x >= drawing.GUTTER
        assert x + moment.label_width <= drawing.WIDTH
        for other, its_x, its_lane in found[:place]:
            assert lane != its_lane or x >= its_x + other.label_width or its_x >= x + moment.label_width


def test_moments_are_labelled() -> None:
    words = [each.text for each in parse_drawing(make_example()).iter("text")]
    for label in ("trigger 0:00", "FSD 0:03", "power off 1:14", "UPS cuts 2:49"):
        assert label in words
    assert "latest power off 2:12" in words
    without_stage = parse_drawing(make_example(MACHINES[:3]))
    assert "battery low 0:00" in [each.text for each in without_stage.iter("text")]
    assert "latest UPS cuts 5:22" in words
    looks = {each.text: each.attrib.get("class") for each in parse_drawing(make_example()).iter("text")}
    assert looks["power off 1:14"] != looks["latest power off 2:12"]
    two = parse_drawing(make_example(ups=(UPS, Supply("second", 1500, 480, ignorelb=True, offdelay=40, ondelay=60))))
    assert "UPS cuts (second) 2:59" in [each.text for each in two.iter("text")]


def test_empty_battery_is_drawn_if_near() -> None:
    short = make_example(ups=(Supply(runtime=900, runtime_low=250, offdelay=30, ondelay=60, ignorelb=True),))
    assert "battery empty" in [each.text for each in parse_drawing(short).iter("text")]
    assert "battery empty" not in [each.text for each in parse_drawing(make_example()).iter("text")]


def test_early_stage_does_not_squeeze_drawing() -> None:
    stage = StagePlan("early", on_battery=10, guests=("media",))
    plan = make_plan(MACHINES, [Supply(runtime=20_000, runtime_low=480, ignorelb=True)], TIMING, [stage])
    at = drawing.choose_scale(plan)
    assert at.first > -at.last
    assert "media goes down" not in " ".join(find_bars(parse_drawing(plan)))
    assert any((each.text or "").startswith("down at \u22125:") for each in parse_drawing(plan).iter("text"))


def test_clock_shows_minutes_and_hours() -> None:
    assert [drawing.spell_clock(each) for each in (0, 9.4, 59.5, 74, 3599.4, 3600, -25, -0.2)] == [
        "0:00", "0:09", "1:00", "1:14", "59:59", "1:00:00", "\u22120:25", "0:00",
    ]  # fmt: skip


@given(st.floats(-5000, 0), st.floats(10, 200_000))
def test_axis_has_few_marks(first: float, last: float) -> None:
    marks = drawing.TimelineScale(first, last).list_marks()
    assert 1 <= len(marks) <= drawing.MAX_MARKS + 1
    assert 0 in marks
    assert all(first <= mark <= last for mark in marks)


def test_measured_times_are_drawn_below_planned_ones() -> None:
    plan = make_example()
    seen = {"truenas": (8.2, 61.0), "docker": (7.5, None), "pve": (None, 150.0), "router": (None, None), "nas2": (3, 9)}
    at = drawing.choose_scale(plan, seen)
    root = parse_drawing(plan, seen)
    planned, drawn = find_bar(root, "truenas goes down"), find_bar(root, "truenas was down at 1:01 (measured)")
    assert drawn["x"] == pytest.approx(at.to_pixels(8.2), abs=0.1)
    assert drawn["x"] + drawn["width"] == pytest.approx(at.to_pixels(61), abs=0.1)
    assert planned["y"] + planned["height"] < drawn["y"] < planned["y"] + drawing.ROW_SEEN
    # a row has room for three lines of text
    assert abs(planned["y"] - find_bar(root, "docker goes down")["y"]) >= 3 * 16 + 8
    endless = find_bar(root, "docker was never down (measured)")
    assert endless["x"] + endless["width"] == pytest.approx(at.to_pixels(at.last), abs=0.1)
    assert not [said for said in find_bars(root) if said.startswith("router ran")]
    assert not [said for said in find_bars(root) if said.startswith("pve was down")]
    assert find_bar(root, "pve ran until 2:30 (measured)")
    words = ["".join(each.itertext()) for each in root.iter("text")]
    assert "measured: down at 1:01" in words
    assert "began 0:08, never down" in words
    assert "not measured" in words
    assert "nas2nas2" in words  # the name, and the same as a title
    assert "not in the plan" in words


def test_late_measured_times_extend_drawing() -> None:
    assert drawing.choose_scale(make_example(), {"truenas": (8, 2000)}).last > 2000
    assert drawing.choose_scale(make_example(), {"truenas": (-100, None)}).first < -100
    assert "Shutdown of pve: planned and measured" in picture.draw_page(make_example(), {})
