# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each UPS: connected, with fresh data from its driver, and fit for an outage."""

from __future__ import annotations

from ..base.systemd import driver_unit
from ..base.text import printable
from ..conf.directives import NEWEST
from ..net import readings, vocabulary
from ..usb import bus as usb_bus
from ..usb import fingerprint
from ..usb import sections as usb_sections
from . import status as doctor_status
from .exam import DAY, PRIMARY, Exam, Findings, Registry
from .findings import FAILURE, NOTE, OK, WARNING

check = Registry()


YEAR = 365.25 * DAY
BATTERY_NOTE, BATTERY_WARNING = 3 * YEAR, 5 * YEAR
LOAD_PERCENT = 80


@check("usb", "permissions", where=PRIMARY)
def check_usb(exam: Exam) -> Findings:
    """Check that each UPS is on the USB bus, and that its driver has permission to use it."""
    if "usb" in exam.seen.troubles:
        yield from exam.report_unseen("usb", "usb")
        return
    for name, section in exam.sections.items():
        if usb_sections.is_dummy(section):
            if "ABSENT" in getattr(exam.upses.get(name.lower()), "status", ()):
                message = f"{name} is not plugged in; upsd serves a placeholder for it"
                yield exam.fail("usb", message, "plug it in; lsusb; nut-hotplug status")
            continue
        kind = usb_sections.get_value(section, "driver")
        if kind not in usb_bus.DRIVERS and not kind.endswith("_usb"):
            continue
        devices = [
            device
            for device in exam.seen.devices
            if not device.hub and fingerprint.matches_device(section, device, exam.seen.release or NEWEST)
        ]
        if not fingerprint.identifying_pairs(section.keys):
            # Without matching keys the driver takes any device that it supports; only the driver knows which.
            devices = (
                devices
                if name.lower() in exam.upses and exam.upses[name.lower()].fresh
                else [device for device in devices if device.hid_power is not False]
            )
        if not devices:
            message = f"{name} is not on the USB bus ({_list_devices(exam)})"
            yield exam.fail("usb", message, "check its cable and power switch; lsusb; nut-hotplug status")
            continue
        refused = [device for device in devices if device.accessible is False]
        if refused:
            node = refused[0].node
            message = f"{name} is on the bus, but its driver can't use {node}: group nut has no write permission"
            yield exam.fail(
                "permissions", message, f"udevadm trigger --subsystem-match=usb --action=change; ls -l {node}"
            )
        else:
            yield exam.ok("permissions", f"{name}: group nut can use {devices[0].node}")
        yield exam.ok("usb", f"{name}: {devices[0].ids} {printable(devices[0].product or '', 60)}".rstrip())


def _list_devices(exam: Exam) -> str:
    """Return which USB devices are there, in words."""
    others = [device.ids for device in exam.seen.devices if not device.hub]
    return f"devices there: {', '.join(others)}" if others else "no device there"


_FRESH = {
    "DATA-STALE": "its driver is running, but gets no data from it (DATA-STALE)",
    "DRIVER-NOT-CONNECTED": "its driver is not running, or upsd can't reach it (DRIVER-NOT-CONNECTED)",
}


@check("driver")
def check_drivers(exam: Exam) -> Findings:
    """Check that upsd has fresh data from each UPS."""
    if exam.served is None:
        return
    for name in exam.sections:
        state = exam.upses.get(name.lower())
        unit = driver_unit(name)
        if state is None:
            message = f"upsd does not serve {name}, although ups.conf has it"
            yield exam.fail("driver", message, "systemctl reload nut-server; journalctl -u nut-server -n 50")
        elif not state.fresh:
            why = _FRESH.get(state.error or "", state.error or "its driver has no status yet")
            todo = f"check its cable; journalctl -u {unit} -n 50; systemctl restart {unit}, while on mains"
            yield exam.fail("driver", f"{name}: {why}{exam.last_words(unit)}", todo)
        else:
            yield exam.ok("driver", f"{name}: fresh data from {state.variables.get('driver.name', 'its driver')}")


