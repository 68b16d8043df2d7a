# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-hotplug asks the manager of services only, whoever that is: it runs neither systemctl nor journalctl itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.services import Systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import UnitError
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.observe import ReconcileError
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.reconcile import HotplugHost
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import APC, CPS, HotplugMachine


class OtherManager(Systemd):
    """A manager that is not systemd, with the machine's units behind it."""

    name = "the other manager"


def make_host(machine: HotplugMachine) -> HotplugHost:
    """Return the host with another manager; its programs are those of NUT only."""

    def run_other_programs(command: Sequence[str]) -> tuple[int, str]:
        assert command[0] not in ("systemctl", "journalctl"), command
        return machine.run_command(command)

    host = machine.make_host()
    services = OtherManager(machine.run_command, machine.root / "systemd", "the other manager")
    host.local = replace(host.local, runner=run_other_programs, services=services)
    return host


def test_ups_is_found_swapped_and_missed(machine: HotplugMachine) -> None:
    machine.policy = {"absent": "dummy"}
    machine.bus.plug_in("1-1", APC)
    assert make_host(machine).run().failed == ()
    machine.update_upsd()
    machine.bus.unplug_device("1-1")
    machine.bus.plug_in("1-2", CPS)
    machine.did.clear()
    assert make_host(machine).run().failed == ()
    assert dict(machine.conf.sections["ups"].keys)["vendorid"] == "0764"
    assert any("nut-driver@ups.service" in line for line in machine.did)
    assert make_host(machine).observe_host().steps == ()


def test_manager_that_does_not_answer_is_named(machine: HotplugMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_words: object) -> None:
        raise UnitError("no")

    monkeypatch.setattr(OtherManager, "show_units", fail)
    with pytest.raises(ReconcileError, match="can't ask the other manager about NUT's units: no"):
        make_host(machine).run()
