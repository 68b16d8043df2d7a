# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a host's NUT really serves: upsd is asked, because a unit that is active proves nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Callable

from ..base import hostnames, systemd
from ..conf import nss, ups_conf, upsd, upsmon
from ..net import snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..usb.absent import finds_no_ups

# Seconds until a driver and upsd that have just been started have found each other: no sooner is a UPS called absent
SETTLE_SECONDS = 10
# How often a daemon that has ended is started again before it is given up
STARTS = 2


@dataclass(frozen=True)
class Trouble:
    """What is not as it should be, in words, and the unit whose last words may tell why."""

    message: str
    unit: str


@dataclass(frozen=True)
class VerifyResult:
    """What upsd says of a host.

    status: of each UPS, in NUT's words, or why there is none. broken: what does not work. absent: UPSes that are not there, or
    don't answer their driver; NUT does what it can. mended: units that had ended and were started again.
    """

    status: Mapping[str, str]
    broken: tuple[Trouble, ...] = ()
    absent: tuple[Trouble, ...] = ()
    restarted: tuple[str, ...] = ()


@dataclass
class Verifier:
    """One look after another at a host with these files, until all is well or the time is over."""

    files: Mapping[str, str]
    runner: systemd.Run
    tls: nss.TlsMaterial | None = None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    served: frozenset[str] = (
        frozenset()
    )  # UPSes (in lower case) that were there before: one of them is lost, not absent

    def wait_until_serving(self, seconds: float, patient: bool = False) -> VerifyResult:
        """Wait until upsd serves every UPS fresh and lists this host's upsmon as a client, for SECONDS at most.

        For a UPS that is not there nobody waits to the end, unless PATIENT. A daemon that has ended is started again.
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
        """Start what has ended. Debian 12 restarts neither upsd nor upsmon by itself."""
        suspects = [trouble.unit for trouble in verdict.broken if trouble.unit in (systemd.SERVER, systemd.MONITOR)]
        if not suspects:
            return
        for name, unit in systemd.show_units(list(dict.fromkeys(suspects)), self.runner).items():
            if not unit.runs and starts.get(name, 0) < STARTS:
                starts[name] = starts.get(name, 0) + 1
                self.runner(["systemctl", "reset-failed", name])
                self.runner(["systemctl", "start", name])

    def _check_once(self, mended: tuple[str, ...]) -> VerifyResult:
        status, broken, absent = self._check_upses()
        missing, away = self._check_logins()
        return VerifyResult(status, (*broken, *missing), (*absent, *away), mended)

    def _check_upses(self) -> tuple[dict[str, str], tuple[Trouble, ...], tuple[Trouble, ...]]:
        """Ask this host's upsd for its UPSes: the status of each, and what is broken or absent."""
        if "ups.conf" not in self.files:
            return {}, (), ()
        sections = ups_conf.parse_ups_conf(self.files["ups.conf"]).sections
        try:
            with UpsdClient(*upsd.local_upsd(self.files["upsd.conf"])[0], timeout=5) as client:
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
        # stale: the driver runs, and the UPS does not answer it
        return why == "DATA-STALE" or (why == "DRIVER-NOT-CONNECTED" and finds_no_ups(section, self.runner))

    def _check_logins(self) -> tuple[list[Trouble], list[Trouble]]:
        """Return to whom this host's upsmon has not logged in: what is broken, and what is merely away."""
        missing: list[Trouble] = []
        away: list[Trouble] = []
        for monitor in upsmon.read_monitors(self.files["upsmon.conf"]):
            try:
                with UpsdClient(monitor.host, monitor.port, timeout=5) as client:
                    name = upsmon.certificate_name(self.files["upsmon.conf"], monitor.host)
                    if self.tls and name:
                        # upsmon logs in only if this works, too
                        client.starttls(self.tls.ca, name)
                    clients = client.list_clients(monitor.ups)
                    address = client.local_address
            except UpsdFailure as error:
                # one that feeds nothing here is only watched: that it is away hurts nobody
                (missing if monitor.power else away).append(Trouble(f"{monitor.system}: {error}", systemd.MONITOR))
                continue
            if hostnames.normal_address(address) not in {hostnames.normal_address(other) for other in clients}:
                seen = ", ".join(clients) or "none"
                words = (
                    f"upsmon on this host ({address}) has not logged in to {monitor.system} as {monitor.user}; "
                    f"clients that upsd lists: {seen}"
                )
                missing.append(Trouble(words, systemd.MONITOR))
        return missing, away
