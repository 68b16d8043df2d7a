# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import returns
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import ReturnPolicy
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.returns import (
    ReturnResult,
    ReturnState,
    ReturnView,
    decide_return,
)

if TYPE_CHECKING:
    from pathlib import Path

BOTH = frozenset({"media", "nas"})
WALL = 1_800_000_000.0


class Course:
    """A course of events, with a look every 5 s."""

    def __init__(self, limit: float = 600) -> None:
        self.policy = ReturnPolicy(limit=limit)
        self.state = ReturnState(boot="a")
        self.now = 1000.0
        self.woken: list[tuple[float, str]] = []
        self.results: list[ReturnResult] = []

    def see(self, seconds: float, logged_in: frozenset[str] | None = BOTH, **seen: object) -> None:
        """Let time pass with this view."""
        view = ReturnView(**{"is_outage": False, "since": 2000.0, "logged_in": logged_in, **seen})  # type: ignore[arg-type]
        until = self.now + seconds
        while self.now < until:
            decision = decide_return(self.state, self.now, WALL + self.now, view, self.policy)
            self.state = decision.state
            for name in decision.wake:
                self.woken.append((self.now - view.since, name))
                self.state = returns.note_woken(self.state, name)
            if decision.has_ended:
                assert self.state.result
                self.results.append(self.state.result)
            self.now += 5


@pytest.fixture
def course() -> Course:
    made = Course()
    made.see(60)
    return made


def put_out(course: Course, logged_in: frozenset[str] | None = BOTH) -> None:
    """Let an outage pass; the mains are back at 2000, and stable at 2030."""
    course.see(2030 - course.now, logged_in, is_outage=True)


def test_machine_that_stays_off_is_woken_until_it_logs_in(course: Course) -> None:
    put_out(course)
    course.see(150, frozenset({"media"}))
    assert [name for _at, name in course.woken] == ["nas"] * 3
    times = [at for at, _name in course.woken]
    assert [second - first for first, second in zip(times, times[1:])] == [60, 60]
    assert course.results == []
    course.see(60, BOTH)
    (result,) = course.results
    assert (result.seconds, result.missing, result.woken) == (180, (), {"nas": 3})
    assert returns.spell_result(result) == "all back after 3 min (woken: nas 3 times)"
    assert course.state.since is None


def test_short_outage_in_which_nobody_went_away_is_not_mentioned(course: Course) -> None:
    put_out(course)
    course.see(300)
    assert (course.woken, course.results, course.state.result) == ([], [], None)
    assert course.state.expected == ("media", "nas")


def test_machine_that_vanished_without_a_word_is_woken_when_upsd_has_noticed(course: Course) -> None:
    put_out(course)
    course.see(25)  # upsd still lists it
    course.see(100, frozenset({"media"}))
    assert [at for at, _name in course.woken] == [55, 115]
    course.see(10)
    assert [(result.missing, result.woken) for result in course.results] == [((), {"nas": 2})]


def test_machine_that_goes_away_again_before_all_are_back_is_awaited(course: Course) -> None:
    put_out(course)
    course.see(100, frozenset({"media"}))
    course.see(10, frozenset({"nas"}))
    assert (course.state.missing, course.results) == (("media",), [])


def test_machine_that_was_off_before_the_outage_stays_off() -> None:
    course = Course()
    course.see(60, BOTH)
    course.see(60, frozenset({"media"}))  # the user has shut the NAS down
    put_out(course, frozenset({"media"}))
    course.see(300, frozenset({"media"}))
    assert (course.woken, course.results) == ([], [])


def test_machine_that_logged_in_during_the_outage_is_awaited() -> None:
    course = Course()
    course.see(60, frozenset())
    put_out(course, frozenset({"nas"}))
    course.see(10, frozenset())
    assert [name for _at, name in course.woken] == ["nas"]


def test_limit_ends_it_and_a_machine_that_comes_later_is_missing_no_more(course: Course) -> None:
    put_out(course)
    course.see(700, frozenset())
    (result,) = course.results
    assert result.missing == ("media", "nas")
    assert (result.seconds, result.woken) == (630, {"media": 10, "nas": 10})
    assert returns.spell_result(result) == "not back after 10 min 30 s: media (woken 10 times); nas (woken 10 times)"
    count = len(course.woken)
    course.see(600, frozenset({"nas"}))
    assert len(course.woken) == count
    assert course.state.result
    assert course.state.result.missing == ("media",)


def test_nobody_is_woken_while_upsd_gives_no_answer(course: Course) -> None:
    put_out(course, None)
    course.see(300, None)
    assert course.woken == []
    course.see(10, frozenset())
    assert {name for _at, name in course.woken} == BOTH


