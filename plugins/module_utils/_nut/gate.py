# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate: on the primary, between FSD and its own poweroff. It ends when the other machines are down, or must be left alone.

NUT's primary goes on when a secondary *begins* to go down (clients/upsmon.c). So upsmon's SHUTDOWNCMD starts the unit
nut-shutdown.service, which runs this, and powers off when this has ended, however it ended. Nothing in here can power
anything off.

step() decides, from data alone. run() is the edge: it looks, asks, waits, and remembers.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import math
import os
import queue
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, TypeVar

from . import hostnames, monitors, parseconf, probe, upsd, upsd_words, writing
from .moments import boot_id, boottime, stamp
from .monitors import PORT
from .units import Run

VERSION = 1
TEXT_LIMIT = 1 << 20  # characters of a policy
DAY = 86400

TICK = 1.0
"""Seconds from one look at the machines to the next."""

ASK_INTERVAL = 2.0
"""Seconds from one question to upsd, or to Proxmox VE, to the next; and how long upsd has for its answer."""

GUEST_OLD = 10.0
"""Seconds after which nobody can tell any more whether a guest runs, if Proxmox VE says nothing new."""

RESUME = 120.0
"""Seconds without a look after which a state file is that of another shutdown."""

# Which rule ended it
DOWN, ASSUMED, LIMIT, BATTERY, LONGEST = "down", "assumed", "limit", "battery", "longest"

SYSTEMD = "systemd"
"""Who runs it in earnest; see run()."""

_STEPS = 500  # lines of a report
_HISTORY_TEXT = 2000  # characters of a line

Say = Callable[[str], None]
_T = TypeVar("_T")


# The policy


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
class Host:
    """A machine to wait for. expected, limit: seconds from the gate's beginning until it should, and must, be down."""

    name: str
    addresses: tuple[str, ...]
    ports: tuple[int, ...]
    guest: Guest | None
    expected: float
    limit: float


@dataclass(frozen=True)
class Policy:
    """What the gate goes by. settle, reserve, least, longest: seconds. stages: as they stand in the file; stages.py reads them.

    reserve: what the battery must still have for this host itself. least: what it must have in any case; that much alone counts
    while the machines take no longer than expected. flag: the path of upsmon's POWERDOWNFLAG, "" if it has none.
    """

    upses: tuple[Ups, ...]
    hosts: tuple[Host, ...]
    settle: float
    reserve: float
    longest: float
    stages: tuple[Mapping[str, object], ...] = ()
    least: float | None = None
    flag: str = ""

    def keeps(self, waiting: Sequence[Host], elapsed: float) -> float:
        """Say how many seconds of the battery are for this host alone, while these are waited for."""
        if self.least is None or any(elapsed >= host.expected + self.settle for host in waiting):
            return self.reserve
        return min(self.least, self.reserve)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_UPS = re.compile(r"[^\s@:\x00-\x1f\x7f]{1,255}")
_MEMBERS = ("version", "upses", "hosts", "settle", "reserve", "least", "longest", "flag", "stages")


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
        given = self.members("$", data, _MEMBERS, needed=("version", "upses", "hosts", "reserve", "longest"))
        if isinstance(given.get("version"), bool) or given.get("version", VERSION) != VERSION:
            self.wrong("$.version", f"must be {VERSION}, the only version there is")
        hosts = tuple(self.host(path, one) for path, one in self.entries("$.hosts", given.get("hosts", [])))
        upses = tuple(self.ups(path, one) for path, one in self.entries("$.upses", given.get("upses", [])))
        for what, names in (("$.hosts", [one.name for one in hosts]), ("$.upses", [str(one) for one in upses])):
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
            hosts,
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

    def host(self, path: str, data: object) -> Host:
        known = ("name", "addresses", "ports", "guest", "expected", "limit")
        given = self.members(path, data, known, needed=("name", "expected", "limit"))
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
        expected = self.seconds(f"{path}.expected", given.get("expected", 0), 0, DAY)
        limit = self.seconds(f"{path}.limit", given.get("limit", DAY), 0, DAY)
        if expected > limit:
            self.wrong(f"{path}.limit", f"is less than expected ({expected:g} s). Give it more time than it takes")
        name = self.text(f"{path}.name", given["name"], _NAME, "a host's name") if "name" in given else ""
        return Host(name, addresses, ports, guest, expected, limit)

    def guest(self, path: str, data: object) -> Guest | None:
        if data is None:
            return None
        given = self.members(path, data, ("kind", "id"), needed=("kind", "id"))
        kind = given.get("kind", "qm")
        if kind not in ("qm", "pct"):
            self.wrong(f"{path}.kind", "must be qm (virtual machine) or pct (container)")
        return Guest(str(kind), self.whole(f"{path}.id", given.get("id", 1), 999_999_999, "the guest's number"))


