# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Apply changes to the NUT of this host: its paths, the lock, the note of pending actions, and running actions.

For runs that are killed, see docs/architecture.md, "Killed anywhere".
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Callable

from ..base import files, jsontext, paths, records, sets
from ..base.files import Owner
from ..base.process import Find, find_program
from ..base.services import ServiceManager, Systemd
from ..base.systemd import Run, UnitError
from .change import UnitAction

# In /run, because a reboot makes pending actions unnecessary
PENDING = "homelab-nut-pending.json"


class Pending:
    """The note of pending actions: decided, their files in place, but not run yet. If a run is killed, the next one runs them."""

    def __init__(self, room: Path) -> None:
        self.path = room / PENDING

    def read_actions(self, units: Iterable[str]) -> list[UnitAction]:
        """Return the pending actions. units: restarted if the note can't be read."""
        try:
            data = jsontext.parse_json(self.path.read_bytes())
            return [records.build_record(UnitAction, action, "$") for action in data]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError):
            return [UnitAction("restart", unit, f"{self.path} can't be read") for unit in units]

    def render_note(self, actions: Iterable[UnitAction]) -> str:
        """Return the text of a note."""
        return json.dumps([asdict(action) for action in actions])

    def write_actions(self, actions: Sequence[UnitAction]) -> None:
        """Replace the note; remove it if there are no actions. Raises WriteError."""
        if actions:
            files.replace_files({self.path: self.render_note(actions)}, 0o600)
        else:
            self.path.unlink(missing_ok=True)

    def add_actions(self, actions: Sequence[UnitAction]) -> None:
        """Add actions to the note. A note that can't be read stays, because it causes everything to be restarted. Raises WriteError."""
        owed = self.read_actions([""])
        more = [action for action in actions if action not in owed]
        if more and all(action.unit for action in owed):
            self.write_actions([*owed, *more])


@dataclass(frozen=True)
class LocalNut:
    """The NUT of this host: its paths, how to run programs, and the manager of its services."""

    runner: Run
    conf_dir: Path = Path("/", paths.NUT)
    run_dir: Path = Path("/run")  # for the lock, notes and scratch directories; empty after a reboot
    hotplug_state: Path = Path("/", paths.HOTPLUG_STATE)
    manifest: Path = sets.MANIFEST
    unit_dir: Path = Path("/", paths.UNITS)
    owner: Owner = ("root", "nut")
    finder: Find = find_program
    services: ServiceManager | None = None  # None: systemd

    @classmethod
    def below_root(cls, root: Path, runner: Run) -> LocalNut:
        """Return the NUT of a host whose root directory is ROOT."""
        return cls(
            runner,
            conf_dir=root / paths.NUT,
            run_dir=root / "run",
            hotplug_state=root / paths.HOTPLUG_STATE,
            manifest=root / sets.MANIFEST.relative_to("/"),
            unit_dir=root / paths.UNITS,
        )

    @property
    def manager(self) -> ServiceManager:
        """Return the manager of this host's services."""
        return self.services or Systemd(self.runner, self.unit_dir)

    @property
    def pending(self) -> Pending:
        """Return the note of pending actions."""
        return Pending(self.run_dir)

    def hold_lock(self, seconds: float, pause: Callable[[float], None] = time.sleep) -> AbstractContextManager[str]:
        """Hold the lock against other runs, and complete or undo what killed runs left. Yields a message about that, or "".

        This is also done on battery. It touches no daemon, and a half-replaced set of files is the worst state for a daemon that
        restarts, or for the last step of a shutdown. The files were checked as a set, on mains, before they were written.
        Raises files.Busy after SECONDS, sets.UnfinishedSet, and OSError.
        """
        folders = (self.conf_dir, self.hotplug_state.parent, *self.unit_dir.glob("nut-driver@*.service.d"))
        return sets.hold_lock_and_recover(self.run_dir, seconds, folders, manifest=self.manifest, pause=pause)

    def read_file(self, name: str) -> str | None:
        """Return the text of one of NUT's files; None if there is none. Raises OSError."""
        try:
            # as bytes, because reading text would drop carriage returns and the file would always seem changed
            return (self.conf_dir / name).read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None

    def run_action(self, action: UnitAction, *, wait: bool = True) -> UnitAction:
        """Run an action. Returns the action that was really run. wait: until a driver has started. Raises UnitError."""
        try:
            self.manager.change_unit(action.verb, action.unit, wait=wait)
        except UnitError:
            if action.verb != "reload" or self._is_running(action.unit):
                raise
            # the daemon has exited since the plan was made, and Debian 12 does not restart it
            return self.run_action(replace(action, verb="restart"))
        return action

    def _is_running(self, unit: str) -> bool:
        try:
            return self.manager.show_units([unit])[unit].runs
        except UnitError:
            return True

    def run_actions(
        self, actions: Sequence[UnitAction], do: Callable[[UnitAction], None], noted: Sequence[UnitAction] | None = None
    ) -> None:
        """Run actions, and remove each from the note once it is done, so that the next run does not repeat it.

        noted: the actions in the note, if there are more than these. The others stay there.
        """
        owed = list(actions if noted is None else noted)
        for action in actions:
            do(action)
            owed = [other for other in owed if (other.unit, other.reason) != (action.unit, action.reason)]
            self._write_pending(owed)
        self._write_pending(owed)

    def _write_pending(self, owed: Sequence[UnitAction]) -> None:
        # if this fails, the next run repeats some actions
        with contextlib.suppress(files.WriteError):
            self.pending.write_actions(owed)
