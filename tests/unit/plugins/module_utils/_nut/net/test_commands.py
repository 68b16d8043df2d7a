# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import commands as net_commands
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.commands import Effect, Leave, Refused

# What commands and variables may do


HARMLESS = [
    *("beeper.enable", "beeper.disable", "beeper.mute", "beeper.toggle", "BEEPER.MUTE", "load.on", "load.on.delay"),
    *("outlet.1.load.on", "outlet.group.2.load.on", "shutdown.stop", "test.battery.stop", "test.panel.start"),
    *("test.failure.stop", "calibrate.stop", "reset.input.minmax"),
]
CUTS = [
    *("load.off", "LOAD.OFF", "load.off.delay", "load.cycle", "outlet.1.load.off", "outlet.12.load.cycle"),
    *("shutdown.return", "shutdown.stayoff", "shutdown.reboot", "shutdown.reboot.graceful", "shutdown.default"),
    *("outlet.2.shutdown.return", "outlet.group.1.load.off", "bypass.start", "bypass.stop", "driver.killpower"),
    *("driver.reload", "driver.reload-or-exit", "test.failure.start", "test.system.start", "reset.watchdog", "x.y", ""),
    *("beeper.mute.x", "xbeeper.mute", "load.on.off", "beeper mute", "shutdown.stopx", "beeper.mute\n"),
]
DRAINS = ["test.battery.start", "test.battery.start.deep", "Test.Battery.Start.DEEP", "calibrate.start"]


def test_what_a_command_may_do() -> None:
    def effect(command: str) -> Effect | None:
        found = net_commands.danger(command)
        assert found is None or found.why
        return found.effect if found else None

    assert {one: effect(one) for one in HARMLESS} == dict.fromkeys(HARMLESS)
    assert {one: effect(one) for one in CUTS} == dict.fromkeys(CUTS, Effect.POWER)
    assert {one: effect(one) for one in DRAINS} == dict.fromkeys(DRAINS, Effect.DRAIN)
    assert effect("test.battery.start.quick") is Effect.BATTERY


SAFE_VARIABLES = [
    *("ups.delay.shutdown", "ups.delay.start", "outlet.1.delay.shutdown", "outlet.delay.start", "battery.charge.low"),
    *(
        "battery.runtime.low",
        "battery.date",
        "ups.id",
        "UPS.ID",
        "ups.test.interval",
        "input.sensitivity",
        "driver.debug",
    ),
]
OTHER_VARIABLES = [
    *("ups.status", "ups.timer.shutdown", "outlet.1.switch", "outlet.1.status", "outlet.2.autoswitch.charge.low"),
    *("driver.flag.allow_killpower", "input.transfer.low", "battery.energysave", "ups.shutdown", "x", "battery.charge"),
    *("ups.delay.shutdown.x", "xups.id"),
]


def test_what_setting_a_variable_may_do() -> None:
    assert [one for one in SAFE_VARIABLES if net_commands.danger_of_variable(one)] == []
    assert [one for one in OTHER_VARIABLES if not net_commands.danger_of_variable(one)] == []


# A server, and orders to it


class Clock:
    """Time that passes only while somebody sleeps; what shall happen then does."""

    def __init__(self) -> None:
        self.now = 100.0
        self.later: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        for when, happens in [one for one in self.later if one[0] <= self.now]:
            self.later.remove((when, happens))
            happens()


