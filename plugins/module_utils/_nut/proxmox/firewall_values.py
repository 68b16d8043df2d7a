# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The values in a rule of Proxmox VE's firewall: addresses, networks, ports.

Source: pve-firewall, src/PVE/Firewall.pm; the names in parentheses are its functions. Net::IP and iptables read the values that these
functions accept.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]
# name -> protocol -> port, from /etc/services
Services = Mapping[str, Mapping[str, int]]

NAME = "[A-Za-z][A-Za-z0-9_-]+"  # of an alias, an IP set, a group
MAX_GROUP, MAX_NAME = 18, 64
_WITH_PORTS = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp", "udplite": "udplite", "136": "udplite",
               "dccp": "dccp", "33": "dccp", "sctp": "sctp", "132": "sctp"}  # fmt: skip
_ICMP_VERSIONS = {"icmp": 4, "icmpv6": 6, "ipv6-icmp": 6}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# $icmp_type_names, $icmpv6_type_names; by the version of IP
_BOTH_ICMP = _words(
    "destination-unreachable port-unreachable communication-prohibited redirect echo-reply echo-request router-advertisement "
    "router-solicitation time-exceeded ttl-zero-during-transit ttl-zero-during-reassembly parameter-problem"
)
_ICMP_TYPES = {
    4: _BOTH_ICMP
    | _words(
        "any network-unreachable host-unreachable protocol-unreachable fragmentation-needed source-route-failed network-unknown "
        "host-unknown network-prohibited host-prohibited TOS-network-unreachable TOS-host-unreachable host-precedence-violation "
        "precedence-cutoff source-quench network-redirect host-redirect TOS-network-redirect TOS-host-redirect ip-header-bad "
        "required-option-missing timestamp-request timestamp-reply address-mask-request address-mask-reply"
    ),
    6: _BOTH_ICMP
    | _words(
        "no-route beyond-scope address-unreachable failed-policy reject-route packet-too-big bad-header unknown-header-type "
        "unknown-option neighbor-solicitation neighbour-solicitation neighbor-advertisement neighbour-advertisement"
    ),
}
# $pve_fw_macros; none of them includes TCP to NUT's port
MACROS = _words(
    "Amanda Auth BGP BitTorrent BitTorrent32 CVS Ceph Citrix DAAP DCC DHCPfwd DHCPv6 DNS Distcc FTP Finger GNUnet GRE Git HKP "
    "HTTP HTTPS ICPV2 ICQ IMAP IMAPS IPIP IPsec IPsecah IPsecnat IRC Jetdirect L2TP LDAP LDAPS MDNS MSNP MSSQL Mail Munin MySQL "
    "NNTP NNTPS NTP NeighborDiscovery OSPF OpenVPN PCA PMG POP3 POP3S PPtP Ping PostgreSQL Printer RDP RIP RNDC Razor Rdate Rsync "
    "SANE SMB SMBswat SMTP SMTPS SNMP SPAMD SPICEproxy SSH SVN SixXS Squid Submission Syslog TFTP Telnet Telnets Time Trcrt VNC "
    "VNCL Web Webcache Webmin Whois"
)


class RuleError(Exception):
    """Proxmox VE ignores a line; the message says why."""


class FailedRuleError(RuleError):
    """Proxmox VE accepts a line, and can't make a rule of it; in a security group it then makes no rule of the others either."""


class RefusedError(Exception):
    """iptables or ipset refuses what Proxmox VE makes of a line, and with it all rules; the message says why."""


@dataclass(frozen=True)
class AddressSpec:
    """The value of -source or -dest."""

    kind: str  # "networks", "range", "ipset", "alias", or "unclear"
    networks: tuple[Network, ...] = ()
    ends: tuple[Address, ...] = ()  # of a range: first and last address
    name: str = ""  # of an IP set or alias; the text of an unclear value
    scope: str = ""  # before the name: "dc/", "guest/", "sdn/" or ""


@dataclass(frozen=True)
class Cidr:
    """A network of an IP set or alias."""

    # by which Proxmox VE finds duplicates in an IP set (generate_ipset_chains); not the same for 192.0.2.1/24 and 192.0.2.0/24
    key: str
    network: Network | None  # None: an impossible prefix