# The pure core. Times are seconds of one clock that never goes back (CLOCK_BOOTTIME).


@dataclass(frozen=True)
class Reading:
    """What upsd said about a UPS, and when. on_battery: None if its status tells neither. runtime: seconds left, or None."""

    on_battery: bool | None
    runtime: float | None
    at: float


@dataclass(frozen=True)
class Watched:
    """What is known of a machine.

    silent: since when it has been silent, or stopped; None while it answers. assumed: since when nobody can tell. down:
    since when it counts as down. given_up: it is not waited for any more.
    """

    silent: float | None = None
    assumed: float | None = None
    down: float | None = None
    given_up: bool = False

    @property
    def settled(self) -> bool:
        """Say whether it need not be waited for."""
        return self.down is not None or self.given_up


NEW = Watched()


@dataclass(frozen=True)
class Decision:
    """Whether the gate opens, by which rule, why in words, and who is waited for still."""

    go: bool
    rule: str
    reason: str
    waiting: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """Where the gate stands: it survives the program. began, now: when it began, and when it looked last.

    flag: what stood in upsmon's POWERDOWNFLAG when it began.
    """

    boot: str
    by: str
    began: float
    now: float
    hosts: Mapping[str, Watched] = field(default_factory=dict)
    power: Mapping[str, Reading] = field(default_factory=dict)
    # the rule and the reason, once it has ended
    ended: tuple[str, str] | None = None
    flag: bytes = b""


def step(
    policy: Policy,
    state: State,
    now: float,
    seen: Mapping[str, bool | None],
    readings: Mapping[str, Reading],
    *,
    asked: float | None = None,
) -> tuple[State, Decision, tuple[str, ...]]:
    """Take in what was seen, and decide.

    now: seconds. seen: name of a machine -> does it answer (or run)? None, or no entry: nobody can tell. readings: UPS
    (as str(Ups) names it) -> the last thing upsd said of it. asked: when the machines were asked, at most ``now``; one
    that did not answer has been silent since then. Returns the new state, the decision, and what is worth telling.
    """
    now = max(now, state.now)
    asked = min(max(asked if asked is not None else now, state.now), now)
    elapsed = now - state.began
    words: list[str] = []
    hosts = {}
    for host in policy.hosts:
        before = state.hosts.get(host.name, NEW)
        hosts[host.name] = after = _watch(
            host, before, seen.get(host.name), settle=policy.settle, now=now, asked=asked, elapsed=elapsed
        )
        words += _tell(host, before, after, elapsed, now)
    power = _power(policy, state.power, readings, now)
    words += _tell_power(policy, state.power, power)
    new = replace(state, now=now, hosts=hosts, power=power)
    decision = decide(policy, new)
    return new, decision, tuple(words)


def decide(policy: Policy, state: State) -> Decision:
    """Say whether the gate opens, as things stand."""
    elapsed = state.now - state.began
    waiting = tuple(host.name for host in policy.hosts if not state.hosts.get(host.name, NEW).settled)
    still = f"still waiting for {', '.join(waiting)}"
    if not waiting:
        return Decision(True, *_all_settled(policy, state), ())
    left = time_left(policy, state)
    keeps = policy.keeps([host for host in policy.hosts if host.name in waiting], elapsed)
    if left is not None and left[1] <= keeps:
        reason = f"{left[0]} has {max(left[1], 0):.0f} s left, and this host needs {keeps:g} s itself; {still}"
        return Decision(True, BATTERY, reason, waiting)
    if elapsed >= policy.longest:
        return Decision(
            True, LONGEST, f"{policy.longest:g} s are over, the longest that is waited at all; {still}", waiting
        )
    return Decision(False, "", still, waiting)


def _all_settled(policy: Policy, state: State) -> tuple[str, str]:
    given_up = [host.name for host in policy.hosts if state.hosts[host.name].down is None]
    assumed = [
        host.name
        for host in policy.hosts
        if state.hosts[host.name].down is not None and state.hosts[host.name].silent is None
    ]
    if given_up:
        return LIMIT, f"{', '.join(given_up)} did not go down within the limit; nobody else is waited for"
    if assumed:
        return ASSUMED, f"nobody can tell about {', '.join(assumed)}, whose time is over; nobody else is waited for"
    return DOWN, "all are down" if policy.hosts else "there is nobody to wait for"


