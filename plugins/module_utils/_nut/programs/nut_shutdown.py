# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-shutdown: options, output, exit codes. The caller prints.

A module that fails to import must not keep the gate from waiting, so modules that the gate does not need are imported
where they are used.

One file, because each command is a few lines, and the help lists them all.
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
from ..base.clock import CLOCK, format_time, name_system_start, read_boottime
from ..base.process import make_runner, run_timeout
from ..base.systemd import Run
from ..events.report import Reporter
from ..shutdown import gate_loop, observe
from ..shutdown import policy as shutdown_policy
from ..shutdown.names import AddressCache
from ..shutdown.watchdog import arm_watchdog
from ..shutdown.writer import BackgroundWriter

if TYPE_CHECKING:
    from ..proxmox.cluster import HaSwitch
    from ..proxmox.selection import GuestFinder
    from ..shutdown.policy import Stage
    from ..shutdown.returns import ReturnResult
    from ..shutdown.stages_loop import FindStarts, MakeKeeper

STDIN = 0

GATE_HANG_SECONDS = 20
"""A gate that completes no round for so long exits, and systemd restarts it. A round takes about 2 s."""

WATCH_HANG_SECONDS = 60
"""The same for the stages and the watch. A round of the stages takes 2 s per UPS, plus 15 s if systemctl hangs."""

RESTART_SECONDS = 20
"""Time limit for systemctl when it restarts upsd, whose drop-in lets it stop within 5 s."""

STOP_SECONDS = 30
"""Time limit for systemctl when it stops a drill."""

STATUS_SECONDS = 5
"""Time limit for `qm status` and `pct status`: longer than they take, shorter than their answer stays valid."""

GUEST_START_SECONDS = 25
"""How long the gate waits, after its end, until Proxmox VE's start of guests is interrupted (startup.INTERRUPT_SECONDS, and systemctl)."""

DESCRIPTION = (
    "Power off this host only after the other machines on its UPS are down (the gate); inspect and rehearse that."
)
EPILOG = """\
exit codes:
  0  done (gate: the wait is over, for any reason; stages: the policy has none)
  1  something failed (drill: or machines went down in the wrong order)
  2  the command line or the policy is wrong, or a drill or a real shutdown must not start now

nut-shutdown itself never powers off this host; nut-shutdown.service does, after the gate. `nut-shutdown gate`, run by
hand, only waits. `nut-shutdown stages` shuts down guests, and starts the shutdown of everything if a stage says so;
`nut-shutdown fsd` starts it at once.

files:
  /etc/nut/shutdown.json                policy, written by Ansible
  /var/log/nut/shutdown.log             log of the gate, the stages and the watch
  /var/lib/nut-shutdown/last.json       report of the last gate
  /var/lib/nut-shutdown/guests.json     guests of the stages, as last found
  /var/lib/nut-shutdown/addresses.json  addresses of the machines, as last resolved
"""
RECORD_EPILOG = """\
examples:
  nut-shutdown record          start recording; stops if no shutdown begins within two minutes
  nut-shutdown record --check  check that this host is ready for a real shutdown
  nut-shutdown record --show   show the last recording: planned and measured times, and how long each machine took
"""

