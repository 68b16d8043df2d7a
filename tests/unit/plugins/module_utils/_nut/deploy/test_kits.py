# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd as base_systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits, sandbox
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.installation import (
    Installation,
    InstallError,
    Plan,
)

ME = (os.getuid(), os.getgid())
OWNERS = {"root": ME, "nut": ME}
FILES = {name: f"text of {name}\n" for name in kits.PLACES}
RULES = "63-nut-hotplug.rules"
LOG = Path("/var/log/nut/hotplug.log")


class Machine:
    """A host with NUT, as far as an installation can see: a folder, and systemd."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for place in kits.PLACES.values():
            (root / place.path).parent.mkdir(parents=True, exist_ok=True)
        for folder in ("run/udev", "usr/local/sbin", "var/lib", "var/log/nut"):
            (root / folder).mkdir(parents=True)
        (root / "run/udev/control").touch()
        (root / "etc/nut/nut.conf").write_text("# ours\nMODE=netserver\n")
        (root / "etc/nut/ups.conf").touch()
        self.told: list[str] = []
        self.timer = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
        self.service = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
        self.refuses = ""
        self.sandbox = 0  # what a unit ends with that tries one

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "systemd-run":
            return self.sandbox, ""
        if command[:2] == ["systemctl", "show"]:
            assert list(command[-2:]) == ["nut-hotplug.timer", "nut-hotplug.service"]
            blocks = ["".join(f"{key}={value}\n" for key, value in one.items()) for one in (self.timer, self.service)]
            return (1, "no bus") if self.refuses == "show" else (0, "\n".join(blocks))
        self.told.append(" ".join(command))
        return (1, "no.\n") if self.refuses == self.told[-1] else (0, "")

    def install(self, wanted: Mapping[str, str] | None = None) -> Plan:
        installation = Installation(FILES if wanted is None else wanted, self.run, LOG, self.root, OWNERS)
        plan = installation.plan()
        installation.apply(plan)
        self.timer = {
            "LoadState": "loaded",
            "ActiveState": "active",
            "UnitFileState": "enabled",
            "NeedDaemonReload": "no",
        }
        self.service = {"LoadState": "loaded", "ActiveState": "inactive", "NeedDaemonReload": "no"}
        return plan

    def remove(self) -> Plan:
        installation = Installation(None, self.run, LOG, self.root, OWNERS)
        plan = installation.plan()
        installation.apply(plan)
        return plan


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_first_time(machine: Machine) -> None:
    plan = machine.install()
    assert plan.changed == tuple(kits.PLACES)
    assert machine.told == [
        "systemctl daemon-reload",
        "udevadm control --reload",
        "systemctl enable nut-hotplug.timer",
        "systemctl start nut-hotplug.timer",
    ]
    for name, place in kits.PLACES.items():
        path = machine.root / place.path
        assert path.read_text() == FILES[name]
        assert path.stat().st_mode & 0o777 == (0o640 if name == "hotplug.json" else 0o644)


def test_the_second_time(machine: Machine) -> None:
    machine.install()
    machine.told.clear()
    plan = machine.install()
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
def test_a_change(machine: Machine, name: str, told: list[str]) -> None:
    machine.install()
    machine.told.clear()
    plan = machine.install({**FILES, name: "new\n"})
    assert plan.changed == (name,)
    assert machine.told == told
    assert (machine.root / kits.PLACES[name].path).read_text() == "new\n"


@pytest.mark.parametrize("step", ["systemctl daemon-reload", "systemctl restart nut-hotplug.timer"])
def test_a_run_that_was_cut_short_is_finished_by_the_next(machine: Machine, step: str) -> None:
    """The files are new, and nothing in them tells that systemd, or what runs, has the old ones."""
    machine.install()
    changed = {**FILES, "nut-hotplug.timer": "new\n"}
    machine.refuses = step
    with pytest.raises(base_systemd.UnitError):
        machine.install(changed)
    machine.refuses = ""
    machine.told.clear()
    assert machine.install(changed).changed == ()
    assert machine.told == ["systemctl daemon-reload", "systemctl restart nut-hotplug.timer"]
    assert not machine.install(changed)


@pytest.mark.parametrize("name", kits.PLACES)
def test_a_mode_is_mended(machine: Machine, name: str) -> None:
    machine.install()
    (machine.root / kits.PLACES[name].path).chmod(0o666)
    installation = Installation(FILES, machine.run, LOG, machine.root, OWNERS)
    plan = installation.plan()
    assert plan.changed == (name,)
    assert f"/{kits.PLACES[name].path}: mode or owner is mended\n" in plan.diff()
    installation.apply(plan)
    assert not machine.install()


def test_another_owner(machine: Machine) -> None:
    machine.install()
    other = {**OWNERS, "nut": (ME[0], ME[1] + 1)}
    assert Installation(FILES, machine.run, LOG, machine.root, other).plan().changed == ("hotplug.json",)


def test_a_run_that_was_cut_short(machine: Machine) -> None:
    """The units were written, and systemd was not told."""
    machine.install()
    for which in ("timer", "service"):
        machine.told.clear()
        getattr(machine, which)["NeedDaemonReload"] = "yes"
        assert machine.install().changed == ()
        assert machine.told == ["systemctl daemon-reload"]


def test_a_timer_that_was_stopped(machine: Machine) -> None:
    machine.install()
    machine.timer.update(ActiveState="inactive", UnitFileState="disabled")
    machine.told.clear()
    machine.install()
    assert machine.told == ["systemctl enable nut-hotplug.timer", "systemctl start nut-hotplug.timer"]


def test_a_host_without_udevd(machine: Machine) -> None:
    (machine.root / "run/udev/control").unlink()
    machine.install()
    assert "udevadm control --reload" not in machine.told


def test_the_log_s_directory(machine: Machine) -> None:
    (machine.root / "var/log/nut").rmdir()
    assert machine.install().folder == machine.root / "var/log/nut"
    assert (machine.root / "var/log/nut").stat().st_mode & 0o777 == 0o755
    assert machine.install().folder is None
    assert Installation(FILES, machine.run, None, machine.root, OWNERS).plan().folder is None


def test_the_diff(machine: Machine) -> None:
    machine.install()
    installation = Installation({**FILES, "nut-hotplug.timer": "ne\udcffw\n"}, machine.run, LOG, machine.root, OWNERS)
    shown = installation.plan().diff()
    path = "/etc/systemd/system/nut-hotplug.timer"
    shown = shown.replace(str(machine.root), "")
    assert shown.startswith(f"--- {path}\n+++ {path}\n@@ -1 +1 @@\n-text of nut-hotplug.timer\n+ne\\udcffw\n")
    assert shown.endswith("systemctl restart nut-hotplug.timer: nut-hotplug.timer changed\n")


def test_other_files(machine: Machine) -> None:
    with pytest.raises(InstallError, match=r"files must be hotplug\.json, .*, not none"):
        Installation({}, machine.run)
    with pytest.raises(InstallError, match="not x"):
        Installation({"x": ""}, machine.run)


def test_systemd_refuses(machine: Machine) -> None:
    machine.refuses = "systemctl daemon-reload"
    with pytest.raises(base_systemd.UnitError, match=r"^systemctl daemon-reload failed: no\.$"):
        machine.install()
    machine.refuses = "show"
    with pytest.raises(base_systemd.UnitError, match="no bus"):
        machine.install()


@pytest.mark.parametrize("which", ["timer", "service"])
def test_a_masked_unit(machine: Machine, which: str) -> None:
    getattr(machine, which)["LoadState"] = "masked"
    with pytest.raises(
        base_systemd.UnitError, match=f"nut-hotplug.{which} is masked. Unmask it: systemctl unmask nut-hotplug.{which}$"
    ):
        machine.install()
    machine.remove()  # is no reason not to go


def test_away(machine: Machine) -> None:
    machine.install()
    for path in ("usr/local/sbin/nut-hotplug", "run/nut-hotplug.quiet"):
        (machine.root / path).touch()
    (machine.root / "var/lib/nut-hotplug").mkdir()
    (machine.root / "var/lib/nut-hotplug/state.json").touch()
    (machine.root / "var/log/nut/hotplug.log").touch()
    machine.told.clear()
    machine.service["ActiveState"] = "activating"
    plan = machine.remove()
    assert machine.told == [
        "systemctl disable --now nut-hotplug.timer",
        "systemctl stop nut-hotplug.service",
        "systemctl daemon-reload",
        "udevadm control --reload",
    ]
    left = {str(path.relative_to(machine.root)) for path in machine.root.rglob("*") if path.is_file()}
    assert left == {"etc/nut/nut.conf", "etc/nut/ups.conf", "run/udev/control", "var/log/nut/hotplug.log"}
    assert not (machine.root / "var/lib/nut-hotplug").exists()
    # what starts the program goes before the program
    names = ["program" if path == machine.root / paths.HOTPLUG_PROGRAM else path.name for path in plan.gone]
    assert (
        names.index(RULES) < names.index("nut-hotplug.service") < names.index("hotplug.json") < names.index("program")
    )
    machine.timer = machine.service = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
    machine.told.clear()
    assert not machine.remove()
    assert machine.told == []


def test_a_failed_service_is_forgotten(machine: Machine) -> None:
    machine.service["ActiveState"] = "failed"
    machine.remove()
    assert machine.told == ["systemctl reset-failed nut-hotplug.service"]


# A kit of which one unit is started by upsmon, one runs all the time, and another one, too, if there is something for it to do


SHUTDOWN = {name: f"text of {name}\n" for name in kits.SHUTDOWN.places}
NO_STAGES = {**SHUTDOWN, "nut-stages.service": ""}
NONE = {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""}
RUNS = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}


class Systemd:
    """systemd, as far as these services can see, and how it starts units in their sandboxes. The watch of upsd runs, unless told."""

    def __init__(
        self, stages: Mapping[str, str] | None = None, watch: Mapping[str, str] | None = None, **service: str
    ) -> None:
        self.service = {**NONE, **service}
        self.stages = {**NONE, **(stages or {})}
        self.watch = dict(RUNS if watch is None else watch)
        self.running: tuple[str, ...] = ()
        self.sandbox: dict[str, int] = {}  # a line of a sandbox -> what a unit with it ends with
        self.tried: list[Sequence[str]] = []
        self.drop_ins: dict[str, str] = {}  # unit -> the paths of its drop-ins
        self.told: list[str] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "systemd-run":
            self.tried.append(command)
            return max((self.sandbox.get(word, 0) for word in command), default=0), ""
        if command[:2] == ["systemctl", "show"]:
            names = command[command.index("--") + 1 :]
            if "--property=DropInPaths" in command:
                return 0, "\n\n".join(f"DropInPaths={self.drop_ins.get(name, '')}" for name in names)
            if names != ["nut-stages.service", "nut-watch.service", "nut-shutdown.service"]:
                return 0, "\n\n".join(f"ActiveState={'in' * (name not in self.running)}active" for name in names)
            blocks = (self.stages, self.watch, self.service)
            return 0, "\n".join("".join(f"{key}={value}\n" for key, value in one.items()) for one in blocks)
        self.told.append(" ".join(command))
        return 0, ""


class RefusingReload(Systemd):
    """One that can't read units anew."""

    def __init__(self, other: Systemd) -> None:
        self.__dict__ = other.__dict__

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        return (1, "no.") if command == ("systemctl", "daemon-reload") else super().__call__(command)


