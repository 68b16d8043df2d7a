# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cause a power cut in the lab, watch it, and judge it by the times that the machines recorded."""

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
    """How a host went down. Times are seconds after the battery was low; None if it did not happen while watched."""

    host: str
    role: str  # "primary" or "secondary"
    began: float | None  # the beginning of its shutdown
    down: float | None  # its end


def cut_power(lab: Lab, site: str, say: Callable[[str], None], seconds: float = 180) -> list[Shutdown]:
    """Cut the mains of a site, let the battery run low, and watch until every host is down, at most for `seconds`.

    Return the shutdowns in the order of their end. Raise LabError if the primary's upsd does not report the power cut.
    """
    primary, upses = next((host.name, host.ups) for host in SITES[site] if host.ups)
    if len(upses) > 1:
        raise LabError(
            f"{primary} has {len(upses)} UPSes: cut the mains of each one yourself, see lab/ups {primary} --help"
        )
    lab.control_ups(primary, "mains", "off")
    say("mains off")
    _wait_for(lab, primary, "OB", say)
    lab.control_ups(primary, "low")
    low = time.time()
    say("battery low (0 s)")
    shutdowns: dict[str, Shutdown] = {}
    while True:
        states = {host: state for host, state in lab.read_states().items() if host in SITES[site]}
        for host, state in states.items():
            old = shutdowns.get(host.name)
            role = "primary" if host.ups else "secondary"
            # a host removes the record of an earlier shutdown when it boots
            began = None if state.began is None else state.began - low
            new = Shutdown(host.name, role, began, None if state.down is None else state.down - low)
            if new.began is not None and (old is None or old.began is None):
                say(f"{new.began:6.1f} s  {host.name} begins to shut down")
            if new.down is not None and (old is None or old.down is None):
                say(f"{new.down:6.1f} s  {host.name} is down")
            shutdowns[host.name] = new
        if all(shutdown.down is not None for shutdown in shutdowns.values()) or time.time() - low > seconds:
            return sorted(shutdowns.values(), key=lambda shutdown: (shutdown.down is None, shutdown.down))
        time.sleep(0.3)


def _wait_for(lab: Lab, primary: str, flag: str, say: Callable[[str], None], seconds: float = 30) -> None:
    """Wait until the primary's upsd reports a status with this flag."""
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
            raise LabError(
                f"upsd on {primary} did not report {flag} within {seconds:.0f} s; its status is {status.strip()!r}"
            )
        time.sleep(0.3)


def is_power_cut(lab: Lab, site: str) -> bool:
    """Return whether the UPSes of a site were ordered to cut their power, so that the machines start when the mains return."""
    primary = next(host.name for host in SITES[site] if host.ups)
    seen = json.loads(lab.control_ups(primary, "status", "--json"))["upses"]
    return all(ups["shutdown_in"] >= 0 or not ups["outlets"] for ups in seen)


def find_problems(shutdowns: Sequence[Shutdown]) -> list[str]:
    """Return what went wrong: every host must be down, and each secondary before the primary begins."""
    wrong = []
    for shutdown in shutdowns:
        if shutdown.down is None:
            wrong.append(f"{shutdown.host} did not go down")
        elif shutdown.began is None:
            wrong.append(f"{shutdown.host} stopped without a shutdown")
    starts = [shutdown.began for shutdown in shutdowns if shutdown.role == "primary" and shutdown.began is not None]
    if not starts:
        return [*wrong, "no primary began to shut down"]
    for shutdown in shutdowns:
        if shutdown.role == "secondary" and (shutdown.down is None or shutdown.down >= min(starts)):
            late = "" if shutdown.down is None else f", {shutdown.down - min(starts):.1f} s too late"
            wrong.append(f"{shutdown.host} was not down when the primary began to power off{late}")
    return wrong


def format_table(shutdowns: Sequence[Shutdown]) -> str:
    """Return a table with a bar for each host: '.' while running, '#' while shutting down."""
    end = max((shutdown.down or 0 for shutdown in shutdowns), default=0) or 1
    rows = [
        f"{'host':<10} {'role':<9} {'began':>8} {'down':>8}   seconds after the battery was low (. still on, # going down)"
    ]
    for shutdown in shutdowns:
        began, down = (f"{at:6.1f} s" if at is not None else "  never" for at in (shutdown.began, shutdown.down))
        rows.append(f"{shutdown.host:<10} {shutdown.role:<9} {began:>8} {down:>8}   |{_draw_bar(shutdown, end)}|")
    ruler = f"0{f'{end / 2:.0f}':^{WIDTH - 2 - len(f'{end:.0f}') + 1}}{end:.0f}"
    rows.append(f"{'':<38}    {ruler}")
    return "\n".join(rows)


def _draw_bar(shutdown: Shutdown, end: float) -> str:
    def to_column(at: float | None) -> int:
        return WIDTH if at is None else max(0, min(WIDTH, round(at / end * WIDTH)))

    began, down = to_column(shutdown.began), to_column(shutdown.down)
    return ("." * min(began, down) + "#" * (down - min(began, down))).ljust(WIDTH)


def save_shutdowns(path: Path, shutdowns: Mapping[str, Sequence[Shutdown]]) -> None:
    """Save the shutdowns of each site to a file."""
    path.write_text(
        json.dumps({site: [asdict(shutdown) for shutdown in seen] for site, seen in shutdowns.items()}, indent=2)
    )


def load_shutdowns(path: Path) -> dict[str, list[Shutdown]]:
    """Read the file that save_shutdowns wrote."""
    return {site: [Shutdown(**shutdown) for shutdown in seen] for site, seen in json.loads(path.read_text()).items()}
