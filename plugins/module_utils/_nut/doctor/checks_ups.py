# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each UPS: on the bus, with a driver that has fresh data, and in a state to last an outage."""

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


@check("usb", "permissions", on=PRIMARY)
def check_usb(exam: Exam) -> Findings:
    """Is each UPS on the USB bus, and may its driver use it?"""
    if "usb" in exam.seen.troubles:
        yield from exam.report_unseen("usb", "usb")
        return
    for name, section in exam.sections.items():
        if usb_sections.is_dummy(section):
            if "ABSENT" in getattr(exam.upses.get(name.lower()), "status", ()):
                words = f"{name} is not plugged in; a stand-in is served for it"
                yield exam.fail("usb", words, "plug it in; lsusb; nut-hotplug status")
            continue
        kind = usb_sections.get_value(section, "driver")
        if kind not in usb_bus.DRIVERS and not kind.endswith("_usb"):
            continue
        those = [
            device
            for device in exam.seen.devices
            if not device.hub and fingerprint.matches_device(section, device, exam.seen.release or NEWEST)
        ]
        if not fingerprint.identifying_pairs(section.keys):
            # without keys its driver takes what it knows; which that is only the driver can say
            those = (
                those
                if name.lower() in exam.upses and exam.upses[name.lower()].fresh
                else [device for device in those if device.hid_power is not False]
            )
        if not those:
            words = f"{name} is not on the USB bus ({_list_devices(exam)})"
            yield exam.fail("usb", words, "exam at its cable and its switch; lsusb; nut-hotplug status")
            continue
        shut = [device for device in those if device.accessible is False]
        if shut:
            node = shut[0].node
            words = f"{name} is on the bus, and its driver may not use {node}: group nut has no right to write"
            yield exam.fail(
                "permissions", words, f"udevadm trigger --subsystem-match=usb --action=change; ls -l {node}"
            )
        else:
            yield exam.ok("permissions", f"{name}: the group nut may use {those[0].node}")
        yield exam.ok("usb", f"{name}: {those[0].ids} {printable(those[0].product or '', 60)}".rstrip())


def _list_devices(exam: Exam) -> str:
    others = [device.ids for device in exam.seen.devices if not device.hub]
    return f"there are {', '.join(others)}" if others else "no device is there"


_FRESH = {
    "DATA-STALE": "its driver runs, and hears nothing from it (DATA-STALE)",
    "DRIVER-NOT-CONNECTED": "its driver does not run, or upsd can't reach it (DRIVER-NOT-CONNECTED)",
}


@check("driver")
def check_drivers(exam: Exam) -> Findings:
    """Does upsd have fresh data of each UPS?"""
    if exam.served is None:
        return
    for name in exam.sections:
        state = exam.upses.get(name.lower())
        unit = driver_unit(name)
        if state is None:
            words = f"upsd does not serve {name}, which stands in ups.conf"
            yield exam.fail("driver", words, "systemctl reload nut-server; journalctl -u nut-server -n 50")
        elif not state.fresh:
            why = _FRESH.get(state.error or "", state.error or "its driver has no status yet")
            todo = f"journalctl -u {unit} -n 50; is it plugged in? systemctl restart {unit}, while on mains"
            yield exam.fail("driver", f"{name}: {why}{exam.last_words(unit)}", todo)
        else:
            yield exam.ok("driver", f"{name}: fresh data, by {state.variables.get('driver.name', 'its driver')}")


_STATUS = {
    "FSD": (FAILURE, "the shutdown has begun (FSD)", "nut-shutdown status"),
    "LB": (FAILURE, "its battery is low (LB)", "nut-shutdown status; bring the mains back"),
    "OVER": (FAILURE, "it is overloaded (OVER)", "take machines off it"),
    "OFF": (FAILURE, "its outlets are off (OFF)", "switch it on"),
    "OB": (WARNING, "it is on battery (OB)", "exam at the mains and at its plug; upsc {name}@localhost"),
    "RB": (WARNING, "it wants a new battery (RB)", "change the battery"),
    "BYPASS": (WARNING, "it is bypassed (BYPASS): a power cut takes all at once", "switch the bypass off"),
    "ALARM": (WARNING, "it has an alarm", "upsc {name}@localhost ups.alarm"),
    "CAL": (NOTE, "it calibrates (CAL)", ""),
}


@check("status", "load")
def check_status(exam: Exam) -> Findings:
    """What do the UPSes say of themselves?"""
    for state in exam.upses.values():
        if not state.fresh or "ABSENT" in state.status:
            continue
        flags = [flag for flag in _STATUS if flag in state.status]
        for flag in flags:
            verdict, words, todo = _STATUS[flag]
            more = (
                f": {printable(state.variables['ups.alarm'], 80)}"
                if flag == "ALARM" and "ups.alarm" in state.variables
                else ""
            )
            left = _battery_left(state.reading) if flag in ("OB", "LB") else ""
            yield exam.make_finding(
                "status", verdict, f"{state.name}: {words}{more}{left}", todo.format(name=state.name)
            )
        if not flags:
            yield exam.ok(
                "status", f"{state.name}: {doctor_status.describe_state(state)}{_battery_left(state.reading)}"
            )
        load = readings.parse_quantity(state.variables.get("ups.load"))
        if load is not None and load > LOAD_PERCENT and "OVER" not in state.status:
            words = f"{state.name} is loaded with {load:g} %, and more than {LOAD_PERCENT} % ages it and leaves it little time"
            yield exam.warn("load", words, "take machines off it")
        elif load is not None:
            yield exam.ok("load", f"{state.name}: {load:g} %")


def _battery_left(reading: readings.Reading) -> str:
    charge, runtime = reading.charge, reading.runtime
    words = ([f"{charge:g} %"] if charge is not None else []) + ([f"{runtime:g} s left"] if runtime is not None else [])
    return f", {', '.join(words)}" if words else ""


@check("battery")
def check_battery(exam: Exam) -> Findings:
    """How old is the battery?"""
    for state in exam.upses.values():
        if not state.fresh or "ABSENT" in state.status:
            continue
        told = next((state.variables[name] for name in doctor_status.DATES if state.variables.get(name)), "")
        made = doctor_status.parse_date(told)
        if made is None:
            words = (
                f"{state.name}: its date {printable(told, 30)!r} is none"
                if told
                else f"{state.name} does not say how old its battery is"
            )
            yield exam.ok("battery", words)
            continue
        age = exam.seen.now - made
        words = f"{state.name}: its battery is of {told}, {max(age, 0) / YEAR:.1f} years old"
        verdict = WARNING if age > BATTERY_WARNING else NOTE if age > BATTERY_NOTE else OK
        yield exam.make_finding(
            "battery",
            verdict,
            words,
            {
                WARNING: "change it: after 5 years it may fail in an outage",
                NOTE: "test it (ups_command: test.battery.start.quick)",
            }.get(verdict, ""),
        )


@check("self-test")
def check_self_test(exam: Exam) -> Findings:
    """What came of its last self-test?"""
    for state in exam.upses.values():
        result = state.variables.get("ups.test.result", "") if state.fresh else ""
        if not result:
            continue
        when = state.variables.get("ups.test.date", "")
        words = f"{state.name}: {printable(result, 60)}{f', {printable(when, 30)}' if when else ''}"
        bad = vocabulary.judge_test_result(result) == vocabulary.FAILED
        yield exam.make_finding(
            "self-test",
            WARNING if bad else OK,
            words,
            "test it again; if it fails again, change the battery" if bad else "",
        )
