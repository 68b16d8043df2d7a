# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils import _host, _service, _upsd_access
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.snapshot import UpsState
from ansible_collections.homelab.nut.plugins.modules import upsd_access
from ansible_collections.homelab.nut.tests.unit.support.hotplug_host import run_module
from ansible_collections.homelab.nut.tests.unit.support.kit_host import OWNERS
from ansible_collections.homelab.nut.tests.unit.support.nft import list_table

FILES = {name: f"text of {name}\n" for name in kits.ACCESS.places if name != kits.ACCESS_TABLE}
NAS = {"name": "nas", "address": "nas.lan"}
LOADED = list_table(["192.0.2.5"])


class Machine:
    """systemd and nft, as far as the module meets them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
        self.table: str | None = None
        self.refuses = False
        self.says: tuple[UpsState, ...] = ()  # upsd; nothing if it does not answer
        self.told: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        if tuple(command) == access.LIST:
            return (1, "No such file or directory") if self.table is None else (0, self.table)
        if command[:2] == ["systemctl", "show"]:
            block = "".join(f"{key}={value}\n" for key, value in self.state.items())
            return 0, f"{block}\n{block}"
        if command[0] == "journalctl":
            return 0, "nft: Operation not supported\n"
        self.told.append(" ".join(command))
        if {"start", "restart"} & set(command):
            if self.refuses:
                return 1, "Job for nut-access.service failed.\n"
            text = (self.root / "etc/nut/access.nft").read_text()
            those = [address for addresses in access.parse_sources(text).values() for address in addresses]
            self.table = list_table(those, ports=sorted(access.parse_ports(text)))
            self.state = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}
        if command[0] == "nft" or ("disable" in command and self.state["ActiveState"] == "active"):
            self.table = None  # ExecStop, only of a unit that is active
        if "disable" in command or command[0] == "nft":
            self.state = {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "disabled"}
        return 0, ""


def ups(status: str, *clients: str) -> UpsState:
    """Return what upsd says of a UPS."""
    return UpsState("ups", "", (status,), True, None, {}, clients, len(clients))


def connect(root: Path, *rows: tuple[str, int, str], state: str = "01") -> None:
    """Write the kernel's tables of sockets: own address, port, and the other end."""
    (root / "proc/net").mkdir(parents=True, exist_ok=True)
    for name, version in (("tcp", 4), ("tcp6", 6)):
        lines = [
            f"   {at}: {_kernels(here)}:{port:04X} {_kernels(peer)}:C350 {state} 0:0 00:0 0 100 0 {4000 + at} 1"
            for at, (here, port, peer) in enumerate(rows)
            if ipaddress.ip_address(here).version == version
        ]
        (root / "proc/net" / name).write_text("\n".join(["  sl  local_address rem_address   st", *lines]) + "\n")


def _kernels(address: str) -> str:
    raw = ipaddress.ip_address(address).packed
    words = [raw[at : at + 4] for at in range(0, len(raw), 4)]
    return b"".join(word[::-1] if sys.byteorder == "little" else word for word in words).hex().upper()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for folder in ("etc/nut", "etc/systemd/system", "run"):
        (tmp_path / folder).mkdir(parents=True)
    known = {"nas.lan": ["192.0.2.5"]}

    def resolve(name: str, _seconds: float) -> Sequence[str]:
        if name not in known:
            raise OSError("no such name")
        return known[name]

    made = Machine(tmp_path)
    made.known = known  # type: ignore[attr-defined]
    monkeypatch.setattr(_host, "ROOT", tmp_path)
    monkeypatch.setattr(_service, "OWNERS", OWNERS)
    monkeypatch.setattr(_service, "make_runner", lambda _module: made)
    monkeypatch.setattr(_upsd_access, "resolve_name", resolve)
    monkeypatch.setattr(_upsd_access, "ask_upsd", lambda: made.says)
    return made


@pytest.fixture
def run(machine: Machine, capfd: pytest.CaptureFixture[str]) -> Any:
    def run_it(*sources: dict[str, str], **options: Any) -> dict[str, Any]:
        machine.told.clear()
        if options.get("state") != "absent":
            options = {"files": FILES, "sources": list(sources), **options}
        return run_module(upsd_access, capfd, **options)

    return run_it


