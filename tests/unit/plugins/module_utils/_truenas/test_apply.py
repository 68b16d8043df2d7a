# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test that the result of a run is the truth, whatever TrueNAS answers on the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._truenas import apply
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import (
    CallFailed,
    ConnectionLost,
    JobFailed,
    JobUnfinished,
    TruenasError,
)
from ansible_collections.homelab.nut.plugins.module_utils._truenas.module import manage_service
from ansible_collections.homelab.nut.plugins.module_utils._truenas.ups import Progress, WantedSettings

OLD = {"mode": "SLAVE", "identifier": "ups", "remotehost": "192.0.2.10", "monuser": "nas", "monpwd": "secret-1"}
NEW = {**OLD, "remotehost": "192.0.2.11", "monuser": "nas2"}

Look = tuple[str, int]  # state and process id
RUNS, STOPS, UNKNOWN = ("RUNNING", 7), ("STOPPED", 0), ("UNKNOWN", 0)
STARTED = ("RUNNING", 8)


def make_failure(errname: str = "EFAULT", text: str = "no luck", method: str = "ups.update") -> CallFailed:
    reason = f"[{errname}] {text}"
    return CallFailed(f"nas.lan: {method} failed: {reason}", method=method, errname=errname, reason=reason)


class ScriptedTruenas:
    """A Middleware that keeps settings. `looks` are the answers of service.query, the last of them for ever."""

    host = "nas.lan"
    certificate = None

    def __init__(self, *looks: Look, enable: bool = True, **settings: Any) -> None:
        self.looks = list(looks)
        self.enable = enable
        self.settings = {**OLD, **settings}
        self.calls: list[str] = []
        self.waited = 0.0
        self.answers: dict[str, Callable[..., Any]] = {}  # instead of the usual ones

    def call(self, method: str, *params: Any) -> Any:
        self.calls.append(method)
        answer = self.answers.get(method) or getattr(self, method.replace(".", "_"))
        return answer(*params)

    def call_job(self, method: str, *params: Any) -> Any:
        self.calls.append(params[0])
        answer = self.answers.get(params[0])
        return answer() if answer else True

    def close(self) -> None:
        raise AssertionError("not its owner")

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.waited += seconds

    def ups_config(self) -> dict[str, Any]:
        return dict(self.settings)

    def ups_update(self, values: dict[str, Any]) -> dict[str, Any]:
        self.settings.update(values)
        return dict(self.settings)

    def service_query(self, *_unused: Any) -> dict[str, Any]:
        state, pid = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return {"enable": self.enable, "state": state, "pids": [pid] if pid else []}

    def service_update(self, _unused: str, values: dict[str, bool]) -> int:
        self.enable = values["enable"]
        return 14

    def system_version(self) -> str:
        return "TrueNAS-26.0.0"


def fail_with(error: Exception) -> Callable[..., Any]:
    def fail(*_unused: Any) -> Any:
        raise error

    return fail


def bring(
    truenas: ScriptedTruenas, goal: dict[str, Any], *, present: bool = True
) -> tuple[Progress, dict[str, Any] | None, str]:
    """Run once. Return the progress, and the result or the message of the failure."""
    progress = Progress()
    try:
        result = manage_service(truenas, WantedSettings(present, goal), False, progress, truenas.sleep)
    except TruenasError as error:
        return progress, None, str(error)
    return progress, result, ""


