# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The container of container/ on an emulated USB bus, with the options of its compose.yaml."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Callable

from . import READY_SECONDS, Lab, LabError
from .images import build_lab_container
from .podman import PODMAN, limit_options, run_podman

HOST = "nut"
"""What lab/ups calls it."""
# as in container/compose.yaml
OPTIONS = (
    *("--read-only", "--tmpfs", "/run", "--tmpfs", "/tmp"),  # noqa: S108 - in the container
    *("--security-opt", "no-new-privileges:true", "--cap-drop", "ALL"),
    *("--cap-add", "CHOWN,DAC_OVERRIDE,FOWNER,KILL,SETGID,SETUID"),
)
VOLUMES = {"config": "/etc/nut", "state": "/var/lib/nut-hotplug", "logs": "/var/log/nut"}
# the emulated bus instead of the kernel's
POLICY = {"sysfs": "/run/usb/bus/sys", "dev": "/run/usb/bus/dev"}


class LabContainer:
    """A container of the lab, and its UPSes."""

    def __init__(self, lab: Lab) -> None:
        """Name it without starting anything."""
        self.lab = lab
        self.name = lab.container_name(HOST)
        self.folder = lab.state / "container"

    def start(self, **environment: str) -> None:
        """Start it with an empty USB bus, or with the one that is there."""
        image = build_lab_container()
        bus = self.lab.state / "usb" / HOST
        for folder in (bus, self.folder / "local", *(self.folder / name for name in VOLUMES)):
            folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "local/hotplug.json").write_text(json.dumps(POLICY))
        emulator = self.lab.container_name(f"usb-{HOST}")
        label = ["--label", f"lab={self.lab.prefix}", *limit_options()]
        if run_podman("container", "exists", emulator, check=False).returncode:
            program = ["/usr/bin/python3", image, "/opt/lab/usb/emulator.py", "/run/usb"]
            options = ["--detach", "--name", emulator, "--network", "none", *label, "--volume", f"{bus}:/run/usb"]
            run_podman("run", *options, "--entrypoint", *program)
            wait_for(self._has_bus, "the emulated bus")
        given = [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
        volumes = [f"{self.folder / name}:{path}" for name, path in VOLUMES.items()]
        volumes += [f"{self.folder / 'local'}:/etc/nut/local:ro", f"{bus}:/run/usb"]
        shared = [word for volume in volumes for word in ("--volume", volume)]
        options = ["--name", self.name, *label, *OPTIONS, *shared, *given, "--publish", "127.0.0.1::3493"]
        run_podman("run", "--detach", *options, image)

    def _has_bus(self) -> bool:
        try:
            self.control_ups("status")
        except LabError:
            return False
        return True

    def control_ups(self, *words: str) -> str:
        """Run lab/ups for this container."""
        return self.lab.control_ups(HOST, *words)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return run_podman("exec", self.name, *command, check=check)

    def read_status(self, ups: str) -> str:
        """Return ups.status, or upsd's error."""
        done = self.run("upsc", ups, "ups.status", check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def send_signal(self, name: str) -> None:
        """Send a signal to the container, as `docker kill --signal` does."""
        run_podman("kill", "--signal", name, self.name)

    def stop(self) -> float:
        """Stop it and return the seconds that it took."""
        begin = time.monotonic()
        run_podman("stop", "--time", "20", self.name)
        return time.monotonic() - begin

    def remove(self) -> None:
        """Remove it; the emulated bus stays."""
        run_podman("rm", "--force", "--time", "0", "--ignore", self.name)

    def read_output(self) -> str:
        """Return what it has printed."""
        # podman prints the two streams of a container on its own two
        done = subprocess.run([*PODMAN, "logs", self.name], check=False, text=True, capture_output=True)
        return done.stdout + done.stderr

    def read_exit_code(self) -> int:
        """Return the code that it ended with."""
        return int(run_podman("inspect", "--format", "{{.State.ExitCode}}", self.name).stdout)

    def is_running(self) -> bool:
        """Return whether it runs."""
        return run_podman("inspect", "--format", "{{.State.Running}}", self.name).stdout.strip() == "true"

    def find_pid(self, program: str) -> int:
        """Return the process id, in the container, of a program; 0 if it does not run."""
        script = 'for d in /proc/[0-9]*; do read -r name <$d/comm && [ "$name" = "$0" ] && echo ${d#/proc/}; done'
        found = self.run("sh", "-c", script, program, check=False).stdout.split()
        return int(found[0]) if found else 0

    def kill(self, pid: int) -> None:
        """Kill one of its processes. The image has no program for that, only the shell."""
        self.run("sh", "-c", f"kill -9 {pid}")

    def list_host_pids(self) -> dict[str, str]:
        """Return the process ids, on this machine, of its processes -> their programs."""
        lines = run_podman("top", self.name, "hpid", "comm").stdout.splitlines()[1:]
        return dict(line.split(maxsplit=1) for line in lines)

    def measure_memory(self) -> float:
        """Return the memory of all its processes in MiB, shared pages counted once (PSS)."""
        rollups = [Path("/proc", pid, "smaps_rollup") for pid in self.list_host_pids()]
        texts = [path.read_text() for path in rollups if path.exists()]
        return (
            sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("Pss:")) / 1024
        )


def wait_for(condition: Callable[[], object], awaited: str, seconds: float = READY_SECONDS) -> float:
    """Wait until a condition holds, and return the seconds that it took. Raise LabError after `seconds`."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            raise LabError(f"timed out after {seconds:g} s waiting for {awaited}")
        time.sleep(0.2)
    return time.monotonic() - begin
