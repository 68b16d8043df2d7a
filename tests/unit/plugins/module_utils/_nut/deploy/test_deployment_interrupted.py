# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deployments that fail or are interrupted, and the run after them."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import deployment as deploy_deployment
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import DeployError
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    PRIMARY,
    RELOAD_SERVER,
    RESTART_MONITOR,
    RESTART_SERVER,
    SECONDARY,
    UPS,
    Place,
    describe_actions,
    with_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_failed_write_changes_nothing(place: Place) -> None:
    """If one file can't be written, none is, and nothing is restarted."""
    place.write_files(PRIMARY)
    new = {**{name: f"{text}#\n" for name, text in PRIMARY.items()}, "nut.conf": "MODE=standalone\n"}
    deployment = place.make_deployment(new)
    decided = deployment.plan_change()
    (place.folder / "upsmon.conf").unlink()
    (place.folder / "upsmon.conf").mkdir()  # a file can't replace a directory
    with pytest.raises(
        DeployError, match=r"upsmon\.conf could not be written: Is a directory\. The files are as they were"
    ):
        deployment.apply_change(decided)
    assert deployment.files_written == []
    assert deployment.actions_done == []
    assert place.systemd.told == []
    kept = {f"{name}{deploy_deployment.KEPT}" for name in PRIMARY}
    now = {name: text for name, text in place.read_texts().items() if name not in kept}
    assert now == {name: text for name, text in PRIMARY.items() if name != "upsmon.conf"}


def test_next_run_completes_interrupted_run(place: Place) -> None:
    """Killed between writing and restarting: the files are new, the daemons are old, and only the note shows it."""
    place.write_files(PRIMARY)
    new = with_text("upsmon.conf", "FINALDELAY 5", "FINALDELAY 65", with_text("upsd.conf", "127.0.0.1", "0.0.0.0"))
    first = place.make_deployment(new)

    def killed(command: Sequence[str]) -> tuple[int, str]:
        if "restart" in command:
            raise KeyboardInterrupt
        return place.systemd(command)

    first.local = replace(first.local, runner=killed)
    with pytest.raises(KeyboardInterrupt):
        first.apply_change(first.plan_change())
    assert {name: place.read_texts()[name] for name in new} == new
    (note,) = place.room.iterdir()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600

    second = place.make_deployment(new)
    decided = second.plan_change()
    assert decided.written_files == ()
    assert describe_actions(decided.after) == [RESTART_SERVER, RESTART_MONITOR]
    assert decided.after[0].reason == "upsd.conf changed in directives that a reload does not apply"
    second.apply_change(decided)
    assert [step for step in place.systemd.told if step.startswith("restart")] == [RESTART_SERVER, RESTART_MONITOR]
    assert not list(place.room.iterdir())
    assert not place.make_deployment(new).plan_change()


def test_failed_restart_is_retried_by_next_run(place: Place) -> None:
    place.write_files(PRIMARY)
    new = with_text("upsmon.conf", "FINALDELAY 5", "FINALDELAY 65", with_text("upsd.conf", "15", "20"))
    place.systemd.refused[RESTART_MONITOR] = "Job for nut-monitor.service failed."
    place.systemd.journal[systemd.MONITOR] = "Fatal error: insufficient power configured!\n"
    deployment = place.make_deployment(new)
    with pytest.raises(DeployError) as caught:
        deployment.apply_change(deployment.plan_change())
    assert "systemctl restart nut-monitor.service failed: Job for nut-monitor.service failed." in str(caught.value)
    assert "Its last log lines: Fatal error: insufficient power configured!" in str(caught.value)
    assert describe_actions(deployment.actions_done) == [RELOAD_SERVER]
    assert {name: place.read_texts()[name] for name in new} == new
    place.systemd.refused.clear()
    again = place.make_deployment(new)
    again.apply_change(again.plan_change())
    assert place.systemd.told[-1] == RESTART_MONITOR
    assert not place.make_deployment(new).plan_change()


@pytest.mark.parametrize(
    "text", ["", "[", '[{"verb": "restart", "un', '["restart"]', '[{"verb": "restart"}]', "7", "\udcff"]
)
def test_unreadable_note_restarts_all_units_of_primary(place: Place, text: str) -> None:
    place.write_files(PRIMARY)
    deployment = place.make_deployment(PRIMARY)
    deployment.local.pending.path.write_text(text, errors="surrogateescape")
    decided = deployment.plan_change()
    assert describe_actions(decided.after) == [f"restart {UPS}", RESTART_SERVER, RESTART_MONITOR]
    deployment.apply_change(decided)
    assert not place.make_deployment(PRIMARY).plan_change()


def test_unreadable_note_restarts_upsmon_of_secondary(place: Place) -> None:
    place.write_files(SECONDARY)
    deployment = place.make_deployment(SECONDARY)
    deployment.local.pending.path.write_text("[")
    assert describe_actions(deployment.plan_change().after) == [RESTART_MONITOR]


def test_note_of_interrupted_run_is_kept(place: Place) -> None:
    place.write_files(PRIMARY)
    left = [
        {"verb": "start", "unit": UPS, "reason": "[ups] changed"},
        {"verb": "restart", "unit": systemd.MONITOR, "reason": "its sandbox changed"},
    ]
    deployment = place.make_deployment(with_text("upsd.conf", "15", "20"))
    deployment.local.pending.path.write_text(json.dumps(left))
    place.systemd.refused = {RELOAD_SERVER: "no", RESTART_SERVER: "no"}
    with pytest.raises(DeployError, match="no"):
        deployment.apply_change(deployment.plan_change())
    # without the actions that were done in between
    assert [action["verb"] for action in json.loads(deployment.local.pending.path.read_text())] == ["reload", "restart"]
