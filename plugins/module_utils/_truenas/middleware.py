# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The interface of a connection to TrueNAS's middleware, the errors it raises, and the login.

This module only knows methods, parameters and results. The transports (jsonrpc.py, midclt.py) carry them; each
implements the three methods of `Middleware`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from .._nut.base.text import as_text, one_line
from .stream import Deadline

SECRET_MASK = "********"  # noqa: S105 - printed instead of a secret
# Characters. A shorter secret may be an ordinary word, or part of one.
SHORT_SECRET = 8
POLL_SECONDS = 0.5
ACTION_SECONDS = 120.0  # TrueNAS's own limit for one action on a service (service.control, option timeout)
# These methods start, stop or restart the service before they answer.
SLOW_METHODS = frozenset({"ups.update", "service.start", "service.stop"})


# A run allows for this many answers that each take the whole timeout, and for this many actions on the service.
SLOW_ANSWERS, ACTIONS = 10, 2


def run_seconds(timeout: float) -> float:
    """Return the time limit in seconds for a whole run. `timeout` is the limit for one answer."""
    return SLOW_ANSWERS * timeout + ACTIONS * ACTION_SECONDS


class Middleware(Protocol):
    """A connection to one TrueNAS."""

    host: str  # the machine's name in messages

    def call(self, method: str, *params: Any) -> Any:
        """Call a method and return its result. Raises TruenasError."""

    def call_job(self, method: str, *params: Any) -> Any:
        """Start a job, wait until it ends and return its result. Raises TruenasError."""

    def close(self) -> None:
        """Close the connection. Never raises."""


class TruenasError(Exception):
    """An error of TrueNAS or on the way to it. The text is a complete message: host, what happened, remedy."""


class OptionError(TruenasError):
    """An option was rejected before anything was sent."""


class ConnectionFailed(TruenasError):
    """No connection was established, so no method was called."""


class NoJsonRpc(ConnectionFailed):
    """A web server answers, but has no JSON-RPC API: TrueNAS before 25.04. No login was attempted."""


class ConnectionLost(TruenasError):
    """The answer to a call never arrived. TrueNAS may or may not have carried it out."""


class NotAnAnswer(ConnectionLost):
    """Something other than an answer arrived. TrueNAS may or may not have carried out the call."""


class LoginFailed(TruenasError):
    """TrueNAS refused the login. It counts failures, so never retry automatically."""


class Redirected(LoginFailed):
    """This is the standby node of a pair. `urls` are the addresses of the active node, as the standby node gives them."""

    def __init__(self, message: str, urls: Iterable[str]) -> None:
        super().__init__(message)
        self.urls = tuple(urls)


class JobFailed(TruenasError):
    """A job failed or was aborted."""


class ServiceFailed(TruenasError):
    """The UPS service is not in the requested state."""


