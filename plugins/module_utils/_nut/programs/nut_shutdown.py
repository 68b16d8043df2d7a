# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-shutdown: what it takes, and what it says. Printing is left to the program itself.

It loads little: what can't be loaded can't wait for anybody. So what the gate does not need is imported where it is used.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ..base import paths, systemd
from ..base.cli import FAILED, OK, USAGE, Parser, PrintText, ProgramExit, make_printing
from ..base.clock import CLOCK, format_time, read_boot_id, read_boottime
from ..base.process import make_runner, run_timeout
from ..base.systemd import Run
from ..shutdown import gate_loop, observe
from ..shutdown import policy as shutdown_policy
from ..shutdown.names import AddressCache
from ..shutdown.watchdog import arm_watchdog
from ..shutdown.writer import BackgroundWriter

if TYPE_CHECKING:
    from ..proxmox.selection import GuestFinder
    from ..shutdown.policy import Stage

STDIN = 0

HANG = 20
"""Seconds without the end of a round of the gate (it takes two) after which the program ends itself, to be started again."""

WATCH_HANG = 60
"""The same for the stages; a round of theirs takes 2 s for each UPS, and 15 s where upsmon is told and hangs."""

WATCH_PROGRAM_SECONDS = 20
"""What systemctl has for restarting upsd, which stops within 5 s (its drop-in)."""

STOP_SECONDS = 30
"""What systemctl has for ending a drill that does not end by itself."""

PROGRAM_SECONDS = 5
"""What qm and pct have for saying how a guest stands: longer than they take, shorter than their answer is good for."""

DESCRIPTION = "Wait until the other machines are down, before this one powers off."
EPILOG = """\
exit codes:
  0  done: all are down, or there is a reason to wait no longer; of stages: there are none
  1  something went wrong; of a drill also: the order did not hold
  2  the command line or the policy is wrong, or it is no time for a drill, or a real shutdown

The program itself powers nothing off: `nut-shutdown gate`, run by hand, only waits. `nut-shutdown stages` stops guests, and
tells upsmon to begin the shutdown, if a stage says so; so does `nut-shutdown fsd`, at once.
files: /etc/nut/shutdown.json (policy), /var/log/nut/shutdown.log, and in /var/lib/nut-shutdown last.json (what was seen last),
       guests.json and addresses.json (the guests of the stages, and the addresses of names, as they were found last)
"""
RECORD_EPILOG = """\
examples:
  nut-shutdown record          note it all, from now on; without an FSD within two minutes it ends
  nut-shutdown record --check  is all fit for a real shutdown now?
  nut-shutdown record --show   what was noted the last time: planned beside seen, and how long each machine took
"""

_FILE = {"type": Path, "metavar": "FILE"}
_SECONDS = {"type": float, "metavar": "SECONDS"}
_HIDDEN = argparse.SUPPRESS
OPTIONS: dict[str, dict[str, Any]] = {
    "--json": {"action": "store_true", "help": "say it as JSON"},
    "--policy": {**_FILE, "default": Path("/", paths.SHUTDOWN_POLICY), "help": "default: %(default)s"},
    "--state": {**_FILE, "help": "where it stands, should it be started again; default: %(default)s"},
    "--report": {**_FILE, "default": Path("/", paths.GATE_REPORT), "help": "what the gate saw; default: %(default)s"},
    "--log": {**_FILE, "default": Path("/", paths.SHUTDOWN_LOG), "help": "default: %(default)s"},
    "--outage": {
        **_SECONDS,
        "default": 10.0,
        "help": "how long the simulated UPS is on battery before that is low; default: %(default)g",
    },
    "--check": {"action": "store_true", "help": "only see whether all is fit for it"},
    "--show": {"action": "store_true", "help": "only show what was noted the last time"},
    "--need": {**_SECONDS, "help": "how long the battery must last, as the plan says"},
    "--own": {**_SECONDS, "help": "with --show: nut_server_shutdown_time, to say what it should be"},
    # how a drill starts its other half, between walls; and a record its unit
    "--inside": {"action": "store_true", "help": _HIDDEN},
    "--upsmon-conf": {**_FILE, "default": Path("/", paths.NUT, "upsmon.conf"), "help": _HIDDEN},
    "--upsd-conf": {**_FILE, "default": Path("/", paths.NUT, "upsd.conf"), "help": _HIDDEN},
    # where /etc/pve and /proc are looked for
    "--root": {"type": Path, "default": Path("/"), "help": _HIDDEN},
}


