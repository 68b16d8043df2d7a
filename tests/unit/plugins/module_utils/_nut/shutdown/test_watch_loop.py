# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-watch with a stand-in for upsd: a single-threaded process whose writes to clients block."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.clock import CLOCK, Clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.upsd_process import SocketAccessDenied, UpsdProcess
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.vocabulary import ABSENT
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import watch, watch_loop
from ansible_collections.homelab.nut.tests.unit.support.blocked_upsd import (
    SECONDS,
    BlockedHost,
    is_answering,
    list_kinds,
    run_rounds_until,
    wait_until,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def host(tmp_path: Path) -> Iterator[BlockedHost]:
    found = BlockedHost(tmp_path, "OL")
    yield found
    found.stop_upsd()


@pytest.fixture
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the write limit, as with TLS: upsd blocks for ever."""
    monkeypatch.setattr(UpsdProcess, "limit_write_time", lambda _self: None)


@pytest.fixture
def grown_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "START_SECONDS", 0.0)


def test_answering_upsd_is_left_alone(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    for _number in range(3):
        watcher.run_round()
    assert (watcher.power_source, watcher.memory.release, watcher.silence.asks) == (watch.MAINS, "2.8.1", 0)
    assert (host.told, host.lines, list_kinds(watcher)) == ([], [], [])


def test_flood_blocks_upsd_without_watch(host: BlockedHost) -> None:
    """The tests below prove something only because this stand-in hangs."""
    with host.block_upsd():
        assert not is_answering(host, 2)
        assert not is_answering(host, 2)


def test_write_limit_keeps_upsd_free(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    watcher.run_round()
    with pytest.raises(ConnectionResetError):
        host.block_upsd()
    wait_until(lambda: is_answering(host), "it drops the client by itself")
    assert host.told == []


@pytest.mark.usefixtures("no_limit")
def test_blocking_connection_is_closed(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    watcher.run_round()
    with host.block_upsd() as first:
        port = first.getsockname()[1]
        assert not is_answering(host)
        run_rounds_until(watcher, lambda: watch.BLOCKED in list_kinds(watcher), "the connection is found")
        wait_until(lambda: is_answering(host), "upsd is free again")
        watcher.run_round()
    assert watcher.silence.asks == 0
    assert host.told == []
    assert host.lines[0].startswith("127.0.0.1 blocked upsd for ")
    assert f"from port {port}" in host.lines[0]
    assert watch.load_memory(host.saved, "b") == watcher.memory


@pytest.mark.usefixtures("no_limit")
def test_returning_flooder_is_closed_again(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    watcher.run_round()
    for times in (1, 2, 3):
        with host.block_upsd():
            run_rounds_until(
                watcher,
                lambda times=times: watcher.memory.events and watcher.memory.events[-1].times == times,
                "closed",
            )
            wait_until(lambda: is_answering(host), "upsd is free again")
    assert len(host.lines) == 1  # repeated events are counted, not logged
    assert host.told == []


@pytest.mark.usefixtures("grown_up")
def test_stopped_upsd_is_killed_and_restarted(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    watcher.run_round()
    assert host.upsd
    os.kill(host.upsd.pid, signal.SIGSTOP)
    run_rounds_until(watcher, lambda: host.told, "it is restarted")
    assert host.told == ["systemctl kill --signal=KILL nut-server.service", "systemctl restart nut-server.service"]
    assert list_kinds(watcher) == [watch.RESTARTED]
    assert is_answering(host, SECONDS)
    watcher.run_round()
    assert watcher.silence.asks == 0


@pytest.mark.usefixtures("grown_up", "no_limit")
def test_stopped_upsd_with_full_connection_is_restarted(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    watcher.run_round()
    assert host.upsd
    with host.block_upsd():
        os.kill(host.upsd.pid, signal.SIGSTOP)
        run_rounds_until(watcher, lambda: host.told, "it is restarted")
    assert list_kinds(watcher) == [watch.BLOCKED, watch.RESTARTED]


@pytest.mark.usefixtures("grown_up")
def test_fourth_restart_in_an_hour_is_refused(host: BlockedHost) -> None:
    memory = watch.WatchMemory("b")
    for _number in range(watch.RESTARTS):
        memory = memory.with_restart(CLOCK.now())
    watcher = host.make_watcher(memory)
    watcher.run_round()
    assert host.upsd
    os.kill(host.upsd.pid, signal.SIGSTOP)
    run_rounds_until(watcher, lambda: list_kinds(watcher), "it is reported")
    assert list_kinds(watcher) == [watch.NOT_RESTARTED]
    assert "3 times in the last hour" in host.lines[-1]
    assert host.told == []


@pytest.mark.usefixtures("grown_up")
def test_hasty_release_on_battery_is_left_alone_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BATTERY_SECONDS", 9.0)
    host = BlockedHost(tmp_path, "OB DISCHRG")
    try:
        watcher = host.make_watcher()
        watcher.run_round()
        assert watcher.power_source == watch.BATTERY
        assert host.upsd
        os.kill(host.upsd.pid, signal.SIGSTOP)
        run_rounds_until(watcher, lambda: host.told, "it is restarted in the end")
        assert "upsd did not answer for" in host.lines[-1]
        silent = float(host.lines[-1].split(" for ")[1].split(" ")[0])
        assert silent >= watch.BATTERY_SECONDS
    finally:
        host.stop_upsd()


@pytest.mark.usefixtures("grown_up")
@pytest.mark.parametrize("starts_late", [False, True])
def test_release_stays_known_while_upsd_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starts_late: bool
) -> None:
    """upsd 2.8.0 is restarted before its upsmon gives up, even by a watch that was restarted during the hang."""
    monkeypatch.setattr(watch, "BATTERY_SECONDS", 86400.0)
    host = BlockedHost(tmp_path, "OB DISCHRG", "2.8.0")
    try:
        watcher = host.make_watcher()
        watcher.run_round()
        assert host.upsd
        os.kill(host.upsd.pid, signal.SIGSTOP)
        if starts_late:
            watcher = host.make_watcher(watch.load_memory(host.saved, "b"))
        run_rounds_until(watcher, lambda: host.told, "it is restarted")
    finally:
        host.stop_upsd()


def test_new_release_is_noticed(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    watcher.run_round()
    host.stop_upsd()
    host.release = "2.8.5"
    host.start_upsd()
    run_rounds_until(watcher, lambda: watcher.memory.release == "2.8.5", "it is asked again")
    assert watch.load_memory(host.saved, "b").release == "2.8.5"


def test_status_before_silence_counts(tmp_path: Path) -> None:
    host = BlockedHost(tmp_path, "OL,OL")
    try:
        watcher = host.make_watcher()
        watcher.run_round()
        assert watcher.power_source == watch.MAINS
        host.send_order("STATUS OB,OL")
        host.send_order("HANG ups1")
        run_rounds_until(watcher, lambda: watcher.silence.asks, "it is silent")
        assert watcher.power_source == watch.BATTERY
    finally:
        host.stop_upsd()


@pytest.mark.parametrize(("status", "power"), [("OL,OL", watch.MAINS), ("OL,OB", watch.BATTERY)])
def test_power_source_outlasts_stale_data(tmp_path: Path, status: str, power: str) -> None:
    """upsmon does the same."""
    host = BlockedHost(tmp_path, status)
    try:
        watcher = host.make_watcher()
        watcher.run_round()
        host.send_order("STATUS OL,")
        watcher.run_round()
        assert watcher.power_source == power
        host.send_order("STATUS OL")  # the UPS has been removed from ups.conf
        watcher.run_round()
        assert watcher.power_source == watch.MAINS
    finally:
        host.stop_upsd()


@pytest.mark.usefixtures("grown_up")
def test_slow_answer_is_no_hang(host: BlockedHost) -> None:
    """upsd uses the processor for 3 s, then answers: load, not a hang."""
    watcher = host.make_watcher()
    watcher.run_round()
    with socket.create_connection(("127.0.0.1", host.port)) as busy:
        busy.sendall(b"BURN\n")
        run_rounds_until(watcher, lambda: watcher.silence.asks >= watch.ASKS, "it is silent")
        run_rounds_until(watcher, lambda: not watcher.silence.asks, "it answers again")
    assert (host.told, list_kinds(watcher)) == ([], [])


@pytest.mark.usefixtures("grown_up")
def test_absent_upsd_is_not_hung(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    watcher.run_round()
    host.stop_upsd()
    for _number in range(5):
        watcher.run_round()
    assert (host.told, watcher.silence.asks) == ([], 0)
    host.start_upsd()
    watcher.run_round()
    assert watcher.power_source == watch.MAINS


@pytest.mark.usefixtures("grown_up")
def test_upsd_without_readable_sockets_is_restarted(host: BlockedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_unused: object) -> None:
        raise SocketAccessDenied("pidfd_getfd: Operation not permitted")

    monkeypatch.setattr(UpsdProcess, "_copy_descriptor", refuse)
    watcher = host.make_watcher()
    for _number in range(3):
        watcher.run_round()
    assert len(host.lines) == 1
    assert "nut-watch can only restart it" in host.lines[0]
    with host.block_upsd():
        run_rounds_until(watcher, lambda: host.told, "it is restarted")
    assert is_answering(host, SECONDS)


# How much is written


def test_repeated_events_are_saved_once_a_minute(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    watcher.run_round()
    before, moment, wall = host.saves, [1000.0], [5000.0]
    watcher.clock = Clock(lambda: moment[0], lambda: wall[0])
    for _number in range(600):
        watcher.record_event(watch.FLOODED, "192.0.2.9", "192.0.2.9 floods")
        watcher.run_round()
        moment[0] += 1
        wall[0] += 1
    assert len(host.lines) == 1
    assert host.saves - before <= 1 + 600 / watch_loop.SAVE_INTERVAL
    moment[0] += watch_loop.SAVE_INTERVAL
    watcher.run_round()  # the last count is saved when the minute is over
    assert watch.load_memory(host.saved, "b").events[-1].times == 600
    before = host.saves
    moment[0] += 1000
    watcher.run_round()
    assert host.saves == before


def test_restart_is_saved_first(host: BlockedHost) -> None:
    watcher = host.make_watcher()
    for number in (1, 2):
        host.told.clear()
        watcher.restart_upsd("upsd did not answer")
        assert len(watch.load_memory(host.saved, "b").restarts) == number


# Where it listens


def test_deaf_address(host: BlockedHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    assert not watch_loop.is_deaf("127.0.0.1", host.port)
    assert not watch_loop.is_deaf("0.0.0.0", host.port)
    assert watch_loop.is_deaf("127.0.0.1", closed)
    assert watch_loop.is_deaf("*", closed)
    assert not watch_loop.is_deaf("192.0.2.77", closed)  # not an address of this host
    assert not watch_loop.is_deaf("2001:db8::77", closed)
    assert not watch_loop.is_deaf("localhost", closed)
    assert not watch_loop.is_deaf("fe80::1%nowhere", closed)


def test_late_address_restarts_upsd(host: BlockedHost) -> None:
    host.conf.write_text(f"LISTEN 127.0.0.1 {host.port}\nLISTEN 127.0.0.2 {host.port}\n")
    watcher = host.make_watcher()
    moment = [1000.0]
    watcher.clock = Clock(lambda: moment[0])
    for _number in range(6):
        watcher.run_round()
        moment[0] += watch_loop.LISTEN_INTERVAL
    # only once, because it did not help
    assert host.told == ["systemctl kill --signal=KILL nut-server.service", "systemctl restart nut-server.service"]
    assert f"upsd does not listen on 127.0.0.2:{host.port}" in host.lines[0]
    host.conf.write_text(f"LISTEN 127.0.0.1 {host.port}\n")
    watcher.run_round()
    assert watcher.memory.restarted_for == ()


@pytest.mark.parametrize("status", [f"OL,{ABSENT}", "OL,"])
def test_late_address_at_boot_is_served_within_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Independent of the state of other UPSes."""
    host = BlockedHost(tmp_path, status)
    came, moment = 20.0, [5.0]
    monkeypatch.setattr(watch_loop, "is_deaf", lambda address, _port: address == "192.0.2.1" and moment[0] >= came)
    try:
        host.conf.write_text(f"LISTEN 127.0.0.1 {host.port}\nLISTEN 192.0.2.1 {host.port}\n")
        watcher = host.make_watcher()
        watcher.clock = Clock(lambda: moment[0])
        while not host.told and moment[0] < came + 300:
            watcher.run_round()
            moment[0] += watch_loop.INTERVAL
        assert host.told
        assert moment[0] - came <= 2 * watch_loop.LISTEN_INTERVAL + 2 * watch_loop.INTERVAL
    finally:
        host.stop_upsd()


def test_late_address_is_retried_after_refused_restart(host: BlockedHost) -> None:
    host.conf.write_text(f"LISTEN 127.0.0.1 {host.port}\nLISTEN 127.0.0.2 {host.port}\n")
    moment = [1000.0]
    memory = watch.WatchMemory("b")
    for _number in range(watch.RESTARTS):
        memory = memory.with_restart(moment[0])
    watcher = host.make_watcher(memory)
    watcher.clock = Clock(lambda: moment[0])
    for _number in range(3):
        watcher.run_round()
        moment[0] += watch_loop.LISTEN_INTERVAL
    assert (host.told, list_kinds(watcher)) == ([], [watch.NOT_RESTARTED])
    moment[0] += watch.RESTART_SECONDS
    watcher.run_round()
    assert host.told


@pytest.mark.parametrize("status", ["OB DISCHRG", "", "OL,OB"])
def test_restart_for_late_address_waits_for_mains(tmp_path: Path, status: str) -> None:
    host = BlockedHost(tmp_path, status)
    try:
        host.conf.write_text(f"LISTEN 127.0.0.1 {host.port}\nLISTEN 127.0.0.2 {host.port}\n")
        watcher = host.make_watcher()
        moment = [1000.0]
        watcher.clock = Clock(lambda: moment[0])
        for _number in range(6):
            watcher.run_round()
            moment[0] += watch_loop.LISTEN_INTERVAL
        assert host.told == []
    finally:
        host.stop_upsd()
