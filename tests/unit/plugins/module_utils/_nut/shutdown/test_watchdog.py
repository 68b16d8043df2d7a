# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.watchdog import arm_watchdog

ROOT = Path(__file__).resolve().parents[6]


def test_hanging_round_ends_program(tmp_path: Path) -> None:
    hangs = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from _nut.shutdown.watchdog import arm_watchdog\n"
        "with arm_watchdog(0.2) as reset_timer:\n"
        "    reset_timer()\n"
        "    time.sleep(1000)\n"
    )
    folder = ROOT / "plugins/module_utils"
    done = subprocess.run(
        [sys.executable, "-c", hangs, folder], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr


def test_watchdog_is_cancelled_at_exit() -> None:
    with arm_watchdog(0.05):
        pass
    # otherwise the timer would end the test run
    time.sleep(0.2)
