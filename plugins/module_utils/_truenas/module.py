# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible module truenas_ups: check its parameters, connect, bring the UPS service to the wanted state, return the result."""

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

from . import apply, jsonrpc, midclt, ups
from .login import Credentials, log_in
from .middleware import (
    SHORT_SECRET,
    ConnectionFailed,
    LoginFailed,
    Middleware,
    NoJsonRpc,
    OptionError,
    Redirected,
    TimedMiddleware,
    TruenasError,
    cut_middle,
    mask_secrets,
    run_seconds,
)
from .stream import Deadline

LIBRARY = "websocket-client"
JSONRPC, MIDCLT, AUTO = "jsonrpc", "midclt", "auto"
DAY = 86400
# How many addresses of the other node of a pair to try.
MAX_NODES = 4
SECRET_OPTIONS = ("password", "api_key", "otp", *ups.SECRETS)

Connect = Callable[[jsonrpc.Endpoint, jsonrpc.ServerTrust, float], Middleware]
ConnectHere = Callable[[float], Middleware]
Dial = Callable[[jsonrpc.Endpoint], Middleware]
Warn = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class RemoteAccess:
    """The options of the connection over JSON-RPC."""

    endpoint: jsonrpc.Endpoint
    tls: jsonrpc.ServerTrust
    credentials: Credentials

    @property
    def is_verified(self) -> bool:
        """Return whether the other side's certificate is checked, so that it can only be TrueNAS."""
        return self.endpoint.secure and (self.tls.validate or self.tls.fingerprint is not None)


@dataclasses.dataclass(frozen=True)
class CheckedRequest:
    """The checked parameters."""

    remote: RemoteAccess | None  # None: use midclt
    or_here: bool  # whether midclt on this machine will do if there is no JSON-RPC
    timeout: float  # seconds
    wanted: ups.WantedSettings


@dataclasses.dataclass(frozen=True)
class Transports:
    """How this process reaches the world; tests replace it."""

    connect: Connect = jsonrpc.open_jsonrpc
    connect_here: ConnectHere = midclt.open_midclt
    is_here: Callable[[], bool] = lambda: midclt.find_midclt() is not None
    import_error: str | None = jsonrpc.IMPORT_ERROR  # the traceback if the library of `connect` is missing
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep  # between two looks at the service


@dataclasses.dataclass(frozen=True)
class OpenSession:
    """A connection that is logged in."""

    middleware: Middleware
    transport: str  # JSONRPC or MIDCLT
    host: str  # the other end


class LibraryMissingError(TruenasError):
    """The library of a transport is not installed. `Transports.import_error` has the traceback."""


# ---------------------------------------------------------------------------------------------------------------------
# Parameters


def read_params(params: Mapping[str, Any]) -> CheckedRequest:
    """Check all parameters before anything is sent. Raises OptionError, which names the option but never its value."""
    transport = params["transport"]
    if transport == JSONRPC and not params["url"]:
        raise OptionError("url: required for transport jsonrpc; write a name or an address. Nothing was sent.")
    over_net = transport != MIDCLT and bool(params["url"])
    endpoint = jsonrpc.parse_url(params["url"]) if over_net else None
    try:
        # first: another mistake must not hide that a key would be revoked
        remote = _read_remote(params, endpoint) if endpoint else None
        if not 1 <= params["timeout"] <= DAY:
            raise OptionError(f"timeout: must be from 1 to {DAY} seconds")
        present = params["state"] == "present"
        given = {name: params[name] for name in ups.SETTINGS if params[name] is not None}
        problems = ups.find_problems(given) if present else []
        if problems:
            raise OptionError("; ".join(problems))
    except OptionError as error:
        label = endpoint.label if endpoint else platform.node()
        raise OptionError(f"{label}: {error}. Nothing was sent.") from error
    return CheckedRequest(
        remote, transport == AUTO, float(params["timeout"]), ups.WantedSettings(present, given, params["restart"])
    )


def _read_remote(params: Mapping[str, Any], endpoint: jsonrpc.Endpoint) -> RemoteAccess:
    credentials = _read_credentials(params, endpoint)
    tls = jsonrpc.ServerTrust(
        validate=params["validate_certs"],
        ca_path=params["ca_path"] or None,
        fingerprint=jsonrpc.parse_fingerprint(params["fingerprint"]) if params["fingerprint"] else None,
    )
    if tls.fingerprint and not endpoint.secure:
        raise OptionError("fingerprint: needs TLS; write wss:// in url")
    return RemoteAccess(endpoint, tls, credentials)


