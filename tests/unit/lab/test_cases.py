# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.inventory import find_feeds
from homelab import LabError, cases, house, verdict
from homelab.hosts import SITES
from homelab.verdict import Expectation, Observation, Stop

NAS = Stop("nas", "secondary", 16.0, 24.0, "shutdown")
MEDIA = Stop("media", "secondary", 15.0, 17.0, "shutdown")
PVE = Stop("pve", "primary", 29.0, 33.0, "shutdown")
GATE = {"rule": "down", "steps": [[0.0, "the gate begins"], [6.0, "the gate ends"]]}
GOOD = Observation("pve", ("nas", "media"), (MEDIA, NAS, PVE), cuts=(53.0,), gate=GATE, events=((6.0, "battery low"),))
QUIET = Observation("pve", ("nas", "media"))


def drop_stop(fall: Stop) -> Observation:
    return replace(GOOD, stops=tuple(stop for stop in GOOD.stops if stop != fall))


def change_stop(old: Stop, **what: Any) -> Observation:
    return replace(GOOD, stops=tuple(replace(stop, **what) if stop == old else stop for stop in GOOD.stops))


LATE = "nas was not down when pve began to power off, 1.0 s too late"
LOST = "nas lost its power while it ran"
SLOW = "pve began 5.0 s after the last secondary was down; at most 4.9 s are allowed"
NO_CUT = "the UPS did not cut its outlets, so nothing starts when the mains return"

