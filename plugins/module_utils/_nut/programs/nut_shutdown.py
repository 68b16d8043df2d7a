# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-shutdown: what it takes, and what it says. Printing is left to the program itself.

It loads little: what can't be loaded can't wait for anybody.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ..base import files, jsontext, systemd
from ..base.cli import FAILED, OK, USAGE, Left, Parser, Say, for_terminals
from ..base.clock import CLOCK, boot_id, boottime, stamp
from ..base.process import runner
from ..base.systemd import Run
from ..shutdown import gate, gate_loop, observe
from ..shutdown import policy as shutdown_policy
from ..shutdown.names import Names
from ..shutdown.writer import Writer

if TYPE_CHECKING:
    from ..proxmox.selection import Finder, Found
    from ..shutdown.stages import Stage

STDIN = 0

POLICY = Path("/etc/nut/shutdown.json")
UPSMON_CONF = Path("/etc/nut/upsmon.conf")
GATE_STATE = Path("/run/nut-shutdown/gate.json")
STAGES_STATE = Path("/var/lib/nut-shutdown/stages.json")
WATCH_STATE = Path("/var/lib/nut-shutdown/watch.json")
UPSD_CONF = Path("/etc/nut/upsd.conf")
REPORT = Path("/var/lib/nut-shutdown/last.json")
ADDRESSES = "addresses.json"
GUESTS = "guests.json"
"""Beside the report: the addresses of names, and the guests of the stages, as they were found last."""
LOG = Path("/var/log/nut/shutdown.log")

HANG = 20
"""Seconds without the end of a round of the gate (it takes two) after which the program ends itself, to be started again."""

WATCH_HANG = 60
"""The same for the stages; a round of theirs takes 2 s for each UPS, and 15 s where upsmon is told and hangs."""

WATCH_PROGRAM_SECONDS = 20
"""What systemctl has for restarting upsd, which stops within 5 s (its drop-in)."""

FIND_SECONDS = 10.0
"""What Proxmox's files have for being read. They are no files of a disk, and may hang."""

NAME_SECONDS = 5.0
"""What the system has for finding an address, where nothing is in a hurry."""

STOP_SECONDS = 30
"""What systemctl has for ending a drill that does not end by itself."""

PROGRAM_SECONDS = 5
"""What qm and pct have for saying how a guest stands: longer than they take, shorter than their answer is good for."""

DESCRIPTION = "Wait until the other machines are down, before this one powers off."
EPILOG = """\
examples:
  nut-shutdown status          who would be waited for, whether each is up now, and how the last shutdown went
  nut-shutdown status --json   the same, for machines
  nut-shutdown guests          this host's guests: whether each runs, which stage stops it and why, what HA works
  nut-shutdown check           is the policy right? It also finds the stages' guests, and the addresses of names, and keeps them
  nut-shutdown drill           rehearse it on a simulated UPS, with NUT's own programs; nothing is shut down
  nut-shutdown record          before a real shutdown that you begin yourself: note when each machine goes, until this host does
  nut-shutdown record --check  is all fit for a real shutdown now?
  nut-shutdown record --show   what was noted the last time: planned beside seen, and how long each machine took
  nut-shutdown fsd             begin the real shutdown of everything now, as upsmon does when the battery is low
  nut-shutdown gate            wait; nut-shutdown.service runs this, and powers off when it has ended
  nut-shutdown stages          watch the UPSes, and do what the stages say; nut-stages.service runs this all the time
  nut-shutdown watch           watch upsd: close connections that block it, restart it if it hangs; nut-watch.service runs this

exit codes:
  0  done: all are down, or there is a reason to wait no longer; of stages: there are none
  1  something went wrong; of a drill also: the order did not hold
  2  the command line or the policy is wrong, or it is no time for a drill, or a real shutdown

The program itself powers nothing off: `nut-shutdown gate`, run by hand, only waits. `nut-shutdown stages` stops guests, and
tells upsmon to begin the shutdown, if a stage says so; so does `nut-shutdown fsd`, at once.
files: /etc/nut/shutdown.json (policy), /var/log/nut/shutdown.log, /var/lib/nut-shutdown/last.json (what was seen last)
       and guests.json (the guests of the stages, as they were found last)
"""


