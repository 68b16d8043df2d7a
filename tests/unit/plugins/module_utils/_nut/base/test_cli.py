# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.cli import (
    OK,
    USAGE,
    Parser,
    ProgramExit,
    make_printing,
)


class Program:
    """A program with two commands, and its output."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self.parser = Parser(
            prog="tool", description="Do work.", epilog="exit codes", out=self.out.append, err=self.err.append
        )
        self.parser.add_command("look", "show the state").add_argument("--json", action="store_true")
        act = self.parser.add_command("act", "do the work", "examples:\n  tool act")
        act.add_argument("--force", action="store_true", help="skip all checks")

    def refused(self, *arguments: str) -> int:
        """Return the exit code of the program."""
        with pytest.raises(ProgramExit) as caught:
            self.parser.parse_args(list(arguments))
        return caught.value.code


def test_command_takes_only_own_options() -> None:
    options = Program().parser.parse_args(["look", "--json"])
    assert (options.command, options.json) == ("look", True)
    assert not hasattr(options, "force")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "tool: the following arguments are required: COMMAND. See tool --help"),
        (("dance",), "invalid choice: 'dance' (choose from"),
        (("look", "--force"), "tool look: unrecognized arguments: --force. See tool look --help"),
        (("act", "--json"), "unrecognized arguments: --json"),
        (("--json", "look"), "tool: unrecognized arguments: --json. See tool --help"),
        (("look", "--js"), "unrecognized arguments: --js"),
        (("look", "\x1b[2J"), r"unrecognized arguments: \x1b[2J"),
    ],
)
def test_unknown_argument_is_an_error(arguments: tuple[str, ...], words: str) -> None:
    program = Program()
    assert program.refused(*arguments) == USAGE
    assert program.out == []
    assert words in program.err[0]


def test_help_lists_all_commands() -> None:
    program = Program()
    assert program.refused("--help") == OK
    assert program.err == []
    (text,) = program.out
    assert "usage: tool [-h] COMMAND ..." in text
    assert "    look      show the state\n    act       do the work\n" in text
    assert text.endswith("\n\nexit codes")
    assert "--json" not in text


def test_help_of_a_command_lists_only_own_options() -> None:
    program = Program()
    assert program.refused("act", "--help") == OK
    (text,) = program.out
    assert text.startswith("usage: tool act [-h] [--force]\n\nDo the work.\n")
    assert "  --force     skip all checks\n" in text
    assert "--json" not in text
    assert text.endswith("\n\nexamples:\n  tool act")


def test_output_is_printable() -> None:
    lines: list[str] = []
    make_printing(lines.append)("first\n\x1b[2Jsecond")
    assert lines == ["first\n\\x1b[2Jsecond"]
