# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Apply the plan of an observation to the host, log it, and save the state for the next run."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..base import files as base_files
from ..base import systemd as base_systemd
from ..base.clock import format_time
from ..base.text import printable
from ..conf import dry_run, enumerator, ups_conf
from ..deploy.change import UnitAction
from ..events.report import name_host
from ..usb import presence
from ..usb.fingerprint import compare_fingerprints
from ..usb.resolution import NameResolution
from .memory import HistoryEntry, HotplugState, Tries, save_state
from .observation import FAULT_LENGTH, HotplugObservation, strip_all_numbers, strip_numbers
from .observe import DUMMY, Observer

MODE = 0o640


@dataclass(frozen=True)
class HotplugOutcome:
    """What a run did."""

    observation: HotplugObservation  # the last one of the run
    done: tuple[str, ...] = ()  # one line per action
    failed: tuple[str, ...] = ()  # one line per action that failed
    written: bool = False  # whether ups.conf was replaced
    excused: tuple[
        str, ...
    ] = ()  # the lines of `failed` about UPSes that were merely found, which must not fail a play

    @property
    def changed(self) -> bool:
        """Return whether anything on the host was changed."""
        return bool(self.done or self.written)


@dataclass
class Actor(Observer):
    """Observes one host and applies plans to it."""

    def note_written(self, text: str, resolution: NameResolution) -> None:
        """Record the sections that a play wrote, if this host has a state file, so that they do not count as edited by hand."""
        if self.local.hotplug_state.exists():
            written = self._our_sections(text, resolution)
            self._save_state(
                replace(self._load_state(), identities=dict(resolution.memory), written=written, intended={})
            )

    def note_intent(self, text: str, resolution: NameResolution) -> None:
        """Record the sections that a play is about to write. If it is killed, they do not count as edited by hand either."""
        if self.local.hotplug_state.exists():
            self._save_state(replace(self._load_state(), intended=self._our_sections(text, resolution)))

    @staticmethod
    def _our_sections(text: str, resolution: NameResolution) -> dict[str, str]:
        sections = ups_conf.parse_ups_conf(text).sections
        return {
            name: ups_conf.render_sections([section])
            for name, section in sections.items()
            if name not in resolution.fixed
        }

    def apply_plan(self, observation: HotplugObservation) -> HotplugOutcome:
        """Apply the plan of an observation. The caller holds the lock. Failed actions are in the outcome; they raise nothing."""
        work = _Execution(self, observation, self._log_news(observation), owed=[*observation.owed])
        for node, reason in observation.plan.permits:
            work.permit_node(node, reason)
        wrong = self._check_sections(observation)
        for name, reason in wrong.items():
            work.record_refusal(name, reason)
        if not wrong:
            if observation.has_changes:
                work.note_intent()
            for action in observation.plan.before:
                work.run_action(action)
            if work.write_files():
                self.local.run_actions(observation.plan.after, work.run_later_action, work.owed)
        self._save_state(work.state.with_history(*work.history))
        return work.build_outcome()

    def _report_plugging(self, before: HotplugState, now: HotplugState) -> None:
        """Report which UPSes were plugged in, pulled out or swapped since the last run. The first run of a boot has nothing to compare."""
        if before.boot != now.boot or not before.bus:
            return
        for name in before.plugged.keys() - now.plugged.keys():
            self.report_event("ups-lost", name)
        for name in now.plugged.keys() & now.identities.keys():
            known, identity = before.identities.get(name), now.identities[name]
            if known is not None and not compare_fingerprints(known, identity):
                self.report_event("ups-swapped", name, f"It was {known}, and is {identity}.")
            elif name not in before.plugged:
                self.report_event("ups-found", name, f"It is {identity}.")

    def _log_news(self, observation: HotplugObservation) -> HotplugState:
        """Log new faults, remarks and new or finished deferrals. Returns the state that includes them."""
        memory = observation.state
        self._report_plugging(self._load_state(), memory)
        self._log_faults(memory.faults_made, observation.faults)
        for line in observation.remarks:
            if line not in memory.remarks_made:
                self._log_once(line)
        now = self.wall()
        before = {strip_numbers(line): line for line in memory.deferred}
        deferred = {}
        for line in observation.plan.deferred:
            known = before.pop(strip_numbers(line), "")
            deferred[known or line] = memory.deferred.get(known, now)
            if not known:
                self._log_once(f"deferred: {line}")
                self.report_event("change-deferred", name_host(), line)
        finished = []
        for line in before.values():
            how = "now done" if observation.has_changes else "no longer needed"
            since = f"deferred since {format_time(memory.deferred[line])}"
            self.say(f"{how} ({since}): {printable(line, 500)}")
            self.report_event("deferral-over", name_host(), f"{line} ({how})")
            finished.append(HistoryEntry(now, "", how, f"{since}: {line}"))
        for name, until in observation.plan.waits.items():
            self.debug(f"{name or 'upsd'}: checked again in {max(until - observation.time, 0):.1f} s")
        state = replace(
            memory,
            remarks_made=observation.remarks,
            faults_made=observation.faults,
            deferred=deferred,
            tries=dict(observation.plan.tries),
        )
        return state.with_history(*finished)

    def _log_faults(self, before: Iterable[str], now: Iterable[str]) -> None:
        """Log new faults, and those that are over."""
        known, present = ({strip_all_numbers(line): line for line in lines} for lines in (before, now))
        for key, line in present.items():
            if key not in known:
                self._log_once(f"FAULT: {line}")
                self.report_event("fault-found", name_host(), line)
        for key, line in known.items():
            if key not in present:
                short = line.partition(". ")[0]
                self.say(f"this fault is over: {printable(short, 500)}")
                self.report_event("fault-over", name_host(), short)

    def _log_once(self, line: str) -> None:
        if line not in self._said_lines:
            self._said_lines.add(line)
            self.say(printable(line, FAULT_LENGTH))

    def _save_state(self, new: HotplugState) -> None:
        """Save the state. Failure is only logged, because the state is not essential."""
        self._state = new
        try:
            self.local.hotplug_state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            save_state(self.local.hotplug_state, new)
        except (OSError, base_files.WriteError) as error:
            self._log_once(f"can't save the state between runs: {error}")

    def _check_sections(self, observation: HotplugObservation) -> dict[str, str]:
        """Let NUT's own drivers read the changed sections, in a scratch directory.

        Returns name of a section -> what is wrong with it; "" stands for all sections.
        """
        conf = observation.plan.conf
        if conf is None or observation.new_text is None:
            return {}
        changed = [name for name in observation.changed_sections() if name in conf.sections]
        if not changed:
            return {}
        try:
            problems = dry_run.check_sections(
                observation.new_text,
                changed,
                self.local.runner,
                self.local.finder,
                self.local.owner,
                room=self.local.run_dir,
            )
            return {
                name: f"NUT rejects the new section: {'; '.join(lines)}" for name, lines in problems.items() if lines
            }
        except (OSError, LookupError) as error:
            return {"": f"can't check the new sections: {error}"}


