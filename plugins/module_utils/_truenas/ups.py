# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TrueNAS's UPS service: check the options, plan the steps, predict the result. Everything here is pure; apply.py takes the steps.

The field names and rules are those of `ups.config` and `ups.update`, the same from TrueNAS 22.12 to 27
(S/plugins/ups/config.py of truenas/middleware).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._nut.conf import grammar
from .middleware import OptionError

RUNNING = "RUNNING"
STOPPED = "STOPPED"
HIDDEN = "(hidden)"
HIDDEN_OTHER = "(hidden, another value)"

# Settings that may contain a password: of the NUT login, of further NUT users, of a driver (SNMP, IPMI, a network card).
SECRETS = ("monpwd", "extrausers", "options", "optionsupsd")
SETTINGS = (
    "mode",
    "identifier",
    "remotehost",
    "remoteport",
    "monuser",
    "monpwd",
    "shutdown",
    "shutdowntimer",
    "shutdowncmd",
    "hostsync",
    "nocommwarntime",
    "powerdown",
    "rmonitor",
    "driver",
    "port",
    "options",
    "optionsupsd",
    "description",
    "extrausers",
)
# The login in the settings of a new TrueNAS.
FACTORY_LOGIN = {"monuser": "upsmon", "monpwd": "fixmepass"}

_RANGES = {  # smallest, largest
    "remoteport": (1, 65535),
    "shutdowntimer": (0, 2**31 - 1),
    "hostsync": (0, 2**31 - 1),
    "nocommwarntime": (0, 2**31 - 1),
}
# longest values that TrueNAS's database keeps, in characters
_LENGTHS = {"identifier": 120, "shutdowncmd": 255, "description": 120, "driver": 120, "port": 120}
# Half of a surrogate pair comes from bytes that are not UTF-8.
_ONE_LINE = (r"[^\x00-\x1f\x7f\ud800-\udfff]*", "must be one line without control characters")
_TEXT = (r"[^\x00\ud800-\udfff]*", "contains a NUL character, or bytes that are not UTF-8")
_FORMS = {  # a pattern for the whole value, and the reason to give if it does not match
    "identifier": (
        r"[A-Za-z0-9._-]+",
        "must consist of letters, digits, '.', '_' and '-', and must not be empty",
    ),
    # TrueNAS writes it between double quotes, unescaped.
    "shutdowncmd": (
        r'[^\\"#\x00-\x1f\x7f-\U0010ffff]*',
        "must be ASCII without control characters, '\"', '\\' and '#'",
    ),
    "driver": _ONE_LINE,
    "port": _ONE_LINE,
    # This, too, is written between double quotes, in ups.conf.
    "description": (r'[^\\"\x00-\x1f\x7f\ud800-\udfff]*', "must be one line without control characters, '\"' and '\\'"),
}


@dataclasses.dataclass(frozen=True)
class ServiceState:
    """The state of the UPS service."""

    enable: bool  # whether it starts on boot
    state: str  # RUNNING, STOPPED or UNKNOWN
    pids: tuple[int, ...] = dataclasses.field(default=(), compare=False)  # of upsmon; none if TrueNAS does not tell

    def as_result(self) -> dict[str, Any]:
        """Return what the module returns about the service."""
        return {"enable": self.enable, "state": self.state}


@dataclasses.dataclass(frozen=True)
class WantedSettings:
    """The wanted settings."""

    present: bool
    settings: Mapping[str, Any]  # only those that were given; the others do not change
    restart: bool = False  # whether to restart a running service although nothing changes


@dataclasses.dataclass(frozen=True)
class UpsStep:
    """One step."""

    action: str  # stop, update, enable, disable or start
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # for update
    live: bool = False  # whether TrueNAS restarts the running service after it

    @property
    def description(self) -> str:
        """Return what this step has done, in the past tense."""
        if self.action == "update":
            restarted = "; TrueNAS restarted its UPS service" if self.live else ""
            return f"set {', '.join(self.settings)}{restarted}"
        return {
            "stop": "stopped the UPS service",
            "start": "started the UPS service",
            "enable": "enabled the UPS service on boot",
            "disable": "disabled the UPS service on boot",
        }[self.action]


