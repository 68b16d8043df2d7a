# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The models of emulated UPSes: their ids and strings, and the values in their HID reports.

Paths are written as NUT writes them (`usbhid-ups -DD` lists them), without the leading `UPS.`. Usages and units are from
"Universal Serial Bus Usage Tables for HID Power Devices", release 1.0. The paths that each subdriver reads are from NUT's
apc-hid.c, cps-hid.c and mge-hid.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Usage page in the upper half, usage in the lower. `[n]` is an index collection, which NUT keeps on page 0x00ff.
USAGES: dict[str, int] = {
    "UPS": 0x00840004,
    "PowerSummary": 0x00840024,
    "Input": 0x0084001A,
    "Output": 0x0084001C,
    "PowerConverter": 0x00840016,
    "Flow": 0x0084001E,
    "[1]": 0x00FF0001,
    "[4]": 0x00FF0004,
    "PresentStatus": 0x00840002,
    "iManufacturer": 0x008400FD,
    "iProduct": 0x008400FE,
    "iSerialNumber": 0x008400FF,
    "iDeviceChemistry": 0x00850089,
    "Voltage": 0x00840030,
    "PercentLoad": 0x00840035,
    "ConfigVoltage": 0x00840040,
    "ConfigApparentPower": 0x00840042,
    "ConfigActivePower": 0x00840043,
    "LowVoltageTransfer": 0x00840053,
    "HighVoltageTransfer": 0x00840054,
    "DelayBeforeReboot": 0x00840055,
    "DelayBeforeStartup": 0x00840056,
    "DelayBeforeShutdown": 0x00840057,
    "AudibleAlarmControl": 0x0084005A,
    "Good": 0x00840061,
    "Overload": 0x00840065,
    "ShutdownImminent": 0x00840069,
    "RemainingCapacityLimit": 0x00850029,
    "RemainingTimeLimit": 0x0085002A,
    "CapacityMode": 0x0085002C,
    "BelowRemainingCapacityLimit": 0x00850042,
    "RemainingTimeLimitExpired": 0x00850043,
    "Charging": 0x00850044,
    "Discharging": 0x00850045,
    "FullyCharged": 0x00850046,
    "NeedReplacement": 0x0085004B,
    "RemainingCapacity": 0x00850066,
    "FullChargeCapacity": 0x00850067,
    "RunTimeToEmpty": 0x00850068,
    "DesignCapacity": 0x00850083,
    "WarningCapacityLimit": 0x0085008C,
    "ACPresent": 0x008500D0,
    "BatteryPresent": 0x008500D1,
}

_SECOND = (0x1001, 0)  # HID unit, exponent
_VOLT = (0x00F0D121, 7)
_CENTIVOLT = (0x00F0D121, 5)
_WATT = (0x0000D121, 7)
_NONE = (0, 0)


@dataclass(frozen=True)
class ReportItem:
    """A value in a report: its path, the value of the model that it shows, and its encoding.

    Adjacent items of 1 bit share a report. A `volatile` item is also sent on the interrupt pipe
    when something has changed.
    """

    path: str
    key: str
    bits: int = 8
    low: int = 0
    high: int = 255
    unit: tuple[int, int] = _NONE
    volatile: bool = False


@dataclass(frozen=True)
class UsbIdentity:
    """The ids and strings of a device. An empty string is missing (string index 0)."""

    vendor_id: int
    product_id: int
    release: int
    manufacturer: str
    product: str
    serial: str


@dataclass(frozen=True)
class UpsProfile:
    """A model: its name, identity, reports, and the values that differ from the defaults.

    A model without reports is not a HID Power Device; it speaks Megatec's protocol, or is no UPS at all but a serial adapter.
    """

    name: str
    identity: UsbIdentity
    items: tuple[ReportItem, ...]
    state: dict[str, int] = field(default_factory=dict)
    is_adapter: bool = False


def _delay_items(collection: str) -> tuple[ReportItem, ...]:
    return tuple(
        ReportItem(f"{collection}.{usage}", key, 16, -1, 32767, _SECOND)
        for usage, key in (
            ("DelayBeforeShutdown", "delay_shutdown"),
            ("DelayBeforeStartup", "delay_startup"),
            ("DelayBeforeReboot", "delay_reboot"),
        )
    )


_STATUS = tuple(
    ReportItem(f"PowerSummary.PresentStatus.{usage}", key, 1, 0, 1, volatile=True)
    for usage, key in (
        ("ACPresent", "ac_present"),
        ("Charging", "charging"),
        ("Discharging", "discharging"),
        ("FullyCharged", "fully_charged"),
        ("BelowRemainingCapacityLimit", "low_battery"),
        ("NeedReplacement", "replace_battery"),
        ("Overload", "overload"),
        ("ShutdownImminent", "shutdown_imminent"),
        ("RemainingTimeLimitExpired", "time_limit_expired"),
        ("BatteryPresent", "battery_present"),
        ("Good", "outlets"),
    )
)

