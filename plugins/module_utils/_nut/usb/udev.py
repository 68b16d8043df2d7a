# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a policy means to udev: NUT's drivers, which run as the user nut, may use the devices that it takes for UPSes.

NUT's own rules (62-nut-usbups.rules) say so for the ids that its drivers know. These lines are for the others. They may give a
device to the group nut that the policy, on a closer look, does not take: udev knows no patterns of any case, and a
character that could end a quoted value becomes a wildcard. They are not narrower than the policy, but for texts with blanks
before them; whatever they miss, nut-hotplug itself gives to the group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

# UPSes that NUT's drivers know, or people use with them, and that the rules of 2.8.0 and 2.8.1 lack: EcoFlow
LACKING = ("3746:ffff",)
# where a device goes that a rule of the policy has decided on
DECIDED = "nut_hotplug_decided"

_IDS = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4}|\*)", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{4}", re.IGNORECASE)
_GIVEN = 'MODE="0664", GROUP="nut"'


def render_permissions(policy: Mapping[str, object]) -> str:
    """Return the lines of a udev rule for a policy that policy.check_policy() has passed. Each line ends with a newline."""
    lines: list[str] = []
    rules: Sequence[Mapping[str, object]] = policy.get("rules") or ()  # type: ignore[assignment]
    if any(rule.get("port") for rule in rules):
        # a line's matches come before its imports, so this is one of its own
        lines.append('ENV{ID_PATH}=="", IMPORT{builtin}="path_id"')
    for rule in rules:
        what = "" if rule.get("ignore") else f"{_GIVEN}, "
        lines += [f'{match}, {what}GOTO="{DECIDED}"' for match in _match_rule(rule)]
    patterns: Sequence[str] = policy.get("patterns") or ()  # type: ignore[assignment]
    for pattern in (*LACKING, *(one for one in patterns if one.lower() not in LACKING)):
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
    """Say whether udev can tell anything by a pattern. Else it would give NUT each device; nut-hotplug sees to those itself."""
    return convert_glob(pattern).strip("*?") != ""


def _match_id(attribute: str, value: str) -> str:
    return "" if value == "*" else f'ATTR{{{attribute}}}=="{value.lower()}"'


def _match_rule(rule: Mapping[str, object]) -> Iterator[str]:
    """Yield what a device must be for a rule; two alternatives if it names a port."""
    given = {key: str(rule.get(key) or "") for key in ("vendor", "product", "serial", "port")}
    parts = []
    for key, number, text in (("vendor", "idVendor", "manufacturer"), ("product", "idProduct", "product")):
        if _HEX.fullmatch(given[key]):
            parts.append(_match_id(number, given[key]))
        elif given[key]:
            parts.append(f'ATTR{{{text}}}=="{convert_glob(given[key])}"')
    if not any(_is_specific(one) for one in given.values() if one):
        return
    if given["serial"]:
        parts.append(f'ATTR{{serial}}=="{convert_glob(given["serial"])}"')
    if given["port"]:
        yield ", ".join([*parts, f'KERNEL=="{convert_glob(given["port"])}"'])
        yield ", ".join([*parts, f'ENV{{ID_PATH}}=="{convert_glob(given["port"])}"'])
    else:
        yield ", ".join(parts)


def convert_glob(pattern: str) -> str:
    """Turn a glob that takes any case into one of udev's that matches at least the same texts, safe between quotes.

    Letters become pairs; brackets, whatever they hold, a "?". So does what means something to udev inside a value: the
    quote, the backslash, "|" between alternatives, "$" and "%". A character that is not ASCII is several bytes there: "*".
    """
    made: list[str] = []
    place = 0
    while place < len(pattern):
        character = pattern[place]
        end = _find_bracket_end(pattern, place) if character == "[" else place
        made.append("?" if end > place else _convert_character(character))
        place = end + 1
    return re.sub(r"\*+", "*", "".join(made))


def _find_bracket_end(pattern: str, place: int) -> int:
    """Return where the set ends that begins at PLACE, as fnmatch sees it; PLACE itself if it does not end."""
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
