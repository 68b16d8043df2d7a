# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The supervisor of the container: it runs upsd and a driver for each section of ups.conf, and nut-hotplug whenever the bus changes.

It is what systemd, udev and the timer are on a host. nut-hotplug asks it through a socket (base/services.py). One loop, one thread: it
reads what has come, and never waits for a process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable

from ..base import jsontext, paths
from ..base import systemd as base_systemd
from ..base.process import Find, find_program
from ..base.services import SOCKET
from ..conf import ups_conf
from ..deploy.apply import PENDING
from ..hotplug import quiet
from ..hotplug.reconcile import QUIET
from .processes import ProcessTable
from .uevents import UeventReader

AGENT = "nut-hotplug"
CONFIGURE = "configure"
BACKLOG = 8
REQUEST_BYTES = 1 << 20
REQUEST_SECONDS = 1.0  # for a request to arrive, once a program has connected
STOP_LIMIT = 4.5  # seconds for everything to stop
LOG_BYTES = 1 << 20
"""Size at which hotplug.log becomes hotplug.log.1."""


class RequestError(Exception):
    """A request can't be carried out; the message says why."""


@dataclass(frozen=True)
class Places:
    """Where everything is."""

    conf_dir: Path = Path("/", paths.NUT)
    run_dir: Path = Path("/run")
    nut_run_dir: Path = Path("/run/nut")  # of drivers and upsd
    log: Path = Path("/", paths.HOTPLUG_LOG)
    group: str | int = "nut"  # of drivers and upsd

    @property
    def socket(self) -> Path:
        """Return the path of the supervisor's socket."""
        return self.run_dir / SOCKET

    @property
    def quiet_note(self) -> Path:
        """Return the path of the note by which a run of nut-hotplug ends at once."""
        return self.run_dir / QUIET


@dataclass
class Answer:
    """A connection that gets its answer once a service has stopped."""

    connection: socket.socket
    unit: str
    pid: int  # of the process that is to end


