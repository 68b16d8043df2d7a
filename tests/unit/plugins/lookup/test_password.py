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
    """Return the variables of a play in which the host pve is a primary."""
    return {"hostvars": hosts, "groups": {"pve": ["pve"]}, "ansible_check_mode": check}


def module() -> LookupModule:
    """Return the plugin as Ansible loads it."""
    lookup = LookupModule(loader=DataLoader(), templar=None)
    lookup._load_name = "homelab.nut.password"
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    C.config.initialize_plugin_configuration_definitions("lookup", lookup._load_name, options)
    return lookup


def look(*names: str, check: bool = False, user: str = "", given: str = "", **hosts: dict[str, Any]) -> list[str]:
    return module().run(list(names), variables(check, **hosts), user=user, given=given)


def test_provided_passwords_are_returned() -> None:
    both = {"nut_client_password": "of-secondary", "nut_server_password": "of-primary"}
    assert look("nas", "pve", nas=both, pve=both) == ["of-secondary", "of-primary"]


def test_groups_without_primaries_are_allowed() -> None:
    given = {"hostvars": {"pve": {"nut_client_password": "s"}}, "groups": {}}
    assert module().run(["pve"], given) == ["s"]


@pytest.mark.parametrize("password", ["a b", "a#b", "a=b", "a\\b", '"ab', "ü", "a\nb", "x" * 502])
@pytest.mark.parametrize("host", ["nas", "pve"])
def test_provided_password_that_nut_would_corrupt_is_refused(host: str, password: str) -> None:
    name = {"nas": "nut_client_password", "pve": "nut_server_password"}[host]
    with pytest.raises(AnsibleError, match=f"{host}: {name} can't be used: it ") as caught:
        look(host, **{host: {name: password}})
    assert password not in str(caught.value)


def test_number_is_a_valid_password() -> None:
    assert look("nas", nas={"nut_client_password": 12345678}) == ["12345678"]


@pytest.mark.parametrize("given", [{}, {"nut_client_password": ""}, {"nut_client_password": None}])
def test_password_is_generated_and_kept(tmp_path: Path, given: dict[str, Any]) -> None:
    own = {**given, "inventory_dir": str(tmp_path)}
    (made,) = look("nas", nas=own)
    assert re.fullmatch("[A-Za-z0-9]{24}", made)
    kept = tmp_path / ".homelab-nut" / "passwords" / "nas"
    assert kept.read_text() == f"{made}\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert look("nas", nas=own) == [made]
    assert look("nas", check=True, nas=own) == [made]


def test_hosts_have_different_passwords(tmp_path: Path) -> None:
    own = {"inventory_dir": str(tmp_path)}
    assert len(set(look("nas", "media", "pve", nas=own, media=own, pve=own))) == 3


def test_user_can_choose_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "my secrets"
    (made,) = look("nas", nas={"inventory_dir": str(tmp_path), "nut_password_directory": str(folder)})
    assert (folder / "nas").read_text().strip() == made
    assert [path.name for path in tmp_path.iterdir()] == ["my secrets"]


def test_roles_make_no_password_before_they_have_seen_the_host(tmp_path: Path) -> None:
    own = {"nas": {"inventory_dir": str(tmp_path)}}
    given = {**variables(**own), "__nut_may_make_secrets": False}
    assert module().run(["nas"], given) == ["to-be-made"]
    assert list(tmp_path.iterdir()) == []
    made = look("nas", **own)
    assert module().run(["nas"], given) == made != ["to-be-made"]


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    assert look("nas", check=True, nas={"inventory_dir": str(tmp_path)}) == ["to-be-made"]
    assert list(tmp_path.iterdir()) == []


def test_kept_password_that_nut_would_corrupt_is_refused(tmp_path: Path) -> None:
    """People edit these files, too."""
    (tmp_path / "nas").write_text("my secret#1\n")
    with pytest.raises(AnsibleError, match=r"nas: the password in .*/nas can't be used: it contains") as caught:
        look("nas", nas={"nut_password_directory": str(tmp_path)})
    assert "my secret" not in str(caught.value)


@pytest.mark.parametrize(("host", "name"), [("nas", "nut_client_password"), ("pve", "nut_server_password")])
def test_missing_inventory_directory_is_an_error(host: str, name: str) -> None:
    """For example, with an inventory on the command line."""
    with pytest.raises(AnsibleError, match=f"{host}: there is no inventory directory .*: set {name}, or"):
        look(host, **{host: {"inventory_dir": None}})


def test_upsd_user_has_another_password_than_upsmon(tmp_path: Path) -> None:
    """Even if the inventory provides a password for upsmon."""
    own = {"inventory_dir": str(tmp_path), "nut_server_password": "of-upsmon"}
    (made,) = look("pve", user="admin", pve=own)
    assert made not in ("of-upsmon", *look("pve", user="dashboard", pve=own))
    assert (tmp_path / ".homelab-nut" / "passwords" / "admin@pve").read_text().strip() == made
    assert stat.S_IMODE((tmp_path / ".homelab-nut" / "passwords" / "admin@pve").stat().st_mode) == 0o600
    assert look("pve", user="admin", pve=own) == [made]


def test_upsd_user_has_the_provided_password() -> None:
    assert look("pve", user="a/b", given="c", pve={}) == ["c"]


@pytest.mark.parametrize("user", ["a b", "../x", "a/b", "x#"])
def test_invalid_user_name_is_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(AnsibleError, match=r"pve: .* can't be a user"):
        look("pve", user=user, pve={"inventory_dir": str(tmp_path)})
    assert not list(tmp_path.iterdir())


