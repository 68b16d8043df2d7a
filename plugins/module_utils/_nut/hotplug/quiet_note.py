# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compose the note that lets the next run end early if nothing has changed. quiet.py reads it."""

from __future__ import annotations

from collections.abc import Mapping

from .quiet import FIRST, LAST


def compose_note(
    sysfs: str,
    bus: str,
    files: Mapping[str, str],
    place: tuple[str, int],
    answers: Mapping[str, str],
    *,
    until: float,
) -> str:
    """Return the text of a note for quiet.is_quiet().

    bus: quiet.describe_bus(sysfs). files: path -> quiet.identify_file(path). place: upsd's numeric address and port. answers: name of
    a UPS -> its classified answer. until: the time of the next full run, in seconds of CLOCK_BOOTTIME. Raises ValueError for a name or
    path that does not fit on one line.
    """
    identities = {path: identity.replace(" ", ",") for path, identity in files.items()}
    fields = [
        FIRST,
        f"until {int(until)}",
        f"upsd {place[0]} {place[1]}",
        *(f"ups {name} {answer}" for name, answer in answers.items()),
        *(f"file {identity} {path}" for path, identity in identities.items()),
        f"bus {sysfs}",
    ]
    strange = [text for text in [*fields, *answers] if not text.isprintable()]
    strange += [name for name in answers if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii()]
    if strange:
        raise ValueError(f"{strange[0]!r} can't be part of a line of the note")
    return "\n".join([*fields, bus, LAST, ""])