@dataclass(frozen=True)
class Call:
    """A call of the program: what is asked of it, and by what means it does that."""

    options: argparse.Namespace
    out: PrintText
    err: PrintText
    environment: Mapping[str, str]
    run: Run | None  # runs programs, in the place of all others
    sleep: Callable[[float], None]

    def read_policy(self) -> shutdown_policy.ShutdownPolicy:
        """Read the policy. Raises PolicyError."""
        return shutdown_policy.load_policy(self.options.policy)

    def read_stages(self, policy: shutdown_policy.ShutdownPolicy) -> tuple[Stage, ...]:
        """Read the stages of a policy. Raises PolicyError."""
        try:
            return shutdown_policy.read_stages(policy.stages)
        except shutdown_policy.ShutdownPolicyError as error:
            raise error.with_path(self.options.policy) from None

    def make_names(self, *, keep: bool) -> AddressCache:
        """Return what finds the addresses of names. keep: whether it remembers them."""
        return AddressCache(self.options.report.with_name(Path(paths.ADDRESSES).name), keep=keep)

    def make_finder(self, stages: Sequence[Stage], *, keep: bool) -> GuestFinder:
        """Return what finds the guests of the stages. keep: whether the addresses that it finds are remembered."""
        from ..proxmox import selection

        return selection.GuestFinder(
            {stage.name: stage.select for stage in stages},
            self.options.report.with_name(Path(paths.GUESTS).name),
            # each time anew: what another run of ours has learned meanwhile must not be lost
            lambda: self.make_names(keep=keep),
            self.options.root,
        )

    def print_result(self, what: Any) -> None:
        """Show what has data() and text()."""
        self.out(json.dumps(what.to_data(), indent=2) if self.options.json else what.to_text())


Do = Callable[[Call], int]


def _build_parser(out: PrintText, err: PrintText) -> Parser:
    parser = Parser(prog="nut-shutdown", description=DESCRIPTION, epilog=EPILOG, out=out, err=err)

    def add_command(name: str, do: Do, summary: str, options: str, *, state: str = "", epilog: str = "") -> None:
        command = parser.add_command(name, summary, epilog)
        for option in options.split():
            command.add_argument(option, **OPTIONS[option])
        command.set_defaults(do=do, **({"state": Path("/", state)} if state else {}))

    found = "--policy --report --root"
    words = "show who would be waited for, whether each is up now, and how the last shutdown went"
    add_command("status", _show_status, words, "--json --policy --state --report", state=paths.GATE_STATE)
    words = "show this host's guests: whether each runs, which stage stops it and why, what HA works"
    add_command("guests", _show_guests, words, f"--json {found}")
    add_command(
        "check", _check_policy, "check the policy, and whether all that it names can be found; changes nothing", found
    )
    add_command(
        "refresh",
        _refresh_memory,
        "check, and remember the guests of stages and the addresses of names as they are now",
        found,
    )
    words = "rehearse a shutdown on a simulated UPS, with NUT's own programs; nothing is shut down"
    add_command("drill", _hold_drill, words, "--json --outage --policy --inside")
    words = "before a real shutdown that you begin yourself: note when each machine goes, until this host does"
    options = "--check --show --json --need --own --policy --report --inside"
    add_command("record", _record_shutdown, words, options, epilog=RECORD_EPILOG)
    add_command(
        "fsd",
        _begin_fsd,
        "begin the real shutdown of everything now, as upsmon does when the battery is low",
        "--policy",
    )
    words = "wait until the others are down; nut-shutdown.service runs this, and powers off when it has ended"
    add_command("gate", _run_gate, words, f"{found} --state --log --upsmon-conf", state=paths.GATE_STATE)
    words = "watch the UPSes, and do what the stages say; nut-stages.service runs this all the time"
    add_command("stages", _run_stages, words, f"{found} --state --log", state=paths.STAGES_STATE)
    words = "watch upsd: close connections that block it, restart it if it hangs; nut-watch.service runs this"
    add_command("watch", _watch_upsd, words, "--state --log --upsd-conf", state=paths.WATCH_STATE)
    return parser