def _read_credentials(params: Mapping[str, Any], endpoint: jsonrpc.Endpoint) -> Credentials:
    # an unset variable of the role is an empty string
    password, api_key = params["password"] or None, params["api_key"] or None
    if not params["username"]:
        raise OptionError("username: is not set; it is needed with an API key, too")
    if not params["username"].isprintable():
        raise OptionError("username: contains a control character, or bytes that are not UTF-8")
    if bool(password) == bool(api_key):
        raise OptionError(f"password and api_key: set one of them; {'both are' if password else 'neither is'} set")
    if api_key and not endpoint.secure:
        raise OptionError(
            "api_key: refused over plain http or ws, because TrueNAS revokes a key that is sent without TLS. "
            "Write wss:// in url"
        )
    # TrueNAS counts failed logins, so do not try a key or a password that can't be right.
    if api_key and not re.fullmatch(r"[0-9]+-[!-~]+", api_key):
        raise OptionError("api_key: is not a key as TrueNAS shows it: a number, a dash, letters and digits, one line")
    if password and re.search(r"[\r\n]", password):
        raise OptionError("password: contains a line break (from a file or a template?)")
    return Credentials(params["username"], password, api_key, params["otp"] or None)


# ---------------------------------------------------------------------------------------------------------------------
# Connections


@contextlib.contextmanager
def open_session(request: CheckedRequest, transports: Transports, warn: Warn) -> Iterator[OpenSession]:
    """Yield a connection that is logged in, and close it at the end. Raises TruenasError.

    There is one fallback: if the web server has no JSON-RPC API, and so no login was tried, use midclt on this machine.
    """
    deadline = Deadline(run_seconds(request.timeout), transports.clock)
    with contextlib.ExitStack() as opened:
        if request.remote is None:
            yield _open_midclt(request, transports, deadline, opened)
            return
        try:
            session = _log_in_over_network(
                request.remote, _make_dialer(request.remote, request, transports, deadline), opened, warn
            )
        except NoJsonRpc as error:
            if not request.or_here or not transports.is_here():
                raise
            warn(f"{str(error).rstrip('.')}. Continuing with midclt on this machine, {platform.node()}")
            session = _open_midclt(request, transports, deadline, opened)
        yield session


def _open_midclt(
    request: CheckedRequest, transports: Transports, deadline: Deadline, opened: contextlib.ExitStack
) -> OpenSession:
    middleware = opened.enter_context(
        contextlib.closing(TimedMiddleware(transports.connect_here(request.timeout), deadline))
    )
    return OpenSession(middleware, MIDCLT, middleware.host)


def _make_dialer(remote: RemoteAccess, request: CheckedRequest, transports: Transports, deadline: Deadline) -> Dial:
    """Return a function that connects to a node. Raises LibraryMissingError."""
    if transports.import_error is not None:
        raise LibraryMissingError(missing_required_lib(LIBRARY))
    return lambda endpoint: TimedMiddleware(transports.connect(endpoint, remote.tls, request.timeout), deadline)


def _log_in_over_network(remote: RemoteAccess, dial: Dial, opened: contextlib.ExitStack, warn: Warn) -> OpenSession:
    """Log in, once. A standby node of a pair accepts no logins; then log in to the other node, once."""
    risk = _describe_risk(remote)
    if risk:
        warn(f"{remote.endpoint.label}: {risk}")

    def open_node(endpoint: jsonrpc.Endpoint) -> OpenSession:
        with contextlib.ExitStack() as tried:
            middleware = tried.enter_context(contextlib.closing(dial(endpoint)))
            log_in(middleware, remote.credentials, is_verified=remote.is_verified)
            opened.push(tried.pop_all())
        return OpenSession(middleware, JSONRPC, endpoint.host)

    try:
        return open_node(remote.endpoint)
    except Redirected as error:
        others = _list_other_nodes(error.urls, remote.endpoint)
        if not others:
            raise
    # Some of these addresses may not be reachable from here. Trying one costs no login.
    while True:
        other = others.pop(0)
        try:
            session = open_node(other)
        except Redirected as error:
            raise LoginFailed(
                f"{remote.endpoint.label}: both nodes of the pair say that they are on standby; this one names {other.label}. "
                "If they are failing over, run again in a minute. Set url to the address that they share."
            ) from error
        except ConnectionFailed as error:
            if not others:
                # Never NoJsonRpc: there was a login, so do not fall back to midclt.
                raise ConnectionFailed(
                    f"{remote.endpoint.label}: this is the standby node of a pair, and the active node can't be used. {error}"
                ) from error
        else:
            warn(
                f"{remote.endpoint.label} is the standby node of a pair; continuing with {other.label}. "
                "Set url to the address that the pair shares"
            )
            return session


