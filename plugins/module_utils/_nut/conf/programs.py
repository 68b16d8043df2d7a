# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks the programs and files that NUT's files name as the user that will use them.

upsmon runs SHUTDOWNCMD as root, and NOTIFYCMD as RUN_AS_USER; upssched, which is a NOTIFYCMD, runs CMDSCRIPT and makes PIPEFN and
LOCKFN as the same user. Root may run and write nearly everything, so nothing is asked as root that another user does.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..base import paths
from ..base.files import Owner
from ..base.spelling import list_words
from ..base.systemd import Run
from .files import NutFiles

ROOT = "root"
DEFAULT_USER = "nut"
"""What Debian's NUT was built with: the user of upsmon and of the drivers if no file names another."""
# of a script, with room for the longest interpreter that the kernel takes
_FIRST_LINE = 256
_IS_KNOWN = 'command -v "$1" >/dev/null'
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_EXPANDED = re.compile(r"[$`*?~]")
_INTERPRETER = re.compile(r"(ba|da|k|z)?sh|(python|perl|ruby|php|lua)[0-9.]*|node")
# the sample of CMDSCRIPT in NUT's package
_SAMPLE_MARKS = ("This script should be called by upssched via the CMDSCRIPT directive", "Unrecognized command")
_SAMPLE_SIZE = 20_000


def upsmon_user(files: NutFiles) -> str:
    """Return the user that upsmon runs NOTIFYCMD as."""
    return files.directive("upsmon.conf", "RUN_AS_USER") or DEFAULT_USER


def find_unrunnable(texts: Mapping[str, str], runner: Run) -> list[str]:
    """Return which programs that the files name can't be run by the user that runs them: NUT tells only when it needs them."""
    files = NutFiles.of(texts)
    user = upsmon_user(files)
    wrong = []
    for name, directive, who in (
        ("upsmon.conf", "SHUTDOWNCMD", ROOT),
        ("upsmon.conf", "NOTIFYCMD", user),
        ("upssched.conf", "CMDSCRIPT", user),
    ):
        command = files.directive(name, directive)
        if command and (name != "upssched.conf" or _has_rules(files)):
            commands = _split_command(command)
            if not commands:
                wrong.append(f"{name}: {directive}: a shell can't read this command. Check its quotes")
            for words in commands:
                if words[0] == f"/{paths.NOTIFY_PROGRAM}":
                    continue  # our own, which the same run installs
                problem = find_program_problem(words[0], who, runner) or _find_script_argument_problem(
                    words, who, runner
                )
                wrong += [f"{name}: {directive} {words[0]}: {problem}"] if problem else []
    return wrong


def find_unhandled(texts: Mapping[str, str]) -> list[str]:
    """Return a warning if CMDSCRIPT is the sample of NUT's package, which does nothing for most names."""
    files = NutFiles.of(texts)
    script = find_program(files.directive("upssched.conf", "CMDSCRIPT") or "")
    try:
        text = Path(script).read_bytes()[:_SAMPLE_SIZE].decode("utf-8", "replace") if script.startswith("/") else ""
    except OSError:
        text = ""
    if not all(mark in text for mark in _SAMPLE_MARKS):
        return []
    names = dict.fromkeys(
        name for name in _names_of_rules(files) if not re.search(rf"^\s*{re.escape(name)}\)", text, re.MULTILINE)
    )
    if not names:
        return []
    return [
        f"upssched.conf: CMDSCRIPT {script} is the sample of NUT's package, which does nothing for {list_words(names)}. Write a program of "
        "your own, and name it in nut_server_upssched_conf or nut_client_upssched_conf (CMDSCRIPT)"
    ]


def find_unreadable(texts: Mapping[str, str], owner: Owner, runner: Run) -> list[str]:
    """Return what the user of upsmon can't read, although upsmon reads it as this user: its own files, and its certificates.

    owner: user and group of NUT's files, which only these can read.
    """
    files = NutFiles.of(texts)
    user = files.directive("upsmon.conf", "RUN_AS_USER")
    wrong = []
    if user and user not in (ROOT, owner[0]) and not _is_member(user, owner[1]):
        wrong.append(
            f"upsmon.conf: RUN_AS_USER {user}: this user is not in the group {owner[1]}, so it can't read NUT's files: upsmon could not "
            f"reload, and upssched would not run. Leave RUN_AS_USER out, or run: usermod -aG {owner[1]} {user}"
        )
    path = files.directive("upsmon.conf", "CERTPATH")
    who = upsmon_user(files)
    if path and Path(path).is_dir() and not _try_as(who, runner, 'test -r "$1" && test -x "$1"', path):
        wrong.append(f"upsmon.conf: CERTPATH {path}: user {who} can't read it, so upsmon could not connect by TLS")
    return wrong


