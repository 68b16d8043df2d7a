# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The middleware's protocol: JSON-RPC 2.0, one frame in, one frame out, without sockets. The clock is passed in.

Slow work is a job: `receive_frame` returns it, the server calls `run_job`, which may return a frame.
"""

from __future__ import annotations

import copy
import itertools
import json
import operator
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import ups
from .accounts import FULL_ADMIN, ROOT, Accounts, ApiKey, TrueNasUser
from .releases import Release
from .service import ServiceRunner, StateFile

_ERRNO = {
    "ENOENT": 2,
    "EACCES": 13,
    "EFAULT": 14,
    "EBUSY": 16,
    "EINVAL": 22,
    "ENOMETHOD": 201,
    "ESERVICESTARTFAILURE": 202,
    "ENOTAUTHENTICATED": 207,
}
_INVALID_JSON, _INVALID_REQUEST, _NO_SUCH_METHOD, _INVALID_PARAMS = -32700, -32600, -32601, -32602
_CALL_ERROR = -32001

RATE_CALLS = 20
RATE_SECONDS = 60.0
_RATE_WORDS = "Rate Limit Exceeded"

#: How long a job is at work that nobody has looked at, and how long a look waits for one that is nearly done.
NEARLY_SECONDS = 0.5

UPS_SERVICE_ID = 16
#: Neighbours, so that a client that does not filter is found out. Their ids are not recorded.
_OTHER_SERVICES = ({"id": 4, "service": "cifs"}, {"id": 11, "service": "ssh"})


class RpcError(Exception):
    """An answer with an error."""

    def __init__(self, code: int, message: str, data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    @property
    def reason(self) -> str:
        """The message for people: TrueNAS's reason if there is one."""
        return str(self.data["reason"]) if self.data else str(self)


def call_error(errname: str, text: str, extra: Any = None, *, bare: bool = False) -> RpcError:
    """Return the error of a failed method. `bare`: without [ERRNAME], as for exceptions that are not TrueNAS's own."""
    reason = text if bare else f"[{errname}] {text}"
    data = {"error": _ERRNO[errname], "errname": errname, "reason": reason, "extra": extra}
    return RpcError(_CALL_ERROR, "Method call error", data)


def _as_rpc_error(call: Callable[[], Any]) -> Any:
    """Turn every exception of a method into an answer, as TrueNAS does."""
    try:
        return call()
    except RpcError:
        raise
    except Exception as error:
        raise call_error("EINVAL", str(error) or repr(error), bare=True) from error


def invalid_params(complaints: Sequence[ups.Complaint]) -> RpcError:
    """Return the error for refused arguments: (attribute, message) each."""
    einval = _ERRNO["EINVAL"]
    reason = "".join(f"[EINVAL] {attribute}: {message}\n" for attribute, message in complaints)
    extra = [[attribute, message, einval] for attribute, message in complaints]
    return RpcError(
        _INVALID_PARAMS,
        "Invalid params",
        {"error": einval, "errname": "EINVAL", "reason": reason, "extra": extra},
    )


@dataclass
class ClientConnection:
    """A connection by WebSocket or midclt."""

    remote: str
    secure: bool
    unix: bool = False
    api: str = "current"
    user: TrueNasUser | None = None
    key: ApiKey | None = None
    awaiting_otp: TrueNasUser | None = None
    legacy_jobs: bool = True
    login_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def describe_credentials(self) -> dict[str, Any]:
        """Return the credentials as a job shows them."""
        assert self.user  # noqa: S101 - a job is only made after a login
        data: dict[str, Any] = {"username": self.user.name, "login_id": self.login_id, "login_at": None}
        if self.unix:
            return {"type": "UNIX_SOCKET", "data": data}
        if self.key is None:
            return {"type": "LOGIN_PASSWORD", "data": data}
        return {"type": "API_KEY", "data": {**data, "api_key": {"id": self.key.id, "name": self.key.name}}}


def unix_connection(*, root: bool) -> ClientConnection:
    """Return the connection of a midclt. root is logged in; other users are not."""
    return ClientConnection(remote="unix", secure=True, unix=True, user=ROOT if root else None)


