# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A change of a host as data: files, and actions before and after them, in order and with reasons. Changes nothing.

A deployment (actions.py), nut-hotplug (hotplug/decide.py) and the installation of our own programs (installation.py) decide on
changes. apply.py applies them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Generic, TypeVar

from ..base import systemd
from ..base.text import printable_text

CONTEXT = 3  # unchanged lines that a diff shows around each change


@dataclass(frozen=True)
class UnitAction:
    """One systemctl command for a unit."""

    verb: str  # of systemctl, with its options
    unit: str
    reason: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.verb} {self.unit}: {self.reason}"


@dataclass(frozen=True)
class CommandStep:
    """One command, and its reason."""

    command: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{' '.join(self.command)}: {self.reason}"


_AnyStep = TypeVar("_AnyStep", UnitAction, CommandStep)


@dataclass(frozen=True)
class FileChange:
    """A new text of a file, or its removal."""

    name: str
    path: Path
    old: str | None  # None: it does not exist, or its text does not matter
    new: str | None  # None: remove it
    redact: Callable[[str], str] | None = None  # masks secrets in the text; None: it has none

    def diff_lines(self) -> list[str]:
        """Return a diff, line by line. For NUT's own files it leaves out secrets and comments."""
        if self.new is None:
            return [f"{self.path}: removed"]
        before_lines, after_lines = (self._visible_lines(text) for text in (self.old or "", self.new))
        lines = difflib.unified_diff(before_lines, after_lines, str(self.path), str(self.path), lineterm="", n=CONTEXT)
        same = "mode or owner is corrected" if self.old == self.new else "only a secret or a comment changes"
        return list(lines) or [f"{self.path}: {same}"]

    def _visible_lines(self, text: str) -> list[str]:
        if self.redact is None:
            return text.splitlines()
        # most lines of the files that Debian ships are comments
        lines = self.redact(text).splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


@dataclass(frozen=True)
class Change(Generic[_AnyStep]):
    """Actions, then files, then more actions."""

    before: tuple[_AnyStep, ...] = ()
    files: tuple[FileChange, ...] = ()  # in the order in which they are written or removed
    after: tuple[_AnyStep, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to do."""
        return bool(self.before or self.files or self.after)

    @property
    def written_files(self) -> tuple[str, ...]:
        """Return the names of the files that are written."""
        return tuple(file.name for file in self.files if file.new is not None)

    @property
    def removed_paths(self) -> tuple[Path, ...]:
        """Return the paths that are removed."""
        return tuple(file.path for file in self.files if file.new is None)

    @property
    def steps(self) -> tuple[str, ...]:
        """Return the actions, one line each."""
        return tuple(str(step) for step in (*self.before, *self.after))

    def render_diff(self) -> str:
        """Return a diff of the files, followed by the actions."""
        return render_lines([*(line for file in self.files for line in file.diff_lines()), *self.steps])


def render_lines(lines: Iterable[str]) -> str:
    """Return lines as a text that is safe for a terminal; "" if there are none."""
    return "".join(f"{printable_text(line)}\n" for line in lines)


def rank_action(action: UnitAction) -> int:
    """Return an action's rank: units that others depend on come first."""
    if action.verb == "enable":
        return 4
    if action.verb == "stop":
        return -1
    return {systemd.ENUMERATOR: 0, systemd.SERVER: 2, systemd.MONITOR: 3}.get(action.unit, 1)


def order_actions(actions: Sequence[UnitAction]) -> tuple[UnitAction, ...]:
    """Sort actions by the dependencies of their units, and drop those that another action covers."""
    # A driver that is stopped before the enumerator runs must stay down until then. A restart for another reason, such as a new
    # sandbox, must not replace that stop.
    stopped = {action.unit for action in actions if action.verb == "stop"}
    actions = [
        replace(action, verb="start") if action.verb == "restart" and action.unit in stopped else action
        for action in actions
    ]
    # A reload right after a restart is harmful: a SIGHUP kills an upsd that is not ready for it yet.
    restarted = {action.unit for action in actions if action.verb == "restart"}
    needed = [action for action in actions if action.unit not in restarted or action.verb in ("restart", "enable")]
    first = {(action.verb, action.unit): action for action in reversed(needed)}
    return tuple(sorted((action for action in needed if first[action.verb, action.unit] is action), key=rank_action))


def stop_watcher_actions(watcher: systemd.Unit) -> tuple[UnitAction, ...]:
    """Return the action that disables the enumerator's path unit, which reacts to every write of ups.conf and would race with us."""
    if watcher.runs or watcher.enabled == "enabled":
        return (UnitAction("disable --now", systemd.WATCHER, "the enumerator is run once, when ups.conf is complete"),)
    return ()