def gate_on(root: Path, systemd: Systemd, wanted: Mapping[str, str] | None, *, renewed: bool = False) -> Installation:
    for place in kits.SHUTDOWN.places.values():
        if ".d/homelab-nut" not in place.path:
            (root / place.path).parent.mkdir(parents=True, exist_ok=True)
    log = Path("/var/log/nut/shutdown.log")
    return Installation(wanted, systemd, log, root, OWNERS, kits.SHUTDOWN, renewed)


def test_a_service_that_nothing_starts(tmp_path: Path) -> None:
    systemd = Systemd()
    installation = gate_on(tmp_path, systemd, NO_STAGES)
    plan = installation.plan()
    assert plan.changed == tuple(name for name in kits.SHUTDOWN.places if name != "nut-stages.service")
    installation.apply(plan)
    assert systemd.told == ["systemctl daemon-reload", "systemctl restart nut-watch.service"]
    assert (tmp_path / "var/log/nut").is_dir()
    assert (tmp_path / "etc/systemd/system/nut-monitor.service.d/homelab-nut.conf").is_file()
    assert not (tmp_path / "etc/systemd/system/nut-stages.service").exists()
    assert not installation.plan()


def test_the_stages_run_all_the_time(tmp_path: Path) -> None:
    systemd = Systemd()
    installation = gate_on(tmp_path, systemd, SHUTDOWN)
    installation.apply(installation.plan())
    assert systemd.told == [
        "systemctl daemon-reload",
        "systemctl enable nut-stages.service",
        "systemctl start nut-stages.service",
        "systemctl restart nut-watch.service",
    ]
    systemd.stages = dict(RUNS)
    assert not installation.plan()


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
def test_what_the_stages_are_restarted_for(tmp_path: Path, change: str, renewed: bool, told: list[str]) -> None:
    first = gate_on(tmp_path, Systemd(), SHUTDOWN)
    first.apply(first.plan())
    systemd = Systemd(stages=RUNS)
    wanted = {**SHUTDOWN, change: "new\n"} if change else SHUTDOWN
    installation = gate_on(tmp_path, systemd, wanted, renewed=renewed)
    installation.apply(installation.plan())
    assert systemd.told == told


