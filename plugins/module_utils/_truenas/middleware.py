# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a way into TrueNAS's middleware must offer, the errors it raises, and the login.

Everything here speaks only of methods, parameters and results. How they travel is the transport's business
(jsonrpc.py, midclt.py): each offers the three methods of `Middleware`.
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

SECRET_MASK = "********"  # noqa: S105 - stands in the place of a secret
# Shorter ones may be a part of any word, or a word themselves.
SHORT_SECRET = 8
POLL_SECONDS = 0.5
ACTION_SECONDS = 120.0  # TrueNAS's own bound for one action on a service (service.control, option timeout)
# These start, stop or restart the service before they answer.
SLOW_METHODS = frozenset({"ups.update", "service.start", "service.stop"})


# How many answers in a row may take their whole time, and how many actions on the service.
SLOW_ANSWERS, ACTIONS = 10, 2


def run_seconds(timeout: float) -> float:
    """Return how long a run may take as a whole. `timeout`: how long one answer may take."""
    return SLOW_ANSWERS * timeout + ACTIONS * ACTION_SECONDS


class Middleware(Protocol):
    """A connection to one TrueNAS."""

    host: str  # how messages call the machine

    def call(self, method: str, *params: Any) -> Any:
        """Call a method and return its result. Raises TruenasError."""

    def call_job(self, method: str, *params: Any) -> Any:
        """Call a method that is a job, wait for its end and return the job's result. Raises TruenasError."""

    def close(self) -> None:
        """Give the connection up. Never raises."""


class TruenasError(Exception):
    """Something went wrong with TrueNAS; the text is a whole message for people: host, what happened, remedy."""


class OptionError(TruenasError):
    """An option was refused before anything was sent."""


class ConnectionFailed(TruenasError):
    """No connection came about, so nothing was asked."""


class NoJsonRpc(ConnectionFailed):
    """A web server is there, but no JSON-RPC API: TrueNAS before 25.04. No login was tried."""


class ConnectionLost(TruenasError):
    """The answer to a call never came: whether TrueNAS carried it out is not known."""


class NotAnAnswer(ConnectionLost):
    """Something came that is not an answer. What was asked may have happened all the same."""


class LoginFailed(TruenasError):
    """TrueNAS did not let us in. It counts failures: never try again by yourself."""


class Redirected(LoginFailed):
    """This is the standby node of a pair. `urls` are the addresses that it names, as it names them."""

    def __init__(self, message: str, urls: Iterable[str]) -> None:
        super().__init__(message)
        self.urls = tuple(urls)


class JobFailed(TruenasError):
    """A job ended without success."""


class ServiceFailed(TruenasError):
    """The UPS service is not in the state that it was put into."""


class CallFailed(TruenasError):
    """A method answered with an error."""

    def __init__(self, message: str, *, method: str, errname: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.method = method
        self.errname = errname
        self.reason = reason


class MethodMissing(CallFailed):
    """This release has no such method (JSON-RPC -32601)."""


def lost_answer(host: str, method: str, why: str) -> ConnectionLost:
    """The exception for a call whose answer never came."""
    return ConnectionLost(
        f"{host}: {why} while waiting for {method}. Whether it was carried out is not known; run again."
    )


class TimedMiddleware:
    """A connection whose calls have a deadline together: none is begun after it. Each has a limit of its own besides."""

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
                "Is TrueNAS very slow? Give it more by timeout, or run again."
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
    """Middleware.call_job for all transports: the call answers with the job's number; then its fate is asked for.

    `timeout` in seconds comes on top of ACTION_SECONDS. Raises JobFailed, ConnectionLost if it does not end in time.
    """
    params = tuple(params)
    number = middleware.call(method, *params)
    if isinstance(number, bool) or not isinstance(number, int):
        return number  # the session has legacy_jobs off: the call has waited already
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
                f"{middleware.host}: {what} (job {number}) did not end in {ACTION_SECONDS + timeout:.0f} s. "
                "Look at the Jobs page of TrueNAS; once it has ended, run again."
            )
        sleep(POLL_SECONDS)


# Who may call what, from 25.04 on. SERVICE_WRITE does not contain SERVICE_READ (S/role.py of truenas/middleware).
_ROLES = {
    "ups.config": "SYSTEM_GENERAL_READ (SYSTEM_GENERAL_WRITE contains it)",
    "ups.update": "SYSTEM_GENERAL_WRITE",
    "service.query": "SERVICE_READ (SERVICE_WRITE does not contain it)",
    "service.update": "SERVICE_WRITE",
    "service.control": "SERVICE_WRITE",
    "service.start": "SERVICE_WRITE",
    "service.stop": "SERVICE_WRITE",
}
_ALL_ROLES = "SYSTEM_GENERAL_WRITE, SERVICE_WRITE and SERVICE_READ"
METHOD_NOT_FOUND = -32601
AS_ROOT = "midclt works as root: set become: true, or let Ansible log in as root."


