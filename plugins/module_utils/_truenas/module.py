# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the Ansible module's parameters to its result."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from . import jsonrpc, midclt, ups
from .middleware import (
    SHORT_SECRET,
    ConnectionFailed,
    Credentials,
    LoginFailed,
    Middleware,
    NoJsonRpc,
    OptionError,
    Redirected,
    TimedMiddleware,
    TruenasError,
    log_in,
    mask_secrets,
    run_seconds,
)
from .stream import Deadline

LIBRARY = "websocket-client"
JSONRPC, MIDCLT, AUTO = "jsonrpc", "midclt", "auto"
DAY = 86400
# So many other nodes are tried. A pair has one, by some addresses.
MAX_NODES = 4
SECRET_OPTIONS = ("password", "api_key", "otp", *ups.SECRETS)

Connect = Callable[[jsonrpc.Endpoint, jsonrpc.ServerTrust, float], Middleware]
ConnectHere = Callable[[float], Middleware]
Dial = Callable[[jsonrpc.Endpoint], Middleware]
Warn = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class RemoteAccess:
    """What JSON-RPC needs to know."""

    endpoint: jsonrpc.Endpoint
    tls: jsonrpc.ServerTrust
    credentials: Credentials


@dataclasses.dataclass(frozen=True)
class CheckedRequest:
    """The checked parameters. `remote` is None for midclt; `or_here`: if there is no JSON-RPC, midclt will do."""

    remote: RemoteAccess | None
    or_here: bool
    timeout: float
    wanted: ups.WantedSettings


@dataclasses.dataclass(frozen=True)
class Transports:
    """What reaches out of this process. `import_error` is the traceback if the library of `connect` is missing."""

    connect: Connect = jsonrpc.open_jsonrpc
    connect_here: ConnectHere = midclt.open_midclt
    is_here: Callable[[], bool] = lambda: midclt.find_midclt() is not None
    import_error: str | None = jsonrpc.IMPORT_ERROR
    clock: Callable[[], float] = time.monotonic


@dataclasses.dataclass(frozen=True)
class OpenSession:
    """A connection that is let in, how it came about, and the host that it leads to."""

    middleware: Middleware
    transport: str
    host: str


class LibraryMissingError(TruenasError):
    """The library of a transport is not installed. The cause is in `Doors.import_error`."""


# ---------------------------------------------------------------------------------------------------------------------
# Parameters


def read_params(params: Mapping[str, Any]) -> CheckedRequest:
    """Check all parameters before anything is sent. Raises OptionError, which names the option and never its value."""
    transport = params["transport"]
    if transport == JSONRPC and not params["url"]:
        raise OptionError("url: needed for transport jsonrpc; write a name or an address. Nothing was sent.")
    over_net = transport != MIDCLT and bool(params["url"])
    endpoint = jsonrpc.parse_url(params["url"]) if over_net else None
    try:
        # first of all: a key that would be revoked must not hide behind another mistake
        remote = _read_remote(params, endpoint) if endpoint else None
        if not 1 <= params["timeout"] <= DAY:
            raise OptionError(f"timeout: must be from 1 to {DAY} seconds")
        present = params["state"] == "present"
        given = {name: params[name] for name in ups.SETTINGS if params[name] is not None}
        found = ups.find_problems(given) if present else []
        if found:
            raise OptionError("; ".join(found))
    except OptionError as error:
        label = endpoint.label if endpoint else platform.node()
        raise OptionError(f"{label}: {error}. Nothing was sent.") from error
    return CheckedRequest(remote, transport == AUTO, float(params["timeout"]), ups.WantedSettings(present, given))


def _read_remote(params: Mapping[str, Any], endpoint: jsonrpc.Endpoint) -> RemoteAccess:
    credentials = _read_credentials(params, endpoint)
    tls = jsonrpc.ServerTrust(
        validate=params["validate_certs"],
        ca_path=params["ca_path"] or None,
        fingerprint=jsonrpc.parse_fingerprint(params["fingerprint"]) if params["fingerprint"] else None,
    )
    if tls.fingerprint and not endpoint.secure:
        raise OptionError("fingerprint: there is no certificate without TLS; write wss:// in url")
    return RemoteAccess(endpoint, tls, credentials)


