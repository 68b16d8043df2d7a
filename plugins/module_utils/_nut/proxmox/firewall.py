# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Proxmox VE's own firewall: check whether it lets upsd's clients in, and write the rules that do.

Sources: Proxmox VE's documentation (pve-firewall, pmxcfs) and the two programs that read these files: pve-firewall
(src/PVE/Firewall.pm: enable_host_firewall, generate_group_rules, compile_ipsets, ipt_rule_to_cmds) and, on a host with the option
nftables, proxmox-firewall (proxmox-ve-config, src/firewall/).

- cluster.fw: the firewall is off unless [OPTIONS] has "enable: 1". Packets that match no rule get policy_in, by default DROP.
- host.fw, one for each host, is used unless [OPTIONS] has "enable: 0". Its [RULES] come before those of cluster.fw. The
  first matching rule decides. The IP set blacklist of cluster.fw comes before all rules.
- A rule: ``IN ACCEPT -source 192.0.2.5 -p tcp -dport 3493 # comment``. A ``|`` before it disables it. -source is an
  address, a network, a range, a comma-separated list of one IP version, +IPSET, or an alias. Host names are not allowed.
- pve-firewall ignores a line with a mistake (firewall_config.py). Some mistakes it does not notice: then iptables or ipset refuses
  all rules, and those stay that were loaded before.
- The firewall always allows the ports that manage the host (8006, 22, 3128, 5900-5999, 60000-60050), but never upsd's.
- After a change in the web interface, Proxmox VE rewrites the file from what it has parsed: comment lines are lost, but the
  comment of a rule stays. So each of our rules has a mark in its comment; marker lines around them would not last.
- proxmox-firewall takes several blanks after an option, and actions in lower case; else it rejects the whole file for one bad line.
  Up to December 2025 it started a comment at the last #, pve-firewall starts it at the first, so there must be only one. It was
  read, not run: on a host that uses it, a file with a line that it may reject counts as rejected.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..conf.upsd import PORT
from . import firewall_config as config
from . import firewall_nftables as nftables
from .firewall_judge import Judge
from .firewall_values import Services, parse_services

MARK = "homelab.nut: a client of upsd"
CLUSTER = "firewall/cluster.fw"
# local is a link to this host's own directory, nodes/NAME. It exists only while the cluster file system is mounted.
LOCAL = "local"
HOST = f"{LOCAL}/host.fw"
# the program for the option nftables; without it, pve-firewall goes on
PROXMOX_FIREWALL = "usr/libexec/proxmox/proxmox-firewall"

# ports by name and protocol, for a host without /etc/services; one that this table lacks makes its rule invalid
SERVICES: Services = {
    "nut": {"tcp": PORT},
    **{name: {"tcp": port} for name, port in (
        ("ftp", 21), ("ssh", 22), ("smtp", 25), ("http", 80), ("https", 443), ("ldap", 389), ("mysql", 3306),
    )},
    **{name: {"tcp": port, "udp": port} for name, port in (("domain", 53), ("sunrpc", 111), ("snmp", 161), ("nfs", 2049))},
}  # fmt: skip


