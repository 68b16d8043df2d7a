# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a UPS behaves: its real delays, how old its readings may be, and when its battery counts as low."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace

from ..conf.ups_conf import CPS_DELAYS, CPS_VENDOR
from ..net.readings import HOLD_SECONDS
from .model import PlanError, Supply

# Seconds between two readings of the charge and the time left; the status is read each pollinterval. From usbhid-ups 2.8.1 -h, and
# drivers/usbhid-ups.c of 2.8.3 for CyberPower. A driver that is not known here is taken to be slow.
READ_SECONDS = 30
READ_SECONDS_CPS = 12
# Defaults of offdelay and ondelay: from the drivers' own -h.
DEFAULT_DELAYS = {"usbhid-ups": (20, 30), "nutdrv_qx": (30, 180)}
DEFAULT_DELAYS_CPS = (int(CPS_DELAYS[0][1]), int(CPS_DELAYS[1][1]))
# Drivers that can be told both, in seconds. A driver refuses a key that it does not know.
DELAY_DRIVERS = ("usbhid-ups", "nutdrv_qx", "snmp-ups", "huawei-ups2000", "clone")
NO_UPS = "dummy-ups"
"""The driver of a simulated UPS, or of one that another host reads: it cuts nothing."""
# driver -> the least, the most and the step that it takes for offdelay and for ondelay: with another value it does not start, or rounds it
# (nutdrv_qx_blazer-common.c, huawei-ups2000.c)
DELAY_RANGES = {
    "nutdrv_qx": {"offdelay": (12, 600, 1), "ondelay": (0, 599940, 1)},
    "huawei-ups2000": {"offdelay": (6, 5940, 6), "ondelay": (60, 5940, 60)},
}
CPS_SINCE = (2, 8, 3)
CPS_STEP = 60
_HID = (None, "", "auto", "usbhid-ups", "mge-shut")
# driver -> the least ondelay that it sends, in its own unit
_QX_STEP = {"nutdrv_qx": 60, "blazer_usb": 1, "blazer_ser": 1}
# One round of nut-stages.
STAGE_ROUND = 5


def parse_release(text: str) -> tuple[int, ...]:
    """Return a NUT release as numbers. Raises PlanError."""
    match = re.match(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+))?", text)
    if match is None:
        raise PlanError(f"timing: release {text!r} is not a NUT release such as 2.8.1")
    return tuple(int(part or 0) for part in match.groups())


def is_cyberpower(supply: Supply) -> bool:
    """Return whether it is a CyberPower on usbhid-ups, which counts its delays in whole minutes."""
    if supply.driver not in {None, "", "auto", "usbhid-ups"}:
        return False
    maker = (supply.mfr or "").lower()
    return maker.startswith(("cps", "cyber")) or (supply.vendorid or "").lower().removeprefix("0x") == CPS_VENDOR


def real_delays(supply: Supply, release: str) -> tuple[float | None, float | None]:
    """Return offdelay and ondelay as the UPS rounds them, in seconds; None if not known.

    A CyberPower rounds down to whole minutes. nutdrv_qx does too, but uses steps of 6 s below a minute.
    """
    driver = supply.driver if supply.driver not in {None, "", "auto"} else "usbhid-ups"
    is_cps = is_cyberpower(supply)
    defaults: tuple[float | None, float | None] = DEFAULT_DELAYS.get(str(driver), (None, None))
    if is_cps and parse_release(release) >= CPS_SINCE:
        defaults = DEFAULT_DELAYS_CPS
    off = defaults[0] if supply.offdelay is None else supply.offdelay
    on = defaults[1] if supply.ondelay is None else supply.ondelay
    if is_cps:
        return _round_down(off, CPS_STEP), on if restores_at_once(supply) else _round_down(on, CPS_STEP)
    if driver == "nutdrv_qx":
        return _round_down(off, 6 if off is not None and off < 60 else 60), _round_down(on, 60)
    return off, on


def takes_delays(supply: Supply) -> bool:
    """Return whether the driver of a UPS has the keys offdelay and ondelay, both in seconds."""
    return supply.driver in {None, "", "auto", *DELAY_DRIVERS}


def fit_delays(supply: Supply, **delays: float) -> dict[str, float]:
    """Return offdelay, ondelay or both as the driver of a UPS takes them, rounded up; {} if it would refuse one of them."""
    if not takes_delays(supply):
        return {}
    ranges = DELAY_RANGES.get(str(supply.driver), {})
    fitted = {}
    for key, value in delays.items():
        least, most, step = ranges.get(key, (0, math.inf, 1))
        fitted[key] = max(least, math.ceil(value / step) * step if step > 1 else value)
        if fitted[key] > most:
            return {}
    return fitted


