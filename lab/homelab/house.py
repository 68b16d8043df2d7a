# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A site of the lab during a power cut: its machines, its UPSes, and the physics. Machines stop without power and start with it.

One file, because the steps, the physics and the restoration of a site share one lock and one state.
"""

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
from .network_card import NetworkCards
from .podman import PODMAN, LabError, run_command, run_podman
from .verdict import (
    LATE,
    PLUGGED_IN,
    WOKEN,
    Expectation,
    Observation,
    Stop,
    describe_events,
    judge_case,
    measure_delay,
    measure_wait,
)

READY_SECONDS = 120.0  # from power to an upsd that serves its UPS; 15 to 30 on two cores
TICK = 0.4
DRAIN_INTERVAL = 2.0

OWN_PORT, SECOND_PORT = 1, 2
UPS_NAMES = {OWN_PORT: "ups", SECOND_PORT: "second"}
SECOND_MODEL = "eaton"  # no site has it as its own

# Runs on the primary and prints a line for each change: status of the UPS, POWERDOWNFLAG, and whether the gate has begun. The shell
# talks to upsd itself, because starting programs three times a second would load the machine more than what it watches.
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

# only the end, because a driver without a UPS logs twice a second
JOURNAL = (
    "journalctl --since @{:.0f} --no-pager --quiet --output short-precise --no-hostname"
    " -u 'nut-*' -u systemd-logind -u lab-witness.service -t upssched -t upssched_event.py -t shutdown | tail -n 150"
)

Step = Callable[["House"], None]


@dataclass(frozen=True)
class Case:
    """A power cut in which something may go wrong."""

    name: str
    title: str
    steps: tuple[Step, ...]
    expected: Expectation = field(default_factory=Expectation)
    sites: tuple[str, ...] = ("pve8",)
    nas_seconds: float = 5.0  # that TrueNAS takes to go down
    nas_late: float = 0.0  # seconds from power until TrueNAS boots, as a large NAS takes in its firmware
    battery_seconds: float | None = None  # that the battery lasts after it is low; None: forever
    watch_seconds: float = 20.0  # without an event, before the lab concludes that no machine goes down
    before: tuple[Step, ...] = ()  # run before the deployment, which then is done in any case
    repairs: tuple[Step, ...] = ()  # run after the case
    ci_site: str = ""  # where every test run plays the case
    variables: Mapping[str, object] | None = None  # extra variables of the deployment
    # what a second UPS powers, which is plugged in for the case: "" no second UPS; "spare": the primary, which stays up with either
    # UPS; "needed": the primary, which needs both; "router": no machine of the site. The secondaries are always on the first one
    second_ups: str = ""


EACH_RELEASE = ("pve8", "pve9", "pve14")  # the sites of a case that is played with each release of NUT


class House:
    """A site's machines, its UPSes, the wires between them, and a record of what happens."""

    def __init__(self, lab: Lab, site: str, say: Callable[[str], None]) -> None:
        """Take control of a site, which must be up and have one UPS of its own."""
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
        self.unpowered: set[str] = set()  # machines without power
        self.stays_off: set[str] = set()  # machines that do not start when they get power, only when they are woken
        self.late: dict[str, float] = {}  # machines that have power and boot later -> when
        self.cards: NetworkCards | None = None  # of the machines, if they listen
        self.senders: tuple[str, ...] = ()  # the addresses from which the primary's packets come
        self.second_ups = ""  # as Case.second_ups
        self.drained, self.full = 0.0, 0
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
        with contextlib.suppress(LabError, OSError):
            self._wire_second_ups("")
        self._disable_wake()
        if self.listener and self.listener.stdin:
            self.listener.stdin.close()
            self.listener.wait()

    # A case

    def play_case(self, case: Case) -> dict[str, Any]:
        """Play a case and return its row. Raise LabError if the site can't be restored afterwards."""
        if case.before or case.variables != self.deployed:
            self._wire_second_ups(case.second_ups)
            for step in case.before:
                step(self)
            self.log(f"{case.name}: deploying {json.dumps(case.variables)}")
            deploy_hosts(self.lab, self.hosts, case.variables)
            self.deployed = case.variables
        self.run_script("nas", f"echo {case.nas_seconds:g} >/etc/lab/shutdown-seconds")
        with self.lock:
            self.case, self.start = case, time.time()
            self.events, self.stops, self.cuts, self.peak_load = [], [], [], 0.0
        (self.lab.state / "hosts" / self.primary / "guests").unlink(missing_ok=True)
        faults = []
        try:
            for step in case.steps:
                step(self)
        except LabError as error:
            faults.append(f"the case could not be played: {error}")
        stayed_off = self._finish_case(case)
        self._disable_wake()
        guests = self._read_guest_log()
        faults += self._restore_site(case)
        seen = replace(self.make_observation(stayed_off, faults), guests=guests)
        want = replace(
            case.expected,
            late=tuple(self.resolve_name(name) for name in case.expected.late),
            lost=tuple(self.resolve_name(name) for name in case.expected.lost),
        )
        problems = judge_case(want, seen)
        if faults:
            self._restart_machines()
        return {
            "case": case.name,
            "site": self.site,
            "words": case.title,
            "happened": describe_events(seen),
            "problems": problems,
            "waited": measure_wait(seen),
            "busy": round(seen.load, 1),
            "delay": measure_delay(seen.events, [stop.began for stop in seen.stops]),
            "rule": seen.gate["rule"] if seen.gate else None,
            "stops": [asdict(stop) for stop in seen.stops],
            "took": round(time.time() - self.start, 1),
            "journals": self.collect_journals() if problems else {},
        }

    def _wire_second_ups(self, powers: str) -> None:
        """Plug in the second UPS, or unplug it, and connect machines to it."""
        with self.lock:
            self.second_ups = powers
            plugged = {ups["port"] for ups in self.control_ups("status")["upses"]}
            if powers and SECOND_PORT not in plugged:
                self.control_ups("plug", model=SECOND_MODEL, port=SECOND_PORT)
            elif not powers and SECOND_PORT in plugged:
                self.control_ups("unplug", port=SECOND_PORT)

    def collect_journals(self) -> dict[str, list[str]]:
        """Return the journal lines about NUT and shutdowns since the case began, of each running machine: host -> lines."""
        found = {}
        for name in self.list_running():
            command = JOURNAL.format(self.start)
            lines = self.run_script(name, command, check=False).splitlines()
            found[name] = [line for line in lines if not line.startswith("-- ")]
        return found

    def make_observation(self, stayed_off: Sequence[str], faults: Sequence[str]) -> Observation:
        """Return what was observed of this case."""
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
                tuple(stayed_off),
                tuple(faults),
                load=self.peak_load,
            )

    def _read_guest_log(self) -> tuple[tuple[float, int, str], ...]:
        """Return the events of Proxmox's guests: seconds, number, event."""
        try:
            lines = (self.lab.state / "hosts" / self.primary / "guests").read_text().splitlines()
        except FileNotFoundError:
            return ()
        return tuple((float(at) - self.start, int(number), what) for at, number, what in map(str.split, lines))

    def _finish_case(self, case: Case) -> list[str]:
        """Watch until nothing more happens, and restore the mains. Return the machines that stayed off."""
        stays = case.expected.ends != "cycle"
        without_hope = {self.resolve_name(name) for name in case.expected.lost}
        begun = time.time()
        while not set(self.list_running()) <= (without_hope if self.primary not in self.list_running() else set()):
            ends_early = case.expected.ends == "secondaries" or (stays and not self.is_going_down())
            quiet = case.watch_seconds if ends_early else 130.0
            if (
                self.is_cycle_over()
                or time.time() - max([begun, *(self.start + at for at, _words in self.events)]) > quiet
            ):
                break
            self._check_physics()
            time.sleep(TICK)
        if not all(ups["mains"] for ups in self._list_upses()):
            # the order to the UPS comes at the very end, maybe after podman reports the container as ended
            time.sleep(1)
            self.skip_ups_delay(without_hope)
            self.switch_mains(True)
        if set(self.list_running()) == set(self.hosts) and not self.has_pending_switch():
            return []
        # only the UPS can restore the power of a machine that is off
        deadline = time.monotonic() + 150
        idle = 0
        while time.monotonic() < deadline and not (
            set(self.list_running()) == set(self.hosts) and not self.has_pending_switch()
        ):
            self.skip_ups_delay(without_hope)
            is_busy = self.has_pending_switch() or self.unpowered or self.late or any(self.begun.values())
            idle = 0 if is_busy else idle + 1
            if idle > 12:
                break
            self._check_physics()
            time.sleep(1)
        stayed_off = sorted(set(self.hosts) - set(self.list_running()))
        for name in stayed_off:
            self.note_event(f"{name} stays off")
        return stayed_off

    def is_going_down(self) -> bool:
        """Return whether a machine is going down, has gone down, or is about to."""
        status, flag, gate = self.last_report
        about = "FSD" in status.split() or flag != "-" or gate != "-"
        return about or any(self.begun.values()) or any(stop.how == "shutdown" for stop in self.stops)

    def is_cycle_over(self) -> bool:
        """Return whether all machines went down, lost their power, and run again on mains."""
        went_down = {stop.host for stop in self.stops if stop.how in ("shutdown", "lost")}
        return (
            went_down == set(self.hosts) == set(self.list_running())
            and bool(self.cuts)
            and self.cuts[-1] > max(stop.down for stop in self.stops if stop.host == self.primary)
            and not self.is_shutting_down()
            and all(ups["mains"] for ups in self._list_upses())
        )

    def is_shutting_down(self) -> bool:
        """Return whether a machine is going down now, or about to."""
        status, flag, gate = self.last_report
        return (
            "FSD" in status.split()
            or flag != "-"
            or gate != "-"
            or any(self.begun.values())
            or self.has_pending_switch()
        )

    def skip_ups_delay(self, without_hope: set[str]) -> None:
        """Skip the delays of the UPSes if every machine is down."""
        if set(self.list_running()) <= without_hope and self.has_pending_switch():
            self.control_ups("hurry")
            # the machines must lose their power before it returns
            deadline = time.monotonic() + 10
            while self.unpowered != self._find_unpowered(self._list_upses()) and time.monotonic() < deadline:
                time.sleep(0.1)

    def has_pending_switch(self) -> bool:
        """Return whether a UPS is about to switch its outlets, or has switched them off."""
        return not all(ups["outlets"] and ups["shutdown_in"] < 0 for ups in self._list_upses())

    def _restore_site(self, case: Case) -> list[str]:
        """Start the machines that are off, and wait until everything is restored. Return what is not."""
        for name in sorted(set(self.hosts) - set(self.list_running())):
            self._start_machine(name)
        deadline = time.monotonic() + READY_SECONDS
        again = 0.0
        while True:
            # more than once, because a machine that is booting may not be ready
            if time.monotonic() >= again:
                again = time.monotonic() + 15
                for step in case.repairs:
                    step(self)
            wrong = self.find_faults()
            if not wrong:
                return []
            if time.monotonic() > deadline:
                return [f"after the case: {words}" for words in wrong]
            self._check_physics()
            time.sleep(1)

    def ensure_ready(self) -> None:
        """Wait until the site is ready for the first case. Raise LabError if it does not get ready."""
        self._wire_second_ups("")
        deadline = time.monotonic() + 20
        while self.find_faults():
            if time.monotonic() > deadline:
                self._restart_machines()
                return
            time.sleep(1)

    def _restart_machines(self) -> None:
        """Restart all machines, as a person would without knowing the cause. Raise LabError if that does not help."""
        self.log("restarting all machines")
        for port in self.list_unplugged():
            self.control_ups("replug", port=port)
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
        """Return what prevents the next case from being played."""
        away = [f"{name} is off" for name in self.hosts if name not in self.list_running()]
        if away:
            return away
        status, flag, gate = self.last_report
        wrong = [] if status.split()[:1] == ["OL"] and "FSD" not in status else [f"upsd says {status or 'nothing'}"]
        wrong += [f"{self.primary} has the POWERDOWNFLAG"] if flag != "-" else []
        wrong += [f"{self.primary} has a gate"] if gate != "-" else []
        if self.has_pending_switch():
            wrong.append("the UPS is about to cut its outlets")
        if not wrong and self.second_ups:
            second = UPS_NAMES[SECOND_PORT]
            says = self.run_script("primary", f"upsc {second}@localhost ups.status 2>/dev/null", check=False)
            wrong += [] if says.split()[:1] == ["OL"] else [f"upsd says of {second}: {says.strip() or 'nothing'}"]
        if not wrong:
            try:
                there = int(self.run_script("primary", "upsc -c ups@localhost 2>/dev/null | sort -u | wc -l"))
            except (LabError, ValueError):
                there = 0
            if there < len(self.hosts):
                wrong.append(f"{there} of {len(self.hosts)} are logged in at upsd")
        return wrong

    # Actions

    def enable_wake(self, stay_off: Iterable[str] = (), *, is_deaf: bool = False) -> None:
        """Enable Wake-on-LAN on all secondaries.

        stay_off: those that do not start by themselves when they get power. is_deaf: they do not hear the packets either.
        """
        self._disable_wake()
        self.stays_off = set(stay_off)
        listening = [name for name in self.secondaries if not (is_deaf and name in self.stays_off)]

        def wake(name: str) -> None:
            if name not in self.list_running() and name not in self.unpowered:
                self.note_event(f"{name}{WOKEN}")
                self._start_machine(name)

        # Netavark translates the sender of a broadcast to the gateway. A primary that is off has no address, and always has the same.
        self.senders = self.senders or (self.find_address(self.primary), self.find_address(self.primary, "Gateway"))
        self.cards = NetworkCards(self.senders, listening, wake)

    def _disable_wake(self) -> None:
        self.stays_off = set()
        if self.cards:
            self.cards.close()
            self.cards = None

    def resolve_name(self, who: str) -> str:
        """Return the host with a role ("primary", "nas") or name."""
        return {"primary": self.primary, "nas": self.nas}.get(who, who)

    def note_event(self, words: str, at: float | None = None) -> None:
        """Record an event, now or at a time (seconds since 1970)."""
        with self.lock:
            since = (time.time() if at is None else at) - self.start
            self.events.append((round(since, 1), words))
        self.log(f"{self.case.name if self.case else ''}: {since:6.1f} s  {words}")

    def switch_mains(self, on: bool, port: int | None = None) -> None:
        """Cut or restore the mains of all UPSes, or of the one at a port."""
        self._note_ups(port, f"mains {'on' if on else 'off'}")
        with self.lock:
            self.control_ups("mains", on=on, **_at_port(port))
            if on and self.empty_at is not None:
                self.empty_at = None
                self.control_ups("set", values={"runtime": self.full})

    def set_battery_low(self, port: int | None = None) -> None:
        """Make the battery of all UPSes, or of the one at a port, low. From now on it lasts for the case's battery_seconds."""
        self._note_ups(port, "battery low")
        self.control_ups("low", **_at_port(port))
        if self.case and self.case.battery_seconds:
            with self.lock:
                self.full = self._list_upses()[0]["state"]["runtime"]
                self.empty_at = time.time() + self.case.battery_seconds

    def empty_battery(self, port: int | None = None) -> None:
        """Make the battery of all UPSes, or of the one at a port, empty."""
        self._note_ups(port, "battery empty")
        self.control_ups("empty", **_at_port(port))

    def _note_ups(self, port: int | None, words: str) -> None:
        self.note_event(words if port is None else f"{UPS_NAMES[port]}: {words}")

    def run_script(self, who: str, script: str, *, privileged: bool = False, check: bool = True) -> str:
        """Run a script on a machine, not over its network, and return its output. Raise LabError if it fails."""
        more = ["--privileged"] if privileged else []
        container = self.lab.container_name(self.resolve_name(who))
        return run_podman("exec", *more, container, "sh", "-c", script, check=check).stdout

    def find_address(self, who: str, what: str = "IPAddress") -> str:
        """Return a machine's address in the lab's network. what: as podman names it."""
        seen = json.loads(
            run_podman("inspect", "--type", "container", self.lab.container_name(self.resolve_name(who))).stdout
        )[0]
        return str(seen["NetworkSettings"]["Networks"][self.lab.prefix][what])

    def wait_for_phase(self, phase: str, seconds: float) -> None:
        """Wait for a phase. Raise LabError if it does not come."""
        deadline = time.monotonic() + seconds
        while not self.is_at(phase):
            if time.monotonic() > deadline:
                raise LabError(f"timed out after {seconds:g} s waiting for the phase: {phase}")
            self._check_physics()
            time.sleep(0.1)

    def is_at(self, phase: str) -> bool:
        """Return whether the case has reached a phase."""
        status, _flag, gate = self.last_report
        ran = {stop.host for stop in self.stops}
        conditions: dict[str, Callable[[], bool]] = {
            "battery": lambda: "OB" in status.split(),
            "FSD": lambda: "FSD" in status.split(),
            "gate": lambda: gate == "gate",
            "primary begins": lambda: self.begun[self.primary] is not None,
            "nas begins": lambda: self.begun[self.nas] is not None,
            "nas down": lambda: self.nas in ran and self.nas not in self.list_running(),
            "secondaries down": lambda: set(self.list_running()) <= {self.primary},
            "all down": lambda: not self.list_running(),
            "all run": lambda: not self.unpowered and len(self.list_running()) == len(self.hosts),
            "all logged in": lambda: "OB" in status.split() and self._count_clients() >= len(self.hosts),
            "cut": lambda: bool(self.unpowered),
            "ready": lambda: not self.find_faults(),
        }
        return conditions[phase]()

    def _count_clients(self) -> int:
        return int(self.run_script("primary", "upsc -c ups@localhost 2>/dev/null | sort -u | wc -l", check=False) or 0)

    def pull_plug(self, who: str) -> None:
        """Pull a machine's plug."""
        name = self.resolve_name(who)
        self.note_event(f"{name}: power cord pulled")
        with self.lock:
            self.stop_causes[name] = "pulled"
            run_podman("kill", self.lab.container_name(name))

    def boot_machine(self, who: str) -> None:
        """Start a machine."""
        name = self.resolve_name(who)
        deadline = time.monotonic() + 30
        while name in self.list_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        self.note_event(f"{name}{PLUGGED_IN}")
        self._start_machine(name)

    def reboot_machine(self, who: str) -> None:
        """Reboot a machine: wait until its container has ended, and start it."""
        name = self.resolve_name(who)
        self.note_event(f"{name}: reboot")
        with self.lock:
            self.stop_causes[name] = "reboot"
        self.run_script(who, "systemctl reboot", check=False)
        deadline = time.monotonic() + 90
        while name in self.list_running():
            if time.monotonic() > deadline:
                raise LabError(f"{name} did not reboot within 90 s")
            time.sleep(0.1)
        self._start_machine(name)

    def list_running(self) -> list[str]:
        """Return the names of the running machines."""
        with self.lock:
            return [name for name, pid in self.pids.items() if pid]

    def control_ups(self, command: str, **request: object) -> dict[str, Any]:
        """Send a command to the UPS's emulator and return its answer. Raise LabError if it refuses."""
        folder = self.lab.state / "usb" / self.primary
        # paths of sockets must be short, so use one through the open directory
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
        """Return the UPSes of the case, whether their USB cables are plugged in or not, in the order of their ports."""
        status = self.control_ups("status")
        ports = (OWN_PORT, SECOND_PORT) if self.second_ups else (OWN_PORT,)
        upses = [ups for ups in (*status["upses"], *status["unplugged"]) if ups["port"] in ports]
        return sorted(upses, key=lambda ups: int(ups["port"]))

    def list_unplugged(self) -> list[int]:
        """Return the ports of the case's UPSes whose USB cables are unplugged."""
        plugged = {ups["port"] for ups in self.control_ups("status")["upses"]}
        return [ups["port"] for ups in self._list_upses() if ups["port"] not in plugged]

    def _find_unpowered(self, upses: Iterable[Mapping[str, Any]]) -> set[str]:
        """Return the machines that no UPS gives power to, as they are wired."""
        outlets = {ups["port"]: bool(ups["outlets"]) for ups in upses}
        return {name for name in self.hosts if not has_power(name == self.primary, self.second_ups, outlets)}

    # Physics

    def _run_physics(self) -> None:
        missed = 0
        while not self.halt.wait(TICK):
            try:
                self._update_physics()
                missed = 0
            except Exception as error:
                # _check_physics reports it. On a busy machine a few answers may come too late.
                missed += 1
                if missed > 5:
                    self.physics_error = error
                    return

    def _check_physics(self) -> None:
        if self.physics_error:
            raise LabError(f"watching {self.site} failed: {type(self.physics_error).__name__}: {self.physics_error}")

    def _update_physics(self) -> None:
        with self.lock:
            self.peak_load = max(self.peak_load, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
            self._discharge_battery()
            upses = self._list_upses()
            unpowered = self._find_unpowered(upses)
            for name, pid in self.pids.items():
                if pid:
                    self._watch_machine(name, pid)
            lost, fed = unpowered - self.unpowered, self.unpowered - unpowered
            for name in lost:
                self.late.pop(name, None)
            if lost:
                at = max(
                    parse_timestamp(event["time"])
                    for ups in upses
                    for event in ups["events"]
                    if event["event"] == "outlets off"
                )
                if self.primary in lost:
                    self.cuts.append(at - self.start)
                self.note_event(f"the UPS cuts the power{self._spell_part(lost)}", at)
                for name in set(self.list_running()) & lost:
                    self.stop_causes[name] = "lost"
                    run_podman("kill", self.lab.container_name(name), check=False)
            if fed:
                self.note_event(f"the UPS restores power{self._spell_part(fed)}")
                for name in self.hosts:
                    if name in fed and name not in self.stays_off and name not in self.list_running():
                        self._boot_machine(name)
            self.unpowered = unpowered
            for name in [name for name, at in self.late.items() if time.time() >= at]:
                self.note_event(f"{name}{LATE}")
                self._start_machine(name)

    def _boot_machine(self, name: str) -> None:
        """Start a machine that has got power, at once or as late as the case says."""
        if name == self.nas and self.case and self.case.nas_late:
            self.late[name] = time.time() + self.case.nas_late
        else:
            self._start_machine(name)

    def _spell_part(self, names: Iterable[str]) -> str:
        """Return which machines are meant, or "" if it is all of them."""
        return "" if set(names) == set(self.hosts) else f" of {', '.join(sorted(names))}"

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
        """Record the beginning and the end of a machine's shutdown."""
        began = None
        with contextlib.suppress(FileNotFoundError, ValueError):
            began = float((self.lab.state / "hosts" / name / "shutdown-began").read_text())
        if began is not None and began > self.started_at[name] and self.begun[name] is None:
            self.begun[name] = began
            self.note_event(f"{name} begins to shut down", began)
        self._reset_machine(name)
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
        if how == "reset" and name not in self.unpowered:
            self._start_machine(name)

    def _reset_machine(self, name: str) -> None:
        """Reset a machine whose watchdog has expired."""
        expired = self.lab.state / "hosts" / name / "reset"
        if expired.exists():
            expired.unlink()
            self.note_event(f"{name}: the watchdog resets it")
            self.stop_causes[name] = "reset"
            run_podman("kill", self.lab.container_name(name), check=False)

    def _start_machine(self, name: str) -> None:
        """Start a machine, as when it gets power."""
        with self.lock:
            if self.pids[name]:
                return
            self.stop_causes.pop(name, None)
            self.late.pop(name, None)
            self.started_at[name] = time.time()
            run_podman("start", self.lab.container_name(name))
            self.pids[name] = self._find_pid(name)
        if name == self.primary:
            self._start_listener()

    def _find_pid(self, name: str) -> int:
        return int(run_podman("inspect", "--format", "{{.State.Pid}}", self.lab.container_name(name)).stdout)

    def _start_listener(self) -> None:
        """Start the script that reports changes on the primary, and a thread that records them."""
        ears = subprocess.Popen(
            [*PODMAN, "exec", "--interactive", self.lab.container_name(self.primary), "bash", "-c", WATCH],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.listener = ears

        def read_reports() -> None:
            for line in ears.stdout or ():
                at, status, flag, gate = line.strip().split("|")
                with self.lock:
                    if self.listener is not ears:
                        return
                    old, self.last_report = self.last_report, (status, flag, gate)
                for words in describe_changes(old, self.last_report):
                    self.note_event(words, float(at))

        threading.Thread(target=read_reports, daemon=True).start()


def _at_port(port: int | None) -> dict[str, int]:
    return {} if port is None else {"port": port}


def has_power(is_primary: bool, second_ups: str, outlets: Mapping[int, bool]) -> bool:
    """Return whether a machine has power. second_ups: as Case.second_ups. outlets: port of a UPS -> whether its outlets are on."""
    own, second = outlets[OWN_PORT], outlets.get(SECOND_PORT, False)
    if is_primary and second_ups == "spare":
        return own or second
    if is_primary and second_ups == "needed":
        return own and second
    return own


def describe_changes(old: tuple[str, str, str], new: tuple[str, str, str]) -> list[str]:
    """Return the events between two reports of the primary."""
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
        words.append("POWERDOWNFLAG removed")
    if new[2] != "-" and old[2] == "-":
        words.append("the gate begins")
    return words


def deploy_hosts(lab: Lab, hosts: Iterable[str], variables: Mapping[str, object] | None = None) -> None:
    """Deploy hosts with the main playbook, as a user does."""
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
