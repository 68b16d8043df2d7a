# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turn a policy into udev rules that let NUT's drivers, which run as the user nut, use the UPSes of the policy.

NUT's own rules (62-nut-usbups.rules) cover the ids that its drivers know; these cover the rest. They may also match devices that
the policy does not, because udev's patterns are case-sensitive and every character that could end a quoted value becomes a
wildcard. They miss only texts with leading blanks, and nut-hotplug itself permits devices that they miss.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

# UPSes that work with NUT but are missing from the rules of 2.8.0 and 2.8.1: EcoFlow
LACKING = ("3746:ffff",)
# label after the lines of all policy rules
DECIDED = "nut_hotplug_decided"

_IDS = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4}|\*)", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{4}", re.IGNORECASE)
_GIVEN = 'MODE="0664", GROUP="nut"'


def render_permissions(policy: Mapping[str, object]) -> str:
    """Return the lines of the udev rules for a policy that policy.check_policy() accepts, each with a newline."""
    lines: list[str] = []
    rules: Sequence[Mapping[str, object]] = policy.get("rules") or ()  # type: ignore[assignment]
    if any(rule.get("port") for rule in rules):
        # a separate line, because udev evaluates matches before imports
        lines.append('ENV{ID_PATH}=="", IMPORT{builtin}="path_id"')
    for rule in rules:
        permission = "" if rule.get("ignore") else f"{_GIVEN}, "
        lines += [f'{match}, {permission}GOTO="{DECIDED}"' for match in _match_rule(rule)]
    patterns: Sequence[str] = policy.get("patterns") or ()  # type: ignore[assignment]
    for pattern in (*LACKING, *(pattern for pattern in patterns if pattern.lower() not in LACKING)):
        lines += [f"{match}, {_GIVEN}" for match in _match_pattern(pattern)]
    return "".join(f"{line}\n" for line in lines)


def _match_pattern(pattern: str) -> Iterator[str]:
    ids = _IDS.fullmatch(pattern)
    if ids:
        vendor, product = ids.groups()
        yield ", ".join(filter(None, (_match_id("idVendor", vendor), _match_id("idProduct", product))))
    elif _is_specific(pattern):
        yield f'ATTR{{manufacturer}}=="{convert_glob(pattern)}"'
        yield f'ATTR{{product}}=="{convert_glob(pattern)}"'


def _is_specific(pattern: str) -> bool:
    """Return whether a pattern is more than wildcards in udev's terms. Others are left to nut-hotplug."""
    return convert_glob(pattern).strip("*?") != ""


def _match_id(attribute: str, value: str) -> str:
    return "" if value == "*" else f'ATTR{{{attribute}}}=="{value.lower()}"'


def _match_rule(rule: Mapping[str, object]) -> Iterator[str]:
    """Yield the matches of a rule: two alternatives if it has a port, none if udev can't express it."""
    given = {key: str(rule.get(key) or "") for key in ("vendor", "product", "serial", "port")}
    parts = []
    for key, number, text in (("vendor", "idVendor", "manufacturer"), ("product", "idProduct", "product")):
        if _HEX.fullmatch(given[key]):
            parts.append(_match_id(number, given[key]))
        elif given[key]:
            parts.append(f'ATTR{{{text}}}=="{convert_glob(given[key])}"')
    if not any(_is_specific(pattern) for pattern in given.values() if pattern):
        return
    if given["serial"]:
        parts.append(f'ATTR{{serial}}=="{convert_glob(given["serial"])}"')
    if given["port"]:
        yield ", ".join([*parts, f'KERNEL=="{convert_glob(given["port"])}"'])
        yield ", ".join([*parts, f'ENV{{ID_PATH}}=="{convert_glob(given["port"])}"'])
    else:
        yield ", ".join(parts)


def convert_glob(pattern: str) -> str:
    """Convert a case-insensitive glob into a udev glob that matches at least the same texts and is safe between quotes.

    Letters become pairs. Bracket sets and characters with a meaning inside a udev value (quote, backslash, "|", "$", "%") become
    "?". A character outside ASCII, which is several bytes to udev, becomes "*".
    """
    converted: list[str] = []
    place = 0
    while place < len(pattern):
        character = pattern[place]
        end = _find_bracket_end(pattern, place) if character == "[" else place
        converted.append("?" if end > place else _convert_character(character))
        place = end + 1
    return re.sub(r"\*+", "*", "".join(converted))


def _find_bracket_end(pattern: str, place: int) -> int:
    """Return the end of the bracket set that begins at PLACE, as fnmatch parses it; PLACE itself if it is not closed."""
    begin = place + 2 if pattern[place + 1 : place + 2] == "!" else place + 1
    end = pattern.find("]", begin + 1)
    return max(end, place)


def _convert_character(character: str) -> str:
    if not character.isascii():
        return "*"
    if character.isalpha():
        return f"[{character.lower()}{character.upper()}]"
    if character in '"\\|$%[]' or not character.isprintable():
        return "?"
    return character
