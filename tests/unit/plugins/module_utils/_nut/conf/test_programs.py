# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs and files are tried as the user of upsmon. The tests take nobody for that, so they must run as root."""

from __future__ import annotations

import pwd
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MON = "MONITOR ups@localhost 1 u p primary\nRUN_AS_USER nobody\n"
RULE = "AT ONBATT * EXECUTE x\n"
SCRIPT = "#!/bin/sh\ntrue\n"


def shell(command: Sequence[str]) -> tuple[int, str]:
    assert command[0] in ("sh", "setpriv")
    return subprocess.run(command, check=False, capture_output=True).returncode, ""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a directory that everybody can enter; pytest's own are closed to other users."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "/bin/sh -c true"\n'}, []),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "/no/such now"\n'}, ["SHUTDOWNCMD /no/such: there is no such program"]),
        ({"upsmon.conf": f"{MON}SHUTDOWNCMD /etc/passwd\n"}, ["SHUTDOWNCMD /etc/passwd: it is not executable"]),
        ({"upsmon.conf": f"{MON}NOTIFYCMD /etc\n"}, ["NOTIFYCMD /etc: there is no such program"]),
        # found as a shell finds it, which runs it
        ({"upsmon.conf": f"{MON}SHUTDOWNCMD sh\n"}, []),
        ({"upsmon.conf": f"{MON}SHUTDOWNCMD shutdwon\n"}, ["SHUTDOWNCMD shutdwon: there is no such program"]),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "exec sh"\n'}, []),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "A=b sh"\n'}, []),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "/bin/sh;/no/such"\n'}, ["SHUTDOWNCMD /no/such: there is no such program"]),
        (
            {"upsmon.conf": f'{MON}SHUTDOWNCMD "/bin/sh || shutdwon -h +0"\n'},
            ["SHUTDOWNCMD shutdwon: there is no such program"],
        ),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "/bin/sh && A=/b /bin/sh | sh"\n'}, []),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "/bin/sh>/dev/null"\n'}, []),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "/bin/sh >/no/such 2>&1 </no/other"\n'}, []),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "/bin/sh&"\n'}, []),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "if [ -e /no/such ]; then sh; else sh; fi"\n'}, []),
        ({"upsmon.conf": f'{MON}SHUTDOWNCMD "case x in a) sh;; *) true;; esac"\n'}, []),
        ({"upsmon.conf": f"{MON}SHUTDOWNCMD $HOME/down\n"}, []),
        (
            {"upsmon.conf": f"{MON}SHUTDOWNCMD 'sh\n"},
            ["SHUTDOWNCMD: a shell can't read this command. Check its quotes"],
        ),
        ({"upssched.conf": "CMDSCRIPT /no/such\n"}, []),
        ({"upssched.conf": f"CMDSCRIPT /no/such\n{RULE}"}, ["CMDSCRIPT /no/such: there is no such program"]),
        ({}, []),
    ],
)
def test_programs_that_are_missing_or_not_executable_are_named(files: dict[str, str], wrong: list[str]) -> None:
    found = programs.find_unrunnable(files, shell)
    assert len(found) == len(wrong)
    assert all(expected in problem for expected, problem in zip(wrong, found))


