# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.events.catalog import Event
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify import intake
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.intake import Intake
from ansible_collections.homelab.nut.tests.unit.support.gate_policy import POLICY


class Upsmon:
    """Both ends of the socket."""

    def __init__(self, path: Path) -> None:
        self.path, self.now = path, 5000.0
        self.listener = intake.open_socket(path, os.getgid())
        self.intake = Intake(self.listener, lambda: self.now, lambda: 1e9 + self.now)

    def send(self, kind: str, ups: str = "ups@localhost:3493") -> None:
        intake.send_event(intake.encode_event({"NOTIFYTYPE": kind, "UPSNAME": ups}), self.path)

    def names(self) -> list[tuple[str, str]]:
        return [(event.name, event.subject) for event in self.intake.read_events()]


@pytest.fixture
def upsmon(tmp_path: Path) -> Iterator[Upsmon]:
    both = Upsmon(tmp_path / "sock")
    yield both
    both.listener.close()


def test_an_event_of_upsmon_arrives_with_its_time_and_source(upsmon: Upsmon) -> None:
    upsmon.send("ONBATT")
    assert upsmon.intake.read_events() == [Event("mains-failed", "ups", "", 1e9 + 5000, "upsmon")]
    assert upsmon.intake.read_events() == []


def test_only_root_and_the_group_may_send(upsmon: Upsmon) -> None:
    assert upsmon.path.stat().st_mode & 0o777 == 0o660


def test_a_new_service_replaces_the_socket_of_an_old_one(upsmon: Upsmon) -> None:
    again = Upsmon(upsmon.path)
    again.send("ONLINE")
    assert again.names() == [("mains-returned", "ups")]
    again.listener.close()


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("ups@localhost:3493", "ups"),
        ("ups@localhost", "ups"),
        ("ups@127.0.0.1:3493", "ups"),
        ("rack@192.0.2.9:3493", "rack@192.0.2.9:3493"),
    ],
)
def test_a_ups_of_this_host_has_a_short_name(system: str, name: str) -> None:
    assert intake.name_ups(system) == name


@pytest.mark.parametrize(
    ("kind", "ups"),
    [
        ("WALL", "ups"),
        ("", "ups"),
        ("onbatt", "ups"),
        ("ONBATT", "ups\x1b[2J"),
        ("ONBATT", "../../etc"),
        ("ONBATT", "x" * 200),
        ("ONBATT", "a\nb"),
    ],
)
def test_what_upsmon_never_sends_is_ignored(upsmon: Upsmon, kind: str, ups: str) -> None:
    upsmon.send(kind, ups)
    assert upsmon.names() == []


def test_hostile_datagrams_do_no_harm(upsmon: Upsmon) -> None:
    dice = random.Random(7)  # noqa: S311 - not for cryptography
    for _each in range(300):
        data = dice.randbytes(dice.randrange(0, 600))
        if dice.random() < 0.5:
            data = b"ONBATT\n" + data
        try:
            intake.send_event(data, upsmon.path)
        except BlockingIOError:
            upsmon.intake.read_events()
    while upsmon.intake.read_events():
        pass
    assert len(upsmon.intake.accepted) <= intake.RATE


def test_a_flood_is_cut_off_and_reported_once(upsmon: Upsmon) -> None:
    found: list[str] = []
    for _round in range(20):
        for _each in range(8):
            upsmon.send("OVER")
        found += [name for name, _subject in upsmon.names()]
    assert found.count("overload-begun") == intake.RATE
    assert found.count("events-dropped") == 1
    upsmon.now += intake.RATE_SECONDS + 1
    upsmon.send("ONBATT")
    assert upsmon.names() == [("mains-failed", "ups")]


def test_a_sender_never_waits(upsmon: Upsmon) -> None:
    def flood() -> None:
        for _each in range(10_000):
            upsmon.send("ONBATT")

    with pytest.raises(BlockingIOError):
        flood()


LOW = replace(POLICY, runtime_low=600.0)
(UPS,) = POLICY.upses[:1]


@pytest.mark.parametrize(
    ("name", "variables", "words"),
    [
        (
            "mains-failed",
            {"battery.runtime": "2280", "battery.charge": "98", "ups.status": "OB"},
            "The battery has 38 min left and charge 98 %. If the mains do not return, {machines} at about {time}.",
        ),
        ("mains-failed", {"battery.runtime": "0", "battery.charge": "98"}, "The battery has charge 98 %."),
        ("mains-failed", {}, ""),
        ("battery-low", {"battery.runtime": "80"}, "The battery has 80 s left."),
        ("mains-returned", {"battery.runtime": "80", "battery.charge": "20"}, "The battery has charge 20 %."),
        ("data-lost", {"battery.runtime": "80"}, ""),
    ],
)
def test_a_message_says_how_long_the_battery_lasts(name: str, variables: dict[str, str], words: str) -> None:
    event = Event(name, UPS.name, "", 1e9, "upsmon")
    machines = intake.list_machines([machine.name for machine in LOW.machines])
    time = intake.format_time(1e9 + 2280 - 600)[11:16]
    said = intake.describe_power(event, LOW, lambda _ups: variables)
    assert said == words.format(machines=machines, time=time)


def test_a_upsd_that_does_not_answer_changes_nothing() -> None:
    event = Event("mains-failed", UPS.name, "", 1e9, "upsmon")
    assert intake.describe_power(event, LOW, lambda _ups: None) == ""
    assert intake.describe_power(event, None, lambda _ups: {}) == ""


@pytest.mark.parametrize(
    ("names", "words"),
    [(["nas"], "nas shuts down"), (["a", "b"], "a and b shut down"), (["a", "b", "c"], "a, b and c shut down")],
)
def test_machines_in_a_sentence(names: list[str], words: str) -> None:
    assert intake.list_machines(names) == words
