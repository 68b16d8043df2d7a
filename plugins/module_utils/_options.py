# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: make suboptions of a module from the fields of a dataclass in the library."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, fields
from typing import Any


def suboptions_of(kind: Any, *, without_default: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Return a suboption for each field of a dataclass, with its name, type and default; `without_default`: fields without one."""
    options: dict[str, dict[str, Any]] = {}
    for field in fields(kind):
        option: dict[str, Any] = {"type": str(field.type).partition(" | ")[0]}
        if option["type"].startswith("tuple"):
            option = {"type": "list", "elements": "str", "default": []}
        elif field.default is MISSING:
            option["required"] = True
        elif field.default is not None and field.name not in without_default:
            option["default"] = field.default
        options[field.name] = option
    return options
