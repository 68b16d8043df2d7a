# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.container import health
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.settings import DEFAULTS
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_container


def run_program(*arguments: str) -> tuple[int, str, str]:
    """Return the exit code, and what the program prints to its two streams."""
    out: list[str] = []
    err: list[str] = []
    code = nut_container.main(arguments, out.append, err.append, "/usr/local/sbin/nut-container")
    return code, "\n".join(out), "\n".join(err)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("command", ["run", "configure"])
def test_bad_value_ends_the_program_before_anything_starts(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCAN_INTERVAL", "often")
    code, out, err = run_program(command)
    assert code == 2
    assert out == ""
    assert err == "the container can't start:\nSCAN_INTERVAL=often: must be a number of seconds from 1 to 3600"


def test_unknown_command_is_refused() -> None:
    code, _out, err = run_program("start")
    assert code == 2
    assert "nut-container" in err


def test_help_lists_the_commands() -> None:
    code, out, _err = run_program("--help")
    assert code == 0
    assert all(name in out for name in nut_container.COMMANDS)


@pytest.mark.parametrize(
    ("problems", "expected"),
    [([], (0, "healthy", "")), (["ups: DATA-STALE", "x\x1b[2J"], (1, "", "ups: DATA-STALE\nx\\x1b[2J"))],
)
def test_health_is_an_exit_code_and_a_sentence(
    problems: list[str], expected: tuple[int, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "find_health_problems", lambda _conf_dir: problems)
    assert run_program("health") == expected


def test_health_of_a_container_without_files_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_conf_dir: object) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory", "/etc/nut/upsd.conf")

    monkeypatch.setattr(health, "find_health_problems", fail)
    assert run_program("health") == (1, "", "/etc/nut/upsd.conf can't be read: No such file or directory")


def test_programs_get_neither_the_password_nor_other_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Recorder(nut_container.Supervisor):
        def run(self) -> int:
            made.append(self)
            return 0

    limits = []
    monkeypatch.setattr(nut_container, "Supervisor", Recorder)
    monkeypatch.setattr(nut_container.resource, "getrlimit", lambda _kind: (1 << 30, 1 << 30))
    monkeypatch.setattr(nut_container.resource, "setrlimit", lambda _kind, limit: limits.append(limit))
    monkeypatch.setenv("API_PASSWORD", "s3cret")
    monkeypatch.setenv("OTHER", "x")
    monkeypatch.setenv("SCAN_INTERVAL", "7")
    assert run_program("run")[0] == 0
    (supervisor,) = made
    assert supervisor.interval == 7
    assert supervisor.given == {"API_PASSWORD": "s3cret", "SCAN_INTERVAL": "7"}
    assert supervisor.table.environment.keys() <= {"PATH", "TZ", "LANG", "LC_ALL"}
    assert supervisor.configure == ("/usr/local/sbin/nut-container", "configure")
    # upsd would reserve gigabytes
    assert limits == [(4096, 1 << 30)]
