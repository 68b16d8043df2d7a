# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shutdown policy: which machines the gate waits for, for how long, and how much of the battery is for this host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from ..base import hostnames, paths
from ..base.check import Checker, Members, read_json
from ..conf.feeds import Feeds
from ..conf.upsd import PORT
from ..proxmox import guests
from ..proxmox.cluster import WAYS
from ..proxmox.guests import DOWN_SECONDS, IDS, KINDS
from ..proxmox.selection import NO_GUESTS, Selector

VERSION = 1
LOW_STAGE = "low battery"
"""The name of the built-in stage."""
DAY = 86400
OWN_FILE_LIMIT = 1 << 20  # bytes that are read of one of our own files


class ShutdownPolicyError(ValueError):
    """A policy is invalid. The message has one line per problem, each with its JSON path."""

    def with_path(self, path: Path) -> ShutdownPolicyError:
        """Return the error with the file's path before each line."""
        return ShutdownPolicyError("\n".join(f"{path}: {line}" for line in str(self).splitlines()))


@dataclass(frozen=True)
class UpsAddress:
    """A UPS and the upsd that serves it."""

    name: str
    host: str = "localhost"
    port: int = PORT
    power: int = 1  # how many of this host's power supplies it feeds

    def __str__(self) -> str:
        """Return it as in upsmon.conf, with the port only if it is not the default."""
        return f"{self.name}@{hostnames.join_host(self.host, self.port)}"


@dataclass(frozen=True)
class GuestId:
    """A guest of this host."""

    kind: str  # "qm" (virtual machine) or "pct" (container): the program that manages it
    id: int


@dataclass(frozen=True)
class WakeUp:
    """How a machine is switched on."""

    mac: str = ""  # of its network card, for Wake-on-LAN; "" without
    command: tuple[str, ...] = ()  # a program and its arguments; () without


@dataclass(frozen=True)
class AwaitedMachine:
    """A machine that the gate waits for. Times: seconds from the start of the gate."""

    name: str
    addresses: tuple[str, ...]  # IP addresses or host names
    ports: tuple[int, ...]  # TCP ports to try if it does not answer pings
    guest: GuestId | None  # None: it is not a guest of this host, and is probed over the network
    shutdown_time: float  # when it is usually down
    shutdown_limit: float  # when the gate gives up on it
    ups: str = ""  # the UPS that powers it; "" if unknown
    wake: WakeUp | None = None  # how it is switched on if it stays off after an outage; None: not at all


@dataclass(frozen=True)
class ReturnPolicy:
    """What is done after an outage. Times: seconds."""

    limit: float = 1800.0  # until a machine that has not come back counts as missing
    charge: float | None = (
        None  # percent that the battery must have before guests are started and machines woken; None: any
    )
    charge_limit: float = 3600.0  # so long they wait for it at most


@dataclass(frozen=True)
class StageGuest:
    """A guest that a stage shuts down."""

    kind: str  # "qm" or "pct"
    id: int
    seconds: float = DOWN_SECONDS  # time for a clean shutdown, before it is stopped by force
    name: str = ""  # for messages

    @property
    def key(self) -> str:
        """The guest's key in StagesState."""
        return self.guest.key

    @property
    def guest(self) -> guests.Guest:
        """The guest as proxmox.control takes it."""
        return guests.Guest(self.id, self.kind, self.name)


@dataclass(frozen=True)
class Stage:
    """A stage of an outage. It begins when any of its three triggers is reached."""

    name: str
    on_battery: float | None = None  # trigger: seconds on battery
    charge: float | None = None  # trigger: percent or less
    runtime: float | None = None  # trigger: seconds or less
    # the guests to shut down, as far as known: those with a `kind` in the policy, until Proxmox has been asked for the others
    guests: tuple[StageGuest, ...] = ()
    notify: tuple[str, ...] = ()  # a program and its arguments
    message: str = ""  # last argument of the program
    fsd: bool = False  # tell upsmon to set FSD when the guests are down
    low: bool = False  # whether it is the built-in stage: it also begins when the UPS says LB, and waits for no guest
    select: Selector = NO_GUESTS  # selects the guests to shut down


