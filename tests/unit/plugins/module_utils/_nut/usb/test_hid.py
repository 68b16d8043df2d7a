# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import hid
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import KEYBOARD_DESCRIPTOR, UPS_DESCRIPTOR
from hypothesis import example, given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("descriptor", "is_ups"),
    [
        (UPS_DESCRIPTOR, True),
        (KEYBOARD_DESCRIPTOR, False),
        (b"", False),
        (bytes.fromhex("0584 0904 a101"), True),
        # other sizes; the usage before its page; a usage with its page
        (bytes.fromhex("068400 0a0400 a201"), False),
        (bytes.fromhex("068400 0a0400 a20100"), True),
        (bytes.fromhex("0784000000 0904 a101"), True),
        (bytes.fromhex("0904 0584 a101"), True),
        (bytes.fromhex("0501 0b04008400 a101"), True),
        (bytes.fromhex("0584 0b02000100 a101"), False),
        # another battery's page; physical and logical collections; no collection; no usage
        (bytes.fromhex("0585 0904 a101"), False),
        (bytes.fromhex("0584 0904 a100"), False),
        (bytes.fromhex("0584 0904 a102"), False),
        (bytes.fromhex("0584 0904 8102"), False),
        (bytes.fromhex("0584 a101"), False),
        # a usage counts up to the next main item
        (bytes.fromhex("0584 0904 8102 a101"), False),
        (bytes.fromhex("0501 0902 a101 0584 0904 a102 c0 c0 0904 a101"), True),
        # pushed and popped
        (bytes.fromhex("0501 a4 0584 b4 0904 a101"), False),
        (bytes.fromhex("0584 a4 0501 b4 0904 a101"), True),
        (bytes.fromhex("b4 0584 0904 a101"), True),
        # long items are skipped, even truncated ones
        (bytes.fromhex("fe0255 0584 0904 a101"), False),
        (bytes.fromhex("fe0255aabb 0584 0904 a101"), True),
        (bytes.fromhex("0584 0904 fe"), False),
        (bytes.fromhex("0584 0904 a1"), False),
    ],
)
def test_ups_is_recognized_by_the_descriptor(descriptor: bytes, is_ups: bool) -> None:
    assert hid.is_power_device(descriptor) is is_ups


@given(st.binary(max_size=300))
@example(b"\xfe\xff")
@example(b"\xb4" * 9)
def test_any_descriptor_is_parsed(descriptor: bytes) -> None:
    is_ups = hid.is_power_device(descriptor)
    assert is_ups in (True, False)
    # later bytes never revoke the result
    assert hid.is_power_device(descriptor + UPS_DESCRIPTOR) or not is_ups
