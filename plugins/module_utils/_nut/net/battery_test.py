# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Battery tests: whether a test may begin, and whether the battery passed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import readings, vocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping

QUICK, DEEP = "quick", "deep"

SECONDS = {QUICK: 120.0, DEEP: 4 * 3600.0}
"""How long to wait for a battery test by default. A deep test empties the battery."""

SETTLE = 35.0
"""Seconds within which a driver has read every variable of its UPS: usbhid-ups does so every 30 s (pollfreq)."""

LEAST_CHARGE = 90.0
"""Percent of charge below which no test begins: if the mains fail during the test, the rest must be enough."""

RESULT, _DATE = "ups.test.result", "ups.test.date"


@dataclass(frozen=True)
class BatteryVerdict:
    """The outcome of a battery test."""

    verdict: str  # "passed", "failed", or "unknown"
    explanation: str
    result: str  # ups.test.result at the end; "" if the UPS has none
    seconds: float  # how long the test was watched


def find_obstacle(variables: Mapping[str, str], least: float = LEAST_CHARGE) -> str | None:
    """Return why the battery of a UPS with these variables must not be tested now; None if it may.

    least: percent of charge. A UPS that does not report its charge may be tested: its own electronics refuse if need be.
    """
    status, reading = variables.get("ups.status", ""), readings.read_variables(variables)
    if not reading.is_plainly_on_mains:
        return f"it is not plainly on mains (ups.status: {status or 'none'})"
    if vocabulary.judge_test_result(variables.get(RESULT, "")) == vocabulary.RUNNING or "TEST" in reading.flags:
        return f"a test is already running ({variables.get(RESULT) or status})"
    if reading.charge is not None and reading.charge < least:
        return f"its charge is {reading.charge:g} %, below the required {least:g} % (minimum_charge)"
    return None


class BatteryTestWatch:
    """Follows a battery test from its start, and judges it."""

    def __init__(self, kind: str, before: Mapping[str, str], now: float) -> None:
        self._kind = kind
        self._before = before
        self._flags_before = set(vocabulary.split_status(before.get("ups.status", "")))
        self._began = now
        self._ran = False  # whether the UPS reported at any time that it was testing
        self._told = False  # whether ups.test.result or its date has changed since before the test
        self._low = False  # whether the battery was low at any time
        self._quiet_since: float | None = None  # when the UPS last stopped testing
        self._variables: Mapping[str, str] = before
        self._trouble = ""

    def note_failure(self, trouble: str) -> None:
        """Note that the variables could not be read. trouble: why, as a clause."""
        self._trouble = trouble
        self._quiet_since = None

    def note_variables(self, variables: Mapping[str, str], now: float) -> BatteryVerdict | None:
        """Note the variables as they are now; return the verdict once there is one."""
        self._trouble = ""
        self._variables = variables
        flags = set(vocabulary.split_status(variables.get("ups.status", "")))
        result = variables.get(RESULT, "")
        judgement = vocabulary.judge_test_result(result)
        busy = bool(flags & {"OB", "CAL", "TEST"} or (flags - self._flags_before) & {"DISCHRG"})
        busy = busy or judgement == vocabulary.RUNNING
        self._low = self._low or "LB" in flags
        self._told = self._told or any(variables.get(key) != self._before.get(key) for key in (RESULT, _DATE))
        self._ran = self._ran or busy
        if busy or not flags:
            self._quiet_since = None
            return None
        if self._quiet_since is None:
            self._quiet_since = now
        if "RB" in flags and "RB" not in self._flags_before:
            return self._make_verdict(vocabulary.FAILED, "the UPS reports that its battery must be replaced (RB)", now)
        if self._told and judgement in (vocabulary.PASSED, vocabulary.FAILED):
            return self._make_verdict(self._fail_if_low(judgement), f"the UPS reports {result!r}", now)
        # the result may still be that of an earlier test: a driver does not read it at each poll
        if (self._ran or self._told) and now - self._quiet_since >= SETTLE:
            return self._judge_finished(judgement, result, now)
        return None

    def give_up(self, now: float) -> BatteryVerdict:
        """Return the verdict by what was noted so far, because the time is up."""
        result = self._variables.get(RESULT, "")
        status = self._variables.get("ups.status", "")
        if self._trouble:
            return self._make_verdict(vocabulary.UNKNOWN, f"at the end {self._trouble}", now)
        if self._quiet_since is None:
            why = f"the test has not ended (ups.status: {status}{', ' + result if result else ''})"
            return self._make_verdict(vocabulary.UNKNOWN, why, now)
        if self._ran or self._told:
            return self._judge_finished(vocabulary.judge_test_result(result), result, now)
        why = "the UPS showed no sign of a test"
        return self._make_verdict(vocabulary.UNKNOWN, f"{why}; its last result is {result!r}" if result else why, now)

    def _judge_finished(self, judgement: str, result: str, now: float) -> BatteryVerdict:
        """Judge a test that has ended."""
        if result and judgement != vocabulary.UNKNOWN:
            return self._make_verdict(self._fail_if_low(judgement), f"the UPS reports {result!r}", now)
        if self._told or not self._ran:
            return self._make_verdict(vocabulary.UNKNOWN, f"the UPS reports {result!r}", now)
        why = "the UPS ran on battery and returned to mains without RB; it reports no result"
        return self._make_verdict(self._fail_if_low(vocabulary.PASSED), why, now)

    def _fail_if_low(self, verdict: str) -> str:
        """Return FAILED instead if the battery was low during a quick test, which takes only seconds."""
        return vocabulary.FAILED if self._low and self._kind == QUICK else verdict

    def _make_verdict(self, verdict: str, explanation: str, now: float) -> BatteryVerdict:
        low = "; its battery was low (LB) during a quick test" if self._low and self._kind == QUICK else ""
        return BatteryVerdict(verdict, explanation + low, self._variables.get(RESULT, ""), now - self._began)