@dataclass
class FakeUpsd:
    """upsd, its driver and its UPS, as a client sees them. Errors: what a method raises."""

    variables: dict[str, str] = field(
        default_factory=lambda: {
            "ups.status": "OL CHRG",
            "battery.charge": "100",
            "ups.delay.shutdown": "020",
            "ups.id": "x",
            "ups.timer.shutdown": "-1",
            "input.sensitivity": "low",
            "battery.charge.low": "10",
        }
    )
    commands: tuple[str, ...] = ("beeper.mute", "load.off", "test.battery.start.quick", "test.battery.start.deep")
    tracking: list[str] = field(default_factory=lambda: ["PENDING", "PENDING", "SUCCESS"])
    errors: dict[str, Exception] = field(default_factory=dict)
    old: bool = False
    obeys: bool = True
    said: list[tuple[str, ...]] = field(default_factory=list)
    opened: int = 0
    tracks: bool = False
    on: Callable[[tuple[str, ...]], None] = lambda words: None
    where: str = "pve:3493"

    def __enter__(self) -> FakeUpsd:
        self.opened += 1
        self.tracks = False
        self._raise("open")
        return self

    def __exit__(self, *_unused: object) -> None:
        pass

    def _raise(self, what: str) -> None:
        if what in self.errors:
            raise self.errors[what]

    def _say(self, *words: str) -> None:
        self.said.append(words)
        self._raise(words[0])
        self.on(words)

    def renew(self) -> None:
        pass

    def list_ups(self) -> dict[str, str]:
        return {"a": "", "b": ""}

    def list_cmds(self, ups: str) -> tuple[str, ...]:
        return self.commands

    def list_vars(self, ups: str) -> dict[str, str]:
        self._raise("list_vars")
        return dict(self.variables)

    def list_rw(self, ups: str) -> dict[str, str]:
        return {name: value for name, value in self.variables.items() if name not in ("ups.status", "battery.charge")}

    def get_var(self, ups: str, name: str) -> str:
        self._raise("get_var")
        if name not in self.variables:
            raise client.VarNotSupported("VAR-NOT-SUPPORTED", self.where, name)
        return self.variables[name]

    def get_type(self, ups: str, name: str) -> client.Type:
        return client.Type(True, name == "input.sensitivity", "delay" in name, 5 if name == "ups.id" else None, True)

    def get_desc(self, ups: str, name: str) -> str:
        return ""

    def list_enum(self, ups: str, name: str) -> tuple[str, ...]:
        return ("low", "medium", "010")

    def list_range(self, ups: str, name: str) -> tuple[tuple[int, int], ...]:
        return ((0, 60), (120, 180))

    def authenticate(self, username: str, password: str) -> None:
        self._say("authenticate", username, password)

    def set_tracking(self) -> None:
        if self.old:
            raise client.InvalidArgument("INVALID-ARGUMENT", self.where, "SET TRACKING ON")
        self.tracks = True

    def instcmd(self, ups: str, command: str, value: str | None = None) -> str | None:
        self._say("instcmd", ups, command, *([value] if value is not None else []))
        return "id" if self.tracks else None

    def set_var(self, ups: str, name: str, value: str) -> str | None:
        self._say("set_var", ups, name, value)
        if self.obeys:
            self.variables[name] = value
        return "id" if self.tracks else None

    def get_tracking(self, tracking: str) -> str:
        assert tracking == "id"
        self._raise("get_tracking")
        return self.tracking.pop(0) if len(self.tracking) > 1 else self.tracking[0]

    def fsd(self, ups: str) -> None:
        self._say("fsd", ups)

    @property
    def orders(self) -> list[tuple[str, ...]]:
        """What was said, without who said it."""
        return [one for one in self.said if one[0] != "authenticate"]


@pytest.fixture
def server() -> FakeUpsd:
    return FakeUpsd()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def operator(server: FakeUpsd, clock: Clock, **more: Any) -> net_commands.Operator:
    given = {"username": "admin", "password": "s3cret", **more}
    return net_commands.Operator(lambda: cast("client.Client", server), "a", clock=clock, sleep=clock.sleep, **given)


NO_RIGHT = client.AccessDenied("ACCESS-DENIED", "pve:3493", "it")
GONE = client.Unreachable("pve", 3493, "no complete answer in time")


def test_a_command(server: FakeUpsd, clock: Clock) -> None:
    outcome = operator(server, clock).command("Beeper.mute", None, Leave())
    assert outcome == net_commands.Outcome("success", "the driver did it")
    assert server.said == [("authenticate", "admin", "s3cret"), ("instcmd", "a", "beeper.mute")]
    assert clock.now == pytest.approx(100.3)