@dataclass(frozen=True)
class ShutdownPolicy:
    """The policy of nut-shutdown on a primary. compose.py makes it from the inventory; shutdown.json holds it."""

    upses: tuple[UpsAddress, ...]
    machines: tuple[AwaitedMachine, ...]
    settle: float  # a machine that has been silent for so many seconds is down
    reserve: float  # seconds of battery runtime that are kept for this host
    timeout: float  # the gate ends after so many seconds in any case
    # unparsed, because a mistake in a stage must not keep the gate from running; read_stages() parses them
    stages: tuple[Mapping[str, Any], ...] = ()
    # seconds kept for this host instead of `reserve` while every machine is within its shutdown_time; None: always `reserve`
    reserve_minimum: float | None = None
    flag: str = ""  # path of upsmon's POWERDOWNFLAG; "" without one
    minsupplies: int = 1  # how many of this host's power supplies must be fed
    # with how many seconds left the shutdown begins, if the UPS does not say LB earlier; None: it alone decides
    runtime_low: float | None = None
    cluster: str = ""  # one of proxmox.cluster.WAYS: what is done about HA's watchdog
    after: ReturnPolicy = ReturnPolicy()  # after an outage
    unawaited: tuple[AwaitedMachine, ...] = ()  # secondaries that the gate does not wait for; they must come back, too

    @property
    def low_stage(self) -> Stage:
        """Return the stage that begins the shutdown when the battery is low."""
        return Stage(LOW_STAGE, runtime=self.runtime_low, fsd=True, low=True)

    @property
    def feeds(self) -> Feeds:
        """Return which of the UPSes power this host."""
        return Feeds({ups.name: ups.power for ups in self.upses}, self.minsupplies)

    def own_seconds(self, waiting: Sequence[AwaitedMachine], elapsed: float) -> float:
        """Return how many seconds of the battery are kept for this host while the gate waits for these machines."""
        if self.reserve_minimum is None or any(elapsed >= machine.shutdown_time + self.settle for machine in waiting):
            return self.reserve
        return min(self.reserve_minimum, self.reserve)


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}")
_UPS = re.compile(r"[^\s@:\x00-\x1f\x7f]{1,255}")
_UPS_OR_NONE = re.compile(rf"(?:{_UPS.pattern})?")
_MAC_OR_NONE = re.compile(rf"(?:{hostnames.MAC.pattern})?")
_PATH = re.compile(r"(/.{0,4000})?")
_SUPPLIES = 999999999  # as NUT's files have a number, at most


def load_policy(path: Path) -> ShutdownPolicy:
    """Return the policy from its file. Raise ShutdownPolicyError, with the file's path."""
    try:
        return read_policy(path.read_bytes())
    except OSError as error:
        raise ShutdownPolicyError(
            f"{path}: can't be read: {error.strerror}. The role nut_server writes this file"
        ) from None
    except ShutdownPolicyError as error:
        raise error.with_path(path) from None


def find_deployed_runtime_low(root: Path = Path("/")) -> float | None:
    """Return the runtime at which nut-stages begins the shutdown on this host now; None if it does not, or is not installed."""
    try:
        return load_policy(root / paths.SHUTDOWN_POLICY).runtime_low
    except ShutdownPolicyError:
        return None


def read_policy(text: str | bytes) -> ShutdownPolicy:
    """Return the policy from the text of its file. Raise ShutdownPolicyError."""
    return check_policy(read_json(text, ShutdownPolicyError))


def to_data(policy: ShutdownPolicy) -> dict[str, Any]:
    """Return a policy as the data of its file."""
    return {"version": VERSION, **_to_plain(policy)}


def _to_plain(value: Any) -> Any:
    # not asdict(): it copies mappings by calling their type, which fails for those from Ansible's templates
    if isinstance(value, Mapping):
        return {name: _to_plain(member) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(entry) for entry in value]
    return (
        {field.name: _to_plain(getattr(value, field.name)) for field in fields(value)} if is_dataclass(value) else value
    )


def check_policy(data: object) -> ShutdownPolicy:
    """Return the policy from data of JSON or YAML. Raise ShutdownPolicyError with all problems."""
    check = Checker()
    policy = _parse_policy(check, data)
    check.raise_problems(ShutdownPolicyError)
    return policy


def _parse_policy(check: Checker, data: object) -> ShutdownPolicy:
    known = ("version", *(field.name for field in fields(ShutdownPolicy)))
    given = check.members("$", data, known, needed=("version", "upses", "machines", "reserve", "timeout"))
    check.version(given, VERSION)
    upses = tuple(_parse_ups(check, *entry) for entry in check.entries(*given.at("upses")))
    machines = tuple(_parse_machine(check, *entry) for entry in check.entries(*given.at("machines")))
    check.differ("$.upses", [str(ups) for ups in upses if ups.name])
    unawaited = tuple(_parse_machine(check, *entry) for entry in check.entries(*given.at("unawaited")))
    check.differ("$.machines", [machine.name for machine in (*machines, *unawaited)])
    return ShutdownPolicy(
        upses,
        machines,
        settle=check.number(*given.at("settle"), 0.5, 60, default=3.0),
        reserve=check.number(*given.at("reserve"), 0, DAY),
        timeout=check.number(*given.at("timeout"), 1, DAY),
        stages=tuple(dict(check.members(*entry, ())) for entry in check.entries(*given.at("stages"))),
        reserve_minimum=None
        if given.get("reserve_minimum") is None
        else check.number(*given.at("reserve_minimum"), 0, DAY),
        flag=check.text(*given.at("flag"), _PATH, "an absolute path"),
        runtime_low=None if given.get("runtime_low") is None else check.number(*given.at("runtime_low"), 1, DAY),
        minsupplies=check.whole(*given.at("minsupplies"), 1, _SUPPLIES, "a number of power supplies", default=1),
        cluster=check.choice(*given.at("cluster"), WAYS, " or ".join(filter(None, WAYS)))
        if given.get("cluster")
        else "",
        after=_parse_return(check, *given.at("after")),
        unawaited=unawaited,
    )


