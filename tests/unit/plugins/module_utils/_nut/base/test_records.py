# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import status
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import model
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import live
from ansible_collections.homelab.nut.tests.unit.support.hostile import values
from hypothesis import given


@dataclass(frozen=True)
class Inner:
    name: str
    size: int = 1


@dataclass(frozen=True)
class Outer:
    inner: Inner
    all: tuple[Inner, ...] = ()
    pair: tuple[float, str] = (0.0, "")
    maybe: float | None = None
    flag: bool = False
    by_name: Mapping[str, float | Mapping[str, float]] = field(default_factory=dict)


DATA: dict[str, Any] = {
    "inner": {"name": "a"},
    "all": [{"name": "b", "size": 2}],
    "pair": [1, "x"],
    "maybe": None,
    "flag": True,
    "by_name": {"a": 1.5, "b": {"c": 2}},
}


def test_what_fits() -> None:
    made = records.build(Outer, DATA, "it", str.upper)
    assert made == Outer(Inner("A"), (Inner("B", 2),), (1, "X"), None, True, {"A": 1.5, "B": {"C": 2}})
    assert records.build(Outer, {"inner": {"name": ""}}, "it") == Outer(Inner(""))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inner": 7}, "it.inner must be Inner, and is a number"),
        ({"inner": {}}, "it.inner lacks name"),
        ({"inner": {"name": "a", "\x1b[2J": 1}}, r"it.inner has an unknown member '\x1b[2J'"),
        ({"inner": {"name": ["a"]}}, "it.inner.name must be str, and is a list"),
        ({"inner": {"name": "a", "size": 1.0}}, "it.inner.size must be int, and is a number"),
        ({"inner": {"name": "a", "size": True}}, "it.inner.size must be int, and is a truth value"),
        ({"inner": {"name": "a", "size": 10**400}}, "it.inner.size must be a number between"),
        ({"all": {"name": "a"}}, "it.all must be tuple[Inner, ...], and is a dictionary"),
        ({"all": [{"name": "a"}, None]}, "it.all[1] must be Inner, and is null"),
        ({"all": [{"name": "a"}] * 5001}, "it.all has 5001 members"),
        ({"pair": [1]}, "it.pair must have 2 members, and has 1"),
        ({"maybe": "1"}, "it.maybe must be float | None, and is a text"),
        ({"maybe": float("nan")}, "it.maybe must be a number between"),
        ({"maybe": float("inf")}, "it.maybe must be a number between"),
        ({"flag": 1}, "it.flag must be bool, and is a number"),
        ({"by_name": {"a": {"b": {}}}}, "it.by_name.a.b must be float"),
        ({"by_name": {7: 1}}, "a name in it.by_name must be str"),
        ({"inner": {"name": "x" * 20_001}}, "it.inner.name has 20001 characters"),
    ],
)
def test_what_does_not(change: dict[str, Any], words: str) -> None:
    with pytest.raises(records.RecordError) as caught:
        records.build(Outer, {**DATA, **change}, "it")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@given(values)
def test_anything_is_read_or_refused(data: Any) -> None:
    for kind in (Outer, status.Facts, model.Plan, live.Offer):
        try:
            made: Any = records.build(kind, data, "it")
        except records.RecordError:
            continue
        assert isinstance(made, kind)


def test_each_type_of_what_is_read_is_known() -> None:
    """A null, a text and a list are refused where they don't belong, and nothing else is raised, for each field of each class."""
    kinds = [
        model.Plan,
        model.Event,
        model.Constraint,
        model.Machine,
        model.Supply,
        model.StagePlan,
        model.PlannedGuest,
    ]
    for kind in (*kinds, status.Facts, status.UpsFacts, live.Offer):
        for one in fields(kind):
            with pytest.raises(records.RecordError):
                records.build(kind, {one.name: json.loads("[[[[0]]]]")}, "it")
