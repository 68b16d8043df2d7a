# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is all well? From what was seen on a host (observe.py), and what the inventory says, to findings, and to one table.

Each check is a function of data, by name in CHECKS; docs/doctor.md lists them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from ..base import hostnames
from ..base.clock import stamp
from ..base.systemd import ABSENT, MONITOR, SERVER, WATCHER, Entry, driver
from ..base.text import as_text, one_line, printable
from ..conf import grammar, ups_conf, upsd
from ..conf import upsmon as conf_upsmon
from ..conf.advice import advise
from ..conf.directives import NEWEST
from ..conf.fit import fit_files
from ..deploy import actions
from ..deploy import kits as deploy_kits
from ..net import access, readings, vocabulary
from ..shutdown import gate
from ..shutdown import policy as shutdown_policy
from ..shutdown.flag import SET, spare_of
from ..usb import bus as usb_bus
from ..usb import fingerprint
from ..usb import sections as usb_sections
from . import status as doctor_status
from .findings import FAILURE, NOTE, OK, UNKNOWN, WARNING, Finding
from .observe import File, Seen, Served

DAY = 86400.0
YEAR = 365.25 * DAY
BATTERY_NOTE, BATTERY_WARNING = 3 * YEAR, 5 * YEAR
CERTIFICATE_WARNING = 30 * DAY
LOAD_PERCENT = 80
SKEW_NOTE, SKEW_WARNING = 5.0, 60.0
"""Seconds. A run of the module takes some, so less than that can't be told."""

DEPLOY = "make pve tags=ups limit={host}"
_MODE = 0o640
# what the file system of POWERDOWNFLAG should still take: far more than the flag, as what fills it fills more
LEAST_SPACE, LEAST_FILES = 1 << 20, 100
_TROUBLES = 6  # of the journal, in one finding
# what decides whether, when and how a host goes down; another value there is worse than another text
_GRAVE = ("MONITOR", "SHUTDOWNCMD", "MODE", "MINSUPPLIES", "POWERDOWNFLAG")


@dataclass(frozen=True)
class Machine:
    """A secondary as the inventory has it."""

    name: str
    address: str
    ups: str


@dataclass(frozen=True)
class Expected:
    """What the inventory says of a host. name: its name there.

    files: NUT's files, name -> text. kits: our programs that ought to be there, with their files. digests: path of a program ->
    SHA-256 of what would be installed. plan: what the module shutdown_plan returned; None if it was not asked.
    """

    name: str
    primary: bool
    files: Mapping[str, str] = field(default_factory=dict)
    kits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    clients: tuple[Machine, ...] = ()
    tls: bool = False
    plan: Mapping[str, Any] | None = None


_CHECK_OF = {deploy_kits.SHUTDOWN.name: "gate", deploy_kits.HOTPLUG.name: "hotplug", deploy_kits.ACCESS.name: "access"}
KITS: Mapping[str, deploy_kits.Kit] = {
    kit.name: kit for kit in (deploy_kits.SHUTDOWN, deploy_kits.HOTPLUG, deploy_kits.ACCESS)
}

Found = Iterator[Finding]


class _Look:
    """What all checks of a host have in common."""

    def __init__(self, seen: Seen, expected: Expected) -> None:
        self.seen, self.expected, self.host = seen, expected, expected.name
        fitted = fit_files(expected.files, seen.release).files if seen.release else dict(expected.files)
        self.wanted: Mapping[str, str] = fitted
        self.sections = ups_conf.parse(self.text("ups.conf")).sections
        self.upses = {one.name.lower(): one for one in self.served.report.upses} if self.served else {}

    @property
    def served(self) -> Served | None:
        return self.seen.served if isinstance(self.seen.served, Served) else None

    def text(self, name: str) -> str:
        return self.seen.files[name].text if name in self.seen.files else ""

    def make(self, check: str, verdict: str, words: str, todo: str = "", host: str = "") -> Finding:
        return Finding(
            check, host or self.host, verdict, words, todo.format(host=self.host) if todo == DEPLOY else todo
        )

    def blind(self, check: str, *parts: str) -> Found:
        """Say what could not be looked at."""
        for part in parts:
            if part in self.seen.troubles:
                yield self.make(check, UNKNOWN, f"could not be looked at: {printable(self.seen.troubles[part])}")

    def last_words(self, unit: str) -> str:
        """Return what a unit said last about itself, in brackets."""
        said = [one.words for one in self.seen.journal if one.unit == unit and not doctor_status.is_systemds(one.words)]
        return f" (it said last: {printable(said[-1], 120)})" if said else ""


# NUT and its files


def installed(look: _Look) -> Found:
    """Is NUT there?"""
    lacking = [
        name
        for name in (("upsmon", "upsd") if look.expected.primary else ("upsmon",))
        if name not in look.seen.installed
    ]
    if lacking:
        yield look.make("installed", FAILURE, f"NUT's {' and '.join(lacking)} not installed", DEPLOY)
    elif look.seen.release is None:
        yield look.make("installed", UNKNOWN, "NUT is installed, and does not say its release")
    else:
        yield look.make("installed", OK, f"NUT {_dotted(look.seen.release)}")


def release(look: _Look) -> Found:
    """What is this release known to be bad at, with these files?"""
    if look.seen.release is None:
        return
    advice = advise({name: one.text for name, one in look.seen.files.items()}, look.seen.release)
    for words in advice:
        yield look.make("release", NOTE, words)
    if not advice:
        yield look.make("release", OK, f"nothing is known against NUT {_dotted(look.seen.release)} here")


def files(look: _Look) -> Found:
    """Are NUT's files there, whose they should be, and as the inventory has them?"""
    yield from look.blind("files", "files")
    wrong = False
    for name, text in look.wanted.items():
        file = look.seen.files.get(name)
        if file is None:
            wrong = True
            yield look.make("files", FAILURE, f"/etc/nut/{name} is missing", DEPLOY)
            continue
        loose = _loose(look, file)
        if loose:
            wrong = True
            yield look.make(
                "files",
                FAILURE if "not be read" in loose else WARNING,
                f"/etc/nut/{name} {loose}",
                f"chown root:nut /etc/nut/{name}; chmod 640 /etc/nut/{name}",
            )
        differs = [one for one in _differences(look, name, text) if one != "SHUTDOWNCMD"]
        if differs:
            wrong = True
            grave = any(one in _GRAVE for one in differs)
            words = f"/etc/nut/{name} is not as the inventory has it: {', '.join(differs)}"
            yield look.make("files", FAILURE if grave else WARNING, words, DEPLOY)
    if not wrong and look.wanted and "files" not in look.seen.troubles:
        yield look.make("files", OK, f"{len(look.wanted)} files as the inventory has them")


