# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-hotplug: options, output, exit codes. The caller prints."""

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
from ..base.services import find_manager
from ..base.table import format_grid
from ..base.text import LINE, printable
from ..deploy.apply import LocalNut
from ..events.report import Reporter, write_at_once
from ..hotplug.observation import HotplugObservation, describe_device
from ..hotplug.observe import ReconcileError
from ..hotplug.reconcile import HotplugHost
from ..usb import policy
from ..usb.bus import UsbUps

BUSY = 75
# Time limit for one program. A driver gives up on an absent UPS after 3 tries of 5 s plus its own pauses.
PROGRAM_SECONDS = 120

DESCRIPTION = "Keep ups.conf and NUT's drivers in step with the UPSes that are plugged in."
EPILOG = """\
Options of a command: nut-hotplug COMMAND --help

exit codes:
  0   done, or nothing to do
  1   something could not be read or changed
  2   the command line or the policy is wrong
  75  gave up waiting: another run, or Ansible, was busy for a minute

While a UPS is on battery, restarts that could shut down other hosts are deferred until the mains are back.

files:
  /etc/nut/hotplug.json     policy, written by Ansible
  /etc/nut/ups.conf         sections of the UPSes
  /var/log/nut/hotplug.log  what was done and why
"""


COMMANDS = {
    "status": "show the UPSes that are plugged in, their names, and what was done last and why",
    "plan": "show what `run` would do now, and how ups.conf would change; change nothing",
    "run": "bring ups.conf and the drivers in step with the bus; started by udev and nut-hotplug.timer",
}


def _build_parser(out: PrintText, err: PrintText) -> Parser:
    parser = Parser(prog="nut-hotplug", description=DESCRIPTION, epilog=EPILOG, out=out, err=err)
    for name, summary in COMMANDS.items():
        _add_options(parser.add_command(name, summary), name)
    return parser


def _add_options(command: Parser, name: str) -> None:
    if name != "run":
        command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--debug", action="store_true", help="print the reasons for each decision to standard error")
    for option, default, metavar, summary in (
        ("--policy", paths.HOTPLUG_POLICY, "FILE", "policy"),
        ("--conf-dir", paths.NUT, "DIR", "directory of NUT's files"),
        ("--state", paths.HOTPLUG_STATE, "FILE", "state kept between runs"),
        ("--run-dir", "run", "DIR", "directory for the lock and notes"),
    ):
        command.add_argument(
            option, type=Path, default=Path("/", default), metavar=metavar, help=f"{summary}; default: %(default)s"
        )
    if name == "run":
        log = Path(os.environ.get("NUT_HOTPLUG_LOG") or f"/{paths.HOTPLUG_LOG}")
        command.add_argument(
            "--log", type=Path, default=log, metavar="FILE", help="log file; default: $NUT_HOTPLUG_LOG, or %(default)s"
        )


@dataclass
class HotplugLog:
    """Writes decisions to standard error, which a service sends to the journal, and to a file."""

    path: Path
    err: PrintText
    wall: Callable[[], float]  # seconds since 1970
    has_debug: bool = False
    has_failed: bool = field(default=False, init=False)  # writing the file; reported once

    def write_decision(self, line: str) -> None:
        """Log a decision."""
        self.err(line)
        self._append_line(line)

    def write_debug(self, line: str) -> None:
        """Log the reasons for a decision, if debugging is on."""
        if self.has_debug:
            self.write_decision(f"debug: {printable(line, 500)}")

    def _append_line(self, line: str) -> None:
        try:
            append_line(self.path, f"{format_time(self.wall())} {printable(line, LINE)}")
        except OSError as error:
            if not self.has_failed:
                self.has_failed = True
                self.err(f"can't write {self.path}: {error.strerror}")


def main(arguments: Sequence[str], out: PrintText, err: PrintText, program: str = "") -> int:
    """Run the command and return the exit code. out, err: print text. program: path of the program, "" if unknown."""
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
    runner = make_runner(PROGRAM_SECONDS)
    host = HotplugHost(
        rules,
        LocalNut(
            runner,
            conf_dir=options.conf_dir,
            hotplug_state=options.state,
            run_dir=options.run_dir,
            services=find_manager(options.run_dir, runner),
        ),
        watched_files=[options.policy, *([Path(program)] if program else [])],
    )
    if options.command == "run":
        return _run_agent(host, HotplugLog(options.log, err, host.wall, options.debug or rules.debug))
    if options.debug:
        host.debug = lambda line: err(f"debug: {printable(line, 500)}")
    try:
        observation = host.observe_host()
    except ReconcileError as error:
        err(printable(str(error), 500))
        return FAILED
    as_data, as_text = (plan_data, plan_text) if options.command == "plan" else (status_data, status_text)
    out(json.dumps(as_data(observation), indent=2) if options.json else as_text(observation).rstrip("\n"))
    return OK


def _run_agent(host: HotplugHost, log: HotplugLog) -> int:
    host.say, host.debug = log.write_decision, log.write_debug
    host.report_event = Reporter("hotplug", write_at_once)
    try:
        return FAILED if host.run().failed else OK
    except ReconcileError as error:
        log.write_decision(printable(str(error), 500))
        return FAILED
    except files.Busy as error:
        log.write_decision(printable(str(error), 500))
        return BUSY


