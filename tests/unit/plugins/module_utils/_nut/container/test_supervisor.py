# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ENUMERATOR, SERVER, UnitError
from ansible_collections.homelab.nut.plugins.module_utils._nut.container import supervisor as supervisor_module
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.supervisor import (
    Places,
    prepare_directories,
    rotate_log,
)
from ansible_collections.homelab.nut.tests.unit.support.container import (
    APC_UNIT,
    DAEMON,
    RACK_UNIT,
    UPS_CONF,
    Container,
    wait_until,
)

pytestmark = pytest.mark.slow

RACK = "[rack]\n    driver = dummy-ups\n    port = x\n"
USB_EVENT = b"add@/devices/usb1/1-1\0ACTION=add\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0"


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def test_upsd_driver_and_agent_run_after_the_configuration(container: Container) -> None:
    def act() -> None:
        wait_until(lambda: container.count_runs("agent"))
        units = container.manager.show_units([SERVER, APC_UNIT, systemd.MONITOR], booted=1000.0)
        assert [units[name].active for name in (SERVER, APC_UNIT)] == ["active", "active"]
        assert units[APC_UNIT].since == pytest.approx(1000.0 + time.monotonic(), abs=10)
        assert units[systemd.MONITOR] == systemd.ABSENT

    assert container.supervise(act) == 0
    assert container.count_runs("configure") == 1
    assert "nut-driver@ups: usbhid-ups -F -a ups" in container.said
    assert "nut-server: upsd -F" in container.said


def test_failed_configuration_ends_the_container_with_its_code(container: Container) -> None:
    container.write_program("configure", "#!/bin/sh\necho 'upsd.conf: it is wrong' >&2\nexit 3\n")
    assert container.supervise(lambda: None, stop=False) == 3
    assert "configure: upsd.conf: it is wrong" in container.said
    assert not any(line.startswith("nut-server") for line in container.said)


@pytest.mark.parametrize("unit", [SERVER, APC_UNIT])
def test_killed_daemon_is_back_within_seconds(container: Container, unit: str) -> None:
    def act() -> None:
        wait_until(lambda: container.find_pid(unit))
        pid = container.find_pid(unit)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: container.find_pid(unit) not in (0, pid), 4)

    assert container.supervise(act) == 0
    assert f"{unit.removesuffix('.service')} ended (signal 9); starting it again in 1 s" in container.said


def test_driver_without_ups_is_started_less_and_less_often(container: Container) -> None:
    container.write_program("usbhid-ups", "#!/bin/sh\necho 'No matching HID UPS found'\nexit 1\n")

    def act() -> None:
        wait_until(lambda: sum("starting it again in 2 s" in line for line in container.said))
        unit = container.manager.show_units([APC_UNIT])[APC_UNIT]
        assert (unit.active, unit.sub, unit.pid) == ("activating", "auto-restart", 0)
        entries = container.manager.read_log([APC_UNIT], time.time() - 60, 10)
        assert {entry.words for entry in entries} == {"No matching HID UPS found"}
        assert container.manager.read_log([APC_UNIT], time.time() + 60, 10) == []
        assert len(container.manager.read_log([APC_UNIT], 0, 1)) == 1

    assert container.supervise(act) == 0


def test_enumerator_adds_and_removes_drivers_and_leaves_the_others_alone(container: Container) -> None:
    def act() -> None:
        wait_until(lambda: container.find_pid(APC_UNIT))
        pid = container.find_pid(APC_UNIT)
        container.write_ups_conf(UPS_CONF + RACK)
        container.manager.change_unit("start", ENUMERATOR)
        wait_until(lambda: container.find_pid(RACK_UNIT))
        assert container.find_pid(APC_UNIT) == pid
        container.write_ups_conf(RACK)
        container.manager.change_unit("start", ENUMERATOR)
        wait_until(lambda: container.manager.show_units([APC_UNIT])[APC_UNIT] == systemd.ABSENT)
        assert container.find_pid(RACK_UNIT)

    assert container.supervise(act) == 0