@dataclass(frozen=True)
class AnswerFate:
    """How faults change the delivery of an answer: a delay in seconds, or a dropped connection."""

    delay: float = 0.0
    drop: bool = False


@dataclass
class MiddlewareJob:
    """A slow call. `shown` is its entry in core.get_jobs."""

    work: Callable[[], Any]
    message_id: Any
    answer_late: bool
    shown: dict[str, Any]
    fate: AnswerFate = AnswerFate()
    garbage: str | None = None
    seen: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)

    def read_state(self) -> dict[str, Any]:
        """Return the current state. A second call waits briefly for the end, as in the recordings."""
        if self.seen.is_set():
            self.finished.wait(NEARLY_SECONDS)
        shown = copy.deepcopy(self.shown)
        self.seen.set()
        return shown


@dataclass(frozen=True)
class FrameOutcome:
    """The result of a frame: an answer, a job to run, or both. `fate` applies to the answer."""

    answer: str | None
    job: MiddlewareJob | None = None
    fate: AnswerFate = AnswerFate()


@dataclass(frozen=True)
class _Method:
    """A method. `params` are the names of its parameters; a question mark marks an optional one."""

    call: Callable[[Middleware, ClientConnection, list[Any]], Any]
    params: tuple[str, ...] = ()
    role: str | None = None
    login: bool = True
    job: bool = False


