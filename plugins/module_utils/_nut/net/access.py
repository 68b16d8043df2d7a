# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nftables table that limits who may connect to upsd: how its file is written, and how the kernel's copy is read.

A client can block upsd without logging in, with or without TLS: it only has to send requests and not read the answers. So
the table limits which addresses can connect at all.

- Every rule begins with ``tcp dport @ports``, and that set holds only upsd's ports. The table therefore can't lock anyone out
  of any other service, whatever the other sets contain.
- Accepting a packet here does not override other tables, such as Proxmox VE's firewall: a packet must pass all of them.
- ``nft -f`` loads the whole file or nothing. The first two lines of the table replace an existing one.
- TCP resets are accepted from everyone. They open nothing, and without them the kernel would never notice that a client which
  was shut out while connected has gone, and upsd would keep waiting for it.
- Refused addresses are remembered for a day, so that a secondary whose real address differs from the inventory can be found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from ..base import hostnames, jsontext
from ..base.allow import AccessError, is_literal, parse_source
from ..base.systemd import Run

FAMILY, TABLE = "inet", "homelab_nut"

LIST = ("nft", "--json", "list", "table", FAMILY, TABLE)
DELETE = ("nft", "delete", "table", FAMILY, TABLE)

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Resolve = Callable[[str, float], Sequence[str]]

RESOLVE_SECONDS = 5.0
"""Time limit for resolving all names together."""

_KNOWN = "# allowed: "
_ADDRESSES_LIMIT = 8  # of one name
_HEAD = """\
# Written by Ansible (homelab.nut.nut_server). Changes made here are lost at the next run.
# Limits who may connect to upsd (nut_server_allow). It covers only upsd's ports. nut-access.service loads it.
# Each "allowed" line: a name, its address in the inventory, and the addresses this resolved to. nut-access adds new ones.
"""
_RULES = (
    'iifname "lo" accept',
    "tcp flags rst accept",
    "ip saddr @allowed4 accept",
    "ip6 saddr @allowed6 accept",
    "update @refused4 { ip saddr }",
    "update @refused6 { ip6 saddr }",
    'counter name "refused" reject with tcp reset',
)


@dataclass(frozen=True)
class AllowedSource:
    """A machine or network that may connect."""

    name: str  # from the inventory or from nut_server_allow; one word
    address: str  # an address, a network, or a name that the host resolves


@dataclass(frozen=True)
class LoadedTable:
    """The table as the kernel has it."""

    ports: frozenset[int]
    allowed: tuple[Network, ...]
    rules: int  # how many
    hooked: bool  # whether its chain filters incoming packets, and accepts those that match no rule
    refused: int  # packets since the table was loaded
    refused_from: tuple[str, ...]  # addresses refused within the last day


# The allowed sources


def make_source(name: str, address: str) -> AllowedSource:
    """Return a source with its name made one word and its address normalized. Raises AccessError."""
    return AllowedSource(re.sub("[^A-Za-z0-9_.:/-]", "_", name) or "_", parse_source(address))


def resolve_sources(
    sources: Iterable[AllowedSource], resolve: Resolve
) -> tuple[dict[AllowedSource, tuple[str, ...]], dict[AllowedSource, str]]:
    """Return the addresses and networks of each source; for each source without any, return a sentence that says why.

    resolve: has the signature of hostnames.resolve_name.
    """
    resolved: dict[AllowedSource, tuple[str, ...]] = {}
    problems: dict[AllowedSource, str] = {}
    wanted = dict.fromkeys(sources)
    names = dict.fromkeys(source.address for source in wanted if not is_literal(source.address))
    answers, errors = hostnames.resolve_names(names, RESOLVE_SECONDS, resolve)
    for source in wanted:
        label = source.name if source.name == source.address else f"{source.name} ({source.address})"
        error = errors.get(source.address)
        if error is not None:
            why = f"does not resolve on this host ({error.strerror or error})"
        else:
            addresses = {address.partition("%")[0] for address in answers.get(source.address, (source.address,))}
            # nftables takes no interface behind a link-local address; name servers shuffle their answers
            ordered = sorted(addresses, key=lambda address: (":" in address, address))
            loopback = [address for address in ordered if ipaddress.ip_network(address).is_loopback]
            if not loopback:
                resolved[source] = tuple(ordered)
                continue
            why = f"resolves to {loopback[0]} on this host, which is this host itself"
        problems[source] = (
            f"{label} {why}, so no firewall rule can match it. Set the address it connects from "
            "(nut_client_address of that host, or nut_server_allow)"
        )
    return resolved, problems