def _read_policy(path: Path) -> policy.UsbPolicy:
    """Return the policy; the default policy if the file does not exist. Raise UsbPolicyError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return policy.UsbPolicy()
    except (OSError, ValueError) as error:
        raise policy.UsbPolicyError(f"can't be read: {error}") from None
    return policy.parse_policy(text)


# Output


def plan_data(observation: HotplugObservation) -> dict[str, Any]:
    """Return the output of `plan --json`."""
    return {
        "changes": observation.has_changes,
        "steps": list(observation.steps),
        "diff": observation.render_diff(),
        "faults": list(observation.faults),
        "deferred": [printable(line, 500) for line in observation.plan.deferred],
        "waits": {name: round(max(until - observation.time, 0), 1) for name, until in observation.plan.waits.items()},
        "remarks": list(observation.remarks),
    }


def plan_text(observation: HotplugObservation) -> str:
    """Return the output of `plan`."""
    data = plan_data(observation)
    lines = data["steps"] or ["nothing to do"]
    lines += [f"FAULT: {line}" for line in data["faults"]]
    lines += [f"deferred: {line}" for line in data["deferred"]]
    lines += [f"{name or 'upsd'}: checked again in {left:g} s" for name, left in data["waits"].items()]
    lines += [f"note: {line}" for line in data["remarks"]]
    return "\n".join(lines) + "\n" + (f"\n{data['diff']}" if data["diff"] else "")


def status_data(observation: HotplugObservation) -> dict[str, Any]:
    """Return the output of `status --json`. Text from devices is made printable."""
    reasons_unserved = {ups.device: reason for ups, reason in observation.resolution.unserved}
    names = {ups.device: name for name, ups in observation.resolution.plugged.items()}
    return {
        "upses": [
            _ups_data(observation, ups, names.get(ups.device, ""), reasons_unserved.get(ups.device, ""))
            for ups in observation.upses
        ],
        "absent": [
            {
                "name": name,
                "last": printable(str(observation.resolution.memory[name]))
                if name in observation.resolution.memory
                else "",
                "old_data": _old_data(observation, name),
            }
            for name in observation.resolution.absent
        ],
        "deferred": [
            {"what": printable(line, 500), "since": format_time(since) if since else "now"}
            for line, since in observation.deferred.items()
        ],
        "backing_off": [
            {"name": name, "tries": tries.count, "again_in": round(left, 1)}
            for name, tries in observation.plan.tries.items()
            if tries.good_since is None and (left := tries.next_try(observation.time) - observation.time) > 0
        ],
        "power": list(observation.not_on_mains),
        "faults": list(observation.faults),
        "remarks": list(observation.remarks),
        "would_do": list(observation.steps),
        "history": [
            {
                "time": format_time(entry.time),
                "name": entry.name,
                "what": printable(entry.what),
                "reason": printable(entry.reason, 500),
            }
            for entry in observation.state.history
        ],
    }


def _ups_data(observation: HotplugObservation, ups: UsbUps, name: str, reason_unserved: str) -> dict[str, Any]:
    device, driver = ups.device, observation.drivers.get(name)
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
        "status": printable(" ".join(driver.status)) if driver else "",
        "error": printable(driver.error or "") if driver else "",
        "not_served": printable(reason_unserved, 500),
        "old_data": _old_data(observation, name),
    }


def _old_data(observation: HotplugObservation, name: str) -> str:
    """Return the status that upsd reports although the driver does not read its UPS any more; "" if it reads it."""
    driver = observation.drivers.get(name)
    if driver is None or driver.loss is None:
        return ""
    return printable(" ".join(driver.status))


def _describe_old_data(row: dict[str, Any]) -> str:
    return f", but upsd serves old data as fresh ({row['old_data']})" if row["old_data"] else ""


def status_text(observation: HotplugObservation) -> str:
    """Return the output of `status`."""
    data = status_data(observation)
    rows = []
    for row, ups in zip(data["upses"], observation.upses):
        alive_status = f"not alive (old data: {row['old_data']})" if row["old_data"] else row["status"]
        state_now = alive_status or row["error"] or row["not_served"] or "no data"
        rows.append((row["name"] or "(no name)", state_now, row["driver"] or "no driver", describe_device(ups.device)))
    lines = [f"FAULT: {line}" for line in data["faults"]]
    lines += ["UPSes on the bus:", *(format_grid(rows, indent="  ") or ["  none"])]
    lines += format_grid(
        [
            (row["name"], f"unplugged{_describe_old_data(row)}; last seen: {row['last'] or 'unknown'}")
            for row in data["absent"]
        ],
        indent="  ",
    )
    lines += [f"not plainly on mains: {', '.join(data['power'])}"] if data["power"] else []
    lines += [f"deferred since {step['since']}: {step['what']}" for step in data["deferred"]]
    lines += [
        f"{row['name']}: the driver was started {row['tries']} times without success; next try in {row['again_in']:.0f} s"
        for row in data["backing_off"]
    ]
    lines += [f"note: {line}" for line in data["remarks"]]
    lines += [f"pending: {line}" for line in data["would_do"]]
    lines += ["", "last actions:"]
    lines += [f"  {entry['time']} {entry['what']}: {entry['reason']}" for entry in data["history"][-10:]] or ["  none"]
    return "\n".join(lines) + "\n"