def test_table_is_installed_once_and_removed(run: Any, machine: Machine) -> None:
    checked = run(NAS, _ansible_check_mode=True)
    assert checked["changed"] is True
    assert list((machine.root / "etc/nut").iterdir()) == machine.told == []
    done = run(NAS)
    assert (done["changed"], done["loaded"], done["allowed"]) == (True, True, {"nas": ["192.0.2.5"]})
    assert set(done) - {"changed", "diff"} == set(yaml.safe_load(upsd_access.RETURN))
    assert machine.told == [
        "systemctl daemon-reload",
        "systemctl enable nut-access.service",
        "systemctl start nut-access.service",
    ]
    for place in kits.ACCESS.places.values():
        assert (machine.root / place.path).stat().st_mode & 0o777 == 0o644
    again = run(NAS)
    assert (again["changed"], again["loaded"], machine.told) == (False, True, [])
    gone = run(state="absent")
    assert (gone["changed"], gone["loaded"]) == (True, False)
    assert machine.told[0] == "systemctl disable --now nut-access.service"
    assert not [path for path in machine.root.rglob("*") if path.is_file() and path.name != "homelab-nut.lock"]
    assert run(state="absent")["changed"] is False


def test_flushed_table_is_loaded_again(run: Any, machine: Machine) -> None:
    run(NAS)
    machine.table = None
    done = run(NAS)
    assert done["actions"] == ["systemctl restart nut-access.service: the table inet homelab_nut is not loaded"]
    assert done["loaded"] is True


def test_table_without_unit_is_removed(run: Any, machine: Machine) -> None:
    machine.table = LOADED
    assert run(state="absent")["changed"] is True
    assert machine.told == ["nft delete table inet homelab_nut"]


def test_table_that_cannot_be_loaded_is_a_loud_warning(run: Any, machine: Machine) -> None:
    machine.refuses = True
    done = run(NAS)
    assert "failed" not in done
    assert done["loaded"] is False
    (words,) = done["warnings"]
    assert "ACCESS TO UPSD IS NOT LIMITED" in words
    assert "Job for nut-access.service failed. nft: Operation not supported" in words
    assert "nut_server_allow: any" in words
    # all files are there, so that a later boot may do better
    assert (machine.root / "etc/nut/access.nft").is_file()
    machine.refuses = False
    assert run(NAS)["loaded"] is True


def test_unresolved_name_is_a_warning(run: Any, machine: Machine) -> None:
    run(NAS)
    machine.known.clear()  # type: ignore[attr-defined]
    done = run(NAS, {"name": "tv", "address": "tv.lan"})
    assert done["allowed"] == {"nas": ["192.0.2.5"], "tv": []}
    first, second = done["warnings"]
    assert "nas (nas.lan) does not resolve on this host (no such name)" in first
    assert first.endswith("Until then it may connect from 192.0.2.5, as before")
    assert "tv (tv.lan) does not resolve" in second
    assert "nut_client_address of that host, or nut_server_allow" in second


def test_table_does_not_change_on_battery(run: Any, machine: Machine) -> None:
    run(NAS)
    before = (machine.root / "etc/nut/access.nft").read_text()
    machine.says = (ups("OB"),)
    # what changes nothing, or only loads what should be loaded, is done at any time
    assert run(NAS)["changed"] is False
    machine.table = None
    assert run(NAS)["loaded"] is True
    failed = run()
    assert failed["failed"] is True
    assert "ups (OB): not plainly on mains" in failed["msg"]
    assert (machine.root / "etc/nut/access.nft").read_text() == before
    assert machine.told == []
    assert run(_ansible_check_mode=True)["changed"] is True
    assert run(force=True)["allowed"] == {}


def test_first_table_is_not_created_on_battery(run: Any, machine: Machine) -> None:
    """A machine that is not in the inventory may be connected, and one that is cut off then may shut down."""
    machine.says = (ups("OB"),)
    assert "ups (OB): not plainly on mains" in run(NAS)["msg"]
    assert not (machine.root / "etc/nut/access.nft").exists()
    assert machine.told == []


HERE = "192.0.2.10"


@pytest.mark.parametrize("check", [False, True])
def test_logged_in_secondary_is_not_cut_off(run: Any, machine: Machine, check: bool) -> None:
    """Such as a secondary that connects from another address than the one in the inventory."""
    machine.says = (ups("OL", "127.0.0.1", "192.0.2.5", "192.0.2.9"),)
    connect(machine.root, (HERE, 3493, "192.0.2.5"), (HERE, 3493, "192.0.2.9"))
    failed = run(NAS, _ansible_check_mode=check)
    assert failed["failed"] is True
    assert failed["msg"].startswith("192.0.2.9 is logged in to upsd, but is not allowed to connect")
    for words in ("would get no warning of a power cut", "nut_client_address", "nut_server_allow", "force"):
        assert words in failed["msg"]
    assert "192.0.2.5" not in failed["msg"]
    assert machine.told == []
    assert not (machine.root / "etc/nut/access.nft").exists()
    done = run(NAS, force=True, _ansible_check_mode=check)
    assert done["changed"] is True
    (words,) = done["warnings"]
    assert ": 192.0.2.9 is logged in to upsd, but" in words


