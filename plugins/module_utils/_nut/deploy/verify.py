# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify that NUT on a host works by asking upsd, because an active unit proves nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

from ..base import hostnames, systemd
from ..conf import nss, ups_conf, upsmon
from ..conf.files import NutFiles
from ..net import snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..usb.absent import finds_no_ups

# Seconds for a driver and upsd to connect after a start. Until then a UPS does not count as absent.
SETTLE_SECONDS = 10
# How often a daemon that has exited is started again
STARTS = 2


@dataclass(frozen=True)
class Trouble:
    """A problem."""

    message: str
    unit: str  # whose log may show the cause


@dataclass(frozen=True)
class VerifyResult:
    """What upsd and upsmon report."""

    status: Mapping[str, str]  # name of a UPS -> its ups.status, or upsd's error code
    broken: tuple[Trouble, ...] = ()
    absent: tuple[Trouble, ...] = ()  # UPSes that are not plugged in or do not answer their driver
    restarted: tuple[str, ...] = ()  # units that had exited and were started again


@dataclass
class Verifier:
    """Checks a host with these files repeatedly until everything works or the time is over."""

    files: NutFiles
    runner: systemd.Run
    tls: nss.TlsMaterial | None = None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    # UPSes (in lower case) that upsd served before this run: one that is missing now is lost, not absent
    served: frozenset[str] = frozenset()

    def wait_until_serving(self, seconds: float, patient: bool = False) -> VerifyResult:
        """Wait for at most SECONDS until upsd has fresh data for every UPS and lists this host's upsmon as a client.

        Stops waiting early if only absent UPSes are missing, unless PATIENT. Starts daemons that have exited again.
        """
        begin = self.clock()
        starts: dict[str, int] = {}
        while True:
            verdict = self._check_once(tuple(starts))
            passed = self.clock() - begin
            settled = passed >= min(SETTLE_SECONDS, seconds) and not patient and not verdict.broken
            if not (verdict.broken or verdict.absent) or passed >= seconds or settled:
                return verdict
            self._restart_ended(verdict, starts)
            self.pause(0.5)

    def _restart_ended(self, verdict: VerifyResult, starts: dict[str, int]) -> None:
        """Start upsd and upsmon again if they have exited. Debian 12 does not do that itself."""
        suspects = [trouble.unit for trouble in verdict.broken if trouble.unit in (systemd.SERVER, systemd.MONITOR)]
        if not suspects:
            return
        for name, unit in systemd.show_units(list(dict.fromkeys(suspects)), self.runner).items():
            if not unit.runs and starts.get(name, 0) < STARTS:
                starts[name] = starts.get(name, 0) + 1
                self.runner(["systemctl", "reset-failed", name])
                self.runner(["systemctl", "start", name])

    def _check_once(self, restarted: tuple[str, ...]) -> VerifyResult:
        status, broken, absent = self._check_upses()
        missing, away = self._check_logins()
        return VerifyResult(status, (*broken, *missing), (*absent, *away), restarted)

    def _check_upses(self) -> tuple[dict[str, str], tuple[Trouble, ...], tuple[Trouble, ...]]:
        """Return the status of each UPS of this host's upsd, and which are broken or absent."""
        if "ups.conf" not in self.files:
            return {}, (), ()
        sections = self.files.ups_conf.sections
        try:
            with UpsdClient(*self.files.local_upsd[0], timeout=5) as client:
                states = snapshot.take_snapshot(client, list(sections))
        except UpsdFailure as error:
            return {}, (Trouble(str(error), systemd.SERVER),), ()
        status = {state.name: " ".join(state.status) if state.fresh else state.error or "no data" for state in states}
        broken: list[Trouble] = []
        absent: list[Trouble] = []
        for name in (state.name for state in states if not state.fresh):
            trouble = Trouble(f"upsd has no fresh data for {name}: {status[name]}", systemd.driver_unit(name))
            (absent if self._is_absent(sections[name], status[name]) else broken).append(trouble)
        return status, tuple(broken), tuple(absent)

    def _is_absent(self, section: ups_conf.Section, why: str) -> bool:
        if section.name.lower() in self.served:
            return False
        # stale: the driver runs, but the UPS does not answer it
        return why == "DATA-STALE" or (why == "DRIVER-NOT-CONNECTED" and finds_no_ups(section, self.runner))

    def _check_logins(self) -> tuple[list[Trouble], list[Trouble]]:
        """Return the upsds that this host's upsmon is not logged in to: those that are broken, and those only monitored."""
        missing: list[Trouble] = []
        away: list[Trouble] = []
        for monitor in self.files.monitors:
            try:
                with UpsdClient(monitor.host, monitor.port, timeout=5) as client:
                    name = upsmon.certificate_name(self.files["upsmon.conf"], monitor.host)
                    if self.tls and name:
                        # upsmon only logs in if this works
                        client.starttls(self.tls.ca, name)
                    clients = client.list_clients(monitor.ups)
                    address = client.local_address
            except UpsdFailure as error:
                # a UPS that does not feed this host is only monitored, so this is only a warning
                (missing if monitor.power else away).append(Trouble(f"{monitor.system}: {error}", systemd.MONITOR))
                continue
            if hostnames.normal_address(address) not in {hostnames.normal_address(other) for other in clients}:
                seen = ", ".join(clients) or "none"
                message = (
                    f"upsmon on this host ({address}) has not logged in to {monitor.system} as {monitor.user}; "
                    f"clients that upsd lists: {seen}"
                )
                missing.append(Trouble(message, systemd.MONITOR))
        return missing, away