def test_the_watch_of_upsd_is_started_without_stages(tmp_path: Path) -> None:
    systemd = Systemd(watch=NONE)
    installation = gate_on(tmp_path, systemd, NO_STAGES)
    installation.apply(installation.plan())
    assert systemd.told == [
        "systemctl daemon-reload",
        "systemctl enable nut-watch.service",
        "systemctl start nut-watch.service",
    ]


def test_without_stages_they_go(tmp_path: Path) -> None:
    first = gate_on(tmp_path, Systemd(), SHUTDOWN)
    first.apply(first.plan())
    systemd = Systemd(stages=RUNS)
    installation = gate_on(tmp_path, systemd, NO_STAGES, renewed=True)
    plan = installation.plan()
    assert "/etc/systemd/system/nut-stages.service: removed\n" in plan.diff()
    installation.apply(plan)
    assert systemd.told == [
        "systemctl disable --now nut-stages.service",
        "systemctl daemon-reload",
        "systemctl restart nut-watch.service",
    ]
    assert not (tmp_path / "etc/systemd/system/nut-stages.service").exists()
    systemd.stages = dict(NONE)
    assert not gate_on(tmp_path, systemd, NO_STAGES).plan()


def test_the_spare_of_the_flag_is_made_now_and_at_each_boot(tmp_path: Path) -> None:
    def with_spare(path: str) -> dict[str, str]:
        return {**NO_STAGES, "tmpfiles": f'# why\nf+ "{path}" 0644 root root - upsmon-shutdown-file\n'}

    def make(path: str) -> list[str]:
        systemd = Systemd()
        installation = gate_on(tmp_path, systemd, with_spare(path))
        installation.apply(installation.plan())
        return [line for line in systemd.told if line.startswith("systemd-tmpfiles")]

    (tmp_path / "run").mkdir()
    told = ["systemd-tmpfiles --create /etc/tmpfiles.d/nut-shutdown.conf"]
    assert make("/run/a 100%% flag.spare") == told
    spare = tmp_path / "run/a 100% flag.spare"
    spare.write_text("upsmon-shutdown-file")
    assert make("/run/a 100%% flag.spare") == []
    # lost, or spoiled, since
    spare.write_text("")
    assert make("/run/a 100%% flag.spare") == told
    spare.unlink()
    spare.symlink_to(tmp_path / "etc/nut/shutdown.json")
    assert make("/run/a 100%% flag.spare") == told
    # another path: what was made for the old one goes
    assert make("/run/flag.spare") == told
    assert not spare.is_symlink()
    (tmp_path / "run/flag.spare").write_text("upsmon-shutdown-file")
    gone = gate_on(tmp_path, Systemd(), None)
    gone.apply(gone.plan())
    assert list((tmp_path / "run").iterdir()) == []


