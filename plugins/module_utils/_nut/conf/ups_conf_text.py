# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ups.conf as text: its header, its comments, and the mark before sections that the inventory does not declare."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from . import grammar, ups_conf
from .ups_conf import Pair, Section, UpsConf

MARK = "# Found on the bus by nut-hotplug."


def compose_text(header: str, conf: UpsConf, found: Iterable[str], old: str = "") -> str:
    """Return the text of ups.conf: header, settings and sections, with a mark before those in FOUND.

    header: comment lines; see header_of(). old: the current file. Unchanged sections keep their text, including comments,
    because the enumerator restarts a driver even if its section is only formatted differently. parse_ups_conf() reads conf from it.
    """
    names = frozenset(found)
    written = _compose_once(header, conf, names, old)
    if old and (ups_conf.parse_ups_conf(written) != conf or found_sections(written) != names & conf.sections.keys()):
        # a quote or backslash reaches beyond the end of a section
        return _compose_once(header, conf, names, "")
    return written


def _compose_once(header: str, conf: UpsConf, found: frozenset[str], old: str) -> str:
    settings, parts = _split_sections(old)
    was = ups_conf.parse_ups_conf(old)
    if was.settings != conf.settings or not settings:
        settings = _render_settings(conf.settings)
    texts = [_comment_lines(header), settings]
    for name, section in conf.sections.items():
        text = parts[name] if was.sections.get(name) == section and name in parts else _render_in_order(section)
        texts.append(f"{MARK}\n{text}" if name in found else text)
    return "\n".join(filter(None, texts))


def _split_sections(text: str) -> tuple[str, dict[str, str]]:
    """Split a ups.conf into the part before its sections, without the header, and the sections with their comments."""
    lines = text.split("\n")
    starts: list[tuple[int, str]] = []
    for line in grammar.parse_lines(text):
        if line.words[0].startswith("[") and line.words[0].endswith("]"):
            first = line.number - 1
            while first and lines[first - 1].startswith("#"):
                first -= 1
            starts.append((first, line.words[0][1:-1]))
    begin = min(header_of(text).count("\n"), starts[0][0] if starts else len(lines))
    ends = [*(first for first, _unused in starts), len(lines)]
    twice = [name for _unused, name in starts]
    parts = {
        name: _join_lines(lines[max(first, begin) : end])
        for (first, name), end in zip(starts, ends[1:])
        if twice.count(name) == 1
    }
    return _join_lines(lines[begin : ends[0]]), parts


def _join_lines(lines: Sequence[str]) -> str:
    text = "\n".join(line for line in lines if line.strip() != MARK).strip("\n")
    return f"{text}\n" if text else ""


def _render_settings(pairs: Iterable[Pair]) -> str:
    return ups_conf.render_conf(UpsConf(tuple(pairs), {}))


def _render_in_order(section: Section) -> str:
    """Render a section with its keys in their order. ups_conf.render_sections() would move driver and port to the front."""
    first = ups_conf.render_sections((Section(section.name, ()),))
    return first + "".join(
        ups_conf.render_sections((Section(section.name, (pair,)),)).removeprefix(first) for pair in section.keys
    )


def _comment_lines(header: str) -> str:
    return "".join(f"{line}\n" for line in header_of(header).splitlines())


def header_of(text: str) -> str:
    """Return the comment lines at the start of a ups.conf, up to the first other line."""
    lines = []
    for line in text.split("\n"):
        if not line.startswith("#") or line.strip() == MARK:
            break
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def found_sections(text: str) -> frozenset[str]:
    """Return the sections that have our mark before them."""
    lines = text.split("\n")
    return frozenset(
        line.words[0][1:-1]
        for line in grammar.parse_lines(text)
        if line.words[0].startswith("[")
        and line.words[0].endswith("]")
        and line.number > 1
        and lines[line.number - 2].strip() == MARK
    )