VERDICTS: dict[str, tuple[Expectation, Observation, list[str]]] = {
    "a cycle": (Expectation(), GOOD, []),
    "a cycle, in any order of the list": (Expectation(), replace(GOOD, stops=(PVE, NAS, MEDIA)), []),
    "a cycle where nothing was to be": (
        Expectation("stays"), GOOD, ["media went down", "nas went down", "pve went down"],
    ),
    "either: a cycle": (Expectation("either"), GOOD, []),
    "either: nothing": (Expectation("either", rules=()), QUIET, []),
    "nothing": (Expectation("stays"), QUIET, []),
    "nothing where a cycle was to be": (
        Expectation(), QUIET, ["pve did not go down", "nas did not go down", "media did not go down", "pve did not begin a shutdown"],
    ),
    "the UPS cuts those that stay": (Expectation("stays"), replace(QUIET, cuts=(9.0,)), ["the UPS cut its outlets"]),
    "one stays off": (
        Expectation("stays"),
        replace(QUIET, stops=(NAS,), stayed_off=("nas",)),
        ["nas stayed off, and nothing would have started it", "nas went down"],
    ),
    "either: one stays off": (
        Expectation("either", rules=(), max_wait=None),
        replace(QUIET, stops=(NAS,), stayed_off=("nas",)),
        [
            "nas stayed off, and nothing would have started it",
            "pve did not go down",
            "media did not go down",
            "pve did not begin a shutdown",
        ],
    ),
    "secondaries: they alone": (Expectation("secondaries"), drop_stop(PVE), []),
    "secondaries: the primary, too": (Expectation("secondaries"), GOOD, ["pve went down"]),
    "secondaries: one of them": (
        Expectation("secondaries"), replace(QUIET, stops=(NAS,)), ["media did not go down"],
    ),
    "secondaries: one loses its power": (
        Expectation("secondaries"), replace(QUIET, stops=(MEDIA, replace(NAS, how="lost"))), [LOST],
    ),
    "a secondary too late": (Expectation(max_wait=None), change_stop(NAS, down=30.0), [LATE]),
    "a secondary in the same moment": (
        Expectation(max_wait=None), change_stop(NAS, down=29.0), ["nas was not down when pve began to power off, 0.0 s too late"],
    ),
    "a secondary that may be late": (Expectation(late=("nas",), max_wait=None), change_stop(NAS, down=30.0), []),
    "another one may be late": (Expectation(late=("media",), max_wait=None), change_stop(NAS, down=30.0), [LATE]),
    "a secondary never down": (Expectation(max_wait=None), drop_stop(NAS), ["nas did not go down"]),
    "a secondary may be late, but not stay": (Expectation(late=("nas",), max_wait=None), drop_stop(NAS), ["nas did not go down"]),
    "power lost": (
        Expectation(max_wait=None),
        change_stop(NAS, down=53.0, how="lost"),
        [LOST, "nas was not down when pve began to power off, 24.0 s too late"],
    ),
    "power lost, as it may": (Expectation(late=("nas",), lost=("nas",), max_wait=None), change_stop(NAS, down=53.0, how="lost"), []),
    "power lost before its turn, as it may": (Expectation(lost=("nas",), max_wait=None), change_stop(NAS, how="lost"), []),
    "late is not lost": (Expectation(late=("nas",), max_wait=None), change_stop(NAS, down=53.0, how="lost"), [LOST]),
    "stopped": (Expectation(max_wait=None), change_stop(NAS, how="stopped"), ["nas stopped without a shutdown"]),
    "a plug that was pulled is no fall": (Expectation("stays"), replace(QUIET, stops=(replace(NAS, how="pulled"),)), []),
    "a plug that was pulled is down": (Expectation(max_wait=None), change_stop(NAS, how="pulled"), []),
    "a reboot is no fall": (Expectation("stays"), replace(QUIET, stops=(replace(PVE, how="reboot"),)), []),
    "a reboot is not the end": (
        Expectation(max_wait=None), change_stop(NAS, how="reboot"), ["nas did not go down"],
    ),
    "a reboot before it": (Expectation(), replace(GOOD, stops=(Stop("pve", "primary", 3.0, 5.0, "reboot"), *GOOD.stops)), []),
    "the primary's plug was pulled, and that was all": (
        Expectation(), change_stop(PVE, how="pulled"), ["pve did not begin a shutdown"],
    ),
    "no begin": (Expectation(), change_stop(PVE, began=None), ["pve did not begin a shutdown"]),
    "no cut": (Expectation(), replace(GOOD, cuts=()), [NO_CUT]),
    "a cut before the end": (Expectation(), replace(GOOD, cuts=(32.9,)), [NO_CUT]),
    "a cut before, and one after": (Expectation(), replace(GOOD, cuts=(3.0, 40.0)), []),
    "the wrong rule": (Expectation(rules=("limit",)), GOOD, ["the gate ended by the rule down, not limit"]),
    "one of the rules": (Expectation(rules=("limit", "down")), GOOD, []),
    "no gate": (
        Expectation(rules=("limit", "down")), replace(GOOD, gate=None), ["the gate ended by the rule None, not limit or down"],
    ),
    "no gate, and none is needed": (Expectation(rules=()), replace(GOOD, gate=None), []),
    "too slow": (Expectation(max_wait=4.9), GOOD, [SLOW]),
    "just in time": (Expectation(max_wait=5.0), GOOD, []),
    "slow on a busy machine": (Expectation(max_wait=2.0), replace(GOOD, load=2.0), []),
    "too slow even on a busy machine": (
        Expectation(max_wait=1.9), replace(GOOD, load=2.0), [SLOW],
    ),
    "an idle machine does no harm": (Expectation(max_wait=5.0), replace(GOOD, load=0.1), []),
    "a fault": (Expectation(), replace(GOOD, faults=("the gate is left over",)), ["the gate is left over"]),
    "a fault, although no machine went down": (Expectation("stays"), replace(QUIET, faults=("x",)), ["x"]),
    "also": (Expectation(checks=(lambda seen: [f"also {seen.primary}"],)), GOOD, ["also pve"]),
}  # fmt: skip


