# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import status
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import model
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal.offers import Offer
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
    names: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if self.maybe == 13:
            raise ValueError("13\x1b is never right")


DATA: dict[str, Any] = {
    "inner": {"name": "a"},
    "all": [{"name": "b", "size": 2}],
    "pair": [1, "x"],
    "maybe": None,
    "flag": True,
    "by_name": {"a": 1.5, "b": {"c": 2}},
    "names": ["b", "a"],
}


def test_valid_data_becomes_a_record() -> None:
    made = records.build_record(Outer, DATA, "it", str.upper)
    assert made == Outer(
        Inner("A"), (Inner("B", 2),), (1, "X"), None, True, {"A": 1.5, "B": {"C": 2}}, frozenset({"A", "B"})
    )
    assert records.build_record(Outer, {"inner": {"name": ""}}, "it") == Outer(Inner(""))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inner": 7}, "it.inner must be Inner, not a number"),
        ({"inner": {}}, "it.inner lacks name"),
        ({"inner": {"name": "a", "\x1b[2J": 1}}, r"it.inner has an unknown member '\x1b[2J'"),
        ({"inner": {"name": ["a"]}}, "it.inner.name must be str, not a list"),
        ({"inner": {"name": "a", "size": 1.0}}, "it.inner.size must be int, not a number"),
        ({"inner": {"name": "a", "size": True}}, "it.inner.size must be int, not a truth value"),
        ({"inner": {"name": "a", "size": 10**400}}, "it.inner.size must be a number between"),
        ({"all": {"name": "a"}}, "it.all must be tuple[Inner, ...], not a dictionary"),
        ({"all": [{"name": "a"}, None]}, "it.all[1] must be Inner, not null"),
        ({"all": [{"name": "a"}] * 5001}, "it.all has 5001 members"),
        ({"pair": [1]}, "it.pair must have 2 members, not 1"),
        ({"maybe": "1"}, "it.maybe must be float | None, not a text"),
        ({"maybe": float("nan")}, "it.maybe must be a number between"),
        ({"maybe": float("inf")}, "it.maybe must be a number between"),
        ({"maybe": 13}, r"it: 13\x1b is never right"),
        ({"names": {"a": 1}}, "it.names must be frozenset[str], not a dictionary"),
        ({"names": ["a", []]}, "it.names[1] must be str, not a list"),
        ({"flag": 1}, "it.flag must be bool, not a number"),
        ({"by_name": {"a": {"b": {}}}}, "it.by_name.a.b must be float"),
        ({"by_name": {7: 1}}, "a name in it.by_name must be str"),
        ({"inner": {"name": "x" * 20_001}}, "it.inner.name has 20001 characters"),
    ],
)
def test_invalid_data_is_refused_with_the_path(change: dict[str, Any], words: str) -> None:
    with pytest.raises(records.RecordError) as caught:
        records.build_record(Outer, {**DATA, **change}, "it")
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


@given(values)
def test_any_data_is_accepted_or_refused(data: Any) -> None:
    for kind in (Outer, status.Facts, model.Plan, Offer):
        try:
            made: Any = records.build_record(kind, data, "it")
        except records.RecordError:
            continue
        assert isinstance(made, kind)


def test_every_field_checks_the_type() -> None:
    """Every field of every class refuses a value of the wrong type."""
    kinds = [
        model.Plan,
        model.PlanEvent,
        model.Constraint,
        model.PlanMachine,
        model.Supply,
        model.StagePlan,
        model.PlannedGuest,
    ]
    for kind in (*kinds, status.Facts, status.UpsFacts, Offer):
        for member in fields(kind):
            with pytest.raises(records.RecordError):
                records.build_record(kind, {member.name: json.loads("[[[[0]]]]")}, "it")


# In a file

WHOLE = Outer(Inner("a\ud800\n"), (Inner("b", 2),), (1.5, "x"), None, True, {"a": {"b": 1e-9}}, frozenset({"z", "a"}))


def test_dumped_record_is_loaded_unchanged() -> None:
    text = records.dump_record(WHOLE, 3)
    assert text.isascii()
    assert json.loads(text) == {"version": 3, **json.loads(json.dumps(asdict(WHOLE), default=sorted))}
    assert records.load_record(Outer, text, 3) == WHOLE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("nonsense", "not valid JSON"),
        (b"\xff\xff", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"version": 1, "inner": ' + '{"a":' * 500 + "1" + "}" * 501, "not valid JSON"),
        ("[]", "not of version 1"),
        ("7", "not of version 1"),
        ('{"inner": {"name": "a"}}', "not of version 1"),
        ('{"version": 2, "inner": {"name": "a"}}', "not of version 1"),
        ('{"version": "1", "inner": {"name": "a"}}', "not of version 1"),
        ('{"version": 1}', "$ lacks inner"),
        ('{"version": 1, "inner": {"name": "a"}, "more": 1}', "$ has an unknown member 'more'"),
        ('{"version": 1, "inner": {"name": "a", "size": ' + "9" * 400 + "}}", "$.inner.size must be int"),
        ('{"version": 1, "inner": {"name": "a", "size": ' + "9" * 5000 + "}}", "$.inner.size must be int"),
        ('{"version": 1, "inner": {"name": "a"}, "maybe": NaN}', "$.maybe must be a number between"),
        ('{"version": 1, "inner": {"name": "a"}, "maybe": -Infinity}', "$.maybe must be a number between"),
        ('{"version": 1, "inner": {"name": "a"}, "maybe": 1e999}', "$.maybe must be a number between"),
        ('{"version": 1, "inner": {"name": "a"}, "flag": 0}', "$.flag must be bool"),
        ('{"version": 1, "inner": {"name": "a"}, "pair": [1, "x", 2]}', "$.pair must have 2 members"),
    ],
)
def test_broken_text_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(records.RecordError) as caught:
        records.load_record(Outer, text, 1)
    assert words in str(caught.value)
    path = tmp_path / "file"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert records.recall_record(Outer, path, 1) is None


@given(values)
def test_any_json_is_loaded_or_refused(data: Any) -> None:
    text = json.dumps({"version": 1, "inner": {"name": "a"}, "by_name": data, "all": data})
    try:
        made = records.load_record(Outer, text, 1)
    except records.RecordError:
        return
    assert records.load_record(Outer, records.dump_record(made, 1), 1) == made


def test_record_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(records.dump_record(WHOLE, 1))
    assert records.read_record(Outer, path, 1) == records.recall_record(Outer, path, 1) == WHOLE
    with pytest.raises(records.RecordError, match="not of version 2"):
        records.read_record(Outer, path, 2)


def test_special_and_huge_files_are_not_read(tmp_path: Path) -> None:
    """Reading a FIFO would block, and a file may be huge."""
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(records.FILE_BYTES + 1)
    for name in ("fifo", "large"):
        with pytest.raises(records.RecordError, match="not a regular file, or too large"):
            records.read_record(Outer, tmp_path / name, 1)
        assert records.recall_record(Outer, tmp_path / name, 1) is None
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises((OSError, records.RecordError)):
            records.read_record(Outer, path, 1)
        assert records.recall_record(Outer, path, 1) is None
