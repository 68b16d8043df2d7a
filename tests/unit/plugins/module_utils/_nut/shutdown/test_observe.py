# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import observe, probe
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.gate import GateReading
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import GuestId, UpsAddress
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.gate_policy import NAS, VM


def test_machines_are_observed_by_network_and_proxmox(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    answers = {"100": (0, "status: running\n"), "101": (0, "status: stopped\n"), "102": (2, "no such guest\n")}

    def run(command: Any) -> tuple[int, str]:
        asked.append(list(command))
        return answers[command[5]]

    hosts = [
        replace(VM, name="runs"),
        replace(VM, name="stopped", guest=GuestId("pct", 101)),
        replace(VM, name="unknown", guest=GuestId("qm", 102)),
        replace(NAS, name="here", addresses=("localhost",), ports=(1,)),
        replace(NAS, name="nobody knows", addresses=("nas.invalid",), ports=(1,)),
    ]

    def resolve(name: str, seconds: float) -> tuple[str, ...]:
        if name != "localhost":
            raise OSError(name)
        return ("127.0.0.1",)

    looker = observe.MachineObserver(hosts, run, clock.read_boottime, resolve=resolve, root=tmp_path)
    try:
        assert looker() == {
            "runs": True,
            "stopped": False,
            "unknown": None,
            "here": True,
            "nobody knows": None,
        }
        assert looker.targets[0] == probe.ProbeTarget("here", ("127.0.0.1",), (1,))
    finally:
        looker.stop_polling()
    assert {tuple(command[3:]) for command in asked} == {
        ("qm", "status", "100"),
        ("pct", "status", "101"),
        ("qm", "status", "102"),
    }


def test_old_answer_about_guest_is_unknown(tmp_path: Path) -> None:
    now = [1000.0]
    looker = observe.MachineObserver([VM], lambda command: (0, "status: running"), lambda: now[0], root=tmp_path)
    try:
        assert looker() == {"vm": True}
        looker.stop_polling()
        looker.guests["vm"].join(10)
        now[0] += observe.GUEST_STALE_SECONDS
        assert looker() == {"vm": True}
        now[0] += 0.1
        assert looker() == {"vm": None}
    finally:
        looker.stop_polling()


def test_hanging_qm_does_not_delay_gate(tmp_path: Path) -> None:
    stuck = threading.Event()

    def run(command: Any) -> tuple[int, str]:
        stuck.wait()
        return 0, "status: running"

    looker = observe.MachineObserver([VM], run, clock.read_boottime, seconds=0.01, root=tmp_path)
    try:
        assert looker() == {"vm": None}
    finally:
        looker.stop_polling()
        stuck.set()


def test_slow_name_lookup_does_not_delay_gate() -> None:
    stuck = threading.Event()

    def resolve(name: str, seconds: float) -> tuple[str, ...]:
        stuck.wait()
        return ("127.0.0.1",)

    looker = observe.MachineObserver(
        [replace(NAS, addresses=("slow.example", "192.0.2.7"))],
        lambda c: (1, ""),
        clock.read_boottime,
        seconds=0.01,
        resolve=resolve,
    )
    stuck.set()
    assert looker.targets == [probe.ProbeTarget("nas", ("192.0.2.7",), (22, 443))]


def test_upsd_is_polled_for_each_ups() -> None:
    answers = {
        "GET VAR ups ups.status": 'VAR ups ups.status "FSD OB LB"\n',
        "GET VAR ups battery.runtime": 'VAR ups battery.runtime "240"\n',
        "GET VAR bare ups.status": 'VAR bare ups.status "OL"\n',
        "GET VAR bare battery.runtime": "ERR VAR-NOT-SUPPORTED\n",
        "GET VAR stale ups.status": "ERR DATA-STALE\n",
    }
    with serve_answers(answers) as server:
        here = {"host": "127.0.0.1", "port": server.port}
        assert observe.read_ups(UpsAddress("ups", **here), lambda: 7.0) == GateReading(True, 240.0, 7.0, fsd=True)
        assert observe.read_ups(UpsAddress("bare", **here), lambda: 7.0) == GateReading(False, None, 7.0)
        with pytest.raises(net_errors.DataStale):
            observe.read_ups(UpsAddress("stale", **here), lambda: 7.0)
        upses = [UpsAddress("ups", **here), UpsAddress("stale", **here)]
        asker = observe.UpsObserver(upses, lambda: 7.0)
        for poll in asker.polls.values():
            assert poll.first_call_done.wait(10)
        assert asker() == {str(upses[0]): GateReading(True, 240.0, 7.0, fsd=True)}
        asker.stop_polling()
        for poll in asker.polls.values():
            poll.join(10)


# FSD again


KNOWN = {
    "GET VAR ups battery.runtime": 'VAR ups battery.runtime "100"\n',
    "USERNAME monitor": "OK\n",
    "PASSWORD secret": "OK\n",
}
LOGIN = ("monitor", "secret")


def test_lost_fsd_is_set_again(tmp_path: Path) -> None:
    said: list[str] = []
    answers = {**KNOWN, "GET VAR ups ups.status": 'VAR ups ups.status "OL"\n', "FSD ups": "OK FSD-SET\n"}
    with serve_answers(answers) as server:
        ups = UpsAddress("ups", "127.0.0.1", server.port)
        remind_fsd = observe.FsdReminder({str(ups): LOGIN}, said.append)
        assert observe.read_ups(ups, lambda: 7.0, remind_fsd=remind_fsd).on_battery is False
        asked = [line for line in server.asked if "GET" not in line]
        assert asked[:3] == ["USERNAME monitor", "PASSWORD secret", "FSD ups"]
        # a LOGIN would count as another secondary
        assert not any(line.startswith("LOGIN") for line in asked)
        observe.read_ups(ups, lambda: 8.0, remind_fsd=remind_fsd)
    assert said == ["upsd did not report FSD for ups: set it again, so that all machines shut down"]


@pytest.mark.parametrize(("status", "known"), [("OB LB FSD", True), ("FSD OL", True), ("OL", False)])
def test_fsd_is_set_only_if_missing_and_login_is_known(status: str, known: bool) -> None:
    with serve_answers({**KNOWN, "GET VAR ups ups.status": f'VAR ups ups.status "{status}"\n'}) as server:
        ups = UpsAddress("ups", "127.0.0.1", server.port)
        observe.read_ups(
            ups, lambda: 7.0, remind_fsd=observe.FsdReminder({str(ups): LOGIN} if known else {}, pytest.fail)
        )
        assert not [line for line in server.asked if "FSD" in line or "USERNAME" in line]


def test_refused_fsd_is_logged_and_reading_counts() -> None:
    said: list[str] = []
    answers = {**KNOWN, "GET VAR ups ups.status": 'VAR ups ups.status "OB"\n', "FSD ups": "ERR ACCESS-DENIED\n"}
    with serve_answers(answers) as server:
        ups = UpsAddress("ups", "127.0.0.1", server.port)
        remind_fsd = observe.FsdReminder({str(ups): LOGIN}, said.append)
        for _unused in range(2):
            assert observe.read_ups(ups, lambda: 7.0, remind_fsd=remind_fsd).on_battery is True
    assert len(said) == 1
    assert "setting it again failed" in said[0]


def test_primary_login_is_found_in_upsmon_conf(tmp_path: Path) -> None:
    conf = tmp_path / "upsmon.conf"
    conf.write_text(
        'MONITOR ups@localhost:3493 1 monitor "pass word" primary\nMONITOR other@localhost 0 x y secondary\n'
        "MONITOR rack@localhost 1 old secret master\nMONITOR ups@192.0.2.9 1 far away primary\n"
    )
    upses = [UpsAddress("ups"), UpsAddress("other"), UpsAddress("rack")]
    assert observe.read_primary_logins(conf, upses) == {
        str(upses[0]): ("monitor", "pass word"),
        str(upses[2]): ("old", "secret"),
    }
    assert observe.read_primary_logins(tmp_path / "none", upses) == {}
