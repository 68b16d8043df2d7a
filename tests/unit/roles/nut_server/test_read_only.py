# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Playbooks that change nothing say so: their recap has changed=0."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.nut.tests.unit.support.plays import list_tasks

CHECKOUT = Path(__file__).resolve().parents[4]
TASKS = CHECKOUT / "roles/nut_server/tasks"
# what may report a change; the modules of this collection that these files use change nothing
CHANGING = {f"ansible.builtin.{name}" for name in ("command", "copy", "file", "get_url", "shell", "template")}


@pytest.mark.parametrize("name", ["plan.yml", "draw.yml", "work_out.yml", "judge.yml", "drill.yml", "doctor.yml"])
def test_tasks_of_read_only_playbook_report_no_change(name: str) -> None:
    tasks = [*list_tasks(yaml.safe_load((TASKS / name).read_text(encoding="utf-8")))]
    changing = [task for task in tasks if CHANGING & {*task}]
    assert [task["name"] for task in changing if task.get("changed_when") is not False] == []


def test_picture_of_the_plan_is_not_shown_as_a_difference() -> None:
    """With check=1 Ansible would print all of the page."""
    tasks = list_tasks(yaml.safe_load((TASKS / "draw.yml").read_text(encoding="utf-8")))
    written = [task for task in tasks if "ansible.builtin.copy" in task]
    assert len(written) == 2
    assert all(task["diff"] is False for task in written)
