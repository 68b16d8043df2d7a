# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.readings import HOLD_SECONDS
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.vocabulary import ABSENT
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import control
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import stages, stages_loop
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
    StagesWorld,
    guests_of,
    report_battery,
)

# Guests


def test_two_stages_begin_together(world: StagesWorld) -> None:
    guests_of(world)
    first = {"name": "one", "on_battery": 60, "guests": [{"kind": "qm", "id": 101, "seconds": 100}]}
    two = {
        "name": "two",
        "on_battery": 60,
        "guests": [{"kind": "qm", "id": 101}, {"kind": "pct", "id": 102}],
        "fsd": True,
    }
    world.set_reports((0, OB))
    world.run_stages(first, two)
    assert world.count_commands("shutdown", 101) == world.count_commands("shutdown", 102) == 1
    assert world.seen_at_fsd == [[]]


def test_fsd_waits_for_guests_of_earlier_stage(world: StagesWorld) -> None:
    guests_of(world, first=90)
    world.set_reports((0, OB))
    world.run_stages(EARLY, {**NAS, "on_battery": 80, "guests": []})
    assert 150 <= world.told[0] <= 154
    assert world.seen_at_fsd == [[102]]


def test_stages_begin_in_turn(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (200, report_battery(29)))
    world.run_stages(EARLY, FSD)
    assert 206 <= world.told[0] <= 212
    begun = [line for line in world.lines if " begins: " in line]
    assert [line.split("stage ")[1].split(" ")[0] for line in begun] == ["early", "the-end"]


def test_guests_of_stage_go_down_in_parallel(world: StagesWorld) -> None:
    guests_of(world, first=50, second=50)
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert 170 <= world.told[0] <= 174


@pytest.mark.parametrize(("kind", "number", "seconds"), [("qm", 101, 100), ("pct", 102, 60)])
def test_hanging_guest_is_forced(world: StagesWorld, kind: str, number: int, seconds: int) -> None:
    guests_of(world, **{"first" if number == 101 else "second": None})  # type: ignore[arg-type]
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert world.list_running(101, 102) == []
    assert 120 + seconds <= world.told[0] <= 124 + seconds
    assert world.has_logged(f"did not shut down within {seconds} s and was forced off")


