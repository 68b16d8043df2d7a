# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The grammar of NUT's files and of its network protocol: words, quoting, limits, secrets.

NUT reads all its files but nut.conf, and each line on the wire, with one parser, common/parseconf.c. The grammar has
not changed from 2.7.4 to 2.8.5. What this file says about it was compared with upsd 2.8.0 and 2.8.1.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORD_LIMIT = 512
"""Characters of a word; NUT drops the rest without a word (PCONF_DEFAULT_WORDLEN_LIMIT)."""

WORDS_LIMIT = 32
"""Words of a line; NUT drops the rest without a word (PCONF_DEFAULT_ARG_LIMIT)."""

CREDENTIAL_LIMIT = 501
"""Characters of a password or user name. upsmon writes the whole command, PASSWORD and a newline too, into 512 bytes."""

MARK = "<redacted>"
"""Text that stands where a secret stood."""

# C's isspace() in the "C" locale, in which the daemons run. str.isspace() knows many more.
_BLANKS = frozenset(" \t\n\v\f\r")

_BARE = re.compile(r"[A-Za-z0-9_.,:;@/+*%-]+")


class Unencodable(ValueError):
    """NUT cannot read this word (or line) back.

    ``position`` is where the offending character stands, counted from 0; None if it is not about one character.
    """

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.position = position


@dataclass(frozen=True)
class Line:
    """A line as NUT understands it. ``number`` is the line of the file on which it begins, counted from 1."""

    number: int
    words: tuple[str, ...]


@dataclass(frozen=True)
class Problem:
    """Something on a line of the file (counted from 1) that NUT understands otherwise than its writer meant."""

    line: int
    message: str


def encode(word: str) -> str:
    """Return ``word`` in double quotes, so that NUT reads back exactly ``word``.

    Raises Unencodable for a control character, a character outside ASCII, or more than 512 characters: NUT would drop
    them silently.
    """
    for position, character in enumerate(word):
        name = f"character {position + 1} (U+{ord(character):04X})"
        if not character.isascii():
            raise Unencodable(f"{name} is not ASCII, and NUT drops it: write it otherwise", position)
        if character < " ":
            raise Unencodable(f"{name} is a control character: remove it", position)
    if len(word) > WORD_LIMIT:
        raise Unencodable(f"the word has {len(word)} characters: NUT keeps only the first {WORD_LIMIT}", WORD_LIMIT)
    return '"' + re.sub(r'([\\"#])', r"\\\1", word) + '"'


def join(words: Iterable[str]) -> str:
    """Return one line, without its newline, that NUT reads back as exactly ``words``.

    Words that need no quotes get none. Raises Unencodable as encode does, and for more than 32 words.
    """
    line = tuple(words)
    if len(line) > WORDS_LIMIT:
        raise Unencodable(f"the line has {len(line)} words: NUT keeps only the first {WORDS_LIMIT}")
    return " ".join(word if len(word) <= WORD_LIMIT and _BARE.fullmatch(word) else encode(word) for word in line)


def parse(text: str) -> list[Line]:
    """Return what NUT understands of a file: the lines with words, without those that NUT drops. It never raises."""
    return [
        Line(piece.number, tuple(word.text for word in piece.words))
        for piece in _scan(text).pieces
        if piece.words and not piece.dropped
    ]


def problems(text: str) -> list[Problem]:
    """Return what NUT drops or takes otherwise than written, in the order of the file. It never raises."""
    return list(_scan(text).problems)


def password_problem(text: str) -> str | None:
    """Return why upsmon and TrueNAS cannot use this password, in words that follow "the password"; None if they can.

    upsmon sends it as it is, without quoting, and upsd parses what arrives (clients/upsmon.c, do_upsd_auth): what means
    something to the parser breaks the login. upscmd and upsrw do the same. TrueNAS writes it without quotes into its
    upsmon.conf, and refuses blanks and number signs itself. The answer says what kind of character is wrong, and nothing
    else of the password.
    """
    problem = _credential_problem(text)
    return f"{problem}. Safe are letters, digits, '.', '_' and '-'" if problem else None


