# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE's own firewall: check whether it lets upsd's clients in, and write the rules that do.

Sources: Proxmox VE's documentation (pve-firewall, pmxcfs) and the two programs that read these files: pve-firewall
(src/PVE/Firewall.pm) and, on a host with the option nftables, proxmox-firewall (proxmox-ve-config).

- cluster.fw: the firewall is off unless [OPTIONS] has "enable: 1". Packets that match no rule get policy_in, by default DROP.
- host.fw, one for each host, is used unless [OPTIONS] has "enable: 0". Its [RULES] come before those of cluster.fw. The
  first matching rule decides.
- A rule: ``IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493 # comment``. A ``|`` before it disables it. -source is an
  address, a network, a range, a comma-separated list of one IP version, +IPSET, or an alias. Host names are not allowed.
- The firewall always allows the ports that manage the host (8006, 22, 3128, 5900-5999, 60000-60050), but never upsd's.
- After a change in the web interface, Proxmox VE rewrites the file from what it has parsed: comment lines are lost, but the
  comment of a rule stays. So each of our rules has a mark in its comment; marker lines around them would not last.
- proxmox-firewall rejects a whole file for one bad line. It starts a comment at the last #, pve-firewall at the first, so
  there must be only one.

The IP set blacklist, which comes before all rules, is ignored here.
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
# local is a link to this host's own directory, nodes/NAME. It exists only while the cluster file system is mounted.
LOCAL = "local"
HOST = f"{LOCAL}/host.fw"

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

# The options of a rule that this module understands, as pve-firewall spells them. Others may narrow the rule.
_OPTIONS = {
    "-p": "proto",
    **{dashes + name: name for dashes in ("-", "--") for name in ("proto", "dport", "source", "log")},
}
_TCP = ("tcp", "6")
_ANY_PROTOCOL = ("ip", "0", "all")  # to iptables
_MACRO = re.compile(r"[^\s()]+\((ACCEPT|DROP|REJECT)\)")
_PORTS = re.compile(r"([0-9]+)(?::([0-9]+))?")


class FirewallError(Exception):
    """The firewall's files can't be read or written; the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class FirewallVerdict:
    """What the firewall does with some clients."""

    off_reason: str  # why it does not filter incoming packets on this host; "" if it does
    shut_out: tuple[str, ...] = ()  # addresses that no understood rule lets in
    unclear_rules: tuple[
        str, ...
    ] = ()  # rules before the decision that this module does not understand, "host.fw: GROUP web"


# Judge the rules


def explain_off(cluster_fw: str, host_fw: str) -> str:
    """Return why the firewall does not filter incoming packets on this host; "" if it does."""
    # A number over 1 is a timestamp: on for a one-minute trial. Count it as on; one hint too many does no harm.
    if not re.fullmatch("0*[1-9][0-9]*", _read_option(cluster_fw, "enable")):
        return "off (cluster.fw does not have enable: 1)"
    if _read_option(host_fw, "enable") == "0":
        return "off on this host (host.fw has enable: 0)"
    return ""


def judge_clients(cluster_fw: str, host_fw: str, addresses: Iterable[str], port: int) -> FirewallVerdict:
    """Return whether TCP from these addresses and networks to the port is let in.

    cluster_fw, host_fw: the texts of the files, "" for a missing one. Groups, IP sets, aliases, interfaces and
    destinations are not resolved: a rule with one of them never counts as letting a client in.
    """
    off_reason = explain_off(cluster_fw, host_fw)
    if off_reason:
        return FirewallVerdict(off_reason)
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
    """Return the action of a rule ("" if unknown), and whether the rule matches (None if unknown)."""
    words = line.partition("#")[0].split()
    direction, action = (*words, "", "")[:2]
    if direction.lower() in ("out", "forward"):
        return "", False
    if direction.lower() != "in" or len(words) % 2:
        return "", None
    macro = _MACRO.fullmatch(action)
    if macro:
        # none of Proxmox VE's macros includes NUT's port
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


# pve-firewall skips a rule with an error. A rule that seems to have one counts as unknown.


def _is_tcp(options: Mapping[str, str]) -> bool | None:
    proto = options.get("proto")
    if proto is None:
        return None if "dport" in options else True
    return True if proto in _TCP else None if proto in _ANY_PROTOCOL else False


def _is_port(ports: str | None, port: int) -> bool | None:
    if ports is None:
        return True
    matches = False
    for entry in ports.split(","):
        numbers = _PORTS.fullmatch("3493" if entry == "nut" else entry)  # nut: from /etc/services
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
    if len(entries) > 1 and ("-" in given or len({":" in entry for entry in entries}) > 1):
        return None  # a range in a list, or both IP versions
    try:
        answers = [_is_within(entry, source) for entry in entries]
        # None: the rule decides about a part of the network, and the next rule about the rest
        return True if True in answers else None if None in answers else False
    except (ValueError, TypeError):  # an IP set, an alias; TypeError: a range from one IP version to the other
        return None


def _is_within(entry: str, source: Network) -> bool | None:
    """Return whether an entry of -source contains the whole source; None if it contains only a part."""
    if "-" in entry:
        low, high = (ipaddress.ip_address(end) for end in entry.split("-"))
    else:
        network = ipaddress.ip_network(entry)
        low, high = network[0], network[-1]
    if low > high or low.version != source.version:  # type: ignore[operator]
        return False
    inside = [low <= end <= high for end in (source[0], source[-1])]  # type: ignore[operator]
    overlaps = any(inside) or source[0] <= low <= source[-1]  # type: ignore[operator]
    return True if all(inside) else None if overlaps else False


# Read and change the texts


def _split_sections(text: str) -> Iterator[tuple[str, str]]:
    r"""Yield each line with the header of its section, in lower case; a header belongs to its own section.

    Only "\n" ends a line, as in pve-firewall. Joining the lines with it yields the text again.
    """
    section = ""
    for line in text.split("\n"):
        stripped = line.strip(" \t")
        if stripped.startswith("["):
            section = stripped.lower()
        yield section, line


def _list_active_rules(text: str) -> Iterator[str]:
    """Yield the rules of [RULES] that are not disabled."""
    for section, line in _split_sections(text):
        stripped = line.strip(" \t")
        if section == "[rules]" and stripped.strip() and stripped[0] not in "#|[":
            yield stripped


def _read_option(text: str, name: str) -> str:
    value = ""
    for section, line in _split_sections(text):
        match = re.fullmatch(rf"[ \t]*{name}:\s*(\w+)\s*", line, re.IGNORECASE)
        if match and section == "[options]":
            value = match.group(1)
    return value


def _is_ours(section: str, line: str) -> bool:
    stripped = line.strip(" \t")
    return section == "[rules]" and stripped[:1] != "#" and stripped.partition("#")[2].strip().startswith(MARK)


def make_rules(addresses: Iterable[str], port: int) -> list[str]:
    """Return a rule for each address that lets it in to the port, as the web interface would write it.

    Raises FirewallError for an invalid port.
    """
    if not 0 < port < 65536:
        raise FirewallError(f"port must be a number from 1 to 65535, not {port}")
    return [f"IN ACCEPT -source {address} -p tcp -dport {port} # {MARK}" for address in dict.fromkeys(addresses)]


def without_rules(host_fw: str) -> str:
    """Return a host.fw without our rules, otherwise unchanged byte for byte."""
    return "\n".join(line for section, line in _split_sections(host_fw) if not _is_ours(section, line))


def with_rules(host_fw: str, ours: Sequence[str]) -> str:
    """Return a host.fw with these rules, instead of our earlier ones, before all others. Otherwise unchanged byte for byte.

    Without a section [RULES], add one at the end.
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
    # Proxmox VE itself writes a blank line below a header
    if at + 1 < len(lines) and not lines[at].strip(" \t"):
        at += 1
    lines[at:at] = ours
    return "\n".join(lines)