def parse_cidr(text: str) -> Cidr:
    """Return a network (parse_ip_or_cidr); bits after the prefix do not count. Raises RuleError."""
    address, _slash, prefix = text.partition("/")
    if not re.fullmatch(r"[0-9A-Fa-f:.]+(?:/[0-9]+)?", text):
        raise RuleError("no address or network")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise RuleError("no address or network") from None
    normal = ipaddress.ip_address(address).compressed
    key = normal if prefix == str(ipaddress.ip_address(address).max_prefixlen) or not prefix else f"{normal}/{prefix}"
    try:
        return Cidr(key, ipaddress.ip_network(f"{address}/{_read_number(prefix)}" if prefix else address, strict=False))
    except ValueError:
        return Cidr(key, None)


def _read_number(text: str) -> int:
    """Return a number as iptables and ipset read it: octal with a leading 0. Raises ValueError."""
    return int(text, 8 if re.fullmatch("0[0-9]+", text) else 10)


def parse_addresses(text: str) -> AddressSpec:
    """Return an address list (parse_address_list). Raises RuleError."""
    if text.startswith("+") and len(text) > 1:
        match = re.fullmatch(rf"\+(guest/|dc/|sdn/)?({NAME})", text)
        if not match or len(text) > MAX_NAME + 1:
            raise RuleError("no valid name of an IP set")
        return AddressSpec("ipset", name=match.group(2), scope=match.group(1) or "")
    if match := re.fullmatch(f"(dc/|guest/)?({NAME})", text):
        if len(text) > MAX_NAME:
            raise RuleError("the name of the alias is too long")
        return AddressSpec("alias", name=match.group(2).lower(), scope=match.group(1) or "")
    entries = text.split(",")
    if "" in entries:
        raise RuleError("a comma too many in the list of addresses")
    if "-" in text:
        if len(entries) > 1:
            raise RuleError("a range can't be in a list of addresses")
        return _parse_range(text)
    # Forms that Net::IP and iptables may read differently: parts of an address, octets with a leading 0, a sum.
    if all(re.fullmatch(r"[0-9.+/]+", entry) for entry in entries) and not all(
        re.fullmatch(r"(?:(?:0|[1-9][0-9]*)\.){3}(?:0|[1-9][0-9]*)(?:/[0-9]+)?", entry) for entry in entries
    ):
        return AddressSpec("unclear", name=text)
    try:
        networks = tuple(_parse_network(entry) for entry in entries)
    except ValueError as error:
        raise RuleError(f"no address or network: {error}") from None
    if None in networks:
        return AddressSpec("unclear", name=text)
    if len({network.version for network in networks if network}) > 1:
        raise RuleError("it mixes IPv4 and IPv6")
    return AddressSpec("networks", tuple(network for network in networks if network))


def _parse_network(text: str) -> Network | None:
    """Return a network without bits after the prefix; None if iptables refuses its prefix. Raises ValueError."""
    if not re.fullmatch(r"[0-9A-Fa-f:.]+(?:/[0-9]+)?", text):
        raise ValueError(text)
    address, slash, prefix = text.partition("/")
    network = ipaddress.ip_network(f"{address}/{int(prefix)}" if slash else address)  # Net::IP reads decimals
    try:
        return ipaddress.ip_network(f"{address}/{_read_number(prefix)}", strict=False) if slash else network
    except ValueError:
        return None


def _parse_range(text: str) -> AddressSpec:
    if re.fullmatch(r"[0-9A-Fa-f:.]+(?:/[0-9]+)?-[0-9A-Fa-f:.]+", text) and "/" in text:
        return AddressSpec("unclear", name=text)  # Net::IP takes it
    try:
        ends = tuple(ipaddress.ip_address(end) for end in text.split("-"))
    except ValueError:
        raise RuleError("no range of addresses") from None
    if len(ends) != 2 or "%" in text or ends[0].version != ends[1].version or ends[0] > ends[1]:  # type: ignore[operator]
        raise RuleError("no range of addresses")
    return AddressSpec("range", ends=ends)


# Ports


def find_protocol_version(proto: str) -> int | None:
    """Return the version of IP that a protocol belongs to; None: both."""
    return _ICMP_VERSIONS.get(proto)