def test_second_outage_begins_everything_again(course: Course) -> None:
    put_out(course)
    course.see(100, frozenset({"media"}))
    count = len(course.woken)
    course.see(400, frozenset(), is_outage=True)
    assert len(course.woken) == count
    assert course.state.expected == ("media", "nas")
    course.see(590, frozenset(), since=2500.0)
    assert course.results == []  # the limit counts from the second return
    assert {name for at, name in course.woken[count:]} == BOTH
    course.see(60, frozenset(), since=2500.0)
    assert [result.missing for result in course.results] == [("media", "nas")]


def test_nobody_is_woken_while_the_start_is_held_back(course: Course) -> None:
    put_out(course)
    course.see(3000, frozenset({"media"}), hold="the battery has 10 %")
    assert (course.woken, course.results) == ([], [])
    course.see(595, frozenset({"media"}))
    assert len(course.woken) == 10
    assert course.results == []
    course.see(20, frozenset({"media"}))
    assert [result.missing for result in course.results] == [("nas",)]


def test_guests_are_awaited_too(course: Course) -> None:
    put_out(course)
    course.see(100, guests=("VM 101: storage nas is not online",))
    assert course.results == []
    course.see(20)
    assert [returns.spell_result(result) for result in course.results] == ["all back after 2 min 10 s"]


def test_guests_that_never_start_are_named(course: Course) -> None:
    put_out(course)
    course.see(700, guests=("VM 101: storage nas is not online",))
    assert [returns.spell_result(result) for result in course.results] == [
        "not back after 10 min 30 s: VM 101: storage nas is not online"
    ]
    course.see(10)
    assert course.state.result
    assert course.state.result.guests == ()


@pytest.mark.parametrize("is_open", [False, True], ids=["in the outage", "in the return"])
def test_return_goes_on_after_a_boot(course: Course, is_open: bool) -> None:
    put_out(course)
    if is_open:
        course.see(20, frozenset())
    course.woken.clear()
    course.state = course.state.after_boot("b")
    course.see(30, None, is_outage=None)  # upsd has not started yet
    assert (course.woken, course.state.since) == ([], None)
    course.see(30, frozenset({"media"}), since=2040.0)
    course.see(20, since=2040.0)
    assert [name for _at, name in course.woken] == ["nas"]
    assert [result.missing for result in course.results] == [()]


def test_everybody_is_back_after_a_boot_is_told(course: Course) -> None:
    put_out(course)
    course.state = course.state.after_boot("b")
    course.see(10, since=2000.0)
    assert len(course.results) == 1


def test_boot_without_an_outage_wakes_nobody(course: Course) -> None:
    course.state = course.state.after_boot("b")
    course.see(100, frozenset())
    assert (course.woken, course.results) == ([], [])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (370, "6 min 10 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (7290, "2 h 1 min"),
    ],
)
def test_duration_in_words(seconds: float, words: str) -> None:
    assert returns.spell_duration(seconds) == words


# The state in its file, and what the status says


def describe(folder: Path, state: ReturnState | None, boot: str = "a") -> tuple[str, ...]:
    path = folder / "return.json"
    if state:
        path.write_text(records.dump_record(state, returns.VERSION))
        assert records.read_record(ReturnState, path, returns.VERSION) == state
    return returns.describe_return(path, boot, 2100.0)


def test_status_without_a_return(tmp_path: Path) -> None:
    assert describe(tmp_path, None) == ()
    assert describe(tmp_path, ReturnState(boot="a", expected=("nas",))) == ()
    (tmp_path / "return.json").write_text("{")
    assert describe(tmp_path, None) == ()


def test_status_of_a_return(tmp_path: Path) -> None:
    waiting = ReturnState("a", ("media", "nas"), since=2000.0, back={"media": 40.0}, woken={"nas": 1})
    assert describe(tmp_path, waiting) == ("waiting for nas (woken once), for 1 min 40 s",)
    assert describe(tmp_path, waiting, "b") == ()
    # the result of the outage before is not that of this one
    guests = replace(waiting, back={"media": 40.0, "nas": 60.0}, result=ReturnResult(WALL, 370.0))
    assert describe(tmp_path, guests) == ("waiting until all are back, for 1 min 40 s",)
    assert describe(tmp_path, guests, "b") == ()
    over = ReturnState("a", result=ReturnResult(WALL, 370.0))
    (line,) = describe(tmp_path, over)
    assert line.startswith("all back after 6 min 10 s (2027-01-1")
    assert describe(tmp_path, over, "b") == (line,)
    assert describe(tmp_path, replace(over, is_out=True)) == ()


def test_status_has_no_control_characters(tmp_path: Path) -> None:
    hostile = ReturnState("a", result=ReturnResult(WALL, 1.0, ("na\x1b[2Js",)))
    assert "\x1b" not in describe(tmp_path, hostile)[0]
