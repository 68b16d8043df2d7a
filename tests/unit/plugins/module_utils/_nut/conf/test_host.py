# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Yield a port on which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        return int(other.getsockname()[1])


def test_port_of_another_program_is_reported(taken_port: int) -> None:
    (wrong,) = host.find_unbindable(f"LISTEN 127.0.0.1 {taken_port}\n", "", serves=True)
    assert f"LISTEN 127.0.0.1 {taken_port}: another program uses this port" in wrong


@pytest.mark.parametrize("where", ["127.0.0.1", "localhost", "0.0.0.0", "*"])
def test_free_port_is_fine(free_port: int, where: str) -> None:
    assert host.find_unbindable(f"LISTEN {where} {free_port}\n", "", serves=False) == []


@pytest.mark.parametrize("old", ["LISTEN 0.0.0.0 {}\n", "LISTEN 127.0.0.1 {}\n"])
def test_port_of_running_upsd_is_fine(taken_port: int, old: str) -> None:
    """upsd releases the port when it restarts."""
    assert host.find_unbindable(f"LISTEN 127.0.0.1 {taken_port}\n", old.format(taken_port), serves=True) == []
    # upsd does not run, so another program has the port
    assert len(host.find_unbindable(f"LISTEN 127.0.0.1 {taken_port}\n", old.format(taken_port), serves=False)) == 1


def test_upsd_without_listen_uses_the_default_port() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 3493))
        other.listen()
        assert host.find_unbindable("LISTEN 127.0.0.1 3493\n", "MAXAGE 15\n", serves=True) == []


@pytest.mark.parametrize("old", ["", "LISTEN 0.0.0.0 3493\n"])
def test_foreign_address_is_reported(old: str) -> None:
    wrong = host.find_unbindable("LISTEN 127.0.0.1 3493\nLISTEN 192.0.2.77 3493\n", old, serves=bool(old))
    (words,) = wrong
    assert words.startswith("upsd.conf: LISTEN 192.0.2.77: this host does not have that address. Use one that it has")


def test_unknown_name_is_reported() -> None:
    (wrong,) = host.find_unbindable("LISTEN no-such-host.invalid 3493\n", "", serves=False)
    assert "LISTEN no-such-host.invalid: the address can't be resolved" in wrong


def test_leftover_flag_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs, common = (tmp_path / name for name in ("ours", "the irs", "common"))
    monkeypatch.setattr(host, "COMMON_FLAGS", (str(common),))
    texts = [f'POWERDOWNFLAG "{theirs}"\n', f"POWERDOWNFLAG {ours}\n", "MINSUPPLIES 1\n"]
    assert host.find_old_flags(texts) == []
    for path in (ours, theirs, common):
        path.write_text("upsmon-shutdown-file")
        os.utime(path, (0, 0))
    messages = host.find_old_flags(texts)
    assert [flag.partition(" left ")[2].partition(" behind")[0] for flag in messages] == [
        str(theirs),
        str(ours),
        str(common),
    ]
    assert "1970-01-01" in messages[0]
    assert f"rm '{theirs}'" in messages[0]


def test_paths_that_only_root_can_change_are_fine(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "cut").write_text("#!/bin/sh\n")
    files = {
        "upsmon.conf": f'POWERDOWNFLAG {tmp_path}/run/killpower\nSHUTDOWNCMD "{tmp_path}/cut now"\n',
        "ups.conf": f"driverpath = {tmp_path}\n[a]\ndriver = x\n",
    }
    assert host.find_untrusted(files, tmp_path) == []
    assert host.find_untrusted({"upsmon.conf": 'SHUTDOWNCMD "wall off; /sbin/poweroff"\n'}, tmp_path) == []


def test_paths_that_others_can_change_are_reported(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    (shared / "nut").mkdir(parents=True)
    shared.chmod(0o777)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/flag").symlink_to(tmp_path / "precious")
    files = {
        "upsmon.conf": f'POWERDOWNFLAG {shared}/killpower\nSHUTDOWNCMD "{shared}/cut now"\n',
        "ups.conf": f"driverpath = {shared}\n[a]\ndriver = x\n",
    }
    found = host.find_untrusted(files, shared / "nut")
    assert all(f"users other than root can write {shared} (mode 0777" in line for line in found)
    assert [line.partition("users other")[0] for line in found] == [
        "",
        f"upsmon.conf: POWERDOWNFLAG {shared}/killpower: ",
        f"upsmon.conf: SHUTDOWNCMD {shared}/cut: ",
        f"ups.conf: driverpath {shared}: ",
    ]
    assert "Use a path in a directory that only root can write to, such as /run/nut-killpower" in found[1]
    (link,) = host.find_untrusted({"upsmon.conf": f"POWERDOWNFLAG {tmp_path}/run/flag\n"}, tmp_path)
    assert f"POWERDOWNFLAG {tmp_path}/run/flag: {tmp_path}/run/flag is a link" in link


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/sdb1 /run/disk ext4 rw 0 0
tmpfs /with\\040blank tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "lasts"),
    [
        ("/run/nut/killpower", False),
        ("/run/killpower", False),
        ("/with blank/killpower", False),
        ("/etc/killpower", True),
        ("/run/disk/killpower", True),
        ("/running/killpower", True),
    ],
)
def test_flag_that_survives_a_reboot_is_reported(path: str, lasts: bool) -> None:
    messages = host.find_lasting_flag(f'POWERDOWNFLAG "{path}"\n', MOUNTS)
    assert bool(messages) == lasts
    assert all(path in message for message in messages)