def _describe_risk(remote: RemoteAccess) -> str:
    """Return how an attacker on the network could learn the secrets; "" if that is impossible."""
    if not remote.endpoint.secure:
        return "the password and monpwd are sent unencrypted; write wss:// in url"
    if remote.is_verified:
        return ""
    unverified = "the certificate is not verified (validate_certs: false), so"
    if remote.credentials.api_key:
        return f"{unverified} only the login with the API key proves that this is TrueNAS; set fingerprint or ca_path instead"
    return (
        f"{unverified} anyone on the network path can pose as TrueNAS and learn the password and monpwd; "
        "set fingerprint or ca_path instead"
    )


def _list_other_nodes(urls: Iterable[str], first: jsonrpc.Endpoint) -> list[jsonrpc.Endpoint]:
    """Return the addresses to try next. From TLS only to TLS: TrueNAS revokes an unencrypted key, others can read a password.

    A standby node names bare addresses (failover.get_ips; tests/api2/test_auth_standby of truenas/middleware). The other
    node's web interface has the same port, because the two share all settings.
    """
    nodes: list[jsonrpc.Endpoint] = []
    for url in urls:
        with contextlib.suppress(ValueError):
            nodes.append(jsonrpc.Endpoint(first.secure, str(ipaddress.ip_address(url)), first.port))
            continue
        with contextlib.suppress(OptionError):
            nodes.append(jsonrpc.parse_url(url))
    others = [node for node in dict.fromkeys(nodes) if node != first and (node.secure or not first.secure)]
    return others[:MAX_NODES]


# ---------------------------------------------------------------------------------------------------------------------
# The module


