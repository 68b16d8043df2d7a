# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stand-in's qm and pct against recorded answers of the real ones, and what guests note of themselves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.tests.unit.support import proxmox_commands
from pve import programs, stand_in
from pve.host import print_warning
from pve.options import CommandError
from pve.settings import GuestProperties
from pve.stand_in import GuestFolder

SPEED = 500.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GuestFolder]:
    new_host = GuestFolder(tmp_path, SPEED)
    new_host.change_settings(name="pve1")
    yield new_host
    new_host.kill_all()


@pytest.fixture
def call(host: GuestFolder, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str, str]]:
    """Return a function that runs a command line as the programs do, and returns exit code, stdout and stderr."""

    def run_line(line: str) -> tuple[int, str, str]:
        program, *words = line.split()
        capsys.readouterr()
        try:
            said, code = programs.run_any(host, program, words), 0
        except CommandError as error:
            print_warning(str(error))
            said, code = "", error.code
        shown = capsys.readouterr()
        return code, shown.out + said, shown.err

    return run_line


# Guests of the recordings. 999 does not exist, and 100 is a VM.
GUESTS = {
    100: GuestProperties(),
    102: GuestProperties(shutdown=None),
    103: GuestProperties(lock="backup"),
    104: GuestProperties(),
    105: GuestProperties(),
    106: GuestProperties(),
    110: GuestProperties(monitor=False),
    111: GuestProperties(shutdown=None, stubborn=True),
    201: GuestProperties(kind="pct"),
    203: GuestProperties(kind="pct", lock="snapshot"),
}
STATES = {104: "io-error", 105: "paused", 106: "prelaunch"}
DOWN = {101: GuestProperties(storage="nas"), 200: GuestProperties(kind="pct")}


def select_calls(*, quorum: bool) -> list[Any]:
    calls = [call for call in proxmox_commands.CALLS if call.get("quorum", True) is quorum]
    return [pytest.param(call, id=call["call"]) for call in calls]


@pytest.mark.parametrize("row", select_calls(quorum=True))
def test_program_answers_as_recorded(
    host: GuestFolder, call: Callable[[str], tuple[int, str, str]], row: dict[str, Any]
) -> None:
    host.change_settings(storages={"local": "on", "nas": "off"})
    number = int(row["call"].split()[2])
    for known, guest in {**GUESTS, **DOWN}.items():
        host.save_guest(known, guest)
    if number in GUESTS:
        host.start_process(number)
        host.change_guest(number, state=STATES.get(number, "running"))
    before = bool(host.find_pid(number))
    assert call(row["call"]) == (row["code"], row["stdout"], row["stderr"])
    assert before - bool(host.find_pid(number)) == row["ends"]


@pytest.mark.parametrize("row", select_calls(quorum=False))
def test_program_answers_without_quorum_as_recorded(
    host: GuestFolder, call: Callable[[str], tuple[int, str, str]], row: dict[str, Any]
) -> None:
    host.change_settings(quorum="off")
    host.save_guest(101, GuestProperties())
    host.save_guest(200, GuestProperties(kind="pct"))
    host.add_guest(100)
    host.add_guest(104, ha=True)
    assert call(row["call"]) == (row["code"], row["stdout"], row["stderr"])
    assert host.find_pid(104)
    assert bool(host.find_pid(100)) is not row["ends"]


def test_request_to_ha_fails_late_without_quorum(host: GuestFolder, call: Callable[[str], object]) -> None:
    host.change_settings(quorum="off")
    host.add_guest(104, ha=True)
    call("qm shutdown 104 --timeout 5 --forceStop 1")
    assert (host.runtime / "took").read_text() == "12\n"


