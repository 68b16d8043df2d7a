# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE's high availability on one node: ha-manager, and the LRM with its watchdog (pve-ha-manager, HA/LRM.pm, HA/CRM.pm).

An LRM that is active loses its lock without quorum, no longer feeds the watchdog, and the host is reset a minute later, whether its
guests run or not. It is idle, and harmless, only if it never had a guest, or had none for IDLE_ROUNDS, or if HA is disarmed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

from . import files
from .host import print_warning
from .options import CommandError
from .settings import DISARM, parse_release
from .stand_in import GuestFolder

IDLE_ROUNDS = 60  # without a guest, until an active LRM gives up its lock and the watchdog
STOP_SECONDS = 60  # for a guest when the host goes down
STOP_WORKERS = 4
REQUEST = "cfs-lock 'domain-ha' error: no quorum!"


def run_manager(host: GuestFolder, words: list[str]) -> str:
    """Run ha-manager and return its output."""
    if words[:1] == ["status"]:
        return _format_status(host)
    if words[:2] == ["crm-command", "stop"] and len(words) == 4:
        number = _find_guest(host, words[2])
        guest = host.read_guest(number)
        _require_domain(host)
        host.request_stop(number, "VM" if guest.kind == "qm" else "CT", int(words[3]))
        return ""
    if (
        words[:1] == ["crm-command"]
        and words[1:2] in (["disarm-ha"], ["arm-ha"])
        and parse_release(host.settings.ha_release) >= DISARM
    ):
        mode = words[2] if words[1] == "disarm-ha" and len(words) == 3 else ""
        if words[1] == "disarm-ha" and mode not in ("freeze", "ignore"):
            raise CommandError(
                "400 Parameter verification failed.\nresource-mode: value '' does not have a value in", 2
            )
        _require_domain(host)
        host.change_settings(disarm=mode)
        host.save_ha()
        return ""
    if words[:1] in (["add"], ["remove"]) and len(words) == 2:
        number = _find_guest(host, words[1], managed=words[0] == "remove")
        _require_domain(host)
        host.change_guest(number, ha=words[0] == "add")
        host.save_ha()
        return ""
    if words[:1] == ["set"] and len(words) == 4 and words[2] in ("--state", "-state"):
        number = _find_guest(host, words[1])
        _require_domain(host)
        host.set_ha_state(number, words[3])
        return ""
    raise CommandError(f"ERROR: unknown command 'ha-manager {' '.join(words[:2])}'")


def _find_guest(host: GuestFolder, resource: str, managed: bool = True) -> int:
    match = re.fullmatch(r"(?:(?:vm|ct):)?([1-9][0-9]{2,8})", resource)
    number = int(match.group(1)) if match else 0
    if number not in host.list_guests() or host.read_guest(number).ha != managed:
        raise CommandError(f"no such resource '{resource}'")
    return number


def _require_domain(host: GuestFolder) -> None:
    if not host.has_quorum():
        host.wait(host.settings.ha_request)
        raise CommandError(REQUEST, 2)


def _format_status(host: GuestFolder) -> str:
    name, quorate = host.settings.name, host.has_quorum()
    lines = ["quorum OK" if quorate else f"quorum No quorum on node '{name}'!"]
    state = host.runtime / "lrm"
    lines += [f"lrm {name} ({state.read_text()})"] if state.exists() else []
    for number, guest in host.list_guests().items():
        if guest.ha:
            shown = "ignored" if host.settings.disarm == "ignore" else guest.ha_state if quorate else "queued"
            lines.append(f"service {'vm' if guest.kind == 'qm' else 'ct'}:{number} ({name}, {shown})")
    return "\n".join(lines) + "\n"