@pytest.mark.parametrize("check", [False, True])
def test_each_other_connected_client_is_a_warning(run: Any, machine: Machine, check: bool) -> None:
    """Also where upsd does not answer. This host itself is no other, nor who is connected to something else."""
    connect(
        machine.root,
        (HERE, 3493, "192.0.2.5"),
        (HERE, 3493, HERE),
        ("127.0.0.1", 3493, "127.0.0.1"),
        (HERE, 22, "192.0.2.66"),
        (HERE, 3493, "192.0.2.30"),
        (HERE, 3493, "192.0.2.30"),
        ("::ffff:192.0.2.10", 3493, "::ffff:192.0.2.31"),
        ("2001:db8::a", 3493, "2001:db8::7"),
    )
    done = run(NAS, _ansible_check_mode=check)
    assert "failed" not in done
    assert [words.split()[1] for words in done["warnings"]] == ["192.0.2.30", "192.0.2.31", "2001:db8::7"]
    assert all("is connected to upsd, but" in words and "nut_server_allow" in words for words in done["warnings"])


def test_own_address_may_be_logged_in(run: Any, machine: Machine) -> None:
    machine.says = (ups("OL", f"::ffff:{HERE}", "::1"),)
    connect(machine.root, (HERE, 3493, HERE))
    assert "warnings" not in run(NAS)


def test_client_already_shut_out_is_not_reported_again(run: Any, machine: Machine) -> None:
    tv = {"name": "tv", "address": "192.0.2.6"}
    assert run(NAS, tv)["changed"] is True
    # his connection may be there for a while
    connect(machine.root, (HERE, 3493, "192.0.2.66"), (HERE, 3493, "192.0.2.6"))
    machine.says = (ups("OL", "192.0.2.66"),)
    assert "warnings" not in run(NAS, tv)
    assert "warnings" not in run(NAS, tv, {"name": "new", "address": "192.0.2.7"})
    (words,) = run(NAS)["warnings"]
    assert ": 192.0.2.6 is connected" in words


def test_closed_connection_is_not_reported(run: Any, machine: Machine) -> None:
    connect(machine.root, (HERE, 3493, "192.0.2.30"), state="06")
    assert "warnings" not in run(NAS)


def test_connected_clients_do_not_matter_for_absent(run: Any, machine: Machine) -> None:
    run(NAS)
    machine.says = (ups("OB", "192.0.2.9"),)
    connect(machine.root, (HERE, 3493, "192.0.2.9"))
    gone = run(state="absent")
    assert gone["changed"] is True
    assert "warnings" not in gone


def test_current_port_of_upsd_stays_covered(run: Any, machine: Machine) -> None:
    """NUT may reject the configuration with the new port afterwards; then upsd stays on the old one."""
    table, conf = machine.root / "etc/nut/access.nft", machine.root / "etc/nut/upsd.conf"
    conf.write_text("LISTEN 192.0.2.10 3493\nLISTEN 127.0.0.1 99999\n")
    run(NAS, ports=[3493])
    run(NAS, ports=[4000])
    assert access.parse_ports(table.read_text()) == {3493, 4000}
    assert run(NAS, ports=[4000])["changed"] is False
    conf.write_text("LISTEN 192.0.2.10 4000\n")
    assert run(NAS, ports=[4000])["changed"] is True
    assert access.parse_ports(table.read_text()) == {4000}
    assert run(NAS, ports=[4000])["changed"] is False


def test_table_of_a_failed_unit_is_removed(run: Any, machine: Machine) -> None:
    """nft failed at boot, and nut-access loaded the table later, so stopping the unit does not remove it."""
    run(NAS)
    machine.state["ActiveState"] = "failed"
    gone = run(state="absent")
    assert gone["changed"] is True
    assert machine.table is None
    assert gone["actions"][-1] == "nft delete table inet homelab_nut: the table is still loaded"
    assert run(state="absent")["changed"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sources": [{"name": "x", "address": "192.0.2.7/24"}]}, "write 192.0.2.0/24 for the network"),
        ({"sources": [{"name": "x", "address": "} }"}]}, "is not an address, a network"),
        ({"ports": [70000]}, "port must be a number from 1 to 65535, not 70000"),
        ({"ports": []}, "port must be a number"),
        ({"files": {}}, "files must be"),
    ],
)
def test_invalid_option_changes_nothing(run: Any, machine: Machine, options: dict[str, Any], words: str) -> None:
    failed = run(**options)
    assert failed["failed"] is True
    assert words in failed["msg"]
    assert not [path for path in machine.root.rglob("*") if path.is_file() and path.name != "homelab-nut.lock"]


def test_host_without_nut_fails_except_in_check_mode(run: Any, machine: Machine) -> None:
    (machine.root / "etc/nut").rmdir()
    assert "NUT is not installed on this host" in run(NAS)["msg"]
    assert run(NAS, _ansible_check_mode=True)["changed"] is True
