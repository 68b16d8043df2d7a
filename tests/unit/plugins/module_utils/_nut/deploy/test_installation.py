# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd as base_systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.installation import (
    Installation,
    InstallError,
)
from ansible_collections.homelab.nut.tests.unit.support.kit_host import (
    FILES,
    LOG,
    ME,
    NO_STAGES,
    NONE,
    OWNERS,
    RULES,
    RUNS,
    SHUTDOWN,
    KitMachine,
    KitSystemd,
    gate_on,
)


@pytest.fixture
def machine(tmp_path: Path) -> KitMachine:
    return KitMachine(tmp_path)


def test_first_installation_writes_all_and_starts_timer(machine: KitMachine) -> None:
    plan = machine.install_kit()
    assert plan.written_files == tuple(kits.HOTPLUG.places)
    assert machine.told == [
        "systemctl daemon-reload",
        "udevadm control --reload",
        "systemctl enable nut-hotplug.timer",
        "systemctl start nut-hotplug.timer",
    ]
    for name, place in kits.HOTPLUG.places.items():
        path = machine.root / place.path
        assert path.read_text() == FILES[name]
        assert path.stat().st_mode & 0o777 == (0o640 if name == "hotplug.json" else 0o644)


def test_second_installation_changes_nothing(machine: KitMachine) -> None:
    machine.install_kit()
    machine.told.clear()
    plan = machine.install_kit()
    assert not plan
    assert machine.told == []


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hotplug.json", []),
        ("nut-hotplug.service", ["systemctl daemon-reload"]),
        ("nut-hotplug.timer", ["systemctl daemon-reload", "systemctl restart nut-hotplug.timer"]),
        ("nut-hotplug-hardening.conf", ["systemctl daemon-reload"]),
        (RULES, ["udevadm control --reload"]),
        ("logrotate", []),
    ],
)
def test_changed_file_is_replaced(machine: KitMachine, name: str, told: list[str]) -> None:
    machine.install_kit()
    machine.told.clear()
    plan = machine.install_kit({**FILES, name: "new\n"})
    assert plan.written_files == (name,)
    assert machine.told == told
    assert (machine.root / kits.HOTPLUG.places[name].path).read_text() == "new\n"


@pytest.mark.parametrize("step", ["systemctl daemon-reload", "systemctl restart nut-hotplug.timer"])
def test_killed_installation_is_completed_by_next(machine: KitMachine, step: str) -> None:
    """The files are new, and do not show that systemd and the daemons still use the old ones."""
    machine.install_kit()
    changed = {**FILES, "nut-hotplug.timer": "new\n"}
    machine.refuses = step
    with pytest.raises(base_systemd.UnitError):
        machine.install_kit(changed)
    machine.refuses = ""
    machine.told.clear()
    assert machine.install_kit(changed).written_files == ()
    assert machine.told == ["systemctl daemon-reload", "systemctl restart nut-hotplug.timer"]
    assert not machine.install_kit(changed)


@pytest.mark.parametrize("name", kits.HOTPLUG.places)
def test_wrong_mode_is_corrected(machine: KitMachine, name: str) -> None:
    machine.install_kit()
    (machine.root / kits.HOTPLUG.places[name].path).chmod(0o666)
    installation = Installation(FILES, machine.run_command, LOG, machine.root, OWNERS)
    plan = installation.plan_install()
    assert plan.written_files == (name,)
    assert f"/{kits.HOTPLUG.places[name].path}: mode or owner is corrected\n" in plan.render_diff()
    installation.apply_plan(plan)
    assert not machine.install_kit()


def test_wrong_owner_is_corrected(machine: KitMachine) -> None:
    machine.install_kit()
    other = {**OWNERS, "nut": (ME[0], ME[1] + 1)}
    assert Installation(FILES, machine.run_command, LOG, machine.root, other).plan_install().written_files == (
        "hotplug.json",
    )


def test_outdated_units_cause_daemon_reload(machine: KitMachine) -> None:
    """The units were written, but systemd was not reloaded."""
    machine.install_kit()
    for which in ("timer", "service"):
        machine.told.clear()
        getattr(machine, which)["NeedDaemonReload"] = "yes"
        assert machine.install_kit().written_files == ()
        assert machine.told == ["systemctl daemon-reload"]


def test_stopped_timer_is_started(machine: KitMachine) -> None:
    machine.install_kit()
    machine.timer.update(ActiveState="inactive", UnitFileState="disabled")
    machine.told.clear()
    machine.install_kit()
    assert machine.told == ["systemctl enable nut-hotplug.timer", "systemctl start nut-hotplug.timer"]


