# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate: on the primary, between FSD and its own poweroff. It ends when the other machines are down, or must be left alone.

NUT's primary goes on when a secondary *begins* to go down (clients/upsmon.c). So upsmon's SHUTDOWNCMD starts the unit
nut-shutdown.service, which runs this, and powers off when this has ended, however it ended. Nothing in here can power
anything off.

gate_core decides, from data alone. This is the edge: it looks, asks, waits, and remembers.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, TypeVar

from ..base import files, hostnames, jsontext
from ..base.clock import boot_id, boottime, stamp
from ..base.systemd import Run
from ..base.text import printable
from ..conf import grammar, upsmon
from ..net import vocabulary
from ..net.client import Client, UpsdFailure, VarNotSupported
from . import flag, probe
from .gate import NEW, Reading, Watched, begin, dump, reading, resume, step
from .policy import TEXT_LIMIT, VERSION, Guest, Machine, Policy, Ups

TICK = 1.0
"""Seconds from one look at the machines to the next."""

ASK_INTERVAL = 2.0
"""Seconds from one question to upsd, or to Proxmox VE, to the next; and how long upsd has for its answer."""

GUEST_OLD = 10.0
"""Seconds after which nobody can tell any more whether a guest runs, if Proxmox VE says nothing new."""

SYSTEMD = "systemd"
"""Who runs it in earnest; see run()."""

_STEPS = 500  # lines of a report
_HISTORY_TEXT = 2000  # characters of a line
# a flag that upsmon has left, if only an empty one, because there was no space
_ORDERED = (flag.SET, flag.SPOILED)

Say = Callable[[str], None]
_T = TypeVar("_T")


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
        self._texts: dict[Path, str] = {}  # that wait to replace a file: of each file the newest
        self._lock = threading.Lock()

    def run(self) -> None:
        """Do one after another."""
        while (job := self.jobs.get()) is not None:
            path, work = job
            try:
                work()
            except (OSError, files.WriteError) as error:
                if path not in self.broken:
                    self.broken.add(path)
                    self.say(f"{path} can't be written: {getattr(error, 'strerror', None) or error}")

    def append(self, path: Path, line: str) -> None:
        """Add a line to a file, so that it lasts over a power cut."""
        self.jobs.put((path, lambda: _append(path, line)))

    def replace(self, path: Path, text: str) -> None:
        """Replace a file: whenever the power goes, the old or the new one is there. A text that still waits for that is dropped."""
        with self._lock:
            waits = path in self._texts
            self._texts[path] = text
        if not waits:
            self.jobs.put((path, lambda: self._replace(path)))

    def finish(self, seconds: float) -> None:
        """Wait until all is written, but not longer than this."""
        self.jobs.put(None)
        self.join(seconds)

    def _replace(self, path: Path) -> None:
        with self._lock:
            text = self._texts.pop(path)
        _replace(path, text)


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
    files.replace({path: text}, 0o600)


