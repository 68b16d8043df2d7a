# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Control a virtual machine of the lab: start, remove, power, ssh, and the UPSes at its ports."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from homelab import SSH_CONFIG, Lab
from homelab.podman import LabError, log_step

from . import machine
from .image import build_image, cache_folder, run_program

Json = dict[str, Any]
HERE = Path(__file__).resolve().parent
BOOTED = "booted"  # the snapshot that a new machine starts from
ANSWER_SECONDS = 120.0  # for a command; saving the memory takes longest
BOOT_SECONDS = 180.0  # from power until ssh answers; 25 to 40 on two cores
SETTLED = ("running", "degraded")


@dataclass(frozen=True)
class VmRecord:
    """The record of a machine, kept in machine.json."""

    release: str  # of Debian
    port: int  # on loopback, leads to the machine's ssh


class Vm:
    """A machine by name. Its directory is .lab/LAB/vm/NAME; lab/ups NAME controls its UPSes."""

    def __init__(self, name: str, lab: Lab) -> None:
        """Name a machine without starting it."""
        if not name or not name.replace("-", "").isalnum():
            raise LabError(f"{name!r}: the name of a machine may contain letters, digits and hyphens only")
        self.name, self.lab = name, lab
        self.folder = lab.state / "vm" / name
        self.control = lab.state / "usb" / name / "control"
        self.ssh_config = self.folder / "ssh_config"

    @classmethod
    def find_all(cls, lab: Lab) -> list[Vm]:
        """Return the existing machines of a lab."""
        return [cls(path.parent.name, lab) for path in sorted((lab.state / "vm").glob("*/machine.json"))]

    def read_record(self) -> VmRecord:
        """Return the machine's record. Raise LabError if it was never started."""
        try:
            return VmRecord(**json.loads((self.folder / "machine.json").read_text()))
        except (OSError, ValueError, TypeError):
            raise LabError(
                f"the lab {self.lab.name} has no machine {self.name}; start one: lab/vm/vm {self.name} up"
            ) from None

    # Commands

    def start_machine(self, release: str) -> None:
        """Start the machine from its booted snapshot, without UPSes. Leave a running machine alone."""
        if (self.folder / "machine.json").exists() and self.is_answering():
            if self.read_record().release != release:
                raise LabError(
                    f"{self.name} is Debian {self.read_record().release}; remove it first: lab/vm/vm {self.name} down"
                )
            if self.send_command("status")["machine"]["power"] == "off":
                self.boot_machine()
            return
        made_of = build_image(release, cache_folder(self.lab.state / "images"))
        self._prepare_folder(release, made_of)
        snapshot = made_of / f"{BOOTED}-{self._hash_qemu()}.qcow2"
        if snapshot.exists():
            _copy_file(snapshot, self.folder / "disk.qcow2")
            self._start_process()
        else:
            log_step(f"booting a machine ({release}): half a minute, the first time only")
            disk = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "disk", "disk.qcow2"]
            run_program(["env", "--chdir", str(self.folder), *disk])
            self._start_process()
            self.boot_machine()
            self.send_command("snapshot", tag=BOOTED)
            self.send_command("kill")
            self._keep_snapshot(snapshot)
        self.restore_snapshot(BOOTED)

    def remove_machine(self) -> None:
        """Remove the machine and its files."""
        with contextlib.suppress(LabError):
            self.send_command("down")
            deadline = time.monotonic() + 10
            while self.control.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.control.parent, ignore_errors=True)

    def boot_machine(self) -> None:
        """Start the machine, and wait until it has booted."""
        self.send_command("boot")
        self.wait_until_up()

    def cut_power(self) -> None:
        """Cut the machine's power: it stops at once."""
        self.send_command("kill")

    def save_snapshot(self, tag: str) -> None:
        """Save the machine's memory and disk."""
        self.send_command("snapshot", tag=tag)

    def restore_snapshot(self, tag: str) -> None:
        """Restore a snapshot, and set the clock."""
        self.send_command("restore", tag=tag)
        self.wait_until_up(settled=False)
        # the restored clock shows the time of the snapshot
        self.run_ssh("date", "--utc", "--set", f"@{time.time():.2f}")

    def wait_until_up(self, seconds: float = BOOT_SECONDS, settled: bool = True) -> None:
        """Wait until ssh answers and, if `settled`, until systemd has finished booting."""
        deadline = time.monotonic() + seconds
        while not _has_banner(self.read_record().port):
            if time.monotonic() > deadline or self.send_command("status")["machine"]["power"] == "off":
                raise LabError(f"{self.name} did not boot within {seconds:.0f} s; see {self.folder}/console.log")
            time.sleep(0.1)
        if settled:
            # it exits with 1 if the system is degraded; its output has the state
            state = self.run_ssh("systemctl is-system-running --wait || true").strip()
            if state not in SETTLED:
                raise LabError(f"the state of {self.name} is {state!r}; log in: lab/vm/vm {self.name} ssh")

    def run_ssh(self, *words: str) -> str:
        """Run a command on the machine and return its output. Raise LabError with the output if it fails."""
        return run_program(["ssh", "-F", str(self.ssh_config), self.name, *words])

    def control_ups(self, *words: str) -> str:
        """Run lab/ups for this machine and return its output."""
        return self.lab.control_ups(self.name, *words)

    # The machine's process (machine.py)

    def is_answering(self) -> bool:
        """Return whether the machine's process is running."""
        try:
            self.send_command("status")
        except LabError:
            return False
        return True

    def send_command(self, name: str, **arguments: object) -> Json:
        """Send a command and return the answer. Raise LabError if the process does not answer or refuses."""
        try:
            answer = json.loads(self._exchange_line(json.dumps({"command": name, **arguments}).encode() + b"\n"))
        except (OSError, ValueError) as error:
            raise LabError(f"{self.name} does not answer ({error}); start it: lab/vm/vm {self.name} up") from None
        if not isinstance(answer, dict) or not answer.get("ok"):
            raise LabError(f"{self.name}: {answer.get('error') if isinstance(answer, dict) else answer}")
        return answer

    def _exchange_line(self, line: bytes) -> bytes:
        """Send a line and return the line of answer. Paths of sockets must be short, so use one through the open directory."""
        directory = os.open(self.control.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(ANSWER_SECONDS)
                client.connect(f"/proc/self/fd/{directory}/{self.control.name}")
                client.sendall(line)
                with client.makefile("rb") as stream:
                    return stream.readline()
        finally:
            os.close(directory)

    # Creation

    def _prepare_folder(self, release: str, made_of: Path) -> None:
        """Make the machine's directory: links to the image, a key and an ssh configuration."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        self.control.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("disk", "vmlinuz", "initrd"):
            _link_file(made_of / name, self.folder / name)
        # The length must not change: a restored machine remembers how many bytes of the key to read.
        comment = "lab"
        run_program(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(self.folder / "id_ed25519")]
        )
        known = VmRecord(release, _find_free_port())
        config = SSH_CONFIG.format(file=self.ssh_config, state=self.folder)
        config += f"\nHost {self.name}\n  User root\n  Port {known.port}\n  HostKeyAlias {self.name}\n"
        self.ssh_config.write_text(config)
        (self.folder / "known_hosts").write_text(f"{self.name} {(made_of / 'host_key.pub').read_text()}")
        (self.folder / "machine.json").write_text(json.dumps(vars(known)))

    def _start_process(self) -> None:
        """Start the machine's process, and wait until it answers."""
        script, log = HERE / "machine.py", self.folder / "machine.log"
        words = [sys.executable, str(script), str(self.folder), str(self.control), str(self.read_record().port)]
        with log.open("wb") as output:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + 30
        while not self.is_answering():
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"the process of {self.name} did not start: {log.read_text().strip()}")
            time.sleep(0.05)

    def _hash_qemu(self) -> str:
        """Return a hash of what a snapshot depends on besides the image: QEMU's version and command line."""
        version = run_program([machine.QEMU, "--version"])
        return hashlib.sha256("\0".join([version, *machine.qemu_command(0)]).encode()).hexdigest()[:12]

    def _keep_snapshot(self, snapshot: Path) -> None:
        """Copy the booted machine's disk beside its image, if the directory is writable."""
        temporary = snapshot.with_name(f".making-{os.getpid()}-{snapshot.name}")
        try:
            _copy_file(self.folder / "disk.qcow2", temporary)
            temporary.chmod(0o600)
            temporary.rename(snapshot)
        except (LabError, OSError) as error:
            log_step(f"could not cache the booted machine: {error}")
        finally:
            temporary.unlink(missing_ok=True)


def _has_banner(port: int) -> bool:
    """Return whether sshd answers. QEMU accepts the connection in any case."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
            probe.settimeout(5)
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def _copy_file(source: Path, target: Path) -> None:
    run_program(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)])


def _link_file(source: Path, target: Path) -> None:
    """Link a file, or copy it, so that it stays even if the original is removed."""
    try:
        target.hardlink_to(source)
    except OSError:
        _copy_file(source, target)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