class FirewallError(Exception):
    """The firewall's files can't be read or written; the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class FirewallVerdict:
    """What the firewall does with some clients."""

    off_reason: str  # why it does not filter incoming packets on this host; "" if it does
    shut_out: tuple[str, ...] = ()  # addresses that are not surely let in
    has_rule: tuple[str, ...] = ()  # those of shut_out that the rules would let in, but something else shuts out
    # rules before the decision that this module does not understand, "host.fw: IN ACCEPT -i vmbr0"
    unclear_rules: tuple[str, ...] = ()
    ignored_rules: tuple[str, ...] = ()  # lines that Proxmox VE ignores, with the reason, if a client is shut out
    refused_rules: tuple[str, ...] = ()  # lines for which it loads none of its rules, with the reason
    blacklisted: tuple[
        str, ...
    ] = ()  # those addresses of shut_out that the IP set blacklist shuts out, whatever the rules are


# Judge the rules


def explain_off(cluster_fw: str, host_fw: str, *, now: float | None = None) -> str:
    """Return why the firewall does not filter incoming packets on this host; "" if it does."""
    cluster = config.parse_cluster(cluster_fw, SERVICES, now=now)
    if int(cluster.options.get("enable", "0")) == 0:
        return "off (cluster.fw does not have enable: 1)"
    if config.parse_host(host_fw, cluster, SERVICES).options.get("enable") == "0":
        return "off on this host (host.fw has enable: 0)"
    return ""


def judge_clients(
    cluster_fw: str,
    host_fw: str,
    addresses: Iterable[str],
    port: int,
    *,
    services: Services = SERVICES,
    has_proxmox_firewall: bool = True,
) -> FirewallVerdict:
    """Return whether TCP from these addresses and networks to the port is let in.

    cluster_fw, host_fw: the texts of the files, "" for a missing one. services: parse_services(). has_proxmox_firewall: whether the
    host has the program that the option nftables needs. Interfaces, destinations, source ports and the IP sets of Proxmox VE's
    software-defined network are not resolved: a rule with one of them never counts as letting a client in.
    """
    off_reason = explain_off(cluster_fw, host_fw)
    if off_reason:
        return FirewallVerdict(off_reason)
    cluster = config.parse_cluster(cluster_fw, services)
    host = config.parse_host(host_fw, cluster, services)
    uses_nftables = has_proxmox_firewall and host.options.get("nftables") == "1"
    refused = []
    if uses_nftables:
        refused = nftables.find_problems(cluster_fw, host_fw)
        for turn_on in (True, False):
            texts = [nftables.as_pve_firewall_reads(text, turn_on=turn_on) for text in (cluster_fw, host_fw)]
            cluster = config.parse_cluster(texts[0], services)
            host = config.parse_host(texts[1], cluster, services)
            refused += [*cluster.ignored, *host.ignored]
    judge = Judge(cluster, host, port, services, nftables=uses_nftables)
    refused += judge.list_refused()
    networks = {address: ipaddress.ip_network(address) for address in addresses}
    blacklisted = [address for address in networks if judge.is_in_set("blacklist", networks[address]) is not False]
    has_rule = [address for address in networks if judge.lets_in(networks[address])]
    shut_out = [address for address in networks if refused or address in blacklisted or address not in has_rule]
    if not shut_out:
        return FirewallVerdict("")
    return FirewallVerdict(
        "",
        tuple(shut_out),
        tuple(address for address in shut_out if address in has_rule),
        tuple(dict.fromkeys(judge.doubts)),
        () if uses_nftables else (*host.ignored, *cluster.ignored),
        tuple(dict.fromkeys(refused)),
        tuple(blacklisted),
    )


def judge_host(texts: tuple[str, str], addresses: Iterable[str], port: int, host: Path = Path("/")) -> FirewallVerdict:
    """Return judge_clients() for read_files(), with the services and programs of this host."""
    services: Services = SERVICES
    with contextlib.suppress(OSError):
        services = parse_services((host / "etc/services").read_text(errors="replace"))
    return judge_clients(
        *texts, addresses, port, services=services, has_proxmox_firewall=os.access(host / PROXMOX_FIREWALL, os.X_OK)
    )


# Read and change the texts


def _split_sections(host_fw: str) -> Iterator[tuple[str, str]]:
    r"""Yield each line with the header of its section, in lower case; a header belongs to its own section.

    Only "\n" ends a line, as in pve-firewall. Joining the lines with it yields the text again. Any header but [OPTIONS] and [RULES]
    is an invalid line of the section that it is in.
    """
    section = ""
    for line, stripped in zip(host_fw.split("\n"), config.split_lines(host_fw)):
        if stripped.lower() in ("[options]", "[rules]"):
            section = stripped.lower()
        yield section, line


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
    """Return lines that say what to add to the host.fw at `path`, or what else to change, and why. Empty if all clients are let in.

    clients: addresses by the client's name. verdict: the result of judge_clients() for all these addresses.
    """

    def name_clients(addresses: Collection[str]) -> str:
        named = {name: [address for address in own if address in addresses] for name, own in clients.items()}
        return ", ".join(name if own == [name] else f"{name} ({', '.join(own)})" for name, own in named.items() if own)

    lines = []
    lacking = [address for address in verdict.shut_out if address not in verdict.has_rule]
    if lacking:
        lines += [
            f"Proxmox VE's firewall is on, and no known rule lets these clients in to port {port}: {name_clients(lacking)}. "
            "A client that is shut out gets no warning of a power cut, and loses power while it is running.",
            f"Add these lines at the top of the section [RULES] of {path} (add the section if it is missing), or add the same "
            "rules in the web interface, under this node's Firewall:",
            *(line.partition(" #")[0] for line in make_rules(lacking, port)),
        ]
    if verdict.blacklisted:
        lines.append(
            f"The IP set blacklist of Proxmox VE's firewall shuts these clients out, whatever the rules are: "
            f"{name_clients(verdict.blacklisted)}. Remove them from it: Datacenter, Firewall, IPSet"
        )
    if verdict.refused_rules:
        lines.append(
            "Proxmox VE's firewall can't load its rules because of these lines, so the rules that it loaded before stay, or none. "
            "Correct them: " + "; ".join(verdict.refused_rules)
        )
    if verdict.unclear_rules:
        lines.append(
            "These rules may already let them in, or shut them out; check them yourself: "
            + "; ".join(verdict.unclear_rules)
        )
    if lacking and verdict.ignored_rules:
        lines.append("Proxmox VE's firewall ignores these lines: " + "; ".join(verdict.ignored_rules))
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
