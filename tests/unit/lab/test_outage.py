# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from homelab import outage
from homelab.outage import Shutdown

NAS = Shutdown("nas", "secondary", 6.0, 20.0)
MEDIA = Shutdown("media", "secondary", 5.5, 9.0)
PVE = Shutdown("pve", "primary", 40.0, 52.0)

VERDICTS: dict[str, tuple[list[Shutdown], list[str]]] = {
    "in order": ([MEDIA, NAS, PVE], []),
    "in any order": ([PVE, NAS, MEDIA], []),
    "no secondary": ([PVE], []),
    "down before the battery was low": ([Shutdown("nas", "secondary", -30.0, -10.0), PVE], []),
    "secondary late": (
        [Shutdown("nas", "secondary", 6.0, 42.5), MEDIA, PVE],
        ["nas was not down when the primary began to power off, 2.5 s too late"],
    ),
    "secondary in the same moment": (
        [Shutdown("nas", "secondary", 6.0, 40.0), PVE],
        ["nas was not down when the primary began to power off, 0.0 s too late"],
    ),
    "secondary after the primary was down": (
        [PVE, Shutdown("nas", "secondary", 6.0, 60.0)],
        ["nas was not down when the primary began to power off, 20.0 s too late"],
    ),
    "secondary never down": (
        [Shutdown("nas", "secondary", 6.0, None), PVE],
        ["nas did not go down", "nas was not down when the primary began to power off"],
    ),
    "secondary untouched": (
        [Shutdown("nas", "secondary", None, None), PVE],
        ["nas did not go down", "nas was not down when the primary began to power off"],
    ),
    "secondary stops without a shutdown": (
        [Shutdown("nas", "secondary", None, 20.0), PVE],
        ["nas stopped without a shutdown"],
    ),
    "secondary is cut off": (
        [Shutdown("nas", "secondary", None, 53.0), PVE],
        ["nas stopped without a shutdown", "nas was not down when the primary began to power off, 13.0 s too late"],
    ),
    "primary never begins": ([NAS, Shutdown("pve", "primary", None, None)], ["pve did not go down", "no primary began to shut down"]),
    "primary begins and never ends": ([NAS, Shutdown("pve", "primary", 40.0, None)], ["pve did not go down"]),
    "primary stops without a shutdown": (
        [NAS, Shutdown("pve", "primary", None, 41.0)],
        ["pve stopped without a shutdown", "no primary began to shut down"],
    ),
    "nobody": ([], ["no primary began to shut down"]),
}  # fmt: skip


@pytest.mark.parametrize(("falls", "wrong"), VERDICTS.values(), ids=VERDICTS.keys())
def test_late_secondary_is_a_problem(falls: list[Shutdown], wrong: list[str]) -> None:
    assert outage.find_problems(falls) == wrong


def parse_bars(text: str) -> dict[str, str]:
    """Take the bars of a table, by host."""
    return {line.split()[0]: line[line.index("|") + 1 : -1] for line in text.splitlines() if line.endswith("|")}


def test_table_lists_shutdowns_in_order() -> None:
    head, *rows, ruler = outage.format_table([MEDIA, NAS, PVE]).splitlines()
    assert (
        head == "host       role         began     down   seconds after the battery was low (. still on, # going down)"
    )
    assert [row[: row.index("|")].split() for row in rows] == [
        ["media", "secondary", "5.5", "s", "9.0", "s"],
        ["nas", "secondary", "6.0", "s", "20.0", "s"],
        ["pve", "primary", "40.0", "s", "52.0", "s"],
    ]
    # the columns stand below their heads, and the numbers of the ruler below what they measure
    assert {len(row) for row in rows} == {len(rows[0])}
    assert all(row[: head.index("down") + 4].endswith("s") for row in rows)
    assert ruler.split() == ["0", "26", "52"]
    assert ruler.index("0") == rows[0].index("|") + 1
    assert len(ruler) == rows[0].rindex("|")
    middle = rows[0].index("|") + 1 + outage.WIDTH // 2
    assert abs(ruler.index("26") + 1 - middle) <= 1


def test_bars_show_each_shutdown() -> None:
    falls = [
        Shutdown("even", "secondary", 20.0, 40.0),
        Shutdown("late", "secondary", None, 40.0),
        Shutdown("never", "secondary", None, None),
        Shutdown("halfway", "secondary", 40.0, None),
        Shutdown("early", "secondary", -5.0, -1.0),
        Shutdown("pve", "primary", 60.0, 80.0),
    ]
    width = outage.WIDTH
    assert parse_bars(outage.format_table(falls)) == {
        "even": "." * (width // 4) + "#" * (width // 4) + " " * (width // 2),
        "late": "." * (width // 2) + " " * (width // 2),
        "never": "." * width,
        "halfway": "." * (width // 2) + "#" * (width // 2),
        "early": " " * width,
        "pve": "." * (width * 3 // 4) + "#" * (width // 4),
    }


def test_table_shows_never_for_missing_times() -> None:
    text = outage.format_table([Shutdown("nas", "secondary", 6.0, None), Shutdown("pve", "primary", None, 41.0)])
    assert "nas        secondary    6.0 s    never   |" in text
    assert "pve        primary      never   41.0 s   |" in text


@pytest.mark.parametrize(
    "falls", [[], [Shutdown("pve", "primary", None, None)], [Shutdown("pve", "primary", 0.0, 0.0)]]
)
def test_table_without_shutdowns(falls: list[Shutdown]) -> None:
    assert len(outage.format_table(falls).splitlines()) == len(falls) + 2


def test_saved_shutdowns_can_be_loaded(tmp_path: Path) -> None:
    falls = {"pve8": [MEDIA, PVE], "pve9": [Shutdown("nas", "secondary", None, None)], "empty": []}
    outage.save_shutdowns(tmp_path / "falls.json", falls)
    assert outage.load_shutdowns(tmp_path / "falls.json") == falls
