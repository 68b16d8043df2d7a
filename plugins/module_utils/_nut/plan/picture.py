# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan of the shutdown as one HTML page: the timeline, the conditions, the guests, and the settings that the plan needs.

The page is made on the controller, from data: a host that could send a page could send a script with it. It is self-contained (no
script, no font, no link), follows the reader's light or dark theme, and escapes everything from the plan: a machine's name may be
anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..base import records
from . import model
from .drawing import ObservedTimes, draw_timeline, escape_text, shorten_name, spell_clock
from .model import SECONDARY, Constraint, Plan, PlanError
from .text import (
    SLACK_NOTE,
    TRIGGER_NOTE,
    list_needed,
    spell_begin,
    spell_reason,
    spell_stopper,
    spell_title,
    spell_verdict,
)

# The browser may use the page's own style, and may load and run nothing. Everything is escaped; this is the second line of defence.
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
dd.meaning { color: var(--soft); font-size: 13px; font-weight: 400; }
@media (max-width: 700px) { section { padding: 14px; } .meter { width: 70px; }
  .tiles div:last-child:nth-child(odd) { grid-column: 1 / -1; }
  table, tbody { display: block; } tr:first-child { display: none; }
  tr { display: grid; grid-template-columns: auto minmax(0, 1fr) auto; gap: 4px 12px; padding: 10px 0; }
  td, td.spare { padding: 0; } td.pill, td.sums { width: auto; } td.sums { grid-column: 1 / -1; } }
