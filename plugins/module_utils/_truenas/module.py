# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the Ansible module's parameters to its result."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import missing_required_lib

from . import jsonrpc, ups
from .middleware import CallFailed, Credentials, Middleware, OptionError, TruenasError, login, scrub

LIBRARY = "websocket-client"
Connect = Callable[[jsonrpc.Endpoint, jsonrpc.Tls, float], Middleware]


@dataclasses.dataclass(frozen=True)
class Request:
    """The checked parameters."""

    endpoint: jsonrpc.Endpoint
    tls: jsonrpc.Tls
    timeout: float
    credentials: Credentials
    wanted: ups.Wanted


def read_params(params: Mapping[str, Any]) -> Request:
    """Check all parameters before anything is sent. Raises OptionError, which names the option and never its value."""
    endpoint = jsonrpc.parse_url(params["url"] or "")
    try:
        # first of all: a key that would be revoked must not hide behind another mistake
        credentials = _credentials(params, endpoint)
        tls = jsonrpc.Tls(
            validate=params["validate_certs"],
            ca_path=params["ca_path"] or None,
            fingerprint=jsonrpc.parse_fingerprint(params["fingerprint"]) if params["fingerprint"] else None,
        )
        if tls.fingerprint and not endpoint.secure:
            raise OptionError("fingerprint: there is no certificate without TLS; write wss:// in url")
        if params["timeout"] < 1:
            raise OptionError("timeout: must be at least 1 second")
        present = params["state"] == "present"
        given = {name: params[name] for name in ups.SETTINGS if params[name] is not None}
        found = ups.problems(given) if present else []
        if found:
            raise OptionError("; ".join(found))
    except OptionError as error:
        raise OptionError(f"{endpoint.label}: {error}. Nothing was sent.") from error
    return Request(endpoint, tls, float(params["timeout"]), credentials, ups.Wanted(present, given))


def _credentials(params: Mapping[str, Any], endpoint: jsonrpc.Endpoint) -> Credentials:
    """An empty string counts as not given: that is what an unset variable of a role looks like."""
    password, api_key = params["password"] or None, params["api_key"] or None
    if not params["username"]:
        raise OptionError("username: is empty; an API key too belongs to a user")
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


def manage(middleware: Middleware, wanted: ups.Wanted, check_mode: bool, progress: ups.Progress) -> dict[str, Any]:
    """Bring the UPS service of a logged-in connection to what is wanted. Returns the result without `changed`.

    `progress` is filled on the way, so that it tells the truth after an exception too. In check mode nothing is called
    but reading methods, and `progress` tells what would be done.
    """
    before = ups.read_settings(middleware)
    progress.secrets.extend(str(before[name]) for name in ups.SECRETS if before.get(name))
    service_before = ups.read_service(middleware)
    try:
        steps = ups.plan(before, service_before, wanted)
    except OptionError as error:
        raise OptionError(f"{middleware.host}: {error}. Nothing was changed.") from error
    after, service_after = ups.predict(before, service_before, steps)
    if check_mode:
        progress.changed = bool(steps)
        progress.actions.extend(step.words for step in steps)
    elif steps:
        ups.apply(middleware, steps, progress)
        after, service_after = ups.read_settings(middleware), ups.read_service(middleware)
    return {
        "settings": ups.redact(after),
        "service": dataclasses.asdict(service_after),
        "diff": {
            "before": {"settings": ups.redact(before), "service": dataclasses.asdict(service_before)},
            "after": {"settings": ups.redact(after, before), "service": dataclasses.asdict(service_after)},
        },
    }


def _version(middleware: Middleware) -> str | None:
    """The release, which every logged-in user may ask for. Not worth a failure."""
    try:
        version = middleware.call("system.version")
    except CallFailed:
        return None
    return version if isinstance(version, str) else None


def run(module: Any, connect: Connect = jsonrpc.connect, import_error: str | None = jsonrpc.IMPORT_ERROR) -> None:
    """Run the Ansible module: exits through its exit_json or fail_json."""
    if import_error is not None:
        module.fail_json(msg=missing_required_lib(LIBRARY), exception=import_error)
    progress = ups.Progress()
    secrets = [str(module.params[name]) for name in ("password", "api_key", "otp", *ups.SECRETS) if module.params[name]]
    try:
        request = read_params(module.params)
        if not request.endpoint.secure:
            module.warn(f"{request.endpoint.label}: the password and monpwd travel in clear; write wss:// in url")
        middleware = connect(request.endpoint, request.tls, request.timeout)
        with contextlib.closing(middleware):
            login(middleware, request.credentials)
            version = _version(middleware)
            result = manage(middleware, request.wanted, module.check_mode, progress)
    except TruenasError as error:
        done = f" Done before: {'; '.join(progress.actions)}." if progress.actions else ""
        module.fail_json(
            msg=scrub(f"{error}{done}", secrets + progress.secrets),
            changed=progress.changed,
            actions=progress.actions,
        )
    if not module._diff:
        del result["diff"]
    host = request.endpoint.host
    module.exit_json(changed=progress.changed, actions=progress.actions, host=host, version=version, **result)
