# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real shutdown, watched from the primary: is all fit for it, when did each machine go, and how long did each take?

Who wants one asks fitness() first, has start() run the recorder, sets FSD by upsmon's own command, and asks result() when this
host is back. Nothing in here sets FSD, or powers anything off. The recorder writes down what it sees step by step, because
its end is the host's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Callable

from ..base import files, hostnames, jsontext, records, systemd
from ..base.clock import boot_id, boottime, entry_moment
from ..base.systemd import Run
from ..base.table import grid
from ..base.text import one_line, printable
from ..conf import grammar
from ..net import readings, snapshot, vocabulary
from ..net.client import Client, UpsdFailure
from ..plan import model
from ..shutdown import observe
from ..shutdown.policy import TEXT_LIMIT, Policy
from . import drill

VERSION = 1
UNIT = "nut-shutdown-record"
GATE_UNIT = systemd.GATE
REPORT = Path("/var/lib/nut-shutdown/last.json")
NOTES = "live.json"
"""Beside the gate's report."""
TOKEN = Path("/run/nut-shutdown/live")
"""It is gone after a reboot. The kernel's own id of a boot is none of a container's."""

TICK = 0.5
"""Seconds from one look to the next, at least."""

BEAT = 5.0
"""Seconds after which it is written down that the recorder lives, if nothing else is to be."""

PATIENCE = 120.0
"""Seconds without an FSD after which nobody wants the recorder any more."""

SPARE = 600.0
"""Seconds that it goes on after the gate must have ended. Whatever then keeps the host from going down, is not its business."""

NAME_SECONDS = 5.0
MARGIN = 1.2
LEAST_TIME = 5
"""Seconds below which no time is offered: what a quick machine takes depends on what it does that day."""

MOST_MEASURED = 86400.0
"""Seconds above which a time is none that a shutdown takes."""

Say = Callable[[str], None]


class LiveError(Exception):
    """It can't be done; the message says why, and what to do."""


class Unfit(LiveError):
    """It is no time for a real shutdown; the message says why, a line each."""


@dataclass(frozen=True)
class Wanted:
    """What `nut-shutdown record` is asked for. need, own: s. report: where the gate's is; the record is kept beside it."""

    check: bool = False
    show: bool = False
    inside: bool = False
    as_json: bool = False
    need: float | None = None
    own: float | None = None
    report: Path = REPORT
    token: Path = TOKEN
    conf: Path = drill.CONF

    @property
    def notes(self) -> Path:
        """Where the record is kept."""
        return self.report.with_name(NOTES)


# Is all fit for it?