# --- looking at the service ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("looks", "actions"),
    [
        ([RUNS], []),
        ([UNKNOWN, RUNS], []),
        ([UNKNOWN, UNKNOWN, UNKNOWN, RUNS], []),
        ([RUNS, UNKNOWN, RUNS], []),
        ([("RUNNING", 0)], []),
        ([RUNS, ("RUNNING", 0)], []),
        ([("RUNNING", 0), RUNS], []),
        ([RUNS, STOPS, STARTED], ["restarted the UPS service, which was not running"]),
        ([RUNS, STARTED], ["restarted the UPS service, which was not running"]),
        ([STOPS, STARTED], ["started the UPS service"]),
        ([UNKNOWN, STOPS, STARTED], ["started the UPS service"]),
    ],
    ids=str,
)
def test_unchanged_settings_with_a_strange_service(looks: list[Look], actions: list[str]) -> None:
    """A service that keeps running is left alone, and any other is started."""
    truenas = ScriptedTruenas(*looks)

    def stop() -> bool:
        truenas.looks = [STOPS, STARTED]
        return True

    truenas.answers["STOP"] = stop
    progress, result, message = bring(truenas, OLD)
    assert message == ""
    assert result is not None
    assert result["service"]["state"] == "RUNNING"
    assert (progress.actions, progress.changed) == (actions, bool(actions))


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        ([STOPS], "the UPS service was started twice but is STOPPED. TrueNAS is NOT protected now"),
        ([STOPS, STARTED, STOPS], "was started twice but is STOPPED"),
        ([STOPS, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, STOPS, UNKNOWN], "is UNKNOWN. Nobody can tell whether"),
        ([STOPS, STARTED, RUNS, STOPS, *[RUNS, STARTED] * 3], "is RESTARTING: it dies a moment after each start"),
    ],
    ids=str,
)
def test_service_that_is_not_seen_running_twice_is_a_failure(looks: list[Look], words: str) -> None:
    progress, _result, message = bring(ScriptedTruenas(*looks), OLD)
    assert words in message
    assert progress.changed is True


def test_looks_at_the_service_are_some_seconds_apart() -> None:
    truenas = ScriptedTruenas(RUNS)
    bring(truenas, OLD)
    assert truenas.waited == apply.SETTLE_SECONDS >= 2


# --- a failed update -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["The ups service failed to start", "ups.service: \u00e4", "", "\n"])
@pytest.mark.parametrize(
    "looks",
    [[RUNS, STARTED], [("RUNNING", 0)], [RUNS, ("RUNNING", 0)]],
    ids=["new process", "unknown", "unknown later"],
)
def test_failed_restart_of_a_running_service_is_a_warning(text: str, looks: list[Look]) -> None:
    truenas = ScriptedTruenas(*looks)

    def save_and_fail(values: dict[str, Any]) -> None:
        truenas.settings.update(values)
        raise make_failure("ESERVICESTARTFAILURE", text)

    truenas.answers["ups.update"] = save_and_fail
    progress, result, message = bring(truenas, NEW)
    assert message == ""
    assert result is not None
    assert progress.actions == ["set remotehost, monuser; TrueNAS restarted its UPS service"]
    (warning,) = progress.warnings
    assert "reports a failure, but the service is running" in warning
    assert "systemctl disable --now nut-driver@NAME" in warning


@pytest.mark.parametrize("errname", ["ESERVICESTARTFAILURE", "EFAULT"])
def test_service_with_the_old_settings_is_restarted(errname: str) -> None:
    """The process is the same as before the update, so TrueNAS did not come to restart it."""
    truenas = ScriptedTruenas(RUNS)

    def save_and_fail(values: dict[str, Any]) -> None:
        truenas.settings.update(values)
        raise make_failure(errname)

    def stop() -> bool:
        truenas.looks = [STOPS, STARTED]
        return True

    truenas.answers.update({"ups.update": save_and_fail, "STOP": stop})
    progress, result, message = bring(truenas, NEW)
    assert message == ""
    assert result is not None
    assert progress.actions == [
        "set remotehost, monuser",
        "restarted the UPS service, which TrueNAS had not done",
    ]
    assert "TrueNAS has saved the settings nevertheless" in progress.warnings[0]


def partly(values: dict[str, Any]) -> dict[str, Any]:
    return {"monuser": values["monuser"]}


def otherwise(_unused: dict[str, Any]) -> dict[str, Any]:
    return {"remotehost": "198.51.100.1", "monuser": "somebody"}


