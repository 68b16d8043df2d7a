# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The end of a program that hangs: systemd starts it again, and it goes on where it was."""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterator
from typing import Callable


def no_watchdog() -> None:
    """Do nothing, where no watchdog watches."""


@contextlib.contextmanager
def arm_watchdog(seconds: float) -> Iterator[Callable[[], None]]:
    """Yield a function that must be called at least that often: else the whole process ends at once, with exit code 1.

    A thread without Python in it looks at the clock, so it works even if nothing of Python does any more.
    """

    def reset_timer() -> None:
        # without a standard error there is nowhere to say where it hung
        with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
            faulthandler.dump_traceback_later(seconds, exit=True)

    reset_timer()
    try:
        yield reset_timer
    finally:
        faulthandler.cancel_dump_traceback_later()
