# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checksums that nut-driver-enumerator computes from a ups.conf.

It is a shell script that stores a checksum of each section, and restarts or reloads a driver when the checksum of its section
changes. It does not parse: it normalizes lines with sed, and its shell's `read` and `echo` interpret backslashes. Based on
nut-driver-enumerator.sh of 2.8.0 and 2.8.1 with Debian's /bin/sh, which is dash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from .ups_conf import UpsConf, render_conf

# its bracket expressions include a backslash, too
_BLANK = " \t\\"
_SPACED_EQUALS = re.compile(r"^([^= \t\\]*)[ \t\\]*=[ \t\\]*")
_NEEDLESS_QUOTES = re.compile(r'="([^ \t\\]*)"$')
_AFTER_HEADER = re.compile(r"^(\[[^] \t\\]*\])[ \t\\]*(?:#.*)*$")
_OF_USE = re.compile(r"[\[\\=]|^[^ \t]*$|^[^ \t]*[ \t]*#")
_A_UPS = re.compile(r"^(?:\[.*\]|driver=|port=)")
# dash's read strips a blank at the end, together with escaped characters after it
_LOST = re.compile(r"[ \t](?:[ \t]|\\.)*$")
_ESCAPE = re.compile(r"\\(?:0?([0-7]{1,3})|([abcefnrtv\\]))")
_ESCAPED = dict(zip("abefnrtv\\", "\a\b\x1b\f\n\r\t\v\\"))


def section_checksum(conf: str | UpsConf, name: str = "") -> str | None:
    """Return the checksum that nut-driver-enumerator keeps of the section NAME, or of the global part ("").

    conf: the text of a ups.conf, or a UpsConf to render. None: the enumerator sees no such section, and runs no driver for it.
    Comments, indentation, blank lines, and quotes around a value without blanks make no difference; the order of keys and
    comments after values do. If a section occurs twice, the first one counts. systemd has the checksum as SECTION_CHECKSUM of
    the unit nut-driver@NAME, and SECTION_CHECKSUM_GLOBAL of all of them.
    """
    text = conf if isinstance(conf, str) else render_conf(conf)
    # one character for each byte, because an escape may produce any byte
    lines = _tidy_lines(text.encode("utf-8", "surrogateescape").decode("latin-1"))
    own = _section_lines(lines, name)
    if own is None:
        return None
    kept = _echo_like_dash("\n".join(own)).rstrip("\n").replace("\0", "") if own else ""
    return hashlib.md5(_echo_like_dash(kept).encode("latin-1"), usedforsecurity=False).hexdigest()


def _tidy_lines(text: str) -> list[str]:
    lines = []
    for line in text.split("\n"):
        bare = line.lstrip(_BLANK)
        if bare.startswith("#"):
            continue
        bare = _SPACED_EQUALS.sub(r"\1=", bare.rstrip(_BLANK))
        bare = _AFTER_HEADER.sub(r"\1", _NEEDLESS_QUOTES.sub(r"=\1", bare, count=1))
        if bare and _OF_USE.search(bare):
            lines.append(bare)
    # the enumerator ignores a file that has only global settings
    return [re.sub(r"\\(.)", r"\1", _LOST.sub("", line)) for line in lines] if any(map(_A_UPS.search, lines)) else []


def _section_lines(lines: Sequence[str], name: str) -> list[str] | None:
    """Return the lines of a section with its header, or of the global part; None if the section does not exist."""
    own: list[str] = []
    found = inside = not name
    for line in lines:
        header = line.startswith("[") and line.endswith("]") and not re.search(r"[ \t]", line)
        if not header:
            own += [line] if inside else []
        elif found:
            break
        elif line == f"[{name}]":
            found = inside = True
            own.append(line)
    return own if found else None


def _echo_like_dash(text: str) -> str:
    r"""Return text as dash's echo prints it: \n is a newline, \101 an A, and \c ends the output, without a newline."""
    printed: list[str] = []
    end = 0
    for found in _ESCAPE.finditer(text):
        printed.append(text[end : found.start()])
        end = found.end()
        octal, letter = found.groups()
        if letter == "c":
            return "".join(printed)
        printed.append(chr(int(octal, 8) & 0xFF) if octal else _ESCAPED[letter])
    return "".join([*printed, text[end:], "\n"])
