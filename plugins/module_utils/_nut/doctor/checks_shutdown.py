# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shutdown: upsmon, our programs, the order to cut the power, and whether the battery lasts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from ..base import paths
from ..base.clock import stamp
from ..base.systemd import MONITOR
from ..base.text import printable
from ..conf import upsd
from ..deploy import kits as deploy_kits
from ..shutdown import gate
from ..shutdown import policy as shutdown_policy
from ..shutdown.flag import SET, spare_of
from .checks_files import unit_problems
from .exam import DEPLOY, PRIMARY, Exam, Findings, Registry
from .findings import FAILURE, NOTE, UNKNOWN, WARNING, Finding

check = Registry()


# what the file system of POWERDOWNFLAG should still take: far more than the flag, as what fills it fills more
LEAST_SPACE, LEAST_FILES = 1 << 20, 100

_CHECK_OF = {deploy_kits.SHUTDOWN.name: "gate", deploy_kits.HOTPLUG.name: "hotplug", deploy_kits.ACCESS.name: "access"}
KITS: Mapping[str, deploy_kits.Kit] = {
    kit.name: kit for kit in (deploy_kits.SHUTDOWN, deploy_kits.HOTPLUG, deploy_kits.ACCESS)
}


@check("upsmon")
def check_upsmon(exam: Exam) -> Findings:
    """Is upsmon what it should be, and does it run as it should?"""
    watched = exam.files.monitors
    good = upsd.PRIMARY if exam.expected.primary else upsd.SECONDARY
    # one with power value 0 is only watched
    own = [
        monitor
        for monitor in watched
        if monitor.power
        and (not exam.expected.primary or monitor.ups.lower() in {name.lower() for name in exam.sections})
    ]
    wrong = [f"{monitor.system} as {monitor.type}" for monitor in own if monitor.type not in good]
    if not own:
        yield exam.fail("upsmon", "upsmon.conf watches no UPS that feeds this host", DEPLOY)
    elif wrong:
        words = f"upsmon.conf has {', '.join(wrong)}, and must have {good[0]}"
        effect = ": this host would go down first" if exam.expected.primary else ": this host would not be waited for"
        yield exam.fail("upsmon", words + effect, DEPLOY)
    else:
        yield exam.ok("upsmon", f"{good[0]} of {', '.join(monitor.system for monitor in own)}")
    users_of = {process.user for process in exam.seen.processes if process.name == "upsmon"}
    wanted = exam.files.directive("upsmon.conf", "RUN_AS_USER") or "nut"
    if users_of and wanted != "root" and wanted not in users_of:
        words = f"upsmon runs as {', '.join(sorted(users_of))}, and should as {wanted}"
        yield exam.warn("upsmon", words, f"systemctl restart {MONITOR}, while on mains")


@check("shutdowncmd")
def check_shutdowncmd(exam: Exam) -> Findings:
    """Does upsmon run what it should at the end?"""
    if "upsmon.conf" not in exam.seen.files:
        return
    there = exam.files.directive("upsmon.conf", "SHUTDOWNCMD")
    wanted = exam.wanted.directive("upsmon.conf", "SHUTDOWNCMD")
    if not there:
        yield exam.fail("shutdowncmd", "upsmon.conf has no SHUTDOWNCMD: this host would not go down", DEPLOY)
    elif wanted is not None and there != wanted:
        words = f"SHUTDOWNCMD is {printable(there, 100)!r}, and the inventory has {printable(wanted, 100)!r}"
        yield exam.fail("shutdowncmd", words, DEPLOY)
    else:
        yield exam.ok("shutdowncmd", printable(there, 100))


@check("gate", "hotplug", "access", on=PRIMARY)
def check_kits(exam: Exam) -> Findings:
    """Are nut-shutdown, nut-hotplug and nut-access there, current, and able to run?"""
    for name, texts in exam.expected.kits.items():
        kit = KITS[name]
        check = _CHECK_OF[name]
        tag = "hotplug" if kit is deploy_kits.HOTPLUG else "ups"
        todo = f"make pve tags={tag} limit={exam.host}"
        before: list[Finding] = []
        if not {kit.program, *(place.path for place in kit.places.values())} & set(exam.seen.own_files):
            # one who deploys by tags has none of it; without it no UPS is lost, as long as none comes or goes
            verdict = WARNING if kit is deploy_kits.HOTPLUG else FAILURE
            yield exam.make_finding(check, verdict, f"{kit.name} is not installed, and the inventory has it", todo)
            continue
        program = exam.seen.own_files.get(kit.program)
        if program is None:
            before.append(exam.fail(check, f"/{kit.program} is missing", todo))
        elif not program.mode & 0o100:
            before.append(
                exam.fail(check, f"/{kit.program} can't be run (mode {program.mode:04o})", f"chmod 755 /{kit.program}")
            )
        elif program.digest != exam.expected.digests.get(kit.program, program.digest):
            before.append(exam.warn(check, f"/{kit.program} is not the one that this collection installs", todo))
        for each, text in texts.items():
            place = kit.places[each]
            file = exam.seen.own_files.get(place.path)
            if text and file is None and each in kit.sandboxes and each in exam.seen.refused_sandboxes:
                why = printable(exam.seen.refused_sandboxes[each], 200)
                before.append(exam.note(check, why, f"{kit.remedy}; {todo}"))
            elif text and file is None:
                before.append(exam.fail(check, f"/{place.path} is missing", todo))
            elif (
                file is not None and file.text != text and not (each == "shutdown.json" and _policy_problem(file.text))
            ):
                words = (
                    f"/{place.path} is not as the inventory has it"
                    if text
                    else f"/{place.path} is there, and should not be"
                )
                before.append(exam.warn(check, words, todo))
        before += list(_kit_units(exam, kit, texts, check))
        yield from before
        if not before:
            yield exam.ok(check, f"/{kit.program} and what belongs to it are there, as this collection installs them")


