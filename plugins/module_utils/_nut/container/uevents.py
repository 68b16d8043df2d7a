# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's messages about USB devices that come and go.

The kernel sends them to every network namespace of its first user namespace, so a container with a network of its own hears them. A
rootless one does not. It then looks at the bus at each SCAN_INTERVAL only.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

_PROTOCOL = 15  # NETLINK_KOBJECT_UEVENT
_KERNEL = 1  # the group of the kernel's own messages; udev's are in group 2
_BYTES = 65536
_USB = b"SUBSYSTEM=usb"


@dataclass
class UeventReader:
    """A socket with the kernel's messages."""

    socket: socket.socket

    @classmethod
    def open(cls) -> UeventReader:
        """Return a reader. Raise OSError if the kernel offers none."""
        bus = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _PROTOCOL)
        try:
            bus.bind((0, _KERNEL))
            bus.setblocking(False)
        except OSError:
            bus.close()
            raise
        return cls(bus)

    def has_usb_event(self) -> bool:
        """Read everything that has come. Return whether a USB device changed, or messages were lost."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    message = self.socket.recv(_BYTES)
                except BlockingIOError:
                    raise
                except OSError:  # ENOBUFS: the kernel had to drop some
                    return True
                found = found or is_about_usb(message)
        return found


def is_about_usb(message: bytes) -> bool:
    """Return whether a message of the kernel is about a USB device, or an interface of one."""
    return _USB in message.split(b"\0")
