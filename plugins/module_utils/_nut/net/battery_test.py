# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Battery tests: whether one may begin, and what it showed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import readings, vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping

QUICK, DEEP = "quick", "deep"

SECONDS = {QUICK: 120.0, DEEP: 4 * 3600.0}
"""How long a battery test is waited for, unless the caller says otherwise. A deep one empties the battery."""

SETTLE = 35.0
"""Seconds after which a driver has asked its UPS for everything: usbhid-ups does every 30 (pollfreq)."""

LEAST_CHARGE = 90.0
"""Percent of charge below which no test begins: if the mains fail then, what is left has to do."""

RESULT, _DATE = "ups.test.result", "ups.test.date"


@dataclass(frozen=True)
class BatteryVerdict:
    """What a battery test showed. verdict: "passed", "failed", or "unknown". result: ups.test.result in the end, or ""."""

    verdict: str
    explanation: str
    result: str
    seconds: float


def find_obstacle(variables: Mapping[str, str], least: float = LEAST_CHARGE) -> str | None:
    """Return why a UPS should not have its battery tested now, going by its variables; None if it may.

    least: percent of charge. A UPS that does not tell its charge is let through: its own electronics refuse.
    """
    status, reading = variables.get("ups.status", ""), readings.read_variables(variables)
    if not reading.is_plainly_on_mains:
        return f"it is not plainly on mains (ups.status: {status or 'none'})"
    if vocabulary.judge_test_result(variables.get(RESULT, "")) == vocabulary.RUNNING or "TEST" in reading.flags:
        return f"a test is under way ({variables.get(RESULT) or status})"
    if reading.charge is not None and reading.charge < least:
        return f"its charge is {reading.charge:g} %, and {least:g} % are asked for (minimum_charge), as the mains may fail meanwhile"
    return None


class BatteryTestWatch:
    """What was seen of a battery test since it began."""

    def __init__(self, kind: str, before: Mapping[str, str], now: float) -> None:
        self._kind = kind
        self._before = before
        self._flags_before = set(vocabulary.split_status(before.get("ups.status", "")))
        self._began = now
        self._ran = False  # the UPS was seen to test
        self._told = False  # ups.test.result or its date is not what it was before
        self._low = False
        self._quiet_since: float | None = None
        self._variables: Mapping[str, str] = before
        self._trouble = ""

    def note_failure(self, trouble: str) -> None:
        """Note a look that failed."""
        self._trouble = trouble
        self._quiet_since = None

    def note_variables(self, variables: Mapping[str, str], now: float) -> BatteryVerdict | None:
        """Take one look in; return the verdict if there is one."""
        self._trouble = ""
        self._variables = variables
        flags = set(vocabulary.split_status(variables.get("ups.status", "")))
        result = variables.get(RESULT, "")
        said = vocabulary.judge_test_result(result)
        busy = bool(flags & {"OB", "CAL", "TEST"} or (flags - self._flags_before) & {"DISCHRG"})
        busy = busy or said == vocabulary.RUNNING
        self._low = self._low or "LB" in flags
        self._told = self._told or any(variables.get(key) != self._before.get(key) for key in (RESULT, _DATE))
        self._ran = self._ran or busy
        if busy or not flags:
            self._quiet_since = None
            return None
        if self._quiet_since is None:
            self._quiet_since = now
        if "RB" in flags and "RB" not in self._flags_before:
            return self._make_verdict(vocabulary.FAILED, "it says that its battery has to be replaced (RB)", now)
        if self._told and said in (vocabulary.PASSED, vocabulary.FAILED):
            return self._make_verdict(self._fail_if_low(said), f"it says {result!r}", now)
        # what it says may be of the last test: a driver does not ask for the result in each of its polls
        if (self._ran or self._told) and now - self._quiet_since >= SETTLE:
            return self._judge_finished(said, result, now)
        return None

    def give_up(self, now: float) -> BatteryVerdict:
        """Return the verdict of what was seen until now, when no time is left."""
        result = self._variables.get(RESULT, "")
        said = vocabulary.judge_test_result(result)
        status = self._variables.get("ups.status", "")
        if self._trouble:
            return self._make_verdict(vocabulary.UNKNOWN, f"in the end {self._trouble}", now)
        if self._quiet_since is None:
            words = f"the test is not over (ups.status: {status}{', ' + result if result else ''})"
            return self._make_verdict(vocabulary.UNKNOWN, words, now)
        if self._ran or self._told:
            return self._judge_finished(said, result, now)
        words = "the UPS showed no sign of a test"
        return self._make_verdict(
            vocabulary.UNKNOWN, f"{words}; its last result is {result!r}" if result else words, now
        )

    def _judge_finished(self, said: str, result: str, now: float) -> BatteryVerdict:
        """Judge a test that is over."""
        if result and said != vocabulary.UNKNOWN:
            return self._make_verdict(self._fail_if_low(said), f"it says {result!r}", now)
        if self._told or not self._ran:
            return self._make_verdict(vocabulary.UNKNOWN, f"it says {result!r}", now)
        words = "it was on battery and came back, without RB; it tells no result"
        return self._make_verdict(self._fail_if_low(vocabulary.PASSED), words, now)

    def _fail_if_low(self, verdict: str) -> str:
        """A battery that is low after some seconds has not passed, whatever the UPS makes of it."""
        return vocabulary.FAILED if self._low and self._kind == QUICK else verdict

    def _make_verdict(self, verdict: str, words: str, now: float) -> BatteryVerdict:
        low = "; its battery was low (LB) within a quick test" if self._low and self._kind == QUICK else ""
        return BatteryVerdict(verdict, words + low, self._variables.get(RESULT, ""), now - self._began)