@dataclass(frozen=True)
class Fitness:
    """What stands against a real shutdown now, and what one has to know before it. Both in words, with what to do."""

    problems: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What there is on the host.

    upses: what upsd says of each UPS, or why it says nothing. addresses: of each machine, normal ones. seen: is it up? None if nobody
    can tell. conf: upsmon.conf, None if it can't be read. gate, upsmon: units.
    """

    upses: Mapping[str, snapshot.UpsState | str]
    addresses: Mapping[str, frozenset[str]]
    seen: Mapping[str, bool | None]
    conf: str | None
    gate: systemd.Unit
    upsmon: systemd.Unit


def fitness(policy: Policy, found: Found, need: float | None = None) -> Fitness:
    """Say what stands against a real shutdown. need: seconds that the plan wants of the battery from FSD on, None if not known."""
    problems = list(_installed(found))
    remarks: list[str] = []
    if not policy.upses:
        problems.append("the policy names no UPS, so there is nothing whose shutdown could begin")
    for ups in policy.upses:
        said = found.upses.get(str(ups), "upsd was not asked")
        if isinstance(said, str):
            problems.append(f"{ups}: nobody can tell whether it is on mains: {said}")
            continue
        problems += _power(said, need)
        remarks += _comes_back(said, need)
    states = [one for one in found.upses.values() if not isinstance(one, str)]
    inside = {hostnames.normal_address(one) for state in states for one in state.clients}
    for host in policy.machines if states else ():
        if not found.addresses.get(host.name):
            problems.append(f"{host.name} has no address here, so nobody sees when it goes. Is its name right?")
        elif not inside & found.addresses[host.name]:
            problems.append(
                f"{host.name} is not logged in to upsd: it would not hear of the shutdown, and lose its power while it runs. "
                f"Logged in are {', '.join(sorted(inside)) or 'none'}. Run the play for it, or see its upsmon"
            )
        elif found.seen.get(host.name) is not True:
            silent = found.seen.get(host.name) is False
            problems.append(
                f"{host.name} is logged in, but {'does not answer' if silent else 'nobody can tell whether it is up'}: this host "
                "would take it for down. See nut-shutdown status, and its firewall"
            )
    if found.conf is not None and not grammar.directive(found.conf, "POWERDOWNFLAG"):
        remarks.append(
            "upsmon.conf has no POWERDOWNFLAG: the UPS is not told to cut the power, so nothing starts again by itself. "
            "Somebody has to press the buttons"
        )
    return Fitness(tuple(problems), tuple(remarks))


def _installed(found: Found) -> Iterator[str]:
    if not found.gate.active:
        yield f"{GATE_UNIT} is not installed: this host would not wait for the others. Run the play (nut_server_gate)"
    elif found.gate.enabled.startswith("masked"):
        yield f"{GATE_UNIT} is masked: this host would not power off by it. systemctl unmask {GATE_UNIT}"
    elif found.gate.runs:
        yield f"{GATE_UNIT} runs already: a shutdown is under way"
    if not found.upsmon.runs:
        yield f"{systemd.MONITOR} does not run: there is no upsmon that could set FSD. systemctl status {systemd.MONITOR}"
    if found.conf is None:
        yield f"{drill.CONF} can't be read. The role nut_server writes it"
    elif GATE_UNIT not in (grammar.directive(found.conf, "SHUTDOWNCMD") or ""):
        yield f"the SHUTDOWNCMD in {drill.CONF} does not start {GATE_UNIT}: this host would not wait for the others"


def _power(state: snapshot.UpsState, need: float | None) -> Iterator[str]:
    """Say why this UPS stands against it."""
    if not state.fresh:
        yield f"{state.name}: nobody can tell whether it is on mains: {state.error or 'it has no status yet'}"
        return
    reading = state.reading
    if not reading.is_plainly_on_mains:
        yield f"{state.name} says {' '.join(state.status)}, and must be plainly on mains (OL). Wait until it is"
    charge, low = reading.charge, reading.charge_low
    if charge is not None and low is not None and charge <= low:
        yield f"{state.name} is charged to {charge:g} %, and counts as low at {low:g} %. Wait until it is charged"
    if need is not None and reading.runtime is not None and reading.runtime < need:
        yield (
            f"{state.name} lasts {reading.runtime:.0f} s, and the plan wants {need:.0f} s, should the mains fail meanwhile. "
            "Wait until it is charged; or see make plan"
        )


def _comes_back(state: snapshot.UpsState, need: float | None) -> Iterator[str]:
    """Say what of this UPS one has to know. ups.delay.start: ondelay; not every UPS can."""
    if state.reading.runtime is None and need is not None:
        yield f"{state.name} does not say how long it lasts. Begin only if it is charged"
    if readings.quantity(state.variables.get("ups.delay.start")) is None:
        yield (
            f"{state.name} does not say when it gives power again after it has cut it (ups.delay.start, ondelay): it may stay off. "
            "Be where its button is"
        )


def find(
    policy: Policy,
    run: Run,
    *,
    names: hostnames.Resolve = hostnames.resolve,
    conf: Path = drill.CONF,
    look: Callable[[Policy, Run, hostnames.Resolve], tuple[dict[str, bool | None], Any]] = observe.one_look,
) -> Found:
    """Look at all that fitness() judges."""
    seen, _readings = look(policy, run, names)
    upses: dict[str, snapshot.UpsState | str] = {}
    for ups in policy.upses:
        try:
            with Client(ups.host, ups.port, observe.ASK_INTERVAL) as client:
                upses[str(ups)] = snapshot.snapshot(client, [ups.name])[0]
        except (UpsdFailure, grammar.Unencodable) as error:
            upses[str(ups)] = str(error)
    try:
        stand = systemd.show([GATE_UNIT, systemd.MONITOR], run)
    except systemd.UnitError:
        stand = {}
    absent = systemd.ABSENT
    return Found(
        upses,
        addresses(policy, names),
        seen,
        _text(conf),
        stand.get(GATE_UNIT, absent),
        stand.get(systemd.MONITOR, absent),
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def addresses(policy: Policy, names: hostnames.Resolve) -> dict[str, frozenset[str]]:
    """Return each machine's addresses, as upsd and we compare them. A guest has them, too: it logs in like any other."""
    wanted = [name for machine in policy.machines for name in machine.addresses]
    found, _problems = hostnames.resolve_all(wanted, NAME_SECONDS, names)
    return {
        machine.name: frozenset(
            hostnames.normal_address(address) for name in machine.addresses for address in found[name]
        )
        for machine in policy.machines
    }


