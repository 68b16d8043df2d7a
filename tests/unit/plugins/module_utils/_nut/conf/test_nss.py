# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import nss

OWNER = (os.getuid(), os.getgid())
ONE = "-----BEGIN CERTIFICATE-----\nb25l\n-----END CERTIFICATE-----"
TWO = "-----BEGIN CERTIFICATE-----\ndHdv\n-----END CERTIFICATE-----"
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"
SECONDARY = nss.TlsMaterial(f"{ONE}\n")
PRIMARY = nss.TlsMaterial(f"{ONE}\n{TWO}\n", f"{TWO}\n{ONE}\n", f"{KEY}\n", "pve")


class Programs:
    """Simulates certutil, openssl and pk12util: they read files, and write others."""

    def __init__(self, fails: str = "", code: int = 1, output: str = "") -> None:
        self.fails, self.code, self.output = fails, code, output
        self.ran: list[list[str]] = []
        self.read: list[str] = []
        self.modes: set[int] = set()

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.ran.append(list(command))
        if self.fails and " ".join(command).startswith(self.fails):
            return self.code, self.output
        for flag in ("-i", "-in"):
            if flag in command:
                self.read.append(Path(command[command.index(flag) + 1]).read_text())
        if command[1] == "-N":
            folder = Path(command[3].removeprefix("sql:"))
            self.modes.add(stat.S_IMODE(folder.stat().st_mode))
            for name in ("cert9.db", "key4.db", "pkcs11.txt"):
                (folder / name).write_text(name)
        if command[0] == "openssl":
            Path(command[command.index("-out") + 1]).write_text("packed")
        return 0, ""


def test_primary_gets_a_database_with_key(tmp_path: Path) -> None:
    programs = Programs()
    folder = tmp_path / "tls-1"
    nss.make_database(folder, PRIMARY, programs, OWNER)
    assert [path.name for path in tmp_path.iterdir()] == ["tls-1"]
    assert sorted(path.name for path in folder.iterdir()) == ["cert9.db", "key4.db", "pkcs11.txt"]
    assert programs.modes == {0o700}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o640}
    assert [" ".join(command[:2]) for command in programs.ran] == [
        "certutil -N",
        "certutil -A",
        "certutil -A",
        "openssl pkcs12",
        "pk12util -i",
    ]
    assert programs.read == [f"{ONE}\n", f"{TWO}\n", f"{KEY}\n{TWO}\n{ONE}\n", "packed"]
    nicknames = [command[command.index("-n") + 1] for command in programs.ran if "-n" in command]
    assert len(set(nicknames)) == 2
    assert all("-t C,," in " ".join(command) for command in programs.ran if "-n" in command)
    assert "-name pve" in " ".join(programs.ran[3])


def test_database_of_a_secondary_needs_no_openssl(tmp_path: Path) -> None:
    programs = Programs()
    nss.make_database(tmp_path / "tls-1", SECONDARY, programs, OWNER)
    assert [command[0] for command in programs.ran] == ["certutil", "certutil"]


def test_secrets_are_no_arguments(tmp_path: Path) -> None:
    programs = Programs()
    nss.make_database(tmp_path / "tls-1", PRIMARY, programs, OWNER)
    arguments = " ".join(word for command in programs.ran for word in command)
    assert "c2VjcmV0" not in arguments
    assert "PRIVATE" not in arguments


@pytest.mark.parametrize(
    ("program", "code", "output", "message"),
    [
        (
            "certutil -N",
            127,
            "not found",
            "certutil, which imports NUT's certificates, is missing on this host.*: install libnss3-tools",
        ),
        (
            "pk12util",
            127,
            "not found",
            "pk12util, which imports NUT's certificates, is missing on this host.*: install libnss3-tools",
        ),
        (
            "openssl",
            127,
            "not found",
            "openssl, which imports NUT's certificates, is missing on this host.*: install openssl$",
        ),
        ("certutil -A", 255, "certutil: could not\n decode", "certutil could not .*: certutil: could not decode"),
        ("openssl", 1, "No cert in -in file matches private key\n", "openssl .*: No cert in -in file matches"),
        ("pk12util", 24, "", "pk12util .*: exit code 24"),
    ],
)
def test_failing_program_leaves_no_database(tmp_path: Path, program: str, code: int, output: str, message: str) -> None:
    with pytest.raises(nss.NssError, match=message):
        nss.make_database(tmp_path / "tls-1", PRIMARY, Programs(program, code, output), OWNER)
    assert list(tmp_path.iterdir()) == []


