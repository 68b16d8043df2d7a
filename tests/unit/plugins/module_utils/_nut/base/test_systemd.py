# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, JournalEntry, Unit, UnitError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Runner:
    """Records commands, and answers each with the same output."""

    def __init__(self, output: str = "", code: int = 0) -> None:
        self.output, self.code = output, code
        self.run: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.run.append(list(command))
        return self.code, self.output


# output of systemctl on Debian 12: one block for each unit, separated by empty lines
SHOWN = """\
MainPID=4711
Id=nut-server.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled

Id=nut.target
LoadState=loaded
ActiveState=inactive
UnitFileState=disabled

MainPID=0
Id=nut-driver@ups.service
LoadState=not-found
ActiveState=inactive
UnitFileState=

MainPID=0
Id=nut-driver@spare.service
LoadState=loaded
ActiveState=failed
UnitFileState=
"""


def test_states_of_units_are_read() -> None:
    runner = Runner(SHOWN)
    names = [systemd.SERVER, systemd.ALL, systemd.driver_unit("ups"), systemd.driver_unit("spare")]
    assert systemd.show_units(names, runner) == {
        systemd.SERVER: Unit("active", "enabled", 4711),
        systemd.ALL: Unit("inactive", "disabled", 0),
        systemd.driver_unit("ups"): ABSENT,
        systemd.driver_unit("spare"): Unit("failed", "", 0),
    }
    assert [command[:2] + command[3:] for command in runner.run] == [["systemctl", "show", "--", *names]]


def test_all_properties_of_a_unit_are_read() -> None:
    output = (
        "Id=nut-driver@ups.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\nUnitFileState=enabled\nMainPID=0\n"
        "Result=exit-code\nStateChangeTimestampMonotonic=4000000000\nNeedDaemonReload=yes\n"
    )
    shown = systemd.show_units(["nut-driver@ups.service"], Runner(output), booted=1e6)["nut-driver@ups.service"]
    assert shown == Unit("failed", "enabled", 0, "failed", "loaded", "exit-code", 1004000.0, outdated=True)


def test_failed_unit_without_file_is_not_found() -> None:
    output = "Id=a.service\nLoadState=not-found\nActiveState=failed\nMainPID=0\n"
    assert systemd.show_units(["a.service"], Runner(output)) == {"a.service": Unit("failed", "", 0, load="not-found")}


def test_alias_is_recognized_by_position() -> None:
    output = SHOWN.replace("Id=nut-server.service", "Id=upsd.service")
    assert systemd.show_units([systemd.SERVER, "a", "b", "c"], Runner(output))[systemd.SERVER].pid == 4711


def test_warning_before_the_answer_is_ignored() -> None:
    output = "Warning: the unit file changed on disk.\n" + SHOWN
    assert systemd.show_units([systemd.SERVER, "a", "b", "c"], Runner(output))[systemd.SERVER] == Unit(
        "active", "enabled", 4711
    )


def test_failing_systemctl_show_is_an_error() -> None:
    with pytest.raises(UnitError, match="systemctl show: Failed to connect to bus"):
        systemd.show_units([systemd.SERVER], Runner("Failed to connect to bus\n", 1))


@pytest.mark.parametrize(
    ("active", "runs"),
    [
        ("active", True),
        ("activating", True),
        ("reloading", True),
        ("inactive", False),
        ("failed", False),
        ("deactivating", False),
        ("", False),
    ],
)
def test_active_states_count_as_running(active: str, runs: bool) -> None:
    assert Unit(active, "enabled", 1).runs == runs


def test_verb_may_have_two_words() -> None:
    runner = Runner()
    systemd.run_systemctl("disable --now", "a.path", "b.path", runner=runner)
    assert runner.run == [["systemctl", "disable", "--now", "--", "a.path", "b.path"]]


def test_failing_systemctl_is_an_error() -> None:
    with pytest.raises(UnitError, match=r"systemctl restart x\.service failed: Unit x\.service is masked\.$"):
        systemd.run_systemctl("restart", "x.service", runner=Runner("Unit x.service is masked.\n", 1))


def test_last_log_lines_are_read() -> None:
    runner = Runner("a\nb\n")
    assert systemd.last_log_lines(systemd.MONITOR, runner, 3) == "a\nb"
    assert runner.run[0][:3] == ["journalctl", "--unit=nut-monitor.service", "--lines=3"]
    assert systemd.last_log_lines(systemd.MONITOR, Runner("No journal files were found.", 1)) == ""


# a driver's unit has no main process, because upsdrvctl forks
FORKING = "ExecMainStatus=0\nExecStart={ path=/bin/sh ; argv[]=/bin/sh -c x ; ignore_errors=no ; pid=7 ; code=exited ; status=226 }\n"