# What is noted. Moments are seconds since 1970: they must mean the same after a reboot.


@dataclass(frozen=True)
class Noted:
    """What is known of a machine. left: when it logged out, and so begins to go down; silent: since when it does not answer."""

    logged_in: bool = False
    left: float | None = None
    silent: float | None = None


@dataclass(frozen=True)
class Notes:
    """What the recorder has seen.

    token: of this boot. began, last: its first and its last look. fsd: when FSD was set. ended: when it was told to end, and so
    this host goes down. steps: what happened, in words.
    """

    token: str
    boot: str
    primary: str
    began: float
    last: float
    machines: Mapping[str, Noted] = field(default_factory=dict)
    fsd: float | None = None
    ended: float | None = None
    steps: tuple[tuple[float, str], ...] = ()

    def dump(self) -> str:
        """Write it as JSON."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"


def read_notes(path: Path) -> Notes:
    """Read what was noted. Raises LiveError."""
    try:
        data = jsontext.parse(path.read_bytes()[:TEXT_LIMIT])
        if data.pop("version") != VERSION:
            raise ValueError("it is of another version")
        machines = {
            str(name): Noted(bool(one["logged_in"]), _maybe(one["left"]), _maybe(one["silent"]))
            for name, one in data.pop("machines").items()
        }
        steps = tuple((_moment(at), str(words)) for at, words in data.pop("steps"))
        texts: dict[str, Any] = {name: str(data.pop(name)) for name in ("token", "boot", "primary")}
        began, last = _moment(data.pop("began")), _moment(data.pop("last"))
        times: dict[str, Any] = {name: _maybe(value) for name, value in data.items()}
        return Notes(**texts, began=began, last=last, machines=machines, steps=steps, **times)
    except FileNotFoundError:
        raise LiveError(f"{path} is not there: no real shutdown was recorded on this host") from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise LiveError(f"{path} can't be understood: {error}. The next real drill writes it anew") from None


def _moment(value: object) -> float:
    found = jsontext.number(value)
    if found is None:
        raise ValueError("a time of it is none")
    return found


def _maybe(value: object) -> float | None:
    return None if value is None else _moment(value)


@dataclass(frozen=True)
class Look:
    """One look: at, when it began; fsd: is it set? inside: who is logged in, None if upsd does not say; seen: who is up?"""

    at: float
    fsd: bool
    inside: frozenset[str] | None
    seen: Mapping[str, bool | None]


def note(notes: Notes, one: Look) -> Notes:
    """Take in what a look has seen."""
    steps: list[str] = []
    fsd = notes.fsd
    if one.fsd and fsd is None:
        fsd = one.at
        steps.append(f"{notes.primary}: upsmon has set FSD")
    machines = {}
    for name, before in notes.machines.items():
        machines[name] = after = _after(name, before, one)
        if after.left is not None and before.left is None:
            steps.append(f"{name} has logged out: it begins to go down")
        if after.silent is not None and before.silent is None:
            steps.append(f"{name} is silent")
        elif after.silent is None and before.silent is not None:
            steps.append(f"{name} answers again")
    told = tuple((one.at, words) for words in steps)
    return replace(notes, machines=machines, fsd=fsd, last=one.at, steps=(*notes.steps, *told))


def _after(name: str, before: Noted, one: Look) -> Noted:
    after = before
    if one.inside is not None:
        if name in one.inside:
            after = replace(after, logged_in=True, left=None)
        elif after.logged_in and after.left is None:
            after = replace(after, left=one.at)
    answer = one.seen.get(name)
    if answer:
        return replace(after, silent=None)
    return replace(after, silent=one.at) if answer is False and after.silent is None else after


# The recorder


class Recorder:
    """Looks, and writes down what it sees, until it is told to end."""

    def __init__(
        self,
        policy: Policy,
        log: Say,
        *,
        prober: Callable[[], Mapping[str, bool | None]],
        known: Mapping[str, frozenset[str]],
        path: Path,
        token: Path = TOKEN,
        clock: Callable[[], float] = boottime,
        wall: Callable[[], float] = time.time,
        timing: Mapping[str, int] | None = None,
    ) -> None:
        self.policy, self.log, self.prober, self.known = policy, log, prober, known
        self.path, self.token, self.clock, self.wall = path, token, clock, wall
        timing = timing or drill.TIMING
        self.longest = timing["HOSTSYNC"] + timing["FINALDELAY"] + policy.longest + SPARE
        self.stopped = threading.Event()
        self.stopped_at: float | None = None
        self.notes = Notes(
            secrets.token_hex(8),
            boot_id(),
            drill.name_of(policy),
            wall(),
            wall(),
            {host.name: Noted() for host in policy.machines},
        )
        self.written = -math.inf

    def stop(self) -> None:
        """Let it end. This moment counts as the begin of this host's own shutdown."""
        if self.stopped_at is None:
            self.stopped_at = self.wall()
        self.stopped.set()

    def run(self, ready: Callable[[], None]) -> bool:
        """Record. ready: called as soon as each machine has been seen once. Returns False if nobody set FSD, or it took too long."""
        self.token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # what is not written now could not be written later
        files.replace({self.path: self.notes.dump()}, 0o600)
        files.replace({self.token: f"{self.notes.token}\n"}, 0o600)
        began = self.clock()
        self.look()
        ready()
        self.log("recording")
        while not self.stopped.is_set():
            begun = self.clock()
            if self.notes.fsd is None and begun - began > PATIENCE:
                self.log(f"no FSD within {PATIENCE:g} s: nobody wants a record")
                return False
            if begun - began > PATIENCE + self.longest:
                self.log("this host should have gone down long ago: the record ends")
                return False
            self.look()
            self.stopped.wait(max(TICK - (self.clock() - begun), 0.0))
        self.notes = replace(self.notes, ended=self.stopped_at)
        self.write()
        self.log("this host goes down; the record ends")
        return True

    def look(self) -> None:
        """Look once, and write down what is new."""
        moment, begun = self.wall(), self.clock()
        fsd, inside = self.ask()
        seen = {} if self.stopped.is_set() else self.prober()
        if self.stopped_at is not None:
            # what is seen now is seen through a network that goes down itself
            return
        before = len(self.notes.steps)
        self.notes = note(self.notes, Look(moment, fsd, inside, seen))
        for _at, words in self.notes.steps[before:]:
            self.log(words)
        if len(self.notes.steps) > before or begun - self.written >= BEAT:
            self.write()

    def write(self) -> None:
        self.written = self.clock()
        try:
            files.replace({self.path: self.notes.dump()}, 0o600)
        except files.WriteError as error:
            self.log(str(error))

    def ask(self) -> tuple[bool, frozenset[str] | None]:
        """Ask upsd whether FSD is set, and who is logged in. What one UPS does not say, another may; None: none says it."""
        fsd, inside = False, None
        for ups in self.policy.upses:
            try:
                with Client(ups.host, ups.port, observe.ASK_INTERVAL) as client:
                    fsd |= "FSD" in vocabulary.split_status(client.get_var(ups.name, "ups.status"))
                    there = {hostnames.normal_address(one) for one in client.list_clients(ups.name)}
            except (UpsdFailure, grammar.Unencodable):
                continue
            inside = (inside or frozenset()) | {name for name, its in self.known.items() if its & there}
        return fsd, inside


