# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of a case: what can be done to a site during a power cut. Each function returns a step, which acts on a house."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

from .house import House, Step
from .podman import LabError

ATTACK = Path(__file__).with_name("attack.py").read_text()
CONNECTIONS = 8

KILL_ALL = "pkill -KILL -x {0}"  # all processes of a program


def switch_mains(on: bool, port: int | None = None) -> Step:
    """Cut or restore the mains of all UPSes, or of the one at a port."""
    return lambda house: house.switch_mains(on, port)


def set_battery_low(port: int | None = None) -> Step:
    """Make the battery of all UPSes, or of the one at a port, low."""
    return lambda house: house.set_battery_low(port)


def empty_battery(port: int | None = None) -> Step:
    """Make the battery of all UPSes, or of the one at a port, empty: machines lose their power."""
    return lambda house: house.empty_battery(port)


def control_ups(words: str, command: str, **request: object) -> Step:
    """Send a command to the UPS, as lab/ups does."""

    def run_step(house: House) -> None:
        house.note_event(words)
        house.control_ups(command, **request)

    return run_step


def set_quietly(port: int, **values: int) -> Step:
    """Set state values of a UPS, to repair something after a case."""

    def run_step(house: House) -> None:
        house.control_ups("set", port=port, values=values)

    return run_step


def plug_in_again() -> Step:
    """Put back the USB cables that are pulled, to repair something after a case."""

    def run_step(house: House) -> None:
        for port in house.list_unplugged():
            house.control_ups("replug", port=port)

    return run_step


def wait_seconds(seconds: float) -> Step:
    """Wait."""
    return lambda house: time.sleep(seconds)


def wait_for(phase: str, seconds: float = 120.0) -> Step:
    """Wait for a phase; House.is_at lists them."""
    return lambda house: house.wait_for_phase(phase, seconds)


def run_on(who: str, words: str, script: str, privileged: bool = False) -> Step:
    """Run a script on a machine as root. `who` is "primary", "nas" or a name."""

    def run_step(house: House) -> None:
        house.note_event(f"{house.resolve_name(who)}: {words}")
        house.run_script(who, script, privileged=privileged)

    return run_step


def wait_until(who: str, words: str, script: str, seconds: float = 120.0, must: bool = True) -> Step:
    """Wait until a script ends with 0 on a machine. If it never does: raise LabError, unless not `must`."""

    def run_step(house: House) -> None:
        deadline = time.monotonic() + seconds
        while not house.run_script(who, f"{{ {script}; }} >/dev/null 2>&1 && echo yes", check=False).strip():
            if time.monotonic() > deadline:
                if must:
                    raise LabError(f"timed out after {seconds:g} s waiting for: {words}")
                return
            time.sleep(0.5)
        house.note_event(f"{house.resolve_name(who)}: {words}")

    return run_step


def set_up_guests(words: str, *guests: str, after: str = "true") -> Step:
    """Turn the primary into a Proxmox VE with guests (see lab-pve), and run a script there. {other}: the last secondary."""

    def run_step(house: House) -> None:
        house.note_event(words)
        house.run_script("primary", f"lab-pve setup --nas {house.nas} {' '.join(map(shlex.quote, guests))}")
        house.run_script("primary", f"set -e; {after.format(other=house.secondaries[-1])}", privileged=True)

    return run_step


def run_quietly(who: str, script: str, privileged: bool = False) -> Step:
    """Run a script to repair something after a case; it may fail."""

    def run_step(house: House) -> None:
        house.run_script(who, script, privileged=privileged, check=False)

    return run_step


def kill_program(program: str, who: str = "primary", after: str = "") -> Step:
    """Kill all processes of a program with SIGKILL."""
    return run_on(who, f"{program} killed{after}", KILL_ALL.format(program))


def pull_plug(who: str) -> Step:
    """Pull the plug of a machine."""
    return lambda house: house.pull_plug(who)


def boot_machine(who: str) -> Step:
    """Start a machine whose plug was pulled."""
    return lambda house: house.boot_machine(who)


def reboot_machine(who: str) -> Step:
    """Reboot a machine as its admin would, and wait until it starts again."""
    return lambda house: house.reboot_machine(who)


def cut_network(who: str) -> Step:
    """Cut a machine's network."""
    return run_on(who, "network down", "ip link set eth0 down", privileged=True)


def restore_network(who: str) -> tuple[Step, ...]:
    """Return the steps that restore a machine's network."""
    return (run_quietly(who, "ip link set eth0 up", privileged=True),)


def attack_upsd(who: str, seconds: float) -> Step:
    """Start an attack on upsd (attack.py) by a machine. `who` is as for run_on, or "other" for the last secondary."""

    def run_step(house: House) -> None:
        name = house.secondaries[-1] if who == "other" else house.resolve_name(who)
        house.note_event(f"{name} attacks upsd")
        words = " ".join(
            map(shlex.quote, ("python3", "-c", ATTACK, house.primary, "3493", f"{seconds:g}", f"{CONNECTIONS}"))
        )
        house.run_script(name, f"{words} >/dev/null 2>&1 &")

    return run_step


def attack_from_outside(seconds: float) -> Step:
    """Start an attack on upsd from this machine, which is not part of the homelab (its address is the network's gateway)."""

    def run_step(house: House) -> None:
        house.note_event("a machine outside attacks upsd")
        place = (house.find_address(house.primary), "3493", f"{seconds:g}", f"{CONNECTIONS}")
        # it ends after `seconds`
        subprocess.Popen([sys.executable, "-c", ATTACK, *place], stdin=subprocess.DEVNULL)

    return run_step


OUT = (switch_mains(False), wait_seconds(6))
OUTAGE = (*OUT, set_battery_low())