def test_host_without_udevd_reloads_no_rules(machine: KitMachine) -> None:
    (machine.root / "run/udev/control").unlink()
    machine.install_kit()
    assert "udevadm control --reload" not in machine.told


def test_directory_of_log_is_created(machine: KitMachine) -> None:
    (machine.root / "var/log/nut").rmdir()
    assert machine.install_kit().folder == machine.root / "var/log/nut"
    assert (machine.root / "var/log/nut").stat().st_mode & 0o777 == 0o755
    assert machine.install_kit().folder is None
    assert Installation(FILES, machine.run_command, None, machine.root, OWNERS).plan_install().folder is None


def test_diff_shows_files_and_actions(machine: KitMachine) -> None:
    machine.install_kit()
    installation = Installation(
        {**FILES, "nut-hotplug.timer": "ne\udcffw\n"}, machine.run_command, LOG, machine.root, OWNERS
    )
    shown = installation.plan_install().render_diff()
    path = "/etc/systemd/system/nut-hotplug.timer"
    shown = shown.replace(str(machine.root), "")
    assert shown.startswith(f"--- {path}\n+++ {path}\n@@ -1 +1 @@\n-text of nut-hotplug.timer\n+ne\\udcffw\n")
    assert shown.endswith("systemctl restart nut-hotplug.timer: nut-hotplug.timer changed\n")


def test_wrong_set_of_files_is_refused(machine: KitMachine) -> None:
    with pytest.raises(InstallError, match=r"files must be hotplug\.json, .*, not none"):
        Installation({}, machine.run_command)
    with pytest.raises(InstallError, match="not x"):
        Installation({"x": ""}, machine.run_command)


def test_failed_systemctl_is_raised(machine: KitMachine) -> None:
    machine.refuses = "systemctl daemon-reload"
    with pytest.raises(base_systemd.UnitError, match=r"^systemctl daemon-reload failed: no\.$"):
        machine.install_kit()
    machine.refuses = "show"
    with pytest.raises(base_systemd.UnitError, match="no bus"):
        machine.install_kit()


@pytest.mark.parametrize("which", ["timer", "service"])
def test_masked_unit_is_refused(machine: KitMachine, which: str) -> None:
    getattr(machine, which)["LoadState"] = "masked"
    with pytest.raises(
        base_systemd.UnitError, match=f"nut-hotplug.{which} is masked. Unmask it: systemctl unmask nut-hotplug.{which}$"
    ):
        machine.install_kit()
    machine.remove_kit()  # must not prevent the removal


def test_removal_stops_units_and_removes_files(machine: KitMachine) -> None:
    machine.install_kit()
    for path in ("usr/local/sbin/nut-hotplug", "run/nut-hotplug.quiet"):
        (machine.root / path).touch()
    (machine.root / "var/lib/nut-hotplug").mkdir()
    (machine.root / "var/lib/nut-hotplug/state.json").touch()
    (machine.root / "var/log/nut/hotplug.log").touch()
    machine.told.clear()
    machine.service["ActiveState"] = "activating"
    plan = machine.remove_kit()
    assert machine.told == [
        "systemctl disable --now nut-hotplug.timer",
        "systemctl stop nut-hotplug.service",
        "systemctl daemon-reload",
        "udevadm control --reload",
    ]
    left = {str(path.relative_to(machine.root)) for path in machine.root.rglob("*") if path.is_file()}
    assert left == {"etc/nut/nut.conf", "etc/nut/ups.conf", "run/udev/control", "var/log/nut/hotplug.log"}
    assert not (machine.root / "var/lib/nut-hotplug").exists()
    # units that start the program are removed before it
    names = ["program" if path == machine.root / paths.HOTPLUG_PROGRAM else path.name for path in plan.removed_paths]
    assert (
        names.index(RULES) < names.index("nut-hotplug.service") < names.index("hotplug.json") < names.index("program")
    )
    machine.timer = machine.service = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
    machine.told.clear()
    assert not machine.remove_kit()
    assert machine.told == []


def test_removal_resets_failed_service(machine: KitMachine) -> None:
    machine.service["ActiveState"] = "failed"
    machine.remove_kit()
    assert machine.told == ["systemctl reset-failed nut-hotplug.service"]


