# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Install or remove one of our own programs on a host, with its files and units."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..base import files, paths, systemd
from ..base.text import one_line
from . import sandbox
from .apply import Pending
from .change import Change, CommandStep, FileChange, UnitAction, render_lines
from .kits import HOTPLUG, Kit


class InstallError(Exception):
    """Nothing can be installed. The message says why, and what to do."""


@dataclass(frozen=True)
class InstallPlan(Change[CommandStep]):
    """The change of an installation, and the restarts that are left to the module config."""

    folder: Path | None = None  # of the log, to be created; None if it exists
    # for the module config, which first checks that no UPS is on battery
    later: tuple[UnitAction, ...] = ()
    refused: Mapping[str, str] | None = None  # new content of sandbox.REFUSED; None if it stays

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return super().__bool__() or self.folder is not None or self.refused is not None

    @property
    def steps(self) -> tuple[str, ...]:
        """Return the steps, one line each."""
        return (*super().steps, *map(str, self.later))

    def render_diff(self) -> str:
        """Return a diff of the files, without secrets, followed by the actions."""
        record = [] if self.refused is None else [f"/{sandbox.REFUSED}: {', '.join(sorted(self.refused)) or 'removed'}"]
        return super().render_diff() + render_lines(record)


def _made_by(tmpfiles: str) -> dict[str, str]:
    """Return path -> text of the files that a tmpfiles.d file creates. Reads only lines of type `f+`."""
    lines = [shlex.split(line) for line in tmpfiles.splitlines() if line.startswith("f+ ")]
    return {fields[1].replace("%%", "%"): fields[6] for fields in lines}


