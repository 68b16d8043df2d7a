# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lookup homelab.nut.certificate."""

from __future__ import annotations

DOCUMENTATION = r"""
name: certificate
short_description: Get the TLS certificate of a primary's upsd
version_added: 0.2.0
description:
  - Returns the certificate that the inventory provides for a primary, and checks it. If there is none, issues one from a
    private certificate authority. Both are kept in files beside the inventory, and renewed years before they expire.
author:
  - The homelab.nut contributors (@homelab-nut)
options:
  _terms:
    description: Names of primaries.
    type: list
    elements: str
    required: true
  part:
    description:
      - V(all) returns everything that the primary needs, and V(ca) what its secondaries need.
      - V(name) returns the name by which secondaries reach the primary, for CERTHOST in C(upsmon.conf). The certificate covers it.
    type: str
    choices: [all, ca, name]
    default: all
notes:
  - The inventory provides a certificate as C(nut_server_tls.ca), C(nut_server_tls.certificate) (intermediates may follow) and
    C(nut_server_tls.key), all or none of them. Each is text in PEM format, or the path of a file on the controller, relative to the
    inventory. The file may be encrypted with Ansible Vault.
  - Issued certificates are kept in C(.homelab-nut/tls/) beside the inventory, or in the directory C(nut_tls_directory).
    Keep C(ca.key) secret, because it can sign certificates that all secondaries trust. In check mode nothing is written.
  - Issued certificates cover the host's name, C(ansible_host), C(nut_server_address), C(nut_server_tls.names) and the loopback
    addresses.
seealso:
  - plugin: homelab.nut.password
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Get the certificate of the host pve
  ansible.builtin.set_fact:
    tls: "{{ lookup('homelab.nut.certificate', 'pve') }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description:
    - For each primary a dictionary with C(ca), C(certificate) and C(key) (in PEM format), C(nickname) (for CERTIDENT) and C(path)
      (for CERTPATH).
    - C(kept) is false if there is no authority, and none is made, as in check mode. The result then has one that is not kept.
    - With O(part=ca), only C(ca), C(path) and C(kept). With O(part=name), the name as a string.
  type: list
  elements: raw
"""

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from ansible.utils.display import Display

from ..module_utils._nut import inventory
from ..module_utils._nut.base import files
from ..module_utils._nut.conf import nss
from ..plugin_utils import certificates, kept
from ..plugin_utils.certificates import CertificateError, Pair

display = Display()

GIVEN = ("ca", "certificate", "key")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
CA = "ca"

# What check mode made instead of files: the same for every lookup of a process, because a host's files must fit together.
_made_in_check_mode: dict[tuple[Path, str], Pair] = {}


class _Folder:
    """The folder of our own certificates, NAME.pem, and keys, NAME.key."""

    def __init__(self, path: Path, check: bool) -> None:
        self.path = path
        self.check = check

    @contextlib.contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Lock the folder: Ansible's forks use it at the same time."""
        if self.check:
            yield
            return
        with kept.hold_folder(self.path):
            files.sweep_temporary_files([self.path])
            yield

    def keeps_certificate(self, name: str) -> bool:
        """Return whether a certificate is stored, or would be when it is made."""
        path, _key = self._list_paths(name)
        return not self.check or (path.exists() and path.stat().st_size > 0)

    def read_pair(self, name: str) -> Pair:
        """Return a stored certificate and its key; "" for each that is missing."""
        made = _made_in_check_mode.get((self.path, name)) if self.check else None
        return made or Pair(
            *(path.read_text("utf-8", "replace") if path.exists() else "" for path in self._list_paths(name))
        )

    def keep_pair(self, name: str, pair: Pair) -> Pair:
        """Store a certificate and its key. The key first: without a matching certificate, both are made again."""
        if self.check:
            _made_in_check_mode[self.path, name] = pair
        else:
            certificate, key = self._list_paths(name)
            files.replace_files({key: pair.key, certificate: pair.certificate}, kept.FILE_MODE)
        return pair

    def _list_paths(self, name: str) -> tuple[Path, Path]:
        return kept.file_in(self.path, f"{name}.pem"), kept.file_in(self.path, f"{name}.key")