@pytest.mark.parametrize(("want", "seen", "wrong"), VERDICTS.values(), ids=VERDICTS.keys())
def test_verdict_lists_every_problem(want: Expectation, seen: Observation, wrong: list[str]) -> None:
    assert verdict.judge_case(want, seen) == wrong


def test_wait_is_measured_from_last_secondary_to_primary() -> None:
    assert verdict.measure_wait(GOOD) == 5.0
    assert verdict.measure_wait(change_stop(MEDIA, down=28.0)) == 1.0
    assert verdict.measure_wait(drop_stop(PVE)) is None
    assert verdict.measure_wait(replace(GOOD, stops=(PVE,))) is None
    assert verdict.measure_wait(change_stop(PVE, began=None)) is None


def test_last_stop_ignores_reboots() -> None:
    again = replace(NAS, down=99.0)
    assert replace(GOOD, stops=(NAS, again, replace(NAS, how="reboot"))).last_stop("nas") == again
    assert GOOD.last_stop("nobody") is None


@pytest.mark.parametrize(("seconds", "wrong"), [(8, []), (8.1, ["nas did not take 8.1 s to go down"])])
def test_nas_that_is_too_quick_is_a_problem(seconds: float, wrong: list[str]) -> None:
    assert verdict.nas_takes(seconds)(GOOD) == wrong


def test_nas_takes_fails_without_a_shutdown() -> None:
    assert verdict.nas_takes(1)(QUIET) == ["nas did not take 1 s to go down"]
    assert verdict.nas_takes(1)(change_stop(NAS, began=None)) == ["nas did not take 1 s to go down"]


def test_late_primary_is_a_problem() -> None:
    wrong = "pve did not begin to power off within {} s"
    assert verdict.primary_within(23)(GOOD) == []
    assert verdict.primary_within(22.9)(GOOD) == [wrong.format(22.9)]
    assert verdict.primary_within(19)(replace(GOOD, events=((10.0, "FSD"), (12.0, "battery low")))) == []
    assert verdict.primary_within(99)(replace(GOOD, events=())) == [wrong.format(99)]
    assert verdict.primary_within(99)(drop_stop(PVE)) == [wrong.format(99)]
    assert verdict.primary_within(99)(change_stop(PVE, began=None)) == [wrong.format(99)]


def test_shutdown_begins_within_its_limit() -> None:
    assert verdict.begins_within(9)(GOOD) == []
    assert verdict.begins_within(8.9)(GOOD) == [
        "the shutdown began 9.0 s after the battery was low, not between 0 and 8.9 s"
    ]
    two = replace(GOOD, events=((3.0, "second: battery low"), (20.0, "ups: battery low")))
    assert verdict.begins_within(12, "second: battery low")(two) == []
    assert verdict.begins_within(12, "ups: battery low")(two) == [
        'the shutdown began -5.0 s after "ups: battery low", not between 0 and 12 s'
    ]
    assert verdict.begins_within(12)(two) == [
        "the shutdown began None s after the battery was low, not between 0 and 12 s"
    ]


GUESTS = ((7.0, 101, "told"), (9.0, 101, "down"), (11.0, 201, "killed"), (30.0, 102, "down"), (34.0, 103, "down"))


def test_guests_go_down_before_the_nas() -> None:
    seen = replace(GOOD, guests=GUESTS)
    late = "guest {} was not down before nas began to go down"
    assert verdict.guests_first(101, 201)(seen) == []
    assert verdict.guests_first(101, 102, 999)(seen) == [late.format(102), late.format(999)]
    assert verdict.guests_first(101)(replace(drop_stop(NAS), guests=GUESTS)) == [late.format(101)]
    assert verdict.guests_first(101)(replace(GOOD, guests=((16.0, 101, "down"),))) == [late.format(101)]


