# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify import intake, sender
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_notify

SECRET = "ntfy://s3cr3t-token@ntfy.example/topic"


class Program:
    """nut-notify on a host with two targets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out: list[str] = []
        self.err: list[str] = []
        self.slept, self.starts_after = 0.0, 1e9  # seconds; when the service starts
        self.listener: socket.socket | None = None
        for folder in (paths.NUT, "run", paths.NOTIFY_FOLDER):
            (root / folder).mkdir(parents=True)
        self.write_targets(f'{{"version": 1, "targets": [{{"url": "{SECRET}"}}, {{"mail": "root"}}]}}')

    def write_targets(self, text: str) -> None:
        (self.root / paths.NOTIFY_POLICY).write_text(text)

    def __call__(self, *arguments: str, **environment: str) -> int:
        return nut_notify.main(
            arguments, self.out.append, self.err.append, environment, root=self.root, sleep=self.sleep
        )

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        if self.slept > self.starts_after and self.listener is None:
            self.listener = intake.open_socket(self.root / paths.NOTIFY_SOCKET, os.getgid())


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_upsmon_hands_its_event_to_the_service(program: Program) -> None:
    with intake.open_socket(program.root / paths.NOTIFY_SOCKET, os.getgid()) as listener:
        # upsmon adds its message as an argument; a NOTIFYCMD behind a semicolon gets it instead of ours
        assert program("event", "UPS ups@localhost on battery", NOTIFYTYPE="ONBATT", UPSNAME="ups@localhost") == 0
        assert listener.recv(100) == b"ONBATT\nups@localhost"
        assert program("event", NOTIFYTYPE="ONBATT", UPSNAME="ups@localhost") == 0
        assert listener.recv(100) == b"ONBATT\nups@localhost"
    assert program.out + program.err == []


def test_an_event_without_a_service_is_an_error_that_upsmon_survives(program: Program) -> None:
    assert program("event", NOTIFYTYPE="ONBATT") == 1
    assert program.err == ["nut-notify: the event ONBATT is lost, because nut-notify.service does not run"]
    assert 10 < program.slept < 30


def test_an_event_waits_for_a_service_that_is_starting(program: Program) -> None:
    program.starts_after = 5.0
    assert program("event", NOTIFYTYPE="ONBATT") == 0
    assert program.listener is not None
    assert program.listener.recv(100) == b"ONBATT\n"
    program.listener.close()


def test_a_test_shows_what_became_of_each_message(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "SENDMAIL", "/bin/true")
    monkeypatch.setattr(sender, "own_deliverer", lambda: ["/bin/false"])
    assert program("test") == 1
    assert program.out == ["target 1 (ntfy): exit code 1", "target 2 (mail to root): sent"]


def test_status_and_preview_have_no_secret(program: Program) -> None:
    assert program("status") == 0
    assert program("preview") == 0
    assert program.out[:2] == ["target 1 (ntfy): 0 messages wait", "target 2 (mail to root): 0 messages wait"]
    assert "s3cr3t" not in str(program.out + program.err)


@pytest.mark.parametrize("text", ["{", '{"version": 2, "targets": []}', '{"version": 1, "targets": [{}]}'])
@pytest.mark.parametrize("command", ["run", "test", "status", "preview"])
def test_targets_that_can_not_be_used_are_a_usage_error(program: Program, command: str, text: str) -> None:
    program.write_targets(text)
    assert program(command) == 2
    assert program.err[0].startswith("nut-notify: $")


@pytest.mark.parametrize("words", [(), ("tell",), ("run", "--fast")])
def test_a_wrong_command_line_is_a_usage_error(program: Program, words: Any) -> None:
    assert program(*words) == 2
