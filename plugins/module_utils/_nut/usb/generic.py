# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ids that say nothing about what a device is: serial adapters and boards that makers of all kinds of devices build in.

NUT's table lists such an id as soon as one UPS has it (2.8.1: Arduino boards; 2.8.5: the CH340), so there it proves nothing.
"""

from __future__ import annotations

# Makers whose ids are all of chips that turn USB into a serial port, or of development boards.
_VENDORS = frozenset(
    {
        "067b",  # Prolific: PL2303
        "0403",  # FTDI
        "10c4",  # Silicon Labs: CP210x
        "1a86",  # QinHeng: CH340, CH341, CH343, CH9102
        "4348",  # QinHeng, older
        "9986",  # copies of the CH340
        "2184",  # GW Instek, with a CH340
        "9710",  # MosChip
        "110a",  # Moxa
        "1659",  # Prolific, other ids
        "2341",  # Arduino
        "2a03",  # Arduino, the other one
        "1b4f",  # SparkFun
        "239a",  # Adafruit
        "2886",  # Seeed
        "303a",  # Espressif
        "2e8a",  # Raspberry Pi
        "16c0",  # shared by hobbyists (V-USB, Teensy)
        "1209",  # shared by hobbyists (pid.codes)
    }
)
# Ids of other makers, who also make what is no adapter.
_IDS = frozenset(
    {
        "0483:5740",  # STMicroelectronics: virtual serial port
        "04d8:000a",  # Microchip: serial port of its examples
        "04d8:00dd",  # Microchip: MCP2221
        "04d8:00df",  # Microchip: MCP2200
        "04b4:0002",  # Cypress: serial port of its examples
        "04b4:0003",
        "04e2:1410",  # Exar: XR21V1410
        "04e2:1411",
        "0557:2008",  # ATEN: UC232A
        "0557:2009",
        "050d:0109",  # Belkin: F5U109
        "050d:0257",
        "0711:0210",  # Magic Control Technology
        "0711:0230",
        "0451:3410",  # Texas Instruments: TI3410
        "0856:ac01",  # B&B Electronics
        "0bda:8154",  # Realtek
        "0fe6:9700",
        "1453:4026",
        "2478:2008",  # Tripp Lite: U209, which is no UPS
        "4118:2008",
        "6547:0232",
        "ffff:2303",  # copies of the PL2303
    }
)


def is_generic(vendor_id: str, product_id: str) -> bool:
    """Return whether the ids are those of a serial adapter or a board, which may be in any device."""
    return vendor_id in _VENDORS or f"{vendor_id}:{product_id}" in _IDS
