# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rehearsal of a shutdown: NUT's own programs, the gate, and all their waits, on a simulated UPS beside the real one.

Two halves. outside() runs as root: it asks the real upsd, reads the real settings, has systemd start the other half between
walls, and watches the real UPS meanwhile. inside() runs there, as nobody in particular: it has a network of its own with
nothing in it, no capability, and no way to systemd, to NUT's files or to a UPS; and it does nothing before it has seen that this is so.
What is in there can't power anything off, whatever goes wrong, because the kernel does not let it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable

from ..base import jsontext
from ..base.clock import Clock, boottime
from ..base.process import Find, find_program
from ..base.systemd import Run
from ..base.table import grid
from ..conf import grammar
from ..net import readings, vocabulary
from ..net.client import Client, UpsdFailure
from ..plan import model, planner
from ..shutdown import gate, gate_loop, observe
from ..shutdown import policy as shutdown_policy

UNIT = "nut-shutdown-drill"
UPS = "drill"
PRIMARY = "primary"
CONF = Path("/etc/nut/upsmon.conf")
SYSTEMD = Path("/run/systemd/system")

# NUT's defaults (clients/upsmon.c), in seconds
TIMING = {"POLLFREQ": 5, "POLLFREQALERT": 5, "HOSTSYNC": 15, "DEADTIME": 15, "FINALDELAY": 5}
# What TrueNAS has, and can't be told otherwise
SECONDARY = {**TIMING}

OUTAGE = 10.0
"""Seconds on battery before the battery is low."""

OUTAGE_MOST = 3600.0
STARTING = 60.0
"""Seconds that NUT's programs have for being ready and logged in."""

ENDING = 5.0
"""Seconds that they have for their end, after which they are killed."""

LOOK = 0.2
SUPPLY = 2.0  # from one word of the simulated UPS about its battery to the next
ASK = 0.5

# all there are up to 2.8.5; one that an older release does not know it complains about, and goes on
_NOTIFY = """
ONLINE ONBATT LOWBATT FSD COMMOK COMMBAD SHUTDOWN REPLBATT NOCOMM NOPARENT CAL NOTCAL OFF NOTOFF BYPASS NOTBYPASS ECO NOTECO ALARM
NOTALARM OVER NOTOVER TRIM NOTTRIM BOOST NOTBOOST OTHER NOTOTHER SUSPEND_STARTING SUSPEND_FINISHED SHUTDOWN_HOSTSYNC
"""

Say = Callable[[str], None]


class DrillError(Exception):
    """The drill can't be held, or could not be ended; the message says why."""


class Refused(DrillError):
    """There is no drill now; the message says why, and what to do."""


class Stopped(DrillError):
    """Somebody wants it to end."""


# What it is given


@dataclass(frozen=True)
class Job:
    """What the inner half has to know, and can't look up. timing: of the primary's upsmon, s. runtime: of the real UPS, s, or None."""

    policy: shutdown_policy.Policy
    timing: Mapping[str, int]
    runtime: float | None
    outage: float
    primary: str

    @property
    def longest(self) -> float:
        """Say after how many seconds it must be over, whatever happens."""
        wait = 2 * max(self.timing["POLLFREQ"], self.timing["POLLFREQALERT"])
        waits = self.timing["HOSTSYNC"] + self.timing["FINALDELAY"] + wait + self.timing["DEADTIME"]
        return math.ceil(STARTING + self.outage + waits + self.policy.longest + 60)

    def dump(self) -> str:
        """Write it as one line of JSON."""
        return json.dumps({**asdict(self), "policy": {"version": shutdown_policy.VERSION, **asdict(self.policy)}})


def read_job(text: str) -> Job:
    """Read what dump() wrote. Raises DrillError."""
    try:
        data = jsontext.parse(text)
        data["policy"] = shutdown_policy.check_policy(data["policy"])
        return Job(**data)
    except (ValueError, TypeError, LookupError) as error:
        raise DrillError(f"what the drill was given can't be understood: {error}") from None


