# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide what becomes of a client's packets, by the rules that pve-firewall makes of its files.

Source: pve-firewall, src/PVE/Firewall.pm (enable_host_firewall, generate_group_rules, generate_ipset_chains, ipt_rule_to_cmds).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..conf.upsd import PORT
from . import firewall_config as config
from .firewall_config import FirewallFile, Rule, SetEntry
from .firewall_values import Address, AddressSpec, Cidr, Network, RefusedError, Services, find_ports

_TCP = ("tcp", "6")
_ANY_PROTOCOL = ("ip", "hopopt")  # number 0, which is all to iptables


class Judge:
    """What becomes of TCP packets to a port. nftables: whether proxmox-firewall makes the rules."""

    def __init__(
        self, cluster: FirewallFile, host: FirewallFile, port: int, services: Services, *, nftables: bool = False
    ) -> None:
        self.cluster, self.host, self.port, self.services, self.nftables = cluster, host, port, services, nftables
        self.doubts: list[str] = []  # rules that may decide about a client that is shut out

    def lets_in(self, source: Network) -> bool:
        """Return whether the rules, and the policy after them, let a client in."""
        doubts: list[str] = []
        decision = self._decide([*self.host.rules, *self.cluster.rules], source, doubts)
        if decision is None:
            decision = self.cluster.options.get("policy_in", "DROP") == "ACCEPT"
        if not decision:
            self.doubts += doubts
        return decision

    def _decide(
        self, rules: Iterable[Rule], source: Network, doubts: list[str], *, unsure: bool = False
    ) -> bool | None:
        """Return whether the rules let a client in; None if none of them decides. unsure: whether they may be skipped."""
        chains: dict[str, list[Rule]] = {}  # of the groups that have been used
        for rule in rules:
            if rule.type == "group":
                if rule.action not in chains:
                    chains[rule.action], is_whole = self._make_group(rule.action, source.version)
                    if not is_whole:
                        continue  # Proxmox VE leaves out this use of the group, and only this
                chain = chains[rule.action]
                is_unknown = any(each.has_failed is None for each in self.cluster.groups.get(rule.action, ()))
                decision = self._decide(chain, source, doubts, unsure=unsure or is_unknown or "iface" in rule.options)
                if decision is not None:
                    return decision
                continue
            matches = self._matches(rule, source)
            if matches is False:
                continue
            if matches is None or unsure:
                doubts.append(rule.label)
                if rule.action != "ACCEPT":
                    return False
            else:
                return rule.action == "ACCEPT"
        return None

    def _make_group(self, name: str, version: int) -> tuple[list[Rule], bool]:
        """Return a group's rules for incoming packets up to one that can't be made, and whether all could be (generate_group_rules)."""
        chain: list[Rule] = []
        for direction in ("in", "out"):
            for rule in self.cluster.groups.get(name, ()):
                if rule.type != direction or (rule.version and rule.version != version):
                    continue
                if rule.has_failed:
                    return chain, False
                if direction == "in":
                    chain.append(rule)
        return chain, True

    def _matches(self, rule: Rule, source: Network) -> bool | None:
        """Return whether a rule matches a new connection; None if unknown."""
        if rule.type != "in" or (rule.version and rule.version != source.version):
            return False
        if rule.macro:
            # none of Proxmox VE's macros includes NUT's port
            return False if self.port == PORT else None
        answers = (
            self._has_interface(rule),
            self._has_protocol(rule),
            self._has_address(rule.source, source),
            self._has_destination(rule, source),
        )
        return False if False in answers else None if None in answers else True

    @staticmethod
    def _has_interface(rule: Rule) -> bool | None:
        # no client comes from lo
        return {None: True, "lo": False}.get(rule.options.get("iface"))

    def _has_protocol(self, rule: Rule) -> bool | None:
        proto = rule.options.get("proto")
        if proto is None or proto in _ANY_PROTOCOL:
            return True
        if proto == "mptcp":
            return None  # iptables may cut its number 262 to 6, TCP's
        if proto not in _TCP:
            return False
        try:
            ports = [
                find_ports(rule.options[key], proto, self.services) if key in rule.options else [(0, 65535)]
                for key in ("dport", "sport")
            ]
        except RefusedError:
            return None
        if not any(low <= self.port <= high for low, high in ports[0]):
            return False
        return True if any(low <= 1 and high == 65535 for low, high in ports[1]) else None

    def _has_destination(self, rule: Rule, source: Network) -> bool | None:
        if rule.dest is None:
            return True
        if rule.dest.kind == "networks" and any(net.prefixlen == 0 for net in rule.dest.networks):
            return True
        return None

    def _has_address(self, spec: AddressSpec | None, source: Network) -> bool | None:
        if spec is None:
            return True
        if spec.kind == "ipset":
            return None if spec.scope == "sdn/" else self.is_in_set(spec.name, source, unknown=None)
        if spec.kind == "alias":
            network = config.find_alias(spec, self.cluster, self.host)
            return None if network is None else _is_within(source, network[0], network[-1])
        if spec.kind == "unclear":
            return None
        ends = [spec.ends] if spec.ends else [(network[0], network[-1]) for network in spec.networks]
        answers = [_is_within(source, low, high) for low, high in ends]
        # None: the rule decides about a part of the network, and the next rule about the rest
        return True if True in answers else None if None in answers else False

    def is_in_set(self, name: str, source: Network, unknown: bool | None = False) -> bool | None:
        """Return whether an IP set of cluster.fw contains a client; None if only a part of it, or unknown. unknown: without the set."""
        if name not in self.cluster.ipsets:
            return unknown
        if config.SDN_NAME.fullmatch(name):
            return None  # the software-defined network may have another set of this name, which then counts
        found = {
            cidr.network: not entry.nomatch
            for entry, cidr in self._find_entries(name)
            if cidr.network is not None and cidr.network.version == source.version
        }
        touching = [network for network in found if _is_within(source, network[0], network[-1]) is not False]
        if any(_is_within(source, network[0], network[-1]) is None for network in touching):
            return None if any(found[network] for network in touching) else False
        if touching and self.nftables and not all(found[network] for network in touching):
            return False  # two sets, of which the one with ! decides
        if touching:
            # the smallest network decides
            return found[max(touching, key=lambda network: network.prefixlen)]
        # Proxmox VE adds the network of the host, which is known only if it is an alias
        return None if name == "management" else False

    def _find_entries(self, name: str) -> list[tuple[SetEntry, Cidr]]:
        """Return the entries of an IP set that count, with their networks: of duplicates the last (generate_ipset_chains)."""
        found: dict[str, tuple[SetEntry, Cidr]] = {}
        for entry in self.cluster.ipsets[name]:
            cidr = entry.cidr
            if entry.alias and not entry.alias.startswith("guest/"):
                cidr = self.cluster.aliases.get(entry.alias.rpartition("/")[2].lower())
            if cidr is not None:
                found[cidr.key] = (entry, cidr)
        return list(found.values())

    def list_refused(self) -> list[str]:
        """Return the lines for which iptables or ipset refuses all rules, with the reason."""
        refused = [*self.cluster.refused, *self.host.refused]
        for name in self.cluster.ipsets:
            seen: set[Network] = set()
            for entry, cidr in self._find_entries(name):
                if entry.alias and (cidr.network is None or cidr.network.prefixlen == 0):
                    refused.append(f"{entry.label} (ipset does not take this network)")
                elif cidr.network in seen:
                    refused.append(f"{entry.label} (ipset has this network already)")
                elif cidr.network is not None:
                    seen.add(cidr.network)
        rules = [*self.host.rules, *self.cluster.rules]
        used = {rule.action for rule in rules if rule.type == "group"}
        for rule in [*rules, *(rule for name in used for rule in self.cluster.groups.get(name, ()))]:
            try:
                self._check_loading(rule)
            except RefusedError as error:
                refused.append(f"{rule.label} ({error})")
        if self.nftables:
            refused += [
                f"{rule.label} (proxmox-firewall can't load its rules, because there is no such group)"
                for rule in rules
                if rule.type == "group" and rule.action not in self.cluster.groups
            ]
        return refused

    def _check_loading(self, rule: Rule) -> None:
        """Raise RefusedError if iptables refuses a rule."""
        if len(rule.options.get("iface", "")) > 15 and rule.type in ("in", "out", "group"):
            raise RefusedError("iptables takes 15 letters at most for an interface")
        if rule.type not in ("in", "out") or rule.has_failed:
            return
        proto = rule.options.get("proto", "")
        if proto == "262":  # mptcp, the only number over 255 in /etc/protocols; without it there, the rule is ignored
            raise RefusedError("iptables does not know the protocol 262")
        if proto and proto not in ("icmp", "icmpv6", "ipv6-icmp"):
            # a macro has its own destination ports
            for key in ("sport",) if rule.macro else ("dport", "sport"):
                if key in rule.options:
                    find_ports(rule.options[key], proto, self.services)
        for spec in (rule.source, rule.dest):
            if spec and spec.kind == "unclear" and re.search(r"(?:^|[./,])0[0-9]*[89]", spec.name):
                raise RefusedError(f"iptables reads a number with a leading 0 as octal: {spec.name}")
            if spec and spec.kind == "unclear" and "/" in spec.name and "-" in spec.name:
                raise RefusedError(f"iptables takes no prefix in a range: {spec.name}")
            if spec and spec.kind == "alias" and config.find_alias(spec, self.cluster, self.host) is None:
                raise RefusedError(f"the network of {spec.name} is impossible")
            if spec and spec.kind == "ipset" and spec.name in self.host.ipsets and spec.scope in ("", "guest/"):
                raise RefusedError(f"Proxmox VE does not make the IP set {spec.name} of host.fw")


def _is_within(source: Network, low: Address, high: Address) -> bool | None:
    """Return whether a range contains the whole source; None if it contains only a part."""
    if low.version != source.version:
        return False
    inside = [low <= end <= high for end in (source[0], source[-1])]  # type: ignore[operator]
    overlaps = any(inside) or source[0] <= low <= source[-1]  # type: ignore[operator]
    return True if all(inside) else None if overlaps else False
