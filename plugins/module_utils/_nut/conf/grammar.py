# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The grammar of NUT's files and of its network protocol: words, quoting, limits, and valid passwords.

NUT reads all its files except nut.conf, and each line on the wire, with one parser, common/parseconf.c. The grammar is
the same from 2.7.4 to 2.8.5. This file was compared with upsd 2.8.0 and 2.8.1.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WORD_LIMIT = 512
"""Characters of a word; NUT silently drops the rest (PCONF_DEFAULT_WORDLEN_LIMIT)."""

WORDS_LIMIT = 32
"""Words of a line; NUT silently drops the rest (PCONF_DEFAULT_ARG_LIMIT)."""

CREDENTIAL_LIMIT = 501
"""Characters of a password or user name. upsmon writes the whole command, including PASSWORD and a newline, into 512 bytes."""

# C's isspace() in the "C" locale, in which the daemons run. str.isspace() knows many more.
_BLANKS = frozenset(" \t\n\v\f\r")

_BARE = re.compile(r"[A-Za-z0-9_.,:;@/+*%-]+")


class Unencodable(ValueError):
    """NUT could not read this word or line back.

    position: index of the offending character, None if it is not a single character.
    """

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


@dataclass(frozen=True)
class Line:
    """A line as NUT understands it. number: the line of the file on which it begins, counted from 1."""

    number: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """Something on a line of the file (counted from 1) that NUT reads differently than its writer meant."""

    line: int
    message: str


def quote_word(word: str) -> str:
    """Return ``word`` in double quotes, so that NUT reads back exactly ``word``.

    Raises Unencodable for a control character, a character outside ASCII, or more than 512 characters: NUT would drop
    them silently.
    """
    for position, character in enumerate(word):
        name = f"character {position + 1} (U+{ord(character):04X})"
        if not character.isascii():
            raise Unencodable(f"{name} is not ASCII, and NUT drops it: replace it", position)
        if character < " ":
            raise Unencodable(f"{name} is a control character: remove it", position)
    if len(word) > WORD_LIMIT:
        raise Unencodable(f"the word has {len(word)} characters: NUT keeps only the first {WORD_LIMIT}", WORD_LIMIT)
    return '"' + re.sub(r'([\\"#])', r"\\\1", word) + '"'


def join_words(words: Iterable[str]) -> str:
    """Return one line, without its newline, that NUT reads back as exactly ``words``.

    Words that need no quotes get none. Raises Unencodable as quote_word does, and for more than 32 words.
    """
    line = tuple(words)
    if len(line) > WORDS_LIMIT:
        raise Unencodable(f"the line has {len(line)} words: NUT keeps only the first {WORDS_LIMIT}")
    return " ".join(word if len(word) <= WORD_LIMIT and _BARE.fullmatch(word) else quote_word(word) for word in line)


def parse_lines(text: str) -> list[Line]:
    """Return the lines of a file as NUT reads them, without empty ones and those that NUT drops. Never raises."""
    return [
        Line(piece.number, tuple(word.text for word in piece.words))
        for piece in scan_text(text).pieces
        if piece.words and not piece.dropped
    ]


def find_directive(text: str, name: str) -> str | None:
    """Return the value of a directive outside of sections, None if it is not set. As in NUT, the last counts."""
    values = [line.words[1] for line in parse_lines(text) if line.words[0] == name and len(line.words) > 1]
    return values[-1] if values else None


def find_problems(text: str) -> list[Problem]:
    """Return what NUT drops or reads differently than written, in the order of the file. Never raises."""
    return list(scan_text(text).problems)


def find_password_problem(text: str) -> str | None:
    """Return why upsmon and TrueNAS can't use this password, as words that follow "the password"; None if they can.

    upsmon sends it without quotes, and upsd parses it (clients/upsmon.c, do_upsd_auth), so characters with a meaning to the
    parser break the login. upscmd and upsrw do the same. TrueNAS writes it without quotes to its upsmon.conf, and itself
    refuses blanks and number signs. The result names the kind of character, and contains nothing else of the password.
    """
    problem = _credential_problem(text)
    return f"{problem}. Safe characters are letters, digits, '.', '_' and '-'" if problem else None


