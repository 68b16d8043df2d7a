# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Choose and play the cases: power cuts in which something goes wrong, each with its steps and what must be true afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import Lab, daemon_cases, host_cases, outage_cases, proxmox_cases, return_cases, two_upses
from .house import Case, House
from .podman import LabError

CASES: tuple[Case, ...] = (
    *outage_cases.CASES,
    *daemon_cases.CASES,
    *host_cases.CASES,
    *proxmox_cases.CASES,
    *return_cases.CASES,
    *two_upses.CASES,
)

RELEASES = {"pve8": "2.8.0", "pve9": "2.8.1", "pve14": "2.8.5"}


def format_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of docs/cases.md."""
    lines = [
        "| case | what is done | NUT | what happened (seconds) | verdict |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        verdict = "held" if not row["problems"] else f"**FAILED**: {'; '.join(row['problems'])}"
        cells = (f"`{row['case']}`", row["words"], RELEASES.get(row["site"], row["site"]), row["happened"], verdict)
        lines.append(f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def choose_cases(names: Sequence[str], sites: Sequence[str], ci: bool) -> dict[str, list[Case]]:
    """Return the cases to play at each site. Raise LabError for an unknown name."""
    unknown = sorted(set(names) - {case.name for case in CASES})
    if unknown:
        raise LabError(f"no case {', '.join(unknown)}. Cases: {', '.join(case.name for case in CASES)}")
    # cases that need another deployment come last
    return {
        site: [
            case
            for case in sorted(CASES, key=lambda case: bool(case.variables))
            if site in case.sites
            and (not names or case.name in names)
            and (not ci or case.ci_site == site or bool(names))
        ]
        for site in sites
    }


def play_cases(
    lab: Lab, plan: Mapping[str, Sequence[Case]], say: Callable[[str], None], keep: Path, tries: int = 1
) -> list[dict[str, Any]]:
    """Play the cases of each site, all sites in parallel. Return the rows, and save them to the file `keep` as they come.

    A case is played up to `tries` times until it holds. A row's `earlier` has the failed attempts.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    lock = threading.Lock()
    errors: list[str] = []

    def ordered_rows() -> list[dict[str, Any]]:
        return [rows[case.name, site] for case in CASES for site in plan if (case.name, site) in rows]

    def play_site(site: str) -> None:
        try:
            with House(lab, site, lambda words: say(f"{site} {words}")) as house:
                house.ensure_ready()
                for case in plan[site]:
                    earlier: list[dict[str, Any]] = []
                    while len(earlier) < tries:
                        row = {**house.play_case(case), "earlier": list(earlier)}
                        held = "held" if not row["problems"] else row["problems"]
                        say(f"{site} {case.name}: {held} ({row['took']:.0f} s)")
                        with lock:
                            rows[case.name, site] = row
                            keep.write_text(json.dumps(ordered_rows(), indent=1) + "\n")
                        if not row["problems"]:
                            break
                        earlier.append({name: row[name] for name in ("problems", "happened", "journals")})
        except LabError as error:
            errors.append(f"{site}: {error}")

    threads = [threading.Thread(target=play_site, args=(site,)) for site in plan if plan[site]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise LabError("; ".join(errors))
    return ordered_rows()