_STATUS = {
    "FSD": (FAILURE, "a shutdown is in progress (FSD)", "nut-shutdown status"),
    "LB": (FAILURE, "its battery is low (LB)", "nut-shutdown status; restore mains power"),
    "OVER": (FAILURE, "it is overloaded (OVER)", "connect fewer machines to it"),
    "OFF": (FAILURE, "its outlets are off (OFF)", "switch it on"),
    "OB": (WARNING, "it is on battery (OB)", "check the mains and the UPS's power plug; upsc {name}@localhost"),
    "RB": (WARNING, "its battery needs to be replaced (RB)", "replace the battery"),
    "BYPASS": (
        WARNING,
        "it is on bypass (BYPASS): in a power cut all machines lose power at once",
        "switch the bypass off",
    ),
    "ALARM": (WARNING, "it reports an alarm", "upsc {name}@localhost ups.alarm"),
    "CAL": (NOTE, "it is calibrating (CAL)", ""),
}


@check("status", "load")
def check_status(exam: Exam) -> Findings:
    """Check each UPS's status flags and load."""
    for state in exam.upses.values():
        if not state.fresh or "ABSENT" in state.status:
            continue
        flags = [flag for flag in _STATUS if flag in state.status]
        for flag in flags:
            verdict, message, todo = _STATUS[flag]
            more = (
                f": {printable(state.variables['ups.alarm'], 80)}"
                if flag == "ALARM" and "ups.alarm" in state.variables
                else ""
            )
            left = _battery_left(state.reading) if flag in ("OB", "LB") else ""
            yield exam.make_finding(
                "status", verdict, f"{state.name}: {message}{more}{left}", todo.format(name=state.name)
            )
        if not flags:
            yield exam.ok(
                "status", f"{state.name}: {doctor_status.describe_state(state)}{_battery_left(state.reading)}"
            )
        load = readings.parse_quantity(state.variables.get("ups.load"))
        if load is not None and load > LOAD_PERCENT and "OVER" not in state.status:
            message = f"{state.name} has a load of {load:g} %; above {LOAD_PERCENT} % the UPS ages faster and leaves little time"
            yield exam.warn("load", message, "connect fewer machines to it")
        elif load is not None:
            yield exam.ok("load", f"{state.name}: {load:g} %")


def _battery_left(reading: readings.Reading) -> str:
    """Return charge and runtime in words, as the end of a message; "" if neither is known."""
    charge, runtime = reading.charge, reading.runtime
    message = ([f"{charge:g} %"] if charge is not None else []) + (
        [f"{runtime:g} s left"] if runtime is not None else []
    )
    return f", {', '.join(message)}" if message else ""


@check("battery")
def check_battery(exam: Exam) -> Findings:
    """Check the age of each UPS's battery."""
    for state in exam.upses.values():
        if not state.fresh or "ABSENT" in state.status:
            continue
        date = next((state.variables[name] for name in doctor_status.DATES if state.variables.get(name)), "")
        since = doctor_status.parse_date(date)
        if since is None:
            message = (
                f"{state.name}: battery date {printable(date, 30)!r} is not a date"
                if date
                else f"{state.name} does not report its battery's age"
            )
            yield exam.ok("battery", message)
            continue
        age = exam.seen.now - since
        message = f"{state.name}: battery from {date}, {max(age, 0) / YEAR:.1f} years old"
        verdict = WARNING if age > BATTERY_WARNING else NOTE if age > BATTERY_NOTE else OK
        yield exam.make_finding(
            "battery",
            verdict,
            message,
            {
                WARNING: "replace it: after 5 years it may fail in an outage",
                NOTE: "test it (ups_command: test.battery.start.quick)",
            }.get(verdict, ""),
        )


@check("self-test")
def check_self_test(exam: Exam) -> Findings:
    """Check the result of each UPS's last self-test."""
    for state in exam.upses.values():
        result = state.variables.get("ups.test.result", "") if state.fresh else ""
        if not result:
            continue
        when = state.variables.get("ups.test.date", "")
        message = f"{state.name}: {printable(result, 60)}{f', {printable(when, 30)}' if when else ''}"
        bad = vocabulary.judge_test_result(result) == vocabulary.FAILED
        yield exam.make_finding(
            "self-test",
            WARNING if bad else OK,
            message,
            "test it again; if it fails again, replace the battery" if bad else "",
        )