_SUMMARY = (
    ReportItem("PowerSummary.iProduct", "string_product"),
    ReportItem("PowerSummary.iSerialNumber", "string_serial"),
    ReportItem("PowerSummary.iDeviceChemistry", "string_chemistry"),
    ReportItem("PowerSummary.iManufacturer", "string_manufacturer"),
    ReportItem("PowerSummary.CapacityMode", "capacity_mode", high=2),
    ReportItem("PowerSummary.DesignCapacity", "capacity", high=100),
    ReportItem("PowerSummary.FullChargeCapacity", "capacity", high=100),
    ReportItem("PowerSummary.WarningCapacityLimit", "charge_warning", high=100),
    ReportItem("PowerSummary.RemainingCapacityLimit", "charge_low", high=100),
    ReportItem("PowerSummary.RemainingCapacity", "charge", high=100, volatile=True),
    ReportItem("PowerSummary.RunTimeToEmpty", "runtime", 16, high=65534, unit=_SECOND, volatile=True),
    ReportItem("PowerSummary.RemainingTimeLimit", "runtime_low", 16, high=65534, unit=_SECOND),
    ReportItem("PowerSummary.ConfigVoltage", "battery_voltage_nominal", 16, high=65534, unit=_CENTIVOLT),
    ReportItem("PowerSummary.Voltage", "battery_voltage", 16, high=65534, unit=_CENTIVOLT),
    ReportItem("PowerSummary.AudibleAlarmControl", "beeper", high=3),
    *_STATUS,
)

_INPUT = (
    ReportItem("Input.ConfigVoltage", "input_voltage_nominal", 16, high=300, unit=_VOLT),
    ReportItem("Input.Voltage", "input_voltage", 16, high=300, unit=_VOLT),
    ReportItem("Input.LowVoltageTransfer", "transfer_low", 16, high=300, unit=_VOLT),
    ReportItem("Input.HighVoltageTransfer", "transfer_high", 16, high=300, unit=_VOLT),
)

_OUTPUT = (
    ReportItem("Output.PercentLoad", "load", high=100),
    ReportItem("Output.ConfigActivePower", "realpower_nominal", 16, high=5000, unit=_WATT),
)

_EATON = (
    *_SUMMARY,
    ReportItem("PowerSummary.PercentLoad", "load", high=100),
    *_delay_items("PowerSummary"),
    ReportItem("PowerConverter.Input.[1].Voltage", "input_voltage", 16, high=300, unit=_VOLT),
    ReportItem("PowerConverter.Output.LowVoltageTransfer", "transfer_low", 16, high=300, unit=_VOLT),
    ReportItem("PowerConverter.Output.HighVoltageTransfer", "transfer_high", 16, high=300, unit=_VOLT),
    ReportItem("Flow.[1].ConfigVoltage", "input_voltage_nominal", 16, high=300, unit=_VOLT),
    ReportItem("Flow.[4].ConfigActivePower", "realpower_nominal", 16, high=5000, unit=_WATT),
)

PROFILES: dict[str, UpsProfile] = {
    profile.name: profile
    for profile in (
        UpsProfile(
            "apc",
            UsbIdentity(
                0x051D,
                0x0002,
                0x0090,
                "American Power Conversion",
                "Back-UPS ES 700G FW:871.O4 .I USB FW:O4",
                "5B1234T56789",
            ),
            (*_SUMMARY, *_delay_items("PowerSummary"), *_INPUT, *_OUTPUT),
        ),
        # Many CyberPowers have no serial number.
        UpsProfile(
            "cps",
            UsbIdentity(0x0764, 0x0501, 0x0001, "CPS", "CP1500EPFCLCD", ""),
            (*_SUMMARY, *_delay_items("Output"), *_INPUT, *_OUTPUT),
            {"realpower_nominal": 900},
        ),
        # Small Eatons all report the same serial number: zeros.
        UpsProfile(
            "eaton",
            UsbIdentity(0x0463, 0xFFFF, 0x0100, "EATON", "Ellipse PRO", "000000000"),
            _EATON,
            {"realpower_nominal": 510},
        ),
        # The NUT of Debian 12 and 13 does not support this one; it appears in lsusb and sysfs only.
        UpsProfile(
            "ecoflow",
            UsbIdentity(0x3746, 0xFFFF, 0x0100, "EcoFlow", "EF-UPS-RIVER 3 Plus", "R631ZABAWH4E0123"),
            (*_SUMMARY, *_delay_items("PowerSummary"), *_INPUT, *_OUTPUT),
        ),
        # The same chip is used by many manufacturers, with these strings. NUT's driver for it is nutdrv_qx.
        UpsProfile("megatec", UsbIdentity(0x0665, 0x5161, 0x0002, "INNO TECH", "USB to Serial", ""), ()),
        # No UPS: a serial adapter, as in many Arduinos and Zigbee sticks. NUT's tables name it from 2.8.5 on.
        UpsProfile("ch340", UsbIdentity(0x1A86, 0x7523, 0x0264, "", "USB Serial", ""), (), is_adapter=True),
    )
}