def test_service_without_timer_is_not_started(tmp_path: Path) -> None:
    systemd = KitSystemd()
    installation = gate_on(tmp_path, systemd, NO_STAGES)
    plan = installation.plan_install()
    assert plan.written_files == tuple(name for name in kits.SHUTDOWN.places if name != "nut-stages.service")
    installation.apply_plan(plan)
    assert systemd.told == ["systemctl daemon-reload", "systemctl restart nut-watch.service"]
    assert (tmp_path / "var/log/nut").is_dir()
    assert (tmp_path / "etc/systemd/system/nut-monitor.service.d/homelab-nut.conf").is_file()
    assert not (tmp_path / "etc/systemd/system/nut-stages.service").exists()
    assert not installation.plan_install()


def test_stages_service_is_enabled_and_started(tmp_path: Path) -> None:
    systemd = KitSystemd()
    installation = gate_on(tmp_path, systemd, SHUTDOWN)
    installation.apply_plan(installation.plan_install())
    assert systemd.told == [
        "systemctl daemon-reload",
        "systemctl enable nut-stages.service",
        "systemctl start nut-stages.service",
        "systemctl restart nut-watch.service",
    ]
    systemd.stages = dict(RUNS)
    assert not installation.plan_install()


@pytest.mark.parametrize(
    ("change", "renewed", "told"),
    [
        ("shutdown.json", False, ["systemctl restart nut-stages.service"]),
        ("nut-stages.service", False, ["systemctl daemon-reload", "systemctl restart nut-stages.service"]),
        ("nut-shutdown.service", False, ["systemctl daemon-reload"]),
        ("nut-monitor.conf", False, ["systemctl daemon-reload"]),
        ("logrotate", False, []),
        ("nut-watch.service", False, ["systemctl daemon-reload", "systemctl restart nut-watch.service"]),
        ("logrotate", True, ["systemctl restart nut-stages.service", "systemctl restart nut-watch.service"]),
        ("", True, ["systemctl restart nut-stages.service", "systemctl restart nut-watch.service"]),
        ("shutdown.json", True, ["systemctl restart nut-stages.service", "systemctl restart nut-watch.service"]),
    ],
)
def test_stages_restart_if_unit_program_or_policy_changed(
    tmp_path: Path, change: str, renewed: bool, told: list[str]
) -> None:
    first = gate_on(tmp_path, KitSystemd(), SHUTDOWN)
    first.apply_plan(first.plan_install())
    systemd = KitSystemd(stages=RUNS)
    wanted = {**SHUTDOWN, change: "new\n"} if change else SHUTDOWN
    installation = gate_on(tmp_path, systemd, wanted, renewed=renewed)
    installation.apply_plan(installation.plan_install())
    assert systemd.told == told


def test_watch_service_is_started_without_stages(tmp_path: Path) -> None:
    systemd = KitSystemd(watch=NONE)
    installation = gate_on(tmp_path, systemd, NO_STAGES)
    installation.apply_plan(installation.plan_install())
    assert systemd.told == [
        "systemctl daemon-reload",
        "systemctl enable nut-watch.service",
        "systemctl start nut-watch.service",
    ]


def test_stages_service_is_removed_without_stages(tmp_path: Path) -> None:
    first = gate_on(tmp_path, KitSystemd(), SHUTDOWN)
    first.apply_plan(first.plan_install())
    systemd = KitSystemd(stages=RUNS)
    installation = gate_on(tmp_path, systemd, NO_STAGES, renewed=True)
    plan = installation.plan_install()
    assert "/etc/systemd/system/nut-stages.service: removed\n" in plan.render_diff()
    installation.apply_plan(plan)
    assert systemd.told == [
        "systemctl disable --now nut-stages.service",
        "systemctl daemon-reload",
        "systemctl restart nut-watch.service",
    ]
    assert not (tmp_path / "etc/systemd/system/nut-stages.service").exists()
    systemd.stages = dict(NONE)
    assert not gate_on(tmp_path, systemd, NO_STAGES).plan_install()


