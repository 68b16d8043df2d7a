# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's files and daemons: installed, up to date, running, and with the current files read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ..base.clock import format_time
from ..base.spelling import list_words
from ..base.systemd import ABSENT, MONITOR, SERVER, WATCHER, driver_unit
from ..conf import grammar, ups_conf, upsd
from ..conf.advice import list_advice
from ..conf.no_effect import find_ineffective
from ..conf.release import format_release
from ..deploy import actions
from ..deploy.secrets import TO_BE_MADE
from ..usb import sections as usb_sections
from .exam import DEPLOY, MODE, Exam, Findings, Registry, name_unit, restart_on_mains
from .findings import FAILURE, WARNING
from .observe import File

check = Registry()


_PERMISSIONS = 0o640
# These decide whether, when and how a host shuts down, so a difference in them is a failure. Elsewhere it is a warning.
_CRITICAL = ("MONITOR", "SHUTDOWNCMD", "MODE", "MINSUPPLIES", "POWERDOWNFLAG")


@check("installed")
def check_installed(exam: Exam) -> Findings:
    """Check that NUT is installed."""
    missing = [
        name
        for name in (("upsmon", "upsd") if exam.expected.primary else ("upsmon",))
        if name not in exam.seen.installed
    ]
    if missing:
        yield exam.fail("installed", f"not installed: {' and '.join(missing)}", DEPLOY)
    elif exam.seen.release is None:
        yield exam.unknown("installed", "NUT is installed, but its release can't be determined")
    else:
        yield exam.ok("installed", f"NUT {format_release(exam.seen.release)}")


@check("release")
def check_release(exam: Exam) -> Findings:
    """List the known problems of this release with these files."""
    if exam.seen.release is None:
        return
    advice = list_advice(exam.files, exam.seen.release)
    for problem in advice:
        yield (
            exam.note("release", problem.problem, problem.remedy)
            if problem.is_due
            else exam.ok("release", str(problem))
        )
    if not advice:
        yield exam.ok("release", f"NUT {format_release(exam.seen.release)} has no known problem with these files")


@check("files")
def check_files(exam: Exam) -> Findings:
    """Check that NUT's files exist, have the right owner and mode, and match the inventory."""
    yield from exam.report_unseen("files", "files")
    wrong = False
    for name, text in exam.wanted.items():
        file = exam.seen.files.get(name)
        if file is None:
            wrong = True
            yield exam.fail("files", f"/etc/nut/{name} is missing", DEPLOY, about=[name])
            continue
        problem = _permission_problem(exam, file)
        if problem:
            wrong = True
            yield exam.make_finding(
                "files",
                FAILURE if "can't read" in problem else WARNING,
                f"/etc/nut/{name}: {problem}",
                f"chown root:nut /etc/nut/{name}; chmod 640 /etc/nut/{name}",
                about=[name],
            )
        differs = [directive for directive in _differing_directives(exam, name, text) if directive != "SHUTDOWNCMD"]
        if differs:
            wrong = True
            critical = any(directive in _CRITICAL for directive in differs)
            message = f"/etc/nut/{name} differs from the inventory: {', '.join(differs)}"
            yield exam.make_finding("files", FAILURE if critical else WARNING, message, DEPLOY, about=[name])
    for problem, remedy in find_ineffective(exam.files):
        wrong = True
        yield exam.make_finding("files", WARNING, problem, remedy)
    if not wrong and exam.wanted and "files" not in exam.seen.troubles:
        yield exam.ok("files", f"{len(exam.wanted)} files match the inventory")


def _permission_problem(exam: Exam, file: File) -> str:
    """Return what is wrong with a file's owner or mode, "" if nothing is."""
    if exam.seen.group is None:
        return ""
    readable = file.mode & 0o040 if file.gid == exam.seen.group else file.mode & 0o004
    if not readable:
        return f"NUT can't read it (mode {file.mode:04o})"
    if (file.mode, file.uid, file.gid) != (_PERMISSIONS, 0, exam.seen.group):
        return f"mode is {file.mode:04o} and owner {file.uid}:{file.gid}, should be 0640 and root:nut"
    return ""