def _read_credentials(params: Mapping[str, Any], endpoint: jsonrpc.Endpoint) -> Credentials:
    """An empty string counts as not given: that is what an unset variable of a role looks like."""
    password, api_key = params["password"] or None, params["api_key"] or None
    if not params["username"]:
        raise OptionError("username: is not given; an API key too belongs to a user")
    if bool(password) == bool(api_key):
        raise OptionError(f"password and api_key: give one of them; {'both' if password else 'none'} given")
    if api_key and not endpoint.secure:
        raise OptionError(
            "api_key: refused over plain http or ws. TrueNAS revokes a key at once that comes without TLS. "
            "Write wss:// in url"
        )
    # A failed login counts on TrueNAS, so what cannot be right is not even tried.
    if api_key and not re.fullmatch(r"[0-9]+-[!-~]+", api_key):
        raise OptionError("api_key: is not a key as TrueNAS shows it: a number, a dash, letters and digits, one line")
    if password and re.search(r"[\r\n]", password):
        raise OptionError("password: holds a line break (from a file or a template?)")
    return Credentials(params["username"], password, api_key, params["otp"] or None)


# ---------------------------------------------------------------------------------------------------------------------
# The way in


@contextlib.contextmanager
def open_session(request: CheckedRequest, transports: Transports, warn: Warn) -> Iterator[OpenSession]:
    """A connection that is let in, closed at the end. Raises TruenasError.

    There is one way round: where the web server has no JSON-RPC API, and no login was tried, midclt on this machine.
    """
    deadline = Deadline(run_seconds(request.timeout), transports.clock)
    with contextlib.ExitStack() as opened:
        if request.remote is None:
            yield _open_midclt(request, transports, deadline, opened)
            return
        try:
            entered = _log_in_over_network(
                request.remote, _make_dialer(request.remote, request, transports, deadline), opened, warn
            )
        except NoJsonRpc as error:
            if not request.or_here or not transports.is_here():
                raise
            warn(f"{str(error).rstrip('.')}. Going on with midclt on this machine, {platform.node()}")
            entered = _open_midclt(request, transports, deadline, opened)
        yield entered


def _open_midclt(
    request: CheckedRequest, transports: Transports, deadline: Deadline, opened: contextlib.ExitStack
) -> OpenSession:
    middleware = opened.enter_context(
        contextlib.closing(TimedMiddleware(transports.connect_here(request.timeout), deadline))
    )
    return OpenSession(middleware, MIDCLT, middleware.host)


def _make_dialer(remote: RemoteAccess, request: CheckedRequest, transports: Transports, deadline: Deadline) -> Dial:
    """Return what connects to a node."""
    if transports.import_error is not None:
        raise LibraryMissingError(missing_required_lib(LIBRARY))
    return lambda endpoint: TimedMiddleware(transports.connect(endpoint, remote.tls, request.timeout), deadline)


def _log_in_over_network(remote: RemoteAccess, dial: Dial, opened: contextlib.ExitStack, warn: Warn) -> OpenSession:
    """Log in, once; where that is the standby node of a pair, which lets nobody in, on the other node, once."""
    risk = _describe_risk(remote)
    if risk:
        warn(f"{remote.endpoint.label}: {risk}")

    def enter(endpoint: jsonrpc.Endpoint) -> OpenSession:
        with contextlib.ExitStack() as tried:
            middleware = tried.enter_context(contextlib.closing(dial(endpoint)))
            log_in(middleware, remote.credentials)
            opened.push(tried.pop_all())
        return OpenSession(middleware, JSONRPC, endpoint.host)

    try:
        return enter(remote.endpoint)
    except Redirected as error:
        others = _other_nodes(error.urls, remote.endpoint)
        if not others:
            raise
    # Not each of them need be within reach from here. An address that does not answer costs no login.
    while True:
        other = others.pop(0)
        try:
            entered = enter(other)
        except Redirected as error:
            raise LoginFailed(
                f"{remote.endpoint.label}: this is a standby node, and so is {other.label}, to which it leads. Is the "
                "pair changing over? Look at the two in a minute; set url to the address that they share."
            ) from error
        except ConnectionFailed as error:
            if not others:
                # Never NoJsonRpc: there was a login, so nothing else is tried.
                raise ConnectionFailed(
                    f"{remote.endpoint.label}: this is the standby node of a pair; the other one cannot be used. {error}"
                ) from error
        else:
            warn(
                f"{remote.endpoint.label} is the standby node of a pair; went on to {other.label}. "
                "Set url to the address that the pair shares"
            )
            return entered


def _describe_risk(remote: RemoteAccess) -> str:
    """Return how somebody between here and TrueNAS can learn the secrets; "" if nobody can."""
    if not remote.endpoint.secure:
        return "the password and monpwd travel in clear; write wss:// in url"
    if remote.tls.validate or remote.tls.fingerprint:
        return ""
    kind = "API key" if remote.credentials.api_key else "password"
    return (
        f"its certificate is not checked (validate_certs: false), so anyone on the way can pose as it and learn the"
        f" {kind} and monpwd; set fingerprint or ca_path instead"
    )