def time_left(policy: Policy, state: State) -> tuple[str, float] | None:
    """Return the UPS that is emptiest, and its seconds left by now. None: on mains, or not known.

    What upsd said last counts, less what has passed since.
    """
    found = [
        (reading.runtime - (state.now - reading.at), ups.name)
        for ups in policy.upses
        if (reading := state.power.get(str(ups))) and reading.on_battery is not False and reading.runtime is not None
    ]
    left, name = min(found, default=(None, ""))
    return None if left is None else (name, left)


def _watch(
    host: Host, before: Watched, answers: bool | None, *, settle: float, now: float, asked: float, elapsed: float
) -> Watched:
    given_up = before.given_up
    if answers is True:
        silent = assumed = down = None
    elif answers is False:
        silent, assumed, down = (asked if before.silent is None else before.silent), None, before.down
        # of a guest its host knows, and need not wait for another look
        if down is None and (host.guest or now - silent >= settle):
            down = now
    elif before.down is not None:
        # it was down; that nobody can tell now is no news of it
        silent, assumed, down = before.silent, before.assumed, before.down
    else:
        silent, assumed, down = None, (now if before.assumed is None else before.assumed), None
        if elapsed >= host.expected and now - assumed >= settle:
            down = now
    if down is None and elapsed >= host.limit:
        given_up = True
    return Watched(silent, assumed, down, given_up)


def _tell(host: Host, before: Watched, after: Watched, elapsed: float, now: float) -> list[str]:
    words = []
    if after.down is not None and before.down is None:
        late = ", after it was given up" if before.given_up else ""
        if after.silent is None:
            how = f"nobody can tell, and the {host.expected:g} s that it takes are over"
            words.append(f"{host.name} is taken as down{late} ({how})")
        elif host.guest:
            how = f"{host.guest.kind} status {host.guest.id} says stopped; {host.expected:g} s were expected"
            words.append(f"{host.name} is down{late} ({how})")
        else:
            how = f"silent for {now - after.silent:.1f} s; {host.expected:g} s were expected"
            words.append(f"{host.name} is down{late} ({how})")
    elif after.down is None and before.down is not None:
        words.append(f"{host.name} answers again")
    elif after.silent is not None and before.silent is None and after.down is None:
        words.append(f"{host.name} is silent")
    elif after.silent is None and before.silent is not None and after.assumed is None:
        words.append(f"{host.name} answers again")
    if after.assumed is not None and before.assumed is None and after.down is None:
        words.append(f"nobody can tell whether {host.name} is up; it is waited for at least {host.expected:g} s")
    if after.given_up and not before.given_up:
        words.append(f"{host.name} is given up: {elapsed:.1f} s are over, and its limit is {host.limit:g} s")
    return words


def _power(
    policy: Policy, before: Mapping[str, Reading], readings: Mapping[str, Reading], now: float
) -> dict[str, Reading]:
    power = {}
    for name in map(str, policy.upses):
        old, new = before.get(name), readings.get(name)
        if new is not None and new.at > now:
            new = replace(new, at=now)
        if new is None or (old is not None and new.at < old.at):
            new = old
        elif old is not None and new.on_battery is not False:
            # what it does not say now, it said before
            status = old.on_battery if new.on_battery is None else new.on_battery
            if new.runtime is None and old.runtime is not None:
                new = Reading(status, old.runtime - (new.at - old.at), new.at)
            else:
                new = replace(new, on_battery=status)
        if new is not None:
            power[name] = new
    return power


POWER = {True: "on battery", False: "on mains", None: "neither on battery nor on mains, says upsd"}


def _tell_power(policy: Policy, before: Mapping[str, Reading], after: Mapping[str, Reading]) -> list[str]:
    words = []
    for ups in policy.upses:
        old, new = before.get(str(ups)), after.get(str(ups))
        if new is None or (old is not None and old.on_battery == new.on_battery):
            continue
        left = f", {new.runtime:.0f} s left" if new.runtime is not None and new.on_battery is not False else ""
        end = "; the shutdown goes on: FSD can't be taken back" if new.on_battery is False else ""
        words.append(f"{ups.name} is {POWER[new.on_battery]}{left}{end}")
    return words


