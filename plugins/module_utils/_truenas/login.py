# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The login to TrueNAS over the network, once a run: auth.login_ex, which every release with JSON-RPC has.

A refused login is a normal result; its response_type is the outcome. From 26 on an API key is never sent: both sides prove
with SCRAM that they know it. Releases before that only take the key itself, so it is sent only to a verified certificate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from .._nut.base.text import as_text
from .middleware import ALL_ROLES, CallFailed, LoginFailed, Middleware, Redirected
from .scram import ScramClient, ScramError, bind_to_certificate

PASSWORD, API_KEY = "password", "API key"
_OPTIONS = {"login_options": {"user_info": False}}
_COUNTED = "TrueNAS counts failed logins, so correct this before you run again."
_PRIVILEGE = f"Give the user's group a privilege with the roles {ALL_ROLES}."
_STIG = (
    "this TrueNAS accepts no API keys, because it requires two-factor authentication (STIG mode). "
    "Set password and otp, for a user with two-factor authentication."
)


@dataclasses.dataclass(frozen=True)
class Credentials:
    """The login. Exactly one of password and api_key is set."""

    username: str
    password: str | None = None
    api_key: str | None = None
    otp: str | None = None

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"  # keeps secrets out of tracebacks


def log_in(middleware: Middleware, credentials: Credentials, *, is_verified: bool) -> None:
    """Log in, once. Raises LoginFailed with the reason and the remedy, and Redirected for a standby node.

    `is_verified`: the other side's certificate was verified, so it is TrueNAS.
    """
    try:
        if credentials.api_key:
            _log_in_with_key(middleware, credentials.username, credentials.api_key, is_verified)
        else:
            _log_in_with_password(middleware, credentials)
    except CallFailed as error:
        if _is_stig_refusal(error):
            raise LoginFailed(f"{middleware.host}: {_STIG}") from error
        raise LoginFailed(str(error)) from error


def _is_stig_refusal(error: CallFailed) -> bool:
    return error.errname in ("ENOTSUP", "EOPNOTSUPP") or "current authenticator level" in error.reason


# ---------------------------------------------------------------------------------------------------------------------
# Passwords


def _log_in_with_password(middleware: Middleware, credentials: Credentials) -> None:
    secret = {"mechanism": "PASSWORD_PLAIN", "username": credentials.username, "password": credentials.password}
    answer = middleware.call("auth.login_ex", {**secret, **_OPTIONS})
    code_sent = _login_outcome(answer) == "OTP_REQUIRED" and bool(credentials.otp)
    if code_sent:
        token = {"mechanism": "OTP_TOKEN", "otp_token": credentials.otp}
        answer = middleware.call("auth.login_ex_continue", {**token, **_OPTIONS})
    if _login_outcome(answer) != "SUCCESS":
        raise _make_refusal(middleware, answer, credentials.username, PASSWORD, code_sent=code_sent)


# ---------------------------------------------------------------------------------------------------------------------
# API keys


def _log_in_with_key(middleware: Middleware, username: str, key: str, is_verified: bool) -> None:
    choices = _read_mechanisms(middleware)
    if "SCRAM" in choices:
        _log_in_with_scram(middleware, username, key, is_verified)
        return
    if choices and "API_KEY_PLAIN" not in choices:
        raise LoginFailed(f"{middleware.host}: {_STIG}")
    if not is_verified:
        raise LoginFailed(
            f"{middleware.host}: the API key was not sent. The certificate is not verified (validate_certs: false), and the "
            "login that keeps the key secret (SCRAM, from TrueNAS 26 on) is not offered, so a machine that poses as TrueNAS "
            "would learn the key. Set fingerprint or ca_path."
        )
    secret = {"mechanism": "API_KEY_PLAIN", "username": username, "api_key": key}
    answer = middleware.call("auth.login_ex", {**secret, **_OPTIONS})
    if _login_outcome(answer) != "SUCCESS":
        raise _make_refusal(middleware, answer, username, API_KEY)


def _read_mechanisms(middleware: Middleware) -> list[str]:
    """Return the mechanisms that TrueNAS offers; none if it does not tell.

    Before a login, 25.04.2 to 25.10 fail here with an error of Python's (fixed in 26). None of them has SCRAM.
    """
    try:
        answer = middleware.call("auth.mechanism_choices")
    except CallFailed as error:
        if error.errname == "EBUSY":
            raise
        return []
    return [each for each in answer if isinstance(each, str)] if isinstance(answer, list) else []


