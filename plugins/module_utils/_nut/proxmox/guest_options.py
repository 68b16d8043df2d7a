# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options in the configuration file of a guest.

Sources: qemu-server, src/PVE/QemuServer.pm (parse_vm_config, check_type); pve-container, src/PVE/LXC/Config.pm (parse_pct_config);
pve-common, src/PVE/JSONSchema.pm (pve_parse_startup_order); releases 8 and 9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Callable

from . import formats, grammar


def read_options(kind: str, text: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Return the options before the first section, and the options lxc.* of a container."""
    values: dict[str, str] = {}
    entries = []
    # a container's section has two letters or more; anything else in brackets is an invalid line
    section = r"\[[^\]]*\]\s*" if kind == "qm" else r"\[(?i:pve:pending|[a-z][a-z0-9_-]+)\]\s*"
    option = r"([a-z][a-z_-]*[0-9]*):\s*(.+?)\s*" if kind == "qm" else r"([a-z][a-z_]*[0-9]*):\s*(.+?)\s*"
    for line in text.split("\n"):
        if re.fullmatch(section, line, re.ASCII):
            break
        if kind == "pct" and (match := re.fullmatch(r"(lxc\.[a-z0-9_.-]+)(?::|\s*=)\s*(.*?)\s*", line, re.ASCII)):
            entries.append((match.group(1), match.group(2)))
        elif re.search(r"snapstate:\s*(?:prepare|delete)\s*$", line, re.ASCII):
            continue
        elif match := re.fullmatch(option, line, re.ASCII):
            key, value = match.groups()
            if kind == "pct" or _is_valid(key, value):
                values["ide2" if key == "cdrom" else key] = value
    return values, entries


def _has_valid_tags(value: str) -> bool:
    return all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", tag) for tag in split_list(value))


# those options of a VM that are in no format of formats.DRIVES; any other option is of no use here
_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "name": lambda value: grammar.is_match(grammar.DNS_NAME, value),
    "onboot": lambda value: grammar.parse_boolean(value) is not None,
    "template": lambda value: grammar.parse_boolean(value) is not None,
    "startup": lambda value: parse_startup(value) is not None,
    "tags": _has_valid_tags,
    "hookscript": lambda value: bool(grammar.find_storage(value)),
    "cicustom": lambda value: grammar.parse_properties(value, formats.CICUSTOM) is not None,
}


def read_drive(key: str, value: str) -> dict[str, str] | None:
    """Return the properties of a VM's drive; None for an invalid value (parse_drive)."""
    found = grammar.parse_properties(value, formats.DRIVES[key])
    if found is None:
        return None
    given = {name for name, entry in found.items() if entry != "0"}  # what is true in Perl
    for name in ("bps", "bps_rd", "bps_wr"):
        if name in found and f"m{name}" in found:
            return None
        given |= {f"m{name}"} if name in found else set()
    if any(name in given and needed not in given for name, needed in formats.DRIVE_NEEDS):
        return None
    if any(given.issuperset(pair) for pair in formats.DRIVE_EXCLUDES):
        return None
    is_cd = found.get("media") == "cdrom"
    return None if is_cd and (key.startswith("virtio") or given & {"snapshot", "format"}) else found


def _is_valid(key: str, value: str) -> bool:
    """Return whether Proxmox accepts the value of a VM's option; True for options that this library does not need."""
    if "\r" in value:
        return False
    if key in formats.DRIVES:
        return read_drive(key, value) is not None
    return key not in _CHECKS or _CHECKS[key](value)


def is_on(kind: str, value: str) -> bool:
    """Return whether a boolean option is on. For a container, an invalid value is on."""
    found = grammar.parse_boolean(value)
    return kind == "pct" if found is None else found


def split_list(text: str) -> list[str]:
    """Return the words of a list of tags."""
    return [word for word in re.split(r"[;,\0\s]+", text, flags=re.ASCII) if word]


def parse_startup(value: str) -> tuple[int | None, int | None, int | None] | None:
    """Return order, up and down; None for an invalid value: an unknown word, or only a 0 (pve_parse_startup_order)."""
    numbers: dict[str, int] = {}
    for part in value.split(","):
        if match := re.fullmatch(r"(?:(order|up|down)=)?([0-9]+)", part):
            numbers[match.group(1) or "order"] = int(match.group(2))
        elif not grammar.is_match(r"\s*", part):
            return None
    return (numbers.get("order"), numbers.get("up"), numbers.get("down")) if value not in ("", "0") else None
