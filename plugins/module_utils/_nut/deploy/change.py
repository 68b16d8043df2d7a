# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to become of a host: which files, which steps before and after them, in which order, and why. Nothing is touched here.

A deployment (actions.py), nut-hotplug (hotplug/decide.py) and the installation of our own programs (installation.py) decide on
changes; apply.py takes them up.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Generic, TypeVar

from ..base import systemd
from ..base.text import printable_text

CONTEXT = 3  # lines around each difference that a diff shows


@dataclass(frozen=True)
class UnitAction:
    """One step for a unit of NUT's."""

    verb: str  # of systemctl, with its options
    unit: str
    reason: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.verb} {self.unit}: {self.reason}"


@dataclass(frozen=True)
class CommandStep:
    """One command, and what it is for."""

    command: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{' '.join(self.command)}: {self.reason}"


_AnyStep = TypeVar("_AnyStep", UnitAction, CommandStep)


@dataclass(frozen=True)
class FileChange:
    """What becomes of one file."""

    name: str  # by which its owner knows it
    path: Path
    old: str | None  # None: it is not there, or not a text of ours
    new: str | None  # None: it goes
    redact: Callable[[str], str] | None = None  # takes the secrets from such a text; None: there are none

    def diff_lines(self) -> list[str]:
        """Show what changes, line by line; of NUT's own files what NUT reads, without secrets and comments."""
        if self.new is None:
            return [f"{self.path}: removed"]
        was, will = (self._visible_lines(text) for text in (self.old or "", self.new))
        lines = difflib.unified_diff(was, will, str(self.path), str(self.path), lineterm="", n=CONTEXT)
        same = "mode or owner is corrected" if self.old == self.new else "only a secret or a comment changes"
        return list(lines) or [f"{self.path}: {same}"]

    def _visible_lines(self, text: str) -> list[str]:
        if self.redact is None:
            return text.splitlines()
        # the files that Debian ships are comment for the most part
        lines = self.redact(text).splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


@dataclass(frozen=True)
class Change(Generic[_AnyStep]):
    """What is to be done: steps, then files, then more steps."""

    before: tuple[_AnyStep, ...] = ()
    files: tuple[FileChange, ...] = ()  # in the order in which they are put in place, or removed
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
        """Return what is removed."""
        return tuple(file.path for file in self.files if file.new is None)

    @property
    def steps(self) -> tuple[str, ...]:
        """Return the steps, one line each."""
        return tuple(str(step) for step in (*self.before, *self.after))

    def render_diff(self) -> str:
        """Show what changes, file by file and step by step."""
        return render_lines([*(line for file in self.files for line in file.diff_lines()), *self.steps])


def render_lines(lines: Iterable[str]) -> str:
    """Return the lines of a diff as a text that is fit for a terminal; "" if there are none."""
    return "".join(f"{printable_text(line)}\n" for line in lines)


def rank_action(action: UnitAction) -> int:
    """Return an action's place in the order in which units need each other."""
    if action.verb == "enable":
        return 4
    if action.verb == "stop":
        return -1
    return {systemd.ENUMERATOR: 0, systemd.SERVER: 2, systemd.MONITOR: 3}.get(action.unit, 1)


def order_actions(actions: Sequence[UnitAction]) -> tuple[UnitAction, ...]:
    """Put actions into the order in which units need each other, without those that another of them does as well."""
    # What is stopped before the enumerator looks stays down until it has looked: a restart noted for another reason, such as a
    # new sandbox, must not take the place of that stop.
    stopped = {action.unit for action in actions if action.verb == "stop"}
    actions = [
        replace(action, verb="start") if action.verb == "restart" and action.unit in stopped else action
        for action in actions
    ]
    # A reload right behind a restart is worse than useless: a SIGHUP that comes before upsd is ready for one ends it.
    restarted = {action.unit for action in actions if action.verb == "restart"}
    needed = [action for action in actions if action.unit not in restarted or action.verb in ("restart", "enable")]
    first = {(action.verb, action.unit): action for action in reversed(needed)}
    return tuple(sorted((action for action in needed if first[action.verb, action.unit] is action), key=rank_action))


def stop_watcher_actions(watcher: systemd.Unit) -> tuple[UnitAction, ...]:
    """Return the step that stops the enumerator's own watcher, if it would react to each write of ups.conf, and race with us."""
    if watcher.runs or watcher.enabled == "enabled":
        return (UnitAction("disable --now", systemd.WATCHER, "the enumerator is run once, when ups.conf is complete"),)
    return ()