def tell_systemd(words: str, environment: Mapping[str, str] | None = None) -> None:
    """Say something to the systemd that started us (sd_notify(3)); nothing, if it did not."""
    where = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not where:
        return
    address = f"\0{where[1:]}" if where.startswith("@") else where
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.sendto(words.encode(), address)


def record(policy: Policy, wanted: Wanted, log: Say, *, run: Run, names: hostnames.Resolve) -> bool:
    """Be the recorder: what its unit runs. Returns as Recorder.run() does."""
    looker = observe.Looker(policy.machines, run, boottime, resolve=names)
    try:
        one = Recorder(
            policy,
            log,
            prober=looker,
            known=addresses(policy, names),
            path=wanted.notes,
            token=wanted.token,
            timing=drill.timing(_text(wanted.conf) or ""),
        )
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, lambda *_unused: one.stop()) for number in numbers}
        try:
            return one.run(lambda: tell_systemd("READY=1"))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    finally:
        looker.close()


def command(systemd_run: str, program: Sequence[str]) -> list[str]:
    """Return what starts the recorder. It comes back when that records, for the unit is ready then; and it ends with the host."""
    given = ["Type=notify", "NotifyAccess=main", "TimeoutStartSec=25", "TimeoutStopSec=5", "OOMScoreAdjust=-500"]
    options = [f"--property={one}" for one in given]
    return [systemd_run, "--quiet", "--collect", f"--unit={UNIT}", *options, "--", *program, "record", "--inside"]


