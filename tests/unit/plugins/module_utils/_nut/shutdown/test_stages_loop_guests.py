# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import control
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stages
from ansible_collections.homelab.nut.tests.unit.support.stages_world import (
    BOOT,
    CHARGE,
    EARLY,
    FSD,
    NAS,
    OB,
    OL,
    RUNTIME,
    UPS,
    World,
    guests_of,
    ob,
)

if TYPE_CHECKING:
    pass

# Guests


def test_two_stages_begin_together(world: World) -> None:
    guests_of(world)
    first = {"name": "one", "on_battery": 60, "guests": [{"kind": "qm", "id": 101, "seconds": 100}]}
    two = {
        "name": "two",
        "on_battery": 60,
        "guests": [{"kind": "qm", "id": 101}, {"kind": "pct", "id": 102}],
        "fsd": True,
    }
    world.story((0, OB))
    world.go(first, two)
    assert world.count("shutdown", 101) == world.count("shutdown", 102) == 1
    assert world.seen_at_fsd == [[]]


def test_fsd_waits_for_guests_of_earlier_stage(world: World) -> None:
    guests_of(world, first=90)
    world.story((0, OB))
    world.go(EARLY, {**NAS, "on_battery": 80, "guests": []})
    assert 150 <= world.told[0] <= 154
    assert world.seen_at_fsd == [[102]]


def test_stages_begin_in_turn(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (200, ob(29)))
    world.go(EARLY, FSD)
    assert 206 <= world.told[0] <= 212
    begun = [line for line in world.lines if " begins: " in line]
    assert [line.split("stage ")[1].split(" ")[0] for line in begun] == ["early", "the-end"]


def test_guests_of_stage_go_down_in_parallel(world: World) -> None:
    guests_of(world, first=50, second=50)
    world.story((0, OB))
    world.go(NAS)
    assert 170 <= world.told[0] <= 174


@pytest.mark.parametrize(("kind", "number", "seconds"), [("qm", 101, 100), ("pct", 102, 60)])
def test_hanging_guest_is_forced(world: World, kind: str, number: int, seconds: int) -> None:
    guests_of(world, **{"first" if number == 101 else "second": None})  # type: ignore[arg-type]
    world.story((0, OB))
    world.go(NAS)
    assert world.running(101, 102) == []
    assert 120 + seconds <= world.told[0] <= 124 + seconds
    assert world.has(f"did not shut down within {seconds} s and was forced off")


