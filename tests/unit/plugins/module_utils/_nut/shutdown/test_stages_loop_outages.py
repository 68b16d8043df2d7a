# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ansible_collections.homelab.nut.tests.unit.support.stages_world import (
    BOOT,
    EARLY,
    FSD_SAID,
    LIMIT,
    NAS,
    OB,
    OL,
    UPS,
    StagesWorld,
    guests_of,
    report_battery,
)

if TYPE_CHECKING:
    pass

# Mains return before, during and after each stage


def test_outage_ends_in_fsd_after_guests(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB))
    assert "FSD" in world.run_stages(NAS)
    assert world.list_running(101, 102) == []
    assert world.seen_at_fsd == [[]]
    # the slower guest takes 20 s, and polls are 2 s apart
    assert 140 <= world.told[0] <= 144
    assert len(world.told) == 1
    assert world.has_logged("stage nas-guests begins: 120 s on battery (limit 120 s)")
    assert world.has_logged("VM 101 is down after 20.0 s")
    assert world.state.exists()


def test_no_outage_rests(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OL))
    assert world.run_stages(NAS) == "on mains: nothing to do"
    assert world.now == BOOT
    assert not world.state.exists()
    assert world.host.read_calls() == []


def test_mains_return_before_first_stage(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (110, OL))
    world.run_stages(NAS)
    assert world.list_running(101, 102) == [101, 102]
    assert not world.state.exists()
    assert world.told == []
    assert 140 <= world.now - BOOT <= 144


def test_mains_return_after_a_stage_without_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.host.add_guest(103, running=False)
    stage = {**NAS, "fsd": False, "guests": [*NAS["guests"], {"kind": "qm", "id": 103}]}  # type: ignore[misc]
    world.set_reports((0, OB), (200, OL))
    world.run_stages(stage)
    assert world.list_running(101, 102, 103) == [101, 102]
    assert (
        world.count_commands("start", 101),
        world.count_commands("start", 102),
        world.count_commands("start", 103),
    ) == (1, 1, 0)
    assert not world.state.exists()
    # one after the other, as soon as the mains are stable
    assert 230 <= world.now - BOOT <= 240


def test_guest_stopped_last_is_started_first(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (200, OL))
    world.run_stages(EARLY, {**NAS, "fsd": False})
    assert [call[2] for call in world.host.read_calls() if call[1] == "start"] == ["102", "101"]


def test_guests_are_started_on_stable_mains_only(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (100, OL), (125, OB), (130, OL))
    seen: list[list[int]] = []
    world.schedule_event(158, lambda: seen.append(world.list_running(101)))
    world.run_stages(EARLY)
    assert seen == [[]]
    assert world.list_running(101) == [101]
    assert world.count_commands("start", 101) == 1
    assert world.count_commands("shutdown", 101) == 1


def test_mains_return_while_guests_go_down(world: StagesWorld) -> None:
    guests_of(world, first=90)
    world.set_reports((0, OB), (130, OL))
    world.run_stages(NAS)
    # guests that are going down are started again afterwards, and FSD is not set
    assert world.told == []
    assert world.list_running(101, 102) == [101, 102]
    assert world.count_commands("start", 101) == 1


def test_mains_return_between_guests_and_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.fsd_codes = [1] * 5
    world.set_reports((0, OB), (146, OL))
    world.run_stages(NAS)
    assert len(world.told) == 3
    assert world.list_running(101, 102) == [101, 102]
    assert not world.state.exists()


def test_flap_between_guests_and_fsd_delays_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (140, OL), (160, OB))
    assert "FSD" in world.run_stages(NAS)
    assert 160 <= world.told[0] <= 164
    assert world.count_commands("start", 101) == 0


def test_mains_return_after_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (150, OL))
    assert "FSD" in world.run_stages(NAS)
    assert world.list_running(101, 102) == []
    assert world.count_commands("start", 101) == world.count_commands("start", 102) == 0


