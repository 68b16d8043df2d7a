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
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

from . import gate
from .command_line import FAILED, OK, USAGE, Left, Parser, Say
from .moments import boottime, stamp
from .units import Run

STDIN = 0

POLICY = Path("/etc/nut/shutdown.json")
GATE_STATE = Path("/run/nut-shutdown/gate.json")
STAGES_STATE = Path("/var/lib/nut-shutdown/stages.json")
REPORT = Path("/var/lib/nut-shutdown/last.json")
ADDRESSES = "addresses.json"
"""Beside the report."""
LOG = Path("/var/log/nut/shutdown.log")

HANG = 20
"""Seconds without the end of a round of the gate (it takes two) after which the program ends itself, to be started again."""

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
  nut-shutdown check           is the policy right?
  nut-shutdown drill           rehearse it on a simulated UPS, with NUT's own programs; nothing is shut down
  nut-shutdown gate            wait; nut-shutdown.service runs this, and powers off when it has ended
  nut-shutdown stages          what is to be done while on battery, before the shutdown; nut-stages.service runs this

exit codes:
  0  done: all are down, or there is a reason to wait no longer
  1  something went wrong; of a drill also: the order did not hold
  2  the command line or the policy is wrong, or it is no time for a drill

The program itself powers nothing off: `nut-shutdown gate`, run by hand, only waits.
files: /etc/nut/shutdown.json (policy), /var/log/nut/shutdown.log, /var/lib/nut-shutdown/last.json (what was seen last)
"""


def _parser(out: Say, err: Say) -> Parser:
    parser = Parser("nut-shutdown", DESCRIPTION, EPILOG, out, err)
    parser.add_argument("command", choices=("gate", "stages", "status", "check", "drill"), help="see the examples")
    parser.add_argument("--json", action="store_true", help="status, drill: say it as JSON")
    parser.add_argument(
        "--outage",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="drill: how long the simulated UPS is on battery before that is low; default: %(default)g",
    )
    # how a drill starts its other half, between walls
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--policy", type=Path, default=POLICY, metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help=f"where it stands, should it be started again; default: {GATE_STATE}, of stages {STAGES_STATE}",
    )
    parser.add_argument(
        "--report", type=Path, default=REPORT, metavar="FILE", help="what the gate saw; default: %(default)s"
    )
    parser.add_argument("--log", type=Path, default=LOG, metavar="FILE", help="default: %(default)s")
    return parser


def runner(seconds: float = PROGRAM_SECONDS) -> Run:
    """Return what the library runs programs with. One that hangs for SECONDS is left behind, with exit code 124."""
    environment = {**os.environ, "LC_ALL": "C"}

    def run(command: Sequence[str]) -> tuple[int, str]:
        try:
            # a program of its own on the host: there is no AnsibleModule whose run_command could be called
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                list(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            return 127, str(error)
        try:
            said, _nothing = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # subprocess.run() would wait for its end; but what hangs in the kernel has none
            process.kill()
            if process.stdout:
                process.stdout.close()
            return 124, f"{command[0]} did not end within {seconds:g} s"
        return process.returncode, said.decode("utf-8", "replace")

    return run


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
    try:
        options = _parser(out, err).parse_args(list(arguments))
    except Left as left:
        return left.code
    if options.command == "drill" and options.inside:
        return _drill(None, options, out, err, run or runner())
    by = "systemd" if (os.environ if environment is None else environment).get("INVOCATION_ID") else "hand"
    return _do(options, out, err, run=run, by=by, sleep=sleep)


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
        policy = gate.load_policy(options.policy)
        if options.command == "check":
            _check_stages(policy, options.policy)
    except gate.PolicyError as error:
        err(str(error))
        return USAGE
    if options.command == "check":
        count = len(policy.hosts)
        for name in gate.Names(options.report.with_name(ADDRESSES)).learn(policy, NAME_SECONDS):
            err(
                f"{name} has no address here: nut-shutdown will not see when that machine is down, and wait as long as it may take"
            )
        out(f"{options.policy} is right: {count} to wait for, {policy.longest:g} s at most")
        return OK
    if options.command == "status":
        look = Status(policy, options, run or runner())
        out(json.dumps(look.data(), indent=2) if options.json else look.text())
        return OK
    if options.command == "drill":
        return _drill(policy, options, out, err, run or runner(STOP_SECONDS))
    try:
        if options.command == "gate":
            _gate(policy, options, out, run=run or runner(), by=by, sleep=sleep)
        else:
            _stages(policy, options, out, run)
    except Exception as error:
        err(f"nut-shutdown {options.command} failed: {type(error).__name__}: {error}")
        for line in traceback.format_exc().splitlines():
            err(line)
        # it is started again at once, and what failed may need a moment
        sleep(1.0)
        return FAILED
    return OK


def _check_stages(policy: gate.Policy, path: Path) -> None:
    from . import stages  # noqa: PLC0415 - the gate does not need it, and must not fail with it

    try:
        stages.read(policy.stages)
    except stages.StagesError as error:
        raise gate.PolicyError(f"{path}: $.{error}") from None


def _gate(
    policy: gate.Policy,
    options: argparse.Namespace,
    out: Say,
    *,
    run: Run,
    by: str,
    sleep: Callable[[float], None],
) -> None:
    with watchdog() as pet, contextlib.ExitStack() as stack:
        looker = gate.Looker(policy.hosts, run, boottime, resolve=gate.Names(options.report.with_name(ADDRESSES)))
        stack.callback(looker.close)
        asker = gate.Asker(policy.upses, boottime)
        stack.callback(asker.close)
        gate.run(
            policy,
            options.state or GATE_STATE,
            options.report,
            options.log,
            log=out,
            prober=looker,
            ask_upsd=asker,
            sleep=sleep,
            alive=pet,
            by=by,
        )


def _drill(policy: gate.Policy | None, options: argparse.Namespace, out: Say, err: Say, run: Run) -> int:
    """Hold a drill. policy: None for the inner half, which is told it."""
    from . import drill  # noqa: PLC0415 - the gate does not need it, and must not fail with it

    # what happens is for people, and what came of it is for whoever asked
    say = err if options.json else out
    try:
        if policy is None:
            held = drill.inside(STDIN, say, out, as_json=options.json)
            return OK if held else FAILED
        program = [sys.executable, "-IS", os.path.realpath(sys.argv[0])]
        return drill.outside(policy, options.outage, say, as_json=options.json, program=program, run=run)
    except drill.Refused as error:
        err(f"nut-shutdown drill: {error}")
        return USAGE
    except drill.DrillError as error:
        err(f"nut-shutdown drill failed: {error}")
        return FAILED


def _stages(policy: gate.Policy, options: argparse.Namespace, out: Say, run: Run | None) -> None:
    from . import guests, stages  # noqa: PLC0415 - the gate does not need them, and must not fail with them

    known = stages.read(policy.stages)
    # also for the guests that are started again, which no stage need name any more after a reboot
    slowest = max(
        [guests.START_SECONDS + 60.0, *(guests.longest(one.seconds) for stage in known for one in stage.guests)]
    )
    writer = gate.Writer(out)
    writer.start()

    def log(line: str) -> None:
        out(line)
        writer.append(options.log, f"{stamp(time.time())} stages: {line}")

    try:
        stages.run(
            known,
            [{"name": ups.name, "host": ups.host, "port": ups.port} for ups in policy.upses],
            state_path=options.state or STAGES_STATE,
            log=log,
            run=run or runner(slowest),
        )
    finally:
        writer.finish(2.0)


# What `status` says


class Status:
    """One look at all that the policy names."""

    def __init__(self, policy: gate.Policy, options: argparse.Namespace, run: Run) -> None:
        self.policy, self.path = policy, options.policy
        names = gate.Names(options.report.with_name(ADDRESSES))
        self.seen, self.power = gate.one_look(policy, run, names)
        self.state = _json(options.state or GATE_STATE)
        self.last = _json(options.report)

    def data(self) -> dict[str, Any]:
        """Return it as data."""
        return {
            "policy": str(self.path),
            "settle": self.policy.settle,
            "reserve": self.policy.reserve,
            "longest": self.policy.longest,
            "hosts": [
                {
                    "name": host.name,
                    "up": self.seen.get(host.name),
                    "how": _how(host),
                    "expected": host.expected,
                    "limit": host.limit,
                }
                for host in self.policy.hosts
            ],
            "upses": [self.ups(ups) for ups in self.policy.upses],
            "gate": self.state,
            "last": self.last,
        }

    def ups(self, ups: gate.Ups) -> dict[str, Any]:
        said = self.power[str(ups)]
        if isinstance(said, str):
            return {"name": str(ups), "on_battery": None, "runtime": None, "error": said}
        return {"name": str(ups), "on_battery": said.on_battery, "runtime": said.runtime, "error": None}

    def text(self) -> str:
        """Return it as text."""
        lines = [f"would wait at most {self.policy.longest:g} s for:"]
        words = {True: "up", False: "down", None: "can't tell"}
        for host in self.policy.hosts:
            now = words[self.seen.get(host.name)]
            lines.append(
                f"  {host.name:<20} {now:<11} expected {host.expected:g} s, limit {host.limit:g} s, by {_how(host)}"
            )
        lines += [] if self.policy.hosts else ["  nobody"]
        lines.append(f"but no longer than until a UPS has {self.policy.reserve:g} s left:")
        for ups in self.policy.upses:
            said = self.power[str(ups)]
            lines.append(f"  {ups!s:<20} {said if isinstance(said, str) else _power(said)}")
        lines += [] if self.policy.upses else ["  none is known"]
        lines += ["", *self.last_text()]
        return "\n".join(lines)

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


def _how(host: gate.Host) -> str:
    return f"{host.guest.kind} status {host.guest.id}" if host.guest else ", ".join(host.addresses)


def _power(said: gate.Reading) -> str:
    left = f", {said.runtime:.0f} s left" if said.runtime is not None else ", does not say how long it lasts"
    return gate.POWER[said.on_battery] + left


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes()[: gate.TEXT_LIMIT])
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None
