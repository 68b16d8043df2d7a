# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide the smallest list of actions that makes NUT use new files, from the files and the state of the units. Changes nothing.

The order of the actions matters. For the facts about NUT's units and their races, see docs/architecture.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ..base import paths, systemd
from ..conf import grammar
from ..conf.files import NutFiles
from ..conf.redact import redact_text
from .change import Change, FileChange, UnitAction, order_actions, stop_watcher_actions

FOLDER = Path("/", paths.NUT)

# Files in the order in which they are replaced. nut.conf comes first: with MODE=none and a section in ups.conf, Debian 12 and 13 cut
# the UPS's power at the next reboot. Files are removed in the opposite order.
PRIMARY_FILES = ("nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upssched.conf", "upsmon.conf")
SECONDARY_FILES = ("nut.conf", "upssched.conf", "upsmon.conf")

# ups.conf as the inventory declares it, with drivers that are auto. The host completes it. NUT does not read this file.
WANTED = "ups.conf.wanted"
# ups.conf.wanted precedes ups.conf, so that nut-hotplug never sees a new ups.conf with an old ups.conf.wanted
FILES = ("nut.conf", "upsd.users", "upsd.conf", WANTED, "ups.conf", "upssched.conf", "upsmon.conf")

# The files of a host after state absent. MODE=none is safe together with a ups.conf without sections.
STUB = "# Emptied by Ansible (homelab.nut) with state=absent.\n"
STUBS = {name: STUB + "MODE=none\n" if name == "nut.conf" else STUB for name in FILES}

# upsd reads these only when it starts; a reload does not apply them
_START_ONLY = (
    "ALLOW_NO_DEVICE",
    "ALLOW_NOT_ALL_LISTENERS",
    "STATEPATH",
    "LISTEN",
    "CERTFILE",
    "CERTPATH",
    "CERTIDENT",
    "CERTREQUEST",
    "DISABLE_WEAK_SSL",
    "MAXCONN",
)
# read from the file at the very end of a shutdown; not used by any daemon
_LATE = ("POWEROFF_WAIT", "POWEROFF_QUIET")
# read only by SysV init scripts, which Debian's units do not use
_UNREAD = ("UPSD_OPTIONS", "UPSMON_OPTIONS")


def is_emptied(text: str) -> bool:
    """Return whether a run with state absent has emptied a file."""
    return text.startswith(STUB)


def watched_units(files: Mapping[str, str]) -> tuple[str, ...]:
    """Return the units that a host with these files has."""
    if "ups.conf" not in files:
        return (systemd.MONITOR, systemd.ALL)
    drivers = [systemd.driver_unit(name) for name in NutFiles.of(files).ups_conf.sections]
    return (
        systemd.SERVER,
        systemd.MONITOR,
        systemd.ALL,
        systemd.DRIVERS,
        systemd.ENUMERATOR,
        systemd.WATCHER,
        *drivers,
    )


def plan_deployment(
    old: Mapping[str, str],
    new: Mapping[str, str],
    units: Mapping[str, systemd.Unit],
    *,
    pending: Sequence[UnitAction] = (),
    misowned: Sequence[str] = (),
    strays: Sequence[str] = (),
    stale: Sequence[str] = (),
    folder: Path = FOLDER,
) -> Change[UnitAction]:
    """Decide how to get from the old files to the new ones.

    old, new: name -> text. units: name -> state of watched_units(new). pending: actions that an interrupted run still owes.
    misowned: files with a wrong mode or owner. strays: units of drivers that start at boot although NEW has no such UPS.
    stale: UPSes whose section the enumerator takes for changed.
    """
    old, new = NutFiles.of(old), NutFiles.of(new)
    changed = [name for name in FILES if name in new and (old.get(name) != new[name] or name in misowned)]
    after: list[UnitAction] = []
    before: tuple[UnitAction, ...] = ()
    if "ups.conf" in new:
        before = stop_watcher_actions(units.get(systemd.WATCHER, systemd.ABSENT))
        after += _driver_actions(old, new, units, stale)
        after += [UnitAction("disable --now", name, "ups.conf has no such section") for name in strays]
        after += _server_actions(old, new, units, changed)
    after += _monitor_actions(old, new, units)
    off = [
        name
        for name in watched_units(new)
        if units.get(name, systemd.ABSENT).enabled == "disabled" and _is_enabled_by_us(name)
    ]
    after += [UnitAction("enable", name, "not enabled at boot") for name in off]
    # Drop actions for units that this host no longer has. Restarting one would fail, in this run and in every later one.
    after += [owed for owed in pending if owed.unit in watched_units(new) and owed.verb != "disable --now"]
    return Change(before, _file_changes(changed, old, new, folder), order_actions(after))


def plan_removal(
    old: Mapping[str, str], units: Mapping[str, systemd.Unit], drivers: Sequence[str], folder: Path = FOLDER
) -> Change[UnitAction]:
    """Decide how to remove NUT's configuration: nothing runs, nothing starts at boot, and no reboot can switch off a UPS.

    old: the current files. units: name -> state of watched_units(old). drivers: units of drivers that start at boot or run.
    """
    changed = [name for name in reversed(FILES) if name in old and old[name] != STUBS[name]]
    # upsmon first, so that it does not take a stopped upsd for a lost UPS
    first = [name for name in (systemd.MONITOR, systemd.WATCHER, systemd.SERVER) if _is_there(units, name)]
    # the enumerator removes the units that it made for the sections, and is disabled last
    registered = [UnitAction("start", systemd.ENUMERATOR, "ups.conf has no sections left")] if drivers else []
    rest = [*drivers, *(name for name in (systemd.ENUMERATOR, systemd.DRIVERS, systemd.ALL) if _is_there(units, name))]
    return Change(
        _disable_actions(first), _file_changes(changed, old, STUBS, folder), (*registered, *_disable_actions(rest))
    )