_FILE = {"type": Path, "metavar": "FILE"}
_SECONDS = {"type": float, "metavar": "SECONDS"}
_HIDDEN = argparse.SUPPRESS
OPTIONS: dict[str, dict[str, Any]] = {
    "--json": {"action": "store_true", "help": "print JSON"},
    "--policy": {**_FILE, "default": Path("/", paths.SHUTDOWN_POLICY), "help": "policy; default: %(default)s"},
    "--state": {**_FILE, "help": "saved state, to resume after a restart; default: %(default)s"},
    "--report": {
        **_FILE,
        "default": Path("/", paths.GATE_REPORT),
        "help": "report of the gate; guests.json and addresses.json are in its directory; default: %(default)s",
    },
    "--log": {**_FILE, "default": Path("/", paths.SHUTDOWN_LOG), "help": "log file; default: %(default)s"},
    "--outage": {
        **_SECONDS,
        "default": 10.0,
        "help": "time on battery before the simulated battery is low; default: %(default)g",
    },
    "--check": {"action": "store_true", "help": "only check whether this host is ready for a real shutdown"},
    "--show": {"action": "store_true", "help": "only show the last recording"},
    "--need": {**_SECONDS, "help": "how long the battery must last, according to the plan"},
    "--own": {**_SECONDS, "help": "with --show: the current nut_server_shutdown_time, to suggest a better one"},
    # a drill starts its sandboxed half with it, and a recording its unit
    "--inside": {"action": "store_true", "help": _HIDDEN},
    "--upsmon-conf": {**_FILE, "default": Path("/", paths.NUT, "upsmon.conf"), "help": _HIDDEN},
    "--upsd-conf": {**_FILE, "default": Path("/", paths.NUT, "upsd.conf"), "help": _HIDDEN},
    # root of the file system with /etc/pve and /proc
    "--root": {"type": Path, "default": Path("/"), "help": _HIDDEN},
}


@dataclass(frozen=True)
class Call:
    """A call of the program: its command line, and how it reaches the world."""

    options: argparse.Namespace
    out: PrintText
    err: PrintText
    environment: Mapping[str, str]
    run: Run | None  # runs all programs, for tests; None: each command makes its own runner
    sleep: Callable[[float], None]

    def read_policy(self) -> shutdown_policy.ShutdownPolicy:
        """Return the policy. Raise ShutdownPolicyError."""
        return shutdown_policy.load_policy(self.options.policy)

    def read_stages(self, policy: shutdown_policy.ShutdownPolicy) -> tuple[Stage, ...]:
        """Return the stages of a policy. Raise ShutdownPolicyError."""
        try:
            return shutdown_policy.read_stages(policy.stages)
        except shutdown_policy.ShutdownPolicyError as error:
            raise error.with_path(self.options.policy) from None

    def make_names(self, *, keep: bool) -> AddressCache:
        """Return a resolver of machine names. keep: whether it saves new addresses."""
        return AddressCache(self.options.report.with_name(Path(paths.ADDRESSES).name), keep=keep)

    def make_finder(self, stages: Sequence[Stage], *, keep: bool) -> GuestFinder:
        """Return a finder of the stages' guests. keep: whether it saves new addresses."""
        from ..proxmox import selection

        return selection.GuestFinder(
            {stage.name: stage.select for stage in stages},
            self.options.report.with_name(Path(paths.GUESTS).name),
            # read the file again each time, or addresses that another run has saved since would be lost
            lambda: self.make_names(keep=keep),
            self.options.root,
        )

    def print_result(self, what: Any) -> None:
        """Print an object that has to_data() and to_text()."""
        self.out(json.dumps(what.to_data(), indent=2) if self.options.json else what.to_text())


RunCommand = Callable[[Call], int]


