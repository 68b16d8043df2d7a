# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Give orders to a UPS: commands, settings, battery tests, FSD. Each is followed to its real result.

upsd's OK means only that the driver has received the order. Tracking (since 2.8.0) tells whether the driver carried it out,
and reading the variables again tells whether the UPS did. Orders that could cut power or empty the battery need the caller's
explicit permission, and an order counts as dangerous unless it is known to be harmless.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..conf import grammar
from . import snapshot, vocabulary
from .battery_test import LEAST_CHARGE, RESULT, BatteryTestWatch, BatteryVerdict, find_obstacle
from .battery_test import SECONDS as TEST_SECONDS
from .client import UpsdClient
from .danger import Danger, Effect, find_danger, find_danger_of_variable
from .errors import (
    AccessDenied,
    InvalidArgument,
    UnknownCommand,
    UnknownUps,
    Unreachable,
    UpsdError,
    UpsdFailure,
    VarNotSupported,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SECONDS = 10.0
"""How long to wait for the result of an order by default."""


class OrderRefused(Exception):
    """The order was not given; the message says why. Nothing was changed."""


@dataclass(frozen=True)
class Permission:
    """What the caller allows."""

    cut_power: bool = False
    drain_battery: bool = False
    charge: float = LEAST_CHARGE  # percent of the battery below which no test begins


@dataclass(frozen=True)
class OrderOutcome:
    """The result of an order."""

    # "success"; "failed": driver or UPS did not do it; "pending": no answer of the driver in time; "unknown": it was sent, and
    # nothing more is known
    result: str
    explanation: str
    value: str | None = None  # of the variable that was set, as it is now


@dataclass(frozen=True)
class Setting:
    """A variable that has to be set."""

    name: str  # as the UPS spells it
    before: str  # its value now
    after: str  # the value to set, as the UPS spells it


@dataclass(frozen=True)
class Operator:
    """Gives orders to one UPS.

    Methods raise OrderRefused, and UpsdFailure if upsd can't be reached or has no data of the UPS.
    """

    open_client: Callable[[], UpsdClient]  # returns a new client, not yet connected
    ups: str
    username: str = ""  # of upsd.users; plans don't need one
    password: str = ""
    tracked: bool = True  # whether to have upsd track orders
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def plan_command(self, command: str, permission: Permission) -> str:
        """Return the command as the UPS spells it. Raises OrderRefused if the UPS lacks it or it must not be given now."""
        self._check_permission(command, find_danger(command), permission)
        with self.open_client() as client:
            return self._plan_command(client, command, permission)

    def give_command(
        self, command: str, value: str | None, permission: Permission, wait: float = SECONDS
    ) -> OrderOutcome:
        """Give an instant command, and wait up to ``wait`` seconds for its result."""
        self._check_permission(command, find_danger(command), permission)
        with self.open_client() as client:
            name = self._plan_command(client, command, permission)
            tracked = self._authenticate(client, f"instcmds = {name}", name)
            return self._send_command(client, name, value, tracked, wait)

    def plan_settings(self, wanted: Mapping[str, str], permission: Permission) -> tuple[Setting, ...]:
        """Return the variables that must be set because their value differs from the wanted one."""
        with self.open_client() as client:
            return self._plan_settings(client, wanted, permission)

    def set_variables(
        self, wanted: Mapping[str, str], permission: Permission, wait: float = SECONDS
    ) -> list[tuple[Setting, OrderOutcome]]:
        """Set the variables that differ, waiting up to ``wait`` seconds for each; stop at the first that does not succeed."""
        done: list[tuple[Setting, OrderOutcome]] = []
        with self.open_client() as client:
            settings = self._plan_settings(client, wanted, permission)
            if not settings:
                return []
            tracked = self._authenticate(client, "actions = SET", "set variables")
            for setting in settings:
                outcome = self._set_variable(client, setting, tracked, wait)
                done.append((setting, outcome))
                if outcome.result != "success":
                    break
        return done

    def check_fsd(self, permission: Permission) -> None:
        """Raise OrderRefused if FSD must not be set, as far as that can be known without setting it."""
        why = "every host on this UPS shuts down, and then the primary may have it cut the power; it can't be undone"
        self._check_permission("FSD", Danger(Effect.POWER, why), permission)
        with self.open_client() as client:
            self._check_ups(client)

    def set_fsd(self, permission: Permission) -> OrderOutcome:
        """Set FSD."""
        self.check_fsd(permission)
        with self.open_client() as client:
            self._authenticate(client, "actions = FSD", "set FSD")
            try:
                client.fsd(self.ups)
            except AccessDenied as error:
                raise self._explain_denial(error, "actions = FSD", "set FSD") from error
        return OrderOutcome("success", f"{self.ups} has the flag FSD: all hosts powered by it shut down")

    def plan_battery_test(self, kind: str, permission: Permission) -> str:
        """Return the command that starts a battery test (QUICK or DEEP). Raises OrderRefused if it must not start now."""
        return self.plan_command(f"test.battery.start.{kind}", permission)

    def test_battery(
        self, kind: str, permission: Permission, wait: float | None = None, interval: float = 2.0
    ) -> BatteryVerdict:
        """Test the battery and watch until the test ends, or for ``wait`` seconds; return the verdict.

        interval: seconds between two reads of the variables.
        """
        command = self.plan_battery_test(kind, permission)
        before = self._list_variables()
        end = self.clock() + (TEST_SECONDS[kind] if wait is None else wait)
        outcome = self.give_command(command, None, permission, SECONDS)
        if outcome.result == "failed":
            return BatteryVerdict(
                vocabulary.UNKNOWN, f"the test did not start: {outcome.explanation}", before.get(RESULT, ""), 0.0
            )
        watch = BatteryTestWatch(kind, before, self.clock())
        while True:
            verdict = None
            try:
                verdict = watch.note_variables(self._list_variables(), self.clock())
            except UpsdFailure as error:
                watch.note_failure(str(error))
            left = end - self.clock()
            if verdict is not None:
                return verdict
            if left <= 0:
                return watch.give_up(self.clock())
            self.sleep(min(interval, left))

    # Steps of the orders above
    def _list_variables(self) -> dict[str, str]:
        with self.open_client() as client:
            return client.list_vars(self.ups)

    def _check_permission(self, name: str, danger: Danger | None, permission: Permission) -> None:
        if danger is None or danger.effect is Effect.BATTERY:
            return
        if danger.effect is Effect.POWER:
            allowed, option, risk = permission.cut_power, "may_cut_power", "cut the power of the machines on"
        else:
            allowed, option, risk = permission.drain_battery, "may_drain_battery", "empty the battery of"
        if not allowed:
            raise OrderRefused(f"{name} could {risk} {self.ups}: {danger.why}. If you want that, set {option}: true")

    def _check_ups(self, client: UpsdClient) -> None:
        served = client.list_ups()
        if self.ups.lower() not in {name.lower() for name in served}:
            others = ", ".join(served) or "none at all"
            raise UnknownUps("UNKNOWN-UPS", client.address, f"the question for {self.ups!r}", f"it serves {others}")

    def _plan_command(self, client: UpsdClient, command: str, permission: Permission) -> str:
        self._check_ups(client)
        known = {name.lower(): name for name in client.list_cmds(self.ups)}
        if command.lower() not in known:
            raise OrderRefused(
                f"{self.ups} has no command {command}. It has {', '.join(known.values()) or 'none at all'}"
            )
        danger = find_danger(command)
        if danger is not None and danger.effect is not Effect.POWER:
            obstacle = find_obstacle(client.list_vars(self.ups), permission.charge)
            if obstacle:
                raise OrderRefused(f"the battery of {self.ups} can't be tested now: {obstacle}")
        return known[command.lower()]

    def _plan_settings(
        self, client: UpsdClient, wanted: Mapping[str, str], permission: Permission
    ) -> tuple[Setting, ...]:
        self._check_ups(client)
        settings = []
        for name, value in wanted.items():
            try:
                known = snapshot.find_writable(client, self.ups, name)
            except VarNotSupported:
                raise OrderRefused(f"{self.ups} has no variable {name}{self._list_settable(client)}") from None
            except grammar.Unencodable as error:
                raise OrderRefused(f"the variable {name!r}: {error}") from None
            if known is None:
                raise OrderRefused(f"{name} of {self.ups} can't be set{self._list_settable(client)}")
            if vocabulary.is_same_value(known.value, value):
                continue
            setting = Setting(known.name, known.value, fit_value(known, value))
            self._check_permission(f"setting {setting.name}", find_danger_of_variable(name), permission)
            settings.append(setting)
        return tuple(settings)

    def _list_settable(self, client: UpsdClient) -> str:
        return f". Variables that can be set: {', '.join(client.list_rw(self.ups)) or 'none'}"

    def _authenticate(self, client: UpsdClient, right: str, order: str) -> bool:
        """Send username and password, and have orders tracked. Return whether upsd tracks them.

        For messages, right is what upsd.users must grant, and order a command's name or a phrase.
        """
        if not self.username:
            raise OrderRefused(
                f"upsd at {client.address} requires a username and password to {_phrase_order(order)}"
                f"{_advise_right('', right)}"
            )
        try:
            client.authenticate(self.username, self.password)
        except grammar.Unencodable as error:
            raise OrderRefused(f"the username or password can't be sent to upsd: {error}") from None
        if not self.tracked:
            return False
        try:
            client.set_tracking()
        except (UnknownCommand, InvalidArgument):
            return False
        return True

    def _explain_denial(self, error: AccessDenied, right: str, order: str) -> OrderRefused:
        return OrderRefused(
            f"upsd does not let the user {self.username} {_phrase_order(order)} ({error.code}). The password may be wrong, or"
            f" the user lacks the right{_advise_right(self.username, right)}"
        )

    def _send_command(
        self, client: UpsdClient, name: str, value: str | None, tracked: bool, wait: float
    ) -> OrderOutcome:
        client.renew_timeout()
        try:
            tracking = client.instcmd(self.ups, name, value)
        except AccessDenied as error:
            raise self._explain_denial(error, f"instcmds = {name}", name) from error
        except UpsdError as error:
            return OrderOutcome("failed", str(error))
        except Unreachable as error:
            return OrderOutcome(
                "unknown", f"the connection broke, so the driver may or may not have received it: {error}"
            )
        except grammar.Unencodable as error:
            raise OrderRefused(f"the value of {name}: {error}") from None
        return self._wait_for_result(client, tracking if tracked else None, wait)

    def _set_variable(self, client: UpsdClient, setting: Setting, tracked: bool, wait: float) -> OrderOutcome:
        client.renew_timeout()
        end = self.clock() + wait
        try:
            tracking = client.set_var(self.ups, setting.name, setting.after)
        except AccessDenied as error:
            raise self._explain_denial(error, "actions = SET", "set variables") from error
        except UpsdError as error:
            return OrderOutcome("failed", str(error), setting.before)
        except Unreachable as error:
            return OrderOutcome(
                "unknown",
                f"the connection broke, so the driver may or may not have received it: {error}",
                setting.before,
            )
        except grammar.Unencodable as error:
            raise OrderRefused(f"the value of {setting.name}: {error}") from None
        outcome = self._wait_for_result(client, tracking if tracked else None, wait)
        if outcome.result == "failed":
            return outcome
        value = setting.before
        pause = _FIRST_PAUSE
        while True:
            try:
                client.renew_timeout()
                value = client.get_var(self.ups, setting.name)
            except UpsdFailure as error:
                return replace(outcome, explanation=f"{outcome.explanation}; afterwards {error}", value=value)
            left = end - self.clock()
            if vocabulary.is_same_value(value, setting.after):
                return OrderOutcome("success", f"it is {value} now", value)
            if left <= 0:
                return replace(
                    outcome, explanation=f"{outcome.explanation}, but after {wait:g} s it is {value}", value=value
                )
            self.sleep(min(pause, left))
            pause = min(2 * pause, 1.0)

    def _wait_for_result(self, client: UpsdClient, tracking: str | None, wait: float) -> OrderOutcome:
        if tracking is None:
            return OrderOutcome(
                "unknown", "the driver has received it; without tracking, upsd can't report whether it was done"
            )
        end = self.clock() + wait
        pause = _FIRST_PAUSE
        while True:
            client.renew_timeout()
            try:
                answer = client.get_tracking(tracking)
            except UpsdFailure as error:
                return OrderOutcome("unknown", f"the driver has received it; afterwards {error}")
            if answer == "SUCCESS":
                return OrderOutcome("success", "the driver did it")
            if answer != "PENDING":
                return OrderOutcome("failed", f"the driver answered {answer}{_ANSWERS.get(answer, '')}")
            left = end - self.clock()
            if left <= 0:
                return OrderOutcome("pending", f"the driver has received it, and has not answered within {wait:g} s")
            self.sleep(min(pause, left))
            pause = min(2 * pause, 1.0)


_FIRST_PAUSE = 0.1
_ANSWERS = {
    "UNKNOWN": ": it does not support this, although upsd lists it",
    "INVALID-ARGUMENT": ": it does not accept this value",
    "FAILED": ": the driver or the UPS could not do it",
}


def _phrase_order(order: str) -> str:
    return order if " " in order else f"give the command {order}"


def _advise_right(username: str, right: str) -> str:
    """Return what upsd.users must contain, as the end of a message. right: such as "actions = SET"."""
    key, _equals, value = right.partition(" = ")
    name = username or "NAME"
    return (
        f". upsd.users on that host needs `{right}` in the section [{name}]; with this collection, set"
        f" nut_server_users: [{{name: {name}, {key}: [{value}]}}]. Then upsd must be reloaded"
    )


def fit_value(known: snapshot.WritableVariable, value: str) -> str:
    """Return a value as the UPS spells it. Raises OrderRefused if the variable can't have this value."""
    for allowed_value in known.values:
        if vocabulary.is_same_value(allowed_value, value):
            return allowed_value
    if known.ranges and _is_within(known.ranges, value):
        return value
    if known.values or known.ranges:
        allowed = [*known.values, *(f"{least} to {most}" for least, most in known.ranges)]
        raise OrderRefused(f"{known.name} can't be {value!r}. Allowed: {', '.join(allowed)}")
    length = known.type.length
    if length is not None and len(value) > length:
        raise OrderRefused(f"{known.name} can't be {value!r}: it has {len(value)} characters, the limit is {length}")
    return value


def _is_within(ranges: tuple[tuple[int, int], ...], value: str) -> bool:
    """Return whether a value is a number in one of the ranges. upsd itself would take a word for 0 (atoi)."""
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", value):
        return False
    return any(least <= float(value) <= most for least, most in ranges)
