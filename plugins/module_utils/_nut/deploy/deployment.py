# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's files on a host, from those that are there to those that should be, taken up by the smallest set of actions.

actions.py decides, apply.py does, verify.py asks upsd in the end; here it is put together.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Protocol

from ..base import files as base_files
from ..base import hostnames, sets
from ..base import systemd as base_systemd
from ..base.text import one_line
from ..conf import consistency, dry_run, enumerator, grammar, host, nss, ups_conf, upsmon
from ..conf.advice import list_advice
from ..conf.directives import Release
from ..conf.files import NutFiles
from ..conf.fit import fit_files
from ..conf.release import find_release
from ..conf.upsd import local_upsd
from ..net import snapshot, vocabulary
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..usb.policy import UsbPolicy, UsbPolicyError, read_policy
from ..usb.resolution import NameResolution
from . import actions
from .apply import LocalNut
from .change import Change, FileChange, UnitAction
from .verify import Verifier, VerifyResult

MODE = 0o640  # passwords are in them: for root to write, for NUT to read

# the first line of each file that the roles write
_OURS = "(homelab.nut"
# where a file that somebody wrote is kept when the first of ours takes its place
KEPT = ".before-homelab-nut"


class DeployError(Exception):
    """The deployment stopped; the message says where, why, and what to do."""


class UsbBus(Protocol):
    """The host's USB bus with the UPSes on it; see hotplug/act.py, which stands above this file."""

    def complete_ups_conf(self, wanted: str) -> tuple[str, NameResolution]:
        """Return ups.conf with what is plugged in filled in, and how its names were found."""

    def note_intent(self, text: str, resolution: NameResolution) -> None:
        """Note what is about to be written, for whoever comes after a crash."""

    def note_written(self, text: str, resolution: NameResolution) -> None:
        """Remember what was written."""


