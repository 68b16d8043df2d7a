# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each UPS: connected, with fresh data from its driver, and fit for an outage."""

from __future__ import annotations

from collections.abc import Sequence

from ..base.systemd import driver_unit
from ..base.text import printable
from ..conf.directives import NEWEST
from ..net import readings, snapshot, vocabulary
from ..usb import liveness, presence
from ..usb import sections as usb_sections
from ..usb.bus import UsbDevice
from . import status as doctor_status
from .checks_logins import unserved
from .exam import DAY, PRIMARY, Exam, Findings, Registry, restart_on_mains
from .findings import FAILURE, NOTE, OK, WARNING, Finding

check = Registry()


YEAR = 365.25 * DAY
BATTERY_NOTE, BATTERY_WARNING = 3 * YEAR, 5 * YEAR
LOAD_PERCENT = 80


@check("usb", "permissions", where=PRIMARY)
def check_usb(exam: Exam) -> Findings:
    """Check that each USB UPS is on the bus, and that its driver has permission to use it."""
    sections = {name: section for name, section in exam.sections.items() if usb_sections.is_usb(section)}
    if sections and "usb" in exam.seen.troubles:
        yield from exam.report_unseen("usb", "usb")
        return
    for name, section in exam.sections.items():
        state = exam.upses.get(name.lower())
        if usb_sections.is_dummy(section):
            if state is not None and state.is_stand_in:
                message = f"{name} is not plugged in; upsd serves a placeholder for it"
                todo = "plug it in; lsusb; nut-hotplug status"
                yield exam.make_finding("usb", exam.judge_ups(name), message, todo, about=[name])
        elif name in sections:
            is_served = state is not None and state.fresh and bool(state.variables)
            yield from _judge_candidates(exam, name, _find_candidates(exam, name), is_served=is_served)


def _find_candidates(exam: Exam, name: str) -> tuple[UsbDevice, ...]:
    """Return the devices that may be the UPS of a section whose driver is for USB."""
    state, seen = exam.upses.get(name.lower()), exam.seen
    variables = state.variables if state is not None and state.fresh else {}
    return presence.find_candidates(exam.sections[name], seen.devices, seen.usb_ids, variables, seen.release or NEWEST)


def _judge_candidates(exam: Exam, name: str, candidates: Sequence[UsbDevice], is_served: bool) -> Findings:
    """Judge the devices that may be a UPS. A device that can't be told from others is not blamed while upsd has fresh data."""
    if not candidates:
        if not exam.seen.has_usb and is_served:
            yield exam.ok("usb", f"{name}: upsd has fresh data from it, though this host shows no USB bus")
            return
        message = f"{name} is not on the USB bus ({_list_devices(exam)})"
        if is_served:
            message += ", so the data that upsd calls fresh may be old"
        todo = "check its cable and power switch; lsusb; nut-hotplug status"
        yield exam.make_finding("usb", exam.judge_ups(name), message, todo, about=[name])
        return
    missing = presence.explain_missing_node(candidates, exam.seen.container)
    present = [device for device in candidates if device.has_node]
    if missing:
        message = f"{name} is on the bus, but its driver can't use it: {missing}"
        yield exam.make_finding("permissions", exam.judge_ups(name), message, presence.GRANT_NODE, about=[name])
    elif len(candidates) > 1 and is_served:
        yield exam.ok("permissions", f"{name}: upsd has fresh data from it")
    elif all(device.accessible is False for device in present):
        node = present[0].node
        message = f"{name} is on the bus, but its driver can't use {node}: group nut has no write permission"
        todo = f"udevadm trigger --subsystem-match=usb --action=change; ls -l {node}"
        todo = presence.GRANT_RIGHTS if exam.seen.container else todo
        yield exam.make_finding("permissions", exam.judge_ups(name), message, todo, about=[name])
    else:
        usable = [device for device in present if device.accessible is not False]
        if usable[0].accessible is None:
            yield exam.unknown(
                "permissions",
                f"{name}: there is no group nut, so it is unknown whether a driver can use {usable[0].node}",
            )
        else:
            yield exam.ok("permissions", f"{name}: group nut can use {usable[0].node}")
    yield exam.ok("usb", f"{name}: {presence.describe_candidates(candidates)}")