def manage_service(
    middleware: Middleware,
    wanted: ups.WantedSettings,
    check_mode: bool,
    progress: ups.Progress,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Bring the UPS service to the wanted state over a logged-in connection. Return the result without `changed`.

    Fills `progress` on the way, so that it is right after an exception, too. In check mode calls only methods that read,
    and `progress` tells what a real run would do.
    """
    before = apply.read_settings(middleware)
    progress.secrets.extend(str(before[name]) for name in ups.SECRETS if before.get(name))
    service_before = apply.read_known_state(middleware, sleep)
    try:
        steps = ups.plan_steps(before, service_before, wanted)
    except OptionError as error:
        raise OptionError(f"{middleware.host}: {error}. Nothing was changed.") from error
    after, service_after = ups.predict_result(before, service_before, steps)
    if check_mode:
        progress.changed = bool(steps)
        progress.actions.extend(step.description for step in steps)
    elif steps or wanted.present:
        # with nothing to do, too: a service that keeps dying looks like one that runs
        applier = apply.Applier(middleware, progress, wanted, before, service_before, sleep)
        after, service_after = applier.take_steps(steps)
    version = _read_version(middleware)
    if wanted.present:
        _warn_of_graphs(middleware.host, version, after, progress)
    return {
        "version": version,
        "settings": ups.redact_settings(after),
        "service": service_after.as_result(),
        "diff": {
            "before": {"settings": ups.redact_settings(before), "service": service_before.as_result()},
            "after": {"settings": ups.redact_settings(after, before), "service": service_after.as_result()},
        },
    }


def _read_version(middleware: Middleware) -> str | None:
    """Return the release, which every logged-in user may read; None, rather than an error, if TrueNAS does not tell."""
    try:
        version = middleware.call("system.version")
    except TruenasError:
        return None
    return version if isinstance(version, str) else None


# The first release whose netdata reads the UPS of a secondary from its primary (netdata/go.d/upsd.conf.mako).
FIRST_GRAPHS = 26


def read_major_version(version: str | None) -> int | None:
    """Return the first number of a release such as TrueNAS-26.0.0-RC.1 or 26.04; None if there is none."""
    found = re.match(r"(?:TrueNAS-)?(?:SCALE-)?([0-9]{1,3})(?![0-9])", version or "", re.IGNORECASE)
    return int(found[1]) if found else None


def _warn_of_graphs(host: str, version: str | None, settings: Mapping[str, Any], progress: ups.Progress) -> None:
    """Warn of settings that TrueNAS itself spoils when it writes them down for its graphs."""
    names = ups.find_graph_problems(settings)
    if not names or (read_major_version(version) or 0) < FIRST_GRAPHS:
        return
    remedies = []
    if "remotehost" in names:
        remedies.append("a host name or an IPv4 address in remotehost")
    if names != ["remotehost"]:
        remedies.append("only letters, digits, '.', '_' and '-' in monuser and monpwd")
    broken = "the present value breaks" if len(names) == 1 else "the present values break"
    progress.warnings.append(
        f"{host}: TrueNAS {FIRST_GRAPHS} and newer write {' and '.join(names)} without quotes into a YAML file for their graphs, and "
        f"{broken} that file: TrueNAS shows no graphs of the UPS. Its shutdown is not affected. For the graphs, use "
        f"{', and '.join(remedies)}"
    )


def run_module(module: Any, transports: Transports | None = None) -> None:
    """Run the Ansible module: exits through its exit_json or fail_json. Tests pass their own transports."""
    transports = transports or Transports()
    progress = ups.Progress()
    secrets = [str(module.params[name]) for name in SECRET_OPTIONS if module.params[name]]
    key = (module.params["api_key"] or "").partition("-")[2]  # without its number
    secrets += [key] if len(key) >= SHORT_SECRET else []
    invocation = _without_short_secrets(module)
    try:
        request = read_params(module.params)
        with open_session(request, transports, module.warn) as session:
            result = manage_service(session.middleware, request.wanted, module.check_mode, progress, transports.sleep)
    except LibraryMissingError as error:
        module.fail_json(msg=str(error), exception=transports.import_error, invocation=invocation)
    except TruenasError as error:
        _warn_all(module, progress, secrets, _name_machines(module))
        done = f" Already done: {'; '.join(progress.actions)}." if progress.actions else ""
        module.fail_json(
            msg=cut_middle(mask_secrets(f"{error}{done}", secrets + progress.secrets, _name_machines(module))),
            changed=progress.changed,
            actions=progress.actions,
            invocation=invocation,
            **({"reason": "no_jsonrpc"} if isinstance(error, NoJsonRpc) else {}),
        )
    _warn_all(module, progress, secrets, [session.middleware.host])
    if not module._diff:
        del result["diff"]
    module.exit_json(
        changed=progress.changed,
        actions=progress.actions,
        transport=session.transport,
        host=session.host,
        invocation=invocation,
        **result,
    )


def _name_machines(module: Any) -> list[str]:
    """Return the names of machines at the beginning of a message, which stay readable even if they contain a short secret."""
    with contextlib.suppress(OptionError):
        endpoint = jsonrpc.parse_url(module.params["url"] or "")
        return [endpoint.label, platform.node()]
    return [platform.node()]


def _warn_all(module: Any, progress: ups.Progress, secrets: list[str], machines: list[str]) -> None:
    for text in progress.warnings:
        module.warn(cut_middle(mask_secrets(text, secrets + progress.secrets, machines)))


def _without_short_secrets(module: Any) -> dict[str, Any]:
    """Keep Ansible from masking short secrets in the result, and return an `invocation` with its secrets masked.

    Ansible masks a secret everywhere, even inside a word or a number: with the password "nas" the host becomes
    "true********.lan", which is useless to a play. The result contains no secrets anyway, and mask_secrets() masks
    messages.
    """
    module.no_log_values = {value for value in module.no_log_values if len(value) >= SHORT_SECRET}
    masked = {name: "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" for name in SECRET_OPTIONS if module.params[name]}
    try:
        jsonrpc.parse_url(module.params["url"] or "localhost")
    except OptionError:  # may contain a login or a token, which is refused and must not be shown
        masked["url"] = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    return {"module_args": {**module.params, **masked}}