def test_mains_return_after_unheard_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.fsd_works = False
    world.set_reports((0, OB), (150, OL))
    world.run_stages(NAS)
    assert len(world.told) == 1
    assert world.list_running(101, 102) == [101, 102]


# It stays


def test_program_stays_on_mains(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OL))
    world.stay_until = 86400
    world.kill_at = BOOT + 3000
    world.schedule_event(100, lambda: world.state.write_text("not touched"))
    world.run_until_killed(NAS)
    assert world.state.read_text() == "not touched"
    world.state.unlink()
    # no action, no file, and only the first two lines are logged
    assert world.host.read_calls() == []
    assert [path.name for path in world.state.parent.iterdir()] == ["stages.json.lock"]
    assert [line.partition("  ")[2] for line in world.lines] == [
        "on mains",
        "on mains: nothing to do",
    ]
    assert [after - before for before, after in zip(world.looks, world.looks[1:])] == [5] * 599


def test_program_is_idle_again_after_outage(world: StagesWorld) -> None:
    guests_of(world)
    world.stay_until = 86400
    stage = {**NAS, "fsd": False}
    world.set_reports((0, OL), (1000, OB), (1200, OL), (2000, OB), (2200, OL))
    there: list[bool] = []
    for second in (900, 1100, 1900, 2100, 2900):
        world.schedule_event(second, lambda: there.append(world.state.exists()))
    world.kill_at = BOOT + 3000
    world.run_until_killed(stage)
    assert there == [False, True, False, True, False]
    assert world.list_running(101, 102) == [101, 102]
    assert [world.count_commands("shutdown", 101), world.count_commands("start", 101)] == [2, 2]
    begun = [float(line.split(" s")[0][1:]) for line in world.lines if " begins: " in line]
    assert begun == [120, 120]
    pauses = {(round(before // 1000), after - before) for before, after in zip(world.looks, world.looks[1:])}
    assert {pause for _when, pause in pauses} == {5.0, 2.0}
    quick = [look for look, after in zip(world.looks, world.looks[1:]) if after - look == 2]
    assert {1000 <= look <= 1250 or 2000 <= look <= 2250 for look in quick} == {True}


def test_program_rests_after_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.stay_until = 86400
    notify = {"name": "late", "on_battery": 300, "notify": ["/bin/mail"], "fsd": True}
    world.set_reports((0, OB), (1000, None))
    world.kill_at = BOOT + 1500
    world.run_until_killed(NAS, notify)
    calls = len(world.host.read_calls())
    assert world.latch
    assert len(world.told) == 1
    assert world.notified == []
    assert world.list_running(101, 102) == []
    # killed and restarted while upsd is down: the state is remembered
    world.kill_at = BOOT + 3000
    world.run_until_killed(NAS, notify)
    assert len(world.told) == 1
    assert world.notified == []
    assert len(world.host.read_calls()) == calls


def test_cancelled_fsd_starts_guests_again(world: StagesWorld) -> None:
    guests_of(world)
    world.stay_until = 86400
    world.set_reports((0, OL), (100, FSD_SAID), (200, None), (210, OL), (1000, OB))
    world.kill_at = BOOT + 1100
    world.run_until_killed(NAS)
    # upsd was restarted: stopped guests are started when the mains are stable
    assert world.count_commands("start", 101) == world.count_commands("start", 102) == 1
    assert world.list_running(101, 102) == [101, 102]
    assert world.told == []
    # the next outage is a new one
    world.kill_at = LIMIT
    world.stay_until = 0
    world.run_stages(NAS)
    assert 1140 <= world.told[0] <= 1144
    assert world.count_commands("shutdown", 101) == 2


def test_cancelled_fsd_may_begin_again_at_once(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (100, FSD_SAID), (200, OL), (210, OB))
    world.stay_until = 200
    world.run_stages(NAS)
    assert 210 + 120 <= world.told[0] <= 210 + 124
    assert world.count_commands("start", 101) == 0


def test_cancelled_fsd_on_battery_is_ignored(world: StagesWorld) -> None:
    guests_of(world)
    world.stay_until = 86400
    world.set_reports((0, OB), (30, FSD_SAID), (100, OB))
    world.kill_at = BOOT + 1000
    world.run_until_killed(NAS)
    assert world.told == []
    assert not world.has_logged("begins")


def test_fsd_on_mains(world: StagesWorld) -> None:
    guests_of(world)
    world.stay_until = 86400
    world.set_reports((0, OL), (100, {"ups.status": "FSD OL"}), (300, OL))
    world.kill_at = BOOT + 290
    world.run_until_killed(NAS)
    assert world.list_running(101, 102) == []
    world.kill_at = BOOT + 325
    world.run_until_killed(NAS)
    assert world.list_running(101, 102) == []
    world.kill_at = BOOT + 400
    world.run_until_killed(NAS)
    assert world.list_running(101, 102) == [101, 102]
    # nothing carries over to the next outage
    world.set_reports((0, OB))
    world.stay_until = 0
    world.run_stages(NAS)
    assert world.list_running(101, 102) == []


def test_fsd_is_cancelled_while_guest_goes_down(world: StagesWorld) -> None:
    guests_of(world, first=90)
    world.set_reports((0, FSD_SAID), (10, OL))
    world.stay_until = 100
    world.run_stages(NAS)
    assert world.list_running(101, 102) == [101, 102]
    assert 120 <= world.now - BOOT <= 130


# Flaps and the clock


def test_flap_does_not_reset_clock(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (100, OL), (110, OB))
    world.run_stages(NAS)
    assert 140 <= world.told[0] <= 144


def test_long_return_of_mains_resets_clock(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (100, OL))
    world.run_stages(NAS)
    world.set_reports((0, OL), (200, OB))
    world.now = BOOT + 200
    world.run_stages(NAS)
    assert 340 <= world.told[0] <= 344


def test_many_flaps_are_one_outage(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports(*((place * 12.0, OB if place % 2 == 0 else OL) for place in range(30)))
    world.run_stages(NAS)
    # no stage begins, and no FSD, on mains
    assert world.told
    assert world.told[0] % 24 < 12


def test_outage_returns_while_guests_start(world: StagesWorld) -> None:
    guests_of(world)
    stage = {**NAS, "on_battery": 60, "fsd": False}
    world.set_reports((0, OB), (100, OL), (131, OB), (300, OL))
    world.run_stages(stage)
    assert world.list_running(101, 102) == [101, 102]
    # a new outage, so the stage begins again
    assert sum("begins" in line for line in world.lines) == 2
    assert world.count_commands("start", 101) + world.count_commands("start", 102) <= 4


# upsd, upsmon


def test_upsd_dies_on_battery(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (20, None))
    world.fsd_works = False
    world.schedule_event(180, lambda: world.set_reports((0, {"ups.status": "FSD OB"})))
    world.run_stages(NAS)
    assert 140 <= world.told[0] <= 144
    assert world.has_logged("cannot tell whether the mains are on: upsd does not report it")


def test_upsd_dies_and_charge_triggers_nothing(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, report_battery(80)), (20, None), (4000, OL))
    world.run_stages({**NAS, "on_battery": None, "charge": 50})
    assert world.told == []
    assert world.list_running(101, 102) == [101, 102]


def test_upsd_dies_after_return_of_mains(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (100, OL), (110, None), (1000, OL))
    world.run_stages(NAS)
    assert world.told == []
    assert 1000 <= world.now - BOOT <= 1004


def test_upsd_never_runs(world: StagesWorld) -> None:
    world.set_reports((0, None))
    world.kill_at = BOOT + 1000
    world.run_until_killed(NAS)
    assert world.lines == ["+0.0 s  cannot tell whether the mains are on: upsd does not report it"]
    assert not world.state.exists()


def test_upsd_starts_late(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, None), (200, OB))
    world.run_stages(NAS)
    assert 340 <= world.told[0] <= 344


def test_upsmon_does_not_run(world: StagesWorld) -> None:
    guests_of(world)
    world.fsd_codes = [1] * 40
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert len(world.told) == 41
    assert [round(after - before) for before, after in zip(world.told, world.told[1:])] == [2] * 40
    # logged once a minute
    assert sum("can't tell upsmon to set FSD: nut-monitor.service is not running" in line for line in world.lines) == 2


def test_upsd_does_not_show_fsd(world: StagesWorld) -> None:
    guests_of(world)
    world.fsd_works = False
    world.set_reports((0, OB), (200, {"ups.status": "FSD OB"}))
    world.run_stages(NAS)
    assert [round(after - before) for before, after in zip(world.told, world.told[1:])] == [16, 16, 16]
    assert world.has_logged("upsd has not reported FSD for 16 s")


def test_foreign_fsd_stops_guests(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (30, {"ups.status": "FSD OB LB"}))
    assert "FSD" in world.run_stages(NAS)
    # the guests' storage is about to go down, so they are shut down
    assert world.list_running(101, 102) == []
    assert world.told == []


def test_fsd_of_other_ups_is_ignored(world: StagesWorld) -> None:
    guests_of(world)
    world.upses, world.minsupplies = [UPS, replace(UPS, name="rack")], 2
    world.set_reports((0, OL))
    world.set_reports((0, {"ups.status": "FSD OB LB"}), (50, OL), ups="rack")
    world.run_stages({**NAS, "on_battery": 1000})
    assert world.list_running(101, 102) == [101, 102]


def test_second_ups_on_battery_keeps_outage(world: StagesWorld) -> None:
    guests_of(world)
    world.upses, world.minsupplies = [UPS, replace(UPS, name="rack"), replace(UPS, name="gone")], 3
    # the first UPS to return does not end the outage; a UPS that never had data does not count
    world.set_reports((0, OB), (50, OL))
    world.set_reports((0, OL), (20, OB), (100, None), (110, OB), ups="rack")
    world.run_stages(NAS)
    assert 140 <= world.told[0] <= 144


def test_silent_ups_on_battery_keeps_outage(world: StagesWorld) -> None:
    guests_of(world)
    world.upses, world.minsupplies = [UPS, replace(UPS, name="rack")], 2
    world.set_reports((0, OL))
    world.set_reports((0, OB), (20, None), ups="rack")
    world.run_stages(NAS)
    assert 140 <= world.told[0] <= 144


def test_outage_lasts_with_silent_second_ups(world: StagesWorld) -> None:
    guests_of(world)
    world.upses, world.minsupplies = [UPS, replace(UPS, name="rack")], 2
    world.set_reports((0, OB), (30, OL))
    world.set_reports((0, OB), (20, None), ups="rack")
    world.run_stages(NAS)
    assert 140 <= world.told[0] <= 144


def test_one_of_two_redundant_upses_on_battery_is_no_outage(world: StagesWorld) -> None:
    guests_of(world)
    world.upses = [UPS, replace(UPS, name="rack")]
    world.set_reports((0, OB), (200, OL))
    world.set_reports((0, OL), ups="rack")
    world.run_stages(NAS)
    assert world.told == []


def test_two_redundant_upses_on_battery_are_an_outage_until_one_is_back(world: StagesWorld) -> None:
    guests_of(world)
    world.upses = [UPS, replace(UPS, name="rack")]
    world.stay_until = 19
    world.set_reports((0, OB))
    world.set_reports((0, OL), (20, OB), (60, OL), (80, OB), ups="rack")
    world.run_stages(NAS)
    assert 160 <= world.told[0] <= 164


def test_ups_without_any_data_does_not_prolong_outage(world: StagesWorld) -> None:
    guests_of(world)
    world.upses, world.minsupplies = [UPS, replace(UPS, name="rack")], 2
    world.set_reports((0, OB), (50, OL))
    world.run_stages(NAS)
    assert 80 <= world.now - BOOT <= 84
    assert world.told == []
