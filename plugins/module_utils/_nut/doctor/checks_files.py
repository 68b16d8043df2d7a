# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's files and daemons: installed, current, running, and with the files as they are now."""

from __future__ import annotations

import re

from ..base.clock import format_time
from ..base.systemd import ABSENT, MONITOR, SERVER, WATCHER, driver_unit
from ..conf import grammar, ups_conf, upsd
from ..conf.advice import list_advice
from ..conf.release import format_release
from ..deploy import actions
from ..usb import sections as usb_sections
from .exam import DEPLOY, Exam, Findings, Registry
from .findings import FAILURE, NOTE, WARNING
from .observe import File

check = Registry()


_MODE = 0o640
# what decides whether, when and how a host goes down; another value there is worse than another text
_GRAVE = ("MONITOR", "SHUTDOWNCMD", "MODE", "MINSUPPLIES", "POWERDOWNFLAG")


@check("installed")
def check_installed(exam: Exam) -> Findings:
    """Is NUT there?"""
    lacking = [
        name
        for name in (("upsmon", "upsd") if exam.expected.primary else ("upsmon",))
        if name not in exam.seen.installed
    ]
    if lacking:
        yield exam.fail("installed", f"NUT's {' and '.join(lacking)} not installed", DEPLOY)
    elif exam.seen.release is None:
        yield exam.unknown("installed", "NUT is installed, and does not say its release")
    else:
        yield exam.ok("installed", f"NUT {format_release(exam.seen.release)}")


@check("release")
def check_release(exam: Exam) -> Findings:
    """What is this release known to be bad at, with these files?"""
    if exam.seen.release is None:
        return
    advice = list_advice(exam.files, exam.seen.release)
    for words in advice:
        yield exam.note("release", words)
    if not advice:
        yield exam.ok("release", f"nothing is known against NUT {format_release(exam.seen.release)} here")


@check("files")
def check_files(exam: Exam) -> Findings:
    """Are NUT's files there, whose they should be, and as the inventory has them?"""
    yield from exam.report_unseen("files", "files")
    wrong = False
    for name, text in exam.wanted.items():
        file = exam.seen.files.get(name)
        if file is None:
            wrong = True
            yield exam.fail("files", f"/etc/nut/{name} is missing", DEPLOY)
            continue
        loose = _permission_problem(exam, file)
        if loose:
            wrong = True
            yield exam.make_finding(
                "files",
                FAILURE if "not be read" in loose else WARNING,
                f"/etc/nut/{name} {loose}",
                f"chown root:nut /etc/nut/{name}; chmod 640 /etc/nut/{name}",
            )
        differs = [directive for directive in _differing_directives(exam, name, text) if directive != "SHUTDOWNCMD"]
        if differs:
            wrong = True
            grave = any(directive in _GRAVE for directive in differs)
            words = f"/etc/nut/{name} is not as the inventory has it: {', '.join(differs)}"
            yield exam.make_finding("files", FAILURE if grave else WARNING, words, DEPLOY)
    if not wrong and exam.wanted and "files" not in exam.seen.troubles:
        yield exam.ok("files", f"{len(exam.wanted)} files as the inventory has them")


def _permission_problem(exam: Exam, file: File) -> str:
    if exam.seen.group is None:
        return ""
    readable = file.mode & 0o040 if file.gid == exam.seen.group else file.mode & 0o004
    if not readable:
        return f"can not be read by NUT (mode {file.mode:04o})"
    if (file.mode, file.uid, file.gid) != (_MODE, 0, exam.seen.group):
        return f"has mode {file.mode:04o} and owner {file.uid}:{file.gid}, and should have 0640 and root:nut"
    return ""


def _differing_directives(exam: Exam, name: str, wanted: str) -> list[str]:
    """Return the directives in which a file differs: never a value, which may be a password."""
    if name == "upsd.users":
        return []  # check_users() tells it better
    if name == "ups.conf":
        return _section_differences(exam, wanted)
    there = exam.nut_file_text(name)
    if name == "nut.conf":
        ours, theirs = (
            {tuple(line.split("=", 1)) for line in text.splitlines() if _is_setting(line)} for text in (wanted, there)
        )
    else:
        ours, theirs = ({line.words for line in grammar.parse_lines(text)} for text in (wanted, there))
    return list(dict.fromkeys(words[0] for words in sorted(ours ^ theirs)))


def _section_differences(exam: Exam, wanted: str) -> list[str]:
    """Compare ups.conf. What nut-hotplug adds, pins and found UPSes, is no difference."""
    ours, theirs = ups_conf.parse_ups_conf(wanted), ups_conf.parse_ups_conf(exam.nut_file_text("ups.conf"))
    differs = [key for key, value in ours.settings if (key, value) not in theirs.settings]
    if actions.WANTED in exam.seen.files and any(map(ups_conf.is_auto, ours.sections.values())):
        kept = ups_conf.parse_ups_conf(exam.seen.files[actions.WANTED].text)
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