def _file_changes(
    names: Sequence[str], old: Mapping[str, str], new: Mapping[str, str], folder: Path
) -> tuple[FileChange, ...]:
    return tuple(
        FileChange(
            name, folder / name, old.get(name), new[name], partial(redact_text, "ups.conf" if name == WANTED else name)
        )
        for name in names
    )


def _disable_actions(names: Sequence[str]) -> tuple[UnitAction, ...]:
    return tuple(UnitAction("disable --now", name, "removing NUT from this host") for name in names)


def _is_there(units: Mapping[str, systemd.Unit], name: str) -> bool:
    unit = units.get(name, systemd.ABSENT)
    return unit.runs or unit.enabled in ("enabled", "enabled-runtime")


def _is_enabled_by_us(unit: str) -> bool:
    """Return whether this collection enables a unit. The enumerator enables those of drivers."""
    return unit != systemd.WATCHER and not systemd.is_driver(unit)


def _driver_actions(
    old: NutFiles, new: NutFiles, units: Mapping[str, systemd.Unit], stale: Sequence[str]
) -> list[UnitAction]:
    old_conf, new_conf = old.ups_conf, new.ups_conf
    everywhere = old_conf.settings != new_conf.settings
    edited = [
        name
        for name, section in new_conf.sections.items()
        if name in old_conf.sections and (everywhere or old_conf.sections[name] != section)
    ]
    unknown = [
        name for name in new_conf.sections if units.get(systemd.driver_unit(name), systemd.ABSENT).enabled != "enabled"
    ]
    idle = [name for name in new_conf.sections if name not in unknown and not units[systemd.driver_unit(name)].runs]
    actions = []
    if old_conf != new_conf or unknown:
        # The enumerator of 2.8.1 would tell a running driver to reload. The driver then applies only half of the change and spins, and
        # every later run takes its section for changed. A stopped driver gets a new unit instead.
        for name in (*edited, *(name for name in stale if name in new_conf.sections and name not in edited)):
            actions.append(UnitAction("stop", systemd.driver_unit(name), f"[{name}] changed"))
            idle.append(name)
        actions.append(UnitAction("start", systemd.ENUMERATOR, "the sections of ups.conf changed, or one has no unit"))
    actions += [UnitAction("start", systemd.driver_unit(name), "not running") for name in dict.fromkeys(idle)]
    return actions


def _server_actions(
    old: Mapping[str, str], new: Mapping[str, str], units: Mapping[str, systemd.Unit], changed: Sequence[str]
) -> list[UnitAction]:
    reason = _find_restart_reason(systemd.SERVER, old, new, units)
    if not reason and _start_only_lines(old.get("upsd.conf", "")) != _start_only_lines(new["upsd.conf"]):
        reason = "upsd.conf changed in directives that a reload does not apply"
    if reason:
        return [UnitAction("restart", systemd.SERVER, reason)]
    reload = [name for name in changed if name in ("upsd.conf", "upsd.users", "ups.conf")]
    return [UnitAction("reload", systemd.SERVER, f"{', '.join(reload)} changed")] if reload else []


def _monitor_actions(
    old: Mapping[str, str], new: Mapping[str, str], units: Mapping[str, systemd.Unit]
) -> list[UnitAction]:
    reason = _find_restart_reason(systemd.MONITOR, old, new, units)
    if not reason and _parsed_lines(old.get("upsmon.conf", "")) != _parsed_lines(new["upsmon.conf"]):
        reason = "upsmon.conf changed"
    return [UnitAction("restart", systemd.MONITOR, reason)] if reason else []


def _find_restart_reason(
    daemon: str, old: Mapping[str, str], new: Mapping[str, str], units: Mapping[str, systemd.Unit]
) -> str:
    """Return why a daemon must be restarted, whatever its own file says; "" if it need not."""
    if not units.get(daemon, systemd.ABSENT).runs:
        return "not running"
    return "nut.conf changed" if _daemon_environment(old) != _daemon_environment(new) else ""


def _daemon_environment(files: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in nut.conf that the daemons use."""
    # a shell and systemd read this file; both allow blanks before a name
    pairs = re.findall(r"^[ \t]*([A-Za-z_][A-Za-z0-9_]*)=(.*)$", files.get("nut.conf", ""), re.MULTILINE)
    return {key: value for key, value in pairs if key not in _LATE + _UNREAD}


def _parsed_lines(text: str) -> list[tuple[str, ...]]:
    """Return the lines without comments, which are no reason for a restart."""
    return [line.words for line in grammar.parse_lines(text)]


def _start_only_lines(upsd_conf: str) -> list[tuple[str, ...]]:
    return [words for words in _parsed_lines(upsd_conf) if words[0] in _START_ONLY]