def _parser(out: Say, err: Say) -> Parser:
    parser = Parser(prog="nut-shutdown", description=DESCRIPTION, epilog=EPILOG, out=out, err=err)
    parser.add_argument(
        "command",
        choices=("gate", "stages", "watch", "status", "guests", "check", "drill", "record", "fsd"),
        help="see the examples",
    )
    parser.add_argument("--json", action="store_true", help="status, guests, drill, record: say it as JSON")
    parser.add_argument(
        "--outage",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="drill: how long the simulated UPS is on battery before that is low; default: %(default)g",
    )
    parser.add_argument("--check", action="store_true", help="record: only see whether all is fit for it")
    parser.add_argument("--show", action="store_true", help="record: only show what was noted the last time")
    parser.add_argument(
        "--need", type=float, metavar="SECONDS", help="record: how long the battery must last, as the plan says"
    )
    parser.add_argument(
        "--own", type=float, metavar="SECONDS", help="record --show: nut_server_shutdown_time, to say what it should be"
    )
    # how a drill starts its other half, between walls; and a record its unit
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--upsmon-conf", type=Path, default=UPSMON_CONF, help=argparse.SUPPRESS)
    parser.add_argument("--upsd-conf", type=Path, default=UPSD_CONF, help=argparse.SUPPRESS)
    parser.add_argument("--policy", type=Path, default=POLICY, metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help=f"where it stands, should it be started again; default: {GATE_STATE}, of stages {STAGES_STATE}, of watch {WATCH_STATE}",
    )
    parser.add_argument(
        "--report", type=Path, default=REPORT, metavar="FILE", help="what the gate saw; default: %(default)s"
    )
    # where /etc/pve is looked for
    parser.add_argument("--root", type=Path, default=Path("/"), help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, default=LOG, metavar="FILE", help="default: %(default)s")
    return parser


def patient(command: Sequence[str]) -> tuple[int, str]:
    """Run a program that `timeout` ends, with its seconds at place 2. Left behind is one that even `timeout` can't end."""
    return runner(float(command[2]) + 10)(command)


@contextlib.contextmanager
def watchdog(seconds: float = HANG) -> Iterator[Callable[[], None]]:
    """Give a function that must be called at least that often: else the whole process ends at once, with exit code 1.

    A thread without Python in it looks at the clock, so it works even if nothing of Python does any more.
    """

    def pet() -> None:
        # without a standard error there is nowhere to say where it hung
        with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
            faulthandler.dump_traceback_later(seconds, exit=True)

    pet()
    try:
        yield pet
    finally:
        faulthandler.cancel_dump_traceback_later()


