# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import startup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Systemd:
    """systemd with pve-guests.service, which goes through its processes when they are killed."""

    def __init__(self, *course: str, state: str = "activating", load: str = "loaded") -> None:
        # what the unit runs, one after the other: "control" (its ExecStartPre=), "main" (its ExecStart=), or "" for a moment
        self.course = list(course)
        self.state, self.load = state, load
        self.end = "active"
        self.stubborn = False  # whether its processes ignore SIGTERM
        self.now = 0.0
        self.kills: list[list[str]] = []
        self.begun: list[list[str]] = []
        self.begin_code = 0
        self.lines: list[str] = []

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        words = list(command)
        if words[:2] == ["systemctl", "show"]:
            assert words[-1] == "pve-guests.service"
            if self.state == "activating" and not self.course:
                self.state = self.end
            whom = self.course[0] if self.course else ""
            if whom == "":
                self.course = self.course[1:]
            pids = {name: 7 if whom == key else 0 for name, key in (("MainPID", "main"), ("ControlPID", "control"))}
            lines = [f"{name}={pid}" for name, pid in pids.items()]
            return 0, "\n".join([f"LoadState={self.load}", f"ActiveState={self.state}", *lines]) + "\n"
        if words[:2] == ["systemctl", "kill"]:
            assert words[-1] == "pve-guests.service"
            self.kills.append(words[2:-2])
            assert words[2] == f"--kill-whom={self.course[0]}"
            if not self.stubborn or "--signal=SIGKILL" in words:
                self.course.pop(0)
            return 0, ""
        assert words[0] == "systemd-run"
        self.begun.append(words)
        return self.begin_code, "no bus" if self.begin_code == 1 else "Unit was already loaded or has a fragment file"

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def prepare(self) -> None:
        startup.prepare_poweroff(self.run, self.lines.append, clock=lambda: self.now, pause=self.pause)


def test_start_of_guests_is_interrupted_and_guests_are_stopped_at_poweroff() -> None:
    systemd = Systemd("main")
    systemd.prepare()
    assert systemd.kills == [["--kill-whom=main", "--signal=SIGTERM"]]
    (command,) = systemd.begun
    assert "--property=ExecStop=/usr/bin/pvesh --nooutput create /nodes/localhost/stopall" in command
    # at a poweroff the order is reversed: after pve-guests.service has ended, and while pmxcfs still answers
    assert "--property=Before=pve-guests.service" in command
    assert "--property=After=pve-cluster.service" in command
    assert f"--property=TimeoutStopSec={startup.STOP_LIMIT}" in command
    assert "--remain-after-exit" in command
    assert command[-1] == "/bin/true"
    assert systemd.lines == [
        "pve-guests.service is still starting guests: interrupting it",
        "pve-guests.service is active after 0.5 s",
        "nut-stop-guests.service will shut down the guests at the poweroff, within 1800 s",
    ]


def test_delay_before_the_start_is_interrupted_first() -> None:
    systemd = Systemd("control", "", "main")
    systemd.prepare()
    assert [kill[0] for kill in systemd.kills] == ["--kill-whom=control", "--kill-whom=main"]
    assert len(systemd.begun) == 1


def test_start_that_ignores_sigterm_is_killed() -> None:
    systemd = Systemd("main")
    systemd.stubborn, systemd.end = True, "failed"
    systemd.prepare()
    assert systemd.kills[0][1] == "--signal=SIGTERM"
    assert systemd.kills[-1][1] == "--signal=SIGKILL"
    assert "pve-guests.service is failed after" in systemd.lines[1]
    assert len(systemd.begun) == 1


def test_endless_start_does_not_keep_the_gate_waiting() -> None:
    systemd = Systemd(*[""] * 1000)
    systemd.prepare()
    assert systemd.now <= startup.INTERRUPT_SECONDS + 1
    assert len(systemd.begun) == 1


@pytest.mark.parametrize("state", ["failed", "inactive"])
def test_guests_are_stopped_at_poweroff_if_their_start_failed(state: str) -> None:
    systemd = Systemd(state=state)
    systemd.prepare()
    assert systemd.kills == []
    assert len(systemd.begun) == 1
    assert systemd.lines[0] == f"pve-guests.service is {state}: Proxmox VE will not shut down its guests"