def keep_known_addresses(
    resolved: Mapping[AllowedSource, Sequence[str]],
    problems: Mapping[AllowedSource, str],
    before: Mapping[AllowedSource, Sequence[str]],
) -> tuple[dict[AllowedSource, tuple[str, ...]], list[str]]:
    """Return the addresses of every source, and warnings. A source that does not resolve now keeps its earlier addresses."""
    allowed = {source: tuple(addresses) for source, addresses in resolved.items()}
    warnings = []
    for source, sentence in problems.items():
        allowed[source] = tuple(before.get(source, ()))
        until = (
            f"may connect from {', '.join(allowed[source])}, as before"
            if allowed[source]
            else "can't connect, and is not told about a power cut"
        )
        warnings.append(f"{sentence}. Until then it {until}")
    return allowed, warnings


def widen_table(text: str, resolve: Resolve) -> str:
    """Return the text of a table file with the addresses added that its names resolve to now; the same text if there are none.

    No address is removed, whatever a name server says: shutting out a secondary on battery could make it shut down. The next
    deployment removes old addresses. A name whose addresses keep changing keeps the newest eight.
    """
    before = parse_sources(text)
    names = [source for source in before if not is_literal(source.address)]
    resolved, _unused = resolve_sources(names, resolve)
    new = {
        source: [address for address in addresses if address not in before[source]]
        for source, addresses in resolved.items()
    }
    if not any(new.values()):
        return text
    after = {source: (*known, *new.get(source, ()))[-_ADDRESSES_LIMIT:] for source, known in before.items()}
    return render_table(parse_ports(text), after)


# The text


def render_table(ports: Iterable[int], allowed: Mapping[AllowedSource, Sequence[str]]) -> str:
    """Return the text of the file that nft loads. allowed: the addresses and networks of each source. Raises AccessError."""
    numbers = sorted(set(ports))
    wrong = [port for port in numbers if isinstance(port, bool) or not 0 < port < 65536]
    if wrong or not numbers:
        raise AccessError(f"upsd's port must be a number from 1 to 65535, not {wrong[0] if wrong else 'none'}")
    networks = collapse_networks(address for addresses in allowed.values() for address in addresses)
    known = "".join(
        f"{_KNOWN}{' '.join((source.name, source.address, *addresses))}\n" for source, addresses in allowed.items()
    )
    sets = [
        _render_set("ports", "inet_service", ", ".join(map(str, numbers))),
        *(
            _render_set(
                f"allowed{suffix}",
                f"{kind}_addr",
                ", ".join(_format_network(network) for network in networks if network.version == version),
                "interval",
            )
            for suffix, kind, version in (("4", "ipv4", 4), ("6", "ipv6", 6))
        ),
        *(
            _render_set(f"refused{suffix}", f"{kind}_addr", "", "dynamic,timeout", "size 1024", "timeout 1d")
            for suffix, kind in (("4", "ipv4"), ("6", "ipv6"))
        ),
    ]
    rules = "".join(f"\t\ttcp dport @ports {rule}\n" for rule in _RULES)
    return (
        f"{_HEAD}{known}table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\ntable {FAMILY} {TABLE} {{\n{''.join(sets)}"
        "\tcounter refused {\n\t}\n"
        f"\tchain input {{\n\t\ttype filter hook input priority -10; policy accept;\n{rules}\t}}\n}}\n"
    )


def _render_set(name: str, kind: str, elements: str, flags: str = "", *more: str) -> str:
    lines = [f"type {kind}", *([f"flags {flags}"] if flags else []), *more]
    lines += [f"elements = {{ {elements} }}"] if elements else []
    return f"\tset {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


