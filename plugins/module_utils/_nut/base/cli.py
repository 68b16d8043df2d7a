# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the command lines of our programs on a host have in common."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any, Callable, NoReturn

from .commands import spell_commands
from .text import WHOLE, printable, printable_text

PrintText = Callable[[str], None]

OK, FAILED, USAGE = 0, 1, 2


def make_printing(say: PrintText) -> PrintText:
    """Return a function that prints text, of one or more lines, made safe for a terminal and the journal."""
    # JSON is one line of any length, so nothing is cut
    return lambda text: say(printable_text(spell_commands(text), WHOLE, WHOLE))


class ProgramExit(Exception):
    """Raised where argparse would end the program, with its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Parser(argparse.ArgumentParser):
    """A parser that neither prints nor exits: it calls out and err, and raises ProgramExit. Options can't be abbreviated."""

    def __init__(self, *, out: PrintText, err: PrintText, **words: Any) -> None:
        """out, err: print a text. words: arguments of ArgumentParser (prog, description, epilog)."""
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **words)
        self.out, self.err = out, err
        self.color = False  # Python 3.14 would colour the help
        self.commands: argparse._SubParsersAction[Parser] | None = None

    def add_command(self, name: str, summary: str, epilog: str = "") -> Parser:
        """Add a subcommand and return its parser. The chosen name will be in ``command``. Options of the main parser are not inherited."""
        if self.commands is None:
            parser = partial(Parser, out=self.out, err=self.err)
            self.commands = self.add_subparsers(  # type: ignore[call-overload]
                title="commands", dest="command", metavar="COMMAND", required=True, parser_class=parser
            )
        return self.commands.add_parser(
            name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}.", epilog=epilog
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown arguments here: otherwise the error would name the main program's --help instead of the subcommand's."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _print_message(self, message: str, file: Any | None = None) -> None:
        (self.out if file is None else self.err)(message.rstrip("\n"))

    def print_help(self, file: Any | None = None) -> None:
        self.out(self.format_help().rstrip("\n"))

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            self.err(message.rstrip("\n"))
        raise ProgramExit(status)

    def error(self, message: str) -> NoReturn:
        self.err(f"{self.prog}: {printable(message)}. See {self.prog} --help")
        raise ProgramExit(USAGE)
