# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The own files and units of nut-hotplug and of nut-shutdown on a host: put in place, taken up, and taken away."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from . import actions, units, writing

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
    service: its unit. standing: the unit that is enabled and runs all the time; "" if there is none. read: what that one reads when
    it starts. rules: which file is udev's. traces: what it leaves, besides its log, which people may still want to read.
    compiled: a pattern of more of that. sandboxes: drop-ins that take rights from a unit, name -> unit; hardening: the variable
    of the role that leaves them out.
    """

    name: str
    program: str
    places: Mapping[str, Place]
    service: str
    standing: str = ""
    read: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    rules: str = ""
    traces: tuple[str, ...] = ()
    compiled: str = ""
    sandboxes: Mapping[str, str] = field(default_factory=dict)
    hardening: str = ""

    @property
    def units(self) -> tuple[str, ...]:
        """The one that runs all the time, if there is one, and the service."""
        return (self.standing, self.service) if self.standing else (self.service,)


HARDENING = "homelab-nut-hardening.conf"
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
    standing=TIMER,
    optional=(HOTPLUG_SANDBOX,),
    sandboxes={HOTPLUG_SANDBOX: SERVICE},
    hardening="nut_hotplug_hardening",
    rules="63-nut-hotplug.rules",
    traces=(PROGRAM, "run/nut-hotplug.quiet", "run/nut-hotplug-pending.json", "var/lib/nut-hotplug"),
    # its quiet path, one file a release of Python
    compiled="run/nut-hotplug.*.code",
)
PLACES = HOTPLUG.places

GATE = "nut-shutdown.service"
STAGES = "nut-stages.service"
MONITOR = "nut-monitor.conf"
SERVER = "nut-server.conf"
DRIVER = "nut-driver@.service"
SANDBOXES = {
    "nut-driver-hardening.conf": DRIVER,
    "nut-server-hardening.conf": units.SERVER,
    "nut-monitor-hardening.conf": units.MONITOR,
}
# upsmon starts the service, and the service the poweroff: nothing here runs all the time
SHUTDOWN = Kit(
    name="nut-shutdown",
    program="usr/local/sbin/nut-shutdown",
    places={
        "shutdown.json": Place("etc/nut/shutdown.json", 0o640, "nut"),
        GATE: Place(f"etc/systemd/system/{GATE}"),
        STAGES: Place(f"etc/systemd/system/{STAGES}"),
        MONITOR: Place("etc/systemd/system/nut-monitor.service.d/homelab-nut.conf"),
        SERVER: Place("etc/systemd/system/nut-server.service.d/homelab-nut.conf"),
        **{name: Place(f"etc/systemd/system/{unit}.d/{HARDENING}") for name, unit in SANDBOXES.items()},
        "logrotate": Place("etc/logrotate.d/nut-shutdown"),
    },
    service=GATE,
    standing=STAGES,
    read=("shutdown.json", STAGES),
    optional=(STAGES, *SANDBOXES),
    sandboxes=SANDBOXES,
    hardening="nut_server_hardening",
    traces=("usr/local/sbin/nut-shutdown", "run/nut-shutdown", "var/lib/nut-shutdown"),
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

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return bool(self.before or self.changed or self.folder or self.gone or self.after)


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


def settings(drop_in: str) -> list[str]:
    """Return what a drop-in says to systemd: a comment is no reason to restart anything."""
    return [line for line in drop_in.splitlines() if re.match(r"[A-Za-z]+=", line)]


def try_sandbox(text: str, runner: units.Run) -> str:
    """Start a program that does nothing in the sandbox that a drop-in describes. Return why that fails; "" if it does not."""
    given = [f"--property={line}" for line in settings(text)]
    code, _said = runner(["systemd-run", "--quiet", "--wait", "--collect", "--pipe", *given, "--", "/bin/true"])
    # what else may go wrong is systemd-run's own trouble, and no sign of the sandbox
    return units.SANDBOX_CODES.get(code, "")


@dataclass
class Installation:
    """A kit's files on one host. wanted: name of its places -> text, "" if it shall not be there; None, if all shall go.

    log: where it writes its log. renewed: whether the program is another one since what runs was started. probing: whether
    sandboxes are tried before they are put in place. refused: those that this host can't apply, and so does without, name -> why.
    """

    wanted: Mapping[str, str] | None
    runner: units.Run
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

    # Looking

    def plan(self) -> Plan:
        """Decide what to do. Raises units.UnitError, OSError, and LookupError where there is no group nut."""
        standing, service = self._units()
        if self.wanted is None:
            return self._going(standing, service)
        self._refuse_sandboxes()
        return self._coming(standing, service)

    def _refuse_sandboxes(self) -> None:
        """Do without the sandboxes that this host can't apply: a unit that does not start is worse than one that may too much."""
        for name, unit in self.kit.sandboxes.items():
            text = (self.wanted or {})[name]
            if self.probing and text and self._differs(name) and (why := try_sandbox(text, self.runner)):
                self.refused[name] = (
                    f"{unit} runs without its sandbox ({HARDENING}), which this host can't apply: {why}"
                )
        self.wanted = {**(self.wanted or {}), **dict.fromkeys(self.refused, "")}

    def warnings(self) -> list[str]:
        """Return what a person should know, and can do about it."""
        remedy = f"A container needs nesting for it. To leave it out on this host for good: {self.kit.hardening}=false"
        return [f"{why}. {remedy}" for why in self.refused.values()]

    def _coming(self, standing: Mapping[str, str], service: Mapping[str, str]) -> Plan:
        wanted = self.wanted or {}
        changed = tuple(name for name in self.kit.places if wanted[name] and self._differs(name))
        gone = tuple(
            name for name in self.kit.places if not wanted[name] and self._is_there(self.kit.places[name].path)
        )
        late = "yes" in (standing.get("NeedDaemonReload"), service.get("NeedDaemonReload"))
        after = self._taken_up((*changed, *gone), late)
        before: list[Step] = []
        name = self.kit.standing
        if name and not wanted[name]:
            before = self._stopped(standing, f"there is nothing for {name} to do")
        elif name:
            if standing.get("UnitFileState") != "enabled":
                after.append(Step(("systemctl", "enable", name), "it must start at boot"))
            if standing.get("ActiveState") != "active":
                after.append(Step(("systemctl", "start", name), "it does not run"))
            elif renewed := [one for one in (name, *self.kit.read) if one in changed]:
                after.append(Step(("systemctl", "restart", name), f"{renewed[0]} changed"))
            elif self.renewed:
                after.append(Step(("systemctl", "restart", name), f"{self.kit.name} changed"))
        folder = self._at(str(self.log.parent)) if self.log else None
        return Plan(
            before=tuple(before),
            changed=changed,
            folder=None if folder is None or folder.is_dir() else folder,
            gone=tuple(self._at(self.kit.places[one].path) for one in gone),
            after=tuple(after),
            later=self._later(),
        )

    def _later(self) -> tuple[actions.Action, ...]:
        """Name the daemons of NUT that still run in the sandbox that they were started in, and must not for ever."""
        wanted = self.wanted or {}
        other = [
            unit
            for name, unit in self.kit.sandboxes.items()
            if unit not in self.kit.units and settings(wanted[name]) != settings(self._text(name) or "")
        ]
        drivers = units.drivers_at_boot(self.root / "etc/systemd/system") if DRIVER in other else ()
        daemons = [*drivers, *(unit for unit in other if unit != DRIVER)]
        shown = units.show(daemons, self.runner) if daemons else {}
        return tuple(actions.Action("restart", unit, "its sandbox changed") for unit in daemons if shown[unit].runs)

    def _stopped(self, standing: Mapping[str, str], why: str) -> list[Step]:
        if standing.get("UnitFileState") == "enabled" or standing.get("ActiveState") == "active":
            return [Step(("systemctl", "disable", "--now", self.kit.standing), why)]
        return []

    def _going(self, standing: Mapping[str, str], service: Mapping[str, str]) -> Plan:
        why = f"{self.kit.name} is removed from this host"
        before = self._stopped(standing, why)
        if service.get("ActiveState") in ("active", "activating"):
            before.append(Step(("systemctl", "stop", self.kit.service), why))
        if service.get("ActiveState") == "failed":
            before.append(Step(("systemctl", "reset-failed", self.kit.service), why))
        names = [name for name, place in self.kit.places.items() if self._is_there(place.path)]
        traces = [path for path in self.kit.traces if self._is_there(path)]
        gone = [self.root / path for path in (*(self.kit.places[name].path for name in reversed(names)), *traces)]
        gone += sorted(self.root.glob(self.kit.compiled)) if self.kit.compiled else []
        return Plan(before=tuple(before), gone=tuple(gone), after=tuple(self._taken_up(names, False)))

    def _taken_up(self, names: Sequence[str], late: bool) -> list[Step]:
        steps = []
        if late or any(self.kit.places[name].path.startswith("etc/systemd/") for name in names):
            steps.append(Step(("systemctl", "daemon-reload"), f"the units of {self.kit.name} changed"))
        # a container has no udevd, and then nobody to tell
        if self.kit.rules in names and self._is_there("run/udev/control"):
            steps.append(Step(("udevadm", "control", "--reload"), f"the rules of {self.kit.name} changed"))
        return steps

    def _units(self) -> tuple[dict[str, str], dict[str, str]]:
        properties = "--property=LoadState,ActiveState,UnitFileState,NeedDaemonReload"
        code, said = self.runner(["systemctl", "show", properties, "--", *self.kit.units])
        if code:
            raise units.UnitError(f"systemctl show: {said.strip()}")
        found = [
            dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            for block in said.strip().split("\n\n")
        ]
        shown = dict(zip(self.kit.units, found))
        masked = [
            name for name, one in shown.items() if one.get("LoadState") == "masked" and (self.wanted or {}).get(name)
        ]
        if masked:
            raise units.UnitError(f"{', '.join(masked)} is masked. Unmask it: systemctl unmask {' '.join(masked)}")
        return shown.get(self.kit.standing, {}), shown.get(self.kit.service, {})

    def _differs(self, name: str) -> bool:
        place = self.kit.places[name]
        path = self._at(place.path)
        return self._text(name) != (self.wanted or {})[name] or not writing.is_kept(path, place.mode, self._ids(name))

    def _text(self, name: str) -> str | None:
        try:
            return self._at(self.kit.places[name].path).read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None

    def _ids(self, name: str) -> tuple[int, int]:
        group = self.kit.places[name].group
        return self.owners[group] if group in self.owners else writing.ids(("root", group))

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
        shown += [str(step) for step in (*decided.before, *decided.after, *decided.later)]
        return "".join(f"{line}\n" for line in shown).encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    # Doing

    def apply(self, decided: Plan) -> None:
        """Do what was decided. Raises units.UnitError, writing.WriteError and OSError; running it again goes on from there."""
        for step in decided.before:
            self._do(step)
        if decided.folder:
            decided.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._leave(decided.later)
        for name in decided.changed:
            place = self.kit.places[name]
            text = (self.wanted or {})[name]
            # a folder of drop-ins need not be there
            self._at(place.path).parent.mkdir(mode=0o755, exist_ok=True)
            writing.replace({self._at(place.path): text}, place.mode, self._ids(name))
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

    def _leave(self, later: Sequence[actions.Action]) -> None:
        """Add to what the module config finds left to be done."""
        path = self._at(f"run/{actions.PENDING}")
        try:
            left = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            left = []
        except ValueError:
            return  # it restarts all then
        more = [one for one in map(asdict, later) if one not in left]
        if more:
            writing.replace({path: json.dumps([*left, *more])}, 0o600)

    def _do(self, step: Step) -> None:
        code, said = self.runner(step.command)
        if code:
            raise units.UnitError(f"{' '.join(step.command)} failed: {said.strip()}")
