# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The newcomer: a folder with the collection, installed from its tarball, and an inventory that began as a copy of the example."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from homelab import CHECKOUT, Lab, run_podman

SSH_ENTRY = """
Host {address}
  HostName 127.0.0.1
  Port {port}
  HostKeyAlias {address}
  IdentityFile "{key}"
  IdentitiesOnly yes
  UserKnownHostsFile "{known}"
"""


class Newcomer:
    """Somebody with a terminal, in a folder whose name has a blank."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        """Install the collection as `ansible-galaxy` does, and copy the example."""
        self.folder, self.lab = folder, lab
        self.inventory = folder / "inventory"
        self.addresses = {name: read_address(lab, name) for name in lab.read_hosts()}
        self.known_hosts = folder / "known_hosts"
        self.environment = {
            # nothing of the checkout's: neither its configuration nor its virtual environment's variables
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))},
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            # /home/me/.ssh/config: the machines listen on ports of this machine
            "ANSIBLE_SSH_COMMON_ARGS": f"-F {shlex.quote(str(folder / 'ssh_config'))}",
            "TRUENAS_API_KEY": "1-" + "LabOnly0" * 8,
        }
        self._write_ssh_config()
        self._install_collection()
        shutil.copytree(CHECKOUT / "inventories" / "example", self.inventory)

    def _write_ssh_config(self) -> None:
        entries = [
            SSH_ENTRY.format(
                address=self.addresses[name],
                port=ports["ssh"],
                key=self.lab.state / "id_ed25519",
                known=self.known_hosts,
            )
            for name, ports in self.lab.read_hosts().items()
        ]
        (self.folder / "ssh_config").write_text("".join(entries))

    def _install_collection(self) -> None:
        galaxy = [str(Path(sys.executable).with_name("ansible-galaxy")), "collection"]
        build = [*galaxy, "build", "--output-path", str(self.folder), str(CHECKOUT)]
        subprocess.run(build, env=self.environment, check=True, stdout=subprocess.DEVNULL)
        (tarball,) = self.folder.glob("*.tar.gz")
        install = [
            *galaxy,
            "install",
            "--offline",
            "--collections-path",
            str(self.folder / "collections"),
            str(tarball),
        ]
        subprocess.run(install, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def edit_file(self, name: str, *changes: tuple[str, str]) -> None:
        """Replace texts in a file of the inventory. Each must be there."""
        path = self.inventory / name
        text = path.read_text()
        for old, new in changes:
            assert old in text, f"{name} has no {old!r}"
            text = text.replace(old, new)
        path.write_text(text)

    def run_playbook(self, name: str, *arguments: str, **variables: object) -> tuple[int, str]:
        """Run a playbook of the collection by its full name. Return the exit status and the output, with blanks and breaks joined."""
        command = ["ansible-playbook", f"homelab.nut.{name}", "--inventory", "inventory", *arguments]
        command += ["--extra-vars", json.dumps(variables)] if variables else []
        done = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        print(done.stdout)  # pytest shows it if the test fails
        return done.returncode, re.sub(r"\s+", " ", done.stdout)

    def deploy(self, *arguments: str, **variables: object) -> str:
        """Deploy, and return what was printed. Fail if the run does."""
        status, output = self.run_playbook("pve", *arguments, **variables)
        assert status == 0
        return output

    def refuse(self, *arguments: str, **variables: object) -> str:
        """Try to deploy, and return what was printed. Fail if the run succeeds."""
        status, output = self.run_playbook("pve", *arguments, **variables)
        assert status != 0
        return output

    def run_local(self, *command: str) -> None:
        """Run a command on the newcomer's own machine."""
        subprocess.run(command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, check=True)

    def run_ssh(self, name: str, command: str) -> str:
        """Run a command on a machine as root, by sudo, and return its output."""
        ssh = ["ssh", "-F", str(self.lab.state / "ssh_config"), name, "sudo sh -c " + shlex.quote(command)]
        return subprocess.run(ssh, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True).stdout


def read_address(lab: Lab, name: str) -> str:
    """Return a machine's address in the lab's network."""
    seen = json.loads(run_podman("inspect", "--type", "container", lab.container_name(name)).stdout)[0]
    return str(seen["NetworkSettings"]["Networks"][lab.prefix]["IPAddress"])


@pytest.fixture(scope="session")
def newcomer(tmp_path_factory: pytest.TempPathFactory, lab: Lab) -> Newcomer:
    """Return the newcomer. The tests of a story share it."""
    folder = tmp_path_factory.mktemp("story") / "my homelab"
    folder.mkdir()
    return Newcomer(folder, lab)