def _format_network(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def collapse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Return the fewest networks that cover these addresses and networks: nft refuses a set whose elements overlap."""
    networks = [ipaddress.ip_network(text) for text in texts]
    v4 = [network for network in networks if isinstance(network, ipaddress.IPv4Network)]
    v6 = [network for network in networks if isinstance(network, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6))


def parse_sources(text: str) -> dict[AllowedSource, tuple[str, ...]]:
    """Return the sources in the text of a table file, with their addresses and networks; {} if the text is no such file."""
    sources: dict[AllowedSource, tuple[str, ...]] = {}
    for line in text.splitlines():
        if not line.startswith(_KNOWN):
            continue
        try:
            name, address, *addresses = line.removeprefix(_KNOWN).split()
            collapse_networks(addresses)
            source = make_source(name, address)
        except ValueError:
            continue
        sources[source] = tuple(addresses)
    return sources


def parse_ports(text: str) -> frozenset[int]:
    """Return the ports that the text of a table file covers."""
    match = re.search(r"set ports \{\s*type inet_service\s*elements = \{ ([0-9, ]+) \}", text)
    return frozenset(map(int, match[1].split(", "))) if match else frozenset()


# The table in the kernel


def read_table(run: Run) -> LoadedTable | None:
    """Return the table as the kernel has it; None if our table is not loaded or nft is missing."""
    code, output = run(LIST)
    return None if code else parse_table(output)


def parse_table(listed: str) -> LoadedTable | None:
    """Return the table in the output of LIST; None if it is not our table."""
    try:
        entries = jsontext.parse_json(listed)["nftables"]
        sets = {entry["set"]["name"]: entry["set"].get("elem", []) for entry in entries if "set" in entry}
        chains = [entry["chain"] for entry in entries if "chain" in entry]
        counters = {entry["counter"]["name"]: entry["counter"]["packets"] for entry in entries if "counter" in entry}
        return LoadedTable(
            ports=frozenset(int(port) for port in sets["ports"]),
            allowed=collapse_networks(_parse_elements(sets, "allowed4", "allowed6")),
            rules=sum(1 for entry in entries if "rule" in entry),
            hooked=[(chain.get("hook"), chain.get("policy")) for chain in chains] == [("input", "accept")],
            refused=int(counters["refused"]),
            refused_from=tuple(_parse_elements(sets, "refused4", "refused6")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _parse_elements(sets: Mapping[str, Sequence[Any]], *names: str) -> Iterator[str]:
    """Yield the addresses and networks in these sets. nft may list adjacent addresses as a range."""
    for element in (element for name in names for element in sets.get(name, [])):
        value = element["elem"]["val"] if isinstance(element, Mapping) and "elem" in element else element
        if isinstance(value, Mapping) and "range" in value:
            first, last = map(ipaddress.ip_address, value["range"])
            yield from map(str, ipaddress.summarize_address_range(first, last))
        elif isinstance(value, Mapping):
            yield f"{value['prefix']['addr']}/{value['prefix']['len']}"
        else:
            yield str(value)


def explain_refusals(loaded: LoadedTable | None, limit: int = 6) -> str:
    """Return which addresses were refused and what to do, for the case that a login is missing; "" if none were refused."""
    if loaded is None or not loaded.refused_from:
        return ""
    more = len(loaded.refused_from) - limit
    shown = ", ".join(loaded.refused_from[:limit]) + (f" and {more} more" if more > 0 else "")
    return (
        f"refused in the last day: {shown}. If one of them is yours, set it as the machine's address "
        "(nut_client_address), or allow it (nut_server_allow)"
    )


def find_difference(loaded: LoadedTable | None, text: str) -> str:
    """Return how the loaded table differs from the text of a table file; "" if it does not."""
    if loaded is None:
        return f"the table {FAMILY} {TABLE} is not loaded"
    if loaded.ports != parse_ports(text):
        return "the loaded table covers other ports"
    if loaded.rules != len(_RULES) or not loaded.hooked:
        return "the rules of the loaded table were changed"
    wanted = _collapse_allowed(text)
    if loaded.allowed != wanted:
        return f"the loaded table allows {', '.join(map(_format_network, loaded.allowed)) or 'no address'}"
    return ""


def is_allowed(address: str, networks: Iterable[Network]) -> bool:
    """Return whether an address is in one of these networks. Loopback addresses are always allowed."""
    host = ipaddress.ip_address(address)
    return host.is_loopback or any(host in network for network in networks)


def _collapse_allowed(text: str) -> tuple[Network, ...]:
    return collapse_networks(address for addresses in parse_sources(text).values() for address in addresses)


def find_shut_out(addresses: Iterable[str], text: str, loaded: LoadedTable | None) -> list[str]:
    """Return those of the addresses that may connect now, but not once this table file is loaded."""
    wanted = _collapse_allowed(text)
    limited = loaded is not None and loaded.hooked and loaded.rules == len(_RULES)
    now = loaded.allowed if loaded is not None and limited and parse_ports(text) <= loaded.ports else None
    shut_out = [
        address
        for address in set(addresses)
        if not is_allowed(address, wanted) and (now is None or is_allowed(address, now))
    ]
    return sorted(shut_out, key=lambda address: (":" in address, ipaddress.ip_address(address)))
