# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An emulated UPS as seen over USB: descriptors, HID reports, mains and battery, delayed switching of the outlets.

The transport is elsewhere. The clock is passed in, so that tests can move it.
One file, because the descriptors, the reports and the behaviour describe the same device.
"""

from __future__ import annotations

import re
import struct
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Callable, Protocol, Union

from .profiles import PROFILES, USAGES, ReportItem, UpsProfile, UsbIdentity

DT_DEVICE, DT_CONFIG, DT_STRING, DT_INTERFACE, DT_ENDPOINT, DT_HID, DT_REPORT = 1, 2, 3, 4, 5, 0x21, 0x22
GET_STATUS, GET_DESCRIPTOR, GET_CONFIGURATION, GET_INTERFACE = 0, 6, 8, 10
GET_REPORT, SET_REPORT, SET_IDLE, SET_PROTOCOL = 1, 9, 10, 11
REPORT_INPUT, REPORT_FEATURE = 1, 3
EP_INTERRUPT = 0x81
# A table of languages of another descriptor's type, as some Eatons send it: Linux reads the strings, libusb refuses to
WRONG_LANGUAGES = struct.pack("<BBH", 4, 0, 0x0409)
MAX_STRING = 126  # UTF-16 units: the length byte counts 2 + 2 * n, and must be even


class NoAnswer(Enum):
    """What a device may do instead of answering: refuse at once (STALL), or let the host wait until its timeout (NAK)."""

    STALL = "stall"
    NAK = "nak"


STALL, NAK = NoAnswer.STALL, NoAnswer.NAK
Answer = Union[bytes, NoAnswer]


@dataclass(frozen=True)
class Setup:
    """The first 8 bytes of a control transfer (USB 2.0, 9.3)."""

    request_type: int
    request: int
    value: int
    index: int
    length: int

    @classmethod
    def from_bytes(cls, raw: bytes) -> Setup:
        return cls(*struct.unpack("<BBHHH", raw[:8]))

    @property
    def is_in(self) -> bool:
        return bool(self.request_type & 0x80)


class UsbHardware(Protocol):
    """The interface of a device that a bus needs."""

    identity: UsbIdentity

    @property
    def device_descriptor(self) -> bytes: ...
    @property
    def config_descriptor(self) -> bytes: ...
    def control_transfer(self, setup: Setup, data: bytes = b"") -> Answer: ...
    def interrupt_in(self) -> bytes | None: ...


def string_descriptor(text: str) -> bytes:
    """Return the USB string descriptor of a text, truncated if necessary. Lone surrogates pass: firmware sends worse."""
    raw = text.encode("utf-16-le", "surrogatepass")[: 2 * MAX_STRING]
    return bytes((len(raw) + 2, DT_STRING)) + raw


def text_as_read(text: str) -> str:
    """Return the text that a host reads for a string of a device."""
    return string_descriptor(text)[2:].decode("utf-16-le", "surrogatepass")


def answer_standard_request(  # noqa: PLR0911 (one return a request)
    device: UsbHardware, strings: Mapping[int, str], setup: Setup
) -> Answer | None:
    """Answer a standard request to the device or an endpoint (USB 2.0, chapter 9). Return None for other requests."""
    kind, index = setup.value >> 8, setup.value & 0xFF
    if setup.request_type & 0x60:  # class or vendor
        return None
    if setup.request_type == 0x80 and setup.request == GET_DESCRIPTOR:
        if kind == DT_DEVICE:
            return device.device_descriptor
        if kind == DT_CONFIG and index == 0:
            return device.config_descriptor
        if kind == DT_STRING and index == 0:
            return struct.pack("<BBH", 4, DT_STRING, 0x0409)
        if kind == DT_STRING and index in strings:
            return string_descriptor(strings[index])
        return STALL
    if setup.request == GET_STATUS and setup.is_in:
        return b"\1\0" if setup.request_type == 0x80 else b"\0\0"
    if setup.request == GET_CONFIGURATION and setup.request_type == 0x80:
        return b"\1"
    if setup.request == GET_INTERFACE and setup.request_type == 0x81:
        return b"\0"
    return None if setup.is_in else b""  # SET_CONFIGURATION, SET_INTERFACE, CLEAR_FEATURE: fine


# ---- the report descriptor


@dataclass(frozen=True)
class HidReport:
    """Items that are sent together. The report's number is the first byte."""

    number: int
    items: tuple[ReportItem, ...]

    @property
    def volatile(self) -> bool:
        return self.items[0].volatile

    def pack_values(self, values: Mapping[str, int]) -> bytes:
        bits, at = 0, 0
        for item in self.items:
            bits |= (values[item.key] & ((1 << item.bits) - 1)) << at
            at += item.bits
        return bytes((self.number,)) + bits.to_bytes((at + 7) // 8, "little")

    def unpack_values(self, raw: bytes) -> dict[str, int]:
        """Return the values in a report. Raise ValueError if it is short, has another number, or has a value out of range."""
        size = (sum(item.bits for item in self.items) + 7) // 8
        if len(raw) < size + 1 or raw[0] != self.number:
            raise ValueError(f"report {self.number}: {raw.hex()} does not fit")
        bits, values = int.from_bytes(raw[1 : size + 1], "little"), {}
        for item in self.items:
            value = bits & ((1 << item.bits) - 1)
            if item.low < 0 and value >> (item.bits - 1):
                value -= 1 << item.bits
            if not item.low <= value <= item.high:
                raise ValueError(f"report {self.number}: {item.key} = {value} is not in {item.low}..{item.high}")
            values[item.key] = value
            bits >>= item.bits
        return values


def reports_of(items: tuple[ReportItem, ...]) -> list[HidReport]:
    """Return the reports of items, numbered from 1. Adjacent items of one bit in a collection share a report."""
    reports: list[HidReport] = []
    for item in items:
        last = reports[-1].items[-1] if reports else None
        if last and last.bits == item.bits == 1 and _parent_path(last) == _parent_path(item):
            reports[-1] = replace(reports[-1], items=(*reports[-1].items, item))
        else:
            reports.append(HidReport(len(reports) + 1, (item,)))
    return reports


def report_descriptor(reports: list[HidReport]) -> bytes:
    """Return the HID report descriptor (HID 1.11, 6.2.2) of reports, inside the application collection `UPS`."""
    out = _usage_item("UPS") + _short_item(0xA0, 1)
    open_path: tuple[str, ...] = ()
    for report in reports:
        path = _parent_path(report.items[0])
        shared = 0
        while shared < min(len(path), len(open_path)) and path[shared] == open_path[shared]:
            shared += 1
        out += b"\xc0" * (len(open_path) - shared)
        for name in path[shared:]:
            out += _usage_item(name) + _short_item(0xA0, 0)
        open_path = path
        first = report.items[0]
        out += _short_item(0x84, report.number) + _short_item(0x14, first.low) + _short_item(0x24, first.high)
        out += _short_item(0x64, first.unit[0]) + _short_item(0x54, first.unit[1]) + _short_item(0x94, 1)
        for main, flags in ((0xB0, 0xA2), (0x80, 0x82)):  # feature, input; data, variable, absolute, volatile
            if main == 0x80 and not report.volatile:
                continue
            out += _short_item(0x74, first.bits)
            for item in report.items:
                out += _usage_item(item.path.rpartition(".")[2]) + _short_item(main, flags)
            pad = -sum(item.bits for item in report.items) % 8
            if pad:
                out += _short_item(0x74, pad) + _short_item(main, 0x03)
    return out + b"\xc0" * (len(open_path) + 1)


def _parent_path(item: ReportItem) -> tuple[str, ...]:
    return tuple(item.path.split(".")[:-1])


def _short_item(tag: int, value: int) -> bytes:
    """Return a HID short item. Only the logical limits are signed."""
    signed = tag in (0x14, 0x24)
    for code, size in ((1, 1), (2, 2), (3, 4)):
        limit = 1 << (8 * size - (1 if signed else 0))
        if (-limit if signed else 0) <= value < limit:
            return bytes((tag | code,)) + value.to_bytes(size, "little", signed=signed)
    raise ValueError(f"HID item {tag:#x}: {value} is too big")


def _usage_item(name: str) -> bytes:
    page, usage = USAGES[name] >> 16, USAGES[name] & 0xFFFF
    return _short_item(0x04, page) + _short_item(0x08, usage)


# ---- the UPS


@dataclass(frozen=True)
class UpsSetting:
    """A value that lab/ups may set. The host may set a `writable` one over USB too."""

    default: int
    low: int
    high: int
    text: str
    writable: bool = False


SETTINGS: dict[str, UpsSetting] = {
    "charge": UpsSetting(100, 0, 100, "battery charge, %"),
    "charge_low": UpsSetting(10, 0, 100, "charge at which the battery is low, %", True),
    "charge_warning": UpsSetting(50, 0, 100, "charge at which the UPS warns, %"),
    "runtime": UpsSetting(2400, 0, 65534, "runtime left, s"),
    "runtime_low": UpsSetting(120, 0, 65534, "runtime at which the battery is low, s", True),
    "load": UpsSetting(12, 0, 100, "load, %"),
    "input_voltage": UpsSetting(231, 0, 300, "mains voltage while mains are on, V"),
    "battery_voltage": UpsSetting(1350, 0, 65534, "battery voltage, 0.01 V"),
    "replace_battery": UpsSetting(0, 0, 1, "1: the battery needs replacement (RB)"),
    "overload": UpsSetting(0, 0, 1, "1: overloaded (OVER)"),
    "battery_present": UpsSetting(1, 0, 1, "0: no battery"),
    "transfer_low": UpsSetting(180, 0, 300, "goes on battery below this mains voltage, V", True),
    "transfer_high": UpsSetting(270, 0, 300, "goes on battery above this mains voltage, V", True),
    "beeper": UpsSetting(2, 1, 3, "1 disabled, 2 enabled, 3 muted", True),
    "realpower_nominal": UpsSetting(405, 0, 5000, "nominal power, W"),
}

_FIXED = {
    "string_manufacturer": 1,
    "string_product": 2,
    "string_serial": 3,
    "string_chemistry": 4,
    "capacity_mode": 2,  # per cent
    "capacity": 100,
    "battery_voltage_nominal": 1200,
    "input_voltage_nominal": 230,
    "time_limit_expired": 0,
}

DEFAULT_START_DELAY = 2  # seconds from the return of the mains to "outlets on" unless the host has set another delay


class EmulatedUps:
    """A UPS. `clock` is monotonic, in seconds; call update_outlets at the `deadline`.

    DelayBeforeShutdown and DelayBeforeReboot switch the outlets off after so many seconds. They are switched on again
    DelayBeforeStartup seconds after they are off and the mains are on. DelayBeforeStartup = -1 keeps them off.
    """

    def __init__(
        self,
        profile: UpsProfile,
        identity: UsbIdentity | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.profile = profile
        self.identity = identity or profile.identity
        self.state = {name: setting.default for name, setting in SETTINGS.items()}
        self.state.update(profile.state)
        self.mains = True
        self.forced_low = False
        self.outlets = True
        self.hang: NoAnswer | None = None
        self.fickle = False  # its strings change at each read
        self.unreadable_strings = False  # libusb can't read its strings, although the kernel can
        self.events: deque[dict[str, Any]] = deque(maxlen=500)
        self._clock, self._wall = clock, wall
        self._off_at: float | None = None
        self._on_at: float | None = None
        self._start_delay: int | None = DEFAULT_START_DELAY
        self._strings_read = 0
        self._reports = {report.number: report for report in reports_of(profile.items)}
        self._descriptor = report_descriptor(list(self._reports.values()))
        self._unsent: set[int] = set()  # changed reports that the interrupt pipe has not sent
        self._sent = self.report_values()

    # -- the environment

    def set_mains(self, on: bool) -> None:
        """Cut or restore the mains. Restoring them also ends a forced low battery."""
        if on != self.mains:
            self.mains = on
            self._add_event("mains on" if on else "mains off")
        if on:
            self.forced_low = False
        self._note_changes()

    def force_low(self) -> None:
        self.forced_low = True
        self._add_event("battery low")
        self._note_changes()

    def empty_battery(self) -> None:
        """Make the battery empty: without mains the outlets go off at once, and come back with the mains."""
        if self.mains or not self.outlets:
            return
        self._off_at = self._clock()
        self._start_delay = DEFAULT_START_DELAY if self._start_delay is None else self._start_delay
        self._add_event("battery empty")
        self.update_outlets()

    def hurry_outlets(self) -> None:
        """Skip the delay before the next switching of the outlets, for tests."""
        if self._off_at is not None:
            self._off_at = self._clock()
        elif self._on_at is not None:
            self._on_at = self._clock()
        self.update_outlets()

    def set_values(self, values: Mapping[str, int]) -> None:
        """Set state values by name. Raise ValueError, and set none, if one is unknown or out of range."""
        for name, value in values.items():
            setting = SETTINGS.get(name)
            if setting is None:
                raise ValueError(f"unknown state key {name!r}; known: {', '.join(SETTINGS)}")
            if isinstance(value, bool) or not isinstance(value, int) or not setting.low <= value <= setting.high:
                raise ValueError(f"{name} must be a whole number from {setting.low} to {setting.high}, not {value!r}")
        self.state.update(values)
        self._add_event("set", **values)
        self._note_changes()

    def set_hang(self, hang: NoAnswer | None) -> None:
        """Make the firmware hang: HID requests are refused (STALL) or not answered (NAK), and no report is sent."""
        self.hang = hang
        self._add_event(f"hang {hang.value}" if hang else "unhang")

    # -- time

    @property
    def deadline(self) -> float | None:
        """When update_outlets has something to do, on the clock's scale."""
        return self._off_at if self._off_at is not None else self._on_at

    def update_outlets(self) -> None:
        now = self._clock()
        if self._off_at is not None and now >= self._off_at:
            self._off_at = None
            if self.outlets:
                self.outlets = False
                self._add_event("outlets off")
            self._note_changes()
        if self._on_at is not None and now >= self._on_at:
            self._on_at = None
            self.outlets = True
            self._add_event("outlets on")
            self._note_changes()

    def _note_changes(self) -> None:
        """After a change, restart the delays that depend on it, and note which reports have changed."""
        if self.outlets or not self.mains or self._start_delay is None:
            self._on_at = None
        elif self._on_at is None and self._off_at is None:
            self._on_at = self._clock() + self._start_delay
        values = self.report_values()
        if values != self._sent:
            self._sent = values
            self._unsent = {report.number for report in self._reports.values() if report.volatile}

    def _add_event(self, event: str, **detail: int) -> None:
        stamp = datetime.fromtimestamp(self._wall(), timezone.utc).isoformat(timespec="milliseconds")
        self.events.append({"time": stamp, "event": event, **detail})

    def note_event(self, event: str) -> None:
        """Add an event from outside (plugged in, unplugged)."""
        self._add_event(event)

    # -- values

    @property
    def low_battery(self) -> bool:
        state = self.state
        return self.forced_low or state["charge"] <= state["charge_low"] or state["runtime"] <= state["runtime_low"]

    def report_values(self) -> dict[str, int]:
        """Return all values that reports may contain, by key."""
        state = self.state
        charge, runtime = state["charge"], state["runtime"]
        if self.forced_low:
            charge, runtime = min(charge, state["charge_low"]), min(runtime, state["runtime_low"])
        return {
            **state,
            **_FIXED,
            "charge": charge,
            "runtime": runtime,
            "input_voltage": state["input_voltage"] if self.mains else 0,
            "ac_present": int(self.mains),
            "charging": int(self.mains and charge < 100),
            "discharging": int(not self.mains),
            "fully_charged": int(self.mains and charge >= 100),
            "low_battery": int(self.low_battery),
            "shutdown_imminent": int(self._off_at is not None),
            "outlets": int(self.outlets),
            "delay_shutdown": self._seconds_until(self._off_at),
            "delay_startup": self._seconds_until(self._on_at),
            "delay_reboot": -1,
        }

    def _seconds_until(self, at: float | None) -> int:
        return -1 if at is None else max(0, round(at - self._clock()))

    def describe_status(self) -> dict[str, Any]:
        """Return the complete state for JSON."""
        identity, values = self.identity, self.report_values()
        ups_status = "OL" if self.mains else "OB"
        for flag, name in (("low_battery", "LB"), ("charging", "CHRG"), ("discharging", "DISCHRG")):
            ups_status += f" {name}" if values[flag] else ""
        return {
            "model": self.profile.name,
            "id": f"{identity.vendor_id:04x}:{identity.product_id:04x}",
            "manufacturer": identity.manufacturer,
            "product": identity.product,
            "serial": identity.serial,
            "status": ups_status,
            "mains": self.mains,
            "low_battery": self.low_battery,
            "forced_low": self.forced_low,
            "outlets": self.outlets,
            "shutdown_in": values["delay_shutdown"],
            "start_in": values["delay_startup"],
            "hang": self.hang.value if self.hang else None,
            "fickle": self.fickle,
            "unreadable_strings": self.unreadable_strings,
            "state": dict(self.state),
            "events": list(self.events),
        }

    # -- USB

    @property
    def strings(self) -> dict[int, str]:
        texts = (self.identity.manufacturer, self.identity.product, self.identity.serial, "PbAc")
        return {index: text for index, text in enumerate(texts, 1) if text}

    @property
    def device_descriptor(self) -> bytes:
        identity = self.identity
        has = [index if index in self.strings else 0 for index in (1, 2, 3)]
        return struct.pack(
            "<BBHBBBBHHHBBBB",
            *(18, DT_DEVICE, 0x0110, 0, 0, 0, 8),
            *(identity.vendor_id, identity.product_id, identity.release, *has, 1),
        )

    @property
    def hid_descriptor(self) -> bytes:
        return struct.pack("<BBHBBBH", 9, DT_HID, 0x0110, 33, 1, DT_REPORT, len(self._descriptor))

    @property
    def config_descriptor(self) -> bytes:
        body = struct.pack("<9B", 9, DT_INTERFACE, 0, 0, 1, 3, 0, 0, 0) + self.hid_descriptor
        body += struct.pack("<BBBBHB", 7, DT_ENDPOINT, EP_INTERRUPT, 3, 8, 100)
        return struct.pack("<BBHBBBBB", 9, DT_CONFIG, 9 + len(body), 1, 1, 0, 0xE0, 1) + body

    def control_transfer(self, setup: Setup, data: bytes = b"") -> Answer:
        """Answer a control transfer; `data` comes from the host."""
        self.update_outlets()
        kind, number = setup.value >> 8, setup.value & 0xFF
        answer: Answer | None = None
        if setup.request_type == 0x81 and setup.request == GET_DESCRIPTOR:
            answer = {DT_HID: self.hid_descriptor, DT_REPORT: self._descriptor}.get(kind, STALL)
        elif self.unreadable_strings and setup.request_type == 0x80 and setup.request == GET_DESCRIPTOR:
            answer = WRONG_LANGUAGES if (kind, number) == (DT_STRING, 0) else None
        if answer is None:
            answer = answer_standard_request(self, self._strings_now(setup), setup)
        if answer is None:
            answer = self.hang or self._class_request(setup, kind, number, data)
        return answer[: setup.length] if isinstance(answer, bytes) else answer

    def _strings_now(self, setup: Setup) -> dict[int, str]:
        """Return the strings for this request. Those of a fickle UPS end in a counter of reads."""
        if not self.fickle or setup.request != GET_DESCRIPTOR or setup.value >> 8 != DT_STRING:
            return self.strings
        self._strings_read += 1
        return {index: f"{text} {self._strings_read}" for index, text in self.strings.items()}

    def _class_request(self, setup: Setup, kind: int, number: int, data: bytes) -> Answer:
        report = self._reports.get(number)
        if setup.request_type == 0xA1 and setup.request == GET_REPORT and report:
            if kind == REPORT_FEATURE or (kind == REPORT_INPUT and report.volatile):
                return report.pack_values(self.report_values())
        elif setup.request_type == 0x21 and setup.request == SET_REPORT and report:
            try:
                written = report.unpack_values(data)
            except ValueError:
                return STALL
            return b"" if all(self._write_value(key, value) for key, value in written.items()) else STALL
        elif setup.request_type == 0x21 and setup.request in (SET_IDLE, SET_PROTOCOL):
            return b""
        return STALL

    def _write_value(self, key: str, value: int) -> bool:
        """Write a value for the host. Return False if it may not write it."""
        if key in ("delay_shutdown", "delay_reboot"):
            self._off_at = self._clock() + value if value >= 0 else None
            if key == "delay_reboot" and self._start_delay is None:
                self._start_delay = DEFAULT_START_DELAY
        elif key == "delay_startup":
            self._start_delay = value if value >= 0 else None
            self._on_at = None
        elif key in SETTINGS and SETTINGS[key].writable:
            if not SETTINGS[key].low <= value <= SETTINGS[key].high:
                return False
            self.state[key] = value
        else:
            return False
        self._add_event("host wrote", **{key: value})
        self._note_changes()
        return True

    def interrupt_in(self) -> bytes | None:
        """Return the next changed report, or None if there is none (the device NAKs)."""
        self.update_outlets()
        if self.hang or not self._unsent:
            return None
        number = min(self._unsent)
        self._unsent.discard(number)
        return self._reports[number].pack_values(self.report_values())


class SerialAdapter(EmulatedUps):
    """A USB serial adapter: anything or nothing may be at its other end, and no HID driver is bound to it."""

    @property
    def config_descriptor(self) -> bytes:
        body = struct.pack("<9B", 9, DT_INTERFACE, 0, 0, 1, 0xFF, 1, 2, 0)
        body += struct.pack("<BBBBHB", 7, DT_ENDPOINT, EP_INTERRUPT, 3, 8, 100)
        return struct.pack("<BBHBBBBB", 9, DT_CONFIG, 9 + len(body), 1, 1, 0, 0x80, 49) + body

    def control_transfer(self, setup: Setup, data: bytes = b"") -> Answer:
        answer = answer_standard_request(self, self.strings, setup)
        if answer is None or setup.request_type == 0x81:
            return STALL
        return answer[: setup.length] if isinstance(answer, bytes) else answer

    def interrupt_in(self) -> bytes | None:
        return None


class MegatecUps(EmulatedUps):
    """A UPS that is not a HID Power Device: it answers lines of text in vendor-defined reports.

    The protocol is Megatec's, as NUT's nutdrv_qx speaks it with the subdriver `cypress`: a command comes in reports of eight
    bytes and ends with a carriage return, and so does the answer on the interrupt pipe.
    """

    def __init__(
        self,
        profile: UpsProfile,
        identity: UsbIdentity | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(profile, identity, clock, wall)
        # usage page 0xffa0: eight bytes in, eight bytes out
        self._descriptor = bytes.fromhex("06a0ff0901a101150026ff00750895080902810209039102c0")
        self._heard, self._to_say = b"", b""

    def _class_request(self, setup: Setup, kind: int, number: int, data: bytes) -> Answer:
        if setup.request_type != 0x21 or setup.request not in (SET_REPORT, SET_IDLE, SET_PROTOCOL):
            return STALL
        if setup.request == SET_REPORT:
            self._heard += data
            command, end, _padding = self._heard.partition(b"\r")
            if end or len(self._heard) > MAX_STRING:
                self._heard = b""
                self._to_say = self._answer_command(command.decode("latin-1")).encode("latin-1") + b"\r"
        return b""

    def _answer_command(self, command: str) -> str:
        """Return the answer to a command. Unknown commands are echoed, as these UPSes do."""
        values = self.report_values()
        order = re.fullmatch(r"S(\.[1-9]|\d\d)(?:R(\d{4}))?", command)
        if command == "Q1":
            flags = f"{values['discharging']}{values['low_battery']}000{values['shutdown_imminent']}0{self.state['beeper'] == 2:d}"
            volts, battery = values["input_voltage"], values["battery_voltage"] / 100
            return f"({volts:05.1f} {volts:05.1f} 230.0 {values['load']:03} 50.0 {battery:04.1f} 25.0 {flags:0>8}"
        if command == "F":
            return "#230.0 002 012.0 50.0"
        if command == "I":
            identity = self.identity
            return f"#{identity.manufacturer[:15]:15} {identity.product[:10]:10} {identity.release:<10x}"
        if order:
            self._start_delay = 60 * int(order[2]) if order[2] else None
            self._off_at = self._clock() + 60 * float(order[1])
        elif command == "C":
            self._off_at, self._start_delay = None, DEFAULT_START_DELAY
        else:
            return command
        self._add_event(f"host said {command}")
        self._note_changes()
        return ""

    def interrupt_in(self) -> bytes | None:
        """Return the next eight bytes of the answer, or None."""
        self.update_outlets()
        if self.hang or not self._to_say:
            return None
        part, self._to_say = self._to_say[:8], self._to_say[8:]
        return part.ljust(8, b"\0")


def make_ups(model: str, overrides: Mapping[str, Any] | None = None, **clocks: Callable[[], float]) -> EmulatedUps:
    """Return a charged UPS of a model. `overrides` may set serial, manufacturer, product, and id as `VVVV:PPPP`.

    Raise ValueError for an unknown model or an invalid override.
    """
    profile = PROFILES.get(model)
    if profile is None:
        raise ValueError(f"unknown model {model!r}; known: {', '.join(PROFILES)}")
    changes: dict[str, Any] = {}
    for name, value in (overrides or {}).items():
        if not isinstance(value, str):
            raise ValueError(f"{name} must be a string, not {value!r}")
        if name == "id":
            vendor, _unused, product = value.partition(":")
            try:
                changes["vendor_id"], changes["product_id"] = _parse_hex16(vendor), _parse_hex16(product)
            except ValueError:
                raise ValueError(f"id must be VVVV:PPPP, two hexadecimal numbers, not {value!r}") from None
        elif name in ("serial", "manufacturer", "product"):
            changes[name] = value
        else:
            raise ValueError(f"a UPS has no {name!r} to override")
    kind = SerialAdapter if profile.is_adapter else EmulatedUps if profile.items else MegatecUps
    return kind(profile, replace(profile.identity, **changes), **clocks)


def _parse_hex16(text: str) -> int:
    if len(text) != 4:
        raise ValueError(text)
    return int(text, 16)
