# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work that is killed, as kill -9 and a power cut do it: no exception, nothing that is tidied up."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType


def forked(work: Callable[[], object]) -> int:
    """Begin to work in a process of its own. Returns its number."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # a test runner may have threads, of which the work uses none
        child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def after(seconds: float, work: Callable[[], object]) -> None:
    """Work, and be killed after so long, if it has not ended."""
    child = forked(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # the number is the child's until it is waited for
    _pid, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)


def at_line(
    number: int, work: Callable[[], object], modules: tuple[ModuleType, ...], *, times: int = sys.maxsize
) -> bool:
    """Work, and be killed before the line of these modules that is the NUMBERth to be executed. Returns False if it came to its end.

    times: how often a line counts at most, however often it is executed.
    """
    files = {os.path.realpath(str(module.__file__)) for module in modules}
    real = functools.cache(os.path.realpath)
    left = number
    passed: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if real(frame.f_code.co_filename) not in files:
            return None
        here = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and passed[here] < times:
            passed[here] += 1
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    def traced() -> None:
        sys.settrace(trace)
        work()

    _pid, status = os.waitpid(forked(traced), 0)
    assert status in (0, signal.SIGKILL)
    return status != 0
