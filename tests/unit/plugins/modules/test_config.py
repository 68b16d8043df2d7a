# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils import _config, _host
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files as base_files
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import sets, systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import past
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.apply import LocalNut
from ansible_collections.homelab.nut.plugins.modules import config
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, serve_answers
from ansible_collections.homelab.nut.tests.unit.support.hostile import find_unfit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STATUS = {
    "LIST UPS": 'BEGIN LIST UPS\nUPS ups "x"\nEND LIST UPS\n',
    "LIST VAR ups": 'BEGIN LIST VAR ups\nVAR ups ups.status "OL CHRG"\nEND LIST VAR ups\n',
    "LIST CLIENT ups": "BEGIN LIST CLIENT ups\nCLIENT ups 127.0.0.1\nEND LIST CLIENT ups\n",
}
ON_BATTERY = {"LIST VAR ups": 'BEGIN LIST VAR ups\nVAR ups ups.status "OB"\nEND LIST VAR ups\n'}
STALE = {"LIST VAR ups": "ERR DATA-STALE\n"}
NO_CLIENT = {"LIST CLIENT ups": "BEGIN LIST CLIENT ups\nEND LIST CLIENT ups\n"}


class Host:
    """A host with NUT as the module sees it: a folder, running units, and upsd."""

    def __init__(self, root: Path, upsd: FakeUpsd) -> None:
        self.folder, self.upsd = root, upsd
        self.commands: list[str] = []
        self.refuses, self.release = "", ""
        self.logged = "its last line\n"
        self.files = {
            "nut.conf": "MODE=netserver\n",
            "upsd.users": "[monitor]\n    password = secret1\n    upsmon primary\n",
            "upsd.conf": f"LISTEN 127.0.0.1 {upsd.port}\nMAXAGE 15\n",
            "ups.conf": "[ups]\n    driver = usbhid-ups\n    port = auto\n",
            "upssched.conf": "CMDSCRIPT /bin/true\n",
            "upsmon.conf": f"MONITOR ups@localhost:{upsd.port} 1 monitor secret1 primary\nMINSUPPLIES 1\nSHUTDOWNCMD /bin/true\n",
        }
        self.write(self.files)

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o640)

    def read(self) -> dict[str, str]:
        return {name: (self.folder / name).read_text() for name in self.files}

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        if command[:2] == ["systemctl", "show"]:
            names = command[command.index("--") + 1 :]
            states = {systemd.WATCHER: "inactive", systemd.ENUMERATOR: "inactive"}
            enabled = {systemd.WATCHER: "disabled"}
            return 0, "\n".join(
                f"LoadState=loaded\nActiveState={states.get(name, 'active')}\n"
                f"UnitFileState={enabled.get(name, 'enabled')}\nMainPID=7\n"
                for name in names
            )
        if command[0] == "systemctl":
            self.commands.append(f"{command[1]} {command[-1]}")
            if self.refuses == self.commands[-1]:
                return 1, "Job failed."
        if command[-1] == "-V":
            return 0, f"Network UPS Tools upsmon {self.release}\n"
        return 0, self.logged if command[0] == "journalctl" else ""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Return a host as the role leaves it."""
    with serve_answers(STATUS) as upsd:
        fake_host = Host(tmp_path, upsd)
        monkeypatch.setattr(
            _host,
            "local_nut",
            lambda _module: LocalNut(
                fake_host.run,
                conf_dir=tmp_path,
                run_dir=tmp_path,
                hotplug_state=tmp_path / "state.json",
                manifest=tmp_path / "set.json",
                unit_dir=tmp_path,
                owner=(os.getuid(), os.getgid()),
                finder=lambda name: Path(name) if fake_host.release and name == "upsmon" else None,
            ),
        )
        monkeypatch.setattr(_config, "last_log_lines", lambda unit, _runner: f"last words of {unit}")
        yield fake_host


@pytest.fixture
def run(host: Host, capfd: pytest.CaptureFixture[str]) -> Any:
    def run_module(*, changes: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
        arguments = {"files": {**host.files, **(changes or {})}, "wait": 0, **options}
        with patch_module_args(arguments), pytest.raises(SystemExit) as end:
            config.main()
        result: dict[str, Any] = json.loads(capfd.readouterr().out)
        assert bool(end.value.code) == bool(result.get("failed"))
        assert "secret1" not in json.dumps(result)
        return result

    return run_module


def test_unchanged_host_is_not_changed(host: Host, run: Any) -> None:
    result = run()
    assert (result["changed"], result["files"], result["actions"]) == (False, [], [])
    assert result["upses"] == {"ups": "OL CHRG"}
    assert "diff" not in result
    assert host.commands == []


def test_no_secret_is_returned(run: Any) -> None:
    """Not even if Ansible is asked to print the module's parameters."""
    assert "invocation" in run(_ansible_inject_invocation=True)