class Middleware:
    """The state that all connections share.

    `faults` is called for each frame: see the README. `clock` returns seconds since 1970.
    """

    def __init__(
        self,
        *,
        release: Release,
        accounts: Accounts,
        state: StateFile,
        runner: ServiceRunner,
        clock: Callable[[], float],
        faults: Callable[[], Mapping[str, Any]] = dict,
        hostname: str = "truenas",
    ) -> None:
        self.release = release
        self._accounts = accounts
        self._state = state
        self._runner = runner
        self._clock = clock
        self._faults = faults
        self._hostname = hostname
        saved = state.load_state()
        self.settings = ups.default_settings(core=release.core)
        # Another release may have saved members that this one does not have.
        self.settings.update({name: value for name, value in saved.get("ups", {}).items() if name in self.settings})
        self.enabled: bool = saved.get("enable", False)
        self._revoked: set[int] = set(saved.get("revoked_keys", []))
        self._jobs: list[MiddlewareJob] = []
        self._job_ids = itertools.count(1)
        self._calls: dict[tuple[str, str], tuple[float, int]] = {}
        self._service_lock = threading.RLock()  # one start, stop or update at a time

    # --- frames ---

    def is_dropping_connections(self) -> bool:
        """Return whether a fault closes new connections at once."""
        return bool(self._drop_fault("connect") == "before")

    def _drop_fault(self, name: Any) -> Any:
        return self._faults().get("drop", {}).get(name)

    def receive_frame(self, connection: ClientConnection, frame: str) -> FrameOutcome:
        """Process a frame of a client."""
        message_id = name = None
        try:
            message = _parse_frame(frame)
            message_id, name = message.get("id"), message.get("method")
            _check_request(message)
            if _as_rpc_error(lambda: self._drop_fault(name)) == "before":
                return FrameOutcome(None, fate=AnswerFate(drop=True))
            result = _as_rpc_error(lambda: self._call_method(connection, message))
        except RpcError as error:
            return self._make_outcome(name, _error_frame(message_id, error))
        if not isinstance(result, MiddlewareJob):
            return self._make_outcome(name, _result_frame(message_id, result))
        if result.answer_late:
            result.fate, result.garbage = self._choose_fate(name), self._garbage_fault(name)
            return FrameOutcome(None, result)
        return self._make_outcome(name, _result_frame(message_id, result.shown["id"]), result)

    def _make_outcome(self, name: Any, answer: str, job: MiddlewareJob | None = None) -> FrameOutcome:
        garbage = self._garbage_fault(name)
        return FrameOutcome(answer if garbage is None else garbage, job, self._choose_fate(name))

    def _choose_fate(self, name: Any) -> AnswerFate:
        return AnswerFate(float(self._faults().get("slow", {}).get(name, 0)), self._drop_fault(name) == "after")

    def _garbage_fault(self, name: Any) -> str | None:
        text: str | None = self._faults().get("garbage", {}).get(name)
        return text

    def run_job(self, job: MiddlewareJob) -> str | None:
        """Run a job. Return the frame that its caller is waiting for, if any."""
        try:
            result = _as_rpc_error(lambda: self._do_work(job))
        except RpcError as error:
            self._finish_job(job, state="FAILED", error=error.reason, exception=error.reason)
            job.shown["exc_info"] = {"type": "CallError", "extra": None, "repr": repr(error.reason)}
            return self._late_answer(job, _error_frame(job.message_id, error))
        job.shown["progress"]["percent"] = 100
        self._finish_job(job, state="SUCCESS", result=result)
        return self._late_answer(job, _result_frame(job.message_id, result))

    def _do_work(self, job: MiddlewareJob) -> Any:
        if fault := self._faults().get("job"):
            raise call_error("EFAULT", str(fault))
        return job.work()

    @staticmethod
    def _late_answer(job: MiddlewareJob, answer: str) -> str | None:
        if not job.answer_late:
            return None
        return answer if job.garbage is None else job.garbage

    def _finish_job(self, job: MiddlewareJob, **members: Any) -> None:
        job.shown.update(members, time_finished=self._make_timestamp())
        job.finished.set()

    def _make_timestamp(self) -> dict[str, int]:
        return {"$date": int(self._clock()) * 1000}

    def _call_method(self, connection: ClientConnection, message: Mapping[str, Any]) -> Any:
        name, params = message["method"], message.get("params", [])
        method = self._available_methods().get(name)
        if method is None:
            raise RpcError(_NO_SUCH_METHOD, "Method does not exist")
        self._check_api(connection.api, name)
        if connection.user is None and self._faults().get("busy"):
            raise call_error("EBUSY", _RATE_WORDS)
        if method.login:
            if connection.user is None:
                raise call_error("ENOTAUTHENTICATED", "Not authenticated")
            if not connection.user.has_role(method.role):
                raise call_error("EACCES", "Not authorized")
        elif connection.user is None:
            self._check_rate(name, connection.remote)
        self._check_arity(method, params)
        if fault := self._faults().get("methods", {}).get(name):
            raise call_error(fault.get("errname", "EFAULT"), fault["reason"])
        if method.job:
            return self._new_job(connection, message["id"], name, params, method)
        return method.call(self, connection, params)

    def _available_methods(self) -> dict[str, _Method]:
        methods = dict(_METHODS)
        if self.release.ping_needs_login:
            methods["core.ping"] = _Method(_core_ping)
        if not self.release.service_control:
            del methods["service.control"]
        if not self.release.json_rpc:
            del methods["auth.login_ex"], methods["auth.login_ex_continue"]
        if not self.release.service_verbs_public:
            methods.update({f"service.{verb}": _Method(_private_verb, _PRIVATE_PARAMS, FULL_ADMIN) for verb in _VERBS})
        return methods

    def _check_api(self, api: str, name: str) -> None:
        for version, methods in self.release.broken.items():
            for prefix, (errname, reason) in methods.items():
                if api.startswith(version) and name.startswith(prefix):
                    raise call_error(errname, reason, bare=True)

    def _check_rate(self, name: str, remote: str) -> None:
        """Enforce the rate limit. The window begins with the first call; refused calls count too."""
        now = self._clock()
        since, calls = self._calls.get((name, remote), (now, 0))
        if now - since >= RATE_SECONDS:
            since, calls = now, 0
        self._calls[name, remote] = (since, calls + 1)
        if calls >= RATE_CALLS:
            raise call_error("EBUSY", _RATE_WORDS)

    def _check_arity(self, method: _Method, params: list[Any]) -> None:
        if len(params) > len(method.params):
            message = f"Too many arguments (expected {len(method.params)}, found {len(params)})"
            if self.release.classic_schema:
                raise call_error("EFAULT", message)
            raise invalid_params([("", message)])
        missing = [name for name in method.params[len(params) :] if not name.endswith("?")]
        if missing:
            raise invalid_params([(name, "Field required") for name in missing])

    def _new_job(
        self, connection: ClientConnection, message_id: Any, name: str, params: list[Any], method: _Method
    ) -> MiddlewareJob:
        job = MiddlewareJob(
            work=lambda: method.call(self, connection, params),
            message_id=message_id,
            answer_late=not connection.legacy_jobs,
            shown={
                "id": next(self._job_ids),
                "message_ids": [message_id],
                "method": name,
                "arguments": params,
                "transient": False,
                "description": None,
                "abortable": False,
                "logs_path": None,
                "logs_excerpt": None,
                "progress": {"percent": 0, "description": "", "extra": None},
                "result": None,
                "result_encoding_error": None,
                "error": None,
                "exception": None,
                "exc_info": None,
                "state": "RUNNING",
                "time_started": self._make_timestamp(),
                "time_finished": None,
                "credentials": connection.describe_credentials(),
            },
        )
        self._jobs.append(job)
        return job

    def list_jobs(self, user: TrueNasUser) -> list[dict[str, Any]]:
        """Return the jobs that a user may see: his own, or all for a full admin."""
        own = (job for job in self._jobs if job.shown["credentials"]["data"]["username"] == user.name)
        return [job.read_state() for job in (self._jobs if user.has_role(FULL_ADMIN) else own)]

    # --- logging in ---

    def login_fault(self) -> dict[str, Any] | None:
        """Return the answer to every login if a fault sets it: a redirect of a standby node, or a given outcome."""
        faults = self._faults()
        if (urls := faults.get("standby")) is not None:
            return {"response_type": "REDIRECT", "urls": urls}
        return {"response_type": faults["login"]} if faults.get("login") else None

    def log_in_with_password(self, name: str, password: str) -> TrueNasUser | None:
        """Return the user if the password is right."""
        user = self._accounts.users.get(name)
        return user if user and user.password == password else None

    def log_in_with_key(self, connection: ClientConnection, secret: str, name: str | None = None) -> str:
        """Log in with an API key and return a response_type of login_ex. A key sent over plain ws is revoked."""
        key = self._accounts.find_key(secret)
        if key is None or name not in (None, key.user):
            return "AUTH_ERR"
        if not connection.secure and key.id not in self._revoked:
            self._revoked.add(key.id)
            self._save_state()
        if key.id in self._revoked or key.id in self._faults().get("revoked_keys", []):
            return "EXPIRED"
        connection.user, connection.key = self._accounts.users[key.user], key
        return "SUCCESS"

    # --- the UPS service ---

    def _save_state(self) -> None:
        self._state.save_state({"ups": self.settings, "enable": self.enabled, "revoked_keys": sorted(self._revoked)})

    def update_ups(self, values: Any) -> dict[str, Any]:
        """Change settings, and restart a running service. The settings stay even if the restart fails."""
        release = self.release
        cleaned, complaints = ups.check_schema(
            values, classic=release.classic_schema, core=release.core, old=release.old_schema
        )
        if complaints:
            prefix = release.schema_attribute
            raise invalid_params(
                [(".".join(filter(None, (prefix, name))) or "ups_update", text) for name, text in complaints]
            )
        with self._service_lock:
            settings = {**self.settings, **cleaned}
            if complaints := ups.check_settings(settings):
                raise invalid_params([(f"ups_update.{name}", text) for name, text in complaints])
            if settings != self.settings:
                ups.check_storable(settings)
                self.settings = settings
                self._save_state()
                if self._runner.read_state().running and not self.restart_ups(silent=True):
                    message = "The ups service failed to start"
                    raise call_error("ESERVICESTARTFAILURE", message, ["ups"])
            return ups.config_entry(self.settings)

    def enable_ups(self, enable: bool) -> int:
        """Set whether the service starts at boot."""
        self.enabled = enable
        self._save_state()
        return UPS_SERVICE_ID

    def start_ups(self, *, silent: bool) -> bool:
        """Start the service. Raise RpcError if it does not run afterwards, unless `silent`."""
        with self._service_lock:
            log = self._start_service()
            if self._runner.read_state().running:
                return True
            if silent:
                return False
            raise call_error("EFAULT", log or "Service not running after start")

    def _start_service(self) -> str:
        if not self._runner.read_state().running and (fault := self._faults().get("service_start")):
            return str(fault)
        try:
            return self._runner.start_service(ups.render_files(self.settings))
        except ValueError as error:
            return str(error)

    def stop_ups(self) -> bool:
        """Stop the service. Return whether it is stopped; old releases return the opposite."""
        with self._service_lock:
            self._runner.stop_service()
            return self._runner.read_state().running is self.release.inverted_stop

    def restart_ups(self, *, silent: bool) -> bool:
        """Stop and start the service."""
        with self._service_lock:
            self.stop_ups()
            if self._faults().get("restart_leaves_stopped"):
                return True
            return self.start_ups(silent=silent)

    def list_services(self) -> list[dict[str, Any]]:
        """Return all services; the UPS service has its real state."""
        state = self._runner.read_state()
        ours = {
            "id": UPS_SERVICE_ID,
            "service": "ups",
            "enable": self.enabled,
            "state": "RUNNING" if state.running else "STOPPED",
            "pids": list(state.pids),
        }
        others = [{**service, "enable": False, "state": "STOPPED", "pids": []} for service in _OTHER_SERVICES]
        return [*others, ours]

    def system_info(self) -> dict[str, Any]:
        """Return a few members of the real system.info."""
        return {"version": self.release.version, "hostname": self._hostname}


