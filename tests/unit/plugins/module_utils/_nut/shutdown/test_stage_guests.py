# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest, GuestsError
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.selection import ChosenGuest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stage_guests
from ansible_collections.homelab.nut.tests.unit.support.stages_world import (
    BOOT,
    FSD,
    OB,
    OL,
    Says,
    StagesWorld,
    guests_of,
)

if TYPE_CHECKING:
    pass


class Finds:
    """A finder with prepared results."""

    def __init__(self, world: StagesWorld, kept: Mapping[str, Sequence[ChosenGuest]] | None = None) -> None:
        self.world, self.known = world, dict(kept or {})
        self.found: list[
            Callable[[], Mapping[str, Sequence[ChosenGuest]]]
        ] = []  # result of each lookup; the last one repeats
        self.tries: list[float] = []
        self.broken = False

    def find_guests(self) -> Mapping[str, Sequence[ChosenGuest]]:
        self.tries.append(self.world.now - BOOT)
        return (self.found.pop(0) if len(self.found) > 1 else self.found[0])()

    def read_kept(self) -> Mapping[str, Sequence[ChosenGuest]]:
        return self.known

    def keep_guests(self, found: Mapping[str, Sequence[ChosenGuest]]) -> bool:
        if self.broken:
            raise files.WriteError("guests.json could not be written: No space left on device.")
        self.known = dict(found)
        return True


def chosen(number: int, seconds: float = 60.0) -> ChosenGuest:
    return ChosenGuest(Guest(number, "pct" if number == 102 else "qm", f"guest{number}"), seconds, "it has the tag nas")


TAGGED = {"name": "tagged", "on_battery": 120, "tags": ["nas"], "fsd": True}


def finding(world: StagesWorld, *found: Any, kept: Sequence[ChosenGuest] | None = None) -> Finds:
    """Prepare the results of the lookups, in turn: guests, an error, or the seconds that the next one takes."""
    finder = Finds(world, None if kept is None else {"tagged": kept})

    def give(what: Any) -> Mapping[str, Sequence[ChosenGuest]]:
        if isinstance(what, tuple):
            world.advance_clock(what[0])
            what = what[1]
        if isinstance(what, Exception):
            raise what
        return {"tagged": what}

    finder.found = [lambda what=what: give(what) for what in found]  # type: ignore[misc]
    world.finder = finder
    guests_of(world)
    world.host.add_guest(103)
    return finder


def test_guests_are_looked_up_when_outage_begins(world: StagesWorld) -> None:
    finds = finding(world, [chosen(101), chosen(102)])
    world.set_reports((0, OL), (1000, OB))
    world.stay_until = 999
    world.run_stages(TAGGED)
    assert finds.tries == [1000]
    assert world.list_running(101, 102, 103) == [103]
    assert world.seen_at_fsd == [[103]]
    assert set(finds.known) == {"tagged"}
    assert world.has_logged("stage tagged stops VM 101 (guest101), container 102 (guest102)")
    assert world.has_logged("shutting down VM 101 (guest101), within 60 s")


def test_guests_are_looked_up_in_each_outage(world: StagesWorld) -> None:
    finds = finding(world, [chosen(101)], [chosen(102)])
    world.set_reports((0, OB), (60, OL), (1000, OB), (1200, OL))
    world.stay_until = 1100
    world.run_stages({**TAGGED, "fsd": False})
    assert finds.tries == [0, 1000]
    assert (world.count_commands("shutdown", 101), world.count_commands("shutdown", 102)) == (0, 1)


def test_fsd_waits_for_guest_lookup(world: StagesWorld) -> None:
    finding(world, (6, [chosen(101)]))
    world.set_reports((0, OB))
    world.run_stages({**TAGGED, "on_battery": 0})
    assert world.seen_at_fsd == [[102, 103]]
    assert 26 <= world.told[0] <= 28


def test_fsd_waits_at_most_10s_for_guest_lookup(world: StagesWorld) -> None:
    finding(world, (1e6, [chosen(101)]))
    world.set_reports((0, OB))
    world.kill_at = BOOT + 400
    world.stay_until = 86400
    world.run_until_killed({**TAGGED, "on_battery": 0})
    assert world.told[0] == stage_guests.FIND_SECONDS
    assert world.seen_at_fsd[0] == [101, 102, 103]
    assert sum("were not found within 10 s" in line for line in world.lines) == 1


def test_hanging_guest_lookup_is_not_repeated(world: StagesWorld) -> None:
    finds = finding(world, (1e6, []))
    world.set_reports(*((place * 200.0, OB if place % 2 == 0 else OL) for place in range(6)))
    world.kill_at = BOOT + 1000
    world.stay_until = 86400
    world.run_until_killed(TAGGED)
    assert finds.tries == [0]