def test_ha_keeps_stopped_guest_stopped_until_it_is_asked_for_a_start(
    host: GuestFolder, call: Callable[[str], tuple[int, str, str]]
) -> None:
    host.add_guest(104, ha=True, shutdown=1)
    assert call("qm shutdown 104 --timeout 5 --forceStop 1") == (0, "Requesting HA stop for VM 104\n", "")
    host.wait_for_end(104)
    assert host.read_guest(104).ha_state == "stopped"
    assert call("qm start 104") == (0, "Requesting HA start for VM 104\n", "")
    assert host.read_guest(104).ha_state == "started"


def test_disarmed_ha_leaves_its_guests_to_qm(host: GuestFolder, call: Callable[[str], tuple[int, str, str]]) -> None:
    host.add_guest(104, ha=True, shutdown=1)
    assert call("ha-manager crm-command disarm-ha ignore") == (0, "", "")
    assert call("qm shutdown 104 --timeout 5 --forceStop 1") == (0, "", "")
    host.change_settings(release="8.4.21", disarm="")
    assert call("ha-manager crm-command disarm-ha ignore")[0] == 255


def test_vzdump_ends_a_backup_and_leaves_other_locks(
    host: GuestFolder, call: Callable[[str], tuple[int, str, str]]
) -> None:
    for number, guest in {
        101: GuestProperties(lock="backup", backup=True),
        102: GuestProperties(lock="backup"),
        103: GuestProperties(lock="migrate"),
    }.items():
        host.save_guest(number, guest)
    assert call("vzdump -stop") == (0, "", "")
    assert [guest.lock for guest in host.list_guests().values()] == ["", "backup", "migrate"]


def test_lxc_stop_needs_neither_lock_nor_cluster(
    host: GuestFolder, call: Callable[[str], tuple[int, str, str]]
) -> None:
    host.change_settings(pmxcfs=False, quorum="off")
    host.add_guest(201, kind="pct", lock="backup")
    host.add_guest(202, kind="pct", shutdown=None)
    host.add_guest(203, kind="pct", shutdown=None)
    assert call("lxc-stop -n 201 --timeout 30") == (0, "", "")
    assert call("lxc-stop -n 202 --timeout 3") == (0, "", "")
    assert call("lxc-stop -n 203 --nokill --timeout 3")[0] == 1
    assert [number for number in host.list_guests() if host.find_pid(number)] == [203]
    assert call("lxc-stop -n 203 --kill") == (0, "", "")
    code, _out, err = call("lxc-stop -n 203 --kill")
    assert (code, err.rstrip().endswith("203 is not running")) == (2, True)
    assert call("lxc-stop -n 999")[0] == 2


def test_vm_at_its_time_limit_is_forced(host: GuestFolder, call: Callable[[str], tuple[int, str, str]]) -> None:
    """qm counts seconds: a VM that needs all of them is too late."""
    host.add_guest(101, shutdown=20)
    assert call("qm shutdown 101 --timeout 20 --forceStop 1") == (
        0,
        "",
        "VM still running - terminating now with SIGTERM\n",
    )
    host.add_guest(102, shutdown=19)
    assert call("qm shutdown 102 --timeout 20 --forceStop 1") == (0, "", "")
    assert (host.runtime / "took").read_text() == "20\n19\n"


def test_shutdown_without_timeout_has_a_minute_or_the_time_of_startup(
    host: GuestFolder, call: Callable[[str], tuple[int, str, str]]
) -> None:
    host.add_guest(101, shutdown=None)
    host.add_guest(102, shutdown=None, down=7)
    call("qm shutdown 101 --forceStop 1")
    call("qm shutdown 102 --forceStop 1")
    assert (host.runtime / "took").read_text() == "60\n7\n"


def test_locked_guest_makes_second_program_give_up(host: GuestFolder, call: Callable[[str], object]) -> None:
    host.add_guest(101)
    with host.hold_lock(101, "qm"):
        assert call("qm shutdown 101") == (
            255,
            "",
            "can't lock file '/var/lock/qemu-server/lock-101.conf' - got timeout\n",
        )


