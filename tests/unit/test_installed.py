# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection from its tarball works without a checkout, with the oldest and the newest ansible-core that it supports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from ansible_collections.homelab.nut.tests.unit.support.plays import CHECKOUT

pytestmark = pytest.mark.slow

PROGRAMS = {"newest": Path(sys.executable).parent, "oldest": CHECKOUT / ".venv/oldest/bin"}
# nothing answers there
PRIMARY = {"ansible_host": "127.0.0.1", "ansible_port": 9}


class Installed:
    """The collection, installed into a folder of its own by one release of ansible-core."""

    def __init__(self, programs: Path, root: Path) -> None:
        assert (programs / "ansible-playbook").exists(), f"{programs} is missing: make units-all installs it"
        self.programs, self.root = programs, root
        self.collection = root / "collections/ansible_collections/homelab/nut"

    def run_program(self, name: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a program of Ansible's in FOLDER, with nothing of this machine's configuration and no collection but this one."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment |= {
            "HOME": str(self.root),
            "ANSIBLE_HOME": str(self.root / "home"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.root / "collections"),
            "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [str(self.programs / name), *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, env=environment, text=True, capture_output=True, timeout=180, check=False
        )

    def run_playbook(self, playbook: str, folder: Path, *arguments: str) -> str:
        """Run a playbook of the collection by its full name. Return the output with its white space folded."""
        done = self.run_program("ansible-playbook", f"homelab.nut.{playbook}", *arguments, folder=folder)
        return f"{' '.join((done.stdout + done.stderr).split())} (exit code {done.returncode})"