@dataclass
class Supervisor:
    """Runs everything in the container."""

    table: ProcessTable
    agent: Sequence[str]  # the command of one run of nut-hotplug
    configure: Sequence[str]  # the command that writes NUT's files
    given: Mapping[str, str]  # variables for that command only: one is a password
    interval: float  # seconds between two runs of nut-hotplug if nothing happens
    say: Callable[[str], None]
    places: Places = field(default_factory=Places)
    finder: Find = find_program
    is_quiet: Callable[[str], bool] = quiet.is_quiet
    open_uevents: Callable[[], UeventReader] = UeventReader.open
    is_stopping: bool = False
    exit_code: int = 0
    _is_reload_due: bool = False
    _is_configured: bool = False
    _agent_due: float | None = None  # on the table's clock
    _agent_again: bool = False
    _answers: list[Answer] = field(default_factory=list)
    _stop_by: float = 0.0
    _signals: list[int] = field(default_factory=list)

    # Requests, as base/services.py sends them

    def show_units(self, names: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        """Return the state of units: name -> fields of systemd.Unit, None for unknown ones."""
        known = self.table.services
        return {name: asdict(known[name].describe_unit()) if name in known else None for name in names}

    def change_unit(self, verb: str, unit: str) -> int:
        """Start, stop, restart or reload a unit. Return the process that has to end for that, 0 if none has. Raise RequestError."""
        if unit == base_systemd.ENUMERATOR:
            self.enumerate_drivers()
            return 0
        service = self.table.services.get(unit)
        if service is None:
            raise RequestError(f"there is no {unit}")
        if verb == "start":
            self.table.start(unit)
        elif verb in ("stop", "restart", "disable --now"):
            pid = service.process.pid if service.process else 0
            self.table.stop(unit)
            if verb == "restart":
                self.table.start(unit)
            return pid
        elif verb == "reload":
            if not self.table.reload(unit):
                raise RequestError(f"{unit} is not running")
        elif verb != "enable":
            raise RequestError(f"it does not know how to {verb} {unit}")
        return 0

    def enumerate_drivers(self) -> None:
        """Start a driver for each section of ups.conf that has none, and remove those without a section."""
        try:
            text = (self.places.conf_dir / "ups.conf").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise RequestError(f"ups.conf can't be read: {error.strerror}") from None
        sections = ups_conf.parse_ups_conf(text).sections
        wanted = {base_systemd.driver_unit(name): section for name, section in sections.items()}
        for unit in [unit for unit in self.table.services if base_systemd.is_driver(unit) and unit not in wanted]:
            self.table.remove_service(unit)
        for unit, section in wanted.items():
            driver = dict(section.keys).get("driver") or ""
            path = self.finder(driver) if driver and "/" not in driver else None
            is_new = unit not in self.table.services
            command = (str(path or driver or "false"), "-F", "-a", section.name)
            service = self.table.add_service(unit, command)
            if is_new or not (service.is_wanted or service.is_running):
                self.table.start(unit)

    def read_log(self, units: Sequence[str], since: float, lines: int) -> list[dict[str, Any]]:
        """Return what units wrote last."""
        return [asdict(entry) for entry in self.table.read_log(units, since, lines)]

    def answer_request(self, connection: socket.socket) -> None:
        """Read a request and answer it, at once or when a service has stopped."""
        try:
            request = jsontext.parse_json(_read_line(connection))
            result, unit, pid = self._carry_out(request)
        except (RequestError, ValueError, TypeError, KeyError, OSError) as error:
            _send(connection, {"error": str(error)})
            return
        if pid:
            self._answers.append(Answer(connection, unit, pid))
        else:
            _send(connection, {"result": result})

    def _carry_out(self, request: Mapping[str, Any]) -> tuple[Any, str, int]:
        """Return the result of a request, and the unit and process that have to end before it is sent; 0: none."""
        command = request["command"]
        if command == "show":
            return self.show_units(_texts(request["units"])), "", 0
        if command == "log":
            return self.read_log(_texts(request["units"]), float(request["since"]), int(request["lines"])), "", 0
        if command == "change":
            if self.is_stopping:
                raise RequestError("the container is stopping")
            unit = str(request["unit"])
            return None, unit, self.change_unit(str(request["verb"]), unit)
        raise RequestError("it does not know this command")

    def _send_answers(self) -> None:
        """Answer the requests whose processes have ended."""
        waiting = []
        for answer in self._answers:
            service = self.table.services.get(answer.unit)
            if service and service.process and service.process.pid == answer.pid:
                waiting.append(answer)
            else:
                _send(answer.connection, {"result": None})
        self._answers = waiting

    # The loop

    def run(self) -> int:
        """Run until SIGTERM, or until NUT's files can't be written at the start. Return the exit code."""
        prepare_directories(self.places)
        with contextlib.ExitStack() as stack:
            # before the socket, by which others see that this runs
            wakeup = stack.enter_context(_catch_signals(self._signals.append))
            listener = stack.enter_context(_listen(self.places.socket))
            uevents = self._open_uevents()
            self.table.add_service(CONFIGURE, self.configure, is_job=True, given=self.given)
            self.table.add_service(AGENT, self.agent, is_job=True)
            self.table.start(CONFIGURE)
            while not (self.is_stopping and self._has_stopped()):
                outputs = self.table.list_outputs()
                ready = _wait_for([wakeup, listener, *([uevents.socket] if uevents else []), *outputs], self._pause())
                if wakeup in ready:
                    _empty(wakeup)
                if listener in ready:
                    self._accept(listener)
                if uevents and uevents.socket in ready and uevents.has_usb_event():
                    self.request_agent()
                for handle, service in outputs.items():
                    if handle in ready and service.output == handle:
                        self.table.read_output(service)
                self.tend()
        return self.exit_code

    def tend(self) -> None:
        """Do what is due: signals, restarts, answers, the next run of nut-hotplug."""
        self._obey_signals()
        for service in self.table.tend():
            if service.unit == CONFIGURE:
                self._follow_configuration(service.exit_code or 0)
            elif service.unit == AGENT:
                now = self.table.clock()
                self._agent_due = now if self._agent_again else now + self.interval
                self._agent_again = False
        self._send_answers()
        if self.is_stopping:
            return
        if self._is_reload_due and not self.table.services[CONFIGURE].is_running:
            self._is_reload_due = False
            self.say("reloading")
            self.table.start(CONFIGURE)
        if self._agent_due is not None and self.table.clock() >= self._agent_due:
            self._run_agent()

    def request_agent(self) -> None:
        """Have nut-hotplug look at the bus as soon as possible."""
        if AGENT in self.table.services and self.table.services[AGENT].is_running:
            self._agent_again = True
        elif self._agent_due is not None:
            self._agent_due = self.table.clock()

    def stop_everything(self) -> None:
        """Begin to stop. The loop ends once all processes have."""
        if self.is_stopping:
            return
        self.is_stopping = True
        self._stop_by = self.table.clock() + STOP_LIMIT
        self.say("stopping")
        for service in [*self.table.services.values()]:
            self.table.stop(service.unit)

    def _run_agent(self) -> None:
        if self.is_quiet(str(self.places.quiet_note)):
            self._agent_due = self.table.clock() + self.interval
            return
        self._agent_due = None
        self._agent_again = False
        rotate_log(self.places.log)
        self.table.start(AGENT)

    def _follow_configuration(self, code: int) -> None:
        """Start upsd and the drivers after the first configuration; look at the bus after each."""
        if self.is_stopping:
            return
        if code and not self._is_configured:
            self.exit_code = code
            self.stop_everything()
        elif code:
            self.say("the configuration was not reloaded; everything goes on with the old one")
        if code:
            return
        if not self._is_configured:
            self._is_configured = True
            self.table.add_service(base_systemd.SERVER, (str(self.finder("upsd") or "upsd"), "-F"))
            self.table.start(base_systemd.SERVER)
            try:
                self.enumerate_drivers()
            except RequestError as error:
                self.say(str(error))
            self._agent_due = self.table.clock()
        else:
            self.request_agent()

    def _obey_signals(self) -> None:
        # a handler may interrupt anything, so it only notes what came
        numbers = [*self._signals]
        del self._signals[: len(numbers)]
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self.stop_everything()
        self._is_reload_due = self._is_reload_due or signal.SIGHUP in numbers

    def _has_stopped(self) -> bool:
        return not any(self.table.list_running()) or self.table.clock() >= self._stop_by

    def _pause(self) -> float:
        """Return for how many seconds nothing is due."""
        due = [moment for moment in (self.table.next_deadline(), self._agent_due) if moment is not None]
        due += [self._stop_by] if self.is_stopping else []
        return min(max(min(due, default=self.table.clock() + 60.0) - self.table.clock(), 0.0), 60.0)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _address = listener.accept()
            self.answer_request(connection)

    def _open_uevents(self) -> UeventReader | None:
        try:
            return self.open_uevents()
        except OSError as error:
            self.say(
                f"the kernel does not report USB devices here ({error.strerror}): looking at the bus every {self.interval:g} s only"
            )
            return None


def prepare_directories(places: Places) -> None:
    """Make the directories, and remove what another life of this container has left: process ids that belong to others now."""
    for folder in (places.run_dir, places.nut_run_dir, places.log.parent, places.conf_dir):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.chown(places.nut_run_dir, group=places.group)
    places.nut_run_dir.chmod(0o770)
    # so that it can be followed before anything has happened
    places.log.touch(mode=0o640)
    for path in places.nut_run_dir.iterdir():
        if path.suffix == ".pid" or path.is_socket():
            path.unlink(missing_ok=True)
    for path in (places.quiet_note, places.run_dir / PENDING, places.socket):
        path.unlink(missing_ok=True)


def rotate_log(path: Path) -> None:
    """Keep the log below two times LOG_BYTES."""
    with contextlib.suppress(OSError):
        if path.stat().st_size >= LOG_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))