def test_what_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"shutdown\.json is empty, and nut-shutdown can't do without it"):
        gate_on(tmp_path, Systemd(), {**SHUTDOWN, "shutdown.json": ""})


def test_it_goes(tmp_path: Path) -> None:
    gone = gate_on(tmp_path, Systemd(), SHUTDOWN)
    gone.apply(gone.plan())
    (tmp_path / "usr/local/sbin").mkdir(parents=True)
    (tmp_path / kits.SHUTDOWN.program).touch()
    systemd = Systemd(stages=RUNS, LoadState="loaded", ActiveState="failed")
    installation = gate_on(tmp_path, systemd, None)
    plan = installation.plan()
    assert [str(path.relative_to(tmp_path)) for path in plan.gone] == [
        "etc/tmpfiles.d/nut-shutdown.conf",
        "etc/logrotate.d/nut-shutdown",
        "etc/systemd/system/nut-watch.service.d/homelab-nut-hardening.conf",
        "etc/systemd/system/nut-monitor.service.d/homelab-nut-hardening.conf",
        "etc/systemd/system/nut-server.service.d/homelab-nut-hardening.conf",
        "etc/systemd/system/nut-driver@.service.d/homelab-nut-hardening.conf",
        "etc/systemd/system/nut-server.service.d/homelab-nut.conf",
        "etc/systemd/system/nut-monitor.service.d/homelab-nut.conf",
        "etc/systemd/system/nut-watch.service",
        "etc/systemd/system/nut-stages.service",
        "etc/systemd/system/nut-shutdown.service",
        "etc/nut/shutdown.json",
        "usr/local/sbin/nut-shutdown",
    ]
    installation.apply(plan)
    assert systemd.told == [
        "systemctl disable --now nut-stages.service",
        "systemctl disable --now nut-watch.service",
        "systemctl reset-failed nut-shutdown.service",
        "systemctl daemon-reload",
    ]
    assert not (tmp_path / "etc/systemd/system/nut-monitor.service.d").exists()
    systemd.service["ActiveState"] = "inactive"
    systemd.stages, systemd.watch = dict(NONE), dict(NONE)
    assert not gate_on(tmp_path, systemd, None).plan()


