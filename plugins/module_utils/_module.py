# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the one door through which its modules speak.

Ansible prints a module's warnings, its failure and its diff on the terminal as they come. In them stands what TrueNAS, upsd, a driver,
the journal or a device has said, so they are cleaned here, for all modules. What a module returns as data stays data.
"""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.parameters import remove_values

from ._nut.base.text import LINE, change_texts, printable, printable_text, well_formed

# what a result holds for people to read; all else is data
_SHOWN = ("msg", "diff")


class Module(AnsibleModule):
    """The AnsibleModule of all modules of this collection."""

    def warn(self, warning: str, *arguments: Any, **options: Any) -> None:
        """Warn, in one line."""
        super().warn(printable(self._mask_secrets(warning), LINE), *arguments, **options)

    def exit_json(self, **result: Any) -> None:
        """End well."""
        super().exit_json(**{name: self._clean_value(value, shown=name in _SHOWN) for name, value in result.items()})

    def fail_json(self, msg: str, **result: Any) -> None:
        """Fail. Ansible then shows all of the result."""
        super().fail_json(
            self._clean_value(str(msg), shown=True), **{name: self._clean_value(one) for name, one in result.items()}
        )

    def _clean_value(self, value: Any, *, shown: bool = True) -> Any:
        """Return a member of a result that is fit for a terminal if it is SHOWN, and else for JSON."""
        return change_texts(self._mask_secrets(value), printable_text) if shown else change_texts(value, well_formed)

    def _mask_secrets(self, value: Any) -> Any:
        """Return it without secrets. Ansible does that, too, but would not know one again whose characters are escaped."""
        return remove_values(value, self.no_log_values) if isinstance(value, (str, list, tuple, dict)) else value