def _other_nodes(urls: Iterable[str], first: jsonrpc.Endpoint) -> list[jsonrpc.Endpoint]:
    """The addresses to go on to. From TLS only to TLS: a key in clear is revoked, a password in clear is read.

    What a standby node names are bare addresses (failover.get_ips; tests/api2/test_auth_standby of
    truenas/middleware). Its web interface has the same port, as all settings are the pair's.
    """
    found: list[jsonrpc.Endpoint] = []
    for url in urls:
        with contextlib.suppress(ValueError):
            found.append(jsonrpc.Endpoint(first.secure, str(ipaddress.ip_address(url)), first.port))
            continue
        with contextlib.suppress(OptionError):
            found.append(jsonrpc.parse_url(url))
    others = [one for one in dict.fromkeys(found) if one != first and (one.secure or not first.secure)]
    return others[:MAX_NODES]


# ---------------------------------------------------------------------------------------------------------------------
# The work


def manage_service(
    middleware: Middleware, wanted: ups.WantedSettings, check_mode: bool, progress: ups.Progress
) -> dict[str, Any]:
    """Bring the UPS service of a logged-in connection to what is wanted. Returns the result without `changed`.

    `progress` is filled on the way, so that it tells the truth after an exception too. In check mode nothing is called
    but reading methods, and `progress` tells what would be done.
    """
    before = ups.read_settings(middleware)
    progress.secrets.extend(str(before[name]) for name in ups.SECRETS if before.get(name))
    service_before = ups.read_service(middleware)
    try:
        steps = ups.plan_steps(before, service_before, wanted)
    except OptionError as error:
        raise OptionError(f"{middleware.host}: {error}. Nothing was changed.") from error
    after, service_after = ups.predict_result(before, service_before, steps)
    if check_mode:
        progress.changed = bool(steps)
        progress.actions.extend(step.description for step in steps)
    elif steps:
        ups.apply_steps(middleware, steps, progress)
        after, service_after = ups.read_settings(middleware), ups.read_service(middleware)
    return {
        "settings": ups.redact_settings(after),
        "service": dataclasses.asdict(service_after),
        "diff": {
            "before": {"settings": ups.redact_settings(before), "service": dataclasses.asdict(service_before)},
            "after": {"settings": ups.redact_settings(after, before), "service": dataclasses.asdict(service_after)},
        },
    }


def _read_version(middleware: Middleware) -> str | None:
    """The release, which every logged-in user may ask for. Not worth a failure."""
    try:
        version = middleware.call("system.version")
    except TruenasError:
        return None
    return version if isinstance(version, str) else None


def run_module(module: Any, transports: Transports | None = None) -> None:
    """Run the Ansible module: exits through its exit_json or fail_json. A test gives its own transports."""
    transports = transports or Transports()
    progress = ups.Progress()
    secrets = [str(module.params[name]) for name in SECRET_OPTIONS if module.params[name]]
    invocation = _without_short_secrets(module)
    try:
        request = read_params(module.params)
        with open_session(request, transports, module.warn) as entered:
            result = manage_service(entered.middleware, request.wanted, module.check_mode, progress)
            version = _read_version(entered.middleware)
    except LibraryMissingError as error:
        module.fail_json(msg=str(error), exception=transports.import_error, invocation=invocation)
    except TruenasError as error:
        done = f" Done before: {'; '.join(progress.actions)}." if progress.actions else ""
        module.fail_json(
            msg=mask_secrets(f"{error}{done}", secrets + progress.secrets),
            changed=progress.changed,
            actions=progress.actions,
            invocation=invocation,
            **({"reason": "no_jsonrpc"} if isinstance(error, NoJsonRpc) else {}),
        )
    if not module._diff:
        del result["diff"]
    module.exit_json(
        changed=progress.changed,
        actions=progress.actions,
        transport=entered.transport,
        host=entered.host,
        version=version,
        invocation=invocation,
        **result,
    )


def _without_short_secrets(module: Any) -> dict[str, Any]:
    """Keep Ansible from masking short secrets in the result, and return the `invocation` for it, masked here.

    Ansible masks each secret wherever its letters stand, also inside a word or a number: with the password "nas" the
    host is "true********.lan", and what a play does with it is wrong. Nothing that is returned holds a secret anyway,
    and a message is masked by `scrub`.
    """
    module.no_log_values = {value for value in module.no_log_values if len(value) >= SHORT_SECRET}
    masked = {name: "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" for name in SECRET_OPTIONS if module.params[name]}
    if "@" in (module.params["url"] or "") or "?" in (module.params["url"] or ""):
        masked["url"] = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"  # a login in it is refused, and must not be shown either
    return {"module_args": {**module.params, **masked}}
