# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the gate is told: whom to wait for, for how long, and what must be left of the battery; read and checked."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..base import hostnames
from ..conf.upsd import PORT

VERSION = 1
TEXT_LIMIT = 1 << 20  # characters of a policy
DAY = 86400


class PolicyError(ValueError):
    """A policy can't be used; the message lists all that is wrong with it, a line each, with its JSON path."""


@dataclass(frozen=True)
class Ups:
    """A UPS that this primary watches, and the upsd that serves it."""

    name: str
    host: str = "localhost"
    port: int = PORT

    def __str__(self) -> str:
        """Name it as upsmon does."""
        return f"{self.name}@{hostnames.join_host(self.host, self.port)}"


@dataclass(frozen=True)
class Guest:
    """A guest on this host. kind: "qm" (virtual machine) or "pct" (container), the program that knows it."""

    kind: str
    id: int


@dataclass(frozen=True)
class Machine:
    """A machine to wait for."""

    name: str
    addresses: tuple[str, ...]
    ports: tuple[int, ...]
    guest: Guest | None
    shutdown_time: float  # seconds from the gate's beginning until it should be down
    shutdown_limit: float  # seconds after which it is waited for no longer


@dataclass(frozen=True)
class Policy:
    """What the gate goes by. settle, reserve, least, longest: seconds. stages: as they stand in the file; stages.py reads them.

    reserve: what the battery must still have for this host itself. least: what it must have in any case; that much alone counts
    while the machines take no longer than expected. flag: the path of upsmon's POWERDOWNFLAG, "" if it has none.
    """

    upses: tuple[Ups, ...]
    machines: tuple[Machine, ...]
    settle: float
    reserve: float
    longest: float
    stages: tuple[Mapping[str, object], ...] = ()
    least: float | None = None
    flag: str = ""

    def keeps(self, waiting: Sequence[Machine], elapsed: float) -> float:
        """Say how many seconds of the battery are for this host alone, while these are waited for."""
        if self.least is None or any(elapsed >= host.shutdown_time + self.settle for host in waiting):
            return self.reserve
        return min(self.least, self.reserve)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_UPS = re.compile(r"[^\s@:\x00-\x1f\x7f]{1,255}")
_MEMBERS = ("version", "upses", "machines", "settle", "reserve", "least", "longest", "flag", "stages")


def read_policy(text: str | bytes) -> Policy:
    """Read the policy from the text of its file (shutdown.json). Raises PolicyError."""
    if len(text) > TEXT_LIMIT:
        raise PolicyError(f"$: more than {TEXT_LIMIT} characters. A policy is a page")
    try:
        plain = text.decode() if isinstance(text, bytes) else text.encode().decode()
        data = json.loads(plain, object_pairs_hook=_object)
    except UnicodeError:
        raise PolicyError("$: not UTF-8. Save the file as UTF-8") from None
    except RecursionError:
        raise PolicyError("$: too many brackets inside of each other. A policy needs five") from None
    except json.JSONDecodeError as error:
        raise PolicyError(
            f"$: no JSON, line {error.lineno}, column {error.colno}: {error.msg}. Mend it there"
        ) from None
    except ValueError:  # a number of thousands of digits
        raise PolicyError("$: a number is too long. Write seconds as 120 or 2.5") from None
    return check_policy(data)


def load_policy(path: Path) -> Policy:
    """Read the policy file of a host. Raises PolicyError, which names the file."""
    try:
        return read_policy(path.read_bytes())
    except OSError as error:
        raise PolicyError(f"{path}: it can't be read: {error.strerror}. The role nut_server writes it") from None
    except PolicyError as error:
        raise PolicyError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None


def check_policy(data: object) -> Policy:
    """Turn what JSON or YAML gave into a policy. Raises PolicyError with all that is wrong."""
    check = _Check()
    policy = check.policy(data)
    if check.problems:
        raise PolicyError("\n".join(check.problems))
    return policy