def check_protocol(options: Mapping[str, str], given: Mapping[str, str], services: Services) -> None:
    """Raise RuleError if ports or a type of ICMP do not fit the protocol (verify_rule, ipt_rule_to_cmds).

    options: without those that are false in Perl; given: with them.
    """
    proto = options.get("proto", "")
    for key in ("dport", "sport"):
        if key in options:
            if not proto or (proto not in _WITH_PORTS and (key == "sport" or proto not in _ICMP_VERSIONS)):
                raise RuleError(f"-{key} needs -p tcp or udp")
            _check_ports(options[key], services, takes_icmp=key == "dport" and proto in _ICMP_VERSIONS)
    if "icmp-type" in options:
        if proto not in _ICMP_VERSIONS:
            raise RuleError("-icmp-type needs -p icmp")
        if "dport" in options:
            raise RuleError("-icmp-type and -dport can't be in the same rule")
        if options["icmp-type"] not in _ICMP_TYPES[_ICMP_VERSIONS[proto]]:
            raise RuleError(f"{proto} has no type {options['icmp-type']}")
    elif "icmp-type" in given and proto and proto not in _ICMP_VERSIONS:
        raise FailedRuleError("-icmp-type needs -p icmp")
    if "dport" in given and proto and proto not in _WITH_PORTS:
        _check_icmp_dport(proto, given["dport"])


def _check_icmp_dport(proto: str, text: str) -> None:
    """Raise FailedRuleError for a -dport that is no type of ICMP."""
    if proto not in ("icmp", "icmpv6"):
        raise FailedRuleError(f"{proto} has no ports")
    if int(text) > 255 if re.fullmatch("[0-9]+", text) else text not in _ICMP_TYPES[_ICMP_VERSIONS[proto]]:
        raise FailedRuleError(f"{proto} has no type {text}")


def _check_ports(text: str, services: Services, *, takes_icmp: bool = False) -> None:
    """Raise RuleError for an invalid list of ports (parse_port_name_number_or_range)."""
    entries = text.split(",")
    if "" in entries:
        raise RuleError("a comma too many in the list of ports")
    names = {name for types in _ICMP_TYPES.values() for name in types} if takes_icmp else set()
    count = 0
    for entry in entries:
        if match := re.fullmatch("([0-9]+):([0-9]+)", entry):
            count += 2
            if not int(match.group(1)) <= int(match.group(2)) <= 65535:
                raise RuleError(f"no range of ports: {entry}")
        elif re.fullmatch("[0-9]+", entry):
            count += 1
            if int(entry) > 65535:
                raise RuleError(f"no port: {entry}")
        elif entry not in names and entry not in services:
            raise RuleError(f"/etc/services has no {entry}")
    if count and not names.isdisjoint(entries):
        raise RuleError("a type of ICMP can't be in a list of ports")
    if count > 15:
        raise RuleError("more than 15 ports; a range counts as 2")


def find_ports(text: str, proto: str, services: Services) -> list[tuple[int, int]]:
    """Return the ranges of a valid list of ports as iptables reads them. Raises RefusedError."""
    entries = text.split(",")
    if len(entries) == 1 and _WITH_PORTS[proto] == "udplite":
        raise RefusedError("iptables does not know ports of udplite")
    if sum(1 + (":" in entry) for entry in entries) > 15 and len(entries) > 1:
        raise RefusedError("iptables takes 15 ports at most; a range counts as 2")
    found = []
    for entry in entries:
        ends = [_find_port(word, _WITH_PORTS[proto], services) for word in entry.split(":")]
        if ends[0] > ends[-1]:
            raise RefusedError(f"iptables reads a number with a leading 0 as octal: {entry}")
        found.append((ends[0], ends[-1]))
    return found


def _find_port(word: str, proto: str, services: Services) -> int:
    if not re.fullmatch("[0-9]+", word):
        if proto not in services[word]:
            raise RefusedError(f"/etc/services has no {word} for {proto}")
        return services[word][proto]
    if not re.fullmatch("0[0-9]+", word):
        return int(word)
    try:
        return int(word, 8)
    except ValueError:
        raise RefusedError(f"iptables reads a number with a leading 0 as octal: {word}") from None


def parse_services(text: str) -> dict[str, dict[str, int]]:
    """Return the ports by name and protocol in a text of /etc/services (get_etc_services)."""
    found: dict[str, dict[str, int]] = {}
    for line in text.split("\n"):
        match = re.match(r"([^\s#]\S*)\s+([0-9]+)/(tcp|udp|sctp)", line, re.ASCII)
        if match and int(match.group(2)) < 65536:
            found.setdefault(match.group(1), {}).setdefault(match.group(3), int(match.group(2)))
    return found