def reading(status: str, runtime: str | None, at: float) -> Reading:
    """Make a reading of ``ups.status`` and ``battery.runtime`` (seconds), as upsd says them.

    0 counts as not known: some UPSes always say so, and others once in a while. One that has said more before, and is really
    empty, is known by that and by the time that has passed.
    """
    flags = upsd_words.split_status(status)
    on_battery = True if "OB" in flags else False if "OL" in flags else None
    try:
        seconds = float(runtime) if runtime is not None else None
    except ValueError:
        seconds = None
    if seconds is not None and not 0 < seconds <= DAY * 7:  # NaN is not between anything
        seconds = None
    return Reading(on_battery, seconds, at)


# What is kept


def begin(boot: str, by: str, now: float) -> State:
    """Return the state of a gate that begins now."""
    return State(boot, by, now, now)


def resume(text: str | None, boot: str, by: str, now: float) -> State:
    """Return the state to go on from: what the file says, if it is of this boot and of this shutdown; else a new one.

    text: of the state file, None if there is none. by: who runs it; what was waited for by hand is no shutdown. A gate that is
    started again comes back within seconds, so one that has not looked for RESUME seconds was another one.
    """
    try:
        state = _load(text) if text is not None else None
    except (ValueError, TypeError, LookupError, RecursionError, AttributeError):
        state = None
    if state is None or not boot or state.boot != boot or not state.began <= state.now <= now:
        return begin(boot, by, now)
    return state if state.by == by and now - state.now <= RESUME else begin(boot, by, now)


def dump(state: State) -> str:
    """Write the state as JSON."""
    data = {
        "version": VERSION,
        "boot": state.boot,
        "by": state.by,
        "began": state.began,
        "now": state.now,
        "hosts": {name: [one.silent, one.assumed, one.down, one.given_up] for name, one in state.hosts.items()},
        "power": {name: [one.on_battery, one.runtime, one.at] for name, one in state.power.items()},
        "ended": list(state.ended) if state.ended else None,
        "flag": state.flag.hex(),
    }
    return json.dumps(data) + "\n"


def _load(text: str) -> State:
    data = json.loads(text)
    if data["version"] != VERSION:
        raise ValueError
    ended = data["ended"]
    return State(
        _str(data["boot"]),
        _str(data["by"]),
        _number(data["began"]),
        _number(data["now"]),
        {
            name: Watched(_maybe(silent), _maybe(assumed), _maybe(down), _truth(given_up))
            for name, (silent, assumed, down, given_up) in data["hosts"].items()
        },
        {
            name: Reading(None if on is None else _truth(on), _maybe(runtime), _number(at))
            for name, (on, runtime, at) in data["power"].items()
        },
        None if ended is None else (_str(ended[0]), _str(ended[1])),
        bytes.fromhex(data.get("flag", "")),
    )


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _maybe(value: object) -> float | None:
    return None if value is None else _number(value)


# The edge


@dataclass(frozen=True)
class Report:
    """What a gate saw, and how it ended. began: seconds since 1970; elapsed, and the times of steps, seconds since then."""

    mode: str
    began: float
    elapsed: float
    ended: tuple[str, str] | None
    hosts: tuple[Mapping[str, object], ...]
    power: tuple[Mapping[str, object], ...]
    steps: tuple[tuple[float, str], ...]

    def to_json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "version": VERSION,
            "mode": self.mode,
            "began": round(self.began, 3),
            "elapsed": round(self.elapsed, 3),
            "rule": self.ended[0] if self.ended else None,
            "reason": self.ended[1] if self.ended else None,
            "hosts": [dict(one) for one in self.hosts],
            "power": [dict(one) for one in self.power],
            "steps": [[round(at, 3), words] for at, words in self.steps],
        }


