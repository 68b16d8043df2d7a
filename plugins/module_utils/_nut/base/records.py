# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads a dataclass from foreign data, or from a file of ours, by the types of its fields.

A managed host may answer anything: another type, a number of a thousand digits, a list of a million. A file may be damaged.
The dataclass that is returned has the declared types, and its sizes are bounded.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from . import jsontext
from .text import printable

ITEMS_LIMIT = 5000
TEXT_LIMIT = 20_000
NUMBER_LIMIT = 1e10
"""The largest number: more than the seconds since 1970 or any time in a plan, and valid as a time on every clock."""
FILE_BYTES = 1 << 20
"""The largest file that is read, in bytes."""

_T = TypeVar("_T")
Clean = Callable[[str], str]


class RecordError(ValueError):
    """The data does not fit the class; the message names the place and the mistake."""


def build_record(kind: type[_T], data: object, where: str, clean: Clean = str) -> _T:
    """Return a dataclass KIND built from its data. clean: applied to each text. Raise RecordError.

    A missing field gets its default. An unknown field is an error, and so is a ValueError from the class's __post_init__().
    """
    if not isinstance(data, Mapping):
        raise RecordError(f"{where} must be a dictionary, not {_describe_type(data)}")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    strange = [name for name in data if name not in known]
    lacking = [
        name
        for name, field in known.items()
        if name not in data and field.default is MISSING and field.default_factory is MISSING
    ]
    if strange or lacking:
        wrong = f"has an unknown member {printable(repr(strange[0]), 60)}" if strange else f"lacks {lacking[0]}"
        raise RecordError(f"{where} {wrong}")
    reader = _Reader(vars(sys.modules[kind.__module__]), clean)
    values = {
        name: _convert_value(str(known[name].type), value, f"{where}.{name}", reader) for name, value in data.items()
    }
    try:
        return kind(**values)
    except ValueError as error:
        raise RecordError(f"{where}: {printable(str(error))}") from None


def dump_record(record: Any, version: int) -> str:
    """Return a dataclass as ASCII JSON for load_record(). version: of the class; load_record() refuses any other."""
    return json.dumps({"version": version, **asdict(record)}, indent=1, default=sorted) + "\n"


def load_record(kind: type[_T], text: str | bytes, version: int) -> _T:
    """Return the dataclass that dump_record() wrote. Raise RecordError if any of it is wrong: half a record is worse than none."""
    try:
        data = jsontext.parse_json(text)
    except ValueError as error:
        raise RecordError(f"it is not valid JSON: {printable(str(error))}") from None
    if not isinstance(data, dict) or data.pop("version", None) != version:
        raise RecordError(f"it is not of version {version}")
    return build_record(kind, data, "$")


def read_record(kind: type[_T], path: Path, version: int) -> _T:
    """Return the dataclass in a file. Raise OSError or RecordError. Never hangs, even if the path is a fifo."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > FILE_BYTES:
            raise RecordError("it is not a regular file, or too large")
        return load_record(kind, file.read(FILE_BYTES + 1), version)


def recall_record(kind: type[_T], path: Path, version: int) -> _T | None:
    """Return the dataclass in a file; None if the file is missing or broken. Never raises."""
    try:
        return read_record(kind, path, version)
    except (OSError, RecordError):
        return None


class _Reader:
    """What is needed to read the values of a dataclass."""

    def __init__(self, names: Mapping[str, Any], clean: Clean) -> None:
        self.names = names  # of the module of the class: others are found there
        self.clean = clean


def _convert_value(spelled: str, value: object, where: str, reader: _Reader) -> Any:
    """Return a value converted to the type of an annotation. Annotations are texts, because Python 3.9 can't evaluate `X | Y`."""
    for each in _split_type(spelled, "|"):
        if _has_type(each, value):
            return _read_value(each, value, where, reader)
    raise RecordError(f"{where} must be {spelled}, not {_describe_type(value)}")


def _has_type(spelled: str, value: object) -> bool:
    if spelled == "None":
        return value is None
    if spelled in ("int", "float"):
        # in Python true is a number
        return isinstance(value, (int, float) if spelled == "float" else int) and not isinstance(value, bool)
    kinds = {"bool": bool, "str": str, "tuple": list, "frozenset": list, "Mapping": Mapping}
    return isinstance(value, kinds.get(spelled.partition("[")[0], Mapping))


def _read_value(spelled: str, value: Any, where: str, reader: _Reader) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not -NUMBER_LIMIT < value < NUMBER_LIMIT:
        # catches NaN, too: it is not less than anything
        raise RecordError(f"{where} must be a number between {-NUMBER_LIMIT:g} and {NUMBER_LIMIT:g}")
    if isinstance(value, str) and len(value) > TEXT_LIMIT:
        raise RecordError(f"{where} has {len(value)} characters; the limit is {TEXT_LIMIT}")
    if isinstance(value, str):
        return reader.clean(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if len(value) > ITEMS_LIMIT:
        raise RecordError(f"{where} has {len(value)} members; the limit is {ITEMS_LIMIT}")
    inner = _split_type(spelled.partition("[")[2][:-1], ",")
    if spelled.startswith("frozenset"):
        return frozenset(_convert_value(inner[0], member, f"{where}[{at}]", reader) for at, member in enumerate(value))
    if isinstance(value, list):
        each = inner[:1] * len(value) if inner[1:] == ["..."] else inner
        if len(each) != len(value):
            raise RecordError(f"{where} must have {len(each)} members, not {len(value)}")
        return tuple(
            _convert_value(kind, member, f"{where}[{at}]", reader) for at, (kind, member) in enumerate(zip(each, value))
        )
    if spelled.startswith("Mapping"):
        return {
            _convert_value(inner[0], key, f"a name in {where}", reader): _convert_value(
                inner[1], member, f"{where}.{printable(str(key), 60)}", reader
            )
            for key, member in value.items()
        }
    return build_record(reader.names[spelled], value, where, reader.clean)


def _split_type(spelled: str, sign: str) -> list[str]:
    """Split an annotation at a sign that is outside all brackets."""
    found, depth = [""], 0
    for each in re.split(r"([\[\],|])", spelled):
        depth += {"[": 1, "]": -1}.get(each, 0)
        if each == sign and not depth:
            found.append("")
        else:
            found[-1] += each
    return [each.strip() for each in found]


def _describe_type(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return "no number"
    return {"str": "a text", "bool": "a truth value", "dict": "a dictionary", "list": "a list"}.get(
        type(value).__name__, "a number" if isinstance(value, (int, float)) else type(value).__name__
    )
