# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import trust

ME = (os.getuid(), os.getgid())
ROOT = Path(__file__).resolve().parents[6]


def test_path_that_only_root_can_write_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    (tmp_path / "a/file").write_text("")
    for path in (
        "/",
        "/proc/self/status",
        str(tmp_path),
        str(tmp_path / "a/file"),
        str(tmp_path / "a/not-there/at/all"),
    ):
        assert trust.find_untrusted(Path(path)) == ""
        assert trust.is_trusted(Path(path))


@pytest.mark.parametrize("below", ["", "file", "not-there", "sub/file", "../shared/file", "../link/file"])
def test_path_that_others_can_write_is_not_trusted(tmp_path: Path, below: str) -> None:
    shared = tmp_path / "shared"
    (shared / "sub").mkdir(parents=True)
    (shared / "file").write_text("")
    (tmp_path / "link").symlink_to("shared")
    shared.chmod(0o757)
    assert trust.find_untrusted(shared / below).startswith(
        f"users other than root can write {shared} (mode 0757, group "
    )


def test_path_that_a_group_can_write_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(0o770)
    real = Path.lstat
    # /run/nut is root:nut 0770
    group = 999999

    def lstat(path: Path) -> os.stat_result:
        found = real(path)
        return os.stat_result((*found[:5], group, *found[6:])) if path == folder else found

    monkeypatch.setattr(Path, "lstat", lstat)
    assert trust.find_untrusted(folder / "killpower") == (
        f"users other than root can write {folder} (mode 0770, group 999999)"
    )
    group = 0  # only root is in root's group
    assert trust.is_trusted(folder / "killpower")
    primary_groups = {user.pw_gid for user in pwd.getpwall()}
    # a user's primary group, as nut is of the user nut
    group = max(primary_groups)
    assert not trust.is_trusted(folder / "killpower")
    # a group without members, such as staff, which can write to /usr/local on older Debians
    group = next(entry.gr_gid for entry in grp.getgrall() if entry.gr_gid not in primary_groups and not entry.gr_mem)
    assert trust.is_trusted(folder / "killpower")


def test_path_of_another_owner_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    (tmp_path / "link").symlink_to("/")
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        found = real(path)
        owner = 999999 if path in (tmp_path, tmp_path / "link") else 0
        return os.stat_result((found[0] & ~0o022, *found[1:4], owner, *found[5:]))

    monkeypatch.setattr(Path, "lstat", lstat)
    assert trust.find_untrusted(tmp_path / "x") == f"{tmp_path} belongs to the user 999999"


def test_existing_folder_in_a_sticky_folder_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    (tmp_path / "tmp/ours").mkdir(mode=0o700)
    assert trust.is_trusted(tmp_path / "tmp/ours/file")
    for name in ("", "theirs", "theirs/file"):
        assert "users other than root can write" in trust.find_untrusted(tmp_path / "tmp" / name)


def test_links_of_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to("../" + tmp_path.name + "/open")
    assert trust.find_untrusted(tmp_path / "a/x").startswith(f"users other than root can write {tmp_path / 'open'} ")
    (tmp_path / "circle").symlink_to("circle")
    assert "is a symlink loop" in trust.find_untrusted(tmp_path / "circle/x")


def read_modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in folder.iterdir()}


def test_scratch_folder_is_private_until_shared(tmp_path: Path) -> None:
    with trust.open_scratch(tmp_path, ME) as scratch:
        assert re.fullmatch(r"homelab-nut-check-\w{8}", scratch.folder.name)
        assert read_modes(tmp_path) == {scratch.folder.name: 0o700}
        trust.share_scratch(scratch, {"ups.conf": "[a]\n", "nut.conf": ""}, ME)
        assert read_modes(tmp_path) == {scratch.folder.name: 0o750}
        assert read_modes(scratch.folder) == {"ups.conf": 0o640, "nut.conf": 0o640, "state": 0o770}
        assert (scratch.folder / "ups.conf").read_text() == "[a]\n"
        assert scratch.command[0] == "setpriv"
        assert {f"--reuid={ME[0]}", f"--regid={ME[1]}", "--no-new-privs"} < {*scratch.command}
        assert [word for word in scratch.command if word.startswith("NUT_")] == [
            f"NUT_CONFPATH={scratch.folder}",
            *(f"NUT_{name}={scratch.folder}/state" for name in ("STATEPATH", "ALTPIDPATH", "PIDPATH")),
        ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("uid", "groups"), [(0, "--init-groups"), (4_000_000_000, "--clear-groups")])
