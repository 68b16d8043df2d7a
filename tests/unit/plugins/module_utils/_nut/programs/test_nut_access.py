# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.nut.tests.unit.support.access_host import AccessMachine


@pytest.mark.parametrize("arguments", [(), ("run",), ("refresh", "now"), ("status", "--json"), ("--status",)])
def test_wrong_command_line_is_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    machine = AccessMachine(tmp_path)
    assert machine.run_main(*arguments) == 2
    assert "See nut-access" in machine.err[0]
    assert (machine.out, machine.commands) == ([], [])


def test_help_lists_commands(tmp_path: Path) -> None:
    machine = AccessMachine(tmp_path)
    assert machine.run_main("--help") == 0
    assert "load the table if it is not loaded" in machine.out[0]
    assert machine.run_main("status", "--help") == 0
    assert machine.out[0].startswith("usage: nut-access status [-h]\n")


def test_refresh_without_table_file_fails(tmp_path: Path) -> None:
    machine = AccessMachine(tmp_path)
    machine.file.unlink()
    assert machine.run_main("refresh") == 1
    assert "access.nft" in machine.err[-1]
