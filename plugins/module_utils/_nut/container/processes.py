# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The processes that the supervisor runs: their state in systemd's words, their output, restarts, and jobs that run once.

Nothing here waits: the supervisor's loop calls tend() and reads outputs as they come.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable

from ..base.systemd import JournalEntry, Unit
from ..base.text import printable

# Seconds before a service that ended is started again: doubled each time, and forgotten once it has run for SETTLED seconds
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 15.0
SETTLED = 60.0
STOP_SECONDS = 3.0
"""After this time a process that was asked to stop is killed. Docker waits 10 s for all of them, the user for 5."""
KEPT_LINES = 300  # of the output of each service
LINE_BYTES = 4096
_READ_BYTES = 65536


@dataclass
class Service:
    """A program that is to run, and its process."""

    unit: str
    command: tuple[str, ...]
    is_job: bool = False  # whether it runs once, and is not started again
    given: Mapping[str, str] = field(default_factory=dict)  # variables for it only
    process: subprocess.Popen[bytes] | None = None
    is_wanted: bool = False
    is_removed: bool = False  # whether it is forgotten once its process has ended
    failures: int = 0  # ends in a row
    started: float = 0.0  # on the monotonic clock, as the following
    changed: float = 0.0
    start_at: float = 0.0  # not before
    kill_at: float | None = None
    exit_code: int | None = None  # of the last process
    output: int = -1  # the reading end of its output
    rest: bytes = b""  # the beginning of a line that is not complete yet
    log: deque[JournalEntry] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))

    @property
    def is_running(self) -> bool:
        """Return whether there is a process."""
        return self.process is not None

    def describe_unit(self) -> Unit:
        """Return its state in systemd's words."""
        pid = self.process.pid if self.process else 0
        if self.process:
            active, sub = ("deactivating", "stop-sigterm") if self.kill_at is not None else ("active", "running")
        elif self.is_wanted:
            active, sub = "activating", "auto-restart"
        elif self.exit_code:
            active, sub = "failed", "failed"
        else:
            active, sub = "inactive", "dead"
        result = "exit-code" if self.exit_code else "success"
        return Unit(active, "enabled", pid, sub=sub, result=result, since=self.changed)


