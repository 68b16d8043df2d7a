# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import multiprocessing
import stat
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.homelab.nut.plugins.lookup import certificate as plugin
from ansible_collections.homelab.nut.plugins.lookup.certificate import LookupModule
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files as base_files
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import nss
from ansible_collections.homelab.nut.plugins.plugin_utils import certificates
from ansible_collections.homelab.nut.plugins.plugin_utils.certificates import Pair
from ansible_collections.homelab.nut.tests.unit.support import killed

NOW = datetime.now(timezone.utc)
DAY = timedelta(days=1)
YEAR = timedelta(days=365)
GIVEN = ("ca", "certificate", "key")


@pytest.fixture(autouse=True)
def forget_check_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what an earlier test made in check mode."""
    monkeypatch.setattr(plugin, "_made_in_check_mode", {})


class Clock(datetime):
    """A clock that a test can set forward."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz: Any = None) -> Clock:
        real = datetime.now(tz) + cls.ahead
        return cls.fromtimestamp(real.timestamp(), tz)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(plugin, "datetime", Clock)
    monkeypatch.setattr(Clock, "ahead", timedelta())
    return Clock


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(plugin.display, "warning", messages.append)
    return messages


def look(
    host: str,
    part: str = "all",
    check: bool = False,
    loader: Any = None,
    may_make: bool = True,
    **hosts: dict[str, Any],
) -> Any:
    lookup = LookupModule(loader=loader or DataLoader(), templar=None)
    # as Ansible does when it loads a plugin
    lookup._load_name = "homelab.nut.certificate"
    options = yaml.safe_load(plugin.DOCUMENTATION)["options"]
    C.config.initialize_plugin_configuration_definitions("lookup", lookup._load_name, options)
    variables = {
        "hostvars": hosts,
        "groups": {"pve": list(hosts)},
        "ansible_check_mode": check,
        "__nut_may_make_secrets": may_make,
    }
    (result,) = lookup.run([host], variables, part=part)
    return result


def covered_names(found: dict[str, str]) -> set[str]:
    return set(certificates._list_names(certificates.read_certificate("certificate", found["certificate"])))


# Issued by our own authority


def test_certificate_is_issued_and_kept(tmp_path: Path) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    found = look("pve", pve=pve)
    assert sorted(found) == ["ca", "certificate", "kept", "key", "nickname", "path"]
    assert certificates.needs_renewal(Pair(found["certificate"], found["key"]), found["ca"], ["pve"], NOW) == ""
    kept = tmp_path / ".homelab-nut" / "tls"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    files = {path.name: path.read_text() for path in kept.iterdir()}
    assert {name for name in files if not name.startswith(".")} == {"ca.pem", "ca.key", "pve.pem", "pve.key"}
    assert (files["ca.pem"], files["pve.pem"], files["pve.key"]) == (found["ca"], found["certificate"], found["key"])
    assert {stat.S_IMODE((kept / name).stat().st_mode) for name in files if not name.startswith(".")} == {0o600}
    assert certificates.is_key_of(files["ca.pem"], files["ca.key"])
    assert found["nickname"] == "pve"
    assert found["path"] == str(
        nss.database_path(nss.TlsMaterial(found["ca"], found["certificate"], found["key"], "pve"))
    )


def test_next_run_changes_nothing(tmp_path: Path) -> None:
    pve = {"inventory_dir": str(tmp_path), "ansible_host": "fe80::2%eth0", "nut_server_tls": {"names": ["nut.lan"]}}
    found = look("pve", pve=pve)
    before = {path: path.stat() for path in (tmp_path / ".homelab-nut" / "tls").iterdir()}
    assert look("pve", pve=pve) == look("pve", pve=pve, check=True) == found
    assert {path: path.stat().st_mtime_ns for path in before} == {path: old.st_mtime_ns for path, old in before.items()}


