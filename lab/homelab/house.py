# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A site of the lab in a power cut: its machines, its UPS, and the physics of it. Who has no power stops at once, who gets power starts."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from . import CHECKOUT, Lab, parse_timestamp
from .hosts import SITES, LabHost
from .podman import PODMAN, LabError, run_command, run_podman
from .verdict import Expectation, Observation, Stop, describe_events, judge_case, measure_delay, measure_wait

READY_SECONDS = 120.0  # from power to a homelab that serves its UPS; 15 to 30 on two cores
TICK = 0.4
DRAIN_INTERVAL = 2.0

# What the primary says of itself, a line for each change: status of the UPS, POWERDOWNFLAG, and whether the gate has begun. The
# shell asks upsd itself, and starts no program: three times a second, it would take more of the machine than what it watches.
WATCH = """
trap '' PIPE
ask() {
    status=none
    [ -n "$open" ] || { { exec 3<>/dev/tcp/localhost/3493; } 2>/dev/null && open=yes; } || return
    if printf 'GET VAR ups ups.status\\n' >&3 && read -r -t 2 answer <&3; then
        case $answer in VAR*) status=${answer#*\\"}; status=${status%\\"*} ;; esac
    else
        exec 3>&-
        open=
    fi
}
while :; do
    ask 2>/dev/null
    flag=-; [ -e /run/nut-killpower ] && flag=flag
    gate=-; [ -e /run/nut-shutdown/gate.json ] && gate=gate
    new="$status|$flag|$gate"
    [ "$new" = "$old" ] || { echo "$EPOCHREALTIME|$new"; old=$new; }
    read -r -t 0.3 _line
    [ $? -gt 128 ] || exit 0
done
"""

# the last of it: a driver that finds nothing says so twice a second
JOURNAL = (
    "journalctl --since @{:.0f} --no-pager --quiet --output short-precise --no-hostname"
    " -u 'nut-*' -u systemd-logind -u lab-witness.service -t upssched -t upssched_event.py -t shutdown | tail -n 150"
)

Step = Callable[["House"], None]


@dataclass(frozen=True)
class Case:
    """A power cut. words: what is done. sites: where. nas: seconds that TrueNAS takes to go down.

    battery: seconds that it lasts from "low" on; None: for ever. stays: seconds to watch before "nobody goes down" is believed.
    mended: what is put right after it. ci: at which site each run of the tests has it.
    variables: Ansible's extra variables that it is deployed with.
    """

    name: str
    title: str
    steps: tuple[Step, ...]
    expected: Expectation = field(default_factory=Expectation)
    sites: tuple[str, ...] = ("pve8",)
    nas_seconds: float = 5.0
    battery_seconds: float | None = None
    watch_seconds: float = 20.0
    repairs: tuple[Step, ...] = ()
    ci_site: str = ""
    variables: Mapping[str, object] | None = None