def test_programs_get_the_groups_of_the_user(tmp_path: Path, uid: int, groups: str) -> None:
    """Otherwise upsd could not read a key as a member of ssl-cert. A user id without a name has no groups."""
    with trust.open_scratch(tmp_path, (uid, ME[1])) as scratch:
        assert [word for word in scratch.command if word.endswith("-groups")] == [groups]


@pytest.mark.parametrize("kind", ["link", "dangling link", "file"])
def test_existing_file_or_link_is_not_written_through(tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    if kind != "dangling link":
        victim.write_text("precious")
    with trust.open_scratch(tmp_path, ME) as scratch:
        if kind == "file":
            (scratch.folder / "ups.conf").write_text("theirs")
        else:
            (scratch.folder / "ups.conf").symlink_to(victim)
        with pytest.raises(FileExistsError):
            trust.share_scratch(scratch, {"ups.conf": "secret"}, ME)
    assert [path.read_text() for path in tmp_path.iterdir()] == ([] if kind == "dangling link" else ["precious"])


def test_links_in_the_state_folder_are_removed_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    with trust.open_scratch(tmp_path, ME) as scratch:
        trust.share_scratch(scratch, {}, ME)
        state = scratch.folder / "state"
        (state / "folder").mkdir()
        (state / "folder/link").symlink_to(precious)
        (state / "link").symlink_to(precious)
        os.mkfifo(state / "fifo")
        (state / "closed").mkdir(mode=0)
    assert list(tmp_path.iterdir()) == [precious]
    assert (precious / "file").read_text() == "kept"


def test_missing_user_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LookupError), trust.open_scratch(tmp_path, ("root", "no-such-group")):
        pass
    assert list(tmp_path.iterdir()) == []


# The rule in the documentation and in the code


def read_table() -> dict[str, str]:
    """Return the user who may write to each path, from docs/architecture.md."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = text.partition("\n## Directories that root trusts\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {path: row[2].strip() for row in rows for path in re.findall(r"`([^`]+)`", row[0])}


def test_documented_table_matches_the_rule() -> None:
    documented = read_table()
    assert {path for path, who in documented.items() if who == "root" and "*" not in path} == {*trust.ROOTS_OWN}
    assert {path for path, who in documented.items() if who == "nut" and "*" not in path} == {*trust.NUTS_OWN}
    assert {path for path in documented if "*" in path} == {f"/run/{trust.PREFIX}*", f"/run/{trust.PREFIX}*/state"}


# paths in folders that nut can write, and why root does not act on them
HARMLESS = {
    "/run/nut/upssched.pipe": "made and opened by upssched, as the user nut",
    "/run/nut/upssched.lock": "made and opened by upssched, as the user nut",
    "/run/nut/killpower": "the usual POWERDOWNFLAG elsewhere: only checked, to report a leftover",
    "/run/nut/upsmon.pid": "named in fsd.py as untrusted; the drill checks that it can't reach this file",
}


def test_code_uses_no_path_that_nut_can_write() -> None:
    paths = re.compile(rf"(?<![\w.-])/?(?:var/)?(?:{'|'.join(path.strip('/') for path in trust.NUTS_OWN)})/[\w.]+")
    found = {
        f"/{match.lstrip('/')}"
        for folder in ("plugins", "roles")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".j2", ".yml", ".sh")
        for match in paths.findall(path.read_text(encoding="utf-8"))
    }
    assert found == {*HARMLESS}
