# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check that everything a policy names can be found: addresses of machines, guests and programs of stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..base import files, trust
from ..base.process import make_runner, run_within
from ..base.systemd import Run
from ..conf import programs
from ..proxmox.guests import GuestsError
from ..proxmox.selection import GuestFinder, SelectionResult
from .names import AddressCache
from .policy import ShutdownPolicy, Stage

FIND_SECONDS = 10.0
"""Time limit for reading Proxmox's files: /etc/pve is a FUSE file system, which may hang."""

NAME_SECONDS = 5.0
"""Time limit for resolving names while there is no outage."""


@dataclass(frozen=True)
class RefreshResult:
    """The outcome of a check. found, missing: lines for people."""

    is_valid: bool  # False only for mistakes in the policy: what is missing now may turn up later
    found: tuple[str, ...]
    missing: tuple[str, ...]


def refresh_known(
    policy: ShutdownPolicy, stages: Sequence[Stage], names: AddressCache, finder: GuestFinder, *, keep: bool
) -> RefreshResult:
    """Look for everything that the policy names. keep: save the guests that were found; `names` saves the addresses."""
    missing = [
        f"{name} can't be resolved: nut-shutdown can't see when that machine is down, and will wait for its whole shutdown_time"
        for name in names.resolve_policy_names(policy, NAME_SECONDS)
    ]
    untrusted = find_untrusted(stages)
    missing += find_unrunnable(stages, make_runner(NAME_SECONDS))
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
    """Return messages about the programs of stages that users other than root can change."""
    problems = [(stage, trust.find_untrusted(Path(stage.notify[0]))) for stage in stages if stage.notify]
    return [
        f"stage {stage.name}: notify {stage.notify[0]}: {problem}. root runs this program, so only root may be able to change it. "
        "Move it to a directory that only root can write to, such as /usr/local/sbin, or run chown root and chmod go-w on the path "
        "named here"
        for stage, problem in problems
        if problem
    ]


def find_unrunnable(stages: Sequence[Stage], runner: Run) -> list[str]:
    """Return messages about the programs of stages that root could not run."""
    problems = [
        (stage, programs.find_program_problem(stage.notify[0], programs.ROOT, runner))
        for stage in stages
        if stage.notify
    ]
    return [f"stage {stage.name}: notify {stage.notify[0]}: {problem}" for stage, problem in problems if problem]


def find_guests(finder: GuestFinder) -> SelectionResult:
    """Return the guests that the stages select, within FIND_SECONDS. Raise GuestsError."""
    try:
        return run_within(FIND_SECONDS, finder.select_guests)
    except TimeoutError:
        problem = (
            f"timed out after {FIND_SECONDS:g} s reading Proxmox's files (/etc/pve). Is pve-cluster.service running?"
        )
    except Exception as error:
        problem = f"can't find the guests of this host: {error}"
    raise GuestsError(problem)
