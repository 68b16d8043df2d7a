# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A power cut in the lab: caused, watched, and judged by when the machines themselves began to go down and were down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from . import Lab
from .hosts import SITES
from .podman import LabError, run_command

WIDTH = 56  # columns of the picture


@dataclass(frozen=True)
class Shutdown:
    """How one host went down, in seconds after the battery was low. None: it did not, while it was watched."""

    host: str
    role: str
    began: float | None
    down: float | None


def cut_power(lab: Lab, site: str, say: Callable[[str], None], seconds: float = 180) -> list[Shutdown]:
    """Take the mains from a site, let the battery run low, and watch until every host is down, SECONDS at most.

    Returns the falls in the order of their end. Raises LabError if the primary's NUT does not notice.
    """
    primary, upses = next((host.name, host.ups) for host in SITES[site] if host.ups)
    if len(upses) > 1:
        raise LabError(
            f"{primary} has {len(upses)} UPSes: take the mains from each that you mean, with lab/ups {primary} --help"
        )
    lab.control_ups(primary, "mains", "off")
    say("mains off")
    _wait_for(lab, primary, "OB", say)
    lab.control_ups(primary, "low")
    low = time.time()
    say("battery low: from here on, seconds are counted")
    falls: dict[str, Shutdown] = {}
    while True:
        states = {host: state for host, state in lab.read_states().items() if host in SITES[site]}
        for host, state in states.items():
            old = falls.get(host.name)
            role = "primary" if host.ups else "secondary"
            # what it wrote at an earlier shutdown is gone since it booted
            began = None if state.began is None else state.began - low
            new = Shutdown(host.name, role, began, None if state.down is None else state.down - low)
            if new.began is not None and (old is None or old.began is None):
                say(f"{new.began:6.1f} s  {host.name} begins to shut down")
            if new.down is not None and (old is None or old.down is None):
                say(f"{new.down:6.1f} s  {host.name} is down")
            falls[host.name] = new
        if all(fall.down is not None for fall in falls.values()) or time.time() - low > seconds:
            return sorted(falls.values(), key=lambda fall: (fall.down is None, fall.down))
        time.sleep(0.3)


def _wait_for(lab: Lab, primary: str, flag: str, say: Callable[[str], None], seconds: float = 30) -> None:
    """Wait until the primary's upsd serves a status with FLAG."""
    deadline = time.monotonic() + seconds
    config = str(lab.state / "ssh_config")
    while True:
        status = run_command(
            ["ssh", "-F", config, primary, "upsc ups@localhost ups.status 2>/dev/null"], check=False
        ).stdout
        if flag in status.split():
            say(f"upsc ups@localhost ups.status on {primary}: {status.strip()}")
            return
        if time.monotonic() > deadline:
            raise LabError(f"{primary}'s upsd did not notice within {seconds:.0f} s; it says {status.strip()!r}")
        time.sleep(0.3)


def is_power_cut(lab: Lab, site: str) -> bool:
    """Say whether the UPSes of a site were told to cut their power, so that the machines start when the mains return."""
    primary = next(host.name for host in SITES[site] if host.ups)
    seen = json.loads(lab.control_ups(primary, "status", "--json"))["upses"]
    return all(ups["shutdown_in"] >= 0 or not ups["outlets"] for ups in seen)


def find_problems(falls: Sequence[Shutdown]) -> list[str]:
    """Say in words what went wrong: all must be down, and each secondary before the primary began."""
    wrong = []
    for fall in falls:
        if fall.down is None:
            wrong.append(f"{fall.host} did not go down")
        elif fall.began is None:
            wrong.append(f"{fall.host} stopped without a shutdown")
    starts = [fall.began for fall in falls if fall.role == "primary" and fall.began is not None]
    if not starts:
        return [*wrong, "no primary began to shut down"]
    for fall in falls:
        if fall.role == "secondary" and (fall.down is None or fall.down >= min(starts)):
            late = "" if fall.down is None else f", {fall.down - min(starts):.1f} s too late"
            wrong.append(f"{fall.host} was not down when the primary began to power off{late}")
    return wrong


def format_table(falls: Sequence[Shutdown]) -> str:
    """Draw who was doing what when: a row a host, '.' for running, '#' for shutting down."""
    end = max((fall.down or 0 for fall in falls), default=0) or 1
    rows = [f"{'host':<10} {'role':<9} {'began':>8} {'down':>8}   seconds after the battery was low"]
    for fall in falls:
        began, down = (f"{at:6.1f} s" if at is not None else "  never" for at in (fall.began, fall.down))
        rows.append(f"{fall.host:<10} {fall.role:<9} {began:>8} {down:>8}   |{_draw_bar(fall, end)}|")
    ruler = f"0{f'{end / 2:.0f}':^{WIDTH - 2 - len(f'{end:.0f}') + 1}}{end:.0f}"
    rows.append(f"{'':<38}    {ruler}")
    return "\n".join(rows)


def _draw_bar(fall: Shutdown, end: float) -> str:
    def column(at: float | None) -> int:
        return WIDTH if at is None else max(0, min(WIDTH, round(at / end * WIDTH)))

    began, down = column(fall.began), column(fall.down)
    return ("." * min(began, down) + "#" * (down - min(began, down))).ljust(WIDTH)


def save_shutdowns(path: Path, falls: Mapping[str, Sequence[Shutdown]]) -> None:
    """Keep what was seen, site by site, for those who verify it."""
    path.write_text(json.dumps({site: [asdict(fall) for fall in seen] for site, seen in falls.items()}, indent=2))


def load_shutdowns(path: Path) -> dict[str, list[Shutdown]]:
    """Read what save() kept."""
    return {site: [Shutdown(**fall) for fall in seen] for site, seen in json.loads(path.read_text()).items()}
