# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any, cast

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import commands as net_commands
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.client import UpsdClient
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.commands import OrderRefused, Permission
from ansible_collections.homelab.nut.tests.unit.support.commanded_upsd import (
    CUTS,
    DRAINS,
    GONE,
    NO_RIGHT,
    CommandedClock,
    CommandedUpsd,
    make_operator,
)


@pytest.fixture
def server() -> CommandedUpsd:
    return CommandedUpsd()


@pytest.fixture
def clock() -> CommandedClock:
    return CommandedClock()


def test_command_is_given(server: CommandedUpsd, clock: CommandedClock) -> None:
    outcome = make_operator(server, clock).give_command("Beeper.mute", None, Permission())
    assert outcome == net_commands.OrderOutcome("success", "the driver did it")
    assert server.said == [("authenticate", "admin", "s3cret"), ("instcmd", "a", "beeper.mute")]
    assert clock.now == pytest.approx(100.3)


def test_command_may_have_a_value(server: CommandedUpsd, clock: CommandedClock) -> None:
    make_operator(server, clock).give_command("beeper.mute", "", Permission())
    assert server.orders == [("instcmd", "a", "beeper.mute", "")]


@pytest.mark.parametrize(
    ("said", "result", "words"),
    [
        ("FAILED", "failed", "could not do it"),
        ("UNKNOWN", "failed", "does not support this"),
        ("INVALID-ARGUMENT", "failed", "does not accept this value"),
        ("NEW-WORD", "failed", "NEW-WORD"),
        ("PENDING", "pending", "not answered within 3 s"),
    ],
)
def test_failed_command_is_explained(
    server: CommandedUpsd, clock: CommandedClock, said: str, result: str, words: str
) -> None:
    server.tracking = [said]
    outcome = make_operator(server, clock).give_command("beeper.mute", None, Permission(), 3)
    assert outcome.result == result
    assert words in outcome.explanation
    assert clock.now <= 103


@pytest.mark.parametrize("tracked", [True, False])
def test_result_without_tracking_is_unknown(server: CommandedUpsd, clock: CommandedClock, tracked: bool) -> None:
    server.old = tracked
    outcome = make_operator(server, clock, tracked=tracked).give_command("beeper.mute", None, Permission())
    assert outcome.result == "unknown"
    assert "without tracking" in outcome.explanation


@pytest.mark.parametrize(
    ("where", "words"),
    [("instcmd", "may or may not have received it"), ("get_tracking", "has received it; afterwards")],
)
def test_lost_connection_gives_an_unknown_result(
    server: CommandedUpsd, clock: CommandedClock, where: str, words: str
) -> None:
    server.errors[where] = GONE
    outcome = make_operator(server, clock).give_command("beeper.mute", None, Permission())
    assert outcome.result == "unknown"
    assert words in outcome.explanation
    assert "pve:3493" in outcome.explanation


