# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a UPS's variables mean: numbers or texts, the flags of ups.status, and the result of a battery test, in plain words."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

from ..base.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

FLAGS = {
    "FSD": "forced shutdown: all hosts on it go down",
    "OL": "on mains",
    "OB": "on battery",
    "LB": "battery low",
    "HB": "battery full beyond its limit",
    "RB": "battery has to be replaced",
    "CHRG": "charging",
    "DISCHRG": "discharging",
    "CAL": "calibrating",
    "TEST": "testing",
    "BYPASS": "bypassed: the battery protects nothing",
    "OFF": "switched off: it gives no power",
    "OVER": "overloaded",
    "TRIM": "lowers the mains voltage",
    "BOOST": "raises the mains voltage",
    "ECO": "in its economy mode",
    "ALARM": "has an alarm",
    "NOBATT": "has no battery",
    "WAIT": "its driver has no data yet",
}
"""The flags of ups.status (docs/new-drivers.txt, docs/developers.txt), in the order in which they matter."""

ABSENT = "wait"
"""The flag of what upsd serves in the place of a UPS that is not there. It is no flag of NUT's.

upsmon of 2.8.3 to 2.8.5 keeps the flags that it does not know in a tree, without regard to case, and aborts when two different ones
go one after the other (clients/upsmon.c, parse_status). One is always there: upsd says WAIT until it has a driver's data. So this is
the same word to upsmon, and another one to us. upsmon of older releases ignores both.
"""

_WORDS = {**FLAGS, ABSENT: "not plugged in"}

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,9})?")

# These look like numbers at times, but are names: 2.10 is not 2.1, and a serial number may begin with a 0.
_TEXT = re.compile(
    r"(device|driver|server)\.(?!(uptime|count)$).*"
    r"|.*\.(serial|mfr|model|firmware|aux|version|vendorid|productid|part|id|date|time|type|name|desc|description)"
    r"|.*\.(alarm|chemistry|contact|country|debug|group|location|macaddr|password|sensitivity|result|uri|uuid)"
    r"|ups\.(contacts|status)"
)

PASSED, FAILED, RUNNING, UNKNOWN = "passed", "failed", "running", "unknown"

# Texts of ups.test.result are the drivers' own. Most have those of USB's Power Device Class, 4.1.4, as usbhid-ups and
# snmp-ups: Done and passed, Done and warning, Done and error, Aborted, In progress, No test initiated, Test scheduled.
# A warning is no pass: it is how a weak battery begins. What is asked first wins.
_RESULTS = (
    (RUNNING, r"in progress|running|testing|scheduled|pending"),
    (
        UNKNOWN,
        r"no (recent )?test|not? (yet )?(initiated|performed|supported|available)|abort|cancel|inhibit|\bidle\b|\bnone\b",
    ),
    (
        FAILED,
        r"fail|error|warn|\bbad\b|replace|change battery|weak|insufficient|overload|not (ok|passed|good)|\bno\b|\bNG\b",
    ),
    (PASSED, r"pass|\bok\b|success|\bgood\b|normal|completed?\b|\bdone\b"),
)


def describe_status(flags: Iterable[str]) -> str:
    """Return the flags of a ups.status in words: ``("OL", "CHRG")`` gives ``on mains, charging``. "" if there are none."""
    given = list(dict.fromkeys(flags))
    known = [_WORDS[flag] for flag in _WORDS if flag in given]
    return ", ".join([*known, *(printable(flag, 40) for flag in given if flag not in _WORDS)])


def judge_test_result(text: str) -> str:
    """Return what a ups.test.result says: PASSED, FAILED, RUNNING, or UNKNOWN if it is not about a test that ended."""
    for verdict, pattern in _RESULTS:
        if re.search(pattern, text, re.IGNORECASE):
            return verdict
    return UNKNOWN


def split_status(status: str) -> tuple[str, ...]:
    """Return the flags of a ``ups.status``: ``"OB LB"`` gives ``("OB", "LB")``."""
    return tuple(status.split())


def convert_value(name: str, value: str) -> str | int | float:
    """Return the value of a variable as a number if it is a quantity; names, releases and dates stay text.

    It goes by the name (docs/nut-names.txt) and by the form. upsd's own word for it, TYPE, is of no use: it calls
    everything a NUMBER that the driver did not call a text, so most serial numbers, too.
    """
    if _TEXT.fullmatch(name) or not _NUMBER.fullmatch(value):
        return value
    return float(value) if "." in value else int(value)


def is_same_value(left: str, right: str) -> bool:
    """Return whether two values of a variable mean the same: numbers are compared as numbers, so 020 is 20.0."""
    number = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,9})?")
    if number.fullmatch(left) and number.fullmatch(right):
        return Decimal(left) == Decimal(right)
    return left == right