def test_a_drop_in_of_somebody_else_stays(tmp_path: Path) -> None:
    gone = gate_on(tmp_path, Systemd(), SHUTDOWN)
    gone.apply(gone.plan())
    theirs = tmp_path / "etc/systemd/system/nut-monitor.service.d/theirs.conf"
    theirs.touch()
    installation = gate_on(tmp_path, Systemd(), None)
    installation.apply(installation.plan())
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs.conf"]


def test_a_masked_service_can_t_wait_for_anybody(tmp_path: Path) -> None:
    with pytest.raises(base_systemd.UnitError, match=r"nut-shutdown\.service is masked"):
        gate_on(tmp_path, Systemd(LoadState="masked"), SHUTDOWN).plan()
    masked = Systemd(stages={"LoadState": "masked"})
    with pytest.raises(base_systemd.UnitError, match=r"nut-stages\.service is masked"):
        gate_on(tmp_path, masked, SHUTDOWN).plan()
    assert gate_on(tmp_path, masked, NO_STAGES).plan()


def test_files_of_another_kit(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"files must be shutdown\.json, nut-shutdown\.service, nut-stages\.service"):
        gate_on(tmp_path, Systemd(), FILES)


# Sandboxes


SANDBOX = "# a comment\n[Service]\n# another\nProtectSystem=strict\nSystemCallFilter=~@mount\nNoNewPrivileges=yes\n"
SANDBOXED = {**SHUTDOWN, **dict.fromkeys(kits.SANDBOXES, SANDBOX)}
PENDING = "run/homelab-nut-pending.json"


def sandboxed(root: Path, systemd: Systemd, wanted: Mapping[str, str] = SANDBOXED) -> tuple[Installation, Plan]:
    """Bring a host to WANTED, on which a driver is enabled."""
    (root / "run").mkdir(exist_ok=True)
    (root / "etc/systemd/system/nut-driver.target.wants").mkdir(parents=True, exist_ok=True)
    (root / "etc/systemd/system/nut-driver.target.wants/nut-driver@ups.service").touch()
    installation = gate_on(root, systemd, wanted)
    plan = installation.plan()
    installation.apply(plan)
    systemd.stages = dict(RUNS)
    return installation, plan


def test_a_sandbox_is_tried_before_it_is_put_in_place(tmp_path: Path) -> None:
    systemd = Systemd()
    installation, _plan = sandboxed(tmp_path, systemd)
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
    assert not installation.warnings()
    for unit in ("nut-driver@", "nut-server", "nut-monitor", "nut-watch"):
        path = tmp_path / f"etc/systemd/system/{unit}.service.d/homelab-nut-hardening.conf"
        assert path.read_text() == SANDBOX
    # nothing of it is tried again, and a check starts nothing
    systemd.tried.clear()
    assert not gate_on(tmp_path, systemd, SANDBOXED).plan()
    checked = gate_on(tmp_path, systemd, {**SANDBOXED, "nut-server-hardening.conf": "[Service]\nPrivateTmp=yes\n"})
    checked.probing = False
    assert checked.plan().changed == ("nut-server-hardening.conf",)
    assert systemd.tried == []


