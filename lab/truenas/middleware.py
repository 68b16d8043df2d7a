# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The middleware's protocol: JSON-RPC 2.0, one frame in, one frame out, without sockets. The clock is passed in.

Slow work is a job: `receive_frame` returns it, the server calls `run_job`, which may return a frame.
One file, because each method is a few lines over the same tables.
"""

from __future__ import annotations

import copy
import itertools
import json
import operator
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import ups
from .accounts import FULL_ADMIN, Accounts, TrueNasUser
from .errors import INVALID_JSON, INVALID_REQUEST, NO_SUCH_METHOD, RpcError, call_error, invalid_params
from .login import ClientConnection, Logins, describe_user
from .releases import Release
from .service import ServiceRunner, StateFile
from .ups_service import UPS_SERVICE_ID, UpsService

RATE_CALLS = 20
RATE_SECONDS = 60.0
_RATE_WORDS = "Rate Limit Exceeded"

#: How long a job is at work that nobody has looked at, and how long a look waits for one that is nearly done.
NEARLY_SECONDS = 0.5

#: Neighbours, so that a client that does not filter is found out. Their ids are not recorded.
_OTHER_SERVICES = ({"id": 4, "service": "cifs"}, {"id": 11, "service": "ssh"})


def _as_rpc_error(call: Callable[[], Any]) -> Any:
    """Turn every exception of a method into an answer, as TrueNAS does."""
    try:
        return call()
    except RpcError:
        raise
    except Exception as error:
        raise call_error("EINVAL", str(error) or repr(error), bare=True) from error


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
        self._state = state
        self._clock = clock
        self._faults = faults
        self._hostname = hostname
        saved = state.load_state()
        self.service = UpsService(release, runner, self._save_state, faults, clock)
        # Another release may have saved members that this one does not have.
        self.settings.update({name: value for name, value in saved.get("ups", {}).items() if name in self.settings})
        self.service.enabled = saved.get("enable", False)
        self.logins = Logins(release, accounts, self._save_state, faults)
        self.logins.revoked.update(saved.get("revoked_keys", []))
        self._jobs: list[MiddlewareJob] = []
        self._job_ids = itertools.count(1)
        self._calls: dict[tuple[str, str], tuple[float, int]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the UPS service."""
        return self.service.settings

    @property
    def enabled(self) -> bool:
        """Whether the UPS service starts at boot."""
        return self.service.enabled

    # --- frames ---

    def is_dropping_connections(self) -> bool:
        """Return whether a fault closes new connections at once."""
        return bool(self._drop_fault("connect") == "before")

    def _drop_fault(self, name: Any) -> Any:
        return self._faults().get("drop", {}).get(name)

    def receive_frame(self, connection: ClientConnection, frame: str) -> FrameOutcome:
        """Process a frame of a client. A request without an id is carried out, but gets no answer."""
        message_id = name = None
        wants_answer = True
        try:
            message = _parse_frame(frame)
            wants_answer = "id" in message
            message_id, name = message.get("id"), message.get("method")
            _check_request(message)
            if _as_rpc_error(lambda: self._drop_fault(name)) == "before":
                return FrameOutcome(None, fate=AnswerFate(drop=True))
            result = _as_rpc_error(lambda: self._call_method(connection, message))
        except RpcError as error:
            return self._make_outcome(name, _error_frame(message_id, error)) if wants_answer else FrameOutcome(None)
        if not wants_answer:
            return FrameOutcome(None, result if isinstance(result, MiddlewareJob) else None)
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
            if self._faults().get("job_hangs"):
                return None
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
            raise RpcError(NO_SUCH_METHOD, "Method does not exist")
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
        self._check_arity(name, method, params)
        if fault := self._faults().get("methods", {}).get(name):
            raise call_error(fault.get("errname", "EFAULT"), fault["reason"])
        if method.job:
            return self._new_job(connection, message.get("id"), name, params, method)
        return method.call(self, connection, params)

    def _available_methods(self) -> dict[str, _Method]:
        methods = dict(_METHODS)
        if self.release.ping_needs_login:
            methods["core.ping"] = _Method(_core_ping)
        if not self.release.service_control:
            del methods["service.control"]
        if not self.release.json_rpc:
            del methods["auth.login_ex"], methods["auth.login_ex_continue"], methods["auth.mechanism_choices"]
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

    def _check_arity(self, name: str, method: _Method, params: list[Any]) -> None:
        if name == "ups.update" and len(params) != 1:
            # A decorator of TrueNAS passes the arguments on unchecked.
            text = "missing 1 required positional argument: 'data'"
            if params:
                taken = self.release.update_arguments
                text = f"takes {taken} positional arguments but {taken + len(params) - 1} were given"
            raise call_error("EINVAL", f"ConfigService.update() {text}", bare=True)
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

    # --- the UPS service ---

    def _save_state(self) -> None:
        revoked = sorted(self.logins.revoked)
        self._state.save_state({"ups": self.settings, "enable": self.enabled, "revoked_keys": revoked})

    def list_services(self) -> list[dict[str, Any]]:
        """Return all services; the UPS service has its real state."""
        others = [{**service, "enable": False, "state": "STOPPED", "pids": []} for service in _OTHER_SERVICES]
        return [*others, self.service.list_entry()]

    def system_info(self) -> dict[str, Any]:
        """Return a few members of the real system.info."""
        return {"version": self.release.version, "hostname": self._hostname}


