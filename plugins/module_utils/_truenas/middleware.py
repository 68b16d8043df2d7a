# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The interface of a connection to TrueNAS's middleware, and the errors it raises.

This module only knows methods, parameters and results. The transports (jsonrpc.py, midclt.py) carry them; each
implements the three methods of `Middleware`.
"""

from __future__ import annotations

import html
import json
import re
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol
from urllib.parse import quote, quote_plus

from .._nut.base.text import LINE, WHOLE, as_text, one_line, printable
from .stream import Deadline

SECRET_MASK = "********"  # noqa: S105 - printed instead of a secret
# Characters. A shorter secret may be an ordinary word, or part of one.
SHORT_SECRET = 8
POLL_SECONDS = 0.5
# A failed start is explained by systemd's log of the service, which can hold an hour.
LOG_LINES, LOG_CHARACTERS = 15, 1200
# Characters at the end of a message that stay when it is cut: they say in which state TrueNAS is, and what to do.
MESSAGE_END = 1000
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
    certificate: bytes | None  # of the other side, in DER; None without TLS

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

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason  # TrueNAS's


class JobUnfinished(ConnectionLost):
    """A job has not ended in time, or nobody can tell whether it has. The connection still works."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ServiceFailed(TruenasError):
    """The UPS service is not in the requested state."""