@pytest.mark.parametrize("code", sorted(base_systemd.SANDBOX_CODES))
def test_a_host_that_can_t_apply_a_sandbox_does_without(tmp_path: Path, code: int) -> None:
    wanted = {**SANDBOXED, "nut-monitor-hardening.conf": "[Service]\nNoNewPrivileges=yes\n"}
    sandboxed(tmp_path, Systemd(), {**wanted, "nut-server-hardening.conf": "[Service]\nNoNewPrivileges=no\n"})
    systemd = Systemd(stages=RUNS)
    systemd.sandbox["--property=ProtectSystem=strict"] = code
    installation, plan = sandboxed(tmp_path, systemd, wanted)
    (warning,) = installation.warnings()
    for word in ("nut-server.service", "homelab-nut-hardening.conf", base_systemd.SANDBOX_CODES[code]):
        assert word in warning
    assert "nut_server_hardening=false" in warning
    # the old one would not do for ever either: nobody wants it
    assert not (tmp_path / "etc/systemd/system/nut-server.service.d/homelab-nut-hardening.conf").exists()
    assert (tmp_path / "etc/systemd/system/nut-monitor.service.d/homelab-nut-hardening.conf").exists()
    # and the next run has nothing to do, and says so again
    installation, plan = sandboxed(tmp_path, systemd, wanted)
    assert not plan
    assert len(installation.warnings()) == 1


def test_what_a_host_refused_is_known_to_who_only_looks(tmp_path: Path) -> None:
    record = tmp_path / sandbox.REFUSED
    systemd = Systemd()
    systemd.sandbox["--property=ProtectSystem=strict"] = 226
    wanted = {**SANDBOXED, **dict.fromkeys(list(kits.SANDBOXES)[1:], "[Service]\nNoNewPrivileges=yes\n")}
    record.parent.mkdir(parents=True)
    record.write_text('{"nut-hotplug-hardening.conf": "another kit\'s"}')
    installation, plan = sandboxed(tmp_path, systemd, wanted)
    assert f"/{sandbox.REFUSED}: nut-driver-hardening.conf, nut-hotplug-hardening.conf\n" in plan.diff()
    known = sandbox.read_refused(tmp_path)
    assert list(known) == ["nut-hotplug-hardening.conf", "nut-driver-hardening.conf"]
    assert "226/NAMESPACE" in known["nut-driver-hardening.conf"]
    assert record.stat().st_mode & 0o777 == 0o600
    systemd.tried.clear()
    checked = gate_on(tmp_path, systemd, wanted)
    checked.probing = False
    assert not checked.plan()
    assert checked.warnings() == installation.warnings()
    assert systemd.tried == []
    # the host has learned it
    systemd.sandbox.clear()
    installation, plan = sandboxed(tmp_path, systemd, wanted)
    assert plan.changed == ("nut-driver-hardening.conf",)
    assert sandbox.read_refused(tmp_path) == {"nut-hotplug-hardening.conf": "another kit's"}


def test_the_record_of_refusals_goes_with_the_last_one(tmp_path: Path) -> None:
    systemd = Systemd()
    systemd.sandbox["--property=ProtectSystem=strict"] = 226
    sandboxed(tmp_path, systemd)
    assert len(sandbox.read_refused(tmp_path)) == len(kits.SANDBOXES)
    gone = gate_on(tmp_path, systemd, None)
    gone.apply(gone.plan())
    assert not (tmp_path / sandbox.REFUSED).exists()


@pytest.mark.parametrize("damaged", ["{", "[1]", '{"nut-driver-hardening.conf": 1}'])
def test_a_damaged_record_of_refusals_says_nothing(tmp_path: Path, damaged: str) -> None:
    (tmp_path / sandbox.REFUSED).parent.mkdir(parents=True)
    (tmp_path / sandbox.REFUSED).write_text(damaged)
    assert sandbox.read_refused(tmp_path) == {}


