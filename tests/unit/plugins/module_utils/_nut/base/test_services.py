# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import services, systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.services import Supervised, Systemd, find_manager
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ENUMERATOR, SERVER, UnitError

DRIVER = systemd.driver_unit("ups")
OLD, NEW = "0" * 32, "f" * 32


class Runner:
    """Records commands, and answers each with the same output."""

    def __init__(self, output: str = "", code: int = 0) -> None:
        self.output, self.code = output, code
        self.run: list[list[str]] = []

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.run.append(list(command))
        return self.code, self.output


@contextmanager
def answer_once(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Answer one request at a socket. Yield what was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            connection, _address = listener.accept()
            with connection, connection.makefile("rb") as stream:
                asked.append(stream.readline())
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(5)


# systemd


@pytest.mark.parametrize(
    ("verb", "unit", "wait", "expected"),
    [
        (
            "start",
            DRIVER,
            False,
            [["systemctl", "reset-failed", DRIVER], ["systemctl", "start", "--no-block", "--", DRIVER]],
        ),
        ("restart", DRIVER, True, [["systemctl", "reset-failed", DRIVER], ["systemctl", "restart", "--", DRIVER]]),
        # the enumerator must have ended before the drivers that it makes are started
        (
            "start",
            ENUMERATOR,
            False,
            [["systemctl", "reset-failed", ENUMERATOR], ["systemctl", "start", "--", ENUMERATOR]],
        ),
        ("disable --now", DRIVER, False, [["systemctl", "disable", "--now", "--", DRIVER]]),
        ("reload", SERVER, True, [["systemctl", "reload", "--", SERVER]]),
    ],
)
def test_systemd_forgets_failures_and_does_not_wait_for_drivers(
    verb: str, unit: str, wait: bool, expected: list[list[str]]
) -> None:
    runner = Runner()
    Systemd(runner).change_unit(verb, unit, wait=wait)
    assert runner.run == expected


def test_systemd_reads_the_journal_of_units_and_about_them() -> None:
    runner = Runner(
        '{"__REALTIME_TIMESTAMP": "1000000", "_SYSTEMD_UNIT": "nut-driver@ups.service", "MESSAGE": "hello"}'
    )
    (entry,) = Systemd(runner).read_log([DRIVER], 5.0, 7)
    assert (entry.unit, entry.words, entry.at) == (DRIVER, "hello", 1.0)
    assert runner.run[0][-5:] == ["--lines=7", "--since=@5", f"_SYSTEMD_UNIT={DRIVER}", "+", f"UNIT={DRIVER}"]


def test_systemd_updates_checksums_that_differ_and_loads_them(tmp_path: Path) -> None:
    paths = {name: systemd.checksum_path(name, tmp_path) for name in ("ups", "rack")}
    for path in paths.values():
        path.parent.mkdir()
        path.write_text(f"[Service]\nEnvironment='SECTION_CHECKSUM={OLD}'\n")
    runner = Runner()
    Systemd(runner, tmp_path).record_checksums({"ups": NEW, "rack": OLD, "none": NEW})
    assert NEW in paths["ups"].read_text()
    assert OLD in paths["rack"].read_text()
    assert runner.run == [["systemctl", "daemon-reload"]]
    Systemd(runner, tmp_path).record_checksums({"ups": NEW, "rack": OLD})
    assert len(runner.run) == 1


# the supervisor


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"not json\n", "does not answer"),
        (b"[]\n", "its answer is not valid"),
        (b'{"error": "no\\u001b[2J"}\n', "refuses to change: no"),
        (b"", "does not answer"),
    ],
)
def test_answer_that_is_not_valid_is_an_error(tmp_path: Path, answer: bytes, why: str) -> None:
    path = tmp_path / "s"
    with answer_once(path, answer), pytest.raises(UnitError, match=why):
        Supervised(path).change_unit("start", DRIVER)


@pytest.mark.parametrize("unit", [b'{"active": 1}', b'{"active": "x", "enabled": "x", "pid": "seven"}', b"7"])
def test_unit_of_another_form_is_an_error(tmp_path: Path, unit: bytes) -> None:
    path = tmp_path / "s"
    with answer_once(path, b'{"result": {"x": ' + unit + b"}}\n"), pytest.raises(UnitError, match="not valid"):
        Supervised(path).show_units(["x"])


def test_unknown_unit_is_absent_and_times_count_from_the_boot(tmp_path: Path) -> None:
    path = tmp_path / "s"
    answer = b'{"result": {"x": {"active": "active", "enabled": "enabled", "pid": 7, "since": 5.0}, "y": null}}\n'
    with answer_once(path, answer) as asked:
        shown = Supervised(path).show_units(["x", "y"], booted=100.0)
    assert shown == {"x": systemd.Unit("active", "enabled", 7, since=105.0), "y": systemd.ABSENT}
    assert asked == [b'{"command": "show", "units": ["x", "y"]}\n']


def test_supervisor_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnitError, match="the supervisor does not answer at"):
        Supervised(tmp_path / "s").show_units(["x"])


def test_supervisor_needs_no_checksums(tmp_path: Path) -> None:
    Supervised(tmp_path / "s").record_checksums({"ups": NEW})


def test_the_manager_is_the_supervisor_where_its_socket_is(tmp_path: Path) -> None:
    runner = Runner()
    assert find_manager(tmp_path, runner) == Systemd(runner)
    (tmp_path / services.SOCKET).touch()
    assert find_manager(tmp_path, runner) == Systemd(runner)
    (tmp_path / services.SOCKET).unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / services.SOCKET))
        assert find_manager(tmp_path, runner) == Supervised(tmp_path / services.SOCKET)
