# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.ups_conf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: ups_conf
short_description: The sections of a ups.conf
version_added: 0.1.0
description:
  - Writes the sections of C(ups.conf) as NUT reads them, every value quoted, C(driver) and C(port) first.
  - Stops at two devices of one name, at a name that no systemd unit can have, at a key that is unknown or given twice, at a
    value that is not of its key's kind, and at text that NUT would change.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description:
      - The UPSes, as in the variable C(nut_server_devices). Besides C(name), C(driver), C(port) and C(desc) each may have any key of
        C(ups.conf) or of its driver, C(default) and C(override), which map variables to values, and C(options) for further keys.
      - A key that is true is written without a value; one that is false, none or empty is left out. C(powervalue) is not for this file.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the sections
  ansible.builtin.debug:
    msg: "{{ [{'name': 'ups', 'pollonly': true, 'override': {'battery.charge.low': 20}}] | homelab.nut.ups_conf }}"
"""

RETURN = r"""
_value:
  description: Text for C(ups.conf).
  type: str
"""


def ups_conf(devices: Sequence[Mapping[str, Any]]) -> str:
    """Render devices."""
    from ..module_utils._nut.conf import settings

    try:
        return settings.write_devices(devices)
    except settings.SettingsError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """Ansible's door."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"ups_conf": ups_conf}
