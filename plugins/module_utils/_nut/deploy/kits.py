# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The own files and units of nut-hotplug, nut-shutdown and nut-access on a host: put in place, taken up, and taken away."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..base import files, jsontext, systemd
from ..base.text import one_line, well_formed
from . import actions

SERVICE = "nut-hotplug.service"
TIMER = "nut-hotplug.timer"
PROGRAM = "usr/local/sbin/nut-hotplug"


class InstallError(Exception):
    """Nothing can be installed here; the message says why, and what to do."""


class Place(NamedTuple):
    """Where a file goes, below the root, and whose it is."""

    path: str
    mode: int = 0o644
    group: str = "root"


@dataclass(frozen=True)
class Kit:
    """A program of ours on a host, with all that belongs to it.

    places: its files but itself, the policy first: what else is put in place reads it. optional: those that need not be there.
    service: its unit. standing: the units that are enabled and run all the time. helpers: units that come and go with these. read:
    what each of these reads when it starts, besides its own unit. rules, tmpfiles: which file is udev's, and systemd-tmpfiles'.
    traces: what it leaves, besides its log, which people may still want to read.
    sandboxes: drop-ins that take rights from a unit, name -> unit; hardening: the variable of the role that leaves them out.
    """

    name: str
    program: str
    places: Mapping[str, Place]
    service: str
    standing: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    read: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    rules: str = ""
    tmpfiles: str = ""
    traces: tuple[str, ...] = ()
    sandboxes: Mapping[str, str] = field(default_factory=dict)
    hardening: str = ""

    @property
    def units(self) -> tuple[str, ...]:
        """Return those that run all the time, the service, and what it brings."""
        return tuple(dict.fromkeys((*self.standing, self.service, *self.helpers)))


HARDENING = "homelab-nut-hardening.conf"
REFUSED = "var/lib/homelab-nut/refused.json"
"""Which sandboxes this host could not apply when they were tried last: name -> why. Who only looks starts nothing to find out."""
HOTPLUG_SANDBOX = "nut-hotplug-hardening.conf"

HOTPLUG = Kit(
    name="nut-hotplug",
    program=PROGRAM,
    places={
        "hotplug.json": Place("etc/nut/hotplug.json", 0o640, "nut"),
        SERVICE: Place(f"etc/systemd/system/{SERVICE}"),
        TIMER: Place(f"etc/systemd/system/{TIMER}"),
        HOTPLUG_SANDBOX: Place(f"etc/systemd/system/{SERVICE}.d/{HARDENING}"),
        "63-nut-hotplug.rules": Place("etc/udev/rules.d/63-nut-hotplug.rules"),
        "logrotate": Place("etc/logrotate.d/nut-hotplug"),
    },
    service=SERVICE,
    standing=(TIMER,),
    optional=(HOTPLUG_SANDBOX,),
    sandboxes={HOTPLUG_SANDBOX: SERVICE},
    hardening="nut_hotplug_hardening",
    rules="63-nut-hotplug.rules",
    traces=(PROGRAM, "run/nut-hotplug.quiet", "var/lib/nut-hotplug"),
)
PLACES = HOTPLUG.places

