# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils import _host, _service
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits
from ansible_collections.homelab.nut.plugins.modules import notify_service
from ansible_collections.homelab.nut.tests.unit.support.hotplug_host import run_module
from ansible_collections.homelab.nut.tests.unit.support.kit_host import NONE, OWNERS, RUNS

SECRET = '{"url": "ntfy://s3cr3t-token"}\n'
FILES = {**{name: f"text of {name}\n" for name in kits.NOTIFY.places}, "notify.json": SECRET}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    for folder in ("etc/nut", "etc/systemd/system", "etc/logrotate.d", "run"):
        (tmp_path / folder).mkdir(parents=True)
    unit = dict(NONE)

    def run_command(command: list[str]) -> tuple[int, str]:
        return 0, "".join(f"{key}={value}\n" for key, value in unit.items()) if command[1] == "show" else ""

    monkeypatch.setattr(_host, "ROOT", tmp_path)
    monkeypatch.setattr(_service, "OWNERS", OWNERS)
    monkeypatch.setattr(_service, "make_runner", lambda _module: run_command)

    def run_it(**options: Any) -> dict[str, Any]:
        return run_module(notify_service, capfd, **options)

    run_it.unit = unit  # type: ignore[attr-defined]
    return run_it


def test_installed_once_with_the_targets_for_root_alone(run: Any, tmp_path: Path) -> None:
    assert run(files=FILES, _ansible_check_mode=True)["changed"] is True
    assert not (tmp_path / paths.NOTIFY_POLICY).exists()
    done = run(files=FILES)
    assert done["actions"] == [
        "systemctl daemon-reload: the units of nut-notify changed",
        "systemctl enable nut-notify.service: not enabled at boot",
        "systemctl start nut-notify.service: not running",
    ]
    assert set(done) - {"changed", "diff"} == set(yaml.safe_load(notify_service.RETURN))
    path = tmp_path / paths.NOTIFY_POLICY
    assert (path.read_text(), path.stat().st_mode & 0o777) == (SECRET, 0o600)
    run.unit.update(RUNS)
    assert run(files=FILES)["changed"] is False
    assert run(files=FILES, renewed=True)["actions"] == ["systemctl restart nut-notify.service: nut-notify changed"]


def test_new_targets_restart_the_service_and_no_diff_shows_them(run: Any) -> None:
    run(files=FILES)
    run.unit.update(RUNS)
    done = run(files={**FILES, "notify.json": SECRET.replace("ntfy", "gotify")}, _ansible_diff=True)
    assert done["actions"] == ["systemctl restart nut-notify.service: notify.json changed"]
    assert "notify.json: only a secret or a comment changes" in done["diff"][0]["prepared"]
    assert "s3cr3t" not in str(done)


def test_removed_with_the_messages_that_wait(run: Any, tmp_path: Path) -> None:
    run(files=FILES)
    waiting = tmp_path / paths.NOTIFY_INBOX
    waiting.mkdir(parents=True)
    run.unit.update(RUNS)
    done = run(state="absent")
    assert "systemctl disable --now nut-notify.service: removing nut-notify from this host" in done["actions"]
    assert not (tmp_path / paths.NOTIFY_POLICY).exists()
    assert not (tmp_path / paths.NOTIFY_FOLDER).exists()
    run.unit.update(NONE)
    assert run(state="absent")["changed"] is False