def start(
    policy: Policy,
    wanted: Wanted,
    *,
    program: Sequence[str],
    run: Run,
    names: hostnames.Resolve,
    starter: Callable[[], str] = drill.systemd_run,
    user: Callable[[], int] = os.geteuid,
) -> Fitness:
    """See that all is fit, and have systemd start the recorder. When this returns, it records. Raises Unfit, and LiveError."""
    if user() != 0:
        raise LiveError("run it as root: it asks systemd for a unit of its own")
    try:
        words = command(starter(), program)
    except drill.Refused as error:
        raise LiveError(str(error)) from None
    fit = fitness(policy, find(policy, run, names=names, conf=wanted.conf), wanted.need)
    if fit.problems:
        raise Unfit("\n".join(fit.problems))
    # one that was forgotten
    run(["systemctl", "stop", "--", f"{UNIT}.service"])
    code, said = run(words)
    if code:
        raise LiveError(f"the recorder could not be started: {one_line(said)}. See journalctl -u {UNIT}")
    return fit


# What came of it


@dataclass(frozen=True)
class After:
    """What this host knows in the end, or up to now.

    again: it has been started again since. end: the last thing in the journal of that time, None if there is none. guests: how
    long Proxmox VE took to stop them, s, None if it did not say. reason: why the gate ended.
    """

    again: bool
    end: float | None = None
    guests: float | None = None
    reason: str = ""
    poweroff: float | None = None


def job(policy: Policy, conf: str, primary: str) -> drill.Job:
    """Return what drill.arithmetic() wants to know."""
    bare = Policy((), policy.machines, policy.settle, policy.reserve, policy.longest)
    return drill.Job(bare, drill.timing(conf), None, 0.0, primary)


def result(notes: Notes, policy: Policy, conf: str, after: After, own: float | None = None) -> dict[str, Any]:
    """Put together what was planned and what was seen, in seconds from FSD on.

    own: nut_server_shutdown_time of this host, s. "seen" is for the picture: the plan counts from the low battery on, and FSD comes
    a poll later.
    """
    made = drill.arithmetic(job(policy, conf, notes.primary))
    poll = made.at(model.FSD) or 0.0
    zero = notes.fsd if notes.fsd is not None else notes.began
    poweroff = notes.ended if notes.ended is not None else after.poweroff

    def since(moment: float | None) -> float | None:
        return None if moment is None else round(moment - zero, 2)

    def shifted(times: Sequence[float | None], by: float) -> list[float | None]:
        return [None if one is None else round(one + by, 2) for one in times]

    machines = {name: [since(one.left), since(one.silent)] for name, one in notes.machines.items()}
    machines[notes.primary] = [since(poweroff), since(after.end)]
    planned = {name: shifted(times, -poll) for name, times in drill.planned_of(made, policy, notes.primary).items()}
    took = {name: _took(times) for name, times in machines.items()}
    if after.guests is not None and took[notes.primary] is not None:
        took[notes.primary] = round(max((took[notes.primary] or 0.0) - after.guests, 0.0), 2)
    wrong = _wrong(notes, machines, after)
    data = {
        "again": after.again,
        "primary": notes.primary,
        "fsd": notes.fsd,
        "machines": machines,
        "planned": planned,
        "seen": {name: shifted(times, poll) for name, times in machines.items()},
        "took": took,
        "guests": after.guests,
        "reason": after.reason,
        "held": not wrong,
        "verdict": _verdict(notes, wrong),
        "offers": [asdict(one) for one in offers(policy, took, notes.primary, own)],
        "steps": [[since(at), words] for at, words in notes.steps],
    }
    return {**data, "table": table(data)}


def _took(times: Sequence[float | None]) -> float | None:
    began, down = times
    return None if began is None or down is None or down < began else round(down - began, 2)