GATE = systemd.GATE
STAGES = "nut-stages.service"
WATCH = "nut-watch.service"
MONITOR = "nut-monitor.conf"
SERVER = "nut-server.conf"
# makes the spare of POWERDOWNFLAG; see flag.py
TMPFILES = "tmpfiles"
DRIVER = "nut-driver@.service"
SANDBOXES = {
    "nut-driver-hardening.conf": DRIVER,
    "nut-server-hardening.conf": systemd.SERVER,
    "nut-monitor-hardening.conf": systemd.MONITOR,
    "nut-watch-hardening.conf": WATCH,
}
# upsmon starts the service, and the service the poweroff
SHUTDOWN = Kit(
    name="nut-shutdown",
    program="usr/local/sbin/nut-shutdown",
    places={
        "shutdown.json": Place("etc/nut/shutdown.json", 0o640, "nut"),
        GATE: Place(f"etc/systemd/system/{GATE}"),
        STAGES: Place(f"etc/systemd/system/{STAGES}"),
        WATCH: Place(f"etc/systemd/system/{WATCH}"),
        MONITOR: Place("etc/systemd/system/nut-monitor.service.d/homelab-nut.conf"),
        SERVER: Place("etc/systemd/system/nut-server.service.d/homelab-nut.conf"),
        **{name: Place(f"etc/systemd/system/{unit}.d/{HARDENING}") for name, unit in SANDBOXES.items()},
        "logrotate": Place("etc/logrotate.d/nut-shutdown"),
        TMPFILES: Place("etc/tmpfiles.d/nut-shutdown.conf"),
    },
    service=GATE,
    standing=(STAGES, WATCH),
    read={STAGES: ("shutdown.json",), WATCH: ("nut-watch-hardening.conf",)},
    optional=(STAGES, TMPFILES, *SANDBOXES),
    tmpfiles=TMPFILES,
    sandboxes=SANDBOXES,
    hardening="nut_server_hardening",
    traces=("usr/local/sbin/nut-shutdown", "run/nut-shutdown", "var/lib/nut-shutdown"),
)

ACCESS_UNIT = "nut-access.service"
ACCESS_TABLE = "access.nft"
ACCESS_REFRESH = "nut-access-refresh.service"
ACCESS_TIMER = "nut-access-refresh.timer"
# nft loads the table; the program only looks whether names have other addresses by now, and whether somebody has emptied the ruleset
ACCESS = Kit(
    name="nut-access",
    program="usr/local/sbin/nut-access",
    places={
        ACCESS_TABLE: Place("etc/nut/access.nft"),
        ACCESS_UNIT: Place(f"etc/systemd/system/{ACCESS_UNIT}"),
        ACCESS_REFRESH: Place(f"etc/systemd/system/{ACCESS_REFRESH}"),
        ACCESS_TIMER: Place(f"etc/systemd/system/{ACCESS_TIMER}"),
        # nftables.service empties the ruleset
        "nftables.conf": Place("etc/systemd/system/nftables.service.d/homelab-nut.conf"),
    },
    service=ACCESS_UNIT,
    standing=(ACCESS_UNIT,),
    helpers=(ACCESS_TIMER,),
    read={ACCESS_UNIT: (ACCESS_TABLE, ACCESS_TIMER)},
    traces=("usr/local/sbin/nut-access",),
)