def test_a_command_with_a_value(server: FakeUpsd, clock: Clock) -> None:
    operator(server, clock).command("beeper.mute", "", Leave())
    assert server.orders == [("instcmd", "a", "beeper.mute", "")]


@pytest.mark.parametrize(
    ("said", "result", "words"),
    [
        ("FAILED", "failed", "could not do it"),
        ("UNKNOWN", "failed", "does not know it"),
        ("INVALID-ARGUMENT", "failed", "none that it takes"),
        ("NEW-WORD", "failed", "NEW-WORD"),
        ("PENDING", "pending", "not answered within 3 s"),
    ],
)
def test_a_command_that_comes_to_nothing(server: FakeUpsd, clock: Clock, said: str, result: str, words: str) -> None:
    server.tracking = [said]
    outcome = operator(server, clock).command("beeper.mute", None, Leave(), 3)
    assert outcome.result == result
    assert words in outcome.words
    assert clock.now <= 103


@pytest.mark.parametrize("tracked", [True, False])
def test_without_tracking_the_result_is_unknown(server: FakeUpsd, clock: Clock, tracked: bool) -> None:
    server.old = tracked
    outcome = operator(server, clock, tracked=tracked).command("beeper.mute", None, Leave())
    assert outcome.result == "unknown"
    assert "without tracking" in outcome.words


@pytest.mark.parametrize(("where", "words"), [("instcmd", "nobody knows whether"), ("get_tracking", "was told; then")])
def test_a_server_that_goes_away(server: FakeUpsd, clock: Clock, where: str, words: str) -> None:
    server.errors[where] = GONE
    outcome = operator(server, clock).command("beeper.mute", None, Leave())
    assert outcome.result == "unknown"
    assert words in outcome.words
    assert "pve:3493" in outcome.words


def test_an_order_that_upsd_can_not_hand_on(server: FakeUpsd, clock: Clock) -> None:
    server.errors["instcmd"] = client.UpsdError("INSTCMD-FAILED", "pve:3493", "INSTCMD")
    assert operator(server, clock).command("beeper.mute", None, Leave()).result == "failed"
    server.errors["set_var"] = client.UpsdError("SET-FAILED", "pve:3493", "SET VAR")
    ((_setting, outcome),) = operator(server, clock).set_variables({"ups.id": "y"}, Leave())
    assert (outcome.result, outcome.value) == ("failed", "x")


@pytest.mark.parametrize(
    ("command", "option", "word"),
    [
        *((one, "may_cut_power", "cut the power") for one in CUTS),
        *((one, "may_drain_battery", "empty the battery") for one in DRAINS),
    ],
)
def test_what_needs_leave(server: FakeUpsd, clock: Clock, command: str, option: str, word: str) -> None:
    server.commands = (*CUTS, *DRAINS)
    other = Leave(drain_battery=option == "may_cut_power", cut_power=option == "may_drain_battery")
    for ask in (
        lambda leave: operator(server, clock).command(command, None, leave),
        lambda leave: operator(server, clock).plan_command(command, leave),
    ):
        for leave in (Leave(), other):
            with pytest.raises(Refused, match=f"{option}: true") as caught:
                ask(leave)
            assert word in str(caught.value)
    # nobody was asked even
    assert (server.opened, server.said) == (0, [])


def test_what_is_allowed_is_done(server: FakeUpsd, clock: Clock) -> None:
    assert operator(server, clock).command("load.off", None, Leave(cut_power=True)).result == "success"
    assert (
        operator(server, clock).command("test.battery.start.deep", None, Leave(drain_battery=True)).result == "success"
    )
    assert [one[2] for one in server.orders] == ["load.off", "test.battery.start.deep"]


def test_a_command_that_there_is_not(server: FakeUpsd, clock: Clock) -> None:
    with pytest.raises(Refused, match=r"a has no command beeper\.enable\. It has beeper\.mute, load\.off, test"):
        operator(server, clock).command("beeper.enable", None, Leave())
    server.commands = ()
    with pytest.raises(Refused, match="It has none at all"):
        operator(server, clock).plan_command("beeper.enable", Leave())


