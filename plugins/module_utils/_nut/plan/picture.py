# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan of the shutdown as one HTML page: a timeline, and below it what must be so.

It is drawn where a person looks at it, from data: a host that could send a page could send a script with it. The page needs nothing
but itself: no script, no font, no address. It is light or dark as the reader's system is. All that comes from the plan is escaped: a
machine's name may be anything.
"""

from __future__ import annotations

import html as escaping
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..base import records
from ..base.text import printable
from . import model
from .model import Constraint, Event, Machine, Plan, PlanError
from .text import spell_needs, spell_reason, spell_verdict, stopper_of, title_of

Seen = Mapping[str, "tuple[float | None, float | None]"]
Span = tuple[float, float]

# The drawing's units are pixels at its full width.
WIDTH = 1160
GUTTER = 216
RIGHT = 24
ROW = 46
ROW_SEEN = 62
BAR = 18
LANE = 17
CHARACTER = 6.6
# Seconds between two marks of the axis; the first that gives no more than MARKS is taken.
STEPS = (5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
MARKS = 12
# A stage may begin long before the trigger; no more than this share of the time after it is drawn.
BEFORE = 0.6

_NAME_MOST = 25

# What a browser may load and run for this page: its own style, and nothing else. All is escaped; this is the second wall.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark;
  --page: #f6f4ef; --card: #ffffff; --ink: #1c2430; --soft: #5d6878; --line: #e3dfd6; --grid: #ebe8e1;
  --up: #cfe0f1; --gate: #8fb8de; --go: #f2a541; --go2: #d9772b; --end: #a63d40; --down: #9aa3b0; --limit: #8a6a3a;
  --seen: #7a52c7; --seen-up: #d9cdf3; --on-go: #3a2200; --on-up: #23405e; --trigger: #c0322f; --mark: #38455a;
  --ok: #1b7a47; --ok-soft: #e3f3ea; --no: #b3261e; --no-soft: #fbe6e4; --open: #8a5a00; --open-soft: #fbf0d9; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1a2029; --ink: #e8ecf2; --soft: #9aa7b8; --line: #2c3541; --grid: #252d38;
  --up: #2b3f56; --gate: #3a6690; --go: #e39a38; --go2: #c9692a; --end: #c65457; --down: #66717f; --limit: #c9a66b;
  --seen: #a98bf0; --seen-up: #3d3260; --on-go: #2a1700; --on-up: #cfe2f6; --trigger: #ff7a70; --mark: #c3cddb;
  --ok: #5fd095; --ok-soft: #15342a; --no: #ff8a80; --no-soft: #3d1f20; --open: #f0c060; --open-soft: #3a2f16; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 16px; letter-spacing: -.01em; }
h2 { font-size: 17px; margin: 0 0 4px; }
p { margin: 0 0 14px; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px; margin: 0 0 18px; }
.verdict { display: flex; gap: 14px; align-items: center; border-radius: 12px; padding: 14px 18px; margin: 0 0 18px;
  font-size: 17px; font-weight: 600; overflow-wrap: anywhere; }
.verdict b { flex: none; width: 30px; height: 30px; border-radius: 50%; color: var(--card); display: grid;
  place-items: center; font-size: 18px; line-height: 1; }
.ok { color: var(--ok); background: var(--ok-soft); } .ok b { background: var(--ok); }
.no { color: var(--no); background: var(--no-soft); } .no b { background: var(--no); }
.open { color: var(--open); background: var(--open-soft); } .open b { background: var(--open); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px; margin: 0 0 18px; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 16px; }
.tiles span { display: block; color: var(--soft); font-size: 13px; }
.tiles strong { display: block; font-size: 26px; line-height: 1.3; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } svg { display: block; width: 100%; min-width: 860px; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .soft { fill: var(--soft); } svg .name { font-size: 14px; font-weight: 600; }
svg .on-up { fill: var(--on-up); } svg .on-go { fill: var(--on-go); font-weight: 600; }
svg .on-dark { fill: #fff; font-weight: 600; } svg .moment { font-weight: 600; }
svg .halo { stroke: var(--card); stroke-width: 4px; paint-order: stroke; stroke-linejoin: round; }
.key { display: flex; flex-wrap: wrap; gap: 6px 20px; margin: 12px 0 0; font-size: 13px; color: var(--soft); }
.key i { display: inline-block; width: 22px; height: 11px; border-radius: 3px; margin-right: 7px; vertical-align: -1px; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: 9px 12px 9px 0; }
th { font-size: 13px; font-weight: 500; color: var(--soft); } tr + tr { border-top: 1px solid var(--line); }
td { overflow-wrap: anywhere; } td.what { font-weight: 600; min-width: 130px; } td.sums { color: var(--soft); width: 62%; }
td div.sums { color: var(--soft); font-size: 13px; font-weight: 400; } td.by { min-width: 110px; }
td.spare { white-space: nowrap; text-align: right; padding-right: 20px; font-variant-numeric: tabular-nums; font-weight: 600; }
td.pill { width: 1%; } .pill span { border-radius: 99px; padding: 2px 10px; font-size: 13px; font-weight: 600; white-space: nowrap; }
.meter { display: block; width: 110px; height: 6px; border-radius: 3px; background: var(--grid); margin: 5px 0 0 auto; overflow: hidden; }
.meter u { display: block; height: 100%; background: var(--ok); } .meter.no u { background: var(--no); }
.remedy { margin: 6px 0 0; padding: 8px 12px; border-radius: 8px; font-weight: 600; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(235px, 1fr)); gap: 10px 24px; margin: 8px 0 0; }
dl div { border-top: 1px solid var(--line); padding-top: 8px; } dt { font-size: 13px; color: var(--soft); }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
@media (max-width: 700px) { td.sums { width: auto; } section { padding: 14px; } .meter { width: 70px; } }
@media print { body { background: none; } section { break-inside: avoid; } }
"""