def _wrong(notes: Notes, machines: Mapping[str, Sequence[float | None]], after: After) -> list[str]:
    if notes.fsd is None:
        return ["no FSD was seen"]
    poweroff = machines[notes.primary][0]
    wrong = []
    for name in notes.machines:
        began, down = machines[name]
        if down is None or (poweroff is not None and down > poweroff):
            wrong.append(f"{name} was not down when {notes.primary} powered off")
        elif began is None:
            wrong.append(f"{name} fell silent without having logged out")
    if poweroff is None:
        # while it is under way that is no wonder
        wrong += [f"nobody saw when {notes.primary} powered off"] if after.again else [f"{notes.primary} still waits"]
    return wrong


def _verdict(notes: Notes, wrong: Sequence[str]) -> str:
    if wrong:
        return f"The order did not hold: {'; '.join(wrong)}"
    if not notes.machines:
        return "The order held: there was nobody to wait for"
    return "The order held: all were down before this host began to power off"


def fair(seconds: float) -> int:
    """Return the time to write into the inventory for one that was measured."""
    return max(math.ceil(round(seconds * MARGIN, 6)), LEAST_TIME)


@dataclass(frozen=True)
class Offer:
    """A time that was measured, for the inventory, which has another one."""

    name: str  # of the host in whose variables it belongs
    own: bool  # whether that is the primary
    now: float  # s, in the inventory
    measured: float  # s

    @property
    def value(self) -> int:
        """The time to write down."""
        return fair(self.measured)

    @property
    def line(self) -> str:
        """Where it belongs, and the line in YAML."""
        how = f"measured {self.measured:.1f} s, rounded up with {MARGIN - 1:.0%} margin".replace("%", " %")
        how += f", at least {LEAST_TIME}" if self.value == LEAST_TIME else ""
        file = f"host_vars/{self.name}.yml" + (", or group_vars/pve.yml" if self.own else "")
        return f"{file}: nut_{'server' if self.own else 'client'}_shutdown_time: {self.value}  # {how}"


def read_offers(data: object, primary: str, secondaries: Collection[str]) -> list[Offer]:
    """Return the offers that a host has sent. Only times come from there: the names are the inventory's. Raises RecordError."""
    if not isinstance(data, list) or len(data) > records.MOST_ITEMS:
        raise records.RecordError("what was measured is no list of times")
    found = [records.build(Offer, one, f"what was measured [{position}]") for position, one in enumerate(data)]
    # the primary may call itself by another name than the inventory does
    found = [replace(one, name=primary) if one.own else one for one in found]
    for one in found:
        if one.name not in (primary, *secondaries) or not 0 <= one.measured <= MOST_MEASURED:
            raise records.RecordError(
                f"{printable(one.name, 60)} is no host of this primary, or its time is none: {one.measured:g} s"
            )
    return found


def offers(policy: Policy, took: Mapping[str, float | None], primary: str, own: float | None) -> list[Offer]:
    """Say what the inventory should say, where it says something else; a second or a tenth more or less is no difference."""
    said: list[tuple[str, bool, float | None]] = [(host.name, False, host.shutdown_time) for host in policy.machines]
    said.append((primary, True, own))
    found = []
    for name, its, now in said:
        measured = took.get(name)
        if measured is None or now is None:
            continue
        better = fair(measured)
        if abs(better - now) <= max(1.0, now / 10) and now >= measured:
            continue
        found.append(Offer(name, its, now, measured))
    return found


def table(data: Mapping[str, Any]) -> str:
    """Show what result() says: what was planned and what was seen, side by side, and what each took."""

    def word(value: float | None) -> str:
        return "-" if value is None else f"{value:+.1f}"

    def long(name: str) -> str:
        value = data["took"].get(name)
        return "-" if value is None else f"{value:.1f}"

    rows = [("s from FSD on", "", "planned", "seen", "took")]
    for name, (began, down) in data["machines"].items():
        its = name == data["primary"]
        plans = data["planned"].get(name, (None, None))
        rows.append((name, "powers off" if its else "begins to go down", word(plans[0]), word(began), ""))
        rows.append(("", "is off" if its else "is down", word(plans[1]), word(down), long(name)))
    lines = grid(rows, "llrrr")
    if data["guests"] is not None:
        lines += [
            "",
            f"Its guests took {data['guests']:.1f} s of that, which {data['primary']}'s own time does not count.",
        ]
    return "\n".join([*lines, "", data["verdict"]])


# The host, in the end

# systemd's messages "Stopping ..." and "Stopped ..." (systemd.catalog)
_STOPPING, _STOPPED = "de5b426a63be47a7b6ac3eaac82e2f6f", "9d1aaa27d60140bd96365438aad20286"


