# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gather what shows, apart from upsd, whether the drivers still read their UPSes: their open devices, their journal, their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, Protocol

from ..base.services import ServiceManager
from ..base.systemd import JournalEntry, Unit, UnitError, driver_unit
from ..conf.ups_conf import Section
from ..usb import liveness
from ..usb.bus import UsbDevice, UsbUps
from ..usb.liveness import BusView, Loss, Stillness
from ..usb.opened import read_claims, read_opened_nodes
from ..usb.sections import is_usb
from .memory import HotplugState

LINES = 2000  # of the journal, from its end
# Within this time, the journal that was read last is good enough: a run may observe the host 40 times.
JOURNAL_SECONDS = 5.0


@dataclass(frozen=True)
class Evidence:
    """What shows whether the driver of one section, whose data upsd calls fresh, still reads its UPS."""

    loss: Loss | None = None  # evidence that it does not
    suspicion: str = ""  # a reason to doubt it, as a clause
    stillness: Stillness | None = None  # on battery: what it measures, and since when that has not changed


class Answers(Protocol):
    """What upsd answered."""

    @property
    def status(self) -> Mapping[str, tuple[str, ...]]:
        """Return name -> flags of ups.status, of the UPSes with fresh data."""

    @property
    def measured(self) -> Mapping[str, str]:
        """Return name -> liveness.read_measured()."""


@dataclass
class EvidenceReader:
    """Gathers the evidence about the drivers of one host."""

    manager: ServiceManager
    sysfs: Path
    dev: Path  # where device nodes are
    proc: Path
    wall: Callable[[], float]  # seconds since 1970
    debug: Callable[[str], None]
    _journal: tuple[float, dict[str, list[JournalEntry]]] = field(default=(-JOURNAL_SECONDS, {}), init=False)

    def gather_evidence(
        self,
        sections: Mapping[str, Section],
        units: Mapping[str, Unit],
        answers: Answers,
        plugged: Mapping[str, UsbUps],
        devices: Sequence[UsbDevice],
        *,
        memory: HotplugState,
        now: float,
    ) -> dict[str, Evidence]:
        """Return name -> evidence, of the running drivers that look for a UPS on the USB bus and whose data upsd calls fresh.

        sections: of the current ups.conf. plugged: the UPSes that are on the bus. devices: all devices there. now: seconds of
        CLOCK_BOOTTIME.
        """
        fresh = answers.status
        names = [
            name
            for name, section in sections.items()
            if name in fresh and is_usb(section) and units[driver_unit(name)].active in ("active", "reloading")
        ]
        if not names:
            return {}
        journal = self._read_journal(names)
        opened = {name: read_opened_nodes(units[driver_unit(name)].pid, self.dev, self.proc) for name in names}
        view = BusView(
            tuple(devices),
            {name: nodes for name, nodes in opened.items() if nodes is not None},
            read_claims(devices, self.sysfs),
            {name: ups.device for name, ups in plugged.items()},
        )
        found = {}
        for name in names:
            error = liveness.find_io_error(journal.get(driver_unit(name), ()), self.wall())
            loss = liveness.find_loss(name, sections[name], view, error)
            if loss is not None:
                loss = replace(loss, since=min(memory.lost_since.get(name, now), now))
            still = self._follow_values(name, fresh[name], answers.measured.get(name, ""), memory, now)
            suspicion = "" if loss else str(error or "")
            if not loss and not suspicion and still and still.seconds >= liveness.STILL:
                suspicion = liveness.describe_stillness(still.seconds)
            found[name] = Evidence(loss, suspicion, still)
        return found

    @staticmethod
    def _follow_values(
        name: str, status: Sequence[str], values: str, memory: HotplugState, now: float
    ) -> Stillness | None:
        """Return what a UPS on battery measures, and since when that has not changed; None on mains, or if it measures too little."""
        if "OB" not in status or not values:
            return None
        before = memory.still.get(name)
        is_same = before is not None and before.values == values and before.since <= now
        return Stillness(values, before.since if before and is_same else now, now)

    def _read_journal(self, names: Iterable[str]) -> dict[str, list[JournalEntry]]:
        """Return unit -> what it has logged lately."""
        now = self.wall()
        if 0 <= now - self._journal[0] < JOURNAL_SECONDS:
            return self._journal[1]
        units = [driver_unit(name) for name in names]
        by_unit: dict[str, list[JournalEntry]] = {}
        try:
            for entry in self.manager.read_log(units, max(now - liveness.IO_SECONDS, 0), LINES):
                by_unit.setdefault(entry.unit, []).append(entry)
        except UnitError as error:
            self.debug(str(error))
        self._journal = now, by_unit
        return by_unit
