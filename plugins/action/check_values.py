# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin of M(homelab.nut.check_values): evaluates expressions on the controller, and returns what is wrong with them.

Ansible itself wraps the message of a filter into the names of the filter and of all tasks and values on the way, and does so for each host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

from ..module_utils._nut.base.text import one_line


class ActionModule(ActionBase):
    """Evaluates expressions."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset({"expressions"})

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _options, arguments = self.validate_argument_spec(
            {"expressions": {"type": "list", "elements": "str", "required": True}}
        )
        problems = [problem for expression in arguments["expressions"] for problem in self._find_problem(expression)]
        result.update(changed=False, problems=list(dict.fromkeys(problems)))
        return result

    def _find_problem(self, expression: str) -> Iterator[str]:
        try:
            # to_json evaluates everything now; otherwise a part is evaluated only when it is used
            self._templar.template(trust_as_template(f"{{{{ ({expression}) | to_json }}}}"))
        except Exception as error:  # a filter or a template may raise anything
            yield find_root_message(error)


def find_root_message(error: BaseException) -> str:
    """Return the message of the error from which another was raised in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(str(error)).rstrip(".")