def _build_parser(out: PrintText, err: PrintText) -> Parser:
    parser = Parser(prog="nut-shutdown", description=DESCRIPTION, epilog=EPILOG, out=out, err=err)

    def add_command(
        name: str, do: RunCommand, summary: str, options: str, *, state: str = "", epilog: str = ""
    ) -> None:
        command = parser.add_command(name, summary, epilog)
        for option in options.split():
            command.add_argument(option, **OPTIONS[option])
        command.set_defaults(do=do, **({"state": Path("/", state)} if state else {}))

    common = "--policy --report --root"
    add_command(
        "status",
        _show_status,
        "show the machines that the gate would wait for, whether they are up, and the last shutdown",
        "--json --policy --state --report --root",
        state=paths.GATE_STATE,
    )
    add_command(
        "guests",
        _show_guests,
        "list this host's guests: whether each runs, which stage stops it and why",
        f"--json {common}",
    )
    add_command(
        "check",
        _check_policy,
        "check the policy, and that everything it names can be found; change nothing",
        common,
    )
    add_command(
        "refresh",
        _refresh_memory,
        "check the policy, and save the current guests of the stages and addresses of the machines",
        common,
    )
    add_command(
        "drill",
        _run_drill,
        "rehearse a shutdown with NUT's own programs and a simulated UPS; nothing is shut down",
        "--json --outage --policy --inside",
    )
    add_command(
        "record",
        _record_shutdown,
        "record when each machine goes down in a real shutdown, which you start yourself afterwards",
        "--check --show --json --need --own --policy --report --inside",
        epilog=RECORD_EPILOG,
    )
    add_command(
        "fsd",
        _request_fsd,
        "shut down everything now, as upsmon does when the battery is low",
        "--policy",
    )
    add_command(
        "gate",
        _run_gate,
        "wait until the other machines are down; nut-shutdown.service runs this and then powers off",
        f"{common} --state --log --upsmon-conf",
        state=paths.GATE_STATE,
    )
    add_command(
        "stages",
        _run_stages,
        "watch the UPSes and shut down guests in stages; nut-stages.service runs this",
        f"{common} --state --log",
        state=paths.STAGES_STATE,
    )
    add_command(
        "hold",
        _hold_guests,
        "wait until the battery is charged enough to start guests; runs at boot, before the first guest is started",
        "--policy --log",
    )
    add_command(
        "watch",
        _watch_upsd,
        "unblock or restart upsd when it hangs; nut-watch.service runs this",
        "--state --log --upsd-conf",
        state=paths.WATCH_STATE,
    )
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
    """Run the command and return the exit code. out, err: print text. run: replaces all runners, for tests."""
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
        # systemd restarts the program at once: give the cause a moment to go away
        sleep(1.0)
        return FAILED


# Commands that change nothing


def _show_status(call: Call) -> int:
    from ..shutdown import status

    policy = call.read_policy()
    run = call.run or make_runner(STATUS_SECONDS)
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
            root=call.options.root,
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
    result = refresh.refresh_known(
        policy, stages, call.make_names(keep=keep), call.make_finder(stages, keep=keep), keep=keep
    )
    call.out(
        f"{call.options.policy} is valid; machines to wait for: {len(policy.machines)}, at most {policy.timeout:g} s"
    )
    for line in result.found:
        call.out(line)
    for line in result.missing:
        call.err(line)
    return OK if result.is_valid else FAILED


def _refresh_memory(call: Call) -> int:
    return _check_policy(call, keep=True)


# Rehearsals and real shutdowns


def _run_drill(call: Call) -> int:
    """Rehearse a shutdown."""
    from ..rehearsal import inside, job, outside

    options = call.options
    # with --json standard output is for the result alone
    say = call.err if options.json else call.out
    try:
        if options.inside:  # the sandboxed half, which reads the policy from its standard input
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
    """Record a real shutdown, check that this host is ready for one, or show the last recording."""
    from ..rehearsal import job, live

    options = call.options
    record_options = live.RecordOptions(
        check=options.check,
        show=options.show,
        inside=options.inside,
        as_json=options.json,
        need=options.need,
        own=options.own,
        report=options.report,
    )
    # the recorder runs qm and pct; the program that starts the recorder runs systemctl
    run = call.run or make_runner(STATUS_SECONDS if options.inside else STOP_SECONDS)
    host = job.RehearsalHost(run, _own_program(), call.make_names(keep=True))
    try:
        succeeded = live.main(call.read_policy(), record_options, host, call.out)
    except job.RehearsalError as error:
        for line in str(error).splitlines():
            call.err(f"nut-shutdown record: {line}")
        return USAGE if isinstance(error, job.RehearsalRefused) else FAILED
    return OK if succeeded else FAILED


def _own_program() -> list[str]:
    return [sys.executable, "-IS", os.path.realpath(sys.argv[0])]