@dataclass
class ProcessTable:
    """The services and jobs of the container."""

    environment: Mapping[str, str]
    say: Callable[[str], None]  # prints a line
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time  # seconds since 1970
    services: dict[str, Service] = field(default_factory=dict)

    def add_service(
        self, unit: str, command: Sequence[str], *, is_job: bool = False, given: Mapping[str, str] | None = None
    ) -> Service:
        """Add a service, or give it another command from its next start on. given: variables for it only."""
        service = self.services.setdefault(unit, Service(unit, tuple(command), is_job, given or {}))
        service.command, service.is_removed = tuple(command), False
        return service

    def remove_service(self, unit: str) -> None:
        """Stop a service, and forget it once it has stopped."""
        self.stop(unit)
        self.services[unit].is_removed = True
        if not self.services[unit].is_running:
            del self.services[unit]

    def start(self, unit: str) -> None:
        """Start a service now, unless it runs. One that is being stopped starts again once it has stopped."""
        service = self.services[unit]
        service.is_wanted, service.failures, service.start_at = True, 0, self.clock()
        if not service.is_running:
            self._spawn(service)

    def stop(self, unit: str) -> None:
        """Ask a service to stop. tend() kills it if it does not."""
        service = self.services[unit]
        service.is_wanted = False
        service.exit_code = None
        if service.process and service.kill_at is None:
            service.kill_at = self.clock() + STOP_SECONDS
            self._signal(service, signal.SIGTERM)
        service.changed = self.clock()

    def reload(self, unit: str) -> bool:
        """Send SIGHUP to a service. Return False if it does not run."""
        service = self.services.get(unit)
        if service is None or service.process is None:
            return False
        self._signal(service, signal.SIGHUP)
        return True

    def tend(self) -> list[Service]:
        """Notice processes that have ended, kill those that do not stop, start what is due. Return the services that have ended."""
        now = self.clock()
        ended = [service for service in [*self.services.values()] if self._notice_end(service, now)]
        for service in self.services.values():
            if service.process and service.kill_at is not None and now >= service.kill_at:
                self.say(f"{service.unit} did not stop within {STOP_SECONDS:g} s; killing it")
                service.kill_at = now + STOP_SECONDS
                self._signal(service, signal.SIGKILL)
            elif not service.process and service.is_wanted and now >= service.start_at:
                self._spawn(service)
        return ended

    def next_deadline(self) -> float | None:
        """Return when tend() is due on the clock, even if no process ends; None if it is not."""
        due = [service.kill_at for service in self.services.values() if service.kill_at is not None]
        due += [s.start_at for s in self.services.values() if s.is_wanted and not s.is_running]
        return min(due, default=None)

    def list_outputs(self) -> dict[int, Service]:
        """Return the descriptors to read from -> whose output it is."""
        return {service.output: service for service in self.services.values() if service.output >= 0}

    def read_output(self, service: Service) -> bool:
        """Read what a service has written, print it line by line and keep it. Return whether there may be more at once."""
        try:
            data = os.read(service.output, _READ_BYTES)
        except BlockingIOError:
            return False
        lines = (service.rest + data).split(b"\n")
        service.rest = lines.pop()
        if len(service.rest) > LINE_BYTES or not data:
            lines += [service.rest] if service.rest else []
            service.rest = b""
        for line in lines:
            words = printable(line[:LINE_BYTES].decode("utf-8", "replace").rstrip(), LINE_BYTES)
            service.log.append(JournalEntry(self.wall(), service.unit, words))
            self.say(f"{shorten_unit(service.unit)}: {words}")
        if not data:
            self._close_output(service)
        return bool(data)

    def read_log(self, units: Sequence[str], since: float, lines: int) -> list[JournalEntry]:
        """Return the last lines that services wrote. since: seconds since 1970."""
        found = [entry for unit in units if unit in self.services for entry in self.services[unit].log]
        kept = [entry for entry in found if entry.at >= since]
        return sorted(kept, key=lambda entry: entry.at)[-lines:] if lines > 0 else []

    def list_running(self) -> Iterator[Service]:
        """Yield the services that have a process."""
        return (service for service in self.services.values() if service.is_running)

    def _spawn(self, service: Service) -> None:
        now = self.clock()
        service.started = service.changed = now
        service.kill_at = service.exit_code = None
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reading, False)
        try:
            service.process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                service.command,
                env={**self.environment, **service.given},
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
            )
        except OSError as error:
            os.close(reading)
            self.say(f"{shorten_unit(service.unit)} can't be started: {service.command[0]}: {error.strerror}")
            self._note_end(service, 127, now)
        else:
            self._close_output(service)
            service.output = reading
        finally:
            os.close(writing)

    def _notice_end(self, service: Service, now: float) -> bool:
        if service.process is None or (code := service.process.poll()) is None:
            return False
        # what it wrote last belongs to the log before its end
        while service.output >= 0 and self.read_output(service):
            pass
        was_asked = service.kill_at is not None
        service.process = service.kill_at = None
        self._note_end(service, 0 if was_asked else code, now)
        if was_asked:
            service.start_at = now
        elif code or not service.is_job:
            again = f"; starting it again in {service.start_at - now:.0f} s" if service.is_wanted else ""
            self.say(f"{shorten_unit(service.unit)} ended ({describe_end(code)}){again}")
        if service.is_removed:
            self._close_output(service)
            self.services.pop(service.unit, None)
        return True

    def _note_end(self, service: Service, code: int, now: float) -> None:
        service.exit_code, service.changed = code, now
        service.failures = 1 if now - service.started >= SETTLED else service.failures + 1
        if service.is_job:
            service.is_wanted = False
        service.start_at = now + min(FIRST_PAUSE * 2.0 ** min(service.failures - 1, 10), LONGEST_PAUSE)

    def _close_output(self, service: Service) -> None:
        if service.output >= 0:
            os.close(service.output)
            service.output = -1

    @staticmethod
    def _signal(service: Service, number: int) -> None:
        if service.process:
            service.process.send_signal(number)


def shorten_unit(unit: str) -> str:
    """Return a unit's name for the log: without the suffix that all have."""
    return unit.removesuffix(".service")


def describe_end(code: int) -> str:
    """Return how a process ended."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
