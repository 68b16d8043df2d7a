# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT on a simulated UPS: the configuration of its programs, and the running programs."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from ..conf import grammar
from .job import ENDING, TIMING, Job

UPS = "drill"
PRIMARY = "primary"

# every type of 2.8.5; an older upsmon logs those that it does not know, and continues
_NOTIFY = """
ONLINE ONBATT LOWBATT FSD COMMOK COMMBAD SHUTDOWN REPLBATT NOCOMM NOPARENT CAL NOTCAL OFF NOTOFF BYPASS NOTBYPASS ECO NOTECO ALARM
NOTALARM OVER NOTOVER TRIM NOTTRIM BOOST NOTBOOST OTHER NOTOTHER SUSPEND_STARTING SUSPEND_FINISHED SHUTDOWN_HOSTSYNC
"""


def compose_note_command(note: Path) -> str:
    """Return the SHUTDOWNCMD of a drill: it atomically notes when the shutdown would have begun."""
    return f"cat /proc/uptime >{note}.new && mv {note}.new {note}"


def parse_note(text: str, uptime: str, now: float) -> float | None:
    """Return when a note was written, on the clock that reads NOW while /proc/uptime reads UPTIME; None if it is malformed."""
    try:
        then, since = float(text.split(maxsplit=1)[0]), float(uptime.split(maxsplit=1)[0])
    except (ValueError, IndexError):
        return None
    # /proc/uptime has two decimal places, so the difference may be slightly negative
    return now - max(since - then, 0.0) if math.isfinite(then) and math.isfinite(since) else None


def compose_ups_data(status: str, runtime: float | None) -> str:
    """Return the data of the simulated UPS, for dummy-ups. runtime: s; None if the real UPS does not report it."""
    left = "" if runtime is None else f"battery.runtime: {max(runtime, 0):.0f}\n"
    return f"device.mfr: homelab.nut\ndevice.model: drill\nups.status: {status}\n{left}"


def compose_upsmon_conf(
    note: Path, where: str, user: str, password: str, seconds: Mapping[str, int], *, flag: Path | None
) -> str:
    """Return an upsmon.conf whose SHUTDOWNCMD only writes a note. user: PRIMARY or "secondary", its login and its role."""
    lines = [
        f"MONITOR {UPS}@{where} 1 {user} {password} {'primary' if user == PRIMARY else 'secondary'}",
        "MINSUPPLIES 1",
        f"SHUTDOWNCMD {grammar.quote_word(compose_note_command(note))}",
        *([f"POWERDOWNFLAG {flag}"] if flag else []),
        *(f"{name} {value}" for name, value in seconds.items()),
        # no wall messages about a power failure that is only simulated
        *(f"NOTIFYFLAG {name} IGNORE" for name in _NOTIFY.split()),
    ]
    return "".join(f"{line}\n" for line in lines)


def compose_nut_files(folder: Path, job: Job, port: int, password: str) -> dict[str, str]:
    """Return NUT's files for the drill: name below FOLDER -> text. Secondaries are named by their number."""
    where = f"127.0.0.1:{port}"
    files = {
        "ups.conf": f"pollinterval = 1\n[{UPS}]\ndriver = dummy-ups\nport = {UPS}.dev\nmode = dummy-once\n",
        "upsd.conf": f"LISTEN 127.0.0.1 {port}\n",
        "upsd.users": (
            f"[{PRIMARY}]\npassword = {password}\nupsmon primary\n[secondary]\npassword = {password}\nupsmon secondary\n"
        ),
        f"{PRIMARY}.conf": compose_upsmon_conf(
            folder / "notes" / PRIMARY, where, PRIMARY, password, job.timing, flag=folder / "killpower"
        ),
    }
    for number in range(len(job.policy.machines)):
        note = folder / "notes" / str(number)
        files[f"{number}.conf"] = compose_upsmon_conf(note, where, "secondary", password, TIMING, flag=None)
    return files


def _has_exited(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process has exited, without reaping it, so that its process-group id cannot be reused."""
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


class Programs:
    """NUT's programs in a drill, each in its own process group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C",
            "NUT_CONFPATH": str(folder),
            **{name: str(folder / "state") for name in ("NUT_STATEPATH", "NUT_ALTPIDPATH", "NUT_PIDPATH")},
        }
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def start_program(self, name: str, program: Path, *arguments: str) -> None:
        """Start a program. Each upsmon runs under its own name, after which it names its pid file; a driver must keep its name."""
        if program.name == "upsmon":
            link = self.folder / "bin" / f"drill-{name}"
            link.symlink_to(program)
            program = link
        with (self.folder / f"{name}.log").open("wb") as log:
            # this runs outside Ansible, so there is no AnsibleModule.run_command
            self.started[name] = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                [str(program), *arguments],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def list_exited(self) -> list[str]:
        """Return the names of the programs that have exited."""
        return [name for name, process in self.started.items() if _has_exited(process)]

    def read_last_lines(self, name: str) -> str:
        """Return the last three lines of a program's log, joined into one."""
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "; ".join(line.strip() for line in text.splitlines()[-3:]) or "it logged nothing"

    def stop_all(self, seconds: float = ENDING) -> None:
        """Stop all programs, the upsmons first: one that loses its upsd while on battery would shut down."""
        for process in reversed(self.started.values()):
            _send_signal(process, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while len(self.list_exited()) < len(self.started) and time.monotonic() < deadline:
            time.sleep(0.05)
        for process in self.started.values():
            # also whatever is left of the process group
            _send_signal(process, signal.SIGKILL)
            process.wait()
        self.started.clear()


def _send_signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def find_free_port() -> int:
    """Return a free TCP port on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