@pytest.mark.parametrize("ask", ["plan_command", "plan_settings", "plan_fsd"])
def test_a_ups_that_there_is_not(server: FakeUpsd, clock: Clock, ask: str) -> None:
    one = net_commands.Operator(lambda: cast("client.Client", server), "nix")
    given: dict[str, list[Any]] = {"plan_command": ["beeper.mute"], "plan_settings": [{"ups.id": "y"}], "plan_fsd": []}
    with pytest.raises(client.UnknownUps, match="it serves a, b"):
        getattr(one, ask)(*given[ask], Leave(cut_power=True))


def test_without_a_right(server: FakeUpsd, clock: Clock) -> None:
    server.errors = dict.fromkeys(("instcmd", "set_var", "fsd"), NO_RIGHT)
    with pytest.raises(
        Refused, match=r"the user admin give the command beeper\.mute .*`instcmds = beeper\.mute` in .*\[admin\]"
    ) as caught:
        operator(server, clock).command("beeper.mute", None, Leave())
    assert "nut_server_users: [{name: admin, instcmds: [beeper.mute]}]" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(Refused, match=r"`actions = SET` in the section \[admin\]"):
        operator(server, clock).set_variables({"ups.id": "y"}, Leave())
    with pytest.raises(Refused, match=r"`actions = FSD` in the section \[admin\]"):
        operator(server, clock).fsd(Leave(cut_power=True))


def test_without_a_user(server: FakeUpsd, clock: Clock) -> None:
    nobody = operator(server, clock, username="", password="")
    for ask in (
        lambda: nobody.command("beeper.mute", None, Leave()),
        lambda: nobody.set_variables({"ups.id": "y"}, Leave()),
        lambda: nobody.fsd(Leave(cut_power=True)),
    ):
        with pytest.raises(Refused, match="wants a username and a password"):
            ask()
    assert server.said == []
    assert nobody.plan_command("beeper.mute", Leave()) == "beeper.mute"
    assert nobody.set_variables({"ups.id": "x"}, Leave()) == []


def test_words_that_can_not_be_sent(server: FakeUpsd, clock: Clock) -> None:
    server.errors = dict.fromkeys(("instcmd", "set_var"), grammar.Unencodable("character 1 is not ASCII"))
    with pytest.raises(Refused, match=r"the value of beeper\.mute: character 1"):
        operator(server, clock).command("beeper.mute", "\xe9", Leave())
    with pytest.raises(Refused, match=r"the value of ups\.id: character 1"):
        operator(server, clock).set_variables({"ups.id": "\xe9"}, Leave())
    server.errors = {"authenticate": grammar.Unencodable("character 1 is not ASCII")}
    with pytest.raises(Refused, match="username or password"):
        operator(server, clock).command("beeper.mute", None, Leave())
    server.errors = {"get_var": grammar.Unencodable("character 1 is not ASCII")}
    with pytest.raises(Refused, match="the variable '\xe9': character 1"):
        operator(server, clock).set_variables({"\xe9": "1"}, Leave())


# Variables