def test_program_takes_its_time_to_load_and_may_warn(
    host: GuestFolder, call: Callable[[str], tuple[int, str, str]]
) -> None:
    host.add_guest(101)
    host.change_settings(perl=0.9, noise=True)
    code, out, err = call("qm status 101")
    assert (code, out) == (0, "status: running\n")
    assert err.startswith("perl: warning: ")
    assert (host.runtime / "took").read_text() == "0.9\n"


def test_program_fails_without_cluster_file_system(
    host: GuestFolder, call: Callable[[str], tuple[int, str, str]]
) -> None:
    host.add_guest(101)
    host.change_settings(pmxcfs=False)
    for line in ("qm status 101", "qm shutdown 101", "pvesh create /nodes/localhost/stopall"):
        code, _out, err = call(line)
        assert (code, err.splitlines()[0]) == (111, "ipcc_send_rec[1] failed: Connection refused")
    assert host.find_pid(101)


def test_vm_has_the_process_that_proxmox_looks_for(host: GuestFolder, tmp_path: Path) -> None:
    host.change_settings(pids=str(tmp_path / "run/qemu-server"))
    host.add_guest(201, kind="pct")
    host.add_guest(101)
    assert [path.name for path in (tmp_path / "run/qemu-server").iterdir()] == ["101.pid"]
    pid = int(host.pid_file(101).read_text())
    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    assert words[0].endswith("kvm")
    assert words[words.index("-pidfile") + 1] == "/var/run/qemu-server/101.pid"


# Guests that note their events


@pytest.fixture
def noting(tmp_path: Path) -> Iterator[GuestFolder]:
    """Return a host whose guests note what they do."""
    (tmp_path / "guests").mkdir()
    new_host = GuestFolder(tmp_path / "guests", 20.0, tmp_path / "moments")
    yield new_host
    new_host.kill_all()


def read_moments(host: GuestFolder) -> list[str]:
    assert host.moments
    return [line.split(" ", 1)[1] for line in host.moments.read_text().splitlines()] if host.moments.exists() else []


def await_moment(host: GuestFolder, line: str) -> None:
    deadline = time.monotonic() + 60
    while line not in read_moments(host):
        assert time.monotonic() < deadline, f"never noted: {line}"
        time.sleep(0.01)


def test_guest_shuts_down_after_its_time(noting: GuestFolder) -> None:
    noting.add_guest(101, shutdown=4.0)
    await_moment(noting, "101 started")
    noting.run_program("qm", ["shutdown", "101", "--timeout", "60"])
    assert noting.find_pid(101) == 0
    assert read_moments(noting) == ["101 started", "101 told", "101 down"]
    times = [float(line.split()[0]) for line in noting.moments.read_text().splitlines()]  # type: ignore[union-attr]
    assert times[2] - times[1] >= 0.19
    assert abs(times[0] - time.time()) < 60


def test_second_shutdown_request_changes_nothing(noting: GuestFolder) -> None:
    noting.add_guest(101, shutdown=20.0)
    await_moment(noting, "101 started")
    noting.ask_to_stop(101, noting.read_guest(101))
    noting.ask_to_stop(101, noting.read_guest(101))
    noting.wait_for_end(101)
    assert read_moments(noting) == ["101 started", "101 told", "101 down"]


@pytest.mark.parametrize(("kind", "number"), [("pct", 201), ("qm", 101)])
def test_hanging_guest_is_told_and_killed(noting: GuestFolder, kind: str, number: int) -> None:
    noting.add_guest(number, kind=kind, shutdown=None)
    await_moment(noting, f"{number} started")
    noting.ask_to_stop(number, noting.read_guest(number))
    await_moment(noting, f"{number} told")
    noting.run_program(kind, ["shutdown", str(number), "--timeout", "2", "--forceStop", "1"])
    noting.wait_for_end(number)
    assert read_moments(noting) == [f"{number} started", f"{number} told", f"{number} killed"]