_SERVES = re.compile(r"""^[ \t]*MODE=["']?(netserver|standalone)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One command, and what it is for."""

    command: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{' '.join(self.command)}: {self.reason}"


@dataclass(frozen=True)
class Plan:
    """What is to be done: before any file changes, which files are written, which go, and what comes after."""

    before: tuple[Step, ...] = ()
    changed: tuple[str, ...] = ()
    folder: Path | None = None  # of the log; None if it is there
    gone: tuple[Path, ...] = ()
    after: tuple[Step, ...] = ()
    # what the module config is told to restart, which asks first whether a UPS is on battery
    later: tuple[actions.Action, ...] = ()
    # the new REFUSED; None if it stays as it is
    record: Mapping[str, str] | None = None

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return bool(
            self.before or self.changed or self.folder or self.gone or self.after or self.record is not None,
        )


def missing(folder: Path = Path("/etc/nut")) -> str:
    """Say what this host lacks, and what to do about it; "" if NUT is configured here as the one with the UPS.

    With another MODE nobody serves, and a section in ups.conf lets the next reboot cut the UPS's power.
    """
    remedy = "Deploy it first: `make pve tags=ups`, or the role nut_server"
    try:
        conf = (folder / "nut.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"NUT is not installed on this host: there is no {folder}/nut.conf. {remedy}"
    # as the shell reads it: the last one counts
    modes = re.findall(r"^[ \t]*MODE=.*$", conf, re.MULTILINE)
    if not modes or not _SERVES.match(modes[-1]):
        why = f"MODE of {folder}/nut.conf is neither netserver nor standalone"
        return f"NUT is not configured on this host as the one with the UPS: {why}. {remedy}"
    if not (folder / "ups.conf").is_file():
        return f"NUT is not configured on this host: there is no {folder}/ups.conf. {remedy}"
    return ""


def _made_by(tmpfiles: str) -> dict[str, str]:
    """Return the files that a file of systemd-tmpfiles makes, with their texts; of its kinds of lines only `f+`."""
    lines = [shlex.split(line) for line in tmpfiles.splitlines() if line.startswith("f+ ")]
    return {words[1].replace("%%", "%"): words[6] for words in lines}


def settings(drop_in: str) -> list[str]:
    """Return what a drop-in says to systemd: a comment is no reason to restart anything."""
    return [line for line in drop_in.splitlines() if re.match(r"[A-Za-z]+=", line)]


# a command without + or !, which systemd runs as the unit's user and with its rights
_CONFINED = re.compile(r"^Exec(?:StartPre|StartPost)[ \t]*=[ \t]*[-@:|]*(?![-@:|+!])\S", re.MULTILINE)


def try_sandbox(text: str, runner: systemd.Run) -> str:
    """Start a program that does nothing in the sandbox that a drop-in describes. Return why that fails; "" if it does not."""
    given = [f"--property={line}" for line in settings(text)]
    code, _said = runner(["systemd-run", "--quiet", "--wait", "--collect", "--pipe", *given, "--", "/bin/true"])
    # what else may go wrong is systemd-run's own trouble, and no sign of the sandbox
    return systemd.SANDBOX_CODES.get(code, "")


def read_refused(root: Path) -> dict[str, str]:
    """Return what REFUSED says: name of a sandbox -> why this host runs without it. A damaged one says nothing. Raises OSError."""
    try:
        found = jsontext.parse((root / REFUSED).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    given = found if isinstance(found, dict) else {}
    return {name: why for name, why in given.items() if isinstance(why, str)}


def remedy(kit: Kit) -> str:
    """Return what to do about a sandbox that a host can't apply."""
    return f"In a container, enable nesting. To turn it off on this host: {kit.hardening}=false"


@dataclass
class Installation:
    """A kit's files on one host. wanted: name of its places -> text, "" if it shall not be there; None, if all shall go.

    log: where it writes its log. renewed: whether the program is another one since what runs was started. probing: whether
    sandboxes are tried before they are put in place, or else what the last try has left in
    REFUSED counts. refused: those that this host can't apply, and so does without, name -> why.
    """

    wanted: Mapping[str, str] | None
    runner: systemd.Run
    log: Path | None = None
    root: Path = Path("/")
    owners: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # group -> ids, for who is not root
    kit: Kit = HOTPLUG
    renewed: bool = False
    probing: bool = True
    refused: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Raises InstallError for a set of files that is none."""
        if self.wanted is not None and set(self.wanted) != set(self.kit.places):
            raise InstallError(
                f"files must be {', '.join(self.kit.places)}, not {', '.join(sorted(self.wanted)) or 'none'}",
            )
        for name in self.wanted or ():
            if not (self.wanted or {})[name] and name not in self.kit.optional:
                raise InstallError(f"files: {name} is empty, and {self.kit.name} can't do without it")

    @property
    def _mark(self) -> Path:
        """What is there while files are replaced and not taken up yet. A reboot takes all up: so it is in /run."""
        return self._at(f"run/{self.kit.name}.pending")

    # Looking

    def plan(self) -> Plan:
        """Decide what to do. Raises units.UnitError, OSError, and LookupError where there is no group nut."""
        shown = self._units()
        if self.wanted is None:
            return self._going(shown)
        self._refuse_sandboxes()
        return self._coming(shown)

    def _refuse_sandboxes(self) -> None:
        """Do without the sandboxes that this host can't apply: a unit that does not start is worse than one that may too much."""
        known = {} if self.probing else read_refused(self.root)
        for name, unit in self.kit.sandboxes.items():
            text = (self.wanted or {})[name]
            if not text or not self._differs(name):
                continue
            if not self.probing and name in known:
                self.refused[name] = known[name]
            elif self.probing and (why := try_sandbox(text, self.runner)):
                self.refused[name] = (
                    f"{unit} runs without its sandbox ({HARDENING}), which this host can't apply: {why}"
                )
        self.wanted = {**(self.wanted or {}), **dict.fromkeys(self.refused, "")}

    def warnings(self) -> list[str]:
        """Return what a person should know, and can do about it."""
        lost = self._find_confined_drop_ins()
        words = (
            f"{', '.join(lost)}: ExecStartPre= and ExecStartPost= run as the user nut there, without capabilities. Write + "
            "before a command that needs root (ExecStartPre=+/path), or leave the sandboxes out on this host: "
            f"{self.kit.hardening}=false"
        )
        return [*(f"{why}. {remedy(self.kit)}" for why in self.refused.values()), *([words] if lost else [])]

    def _find_confined_drop_ins(self) -> list[str]:
        """Return the drop-ins of somebody else's that give commands to units which a sandbox takes root from."""
        wanted = self.wanted or {}
        confined = [
            unit
            for name, unit in self.kit.sandboxes.items()
            if any(line.startswith("User=") for line in settings(wanted.get(name, "")))
        ]
        names = [unit for unit in confined if unit != DRIVER]
        names += systemd.drivers_at_boot(self.root / "etc/systemd/system") if DRIVER in confined else ()
        code, said = self.runner(["systemctl", "show", "--property=DropInPaths", "--", *names]) if names else (0, "")
        paths = [] if code else re.findall(r"(?<=[= ])/\S+", said)
        ours = {f"/{place.path}" for place in self.kit.places.values()}
        return [path for path in dict.fromkeys(paths) if path not in ours and _CONFINED.search(self._drop_in(path))]

    def _drop_in(self, path: str) -> str:
        try:
            return self._at(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""  # it has gone since systemd read it

    def _record(self) -> Mapping[str, str] | None:
        """Return what REFUSED must become, None if it is right. Other kits' lines stay."""
        known = read_refused(self.root)
        others = {name: why for name, why in known.items() if name not in self.kit.sandboxes}
        now = {**others, **self.refused}
        return None if now == known else now

    def _coming(self, shown: Mapping[str, Mapping[str, str]]) -> Plan:
        wanted = self.wanted or {}
        changed = tuple(name for name in self.kit.places if wanted[name] and self._differs(name))
        gone = tuple(
            name for name in self.kit.places if not wanted[name] and self._is_there(self.kit.places[name].path)
        )
        cut_short = self._mark.exists()
        late = cut_short or any(unit.get("NeedDaemonReload") == "yes" for unit in shown.values())
        after = self._taken_up((*changed, *gone), late)
        before: list[Step] = []
        for name in self.kit.standing:
            if wanted[name]:
                after += self._started(name, shown.get(name, {}), (*changed, *gone), cut_short)
            else:
                before += self._stopped(name, shown.get(name, {}), f"there is nothing for {name} to do")
        after += self._made_anew(changed)
        folder = self._at(str(self.log.parent)) if self.log else None
        return Plan(
            before=tuple(before),
            changed=changed,
            folder=None if folder is None or folder.is_dir() else folder,
            gone=(*(self._at(self.kit.places[one].path) for one in gone), *self._unmade()),
            after=tuple(after),
            later=self._later(cut_short),
            record=self._record(),
        )

    def _started(self, name: str, unit: Mapping[str, str], changed: Sequence[str], cut_short: bool) -> list[Step]:
        steps = []
        if unit.get("UnitFileState") != "enabled":
            steps.append(Step(("systemctl", "enable", name), "it must start at boot"))
        if unit.get("ActiveState") != "active":
            steps.append(Step(("systemctl", "start", name), "it does not run"))
        elif renewed := [file for file in (name, *self.kit.read.get(name, ())) if file in changed]:
            steps.append(Step(("systemctl", "restart", name), f"{renewed[0]} changed"))
        elif self.renewed or cut_short:
            steps.append(Step(("systemctl", "restart", name), f"{self.kit.name} changed"))
        return steps

    def _later(self, cut_short: bool) -> tuple[actions.Action, ...]:
        """Name the daemons of NUT that still run in the sandbox that they were started in, and must not for ever.

        cut_short: systemd may not have known the new ones yet when somebody did the restarts that the earlier run had noted.
        """
        wanted = self.wanted or {}
        other = [
            unit
            for name, unit in self.kit.sandboxes.items()
            if unit not in self.kit.units and (cut_short or settings(wanted[name]) != settings(self._text(name) or ""))
        ]
        drivers = systemd.drivers_at_boot(self.root / "etc/systemd/system") if DRIVER in other else ()
        daemons = [*drivers, *(unit for unit in other if unit != DRIVER)]
        shown = systemd.show(daemons, self.runner) if daemons else {}
        return tuple(actions.Action("restart", unit, "its sandbox changed") for unit in daemons if shown[unit].runs)

    def _stopped(self, name: str, unit: Mapping[str, str], why: str) -> list[Step]:
        if unit.get("UnitFileState") == "enabled" or unit.get("ActiveState") == "active":
            return [Step(("systemctl", "disable", "--now", name), why)]
        return []

    def _going(self, shown: Mapping[str, Mapping[str, str]]) -> Plan:
        why = f"{self.kit.name} is removed from this host"
        before = [step for name in self.kit.standing for step in self._stopped(name, shown.get(name, {}), why)]
        service = shown.get(self.kit.service, {})
        if self.kit.service not in self.kit.standing and service.get("ActiveState") in ("active", "activating"):
            before.append(Step(("systemctl", "stop", self.kit.service), why))
        if service.get("ActiveState") == "failed":
            before.append(Step(("systemctl", "reset-failed", self.kit.service), why))
        names = [name for name, place in self.kit.places.items() if self._is_there(place.path)]
        traces = [path for path in self.kit.traces if self._is_there(path)]
        gone = [self.root / path for path in (*(self.kit.places[name].path for name in reversed(names)), *traces)]
        gone += self._unmade()
        return Plan(
            before=tuple(before), gone=tuple(gone), after=tuple(self._taken_up(names, False)), record=self._record()
        )

    def _taken_up(self, names: Sequence[str], late: bool) -> list[Step]:
        steps = []
        if late or any(self.kit.places[name].path.startswith("etc/systemd/") for name in names):
            steps.append(Step(("systemctl", "daemon-reload"), f"the units of {self.kit.name} changed"))
        # a container has no udevd, and then nobody to tell
        if self.kit.rules in names and self._is_there("run/udev/control"):
            steps.append(Step(("udevadm", "control", "--reload"), f"the rules of {self.kit.name} changed"))
        return steps

    def _made_anew(self, changed: Sequence[str]) -> list[Step]:
        """Return the step that has systemd-tmpfiles make the kit's files, if one is not as it should be."""
        name = self.kit.tmpfiles
        made = _made_by((self.wanted or {}).get(name, ""))
        lacking = [path for path, text in made.items() if not self._holds(path, text)]
        if not made or not (lacking or name in changed):
            return []
        why = f"{lacking[0]} is not there" if lacking else f"the files of {self.kit.name} changed"
        return [Step(("systemd-tmpfiles", "--create", f"/{self.kit.places[name].path}"), why)]

    def _holds(self, path: str, text: str) -> bool:
        found = self._at(path)
        return found.is_file() and not found.is_symlink() and found.read_bytes() == text.encode()

    def _unmade(self) -> list[Path]:
        """Return which files systemd-tmpfiles has made for the kit, and would not any more."""
        name = self.kit.tmpfiles
        before = _made_by(self._text(name) or "") if name else {}
        now = _made_by((self.wanted or {}).get(name, ""))
        return [self._at(path) for path in before if path not in now and self._is_there(path)]

    def _units(self) -> dict[str, dict[str, str]]:
        properties = "--property=LoadState,ActiveState,UnitFileState,NeedDaemonReload"
        code, said = self.runner(["systemctl", "show", properties, "--", *self.kit.units])
        if code:
            raise systemd.UnitError(f"systemctl show: {one_line(said)}")
        found = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in said.strip().split("\n\n")
        ]
        shown = dict(zip(self.kit.units, found))
        masked = [
            name for name, one in shown.items() if one.get("LoadState") == "masked" and (self.wanted or {}).get(name)
        ]
        if masked:
            raise systemd.UnitError(f"{', '.join(masked)} is masked. Unmask it: systemctl unmask {' '.join(masked)}")
        return shown

    def _differs(self, name: str) -> bool:
        place = self.kit.places[name]
        path = self._at(place.path)
        return self._text(name) != (self.wanted or {})[name] or not files.is_kept(path, place.mode, self._ids(name))

    def _text(self, name: str) -> str | None:
        try:
            return self._at(self.kit.places[name].path).read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None

    def _ids(self, name: str) -> tuple[int, int]:
        group = self.kit.places[name].group
        return self.owners[group] if group in self.owners else files.ids(("root", group))

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _is_there(self, path: str) -> bool:
        found = self._at(path)
        return found.exists() or found.is_symlink()

    def diff(self, decided: Plan) -> str:
        """Show what changes, file by file, and what is done. None of these files holds a secret."""
        shown: list[str] = []
        for name in decided.changed:
            path = f"/{self.kit.places[name].path}"
            was, will = self._text(name) or "", (self.wanted or {})[name]
            lines = list(difflib.unified_diff(was.splitlines(), will.splitlines(), path, path, lineterm="", n=1))
            shown += lines or [f"{path}: mode or owner is mended"]
        shown += [f"{path}: removed" for path in decided.gone]
        if decided.record is not None:
            shown.append(f"/{REFUSED}: {', '.join(sorted(decided.record)) or 'removed'}")
        shown += [str(step) for step in (*decided.before, *decided.after, *decided.later)]
        return well_formed("".join(f"{line}\n" for line in shown))

    # Doing

    def apply(self, decided: Plan) -> None:
        """Do what was decided. Raises units.UnitError, writing.WriteError and OSError; running it again goes on from there."""
        if not decided:
            return
        self._mark.parent.mkdir(exist_ok=True)
        self._mark.touch(mode=0o600)
        for step in decided.before:
            self._do(step)
        if decided.folder:
            decided.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._leave(decided.later)
        if decided.record is not None:
            self._keep(decided.record)
        for name in decided.changed:
            place = self.kit.places[name]
            text = (self.wanted or {})[name]
            # a folder of drop-ins need not be there
            self._at(place.path).parent.mkdir(mode=0o755, exist_ok=True)
            files.replace({self._at(place.path): text}, place.mode, self._ids(name))
        for path in decided.gone:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
                if path.parent.name.endswith(".service.d"):
                    with contextlib.suppress(OSError):
                        path.parent.rmdir()
        for step in decided.after:
            self._do(step)
        self._mark.unlink()

    def _leave(self, later: Sequence[actions.Action]) -> None:
        """Add to what the module config finds left to be done."""
        path = self._at(f"run/{actions.PENDING}")
        try:
            left = jsontext.parse(path.read_bytes())
        except FileNotFoundError:
            left = []
        except ValueError:
            return  # it restarts all then
        if not isinstance(left, list):
            return
        more = [action for action in map(asdict, later) if action not in left]
        if more:
            files.replace({path: json.dumps([*left, *more])}, 0o600)

    def _keep(self, refused: Mapping[str, str]) -> None:
        path = self._at(REFUSED)
        if refused:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.replace({path: json.dumps(refused, indent=1) + "\n"}, 0o600)
        else:
            path.unlink(missing_ok=True)

    def _do(self, step: Step) -> None:
        code, said = self.runner(step.command)
        if code:
            raise systemd.UnitError(f"{' '.join(step.command)} failed: {one_line(said)}")