def _parse_ups(check: Checker, path: str, data: object) -> UpsAddress:
    given = check.members(path, data, ("name", "host", "port", "power"), needed=("name",))
    return UpsAddress(
        check.text(*given.at("name"), _UPS, "the name of a UPS, as in ups.conf"),
        _parse_address(check, *given.at("host"), default="localhost"),
        check.whole(*given.at("port"), 1, 65535, "a TCP port", default=PORT),
        check.whole(*given.at("power"), 0, _SUPPLIES, "a number of power supplies", default=1),
    )


def _parse_address(check: Checker, path: str, value: object, default: str = "") -> str:
    if isinstance(value, str) and ":" in value:
        try:
            ipaddress.ip_address(value.partition("%")[0])
        except ValueError:
            pass
        else:
            return value
    return check.text(path, value, _NAME, "an IP address without brackets, or a host name", default=default)


def _parse_machine(check: Checker, path: str, data: object) -> AwaitedMachine:
    known = [field.name for field in fields(AwaitedMachine)]
    given = check.members(path, data, known, needed=("name", "shutdown_time", "shutdown_limit"))
    machine = AwaitedMachine(
        name=check.text(*given.at("name"), _NAME, "a host name"),
        addresses=tuple(_parse_address(check, *entry) for entry in check.entries(*given.at("addresses"))),
        ports=tuple(check.whole(*entry, 1, 65535, "a TCP port") for entry in check.entries(*given.at("ports"))),
        guest=None if given.get("guest") is None else _parse_guest(check, *given.at("guest")),
        shutdown_time=check.number(*given.at("shutdown_time"), 0, DAY),
        shutdown_limit=check.number(*given.at("shutdown_limit"), 0, DAY, default=DAY),
        ups=check.text(*given.at("ups"), _UPS_OR_NONE, "the name of a UPS, as in ups.conf"),
        wake=_parse_wake(check, *given.at("wake")),
    )
    if machine.guest is None and not machine.addresses:
        check.add(
            path,
            "needs addresses, or guest if it is a guest of this host: otherwise nut-shutdown can't tell when it is down",
        )
    if machine.shutdown_time > machine.shutdown_limit:
        problem = f"is less than shutdown_time ({machine.shutdown_time:g} s). Set it to shutdown_time or more"
        check.add(f"{path}.shutdown_limit", problem)
    return machine


def _parse_wake(check: Checker, path: str, data: object) -> WakeUp | None:
    if data is None:
        return None
    given = check.members(path, data, [field.name for field in fields(WakeUp)])
    wake = WakeUp(
        check.text(*given.at("mac"), _MAC_OR_NONE, "the hardware address of a network card, such as 52:54:00:12:34:56"),
        _parse_command(check, *given.at("command")),
    )
    return wake if wake.mac or wake.command else None


def check_return(given: Mapping[str, Any]) -> ReturnPolicy:
    """Return what the inventory says about the time after an outage (nut_server_return). Raise ShutdownPolicyError."""
    check = Checker()
    policy = _parse_return(check, "nut_server_return", dict(given))
    check.raise_problems(ShutdownPolicyError)
    return policy


def _parse_return(check: Checker, path: str, data: object) -> ReturnPolicy:
    if data is None:
        return ReturnPolicy()
    given = check.members(path, data, [field.name for field in fields(ReturnPolicy)])
    return ReturnPolicy(
        limit=check.number(*given.at("limit"), 1, DAY, default=ReturnPolicy.limit),
        charge=_parse_number(check, *given.at("charge"), most=100, what="a percentage"),
        charge_limit=check.number(*given.at("charge_limit"), 1, DAY, default=ReturnPolicy.charge_limit),
    )


