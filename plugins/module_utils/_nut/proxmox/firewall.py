# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE's own firewall: does it let upsd's clients in, and the rules that do.

The facts are from Proxmox VE's documentation (pve-firewall, pmxcfs) and from the two programs that read these files:
pve-firewall (src/PVE/Firewall.pm) and, where a host has the option nftables, proxmox-firewall (proxmox-ve-config).

- cluster.fw: the firewall is off unless [OPTIONS] has "enable: 1". What no rule matches gets policy_in, by default DROP.
- host.fw, of one host: it counts unless [OPTIONS] has "enable: 0". Its [RULES] come before those of cluster.fw. The first
  rule that matches counts.
- A rule: ``IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493 # comment``. A ``|`` before it turns it off. -source is an
  address, a network, a range, a list with commas of one IP version, +IPSET, or an alias. Names of hosts are not taken.
- Of its own accord it lets in what manages the host (8006, 22, 3128, 5900-5999, 60000-60050), but never upsd.
- Each change in the web interface writes the file anew from what was understood: lines of comment are gone then, the
  comment of a rule stays. So each of our rules carries the mark that tells it from others; two lines around them would
  not last.
- proxmox-firewall refuses a whole file for one bad line. Its comment begins at the last #, pve-firewall's at the first:
  there must be only one.

Not looked at: the IP set blacklist, which comes before all rules.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from ..conf.upsd import PORT

MARK = "homelab.nut: a client of upsd"
CLUSTER = "firewall/cluster.fw"
# The directory local is this host's own, nodes/NAME. Only a cluster file system that is mounted has it.
LOCAL = "local"
HOST = f"{LOCAL}/host.fw"

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

# The options of a rule that are judged, as pve-firewall spells them. Others narrow it in ways that are not known here.
_OPTIONS = {
    "-p": "proto",
    **{dashes + one: one for dashes in ("-", "--") for one in ("proto", "dport", "source", "log")},
}
_TCP = ("tcp", "6")
_ANY_PROTOCOL = ("ip", "0", "all")  # to iptables
_MACRO = re.compile(r"[^\s()]+\((ACCEPT|DROP|REJECT)\)")
_PORTS = re.compile(r"([0-9]+)(?::([0-9]+))?")