def test_new_driver_of_a_section_is_used_at_its_next_start(container: Container) -> None:
    """As nut-hotplug replaces a section: stop, write, enumerate, start."""

    def act() -> None:
        wait_until(lambda: container.find_pid(APC_UNIT))
        container.manager.change_unit("stop", APC_UNIT)
        assert container.manager.show_units([APC_UNIT])[APC_UNIT].active == "inactive"
        container.write_ups_conf(RACK.replace("rack", "ups"))
        container.manager.change_unit("start", ENUMERATOR)
        container.manager.change_unit("start", APC_UNIT, wait=False)
        wait_until(lambda: "nut-driver@ups: dummy-ups -F -a ups" in container.said)

    assert container.supervise(act) == 0


def test_restart_waits_for_the_old_process(container: Container) -> None:
    def act() -> None:
        wait_until(lambda: container.find_pid(APC_UNIT))
        pid = container.find_pid(APC_UNIT)
        container.manager.change_unit("restart", APC_UNIT)
        assert not Path(f"/proc/{pid}").exists()
        wait_until(lambda: container.find_pid(APC_UNIT) not in (0, pid), 2)

    assert container.supervise(act) == 0


def test_reload_reaches_the_daemon(container: Container) -> None:
    def act() -> None:
        wait_until(lambda: "nut-server: upsd -F" in container.said)
        container.manager.change_unit("reload", SERVER)
        wait_until(lambda: "nut-server: reloaded" in container.said)

    assert container.supervise(act) == 0


@pytest.mark.parametrize(
    ("verb", "unit", "why"),
    [
        ("start", "nut-monitor.service", "there is no nut-monitor.service"),
        ("mask", SERVER, "it does not know how to mask"),
    ],
)
def test_impossible_request_is_refused(container: Container, verb: str, unit: str, why: str) -> None:
    def act() -> None:
        wait_until(lambda: container.find_pid(SERVER))
        with pytest.raises(UnitError, match=why):
            container.manager.change_unit(verb, unit)

    assert container.supervise(act) == 0


@pytest.mark.parametrize("request_line", [b"not json\n", b"[]\n", b'{"command": "show"}\n', b'{"command": "x"}\n', b""])
def test_malformed_request_does_no_harm(container: Container, request_line: bytes) -> None:
    def act() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(container.places.socket))
            connection.sendall(request_line)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(4096).startswith(b'{"error"')
        assert SERVER in container.manager.show_units([SERVER])

    assert container.supervise(act) == 0


def test_socket_is_for_root_only(container: Container) -> None:
    def act() -> None:
        assert container.places.socket.stat().st_mode & 0o777 == 0o600

    assert container.supervise(act) == 0
    assert not container.places.socket.exists()


def test_agent_runs_at_an_event_of_usb_and_at_each_interval(container: Container) -> None:
    def act() -> None:
        wait_until(lambda: container.count_runs("agent") == 1)
        container.events.send(b"add@/devices/virtual/net/x\0ACTION=add\0SUBSYSTEM=net\0")
        time.sleep(0.3)
        assert container.count_runs("agent") == 1
        container.events.send(USB_EVENT)
        wait_until(lambda: container.count_runs("agent") == 2)

    assert container.supervise(act) == 0


def test_event_during_a_run_causes_another_one(container: Container) -> None:
    container.write_program("agent", "#!/bin/sh\necho run >>$0.runs\nsleep 0.5\n")

    def act() -> None:
        wait_until(lambda: container.count_runs("agent") == 1)
        container.events.send(USB_EVENT)
        wait_until(lambda: container.count_runs("agent") == 2, 5)
        time.sleep(1.0)
        assert container.count_runs("agent") == 2

    assert container.supervise(act) == 0


