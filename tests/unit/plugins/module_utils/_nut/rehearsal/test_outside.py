# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import startup
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    job,
    outside,
    simulation,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import gate, observe
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import NAS, RehearsalSystemd, make_host, make_policy


def upsd_says(status: str, runtime: str | None = "240") -> dict[str, str]:
    lines = f'VAR ups ups.status "{status}"\n' + (f'VAR ups battery.runtime "{runtime}"\n' if runtime else "")
    return {"LIST VAR ups": f"BEGIN LIST VAR ups\n{lines}END LIST VAR ups\n"}


@pytest.mark.parametrize(("runtime", "left"), [("240", 240.0), (None, None), ("soon", None), ("0", None)])
def test_runtime_is_read_from_the_real_ups(runtime: str | None, left: float | None) -> None:
    with serve_answers(upsd_says("OL CHRG", runtime)) as server:
        assert (
            outside.ask_real_upsd(make_policy(upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}]))
            == left
        )


@pytest.mark.parametrize(
    "status", ["OB DISCHRG", "OB LB", "FSD OL", "OL LB", "OL OB", "OL BYPASS", "BYPASS", "OL CAL", "OL OFF", ""]
)
def test_drill_is_refused_unless_ups_is_on_mains(status: str) -> None:
    with (
        serve_answers(upsd_says(status)) as server,
        pytest.raises(
            job.RehearsalRefused, match=f"ups reports {status or 'no status'}, which does not count as on mains"
        ),
    ):
        outside.ask_real_upsd(make_policy(upses=[{"name": "ups", "host": "127.0.0.1", "port": server.port}]))


def test_drill_is_refused_if_upsd_does_not_answer() -> None:
    upses = [{"name": "ups", "host": "127.0.0.1", "port": simulation.find_free_port()}]
    with pytest.raises(job.RehearsalRefused, match="cannot tell whether a real shutdown is imminent"):
        outside.ask_real_upsd(make_policy(upses=upses))


def test_shortest_runtime_counts() -> None:
    with serve_answers(upsd_says("OL", "240")) as longer, serve_answers(upsd_says("OL", "120")) as shorter:
        upses = [{"name": "ups", "host": "127.0.0.1", "port": server.port} for server in (longer, shorter)]
        assert outside.ask_real_upsd(make_policy(upses=upses)) == 120


def test_job_comes_from_policy_and_upsmon_conf(tmp_path: Path) -> None:
    host = make_host(tmp_path, conf=None)
    with pytest.raises(job.RehearsalRefused, match=f"{host.conf_path} can't be read"):
        outside.make_job(make_policy(NAS), 10, host)
    host = make_host(tmp_path, conf="HOSTSYNC 42\n")
    with serve_answers(upsd_says("OL")) as server:
        upses = [{"name": "ups", "host": "127.0.0.1", "port": server.port}]
        made = outside.make_job(make_policy(NAS, upses=upses, stages=[{"name": "x"}]), 10, host)
    name = job.name_primary(make_policy(NAS))
    assert made == job.Job(make_policy(NAS), {**job.TIMING, "HOSTSYNC": 42}, 240.0, 10, name)
    for outage in (-1, 3601, float("nan")):
        with pytest.raises(job.RehearsalRefused, match="--outage must be from 0 to 3600 s"):
            outside.make_job(make_policy(NAS), outage, host)


class Outer:
    """The outer half, with a script in place of systemd-run."""

    def __init__(self, folder: Path, script: str, upses: Any = ()) -> None:
        self.said: list[str] = []
        self.run = RehearsalSystemd()
        self.host = make_host(folder, self.run, conf="")
        program = folder / "bin/systemd-run"
        program.write_text(f'#!/bin/sh\ncd {folder}\necho "$@" >words\n{script}\n')
        program.chmod(0o755)
        self.policy = make_policy(NAS, upses=list(upses))

    def __call__(self, user: int = 0) -> int:
        host = dataclasses.replace(self.host, user=lambda: user)
        return outside.hold_drill(self.policy, 10, host, self.said.append, as_json=True)


