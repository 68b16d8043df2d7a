# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names and addresses of hosts: looked up within a time limit, and brought into one form."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from typing import TYPE_CHECKING

from .process import run_within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Resolve = Callable[[str, float], "Sequence[str]"]

LOOPBACK = "127.0.0.1"
"""What normal_address makes of every address of the loopback interface."""


def join_host(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def normal_address(text: str) -> str:
    """Return an IP address so that two spellings of it compare equal; what is no IP address comes back as it is.

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


def resolve_name(name: str, timeout: float) -> tuple[str, ...]:
    """Return the addresses of ``name``, as the system's resolver gives them, at most ``timeout`` seconds from now.

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
    """Return the addresses of each name, () if it has none, and why those have none. All are looked up at once.

    It takes no more than ``seconds``, however many names there are.
    """
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
    # copies: a thread that is late must not change what the caller has
    answers, refusals = dict(found), dict(problems)
    late = TimeoutError(f"the name was not resolved within {seconds:g} s")
    return answers, {name: refusals.get(name, late) for name, those in answers.items() if not those}


def is_address(text: str) -> bool:
    """Return whether this is an IP address, with a zone or without, and no name."""
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
