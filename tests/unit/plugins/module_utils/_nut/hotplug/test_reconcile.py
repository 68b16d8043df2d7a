# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf_text
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import memory as hotplug_memory
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import observe, quiet
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.act import HotplugOutcome
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.observation import HotplugObservation
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.observe import ReconcileError
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.vocabulary import ABSENT
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.sections import DUMMY_PORT, DUMMY_STATUS
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import make_answers
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    APC,
    CPS,
    ENUMERATE,
    WANTED,
    HotplugMachine,
)

if TYPE_CHECKING:
    pass


# Plug


def test_new_ups_is_served(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    outcome = machine.run_hotplug()
    assert outcome.changed
    assert outcome.written
    assert outcome.failed == ()
    assert dict(machine.conf.sections["ups"].keys)["vendorid"] == "051d"
    assert ups_conf_text.found_sections(machine.path.read_text()) == {"ups"}
    assert machine.did == [ENUMERATE, "reload nut-server.service"]
    assert stat.S_IMODE(machine.path.stat().st_mode) == 0o640
    assert [line.partition(": ")[0] for line in outcome.done] == [
        f"write {machine.path}",
        ENUMERATE,
        "reload nut-server.service",
    ]
    assert machine.said == list(outcome.done)
    assert "051d:0002 American Power Conversion Back-UPS" in outcome.done[0]
    assert [entry.what for entry in machine.memory.history] == [line.partition(": ")[0] for line in outcome.done]


def test_unchanged_host_runs_nothing(served: HotplugMachine) -> None:
    before = served.path.stat()
    outcome = served.run_hotplug()
    assert (served.did, served.said, outcome.changed) == ([], [], False)
    assert served.path.stat() == before
    assert served.is_quiet


def test_empty_bus_is_quiet(machine: HotplugMachine) -> None:
    machine.run_hotplug()
    assert machine.did == []
    assert machine.is_quiet
    assert machine.path.read_text() == ""


def test_header_and_settings_come_from_ups_conf_wanted(machine: HotplugMachine) -> None:
    (machine.folder / "ups.conf.wanted").write_text(WANTED)
    machine.bus.plug_in("1-1", APC)
    machine.run_hotplug()
    assert machine.path.read_text().startswith('# Written by Ansible\n\nmaxretry = "3"\n')
    assert ups_conf_text.found_sections(machine.path.read_text()) == frozenset()


def test_enumerator_path_unit_is_disabled_before_write(machine: HotplugMachine) -> None:
    machine.units["nut-driver-enumerator.path"] = ("active", "enabled")
    machine.bus.plug_in("1-1", APC)
    machine.run_hotplug()
    assert machine.did[0] == "disable nut-driver-enumerator.path"


def test_bus_change_during_run_is_handled(machine: HotplugMachine) -> None:
    """The devices of a hub appear one by one, and a single run serves them all."""
    machine.bus.plug_in("1-1", APC)
    machine.events = [lambda: machine.bus.plug_in("1-2", CPS, serial="CPS123456789")]
    machine.run_hotplug()
    assert set(machine.conf.sections) == {"ups", "ups2"}
    assert machine.did.count(ENUMERATE) == 1


def test_bus_change_after_observation_is_handled(served: HotplugMachine) -> None:
    host = served.make_host()
    acted = host.apply_plan

    def act(look: HotplugObservation) -> HotplugOutcome:
        if "ups2" not in look.known.conf.sections and not list(served.bus.sysfs.glob("bus/usb/devices/1-2")):
            served.bus.plug_in("1-2", CPS, serial="CPS123456789")
        return acted(look)

    host.apply_plan = act  # type: ignore[method-assign]
    host.run()
    assert set(served.conf.sections) == {"ups", "ups2"}


def test_restless_bus_does_not_block_run(machine: HotplugMachine) -> None:
    numbers = iter(range(10, 10000))
    machine.bus.plug_in("1-1", APC)

    def again() -> None:
        machine.bus.unplug_device("1-1")
        machine.bus.plug_in("1-1", APC, device=next(numbers))
        machine.events.append(again)

    machine.events = [again]
    begin = machine.now
    machine.run_hotplug()
    assert machine.now - begin < 62


# Unplug, replug


def test_unplugged_ups_keeps_section_and_name(served: HotplugMachine) -> None:
    text = served.path.read_text()
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.run_hotplug()
    assert served.did == []
    assert served.path.read_text() == text
    assert served.is_quiet


def test_driver_that_reconnects_is_not_restarted(served: HotplugMachine) -> None:
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.run_hotplug()
    served.bus.plug_in("1-2", APC)
    served.events = [lambda: None] * 4 + [served.status.clear, served.update_upsd]
    begin = served.now
    served.run_hotplug()
    assert served.did == []
    assert served.now - begin < 12
    assert served.is_quiet


def test_driver_that_does_not_reconnect_is_restarted(served: HotplugMachine) -> None:
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.run_hotplug()
    served.bus.plug_in("1-2", APC)
    served.now += 1
    begin = served.now

    def found() -> None:
        served.status.clear()

    served.events = [lambda: None] * 46 + [found]
    served.run_hotplug()
    assert served.did == ["restart nut-driver@ups.service"]
    assert served.now - begin >= 10


def test_replaced_ups_takes_over_name(served: HotplugMachine) -> None:
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.run_hotplug()
    served.bus.plug_in("1-1", CPS, serial="CPS123456789")
    served.status.clear()
    served.server.answers.update(make_answers(ups="ERR DATA-STALE"))
    served.units["nut-driver@ups.service"] = ("inactive", "enabled")
    outcome = served.run_hotplug()
    assert list(served.conf.sections) == ["ups"]
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"
    assert "start nut-driver@ups.service" in served.did
    assert outcome.written


def test_absent_ups_gets_stand_in(machine: HotplugMachine) -> None:
    machine.policy["absent"] = "dummy"
    (machine.folder / "ups.conf.wanted").write_text(WANTED)
    (machine.folder / "ups.conf").write_text(WANTED.replace("auto\n    port", "usbhid-ups\n    port"))
    machine.run_hotplug()
    machine.now += 31
    machine.run_hotplug()
    keys = dict(machine.conf.sections["ups"].keys)
    assert (keys["driver"], keys["port"]) == ("dummy-ups", DUMMY_PORT)
    # dummy-ups of 2.8.3 and later drops the second word of its file
    assert keys["override.ups.status"] == DUMMY_STATUS
    assert f"ups.status: {DUMMY_STATUS}\n" in observe.DUMMY
    assert (machine.folder / DUMMY_PORT).read_text() == observe.DUMMY
    (machine.folder / DUMMY_PORT).unlink()
    machine.run_hotplug()
    assert (machine.folder / DUMMY_PORT).read_text() == observe.DUMMY


def test_ups_is_served_by_the_first_run_after_each_plugging(machine: HotplugMachine) -> None:
    """The pluggings before have filled the memory with attempts, none of which failed."""
    machine.policy["absent"] = "dummy"
    (machine.folder / "ups.conf.wanted").write_text(WANTED)
    machine.bus.plug_in("1-1", APC, serial="5B1234T56789")
    machine.run_hotplug()
    machine.run_hotplug()
    for number in range(5):
        machine.bus.unplug_device("1-1")
        machine.status["ups"] = "ERR DATA-STALE"
        machine.run_hotplug()
        machine.now += 31
        machine.run_hotplug()
        assert dict(machine.conf.sections["ups"].keys)["driver"] == "dummy-ups", number
        machine.status["ups"] = ABSENT
        machine.run_hotplug()
        machine.bus.plug_in("1-1", APC, serial="5B1234T56789", device=20 + number)
        begin = machine.now
        machine.events = [machine.status.clear]
        machine.run_hotplug()
        machine.status.clear()
        assert dict(machine.conf.sections["ups"].keys)["driver"] == "usbhid-ups", number
        assert machine.now - begin <= 15, number


def test_stand_in_reports_neither_mains_nor_battery() -> None:
    status = next(line for line in observe.DUMMY.splitlines() if line.startswith("ups.status:"))
    assert quiet.classify_answer(f'VAR ups ups.status "{status.partition(": ")[2]}"') == ""


# Drivers


def test_failed_driver_is_started(served: HotplugMachine) -> None:
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.run_hotplug()
    assert served.did == ["start nut-driver@ups.service"]
    assert served.asked.index(["systemctl", "reset-failed", "nut-driver@ups.service"]) < served.asked.index(
        ["systemctl", "start", "--no-block", "--", "nut-driver@ups.service"]
    )


def test_unstartable_driver_is_no_failure_of_run(served: HotplugMachine) -> None:
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.fails.add("start nut-driver@ups.service")
    outcome = served.run_hotplug()
    assert outcome.failed == ()
    assert served.did == ["start nut-driver@ups.service"]
    assert "It did not start" in served.said[0]
    assert served.memory.tries["ups"].count == 2  # the first attempt was when it was plugged in


def test_attempts_become_rarer_over_runs(served: HotplugMachine) -> None:
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.fails.add("start nut-driver@ups.service")
    starts = []
    for _minute in range(30):
        served.run_hotplug()
        starts.append(served.did.count("start nut-driver@ups.service"))
        served.now += 60
    assert 4 <= sum(starts) <= 8


def test_long_wait_is_left_to_later_run(served: HotplugMachine) -> None:
    served.now += 400
    served.run_hotplug()
    served.units["nut-driver@ups.service"] = ("activating", "enabled")
    served.status["ups"] = "ERR DRIVER-NOT-CONNECTED"
    begin = served.now
    served.run_hotplug()
    assert served.now - begin < 1
    assert served.did == []
    assert served.is_quiet
    served.now = begin + 61
    assert not served.is_quiet
    served.run_hotplug()
    assert served.did[0] == "restart nut-driver@ups.service"


def test_waiting_does_not_observe_repeatedly(served: HotplugMachine) -> None:
    """upsd still has data from before the UPS was replugged."""
    served.bus.unplug_device("1-1")
    served.bus.plug_in("1-1", APC)
    served.run_hotplug()
    shown = [words for words in served.asked if words[:2] == ["systemctl", "show"]]
    assert 2 <= len(shown) <= 4


# Power


def test_restart_on_battery_is_postponed_until_mains_are_back(served: HotplugMachine) -> None:
    text = served.path.read_text()
    served.status["ups"] = "OB DISCHRG"
    served.bus.plug_in("1-2", CPS, serial="CPS123456789")
    served.run_hotplug()
    assert (served.did, served.path.read_text()) == ([], text)
    assert [line for line in served.said if line.startswith("deferred: ")]
    served.status["ups"] = "OB LB DISCHRG"
    served.now += 60
    served.run_hotplug()
    assert served.said == []
    served.status.clear()
    served.now += 60
    served.run_hotplug()
    assert "ups2" in served.conf.sections
    assert [line for line in served.said if line.startswith("now done (deferred since ")]
    assert served.memory.deferred == {}


def test_deferred_work_keeps_its_time(served: HotplugMachine) -> None:
    served.status["ups"] = "OB"
    served.bus.plug_in("1-2", CPS, serial="CPS123456789")
    served.run_hotplug()
    first = served.memory.deferred
    served.now += 100
    served.status["ups"] = "OB LB"
    served.run_hotplug()
    assert served.memory.deferred == first
    assert list(first.values()) == [pytest.approx(1_700_001_000, abs=20)]


def test_known_battery_status_is_quiet(served: HotplugMachine) -> None:
    served.status["ups"] = "OB"
    served.update_upsd()
    assert not served.is_quiet
    served.run_hotplug()
    assert served.is_quiet
    assert served.memory.last_status == {"ups": ("OB",)}


# Failures


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "tries": 7}', "\0\1"])
def test_damaged_state_costs_one_scan(served: HotplugMachine, text: str) -> None:
    (served.root / "state/state.json").write_text(text)
    assert not served.is_quiet
    served.run_hotplug()
    assert served.did == []
    served.run_hotplug()
    assert served.is_quiet