# Describe what is missing


def describe_missing_rules(
    verdict: FirewallVerdict, clients: Mapping[str, Sequence[str]], port: int, path: Path
) -> list[str]:
    """Return lines that say what to add to the host.fw at `path`, and why. Empty if nothing is missing.

    clients: addresses by the client's name. verdict: the result of judge_clients() for all these addresses.
    """
    if not verdict.shut_out:
        return []
    lacking = {
        name: [address for address in addresses if address in verdict.shut_out] for name, addresses in clients.items()
    }
    labels = [
        name if addresses == [name] else f"{name} ({', '.join(addresses)})"
        for name, addresses in lacking.items()
        if addresses
    ]
    lines = [
        f"Proxmox VE's firewall is on, and no known rule lets these clients in to port {port}: {', '.join(labels)}. "
        "A client that is shut out gets no warning of a power cut, and loses power while it is running.",
        f"Add these lines at the top of the section [RULES] of {path} (add the section if it is missing), or add the same "
        "rules in the web interface, under this node's Firewall:",
        *(line.partition(" #")[0] for line in make_rules(verdict.shut_out, port)),
    ]
    if verdict.unclear_rules:
        lines.append(
            "These rules may already let them in, or shut them out; check them yourself: "
            + "; ".join(verdict.unclear_rules)
        )
    return lines


# Files


def read_files(root: Path) -> tuple[str, str]:
    """Return the texts of cluster.fw and host.fw below `root` (/etc/pve); "" for a missing one. Raises FirewallError."""
    try:
        is_mounted = (root / LOCAL).is_dir()
    except OSError as error:  # the daemon of the cluster file system has died
        raise _make_read_error(root / LOCAL, error) from None
    if not is_mounted:
        raise FirewallError(
            f"there is no {root / LOCAL}: either this host does not run Proxmox VE, or its cluster file system is not mounted "
            "(check pve-cluster.service)"
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
    return FirewallError(f"can't read {path}: {error.strerror}. Check systemctl status pve-cluster")


def write_host_fw(root: Path, text: str) -> None:
    """Replace host.fw below `root`. Raises FirewallError, and leaves the file unchanged.

    Writes a temporary file and renames it, as Proxmox VE itself does. Its file system sets owner and mode by path, and
    does not allow changing them.
    """
    path = root / HOST
    scratch = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        # left by a run that was killed; the suffix is its process id
        for left in path.parent.glob(f"{path.name}.tmp.*"):
            if not Path("/proc", left.suffix[1:]).exists():
                left.unlink()
        scratch.write_bytes(text.encode("utf-8", "surrogateescape"))
        scratch.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            scratch.unlink()
        raise FirewallError(
            f"can't write {path}: {error.strerror}. The file is unchanged. Only root can write it, and only while the cluster "
            "has quorum: check pvecm status, and run again when it has."
        ) from None