def user_problem(text: str) -> str | None:
    """Return why this cannot be the name of a user of upsd, in words that follow "the user name"; None if it can.

    It takes the same road as a password.
    """
    return password_problem(text)


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
        problem = f"has {len(text)} characters: upsmon cuts it after {CREDENTIAL_LIMIT}"
    elif not text.isascii():
        problem = "holds a character outside ASCII: NUT drops it"
    elif min(text) < " ":
        problem = "holds a control character (such as a tab or a newline): NUT drops it"
    elif text.startswith('"'):
        # within a word it is one character like others
        problem = "begins with a double quote: upsmon sends it as it is, and upsd would take it for a quotation"
    else:
        found = [name for character, name in _TROUBLE.items() if character in text]
        if found:
            problem = f"holds {' and '.join(found)}: upsmon sends it unquoted, and upsd would read something else"
    return problem


class _State(enum.Enum):
    BETWEEN = enum.auto()
    WORD = enum.auto()
    WORD_ESCAPE = enum.auto()
    QUOTED = enum.auto()
    QUOTED_ESCAPE = enum.auto()
    COMMENT = enum.auto()


@dataclass(frozen=True)
class _Word:
    text: str
    start: int  # offsets into the file, with quotes and backslashes
    end: int


@dataclass(frozen=True)
class _Piece:
    """What NUT takes for one line: often one line of the file, sometimes several, after an error the rest of one."""

    number: int
    words: tuple[_Word, ...]
    start: int
    end: int  # its newline not included
    comment: int | None  # offset of the '#'
    dropped: bool  # NUT read it and threw it away
    clean: bool  # NUT took all of it as it was written
    after_error: bool  # it begins in the middle of a line, where NUT gave up on the one before


@dataclass(frozen=True)
class _Scan:
    pieces: tuple[_Piece, ...]
    problems: tuple[Problem, ...]


