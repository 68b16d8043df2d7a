# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter.notify_policy import notify_policy


def test_targets_become_the_policy_of_the_host() -> None:
    assert notify_policy([{"mail": "root", "severity": "critical", "events": []}]) == {
        "version": 1,
        "targets": [{"mail": "root", "severity": "critical"}],
    }


def test_a_mistake_is_an_error_of_the_filter_without_the_secret() -> None:
    with pytest.raises(AnsibleFilterError, match=r"nut_server_notify\[0\]\.url: must be a URL") as caught:
        notify_policy([{"url": "s3cr3t-token"}])
    assert "s3cr3t" not in str(caught.value)
