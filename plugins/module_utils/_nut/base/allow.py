# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may connect, as a user writes it: an address, a network, a name, or anybody."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Union

from . import text as base_text

ANY = "any"
"""In nut_server_allow: anybody may connect, and no table is written."""

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*"
)


class AccessError(ValueError):
    """An entry of nut_server_allow is invalid; the message says what is wrong and what to write instead."""


def parse_source(text: object) -> str:
    """Return an address, a network or a name in its usual form. Raise AccessError for anything else."""
    given = str(text).strip()
    bare = given[1:-1] if given.startswith("[") and given.endswith("]") else given
    try:
        if "/" in bare:
            network = ipaddress.ip_network(bare, strict=False)
            if str(network.network_address) != str(ipaddress.ip_address(bare.partition("/")[0])):
                raise AccessError(
                    f"{given} is a host's address with the length of a network: write {network} for the network, or "
                    f"{bare.partition('/')[0]} for the host"
                )
            return str(network)
        return _parse_host(ipaddress.ip_address(bare.partition("%")[0]), given)
    except AccessError:
        raise
    except ValueError:
        pass
    # no host name ends in a number, so this is a mistyped address or a range
    if not _NAME.fullmatch(bare) or bare.rpartition(".")[2].isdigit():
        shown = base_text.printable(given, 60)
        raise AccessError(f"{shown!r} is not an address, a network (such as 192.0.2.0/24) or a name of a host")
    return bare


def _parse_host(address: Address, given: str) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    host = mapped or address
    if host.is_unspecified or host.is_multicast:
        raise AccessError(f"{given} is not the address of a host. Write {ANY} to let everybody connect")
    return str(host)


def parse_allow(given: object) -> tuple[str, ...]:
    """Return nut_server_allow as sources in their usual form, in order and without duplicates; ANY stays. Raise AccessError."""
    if given is None or isinstance(given, str):
        given = [given] if given else []
    if not isinstance(given, Sequence):
        raise AccessError(f"must be a list of addresses, networks and names, or {ANY}")
    return tuple(dict.fromkeys(ANY if entry == ANY else parse_source(entry) for entry in given))


def is_literal(text: str) -> bool:
    """Return whether a source, as parse_source returns it, is an address or a network, so that no name server is needed."""
    return "/" in text or ":" in text or re.fullmatch(r"[0-9.]+", text) is not None
