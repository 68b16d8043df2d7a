# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Orders to a UPS: what each does to the power of what hangs on it, and giving them up to the real result.

upsd's OK means that the driver was told, and no more. Whether the driver did it is known by tracking (since 2.8.0), and
whether the UPS did it by looking again. Nothing here that could cut power or empty a battery is done without a word of
the caller's that says so, and what is not known to be harmless could.
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
"""How long an order is waited for, unless the caller says otherwise."""


class OrderRefused(Exception):
    """The order was not given, for the reason that the message says. Nothing has been changed."""


@dataclass(frozen=True)
class Permission:
    """What the caller allows. charge: percent of the battery below which no test begins."""

    cut_power: bool = False
    drain_battery: bool = False
    charge: float = LEAST_CHARGE


@dataclass(frozen=True)
class OrderOutcome:
    """What became of an order.

    result: "success"; "failed": driver or UPS did not do it; "pending": the driver has not answered within the time;
    "unknown": it was sent, and nothing can tell more. words: the same for people. value: of a variable, as it is now.
    """

    result: str
    explanation: str
    value: str | None = None


@dataclass(frozen=True)
class Setting:
    """A variable to be set: what it is, and what it shall be, as the UPS spells it."""

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class Operator:
    """Who gives orders to one UPS.

    open_client: gives a new Client, not yet connected. username, password: of upsd.users; "" if there is none, which
    does for plans. tracked: whether to ask upsd to track orders. clock, sleep: as time's.

    Methods raise Refused, and upsd.UpsdFailure if upsd can't be talked to, or has no data of the UPS.
    """

    open_client: Callable[[], UpsdClient]
    ups: str
    username: str = ""
    password: str = ""
    tracked: bool = True
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def plan_command(self, command: str, permission: Permission) -> str:
        """Return the command as the UPS spells it, if it has it, and if it may be given now."""
        self._check_permission(command, find_danger(command), permission)
        with self.open_client() as client:
            return self._plan_command(client, command, permission)

    def give_command(
        self, command: str, value: str | None, permission: Permission, wait: float = SECONDS
    ) -> OrderOutcome:
        """Give an instant command, and wait up to ``wait`` seconds for what becomes of it."""
        self._check_permission(command, find_danger(command), permission)
        with self.open_client() as client:
            name = self._plan_command(client, command, permission)
            tracked = self._authenticate(client, f"instcmds = {name}", name)
            return self._send_command(client, name, value, tracked, wait)

    def plan_settings(self, wanted: Mapping[str, str], permission: Permission) -> tuple[Setting, ...]:
        """Return what has to be set so that the variables are as wanted: without those that are already."""
        with self.open_client() as client:
            return self._plan_settings(client, wanted, permission)

    def set_variables(
        self, wanted: Mapping[str, str], permission: Permission, wait: float = SECONDS
    ) -> list[tuple[Setting, OrderOutcome]]:
        """Set what is not as wanted, each waited for ``wait`` seconds; stop at the first that is no success."""
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
        """See that FSD may be set, as far as that can be seen without doing it."""
        why = "every host on this UPS goes down, and then the primary may let it cut the power; nothing takes it back"
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
        return OrderOutcome("success", f"{self.ups} has the flag FSD: all hosts on it go down")

    def plan_battery_test(self, kind: str, permission: Permission) -> str:
        """Return the command that begins a battery test, QUICK or DEEP, if it may begin now."""
        return self.plan_command(f"test.battery.start.{kind}", permission)

    def test_battery(
        self, kind: str, permission: Permission, wait: float | None = None, interval: float = 2.0
    ) -> BatteryVerdict:
        """Test the battery, and watch until it is over, or ``wait`` seconds are; say what it showed.

        interval: seconds between two looks.
        """
        command = self.plan_battery_test(kind, permission)
        before = self._list_variables()
        end = self.clock() + (TEST_SECONDS[kind] if wait is None else wait)
        outcome = self.give_command(command, None, permission, SECONDS)
        if outcome.result == "failed":
            return BatteryVerdict(
                vocabulary.UNKNOWN, f"the test did not begin: {outcome.explanation}", before.get(RESULT, ""), 0.0
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

    # The parts

    def _list_variables(self) -> dict[str, str]:
        with self.open_client() as client:
            return client.list_vars(self.ups)

    def _check_permission(self, name: str, found: Danger | None, permission: Permission) -> None:
        if found is None or found.effect is Effect.BATTERY:
            return
        option = "may_cut_power" if found.effect is Effect.POWER else "may_drain_battery"
        allowed = permission.cut_power if found.effect is Effect.POWER else permission.drain_battery
        what = "could cut the power of what hangs on" if found.effect is Effect.POWER else "could empty the battery of"
        if not allowed:
            raise OrderRefused(f"{name} {what} {self.ups}: {found.why}. If that is what you want, say {option}: true")

    def _check_ups(self, client: UpsdClient) -> None:
        served = client.list_ups()
        if self.ups.lower() not in {name.lower() for name in served}:
            others = ", ".join(served) or "none at all"
            raise UnknownUps("UNKNOWN-UPS", client.address, f"the question for {self.ups!r}", f"it serves {others}")

    def _plan_command(self, client: UpsdClient, command: str, permission: Permission) -> str:
        self._check_ups(client)
        there = {name.lower(): name for name in client.list_cmds(self.ups)}
        if command.lower() not in there:
            raise OrderRefused(
                f"{self.ups} has no command {command}. It has {', '.join(there.values()) or 'none at all'}"
            )
        found = find_danger(command)
        if found is not None and found.effect is not Effect.POWER:
            reason = find_obstacle(client.list_vars(self.ups), permission.charge)
            if reason:
                raise OrderRefused(f"no test of the battery of {self.ups} now: {reason}")
        return there[command.lower()]

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
        return f". What can be set: {', '.join(client.list_rw(self.ups)) or 'nothing at all'}"

    def _authenticate(self, client: UpsdClient, right: str, what: str) -> bool:
        """Authenticate. Says whether orders are tracked."""
        if not self.username:
            raise OrderRefused(
                f"to {_phrase_order(what)}, upsd at {client.address} wants a username and a password{_advise_right('', right)}"
            )
        try:
            client.authenticate(self.username, self.password)
        except grammar.Unencodable as error:
            raise OrderRefused(f"username or password can't be sent to upsd: {error}") from None
        if not self.tracked:
            return False
        try:
            client.set_tracking()
        except (UnknownCommand, InvalidArgument):
            return False
        return True

    def _explain_denial(self, error: AccessDenied, right: str, what: str) -> OrderRefused:
        return OrderRefused(
            f"upsd does not let the user {self.username} {_phrase_order(what)} ({error.code}). Its password may be wrong, or it has"
            f" no right to{_advise_right(self.username, right)}"
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
            return OrderOutcome("unknown", f"nobody knows whether the driver was told: {error}")
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
            return OrderOutcome("unknown", f"nobody knows whether the driver was told: {error}", setting.before)
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
                return replace(outcome, explanation=f"{outcome.explanation}; then {error}", value=value)
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
            return OrderOutcome("unknown", "the driver was told; without tracking nobody knows whether it did it")
        end = self.clock() + wait
        pause = _FIRST_PAUSE
        while True:
            client.renew_timeout()
            try:
                said = client.get_tracking(tracking)
            except UpsdFailure as error:
                return OrderOutcome("unknown", f"the driver was told; then {error}")
            if said == "SUCCESS":
                return OrderOutcome("success", "the driver did it")
            if said != "PENDING":
                return OrderOutcome("failed", f"the driver answered {said}{_ANSWERS.get(said, '')}")
            left = end - self.clock()
            if left <= 0:
                return OrderOutcome("pending", f"the driver was told, and has not answered within {wait:g} s")
            self.sleep(min(pause, left))
            pause = min(2 * pause, 1.0)


_FIRST_PAUSE = 0.1
_ANSWERS = {
    "UNKNOWN": ": it does not know it, whatever upsd lists",
    "INVALID-ARGUMENT": ": the value is none that it takes",
    "FAILED": ": it or the UPS could not do it",
}


def _phrase_order(what: str) -> str:
    return what if " " in what else f"give the command {what}"


def _advise_right(username: str, right: str) -> str:
    """Say what upsd.users has to hold."""
    key, _equals, value = right.partition(" = ")
    name = username or "NAME"
    return (
        f". upsd.users of that host needs `{right}` in the section [{name}], with this collection"
        f" nut_server_users: [{{name: {name}, {key}: [{value}]}}], and upsd has to be reloaded then"
    )


def fit_value(known: snapshot.WritableVariable, value: str) -> str:
    """Return a value as the UPS spells it. Raises Refused if it is none that the variable may have."""
    if known.values:
        for one in known.values:
            if vocabulary.is_same_value(one, value):
                return one
    if known.ranges and _is_within(known.ranges, value):
        return value
    if known.values or known.ranges:
        allowed = [*known.values, *(f"{least} to {most}" for least, most in known.ranges)]
        raise OrderRefused(f"{known.name} can't be {value!r}: it may be {', '.join(allowed)}")
    length = known.type.length
    if length is not None and len(value) > length:
        raise OrderRefused(
            f"{known.name} can't be {value!r}: it has {len(value)} characters, and {length} are the most"
        )
    return value


def _is_within(ranges: tuple[tuple[int, int], ...], value: str) -> bool:
    """upsd takes a word for 0 (atoi); here it is refused."""
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", value):
        return False
    return any(least <= float(value) <= most for least, most in ranges)
