# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-hotplug: what it takes, and what it says. Printing is left to the program itself."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from ..base import files, paths
from ..base.cli import FAILED, OK, USAGE, Parser, PrintText, ProgramExit, make_printing
from ..base.clock import format_time
from ..base.log import append_line
from ..base.process import make_runner
from ..base.table import format_grid
from ..base.text import LINE, printable
from ..deploy.apply import LocalNut
from ..hotplug.look import Observation, describe_device
from ..hotplug.observe import ReconcileError
from ..hotplug.reconcile import HotplugHost
from ..usb import policy
from ..usb.bus import UsbUps

BUSY = 75
# Longer than any single step should take: a driver gives up on an absent UPS after 3 tries of 5 s and its own waits.
SECONDS = 120

DESCRIPTION = "Keep NUT's drivers in step with the UPSes that are plugged in."
EPILOG = """\
Options of a command: nut-hotplug COMMAND --help

exit codes:
  0   done, or nothing to do
  1   something could not be found out, or not be done
  2   the command line or the policy is wrong
  75  another run, or Ansible, was at work for a minute

A restart that could shut down other hosts (a UPS on battery) is put off until the mains are back.
files: /etc/nut/hotplug.json (policy), /etc/nut/ups.conf, /var/log/nut/hotplug.log
"""


COMMANDS = {
    "status": "what is plugged in, what it is called, what was done last and why",
    "plan": "what `run` would do now, and how ups.conf would change; changes nothing",
    "run": "bring ups.conf and the drivers in step with the bus; udev and nut-hotplug.timer start this",
}


def _build_parser(out: PrintText, err: PrintText) -> Parser:
    parser = Parser(prog="nut-hotplug", description=DESCRIPTION, epilog=EPILOG, out=out, err=err)
    for name, summary in COMMANDS.items():
        _add_options(parser.add_command(name, summary), name)
    return parser


def _add_options(command: Parser, name: str) -> None:
    if name != "run":
        command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--debug", action="store_true", help="print what led to each decision, on standard error")
    for option, default, metavar, words in (
        ("--policy", paths.HOTPLUG_POLICY, "FILE", "the policy"),
        ("--conf-dir", paths.NUT, "DIR", "NUT's files"),
        ("--state", paths.HOTPLUG_STATE, "FILE", "what is remembered between runs"),
        ("--run-dir", "run", "DIR", "lock and notes"),
    ):
        command.add_argument(
            option, type=Path, default=Path("/", default), metavar=metavar, help=f"{words}; default: %(default)s"
        )
    if name == "run":
        log = Path(os.environ.get("NUT_HOTPLUG_LOG") or f"/{paths.HOTPLUG_LOG}")
        command.add_argument(
            "--log", type=Path, default=log, metavar="FILE", help="default: $NUT_HOTPLUG_LOG, or %(default)s"
        )


@dataclass
class Log:
    """Where decisions are told: on standard error, which is the journal's for a service, and in a file."""

    path: Path
    err: PrintText
    wall: Callable[[], float]
    debugs: bool = False
    broken: bool = field(default=False, init=False)

    def write_decision(self, line: str) -> None:
        """Tell a decision."""
        self.err(line)
        self._append_line(line)

    def write_debug(self, line: str) -> None:
        """Tell what led to a decision, if that is wanted."""
        if self.debugs:
            self.write_decision(f"debug: {printable(line, 500)}")

    def _append_line(self, line: str) -> None:
        try:
            append_line(self.path, f"{format_time(self.wall())} {printable(line, LINE)}")
        except OSError as error:
            if not self.broken:
                self.broken = True
                self.err(f"{self.path} can't be written: {error.strerror}")


def main(arguments: Sequence[str], out: PrintText, err: PrintText, program: str = "") -> int:
    """Do what the command line says, and return the exit code. out, err: take lines. program: the path of the program."""
    out, err = make_printing(out), make_printing(err)
    try:
        options = _build_parser(out, err).parse_args(list(arguments))
    except ProgramExit as left:
        return left.code
    try:
        rules = _read_policy(options.policy)
    except policy.UsbPolicyError as error:
        err(f"{options.policy}: {error}")
        return USAGE
    host = HotplugHost(
        rules,
        LocalNut(make_runner(SECONDS), conf_dir=options.conf_dir, hotplug_state=options.state, run_dir=options.run_dir),
        watched_files=[options.policy, *([Path(program)] if program else [])],
    )
    if options.command == "run":
        return _run_agent(host, Log(options.log, err, host.wall, options.debug or rules.debug))
    if options.debug:
        host.debug = lambda line: err(f"debug: {printable(line, 500)}")
    try:
        look = host.observe_host()
    except ReconcileError as error:
        err(printable(str(error), 500))
        return FAILED
    as_data, as_text = (plan_data, plan_text) if options.command == "plan" else (status_data, status_text)
    out(json.dumps(as_data(look), indent=2) if options.json else as_text(look).rstrip("\n"))
    return OK


