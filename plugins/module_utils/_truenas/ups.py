# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TrueNAS's UPS service: check the options, plan the steps, take them.

`plan_steps` is pure: it compares the current with the wanted settings. `apply_steps` takes the steps. Neither depends on
the transport. The field names and rules are those of `ups.config` and `ups.update`, the same from TrueNAS 22.12 to 27
(S/plugins/ups/config.py of truenas/middleware).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .._nut.conf import grammar
from .middleware import CallFailed, ConnectionLost, MethodMissing, Middleware, OptionError, ServiceFailed

SERVICE = "ups"
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


@dataclasses.dataclass(frozen=True)
class WantedSettings:
    """The wanted settings."""

    present: bool
    settings: Mapping[str, Any]  # only those that were given; the others do not change


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
    changes = _find_differences(current, wanted.settings)
    _check_goal({**current, **changes})
    steps = []
    if changes:
        steps.append(UpsStep("update", changes, live=service.state == RUNNING))
    if not service.enable:
        steps.append(UpsStep("enable"))
    if service.state not in (RUNNING, STOPPED):
        # UNKNOWN: TrueNAS does not restart such a service for new settings, so stop it here and start it
        steps.append(UpsStep("stop"))
    if service.state != RUNNING:
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
        changes = _find_differences(current, goal)
        if changes:
            steps.append(UpsStep("update", changes))
    return tuple(steps)


def _find_differences(current: Mapping[str, Any], goal: Mapping[str, Any]) -> dict[str, Any]:
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


# ---------------------------------------------------------------------------------------------------------------------
# Read and apply


def read_settings(middleware: Middleware) -> dict[str, Any]:
    """Return the settings from ups.config. They contain monpwd in clear, even for read-only users."""
    config = middleware.call("ups.config")
    if not isinstance(config, dict) or "mode" not in config:
        raise ServiceFailed(
            f"{middleware.host}: the answer of ups.config has no mode. Check that this TrueNAS release is supported."
        )
    return config


def read_service(middleware: Middleware) -> ServiceState:
    """Return the state of the UPS service from service.query."""
    row = middleware.call("service.query", [["service", "=", SERVICE]], {"get": True})
    if not isinstance(row, dict) or "enable" not in row or "state" not in row:
        raise ServiceFailed(
            f"{middleware.host}: service.query lists no UPS service. Check that this TrueNAS release is supported."
        )
    return ServiceState(enable=bool(row["enable"]), state=str(row["state"]))


def apply_steps(middleware: Middleware, steps: Iterable[UpsStep], progress: Progress) -> None:
    """Take the steps, and record each in `progress`, which also shows how far a failed run got. Raises TruenasError."""
    runs = False
    for step in steps:
        try:
            if step.action == "update":
                _update_settings(middleware, step, progress)
            elif step.action in ("enable", "disable"):
                middleware.call("service.update", SERVICE, {"enable": step.action == "enable"})
            else:
                _control_service(middleware, step.action)
        except ConnectionLost:
            progress.changed = True  # unknown; a false "ok" would be worse
            raise
        progress.changed = True
        progress.actions.append(step.description)
        if step.action == "stop":
            _expect_stopped(middleware)
        runs = runs or step.live or step.action == "start"
    if runs:
        _expect_running(middleware, progress)


def _update_settings(middleware: Middleware, step: UpsStep, progress: Progress) -> None:
    try:
        answer = middleware.call("ups.update", dict(step.settings))
    except CallFailed as error:
        if error.errname != "ESERVICESTARTFAILURE" and "[ESERVICESTARTFAILURE]" not in error.reason:
            raise
        # TrueNAS saves before it restarts. So these settings are in its database.
        progress.changed = True
        progress.actions.append(f"set {', '.join(step.settings)}; TrueNAS could not start its UPS service with them")
        raise ServiceFailed(
            f"{middleware.host}: the settings were saved, but the UPS service failed to start with them "
            f"({error.reason}). TrueNAS is NOT protected now. Check remotehost, driver and port, and the service's log "
            "on TrueNAS, then run again; the next run starts the service."
        ) from error
    stored = answer if isinstance(answer, dict) else {}
    lost = sorted(_find_differences(stored, step.settings))
    if lost:
        progress.changed = True
        raise ServiceFailed(
            f"{middleware.host}: ups.update reported success, but TrueNAS did not keep {', '.join(lost)} as sent. "
            "Look at System > Services > UPS on TrueNAS."
        )


def _control_service(middleware: Middleware, verb: str) -> None:
    """Start or stop the service."""
    options = {"silent": False}  # with silent, a failed start is a success with the result false
    try:
        middleware.call_job("service.control", verb.upper(), SERVICE, options)
    except MethodMissing:
        # 25.04 does not have service.control yet; 26 no longer has service.start.
        try:
            middleware.call(f"service.{verb}", SERVICE, options)
        except CallFailed as error:
            # `silent` came with 22.12; CORE 13 rejects it and does nothing. There a failed start is a success with the
            # result false (and the result of stop is inverted).
            if error.errname != "EINVAL" or "silent: Field was not expected" not in error.reason:
                raise
            if middleware.call(f"service.{verb}", SERVICE) is False and verb == "start":
                raise ServiceFailed(
                    f"{middleware.host}: the UPS service did not start, and this release does not report why. TrueNAS is "
                    "NOT protected now. Look at /var/log/messages on TrueNAS; check remotehost, monuser and monpwd."
                ) from error


def _expect_stopped(middleware: Middleware) -> None:
    state = read_service(middleware).state
    if state != STOPPED:
        raise ServiceFailed(
            f"{middleware.host}: the UPS service was told to stop but is {state}. Look at System > Services on TrueNAS."
        )


def _expect_running(middleware: Middleware, progress: Progress) -> None:
    """Check that the service runs; a restart can leave it stopped (seen on 25.10). If so, stop and start it, once."""
    if read_service(middleware).state == RUNNING:
        return
    progress.changed = True
    _control_service(middleware, "stop")
    _control_service(middleware, "start")
    progress.actions.append("restarted the UPS service, which was not running after the change")
    state = read_service(middleware).state
    if state != RUNNING:
        raise ServiceFailed(
            f"{middleware.host}: the UPS service was started twice but is {state}. TrueNAS is NOT protected now. "
            "Look for upsmon in /var/log/syslog on TrueNAS; check remotehost, monuser and monpwd."
        )
