# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter import nut_status

SEEN = {
    "now": 1.0,
    "release": "2.8.1",
    "upsd": None,
    "upses": [],
    "addresses": {},
    "events": [[0.0, "mains failed: ups is on battery"]],
}

status = nut_status.FilterModule().filters()["nut_status"]


def test_a_primary_that_answers_and_one_that_does_not() -> None:
    hostvars = {
        "pve": {"nut_status": {"seen": SEEN}},
        "pve2": {"nut_status": {"unreachable": True, "msg": "no route"}},
        "pve3": {},
    }
    shown = status(["pve", "pve2", "pve3"], hostvars, [])
    assert "pve, NUT 2.8.1" in shown
    assert "mains failed: ups is on battery" in shown
    assert "pve2: can't be asked: no route" in shown
    assert "pve3: can't be asked: no answer" in shown


def test_another_result_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"no result of homelab\.nut\.doctor"):
        status(["pve"], {"pve": {"nut_status": {"seen": {"upses": 1}}}}, [])