def test_guests_shut_down_cleanly() -> None:
    seen = replace(GOOD, guests=GUESTS)
    assert verdict.guests_ended(101, 102)(seen) == []
    assert verdict.guests_ended(201, 103)(seen) == [
        "guest 201 did not shut down cleanly",
        "guest 103 did not shut down cleanly",
    ]
    assert verdict.guests_ended(101)(replace(drop_stop(PVE), guests=GUESTS)) == ["guest 101 did not shut down cleanly"]


def test_guests_shut_down_cleanly_whenever_the_primary_goes_down() -> None:
    def ended(*events: tuple[float, int, str], **what: Any) -> list[str]:
        return verdict.guests_clean(101, **what)(replace(GOOD, guests=events))

    down = PVE.down
    good = ((0.0, 101, "started"), (7.0, 101, "told"), (9.0, 101, "down"))
    assert ended(*good) == []
    assert ended(*good, (down + 9, 101, "started")) == []
    assert ended((0.0, 101, "started"), (9.0, 101, "killed")) == [
        "guest 101 did not shut down cleanly 1 times: started, killed"
    ]
    assert ended() == ["guest 101 did not shut down cleanly 1 times: no events"]
    assert ended(*good, times=2) == ["guest 101 did not shut down cleanly 2 times: started, told, down"]
    assert ended(*good, (10.0, 101, "started")) == ["guest 101 was running when pve went down"]
    assert ended(*good, (10.0, 101, "started"), (12.0, 101, "told")) == ["guest 101 was running when pve went down"]
    assert PVE.began is not None
    assert ended(*good, (PVE.began + 1, 102, "started")) == ["guest 102 was started while pve went down"]


def test_guests_are_back_after_the_power_cut() -> None:
    seen = replace(GOOD, guests=((0.0, 101, "started"), (PVE.down + 9, 102, "started"), (PVE.down + 9, 201, "told")))
    assert verdict.guests_back(102)(seen) == []
    assert verdict.guests_back(101, 201)(seen) == [f"guest {number} was not started again" for number in (101, 201)]


def test_reset_of_a_machine_is_a_problem_even_if_it_may_stay() -> None:
    reset = Stop("pve", "primary", None, 5.0, "reset")
    wrong = "pve was reset by its watchdog"
    assert verdict.judge_case(Expectation("either", rules=()), replace(QUIET, stops=(reset,))) == [wrong]
    assert verdict.judge_case(Expectation(), replace(GOOD, stops=(reset, *GOOD.stops))) == [wrong]


def test_stopped_guests_are_started_again() -> None:
    done = (
        (0.0, 101, "started"),
        (7.0, 101, "told"),
        (9.0, 101, "down"),
        (30.0, 101, "started"),
        (0.0, 201, "started"),
    )
    seen = replace(QUIET, guests=done)
    assert verdict.guests_again(101)(seen) == []
    assert verdict.guests_again(201, 102)(seen) == [
        "guest 201 was not stopped and started again: started",
        "guest 102 was not stopped and started again: no events",
    ]


@pytest.mark.parametrize(
    ("second_ups", "outlets", "primary", "secondary"),
    [
        ("", {1: True}, True, True),
        ("", {1: False}, False, False),
        ("spare", {1: True, 2: False}, True, True),
        ("spare", {1: False, 2: True}, True, False),
        ("spare", {1: False, 2: False}, False, False),
        ("needed", {1: True, 2: False}, False, True),
        ("needed", {1: False, 2: True}, False, False),
        ("needed", {1: True, 2: True}, True, True),
        ("router", {1: True, 2: False}, True, True),
        ("router", {1: False, 2: True}, False, False),
    ],
)
def test_power_of_a_machine_follows_its_outlets(
    second_ups: str, outlets: dict[int, bool], primary: bool, secondary: bool
) -> None:
    assert house.has_power(True, second_ups, outlets) is primary
    assert house.has_power(False, second_ups, outlets) is secondary


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (("", "-", "-"), ("OL CHRG", "-", "-"), []),
        (("OL", "-", "-"), ("OB LB", "-", "-"), []),
        (("OB LB", "-", "-"), ("FSD OB LB", "-", "-"), ["FSD"]),
        (("FSD OB LB", "-", "-"), ("FSD OB LB", "flag", "-"), ["POWERDOWNFLAG"]),
        (("FSD OB LB", "flag", "-"), ("none", "flag", "gate"), ["upsd says nothing", "the gate begins"]),
        (("none", "flag", "gate"), ("OL", "-", "gate"), ["upsd says OL", "POWERDOWNFLAG removed"]),
        (("none", "-", "-"), ("none", "-", "-"), []),
        (("", "-", "-"), ("none", "-", "-"), []),
        (("none", "-", "-"), ("FSD OB", "-", "-"), ["FSD"]),
    ],
)
def test_changes_of_a_report_are_described(
    old: tuple[str, str, str], new: tuple[str, str, str], words: list[str]
) -> None:
    assert house.describe_changes(old, new) == words