def test_invalid_ca_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(nss.NssError, match="the text of the CA contains no certificate"):
        nss.make_database(tmp_path / "tls-1", nss.TlsMaterial("PEM"), Programs(), OWNER)
    assert list(tmp_path.iterdir()) == []


def test_missing_group_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        nss.make_database(tmp_path / "tls-1", SECONDARY, Programs(), (os.getuid(), "no-such-group"))
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_an_interrupted_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / "tls-1.new" / "import"
    left.mkdir(parents=True)
    (left / "certificate.pem").write_text("old")
    nss.make_database(tmp_path / "tls-1", SECONDARY, Programs(), OWNER)
    assert [path.name for path in tmp_path.rglob("*.pem")] == []
    assert [path.name for path in tmp_path.iterdir()] == ["tls-1"]


def test_existing_database_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "tls-1"
    folder.mkdir()
    (folder / "cert9.db").write_text("in use")
    with pytest.raises(OSError, match="not empty"):
        nss.make_database(folder, SECONDARY, Programs(), OWNER)
    assert (folder / "cert9.db").read_text() == "in use"
    assert [path.name for path in tmp_path.iterdir()] == ["tls-1"]


def test_path_depends_on_the_content() -> None:
    others = [replace(PRIMARY, **{name: f"{TWO}{TWO}"}) for name in ("ca", "certificate", "key", "nickname")]
    paths = [nss.database_path(tls) for tls in (PRIMARY, SECONDARY, *others)]
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {Path("/etc/nut")}
    assert all(path.name.startswith(nss.PREFIX) and len(path.name) == len(nss.PREFIX) + 12 for path in paths)


def test_path_never_changes() -> None:
    """Otherwise an update of the collection would restart all daemons."""
    assert str(nss.database_path(SECONDARY)) == "/etc/nut/tls-50bd62ebfdb4"


def test_trailing_newline_does_not_matter() -> None:
    bare = replace(PRIMARY, ca=PRIMARY.ca.strip(), certificate=f"\n{PRIMARY.certificate}", key=PRIMARY.key.strip())
    assert nss.database_path(bare) == nss.database_path(PRIMARY)


def test_order_of_the_parts_matters() -> None:
    assert nss.database_path(nss.TlsMaterial("a", "b", "c")) != nss.database_path(nss.TlsMaterial("a", "bc"))


@pytest.fixture
def good_database(tmp_path: Path) -> Path:
    folder = tmp_path / "tls-0123456789ab"
    folder.mkdir()
    folder.chmod(0o750)
    for name in ("cert9.db", "key4.db", "pkcs11.txt"):
        (folder / name).touch()
        (folder / name).chmod(0o640)
    return folder


def test_unchanged_database_is_good(good_database: Path) -> None:
    assert nss.is_sound(good_database, (os.getuid(), os.getgid()))
    assert not nss.is_sound(good_database, (os.getuid() + 1, os.getgid()))
    assert not nss.is_sound(good_database.with_name("tls-other"), (os.getuid(), os.getgid()))


@pytest.mark.parametrize("name", ["cert9.db", "key4.db", "pkcs11.txt"])
def test_changed_database_is_recognized(good_database: Path, name: str) -> None:
    (good_database / name).chmod(0o644)
    assert not nss.is_sound(good_database, (os.getuid(), os.getgid()))
    (good_database / name).unlink()
    assert not nss.is_sound(good_database, (os.getuid(), os.getgid()))


def test_database_that_others_can_read_is_recognized(good_database: Path) -> None:
    good_database.chmod(0o755)
    assert not nss.is_sound(good_database, (os.getuid(), os.getgid()))
