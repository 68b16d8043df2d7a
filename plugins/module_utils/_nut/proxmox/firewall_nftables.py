# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How proxmox-firewall, the program for the option nftables, reads cluster.fw and host.fw otherwise than pve-firewall.

Source: proxmox-ve-rs, proxmox-ve-config/src/firewall/ (common.rs, parse.rs, types/rule.rs, types/rule_match.rs, host.rs,
cluster.rs). It was read, not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .firewall_config import split_lines, to_bytes_text
from .firewall_values import MACROS, NAME

_RULE = re.compile(
    r"(\|?\s*)(in|out|forward)\s+([a-z0-9_-]+\()?(accept|drop|reject)(\)?)(?=\s|#|$)", re.ASCII | re.IGNORECASE
)


def as_pve_firewall_reads(text: str, *, turn_on: bool = False) -> str:
    """Return a file with its rules as pve-firewall must have them: actions in upper case, one blank after an option.

    turn_on: also turn on the rules that are turned off. proxmox-firewall rejects a file for a mistake in one of them, too.
    """
    lines = []
    for line in to_bytes_text(text).split("\n"):
        # a blank at either end, with a carriage return, does not count
        rule, number_sign, comment = line.strip(" \t\r\xa0").partition("#")
        if match := _RULE.match(rule):
            pipe, direction, macro, action, end = match.groups(default="")
            options = re.sub(r"(-[a-z-]+)\s+", r"\1 ", rule[match.end() :], flags=re.ASCII)
            rule = f"{'' if turn_on else pipe.strip()}{direction} {macro}{action.upper()}{end}{options}"
        elif turn_on:
            rule = re.sub(r"^\|\s*", "", rule, flags=re.ASCII)
        lines.append(rule + number_sign + comment)
    return "\n".join(lines).encode("latin-1").decode("utf-8", "surrogateescape")


def find_problems(cluster_fw: str, host_fw: str) -> list[str]:
    """Return the lines for which it rejects a file that pve-firewall takes, with the reason."""
    return [
        f"{file}: {line.encode('latin-1').decode('utf-8', 'surrogateescape')} ({reason})"
        for file, text in (("cluster.fw", cluster_fw), ("host.fw", host_fw))
        for line, reason in _list_problems(file, text)
    ]


def _list_problems(file: str, text: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    section = ""
    for line in (line.strip(" \t\r\xa0") for line in split_lines(text)):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            header = line.partition("#")[0].strip()
            section = header.lower()
            key = section if re.match(r"\[(?:ipset|group)", section) else ""
            yield from ((line, reason) for reason in _check_header(file, header) if key)
        elif section == "[options]":
            key = f"option {line.partition(':')[0]}"
            yield from ((line, reason) for reason in _check_option(line))
        else:
            key = f"alias {line.split()[0].lower()}" if section == "[aliases]" else ""
            yield from ((line, reason) for reason in _check_entry(section, line))
        if key and key in seen:
            yield line, "proxmox-firewall takes it only once"
        seen.add(key)


def _check_header(file: str, header: str) -> Iterator[str]:
    if not re.match(r"\[(?:IPSET|group)\s", header, re.ASCII):
        yield "proxmox-firewall wants [IPSET NAME] and [group NAME], spelled like this"
    if re.search(r"\s\S*[A-Z]", header, re.ASCII):
        yield "proxmox-firewall takes capital letters in a name as they are, pve-firewall as small ones"
    if file == "host.fw" and header.lower().startswith("[ipset"):
        yield "proxmox-firewall takes IP sets only in cluster.fw"


def _check_option(line: str) -> Iterator[str]:
    name, _colon, value = (word.strip() for word in line.partition(":"))
    if name != name.lower():
        yield "proxmox-firewall wants options in lower case"
    if name == "enable" and value not in ("0", "1"):
        yield "proxmox-firewall takes only 0 and 1"
    if "log_level" in name and not re.fullmatch("[a-z]+", value):
        yield "proxmox-firewall wants a log level in lower case"


def _check_entry(section: str, line: str) -> Iterator[str]:
    """Yield what is wrong with a rule, an alias or an entry of an IP set."""
    entry, number_sign, comment = line.partition("#")
    if section == "[aliases]" or section.startswith("[ipset"):
        if number_sign and not entry.endswith((" ", "\t")):
            yield "proxmox-firewall wants a blank before the comment"
        if section == "[aliases]" and not re.match(rf"{NAME}\s", entry, re.ASCII):
            yield "proxmox-firewall does not take such a name"
        return
    names = [name.lstrip("-") for name in re.findall(r"(?<!\S)--?[a-z-]+", entry)]
    names = [{"p": "proto", "i": "iface"}.get(name, name) for name in names]
    if len(set(names)) < len(names):
        yield "proxmox-firewall takes an option only once"
    if number_sign and not comment.strip():
        yield "proxmox-firewall takes no empty comment"
    if "#" in comment:
        yield "older releases of proxmox-firewall start the comment at the last #"
    if re.match(r"\|?\s*(?i:group)\s", entry, re.ASCII) and "GROUP" not in entry:
        yield "proxmox-firewall wants GROUP in upper case"
    if (macro := re.match(r"\|?\s*\S+\s+([^\s(]+)\(", entry, re.ASCII)) and macro.group(1) not in MACROS:
        yield f"proxmox-firewall has no macro {macro.group(1)}"
