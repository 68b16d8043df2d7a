# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take the planned steps on TrueNAS, and tell the truth about the result.

TrueNAS's own answers are not enough for that. It saves settings before it restarts the service, so a failed ups.update may
have changed everything. From 26 on it reports a failed start although upsmon runs, if another unit that upsmon's unit wants
has failed, such as the driver of a former UPS of its own. And every release reports success for an upsmon that dies a moment
later. So after each failure TrueNAS is asked again, and a service counts as running only if the same process is seen twice.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import ups
from .middleware import (
    CallFailed,
    ConnectionLost,
    JobFailed,
    JobUnfinished,
    MethodMissing,
    Middleware,
    ServiceFailed,
    TruenasError,
)
from .ups import RUNNING, STOPPED, Progress, ServiceState, UpsStep, WantedSettings

SERVICE = "ups"
UNKNOWN = "UNKNOWN"
# Returned by watch_service for a service that systemd keeps starting anew.
RESTARTING = "RESTARTING"
# Seconds between two looks at the service. An upsmon with a bad configuration dies within a second.
SETTLE_SECONDS = 4.0
# Looks at most: TrueNAS answers UNKNOWN if it finds no time to ask systemd.
LOOKS = 4

Sleep = Callable[[float], None]

_UNPROTECTED = "TrueNAS is NOT protected now."
_WHERE = "Look for upsmon in /var/log/syslog on TrueNAS; check remotehost, monuser and monpwd."
_DRIVER_UNIT = r"nut-driver@[A-Za-z0-9._\\-]+\.service"


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
    pids = row.get("pids")
    known = sorted(pid for pid in pids if isinstance(pid, int)) if isinstance(pids, list) else []
    return ServiceState(enable=bool(row["enable"]), state=str(row["state"]), pids=tuple(known))


def read_known_state(middleware: Middleware, sleep: Sleep) -> ServiceState:
    """Return the state of the service. UNKNOWN only if TrueNAS answers that again and again, for some seconds."""
    seen = read_service(middleware)
    for _look in range(LOOKS - 1):
        if seen.state in (RUNNING, STOPPED):
            break
        sleep(SETTLE_SECONDS)
        seen = read_service(middleware)
    return seen


def watch_service(middleware: Middleware, sleep: Sleep, seen: ServiceState | None = None) -> ServiceState:
    """Return the state of the service: RUNNING only if two looks, some seconds apart, see the same process.

    `seen` is a look that was already taken. A service whose process has changed between two looks is RESTARTING.
    """
    seen = seen or read_service(middleware)
    for _look in range(LOOKS - 1):
        if seen.state == STOPPED:
            break
        sleep(SETTLE_SECONDS)
        before, seen = seen, read_service(middleware)
        if before.state == seen.state == RUNNING:
            return dataclasses.replace(seen, state=RESTARTING) if _has_changed(before, seen) else seen
    return seen if seen.state != RUNNING else dataclasses.replace(seen, state=UNKNOWN)


def _has_changed(before: ServiceState, after: ServiceState) -> bool:
    """Return whether two looks saw two processes. False if TrueNAS does not tell: systemd may not know the process for a moment."""
    return bool(before.pids and after.pids) and before.pids != after.pids


