# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import multiprocessing
import os
import re
import stat
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible_collections.homelab.nut.plugins.lookup import password as plugin
from ansible_collections.homelab.nut.plugins.lookup.password import LookupModule

if TYPE_CHECKING:
    from pathlib import Path


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


def look(*names: str, check: bool = False, user: str = "", given: str = "", **hosts: dict[str, Any]) -> list[str]:
    return module().run(list(names), variables(check, **hosts), user=user, given=given)


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


def test_a_user_has_the_password_that_it_is_given() -> None:
    assert look("pve", user="a/b", given="c", pve={}) == ["c"]


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


@pytest.mark.parametrize(
    "folder", ["My inv length=3 chars=digits", "x encrypt=md5_crypt", "x seed=1", "a b=c", "100%", "{{ x }}"]
)
def test_a_path_is_only_a_path(tmp_path: Path, folder: str) -> None:
    """Ansible's own lookup takes KEY=VALUE behind a blank for an option: passwords of three digits, the same for all."""
    place = tmp_path / folder
    place.mkdir()
    names = ("nas", "media")
    made = look(*names, nas={"inventory_dir": str(place)}, media={"inventory_dir": str(place)})
    assert all(re.fullmatch("[A-Za-z0-9]{24}", one) for one in made)
    assert len(set(made)) == 2
    assert [(place / ".homelab-nut/passwords" / name).read_text() for name in names] == [f"{one}\n" for one in made]
    assert [path.name for path in tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize("host", ["p encrypt=md5_crypt", "x seed=1", "x length=2"])
def test_a_host_is_only_a_host(tmp_path: Path, host: str) -> None:
    (made,) = module().run([host], variables(**{host: {"inventory_dir": str(tmp_path)}}))
    assert re.fullmatch("[A-Za-z0-9]{24}", made)
    assert (tmp_path / ".homelab-nut/passwords" / host).read_text() == f"{made}\n"


@pytest.mark.parametrize("host", ["../nas", "a/b", "..", ".lock", "/etc/nas"])
def test_a_host_that_can_be_no_file(tmp_path: Path, host: str) -> None:
    with pytest.raises(AnsibleError, match="can't be the name of a file"):
        module().run([host], variables(**{host: {"inventory_dir": str(tmp_path)}}))
    assert list(tmp_path.iterdir()) == []


def test_it_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask is, and also where it was open before."""
    loose = tmp_path / ".homelab-nut"
    (loose / "passwords").mkdir(parents=True)
    (loose / "passwords").chmod(0o777)
    loose.chmod(0o755)
    before = os.umask(0)
    try:
        look("nas", nas={"inventory_dir": str(tmp_path)})
        look("pve", pve={"inventory_dir": str(tmp_path / "new")})
    finally:
        os.umask(before)
    for top in (loose, tmp_path / "new", tmp_path / "new/.homelab-nut"):
        assert {stat.S_IMODE(path.stat().st_mode) for path in (top, *top.rglob("*"))} <= {0o700, 0o600}


def test_a_folder_of_one_s_own_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    look("nas", nas={"nut_password_directory": str(tmp_path)})
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "nas").stat().st_mode) == 0o600


def test_check_mode_changes_no_mode(tmp_path: Path) -> None:
    (tmp_path / ".homelab-nut").mkdir()
    (tmp_path / ".homelab-nut").chmod(0o755)
    assert look("nas", check=True, nas={"inventory_dir": str(tmp_path)}) == ["to-be-made"]
    assert stat.S_IMODE((tmp_path / ".homelab-nut").stat().st_mode) == 0o755


def test_what_a_killed_run_left_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "nas").touch(0o644)
    own = {"nut_password_directory": str(tmp_path)}
    assert look("nas", check=True, nas=own) == ["to-be-made"]
    (made,) = look("nas", nas=own)
    assert (tmp_path / "nas").read_text() == f"{made}\n"
    assert stat.S_IMODE((tmp_path / "nas").stat().st_mode) == 0o600


def test_links(tmp_path: Path) -> None:
    """One to a password is followed. Through one that leads nowhere nothing is made, such as where a volume is not mounted."""
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault/nas").write_text("of-the-vault\n")
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "nas").symlink_to("../vault/nas")
    (folder / "media").symlink_to("../gone/media")
    assert look("nas", nas={"nut_password_directory": str(folder)}) == ["of-the-vault"]
    with pytest.raises(AnsibleError, match=r"can't be read or kept: .*media"):
        look("media", media={"nut_password_directory": str(folder)})
    assert not (tmp_path / "gone").exists()


def _asks(folder: str, barrier: Any, answers: Any) -> None:
    barrier.wait()
    answers.put(look("nas", nas={"inventory_dir": folder}))


def test_several_runs_at_once_have_one_password(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(6), context.Queue()
    runs = [context.Process(target=_asks, args=(str(tmp_path), barrier, answers)) for _unused in range(6)]
    for run in runs:
        run.start()
    given = [answers.get(timeout=60) for _unused in runs]
    for run in runs:
        run.join()
    assert len({tuple(one) for one in given}) == 1
    assert look("nas", nas={"inventory_dir": str(tmp_path)}) == given[0]
