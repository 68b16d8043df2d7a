# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter.extra_lines import FilterModule as ExtraLines
from ansible_collections.homelab.nut.plugins.filter.merge_directives import FilterModule as MergeDirectives

merge_directives = MergeDirectives().filters()["merge_directives"]
extra_lines = ExtraLines().filters()["extra_lines"]


def test_user_settings_override_the_role() -> None:
    own = {"POLLFREQ": 5, "DEADTIME": 15}
    assert merge_directives({"DEADTIME": None, "OFFDURATION": -1}, own, "upsmon.conf", "nut_server") == {
        "POLLFREQ": 5,
        "OFFDURATION": -1,
    }
    with pytest.raises(AnsibleFilterError, match=r"^nut_server_upsmon_conf: DEDTIME is not .* Did you mean DEADTIME"):
        merge_directives({"DEDTIME": 1}, own, "upsmon.conf", "nut_server")


def test_extra_lines_follow_a_comment() -> None:
    assert extra_lines({"nut.conf": "A=1\n"}, "nut.conf", "nut_server") == "\n# nut_server_extra_lines\nA=1"
    with pytest.raises(AnsibleFilterError, match=r"^nut_client_extra_lines: ups.conf is not one of"):
        extra_lines({"ups.conf": "a = 1"}, "nut.conf", "nut_client")