@pytest.mark.parametrize("found", [(1e6, []), GuestsError("/etc/pve/local is not there"), ValueError("odd")])
def test_failed_guest_lookup_uses_last_result(world: StagesWorld, found: Any) -> None:
    finding(world, found, kept=[chosen(101), chosen(102)])
    world.set_reports((0, OB))
    world.run_stages(TAGGED)
    assert world.seen_at_fsd == [[103]]
    assert 140 <= world.told[0] <= 144
    assert world.has_logged("using those found last")


def test_failed_guest_lookup_is_repeated(world: StagesWorld) -> None:
    finds = finding(world, GuestsError("x is not there"), GuestsError("x is not there"), [chosen(101)])
    world.set_reports((0, OB))
    world.run_stages(TAGGED)
    assert finds.tries == [0, 30, 60]
    assert world.seen_at_fsd == [[102, 103]]
    assert sum("x is not there: using those found last" in line for line in world.lines) == 1


@pytest.mark.parametrize("then", [OB, None])
def test_restarted_program_looks_up_guests_again(world: StagesWorld, then: Says) -> None:
    finds = finding(world, [chosen(101)])
    world.set_reports((0, OB), (50, then))
    world.stay_until = 86400
    world.kill_at = BOOT + 60
    world.run_until_killed(TAGGED)
    world.kill_at = BOOT + 160
    world.run_until_killed(TAGGED)
    assert world.list_running(101) == []
    assert finds.tries == [0, 60]


def test_last_known_guests_are_stopped_before_lookup_ends(world: StagesWorld) -> None:
    # 101 is no longer selected, and 103 is new
    finds = finding(world, (130, [chosen(102), chosen(103)]), kept=[chosen(101), chosen(102)])
    world.set_reports((0, OB))
    world.host.add_guest(101, shutdown=55)
    world.run_stages({**TAGGED, "on_battery": 100})
    # FSD waits for a guest that is going down, even if no stage names it any more
    assert 155 <= world.told[0] <= 158
    assert world.seen_at_fsd == [[]]
    assert [chosen.guest.id for chosen in finds.known["tagged"]] == [102, 103]
    assert world.count_commands("shutdown", 102) == 1
    assert set(json.loads(world.state.read_text())["guests_to_start"]) == {"qm/101", "pct/102", "qm/103"}


def test_guest_no_longer_selected_is_not_stopped(world: StagesWorld) -> None:
    finding(world, (5, [chosen(102)]), kept=[chosen(101), chosen(102)])
    world.set_reports((0, OB))
    world.run_stages(TAGGED)
    assert world.seen_at_fsd == [[101, 103]]


def test_fsd_after_restart_ignores_guest_no_longer_selected(world: StagesWorld) -> None:
    finding(world, (105, []), [], kept=[chosen(101)])
    world.host.add_guest(101, shutdown=60)
    world.set_reports((0, OB))
    world.kill_at = BOOT + 110
    world.run_until_killed({**TAGGED, "on_battery": 100})
    world.run_stages({**TAGGED, "on_battery": 100})
    # FSD does not wait for it, and it is started when the mains return
    assert 110 <= world.told[0] <= 114
    assert set(json.loads(world.state.read_text())["guests_to_start"]) == {"qm/101"}


def test_guest_without_kind_is_stopped_only_after_lookup(world: StagesWorld) -> None:
    world.finder = Finds(world)
    world.finder.found = [lambda: {}]
    guests_of(world)
    world.set_reports((0, OB))
    world.run_stages({**TAGGED, "guests": [101, {"id": 102, "kind": "pct", "seconds": 30}]})
    # the other guest has a kind
    assert world.seen_at_fsd == [[101]]


def test_guests_are_not_looked_up_without_selectors(world: StagesWorld) -> None:
    finds = finding(world, [chosen(101)])
    world.set_reports((0, OB))
    world.run_stages(FSD | {"on_battery": 10})
    assert finds.tries == []
    assert world.told == [10]


def test_guests_are_stopped_with_unwritable_guests_file(world: StagesWorld) -> None:
    finds = finding(world, [chosen(101)])
    finds.broken = True
    world.set_reports((0, OB))
    world.run_stages(TAGGED)
    assert finds.tries == [0]
    assert world.seen_at_fsd == [[102, 103]]
    assert world.has_logged("guests.json could not be written: No space left on device.")
    assert not world.has_logged("using those found last")


@pytest.mark.parametrize("status", ["FSD OB LB", "FSD OL"])
def test_guests_are_stopped_after_foreign_fsd(world: StagesWorld, status: str) -> None:
    finding(world, (8, [chosen(101)]))
    world.set_reports((0, {"ups.status": status}))
    assert "FSD" in world.run_stages(TAGGED)
    assert world.list_running(101, 102) == [102]
