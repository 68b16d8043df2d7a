# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.events import catalog
from ansible_collections.homelab.nut.tests.unit.support import role_variables

ROLE = Path(__file__).parents[4] / "roles" / "nut_server"
EVENT = f"/{paths.NOTIFY_PROGRAM} event"
TARGETS = [{"mail": "root"}]
RULES = [{"notifytype": "ONBATT", "command": "EXECUTE", "name": "now"}]


def evaluate(expression: str, **variables: Any) -> Any:
    given = {
        "inventory_hostname": "pve",
        "nut_server_devices": [{"name": "ups"}],
        "__nut_server_clients": [],
        "__nut_server_plan": {},
        **variables,
    }
    return role_variables.evaluate("nut_server", expression, given)


def test_role_and_library_use_the_same_paths() -> None:
    variables = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    assert variables["__nut_server_notify_program"] == f"/{kits.NOTIFY.program}"
    assert set(variables["__nut_server_notify_files"]) == set(kits.NOTIFY.places)
    assert f"/{paths.EVENTS_LOG}" in (ROLE / "templates/nut-notify-logrotate.j2").read_text()


@pytest.mark.parametrize(
    ("variables", "command"),
    [
        ({}, None),
        ({"nut_server_upssched_rules": RULES}, "/sbin/upssched"),
        ({"nut_server_notify": TARGETS}, EVENT),
        ({"nut_server_notify": TARGETS, "nut_server_upssched_rules": RULES}, f"{EVENT}; /sbin/upssched"),
        ({"nut_server_notify": TARGETS, "nut_server_upsmon_conf": {"NOTIFYCMD": "/opt/tell"}}, f"{EVENT}; /opt/tell"),
    ],
)
def test_upsmon_runs_our_program_and_then_that_of_the_user(variables: dict[str, Any], command: str | None) -> None:
    assert evaluate("__nut_server_upsmon.NOTIFYCMD | default(none)", **variables) == command


def test_upsmon_reports_all_events_unless_the_user_wants_less() -> None:
    flags = evaluate(
        "__nut_server_upsmon.NOTIFYFLAG",
        nut_server_notify=TARGETS,
        nut_server_upsmon_conf={"NOTIFYFLAG": {"COMMBAD": "IGNORE"}},
    )
    assert flags.pop("COMMBAD") == "IGNORE"
    assert set(flags.values()) == {"SYSLOG+WALL+EXEC"}
    assert {"ONBATT", "ONLINE", "LOWBATT", "FSD", "REPLBATT"} <= set(flags) <= set(catalog.OF_UPSMON)


@pytest.mark.parametrize(
    ("variables", "own"),
    [
        ({}, False),
        ({"nut_server_notify": TARGETS}, False),
        ({"nut_server_notify": TARGETS, "nut_server_upssched_rules": RULES}, True),
    ],
)
def test_upsmon_keeps_its_sandbox_with_our_program_alone(variables: dict[str, Any], own: bool) -> None:
    assert evaluate("__nut_server_own_commands", **variables) is own


def test_unit_can_not_delay_a_shutdown_and_starts_again() -> None:
    lines = (ROLE / "templates/nut-notify.service.j2").read_text().splitlines()
    for line in ("TimeoutStopSec=2", "Restart=always", "StartLimitIntervalSec=0", "Before=nut-monitor.service"):
        assert line in lines
    waits = [line for line in lines if "network-online" in line and not line.startswith("#")]
    assert waits == []
