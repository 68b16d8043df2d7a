# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client as net_client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, serve_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@pytest.fixture
def server() -> Iterator[FakeUpsd]:
    with serve_answers() as fake:
        yield fake


def test_snapshot_has_everything(server: FakeUpsd) -> None:
    with server.open_client() as client:
        ups, spare = snapshot.take_snapshot(client, gather=snapshot.GATHER)
    assert ups.commands == {"beeper.mute": "Be quiet", "load.off": ""}
    assert ups.writable == {
        "ups.delay.shutdown": snapshot.WritableVariable(
            "ups.delay.shutdown",
            "020",
            "Seconds",
            net_client.VariableType(True, False, True, None, True),
            (),
            ((-1, 300),),
        ),
        "ups.id": snapshot.WritableVariable(
            "ups.id", "x y", "", net_client.VariableType(True, True, False, 32, False), ("x y", "z"), ()
        ),
    }
    assert (ups.num_logins, len(ups.variables)) == (2, 3)
    assert (spare.error, spare.commands, spare.writable) == ("DATA-STALE", {}, {})


def test_only_requested_parts_are_queried(server: FakeUpsd) -> None:
    server.answers["GET VAR spare ups.status"] = "ERR VAR-NOT-SUPPORTED\n"
    with server.open_client() as client:
        ups, spare = snapshot.take_snapshot(client, gather=())
    assert (ups.status, ups.fresh, ups.variables, ups.clients, ups.num_logins) == (("OL", "CHRG"), True, {}, (), None)
    assert (spare.status, spare.fresh, spare.error) == ((), False, None)
    assert server.asked == ["LIST UPS", "GET VAR ups ups.status", "GET VAR spare ups.status"]


def test_description_is_queried_once(server: FakeUpsd) -> None:
    server.answers["LIST CMD spare"] = (
        "BEGIN LIST CMD spare\nCMD spare load.off\nCMD spare BEEPER.mute\nEND LIST CMD spare\n"
    )
    server.answers["GET VAR spare ups.status"] = 'VAR spare ups.status "OL"\n'
    with server.open_client() as client:
        _ups, spare = snapshot.take_snapshot(client, gather=[snapshot.COMMANDS])
    assert spare.commands == {"load.off": "", "BEEPER.mute": "Be quiet"}
    assert sum(request.startswith("GET CMDDESC") for request in server.asked) == 2


def test_writable_variable_is_found_without_case(server: FakeUpsd) -> None:
    with server.open_client() as client:
        variable = snapshot.find_writable(client, "ups", "UPS.id")
        assert variable is not None
        assert (variable.name, variable.value) == ("ups.id", "x y")
        assert snapshot.find_writable(client, "ups", "ups.status") is None
        with pytest.raises(net_errors.VarNotSupported):
            snapshot.find_writable(client, "ups", "nix")


def test_unexpected_clients_are_listed(server: FakeUpsd) -> None:
    with server.open_client() as client:
        assert snapshot.observe_upsd(client, ["ups"], ["pve"], resolve_name).unexpected == ("192.0.2.3",)
        assert snapshot.observe_upsd(client, ["ups"], ["pve", "nas"], resolve_name).unexpected == ()
        assert snapshot.observe_upsd(client, ["ups"], ["192.0.2.3"], lambda name, timeout: (name,)).unexpected == (
            "127.0.0.1",
        )
        assert snapshot.observe_upsd(client, ["ups"]).unexpected == ()
        # clients are queried if any are expected
        report = snapshot.observe_upsd(client, ["ups"], ["nas"], resolve_name, gather=[])
        assert (report.missing, report.upses[0].variables) == ((), {})
        assert (report.tls_version, report.tls_expires) == (None, None)


def test_snapshot_lists_states_and_clients(server: FakeUpsd) -> None:
    with server.open_client() as client:
        ups, spare = snapshot.take_snapshot(client)
    assert (ups.name, ups.description, ups.status, ups.fresh, ups.error) == (
        "ups",
        'Rack "A" #1 \\',
        ("OL", "CHRG"),
        True,
        None,
    )
    assert (ups.clients, ups.num_logins) == (("127.0.0.1", "::ffff:192.0.2.3"), 2)
    assert (spare.status, spare.fresh, spare.error, spare.clients) == ((), False, "DATA-STALE", ())
    assert (spare.variables, spare.num_logins) == ({}, None)


def test_snapshot_can_be_limited_to_some_upses(server: FakeUpsd) -> None:
    with server.open_client() as client:
        assert [state.name for state in snapshot.take_snapshot(client, ["UPS"])] == ["ups"]
        assert snapshot.take_snapshot(client, []) == ()
        with pytest.raises(net_errors.UnknownUps, match="UNKNOWN-UPS to the question for 'nix': it serves ups, spare"):
            snapshot.take_snapshot(client, ["ups", "nix"])


@pytest.mark.parametrize("status", ['VAR ups ups.status "WAIT"\n', "", 'VAR ups ups.status ""\n'])
def test_waiting_driver_is_not_fresh(status: str) -> None:
    answers = {"LIST VAR ups": f"BEGIN LIST VAR ups\n{status}END LIST VAR ups\n"}
    with serve_answers(answers) as server, server.open_client() as client:
        (state,) = snapshot.take_snapshot(client, ["ups"])
        assert (state.fresh, state.error) == (False, None)
        assert not snapshot.observe_upsd(client, ["ups"]).is_ok