class ResourceManager:
    """The LRM, with the part of the CRM that passes requests on, and the watchdog."""

    def __init__(self, host: GuestFolder) -> None:
        """Start idle."""
        self.host = host
        self.state = "wait_for_agent_lock"
        self.fed = time.monotonic()  # the watchdog
        self.idle = 0
        self.going_down = False
        self.has_warned = False
        self.busy: set[int] = set()

    def run_forever(self) -> None:
        """Run until the service is stopped and no guest of HA runs."""
        signal.signal(signal.SIGTERM, lambda *_signal: setattr(self, "going_down", True))
        self.host.runtime.mkdir(parents=True, exist_ok=True)
        due = 0.0
        while True:
            self.host = GuestFolder(self.host.folder)
            now = time.monotonic()
            if now >= due or self.going_down:
                due = now + self.host.settings.ha_round / self.host.settings.speed
                if self.do_round():
                    break
            if self.is_expired(now):
                self.reset_host()
            self.save_state()
            time.sleep(0.3)
        (self.host.runtime / "lrm").unlink(missing_ok=True)

    def save_state(self) -> None:
        """Write the state where the stand-in has it, and where Proxmox has it, which can't be written without quorum."""
        (self.host.runtime / "lrm").write_text(self.state)
        if self.host.settings.pve and self.host.has_quorum():
            with contextlib.suppress(OSError):
                files.write_lrm_status(self.host.settings, self.state)

    def is_expired(self, now: float) -> bool:
        """Return whether the watchdog resets the host: it is armed, and was not fed for its time."""
        return self.state in ("active", "lost_agent_lock") and (
            now - self.fed > self.host.settings.watchdog / self.host.settings.speed
        )

    def do_round(self) -> bool:
        """Look at the cluster and work the guests. Return whether the service ends."""
        host = self.host
        guests = {number: guest for number, guest in host.list_guests().items() if host.is_managed(guest)}
        wanted = [number for number, guest in guests.items() if guest.ha_state == "started"]
        quorate = host.has_quorum()
        if host.settings.disarm:
            self.set_state("wait_for_agent_lock")
        elif quorate and (self.state == "lost_agent_lock" or (self.state == "wait_for_agent_lock" and wanted)):
            self.set_state("active")
        elif self.state == "active" and not quorate:
            self.set_state("lost_agent_lock")
        if self.state == "active":
            self.fed = time.monotonic()
            self.idle = 0 if wanted else self.idle + 1
            if self.idle > IDLE_ROUNDS:
                self.set_state("wait_for_agent_lock")
        running = [number for number in guests if host.find_pid(number)]
        if self.going_down:
            return self.shut_down(running)
        if self.state == "active":
            self.work(wanted)
        return False

    def set_state(self, state: str) -> None:
        """Change the state."""
        if state != self.state:
            print_warning(f"status change {self.state} => {state}")
            self.state, self.idle, self.fed = state, 0, time.monotonic() if state == "active" else self.fed

    def work(self, wanted: list[int]) -> None:
        """Start the guests that are to run, and do what was asked for."""
        requests = self.host.runtime / "crm_commands"
        lines: list[str] = []
        if requests.exists():
            lines = requests.read_text().splitlines()
            requests.unlink()
        for line in lines:
            number, limit = map(int, line.split()[1:])
            self.run_in_thread(number, functools.partial(self.stop_guest, number, limit))
        for number in wanted:
            if not self.host.find_pid(number):
                self.run_in_thread(number, functools.partial(self.start_guest, number))

    def run_in_thread(self, number: int, task: Callable[[], None]) -> None:
        """Do one thing with a guest at a time."""

        def run_task() -> None:
            with contextlib.suppress(CommandError):
                task()
            self.busy.discard(number)

        if number not in self.busy:
            self.busy.add(number)
            threading.Thread(target=run_task, daemon=True).start()

    def start_guest(self, number: int) -> None:
        """Start a guest; the next round tries again if that fails."""
        guest = self.host.read_guest(number)
        try:
            self.host.require_storage(guest)
            self.host.start_process(number)
        except CommandError as error:
            print_warning(f"unable to start service {'vm' if guest.kind == 'qm' else 'ct'}:{number}: {error}")

    def stop_guest(self, number: int, limit: int) -> None:
        """Shut a guest down, and force it off after its time; at once if it has none."""
        asked = {"skiplock": None, "timeout": limit or None, "forceStop": True}
        with self.host.hold_lock(number, self.host.read_guest(number).kind):
            if self.host.read_guest(number).kind == "qm":
                self.host.end_vm(number, asked, bool(limit), True)
            elif limit:
                self.host.end_container(number, limit, True)
            else:
                self.host.kill_guest(number)

    def shut_down(self, running: list[int]) -> bool:
        """Stop the guests of HA when the host goes down, which needs the lock. Return whether the service ends."""
        if self.state == "lost_agent_lock" and running:
            print_warning(f"got shutdown request in state 'lost_agent_lock' - detected {len(running)} running services")
            return False
        if self.state == "active" and running and _is_host_stopping():
            print_warning("shutdown LRM, stop all services")
            with ThreadPoolExecutor(STOP_WORKERS) as pool:
                list(pool.map(lambda number: self.stop_guest(number, STOP_SECONDS), running))
        self.set_state("wait_for_agent_lock")
        return True

    def reset_host(self) -> None:
        """Reset the host: the lab cuts it off and starts it again; without the lab, systemd powers off at once."""
        print_warning("watchdog expired: the host is reset")
        if self.host.settings.scopes and self.host.moments:
            (self.host.moments.parent / "reset").write_text(f"{time.time():.3f}\n")
            time.sleep(5)
            os.kill(1, signal.SIGRTMIN + 14)
        sys.exit(1)


def _is_host_stopping() -> bool:
    asked = subprocess.run(["systemctl", "is-system-running"], stdout=subprocess.PIPE, text=True, check=False)
    return asked.stdout.strip() == "stopping"
