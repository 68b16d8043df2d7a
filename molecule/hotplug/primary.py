# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A primary of the lab as these tests see it: its USB bus, its NUT with its processes, its nut-hotplug."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from homelab import Lab
from support import wait_until
from testinfra.host import Host
from usb.profiles import PROFILES

SERVICE, TIMER = "nut-hotplug.service", "nut-hotplug.timer"
CONF, POLICY = "/etc/nut/ups.conf", "/etc/nut/hotplug.json"
STATE, LOG, LOCK = "/var/lib/nut-hotplug/state.json", "/var/log/nut/hotplug.log", "/run/homelab-nut.lock"
SECONDS = 60  # for what takes a driver some two seconds on an idle machine, and beside other scenarios far longer

# The boot clock's times in the state, moved into the past: as if so much time had gone by.
LATER = """
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


# What it remembers of the one UPS that a test begins with, as if that were plugged in long ago: else it waits for the driver.
BEFORE = """
import json, time
boot = open("/proc/sys/kernel/random/boot_id").read().strip()
plugged = {{"ups": {{"bus": 1, "device": {number}, "since": time.clock_gettime(time.CLOCK_BOOTTIME) - 600}}}}
nothing = {{"tries": {{}}, "silent_since": {{}}, "deferred": {{}}, "remarks_made": [], "history": []}}
json.dump({{**{state!r}, **nothing, "boot": boot, "plugged": plugged}}, open({path!r}, "w"))
"""


def driver(ups: str) -> str:
    """Name the unit that runs a UPS's driver."""
    return f"nut-driver@{ups}.service"