@pytest.mark.parametrize(
    ("mode", "text", "problem"),
    [
        (0o755, SCRIPT, ""),
        (0o700, SCRIPT, "user nobody can't run it. Run: chmod 0755"),
        (0o750, SCRIPT, "user nobody can't run it. Run: chmod 0755"),
        (0o744, SCRIPT, "user nobody can't run it. Run: chmod 0755"),
        (0o711, SCRIPT, "it is a script, and user nobody can't read it. Run: chmod 0755"),
        (0o644, SCRIPT, "it is not executable. Run: chmod 0755"),
        (0o755, "#!/bin/sh\r\ntrue\r\n", "its first line ends in CRLF"),
        (0o755, "#!/usr/bin/env sh\r\n", "its first line ends in CRLF"),
        (0o755, "#!/no/such -x\n", "there is no /no/such for its first line"),
        (0o755, "#!/usr/bin/env no-such-python\n", "there is no no-such-python for its first line"),
        (0o755, "#!/usr/bin/env -S sh -e\n", ""),
        (0o755, "#!/usr/bin/env -S A=b sh -e\n", ""),
        (0o755, "#!/usr/bin/env -S no-such-python -u\n", "there is no no-such-python for its first line"),
        (0o755, "#!/usr/bin/env sh -e\n", "since env takes it as one word. Write: #!/usr/bin/env -S sh -e"),
        (0o755, "#! /bin/sh -e\n", ""),
        (0o755, "#!/bin/sh\t-e\n", ""),
        (0o755, "#!/bin/sh -e\r\n", "its first line ends in CRLF"),
        (0o755, "", "it is empty, so it does nothing"),
        (0o755, "\ufeff#!/bin/sh\n", "a byte order mark is before #!, so a shell runs it instead of /bin/sh"),
        (
            0o755,
            "\n#!/usr/bin/python3\n",
            "there is a blank or an empty line before #!, so a shell runs it instead of /usr/bin/python3",
        ),
        (0o755, " #!/bin/sh\n", ""),
        (0o755, "echo a script for any shell #!\n", ""),
        (0o755, "echo without an interpreter\n", ""),
    ],
)
@pytest.mark.parametrize(("file", "directive"), [("upsmon.conf", "NOTIFYCMD"), ("upssched.conf", "CMDSCRIPT")])
def test_programs_are_tried_as_the_user_of_upsmon(
    folder: Path, file: str, directive: str, *, mode: int, text: str, problem: str
) -> None:
    program = folder / "tell-me"
    program.write_bytes(text.encode())
    program.chmod(mode)
    files = {"upsmon.conf": MON, "upssched.conf": RULE}
    found = programs.find_unrunnable({**files, file: f"{files[file]}{directive} {program}\n"}, shell)
    assert len(found) == bool(problem)
    assert all(f"{file}: {directive} {program}: " in words and problem in words for words in found)


def test_program_in_a_closed_directory_is_named_with_the_directory(folder: Path) -> None:
    closed = folder / "root"
    closed.mkdir(mode=0o700)
    (closed / "tell-me").write_text(SCRIPT)
    (closed / "tell-me").chmod(0o755)
    (problem,) = programs.find_unrunnable({"upsmon.conf": f"{MON}NOTIFYCMD {closed}/tell-me\n"}, shell)
    assert f"user nobody can't run it. {closed} is closed to other users: put the program elsewhere" in problem


def test_shutdown_command_is_tried_as_root(folder: Path) -> None:
    program = folder / "down"
    program.write_text(SCRIPT)
    program.chmod(0o700)
    assert programs.find_unrunnable({"upsmon.conf": f"{MON}SHUTDOWNCMD {program}\n"}, shell) == []


@pytest.mark.parametrize(("mode", "wrong"), [(0o777, 0), (0o755, 2), (0o700, 2), (0o776, 2)])
def test_files_of_upssched_must_be_in_a_directory_that_its_user_can_write(folder: Path, mode: int, wrong: int) -> None:
    room = folder / "nut"
    room.mkdir()
    room.chmod(mode)
    files = {"upsmon.conf": MON, "upssched.conf": f"PIPEFN {room}/upssched.pipe\nLOCKFN {room}/upssched.lock\n{RULE}"}
    found = programs.find_unwritable(files, shell)
    assert len(found) == wrong
    for name, words in zip(("PIPEFN", "LOCKFN"), found):
        assert f"upssched.conf: {name} {room}/upssched." in words
        assert f"user nobody can't make files in {room}, so no timer would run. Put it below /run/nut, such as" in words


@pytest.mark.parametrize("rules", ["", "# AT ONBATT * EXECUTE x\n"])
def test_files_of_upssched_do_not_matter_without_rules(folder: Path, rules: str) -> None:
    folder.chmod(0o700)
    assert programs.find_unwritable({"upssched.conf": f"PIPEFN {folder}/p\nLOCKFN {folder}/l\n{rules}"}, shell) == []