def test_events_are_described_in_order() -> None:
    events = (
        (6.0, "battery low"),
        (0.0, "mains off"),
        (22.6, "the gate begins"),
        (15.0, "POWERDOWNFLAG"),
        (24.0, "nas is down"),
    )
    assert verdict.describe_events(replace(GOOD, events=events)) == (
        "0 mains off; 6 battery low; 23 the gate begins; 24 nas is down; 29 the gate ends (down)"
    )
    assert verdict.describe_events(replace(GOOD, events=events[:2])) == "0 mains off; 6 battery low"
    assert verdict.describe_events(replace(GOOD, events=events, gate=None)).endswith("24 nas is down")


def make_row(**what: Any) -> dict[str, Any]:
    return {"case": "nas-5", "site": "pve8", "words": "a | b", "happened": "0 mains\noff", "problems": [], **what}


def test_table_has_a_row_per_case_and_site() -> None:
    lines = cases.format_markdown([make_row(), make_row(site="pve9", problems=["late", "lost"])]).splitlines()
    assert lines[2] == "| `nas-5` | a / b | 2.8.0 | 0 mains off | held |"
    assert lines[3] == "| `nas-5` | a / b | 2.8.1 | 0 mains off | **FAILED**: late; lost |"
    assert {line.count("|") for line in lines} == {6}


def test_cases_are_chosen_by_name_and_site() -> None:
    names = {
        site: [case.name for case in found] for site, found in cases.choose_cases([], ["pve8", "pve9"], False).items()
    }
    assert "nas-5" in names["pve8"]
    assert "nas-5" in names["pve9"]
    assert "nas-60" not in names["pve8"]
    assert set(names["pve8"]) | set(names["pve9"]) == {case.name for case in cases.CASES}
    quick = cases.choose_cases([], ["pve8"], True)["pve8"]
    assert quick
    assert all(case.ci_site == "pve8" for case in quick)
    # what needs another deployment comes last
    assert [bool(case.variables) for case in quick] == sorted(bool(case.variables) for case in quick)
    assert quick[-1].variables
    # whoever names one means it, with or without --ci
    slow = next(case for case in cases.CASES if not case.ci_site and case.sites == ("pve8",))
    assert cases.choose_cases([slow.name], ["pve8"], True) == {"pve8": [slow]}
    assert cases.choose_cases([slow.name], ["pve9"], False) == {"pve9": []}
    with pytest.raises(LabError, match="no case nonsense"):
        cases.choose_cases(["nonsense", "nas-5"], ["pve8"], False)


def test_each_case_has_a_unique_name_and_valid_settings() -> None:
    names = [case.name for case in cases.CASES]
    assert len(names) == len(set(names))
    for case in cases.CASES:
        assert re.fullmatch(r"[a-z0-9-]+", case.name)
        assert case.steps
        assert case.sites
        assert set(case.sites) <= set(cases.RELEASES) <= set(SITES)
        assert case.ci_site in ("", *case.sites)
        assert case.expected.ends in ("stays", "cycle", "either", "secondaries")
        assert case.second_ups in ("", "spare", "needed", "router")
        assert set(case.expected.rules) <= {"down", "assumed", "limit", "battery", "timeout"}
        assert {*case.expected.late, *case.expected.lost} <= {"nas", "media"}