def find_user_problem(text: str) -> str | None:
    """Return why this can't be the name of a user of upsd, as words that follow "the user name"; None if it can.

    The rules are those for passwords.
    """
    return find_password_problem(text)


_TROUBLE = {
    " ": "a space",
    "#": "a '#'",
    "=": "a '='",
    "\\": "a backslash",
}


def _credential_problem(text: str) -> str | None:
    problem = None
    if not text:
        problem = "is empty"
    elif len(text) > CREDENTIAL_LIMIT:
        problem = f"has {len(text)} characters: upsmon truncates it after {CREDENTIAL_LIMIT}"
    elif not text.isascii():
        problem = "contains a character outside ASCII: NUT drops it"
    elif min(text) < " ":
        problem = "contains a control character (such as a tab or a newline): NUT drops it"
    elif text.startswith('"'):
        # inside a word it is an ordinary character
        problem = (
            "begins with a double quote: upsmon sends it unchanged, and upsd reads it as the start of a quoted word"
        )
    else:
        found = [name for character, name in _TROUBLE.items() if character in text]
        if found:
            problem = (
                f"contains {' and '.join(found)}: upsmon sends it unquoted, and upsd would read a different password"
            )
    return problem


class _ScanState(enum.Enum):
    BETWEEN = enum.auto()
    WORD = enum.auto()
    WORD_ESCAPE = enum.auto()
    QUOTED = enum.auto()
    QUOTED_ESCAPE = enum.auto()
    COMMENT = enum.auto()


@dataclass(frozen=True)
class Word:
    text: str
    start: int  # offsets into the file, with quotes and backslashes
    end: int


@dataclass(frozen=True)
class Piece:
    """A line to NUT: usually one line of the file, sometimes several, after an error the rest of one."""

    number: int
    words: tuple[Word, ...]
    start: int
    end: int  # without its newline
    comment: int | None  # offset of the '#'
    dropped: bool  # whether NUT discards it
    clean: bool  # whether NUT reads it exactly as written
    after_error: bool  # whether it begins in the middle of a line, where NUT gave up on the previous one


@dataclass(frozen=True)
class Scan:
    pieces: tuple[Piece, ...]
    problems: tuple[Problem, ...]