def test_order_that_upsd_cannot_forward_has_failed(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.errors["instcmd"] = net_errors.UpsdError("INSTCMD-FAILED", "pve:3493", "INSTCMD")
    assert make_operator(server, clock).give_command("beeper.mute", None, Permission()).result == "failed"
    server.errors["set_var"] = net_errors.UpsdError("SET-FAILED", "pve:3493", "SET VAR")
    ((_setting, outcome),) = make_operator(server, clock).set_variables({"ups.id": "y"}, Permission())
    assert (outcome.result, outcome.value) == ("failed", "x")


@pytest.mark.parametrize(
    ("command", "option", "word"),
    [
        *((command, "may_cut_power", "cut the power") for command in CUTS),
        *((command, "may_drain_battery", "empty the battery") for command in DRAINS),
    ],
)
def test_dangerous_command_needs_permission(
    server: CommandedUpsd, clock: CommandedClock, command: str, option: str, word: str
) -> None:
    server.commands = (*CUTS, *DRAINS)
    other = Permission(drain_battery=option == "may_cut_power", cut_power=option == "may_drain_battery")
    for ask in (
        lambda permission: make_operator(server, clock).give_command(command, None, permission),
        lambda permission: make_operator(server, clock).plan_command(command, permission),
    ):
        for permission in (Permission(), other):
            with pytest.raises(OrderRefused, match=f"{option}: true") as caught:
                ask(permission)
            assert word in str(caught.value)
    # no connection was opened
    assert (server.opened, server.said) == (0, [])


def test_permitted_command_is_given(server: CommandedUpsd, clock: CommandedClock) -> None:
    assert make_operator(server, clock).give_command("load.off", None, Permission(cut_power=True)).result == "success"
    assert (
        make_operator(server, clock)
        .give_command("test.battery.start.deep", None, Permission(drain_battery=True))
        .result
        == "success"
    )
    assert [order[2] for order in server.orders] == ["load.off", "test.battery.start.deep"]


def test_unknown_command_is_refused(server: CommandedUpsd, clock: CommandedClock) -> None:
    with pytest.raises(OrderRefused, match=r"a has no command beeper\.enable\. It has beeper\.mute, load\.off, test"):
        make_operator(server, clock).give_command("beeper.enable", None, Permission())
    server.commands = ()
    with pytest.raises(OrderRefused, match="It has none at all"):
        make_operator(server, clock).plan_command("beeper.enable", Permission())


@pytest.mark.parametrize("ask", ["plan_command", "plan_settings", "check_fsd"])
def test_unknown_ups_is_an_error(server: CommandedUpsd, clock: CommandedClock, ask: str) -> None:
    unknown = net_commands.Operator(lambda: cast(UpsdClient, server), "nix")
    given: dict[str, list[Any]] = {"plan_command": ["beeper.mute"], "plan_settings": [{"ups.id": "y"}], "check_fsd": []}
    with pytest.raises(net_errors.UnknownUps, match="it serves a, b"):
        getattr(unknown, ask)(*given[ask], Permission(cut_power=True))


def test_missing_right_is_explained(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.errors = dict.fromkeys(("instcmd", "set_var", "fsd"), NO_RIGHT)
    with pytest.raises(
        OrderRefused, match=r"the user admin give the command beeper\.mute .*`instcmds = beeper\.mute` in .*\[admin\]"
    ) as caught:
        make_operator(server, clock).give_command("beeper.mute", None, Permission())
    assert "nut_server_users: [{name: admin, instcmds: [beeper.mute]}]" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(OrderRefused, match=r"`actions = SET` in the section \[admin\]"):
        make_operator(server, clock).set_variables({"ups.id": "y"}, Permission())
    with pytest.raises(OrderRefused, match=r"`actions = FSD` in the section \[admin\]"):
        make_operator(server, clock).set_fsd(Permission(cut_power=True))


def test_missing_user_is_refused(server: CommandedUpsd, clock: CommandedClock) -> None:
    anonymous = make_operator(server, clock, username="", password="")
    for ask in (
        lambda: anonymous.give_command("beeper.mute", None, Permission()),
        lambda: anonymous.set_variables({"ups.id": "y"}, Permission()),
        lambda: anonymous.set_fsd(Permission(cut_power=True)),
    ):
        with pytest.raises(OrderRefused, match="requires a username and password to"):
            ask()
    assert server.said == []
    assert anonymous.plan_command("beeper.mute", Permission()) == "beeper.mute"
    assert anonymous.set_variables({"ups.id": "x"}, Permission()) == []


def test_text_that_cannot_be_sent_is_refused(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.errors = dict.fromkeys(("instcmd", "set_var"), grammar.Unencodable("character 1 is not ASCII"))
    with pytest.raises(OrderRefused, match=r"the value of beeper\.mute: character 1"):
        make_operator(server, clock).give_command("beeper.mute", "\xe9", Permission())
    with pytest.raises(OrderRefused, match=r"the value of ups\.id: character 1"):
        make_operator(server, clock).set_variables({"ups.id": "\xe9"}, Permission())
    server.errors = {"authenticate": grammar.Unencodable("character 1 is not ASCII")}
    with pytest.raises(OrderRefused, match="username or password"):
        make_operator(server, clock).give_command("beeper.mute", None, Permission())
    server.errors = {"get_var": grammar.Unencodable("character 1 is not ASCII")}
    with pytest.raises(OrderRefused, match="the variable '\xe9': character 1"):
        make_operator(server, clock).set_variables({"\xe9": "1"}, Permission())


# Variables


def test_only_different_variables_are_set(server: CommandedUpsd, clock: CommandedClock) -> None:
    wanted = {"ups.delay.shutdown": "20.0", "ups.id": "new", "input.sensitivity": "10"}
    planned = make_operator(server, clock).plan_settings(wanted, Permission())
    assert planned == (
        net_commands.Setting("ups.id", "x", "new"),
        net_commands.Setting("input.sensitivity", "low", "010"),
    )
    assert server.said == []
    done = make_operator(server, clock).set_variables(wanted, Permission())
    assert [setting for setting, _unused in done] == list(planned)
    assert [outcome.result for _unused, outcome in done] == ["success", "success"]
    assert server.orders == [("set_var", "a", "ups.id", "new"), ("set_var", "a", "input.sensitivity", "010")]
    # no variables differ, so no login is needed
    server.said.clear()
    assert make_operator(server, clock).set_variables(wanted, Permission()) == []
    assert server.said == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("nix", "1", "a has no variable nix. Variables that can be set: ups.delay.shutdown, ups.id"),
        ("battery.charge", "1", "battery.charge of a can't be set. Variables that can be set: ups.delay.shutdown"),
        ("ups.delay.shutdown", "61", "can't be '61'. Allowed: 0 to 60, 120 to 180"),
        ("ups.delay.shutdown", "119", "Allowed: "),
        ("ups.delay.shutdown", "181", "Allowed: "),
        ("ups.delay.shutdown", "-1", "Allowed: "),
        ("ups.delay.shutdown", "off", "Allowed: "),
        ("ups.delay.shutdown", "", "Allowed: "),
        ("input.sensitivity", "LOW", "can't be 'LOW'. Allowed: low, medium, 010"),
        ("ups.id", "123456", "it has 6 characters, the limit is 5"),
        ("ups.timer.shutdown", "5", "setting ups.timer.shutdown could cut the power of the machines on a"),
        ("UPS.timer.SHUTDOWN", "5", "may_cut_power: true"),
    ],
)
def test_invalid_value_is_refused(
    server: CommandedUpsd, clock: CommandedClock, name: str, value: str, words: str
) -> None:
    server.variables = {**server.variables, name: "5"} if name.startswith("UPS") else server.variables
    for ask in (make_operator(server, clock).plan_settings, make_operator(server, clock).set_variables):
        with pytest.raises(OrderRefused) as caught:
            # all values are checked before the first is set
            ask({"battery.charge.low": "30", name: value}, Permission())
        assert words in str(caught.value)
    assert server.orders == []


@pytest.mark.parametrize("value", ["0", "60", "120", "180", "59.5"])
def test_value_at_the_limit_is_accepted(server: CommandedUpsd, clock: CommandedClock, value: str) -> None:
    assert make_operator(server, clock).plan_settings({"ups.delay.shutdown": value}, Permission())[0].after == value
    assert make_operator(server, clock).plan_settings({"ups.id": "12345"}, Permission())
    assert make_operator(server, clock).plan_settings({"ups.timer.shutdown": "5"}, Permission(cut_power=True))


def test_value_changed_by_the_ups_is_a_failure(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.obeys = False
    ((_setting, outcome),) = make_operator(server, clock).set_variables({"ups.id": "y"}, Permission(), 4)
    assert outcome == net_commands.OrderOutcome("success", "the driver did it, but after 4 s it is x", "x")
    assert clock.now == pytest.approx(104)
    ((_setting, outcome),) = make_operator(server, clock, tracked=False).set_variables({"ups.id": "y"}, Permission(), 4)
    assert (outcome.result, outcome.value) == ("unknown", "x")


def test_new_value_shows_success_without_tracking(server: CommandedUpsd, clock: CommandedClock) -> None:
    ((_setting, outcome),) = make_operator(server, clock, tracked=False).set_variables({"ups.id": "y"}, Permission())
    assert outcome == net_commands.OrderOutcome("success", "it is y now", "y")


def test_reached_value_needs_no_result_of_the_driver(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.tracking = ["PENDING"]
    ((_setting, outcome),) = make_operator(server, clock).set_variables({"ups.id": "y"}, Permission(), 4)
    assert outcome == net_commands.OrderOutcome("success", "it is y now", "y")
    server.obeys = False
    ((_setting, outcome),) = make_operator(server, clock).set_variables({"ups.id": "z"}, Permission(), 4)
    assert (outcome.result, outcome.value) == ("pending", "y")


def test_failed_setting_is_not_waited_for(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.tracking = ["FAILED"]
    server.obeys = False
    ((_setting, outcome),) = make_operator(server, clock).set_variables({"ups.id": "y"}, Permission(), 4)
    assert (outcome.result, clock.now) == ("failed", 100)


def test_new_value_is_waited_for(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.obeys = False
    clock.later.append((103, lambda: server.variables.update({"ups.id": "y"})))
    ((_setting, outcome),) = make_operator(server, clock).set_variables({"ups.id": "y"}, Permission())
    assert outcome.result == "success"
    assert 103 <= clock.now < 104.1


def test_first_failure_stops_further_settings(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.tracking = ["FAILED"]
    done = make_operator(server, clock).set_variables({"ups.id": "y", "battery.charge.low": "30"}, Permission())
    assert [(setting.name, outcome.result) for setting, outcome in done] == [("ups.id", "failed")]


def test_lost_connection_after_a_setting_is_unknown(server: CommandedUpsd, clock: CommandedClock) -> None:
    server.errors["get_var"] = GONE
    ((_setting, outcome),) = make_operator(server, clock).set_variables({"ups.id": "y"}, Permission())
    assert (outcome.result, "pve:3493" in outcome.explanation) == ("success", True)
    server.errors = {"set_var": GONE}
    server.variables["ups.id"] = "x"
    ((_setting, outcome),) = make_operator(server, clock).set_variables({"ups.id": "y"}, Permission())
    assert outcome.result == "unknown"


# FSD


def test_fsd_needs_permission_and_is_set(server: CommandedUpsd, clock: CommandedClock) -> None:
    for ask in (make_operator(server, clock).set_fsd, make_operator(server, clock).check_fsd):
        with pytest.raises(OrderRefused, match="may_cut_power: true"):
            ask(Permission(drain_battery=True))
    assert server.opened == 0
    make_operator(server, clock).check_fsd(Permission(cut_power=True))
    assert server.said == []
    assert make_operator(server, clock).set_fsd(Permission(cut_power=True)).result == "success"
    assert server.orders == [("fsd", "a")]