class _Scanner:
    """NUT's state machine, with its oddities, which are what this class is for. One use, one file."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pieces: list[_Piece] = []
        self._problems: list[Problem] = []
        self._number = 1  # of the line of the file that is being read
        self._begin(0, after_error=False)

    def _begin(self, start: int, *, after_error: bool) -> None:
        self._state = _State.BETWEEN
        self._start = start
        self._first_number = self._number
        self._words: list[_Word] = []
        self._word: list[str] = []
        self._word_start = start
        self._comment: int | None = None
        self._after_error = after_error
        self._clean = True
        self._complained: set[tuple[int, str]] = set()

    def scan(self) -> _Scan:
        for offset, character in enumerate(self._text):
            self._read(offset, character)
            if character == "\n":
                self._number += 1
                if self._state is _State.BETWEEN and self._start > offset:
                    self._first_number = self._number
        self._finish()
        return _Scan(tuple(self._pieces), tuple(self._problems))

    def _read(self, offset: int, character: str) -> None:
        state = self._state
        if state is _State.BETWEEN:
            self._between(offset, character)
        elif state is _State.WORD:
            self._in_word(offset, character)
        elif state is _State.QUOTED:
            self._in_quotes(offset, character)
        elif state is _State.COMMENT:
            if character == "\n":
                self._end_line(offset)
        else:
            # After a backslash everything is a letter. Only a newline is nothing: the word goes on on the next line.
            if character != "\n":
                self._add(character)
            self._state = _State.WORD if state is _State.WORD_ESCAPE else _State.QUOTED

    def _between(self, offset: int, character: str) -> None:
        if character == "\n":
            self._end_line(offset)
        elif character == "#":
            self._comment = offset
            self._state = _State.COMMENT
        elif character not in _BLANKS:
            self._word_start = offset
            if character == "\\":
                self._state = _State.WORD_ESCAPE
            elif character == '"':
                self._state = _State.QUOTED
            else:
                self._add(character)
                self._state = _State.WORD
                if character == "=":
                    self._end_word(offset + 1)

    def _in_word(self, offset: int, character: str) -> None:
        if character == "\\":
            self._state = _State.WORD_ESCAPE
        elif character in _BLANKS or character in "#=":
            self._end_word(offset)
            self._between(offset, character)
        else:
            self._add(character)

    def _in_quotes(self, offset: int, character: str) -> None:
        if character == '"':
            self._end_word(offset + 1)
        elif character == "\\":
            self._state = _State.QUOTED_ESCAPE
        elif character == "#":
            self._complain(
                "a # inside quotes needs a backslash before it:"
                " NUT drops this line, and reads what follows the # as a new one"
            )
            self._end_word(offset)
            self._end_line(offset, after_error=True)
        else:
            self._add(character)

    def _add(self, character: str) -> None:
        if character == "\n":
            self._complain("quotes are still open at the end of the line: NUT goes on with the word on the next one")
        elif character < " " or character > "\x7f":
            self._complain(f"NUT drops the character U+{ord(character):04X}: it is not printable ASCII")
        elif len(self._word) >= WORD_LIMIT:
            self._complain(f"a word has more than {WORD_LIMIT} characters: NUT drops the rest of it")
        else:
            self._word.append(character)

    def _end_word(self, end: int) -> None:
        if len(self._words) < WORDS_LIMIT:
            self._words.append(_Word("".join(self._word), self._word_start, end))
        else:
            self._complain(f"the line has more than {WORDS_LIMIT} words: NUT drops the rest")
        self._word = []
        self._state = _State.BETWEEN

    def _end_line(self, offset: int, *, after_error: bool = False) -> None:
        self._keep(offset, dropped=after_error)
        self._begin(offset + 1, after_error=after_error)

    def _finish(self) -> None:
        """Take what stands behind the last newline."""
        end = len(self._text)
        if self._state in (_State.QUOTED, _State.QUOTED_ESCAPE):
            self._complain("quotes are still open at the end of the file")
        if self._state in (_State.BETWEEN, _State.COMMENT):
            if self._start < end:
                self._keep(end, dropped=False)
            return
        # NUT looks at an unfinished word only if the line has a finished one already.
        lost = not self._words
        if lost:
            self._complain("the last line is a single word without a newline: NUT does not see it")
        if lost or self._word:
            self._end_word(end)
        self._keep(end, dropped=lost)

    def _keep(self, end: int, *, dropped: bool) -> None:
        self._pieces.append(
            _Piece(
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

    def _complain(self, message: str) -> None:
        self._clean = False
        if (self._number, message) not in self._complained:
            self._complained.add((self._number, message))
            self._problems.append(Problem(self._number, message))


def _scan(text: str) -> _Scan:
    return _Scanner(text).scan()


# Secrets. A line is shown only if it is known to hold none: a slip of the pen must not put a password into a log.

_SHOWN_WHOLE = frozenset({"nut.conf", "upssched.conf"})

# The first words of lines without a secret. None: all but those that name one, because each driver has keys of its own.
_HARMLESS: dict[str, frozenset[str] | None] = {
    "ups.conf": None,
    "upsd.conf": frozenset(
        {
            *(
                "maxage",
                "trackingdelay",
                "allow_no_device",
                "allow_not_all_listeners",
                "statepath",
                "datapath",
                "listen",
            ),
            *("maxconn", "certfile", "certpath", "certrequest", "disable_weak_ssl", "debug_min"),
        }
    ),
    "upsd.users": frozenset({"actions", "instcmds", "upsmon"}),
    "upsmon.conf": frozenset(
        {
            *("minsupplies", "shutdowncmd", "shutdownexit", "notifycmd", "notifymsg", "notifyflag", "pollfreq"),
            *("pollfreqalert", "hostsync", "deadtime", "finaldelay", "rbwarntime", "nocommwarntime", "offduration"),
            *("pollfail_log_throttle_max", "overduration", "oblbduration", "alarmcritical", "powerdownflag"),
            *("run_as_user", "certpath", "certhost", "certverify", "forcessl", "debug_min"),
        }
    ),
}
_SECRET_KEYS = {
    "ups.conf": frozenset({"password", "authpassword", "privpassword", "community"}),
    "upsd.users": frozenset({"password"}),
}
_WITH_SECTIONS = frozenset({"ups.conf", "upsd.users"})
_UPSMON_TYPES = frozenset({"primary", "secondary", "master", "slave"})
_NAMES_A_SECRET = re.compile(r"pass(word|wd|phrase)?|pwd|secret|monitor|certident|community", re.IGNORECASE)
_A_SETTING = re.compile(r"(monitor|certident|password)(=.*)?", re.IGNORECASE)


class _Shown(enum.Enum):
    ALL = enum.auto()
    NOTHING = enum.auto()


def redact(file_name: str, text: str) -> str:
    """Return a NUT file, for a diff, with ``<redacted>`` in the place of each secret and all else as it was.

    Secrets are the passwords of upsd.users, of MONITOR (upsmon.conf), of CERTIDENT (upsmon.conf, upsd.conf), and what
    drivers log in with (ups.conf). Where a line is neither plainly one of those nor plainly harmless, the whole line
    goes; so does a comment that names a secret, or stands beside one. Of a file with another name every line goes.
    The text keeps its number of lines.
    """
    name = file_name.rsplit("/", 1)[-1]
    if name in _SHOWN_WHOLE:
        return text
    if name not in _HARMLESS:
        return re.sub(r"[^\n]*[^\s][^\n]*", MARK, text)
    edits: list[tuple[int, int, str]] = []
    whole: list[tuple[int, int]] = []
    for piece in _scan(text).pieces:
        shown = _judge(name, piece, text)
        if shown is _Shown.NOTHING:
            whole.append((piece.start, piece.end))
            continue
        if isinstance(shown, _Word):
            edits.append((shown.start, shown.end, MARK))
        if piece.comment is not None:
            beside = isinstance(shown, _Word)
            if beside or _NAMES_A_SECRET.search(text, piece.comment, piece.end):
                edits.append((piece.comment, piece.end, f"# {MARK}"))
    return _replace(text, edits, whole)


def _judge(name: str, piece: _Piece, text: str) -> _Shown | _Word:
    """Return whether a line may be shown, or the one word of it that may not. Its comment is another matter."""
    words = tuple(word.text for word in piece.words)
    if piece.after_error:
        return _Shown.NOTHING
    if not words:
        return _Shown.ALL
    code = text[piece.start : piece.end if piece.comment is None else piece.comment]
    if piece.clean and "\n" not in code:
        secret = _secret(name, words)
        if secret is not None:
            return piece.words[secret]
        # Where somebody forgot to begin a new line, the next setting stands on this one.
        suspect = any(_A_SETTING.fullmatch(word) for word in words[1:])
    else:
        # Open quotes may have swallowed anything.
        suspect = _NAMES_A_SECRET.search(code) is not None or _NAMES_A_SECRET.search(" ".join(words)) is not None
    return _Shown.ALL if not suspect and _harmless(name, words) else _Shown.NOTHING


def _harmless(name: str, words: tuple[str, ...]) -> bool:
    first = words[0].lower()
    if name in _WITH_SECTIONS and len(words) == 1 and first.startswith("[") and first.endswith("]"):
        return True
    known = _HARMLESS[name]
    return first in known if known is not None else not _NAMES_A_SECRET.search(first)


def _secret(name: str, words: tuple[str, ...]) -> int | None:
    """Return the index of the secret, if the line has exactly the form in which NUT takes one."""
    first = words[0].lower()
    found = None
    if name in _SECRET_KEYS:
        if first in _SECRET_KEYS[name] and len(words) == 3 and words[1] == "=":
            found = 2
    elif "=" in words:
        pass  # an unquoted password fell apart
    elif first == "certident" and len(words) == 3:
        found = 2
    elif name == "upsmon.conf" and first == "monitor" and len(words) == 6:
        found = 4 if words[2].isdigit() and words[5].lower() in _UPSMON_TYPES else None
    return found


def _replace(text: str, edits: Sequence[tuple[int, int, str]], whole: Sequence[tuple[int, int]]) -> str:
    """Replace the spans of ``edits``, and every line of the file that a span of ``whole`` touches."""
    result: list[str] = []
    start = 0
    for line in text.split("\n"):
        end = start + len(line)
        if any(first <= end and start <= last for first, last in whole):
            result.append(MARK if line.strip() else line)
        else:
            position, parts = start, []
            for first, last, replacement in edits:
                if start <= first and last <= end:
                    parts += [text[position:first], replacement]
                    position = last
            result.append("".join([*parts, text[position:end]]))
        start = end + 1
    return "\n".join(result)