def _is_setting(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


@check("mode")
def check_mode(exam: Exam) -> Findings:
    """Does MODE let this host do its part?"""
    if "nut.conf" not in exam.seen.files:
        return
    found = re.findall(r"^[ \t]*MODE=[\"']?(\w*)", exam.nut_file_text("nut.conf"), re.MULTILINE)
    good = ("netserver", "standalone") if exam.expected.primary else ("netclient",)
    if not found or found[-1] not in good:
        words = f"MODE is {found[-1] or 'empty' if found else 'missing'} in /etc/nut/nut.conf, and must be {good[0]}"
        cuts = ". The next reboot may cut the UPS's power" if exam.sections and found[-1:] == ["none"] else ""
        yield exam.fail("mode", words + cuts, DEPLOY)
    else:
        yield exam.ok("mode", f"MODE={found[-1]}")


@check("users")
def check_users(exam: Exam) -> Findings:
    """Does upsd know those who log in, with their passwords? Only that they differ is told."""
    if "upsd.users" not in exam.wanted or "upsd.users" not in exam.seen.files:
        return
    ours, theirs = exam.wanted.users, exam.files.users
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
        yield exam.fail("users", f"/etc/nut/upsd.users: {'; '.join(wrong)}", DEPLOY)
    if extra:
        words = f"/etc/nut/upsd.users has {', '.join(extra)} besides, who may log in"
        yield exam.warn("users", words, DEPLOY)
    if not wrong and not extra:
        yield exam.ok("users", f"{len(ours)} users as the inventory has them")


@check("units")
def check_units(exam: Exam) -> Findings:
    """Does each unit run, and start at boot?"""
    if "units" in exam.seen.troubles:
        yield from exam.report_unseen("units", "units")
        return
    wanted = [MONITOR, *([SERVER, *map(driver_unit, exam.sections)] if exam.expected.primary else [])]
    good = []
    for name in wanted:
        problems = list(unit_problems(exam, name))
        yield from problems
        if not problems:
            good.append(name)
    watcher = exam.seen.units.get(WATCHER)
    if watcher and (watcher.runs or watcher.enabled == "enabled"):
        words = f"{WATCHER} is enabled: it restarts drivers on its own at each write of ups.conf"
        yield exam.warn("units", words, f"systemctl disable --now {WATCHER}")
    if len(good) == len(wanted):
        yield exam.ok("units", f"running, and started at boot: {', '.join(good)}")


def unit_problems(exam: Exam, name: str, check: str = "units") -> Findings:
    unit = exam.seen.units.get(name)
    if unit is None or unit.load == "not-found":
        yield exam.fail(check, f"there is no unit {name}", DEPLOY)
    elif unit.load == "masked" or unit.enabled.startswith("masked"):
        words = f"{name} is masked: it can't be started"
        yield exam.fail(check, words, f"systemctl unmask {name}; systemctl start {name}")
    elif not unit.runs:
        how = f"{unit.active} ({unit.result})" if unit.result not in ("", "success") else unit.active
        words = f"{name} does not run: {how}{exam.last_words(name)}"
        todo = f"journalctl -u {name} -n 50; systemctl reset-failed {name}; systemctl start {name}"
        yield exam.fail(check, words, todo)
    elif unit.sub == "auto-restart":
        words = f"{name} ends again and again, and systemd restarts it{exam.last_words(name)}"
        yield exam.fail(check, words, f"journalctl -u {name} -n 50")
    elif unit.enabled not in ("enabled", "enabled-runtime", "static", "generated", "alias", "indirect"):
        yield exam.warn(check, f"{name} runs, and is not started at boot", f"systemctl enable {name}")


@check("restarted")
def check_restarted(exam: Exam) -> Findings:
    """Have the daemons read their files as they are now?"""
    good = True
    pairs: list[tuple[str, tuple[str, ...]]] = [(MONITOR, ("upsmon.conf",))]
    if exam.expected.primary:
        pairs.append((SERVER, ("upsd.conf", "upsd.users")))
    for name, those in pairs:
        unit = exam.seen.units.get(name, ABSENT)
        late = [file for file in those if file in exam.seen.files and exam.seen.files[file].changed > unit.since + 1]
        if not unit.runs or not unit.since or not late:
            continue
        good = False
        # a comment that changed is no reason to restart anything: then the file is as it should be
        grave = any(_differing_directives(exam, file, exam.wanted.get(file, "")) for file in late)
        words = (
            f"{', '.join(late)} changed at {format_time(exam.seen.files[late[0]].changed)}, after {name} had read it"
        )
        yield exam.make_finding(
            "restarted", WARNING if grave else NOTE, words, f"systemctl restart {name}, while on mains" if grave else ""
        )
    if good:
        yield exam.ok("restarted", "the daemons have read their files as they are")
