# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
import stat
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import lookup_loader
from ansible_collections.homelab.nut.plugins.lookup import password as plugin
from ansible_collections.homelab.nut.plugins.lookup.password import LookupModule

if TYPE_CHECKING:
    from pathlib import Path


class Loader:
    """Ansible's own loader. Here, without a play, it knows its plugins by their short names alone."""

    @staticmethod
    def get(name: str, **context: Any) -> Any:
        collection, _dot, short = name.rpartition(".")
        assert collection == "ansible.builtin"
        return lookup_loader.get(short, **context)


@pytest.fixture(autouse=True)
def loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "lookup_loader", Loader)


def variables(check: bool = False, **hosts: dict[str, Any]) -> dict[str, Any]:
    """What a template sees: the host pve is a primary."""
    return {"hostvars": hosts, "groups": {"pve": ["pve"]}, "ansible_check_mode": check}


def module() -> LookupModule:
    """What Ansible does when it loads a plugin."""
    lookup = LookupModule(loader=DataLoader(), templar=None)
    lookup._load_name = "homelab.nut.password"
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    C.config.initialize_plugin_configuration_definitions("lookup", lookup._load_name, options)
    return lookup


def look(*names: str, check: bool = False, user: str = "", **hosts: dict[str, Any]) -> list[str]:
    return module().run(list(names), variables(check, **hosts), user=user)


def test_given_passwords() -> None:
    both = {"nut_client_password": "of-secondary", "nut_server_password": "of-primary"}
    assert look("nas", "pve", nas=both, pve=both) == ["of-secondary", "of-primary"]


def test_a_site_without_primaries() -> None:
    given = {"hostvars": {"pve": {"nut_client_password": "s"}}, "groups": {}}
    assert module().run(["pve"], given) == ["s"]


@pytest.mark.parametrize("password", ["a b", "a#b", "a=b", "a\\b", '"ab', "ü", "a\nb", "x" * 502])
@pytest.mark.parametrize("host", ["nas", "pve"])
def test_a_password_that_nut_cannot_carry(host: str, password: str) -> None:
    name = {"nas": "nut_client_password", "pve": "nut_server_password"}[host]
    with pytest.raises(AnsibleError, match=f"{host}: {name} can't be used: the password ") as caught:
        look(host, **{host: {name: password}})
    assert password not in str(caught.value)


def test_a_number_is_a_password() -> None:
    assert look("nas", nas={"nut_client_password": 12345678}) == ["12345678"]


@pytest.mark.parametrize("given", [{}, {"nut_client_password": ""}, {"nut_client_password": None}])
def test_one_is_made_and_kept(tmp_path: Path, given: dict[str, Any]) -> None:
    own = {**given, "inventory_dir": str(tmp_path)}
    (made,) = look("nas", nas=own)
    assert re.fullmatch("[A-Za-z0-9]{24}", made)
    kept = tmp_path / ".homelab-nut" / "passwords" / "nas"
    assert kept.read_text() == f"{made}\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert look("nas", nas=own) == [made]
    assert look("nas", check=True, nas=own) == [made]


def test_each_host_has_its_own(tmp_path: Path) -> None:
    own = {"inventory_dir": str(tmp_path)}
    assert len(set(look("nas", "media", "pve", nas=own, media=own, pve=own))) == 3


def test_a_directory_of_one_s_own(tmp_path: Path) -> None:
    folder = tmp_path / "my secrets"
    (made,) = look("nas", nas={"inventory_dir": str(tmp_path), "nut_password_directory": str(folder)})
    assert (folder / "nas").read_text().strip() == made
    assert [path.name for path in tmp_path.iterdir()] == ["my secrets"]


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    assert look("nas", check=True, nas={"inventory_dir": str(tmp_path)}) == ["to-be-made"]
    assert list(tmp_path.iterdir()) == []


def test_a_kept_one_that_nut_cannot_carry(tmp_path: Path) -> None:
    """People write into these files, too."""
    (tmp_path / "nas").write_text("my secret#1\n")
    with pytest.raises(AnsibleError, match=r"nas: what .*/nas holds can't be used: the password holds") as caught:
        look("nas", nas={"nut_password_directory": str(tmp_path)})
    assert "my secret" not in str(caught.value)


@pytest.mark.parametrize(("host", "name"), [("nas", "nut_client_password"), ("pve", "nut_server_password")])
def test_nowhere_to_keep_it(host: str, name: str) -> None:
    """Such as with an inventory on the command line."""
    with pytest.raises(AnsibleError, match=f"{host}: no directory beside the inventory .*: set {name}, or"):
        look(host, **{host: {"inventory_dir": None}})


def test_a_user_has_a_password_of_its_own(tmp_path: Path) -> None:
    """Not the one of upsmon, also where that is given."""
    own = {"inventory_dir": str(tmp_path), "nut_server_password": "of-upsmon"}
    (made,) = look("pve", user="admin", pve=own)
    assert made not in ("of-upsmon", *look("pve", user="dashboard", pve=own))
    assert (tmp_path / ".homelab-nut" / "passwords" / "admin@pve").read_text().strip() == made
    assert stat.S_IMODE((tmp_path / ".homelab-nut" / "passwords" / "admin@pve").stat().st_mode) == 0o600
    assert look("pve", user="admin", pve=own) == [made]


@pytest.mark.parametrize("user", ["a b", "../x", "a/b", "x#"])
def test_a_name_that_no_user_can_have(tmp_path: Path, user: str) -> None:
    with pytest.raises(AnsibleError, match=r"pve: .* can't be a user"):
        look("pve", user=user, pve={"inventory_dir": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def test_passwords_of_the_first_release_are_moved(tmp_path: Path) -> None:
    """Where they were, Ansible took each for the name of a host."""
    old = tmp_path / "passwords"
    old.mkdir()
    (old / "nas").write_text("of-before\n")
    (old / "wifi").write_text("somebody else's\n")
    assert look("nas", check=True, nas={"inventory_dir": str(tmp_path)}) == ["of-before"]
    assert (old / "nas").exists()
    assert look("nas", nas={"inventory_dir": str(tmp_path)}) == ["of-before"]
    assert [path.name for path in old.iterdir()] == ["wifi"]
    assert look("nas", nas={"inventory_dir": str(tmp_path)}) == ["of-before"]


def test_no_file_beside_the_inventory_is_taken_for_a_part_of_it(tmp_path: Path) -> None:
    """Seen by Ansible's own reader of inventories."""
    (tmp_path / "hosts.yml").write_text("pve: {hosts: {pve: }}\n")
    look("pve", user="admin", pve={"inventory_dir": str(tmp_path)})
    look("pve", pve={"inventory_dir": str(tmp_path)})
    assert [str(host) for host in InventoryManager(DataLoader(), sources=str(tmp_path)).get_hosts()] == ["pve"]
