# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shutdown: upsmon, our own programs, the flag that makes the UPS cut the power, and whether the battery lasts."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from ..base import paths
from ..base.clock import format_time
from ..base.spelling import list_words
from ..base.systemd import MONITOR, SERVER, STAGES
from ..base.text import printable
from ..conf import upsd
from ..conf.release import format_release
from ..deploy import kits as deploy_kits
from ..plan.node import explain_short_times
from ..shutdown import gate
from ..shutdown import policy as shutdown_policy
from ..shutdown.flag import SET, spare_path
from .checks_files import unit_problems
from .exam import DEPLOY, PRIMARY, Exam, Findings, Registry, name_unit, restart_on_mains
from .findings import FAILURE, NOTE, OK, UNKNOWN, WARNING, Finding
from .observe import Process

check = Registry()


# Free bytes and files for POWERDOWNFLAG. The flag needs far less, but the disk may continue to fill up.
LEAST_SPACE, LEAST_FILES = 1 << 20, 100

CALIBRATION_ENDS = (2, 8, 2)
"""The first release whose upsmon notices that a UPS no longer calibrates."""

_CHECK_OF = {deploy_kits.SHUTDOWN.name: "gate", deploy_kits.HOTPLUG.name: "hotplug", deploy_kits.ACCESS.name: "access"}
KITS: Mapping[str, deploy_kits.Kit] = {
    kit.name: kit for kit in (deploy_kits.SHUTDOWN, deploy_kits.HOTPLUG, deploy_kits.ACCESS)
}


@check("upsmon")
def check_upsmon(exam: Exam) -> Findings:
    """Check that upsmon has the right role for each UPS, and runs as the right user."""
    watched = exam.files.monitors
    good = upsd.PRIMARY if exam.expected.primary else upsd.SECONDARY
    # A power value of 0 means that the UPS is only monitored.
    own = [
        monitor
        for monitor in watched
        if monitor.power
        and (not exam.expected.primary or monitor.ups.lower() in {name.lower() for name in exam.sections})
    ]
    wrong = [f"{monitor.system} as {monitor.type}" for monitor in own if monitor.type not in good]
    if not own:
        message = "upsmon.conf has no MONITOR line for a UPS that powers this host"
        yield exam.fail("upsmon", message, DEPLOY, about=["upsmon.conf"])
    elif wrong:
        message = f"upsmon.conf monitors {', '.join(wrong)}, must be {good[0]}"
        effect = (
            ": this host would shut down first"
            if exam.expected.primary
            else ": the primary would not wait for this host"
        )
        yield exam.fail("upsmon", message + effect, DEPLOY, about=["upsmon.conf"])
    else:
        yield exam.ok("upsmon", f"{good[0]} of {', '.join(monitor.system for monitor in own)}")
    yield from _judge_supplies(exam)
    yield from _judge_calibration(exam)
    yield from _judge_processes(exam)


def _judge_processes(exam: Exam) -> Findings:
    """Report an upsmon that lacks one of its two processes: root's starts SHUTDOWNCMD, the other one watches the UPS."""
    processes = [process for process in exam.seen.processes if process.name == "upsmon"]
    users = {process.user for process in processes}
    wanted = exam.files.directive("upsmon.conf", "RUN_AS_USER") or "nut"
    todo, about = restart_on_mains(MONITOR), [name_unit(MONITOR, exam.host)]
    if not users or wanted == "root":
        return
    if "root" not in users:
        message = "upsmon's process that runs as root has died. Only it can start SHUTDOWNCMD, so this host would not shut down"
        yield exam.fail("upsmon", message, f"systemctl restart {MONITOR}", about=about)
    elif wanted not in users:
        message = f"upsmon runs as {', '.join(sorted(users))}, should run as {wanted}"
        yield exam.warn("upsmon", message, todo, about=about)
    elif _watches_wrong_process(exam, processes):
        message = (
            f"systemd watches upsmon's process that runs as {wanted}. If root's process died, it would not be started again, and this "
            "host would not shut down"
        )
        # of a primary, check_kits() reports a drop-in that is missing
        deploy = "" if exam.expected.primary else f"make ups tags=ups limit={exam.host}; "
        yield exam.warn("upsmon", message, deploy + todo, about=about)


def _watches_wrong_process(exam: Exam, processes: Iterable[Process]) -> bool:
    """Return whether upsmon was started while its unit, of NUT 2.8.5, had no drop-in of ours."""
    unit = exam.seen.units.get(MONITOR)
    return unit is not None and any(process.pid == unit.pid and process.user != "root" for process in processes)