def test_cases_with_two_upses_agree_with_the_wires() -> None:
    """What the variables say of the primary's power supplies, and how the lab powers it."""
    two = [case for case in cases.CASES if case.second_ups]
    assert {case.second_ups for case in two} == {"spare", "needed", "router"}
    for case in two:
        assert case.variables
        feeds = find_feeds(
            "pve", case.variables["nut_server_devices"], case.variables["nut_server_upsmon_conf"]["MINSUPPLIES"]
        )  # type: ignore[index, arg-type]
        for on in (["ups"], ["second"], ["ups", "second"], []):
            outlets = {port: name in on for port, name in house.UPS_NAMES.items()}
            assert feeds.is_enough(on) == house.has_power(True, case.second_ups, outlets), (case.name, on)
    # both releases play each of them, and every run of the tests one
    assert all(set(case.sites) == set(cases.RELEASES) for case in two)
    assert [case.name for case in two if case.ci_site] == ["two-hangs"]


def test_every_test_run_plays_enough_cases() -> None:
    """At least 25 different ones, as the table is to have; and of what each run of the tests must show."""
    assert len(cases.CASES) >= 25
    always = {(case.name, case.ci_site) for case in cases.CASES if case.ci_site}
    names = {name for name, _site in always}
    assert names >= {"nas-5", "nas-20", "nas-60", "nas-stopped", "nas-hangs-battery", "nas-deaf-exporting"}
    assert names >= {"back-early", "back-hostsync", "back-gate", "back-poweroff", "low-twice"}
    assert names >= {f"upsmon-{phase}" for phase in ("mains", "battery", "fsd", "gate")}
    assert names >= {f"upsd-{phase}" for phase in ("mains", "battery", "fsd", "gate")}
    assert names >= {"primary-reboots", "primary-crashes", "stage"}
    assert names >= {"guests-start-cut", "nas-late", "guests-stuck", "guests-locked"}
    assert names >= {"no-quorum-back", "ha-together", "ha-disarm"}
    assert {site for _name, site in always} == {"pve8", "pve9"}


def test_documented_results_have_the_current_titles() -> None:
    table = Path(cases.__file__).parents[2] / "docs" / "cases.md"
    rows = [line.split(" | ")[:3] for line in table.read_text().splitlines() if line.startswith("| `")]
    wanted = [
        [f"| `{case.name}`", case.title, cases.RELEASES[site]]
        for case in cases.CASES
        for site in cases.RELEASES
        if site in case.sites
    ]
    assert len(rows) >= 90
    assert rows == [row for row in wanted if row in rows]


def test_woken_machines_are_seen() -> None:
    seen = replace(QUIET, events=((5.0, "charged"), (9.0, f"nas{verdict.WOKEN}")), guests=((7.0, 102, "started"),))
    assert verdict.woken("nas")(seen) == []
    assert verdict.woken()(seen) == ["media was not woken"]
    late = verdict.not_before("charged", "102", verdict.WOKEN)
    assert late(seen) == []
    assert late(replace(seen, events=((8.0, "charged"), *seen.events[1:]))) == [
        "guest 102 was started, before: charged"
    ]
    assert late(replace(seen, events=((10.0, "charged"), *seen.events[1:]))) == [
        f"nas{verdict.WOKEN}, before: charged",
        "guest 102 was started, before: charged",
    ]
    assert late(QUIET) == ["charged: did not happen"]
    # before the primary went down, the guest ran already
    assert late(replace(seen, stops=(replace(PVE, down=8.0),), events=((8.5, "charged"),))) == []