@dataclass
class Primary:
    """One primary. model is what is plugged in at its port 1 before each test; other is one of another make."""

    lab: Lab
    host: Host
    name: str
    secondaries: Sequence[str]
    model: str
    other: str
    files: dict[str, str] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    # The bus

    def ups(self, *words: str) -> str:
        """Do what lab/ups does."""
        return self.lab.control_ups(self.name, *words)

    def bus(self) -> dict[str, Any]:
        """Return what the hardware says of itself."""
        told: dict[str, Any] = json.loads(self.ups("status", "--json"))
        return told

    def swap(self, model: str, *words: str, port: int = 1) -> None:
        """Pull out what is at a port, and plug in another one."""
        self.ups("unplug", "--port", str(port))
        self.ups("plug", model, "--port", str(port), *words)

    # nut-hotplug

    def run(self) -> None:
        """Start the service, as udev does, and wait until it has ended."""
        self.sh(f"systemctl start {SERVICE}")

    def go(self) -> None:
        """Start the service, as udev does, and go on: after each plugging it watches the driver for ten seconds."""
        self.sh(f"systemctl start --no-block {SERVICE}")

    def told(self) -> str:
        """Return what its log says since the test began."""
        return self.sh(f"cat {LOG}")

    def restarts(self, ups: str = "ups") -> int:
        """Count how often it started or restarted a driver since the test began."""
        return sum(f"start {driver(ups)}" in line for line in self.told().splitlines())

    def status(self) -> dict[str, Any]:
        """Return what `nut-hotplug status --json` says."""
        told: dict[str, Any] = json.loads(self.sh("nut-hotplug status --json"))
        return told

    def later(self, seconds: int) -> None:
        """Let nut-hotplug believe that so much more time has gone by since what it remembers."""
        self.python(LATER.format(path=STATE, seconds=seconds))

    def policy(self, **changes: object) -> None:
        """Change the policy in its file."""
        policy = {**json.loads(self.files[POLICY]), **changes}
        self.write(POLICY, json.dumps(policy))

    # NUT

    def processes(self) -> dict[str, str]:
        """Return unit -> main process of each unit of NUT that has one."""
        asked = "systemctl show --property=Id,MainPID nut-server nut-monitor 'nut-driver@*'"
        pairs = [dict(line.split("=", 1) for line in one.splitlines()) for one in self.sh(asked).split("\n\n")]
        return {one["Id"]: one["MainPID"] for one in pairs if one["MainPID"] != "0"}

    def serves(self, ups: str = "ups", **variables: str) -> bool:
        """Say whether upsd serves a UPS that is on mains, and these variables of it (dots are written as _)."""
        told = self.host.run("upsc %s@localhost 2>/dev/null", ups).stdout
        seen = dict(line.split(": ", 1) for line in told.splitlines() if ": " in line)
        wanted = {key.replace("_", "."): value for key, value in variables.items()}
        return seen.get("ups.status", "").split()[:1] == ["OL"] and wanted.items() <= seen.items()

    def await_service(self, ups: str = "ups", **variables: str) -> None:
        """Wait until upsd serves a UPS."""
        try:
            wait_until(lambda: self.serves(ups, **variables), SECONDS, f"{self.name} serves {ups} {variables or ''}")
            # a driver serves before systemd knows which of its processes stays
            wait_until(
                lambda: f"nut-driver@{ups}.service" in self.processes(), SECONDS, f"{self.name} has the driver of {ups}"
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.why()}") from None

    def why(self) -> str:
        """Say what one wants to know about a failure."""
        return str(self.host.run(f"tail -n 20 {LOG}; nut-hotplug status; cat {CONF}; lsusb").stdout)

    def untouched(self, before: Mapping[str, str]) -> None:
        """Fail if a unit has another process than BEFORE, or none."""
        now = self.processes()
        assert before.items() <= now.items(), f"{self.name}: {before} -> {now}\n{self.why()}"

    def sections(self) -> dict[str, dict[str, str]]:
        """Return the sections of ups.conf, as NUT reads them."""
        parsed = ups_conf.parse_ups_conf(self.text(CONF))
        return {name: dict(section.keys) for name, section in parsed.sections.items()}

    def clients(self) -> set[str]:
        """Name the secondaries that are logged in."""
        listed = self.sh("upsc -c ups@localhost 2>/dev/null").split()
        addresses = {name: self.sh(f"getent ahostsv4 {name}").split()[0] for name in self.secondaries}
        return {name for name, address in addresses.items() if address in listed}

    # The host

    def sh(self, command: str) -> str:
        """Run a shell's line. Fails with what it said if its exit code is not 0."""
        done = self.host.run(command)
        assert done.rc == 0, f"{self.name}: {command}: {done.rc}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def python(self, text: str) -> str:
        """Run a piece of Python."""
        return self.sh(f"python3 -c {shlex.quote(text)}")

    def text(self, path: str) -> str:
        """Read a file."""
        return self.sh(f"cat {path}")

    def write(self, path: str, text: str) -> None:
        """Replace what stands in a file; owner and mode stay."""
        self.sh(f"printf %s {shlex.quote(text)} >{path}")

    # Before each test

    def remember(self) -> None:
        """Take what there is for that with which each test begins."""
        self.files = {path: self.text(path) for path in (CONF, POLICY)}
        self.run()
        self.state = json.loads(self.text(STATE))

    def prepare(self) -> None:
        """See that one UPS is plugged in and served, and that nut-hotplug remembers nothing else."""
        self.sh(f"systemctl stop {SERVICE}; rm -f /run/homelab-nut-pending.json")
        plugged = self._has_one_ups()
        if not plugged:
            self._plug_one_ups()
        if not plugged or not self._is_plain():
            self._restore(restart=not plugged)
        number = self.bus()["upses"][0]["device_number"]
        self.python(BEFORE.format(path=STATE, state=self.state, number=number))
        self.sh(f"rm -f /run/nut-hotplug.quiet; systemctl start {SERVICE}; : >{LOG}")
        assert self._is_plain(), self.why()

    def _has_one_ups(self) -> bool:
        bus, identity = self.bus(), PROFILES[self.model].identity
        asked = ("port", "model", "serial", "product", "hang", "fickle")
        told = [[one.get(what) or "" for what in asked] for one in bus["upses"]]
        return bool(bus["mains"]) and told == [[1, self.model, identity.serial, identity.product, "", ""]]

    def _plug_one_ups(self) -> None:
        if not self.bus()["mains"]:
            self.ups("mains", "on")
            self.await_service()  # one that is lost while on battery shuts all hosts down
        for one in self.bus()["upses"]:
            self.ups("unplug", "--port", str(one["port"]))
        self.ups("plug", self.model, "--port", "1")

    def _is_plain(self) -> bool:
        """Say whether the files are those that the play left, and ups is served, and nothing else."""
        told = self.sh(
            f"cat {' '.join(self.files)}; upsc -l localhost 2>/dev/null; upsc ups@localhost ups.status 2>&1 | tail -n 1"
        )
        return told == "".join(self.files.values()) + "ups\nOL\n" and set(self.processes()) == {
            driver("ups"),
            "nut-server.service",
            "nut-monitor.service",
        }

    def _restore(self, restart: bool) -> None:
        """Bring all back, by hand, to how the play left it."""
        for path, text in self.files.items():
            self.write(path, text)
        stop = "systemctl kill -s CONT 'nut-driver@*' 2>/dev/null; systemctl stop 'nut-driver@*';" if restart else ""
        # the enumerator of 2.8.1 lets a driver go on with the section that it had
        self.sh(
            f"{stop} systemctl start nut-driver-enumerator; systemctl reset-failed; systemctl restart nut-driver@ups"
        )
        self.await_service()


def still_up(lab: Lab, hosts: Sequence[str]) -> bool:
    """Say whether hosts run, and have not begun to shut down."""
    states = {host.name: state for host, state in lab.read_states().items()}
    return all(states[name].condition == "running" and states[name].began is None for name in hosts)
