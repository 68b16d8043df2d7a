# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NUT's units in systemd, and the state that survives a restart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

UNIT = "nut-monitor.service"
#: What a MASTER starts before upsmon, as plugins/service/services/ups.py does. The enumerator makes a unit of each section of
#: ups.conf and enables it. Nothing disables that unit when TrueNAS becomes a SLAVE: it keeps failing without ups.conf.
_MASTER_UNITS = ("nut-server.service", "nut-driver-enumerator.service")
_STOPPED_UNITS = (UNIT, "nut-driver-enumerator.service", "nut-server.service", "nut-driver.target")
_CRASHING = ("auto-restart", "auto-restart-queued")


@dataclass(frozen=True)
class ServiceState:
    """Whether upsmon is running, and its main process."""

    running: bool
    pids: tuple[int, ...] = ()


class ServiceRunner(Protocol):
    """The interface to the machine that the middleware needs. Tests have their own."""

    def start_service(self, files: Mapping[str, str]) -> str:
        """Write NUT's files and start upsmon; with ups.conf among them the driver and upsd, too. Return upsmon's log."""

    def stop_service(self) -> None:
        """Stop upsmon."""

    def read_state(self) -> ServiceState:
        """Return the state of upsmon."""

    def read_failed_units(self) -> Mapping[str, str]:
        """Return the units that upsmon's unit wants, directly or not, and that have failed or keep dying: name -> log."""


class SystemdRunner:
    """The real service: /etc/nut and nut-monitor.service."""

    def __init__(self, nut_dir: Path = Path("/etc/nut")) -> None:
        self._nut_dir = nut_dir

    def start_service(self, files: Mapping[str, str]) -> str:
        """Replace /etc/nut as TrueNAS does, and start the unit."""
        shutil.rmtree(self._nut_dir, ignore_errors=True)
        self._nut_dir.mkdir()
        shutil.chown(self._nut_dir, "root", "nut")
        for name, text in files.items():
            path = self._nut_dir / name
            path.touch(mode=0o640)
            shutil.chown(path, "root", "nut")
            path.write_text(text)
        self._run_systemctl("reset-failed", UNIT)
        if "ups.conf" in files:
            for unit in _MASTER_UNITS:
                self._run_systemctl("start", unit)
        self._run_systemctl("start", UNIT)
        return self._read_log(UNIT)

    def stop_service(self) -> None:
        """Stop the units, in TrueNAS's order."""
        for unit in _STOPPED_UNITS:
            self._run_systemctl("stop", unit)

    def read_state(self) -> ServiceState:
        """Return the state from systemd. With a wrong password upsmon keeps running, so the state is RUNNING, as on TrueNAS."""
        shown = self._run_systemctl("show", "--property=ActiveState,MainPID", UNIT)
        values = dict(line.split("=", 1) for line in shown.splitlines())
        pid = int(values.get("MainPID", "0"))
        running = values.get("ActiveState") in ("active", "reloading")
        return ServiceState(running, (pid,) if running and pid else ())

    def read_failed_units(self) -> Mapping[str, str]:
        """Walk the tree of wanted units, as TrueNAS does, and return the failed ones with their logs."""
        waiting, seen, failed = [UNIT], set(), {}
        while waiting:
            unit = waiting.pop()
            if unit in seen:
                continue
            seen.add(unit)
            shown = self._run_systemctl("show", "--property=Wants,ActiveState,SubState", unit)
            values = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
            waiting.extend(values.get("Wants", "").split())
            if values.get("ActiveState") == "failed" or values.get("SubState") in _CRASHING:
                failed[unit] = self._read_log(unit)
        return failed

    @staticmethod
    def _read_log(unit: str) -> str:
        command = ["journalctl", "--unit", unit, "--lines", "20", "--output", "short", "--no-pager"]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()

    @staticmethod
    def _run_systemctl(*words: str) -> str:
        return subprocess.run(["systemctl", *words], check=False, capture_output=True, text=True).stdout


class StateFile:
    """A JSON file that is written atomically."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load_state(self) -> dict[str, Any]:
        """Return the saved state; empty on a fresh system."""
        try:
            loaded: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return loaded

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Save the state, readable by the owner only because it contains monpwd."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(state, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