def _kit_units(exam: Exam, kit: deploy_kits.Kit, texts: Mapping[str, str], check: str) -> Findings:
    unit = exam.seen.units.get(kit.service)
    if unit and unit.load == "masked":
        yield exam.fail(check, f"{kit.service} is masked: it can't be started", f"systemctl unmask {kit.service}")
    elif unit and unit.load in ("error", "bad-setting"):
        words = f"systemd can't load {kit.service} ({unit.load})"
        yield exam.fail(check, words, f"systemd-analyze verify {kit.service}")
    elif unit and unit.load == "not-found" and f"etc/systemd/system/{kit.service}" in exam.seen.own_files:
        yield exam.fail(check, f"systemd does not know {kit.service} yet", "systemctl daemon-reload")
    elif unit and unit.active == "failed":
        words = f"{kit.service} failed when it ran last{exam.last_words(kit.service)}"
        yield exam.warn(check, words, f"journalctl -u {kit.service} -n 50")
    for name in (*kit.always_on, *kit.helpers):
        if texts.get(name):
            yield from unit_problems(exam, name, check)


def _policy_problem(text: str) -> str:
    """Return what is wrong with a policy of the gate, "" if it is right."""
    try:
        shutdown_policy.read_stages(shutdown_policy.read_policy(text.encode("utf-8", "surrogateescape")).stages)
    except shutdown_policy.PolicyError as error:
        return str(error).splitlines()[0]
    return ""


def _is_gated(exam: Exam) -> bool:
    """Return whether upsmon leaves the shutdown to the gate. Its program is there without that, too: for stages, and for upsd."""
    return deploy_kits.GATE in (exam.files.directive("upsmon.conf", "SHUTDOWNCMD") or "")


@check("policy")
def check_policy(exam: Exam) -> Findings:
    """Is the gate's policy one, and does it know where everybody is?"""
    if deploy_kits.SHUTDOWN.name not in exam.expected.kits:
        return
    file = exam.seen.own_files.get(deploy_kits.SHUTDOWN.places["shutdown.json"].path)
    if file is None:
        return
    wrong = _policy_problem(file.text)
    if wrong:
        words = f"/{paths.SHUTDOWN_POLICY} can't be used: {printable(wrong, 150)}"
        yield exam.fail("policy", words, "nut-shutdown check; " + DEPLOY.format(host=exam.host))
        return
    if not _is_gated(exam):
        yield exam.ok("policy", "it can be used; SHUTDOWNCMD waits for nobody")
        return
    known = shutdown_policy.read_policy(file.text.encode("utf-8", "surrogateescape"))
    names = {client.name: client.address for client in exam.expected.clients}
    blind = [f"{name} ({address})" for name, address in names.items() if isinstance(exam.seen.addresses.get(name), str)]
    if blind:
        words = f"no address is known of {', '.join(blind)}: its end would not be seen, and waited for as long as it may take"
        yield exam.warn("policy", words, "give addresses, or mend the name server; then nut-shutdown refresh")
    else:
        yield exam.ok(
            "policy",
            f"waits for {', '.join(machine.name for machine in known.machines) or 'nobody'}, {known.longest:g} s at most",
        )


@check("killpower")
def check_killpower(exam: Exam) -> Findings:
    """Would the next reboot cut the UPS's power?"""
    named = exam.files.directive("upsmon.conf", "POWERDOWNFLAG")
    service = exam.seen.units.get(deploy_kits.GATE)
    going = (service is not None and service.active in ("active", "activating")) or any(
        "FSD" in ups.status for ups in exam.upses.values()
    )
    stale = False
    for path, since in exam.seen.flags.items():
        stale = True
        if going:
            yield exam.note("killpower", f"{path} is there: a shutdown is going on")
        elif path == named:
            words = f"{path} is there since {stamp(since)}, and no shutdown is going on: the next reboot cuts the UPS's power"
            yield exam.fail("killpower", words, f"rm {shlex.quote(path)}")
        else:
            words = f"{path} is there since {stamp(since)}, left by an earlier shutdown"
            yield exam.warn("killpower", words, f"rm {path}")
    if not stale and named:
        yield exam.ok("killpower", f"{named} is not there")


