# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the files that a host should have to the smallest set of actions that makes NUT use them, and the proof that it does.

plan() decides and touches nothing; Deployment does what was decided. Order matters, and is the library's to know:
facts about NUT's units and their races are in docs/architecture.md.
"""

from __future__ import annotations

import difflib
import grp
import json
import os
import pwd
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

from . import monitors, parseconf, units, ups_conf, upsd, validate

# Files in the order in which they are put in place. nut.conf comes first: with MODE=none and a section in ups.conf,
# Debian 12 and 13 cut the UPS's power at the next reboot.
FILES = ("nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upsmon.conf")

MODE = 0o640  # passwords are in them: for root to write, for NUT to read

# upsd reads these at its start only; a reload leaves them as they are
_START_ONLY = (
    "ALLOW_NO_DEVICE",
    "ALLOW_NOT_ALL_LISTENERS",
    "STATEPATH",
    "LISTEN",
    "CERTFILE",
    "CERTPATH",
    "CERTIDENT",
    "MAXCONN",
)
# read at the very end of a shutdown, from the file itself: no daemon needs to know
_LATE = ("POWEROFF_WAIT", "POWEROFF_QUIET")
# a status that says more than "on mains, and well"
_CAREFUL = ("OB", "LB", "FSD", "CAL", "BYPASS", "OFF")


class DeployError(Exception):
    """The deployment stopped; the message says where, why, and what to do."""


@dataclass(frozen=True)
class Action:
    """One step: a verb of systemctl (or `refresh`: restart unless it was restarted meanwhile), its unit, and the reason."""

    verb: str
    unit: str
    reason: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.verb} {self.unit}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """What is to be done: before the files are replaced, and after."""

    changed: tuple[str, ...]
    before: tuple[Action, ...]
    after: tuple[Action, ...]

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return bool(self.changed or self.before or self.after)


def watched_units(files: Mapping[str, str]) -> tuple[str, ...]:
    """Name the units that a host with these files has."""
    if "ups.conf" not in files:
        return (units.MONITOR, units.ALL)
    drivers = [units.driver(name) for name in ups_conf.parse(files["ups.conf"]).sections]
    return (units.SERVER, units.MONITOR, units.ALL, units.DRIVERS, units.ENUMERATOR, units.WATCHER, *drivers)


def plan(
    old: Mapping[str, str],
    new: Mapping[str, str],
    found: Mapping[str, units.Unit],
    left: Sequence[Action] = (),
    loose: Sequence[str] = (),
) -> Plan:
    """Decide what to do.

    old, new: name -> text of the files that are there and that should be. found: the units of watched_units(new).
    left: actions that an earlier run decided on and did not live to do. loose: files of a wrong mode or owner.
    """
    changed = tuple(name for name in FILES if name in new and (old.get(name) != new[name] or name in loose))
    after: list[Action] = []
    before: list[Action] = []
    if "ups.conf" in new:
        watcher = found.get(units.WATCHER, units.ABSENT)
        if watcher.runs or watcher.enabled == "enabled":
            # it reacts to each write of ups.conf on its own, and races with what is done here
            before.append(Action("disable --now", units.WATCHER, "the enumerator is called when ups.conf is complete"))
        after += _driver_actions(old, new, found)
        after += _server_actions(old, new, found, changed)
    after += _monitor_actions(old, new, found, changed)
    off = [name for name in watched_units(new) if found.get(name, units.ABSENT).enabled == "disabled" and _boots(name)]
    after += [Action("enable", name, "it must start at boot") for name in off]
    # a unit that this host has no more can't be restarted: a run that tried would fail, and so would each one after it
    after += [one for one in left if one.unit in watched_units(new)]
    return Plan(changed, tuple(before), _in_order(after))


def _in_order(actions: Sequence[Action]) -> tuple[Action, ...]:
    """Put actions into the order in which units need each other, without those that another of them does as well."""
    # A reload right behind a restart is worse than useless: a SIGHUP that comes before upsd is ready for one ends it.
    restarted = {one.unit for one in actions if one.verb == "restart"}
    needed = [one for one in actions if one.unit not in restarted or one.verb in ("restart", "enable")]
    first = {(one.verb, one.unit): one for one in reversed(needed)}
    return tuple(sorted((one for one in needed if first[one.verb, one.unit] is one), key=_stage))


def _stage(action: Action) -> int:
    if action.verb == "enable":
        return 4
    return {units.ENUMERATOR: 0, units.SERVER: 2, units.MONITOR: 3}.get(action.unit, 1)


def _boots(unit: str) -> bool:
    """Say whether a unit is enabled by us. A driver's instance is enabled by the enumerator."""
    return unit != units.WATCHER and not unit.startswith("nut-driver@")