_VERDICTS: dict[bool | None, tuple[str, str, str]] = {
    True: ("ok", "\u2713", "holds"),
    False: ("no", "\u2717", "fails"),
    None: ("open", "?", "unknown"),
}
_NEEDED = {
    "hostsync": "HOSTSYNC",
    "finaldelay": "FINALDELAY",
    "deadtime": "DEADTIME, at least",
    "pollfreq": "POLLFREQ, at most",
    "pollfreqalert": "POLLFREQALERT, at most",
    "maxage": "MAXAGE, at least",
    "guests_time": "for Proxmox to stop its guests",
    "runtime_low": "left when the battery is low",
    "longest": "the gate waits, at most",
    "reserve": "kept for the primary itself",
    "least": "kept for it at any time",
    "poweroff_wait": "POWEROFF_WAIT",
    "limits": "limit of each host",
    "guest_timeouts": "timeout of each guest",
    "offdelay": "offdelay",
    "ondelay": "ondelay",
}
_KINDS = {"qm": "virtual machine", "pct": "container"}
_KEY = (
    ("background:var(--up)", "runs, or waits"),
    ("background:var(--gate)", "the gate waits until the others are down"),
    ("background:var(--go)", "goes down"),
    ("background:var(--end)", "killpower: the UPS is told to cut"),
    ("background:linear-gradient(var(--down),var(--down)) center/100% 3px no-repeat", "down"),
    ("border:1.5px dashed var(--limit)", "may take until here"),
)
_KEY_SEEN = (("background:var(--seen-up)", "seen: ran"), ("background:var(--seen)", "seen: went down"))


