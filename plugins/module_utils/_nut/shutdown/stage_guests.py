# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guests that the stages shut down. They are looked up when an outage begins, in a thread because that may hang."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Callable, Protocol

from ..base import files
from ..proxmox import control, guests
from ..proxmox.selection import ChosenGuest
from .policy import Stage, StageGuest

# FSD waits so long for the lookup; a failed lookup is repeated after so long
FIND_SECONDS = 10.0
RETRY_SECONDS = 30.0

RunInThread = Callable[[Callable[[], None]], None]


class GuestSource(Protocol):
    """Looks up the guests of the stages: proxmox.selection.GuestFinder, or a stand-in of tests."""

    def find_guests(self) -> Mapping[str, Sequence[ChosenGuest]]:
        """Return stage name -> its guests. Raise GuestsError. It may hang."""

    def read_kept(self) -> Mapping[str, Sequence[ChosenGuest]]:
        """Return the result that was saved last."""

    def keep_guests(self, found: Mapping[str, Sequence[ChosenGuest]]) -> bool:
        """Save a result. Raise files.WriteError."""


@dataclass
class _GuestSearch:
    """One lookup of the guests."""

    began: float  # seconds
    has_ended: bool = False
    has_succeeded: bool = False
    is_reported_late: bool = False  # the log says that it takes too long


@dataclass
class StageResolver:
    """The stages with their guests, as far as known."""

    stages: tuple[Stage, ...]  # with their guests; at first only those that the policy names with their kind
    finder: GuestSource | None  # None: the guests in the policy are all
    clock: control.Clock
    run_in_thread: RunInThread  # runs a function in a thread
    log: Callable[[str], None]
    log_problem: Callable[[str], None]  # logs a repeated message only now and then
    _policy_stages: tuple[Stage, ...] = field(init=False)
    _search: _GuestSearch | None = field(default=None, init=False)
    _logged: dict[str, str] = field(default_factory=dict, init=False)  # stage name -> the last line about its guests

    def __post_init__(self) -> None:
        """Start with the guests in the policy."""
        self._policy_stages = self.stages

    def update_search(self, *, outage: bool) -> bool:
        """Start a lookup when an outage begins, and another if it fails. Return whether FSD should wait for it."""
        if self.finder is None or not any(stage.select for stage in self._policy_stages):
            return False
        search = self._search
        if not outage:
            if search and search.has_ended:
                self._search = None
            return False
        if search is None or (
            search.has_ended and not search.has_succeeded and self.clock() - search.began >= RETRY_SECONDS
        ):
            self._use_guests(self.finder.read_kept())
            self._search = search = _GuestSearch(self.clock())
            self._start_search(self.finder, search)
        is_late = self.clock() - search.began >= FIND_SECONDS
        if is_late and not search.has_ended and not search.is_reported_late:
            search.is_reported_late = True
            self.log(f"the stages' guests were not found within {FIND_SECONDS:g} s: using those found last")
        return not search.has_ended and not is_late

    def _start_search(self, finder: GuestSource, search: _GuestSearch) -> None:
        def search_in_background() -> None:
            try:
                found = finder.find_guests()
                search.has_succeeded = True
                self._use_guests(found)
                self._log_guests()
                finder.keep_guests(found)
            except Exception as error:
                fallback = "" if search.has_succeeded else ": using those found last"
                self.log_problem(f"{_describe_error(error)}{fallback}")
            finally:
                search.has_ended = True

        self.run_in_thread(search_in_background)

    def _use_guests(self, found: Mapping[str, Sequence[ChosenGuest]]) -> None:
        """Replace the guests of the stages. A stage that is not in the result keeps the guests in the policy."""
        self.stages = tuple(
            replace(stage, guests=tuple(_stage_guest(guest) for guest in found[stage.name]))
            if stage.name in found
            else stage
            for stage in self._policy_stages
        )

    def _log_guests(self) -> None:
        """Log which guests each stage stops, if that has changed."""
        for stage in self.stages:
            names = ", ".join(str(target.guest) for target in stage.guests)
            line = f"stage {stage.name} stops {names or 'no guest of this host'}"
            if stage.select and self._logged.get(stage.name) != line:
                self._logged[stage.name] = line
                self.log(line)


def _stage_guest(chosen: ChosenGuest) -> StageGuest:
    return StageGuest(chosen.guest.kind, chosen.guest.id, chosen.seconds, chosen.guest.name)


def _describe_error(error: Exception) -> str:
    """Return an error's message, with its type if it was not raised on purpose."""
    if isinstance(error, (guests.GuestsError, files.WriteError)):
        return str(error)
    return f"can't find the guests of the stages: {type(error).__name__}: {error}"