NAMES = {"pve": ("127.0.1.1",), "nas": ("2001:db8::3", "192.0.2.3"), "vm": ("192.0.2.4",)}


def resolve_name(name: str, timeout: float) -> Sequence[str]:
    try:
        return NAMES[name]
    except KeyError:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None


def test_report_without_problems_is_ok(server: FakeUpsd) -> None:
    with server.open_client() as client:
        report = snapshot.observe_upsd(client, ["ups"], ["pve", "nas"], resolve_name)
    assert report.is_ok
    assert report.message == (
        f"upsd at 127.0.0.1:{server.port} serves ups (OL CHRG) with fresh data; logged in as expected: pve, nas"
    )


def test_all_problems_are_in_one_line(server: FakeUpsd) -> None:
    with server.open_client() as client:
        report = snapshot.observe_upsd(
            client,
            None,
            ["pve", "vm", "nowhere", "192.0.2.5"],
            lambda name, timeout: (name,) if name[0].isdigit() else resolve_name(name, timeout),
        )
    assert not report.is_ok
    assert [missing.name for missing in report.missing] == ["vm", "nowhere", "192.0.2.5"]
    assert report.stale == (("spare", "DATA-STALE: the driver has not heard from the UPS for too long"),)
    assert report.message == (
        f"upsd at 127.0.0.1:{server.port} serves ups (OL CHRG) with fresh data,"
        " spare without fresh data (DATA-STALE: the driver has not heard from the UPS for too long);"
        " logged in as expected: pve; vm (192.0.2.4) has not logged in;"
        " nowhere cannot be resolved (Name or service not known); 192.0.2.5 has not logged in"
        " (logged in: 127.0.0.1, 192.0.2.3)"
    )


def test_server_without_ups_is_not_ok() -> None:
    with serve_answers({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}) as server, server.open_client() as client:
        report = snapshot.observe_upsd(client, None, ["pve"], resolve_name)
    assert not report.is_ok
    assert report.message.endswith("serves no UPS; pve (127.0.0.1) has not logged in (logged in: none)")


class Clock:
    """Time that passes only during sleep."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.now = 100.0
        self.then = then

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        self.then()


def test_wait_ends_with_the_last_login(server: FakeUpsd) -> None:
    def log_in() -> None:
        if clock.now >= 103:
            server.answers["LIST CLIENT ups"] = "BEGIN LIST CLIENT ups\nCLIENT ups 192.0.2.4\nEND LIST CLIENT ups\n"

    clock = Clock(log_in)
    report = snapshot.wait_until_ok(
        server.open_client, ["ups"], ["vm"], wait=60, addresses_of=resolve_name, clock=clock, sleep=clock.sleep
    )
    assert report.is_ok
    assert clock.now == 103


def test_wait_ends_at_the_timeout(server: FakeUpsd) -> None:
    clock = Clock()
    report = snapshot.wait_until_ok(
        server.open_client, ["ups"], ["vm"], wait=2.5, addresses_of=resolve_name, clock=clock, sleep=clock.sleep
    )
    assert [missing.name for missing in report.missing] == ["vm"]
    assert clock.now == 102.5


def test_no_wait_queries_once(server: FakeUpsd) -> None:
    clock = Clock()
    assert not snapshot.wait_until_ok(server.open_client, clock=clock, sleep=clock.sleep).is_ok
    assert server.looks == 1
    assert clock.now == 100


def test_starting_server_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    with serve_answers() as server:
        ports = iter([closed, closed, server.port])
        clock = Clock()
        report = snapshot.wait_until_ok(
            lambda: net_client.UpsdClient("127.0.0.1", next(ports)), ["ups"], wait=10, clock=clock, sleep=clock.sleep
        )
    assert report.is_ok
    assert clock.now == 102


@pytest.mark.parametrize(("ups", "kind"), [(["nix"], net_errors.UnknownUps), (None, net_errors.Unreachable)])
def test_last_error_is_raised_after_the_wait(
    server: FakeUpsd, ups: list[str] | None, kind: type[net_errors.UpsdFailure]
) -> None:
    if ups is None:
        server.answers["VER"] = "SSH-2.0\n"
    clock = Clock()
    with pytest.raises(kind):
        snapshot.wait_until_ok(server.open_client, ups, wait=3, clock=clock, sleep=clock.sleep)
    assert clock.now == 103
    assert server.looks == 4


STATES = {
    "OL": False,
    "OL CHRG": False,
    "OL RB": False,
    "OL ALARM": False,
    "OL TRIM": False,
    "OB": True,
    "OB DISCHRG": True,
    "OL LB": True,
    "FSD OB LB": True,
    "OL FSD": True,
    "OL CAL": True,
    "OL BYPASS": True,
    "OFF": True,
    "OL OFF": True,
}


@pytest.mark.parametrize(("status", "busy"), STATES.items(), ids=STATES.keys())
def test_cautious_states_are_recognized(status: str, busy: bool) -> None:
    state = snapshot.UpsState("ups", "", tuple(status.split()), True, None, {}, (), 0)
    assert snapshot.list_not_on_mains([state]) == ([f"ups ({status})"] if busy else [])
    assert snapshot.list_not_on_mains([replace(state, fresh=False)]) == []