def _run_agent(host: HotplugHost, log: Log) -> int:
    host.say, host.debug = log.write_decision, log.write_debug
    try:
        return FAILED if host.run().failed else OK
    except ReconcileError as error:
        log.write_decision(printable(str(error), 500))
        return FAILED
    except files.Busy as error:
        log.write_decision(printable(str(error), 500))
        return BUSY


def _read_policy(path: Path) -> policy.UsbPolicy:
    """Read the policy. None at all is the default one."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return policy.UsbPolicy()
    except (OSError, ValueError) as error:
        raise policy.UsbPolicyError(f"it can't be read: {error}") from None
    return policy.parse_policy(text)


# What is said


def plan_data(look: Observation) -> dict[str, Any]:
    """Return what `plan --json` says."""
    return {
        "changes": look.has_changes,
        "steps": list(look.steps),
        "diff": look.render_diff(),
        "deferred": [printable(line, 500) for line in look.plan.deferred],
        "waits": {name: round(max(until - look.time, 0), 1) for name, until in look.plan.waits.items()},
        "remarks": list(look.remarks),
    }


def plan_text(look: Observation) -> str:
    """Return what `plan` says."""
    data = plan_data(look)
    lines = data["steps"] or ["nothing to do"]
    lines += [f"deferred: {line}" for line in data["deferred"]]
    lines += [f"{name or 'upsd'}: checked again in {left:g} s" for name, left in data["waits"].items()]
    lines += [f"note: {line}" for line in data["remarks"]]
    return "\n".join(lines) + "\n" + (f"\n{data['diff']}" if data["diff"] else "")


def status_data(look: Observation) -> dict[str, Any]:
    """Return what `status --json` says. Texts of devices are made printable."""
    why_not = {one.device: why for one, why in look.resolution.unserved}
    names = {one.device: name for name, one in look.resolution.plugged.items()}
    return {
        "upses": [_ups_data(look, one, names.get(one.device, ""), why_not.get(one.device, "")) for one in look.upses],
        "absent": [
            {
                "name": name,
                "last": printable(str(look.resolution.memory[name])) if name in look.resolution.memory else "",
            }
            for name in look.resolution.absent
        ],
        "deferred": [
            {"what": printable(line, 500), "since": format_time(since) if since else "now"}
            for line, since in look.deferred.items()
        ],
        "backing_off": [
            {"name": name, "tries": one.count, "again_in": round(left, 1)}
            for name, one in look.plan.tries.items()
            if one.good_since is None and (left := one.next_try(look.time) - look.time) > 0
        ],
        "power": list(look.not_on_mains),
        "remarks": list(look.remarks),
        "would_do": list(look.steps),
        "history": [
            {
                "time": format_time(one.time),
                "name": one.name,
                "what": printable(one.what),
                "reason": printable(one.reason, 500),
            }
            for one in look.state.history
        ],
    }


def _ups_data(look: Observation, ups: UsbUps, name: str, why_not: str) -> dict[str, Any]:
    device, seen = ups.device, look.drivers.get(name)
    return {
        "name": name,
        "ids": device.ids,
        "manufacturer": printable(device.manufacturer),
        "product": printable(device.product),
        "serial": printable(device.serial),
        "place": printable(device.place),
        "port": printable(device.name),
        "driver": printable(ups.driver),
        "why": printable(ups.why),
        "status": printable(" ".join(seen.status)) if seen else "",
        "error": printable(seen.error or "") if seen else "",
        "not_served": printable(why_not, 500),
    }


def status_text(look: Observation) -> str:
    """Return what `status` says."""
    data = status_data(look)
    rows = []
    for one, ups in zip(data["upses"], look.upses):
        state_now = one["status"] or one["error"] or one["not_served"] or "no data"
        rows.append((one["name"] or "(no name)", state_now, one["driver"] or "no driver", describe_device(ups.device)))
    lines = ["UPSes on the bus:", *(format_grid(rows, indent="  ") or ["  none"])]
    lines += format_grid(
        [(one["name"], f"not there; last {one['last'] or 'unknown'}") for one in data["absent"]], indent="  "
    )
    lines += [f"not plainly on mains: {', '.join(data['power'])}"] if data["power"] else []
    lines += [f"deferred since {one['since']}: {one['what']}" for one in data["deferred"]]
    lines += [
        f"{one['name']}: its driver was started {one['tries']} times without success so far, and is left alone for {one['again_in']:.0f} s"
        for one in data["backing_off"]
    ]
    lines += [f"note: {line}" for line in data["remarks"]]
    lines += [f"would be done by `run`: {line}" for line in data["would_do"]]
    lines += ["", "done last:", *(f"  {one['time']} {one['what']}: {one['reason']}" for one in data["history"][-10:])]
    lines += [] if data["history"] else ["  nothing"]
    return "\n".join(lines) + "\n"
