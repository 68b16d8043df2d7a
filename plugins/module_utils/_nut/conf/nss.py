# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The NSS database from which upsd and upsmon of Debian's NUT read their certificates (CERTPATH).

It has no password: its files' mode protects the key, and a password would have to stand in upsd.conf beside it. Seen with
the binaries of Debian 12 (2.8.0) and 13 (2.8.1): both take it with CERTIDENT "nickname" "".
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
"""What the name of each database's directory begins with."""

NAME = re.compile(PREFIX + r"[0-9a-f]{12}(\.new)?")
"""All of it, and of one that was not finished."""

# Authorities that a server's certificate may come from, and nothing else: Debian's upsd asks its clients for none.
TRUST = "C,,"

_FILES = ("cert9.db", "key4.db", "pkcs11.txt")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PACKAGES = {"certutil": "libnss3-tools", "pk12util": "libnss3-tools", "openssl": "openssl"}


class NssError(Exception):
    """The database could not be made; the message has the program's words, and what to do."""


@dataclass(frozen=True)
class TlsMaterial:
    """What a database holds, in PEM. certificate (with its intermediates), key and nickname are empty for a secondary.

    nickname: what CERTIDENT calls the certificate. It must have no colon, which ends the name of a token.
    """

    ca: str
    certificate: str = ""
    key: str = ""
    nickname: str = ""


def database_path(tls: TlsMaterial, folder: Path = Path("/etc/nut")) -> Path:
    """Return where the database of these certificates stands: a path that no others have.

    So a renewal changes CERTPATH, which shows the deployment what to restart; and what a running daemon has open stays.
    """
    texts = (tls.ca, tls.certificate, tls.key, tls.nickname)
    digest = hashlib.sha256("\0".join(text.strip() for text in texts).encode())
    return folder / f"{PREFIX}{digest.hexdigest()[:12]}"


def is_sound(folder: Path, owner: Owner = ("root", "nut")) -> bool:
    """Return whether a database is there with all its files, for root and NUT alone."""
    try:
        whose = resolve_owner(owner)
        return has_mode_and_owner(folder, 0o750, whose) and all(
            has_mode_and_owner(folder / name, 0o640, whose) for name in _FILES
        )
    except (OSError, KeyError):
        return False


def make_database(folder: Path, tls: TlsMaterial, runner: Run, owner: Owner = ("root", "nut")) -> None:
    """Make the database as FOLDER, which must not be there yet: at once, or not at all.

    Raises NssError; OSError and LookupError (no such group) as the system has them.
    """
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)  # of a run that was cut short
    new.mkdir(mode=0o700)
    try:
        _fill_database(new, tls, runner)
        # root writes, NUT's group reads: upsd and upsmon open it when they have become the user nut already
        for path in (*new.iterdir(), new):
            shutil.chown(path, *owner)
            path.chmod(0o750 if path == new else 0o640)
        # what refers to it lasts over a power cut, so it must, too
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
        raise NssError("the CA's text holds no certificate in PEM")
    for number, text in enumerate(authorities, 1):
        path = work / f"{number}.pem"
        path.write_text(f"{text}\n", encoding="ascii")
        _run_tool(["certutil", "-A", "-d", database, "-n", f"CA {number}", "-t", TRUST, "-a", "-i", str(path)], runner)
    if tls.certificate:
        pem, packed = work / "certificate.pem", work / "packed.p12"
        # openssl takes the certificate that fits the key, and packs the others with it
        pem.write_text(f"{tls.key.strip()}\n{tls.certificate.strip()}\n", encoding="ascii")
        # in a directory of root's alone a password would protect nothing
        out = ["-name", tls.nickname, "-out", str(packed), "-passout", "pass:"]
        _run_tool(["openssl", "pkcs12", "-export", "-in", str(pem), *out], runner)
        _run_tool(["pk12util", "-i", str(packed), "-d", database, "-W", "", "-K", ""], runner)
    shutil.rmtree(work)


def _run_tool(command: Sequence[str], runner: Run) -> None:
    code, said = runner(command)
    if code == 127:
        raise NssError(
            f"there is no {command[0]} on this host, which makes NUT's certificates: install {_PACKAGES[command[0]]}"
        )
    if code:
        raise NssError(
            f"{command[0]} could not make NUT's certificates ready: {' '.join(said.split()) or f'exit code {code}'}"
        )
