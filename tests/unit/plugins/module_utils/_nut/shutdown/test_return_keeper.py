# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.errors import Unreachable
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import return_keeper, returns
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    AwaitedMachine,
    ReturnPolicy,
    UpsAddress,
    WakeUp,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.return_keeper import ReturnKeeper
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.returns import ReturnState, ReturnView
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.wake import WakeError
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAS, MEDIA = "192.0.2.20", "2001:db8::30"
MAC = "52:54:00:00:00:20"
MACHINES = (
    AwaitedMachine("nas", ("nas.example",), (), None, 60, 90, "ups", WakeUp(MAC)),
    AwaitedMachine("media", (MEDIA,), (), None, 30, 60, "UPS", WakeUp(command=("/usr/local/bin/wake", "media"))),
    AwaitedMachine("dumb", ("192.0.2.40",), (), None, 30, 60, "ups"),
)
ALL = {NAS, MEDIA, "192.0.2.40"}


class Home:
    """A primary with three secondaries. Its clock goes on by 5 s with each look."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "return.json"
        self.now = 5000.0
        self.clients: set[str] | None = ALL
        self.names: dict[str, tuple[str, ...]] = {"nas.example": (NAS,)}
        self.problem = ""
        self.lines: list[str] = []
        self.told: list[str] = []
        self.sent: list[str] = []
        self.commands: list[Sequence[str]] = []
        self.asked = 0
        self.upses = [UpsAddress("ups")]
        self.keeper = self.start("a", 4000.0)

    def start(self, boot: str, booted: float) -> ReturnKeeper:
        self.keeper = ReturnKeeper(
            ReturnPolicy(limit=300),
            MACHINES,
            self.upses,
            self.path,
            boot,
            booted,
            self.run,
            self.lines.append,
            lambda result: self.told.append(returns.spell_result(result)),
            lambda job: job(),
            self.resolve,
            self.list_clients,
            lambda: self.now,
            lambda: 1_800_000_000.0 + self.now,
            self.send,
        )
        return self.keeper

    def list_clients(self, ups: UpsAddress) -> tuple[str, ...]:
        self.asked += 1
        if self.clients is None:
            raise Unreachable("localhost", 3493, "no answer")
        return ("127.0.0.1", *self.clients)

    def resolve(self, name: str, _seconds: float) -> tuple[str, ...]:
        if name not in self.names:
            raise OSError("name server is off")
        return self.names[name]

    def send(self, mac: str) -> tuple[str, ...]:
        if self.problem:
            raise WakeError(self.problem)
        self.sent.append(mac)
        return ("vmbr0",)

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        self.commands.append(command)
        return 1, "no route\nto BMC"

    def pass_time(self, seconds: float, *, outage: bool | None = False, answered: Sequence[str] = ("ups",)) -> None:
        until = self.now + seconds
        while self.now < until:
            self.keeper.update(ReturnView(outage, since=self.now), answered)
            self.now += 5


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.pass_time(60)
    return made


def test_on_mains_upsd_is_asked_twice_a_minute(home: Home) -> None:
    home.asked = 0
    home.pass_time(300)
    assert home.asked == 10
    assert home.keeper.state.expected == ("dumb", "media", "nas")


def test_machines_are_woken_as_the_user_says_and_the_end_is_told(home: Home) -> None:
    home.pass_time(60, outage=True)
    home.clients = set()
    home.pass_time(130)
    assert home.sent == [MAC] * 3
    assert [command[3:] for command in home.commands] == [["/usr/local/bin/wake", "media"]] * 3
    assert home.told == []
    home.clients = {NAS}
    home.pass_time(200)
    assert home.sent == [MAC] * 3
    assert home.told == ["not back after 5 min: dumb; media (woken 5 times)"]
    assert [line for line in home.lines if not line.startswith("can't wake")] == [
        "waiting for dumb, media, nas to come back",
        "waking media: /usr/local/bin/wake",
        f"waking nas: Wake-on-LAN for {MAC}, through vmbr0",
        "nas is back",
        "not back after 5 min: dumb; media (woken 5 times)",
    ]
    assert "can't wake media: /usr/local/bin/wake failed (1): no route to BMC" in home.lines


def test_packet_that_can_not_be_sent_is_logged(home: Home) -> None:
    home.problem = "vmbr0: Network is down"
    home.pass_time(60, outage=True)
    home.clients = set()
    home.pass_time(10)
    assert "can't wake nas: vmbr0: Network is down" in home.lines


def test_machine_keeps_its_address_when_the_name_server_is_off(home: Home) -> None:
    home.names.clear()
    home.pass_time(60)
    home.pass_time(60, outage=True)
    home.pass_time(60)
    assert (home.sent, home.lines) == ([], [])


@pytest.mark.parametrize("answered", [["ups"], []], ids=["upsd does not list clients", "upsd gives no data"])
def test_nobody_is_woken_while_upsd_gives_no_answer(home: Home, answered: list[str]) -> None:
    home.pass_time(60, outage=True)
    if answered:
        home.clients = None
    home.asked = 0
    home.pass_time(60, answered=answered)
    assert home.sent == []
    assert bool(home.asked) == bool(answered)


def test_state_survives_the_boot(home: Home) -> None:
    home.pass_time(60, outage=True)
    home.clients = set()
    home.now = 40.0
    home.start("b", 10.0)
    home.pass_time(10)
    assert home.sent == [MAC]
    home.clients = ALL
    home.pass_time(20)
    assert home.told == ["all back after 40 s (woken: media once, nas once)"]
    assert returns.describe_return(home.path, "b", home.now)[0].startswith("all back after 40 s")


def test_restart_of_the_program_changes_nothing(home: Home) -> None:
    home.pass_time(60, outage=True)
    home.clients = set()
    home.pass_time(30)
    home.start("a", 4000.0)
    home.pass_time(25)
    assert home.sent == [MAC]
    assert records.read_record(ReturnState, home.path, returns.VERSION) == home.keeper.state


def test_machine_that_is_no_secondary_any_more_is_not_awaited(home: Home) -> None:
    state = ReturnState("a", ("former", "nas"), is_out=True)
    home.path.write_text(records.dump_record(state, returns.VERSION))
    assert home.start("a", 4000.0).state.expected == ("nas",)


def test_full_disk_stops_nothing(home: Home) -> None:
    home.path.unlink()
    home.path.mkdir()
    home.pass_time(60, outage=True)
    home.clients = set()
    home.pass_time(10)
    assert home.sent == [MAC]


def test_clients_come_from_upsd() -> None:
    with serve_answers(
        {"LIST CLIENT ups": f"BEGIN LIST CLIENT ups\nCLIENT ups {NAS}\nEND LIST CLIENT ups\n"}
    ) as server:
        assert return_keeper.list_clients(UpsAddress("ups", "127.0.0.1", server.port)) == (NAS,)