@dataclass
class _Execution:
    """Applies one plan, step by step."""

    host: Actor
    observation: HotplugObservation
    state: HotplugState
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    history: list[HistoryEntry] = field(default_factory=list)
    owed: list[UnitAction] = field(default_factory=list)
    written: bool = False

    def record_done(self, name: str, what: str, reason: str) -> None:
        line = printable(f"{what}: {reason}", 500)
        self.host.say(line)
        self.done.append(line)
        self.history.append(HistoryEntry(self.host.wall(), name, what, reason))

    def record_failure(self, name: str, what: str, reason: str) -> None:
        """Record a failed action. It is logged once, not at each run."""
        line = printable(f"{what}: {reason}", 500)
        self.failed.append(line)
        if name in self.observation.resolution.found:
            self.excused.append(line)
        self.state = replace(self.state, remarks_made=(*self.state.remarks_made, line))
        if line not in self.observation.state.remarks_made:
            self.host._log_once(line)
            self.history.append(HistoryEntry(self.host.wall(), name, what, reason))
            self.host.report_event("change-failed", name_host(), line)

    def record_refusal(self, name: str, reason: str) -> None:
        """Record that a section, or all of ups.conf (""), was refused, so that the next observation leaves it unchanged."""
        conf = self.observation.plan.conf
        section = conf.sections.get(name) if conf else None
        what = (
            f"[{name}] in {self.observation.path} is not changed"
            if section
            else f"{self.observation.path} is not changed"
        )
        text = ups_conf.render_sections([section]) if section else self.observation.new_text or ""
        self.host._refused[text] = printable(f"{what}: {reason}", 500)
        self.state = replace(self.state, tries=self.observation.state.tries)
        self.record_failure(name, what, reason)

    def build_outcome(self) -> HotplugOutcome:
        return HotplugOutcome(self.observation, tuple(self.done), tuple(self.failed), self.written, tuple(self.excused))

    def permit_node(self, node: str, reason: str) -> None:
        try:
            permit_node(Path(self.host.policy.dev), node, self.host.local.owner[1])
        except (OSError, KeyError, ValueError) as error:
            plugged = self.observation.resolution.plugged
            name = next((name for name, ups in plugged.items() if ups.device.node == node), node)
            remedy = f". This host is a container: {presence.GRANT_RIGHTS}" if base_systemd.read_container() else ""
            reason = f"{getattr(error, 'strerror', None) or error}{remedy}"
            self.record_failure(name, f"give NUT access to {node}", reason)
            return
        self.record_done(node, f"give NUT access to {node}", reason)

    def run_later_action(self, action: UnitAction) -> None:
        """Run one of the actions that follow the file."""
        if action.unit == base_systemd.ENUMERATOR:
            self.update_checksums()
        self.run_action(action)

    def note_intent(self) -> None:
        """Record what is about to be done, so that the next run completes it if this one is interrupted."""
        observation, host = self.observation, self.host
        # After an interruption, a driver may be running with its old section, so it is restarted.
        noted = [
            replace(action, verb="restart")
            if action.verb == "start" and base_systemd.is_driver(action.unit)
            else action
            for action in observation.plan.after
        ]
        self.owed = [*noted, *observation.owed]
        try:
            host.local.pending.write_actions(self.owed)
        except base_files.WriteError as error:
            host.debug(str(error))
        if observation.new_text is not None and observation.plan.conf is not None:
            fixed = observation.resolution.fixed
            # a section edited by hand still counts as edited although this writes it again
            ours = {name: text for name, text in observation.known.written.items() if name in fixed}
            sections = observation.plan.conf.sections
            ours |= {
                name: ups_conf.render_sections([section]) for name, section in sections.items() if name not in fixed
            }
            self.state = replace(self.state, written=dict(observation.known.written), intended=ours)
        # Save the attempts before they are made: a run that is killed while a driver hangs must not start counting again.
        host._save_state(self.state)

    def write_files(self) -> bool:
        """Write the files. Returns False if that fails; the next observation then restarts what was stopped for it."""
        observation, host = self.observation, self.host
        texts = {host.local.conf_dir / name: DUMMY for name in observation.missing_files}
        if observation.new_text is not None:
            texts[observation.path] = observation.new_text
        if not texts:
            return True
        try:
            base_files.replace_files(texts, MODE, host.local.owner)
        except base_files.WriteError as error:
            self.record_refusal("", str(error))
            return False
        if observation.new_text is not None:
            self.written = True
            self.state = replace(self.state, written=self.state.intended, intended={})
            for name, why in observation.changed_sections().items():
                self.record_done(name, f"write {observation.path}", why)
        return True

    def note_start(self, action: UnitAction) -> None:
        """Count the attempts from when a unit was really started: on a busy host that is long after the plan was made."""
        now, planned = self.host.clock(), self.observation.time
        if action.verb not in ("start", "restart"):
            return
        if action.unit == base_systemd.ENUMERATOR:
            names = [name for name, tries in self.state.tries.items() if name and tries.last_try == planned]
        elif base_systemd.is_driver(action.unit):
            names = [base_systemd.ups_of_driver(action.unit)]
        else:
            names = [name for name in self.state.tries if not name and action.unit == base_systemd.SERVER]
        started = {name: replace(self.state.tries.get(name, Tries(1)), last_try=now) for name in names}
        self.state = replace(self.state, tries={**self.state.tries, **started})

    def run_action(self, action: UnitAction) -> None:
        self._run_action(action)
        self.note_start(action)

    def _run_action(self, action: UnitAction) -> None:
        host = self.host
        name = base_systemd.ups_of_driver(action.unit) if base_systemd.is_driver(action.unit) else action.unit
        try:
            # do not wait: a driver whose UPS hangs takes a minute or more to stop or start
            action = host.local.run_action(action, wait=False)
        except base_systemd.UnitError as error:
            if not base_systemd.is_driver(action.unit):
                self.record_failure(name, f"{action.verb} {action.unit}", str(error))
                return
            # The next observation shows the effect. The attempt is counted.
            host.debug(str(error))
            self.record_done(name, f"{action.verb} {action.unit}", f"{action.reason}. It did not start")
            return
        if action.verb == "restart" and base_systemd.is_driver(action.unit):
            host.report_event("driver-restarted", name, f"The reason: {action.reason}.")
        self.record_done(name, f"{action.verb} {action.unit}", action.reason)

    def update_checksums(self) -> None:
        """Update the enumerator's checksums of unchanged sections, so that it does not restart their drivers.

        They differ if somebody edited a section and restarted the driver by hand, and with 2.8.1, which does not record a section that a
        driver reloaded.
        """
        host, text = self.host, self.observation.new_text or self.observation.old_text
        conf, current = ups_conf.parse_ups_conf(text), self.observation.known.conf
        same = [name for name, section in conf.sections.items() if current.sections.get(name) == section]
        same += [""] if conf.settings == current.settings else []
        checksums = {name: enumerator.section_checksum(text, name) for name in same}
        try:
            host.local.manager.record_checksums({name: found for name, found in checksums.items() if found is not None})
        except base_systemd.UnitError as error:
            host.debug(str(error))


def permit_node(dev: Path, node: str, group: str | int) -> None:
    """Give a group read and write access to a device node, without following links below DEV.

    node: the kernel's path, such as /dev/bus/usb/001/004. Raises OSError, ValueError if it is not a device, and KeyError if there is
    no such group.
    """
    number = grp.getgrnam(group).gr_gid if isinstance(group, str) else group
    parts = Path(node).parts[2:]
    if not parts or ".." in parts or not node.startswith("/dev/"):
        raise ValueError("not a device node below /dev")
    handle = os.open(dev, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            inner = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            os.close(handle)
            handle = inner
        mode = os.fstat(handle).st_mode
        # in tests the nodes are FIFOs
        if not stat.S_ISCHR(mode) and not (stat.S_ISFIFO(mode) and dev != Path("/dev")):
            raise ValueError("not a device")
        link = Path(f"/proc/self/fd/{handle}")
        os.chown(link, -1, number)
        link.chmod(stat.S_IMODE(mode) | 0o060)
    finally:
        os.close(handle)
