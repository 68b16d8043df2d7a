# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""TrueNAS's UPS service: check the options, plan the steps, take them.

`plan` is pure: from what is and what is wanted to the steps. `apply` takes them. Both know no transport. The field
names and rules are those of `ups.config` and `ups.update`, the same from TrueNAS 22.12 to 27
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

# What may hold a password: of the NUT login, of further NUT users, of a driver (SNMP, IPMI, a network card).
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
# What a TrueNAS holds that never had a UPS.
FACTORY_LOGIN = {"monuser": "upsmon", "monpwd": "fixmepass"}

_RANGES = {  # smallest, largest
    "remoteport": (1, 65535),
    "shutdowntimer": (0, 2**31 - 1),
    "hostsync": (0, 2**31 - 1),
    "nocommwarntime": (0, 2**31 - 1),
}
_LENGTHS = {"identifier": 120, "shutdowncmd": 255, "description": 120, "driver": 120, "port": 120}  # its database
# A half of a surrogate pair is no character: it comes from bytes that are no UTF-8.
_ONE_LINE = (r"[^\x00-\x1f\x7f\ud800-\udfff]*", "must be one line without control characters")
_TEXT = (r"[^\x00\ud800-\udfff]*", "holds a NUL character, or bytes that are no UTF-8")
_FORMS = {  # what the whole value must match, and the reason to give if it does not
    "identifier": (
        r"[A-Za-z0-9._-]+",
        "must be letters, digits, '.', '_' or '-', at least one, and nothing after them",
    ),
    # It is written between double quotes and not escaped.
    "shutdowncmd": (
        r'[^\\"#\x00-\x1f\x7f-\U0010ffff]*',
        "must be ASCII without control characters, '\"', '\\' and '#'",
    ),
    "driver": _ONE_LINE,
    "port": _ONE_LINE,
    # It too stands between double quotes, in ups.conf.
    "description": (r'[^\\"\x00-\x1f\x7f\ud800-\udfff]*', "must be one line without control characters, '\"' and '\\'"),
}


@dataclasses.dataclass(frozen=True)
class ServiceState:
    """The UPS service: started on boot or not, and its state (RUNNING, STOPPED, UNKNOWN)."""

    enable: bool
    state: str


@dataclasses.dataclass(frozen=True)
class WantedSettings:
    """What shall be. `settings` holds only what was given; the rest stays as it is."""

    present: bool
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class UpsStep:
    """One thing to do: stop, update, enable, disable or start. `live`: TrueNAS restarts the service by itself."""

    action: str
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    live: bool = False

    @property
    def description(self) -> str:
        """What was done, once it is done."""
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
    """What has been done so far, for a failure to tell. `secrets` were read on the way and must be masked."""

    changed: bool = False
    actions: list[str] = dataclasses.field(default_factory=list)
    secrets: list[str] = dataclasses.field(default_factory=list, repr=False)


# ---------------------------------------------------------------------------------------------------------------------
# Options


def find_problems(settings: Mapping[str, Any]) -> list[str]:
    """Every value that TrueNAS or its upsmon could not live with, as 'option: reason'. Never repeats a value.

    TrueNAS lets some through that then break its own upsmon.conf: a newline in identifier or remotehost, a backslash
    or an equals sign in monpwd, a bare IPv6 address.
    """
    found = []
    for option, value in settings.items():
        reason = _value_problem(option, value)
        if reason:
            found.append(f"{option}: {reason}")
    return found


def _value_problem(option: str, value: Any) -> str:
    """Why this value of this option is refused; '' if it is not."""
    if option in _RANGES:
        low, high = _RANGES[option]
        # For Ansible true is an int as well; for TrueNAS it is not.
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


def _host_problem(value: str) -> str:
    if _is_ipv6(value):
        return f"is an IPv6 address without brackets, which upsmon cannot tell from its port; write [{value}]"
    name = re.fullmatch(r"[A-Za-z0-9._-]{1,253}", value)
    # Python takes anything for a zone, such as a quote or an escape character.
    bracketed = re.fullmatch(r"\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]", value) and _is_ipv6(value[1:-1])
    rules = (
        (not value, "must not be empty"),
        (re.search(r"\s", value), "holds a blank or a line break"),
        (re.fullmatch(r"[^:/@]+:[0-9]+", value), "holds a port; that goes into remoteport"),
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
    "remotehost": _host_problem,
    "monuser": lambda value: grammar.find_user_problem(value) or "",
    "monpwd": lambda value: grammar.find_password_problem(value) or "",
}


def normalise_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values in the form that TrueNAS keeps: no shutdowncmd is null, and so is no nocommwarntime."""
    return {
        name: None if name in ("shutdowncmd", "nocommwarntime") and not value else value
        for name, value in settings.items()
    }


# ---------------------------------------------------------------------------------------------------------------------
# Plan


def plan_steps(current: Mapping[str, Any], service: ServiceState, wanted: WantedSettings) -> tuple[UpsStep, ...]:
    """The steps from what is to what is wanted; none if nothing differs. Raises OptionError for an impossible goal."""
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
        # TrueNAS could not tell. It would not restart such a service for new settings, so it is done here.
        steps.append(UpsStep("stop"))
    if service.state != RUNNING:
        steps.append(UpsStep("start"))
    return tuple(steps)


def _plan_absent(current: Mapping[str, Any], service: ServiceState) -> tuple[UpsStep, ...]:
    """Stopped, not started on boot, and a secondary's login forgotten.

    A fresh TrueNAS is MASTER without a driver, yet ups.update refuses exactly that ("port: This field is required").
    So MASTER comes back only where a driver and a port are set; else the mode stays, which means nothing to a
    service that does not run.
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
    """What TrueNAS would refuse about the settings as a whole."""
    if goal.get("mode") == "MASTER":
        missing = [name for name in ("driver", "port") if not goal.get(name)]
        if missing:
            raise OptionError(f"{' and '.join(missing)}: needed for mode MASTER, and not set on TrueNAS either")
    elif not goal.get("remotehost"):
        raise OptionError("remotehost: needed for mode SLAVE, and not set on TrueNAS either; name the NUT server")


