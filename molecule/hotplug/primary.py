# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A primary of the lab, as these tests use it: the USB bus, NUT and its processes, nut-hotplug."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from homelab import Lab
from homelab.podman import run_podman
from support import read_status, wait_until
from testinfra.host import Host
from usb.profiles import PROFILES

SERVICE, TIMER = "nut-hotplug.service", "nut-hotplug.timer"
CONF, POLICY = "/etc/nut/ups.conf", "/etc/nut/hotplug.json"
STATE, LOG, LOCK = "/var/lib/nut-hotplug/state.json", "/var/log/nut/hotplug.log", "/run/homelab-nut.lock"
SECONDS = 60  # a driver needs two on an idle machine, and far more while other scenarios run

# Moves the boot-clock times in nut-hotplug's memory into the past, as if that much time had passed.
PASS_TIME = """
import json
path, seconds = {path!r}, {seconds}
state = json.load(open(path))
state["silent_since"] = {{name: since - seconds for name, since in state["silent_since"].items()}}
state["plugged"] = {{name: {{**seen, "since": seen["since"] - seconds}} for name, seen in state["plugged"].items()}}
for tries in state["tries"].values():
    tries["last_try"] -= seconds
    tries["good_since"] = tries["good_since"] if tries["good_since"] is None else tries["good_since"] - seconds
json.dump(state, open(path, "w"))
"""


# nut-hotplug's memory at the start of a test: the UPS was plugged in long ago. Otherwise nut-hotplug would wait for its driver.
BEFORE = """
import json, time
boot = open("/proc/sys/kernel/random/boot_id").read().strip()
plugged = {{"ups": {{"bus": 1, "device": {number}, "since": time.clock_gettime(time.CLOCK_BOOTTIME) - 600}}}}
nothing = {{"tries": {{}}, "silent_since": {{}}, "deferred": {{}}, "remarks_made": [], "history": []}}
json.dump({{**{state!r}, **nothing, "boot": boot, "plugged": plugged}}, open({path!r}, "w"))
"""


def driver_unit(ups: str) -> str:
    """Return the unit that runs a UPS's driver."""
    return f"nut-driver@{ups}.service"


