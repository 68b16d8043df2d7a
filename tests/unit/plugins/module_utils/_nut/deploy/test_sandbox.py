# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd as base_systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits, sandbox
from ansible_collections.homelab.nut.tests.unit.support.kit_host import (
    PENDING,
    RUNS,
    SANDBOX,
    SANDBOXED,
    KitSystemd,
    gate_on,
    install_sandboxed,
)


class RefusingReload(KitSystemd):
    """A systemd that can't reload units."""

    def __init__(self, other: KitSystemd) -> None:
        self.__dict__ = other.__dict__

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        return (1, "no.") if command == ("systemctl", "daemon-reload") else super().__call__(command)


def test_sandbox_is_tried_before_installation(tmp_path: Path) -> None:
    systemd = KitSystemd()
    installation, _plan = install_sandboxed(tmp_path, systemd)
    assert [list(command[4:]) for command in systemd.tried] == [
        [
            "--pipe",
            "--property=ProtectSystem=strict",
            "--property=SystemCallFilter=~@mount",
            "--property=NoNewPrivileges=yes",
            "--",
            "/bin/true",
        ]
    ] * len(kits.SANDBOXES)
    assert not installation.list_warnings()
    for unit in ("nut-driver@", "nut-server", "nut-monitor", "nut-watch"):
        path = tmp_path / f"etc/systemd/system/{unit}.service.d/homelab-nut-hardening.conf"
        assert path.read_text() == SANDBOX
    # nothing is tried again, and check mode starts nothing
    systemd.tried.clear()
    assert not gate_on(tmp_path, systemd, SANDBOXED).plan_install()
    checked = gate_on(tmp_path, systemd, {**SANDBOXED, "nut-server-hardening.conf": "[Service]\nPrivateTmp=yes\n"})
    checked.try_sandboxes = False
    assert checked.plan_install().written_files == ("nut-server-hardening.conf",)
    assert systemd.tried == []


@pytest.mark.parametrize("code", sorted(base_systemd.SANDBOX_CODES))
def test_unsupported_sandbox_is_left_out(tmp_path: Path, code: int) -> None:
    wanted = {**SANDBOXED, "nut-monitor-hardening.conf": "[Service]\nNoNewPrivileges=yes\n"}
    install_sandboxed(
        tmp_path, KitSystemd(), {**wanted, "nut-server-hardening.conf": "[Service]\nNoNewPrivileges=no\n"}
    )
    systemd = KitSystemd(stages=RUNS)
    systemd.sandbox["--property=ProtectSystem=strict"] = code
    installation, plan = install_sandboxed(tmp_path, systemd, wanted)
    (warning,) = installation.list_warnings()
    for word in ("nut-server.service", "homelab-nut-hardening.conf", base_systemd.SANDBOX_CODES[code]):
        assert word in warning
    assert "nut_server_hardening=false" in warning
    # the old sandbox must not stay either
    assert not (tmp_path / "etc/systemd/system/nut-server.service.d/homelab-nut-hardening.conf").exists()
    assert (tmp_path / "etc/systemd/system/nut-monitor.service.d/homelab-nut-hardening.conf").exists()
    # the next run has nothing to do and warns again
    installation, plan = install_sandboxed(tmp_path, systemd, wanted)
    assert not plan
    assert len(installation.list_warnings()) == 1