class Background(threading.Thread):
    """Something that may hang, done again and again beside the gate. ``latest``: what it gave last, and when it was asked."""

    def __init__(self, work: Callable[[], _T], every: float, clock: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        self.work, self.every, self.clock = work, every, clock
        self.latest: tuple[Any, float] | None = None
        self.halt = threading.Event()
        self.tried = threading.Event()

    def run(self) -> None:
        """Work until stopped."""
        while not self.halt.is_set():
            asked = self.clock()
            # whatever goes wrong: it must be asked again, and what it said last goes out of date
            with contextlib.suppress(Exception):
                self.latest = (self.work(), asked)
            self.tried.set()
            self.halt.wait(self.every)

    def stop(self) -> None:
        """Let it end when it can."""
        self.halt.set()


class Writer(threading.Thread):
    """Writes to disks, which may be slow or stuck, beside the gate. What can't be written is told once, and left."""

    def __init__(self, say: Say) -> None:
        super().__init__(daemon=True)
        self.say = say
        self.jobs: queue.SimpleQueue[tuple[Path, Callable[[], None]] | None] = queue.SimpleQueue()
        self.broken: set[Path] = set()

    def run(self) -> None:
        """Do one after another."""
        while (job := self.jobs.get()) is not None:
            path, work = job
            try:
                work()
            except (OSError, writing.WriteError) as error:
                if path not in self.broken:
                    self.broken.add(path)
                    self.say(f"{path} can't be written: {getattr(error, 'strerror', None) or error}")

    def append(self, path: Path, line: str) -> None:
        """Add a line to a file, so that it lasts over a power cut."""
        self.jobs.put((path, lambda: _append(path, line)))

    def replace(self, path: Path, text: str) -> None:
        """Replace a file: whenever the power goes, the old or the new one is there."""
        self.jobs.put((path, lambda: _replace(path, text)))

    def finish(self, seconds: float) -> None:
        """Wait until all is written, but not longer than this."""
        self.jobs.put(None)
        self.join(seconds)


def _flag(path: str) -> bytes:
    """Return what stands in upsmon's POWERDOWNFLAG; b"" if it is not there."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(256)
    except OSError:
        return b""


def _append(path: Path, line: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(path, flags, 0o640)
    try:
        os.write(handle, f"{line}\n".encode("utf-8", "backslashreplace"))
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    writing.replace({path: text}, 0o600)


class Looker:
    """Tells of each machine whether it is up: by the network, or by Proxmox VE for guests of this host.

    Names are resolved once, here: later there may be no name server.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        run: Run,
        clock: Callable[[], float],
        *,
        edge: probe.Edge = probe.EDGE,
        seconds: float = ASK_INTERVAL,
        resolve: hostnames.Resolve = hostnames.resolve,
    ) -> None:
        self.clock, self.edge = clock, edge
        self.patience = seconds  # with the first answers about guests; qm takes a second
        near = [host for host in hosts if host.guest]
        self.guests = {
            host.name: Background(_asking(run, host.guest), ASK_INTERVAL / 2, clock) for host in near if host.guest
        }
        for one in self.guests.values():
            one.start()
        self.targets = _targets(hosts, seconds, resolve)

    def __call__(self) -> dict[str, bool | None]:
        """Look once; at most probe.SECONDS, but the first time. Where None stands nobody can tell."""
        seen = probe.look(self.targets, probe.SECONDS, self.edge) if self.targets else {}
        deadline = time.monotonic() + self.patience
        self.patience = 0.0
        for name, one in self.guests.items():
            one.tried.wait(max(deadline - time.monotonic(), 0.0))
            latest = one.latest
            seen[name] = latest[0] if latest and self.clock() - latest[1] <= GUEST_OLD else None
        return seen

    def close(self) -> None:
        """Let the threads end."""
        for one in self.guests.values():
            one.stop()


def _targets(hosts: Sequence[Host], seconds: float, resolve: hostnames.Resolve) -> list[probe.Target]:
    """Return what is looked at by the network: the machines that are no guests of this host."""
    far = [host for host in hosts if not host.guest]
    addresses = _resolved(sorted({one for host in far for one in host.addresses}), seconds, resolve)
    return [
        probe.Target(host.name, tuple(number for one in host.addresses for number in addresses[one]), host.ports)
        for host in far
    ]


def _asking(run: Run, guest: Guest) -> Callable[[], bool | None]:
    return lambda: probe.guest_runs(run, guest.kind, guest.id)