def call_error(host: str, method: str, error: Any, *, local: bool = False) -> CallFailed:
    """Turn the `error` member of a JSON-RPC answer into an exception that people can act upon.

    The shapes are those of the recorded releases: `data` holds errname, reason and, for refused values, `extra` as a
    list of [attribute, text, errno], where the attribute starts with `ups_update.` or, from 26 on, `data.`.
    `local`: asked on the machine itself, where root needs neither login nor roles.
    """
    error = error if isinstance(error, dict) else {}
    data = error.get("data") if isinstance(error.get("data"), dict) else {}
    errname = as_text(data.get("errname") or "")
    reason = one_line(as_text(data.get("reason") or error.get("message") or "no reason given"))
    if error.get("code") == METHOD_NOT_FOUND or errname == "ENOMETHOD":
        needed = "22.12 or newer, or CORE 13," if local else "25.04 or newer"
        return MethodMissing(
            f"{host}: this TrueNAS has no method {method}. TrueNAS {needed} is needed.",
            method=method,
            errname=errname,
            reason=reason,
        )
    if errname in ("EACCES", "EPERM") and local:
        text = f"{host}: this user may not call {method}. {AS_ROOT}"
    elif errname in ("EACCES", "EPERM"):
        text = (
            f"{host}: the user may not call {method}; it takes the role {_ROLES.get(method, 'of an administrator')}. "
            f"Give the user's group a privilege with {_ALL_ROLES} (Credentials > Groups > Privileges)."
        )
    elif errname == "EBUSY" and "rate limit" in reason.lower():
        text = (
            f"{host}: TrueNAS takes no more logins from this address for now (rate limit: 20 in a minute). "
            "Wait ten minutes, then run again; look for something else here that keeps logging in."
        )
    elif errname == "ENOTAUTHENTICATED":
        text = f"{host}: TrueNAS no longer takes this session for logged in ({method}). Run again."
    else:
        text = f"{host}: {method} failed: {_refused_values(data.get('extra')) or reason}"
    return CallFailed(text, method=method, errname=errname, reason=reason)


def _refused_values(extra: Any) -> str:
    """The refused options as 'remotehost: This field is required; ...', or '' if `extra` has another shape."""
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
    """Who logs in. Exactly one of password and api_key is set."""

    username: str
    password: str | None = None
    api_key: str | None = None
    otp: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"  # a secret must not come out in a traceback


def log_in(middleware: Middleware, credentials: Credentials) -> None:
    """Log in, once. Raises LoginFailed in clear words for each outcome that TrueNAS knows, Redirected for a standby node.

    auth.login_ex (25.04+) answers a failed login with a normal result; its response_type is the outcome.
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
    text = f"{middleware.host}: {_why_not(answer, credentials.username, kind, code_sent)}"
    if outcome == "REDIRECT" and not code_sent:  # a code works once, and has been used
        raise Redirected(text, _named_urls(answer))
    raise LoginFailed(text)


def _named_urls(answer: Any) -> list[str]:
    urls = answer.get("urls")
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


def _login_outcome(answer: Any) -> str:
    return str(answer.get("response_type", "")) if isinstance(answer, dict) else ""


def _why_not(answer: Any, user: str, kind: str, code_sent: bool) -> str:
    """A failed login in words. `user` is named, the secret is not."""
    outcome = _login_outcome(answer)
    counted = "TrueNAS counts failed logins, so set it right before the next run."
    if code_sent and outcome in ("OTP_REQUIRED", "AUTH_ERR"):
        return (
            f"the one-time code in otp was not accepted for user {user!r}. "
            f"A code lasts about 30 seconds and works once. {counted}"
        )
    if outcome == "REDIRECT":
        others = ", ".join(_named_urls(answer)) or "not named by TrueNAS"
        return f"this is the standby node of a pair and takes no logins. Set url to the active one: {others}."
    if outcome == "EXPIRED" and kind == "API key":
        return (
            f"the API key of user {user!r} is revoked or expired. TrueNAS revokes a key at once if it ever "
            "travelled over plain http. Make a new one (user menu > My API Keys) and use it over https only."
        )
    belongs = " An API key works only with the name of the user that it was made for." if kind == "API key" else ""
    return {
        "AUTH_ERR": (
            f"login refused: wrong {kind} for user {user!r}, or no such user, or it is locked.{belongs} {counted}"
        ),
        "EXPIRED": f"the password of user {user!r} has expired. Set a new one in TrueNAS, or use an API key.",
        "OTP_REQUIRED": (
            f"user {user!r} needs a one-time code (two-factor authentication). Pass it in otp, or use api_key, "
            "which needs none."
        ),
        "DENIED": f"user {user!r} may not use the API. Give its group a privilege with the roles {_ALL_ROLES}.",
    }.get(outcome, f"login of user {user!r} ended in an unknown way ({outcome[:40]!a}). Is this release supported?")


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Mask each secret in a text that TrueNAS sent, also in the forms that JSON and Python write it in.

    Longest first, so that no rest of one stays. A short one is masked only as a word of its own: its letters stand in
    other words too.
    """
    for form in sorted({form for secret in secrets for form in _written_forms(secret)}, key=len, reverse=True):
        pattern = re.escape(form)
        text = re.sub(pattern if len(form) >= SHORT_SECRET else rf"(?<!\w){pattern}(?!\w)", SECRET_MASK, text)
    return text


def _written_forms(secret: str) -> set[str]:
    """How a secret may stand in a text: whole, or, if it is some lines of a file, any of its lines or their values."""
    lines = [" ".join(line.split()) for line in secret.splitlines()] if "\n" in secret or "=" in secret else []
    values = [line.partition("=")[2].strip(" \"'") for line in lines]
    # Messages hold TrueNAS's words in one line.
    plain = {secret, " ".join(secret.split()), *lines, *values}
    written = {writer(form)[1:-1] for form in plain for writer in (json.dumps, repr, ascii)}
    return {form for form in plain | written if form.strip()}
