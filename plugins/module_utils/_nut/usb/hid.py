# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recognize UPSes by their HID report descriptor."""

from __future__ import annotations

_POWER_DEVICE = 0x84


def is_power_device(descriptor: bytes) -> bool:
    """Return whether a HID report descriptor is a UPS's: it has an application collection of the page Power Device.

    The page elsewhere proves nothing: keyboards and trackpads describe their batteries with it, and a UPS driver would take such
    a device from the kernel. Never raises. Items: Device Class Definition for HID 1.11, 6.2.2; pages: Usage Tables for HID Power
    Devices 1.0, 4.
    """
    page = position = 0
    usage: int | None = None
    stack: list[int] = []
    while position < len(descriptor):
        prefix = descriptor[position]
        if prefix == 0xFE:  # a long item: size, tag, data
            position += 3 + (descriptor[position + 1] if position + 1 < len(descriptor) else 0)
            continue
        size = (0, 1, 2, 4)[prefix & 3]
        data = descriptor[position + 1 : position + 1 + size]
        if len(data) < size:
            break
        value = int.from_bytes(data, "little")
        position += 1 + size
        item = prefix & 0xFC
        if item == 0x04:  # usage page
            page = value
        elif item == 0x08:  # usage; four bytes include the page
            usage = value >> 16 if size == 4 else -1
        elif item == 0xA0 and value == 1 and usage is not None:  # application collection
            if (page if usage < 0 else usage) == _POWER_DEVICE:
                return True
        elif item == 0xA4:  # push
            stack.append(page)
        elif item == 0xB4 and stack:  # pop
            page = stack.pop()
        if prefix & 0x0C == 0:  # a main item ends the usages before it
            usage = None
    return False