@check("cut")
def check_cut(exam: Exam) -> Findings:
    """Will the UPS be told to cut the power, even if there is no space when it matters?"""
    yield from exam.report_unseen("cut", "cut")
    seen = exam.seen.cut
    if seen is None:
        return
    folder, good = seen.path.rpartition("/")[0] or "/", True
    if deploy_kits.SHUTDOWN.name in exam.expected.kits and seen.spare != SET:
        good = False
        words = f"the spare flag {spare_of(seen.path)} is not usable ({seen.spare}): with a full {folder} the UPS might not cut the power"
        yield exam.warn(
            "cut", words, f"systemd-tmpfiles --create /{deploy_kits.SHUTDOWN.places[deploy_kits.TMPFILES].path}"
        )
    if seen.space < LEAST_SPACE or (seen.files is not None and seen.files < LEAST_FILES):
        good = False
        files = "" if seen.files is None else f" and {seen.files} files"
        words = f"the file system of {folder}, where {seen.path} is written, has room for only {seen.space // 1024} KiB{files}"
        yield exam.warn("cut", words, f"df -h {folder}; df -i {folder}; du -xah {folder} | sort -h | tail")
    if good:
        yield exam.ok("cut", f"there is space for {seen.path}, and a spare of it")


@check("trust")
def check_trust(exam: Exam) -> Findings:
    """Can others than root change what root believes and runs?"""
    yield from exam.report_unseen("trust", "trust")
    for path, why in exam.seen.untrusted.items():
        words = f"{path}: {why}, and root trusts and runs what is there"
        yield exam.fail("trust", words, f"chown root {shlex.quote(path)}; chmod go-w {shlex.quote(path)}; make pve")
    if not exam.seen.untrusted and "trust" not in exam.seen.troubles:
        yield exam.ok("trust", "root alone can change what root believes and runs")


@check("last-shutdown")
def check_last_shutdown(exam: Exam) -> Findings:
    """How did the last shutdown go, and did it end?"""
    if deploy_kits.SHUTDOWN.name not in exam.expected.kits or not _is_gated(exam):
        return
    state, service = exam.seen.gate_state, exam.seen.units.get(deploy_kits.GATE)
    if state is not None and not state.ended and not (service and service.active in ("active", "activating")):
        words = f"/{paths.GATE_STATE} is of a wait that did not come to its end; it does not count any more"
        yield exam.note("last-shutdown", words, "nut-shutdown status")
    last = exam.seen.last_gate
    if last is None:
        yield exam.ok("last-shutdown", "there was none yet")
        return
    if isinstance(last, str):
        yield exam.note("last-shutdown", "its report (/var/lib/nut-shutdown/last.json) can't be understood")
        return
    what = "the last shutdown" if last.mode == "gate" else f"the last wait ({printable(last.mode, 20)})"
    what = f"{what}, {stamp(last.began)}"
    if last.rule in (gate.DOWN, gate.ASSUMED) and all(machine.down is not None for machine in last.hosts):
        yield exam.ok("last-shutdown", f"{what}: all were down")
    else:
        words = f"{what}, did not end well: {printable(last.reason or '', 120) if last.rule else 'it has no end'}"
        yield exam.warn("last-shutdown", words, "nut-shutdown status; make plan")


@check("plan")
def check_plan(exam: Exam) -> Findings:
    """Does the battery last for the shutdown as it is planned?"""
    planned = exam.expected.plan
    if planned is None:
        return
    made = planned.get("plan")
    if not isinstance(made, Mapping):
        words = f"the shutdown could not be planned: {printable(str(planned.get('msg') or 'no answer'))}"
        yield exam.unknown("plan", words, "make plan")
        return
    wrong = [constraint for constraint in made.get("constraints", ()) if constraint.get("holds") is False]
    remedies = "; ".join(dict.fromkeys(str(constraint["remedy"]) for constraint in wrong if constraint.get("remedy")))
    words = str(made.get("verdict", ""))
    if planned.get("holds") is None:
        # a UPS that says nothing is told of elsewhere
        silent = not exam.upses or not all(ups.fresh for ups in exam.upses.values())
        yield exam.make_finding("plan", NOTE if silent else UNKNOWN, words, "make plan")
    elif planned["holds"]:
        yield exam.ok("plan", words)
    else:
        # as the role's own default of nut_server_plan_enforce has it
        verdict = NOTE if planned.get("feasible") else FAILURE
        yield exam.make_finding("plan", verdict, words, f"make plan; {remedies}" if remedies else "make plan")