def find_unwritable(texts: Mapping[str, str], runner: Run) -> list[str]:
    """Return the files of upssched that its user can't make: it then runs no timer, and says so only in the journal."""
    files = NutFiles.of(texts)
    user = upsmon_user(files)
    wrong = []
    for directive in ("PIPEFN", "LOCKFN") if _has_rules(files) else ():
        path = files.directive("upssched.conf", directive)
        if path and Path(path).parent.is_dir():
            folder = str(Path(path).parent)
            if not _try_as(user, runner, 'test -w "$1" && test -x "$1"', folder):
                wrong.append(
                    f"upssched.conf: {directive} {path}: user {user} can't make files in {folder}, so no timer would run. "
                    f"Put it below /run/nut, such as /run/nut/{Path(path).name}"
                )
    return wrong


def find_program(command: str) -> str:
    """Return the program of a command, as a shell finds it; "" if it has none."""
    commands = _split_command(command)
    return commands[0][0] if commands else ""


def _split_command(text: str) -> list[list[str]]:
    """Return the words of each command in a line of the shell, without assignments and redirections. [] if it can't be read."""
    try:
        # a shell runs it: so what ends a word there ends it here
        lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = ""
        words = list(lexer)
    except ValueError:
        return []
    commands: list[list[str]] = [[]]
    skipped = False
    for word in words:
        if skipped:
            skipped = False
        elif word and not word.strip("<>&|;()"):
            # the word after a redirection is a file
            skipped = "<" in word or ">" in word
            if not skipped:
                commands.append([])
        elif commands[-1] or not _ASSIGNMENT.match(word):
            commands[-1].append(word)
    found = [command for command in commands if command]
    # words of a case are patterns, not programs
    return found[:1] if any(command[0] == "case" for command in found) else found


def _has_rules(files: NutFiles) -> bool:
    """Return whether upssched.conf has AT lines: without them nothing calls upssched."""
    return any(line.words[0] == "AT" for line in files.statements("upssched.conf"))


def _names_of_rules(files: NutFiles) -> list[str]:
    """Return the names with which upssched calls CMDSCRIPT."""
    rules = [
        line.values for line in files.statements("upssched.conf") if line.words[0] == "AT" and len(line.values) > 3
    ]
    return [name for values in rules for name in ([values[3]] if not values[2].startswith("CANCEL") else values[4:5])]


def _is_member(user: str, group: str | int) -> bool:
    try:
        number = group if isinstance(group, int) else grp.getgrnam(group).gr_gid
        return number in os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        # no such user or group on this host: host.find_missing() says so
        return True


def find_program_problem(program: str, user: str, runner: Run) -> str:
    """Return why a user can't run a program, and what to do; "" if it can."""
    path = Path(program)
    if not program.startswith("/"):
        # only a shell knows what these mean; words of its own are programs, too
        is_known = _EXPANDED.search(program) or _try_as(user, runner, _IS_KNOWN, program)
        return "" if is_known else "there is no such program on this host"
    if not path.is_file():
        return "there is no such program on this host"
    if not _try_as(user, runner, 'test -x "$1"', program):
        if path.stat().st_mode & 0o111 and os.statvfs(path).f_flag & os.ST_NOEXEC:
            return "it is on a file system that is mounted with noexec. Put it elsewhere, such as into /usr/local/bin"
        if user == ROOT or not os.access(path, os.X_OK):
            return f"it is not executable. Run: chmod 0755 {shlex.quote(program)}"
        return f"user {user} can't run it. {_open_to_all(path)}"
    return _find_script_problem(path, user, runner)


