# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The users and API keys of the stand-in, and their roles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FULL_ADMIN = "FULL_ADMIN"

#: A role -> the roles that it brings along. SERVICE_WRITE does not bring SERVICE_READ: so it is in TrueNAS.
_INCLUDED = {
    "READONLY_ADMIN": ("SYSTEM_GENERAL_READ", "SERVICE_READ"),
    "SYSTEM_GENERAL_WRITE": ("SYSTEM_GENERAL_READ",),
}


@dataclass(frozen=True)
class TrueNasUser:
    """A user. With `otp_token`, a password login needs that token too (a real one would change every 30 s).

    A user without roles is in no group with a privilege, and may not log in.
    """

    name: str
    password: str
    roles: frozenset[str]
    otp_token: str | None = None

    def has_role(self, role: str | None) -> bool:
        """Return whether this user has a role. None means that no role is needed."""
        if role is None or FULL_ADMIN in self.roles:
            return True
        return role in self.roles or any(role in _INCLUDED.get(own, ()) for own in self.roles)


#: Who midclt is on the machine itself. There is no password to it.
ROOT = TrueNasUser("root", "", frozenset({FULL_ADMIN}))


@dataclass(frozen=True)
class ApiKey:
    """An API key of a user; `secret` is the whole key, `ID-64 characters`."""

    id: int
    name: str
    user: str
    secret: str


@dataclass(frozen=True)
class Accounts:
    """All users and keys."""

    users: Mapping[str, TrueNasUser]
    keys: tuple[ApiKey, ...]

    def find_key(self, secret: str) -> ApiKey | None:
        """Return the key with this secret, or None."""
        return next((key for key in self.keys if key.secret == secret), None)

    def find_key_by_id(self, number: int) -> ApiKey | None:
        """Return the key with this id, or None."""
        return next((key for key in self.keys if key.id == number), None)


def parse_accounts(users: Mapping[str, Mapping[str, Any]], keys: Iterable[Mapping[str, Any]]) -> Accounts:
    """Return the accounts in the configuration file's `users` and `api_keys`. Raise ValueError if they are inconsistent."""
    parsed_users = {
        name: TrueNasUser(name, user["password"], frozenset(user.get("roles", [FULL_ADMIN])), user.get("otp_token"))
        for name, user in users.items()
    }
    parsed_keys = []
    for key in keys:
        if key["username"] not in parsed_users:
            raise ValueError(f"api_keys: key {key['id']} belongs to {key['username']!r}, who is not in users")
        if not str(key["key"]).startswith(f"{key['id']}-"):
            raise ValueError(f"api_keys: key {key['id']} must read {key['id']}-...")
        parsed_keys.append(ApiKey(key["id"], key.get("name", "lab"), key["username"], key["key"]))
    return Accounts(parsed_users, tuple(parsed_keys))


#: For the lab only: these open nothing but a throw-away container, and everybody may know them.
LAB_USERS: Mapping[str, Mapping[str, Any]] = {"admin": {"password": "lab-admin", "roles": [FULL_ADMIN]}}
LAB_API_KEYS: tuple[Mapping[str, Any], ...] = (
    {"id": 1, "name": "lab", "username": "admin", "key": "1-" + "LabOnly0" * 8},
)