def test_only_what_differs_is_set(server: FakeUpsd, clock: Clock) -> None:
    wanted = {"ups.delay.shutdown": "20.0", "ups.id": "new", "input.sensitivity": "10"}
    planned = operator(server, clock).plan_settings(wanted, Leave())
    assert planned == (
        net_commands.Setting("ups.id", "x", "new"),
        net_commands.Setting("input.sensitivity", "low", "010"),
    )
    assert server.said == []
    done = operator(server, clock).set_variables(wanted, Leave())
    assert [one for one, _unused in done] == list(planned)
    assert [one.result for _unused, one in done] == ["success", "success"]
    assert server.orders == [("set_var", "a", "ups.id", "new"), ("set_var", "a", "input.sensitivity", "010")]
    # nothing is left, so nobody has to say who he is
    server.said.clear()
    assert operator(server, clock).set_variables(wanted, Leave()) == []
    assert server.said == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("nix", "1", "a has no variable nix. What can be set: ups.delay.shutdown, ups.id"),
        ("battery.charge", "1", "battery.charge of a can't be set. What can be set: ups.delay.shutdown"),
        ("ups.delay.shutdown", "61", "can't be '61': it may be 0 to 60, 120 to 180"),
        ("ups.delay.shutdown", "119", "it may be"),
        ("ups.delay.shutdown", "181", "it may be"),
        ("ups.delay.shutdown", "-1", "it may be"),
        ("ups.delay.shutdown", "off", "it may be"),
        ("ups.delay.shutdown", "", "it may be"),
        ("input.sensitivity", "LOW", "can't be 'LOW': it may be low, medium, 010"),
        ("ups.id", "123456", "it has 6 characters, and 5 are the most"),
        ("ups.timer.shutdown", "5", "setting ups.timer.shutdown could cut the power of what hangs on a"),
        ("UPS.timer.SHUTDOWN", "5", "may_cut_power: true"),
    ],
)
def test_values_that_are_refused(server: FakeUpsd, clock: Clock, name: str, value: str, words: str) -> None:
    server.variables = {**server.variables, name: "5"} if name.startswith("UPS") else server.variables
    for ask in (operator(server, clock).plan_settings, operator(server, clock).set_variables):
        with pytest.raises(Refused) as caught:
            # all are checked before one is set
            ask({"battery.charge.low": "30", name: value}, Leave())
        assert words in str(caught.value)
    assert server.orders == []


@pytest.mark.parametrize("value", ["0", "60", "120", "180", "59.5"])
def test_values_at_the_edge(server: FakeUpsd, clock: Clock, value: str) -> None:
    assert operator(server, clock).plan_settings({"ups.delay.shutdown": value}, Leave())[0].after == value
    assert operator(server, clock).plan_settings({"ups.id": "12345"}, Leave())
    assert operator(server, clock).plan_settings({"ups.timer.shutdown": "5"}, Leave(cut_power=True))


def test_a_ups_that_makes_something_else_of_it(server: FakeUpsd, clock: Clock) -> None:
    server.obeys = False
    ((_setting, outcome),) = operator(server, clock).set_variables({"ups.id": "y"}, Leave(), 4)
    assert outcome == net_commands.Outcome("success", "the driver did it, but after 4 s it is x", "x")
    assert clock.now == pytest.approx(104)
    ((_setting, outcome),) = operator(server, clock, tracked=False).set_variables({"ups.id": "y"}, Leave(), 4)
    assert (outcome.result, outcome.value) == ("unknown", "x")


def test_a_variable_tells_itself_what_tracking_can_not(server: FakeUpsd, clock: Clock) -> None:
    ((_setting, outcome),) = operator(server, clock, tracked=False).set_variables({"ups.id": "y"}, Leave())
    assert outcome == net_commands.Outcome("success", "it is y now", "y")


def test_a_value_that_is_there_needs_no_answer_of_the_driver(server: FakeUpsd, clock: Clock) -> None:
    server.tracking = ["PENDING"]
    ((_setting, outcome),) = operator(server, clock).set_variables({"ups.id": "y"}, Leave(), 4)
    assert outcome == net_commands.Outcome("success", "it is y now", "y")
    server.obeys = False
    ((_setting, outcome),) = operator(server, clock).set_variables({"ups.id": "z"}, Leave(), 4)
    assert (outcome.result, outcome.value) == ("pending", "y")


def test_a_setting_that_failed_is_not_looked_for(server: FakeUpsd, clock: Clock) -> None:
    server.tracking = ["FAILED"]
    server.obeys = False
    ((_setting, outcome),) = operator(server, clock).set_variables({"ups.id": "y"}, Leave(), 4)
    assert (outcome.result, clock.now) == ("failed", 100)


def test_it_takes_a_while_until_the_value_is_there(server: FakeUpsd, clock: Clock) -> None:
    server.obeys = False
    clock.later.append((103, lambda: server.variables.update({"ups.id": "y"})))
    ((_setting, outcome),) = operator(server, clock).set_variables({"ups.id": "y"}, Leave())
    assert outcome.result == "success"
    assert 103 <= clock.now < 104.1


