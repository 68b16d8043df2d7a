# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A virtual machine of the lab, for who wants to use one: up, down, power, ssh, and the UPSes at its ports."""

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
BOOTED = "booted"  # the snapshot that a new machine begins with
ANSWER_SECONDS = 120.0  # for a command; the longest is to save the memory
BOOT_SECONDS = 180.0  # from power to an answer by ssh; 25 to 40 on two cores
SETTLED = ("running", "degraded")


@dataclass(frozen=True)
class VmRecord:
    """What is written down of a machine: Debian's release, and the loopback port of its ssh."""

    release: str
    port: int


class Vm:
    """A machine by name. Its folder is .lab/LAB/vm/NAME; its UPSes answer to lab/ups NAME, as any host's."""

    def __init__(self, name: str, lab: Lab) -> None:
        """Name a machine; nothing is started."""
        if not name or not name.replace("-", "").isalnum():
            raise LabError(f"{name!r}: a machine's name is made of letters, digits and hyphens")
        self.name, self.lab = name, lab
        self.folder = lab.state / "vm" / name
        self.control = lab.state / "usb" / name / "control"
        self.ssh_config = self.folder / "ssh_config"

    @classmethod
    def find_all(cls, lab: Lab) -> list[Vm]:
        """Return the machines that there are."""
        return [cls(path.parent.name, lab) for path in sorted((lab.state / "vm").glob("*/machine.json"))]

    def read_record(self) -> VmRecord:
        """Return what is written down. Raises LabError if the machine was never up."""
        try:
            return VmRecord(**json.loads((self.folder / "machine.json").read_text()))
        except (OSError, ValueError, TypeError):
            raise LabError(
                f"no machine {self.name} in the lab {self.lab.name}; make it: lab/vm/vm {self.name} up"
            ) from None

    # What it does

    def start_machine(self, release: str) -> None:
        """Start the machine, booted, its clock right, with no UPS plugged in. One that is on is left alone."""
        if (self.folder / "machine.json").exists() and self.is_answering():
            if self.read_record().release != release:
                raise LabError(f"{self.name} is Debian {self.read_record().release}; first: lab/vm/vm {self.name} down")
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
            log_step(f"booting a machine ({release}) for the first time: half a minute, and only this once")
            disk = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "disk", "disk.qcow2"]
            run_program(["env", "--chdir", str(self.folder), *disk])
            self._start_process()
            self.boot_machine()
            self.send_command("snapshot", tag=BOOTED)
            self.send_command("kill")
            self._keep_snapshot(snapshot)
        self.restore_snapshot(BOOTED)

    def remove_machine(self) -> None:
        """Remove the machine and all that it has."""
        with contextlib.suppress(LabError):
            self.send_command("down")
            deadline = time.monotonic() + 10
            while self.control.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.control.parent, ignore_errors=True)

    def boot_machine(self) -> None:
        """Give the machine power, and wait until it has started all."""
        self.send_command("boot")
        self.wait_until_up()

    def cut_power(self) -> None:
        """Take the machine's power away: it stops at once, as it stands."""
        self.send_command("kill")

    def save_snapshot(self, tag: str) -> None:
        """Keep the machine's state, memory and disk."""
        self.send_command("snapshot", tag=tag)

    def restore_snapshot(self, tag: str) -> None:
        """Go back to a state, and set the clock."""
        self.send_command("restore", tag=tag)
        self.wait_until_up(settled=False)
        # the clock went on from where the snapshot was taken
        self.run_ssh("date", "--utc", "--set", f"@{time.time():.2f}")

    def wait_until_up(self, seconds: float = BOOT_SECONDS, settled: bool = True) -> None:
        """Wait until ssh answers, and, if it is to be SETTLED, until systemd has no more to start."""
        deadline = time.monotonic() + seconds
        while not _has_banner(self.read_record().port):
            if time.monotonic() > deadline or self.send_command("status")["machine"]["power"] == "off":
                raise LabError(f"{self.name} did not come up within {seconds:.0f} s; see {self.folder}/console.log")
            time.sleep(0.1)
        if settled:
            # it fails where anything is degraded, and says so in its one word
            state = self.run_ssh("systemctl is-system-running --wait || true").strip()
            if state not in SETTLED:
                raise LabError(f"{self.name} is {state!r}; look: lab/vm/vm {self.name} ssh")

    def run_ssh(self, *words: str) -> str:
        """Run a command there, and return its output. Raises LabError with what it said if it fails."""
        return run_program(["ssh", "-F", str(self.ssh_config), self.name, *words])

    def control_ups(self, *words: str) -> str:
        """Work the UPSes as a person does with lab/ups, and return what that says."""
        return self.lab.control_ups(self.name, *words)

    # Talking to the process that has the machine

    def is_answering(self) -> bool:
        """Say whether the machine's process is there."""
        try:
            self.send_command("status")
        except LabError:
            return False
        return True

    def send_command(self, name: str, **arguments: object) -> Json:
        """Send one command; LabError if nobody answers, or it is refused."""
        try:
            answer = json.loads(self._exchange_line(json.dumps({"command": name, **arguments}).encode() + b"\n"))
        except (OSError, ValueError) as error:
            raise LabError(f"{self.name} does not answer ({error}); start it: lab/vm/vm {self.name} up") from None
        if not isinstance(answer, dict) or not answer.get("ok"):
            raise LabError(f"{self.name}: {answer.get('error') if isinstance(answer, dict) else answer}")
        return answer

    def _exchange_line(self, line: bytes) -> bytes:
        """One line there, one line back. A socket's path is short, so it is named through its open directory."""
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

    # Making it

    def _prepare_folder(self, release: str, made_of: Path) -> None:
        """Make the folder: links to the image, a key, and how ssh gets there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True)
        self.control.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("disk", "vmlinuz", "initrd"):
            _link_file(made_of / name, self.folder / name)
        # Always as long as now: a restored machine knows how many bytes of it to read.
        comment = "lab"
        run_program(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(self.folder / "id_ed25519")]
        )
        known = VmRecord(release, _find_free_port())
        config = SSH_CONFIG.format(file=self.ssh_config, state=self.folder)
        config += f"\nHost {self.name}\n  Port {known.port}\n  HostKeyAlias {self.name}\n"
        self.ssh_config.write_text(config)
        (self.folder / "known_hosts").write_text(f"{self.name} {(made_of / 'host_key.pub').read_text()}")
        (self.folder / "machine.json").write_text(json.dumps(vars(known)))

    def _start_process(self) -> None:
        """Start the process that has the machine, and wait until it answers."""
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
        """Name what a snapshot depends on beside the image: QEMU, and the machine that it is."""
        said = run_program([machine.QEMU, "--version"])
        return hashlib.sha256("\0".join([said, *machine.qemu_command(0)]).encode()).hexdigest()[:12]

    def _keep_snapshot(self, snapshot: Path) -> None:
        """Put the booted machine beside its image. It may be that nothing can be written there."""
        temporary = snapshot.with_name(f".making-{os.getpid()}-{snapshot.name}")
        try:
            _copy_file(self.folder / "disk.qcow2", temporary)
            temporary.chmod(0o600)
            temporary.rename(snapshot)
        except (LabError, OSError) as error:
            log_step(f"the booted machine is not kept for the next time: {error}")
        finally:
            temporary.unlink(missing_ok=True)


def _has_banner(port: int) -> bool:
    """Say whether sshd greets. QEMU takes the connection in any case."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
            probe.settimeout(5)
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def _copy_file(source: Path, target: Path) -> None:
    run_program(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)])


def _link_file(source: Path, target: Path) -> None:
    """Have a file here, whatever becomes of it there."""
    try:
        target.hardlink_to(source)
    except OSError:
        _copy_file(source, target)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