@dataclass
class Installation:
    """The files and units of a kit on one host."""

    # name of a place of the kit -> text, "" for no such file; None: remove the program
    wanted: Mapping[str, str] | None
    runner: systemd.Run
    log: Path | None = None  # the program's log
    root: Path = Path("/")
    owners: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # group -> (uid, gid), for tests without root
    kit: Kit = HOTPLUG
    program_changed: bool = False  # the program itself was replaced, so its running units must be restarted
    try_sandboxes: bool = True  # False: use the result of the last try, in sandbox.REFUSED
    # name of a sandbox -> why this host runs without it
    refused: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Check that the set of files is complete. Raises InstallError."""
        if self.wanted is not None and set(self.wanted) != set(self.kit.places):
            raise InstallError(
                f"files must be {', '.join(self.kit.places)}, not {', '.join(sorted(self.wanted)) or 'none'}",
            )
        for name in self.wanted or ():
            if not (self.wanted or {})[name] and name not in self.kit.optional:
                raise InstallError(f"files: {name} is empty, but {self.kit.name} needs it")

    @property
    def _marker(self) -> Path:
        """A file that exists while new files are installed but not activated. It is in /run, because a reboot activates them."""
        return self._below_root(f"run/{self.kit.name}.pending")

    # Observing

    def plan_install(self) -> InstallPlan:
        """Decide what to do. Raises systemd.UnitError, OSError, and LookupError if there is no group nut."""
        shown = self._show_units()
        if self.wanted is None:
            return self._plan_absent(shown)
        self._drop_refused_sandboxes()
        return self._plan_present(shown)

    def _drop_refused_sandboxes(self) -> None:
        """Drop sandboxes that this host can't apply: a unit that does not start is worse than one with too many rights."""
        known = {} if self.try_sandboxes else sandbox.read_refused(self.root)
        for name, unit in self.kit.sandboxes.items():
            text = (self.wanted or {})[name]
            if not text or not self._is_outdated(name):
                continue
            if not self.try_sandboxes and name in known:
                self.refused[name] = known[name]
            elif self.try_sandboxes and (why := sandbox.try_sandbox(text, self.runner)):
                self.refused[name] = (
                    f"{unit} runs without its sandbox ({systemd.HARDENING}), because this host can't apply it: {why}"
                )
        self.wanted = {**(self.wanted or {}), **dict.fromkeys(self.refused, "")}

    def list_warnings(self) -> list[str]:
        """Return warnings about sandboxes, with what to do about them."""
        lost = self._find_confined_drop_ins()
        warning = (
            f"{', '.join(lost)}: the ExecStartPre= and ExecStartPost= commands there now run as the user nut, without "
            "capabilities. Put + before a command that needs root (ExecStartPre=+/path), or run without sandboxes on this host: "
            f"{self.kit.hardening_variable}=false"
        )
        return [*(f"{why}. {self.kit.remedy}" for why in self.refused.values()), *([warning] if lost else [])]

    def _find_confined_drop_ins(self) -> list[str]:
        """Return foreign drop-ins that add commands to units whose sandbox removes root's rights."""
        wanted = self.wanted or {}
        confined = [unit for name, unit in self.kit.sandboxes.items() if sandbox.drops_root(wanted.get(name, ""))]
        ours = {f"/{place.path}" for place in self.kit.places.values()}
        return sandbox.find_confined(self.root, self._expand_driver_units(confined), ours, self.runner)

    def _expand_driver_units(self, units: Sequence[str]) -> list[str]:
        """Return units with the drivers' template replaced by its instances."""
        drivers = systemd.drivers_at_boot(self.root / paths.UNITS) if systemd.DRIVER_TEMPLATE in units else ()
        return [*drivers, *(unit for unit in units if unit != systemd.DRIVER_TEMPLATE)]

    def _find_refused(self) -> Mapping[str, str] | None:
        """Return the new content of sandbox.REFUSED, with the entries of other kits; None if it stays."""
        known = sandbox.read_refused(self.root)
        others = {name: why for name, why in known.items() if name not in self.kit.sandboxes}
        now = {**others, **self.refused}
        return None if now == known else now

    def _plan_present(self, shown: Mapping[str, systemd.Unit]) -> InstallPlan:
        wanted = self.wanted or {}
        changed = [name for name in self.kit.places if wanted[name] and self._is_outdated(name)]
        gone = [name for name in self.kit.places if not wanted[name] and self._is_there(self.kit.places[name].path)]
        cut_short = self._marker.exists()
        late = cut_short or any(unit.outdated for unit in shown.values())
        after = self._reload_steps([*changed, *gone], late)
        before: list[CommandStep] = []
        for name in self.kit.always_on:
            if wanted[name]:
                after += self._start_steps(name, shown.get(name, systemd.ABSENT), [*changed, *gone], cut_short)
            else:
                before += self._stop_steps(name, shown.get(name, systemd.ABSENT), f"{name} has nothing to do")
        after += self._tmpfiles_steps(changed)
        folder = self._below_root(str(self.log.parent)) if self.log else None
        return InstallPlan(
            before=tuple(before),
            files=(
                *(self._file_change(name) for name in changed),
                *map(
                    _file_removal,
                    (*(self._below_root(self.kit.places[name].path) for name in gone), *self._obsolete_tmpfiles()),
                ),
            ),
            folder=None if folder is None or folder.is_dir() else folder,
            after=tuple(after),
            later=self._delayed_restarts(cut_short),
            refused=self._find_refused(),
        )

    def _start_steps(self, name: str, unit: systemd.Unit, changed: Sequence[str], cut_short: bool) -> list[CommandStep]:
        steps = []
        if unit.enabled != "enabled":
            steps.append(CommandStep(("systemctl", "enable", name), "not enabled at boot"))
        if unit.active != "active":
            steps.append(CommandStep(("systemctl", "start", name), "not running"))
        elif renewed := [file for file in (name, *self.kit.unit_inputs.get(name, ())) if file in changed]:
            steps.append(CommandStep(("systemctl", "restart", name), f"{renewed[0]} changed"))
        elif self.program_changed or cut_short:
            steps.append(CommandStep(("systemctl", "restart", name), f"{self.kit.name} changed"))
        return steps

    def _delayed_restarts(self, cut_short: bool) -> tuple[UnitAction, ...]:
        """Return restarts of NUT's daemons that still run in their old sandbox.

        cut_short: an earlier run was killed. Its noted restarts may have been done before systemd knew the new sandboxes.
        """
        wanted = self.wanted or {}
        other = [
            unit
            for name, unit in self.kit.sandboxes.items()
            if unit not in self.kit.units
            and (
                cut_short
                or sandbox.list_settings(wanted[name]) != sandbox.list_settings(self._current_text(name) or "")
            )
        ]
        daemons = self._expand_driver_units(other)
        shown = systemd.show_units(daemons, self.runner) if daemons else {}
        return tuple(UnitAction("restart", unit, "its sandbox changed") for unit in daemons if shown[unit].runs)

    def _stop_steps(self, name: str, unit: systemd.Unit, why: str) -> list[CommandStep]:
        if unit.enabled == "enabled" or unit.active == "active":
            return [CommandStep(("systemctl", "disable", "--now", name), why)]
        return []

    def _plan_absent(self, shown: Mapping[str, systemd.Unit]) -> InstallPlan:
        why = f"removing {self.kit.name} from this host"
        before = [
            step for name in self.kit.always_on for step in self._stop_steps(name, shown.get(name, systemd.ABSENT), why)
        ]
        service = shown.get(self.kit.service, systemd.ABSENT)
        if self.kit.service not in self.kit.always_on and service.active in ("active", "activating"):
            before.append(CommandStep(("systemctl", "stop", self.kit.service), why))
        if service.active == "failed":
            before.append(CommandStep(("systemctl", "reset-failed", self.kit.service), why))
        names = [name for name, place in self.kit.places.items() if self._is_there(place.path)]
        traces = [path for path in self.kit.leftovers if self._is_there(path)]
        gone = [self.root / path for path in (*(self.kit.places[name].path for name in reversed(names)), *traces)]
        gone += self._obsolete_tmpfiles()
        return InstallPlan(
            before=tuple(before),
            files=tuple(map(_file_removal, gone)),
            after=tuple(self._reload_steps(names, False)),
            refused=self._find_refused(),
        )

    def _reload_steps(self, names: Sequence[str], late: bool) -> list[CommandStep]:
        steps = []
        if late or any(self.kit.places[name].path.startswith(paths.UNITS) for name in names):
            steps.append(CommandStep(("systemctl", "daemon-reload"), f"the units of {self.kit.name} changed"))
        # containers have no udevd
        if self.kit.rules in names and self._is_there("run/udev/control"):
            steps.append(CommandStep(("udevadm", "control", "--reload"), f"the rules of {self.kit.name} changed"))
        return steps

    def _tmpfiles_steps(self, changed: Sequence[str]) -> list[CommandStep]:
        """Return the step that makes systemd-tmpfiles create the kit's files, if one is missing or differs."""
        name = self.kit.tmpfiles
        made = _made_by((self.wanted or {}).get(name, ""))
        lacking = [path for path, text in made.items() if not self._has_text(path, text)]
        if not made or not (lacking or name in changed):
            return []
        why = f"{lacking[0]} is missing" if lacking else f"the files of {self.kit.name} changed"
        return [CommandStep(("systemd-tmpfiles", "--create", f"/{self.kit.places[name].path}"), why)]

    def _has_text(self, path: str, text: str) -> bool:
        target = self._below_root(path)
        return target.is_file() and not target.is_symlink() and target.read_bytes() == text.encode()

    def _obsolete_tmpfiles(self) -> list[Path]:
        """Return the files that systemd-tmpfiles created for the kit before and does not create any more."""
        name = self.kit.tmpfiles
        before = _made_by(self._current_text(name) or "") if name else {}
        now = _made_by((self.wanted or {}).get(name, ""))
        return [self._below_root(path) for path in before if path not in now and self._is_there(path)]

    def _show_units(self) -> dict[str, systemd.Unit]:
        shown = systemd.show_units(self.kit.units, self.runner)
        masked = [name for name, unit in shown.items() if unit.load == "masked" and (self.wanted or {}).get(name)]
        if masked:
            raise systemd.UnitError(f"{', '.join(masked)} is masked. Unmask it: systemctl unmask {' '.join(masked)}")
        return shown

    def _is_outdated(self, name: str) -> bool:
        place = self.kit.places[name]
        path = self._below_root(place.path)
        return self._current_text(name) != (self.wanted or {})[name] or not files.has_mode_and_owner(
            path, place.mode, self._owner_ids(name)
        )

    def _file_change(self, name: str) -> FileChange:
        path = self._below_root(self.kit.places[name].path)
        redact = (lambda _text: "") if name in self.kit.secrets else None
        return FileChange(name, path, self._current_text(name), (self.wanted or {})[name], redact)

    def _current_text(self, name: str) -> str | None:
        try:
            return self._below_root(self.kit.places[name].path).read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None

    def _owner_ids(self, name: str) -> tuple[int, int]:
        group = self.kit.places[name].group
        return self.owners[group] if group in self.owners else files.resolve_owner(("root", group))

    def _below_root(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _is_there(self, path: str) -> bool:
        target = self._below_root(path)
        return target.exists() or target.is_symlink()

    # Acting

    def apply_plan(self, decided: InstallPlan) -> None:
        """Apply a plan. Raises systemd.UnitError, files.WriteError and OSError. After a failure, the next run continues from there."""
        if not decided:
            return
        self._marker.parent.mkdir(exist_ok=True)
        self._marker.touch(mode=0o600)
        for step in decided.before:
            self._run_step(step)
        if decided.folder:
            decided.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        Pending(self._below_root("run")).add_actions(decided.later)
        if decided.refused is not None:
            sandbox.write_refused(self.root, decided.refused)
        for file in decided.files:
            if file.new is None:
                _remove_path(file.path)
                continue
            # the directory of a drop-in may not exist yet
            file.path.parent.mkdir(mode=0o755, exist_ok=True)
            files.replace_files({file.path: file.new}, self.kit.places[file.name].mode, self._owner_ids(file.name))
        for step in decided.after:
            self._run_step(step)
        self._marker.unlink()

    def _run_step(self, step: CommandStep) -> None:
        code, output = self.runner(step.command)
        if code:
            raise systemd.UnitError(f"{' '.join(step.command)} failed: {one_line(output)}")


def _file_removal(path: Path) -> FileChange:
    return FileChange("", path, None, None)


def _remove_path(path: Path) -> None:
    """Remove a file or directory, and its directory of drop-ins if that is empty then. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    path.unlink()
    if path.parent.name.endswith(".service.d"):
        with contextlib.suppress(OSError):
            path.parent.rmdir()