# --- the envelope ----------------------------------------------------------------------------------------------------


def _parse_frame(frame: str) -> dict[str, Any]:
    try:
        message = json.loads(frame)
    except ValueError as error:
        raise RpcError(_INVALID_JSON, str(error)) from None
    if not isinstance(message, dict):
        raise RpcError(_INVALID_REQUEST, "Request must be an object")
    return message


def _check_request(message: Mapping[str, Any]) -> None:
    for member in ("jsonrpc", "method"):
        if member not in message:
            raise RpcError(_INVALID_REQUEST, f"Missing '{member}' member")
    if message["jsonrpc"] != "2.0":
        raise RpcError(_INVALID_REQUEST, "'jsonrpc' member must be '2.0'")
    for member, kind, word in (("method", str, "string"), ("params", list, "array")):
        if not isinstance(message.get(member, kind()), kind):
            raise RpcError(_INVALID_REQUEST, f"'{member}' member must be of type {word}")
    if not isinstance(message.get("id"), (str, int, type(None))):
        raise RpcError(_INVALID_REQUEST, "'id' member must be of type string, number or null")


def _result_frame(message_id: Any, result: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "result": result, "id": message_id})


def _error_frame(message_id: Any, error: RpcError) -> str:
    body: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.data is not None:
        body["data"] = error.data
    return json.dumps({"jsonrpc": "2.0", "error": body, "id": message_id})


