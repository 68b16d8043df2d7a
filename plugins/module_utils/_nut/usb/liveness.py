# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judge whether a driver whose data upsd calls fresh still reads its UPS. Fresh is not alive.

Some drivers (any with pollonly on NUT 2.8.0 to 2.8.2) do not notice that their UPS was unplugged or reset, and serve its last values
for ever. Evidence, in this order: the device that the driver has open is gone; the driver logs an I/O error again and again; the UPS
is not on the bus; on battery, nothing that it measures changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..base import jsontext
from ..base.records import FILE_BYTES
from ..base.systemd import JournalEntry
from ..base.text import printable
from ..conf.directives import Release
from ..conf.release import format_release, is_hasty_release
from ..conf.ups_conf import Section
from .bus import UsbDevice
from .fingerprint import identifying_pairs, matches_device
from .opened import OpenedNode, find_lost_node
from .sections import is_usb

# Seconds.
# how far back the journal is read
IO_SECONDS = 300.0
# An error that was not repeated for so long is over. Drivers poll every 2 s, and read everything every 30 s.
IO_PAUSE = 60.0
# the error must be logged so often
IO_REPEATS = 3
# On battery, at least one of charge, runtime, voltages and load changes within this time.
STILL = 180.0

_IO_ERROR = re.compile(
    r"No such device|Input/[Oo]utput error|I/O error|Entity not found|No such file or directory"
    r"|Communications with (?:the )?UPS lost"
)
_DEVICE_GONE = "No such device"
# of libusb's transfers; other lines about missing devices are about the search for one
_TRANSFER = re.compile(r"usb_(?:[gs]et|interrupt|control|bulk)\w*: ")
_OVER = re.compile(r"Startup successful|re-established|^Started |^Starting |^Using subdriver|data is no longer stale")

# what changes while a UPS is on battery; nominal values and marks do not
_MEASURED = re.compile(
    r"battery\.(?:charge|runtime|voltage|current|temperature)"
    r"|(?:input|output)\.(?:L[123]\.)?(?:voltage|current|frequency)"
    r"|ups\.(?:load|power|realpower|temperature)"
)
_ABSENT = "its UPS is not on the USB bus"
_TELLING = ("battery.runtime", "battery.voltage")


@dataclass(frozen=True)
class IoError:
    """An error that a driver logs again and again."""

    words: str
    times: int

    @property
    def is_device_gone(self) -> bool:
        """Return whether it is the kernel's answer for a device that has been unplugged or reset."""
        return _DEVICE_GONE in self.words and _TRANSFER.search(self.words) is not None

    def __str__(self) -> str:
        """Return it as the end of a sentence, without numbers that change."""
        return f'its driver logs "{printable(self.words, 80)}" again and again'


@dataclass(frozen=True)
class Loss:
    """The device of a driver is gone from under it, although upsd has fresh data."""

    evidence: str  # a clause
    is_proven: bool  # whether it is certain enough to restart the driver
    since: float = 0.0  # when it was first seen, in seconds of CLOCK_BOOTTIME


@dataclass(frozen=True)
class Stillness:
    """What a UPS on battery measures, and since when none of it has changed."""

    values: str  # from read_measured()
    since: float  # seconds of CLOCK_BOOTTIME
    until: float  # when that was seen last, on the same clock

    @property
    def seconds(self) -> float:
        """Return for how many seconds nothing has changed."""
        return max(self.until - self.since, 0.0)


def find_io_error(entries: Iterable[JournalEntry], now: float) -> IoError | None:
    """Return the error that the journal of a driver repeats and that has not ended; None if there is none. now: seconds since 1970."""
    counts: dict[str, tuple[int, float]] = {}
    for entry in sorted(entries, key=lambda entry: entry.at):
        if _OVER.search(entry.words):
            counts.clear()
        elif entry.at >= now - IO_SECONDS and _IO_ERROR.search(entry.words):
            counts[entry.words] = counts.get(entry.words, (0, 0.0))[0] + 1, entry.at
    found = [
        IoError(words, times)
        for words, (times, last) in counts.items()
        if times >= IO_REPEATS and last >= now - IO_PAUSE
    ]
    # the error that says most comes first
    return max(found, key=lambda error: (error.is_device_gone, error.times), default=None)


@dataclass(frozen=True)
class BusView:
    """What the kernel shows of the bus and of the drivers' use of it."""

    devices: tuple[UsbDevice, ...]  # all on the bus
    # section -> what its driver has open; without those that can't be seen
    opened: Mapping[str, tuple[OpenedNode, ...]] = field(default_factory=dict)
    claims: Mapping[str, bool] = field(default_factory=dict)  # from read_claims()
    plugged: Mapping[str, UsbDevice] = field(default_factory=dict)  # section -> its UPS, if it is on the bus

    def possible_devices(self) -> Iterator[UsbDevice]:
        """Yield the devices, apart from the UPSes of the sections, that a driver could have open, as far as is known."""
        taken = {device.name for device in self.plugged.values()}
        for device in self.devices:
            if not device.hub and device.name not in taken and self.claims.get(device.name) is not False:
                yield device


def find_loss(name: str, section: Section, view: BusView, error: IoError | None = None) -> Loss | None:
    """Return the evidence that a driver with fresh data does not read its UPS; None if there is none. error: from find_io_error()."""
    if not is_usb(section):
        return None
    proof = _find_proof(name, section, view, error)
    if proof:
        return Loss(proof, is_proven=True)
    if name in view.plugged or view.opened.get(name) or not identifying_pairs(section.keys):
        return None
    # NUT may read other texts than the kernel, so a device that a program has may be the UPS
    is_held = any(view.claims.get(device.name) for device in view.possible_devices())
    return None if is_held else Loss(_ABSENT, is_proven=False)