def test_missing_flag_is_fine() -> None:
    assert host.find_lasting_flag("MINSUPPLIES 1\n", MOUNTS) == []


def test_unchanged_package_files_are_recognized(tmp_path: Path) -> None:
    ours, theirs, unknown = (tmp_path / name for name in ("a.conf", "b.conf", "c.conf"))
    for path in (ours, theirs, unknown):
        path.write_text(f"# {path.name}\n")

    def dpkg(command: Sequence[str]) -> tuple[int, str]:
        assert command[0] == "dpkg-query"
        # nut-server is not installed, which dpkg-query reports besides the other package
        return 1, (
            f" {ours} {hashlib.md5(ours.read_bytes(), usedforsecurity=False).hexdigest()}\n {theirs} {'0' * 32}\n\n"
            "dpkg-query: no packages found matching nut-server\n"
        )

    assert host.find_shipped([ours, theirs, unknown, tmp_path / "missing"], dpkg) == {ours}
    assert host.find_shipped([ours], lambda _command: (127, "no dpkg here")) == set()


MISSING = {
    "all exist": ({"upsmon.conf": "RUN_AS_USER root\nPOWERDOWNFLAG /run/x\n", "ups.conf": "user = root\n"}, ""),
    "a user of upsmon": (
        {"upsmon.conf": "RUN_AS_USER no-such-user\n"},
        "upsmon.conf: this host has no user no-such-user",
    ),
    "a user of drivers": ({"ups.conf": "user = no-such-user\n"}, "ups.conf: this host has no user no-such-user"),
    "the user of a driver": (
        {"ups.conf": "[a]\nuser = no-such-user\n"},
        "ups.conf: this host has no user no-such-user",
    ),
    "certificates": (
        {"upsd.conf": "CERTPATH /no/such\n"},
        "upsd.conf: CERTPATH: the directory /no/such does not exist",
    ),
    "certificates of upsmon": (
        {"upsmon.conf": "CERTPATH /no/such\n"},
        "upsmon.conf: CERTPATH: the directory /no/such does not exist",
    ),
    "created later": ({"upsmon.conf": "CERTPATH /to/be/made\n"}, ""),
    "directory of the flag": (
        {"upsmon.conf": "POWERDOWNFLAG /no/flag\n"},
        "upsmon.conf: POWERDOWNFLAG: the directory /no does not exist",
    ),
    "directory of a pipe": (
        {"upssched.conf": "PIPEFN /no/pipe\n"},
        "upssched.conf: PIPEFN: the directory /no does not exist",
    ),
}


@pytest.mark.parametrize(("files", "message"), MISSING.values(), ids=MISSING.keys())
def test_missing_files_and_users_are_reported(files: dict[str, str], message: str) -> None:
    found = host.find_missing(files, Path("/to/be/made"))
    assert [line[: len(message)] for line in found] == ([message] if message else [])


def test_name_with_an_own_address_is_fine(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    """upsd binds the first possible address of a name."""
    places = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, free_port)) for address in ("192.0.2.77", "127.0.0.1")
    ]
    monkeypatch.setattr(host.socket, "getaddrinfo", lambda *_arguments, **_options: places)
    assert host.find_unbindable(f"LISTEN pve {free_port}\n", "", serves=False) == []


def test_link_local_address_is_fine() -> None:
    """A link-local address needs the name of an interface."""
    (wrong,) = host.find_unbindable("LISTEN fe80::1 3493\n", "", serves=False)
    assert "LISTEN fe80::1" in wrong


@pytest.mark.parametrize("key", ["driverpath", "statepath"])
def test_missing_directory_of_ups_conf_is_reported(key: str) -> None:
    assert host.find_missing({"ups.conf": f"{key} = /no/such\n"}) == [
        f"ups.conf: {key}: the directory /no/such does not exist. Create it, or use another one"
    ]
