# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The last power cut, from nut-shutdown's log and from the journal, whichever has it.

The journal of the boot before may be gone, and the log has nothing on battery if nut-stages does not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..base.systemd import JournalEntry
from ..base.text import printable
from .journal import explain_line

Moments = tuple[tuple[float, str], ...]
"""Each with its time in seconds since 1970."""

STEPS = 20
"""The highest number of moments of an outage: the first ones, and the last."""

_LOGGED = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}) (?:([a-z-]+): )?\+[0-9.]+ s  (.*)")
_BEGINS, _STEP, _OFF, _UP, _OVER, _AFTER = "begins", "step", "off", "up", "over", "after"

# program ("" is the gate), message, what it means for an outage
_LOG = (
    ("stages", r"on battery: ", _BEGINS),
    ("stages", r"stage .* begins: |told upsmon to set FSD: |giving up on ", _STEP),
    ("stages", r"the outage is over", _OVER),
    ("stages", r"on mains", _UP),
    ("stages", r"waking |all back after |not back after ", _AFTER),
    ("", r"the gate begins: ", _BEGINS),
    ("", r".* is (?:assumed )?down|giving up on ", _STEP),
    ("", r"the gate ends ", _OFF),
)
# meaning of a line in the journal, what it means for an outage
_JOURNAL = (
    (r"power failure: ", _BEGINS),
    (r"battery of .* is low|shutdown of all machines on ", _STEP),
    (r"this host is shutting down", _OFF),
    (r"upsmon was started", _UP),
    (r"power is back: ", _OVER),
)


@dataclass(frozen=True)
class _Moment:
    at: float
    kind: str
    words: str
    by_gate: bool = False


def find_last_outage(log: str, journal: Iterable[JournalEntry]) -> Moments:
    """Return the moments of the last power cut, oldest first; () if there was none. log: the text of nut-shutdown's log."""
    outage: list[_Moment] = []
    is_open = is_off = False
    for moment in sorted([*_read_log(log), *_read_journal(journal)], key=lambda moment: moment.at):
        if moment.kind == _BEGINS and not is_open:
            outage, is_open, is_off = [moment], True, False
        elif moment.kind == _AFTER:
            outage += [moment] if outage else []
        elif not is_open:
            continue
        elif moment.by_gate:
            # upsmon has said before that this host is shutting down
            outage.append(moment)
            is_off = is_off or moment.kind == _OFF
        elif is_off and moment.kind in (_UP, _BEGINS):
            # of a host that was off, the first sign is that it runs again
            words = "this host is up again" if moment.kind == _UP else f"this host is up again; {moment.words}"
            outage.append(_Moment(moment.at, moment.kind, words))
            is_open, is_off = moment.kind == _BEGINS, False
        elif not is_off and moment.kind not in (_UP, _BEGINS):
            outage.append(moment)
            is_off = moment.kind == _OFF
            is_open = moment.kind != _OVER
    shown = outage if len(outage) <= STEPS else [*outage[: STEPS // 2], *outage[-STEPS // 2 :]]
    return tuple((moment.at, moment.words) for moment in shown)


def _read_log(log: str) -> Iterable[_Moment]:
    for line in log.splitlines():
        match = _LOGGED.fullmatch(line)
        if match is None:
            continue
        program, message = match[2] or "", match[3]
        kind = next((kind for name, begin, kind in _LOG if name == program and re.match(begin, message)), None)
        if kind:
            try:
                at = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S %z").timestamp()
            except (ValueError, OverflowError, OSError):
                continue  # the group nut can write to the folder of the log
            yield _Moment(at, kind, printable(message, 150), not program)


def _read_journal(journal: Iterable[JournalEntry]) -> Iterable[_Moment]:
    for entry in journal:
        meaning, _bad = explain_line(entry.unit, entry.words) or ("", False)
        kind = next((kind for begin, kind in _JOURNAL if re.match(begin, meaning)), None)
        if kind:
            yield _Moment(entry.at, kind, meaning)