class Names:
    """Finds the addresses of names, and keeps them in a file: when it matters, what knew them may be down already."""

    def __init__(self, path: Path, resolve: hostnames.Resolve = hostnames.resolve) -> None:
        self.path, self.resolve = path, resolve
        self.lock = threading.Lock()
        try:
            kept = json.loads(path.read_bytes()[:TEXT_LIMIT])
        except (OSError, ValueError, RecursionError):
            kept = {}
        self.kept: dict[str, tuple[str, ...]] = {
            str(name): tuple(one for one in found if isinstance(one, str) and _is_number(one))
            for name, found in (kept.items() if isinstance(kept, dict) else ())
            if isinstance(found, list)
        }

    def __call__(self, name: str, seconds: float) -> tuple[str, ...]:
        """Return the addresses as the system has them now, else those that it had before. Raises OSError if there are none."""
        # who waits for this gives up after SECONDS, and a dead name server must not take all of it
        patience = seconds / 2 if self.kept.get(name) else seconds
        try:
            found = tuple(self.resolve(name, patience))
        except OSError:
            if not self.kept.get(name):
                raise
            return self.kept[name]
        with self.lock:
            if self.kept.get(name) != found and not _is_number(name):
                self.kept[name] = found
                # no reason to wait less well: this time they are known
                with contextlib.suppress(OSError):
                    _replace(self.path, json.dumps(self.kept, indent=1) + "\n")
        return found

    def learn(self, policy: Policy, seconds: float) -> list[str]:
        """Look all names of a policy up. Returns those that have no address, neither now nor before."""
        names = sorted({one for host in policy.hosts if not host.guest for one in host.addresses})
        return [name for name, found in _resolved(names, seconds, self).items() if not found]


def _resolved(names: Sequence[str], seconds: float, resolve: hostnames.Resolve) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())

    def ask(name: str) -> None:
        with contextlib.suppress(OSError):
            found[name] = tuple(resolve(name, seconds))

    numbers = [name for name in names if _is_number(name)]
    found.update({name: (name,) for name in numbers})
    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names if name not in numbers]
    for one in threads:
        one.start()
    deadline = time.monotonic() + seconds
    for one in threads:
        one.join(max(deadline - time.monotonic(), 0))
    return dict(found)