# --- the envelope ----------------------------------------------------------------------------------------------------


def _parse_frame(frame: str) -> dict[str, Any]:
    try:
        message = json.loads(frame)
    except ValueError as error:
        raise RpcError(INVALID_JSON, str(error)) from None
    if isinstance(message, list):
        raise RpcError(INVALID_JSON, "Batch messages are not supported at this time")
    if not isinstance(message, dict):
        raise RpcError(INVALID_JSON, "Invalid Message Format")
    return message


def _check_request(message: Mapping[str, Any]) -> None:
    """Raise RpcError for what is no request, in TrueNAS's order."""
    if "jsonrpc" not in message:
        raise RpcError(INVALID_REQUEST, "Missing 'jsonrpc' member")
    if message["jsonrpc"] != "2.0":
        raise RpcError(INVALID_REQUEST, "'jsonrpc' member must be of type string and must be exactly '2.0'")
    if not isinstance(message.get("id"), (str, int, type(None))):
        raise RpcError(INVALID_REQUEST, "'id' member must be of type null, string or number")
    if "method" not in message:
        raise RpcError(INVALID_REQUEST, "Missing 'method' member")
    if not isinstance(message["method"], str) or not message["method"]:
        raise RpcError(INVALID_REQUEST, "'method' member must be of type string")
    if not isinstance(message.get("params", []), list):
        raise RpcError(INVALID_REQUEST, "'params' member must be of type array")


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


_QUERY_OPTIONS: Mapping[str, type] = {
    "count": bool,
    "extra": dict,
    "force_sql_filters": bool,
    "get": bool,
    "limit": int,
    "offset": int,
    "order_by": list,
    "select": list,
}


def _filter_rows(rows: list[dict[str, Any]], params: list[Any]) -> Any:
    """Apply TrueNAS's query filters (all must hold) and options. Of select and order_by, only names of fields are played."""
    filters = params[0] if params else []
    options = params[1] if len(params) > 1 else {}
    if unknown := [name for name in options if name not in _QUERY_OPTIONS]:
        raise invalid_params([(f"options.{name}", "Extra inputs are not permitted") for name in unknown])
    for condition in filters:
        if not (isinstance(condition, list) and len(condition) == 3 and condition[1] in _OPERATORS):
            raise invalid_params([("filters", f"Invalid filter {condition!r}")])
        name, sign, wanted = condition
        rows = [row for row in rows if _OPERATORS[sign](row.get(name), wanted)]
    if options.get("count"):
        return len(rows)
    for name in reversed(options.get("order_by", [])):
        rows = sorted(rows, key=lambda row: row[name.lstrip("-")], reverse=name.startswith("-"))
    if names := options.get("select"):
        rows = [{name: row[name] for name in names if name in row} for row in rows]
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
    return describe_user(connection)


def _auth_mechanism_choices(middleware: Middleware, connection: ClientConnection, _unused: list[Any]) -> list[str]:
    return middleware.logins.list_mechanisms(connection)