class _Twice(dict[str, object]):
    """An object of JSON in which a member stands twice."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else _Twice(made)


class _Check:
    def __init__(self) -> None:
        self.problems: list[str] = []

    def wrong(self, path: str, words: str) -> None:
        self.problems.append(f"{path}: {words}")

    def policy(self, data: object) -> Policy:
        given = self.members("$", data, _MEMBERS, needed=("version", "upses", "machines", "reserve", "longest"))
        if isinstance(given.get("version"), bool) or given.get("version", VERSION) != VERSION:
            self.wrong("$.version", f"must be {VERSION}, the only version there is")
        machines = tuple(self.machine(path, one) for path, one in self.entries("$.machines", given.get("machines", [])))
        upses = tuple(self.ups(path, one) for path, one in self.entries("$.upses", given.get("upses", [])))
        for what, names in (("$.machines", [one.name for one in machines]), ("$.upses", [str(one) for one in upses])):
            for name in sorted({name for name in names if names.count(name) > 1 and name}):
                self.wrong(what, f"{name} stands there twice. Say it once")
        stages = []
        for path, one in self.entries("$.stages", given.get("stages", [])):
            if isinstance(one, Mapping):
                stages.append(one)
            else:
                self.wrong(path, "must be an object with a name, what starts it, and what it does")
        return Policy(
            upses,
            machines,
            settle=self.seconds("$.settle", given.get("settle", 3.0), 0.5, 60),
            reserve=self.seconds("$.reserve", given.get("reserve", 0), 0, DAY),
            longest=self.seconds("$.longest", given.get("longest", 1), 1, DAY),
            stages=tuple(stages),
            least=None if given.get("least") is None else self.seconds("$.least", given["least"], 0, DAY),
            flag=self.path("$.flag", given.get("flag")),
        )

    def path(self, path: str, value: object) -> str:
        if value in (None, ""):
            return ""
        if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or len(value) > 4000:
            self.wrong(path, "must be the path of a file, from / on")
            return ""
        return value

    def members(self, path: str, data: object, known: Sequence[str], needed: Sequence[str] = ()) -> Mapping[str, Any]:
        if not isinstance(data, Mapping):
            self.wrong(path, f"must be an object with the members {', '.join(known)}")
            return {}
        if isinstance(data, _Twice):
            self.wrong(path, "has a member twice. Say it once")
        for key in data:
            if key not in known:
                self.wrong(path, f"has no member {str(key)[:80]!r}. It may have {', '.join(known)}")
        for key in needed:
            if key not in data:
                self.wrong(path, f"lacks {key}")
        return data

    def entries(self, path: str, data: object) -> list[tuple[str, object]]:
        if not isinstance(data, (list, tuple)):
            self.wrong(path, "must be a list")
            return []
        if len(data) > 100:
            self.wrong(path, "has more than 100 entries")
            return []
        return [(f"{path}[{number}]", one) for number, one in enumerate(data)]

    def seconds(self, path: str, value: object, least: float, most: float) -> float:
        # the comparison comes first: a float has no room for each number
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            self.wrong(path, f"must be a number of seconds from {least:g} to {most:g}")
            return least
        return float(value)

    def whole(self, path: str, value: object, most: int, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
            self.wrong(path, f"must be {what}, a whole number from 1 to {most}")
            return 1
        return value

    def text(self, path: str, value: object, pattern: re.Pattern[str], what: str) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.wrong(path, f"must be {what}")
            return ""
        return value

    def ups(self, path: str, data: object) -> Ups:
        given = self.members(path, data, ("name", "host", "port"), needed=("name",))
        return Ups(
            self.text(f"{path}.name", given["name"], _UPS, "a UPS's name, as in ups.conf") if "name" in given else "",
            self.place(f"{path}.host", given.get("host", "localhost")),
            self.whole(f"{path}.port", given.get("port", PORT), 65535, "a TCP port"),
        )

    def place(self, path: str, value: object) -> str:
        if isinstance(value, str) and ":" in value:
            try:
                ipaddress.ip_address(value.partition("%")[0])
            except ValueError:
                pass
            else:
                return value
        return self.text(path, value, _NAME, "an IP address, without brackets, or a host's name")

    def machine(self, path: str, data: object) -> Machine:
        known = ("name", "addresses", "ports", "guest", "shutdown_time", "shutdown_limit")
        given = self.members(path, data, known, needed=("name", "shutdown_time", "shutdown_limit"))
        guest = self.guest(f"{path}.guest", given.get("guest"))
        addresses = tuple(
            self.place(where, one) for where, one in self.entries(f"{path}.addresses", given.get("addresses", []))
        )
        ports = tuple(
            self.whole(where, one, 65535, "a TCP port")
            for where, one in self.entries(f"{path}.ports", given.get("ports", []))
        )
        if guest is None and not addresses:
            self.wrong(path, "needs addresses, or guest if it is a guest of this host: how else is it seen to be down?")
        usual = self.seconds(f"{path}.shutdown_time", given.get("shutdown_time", 0), 0, DAY)
        limit = self.seconds(f"{path}.shutdown_limit", given.get("shutdown_limit", DAY), 0, DAY)
        if usual > limit:
            words = f"is less than shutdown_time ({usual:g} s). Give it more time than it takes"
            self.wrong(f"{path}.shutdown_limit", words)
        name = self.text(f"{path}.name", given["name"], _NAME, "a host's name") if "name" in given else ""
        return Machine(name, addresses, ports, guest, usual, limit)

    def guest(self, path: str, data: object) -> Guest | None:
        if data is None:
            return None
        given = self.members(path, data, ("kind", "id"), needed=("kind", "id"))
        kind = given.get("kind", "qm")
        if kind not in ("qm", "pct"):
            self.wrong(f"{path}.kind", "must be qm (virtual machine) or pct (container)")
        return Guest(str(kind), self.whole(f"{path}.id", given.get("id", 1), 999_999_999, "the guest's number"))
