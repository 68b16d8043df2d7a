# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import wake

MAC = "52:54:00:ab:CD:0f"


@pytest.mark.parametrize("mac", [MAC, MAC.replace(":", "-")])
def test_packet_has_the_address_16_times(mac: str) -> None:
    packet = wake.make_packet(mac)
    assert packet == b"\xff" * 6 + b"\x52\x54\x00\xab\xcd\x0f" * 16
    assert len(packet) == 102


class Sender:
    """A socket that keeps what is sent."""

    def __init__(self, sent: list[tuple[str, bytes, Any]], refuses: str = "") -> None:
        self.sent, self.refuses, self.card, self.may_broadcast = sent, refuses, "", False

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def setsockopt(self, _level: int, option: int, value: Any) -> None:
        if option == socket.SO_BINDTODEVICE:
            self.card = value.rstrip(b"\0").decode()
        if option == socket.SO_BROADCAST:
            self.may_broadcast = bool(value)

    def sendto(self, packet: bytes, target: Any) -> None:
        if self.card == self.refuses:
            raise OSError(101, "Network is unreachable")
        assert self.may_broadcast
        self.sent.append((self.card, packet, target))


def test_packet_goes_out_on_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "list_broadcasters", lambda: ["vmbr0", "vmbr1", "vmbr2"])
    sent: list[tuple[str, bytes, Any]] = []
    cards = wake.send_packet(MAC, lambda *_kind: Sender(sent, refuses="vmbr1"))  # type: ignore[arg-type, return-value]
    assert cards == ("vmbr0", "vmbr2")
    assert {card for card, _packet, _target in sent} == set(cards)
    assert {(packet, target) for _card, packet, target in sent} == {(wake.make_packet(MAC), ("255.255.255.255", 9))}


def test_nothing_sent_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "list_broadcasters", lambda: ["vmbr0"])
    with pytest.raises(wake.WakeError, match="vmbr0: Network is unreachable"):
        wake.send_packet(MAC, lambda *_kind: Sender([], refuses="vmbr0"))  # type: ignore[arg-type, return-value]
    monkeypatch.setattr(wake, "list_broadcasters", list)
    with pytest.raises(wake.WakeError, match="no network with broadcast"):
        wake.send_packet(MAC)


def test_loopback_and_unknown_cards_do_not_broadcast() -> None:
    assert wake.list_broadcasters(["lo", "no-such-card", "a" * 40]) == []
    assert "lo" not in wake.list_broadcasters()