def main(
    arguments: Sequence[str],
    out: PrintText,
    err: PrintText,
    *,
    environment: Mapping[str, str] | None = None,
    run: Run | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Do what the command line says, and return the exit code. out, err: take lines. run: runs all programs."""
    out, err = make_printing(out), make_printing(err)
    try:
        options = _build_parser(out, err).parse_args(list(arguments))
        call = Call(options, out, err, os.environ if environment is None else environment, run, sleep)
        return int(options.do(call))
    except ProgramExit as left:
        return left.code
    except shutdown_policy.ShutdownPolicyError as error:
        err(str(error))
        return USAGE
    except Exception as error:
        err(f"nut-shutdown {options.command} failed: {type(error).__name__}: {error}")
        for line in traceback.format_exc().splitlines():
            err(line)
        # systemd starts it again at once, and what failed may need a moment
        sleep(1.0)
        return FAILED


# What only looks


def _show_status(call: Call) -> int:
    from ..shutdown import status

    policy = call.read_policy()
    run = call.run or make_runner(PROGRAM_SECONDS)
    report = call.options.report
    call.print_result(
        status.observe_status(
            policy,
            run,
            call.make_names(keep=False),
            policy_path=call.options.policy,
            state_path=call.options.state,
            report_path=report,
            watch_path=report.with_name(Path(paths.WATCH_STATE).name),
        )
    )
    return OK


def _show_guests(call: Call) -> int:
    from ..proxmox.guests import GuestsError
    from ..shutdown import guest_list, refresh

    finder = call.make_finder(call.read_stages(call.read_policy()), keep=False)
    try:
        found = refresh.find_guests(finder)
    except GuestsError as error:
        call.err(str(error))
        return FAILED
    call.print_result(guest_list.GuestListing(found, call.options.root, call.run or run_timeout))
    return OK


def _check_policy(call: Call, *, keep: bool = False) -> int:
    from ..shutdown import refresh

    policy = call.read_policy()
    stages = call.read_stages(policy)
    outcome = refresh.refresh_known(
        policy, stages, call.make_names(keep=keep), call.make_finder(stages, keep=keep), keep=keep
    )
    call.out(f"{call.options.policy} is right: {len(policy.machines)} to wait for, {policy.longest:g} s at most")
    for line in outcome.found:
        call.out(line)
    for line in outcome.missing:
        call.err(line)
    return OK if outcome.is_right else FAILED


def _refresh_memory(call: Call) -> int:
    return _check_policy(call, keep=True)


# Rehearsals, and the real thing


def _hold_drill(call: Call) -> int:
    """Hold a drill."""
    from ..rehearsal import inside, job, outside

    options = call.options
    # what happens is for people, and what came of it is for whoever asked
    say = call.err if options.json else call.out
    try:
        if options.inside:  # the inner half, which is told the policy
            held = inside.hold_drill(STDIN, say, call.out, as_json=options.json)
            return OK if held else FAILED
        host = job.RehearsalHost(call.run or make_runner(STOP_SECONDS), _own_program())
        return outside.hold_drill(call.read_policy(), options.outage, host, say, as_json=options.json)
    except job.RehearsalRefused as error:
        call.err(f"nut-shutdown drill: {error}")
        return USAGE
    except job.RehearsalError as error:
        call.err(f"nut-shutdown drill failed: {error}")
        return FAILED


def _record_shutdown(call: Call) -> int:
    """Have a real shutdown recorded, see whether all is fit for one, or show what was recorded."""
    from ..rehearsal import job, live

    options = call.options
    wanted = live.RecordOptions(
        check=options.check,
        show=options.show,
        inside=options.inside,
        as_json=options.json,
        need=options.need,
        own=options.own,
        report=options.report,
    )
    # the recorder asks how guests stand; who starts it waits for systemd
    run = call.run or make_runner(PROGRAM_SECONDS if options.inside else STOP_SECONDS)
    host = job.RehearsalHost(run, _own_program(), call.make_names(keep=True))
    try:
        done = live.main(call.read_policy(), wanted, host, call.out)
    except job.RehearsalError as error:
        for line in str(error).splitlines():
            call.err(f"nut-shutdown record: {line}")
        return USAGE if isinstance(error, job.RehearsalRefused) else FAILED
    return OK if done else FAILED


def _own_program() -> list[str]:
    return [sys.executable, "-IS", os.path.realpath(sys.argv[0])]


def _begin_fsd(call: Call) -> int:
    from ..shutdown import fsd

    call.read_policy()  # without it nobody would be waited for
    try:
        fsd.request_fsd(call.run or run_timeout)
    except fsd.FsdError as error:
        call.err(f"nut-shutdown fsd failed: {error}. Nothing goes down")
        return FAILED
    call.out("told upsmon to set FSD: everything shuts down now")
    return OK


# What systemd runs


@contextlib.contextmanager
def _open_log(call: Call) -> Iterator[tuple[BackgroundWriter, PrintText]]:
    """Yield what writes to disks, and what tells a line, also to the log."""
    options = call.options
    writer = BackgroundWriter(call.out)
    writer.start()

    def log_line(line: str) -> None:
        call.out(line)
        writer.queue_line(options.log, f"{format_time(time.time())} {options.command}: {line}")

    try:
        yield writer, log_line
    finally:
        writer.finish_writing(2.0)


def _run_gate(call: Call) -> int:
    policy, options, run = call.read_policy(), call.options, call.run or make_runner(PROGRAM_SECONDS)
    # what is done in a real shutdown alone, FSD and the flag, is done for systemd alone
    is_unit = systemd.is_main_process(systemd.GATE, call.environment, options.root)
    by = gate_loop.SYSTEMD if is_unit else "hand"
    with arm_watchdog(HANG) as reset_timer, contextlib.ExitStack() as stack:
        looker = observe.MachineObserver(policy.machines, run, read_boottime, resolve=call.make_names(keep=True))
        stack.callback(looker.stop_polling)
        news: queue.SimpleQueue[str] = queue.SimpleQueue()
        remind_fsd = None
        if gate_loop.is_real_shutdown(policy, options.state, by):
            remind_fsd = observe.FsdReminder(observe.read_primary_logins(options.upsmon_conf, policy.upses), news.put)
        asker = observe.UpsObserver(policy.upses, read_boottime, remind_fsd=remind_fsd)
        stack.callback(asker.stop_polling)
        gate_loop.Gate(
            policy,
            log=call.out,
            prober=looker,
            ask_upsd=asker,
            state_path=options.state,
            report_path=options.report,
            log_path=options.log,
            by=by,
            clock=replace(CLOCK, sleep=call.sleep),
            alive=reset_timer,
            news=lambda: [news.get() for _unused in range(news.qsize())],
            shout=lambda words: _notify_terminals(words, run),
        ).run()
    return OK


def _notify_terminals(words: str, run: Run) -> None:
    """Tell everybody who is logged in, beside what is done: a terminal may hang."""
    threading.Thread(target=run, args=(["wall", f"nut-shutdown: {words}"],), daemon=True).start()


def _run_stages(call: Call) -> int:
    policy = call.read_policy()
    known = call.read_stages(policy)
    if not known:
        call.out(f"{call.options.policy} has no stages: there is nothing to watch for")
        return OK
    with _open_log(call) as (_writer, log), arm_watchdog(WATCH_HANG) as reset_timer:
        from ..shutdown import stages_loop

        stages_loop.run_stages(
            known,
            policy.upses,
            state_path=call.options.state,
            log=log,
            run=call.run or run_timeout,
            finder=call.make_finder(known, keep=True),
            alive=reset_timer,
        )
    # it ends only if another one is at work; when that is gone, this one is needed
    return FAILED


def _watch_upsd(call: Call) -> int:
    """Watch upsd for ever. It needs no policy: it is there without a gate, too."""
    from ..shutdown import watch, watch_loop

    path = call.options.state
    with _open_log(call) as (writer, log), arm_watchdog(WATCH_HANG) as reset_timer:
        watch_loop.UpsdWatcher(
            call.options.upsd_conf,
            watch.recall_memory(path, read_boot_id()),
            log=log,
            save=lambda text: writer.queue_text(path, text),
            run=call.run or make_runner(WATCH_PROGRAM_SECONDS),
            alive=reset_timer,
        ).watch_forever()
    return FAILED
