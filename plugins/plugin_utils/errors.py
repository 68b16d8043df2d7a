# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library's errors, as Ansible's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ansible.errors import AnsibleFilterError

from ..module_utils._nut.base.commands import spell_commands


@contextlib.contextmanager
def raise_as_filter_error(*kinds: type[Exception], prefix: str = "") -> Iterator[None]:
    """Raise AnsibleFilterError in place of an error of these kinds, with its message behind a prefix."""
    try:
        yield
    except kinds as error:
        raise AnsibleFilterError(spell_commands(f"{prefix}{error}")) from None
