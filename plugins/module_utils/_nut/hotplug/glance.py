# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A glance at the USB bus, for the run that finds nothing to do: it imports nothing that Python has not loaded already."""

from __future__ import annotations

import os

# a uevent file has some 200 bytes
_LIMIT = 4096


def bus(sysfs: str = "/sys") -> str:
    """Return one line a USB device, hubs too, sorted: its name in sysfs, a blank, its uevent file on one line.

    Interfaces are no lines. A device that vanishes meanwhile is left out. "" if there is no bus. The text differs whenever
    a device came, went, or was plugged in anew, because uevent holds bus and device number. Raises OSError if there is a
    directory of devices that can't be read.
    """
    folder = f"{sysfs}/bus/usb/devices"
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if ":" not in entry.name)
    except FileNotFoundError:
        return ""
    lines = []
    for name in names:
        try:
            # O_NONBLOCK: a FIFO in its place must not stop us
            file = os.open(f"{folder}/{name}/uevent", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            text = os.read(file, _LIMIT)
        except OSError:
            continue
        finally:
            os.close(file)
        lines.append(f"{name} {' '.join(text.decode('utf-8', 'replace').split())}")
    return "\n".join(lines)