@dataclass
class Deployment:
    """One host and its NUT, with the files that it should have. Only this class touches the host."""

    wanted: Mapping[str, str] | None  # name -> text; None, if the host shall have no NUT of ours
    local: LocalNut
    open_bus: Callable[[UsbPolicy, LocalNut, Release | None], UsbBus]
    tls: nss.TlsMaterial | None = None  # the certificates that the files refer to
    policy: UsbPolicy | None = None  # what becomes of UPSes that nobody declared; None leaves them alone
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    actions_done: list[UnitAction] = field(default_factory=list, init=False)
    files_written: list[str] = field(default_factory=list, init=False)
    backups: list[str] = field(default_factory=list, init=False)
    warnings: list[str] = field(default_factory=list, init=False)
    served_names: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Read what is there. Raises DeployError for a set of files that is none, or that this NUT can't have."""
        self.upsd_runs = False  # upsd, on this host, as plan() has seen it
        self.bus: UsbBus | None = None
        self.resolution: NameResolution | None = None
        self.absent = self.wanted is None
        self.new_files: Mapping[str, str] = self.wanted or {}
        self.certificates = nss.database_path(self.tls, self.local.conf_dir) if self.tls else None
        self._check_file_names()
        self.release = find_release(self.local.runner, self.local.finder)
        names = (*self.new_files, actions.WANTED) if "ups.conf" in self.new_files else self.new_files
        self.old_files = {
            name: text
            for name in (actions.FILES if self.absent else names)
            if (text := self.local.read_file(name)) is not None
        }
        asked = self._complete_ups_conf()
        # as it was asked for: fit() allows that, too, for the day on which the network is not there
        told = grammar.find_directive(self.new_files.get("upsd.conf", ""), "ALLOW_NOT_ALL_LISTENERS")
        self.may_lack_listeners = (told or "").lower() in ("1", "true", "yes", "on")
        self._fit_to_release()
        if asked or actions.WANTED in self.old_files:
            self.new_files = {**self.new_files, actions.WANTED: asked or "\n"}

    def _check_file_names(self) -> None:
        if not self.absent and set(self.new_files) not in (set(actions.PRIMARY_FILES), set(actions.SECONDARY_FILES)):
            raise DeployError(
                f"files must be {', '.join(actions.PRIMARY_FILES)} for a primary, or {', '.join(actions.SECONDARY_FILES)} for a "
                f"secondary, not {', '.join(sorted(self.new_files)) or 'none'}"
            )

    def _complete_ups_conf(self) -> str:
        """Complete ups.conf by what is plugged in. Returns the text that it was made of; "" if nothing is left to the host."""
        text = self.new_files.get("ups.conf", "")
        auto = any(ups_conf.is_auto(section) for section in ups_conf.parse_ups_conf(text).sections.values())
        if not text or not (auto or self.policy):
            return ""
        self.bus = self.open_bus(self._choose_policy(), self.local, self.release)
        completed, found = self.bus.complete_ups_conf(text)
        self.resolution = found
        self.warnings += found.remarks
        if found.found or ups_conf.parse_ups_conf(completed) != ups_conf.parse_ups_conf(text):
            self.new_files = {**self.new_files, "ups.conf": completed}
        return text if auto else ""

    def _choose_policy(self) -> UsbPolicy:
        """Return the given policy, or that of the host's own nut-hotplug, or one that leaves unknown UPSes alone."""
        if self.policy is not None:
            return self.policy
        try:
            return read_policy(self.local.conf_dir / "hotplug.json") or UsbPolicy(default_name="")
        except UsbPolicyError as error:
            raise DeployError(f"{error}. Run with the tag hotplug, or remove it") from None

    def _fit_to_release(self) -> None:
        """Leave out what the installed release does not know."""
        if self.release is None:
            return
        fitted = fit_files(self.new_files, self.release)
        if fitted.refused:
            raise DeployError(
                "the NUT on this host does not support this configuration; nothing was changed:\n"
                + "\n".join(fitted.refused)
            )
        self.new_files = NutFiles(fitted.files)
        self.warnings += fitted.left_out

    # Looking

    def plan_change(self) -> Change[UnitAction]:
        """Decide what to do on this host. Raises DeployError."""
        files = self.old_files if self.absent else self.new_files
        enabled = base_systemd.drivers_at_boot(self.local.unit_dir)
        watched = actions.watched_units(files)
        found = base_systemd.show_units(list(dict.fromkeys([*watched, *enabled])), self.local.runner)
        self.upsd_runs = bool(found.get(base_systemd.SERVER, base_systemd.ABSENT).pid)
        if self.absent:
            running = [name for name in found if base_systemd.is_driver(name) and found[name].runs]
            return actions.plan_removal(
                self.old_files, found, list(dict.fromkeys([*enabled, *running])), self.local.conf_dir
            )
        if (
            "ups.conf" not in self.new_files
            and ups_conf.parse_ups_conf(self.local.read_file("ups.conf") or "").sections
        ):
            raise DeployError(
                f"{self.local.conf_dir}/ups.conf declares a UPS, so this host is a primary. To make it a secondary, run with "
                "state=absent first, or empty that file"
            )
        masked = [name for name in watched if found[name].enabled.startswith("masked") and name != base_systemd.WATCHER]
        if masked:
            raise DeployError(
                f"can't start masked units: {', '.join(masked)}. Run: systemctl unmask {' '.join(masked)}"
            )
        return actions.plan_deployment(
            self.old_files,
            self.new_files,
            found,
            left=[*self._owed_actions(), *self._lost_certificates()],
            loose=self._unsafe_files(),
            strays=[name for name in enabled if name not in watched],
            stale=self._stale_sections(),
            folder=self.local.conf_dir,
        )

    def _stale_sections(self) -> list[str]:
        """Return the sections that the enumerator would take for changed: NUT 2.8.1 forgets what it let a driver reload."""
        text = self.new_files.get("ups.conf", "")
        stale = []
        for name in ups_conf.parse_ups_conf(text).sections:
            kept = base_systemd.checksum_path(name, self.local.unit_dir)
            if kept.exists() and f"SECTION_CHECKSUM={enumerator.section_checksum(text, name)}'" not in kept.read_text():
                stale.append(name)
        return stale

    def _unsafe_files(self) -> list[str]:
        """Return the files that others than root and NUT may read or write, or that NUT itself may not read."""
        try:
            owner = base_files.resolve_owner(self.local.owner)
        except KeyError:
            return []  # there is no such group yet: NUT is not installed
        return [
            name
            for name in self.old_files
            if not base_files.has_mode_and_owner(self.local.conf_dir / name, MODE, owner)
        ]

    def _lost_certificates(self) -> list[UnitAction]:
        """Restart what reads the certificates, if their database is not there. A new one has a new path in the files."""
        if self.certificates is None or nss.is_sound(self.certificates, self.local.owner):
            return []
        why = f"{self.certificates} is missing or damaged"
        readers = [
            name
            for name in actions.watched_units(self.new_files)
            if name in (base_systemd.SERVER, base_systemd.MONITOR)
        ]
        return [UnitAction("restart", name, why) for name in readers]

    def require_mains(self, force: bool = False, changed: str = "nothing was changed") -> None:
        """Stop if a UPS is on battery, or otherwise busy: a restart now could shut down every secondary.

        Asked are the upsd of this host and those that it watches, now and in future. Raises DeployError, unless FORCE. One
        that does not answer is no reason to stop: it may be what this run repairs. changed: what the run has done so far.
        """
        for (name, port), names in sorted(self._upsds_to_ask().items()):
            try:
                with UpsdClient(name, port, timeout=5) as client:
                    states = snapshot.take_snapshot(client)
                # as in NUT, a name counts in any case
                if names is None:
                    # what stands in for a UPS that is not there was never served
                    self.served_names |= {
                        state.name.lower() for state in states if state.fresh and vocabulary.ABSENT not in state.status
                    }
                busy = snapshot.list_not_on_mains(
                    [state for state in states if names is None or state.name.lower() in names]
                )
            except UpsdFailure:
                continue
            if busy and not force:
                raise DeployError(
                    f"upsd at {name}:{port} reports {', '.join(busy)}: not plainly on mains. A restart now could shut down "
                    f"every host on this UPS, so {changed}. Run again when the mains are back, or with force if you "
                    "know that it is safe."
                )

    def _upsds_to_ask(self) -> dict[tuple[str, int], list[str] | None]:
        asked: dict[tuple[str, int], list[str] | None] = {}
        for files in (self.old_files, self.new_files or self.old_files):
            if "ups.conf" in files:
                asked.update(dict.fromkeys(local_upsd(files.get("upsd.conf", ""))))
            for monitor in upsmon.read_monitors(files.get("upsmon.conf", "")):
                names = asked.setdefault((monitor.host, monitor.port), [])
                if names is not None:
                    names.append(monitor.ups.lower())
        return asked

    def check_files(self) -> None:
        """Check the files together, against this host, and by its own NUT. Raises DeployError with all that is wrong."""
        if self.absent:
            return
        wrong = consistency.find_inconsistencies(self.new_files, self.release)
        if self.release is not None and not wrong:
            wrong = host.find_unrunnable(self.new_files, self.local.runner) + host.find_missing(
                self.new_files, self.certificates
            )
            wrong += host.find_untrusted(self.new_files, self.local.conf_dir)
            if "upsd.conf" in self.new_files and not self.may_lack_listeners:
                wrong += host.find_unbindable(
                    self.new_files["upsd.conf"], self.old_files.get("upsd.conf", ""), self.upsd_runs
                )
            local = self.local
            wrong += dry_run.check_files(
                self.new_files, local.runner, local.finder, local.owner, room=local.run_dir, tls=self.tls
            )
        if wrong:
            raise DeployError(
                "the new configuration is not valid; the old one was kept and nothing was restarted:\n"
                + "\n".join(wrong)
            )

    def warn_of_risks(self) -> None:
        """Warn of what is no mistake in the files and can still cut the power at the wrong time."""
        texts = [files["upsmon.conf"] for files in (self.old_files, self.new_files) if "upsmon.conf" in files]
        self.warnings += host.find_old_flags(texts)
        if "upsmon.conf" in self.new_files:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
            self.warnings += host.find_lasting_flag(self.new_files["upsmon.conf"], mounts)
        if self.absent:
            self.warnings += self._warn_abandoned()

    def _warn_abandoned(self) -> list[str]:
        """Return who is still logged in to a upsd that is about to go."""
        if "ups.conf" not in self.old_files:
            return []
        try:
            with UpsdClient(*local_upsd(self.old_files.get("upsd.conf", ""))[0], timeout=5) as client:
                names = [state.name for state in snapshot.take_snapshot(client)]
                seen = {address for name in names for address in client.list_clients(name)}
        except UpsdFailure:
            return []
        others = sorted(address for address in seen if hostnames.normal_address(address) != hostnames.LOOPBACK)
        return [f"still logged in to upsd, and about to lose their UPS: {', '.join(others)}"] if others else []

    def list_advice(self) -> list[str]:
        """Return what the installed release is known to be bad at, as far as it touches this host."""
        return list_advice(self.new_files, self.release) if self.release else []

    # Doing

    def apply_change(self, decided: Change[UnitAction], force: bool = False) -> None:
        """Replace the files and take them up. Raises DeployError; then .written and .done tell how far it came.

        Drivers take their time: before upsd is restarted, it is asked once more whether the mains are there, unless FORCE.
        What becomes of a run that is killed here or there: docs/architecture.md, "Killed anywhere".
        """
        if self.tls and self.certificates and not nss.is_sound(self.certificates, self.local.owner):
            shutil.rmtree(self.certificates, ignore_errors=True)
            try:
                nss.make_database(self.certificates, self.tls, self.local.runner, self.local.owner)
            except nss.NssError as error:
                raise DeployError(f"{error}. Nothing was changed.") from None
        for action in decided.before:
            self._run_action(action)
        self._back_up_foreign(decided.files)
        if self.bus and self.resolution:
            self.bus.note_intent(self.new_files["ups.conf"], self.resolution)
        self._replace_files(decided)
        self.files_written += decided.written_files
        if self.bus and self.resolution:
            self.bus.note_written(self.new_files["ups.conf"], self.resolution)

        def take(action: UnitAction) -> None:
            if action.unit == base_systemd.SERVER and action.verb == "restart":
                self.require_mains(
                    force, "upsd was not restarted. The files are in place, and the next run does the rest"
                )
            self._run_action(action)

        self.local.run_actions(decided.after, take)
        if self.absent:
            with contextlib.suppress(OSError):
                self.local.manifest.parent.rmdir()

    def remove_old_certificates(self) -> None:
        """Remove the certificates that no file refers to any more, and those of a run that was killed. Raises OSError."""
        for old in self.local.conf_dir.glob(f"{nss.PREFIX}*"):
            if nss.NAME.fullmatch(old.name) and old != self.certificates:
                shutil.rmtree(old)

    def _replace_files(self, decided: Change[UnitAction]) -> None:
        """Replace the files, and note what must follow. Raises DeployError."""
        pending = self.local.pending
        texts = {file.path: file.new for file in decided.files if file.new is not None}
        note = sets.Note(pending.path, pending.render_note(decided.after))
        try:
            if texts:
                sets.replace_set(texts, MODE, self.local.owner, manifest=self.local.manifest, note=note)
            else:
                pending.write_actions(decided.after)
        except base_files.WriteError as error:
            raise DeployError(str(error)) from None

    def _back_up_foreign(self, files: Sequence[FileChange]) -> None:
        """Keep what somebody wrote, beside the file that takes its place."""
        foreign = {
            file.path: file.old for file in files if file.old is not None and _OURS not in file.old.partition("\n")[0]
        }
        theirs = foreign.keys() - host.find_shipped([*foreign], self.local.runner) if foreign else ()
        copies = {path.with_name(path.name + KEPT): text for path, text in foreign.items() if path in theirs}
        # the first one is the one that worked before there was any of ours
        copies = {copy: text for copy, text in copies.items() if not copy.exists()}
        try:
            base_files.replace_files(copies, MODE, self.local.owner)
        except base_files.WriteError as error:
            raise DeployError(str(error)) from None
        self.backups += map(str, copies)

    def _run_action(self, action: UnitAction) -> None:
        try:
            action = self.local.run_action(action)
        except base_systemd.UnitError as error:
            # A UPS that is not there lets its driver fail. What that means is judged when all is done.
            if not base_systemd.is_driver(action.unit):
                raise DeployError(
                    f"{error}\n{base_systemd.sandbox_failure(action.unit, self.local.runner)}"
                    f"Its last log lines: {one_line(base_systemd.last_log_lines(action.unit, self.local.runner))}"
                ) from None
        self.actions_done.append(action)

    def _owed_actions(self) -> list[UnitAction]:
        """Return what an earlier run did not live to do. What runs may run with old files if nobody knows that."""
        watched = [name for name in actions.watched_units(self.new_files) if name.endswith(".service")]
        return self.local.pending.read_actions(name for name in watched if name != base_systemd.ENUMERATOR)

    # Believing

    def wait_until_serving(self, seconds: float, patient: bool = False) -> VerifyResult:
        """Wait until upsd serves every UPS fresh and lists this host's upsmon as a client, for SECONDS at most."""
        if self.absent:
            return VerifyResult({})
        served = frozenset(self.served_names)
        verifier = Verifier(self.new_files, self.local.runner, self.tls, self.clock, self.pause, served)
        return verifier.wait_until_serving(seconds, patient)