def test_restarts_that_were_done_with_the_old_units_are_noted_again(tmp_path: Path) -> None:
    """The run failed before daemon-reload, and nut-hotplug restarted what it had noted, in the units that systemd knew."""
    systemd = Systemd()
    systemd.running = ("nut-driver@ups.service", "nut-server.service")
    with pytest.raises(base_systemd.UnitError):
        sandboxed(tmp_path, RefusingReload(systemd))
    (tmp_path / PENDING).unlink()
    _installation, plan = sandboxed(tmp_path, systemd)
    assert plan.changed == ()
    noted = json.loads((tmp_path / PENDING).read_text())
    assert [one["unit"] for one in noted] == ["nut-driver@ups.service", "nut-server.service"]
    (tmp_path / PENDING).unlink()
    _installation, plan = sandboxed(tmp_path, systemd)
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
def test_commands_of_a_drop_in_that_lose_root_are_told(tmp_path: Path, command: str, warned: bool) -> None:
    folder = "/etc/systemd/system/nut-driver@.service.d"
    own, gone = f"{folder}/own.conf", f"{folder}/gone.conf"
    ours = f"/{kits.SHUTDOWN.places['nut-driver-hardening.conf'].path}"
    as_nut = {**SANDBOXED, "nut-driver-hardening.conf": f"[Service]\nUser=nut\n{command}\n"}
    systemd = Systemd()
    systemd.drop_ins = {"nut-driver@ups.service": f"{ours} {own} {gone}", "nut-server.service": own}
    (tmp_path / folder[1:]).mkdir(parents=True)
    (tmp_path / own[1:]).write_text(f"[Service]\n{command}\n")
    installation, _plan = sandboxed(tmp_path, systemd, as_nut)
    assert [word.partition(":")[0] for word in installation.warnings()] == ([own] if warned else [])
    # nobody takes root from upsd here
    del systemd.drop_ins["nut-driver@ups.service"]
    assert not installation.warnings()
    systemd.drop_ins["nut-driver@ups.service"] = own
    installation, _plan = sandboxed(tmp_path, systemd)
    assert not installation.warnings()


@pytest.mark.parametrize("code", [1, 124, 127])
def test_what_says_nothing_of_a_sandbox(tmp_path: Path, code: int) -> None:
    systemd = Systemd()
    systemd.sandbox["--property=ProtectSystem=strict"] = code
    installation, _plan = sandboxed(tmp_path, systemd)
    assert not installation.warnings()
    assert (tmp_path / "etc/systemd/system/nut-server.service.d/homelab-nut-hardening.conf").exists()


def test_daemons_that_run_are_left_to_who_asks_for_the_power_first(tmp_path: Path) -> None:
    systemd = Systemd()
    systemd.running = ("nut-driver@ups.service", "nut-server.service")
    _installation, plan = sandboxed(tmp_path, systemd)
    restarts = [
        {"verb": "restart", "unit": "nut-driver@ups.service", "reason": "its sandbox changed"},
        {"verb": "restart", "unit": "nut-server.service", "reason": "its sandbox changed"},
    ]
    assert [str(one) for one in plan.later] == [f"restart {one['unit']}: its sandbox changed" for one in restarts]
    assert json.loads((tmp_path / PENDING).read_text()) == restarts
    assert not [command for command in systemd.told if "nut-server" in command or "driver" in command]
    # what is there is kept, and nothing is there twice
    other = {"verb": "reload", "unit": "nut-server.service", "reason": "x"}
    (tmp_path / PENDING).write_text(json.dumps([other, restarts[1]]))
    sandboxed(tmp_path, systemd, {**SANDBOXED, **dict.fromkeys(kits.SANDBOXES, "")})
    assert json.loads((tmp_path / PENDING).read_text()) == [other, restarts[1], restarts[0]]


@pytest.mark.parametrize("text", [SANDBOX + "# one more\n", SANDBOX])
def test_a_comment_or_a_mode_restarts_nothing(tmp_path: Path, text: str) -> None:
    systemd = Systemd()
    sandboxed(tmp_path, systemd)
    systemd.running = ("nut-driver@ups.service", "nut-server.service", "nut-monitor.service")
    path = tmp_path / "etc/systemd/system/nut-server.service.d/homelab-nut-hardening.conf"
    path.chmod(0o600)
    _installation, plan = sandboxed(tmp_path, systemd, {**SANDBOXED, "nut-server-hardening.conf": text})
    assert plan.changed == ("nut-server-hardening.conf",)
    assert not plan.later
    assert not (tmp_path / PENDING).exists()


def test_a_pending_note_that_can_t_be_read_stays(tmp_path: Path) -> None:
    """It makes the module config restart all of them."""
    (tmp_path / "run").mkdir()
    (tmp_path / PENDING).write_text("{")
    systemd = Systemd()
    systemd.running = ("nut-server.service",)
    sandboxed(tmp_path, systemd)
    assert (tmp_path / PENDING).read_text() == "{"