def test_lookup_killed_at_any_line_leaves_a_usable_folder(tmp_path: Path) -> None:
    """The next run finds a matching pair or makes a new one, and no temporary file with a key is left behind."""
    pve = {"inventory_dir": str(tmp_path)}
    kept = tmp_path / ".homelab-nut" / "tls"
    pairs = []
    for line in itertools.count(1):
        if not killed.kill_at_line(line, lambda: look("pve", pve=pve), (base_files,), times=2):
            break
        found = look("pve", pve=pve)
        assert certificates.needs_renewal(Pair(found["certificate"], found["key"]), found["ca"], ["pve"], NOW) == ""
        assert sorted(path.name for path in kept.iterdir()) == [".lock", "ca.key", "ca.pem", "pve.key", "pve.pem"]
        pairs.append(found["key"])
        (kept / "pve.pem").unlink()
    assert len(set(pairs)) > 5


def test_secondary_gets_only_the_authority(tmp_path: Path) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    found = look("pve", part="ca", pve=pve)
    assert sorted(found) == ["ca", "kept", "path"]
    assert not (tmp_path / ".homelab-nut" / "tls" / "pve.pem").exists()
    assert found["path"] == str(nss.database_path(nss.TlsMaterial(found["ca"])))
    primary = look("pve", pve=pve)
    assert primary["ca"] == found["ca"]
    assert primary["path"] != found["path"]


def test_primaries_share_one_authority(tmp_path: Path) -> None:
    own = {"inventory_dir": str(tmp_path)}
    first, second = look("pve", pve=own, pve2=own), look("pve2", pve=own, pve2=own)
    assert first["ca"] == second["ca"]
    assert first["key"] != second["key"]


def test_certificate_covers_all_names_of_the_host(tmp_path: Path) -> None:
    pve = {
        "inventory_dir": str(tmp_path),
        "ansible_host": "192.0.2.2",
        "nut_server_address": "pve.home.lan",
        "nut_server_tls": {"names": ["nut.lan", "2001:db8::2"]},
    }
    loopback = {"localhost", "127.0.0.1", "::1"}
    assert covered_names(look("pve", pve=pve)) == {
        "pve",
        "192.0.2.2",
        "pve.home.lan",
        "nut.lan",
        "2001:db8::2",
        *loopback,
    }
    assert look("pve", part="name", pve=pve) == "pve.home.lan"


def test_host_may_have_a_name_that_no_certificate_can_have(tmp_path: Path) -> None:
    own = {"inventory_dir": str(tmp_path), "ansible_host": "fd00::2"}
    found = look("der Büro-Server", **{"der Büro-Server": own})
    assert covered_names(found) == {"fd00::2", "localhost", "127.0.0.1", "::1"}
    assert found["nickname"] == "der_B_ro-Server"
    assert look("fd00::2", part="name", **{"fd00::2": own}) == "fd00::2"
    assert look("fd00::2", **{"fd00::2": own})["nickname"] == "fd00__2"


@pytest.mark.parametrize(
    "own", [{"nut_server_address": "der Server"}, {"nut_server_tls": {"names": ["pve", "der Server"]}}]
)
def test_invalid_name_is_refused(tmp_path: Path, own: dict[str, Any]) -> None:
    with pytest.raises(AnsibleError, match="pve: cannot issue a certificate for 'der Server', which is neither"):
        look("pve", pve={"inventory_dir": str(tmp_path), **own})


def test_loopback_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match=r"pve: secondaries can't reach this host at 127\.0\.0\.1"):
        look("pve", pve={"inventory_dir": str(tmp_path), "ansible_host": "127.0.0.1"})


def test_user_can_choose_the_directory(tmp_path: Path) -> None:
    folder = tmp_path / "my secrets" / "tls"
    look("pve", pve={"inventory_dir": str(tmp_path), "nut_tls_directory": str(folder)})
    assert (folder / "pve.key").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["my secrets"]