@dataclasses.dataclass
class Applier:
    """Takes the steps of one run. `progress` shows how far it got, also after an exception."""

    middleware: Middleware
    progress: Progress
    wanted: WantedSettings
    old: Mapping[str, Any]  # the settings before the first step
    before: ServiceState  # the service before the first step
    sleep: Sleep = time.sleep

    def take_steps(self, steps: Iterable[UpsStep]) -> tuple[dict[str, Any], ServiceState]:
        """Take the steps and return the settings and the state of the service afterwards, read from TrueNAS.

        Raises TruenasError, also if TrueNAS did not reach the goal.
        """
        steps = tuple(steps)
        for step in steps:
            self._take_step(step)
        restarted = any(step.live or step.action in ("start", "stop") for step in steps)
        service = (
            self._ensure_running(None if restarted else self.before) if self.wanted.present else self._ensure_stopped()
        )
        settings = read_settings(self.middleware)
        self._check_goal(steps, settings, service)
        return settings, service

    # Steps

    def _take_step(self, step: UpsStep) -> None:
        description = step.description
        try:
            if step.action == "update":
                description = self._update_settings(step)
            elif step.action in ("enable", "disable"):
                self._set_boot(enable=step.action == "enable")
            elif step.action == "start":
                self._start_service()
            else:
                self._stop_service()
        except ConnectionLost:
            self.progress.changed = True  # unknown; a false "ok" would be worse
            raise
        self._note(description)

    def _note(self, action: str) -> None:
        self.progress.changed = True
        self.progress.actions.append(action)

    def _update_settings(self, step: UpsStep) -> str:
        """Save settings and return what was done. After an error, find out what TrueNAS has saved."""
        try:
            answer = self.middleware.call("ups.update", dict(step.settings))
        except CallFailed as error:
            if error.refused:
                raise
            return self._settle_failed_update(step, error)
        stored = answer if isinstance(answer, dict) else {}
        lost = sorted(ups.find_differences(stored, step.settings))
        if lost:
            self.progress.changed = True
            raise ServiceFailed(
                f"{self.middleware.host}: ups.update reported success, but TrueNAS did not keep {', '.join(lost)} as sent. "
                "Look at System > Services > UPS on TrueNAS."
            )
        return step.description

    def _settle_failed_update(self, step: UpsStep, error: CallFailed) -> str:
        """Return what a failed ups.update has done all the same; raise if it did nothing, or left the service stopped."""
        saved = f"set {', '.join(step.settings)}"
        try:
            stored = read_settings(self.middleware)
        except TruenasError as problem:
            self.progress.changed = True  # unknown
            raise ServiceFailed(
                f"{_end_sentence(error)} TrueNAS may have saved the settings before that; it could not be asked: {problem}"
            ) from error
        if ups.find_differences(stored, step.settings):
            self._explain_unsaved(step, error, stored)
            raise error
        self.progress.changed = True
        if not step.live:
            self._warn_saved(error)
            return saved
        service = self._watch_after(f"{_end_sentence(error)} TrueNAS has saved the settings nevertheless")
        tried = error.errname == "ESERVICESTARTFAILURE" or "[ESERVICESTARTFAILURE]" in error.reason
        known = bool(service.pids and self.before.pids)
        if service.state == RUNNING and not (_has_changed(self.before, service) if known else tried):
            # TrueNAS has failed before it came to restart the service, which therefore runs with the old settings.
            self._warn_saved(error)
            self._note(saved)
            self._restart_service()
            return "restarted the UPS service, which TrueNAS had not done"
        if service.state != RUNNING:
            self._note(f"{saved}; TrueNAS could not start its UPS service with them")
            raise ServiceFailed(
                f"{self.middleware.host}: the settings were saved, but the UPS service failed to start with them "
                f"({error.reason}) and is {_judge_state(service.state)} Check remotehost, driver and port, and the "
                "service's log on TrueNAS, then run again; the next run starts the service."
            ) from error
        self._warn_running("restarted", error.reason)
        return f"{saved}; TrueNAS restarted its UPS service"

    def _explain_unsaved(self, step: UpsStep, error: CallFailed, stored: Mapping[str, Any]) -> None:
        """Return if a failed ups.update has changed nothing at all. Raises ServiceFailed with what it has changed."""
        altered = sorted(name for name in step.settings if ups.find_differences(self.old, {name: stored.get(name)}))
        told = ""
        if altered:
            # only a part was saved, or somebody else has changed these settings meanwhile
            self.progress.changed = True
            told = (
                f" TrueNAS has changed {', '.join(altered)}, but does not have all settings of this run. Check that no other "
                "person or program changes the UPS service, then run again."
            )
        if step.live:
            state = self._watch_after(f"{_end_sentence(error)}{told}").state
            if state != RUNNING:
                self.progress.changed = True
                told += f" The UPS service was running and is {_judge_state(state)} The next run starts the service."
        if told:
            raise ServiceFailed(f"{_end_sentence(error)}{told}") from error

    def _watch_after(self, failure: object) -> ServiceState:
        """Return the state of the service after a failure. Raises ServiceFailed with that failure if TrueNAS can't be asked."""
        try:
            return watch_service(self.middleware, self.sleep)
        except TruenasError as problem:
            self.progress.changed = True  # unknown
            raise ServiceFailed(
                f"{_end_sentence(failure)} Nobody can tell whether the UPS service is running, because TrueNAS could not be "
                f"asked: {problem}"
            ) from problem

    def _set_boot(self, *, enable: bool) -> None:
        """Set whether the service starts on boot. After an error, find out what TrueNAS has saved."""
        try:
            self.middleware.call("service.update", SERVICE, {"enable": enable})
        except CallFailed as error:
            if error.refused:
                raise
            try:
                saved = read_service(self.middleware).enable
            except TruenasError as problem:
                self.progress.changed = True  # unknown
                raise ServiceFailed(
                    f"{_end_sentence(error)} TrueNAS may have saved that before; it could not be asked: {problem}"
                ) from error
            if saved != enable:
                raise
            self._warn_saved(error)

    def _start_service(self) -> None:
        cause: TruenasError | None = None
        try:
            if control_service(self.middleware, "start"):
                return
            reason = "this release does not report why"
        except (JobFailed, JobUnfinished, CallFailed) as error:
            if isinstance(error, CallFailed) and error.refused:
                raise
            if isinstance(error, JobUnfinished):
                self.progress.changed = True  # unknown
            reason, cause = error.reason, error
        failure = _end_sentence(cause or f"{self.middleware.host}: the UPS service did not start, and {reason}")
        service = self._watch_after(failure)
        if service.state == RUNNING:
            self._warn_running("started", reason)
            return
        raise ServiceFailed(f"{failure} The UPS service is {_judge_state(service.state)} {_WHERE}") from cause

    def _stop_service(self) -> None:
        """Stop the service. TrueNAS's answer does not count, only the state afterwards.

        If the service is started next, an unknown state is no reason to fail: it would then stay stopped.
        """
        problem: TruenasError | None = None
        try:
            control_service(self.middleware, "stop")
        except (JobFailed, JobUnfinished, CallFailed) as error:
            if isinstance(error, CallFailed) and error.refused:
                raise
            problem = error
        try:
            state = read_known_state(self.middleware, self.sleep).state
        except TruenasError as error:
            self.progress.changed = True  # unknown
            if self.wanted.present and not isinstance(error, ConnectionLost):
                return
            what = _end_sentence(problem or f"{self.middleware.host}: the UPS service was told to stop")
            raise ServiceFailed(
                f"{what} Nobody can tell whether it is stopped, because TrueNAS could not be asked: {error}"
            ) from error
        if self.wanted.present and state not in (RUNNING, STOPPED):
            self.progress.changed = True
            return
        if state != STOPPED:
            self.progress.changed = True
            why = f" TrueNAS's text: {_end_sentence(problem)}" if problem else ""
            raise ServiceFailed(
                f"{self.middleware.host}: the UPS service was told to stop but is {state}. Look at System > Services on "
                f"TrueNAS.{why}"
            ) from problem
        if problem:
            self.progress.warnings.append(f"{_end_sentence(problem)} The UPS service is stopped nevertheless")

    def _restart_service(self) -> None:
        try:
            self._stop_service()
            self.progress.changed = True
            self._start_service()
        except ConnectionLost:
            self.progress.changed = True  # unknown
            raise

    # The end of a run

    def _ensure_running(self, seen: ServiceState | None) -> ServiceState:
        """Return the state of the running service. If it does not keep running, stop and start it, once.

        A restart by TrueNAS can leave it stopped (seen on 25.10).
        """
        service = watch_service(self.middleware, self.sleep, seen)
        if service.state == RUNNING:
            return service
        self._restart_service()
        self._note(f"restarted the UPS service, which was not running{'' if seen else ' after the change'}")
        service = watch_service(self.middleware, self.sleep)
        if service.state != RUNNING:
            raise ServiceFailed(
                f"{self.middleware.host}: the UPS service was started twice but is {_judge_state(service.state)} {_WHERE}"
            )
        return service

    def _ensure_stopped(self) -> ServiceState:
        service = read_known_state(self.middleware, self.sleep)
        if service.state != STOPPED:
            raise ServiceFailed(
                f"{self.middleware.host}: the UPS service is {service.state} again after it was stopped. "
                "Look at System > Services on TrueNAS for the person or program that starts it."
            )
        return service

    def _check_goal(self, steps: tuple[UpsStep, ...], settings: Mapping[str, Any], service: ServiceState) -> None:
        """Raise ServiceFailed if TrueNAS does not have what the steps have set."""
        lost = sorted(name for step in steps for name in ups.find_differences(settings, step.settings))
        enable = {"enable": True, "disable": False}
        if any(enable.get(step.action, service.enable) != service.enable for step in steps):
            lost.append("the start on boot")
        if lost:
            raise ServiceFailed(
                f"{self.middleware.host}: TrueNAS reported success, but {', '.join(lost)} is not as this run has set it. "
                "Check that no other person or program changes the UPS service, then run again."
            )

    # Warnings

    def _warn_saved(self, error: CallFailed) -> None:
        self.progress.warnings.append(f"{_end_sentence(error)} TrueNAS has saved the settings nevertheless")

    def _warn_running(self, what: str, reason: str) -> None:
        """Warn that TrueNAS reported a failure although the service runs."""
        units = sorted(set(re.findall(_DRIVER_UNIT, reason)))
        name = " ".join(units) or "nut-driver@NAME"
        self.progress.warnings.append(
            f"{self.middleware.host}: TrueNAS has {what} its UPS service and reports a failure, but the service is running. "
            f"TrueNAS's text: {_end_sentence(reason)} If TrueNAS once had a UPS of its own, the driver of that UPS may be what fails: run "
            f"systemctl disable --now {name} in TrueNAS's shell"
            f"{'' if units else ' (systemctl list-units --all nut-driver@* shows the name)'}"
        )