def test_spare_flag_is_created_now_and_at_boot(tmp_path: Path) -> None:
    def with_spare(path: str) -> dict[str, str]:
        return {**NO_STAGES, "tmpfiles": f'# why\nf+ "{path}" 0644 root root - upsmon-shutdown-file\n'}

    def make(path: str) -> list[str]:
        systemd = KitSystemd()
        installation = gate_on(tmp_path, systemd, with_spare(path))
        installation.apply_plan(installation.plan_install())
        return [line for line in systemd.told if line.startswith("systemd-tmpfiles")]

    (tmp_path / "run").mkdir()
    told = ["systemd-tmpfiles --create /etc/tmpfiles.d/nut-shutdown.conf"]
    assert make("/run/a 100%% flag.spare") == told
    spare = tmp_path / "run/a 100% flag.spare"
    spare.write_text("upsmon-shutdown-file")
    assert make("/run/a 100%% flag.spare") == []
    # lost or damaged since
    spare.write_text("")
    assert make("/run/a 100%% flag.spare") == told
    spare.unlink()
    spare.symlink_to(tmp_path / "etc/nut/shutdown.json")
    assert make("/run/a 100%% flag.spare") == told
    # with another path, the old file is removed
    assert make("/run/flag.spare") == told
    assert not spare.is_symlink()
    (tmp_path / "run/flag.spare").write_text("upsmon-shutdown-file")
    gone = gate_on(tmp_path, KitSystemd(), None)
    gone.apply_plan(gone.plan_install())
    assert list((tmp_path / "run").iterdir()) == []


def test_empty_required_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"shutdown\.json is empty, but nut-shutdown needs it"):
        gate_on(tmp_path, KitSystemd(), {**SHUTDOWN, "shutdown.json": ""})


def test_removal_of_shutdown_kit_removes_all_traces(tmp_path: Path) -> None:
    gone = gate_on(tmp_path, KitSystemd(), SHUTDOWN)
    gone.apply_plan(gone.plan_install())
    (tmp_path / "usr/local/sbin").mkdir(parents=True)
    (tmp_path / kits.SHUTDOWN.program).touch()
    systemd = KitSystemd(stages=RUNS, LoadState="loaded", ActiveState="failed")
    installation = gate_on(tmp_path, systemd, None)
    plan = installation.plan_install()
    assert [str(path.relative_to(tmp_path)) for path in plan.removed_paths] == [
        "etc/tmpfiles.d/nut-shutdown.conf",
        "etc/logrotate.d/nut-shutdown",
        "etc/systemd/system/nut-watch.service.d/homelab-nut-hardening.conf",
        "etc/systemd/system/nut-monitor.service.d/homelab-nut-hardening.conf",
        "etc/systemd/system/nut-server.service.d/homelab-nut-hardening.conf",
        "etc/systemd/system/nut-driver@.service.d/homelab-nut-hardening.conf",
        "etc/systemd/system/pve-guests.service.d/homelab-nut.conf",
        "etc/systemd/system/nut-server.service.d/homelab-nut.conf",
        "etc/systemd/system/nut-monitor.service.d/homelab-nut.conf",
        "etc/systemd/system/nut-watch.service",
        "etc/systemd/system/nut-stages.service",
        "etc/systemd/system/nut-shutdown.service",
        "etc/nut/shutdown.json",
        "usr/local/sbin/nut-shutdown",
    ]
    installation.apply_plan(plan)
    assert systemd.told == [
        "systemctl disable --now nut-stages.service",
        "systemctl disable --now nut-watch.service",
        "systemctl reset-failed nut-shutdown.service",
        "systemctl daemon-reload",
    ]
    assert not (tmp_path / "etc/systemd/system/nut-monitor.service.d").exists()
    systemd.service["ActiveState"] = "inactive"
    systemd.stages, systemd.watch = dict(NONE), dict(NONE)
    assert not gate_on(tmp_path, systemd, None).plan_install()


def test_foreign_drop_in_stays(tmp_path: Path) -> None:
    gone = gate_on(tmp_path, KitSystemd(), SHUTDOWN)
    gone.apply_plan(gone.plan_install())
    theirs = tmp_path / "etc/systemd/system/nut-monitor.service.d/theirs.conf"
    theirs.touch()
    installation = gate_on(tmp_path, KitSystemd(), None)
    installation.apply_plan(installation.plan_install())
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs.conf"]


def test_masked_shutdown_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(base_systemd.UnitError, match=r"nut-shutdown\.service is masked"):
        gate_on(tmp_path, KitSystemd(LoadState="masked"), SHUTDOWN).plan_install()
    masked = KitSystemd(stages={"LoadState": "masked"})
    with pytest.raises(base_systemd.UnitError, match=r"nut-stages\.service is masked"):
        gate_on(tmp_path, masked, SHUTDOWN).plan_install()
    assert gate_on(tmp_path, masked, NO_STAGES).plan_install()


def test_files_of_another_kit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"files must be shutdown\.json, nut-shutdown\.service, nut-stages\.service"):
        gate_on(tmp_path, KitSystemd(), FILES)
