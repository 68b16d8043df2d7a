# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for Proxmox VE's qm, pct and vzdump, with processes as guests.

    python3 pve_stand_in.py qm|pct|vzdump ARGUMENTS

$PVE_STAND_IN names a directory. For each guest it has ID.json (its properties, see GUEST), ID.pid (the process that is the
guest, while it runs), and `calls`, a line of JSON for each call. $PVE_STAND_IN_SPEED: how many of Proxmox's seconds pass in
a real second. `took` gets a line for each call that waited: how many of Proxmox's seconds.

$PVE_STAND_IN_MOMENTS, if set, names a file that gets a line for each event of a guest, "TIME ID started|told|down|killed", in seconds
since 1970. Then each guest runs in its own scope (systemd-run), like Proxmox's: it outlives the unit that started it.

Like the real ones: a guest that was asked to shut down does so even if qm is killed; a second qm waits for the first one's
lock and gives up; a guest in a backup is locked; for a guest under HA, qm asks HA and does not wait.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# kind: qm or pct. shutdown: seconds it takes to go down, None: it hangs. lock: as in its configuration. ha: HA works it.
# starts: how many starts fail before one succeeds. name: as `list` shows it.
GUEST: dict[str, Any] = {"kind": "qm", "shutdown": 5.0, "lock": "", "ha": False, "starts": 0, "name": ""}
LOCK_SECONDS = 10.0
# as Proxmox starts a VM: it is not stopped with whoever started it, nor by systemd itself when the host goes down
SCOPE = ("systemd-run", "--scope", "--quiet", "--slice=qemu", "--property=KillMode=none", "--property=SendSIGKILL=no")


class CommandError(Exception):
    """A command fails with this message (of Perl's die) and exit code."""

    def __init__(self, words: str, code: int = 255) -> None:
        super().__init__(words)
        self.code = code