# --- query filters ---------------------------------------------------------------------------------------------------

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "in": lambda value, wanted: value in wanted,
    "nin": lambda value, wanted: value not in wanted,
}


def _filter_rows(rows: list[dict[str, Any]], params: list[Any]) -> Any:
    """Apply TrueNAS's query filters (all must hold) and the options get, count, limit and offset."""
    filters = params[0] if params else []
    options = params[1] if len(params) > 1 else {}
    for condition in filters:
        if not (isinstance(condition, list) and len(condition) == 3 and condition[1] in _OPERATORS):
            raise invalid_params([("filters", f"Invalid filter {condition!r}")])
        name, sign, wanted = condition
        rows = [row for row in rows if _OPERATORS[sign](row.get(name), wanted)]
    if options.get("count"):
        return len(rows)
    if options.get("get"):
        if not rows:
            raise call_error("EINVAL", "MatchNotFound()", bare=True)
        return rows[0]
    rows = rows[options.get("offset", 0) :]
    return rows[: options["limit"]] if options.get("limit") else rows


# --- methods ---------------------------------------------------------------------------------------------------------

_VERBS = ("start", "stop", "restart", "reload")
_PRIVATE_PARAMS = ("service?", "options?")


def _core_ping(_unused: Middleware, __: ClientConnection, ___: list[Any]) -> str:
    return "pong"


