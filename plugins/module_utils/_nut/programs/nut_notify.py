# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-notify: options and exit codes. The caller prints."""

# ruff: noqa: PLC0415 - `event` runs for each event of upsmon, and must start quickly

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..base import paths
from ..base.cli import FAILED, OK, USAGE, Parser, PrintText, ProgramExit, make_printing
from ..base.text import printable

if TYPE_CHECKING:
    from ..notify.targets import Target
    from ..shutdown.policy import ShutdownPolicy, Stage

HANG_SECONDS = 60
"""A service that completes no round for so long exits, and systemd restarts it."""

EVENT_WAITS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""How long an event waits for a service that is just starting, in seconds. upsmon does not wait for its NOTIFYCMD."""

DESCRIPTION = "Tell people and services about power cuts and shutdowns (the service nut-notify.service)."
EPILOG = """\
exit codes:
  0  done
  1  something failed (test: or a target did not take its message)
  2  the command line or the targets are wrong

files:
  /etc/nut/notify.json             the targets, written by Ansible. They are secrets
  /var/log/nut/events.jsonl        all events, a line each
  /var/lib/nut-notify/outbox.json  the messages that are still to be sent
"""


class Program:
    """A run of the program."""

    def __init__(
        self,
        out: PrintText,
        err: PrintText,
        environment: Mapping[str, str],
        root: Path,
        sleep: Callable[[float], None],
    ) -> None:
        self.out, self.err, self.environment, self.root = make_printing(out), make_printing(err), environment, root
        self.sleep = sleep

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the parsed command line. Raise ProgramExit."""
        parser = Parser(prog="nut-notify", description=DESCRIPTION, epilog=EPILOG, out=self.out, err=self.err)
        commands: Mapping[str, tuple[Callable[[], int], str]] = {
            "run": (self.run, "record and deliver events; nut-notify.service runs this"),
            "event": (self.report_event, "hand an event of upsmon to the service; upsmon runs this as its NOTIFYCMD"),
            "test": (self.send_tests, "send a test message to each target, and show what became of it"),
            "preview": (self.show_preview, "show what each target would be told in a power cut; send nothing"),
            "status": (self.show_status, "show the targets and how many messages wait for them"),
            "deliver": (self.deliver, "send one message, described on standard input; the service runs this"),
        }
        for name, (do, summary) in commands.items():
            command = parser.add_command(name, summary)
            command.set_defaults(do=do)
            if name == "event":
                # upsmon's own words, from NOTIFYMSG; the environment says the same
                command.add_argument("message", nargs="?", help=argparse.SUPPRESS)
        return parser.parse_args(list(arguments))

    def load_targets(self) -> tuple[Target, ...]:
        """Return the targets. Raise NotifyPolicyError."""
        from ..notify.targets import load_policy

        return load_policy(self.root / paths.NOTIFY_POLICY)

    def load_plan(self) -> tuple[ShutdownPolicy, tuple[Stage, ...]] | None:
        """Return the shutdown policy and its stages; None if it can't be read, which others report."""
        from ..shutdown import policy as shutdown_policy

        try:
            policy = shutdown_policy.load_policy(self.root / paths.SHUTDOWN_POLICY)
            return policy, shutdown_policy.read_stages(policy.stages)
        except shutdown_policy.ShutdownPolicyError:
            return None

    def run(self) -> int:
        """Run the service."""
        from ..base.clock import read_boottime
        from ..notify import intake, sender
        from ..notify.notifier import Notifier
        from ..shutdown.stages_loop import ask_upsd
        from ..shutdown.watchdog import arm_watchdog

        targets, program = self.load_targets(), sender.own_deliverer()
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(intake.open_socket(self.root / paths.NOTIFY_SOCKET))
            reset_timer = stack.enter_context(arm_watchdog(HANG_SECONDS))
            reader = intake.Intake(listener, read_boottime, time.time)
            notifier = Notifier(
                targets,
                lambda target, post: sender.begin_attempt(target, post, program),
                self.out,
                reader.read_events,
                lambda event: intake.describe_power(event, plan[0] if (plan := self.load_plan()) else None, ask_upsd),
                self.root,
            )
            notifier.load()
            notifier.run_forever(listener, reset_timer)
        return FAILED

    def report_event(self) -> int:
        """Hand an event to the service, as the user nut. A failure must not disturb upsmon."""
        from ..notify import intake

        data, path = intake.encode_event(self.environment), self.root / paths.NOTIFY_SOCKET
        for wait in EVENT_WAITS:
            try:
                intake.send_event(data, path)
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                self.sleep(wait)  # the service is just starting, or busy
            else:
                return OK
        self.err(
            f"nut-notify: the event {self.environment.get('NOTIFYTYPE')} is lost, because nut-notify.service does not run"
        )
        return FAILED

    def send_tests(self) -> int:
        """Send test messages."""
        from ..notify import preview, sender

        program = sender.own_deliverer()
        failed = preview.send_tests(
            self.load_targets(), lambda target, post: sender.begin_attempt(target, post, program), self.out
        )
        return FAILED if failed else OK

    def show_preview(self) -> int:
        """Show what would be sent."""
        from ..notify import preview

        plan = self.load_plan()
        for line in preview.describe_preview(self.load_targets(), preview.list_events(*plan) if plan else []):
            self.out(line)
        return OK

    def show_status(self) -> int:
        """Show the targets."""
        from ..base import records
        from ..notify import outbox

        state = records.recall_record(outbox.Outbox, self.root / paths.NOTIFY_STATE, outbox.VERSION) or outbox.Outbox()
        for target in self.load_targets():
            queue = state.queues.get(target.key, outbox.Queue())
            trouble = f", {queue.failures} attempts have failed" if queue.failures else ""
            self.out(f"{target.label}: {len(queue.messages)} messages wait{trouble}")
        return OK

    def deliver(self) -> int:
        """Send one message."""
        from ..notify import deliver

        deliver.hide_memory()
        try:
            deliver.deliver(sys.stdin.buffer.read(deliver.INPUT))
        except deliver.DeliveryError as error:
            self.out(str(error))
            return FAILED
        return OK


def main(
    arguments: Sequence[str],
    out: PrintText,
    err: PrintText,
    environment: Mapping[str, str],
    *,
    root: Path = Path("/"),
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Run the command and return the exit code. out, err: print text."""
    program = Program(out, err, environment, root, sleep)
    try:
        return int(program.parse(arguments).do())
    except ProgramExit as left:
        return left.code
    except ValueError as error:  # of the policy
        program.err(f"nut-notify: {error}")
        return USAGE
    except (OSError, LookupError) as error:
        program.err(f"nut-notify: {printable(str(error), 300)}")
        return FAILED