def _end_sentence(text: object) -> str:
    return f"{str(text).rstrip('. ')}."


def _judge_state(state: str) -> str:
    """Return what a state other than RUNNING means, to follow `the UPS service is`."""
    if state == RESTARTING:
        return f"RESTARTING: it dies a moment after each start. {_UNPROTECTED}"
    return f"{state}. {_UNPROTECTED if state == STOPPED else 'Nobody can tell whether TrueNAS is protected.'}"


def control_service(middleware: Middleware, verb: str) -> bool:
    """Start or stop the service. Return False if TrueNAS reports a failure without a reason."""
    options = {"silent": False}  # with silent, a failed start is a success with the result false
    try:
        return middleware.call_job("service.control", verb.upper(), SERVICE, options) is not False
    except MethodMissing:
        pass
    # 25.04 does not have service.control yet; 26 no longer has service.start. The result of stop is inverted up to 24.10.
    try:
        return middleware.call(f"service.{verb}", SERVICE, options) is not False or verb == "stop"
    except CallFailed as error:
        # `silent` came with 22.12; CORE 13 rejects it and does nothing.
        if error.errname != "EINVAL" or "silent: Field was not expected" not in error.reason:
            raise
    return middleware.call(f"service.{verb}", SERVICE) is not False or verb == "stop"