class LookupModule(LookupBase):
    """The lookup plugin."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        """Return the certificates of each primary, or a part of them."""
        if certificates.MISSING:
            raise AnsibleError(f"cannot make certificates: {certificates.MISSING}: pip install cryptography")
        self.set_options(var_options=variables, direct=kwargs)
        try:
            return [self._find_part(str(host), self.get_option("part"), variables or {}) for host in terms]
        except (inventory.InventoryError, files.WriteError, OSError, ValueError) as error:
            raise AnsibleError(str(error)) from error

    def _find_part(self, host: str, part: str, variables: dict[str, Any]) -> Any:
        own = variables["hostvars"][host]
        name = inventory.find_primary_address(host, own).strip("[]")
        if part == "name":
            return name
        now = datetime.now(timezone.utc)
        given = [name for name in GIVEN if _read_settings(own).get(name)]
        if given:
            return _describe_result(host, self._check_provided(host, own, name, given, now), part)
        folder = _Folder(_find_folder(host, own), kept.is_read_only(variables))
        with folder.hold_lock():
            is_kept = folder.keeps_certificate(CA)
            ca = _get_authority(folder, now)
            if part == "ca":
                return _describe_result(host, nss.TlsMaterial(ca.certificate), part, is_kept)
            names = [*_names_to_cover(host, own, name), *_names_of_secondaries(host, variables)]
            pair = _get_certificate(folder, host, ca, list(dict.fromkeys(names)), now)
        return _describe_result(host, nss.TlsMaterial(ca.certificate, pair.certificate, pair.key), part, is_kept)

    def _check_provided(self, host: str, own: Any, name: str, given: list[str], now: datetime) -> nss.TlsMaterial:
        missing = [_variable_name(part) for part in GIVEN if part not in given]
        if missing:
            raise AnsibleError(
                f"{host}: {' and '.join(map(_variable_name, given))} without {' and '.join(missing)}: set all three, or none"
                " to have a certificate issued"
            )
        ca, certificate, key = (self._read_text(host, part, own) for part in GIVEN)
        try:
            checked = certificates.check_certificates(ca, certificate, key, name, now)
        except CertificateError as error:
            raise AnsibleError(f"{host}: {_variable_name(error.part)} can't be used: {error}") from None
        for warning in checked.warnings:
            display.warning(f"{host}: {warning}")
        return nss.TlsMaterial(checked.ca, checked.certificate, checked.key)

    def _read_text(self, host: str, part: str, own: Any) -> str:
        value = str(_read_settings(own)[part])
        if "-----BEGIN" in value:
            return value
        path = Path(own.get("inventory_dir") or "", value).expanduser()
        try:
            return str(self._loader.get_text_file_contents(str(path)))
        except AnsibleError as error:
            raise AnsibleError(
                f"{host}: {_variable_name(part)} is neither text in PEM format nor a readable file on this machine: {path}: {error}"
            ) from error


def _names_of_secondaries(host: str, variables: dict[str, Any]) -> list[str]:
    """Return the addresses at which secondaries reach a primary."""
    clients = inventory.list_secondaries(variables.get("groups") or {}, variables["hostvars"])
    return [client["primary_address"].strip("[]") for client in clients if client["primary"] == host]


def _variable_name(part: str) -> str:
    return f"nut_server_tls.{part}"


def _read_settings(own: Any) -> dict[str, Any]:
    return own.get("nut_server_tls") or {}


def _find_folder(host: str, own: Any) -> Path:
    folder = own.get("nut_tls_directory") or (
        own.get("inventory_dir") and f"{own['inventory_dir']}/{inventory.SECRETS_FOLDER}/tls"
    )
    if not folder:
        raise AnsibleError(
            f"{host}: there is no inventory directory to keep the certificate in: set nut_tls_directory, or"
            f" {', '.join(map(_variable_name, GIVEN))}"
        )
    if host == CA:
        raise AnsibleError(f"{host}: this name is reserved for the files of the certificate authority: rename the host")
    return Path(folder)


def _names_to_cover(host: str, own: Any, name: str) -> list[str]:
    """Return the names that a certificate of our own covers."""
    wanted = _read_settings(own).get("names") or []
    for entry in (name, *wanted):
        if not certificates.is_name(str(entry)):
            raise AnsibleError(
                f"{host}: cannot issue a certificate for {entry!r}, which is neither a DNS name nor an IP address: change"
                " nut_server_address or nut_server_tls.names"
            )
    # names of hosts in an inventory need not be DNS names
    also = [entry for entry in (host, str(own.get("ansible_host") or host)) if certificates.is_name(entry)]
    return list(dict.fromkeys([name, *also, *map(str, wanted), *LOOPBACK]))


def _get_authority(folder: _Folder, now: datetime) -> Pair:
    """Return our authority, made or renewed if necessary. Its key is "" if the user keeps it elsewhere."""
    ca = folder.read_pair(CA)
    where = folder.path / f"{CA}.pem"
    if not ca.certificate:
        # a random name, because two authorities with the same name confuse programs that verify
        return folder.keep_pair(CA, certificates.make_ca(f"homelab.nut CA {os.urandom(4).hex()}", now))
    try:
        if ca.key and not certificates.is_key_of(ca.certificate, ca.key):
            raise AnsibleError(f"{where} and {CA}.key beside it do not match: restore them, or delete both")
        if ca.key and certificates.is_ca_ending(ca.certificate, now):
            return folder.keep_pair(CA, certificates.make_ca("", now, ca))
        certificates.read_certificate(CA, ca.certificate)
    except CertificateError as error:
        raise AnsibleError(
            f"{where.with_suffix('.key' if error.part == 'key' else '.pem')} can't be used: {error}. Restore it"
        ) from None
    return ca


def _get_certificate(folder: _Folder, host: str, ca: Pair, names: list[str], now: datetime) -> Pair:
    """Return a host's certificate from our authority, issued or renewed if necessary."""
    pair = folder.read_pair(host)
    why = certificates.needs_renewal(pair, ca.certificate, names, now) if pair.certificate else "it does not exist"
    if not why:
        return pair
    if not ca.key:
        raise AnsibleError(
            f"{host}: cannot sign {folder.path / host}.pem ({why}), because {folder.path / CA}.key is missing: restore it."
            f" Or delete {CA}.pem and run the playbook for all hosts, which then have to learn a new authority"
        )
    return folder.keep_pair(host, certificates.issue_certificate(ca, host, names, now))


def _describe_result(host: str, tls: nss.TlsMaterial, part: str, is_kept: bool = True) -> dict[str, Any]:
    if part == "ca":
        tls = nss.TlsMaterial(tls.ca)
        return {"ca": tls.ca, "path": str(nss.database_path(tls)), "kept": is_kept}
    # NSS reads the part before a colon as the name of a token
    tls = nss.TlsMaterial(tls.ca, tls.certificate, tls.key, re.sub(r"[^A-Za-z0-9._-]", "_", host))
    return {
        "ca": tls.ca,
        "certificate": tls.certificate,
        "key": tls.key,
        "nickname": tls.nickname,
        "path": str(nss.database_path(tls)),
        "kept": is_kept,
    }