def _parse_guest(check: Checker, path: str, data: object) -> GuestId:
    given = check.members(path, data, ("kind", "id"), needed=("kind", "id"))
    return GuestId(
        check.choice(*given.at("kind"), KINDS, "qm (virtual machine) or pct (container)"),
        check.whole(*given.at("id"), 1, IDS[-1], "the number of a guest"),
    )


# The stages

_TRIGGERS = {"on_battery": "a number of seconds", "charge": "a percentage", "runtime": "a number of seconds"}
MEMBERS = ("name", *_TRIGGERS, "guests", "tags", "storage_of", "seconds", "notify", "message", "fsd")
"""The members of a stage in the policy."""
_SECONDS = 1e6  # upper limit of all times in a stage
_STAGE = re.compile(r".{1,64}")
# without the separators of Proxmox's files
_TAG = re.compile(r"[^\s,;]{1,128}")
_MACHINE = re.compile(r"[^\s/@\[\],;]{1,255}")


def read_stages(data: object) -> tuple[Stage, ...]:
    """Return the stages from the policy's member `stages`. Raise ShutdownPolicyError with all problems."""
    check = Checker()
    stages = tuple(_parse_stage(check, *entry) for entry in check.entries("$.stages", data))
    check.differ("$.stages", [stage.name for stage in stages])
    for position, stage in enumerate(stages):
        if stage.name == LOW_STAGE:
            check.add(f"$.stages[{position}].name", f"{LOW_STAGE} is the built-in stage. Give it another name")
    check.raise_problems(ShutdownPolicyError)
    return stages


def _parse_stage(check: Checker, path: str, data: object) -> Stage:
    given = check.members(path, data, MEMBERS, needed=("name",))
    triggers = {
        name: _parse_number(check, *given.at(name), most=100 if name == "charge" else _SECONDS, what=what)
        for name, what in _TRIGGERS.items()
    }
    if given and not any(name in given and given[name] is not None for name in _TRIGGERS):
        check.add(path, "never begins. Set on_battery, charge or runtime")
    select, known = _parse_selection(check, given)
    stage = Stage(
        check.text(*given.at("name"), _STAGE, "a string of 1 to 64 characters"),
        guests=known,
        notify=_parse_command(check, *given.at("notify")),
        message=_parse_argument(check, *given.at("message")),
        fsd=check.truth(*given.at("fsd")),
        select=select,
        on_battery=triggers["on_battery"],
        charge=triggers["charge"],
        runtime=triggers["runtime"],
    )
    if given and not (stage.select or stage.notify or stage.fsd):
        check.add(path, "does nothing. Set guests, tags, storage_of, notify or fsd")
    return stage


def _parse_number(
    check: Checker, path: str, value: object, most: float = _SECONDS, what: str = "a number of seconds"
) -> float | None:
    return None if value is None else check.number(path, value, 0, most, what=what)


def _parse_command(check: Checker, path: str, data: object) -> tuple[str, ...]:
    command = tuple(_parse_argument(check, *entry) for entry in check.entries(path, data))
    if command and not command[0].startswith("/"):
        check.add(f"{path}[0]", "must be the absolute path of a program")
    return command


def _parse_argument(check: Checker, path: str, value: object) -> str:
    if value is not None and (not isinstance(value, str) or "\0" in value):
        check.add(path, "must be a string without NUL characters")
        return ""
    return value or ""


def _parse_selection(check: Checker, given: Members) -> tuple[Selector, tuple[StageGuest, ...]]:
    """Return the selector of a stage's guests, and the guests that are known without asking Proxmox."""
    seconds = _parse_number(check, *given.at("seconds"))
    ids: list[tuple[int, float | None]] = []
    known = []
    for path, entry in check.entries(*given.at("guests")):
        # an entry is a guest's number, or an object
        is_object = isinstance(entry, Mapping)
        guest = check.members(path, entry if is_object else {"id": entry}, ("id", "seconds", "kind"), needed=("id",))
        number = check.whole(
            guest.at("id")[0] if is_object else path, guest.get("id"), IDS[0], IDS[-1], "the number of a guest"
        )
        own = _parse_number(check, *guest.at("seconds"))
        ids.append((number, own))
        if guest.get("kind") is not None:
            kind = check.choice(*guest.at("kind"), KINDS, "qm (virtual machine) or pct (container)")
            known.append(StageGuest(kind, number, next((x for x in (own, seconds) if x is not None), DOWN_SECONDS)))
    check.differ(given.at("guests")[0], [number for number, _own in ids])
    tags = check.texts(*given.at("tags"), _TAG, "a tag without spaces, commas or semicolons")
    storage_of = check.texts(
        *given.at("storage_of"), _MACHINE, "the name or address of a machine, without port or brackets"
    )
    return Selector(tuple(ids), tags, storage_of, seconds), tuple(known)