class FirewallError(Exception):
    """The firewall's files can't be read or written; the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class FirewallVerdict:
    """What the firewall makes of some clients.

    off: why it filters nothing that comes in to this host, "" if it does. shut_out: the addresses that are not known to
    be let in. doubts: the rules that were met on the way and could not be judged, "host.fw: GROUP web".
    """

    off_reason: str
    shut_out: tuple[str, ...] = ()
    unclear_rules: tuple[str, ...] = ()


# Judging


def explain_off(cluster_fw: str, host_fw: str) -> str:
    """Say why the firewall filters nothing that comes in to this host; "" if it does filter."""
    # A number over 1 is the time of a trial, for a minute from then. It is taken for on: better one hint too many.
    if not re.fullmatch("0*[1-9][0-9]*", _read_option(cluster_fw, "enable")):
        return "it is off (cluster.fw does not have enable: 1)"
    if _read_option(host_fw, "enable") == "0":
        return "it is off for this host (host.fw has enable: 0)"
    return ""


def judge_clients(cluster_fw: str, host_fw: str, addresses: Iterable[str], port: int) -> FirewallVerdict:
    """Judge whether tcp from these addresses and networks to the port is let in.

    cluster_fw, host_fw: the texts of the files, "" for one that there is not. Groups, IP sets, aliases, interfaces and
    destinations are not followed: a rule with one of them never counts as letting in.
    """
    why = explain_off(cluster_fw, host_fw)
    if why:
        return FirewallVerdict(why)
    lines = [("host.fw", line) for line in _list_active_rules(host_fw)] + [
        ("cluster.fw", line) for line in _list_active_rules(cluster_fw)
    ]
    accept = _read_option(cluster_fw, "policy_in").upper() == "ACCEPT"
    shut_out: list[str] = []
    doubts: list[str] = []
    for address in addresses:
        let_in, unsure = _let_in(ipaddress.ip_network(address), port, lines, accept)
        if not let_in:
            shut_out.append(address)
            doubts += unsure
    return FirewallVerdict("", tuple(shut_out), tuple(dict.fromkeys(doubts)))


def _let_in(source: Network, port: int, lines: Iterable[tuple[str, str]], accept: bool) -> tuple[bool, list[str]]:
    doubts = []
    for file, line in lines:
        action, matches = _judge_rule(line, source, port)
        if matches is None:
            doubts.append(f"{file}: {line}")
            if action != "ACCEPT":
                return False, doubts
        elif matches:
            return action == "ACCEPT", doubts
    return accept, doubts


def _judge_rule(line: str, source: Network, port: int) -> tuple[str, bool | None]:
    """Return what a rule does ("" if that is not known), and whether it matches (None if that is not known)."""
    words = line.partition("#")[0].split()
    direction, action = (*words, "", "")[:2]
    if direction.lower() in ("out", "forward"):
        return "", False
    if direction.lower() != "in" or len(words) % 2:
        return "", None
    macro = _MACRO.fullmatch(action)
    if macro:
        # No macro of Proxmox VE has NUT's port among its own.
        return macro.group(1), False if port == PORT else None
    if action not in ("ACCEPT", "DROP", "REJECT"):
        return "", None
    given = dict(zip(words[2::2], words[3::2]))
    options = {_OPTIONS[key]: value for key, value in given.items() if key in _OPTIONS}
    answers = (
        _is_tcp(options),
        _is_port(options.get("dport"), port),
        _is_source(options.get("source"), source),
        True if len(options) == len(given) else None,
    )
    return action, False if False in answers else None if None in answers else True


# pve-firewall leaves out a rule that it finds wrong. One that looks so is not judged.


def _is_tcp(options: Mapping[str, str]) -> bool | None:
    proto = options.get("proto")
    if proto is None:
        return None if "dport" in options else True
    return True if proto in _TCP else None if proto in _ANY_PROTOCOL else False


def _is_port(ports: str | None, port: int) -> bool | None:
    if ports is None:
        return True
    matches = False
    for one in ports.split(","):
        numbers = _PORTS.fullmatch("3493" if one == "nut" else one)  # nut: as in /etc/services
        if not numbers:
            return None
        low, high = int(numbers.group(1)), int(numbers.group(2) or numbers.group(1))
        if not low <= high < 65536:
            return None
        matches = matches or low <= port <= high
    return matches


def _is_source(given: str | None, source: Network) -> bool | None:
    if given is None:
        return True
    entries = given.split(",")
    if len(entries) > 1 and ("-" in given or len({":" in one for one in entries}) > 1):
        return None  # a range in a list, or both IP versions
    try:
        answers = [_is_within(one, source) for one in entries]
        # a part of a network is let in or shut out, the rest goes on to the next rule: that can't be judged
        return True if True in answers else None if None in answers else False
    except (ValueError, TypeError):  # an IP set, an alias; TypeError: a range from one IP version to the other
        return None


def _is_within(one: str, source: Network) -> bool | None:
    """Return whether all of the source is in what a rule names; None if only a part of it is."""
    if "-" in one:
        low, high = (ipaddress.ip_address(end) for end in one.split("-"))
    else:
        network = ipaddress.ip_network(one)
        low, high = network[0], network[-1]
    if low > high or low.version != source.version:  # type: ignore[operator]
        return False
    inside = [low <= end <= high for end in (source[0], source[-1])]  # type: ignore[operator]
    overlaps = any(inside) or source[0] <= low <= source[-1]  # type: ignore[operator]
    return True if all(inside) else None if overlaps else False


# The texts


def _split_sections(text: str) -> Iterator[tuple[str, str]]:
    r"""Yield each line with the header that it stands under, in lower case; a header under itself.

    Only "\n" ends a line, as in pve-firewall. Joined by it again, the lines are the text.
    """
    section = ""
    for line in text.split("\n"):
        told = line.strip(" \t")
        if told.startswith("["):
            section = told.lower()
        yield section, line


def _list_active_rules(text: str) -> Iterator[str]:
    """Yield the rules of [RULES] that are not turned off."""
    for section, line in _split_sections(text):
        told = line.strip(" \t")
        if section == "[rules]" and told.strip() and told[0] not in "#|[":
            yield told


def _read_option(text: str, name: str) -> str:
    found = ""
    for section, line in _split_sections(text):
        match = re.fullmatch(rf"[ \t]*{name}:\s*(\w+)\s*", line, re.IGNORECASE)
        if match and section == "[options]":
            found = match.group(1)
    return found


def _is_ours(section: str, line: str) -> bool:
    told = line.strip(" \t")
    return section == "[rules]" and told[:1] != "#" and told.partition("#")[2].strip().startswith(MARK)


def make_rules(addresses: Iterable[str], port: int) -> list[str]:
    """Return the rules that let these addresses in to the port, one an address, as the web interface would write them.

    Raises FirewallError for a port that is none.
    """
    if not 0 < port < 65536:
        raise FirewallError(f"port must be a number from 1 to 65535, not {port}")
    return [f"IN ACCEPT -source {one} -p tcp -dport {port} # {MARK}" for one in dict.fromkeys(addresses)]


def without_rules(host_fw: str) -> str:
    """Return a host.fw without our rules. All else stays, byte for byte."""
    return "\n".join(line for section, line in _split_sections(host_fw) if not _is_ours(section, line))


def with_rules(host_fw: str, ours: Sequence[str]) -> str:
    """Return a host.fw with these rules, and none that we made before, before all others. All else stays, byte for byte.

    Where there is no [RULES], it is made at the end.
    """
    text = without_rules(host_fw)
    if not ours:
        return text
    sections = [section for section, _unused in _split_sections(text)]
    if "[rules]" not in sections:
        gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        return "\n".join([f"{text}{gap}[RULES]", "", *ours, ""])
    lines = text.split("\n")
    at = sections.index("[rules]") + 1
    if at == len(lines):
        lines.append("")
    # Proxmox VE itself writes a blank line under a header.
    if at + 1 < len(lines) and not lines[at].strip(" \t"):
        at += 1
    lines[at:at] = ours
    return "\n".join(lines)


# Telling


def describe_missing_rules(
    seen: FirewallVerdict, clients: Mapping[str, Sequence[str]], port: int, path: Path
) -> list[str]:
    """Say in lines what to add to host.fw, at PATH, and why. Empty if there is nothing to add.

    clients: the addresses of each, by name. seen: what state() said of all these addresses.
    """
    if not seen.shut_out:
        return []
    lacking = {name: [one for one in those if one in seen.shut_out] for name, those in clients.items()}
    who = [name if those == [name] else f"{name} ({', '.join(those)})" for name, those in lacking.items() if those]
    told = [
        f"Proxmox VE's firewall is on, and no rule is known to let in to port {port}: {', '.join(who)}. "
        "A client that is shut out is not warned of a power cut, and loses its power while it runs.",
        f"Put these lines first in the section [RULES] of {path}, which you may have to make; or add such rules in the web "
        "interface, at this node's Firewall:",
        *(line.partition(" #")[0] for line in make_rules(seen.shut_out, port)),
    ]
    if seen.unclear_rules:
        told.append(
            "These rules may let them in already, or shut them out. What they match can't be told from here: "
            + "; ".join(seen.unclear_rules)
        )
    return told


# The files


def read_files(root: Path) -> tuple[str, str]:
    """Read cluster.fw and host.fw under ROOT (/etc/pve); "" for one that there is not. Raises FirewallError."""
    try:
        there = (root / LOCAL).is_dir()
    except OSError as error:  # a cluster file system whose program has died
        raise _make_read_error(root / LOCAL, error) from None
    if not there:
        raise FirewallError(
            f"there is no {root / LOCAL}: this host is no Proxmox VE, or its cluster file system is not mounted "
            "(pve-cluster.service)"
        )
    return _read_file(root / CLUSTER), _read_file(root / HOST)


def _read_file(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _make_read_error(path, error) from None


def _make_read_error(path: Path, error: OSError) -> FirewallError:
    return FirewallError(f"{path} can't be read: {error.strerror}. See: systemctl status pve-cluster")


def write_host_fw(root: Path, text: str) -> None:
    """Replace host.fw under ROOT. Raises FirewallError, with the file as it was.

    Written beside it and renamed, as Proxmox VE does itself. Its file system gives owner and mode by path, and refuses
    to have them changed.
    """
    path = root / HOST
    scratch = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        for left in path.parent.glob(
            f"{path.name}.tmp.*"
        ):  # of a run that was killed: its number says whether it lives
            if not Path("/proc", left.suffix[1:]).exists():
                left.unlink()
        scratch.write_bytes(text.encode("utf-8", "surrogateescape"))
        scratch.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise FirewallError(
            f"{path} could not be written: {error.strerror}. It is as it was. Only root may write there, and nobody while "
            "the cluster has no quorum, which `pvecm status` tells. Run again when it has."
        ) from None