def after(
    notes: Notes,
    run: Run,
    *,
    token: Path = TOKEN,
    report: Path = REPORT,
    root: Path = Path("/"),
    wall: Callable[[], float] = time.time,
    clock: Callable[[], float] = boottime,
) -> After:
    """Find out what became of this host."""
    try:
        again = token.read_text(encoding="ascii", errors="replace").strip() != notes.token
    except OSError:
        again = True
    reason, opened = _gate_says(report, notes)
    known = After(again, reason=reason, poweroff=opened)
    poweroff = notes.ended if notes.ended is not None else opened
    if not again or poweroff is None:
        return known
    then = _then(notes, root, wall() - clock())
    # in reverse: systemd 252 finds nothing at all by --lines with --until
    entry = _entries(run, ["--reverse", "--lines=1", *then])
    end = entry[0][0] if entry and entry[0][0] >= poweroff else None
    units_said = _entries(run, [*then, f"--since=@{math.floor(poweroff)}", "UNIT=pve-guests.service"])
    moments = {kind: at for at, kind in units_said}
    guests = None
    if _STOPPING in moments and _STOPPED in moments:
        guests = round(max(moments[_STOPPED] - moments[_STOPPING], 0.0), 2)
    return replace(known, end=end, guests=guests)


def _gate_says(report: Path, notes: Notes) -> tuple[str, float | None]:
    """Say why the gate of this shutdown ended, and when."""
    try:
        data = jsontext.parse(report.read_bytes()[:TEXT_LIMIT])
        began, elapsed, reason = float(data["began"]), float(data["elapsed"]), data["reason"]
    except (OSError, ValueError, TypeError, LookupError):
        return "", None
    if began < notes.began or not reason:
        return "", None
    return str(reason), began + elapsed


def _then(notes: Notes, root: Path, boot: float) -> list[str]:
    """Return journalctl's options for what was written before this host was started. boot: when its kernel was, s since 1970."""
    now = boot_id(root / "proc/sys/kernel/random/boot_id")
    if now != notes.boot:
        return [f"--boot={notes.boot.replace('-', '')}"]
    # a container: its kernel goes on, and it may have another id. What counts is its first process
    try:
        fields = (root / "proc/1/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        began = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        began = boot
    return ["--merge", f"--until=@{began:.3f}"]


def _entries(run: Run, options: Sequence[str]) -> list[tuple[float, str]]:
    """Return entries of the journal: when, s since 1970, and the id of the message."""
    code, said = run(["journalctl", "--quiet", "--no-pager", "--output=json", *options])
    found: list[tuple[float, str]] = []
    for line in said.splitlines() if not code else ():
        with contextlib.suppress(ValueError, TypeError, LookupError):
            entry = jsontext.parse(line)
            found.append((entry_moment(entry), str(entry.get("MESSAGE_ID", ""))))
    return found


# The command


def main(
    policy: Policy, wanted: Wanted, out: Say, *, program: Sequence[str], run: Run, names: hostnames.Resolve
) -> bool:
    """Do what is wanted, and say whether it went well. Raises LiveError, and Unfit."""
    if wanted.inside:
        return record(policy, wanted, out, run=run, names=names)
    if wanted.show:
        notes = read_notes(wanted.notes)
        known = after(notes, run, token=wanted.token, report=wanted.report)
        data = result(notes, policy, _text(wanted.conf) or "", known, wanted.own)
        out(json.dumps(data, indent=2) if wanted.as_json else text(data))
        return True
    if wanted.check:
        fit = fitness(policy, find(policy, run, names=names, conf=wanted.conf), wanted.need)
        if wanted.as_json:
            out(json.dumps(asdict(fit), indent=2))
            return not fit.problems
        if fit.problems:
            raise Unfit("\n".join(fit.problems))
    else:
        fit = start(policy, wanted, program=program, run=run, names=names)
    for words in fit.remarks:
        out(words)
    out(
        "all is fit for a real shutdown"
        if wanted.check
        else f"{UNIT}.service records from now on, until this host goes down"
    )
    return True


def text(data: Mapping[str, Any]) -> str:
    """Show result() to people."""
    lines = [f"{at:+8.1f} s  {words}" for at, words in data["steps"]]
    offered = [Offer(**one).line for one in data["offers"]]
    return "\n".join([*lines, "", data["table"], *(["", "For the inventory:", *offered] if offered else [])])