def _loose(look: _Look, file: File) -> str:
    if look.seen.group is None:
        return ""
    readable = file.mode & 0o040 if file.gid == look.seen.group else file.mode & 0o004
    if not readable:
        return f"can not be read by NUT (mode {file.mode:04o})"
    if (file.mode, file.uid, file.gid) != (_MODE, 0, look.seen.group):
        return f"has mode {file.mode:04o} and owner {file.uid}:{file.gid}, and should have 0640 and root:nut"
    return ""


def _differences(look: _Look, name: str, wanted: str) -> list[str]:
    """Name the directives in which a file differs: never a value, which may be a password."""
    if name == "upsd.users":
        return []  # users() tells it better
    if name == "ups.conf":
        return _section_differences(look, wanted)
    there = look.text(name)
    if name == "nut.conf":
        ours, theirs = (
            {tuple(line.split("=", 1)) for line in text.splitlines() if _told(line)} for text in (wanted, there)
        )
    else:
        ours, theirs = ({line.words for line in grammar.parse(text)} for text in (wanted, there))
    return list(dict.fromkeys(words[0] for words in sorted(ours ^ theirs)))


def _section_differences(look: _Look, wanted: str) -> list[str]:
    """Compare ups.conf. What nut-hotplug adds, pins and found UPSes, is no difference."""
    ours, theirs = ups_conf.parse(wanted), ups_conf.parse(look.text("ups.conf"))
    differs = [key for key, value in ours.settings if (key, value) not in theirs.settings]
    if actions.WANTED in look.seen.files and any(map(ups_conf.is_auto, ours.sections.values())):
        kept = ups_conf.parse(look.seen.files[actions.WANTED].text)
        differs += [
            f"[{name}] (in {actions.WANTED})"
            for name in ours.sections
            if kept.sections.get(name) != ours.sections[name]
        ]
    for name, section in ours.sections.items():
        other = theirs.sections.get(name)
        if other is None:
            differs.append(f"[{name}] is missing")
        elif not usb_sections.is_dummy(other) or usb_sections.is_dummy(section):
            free = ("driver", "port") if ups_conf.is_auto(section) else ()
            differs += [
                f"[{name}] {key}" for key, value in section.keys if (key, value) not in other.keys and key not in free
            ]
    return list(dict.fromkeys(differs))


