# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils import _host, _service
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits
from ansible_collections.homelab.nut.plugins.modules import shutdown_service
from ansible_collections.homelab.nut.tests.unit.support.hotplug_host import run_module
from ansible_collections.homelab.nut.tests.unit.support.kit_host import (
    NONE,
    OWNERS,
    RUNS,
    SHUTDOWN,
    KitSystemd,
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    for folder in ("etc/nut", "etc/systemd/system", "etc/logrotate.d", "run"):
        (tmp_path / folder).mkdir(parents=True)
    systemd = KitSystemd()
    monkeypatch.setattr(_host, "ROOT", tmp_path)
    monkeypatch.setattr(_service, "OWNERS", OWNERS)
    monkeypatch.setattr(_service, "make_runner", lambda _module: systemd)

    def run_it(**options: Any) -> dict[str, Any]:
        return run_module(shutdown_service, capfd, **options)

    run_it.systemd = systemd  # type: ignore[attr-defined]
    return run_it


def test_put_in_place_once(run: Any, tmp_path: Path) -> None:
    checked = run(files=SHUTDOWN, _ansible_check_mode=True)
    assert checked["changed"] is True
    assert not (tmp_path / "etc/nut/shutdown.json").exists()
    done = run(files=SHUTDOWN)
    assert done["changed"] is True
    assert done["actions"] == [
        "systemctl daemon-reload: the units of nut-shutdown changed",
        "systemctl enable nut-stages.service: not enabled at boot",
        "systemctl start nut-stages.service: not running",
        "systemctl restart nut-watch.service: nut-watch.service changed",
    ]
    assert set(done) - {"changed", "diff"} == set(yaml.safe_load(shutdown_service.RETURN))
    assert (tmp_path / "etc/nut/shutdown.json").read_text() == SHUTDOWN["shutdown.json"]
    run.systemd.stages = dict(RUNS)
    assert run(files=SHUTDOWN)["changed"] is False
    assert run(files=SHUTDOWN, renewed=True)["actions"] == [
        "systemctl restart nut-stages.service: nut-shutdown changed",
        "systemctl restart nut-watch.service: nut-shutdown changed",
    ]
    assert run(state="absent")["changed"] is True
    run.systemd.stages, run.systemd.watch = dict(NONE), dict(NONE)
    assert run(state="absent")["changed"] is False


def test_a_host_without_nut(run: Any, tmp_path: Path) -> None:
    (tmp_path / "etc/nut").rmdir()
    failed = run(files=SHUTDOWN)
    assert failed["failed"] is True
    assert "NUT is not installed on this host" in failed["msg"]
    checked = run(files=SHUTDOWN, _ansible_check_mode=True)
    assert checked["changed"] is True
    assert "warnings" not in checked, "the run being tried would install NUT first"


def test_a_secondary_gets_the_drop_in_of_upsmon_only(run: Any, tmp_path: Path) -> None:
    drop_in = tmp_path / "etc/systemd/system/nut-monitor.service.d/homelab-nut.conf"
    wanted = {"nut-monitor.conf": SHUTDOWN["nut-monitor.conf"]}
    done = run(role="secondary", files=wanted)
    assert (done["files"], done["actions"]) == (
        ["nut-monitor.conf"],
        ["systemctl daemon-reload: the units of nut-monitor changed"],
    )
    assert drop_in.read_text() == SHUTDOWN["nut-monitor.conf"]
    assert run(role="secondary", files=wanted)["changed"] is False
    assert kits.find_installed(tmp_path) == [], "it is no trace of a primary"
    assert run(role="secondary", state="absent")["changed"] is True
    assert not drop_in.exists()
    assert run(role="secondary", state="absent")["changed"] is False
    assert "files must be nut-monitor.conf" in run(role="secondary", files=SHUTDOWN)["msg"]
