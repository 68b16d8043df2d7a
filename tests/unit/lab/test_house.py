# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The physics of a site: which machines lose their power, and which get it back."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from homelab import house
from homelab.house import OWN_PORT, SECOND_PORT, House
from usb.bus import UsbBus
from usb.emulator import Emulator

DEAD = 1 << 30  # no process has this id
STOPPED = "2026-11-30T12:00:00.000000000+00:00"


class Site:
    """A site whose machines are entries of a dict, and whose UPSes are real emulated ones without a bus."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = dict.fromkeys(("pve8", "truenas", "media"), True)
        self.emulator = Emulator(UsbBus(tmp_path / "bus"))
        monkeypatch.setattr(self.emulator.bus, "plug_device", self.plug_device)
        monkeypatch.setattr(self.emulator.bus, "unplug_device", lambda _port: None)
        monkeypatch.setattr(house, "run_podman", self.run_podman)
        monkeypatch.setattr(House, "control_ups", lambda _house, command, **request: self.ask(command, **request))
        monkeypatch.setattr(House, "_start_listener", lambda _house: None)
        lab = SimpleNamespace(state=tmp_path, container_name=lambda name: name)
        self.ask("plug", model="apc", port=OWN_PORT)
        self.house = House(lab, "pve8", lambda _words: None)  # type: ignore[arg-type]

    async def plug_device(self, _device: object, port: int, _mode: int) -> int:
        self.emulator.bus.device_numbers[port] = port + 1
        return port + 1

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        answer = asyncio.run(self.emulator.answer_line(json.dumps({"command": command, **request}).encode()))
        assert answer["ok"], answer
        return answer

    def run_podman(self, *words: str, check: bool = True) -> SimpleNamespace:
        name = words[-1]
        if words[0] in ("kill", "start"):
            self.running[name] = words[0] == "start"
            if not self.running[name]:
                self.house.pids[name] = DEAD
            return SimpleNamespace(stdout="")
        if "{{.State.Pid}}" in words:
            return SimpleNamespace(stdout=str(os.getpid()))
        status = "running" if self.running[name] else "exited"
        return SimpleNamespace(stdout=json.dumps([{"State": {"Status": status, "FinishedAt": STOPPED}}]))

    def let_time_pass(self) -> None:
        for _tick in range(2):
            self.house._update_physics()

    def empty(self, port: int) -> None:
        self.ask("mains", on=False, port=port)
        self.ask("empty", port=port)
        self.let_time_pass()

    def list_running(self) -> set[str]:
        return {name for name, runs in self.running.items() if runs}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


ALL = {"pve8", "truenas", "media"}


def test_single_ups_powers_all_machines(site: Site) -> None:
    site.empty(OWN_PORT)
    assert site.list_running() == set()
    assert len(site.house.cuts) == 1
    assert [words for _at, words in site.house.events][:1] == ["the UPS cuts the power"]
    site.ask("mains", on=True)
    site.ask("hurry")
    site.let_time_pass()
    assert site.list_running() == ALL
    assert site.house.events[-1][1] == "the UPS restores power"


def test_spare_ups_keeps_the_primary_up(site: Site) -> None:
    site.house._wire_second_ups("spare")
    site.empty(OWN_PORT)
    assert site.list_running() == {"pve8"}
    assert site.house.cuts == []
    assert (0.0, "the UPS cuts the power of media, truenas") in [(0.0, words) for _at, words in site.house.events]
    site.empty(SECOND_PORT)
    assert site.list_running() == set()
    assert len(site.house.cuts) == 1
    site.ask("mains", on=True, port=SECOND_PORT)
    site.ask("hurry", port=SECOND_PORT)
    site.let_time_pass()
    assert site.list_running() == {"pve8"}


def test_primary_that_needs_both_goes_off_with_either(site: Site) -> None:
    site.house._wire_second_ups("needed")
    site.empty(SECOND_PORT)
    assert site.list_running() == {"truenas", "media"}
    assert len(site.house.cuts) == 1


def test_router_ups_powers_no_machine(site: Site) -> None:
    site.house._wire_second_ups("router")
    site.empty(SECOND_PORT)
    assert site.list_running() == ALL
    assert site.house.cuts == []


def test_ups_with_its_cable_pulled_still_gives_power(site: Site) -> None:
    site.house._wire_second_ups("spare")
    site.ask("unplug", port=SECOND_PORT)
    assert site.house.list_unplugged() == [SECOND_PORT]
    site.empty(OWN_PORT)
    assert "pve8" in site.list_running()
    site.ask("mains", on=False)
    site.ask("empty")
    site.let_time_pass()
    assert site.list_running() == set()


def test_second_ups_is_unplugged_for_a_case_without_one(site: Site) -> None:
    site.house._wire_second_ups("router")
    assert [ups["port"] for ups in site.ask("status")["upses"]] == [OWN_PORT, SECOND_PORT]
    site.house._wire_second_ups("")
    assert [ups["port"] for ups in site.ask("status")["upses"]] == [OWN_PORT]
    # what was unplugged is none of the site's UPSes any more
    assert [ups["port"] for ups in site.house._list_upses()] == [OWN_PORT]
    assert site.house.list_unplugged() == []


def test_machine_whose_watchdog_expires_is_cut_off_and_starts_again(site: Site) -> None:
    expired = site.house.lab.state / "hosts/pve8/reset"
    expired.parent.mkdir(parents=True)
    expired.write_text("now")
    site.let_time_pass()
    assert not expired.exists()
    assert [stop.how for stop in site.house.stops] == ["reset"]
    assert site.list_running() == ALL
    # once
    site.let_time_pass()
    assert len(site.house.stops) == 1


def test_cycle_is_over_when_all_run_again(site: Site) -> None:
    assert not site.house.is_cycle_over()
    site.empty(OWN_PORT)
    assert not site.house.is_cycle_over()
    site.ask("mains", on=True)
    site.ask("hurry")
    site.let_time_pass()
    # the time of the cut is the emulator's, and podman's is not that of the test
    site.house.stops = [replace(stop, down=site.house.cuts[-1] - 1) for stop in site.house.stops]
    assert site.house.is_cycle_over()
    site.ask("mains", on=False)
    assert not site.house.is_cycle_over()
    site.ask("mains", on=True)
    site.house.begun["media"] = 1.0
    assert not site.house.is_cycle_over()


def test_large_truenas_boots_late(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.house.case = house.Case("late", "", (), nas_late=60)
    site.empty(OWN_PORT)
    site.ask("mains", on=True)
    site.ask("hurry")
    site.let_time_pass()
    assert site.list_running() == {"pve8", "media"}
    # a second cut on the way
    site.empty(OWN_PORT)
    assert site.house.late == {}
    site.ask("mains", on=True)
    site.ask("hurry")
    site.let_time_pass()
    later = site.house.late["truenas"] + 1
    monkeypatch.setattr(house.time, "time", lambda: later)
    site.let_time_pass()
    assert site.list_running() == ALL
    assert site.house.late == {}
    assert [words for _at, words in site.house.events][-1] == f"truenas{house.LATE}"
