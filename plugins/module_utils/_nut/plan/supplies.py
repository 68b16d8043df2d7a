# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a UPS behaves: its real delays, how old its readings may be, and when its battery counts as low."""

from __future__ import annotations

import re
from dataclasses import replace

from .model import PlanError, Supply

# Seconds between two readings of the charge and the time left; the status is read each pollinterval. From usbhid-ups 2.8.1 -h, and
# drivers/usbhid-ups.c of 2.8.3 for CyberPower. A driver that is not known here is taken to be slow.
READ_SECONDS = 30
READ_SECONDS_CPS = 12
# Defaults of offdelay and ondelay: from the drivers' own -h.
DEFAULT_DELAYS = {"usbhid-ups": (20, 30), "nutdrv_qx": (30, 180)}
DEFAULT_DELAYS_CPS = (60, 120)
CPS_SINCE = (2, 8, 3)
CPS_VENDOR = "0764"
CPS_STEP = 60


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
        return _round_down(off, CPS_STEP), _round_down(on, CPS_STEP)
    if driver == "nutdrv_qx":
        return _round_down(off, 6 if off is not None and off < 60 else 60), _round_down(on, 60)
    return off, on


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


def when_charged(supply: Supply) -> Supply:
    """Return the UPS with a full battery. The time left is taken to be proportional to the charge."""
    if supply.runtime is None:
        return supply
    share = min(supply.charge or 100, 100) / 100
    return replace(supply, runtime=supply.runtime / share, charge=100)
