#!/usr/bin/python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that upssched runs. On TrueNAS it is `midclt call ups.upssched_event`; here it is called directly.

Usage: upssched_event.py EVENT. Only SHUTDOWN has an effect; the lab has no alerts.
"""

from __future__ import annotations

import subprocess
import sys
import syslog
from pathlib import Path

from . import ups
from .service import StateFile

STATE = Path("/data/truenas.json")


def handle_event(event: str, state: Path = STATE) -> bool:
    """Handle an event. Return whether it started the shutdown."""
    settings = {**ups.DEFAULTS, **StateFile(state).load_state().get("ups", {})}
    identifier = ups.complete_identifier(settings)
    asked = subprocess.run(["upsc", identifier], check=False, capture_output=True, text=True)
    go = ups.must_shut_down(event, asked.stdout if asked.returncode == 0 else None)
    syslog.syslog(syslog.LOG_NOTICE, f"upssched event {event}: {'upsmon -c fsd' if go else 'nothing to do'}")
    if go:
        subprocess.run(["upsmon", "-c", "fsd"], check=False)
    return go


if __name__ == "__main__":
    handle_event(sys.argv[1])