def test_missing_inventory_directory_is_an_error() -> None:
    """For example, with an inventory on the command line."""
    with pytest.raises(AnsibleError, match=r"pve: there is no inventory directory .*: set nut_tls_directory, or"):
        look("pve", pve={"inventory_dir": None})


def test_host_named_like_the_authority_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnsibleError, match="ca: this name is reserved for the files of the certificate authority"):
        look("ca", ca={"inventory_dir": str(tmp_path)})


def test_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".homelab-nut").mkdir()
    (tmp_path / ".homelab-nut" / "tls").write_text("a file")
    with pytest.raises(AnsibleError, match="tls"):
        look("pve", pve={"inventory_dir": str(tmp_path)})


def _look_in_a_fork(folder: str) -> tuple[str, str]:
    found = look("pve", pve={"inventory_dir": folder})
    return found["ca"], found["key"]


def test_concurrent_forks_get_the_same_certificate(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(6) as pool:
        found = pool.map(_look_in_a_fork, [str(tmp_path)] * 12, chunksize=1)
    assert len(set(found)) == 1


# In check mode


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    found = look("pve", check=True, pve=pve)
    assert list(tmp_path.iterdir()) == []
    assert look("pve", check=True, pve=pve) == found
    assert look("pve", part="ca", check=True, pve=pve)["ca"] == found["ca"]
    assert look("nas", check=True, pve=pve, nas=pve)["ca"] == found["ca"]
    assert look("pve", check=True, pve={**pve, "nut_tls_directory": "/elsewhere"})["ca"] != found["ca"]
    assert not found["kept"]
    # a real run does not use it
    made = look("pve", pve=pve)
    assert made["ca"] != found["ca"]
    assert made["kept"]
    assert look("pve", check=True, pve=pve)["kept"]


def test_roles_make_no_authority_before_they_have_seen_the_host(tmp_path: Path) -> None:
    found = look("pve", pve={"inventory_dir": str(tmp_path)}, may_make=False)
    assert not found["kept"]
    assert list(tmp_path.iterdir()) == []


def test_check_mode_shows_a_renewal(tmp_path: Path, clock: type[Clock]) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    found = look("pve", pve=pve)
    before = {path: path.read_text() for path in (tmp_path / ".homelab-nut" / "tls").iterdir()}
    clock.ahead = 9 * YEAR
    shown = look("pve", check=True, pve=pve)
    assert (shown["ca"] == found["ca"], shown["key"] == found["key"]) == (False, False)
    assert look("pve", check=True, pve=pve) == shown
    assert {path: path.read_text() for path in (tmp_path / ".homelab-nut" / "tls").iterdir()} == before


# Renewed


def test_host_certificate_is_renewed_three_years_before_expiry(tmp_path: Path, clock: type[Clock]) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    found = look("pve", pve=pve)
    clock.ahead = 7 * YEAR - DAY
    assert look("pve", pve=pve) == found
    clock.ahead = 7 * YEAR + DAY
    renewed = look("pve", pve=pve)
    assert renewed["ca"] == found["ca"]
    assert renewed["certificate"] != found["certificate"]
    assert renewed["path"] != found["path"]
    assert certificates.is_key_of(renewed["certificate"], renewed["key"])


def test_authority_is_renewed_with_the_same_key(tmp_path: Path, clock: type[Clock]) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    found = look("pve", pve=pve)
    key = (tmp_path / ".homelab-nut" / "tls" / "ca.key").read_text()
    clock.ahead = 8 * YEAR + DAY
    renewed = look("pve", pve=pve)
    assert renewed["ca"] != found["ca"]
    assert (tmp_path / ".homelab-nut" / "tls" / "ca.key").read_text() == key
    # secondaries that do not have the new certificate yet keep working
    for ca in (found["ca"], renewed["ca"]):
        for host in (found, renewed):
            assert (
                certificates.check_certificates(ca, host["certificate"], host["key"], "pve", NOW + clock.ahead).ca == ca
            )


def test_added_name_renews_and_removed_name_does_not(tmp_path: Path) -> None:
    pve = {"inventory_dir": str(tmp_path), "ansible_host": "192.0.2.2"}
    found = look("pve", pve=pve)
    moved = look("pve", pve={**pve, "ansible_host": "192.0.2.3"})
    assert moved["path"] != found["path"]
    assert covered_names(moved) == {"pve", "192.0.2.3", "localhost", "127.0.0.1", "::1"}
    assert look("pve", pve={"inventory_dir": str(tmp_path)}) == moved


@pytest.mark.parametrize("lost", [["ca.pem"], ["ca.pem", "ca.key"], ["pve.pem"], ["pve.key"]])
def test_lost_file_is_made_again(tmp_path: Path, lost: list[str]) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    found = look("pve", pve=pve)
    for name in lost:
        (tmp_path / ".homelab-nut" / "tls" / name).unlink()
    again = look("pve", pve=pve)
    assert (again["ca"] == found["ca"]) == ("ca.pem" not in lost)
    assert again["certificate"] != found["certificate"]
    assert certificates.needs_renewal(Pair(again["certificate"], again["key"]), again["ca"], ["pve"], NOW) == ""


def test_authority_without_key_works_until_a_signature_is_needed(tmp_path: Path, clock: type[Clock]) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    found = look("pve", pve=pve)
    (tmp_path / ".homelab-nut" / "tls" / "ca.key").unlink()
    assert look("pve", pve=pve) == found
    clock.ahead = 6 * YEAR
    assert look("pve", pve=pve) == found
    with pytest.raises(
        AnsibleError,
        match=r"nas: cannot sign .*/tls/nas\.pem \(it does not exist\), because .*/tls/ca\.key is missing: restore it",
    ):
        look("nas", pve=pve, nas=pve)
    clock.ahead = 8 * YEAR
    assert look("pve", part="ca", pve=pve)["ca"] == found["ca"]
    with pytest.raises(AnsibleError, match=r"cannot sign .*pve\.pem \(it expires on"):
        look("pve", pve=pve)


@pytest.mark.parametrize("name", ["ca.pem", "ca.key"])
@pytest.mark.parametrize("text", ["nonsense", b"\xff\xfe"])
def test_broken_authority_is_not_replaced(tmp_path: Path, name: str, text: str | bytes) -> None:
    """Secondaries would reject a new authority."""
    pve = {"inventory_dir": str(tmp_path)}
    look("pve", pve=pve)
    path = tmp_path / ".homelab-nut" / "tls" / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AnsibleError, match=f"/tls/{name} can't be used: it is not a valid .*. Restore it"):
        look("pve", pve=pve)
    assert path.read_bytes() in (b"nonsense", b"\xff\xfe")