def predict_result(
    current: Mapping[str, Any], service: ServiceState, steps: Iterable[UpsStep]
) -> tuple[dict[str, Any], ServiceState]:
    """What the steps lead to if all goes well."""
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
    """Settings to show. A secret that differs from the one in `other` is told apart, and still not shown."""

    def hide(name: str, value: Any) -> Any:
        if name not in SECRETS or not value:
            return value
        return HIDDEN if other is None or other.get(name) == value else HIDDEN_OTHER

    return {name: hide(name, settings[name]) for name in sorted(settings)}


# ---------------------------------------------------------------------------------------------------------------------
# Reading and doing


def read_settings(middleware: Middleware) -> dict[str, Any]:
    """ups.config. It holds monpwd in clear, for read-only users too."""
    config = middleware.call("ups.config")
    if not isinstance(config, dict) or "mode" not in config:
        raise ServiceFailed(f"{middleware.host}: ups.config answered without a mode. Is this release supported?")
    return config


def read_service(middleware: Middleware) -> ServiceState:
    """service.query for the UPS service."""
    row = middleware.call("service.query", [["service", "=", SERVICE]], {"get": True})
    if not isinstance(row, dict) or "enable" not in row or "state" not in row:
        raise ServiceFailed(f"{middleware.host}: service.query knows no UPS service. Is this release supported?")
    return ServiceState(enable=bool(row["enable"]), state=str(row["state"]))


def apply_steps(middleware: Middleware, steps: Iterable[UpsStep], progress: Progress) -> None:
    """Take the steps. Raises TruenasError. `progress` gets what was done, so it also tells how far a failure came."""
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
            progress.changed = True  # nobody knows; ok would be the worse answer
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
        # TrueNAS saves first and restarts then. So these settings are in its database.
        progress.changed = True
        progress.actions.append(f"set {', '.join(step.settings)}; TrueNAS could not start its UPS service with that")
        raise ServiceFailed(
            f"{middleware.host}: the settings were saved, but the UPS service failed to start with them "
            f"({error.reason}). TrueNAS is NOT protected now. Check remotehost, driver and port, and the service's log "
            "on TrueNAS; the next run starts it again."
        ) from error
    stored = answer if isinstance(answer, dict) else {}
    lost = sorted(_find_differences(stored, step.settings))
    if lost:
        progress.changed = True
        raise ServiceFailed(
            f"{middleware.host}: ups.update answered well, yet TrueNAS did not keep {', '.join(lost)} as sent. "
            "Look at System > Services > UPS."
        )


def _control_service(middleware: Middleware, verb: str) -> None:
    """Start or stop the service. silent false: else a failed start would be a success with the result false."""
    options = {"silent": False}
    try:
        middleware.call_job("service.control", verb.upper(), SERVICE, options)
    except MethodMissing:
        # 25.04 has no service.control; 26 has no service.start any more.
        try:
            middleware.call(f"service.{verb}", SERVICE, options)
        except CallFailed as error:
            # `silent` came with 22.12; CORE 13 takes it for a mistake, and has done nothing. There a failed start is a
            # success with the result false (and that of stop is inverted).
            if error.errname != "EINVAL" or "silent: Field was not expected" not in error.reason:
                raise
            if middleware.call(f"service.{verb}", SERVICE) is False and verb == "start":
                raise ServiceFailed(
                    f"{middleware.host}: the UPS service did not start, and this release does not tell why. TrueNAS is "
                    "NOT protected now. Look into /var/log/messages on TrueNAS; check remotehost, monuser and monpwd."
                ) from error


def _expect_stopped(middleware: Middleware) -> None:
    state = read_service(middleware).state
    if state != STOPPED:
        raise ServiceFailed(
            f"{middleware.host}: the UPS service was told to stop and is {state} all the same. "
            "Look at System > Services on TrueNAS."
        )


def _expect_running(middleware: Middleware, progress: Progress) -> None:
    """A restart can leave the service stopped (seen on 25.10), so look; if so stop and start it, once."""
    if read_service(middleware).state == RUNNING:
        return
    progress.changed = True
    _control_service(middleware, "stop")
    _control_service(middleware, "start")
    progress.actions.append("found the UPS service not running after that, and stopped and started it")
    state = read_service(middleware).state
    if state != RUNNING:
        raise ServiceFailed(
            f"{middleware.host}: the UPS service was started twice and is {state}. TrueNAS is NOT protected now. "
            "Look into /var/log/syslog on TrueNAS for upsmon; check remotehost, monuser and monpwd."
        )