def test_unstoppable_guest_does_not_block_fsd(world: World) -> None:
    guests_of(world)

    def broken(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            return (0, "status: running\n") if command[4] == "status" else (255, "can't lock file\n")
        return World.run(world, command)

    world.run = broken  # type: ignore[method-assign]
    world.story((0, OB))
    world.go(NAS)
    # the guest gets its full time, then FSD is set
    assert 218 <= world.told[0] <= 226
    assert world.has("could not be stopped")


def test_hanging_stop_times_out(world: World) -> None:
    guests_of(world)

    def hung(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            world.sleep(1e9)
        return World.run(world, command)

    world.run = hung  # type: ignore[method-assign]
    world.story((0, OB))
    world.go(NAS)
    assert 120 + 100 <= world.told[0] <= 120 + 104 + control.longest_stop(0)
    assert world.has("stop timed out; continuing without it")


def test_failed_job_does_not_stop_loop(world: World) -> None:
    guests_of(world)

    def bad(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            raise ValueError("what is that")
        return World.run(world, command)

    world.run = bad  # type: ignore[method-assign]
    world.story((0, OB))
    world.go(NAS)
    assert len(world.told) == 1
    assert world.has("VM 101: ValueError: what is that")


def test_guest_already_down_is_not_started_later(world: World) -> None:
    guests_of(world)
    world.host.kill_guest(101)
    world.story((0, OB), (150, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [102]
    assert world.count("shutdown", 101) == 0


def test_guest_going_down_before_stop_is_not_started_later(world: World) -> None:
    guests_of(world)

    def late(command: Sequence[str]) -> tuple[int, str]:
        came = World.run(world, command)
        if command[3:6] == ["qm", "status", "101"]:
            world.host.kill_guest(101)
        return came

    world.run = late  # type: ignore[method-assign]
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [102]
    assert world.has("VM 101 is already down")
    assert world.count("start", 101) == 0


def test_migrated_guest_is_gone(world: World) -> None:
    world.host.add_guest(102, kind="pct")
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.has("VM 101 does not exist on this host")
    assert world.running(102) == [102]
    assert world.count("start", 101) == 0


def test_guest_started_by_user_is_left_running(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (200, OL))
    world.at(180, lambda: world.host.start_process(101))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [101, 102]
    # shut down once; neither stopped nor started again
    assert (world.count("shutdown", 101), world.count("start", 101)) == (1, 0)
    assert world.has("VM 101 is already running")


def test_guest_starts_at_third_try(world: World) -> None:
    guests_of(world, starts=2)
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [101, 102]
    assert world.count("start", 101) == 3
    # 30 s of mains, then two pauses of 10 s
    assert world.now - BOOT >= 250
    assert world.has("can't start VM 101: start failed: storage of 101 is not online")


def test_guest_failing_to_start_is_given_up(world: World) -> None:
    guests_of(world, starts=9)
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [102]
    assert world.count("start", 101) == 3
    assert world.has("giving up on VM 101. Start it by hand: qm start 101")
    assert not world.state.exists()


def test_hanging_start_times_out(world: World) -> None:
    guests_of(world)

    def hung(command: Sequence[str]) -> tuple[int, str]:
        if command[3:5] == ["qm", "start"]:
            world.sleep(1e9)
        return World.run(world, command)

    world.run = hung  # type: ignore[method-assign]
    world.story((0, OB), (200, OL))
    world.go({**NAS, "fsd": False})
    assert world.running(101, 102) == [102]
    assert world.has("qm/101: start timed out; continuing without it")


def test_backup_is_aborted(world: World) -> None:
    guests_of(world, lock="backup")
    world.story((0, OB))
    world.go(NAS)
    assert ["vzdump", "--stop"] in world.host.read_calls()
    assert world.seen_at_fsd == [[]]


def test_notify_gets_reason_by_default(world: World) -> None:
    world.story((0, OB))
    world.go({"name": "mail", "on_battery": 10, "notify": ["/usr/bin/mail", "me"]}, {**FSD, "on_battery": 20})
    assert world.notified == [["/usr/bin/mail", "me", "UPS: stage mail begins: 10 s on battery (limit 10 s)"]]
    # its failure delays nothing
    assert world.has("stage mail: /usr/bin/mail failed (1): no mail today")
    assert 20 <= world.told[0] <= 22


def test_slow_notify_program_delays_nothing(world: World) -> None:
    def slow(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "/usr/bin/mail":
            world.sleep(30)
        return World.run(world, command)

    world.run = slow  # type: ignore[method-assign]
    world.story((0, OB))
    world.go({**FSD, "on_battery": 10, "notify": ["/usr/bin/mail"]})
    assert world.told == [10]


def test_notify_gets_message_of_stage(world: World) -> None:
    world.story((0, OB), (20, OL))
    world.go({"name": "mail", "on_battery": 10, "notify": ["/usr/bin/mail"], "message": "power; $(rm) is out"})
    assert world.notified == [["/usr/bin/mail", "power; $(rm) is out"]]


# The battery


def test_falling_charge_begins_stage(world: World) -> None:
    world.story(*((place * 10.0, ob(60 - place)) for place in range(20)))
    world.go(CHARGE)
    # 50 % at 100 s, plus HOLD_SECONDS
    assert world.told == [106]
    assert world.has("stage low begins: charge 50% (limit 50%)")


def test_noise_at_threshold_begins_no_stage(world: World) -> None:
    noise = [51, 50, 52, 49, 51, 50, 53, 50]
    world.story(*((place * 4.0, ob(noise[place % len(noise)])) for place in range(100)), (400, OL))
    world.go(CHARGE)
    assert world.told == []


def test_mains_flap_resets_low_charge(world: World) -> None:
    world.story((0, ob(49)), (4, OL), (14, ob(49)), (18, ob(60)), (60, OL))
    world.go(CHARGE)
    assert world.told == []


def test_rising_charge_does_not_undo_stage(world: World) -> None:
    guests_of(world)
    world.story((0, ob(49)), (8, ob(60)), (60, OL))
    world.go({**CHARGE, "fsd": False, "guests": NAS["guests"]})
    assert world.count("shutdown", 101) == 1
    assert sum(" begins: " in line for line in world.lines) == 1


def test_jumping_runtime_begins_no_stage(world: World) -> None:
    # as some UPSes report in the first seconds on battery and when the load changes
    world.story((0, ob(100, 0)), (4, ob(99, 2400)), (50, ob(98, 300)), (54, ob(98, 2300)), (100, OL))
    world.go(RUNTIME)
    assert world.told == []


def test_falling_runtime_begins_stage(world: World) -> None:
    world.story((0, ob(90, 901)), (40, ob(80, 900)))
    world.go(RUNTIME)
    assert world.told == [46]
    assert world.has("runtime 900 s (limit 900 s)")


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "a lot"])
def test_invalid_reading_begins_no_stage(world: World, value: str) -> None:
    world.story((0, {"ups.status": "OB", "battery.charge": value, "battery.runtime": value}), (100, OL))
    world.go({**CHARGE, "runtime": 900})
    assert world.told == []
    for what in ("charge", "runtime"):
        words = f"battery.{what} is unknown: it can't begin a stage until a UPS reports it (low)"
        assert sum(words in line for line in world.lines) == 1


def test_constant_runtime_0_begins_no_stage(world: World) -> None:
    """Taken as real, it would start the shutdown 6 s into any flicker, at 95 % charge."""
    world.story((0, ob(95, 0)), (100, OL))
    world.go(RUNTIME)
    assert world.told == []
    assert world.has("battery.runtime is unknown: it can't begin a stage until a UPS reports it (low)")


def test_briefly_unknown_runtime_is_not_logged(world: World) -> None:
    world.story((0, ob(95, 0)), (4, ob(95)), (100, OL))
    world.go(RUNTIME)
    assert not any("unknown" in line for line in world.lines)


def test_low_charge_on_mains_begins_no_stage(world: World) -> None:
    world.story((0, OB), (20, {"ups.status": "OL CHRG", "battery.charge": "10", "battery.runtime": "60"}))
    world.go({**CHARGE, "runtime": 900})
    assert world.told == []


def test_emptiest_ups_on_battery_counts(world: World) -> None:
    world.upses = [UPS, replace(UPS, name="rack")]
    world.story((0, ob(90)))
    world.story((0, ob(80)), (50, ob(40)), ups="rack")
    world.go(CHARGE)
    assert world.told == [56]


def test_low_battery_on_mains_does_not_count(world: World) -> None:
    world.upses = [UPS, replace(UPS, name="rack")]
    world.story((0, ob(90)), (100, OL))
    world.story((0, {**OL, "battery.charge": "5"}), ups="rack")
    world.go(CHARGE)
    assert world.told == []


def test_calibration_is_no_outage(world: World) -> None:
    guests_of(world)
    world.story((0, {**ob(20, 100), "ups.status": "OB CAL"}), (1800, {"ups.status": "OL CHRG"}))
    world.go({**NAS, "charge": 50, "runtime": 900})
    assert world.told == []
    assert world.host.read_calls() == []
    assert 1800 <= world.now - BOOT <= 1804


def test_calibration_reporting_ob_first_is_no_outage(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (4, {**ob(20), "ups.status": "OB CAL"}), (1800, OL))
    world.go({**NAS, "charge": 50})
    assert world.host.read_calls() == []


def test_calibration_reporting_ob_first_does_not_start_clock(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (4, {**OB, "ups.status": "OB CAL"}), (600, OB))
    world.go(NAS)
    assert 740 <= world.told[0] <= 744


def test_no_stage_begins_during_calibration(world: World) -> None:
    guests_of(world)
    world.story((0, OB), (70, {**OB, "ups.status": "OB CAL"}), (400, OL))
    world.go(EARLY, NAS)
    assert (world.count("shutdown", 101), world.count("shutdown", 102)) == (1, 0)
    assert world.running(101, 102) == [101, 102]


def test_power_failure_during_calibration(world: World) -> None:
    guests_of(world)
    world.story((0, {**OB, "ups.status": "OB CAL"}), (600, OB))
    world.go(NAS)
    assert 740 <= world.told[0] <= 744


def test_self_test_on_battery_is_no_outage(world: World) -> None:
    world.story((0, {**ob(100, 60), "ups.test.result": "In progress"}), (25, OL))
    world.go({**RUNTIME, "on_battery": 10})
    assert world.told == []


def test_endless_self_test_blocks_no_stage(world: World) -> None:
    world.story((0, {**ob(100, 60), "ups.test.result": "In progress"}))
    world.go(RUNTIME)
    assert stages.TEST_SECONDS <= world.told[0] <= stages.TEST_SECONDS + stages.HOLD_SECONDS + 2


def test_stand_in_for_absent_ups_is_unknown(world: World) -> None:
    world.story((0, {"ups.status": "ABSENT"}))
    world.kill_at = BOOT + 1000
    world.go_killed(NAS)
    assert world.lines == ["+0.0 s  cannot tell whether the mains are on: upsd does not report it"]
