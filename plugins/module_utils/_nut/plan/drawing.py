# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The timeline of a plan as a drawing (SVG): a row for each UPS and machine, and vertical lines for FSD, power off and the like."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..base.commands import spell_commands
from ..base.records import TEXT_LIMIT
from ..base.text import printable
from . import model
from .model import PRIMARY, Plan, PlanEvent
from .text import spell_verdict

# machine -> (began to go down, was down), measured, in seconds from the trigger; None: not observed
ObservedTimes = Mapping[str, "tuple[float | None, float | None]"]
Span = tuple[float, float]

# In pixels at full width.
WIDTH = 1160
GUTTER = 216
RIGHT = 24
ROW = 46
ROW_SEEN = 62
BAR = 18
LANE = 17
CHARACTER = 6.6
# Seconds between two marks of the axis: the first that gives no more than MAX_MARKS.
STEPS = (5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
MAX_MARKS = 12
# A stage may begin long before the trigger: the time before it is cut to this share of the time after it.
BEFORE_SHARE = 0.6
_MAX_NAME = 25


def escape_text(value: object) -> str:
    """Escape a text for a page. Characters that are not printable, or that change the direction of text, are spelled out."""
    return html.escape(printable(spell_commands(str(value)), TEXT_LIMIT))


def shorten_name(name: str) -> str:
    """Return a name that is short enough for its place."""
    return name if len(name) <= _MAX_NAME else name[: _MAX_NAME - 1] + "\u2026"


def spell_clock(seconds: float) -> str:
    """Return seconds as 1:14, or with hours as 1:00:00; negative ones with a typographic minus."""
    whole = math.floor(abs(seconds) + 0.5)
    hours, minutes = divmod(whole // 60, 60)
    shown = f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
    return f"\u2212{shown}" if seconds < 0 and whole else shown


def draw_timeline(plan: Plan, seen: ObservedTimes | None = None) -> str:
    """Return the timeline."""
    scale = choose_scale(plan, seen)
    labels = choose_lanes(_list_drawn_moments(plan, scale), scale)
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
        parts += _draw_label(moment, x, LANE * lane + 14, scale.to_pixels(moment.at), bottom)
    verdict = escape_text(spell_verdict(plan))
    return f'<svg viewBox="0 0 {WIDTH} {bottom + 30}" role="img" aria-label="{verdict}">{"".join(parts)}</svg>'


def _order_machines(plan: Plan) -> list[str]:
    """Return the machines in the order in which they go down, the primary last."""
    ends = {event.machine: event.until for event in plan.events if event.what == model.GOES_DOWN}
    machines = sorted(plan.machines, key=lambda machine: (machine.role == PRIMARY, ends.get(machine.name, 0.0)))
    return [machine.name for machine in machines]


# From seconds to pixels


@dataclass(frozen=True)
class TimelineScale:
    """The time that is drawn."""

    first: float  # seconds from the trigger
    last: float

    def to_pixels(self, seconds: float) -> float:
        """Return the x of a moment; a moment outside the drawing is moved to its edge."""
        within = min(max(seconds, self.first), self.last)
        return round(GUTTER + (within - self.first) / (self.last - self.first) * (WIDTH - GUTTER - RIGHT), 2)

    def list_marks(self) -> list[float]:
        """Return the moments that the axis labels."""
        span = self.last - self.first
        step = next(
            (step for step in STEPS if span / step <= MAX_MARKS), STEPS[-1] * math.ceil(span / STEPS[-1] / MAX_MARKS)
        )
        return [count * step for count in range(math.ceil(self.first / step), math.floor(self.last / step) + 1)]


def choose_scale(plan: Plan, seen: ObservedTimes | None = None) -> TimelineScale:
    """Return a scale that reaches to the latest power cut, and to everything that was measured."""
    moments = [moment for pair in (seen or {}).values() for moment in pair if moment is not None]
    last = max([event.until for event in plan.worst if event.what == model.CUT] + moments + [10.0])
    empty = [event.at for event in plan.worst if event.what == model.EMPTY and event.at <= last * 1.25]
    last = max([last, *empty]) * 1.02
    first = min([0.0, *(event.at for event in (*plan.events, *plan.worst)), *moments])
    return TimelineScale(max(first, -BEFORE_SHARE * last) - last * 0.02, last)


# The lines through all rows, and their labels above


@dataclass(frozen=True)
class DrawnMoment:
    """A line through all rows, and its label."""

    at: float  # seconds from the trigger
    label: str
    late: bool = False  # whether this is the worst case
    colour: str = "var(--mark)"

    @property
    def label_width(self) -> float:
        return len(self.label) * CHARACTER


def _list_drawn_moments(plan: Plan, scale: TimelineScale) -> list[DrawnMoment]:
    """Return the lines. Of the worst case only power off and the power cut are drawn."""
    moments: list[DrawnMoment] = []
    trigger = model.TRIGGER if any(stage.fsd for stage in plan.stages) else "battery low"
    for event in (*plan.events, *plan.worst):
        if event.what not in {model.TRIGGER, model.FSD, model.POWEROFF, model.CUT}:
            continue
        if event.worst and event.what in {model.TRIGGER, model.FSD}:
            continue
        which = f" ({shorten_name(event.machine)})" if event.machine and len(plan.supplies) > 1 else ""
        name = {model.CUT: "UPS cuts", model.TRIGGER: trigger}.get(event.what, event.what)
        colour = "var(--trigger)" if event.what in {model.TRIGGER, model.CUT} else "var(--mark)"
        label = f"{'latest ' if event.worst else ''}{name}{which} {spell_clock(event.at)}"
        moments.append(DrawnMoment(event.at, label, event.worst, colour))
    return [moment for moment in moments if scale.first <= moment.at <= scale.last]


def choose_lanes(moments: Iterable[DrawnMoment], scale: TimelineScale) -> list[tuple[DrawnMoment, float, int]]:
    """Return (moment, x, lane) so that no label covers another or leaves the drawing."""
    lanes: list[list[Span]] = []
    placed = []
    for moment in sorted(moments, key=lambda moment: moment.at):
        x = min(max(scale.to_pixels(moment.at), GUTTER), WIDTH - moment.label_width - 4)
        end = x + moment.label_width
        free = (
            lane for lane, taken in enumerate(lanes) if all(x > right + 10 or end + 10 < left for left, right in taken)
        )
        lane = next(free, len(lanes))
        if lane == len(lanes):
            lanes.append([])
        lanes[lane].append((x, end))
        placed.append((moment, round(x, 2), lane))
    return placed


def _draw_label(moment: DrawnMoment, x: float, y: float, line: float, bottom: float) -> list[str]:
    dashes = "3 4" if moment.late else None
    return [
        _draw_line((line, line), (y + 5, bottom), moment.colour, stroke_dasharray=dashes),
        _draw_text(moment.label, x, y, "soft halo" if moment.late else "moment halo"),
    ]


def _draw_axis(scale: TimelineScale, top: float, bottom: float) -> list[str]:
    parts = []
    for mark in scale.list_marks():
        x = scale.to_pixels(mark)
        parts.append(_draw_line((x, x), (top, bottom), "var(--grid)"))
        parts.append(_draw_text(spell_clock(mark), x, bottom + 20, "soft", text_anchor="middle"))
    return parts


# The rows


@dataclass
class _TimelineRow:
    """A row that is being drawn."""

    name: str
    scale: TimelineScale
    y: float
    parts: list[str] = field(default_factory=list)

    def draw_label(self, below: str, seen: str = "") -> None:
        """Write the name of the row, and below it one or two lines."""
        title = _build_element("title", escape_text(self.name))
        self.parts.append(
            _build_element("text", title + escape_text(shorten_name(self.name)), class_="name", x=8, y=self.y + 20)
        )
        self.parts.append(_draw_text(below, 8, self.y + 36, "soft"))
        if seen:
            self.parts.append(_draw_text(seen, 8, self.y + 52, style="fill:var(--seen)"))

    def draw_bar(self, span: Span, colour: str, tooltip: str) -> None:
        """Draw a bar."""
        self.parts.append(
            _draw_rect((self.scale.to_pixels(span[0]), self.scale.to_pixels(span[1])), self.y + 8, BAR, colour, tooltip)
        )

    def draw_limit(self, span: Span, tooltip: str) -> None:
        """Draw a dashed frame."""
        left, right = self.scale.to_pixels(span[0]), self.scale.to_pixels(span[1])
        sides, dashes = (left, max(right, left + 1)), "4 3"
        self.parts.append(
            _draw_rect(sides, self.y + 5, BAR + 6, "none", tooltip, stroke="var(--limit)", stroke_dasharray=dashes)
        )

    def draw_text(self, text: str, x: float, kind: str, **more: object) -> None:
        """Write into a bar."""
        self.parts.append(_draw_text(text, x, self.y + BAR + 3, kind, **more))


def _draw_ups(row: _TimelineRow, plan: Plan) -> None:
    def find_moment(what: str, events: Sequence[PlanEvent]) -> float | None:
        return next((event.at for event in events if (event.what, event.machine) == (what, row.name)), None)

    scale, name = row.scale, row.name
    cut, latest = find_moment(model.CUT, plan.events) or 0.0, find_moment(model.CUT, plan.worst) or 0.0
    empty = find_moment(model.EMPTY, plan.worst)
    row.draw_label("empty at an unknown time" if empty is None else f"empty at {spell_clock(empty)} at the earliest")
    row.draw_bar((scale.first, cut), "var(--up)", f"{name} powers all machines until {spell_clock(cut)}")
    # behind the lines of these moments, which would cross it
    lines = [event.at for event in plan.events if event.what in (model.TRIGGER, model.FSD) and event.at < cut]
    row.draw_text("on battery", scale.to_pixels(max([scale.first, *lines])) + 8, "on-up")
    row.draw_limit((cut, latest), f"{name} cuts the power at {spell_clock(latest)} at the latest")
    if empty is not None and empty <= scale.last:
        x = scale.to_pixels(empty)
        row.parts.append(_draw_line((x, x), (row.y + 5, row.y + BAR + 11), "var(--end)", stroke_width=3))
        # on the side of the mark that has room
        side, anchor = (6, "start") if x < WIDTH / 2 else (-6, "end")
        row.parts.append(_draw_text("battery empty", x + side, row.y + BAR + 22, "soft halo", text_anchor=anchor))


def _draw_machine(row: _TimelineRow, plan: Plan, seen: ObservedTimes | None) -> None:
    name, scale = row.name, row.scale
    own, worst = (
        [event for event in events if event.machine == name and event.what != model.DOWN]
        for events in (plan.events, plan.worst)
    )
    below = "not in the plan"
    if own and worst:
        off, limit = (max(event.until for event in events) for events in (own, worst))
        going = min((event.at for event in own if event.what in {model.GOES_DOWN, model.STOPS_GUESTS}), default=off)
        below = (
            f"down at {spell_clock(off)}, latest {spell_clock(limit)}"
            if going >= 0
            else f"down at {spell_clock(off)}, by a stage"
        )
        row.draw_bar((scale.first, going), "var(--up)", f"{name} runs until {spell_clock(going)}")
        cuts, middle = max(event.at for event in plan.worst if event.what == model.CUT), row.y + 8 + BAR / 2
        row.parts.append(
            _draw_line((scale.to_pixels(off), scale.to_pixels(cuts)), (middle, middle), "var(--down)", stroke_width=3)
        )
        for event in own:
            _draw_event(row, event)
        # A stage's guests are down before the trigger in either run, so there is no later end to show.
        if going >= 0:
            row.draw_limit((going, limit), f"{name} may take until {spell_clock(limit)}")
    if seen is not None:
        _draw_observed(row, *(seen.get(name) or (None, None)))
    row.draw_label(below, _spell_observed(seen, name))


def _draw_event(row: _TimelineRow, event: PlanEvent) -> None:
    """Draw a bar, with its text in it if that fits."""
    length = f"{event.until - event.at:.0f} s"
    colour, text, kind = {
        model.GOES_DOWN: ("var(--go)", length, "on-go"),
        model.WAITS_GATE: ("var(--gate)", f"gate {length}", "on-up"),
        model.STOPS_GUESTS: ("var(--go)", f"guests {length}", "on-go"),
        model.OWN_SHUTDOWN: ("var(--go2)", f"shutdown {length}", "on-go"),
        model.KILLPOWER: ("var(--end)", length, "on-dark"),
    }.get(event.what, ("", "", ""))
    if colour:
        span = spell_clock(event.at), spell_clock(event.until)
        row.draw_bar((event.at, event.until), colour, f"{row.name} {event.what}: {' to '.join(span)}, {length}")
        left, right = row.scale.to_pixels(event.at), row.scale.to_pixels(event.until)
        if right - left >= len(text) * CHARACTER + 8:
            row.draw_text(text, round((left + right) / 2, 2), kind, text_anchor="middle")


def _draw_observed(row: _TimelineRow, began: float | None, down: float | None) -> None:
    start = down if began is None else began
    if start is None:
        return
    name, scale, y = row.name, row.scale, row.y + BAR + 14
    sides, tooltip = (
        (scale.to_pixels(scale.first), scale.to_pixels(start)),
        f"{name} ran until {spell_clock(start)} (measured)",
    )
    row.parts.append(_draw_rect(sides, y, 8, "var(--seen-up)", tooltip))
    if began is not None:
        # without an end: to the edge, paler
        end = scale.last if down is None else max(down, began)
        tooltip = (
            f"{name} was never down (measured)" if down is None else f"{name} was down at {spell_clock(end)} (measured)"
        )
        sides = scale.to_pixels(began), max(scale.to_pixels(end), scale.to_pixels(began) + 2)
        row.parts.append(_draw_rect(sides, y, 8, "var(--seen)", tooltip, fill_opacity=".35" if down is None else None))


def _spell_observed(seen: ObservedTimes | None, name: str) -> str:
    if seen is None:
        return ""
    began, down = seen.get(name) or (None, None)
    if down is not None:
        return f"measured: down at {spell_clock(down)}"
    return "not measured" if began is None else f"began {spell_clock(began)}, never down"


# SVG elements


def _draw_rect(sides: Span, y: float, height: float, colour: str, tooltip: str, **more: object) -> str:
    left, right = sides
    if right <= left:
        return ""
    title, width = _build_element("title", escape_text(tooltip)), round(right - left, 2)
    return _build_element("rect", title, x=left, y=y, width=width, height=height, rx=3, fill=colour, **more)


def _draw_line(x: Span, y: Span, colour: str, **more: object) -> str:
    return _build_element("line", x1=x[0], y1=y[0], x2=x[1], y2=y[1], stroke=colour, **more)


def _draw_text(text: str, x: float, y: float, kind: str | None = None, **more: object) -> str:
    return _build_element("text", escape_text(text), class_=kind, x=x, y=y, **more)


def _build_element(kind: str, inner: str = "", /, **attributes: object) -> str:
    """Return an element. INNER must be escaped. Attributes are escaped here; those that are None are left out."""
    set_attributes = {
        name.strip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None
    }
    spelled = "".join(f' {name}="{escape_text(value)}"' for name, value in set_attributes.items())
    return f"<{kind}{spelled}>{inner}</{kind}>"
