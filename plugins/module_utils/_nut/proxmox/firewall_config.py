# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read cluster.fw and host.fw exactly as pve-firewall reads them.

Source: pve-firewall, src/PVE/Firewall.pm; the names in parentheses are its functions; releases 8 and 9 agree. It reads each file
once from top to bottom, so a rule can only use an alias or an IP set that is defined above it. It skips an invalid line and goes
on. It reads bytes: only ASCII counts as a blank; the texts here are bytes, too, as Latin-1.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..base.text import printable
from .firewall_values import (
    MACROS,
    MAX_GROUP,
    MAX_NAME,
    NAME,
    AddressSpec,
    Cidr,
    FailedRuleError,
    Network,
    RuleError,
    Services,
    check_protocol,
    find_protocol_version,
    parse_addresses,
    parse_cidr,
)
from .grammar import BOOLEAN, PropertyFormat, parse_properties

_LEVELS = "emerg|alert|crit|err|warning|notice|info|debug|nolog"
# what comes after the direction and the action (parse_fw_rule): exactly one blank between an option and its value
_OPTIONS = (
    ("iface", r"-i (\S+)\s*"),
    ("proto", r"(?:-p|--?proto) (\S+)\s*"),
    *((name, rf"--?{name} (\S+)\s*") for name in ("dport", "sport", "source", "dest")),
    ("log", rf"--?log ({_LEVELS})\s*"),
    ("icmp-type", r"--?icmp-type (\S+)\s*"),
)
_SWITCHES = "enable|nosmurfs|tcpflags|ndp|log_nf_conntrack|nf_conntrack_allow_invalid|protection_synflood|nftables"
_NUMBERS = (
    "nf_conntrack_max|nf_conntrack_tcp_timeout_established|nf_conntrack_tcp_timeout_syn_recv|protection_synflood_rate"
    "|protection_synflood_burst|protection_limit"
)
_HOST_OPTIONS = (
    rf"({_SWITCHES}):\s*(0|1)\s*",
    rf"(log_level_(?:in|out|forward)|tcp_flags_log_level|smurf_log_level):\s*((?:{_LEVELS})?)\s*",
    r"(nf_conntrack_helpers):\s*(\S+)\s*",
    rf"({_NUMBERS}):\s*([0-9]+)\s*",
)
_CLUSTER_OPTIONS = (
    r"(enable):\s*([0-9]+)\s*",
    r"(ebtables):\s*(0|1)\s*",
    r"(policy_(?:in|out|forward)):\s*(ACCEPT|DROP|REJECT)\s*",
    r"((?-i:log_ratelimit)):\s*(\S+)\s*",
)
_RATE_LIMIT = PropertyFormat(
    {"enable": BOOLEAN, "rate": "[1-9][0-9]*/(?:second|minute|hour|day)", "burst": r"\+?[0-9]+|-0+"},
    "enable",
    ("enable",),
)
# networks that Proxmox VE's software-defined network defines as IP sets: VNET-all, VNET-gateway, guest-ipam-ID, ...
SDN_NAME = re.compile(r".+-(?:all|gateway|no-gateway|dhcp)|guest-ipam-[0-9]+")


@dataclass(frozen=True)
class Rule:
    """An enabled rule without mistakes."""

    label: str  # file and line, for messages
    type: str  # "in", "out", "forward" or "group"
    action: str  # "ACCEPT", "DROP" or "REJECT"; the name of a group
    macro: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    source: AddressSpec | None = None
    dest: AddressSpec | None = None
    version: int | None = None  # of IP; None: both
    # a rule of a group that Proxmox VE can't make; then it does not make those after it either. None: unknown
    has_failed: bool | None = False


@dataclass(frozen=True)
class SetEntry:
    """An entry of an IP set."""

    label: str
    cidr: Cidr | None  # None: an alias
    alias: str = ""  # with its scope
    nomatch: bool = False


@dataclass
class FirewallFile:
    """What a file says."""

    options: dict[str, str] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    aliases: dict[str, Cidr] = field(default_factory=dict)
    ipsets: dict[str, list[SetEntry]] = field(default_factory=dict)
    groups: dict[str, list[Rule]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)  # lines that Proxmox VE ignores, with the reason, for messages
    refused: list[str] = field(default_factory=list)  # lines for which all rules are refused, likewise