class CallFailed(TruenasError):
    """A method returned an error."""

    def __init__(
        self, message: str, *, method: str, errname: str = "", reason: str = "", refused: bool = False
    ) -> None:
        super().__init__(message)
        self.method = method
        self.errname = errname
        self.reason = reason
        self.refused = refused  # TrueNAS refused the call or a value in it, before it did anything


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
        self.certificate = middleware.certificate
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

    The job may take ACTION_SECONDS plus `timeout` seconds. Raises JobFailed, and JobUnfinished if it takes longer.
    """
    params = tuple(params)
    number = middleware.call(method, *params)
    if isinstance(number, bool) or not isinstance(number, int):
        return number  # the session has legacy_jobs off: the call itself waited for the job
    what = " ".join([method, *(param for param in params if isinstance(param, str))])
    deadline = clock() + ACTION_SECONDS + timeout
    while True:
        try:
            jobs = middleware.call("core.get_jobs", [["id", "=", number]])
        except CallFailed as error:
            raise JobUnfinished(
                f"{str(error).rstrip('.')}. So the result of {what} (job {number}) is unknown. Run again.", error.reason
            ) from error
        job = jobs[0] if isinstance(jobs, list) and jobs and isinstance(jobs[0], dict) else {}
        state = job.get("state")
        if state == "SUCCESS":
            return job.get("result")
        if state in ("FAILED", "ABORTED"):
            why = shorten_log(as_text(job.get("error") or "no reason given"))
            raise JobFailed(f"{middleware.host}: {what} {str(state).lower()}: {why}", why)
        if clock() >= deadline:
            late = f"{what} (job {number}) did not end within {ACTION_SECONDS + timeout:.0f} s"
            raise JobUnfinished(
                f"{middleware.host}: {late}. Look at the Jobs page of TrueNAS; once the job has ended, run again.", late
            )
        sleep(POLL_SECONDS)


def shorten_log(text: str) -> str:
    """Return a text from TrueNAS as one line. Of a long log only the last lines, which say why a service did not start.

    Cuts whole lines only: mask_secrets(), which comes later, would not recognize a part of a secret.
    """
    name = re.match(r"\[E[A-Z]+\] ", text)
    lines = [one_line(line) for line in text.splitlines() if line.strip()]
    shown = lines[-LOG_LINES:]
    while len(shown) > 1 and sum(map(len, shown)) > LOG_CHARACTERS >= len(shown[-1]):
        shown = shown[1:]
    if len(shown) == len(lines):
        return " ".join(lines)
    return f"{name[0] if name else ''}(the last {len(shown)} of {len(lines)} lines) {' '.join(shown)}"


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
ALL_ROLES = "SYSTEM_GENERAL_WRITE, SERVICE_WRITE and SERVICE_READ"
METHOD_NOT_FOUND, INVALID_PARAMS = -32601, -32602
# Errors with which TrueNAS refuses a call before it does anything.
_REFUSALS = frozenset({"EACCES", "EPERM", "ENOTAUTHENTICATED"})
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
    reason = shorten_log(as_text(data.get("reason") or error.get("message") or "no reason given"))
    if error.get("code") == METHOD_NOT_FOUND or errname == "ENOMETHOD":
        needed = "22.12 or newer, or CORE 13," if local else "25.04 or newer"
        return MethodMissing(
            f"{host}: this TrueNAS has no method {method}. Upgrade: TrueNAS {needed} is needed.",
            method=method,
            errname=errname,
            reason=reason,
            refused=True,
        )
    values = _refused_values(data.get("extra"))
    # midclt prints a refused value like any other error with EINVAL, so there only a second look can tell
    refused = error.get("code") == INVALID_PARAMS or errname in _REFUSALS or (bool(values) and not local)
    if errname in ("EACCES", "EPERM") and local:
        text = f"{host}: this user may not call {method}. {AS_ROOT}"
    elif errname in ("EACCES", "EPERM"):
        text = (
            f"{host}: the user may not call {method}, which needs the role {_ROLES.get(method, 'of an administrator')}. "
            f"Give the user's group a privilege with {ALL_ROLES} (Credentials > Groups > Privileges)."
        )
    elif errname == "EBUSY" and "rate limit" in reason.lower():
        text = (
            f"{host}: TrueNAS accepts no more logins from this address for now (at most 20 a minute). "
            "Wait a minute and run again. If it happens again, find the program on this machine that keeps logging in."
        )
    elif errname == "ENOTAUTHENTICATED":
        text = f"{host}: TrueNAS has ended this session, so {method} failed. Run again."
    else:
        text = f"{host}: {method} failed: {values or reason}"
    return CallFailed(text, method=method, errname=errname, reason=reason, refused=refused)


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


def mask_secrets(text: str, secrets: Iterable[str], keep: Iterable[str] = ()) -> str:
    """Return a text from TrueNAS with each secret masked, also in the forms in which JSON, Python, a URL or HTML write it.

    Longer secrets first, so that no part of one remains. A short secret is masked only as a whole word, because its
    letters occur in other words, too, and a number only outside of addresses. `keep` are names of machines, which stay.
    """
    names = sorted(filter(None, keep), key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
    forms = sorted({form for secret in secrets for form in _written_forms(secret)}, key=len, reverse=True)
    for form in forms:
        pattern = _mask_pattern(form)
        parts = [part if part in names else pattern.sub(_mask_match, part) for part in parts]
    return "".join(parts)


def cut_middle(text: str) -> str:
    """Return a message as one printable line. If it is too long, its middle is missing, but never its end.

    Secrets must be masked before: a part of one would not be recognized.
    """
    shown = printable(text, WHOLE)
    if len(shown) <= LINE:
        return shown
    return f"{shown[: LINE - MESSAGE_END - 5]} ... {shown[-MESSAGE_END:]}"


_NUMBER = re.compile(r"[-+0-9.:]+")


# What a port may follow: nas.lan or @nas. The lengths have limits, because the text may be long.
_HOST = r"(?:@[\w.-]{1,255}|(?<![\w.-])[\w-]{1,63}(?:\.[\w-]{1,63}){1,8})"


def _mask_pattern(form: str) -> re.Pattern[str]:
    """Return a pattern for a form of a secret. What its group `kept` matches is no secret."""
    pattern = re.escape(form)
    if len(form) >= SHORT_SECRET:
        return re.compile(pattern)
    if _NUMBER.fullmatch(form):  # not in 192.0.2.10:3493, fd00::5 and nas.lan:3493, but in nas.lan:3493@
        port = rf"(?P<kept>{_HOST}:{pattern}(?![\w@]))"
        return re.compile(rf"{port}|(?<!\w)(?<!\d[.:])(?<!\]:)(?<!::){pattern}(?!\w)(?![.:]\d)")
    return re.compile(rf"(?<!\w){pattern}(?!\w)")


def _mask_match(found: re.Match[str]) -> str:
    return found.groupdict().get("kept") or SECRET_MASK


# In lines such as `community = public`: names of settings that hold a secret.
_SECRET_NAME = re.compile(r"pass|pwd|secret|community|token|key|auth|priv|login|user|cert", re.IGNORECASE)


def _is_secret_value(name: str, value: str) -> bool:
    """Return whether a setting's value may be a secret. `pollinterval = 15` and `port = auto` are not; a long text may be one."""
    return _SECRET_NAME.search(name) is not None or (len(value) >= SHORT_SECRET and not _NUMBER.fullmatch(value))


def _written_forms(secret: str) -> set[str]:
    """Return the forms in which a text may contain a secret: whole or, if it is lines of a file, any line or its value."""
    lines = [" ".join(line.split()) for line in secret.splitlines()] if "\n" in secret or "=" in secret else []
    settings = [(name, value.strip(" \"'")) for name, _sign, value in (line.partition("=") for line in lines)]
    values = [value for name, value in settings if _is_secret_value(name, value)]
    # Messages quote TrueNAS on one line.
    plain = {secret, " ".join(secret.split()), *lines, *values}
    written = {writer(form) for form in plain for writer in _WRITERS}
    written |= {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in written}
    return {form for form in plain | written if form.strip()}


def _write_json(text: str) -> str:
    return json.dumps(text)[1:-1]


_WRITERS: tuple[Callable[[str], str], ...] = (
    _write_json,
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: _write_json(_write_json(text)),  # JSON in a text of JSON
    lambda text: repr(text)[1:-1],
    lambda text: ascii(text)[1:-1],
    lambda text: quote(text, safe="", errors="replace"),
    lambda text: quote(text, errors="replace"),
    lambda text: quote_plus(text, errors="replace"),
    html.escape,
)