def raise_maxage(host: Host) -> dict[str, str]:
    return {"upsd.conf": host.files["upsd.conf"].replace("MAXAGE 15", "MAXAGE 20")}


def test_changed_file_is_deployed(host: Host, run: Any) -> None:
    result = run(changes=raise_maxage(host))
    assert result["changed"]
    assert result["files"] == ["upsd.conf"]
    assert result["actions"] == ["reload nut-server.service: upsd.conf changed"]
    assert result["upses"] == {"ups": "OL CHRG"}
    (diff,) = result["diff"]
    assert "-MAXAGE 15\n+MAXAGE 20\n" in diff["prepared"]
    assert host.read() == {**host.files, **raise_maxage(host)}
    assert result["kept"] == [f"{host.folder}/upsd.conf.before-homelab-nut"]
    assert host.commands == ["reload nut-server.service"]
    assert not run(changes=raise_maxage(host))["changed"]


def test_check_mode_does_not_miss_a_driver_that_a_run_would_install(host: Host, run: Any) -> None:
    host.release = "2.8.1"
    result = run(changes={"ups.conf": "[ups]\n    driver = snmp-ups\n    port = 192.0.2.9\n"}, _ansible_check_mode=True)
    assert result["changed"]
    assert [
        warning for warning in result["warnings"] if "nut-snmp with a UPS's driver is not installed yet" in str(warning)
    ]


def test_check_mode_changes_nothing(host: Host, run: Any) -> None:
    result = run(changes=raise_maxage(host), _ansible_check_mode=True)
    assert result["changed"]
    assert result["files"] == ["upsd.conf"]
    assert result["actions"] == ["reload nut-server.service: upsd.conf changed"]
    assert "+MAXAGE 20\n" in result["diff"][0]["prepared"]
    assert "upses" not in result
    assert host.read() == host.files
    assert host.commands == []


def test_on_battery_nothing_is_changed(host: Host, run: Any) -> None:
    host.upsd.answers.update(ON_BATTERY)
    result = run(changes=raise_maxage(host))
    assert result["failed"]
    assert "ups (OB): not plainly on mains" in result["msg"]
    assert (result["changed"], result["files"], result["actions"]) == (False, [], [])
    assert host.read() == host.files
    assert host.commands == []
    assert run(changes=raise_maxage(host), _ansible_check_mode=True)["failed"]


def test_on_battery_unchanged_run_succeeds(host: Host, run: Any) -> None:
    host.upsd.answers.update(ON_BATTERY)
    result = run()
    assert not result["changed"]
    assert result["upses"] == {"ups": "OB"}


def test_force_deploys_on_battery(host: Host, run: Any) -> None:
    host.upsd.answers.update(ON_BATTERY)
    assert run(changes=raise_maxage(host), force=True)["changed"]
    assert host.read()["upsd.conf"] == raise_maxage(host)["upsd.conf"]


def test_force_does_not_skip_file_checks(host: Host, run: Any) -> None:
    result = run(changes={"upsd.users": host.files["upsd.users"].replace("secret1", "other")}, force=True)
    assert "the password differs from that of [monitor] in upsd.users" in result["msg"]
    assert host.read() == host.files


def test_inconsistent_files_fail(host: Host, run: Any) -> None:
    result = run(changes={"nut.conf": "MODE=none\n"})
    assert "nothing was restarted:\nnut.conf: MODE is none" in result["msg"]
    assert (result["changed"], result["files"], result["actions"]) == (False, [], [])
    assert host.read() == host.files
    assert host.commands == []


def test_incomplete_set_of_files_fails(run: Any) -> None:
    assert "files must be nut.conf, upsd.users" in run(files={"nut.conf": ""})["msg"]