@dataclasses.dataclass
class Progress:
    """The steps taken so far, which a failure reports, too."""

    changed: bool = False
    actions: list[str] = dataclasses.field(default_factory=list)  # descriptions of the steps
    warnings: list[str] = dataclasses.field(default_factory=list)  # what TrueNAS reported although the goal was reached
    secrets: list[str] = dataclasses.field(default_factory=list, repr=False)  # read on the way; masked in messages


# ---------------------------------------------------------------------------------------------------------------------
# Options


def find_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with values that TrueNAS or its upsmon can't use, as 'option: reason'. Never repeats a value.

    TrueNAS accepts some values that break its own upsmon.conf: a newline in identifier or remotehost, a backslash or an
    equals sign in monpwd, an IPv6 address without brackets.
    """
    problems = []
    for option, value in settings.items():
        reason = _find_value_problem(option, value)
        if reason:
            problems.append(f"{option}: {reason}")
    return problems


def _find_value_problem(option: str, value: Any) -> str:
    """Return why an option's value is refused; '' if it is not."""
    if option in _RANGES:
        low, high = _RANGES[option]
        # In Ansible, true is an int as well; in TrueNAS it is not.
        number = isinstance(value, int) and not isinstance(value, bool)
        return "" if number and low <= value <= high else f"must be a number from {low} to {high}"
    if not isinstance(value, str):
        return ""
    if option in _OWN_RULES:
        return _OWN_RULES[option](value)
    form, reason = _FORMS.get(option, _TEXT)
    if len(value) > _LENGTHS.get(option, len(value)):
        return f"is longer than the {_LENGTHS[option]} characters that TrueNAS keeps"
    return "" if re.fullmatch(form, value) else reason


def _find_host_problem(value: str) -> str:
    if _is_ipv6(value):
        return f"is an IPv6 address without brackets, which upsmon can't tell from its port; write [{value}]"
    name = re.fullmatch(r"[A-Za-z0-9._-]{1,253}", value)
    # Python accepts any characters as a zone, such as a quote or an escape character.
    bracketed = re.fullmatch(r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]", value) and _is_ipv6(value[1:-1])
    rules = (
        (not value, "must not be empty"),
        (re.search(r"\s", value), "contains a space or a line break"),
        (re.fullmatch(r"[^:/@]+:[0-9]+", value), "contains a port; put it into remoteport"),
        (not name and not bracketed, "must be a host name, an IPv4 address or an IPv6 address in brackets"),
    )
    return next((reason for broken, reason in rules if broken), "")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


_OWN_RULES: dict[str, Callable[[str], str]] = {
    "remotehost": _find_host_problem,
    "monuser": lambda value: grammar.find_user_problem(value) or "",
    "monpwd": lambda value: grammar.find_password_problem(value) or "",
}


def breaks_yaml(text: str) -> bool:
    """Return whether a text without blanks, written in YAML without quotes, makes the file invalid or becomes another value."""
    return bool(re.match(r"[\[\]{},&*!|>%@`'\"]|[-?:]$", text)) or text.endswith(":") or text in _YAML_NULLS


def find_graph_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings of a secondary that TrueNAS spoils when it writes them into YAML for its graphs of the UPS.

    These are the three that the file has (netdata/go.d/upsd.conf.mako of truenas/middleware).
    """
    if settings.get("mode") != "SLAVE":
        return []
    return [name for name in ("remotehost", "monuser", "monpwd") if breaks_yaml(str(settings.get(name) or "x"))]


_YAML_NULLS = ("~", "null", "Null", "NULL")


def normalise_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings as TrueNAS keeps them: an empty shutdowncmd or nocommwarntime is null."""
    return {
        name: None if name in ("shutdowncmd", "nocommwarntime") and not value else value
        for name, value in settings.items()
    }


