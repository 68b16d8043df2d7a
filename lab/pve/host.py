# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host of the stand-in: its guests with their processes, its settings, and how its programs are called.

A directory has for each guest ID.json (GuestProperties), and `settings` (HostSettings). A second one, which may be the same, has
what is gone after a boot: pid files, `calls` (a line of JSON for each call) and `took` (a line for each call that waited: how many
of Proxmox's seconds). $PVE_STAND_IN_TOOK names another file for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import syslog
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Callable

from . import cluster, files
from .guest import append_moment
from .options import CommandError
from .settings import GuestProperties, read_settings, replace_text, write_settings

LOCK_SECONDS = 10.0
START_SECONDS = 60.0  # until a guest's process has its name, on a busy machine
LOCKS = {"qm": "/var/lock/qemu-server/lock-{}.conf", "pct": "/run/lock/lxc/pve-config-{}.lock"}
NOISE = "perl: warning: Setting locale failed.\nperl: warning: Please check that your locale settings:\n"
NO_QUORUM = "cluster not ready - no quorum?"


class Host:
    """The directory of guests."""

    def __init__(self, folder: Path, speed: float | None = None, moments: Path | None = None) -> None:
        """Use a directory. speed and moments, if given, become settings of the host."""
        self.folder = folder
        self.settings = read_settings(folder)
        given: dict[str, Any] = {"speed": speed, "moments": None if moments is None else str(moments)}
        given = {name: value for name, value in given.items() if value is not None}
        if given:
            self.change_settings(**given)
        self.waited = 0.0  # Proxmox's seconds
        self.counting = threading.Lock()

    @property
    def runtime(self) -> Path:
        """Return the directory of what is gone after a boot."""
        return Path(self.settings.runtime or self.folder)

    @property
    def moments(self) -> Path | None:
        """Return the file for the events of guests."""
        return Path(self.settings.moments) if self.settings.moments else None

    def change_settings(self, **values: Any) -> None:
        """Change settings of the host, and save them."""
        self.settings = replace(self.settings, **values)
        write_settings(self.folder, self.settings)

    # Guests

    def add_guest(self, number: int, *, running: bool = True, **what: Any) -> None:
        """Create a guest. what: of GuestProperties."""
        self.save_guest(number, GuestProperties(**what))
        if running:
            self.start_process(number)

    def save_guest(self, number: int, guest: GuestProperties) -> None:
        """Save the properties of a guest, also where Proxmox has them."""
        replace_text(self.folder / f"{number}.json", json.dumps(asdict(guest)))
        if self.settings.pve:
            files.write_guest(self.settings, number, guest)

    def change_guest(self, number: int, **values: Any) -> None:
        """Change properties of a guest."""
        self.save_guest(number, replace(self.read_guest(number), **values))

    def list_guests(self) -> dict[int, GuestProperties]:
        """Return all guests by number."""
        paths = sorted(self.folder.glob("[1-9]*.json"), key=lambda path: int(path.stem))
        return {int(path.stem): GuestProperties(**json.loads(path.read_text())) for path in paths}

    def read_guest(self, number: int, kind: str | None = None, code: int = 2) -> GuestProperties:
        """Return a guest. Raise CommandError with this exit code if this host has none of that number and kind."""
        try:
            found = GuestProperties(**json.loads((self.folder / f"{number}.json").read_text()))
        except FileNotFoundError:
            found = None
        if found is None or kind not in (None, found.kind):
            place = f"nodes/{self.settings.name}/{files.FOLDERS[kind or 'qm']}/{number}.conf"
            raise CommandError(f"Configuration file '{place}' does not exist", code)
        return found

    def has_guest(self, number: int, kind: str) -> bool:
        """Return whether this host has a guest of this number and kind."""
        try:
            self.read_guest(number, kind)
        except CommandError:
            return False
        return True

    def is_managed(self, guest: GuestProperties) -> bool:
        """Return whether HA manages a guest (pve-ha-manager, HA/Config.pm)."""
        return guest.ha and guest.ha_state != "ignored" and self.settings.disarm != "ignore"

    # Processes

    def pid_file(self, number: int) -> Path:
        """Return the pid file of a guest: for a VM the one that Proxmox has, for a container one of the stand-in's own."""
        if self.has_guest(number, "pct"):
            return self.runtime / f"ct-{number}.pid"
        return Path(self.settings.pids or self.runtime) / f"{number}.pid"

    def find_pid(self, number: int) -> int:
        """Return a guest's process id, or 0 if it is down."""
        try:
            pid = int(self.pid_file(number).read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return 0
        # a zombie has ended, but its parent has not waited for it
        return 0 if state in "ZX" else pid

    def start_process(self, number: int) -> None:
        """Start the process of a guest, named and with the arguments that Proxmox gives it."""
        guest = self.read_guest(number)
        self.save_guest(number, replace(guest, state="running"))
        name = "/usr/bin/kvm" if guest.kind == "qm" else "/usr/bin/lxc-start"
        socket = f"/var/lib/lxc/{number}/command" if guest.kind == "pct" and self.settings.sockets else ""
        words = ["-id", str(number), "-name", f"{guest.name or f'VM {number}'},debug-threads=on", "-no-shutdown"]
        # as the real one has it, wherever the file is
        words += ["-pidfile", f"/var/run/qemu-server/{number}.pid"] if guest.kind == "qm" else ["-F", "-n", str(number)]
        if self.moments is None:
            # no writer ever opens the pipe, so the shell waits without another process
            pipe = self.runtime / f"{number}.wait"
            if not pipe.exists():
                os.mkfifo(pipe)
            script = f"{'trap : TERM; ' if guest.stubborn else ''}while :; do read -r _ <{shlex.quote(str(pipe))}; done"
            command = ["/bin/sh", "-c", script, *words]
        else:
            lab = {"moments": str(self.moments), "speed": self.settings.speed, "stubborn": guest.stubborn}
            monitor = self.pid_file(number).with_suffix(".qmp")
            lab |= {"monitor": str(monitor) if guest.kind == "qm" and self.settings.sockets else ""}
            lab |= {"socket": socket, "properties": str(self.folder / f"{number}.json")}
            command = [sys.executable, str(Path(__file__).with_name("guest.py")), *words, "-lab", json.dumps(lab)]
        self.pid_file(number).parent.mkdir(parents=True, exist_ok=True)
        pid = _start_detached(*self._make_scope(number, guest), *_with_name(name, command))
        _wait_for(lambda: _has_name(pid, name), START_SECONDS)
        if socket:
            _wait_for(lambda: f" @{socket}\n" in Path("/proc/net/unix").read_text(), START_SECONDS)
        replace_text(self.pid_file(number), f"{pid}\n")

    def _make_scope(self, number: int, guest: GuestProperties) -> list[str]:
        """Return the command that puts a guest into its own scope: it is not stopped with whoever started it, nor by systemd."""
        if not self.settings.scopes:
            return []
        unit = str(number) if guest.kind == "qm" else f"pve-container-{number}"
        before = ["pve-ha-lrm.service", "pve-guests.service"] if self.settings.version >= (9,) else []
        properties = ("KillMode=process", "SendSIGKILL=no", "TimeoutStopSec=infinity", *(f"Before={u}" for u in before))
        options = [f"--property={text}" for text in properties]
        return ["systemd-run", "--scope", "--quiet", "--collect", "--slice=qemu", f"--unit={unit}", *options]

    def kill_guest(self, number: int) -> None:
        """End a guest at once."""
        if pid := self.find_pid(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.note_moment(number, "killed")
        self.wait_for_end(number)

    def kill_all(self) -> None:
        """End all guests at once."""
        for number in self.list_guests():
            self.kill_guest(number)

    def wait_for_end(self, number: int, seconds: float = math.inf) -> bool:
        """Wait until a guest is down, for so many real seconds at most. Return whether it is."""
        return _wait_for(lambda: not self.find_pid(number), seconds)

    def note_moment(self, number: int, what: str) -> None:
        """Note an event of a guest."""
        if self.settings.moments:
            append_moment(self.settings.moments, number, what)

    def read_calls(self) -> list[list[str]]:
        """Return the calls of programs so far."""
        path = self.runtime / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # The host

    def has_quorum(self) -> bool:
        """Return whether enough nodes of the cluster are there."""
        return cluster.has_quorum(self.settings, self.runtime)

    def require_quorum(self) -> None:
        """Raise CommandError without quorum."""
        if not self.has_quorum():
            raise CommandError(NO_QUORUM, 2)

    def require_storage(self, guest: GuestProperties) -> None:
        """Raise CommandError if the storage of a guest is not online."""
        if not cluster.is_online(self.settings, guest.storage):
            raise CommandError(f"storage '{guest.storage}' is not online")

    def wait(self, seconds: float) -> None:
        """Let Proxmox's seconds pass."""
        time.sleep(seconds / self.settings.speed)
        self.count_wait(seconds)

    def count_wait(self, seconds: float) -> None:
        """Count seconds that have passed."""
        with self.counting:
            self.waited += seconds

    def log_line(self, words: str) -> None:
        """Write a line to the system's log, as the real code does for what it does not print."""
        if self.settings.scopes:
            syslog.syslog(words)

    def append_line(self, name: str, line: str) -> None:
        """Append a line to a file."""
        with (self.runtime / name).open("a") as file:
            file.write(f"{line}\n")

    @contextlib.contextmanager
    def run_call(self, program: str, words: list[str]) -> Iterator[None]:
        """Note a call of a program, and let it load; afterwards note how long it waited."""
        self.runtime.mkdir(parents=True, exist_ok=True)
        self.append_line("calls", json.dumps([program, *words]))
        self.waited = 0.0
        try:
            if self.settings.noise:
                print_warning(NOISE.rstrip())
            if self.settings.perl:
                self.wait(self.settings.perl)
            if self.settings.root_only and os.geteuid() != 0:
                raise CommandError("please run as root", 255)
            if not self.settings.pmxcfs:
                raise CommandError(
                    "ipcc_send_rec[1] failed: Connection refused\nUnable to load access control list: Connection refused",
                    111,
                )
            yield
        finally:
            if self.waited:
                path = os.environ.get("PVE_STAND_IN_TOOK") or str(self.runtime / "took")
                with Path(path).open("a") as file:
                    file.write(f"{self.waited:g}\n")

    # Power

    def ask_to_stop(self, number: int, guest: GuestProperties) -> None:
        """Press the power button: from now on the guest shuts down, unless it hangs."""
        pid = self.find_pid(number)
        going = self.runtime / f"{number}.going"
        if (guest.kind == "qm" and guest.state != "running") or (going.exists() and going.read_text() == str(pid)):
            return
        going.write_text(str(pid))
        if self.moments is not None:
            self.signal_guest(number, signal.SIGUSR1)
        elif guest.shutdown is not None:
            _start_detached("sh", "-c", f"sleep {guest.shutdown / self.settings.speed:.4f}; kill -9 {pid}")

    def signal_guest(self, number: int, which: signal.Signals) -> None:
        if pid := self.find_pid(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, which)

    @contextlib.contextmanager
    def hold_lock(self, number: int, kind: str) -> Iterator[None]:
        """Hold the lock of a guest. Raise CommandError if another holds it too long."""
        deadline = time.monotonic() + LOCK_SECONDS / self.settings.speed
        with (self.runtime / f"{number}.lock").open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise CommandError(f"can't lock file '{LOCKS[kind].format(number)}' - got timeout") from None
                    time.sleep(0.005)
            yield


def print_warning(words: str) -> None:
    """Write a line to stderr at once."""
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def _start_detached(*command: str) -> int:
    """Start a detached process, with its standard streams closed, and return its id."""
    script = '"$@" </dev/null >/dev/null 2>&1 & echo $!'
    environment = {**os.environ, "PYTHONHOME": sys.base_prefix}
    started = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        stdout=subprocess.PIPE,
        start_new_session=True,
        check=True,
        env=environment,
    )
    return int(started.stdout)


def _with_name(name: str, command: list[str]) -> list[str]:
    """Return a command whose process has another name."""
    return ["bash", "-c", 'name=$1; shift; exec -a "$name" "$@"', "bash", name, *command]


def _has_name(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() == name
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has ended


def _wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True