@pytest.mark.parametrize(
    ("name", "shown", "folder"),
    [
        (systemd.SERVER, "ExecMainStatus=226\n", systemd.SERVER),
        ("nut-driver@a.service", FORKING, "nut-driver@.service"),
    ],
)
def test_sandbox_failure_names_unit_and_drop_in(name: str, shown: str, folder: str) -> None:
    runner = Runner(shown)
    output = systemd.sandbox_failure(name, runner)
    assert runner.run == [["systemctl", "show", "--property=ExecMainStatus,ExecStart", "--", name]]
    drop_in = f"/etc/systemd/system/{folder}.d/homelab-nut-hardening.conf"
    for words in (name, "226/NAMESPACE", drop_in, "nut_server_hardening=false"):
        assert words in output
    assert output.endswith("\n")


@pytest.mark.parametrize(
    ("output", "code"),
    [("ExecMainStatus=0", 0), ("ExecMainStatus=1", 0), ("", 0), ("ExecMainStatus=226", 1), ("no bus", 0)],
)
def test_other_failures_are_no_sandbox_failure(output: str, code: int) -> None:
    assert systemd.sandbox_failure(systemd.SERVER, Runner(output, code)) == ""


def test_drivers_at_boot_are_listed(tmp_path: Path) -> None:
    assert systemd.drivers_at_boot(tmp_path) == ()
    folder = tmp_path / "nut-driver.target.wants"
    folder.mkdir()
    for name in ("nut-driver@ups.service", "nut-driver@MD5_0123.service", "other.service"):
        (folder / name).symlink_to("/lib/systemd/system/nut-driver@.service")  # need not exist
    assert systemd.drivers_at_boot(tmp_path) == ("nut-driver@MD5_0123.service", "nut-driver@ups.service")
    assert all(systemd.is_driver(name) for name in systemd.drivers_at_boot(tmp_path))
    assert not systemd.is_driver("nut-driver.target")


def test_last_log_lines_are_printable() -> None:
    output = systemd.last_log_lines(systemd.MONITOR, Runner("evil \x1b[2J\x1b]0;pwn\x07 text\nsecond\u202e\n"))
    assert output == "evil \\x1b[2J\\x1b]0;pwn\\x07 text\nsecond\\u202e"


def test_error_of_systemctl_is_one_line() -> None:
    with pytest.raises(systemd.UnitError, match=r"failed: Job failed\. ok: \[pve\]$"):
        systemd.run_systemctl("restart", systemd.MONITOR, runner=Runner("Job failed.\nok: [pve]\n", 1))


def test_journal_entries_are_read() -> None:
    line = {
        "__REALTIME_TIMESTAMP": "1790000000500000",
        "_SYSTEMD_UNIT": "nut-monitor.service",
        "MESSAGE": "on battery ",
    }
    lines = [
        line,
        {
            **line,
            "MESSAGE": "Started it.",
            "_SYSTEMD_UNIT": "init.scope",
            "UNIT": "nut-server.service",
            "MESSAGE_ID": "9d1",
        },
        {**line, "MESSAGE": [72, 105, 255]},
        {**line, "MESSAGE": None},
        {"MESSAGE": "without a time"},
        ["no entry"],
        7,
    ]
    runner = Runner("".join(f"{json.dumps(line)}\n" for line in lines) + "no JSON\n")
    assert list(systemd.read_journal(["--lines=9"], runner)) == [
        JournalEntry(1790000000.5, "nut-monitor.service", "on battery"),
        JournalEntry(1790000000.5, "nut-server.service", "Started it.", "9d1"),
        JournalEntry(1790000000.5, "nut-monitor.service", "Hi\ufffd"),
        JournalEntry(1790000000.5, "nut-monitor.service", ""),
    ]
    assert runner.run[0][0] == "journalctl"
    assert runner.run[0][-1] == "--lines=9"


def test_unreadable_journal_is_an_error() -> None:
    with pytest.raises(UnitError, match="journalctl: No journal files"):
        list(systemd.read_journal([], Runner("No journal files were found.", 1)))


@pytest.mark.parametrize("stamp", ["9" * 400, "9" * 5000, "-1", "", "1.5", 10**400, None, [], True])
def test_journal_entry_with_invalid_time_is_skipped(stamp: object) -> None:
    output = json.dumps({"__REALTIME_TIMESTAMP": stamp, "MESSAGE": "x"})
    assert list(systemd.read_journal([], Runner(output))) == []


@pytest.mark.parametrize("code", range(200, 243))
def test_each_code_of_a_failed_start_has_words(code: int) -> None:
    text = systemd.describe_start_failure(code)
    assert (code in (223, 234)) == (not text)
    assert not text or re.fullmatch(rf"it can't [A-Za-z/ ,-]+ \({code}/[A-Z_]+\)", text)


@pytest.mark.parametrize("code", [0, 1, 2, 127, 143, 199, 255, -9])
def test_other_exit_codes_are_no_failed_start(code: int) -> None:
    assert systemd.describe_start_failure(code) == ""
