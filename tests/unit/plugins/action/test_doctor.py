# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.action import doctor, zipapp
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import observe

CHECKOUT = Path(__file__).resolve().parents[4]


def run_action(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], result: dict[str, Any], clock: list[float]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run the action with a module that returns RESULT. Return the action's result and the module's options."""
    given: dict[str, Any] = {}
    action = doctor.ActionModule.__new__(doctor.ActionModule)
    action._task = SimpleNamespace(args=arguments)

    def execute(module_args: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        given.update(module_args)
        return result

    monkeypatch.setattr(action, "_execute_module", execute)
    monkeypatch.setattr(doctor.ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    times = iter(clock)
    monkeypatch.setattr(doctor.time, "time", lambda: next(times))
    return action.run(task_vars={"inventory_hostname": "pve"}), given


def test_module_gets_host_name_and_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    result, given = run_action(
        monkeypatch, {"role": "primary"}, {"seen": {"now": 101.0}, "findings": []}, [100.0, 102.0]
    )
    assert given["name"] == "pve"
    assert given["digests"] == doctor.compute_digests()
    assert [(finding["check"], finding["host"], finding["verdict"]) for finding in result["findings"]] == [
        ("skew", "pve", "ok")
    ]


def test_clock_skew_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    result, given = run_action(
        monkeypatch,
        {"role": "primary", "name": "other", "digests": {}},
        {"seen": {"now": 0.0}, "findings": []},
        [100.0, 102.0],
    )
    assert given == {"role": "primary", "name": "other", "digests": {}}
    assert [(finding["host"], finding["verdict"], finding["seen"]) for finding in result["findings"]] == [
        ("other", "warning", "the clock is 100 s behind the Ansible controller's")
    ]


def test_result_of_a_failed_module_is_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    result, _given = run_action(monkeypatch, {"role": "primary"}, {"failed": True, "msg": "no"}, [100.0, 102.0])
    assert result == {"failed": True, "msg": "no"}


def test_digests_match_the_programs_of_the_roles() -> None:
    shutdown = zipapp.build_program(
        CHECKOUT / "roles/nut_server/files/nut_shutdown.py", "_nut", b"#!/usr/bin/python3 -IS\n"
    )
    access = zipapp.build_program(
        CHECKOUT / "roles/nut_server/files/nut_access.py", "_nut", b"#!/usr/bin/python3 -IS\n"
    )
    head = (CHECKOUT / "roles/nut_hotplug/files/start.sh").read_bytes()
    hotplug = zipapp.build_program(
        CHECKOUT / "roles/nut_hotplug/files/nut_hotplug.py", "_nut", head, first="_nut/hotplug/quiet.py"
    )
    assert max(map(len, (shutdown, access, hotplug))) < observe.PROGRAM_BYTES / 4
    doctor.compute_digests.cache_clear()
    assert doctor.compute_digests() == {
        "usr/local/sbin/nut-shutdown": hashlib.sha256(shutdown).hexdigest(),
        "usr/local/sbin/nut-access": hashlib.sha256(access).hexdigest(),
        "usr/local/sbin/nut-hotplug": hashlib.sha256(hotplug).hexdigest(),
    }


@pytest.mark.parametrize(
    ("role", "tasks", "head"),
    [("nut_server", "present", None), ("nut_server", "access", None), ("nut_hotplug", "present", "start.sh")],
)
def test_roles_build_programs_with_the_same_options(role: str, tasks: str, head: str | None) -> None:
    """With another shebang in a role, every host would always look out of date."""
    text = (CHECKOUT / "roles" / role / f"tasks/{tasks}.yml").read_text()
    task = text[text.index("homelab.nut.zipapp:") :].split("\n\n")[0]
    assert ("head: start.sh" in task) == (head is not None)
    assert ("first: _nut/hotplug/quiet.py" in task) == (head is not None)
    assert "shebang" not in task
    assert "package" not in task


@pytest.mark.parametrize(
    "answer",
    [
        {"seen": {"now": 10**400}, "findings": []},
        {"seen": {"now": float("nan")}, "findings": []},
        {"seen": {"now": 100.0}, "findings": {"a": 1}},
        {"seen": {"now": 100.0}},
        {"seen": [1], "findings": []},
        {"seen": "now", "findings": []},
    ],
)
def test_malformed_answer_of_a_host_adds_no_finding(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> None:
    result, _given = run_action(monkeypatch, {"role": "primary"}, answer, [100.0, 102.0])
    assert "findings" not in result or result["findings"] in ([], {"a": 1})
