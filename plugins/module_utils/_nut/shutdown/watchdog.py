# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A watchdog that ends a program that hangs. systemd restarts it, and it resumes from its state file."""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterator
from typing import Callable


def no_watchdog() -> None:
    """Do nothing: the default where no watchdog is armed."""


@contextlib.contextmanager
def arm_watchdog(seconds: float) -> Iterator[Callable[[], None]]:
    """Yield a function that must be called at least once in so many seconds; otherwise the process exits at once with code 1.

    faulthandler's timer is a C thread, so it works even if the interpreter hangs.
    """

    def reset_timer() -> None:
        # fails if standard error is closed: there is nowhere to write the traceback
        with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
            faulthandler.dump_traceback_later(seconds, exit=True)

    reset_timer()
    try:
        yield reset_timer
    finally:
        faulthandler.cancel_dump_traceback_later()