def _log_in_with_scram(middleware: Middleware, username: str, key: str, is_verified: bool) -> None:
    """Prove to TrueNAS that the key is known, and have it prove the same."""
    number, _dash, secret = key.partition("-")
    binding = bind_to_certificate(middleware.certificate)
    if binding is None and not is_verified:
        # a machine in between may choose such a certificate to pass the messages on, and to take over the session
        raise LoginFailed(
            f"{middleware.host}: the API key was not used. The certificate is not verified (validate_certs: false), and the "
            "login can't be bound to it because of its signature (such as Ed25519), so a machine in between could take "
            "over the login. Set fingerprint or ca_path."
        )
    client = ScramClient(f"{username}:{number}", secret, binding)
    try:
        challenge = _exchange_scram(middleware, username, "CLIENT_FIRST_MESSAGE", client.first_message())
        proof = client.final_message(challenge)
        try:
            answer = _exchange_scram(middleware, username, "CLIENT_FINAL_MESSAGE", proof)
        except CallFailed as error:
            if "NoneType" not in error.reason:
                raise
            # 26 has no answer for a right key of a user without a privilege, and dies of it
            raise LoginFailed(f"{middleware.host}: {_explain_missing_privilege(username)}") from error
        client.check_server(answer)
    except ScramError as error:
        raise LoginFailed(
            f"{middleware.host}: this machine {error}, so it may not be TrueNAS. The API key was not sent. Check url and the "
            "certificate."
        ) from error


def _exchange_scram(middleware: Middleware, username: str, kind: str, text: str) -> str:
    """Send a message of SCRAM and return the text of the answer. Raises LoginFailed for any other answer, also for SUCCESS."""
    answer = middleware.call("auth.login_ex", {"mechanism": "SCRAM", "scram_type": kind, "rfc_str": text})
    if _login_outcome(answer) == "SCRAM_RESPONSE":
        return as_text(answer.get("rfc_str") or "")
    raise _make_refusal(middleware, answer, username, API_KEY, scram=True)


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


def _login_outcome(answer: Any) -> str:
    return str(answer.get("response_type", "")) if isinstance(answer, dict) else ""


def _named_urls(answer: Any) -> list[str]:
    urls = answer.get("urls")
    return [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []


def _make_refusal(
    middleware: Middleware, answer: Any, user: str, kind: str, *, code_sent: bool = False, scram: bool = False
) -> LoginFailed:
    """Return the exception for an answer that is no success. Names the user, never the secret."""
    outcome = _login_outcome(answer)
    if outcome == "REDIRECT":
        others = ", ".join(_named_urls(answer)) or "TrueNAS does not say which"
        text = (
            f"{middleware.host}: this is the standby node of a pair and accepts no logins. Set url to the active node: "
            f"{others}."
        )
        # a one-time code is used up, so no second login
        return LoginFailed(text) if code_sent else Redirected(text, _named_urls(answer))
    if code_sent and outcome in ("OTP_REQUIRED", "AUTH_ERR"):
        text = (
            f"the one-time code in otp was not accepted for user {user!r}. A code is valid for about 30 seconds and works "
            f"once. {_COUNTED}"
        )
    else:
        text = _explain_refusal(outcome, user, kind, scram)
    return LoginFailed(f"{middleware.host}: {text}")


def _explain_refusal(outcome: str, user: str, kind: str, scram: bool) -> str:
    """Return why a login failed and what to do."""
    if outcome == "AUTH_ERR":
        # Releases differ in what they hide behind this answer, so all of it is named.
        causes = _KEY_CAUSES if kind == API_KEY else _PASSWORD_CAUSES
        between = (
            " If another server with a certificate of its own stands before TrueNAS, set url to TrueNAS itself."
            if scram
            else ""
        )
        return f"login refused: wrong {kind} for user {user!r}, {causes}{between} {_COUNTED}"
    if outcome == "EXPIRED" and kind == API_KEY:
        return (
            f"the API key of user {user!r} is revoked or expired. TrueNAS revokes a key that is sent over plain http. "
            "Create a new one (user menu > My API Keys) and use it over https only."
        )
    return {
        "EXPIRED": f"the password of user {user!r} has expired. Set a new one in TrueNAS, or use an API key.",
        "OTP_REQUIRED": (
            f"user {user!r} needs a one-time code (two-factor authentication). Set otp, or use api_key, "
            "which needs no code."
        ),
        "DENIED": _explain_missing_privilege(user),
        "SUCCESS": (
            "this machine accepts the login without a proof that it knows the API key, so it may not be TrueNAS. "
            "The API key was not sent. Check url and the certificate."
        ),
    }.get(
        outcome,
        f"the login of user {user!r} had an unknown outcome ({outcome[:40]!a}). Check that this TrueNAS release is supported.",
    )


_KEY_CAUSES = (
    "or the key is revoked or expired (it is revoked when any program sends it over plain http), or the user does not exist, is "
    "locked, or is in no group with a privilege. An API key works only with the name of the user it was created for. "
    f"Compare the name and the key, or create a new key (user menu > My API Keys). {_PRIVILEGE}"
)
_PASSWORD_CAUSES = (
    "or the user does not exist, is locked, or is in no group with a privilege. In STIG mode, TrueNAS also refuses users without "
    f"two-factor authentication like this. Compare the name and the password. {_PRIVILEGE}"
)


def _explain_missing_privilege(user: str) -> str:
    return f"user {user!r} may not use the API. {_PRIVILEGE}"
