# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which guests the stages stop: found anew when an outage begins, beside the loop, for that may hang."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Callable, Protocol

from ..base import files
from ..proxmox import control, guests
from ..proxmox.selection import ChosenGuest
from .policy import Stage, StageGuest

# How long FSD waits, when an outage begins, until the guests have been found; and when that is tried again if it failed
FIND_SECONDS = 10.0
FIND_AGAIN = 30.0

Start = Callable[[Callable[[], None]], None]


class GuestSource(Protocol):
    """Who finds the guests of the stages: selection.GuestFinder."""

    def find_guests(self) -> Mapping[str, Sequence[ChosenGuest]]:
        """Find them: name of a stage -> its guests. Raises guests.GuestsError. It may hang."""

    def read_kept(self) -> Mapping[str, Sequence[ChosenGuest]]:
        """Return those that were found last."""

    def keep_guests(self, found: Mapping[str, Sequence[ChosenGuest]]) -> bool:
        """Keep them. Raises files.WriteError."""


@dataclass
class _GuestSearch:
    """One try to find the guests. good: it has found them."""

    began: float
    ended: bool = False
    good: bool = False
    told: bool = False  # that it takes too long


@dataclass
class StageResolver:
    """The stages with their guests, as they are known at this moment."""

    stages: tuple[Stage, ...]  # with the guests; at first those of the policy
    finder: GuestSource | None  # None: there are no others
    clock: control.Clock
    start: Start  # does something beside the loop
    say: Callable[[str], None]
    complain: Callable[[str], None]
    _given: tuple[Stage, ...] = field(init=False)  # as the policy has them
    _search: _GuestSearch | None = field(default=None, init=False)
    _shown: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Begin with what the policy says."""
        self._given = self.stages

    def update_search(self, *, outage: bool) -> bool:
        """Have the guests found when an outage begins, beside the loop. Returns whether FSD should wait for that."""
        if self.finder is None or not any(stage.select for stage in self._given):
            return False
        search = self._search
        if not outage:
            if search and search.ended:
                self._search = None
            return False
        if search is None or (search.ended and not search.good and self.clock() - search.began >= FIND_AGAIN):
            self._use_guests(self.finder.read_kept())
            self._search = search = _GuestSearch(self.clock())
            self._start_search(self.finder, search)
        late = self.clock() - search.began >= FIND_SECONDS
        if late and not search.ended and not search.told:
            search.told = True
            self.say(f"the stages' guests were not found within {FIND_SECONDS:g} s: using those found last")
        return not search.ended and not late

    def _start_search(self, finder: GuestSource, search: _GuestSearch) -> None:
        def search_in_background() -> None:
            try:
                found = finder.find_guests()
                search.good = True
                self._use_guests(found)
                self._log_guests()
                finder.keep_guests(found)
            except Exception as error:
                lost = "" if search.good else ": using those found last"
                self.complain(f"{_describe_error(error)}{lost}")
            finally:
                search.ended = True

        self.start(search_in_background)

    def _use_guests(self, found: Mapping[str, Sequence[ChosenGuest]]) -> None:
        """Let these be the guests of the stages. A stage that is not among them stops those whose kind the policy gives."""
        self.stages = tuple(
            replace(stage, guests=tuple(_stage_guest(guest) for guest in found[stage.name]))
            if stage.name in found
            else stage
            for stage in self._given
        )

    def _log_guests(self) -> None:
        """Log who the stages are for, if it is news."""
        for stage in self.stages:
            names = ", ".join(str(target.guest) for target in stage.guests)
            words = f"stage {stage.name} stops {names or 'no guest of this host'}"
            if stage.select and self._shown.get(stage.name) != words:
                self._shown[stage.name] = words
                self.say(words)


def _stage_guest(chosen: ChosenGuest) -> StageGuest:
    return StageGuest(chosen.guest.kind, chosen.guest.id, chosen.seconds, chosen.guest.name)


def _describe_error(error: Exception) -> str:
    """Return what went wrong: an error of ours by its words alone."""
    ours = isinstance(error, (guests.GuestsError, files.WriteError))
    return str(error) if ours else f"the guests of the stages can't be found: {type(error).__name__}: {error}"