@dataclass
class HotplugPrimary:
    """A primary of the lab."""

    lab: Lab
    host: Host
    name: str
    secondaries: Sequence[str]
    model: str  # plugged in at port 1 before each test
    other_model: str  # of another manufacturer
    files: dict[str, str] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    # The bus

    def control_ups(self, *words: str) -> str:
        """Run lab/ups for this host and return its output."""
        return self.lab.control_ups(self.name, *words)

    def read_bus(self) -> dict[str, Any]:
        """Return the state of the emulated hardware, as `lab/ups status --json` prints it."""
        told: dict[str, Any] = json.loads(self.control_ups("status", "--json"))
        return told

    def swap_ups(self, model: str, *words: str, port: int = 1) -> None:
        """Unplug the UPS at a port, and plug another one in."""
        self.control_ups("unplug", "--port", str(port))
        self.control_ups("plug", model, "--port", str(port), *words)

    # nut-hotplug

    def run_service(self) -> None:
        """Start nut-hotplug as udev does, and wait until it has ended."""
        self.run_shell(f"systemctl start {SERVICE}")

    def start_service(self) -> None:
        """Start nut-hotplug as udev does, without waiting: after each plugging it watches the driver for ten seconds."""
        self.run_shell(f"systemctl start --no-block {SERVICE}")

    def read_log(self) -> str:
        """Return nut-hotplug's log since the test began."""
        return self.run_shell(f"cat {LOG}")

    def count_restarts(self, ups: str = "ups") -> int:
        """Return how often nut-hotplug started or restarted a driver since the test began."""
        return sum(f"start {driver_unit(ups)}" in line for line in self.read_log().splitlines())

    def read_hotplug_status(self) -> dict[str, Any]:
        """Return the output of `nut-hotplug status --json`."""
        told: dict[str, Any] = json.loads(self.run_shell("nut-hotplug status --json"))
        return told

    def pass_time(self, seconds: int) -> None:
        """Make nut-hotplug believe that this many seconds have passed."""
        self.run_python(PASS_TIME.format(path=STATE, seconds=seconds))

    def change_policy(self, **changes: object) -> None:
        """Change keys of the policy file."""
        policy = {**json.loads(self.files[POLICY]), **changes}
        self.write_file(POLICY, json.dumps(policy))

    # NUT

    def list_processes(self) -> dict[str, str]:
        """Return NUT's running units: unit -> main process id."""
        asked = "systemctl show --property=Id,MainPID nut-server nut-monitor 'nut-driver@*'"
        shown = [dict(line.split("=", 1) for line in unit.splitlines()) for unit in self.run_shell(asked).split("\n\n")]
        return {unit["Id"]: unit["MainPID"] for unit in shown if unit["MainPID"] != "0"}

    def is_served(self, ups: str = "ups", **variables: str) -> bool:
        """Return whether upsd serves a UPS that is on mains and has these variables (written with _ instead of dots)."""
        told = self.host.run("upsc %s@localhost 2>/dev/null", ups).stdout
        seen = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)
        wanted = {key.replace("_", "."): value for key, value in variables.items()}
        return seen.get("ups.status", "").split()[:1] == ["OL"] and wanted.items() <= seen.items()

    def wait_until_served(self, ups: str = "ups", **variables: str) -> None:
        """Wait until upsd serves a UPS with these variables and its driver's unit runs."""
        try:
            wait_until(
                lambda: self.is_served(ups, **variables), SECONDS, f"{self.name} to serve {ups} {variables or ''}"
            )
            # a driver may serve before systemd knows its main process
            wait_until(
                lambda: f"nut-driver@{ups}.service" in self.list_processes(),
                SECONDS,
                f"{self.name} to run the driver of {ups}",
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe_state()}") from None

    def describe_state(self) -> str:
        """Return the log, nut-hotplug's status, ups.conf and lsusb, for the message of a failed test."""
        return str(self.host.run(f"tail -n 20 {LOG}; nut-hotplug status; cat {CONF}; lsusb").stdout)

    def assert_untouched(self, before: Mapping[str, str]) -> None:
        """Fail if a unit in `before` has another process now, or none."""
        now = self.list_processes()
        assert before.items() <= now.items(), f"{self.name}: {before} -> {now}\n{self.describe_state()}"

    def read_sections(self) -> dict[str, dict[str, str]]:
        """Return the sections of ups.conf, as NUT reads them."""
        parsed = ups_conf.parse_ups_conf(self.read_file(CONF))
        return {name: dict(section.keys) for name, section in parsed.sections.items()}

    def list_clients(self) -> set[str]:
        """Return the names of the secondaries that are logged in."""
        listed = self.run_shell("upsc -c ups@localhost 2>/dev/null").split()
        addresses = {name: self.run_shell(f"getent ahostsv4 {name}").split()[0] for name in self.secondaries}
        return {name for name, address in addresses.items() if address in listed}

    # The host

    def run_shell(self, command: str) -> str:
        """Run a shell command and return its output. Fail if its exit code is not 0."""
        done = self.host.run(command)
        assert done.rc == 0, f"{self.name}: {command}: {done.rc}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def run_python(self, text: str) -> str:
        """Run Python code on the host and return its output."""
        return self.run_shell(f"python3 -c {shlex.quote(text)}")

    def read_file(self, path: str) -> str:
        """Return the text of a file."""
        return self.run_shell(f"cat {path}")

    def write_file(self, path: str, text: str) -> None:
        """Replace the text of a file; owner and mode stay."""
        self.run_shell(f"printf %s {shlex.quote(text)} >{path}")

    def restart_driver_without_upsmon(self) -> None:
        """Restart the driver of a UPS that upsd believes to be on battery: while that is so, upsmon may shut down all hosts."""
        machines = (*self.secondaries, self.name)
        try:
            for name in machines:
                run_podman("exec", self.lab.container_name(name), "systemctl", "stop", "nut-monitor")
            self.run_shell(f"systemctl restart {driver_unit('ups')}")
            self.wait_until_served()
        finally:
            for name in reversed(machines):
                run_podman("exec", self.lab.container_name(name), "systemctl", "start", "nut-monitor")

    # Before each test

    def remember_state(self) -> None:
        """Remember the current files and nut-hotplug's memory as the start of each test."""
        self.files = {path: self.read_file(path) for path in (CONF, POLICY)}
        self.run_service()
        self.state = json.loads(self.read_file(STATE))

    def prepare_test(self) -> None:
        """Restore the start of each test: one UPS is plugged in and served, and nut-hotplug remembers only that."""
        self.run_shell(f"systemctl stop {SERVICE}; rm -f /run/homelab-nut-pending.json")
        if self.read_bus()["mains"] and "OB" in read_status(self.host):
            self.restart_driver_without_upsmon()  # a test has failed, and left a driver with old data
        plugged = self._has_one_ups()
        if not plugged:
            self._plug_one_ups()
        if not plugged or not self._is_as_deployed():
            self._restore_files(restart=not plugged)
        number = self.read_bus()["upses"][0]["device_number"]
        self.run_python(BEFORE.format(path=STATE, state=self.state, number=number))
        self.run_shell(f"rm -f /run/nut-hotplug.quiet; systemctl start {SERVICE}; : >{LOG}")
        assert self._is_as_deployed(), self.describe_state()

    def _has_one_ups(self) -> bool:
        bus, identity = self.read_bus(), PROFILES[self.model].identity
        keys = ("port", "model", "serial", "product", "hang", "fickle", "unreadable_strings")
        told = [[ups.get(key) or "" for key in keys] for ups in bus["upses"]]
        return bool(bus["mains"]) and told == [[1, self.model, identity.serial, identity.product, "", "", ""]]

    def _plug_one_ups(self) -> None:
        if not self.read_bus()["mains"]:
            self.control_ups("mains", "on")
            self.wait_until_served()  # losing a UPS while on battery would shut down all hosts
        for ups in self.read_bus()["upses"]:
            self.control_ups("unplug", "--port", str(ups["port"]))
        self.control_ups("plug", self.model, "--port", "1")

    def _is_as_deployed(self) -> bool:
        """Return whether the files are as the play left them, and upsd serves `ups` and nothing else."""
        told = self.run_shell(
            f"cat {' '.join(self.files)}; upsc -l localhost 2>/dev/null; upsc ups@localhost ups.status 2>&1 | tail -n 1"
        )
        return told == "".join(self.files.values()) + "ups\nOL\n" and set(self.list_processes()) == {
            driver_unit("ups"),
            "nut-server.service",
            "nut-monitor.service",
        }

    def _restore_files(self, restart: bool) -> None:
        """Write the files that the play left, and restart the driver."""
        for path, text in self.files.items():
            self.write_file(path, text)
        stop = "systemctl kill -s CONT 'nut-driver@*' 2>/dev/null; systemctl stop 'nut-driver@*';" if restart else ""
        # the enumerator of 2.8.1 does not restart a driver whose section has changed
        self.run_shell(
            f"{stop} systemctl start nut-driver-enumerator; systemctl reset-failed; systemctl restart nut-driver@ups"
        )
        self.wait_until_served()


def are_running(lab: Lab, hosts: Sequence[str]) -> bool:
    """Return whether hosts are running and have not begun to shut down."""
    states = {host.name: state for host, state in lab.read_states().items()}
    return all(states[name].condition == "running" and states[name].began is None for name in hosts)
