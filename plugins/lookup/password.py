# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup homelab.nut.password."""

from __future__ import annotations

DOCUMENTATION = r"""
name: password
short_description: The password with which a host's upsmon logs in
version_added: 0.1.0
description:
  - Returns the password that the inventory gives a host, or else one that is made once and kept in a file beside the inventory.
  - Refuses one that NUT or TrueNAS can't carry. C(upsmon) sends it as it is, so blank, C(#), C(=), backslash and a leading double quote
    break it.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _terms:
    description: Names of hosts of the inventory.
    type: list
    elements: str
    required: true
  user:
    description: A user of C(upsd) on these hosts, other than C(upsmon)'s own. Its password stands in C(USER@HOST).
    type: str
    default: ""
    version_added: 0.2.0
  given:
    description: The password that the inventory gives O(user), if it does. It is returned if it can be used.
    type: str
    default: ""
    version_added: 0.2.0
notes:
  - The inventory gives a secondary's password as C(nut_client_password), a primary's as C(nut_server_password).
  - A password of its own making stands in C(.homelab-nut/passwords/HOST) beside the inventory, mode 0600, in the variable
    C(nut_password_directory)'s directory if that is set. In check mode none is written.
  - C(.homelab-nut) and all directories in it are for their owner alone (0700), also if they were open to others before.
  - The directory's name begins with a dot because Ansible reads every other file in an inventory's directory as a part of the inventory,
    and would take each password for the name of a host.
seealso:
  - plugin: ansible.builtin.password
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Use the password of the host truenas
  ansible.builtin.set_fact:
    monitor_password: "{{ lookup('homelab.nut.password', 'truenas') }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: The passwords.
  type: list
  elements: str
"""

import contextlib
import secrets
import string
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ..module_utils._nut import inventory
from ..module_utils._nut.conf import grammar
from ..plugin_utils import kept

# In check mode no file is written. The same for all, as the files of a host must fit together.
TO_BE_MADE = "to-be-made"
# Letters and digits alone: every parser and the wire agree on them.
LENGTH = 24
CHARACTERS = string.ascii_letters + string.digits


def _require_usable(password: str, where: str) -> str:
    problem = grammar.find_password_problem(password)
    if problem:
        raise AnsibleError(f"{where} can't be used: the password {problem}")
    return password


def _make_password() -> str:
    return "".join(secrets.choice(CHARACTERS) for _place in range(LENGTH))


def _is_check_mode(variables: dict[str, Any]) -> bool:
    return bool(variables.get("ansible_check_mode"))


class LookupModule(LookupBase):
    """Ansible's door."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return a password for each host."""
        self.set_options(var_options=variables, direct=kwargs)
        user = self.get_option("user")
        try:
            if user:
                return [self._users(str(host), user, self.get_option("given"), variables or {}) for host in terms]
            return [self._password(str(host), variables or {}) for host in terms]
        except (OSError, ValueError) as error:
            raise AnsibleError(f"a password can't be read or kept: {error}") from error

    def _users(self, host: str, user: str, given: str, variables: dict[str, Any]) -> str:
        problem = grammar.find_user_problem(user)
        if not problem and not given and "/" in user:
            problem = "holds a slash, and its password's file is called like it: give it a password, or another name"
        if problem:
            raise AnsibleError(f"{host}: {user!r} can't be a user: the user name {problem}")
        if given:
            return _require_usable(given, f"{host}: what nut_server_users gives {user}")
        path = self._file(
            f"{user}@{host}", "a password in nut_server_users", variables["hostvars"][host], _is_check_mode(variables)
        )
        return _require_usable(self._own(path, variables), f"{host}: what {path} holds")

    def _password(self, host: str, variables: dict[str, Any]) -> str:
        own = variables["hostvars"][host]
        name = (
            "nut_server_password" if host in variables["groups"].get(inventory.PRIMARIES, ()) else "nut_client_password"
        )
        given = own.get(name)
        if given is not None and str(given):
            return _require_usable(str(given), f"{host}: {name}")
        path = self._file(host, name, own, _is_check_mode(variables))
        return _require_usable(self._own(path, variables), f"{host}: what {path} holds")

    def _file(self, host: str, name: str, own: Any, check: bool) -> Path:
        given, beside = own.get("nut_password_directory"), own.get("inventory_dir")
        if not given and not beside:
            raise AnsibleError(
                f"{host}: no directory beside the inventory can keep its password: set {name}, or nut_password_directory"
            )
        path = kept.file_in(Path(given) if given else Path(beside, inventory.SECRETS_FOLDER, "passwords"), host)
        # where 0.1.0 kept it, Ansible takes it for the name of a host
        old = Path(beside or "", "passwords", host)
        if given or path.exists() or not old.is_file():
            return path
        if check:
            return old
        kept.make_folder(path.parent)
        with contextlib.suppress(OSError):  # another fork was faster, or there is more in that directory
            old.rename(path)
            old.parent.rmdir()
        return path

    def _own(self, path: Path, variables: dict[str, Any]) -> str:
        if _is_check_mode(variables):
            return (path.read_text("utf-8", "replace").rstrip() if path.exists() else "") or TO_BE_MADE
        with kept.hold_folder(path.parent):
            return kept.make_once(path, _make_password)
