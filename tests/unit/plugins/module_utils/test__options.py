# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import dataclass

from ansible_collections.homelab.nut.plugins.module_utils._options import suboptions_of


@dataclass
class Kind:
    name: str
    count: int | None = None
    seconds: float = 60
    is_on: bool = False
    needs: tuple[str, ...] = ()


def test_dataclass_field_becomes_a_suboption() -> None:
    assert suboptions_of(Kind) == {
        "name": {"type": "str", "required": True},
        "count": {"type": "int"},
        "seconds": {"type": "float", "default": 60},
        "is_on": {"type": "bool", "default": False},
        "needs": {"type": "list", "elements": "str", "default": []},
    }


def test_default_can_be_left_to_the_library() -> None:
    assert suboptions_of(Kind, without_default=["seconds"])["seconds"] == {"type": "float"}
