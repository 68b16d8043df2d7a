# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter import hotplug_policy, udev_permissions

check = hotplug_policy.FilterModule().filters()["hotplug_policy"]
permissions = udev_permissions.FilterModule().filters()["udev_permissions"]


def test_valid_policy_is_returned_unchanged() -> None:
    policy = {"version": 1, "patterns": ["1234:*"], "rules": [{"vendor": "0463", "options": {"pollonly": True}}]}
    assert check(policy) == policy


def test_invalid_policy_is_refused_with_all_mistakes() -> None:
    with pytest.raises(AnsibleFilterError, match="nut_hotplug_absent") as error:
        check({"rules": [{"vendor": 307}], "absent": "perhaps"})
    assert "nut_hotplug_rules[0].vendor" in str(error.value)


def test_udev_rules_are_written_for_patterns() -> None:
    assert 'ATTR{idVendor}=="1234", MODE=' in permissions({"patterns": ["1234:*"]})
    with pytest.raises(AnsibleFilterError, match="nut_hotplug_patterns"):
        permissions({"patterns": "1234:*"})
