# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container with its real programs, and NUT's, on an emulated USB bus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from homelab import Lab
from homelab.container import LabContainer
from support import wait_until

NAME = "my-ups"
PASSWORD = "s3cret"  # of upsd's user


@pytest.fixture(scope="module")
def container(lab: Lab) -> Iterator[LabContainer]:
    """Return a container that serves a UPS as my-ups."""
    made = LabContainer(lab)
    made.start(SCAN_INTERVAL="3", TZ="Europe/Berlin", API_USER="nas", API_PASSWORD=PASSWORD)
    made.control_ups("plug", "cps")
    yield made
    print(made.read_output())
    made.remove()


@pytest.fixture(autouse=True)
def _served(container: LabContainer) -> None:
    wait_until(lambda: is_on_mains(container), 60, "my-ups to be on mains")


def is_on_mains(container: LabContainer, ups: str = NAME) -> bool:
    return container.read_status(ups).split()[:1] == ["OL"]


def read_value(container: LabContainer, key: str) -> str:
    return container.run("upsc", NAME, key, check=False).stdout.strip()


def read_status(container: LabContainer) -> dict[str, object]:
    """Return what `nut-hotplug status` says, as `docker exec` runs it."""
    found: dict[str, object] = json.loads(container.run("nut-hotplug", "status", "--json").stdout)
    return found


def test_container_is_healthy_and_logs_what_it_does(container: LabContainer) -> None:
    assert container.run("nut-container", "health").stdout == "healthy\n"
    assert "nut-server: " in container.read_output()
    log = container.run("cat", "/var/log/nut/hotplug.log").stdout
    assert "[my-ups] is 0764:0501" in log
    for line in log.splitlines():
        assert line.split(" ", 3)[3] in container.read_output()
    # the time zone of TZ
    assert container.run("date", "+%Z").stdout.strip() in ("CET", "CEST")


def test_password_is_for_upsd_only(container: LabContainer) -> None:
    users = container.run("cat", "/etc/nut/upsd.users").stdout
    assert "[nas]" in users
    assert PASSWORD in users
    programs = {name: pid for pid, name in container.list_host_pids().items() if name in ("upsd", "usbhid-ups")}
    assert len(programs) == 2
    for pid in programs.values():
        assert PASSWORD not in Path("/proc", pid, "environ").read_text()


def test_nut_hotplug_answers_by_exec(container: LabContainer) -> None:
    (ups,) = read_status(container)["upses"]  # type: ignore[misc]
    assert (ups["name"], ups["driver"], ups["status"].split()[0]) == (NAME, "usbhid-ups", "OL")
    assert "nothing to do" in container.run("nut-hotplug", "plan").stdout


def test_daemons_run_as_nut(container: LabContainer) -> None:
    for program in ("upsd", "usbhid-ups"):
        status = container.run("cat", f"/proc/{container.find_pid(program)}/status").stdout
        uid = next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1]
        assert uid == container.run("id", "-u", "nut").stdout.strip() != "0"


def test_pulled_ups_is_stale_then_absent_and_comes_back_under_its_name(container: LabContainer) -> None:
    upsd = container.find_pid("upsd")
    container.control_ups("unplug", "--port", "1")
    wait_until(lambda: "stale" in container.read_status(NAME), 30, "stale data")
    wait_until(lambda: container.read_status(NAME) == "wait wait", 90, "the stand-in")
    assert read_value(container, "driver.name") == "dummy-ups"
    assert container.run("nut-container", "health").stdout == "healthy\n"
    container.control_ups("replug", "--port", "1")
    wait_until(lambda: is_on_mains(container), 60, "my-ups to be on mains again")
    assert container.find_pid("upsd") == upsd


def test_other_make_takes_over_the_name_and_a_second_ups_gets_its_own(container: LabContainer) -> None:
    upsd = container.find_pid("upsd")
    container.control_ups("unplug", "--port", "1")
    container.control_ups("plug", "eaton", "--port", "1")
    wait_until(lambda: read_value(container, "device.mfr") == "EATON", 60, "the other make")
    container.control_ups("plug", "apc", "--port", "3")
    wait_until(lambda: is_on_mains(container, "ups"), 60, "the second UPS")
    assert sorted(container.run("upsc", "-l").stdout.split()) == [NAME, "ups"]
    assert container.find_pid("upsd") == upsd


@pytest.mark.parametrize("program", ["upsd", "usbhid-ups"])
def test_killed_daemon_is_back_within_seconds(container: LabContainer, program: str) -> None:
    pid = container.find_pid(program)
    container.kill(pid)
    wait_until(lambda: container.find_pid(program) not in (0, pid), 5, f"another {program}")
    wait_until(lambda: is_on_mains(container), 30, "my-ups to be on mains")


def test_sighup_reads_the_own_lines_and_restarts_only_what_they_change(container: LabContainer) -> None:
    driver = container.find_pid("usbhid-ups")
    (container.folder / "local/upsd.users").write_text("[me]\n    password = x\n    actions = SET\n")
    container.send_signal("HUP")
    wait_until(lambda: "[me]" in container.run("cat", "/etc/nut/upsd.users").stdout, 30, "the user")
    wait_until(lambda: "reload nut-server.service" in container.read_output(), 30, "upsd to be reloaded")
    assert container.find_pid("usbhid-ups") == driver
    (container.folder / "local/upsd.conf").write_text("MAXAGE soon\n")
    container.send_signal("HUP")
    wait_until(lambda: "was not reloaded" in container.read_output(), 30, "the refusal")
    assert is_on_mains(container)
    (container.folder / "local/upsd.conf").unlink()


def test_nothing_is_restarted_on_battery(container: LabContainer) -> None:
    container.control_ups("mains", "off")
    wait_until(lambda: "OB" in container.read_status(NAME), 30, "the UPS to be on battery")
    (container.folder / "local/upsd.users").write_text("[you]\n    password = x\n")
    container.send_signal("HUP")
    wait_until(lambda: "waiting until the mains are back" in container.read_output(), 30, "the refusal")
    assert "[you]" not in container.run("cat", "/etc/nut/upsd.users").stdout
    container.control_ups("mains", "on")


def test_container_stops_within_5_seconds_and_its_names_stay(container: LabContainer) -> None:
    names = container.run("upsc", "-l").stdout.split()
    assert container.stop() < 5
    assert container.read_exit_code() == 0
    container.remove()
    container.start(SCAN_INTERVAL="3", API_USER="nas", API_PASSWORD=PASSWORD)
    wait_until(lambda: is_on_mains(container), 60, "my-ups to be on mains")
    assert container.run("upsc", "-l").stdout.split() == names


def test_bad_value_is_told_and_nothing_starts(container: LabContainer, lab: Lab) -> None:
    container.remove()
    container.start(SCAN_INTERVAL="often", TZ="Mars/Olympus")
    wait_until(lambda: not container.is_running(), 30, "the container to end")
    assert container.read_exit_code() == 2
    assert container.read_output().splitlines() == [
        "the container can't start:",
        "SCAN_INTERVAL=often: must be a number of seconds from 1 to 3600",
        "TZ=Mars/Olympus: is not a time zone. Use a name such as Europe/Berlin",
    ]
    container.remove()
    container.start(SCAN_INTERVAL="3")
