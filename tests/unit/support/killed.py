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


def run_in_fork(work: Callable[[], object]) -> int:
    """Call a function in a child process, and return the child's id."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the test runner may have threads, but the function uses none
        child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def kill_after(seconds: float, work: Callable[[], object]) -> None:
    """Call a function in a child process, and kill the child after so many seconds unless it has ended."""
    child = run_in_fork(work)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # the id is not reused before waitpid
    _pid, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)


def kill_at_line(
    number: int, work: Callable[[], object], modules: tuple[ModuleType, ...], *, times: int = sys.maxsize
) -> bool:
    """Call a function in a child process that is killed before it executes line number `number` of these modules.

    A line counts at most `times` times. Return False if the function has finished before.
    """
    files = {os.path.realpath(str(module.__file__)) for module in modules}
    real = functools.cache(os.path.realpath)
    left = number
    passed: Counter[tuple[str, int]] = Counter()

    def trace_line(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if real(frame.f_code.co_filename) not in files:
            return None
        here = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line" and passed[here] < times:
            passed[here] += 1
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace_line

    def run_traced() -> None:
        sys.settrace(trace_line)
        work()

    _pid, status = os.waitpid(run_in_fork(run_traced), 0)
    assert status in (0, signal.SIGKILL)
    return status != 0