def test_passwords_of_release_0_1_0_are_moved(tmp_path: Path) -> None:
    """Ansible took the old files for names of hosts."""
    old = tmp_path / "passwords"
    old.mkdir()
    (old / "nas").write_text("of-before\n")
    (old / "wifi").write_text("of another program\n")
    assert look("nas", check=True, nas={"inventory_dir": str(tmp_path)}) == ["of-before"]
    assert (old / "nas").exists()
    assert look("nas", nas={"inventory_dir": str(tmp_path)}) == ["of-before"]
    assert [path.name for path in old.iterdir()] == ["wifi"]
    assert look("nas", nas={"inventory_dir": str(tmp_path)}) == ["of-before"]


def test_ansible_reads_no_password_file_as_inventory(tmp_path: Path) -> None:
    """As read by Ansible's inventory manager."""
    (tmp_path / "hosts.yml").write_text("pve: {hosts: {pve: }}\n")
    look("pve", user="admin", pve={"inventory_dir": str(tmp_path)})
    look("pve", pve={"inventory_dir": str(tmp_path)})
    assert [str(host) for host in InventoryManager(DataLoader(), sources=str(tmp_path)).get_hosts()] == ["pve"]


@pytest.mark.parametrize(
    "folder", ["My inv length=3 chars=digits", "x encrypt=md5_crypt", "x seed=1", "a b=c", "100%", "{{ x }}"]
)
def test_path_is_not_parsed_for_options(tmp_path: Path, folder: str) -> None:
    """Ansible's own password lookup reads KEY=VALUE after a blank as an option, for example passwords of three digits."""
    place = tmp_path / folder
    place.mkdir()
    names = ("nas", "media")
    made = look(*names, nas={"inventory_dir": str(place)}, media={"inventory_dir": str(place)})
    assert all(re.fullmatch("[A-Za-z0-9]{24}", password) for password in made)
    assert len(set(made)) == 2
    assert [(place / ".homelab-nut/passwords" / name).read_text() for name in names] == [
        f"{password}\n" for password in made
    ]
    assert [path.name for path in tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize("host", ["p encrypt=md5_crypt", "x seed=1", "x length=2"])
def test_host_name_is_not_parsed_for_options(tmp_path: Path, host: str) -> None:
    (made,) = module().run([host], variables(**{host: {"inventory_dir": str(tmp_path)}}))
    assert re.fullmatch("[A-Za-z0-9]{24}", made)
    assert (tmp_path / ".homelab-nut/passwords" / host).read_text() == f"{made}\n"


@pytest.mark.parametrize("host", ["../nas", "a/b", "..", ".lock", "/etc/nas"])
def test_host_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(AnsibleError, match="can't be the name of a file"):
        module().run([host], variables(**{host: {"inventory_dir": str(tmp_path)}}))
    assert list(tmp_path.iterdir()) == []


def test_files_and_folders_are_for_the_owner_only(tmp_path: Path) -> None:
    """For any umask, and even if the folder was open to others."""
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


def test_mode_of_a_chosen_directory_is_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    look("nas", nas={"nut_password_directory": str(tmp_path)})
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "nas").stat().st_mode) == 0o600


def test_check_mode_changes_no_mode(tmp_path: Path) -> None:
    (tmp_path / ".homelab-nut").mkdir()
    (tmp_path / ".homelab-nut").chmod(0o755)
    assert look("nas", check=True, nas={"inventory_dir": str(tmp_path)}) == ["to-be-made"]
    assert stat.S_IMODE((tmp_path / ".homelab-nut").stat().st_mode) == 0o755


def test_empty_file_of_a_killed_run_is_filled(tmp_path: Path) -> None:
    (tmp_path / "nas").touch(0o644)
    own = {"nut_password_directory": str(tmp_path)}
    assert look("nas", check=True, nas=own) == ["to-be-made"]
    (made,) = look("nas", nas=own)
    assert (tmp_path / "nas").read_text() == f"{made}\n"
    assert stat.S_IMODE((tmp_path / "nas").stat().st_mode) == 0o600


def test_link_is_followed_but_dangling_link_is_an_error(tmp_path: Path) -> None:
    """A dangling link may point to a volume that is not mounted, so no file is made there."""
    (tmp_path / "vault").mkdir()
    (tmp_path / "vault/nas").write_text("of-the-vault\n")
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "nas").symlink_to("../vault/nas")
    (folder / "media").symlink_to("../gone/media")
    assert look("nas", nas={"nut_password_directory": str(folder)}) == ["of-the-vault"]
    with pytest.raises(AnsibleError, match=r"cannot read or keep a password: .*media"):
        look("media", media={"nut_password_directory": str(folder)})
    assert not (tmp_path / "gone").exists()


def _put_answer(folder: str, barrier: Any, answers: Any) -> None:
    barrier.wait()
    answers.put(look("nas", nas={"inventory_dir": folder}))


def test_concurrent_runs_get_the_same_password(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(6), context.Queue()
    runs = [context.Process(target=_put_answer, args=(str(tmp_path), barrier, answers)) for _unused in range(6)]
    for run in runs:
        run.start()
    given = [answers.get(timeout=60) for _unused in runs]
    for run in runs:
        run.join()
    assert len({tuple(answer) for answer in given}) == 1
    assert look("nas", nas={"inventory_dir": str(tmp_path)}) == given[0]