def _find_script_problem(path: Path, user: str, runner: Run) -> str:
    """Return why a user can't run a script that is executable, and what to do; "" if it can, or if it is no script."""
    try:
        with path.open("rb") as file:
            start = file.read(_FIRST_LINE)
    except OSError:
        return ""
    if not start:
        return "it is empty, so it does nothing"
    if not start.startswith(b"#!"):
        return _find_hidden_interpreter(start)
    line = start[2:].split(b"\n")[0].decode("utf-8", "replace")
    if line.endswith("\r"):
        return f"its first line ends in CRLF, so its interpreter is never found. Run: sed -i 's/\\r$//' {shlex.quote(str(path))}"
    if not _try_as(user, runner, 'test -r "$1"', str(path)):
        return f"it is a script, and user {user} can't read it. {_open_to_all(path)}"
    return _find_interpreter_problem(line.strip(" \t"), user, runner)


def _find_interpreter_problem(line: str, user: str, runner: Run) -> str:
    """Return why the interpreter in the first line of a script can't be run, without the #!; "" if it can."""
    # the kernel takes all that follows the interpreter as one argument
    interpreter, *rest = re.split(r"[ \t]+", line, maxsplit=1)
    if not _try_as(user, runner, 'test -f "$1" && test -x "$1"', interpreter):
        return f"there is no {interpreter} for its first line on this host, or {user} can't run it"
    called = _find_program_of_env(rest[0]) if Path(interpreter).name == "env" and rest else ""
    if not called or _try_as(user, runner, _IS_KNOWN, called):
        return ""
    split = f", since env takes it as one word. Write: #!{interpreter} -S {rest[0]}" if " " in called else ""
    return f"there is no {called} for its first line on this host{split}"


def _find_hidden_interpreter(start: bytes) -> str:
    """Return why a file whose first bytes are not #! does not run with the interpreter that it names; "" if it names none."""
    before, mark, rest = start.partition(b"#!")
    if not mark or before.strip(b"\xef\xbb\xbf \t\r\n"):
        return ""
    interpreter = rest.split(b"\n")[0].decode("utf-8", "replace").strip()
    # a shell runs it then, for which many scripts are written anyway
    if interpreter.endswith("sh") and b"\xef" not in before:
        return ""
    what = "a byte order mark is" if b"\xef" in before else "there is a blank or an empty line"
    return f"{what} before #!, so a shell runs it instead of {interpreter}. Remove it"


def _find_program_of_env(argument: str) -> str:
    """Return the program that env runs, for the one argument that the kernel gives it."""
    if not argument.startswith(("-S", "--split-string")):
        return "" if argument.startswith("-") or _ASSIGNMENT.match(argument) else argument
    words = re.sub(r"^(-S|--split-string=?)", "", argument).split()
    return next((word for word in words if not word.startswith("-") and not _ASSIGNMENT.match(word)), "")


def _find_script_argument_problem(words: Sequence[str], user: str, runner: Run) -> str:
    """Return why a user can't run the script that an interpreter gets as its argument; "" if it can, or if there is none."""
    if not _INTERPRETER.fullmatch(Path(words[0]).name):
        return ""
    # -c and -m have no script
    script = next((word for word in words[1:] if not word.startswith("-") or word in ("-c", "-m")), "")
    if not script.startswith("/"):
        return ""
    path = Path(script)
    if not _try_as(user, runner, 'test -r "$1"', script):
        if not path.exists():
            return f"there is no {script} on this host"
        return f"user {user} can't read {script}. {_open_to_all(path)}"
    return ""


def _open_to_all(path: Path) -> str:
    """Return what to do so that every user can run a file: it, or the directory that keeps them out."""
    closed = [str(parent) for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]
    if closed:
        return f"{closed[0]} is closed to other users: put the program elsewhere, such as /usr/local/bin"
    return f"Run: chmod 0755 {shlex.quote(str(path))}"


def _try_as(user: str, runner: Run, test: str, argument: str) -> bool:
    """Return whether a test in the shell's language succeeds for a user. The user is this one, if it can't become another."""
    return runner([*_become(user), "sh", "-c", test, "sh", argument])[0] == 0


def _become(user: str) -> Sequence[str]:
    if user == ROOT or os.geteuid() != 0:
        return ()
    try:
        group = pwd.getpwnam(user).pw_gid
    except KeyError:
        return ()
    return ("setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups")
