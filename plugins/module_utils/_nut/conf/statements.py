# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lines of NUT's files, each with its entry in the tables of directives.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from . import grammar, ups_conf
from .directives import DEVICE, DIRECTIVES, SHARED, Directive

# in nut.conf: an assignment that a shell and systemd's EnvironmentFile= read in the same way
ASSIGNMENT = re.compile(
    r"""[ \t]*([A-Za-z_][A-Za-z0-9_]*)=((?:[^\s'"\\#$`;&|<>()]|"[^"\\$`\n]*"|'[^'\n]*')*)[ \t]*""", re.ASCII
)
_WITH_SECTIONS = ("ups.conf", "upsd.users")
_FOLDED = {name.lower(): name for name in DEVICE}
# directives outside of sections whose case NUT ignores
_ANY_CASE = {
    ("ups.conf", "statepath"): "statepath",
    ("upsd.conf", "debug_min"): "DEBUG_MIN",
    ("upsmon.conf", "debug_min"): "DEBUG_MIN",
}


@dataclass(frozen=True)
class Statement:
    """A line of a file, as NUT reads it; not the header of a section."""

    file: str
    number: int  # the line of the file on which it begins, counted from 1
    section: str  # "" outside of sections
    words: tuple[str, ...]
    name: str  # the first word, as the tables spell it
    directive: Directive | None  # None if it is in no table

    @property
    def values(self) -> tuple[str, ...]:
        """All but the first word."""
        return self.words[1:]

    @property
    def where(self) -> str:
        """The file and section, for a message."""
        return f"{self.file}, [{self.section}]" if self.section else self.file


def read_statements(file: str, text: str) -> tuple[Statement, ...]:
    """Read a file as NUT does. Not nut.conf, which a shell reads."""
    drivers = _drivers_by_section(text) if file == "ups.conf" else {}
    found = []
    section = ""
    for line in grammar.parse_lines(text):
        first = line.words[0]
        if file in _WITH_SECTIONS and first.startswith("[") and first.endswith("]"):
            section = first[1:-1]
            continue
        name = _canonical_name(file, section, first)
        table = DIRECTIVES.get(file, {})
        if file == "ups.conf" and section:
            table = _keys_of_driver(drivers.get(section, ""))
        found.append(Statement(file, line.number, section, line.words, name, table.get(name)))
    return tuple(found)


def find_device_key(driver: str, key: str) -> Directive | None:
    """Return the entry for a key in a section of ups.conf with this driver; None if the key is in no table."""
    return _keys_of_driver(driver).get(_canonical_name("ups.conf", "-", key))


def _keys_of_driver(driver: str) -> Mapping[str, Directive]:
    # the tables don't have the keys of other drivers
    return DEVICE if driver == "usbhid-ups" else SHARED


def _canonical_name(file: str, section: str, word: str) -> str:
    """Return a directive as the tables spell it. NUT ignores the case of keys in sections, and of a few others."""
    low = word.lower()
    if file == "ups.conf" and section:
        family = low.partition(".")[0] + ".*"
        return family if "." in low and family in SHARED else _FOLDED.get(low, word)
    if file == "upsd.users":
        return low
    return _ANY_CASE.get((file, low), word)


def _drivers_by_section(text: str) -> dict[str, str]:
    """Map the sections of a ups.conf to their drivers."""
    return {
        name: dict(section.keys).get("driver") or "" for name, section in ups_conf.parse_ups_conf(text).sections.items()
    }
