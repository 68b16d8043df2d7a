# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Wake-on-LAN: switch a machine on by a packet to its network card."""

from __future__ import annotations

import contextlib
import fcntl
import re
import socket
import struct
from collections.abc import Iterable
from typing import Callable

MakeSocket = Callable[[int, int], socket.socket]

PORT = 9  # discard
_PACKETS = 3  # sent at a time, because one may be lost
_SIOCGIFFLAGS, _SIOCGIFADDR = 0x8913, 0x8915
_UP, _BROADCAST = 0x1, 0x2


class WakeError(Exception):
    """No packet was sent. The message says why."""


def make_packet(mac: str) -> bytes:
    """Return the packet that switches on the machine with this hardware address."""
    return b"\xff" * 6 + bytes.fromhex(re.sub("[:-]", "", mac)) * 16


def send_packet(mac: str, make_socket: MakeSocket = socket.socket) -> tuple[str, ...]:
    """Send the packet to all machines of each network of this host. Return the names of the network cards. Raise WakeError.

    A machine that is off has no address, so the packet goes to all, on each card or bridge of its own: the kernel would send it only
    on the one with the default route.
    """
    packet = make_packet(mac)
    sent = []
    problem = "this host has no network with broadcast"
    for name in list_broadcasters():
        try:
            with make_socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
                for _number in range(_PACKETS):
                    sender.sendto(packet, ("255.255.255.255", PORT))
            sent.append(name)
        except OSError as error:
            problem = f"{name}: {error.strerror or error}"
    if not sent:
        raise WakeError(problem)
    return tuple(sent)


def list_broadcasters(names: Iterable[str] | None = None) -> list[str]:
    """Return the names of the network cards and bridges that are up, have an IPv4 address and can broadcast.

    The ports of a bridge have no address, so a packet is not sent twice.
    """
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for name in [name for _index, name in socket.if_nameindex()] if names is None else names:
            request = struct.pack("40s", name.encode()[:15])
            with contextlib.suppress(OSError):
                (flags,) = struct.unpack_from("H", fcntl.ioctl(asker, _SIOCGIFFLAGS, request), 16)
                fcntl.ioctl(asker, _SIOCGIFADDR, request)  # raises OSError without an address
                if flags & _UP and flags & _BROADCAST:
                    found.append(name)
    return found