def test_it_stops_at_the_first_that_fails(server: FakeUpsd, clock: Clock) -> None:
    server.tracking = ["FAILED"]
    done = operator(server, clock).set_variables({"ups.id": "y", "battery.charge.low": "30"}, Leave())
    assert [(one.name, outcome.result) for one, outcome in done] == [("ups.id", "failed")]


def test_a_server_that_goes_away_after_a_setting(server: FakeUpsd, clock: Clock) -> None:
    server.errors["get_var"] = GONE
    ((_setting, outcome),) = operator(server, clock).set_variables({"ups.id": "y"}, Leave())
    assert (outcome.result, "pve:3493" in outcome.words) == ("success", True)
    server.errors = {"set_var": GONE}
    server.variables["ups.id"] = "x"
    ((_setting, outcome),) = operator(server, clock).set_variables({"ups.id": "y"}, Leave())
    assert outcome.result == "unknown"


# FSD


def test_fsd(server: FakeUpsd, clock: Clock) -> None:
    for ask in (operator(server, clock).fsd, operator(server, clock).plan_fsd):
        with pytest.raises(Refused, match="may_cut_power: true"):
            ask(Leave(drain_battery=True))
    assert server.opened == 0
    operator(server, clock).plan_fsd(Leave(cut_power=True))
    assert server.said == []
    assert operator(server, clock).fsd(Leave(cut_power=True)).result == "success"
    assert server.orders == [("fsd", "a")]


# Battery tests


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ups.status": "OB"}, "not plainly on mains (ups.status: OB)"),
        ({"ups.status": "OL LB"}, "OL LB"),
        ({"ups.status": "OL CAL"}, "OL CAL"),
        ({"ups.status": "FSD OL"}, "FSD OL"),
        ({"ups.status": "OL BYPASS"}, "BYPASS"),
        ({"ups.status": ""}, "ups.status: none"),
        ({"ups.status": "OL TEST"}, "a test is under way"),
        ({"ups.test.result": "In progress"}, "a test is under way (In progress)"),
        ({"battery.charge": "89"}, "its charge is 89 %, and 90 % are asked for (minimum_charge)"),
        ({"battery.charge": "89.9"}, "89.9"),
    ],
)
def test_when_no_test_begins(server: FakeUpsd, clock: Clock, variables: dict[str, str], words: str) -> None:
    server.variables.update(variables)
    mine = operator(server, clock)
    for ask in (
        lambda: mine.test("quick", Leave()),
        lambda: mine.plan_test("quick", Leave()),
        lambda: mine.plan_test("deep", Leave(drain_battery=True)),
        lambda: mine.command("test.battery.start.quick", None, Leave()),
    ):
        with pytest.raises(Refused) as caught:
            ask()
        assert words in str(caught.value)
    assert server.orders == []


def test_a_deep_test_needs_leave(server: FakeUpsd, clock: Clock) -> None:
    with pytest.raises(Refused, match="may_drain_battery: true"):
        operator(server, clock).test("deep", Leave(cut_power=True))


@pytest.mark.parametrize(
    "variables", [{"battery.charge": "90"}, {"battery.charge": "50"}, {"ups.status": "OL RB"}, {"battery.charge": "?"}]
)
def test_when_a_test_may_begin(server: FakeUpsd, clock: Clock, variables: dict[str, str]) -> None:
    server.variables.update(variables)
    assert operator(server, clock).plan_test("quick", Leave(charge=50)) == "test.battery.start.quick"


Step = tuple[float, dict[str, str]]
RESULT = "ups.test.result"


def watched(
    server: FakeUpsd, clock: Clock, steps: list[Step], kind: str = "quick", **more: Any
) -> net_commands.Verdict:
    """Test the battery of a UPS that does so: what changes so many seconds after the command."""

    def begin(words: tuple[str, ...]) -> None:
        if words[0] == "instcmd":
            for seconds, changes in steps:
                clock.later.append((clock.now + seconds, lambda changes=changes: change(changes)))  # type: ignore[misc]

    def change(changes: dict[str, str]) -> None:
        server.variables.update(changes)
        if "error" in changes:
            server.errors["list_vars"] = GONE
        else:
            server.errors.pop("list_vars", None)

    server.on = begin
    return operator(server, clock).test(kind, Leave(drain_battery=True), **more)


