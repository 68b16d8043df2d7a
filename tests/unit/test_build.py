# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make build` packs what the collection needs and no other file of the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]

# What users of the collection need or read. Changelog fragments are for the next release.
SHIPPED = ("changelogs", "docs", "inventories/example", "meta", "playbooks", "plugins", "roles")
SHIPPED_FILES = {"CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "COPYING", "README.md", "SECURITY.md"}
NOT_SHIPPED = ("changelogs/fragments/", "plugins/module_utils/_nut/base/checkout.py")
# ansible-galaxy adds these itself
MADE = {"FILES.json", "MANIFEST.json"}

SECRET = "correct horse battery staple"
PLANTED = (
    ".env",
    ".homelab-nut/passwords/nas",
    ".homelab-nut/shutdown-pve.html",
    ".idea/workspace.xml",
    ".vault_pass",
    ".vscode/settings.json",
    "all.yml",
    "ansible.log",
    "backup.tar.gz",
    "changelogs/fragments/.env",
    "changelogs/password.yml",
    "docs/.notes.md.swp",
    "docs/my-homelab.md",
    "docs/passwords.txt",
    "docs/truenas.md.orig",
    "files/api_key",
    "galaxy.token",
    "group_vars/all.yml",
    "homelab/.homelab-nut/tls/ca.key",
    "homelab/group_vars/all.yml",
    "host_vars/truenas.yml",
    "hosts.yml",
    "id_ed25519",
    "inventories/homelab/hosts.yml",
    "inventory.ini",
    "meta/credentials.yml",
    "meta/execution-environment.yml~",
    "nohup.out",
    "playbooks/.pve.yml.swp",
    "playbooks/group_vars/all.yml",
    "playbooks/group_vars/pve/vault.yml",
    "playbooks/host_vars/pve.yml",
    "playbooks/hosts",
    "playbooks/pve.retry",
    "playbooks/secret.yml",
    "plugins/.env",
    "plugins/.venv/lib/site.py",
    "plugins/inventory/homelab.yml",
    "plugins/lookup/._password.py",
    "plugins/lookup/.password.py",
    "plugins/lookup/password.py.bak",
    "plugins/module_utils/_nut/.homelab-nut/passwords/pve.py",
    "plugins/module_utils/_nut/__pycache__/upsd.cpython-313.pyc",
    "plugins/module_utils/_nut/ups.conf",
    "plugins/modules/vault.yml",
    "requirements-private.txt",
    "roles/mine/tasks/main.yml",
    "roles/nut_client/defaults/main.yml~",
    "roles/nut_server/.homelab-nut/passwords/pve",
    "roles/nut_server/defaults/main/vault.yml",
    "roles/nut_server/files/id_ed25519",
    "roles/nut_server/files/tls/ca.key",
    "roles/nut_server/tasks/secrets.yml",
    "roles/nut_server/templates/upsd.users",
    "roles/nut_server/templates/upsd.users.j2.orig",
    "roles/nut_server/vars/main.yml.before",
    "roles/nut_server/vars/vault.yml",
    "roles/nut_server/vars/vault.yml~",
    "tests/integration/integration_config.yml",
    "venv/lib/python3.13/site-packages/secret.py",
)


def list_tracked_files() -> set[str]:
    """Return the files of the checkout that are in git and exist."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if name and (CHECKOUT / name).exists()}


def is_shipped(name: str) -> bool:
    """Return whether a file belongs to the collection that users install."""
    return name in SHIPPED_FILES or (
        name.startswith(tuple(f"{top}/" for top in SHIPPED)) and not name.startswith(NOT_SHIPPED)
    )


def run_ansible_program(*arguments: object, home: Path) -> str:
    """Run a program of Ansible's that sees only the collections in `home`. Return its output."""
    config = home / "ansible.cfg"
    config.write_text(f"[defaults]\ncollections_path = {home}\nnocolor = true\n")
    environment = {**os.environ, "HOME": str(home), "ANSIBLE_CONFIG": str(config)}
    program = Path(sys.executable).with_name(str(arguments[0]))
    done = subprocess.run(
        [str(program), *map(str, arguments[1:])],
        cwd=home,
        env=environment,
        check=False,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the checkout with secrets in odd places and links to a secret outside."""
    root = tmp_path_factory.mktemp("checkout")
    for name in list_tracked_files():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target, follow_symlinks=False)
    for name in PLANTED:
        assert name not in list_tracked_files()
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(SECRET)
    outside = tmp_path_factory.mktemp("outside") / "key.py"
    outside.write_text(SECRET)
    (root / "plugins/modules/linked.py").symlink_to(outside)
    (root / "plugins/cache").symlink_to(outside.parent)
    (root / "plugins/modules/dangling.py").symlink_to("nowhere")
    return root


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of the collection built from that copy."""
    output = tmp_path_factory.mktemp("built")
    run_ansible_program("ansible-galaxy", "collection", "build", checkout, "--output-path", output, home=output)
    return next(output.glob("homelab-nut-*.tar.gz"))


def test_stray_files_are_not_packed(built: Path) -> None:
    with tarfile.open(built) as tar:
        names = {member.name for member in tar if not member.isdir()}
        links = [member.name for member in tar if not member.isdir() and not member.isreg()]
        leaks = [
            member.name
            for member in tar
            if member.isreg() and SECRET.encode() in (tar.extractfile(member) or tar).read()
        ]
    assert leaks == []
    assert links == []
    assert names - list_tracked_files() - MADE == set()


def test_needed_files_are_packed(built: Path) -> None:
    """If this fails for a new file, list the file in galaxy.yml."""
    with tarfile.open(built) as tar:
        names = {member.name for member in tar if member.isreg()}
    assert {name for name in list_tracked_files() if is_shipped(name)} ^ (names - MADE) == set()


def test_built_collection_can_be_installed(built: Path, tmp_path: Path) -> None:
    run_ansible_program("ansible-galaxy", "collection", "install", "--offline", built, "-p", tmp_path, home=tmp_path)
    listed = json.loads(run_ansible_program("ansible-doc", "--list", "--json", "homelab.nut", home=tmp_path))
    modules = {f"homelab.nut.{path.stem}" for path in (CHECKOUT / "plugins/modules").glob("[!_]*.py")}
    assert set(listed) == modules


def test_checkout_installs_the_same_files_as_the_built_collection(checkout: Path, built: Path, tmp_path: Path) -> None:
    """`ansible-galaxy collection install DIRECTORY` and git+https://... use the same list of files."""
    run_ansible_program("ansible-galaxy", "collection", "install", "--offline", checkout, "-p", tmp_path, home=tmp_path)
    root = tmp_path / "ansible_collections/homelab/nut"
    with tarfile.open(built) as tar:
        names = {member.name for member in tar if member.isreg()}
    assert {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} == names