def test_authority_with_another_key_is_an_error(tmp_path: Path) -> None:
    pve = {"inventory_dir": str(tmp_path)}
    look("pve", pve=pve)
    (tmp_path / ".homelab-nut" / "tls" / "ca.key").write_text(
        (tmp_path / ".homelab-nut" / "tls" / "pve.key").read_text()
    )
    with pytest.raises(AnsibleError, match="do not match: restore them, or delete both"):
        look("pve", pve=pve)


# Provided by the user

AUTHORITY = certificates.make_ca("root", NOW)
PVE = certificates.issue_certificate(AUTHORITY, "pve", ["pve", "192.0.2.2"], NOW)
TEXTS = dict(zip(GIVEN, (AUTHORITY.certificate, PVE.certificate, PVE.key)))


def test_provided_certificate_is_returned(tmp_path: Path, warnings: list[str]) -> None:
    pve = {"inventory_dir": str(tmp_path), "ansible_host": "192.0.2.2", "nut_server_tls": TEXTS}
    found = look("pve", pve=pve)
    assert (found["ca"], found["certificate"], found["key"]) == tuple(TEXTS.values())
    assert look("pve", part="ca", pve=pve) == {
        "ca": AUTHORITY.certificate,
        "path": str(nss.database_path(nss.TlsMaterial(AUTHORITY.certificate))),
        "kept": True,
    }
    assert look("pve", part="name", pve=pve) == "192.0.2.2"
    assert list(tmp_path.iterdir()) == []
    assert warnings == []