def test_failed_unit_start_fails(host: Host, run: Any) -> None:
    host.refuses = "restart nut-monitor.service"
    changes = {**raise_maxage(host), "upsmon.conf": host.files["upsmon.conf"] + "DEADTIME 20\n"}
    result = run(changes=changes)
    assert result["failed"]
    assert "systemctl restart nut-monitor.service failed: Job failed." in result["msg"]
    assert "Its last log lines: its last line" in result["msg"]
    assert result["changed"]
    assert result["files"] == ["upsd.conf", "upsmon.conf"]
    assert result["actions"] == ["reload nut-server.service: upsd.conf changed"]


def test_failed_systemd_query_fails(host: Host, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "run", lambda _command: (1, "no bus"))
    result = run()
    assert result["failed"]
    assert "systemctl show: no bus" in result["msg"]


def test_absent_ups_is_a_warning(host: Host, run: Any) -> None:
    """A host can be deployed without its UPS, with a warning."""
    host.upsd.answers.update(STALE)
    result = run(changes=raise_maxage(host))
    assert not result.get("failed")
    assert result["changed"]
    assert result["upses"] == {"ups": "DATA-STALE"}
    assert any(
        "has no fresh data for ups: DATA-STALE. Is the UPS plugged in and switched on?" in str(warning)
        for warning in result["warnings"]
    )


def test_absent_ups_fails_if_required(host: Host, run: Any) -> None:
    host.upsd.answers.update(STALE)
    result = run(changes=raise_maxage(host), require_ups=True)
    assert result["failed"]
    assert "after 0 s NUT still does not serve: upsd has no fresh data for ups: DATA-STALE" in result["msg"]
    assert "last words of nut-driver@ups.service" in result["msg"]


