# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    HotplugMachine,
)

if TYPE_CHECKING:
    pass


def test_unreadable_note_restarts_units(served: HotplugMachine) -> None:
    (served.room / "homelab-nut-pending.json").write_text("{")
    served.run_hotplug()
    assert served.did == [f"restart {unit}" for unit in ("nut-driver@ups.service", systemd.SERVER, systemd.MONITOR)]
    served.run_hotplug()
    assert served.did == []


@pytest.mark.parametrize(
    "note", ["[1]", '[{"verb": "restart"}]', "{}x", '[{"verb": "restart", "unit": "sshd.service", "reason": ""}]']
)
def test_note_with_foreign_units_touches_none_of_them(served: HotplugMachine, note: str) -> None:
    (served.room / "homelab-nut-pending.json").write_text(note)
    served.run_hotplug()
    ours = ("nut-driver@ups.service", systemd.SERVER, systemd.MONITOR)
    assert set(served.did) <= {f"restart {unit}" for unit in ours}


def test_pending_restart_of_running_unit_waits_for_mains(served: HotplugMachine) -> None:
    note = [{"verb": "restart", "unit": "nut-driver@ups.service", "reason": "[ups] changed"}]
    (served.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    served.status["ups"] = "OB"
    served.run_hotplug()
    assert served.did == []
    assert not served.leaves.exists()
    assert served.said == [
        "deferred: restart nut-driver@ups.service is postponed ([ups] changed): waiting until the mains are back, because of ups (OB)"
    ]
    served.status.clear()
    served.run_hotplug()
    assert served.did == ["restart nut-driver@ups.service"]
    assert not (served.room / "homelab-nut-pending.json").exists()


def test_pending_start_of_stopped_unit_is_done_on_battery(served: HotplugMachine) -> None:
    note = [{"verb": "restart", "unit": "nut-driver@ups.service", "reason": "[ups] changed"}]
    (served.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    served.units["nut-driver@ups.service"] = ("inactive", "enabled")
    served.units["nut-driver@other.service"] = ("active", "enabled")
    served.path.write_text(served.path.read_text() + "\n[other]\n    driver = snmp-ups\n    port = 192.0.2.1\n")
    served.status["other"] = "OB"
    served.run_hotplug()
    assert served.did == ["restart nut-driver@ups.service"]


@pytest.mark.parametrize("more", [[], [{"verb": "restart", "unit": "nut-driver@ups.service", "reason": "its sandbox"}]])
def test_pending_stop_of_driver_precedes_enumerator(served: HotplugMachine, more: list[dict[str, str]]) -> None:
    """The play was killed with a new ups.conf and a running driver, which the enumerator of 2.8.1 would reload."""
    driver = "nut-driver@ups.service"
    steps = [("stop", driver), ("start", systemd.ENUMERATOR), ("start", driver)]
    note = [*more, *({"verb": verb, "unit": unit, "reason": "[ups] changed"} for verb, unit in steps)]
    (served.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    served.run_hotplug()
    assert served.did == [" ".join(step) for step in steps]


def test_pending_restart_waits_for_mains_despite_pending_enumerator(served: HotplugMachine) -> None:
    note = [
        {"verb": "restart", "unit": "nut-driver@ups.service", "reason": "its sandbox"},
        {"verb": "start", "unit": systemd.ENUMERATOR, "reason": "[ups] changed"},
    ]
    (served.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    served.status["ups"] = "OB"
    served.run_hotplug()
    assert served.did == []