def test_check_mode_uses_recorded_refusals(tmp_path: Path) -> None:
    record = tmp_path / sandbox.REFUSED
    systemd = KitSystemd()
    systemd.sandbox["--property=ProtectSystem=strict"] = 226
    wanted = {**SANDBOXED, **dict.fromkeys(list(kits.SANDBOXES)[1:], "[Service]\nNoNewPrivileges=yes\n")}
    record.parent.mkdir(parents=True)
    record.write_text('{"nut-hotplug-hardening.conf": "another kit\'s"}')
    installation, plan = install_sandboxed(tmp_path, systemd, wanted)
    assert f"/{sandbox.REFUSED}: nut-driver-hardening.conf, nut-hotplug-hardening.conf\n" in plan.render_diff()
    known = sandbox.read_refused(tmp_path)
    assert list(known) == ["nut-hotplug-hardening.conf", "nut-driver-hardening.conf"]
    assert "226/NAMESPACE" in known["nut-driver-hardening.conf"]
    assert record.stat().st_mode & 0o777 == 0o600
    systemd.tried.clear()
    checked = gate_on(tmp_path, systemd, wanted)
    checked.try_sandboxes = False
    assert not checked.plan_install()
    assert checked.list_warnings() == installation.list_warnings()
    assert systemd.tried == []
    # the host can apply it now
    systemd.sandbox.clear()
    installation, plan = install_sandboxed(tmp_path, systemd, wanted)
    assert plan.written_files == ("nut-driver-hardening.conf",)
    assert sandbox.read_refused(tmp_path) == {"nut-hotplug-hardening.conf": "another kit's"}


def test_record_is_removed_with_last_refusal(tmp_path: Path) -> None:
    systemd = KitSystemd()
    systemd.sandbox["--property=ProtectSystem=strict"] = 226
    install_sandboxed(tmp_path, systemd)
    assert len(sandbox.read_refused(tmp_path)) == len(kits.SANDBOXES)
    gone = gate_on(tmp_path, systemd, None)
    gone.apply_plan(gone.plan_install())
    assert not (tmp_path / sandbox.REFUSED).exists()


@pytest.mark.parametrize("damaged", ["{", "[1]", '{"nut-driver-hardening.conf": 1}'])
def test_damaged_record_of_refusals_is_empty(tmp_path: Path, damaged: str) -> None:
    (tmp_path / sandbox.REFUSED).parent.mkdir(parents=True)
    (tmp_path / sandbox.REFUSED).write_text(damaged)
    assert sandbox.read_refused(tmp_path) == {}


def test_restarts_done_with_old_units_are_noted_again(tmp_path: Path) -> None:
    """The run failed before daemon-reload, and nut-hotplug did the noted restarts with the old units."""
    systemd = KitSystemd()
    systemd.running = ("nut-driver@ups.service", "nut-server.service")
    with pytest.raises(base_systemd.UnitError):
        install_sandboxed(tmp_path, RefusingReload(systemd))
    (tmp_path / PENDING).unlink()
    _installation, plan = install_sandboxed(tmp_path, systemd)
    assert plan.written_files == ()
    noted = json.loads((tmp_path / PENDING).read_text())
    assert [action["unit"] for action in noted] == ["nut-driver@ups.service", "nut-server.service"]
    (tmp_path / PENDING).unlink()
    _installation, plan = install_sandboxed(tmp_path, systemd)
    assert not plan
    assert not (tmp_path / PENDING).exists()


@pytest.mark.parametrize(
    ("command", "warned"),
    [
        ("ExecStartPre=/usr/local/sbin/reset-usb", True),
        ("ExecStartPre=-@/usr/local/sbin/reset-usb reset", True),
        ("ExecStartPost = /bin/true", True),
        ("ExecStartPre=+/usr/local/sbin/reset-usb", False),
        ("ExecStartPre=-+/usr/local/sbin/reset-usb", False),
        ("ExecStartPost=!/bin/true", False),
        ("ExecStartPre=", False),
        ("# ExecStartPre=/bin/true", False),
        ("Environment=ExecStartPre=/bin/true", False),
    ],
)
def test_drop_in_commands_that_lose_root_cause_warning(tmp_path: Path, command: str, warned: bool) -> None:
    folder = "/etc/systemd/system/nut-driver@.service.d"
    own, gone = f"{folder}/own.conf", f"{folder}/gone.conf"
    ours = f"/{kits.SHUTDOWN.places['nut-driver-hardening.conf'].path}"
    as_nut = {**SANDBOXED, "nut-driver-hardening.conf": f"[Service]\nUser=nut\n{command}\n"}
    systemd = KitSystemd()
    systemd.drop_ins = {"nut-driver@ups.service": f"{ours} {own} {gone}", "nut-server.service": own}
    (tmp_path / folder[1:]).mkdir(parents=True)
    (tmp_path / own[1:]).write_text(f"[Service]\n{command}\n")
    installation, _plan = install_sandboxed(tmp_path, systemd, as_nut)
    assert [word.partition(":")[0] for word in installation.list_warnings()] == ([own] if warned else [])
    # no sandbox here removes root's rights from upsd
    del systemd.drop_ins["nut-driver@ups.service"]
    assert not installation.list_warnings()
    systemd.drop_ins["nut-driver@ups.service"] = own
    installation, _plan = install_sandboxed(tmp_path, systemd)
    assert not installation.list_warnings()