def _driver_actions(old: Mapping[str, str], new: Mapping[str, str], found: Mapping[str, units.Unit]) -> list[Action]:
    was, will = ups_conf.parse(old.get("ups.conf", "")), ups_conf.parse(new["ups.conf"])
    everywhere = was.settings != will.settings
    edited = [
        name
        for name, one in will.sections.items()
        if name in was.sections and (everywhere or was.sections[name] != one)
    ]
    unknown = [name for name in will.sections if found.get(units.driver(name), units.ABSENT).enabled != "enabled"]
    idle = [name for name in will.sections if name not in unknown and not found[units.driver(name)].runs]
    actions = []
    if was != will or unknown:
        actions.append(Action("start", units.ENUMERATOR, "ups.conf has other sections, or one without a unit"))
    # From 2.8.1 the enumerator lets a running driver reload, which does not take up all that changed.
    actions += [Action("refresh", units.driver(name), f"[{name}] changed") for name in edited]
    actions += [Action("start", units.driver(name), "it does not run") for name in idle if name not in edited]
    return actions


def _server_actions(
    old: Mapping[str, str], new: Mapping[str, str], found: Mapping[str, units.Unit], changed: Sequence[str]
) -> list[Action]:
    if not found.get(units.SERVER, units.ABSENT).runs:
        return [Action("restart", units.SERVER, "it does not run")]
    if _environment(old) != _environment(new):
        return [Action("restart", units.SERVER, "nut.conf changed")]
    if _start_only(old.get("upsd.conf", "")) != _start_only(new["upsd.conf"]):
        return [Action("restart", units.SERVER, "upsd.conf changed in what a reload leaves alone")]
    reload = [name for name in changed if name in ("upsd.conf", "upsd.users", "ups.conf")]
    return [Action("reload", units.SERVER, f"{', '.join(reload)} changed")] if reload else []


def _monitor_actions(
    old: Mapping[str, str], new: Mapping[str, str], found: Mapping[str, units.Unit], changed: Sequence[str]
) -> list[Action]:
    if not found.get(units.MONITOR, units.ABSENT).runs:
        return [Action("restart", units.MONITOR, "it does not run")]
    if _environment(old) != _environment(new):
        return [Action("restart", units.MONITOR, "nut.conf changed")]
    if "upsmon.conf" in changed:
        return [Action("restart", units.MONITOR, "upsmon.conf changed")]
    return []


def _environment(files: Mapping[str, str]) -> dict[str, str]:
    """Return what nut.conf gives the daemons."""
    pairs = re.findall(r"^([A-Z_]+)=(.*)$", files.get("nut.conf", ""), re.MULTILINE)
    return {key: value for key, value in pairs if key not in _LATE}


def _start_only(upsd_conf: str) -> list[tuple[str, ...]]:
    return [line.words for line in parseconf.parse(upsd_conf) if line.words[0] in _START_ONLY]


def careful(states: Sequence[upsd.UpsState]) -> list[str]:
    """Name the UPSes that are not plainly on mains, with their status. One without data is not among them."""
    return [f"{one.name} ({' '.join(one.status)})" for one in states if one.fresh and set(one.status) & set(_CAREFUL)]


def local_upsd(upsd_conf: str) -> tuple[str, int]:
    """Say where this host's upsd can be asked, by its LISTEN lines."""
    places = monitors.listening(upsd_conf)
    for host, port in places:
        if host in monitors.LOOPBACK:
            return "127.0.0.1", port
    for host, port in places:
        if host in monitors.LOOPBACK_6:
            return "::1", port
    return places[0] if places else ("127.0.0.1", monitors.PORT)


def _told(text: str) -> list[str]:
    """Return the lines that say something: the files that Debian ships are comment for the most part."""
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _ids(owner: validate.Owner) -> tuple[int, int]:
    """Turn the names of a user and a group into numbers. Raises KeyError."""
    user, group = owner
    uid = pwd.getpwnam(user).pw_uid if isinstance(user, str) else user
    return uid, grp.getgrnam(group).gr_gid if isinstance(group, str) else group


