# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run one of Proxmox VE's programs for the guests of a directory: programs.py FOLDER PROGRAM ARGUMENTS."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable

if not __package__:  # started by its path: the package is the directory beside us
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __package__ = "pve"

from . import cluster, files, ha, tasks
from .host import print_warning
from .options import CommandError, parse_options
from .stand_in import SHUTDOWN_SECONDS, GuestFolder

BACKUP_SECONDS = 2.0  # until a backup that was ended is over; Proxmox allows 15


def run_vzdump(host: GuestFolder, words: list[str]) -> str:
    """End backups that run. A lock without a backup stays: only startall takes that away, at boot."""
    if not parse_options("vzdump", "", words, {"stop": bool})["stop"]:
        raise CommandError("400 Parameter verification failed.\nvmid: property is missing", 2)
    for number, guest in host.list_guests().items():
        if guest.backup:
            host.wait(BACKUP_SECONDS)
            # without quorum, nobody can change the configuration
            free = guest.lock == "backup" and host.has_quorum()
            host.change_guest(number, backup=False, lock="" if free else guest.lock)
    return ""


def run_pvesh(host: GuestFolder, words: list[str]) -> str:
    """Start or stop all guests, or tell the release."""
    options = {"nooutput": bool, "output-format": str, "force": bool, "vms": str, "max-workers": int, "timeout": int}
    options |= {"force-stop": bool, "quiet": bool, "noproxy": bool}
    places = [word for word in words if word.startswith("/") or word in ("get", "create", "set", "delete", "ls")]
    asked = parse_options("pvesh", "", [word for word in words if word not in places], options)
    name = re.escape(host.settings.name)
    if places == ["get", "/version"]:
        facts = {"release": host.settings.release.rpartition(".")[0], "version": host.settings.release, "repoid": "0"}
        return json.dumps(facts) + "\n"
    match = re.fullmatch(rf"create /nodes/(?:localhost|{name})/(startall|stopall)", " ".join(places))
    if not match:
        raise CommandError(f"No '{places[0] if places else ''}' handler defined for '{''.join(places[1:])}'", 255)
    return run_task(host, match.group(1), asked)


def run_task(host: GuestFolder, task: str, asked: dict[str, Any]) -> str:
    """Start or stop all guests. The task may fail; the program then ends with 0 all the same."""
    only = [int(word) for word in re.findall(r"[0-9]+", asked.get("vms") or "")]
    workers = asked.get("max-workers") or 0
    try:
        if task == "startall":
            tasks.start_all(host, bool(asked.get("force")), only, workers)
        else:
            force = asked.get("force-stop")
            tasks.stop_all(host, only, workers, asked.get("timeout"), force is None or force)
    except CommandError as error:
        print_warning(str(error))
    return "" if asked.get("nooutput") else f"{tasks.make_upid(host, task)}\n"


def run_pvenode(host: GuestFolder, words: list[str]) -> str:
    """Show or change the node's configuration, or start or stop all guests."""
    if words[:1] in (["startall"], ["stopall"]):
        options = {"force": bool, "vms": str, "max-workers": int, "timeout": int, "force-stop": bool}
        return run_task(host, words[0], parse_options("pvenode", words[0], words[1:], options))
    delay = "startall-onboot-delay"
    if words[:2] == ["config", "get"]:
        wanted = parse_options("pvenode", "config get", words[2:], {"property": str})["property"]
        seconds = host.settings.onboot_delay
        return f"{delay}: {seconds}\n" if seconds and wanted in (None, delay) else ""
    if words[:2] == ["config", "set"]:
        asked = parse_options("pvenode", "config set", words[2:], {delay: int, "delete": str})
        if not host.has_quorum():
            raise CommandError(
                f"unable to open file '/etc/pve/nodes/{host.settings.name}/config.tmp' - Permission denied"
            )
        host.change_settings(onboot_delay=asked[delay] or 0)
        if host.settings.pve:
            files.write_node_config(host.settings)
        return ""
    raise CommandError(f"ERROR: unknown command 'pvenode {' '.join(words[:2])}'")


def delay_startall(host: GuestFolder, _words: list[str]) -> str:
    """Wait for the time that the node's configuration has, as pve-startall-delay does."""
    if seconds := host.settings.onboot_delay:
        print_warning(f"Delaying on-boot 'startall' command for {seconds} second(s).")
        time.sleep(seconds / host.settings.speed)
    return ""


