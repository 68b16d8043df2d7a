# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may connect to upsd: an nftables table of our own that refuses everybody else, as a text and as the kernel has it.

No login is needed to block upsd, with TLS or without: a peer that asks and does not read the answers is enough. So who may
connect at all is limited.

- Every rule begins with ``tcp dport @ports``, and that set holds upsd's ports alone: this table can't lock anybody out of
  anything else, whatever stands in the other sets.
- Its accept is no promise to others: a packet must pass the tables of everybody, such as Proxmox VE's firewall.
- ``nft -f`` takes the whole file or none of it. The first two lines make it replace a table that is there.
- A reset is let in from everybody. It opens nothing, and without it the kernel would never learn that a peer who was shut out
  while he was connected has gone, and upsd would wait for him.
- Who was refused is remembered for a day: then a secondary whose address is not the one in the inventory is found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""How long all names together may take."""

_KNOWN = "# allowed: "
_MOST = 8  # addresses of one name
_HEAD = """\
# Written by Ansible (homelab.nut.nut_server). A change made here is lost at its next run.
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
    """Somebody who may connect."""

    name: str  # in the inventory, or as it stands in nut_server_allow; a word
    address: str  # an address, a network, or a name that the host resolves


@dataclass(frozen=True)
class LoadedTable:
    """The table as the kernel has it."""

    ports: frozenset[int]
    allowed: tuple[Network, ...]
    rules: int
    hooked: bool  # whether its chain sees what comes in, and lets through what no rule matches
    refused: int  # packets, since it was loaded
    refused_from: tuple[str, ...]  # the addresses that were refused in the last day


# Who


def make_source(name: str, address: str) -> AllowedSource:
    """Return a source in its usual form. Raises AccessError."""
    return AllowedSource(re.sub("[^A-Za-z0-9_.:/-]", "_", name) or "_", parse_source(address))


def resolve_sources(
    sources: Iterable[AllowedSource], resolve: Resolve
) -> tuple[dict[AllowedSource, tuple[str, ...]], dict[AllowedSource, str]]:
    """Return the addresses and networks of each source, and for each that has none a sentence that says why.

    resolve: as hostnames.resolve_name.
    """
    found: dict[AllowedSource, tuple[str, ...]] = {}
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
            those = answers.get(source.address, (source.address,))
            # without the interface of a link-local address, which no rule takes; name servers change the order
            plain = sorted({one.partition("%")[0] for one in those}, key=lambda one: (":" in one, one))
            here = [one for one in plain if ipaddress.ip_network(one).is_loopback]
            if not here:
                found[source] = tuple(plain)
                continue
            why = f"resolves to {here[0]} on this host, which is this host itself"
        problems[source] = (
            f"{label} {why}, so no firewall rule can match it. Set the address it connects from "
            "(nut_client_address of that host, or nut_server_allow)"
        )
    return found, problems


def keep_known_addresses(
    found: Mapping[AllowedSource, Sequence[str]],
    problems: Mapping[AllowedSource, str],
    before: Mapping[AllowedSource, Sequence[str]],
) -> tuple[dict[AllowedSource, tuple[str, ...]], list[str]]:
    """Return who is allowed, with what was known before of those who have no address now, and what to warn of."""
    allowed: dict[AllowedSource, tuple[str, ...]] = {source: tuple(those) for source, those in found.items()}
    warnings = []
    for source, sentence in problems.items():
        allowed[source] = tuple(before.get(source, ()))
        until = (
            f"may connect from {', '.join(allowed[source])}, as before"
            if allowed[source]
            else "can't connect, and won't hear of a power cut"
        )
        warnings.append(f"{sentence}. Until then it {until}")
    return allowed, warnings


def widen_table(text: str, resolve: Resolve) -> str:
    """Return a file that render() made with the addresses that its names have by now; the text itself if these are in it.

    Nobody is shut out by this, whatever a name server says, as that could shut down a secondary that is on battery. The next
    deployment does so. Of a name whose addresses change again and again the last ones count.
    """
    before = parse_sources(text)
    names = [source for source in before if not is_literal(source.address)]
    found, _unused = resolve_sources(names, resolve)
    new = {source: [one for one in those if one not in before[source]] for source, those in found.items()}
    if not any(new.values()):
        return text
    after = {source: (*those, *new.get(source, ()))[-_MOST:] for source, those in before.items()}
    return render_table(parse_ports(text), after)


# The text


