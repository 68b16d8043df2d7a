# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Disarm Proxmox VE's HA during an outage, if the user has chosen that, and arm it again afterwards. See proxmox/cluster.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Callable

from ..proxmox.cluster import HaSwitch
from .stage_guests import RunInThread

# HA is not disarmed for a flicker. The other nodes go down at FSD, and then it must be disarmed at once
OUTAGE_SECONDS = 30.0
AGAIN_SECONDS = 15.0
"""Seconds between two tries: without a quorum HA takes no request."""


@dataclass
class HaKeeper:
    """Decides when HA is disarmed and armed. The requests run in a thread, one at a time."""

    switch: HaSwitch
    is_wanted: bool  # whether the user wants HA disarmed; what an earlier policy has disarmed is armed in any case
    clock: Callable[[], float]
    run_in_thread: RunInThread
    _is_disarmed: bool = field(default=False, init=False)  # as far as this process knows
    _is_busy: bool = field(default=False, init=False)
    _tried: float = field(default=-math.inf, init=False)  # when the last request ended

    def update(self, *, outage_seconds: float | None, fsd: bool, on_mains: bool) -> None:
        """Start a request if one is due. outage_seconds: since the outage began; None without one."""
        if self._is_busy or self.clock() - self._tried < AGAIN_SECONDS:
            return
        is_outage = fsd or (outage_seconds is not None and outage_seconds >= OUTAGE_SECONDS)
        if is_outage and self.is_wanted and not self._is_disarmed:
            self._start_request(self.switch.disarm, True)
        elif outage_seconds is None and on_mains and self.switch.is_ours:
            self._start_request(self.switch.arm, False)

    def _start_request(self, request: Callable[[], bool], disarms: bool) -> None:
        self._is_busy = True

        def run_request() -> None:
            try:
                if request():
                    self._is_disarmed = disarms
            finally:
                self._tried, self._is_busy = self.clock(), False

        self.run_in_thread(run_request)