def _judge_supplies(exam: Exam) -> Findings:
    """Report which UPS powers what, and whether upsmon would wait for a UPS that gives no data."""
    feeds = exam.feeds
    if not exam.expected.primary or not feeds.upses:
        return
    silent = [ups for ups in feeds.upses if ups in exam.sections and _is_silent(exam, ups)]
    others = [ups for ups in feeds.upses if ups not in silent]
    if exam.served is not None and silent and others and feeds.is_enough(silent):
        message = (
            f"upsmon waits for {' and '.join(silent)}: a UPS without data counts as one that gives power, so upsmon does not shut "
            f"this host down when {' and '.join(others)} is low"
        )
        stages = exam.seen.units.get(STAGES)
        if stages is not None and stages.runs:
            todo = "plug it in or repair it; nut-hotplug status"
            yield exam.warn("upsmon", f"{message}. nut-stages does it instead", todo, about=silent)
        else:
            todo = f"repair the UPS; systemctl status {STAGES}"
            yield exam.fail("upsmon", f"{message}, and nut-stages, which would do it, does not run", todo)
    elif len(exam.sections) > 1 or len(feeds.power) > 1:
        powered = [f"{ups} {exam.describe_powered(ups)}" for ups in dict.fromkeys([*exam.sections, *feeds.power])]
        yield exam.ok("upsmon", f"{'; '.join(powered)}; this host {feeds.describe_need()}")


def _judge_calibration(exam: Exam) -> Findings:
    """Report an upsmon that has seen a calibration, and believes that it never ends (NUT 2.8.0 and 2.8.1: clients/upsmon.c, ups_cal)."""
    unit = exam.seen.units.get(MONITOR)
    if unit is None or exam.seen.release is None or exam.seen.release >= CALIBRATION_ENDS:
        return
    seen = [
        entry.at
        for entry in exam.seen.journal
        if entry.unit == MONITOR and entry.at >= unit.since and "calibration in progress" in entry.words
    ]
    calibrates = any("CAL" in ups.status for ups in exam.upses.values())
    if seen and not calibrates:
        message = (
            f"upsmon of NUT {format_release(exam.seen.release)} believes that a UPS is still calibrating, since "
            f"{format_time(seen[-1])}, so this host would not shut down in a power cut"
        )
        yield exam.fail("upsmon", message, restart_on_mains(MONITOR))


def _is_silent(exam: Exam, ups: str) -> bool:
    state = exam.upses.get(ups.lower())
    return state is None or not state.fresh or state.is_stand_in


@check("shutdowncmd")
def check_shutdowncmd(exam: Exam) -> Findings:
    """Check that SHUTDOWNCMD is set and matches the inventory."""
    if "upsmon.conf" not in exam.seen.files:
        return
    actual = exam.files.directive("upsmon.conf", "SHUTDOWNCMD")
    wanted = exam.wanted.directive("upsmon.conf", "SHUTDOWNCMD")
    if not actual:
        message = "upsmon.conf has no SHUTDOWNCMD, so this host would not shut down"
        yield exam.fail("shutdowncmd", message, DEPLOY, about=["upsmon.conf"])
    elif wanted is not None and actual != wanted:
        message = f"SHUTDOWNCMD is {printable(actual, 100)!r}, should be {printable(wanted, 100)!r}"
        yield exam.fail("shutdowncmd", message, DEPLOY, about=["upsmon.conf"])
    else:
        yield exam.ok("shutdowncmd", printable(actual, 100))