def timing(upsmon_conf: str) -> dict[str, int]:
    """Read the seconds that count from the text of an upsmon.conf, as upsmon does: what is no number is 0."""
    found = dict(TIMING)
    for name in found:
        value = grammar.directive(upsmon_conf, name)
        if value is not None:
            number = re.match(r"\s*([0-9]{1,9})", value)
            found[name] = int(number[1]) if number else 0
    return found


# NUT's files


def note_command(note: Path) -> str:
    """Return what stands in the place of a shutdown: it writes down when that would have begun. Whole, or not at all."""
    return f"cat /proc/uptime >{note}.new && mv {note}.new {note}"


def noted(text: str, uptime: str, now: float) -> float | None:
    """Say when a note was written, in the clock that says NOW, as /proc/uptime says UPTIME. None: it is no note."""
    try:
        then, since = float(text.split(maxsplit=1)[0]), float(uptime.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None
    # the kernel's own numbers have two places
    return now - max(since - then, 0.0) if math.isfinite(then) and math.isfinite(since) else None


def dev(status: str, runtime: float | None) -> str:
    """Return what the simulated UPS says (dummy-ups: drill.dev). runtime: s, None if the real one does not say it either."""
    left = "" if runtime is None else f"battery.runtime: {max(runtime, 0):.0f}\n"
    return f"device.mfr: homelab.nut\ndevice.model: drill\nups.status: {status}\n{left}"


def upsmon_conf(
    note: Path, where: str, user: str, password: str, seconds: Mapping[str, int], *, flag: Path | None
) -> str:
    """Return an upsmon.conf whose SHUTDOWNCMD only writes a note. user: what it logs in as, and is: primary or secondary."""
    lines = [
        f"MONITOR {UPS}@{where} 1 {user} {password} {'primary' if user == PRIMARY else 'secondary'}",
        "MINSUPPLIES 1",
        f"SHUTDOWNCMD {grammar.encode(note_command(note))}",
        *([f"POWERDOWNFLAG {flag}"] if flag else []),
        *(f"{name} {value}" for name, value in seconds.items()),
        # nobody shall read on his screen that the power fails
        *(f"NOTIFYFLAG {name} IGNORE" for name in _NOTIFY.split()),
    ]
    return "".join(f"{line}\n" for line in lines)


def files(folder: Path, job: Job, port: int, password: str) -> dict[str, str]:
    """Return NUT's files for the simulated UPS: name below FOLDER -> text. The secondaries are called by their number."""
    where = f"127.0.0.1:{port}"
    made = {
        "ups.conf": f"pollinterval = 1\n[{UPS}]\ndriver = dummy-ups\nport = {UPS}.dev\nmode = dummy-once\n",
        "upsd.conf": f"LISTEN 127.0.0.1 {port}\n",
        "upsd.users": (
            f"[{PRIMARY}]\npassword = {password}\nupsmon primary\n[secondary]\npassword = {password}\nupsmon secondary\n"
        ),
        f"{PRIMARY}.conf": upsmon_conf(
            folder / "notes" / PRIMARY, where, PRIMARY, password, job.timing, flag=folder / "killpower"
        ),
    }
    for number in range(len(job.policy.machines)):
        note = folder / "notes" / str(number)
        made[f"{number}.conf"] = upsmon_conf(note, where, "secondary", password, SECONDARY, flag=None)
    return made


# What comes of it


def arithmetic(job: Job) -> model.Plan:
    """Make the plan of this shutdown, as it counts from the low battery on until the primary powers off."""
    seconds: dict[str, Any] = {name.lower(): float(value) for name, value in job.timing.items()}
    machines = [
        model.Machine(
            host.name, model.SECONDARY, "linux", shutdown_time=host.shutdown_time, shutdown_limit=host.shutdown_limit
        )
        for host in job.policy.machines
    ]
    primary = model.Machine(job.primary, model.PRIMARY, "linux")
    return planner.make_plan(
        [primary, *machines], [model.Supply(UPS)], model.Timing(**seconds, settle=job.policy.settle)
    )


def planned_of(
    made: model.Plan, policy: shutdown_policy.Policy, primary: str
) -> dict[str, tuple[float | None, float | None]]:
    """Say for each machine when it should begin to go down, and be down; of the primary when it should power off. s from the trigger."""
    found = {one.name: (made.at(model.WAITS, one.name), made.at(model.GOES, one.name)) for one in policy.machines}
    return {**found, primary: (made.at(model.POWEROFF), None)}


def planned(job: Job) -> dict[str, tuple[float | None, float | None]]:
    """Say what planned_of() says, of this job."""
    return planned_of(arithmetic(job), job.policy, job.primary)


@dataclass(frozen=True)
class Seen:
    """What a drill saw. machines: when each began to go down, and was down, s from the trigger, None if it never was so.

    trigger: when the battery was low, s since 1970. poweroff: when the primary would have powered off, s from the trigger.
    rule, reason: why then, as the gate says.
    """

    machines: Mapping[str, tuple[float | None, float | None]]
    trigger: float
    poweroff: float
    rule: str
    reason: str

    def problems(self) -> list[str]:
        """Say what was out of order; nothing, if the order held."""
        wrong = []
        for name, (began, down) in self.machines.items():
            if began is None:
                wrong.append(f"{name} had not begun to go down when this host would have powered off")
            elif down is None or down > self.poweroff:
                wrong.append(f"{name} was not down when this host would have powered off")
        if self.rule not in (gate.DOWN, gate.ASSUMED):
            wrong.append(f"the wait ended because {self.reason}")
        return wrong

    def verdict(self) -> str:
        """Say in a line whether the order held."""
        wrong = self.problems()
        if wrong:
            return f"The order did not hold: {'; '.join(wrong)}"
        last = max(((down or 0.0, name) for name, (_began, down) in self.machines.items()), default=None)
        if last is None:
            return "The order held: there is nobody to wait for"
        return f"The order held: {last[1]} was the last to be down, {self.poweroff - last[0]:.1f} s before this host"

    def data(self, job: Job) -> dict[str, Any]:
        """Return it as JSON has it."""

        def pair(times: tuple[float | None, float | None]) -> list[float | None]:
            return [None if one is None else round(one, 2) for one in times]

        return {
            "machines": {name: pair(times) for name, times in self.machines.items()},
            "trigger": round(self.trigger, 3),
            "poweroff": round(self.poweroff, 2),
            "decision": {"rule": self.rule, "reason": self.reason},
            "primary": job.primary,
            "planned": {name: pair(times) for name, times in planned(job).items()},
            "held": not self.problems(),
            "verdict": self.verdict(),
        }


def table(data: Mapping[str, Any]) -> str:
    """Show what Seen.data() says: what was planned and what was seen, side by side, and the verdict."""

    def word(value: float | None) -> str:
        return "-" if value is None else f"{value:+.1f}"

    rows = [("s from the trigger on", "", "planned", "seen")]
    for name, (began, down) in data["machines"].items():
        should_begin, should_down = data["planned"][name]
        rows.append((name, "begins to go down", word(should_begin), word(began)))
        rows.append(("", "is down", word(should_down), word(down)))
    rows.append((data["primary"], "would power off", word(data["planned"][data["primary"]][0]), word(data["poweroff"])))
    return "\n".join([*grid(rows, "llrr"), "", data["verdict"]])


# The walls


def properties(seconds: float) -> list[str]:
    """Return the properties of the unit in which the inner half runs, for at most so many seconds.

    Each takes a way to power off, to reach a real UPS or a real upsd, or to leave something behind. walls() looks whether they stand.
    """
    hidden = (
        # systemd's, and the ways to it
        "/run/systemd/private",
        "/run/dbus",
        "/run/initctl",
        "/dev/initctl",
        # where upsmon would write of a power failure that is none
        "/run/systemd/journal",
        # NUT's passwords: with these anybody may ask for FSD
        "/etc/nut",
        "/dev/bus/usb",
    )
    return [
        # neither root, whose signals systemd obeys, nor nut, whose signals upsmon obeys
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "NoNewPrivileges=yes",
        "RestrictSUIDSGID=yes",
        "RestrictNamespaces=yes",
        "SystemCallFilter=~@reboot",
        "SystemCallErrorNumber=EPERM",
        "SystemCallArchitectures=native",
        # loopback alone, and that not the host's
        "PrivateNetwork=yes",
        "PrivateDevices=yes",
        "DevicePolicy=closed",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "ProtectProc=invisible",
        "ProtectControlGroups=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectClock=yes",
        "PrivateTmp=yes",
        f"InaccessiblePaths={' '.join(f'-{path}' for path in hidden)}",
        # the real ones' sockets and pid files; upsmon writes its own in there, wherever it is told to
        "TemporaryFileSystem=/run/nut:mode=0777",
        # the one place to write; systemd takes it away, even if the program was killed
        f"RuntimeDirectory={UNIT}",
        "RuntimeDirectoryMode=0700",
        "UMask=0077",
        f"RuntimeMaxSec={math.ceil(seconds)}",
        "KillMode=control-group",
        "SendSIGKILL=yes",
        f"TimeoutStopSec={math.ceil(2 * ENDING)}",
        "TasksMax=500",
        # if memory is short, this is the first to go
        "OOMScoreAdjust=900",
    ]


def command(systemd_run: str, program: Sequence[str], seconds: float, *, as_json: bool) -> list[str]:
    """Return what starts the inner half. program: this program, as its file is run."""
    given = [f"--property={one}" for one in properties(seconds)]
    inner = [*program, "drill", "--inside", *(["--json"] if as_json else [])]
    return [systemd_run, "--quiet", "--pipe", "--wait", "--collect", f"--unit={UNIT}", *given, "--", *inner]


# what a root that may not is refused, too
_OFF_LIMITS = (
    "run/systemd/private",
    "run/dbus/system_bus_socket",
    "run/initctl",
    "dev/initctl",
    "etc/nut/upsd.users",
    "etc/nut/upsmon.conf",
    "run/nut/upsmon.pid",
    "dev/bus/usb",
    "proc/sysrq-trigger",
)


def walls(
    root: Path = Path("/"), *, ids: Sequence[int] | None = None, groups: Sequence[int] | None = None
) -> list[str]:
    """Say what this process could still do harm with: nothing, if the walls stand. ids, groups: its own."""
    ids = (os.getuid(), os.geteuid()) if ids is None else ids
    groups = (os.getgid(), *os.getgroups()) if groups is None else groups
    wrong = []
    try:
        lines = (root / "proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        network = (root / "proc/self/net/dev").read_text(encoding="ascii", errors="replace").splitlines()[2:]
    except OSError as error:
        return [f"nobody can tell what it may do: {error}"]
    if 0 in ids:
        wrong.append("it is root")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if status.get(name, "?").strip().strip("0"):
            wrong.append(f"it has capabilities ({name})")
    if status.get("NoNewPrivs", "").strip() != "1":
        wrong.append("it may get new privileges")
    with contextlib.suppress(KeyError):
        nut = pwd.getpwnam("nut")
        if nut.pw_uid in ids or nut.pw_gid in groups:
            wrong.append("it is NUT's own user")
    cards = [line.partition(":")[0].strip() for line in network]
    if any(card != "lo" for card in cards):
        wrong.append("it has a network")
    # one that may be read or written may be talked to
    reached = [path for path in _OFF_LIMITS if any(os.access(root / path, how) for how in (os.R_OK, os.W_OK))]
    return [*wrong, *(f"it reaches /{path}" for path in reached)]


# The programs


def _dead(process: subprocess.Popen[bytes]) -> bool:
    """Say whether it has ended, and leave it as it is: as long as nobody has asked for its end, its group's number is its own."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


class Programs:
    """NUT's programs of a drill, each with all that it starts in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "NUT_CONFPATH": str(folder),
            **{name: str(folder / "state") for name in ("NUT_STATEPATH", "NUT_ALTPIDPATH", "NUT_PIDPATH")},
        }
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, program: Path, *arguments: str) -> None:
        """Start one. upsmon gets a name of its own here, for its pid file is called so; a driver must keep its own."""
        if program.name == "upsmon":
            link = self.folder / "bin" / f"drill-{name}"
            link.symlink_to(program)
            program = link
        with (self.folder / f"{name}.log").open("wb") as log:
            # programs of the host: there is no AnsibleModule whose run_command could be called
            self.started[name] = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                [str(program), *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ended(self) -> list[str]:
        """Name those that have ended."""
        return [name for name, process in self.started.items() if _dead(process)]

    def last_words(self, name: str) -> str:
        """Return the end of what one said, on one line."""
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "; ".join(line.strip() for line in text.splitlines()[-3:]) or "it said nothing"

    def end(self, seconds: float = ENDING) -> None:
        """End all of them, those that watch first: one that misses its upsd takes that for the end of the world."""
        for process in reversed(self.started.values()):
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while len(self.ended()) < len(self.started) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in self.started.values():
            # what is left of the group, too
            _signal(process, signal.SIGKILL)
            process.wait()
        self.started.clear()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


# The inner half


class Drill:
    """One drill, in a folder of its own. stopped: is set when somebody wants it to end."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        say: Say,
        stopped: threading.Event,
        *,
        finder: Find = find_program,
        clock: Callable[[], float] = boottime,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.job, self.folder, self.stopped, self.finder = job, folder, stopped, finder
        self.clock, self.wall = clock, wall
        self.tell = say
        self.deadline = clock() + job.longest
        self.programs = Programs(folder)
        self.port = 0
        self.status = "OL"
        self.since: float | None = None  # on battery
        self.written = -math.inf
        self.changed = 0  # the time of drill.dev, whole seconds
        self.noted: dict[str, float] = {}
        self.down: set[str] = set()

    def say(self, words: str) -> None:
        self.tell(f"{time.strftime('%H:%M:%S', time.localtime(self.wall()))}  {words}")

    def run(self) -> Seen:
        """Hold it. Raises DrillError. Whatever happens, nothing of it runs when this has ended."""
        try:
            self.begin()
            return self.hold()
        finally:
            self.programs.end()

    def begin(self) -> None:
        """Start NUT's programs, and wait until all are logged in."""
        found = {name: self.finder(name) for name in ("dummy-ups", "upsd", "upsmon")}
        missing = [name for name, path in found.items() if path is None]
        if missing:
            raise DrillError(
                f"NUT's {', '.join(missing)} is not installed on this host; the role nut_server installs it"
            )
        for name in ("bin", "state", "notes"):
            (self.folder / name).mkdir(mode=0o700)
        self.port = free_port()
        for name, text in files(self.folder, self.job, self.port, secrets.token_hex(16)).items():
            (self.folder / name).write_text(text, encoding="utf-8")
            (self.folder / name).chmod(0o600)
        self.supply()
        hosts = self.job.policy.machines
        self.say(f"a simulated UPS, its upsd, upsmon as on this host, and {len(hosts)} more for the others are started")
        for name, arguments in (("dummy-ups", ("-F", "-a", UPS)), ("upsd", ("-F",))):
            self.programs.start(name, found[name] or Path(), *arguments)
        self.until("the simulated UPS answers", lambda: self.flags() == ("OL",))
        for name in (PRIMARY, *map(str, range(len(hosts)))):
            conf = str(self.folder / f"{name}.conf")
            self.programs.start(name, found["upsmon"] or Path(), "-F", "-f", conf)
        self.until("all are logged in", lambda: (self.ask("logins") or 0) > len(hosts))
        self.say("all are logged in, the UPS is on mains")

    def hold(self) -> Seen:
        """Let the power fail, and see what follows."""
        job = self.job
        self.since = self.clock()
        left = "" if job.runtime is None else f", {job.runtime:.0f} s left"
        self.set("OB")
        self.say(f"the UPS: on battery{left}")
        self.pause(job.outage)
        self.set("OB LB")
        self.until("upsd says that the battery is low", lambda: "LB" in self.flags())
        trigger, moment = self.clock(), self.wall()
        self.say("the UPS: the battery is low. The times at the end count from here")
        fsd = False
        deadline = self.deadline - job.policy.longest
        while PRIMARY not in self.noted:
            if not fsd and "FSD" in self.flags():
                fsd = True
                self.say(f"{job.primary}: upsmon sets FSD")
            if self.clock() > deadline:
                raise DrillError("upsmon of this host did not come to its SHUTDOWNCMD; see HOSTSYNC and FINALDELAY")
            self.pause(ASK)
        return self.wait_at_gate(trigger, moment)

    def wait_at_gate(self, trigger: float, moment: float) -> Seen:
        job = self.job
        ups = shutdown_policy.Ups(UPS, "127.0.0.1", self.port)
        policy = shutdown_policy.Policy(
            (ups,), job.policy.machines, job.policy.settle, job.policy.reserve, job.policy.longest
        )
        asker = observe.Asker(policy.upses, self.clock)
        try:
            report = gate_loop.Gate(
                policy,
                log=lambda line: self.say(f"{job.primary}: {line}"),
                prober=self.look,
                ask_upsd=asker,
                state_path=self.folder / "gate.json",
                report_path=self.folder / "last.json",
                log_path=self.folder / "shutdown.log",
                by="drill",
                mode="drill",
                clock=Clock(self.clock, self.wall, self.pause),
            ).run()
        finally:
            asker.close()
        end = self.clock()
        self.say(f"{job.primary}: would power off now")
        return Seen(self.seen(trigger, end), moment, end - trigger, report.rule or "", report.reason or "")

    def seen(self, trigger: float, end: float) -> dict[str, tuple[float | None, float | None]]:
        found: dict[str, tuple[float | None, float | None]] = {}
        for number, host in enumerate(self.job.policy.machines):
            began = self.noted.get(str(number))
            down = began + host.shutdown_time if began is not None and began + host.shutdown_time <= end else None
            found[host.name] = (
                None if began is None else began - trigger,
                None if down is None else down - trigger,
            )
        return found

    def look(self) -> dict[str, bool | None]:
        """Say which machines are up, in the place of pings: each is until it has had its time since its SHUTDOWNCMD."""
        self.hear()
        now = self.clock()
        return {
            host.name: str(number) not in self.noted or now < self.noted[str(number)] + host.shutdown_time
            for number, host in enumerate(self.job.policy.machines)
        }

    # What goes on all the time

    def pause(self, seconds: float) -> None:
        """Let time pass. Raises DrillError if it shall, or must, go on no longer."""
        end = self.clock() + seconds
        self.tick()
        while (left := end - self.clock()) > 0:
            self.stopped.wait(min(left, LOOK))
            self.tick()

    def tick(self) -> None:
        if self.stopped.is_set():
            raise Stopped("the drill was stopped")
        if self.clock() > self.deadline:
            raise DrillError(f"the drill is not over after {self.job.longest:g} s")
        if self.clock() - self.written >= SUPPLY and self.since is not None:
            self.supply()
        # one that has run its SHUTDOWNCMD may end; the note was there first
        ended = self.programs.ended()
        self.hear()
        for name in ended:
            if name not in self.noted:
                who = name if not name.isdigit() else f"upsmon of {self.job.policy.machines[int(name)].name}"
                raise DrillError(f"{who} ended by itself: {self.programs.last_words(name)}")

    def until(self, what: str, done: Callable[[], bool]) -> None:
        deadline = self.clock() + STARTING
        while not done():
            if self.clock() > deadline:
                raise DrillError(f"within {STARTING:g} s it did not come to this: {what}")
            self.pause(LOOK)

    def set(self, status: str) -> None:
        self.status = status
        self.supply()

    def supply(self) -> None:
        """Let the simulated UPS say how it stands. dummy-ups looks at the file's time, in whole seconds."""
        now, left = self.clock(), self.job.runtime
        if left is not None and self.since is not None:
            left -= now - self.since
        self.changed = max(self.changed + 1, int(self.wall()))
        path, new = self.folder / f"{UPS}.dev", self.folder / f"{UPS}.new"
        new.write_text(dev(self.status, left), encoding="utf-8")
        os.utime(new, (self.changed, self.changed))
        new.replace(path)
        self.written = now

    def hear(self) -> None:
        """Read the notes."""
        for number, host in enumerate(self.job.policy.machines):
            name = str(number)
            if self.note(name):
                self.say(
                    f"{host.name}: upsmon runs its SHUTDOWNCMD, and it begins to go down ({host.shutdown_time:g} s)"
                )
            if name in self.noted and name not in self.down and self.clock() >= self.noted[name] + host.shutdown_time:
                self.down.add(name)
                self.say(f"{host.name}: is down")
        if self.note(PRIMARY):
            self.say(f"{self.job.primary}: upsmon runs its SHUTDOWNCMD")

    def note(self, name: str) -> bool:
        """Take up a note, if there is a new one."""
        if name in self.noted:
            return False
        try:
            text = (self.folder / "notes" / name).read_text(encoding="ascii", errors="replace")
            uptime = Path("/proc/uptime").read_text(encoding="ascii")
        except OSError:
            return False
        now = self.clock()
        when = noted(text, uptime, now)
        self.noted[name] = now if when is None else when
        return True

    def flags(self) -> tuple[str, ...]:
        status = self.ask("status")
        return vocabulary.split_status(status) if isinstance(status, str) else ()

    def ask(self, what: str) -> Any:
        """Ask the simulated upsd: for the "status" of its UPS, or the number of its "logins". None: it does not say."""
        try:
            with Client("127.0.0.1", self.port, 2.0) as client:
                return client.num_logins(UPS) if what == "logins" else client.get_var(UPS, "ups.status")
        except UpsdFailure:
            return None


def free_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def signals(stopped: threading.Event) -> Iterator[None]:
    """Have SIGTERM, SIGINT and SIGHUP set STOPPED. Nothing is broken off where it stands: what was started is ended in order."""

    def stop(_number: int, _frame: object) -> None:
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(source: int) -> str:
    """Read a line, and not a byte more. Without a buffer: no thread that reads on shall hold one when the program ends."""
    with os.fdopen(os.dup(source), "rb", buffering=0) as file:
        return file.readline(shutdown_policy.TEXT_LIMIT).decode("utf-8", "replace")


def inside(
    source: int,
    say: Say,
    out: Say,
    *,
    as_json: bool,
    room: Path | None = None,
    check: Callable[[], Sequence[str]] = walls,
    finder: Find = find_program,
) -> bool:
    """Hold the drill that the first line of SOURCE (a file descriptor) names, and say whether the order held. Raises DrillError.

    It ends when SOURCE does: then the outer half is gone, or wants it so. room: where its folder goes.
    """
    wrong = check()
    if wrong:
        raise Refused(
            f"the drill runs only where it can do no harm, and here {'; '.join(wrong)}. Run `nut-shutdown drill`"
        )
    job = read_job(_line(source))
    stopped = threading.Event()

    def listen() -> None:
        with contextlib.suppress(OSError):
            while os.read(source, 1):
                pass
        stopped.set()

    threading.Thread(target=listen, daemon=True).start()
    with signals(stopped):
        folder = Path(tempfile.mkdtemp(prefix="d", dir=room or os.environ.get("RUNTIME_DIRECTORY") or "/run"))
        try:
            seen = Drill(job, folder, say, stopped, finder=finder).run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    data = seen.data(job)
    out(json.dumps(data, indent=2) if as_json else f"\n{table(data)}")
    return bool(data["held"])


# The outer half


def ask_real(policy: shutdown_policy.Policy) -> float | None:
    """Ask the real upsd: return what the emptiest UPS has left, in s, or None if none says it.

    Raises Refused, if it is no time for a drill.
    """
    left = []
    for ups in policy.upses:
        try:
            with Client(ups.host, ups.port, observe.ASK_INTERVAL) as client:
                reading = readings.read_variables(client.list_vars(ups.name))
        except (UpsdFailure, grammar.Unencodable) as error:
            raise Refused(f"nobody can tell whether a real shutdown is near: {error}") from None
        if not reading.is_plainly_on_mains:
            raise Refused(
                f"{ups.name} says {' '.join(reading.flags) or 'nothing'}, and must be plainly on mains (OL): a real shutdown may be "
                "near, and goes first. Wait until it is"
            )
        left += [] if reading.runtime is None else [reading.runtime]
    return min(left, default=None)


def make_job(policy: shutdown_policy.Policy, conf: Path, outage: float, primary: str) -> Job:
    """Gather what the inner half has to know. Raises Refused."""
    if not 0 <= outage <= OUTAGE_MOST:
        raise Refused(f"--outage must be from 0 to {OUTAGE_MOST:g} s")
    try:
        text = conf.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Refused(f"{conf} can't be read: {error.strerror}. The role nut_server writes it") from None
    # an address has nothing to do in there, and a stage is no part of it
    return Job(
        shutdown_policy.Policy((), policy.machines, policy.settle, policy.reserve, policy.longest),
        timing(text),
        ask_real(policy),
        outage,
        primary,
    )


def name_of(policy: shutdown_policy.Policy) -> str:
    """Return this host's name, or what tells it from the others if one of them is called so."""
    name = platform.node().partition(".")[0] or "this host"
    return f"{name} (this host)" if name in {host.name for host in policy.machines} else name


def systemd_run(booted: Path = SYSTEMD, path: str = "/usr/bin:/bin") -> str:
    """Return the program that starts the inner half. Raises Refused where there is none, or no systemd that it could ask."""
    found = shutil.which("systemd-run", path=path)
    if found is None or not booted.is_dir():
        raise Refused("without systemd and its systemd-run there is nothing that keeps a drill from doing harm")
    return found


def outside(
    policy: shutdown_policy.Policy,
    outage: float,
    say: Say,
    *,
    as_json: bool,
    program: Sequence[str],
    run: Run,
    conf: Path = CONF,
    start: Callable[[], str] = systemd_run,
    user: Callable[[], int] = os.geteuid,
) -> int:
    """Hold a drill, and return the exit code of its inner half, which says on this process's own streams what happens. Raises Refused."""
    if user() != 0:
        raise Refused("run it as root: the drill itself is given away to nobody in particular")
    starter = start()
    job = make_job(policy, conf, outage, name_of(policy))
    stopped = threading.Event()
    # a little later than it ends by itself
    words = command(starter, program, job.longest + 30, as_json=as_json)
    asker = observe.Asker(policy.upses, boottime)
    try:
        with signals(stopped):
            return _watch(words, job, say, stopped, asker=asker, run=run)
    finally:
        asker.close()


def _watch(
    words: Sequence[str],
    job: Job,
    say: Say,
    stopped: threading.Event,
    *,
    asker: Callable[[], Mapping[str, gate.Reading]],
    run: Run,
) -> int:
    # a session of its own: Ctrl-C is for this half, which ends the other one in order
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        list(words), stdin=subprocess.PIPE, start_new_session=True
    ) as process:
        source = process.stdin
        try:
            with contextlib.suppress(BrokenPipeError):
                if source:
                    source.write(f"{job.dump()}\n".encode())
                    source.flush()
            while process.poll() is None and not stopped.wait(LOOK):
                lost = [name for name, one in asker().items() if one.on_battery]
                if lost:
                    say(f"{', '.join(lost)} is on battery, in earnest: the drill ends")
                    break
        finally:
            # the end of its input is the end of the inner half, whatever becomes of this one
            with contextlib.suppress(OSError):
                if source:
                    source.close()
            try:
                process.wait(3 * ENDING)
            except subprocess.TimeoutExpired:
                run(["systemctl", "stop", "--", f"{UNIT}.service"])
        code = process.wait()
    if code not in (0, 1, 2):
        say(f"the drill was ended from outside ({code})")
    return code if code in (0, 1, 2) else 1