def _differing_directives(exam: Exam, name: str, wanted: str) -> list[str]:
    """Return the names of the directives in which a file differs from the inventory. Values may be passwords, so none is returned."""
    if name == "upsd.users":
        return []  # check_users() reports it in more detail
    if name == "ups.conf":
        return _section_differences(exam, wanted)
    actual = exam.nut_file_text(name)
    if name == "nut.conf":
        ours, theirs = (
            {tuple(line.split("=", 1)) for line in text.splitlines() if _is_setting(line)} for text in (wanted, actual)
        )
    else:
        ours, theirs = ({line.words for line in grammar.parse_lines(text)} for text in (wanted, actual))
        ours = {_fill_passwords(words, theirs) for words in ours}
    return list(dict.fromkeys(directive[0] for directive in sorted(ours ^ theirs)))


def _fill_passwords(words: tuple[str, ...], deployed: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return a wanted line with its deployed password, if the controller does not have it; check_secrets() reports that."""
    if TO_BE_MADE not in words:
        return words
    alike = (
        line
        for line in deployed
        if len(line) == len(words) and all(word in (other, TO_BE_MADE) for word, other in zip(words, line))
    )
    return next(alike, words)


def _section_differences(exam: Exam, wanted: str) -> list[str]:
    """Compare ups.conf. Pins and UPSes that nut-hotplug adds are not differences."""
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
    """Check that MODE in nut.conf suits this host's role."""
    if "nut.conf" not in exam.seen.files:
        return
    modes = re.findall(r"^[ \t]*MODE=[\"']?(\w*)", exam.nut_file_text("nut.conf"), re.MULTILINE)
    good = ("netserver", "standalone") if exam.expected.primary else ("netclient",)
    if not modes or modes[-1] not in good:
        message = f"MODE is {modes[-1] or 'empty' if modes else 'missing'} in /etc/nut/nut.conf, must be {good[0]}"
        risk = ". The next reboot may cut the UPS's power" if exam.sections and modes[-1:] == ["none"] else ""
        yield exam.fail("mode", message + risk, DEPLOY, about=[MODE, "nut.conf"])
    else:
        yield exam.ok("mode", f"MODE={modes[-1]}")


@check("secrets")
def check_secrets(exam: Exam) -> Findings:
    """Check that the controller has the passwords that this host was deployed with."""
    unkept = [
        name for name, user in exam.wanted.users.items() if user.password == TO_BE_MADE and name in exam.files.users
    ]
    deployed = {monitor.user for monitor in exam.files.monitors}
    unkept += [line.user for line in exam.wanted.monitors if line.password == TO_BE_MADE and line.user in deployed]
    if unkept:
        names = list_words(dict.fromkeys(unkept), "or")
        message = f"no password of {names} is kept on the Ansible controller, so it cannot deploy this host"
        todo = "copy .homelab-nut from the machine that deployed it; or make new passwords: make rotate"
        yield exam.warn("secrets", message, todo)
    elif exam.wanted:
        yield exam.ok("secrets", "the Ansible controller has this host's passwords")


@check("users")
def check_users(exam: Exam) -> Findings:
    """Check that upsd.users has the right users, passwords and roles. Passwords are compared, never shown."""
    if "upsd.users" not in exam.wanted or "upsd.users" not in exam.seen.files:
        return
    ours, theirs = exam.wanted.users, exam.files.users
    wrong, about = [], ["upsd.users"]
    for name, user in ours.items():
        other = theirs.get(name)
        if other is None:
            wrong.append(f"{name} is missing")
        elif user.password not in (other.password, TO_BE_MADE):
            wrong.append(f"{name} has a password that differs from the inventory")
        elif (other.type in upsd.PRIMARY) != (user.type in upsd.PRIMARY) or bool(other.type) != bool(user.type):
            wrong.append(f"{name} has upsmon role {other.type or 'none'}, should be {user.type or 'none'}")
        else:
            continue
        about.append(name)
    extra = [name for name in theirs if name not in ours]
    if wrong:
        yield exam.fail("users", f"/etc/nut/upsd.users: {'; '.join(wrong)}", DEPLOY, about=about)
    if extra:
        message = f"/etc/nut/upsd.users lets users log in who are not in the inventory: {', '.join(extra)}"
        yield exam.warn("users", message, DEPLOY, about=["upsd.users"])
    if not wrong and not extra:
        yield exam.ok("users", f"{len(ours)} users match the inventory")


@check("units")
def check_units(exam: Exam) -> Findings:
    """Check that each unit is running and starts at boot."""
    if "units" in exam.seen.troubles:
        yield from exam.report_unseen("units", "units")
        return
    wanted = [MONITOR, *([SERVER, *map(driver_unit, exam.sections)] if exam.expected.primary else [])]
    good = []
    verdicts = {driver_unit(ups): exam.judge_ups(ups) for ups in exam.sections}
    for name in wanted:
        problems = list(unit_problems(exam, name))
        # a driver whose UPS powers nothing is needed by no machine
        yield from (
            replace(problem, verdict=verdicts.get(name, FAILURE)) if problem.verdict == FAILURE else problem
            for problem in problems
        )
        if not problems:
            good.append(name)
    watcher = exam.seen.units.get(WATCHER)
    if watcher and (watcher.runs or watcher.enabled == "enabled"):
        message = f"{WATCHER} is enabled: it restarts drivers whenever ups.conf is written"
        yield exam.warn("units", message, f"systemctl disable --now {WATCHER}", about=[WATCHER])
    if len(good) == len(wanted):
        yield exam.ok("units", f"running and enabled at boot: {', '.join(good)}")


def unit_problems(exam: Exam, name: str, check: str = "units") -> Findings:
    """Yield why a unit is not running, or would not start at boot."""
    unit = exam.seen.units.get(name)
    # a driver is about its UPS
    key = next((ups for ups in exam.sections if driver_unit(ups) == name), name_unit(name, exam.host))
    if unit is None or unit.load == "not-found":
        yield exam.fail(check, f"unit {name} does not exist", DEPLOY, about=[key, MODE])
    elif unit.load == "masked" or unit.enabled.startswith("masked"):
        message = f"{name} is masked, so it can't be started"
        yield exam.fail(check, message, f"systemctl unmask {name}; systemctl start {name}", about=[key])
    elif not unit.runs:
        how = f"{unit.active} ({unit.result})" if unit.result not in ("", "success") else unit.active
        message = f"{name} is not running: {how}{exam.last_words(name)}"
        todo = f"journalctl -u {name} -n 50; systemctl reset-failed {name}; systemctl start {name}"
        yield exam.fail(check, message, todo, about=[key, MODE])
    elif unit.sub == "auto-restart":
        message = f"{name} keeps exiting and is restarted by systemd{exam.last_words(name)}"
        yield exam.fail(check, message, f"journalctl -u {name} -n 50", about=[key, MODE])
    elif unit.enabled not in ("enabled", "enabled-runtime", "static", "generated", "alias", "indirect"):
        message = f"{name} is running, but not enabled at boot"
        yield exam.warn(check, message, f"systemctl enable {name}", about=[f"boot of {name}"])


@check("restarted")
def check_restarted(exam: Exam) -> Findings:
    """Check that the daemons have read the current files."""
    good = True
    pairs: list[tuple[str, tuple[str, ...]]] = [(MONITOR, ("upsmon.conf",))]
    if exam.expected.primary:
        pairs.append((SERVER, ("upsd.conf", "upsd.users")))
    for name, names in pairs:
        unit = exam.seen.units.get(name, ABSENT)
        late = [file for file in names if file in exam.seen.files and exam.seen.files[file].changed > unit.since + 1]
        if not unit.runs or not unit.since or not late:
            continue
        good = False
        # If only a comment changed, nothing needs a restart.
        differs = any(_differing_directives(exam, file, exam.wanted.get(file, "")) for file in late)
        message = f"{', '.join(late)} changed at {format_time(exam.seen.files[late[0]].changed)}, after {name} read it"
        if differs:
            yield exam.warn("restarted", message, restart_on_mains(name), about=late)
        else:
            yield exam.ok("restarted", f"{message}, but only in comments")
    if good:
        yield exam.ok("restarted", "the daemons have read the current files")
