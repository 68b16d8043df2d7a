# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import fsd

ROOT, NUT = 0, 102


class Host:
    """Real processes with a made-up /proc."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.main: str = "0"
        self.code = 0
        self.asked: list[Sequence[str]] = []

    def start(self, name: str, uid: int, parent: int = 1) -> int:
        process = subprocess.Popen(["sleep", "600"])
        self.running[process.pid] = process
        (self.proc / str(process.pid)).mkdir()
        (self.proc / str(process.pid) / "status").write_text(
            f"Name:\t{name}\nPid:\t{process.pid}\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        )
        return process.pid

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        self.asked.append(command)
        return self.code, f"{self.main}\n"

    def request(self) -> None:
        fsd.request_fsd(self.run, self.proc)

    def signalled(self) -> list[int]:
        """Return the processes that SIGUSR1 has ended; end the others."""
        for process in self.running.values():
            process.terminate()
        return [pid for pid, process in self.running.items() if process.wait() == -signal.SIGUSR1]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "uptime").write_text("1 1\n")
    made = Host(proc)
    yield made
    made.signalled()


def test_fsd_signals_child_in_2_8_0_and_2_8_1(host: Host) -> None:
    main = host.start("upsmon", ROOT)
    host.main = str(main)
    # a child of SHUTDOWNCMD or NOTIFYCMD, and another user's upsmon
    others = [host.start("sh", NUT, main), host.start("upssched", NUT), host.start("upsmon", NUT)]
    child = host.start("upsmon", NUT, main)
    host.start("sh", NUT, child)
    host.request()
    assert host.signalled() == [child]
    assert others
    # `timeout` limits it to 10 s
    assert host.asked[0][:3] == ["timeout", "--kill-after=5", "10"]


def test_fsd_signals_main_process_in_2_8_5(host: Host) -> None:
    main = host.start("upsmon", NUT)
    host.main = str(main)
    host.start("upsmon", ROOT, main)
    host.request()
    assert host.signalled() == [main]


def test_fsd_signals_upsmon_running_as_root(host: Host) -> None:
    main = host.start("upsmon", ROOT)
    host.main = str(main)
    child = host.start("upsmon", ROOT, main)
    host.request()
    assert host.signalled() == [child]


@pytest.mark.parametrize(
    ("main", "code", "words"),
    [
        ("0", 0, "nut-monitor.service is not running"),
        ("", 1, "systemd does not report the main process of nut-monitor.service"),
        ("what?", 0, "systemd does not report the main process of nut-monitor.service: what?"),
        ("4194304", 0, "nut-monitor.service has no upsmon process that sets FSD"),
    ],
)
def test_fsd_fails_without_upsmon(host: Host, main: str, code: int, words: str) -> None:
    host.main, host.code = main, code
    host.start("upsmon", NUT)
    with pytest.raises(fsd.FsdError, match=words.replace("?", r"\?")):
        host.request()
    assert host.signalled() == []


def test_fsd_ignores_other_process_with_reused_pid(host: Host) -> None:
    """The main process has exited, and another process has its number."""
    host.main = str(host.start("sshd", NUT))
    with pytest.raises(fsd.FsdError, match="has no upsmon process"):
        host.request()
    assert host.signalled() == []