OUT: Step = (2, {"ups.status": "OB DISCHRG"})
BACK: Step = (14, {"ups.status": "OL CHRG"})


def test_a_test_that_is_passed(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [OUT, (3.0, {RESULT: "In progress"}), BACK, (15.0, {RESULT: "Done and passed"})]
    verdict = watched(server, clock, steps)
    assert (verdict.verdict, verdict.words, verdict.result) == (
        "passed",
        "it says 'Done and passed'",
        "Done and passed",
    )
    assert 14 <= verdict.seconds <= 18


def test_a_test_that_is_not_passed(server: FakeUpsd, clock: Clock) -> None:
    verdict = watched(server, clock, [OUT, BACK, (15.0, {RESULT: "Done and error"})])
    assert (verdict.verdict, verdict.words) == ("failed", "it says 'Done and error'")


def test_an_old_result_is_not_taken_for_the_new_one(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and error"
    verdict = watched(server, clock, [OUT, BACK, (40.0, {RESULT: "Done and passed"})])
    assert verdict.verdict == "passed"
    server.variables[RESULT] = "Done and passed"
    verdict = watched(server, clock, [OUT, BACK, (40.0, {RESULT: "Done and warning"})])
    assert verdict.verdict == "failed"


def test_a_result_that_stays_is_believed_after_a_while(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = watched(server, clock, [OUT, BACK])
    assert (verdict.verdict, verdict.words) == ("passed", "it says 'Done and passed'")
    assert 14 + net_commands.SETTLE - 2 <= verdict.seconds <= 14 + net_commands.SETTLE + 4


def test_a_new_date_makes_a_result_new(server: FakeUpsd, clock: Clock) -> None:
    server.variables.update({RESULT: "Passed", "ups.test.date": "2026/01/01"})
    verdict = watched(server, clock, [OUT, BACK, (15.0, {"ups.test.date": "2026/11/22"})])
    assert verdict.verdict == "passed"
    assert verdict.seconds < 20


@pytest.mark.parametrize("flags", ["OB", "OL CAL", "OL TEST", "OL DISCHRG"])
def test_a_ups_that_tells_no_result(server: FakeUpsd, clock: Clock, flags: str) -> None:
    verdict = watched(server, clock, [(2.0, {"ups.status": flags}), BACK])
    assert verdict.verdict == "passed"
    assert "tells no result" in verdict.words


def test_a_flag_that_was_there_before_is_no_test(server: FakeUpsd, clock: Clock) -> None:
    server.variables["ups.status"] = "OL DISCHRG"
    verdict = watched(server, clock, [])
    assert (verdict.verdict, verdict.words) == ("unknown", "the UPS showed no sign of a test")


def test_a_test_that_only_the_result_shows(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = watched(server, clock, [(3.0, {RESULT: "In progress"}), (70.0, {RESULT: "Done and error"})])
    assert (verdict.verdict, verdict.words) == ("failed", "it says 'Done and error'")
    verdict = watched(server, clock, [(1.0, {RESULT: "Test scheduled"})], wait=100)
    assert (verdict.verdict, verdict.words) == (
        "unknown",
        "the test is not over (ups.status: OL CHRG, Test scheduled)",
    )


def test_no_sign_of_a_test(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    verdict = watched(server, clock, [])
    assert (verdict.verdict, verdict.words) == (
        "unknown",
        "the UPS showed no sign of a test; its last result is 'Done and passed'",
    )
    assert verdict.seconds == pytest.approx(net_commands.TEST_SECONDS["quick"], abs=1)


def test_the_battery_has_to_be_replaced(server: FakeUpsd, clock: Clock) -> None:
    verdict = watched(server, clock, [OUT, (14.0, {"ups.status": "OL RB", RESULT: "Done and passed"})])
    assert (verdict.verdict, "(RB)" in verdict.words) == ("failed", True)


def test_a_battery_that_had_to_be_replaced_before(server: FakeUpsd, clock: Clock) -> None:
    server.variables["ups.status"] = "OL RB"
    verdict = watched(server, clock, [(2.0, {"ups.status": "OB RB"}), (9.0, {"ups.status": "OL RB", RESULT: "Passed"})])
    assert verdict.verdict == "passed"


@pytest.mark.parametrize("result", ["Done and passed", ""])
def test_a_battery_that_is_low_at_once(server: FakeUpsd, clock: Clock, result: str) -> None:
    steps = [
        OUT,
        (5.0, {"ups.status": "OB LB"}),
        (14.0, {"ups.status": "OL CHRG", **({RESULT: result} if result else {})}),
    ]
    verdict = watched(server, clock, steps)
    assert (verdict.verdict, "(LB)" in verdict.words) == ("failed", True)


def test_a_deep_test_ends_with_a_low_battery(server: FakeUpsd, clock: Clock) -> None:
    low: list[Step] = [OUT, (3000.0, {"ups.status": "OB LB"}), (3100.0, {"ups.status": "OL CHRG", RESULT: "OK"})]
    verdict = watched(server, clock, low, "deep")
    assert (verdict.verdict, verdict.words) == ("passed", "it says 'OK'")
    assert server.orders == [("instcmd", "a", "test.battery.start.deep")]


def test_a_test_that_does_not_end(server: FakeUpsd, clock: Clock) -> None:
    verdict = watched(server, clock, [OUT], wait=60)
    assert (verdict.verdict, verdict.words) == ("unknown", "the test is not over (ups.status: OB DISCHRG)")
    assert clock.now == pytest.approx(160)


def test_a_test_that_was_aborted(server: FakeUpsd, clock: Clock) -> None:
    verdict = watched(server, clock, [OUT, (5.0, {"ups.status": "OL CHRG", RESULT: "Aborted"})])
    assert (verdict.verdict, verdict.words) == ("unknown", "it says 'Aborted'")


def test_a_word_on_the_way_is_not_the_last_one(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [(1.0, {RESULT: "No test initiated"}), OUT, BACK, (30.0, {RESULT: "Done and error"})]
    assert watched(server, clock, steps).verdict == "failed"


def test_looks_that_fail(server: FakeUpsd, clock: Clock) -> None:
    steps = [OUT, (5.0, {"error": "now"}), (12.0, {}), BACK, (15.0, {RESULT: "Passed"})]
    assert watched(server, clock, steps).verdict == "passed"
    server.variables[RESULT] = ""
    verdict = watched(server, clock, [OUT, (5.0, {"error": "now"})], wait=30)
    assert (verdict.verdict, "in the end upsd at pve:3493" in verdict.words) == ("unknown", True)


def test_what_was_not_seen_does_not_count(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    steps = [OUT, BACK, (17.0, {"error": "now"}), (60.0, {}), (65.0, {RESULT: "Done and error"})]
    assert watched(server, clock, steps).verdict == "failed"


def test_a_ups_without_a_status_has_not_ended_its_test(server: FakeUpsd, clock: Clock) -> None:
    silent = {"ups.status": "", RESULT: "Done and passed"}
    steps = [OUT, (5.0, silent), (50.0, {"ups.status": "OL", RESULT: "Done and error"})]
    assert watched(server, clock, steps).verdict == "failed"


def test_a_test_that_did_not_begin(server: FakeUpsd, clock: Clock) -> None:
    server.tracking = ["FAILED"]
    verdict = watched(server, clock, [OUT, BACK])
    assert (verdict.verdict, verdict.words.startswith("the test did not begin: the driver answered FAILED")) == (
        "unknown",
        True,
    )
    assert verdict.seconds == 0


def test_the_time_is_up_before_the_result_is_sure(server: FakeUpsd, clock: Clock) -> None:
    server.variables[RESULT] = "Done and passed"
    assert watched(server, clock, [OUT, BACK], wait=20).verdict == "passed"
