# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network cards of the lab's machines, as far as Wake-on-LAN goes: they listen although the machine is off."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Collection

PORT = 9
MAC_TEMPLATE = "{{ '02:00:' ~ (inventory_hostname | hash('sha256'))[:8] | regex_findall('..') | join(':') }}"
"""The address of a host's card, as the inventory has it."""


def name_card(host: str) -> str:
    """Return the address of a host's card: that of MAC_TEMPLATE."""
    digest = hashlib.sha256(host.encode()).hexdigest()
    return ":".join(["02", "00", *(digest[at : at + 2] for at in range(0, 8, 2))])


def find_woken(packet: bytes, hosts: Collection[str]) -> str | None:
    """Return the host that a packet switches on; None if it is for no host of these, or no such packet."""
    start = packet.find(b"\xff" * 6)
    if start < 0:
        return None
    wanted = packet[start + 6 : start + 6 + 96]
    return next((host for host in hosts if wanted == bytes.fromhex(name_card(host).replace(":", "")) * 16), None)


class NetworkCards:
    """Listens for the packets that a machine broadcasts in the lab's network, of which this machine is the gateway."""

    def __init__(self, senders: Collection[str], hosts: Collection[str], wake: Callable[[str], None]) -> None:
        """Listen. senders: the addresses from which packets count. wake: called with the host."""
        self.senders, self.hosts, self.wake = senders, hosts, wake
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # each site's cards hear all packets
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("", PORT))
        self.listener.settimeout(0.5)
        self.halt = threading.Event()
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while not self.halt.is_set():
            with contextlib.suppress(TimeoutError):
                packet, (address, _port) = self.listener.recvfrom(2048)
                host = find_woken(packet, self.hosts)
                if host and address in self.senders:
                    self.wake(host)

    def close(self) -> None:
        """Stop listening."""
        self.halt.set()
        self.thread.join()
        self.listener.close()
