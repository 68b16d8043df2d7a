# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run programs for the lab, above all podman."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Mapping

# runc also where the kernel has cgroup v1 and v2 side by side, which crun refuses.
PODMAN = ("podman", "--runtime", "runc")


ENOUGH = 4096  # open files and processes of one machine


class LabError(Exception):
    """The lab can't run a command. The message says why and what to do."""


def log_step(message: str) -> None:
    """Print what is being done, because most steps take seconds and some a minute."""
    print(f"lab: {message}", file=sys.stderr, flush=True)


def run_command(
    command: list[str], check: bool = True, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program without input. If it fails and `check` is set, raise LabError with its output.

    Its output may have bytes that are not UTF-8: NUT's drivers print the texts of their UPS as they are.
    """
    try:
        done = subprocess.run(
            command,
            check=False,
            encoding="utf-8",
            errors="replace",
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=env,
        )
    except FileNotFoundError:
        raise LabError(f"{command[0]} is not installed. `make lab` installs what the lab needs.") from None
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(command)} failed ({done.returncode}):\n{words}")
    return done


def run_podman(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run podman."""
    return run_command([*PODMAN, *words], check=check)


def limit_options() -> list[str]:
    """Return podman's options for limits that this machine allows; podman's defaults may be higher."""
    options = []
    for name, kind in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(kind)[1]
        limit = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
        options += ["--ulimit", f"{name}={limit}:{limit}"]
    return options