@check("gate", "hotplug", "access", where=PRIMARY)
def check_kits(exam: Exam) -> Findings:
    """Check that nut-shutdown, nut-hotplug and nut-access are installed, up to date, and able to run."""
    for kit_name, texts in exam.expected.kits.items():
        kit = KITS[kit_name]
        check = _CHECK_OF[kit_name]
        tag = "hotplug" if kit is deploy_kits.HOTPLUG else "ups"
        todo = f"make ups tags={tag} limit={exam.host}"
        problems: list[Finding] = []
        missing: list[str] = []
        if exam.seen.own_files.keys().isdisjoint(kit.all_paths):
            # A deployment by tags may leave nut-hotplug out. Without it all goes well until a UPS is plugged in or out.
            verdict = WARNING if kit is deploy_kits.HOTPLUG else FAILURE
            yield exam.make_finding(check, verdict, f"{kit.name} is not installed, but the inventory wants it", todo)
            continue
        program = exam.seen.own_files.get(kit.program)
        if program is None:
            missing.append(f"/{kit.program}")
        elif not program.mode & 0o100:
            problems.append(
                exam.fail(check, f"/{kit.program} can't be run (mode {program.mode:04o})", f"chmod 755 /{kit.program}")
            )
        elif program.digest != exam.expected.digests.get(kit.program, program.digest):
            problems.append(exam.warn(check, f"/{kit.program} differs from the one in this collection", todo))
        for name, text in texts.items():
            place = kit.places[name]
            file = exam.seen.own_files.get(place.path)
            if text and file is None and name in kit.sandboxes and name in exam.seen.refused_sandboxes:
                why = printable(exam.seen.refused_sandboxes[name], 200)
                problems.append(exam.note(check, why, f"{kit.remedy}; {todo}"))
            elif text and file is None:
                missing.append(f"/{place.path}")
            elif (
                file is not None
                and file.text != text
                and not (name == "shutdown.json" and _is_left_to_others(file.text, text))
            ):
                message = (
                    f"/{place.path} differs from the inventory" if text else f"/{place.path} exists, but should not"
                )
                problems.append(exam.warn(check, message, todo))
        if missing:
            message = f"{list_words(missing)} {'are' if len(missing) > 1 else 'is'} missing"
            problems.insert(0, exam.fail(check, message, todo))
        problems += list(_kit_units(exam, kit, texts, check))
        yield from problems
        if not problems:
            yield exam.ok(check, f"/{kit.program} and its files are installed and up to date")


def _kit_units(exam: Exam, kit: deploy_kits.Kit, texts: Mapping[str, str], check: str) -> Findings:
    """Yield what is wrong with the units of one of our programs."""
    unit = exam.seen.units.get(kit.service)
    if unit and unit.load == "masked":
        yield exam.fail(check, f"{kit.service} is masked, so it can't be started", f"systemctl unmask {kit.service}")
    elif unit and unit.load in ("error", "bad-setting"):
        message = f"systemd can't load {kit.service} ({unit.load})"
        yield exam.fail(check, message, f"systemd-analyze verify {kit.service}")
    elif unit and unit.load == "not-found" and f"etc/systemd/system/{kit.service}" in exam.seen.own_files:
        yield exam.fail(check, f"systemd does not know {kit.service} yet", "systemctl daemon-reload")
    elif unit and unit.active == "failed":
        message = f"the last run of {kit.service} failed{exam.last_words(kit.service)}"
        yield exam.warn(check, message, f"journalctl -u {kit.service} -n 50")
    for name in (*kit.always_on, *kit.helpers):
        if texts.get(name):
            yield from unit_problems(exam, name, check)


def _policy_problem(text: str) -> str:
    """Return what is wrong with the text of a shutdown policy, "" if it is valid."""
    try:
        shutdown_policy.read_stages(shutdown_policy.read_policy(text.encode("utf-8", "surrogateescape")).stages)
    except shutdown_policy.ShutdownPolicyError as error:
        return str(error).splitlines()[0]
    return ""


def _is_left_to_others(text: str, wanted: str) -> bool:
    """Return whether other checks report how a policy differs: it is invalid, or only its runtime_low is another one."""
    if _policy_problem(text):
        return True
    return bool(wanted) and _without_runtime_low(text) == _without_runtime_low(wanted)


def _without_runtime_low(text: str) -> dict[str, Any]:
    return {name: value for name, value in json.loads(text).items() if name != "runtime_low"}


def _explain_other_runtime_low(exam: Exam, made: Mapping[str, Any]) -> str:
    """Return how the runtime at which nut-stages begins the shutdown differs from the planned one; "" if it does not."""
    text = getattr(exam.seen.own_files.get(paths.SHUTDOWN_POLICY), "text", "")
    if not text or _policy_problem(text):
        return ""
    deployed, planned = json.loads(text).get("runtime_low"), made.get("runtime_low")
    if deployed == planned:
        return ""
    now = "never begins the shutdown by itself" if deployed is None else f"begins the shutdown with {deployed:g} s left"
    wanted = "it should leave that to the UPS" if planned is None else f"the plan wants {planned:g} s"
    return f"nut-stages {now}, but {wanted} ({made.get('runtime_low_reason', '')})"


def _is_gated(exam: Exam) -> bool:
    """Return whether SHUTDOWNCMD starts the gate. Without it nut-shutdown is still installed, for stages and for nut-watch."""
    return deploy_kits.GATE in (exam.files.directive("upsmon.conf", "SHUTDOWNCMD") or "")