@pytest.mark.parametrize(("code", "gives"), [(0, 0), (1, 1), (2, 2), (247, 1), (143, 1)])
def test_outer_half_passes_job_and_exit_code(tmp_path: Path, code: int, gives: int) -> None:
    outer = Outer(tmp_path, f"head -n 1 >job; exit {code}")
    assert outer() == gives
    made = job.read_job((tmp_path / "job").read_text())
    assert (made.policy, made.runtime, made.outage) == (make_policy(NAS), None, 10)
    words = (tmp_path / "words").read_text().split()
    assert f"--property=RuntimeMaxSec={made.time_limit + 30:.0f}" in words
    assert words[-5:] == ["python", "me", "drill", "--inside", "--json"]
    assert outer.said == ([f"the drill was ended from outside (exit code {code})"] if gives != code else [])
    assert [command[:2] for command in outer.run.ran] == [["systemctl", "show"]]


@pytest.mark.parametrize(
    ("code", "container", "words"),
    [
        (
            226,
            "lxc",
            r"give it a file system of its own \(226/NAMESPACE\)\. This host is a container \(lxc\): allow nesting",
        ),
        (225, "", r"separate its network \(225/NETWORK\)\. See journalctl -u nut-shutdown-drill\. Nothing was done"),
        (228, "podman", r"filter its system calls \(228/SECCOMP\)\. This host is a container \(podman\)"),
    ],
)
def test_host_that_cannot_fence_the_drill_off_is_told_why(
    tmp_path: Path, code: int, container: str, words: str
) -> None:
    outer = Outer(tmp_path, f"head -n 1 >job; exit {code}")
    if container:
        (tmp_path / "run/systemd/container").write_text(container)
    with pytest.raises(
        job.RehearsalRefused, match=f"^systemd can't fence the drill off on this host: it can't {words}"
    ):
        outer()
    assert outer.said == []


def test_drill_that_a_signal_ended_names_it(tmp_path: Path) -> None:
    outer = Outer(tmp_path, "head -n 1 >job; kill -KILL $$")
    assert outer() == 1
    assert outer.said == ["the drill was ended from outside (signal 9)"]


def test_drill_says_what_a_shutdown_does_while_guests_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outer = Outer(tmp_path, "head -n 1 >job")
    monkeypatch.setattr(startup, "read_state", lambda _run: "activating")
    assert outer() == 0
    assert outer.said == [startup.describe_state("activating")]


def test_drill_needs_root(tmp_path: Path) -> None:
    with pytest.raises(job.RehearsalRefused, match="must run as root"):
        Outer(tmp_path, "")(user=1000)
    assert not (tmp_path / "words").exists()


def test_real_power_failure_stops_drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asker:
        """Reports on mains until the drill has begun, then unknown, then on battery."""

        def __init__(self, upses: Any, clock: Any) -> None:
            self.asked: list[bool | None] = []
            self.closed = False
            made.append(self)

        def __call__(self) -> dict[str, gate.GateReading]:
            begun = (tmp_path / "begun").exists()
            self.asked.append((True if None in self.asked else None) if begun else False)
            return {"ups": gate.GateReading(self.asked[-1], 100.0, 1.0)}

        def stop_polling(self) -> None:
            self.closed = True

    made: list[Asker] = []
    monkeypatch.setattr(observe, "UpsObserver", Asker)
    outer = Outer(tmp_path, "read job; touch begun; timeout 30 cat && exit 1; exit 2")
    assert outer() == 1
    assert outer.said == ["real power failure: ups is on battery. Stopping the drill"]
    assert made[0].asked[-1] is True
    assert made[0].closed


def test_stuck_drill_is_stopped_by_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "ENDING", 0.1)
    outer = Outer(tmp_path, "touch begun; trap '' TERM; sleep 2; exit 1")

    def interrupt() -> None:
        while not (tmp_path / "begun").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    before = signal.getsignal(signal.SIGTERM)
    assert outer() == 1
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before
    assert outer.run.ran[1:] == [["systemctl", "stop", "--", "nut-shutdown-drill.service"]]
