# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be done to a site in a power cut: each step is a function of its house."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

from .house import House, Step

ATTACK = Path(__file__).with_name("attack.py").read_text()
CONNECTIONS = 8

GONE = "pkill -KILL -x {0}"  # of any program, all its processes


def switch_mains(on: bool) -> Step:
    """Take the mains away, or bring them back."""
    return lambda house: house.switch_mains(on)


def set_battery_low() -> Step:
    """The battery is low."""
    return lambda house: house.set_battery_low()


def empty_battery() -> Step:
    """The battery is empty: whoever runs loses its power."""
    return lambda house: house.empty_battery()


def control_ups(words: str, command: str, **request: object) -> Step:
    """Do something to the UPS, as lab/ups does."""

    def step(house: House) -> None:
        house.note_event(words)
        house.control_ups(command, **request)

    return step


def wait_seconds(seconds: float) -> Step:
    """Let time pass."""
    return lambda house: time.sleep(seconds)


def wait_for(phase: str, seconds: float = 120.0) -> Step:
    """Wait for something: see House.is_at."""
    return lambda house: house.wait_for_phase(phase, seconds)


def run_on(who: str, words: str, script: str, privileged: bool = False) -> Step:
    """Run a script on a machine, as root. who: primary, nas, or a name."""

    def step(house: House) -> None:
        house.note_event(f"{house.resolve_name(who)}: {words}")
        house.run_script(who, script, privileged=privileged)

    return step


def run_quietly(who: str, script: str, privileged: bool = False) -> Step:
    """Put something right after a case, if it still needs it."""

    def step(house: House) -> None:
        house.run_script(who, script, privileged=privileged, check=False)

    return step


def kill_program(program: str, who: str = "primary", after: str = "") -> Step:
    """Kill a program, all its processes, by SIGKILL."""
    return run_on(who, f"{program} killed{after}", GONE.format(program))


def pull_plug(who: str) -> Step:
    """Pull the plug of a machine."""
    return lambda house: house.pull_plug(who)


def boot_machine(who: str) -> Step:
    """Start a machine whose plug was pulled."""
    return lambda house: house.boot_machine(who)


def reboot_machine(who: str) -> Step:
    """Reboot a machine as its admin does, and wait until it is up again."""
    return lambda house: house.reboot_machine(who)


def cut_network(who: str) -> Step:
    """Take a machine's network away."""
    return run_on(who, "network gone", "ip link set eth0 down", privileged=True)


def restore_network(who: str) -> tuple[Step, ...]:
    """Give it back."""
    return (run_quietly(who, "ip link set eth0 up", privileged=True),)


def attack_upsd(who: str, seconds: float) -> Step:
    """Have a secondary attack upsd (attack.py), from now on, for a while. who: as in on(), or "other", the last secondary."""

    def step(house: House) -> None:
        name = house.secondaries[-1] if who == "other" else house.resolve_name(who)
        house.note_event(f"{name} attacks upsd")
        words = " ".join(
            map(shlex.quote, ("python3", "-c", ATTACK, house.primary, "3493", f"{seconds:g}", f"{CONNECTIONS}"))
        )
        house.run_script(name, f"{words} >/dev/null 2>&1 &")

    return step


def attack_from_outside(seconds: float) -> Step:
    """Have this machine attack upsd, which is none of the homelab's and comes from the network's gateway."""

    def step(house: House) -> None:
        house.note_event("a stranger attacks upsd")
        place = (house.find_address(house.primary), "3493", f"{seconds:g}", f"{CONNECTIONS}")
        # it ends by itself
        subprocess.Popen([sys.executable, "-c", ATTACK, *place], stdin=subprocess.DEVNULL)

    return step