# Interrupted runs


def test_state_is_reloaded_after_waiting_for_lock(served: HotplugMachine) -> None:
    host = served.make_host()
    host.observe_host()
    other = hotplug_memory.HistoryEntry(1.0, "ups", "something", "of another run")
    hotplug_memory.save_state(served.root / "state/state.json", served.memory.with_history(other))
    host.run()
    assert other in served.memory.history


def test_diff_hides_secrets(machine: HotplugMachine) -> None:
    machine.path.write_text(
        "[net]\n    driver = snmp-ups\n    port = 192.0.2.1\n    community = s3cret\n    privPassword = s3cret\n"
    )
    machine.bus.plug_in("1-1", APC)
    machine.update_upsd()
    diff = machine.make_host().observe_host().render_diff()
    assert "+[ups]" in diff
    assert "s3cret" not in diff


def test_second_run_is_refused_after_waiting(served: HotplugMachine) -> None:
    with (
        files.hold_lock(served.room / "homelab-nut.lock", 1),
        pytest.raises(files.Busy),
        served.make_host().hold_lock(0.0),
    ):
        pass


@pytest.mark.parametrize("mode", ["none", "netclient"])
def test_unconfigured_nut_is_refused(machine: HotplugMachine, mode: str) -> None:
    """With MODE=none and a section in ups.conf, the next reboot would cut the UPS's power."""
    (machine.folder / "nut.conf").write_text(f"MODE={mode}\n")
    machine.bus.plug_in("1-1", APC)
    with pytest.raises(ReconcileError, match="make ups tags=ups"):
        machine.run_hotplug()
    assert machine.path.read_text() == ""
