# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The UPS service as the middleware sees it: settings, start on boot, and what start, stop, restart and reload answer.

The answers are those of plugins/service of truenas/middleware. They are not always the truth: up to 25.10 only upsmon counts,
and only at the moment of the answer; from 26 on every unit counts that upsmon's unit wants.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from . import ups
from .errors import call_error, invalid_params
from .releases import Release
from .service import ServiceRunner, ServiceState

#: The id of the UPS service in a new TrueNAS (initial.sql of truenas/middleware).
UPS_SERVICE_ID = 14
#: Between the process ids of an upsmon that systemd starts again and again (fault `dies`).
_PID_STEP = 7


class UpsService:
    """The settings and the service. `save` keeps them; `clock` returns seconds; see the README for the faults."""

    def __init__(
        self,
        release: Release,
        runner: ServiceRunner,
        save: Callable[[], None],
        faults: Callable[[], Mapping[str, Any]],
        clock: Callable[[], float],
    ) -> None:
        self.release = release
        self.settings = ups.default_settings(core=release.core)
        self.enabled = False
        self._runner = runner
        self._save = save
        self._faults = faults
        self._clock = clock
        self._started_at = 0.0
        self._lock = threading.RLock()  # one start, stop or update at a time

    # --- state ---

    def read_state(self) -> ServiceState:
        """Return the state of upsmon, with the fault `dies` applied: it dies after some seconds, once or again and again."""
        state = self._runner.read_state()
        fault = self._faults().get("dies")
        if not state.running or not fault:
            return state
        deaths = int((self._clock() - self._started_at) / fault["after"])
        if deaths and not fault.get("restarts"):
            self._runner.stop_service()
            return ServiceState(running=False)
        return ServiceState(running=True, pids=tuple(pid + deaths * _PID_STEP for pid in state.pids))

    def list_entry(self) -> dict[str, Any]:
        """Return the service as service.query shows it."""
        state = self.read_state()
        shown = {"state": "RUNNING" if state.running else "STOPPED", "pids": list(state.pids)}
        if self._faults().get("state_unknown"):
            shown = {"state": "UNKNOWN", "pids": []}
        return {"id": UPS_SERVICE_ID, "service": "ups", "enable": self.enabled, **shown}

    def _is_healthy(self) -> bool:
        """Return what TrueNAS calls running. Its names of failed units go into the log of a failure."""
        return self.read_state().running and not self._failed_units()

    def _failed_units(self) -> Mapping[str, str]:
        """Return the failed units that upsmon's unit wants, with their logs; none before 26, which does not look."""
        return self._runner.read_failed_units() if self.release.checks_wanted_units else {}

    # --- actions ---

    def update_settings(self, values: Any) -> dict[str, Any]:
        """Change settings, and restart a running service. The settings stay even if the restart fails."""
        release = self.release
        cleaned, complaints = ups.check_schema(
            values,
            classic=release.classic_schema,
            core=release.core,
            old=release.old_schema,
            words=release.update_words,
        )
        if complaints:
            prefix = release.schema_attribute
            raise invalid_params(
                [(".".join(filter(None, (prefix, name))) or "ups_update", text) for name, text in complaints]
            )
        with self._lock:
            settings = {**self.settings, **cleaned}
            if complaints := ups.check_settings(settings):
                raise invalid_params([(f"ups_update.{name}", text) for name, text in complaints])
            if settings != self.settings:
                ups.check_storable(settings)
                self.settings = settings
                self._save()
                if self.read_state().running and not self.restart():
                    message = "The ups service failed to start"
                    raise call_error("ESERVICESTARTFAILURE", message, ["ups"])
            return ups.config_entry(self.settings)

    def set_enabled(self, enable: bool) -> int:
        """Set whether the service starts at boot."""
        self.enabled = enable
        self._save()
        return UPS_SERVICE_ID

    def start(self, *, silent: bool) -> bool:
        """Start the service. Raise RpcError if it is not healthy afterwards, unless `silent`."""
        with self._lock:
            files = self._render_files()
            if self.release.checks_configuration and (problem := ups.find_start_problem(self.settings)):
                if silent:
                    return False
                raise call_error("EFAULT", problem)
            log = self._start_units(files)
            if self._is_healthy():
                self._finish_start()
                return True
            if silent:
                return False
            units = "\n".join(self._failed_units().values())
            raise call_error("EFAULT", units or log or "Service not running after start")

    def _render_files(self) -> Mapping[str, str]:
        """Render NUT's files, before anything is stopped or started."""
        if fault := self._faults().get("etc"):
            raise call_error("EFAULT", str(fault))
        return ups.render_files(self.settings, private_pipe=self.release.private_pipe)

    def _start_units(self, files: Mapping[str, str]) -> str:
        if not self.read_state().running and (fault := self._faults().get("service_start")):
            return str(fault)
        self._started_at = self._clock()
        return self._runner.start_service(files)

    def _finish_start(self) -> None:
        """From 26 on TrueNAS restarts its netdata and reloads its discovery after a start, and an error of theirs counts."""
        if self.release.checks_wanted_units and (fault := self._faults().get("after_start")):
            raise call_error("EFAULT", str(fault))

    def stop(self) -> bool:
        """Stop the service. Return whether it is stopped; old releases return the opposite."""
        with self._lock:
            self._runner.stop_service()
            return self.read_state().running is self.release.inverted_stop

    def restart(self) -> bool:
        """Stop and start the service. Unlike start, it raises no error for a service that is not healthy afterwards."""
        with self._lock:
            files = self._render_files()
            self._runner.stop_service()
            if self._faults().get("restart_leaves_stopped"):
                return True
            self._start_units(files)
            if not self._is_healthy():
                return False
            self._finish_start()
            return True

    def reload(self) -> bool:
        """Restart the service, because upsmon can't reload. From 26 on a stopped service stays stopped."""
        with self._lock:
            if self.release.reload_needs_running and not self.read_state().running:
                self._render_files()
                return False
            return self.restart()