def _find_proof(name: str, section: Section, view: BusView, error: IoError | None) -> str:
    """Return what proves that a driver does not read its UPS, as a clause; "" if nothing does."""
    device, nodes = view.plugged.get(name), view.opened.get(name)
    where = f"its UPS is now {device.node}" if device else _ABSENT
    if nodes:
        lost = find_lost_node(nodes, view.devices)
        return f"its driver has {lost.path} open, which is gone; {where}" if lost else ""
    others = list(view.possible_devices())
    if device and view.claims.get(device.name) is False and not any(matches_device(section, other) for other in others):
        return f"its driver does not have its UPS open, {device.node}, which the kernel's own driver has"
    if error is not None and error.is_device_gone:
        return f"{error}; {where}"
    return where if device is None and not others else ""


def read_measured(variables: Mapping[str, str]) -> str:
    """Return what a UPS measures, as one text that changes with any of it; "" if it measures too little to tell."""
    if "battery.charge" not in variables or not any(name in variables for name in _TELLING):
        return ""
    return " ".join(f"{name}={value}" for name, value in sorted(variables.items()) if _MEASURED.fullmatch(name))


def read_stillness(state: Path, boot: str) -> dict[str, float]:
    """Return name -> for how many seconds nothing that a UPS on battery measures has changed, as nut-hotplug has seen it.

    state: the file with nut-hotplug's state. boot: the boot id. {} if the file does not tell.
    """
    try:
        return {
            str(name): Stillness("", float(still["since"]), float(still["until"])).seconds
            for name, still in _read_noted(state, boot, "still").items()
        }
    except (ValueError, LookupError, TypeError):
        return {}


def read_lost_names(state: Path, boot: str) -> set[str]:
    """Return the UPSes, in lower case, of which upsd has old data that it calls fresh, as nut-hotplug saw it last. Parameters as above."""
    return {str(name).lower() for name in _read_noted(state, boot, "lost_since")}


def _read_noted(state: Path, boot: str, member: str) -> Mapping[str, Any]:
    """Return a mapping of nut-hotplug's state; an empty one if the file does not tell."""
    try:
        data = jsontext.parse_json(state.read_bytes()[:FILE_BYTES])
        noted = data[member] if data["boot"] == boot else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
    return noted if isinstance(noted, dict) else {}


def warn_old_data(name: str, status: Iterable[str]) -> str:
    """Return a warning for a person who is about to rely on what upsd says of a UPS."""
    return (
        f"upsd's data of {name} ({' '.join(status)}) may be old: nut-hotplug has seen that its driver lost the UPS and goes on "
        "serving the last values, so the UPS may be on battery. make doctor says what to do"
    )


def mark_old_data(power: Iterable[str], lost_names: Iterable[str], hint: str) -> Iterator[str]:
    """Yield the UPSes that are not plainly on mains, as text. What waits for one with old data waits until a person has acted.

    power: as snapshot.list_not_on_mains() returns it. hint: where to read what to do.
    """
    lowered = {name.lower() for name in lost_names}
    for text in power:
        is_lost = text.rpartition(" (")[0].lower() in lowered
        yield f"{text}, which is old data ({hint})" if is_lost else text


def describe_stillness(seconds: float) -> str:
    """Return in words that nothing has changed, as a clause."""
    return f"on battery for {seconds / 60:.0f} min, and charge, runtime, voltages and load have not changed"


def forbidding_flags(status: Iterable[str], release: Release | None) -> tuple[str, ...]:
    """Return the flags with which upsmon shuts down at once if the driver stops for a moment.

    From is_ups_critical() in clients/upsmon.c of 2.8.0 to 2.8.5. On 2.8.0, and from 2.8.3 on, OB is none of them: upsmon waits for
    DEADTIME, and a driver is back after some seconds.
    """
    flags = tuple(status)
    forbidden = {"FSD", *({"LB"} if "OB" in flags else ())}
    if is_hasty_release(release):
        forbidden |= {"OB"}
    if release is None or release >= (2, 8, 1):
        forbidden |= {"CAL", "BYPASS", "OFF"}
    if release is None or release >= (2, 8, 3):
        forbidden |= {"ALARM", "OVER"}
    return tuple(flag for flag in flags if flag in forbidden)


def compose_remedy(name: str, status: Iterable[str], release: Release | None) -> str:
    """Return what a person has to do about a driver that serves old data, without shutting anything down."""
    unit = f"nut-driver@{name}"
    flags = forbidding_flags(status, release)
    if not flags:
        return f"systemctl restart {unit}"
    if "FSD" in flags:
        return f"a shutdown is in progress; afterwards: systemctl restart {unit}"
    nut = f"NUT {format_release(release)}" if release else "NUT"
    return (
        f"Do not restart {unit} alone: while upsd says {' '.join(flags)}, {nut} would shut down every machine at once. Look at the UPS "
        f"itself. If it is on mains: 1. stop upsmon on each machine that `upsc -c {name}@localhost` lists, this host last "
        f"(systemctl stop nut-monitor; on TrueNAS the UPS service). 2. systemctl restart {unit}. 3. Once `upsc {name}@localhost "
        "ups.status` says OL, start upsmon again on all of them. If it is on battery, shut down while you can: upsmon -c fsd"
    )