def _request_fsd(call: Call) -> int:
    from ..shutdown import fsd

    call.read_policy()  # refuse now if the gate could not read it later, and would wait for no machine
    try:
        fsd.request_fsd(call.run or run_timeout)
    except fsd.FsdError as error:
        call.err(f"nut-shutdown fsd failed: {error}. Nothing is being shut down")
        return FAILED
    call.out("told upsmon to set FSD: everything is shutting down")
    return OK


# Commands that systemd runs


@contextlib.contextmanager
def _open_log(call: Call) -> Iterator[tuple[BackgroundWriter, PrintText]]:
    """Yield the background writer, and a function that prints a line and appends it to the log."""
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
    policy, options, run = call.read_policy(), call.options, call.run or make_runner(STATUS_SECONDS)
    # only the unit's own gate sets FSD again and writes POWERDOWNFLAG; a gate run by hand never does
    is_unit = systemd.is_main_process(systemd.GATE, call.environment, options.root)
    by = gate_loop.SYSTEMD if is_unit else "hand"
    with arm_watchdog(GATE_HANG_SECONDS) as reset_timer, contextlib.ExitStack() as stack:
        machines = observe.MachineObserver(
            policy.machines, run, read_boottime, resolve=call.make_names(keep=True), root=options.root
        )
        stack.callback(machines.stop_polling)
        news: queue.SimpleQueue[str] = queue.SimpleQueue()
        remind_fsd = None
        if is_unit:  # it powers off afterwards, whatever started it
            stack.callback(_print_rest, news, call.out)
            stack.callback(_wait_for_thread, _prepare_proxmox(call, policy, run, news.put), reset_timer)
        if gate_loop.is_real_shutdown(policy, options.state, by):
            remind_fsd = observe.FsdReminder(observe.read_primary_logins(options.upsmon_conf, policy.upses), news.put)
        upses = observe.UpsObserver(policy.upses, read_boottime, remind_fsd=remind_fsd)
        stack.callback(upses.stop_polling)
        gate = gate_loop.Gate(
            policy,
            log=call.out,
            prober=machines,
            ask_upsd=upses,
            state_path=options.state,
            report_path=options.report,
            log_path=options.log,
            by=by,
            clock=replace(CLOCK, sleep=call.sleep),
            alive=reset_timer,
            news=lambda: [news.get() for _unused in range(news.qsize())],
            shout=lambda message: _notify_terminals(message, run),
        )
        if is_unit:
            gate.report_event = Reporter("gate", gate.writer.queue_work, root=options.root)
        gate.run()
    return OK


def _prepare_proxmox(call: Call, policy: shutdown_policy.ShutdownPolicy, run: Run, log: PrintText) -> threading.Thread:
    """Start a thread that disarms HA if the policy says so, and sees to guests that Proxmox VE is still starting."""

    def prepare_proxmox() -> None:
        try:
            from ..proxmox import startup
            from ..proxmox.cluster import DISARM

            if policy.cluster == DISARM:
                # nut-stages has done that already, unless it does not run
                _make_ha_switch(call, run, log).disarm()
            startup.prepare_poweroff(run, log)
        except Exception as error:
            # the gate goes on, whatever happens here: the host must power off
            log(f"can't prepare Proxmox VE: {type(error).__name__}: {error}")

    thread = threading.Thread(target=prepare_proxmox, daemon=True)
    thread.start()
    return thread


def _make_ha_switch(call: Call, run: Run, log: PrintText) -> HaSwitch:
    from ..proxmox.cluster import HaSwitch

    return HaSwitch(run, call.options.report.with_name(Path(paths.HA_MARKER).name), log, call.options.root)


def _wait_for_thread(thread: threading.Thread, alive: Callable[[], None]) -> None:
    """Wait until a thread has ended, for GUEST_START_SECONDS at most."""
    deadline = time.monotonic() + GUEST_START_SECONDS
    while thread.is_alive() and time.monotonic() < deadline:
        alive()
        thread.join(1.0)


def _print_rest(lines: queue.SimpleQueue[str], out: PrintText) -> None:
    for _line in range(lines.qsize()):
        out(lines.get())


