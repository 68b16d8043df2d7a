# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""USB devices, and pattern matching by the C library as in NUT's drivers."""

from __future__ import annotations

import ctypes
import string
from dataclasses import replace

from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice
from hypothesis import strategies as st

APC = UsbDevice(
    name="1-1.4",
    vendor_id="051d",
    product_id="0002",
    manufacturer="American Power Conversion",
    product="Back-UPS ES 700G FW:871.O4 .I USB FW:O4",
    serial="5B1234T56789",
    bus=1,
    device=4,
    place="pci-0000:00:14.0-usb-0:1.4",
    hid_power=True,
)
CPS = replace(APC, vendor_id="0764", product_id="0501", manufacturer="CPS", product="CP1500EPFCLCD", serial="")
IDS = (("vendorid", "0764"), ("productid", "0501"))
OLD, NEW = (2, 8, 0), (2, 8, 1)

PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=40)
SERIALS = st.text(string.ascii_letters + string.digits + ".*+?()[]{}|^$-_/:=", min_size=1, max_size=20)


def device_at(name: str, device: int = 9, **further: str) -> UsbDevice:
    """Return a CyberPower at another port."""
    told = {"serial": CPS.serial, "product": CPS.product, **further}
    return replace(
        CPS,
        name=name,
        bus=int(name.partition("-")[0]),
        device=device,
        place=f"pci-0000:00:14.0-usb-0:{name.partition('-')[2]}",
        serial=told["serial"],
        product=told["product"],
    )


def libc_takes(pattern: str, text: str) -> bool:
    """Match the whole text as NUT's match_regex() does, with REG_EXTENDED | REG_ICASE."""
    libc = ctypes.CDLL(None)
    compiled = ctypes.create_string_buffer(256)
    span = (ctypes.c_int * 2)()
    assert libc.regcomp(compiled, pattern.encode("ascii"), 1 | 2) == 0
    stripped = text.strip(" \t\n").encode("ascii")
    found: int = libc.regexec(compiled, stripped, ctypes.c_size_t(1), span, 0)
    libc.regfree(compiled)
    return found == 0 and list(span) == [0, len(stripped)]
