# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify that NUT on a host works by asking upsd, because an active unit proves nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Callable

from ..base import hostnames, systemd
from ..conf import nss, ups_conf
from ..conf.files import NutFiles
from ..conf.upsmon import Monitor
from ..net import login, snapshot
from ..net.client import UpsdClient
from ..net.errors import Unreachable, UpsdFailure
from ..usb import presence
from ..usb.absent import finds_no_ups
from ..usb.bus import UsbDevice, UsbError, read_id_table, scan_bus
from ..usb.sections import is_usb

# Seconds for a driver and upsd to connect after a start. Until then a UPS does not count as absent.
SETTLE_SECONDS = 10
# How often a daemon that has exited is started again
STARTS = 2
# upsmon logs in at its next poll after upsd has restarted. Seconds for that, if its polls have the usual length.
LOGIN_SECONDS = 15


@dataclass(frozen=True)
class Trouble:
    """A problem."""

    message: str
    unit: str  # whose log may show the cause
    missing: Monitor | None = None  # the MONITOR line whose upsd answers, and that upsmon is not logged in with


@dataclass(frozen=True)
class VerifyResult:
    """What upsd and upsmon report."""

    status: Mapping[str, str]  # name of a UPS -> its ups.status, or upsd's error code
    broken: tuple[Trouble, ...] = ()
    absent: tuple[Trouble, ...] = ()  # UPSes that are not plugged in or do not answer their driver
    restarted: tuple[str, ...] = ()  # units that had exited and were started again
    undeclared: tuple[Trouble, ...] = ()  # UPSes without data that were merely found: no machine depends on them
    repeated: tuple[
        str, ...
    ] = ()  # logins for which upsmon was restarted, because upsd had refused them and accepts them now


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
    # UPSes (in lower case) that the inventory declares; None: all
    declared: frozenset[str] | None = None
    scan: Callable[[], tuple[UsbDevice, ...]] = scan_bus
    # whether all UPSes are plainly on mains, so that upsmon may be restarted
    on_mains: Callable[[], bool] = lambda: False

    def wait_until_serving(self, seconds: float, patient: bool = False) -> VerifyResult:
        """Wait for at most SECONDS until upsd has fresh data for every UPS and lists this host's upsmon as a client.

        Stops waiting early if only absent UPSes are missing, unless PATIENT. Starts daemons that have exited again. Restarts upsmon
        once if upsd has refused its login and accepts it now, because upsmon itself does not try again.
        """
        begin = self.clock()
        starts: dict[str, int] = {}
        repeated: tuple[str, ...] = ()
        next_try = begin + min(self._login_seconds(), seconds / 2)
        while True:
            verdict = replace(self._check_once(tuple(starts)), repeated=repeated)
            passed = self.clock() - begin
            settled = passed >= min(SETTLE_SECONDS, seconds) and not patient and not verdict.broken
            missing = verdict.broken or verdict.absent
            if passed >= seconds or settled or not (missing or verdict.undeclared):
                return self._explain_logins(verdict)
            if not missing and passed >= SETTLE_SECONDS:
                return verdict
            self._restart_ended(verdict, starts)
            if not repeated and self.clock() >= next_try:
                repeated = self._repeat_logins(verdict)
                next_try = self.clock() + LOGIN_SECONDS
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

    def _login_seconds(self) -> float:
        """Return how many seconds upsmon has to log in to an upsd that answers."""
        given = [self.files.directive("upsmon.conf", name) for name in ("POLLFREQ", "POLLFREQALERT")]
        return max([LOGIN_SECONDS, *(3.0 * int(poll) for poll in given if poll and poll.isdigit())])

    def _repeat_logins(self, verdict: VerifyResult) -> tuple[str, ...]:
        """Restart upsmon if an upsd accepts a login that upsmon lacks. Return these logins."""
        lacking = [trouble.missing for trouble in verdict.broken if trouble.missing]
        accepted = [monitor for monitor in lacking if self._try_monitor(monitor).verdict == login.ACCEPTED]
        if not accepted or not self.on_mains():
            return ()
        self.runner(["systemctl", "restart", systemd.MONITOR])
        return tuple(f"{monitor.user} on {monitor.system}" for monitor in accepted)

    def _try_monitor(self, monitor: Monitor) -> login.LoginAnswer:
        return login.try_monitor(monitor, self.files["upsmon.conf"], self.tls.ca if self.tls else "")

    def _explain_logins(self, verdict: VerifyResult) -> VerifyResult:
        """Add to each missing login what upsd answers if it is tried."""
        return replace(verdict, broken=tuple(self._explain_login(trouble) for trouble in verdict.broken))

    def _explain_login(self, trouble: Trouble) -> Trouble:
        if trouble.missing is None:
            return trouble
        answer = self._try_monitor(trouble.missing)
        why = answer.why or "upsd accepts this login, so upsmon itself did not try it, or lost it again"
        return replace(trouble, message=f"{trouble.message}; {why}")

    def _check_once(self, restarted: tuple[str, ...]) -> VerifyResult:
        verdict = self._check_upses()
        missing, away = self._check_logins()
        return replace(
            verdict, broken=(*verdict.broken, *missing), absent=(*verdict.absent, *away), restarted=restarted
        )

    def _check_upses(self) -> VerifyResult:
        """Return the status of each UPS of this host's upsd, and which are broken, absent, or undeclared and without data."""
        if "ups.conf" not in self.files:
            return VerifyResult({})
        sections = self.files.ups_conf.sections
        try:
            with UpsdClient(*self.files.local_upsd[0], timeout=5) as client:
                states = snapshot.take_snapshot(client, list(sections))
        except UpsdFailure as error:
            return VerifyResult({}, (Trouble(str(error), systemd.SERVER),))
        status = {state.name: " ".join(state.status) if state.fresh else state.error or "no data" for state in states}
        broken: list[Trouble] = []
        absent: list[Trouble] = []
        undeclared: list[Trouble] = []
        for name in (state.name for state in states if not state.fresh):
            unusable = self._explain_missing_node(sections[name])
            trouble = Trouble(f"upsd has no fresh data for {name}: {status[name]}{unusable}", systemd.driver_unit(name))
            if self.declared is not None and name.lower() not in self.declared:
                undeclared.append(trouble)
            else:
                is_absent = not unusable and self._is_absent(sections[name], status[name])
                (absent if is_absent else broken).append(trouble)
        return VerifyResult(status, tuple(broken), tuple(absent), undeclared=tuple(undeclared))

    def _explain_missing_node(self, section: ups_conf.Section) -> str:
        """Return why no driver can use a UPS that is on the bus, as the end of a message; "" if it is not there, or usable."""
        if not is_usb(section):
            return ""
        try:
            devices = presence.find_candidates(section, self.scan(), read_id_table(), {})
        except UsbError:
            return ""
        problem = presence.explain_missing_node(devices, systemd.read_container())
        return f", because {problem}. To do: {presence.GRANT_NODE}" if problem else ""

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
                ca = self.tls.ca if self.tls else ""
                # with TLS, upsmon only logs in if it can verify the certificate
                with login.open_as_upsmon(monitor, self.files["upsmon.conf"], ca) as client:
                    clients = client.list_clients(monitor.ups)
                    address = client.local_address
            except UpsdFailure as error:
                # a UPS that does not feed this host is only monitored, so this is only a warning
                remedy = (
                    _explain_address(monitor) if isinstance(error, Unreachable) and "ups.conf" not in self.files else ""
                )
                (missing if monitor.power else away).append(
                    Trouble(f"{monitor.system}: {error}{remedy}", systemd.MONITOR)
                )
                continue
            if hostnames.normal_address(address) not in {hostnames.normal_address(other) for other in clients}:
                seen = ", ".join(clients) or "none"
                message = (
                    f"upsmon on this host ({address}) has not logged in to {monitor.system} as {monitor.user}; "
                    f"clients that upsd lists: {seen}"
                )
                missing.append(Trouble(message, systemd.MONITOR, monitor))
        return missing, away


def _explain_address(monitor: Monitor) -> str:
    """Return what to set if a secondary can't reach its primary at the address that it was given."""
    return (
        f". If this host can't reach {monitor.host} at all, set nut_client_primary_address to an address of its primary that it can reach, "
        "or nut_server_address to a name or address that all secondaries can"
    )