@contextlib.contextmanager
def _listen(path: Path) -> Iterator[socket.socket]:
    """Listen at a socket that only root can use, for as long as the context lasts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(BACKLOG)
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _catch_signals(note: Callable[[int], None]) -> Iterator[socket.socket]:
    """Call NOTE for each signal that concerns the supervisor, and yield a socket that then has something to read."""
    reading, writing = socket.socketpair()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
    with reading, writing:
        for end in (reading, writing):
            end.setblocking(False)
        previous = {number: signal.signal(number, lambda number, _frame: note(number)) for number in numbers}
        waking = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(waking)
            for number, handler in previous.items():
                signal.signal(number, handler)


def _wait_for(files: Sequence[Any], seconds: float) -> list[Any]:
    """Return those of the files and descriptors that have something to read, after SECONDS at most."""
    poll = select.poll()
    by_handle = {file if isinstance(file, int) else file.fileno(): file for file in files}
    for handle in by_handle:
        poll.register(handle, select.POLLIN)
    return [by_handle[handle] for handle, _event in poll.poll(seconds * 1000 + 1)]


def _empty(reading: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while reading.recv(4096):
            pass


def _read_line(connection: socket.socket) -> bytes:
    """Return the line that a program has sent. Raise OSError."""
    deadline = time.monotonic() + REQUEST_SECONDS
    data = b""
    while not data.endswith(b"\n") and len(data) < REQUEST_BYTES:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def _send(connection: socket.socket, answer: Mapping[str, Any]) -> None:
    """Send an answer and close the connection. A program that has gone needs none."""
    with connection, contextlib.suppress(OSError):
        connection.settimeout(REQUEST_SECONDS)
        connection.sendall(json.dumps(answer).encode() + b"\n")


def _texts(value: object) -> list[str]:
    """Return a list of texts. Raise RequestError."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestError("units must be a list of names")
    return value