def nothing(_unused: dict[str, Any]) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("errname", ["EFAULT", "EINVAL", "ESERVICESTARTFAILURE", ""])
@pytest.mark.parametrize(("keep", "altered"), [(nothing, ""), (partly, "monuser"), (otherwise, "monuser, remotehost")])
@pytest.mark.parametrize("after", [RUNS, STOPS, STARTED, UNKNOWN], ids=str)
def test_failed_update_tells_what_was_saved(
    errname: str, keep: Callable[[dict[str, Any]], dict[str, Any]], altered: str, after: Look
) -> None:
    truenas = ScriptedTruenas(RUNS, after)

    def keep_and_fail(values: dict[str, Any]) -> None:
        truenas.settings.update(keep(values))
        raise make_failure(errname, "no luck today")

    truenas.answers["ups.update"] = keep_and_fail
    progress, _result, message = bring(truenas, NEW)
    assert "ups.update failed" in message
    assert "no luck today" in message
    assert (f"TrueNAS has changed {altered}, but does not have all settings of this run" in message) is bool(altered)
    state = "" if after[0] == "RUNNING" else f"The UPS service was running and is {after[0]}."
    assert state in message
    assert ("TrueNAS is NOT protected now" in message) is (after == STOPS)
    assert progress.changed is bool(altered or state)
    assert progress.actions == []


@pytest.mark.parametrize("error", [make_failure(method="service.query"), ConnectionLost("nas.lan: gone.")])
def test_saved_settings_of_a_service_that_nobody_can_ask_about_are_a_change(error: Exception) -> None:
    truenas = ScriptedTruenas(RUNS)

    def save_and_fail(values: dict[str, Any]) -> None:
        truenas.settings.update(values)
        truenas.answers["service.query"] = fail_with(error)
        raise make_failure(text="netdata")

    truenas.answers["ups.update"] = save_and_fail
    progress, _result, message = bring(truenas, NEW)
    assert progress.changed is True
    assert (
        "netdata. TrueNAS has saved the settings nevertheless. Nobody can tell whether the UPS service is running"
        in message
    )
    assert str(error) in message


# --- start, stop, start on boot --------------------------------------------------------------------------------------

JOB_ERRORS = [
    JobFailed("nas.lan: service.control START ups failed: [EFAULT] no.", "[EFAULT] no"),
    JobUnfinished("nas.lan: service.control START ups (job 3) did not end within 150 s. Look.", "did not end"),
    make_failure(method="service.control"),
    make_failure("ESERVICESTARTFAILURE", "x", method="service.control"),
]


@pytest.mark.parametrize("error", JOB_ERRORS, ids=lambda error: type(error).__name__)
def test_failed_start_of_a_running_service_is_a_warning(error: Exception) -> None:
    truenas = ScriptedTruenas(STOPS, STARTED)
    truenas.answers["START"] = fail_with(error)
    progress, result, message = bring(truenas, OLD)
    assert message == ""
    assert result is not None
    assert progress.actions == ["started the UPS service"]
    assert "reports a failure, but the service is running" in progress.warnings[0]


@pytest.mark.parametrize("error", JOB_ERRORS, ids=lambda error: type(error).__name__)
def test_failed_start_of_a_stopped_service_is_a_failure(error: Exception) -> None:
    truenas = ScriptedTruenas(STOPS)
    truenas.answers["START"] = fail_with(error)
    progress, _result, message = bring(truenas, OLD)
    assert message.startswith(str(error).rstrip("."))
    assert "The UPS service is STOPPED. TrueNAS is NOT protected now" in message
    # a job that has not ended may still start it
    assert progress.changed is isinstance(error, JobUnfinished)