def _set_options(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> Any:
    (options,) = params
    connection.legacy_jobs = options.get("legacy_jobs", connection.legacy_jobs)
    if not middleware.release.options_answered:
        return None
    return {"legacy_jobs": connection.legacy_jobs, "private_methods": False, "py_exceptions": False, **options}


def _get_jobs(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> Any:
    return _filter_rows(middleware.list_jobs(_logged_in_user(connection)), params)


def _logged_in_user(connection: ClientConnection) -> TrueNasUser:
    assert connection.user  # noqa: S101 - the dispatcher has checked the login
    return connection.user


def _auth_me(_unused: Middleware, connection: ClientConnection, __: list[Any]) -> dict[str, Any]:
    user = _logged_in_user(connection)
    return {
        "pw_name": user.name,
        "source": "LOCAL",
        "local": True,
        "account_attributes": ["LOCAL", "API_KEY"] if connection.key else ["LOCAL"],
        "two_factor_config": {"secret_configured": user.otp_token is not None},
        "privilege": {"roles": {"$set": sorted(user.roles)}, "web_shell": False, "webui_access": True},
    }


def _auth_login_ex(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> dict[str, Any]:
    (data,) = params
    connection.awaiting_otp = None
    if fault := middleware.login_fault():
        return fault
    mechanism = data.get("mechanism")
    try:
        if mechanism == "API_KEY_PLAIN":
            response = middleware.log_in_with_key(connection, data["api_key"], data["username"])
        elif mechanism == "PASSWORD_PLAIN":
            user = middleware.log_in_with_password(data["username"], data["password"])
            if user and user.otp_token:
                connection.awaiting_otp = user
                return {"response_type": "OTP_REQUIRED", "username": user.name}
            response = _log_in(connection, user)
        else:
            raise invalid_params([("login_data.mechanism", f"Input tag {mechanism!r} does not match any expected tag")])
    except KeyError as error:
        raise invalid_params([(f"login_data.{mechanism}.{error.args[0]}", "Field required")]) from None
    return _login_answer(middleware, connection, response, data)


def _auth_login_ex_continue(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> dict[str, Any]:
    (data,) = params
    user, connection.awaiting_otp = connection.awaiting_otp, None
    right = user is not None and data.get("mechanism") == "OTP_TOKEN" and data.get("otp_token") == user.otp_token
    return _login_answer(middleware, connection, _log_in(connection, user if right else None), data)


def _log_in(connection: ClientConnection, user: TrueNasUser | None) -> str:
    if user is None:
        return "AUTH_ERR"
    connection.user, connection.key = user, None
    return "SUCCESS"


def _login_answer(middleware: Middleware, connection: ClientConnection, response: str, data: Any) -> dict[str, Any]:
    if response != "SUCCESS":
        return {"response_type": response}
    wanted = data.get("login_options", {}).get("user_info", True)
    info = _auth_me(middleware, connection, []) if wanted else None
    return {
        "response_type": "SUCCESS",
        "user_info": info,
        "authenticator": "LEVEL_1",
        **middleware.release.login_members,
    }


def _auth_login(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> bool:
    name, password, token = (*params, None)[:3]
    user = middleware.log_in_with_password(name, password)
    return _log_in(connection, user if user and user.otp_token in (None, token) else None) == "SUCCESS"


def _auth_login_with_api_key(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> bool:
    return middleware.log_in_with_key(connection, params[0]) == "SUCCESS"


def _auth_logout(_unused: Middleware, connection: ClientConnection, __: list[Any]) -> bool:
    connection.user = connection.key = None
    return True


def _ups_config(middleware: Middleware, _unused: ClientConnection, __: list[Any]) -> dict[str, Any]:
    return ups.config_entry(middleware.settings)


def _ups_update(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> dict[str, Any]:
    return middleware.update_ups(params[0])


def _service_query(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> Any:
    return _filter_rows(middleware.list_services(), params)


def _service_update(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> int:
    _check_is_ups(params[0])
    enable = params[1].get("enable")
    if not isinstance(enable, bool):
        raise invalid_params([("service_update.enable", "Input should be a valid boolean")])
    return middleware.enable_ups(enable)


def _check_is_ups(service: Any) -> None:
    if service not in ("ups", UPS_SERVICE_ID):
        raise call_error("ENOENT", f"Service {service} not found.")


def _service_control(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> bool:
    verb, service, options = (*params, {})[:3]
    return _control_service(middleware, str(verb).lower(), service, options)


def _service_verb(verb: str) -> Callable[[Middleware, ClientConnection, list[Any]], bool]:
    def call(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> bool:
        service, options = (*params, {})[:2]
        return _control_service(middleware, verb, service, options)

    return call


def _control_service(middleware: Middleware, verb: str, service: Any, options: Mapping[str, Any]) -> bool:
    _check_is_ups(service)
    if "silent" in options and not middleware.release.service_silent:
        raise invalid_params([("service-control.silent", "Field was not expected")])
    silent = options.get("silent", True)
    if verb == "start":
        return middleware.start_ups(silent=silent)
    if verb == "stop":
        return middleware.stop_ups()
    if verb in ("restart", "reload"):
        return middleware.restart_ups(silent=silent)
    raise invalid_params([("verb", "Input should be 'START', 'STOP', 'RESTART' or 'RELOAD'")])


def _private_verb(_unused: Middleware, __: ClientConnection, params: list[Any]) -> Any:
    """Fail like the private methods of release 26 when a client calls them without all options."""
    if len(params) < len(_PRIVATE_PARAMS):
        raise call_error("EINVAL", "missing 1 required positional argument: 'options'", bare=True)
    raise call_error("EINVAL", "'ha_propagate'", bare=True)


def _system_version(middleware: Middleware, _unused: ClientConnection, __: list[Any]) -> str:
    return middleware.release.version


def _system_info(middleware: Middleware, _unused: ClientConnection, __: list[Any]) -> dict[str, Any]:
    return middleware.system_info()


_METHODS: Mapping[str, _Method] = {
    "core.ping": _Method(_core_ping, login=False),
    "core.set_options": _Method(_set_options, ("options",), login=False),
    "core.get_jobs": _Method(_get_jobs, ("filters?", "options?")),
    "auth.login_ex": _Method(_auth_login_ex, ("login_data",), login=False),
    "auth.login_ex_continue": _Method(_auth_login_ex_continue, ("login_data",), login=False),
    "auth.login": _Method(_auth_login, ("username", "password", "otp_token?"), login=False),
    "auth.login_with_api_key": _Method(_auth_login_with_api_key, ("api_key",), login=False),
    "auth.logout": _Method(_auth_logout),
    "auth.me": _Method(_auth_me),
    "system.info": _Method(_system_info, role="SYSTEM_GENERAL_READ"),
    "system.version": _Method(_system_version),
    "ups.config": _Method(_ups_config, role="SYSTEM_GENERAL_READ"),
    "ups.update": _Method(_ups_update, ("ups_update",), "SYSTEM_GENERAL_WRITE"),
    "service.query": _Method(_service_query, ("filters?", "options?"), "SERVICE_READ"),
    "service.update": _Method(_service_update, ("id_or_name", "service_update"), "SERVICE_WRITE"),
    "service.control": _Method(_service_control, ("verb", "service", "options?"), "SERVICE_WRITE", job=True),
    **{f"service.{verb}": _Method(_service_verb(verb), ("service", "options?"), "SERVICE_WRITE") for verb in _VERBS},
}
