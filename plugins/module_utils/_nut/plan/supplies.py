# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A UPS as it behaves: its delays with their quirks, how old what it says may be, and when its battery counts as low."""

from __future__ import annotations

import re
from dataclasses import replace

from .model import PlanError, Supply

# Seconds between two readings of the charge and the time left; the status is read each pollinterval. usbhid-ups 2.8.1 -h;
# drivers/usbhid-ups.c of 2.8.3 for CyberPower. Drivers that are not known here are taken for slow ones.
READS = 30
READS_CPS = 12
# offdelay and ondelay if ups.conf does not say: the drivers' own -h
DELAYS = {"usbhid-ups": (20, 30), "nutdrv_qx": (30, 180)}
DELAYS_CPS = (60, 120)
CPS_SINCE = (2, 8, 3)
CPS_VENDOR = "0764"
CPS_STEP = 60


def parse_release(text: str) -> tuple[int, ...]:
    """Return a release of NUT as numbers. Raises PlanError."""
    found = re.match(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+))?", text)
    if found is None:
        raise PlanError(f"timing: release {text!r} is none of NUT, such as 2.8.1")
    return tuple(int(part or 0) for part in found.groups())


def is_cyberpower(supply: Supply) -> bool:
    """Return whether it is a CyberPower on usbhid-ups, which counts its delays in whole minutes."""
    if supply.driver not in {None, "", "auto", "usbhid-ups"}:
        return False
    maker = (supply.mfr or "").lower()
    return maker.startswith(("cps", "cyber")) or (supply.vendorid or "").lower().removeprefix("0x") == CPS_VENDOR


def real_delays(supply: Supply, release: str) -> tuple[float | None, float | None]:
    """Return offdelay and ondelay as the UPS makes them; None for one that is not known.

    A CyberPower drops what is no whole minute, and so does nutdrv_qx, which takes steps of 6 s below a minute.
    """
    driver = supply.driver if supply.driver not in {None, "", "auto"} else "usbhid-ups"
    is_cps = is_cyberpower(supply)
    defaults: tuple[float | None, float | None] = DELAYS.get(str(driver), (None, None))
    if is_cps and parse_release(release) >= CPS_SINCE:
        defaults = DELAYS_CPS
    off = defaults[0] if supply.offdelay is None else supply.offdelay
    on = defaults[1] if supply.ondelay is None else supply.ondelay
    if is_cps:
        return _whole_steps(off, CPS_STEP), _whole_steps(on, CPS_STEP)
    if driver == "nutdrv_qx":
        return _whole_steps(off, 6 if off is not None and off < 60 else 60), _whole_steps(on, 60)
    return off, on


def _whole_steps(value: float | None, step: int) -> float | None:
    return None if value is None else value // step * step


def reading_age(supply: Supply, release: str) -> float:
    """Return how old the time left may be that upsd shows."""
    if supply.pollfreq is not None:
        return max(supply.pollfreq, supply.pollinterval)
    return READS_CPS if is_cyberpower(supply) and parse_release(release) >= CPS_SINCE else READS


def notice_time(supply: Supply, release: str) -> float:
    """Return how long it takes until upsd says LB: as often as the status is read, or the values are that NUT decides by."""
    return reading_age(supply, release) if supply.ignorelb else supply.pollinterval


def low_marks(supply: Supply) -> tuple[float | None, float | None]:
    """Return how long the battery still lasts when it counts as low, at least and at most; None if that can't be told.

    NUT, told by ignorelb to decide, goes by whichever of charge and runtime is reached first. Which of the two a UPS goes
    by that decides itself, only its maker knows.
    """
    known = [supply.runtime_low] if supply.runtime_low is not None else []
    if supply.charge_low is not None and supply.runtime is not None:
        known.append(supply.runtime * min(1.0, supply.charge_low / (supply.charge or 100)))
    if not known:
        return None, None
    return max(known) if supply.ignorelb else min(known), max(known)


def when_charged(supply: Supply) -> Supply:
    """Return the UPS as it is with a full battery: the time left is taken to go with the charge."""
    if supply.runtime is None:
        return supply
    share = min(supply.charge or 100, 100) / 100
    return replace(supply, runtime=supply.runtime / share, charge=100)
