# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dataclass from data that somebody else has sent, or from a file in which we keep it, by the types of its fields.

What a managed host answers may be anything: another type, a number of a thousand digits, a list of a million. A file may be damaged.
What is made here has the types that its class says, and sizes that can be shown.
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
"""A number may be so large: more than the seconds since 1970, and than any time of a plan, and one that each clock can tell."""
FILE_BYTES = 1 << 20
"""How large a file may be that holds a record."""

_T = TypeVar("_T")
Clean = Callable[[str], str]


class RecordError(ValueError):
    """The data is not what the class says; the message names the place and what is wrong there."""


def build_record(kind: type[_T], data: object, where: str, clean: Clean = str) -> _T:
    """Return the dataclass KIND of which this is the data. clean: is applied to each text. Raises RecordError.

    A field that is missing has its default. One that the class does not have is an error, and so is what the class itself refuses,
    by raising ValueError in its __post_init__().
    """
    if not isinstance(data, Mapping):
        raise RecordError(f"{where} must be a dictionary, and is {_describe_type(data)}")
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
    """Write a dataclass as JSON, in ASCII, for load_record() to read. version: of its class; another one can't be read."""
    return json.dumps({"version": version, **asdict(record)}, indent=1, default=sorted) + "\n"


def load_record(kind: type[_T], text: str | bytes, version: int) -> _T:
    """Return the dataclass that dump_record() has written. Raises RecordError: half a memory is worse than none."""
    try:
        data = jsontext.parse_json(text)
    except ValueError as error:
        raise RecordError(f"it is no JSON: {printable(str(error))}") from None
    if not isinstance(data, dict) or data.pop("version", None) != version:
        raise RecordError(f"it is not of version {version}")
    return build_record(kind, data, "$")


def read_record(kind: type[_T], path: Path, version: int) -> _T:
    """Return the dataclass that a file holds. Raises OSError or RecordError. Whatever stands there, it does not hang."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_size > FILE_BYTES:
            raise RecordError("it is no file of ours")
        return load_record(kind, file.read(FILE_BYTES + 1), version)


def recall_record(kind: type[_T], path: Path, version: int) -> _T | None:
    """Return the dataclass that a file holds; None if there is no such file, or it is broken. Never raises."""
    try:
        return read_record(kind, path, version)
    except (OSError, RecordError):
        return None


class _Reader:
    """What all values of one dataclass are read with."""

    def __init__(self, names: Mapping[str, Any], clean: Clean) -> None:
        self.names = names  # of the module of the class: others are found there
        self.clean = clean


def _convert_value(spelled: str, value: object, where: str, reader: _Reader) -> Any:
    """Return a value that has the type which an annotation spells. Annotations are texts, so that Python 3.9 can read them, too."""
    for each in _split_type(spelled, "|"):
        if _has_type(each, value):
            return _read_value(each, value, where, reader)
    raise RecordError(f"{where} must be {spelled}, and is {_describe_type(value)}")


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
        # also what is no number: it is not less than anything
        raise RecordError(f"{where} must be a number between {-NUMBER_LIMIT:g} and {NUMBER_LIMIT:g}")
    if isinstance(value, str) and len(value) > TEXT_LIMIT:
        raise RecordError(f"{where} has {len(value)} characters, and may have {TEXT_LIMIT}")
    if isinstance(value, str):
        return reader.clean(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if len(value) > ITEMS_LIMIT:
        raise RecordError(f"{where} has {len(value)} members, and may have {ITEMS_LIMIT}")
    inner = _split_type(spelled.partition("[")[2][:-1], ",")
    if spelled.startswith("frozenset"):
        return frozenset(_convert_value(inner[0], one, f"{where}[{at}]", reader) for at, one in enumerate(value))
    if isinstance(value, list):
        each = inner[:1] * len(value) if inner[1:] == ["..."] else inner
        if len(each) != len(value):
            raise RecordError(f"{where} must have {len(each)} members, and has {len(value)}")
        return tuple(
            _convert_value(kind, one, f"{where}[{at}]", reader) for at, (kind, one) in enumerate(zip(each, value))
        )
    if spelled.startswith("Mapping"):
        return {
            _convert_value(inner[0], key, f"a name in {where}", reader): _convert_value(
                inner[1], one, f"{where}.{printable(str(key), 60)}", reader
            )
            for key, one in value.items()
        }
    return build_record(reader.names[spelled], value, where, reader.clean)


def _split_type(spelled: str, sign: str) -> list[str]:
    """Divide the spelling of a type at a sign that stands outside of all brackets."""
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
