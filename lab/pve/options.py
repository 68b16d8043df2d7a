# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command lines of Proxmox VE's programs, with its error texts and exit codes (pve-common, JSONSchema.pm)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

ALWAYS = ("skiplock", "timeout", "forceStop")  # in the result, whether a program knows them or not
TRUE, FALSE = ("1", "on", "yes", "true"), ("0", "off", "no", "false")


class CommandError(Exception):
    """A command fails with this message (of Perl's die) and exit code."""

    def __init__(self, words: str, code: int = 255) -> None:
        """Keep both."""
        super().__init__(words)
        self.code = code


def parse_options(
    program: str, verb: str, words: Sequence[str], known: Mapping[str, type], place: str = ""
) -> dict[str, Any]:
    """Return the options by name, None for those not given, and the value of the argument that is named `place`.

    Options begin with one or two hyphens. Raise CommandError as the real programs do.
    """
    usage = f"{program} {verb}{f' <{place}>' if place else ''} [OPTIONS]"
    found: dict[str, Any] = dict.fromkeys((*ALWAYS, *known))
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        match = re.fullmatch(r"--?([A-Za-z][A-Za-z-]*)(?:=(.*))?", word)
        if not match:
            rest.append(word)
            continue
        name, value = match.groups()
        if name not in known:
            raise CommandError(f"Unknown option: {name}\n400 unable to parse option\n{usage}", 2)
        if known[name] is bool:
            if value is None:
                value = left.pop(0) if left and left[0].lower() in (*TRUE, *FALSE) else "1"
            found[name] = value.lower() in TRUE
            continue
        if value is None:
            if not left:
                raise CommandError(f"Option {name} requires an argument\n400 unable to parse option\n{usage}", 2)
            value = left.pop(0)
        if known[name] is int and not re.fullmatch(r"-?[0-9]+", value):
            raise CommandError(
                f"400 Parameter verification failed.\n{name}: type check ('integer') failed - got '{value}'\n{usage}", 2
            )
        found[name] = known[name](value)
    if place and not rest:
        raise CommandError(f"400 not enough arguments\n{usage}", 2)
    if len(rest) > (1 if place else 0):
        raise CommandError(f"400 too many arguments\n{usage}", 2)
    if place == "vmid" and not re.fullmatch(r"[1-9][0-9]{2,8}", rest[0]):
        raise CommandError(
            f"400 Parameter verification failed.\nvmid: invalid format - value does not look like a valid VM ID\n{usage}",
            2,
        )
    return {**found, place: rest[0]} if place else found