def test_unstoppable_guest_does_not_block_fsd(world: StagesWorld) -> None:
    guests_of(world)

    def broken(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            return (0, "status: running\n") if command[4] == "status" else (255, "can't lock file\n")
        return StagesWorld.run_command(world, command)

    world.run_command = broken  # type: ignore[method-assign]
    world.set_reports((0, OB))
    world.run_stages(NAS)
    # the guest gets its full time, then FSD is set
    assert 218 <= world.told[0] <= 226
    assert world.has_logged("could not be stopped")


def test_hanging_stop_times_out(world: StagesWorld) -> None:
    guests_of(world)

    def hung(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            world.advance_clock(1e9)
        return StagesWorld.run_command(world, command)

    world.run_command = hung  # type: ignore[method-assign]
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert 120 + 100 <= world.told[0] <= 120 + 104 + control.longest_stop(0)
    assert world.has_logged("stop timed out; continuing without it")


def test_failed_job_does_not_stop_loop(world: StagesWorld) -> None:
    guests_of(world)

    def bad(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "qm":
            raise ValueError("what is that")
        return StagesWorld.run_command(world, command)

    world.run_command = bad  # type: ignore[method-assign]
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert len(world.told) == 1
    assert world.has_logged("VM 101: ValueError: what is that")


def test_guest_already_down_is_not_started_later(world: StagesWorld) -> None:
    guests_of(world)
    world.host.kill_guest(101)
    world.set_reports((0, OB), (150, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.list_running(101, 102) == [102]
    assert world.count_commands("shutdown", 101) == 0


def test_guest_going_down_before_stop_is_not_started_later(world: StagesWorld) -> None:
    guests_of(world)

    def late(command: Sequence[str]) -> tuple[int, str]:
        came = StagesWorld.run_command(world, command)
        if command[3:6] == ["qm", "status", "101"]:
            world.host.kill_guest(101)
        return came

    world.run_command = late  # type: ignore[method-assign]
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.list_running(101, 102) == [102]
    assert world.has_logged("VM 101 is already down")
    assert world.count_commands("start", 101) == 0


def test_guest_that_proxmox_starts_late_is_shut_down_after_all(world: StagesWorld, tmp_path: Path) -> None:
    guests_of(world)
    world.host.kill_guest(101)
    world.root = tmp_path
    (tmp_path / "run/qemu-server").mkdir(parents=True)
    (tmp_path / "proc/4217").mkdir(parents=True)
    states = {True: "activating", False: "active"}

    def boot(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "systemctl":
            return 0, f"LoadState=loaded\nActiveState={states[world.now - BOOT < 150]}\n"
        return StagesWorld.run_command(world, command)

    def start_late() -> None:
        world.host.start_process(101)
        (tmp_path / "run/qemu-server/101.pid").write_text("4217\n")
        (tmp_path / "proc/4217/cmdline").write_text("/usr/bin/kvm\0-pidfile\0/var/run/qemu-server/101.pid\0")

    def take_away() -> None:
        (tmp_path / "run/qemu-server/101.pid").unlink()

    world.run_command = boot  # type: ignore[method-assign]
    world.set_reports((0, OB), (300, OL))
    world.schedule_event(149, start_late)
    world.schedule_event(155, take_away)
    world.run_stages({**NAS, "fsd": False})
    assert world.has_logged("VM 101 is already down")
    assert world.has_logged("VM 101 has been started meanwhile")
    assert world.count_commands("shutdown", 101) == 1
    # it ran when it was shut down
    assert world.list_running(101, 102) == [101, 102]


def test_migrated_guest_is_gone(world: StagesWorld) -> None:
    world.host.add_guest(102, kind="pct")
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.has_logged("VM 101 does not exist on this host")
    assert world.list_running(102) == [102]
    assert world.count_commands("start", 101) == 0


def test_guest_started_by_user_is_left_running(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (200, OL))
    world.schedule_event(180, lambda: world.host.start_process(101))
    world.run_stages({**NAS, "fsd": False})
    assert world.list_running(101, 102) == [101, 102]
    # shut down once; neither stopped nor started again
    assert (world.count_commands("shutdown", 101), world.count_commands("start", 101)) == (1, 0)
    assert world.has_logged("VM 101 is already running")


def test_guest_starts_at_third_try(world: StagesWorld) -> None:
    guests_of(world, starts=2)
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.list_running(101, 102) == [101, 102]
    assert world.count_commands("start", 101) == 3
    # 30 s of mains, then two pauses
    assert world.now - BOOT >= 230 + 2 * stages.START_AGAIN_SECONDS
    assert world.has_logged("can't start VM 101 yet: start failed: QEMU exited with code 1. Trying again")
    assert world.has_logged("VM 101 is running")


def test_guest_starts_when_the_hindrance_has_passed(world: StagesWorld) -> None:
    guests_of(world)

    def later(command: Sequence[str]) -> tuple[int, str]:
        if command[4] == "start" and world.now - BOOT < 200 + 150:
            return 2, "cluster not ready - no quorum?\n"
        return StagesWorld.run_command(world, command)

    world.run_command = later  # type: ignore[method-assign]
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.list_running(101, 102) == [101, 102]
    assert world.has_logged("can't start VM 101 yet: cluster not ready - no quorum?. Trying again")
    assert not world.has_logged("giving up")


def test_guest_failing_to_start_is_given_up(world: StagesWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "START_PATIENCE_SECONDS", 60.0)
    guests_of(world, starts=99)
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.list_running(101, 102) == [102]
    assert 4 <= world.count_commands("start", 101) <= 6
    words = "VM 101: start failed: QEMU exited with code 1"
    assert world.has_logged(f"giving up on {words}. Start it by hand: qm start 101")
    kept = stages_loop.load_state(world.state, "another boot")[0]
    assert (kept.given_up, kept.owed, kept.guests_to_start) == ({"qm/101": words}, (), {})


def test_guest_that_the_user_starts_and_stops_between_two_tries_stays_off(world: StagesWorld, tmp_path: Path) -> None:
    guests_of(world, starts=99)
    world.root = tmp_path
    (tmp_path / "run/qemu-server").mkdir(parents=True)
    (tmp_path / "proc/4217").mkdir(parents=True)
    (tmp_path / "proc/4217/cmdline").write_text("/usr/bin/kvm\0-pidfile\0/var/run/qemu-server/101.pid\0")
    pid = tmp_path / "run/qemu-server/101.pid"
    looks: list[float] = []

    def start_for_a_moment() -> None:
        if world.count_commands("start", 101) == 1:
            looks.append(world.now)
            pid.write_text("4217\n")
            world.schedule_event(world.now - BOOT + 3, pid.unlink)
        else:
            world.schedule_event(world.now - BOOT + 1, start_for_a_moment)

    world.schedule_event(231, start_for_a_moment)
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert len(looks) == 1
    assert world.count_commands("start", 101) == 1
    assert world.has_logged("VM 101 is running")
    assert not world.state.exists()


def test_given_up_guest_is_told_by_each_program_once(world: StagesWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "START_PATIENCE_SECONDS", 60.0)
    guests_of(world, starts=99)
    world.set_reports((0, OB), (200, OL))
    mail, page = ["/usr/bin/mail", "me"], ["/usr/bin/page"]
    world.run_stages(
        {**NAS, "fsd": False, "notify": mail, "message": "it begins"},
        {"name": "again", "on_battery": 3000, "notify": mail},
        {"name": "late", "on_battery": 3000, "notify": page},
    )
    told = (
        "UPS: a guest is not running again: VM 101: start failed: QEMU exited with code 1. "
        "Start it by hand: qm start 101"
    )
    assert sorted(world.notified) == sorted([[*mail, "it begins"], [*mail, told], [*page, told]])


def test_given_up_guest_is_forgotten_when_it_runs(world: StagesWorld, tmp_path: Path) -> None:
    world.root = tmp_path
    (tmp_path / "run/qemu-server").mkdir(parents=True)
    (tmp_path / "proc/4217").mkdir(parents=True)
    (tmp_path / "proc/4217/cmdline").write_text("/usr/bin/kvm\0-pidfile\0/var/run/qemu-server/101.pid\0")
    state = stages.StagesState(world.boot, given_up={"qm/101": "VM 101: no storage", "qm/105": "VM 105: no storage"})
    world.state.parent.mkdir()
    world.state.write_text(records.dump_record(state, stages.VERSION))
    world.set_reports((0, OL))
    world.run_stages(NAS)
    assert stages_loop.load_state(world.state, world.boot)[0].given_up == state.given_up
    (tmp_path / "run/qemu-server/101.pid").write_text("4217\n")
    world.run_stages(NAS)
    assert stages_loop.load_state(world.state, world.boot)[0].given_up == {"qm/105": "VM 105: no storage"}


def test_missing_guest_is_given_up_at_once(world: StagesWorld) -> None:
    guests_of(world)
    world.schedule_event(180, (world.host.folder / "101.json").unlink)
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.count_commands("start", 101) == 1
    assert any(line.endswith("giving up on VM 101: it does not exist on this host") for line in world.lines)
    assert not world.state.exists()


def test_guest_that_keeps_failing_delays_no_other(world: StagesWorld) -> None:
    numbers = range(110, 116)
    for number in numbers:
        world.host.add_guest(number)
    tried: list[int] = []

    def failing(command: Sequence[str]) -> tuple[int, str]:
        if command[3:5] == ["qm", "start"]:
            tried.append(int(command[5]))
            world.advance_clock(12)
            return 2, "cluster not ready - no quorum?\n"
        return StagesWorld.run_command(world, command)

    world.run_command = failing  # type: ignore[method-assign]
    world.set_reports((0, OB), (200, OL))
    world.kill_at = BOOT + 400
    world.run_until_killed(
        {"name": "all", "on_battery": 60, "guests": [{"kind": "qm", "id": number} for number in numbers]}
    )
    assert sorted(tried[:6]) == list(numbers)


def test_guest_of_unknown_status_that_was_off_is_not_started(world: StagesWorld) -> None:
    guests_of(world)
    world.host.kill_guest(101)

    def silent(command: Sequence[str]) -> tuple[int, str]:
        if command[3:6] == ["qm", "status", "101"] and world.now - BOOT < 200:
            return 124, ""
        if command[3:6] == ["qm", "shutdown", "101"]:
            return 0, "VM 101 not running\n\n"
        return StagesWorld.run_command(world, command)

    world.run_command = silent  # type: ignore[method-assign]
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.list_running(101, 102) == [102]
    assert world.count_commands("start", 101) == 0


def test_hanging_start_times_out(world: StagesWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "START_PATIENCE_SECONDS", 60.0)
    guests_of(world)

    def hung(command: Sequence[str]) -> tuple[int, str]:
        if command[3:5] == ["qm", "start"]:
            world.advance_clock(1e9)
        return StagesWorld.run_command(world, command)

    world.run_command = hung  # type: ignore[method-assign]
    world.set_reports((0, OB), (200, OL))
    world.run_stages({**NAS, "fsd": False})
    assert world.list_running(101, 102) == [102]
    assert world.has_logged("can't start VM 101 yet: start timed out")
    assert world.has_logged("giving up on VM 101: start timed out. Start it by hand: qm start 101")


def test_backup_is_aborted(world: StagesWorld) -> None:
    guests_of(world, lock="backup")
    world.set_reports((0, OB))
    world.run_stages(NAS)
    assert ["vzdump", "--stop"] in world.host.read_calls()
    assert world.seen_at_fsd == [[]]


def test_notify_gets_reason_by_default(world: StagesWorld) -> None:
    world.set_reports((0, OB))
    world.run_stages({"name": "mail", "on_battery": 10, "notify": ["/usr/bin/mail", "me"]}, {**FSD, "on_battery": 20})
    assert world.notified == [["/usr/bin/mail", "me", "UPS: stage mail begins: 10 s on battery (limit 10 s)"]]
    # its failure delays nothing
    assert world.has_logged("stage mail: /usr/bin/mail failed (1): no mail today")
    assert 20 <= world.told[0] <= 22


def test_slow_notify_program_delays_nothing(world: StagesWorld) -> None:
    def slow(command: Sequence[str]) -> tuple[int, str]:
        if command[3] == "/usr/bin/mail":
            world.advance_clock(30)
        return StagesWorld.run_command(world, command)

    world.run_command = slow  # type: ignore[method-assign]
    world.set_reports((0, OB))
    world.run_stages({**FSD, "on_battery": 10, "notify": ["/usr/bin/mail"]})
    assert world.told == [10]


def test_notify_gets_message_of_stage(world: StagesWorld) -> None:
    world.set_reports((0, OB), (20, OL))
    world.run_stages({"name": "mail", "on_battery": 10, "notify": ["/usr/bin/mail"], "message": "power; $(rm) is out"})
    assert world.notified == [["/usr/bin/mail", "power; $(rm) is out"]]


# The battery


def test_falling_charge_begins_stage(world: StagesWorld) -> None:
    world.set_reports(*((place * 10.0, report_battery(60 - place)) for place in range(20)))
    world.run_stages(CHARGE)
    # 50 % at 100 s, plus HOLD_SECONDS
    assert world.told == [106]
    assert world.has_logged("stage low begins: charge 50% (limit 50%)")


def test_noise_at_threshold_begins_no_stage(world: StagesWorld) -> None:
    noise = [51, 50, 52, 49, 51, 50, 53, 50]
    world.set_reports(*((place * 4.0, report_battery(noise[place % len(noise)])) for place in range(100)), (400, OL))
    world.run_stages(CHARGE)
    assert world.told == []


def test_mains_flap_resets_low_charge(world: StagesWorld) -> None:
    world.set_reports((0, report_battery(49)), (4, OL), (14, report_battery(49)), (18, report_battery(60)), (60, OL))
    world.run_stages(CHARGE)
    assert world.told == []


def test_rising_charge_does_not_undo_stage(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, report_battery(49)), (8, report_battery(60)), (60, OL))
    world.run_stages({**CHARGE, "fsd": False, "guests": NAS["guests"]})
    assert world.count_commands("shutdown", 101) == 1
    assert sum(" begins: " in line for line in world.lines) == 1


def test_jumping_runtime_begins_no_stage(world: StagesWorld) -> None:
    # as some UPSes report in the first seconds on battery and when the load changes
    world.set_reports(
        (0, report_battery(100, 0)),
        (4, report_battery(99, 2400)),
        (50, report_battery(98, 300)),
        (54, report_battery(98, 2300)),
        (100, OL),
    )
    world.run_stages(RUNTIME)
    assert world.told == []


def test_falling_runtime_begins_stage(world: StagesWorld) -> None:
    world.set_reports((0, report_battery(90, 901)), (40, report_battery(80, 900)))
    world.run_stages(RUNTIME)
    assert world.told == [46]
    assert world.has_logged("runtime 900 s (limit 900 s)")


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "a lot"])
def test_invalid_reading_begins_no_stage(world: StagesWorld, value: str) -> None:
    world.set_reports((0, {"ups.status": "OB", "battery.charge": value, "battery.runtime": value}), (100, OL))
    world.run_stages({**CHARGE, "runtime": 900})
    assert world.told == []
    for what in ("charge", "runtime"):
        words = f"battery.{what} is unknown: it can't begin a stage until a UPS reports it (low)"
        assert sum(words in line for line in world.lines) == 1


def test_constant_runtime_0_begins_no_stage(world: StagesWorld) -> None:
    """Taken as real, it would start the shutdown 6 s into any flicker, at 95 % charge."""
    world.set_reports((0, report_battery(95, 0)), (100, OL))
    world.run_stages(RUNTIME)
    assert world.told == []
    assert world.has_logged("battery.runtime is unknown: it can't begin a stage until a UPS reports it (low)")


def test_briefly_unknown_runtime_is_not_logged(world: StagesWorld) -> None:
    world.set_reports((0, report_battery(95, 0)), (4, report_battery(95)), (100, OL))
    world.run_stages(RUNTIME)
    assert not any("unknown" in line for line in world.lines)


def test_low_charge_on_mains_begins_no_stage(world: StagesWorld) -> None:
    world.set_reports((0, OB), (20, {"ups.status": "OL CHRG", "battery.charge": "10", "battery.runtime": "60"}))
    world.run_stages({**CHARGE, "runtime": 900})
    assert world.told == []


def test_charge_is_that_of_the_emptiest_ups_if_the_host_needs_both(world: StagesWorld) -> None:
    world.upses, world.minsupplies = [UPS, replace(UPS, name="rack")], 2
    world.set_reports((0, report_battery(90)))
    world.set_reports((0, report_battery(80)), (50, report_battery(40)), ups="rack")
    world.run_stages(CHARGE)
    assert world.told == [56]


def test_charge_is_that_of_the_fullest_ups_if_one_is_enough(world: StagesWorld) -> None:
    world.upses = [UPS, replace(UPS, name="rack")]
    world.set_reports((0, report_battery(90)), (80, report_battery(40)))
    world.set_reports((0, report_battery(80)), (50, report_battery(20)), ups="rack")
    world.run_stages(CHARGE)
    assert world.told == [86]


def test_ups_that_powers_another_machine_begins_no_stage(world: StagesWorld) -> None:
    world.upses = [UPS, replace(UPS, name="router", power=0)]
    world.set_reports((0, OL))
    world.set_reports((0, report_battery(20, 60)), ups="router")
    world.run_stages({**CHARGE, "on_battery": 30, "runtime": 100})
    assert world.told == []


def test_low_battery_on_mains_does_not_count(world: StagesWorld) -> None:
    world.upses, world.minsupplies = [UPS, replace(UPS, name="rack")], 2
    world.set_reports((0, report_battery(90)), (100, OL))
    world.set_reports((0, {**OL, "battery.charge": "5"}), ups="rack")
    world.run_stages(CHARGE)
    assert world.told == []


def test_calibration_is_no_outage(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, {**report_battery(20, 100), "ups.status": "OB CAL"}), (1800, {"ups.status": "OL CHRG"}))
    world.run_stages({**NAS, "charge": 50, "runtime": 900})
    assert world.told == []
    assert world.host.read_calls() == []
    assert 1800 <= world.now - BOOT <= 1804


def test_calibration_reporting_ob_first_is_no_outage(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (4, {**report_battery(20), "ups.status": "OB CAL"}), (1800, OL))
    world.run_stages({**NAS, "charge": 50})
    assert world.host.read_calls() == []


def test_calibration_reporting_ob_first_does_not_start_clock(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (4, {**OB, "ups.status": "OB CAL"}), (600, OB))
    world.run_stages(NAS)
    assert 740 <= world.told[0] <= 744


def test_no_stage_begins_during_calibration(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, OB), (70, {**OB, "ups.status": "OB CAL"}), (400, OL))
    world.run_stages(EARLY, NAS)
    assert (world.count_commands("shutdown", 101), world.count_commands("shutdown", 102)) == (1, 0)
    assert world.list_running(101, 102) == [101, 102]


def test_power_failure_during_calibration(world: StagesWorld) -> None:
    guests_of(world)
    world.set_reports((0, {**OB, "ups.status": "OB CAL"}), (600, OB))
    world.run_stages(NAS)
    assert 740 <= world.told[0] <= 744


def test_self_test_on_battery_is_no_outage(world: StagesWorld) -> None:
    world.set_reports((0, {**report_battery(100, 60), "ups.test.result": "In progress"}), (25, OL))
    world.run_stages({**RUNTIME, "on_battery": 10})
    assert world.told == []


def test_endless_self_test_blocks_no_stage(world: StagesWorld) -> None:
    world.set_reports((0, {**report_battery(100, 60), "ups.test.result": "In progress"}))
    world.run_stages(RUNTIME)
    assert stages.TEST_SECONDS <= world.told[0] <= stages.TEST_SECONDS + HOLD_SECONDS + 2


def test_stand_in_for_absent_ups_is_unknown(world: StagesWorld) -> None:
    world.set_reports((0, {"ups.status": ABSENT}))
    world.kill_at = BOOT + 1000
    world.run_until_killed(NAS)
    assert world.lines == ["+0.0 s  cannot tell whether the mains are on: upsd does not report it"]