def html(plan: Plan, seen: Seen | None = None) -> str:
    """Return the page. seen: machine -> when it began to go down, and when it was down, in s from the trigger; None: not seen."""
    kind, sign, _unused = _VERDICTS[plan.holds]
    subject = "The shutdown, planned and seen" if seen is not None else "The shutdown, as planned"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{subject}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{subject}</h1>",
            f'<div class="verdict {kind}"><b aria-hidden="true">{sign}</b><span>{text(spell_verdict(plan))}</span></div>',
            _tiles(plan),
            "<section><h2>Who goes down when</h2>",
            "<p>Minutes and seconds from the trigger: the moment at which the battery is low, or a stage asks for the shutdown.</p>",
            f'<div class="wide">{svg(plan, seen)}</div>',
            _key([*_KEY, *(_KEY_SEEN if seen is not None else ())]),
            "</section>",
            "<section><h2>What must be so</h2><p>The tightest first. To spare is what is left of each before it fails.</p>",
            _table(plan.constraints),
            "</section>",
            *_guests(plan),
            "<section><h2>What the settings must be</h2><p>Seconds.</p>",
            _needed(plan),
            "</section></main></body></html>",
            "",
        ]
    )


def read_seen(data: object) -> dict[str, tuple[float | None, float | None]]:
    """Return what was seen of a shutdown, as html() takes it, from what a host has sent. Raises PlanError."""
    try:
        return dict(records.build(_SeenRecord, {"seen": data}, "what was seen").seen)
    except records.RecordError as error:
        raise PlanError(str(error)) from None


@dataclass(frozen=True)
class _SeenRecord:
    seen: Mapping[str, tuple[float | None, float | None]]


def text(value: object) -> str:
    """Escape what a page shows. What is not printable is spelled: also what turns the direction of writing round."""
    return escaping.escape(printable(str(value), records.MOST_TEXT))