def _notify_terminals(message: str, run: Run) -> None:
    """Write to all terminals, in a thread because a terminal may hang."""
    threading.Thread(target=run, args=(["wall", f"nut-shutdown: {message}"],), daemon=True).start()


def _run_stages(call: Call) -> int:
    policy = call.read_policy()
    stages = call.read_stages(policy)
    with _open_log(call) as (writer, log), arm_watchdog(WATCH_HANG_SECONDS) as reset_timer:
        from ..proxmox.cluster import DISARM
        from ..shutdown import stages_loop

        run = call.run or run_timeout
        stages_loop.run_stages(
            (*stages, policy.low_stage),
            policy.upses,
            minsupplies=policy.minsupplies,
            state_path=call.options.state,
            log=log,
            run=run,
            finder=call.make_finder(stages, keep=True) if stages else None,
            alive=reset_timer,
            root=call.options.root,
            ha=_make_ha_switch(call, run, log),
            disarms_ha=policy.cluster == DISARM,
            find_starts=_make_find_starts(call, policy),
            report_event=Reporter("stages", writer.queue_work, root=call.options.root),
            make_keeper=_make_return_keeper(call, policy, run),
            after=policy.after,
        )
    # run_stages() returns only if another instance is running: fail, so that systemd tries again
    return FAILED


def _make_find_starts(call: Call, policy: shutdown_policy.ShutdownPolicy) -> FindStarts | None:
    """Return what makes the finder of the guests to be started after a boot; None if this is no Proxmox VE."""
    from ..proxmox.guests import is_node
    from ..proxmox.selection import GuestFinder
    from ..shutdown.boot_starts import select_starts

    if not is_node(call.options.root):
        return None
    addresses = [address for machine in policy.machines for address in (*machine.addresses, machine.name)]

    def make_finder(owed: Sequence[int]) -> GuestFinder:
        return GuestFinder(
            select_starts(addresses, owed),
            call.options.report.with_name(Path(paths.BOOT_STARTS).name),
            lambda: call.make_names(keep=False),
            call.options.root,
        )

    return make_finder


def _hold_guests(call: Call) -> int:
    from ..shutdown.recharge import wait_for_charge
    from ..shutdown.stages_loop import ask_upsd

    policy = call.read_policy()
    with _open_log(call) as (_writer, log):
        wait_for_charge(
            policy.after, policy.upses, policy.feeds, ask=ask_upsd, log=log, clock=read_boottime, pause=call.sleep
        )
    return OK


def _make_return_keeper(call: Call, policy: shutdown_policy.ShutdownPolicy, run: Run) -> MakeKeeper:
    """Return what makes the keeper that awaits the machines after an outage."""
    from ..base.clock import read_system_start
    from ..shutdown.return_keeper import ReturnKeeper
    from ..shutdown.stages_loop import start_thread

    def make_keeper(boot: str, log: PrintText, tell: Callable[[ReturnResult], None]) -> ReturnKeeper:
        return ReturnKeeper(
            policy.after,
            (*policy.machines, *policy.unawaited),
            policy.upses,
            call.options.report.with_name(Path(paths.RETURN_STATE).name),
            boot,
            read_system_start(call.options.root),
            run,
            log,
            tell,
            start_thread,
            call.make_names(keep=False),
        )

    return make_keeper


def _watch_upsd(call: Call) -> int:
    """Watch upsd for ever. It needs no policy, because it also runs on primaries without a gate."""
    from ..shutdown import watch, watch_loop

    path = call.options.state
    with _open_log(call) as (writer, log), arm_watchdog(WATCH_HANG_SECONDS) as reset_timer:
        watch_loop.UpsdWatcher(
            call.options.upsd_conf,
            watch.recall_memory(path, name_system_start()),
            log=log,
            save=lambda text: writer.queue_text(path, text),
            run=call.run or make_runner(RESTART_SECONDS),
            alive=reset_timer,
        ).watch_forever()
    return FAILED
