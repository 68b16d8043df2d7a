# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a guest running? Looks at what Proxmox VE itself looks at: a VM's process, a container's socket. qm and pct come second.

qm and pct load all of Proxmox's Perl, which takes a second of CPU time, and much longer on a busy host. Processes and sockets
take a millisecond and need neither Perl nor pmxcfs. Sources: qemu-server (Helpers.pm, vm_running_locally), pve-container
(LXC.pm, list_active_containers); releases 8 and 9.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..base.systemd import Run

RUNNING, STOPPED, GONE = "running", "stopped", "gone"

# time limit of `qm status`, which loads all of Proxmox's Perl, on a busy host
STATUS_SECONDS = 15
# time limit of a look for a guest's configuration: pmxcfs is a FUSE file system, and may hang
_CONFIG_SECONDS = 3

# the directories of the configuration files below etc/pve/local
FOLDERS = {"qm": "qemu-server", "pct": "lxc"}
_VM_FOLDER = "run/qemu-server"
_VM_PID_FILES = ("/var/run/qemu-server", "/run/qemu-server")  # as in QEMU's option -pidfile
_CONTAINERS = "var/lib/lxc"
_FILE_LIMIT = 1 << 17

# `qm status` prints QEMU's run state, for example paused, io-error, prelaunch, suspended, shutdown, guest-panicked. With any of
# them the process is there, so the guest is not down.
_UNKNOWN_WORD = "unknown"


def run_bounded(run: Run, seconds: float, *command: str) -> tuple[int, str]:
    """Run a command with its own time limit, in addition to the runner's."""
    return run(["timeout", "--kill-after=5", f"{seconds:g}", *command])


def read_status(run: Run, kind: str, number: int, root: Path = Path("/")) -> str | None:
    """Return RUNNING, STOPPED, GONE (this host has no such guest), or None if it is unknown. kind: "qm" or "pct"."""
    has_process = find_process(kind, number, root)
    if has_process:
        return RUNNING
    if has_process is False and _has_config(run, kind, number, root):
        return STOPPED
    return _ask_proxmox(run, kind, number)


def is_running(run: Run, kind: str, number: int, root: Path = Path("/")) -> bool | None:
    """Return whether a guest of this host is running; None if it is unknown, or no guest of this host any more."""
    return {RUNNING: True, STOPPED: False}.get(read_status(run, kind, number, root) or "")


def list_running(run: Run, guests: Iterable[tuple[str, int]], root: Path = Path("/")) -> frozenset[int] | None:
    """Return the ids of those guests of this host, given as (kind, id), that run; None if it is unknown."""
    seen = {number: find_process(kind, number, root) for kind, number in guests}
    if None in seen.values():
        return _list_by_commands(run)
    return frozenset(number for number, has_process in seen.items() if has_process)


def find_process(kind: str, number: int, root: Path = Path("/")) -> bool | None:
    """Return whether a guest has its process (a VM) or its socket (a container); None if that can't be seen here."""
    return _has_vm(number, root) if kind == "qm" else _has_container(number, root)


def _has_vm(number: int, root: Path) -> bool | None:
    if not (root / _VM_FOLDER).is_dir():
        return None  # Proxmox VE's programs create it
    try:
        pid = _read_start(root / _VM_FOLDER / f"{number}.pid").partition("\n")[0]
        if not re.fullmatch(r"[1-9][0-9]{0,9}", pid):
            return False  # QEMU is about to write it, or another program has
        words = _read_start(root / "proc" / pid / "cmdline").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:
        return None
    return _is_qemu(words) and _find_option(words, "pidfile") in [f"{place}/{number}.pid" for place in _VM_PID_FILES]


def _read_start(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_FILE_LIMIT).decode("utf-8", "surrogateescape")


def _is_qemu(words: Sequence[str]) -> bool:
    return bool(re.search(r"kvm$|(?:^|/)qemu-[^/]+$", words[0]))


def _find_option(words: Sequence[str], name: str) -> str:
    """Return the value of an option of QEMU's command line, "" if it has none. Of duplicates the last one counts."""
    value = ""
    for word, following in zip(words, words[1:]):
        if word in (f"-{name}", f"--{name}"):
            value = "" if following.startswith("-") else following
    return value


def _has_container(number: int, root: Path) -> bool | None:
    if not (root / _CONTAINERS).is_dir():
        return None  # no LXC here
    name = f"@/var/lib/lxc/{number}/command".encode()
    try:
        with (root / "proc/net/unix").open("rb") as file:
            return any(line.split()[-1:] == [name] for line in file)
    except OSError:
        return None


def _has_config(run: Run, kind: str, number: int, root: Path) -> bool:
    """Return whether a guest's configuration is on this host, or whether pmxcfs hangs, so that nothing better is known."""
    path = root / "etc/pve/local" / FOLDERS[kind] / f"{number}.conf"
    code, _said = run_bounded(run, _CONFIG_SECONDS, "test", "-f", str(path))
    return code in (0, 124, 137)


def _ask_proxmox(run: Run, kind: str, number: int) -> str | None:
    """Return the answer of `qm status` or `pct status`. They print warnings before it."""
    code, said = run_bounded(run, STATUS_SECONDS, kind, "status", str(number))
    if is_gone(said, number):
        return GONE
    words = re.findall(r"^status:[ \t]*(\S+)[ \t]*$", said, re.MULTILINE)
    if code or not words or words[-1] == _UNKNOWN_WORD:
        return None
    return STOPPED if words[-1] == STOPPED else RUNNING


def is_gone(said: str, number: int) -> bool:
    """Return whether Proxmox VE says that this host has no guest of this number: it was moved or destroyed."""
    return bool(
        re.search(rf"Configuration file '[^']*/{number}\.conf' does not exist", said)
        or re.search(rf"unable to find configuration file for (?:VM|CT) {number} on node ", said)
    )


def _list_by_commands(run: Run) -> frozenset[int] | None:
    """Return the ids of the guests that run according to qm and pct; None if one of them fails.

    qm prints a table VMID NAME STATUS MEM(MB) BOOTDISK(GB) PID, where a VM without a name is called `VM 100`, and PID is 0 if it
    is down; pct prints VMID Status Lock Name. Without guests of their kind they print nothing.
    """
    code, vms = run_bounded(run, STATUS_SECONDS, "qm", "list")
    if code:
        return None
    code, containers = run_bounded(run, STATUS_SECONDS, "pct", "list")
    if code:
        return None
    return frozenset(
        int(number)
        for number in (
            *re.findall(r"^\s*([0-9]{3,9})\s.*\s[1-9][0-9]*[ \t]*$", vms, re.MULTILINE),
            *re.findall(r"^\s*([0-9]{3,9})\s+running\b", containers, re.MULTILINE),
        )
    )