@pytest.mark.parametrize("error", JOB_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("problem", [make_failure(method="service.query"), ConnectionLost("nas.lan: gone.")])
def test_failed_start_of_a_service_that_nobody_can_ask_about_tells_both(error: Exception, problem: Exception) -> None:
    truenas = ScriptedTruenas(STOPS)

    def break_and_fail() -> None:
        truenas.answers["service.query"] = fail_with(problem)
        raise error

    truenas.answers["START"] = break_and_fail
    progress, _result, message = bring(truenas, OLD)
    assert progress.changed is True
    assert str(error).rstrip(".") in message
    assert "Nobody can tell whether the UPS service is running, because TrueNAS could not be asked" in message
    assert str(problem) in message


@pytest.mark.parametrize("error", JOB_ERRORS, ids=lambda error: type(error).__name__)
def test_failed_stop_counts_only_if_the_service_runs_on(error: Exception) -> None:
    truenas = ScriptedTruenas(RUNS, UNKNOWN, STOPS)
    truenas.answers["STOP"] = fail_with(error)
    progress, result, message = bring(truenas, {}, present=False)
    assert message == ""
    assert result is not None
    assert progress.actions[0] == "stopped the UPS service"
    assert "The UPS service is stopped nevertheless" in progress.warnings[0]
    runs_on = ScriptedTruenas(RUNS)
    runs_on.answers["STOP"] = fail_with(error)
    progress, _result, message = bring(runs_on, {}, present=False)
    assert "was told to stop but is RUNNING" in message
    assert str(error).rstrip(".") in message
    assert progress.changed is True


@pytest.mark.parametrize("answer", [UNKNOWN, make_failure(method="service.query")], ids=["unknown", "no answer"])
def test_service_whose_state_nobody_tells_is_not_left_stopped(answer: Look | CallFailed) -> None:
    truenas = ScriptedTruenas(UNKNOWN)

    def stop() -> bool:
        if isinstance(answer, CallFailed):
            truenas.answers["service.query"] = fail_with(answer)
        return True

    truenas.answers["STOP"] = stop
    progress, _result, message = bring(truenas, NEW)
    assert truenas.calls.index("STOP") < truenas.calls.index("START")
    assert [verb for verb in truenas.calls if verb in ("START", "STOP")][-1] == "START"
    assert progress.changed is True
    assert ("is UNKNOWN. Nobody can tell whether TrueNAS is protected" in message) is (answer == UNKNOWN)
    assert "service.query failed" in message or answer == UNKNOWN


def test_stop_of_a_service_that_nobody_can_ask_about_is_a_change() -> None:
    truenas = ScriptedTruenas(RUNS)

    def stop_and_break() -> bool:
        truenas.answers["service.query"] = fail_with(make_failure(method="service.query"))
        return True

    truenas.answers["STOP"] = stop_and_break
    progress, _result, message = bring(truenas, {}, present=False)
    assert progress.changed is True
    assert "the UPS service was told to stop. Nobody can tell whether it is stopped" in message


def test_service_that_somebody_starts_again_is_an_error() -> None:
    truenas = ScriptedTruenas(RUNS, STOPS, STARTED)
    progress, _result, message = bring(truenas, {}, present=False)
    assert "the UPS service is RUNNING again after it was stopped" in message
    assert progress.changed is True


@pytest.mark.parametrize("present", [True, False])
def test_failed_start_on_boot_counts_only_if_it_was_not_saved(present: bool) -> None:
    def make(*, save: bool, readable: bool = True) -> ScriptedTruenas:
        truenas = ScriptedTruenas(RUNS if present else STOPS, enable=not present)

        def fail(_unused: str, values: dict[str, bool]) -> None:
            truenas.enable = values["enable"] if save else truenas.enable
            if not readable:
                truenas.answers["service.query"] = fail_with(make_failure(method="service.query"))
            raise make_failure(method="service.update", text="rc files")

        truenas.answers["service.update"] = fail
        return truenas

    progress, result, message = bring(make(save=True), OLD, present=present)
    assert message == ""
    assert result is not None
    assert progress.actions[0] == f"{'enabled' if present else 'disabled'} the UPS service on boot"
    assert "rc files. TrueNAS has saved the settings nevertheless" in progress.warnings[0]
    progress, _result, message = bring(make(save=False), OLD, present=present)
    assert "service.update failed: [EFAULT] rc files" in message
    assert (progress.changed, progress.actions) == (False, [])
    progress, _result, message = bring(make(save=True, readable=False), OLD, present=present)
    assert "rc files. TrueNAS may have saved that before; it could not be asked" in message
    assert progress.changed is True