def test_driver_log_is_made_safe_for_terminal(host: Host, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver logs texts of the device, and Ansible prints the message as it is."""
    host.upsd.answers.update(STALE)
    monkeypatch.setattr(_config, "last_log_lines", systemd.last_log_lines)
    host.logged = "evil \x1b[2J\x1b]0;pwn\x07 text\u202e\nok: [pve]\n"
    result = run(changes=raise_maxage(host), require_ups=True)
    assert not find_unfit(result["msg"])
    assert "evil \\x1b[2J\\x1b]0;pwn\\x07 text\\u202e" in result["msg"]
    # it does not look like a line of Ansible's either
    assert "\n  ok: [pve]" in result["msg"]
    assert result["changed"]
    assert result["files"] == ["upsd.conf"]
    assert result["upses"] == {"ups": "DATA-STALE"}


def test_stopped_driver_fails(host: Host, run: Any) -> None:
    host.upsd.answers.update({"LIST VAR ups": "ERR DRIVER-NOT-CONNECTED\n"})
    result = run()
    assert result["failed"]
    assert "has no fresh data for ups: DRIVER-NOT-CONNECTED" in result["msg"]


def test_missing_login_of_upsmon_fails(host: Host, run: Any) -> None:
    host.upsd.answers.update(NO_CLIENT)
    result = run(require_ups=False)
    assert result["failed"]
    assert "has not logged in to ups@localhost" in result["msg"]
    assert "as monitor; clients that upsd lists: none" in result["msg"]


def test_doctor_learns_when_a_run_changed_something(host: Host, run: Any) -> None:
    run()
    assert past.recall_deployment(host.folder) == past.NEVER
    before = time.time()
    run(changes={"upsd.conf": host.files["upsd.conf"] + "MAXCONN 99\n"})
    last = past.recall_deployment(host.folder)
    assert before <= last.began <= last.ended <= time.time()


def test_unsupported_release_fails(host: Host, run: Any) -> None:
    host.release = "2.8.0"
    newer = {"upsmon.conf": host.files["upsmon.conf"] + "OFFDURATION 60\n"}
    result = run(changes=newer)
    assert (result["changed"], result["release"]) == (False, "2.8.0")
    assert any("OFFDURATION" in str(warning) for warning in result["warnings"])
    assert result["advice"] == [], "the known problems of 2.8.0 need no action with these files"


def test_locked_host_fails(host: Host, run: Any) -> None:
    with base_files.hold_lock(host.folder / sets.LOCK, 0):
        result = run(changes=raise_maxage(host))
        assert "another run is configuring NUT on this host" in result["msg"]
        assert host.read() == host.files
        # check mode needs no lock
        assert run(changes=raise_maxage(host), _ansible_check_mode=True)["changed"]


def test_state_absent_empties_files(host: Host, run: Any) -> None:
    result = run(files=None, state="absent")
    assert result["changed"]
    assert result["files"] == ["upsmon.conf", "upssched.conf", "ups.conf", "upsd.conf", "upsd.users", "nut.conf"]
    assert result["actions"][0] == "disable --now nut-monitor.service: removing NUT from this host"
    assert "secret1" not in "".join(host.read().values())
    assert result["upses"] == {}


@pytest.mark.parametrize("files", [None, {}])
def test_missing_files_remove_nothing(host: Host, run: Any, files: Any) -> None:
    assert "files must be nut.conf, upsd.users" in run(files=files)["msg"]
    assert host.read() == host.files


def test_old_powerdownflag_is_a_warning(host: Host, run: Any) -> None:
    flag = host.folder / "killpower"
    flag.write_text("upsmon-shutdown-file")
    result = run(
        changes={"upsmon.conf": f"{host.files['upsmon.conf']}POWERDOWNFLAG {flag}\n"}, _ansible_check_mode=True
    )
    assert any(f"an earlier shutdown left {flag} behind" in str(warning) for warning in result["warnings"])


KNOWN = {"USERNAME media": "OK\n", "PASSWORD secret2": "OK\n", "LOGIN ups": "ERR ACCESS-DENIED\n"}


def as_secondary(host: Host) -> dict[str, str]:
    line = f"MONITOR ups@127.0.0.1:{host.upsd.port} 1 media secret2 secondary\n"
    return {
        "nut.conf": "MODE=netclient\n",
        "upssched.conf": "CMDSCRIPT /bin/true\n",
        "upsmon.conf": f"{line}MINSUPPLIES 1\nSHUTDOWNCMD /bin/true\n",
    }


@pytest.mark.parametrize("check_mode", [True, False])
def test_login_that_upsd_refuses_changes_nothing(host: Host, run: Any, check_mode: bool) -> None:
    (host.folder / "ups.conf").unlink()
    host.upsd.answers.update(KNOWN)
    result = run(files=as_secondary(host), login_remedy="Run on both.", _ansible_check_mode=check_mode)
    assert result["failed"]
    assert result["msg"].endswith("(ACCESS-DENIED). Nothing was changed on this host. Run on both.")
    assert (host.folder / "upsmon.conf").read_text() == host.files["upsmon.conf"]
    assert host.commands == []


def test_login_is_tried_only_with_a_remedy(host: Host, run: Any) -> None:
    (host.folder / "ups.conf").unlink()
    host.upsd.answers.update(KNOWN)
    assert run(files=as_secondary(host), _ansible_check_mode=True)["changed"]
    assert "LOGIN ups" not in host.upsd.asked


def test_passwords_are_not_replaced_without_being_asked(host: Host, run: Any) -> None:
    ours = "# Written by Ansible (homelab.nut.nut_server).\n"
    host.write({"upsd.users": ours + host.files["upsd.users"]})
    changes = {name: ours + host.files[name].replace("secret1", "secret9") for name in ("upsd.users", "upsmon.conf")}
    policy = {"kept_in": "/site/.homelab-nut", "rotate": "make rotate"}
    result = run(changes=changes, secrets=policy)
    assert result["failed"]
    assert "the password of monitor in /site/.homelab-nut differs from the deployed one" in result["msg"]
    assert (host.folder / "upsmon.conf").read_text() == host.files["upsmon.conf"]
    assert not run(changes=changes, secrets={**policy, "replaceable": ["monitor"]}).get("failed")


def test_former_primary_is_reported_and_must_be_removed_first(
    host: Host, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "ROOT", tmp_path)
    program = tmp_path / "usr/local/sbin/nut-shutdown"
    program.parent.mkdir(parents=True)
    program.touch()
    host.write({"ups.conf": "# Written by Ansible (homelab.nut.nut_server).\n" + host.files["ups.conf"]})
    former = ["its UPSes in ups.conf", "nut-shutdown"]
    assert run(files=as_secondary(host), _ansible_check_mode=True)["former"] == former
    result = run(files=as_secondary(host))
    assert "this host is still a primary (its UPSes in ups.conf, nut-shutdown)" in result["msg"]
    assert run(files=None, state="absent", _ansible_check_mode=True)["former"] == former
    assert run(_ansible_check_mode=True)["former"] == []