def _auth_login_ex(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> dict[str, Any]:
    return middleware.logins.log_in_ex(connection, params[0])


def _auth_login(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> bool:
    name, password, token = (*params, None)[:3]
    return middleware.logins.log_in_with_password(connection, name, password, token)


def _auth_login_with_api_key(middleware: Middleware, connection: ClientConnection, params: list[Any]) -> bool:
    return middleware.logins.log_in_with_api_key(connection, params[0])


def _auth_logout(_unused: Middleware, connection: ClientConnection, __: list[Any]) -> bool:
    connection.user = connection.key = None
    return True


def _ups_config(middleware: Middleware, _unused: ClientConnection, __: list[Any]) -> dict[str, Any]:
    return ups.config_entry(middleware.settings)


def _ups_update(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> dict[str, Any]:
    return middleware.service.update_settings(params[0])


def _service_query(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> Any:
    return _filter_rows(middleware.list_services(), params)


def _service_update(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> int:
    service, values = params
    classic = middleware.release.classic_schema
    prefix = "service-update" if classic else "service_update"
    words = "Field was not expected" if classic else "Extra inputs are not permitted"
    complaints = [(f"{prefix}.{name}", words) for name in values if name != "enable"]
    enable = values.get("enable", False if classic else None)
    if "enable" not in values and not classic:
        complaints.insert(0, (f"{prefix}.enable", "Field required"))
    elif not isinstance(enable, bool):
        complaints.insert(0, (f"{prefix}.enable", "Not a boolean" if classic else "Input should be a valid boolean"))
    if complaints:
        raise invalid_params(complaints)
    if service not in ("ups", UPS_SERVICE_ID, str(UPS_SERVICE_ID)):
        raise call_error("ENOENT", f"Service {service} not found.")
    return middleware.service.set_enabled(enable)


def _service_control(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> bool:
    verb, service, options = (*params, {})[:3]
    return _control_service(middleware, str(verb).lower(), service, options)


def _service_verb(verb: str) -> Callable[[Middleware, ClientConnection, list[Any]], bool]:
    def call(middleware: Middleware, _unused: ClientConnection, params: list[Any]) -> bool:
        service, options = (*params, {})[:2]
        return _control_service(middleware, verb, service, options)

    return call


def _control_service(middleware: Middleware, verb: str, service: Any, options: Mapping[str, Any]) -> bool:
    if service != "ups":
        raise call_error("EINVAL", str(service), bare=True)  # MatchNotFound
    known = ("ha_propagate", "timeout", *(["silent"] if middleware.release.service_silent else []))
    if unknown := [name for name in options if name not in known]:
        if middleware.release.classic_schema:
            raise invalid_params([(f"service-control.{name}", "Field was not expected") for name in unknown])
        raise invalid_params([(f"options.{name}", "Extra inputs are not permitted") for name in unknown])
    silent = options.get("silent", True)
    if verb == "stop":
        return middleware.service.stop()
    if verb == "start":
        return middleware.service.start(silent=silent)
    if verb == "restart":
        return middleware.service.restart()
    if verb == "reload":
        return middleware.service.reload()
    raise invalid_params([("verb", "Input should be 'START', 'STOP', 'RESTART' or 'RELOAD'")])


def _private_verb(_unused: Middleware, __: ClientConnection, params: list[Any]) -> Any:
    """Fail like the private methods of release 26 when a client calls them without all options."""
    if len(params) < len(_PRIVATE_PARAMS):
        raise call_error("EINVAL", "missing 1 required positional argument: 'options'", bare=True)
    raise call_error("EINVAL", "'timeout'", bare=True)


def _system_version(middleware: Middleware, _unused: ClientConnection, __: list[Any]) -> str:
    return middleware.release.version


def _system_info(middleware: Middleware, _unused: ClientConnection, __: list[Any]) -> dict[str, Any]:
    return middleware.system_info()


_METHODS: Mapping[str, _Method] = {
    "core.ping": _Method(_core_ping, login=False),
    "core.set_options": _Method(_set_options, ("options",), login=False),
    "core.get_jobs": _Method(_get_jobs, ("filters?", "options?")),
    "auth.login_ex": _Method(_auth_login_ex, ("login_data",), login=False),
    "auth.login_ex_continue": _Method(_auth_login_ex, ("login_data",), login=False),
    "auth.mechanism_choices": _Method(_auth_mechanism_choices, login=False),
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
