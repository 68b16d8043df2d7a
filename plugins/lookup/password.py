# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup homelab.nut.password."""

from __future__ import annotations

DOCUMENTATION = r"""
name: password
short_description: Get the password that a host's upsmon logs in with
version_added: 0.1.0
description:
  - Returns the password that the inventory provides for a host. If there is none, generates one, and keeps it in a file beside the
    inventory.
  - Fails for a password that NUT or TrueNAS would corrupt. C(upsmon) sends passwords without quoting, so they must not contain blanks,
    C(#), C(=) or backslashes, nor begin with a double quote.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _terms:
    description: Names of hosts in the inventory.
    type: list
    elements: str
    required: true
  user:
    description: A user of C(upsd) on these hosts, other than that of C(upsmon). The password is kept in the file C(USER@HOST).
    type: str
    default: ""
    version_added: 0.2.0
  given:
    description: The password that the inventory provides for O(user), if any. It is checked and returned.
    type: str
    default: ""
    version_added: 0.2.0
notes:
  - The inventory provides the password of a secondary as C(nut_client_password), and that of a primary as C(nut_server_password).
  - A generated password is kept in C(.homelab-nut/passwords/HOST) beside the inventory, or in the directory
    C(nut_password_directory), with mode 0600. In check mode nothing is written, and a password that is not kept is V(to-be-made).
  - The roles make passwords only after they have seen that the host was not deployed with others.
  - C(.homelab-nut) and all directories in it are set to mode 0700, even if they exist.
  - The directory's name begins with a dot, because Ansible reads all other files in an inventory directory as inventory, and would take
    each password for the name of a host.
seealso:
  - plugin: ansible.builtin.password
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Get the password of the host truenas
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

from ..module_utils._nut import inventory, kinds
from ..module_utils._nut.conf import grammar
from ..module_utils._nut.deploy.secrets import TO_BE_MADE
from ..plugin_utils import kept

# Letters and digits only: every parser reads them alike.
LENGTH = 24
CHARACTERS = string.ascii_letters + string.digits


def _require_usable(password: str, where: str) -> str:
    problem = grammar.find_password_problem(password)
    if problem:
        raise AnsibleError(f"{where} can't be used: it {problem}")
    return password


def _make_password() -> str:
    return "".join(secrets.choice(CHARACTERS) for _place in range(LENGTH))


class LookupModule(LookupBase):
    """The lookup plugin."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        """Return a password for each host."""
        self.set_options(var_options=variables, direct=kwargs)
        user = self.get_option("user")
        try:
            if user:
                return [
                    self._find_user_password(str(host), user, self.get_option("given"), variables or {})
                    for host in terms
                ]
            return [self._find_password(str(host), variables or {}) for host in terms]
        except (OSError, ValueError) as error:
            raise AnsibleError(f"cannot read or keep a password: {error}") from error

    def _find_user_password(self, host: str, user: str, given: str, variables: dict[str, Any]) -> str:
        problem = grammar.find_user_problem(user)
        if not problem and not given and "/" in user:
            problem = "contains a slash, so its password cannot be kept in a file of that name: set a password, or change the name"
        if problem:
            raise AnsibleError(f"{host}: {user!r} can't be a user: the user name {problem}")
        if given:
            return _require_usable(given, f"{host}: the password of {user} in nut_server_users")
        path = self._find_file(
            f"{user}@{host}",
            "a password in nut_server_users",
            variables["hostvars"][host],
            kept.is_read_only(variables),
        )
        return _require_usable(self._read_or_make(path, variables), f"{host}: the password in {path}")

    def _find_password(self, host: str, variables: dict[str, Any]) -> str:
        own = variables["hostvars"][host]
        machines = inventory.find_groups(variables["groups"], variables["hostvars"])
        name = "nut_server_password" if host in machines.hosts[kinds.PRIMARIES] else "nut_client_password"
        given = own.get(name)
        if given is not None and str(given):
            return _require_usable(str(given), f"{host}: {name}")
        path = self._find_file(host, name, own, kept.is_read_only(variables))
        return _require_usable(self._read_or_make(path, variables), f"{host}: the password in {path}")

    def _find_file(self, host: str, name: str, own: Any, check: bool) -> Path:
        given, beside = own.get("nut_password_directory"), own.get("inventory_dir")
        if not given and not beside:
            raise AnsibleError(
                f"{host}: there is no inventory directory to keep the password in: set {name}, or nut_password_directory"
            )
        path = kept.file_in(Path(given) if given else Path(beside, inventory.SECRETS_FOLDER, "passwords"), host)
        # release 0.1.0 kept passwords where Ansible takes them for names of hosts
        old = Path(beside or "", "passwords", host)
        if given or path.exists() or not old.is_file():
            return path
        if check:
            return old
        kept.make_folder(path.parent)
        with contextlib.suppress(OSError):  # another fork was faster, or the directory is not empty
            old.rename(path)
            old.parent.rmdir()
        return path

    def _read_or_make(self, path: Path, variables: dict[str, Any]) -> str:
        if kept.is_read_only(variables):
            return (path.read_text("utf-8", "replace").rstrip() if path.exists() else "") or TO_BE_MADE
        with kept.hold_folder(path.parent):
            return kept.make_once(path, _make_password)