@media print { body { background: none; } section { break-inside: avoid; } }
"""

_VERDICTS: dict[bool | None, tuple[str, str, str]] = {
    True: ("ok", "\u2713", "holds"),
    False: ("no", "\u2717", "fails"),
    None: ("open", "?", "unknown"),
}
_KINDS = {"qm": "virtual machine", "pct": "container"}
_LEGEND = (
    ("background:var(--up)", "runs, or waits"),
    ("background:var(--gate)", "the gate waits until the secondaries are down"),
    ("background:var(--go)", "shuts down"),
    ("background:var(--end)", "killpower: orders the UPS to cut the power"),
    ("background:linear-gradient(var(--down),var(--down)) center/100% 3px no-repeat", "down"),
    ("border:1.5px dashed var(--limit)", "may take until here (worst case)"),
)
_LEGEND_OBSERVED = (
    ("background:var(--seen-up)", "running (measured)"),
    ("background:var(--seen)", "shutting down (measured)"),
)


def draw_page(plan: Plan, seen: ObservedTimes | None = None) -> str:
    """Return the page. seen: measured times to draw beside the plan; {} if nothing was measured, None for the plan alone."""
    kind, sign, _unused = _VERDICTS[plan.holds]
    primary = escape_text(plan.primary.name)
    subject = f"Shutdown of {primary}: planned and measured" if seen is not None else f"Shutdown plan of {primary}"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{subject}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{subject}</h1>",
            f'<div class="verdict {kind}"><b aria-hidden="true">{sign}</b><span>{escape_text(spell_verdict(plan))}</span></div>',
            f"<p>{escape_text(spell_begin(plan))}</p>",
            _draw_tiles(plan),
            "<section><h2>Timeline</h2>",
            f"<p>Minutes and seconds from {TRIGGER_NOTE}. Bars: each machine takes its usual time (shutdown_time).",
            "Dashed frames: each takes as long as it may (shutdown_limit).</p>",
            f'<div class="wide">{draw_timeline(plan, seen)}</div>',
            _draw_legend([*_LEGEND, *(_LEGEND_OBSERVED if seen is not None else ())]),
            "</section>",
            f"<section><h2>Conditions</h2><p>{SLACK_NOTE}</p>",
            _draw_constraints(plan.constraints),
            "</section>",
            *_draw_guests(plan),
            "<section><h2>Settings that the plan needs</h2><p>In seconds. Where a condition fails, its remedy says what to set.</p>",
            _draw_needed(plan),
            "</section></main></body></html>",
            "",
        ]
    )


def read_observed(data: object) -> dict[str, tuple[float | None, float | None]]:
    """Return the observed times that a host has sent, as draw_page() takes them. Raises PlanError."""
    try:
        return dict(records.build_record(_ObservedRecord, {"seen": data}, "observed times").seen)
    except records.RecordError as error:
        raise PlanError(str(error)) from None


@dataclass(frozen=True)
class _ObservedRecord:
    seen: Mapping[str, tuple[float | None, float | None]]


# --- the tiles above the timeline


def _draw_tiles(plan: Plan) -> str:
    def draw_tile(name: str, value: str, below: str) -> str:
        return f"<div><span>{escape_text(name)}</span><strong>{escape_text(value)}</strong><span>{escape_text(below)}</span></div>"

    def draw_moment(name: str, what: str, machine: str = "") -> str:
        at, latest = (plan.time_of(what, machine, worst=worst) or 0 for worst in (False, True))
        return draw_tile(name, spell_clock(at), f"at the latest {spell_clock(latest)}")

    secondaries = [machine.name for machine in plan.machines if machine.role == SECONDARY]
    ends = [(event.until, event.machine) for event in plan.events if event.what == model.GOES_DOWN]
    last = max((end for end in ends if end[1] in secondaries), default=None)
    primary = plan.primary.name
    tiles = [] if last is None else [draw_moment(f"{shorten_name(last[1])} is down", model.GOES_DOWN, last[1])]
    tiles.append(draw_moment(f"{shorten_name(primary)} powers off", model.POWEROFF))
    tiles.append(draw_moment(f"{shorten_name(primary)} is off", model.KILLPOWER, primary))
    cut, latest = (max(event.at for event in events if event.what == model.CUT) for events in (plan.events, plan.worst))
    tiles.append(draw_tile("the UPS cuts the power", spell_clock(cut), f"at the latest {spell_clock(latest)}"))
    empty = min((event.at for event in plan.worst if event.what == model.EMPTY), default=None)
    if empty is None:
        tiles.append(draw_tile("the battery lasts until", "?", "not known, see Conditions"))
    else:
        spare = empty - (plan.time_of(model.KILLPOWER, primary, worst=True) or 0)
        margin = f"worst case: {spell_clock(abs(spare))} {'to spare' if spare >= 0 else 'too short'}"
        tiles.append(draw_tile("the battery lasts until", spell_clock(empty), margin))
    return f'<div class="tiles">{"".join(tiles)}</div>'


# --- below the timeline


def _draw_legend(entries: Iterable[tuple[str, str]]) -> str:
    return (
        '<div class="key">'
        + "".join(f'<span><i style="{look}"></i>{escape_text(text)}</span>' for look, text in entries)
        + "</div>"
    )


def _draw_constraints(constraints: Iterable[Constraint]) -> str:
    rows = []
    for constraint in constraints:
        kind, _sign, verdict = _VERDICTS[constraint.holds]
        remedy = escape_text(constraint.remedy[:1].upper() + constraint.remedy[1:])
        remedy = f'<div class="remedy {kind}">{remedy}</div>' if remedy else ""
        rows.append(
            f'<tr><td class="pill"><span class="{kind}">{verdict}</span></td><td class="what">{escape_text(spell_title(constraint))}</td>'
            f'<td class="spare">{_draw_slack(constraint)}</td><td class="sums">{escape_text(constraint.reason)}{remedy}</td></tr>'
        )
    head = '<tr><th></th><th>condition</th><th style="text-align:right;padding-right:20px">slack</th><th>why</th></tr>'
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _draw_slack(constraint: Constraint) -> str:
    """Return the slack, with a meter of its share of the whole."""
    if constraint.slack is None:
        # Some conditions have no number.
        return "?" if constraint.holds is None else ""
    whole = max(constraint.have or 0, constraint.need or 0)
    share = 100 * abs(constraint.slack) / whole if whole else 0
    meter = f'<span class="meter{"" if constraint.holds else " no"}"><u style="width:{share:.0f}%"></u></span>'
    sign = "+" if constraint.slack >= 0 else "\u2212"
    return f"{sign}{abs(constraint.slack):.0f} s{meter}"


def _draw_guests(plan: Plan) -> list[str]:
    """Return the section about the guests; nothing if there is none."""
    if not plan.guests:
        return []
    rows = []
    for guest in plan.guests:
        number = f'<div class="sums">{escape_text(_KINDS[guest.kind])} {guest.id}</div>' if guest.id is not None else ""
        rows.append(
            f'<tr><td class="what">{escape_text(guest.machine)}{number}</td><td class="by">{escape_text(spell_stopper(plan, guest))}</td>'
            f'<td class="spare">{guest.seconds:.0f} s</td><td class="sums">{escape_text(spell_reason(guest))}</td></tr>'
        )
    head = '<tr><th>guest</th><th>stopped by</th><th style="text-align:right;padding-right:20px">within</th><th>why</th></tr>'
    note = (
        f"Stages stop their guests before the battery is low. {plan.primary.name} stops the others when it goes down."
    )
    return [
        f"<section><h2>Guests</h2><p>{escape_text(note)}</p>",
        f'<div class="wide"><table>{head}{"".join(rows)}</table></div>',
        "</section>",
    ]


def _draw_needed(plan: Plan) -> str:
    rows = [
        f"<div><dt>{escape_text(setting)}</dt><dd>{escape_text(value)}</dd>"
        f'<dd class="meaning">{escape_text(meaning)}</dd></div>'
        for setting, value, meaning in list_needed(plan)
    ]
    return f"<dl>{''.join(rows)}</dl>"
