# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import email
import json
import os
import time
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify import sender
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.sender import Attempt, Post
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.targets import Target

SECRET = "ntfy://s3cr3t-token@ntfy.example/topic"
TARGET = Target(1, url=SECRET)
POST = Post("[pve] Mains failed: ups is on battery", "The battery has 38 min left.\nTime: now.", "warning", 1e9)


def run_program(text: str, target: Target = TARGET, seconds: float = 20.0) -> tuple[str, Attempt]:
    """Run an attempt whose program is a Python text, and return what became of it."""
    attempt = sender.begin_attempt(target, POST, ["/usr/bin/python3", "-c", text])
    end = time.monotonic() + seconds
    while (outcome := attempt.poll()) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return outcome, attempt


def test_the_url_reaches_the_program_on_its_standard_input_only() -> None:
    outcome, attempt = run_program(
        "import json, os, sys; job = json.load(sys.stdin); print(job['url'] in str(sys.argv) + str(os.environ), *job.values());"
        " sys.exit(1)"
    )
    assert outcome == f"False {SECRET} {POST.title} {' '.join(POST.body.split())} warning"
    assert attempt.process is not None
    assert SECRET not in str(attempt.process.args)


def test_a_program_that_succeeds_has_sent_the_message() -> None:
    assert run_program("pass")[0] == ""


def test_the_answer_of_a_program_that_fails_is_one_safe_line() -> None:
    outcome, _attempt = run_program("print('refused\\x1b[2J\\nhomelab.nut: all is well'); raise SystemExit(1)")
    assert outcome == r"refused\x1b[2J homelab.nut: all is well"


def is_group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


TROUBLE = {
    "hangs": "import time; time.sleep(600)",
    "hangs and can't be ended politely": "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)",
    "floods": "while True: print('x' * 1000)",
    "has a child that hangs": "import subprocess; subprocess.run(['sleep', '600'])",
}


@pytest.mark.parametrize("text", TROUBLE.values(), ids=TROUBLE)
def test_a_program_that_does_not_end_is_killed_with_all_its_children(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "SECONDS", 1.5)
    outcome, attempt = run_program(text)
    assert outcome.startswith("no answer within 1.5 s")
    assert attempt.process is not None
    assert attempt.process.wait(5) == -9
    group, end = attempt.process.pid, time.monotonic() + 5
    while is_group_alive(group):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_program_that_is_missing_is_no_exception() -> None:
    attempt = sender.begin_attempt(TARGET, POST, ["/nonexistent/program"])
    assert attempt.poll() == "/nonexistent/program: No such file or directory"


def test_mail_goes_to_sendmail_with_the_time_of_the_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, taken = tmp_path / "sendmail", tmp_path / "taken"
    program.write_text(f'#!/bin/sh\necho "$*" >{taken}.words\ncat >{taken}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sender, "SENDMAIL", str(program))
    assert run_program("", Target(1, mail="root"))[0] == ""
    assert Path(f"{taken}.words").read_text() == "-i -- root\n"
    mail = email.message_from_bytes(taken.read_bytes())
    assert (mail["To"], mail["Subject"], mail["Auto-Submitted"]) == ("root", POST.title, "auto-generated")
    assert email.utils.parsedate_to_datetime(mail["Date"]).timestamp() == 1e9
    assert mail.get_payload() == POST.body + "\n"


def test_a_host_without_a_mail_server_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "SENDMAIL", "/nonexistent/sendmail")
    outcome, _attempt = run_program("", Target(1, mail="root"))
    assert outcome == "/nonexistent/sendmail: No such file or directory. Install a mail server, such as postfix"


def test_a_program_that_speaks_with_the_network_is_not_root() -> None:
    outcome, _attempt = run_program("import os; print(os.getuid(), os.getgid(), os.getgroups()); raise SystemExit(1)")
    nobody, own = f"{sender.NOBODY} {sender.NOBODY} []", f"{os.getuid()} {os.getgid()} {os.getgroups()}"
    assert outcome == (nobody if os.geteuid() == 0 else own)


def test_own_deliverer_ignores_what_users_install() -> None:
    command = sender.own_deliverer()
    assert command[1] == "-I"
    assert command[3] == "deliver"
    assert json.dumps(command)