def test_provided_certificate_may_be_in_files(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "pki" / name).write_text(text)
    elsewhere = tmp_path / "elsewhere.pem"
    elsewhere.write_text(AUTHORITY.certificate)
    pve = {
        "inventory_dir": str(tmp_path),
        "nut_server_tls": {**{name: f"pki/{name}" for name in GIVEN}, "ca": str(elsewhere)},
    }
    assert look("pve", pve=pve) == look("pve", pve={"inventory_dir": "/", "nut_server_tls": TEXTS})


def test_provided_key_may_be_in_a_vault(tmp_path: Path) -> None:
    secrets = [("default", VaultSecret(b"secret"))]
    (tmp_path / "key").write_bytes(VaultLib(secrets).encrypt(PVE.key))
    loader = DataLoader()
    loader.set_vault_secrets(secrets)
    pve = {"inventory_dir": str(tmp_path), "nut_server_tls": {**TEXTS, "key": "key"}}
    assert look("pve", loader=loader, pve=pve)["key"] == PVE.key


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    pve = {"inventory_dir": str(tmp_path), "nut_server_tls": {**TEXTS, "key": "nix.key"}}
    with pytest.raises(
        AnsibleError, match=rf"pve: nut_server_tls.key is neither text in PEM format nor .*{tmp_path}/nix\.key"
    ):
        look("pve", pve=pve)


@pytest.mark.parametrize("lacking", GIVEN)
@pytest.mark.parametrize("part", ["all", "ca"])
def test_incomplete_certificate_is_refused(lacking: str, part: str) -> None:
    pve = {"inventory_dir": "/", "nut_server_tls": {**TEXTS, lacking: ""}}
    with pytest.raises(AnsibleError, match=f"^pve: .* without nut_server_tls.{lacking}: set all three, or none"):
        look("pve", part=part, pve=pve)


def test_empty_texts_count_as_not_provided(tmp_path: Path) -> None:
    """The role's defaults are empty."""
    assert (
        look("pve", pve={"inventory_dir": str(tmp_path), "nut_server_tls": dict.fromkeys(GIVEN, "")})["ca"]
        != AUTHORITY.certificate
    )


@pytest.mark.parametrize("name", GIVEN)
def test_error_names_the_variable(name: str) -> None:
    broken = TEXTS[name].replace("M", "N")
    with pytest.raises(AnsibleError, match=f"^pve: nut_server_tls.{name} can't be used: it is not a valid ") as caught:
        look("pve", pve={"inventory_dir": "/", "nut_server_tls": {**TEXTS, name: broken}})
    assert broken.splitlines()[1] not in str(caught.value)


def test_certificate_for_another_address_is_refused() -> None:
    with pytest.raises(
        AnsibleError, match=r"pve: nut_server_tls.certificate .*it is for .*, but secondaries connect to 192\.0\.2\.9:"
    ):
        look("pve", pve={"inventory_dir": "/", "nut_server_tls": TEXTS, "nut_server_address": "192.0.2.9"})


def test_certificate_that_expires_soon_warns(clock: type[Clock], warnings: list[str]) -> None:
    pve = {"inventory_dir": "/", "nut_server_tls": TEXTS}
    clock.ahead = certificates.LIFE - 20 * DAY
    assert look("pve", pve=pve)["key"] == PVE.key
    assert len(warnings) == 1
    assert warnings[0].startswith("pve: CN=pve expires on ")
