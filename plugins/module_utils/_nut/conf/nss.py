# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The NSS database that Debian's upsd and upsmon read their certificates from (CERTPATH).

It has no password: the mode of its files protects the key, and a password would be in upsd.conf beside it. Tested with the
programs of Debian 12 (2.8.0) and 13 (2.8.1): both accept it with CERTIDENT "nickname" "".
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base.files import Owner, has_mode_and_owner, resolve_owner, sync_paths
from ..base.systemd import Run

PREFIX = "tls-"
"""Prefix of the name of each database's directory."""

NAME = re.compile(PREFIX + r"[0-9a-f]{12}(\.new)?")
"""The whole name, also of an unfinished database."""

# Trust authorities for server certificates only: Debian's upsd asks clients for none.
TRUST = "C,,"

_FILES = ("cert9.db", "key4.db", "pkcs11.txt")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PACKAGES = {"certutil": "libnss3-tools", "pk12util": "libnss3-tools", "openssl": "openssl"}


class NssError(Exception):
    """The database could not be created; the message has the program's output, and what to do."""


@dataclass(frozen=True)
class TlsMaterial:
    """The contents of a database, in PEM. Only ca is set for a secondary."""

    ca: str
    certificate: str = ""  # with its intermediates
    key: str = ""
    nickname: str = ""  # name of the certificate in CERTIDENT, without a colon, which would end the name of a token


def database_path(tls: TlsMaterial, folder: Path = Path("/etc/nut")) -> Path:
    """Return the path of the database of these certificates, which no other certificates have.

    A renewal thus changes CERTPATH, which tells the deployment what to restart, and a running daemon keeps its open database.
    """
    texts = (tls.ca, tls.certificate, tls.key, tls.nickname)
    digest = hashlib.sha256("\0".join(text.strip() for text in texts).encode())
    return folder / f"{PREFIX}{digest.hexdigest()[:12]}"


def is_sound(folder: Path, owner: Owner = ("root", "nut")) -> bool:
    """Return whether a database exists with all its files, accessible only to root and NUT."""
    try:
        ids = resolve_owner(owner)
        return has_mode_and_owner(folder, 0o750, ids) and all(
            has_mode_and_owner(folder / name, 0o640, ids) for name in _FILES
        )
    except (OSError, KeyError):
        return False


def make_database(folder: Path, tls: TlsMaterial, runner: Run, owner: Owner = ("root", "nut")) -> None:
    """Create the database as FOLDER, which must not exist yet: completely or not at all.

    Raises NssError, OSError, and LookupError if the group does not exist.
    """
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # from an interrupted run
    new.mkdir(mode=0o700)
    try:
        _fill_database(new, tls, runner)
        # root writes, NUT's group reads: upsd and upsmon open the database as the user nut
        for path in (*new.iterdir(), new):
            shutil.chown(path, *owner)
            path.chmod(0o750 if path == new else 0o640)
        # upsd.conf, which refers to it, survives a power cut, so the database must, too
        sync_paths((*new.iterdir(), new))
        new.rename(folder)
        sync_paths([folder.parent])
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _fill_database(new: Path, tls: TlsMaterial, runner: Run) -> None:
    database = f"sql:{new}"
    work = new / "import"
    work.mkdir(mode=0o700)
    _run_tool(["certutil", "-N", "-d", database, "--empty-password"], runner)
    authorities = _CERTIFICATE.findall(tls.ca)
    if not authorities:
        raise NssError("the text of the CA contains no certificate in PEM format")
    for number, text in enumerate(authorities, 1):
        path = work / f"{number}.pem"
        path.write_text(f"{text}\n", encoding="ascii")
        _run_tool(["certutil", "-A", "-d", database, "-n", f"CA {number}", "-t", TRUST, "-a", "-i", str(path)], runner)
    if tls.certificate:
        pem, packed = work / "certificate.pem", work / "packed.p12"
        # openssl picks the certificate for the key, and includes the others
        pem.write_text(f"{tls.key.strip()}\n{tls.certificate.strip()}\n", encoding="ascii")
        # only root can read this directory, so a password would protect nothing
        out = ["-name", tls.nickname, "-out", str(packed), "-passout", "pass:"]
        _run_tool(["openssl", "pkcs12", "-export", "-in", str(pem), *out], runner)
        _run_tool(["pk12util", "-i", str(packed), "-d", database, "-W", "", "-K", ""], runner)
    shutil.rmtree(work)


def _run_tool(command: Sequence[str], runner: Run) -> None:
    code, said = runner(command)
    if code == 127:
        raise NssError(
            f"{command[0]}, which imports NUT's certificates, is missing on this host: install {_PACKAGES[command[0]]}"
        )
    if code:
        raise NssError(
            f"{command[0]} could not import NUT's certificates: {' '.join(said.split()) or f'exit code {code}'}"
        )
