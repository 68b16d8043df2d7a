# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify import preview, sender
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.targets import Target
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import Stage
from ansible_collections.homelab.nut.tests.unit.support.gate_policy import POLICY

PHONE, PAGER = Target(1, url="ntfy://s3cr3t-token"), Target(2, mail="root", events=("battery-low",))
NOBODY = Target(3, mail="x", events=("alarm-begun",))


def test_a_preview_names_each_message_of_a_power_cut() -> None:
    lines = preview.describe_preview([PHONE, PAGER, NOBODY], preview.list_events(POLICY, [Stage("early", fsd=True)]))
    ups, machines = POLICY.upses[0].name, [machine.name for machine in POLICY.machines]
    assert lines[0].startswith(f"target 1 (ntfy) would be told: Mains failed: {ups} is on battery; ")
    assert all(f"; {name} is down; " in lines[0] for name in machines)
    assert "; Stage early begins; " in lines[0]
    assert lines[1].startswith(f"target 2 (mail to root) would be told: Battery low: {ups}")
    assert lines[2] == "target 3 (mail to x) would be told: nothing"
    assert "s3cr3t" not in str(lines)


def test_tests_reach_every_target_and_the_answers_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "SENDMAIL", "/bin/false")
    said: list[str] = []
    failed = preview.send_tests(
        [PHONE, PAGER], lambda target, post: sender.begin_attempt(target, post, ["/bin/true"]), said.append
    )
    assert said == ["target 1 (ntfy): sent", "target 2 (mail to root): exit code 1"]
    assert failed == [PAGER]
