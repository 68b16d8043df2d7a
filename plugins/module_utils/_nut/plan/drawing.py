# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The timeline of a plan as a drawing (SVG): a row for each UPS and machine, and a line for each moment of all."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..base.records import TEXT_LIMIT
from ..base.text import printable
from . import model
from .model import PRIMARY, Plan, PlanEvent
from .text import spell_verdict

# machine -> when it began to go down, and when it was down, in s from the trigger; None: not seen
ObservedTimes = Mapping[str, "tuple[float | None, float | None]"]
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


def escape_text(value: object) -> str:
    """Escape what a page shows. What is not printable is spelled: also what turns the direction of writing round."""
    return html.escape(printable(str(value), TEXT_LIMIT))


def shorten_name(name: str) -> str:
    """Return a name that is not too long to be shown."""
    return name if len(name) <= _NAME_MOST else name[: _NAME_MOST - 1] + "\u2026"


def spell_clock(seconds: float) -> str:
    """Write seconds as minutes and seconds: 1:14, or with hours 1:00:00; with a real minus."""
    whole = math.floor(abs(seconds) + 0.5)
    hours, minutes = divmod(whole // 60, 60)
    shown = f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
    return f"\u2212{shown}" if seconds < 0 and whole else shown


def draw_timeline(plan: Plan, seen: ObservedTimes | None = None) -> str:
    """Return the timeline."""
    scale = choose_scale(plan, seen)
    labels = choose_lanes(_list_moments(plan, scale), scale)
    top = LANE * (1 + max((lane for _moment, _x, lane in labels), default=0)) + 26
    known = {machine.name for machine in plan.machines}
    upses = [supply.name for supply in plan.supplies]
    names = [*upses, *_order_machines(plan), *(name for name in seen or {} if name not in known)]
    height = ROW if seen is None else ROW_SEEN
    bottom = top + height * len(names)
    parts = _draw_axis(scale, top, bottom)
    for position, name in enumerate(names):
        row = _TimelineRow(name, scale, top + height * position)
        if position:
            row.parts.append(_draw_line((8, WIDTH - RIGHT), (row.y, row.y), "var(--line)"))
        if position < len(upses):
            _draw_ups(row, plan)
        else:
            _draw_machine(row, plan, seen)
        parts += row.parts
    for moment, x, lane in labels:
        parts += _draw_label(moment, x, LANE * lane + 14, scale.x(moment.at), bottom)
    said = escape_text(spell_verdict(plan))
    return f'<svg viewBox="0 0 {WIDTH} {bottom + 30}" role="img" aria-label="{said}">{"".join(parts)}</svg>'


def _order_machines(plan: Plan) -> list[str]:
    """Return the machines in the order in which they are down, the primary last."""
    ends = {event.machine: event.until for event in plan.events if event.what == model.GOES}
    machines = sorted(plan.machines, key=lambda machine: (machine.role == PRIMARY, ends.get(machine.name, 0.0)))
    return [machine.name for machine in machines]


# From seconds to places


@dataclass(frozen=True)
class TimelineScale:
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
        step = next((step for step in STEPS if span / step <= MARKS), STEPS[-1] * math.ceil(span / STEPS[-1] / MARKS))
        return [count * step for count in range(math.ceil(self.first / step), math.floor(self.last / step) + 1)]


def choose_scale(plan: Plan, seen: ObservedTimes | None = None) -> TimelineScale:
    """Return the time that is drawn: until the power is cut at the latest, and what was seen."""
    moments = [moment for pair in (seen or {}).values() for moment in pair if moment is not None]
    last = max([event.until for event in plan.worst if event.what == model.CUT] + moments + [10.0])
    empty = [event.at for event in plan.worst if event.what == model.EMPTY and event.at <= last * 1.25]
    last = max([last, *empty]) * 1.02
    first = min([0.0, *(event.at for event in (*plan.events, *plan.worst)), *moments])
    return TimelineScale(max(first, -BEFORE * last) - last * 0.02, last)


# The moments of all, above the rows


@dataclass(frozen=True)
class DrawnMoment:
    """A line through all rows, and its words."""

    at: float
    words: str
    late: bool = False  # the same at the limits
    colour: str = "var(--mark)"

    @property
    def width(self) -> float:
        return len(self.words) * CHARACTER


def _list_moments(plan: Plan, scale: TimelineScale) -> list[DrawnMoment]:
    """Return the lines. Only the end is drawn at the limits, too."""
    found: list[DrawnMoment] = []
    for event in (*plan.events, *plan.worst):
        if event.what not in {model.TRIGGER, model.FSD, model.POWEROFF, model.CUT}:
            continue
        if event.worst and event.what in {model.TRIGGER, model.FSD}:
            continue
        which = f" ({shorten_name(event.machine)})" if event.machine and len(plan.supplies) > 1 else ""
        name = "UPS cuts" if event.what == model.CUT else event.what
        colour = "var(--trigger)" if event.what in {model.TRIGGER, model.CUT} else "var(--mark)"
        words = f"{'latest ' if event.worst else ''}{name}{which} {spell_clock(event.at)}"
        found.append(DrawnMoment(event.at, words, event.worst, colour))
    return [moment for moment in found if scale.first <= moment.at <= scale.last]


def choose_lanes(moments: Iterable[DrawnMoment], scale: TimelineScale) -> list[tuple[DrawnMoment, float, int]]:
    """Give each label a place and a lane, so that none covers another, and none leaves the drawing."""
    lanes: list[list[Span]] = []
    found = []
    for moment in sorted(moments, key=lambda moment: moment.at):
        x = min(max(scale.x(moment.at), GUTTER), WIDTH - moment.width - 4)
        end = x + moment.width
        free = (
            lane for lane, taken in enumerate(lanes) if all(x > right + 10 or end + 10 < left for left, right in taken)
        )
        lane = next(free, len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((x, end))
        found.append((moment, round(x, 2), lane))
    return found


def _draw_label(moment: DrawnMoment, x: float, y: float, line: float, bottom: float) -> list[str]:
    dashes = "3 4" if moment.late else None
    return [
        _draw_line((line, line), (y + 5, bottom), moment.colour, stroke_dasharray=dashes),
        _draw_text(moment.words, x, y, "soft halo" if moment.late else "moment halo"),
    ]


def _draw_axis(scale: TimelineScale, top: float, bottom: float) -> list[str]:
    parts = []
    for mark in scale.marks():
        x = scale.x(mark)
        parts.append(_draw_line((x, x), (top, bottom), "var(--grid)"))
        parts.append(_draw_text(spell_clock(mark), x, bottom + 20, "soft", text_anchor="middle"))
    return parts


# The rows


@dataclass
class _TimelineRow:
    """A row while it is drawn."""

    name: str
    scale: TimelineScale
    y: float
    parts: list[str] = field(default_factory=list)

    def label(self, below: str, seen: str = "") -> None:
        """Write what the row is, before it."""
        title = _build_element("title", escape_text(self.name))
        self.parts.append(
            _build_element("text", title + escape_text(shorten_name(self.name)), class_="name", x=8, y=self.y + 20)
        )
        self.parts.append(_draw_text(below, 8, self.y + 36, "soft"))
        if seen:
            self.parts.append(_draw_text(seen, 8, self.y + 52, style="fill:var(--seen)"))

    def draw_bar(self, span: Span, colour: str, said: str) -> None:
        """Draw what lasts for a time. said: is shown where the mouse is."""
        self.parts.append(_draw_rect((self.scale.x(span[0]), self.scale.x(span[1])), self.y + 8, BAR, colour, said))

    def limit(self, span: Span, said: str) -> None:
        """Draw the frame of what may last for a time."""
        left, right = self.scale.x(span[0]), self.scale.x(span[1])
        sides, dashes = (left, max(right, left + 1)), "4 3"
        self.parts.append(
            _draw_rect(sides, self.y + 5, BAR + 6, "none", said, stroke="var(--limit)", stroke_dasharray=dashes)
        )

    def words(self, words: str, x: float, kind: str, **more: object) -> None:
        """Write into a bar."""
        self.parts.append(_draw_text(words, x, self.y + BAR + 3, kind, **more))


def _draw_ups(row: _TimelineRow, plan: Plan) -> None:
    def when(what: str, events: Sequence[PlanEvent]) -> float | None:
        return next((event.at for event in events if (event.what, event.machine) == (what, row.name)), None)

    scale, name = row.scale, row.name
    cut, latest = when(model.CUT, plan.events) or 0.0, when(model.CUT, plan.worst) or 0.0
    empty = when(model.EMPTY, plan.worst)
    row.label("empty at: not known" if empty is None else f"empty at {spell_clock(empty)}, at the earliest")
    row.draw_bar((scale.first, cut), "var(--up)", f"{name} feeds all until {spell_clock(cut)}")
    row.words("on battery", scale.x(scale.first) + 8, "on-up")
    row.limit((cut, latest), f"{name} cuts at {spell_clock(latest)} at the latest")
    if empty is not None and empty <= scale.last:
        x = scale.x(empty)
        row.parts.append(_draw_line((x, x), (row.y + 5, row.y + BAR + 11), "var(--end)", stroke_width=3))
        row.parts.append(_draw_text("battery empty", x - 6, row.y + BAR + 22, "soft halo", text_anchor="end"))


def _draw_machine(row: _TimelineRow, plan: Plan, seen: ObservedTimes | None) -> None:
    name, scale = row.name, row.scale
    own, worst = (
        [event for event in events if event.machine == name and event.what != model.DOWN]
        for events in (plan.events, plan.worst)
    )
    below = "not in the plan"
    if own and worst:
        off, limit = (max(event.until for event in events) for events in (own, worst))
        going = min((event.at for event in own if event.what in {model.GOES, model.GUESTS}), default=off)
        below = (
            f"down at {spell_clock(off)}, latest {spell_clock(limit)}"
            if going >= 0
            else f"down at {spell_clock(off)}, by a stage"
        )
        row.draw_bar((scale.first, going), "var(--up)", f"{name} runs until {spell_clock(going)}")
        cuts, middle = max(event.at for event in plan.worst if event.what == model.CUT), row.y + 8 + BAR / 2
        row.parts.append(_draw_line((scale.x(off), scale.x(cuts)), (middle, middle), "var(--down)", stroke_width=3))
        for event in own:
            _draw_event(row, event)
        # one that a stage stops is waited for, however long it takes: the trigger only comes after it
        if going >= 0:
            row.limit((going, limit), f"{name} may take until {spell_clock(limit)}")
    if seen is not None:
        _draw_observed(row, *(seen.get(name) or (None, None)))
    row.label(below, _spell_observed(seen, name))


def _draw_event(row: _TimelineRow, event: PlanEvent) -> None:
    """Draw what a machine does for a while, with words in it if it is long enough for them."""
    length = f"{event.until - event.at:.0f} s"
    colour, words, kind = {
        model.GOES: ("var(--go)", length, "on-go"),
        model.GATE: ("var(--gate)", f"gate {length}", "on-up"),
        model.GUESTS: ("var(--go)", f"guests {length}", "on-go"),
        model.ITSELF: ("var(--go2)", f"itself {length}", "on-go"),
        model.KILLS: ("var(--end)", length, "on-dark"),
    }.get(event.what, ("", "", ""))
    if colour:
        span = spell_clock(event.at), spell_clock(event.until)
        row.draw_bar((event.at, event.until), colour, f"{row.name} {event.what}: {' to '.join(span)}, {length}")
        left, right = row.scale.x(event.at), row.scale.x(event.until)
        if right - left >= len(words) * CHARACTER + 8:
            row.words(words, round((left + right) / 2, 2), kind, text_anchor="middle")


def _draw_observed(row: _TimelineRow, began: float | None, down: float | None) -> None:
    start = down if began is None else began
    if start is None:
        return
    name, scale, y = row.name, row.scale, row.y + BAR + 14
    sides, said = (scale.x(scale.first), scale.x(start)), f"{name}, seen to run until {spell_clock(start)}"
    row.parts.append(_draw_rect(sides, y, 8, "var(--seen-up)", said))
    if began is not None:
        # one that was not seen to be down goes on to the end, paler
        end = scale.last if down is None else max(down, began)
        said = f"{name}, not seen to be down" if down is None else f"{name}, seen to be down at {spell_clock(end)}"
        sides = scale.x(began), max(scale.x(end), scale.x(began) + 2)
        row.parts.append(_draw_rect(sides, y, 8, "var(--seen)", said, fill_opacity=".35" if down is None else None))


def _spell_observed(seen: ObservedTimes | None, name: str) -> str:
    if seen is None:
        return ""
    began, down = seen.get(name) or (None, None)
    if down is not None:
        return f"seen down at {spell_clock(down)}"
    return "not seen" if began is None else f"began at {spell_clock(began)}, not seen down"


# What is drawn


def _draw_rect(sides: Span, y: float, height: float, colour: str, said: str, **more: object) -> str:
    left, right = sides
    if right <= left:
        return ""
    title, width = _build_element("title", escape_text(said)), round(right - left, 2)
    return _build_element("rect", title, x=left, y=y, width=width, height=height, rx=3, fill=colour, **more)


def _draw_line(x: Span, y: Span, colour: str, **more: object) -> str:
    return _build_element("line", x1=x[0], y1=y[0], x2=x[1], y2=y[1], stroke=colour, **more)


def _draw_text(words: str, x: float, y: float, kind: str | None = None, **more: object) -> str:
    return _build_element("text", escape_text(words), class_=kind, x=x, y=y, **more)


def _build_element(kind: str, inner: str = "", /, **attributes: object) -> str:
    """Return an element. INNER is escaped already. Attributes are escaped here; those that are None are left out."""
    given = {name.strip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    spelled = "".join(f' {name}="{escape_text(value)}"' for name, value in given.items())
    return f"<{kind}{spelled}>{inner}</{kind}>"
