# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import errno
import socket

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.uevents import UeventReader, is_about_usb

ADD = b"add@/devices/pci0000:00/usb1/1-1\0ACTION=add\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0SEQNUM=1\0"
OTHER = b"add@/devices/virtual/net/usb0\0ACTION=add\0SUBSYSTEM=net\0INTERFACE=usb0\0"


@pytest.mark.parametrize(
    ("message", "expected"), [(ADD, True), (OTHER, False), (b"", False), (b"NAME=SUBSYSTEM=usb\0", False)]
)
def test_only_messages_about_usb_count(message: bytes, expected: bool) -> None:
    assert is_about_usb(message) == expected


def test_all_messages_are_read_at_once() -> None:
    kernel, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with kernel, reader:
        reader.setblocking(False)
        uevents = UeventReader(reader)
        assert not uevents.has_usb_event()
        for message in (OTHER, ADD, OTHER):
            kernel.send(message)
        assert uevents.has_usb_event()
        assert not uevents.has_usb_event()


class Overrun:
    """A socket whose buffer was too small."""

    def recv(self, _size: int) -> bytes:
        raise OSError(errno.ENOBUFS, "No buffer space available")


def test_lost_messages_count_as_an_event() -> None:
    """Many containers that start at once cause more than the kernel keeps."""
    assert UeventReader(Overrun()).has_usb_event()  # type: ignore[arg-type]


def test_kernel_accepts_the_socket() -> None:
    uevents = UeventReader.open()
    with contextlib.closing(uevents.socket):
        assert uevents.socket.getsockname()[1] == 1