def parse_cluster(text: str, services: Services, *, now: float | None = None) -> FirewallFile:
    """Return what a cluster.fw says."""
    found = FirewallFile()
    _Reader("cluster.fw", found, found, services).read(text)
    limit = found.options.get("log_ratelimit")
    if limit is not None and parse_properties(limit, _RATE_LIMIT) is None:
        found.refused.append(f"cluster.fw: log_ratelimit: {printable(limit)} (such a limit is not possible)")
    enable = found.options.get("enable", "0")
    # A number over 1 is the second at which a trial of a minute began (parse_clusterfw_option).
    if int(enable) > 1 and (time.time() if now is None else now) - int(enable) > 60:
        found.options["enable"] = "0"
    return found


def parse_host(text: str, cluster: FirewallFile, services: Services) -> FirewallFile:
    """Return what a host.fw says."""
    found = FirewallFile()
    _Reader("host.fw", cluster, found, services).read(text)
    return found


def to_bytes_text(text: str) -> str:
    """Return a text of which each character stands for a byte."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def split_lines(text: str) -> list[str]:
    r"""Return the lines without the blanks around them: only "\n" ends a line, "\r" is no blank (generic_fw_config_parser)."""
    return [line.strip(" \t\xa0") for line in to_bytes_text(text).split("\n")]


class _Reader:
    """Reads one file (generic_fw_config_parser)."""

    def __init__(self, file: str, cluster: FirewallFile, found: FirewallFile, services: Services) -> None:
        self.file, self.cluster, self.found, self.services = file, cluster, found, services
        self.is_cluster = cluster is found
        # the headers that count; in host.fw, Perl adds some when a rule has looked for an alias or IP set
        self.headers = {"options", "rules"} | ({"aliases", "group", "ipset"} if self.is_cluster else set())
        self.section = ""
        self.name = ""  # of the group or IP set
        self.entries: set[str] = set()  # of the IP set

    def read(self, text: str) -> None:
        for line in split_lines(text):
            if not re.match(r"#|\s*$", line, re.ASCII) and not self._begin_section(line):
                try:
                    self._read_line(line)
                except RuleError as error:
                    self.found.ignored.append(f"{self._label(line)} ({error})")

    def _label(self, line: str) -> str:
        place = f" [{self.section} {self.name}]" if self.section in ("group", "ipset") else ""
        return f"{self.file}{place}: " + line.encode("latin-1").decode("utf-8", "surrogateescape")

    def _begin_section(self, line: str) -> bool:
        """Return whether a line is a header, and begin its section."""
        match = re.fullmatch(
            r"\[(?i:(options|aliases|rules)|(group|ipset)\s+(\S+))\](\s*(?:#.*)?)", line, re.ASCII | re.DOTALL
        )
        kind = ((match.group(1) or match.group(2)).lower()) if match else ""
        if match is None or kind not in self.headers or (match.group(1) and match.group(4)):
            return False
        self.section, self.name = kind, (match.group(3) or "").lower()
        if match.group(2):
            limit = MAX_GROUP if kind == "group" else MAX_NAME
            if len(self.name) > limit or not re.fullmatch(NAME, self.name):
                self.section = ""
                self.found.ignored.append(f"{self._label(line)} (no valid name, so all lines below it)")
                return True
            # a second section of the same name replaces the first
            if kind == "group":
                self.found.groups[self.name] = []
            else:
                self.found.ipsets[self.name] = []
                self.entries = set()
        return True

    def _read_line(self, line: str) -> None:
        if self.section == "options":
            self._read_option(line)
        elif self.section == "aliases":
            self._read_alias(line)
        elif self.section == "ipset":
            self._read_entry(line)
        elif self.section:
            rule = self._read_rule(line)
            if rule:
                (self.found.groups[self.name] if self.section == "group" else self.found.rules).append(rule)
        else:
            raise RuleError("no section is above it")

    def _read_option(self, line: str) -> None:
        for pattern in _CLUSTER_OPTIONS if self.is_cluster else _HOST_OPTIONS:
            if match := re.fullmatch(pattern, line, re.ASCII | re.IGNORECASE):
                name, value = match.group(1).lower(), match.group(2)
                self.found.options[name] = value if name == "log_ratelimit" else value.upper()
                return
        raise RuleError("no valid option")

    def _read_alias(self, line: str) -> None:
        """Read an alias: one blank between the name and the network (parse_alias)."""
        match = re.fullmatch(r"(\S+)\s(\S+)", re.sub(r"\s*#.*", "", line, flags=re.ASCII | re.DOTALL), re.ASCII)
        if not match:
            raise RuleError("no alias: only one blank may be between the name and the network")
        self.found.aliases[match.group(1).lower()] = parse_cidr(match.group(2))

    def _read_entry(self, line: str) -> None:
        match = re.fullmatch(r"(!)?\s*(\S+)\s*", re.sub(r"#.*", "", line, flags=re.DOTALL), re.ASCII)
        if not match:
            raise RuleError("no address")
        text = match.group(2)
        alias = re.fullmatch(f"(dc/|guest/)?({NAME})", text)
        cidr = None
        if alias:
            if alias.group(2).lower() not in self.cluster.aliases:
                raise RuleError("no such alias above it")
        else:
            cidr = parse_cidr(text)
        key = re.sub(r"/(?:32|128)$" if ":" in text else r"/32$", "", text)
        if key in self.entries:
            raise RuleError("it is there already")
        self.entries.add(key)
        if re.search("/0+$", text):
            raise RuleError("a network of all addresses is not allowed in an IP set")
        if cidr and not cidr.network:
            self.found.refused.append(f"{self._label(line)} (there is no such network)")
        self.found.ipsets[self.name].append(
            SetEntry(self._label(line), cidr, text if alias else "", bool(match.group(1)))
        )

    def _read_rule(self, line: str) -> Rule | None:
        """Return a rule; None if it is turned off (parse_fw_rule, verify_rule)."""
        label = self._label(line)
        rest = re.sub("#.*", "", line, flags=re.DOTALL)
        is_on = not rest.startswith("|")
        rest = rest if is_on else rest[1:]
        match = re.match(r"(\S+)\s+(\S+)\s*", rest, re.ASCII)
        if not match:
            if is_on:
                raise RuleError("no direction and action")
            return None
        kind, action = match.group(1).lower(), match.group(2)
        options, rest = _read_options(rest[match.end() :], only_interface=kind == "group")
        if rest and is_on:
            raise RuleError(_explain_rest(rest))
        if not rest:
            self._note_headers(options)
        return self._check_rule(label, kind, action, options) if is_on else None

    def _note_headers(self, options: Mapping[str, str]) -> None:
        """Note which headers count from here on, because this rule has looked for an alias or IP set (autovivification)."""
        if self.is_cluster or self.section == "group":
            return
        for text in (options.get("source", ""), options.get("dest", "")):
            if match := re.fullmatch(rf"\+(?:guest/|dc/|sdn/)?({NAME})", text):
                if match.group(1) not in self.cluster.ipsets:
                    self.headers.add("ipset")
            elif (match := re.fullmatch(f"(dc/|guest/)?({NAME})", text)) and (
                match.group(1) != "dc/" or match.group(2).lower() not in self.cluster.aliases
            ):
                self.headers.add("aliases")

    def _check_rule(self, label: str, kind: str, action: str, given: Mapping[str, str]) -> Rule:
        # what is false in Perl counts as not given
        options = {key: value for key, value in given.items() if value != "0"}
        macro = ""
        if kind != "group" and (match := re.fullmatch(r"(\S+)\((ACCEPT|DROP|REJECT)\)", action, re.ASCII)):
            macro, action = match.groups()
        self._check_action(kind, action, macro)
        if "iface" in options and (
            self.section == "group" or not re.fullmatch(r"(?i:[a-z][a-z0-9_]{1,20})(?:[:.][0-9]+)?", options["iface"])
        ):
            raise RuleError("no valid interface, or an interface in a group")
        failure: FailedRuleError | None = None
        try:
            check_protocol(options, given, self.services)
        except FailedRuleError as error:
            failure = error
        versions = {find_protocol_version(options.get("proto", ""))}
        specs = {}
        for key in ("source", "dest"):
            if key in options:
                specs[key] = parse_addresses(options[key])
                versions.add(self._find_version(specs[key]))
                failure = failure or self._find_failure(specs[key])
        known = versions - {None}
        if len(known) > 1:
            raise RuleError("it mixes IPv4 and IPv6")
        if failure and self.section != "group":
            raise failure
        if failure:
            self.found.ignored.append(f"{label} ({failure}; where the group is first used, all of it is ignored, too)")
        may_fail = any(map(self._may_fail, specs.values()))
        return Rule(
            label, kind, action, macro, options,
            specs.get("source"), specs.get("dest"), known.pop() if known else None,
            True if failure else None if may_fail else False,
        )  # fmt: skip

    def _may_fail(self, spec: AddressSpec) -> bool:
        """Return whether a rule of a group can only be made if the software-defined network has, or has not, such an IP set."""
        return self.section == "group" and spec.kind == "ipset" and (
            spec.scope == "sdn/" or (spec.scope != "" and self._is_sdn_only(spec))
        )  # fmt: skip

    def _is_sdn_only(self, spec: AddressSpec) -> bool:
        return spec.name not in self.cluster.ipsets and bool(SDN_NAME.fullmatch(spec.name))

    def _check_action(self, kind: str, action: str, macro: str) -> None:
        if kind == "group":
            if self.section == "group" or not re.fullmatch(NAME, action):
                raise RuleError("no rule can be a group here" if self.section == "group" else "no name of a group")
        elif kind not in ("in", "out", "forward"):
            raise RuleError("the direction must be IN, OUT or FORWARD")
        elif action not in ("ACCEPT", "DROP", "REJECT"):
            raise RuleError("the action must be ACCEPT, DROP or REJECT, in upper case")
        if kind == "forward" and action == "REJECT":
            raise RuleError("FORWARD can't REJECT")
        if macro and macro.lower() not in map(str.lower, MACROS):
            raise RuleError(f"there is no macro {macro}")

    def _find_failure(self, spec: AddressSpec) -> FailedRuleError | None:
        """Return why an alias or IP set that exists can't be used with its scope (ipt_gen_src_or_dst_match)."""
        is_own = self.section != "group" and not self.is_cluster and (
            spec.name in (self.found.ipsets if spec.kind == "ipset" else self.found.aliases)
        )  # fmt: skip
        if self._may_fail(spec):
            return None
        is_missing = spec.scope == "dc/" and spec.kind == "ipset" and spec.name not in self.cluster.ipsets
        if is_missing or (spec.scope == "guest/" and not is_own):
            return FailedRuleError(f"{spec.scope} has no meaning here")
        return None

    def _find_version(self, spec: AddressSpec) -> int | None:
        """Return the IP version of an address. Raises RuleError if an alias or IP set does not exist."""
        if spec.kind == "ipset":
            known = spec.name in self.cluster.ipsets or spec.name in self.found.ipsets
            is_sdn = self._is_sdn_only(spec) and (spec.scope == "" or self.section == "group")
            if not known and spec.scope != "sdn/" and not is_sdn:
                raise RuleError(f"there is no IP set {spec.name} above it")
            return None
        if spec.kind == "alias":
            own = {} if self.section == "group" else self.found.aliases
            if spec.name not in self.cluster.aliases and spec.name not in own:
                raise RuleError(f"there is no alias {spec.name} above it")
            network = None if self._find_failure(spec) else find_alias(spec, self.cluster, self.found)
            return network.version if network else None
        return (spec.networks or spec.ends)[0].version if spec.networks or spec.ends else None


def find_alias(spec: AddressSpec, cluster: FirewallFile, own: FirewallFile) -> Network | None:
    """Return the network of an alias; None if it is impossible or unknown."""
    found = own.aliases.get(spec.name) if spec.scope != "dc/" else None
    if found is None and spec.scope != "guest/":
        found = cluster.aliases.get(spec.name)
    return found.network if found else None


def _read_options(text: str, *, only_interface: bool) -> tuple[dict[str, str], str]:
    """Return the options of a rule (of duplicates, the last), and the rest of the text that is none."""
    options: dict[str, str] = {}
    known = _OPTIONS[:1] if only_interface else _OPTIONS
    while text:
        for name, pattern in known:
            if match := re.match(pattern, text, re.ASCII):
                options[name], text = match.group(1), text[match.end() :]
                break
        else:
            break
    return options, text


def _explain_rest(text: str) -> str:
    word = text.split(maxsplit=1)[0]
    if re.match(r"--?[a-z-]+(?:\s\s|[\t\v\f\r])", text, re.ASCII):
        return f"there must be exactly one blank after {word}"
    if re.fullmatch("--?log", word):
        return f"-log must be one of {_LEVELS.replace('|', ', ')}"
    return f"unknown: {word}"