def clock(seconds: float) -> str:
    """Write seconds as minutes and seconds: 1:14, or with hours 1:00:00; with a real minus."""
    whole = math.floor(abs(seconds) + 0.5)
    hours, minutes = divmod(whole // 60, 60)
    shown = f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
    return f"\u2212{shown}" if seconds < 0 and whole else shown


# --- the figures above the timeline


def _tiles(plan: Plan) -> str:
    def tile(name: str, value: str, below: str) -> str:
        return f"<div><span>{text(name)}</span><strong>{text(value)}</strong><span>{text(below)}</span></div>"

    primary = _primary(plan)
    off, latest = plan.at(model.KILLS, primary), plan.at(model.KILLS, primary, worst=True)
    tiles = []
    ends = [
        (one.until, one.machine)
        for one in plan.events
        if one.what == model.GOES and one.machine in {machine.name for machine in _secondaries(plan)}
    ]
    if ends:
        end, name = max(ends)
        last = plan.at(model.GOES, name, worst=True)
        tiles.append(tile(f"{_short(name)} is down", clock(end), f"at the latest {clock(last or 0)}"))
    power = plan.at(model.POWEROFF), plan.at(model.POWEROFF, worst=True)
    tiles.append(tile(f"{_short(primary)} powers off", clock(power[0] or 0), f"at the latest {clock(power[1] or 0)}"))
    tiles.append(tile(f"{_short(primary)} is off", clock(off or 0), f"at the latest {clock(latest or 0)}"))
    cuts = [(one.at, one.machine) for one in plan.events if one.what == model.CUT]
    last = max(one.at for one in plan.worst if one.what == model.CUT)
    tiles.append(tile("the UPS cuts the power", clock(max(cuts)[0]), f"at the latest {clock(last)}"))
    empty = [one.at for one in plan.worst if one.what == model.EMPTY]
    if empty:
        spare = min(empty) - (latest or 0)
        said = f"{clock(abs(spare))} {'to spare' if spare >= 0 else 'too short'}, at worst"
        tiles.append(tile("the battery lasts", clock(min(empty)), said))
    else:
        tiles.append(tile("the battery lasts", "?", "not known: see below"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


# --- the timeline


@dataclass(frozen=True)
class Scale:
    """From seconds to places."""

    first: float
    last: float

    def x(self, seconds: float) -> float:
        """Return the place of a moment; one outside is put on the edge."""
        within = min(max(seconds, self.first), self.last)
        return round(GUTTER + (within - self.first) / (self.last - self.first) * (WIDTH - GUTTER - RIGHT), 2)

    def marks(self) -> list[float]:
        """Return the moments that the axis names."""
        span = self.last - self.first
        step = next((one for one in STEPS if span / one <= MARKS), STEPS[-1] * math.ceil(span / STEPS[-1] / MARKS))
        return [count * step for count in range(math.ceil(self.first / step), math.floor(self.last / step) + 1)]


def scale(plan: Plan, seen: Seen | None = None) -> Scale:
    """Choose the time that is drawn: until the power is cut at the latest, and what was seen."""
    moments = [each for pair in (seen or {}).values() for each in pair if each is not None]
    last = max([one.until for one in plan.worst if one.what == model.CUT] + moments + [10.0])
    empty = [one.at for one in plan.worst if one.what == model.EMPTY and one.at <= last * 1.25]
    last = max([last, *empty]) * 1.02
    first = min([0.0, *(one.at for one in (*plan.events, *plan.worst)), *moments])
    return Scale(max(first, -BEFORE * last) - last * 0.02, last)


def svg(plan: Plan, seen: Seen | None = None) -> str:
    """Return the timeline: a row for each UPS and machine, and a line for each moment of all."""
    at = scale(plan, seen)
    labels = lanes(_moments(plan, at), at)
    top = LANE * (1 + max((lane for _unused, _x, lane in labels), default=0)) + 26
    row = ROW if seen is None else ROW_SEEN
    rows: list[tuple[str, str]] = [(one.name, "ups") for one in plan.supplies]
    rows += [(one.name, "machine") for one in _ordered(plan)]
    known = {one.name for one in plan.machines}
    rows += [(name, "stranger") for name in seen or {} if name not in known]
    bottom = top + row * len(rows)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {bottom + 30}" role="img" aria-label="{text(spell_verdict(plan))}">',
        *_axis(at, top, bottom),
    ]
    for position, (name, what) in enumerate(rows):
        y = top + row * position
        if position:
            parts.append(_level((8, WIDTH - RIGHT), y, "var(--line)"))
        if what == "ups":
            parts += _ups_row(plan, name, at, y)
        else:
            parts += _machine_row(plan, name, at, y, seen)
    for moment, x, lane in labels:
        parts += _moment(moment, x, LANE * lane + 14, at.x(moment.at), bottom)
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True)
class Moment:
    """A line through all rows, and its words. late: the same at the limits."""

    at: float
    words: str
    late: bool = False
    colour: str = "var(--mark)"

    @property
    def width(self) -> float:
        return len(self.words) * CHARACTER


def _moments(plan: Plan, at: Scale) -> list[Moment]:
    """Return the lines. The same at the limits only where it is not on the same place."""
    found: list[Moment] = []
    names = {model.CUT: "UPS cuts"}
    for worst in (False, True):
        for one in plan.worst if worst else plan.events:
            if one.what not in {model.TRIGGER, model.FSD, model.POWEROFF, model.CUT}:
                continue
            which = f" ({_short(one.machine)})" if one.machine and len(plan.supplies) > 1 else ""
            words = f"{names.get(one.what, one.what)}{which} {clock(one.at)}"
            colour = "var(--trigger)" if one.what in {model.TRIGGER, model.CUT} else "var(--mark)"
            if not worst:
                found.append(Moment(one.at, words, False, colour))
            elif one.what in {model.POWEROFF, model.CUT}:
                found.append(Moment(one.at, f"latest {words}", True, colour))
    return [one for one in found if at.first <= one.at <= at.last]


def lanes(moments: Iterable[Moment], at: Scale) -> list[tuple[Moment, float, int]]:
    """Give each label a place and a lane, so that none covers another, and none leaves the drawing."""
    ends: list[list[tuple[float, float]]] = []
    found = []
    for one in sorted(moments, key=lambda one: one.at):
        x = min(max(at.x(one.at), GUTTER), WIDTH - one.width - 4)
        for lane in range(len(ends) + 1):
            if lane == len(ends):
                ends.append([])
            if all(x > right + 10 or x + one.width + 10 < left for left, right in ends[lane]):
                break
        ends[lane].append((x, x + one.width))
        found.append((one, round(x, 2), lane))
    return found


def _moment(one: Moment, x: float, y: float, line: float, bottom: float) -> list[str]:
    kind = "soft halo" if one.late else "moment halo"
    return [
        _upright(line, (y + 5, bottom), one.colour, dashed=one.late),
        f'<text class="{kind}" x="{x}" y="{y}">{text(one.words)}</text>',
    ]


def _axis(at: Scale, top: float, bottom: float) -> list[str]:
    parts = []
    for mark in at.marks():
        x = at.x(mark)
        parts.append(_upright(x, (top, bottom), "var(--grid)"))
        parts.append(f'<text class="soft" x="{x}" y="{bottom + 20}" text-anchor="middle">{clock(mark)}</text>')
    return parts


def _ups_row(plan: Plan, name: str, at: Scale, y: float) -> list[str]:
    def when(what: str, events: Sequence[Event]) -> float | None:
        return next((one.at for one in events if (one.what, one.machine) == (what, name)), None)

    cut, latest = when(model.CUT, plan.events) or 0.0, when(model.CUT, plan.worst) or 0.0
    empty = when(model.EMPTY, plan.worst)
    below = "empty at: not known" if empty is None else f"empty at {clock(empty)}, at the earliest"
    parts = _names(name, below, y)
    parts.append(_bar(at, (at.first, cut), y, "var(--up)", f"{name} feeds all until {clock(cut)}"))
    parts.append(f'<text class="on-up" x="{at.x(at.first) + 8}" y="{y + 8 + BAR - 5}">on battery</text>')
    parts.append(_limit(at, (cut, latest), y, f"{name} cuts at {clock(latest)} at the latest"))
    if empty is not None and empty <= at.last:
        x = at.x(empty)
        parts.append(_upright(x, (y + 5, y + BAR + 11), "var(--end)", thick=3))
        parts.append(f'<text class="soft halo" x="{x - 6}" y="{y + BAR + 22}" text-anchor="end">battery empty</text>')
    return parts


def _machine_row(plan: Plan, name: str, at: Scale, y: float, seen: Seen | None) -> list[str]:
    own = [one for one in plan.events if one.machine == name]
    limit = max((one.until for one in plan.worst if one.machine == name and one.what != model.DOWN), default=None)
    off = max((one.until for one in own if one.what != model.DOWN), default=None)
    below = "not in the plan"
    parts: list[str] = []
    if off is not None and limit is not None:
        going = min((one.at for one in own if one.what in {model.GOES, model.GUESTS}), default=off)
        below = f"down at {clock(off)}, latest {clock(limit)}" if going >= 0 else f"down at {clock(off)}, by a stage"
        parts.append(_bar(at, (at.first, going), y, "var(--up)", f"{name} runs until {clock(going)}"))
        cuts = max(one.at for one in plan.worst if one.what == model.CUT)
        parts.append(_level((at.x(off), at.x(cuts)), y + 8 + BAR / 2, "var(--down)", thick=3))
        for one in own:
            colour, label, kind = _look_of(one)
            if colour:
                parts.append(_bar(at, (one.at, one.until), y, colour, f"{name} {one.what}: {_span(one)}"))
                parts += _within(at, (one.at, one.until), y, label, kind)
        # one that a stage stops is waited for, however long it takes: the trigger only comes after it
        if going >= 0:
            parts.append(_limit(at, (going, limit), y, f"{name} may take until {clock(limit)}"))
    if seen is not None:
        parts += _seen_bar(name, at, y + BAR + 14, seen.get(name))
    return [*_names(name, below, y, _seen_words(name, seen)), *parts]


def _look_of(one: Event) -> tuple[str, str, str]:
    """Say how a stretch of time looks: its colour, the words in it, and their class; no colour: it is not drawn."""
    length = f"{one.until - one.at:.0f} s"
    return {
        model.GOES: ("var(--go)", length, "on-go"),
        model.GATE: ("var(--gate)", f"gate {length}", "on-up"),
        model.GUESTS: ("var(--go)", f"guests {length}", "on-go"),
        model.ITSELF: ("var(--go2)", f"itself {length}", "on-go"),
        model.KILLS: ("var(--end)", length, "on-dark"),
    }.get(one.what, ("", "", ""))


def _seen_bar(name: str, at: Scale, y: float, pair: tuple[float | None, float | None] | None) -> list[str]:
    began, down = pair or (None, None)
    if began is None and down is None:
        return []
    start = down if began is None else began
    start = 0.0 if start is None else start
    said = f"{name}, seen to run until {clock(start)}"
    parts = [_rect((at.x(at.first), at.x(start)), y, 8, "var(--seen-up)", said)]
    if began is not None:
        # one that was not seen to be down goes on to the end, paler
        end = at.last if down is None else max(down, began)
        said = "not seen to be down" if down is None else f"seen to be down at {clock(end)}"
        sides = at.x(began), max(at.x(end), at.x(began) + 2)
        parts.append(_rect(sides, y, 8, "var(--seen)", f"{name}, {said}", pale=down is None))
    return parts


def _seen_words(name: str, seen: Seen | None) -> str:
    if seen is None:
        return ""
    began, down = seen.get(name) or (None, None)
    if down is not None:
        return f"seen down at {clock(down)}"
    return "not seen" if began is None else f"began at {clock(began)}, not seen down"


def _names(name: str, below: str, y: float, seen: str = "") -> list[str]:
    parts = [
        f'<text class="name" x="8" y="{y + 20}"><title>{text(name)}</title>{text(_short(name))}</text>',
        f'<text class="soft" x="8" y="{y + 36}">{text(below)}</text>',
    ]
    if seen:
        parts.append(f'<text x="8" y="{y + 52}" style="fill:var(--seen)">{text(seen)}</text>')
    return parts


def _within(at: Scale, span: Span, y: float, words: str, kind: str) -> list[str]:
    """Write words into a bar if it is long enough for them."""
    left, right = at.x(span[0]), at.x(span[1])
    if right - left < len(words) * CHARACTER + 8:
        return []
    x = round((left + right) / 2, 2)
    return [f'<text class="{kind}" x="{x}" y="{y + 8 + BAR - 5}" text-anchor="middle">{text(words)}</text>']


def _bar(at: Scale, span: Span, y: float, colour: str, said: str) -> str:
    return _rect((at.x(span[0]), at.x(span[1])), y + 8, BAR, colour, said)


def _limit(at: Scale, span: Span, y: float, said: str) -> str:
    left, right = at.x(span[0]), at.x(span[1])
    return (
        f'<rect x="{left}" y="{y + 5}" width="{max(round(right - left, 2), 1)}" height="{BAR + 6}" rx="5" fill="none"'
        f' stroke="var(--limit)" stroke-dasharray="4 3"><title>{text(said)}</title></rect>'
    )


def _rect(sides: Span, y: float, height: float, colour: str, said: str, *, pale: bool = False) -> str:
    left, right = sides
    if right <= left:
        return ""
    paler = ' fill-opacity=".35"' if pale else ""
    return (
        f'<rect x="{left}" y="{y}" width="{round(right - left, 2)}" height="{height}" rx="3" fill="{colour}"{paler}>'
        f"<title>{text(said)}</title></rect>"
    )


def _upright(x: float, sides: Span, colour: str, *, dashed: bool = False, thick: int = 1) -> str:
    """Draw a line down, from the first of two heights to the second."""
    dashes = ' stroke-dasharray="3 4"' if dashed else ""
    return f'<line x1="{x}" y1="{sides[0]}" x2="{x}" y2="{sides[1]}" stroke="{colour}" stroke-width="{thick}"{dashes}/>'


def _level(sides: Span, y: float, colour: str, *, thick: int = 1) -> str:
    """Draw a line across."""
    return f'<line x1="{sides[0]}" y1="{y}" x2="{sides[1]}" y2="{y}" stroke="{colour}" stroke-width="{thick}"/>'


def _span(one: Event) -> str:
    return f"{clock(one.at)} to {clock(one.until)}, {one.until - one.at:.0f} s"


def _short(name: str) -> str:
    return name if len(name) <= _NAME_MOST else name[: _NAME_MOST - 1] + "\u2026"


def _primary(plan: Plan) -> str:
    return next(one.name for one in plan.machines if one.role == model.PRIMARY)


def _secondaries(plan: Plan) -> list[Machine]:
    return [one for one in plan.machines if one.role == model.SECONDARY]


def _ordered(plan: Plan) -> list[Machine]:
    """Return the machines in the order in which they are down, the primary last."""
    ends = {one.machine: one.until for one in plan.events if one.what == model.GOES}
    return sorted(plan.machines, key=lambda one: (one.role == model.PRIMARY, ends.get(one.name, 0.0)))


# --- below the timeline


def _key(entries: Iterable[tuple[str, str]]) -> str:
    return (
        '<div class="key">'
        + "".join(f'<span><i style="{look}"></i>{text(said)}</span>' for look, said in entries)
        + "</div>"
    )


def _table(constraints: Iterable[Constraint]) -> str:
    rows = []
    for one in constraints:
        kind, _sign, said = _VERDICTS[one.holds]
        remedy = (
            f'<div class="remedy {kind}">{text(one.remedy[:1].upper() + one.remedy[1:])}</div>' if one.remedy else ""
        )
        rows.append(
            f'<tr><td class="pill"><span class="{kind}">{said}</span></td><td class="what">{text(title_of(one))}</td>'
            f'<td class="spare">{_spare(one)}</td><td class="sums">{text(one.words)}{remedy}</td></tr>'
        )
    head = '<tr><th></th><th></th><th style="text-align:right;padding-right:20px">to spare</th><th>how that comes</th></tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _spare(one: Constraint) -> str:
    """Show what is to spare, and how much of what there is that leaves free."""
    if one.slack is None:
        # some things are so, or not, and no number says by how much
        return "?" if one.holds is None else ""
    whole = max(one.have or 0, one.need or 0)
    share = 100 * abs(one.slack) / whole if whole else 0
    meter = f'<span class="meter{"" if one.holds else " no"}"><u style="width:{share:.0f}%"></u></span>'
    sign = "+" if one.slack >= 0 else "\u2212"
    return f"{sign}{abs(one.slack):.0f} s{meter}"


def _guests(plan: Plan) -> list[str]:
    """Show who stops each guest of the primary; nothing if there is none."""
    if not plan.guests:
        return []
    rows = []
    for one in plan.guests:
        number = f'<div class="sums">{text(_KINDS[one.kind])} {one.id}</div>' if one.id is not None else ""
        rows.append(
            f'<tr><td class="what">{text(one.machine)}{number}</td><td class="by">{text(stopper_of(plan, one))}</td>'
            f'<td class="spare">{one.seconds:.0f} s</td><td class="sums">{text(spell_reason(one))}</td></tr>'
        )
    head = '<tr><th></th><th>stopped by</th><th style="text-align:right;padding-right:20px">has</th><th>why</th></tr>'
    said = f"A stage stops its guests before the battery is low; {_primary(plan)} stops the others when it goes down."
    return [
        f"<section><h2>Who stops which guest</h2><p>{text(said)}</p>",
        f'<div class="wide"><table>{head}{"".join(rows)}</table></div>',
        "</section>",
    ]


def _needed(plan: Plan) -> str:
    rows = [
        f"<div><dt>{text(_NEEDED.get(name, name))}</dt><dd>{text(spell_needs(value))}</dd></div>"
        for name, value in plan.needed.items()
        if value != {}
    ]
    return f"<dl>{''.join(rows)}</dl>"
