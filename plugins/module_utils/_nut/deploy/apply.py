# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Taking up a change on a host: where its NUT is, the lock, the note of what is still owed, and one step after another.

What becomes of a run that is killed here or there: docs/architecture.md, "Killed anywhere".
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

from ..base import files, jsontext, paths, sets
from ..base import systemd as base_systemd
from ..base.files import Owner
from ..base.process import Find, find_program
from ..base.systemd import Run
from .change import UnitAction

# In /run: what a run has decided on and not lived to do, for the next one. A reboot does it all.
PENDING = "homelab-nut-pending.json"


class Pending:
    """The note of what is owed: steps that were decided on, for files that are in place, and have not been done yet."""

    def __init__(self, room: Path) -> None:
        self.path = room / PENDING

    def read_actions(self, units: Iterable[str]) -> list[UnitAction]:
        """Return what is owed. units: what is restarted if the note can't be read, as nobody knows what it said."""
        try:
            data = jsontext.parse_json(self.path.read_bytes())
            return [UnitAction(str(step["verb"]), str(step["unit"]), str(step["reason"])) for step in data]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError):
            return [UnitAction("restart", unit, f"{self.path} can't be read") for unit in units]

    def render_note(self, actions: Iterable[UnitAction]) -> str:
        """Return the text of a note."""
        return json.dumps([asdict(action) for action in actions])

    def write_actions(self, actions: Sequence[UnitAction]) -> None:
        """Note what is owed; without any, no note is left. Raises WriteError."""
        if actions:
            files.replace_files({self.path: self.render_note(actions)}, 0o600)
        else:
            self.path.unlink(missing_ok=True)

    def add_actions(self, actions: Sequence[UnitAction]) -> None:
        """Add to what is owed. A note that can't be read stays: it has all restarted. Raises WriteError."""
        owed = self.read_actions([""])
        more = [action for action in actions if action not in owed]
        if more and all(action.unit for action in owed):
            self.write_actions([*owed, *more])


@dataclass(frozen=True)
class LocalNut:
    """The NUT of this host: where its files are, and how it is reached."""

    runner: Run
    conf_dir: Path = Path("/", paths.NUT)
    run_dir: Path = Path("/run")  # of the lock, notes and scratch directories: empty after a reboot
    hotplug_state: Path = Path("/", paths.HOTPLUG_STATE)
    manifest: Path = sets.MANIFEST
    unit_dir: Path = Path("/", paths.UNITS)
    owner: Owner = ("root", "nut")
    finder: Find = find_program

    @classmethod
    def below_root(cls, root: Path, runner: Run) -> LocalNut:
        """Return the NUT of the host whose files are below a directory."""
        return cls(
            runner,
            conf_dir=root / paths.NUT,
            run_dir=root / "run",
            hotplug_state=root / paths.HOTPLUG_STATE,
            manifest=root / sets.MANIFEST.relative_to("/"),
            unit_dir=root / paths.UNITS,
        )

    @property
    def pending(self) -> Pending:
        """Return the note of what is owed."""
        return Pending(self.run_dir)

    def hold_lock(self, seconds: float, pause: Callable[[float], None] = time.sleep) -> AbstractContextManager[str]:
        """Keep other runs out, and put right what killed ones have left; yields what that was.

        That is done on battery, too. It touches no daemon, and what is half in place is the worst that one can meet which
        ends and is started again, or the last step of a shutdown. What was half written was judged as a whole, on mains.
        Raises files.Busy after SECONDS, sets.UnfinishedSet, and OSError.
        """
        folders = (self.conf_dir, self.hotplug_state.parent, *self.unit_dir.glob("nut-driver@*.service.d"))
        return sets.hold_lock_and_recover(self.run_dir, seconds, folders, manifest=self.manifest, pause=pause)

    def read_file(self, name: str) -> str | None:
        """Return the text of one of NUT's files; None if there is none. Raises OSError."""
        try:
            # as bytes: as text, a carriage return would be lost, and the file differ from what was written for ever
            return (self.conf_dir / name).read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None

    def run_action(self, action: UnitAction, *, wait: bool = True) -> UnitAction:
        """Take one step. Returns the one that was taken. wait: until a driver has started. Raises systemd.UnitError."""
        begins = action.verb in ("restart", "start")
        late = " --no-block" if begins and not wait and base_systemd.is_driver(action.unit) else ""
        try:
            if begins:
                # systemd gives up on a unit that failed often, and refuses to start it until told to forget
                self.runner(["systemctl", "reset-failed", action.unit])
            base_systemd.run_systemctl(action.verb + late, action.unit, runner=self.runner)
        except base_systemd.UnitError:
            if action.verb != "reload" or self._is_running(action.unit):
                raise
            # it has ended since the plan was made, and Debian 12 does not start it again
            return self.run_action(replace(action, verb="restart"))
        return action

    def _is_running(self, unit: str) -> bool:
        try:
            return base_systemd.show_units([unit], self.runner)[unit].runs
        except base_systemd.UnitError:
            return True

    def run_actions(
        self, actions: Sequence[UnitAction], do: Callable[[UnitAction], None], noted: Sequence[UnitAction] | None = None
    ) -> None:
        """Take one step after another, and each out of the note when it is done: a run that is cut short does not do it again.

        noted: what the note says, if that is more than the steps. What is left of it stays.
        """
        owed = list(actions if noted is None else noted)
        for action in actions:
            do(action)
            owed = [other for other in owed if (other.unit, other.reason) != (action.unit, action.reason)]
            self._write_pending(owed)
        self._write_pending(owed)

    def _write_pending(self, owed: Sequence[UnitAction]) -> None:
        # else some of it is done again
        with contextlib.suppress(files.WriteError):
            self.pending.write_actions(owed)
