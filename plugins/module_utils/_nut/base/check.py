# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of JSON or YAML that a person wrote. All mistakes are collected, each with its path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import jsontext

TEXT_LIMIT = 1 << 20  # characters of a policy
_PLAIN = re.compile(r"[A-Za-z_]\w*", re.ASCII)


class _Object(dict[str, Any]):
    """A JSON object that remembers which members were given twice."""

    twice: tuple[str, ...] = ()


def _build_object(pairs: Sequence[tuple[str, Any]]) -> _Object:
    made = _Object(pairs)
    names = [name for name, _value in pairs] if len(made) < len(pairs) else []
    made.twice = tuple(sorted({name for name in names if names.count(name) > 1}))
    return made


def read_json(text: str | bytes, error: type[ValueError]) -> Any:
    """Return the value of a policy's JSON text. Raise ERROR, and nothing else, if it is not JSON or too long."""
    if len(text) > TEXT_LIMIT:
        raise error(f"$: more than {TEXT_LIMIT} characters, which is too long for a policy")
    try:
        # surrogates stand for bytes that were not UTF-8
        plain = text.decode() if isinstance(text, bytes) else text.encode().decode()
        return jsontext.parse_json(plain, _build_object)
    except UnicodeError:
        raise error("$: not UTF-8. Save the file as UTF-8") from None
    except json.JSONDecodeError as wrong:
        raise error(f"$: not valid JSON: line {wrong.lineno}, column {wrong.colno}: {wrong.msg}") from None
    except ValueError as wrong:
        raise error(f"$: {wrong}") from None


def member_path(path: str, name: str) -> str:
    """Return the path of a member of an object."""
    return f"{path}.{name}" if _PLAIN.fullmatch(name) else f"{path}[{json.dumps(name[:80])}]"


class Members(dict[str, Any]):
    """The members of an object, by their names, and its path."""

    path: str = ""

    def at(self, name: str) -> tuple[str, Any]:
        """Return the path of a member and its value; the value is None if the member is missing."""
        return member_path(self.path, name), self.get(name)


class Checker:
    """Checks data part by part. Each method returns a value of the requested type, even after noting a mistake.

    None counts as left out, which is a mistake only for a member that `members` requires.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []

    def add(self, path: str, words: str) -> None:
        """Note a mistake."""
        self.problems.append(f"{path}: {words}")

    def raise_problems(self, error: type[ValueError]) -> None:
        """Raise ERROR with all mistakes, a line each, if there are any."""
        if self.problems:
            raise error("\n".join(self.problems))

    def members(self, path: str, data: object, known: Sequence[str], needed: Sequence[str] = ()) -> Members:
        """Return the members of an object. known: allowed names (empty: any); needed: required names."""
        found = Members()
        found.path = path
        if not isinstance(data, Mapping):
            self.add(path, "must be an object" + (f" with the members {', '.join(known)}" if known else ""))
            return found
        for name in getattr(data, "twice", ()):
            self.add(member_path(path, name), "is given twice. Remove one")
        for name, value in data.items():
            if not isinstance(name, str) or (known and name not in known):
                self.add(member_path(path, str(name)), f"is unknown. The known members are {', '.join(known)}")
            else:
                found[name] = value
        for name in needed:
            if found.get(name) is None:
                self.add(path, f"lacks {name}")
        return found

    def version(self, given: Members, only: int) -> None:
        """Note a mistake if a policy has another version than ONLY."""
        value = given.get("version", only)
        if isinstance(value, bool) or value != only:
            self.add(f"{given.path}.version", f"must be {only}, the only version")

    def entries(self, path: str, data: object, most: int = 100) -> list[tuple[str, Any]]:
        """Return the entries of a list, each with its path."""
        if data is None:
            return []
        if not isinstance(data, (list, tuple)):
            self.add(path, "must be a list")
            return []
        if len(data) > most:
            self.add(path, f"has {len(data)} entries, but the limit is {most}")
            return []
        return [(f"{path}[{number}]", entry) for number, entry in enumerate(data)]

    def differ(self, path: str, names: Sequence[object]) -> None:
        """Note each name that occurs more than once."""
        for name in dict.fromkeys(name for name in names if name and names.count(name) > 1):
            self.add(path, f"{name} is listed twice. Remove one")

    def number(
        self,
        path: str,
        value: object,
        least: float,
        most: float,
        *,
        what: str = "a number of seconds",
        default: float = 0,
    ) -> float:
        """Return a number."""
        if value is None:
            return default
        # compare before float(): a huge int does not fit into a float
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            self.add(path, f"must be {what} from {least:g} to {most:g}")
            return least
        return float(value)

    def whole(self, path: str, value: object, least: int, most: int, what: str, *, default: int = 0) -> int:
        """Return a whole number."""
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.add(path, f"must be {what}, a whole number from {least} to {most}")
            return least
        return value

    def truth(self, path: str, value: object, *, default: bool = False) -> bool:
        """Return a truth value."""
        if value is None:
            return default
        if not isinstance(value, bool):
            self.add(path, "must be true or false")
        return value is True

    def choice(self, path: str, value: object, words: Sequence[str], what: str) -> str:
        """Return one of some words, the first by default."""
        if value is None:
            return words[0]
        if value not in words:
            self.add(path, f"must be {what}")
            return words[0]
        return str(value)

    def text(self, path: str, value: object, pattern: re.Pattern[str], what: str, *, default: str = "") -> str:
        """Return a printable text that matches a pattern."""
        if value is None:
            return default
        if not isinstance(value, str) or not value.isprintable() or not pattern.fullmatch(value):
            self.add(path, f"must be {what}")
            return ""
        return value

    def texts(self, path: str, data: object, pattern: re.Pattern[str], what: str) -> tuple[str, ...]:
        """Return the texts of a list, each once."""
        return tuple(dict.fromkeys(self.text(*entry, pattern, what) for entry in self.entries(path, data)))
