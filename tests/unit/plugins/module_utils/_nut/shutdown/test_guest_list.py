# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.nut.tests.unit.support.shutdown_host import (
    IDLE,
    STAGES,
    ShutdownProgram,
    install_proxmox,
)

QM = "      VMID NAME\n       101 mail   running  512  8.00 77\n       103 onnas  stopped  512  8.00 0\n"
PCT = "VMID       Status     Lock         Name\n102        running                 films\n"


def test_guests_lists_stages_and_ha(program: ShutdownProgram) -> None:
    install_proxmox(program.folder)
    (program.folder / "etc/pve/ha").mkdir()
    (program.folder / "etc/pve/ha/resources.cfg").write_text("ct: 102\n\tstate started\n")
    program.write_policy(stages=STAGES)
    program.lists = {"qm": QM, "pct": PCT}
    assert program("guests") == 0
    assert program.out[0].splitlines()[:6] == [
        "VM 101 (mail)          running  stops in stage nas, late (its number is listed), within 90 s",
        "container 102 (films)  running  stops with the host, within 70 s; managed by HA",
        "VM 103 (onnas)         stopped  stops in stage late (its disk is on storage nas, on 192.0.2.20), within 40 s",
        "VM 104 (other)         stopped  stops with the host, within 180 s",
        "",
        "HA manages 1 guest (102)",
    ]
    assert program.out[0].splitlines()[-3:] == IDLE
    assert program("guests", "--json") == 0
    data = json.loads(program.out[1])
    assert [(guest["id"], guest["kind"], guest["running"], guest["ha"]) for guest in data["guests"]] == [
        (101, "qm", True, False),
        (102, "pct", True, True),
        (103, "qm", False, False),
        (104, "qm", False, False),
    ]
    assert data["guests"][0] == {
        "id": 101,
        "kind": "qm",
        "name": "mail",
        "running": True,
        "ha": False,
        "stage": "nas",
        "stages": ["nas", "late"],
        "seconds": 90.0,
        "why": "its number is listed",
    }
    assert {key: data["guests"][3][key] for key in ("stage", "stages", "seconds", "why")} == {
        "stage": None,
        "stages": [],
        "seconds": 180,
        "why": "",
    }
    assert data["ha"][0] == "HA manages 1 guest (102)"
    assert data["idle"] == IDLE
    # the command saves nothing
    assert not (program.folder / "guests.json").exists()


def test_guests_with_unknown_status(program: ShutdownProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    install_proxmox(program.folder)
    monkeypatch.setattr(ShutdownProgram, "run_qm", lambda self, command: (127, "no such program"))
    assert program("guests") == 0
    assert "VM 101 (mail)          unknown  stops with the host, within 180 s" in program.out[0]
    program("guests", "--json")
    assert {guest["running"] for guest in json.loads(program.out[1])["guests"]} == {None}


def test_guests_without_guests(program: ShutdownProgram) -> None:
    assert program("guests") == 0
    assert program.out == ["this host has no guests"]
    assert program.ran == []


def test_guests_with_unreadable_ha(program: ShutdownProgram) -> None:
    install_proxmox(program.folder)
    (program.folder / "etc/pve/datacenter.cfg").mkdir()
    assert program("guests") == 0
    assert "datacenter.cfg: " in program.out[0]