class Looker:
    """Tells of each machine whether it is up: by the network, or by Proxmox VE for guests of this host.

    Names are resolved once, here: later there may be no name server.
    """

    def __init__(
        self,
        hosts: Sequence[Machine],
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


def _targets(hosts: Sequence[Machine], seconds: float, resolve: hostnames.Resolve) -> list[probe.Target]:
    """Return what is looked at by the network: the machines that are no guests of this host."""
    far = [host for host in hosts if not host.guest]
    names = sorted({one for host in far for one in host.addresses})
    addresses, _unused = hostnames.resolve_all(names, seconds, resolve)
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
            kept = jsontext.parse(path.read_bytes()[:TEXT_LIMIT])
        except (OSError, ValueError):
            kept = {}
        self.kept: dict[str, tuple[str, ...]] = {
            str(name): tuple(one for one in found if isinstance(one, str) and hostnames.is_address(one))
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
            if self.kept.get(name) != found and not hostnames.is_address(name):
                self.kept[name] = found
                # no reason to wait less well: this time they are known
                with contextlib.suppress(OSError):
                    _replace(self.path, json.dumps(self.kept, indent=1) + "\n")
        return found

    def learn(self, policy: Policy, seconds: float) -> list[str]:
        """Look all names of a policy up. Returns those that have no address, neither now nor before."""
        names = sorted({one for host in policy.machines if not host.guest for one in host.addresses})
        return list(hostnames.resolve_all(names, seconds, self)[1])


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

    def __call__(self, client: Client, ups: Ups, status: str) -> None:
        """Give the order, if this status lacks it. Never raises upsd.UpsdFailure: what upsd says else is still worth hearing."""
        login = self.logins.get(str(ups))
        if login is None or "FSD" in vocabulary.split_status(status):
            return
        words = f"upsd does not say FSD of {ups.name}: it was told again, so that all go down"
        try:
            client.authenticate(*login)
            client.fsd(ups.name)
        except (UpsdFailure, grammar.Unencodable) as error:
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
    own = [one for one in upsmon.monitors(text) if one.type.lower() in upsmon.PRIMARY]
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
    return flag.look_at(policy.flag) in _ORDERED or resume(text, boot_id(), by, boottime()).flag


def _reader(
    ups: Ups, clock: Callable[[], float], seconds: float, orders: Orders | None = None
) -> Callable[[], Reading]:
    return lambda: read_ups(ups, clock, seconds, orders)


def read_ups(
    ups: Ups, clock: Callable[[], float], seconds: float = ASK_INTERVAL, orders: Orders | None = None
) -> Reading:
    """Ask upsd once about a UPS. Raises upsd.UpsdFailure, also if its data are stale, and parseconf.Unencodable."""
    asked = clock()
    with Client(ups.host, ups.port, seconds) as client:
        status = client.get_var(ups.name, "ups.status")
        try:
            runtime = client.get_var(ups.name, "battery.runtime")
        except VarNotSupported:
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
    shout: Say | None = None,
) -> Report:
    """Wait until the gate opens, and return what was seen. That is all it does: who called it goes on.

    prober: does each machine answer? It takes at most a second or so. ask_upsd: what upsd said last; it takes no time.
    news: what has been done beside it since it was asked last, in words. alive: called in each round, so that somebody else
    notices when no round comes to its end. by: who runs it, SYSTEMD or somebody else; one gate goes on where another one of the
    same was ended. mode: a word for the report, such as gate or drill. shout: tells everybody who is logged in.
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
        shout=shout or log,
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
        shout: Say,
    ) -> None:
        self.policy, self.mode, self.shout = policy, mode, shout
        self.state_path, self.report_path, self.log_path = state_path, report_path, log_path
        self.log, self.clock, self.wall = log, clock, wall
        self.writer = Writer(log)
        self.writer.start()
        self.steps: list[tuple[float, str]] = []
        self.told: set[str] = set()
        self.state = begin("", "", 0.0)

    def begin(self, boot: str, by: str) -> None:
        now = self.clock()
        text = self.old()
        self.state = resume(text, boot, by, now)
        # by hand it is no shutdown, and nothing may make the UPS cut the power
        if by == SYSTEMD and self.policy.flag and not self.state.flag:
            self.state = replace(self.state, flag=flag.look_at(self.policy.flag) in _ORDERED)
        self.save(changed=False)
        names = ", ".join(f"{host.name} (at most {host.shutdown_limit:g} s)" for host in self.policy.machines)
        if self.state.ended:
            self.say(now, f"the gate has ended before: {self.state.ended[1]}")
        elif self.state.began < now:
            self.say(now, "the gate was started again, and goes on")
        else:
            if text is not None:
                self.say(now, f"{self.state_path} is not of this shutdown, or damaged: the gate begins anew")
            self.say(now, f"the gate begins: {f'waiting for {names}' if names else 'there is nobody to wait for'}")
        self.keep_flag(now)
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
        self.keep_flag(now)
        if decision.go:
            self.say(now, f"the gate ends ({decision.rule}): {decision.reason}")
            self.state = replace(self.state, ended=(decision.rule, decision.reason))
        self.save(changed=bool(words) or decision.go)

    def keep_flag(self, now: float) -> None:
        """Write POWERDOWNFLAG again if upsmon has left it and it is gone, or empty because there was no space for its text.

        An upsmon that is restarted removes it. Without it the UPS does not cut the power, and machines that are down already stay
        off when the mains return.
        """
        path = self.policy.flag
        if not path or not self.ordered(now) or (found := flag.look_at(path)) == flag.SET:
            return
        try:
            flag.write(path)
        except OSError as error:
            words = (
                f"{path} can't be written: {error.strerror}. The UPS will NOT cut the power: machines that are down stay off when "
                "the mains return, until somebody starts them"
            )
            if words not in self.told:
                self.told.add(words)
                self.say(now, words)
                self.shout(words)
            return
        why = "was missing" if found == flag.MISSING else "was empty or damaged"
        self.say(now, f"{path} {why}; wrote it again: it tells the UPS to cut the power, so that everything restarts")

    def ordered(self, now: float) -> bool:
        """Return whether the UPS must cut the power: upsmon has left its flag, or could not, and FSD shows that it began this."""
        if not self.state.flag and self.state.by == SYSTEMD and any(one.fsd for one in self.state.power.values()):
            self.say(now, f"upsd says FSD, and upsmon has left no {self.policy.flag}")
            self.state = replace(self.state, flag=True)
        return self.state.flag

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
        words = printable(words, _HISTORY_TEXT)
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
        except (OSError, files.WriteError) as error:
            words = f"{self.state_path} can't be written: {error} Killed now, the gate would begin anew"
            if words not in self.told:
                self.told.add(words)
                self.log(words)
        if changed and self.report_path:
            self.writer.replace(self.report_path, json.dumps(self.report().to_json(), indent=1) + "\n")

    def report(self) -> Report:
        state = self.state
        hosts = tuple(_host_report(host, state.hosts.get(host.name, NEW), state.began) for host in self.policy.machines)
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


def _host_report(host: Machine, seen: Watched, began: float) -> dict[str, object]:
    """Say what became of a machine. down: seconds from the gate's beginning to its first silence, or None."""
    since = seen.silent if seen.silent is not None else seen.assumed
    return {
        "name": host.name,
        "shutdown_time": host.shutdown_time,
        "shutdown_limit": host.shutdown_limit,
        "down": round(max(since - began, 0.0), 3) if seen.down is not None and since is not None else None,
        "assumed": seen.down is not None and seen.silent is None,
        "given_up": seen.given_up,
    }


def one_look(
    policy: Policy, run: Run, resolve: hostnames.Resolve = hostnames.resolve
) -> tuple[dict[str, bool | None], dict[str, Reading | str]]:
    """Look once at all machines and UPSes, for `status`. A UPS that can't be asked has the reason in place of a reading."""
    seen = probe.look(_targets(policy.machines, ASK_INTERVAL, resolve))
    for host in policy.machines:
        if host.guest:
            seen[host.name] = probe.guest_runs(run, host.guest.kind, host.guest.id)
    readings: dict[str, Reading | str] = {}
    for ups in policy.upses:
        try:
            readings[str(ups)] = read_ups(ups, boottime)
        except (UpsdFailure, grammar.Unencodable) as error:
            readings[str(ups)] = str(error)
    return seen, readings
