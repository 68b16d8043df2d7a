# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.wake import make_packet
from homelab import network_card
from homelab.network_card import NetworkCards, find_woken, name_card

PACKET = make_packet(name_card("nas"))


def test_card_has_the_same_address_in_the_inventory() -> None:
    assert name_card("nas").startswith("02:00:")
    assert name_card("nas") != name_card("media")
    digits = "hash('sha256'))[:8]"
    assert digits in network_card.MAC_TEMPLATE


@pytest.mark.parametrize(
    ("packet", "host"),
    [
        (PACKET, "nas"),
        (b"password" + PACKET + b"123456", "nas"),
        (make_packet(name_card("other")), None),
        (PACKET[:-1], None),
        (PACKET[6:], None),
        (b"", None),
    ],
)
def test_packet_is_for_one_host(packet: bytes, host: str | None) -> None:
    assert find_woken(packet, ["media", "nas"]) == host


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_cards_hear_packets_of_their_primary_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(network_card, "PORT", port)
    woken: list[str] = []
    own = NetworkCards(["192.0.2.9", "127.0.0.1"], ["nas"], woken.append)
    foreign = NetworkCards(["192.0.2.1"], ["nas"], lambda name: woken.append(f"foreign {name}"))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            # as a broadcast, it reaches the cards of each site
            sender.sendto(PACKET, ("127.255.255.255", port))
            wait_until(lambda: woken == ["nas"])
    finally:
        own.close()
        foreign.close()
    assert woken == ["nas"]