def _list_devices(exam: Exam) -> str:
    """Return which USB devices are there, in words."""
    if not exam.seen.has_usb:
        return "this host has none; a virtual machine needs the UPS passed through to it"
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
            todo = "systemctl reload nut-server; journalctl -u nut-server -n 50"
            yield exam.make_finding("driver", exam.judge_ups(name), message, todo, about=[name, unserved(name)])
        elif not state.fresh:
            why = _FRESH.get(state.error or "", state.error or "its driver has no status yet")
            todo = f"check its cable; journalctl -u {unit} -n 50; {restart_on_mains(unit)}"
            message = f"{name}: {why}{exam.last_words(unit)}{_describe_effect(exam, name)}"
            yield exam.make_finding("driver", exam.judge_ups(name), message, todo, about=[name])
        elif doubt := _doubt_driver(exam, name, state):
            yield doubt
        else:
            yield exam.ok("driver", f"{name}: fresh data from {state.variables.get('driver.name', 'its driver')}")


def _find_plugged(exam: Exam) -> dict[str, UsbDevice]:
    """Return section -> the device on the bus that is, or may be, its UPS."""
    found = {
        name: _find_candidates(exam, name) for name, section in exam.sections.items() if usb_sections.is_usb(section)
    }
    return {name: candidates[0] for name, candidates in found.items() if candidates}


def _doubt_driver(exam: Exam, name: str, state: snapshot.UpsState) -> Finding | None:
    """Return what is wrong with a driver although upsd calls its data fresh: it may serve old data. None if nothing is."""
    section, status = exam.sections[name], " ".join(state.status)
    if state.is_stand_in or "usb" in exam.seen.troubles or not exam.seen.has_usb:
        return None
    unit, seen = driver_unit(name), exam.seen
    error = liveness.find_io_error((entry for entry in seen.journal if entry.unit == unit), seen.now)
    remedy = liveness.compose_remedy(name, state.status, seen.release)
    plugged = _find_plugged(exam)
    loss = liveness.find_loss(name, section, liveness.BusView(seen.devices, seen.opened, seen.claims, plugged), error)
    if loss and name not in plugged:
        # the check "usb" fails
        return exam.note("driver", f"{name}: upsd calls its data fresh ({status}), but {loss.evidence}", remedy)
    if loss:
        return exam.fail("driver", f"{name}: upsd serves old data as fresh ({status}): {loss.evidence}", remedy)
    still = exam.seen.still.get(name, 0.0) if "OB" in state.status else 0.0
    if error or still >= liveness.STILL:
        why = str(error) if error else liveness.describe_stillness(still)
        message = f"{name}: its driver may serve old data ({status}): {why}"
        return exam.warn(
            "driver", message, f"compare `upsc {name}@localhost` with the UPS's display; if it differs: {remedy}"
        )
    return None


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
    "CAL": (OK, "it is calibrating (CAL)", ""),
}


# the steps of an outage, the last first: each implies those after it
_OUTAGE = ("FSD", "LB", "OB")
# the flags that may end the power of a UPS's machines
_AFFECTS_POWER = ("OB", "LB", "OFF", "OVER")


def _judge_flag(exam: Exam, ups: str, flag: str) -> str:
    """Return the verdict for a flag that is a failure of a UPS that powers this host."""
    # the machines of another UPS shut down by themselves when its battery is low
    return exam.judge_ups(ups) if flag != "LB" or exam.feeds.is_powered_by(ups) or not exam.feeds.power else WARNING


def _describe_effect(exam: Exam, ups: str) -> str:
    """Return what the end of a UPS means, as the end of a message; "" if this host simply loses its only power."""
    if not exam.feeds.is_powered_by(ups):
        return f"; it {exam.describe_powered(ups)}" if exam.feeds.power else ""
    others = [name for name in exam.feeds.upses if name.lower() != ups.lower() and _is_good(exam, name)]
    return f"; this host stays up on {' and '.join(others)}" if exam.feeds.is_enough(others) else ""


def _is_good(exam: Exam, ups: str) -> bool:
    """Return whether a UPS gives power, and its battery is not low."""
    state = exam.upses.get(ups.lower())
    return state is not None and state.fresh and not state.is_stand_in and not {"LB", "OFF", "FSD"} & {*state.status}


@check("status", "load")
def check_status(exam: Exam) -> Findings:
    """Check each UPS's status flags and load."""
    for state in exam.upses.values():
        if not state.fresh or state.is_stand_in:
            continue
        outage = [flag for flag in _OUTAGE if flag in state.status]
        flags = [flag for flag in _STATUS if flag in state.status and flag not in outage[1:]]
        for flag in flags:
            verdict, message, todo = _STATUS[flag]
            more = (
                f": {printable(state.variables['ups.alarm'], 80)}"
                if flag == "ALARM" and "ups.alarm" in state.variables
                else ""
            )
            if verdict == FAILURE and flag != "FSD":
                verdict = _judge_flag(exam, state.name, flag)
            left = _battery_left(state.reading) if flag in ("OB", "LB") else ""
            left += _describe_effect(exam, state.name) if flag in _AFFECTS_POWER else ""
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
        if not state.fresh or state.is_stand_in:
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