def write_inventory(folder: Path, primary: Mapping[str, object]) -> None:
    (folder / "hosts.yml").write_text(yaml.safe_dump({"pve": {"hosts": {"proxmox": dict(primary)}}}))


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    builder = Installed(PROGRAMS["newest"], folder)
    done = builder.run_program(
        "ansible-galaxy", "collection", "build", CHECKOUT, "--output-path", folder, folder=folder
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module", params=PROGRAMS)
def installed(request: pytest.FixtureRequest, tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Return the collection, installed as a user does it."""
    found = Installed(PROGRAMS[request.param], tmp_path_factory.mktemp(request.param))
    done = found.run_program(
        "ansible-galaxy",
        "collection",
        "install",
        "--offline",
        tarball,
        "-p",
        found.root / "collections",
        folder=found.root,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def test_oldest_release_is_the_one_that_the_collection_requires() -> None:
    shown = subprocess.run([PROGRAMS["oldest"] / "ansible", "--version"], check=True, capture_output=True, text=True)
    required = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())["requires_ansible"]
    assert f"core {required.removeprefix('>=').removesuffix('.0')}." in shown.stdout


def test_collection_is_loaded_without_a_warning(installed: Installed, tmp_path: Path) -> None:
    listed = installed.run_program("ansible-galaxy", "collection", "list", folder=tmp_path)
    assert "homelab.nut" in listed.stdout
    assert "WARNING" not in listed.stdout + listed.stderr


def test_playbooks_pass_the_syntax_check(installed: Installed, tmp_path: Path) -> None:
    write_inventory(tmp_path, PRIMARY)
    names = [f"homelab.nut.{path.stem}" for path in sorted(CHECKOUT.glob("playbooks/*.yml"))]
    done = installed.run_program("ansible-playbook", *names, "-i", "hosts.yml", "--syntax-check", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split("/playbooks/")[1] for line in done.stdout.splitlines() if line.startswith("playbook: ")] == [
        f"{name.removeprefix('homelab.nut.')}.yml" for name in names
    ]


def test_plan_names_a_primary_that_does_not_answer(installed: Installed, tmp_path: Path) -> None:
    write_inventory(tmp_path, PRIMARY)
    output = installed.run_playbook("plan", tmp_path, "-i", "hosts.yml")
    assert "Plan the shutdown" in output
    assert "unreachable=1" in output
    assert output.endswith("(exit code 4)"), output


def test_inventory_without_a_primary_is_refused_in_words_that_need_no_checkout(
    installed: Installed, tmp_path: Path
) -> None:
    (tmp_path / "hosts.yml").write_text("truenas: {hosts: {nas: }}\n")
    output = installed.run_playbook("plan", tmp_path, "-i", "hosts.yml")
    assert "has no host in the group pve" in output
    assert "make " not in output
    assert (installed.collection / "inventories/example/hosts.yml").exists()


def test_doctor_names_no_make_for_a_host_that_does_not_answer(installed: Installed, tmp_path: Path) -> None:
    write_inventory(tmp_path, PRIMARY)
    output = installed.run_playbook("doctor", tmp_path, "-i", "hosts.yml", "--check")
    assert "`ssh -p 9 127.0.0.1`" in output
    assert "make " not in output
    report = tmp_path / "report.json"
    installed.run_playbook("doctor", tmp_path, "-i", "hosts.yml", "--check", "-e", f"__nut_doctor_file={report}")
    assert "`ssh -p 9 127.0.0.1`" in report.read_text()


def test_doctor_recommends_a_command_that_works_without_make(
    installed: Installed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine is the host, seems to be root's, and has a Python that says nothing."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "id").write_text('#!/bin/sh\n[ "$1" = -u ] && echo 0 || echo root\n')
    (programs / "id").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    write_inventory(tmp_path, {"ansible_connection": "local", "ansible_python_interpreter": "/bin/true"})
    report = tmp_path / "report.json"
    arguments = ("-i", "hosts.yml", "--check", "-e", f"__nut_doctor_file={report}")
    installed.run_playbook("doctor", tmp_path, *arguments)
    assert "ansible-playbook homelab.nut.doctor --check --limit proxmox -vvv" in report.read_text()
    # as a cell of a table
    output = installed.run_playbook("doctor", tmp_path, *arguments[:3])
    assert "ansible-playbook" in output
    assert "make doctor" not in output


def test_example_inventory_is_accepted(installed: Installed, tmp_path: Path) -> None:
    """Its hosts are reached at addresses that nothing answers at, so that only the check of the inventory is asked here."""
    example = installed.collection / "inventories/example"
    output = installed.run_playbook("pve", tmp_path, "-i", str(example), "--list-hosts")
    assert output.endswith("(exit code 0)"), output
    assert "nas" in output


def test_documentation_of_each_role_begins_with_its_smallest_example(installed: Installed, tmp_path: Path) -> None:
    roles = [path.name for path in sorted((CHECKOUT / "roles").iterdir())]
    done = installed.run_program(
        "ansible-doc", "-t", "role", *(f"homelab.nut.{role}" for role in roles), folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    # ansible-core 2.21 warns about a collection of its own
    assert [line for line in done.stderr.splitlines() if "WARNING" in line and "_protomatter" not in line] == []
    pages = {
        match[1]: match[0] for match in re.finditer(r"> ROLE: .*?nut\.(\w+).*?(?=> ROLE|\Z)", done.stdout, re.DOTALL)
    }
    assert sorted(pages) == roles
    for role, page in pages.items():
        head = " ".join(re.split(r"\bOptions\b", page, flags=re.IGNORECASE)[0].split())
        assert re.search(rf"hosts: .*roles: \[.*\bhomelab\.nut\.{role}\]", head), head
        assert "EXAMPLES" in page


def test_execution_environment_needs_only_what_ansible_core_lacks(installed: Installed) -> None:
    """Locked versions would contradict those of other collections in the same execution environment."""
    command = [str(PROGRAMS["newest"] / "ansible-builder"), "introspect", str(installed.root / "collections")]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    python = yaml.safe_load(done.stdout)["python"]
    assert [line.partition("#")[0].strip() for line in python] == ["websocket-client>=1.3"]
    assert not list(installed.collection.glob("requirements*"))