def test_guest_ended_by_systemd_notes_that_it_was_killed(noting: GuestFolder) -> None:
    noting.add_guest(101)
    await_moment(noting, "101 started")
    os.kill(noting.find_pid(101), signal.SIGTERM)
    noting.wait_for_end(101)
    assert read_moments(noting) == ["101 started", "101 killed"]


def test_guest_whose_power_is_cut_notes_nothing(noting: GuestFolder) -> None:
    noting.add_guest(101)
    await_moment(noting, "101 started")
    os.kill(noting.find_pid(101), signal.SIGKILL)
    noting.wait_for_end(101)
    assert read_moments(noting) == ["101 started"]


def test_paused_vm_is_not_told(noting: GuestFolder) -> None:
    noting.add_guest(101)
    await_moment(noting, "101 started")
    noting.change_guest(101, state="paused")
    noting.run_program("qm", ["shutdown", "101", "--forceStop", "1"])
    noting.wait_for_end(101)
    assert read_moments(noting) == ["101 started", "101 killed"]


def test_installed_programs_work_the_guests(noting: GuestFolder, tmp_path: Path) -> None:
    stand_in.install_programs(tmp_path, noting.folder)
    noting.add_guest(101, shutdown=1.0)
    await_moment(noting, "101 started")
    done = subprocess.run([tmp_path / "qm", "shutdown", "101"], check=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0
    assert read_moments(noting)[-1] == "101 down"
    assert sys.executable in (tmp_path / "qm").read_text()


def test_startall_ends_with_0_when_it_is_interrupted(noting: GuestFolder, tmp_path: Path) -> None:
    """So systemd takes pve-guests.service for active afterwards."""
    stand_in.install_programs(tmp_path, noting.folder)
    noting.change_settings(quorum="off")
    command = [tmp_path / "pvesh", "--nooutput", "create", "/nodes/localhost/startall"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "waiting for quorum ...\n"
        program.terminate()
        assert program.communicate(timeout=60)[1] == "received interrupt\n"
        assert program.returncode == 0


def test_container_has_the_socket_that_proxmox_looks_for(noting: GuestFolder) -> None:
    number = 200_000_000 + os.getpid()  # sockets have names for the whole machine
    noting.change_settings(sockets=True)
    noting.add_guest(number, kind="pct")
    name = f" @/var/lib/lxc/{number}/command\n"
    assert name in Path("/proc/net/unix").read_text()
    noting.kill_guest(number)
    assert name not in Path("/proc/net/unix").read_text()


def ask_monitor(host: GuestFolder, number: int, *commands: str) -> list[dict[str, Any]]:
    """Return QEMU's greeting and its answers."""
    path = str(host.pid_file(number).with_suffix(".qmp"))
    deadline = time.monotonic() + 60
    while not Path(path).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        with connection.makefile("rwb") as stream:
            answers = [json.loads(stream.readline())]
            for command in ("qmp_capabilities", *commands):
                stream.write(json.dumps({"execute": command}).encode() + b"\n")
                stream.flush()
                answers.append(json.loads(stream.readline()))
    return answers


def test_monitor_tells_the_state_and_presses_the_power_button(
    noting: GuestFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # paths of sockets must be short
    monkeypatch.chdir(noting.folder)
    noting.change_settings(sockets=True, pids=".")
    noting.add_guest(101, shutdown=1.0)
    noting.change_guest(101, state="io-error")
    answers = ask_monitor(noting, 101, "query-status", "system_powerdown")
    assert "QMP" in answers[0]
    assert answers[1:] == [{"return": {}}, {"return": {"status": "io-error", "running": False}}, {"return": {}}]
    noting.change_guest(101, state="running")
    ask_monitor(noting, 101, "system_powerdown")
    noting.wait_for_end(101)
    assert read_moments(noting) == ["101 started", "101 told", "101 down"]
    noting.add_guest(102)
    ask_monitor(noting, 102, "quit")
    noting.wait_for_end(102)
    assert read_moments(noting)[-2:] == ["102 started", "102 killed"]