@pytest.mark.parametrize(
    ("mode", "command", "problem"),
    [
        (0o644, "/bin/sh {}", ""),
        (0o600, "/bin/sh {}", "NOTIFYCMD /bin/sh: user nobody can't read {}. Run: chmod 0755"),
        (0o600, "python3 -u {} -v", "NOTIFYCMD python3: user nobody can't read {}"),
        (0o644, "/bin/sh /no/such", "NOTIFYCMD /bin/sh: there is no /no/such on this host"),
        (0o600, "/bin/sh -c true {}", ""),
        (0o600, "/bin/sh -c '{} || true'", ""),
        (0o600, "logger {}", ""),
    ],
)
def test_script_of_an_interpreter_is_tried_as_the_user_of_upsmon(
    folder: Path, mode: int, command: str, problem: str
) -> None:
    script = folder / "tell-me"
    script.write_text(SCRIPT)
    script.chmod(mode)
    found = programs.find_unrunnable({"upsmon.conf": f'{MON}NOTIFYCMD "{command.format(script)}"\n'}, known)
    assert len(found) == bool(problem)
    assert all(problem.format(script) in words for words in found)


def known(command: Sequence[str]) -> tuple[int, str]:
    """Run a test; programs that are looked for exist."""
    return (0, "") if "command -v" in command[-3] else shell(command)


def test_user_of_upsmon_must_be_able_to_read_the_files() -> None:
    files = {"upsmon.conf": MON}
    (problem,) = programs.find_unreadable(files, ("root", "root"), shell)
    assert "RUN_AS_USER nobody: this user is not in the group root, so it can't read NUT's files" in problem
    assert "usermod -aG root nobody" in problem
    assert programs.find_unreadable(files, ("root", pwd.getpwnam("nobody").pw_gid), shell) == []
    assert programs.find_unreadable({"upsmon.conf": "RUN_AS_USER root\n"}, ("root", "nogroup"), shell) == []
    assert programs.find_unreadable({"upsmon.conf": "RUN_AS_USER no-such\n"}, ("root", "root"), shell) == []
    assert programs.find_unreadable({"upsmon.conf": "MINSUPPLIES 1\n"}, ("root", "root"), shell) == []


@pytest.mark.parametrize(("mode", "wrong"), [(0o755, 0), (0o700, 1), (0o744, 1)])
def test_certificates_must_be_readable_for_the_user_of_upsmon(folder: Path, mode: int, wrong: int) -> None:
    folder.chmod(mode)
    files = {"upsmon.conf": f"{MON}CERTPATH {folder}\n"}
    found = programs.find_unreadable(files, ("root", pwd.getpwnam("nobody").pw_gid), shell)
    assert len(found) == wrong
    assert all(f"CERTPATH {folder}: user nobody can't read it" in words for words in found)


SAMPLE = (
    "#!/bin/sh\n# This script should be called by upssched via the CMDSCRIPT directive.\ncase $1 in\n\tupsgone)\n\t\t;;\n"
    '\t*)\n\t\tlogger -t upssched-cmd "Unrecognized command: $1"\n\t\t;;\nesac\n'
)


@pytest.mark.parametrize(
    ("text", "rules", "names"),
    [
        (SAMPLE, "AT ONBATT * START-TIMER early 30\nAT ONLINE * CANCEL-TIMER early back\n", "early and back"),
        (SAMPLE, "AT COMMBAD * START-TIMER upsgone 30\nAT COMMOK * CANCEL-TIMER upsgone\n", ""),
        (SAMPLE.replace("upsgone)", "early)"), "AT ONBATT * EXECUTE early\n", ""),
        (SAMPLE, "", ""),
        (SCRIPT, "AT ONBATT * EXECUTE early\n", ""),
    ],
)
def test_sample_script_of_upssched_does_nothing_for_most_names(folder: Path, text: str, rules: str, names: str) -> None:
    script = folder / "upssched-cmd"
    script.write_text(text)
    found = programs.find_unhandled({"upssched.conf": f"CMDSCRIPT {script}\n{rules}"})
    assert len(found) == bool(names)
    assert all(
        f"CMDSCRIPT {script} is the sample of NUT's package, which does nothing for {names}." in it for it in found
    )
