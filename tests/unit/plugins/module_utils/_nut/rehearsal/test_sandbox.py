# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import (
    job,
    sandbox,
)
from ansible_collections.homelab.nut.tests.unit.support.rehearsal import make_host


def test_unit_has_every_property_of_the_sandbox() -> None:
    given = [line.split("=", 1) for line in sandbox.list_sandbox_properties(99.5)]
    assert len({name for name, _value in given}) == len(given)
    found = dict(given)
    # neither root nor nut
    assert found["DynamicUser"] == "yes"
    assert "User" not in found
    assert "SupplementaryGroups" not in found
    assert found["CapabilityBoundingSet"] == ""
    assert found["AmbientCapabilities"] == ""
    assert found["NoNewPrivileges"] == "yes"
    assert found["SystemCallFilter"] == "~@reboot"
    # no access to systemd, NUT or a UPS
    hidden = found["InaccessiblePaths"].split()
    for path in ("/run/systemd/private", "/run/dbus", "/run/initctl", "/dev/initctl", "/dev/bus/usb", "/etc/nut"):
        assert f"-{path}" in hidden
    assert found["TemporaryFileSystem"].partition(":")[0] == "/run/nut"
    assert (found["PrivateDevices"], found["DevicePolicy"]) == ("yes", "closed")
    assert found["PrivateNetwork"] == "yes"
    assert found["ProtectProc"] == "invisible"
    assert found["ProtectKernelTunables"] == "yes"
    # a single writable directory, which is removed afterwards
    assert found["ProtectSystem"] == "strict"
    assert found["ProtectHome"] == "yes"
    assert found["RuntimeDirectory"] == "nut-shutdown-drill"
    assert "ReadWritePaths" not in found
    assert "RuntimeDirectoryPreserve" not in found
    assert found["RuntimeMaxSec"] == "100"
    assert found["KillMode"] == "control-group"
    assert found["SendSIGKILL"] == "yes"
    # its exit has no side effects
    assert {"SuccessAction", "FailureAction", "OnFailure", "OnSuccess", "Restart"}.isdisjoint(found)


def test_drill_command_runs_inner_half_in_a_unit() -> None:
    words = sandbox.build_drill_command("/usr/bin/systemd-run", ["/p", "-IS", "/q"], 60, as_json=False)
    head, inner = words[: words.index("--")], words[words.index("--") + 1 :]
    assert head[0] == "/usr/bin/systemd-run"
    assert {"--pipe", "--wait", "--collect", "--unit=nut-shutdown-drill"} <= set(head)
    assert [
        word.partition("=")[2] for word in head if word.startswith("--property=")
    ] == sandbox.list_sandbox_properties(60)
    assert inner == ["/p", "-IS", "/q", "drill", "--inside"]
    assert sandbox.build_drill_command("s", ["/p"], 60, as_json=True)[-3:] == ["drill", "--inside", "--json"]


NONE = "".join(f"{name}:\t0000000000000000\n" for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))


LO = "Inter-|   Receive\n face |bytes\n    lo:  1 2\n"


@pytest.fixture
def sandboxed(tmp_path: Path) -> Path:
    (tmp_path / "proc/self/net").mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(f"Name:\tx\n{NONE}NoNewPrivs:\t1\n")
    (tmp_path / "proc/self/net/dev").write_text(LO)
    return tmp_path


def test_intact_sandbox_has_no_holes(sandboxed: Path) -> None:
    assert sandbox.find_holes(sandboxed, ids=(61000, 61000), groups=(61000,)) == []


def test_each_hole_is_named(sandboxed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(ids: tuple[int, ...] = (61000, 61000), groups: tuple[int, ...] = (61000,)) -> list[str]:
        return sandbox.find_holes(sandboxed, ids=ids, groups=groups)

    assert wrong(ids=(0, 61000)) == ["it runs as root"]
    assert wrong(ids=(61000, 0)) == ["it runs as root"]

    class Nut:
        pw_uid, pw_gid = 120, 130

    monkeypatch.setattr(sandbox.pwd, "getpwnam", lambda name: {"nut": Nut}[name])
    assert wrong(ids=(61000, 120)) == ["it runs as the user or group nut"]
    assert wrong(groups=(61000, 130)) == ["it runs as the user or group nut"]
    for path in (
        "run/systemd/private", "run/dbus/system_bus_socket", "run/initctl", "dev/initctl", "etc/nut/upsd.users",
        "etc/nut/upsmon.conf", "run/nut/upsmon.pid", "dev/bus/usb", "proc/sysrq-trigger",
    ):  # fmt: skip
        there = sandboxed / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.touch()
        assert wrong() == [f"it can access /{path}"]
        there.unlink()
    (sandboxed / "proc/self/net/dev").write_text(f"{LO}  eth0:  1 2\n")
    assert wrong() == ["it has network access"]
    (sandboxed / "proc/self/net/dev").write_text(LO)
    status = sandboxed / "proc/self/status"
    status.write_text(f"{NONE}NoNewPrivs:\t0\n")
    assert wrong() == ["it can gain new privileges"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        # CAP_SYS_BOOT
        status.write_text(NONE.replace(f"{name}:\t0000000000000000", f"{name}:\t0000000000400000") + "NoNewPrivs:\t1\n")
        assert wrong() == [f"it has capabilities ({name})"]
    status.write_text("NoNewPrivs:\t1\n")
    assert len(wrong()) == 5
    status.unlink()
    assert len(wrong()) == 1
    assert "cannot read the rights" in wrong()[0]


def test_systemd_run_needs_root_and_systemd(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    assert sandbox.find_systemd_run(host) == str(tmp_path / "bin/systemd-run")
    with pytest.raises(job.RehearsalRefused, match="must run as root"):
        sandbox.find_systemd_run(dataclasses.replace(host, user=lambda: 1000))
    (tmp_path / "run/systemd/system").rmdir()
    with pytest.raises(job.RehearsalRefused, match="needs systemd and systemd-run"):
        sandbox.find_systemd_run(host)


def test_rehearsal_is_refused_without_systemd_run(tmp_path: Path) -> None:
    host = make_host(tmp_path)
    (tmp_path / "bin/systemd-run").unlink()
    with pytest.raises(job.RehearsalRefused, match="needs systemd and systemd-run"):
        sandbox.find_systemd_run(host)
