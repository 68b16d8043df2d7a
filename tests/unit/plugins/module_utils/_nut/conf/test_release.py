# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import (
    Release,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.release import find_release, read_release

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BOOKWORM, TRIXIE, SID = (2, 8, 0), (2, 8, 1), (2, 8, 5)

SAID: dict[str, Release | None] = {
    "Network UPS Tools upsmon 2.8.0\n": BOOKWORM,
    "Network UPS Tools upsd 2.8.5 release\n": SID,
    "fopen: no 10.0.0.1\nNetwork UPS Tools upsmon 2.8.1\nupsnotify: failed 1.2.3\n": TRIXIE,
    "Network UPS Tools upsmon 2.8.2.2396-2396+g31650d455 (development iteration after 2.8.2)": (2, 8, 2),
    "Network UPS Tools - Generic HID driver 0.47 (2.8.0)\nUSB communication driver 0.43": BOOKWORM,
    "Network UPS Tools upsmon 2.10.11": (2, 10, 11),
    "upsmon disabled, please adjust the configuration to your needs": None,
    "": None,
}


@pytest.mark.parametrize(("output", "release"), SAID.items())
def test_release_is_read_from_program_output(output: str, release: Release | None) -> None:
    assert read_release(output) == release


INSTALLED: dict[str, tuple[dict[str, str], Release | None, list[list[str]]]] = {
    "from upsmon": (
        {"upsmon": "Network UPS Tools upsmon 2.8.1", "upsd": "Network UPS Tools upsd 2.8.0"},
        TRIXIE,
        [["/nut/upsmon", "-V"]],
    ),
    "from upsd after upsmon": (
        {"upsmon": "upsmon disabled", "upsd": "Network UPS Tools upsd 2.8.0"},
        BOOKWORM,
        [["/nut/upsmon", "-V"], ["/nut/upsd", "-V"]],
    ),
    "only upsd": ({"upsd": "Network UPS Tools upsd 2.8.0"}, BOOKWORM, [["/nut/upsd", "-V"]]),
    "none": ({}, None, []),
}


@pytest.mark.parametrize(("programs", "release", "run"), INSTALLED.values(), ids=INSTALLED.keys())
def test_installed_release_is_found(programs: Mapping[str, str], release: Release | None, run: list[list[str]]) -> None:
    asked = []

    def runner(command: Sequence[str]) -> tuple[int, str]:
        asked.append(list(command))
        return 0, programs[Path(command[0]).name]

    found = find_release(runner, lambda name: Path("/nut", name) if name in programs else None)
    assert found == release
    assert asked == run


# directives that a release does not know