def test_agent_is_not_started_while_nothing_has_changed(container: Container) -> None:
    container.interval = 0.05

    def act() -> None:
        wait_until(lambda: container.count_runs("agent") >= 2)
        container.is_quiet = True
        time.sleep(0.3)
        runs = container.count_runs("agent")
        time.sleep(0.5)
        assert container.count_runs("agent") == runs

    assert container.supervise(act) == 0


def test_sighup_configures_again_and_restarts_nothing_by_itself(container: Container) -> None:
    def act() -> None:
        wait_until(lambda: container.count_runs("agent") == 1)
        before = [container.find_pid(unit) for unit in (SERVER, APC_UNIT)]
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: container.count_runs("configure") == 2)
        wait_until(lambda: container.count_runs("agent") == 2)
        assert [container.find_pid(unit) for unit in (SERVER, APC_UNIT)] == before

    assert container.supervise(act) == 0


def test_failed_reload_goes_on_with_the_old_files(container: Container) -> None:
    def act() -> None:
        wait_until(lambda: container.count_runs("agent") == 1)
        container.write_program("configure", "#!/bin/sh\nexit 1\n")
        os.kill(os.getpid(), signal.SIGHUP)
        wait_until(lambda: any("was not reloaded" in line for line in container.said))
        assert container.find_pid(SERVER)

    assert container.supervise(act) == 0


def test_everything_stops_within_5_seconds_even_a_daemon_that_does_not_want_to(container: Container) -> None:
    container.write_program("upsd", DAEMON.replace("'exit 0' TERM", "'' TERM"))
    stopped: list[float] = []
    pids: list[int] = []

    def act() -> None:
        wait_until(lambda: "nut-server: upsd -F" in container.said and container.find_pid(APC_UNIT))
        pids.extend(container.find_pid(unit) for unit in (SERVER, APC_UNIT))
        stopped.append(time.monotonic())

    assert container.supervise(act) == 0
    assert time.monotonic() - stopped[0] < 5
    assert "nut-server.service did not stop within 3 s; killing it" in container.said
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_only_the_configuration_gets_the_password(container: Container) -> None:
    container.write_program("configure", '#!/bin/sh\necho "given: $SECRET"\n')
    container.write_program("agent", '#!/bin/sh\necho "given: $SECRET"\necho run >>$0.runs\n')
    assert container.supervise(lambda: wait_until(lambda: container.count_runs("agent"))) == 0
    assert "configure: given: of the configuration" in container.said
    assert "nut-hotplug: given:" in container.said


def test_container_without_uevents_says_so_and_looks_at_the_bus_in_turn(container: Container) -> None:
    container.interval, container.has_uevents = 0.1, False
    assert container.supervise(lambda: wait_until(lambda: container.count_runs("agent") > 2)) == 0
    assert any(
        "the kernel does not report USB devices here (Protocol not supported)" in line for line in container.said
    )


def test_leftovers_of_an_earlier_life_are_removed(tmp_path: Path) -> None:
    """A pid file from before would make a driver kill the process that has that number now."""
    places = Places(tmp_path / "etc", tmp_path / "run", tmp_path / "run/nut", tmp_path / "log/hotplug.log", os.getgid())
    places.nut_run_dir.mkdir(parents=True)
    kept = places.nut_run_dir / "keep.txt"
    gone = [places.nut_run_dir / "usbhid-ups-ups.pid", places.run_dir / "homelab-nut-pending.json", places.quiet_note]
    for path in (kept, *gone):
        path.write_text("7\n")
    prepare_directories(places)
    assert kept.exists()
    assert places.log.read_text() == ""
    assert not [path for path in gone if path.exists()]
    assert places.nut_run_dir.stat().st_mode & 0o777 == 0o770


def test_log_is_rotated_when_it_is_large(tmp_path: Path) -> None:
    log = tmp_path / "hotplug.log"
    rotate_log(log)
    log.write_text("short\n")
    rotate_log(log)
    assert log.exists()
    log.write_bytes(b"x" * supervisor_module.LOG_BYTES)
    rotate_log(log)
    assert not log.exists()
    assert (tmp_path / "hotplug.log.1").exists()
