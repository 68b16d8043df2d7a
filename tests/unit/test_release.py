# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make release` changes nothing unless it is told to, and refuses a release that is not ready."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]
VERSION = "77.0.0"


def run_git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def run_release(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "GIT_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [str(root / "tools/release"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=400)


def describe_state(root: Path) -> tuple[str, ...]:
    return (run_git(root, "rev-parse", "HEAD"), run_git(root, "status", "--porcelain"), run_git(root, "tag", "--list"))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with the files of this checkout, in which the next release is ready."""
    root = tmp_path_factory.mktemp("ready")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).exists() and not name.startswith(("tests/unit/recordings/", "molecule/", "lab/")):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, root / name, follow_symlinks=False)
    galaxy = root / "galaxy.yml"
    galaxy.write_text(re.sub(r"^version: .*", f"version: {VERSION}", galaxy.read_text(), flags=re.MULTILINE))
    (root / f"changelogs/fragments/{VERSION}.yml").write_text("---\nrelease_summary: A release for a test.\n")
    # `make lint` runs the real one, which takes long
    (root / "tools/importer").write_text('#!/bin/sh\necho "galaxy-importer: $(basename "$1") can be published"\n')
    run_git(root, "init", "--quiet", "--initial-branch", "main")
    run_git(root, "add", "--all")
    run_git(root, "commit", "--quiet", "--message", "ready")
    return root


@pytest.fixture
def repository(ready: Path, tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    run_git(tmp_path, "clone", "--quiet", str(ready), str(root))
    return root


def test_rehearsal_of_a_release_changes_nothing_and_the_release_changes_all(repository: Path) -> None:
    before = describe_state(repository)
    rehearsed = run_release(repository)
    assert rehearsed.returncode == 0, rehearsed.stdout + rehearsed.stderr
    assert "This was a rehearsal. Nothing was changed; to do it: make release dry=0" in rehearsed.stdout
    assert f"galaxy-importer: homelab-nut-{VERSION}.tar.gz can be published" in rehearsed.stdout
    assert describe_state(repository) == before
    done = run_release(repository, "--really")
    assert done.returncode == 0, done.stdout + done.stderr
    assert run_git(repository, "log", "-1", "--format=%s") == f"Release {VERSION}"
    assert run_git(repository, "rev-parse", f"v{VERSION}^{{commit}}") == run_git(repository, "rev-parse", "HEAD")
    assert run_git(repository, "status", "--porcelain") == ""
    assert (repository / f"homelab-nut-{VERSION}.tar.gz").exists()
    released = yaml.safe_load((repository / "changelogs/changelog.yaml").read_text())["releases"][VERSION]
    assert "A release for a test." in str(released)
    assert f"v{VERSION}".replace(".", "\\.") in (repository / "CHANGELOG.md").read_text()
    assert not list((repository / "changelogs/fragments").glob("*.yml"))


def test_release_from_a_dirty_checkout_is_refused(repository: Path) -> None:
    (repository / "README.md").write_text("changed")
    check_refusal(repository, "there are changes that are not committed: see git status")


def test_release_from_another_branch_is_refused(repository: Path) -> None:
    run_git(repository, "switch", "--quiet", "--create", "other")
    check_refusal(repository, "the checkout is not on the branch main: git switch main")


def test_release_of_a_version_that_has_a_tag_is_refused(repository: Path) -> None:
    run_git(repository, "tag", f"v{VERSION}")
    check_refusal(repository, f"the tag v{VERSION} exists: set the next version in galaxy.yml")


def test_release_of_a_version_with_a_changelog_is_refused(repository: Path) -> None:
    galaxy = repository / "galaxy.yml"
    galaxy.write_text(galaxy.read_text().replace(VERSION, "0.1.0"))
    run_git(repository, "commit", "--quiet", "--all", "--message", "back")
    check_refusal(repository, "the changelog has 0.1.0 already: set the next version in galaxy.yml")


def test_release_without_a_summary_is_refused(repository: Path) -> None:
    run_git(repository, "rm", "--quiet", f"changelogs/fragments/{VERSION}.yml")
    run_git(repository, "commit", "--quiet", "--message", "no summary")
    check_refusal(
        repository,
        f"no fragment has a release_summary: write changelogs/fragments/{VERSION}.yml, with two sentences about the release",
    )


def test_release_of_a_version_that_is_no_release_is_refused(repository: Path) -> None:
    galaxy = repository / "galaxy.yml"
    galaxy.write_text(galaxy.read_text().replace(VERSION, "1.0.0-dev"))
    check_refusal(repository, "the version in galaxy.yml is 1.0.0-dev: a release has three numbers, such as 1.2.0")


def check_refusal(root: Path, why: str) -> None:
    before = describe_state(root)
    done = run_release(root, "--really")
    assert (done.returncode, done.stderr) == (1, f"release: {why}. Nothing was changed.\n")
    assert describe_state(root) == before
