# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter homelab.nut.ups_conf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..plugin_utils.errors import raise_as_filter_error

DOCUMENTATION = r"""
name: ups_conf
short_description: Write the sections of ups.conf
version_added: 0.1.0
description:
  - Writes the sections of C(ups.conf) with every value quoted, and with C(driver) and C(port) first.
  - Fails for two devices with the same name, a name that is not valid for a systemd unit, a key that is unknown or given twice, a value
    of the wrong type, and text that NUT would change.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _input:
    description:
      - The UPSes, as in the variable C(nut_server_devices). Besides C(name), C(driver), C(port) and C(desc) each device may
        have any key of C(ups.conf) or of its driver. C(default) and C(override) map NUT variables to values. C(options) takes keys that
        this collection does not know.
      - A key that is true is written without a value. A key that is false, none or empty is omitted. C(powervalue) belongs to
        C(upsmon.conf). If it is V(0) and no secondary is on that UPS, the section gets C(sdorder=-1), unless the device sets C(sdorder).
        So the UPS, such as a router's, is not told to cut its power when this host shuts down.
    type: list
    elements: dict
    required: true
  secondaries:
    description: The secondaries of the host with the UPSes, from the filter P(homelab.nut.clients#filter).
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: Show the sections
  ansible.builtin.debug:
    msg: "{{ [{'name': 'ups', 'pollonly': true, 'override': {'battery.charge.low': 20}}] | homelab.nut.ups_conf }}"
"""

RETURN = r"""
_value:
  description: The sections.
  type: str
"""


def ups_conf(devices: Sequence[Mapping[str, Any]], secondaries: Sequence[Mapping[str, Any]] = ()) -> str:
    """Return the sections of devices. Raises AnsibleFilterError for a device that can't be written."""
    from ..module_utils._nut.conf import settings

    with raise_as_filter_error(settings.SettingsError):
        return settings.write_devices(devices, [str(secondary["ups"]) for secondary in secondaries])


class FilterModule:
    """Registers the filter with Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by its name."""
        return {"ups_conf": ups_conf}
