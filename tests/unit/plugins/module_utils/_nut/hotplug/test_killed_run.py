# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import memory as hotplug_memory
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import serve_answers
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    APC,
    CPS,
    HotplugMachine,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """Raised to end the run here, like a power cut."""


def killed_at(machine: HotplugMachine, step: int) -> bool:
    """Run nut-hotplug and interrupt it at its STEP-th access to disk or systemd. Return False if it completed."""
    left = [step]
    run, write = machine.run_command, files.replace_files

    def touch() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def dying_run(command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "systemctl" and command[1] not in ("show", "reset-failed"):
            touch()
        return run(command)

    def dying_replace(texts: Any, mode: int, owner: Any = None) -> None:
        touch()
        write(texts, mode, owner)

    machine.run_command, files.replace_files = dying_run, dying_replace  # type: ignore[method-assign]
    try:
        machine.run_hotplug()
        return False
    except Killed:
        return True
    finally:
        machine.run_command, files.replace_files = run, write  # type: ignore[method-assign]


@pytest.mark.parametrize("reboot", [False, True])
def test_run_killed_at_any_step_is_completed_by_next(tmp_path: Path, reboot: bool) -> None:
    step, killed = 0, True
    while killed:
        with serve_answers({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}) as server:
            root = tmp_path / f"{reboot}{step}"
            root.mkdir()
            machine = HotplugMachine(root, server)
            machine.coarse = 1.0
            machine.bus.plug_in("1-1", APC)
            machine.run_hotplug()
            machine.bus.unplug_device("1-1")
            machine.status["ups"] = "ERR DATA-STALE"
            machine.run_hotplug()
            machine.bus.plug_in("1-1", CPS, serial="CPS123456789")
            machine.now += 100

            def restarted(machine: HotplugMachine = machine) -> None:
                # only a restarted driver finds the other UPS
                if [
                    line
                    for line in machine.did
                    if line in ("start nut-driver@ups.service", "restart nut-driver@ups.service")
                ]:
                    machine.status.clear()

            machine.events = [restarted] * 400
            killed = killed_at(machine, step)
            restarted()
            if killed and reboot:
                (machine.room / "homelab-nut-pending.json").unlink(missing_ok=True)
                machine.boot = "another"
                machine.now = 50.0
                machine.units["nut-driver@ups.service"] = ("active", "enabled")
                if "0764" in machine.path.read_text():
                    machine.status.clear()
            for _run in range(3):
                machine.events = [restarted] * 400
                machine.run_hotplug()
                restarted()
                machine.now += 60
            machine.run_hotplug()
            assert dict(machine.conf.sections["ups"].keys)["vendorid"] == "0764", step
            assert machine.status == {}, (step, machine.did)
            assert machine.units["nut-driver@ups.service"][0] == "active", step
            assert not [remark for remark in machine.make_host().observe_host().remarks if "by hand" in remark], step
            assert machine.did == [], step
            assert machine.is_quiet, step
        step += 1
    assert step > 6


def test_section_of_killed_run_does_not_count_as_edited(served: HotplugMachine) -> None:
    """Power was lost after ups.conf was written and before the notes, and another UPS is plugged in afterwards."""
    path = served.root / "state/state.json"
    ours = ups_conf.render_sections([served.conf.sections["ups"]])
    hotplug_memory.save_state(
        path, replace(served.memory, written={"ups": "[ups]\n    driver = x\n"}, intended={"ups": ours})
    )
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.bus.plug_in("1-1", CPS, serial="CPS123456789")
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.run_hotplug()
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"


def test_note_restarts_driver_that_may_run_with_old_section(served: HotplugMachine) -> None:
    served.bus.unplug_device("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.run_hotplug()
    served.now += 100
    served.bus.plug_in("1-1", CPS, serial="CPS123456789")
    run = served.run_command

    def dying(command: Sequence[str]) -> tuple[int, str]:
        if command[:2] == ["systemctl", "start"]:
            raise Killed
        return run(command)

    served.run_command = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        served.run_hotplug()
    noted = json.loads((served.room / "homelab-nut-pending.json").read_text())
    assert [action["verb"] for action in noted if action["unit"] == "nut-driver@ups.service"] == ["restart"]
