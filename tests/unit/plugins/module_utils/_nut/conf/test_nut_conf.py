# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import nut_conf

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        (None, "NUT is not installed"),
        ("", "nut.conf is neither"),
        ("MODE=none\n", "MODE in"),
        ("MODE=netclient\n", "MODE in"),
        ("#MODE=netserver\n", "MODE in"),
        ("MODE=netserver\nMODE=none\n", "MODE in"),
        ("MODE=netserver\n", ""),
        ("MODE=none\n MODE='standalone' # x\n", ""),
        ('MODE="netserver"\n', ""),
    ],
)
def test_unconfigured_nut_is_recognized(tmp_path: Path, conf: str | None, expected: str) -> None:
    path = tmp_path / "nut.conf"
    (tmp_path / "ups.conf").touch()
    if conf is not None:
        path.write_text(conf)
    missing = nut_conf.find_lack(tmp_path)
    if expected:
        assert expected in missing
        assert "make ups tags=ups" in missing
    else:
        assert missing == ""


def test_missing_ups_conf_is_recognized(tmp_path: Path) -> None:
    (tmp_path / "nut.conf").write_text("MODE=netserver\n")
    assert "/ups.conf does not exist. Deploy it first" in nut_conf.find_lack(tmp_path)
