# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-container: what runs in the container, and its healthcheck. The caller prints."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..base import files, paths
from ..base.cli import FAILED, OK, USAGE, Parser, PrintText, ProgramExit, make_printing
from ..base.process import make_runner
from ..base.services import find_manager
from ..base.systemd import UnitError
from ..base.text import printable
from ..container import configuration, health
from ..container.processes import ProcessTable
from ..container.settings import DEFAULTS, ContainerSettings, SettingsError, read_settings
from ..container.supervisor import Places, Supervisor
from ..deploy.apply import LocalNut
from ..hotplug.observe import ReconcileError
from ..hotplug.reconcile import HotplugHost
from ..usb import policy
from . import nut_hotplug

DESCRIPTION = "Run NUT for the USB UPSes of a machine, in a container without systemd."
EPILOG = """\
exit codes:
  0  done, stopped, or healthy
  1  something could not be done, or is not healthy
  2  the command line, or a variable of the environment, is wrong

The variables are in docs/container.md. SIGHUP to `run` reads /etc/nut/local again.
"""
COMMANDS = {
    "run": "run upsd, the drivers and nut-hotplug until SIGTERM",
    "configure": "write NUT's files for this environment, and restart what runs with other ones",
    "health": "check that upsd answers and that every UPS that is plugged in has fresh data",
}
# what programs need of the environment; they must not have the password
_PASSED_ON = ("PATH", "TZ", "LANG", "LC_ALL")
# upsd reserves memory for as many connections as it may have open files, and Docker allows a billion
OPEN_FILES = 4096
HOTPLUG_PROGRAM = f"/{paths.HOTPLUG_PROGRAM}"


def main(arguments: Sequence[str], out: PrintText, err: PrintText, program: str = "") -> int:
    """Run the command and return the exit code. out, err: print text. program: path of the program."""
    out, err = make_printing(out), make_printing(err)
    parser = Parser(prog="nut-container", description=DESCRIPTION, epilog=EPILOG, out=out, err=err)
    for name, summary in COMMANDS.items():
        parser.add_command(name, summary)
    try:
        command = parser.parse_args(list(arguments)).command
    except ProgramExit as left:
        return left.code
    if command == "health":
        return check_health(out, err)
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        err(f"the container can't start:\n{error}")
        return USAGE
    return configure(settings, out, err) if command == "configure" else run(settings, os.environ, out, program)


def run(settings: ContainerSettings, environment: Mapping[str, str], out: PrintText, program: str) -> int:
    """Supervise until SIGTERM. Return the exit code."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not 0 <= soft <= OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))
    passed = {name: environment[name] for name in _PASSED_ON if name in environment}
    return Supervisor(
        ProcessTable(passed, out),
        agent=(HOTPLUG_PROGRAM, "run"),
        configure=(program, "configure"),
        given={name: environment[name] for name in DEFAULTS if name in environment},
        interval=settings.scan_interval,
        say=out,
    ).run()


def configure(settings: ContainerSettings, out: PrintText, err: PrintText) -> int:
    """Write NUT's files. Return the exit code."""
    places = Places()
    runner = make_runner(nut_hotplug.PROGRAM_SECONDS)
    try:
        local = configuration.read_local_files(places.conf_dir)
        rules = policy.parse_policy(configuration.compose_policy(settings, local))
        host = HotplugHost(
            rules,
            LocalNut(runner, run_dir=places.run_dir, services=find_manager(places.run_dir, runner)),
        )
        host.say = nut_hotplug.HotplugLog(places.log, out, host.wall).write_decision
        for line in configuration.write_configuration(host, settings, local):
            out(line)
    except (
        configuration.ConfigurationError,
        ReconcileError,
        UnitError,
        files.Busy,
        files.WriteError,
        OSError,
    ) as error:
        err(str(error))
        return FAILED
    return OK


def check_health(out: PrintText, err: PrintText) -> int:
    """Print what is wrong. Return the exit code."""
    try:
        problems = health.find_health_problems(Path("/", paths.NUT))
    except OSError as error:
        problems = [f"{error.filename} can't be read: {error.strerror}"]
    for problem in problems:
        err(printable(problem, 500))
    if not problems:
        out("healthy")
    return FAILED if problems else OK