def written_delays(supply: Supply, driver: str | None, vendorid: str | None) -> Supply:
    """Return a UPS with the delays that are written for a CyberPower (ups_conf.choose_delays) instead of its driver's own.

    driver, vendorid: of the inventory. They are written if either shows that it is a CyberPower; auto finds out on the host.
    """
    if not is_cyberpower(supply) or (driver != "auto" and not is_cyberpower(Supply(driver=driver, vendorid=vendorid))):
        return supply
    (off, on), (better_off, better_on) = DEFAULT_DELAYS["usbhid-ups"], DEFAULT_DELAYS_CPS
    is_ours = supply.offdelay in {None, off}
    return replace(
        supply,
        offdelay=better_off if is_ours else supply.offdelay,
        ondelay=better_on if is_ours and supply.ondelay in {None, on} else supply.ondelay,
    )


def restores_at_once(supply: Supply) -> bool:
    """Return whether a UPS is told not to wait before it restores the power: an ondelay of its own kind, which may be below offdelay.

    For UPSes that restore the power without mains otherwise, or never: -1 (usbhid-ups(8), mge-shut(8)), and 0 for some CyberPowers (NUT
    issues 578, 625, 1394). nutdrv_qx and blazer order less than a minute without any time (nutdrv_qx_blazer-common.c).
    """
    if supply.ondelay is None:
        return False
    if supply.driver in _QX_STEP:
        return 0 <= supply.ondelay < _QX_STEP[supply.driver]
    return supply.driver in _HID and (supply.ondelay == -1 or (is_cyberpower(supply) and supply.ondelay <= 0))


def _round_down(value: float | None, step: int) -> float | None:
    return None if value is None else value // step * step


def reading_age(supply: Supply, release: str) -> float:
    """Return how old upsd's value of the time left may be, in seconds."""
    if supply.pollfreq is not None:
        return max(supply.pollfreq, supply.pollinterval)
    return READ_SECONDS_CPS if is_cyberpower(supply) and parse_release(release) >= CPS_SINCE else READ_SECONDS


def notice_time(supply: Supply, release: str) -> float:
    """Return how many seconds may pass until upsd reports LB.

    Where the UPS decides, that is one reading of the status; where NUT decides, one reading of the values that it compares.
    """
    return reading_age(supply, release) if supply.ignorelb else supply.pollinterval


def low_marks(supply: Supply) -> tuple[float | None, float | None]:
    """Return how many seconds the battery still lasts when it counts as low: at least, and at most. (None, None): not known.

    With ignorelb NUT decides, and whichever of charge and runtime is reached first counts. Which of them a UPS uses when it decides
    for itself, only its maker knows.
    """
    marks = [supply.runtime_low] if supply.runtime_low is not None else []
    if supply.charge_low is not None and supply.runtime is not None:
        marks.append(supply.runtime * min(1.0, supply.charge_low / (supply.charge or 100)))
    if not marks:
        return None, None
    return max(marks) if supply.ignorelb else min(marks), max(marks)


def highest_mark(supply: Supply) -> float | None:
    """Return the largest number of seconds left with which the shutdown may begin; None: not known."""
    marks = [mark for mark in (low_marks(supply)[1], _watched_mark(supply)) if mark is not None]
    return max(marks, default=None)


@dataclass(frozen=True)
class LowMark:
    """What begins the shutdown when the battery is low."""

    left: float  # seconds that the battery lasts then
    notice: float  # seconds that may pass until it is noticed
    decider: str  # "the UPS", "NUT" (by ignorelb) or "nut-stages"


def find_low_mark(supply: Supply, release: str) -> LowMark | None:
    """Return what begins the shutdown first when the battery is low; None: not known."""
    marks = []
    if (left := low_marks(supply)[0]) is not None:
        marks.append(LowMark(left, notice_time(supply, release), "NUT" if supply.ignorelb else "the UPS"))
    if (left := _watched_mark(supply)) is not None:
        marks.append(LowMark(left, watch_time(supply, release), "nut-stages"))
    return max(marks, key=lambda mark: mark.left - mark.notice, default=None)


def watch_time(supply: Supply, release: str) -> float:
    """Return how many seconds may pass until nut-stages begins the shutdown because so little is left."""
    return reading_age(supply, release) + STAGE_ROUND + HOLD_SECONDS


def _watched_mark(supply: Supply) -> float | None:
    return None if supply.reports_runtime is False else supply.watched


def when_charged(supply: Supply) -> Supply:
    """Return the UPS with a full battery. The time left is taken to be proportional to the charge."""
    if supply.runtime is None:
        return supply
    share = min(supply.charge or 100, 100) / 100
    return replace(supply, runtime=supply.runtime / share, charge=100)
