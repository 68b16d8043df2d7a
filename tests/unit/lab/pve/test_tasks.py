# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""startall, stopall, HA and the watchdog of the stand-in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pve import cluster, ha, tasks
from pve.options import CommandError
from pve.settings import GuestProperties, HostSettings
from pve.stand_in import GuestFolder

SPEED = 500.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[GuestFolder]:
    new_host = GuestFolder(tmp_path, SPEED)
    new_host.change_settings(storages={"local": "on", "nas": "off"})
    yield new_host
    new_host.kill_all()


def said(host: GuestFolder, task: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what a task says; how it looks at threads, it may take more seconds than it waits."""
    capsys.readouterr()
    {"start": tasks.start_all, "stop": tasks.stop_all}[task](host)
    shown = capsys.readouterr()
    return (shown.out + shown.err).splitlines()


@pytest.mark.parametrize(
    ("release", "cpus", "given", "workers"),
    [
        ("8.4.21", 16, 0, 16),
        ("8.4.21", 2, 0, 2),
        ("9.0.3", 4, 0, 4),
        ("9.1.1", 16, 0, 16),
        ("9.1.2", 16, 0, 8),
        ("9.2.11", 4, 0, 3),
        ("9.2.11", 2, 0, 1),
        ("9.2.11", 1, 0, 1),
        ("9.2.11", 2, 5, 5),
        ("8.4.21", 2, 1, 1),
    ],
)
def test_count_workers(release: str, cpus: int, given: int, workers: int) -> None:
    assert HostSettings(release=release, cpus=cpus, max_workers=given).count_workers() == workers


def test_guests_are_grouped_by_order_and_those_without_are_last() -> None:
    guests = {
        103: GuestProperties(order=9),
        102: GuestProperties(order=1),
        101: GuestProperties(),
        100: GuestProperties(),
    }
    assert [numbers for _order, numbers in tasks.group_guests(guests)] == [[102], [103], [100, 101]]
    assert tasks.group_guests({}) == []


def test_stopall_goes_from_the_highest_order_down_and_leaves_guests_of_ha(
    host: GuestFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    host.add_guest(100, shutdown=1)
    host.add_guest(101, shutdown=1, order=1, down=33)
    host.add_guest(102, shutdown=1, order=2)
    host.add_guest(103, kind="pct", shutdown=1)
    host.add_guest(104, ha=True)
    host.add_guest(105, running=False)
    host.change_settings(quorum="off", max_workers=1)
    assert [line for line in said(host, "stop", capsys) if line.startswith("Stopping")] == [
        "Stopping CT 103 (timeout = 180 seconds)",
        "Stopping VM 100 (timeout = 180 seconds)",
        "Stopping VM 102 (timeout = 180 seconds)",
        "Stopping VM 101 (timeout = 33 seconds)",
    ]
    assert [number for number in host.list_guests() if host.find_pid(number)] == [104]


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (3, 3)])
def test_stopall_stops_so_many_guests_at_a_time(
    host: GuestFolder, monkeypatch: pytest.MonkeyPatch, workers: int, most: int
) -> None:
    host.change_settings(max_workers=workers)
    together = threading.Barrier(most)
    running: set[int] = set()
    peaks = []

    def stop(number: int, _asked: object) -> str:
        running.add(number)
        peaks.append(len(running))
        together.wait(60)
        running.remove(number)
        return ""

    for number in range(100, 106):
        host.save_guest(number, GuestProperties())
    monkeypatch.setattr(host, "find_pid", lambda _number: 1)
    monkeypatch.setattr(host, "shut_down_vm", stop)
    tasks.stop_all(host)
    assert max(peaks) <= most
    assert len(peaks) == 6
    assert not together.broken


def test_startall_tries_each_guest_once(host: GuestFolder, capsys: pytest.CaptureFixture[str]) -> None:
    host.save_guest(101, GuestProperties(storage="nas", order=1, up=120))
    host.save_guest(102, GuestProperties())
    host.save_guest(103, GuestProperties(onboot=False))
    host.save_guest(104, GuestProperties(ha=True))
    lines = said(host, "start", capsys)
    assert "storage 'nas' is not online" in lines
    assert "Starting VM 101 failed: storage 'nas' is not online" in lines
    assert [number for number in host.list_guests() if host.find_pid(number)] == [102]


@pytest.mark.parametrize(("release", "waits"), [("8.4.21", False), ("9.2.11", True)])
def test_startall_waits_after_a_start_that_failed_only_from_9_1_2_on(
    host: GuestFolder, capsys: pytest.CaptureFixture[str], release: str, waits: bool
) -> None:
    host.change_settings(release=release)
    host.save_guest(101, GuestProperties(storage="nas", up=120))
    assert ("Waiting for 120 seconds (startup delay)" in said(host, "start", capsys)) == waits
    assert (host.waited >= 120) == waits


def test_startall_frees_stale_backup_locks_only(host: GuestFolder, capsys: pytest.CaptureFixture[str]) -> None:
    host.save_guest(101, GuestProperties(lock="backup"))
    host.save_guest(102, GuestProperties(lock="migrate"))
    lines = said(host, "start", capsys)
    assert "removed left over backup lock from '101'!" in lines
    assert "Starting VM 102 failed: VM is locked (migrate)" in lines
    assert [number for number in host.list_guests() if host.find_pid(number)] == [101]


def test_startall_waits_for_quorum(host: GuestFolder, capsys: pytest.CaptureFixture[str]) -> None:
    host.save_guest(101, GuestProperties(kind="pct"))
    host.change_settings(quorum="off")
    thread = threading.Thread(target=tasks.start_all, args=(host,))
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    assert not host.find_pid(101)
    host.change_settings(quorum="on")
    thread.join(60)
    assert host.find_pid(101)
    assert capsys.readouterr().out == "waiting for quorum ...\ngot quorum\n"


def test_startall_ends_when_quorum_is_lost(host: GuestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    host.save_guest(101, GuestProperties(kind="pct"))
    answers = iter([True, False])
    monkeypatch.setattr(host, "has_quorum", lambda: next(answers))
    with pytest.raises(CommandError, match="no quorum"):
        tasks.start_all(host)
    assert not host.find_pid(101)


# The cluster


@pytest.mark.parametrize(
    ("nodes", "there", "quorate"),
    [({}, [], True), ({"b": "b"}, ["b"], True), ({"b": "b"}, [], False), ({"b": "b", "c": "c"}, ["c"], True)],
)
def test_quorum_needs_more_than_half_of_the_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nodes: dict[str, str], there: list[str], quorate: bool
) -> None:
    monkeypatch.setattr(cluster, "answers", lambda address, _port: address in there)
    settings = HostSettings(nodes=nodes, quorum="auto")
    assert cluster.has_quorum(settings, tmp_path) == quorate
    assert cluster.update_quorum(settings, tmp_path) == quorate
    monkeypatch.setattr(cluster, "answers", lambda *_words: not quorate)
    # from now on, what was seen last counts
    assert cluster.has_quorum(settings, tmp_path) == quorate


def test_node_goes_on_for_a_while_after_its_last_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, now = [True], [100.0]
    monkeypatch.setattr(cluster, "answers", lambda *_words: answers[0])
    monkeypatch.setattr(cluster.time, "clock_gettime", lambda _clock: now[0])
    settings = HostSettings(nodes={"b": "b"}, quorum="auto", lasts=30)
    assert cluster.update_quorum(settings, tmp_path)
    answers[0] = False
    for now[0], quorate in ((129.0, True), (131.0, False)):
        assert cluster.update_quorum(settings, tmp_path) == quorate
    assert not cluster.update_quorum(HostSettings(nodes={"c": "c"}, quorum="auto", lasts=30), tmp_path)


def test_quorum_that_is_set_counts(tmp_path: Path) -> None:
    for nodes in ({}, {"b": "b"}, {"b": "b", "c": "c"}):
        for switch in ("on", "off"):
            settings = HostSettings(nodes=nodes, quorum=switch)
            assert cluster.has_quorum(settings, tmp_path) == (switch == "on")
            assert cluster.update_quorum(settings, tmp_path) == (switch == "on")


# HA


def make_manager(host: GuestFolder) -> ha.ResourceManager:
    host.add_guest(104, ha=True, shutdown=1)
    return ha.ResourceManager(host)


def test_watchdog_resets_a_host_that_has_lost_quorum(host: GuestFolder) -> None:
    manager = make_manager(host)
    manager.do_round()
    assert manager.state == "active"
    fed = manager.fed
    assert not manager.is_expired(fed + 59 / SPEED)
    host.change_settings(quorum="off")
    manager.do_round()
    assert (manager.state, manager.fed) == ("lost_agent_lock", fed)
    assert manager.is_expired(fed + 61 / SPEED)
    host.change_settings(quorum="on")
    manager.do_round()
    assert manager.state == "active"
    assert manager.fed > fed


def test_watchdog_runs_on_after_the_guests_were_stopped(host: GuestFolder) -> None:
    manager = make_manager(host)
    manager.do_round()
    host.change_guest(104, ha_state="stopped")
    for _round in range(ha.IDLE_ROUNDS):
        manager.do_round()
    host.change_settings(quorum="off")
    manager.do_round()
    assert manager.is_expired(manager.fed + 61 / SPEED)


def test_watchdog_rests_after_rounds_without_a_guest(host: GuestFolder) -> None:
    manager = make_manager(host)
    manager.do_round()
    host.change_guest(104, ha_state="stopped")
    for _round in range(ha.IDLE_ROUNDS + 1):
        manager.do_round()
    assert manager.state == "wait_for_agent_lock"
    assert not manager.is_expired(manager.fed + 9999)


@pytest.mark.parametrize("what", ["no guest of HA", "disarmed"])
def test_watchdog_is_harmless(host: GuestFolder, what: str) -> None:
    manager = make_manager(host)
    if what == "disarmed":
        manager.do_round()
        host.change_settings(disarm="ignore")
    else:
        host.change_guest(104, ha=False)
    manager.do_round()
    host.change_settings(quorum="off")
    manager.do_round()
    assert not manager.is_expired(time.monotonic() + 9999)


def test_ha_cannot_stop_its_guests_without_quorum(host: GuestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ha, "_is_host_stopping", lambda: True)
    manager = make_manager(host)
    manager.do_round()
    host.change_settings(quorum="off")
    manager.do_round()
    manager.going_down = True
    assert not manager.do_round()
    assert host.find_pid(104)
    host.change_settings(quorum="on")
    assert manager.do_round()
    assert not host.find_pid(104)


def test_ha_starts_and_stops_its_guests(host: GuestFolder) -> None:
    host.save_guest(104, GuestProperties(ha=True, shutdown=1))
    manager = ha.ResourceManager(host)
    (host.runtime / "lrm").write_text("active")

    def await_state(running: bool) -> None:
        deadline = time.monotonic() + 60
        while bool(host.find_pid(104)) != running or manager.busy:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    manager.do_round()
    await_state(True)
    host.run_program("qm", ["shutdown", "104", "--timeout", "9"])
    assert host.find_pid(104)
    manager.do_round()
    await_state(False)
    manager.do_round()
    await_state(False)
