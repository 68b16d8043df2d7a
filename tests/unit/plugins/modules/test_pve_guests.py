# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils import _host
from ansible_collections.homelab.nut.plugins.modules import pve_guests

if TYPE_CHECKING:
    from pathlib import Path


def run_module(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    given = {"name": "node2", "primary": "node1", "shutdown_time": 30, "shutdown_limit": 60, **options}
    with patch_module_args(given), pytest.raises(SystemExit):
        pve_guests.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_other_host_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_host, "ROOT", tmp_path)
    result = run_module(capsys)
    assert (result["is_node"], result["changed"], result["msg"]) == (False, False, "")
    assert "warnings" not in result


def test_node_with_guests_is_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_host, "ROOT", tmp_path)
    folder = tmp_path / "etc/pve/local/qemu-server"
    folder.mkdir(parents=True)
    (folder / "101.conf").write_text("name: web\nonboot: 1\n")
    result = run_module(capsys)
    assert (result["usual"], result["limit"], result["guests"]) == (67, 229, ["101 web"])
    (warning,) = result["warnings"]
    assert warning["event"]["msg"].endswith("nut_client_shutdown_time: 67, nut_client_shutdown_limit: 229")
    assert result["changed"] is False
    assert run_module(capsys, shutdown_time=67, shutdown_limit=229)["msg"] == ""


def test_guests_that_cannot_be_read_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_host, "ROOT", tmp_path)
    (tmp_path / "etc/pve").mkdir(parents=True)
    (warning,) = run_module(capsys)["warnings"]
    assert "its guests can't be read" in warning["event"]["msg"]