def render_table(ports: Iterable[int], allowed: Mapping[AllowedSource, Sequence[str]]) -> str:
    """Return the file that nft loads. allowed: the addresses and networks of each source. Raises AccessError."""
    numbers = sorted(set(ports))
    wrong = [port for port in numbers if isinstance(port, bool) or not 0 < port < 65536]
    if wrong or not numbers:
        raise AccessError(f"upsd's port must be a number from 1 to 65535, not {wrong[0] if wrong else 'none'}")
    networks = collapse_networks(one for those in allowed.values() for one in those)
    known = "".join(f"{_KNOWN}{' '.join((source.name, source.address, *those))}\n" for source, those in allowed.items())
    sets = [
        _render_set("ports", "inet_service", ", ".join(map(str, numbers))),
        *(
            _render_set(
                f"allowed{suffix}",
                f"{kind}_addr",
                ", ".join(_format_network(one) for one in networks if one.version == version),
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
    """Return the smallest list of networks that has these addresses and networks: nft refuses a set whose parts overlap."""
    networks = [ipaddress.ip_network(one) for one in texts]
    v4 = [one for one in networks if isinstance(one, ipaddress.IPv4Network)]
    v6 = [one for one in networks if isinstance(one, ipaddress.IPv6Network)]
    return (*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6))


def parse_sources(text: str) -> dict[AllowedSource, tuple[str, ...]]:
    """Return who is allowed by a file that render() made, with the addresses and networks; what is no such file has nobody."""
    found: dict[AllowedSource, tuple[str, ...]] = {}
    for line in text.splitlines():
        if not line.startswith(_KNOWN):
            continue
        try:
            name, address, *those = line.removeprefix(_KNOWN).split()
            collapse_networks(those)
            source = make_source(name, address)
        except ValueError:
            continue
        found[source] = tuple(those)
    return found


def parse_ports(text: str) -> frozenset[int]:
    """Return the ports that a file which render() made is about."""
    found = re.search(r"set ports \{\s*type inet_service\s*elements = \{ ([0-9, ]+) \}", text)
    return frozenset(map(int, found[1].split(", "))) if found else frozenset()


# The kernel's


def read_table(run: Run) -> LoadedTable | None:
    """Return the table as the kernel has it; None if it has none of ours, or nft is not there."""
    code, said = run(LIST)
    return None if code else parse_table(said)


def parse_table(listed: str) -> LoadedTable | None:
    """Read what LIST shows; None if that is no table of ours."""
    try:
        entries = jsontext.parse_json(listed)["nftables"]
        sets = {entry["set"]["name"]: entry["set"].get("elem", []) for entry in entries if "set" in entry}
        chains = [entry["chain"] for entry in entries if "chain" in entry]
        counters = {entry["counter"]["name"]: entry["counter"]["packets"] for entry in entries if "counter" in entry}
        return LoadedTable(
            ports=frozenset(int(port) for port in sets["ports"]),
            allowed=collapse_networks(
                one for name in ("allowed4", "allowed6") for each in sets.get(name, []) for one in _parse_element(each)
            ),
            rules=sum(1 for entry in entries if "rule" in entry),
            hooked=[(one.get("hook"), one.get("policy")) for one in chains] == [("input", "accept")],
            refused=int(counters["refused"]),
            refused_from=tuple(
                one for name in ("refused4", "refused6") for each in sets.get(name, []) for one in _parse_element(each)
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None


def _parse_element(given: Any) -> list[str]:
    """Return an element of a set as addresses and networks. nft may show neighbours as a range."""
    if isinstance(given, Mapping) and "elem" in given:
        given = given["elem"]["val"]
    if isinstance(given, Mapping) and "range" in given:
        first, last = map(ipaddress.ip_address, given["range"])
        return [str(one) for one in ipaddress.summarize_address_range(first, last)]
    if isinstance(given, Mapping):
        return [f"{given['prefix']['addr']}/{given['prefix']['len']}"]
    return [str(given)]


def explain_refusals(loaded: LoadedTable | None, limit: int = 6) -> str:
    """Return a sentence on who was refused, for a machine that is missing among those who are logged in; "" if nobody was."""
    if loaded is None or not loaded.refused_from:
        return ""
    more = len(loaded.refused_from) - limit
    shown = ", ".join(loaded.refused_from[:limit]) + (f" and {more} more" if more > 0 else "")
    return (
        f"refused in the last day: {shown}. If one of them is yours, give its address "
        "(nut_client_address), or allow it (nut_server_allow)"
    )


def find_difference(loaded: LoadedTable | None, text: str) -> str:
    """Return how the loaded table differs from a file that render() made; "" if it does not."""
    if loaded is None:
        return f"the table {FAMILY} {TABLE} is not loaded"
    if loaded.ports != parse_ports(text):
        return "the loaded table covers other ports"
    if loaded.rules != len(_RULES) or not loaded.hooked:
        return "its rules were changed"
    wanted = collapse_networks(one for those in parse_sources(text).values() for one in those)
    if loaded.allowed != wanted:
        return f"the loaded table allows {', '.join(map(_format_network, loaded.allowed)) or 'no address'}"
    return ""


def is_allowed(address: str, networks: Iterable[Network]) -> bool:
    """Return whether an address is in one of these networks. Loopback always is."""
    host = ipaddress.ip_address(address)
    return host.is_loopback or any(host in one for one in networks)


def find_shut_out(addresses: Iterable[str], text: str, loaded: LoadedTable | None) -> list[str]:
    """Return who of these may connect now, and could not once the file that render() made is loaded."""
    wanted = collapse_networks(one for those in parse_sources(text).values() for one in those)
    limited = loaded is not None and loaded.hooked and loaded.rules == len(_RULES)
    now = loaded.allowed if loaded is not None and limited and parse_ports(text) <= loaded.ports else None
    out = [
        address
        for address in set(addresses)
        if not is_allowed(address, wanted) and (now is None or is_allowed(address, now))
    ]
    return sorted(out, key=lambda address: (":" in address, ipaddress.ip_address(address)))