def _replace(path: Path, text: str, mode: int, owner: validate.Owner | None = None) -> None:
    """Replace a file at once or not at all: readers, and a power cut, meet the old one or the new one. Raises DeployError."""
    scratch = None
    try:
        handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
            if owner:
                shutil.chown(scratch, *owner)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
    except (OSError, LookupError) as error:  # LookupError: there is no such group
        raise DeployError(
            f"{path} could not be written: {getattr(error, 'strerror', error)}. It is as it was."
        ) from None
    finally:
        if scratch:
            Path(scratch).unlink(missing_ok=True)


@dataclass(frozen=True)
class Verdict:
    """What upsd says after a deployment: the status of this host's UPSes, and in words what it lacks."""

    status: Mapping[str, str]
    unserved: Sequence[str]
    logged_out: Sequence[str]

    @property
    def suspects(self) -> tuple[str, ...]:
        """Name the units whose last words may tell why."""
        if self.unserved and not self.status:
            return (units.SERVER,)
        drivers = [
            units.driver(name)
            for name in self.status
            if any(f" serve {name} fresh" in words for words in self.unserved)
        ]
        return (*drivers, units.MONITOR) if self.logged_out else tuple(drivers)


@dataclass
class Deployment:
    """NUT's files on this host, and the way to put them in place. Only this class touches anything."""

    new: Mapping[str, str]
    runner: units.Run
    folder: Path = Path("/etc/nut")
    room: Path = Path("/run")
    owner: validate.Owner = ("root", "nut")
    finder: validate.Find = validate.find
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        """Read what is there."""
        # What is still to be done, where a run that is cut short leaves it to the next. A reboot does it all: so /run.
        self.pending = self.room / "homelab-nut-pending.json"
        self.old = {name: text for name in self.new if (text := self._read(name)) is not None}
        self.done: list[Action] = []
        self.written: list[str] = []

    def _read(self, name: str) -> str | None:
        try:
            return (self.folder / name).read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return None

    # Looking

    def known(self) -> None:
        """Refuse a set of files that is none. Raises DeployError."""
        names = set(self.new)
        if names not in (set(FILES), {"nut.conf", "upsmon.conf"}):
            raise DeployError(
                f"files must be {', '.join(FILES)} for a primary, or nut.conf and upsmon.conf for a secondary, not "
                f"{', '.join(sorted(names)) or 'none'}"
            )

    def diff(self, decided: Plan) -> str:
        """Show what changes for NUT, file by file and unit by unit, without secrets and comments."""
        shown = []
        for name in decided.changed:
            path = str(self.folder / name)
            before, after = (_told(parseconf.redact(name, files.get(name, ""))) for files in (self.old, self.new))
            lines = difflib.unified_diff(before, after, path, path, lineterm="", n=1)
            same = self.old.get(name) == self.new[name]
            what = "mode or owner is mended" if same else "only a secret or a comment changes"
            shown += list(lines) or [f"{path}: {what}"]
        shown += [str(action) for action in (*decided.before, *decided.after)]
        return "".join(f"{line}\n" for line in shown)

    def plan(self) -> Plan:
        """Decide what to do on this host."""
        found = units.show(watched_units(self.new), self.runner)
        masked = [name for name, unit in found.items() if unit.enabled.startswith("masked") and name != units.WATCHER]
        if masked:
            raise DeployError(
                f"{', '.join(masked)} can't be started, being masked. Run: systemctl unmask {' '.join(masked)}"
            )
        self.pids = {name: unit.pid for name, unit in found.items()}
        return plan(self.old, self.new, found, self._left(), self._loose())

    def _loose(self) -> list[str]:
        """Name the files that others than root and NUT may read or write, or that NUT itself may not read."""
        try:
            owner = _ids(self.owner)
        except KeyError:
            return []  # there is no such group yet: NUT is not installed
        loose = []
        for name in self.old:
            seen = (self.folder / name).stat()
            if (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) != (MODE, *owner):
                loose.append(name)
        return loose

    def guard(self) -> None:
        """Stop if a UPS is on battery, or otherwise busy: a restart now could shut down every secondary.

        Asked are the upsd of this host and those that it watches, now and in future. Raises DeployError. One that
        does not answer is no reason to stop: it may be what this run repairs.
        """
        for (host, port), names in sorted(self._served().items()):
            try:
                with upsd.Client(host, port, timeout=5) as client:
                    states = upsd.snapshot(client)
                # as in NUT, a name counts in any case
                busy = careful([one for one in states if names is None or one.name.lower() in names])
            except upsd.UpsdFailure:
                continue
            if busy:
                raise DeployError(
                    f"upsd at {host}:{port} says that {', '.join(busy)}: not plainly on mains. A restart now could shut down "
                    "every host on this UPS, so nothing was changed. Run again when the mains are back, or with force if "
                    "you know that it is safe."
                )

    def _served(self) -> dict[tuple[str, int], list[str] | None]:
        asked: dict[tuple[str, int], list[str] | None] = {}
        for files in (self.old, self.new):
            if "ups.conf" in self.new:
                asked[local_upsd(files.get("upsd.conf", ""))] = None
            else:
                for one in monitors.monitors(files.get("upsmon.conf", "")):
                    names = asked.setdefault((one.host, one.port), [])
                    if names is not None:
                        names.append(one.ups.lower())
        return asked

    def check(self) -> None:
        """Check the files together and by the host's own NUT. Raises DeployError with all that is wrong."""
        wrong = validate.together(self.new) or validate.by_nut(
            self.new, self.runner, self.finder, self.owner, self.room
        )
        if wrong:
            raise DeployError(
                "the new configuration is not right, so the old one stays and nothing was restarted:\n"
                + "\n".join(wrong)
            )

    # Doing

    def apply(self, decided: Plan) -> None:
        """Replace the files and take them up. Raises DeployError; then .written and .done tell how far it came."""
        _replace(self.pending, json.dumps([asdict(one) for one in decided.after]), 0o600)
        for action in decided.before:
            self._do(action)
        for name in decided.changed:
            _replace(self.folder / name, self.new[name], MODE, self.owner)
            self.written.append(name)
        for action in decided.after:
            self._do(action)
        self.pending.unlink(missing_ok=True)

    def _do(self, action: Action) -> None:
        verb = action.verb
        if verb == "refresh":
            if units.show([action.unit], self.runner)[action.unit].pid != self.pids.get(action.unit, 0):
                self.done.append(action)
                return
            verb = "restart"
        try:
            if verb in ("restart", "start"):
                # systemd gives up on a unit that failed often, and refuses to start it until told to forget
                self.runner(["systemctl", "reset-failed", action.unit])
            units.do(verb, action.unit, runner=self.runner)
        except units.UnitError as error:
            raise DeployError(f"{error}\nIts last words: {units.last_words(action.unit, self.runner)}") from None
        self.done.append(action)

    def _left(self) -> list[Action]:
        try:
            return [Action(**one) for one in json.loads(self.pending.read_text())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            # nobody knows what it said: a daemon may run with old files, so all are restarted
            return [
                Action("restart", name, f"{self.pending} can't be read")
                for name in watched_units(self.new)
                if name.endswith(".service") and name != units.ENUMERATOR
            ]

    # Believing

    def verify(self, seconds: float) -> Verdict:
        """Wait until upsd serves every UPS fresh and lists this host's upsmon as a client, for SECONDS at most."""
        deadline = self.clock() + seconds
        while True:
            verdict = Verdict(*self._served_here(), self._not_logged_in())
            if not (verdict.unserved or verdict.logged_out) or self.clock() >= deadline:
                return verdict
            self.pause(0.5)

    def _served_here(self) -> tuple[dict[str, str], list[str]]:
        """Ask this host's upsd for its UPSes: their status by name, and what is not served."""
        if "ups.conf" not in self.new:
            return {}, []
        names = list(ups_conf.parse(self.new["ups.conf"]).sections)
        try:
            with upsd.Client(*local_upsd(self.new["upsd.conf"]), timeout=5) as client:
                states = upsd.snapshot(client, names)
        except upsd.UpsdFailure as error:
            return {}, [str(error)]
        status = {one.name: " ".join(one.status) if one.fresh else one.error or "no data" for one in states}
        return status, [f"upsd does not serve {one.name} fresh: {status[one.name]}" for one in states if not one.fresh]

    def _not_logged_in(self) -> list[str]:
        missing = []
        for one in monitors.monitors(self.new["upsmon.conf"]):
            try:
                with upsd.Client(one.host, one.port, timeout=5) as client:
                    clients = client.list_clients(one.ups)
                    address = client.local_address
            except upsd.UpsdFailure as error:
                missing.append(f"{one.system}: {error}")
                continue
            if upsd.normal_address(address) not in {upsd.normal_address(other) for other in clients}:
                seen = ", ".join(clients) or "nobody"
                missing.append(
                    f"upsmon of this host ({address}) has not logged in to {one.system} as {one.user}; upsd lists {seen}"
                )
        return missing