def run_pvesm(host: GuestFolder, words: list[str]) -> str:
    """Show the storages."""
    if words[:1] != ["status"]:
        raise CommandError(f"ERROR: unknown command 'pvesm {' '.join(words[:1])}'")
    wanted = parse_options("pvesm", "status", words[1:], {"storage": str, "content": str, "enabled": bool})["storage"]
    if wanted is not None and wanted not in host.settings.storages:
        raise CommandError(f"storage '{wanted}' does not exist")
    names = sorted(host.settings.storages) if wanted is None else [wanted]
    width = 1 + max(map(len, names))
    lines = [
        f"{'Name':<{width}} {'Type':>10} {'Status':>10} {'Total (KiB)':>15} {'Used (KiB)':>15} {'Available (KiB)':>15} {'%':>8}"
    ]
    for name in names:
        online = cluster.is_online(host.settings, name)
        if not online:
            print_warning(f"storage '{name}' is not online")
        total, used = (98497780, 24624445) if online else (0, 0)
        share = f"{used * 100 / total if total else 0:7.2f}%"
        lines.append(
            f"{name:<{width}} {'dir' if name == 'local' else 'nfs':>10} {'active' if online else 'inactive':>10}"
            f" {total:>15} {used:>15} {total - used:>15} {share}"
        )
    return "\n".join(lines) + "\n"


def show_version(host: GuestFolder, _words: list[str]) -> str:
    """Return the release."""
    return f"pve-manager/{host.settings.release}/5f9a4d5b1a0e2a8f (running kernel: 6.8.12-15-pve)\n"


def run_pvecm(host: GuestFolder, words: list[str]) -> str:
    """Show the votes."""
    if words[:1] != ["status"]:
        raise CommandError(f"ERROR: unknown command 'pvecm {' '.join(words[:1])}'")
    if not host.settings.nodes:
        raise CommandError(
            "Error: Corosync config '/etc/pve/corosync.conf' does not exist - is this node part of a cluster?", 2
        )
    there, total = cluster.count_votes(host.settings, host.runtime)
    quorate = host.has_quorum()
    return (
        f"Votequorum information\n----------------------\nExpected votes:   {total}\nHighest expected: {total}\n"
        f"Total votes:      {there}\nQuorum:           {total // 2 + 1}{'' if quorate else ' Activity blocked'}\n"
        f"Quorate:          {'Yes' if quorate else 'No'}\n"
    )


def run_lxc_stop(host: GuestFolder, words: list[str]) -> str:
    """Stop a container without Proxmox's programs (LXC's own lxc-stop): neither locks nor the cluster matter."""
    options = {"n": str, "name": str, "timeout": int, "t": int, "kill": bool, "k": bool, "nokill": bool, "nolock": bool}
    asked = parse_options("lxc-stop", "", words, options)
    name = asked["n"] or asked["name"] or ""
    if not name.isdigit() or not host.has_guest(int(name), "pct") or not host.find_pid(int(name)):
        raise CommandError(f"lxc-stop: {name}: ../src/lxc/tools/lxc_stop.c: main: 191 {name} is not running", 2)
    if asked["kill"] or asked["k"]:
        host.kill_guest(int(name))
        return ""
    limit = next(given for given in (asked["timeout"], asked["t"], SHUTDOWN_SECONDS) if given is not None)
    try:
        host.end_container(int(name), limit, not asked["nokill"])
    except CommandError as error:
        raise CommandError(str(error), 1) from None
    return ""


PROGRAMS: dict[str, Callable[[GuestFolder, list[str]], str]] = {
    "vzdump": run_vzdump,
    "pvesh": run_pvesh,
    "pvenode": run_pvenode,
    "pve-startall-delay": delay_startall,
    "pvesm": run_pvesm,
    "pveversion": show_version,
    "pvecm": run_pvecm,
    "ha-manager": ha.run_manager,
}


def run_any(host: GuestFolder, program: str, words: list[str]) -> str:
    """Run a program and return its output. Raise CommandError if it fails."""
    if program in ("qm", "pct"):
        return host.run_program(program, words)
    if program == "lxc-stop":
        return run_lxc_stop(host, words)
    with host.run_call(program, words):
        return PROGRAMS[program](host, words)


def _interrupt(*_signal: object) -> None:
    """End at SIGTERM with 0, as pvesh does."""
    print_warning("received interrupt")
    end_process(0)


def end_process(code: int) -> None:
    """End now: while Python cleans up, a signal would kill it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> int:
    """Run one of the programs."""
    host, program, words = GuestFolder(Path(sys.argv[1])), sys.argv[2], sys.argv[3:]
    if program in ("pvesh", "pvenode"):
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        sys.stdout.write(run_any(host, program, words))
    except CommandError as error:
        sys.stdout.flush()
        print_warning(str(error))
        return error.code
    return 0


if __name__ == "__main__":
    end_process(main())