@check("policy")
def check_policy(exam: Exam) -> Findings:
    """Check that the shutdown policy is valid, and that each machine in it has an address."""
    if deploy_kits.SHUTDOWN.name not in exam.expected.kits:
        return
    file = exam.seen.own_files.get(deploy_kits.SHUTDOWN.places["shutdown.json"].path)
    if file is None:
        return
    wrong = _policy_problem(file.text)
    if wrong:
        message = f"/{paths.SHUTDOWN_POLICY} can't be used: {printable(wrong, 150)}"
        todo = "nut-shutdown check; " + DEPLOY.format(host=exam.limit)
        yield exam.fail("policy", message, todo, about=[paths.SHUTDOWN_POLICY])
        return
    if not _is_gated(exam):
        yield exam.ok("policy", "valid; SHUTDOWNCMD does not wait for other machines")
        return
    policy = shutdown_policy.read_policy(file.text.encode("utf-8", "surrogateescape"))
    names = {client.name: client.address for client in exam.expected.clients}
    blind = [f"{name} ({address})" for name, address in names.items() if isinstance(exam.seen.addresses.get(name), str)]
    if blind:
        message = f"no address for {', '.join(blind)}: the gate can't see it go down, and waits its full shutdown_limit"
        todo = "use addresses, or fix name resolution; nut-shutdown refresh"
        about = [name for name in names if isinstance(exam.seen.addresses.get(name), str)]
        yield exam.warn("policy", message, todo, about=about)
    else:
        yield exam.ok(
            "policy",
            f"waits for {', '.join(machine.name for machine in policy.machines) or 'no machine'}, {policy.timeout:g} s at most",
        )


@check("guests")
def check_guests(exam: Exam) -> Findings:
    """Check that the primary gives a secondary that is a Proxmox VE node the time that its guests take."""
    yield from exam.report_unseen("guests", "guests")
    times, expected = exam.seen.node_times, exam.expected.times
    if times is None or expected is None:
        return
    message, remedy = explain_short_times(
        exam.host, expected.primary, times, expected.shutdown_time, expected.shutdown_limit
    )
    for remark in times.ha:
        yield exam.ok("guests", remark)
    if message:
        yield exam.warn("guests", message, remedy)
    else:
        yield exam.ok(
            "guests", f"a Proxmox VE node that takes {times.limit} s at most; {expected.primary} waits that long"
        )


@check("late-guests", where=PRIMARY)
def check_late_guests(exam: Exam) -> Findings:
    """Check that the guests run that had to be started again after an outage or a boot."""
    yield from exam.report_unseen("late-guests", "late guests")
    for command, line in exam.seen.open_starts.given_up.items():
        yield exam.fail("late-guests", f"not running, and given up: {line}", command)
    for line in exam.seen.open_starts.waiting:
        yield exam.warn("late-guests", f"not running yet: {line}", "pvesm status; nut-stages goes on trying")


@check("guest-start")
def check_guest_start(exam: Exam) -> Findings:
    """Check that Proxmox VE has started its guests since the boot."""
    yield from exam.report_unseen("guest-start", "guest start")
    start = exam.seen.guest_start
    if start is None or not start.message:
        return
    verdict = FAILURE if start.is_endless else WARNING if start.remedy else OK
    yield exam.make_finding("guest-start", verdict, start.message, start.remedy)


@check("killpower")
def check_killpower(exam: Exam) -> Findings:
    """Check that no stale POWERDOWNFLAG makes the next reboot cut the UPS's power."""
    configured = exam.files.directive("upsmon.conf", "POWERDOWNFLAG")
    service = exam.seen.units.get(deploy_kits.GATE)
    shutting_down = (service is not None and service.active in ("active", "activating")) or any(
        "FSD" in ups.status for ups in exam.upses.values()
    )
    stale = False
    for path, since in exam.seen.flags.items():
        stale = True
        if shutting_down:
            yield exam.ok("killpower", f"{path} exists: a shutdown is in progress")
        elif path == configured:
            message = f"{path} has existed since {format_time(since)}, but no shutdown is in progress: the next reboot cuts the UPS's power"
            yield exam.fail("killpower", message, f"rm {shlex.quote(path)}")
        else:
            message = f"{path} has existed since {format_time(since)}, left over from an earlier shutdown"
            yield exam.warn("killpower", message, f"rm {shlex.quote(path)}")
    if not stale and configured:
        yield exam.ok("killpower", f"{configured} does not exist")