class _Scanner:
    """NUT's state machine, including its oddities. Each instance scans one file."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pieces: list[Piece] = []
        self._problems: list[Problem] = []
        self._number = 1  # of the line of the file that is being read
        self._begin_line(0, after_error=False)

    def _begin_line(self, start: int, *, after_error: bool) -> None:
        self._state = _ScanState.BETWEEN
        self._start = start
        self._first_number = self._number
        self._words: list[Word] = []
        self._word: list[str] = []
        self._word_start = start
        self._comment: int | None = None
        self._after_error = after_error
        self._clean = True
        self._complained: set[tuple[int, str]] = set()

    def scan_text(self) -> Scan:
        for offset, character in enumerate(self._text):
            self._read_character(offset, character)
            if character == "\n":
                self._number += 1
                if self._state is _ScanState.BETWEEN and self._start > offset:
                    self._first_number = self._number
        self._finish_text()
        return Scan(tuple(self._pieces), tuple(self._problems))

    def _read_character(self, offset: int, character: str) -> None:
        state = self._state
        if state is _ScanState.BETWEEN:
            self._read_between_words(offset, character)
        elif state is _ScanState.WORD:
            self._read_in_word(offset, character)
        elif state is _ScanState.QUOTED:
            self._read_in_quotes(offset, character)
        elif state is _ScanState.COMMENT:
            if character == "\n":
                self._end_line(offset)
        else:
            # After a backslash, every character is a letter, except a newline: the word continues on the next line.
            if character != "\n":
                self._add_to_word(character)
            self._state = _ScanState.WORD if state is _ScanState.WORD_ESCAPE else _ScanState.QUOTED

    def _read_between_words(self, offset: int, character: str) -> None:
        if character == "\n":
            self._end_line(offset)
        elif character == "#":
            self._comment = offset
            self._state = _ScanState.COMMENT
        elif character not in _BLANKS:
            self._word_start = offset
            if character == "\\":
                self._state = _ScanState.WORD_ESCAPE
            elif character == '"':
                self._state = _ScanState.QUOTED
            else:
                self._add_to_word(character)
                self._state = _ScanState.WORD
                if character == "=":
                    self._end_word(offset + 1)

    def _read_in_word(self, offset: int, character: str) -> None:
        if character == "\\":
            self._state = _ScanState.WORD_ESCAPE
        elif character in _BLANKS or character in "#=":
            self._end_word(offset)
            self._read_between_words(offset, character)
        else:
            self._add_to_word(character)

    def _read_in_quotes(self, offset: int, character: str) -> None:
        if character == '"':
            self._end_word(offset + 1)
        elif character == "\\":
            self._state = _ScanState.QUOTED_ESCAPE
        elif character == "#":
            self._add_problem(
                "a # inside quotes needs a backslash in front of it:"
                " NUT drops this line, and reads the text after the # as a new line"
            )
            self._end_word(offset)
            self._end_line(offset, after_error=True)
        else:
            self._add_to_word(character)

    def _add_to_word(self, character: str) -> None:
        if character == "\n":
            self._add_problem("quotes are still open at the end of the line: NUT continues the word on the next line")
        elif character < " " or character > "\x7f":
            self._add_problem(f"NUT drops the character U+{ord(character):04X}: it is not printable ASCII")
        elif len(self._word) >= WORD_LIMIT:
            self._add_problem(f"a word has more than {WORD_LIMIT} characters: NUT drops the rest of it")
        else:
            self._word.append(character)

    def _end_word(self, end: int) -> None:
        if len(self._words) < WORDS_LIMIT:
            self._words.append(Word("".join(self._word), self._word_start, end))
        else:
            self._add_problem(f"the line has more than {WORDS_LIMIT} words: NUT drops the rest")
        self._word = []
        self._state = _ScanState.BETWEEN

    def _end_line(self, offset: int, *, after_error: bool = False) -> None:
        self._add_piece(offset, dropped=after_error)
        self._begin_line(offset + 1, after_error=after_error)

    def _finish_text(self) -> None:
        """Process the text after the last newline."""
        end = len(self._text)
        if self._state in (_ScanState.QUOTED, _ScanState.QUOTED_ESCAPE):
            self._add_problem("quotes are still open at the end of the file")
        if self._state in (_ScanState.BETWEEN, _ScanState.COMMENT):
            if self._start < end:
                self._add_piece(end, dropped=False)
            return
        # NUT reads an unfinished word only if the line already has a finished one.
        lost = not self._words
        if lost:
            self._add_problem("the last line is a single word without a newline: NUT ignores it")
        if lost or self._word:
            self._end_word(end)
        self._add_piece(end, dropped=lost)

    def _add_piece(self, end: int, *, dropped: bool) -> None:
        self._pieces.append(
            Piece(
                number=self._first_number,
                words=tuple(self._words),
                start=self._start,
                end=end,
                comment=self._comment,
                dropped=dropped,
                clean=self._clean and not dropped,
                after_error=self._after_error,
            )
        )

    def _add_problem(self, message: str) -> None:
        self._clean = False
        if (self._number, message) not in self._complained:
            self._complained.add((self._number, message))
            self._problems.append(Problem(self._number, message))


def scan_text(text: str) -> Scan:
    return _Scanner(text).scan_text()