@pytest.mark.parametrize(
    ("state", "load"), [("active", "loaded"), ("deactivating", "loaded"), ("inactive", "not-found")]
)
def test_nothing_is_done_where_proxmox_stops_guests_or_is_not_there(state: str, load: str) -> None:
    systemd = Systemd(state=state, load=load)
    systemd.prepare()
    assert (systemd.kills, systemd.begun, systemd.lines) == ([], [], [])


@pytest.mark.parametrize(
    ("code", "last"),
    [
        (1, "can't have the guests shut down at the poweroff: no bus. They lose their power"),
        (4, "nut-stop-guests.service will shut down the guests at the poweroff, within 1800 s"),
    ],
    ids=["refused", "restarted gate"],
)
def test_failure_to_arrange_the_stop_is_logged(code: int, last: str) -> None:
    systemd = Systemd(state="failed")
    systemd.begin_code = code
    systemd.prepare()
    assert systemd.lines[-1] == last


def test_silent_systemd_counts_as_no_proxmox() -> None:
    lines: list[str] = []
    startup.prepare_poweroff(lambda _command: (124, ""), lines.append)
    assert lines == []


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("activating", "still starting guests: that would be interrupted"),
        ("active", "Proxmox VE would shut down its guests"),
        ("failed", "Proxmox VE would not shut down its guests: nut-stop-guests.service would do it"),
        ("", ""),
    ],
)
def test_drill_says_what_a_shutdown_would_do(state: str, words: str) -> None:
    assert words in startup.describe_state(state)
    assert bool(startup.describe_state(state)) == bool(state)


# How far the start of the guests is


def observe(root: Path, systemd: Systemd, *, quorate: bool = True, config: str = "") -> startup.GuestStart:
    (root / "etc/pve/local").mkdir(parents=True, exist_ok=True)
    nodes = {"pve1": {"online": 1}, "pve2": {"online": int(quorate)}}
    members = {"cluster": {"name": "lab", "quorate": int(quorate)}, "nodelist": nodes}
    (root / "etc/pve/.members").write_text(json.dumps(members))
    (root / "etc/pve/local/config").write_text(config)
    return startup.observe_start(systemd.run, root)


def test_start_that_waits_for_quorum_names_the_missing_nodes(tmp_path: Path) -> None:
    assert observe(tmp_path, Systemd("main"), quorate=False) == startup.GuestStart(
        "activating",
        "pve-guests.service is still starting: waiting for quorum (pve2 offline). Until then no guest starts, also not by hand",
        "start pve2; if they stay off: pvecm expected 1",
        is_endless=True,
    )


def test_delay_before_the_start_is_named(tmp_path: Path) -> None:
    found = observe(tmp_path, Systemd("control", "main"), config="#x\nstartall-onboot-delay: 300\nwakeonlan: x\n")
    assert found.message == (
        "pve-guests.service is still starting: waiting for the delay of 300 s (startall-onboot-delay). Then the guests start"
    )
    assert (found.remedy, found.is_endless) == ("", False)


def test_start_that_waits_for_the_battery_is_named(tmp_path: Path) -> None:
    found = observe(tmp_path, Systemd("control", "main"))
    assert found.message == (
        "pve-guests.service is still starting: waiting for the charge of the battery (nut_server_return). Then the guests start"
    )


def test_start_of_guests_ends_by_itself(tmp_path: Path) -> None:
    found = observe(tmp_path, Systemd("main"))
    assert found == startup.GuestStart(
        "activating", "pve-guests.service is still starting its guests, one after the other"
    )


def test_failed_start_of_guests_has_a_remedy(tmp_path: Path) -> None:
    found = observe(tmp_path, Systemd(state="failed"), quorate=False)
    assert "Proxmox VE may not have started all of its guests" in found.message
    assert found.remedy.startswith("systemctl status pve-guests.service")


@pytest.mark.parametrize(("state", "load"), [("active", "loaded"), ("inactive", "loaded"), ("activating", "not-found")])
def test_start_that_is_over_is_nothing_special(tmp_path: Path, state: str, load: str) -> None:
    found = observe(tmp_path, Systemd("main", state=state, load=load), quorate=False)
    assert (found.message, found.remedy) == ("", "")