@pytest.mark.parametrize("code", [1, 124, 127])
def test_unrelated_failure_does_not_refuse_sandbox(tmp_path: Path, code: int) -> None:
    systemd = KitSystemd()
    systemd.sandbox["--property=ProtectSystem=strict"] = code
    installation, _plan = install_sandboxed(tmp_path, systemd)
    assert not installation.list_warnings()
    assert (tmp_path / "etc/systemd/system/nut-server.service.d/homelab-nut-hardening.conf").exists()


def test_running_daemons_are_left_to_module_config(tmp_path: Path) -> None:
    systemd = KitSystemd()
    systemd.running = ("nut-driver@ups.service", "nut-server.service")
    _installation, plan = install_sandboxed(tmp_path, systemd)
    restarts = [
        {"verb": "restart", "unit": "nut-driver@ups.service", "reason": "its sandbox changed"},
        {"verb": "restart", "unit": "nut-server.service", "reason": "its sandbox changed"},
    ]
    assert [str(action) for action in plan.later] == [
        f"restart {action['unit']}: its sandbox changed" for action in restarts
    ]
    assert json.loads((tmp_path / PENDING).read_text()) == restarts
    assert not [command for command in systemd.told if "nut-server" in command or "driver" in command]
    # existing actions are kept, without duplicates
    other = {"verb": "reload", "unit": "nut-server.service", "reason": "x"}
    (tmp_path / PENDING).write_text(json.dumps([other, restarts[1]]))
    install_sandboxed(tmp_path, systemd, {**SANDBOXED, **dict.fromkeys(kits.SANDBOXES, "")})
    assert json.loads((tmp_path / PENDING).read_text()) == [other, restarts[1], restarts[0]]


@pytest.mark.parametrize("text", [SANDBOX + "# one more\n", SANDBOX])
def test_comment_or_mode_restarts_nothing(tmp_path: Path, text: str) -> None:
    systemd = KitSystemd()
    install_sandboxed(tmp_path, systemd)
    systemd.running = ("nut-driver@ups.service", "nut-server.service", "nut-monitor.service")
    path = tmp_path / "etc/systemd/system/nut-server.service.d/homelab-nut-hardening.conf"
    path.chmod(0o600)
    _installation, plan = install_sandboxed(tmp_path, systemd, {**SANDBOXED, "nut-server-hardening.conf": text})
    assert plan.written_files == ("nut-server-hardening.conf",)
    assert not plan.later
    assert not (tmp_path / PENDING).exists()


def test_unreadable_pending_note_stays(tmp_path: Path) -> None:
    """An unreadable note makes the module config restart all daemons."""
    (tmp_path / "run").mkdir()
    (tmp_path / PENDING).write_text("{")
    systemd = KitSystemd()
    systemd.running = ("nut-server.service",)
    install_sandboxed(tmp_path, systemd)
    assert (tmp_path / PENDING).read_text() == "{"