def _is_number(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


class Asker:
    """Tells what upsd said last about each UPS. Each is asked beside the gate: no upsd can hold it up."""

    def __init__(
        self,
        upses: Sequence[Ups],
        clock: Callable[[], float],
        seconds: float = ASK_INTERVAL,
        orders: Orders | None = None,
    ) -> None:
        self.asked = {str(ups): Background(_reader(ups, clock, seconds, orders), ASK_INTERVAL, clock) for ups in upses}
        for one in self.asked.values():
            one.start()

    def __call__(self) -> dict[str, Reading]:
        """Return the last answers; a UPS that never answered is not among them."""
        return {name: one.latest[0] for name, one in self.asked.items() if one.latest}

    def close(self) -> None:
        """Let the threads end."""
        for one in self.asked.values():
            one.stop()


class Orders:
    """Sets FSD again where upsd has forgotten it, because it was restarted: else secondaries would never hear of it.

    upsmon sets it once, and ends. logins: UPS (as str(Ups) names it) -> its user and password. say: takes what was done, once.
    """

    def __init__(self, logins: Mapping[str, tuple[str, str]], say: Say) -> None:
        self.logins, self.say = logins, say
        self.told: set[str] = set()

    def __call__(self, client: upsd.Client, ups: Ups, status: str) -> None:
        """Give the order, if this status lacks it. Never raises upsd.UpsdFailure: what upsd says else is still worth hearing."""
        login = self.logins.get(str(ups))
        if login is None or "FSD" in upsd_words.split_status(status):
            return
        words = f"upsd does not say FSD of {ups.name}: it was told again, so that all go down"
        try:
            client.authenticate(*login)
            client.fsd(ups.name)
        except (upsd.UpsdFailure, parseconf.Unencodable) as error:
            words = f"upsd does not say FSD of {ups.name}, and could not be told again: {error}"
        if words not in self.told:
            self.told.add(words)
            self.say(words)


def logins(upsmon_conf: Path, upses: Sequence[Ups]) -> dict[str, tuple[str, str]]:
    """Return by which user and password upsmon is the primary of each UPS. {} if its file can't be read."""
    try:
        text = upsmon_conf.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return {}
    own = [one for one in monitors.monitors(text) if one.type.lower() in monitors.PRIMARY]
    return {
        str(ups): (one.user, one.password)
        for ups in upses
        for one in own
        if (one.ups, one.host, one.port) == (ups.name, ups.host, ups.port)
    }


def in_earnest(policy: Policy, state_path: Path, by: str) -> bool:
    """Say whether upsmon has begun this shutdown: it has left its POWERDOWNFLAG, or had when the gate began."""
    if by != SYSTEMD or not policy.flag:
        return False
    try:
        text = state_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = None
    return bool(_flag(policy.flag) or resume(text, boot_id(), by, boottime()).flag)


def _reader(
    ups: Ups, clock: Callable[[], float], seconds: float, orders: Orders | None = None
) -> Callable[[], Reading]:
    return lambda: read_ups(ups, clock, seconds, orders)


def read_ups(
    ups: Ups, clock: Callable[[], float], seconds: float = ASK_INTERVAL, orders: Orders | None = None
) -> Reading:
    """Ask upsd once about a UPS. Raises upsd.UpsdFailure, also if its data are stale, and parseconf.Unencodable."""
    asked = clock()
    with upsd.Client(ups.host, ups.port, seconds) as client:
        status = client.get_var(ups.name, "ups.status")
        try:
            runtime = client.get_var(ups.name, "battery.runtime")
        except upsd.VarNotSupported:
            runtime = None
        if orders:
            orders(client, ups, status)
    return reading(status, runtime, asked)


def nothing() -> None:
    """Do nothing."""


def run(
    policy: Policy,
    state_path: Path = Path("/run/nut-shutdown/gate.json"),
    report_path: Path | None = Path("/var/lib/nut-shutdown/last.json"),
    log_path: Path | None = Path("/var/log/nut/shutdown.log"),
    *,
    log: Say,
    prober: Callable[[], Mapping[str, bool | None]],
    ask_upsd: Callable[[], Mapping[str, Reading]],
    clock: Callable[[], float] = boottime,
    wall: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    alive: Callable[[], None] = nothing,
    news: Callable[[], Sequence[str]] = tuple,
    boot: str | None = None,
    by: str = "",
    mode: str = "gate",
) -> Report:
    """Wait until the gate opens, and return what was seen. That is all it does: who called it goes on.

    prober: does each machine answer? It takes at most a second or so. ask_upsd: what upsd said last; it takes no time.
    news: what has been done beside it since it was asked last, in words. alive: called in each round, so that somebody else
    notices when no round comes to its end. by: who runs it, SYSTEMD or somebody else; one gate goes on where another one of the
    same was ended. mode: a word for the report, such as gate or drill.
    """
    gate = _Gate(
        policy,
        state_path=state_path,
        report_path=report_path,
        log_path=log_path,
        log=log,
        clock=clock,
        wall=wall,
        mode=mode,
    )
    gate.begin(boot_id() if boot is None else boot, by)
    try:
        while gate.state.ended is None:
            alive()
            begun = clock()
            for words in news():
                gate.say(begun, words)
            gate.round(begun, prober, ask_upsd)
            if gate.state.ended is None:
                sleep(min(max(TICK - (clock() - begun), 0.0), TICK))
    finally:
        gate.writer.finish(2.0)
    return gate.report()


class _Gate:
    def __init__(
        self,
        policy: Policy,
        *,
        state_path: Path,
        report_path: Path | None,
        log_path: Path | None,
        log: Say,
        clock: Callable[[], float],
        wall: Callable[[], float],
        mode: str,
    ) -> None:
        self.policy, self.mode = policy, mode
        self.state_path, self.report_path, self.log_path = state_path, report_path, log_path
        self.log, self.clock, self.wall = log, clock, wall
        self.writer = Writer(log)
        self.writer.start()
        self.steps: list[tuple[float, str]] = []
        self.told: set[str] = set()
        self.state = begin("", "", 0.0)
        self.saved = ""

    def begin(self, boot: str, by: str) -> None:
        now = self.clock()
        text = self.old()
        self.state = resume(text, boot, by, now)
        # by hand it is no shutdown, and nothing may make the UPS cut the power
        if by == SYSTEMD and self.policy.flag and not self.state.flag:
            self.state = replace(self.state, flag=_flag(self.policy.flag))
        self.save(changed=False)
        names = ", ".join(f"{host.name} (at most {host.limit:g} s)" for host in self.policy.hosts)
        if self.state.ended:
            self.say(now, f"the gate has ended before: {self.state.ended[1]}")
        elif self.state.began < now:
            self.say(now, "the gate was started again, and goes on")
        else:
            if text is not None:
                self.say(now, f"{self.state_path} is not of this shutdown, or damaged: the gate begins anew")
            self.say(now, f"the gate begins: {f'waiting for {names}' if names else 'there is nobody to wait for'}")
        self.save(changed=True)

    def old(self) -> str | None:
        try:
            with self.state_path.open("rb") as file:
                return file.read(TEXT_LIMIT).decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            self.log(f"{self.state_path} can't be read: {error.strerror}")
            return None

    def round(
        self,
        begun: float,
        prober: Callable[[], Mapping[str, bool | None]],
        ask_upsd: Callable[[], Mapping[str, Reading]],
    ) -> None:
        seen = self.tried("looking at the machines", prober)
        readings = self.tried("asking upsd", ask_upsd)
        now = self.clock()
        self.state, decision, words = step(self.policy, self.state, now, seen, readings, asked=begun)
        for line in words:
            self.say(now, line)
        if decision.go:
            self.say(now, f"the gate ends ({decision.rule}): {decision.reason}")
            self.state = replace(self.state, ended=(decision.rule, decision.reason))
            self.keep_flag(now)
        self.save(changed=bool(words) or decision.go)

    def keep_flag(self, now: float) -> None:
        """Give POWERDOWNFLAG back, if it was there: an upsmon that was restarted meanwhile has removed it.

        Without it the UPS does not cut the power, and machines that are down already would stay so when the mains return.
        """
        path = self.policy.flag
        if self.state.flag and path and not _flag(path):
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
                    file.write(self.state.flag)
                self.say(
                    now,
                    f"{path} was gone, and is there again: by it the UPS is told to cut the power, and all starts again",
                )
            except OSError as error:
                self.say(now, f"{path} is gone, and can't be written: {error.strerror}. The UPS will not cut the power")

    def tried(self, what: str, work: Callable[[], Mapping[str, _T]]) -> Mapping[str, _T]:
        """Do it. If it fails, nobody can tell; that is better than to end without having waited."""
        try:
            return work()
        except Exception as error:
            words = f"{what} failed: {type(error).__name__}: {error}"
            if words not in self.told:
                self.told.add(words)
                self.say(self.clock(), words)
            return {}

    def say(self, now: float, words: str) -> None:
        elapsed = max(now - self.state.began, 0.0)
        words = "".join(one if one.isprintable() else "?" for one in words)[:_HISTORY_TEXT]
        line = f"+{elapsed:.1f} s  {words}"
        self.log(line)
        self.steps.append((elapsed, words))
        del self.steps[:-_STEPS]
        if self.log_path:
            kind = "" if self.mode == "gate" else f"{self.mode}: "
            self.writer.append(self.log_path, f"{stamp(self.wall())} {kind}{line}")

    def save(self, *, changed: bool) -> None:
        text = dump(self.state)
        try:
            _replace(self.state_path, text)
        except (OSError, writing.WriteError) as error:
            words = f"{self.state_path} can't be written: {error} Killed now, the gate would begin anew"
            if words not in self.told:
                self.told.add(words)
                self.log(words)
        if changed and self.report_path:
            self.writer.replace(self.report_path, json.dumps(self.report().to_json(), indent=1) + "\n")

    def report(self) -> Report:
        state = self.state
        hosts = tuple(_host_report(host, state.hosts.get(host.name, NEW), state.began) for host in self.policy.hosts)
        power = tuple(
            {
                "name": str(ups),
                "on_battery": one.on_battery if one else None,
                "runtime": one.runtime if one else None,
                "at": round(one.at - state.began, 3) if one else None,
            }
            for ups in self.policy.upses
            for one in [state.power.get(str(ups))]
        )
        elapsed = max(state.now - state.began, 0.0)
        began = self.wall() - (self.clock() - state.began)
        return Report(self.mode, began, elapsed, state.ended, hosts, power, tuple(self.steps))


def _host_report(host: Host, seen: Watched, began: float) -> dict[str, object]:
    """Say what became of a machine. down: seconds from the gate's beginning to its first silence, or None."""
    since = seen.silent if seen.silent is not None else seen.assumed
    return {
        "name": host.name,
        "expected": host.expected,
        "limit": host.limit,
        "down": round(max(since - began, 0.0), 3) if seen.down is not None and since is not None else None,
        "assumed": seen.down is not None and seen.silent is None,
        "given_up": seen.given_up,
    }


def one_look(
    policy: Policy, run: Run, resolve: hostnames.Resolve = hostnames.resolve
) -> tuple[dict[str, bool | None], dict[str, Reading | str]]:
    """Look once at all machines and UPSes, for `status`. A UPS that can't be asked has the reason in place of a reading."""
    seen = probe.look(_targets(policy.hosts, ASK_INTERVAL, resolve))
    for host in policy.hosts:
        if host.guest:
            seen[host.name] = probe.guest_runs(run, host.guest.kind, host.guest.id)
    readings: dict[str, Reading | str] = {}
    for ups in policy.upses:
        try:
            readings[str(ups)] = read_ups(ups, boottime)
        except (upsd.UpsdFailure, parseconf.Unencodable) as error:
            readings[str(ups)] = str(error)
    return seen, readings
