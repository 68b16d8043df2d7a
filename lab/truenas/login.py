# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The login: who gets which answer, per release. Source: plugins/auth.py and auth_/login_ex_impl.py of truenas/middleware."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .accounts import ROOT, Accounts, ApiKey, TrueNasUser
from .errors import call_error, invalid_params
from .releases import Release
from .scram import ClientFirst, ScramRefused, ScramServer, parse_client_first

_MECHANISMS = ("API_KEY_PLAIN", "PASSWORD_PLAIN", "TOKEN_PLAIN", "OTP_TOKEN")


@dataclass
class ClientConnection:
    """A connection by WebSocket or midclt."""

    remote: str
    secure: bool  # TLS, the loopback, or the socket for midclt
    tls: bool = False
    unix: bool = False
    api: str = "current"
    user: TrueNasUser | None = None
    key: ApiKey | None = None
    awaiting_otp: TrueNasUser | None = None
    scram: tuple[ScramServer, ApiKey] | None = None
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


class Logins:
    """The logins of all connections. `certificate_hash` is the tls-server-end-point of the certificate that clients see."""

    def __init__(
        self, release: Release, accounts: Accounts, save: Callable[[], None], faults: Callable[[], Mapping[str, Any]]
    ) -> None:
        self.release = release
        self.revoked: set[int] = set()
        self.certificate_hash: bytes | None = None
        self._accounts = accounts
        self._save = save
        self._faults = faults

    # --- methods ---

    def list_mechanisms(self, connection: ClientConnection) -> list[str]:
        """Return auth.mechanism_choices. Without a login, 25.04.2 to 25.10 fail with an error of Python's."""
        if connection.user is None and self.release.mechanism_choices_broken:
            raise call_error("EINVAL", "'NoneType' object has no attribute 'may_create_auth_token'", bare=True)
        if self._faults().get("stig"):
            return ["PASSWORD_PLAIN"]
        return ["API_KEY_PLAIN", "TOKEN_PLAIN", "PASSWORD_PLAIN", *(["SCRAM"] if self.release.scram else [])]

    def log_in_ex(self, connection: ClientConnection, data: Any) -> dict[str, Any]:
        """Answer auth.login_ex."""
        if fault := self._fixed_answer():
            return fault
        mechanism = self._check_login_data(data)
        awaiting, connection.awaiting_otp = connection.awaiting_otp, None
        if mechanism == "OTP_TOKEN" and awaiting is None:
            raise call_error("EINVAL", "OTP_TOKEN: no authentication in progress")
        if self._faults().get("stig") and mechanism not in ("PASSWORD_PLAIN", "OTP_TOKEN"):
            raise call_error("ENOTSUP", f"{mechanism}: mechanism is not supported at current authenticator level.")
        try:
            if mechanism == "SCRAM":
                return self._log_in_with_scram(connection, data["scram_type"], data["rfc_str"])
            if mechanism == "API_KEY_PLAIN":
                response = self._log_in_with_key(connection, data["api_key"], data["username"])
            elif mechanism == "OTP_TOKEN":
                right = awaiting is not None and data["otp_token"] == awaiting.otp_token
                response = self._admit(connection, awaiting if right else None)
            elif mechanism == "PASSWORD_PLAIN":
                user = self._find_user(data["username"], data["password"])
                if user and user.otp_token:
                    connection.awaiting_otp = user
                    return {"response_type": "OTP_REQUIRED", "username": user.name}
                response = self._admit(connection, None if self._faults().get("stig") else user)
            else:
                response = "AUTH_ERR"  # nobody has a token
        except KeyError as error:
            raise invalid_params([(f"login_data.{mechanism}.{error.args[0]}", "Field required")]) from None
        return self._make_answer(connection, response, data)

    def log_in_with_password(self, connection: ClientConnection, name: str, password: str, token: str | None) -> bool:
        """Answer auth.login."""
        user = self._find_user(name, password)
        return self._admit(connection, user if user and user.otp_token in (None, token) else None) == "SUCCESS"

    def log_in_with_api_key(self, connection: ClientConnection, secret: str) -> bool:
        """Answer auth.login_with_api_key."""
        return self._log_in_with_key(connection, secret) == "SUCCESS"

    # --- parts ---

    def _fixed_answer(self) -> dict[str, Any] | None:
        """Return the answer to every login if a fault sets it: a redirect of a standby node, or a given outcome."""
        faults = self._faults()
        if (urls := faults.get("standby")) is not None:
            return {"response_type": "REDIRECT", "urls": urls}
        return {"response_type": faults["login"]} if faults.get("login") else None

    def _check_login_data(self, data: Any) -> str:
        """Return the mechanism. Raise RpcError for one that this release does not have."""
        mechanism = data.get("mechanism")
        known = (*_MECHANISMS, *(["SCRAM"] if self.release.scram else []))
        if mechanism is None:
            raise invalid_params([("login_data", "Unable to extract tag using discriminator 'mechanism'")])
        if mechanism not in known:
            tags = ", ".join(repr(each) for each in known)
            message = f"Input tag {mechanism!r} found using 'mechanism' does not match any of the expected tags: {tags}"
            raise invalid_params([("login_data", message)])
        return str(mechanism)

    def _find_user(self, name: str, password: str) -> TrueNasUser | None:
        user = self._accounts.users.get(name)
        return user if user and user.password == password else None

    def _admit(self, connection: ClientConnection, user: TrueNasUser | None, key: ApiKey | None = None) -> str:
        """Log a user in, and return the response_type. None: there is no such user, or the secret is wrong."""
        if user is None:
            return "AUTH_ERR"
        if not user.roles:
            return "DENIED" if self.release.says_denied else "AUTH_ERR"
        connection.user, connection.key = user, key
        return "SUCCESS"

    def _log_in_with_key(self, connection: ClientConnection, secret: str, name: str | None = None) -> str:
        """Log in with an API key and return the response_type. A key that is sent over plain ws is revoked."""
        key = self._accounts.find_key(secret)
        if key is None or name not in (None, key.user):
            return "AUTH_ERR"
        if self._is_revoked(key):
            return "AUTH_ERR" if self.release.hides_revoked_keys else "EXPIRED"
        if key.id in self._faults().get("expired_keys", []):
            return "EXPIRED"
        if not connection.secure:
            self.revoked.add(key.id)
            self._save()
            return "EXPIRED"
        return self._admit(connection, self._accounts.users[key.user], key)

    def _is_revoked(self, key: ApiKey) -> bool:
        return key.id in self.revoked or key.id in self._faults().get("revoked_keys", [])

    def _log_in_with_scram(self, connection: ClientConnection, kind: str, text: str) -> dict[str, Any]:
        refused = {"response_type": "AUTH_ERR"}
        if kind == "CLIENT_FIRST_MESSAGE":
            try:
                first = parse_client_first(text)
            except ScramRefused:
                return refused
            key = self._find_scram_key(first)
            if key is None or (first.wants_binding and not connection.tls):
                return refused
            server = ScramServer(first, key.secret.partition("-")[2], self.certificate_hash)
            connection.scram = (server, key)
            return self._make_scram_answer("SERVER_FIRST_RESPONSE", server.challenge)
        if connection.scram is None:
            raise call_error("EFAULT", "SCRAM authentication is not in progress")
        (server, key), connection.scram = connection.scram, None
        try:
            proof = server.check_proof(text)
        except ScramRefused:
            return refused
        if self._admit(connection, self._accounts.users[key.user], key) != "SUCCESS":
            # the credentials of a user without a privilege are None, and TrueNAS reads their privilege
            raise call_error("EINVAL", "'NoneType' object is not subscriptable", bare=True)
        return self._make_scram_answer("SERVER_FINAL_RESPONSE", proof)

    def _find_scram_key(self, first: ClientFirst) -> ApiKey | None:
        """Return the key. A revoked or expired one is not in the kernel's keyring, so it is as unknown as a wrong one."""
        key = self._accounts.find_key_by_id(first.key_id)
        if key is None or key.user != first.name or self._is_revoked(key):
            return None
        return None if key.id in self._faults().get("expired_keys", []) else key

    @staticmethod
    def _make_scram_answer(kind: str, text: str) -> dict[str, Any]:
        return {"response_type": "SCRAM_RESPONSE", "scram_type": kind, "rfc_str": text, "user_info": None}

    def _make_answer(self, connection: ClientConnection, response: str, data: Any) -> dict[str, Any]:
        if response != "SUCCESS":
            return {"response_type": response}
        wanted = data.get("login_options", {}).get("user_info", True)
        return {
            "response_type": "SUCCESS",
            "user_info": describe_user(connection) if wanted else None,
            "authenticator": "LEVEL_1",
            **self.release.login_members,
        }


def describe_user(connection: ClientConnection) -> dict[str, Any]:
    """Return auth.me."""
    user = connection.user
    assert user  # noqa: S101 - the dispatcher has checked the login
    return {
        "pw_name": user.name,
        "source": "LOCAL",
        "local": True,
        "account_attributes": ["LOCAL", "API_KEY"] if connection.key else ["LOCAL"],
        "two_factor_config": {"secret_configured": user.otp_token is not None},
        "privilege": {"roles": {"$set": sorted(user.roles)}, "web_shell": False, "webui_access": True},
    }
