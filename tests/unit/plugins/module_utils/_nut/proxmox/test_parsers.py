# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Proxmox VE's own parsers make of files, against what the library makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import datacenter, grammar, guests
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.grammar import PropertyFormat

RECORDINGS = Path(__file__).parents[4] / "recordings/proxmox"
FILES = RECORDINGS / "parsers"
REAL = json.loads((FILES / "real.json").read_text())
ROWS = json.loads((RECORDINGS / "parser-rows.json").read_text())
KINDS = {"vm": "qm", "ct": "pct"}


def rows_of(*files: str) -> list[Any]:
    return [pytest.param(row, id=f"{row['file']}: {row['name']}") for row in ROWS if row["file"] in files]


def as_recorded(guest: guests.Guest) -> dict[str, Any]:
    return {
        "name": guest.name,
        "onboot": guest.onboot,
        "template": guest.template,
        "order": guest.order,
        "up": guest.up,
        "down": guest.down,
        "tags": list(guest.tags),
        "storages": sorted(guest.storages),
        "paths": sorted(guest.paths),
        "scripts": sorted(guest.scripts),
    }


@pytest.mark.parametrize("release", ["pve8", "pve9"])
@pytest.mark.parametrize("number", sorted(REAL["pve9"]["guests"]))
def test_guest_is_read_as_by_proxmox(release: str, number: str) -> None:
    real = REAL[release]["guests"][number]
    folder = {"qm": "qemu-server", "pct": "lxc"}[real["kind"]]
    text = (FILES / f"nodes/pve/{folder}/{number}.conf").read_bytes().decode()
    ours = as_recorded(guests.parse_guest(int(number), real["kind"], text))
    numbers = {key: None if real[key] is None else int(real[key]) for key in ("order", "up", "down")}
    same = {key: real[key] for key in ("name", "tags", "storages", "paths")}
    switches = {key: bool(real[key]) for key in ("onboot", "template")}
    assert {key: ours[key] for key in (*same, *switches, *numbers)} == {**same, **switches, **numbers}


@pytest.mark.parametrize("row", rows_of("vm", "ct"))
def test_guest_option_is_read_as_by_proxmox(row: dict[str, Any]) -> None:
    ours = as_recorded(guests.parse_guest(100, KINDS[row["file"]], row["text"]))
    assert {key: ours[key] for key in row["real"]} == row["real"], row["source"]


@pytest.mark.parametrize("release", ["pve8", "pve9"])
def test_storages_are_read_as_by_proxmox(release: str) -> None:
    ours = guests.parse_storages((FILES / "storage.cfg").read_text())
    real = REAL[release]["storages"]
    # A plugin that was not installed there; glusterfs is gone in 9; Proxmox does not use a section without its server.
    assert {*ours} - {"plug", "glu"} == {*real} - {"glu"}
    for name in {*ours} & {*real} - {"noserver", "backup"}:
        servers = [real[name][key].split(":")[0] for key in ("server", "server2", "portal") if key in real[name]]
        assert (ours[name].type, ours[name].path) == (real[name]["type"], real[name].get("path", ""))
        assert list(ours[name].servers) == servers
        assert ours[name].base == real[name].get("base", "").partition(":")[0]
    assert ours["noserver"].servers == ours["backup"].servers == ()


@pytest.mark.parametrize("row", rows_of("storage"))
def test_storage_is_read_as_by_proxmox(row: dict[str, Any]) -> None:
    ours = {name: list(storage.servers) for name, storage in guests.parse_storages(row["text"]).items()}
    assert ours == row["real"], row["source"]


def test_datacenter_cfg_is_read_as_by_proxmox() -> None:
    ours = datacenter.parse_datacenter((FILES / "datacenter.cfg").read_text())
    for real in (REAL["pve8"]["datacenter"], REAL["pve9"]["datacenter"]):
        assert ours.shutdown_policy == real["shutdown_policy"]
        assert ours.max_workers == int(real["max_workers"])
        assert ours.has_case_sensitive_tags is bool(real["tagstyle"]["case-sensitive"])


@pytest.mark.parametrize("row", rows_of("datacenter"))
def test_datacenter_option_is_read_as_by_proxmox(row: dict[str, Any]) -> None:
    ours = datacenter.parse_datacenter(row["text"])
    assert {key: getattr(ours, key) for key in row["real"]} == row["real"], row["source"]


def set_up_ha(root: Path, resources: str, status: str) -> None:
    (root / "etc/pve/ha").mkdir(parents=True)
    (root / "etc/pve/ha/resources.cfg").write_text(resources)
    if status:
        (root / "etc/pve/ha/manager_status").write_text(status)


def test_ha_resources_are_read_as_by_proxmox(tmp_path: Path) -> None:
    set_up_ha(tmp_path, (FILES / "ha/resources.cfg").read_text(), "")
    for real in (REAL["pve8"]["ha"], REAL["pve9"]["ha"]):
        managed = {int(name.partition(":")[2]) for name, state in real.items() if state != "ignored"}
        assert guests.read_ha(tmp_path).managed == managed


@pytest.mark.parametrize("row", rows_of("ha"))
def test_ha_resource_is_read_as_by_proxmox(tmp_path: Path, row: dict[str, Any]) -> None:
    set_up_ha(tmp_path, *row["text"])
    assert sorted(guests.read_ha(tmp_path).managed) == row["real"], row["source"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [("ignore", "HA is disarmed: until it is armed, Proxmox VE itself stops 1 guest (101)"), ("freeze", "are killed")],
)
def test_disarmed_ha_is_reported(tmp_path: Path, mode: str, words: str) -> None:
    set_up_ha(tmp_path, "vm: 101\n", json.dumps({"disarm": {"mode": mode, "state": "disarmed"}}))
    assert words in guests.read_ha(tmp_path).remarks[-1]


FORM = PropertyFormat(
    {"file": ".+", "size": grammar.SIZE, "ro": grammar.BOOLEAN}, "file", ("file",), {"volume": "file"}
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a:b", {"file": "a:b"}),
        ("a:b,size=1.5GiB,ro=ON", {"file": "a:b", "size": "1.5GiB", "ro": "ON"}),
        ("ro=1,volume=a", {"file": "a", "ro": "1"}),
        (" ,a,", {"file": "a"}),
        ("", None),
        ("ro=1", None),
        ("a,ro=2", None),
        ("a,Ro=1", None),
        ("a,size=1X", None),
        ("a,=1", None),
        ("a,file=b", None),
        ("file=a,volume=b", None),
    ],
)
def test_property_string(text: str, found: dict[str, str] | None) -> None:
    assert grammar.parse_properties(text, FORM) == found


@pytest.mark.parametrize(
    ("text", "storage"),
    [("nas:1/a.raw", "nas"), ("my.nas-1_x:a", "my.nas-1_x"), ("/mnt/a:b", ""), ("n:a", ""), ("nas:", ""), ("none", "")],
)
def test_storage_of_a_volume(text: str, storage: str) -> None:
    assert grammar.find_storage(text) == storage
