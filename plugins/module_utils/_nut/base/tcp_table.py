# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kernel's TCP sockets, as /proc/net/tcp and tcp6 have them: who listens where, and who is connected."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from .hostnames import LOOPBACK, normal_address

ESTABLISHED, LISTEN = "01", "0A"


@dataclass(frozen=True)
class TcpSocket:
    """One socket. peer: the address at the other end."""

    address: str
    port: int
    peer: str
    inode: str


def read_sockets(root: Path, state: str) -> Iterator[TcpSocket]:
    """Read the sockets in a state. A kernel without IPv6 has no tcp6."""
    for table in ("proc/net/tcp", "proc/net/tcp6"):
        try:
            lines = (root / table).read_text(encoding="ascii", errors="replace").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if len(words) > 9 and words[3] == state:
                address, _unused, port = words[1].partition(":")
                yield TcpSocket(
                    _parse_address(address), int(port, 16), _parse_address(words[2].partition(":")[0]), words[9]
                )


def find_peers(root: Path, ports: Collection[int]) -> tuple[frozenset[str], frozenset[str]]:
    """Return who is connected to these ports now, and the addresses of this host that peers are connected to.

    Of the peers this host itself is none, by whichever of its addresses.
    """
    pairs = {
        (normal_address(socket.address), normal_address(socket.peer))
        for socket in read_sockets(root, ESTABLISHED)
        if socket.port in ports
    }
    own = frozenset({LOOPBACK, *(address for address, _peer in pairs)})
    return frozenset(peer for _address, peer in pairs) - own, own


def _parse_address(digits: str) -> str:
    """Read an address of /proc/net: words of 32 bits in the machine's own order of bytes."""
    raw = bytes.fromhex(digits)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return str(ipaddress.ip_address(raw))
