# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An upsd that takes orders, and an operator who gives them to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import commands as net_commands
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors

CUTS = [
    *("load.off", "LOAD.OFF", "load.off.delay", "load.cycle", "outlet.1.load.off", "outlet.12.load.cycle"),
    *("shutdown.return", "shutdown.stayoff", "shutdown.reboot", "shutdown.reboot.graceful", "shutdown.default"),
    *("outlet.2.shutdown.return", "outlet.group.1.load.off", "bypass.start", "bypass.stop", "driver.killpower"),
    *("driver.reload", "driver.reload-or-exit", "test.failure.start", "test.system.start", "reset.watchdog", "x.y", ""),
    *("beeper.mute.x", "xbeeper.mute", "load.on.off", "beeper mute", "shutdown.stopx", "beeper.mute\n"),
]
DRAINS = ["test.battery.start", "test.battery.start.deep", "Test.Battery.Start.DEEP", "calibrate.start"]


class CommandedClock:
    """A clock that advances only in sleep(), and then runs the events that are due."""

    def __init__(self) -> None:
        self.now = 100.0
        self.later: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        for when, happens in [event for event in self.later if event[0] <= self.now]:
            self.later.remove((when, happens))
            happens()


@dataclass
class CommandedUpsd:
    """upsd, its driver and its UPS, as a client sees them. `errors`: the exceptions that methods raise."""

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
    address: str = "pve:3493"

    def __enter__(self) -> CommandedUpsd:
        self.opened += 1
        self.tracks = False
        self._raise_error("open")
        return self

    def __exit__(self, *_unused: object) -> None:
        pass

    def _raise_error(self, what: str) -> None:
        if what in self.errors:
            raise self.errors[what]

    def _record_words(self, *words: str) -> None:
        self.said.append(words)
        self._raise_error(words[0])
        self.on(words)

    def renew_timeout(self) -> None:
        pass

    def list_ups(self) -> dict[str, str]:
        return {"a": "", "b": ""}

    def list_cmds(self, ups: str) -> tuple[str, ...]:
        return self.commands

    def list_vars(self, ups: str) -> dict[str, str]:
        self._raise_error("list_vars")
        return dict(self.variables)

    def list_rw(self, ups: str) -> dict[str, str]:
        return {name: value for name, value in self.variables.items() if name not in ("ups.status", "battery.charge")}

    def get_var(self, ups: str, name: str) -> str:
        self._raise_error("get_var")
        if name not in self.variables:
            raise net_errors.VarNotSupported("VAR-NOT-SUPPORTED", self.address, name)
        return self.variables[name]

    def get_type(self, ups: str, name: str) -> client.VariableType:
        return client.VariableType(
            True, name == "input.sensitivity", "delay" in name, 5 if name == "ups.id" else None, True
        )

    def get_desc(self, ups: str, name: str) -> str:
        return ""

    def list_enum(self, ups: str, name: str) -> tuple[str, ...]:
        return ("low", "medium", "010")

    def list_range(self, ups: str, name: str) -> tuple[tuple[int, int], ...]:
        return ((0, 60), (120, 180))

    def authenticate(self, username: str, password: str) -> None:
        self._record_words("authenticate", username, password)

    def set_tracking(self) -> None:
        if self.old:
            raise net_errors.InvalidArgument("INVALID-ARGUMENT", self.address, "SET TRACKING ON")
        self.tracks = True

    def instcmd(self, ups: str, command: str, value: str | None = None) -> str | None:
        self._record_words("instcmd", ups, command, *([value] if value is not None else []))
        return "id" if self.tracks else None

    def set_var(self, ups: str, name: str, value: str) -> str | None:
        self._record_words("set_var", ups, name, value)
        if self.obeys:
            self.variables[name] = value
        return "id" if self.tracks else None

    def get_tracking(self, tracking: str) -> str:
        assert tracking == "id"
        self._raise_error("get_tracking")
        return self.tracking.pop(0) if len(self.tracking) > 1 else self.tracking[0]

    def fsd(self, ups: str) -> None:
        self._record_words("fsd", ups)

    @property
    def orders(self) -> list[tuple[str, ...]]:
        """What was said, without who said it."""
        return [words for words in self.said if words[0] != "authenticate"]


def make_operator(server: CommandedUpsd, clock: CommandedClock, **more: Any) -> net_commands.Operator:
    given = {"username": "admin", "password": "s3cret", **more}
    return net_commands.Operator(
        lambda: cast("client.UpsdClient", server), "a", clock=clock, sleep=clock.sleep, **given
    )


NO_RIGHT = net_errors.AccessDenied("ACCESS-DENIED", "pve:3493", "it")
GONE = net_errors.Unreachable("pve", 3493, "no complete answer in time")
