# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and addresses of hosts: looked up within a time limit, and brought into one form."""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

from .process import run_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Resolve = Callable[[str, float], "Sequence[str]"]

LOOPBACK = "127.0.0.1"
"""normal_address() returns this for every loopback address."""

MAC = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}")
"""The hardware address of a network card."""


def join_host(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def normal_address(text: str) -> str:
    """Return an IP address in a form in which two spellings compare equal; any other text is returned unchanged.

    IPv4 mapped into IPv6 becomes IPv4: a upsd that listens on :: shows IPv4 clients that way. All of the loopback
    interface becomes 127.0.0.1, because Debian gives a host's own name the address 127.0.1.1. A zone (%eth0) goes.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return LOOPBACK if address.is_loopback else str(address)


def split_addresses(text: str) -> tuple[str, ...]:
    """Return the addresses and names of a machine that has several, written with commas; without brackets around IPv6 addresses."""
    return tuple(dict.fromkeys(part.strip().strip("[]") for part in text.split(",") if part.strip(" []")))


def resolve_name(name: str, timeout: float) -> tuple[str, ...]:
    """Return the addresses of ``name`` from the system's resolver, within ``timeout`` seconds.

    Raises OSError: socket.gaierror if it has none, TimeoutError if the answer takes too long.
    """
    try:
        return (str(ipaddress.ip_address(name)),)
    except ValueError:
        pass
    try:
        # getaddrinfo() has no timeout of its own, and a dead name server takes long
        answers = run_within(timeout, lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    except TimeoutError:
        raise TimeoutError(f"the name was not resolved within {timeout:g} s") from None
    except UnicodeError as error:  # an empty label, or one that is too long
        raise OSError(str(error)) from None
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))


def resolve_names(
    names: Iterable[str], seconds: float, ask: Resolve = resolve_name
) -> tuple[dict[str, tuple[str, ...]], dict[str, OSError]]:
    """Return the addresses of each name (() if none), and the error of each name without one. All are looked up in parallel.

    A name may be several of one machine, as split_addresses() splits them. The whole lookup takes at most ``seconds``.
    """
    parts = {name: split_addresses(name) or (name,) for name in names}
    found, problems = _resolve_each({part for those in parts.values() for part in those}, seconds, ask)
    addresses = {
        name: tuple(dict.fromkeys(each for part in those for each in found[part])) for name, those in parts.items()
    }
    return addresses, {name: problems[parts[name][0]] for name, those in addresses.items() if not those}


def _resolve_each(
    names: Iterable[str], seconds: float, ask: Resolve = resolve_name
) -> tuple[dict[str, tuple[str, ...]], dict[str, OSError]]:
    """Do the work of resolve_names() for names that are one address or name each."""
    found: dict[str, tuple[str, ...]] = {name: (name,) if is_address(name) else () for name in names}
    problems: dict[str, OSError] = {}

    def look_up(name: str) -> None:
        try:
            found[name] = tuple(ask(name, seconds))
            if not found[name]:
                raise OSError("it has no address")
        except (OSError, ValueError) as error:
            problems[name] = error if isinstance(error, OSError) else OSError(str(error))

    unknown = [name for name, those in found.items() if not those]
    threads = [threading.Thread(target=look_up, args=(name,), daemon=True) for name in unknown]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    # copies: a late thread must not change what the caller got
    answers, refusals = dict(found), dict(problems)
    late = TimeoutError(f"the name was not resolved within {seconds:g} s")
    return answers, {name: refusals.get(name, late) for name, those in answers.items() if not those}


def is_address(text: str) -> bool:
    """Return whether a text is an IP address, with or without a zone."""
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