class CallFailed(TruenasError):
    """A method returned an error."""

    def __init__(self, message: str, *, method: str, errname: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.method = method
        self.errname = errname
        self.reason = reason


class MethodMissing(CallFailed):
    """This release has no such method (JSON-RPC -32601)."""


def lost_answer(host: str, method: str, why: str) -> ConnectionLost:
    """Return the exception for a call whose answer never arrived."""
    return ConnectionLost(
        f"{host}: {why} while waiting for {method}. TrueNAS may or may not have carried it out. Run again."
    )


class TimedMiddleware:
    """A connection with a deadline for all calls together: no call starts after it. Each call also has its own time limit."""

    def __init__(self, middleware: Middleware, deadline: Deadline) -> None:
        self.host = middleware.host
        self._middleware = middleware
        self._deadline = deadline

    def call(self, method: str, *params: Any) -> Any:
        """See Middleware.call."""
        self._check_deadline(method)
        return self._middleware.call(method, *params)

    def call_job(self, method: str, *params: Any) -> Any:
        """See Middleware.call_job."""
        self._check_deadline(method)
        return self._middleware.call_job(method, *params)

    def close(self) -> None:
        """See Middleware.close."""
        self._middleware.close()

    def _check_deadline(self, method: str) -> None:
        try:
            self._deadline.seconds_left()
        except socket.timeout:
            raise ConnectionLost(
                f"{self.host}: this run has taken more than {self._deadline.seconds:.0f} s, so {method} was not called. "
                "TrueNAS answers very slowly. Check its load and run again, or raise timeout."
            ) from None


def run_job(
    middleware: Middleware,
    method: str,
    params: Iterable[Any],
    timeout: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Any:
    """Implement Middleware.call_job for all transports: start the job, then poll it by its number until it ends.

    The job may take ACTION_SECONDS plus `timeout` seconds. Raises JobFailed, and ConnectionLost if it takes longer.
    """
    params = tuple(params)
    number = middleware.call(method, *params)
    if isinstance(number, bool) or not isinstance(number, int):
        return number  # the session has legacy_jobs off: the call itself waited for the job
    what = " ".join([method, *(param for param in params if isinstance(param, str))])
    deadline = clock() + ACTION_SECONDS + timeout
    while True:
        jobs = middleware.call("core.get_jobs", [["id", "=", number]])
        job = jobs[0] if isinstance(jobs, list) and jobs and isinstance(jobs[0], dict) else {}
        state = job.get("state")
        if state == "SUCCESS":
            return job.get("result")
        if state in ("FAILED", "ABORTED"):
            why = one_line(as_text(job.get("error") or "no reason given"))
            raise JobFailed(f"{middleware.host}: {what} {str(state).lower()}: {why}")
        if clock() >= deadline:
            raise ConnectionLost(
                f"{middleware.host}: {what} (job {number}) did not end within {ACTION_SECONDS + timeout:.0f} s. "
                "Look at the Jobs page of TrueNAS; once the job has ended, run again."
            )
        sleep(POLL_SECONDS)


# The role that each method needs, from 25.04 on. SERVICE_WRITE does not include SERVICE_READ (S/role.py of truenas/middleware).
_ROLES = {
    "ups.config": "SYSTEM_GENERAL_READ (included in SYSTEM_GENERAL_WRITE)",
    "ups.update": "SYSTEM_GENERAL_WRITE",
    "service.query": "SERVICE_READ (not included in SERVICE_WRITE)",
    "service.update": "SERVICE_WRITE",
    "service.control": "SERVICE_WRITE",
    "service.start": "SERVICE_WRITE",
    "service.stop": "SERVICE_WRITE",
}
_ALL_ROLES = "SYSTEM_GENERAL_WRITE, SERVICE_WRITE and SERVICE_READ"
METHOD_NOT_FOUND = -32601
AS_ROOT = "midclt needs root: set become: true, or let Ansible log in as root."


def call_error(host: str, method: str, error: Any, *, local: bool = False) -> CallFailed:
    """Return the exception for the `error` member of a JSON-RPC answer, with a message that says what to do.

    `error` has the shapes of the recorded releases: `data` holds errname, reason and, for refused values, `extra` as a
    list of [attribute, text, errno], where the attribute starts with `ups_update.` or, from 26 on, `data.`.
    `local`: the call was made on TrueNAS itself, where root needs neither login nor roles.
    """
    error = error if isinstance(error, dict) else {}
    data = error.get("data") if isinstance(error.get("data"), dict) else {}
    errname = as_text(data.get("errname") or "")
    reason = one_line(as_text(data.get("reason") or error.get("message") or "no reason given"))
    if error.get("code") == METHOD_NOT_FOUND or errname == "ENOMETHOD":
        needed = "22.12 or newer, or CORE 13," if local else "25.04 or newer"
        return MethodMissing(
            f"{host}: this TrueNAS has no method {method}. Upgrade: TrueNAS {needed} is needed.",
            method=method,
            errname=errname,
            reason=reason,
        )
    if errname in ("EACCES", "EPERM") and local:
        text = f"{host}: this user may not call {method}. {AS_ROOT}"
    elif errname in ("EACCES", "EPERM"):
        text = (
            f"{host}: the user may not call {method}, which needs the role {_ROLES.get(method, 'of an administrator')}. "
            f"Give the user's group a privilege with {_ALL_ROLES} (Credentials > Groups > Privileges)."
        )
    elif errname == "EBUSY" and "rate limit" in reason.lower():
        text = (
            f"{host}: TrueNAS accepts no more logins from this address for now (at most 20 a minute). "
            "Wait ten minutes and run again. If it happens again, find the program on this machine that keeps logging in."
        )
    elif errname == "ENOTAUTHENTICATED":
        text = f"{host}: TrueNAS has ended this session, so {method} failed. Run again."
    else:
        text = f"{host}: {method} failed: {_refused_values(data.get('extra')) or reason}"
    return CallFailed(text, method=method, errname=errname, reason=reason)


def _refused_values(extra: Any) -> str:
    """Return the refused options as 'remotehost: This field is required; ...', or '' if `extra` has another shape."""
    if not isinstance(extra, list) or not extra:
        return ""
    found = []
    for entry in extra:
        if not isinstance(entry, list) or len(entry) < 2:
            return ""
        found.append(f"{one_line(as_text(entry[0]).rpartition('.')[2]) or 'parameters'}: {one_line(as_text(entry[1]))}")
    return "TrueNAS refuses " + "; ".join(found)


@dataclasses.dataclass(frozen=True)
class Credentials:
    """The login. Exactly one of password and api_key is set."""

    username: str
    password: str | None = None
    api_key: str | None = None
    otp: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"  # keeps secrets out of tracebacks


def log_in(middleware: Middleware, credentials: Credentials) -> None:
    """Log in, once. Raises LoginFailed with the reason and the remedy, and Redirected for a standby node.

    auth.login_ex (25.04+) returns a normal result for a failed login; its response_type is the outcome.
    """
    secret: dict[str, str | None]
    if credentials.api_key:
        kind = "API key"
        secret = {"mechanism": "API_KEY_PLAIN", "username": credentials.username, "api_key": credentials.api_key}
    else:
        kind = "password"
        secret = {"mechanism": "PASSWORD_PLAIN", "username": credentials.username, "password": credentials.password}
    options = {"login_options": {"user_info": False}}
    try:
        answer = middleware.call("auth.login_ex", {**secret, **options})
        code_sent = _login_outcome(answer) == "OTP_REQUIRED" and bool(credentials.otp)
        if code_sent:
            token: dict[str, str | None] = {"mechanism": "OTP_TOKEN", "otp_token": credentials.otp}
            answer = middleware.call("auth.login_ex_continue", {**token, **options})
    except CallFailed as error:
        raise LoginFailed(str(error)) from error
    outcome = _login_outcome(answer)
    if outcome == "SUCCESS":
        return
    text = f"{middleware.host}: {_explain_refusal(answer, credentials.username, kind, code_sent)}"
    if outcome == "REDIRECT" and not code_sent:  # a one-time code is used up, so no second login
        raise Redirected(text, _named_urls(answer))
    raise LoginFailed(text)


def _named_urls(answer: Any) -> list[str]:
    urls = answer.get("urls")
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


def _login_outcome(answer: Any) -> str:
    return str(answer.get("response_type", "")) if isinstance(answer, dict) else ""


def _explain_refusal(answer: Any, user: str, kind: str, code_sent: bool) -> str:
    """Return why a login failed and what to do. Names the user, never the secret."""
    outcome = _login_outcome(answer)
    counted = "TrueNAS counts failed logins, so correct this before you run again."
    if code_sent and outcome in ("OTP_REQUIRED", "AUTH_ERR"):
        return (
            f"the one-time code in otp was not accepted for user {user!r}. "
            f"A code is valid for about 30 seconds and works once. {counted}"
        )
    if outcome == "REDIRECT":
        others = ", ".join(_named_urls(answer)) or "TrueNAS does not say which"
        return f"this is the standby node of a pair and accepts no logins. Set url to the active node: {others}."
    if outcome == "EXPIRED" and kind == "API key":
        return (
            f"the API key of user {user!r} is revoked or expired. TrueNAS revokes a key that is sent over plain http. "
            "Create a new one (user menu > My API Keys) and use it over https only."
        )
    belongs = " An API key works only with the name of the user it was created for." if kind == "API key" else ""
    return {
        "AUTH_ERR": (
            f"login refused: wrong {kind} for user {user!r}, or the user does not exist or is locked.{belongs} "
            f"{counted}"
        ),
        "EXPIRED": f"the password of user {user!r} has expired. Set a new one in TrueNAS, or use an API key.",
        "OTP_REQUIRED": (
            f"user {user!r} needs a one-time code (two-factor authentication). Set otp, or use api_key, "
            "which needs no code."
        ),
        "DENIED": f"user {user!r} may not use the API. Give its group a privilege with the roles {_ALL_ROLES}.",
    }.get(
        outcome,
        f"the login of user {user!r} had an unknown outcome ({outcome[:40]!a}). Check that this TrueNAS release is supported.",
    )


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return a text from TrueNAS with each secret masked, also in the forms in which JSON and Python write it.

    Longer secrets first, so that no part of one remains. A short secret is masked only as a whole word, because its
    letters occur in other words, too.
    """
    for form in sorted({form for secret in secrets for form in _written_forms(secret)}, key=len, reverse=True):
        pattern = re.escape(form)
        text = re.sub(pattern if len(form) >= SHORT_SECRET else rf"(?<!\w){pattern}(?!\w)", SECRET_MASK, text)
    return text


def _written_forms(secret: str) -> set[str]:
    """Return the forms in which a text may contain a secret: whole or, if it is lines of a file, any line or its value."""
    lines = [" ".join(line.split()) for line in secret.splitlines()] if "\n" in secret or "=" in secret else []
    values = [line.partition("=")[2].strip(" \"'") for line in lines]
    # Messages quote TrueNAS on one line.
    plain = {secret, " ".join(secret.split()), *lines, *values}
    written = {writer(form)[1:-1] for form in plain for writer in (json.dumps, repr, ascii)}
    return {form for form in plain | written if form.strip()}