@check("cut")
def check_cut(exam: Exam) -> Findings:
    """Check that upsmon could write POWERDOWNFLAG even with a full disk, so that the UPS cuts the power."""
    yield from exam.report_unseen("cut", "cut")
    seen = exam.seen.cut
    if seen is None:
        return
    folder, good = seen.path.rpartition("/")[0] or "/", True
    if deploy_kits.SHUTDOWN.name in exam.expected.kits and seen.spare != SET:
        good = False
        message = f"the spare flag {spare_path(seen.path)} is {seen.spare}: if {folder} is full, the UPS might not cut the power"
        yield exam.warn(
            "cut", message, f"systemd-tmpfiles --create /{deploy_kits.SHUTDOWN.places[deploy_kits.TMPFILES].path}"
        )
    if seen.space < LEAST_SPACE or (seen.files is not None and seen.files < LEAST_FILES):
        good = False
        files = "" if seen.files is None else f" and {seen.files} files"
        message = (
            f"the file system of {folder}, which holds {seen.path}, has room for only {seen.space // 1024} KiB{files}"
        )
        yield exam.warn("cut", message, f"df -h {folder}; df -i {folder}; du -xah {folder} | sort -h | tail")
    if good:
        yield exam.ok("cut", f"{seen.path} has space and a spare")


@check("trust")
def check_trust(exam: Exam) -> Findings:
    """Check that only root can change what root trusts and runs."""
    yield from exam.report_unseen("trust", "trust")
    for path, why in exam.seen.untrusted.items():
        message = f"{path}: {why}, but root trusts and runs what it holds"
        yield exam.fail("trust", message, f"chown root {shlex.quote(path)}; chmod go-w {shlex.quote(path)}; make ups")
    if not exam.seen.untrusted and "trust" not in exam.seen.troubles:
        yield exam.ok("trust", "only root can change what root trusts and runs")


@check("last-shutdown")
def check_last_shutdown(exam: Exam) -> Findings:
    """Report how the last shutdown ended."""
    if deploy_kits.SHUTDOWN.name not in exam.expected.kits or not _is_gated(exam):
        return
    state, service = exam.seen.gate_state, exam.seen.units.get(deploy_kits.GATE)
    if state is not None and not state.ended and not (service and service.active in ("active", "activating")):
        yield exam.ok("last-shutdown", f"/{paths.GATE_STATE} is left over from an interrupted wait; it is ignored")
    last = exam.seen.last_gate
    if last is None:
        yield exam.ok("last-shutdown", "no shutdown so far")
        return
    if isinstance(last, str):
        message = f"the report of the last shutdown, /{paths.GATE_REPORT}, can't be read"
        yield exam.note("last-shutdown", message, f"rm /{paths.GATE_REPORT}; the next shutdown writes it again")
        return
    label = "the last shutdown" if last.mode == "gate" else f"the last wait ({printable(last.mode, 20)})"
    label = f"{label}, {format_time(last.began)}"
    if last.rule in (gate.DOWN, gate.ASSUMED) and all(machine.down is not None for machine in last.machines):
        yield exam.ok("last-shutdown", f"{label}: all machines were down")
    else:
        message = (
            f"{label}, did not end well: {printable(last.reason or '', 120) if last.rule else 'it was interrupted'}"
        )
        yield exam.warn("last-shutdown", message, "nut-shutdown status; make plan")


@check("plan")
def check_plan(exam: Exam) -> Findings:
    """Check that the battery outlasts the planned shutdown."""
    planned = exam.expected.plan
    if planned is None:
        return
    made, todo = planned.get("plan"), f"make plan limit={exam.host}"
    # without upsd and its data, too little is known for a plan
    about = [SERVER, "nut.conf", *exam.sections]
    if not isinstance(made, Mapping):
        message = f"the shutdown could not be planned: {printable(str(planned.get('msg') or 'no answer'))}"
        yield exam.unknown("plan", message, todo, about=about)
        return
    wrong = [constraint for constraint in made.get("constraints", ()) if constraint.get("holds") is False]
    remedies = "; ".join(dict.fromkeys(str(constraint["remedy"]) for constraint in wrong if constraint.get("remedy")))
    message = str(made.get("verdict", ""))
    if planned.get("holds") is None:
        # check_drivers() reports a UPS without data.
        silent = not exam.upses or not all(ups.fresh for ups in exam.upses.values())
        yield exam.make_finding("plan", NOTE if silent else UNKNOWN, message, todo, about=about)
    elif planned["holds"] and (difference := _explain_other_runtime_low(exam, made)):
        yield exam.warn("plan", difference, DEPLOY.format(host=exam.limit))
    elif planned["holds"]:
        yield exam.ok("plan", message)
    else:
        # The same distinction as the default of nut_server_plan_enforce.
        verdict = NOTE if planned.get("feasible") else FAILURE
        yield exam.make_finding("plan", verdict, message, f"{remedies}; {todo}" if remedies else todo)
