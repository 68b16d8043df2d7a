# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the AnsibleModule of all its modules, which cleans what they print.

Ansible prints a module's warnings, errors and diffs on the terminal as they are. They quote TrueNAS, upsd, drivers, the journal and
devices, so they are cleaned here, for all modules. Data in a module's result is not changed.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.parameters import remove_values

from ._nut.base.commands import spell_commands
from ._nut.base.text import LINE, change_texts, printable, printable_text, well_formed

# the members of a result that Ansible shows to people; all others are data
_SHOWN = ("msg", "diff")


def _clean_text(text: str) -> str:
    return printable_text(spell_commands(text))


class Module(AnsibleModule):
    """The AnsibleModule of all modules of this collection."""

    def warn(self, warning: str, *arguments: Any, **options: Any) -> None:
        """Warn, on one line."""
        super().warn(printable(spell_commands(self._mask_secrets(warning)), LINE), *arguments, **options)

    def exit_json(self, **result: Any) -> None:
        """Exit successfully."""
        super().exit_json(**{name: self._clean_value(value, shown=name in _SHOWN) for name, value in result.items()})

    def fail_json(self, msg: str, **result: Any) -> None:
        """Fail. Ansible then shows the whole result."""
        super().fail_json(
            self._clean_value(str(msg), shown=True),
            **{name: self._clean_value(value) for name, value in result.items()},
        )

    def _clean_value(self, value: Any, *, shown: bool = True) -> Any:
        """Return a member of a result without characters that a terminal (if it is shown) or JSON can't take."""
        return change_texts(self._mask_secrets(value), _clean_text) if shown else change_texts(value, well_formed)

    def _mask_secrets(self, value: Any) -> Any:
        """Return a value with its secrets masked. Ansible masks them later, but would not recognize one with escaped characters."""
        return remove_values(value, self.no_log_values) if isinstance(value, (str, list, tuple, dict)) else value