def _told(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def mode(look: _Look) -> Found:
    """Does MODE let this host do its part?"""
    if "nut.conf" not in look.seen.files:
        return
    found = re.findall(r"^[ \t]*MODE=[\"']?(\w*)", look.text("nut.conf"), re.MULTILINE)
    good = ("netserver", "standalone") if look.expected.primary else ("netclient",)
    if not found or found[-1] not in good:
        words = f"MODE is {found[-1] or 'empty' if found else 'missing'} in /etc/nut/nut.conf, and must be {good[0]}"
        cuts = ". The next reboot may cut the UPS's power" if look.sections and found[-1:] == ["none"] else ""
        yield look.make("mode", FAILURE, words + cuts, DEPLOY)
    else:
        yield look.make("mode", OK, f"MODE={found[-1]}")


def users(look: _Look) -> Found:
    """Does upsd know those who log in, with their passwords? Only that they differ is told."""
    if "upsd.users" not in look.wanted or "upsd.users" not in look.seen.files:
        return
    ours, theirs = upsd.users(look.wanted["upsd.users"]), upsd.users(look.text("upsd.users"))
    wrong = []
    for name, user in ours.items():
        other = theirs.get(name)
        if other is None:
            wrong.append(f"{name} is missing")
        elif other.password != user.password:
            wrong.append(f"{name} has another password than the inventory")
        elif (other.type in upsd.PRIMARY) != (user.type in upsd.PRIMARY) or bool(other.type) != bool(user.type):
            wrong.append(f"{name} is upsmon {other.type or 'nothing'}, and should be {user.type or 'nothing'}")
    extra = [name for name in theirs if name not in ours]
    if wrong:
        yield look.make("users", FAILURE, f"/etc/nut/upsd.users: {'; '.join(wrong)}", DEPLOY)
    if extra:
        words = f"/etc/nut/upsd.users has {', '.join(extra)} besides, who may log in"
        yield look.make("users", WARNING, words, DEPLOY)
    if not wrong and not extra:
        yield look.make("users", OK, f"{len(ours)} users as the inventory has them")


# systemd


def units(look: _Look) -> Found:
    """Does each unit run, and start at boot?"""
    if "units" in look.seen.troubles:
        yield from look.blind("units", "units")
        return
    wanted = [MONITOR, *([SERVER, *map(driver, look.sections)] if look.expected.primary else [])]
    good = []
    for name in wanted:
        problems = list(_unit_problems(look, name))
        yield from problems
        if not problems:
            good.append(name)
    watcher = look.seen.units.get(WATCHER)
    if watcher and (watcher.runs or watcher.enabled == "enabled"):
        words = f"{WATCHER} is enabled: it restarts drivers on its own at each write of ups.conf"
        yield look.make("units", WARNING, words, f"systemctl disable --now {WATCHER}")
    if len(good) == len(wanted):
        yield look.make("units", OK, f"running, and started at boot: {', '.join(good)}")


def _unit_problems(look: _Look, name: str, check: str = "units") -> Found:
    unit = look.seen.units.get(name)
    if unit is None or unit.load == "not-found":
        yield look.make(check, FAILURE, f"there is no unit {name}", DEPLOY)
    elif unit.load == "masked" or unit.enabled.startswith("masked"):
        yield look.make(
            check, FAILURE, f"{name} is masked: it can't be started", f"systemctl unmask {name}; systemctl start {name}"
        )
    elif not unit.runs:
        how = f"{unit.active} ({unit.result})" if unit.result not in ("", "success") else unit.active
        yield look.make(
            check,
            FAILURE,
            f"{name} does not run: {how}{look.last_words(name)}",
            f"journalctl -u {name} -n 50; systemctl reset-failed {name}; systemctl start {name}",
        )
    elif unit.sub == "auto-restart":
        words = f"{name} ends again and again, and systemd restarts it{look.last_words(name)}"
        yield look.make(check, FAILURE, words, f"journalctl -u {name} -n 50")
    elif unit.enabled not in ("enabled", "enabled-runtime", "static", "generated", "alias", "indirect"):
        yield look.make(check, WARNING, f"{name} runs, and is not started at boot", f"systemctl enable {name}")


def restarted(look: _Look) -> Found:
    """Have the daemons read their files as they are now?"""
    good = True
    pairs: list[tuple[str, tuple[str, ...]]] = [(MONITOR, ("upsmon.conf",))]
    if look.expected.primary:
        pairs.append((SERVER, ("upsd.conf", "upsd.users")))
    for name, those in pairs:
        unit = look.seen.units.get(name, ABSENT)
        late = [one for one in those if one in look.seen.files and look.seen.files[one].changed > unit.since + 1]
        if not unit.runs or not unit.since or not late:
            continue
        good = False
        # a comment that changed is no reason to restart anything: then the file is as it should be
        grave = any(_differences(look, one, look.wanted.get(one, "")) for one in late)
        words = f"{', '.join(late)} changed at {stamp(look.seen.files[late[0]].changed)}, after {name} had read it"
        yield look.make(
            "restarted", WARNING if grave else NOTE, words, f"systemctl restart {name}, while on mains" if grave else ""
        )
    if good:
        yield look.make("restarted", OK, "the daemons have read their files as they are")


# The UPS


def usb(look: _Look) -> Found:
    """Is each UPS on the USB bus, and may its driver use it?"""
    if not look.expected.primary:
        return
    if "usb" in look.seen.troubles:
        yield from look.blind("usb", "usb")
        return
    for name, section in look.sections.items():
        if usb_sections.is_dummy(section):
            if "ABSENT" in getattr(look.upses.get(name.lower()), "status", ()):
                yield look.make(
                    "usb",
                    FAILURE,
                    f"{name} is not plugged in; a stand-in is served for it",
                    "plug it in; lsusb; nut-hotplug status",
                )
            continue
        kind = usb_sections.value(section, "driver")
        if kind not in usb_bus.DRIVERS and not kind.endswith("_usb"):
            continue
        those = [
            one
            for one in look.seen.devices
            if not one.hub and fingerprint.means(section, one, look.seen.release or NEWEST)
        ]
        if not fingerprint.telling(section.keys):
            # without keys its driver takes what it knows; which that is only the driver can say
            those = (
                those
                if name.lower() in look.upses and look.upses[name.lower()].fresh
                else [one for one in those if one.hid_power is not False]
            )
        if not those:
            yield look.make(
                "usb",
                FAILURE,
                f"{name} is not on the USB bus ({_bus(look)})",
                "look at its cable and its switch; lsusb; nut-hotplug status",
            )
            continue
        shut = [one for one in those if one.accessible is False]
        if shut:
            node = shut[0].node
            words = f"{name} is on the bus, and its driver may not use {node}: group nut has no right to write"
            yield look.make(
                "permissions", FAILURE, words, f"udevadm trigger --subsystem-match=usb --action=change; ls -l {node}"
            )
        else:
            yield look.make("permissions", OK, f"{name}: the group nut may use {those[0].node}")
        yield look.make("usb", OK, f"{name}: {those[0].ids} {printable(those[0].product or '', 60)}".rstrip())


def _bus(look: _Look) -> str:
    others = [one.ids for one in look.seen.devices if not one.hub]
    return f"there are {', '.join(others)}" if others else "no device is there"


_FRESH = {
    "DATA-STALE": "its driver runs, and hears nothing from it (DATA-STALE)",
    "DRIVER-NOT-CONNECTED": "its driver does not run, or upsd can't reach it (DRIVER-NOT-CONNECTED)",
}


def drivers(look: _Look) -> Found:
    """Does upsd have fresh data of each UPS?"""
    if look.served is None:
        return
    for name in look.sections:
        state = look.upses.get(name.lower())
        unit = driver(name)
        if state is None:
            yield look.make(
                "driver",
                FAILURE,
                f"upsd does not serve {name}, which stands in ups.conf",
                "systemctl reload nut-server; journalctl -u nut-server -n 50",
            )
        elif not state.fresh:
            why = _FRESH.get(state.error or "", state.error or "its driver has no status yet")
            todo = f"journalctl -u {unit} -n 50; is it plugged in? systemctl restart {unit}, while on mains"
            yield look.make("driver", FAILURE, f"{name}: {why}{look.last_words(unit)}", todo)
        else:
            yield look.make("driver", OK, f"{name}: fresh data, by {state.variables.get('driver.name', 'its driver')}")


_STATUS = {
    "FSD": (FAILURE, "the shutdown has begun (FSD)", "nut-shutdown status"),
    "LB": (FAILURE, "its battery is low (LB)", "nut-shutdown status; bring the mains back"),
    "OVER": (FAILURE, "it is overloaded (OVER)", "take machines off it"),
    "OFF": (FAILURE, "its outlets are off (OFF)", "switch it on"),
    "OB": (WARNING, "it is on battery (OB)", "look at the mains and at its plug; upsc {name}@localhost"),
    "RB": (WARNING, "it wants a new battery (RB)", "change the battery"),
    "BYPASS": (WARNING, "it is bypassed (BYPASS): a power cut takes all at once", "switch the bypass off"),
    "ALARM": (WARNING, "it has an alarm", "upsc {name}@localhost ups.alarm"),
    "CAL": (NOTE, "it calibrates (CAL)", ""),
}


def status(look: _Look) -> Found:
    """What do the UPSes say of themselves?"""
    for state in look.upses.values():
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
            left = _left(state.reading) if flag in ("OB", "LB") else ""
            yield look.make("status", verdict, f"{state.name}: {words}{more}{left}", todo.format(name=state.name))
        if not flags:
            yield look.make("status", OK, f"{state.name}: {doctor_status.state_words(state)}{_left(state.reading)}")
        load = readings.quantity(state.variables.get("ups.load"))
        if load is not None and load > LOAD_PERCENT and "OVER" not in state.status:
            yield look.make(
                "load",
                WARNING,
                f"{state.name} is loaded with {load:g} %, and more than {LOAD_PERCENT} % ages it and leaves it little time",
                "take machines off it",
            )
        elif load is not None:
            yield look.make("load", OK, f"{state.name}: {load:g} %")


def _left(reading: readings.Reading) -> str:
    charge, runtime = reading.charge, reading.runtime
    words = ([f"{charge:g} %"] if charge is not None else []) + ([f"{runtime:g} s left"] if runtime is not None else [])
    return f", {', '.join(words)}" if words else ""


def battery(look: _Look) -> Found:
    """How old is the battery?"""
    for state in look.upses.values():
        if not state.fresh or "ABSENT" in state.status:
            continue
        told = next((state.variables[name] for name in doctor_status.DATES if state.variables.get(name)), "")
        made = doctor_status.date(told)
        if made is None:
            words = (
                f"{state.name}: its date {printable(told, 30)!r} is none"
                if told
                else f"{state.name} does not say how old its battery is"
            )
            yield look.make("battery", OK, words)
            continue
        age = look.seen.now - made
        words = f"{state.name}: its battery is of {told}, {max(age, 0) / YEAR:.1f} years old"
        verdict = WARNING if age > BATTERY_WARNING else NOTE if age > BATTERY_NOTE else OK
        yield look.make(
            "battery",
            verdict,
            words,
            {
                WARNING: "change it: after 5 years it may fail in an outage",
                NOTE: "test it (ups_command: test.battery.start.quick)",
            }.get(verdict, ""),
        )


def self_test(look: _Look) -> Found:
    """What came of its last self-test?"""
    for state in look.upses.values():
        result = state.variables.get("ups.test.result", "") if state.fresh else ""
        if not result:
            continue
        when = state.variables.get("ups.test.date", "")
        words = f"{state.name}: {printable(result, 60)}{f', {printable(when, 30)}' if when else ''}"
        bad = vocabulary.judge(result) == vocabulary.FAILED
        yield look.make(
            "self-test",
            WARNING if bad else OK,
            words,
            "test it again; if it fails again, change the battery" if bad else "",
        )


# upsd, and who is logged in


def server(look: _Look) -> Found:
    """Does upsd answer, here and to whoever watches it from here, and does it know the UPS?"""
    if isinstance(look.seen.served, str):
        yield look.make(
            "upsd",
            FAILURE,
            printable(look.seen.served),
            "systemctl status nut-server; ss -tlnp | grep 3493; journalctl -u nut-server -n 50",
        )
    elif look.served:
        yield look.make(
            "upsd",
            OK,
            f"upsd {look.served.report.version} answers, and serves {', '.join(one.name for one in look.served.report.upses) or 'no UPS'}",
        )
    if look.expected.primary and isinstance(look.seen.served, str):
        return
    for system, said in look.seen.watched.items():
        if isinstance(said, str):
            place = system.partition("@")[2]
            todo = f"on {place}: ss -tlnp | grep 3493, and its firewall (pve-firewall status; iptables -S; nft list ruleset)"
            yield look.make("port", FAILURE, f"{system} can't be asked from here: {printable(said)}", todo)
            continue
        stale = [f"{name}: {why}" for name, why in said.report.stale]
        if stale and not look.expected.primary:
            yield look.make(
                "port",
                WARNING,
                f"{system} can be reached, and has no fresh data: {'; '.join(stale)}",
                "see the primary",
            )
        else:
            yield look.make("port", OK, f"{system} can be reached from here")


HELPED_DAYS = 7
_PEER_TODO = (
    "find the program there that does it (ss -tnp dport = :3493); a machine that is not a secondary needs no access "
    "to upsd (nut_server_allow)"
)
_HANG_TODO = "journalctl -u nut-watch -u nut-server; `nut-shutdown status` has the last events"


def helped(look: _Look) -> Found:
    """Did upsd need help lately: did somebody block it, or was it restarted because it hung?"""
    if not look.expected.primary:
        return
    recent = [event for event in look.seen.helped if look.seen.now - event.last < HELPED_DAYS * DAY]
    for event in recent[-_TROUBLES:]:
        yield look.make("upsd-watch", WARNING, str(event), _PEER_TODO if event.address else _HANG_TODO)
    if not recent:
        yield look.make("upsd-watch", OK, f"nobody blocked upsd in the last {HELPED_DAYS} days, and it did not hang")


def listening(look: _Look) -> Found:
    """Does upsd listen where it should, and nowhere else?"""
    if not look.expected.primary:
        return
    if "sockets" in look.seen.troubles:
        yield from look.blind("listening", "sockets")
        return
    conf = look.wanted.get("upsd.conf", look.text("upsd.conf"))
    wanted = upsd.listening(conf) or [("localhost", upsd.PORT)]
    unit = look.seen.units.get(SERVER)
    if unit and not unit.runs:
        return  # units() says so
    upsds = [(one.address, one.port) for one in look.seen.sockets if one.process == "upsd"]
    # a container may not look into other users' processes
    there = upsds or [(one.address, one.port) for one in look.seen.sockets]
    missing = [place for place in wanted if not any(_covers(one, place) for one in there)]
    extra = [one for one in upsds if not any(_covers(one, place) for place in wanted)]
    if missing:
        where = ", ".join(hostnames.join_host(*one) for one in upsds) or "nowhere"
        words = (
            f"upsd should listen on {', '.join(hostnames.join_host(*one) for one in missing)}, and listens on {where}"
        )
        todo = f"ss -tlnp | grep upsd; {DEPLOY.format(host=look.host)}; systemctl restart nut-server (LISTEN counts at its start only)"
        yield look.make("listening", FAILURE, words, todo)
    elif extra:
        words = (
            f"upsd listens on {', '.join(hostnames.join_host(*one) for one in extra)}, which the inventory does not say"
        )
        yield look.make(
            "listening",
            WARNING,
            words,
            f"{DEPLOY.format(host=look.host)}; systemctl restart nut-server, while on mains",
        )
    else:
        yield look.make(
            "listening", OK, f"upsd listens on {', '.join(hostnames.join_host(*one) for one in upsds or wanted)}"
        )


def _covers(there: tuple[str, int], wanted: tuple[str, int]) -> bool:
    """Say whether a socket is one that a LISTEN line asks for. Of a name any address may be it."""
    (address, port), (name, number) = there, wanted
    if port != number:
        return False
    if name == "*":
        return address in ("0.0.0.0", "::")
    if name == "localhost":
        return address in ("127.0.0.1", "::1")
    if re.fullmatch(r"[0-9.]+|.*:.*", name):
        return (
            hostnames.normal_address(address) == hostnames.normal_address(name)
            if name not in ("0.0.0.0", "::")
            else address == name
        )
    return True


def shielded(look: _Look) -> Found:
    """Does Proxmox VE's firewall let the secondaries in?"""
    if not look.expected.primary:
        return
    yield from look.blind("firewall", "firewall")
    if look.seen.firewall:
        words, *rest = look.seen.firewall
        yield look.make("firewall", FAILURE, words, " ".join(rest) or "nut_server_firewall: rules lets the role do it")
    elif look.seen.firewall is not None:
        yield look.make("firewall", OK, "Proxmox VE's firewall lets the secondaries in, or is off")


def limited(look: _Look) -> Found:
    """Does the host refuse those who need not connect to upsd, and let in those who must?"""
    if not look.expected.primary or not upsd.is_reachable(look.text("upsd.conf")):
        return
    if "access" in look.seen.troubles:
        yield from look.blind("access", "access")
        return
    if deploy_kits.ACCESS.name not in look.expected.kits:
        if look.seen.access is None:
            words = "any machine on the network may connect to upsd, and blocking upsd takes no login"
            yield look.make(
                "access", NOTE, words, "nut_server_allow without `any`: then only the secondaries and what it lists"
            )
        return
    table = look.seen.own.get(deploy_kits.ACCESS.places[deploy_kits.ACCESS_TABLE].path)
    if table is None:
        return  # the_gate() says so
    problems = list(_table_problems(look, table.text))
    yield from problems
    refusals = access.explain_refusals(look.seen.access)
    if refusals:
        words, _unused, todo = refusals.partition(". ")
        yield look.make("access", NOTE, words, todo)
    elif not problems:
        names = [source.name for source in access.known_sources(table.text)]
        yield look.make(
            "access",
            OK,
            f"may connect to upsd: this host, {', '.join(names) or 'nobody else'}",
        )


def _table_problems(look: _Look, text: str) -> Found:
    difference = access.find_difference(look.seen.access, text)
    if difference:
        words = f"who may connect to upsd is not limited as /etc/nut/access.nft has it: {difference}"
        todo = f"journalctl -u {deploy_kits.ACCESS_UNIT} -n 20; systemctl restart {deploy_kits.ACCESS_UNIT}"
        yield look.make("access", FAILURE, words, todo)
    ports = {port for _unused, port in upsd.listening(look.text("upsd.conf"))}
    # one more is that which upsd had before the last run
    open_ports = sorted(ports - access.known_ports(text))
    if open_ports:
        words = f"upsd listens on port {', '.join(map(str, open_ports))}, which /etc/nut/access.nft does not cover"
        yield look.make("access", FAILURE, words, DEPLOY)
    networks = access.collapse(one for those in access.known_sources(text).values() for one in those)
    for client in look.expected.clients:
        those = look.seen.addresses.get(client.name, "its address was not looked up")
        if isinstance(those, str):
            continue  # logins() says so
        refused = [one for one in those if not access.is_allowed(one, networks)]
        if refused:
            words = f"{client.name} has the address {', '.join(refused)}, which /etc/nut/access.nft does not allow"
            yield look.make("access", FAILURE if len(refused) == len(those) else WARNING, words, DEPLOY, client.name)


def logins(look: _Look) -> Found:
    """Is everyone logged in who should be? Findings about a secondary have its name."""
    if look.expected.primary:
        if look.served is None:
            for one in look.expected.clients:
                yield look.make(
                    "login",
                    FAILURE,
                    f"upsd on {look.host} does not answer, so {one.name} can't be logged in",
                    f"see {look.host}",
                    one.name,
                )
            return
        yield from _expected_logins(look, look.served)
    refused = _refused(look.seen.journal)
    for system, said in look.seen.watched.items():
        if isinstance(said, str) or (look.expected.primary and not said.report.upses):
            continue
        clients = {hostnames.normal_address(one) for state in said.report.upses for one in state.clients}
        if hostnames.normal_address(said.here) in clients:
            yield look.make("login", OK, f"upsmon is logged in to {system}")
        else:
            why = f"; upsd refuses its password ({refused})" if refused else ""
            todo = f"journalctl -u {MONITOR} -n 50; {DEPLOY.format(host=look.host)}"
            yield look.make(
                "login", FAILURE, f"upsmon of this host ({said.here}) is not logged in to {system}{why}", todo
            )


def _expected_logins(look: _Look, served: Served) -> Found:
    known = {hostnames.LOOPBACK, hostnames.normal_address(served.here)}
    for one in look.expected.clients:
        state = look.upses.get(one.ups.lower())
        those = look.seen.addresses.get(one.name, "its address was not looked up")
        if state is None:
            yield look.make(
                "login",
                FAILURE,
                f"upsd on {look.host} does not serve {one.ups}, which {one.name} watches",
                DEPLOY,
                one.name,
            )
            continue
        if isinstance(those, str):
            yield look.make(
                "login",
                UNKNOWN,
                f"seen from {look.host}: {those}",
                "set nut_client_address to the address from which it comes",
                one.name,
            )
            continue
        known.update(those)
        clients = {hostnames.normal_address(each) for each in state.clients}
        if clients & set(those):
            yield look.make("login", OK, f"logged in to {one.ups} on {look.host}", "", one.name)
        else:
            there = ", ".join(sorted(clients)) or "nobody"
            refusals = access.explain_refusals(look.seen.access)
            words = f"not logged in to {one.ups} on {look.host}, where {there} is. It would not be told of a power cut"
            words += f". Addresses {refusals}" if refusals else ""
            todo = (
                f"is it on, and its UPS service? Can it reach {look.host} (upsc {one.ups}@{look.host} there)? Is its password right "
                f"(journalctl -u nut-server)? {DEPLOY.format(host=one.name)}"
            )
            yield look.make("login", FAILURE, words, todo, one.name)
    others = sorted({hostnames.normal_address(each) for state in look.upses.values() for each in state.clients} - known)
    if others:
        yield look.make(
            "strangers",
            NOTE,
            f"logged in, and not in the inventory: {', '.join(others)}. HOSTSYNC is waited for each",
            "put it into the inventory, or stop its upsmon",
        )
    else:
        yield look.make("strangers", OK, "nobody is logged in who is not in the inventory")


def _refused(journal: Sequence[Entry]) -> str:
    found = [one.words for one in journal if "ACCESS-DENIED" in one.words]
    return printable(found[-1], 80) if found else ""


# upsmon, and the order of the shutdown


def upsmon(look: _Look) -> Found:
    """Is upsmon what it should be, and does it run as it should?"""
    watched = conf_upsmon.monitors(look.text("upsmon.conf"))
    good = upsd.PRIMARY if look.expected.primary else upsd.SECONDARY
    # one with power value 0 is only watched
    own = [
        one
        for one in watched
        if one.power and (not look.expected.primary or one.ups.lower() in {name.lower() for name in look.sections})
    ]
    wrong = [f"{one.system} as {one.type}" for one in own if one.type not in good]
    if not own:
        yield look.make("upsmon", FAILURE, "upsmon.conf watches no UPS that feeds this host", DEPLOY)
    elif wrong:
        words = f"upsmon.conf has {', '.join(wrong)}, and must have {good[0]}"
        effect = ": this host would go down first" if look.expected.primary else ": this host would not be waited for"
        yield look.make("upsmon", FAILURE, words + effect, DEPLOY)
    else:
        yield look.make("upsmon", OK, f"{good[0]} of {', '.join(one.system for one in own)}")
    users_of = {one.user for one in look.seen.processes if one.name == "upsmon"}
    wanted = grammar.directive(look.text("upsmon.conf"), "RUN_AS_USER") or "nut"
    if users_of and wanted != "root" and wanted not in users_of:
        yield look.make(
            "upsmon",
            WARNING,
            f"upsmon runs as {', '.join(sorted(users_of))}, and should as {wanted}",
            f"systemctl restart {MONITOR}, while on mains",
        )


def shutdowncmd(look: _Look) -> Found:
    """Does upsmon run what it should at the end?"""
    if "upsmon.conf" not in look.seen.files:
        return
    there = grammar.directive(look.text("upsmon.conf"), "SHUTDOWNCMD")
    wanted = grammar.directive(look.wanted.get("upsmon.conf", ""), "SHUTDOWNCMD")
    if not there:
        yield look.make("shutdowncmd", FAILURE, "upsmon.conf has no SHUTDOWNCMD: this host would not go down", DEPLOY)
    elif wanted is not None and there != wanted:
        yield look.make(
            "shutdowncmd",
            FAILURE,
            f"SHUTDOWNCMD is {printable(there, 100)!r}, and the inventory has {printable(wanted, 100)!r}",
            DEPLOY,
        )
    else:
        yield look.make("shutdowncmd", OK, printable(there, 100))


def the_gate(look: _Look) -> Found:
    """Are nut-shutdown, nut-hotplug and nut-access there, current, and able to run?"""
    for name, texts in look.expected.kits.items():
        kit = KITS[name]
        check = _CHECK_OF[name]
        tag = "hotplug" if kit is deploy_kits.HOTPLUG else "ups"
        todo = f"make pve tags={tag} limit={look.host}"
        before: list[Finding] = []
        if not {kit.program, *(place.path for place in kit.places.values())} & set(look.seen.own):
            # one who deploys by tags has none of it; without it no UPS is lost, as long as none comes or goes
            verdict = WARNING if kit is deploy_kits.HOTPLUG else FAILURE
            yield look.make(check, verdict, f"{kit.name} is not installed, and the inventory has it", todo)
            continue
        program = look.seen.own.get(kit.program)
        if program is None:
            before.append(look.make(check, FAILURE, f"/{kit.program} is missing", todo))
        elif not program.mode & 0o100:
            before.append(
                look.make(
                    check,
                    FAILURE,
                    f"/{kit.program} can't be run (mode {program.mode:04o})",
                    f"chmod 755 /{kit.program}",
                )
            )
        elif program.digest != look.expected.digests.get(kit.program, program.digest):
            before.append(
                look.make(check, WARNING, f"/{kit.program} is not the one that this collection installs", todo)
            )
        for each, text in texts.items():
            place = kit.places[each]
            file = look.seen.own.get(place.path)
            if text and file is None and each in kit.sandboxes and each in look.seen.refused:
                why = printable(look.seen.refused[each], 200)
                before.append(look.make(check, NOTE, why, f"{kit.remedy}; {todo}"))
            elif text and file is None:
                before.append(look.make(check, FAILURE, f"/{place.path} is missing", todo))
            elif file is not None and file.text != text and not (each == "shutdown.json" and _broken(file.text)):
                words = (
                    f"/{place.path} is not as the inventory has it"
                    if text
                    else f"/{place.path} is there, and should not be"
                )
                before.append(look.make(check, WARNING, words, todo))
        before += list(_kit_units(look, kit, texts, check))
        yield from before
        if not before:
            yield look.make(
                check, OK, f"/{kit.program} and what belongs to it are there, as this collection installs them"
            )


def _kit_units(look: _Look, kit: deploy_kits.Kit, texts: Mapping[str, str], check: str) -> Found:
    unit = look.seen.units.get(kit.service)
    if unit and unit.load == "masked":
        yield look.make(
            check, FAILURE, f"{kit.service} is masked: it can't be started", f"systemctl unmask {kit.service}"
        )
    elif unit and unit.load in ("error", "bad-setting"):
        yield look.make(
            check, FAILURE, f"systemd can't load {kit.service} ({unit.load})", f"systemd-analyze verify {kit.service}"
        )
    elif unit and unit.load == "not-found" and f"etc/systemd/system/{kit.service}" in look.seen.own:
        yield look.make(check, FAILURE, f"systemd does not know {kit.service} yet", "systemctl daemon-reload")
    elif unit and unit.active == "failed":
        yield look.make(
            check,
            WARNING,
            f"{kit.service} failed when it ran last{look.last_words(kit.service)}",
            f"journalctl -u {kit.service} -n 50",
        )
    for name in (*kit.standing, *kit.helpers):
        if texts.get(name):
            yield from _unit_problems(look, name, check)


def _broken(text: str) -> str:
    """Say what is wrong with a policy of the gate, "" if it is right."""
    try:
        shutdown_policy.read_stages(shutdown_policy.read_policy(text.encode("utf-8", "surrogateescape")).stages)
    except shutdown_policy.PolicyError as error:
        return str(error).splitlines()[0]
    return ""


def _is_gated(look: _Look) -> bool:
    """Return whether upsmon leaves the shutdown to the gate. Its program is there without that, too: for stages, and for upsd."""
    return deploy_kits.GATE in (grammar.directive(look.text("upsmon.conf"), "SHUTDOWNCMD") or "")


def policy(look: _Look) -> Found:
    """Is the gate's policy one, and does it know where everybody is?"""
    if deploy_kits.SHUTDOWN.name not in look.expected.kits:
        return
    file = look.seen.own.get(deploy_kits.SHUTDOWN.places["shutdown.json"].path)
    if file is None:
        return
    wrong = _broken(file.text)
    if wrong:
        yield look.make(
            "policy",
            FAILURE,
            f"/etc/nut/shutdown.json can't be used: {printable(wrong, 150)}",
            "nut-shutdown check; " + DEPLOY.format(host=look.host),
        )
        return
    if not _is_gated(look):
        yield look.make("policy", OK, "it can be used; SHUTDOWNCMD waits for nobody")
        return
    known = shutdown_policy.read_policy(file.text.encode("utf-8", "surrogateescape"))
    names = {one.name: one.address for one in look.expected.clients}
    blind = [f"{name} ({address})" for name, address in names.items() if isinstance(look.seen.addresses.get(name), str)]
    if blind:
        yield look.make(
            "policy",
            WARNING,
            f"no address is known of {', '.join(blind)}: its end would not be seen, and waited for as long as it may take",
            "give addresses, or mend the name server; then nut-shutdown refresh",
        )
    else:
        yield look.make(
            "policy",
            OK,
            f"waits for {', '.join(one.name for one in known.machines) or 'nobody'}, {known.longest:g} s at most",
        )


def killpower(look: _Look) -> Found:
    """Would the next reboot cut the UPS's power?"""
    named = grammar.directive(look.text("upsmon.conf"), "POWERDOWNFLAG")
    service = look.seen.units.get(deploy_kits.GATE)
    going = (service is not None and service.active in ("active", "activating")) or any(
        "FSD" in one.status for one in look.upses.values()
    )
    stale = False
    for path, since in look.seen.flags.items():
        stale = True
        if going:
            yield look.make("killpower", NOTE, f"{path} is there: a shutdown is going on")
        elif path == named:
            yield look.make(
                "killpower",
                FAILURE,
                f"{path} is there since {stamp(since)}, and no shutdown is going on: the next reboot cuts the UPS's power",
                f"rm {shlex.quote(path)}",
            )
        else:
            yield look.make(
                "killpower", WARNING, f"{path} is there since {stamp(since)}, left by an earlier shutdown", f"rm {path}"
            )
    if not stale and named:
        yield look.make("killpower", OK, f"{named} is not there")


def cut(look: _Look) -> Found:
    """Will the UPS be told to cut the power, even if there is no space when it matters?"""
    yield from look.blind("cut", "cut")
    seen = look.seen.cut
    if seen is None:
        return
    folder, good = seen.path.rpartition("/")[0] or "/", True
    if deploy_kits.SHUTDOWN.name in look.expected.kits and seen.spare != SET:
        good = False
        words = f"the spare flag {spare_of(seen.path)} is not usable ({seen.spare}): with a full {folder} the UPS might not cut the power"
        yield look.make(
            "cut",
            WARNING,
            words,
            f"systemd-tmpfiles --create /{deploy_kits.SHUTDOWN.places[deploy_kits.TMPFILES].path}",
        )
    if seen.space < LEAST_SPACE or (seen.files is not None and seen.files < LEAST_FILES):
        good = False
        files = "" if seen.files is None else f" and {seen.files} files"
        words = f"the file system of {folder}, where {seen.path} is written, has room for only {seen.space // 1024} KiB{files}"
        yield look.make("cut", WARNING, words, f"df -h {folder}; df -i {folder}; du -xah {folder} | sort -h | tail")
    if good:
        yield look.make("cut", OK, f"there is space for {seen.path}, and a spare of it")


def trusted(look: _Look) -> Found:
    """Can others than root change what root believes and runs?"""
    yield from look.blind("trust", "trust")
    for path, why in look.seen.untrusted.items():
        words = f"{path}: {why}, and root trusts and runs what is there"
        yield look.make(
            "trust", FAILURE, words, f"chown root {shlex.quote(path)}; chmod go-w {shlex.quote(path)}; make pve"
        )
    if not look.seen.untrusted and "trust" not in look.seen.troubles:
        yield look.make("trust", OK, "root alone can change what root believes and runs")


def last_shutdown(look: _Look) -> Found:
    """How did the last shutdown go, and did it end?"""
    if deploy_kits.SHUTDOWN.name not in look.expected.kits or not _is_gated(look):
        return
    state, service = look.seen.gate, look.seen.units.get(deploy_kits.GATE)
    if state is not None and not state.get("ended") and not (service and service.active in ("active", "activating")):
        yield look.make(
            "last-shutdown",
            NOTE,
            "/run/nut-shutdown/gate.json is of a wait that did not come to its end; it does not count any more",
            "nut-shutdown status",
        )
    last = look.seen.last
    if last is None:
        yield look.make("last-shutdown", OK, "there was none yet")
        return
    try:
        began, rule, reason = stamp(float(last["began"])), last["rule"], str(last["reason"])
        late = [str(one["name"]) for one in last["hosts"] if one["down"] is None]
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        yield look.make("last-shutdown", NOTE, "its report (/var/lib/nut-shutdown/last.json) can't be understood")
        return
    what = (
        "the last shutdown" if last.get("mode") == "gate" else f"the last wait ({printable(str(last.get('mode')), 20)})"
    )
    if rule in (gate.DOWN, gate.ASSUMED) and not late:
        yield look.make("last-shutdown", OK, f"{what}, {began}: all were down")
    else:
        words = f"{what}, {began}, did not end well: {printable(reason, 120) if rule else 'it has no end'}"
        yield look.make("last-shutdown", WARNING, words, "nut-shutdown status; make plan")


def plan(look: _Look) -> Found:
    """Does the battery last for the shutdown as it is planned?"""
    planned = look.expected.plan
    if planned is None:
        return
    made = planned.get("plan")
    if not isinstance(made, Mapping):
        yield look.make(
            "plan",
            UNKNOWN,
            f"the shutdown could not be planned: {printable(str(planned.get('msg') or 'no answer'))}",
            "make plan",
        )
        return
    wrong = [one for one in made.get("constraints", ()) if one.get("holds") is False]
    remedies = "; ".join(dict.fromkeys(str(one["remedy"]) for one in wrong if one.get("remedy")))
    words = str(made.get("verdict", ""))
    if planned.get("holds") is None:
        # a UPS that says nothing is told of elsewhere
        silent = not look.upses or not all(one.fresh for one in look.upses.values())
        yield look.make("plan", NOTE if silent else UNKNOWN, words, "make plan")
    elif planned["holds"]:
        yield look.make("plan", OK, words)
    else:
        # as the role's own default of nut_server_plan_enforce has it
        verdict = NOTE if planned.get("feasible") else FAILURE
        yield look.make("plan", verdict, words, f"make plan; {remedies}" if remedies else "make plan")


# TLS, clock, journal


def tls(look: _Look) -> Found:
    """Can the secondaries trust upsd, and for how long?"""
    if not look.expected.tls:
        return
    if look.seen.tls is None:
        return
    if look.seen.tls.trouble:
        yield look.make("tls", FAILURE, printable(look.seen.tls.trouble), DEPLOY)
        return
    left = look.seen.tls.ends - look.seen.now
    words = f"{look.seen.tls.version}; its certificate is good for {left / DAY:.0f} days more"
    if left <= 0:
        yield look.make("tls", FAILURE, "upsd's certificate has expired: nobody can log in", DEPLOY)
    else:
        yield look.make(
            "tls", WARNING if left < CERTIFICATE_WARNING else OK, words, DEPLOY if left < CERTIFICATE_WARNING else ""
        )


def clock(look: _Look) -> Found:
    """Does something keep the clock right?"""
    yield from look.blind("clock", "clock")
    if look.seen.synchronized is False:
        yield look.make(
            "clock",
            NOTE,
            "nothing keeps the clock right: the kernel calls it not synchronized",
            "systemctl status chrony systemd-timesyncd",
        )
    elif look.seen.synchronized:
        yield look.make("clock", OK, "synchronized")


def skew(host: str, ahead: float, unsure: float) -> Finding:
    """Judge how far a host's clock is ahead of the one where Ansible runs. unsure: seconds that it may be more or less."""
    off = max(abs(ahead) - unsure, 0.0)
    words = f"its clock is {off:.0f} s {'ahead of' if ahead > 0 else 'behind'} the one where Ansible runs"
    if off <= SKEW_NOTE:
        return Finding("skew", host, OK, f"its clock is right, as far as can be told ({max(unsure, 0.1):.1f} s)")
    return Finding(
        "skew", host, WARNING if off > SKEW_WARNING else NOTE, words, "systemctl status chrony systemd-timesyncd"
    )


def journal(look: _Look) -> Found:
    """What went wrong in the last day?"""
    yield from look.blind("journal", "journal")
    troubles = doctor_status.troubles(look.seen.journal)
    said = [
        f"{words} ({f'{times} times, last' if times > 1 else 'once,'} {stamp(last)})" for words, times, last in troubles
    ]
    if said:
        more = f"; and {len(said) - _TROUBLES} more" if len(said) > _TROUBLES else ""
        yield look.make("journal", NOTE, "; ".join(said[:_TROUBLES]) + more, "journalctl -u 'nut-*' -S -1d")
    if not troubles and "journal" not in look.seen.troubles:
        yield look.make("journal", OK, "no trouble in the last day")


Check = Callable[[_Look], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    installed, release, mode, files, users, units, restarted, usb, drivers, status, battery, self_test, server, helped, listening, shielded,
    limited, logins, upsmon, shutdowncmd, the_gate, policy, killpower, cut, trusted, last_shutdown, plan, tls, clock, journal,
)  # fmt: skip


def examine(seen: Seen, expected: Expected) -> list[Finding]:
    """Judge a host. Raises nothing: a check that fails itself says so."""
    look = _Look(seen, expected)
    first = list(installed(look))
    if any(one.verdict == FAILURE for one in first):
        return first
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(look)
        except Exception as error:
            words = f"the check itself failed: {type(error).__name__}: {printable(str(error))}"
            found.append(
                Finding(
                    check.__name__, expected.name, UNKNOWN, words, "this is a mistake in homelab.nut: please report it"
                )
            )
    return found


def truenas(host: str, result: Mapping[str, Any]) -> list[Finding]:
    """Judge TrueNAS by what the module truenas_ups would do to it. Its login is seen on the primary."""
    if result.get("skipped"):
        return [Finding("settings", host, UNKNOWN, "TrueNAS was not asked")]
    if result.get("failed") or result.get("unreachable"):
        return [
            Finding(
                "settings",
                host,
                UNKNOWN,
                f"TrueNAS can't be asked: {printable(as_text(result.get('msg') or 'no answer'), 300)}",
                "see docs/truenas.md, Troubles",
            )
        ]
    done = [str(one) for one in result.get("actions", ())]
    sets = [one for one in done if one.startswith("set ")]
    other = [one for one in done if not one.startswith("set ")]
    todo = f"make pve tags=ups limit={host}"
    found = []
    if sets:
        fields = sets[0].removeprefix("set ").partition(";")[0]
        found.append(
            Finding("settings", host, FAILURE, f"its UPS settings are not as the inventory has them: {fields}", todo)
        )
    else:
        found.append(
            Finding(
                "settings",
                host,
                OK,
                f"as the inventory has them (TrueNAS {result.get('version') or 'of an unknown release'})",
            )
        )
    if other:
        lacks = [
            {"started": "does not run", "enabled": "does not start at boot"}.get(one.split()[0], one) for one in other
        ]
        grave = any(one.startswith("started") for one in other)
        found.append(
            Finding("service", host, FAILURE if grave else WARNING, f"its UPS service {' and '.join(lacks)}", todo)
        )
    else:
        found.append(Finding("service", host, OK, "its UPS service runs, and starts at boot"))
    return found


def seen_from(primary: str, host: str, result: Mapping[str, Any]) -> list[Finding]:
    """Judge a secondary's login by what the module ups_info said on its primary, where that is not looked at itself."""
    if result.get("failed") or result.get("unreachable") or "missing_clients" not in result:
        why = printable(as_text(result.get("msg") or "it is not in this run"), 200)
        return [Finding("login", host, UNKNOWN, f"not looked at: {primary} can't be asked ({why})")]
    if result["missing_clients"]:
        return [
            Finding(
                "login",
                host,
                FAILURE,
                f"not logged in on {primary}. It would not be told of a power cut",
                f"make doctor limit={primary},{host}",
            )
        ]
    return [Finding("login", host, OK, f"logged in on {primary}")]


def unexamined(host: str, result: Mapping[str, Any] | None) -> Finding:
    """Say why a host could not be looked at."""
    told = printable(one_line(as_text((result or {}).get("msg") or "no answer")), 300)
    if (result or {}).get("unreachable") or result is None:
        return Finding("reachable", host, FAILURE, f"can't be reached: {told}", f"is it on? ansible -m ping {host}")
    if re.search(r"python\S*: (?:not found|No such file)|interpreter", told):
        return Finding("python", host, FAILURE, f"has no Python that Ansible can use: {told}", "apt install python3")
    return Finding("reachable", host, FAILURE, f"could not be looked at: {told}", "make doctor args=-vvv")


def _dotted(number: Iterable[int]) -> str:
    return ".".join(map(str, number))
