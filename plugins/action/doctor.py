# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin of M(homelab.nut.doctor): adds what only the controller knows to the module's result.

That is the programs as this collection would install them, and the time of the controller's clock.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

from ..module_utils._nut.base import records
from ..module_utils._nut.deploy import kits
from ..module_utils._nut.doctor import checks_others
from .zipapp import OPTIONS, build_program

ROLES = Path(__file__).resolve().parents[2] / "roles"

_OPTIONS: dict[str, Any] = OPTIONS
_SHEBANG = _OPTIONS["shebang"]["default"]
# kit, main file, start of the archive, first file in the archive: as in the roles' tasks
_PROGRAMS: tuple[tuple[kits.Kit, str, str, str], ...] = (
    (kits.SHUTDOWN, "nut_server/files/nut_shutdown.py", "", ""),
    (kits.ACCESS, "nut_server/files/nut_access.py", "", ""),
    (kits.HOTPLUG, "nut_hotplug/files/nut_hotplug.py", "nut_hotplug/files/start.sh", "_nut/hotplug/quiet.py"),
)


@cache
def compute_digests() -> dict[str, str]:
    """Return the SHA-256 sums of the programs that this collection installs, by their paths."""
    sums = {}
    for kit, main, head, first in _PROGRAMS:
        start = (ROLES / head).read_bytes() if head else f"#!{_SHEBANG}\n".encode()
        sums[kit.program] = hashlib.sha256(build_program(ROLES / main, "_nut", start, first=first)).hexdigest()
    return sums


class ActionModule(ActionBase):
    """Runs the module, and reads the clock before and after."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments.setdefault("name", (task_vars or {}).get("inventory_hostname"))
        if arguments.get("digests") is None:
            arguments["digests"] = compute_digests()
        before = time.time()
        result: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        after = time.time()
        seen, findings = result.get("seen"), result.get("findings")
        now = seen.get("now") if isinstance(seen, Mapping) else None
        # the host may answer anything; the filter doctor_report reports malformed results
        if isinstance(findings, list) and isinstance(now, (int, float)) and 0 <= now < records.NUMBER_LIMIT:
            middle = (before + after) / 2
            skew = checks_others.judge_skew(str(arguments["name"]), now - middle, (after - before) / 2)
            findings.append(asdict(skew))
        return result
