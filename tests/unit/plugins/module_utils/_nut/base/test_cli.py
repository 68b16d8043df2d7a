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
    """A program of two commands; what it said, and its parser."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self.parser = Parser(
            prog="it", description="Do it.", epilog="exit codes", out=self.out.append, err=self.err.append
        )
        self.parser.add_command("look", "show how it is").add_argument("--json", action="store_true")
        act = self.parser.add_command("act", "do it", "examples:\n  it act")
        act.add_argument("--force", action="store_true", help="whatever the price")

    def refused(self, *arguments: str) -> int:
        """Return the code that it left with."""
        with pytest.raises(ProgramExit) as caught:
            self.parser.parse_args(list(arguments))
        return caught.value.code


def test_a_command_takes_its_own_options() -> None:
    found = Program().parser.parse_args(["look", "--json"])
    assert (found.command, found.json) == ("look", True)
    assert not hasattr(found, "force")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "it: the following arguments are required: COMMAND. See it --help"),
        (("dance",), "invalid choice: 'dance' (choose from"),
        (("look", "--force"), "it look: unrecognized arguments: --force. See it look --help"),
        (("act", "--json"), "unrecognized arguments: --json"),
        (("--json", "look"), "it: unrecognized arguments: --json. See it --help"),
        (("look", "--js"), "unrecognized arguments: --js"),
        (("look", "\x1b[2J"), r"unrecognized arguments: \x1b[2J"),
    ],
)
def test_what_no_command_takes_is_an_error(arguments: tuple[str, ...], words: str) -> None:
    program = Program()
    assert program.refused(*arguments) == USAGE
    assert program.out == []
    assert words in program.err[0]


def test_the_help_lists_the_commands() -> None:
    program = Program()
    assert program.refused("--help") == OK
    assert program.err == []
    (text,) = program.out
    assert "usage: it [-h] COMMAND ..." in text
    assert "    look      show how it is\n    act       do it\n" in text
    assert text.endswith("\n\nexit codes")
    assert "--json" not in text


def test_the_help_of_a_command_shows_its_own_options() -> None:
    program = Program()
    assert program.refused("act", "--help") == OK
    (text,) = program.out
    assert text.startswith("usage: it act [-h] [--force]\n\nDo it.\n")
    assert "  --force     whatever the price\n" in text
    assert "--json" not in text
    assert text.endswith("\n\nexamples:\n  it act")


def test_what_is_said_can_be_shown() -> None:
    said: list[str] = []
    make_printing(said.append)("one\n\x1b[2Jtwo")
    assert said == ["one\n\\x1b[2Jtwo"]
