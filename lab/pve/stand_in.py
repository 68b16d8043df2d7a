# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stand-in for Proxmox VE's qm and pct, with processes as guests. programs.py has the other programs, host.py the host.

Answers, exit codes and their order are those of the real code: qemu-server (API2/Qemu.pm, QemuServer.pm, CLI/qm.pm), pve-container
(API2/LXC/Status.pm, LXC.pm), pve-guest-common; releases 8 and 9. A guest that was asked to shut down does so even if qm is killed;
a second qm waits for the first one's lock and gives up; for a guest under HA, qm asks HA and does not wait.
"""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path
from typing import Any, Callable

from . import files
from .host import Host, print_warning
from .options import CommandError, parse_options
from .settings import GuestProperties

QMP_SECONDS = 5.0  # until a question to a monitor that does not answer fails
TERM_SECONDS = 10.0  # from SIGTERM to SIGKILL
SHUTDOWN_SECONDS = 60  # of `shutdown` without --timeout
STATES = (
    *("running", "paused", "prelaunch", "suspended", "io-error"),
    *("shutdown", "internal-error", "guest-panicked", "save-vm", "watchdog"),
)
PAUSED = ("paused", "prelaunch", "suspended")  # qm stops such a VM instead of shutting it down
VERBS: dict[str, dict[str, dict[str, type]]] = {
    "qm": {
        "list": {"full": bool},
        "status": {"verbose": bool},
        "start": {"skiplock": bool, "timeout": int},
        "shutdown": {"skiplock": bool, "timeout": int, "forceStop": bool, "keepActive": bool},
        "stop": {"skiplock": bool, "timeout": int, "keepActive": bool, "overrule-shutdown": bool},
    },
    "pct": {
        "list": {},
        "status": {"verbose": bool},
        "start": {"skiplock": bool, "debug": bool},
        "shutdown": {"timeout": int, "forceStop": bool},
        "stop": {"skiplock": bool, "overrule-shutdown": bool},
    },
}


class GuestFolder(Host):
    """The directory of guests, and qm and pct."""

    def run_program(self, program: str, words: list[str]) -> str:
        """Run qm or pct and return its output; warnings go to stderr. Raise CommandError if it fails."""
        with self.run_call(program, words):
            if words[:1] == ["list"]:
                parse_options(program, "list", words[1:], VERBS[program]["list"], "")
                return self.format_list(program)
            verb = words[0] if words else ""
            if verb not in VERBS[program]:
                raise CommandError(f"ERROR: unknown command '{program} {verb}'")
            asked = parse_options(program, verb, words[1:], VERBS[program][verb], "vmid")
            number = int(asked["vmid"])
            if verb == "status":
                return self.format_status(number, program)
            answer: Callable[[int, dict[str, Any]], str] = {
                ("qm", "start"): self.start_vm,
                ("qm", "shutdown"): self.shut_down_vm,
                ("qm", "stop"): self.stop_vm,
                ("pct", "start"): self.start_container,
                ("pct", "shutdown"): self.shut_down_container,
                ("pct", "stop"): self.stop_container,
            }[program, verb]
            return answer(number, asked)

    def format_list(self, kind: str) -> str:
        """Return the list as the real ones print it (qm.pm, pct.pm): nothing without guests; a VM always has a name."""
        rows = []
        for number, guest in self.list_guests().items():
            pid = self.find_pid(number)
            state = "running" if pid else "stopped"
            if guest.kind != kind:
                continue
            if kind == "qm":
                name = guest.name or f"VM {number}"
                rows.append(f"{number:>10} {name:<20} {state:<10} {2048:<10} {32:>12.2f} {pid:<10}\n")
            else:
                rows.append(f"{number:<10} {state:<10} {guest.lock:<12} {guest.name or f'CT{number}':<20}\n")
        header = (
            f"{'VMID':>10} {'NAME':<20} {'STATUS':<10} {'MEM(MB)':<10} {'BOOTDISK(GB)':>12} {'PID':<10}\n"
            if kind == "qm"
            else f"{'VMID':<10} {'Status':<10} {'Lock':<12} {'Name':<20}\n"
        )
        return "".join([header, *rows]) if rows else ""

    def format_status(self, number: int, kind: str) -> str:
        """Return the answer of `status`: of a VM, QEMU's run state."""
        guest = self.read_guest(number, kind)
        if not self.find_pid(number):
            return "status: stopped\n"
        if kind == "qm" and not guest.monitor:
            # without an answer, the process is all that is known
            self.wait(QMP_SECONDS / 2)
            return "status: running\n"
        return f"status: {guest.state if kind == 'qm' else 'running'}\n"

    def start_vm(self, number: int, asked: dict[str, Any]) -> str:
        """Start a VM."""
        self.require_quorum()
        if self.has_guest(number, "qm") and self.is_managed(self.read_guest(number)):
            return self.request_start(number, "VM")
        with self.hold_lock(number, "qm"):
            guest = self.read_guest(number, "qm", 255)
            running = self.find_pid(number)
            if guest.lock == "backup" and running:
                self.change_guest(number, state="running")  # the backup's QEMU goes on as the VM
                return ""
            if guest.lock not in ("", "suspended") and not asked["skiplock"]:
                raise CommandError(f"VM is locked ({guest.lock})")
            if running:
                raise CommandError(f"VM {number} already running")
            self._start_guest(number, guest, "start failed: QEMU exited with code 1")
            if guest.lock == "suspended":
                self.change_guest(number, lock="")
        return ""

    def start_container(self, number: int, asked: dict[str, Any]) -> str:
        """Start a container."""
        if self.has_guest(number, "pct") and self.find_pid(number):
            raise CommandError(f"CT {number} already running")
        self.require_quorum()
        if self.has_guest(number, "pct") and self.is_managed(self.read_guest(number)):
            return self.request_start(number, "CT")
        with self.hold_lock(number, "pct"):
            guest = self.read_guest(number, "pct", 255)
            if guest.lock not in ("", "mounted") and not asked["skiplock"]:
                raise CommandError(f"CT is locked ({guest.lock})")
            self._start_guest(number, guest, f"startup for container '{number}' failed")
        return ""

    def _start_guest(self, number: int, guest: GuestProperties, failure: str) -> None:
        self.require_storage(guest)
        if guest.starts:
            self.change_guest(number, starts=guest.starts - 1)
            raise CommandError(failure)
        self.start_process(number)

    def shut_down_vm(self, number: int, asked: dict[str, Any]) -> str:
        """Shut a VM down. One that is paused can't do that."""
        button = True
        state, trouble = self._ask_monitor(number)
        if trouble:
            print_warning(f"{trouble}\n")
        if state in PAUSED:
            if not asked["forceStop"]:
                raise CommandError("VM is paused - cannot shutdown")
            print_warning("VM is paused - stop instead of shutdown")
            button = False
        return self._stop_vm(number, asked, button, bool(asked["forceStop"]))

    def stop_vm(self, number: int, asked: dict[str, Any]) -> str:
        """Stop a VM without a shutdown."""
        return self._stop_vm(number, asked, False, True)

    def _stop_vm(self, number: int, asked: dict[str, Any], button: bool, force: bool) -> str:
        if self.has_guest(number, "qm") and self.is_managed(self.read_guest(number)):
            limit = (60 if asked["timeout"] is None else asked["timeout"]) if button or asked["forceStop"] else 0
            return self.request_stop(number, "VM", limit)
        with self.hold_lock(number, "qm"):
            self.end_vm(number, asked, button, force)
        return ""

    def _ask_monitor(self, number: int) -> tuple[str, str]:
        """Return QEMU's run state, and why it could not be had."""
        if not self.has_guest(number, "qm"):
            return "", self._no_config(number)
        if not self.find_pid(number):
            return "", f"VM {number} not running"
        guest = self.read_guest(number)
        if not guest.monitor:
            self.wait(QMP_SECONDS)
            return "", f"VM {number} qmp command 'query-status' failed - got timeout"
        return guest.state, ""

    def _no_config(self, number: int) -> str:
        return f"unable to find configuration file for VM {number} on node '{self.settings.name}'"

    def end_vm(self, number: int, asked: dict[str, Any], button: bool, force: bool) -> None:
        """End a VM as qemu-server's _do_vm_stop does: by the monitor, else by a signal if `force`."""
        if not self.has_guest(number, "qm"):
            raise CommandError(self._no_config(number))
        if not self.find_pid(number):
            return
        guest = self.read_guest(number)
        if guest.lock and not asked["skiplock"]:
            raise CommandError(f"VM is locked ({guest.lock})")
        limit = asked["timeout"]
        if limit is None:
            limit = guest.down if button and guest.down else SHUTDOWN_SECONDS
        if not guest.monitor:
            self.wait(QMP_SECONDS)
            if not force:
                raise CommandError("VM quit/powerdown failed")
            print_warning("VM quit/powerdown failed - terminating now with SIGTERM")
        else:
            if button:
                self.ask_to_stop(number, guest)
                seconds = self.shutdown_seconds(guest)
            else:
                self.signal_guest(number, signal.SIGTERM)
                seconds = None if guest.stubborn else 0.0
            if self._await_end(number, seconds, limit):
                return
            if not force:
                raise CommandError("VM quit/powerdown failed - got timeout")
            print_warning("VM still running - terminating now with SIGTERM")
        self.signal_guest(number, signal.SIGTERM)
        if not self._await_end(number, None if guest.stubborn else 0.0, TERM_SECONDS):
            print_warning("VM still running - terminating now with SIGKILL")
            self.kill_guest(number)
            self.wait(1)

    def _await_end(self, number: int, seconds: float | None, limit: float) -> bool:
        """Wait until a VM is down, looking each second. Return whether it was within the limit; one at the limit was not."""
        if seconds is not None and math.ceil(seconds) < max(limit, 1):
            self.wait_for_end(number)
            self.count_wait(math.ceil(seconds))
            return True
        self.wait(limit)
        return False

    def shut_down_container(self, number: int, asked: dict[str, Any]) -> str:
        """Shut a container down."""
        self._require_container(number)
        limit = SHUTDOWN_SECONDS if asked["timeout"] is None else asked["timeout"]
        if self.is_managed(self.read_guest(number)):
            return self.request_stop(number, "CT", limit)
        with self.hold_lock(number, "pct"):
            guest = self.read_guest(number, "pct")
            if guest.lock:
                raise CommandError(f"CT is locked ({guest.lock})")
            self.end_container(number, limit, bool(asked["forceStop"]))
        return ""

    def end_container(self, number: int, limit: int, force: bool) -> None:
        """End a container as lxc-stop does."""
        guest = self.read_guest(number)
        self.ask_to_stop(number, guest)
        if guest.shutdown is not None and guest.shutdown <= limit:
            self.wait_for_end(number)
            self.count_wait(guest.shutdown)
            return
        self.wait(limit)
        if not force:
            print_warning(f"command 'lxc-stop -n {number} --nokill --timeout {limit}' failed: exit code 1")
            raise CommandError("container did not stop")
        self.kill_guest(number)

    def stop_container(self, number: int, asked: dict[str, Any]) -> str:
        """Stop a container without a shutdown."""
        self._require_container(number)
        if self.is_managed(self.read_guest(number)):
            return self.request_stop(number, "CT", 0)
        with self.hold_lock(number, "pct"):
            guest = self.read_guest(number, "pct")
            if guest.lock not in ("", "mounted") and not asked["skiplock"]:
                raise CommandError(f"CT is locked ({guest.lock})")
            self.kill_guest(number)
        return ""

    def _require_container(self, number: int) -> None:
        if not self.has_guest(number, "pct") or not self.find_pid(number):
            raise CommandError(f"CT {number} not running")

    def shutdown_seconds(self, guest: GuestProperties) -> float | None:
        """Return how long a guest takes from the power button until it is down; None: it never is, as nothing in it runs."""
        return guest.shutdown if guest.kind == "pct" or guest.state == "running" else None

    # High availability

    def request_start(self, number: int, what: str) -> str:
        """Ask HA to start a guest."""
        said = f"Requesting HA start for {what} {number}\n"
        self.set_ha_state(number, "started")
        if not self.has_resource_manager():
            self.start_process(number)
        return said

    def request_stop(self, number: int, what: str, limit: int) -> str:
        """Ask HA to stop a guest. Raise CommandError without quorum."""
        said = f"Requesting HA stop for {what} {number}\n"
        if not self.has_quorum():
            sys.stdout.write(said)
            self.wait(self.settings.ha_request)
            resource = f"{'vm' if what == 'VM' else 'ct'}:{number}"
            print_warning("cfs-lock 'domain-ha' error: no quorum!")
            raise CommandError(f"command 'ha-manager crm-command stop {resource} {limit}' failed: exit code 2")
        guest = self.read_guest(number)
        self.set_ha_state(number, "stopped")
        if self.has_resource_manager():
            self.append_line("crm_commands", f"stop {number} {limit}")
        elif limit:
            self.ask_to_stop(number, guest)
        else:
            self.kill_guest(number)
        return said

    def set_ha_state(self, number: int, state: str) -> None:
        """Set what HA is to keep a guest in."""
        self.change_guest(number, ha_state=state)
        self.save_ha()

    def save_ha(self) -> None:
        """Write the files of HA in /etc/pve."""
        if self.settings.pve:
            files.write_ha(self.settings, self.list_guests())

    def has_resource_manager(self) -> bool:
        """Return whether pve-ha-lrm runs. Without it, what HA is asked for happens at once, and nothing is forced."""
        return (self.runtime / "lrm").exists()


def install_programs(place: Path, folder: Path, speed: float | None = None, moments: Path | None = None) -> None:
    """Install Proxmox's programs in `place` for the guests of `folder`."""
    GuestFolder(folder, speed, moments)
    for name in PROGRAMS:
        write_program(place / name, name, folder)


PROGRAMS = ("qm", "pct", "vzdump", "pvesh", "pvenode", "pvesm", "pveversion", "ha-manager", "pvecm", "lxc-stop")


def write_program(path: Path, name: str, folder: Path) -> None:
    """Write a script that runs one of the programs for the guests of `folder`."""
    start = f"{sys.executable} -S {Path(__file__).with_name('programs.py')} {folder} {name}"
    path.write_text(f'#!/bin/sh\nexec {start} "$@"\n')
    path.chmod(0o755)


__all__ = ["CommandError", "GuestFolder", "install_programs"]