# ---------------------------------------------------------------------------------------------------------------------
# Plan


def plan_steps(current: Mapping[str, Any], service: ServiceState, wanted: WantedSettings) -> tuple[UpsStep, ...]:
    """Return the steps that lead to the wanted settings; none if nothing differs. Raises OptionError for an impossible goal."""
    if not wanted.present:
        return _plan_absent(current, service)
    changes = find_differences(current, wanted.settings)
    _check_goal({**current, **changes})
    steps = []
    if changes:
        steps.append(UpsStep("update", changes, live=service.state == RUNNING))
    if not service.enable:
        steps.append(UpsStep("enable"))
    restart = wanted.restart and service.state == RUNNING and not changes
    if restart or service.state not in (RUNNING, STOPPED):
        # UNKNOWN: TrueNAS does not restart such a service for new settings, so stop it here and start it
        steps.append(UpsStep("stop"))
    if restart or service.state != RUNNING:
        steps.append(UpsStep("start"))
    return tuple(steps)


def _plan_absent(current: Mapping[str, Any], service: ServiceState) -> tuple[UpsStep, ...]:
    """Return the steps that stop the service, disable it on boot, and remove a secondary's login.

    A new TrueNAS is MASTER without a driver, but ups.update refuses exactly that ("port: This field is required").
    So go back to MASTER only if a driver and a port are set; else keep the mode, which has no effect while the service
    is stopped.
    """
    steps = []
    if service.state != STOPPED:
        steps.append(UpsStep("stop"))
    if service.enable:
        steps.append(UpsStep("disable"))
    if current.get("mode") == "SLAVE":
        goal = dict(FACTORY_LOGIN)
        if current.get("driver") and current.get("port"):
            goal = {"mode": "MASTER", **goal}
        changes = find_differences(current, goal)
        if changes:
            steps.append(UpsStep("update", changes))
    return tuple(steps)


def find_differences(current: Mapping[str, Any], goal: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the goal that differ from the current ones."""
    now = normalise_settings(current)
    return {name: value for name, value in normalise_settings(goal).items() if now.get(name) != value}


def _check_goal(goal: Mapping[str, Any]) -> None:
    """Raise OptionError if TrueNAS would refuse this combination of settings."""
    if goal.get("mode") == "MASTER":
        missing = [name for name in ("driver", "port") if not goal.get(name)]
        if missing:
            raise OptionError(f"{' and '.join(missing)}: required for mode MASTER, and not set on TrueNAS either")
    elif not goal.get("remotehost"):
        raise OptionError(
            "remotehost: required for mode SLAVE, and not set on TrueNAS either; set it to the NUT server"
        )


def predict_result(
    current: Mapping[str, Any], service: ServiceState, steps: Iterable[UpsStep]
) -> tuple[dict[str, Any], ServiceState]:
    """Return the settings and the service state after the steps, if all of them succeed."""
    settings = dict(current)
    for step in steps:
        if step.action == "update":
            settings.update(step.settings)
        elif step.action in ("enable", "disable"):
            service = dataclasses.replace(service, enable=step.action == "enable")
        else:
            service = dataclasses.replace(service, state=RUNNING if step.action == "start" else STOPPED)
    if "complete_identifier" in settings:
        host = "localhost" if settings["mode"] == "MASTER" else settings["remotehost"]
        settings["complete_identifier"] = f"{settings['identifier']}@{host}:{settings['remoteport']}"
    return settings, service


def redact_settings(settings: Mapping[str, Any], other: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings with secrets hidden. Shows that a secret differs from the one in `other`, but not the secret."""

    def hide_secret(name: str, value: Any) -> Any:
        if name not in SECRETS or not value:
            return value
        return HIDDEN if other is None or other.get(name) == value else HIDDEN_OTHER

    return {name: hide_secret(name, settings[name]) for name in sorted(settings)}
