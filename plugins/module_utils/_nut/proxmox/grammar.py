# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The grammars that Proxmox VE's configuration files share: property strings, and files of sections.

Sources: pve-common, src/PVE/JSONSchema.pm (parse_property_string, parse_boolean, parse_id, parse_volume_id) and
src/PVE/SectionConfig.pm (parse_config). Perl reads bytes, so only ASCII counts as a blank or a digit.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Callable

# patterns of whole values
BOOLEAN = r"(?i:1|on|yes|true|0|off|no|false)"
INTEGER = r"[+-]?[0-9]+"
POSITIVE = r"\+?0*[1-9][0-9]*"
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
SIZE = r"[0-9]+(?:\.[0-9]+)?(?:[KMGT](?:iB)?)?"  # parse_size
_STORAGE = r"[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]"
VOLUME = rf"{_STORAGE}:.+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
DNS_NAME = rf"(?:{_LABEL}\.)*{_LABEL}"


def is_match(pattern: str, text: str) -> bool:
    r"""Return whether a pattern matches a whole text, with Perl's meaning of \s and \d in bytes."""
    return re.fullmatch(pattern, text, re.ASCII) is not None


def parse_boolean(text: str) -> bool | None:
    """Return the value of a boolean; None if it is none."""
    return text.lower() in ("1", "on", "yes", "true") if is_match(BOOLEAN, text) else None


def find_storage(volume: str) -> str:
    """Return the id of the storage of a volume, such as nas for nas:100/disk.raw; "" for anything else, such as a path."""
    return volume.partition(":")[0] if is_match(VOLUME, volume) else ""


def is_address(text: str) -> bool:
    """Return whether a text is an IP address or a DNS name (pve_verify_address)."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return is_match(DNS_NAME, text)
    return "%" not in text


# Property strings


@dataclass(frozen=True)
class PropertyFormat:
    """The format of a property string, such as `nas:100/disk.raw,size=8G`."""

    keys: Mapping[str, str]  # key -> pattern of its whole value
    default: str = ""  # the key of the value that may be written without one
    required: Collection[str] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)  # another spelling -> key


def parse_properties(text: str, form: PropertyFormat) -> dict[str, str] | None:
    """Return the values by key; None if anything is wrong, because Proxmox then refuses the whole string."""
    found: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip(" \t\n\r\f\v"):
            continue
        match = re.fullmatch(r"([^=]+)=(.+)", part)
        if "=" in part and not match:
            return None
        key, value = match.groups() if match else (form.default, part)
        key = form.aliases.get(key, key)
        if key in found or key not in form.keys or not is_match(form.keys[key], value):
            return None
        found[key] = value
    return found if all(key in found for key in form.required) else None


# Files of sections


@dataclass(frozen=True)
class Section:
    """A section: a header, and indented lines `key value` up to an empty line."""

    type: str
    id: str
    lines: tuple[tuple[str, str | None], ...]  # in their order, with duplicates; None: a key without a value

    def first_values(self, is_valid: Callable[[str, str], bool]) -> dict[str, str]:
        """Return the values by key: of each key the first one that is valid. A key without a value is one of a switch: left out."""
        found: dict[str, str] = {}
        for key, value in self.lines:
            if value is not None and key not in found and is_valid(key, value):
                found[key] = value
        return found


def split_sections(text: str, header: str = r"(\S+):\s*(\S+)\s*") -> Iterator[Section]:
    """Yield the sections of a file.

    header: a pattern with the groups type and id, or only the id. Only an empty line ends a section: a header before that is
    an invalid line of the section, and so is a line of blanks. A line that begins with # is left out, indented or not.
    """
    lines = iter([line for line in text.split("\n") if not re.match(r"\s*#", line, re.ASCII)])
    for line in lines:
        match = re.fullmatch(header, line, re.ASCII)
        if not match:
            continue
        found: list[tuple[str, str | None]] = []
        for entry in lines:
            if entry in ("", "0"):  # what is false in Perl
                break
            if pair := re.fullmatch(r"\s+(\S+)(?:\s+(.*\S))?\s*", entry, re.ASCII):
                found.append((pair.group(1), pair.group(2)))
        kind, name = match.groups() if match.lastindex == 2 else ("", match.group(1))
        yield Section(kind, name, tuple(found))
