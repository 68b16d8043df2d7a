# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether all that a policy names can be found on this host: addresses of names, guests of stages, programs of stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base import files, trust
from ..base.process import run_within
from ..proxmox.guests import GuestsError
from ..proxmox.selection import GuestFinder, SelectionResult
from .names import AddressCache
from .policy import ShutdownPolicy, Stage

FIND_SECONDS = 10.0
"""What Proxmox's files have for being read. They are no files of a disk, and may hang."""

NAME_SECONDS = 5.0
"""What the system has for finding an address, where nothing is in a hurry."""


@dataclass(frozen=True)
class RefreshResult:
    """What was found."""

    is_right: bool  # what can't be found now may be later, and makes no policy wrong
    found: tuple[str, ...]
    missing: tuple[str, ...]


def refresh_known(
    policy: ShutdownPolicy, stages: Sequence[Stage], names: AddressCache, finder: GuestFinder, *, keep: bool
) -> RefreshResult:
    """Look for all that the policy names. keep: remember which guests were found; which addresses, names decides."""
    missing = [
        f"{name} has no address here: nut-shutdown can't see when that machine is down, and will wait for its whole shutdown_time"
        for name in names.resolve_policy_names(policy, NAME_SECONDS)
    ]
    untrusted = find_untrusted(stages)
    if untrusted or not any(stage.select for stage in stages):
        return RefreshResult(not untrusted, (), (*missing, *untrusted))
    try:
        found = find_guests(finder)
    except GuestsError as error:
        return RefreshResult(True, (), (*missing, str(error)))
    missing += found.unmatched
    try:
        if keep:
            finder.keep_guests(found.guests_by_stage)
    except files.WriteError as error:
        missing.append(str(error))
    lines = [
        f"stage {name} stops {', '.join(str(choice.guest) for choice in chosen) or 'no guest of this host'}"
        for name, chosen in found.guests_by_stage.items()
    ]
    return RefreshResult(True, tuple(lines), tuple(missing))


def find_untrusted(stages: Sequence[Stage]) -> list[str]:
    """Return which programs of stages others than root can change, and what to do: root runs them."""
    found = [(stage, trust.find_untrusted(Path(stage.notify[0]))) for stage in stages if stage.notify]
    return [
        f"stage {stage.name}: notify {stage.notify[0]}: {why}. root runs it, so only root may be able to write there. Put it where "
        "root alone can write, such as /usr/local/sbin, or run chown root and chmod go-w for what is named here"
        for stage, why in found
        if why
    ]


def find_guests(finder: GuestFinder) -> SelectionResult:
    """Have the guests of this host found, within FIND_SECONDS. Raises guests.GuestsError."""
    try:
        return run_within(FIND_SECONDS, finder.select_guests)
    except TimeoutError:
        words = f"Proxmox's files (/etc/pve) can't be read within {FIND_SECONDS:g} s. Is pve-cluster.service running?"
    except Exception as error:
        words = f"the guests of this host can't be found: {error}"
    raise GuestsError(words)