class House:
    """A site's machines, its UPS, and the wires between them; and what is seen of all that."""

    def __init__(self, lab: Lab, site: str, say: Callable[[str], None]) -> None:
        """Take the site over; it must be up, with one UPS."""
        self.lab, self.site, self.log = lab, site, say
        self.hosts: dict[str, LabHost] = {host.name: host for host in SITES[site]}
        self.primary = next(host.name for host in SITES[site] if host.ups)
        self.nas = next(host.name for host in SITES[site] if host.kind == "truenas")
        self.secondaries = (self.nas, *(name for name in self.hosts if name not in (self.primary, self.nas)))
        self.lock = threading.RLock()
        self.pids = {name: self._find_pid(name) for name in self.hosts}
        self.started_at = dict.fromkeys(self.hosts, 0.0)  # when each was started last
        self.begun: dict[str, float | None] = dict.fromkeys(self.hosts)
        self.stop_causes: dict[str, str] = {}
        self.power, self.drained, self.full = True, 0.0, 0
        self.empty_at: float | None = None
        self.last_report = ("", "-", "-")
        self.case: Case | None = None
        self.peak_load = 0.0
        self.deployed: Mapping[str, object] | None = None
        self.start = time.time()
        self.events: list[tuple[float, str]] = []
        self.stops: list[Stop] = []
        self.cuts: list[float] = []
        self.halt = threading.Event()
        self.listener: subprocess.Popen[str] | None = None
        self.physics_error: Exception | None = None
        self.physics = threading.Thread(target=self._run_physics, daemon=True)

    def __enter__(self) -> House:
        self._start_listener()
        self.physics.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.halt.set()
        self.physics.join()
        if self.listener and self.listener.stdin:
            self.listener.stdin.close()
            self.listener.wait()

    # A case

    def play_case(self, case: Case) -> dict[str, Any]:
        """Do a case, and return its row. Raises LabError if the site can't be brought back to what it was."""
        if case.variables != self.deployed:
            self.log(f"{case.name}: deploying {json.dumps(case.variables)}")
            deploy_hosts(self.lab, self.hosts, case.variables)
            self.deployed = case.variables
        self.run_script("nas", f"echo {case.nas_seconds:g} >/etc/lab/shutdown-seconds")
        with self.lock:
            self.case, self.start = case, time.time()
            self.events, self.stops, self.cuts, self.peak_load = [], [], [], 0.0
        (self.lab.state / "hosts" / self.primary / "guests").unlink(missing_ok=True)
        unwell = []
        try:
            for step in case.steps:
                step(self)
        except LabError as error:
            unwell.append(f"the case could not be played: {error}")
        asleep = self._finish_case(case)
        guests = self._read_guest_log()
        unwell += self._restore_site(case)
        seen = replace(self.make_observation(asleep, unwell), guests=guests)
        want = replace(
            case.expected,
            late=tuple(self.resolve_name(one) for one in case.expected.late),
            lost=tuple(self.resolve_name(one) for one in case.expected.lost),
        )
        problems = judge_case(want, seen)
        if unwell:
            self._restart_machines()
        return {
            "case": case.name,
            "site": self.site,
            "words": case.title,
            "happened": describe_events(seen),
            "problems": problems,
            "waited": measure_wait(seen),
            "busy": round(seen.load, 1),
            "delay": measure_delay(seen.events, [fall.began for fall in seen.stops]),
            "rule": seen.gate["rule"] if seen.gate else None,
            "stops": [asdict(stop) for stop in seen.stops],
            "took": round(time.time() - self.start, 1),
            "journals": self.collect_journals() if problems else {},
        }

    def collect_journals(self) -> dict[str, list[str]]:
        """Return what each machine that runs has noted of NUT, and of its shutdown, since the case began: host -> lines."""
        found = {}
        for name in self.list_running():
            command = JOURNAL.format(self.start)
            lines = self.run_script(name, command, check=False).splitlines()
            found[name] = [line for line in lines if not line.startswith("-- ")]
        return found

    def make_observation(self, asleep: Sequence[str], unwell: Sequence[str]) -> Observation:
        """Return what was seen of this case."""
        gate = None
        with contextlib.suppress(LabError, ValueError):
            report = json.loads(self.run_script("primary", "cat /var/lib/nut-shutdown/last.json"))
            gate = report if report["began"] >= self.start - 1 else None
        with self.lock:
            return Observation(
                self.primary,
                self.secondaries,
                tuple(self.stops),
                tuple(self.cuts),
                tuple(sorted(self.events)),
                gate,
                tuple(asleep),
                tuple(unwell),
                load=self.peak_load,
            )

    def _read_guest_log(self) -> tuple[tuple[float, int, str], ...]:
        """Return what Proxmox's guests noted of themselves: when, which, what."""
        try:
            lines = (self.lab.state / "hosts" / self.primary / "guests").read_text().splitlines()
        except FileNotFoundError:
            return ()
        return tuple((float(at) - self.start, int(number), what) for at, number, what in map(str.split, lines))

    def _finish_case(self, case: Case) -> list[str]:
        """Watch until nothing more happens, let the mains return and the UPS do its cycle. Returns who stayed off."""
        stays = case.expected.ends != "cycle"
        hopeless = {self.resolve_name(one) for one in case.expected.lost}
        begun = time.time()
        while not set(self.list_running()) <= (hopeless if self.primary not in self.list_running() else set()):
            quiet = case.watch_seconds if stays and not self.is_going_down() else 130.0
            if time.time() - max([begun, *(self.start + at for at, _words in self.events)]) > quiet:
                break
            self._check_physics()
            time.sleep(TICK)
        if not self.control_ups("status")["mains"]:
            # the UPS is told at the very end, and podman may have seen that end before
            time.sleep(1)
            self.skip_ups_delay(hopeless)
            self.switch_mains(True)
        if set(self.list_running()) == set(self.hosts) and not self.has_pending_switch():
            return []
        # whoever is off gets its power back from the UPS alone
        deadline = time.monotonic() + 150
        idle = 0
        while time.monotonic() < deadline and not (
            set(self.list_running()) == set(self.hosts) and not self.has_pending_switch()
        ):
            self.skip_ups_delay(hopeless)
            idle = 0 if self.has_pending_switch() or not self.power or any(self.begun.values()) else idle + 1
            if idle > 12:
                break
            self._check_physics()
            time.sleep(1)
        asleep = sorted(set(self.hosts) - set(self.list_running()))
        for name in asleep:
            self.note_event(f"{name} stays off")
        return asleep

    def is_going_down(self) -> bool:
        """Say whether somebody goes down, has gone, or is about to."""
        status, flag, gate = self.last_report
        about = "FSD" in status.split() or flag != "-" or gate != "-"
        return about or any(self.begun.values()) or any(fall.how == "shutdown" for fall in self.stops)

    def skip_ups_delay(self, hopeless: set[str]) -> None:
        """Spare the time in which nothing happens: all are down, but the UPS waits."""
        if set(self.list_running()) <= hopeless and self.has_pending_switch():
            self.control_ups("hurry")
            # the machines must lose their power before it is there again
            deadline = time.monotonic() + 10
            while self.power != all(one["outlets"] for one in self._list_upses()) and time.monotonic() < deadline:
                time.sleep(0.1)

    def has_pending_switch(self) -> bool:
        """Say whether the UPS is about to switch its outlets, or has them off."""
        return not all(one["outlets"] and one["shutdown_in"] < 0 for one in self._list_upses())

    def _restore_site(self, case: Case) -> list[str]:
        """Start who is still off, and wait until all is as before. Returns what is not."""
        for name in sorted(set(self.hosts) - set(self.list_running())):
            self._start_machine(name)
        deadline = time.monotonic() + READY_SECONDS
        again = 0.0
        while True:
            # more than once: a machine that is just starting may not be ready for it
            if time.monotonic() >= again:
                again = time.monotonic() + 15
                for step in case.repairs:
                    step(self)
            wrong = self.find_faults()
            if not wrong:
                return []
            if time.monotonic() > deadline:
                return [f"when all was over: {words}" for words in wrong]
            self._check_physics()
            time.sleep(1)

    def ensure_ready(self) -> None:
        """Have all as it must be before the first case. Raises LabError if that can't be had."""
        deadline = time.monotonic() + 20
        while self.find_faults():
            if time.monotonic() > deadline:
                self._restart_machines()
                return
            time.sleep(1)

    def _restart_machines(self) -> None:
        """Start all machines anew, as a person would who does not know why. Raises LabError if that does not help."""
        self.log("all machines are started anew")
        if not self.control_ups("status")["upses"]:
            self.control_ups("replug")
        with contextlib.suppress(LabError):
            self.control_ups("unhang")
        self.switch_mains(True)
        for name in self.hosts:
            if name in self.list_running():
                self.pull_plug(name)
            deadline = time.monotonic() + 30
            while name in self.list_running() and time.monotonic() < deadline:
                time.sleep(TICK)
            self._start_machine(name)
        deadline = time.monotonic() + READY_SECONDS
        while wrong := self.find_faults():
            if time.monotonic() > deadline:
                raise LabError(f"{self.site} does not come back: {'; '.join(wrong)}")
            time.sleep(1)

    def find_faults(self) -> list[str]:
        """Say what is not as it should be between two cases."""
        away = [f"{name} is off" for name in self.hosts if name not in self.list_running()]
        if away:
            return away
        status, flag, gate = self.last_report
        wrong = [] if status.split()[:1] == ["OL"] and "FSD" not in status else [f"upsd says {status or 'nothing'}"]
        wrong += [f"{self.primary} has the POWERDOWNFLAG"] if flag != "-" else []
        wrong += [f"{self.primary} has a gate"] if gate != "-" else []
        if self.has_pending_switch():
            wrong.append("the UPS is about to cut its outlets")
        if not wrong:
            try:
                there = int(self.run_script("primary", "upsc -c ups@localhost 2>/dev/null | sort -u | wc -l"))
            except (LabError, ValueError):
                there = 0
            if there < len(self.hosts):
                wrong.append(f"{there} of {len(self.hosts)} are logged in at upsd")
        return wrong

    # Deeds

    def resolve_name(self, who: str) -> str:
        """Return the host of a role, or of a name."""
        return {"primary": self.primary, "nas": self.nas}.get(who, who)

    def note_event(self, words: str, at: float | None = None) -> None:
        """Note that something happened, now or at a time (seconds since 1970)."""
        with self.lock:
            since = (time.time() if at is None else at) - self.start
            self.events.append((round(since, 1), words))
        self.log(f"{self.case.name if self.case else ''}: {since:6.1f} s  {words}")

    def switch_mains(self, on: bool) -> None:
        """Take the mains away, or bring them back."""
        self.note_event(f"mains {'on' if on else 'off'}")
        with self.lock:
            self.control_ups("mains", on=on)
            if on and self.empty_at is not None:
                self.empty_at = None
                self.control_ups("set", values={"runtime": self.full})

    def set_battery_low(self) -> None:
        """The battery is low; from here on it lasts as long as the case says."""
        self.note_event("battery low")
        self.control_ups("low")
        if self.case and self.case.battery_seconds:
            with self.lock:
                self.full = self._list_upses()[0]["state"]["runtime"]
                self.empty_at = time.time() + self.case.battery_seconds

    def empty_battery(self) -> None:
        """The battery is empty."""
        self.note_event("battery empty")
        self.control_ups("empty")

    def run_script(self, who: str, script: str, *, privileged: bool = False, check: bool = True) -> str:
        """Run a script on a machine, past its network; return what it prints. Raises LabError if it fails."""
        more = ["--privileged"] if privileged else []
        container = self.lab.container_name(self.resolve_name(who))
        return run_podman("exec", *more, container, "sh", "-c", script, check=check).stdout

    def find_address(self, who: str) -> str:
        """Return a machine's address in the lab's network."""
        seen = json.loads(
            run_podman("inspect", "--type", "container", self.lab.container_name(self.resolve_name(who))).stdout
        )[0]
        return str(seen["NetworkSettings"]["Networks"][self.lab.prefix]["IPAddress"])

    def wait_for_phase(self, phase: str, seconds: float) -> None:
        """Wait for a phase. Raises LabError if it does not come."""
        deadline = time.monotonic() + seconds
        while not self.is_at(phase):
            if time.monotonic() > deadline:
                raise LabError(f"not within {seconds:g} s: {phase}")
            self._check_physics()
            time.sleep(0.1)

    def is_at(self, phase: str) -> bool:
        """Say whether a case has come to a phase."""
        status, _flag, gate = self.last_report
        ran = {fall.host for fall in self.stops}
        looks: dict[str, Callable[[], bool]] = {
            "battery": lambda: "OB" in status.split(),
            "FSD": lambda: "FSD" in status.split(),
            "gate": lambda: gate == "gate",
            "primary begins": lambda: self.begun[self.primary] is not None,
            "nas begins": lambda: self.begun[self.nas] is not None,
            "nas down": lambda: self.nas in ran and self.nas not in self.list_running(),
            "all down": lambda: not self.list_running(),
            "all run": lambda: self.power and len(self.list_running()) == len(self.hosts),
            "all logged in": lambda: "OB" in status.split() and self._count_clients() >= len(self.hosts),
            "cut": lambda: not self.power,
        }
        return looks[phase]()

    def _count_clients(self) -> int:
        return int(self.run_script("primary", "upsc -c ups@localhost 2>/dev/null | sort -u | wc -l", check=False) or 0)

    def pull_plug(self, who: str) -> None:
        """Pull a machine's plug."""
        name = self.resolve_name(who)
        self.note_event(f"{name}: plug pulled")
        with self.lock:
            self.stop_causes[name] = "pulled"
            run_podman("kill", self.lab.container_name(name))

    def boot_machine(self, who: str) -> None:
        """Start a machine."""
        name = self.resolve_name(who)
        deadline = time.monotonic() + 30
        while name in self.list_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.note_event(f"{name}: plug back")
        self._start_machine(name)

    def reboot_machine(self, who: str) -> None:
        """Reboot a machine: what podman sees as an end is followed by a start."""
        name = self.resolve_name(who)
        self.note_event(f"{name}: reboot")
        with self.lock:
            self.stop_causes[name] = "reboot"
        self.run_script(who, "systemctl reboot", check=False)
        deadline = time.monotonic() + 90
        while name in self.list_running():
            if time.monotonic() > deadline:
                raise LabError(f"{name} does not reboot within 90 s")
            time.sleep(0.1)
        self._start_machine(name)

    def list_running(self) -> list[str]:
        """Name the machines that run."""
        with self.lock:
            return [name for name, pid in self.pids.items() if pid]

    def control_ups(self, command: str, **request: object) -> dict[str, Any]:
        """Ask the UPS's emulator. Raises LabError if it refuses."""
        folder = self.lab.state / "usb" / self.primary
        # a socket's path is short, so it is named through its open directory
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(f"/proc/self/fd/{directory}/control")
                client.sendall(json.dumps({"command": command, **request}).encode() + b"\n")
                with client.makefile("rb") as stream:
                    answer: dict[str, Any] = json.loads(stream.readline())
        finally:
            os.close(directory)
        if not answer.get("ok"):
            raise LabError(f"the UPS of {self.primary}: {answer.get('error')}")
        return answer

    def _list_upses(self) -> list[dict[str, Any]]:
        status = self.control_ups("status")
        return [*status["upses"], *status["unplugged"]]

    # Physics

    def _run_physics(self) -> None:
        missed = 0
        while not self.halt.wait(TICK):
            try:
                self._update_physics()
                missed = 0
            except Exception as error:
                # told by whoever waits for something; on a machine that does much else, one answer may come too late
                missed += 1
                if missed > 5:
                    self.physics_error = error
                    return

    def _check_physics(self) -> None:
        if self.physics_error:
            raise LabError(
                f"the watch of {self.site} failed: {type(self.physics_error).__name__}: {self.physics_error}"
            )

    def _update_physics(self) -> None:
        with self.lock:
            self.peak_load = max(self.peak_load, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
            self._discharge_battery()
            upses = self._list_upses()
            power = all(one["outlets"] for one in upses)
            for name, pid in self.pids.items():
                if pid:
                    self._watch_machine(name, pid)
            if self.power and not power:
                at = max(
                    parse_timestamp(event["time"])
                    for one in upses
                    for event in one["events"]
                    if event["event"] == "outlets off"
                )
                self.cuts.append(at - self.start)
                self.note_event("the UPS cuts the power", at)
                for name in self.list_running():
                    self.stop_causes[name] = "lost"
                    run_podman("kill", self.lab.container_name(name), check=False)
            if power and not self.power:
                self.note_event("the UPS gives power")
                self.power = True
                for name in self.hosts:
                    if name not in self.list_running():
                        self._start_machine(name)
            self.power = power

    def _discharge_battery(self) -> None:
        if self.empty_at is None or time.time() - self.drained < DRAIN_INTERVAL:
            return
        self.drained = time.time()
        left = self.empty_at - time.time()
        self.control_ups("set", values={"runtime": max(round(left), 1)})
        if left <= 0:
            self.empty_at = None
            self.control_ups("empty")

    def _watch_machine(self, name: str, pid: int) -> None:
        """Note a machine's begin and end."""
        began = None
        with contextlib.suppress(FileNotFoundError, ValueError):
            began = float((self.lab.state / "hosts" / name / "shutdown-began").read_text())
        if began is not None and began > self.started_at[name] and self.begun[name] is None:
            self.begun[name] = began
            self.note_event(f"{name} begins to shut down", began)
        if Path(f"/proc/{pid}").exists():
            return
        state = json.loads(run_podman("inspect", "--type", "container", self.lab.container_name(name)).stdout)[0][
            "State"
        ]
        if state["Status"] in ("running", "stopping"):
            return
        down = parse_timestamp(state["FinishedAt"])
        started = self.begun[name]
        how = self.stop_causes.pop(name, "shutdown" if started is not None else "stopped")
        role = "primary" if name == self.primary else "secondary"
        self.stops.append(Stop(name, role, None if started is None else started - self.start, down - self.start, how))
        self.pids[name], self.begun[name] = 0, None
        if name == self.primary:
            self.last_report = ("", "-", "-")
        self.note_event(f"{name} is down" if how == "shutdown" else f"{name} is down ({how})", down)

    def _start_machine(self, name: str) -> None:
        """Give a machine power."""
        with self.lock:
            if self.pids[name]:
                return
            self.stop_causes.pop(name, None)
            self.started_at[name] = time.time()
            run_podman("start", self.lab.container_name(name))
            self.pids[name] = self._find_pid(name)
        if name == self.primary:
            self._start_listener()

    def _find_pid(self, name: str) -> int:
        return int(run_podman("inspect", "--format", "{{.State.Pid}}", self.lab.container_name(name)).stdout)

    def _start_listener(self) -> None:
        """Hear what the primary says of itself."""
        ears = subprocess.Popen(
            [*PODMAN, "exec", "--interactive", self.lab.container_name(self.primary), "bash", "-c", WATCH],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.listener = ears

        def listen() -> None:
            for line in ears.stdout or ():
                at, status, flag, gate = line.strip().split("|")
                with self.lock:
                    if self.listener is not ears:
                        return
                    old, self.last_report = self.last_report, (status, flag, gate)
                for words in describe_changes(old, self.last_report):
                    self.note_event(words, float(at))

        threading.Thread(target=listen, daemon=True).start()


def describe_changes(old: tuple[str, str, str], new: tuple[str, str, str]) -> list[str]:
    """Say in words what is new of what the primary says of itself."""
    words = []
    before, now = set(old[0].split()), set(new[0].split())
    if "FSD" in now and "FSD" not in before:
        words.append("FSD")
    elif new[0] == "none" and old[0] not in ("none", ""):
        words.append("upsd says nothing")
    elif old[0] == "none" and now and new[0] != "none":
        words.append(f"upsd says {new[0]}")
    if new[1] != "-" and old[1] == "-":
        words.append("POWERDOWNFLAG")
    elif new[1] == "-" and old[1] != "-":
        words.append("POWERDOWNFLAG gone")
    if new[2] != "-" and old[2] == "-":
        words.append("the gate begins")
    return words


def deploy_hosts(lab: Lab, hosts: Iterable[str], variables: Mapping[str, object] | None = None) -> None:
    """Deploy hosts by the main playbook, as a user does."""
    extra = ["--extra-vars", json.dumps(variables)] if variables else []
    run_command(
        [
            "ansible-playbook",
            f"--limit={','.join(hosts)}",
            "-i",
            str(CHECKOUT / "inventories" / "lab"),
            str(CHECKOUT / "playbooks" / "pve.yml"),
            *extra,
        ],
        env={**os.environ, "LAB": lab.name, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )
