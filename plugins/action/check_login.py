# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin homelab.nut.check_login: says why Ansible can't log in to a host, or is not root there, before anything else runs."""

from __future__ import annotations

import re
import shlex
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from ..plugin_utils import login

_ASK = "echo uid=$(id -u) user=$(id -un)"
_ANSWER = re.compile(r"^uid=(\d+) user=(\S*)\s*$", re.MULTILINE)
# a timeout of become is a connection failure to Ansible
_OF_BECOME = re.compile("become|privilege escalation")


class ActionModule(ActionBase):
    """Runs `id` on the host as the tasks would, and explains what goes wrong."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec({"root": {"type": "bool", "default": True}})
        way = self._find_way(task_vars or {})
        try:
            answer = self._low_level_execute_command(_ASK)
        except AnsibleError as error:
            return _explain_error(way, error)
        found = _ANSWER.search(answer["stdout"])
        if found is None:
            words = answer["stderr"] or answer["stdout"] or f"exit code {answer['rc']}"
            return _explain_error(way, AnsibleError(words))
        problem = login.explain_user(way, int(found[1]), found[2]) if options["root"] else None
        return _fail(problem) if problem else {"changed": False, "problem": "", "remedy": ""}

    def _find_way(self, task_vars: dict[str, Any]) -> login.LoginWay:
        """Return how Ansible logs in to the host of this task."""
        connection = self._connection
        become = connection.become
        user = str(self._get_remote_user() or "")
        ssh: tuple[str, ...] = ()
        if connection.transport == "ssh":
            given = {name: connection.get_option(name) for name in ("host", "port", "private_key_file")}
            more = [
                part
                for name in ("ssh_common_args", "ssh_extra_args")
                for part in shlex.split(connection.get_option(name) or "")
            ]
            ssh = login.build_ssh_command(given["host"], user, given["port"], given["private_key_file"] or "", more)
        return login.LoginWay(
            host=str(self._task.delegate_to or task_vars.get("inventory_hostname", "")),
            user=user,
            ssh=ssh,
            become=become.name.rpartition(".")[2] if become else "",
            become_user=str(become.get_option("become_user") or "root") if become else "root",
            is_local=connection.transport == "local",
        )


def _explain_error(way: login.LoginWay, error: AnsibleError) -> dict[str, Any]:
    """Return the result for a host on which the command did not run."""
    is_connection = isinstance(error, AnsibleConnectionFailure) and not _OF_BECOME.search(str(error))
    if is_connection or "Host Key checking" in str(error) or not way.become:
        return _fail(login.explain_connection(way, str(error)), unreachable=True)
    return _fail(login.explain_become(way, str(error)))


def _fail(problem: login.LoginProblem, *, unreachable: bool = False) -> dict[str, Any]:
    outcome = {"unreachable": True} if unreachable else {"failed": True}
    return {**outcome, "changed": False, "msg": str(problem), "problem": problem.problem, "remedy": problem.remedy}