def main(
    arguments: Sequence[str],
    out: Say,
    err: Say,
    *,
    environment: Mapping[str, str] | None = None,
    run: Run | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Do what the command line says, and return the exit code. out, err: take lines. run: runs qm and pct."""
    out, err = for_terminals(out), for_terminals(err)
    try:
        options = _parser(out, err).parse_args(list(arguments))
    except Left as left:
        return left.code
    if options.command == "drill" and options.inside:
        return _drill(None, options, out, err, run or runner(PROGRAM_SECONDS))
    if options.command == "watch":
        return _watch(options, out, run or runner(WATCH_PROGRAM_SECONDS))
    by = _started_by(os.environ if environment is None else environment, options.root)
    return _do(options, out, err, run=run, by=by, sleep=sleep)


def _started_by(environment: Mapping[str, str], root: Path) -> str:
    """Return who runs the gate. What is set in earnest, FSD and the flag, is set for systemd alone."""
    return gate_loop.SYSTEMD if systemd.is_main_process(systemd.GATE, environment, root) else "hand"


def _do(
    options: argparse.Namespace,
    out: Say,
    err: Say,
    *,
    run: Run | None,
    by: str,
    sleep: Callable[[float], None],
) -> int:
    try:
        policy = shutdown_policy.load_policy(options.policy)
        known = _read_stages(policy, options.policy) if options.command in ("check", "guests", "stages") else ()
    except shutdown_policy.PolicyError as error:
        err(str(error))
        return USAGE
    if options.command == "status":
        look = Status(policy, options, run or runner(PROGRAM_SECONDS))
        out(json.dumps(look.data(), indent=2) if options.json else look.text())
        return OK
    asked: dict[str, Callable[[], int]] = {
        "check": lambda: _check(policy, known, options, out, err),
        "guests": lambda: _guests(known, options, out, err, run or patient),
        "drill": lambda: _drill(policy, options, out, err, run or runner(STOP_SECONDS)),
        "record": lambda: _record(policy, options, out, err, run),
        "fsd": lambda: _fsd(out, err, run or patient),
    }
    if options.command in asked:
        return asked[options.command]()
    try:
        if options.command == "gate":
            _gate(policy, options, out, run=run or runner(PROGRAM_SECONDS), by=by, sleep=sleep)
        else:
            return _stages(policy, known, options, out, run or patient)
    except Exception as error:
        err(f"nut-shutdown {options.command} failed: {type(error).__name__}: {error}")
        for line in traceback.format_exc().splitlines():
            err(line)
        # it is started again at once, and what failed may need a moment
        sleep(1.0)
        return FAILED
    return OK


def _read_stages(policy: shutdown_policy.Policy, path: Path) -> tuple[Stage, ...]:
    from ..shutdown import stages  # noqa: PLC0415 - the gate does not need it, and must not fail with it

    try:
        return stages.read(policy.stages)
    except stages.StagesError as error:
        raise shutdown_policy.PolicyError(f"{path}: $.{error}") from None


def _check(
    policy: shutdown_policy.Policy, known: Sequence[Stage], options: argparse.Namespace, out: Say, err: Say
) -> int:
    for name in Names(options.report.with_name(ADDRESSES)).learn(policy, NAME_SECONDS):
        err(
            f"{name} has no address here: nut-shutdown will not see when that machine is down, and wait as long as it may take"
        )
    out(f"{options.policy} is right: {len(policy.machines)} to wait for, {policy.longest:g} s at most")
    untrusted = _untrusted(known)
    for words in untrusted:
        err(words)
    if untrusted:
        return FAILED
    finder = _finder(known, options)
    # what can't be found now may be later, and makes no policy wrong
    found = _found(finder, err) if any(stage.select for stage in known) else None
    if found is None:
        return OK
    for name, chosen in found.stages.items():
        out(f"stage {name} is for {', '.join(str(one.guest) for one in chosen) or 'no guest that is here'}")
    for words in found.idle:
        err(words)
    try:
        finder.keep(found.stages)
    except files.WriteError as error:
        err(str(error))
    return OK


def _untrusted(known: Sequence[Stage]) -> list[str]:
    """Return which programs of stages others than root can change, and what to do: root runs them."""
    from ..base import trust  # noqa: PLC0415 - as above

    found = [(stage, trust.find_untrusted(Path(stage.notify[0]))) for stage in known if stage.notify]
    return [
        f"stage {stage.name}: notify {stage.notify[0]}: {why}. root runs it, so only root may be able to write there. Put it where "
        "root alone can write, such as /usr/local/sbin, or run chown root and chmod go-w for what is named here"
        for stage, why in found
        if why
    ]


def _finder(known: Sequence[Stage], options: argparse.Namespace) -> Finder:
    from ..proxmox import selection  # noqa: PLC0415 - as above

    return selection.Finder(
        {stage.name: stage.select for stage in known},
        options.report.with_name(GUESTS),
        # each time anew: what another run of ours has learned meanwhile must not be lost
        lambda: Names(options.report.with_name(ADDRESSES)),
        options.root,
    )


def _found(finder: Finder, err: Say) -> Found | None:
    """Have the guests found, within FIND_SECONDS. None if they can't be: that is told."""
    answers: queue.SimpleQueue[Found | Exception] = queue.SimpleQueue()

    def look() -> None:
        try:
            answers.put(finder.look())
        except Exception as error:
            answers.put(error)

    # what hangs in the kernel can't be ended, and is left behind
    threading.Thread(target=look, daemon=True).start()
    try:
        found = answers.get(timeout=FIND_SECONDS)
    except queue.Empty:
        err(f"Proxmox's files (/etc/pve) can't be read within {FIND_SECONDS:g} s. Is pve-cluster.service well?")
        return None
    if isinstance(found, Exception):
        err(f"the guests of this host can't be found: {found}")
        return None
    return found


def _guests(known: Sequence[Stage], options: argparse.Namespace, out: Say, err: Say, run: Run) -> int:
    found = _found(_finder(known, options), err)
    if found is None:
        return FAILED
    listing = Listing(found, options.root, run)
    out(json.dumps(listing.data(), indent=2) if options.json else listing.text())
    return OK


def _gate(
    policy: shutdown_policy.Policy,
    options: argparse.Namespace,
    out: Say,
    *,
    run: Run,
    by: str,
    sleep: Callable[[float], None],
) -> None:
    with watchdog() as pet, contextlib.ExitStack() as stack:
        looker = observe.Looker(policy.machines, run, boottime, resolve=Names(options.report.with_name(ADDRESSES)))
        stack.callback(looker.close)
        state = options.state or GATE_STATE
        news: queue.SimpleQueue[str] = queue.SimpleQueue()
        orders = None
        if gate_loop.is_real_shutdown(policy, state, by):
            orders = observe.Orders(observe.logins(options.upsmon_conf, policy.upses), news.put)
        asker = observe.Asker(policy.upses, boottime, orders=orders)
        stack.callback(asker.close)
        gate_loop.Gate(
            policy,
            log=out,
            prober=looker,
            ask_upsd=asker,
            state_path=state,
            report_path=options.report,
            log_path=options.log,
            by=by,
            clock=replace(CLOCK, sleep=sleep),
            alive=pet,
            news=lambda: [news.get() for _unused in range(news.qsize())],
            shout=lambda words: _shout(words, run),
        ).run()


def _shout(words: str, run: Run) -> None:
    """Tell everybody who is logged in, beside what is done: a terminal may hang."""
    threading.Thread(target=run, args=(["wall", f"nut-shutdown: {words}"],), daemon=True).start()


def _fsd(out: Say, err: Say, run: Run) -> int:
    from ..shutdown import fsd  # noqa: PLC0415 - the gate does not need it, and must not fail with it

    try:
        fsd.request_fsd(run)
    except fsd.FsdError as error:
        err(f"nut-shutdown fsd failed: {error}. Nothing goes down")
        return FAILED
    out("told upsmon to set FSD: everything shuts down now")
    return OK


def _drill(policy: shutdown_policy.Policy | None, options: argparse.Namespace, out: Say, err: Say, run: Run) -> int:
    """Hold a drill. policy: None for the inner half, which is told it."""
    from ..rehearsal import inside, job, outside  # noqa: PLC0415 - the gate does not need it, and must not fail with it

    # what happens is for people, and what came of it is for whoever asked
    say = err if options.json else out
    try:
        if policy is None:
            held = inside.hold_drill(STDIN, say, out, as_json=options.json)
            return OK if held else FAILED
        return outside.hold_drill(policy, options.outage, job.Host(run, _program()), say, as_json=options.json)
    except job.Refused as error:
        err(f"nut-shutdown drill: {error}")
        return USAGE
    except job.RehearsalError as error:
        err(f"nut-shutdown drill failed: {error}")
        return FAILED


def _record(policy: shutdown_policy.Policy, options: argparse.Namespace, out: Say, err: Say, run: Run | None) -> int:
    """Have a real shutdown recorded, see whether all is fit for one, or show what was recorded."""
    from ..rehearsal import job, live  # noqa: PLC0415 - the gate does not need it, and must not fail with it

    wanted = live.Wanted(
        check=options.check,
        show=options.show,
        inside=options.inside,
        as_json=options.json,
        need=options.need,
        own=options.own,
        report=options.report,
    )
    # the recorder asks how guests stand; who starts it waits for systemd
    run = run or runner(PROGRAM_SECONDS if options.inside else STOP_SECONDS)
    names = Names(options.report.with_name(ADDRESSES))
    try:
        done = live.main(policy, wanted, job.Host(run, _program(), names), out)
    except job.RehearsalError as error:
        for line in str(error).splitlines():
            err(f"nut-shutdown record: {line}")
        return USAGE if isinstance(error, job.Refused) else FAILED
    return OK if done else FAILED


def _program() -> list[str]:
    """Return how this program is started."""
    return [sys.executable, "-IS", os.path.realpath(sys.argv[0])]


def _watch(options: argparse.Namespace, out: Say, run: Run) -> int:
    """Watch upsd for ever. It needs no policy: it is there without a gate, too."""
    from ..shutdown import watch, watch_loop  # noqa: PLC0415 - the gate does not need them, and must not fail with them

    path = options.state or WATCH_STATE
    writer = Writer(out)
    writer.start()

    def log(line: str) -> None:
        out(line)
        writer.append(options.log, f"{stamp(time.time())} watch: {line}")

    with watchdog(WATCH_HANG) as pet:
        watch_loop.Watcher(
            options.upsd_conf,
            watch.load(_text(path), boot_id()),
            log=log,
            save=lambda text: writer.replace(path, text),
            run=run,
            alive=pet,
        ).watch()
    return FAILED


def _stages(
    policy: shutdown_policy.Policy, known: Sequence[Stage], options: argparse.Namespace, out: Say, run: Run
) -> int:
    from ..shutdown import stages  # noqa: PLC0415 - the gate does not need it, and must not fail with it

    if not known:
        out(f"{options.policy} has no stages: there is nothing to watch for")
        return OK
    writer = Writer(out)
    writer.start()

    def log(line: str) -> None:
        out(line)
        writer.append(options.log, f"{stamp(time.time())} stages: {line}")

    try:
        with watchdog(WATCH_HANG) as pet:
            stages.run(
                known,
                [{"name": ups.name, "host": ups.host, "port": ups.port} for ups in policy.upses],
                state_path=options.state or STAGES_STATE,
                log=log,
                run=run,
                finder=_finder(known, options),
                alive=pet,
            )
    finally:
        writer.finish(2.0)
    # it ends only if another one is at work; when that is gone, this one is needed
    return FAILED


# What `status` says


class Status:
    """One look at all that the policy names."""

    def __init__(self, policy: shutdown_policy.Policy, options: argparse.Namespace, run: Run) -> None:
        from ..shutdown import watch  # noqa: PLC0415 - the gate does not need it, and must not fail with it

        self.policy, self.path = policy, options.policy
        names = Names(options.report.with_name(ADDRESSES))
        self.seen, self.power = observe.one_look(policy, run, names)
        self.state = _json(options.state or GATE_STATE)
        self.last = _json(options.report)
        self.events = watch.load(_text(options.report.with_name(WATCH_STATE.name)), "").events

    def data(self) -> dict[str, Any]:
        """Return it as data."""
        return {
            "policy": str(self.path),
            "settle": self.policy.settle,
            "reserve": self.policy.reserve,
            "least": self.policy.least,
            "longest": self.policy.longest,
            "hosts": [
                {
                    "name": host.name,
                    "up": self.seen.get(host.name),
                    "how": _how(host),
                    "shutdown_time": host.shutdown_time,
                    "shutdown_limit": host.shutdown_limit,
                }
                for host in self.policy.machines
            ],
            "upses": [self.ups(ups) for ups in self.policy.upses],
            "gate": self.state,
            "last": self.last,
            "upsd": [asdict(event) for event in self.events],
        }

    def ups(self, ups: shutdown_policy.Ups) -> dict[str, Any]:
        said = self.power[str(ups)]
        if isinstance(said, str):
            return {"name": str(ups), "on_battery": None, "runtime": None, "error": said}
        return {"name": str(ups), "on_battery": said.on_battery, "runtime": said.runtime, "error": None}

    def text(self) -> str:
        """Return it as text."""
        lines = [f"would wait at most {self.policy.longest:g} s for:"]
        words = {True: "up", False: "down", None: "can't tell"}
        for host in self.policy.machines:
            now = words[self.seen.get(host.name)]
            times = f"shutdown_time {host.shutdown_time:g} s, shutdown_limit {host.shutdown_limit:g} s"
            lines.append(f"  {host.name:<20} {now:<11} {times}, by {_how(host)}")
        lines += [] if self.policy.machines else ["  nobody"]
        lines.append(f"but no longer than until a UPS has {self.kept()} left:")
        for ups in self.policy.upses:
            said = self.power[str(ups)]
            lines.append(f"  {ups!s:<20} {said if isinstance(said, str) else _power(said)}")
        lines += [] if self.policy.upses else ["  none is known"]
        lines += ["", *self.last_text()]
        if self.events:
            lines += ["nut-watch, last events:", *(f"  {event}" for event in self.events[-5:])]
        return "\n".join(lines)

    def kept(self) -> str:
        reserve, least = self.policy.reserve, self.policy.least
        if least is None or least >= reserve:
            return f"{reserve:g} s"
        return f"{least:g} s, or {reserve:g} s where one takes longer than expected,"

    def last_text(self) -> list[str]:
        last = self.last
        if not last:
            return ["last: nothing"]
        try:
            began = stamp(float(last["began"]))
            how = f"it ended ({last['rule']}): {last['reason']}" if last["rule"] else "it has not ended"
            steps = [f"  +{float(at):.1f} s  {words}" for at, words in last["steps"]]
        except (KeyError, TypeError, ValueError, OverflowError, OSError):
            return ["last: its report can't be understood"]
        return [f"last: {last.get('mode')}, began {began}; {how}", *steps]


# What `guests` says


class Listing:
    """This host's guests, and what becomes of them in an outage."""

    def __init__(self, found: Found, root: Path, run: Run) -> None:
        from ..proxmox import control, guests  # noqa: PLC0415 - the gate does not need it, and must not fail with it

        self.found, self.down = found, guests.DOWN_SECONDS
        self.guests = [one for one in found.here.guests if not one.template]
        self.running = control.running(run) if self.guests else frozenset()
        try:
            self.ha = guests.ha(root)
        except guests.GuestsError as error:
            self.ha = guests.Ha(words=(str(error),))

    def data(self) -> dict[str, Any]:
        """Return it as data. stage: the first that stops the guest, None if none does; then Proxmox stops it, with the host."""
        return {
            "guests": [self._guest(one) for one in self.guests],
            "ha": list(self.ha.words),
            "idle": list(self.found.idle),
        }

    def _guest(self, guest: Any) -> dict[str, Any]:
        stages = {name: one for name, chosen in self.found.stages.items() for one in chosen if one.guest.id == guest.id}
        name, first = next(iter(stages.items()), (None, None))
        return {
            "id": guest.id,
            "kind": guest.kind,
            "name": guest.name,
            "running": None if self.running is None else guest.id in self.running,
            "ha": guest.id in self.ha.managed,
            "stage": name,
            "stages": list(stages),
            "seconds": first.seconds if first else self.down if guest.down is None else guest.down,
            "why": first.why if first else "",
        }

    def text(self) -> str:
        """Return it as text."""
        lines = []
        for guest in self.guests:
            one = self._guest(guest)
            words = {True: "runs", False: "stopped", None: "can't tell"}
            when = (
                f"stopped by stage {', '.join(one['stages'])}: {one['why']}"
                if one["stages"]
                else "stopped by Proxmox VE, with the host"
            )
            managed = "; HA works it" if one["ha"] else ""
            lines.append(f"{guest!s:<28} {words[one['running']]:<11} has {one['seconds']:g} s, {when}{managed}")
        lines = lines or ["this host has no guests of Proxmox VE"]
        notes = [*self.ha.words, *self.found.idle]
        return "\n".join([*lines, *(["", *notes] if notes else [])])


def _how(host: shutdown_policy.Machine) -> str:
    return f"{host.guest.kind} status {host.guest.id}" if host.guest else ", ".join(host.addresses)


def _power(said: gate.Reading) -> str:
    left = f", {said.runtime:.0f} s left" if said.runtime is not None else ", does not say how long it lasts"
    return gate.POWER[said.on_battery] + left


def _text(path: Path) -> str:
    try:
        return path.read_bytes()[: shutdown_policy.TEXT_LIMIT].decode("utf-8", "replace")
    except OSError:
        return ""


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = jsontext.parse(_text(path))
    except ValueError:
        return None
    return data if isinstance(data, dict) else None
