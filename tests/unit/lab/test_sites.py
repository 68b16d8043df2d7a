# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import homelab
import pytest
from homelab import Lab, LabError, all_hosts
from homelab.hosts import SITES, LabHost, LabUps
from homelab.images import APT_OPTIONS
from usb.profiles import PROFILES

CHECKOUT = Path(__file__).resolve().parents[3]


def test_host_names_are_unique_across_sites() -> None:
    """They share a network, where a host's name is its address."""
    names = [host.name for host in all_hosts(SITES)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("site", SITES)
def test_each_site_has_one_primary_with_distinguishable_upses(site: str) -> None:
    assert [host.group for host in SITES[site]].count("pve") == 1
    # the machines of newcomer have no hardware of the lab
    assert [host.kind for host in SITES[site] if host.ups] == ([] if site == "newcomer" else ["pve"])
    for host in SITES[site]:
        # what is there, as a driver can tell: the model, and the serial number that it says
        seen = [
            (ups.model, PROFILES[ups.model].identity.serial if ups.serial is None else ups.serial) for ups in host.ups
        ]
        assert len(seen) == len(set(seen))


def test_large_site_has_two_identical_upses() -> None:
    models = Counter(ups.model for host in SITES["rack"] for ups in host.ups)
    assert sorted(models.values()) == [1, 2]
    assert Counter((host.kind, host.release) for host in SITES["rack"] if not host.ups) == {
        ("truenas", "bookworm"): 1,
        ("linux", "bookworm"): 2,
        ("linux", "trixie"): 2,
    }


def load_program(path: str) -> ModuleType:
    """Take a program of the checkout for a module."""
    loader = importlib.machinery.SourceFileLoader(path.replace("/", "_"), str(CHECKOUT / path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab that is what the environment names."""
    lab = Lab("test", tmp_path)
    lab.state.mkdir(parents=True)
    monkeypatch.setattr(Lab, "from_environment", lambda: lab)
    return lab


@pytest.mark.parametrize(
    "case",
    [
        ([], [], ["pve8", "pve9"]),
        ([], ["rack"], ["rack"]),
        (["rack"], [], ["rack"]),
        (["rack"], ["pve8"], ["rack"]),
    ],
)
def test_lab_up_starts_the_right_sites(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, case: tuple[list[str], list[str], list[str]]
) -> None:
    words, there, started = case
    up = {host.name: {"ssh": 1} for site in there for host in SITES[site]}
    (lab.state / "lab.json").write_text(json.dumps({"hosts": up}))
    asked: list[str] = []
    monkeypatch.setattr(Lab, "start_sites", lambda _lab, sites: asked.extend(sites))
    monkeypatch.setattr("sys.argv", ["lab", "up", *words])
    assert load_program("lab/lab").main() == 0
    assert asked == started


def test_inventory_distinguishes_labs_by_port(lab: Lab) -> None:
    """Ansible takes up a connection that is kept for the same host, port and user: a name is not enough."""
    up = {host.name: {"ssh": 2201 + number} for number, host in enumerate(SITES["rack"]) if host.kind != "truenas"}
    (lab.state / "lab.json").write_text(json.dumps({"hosts": up}))
    inventory = load_program("inventories/lab/hosts.py").make_inventory(lab)
    assert inventory["pve"] == {"hosts": ["rack"]}
    assert {name: told["ansible_port"] for name, told in inventory["_meta"]["hostvars"].items()} == {
        name: ports["ssh"] for name, ports in up.items()
    }


class Hardware(Lab):
    """A lab whose USB hardware is not there at once. LATE: how often it does not answer."""

    def __init__(self, folder: Path, late: int) -> None:
        super().__init__("test", folder)
        self.late = late
        self.plugged: list[tuple[str, ...]] = []

    def control_ups(self, host: str, *words: str) -> str:
        if self.late:
            self.late -= 1
            raise LabError("does not answer")
        if words[0] == "plug":
            self.plugged.append((host, *words[1:]))
        return ""


TWO = LabHost("host", "pve", "trixie", "pve", ups=(LabUps("apc"), LabUps("apc", "S2"), LabUps("eaton", "")))


def test_upses_are_plugged_in_once_the_emulator_answers(tmp_path: Path) -> None:
    lab = Hardware(tmp_path, late=2)
    lab._plug_in_upses(TWO)
    assert lab.plugged == [("host", "apc"), ("host", "apc", "--serial", "S2"), ("host", "eaton", "--serial", "")]


def test_plugging_fails_if_the_emulator_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homelab, "READY_SECONDS", 0.2)
    with pytest.raises(LabError, match="does not answer"):
        Hardware(tmp_path, late=1000)._plug_in_upses(TWO)


@pytest.mark.parametrize(
    ("release", "is_v1", "first", "volumes"),
    [
        ("trixie", False, ["/sbin/init"], []),
        ("forky", False, ["/sbin/init"], []),
        ("bookworm", True, ["/sbin/init"], ["--volume"]),
        ("forky", True, ["/bin/sh", homelab.V2_INIT], []),
    ],
)
def test_new_systemd_sees_cgroup_v2_alone(release: str, is_v1: bool, first: list[str], volumes: list[str]) -> None:
    """systemd 258 and newer refuses to run where the kernel has cgroup v1, too."""
    options, process = homelab.choose_init(release, is_v1)
    assert process == first
    assert [word for word in options if word == "--volume"] == volumes
    assert ("SYS_ADMIN" in options) == ("private" in options) == (len(first) > 1)


def test_every_image_has_the_first_process_for_cgroup_v2() -> None:
    images = CHECKOUT / "lab/images"
    assert (images / "common" / Path(homelab.V2_INIT).name).is_file()
    kinds = {host.kind for host in all_hosts(SITES) if host.release not in homelab.KNOWS_CGROUP_V1}
    for kind in kinds:
        folder = str(Path(homelab.V2_INIT).parent)
        assert f"COPY images/common {folder}\n" in (images / f"Containerfile.{kind}").read_text()


def test_index_past_its_date_is_allowed_only_before_a_release() -> None:
    assert set(APT_OPTIONS) == {host.release for host in all_hosts(SITES)} - {"bookworm", "trixie"}
    assert not any(
        "Authenticat" in option or "Insecure" in option for options in APT_OPTIONS.values() for option in options
    )