class GuestFolder:
    """The directory of guests."""

    def __init__(self, folder: Path, speed: float = 1.0, moments: Path | None = None) -> None:
        self.folder, self.speed, self.moments = folder, speed, moments

    def add_guest(self, number: int, *, running: bool = True, **what: Any) -> None:
        """Create a guest."""
        (self.folder / f"{number}.json").write_text(json.dumps({**GUEST, **what}))
        if running:
            self.start_process(number)

    def read_guest(self, number: int, kind: str | None = None) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / f"{number}.json").read_text())
        except FileNotFoundError:
            found = {}
        if not found or kind not in (None, found["kind"]):
            folder = "lxc" if kind == "pct" else "qemu-server"
            raise CommandError(f"Configuration file 'nodes/pve/{folder}/{number}.conf' does not exist", 2)
        return found

    def find_pid(self, number: int) -> int:
        """Return a guest's process id, or 0 if it is down."""
        try:
            pid = int((self.folder / f"{number}.pid").read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return 0
        # a zombie has ended, but its parent has not waited for it
        return 0 if state in "ZX" else pid

    def start_process(self, number: int) -> None:
        guest = [sys.executable, __file__, "guest", str(number)]
        child = _start_detached("sleep", "infinity") if self.moments is None else _start_detached(*SCOPE, *guest)
        scratch = self.folder / f"{number}.pid.new"
        scratch.write_text(str(child))
        scratch.replace(self.folder / f"{number}.pid")

    def kill_guest(self, number: int) -> None:
        if pid := self.find_pid(number):
            os.kill(pid, signal.SIGKILL)
            self.note_moment(number, "killed")
        self.wait_for_end(number)

    def kill_all(self) -> None:
        for path in self.folder.glob("*.pid"):
            self.kill_guest(int(path.stem))

    def wait_for_end(self, number: int) -> None:
        while self.find_pid(number):
            time.sleep(0.002)

    def read_calls(self) -> list[list[str]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # The programs

    def run_program(self, program: str, words: list[str]) -> str:
        """Run a program and return its output. Raise CommandError if it fails."""
        self.append_line("calls", json.dumps([program, *words]))
        if program == "vzdump":
            for path in self.folder.glob("*.json"):
                path.write_text(json.dumps({**json.loads(path.read_text()), "lock": ""}))
            return ""
        parser = argparse.ArgumentParser(prog=program)
        parser.add_argument("verb", choices=("list", "status", "start", "shutdown", "stop"))
        # every verb but `list` needs it
        parser.add_argument("number", type=int, nargs="?" if words[:1] == ["list"] else None)
        parser.add_argument("--timeout", type=int, default=180 if program == "qm" else 60)
        parser.add_argument("--forceStop", type=int, default=0)
        parser.add_argument("--skiplock", type=int, default=0)
        asked = parser.parse_args(words)
        if asked.verb == "list":
            return self.list_guests(program)
        guest = self.read_guest(asked.number, program)
        if asked.verb == "status":
            return f"status: {'running' if self.find_pid(asked.number) else 'stopped'}\n"
        what = "VM" if program == "qm" else "CT"
        if guest["lock"] and not asked.skiplock:
            raise CommandError(f"{what} is locked ({guest['lock']})")
        if asked.verb == "start":
            return self.start_guest(asked.number, guest, what)
        if not self.find_pid(asked.number):
            raise CommandError(f"{what} {asked.number} not running")
        if guest["ha"]:
            self.ask_to_stop(asked.number, guest)
            return f"Requesting HA stop for {what} {asked.number}\n"
        with self.hold_lock(asked.number):
            return self.stop_guest(asked, guest, what)

    def list_guests(self, kind: str) -> str:
        """Return the list as the real ones print it (qm.pm, pct.pm): nothing without guests; a VM always has a name."""
        rows = []
        for path in sorted(self.folder.glob("[1-9]*.json"), key=lambda path: int(path.stem)):
            number, guest = int(path.stem), {**GUEST, **json.loads(path.read_text())}
            pid, name = self.find_pid(number), guest["name"]
            state = "running" if pid else "stopped"
            if guest["kind"] != kind:
                continue
            if kind == "qm":
                rows.append(f"{number:>10} {name or f'VM {number}':<20} {state:<10} {2048:<10} {32:>12.2f} {pid:<10}\n")
            else:
                rows.append(f"{number:<10} {state:<10} {guest['lock']:<12} {name or f'CT{number}':<20}\n")
        header = (
            f"{'VMID':>10} {'NAME':<20} {'STATUS':<10} {'MEM(MB)':<10} {'BOOTDISK(GB)':>12} {'PID':<10}\n"
            if kind == "qm"
            else f"{'VMID':<10} {'Status':<10} {'Lock':<12} {'Name':<20}\n"
        )
        return "".join([header, *rows]) if rows else ""

    def start_guest(self, number: int, guest: dict[str, Any], what: str) -> str:
        if self.find_pid(number):
            raise CommandError(f"{what} {number} already running")
        if guest["starts"]:
            (self.folder / f"{number}.json").write_text(json.dumps({**guest, "starts": guest["starts"] - 1}))
            raise CommandError(f"start failed: storage of {number} is not online")
        self.start_process(number)
        return f"Requesting HA start for {what} {number}\n" if guest["ha"] else ""

    def stop_guest(self, asked: argparse.Namespace, guest: dict[str, Any], what: str) -> str:
        number, seconds = asked.number, guest["shutdown"]
        if asked.verb == "stop":
            self.kill_guest(number)
            return ""
        self.ask_to_stop(number, guest)
        if seconds is not None and seconds <= asked.timeout:
            self.wait_for_end(number)
            self.append_line("took", str(seconds))
            return ""
        time.sleep(asked.timeout / self.speed)
        self.append_line("took", str(asked.timeout))
        if not asked.forceStop:
            raise CommandError(f"{what} quit/powerdown failed - got timeout")
        self.kill_guest(number)
        return "VM still running - terminating now with SIGTERM\n" if what == "VM" else ""

    def ask_to_stop(self, number: int, guest: dict[str, Any]) -> None:
        """Press the power button: from now on the guest shuts down."""
        pid = self.find_pid(number)
        going = self.folder / f"{number}.going"
        if guest["shutdown"] is None or (going.exists() and going.read_text() == str(pid)):
            return
        going.write_text(str(pid))
        if self.moments is not None:
            os.kill(pid, signal.SIGUSR1)
            return
        _start_detached("sh", "-c", f"sleep {guest['shutdown'] / self.speed:.4f}; kill -9 {pid}")

    @contextlib.contextmanager
    def hold_lock(self, number: int) -> Any:
        deadline = time.monotonic() + LOCK_SECONDS / self.speed
        with (self.folder / f"{number}.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise CommandError(f"can't lock file 'lock-{number}.conf' - got timeout") from None
                    time.sleep(0.005)
            yield

    def run_guest(self, number: int) -> None:
        """Be a guest in its own scope: run until the power button is pressed, then shut down."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        self.note_moment(number, "started")
        signal.sigwait({signal.SIGUSR1})
        self.note_moment(number, "told")
        time.sleep(float(self.read_guest(number)["shutdown"]) / self.speed)
        self.note_moment(number, "down")

    def note_moment(self, number: int, what: str) -> None:
        if self.moments is not None:
            with self.moments.open("a") as file:
                file.write(f"{time.time():.3f} {number} {what}\n")

    def append_line(self, name: str, line: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write(f"{line}\n")


def _start_detached(*command: str) -> int:
    """Start a detached process, with its standard streams closed, and return its id."""
    script = '"$@" </dev/null >/dev/null 2>&1 & echo $!'
    started = subprocess.run(
        ["sh", "-c", script, "sh", *command], stdout=subprocess.PIPE, start_new_session=True, check=True
    )
    return int(started.stdout)


def install_programs(place: Path, folder: Path, speed: float, moments: Path | None = None) -> None:
    """Install qm, pct and vzdump in `place` for the guests of `folder`."""
    variables = {"PVE_STAND_IN": folder, "PVE_STAND_IN_SPEED": speed, "PVE_STAND_IN_MOMENTS": moments or ""}
    words = " ".join(f"{name}={value}" for name, value in variables.items())
    for name in ("qm", "pct", "vzdump"):
        path = place / name
        path.write_text(f'#!/bin/sh\nexport {words}\nexec {sys.executable} {__file__} {name} "$@"\n')
        path.chmod(0o755)


def main() -> int:
    """Run one of the programs, or be a guest."""
    moments = os.environ.get("PVE_STAND_IN_MOMENTS")
    speed = float(os.environ.get("PVE_STAND_IN_SPEED", "1"))
    host = GuestFolder(Path(os.environ["PVE_STAND_IN"]), speed, Path(moments) if moments else None)
    if sys.argv[1] == "guest":
        host.run_guest(int(sys.argv[2]))
        return 0
    try:
        sys.stdout.write(host.run_program(sys.argv[1], sys.argv[2:]))
    except CommandError as error:
        sys.stderr.write(f"{error}\n")
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
