# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nothing in nut-shutdown powers anything off, its unit does; and no rehearsal begins a shutdown. Looked for in the text of all of it.

The sandbox of the drill is what really keeps that. This shows a reviewer each place that may do harm, and why it may be there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[5]
LIBRARY = ROOT / "plugins/module_utils/_nut"
FILES = {
    str(path.relative_to(base)): path
    for base, pattern in (
        (LIBRARY, "shutdown/*.py"),
        (LIBRARY, "rehearsal/*.py"),
        (LIBRARY, "proxmox/startup.py"),
        (LIBRARY, "programs/nut_shutdown.py"),
        (ROOT / "roles", "nut_server/files/*.py"),
    )
    for path in sorted(base.glob(pattern))
    if path.name != "__init__.py"
}

WORDS = re.compile(
    r"systemctl|/sbin/|poweroff|reboot|\bhalt\b|shutdown -|init [06]|isolate|sysrq|killpower|upsmon -|-c fsd|FSD ups"
)
NAMES = re.compile(
    r"subprocess|system|popen|exec[lv]p?e?|posix_spawnp?|kill|killpg|pidfd_send_signal|reboot|syscall|CDLL|run_command|set_fsd|request_fsd"
)

ALLOWED = {
    ("shutdown/fsd.py", "systemctl show --property=MainPID --value -- ?"): "asks which process upsmon is",
    ("shutdown/fsd.py", "pidfd_send_signal"): "tells upsmon to set FSD, for those two that may:",
    ("shutdown/stages_loop.py", "request_fsd"): "a stage that says so",
    ("shutdown/stages_loop.py", "set_fsd"): "the same; tests have their own",
    ("programs/nut_shutdown.py", "request_fsd"): "`nut-shutdown fsd`",
    ("shutdown/return_keeper.py", "run_command"): "wakes a machine, with the user's command",
    (
        "shutdown/observe.py",
        "fsd()",
    ): "sets FSD again, of a shutdown that upsmon has begun, where upsd has forgotten it",
    ("proxmox/startup.py", "systemctl show --property=LoadState,ActiveState,MainPID,ControlPID -- ?"): "asks",
    ("proxmox/startup.py", "systemctl kill ? ? -- ?"): "ends the start of guests, in a shutdown",
    ("proxmox/startup.py", " would do it at the poweroff. See systemctl status "): "says what a shutdown would do",
    ("proxmox/startup.py", " would shut them down at the poweroff"): "the same",
    ("proxmox/startup.py", "systemctl status "): "a remedy: what to do if the start of guests has failed",
    ("proxmox/startup.py", ": at the poweroff, Proxmox VE would shut down its guests"): "the same",
    ("proxmox/startup.py", "can't have the guests shut down at the poweroff: "): "says that this failed",
    ("proxmox/startup.py", " will shut down the guests at the poweroff, within "): "says what will be done",
    ("shutdown/watch_loop.py", "systemctl * ?"): "kills and restarts upsd, which hangs",
    ("shutdown/watch_loop.py", "systemctl "): "says that this failed",
    ("rehearsal/fitness.py", " is masked: this host would not power off. Run systemctl unmask "): "says what to do",
    (
        "rehearsal/fitness.py",
        " is not running, so nothing would set FSD. See systemctl status ",
    ): "says what to do",
    ("rehearsal/outside.py", "subprocess"): "starts the inner half, by systemd-run",
    ("rehearsal/outside.py", "systemctl stop -- ?"): "ends the drill's own unit",
    ("rehearsal/recorder.py", "systemctl stop -- ?"): "ends a recorder's unit that was forgotten",
    ("rehearsal/report.py", "poweroff"): "the name of a moment",
    ("rehearsal/sandbox.py", "SystemCallFilter=~@reboot"): "forbids it",
    ("rehearsal/sandbox.py", "proc/sysrq-trigger"): "is looked at: nothing in the sandbox may write it",
    ("rehearsal/simulation.py", "subprocess"): "starts NUT's own programs, inside of the sandbox",
    ("rehearsal/simulation.py", "killpg"): "ends them",
    ("rehearsal/simulation.py", "killpower"): "the POWERDOWNFLAG of the sandbox",
}
"""What is found in each file, and why it may be there."""


def find_harm(source: str) -> set[str]:
    """Return what in a program could power something off: commands, other texts that name it, and calls. Docstrings are none."""
    tree = ast.parse(source)
    passed = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple)) and _is_harm(words := list(map(_text, node.elts))):
            found.add(" ".join(words))
            passed |= {id(each) for each in node.elts}
        elif isinstance(node, (ast.Attribute, ast.Name, ast.alias)):
            name = {ast.Attribute: "attr", ast.Name: "id", ast.alias: "name"}[type(node)]
            found |= {word for word in [getattr(node, name)] if NAMES.fullmatch(word)}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fsd":
            found.add("fsd()")  # of a client of upsd
    return found | {words for node in ast.walk(tree) if id(node) not in passed and WORDS.search(words := _text(node))}


def _is_harm(words: list[str]) -> bool:
    """Return whether this is a command that does harm, and no list of texts of which some would."""
    return bool(
        words and WORDS.search(" ".join(words)) and (WORDS.search(words[0]) or not any(map(WORDS.search, words[1:])))
    )


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Starred):
        return "*"
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "?"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('run(["systemctl", "poweroff"])', {"systemctl poweroff"}),
        ('run(["upsmon", "-c", "fsd"])', {"upsmon -c fsd"}),
        ('run(("/sbin/shutdown", "-h", when))', {"/sbin/shutdown -h ?"}),
        ('command = f"{program} shutdown -h +0"', {" shutdown -h +0"}),
        ('WORDS = {"a": "upsmon -c fsd"}', {"upsmon -c fsd"}),
        ('Path("/proc/sysrq-trigger").write_text("o")', {"/proc/sysrq-trigger"}),
        ("os.system(words)", {"system"}),
        ("from os import execv\nexecv(path, [])", {"execv"}),
        ("send = signal.pidfd_send_signal", {"pidfd_send_signal"}),
        ("client.fsd(ups)", {"fsd()"}),
        ('"""A docstring about poweroff."""\nx = state.fsd  # reboot', set()),
        ('run(["qm", "shutdown", number])', set()),
    ],
)
def test_harm_is_found(source: str, found: set[str]) -> None:
    assert find_harm(source) == found


@pytest.mark.parametrize("name", FILES)
def test_nothing_powers_anything_off(name: str) -> None:
    allowed = {words for file, words in ALLOWED if file == name}
    # what is no longer there needs no reason, either
    assert find_harm(FILES[name].read_text(encoding="utf-8")) == allowed


def test_the_files_are_looked_at() -> None:
    assert {"shutdown/gate_loop.py", "programs/nut_shutdown.py", "nut_server/files/nut_shutdown.py"} <= FILES.keys()
    assert {file for file, _words in ALLOWED} <= FILES.keys()
    assert any(name.startswith("rehearsal/") for name in FILES)
