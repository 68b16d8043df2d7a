# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deploy NUT's files to a host: check and replace them, and restart only what must be restarted.

actions.py decides which actions are needed, apply.py runs them, and verify.py asks upsd afterwards. This file combines them.
One file, because all of its steps share the lock and the files that were read.
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
from ..base.clock import read_boot_id
from ..base.text import one_line
from ..conf import consistency, dry_run, enumerator, grammar, host, nss, packages, programs, ups_conf
from ..conf.advice import list_advice
from ..conf.directives import Release
from ..conf.feeds import OWN_UPSD
from ..conf.files import NutFiles
from ..conf.fit import fit_files
from ..conf.no_effect import find_ineffective
from ..conf.release import find_release
from ..net import login, snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..usb import liveness
from ..usb.bus import UsbDevice, scan_bus
from ..usb.policy import UsbPolicy, UsbPolicyError, read_policy
from ..usb.resolution import NameResolution
from . import actions, past, secrets
from .apply import LocalNut
from .change import Change, FileChange, UnitAction
from .verify import Verifier, VerifyResult

MODE = 0o640  # the files contain passwords: root writes, NUT reads

# suffix of the copy of a foreign file that is replaced for the first time
KEPT = ".before-homelab-nut"


class DeployError(Exception):
    """The deployment stopped. The message says where, why, and what to do."""


class UsbBus(Protocol):
    """The host's USB bus. hotplug/act.py, which this file must not import, implements it."""

    def complete_ups_conf(self, wanted: str) -> tuple[str, NameResolution]:
        """Return the text of ups.conf, completed for the UPSes that are plugged in, and how their names were resolved."""

    def note_intent(self, text: str, resolution: NameResolution) -> None:
        """Record what is about to be written, for the run after a crash."""

    def note_written(self, text: str, resolution: NameResolution) -> None:
        """Record what was written."""


@dataclass
class Deployment:
    """One host and the files that its NUT should have."""

    wanted: Mapping[str, str] | None  # name -> text; None: remove NUT from this host
    local: LocalNut
    open_bus: Callable[[UsbPolicy, LocalNut, Release | None], UsbBus]
    tls: nss.TlsMaterial | None = None  # the certificates that the files refer to
    policy: UsbPolicy | None = None  # for UPSes on the bus that are not declared; None: ignore them
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
    boot: Callable[[], str] = read_boot_id
    actions_done: list[UnitAction] = field(default_factory=list, init=False)
    files_written: list[str] = field(default_factory=list, init=False)
    backups: list[str] = field(default_factory=list, init=False)
    warnings: list[str] = field(default_factory=list, init=False)
    served_names: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        """Read the current files. Raises DeployError if the wanted files are no valid set, or not supported by this NUT."""
        self.upsd_runs = False  # set by plan_change()
        self.bus: UsbBus | None = None
        self.resolution: NameResolution | None = None
        self.absent = self.wanted is None
        self.new_files = NutFiles(self.wanted or {})
        self.certificates = nss.database_path(self.tls, self.local.conf_dir) if self.tls else None
        self._check_file_names()
        self.release = find_release(self.local.runner, self.local.finder)
        names = (*self.new_files, actions.WANTED) if "ups.conf" in self.new_files else self.new_files
        self.old_files = NutFiles(
            {
                name: text
                for name in (actions.FILES if self.absent else names)
                if (text := self.local.read_file(name)) is not None
            }
        )
        incomplete = self._complete_ups_conf()
        # before _fit_to_release(), which may add this directive for a boot without a network
        lenient = grammar.find_directive(self.new_files.get("upsd.conf", ""), "ALLOW_NOT_ALL_LISTENERS")
        self.may_lack_listeners = (lenient or "").lower() in ("1", "true", "yes", "on")
        self._fit_to_release()
        if incomplete or actions.WANTED in self.old_files:
            self.new_files = NutFiles({**self.new_files, actions.WANTED: incomplete or "\n"})

    def _check_file_names(self) -> None:
        if not self.absent and set(self.new_files) not in (set(actions.PRIMARY_FILES), set(actions.SECONDARY_FILES)):
            raise DeployError(
                f"files must be {', '.join(actions.PRIMARY_FILES)} for a primary, or {', '.join(actions.SECONDARY_FILES)} for a "
                f"secondary, not {', '.join(sorted(self.new_files)) or 'none'}"
            )

    def _complete_ups_conf(self) -> str:
        """Complete ups.conf for the UPSes that are plugged in. Returns its incomplete text; "" if no section has driver auto."""
        text = self.new_files.get("ups.conf", "")
        auto = any(ups_conf.is_auto(section) for section in self.new_files.ups_conf.sections.values())
        if not text or not (auto or self.policy):
            return ""
        self.bus = self.open_bus(self._choose_policy(), self.local, self.release)
        completed, resolution = self.bus.complete_ups_conf(text)
        self.resolution = resolution
        self.warnings += resolution.remarks
        if resolution.found or ups_conf.parse_ups_conf(completed) != self.new_files.ups_conf:
            self.new_files = NutFiles({**self.new_files, "ups.conf": completed})
        return text if auto else ""

    def _choose_policy(self) -> UsbPolicy:
        """Return the given policy, or that of nut-hotplug on this host, or one that ignores undeclared UPSes."""
        if self.policy is not None:
            return self.policy
        try:
            return read_policy(self.local.conf_dir / "hotplug.json") or UsbPolicy(default_name="")
        except UsbPolicyError as error:
            raise DeployError(f"{error}. Run with the tag hotplug, or remove this file") from None

    def _fit_to_release(self) -> None:
        """Leave out directives that the installed release does not know. Raises DeployError if that would be unsafe."""
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

    # Observing

    def plan_change(self) -> Change[UnitAction]:
        """Decide what to change on this host. Raises DeployError."""
        files = self.old_files if self.absent else self.new_files
        enabled = base_systemd.drivers_at_boot(self.local.unit_dir)
        watched = actions.watched_units(files)
        units = base_systemd.show_units(list(dict.fromkeys([*watched, *enabled])), self.local.runner)
        self.upsd_runs = bool(units.get(base_systemd.SERVER, base_systemd.ABSENT).pid)
        if self.absent:
            running = [name for name in units if base_systemd.is_driver(name) and units[name].runs]
            return actions.plan_removal(
                self.old_files, units, list(dict.fromkeys([*enabled, *running])), self.local.conf_dir
            )
        if "ups.conf" not in self.new_files and not self.is_former_primary:
            self._refuse_foreign_primary()
        masked = [name for name in watched if units[name].enabled.startswith("masked") and name != base_systemd.WATCHER]
        if masked:
            raise DeployError(
                f"can't start masked units: {', '.join(masked)}. Run: systemctl unmask {' '.join(masked)}"
            )
        return actions.plan_deployment(
            self.old_files,
            self.new_files,
            units,
            pending=[*self._owed_actions(), *self._lost_certificates()],
            misowned=self._unsafe_files(),
            strays=[name for name in enabled if name not in watched],
            stale=self._stale_sections(),
            folder=self.local.conf_dir,
        )

    @property
    def is_former_primary(self) -> bool:
        """Return whether the roles made this host a primary, and it shall be a secondary, or nothing."""
        text = self.local.read_file("ups.conf") or ""
        return "ups.conf" not in self.new_files and secrets.is_ours(text) and bool(_list_sections(text))

    def _refuse_foreign_primary(self) -> None:
        """Raise DeployError if somebody else made this host a primary: upsd and the drivers would keep running without a client."""
        if _list_sections(self.local.read_file("ups.conf") or ""):
            raise DeployError(
                f"{self.local.conf_dir}/ups.conf declares a UPS, and was not written by this collection. If this host is a primary, put it "
                "into the group pve or ups_servers. If it shall be a secondary, stop its drivers and upsd, and empty that file"
            )

    def _stale_sections(self) -> list[str]:
        """Return the sections that the enumerator takes for changed. NUT 2.8.1 does not record that a driver reloaded its section."""
        text = self.new_files.get("ups.conf", "")
        stale = []
        for name in self.new_files.ups_conf.sections:
            kept = base_systemd.checksum_path(name, self.local.unit_dir)
            if kept.exists() and f"SECTION_CHECKSUM={enumerator.section_checksum(text, name)}'" not in kept.read_text():
                stale.append(name)
        return stale

    def _unsafe_files(self) -> list[str]:
        """Return the files whose mode or owner lets others than root and NUT access them, or keeps NUT from reading them."""
        try:
            owner = base_files.resolve_owner(self.local.owner)
        except KeyError:
            return []  # NUT is not installed yet, so its group does not exist
        return [
            name
            for name in self.old_files
            if not base_files.has_mode_and_owner(self.local.conf_dir / name, MODE, owner)
        ]

    def _lost_certificates(self) -> list[UnitAction]:
        """Return restarts of the daemons that read the certificates, if their database is missing or damaged.

        A new database has a new path, so it shows as a change of the files.
        """
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
        """Raise DeployError if a UPS is not plainly on mains, unless FORCE: a restart now could shut down every secondary.

        This asks upsd on this host and those that its old and new upsmon.conf monitor. An upsd that does not answer is ignored, because
        this run may be what repairs it. changed: what the run has done so far, for the message.
        """
        for (name, port), names in sorted(self._upsds_to_ask().items()):
            try:
                with UpsdClient(name, port, timeout=5) as client:
                    states = snapshot.take_snapshot(client, gather={snapshot.VARIABLES, snapshot.CLIENTS})
                # names of UPSes are case-insensitive, as in NUT
                if names is None:
                    # a stand-in for a UPS that is not plugged in does not count as served
                    self.served_names |= {
                        state.name.lower() for state in states if state.fresh and not state.is_stand_in
                    }
                busy = snapshot.list_not_on_mains(
                    state
                    for state in states
                    if (not self._powers_nothing(state) if names is None else state.name.lower() in names)
                )
            except UpsdFailure:
                continue
            if names is None or name in OWN_UPSD:
                lost = liveness.read_lost_names(self.local.hotplug_state, self.boot())
                old = [
                    liveness.warn_old_data(state.name, state.status) for state in states if state.name.lower() in lost
                ]
                self.warnings += [warning for warning in old if warning not in self.warnings]
                busy = list(liveness.mark_old_data(busy, lost, "make doctor says what to do"))
            if busy and not force:
                raise DeployError(
                    f"upsd at {name}:{port} reports {', '.join(busy)}: not plainly on mains. A restart now could shut down "
                    f"every host on this UPS, so {changed}. Run again when the mains are back. If you know that "
                    "it is safe, run with force (nut_server_force, on a secondary nut_client_force)."
                )

    def require_logins(self, decided: Change[UnitAction], remedy: str) -> None:
        """Raise DeployError if upsmon could not log in with the new files: it would not try again, and this host would be unprotected.

        Only upsds of other hosts are asked, and only if DECIDED restarts upsmon. remedy: what to do, for the message.
        """
        if self.absent or not any(action.unit == base_systemd.MONITOR for action in decided.after):
            return
        problem = secrets.find_refused_login(self.old_files, self.new_files, self.tls.ca if self.tls else "")
        if problem:
            raise DeployError(f"{problem}. Nothing was changed on this host. {remedy}")

    def require_kept_secrets(self, policy: secrets.SecretsPolicy) -> None:
        """Raise DeployError if this run would replace passwords or certificates without being asked."""
        problem = secrets.find_replaced_secrets(self.old_files, self.new_files, policy, self.tls.ca if self.tls else "")
        if problem:
            raise DeployError(problem)

    def _powers_nothing(self, state: snapshot.UpsState) -> bool:
        """Return whether no machine would go down because of a UPS: neither this host, nor one that is logged in.

        A UPS without a MONITOR line was merely found on the bus.
        """
        power = [
            monitor.power
            for files in (self.old_files, self.new_files)
            for monitor in NutFiles.of(files).monitors
            if monitor.ups.lower() == state.name.lower()
        ]
        is_watched = any(hostnames.normal_address(address) != hostnames.LOOPBACK for address in state.clients)
        return not any(power) and not is_watched

    def _upsds_to_ask(self) -> dict[tuple[str, int], list[str] | None]:
        asked: dict[tuple[str, int], list[str] | None] = {}
        for files in (self.old_files, self.new_files or self.old_files):
            if "ups.conf" in files:
                asked.update(dict.fromkeys(files.local_upsd))
            for monitor in files.monitors:
                names = asked.setdefault((monitor.host, monitor.port), [])
                if names is not None:
                    names.append(monitor.ups.lower())
        return asked

    def check_files(self) -> None:
        """Check the files as a set, against this host, and by its own NUT. Raises DeployError with all problems."""
        if self.absent:
            return
        wrong = consistency.find_inconsistencies(self.new_files, self.release)
        if self.release is not None and not wrong:
            wrong = programs.find_unrunnable(self.new_files, self.local.runner)
            wrong += host.find_missing(self.new_files, self.certificates)
            wrong += programs.find_unwritable(self.new_files, self.local.runner)
            wrong += programs.find_unreadable(self.new_files, self.local.owner, self.local.runner)
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

    def list_missing_packages(self) -> list[str]:
        """Return the packages with drivers of the new ups.conf that are not installed, while NUT is."""
        if self.release is None:
            return []
        return packages.list_missing_packages(self.new_files.get("ups.conf", ""), self.local.finder)

    def warn_of_risks(self) -> None:
        """Add warnings about what is valid but can cut the power at the wrong time."""
        texts = [files["upsmon.conf"] for files in (self.old_files, self.new_files) if "upsmon.conf" in files]
        self.warnings += host.find_old_flags(texts)
        if "upsmon.conf" in self.new_files:
            mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
            self.warnings += host.find_lasting_flag(self.new_files["upsmon.conf"], mounts)
        self.warnings += [f"{problem}. {remedy}" for problem, remedy in find_ineffective(self.new_files)]
        self.warnings += programs.find_unhandled(self.new_files)
        if self.absent:
            self.warnings += self._warn_abandoned()

    def _warn_abandoned(self) -> list[str]:
        """Return a warning that names the clients still logged in to the upsd that is about to be removed."""
        if "ups.conf" not in self.old_files:
            return []
        try:
            with UpsdClient(*self.old_files.local_upsd[0], timeout=5) as client:
                names = [state.name for state in snapshot.take_snapshot(client)]
                seen = {address for name in names for address in client.list_clients(name)}
        except UpsdFailure:
            return []
        others = sorted(address for address in seen if hostnames.normal_address(address) != hostnames.LOOPBACK)
        return [f"still logged in to upsd, and about to lose their UPS: {', '.join(others)}"] if others else []

    def list_advice(self) -> list[str]:
        """Return the known problems of the installed release for which something must be done on this host."""
        advice = list_advice(self.new_files, self.release) if self.release else []
        return [str(problem) for problem in advice if problem.is_due]

    # Acting

    def apply_change(self, decided: Change[UnitAction], force: bool = False) -> None:
        """Replace the files and run the actions. If it raises DeployError, files_written and actions_done show what was done.

        Starting drivers takes time, so the mains are checked again before upsd is restarted, unless FORCE.
        For runs that are killed, see docs/architecture.md, "Killed anywhere".
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

        def run_on_mains(action: UnitAction) -> None:
            if action.unit == base_systemd.SERVER and action.verb == "restart":
                self.require_mains(
                    force, "upsd was not restarted. The files are in place, and the next run does the rest"
                )
            self._run_action(action)

        self.local.run_actions(decided.after, run_on_mains)
        if self.absent:
            with contextlib.suppress(OSError):
                (self.local.manifest.parent / past.NAME).unlink(missing_ok=True)
                self.local.manifest.parent.rmdir()

    def remove_old_certificates(self) -> None:
        """Remove certificates that the files no longer refer to, and those of interrupted runs. Raises OSError."""
        for old in self.local.conf_dir.glob(f"{nss.PREFIX}*"):
            if nss.NAME.fullmatch(old.name) and old != self.certificates:
                shutil.rmtree(old)

    def _replace_files(self, decided: Change[UnitAction]) -> None:
        """Replace the files and note the actions that must follow. Raises DeployError."""
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
        """Copy files that neither the roles nor Debian's packages wrote, before they are replaced."""
        foreign = {file.path: file.old for file in files if file.old is not None and not secrets.is_ours(file.old)}
        theirs = foreign.keys() - host.find_shipped([*foreign], self.local.runner) if foreign else ()
        copies = {path.with_name(path.name + KEPT): text for path, text in foreign.items() if path in theirs}
        # only the first time: that copy is the configuration from before this collection
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
            # The driver of a UPS that is not plugged in fails. That is judged at the end, by wait_until_serving().
            if not base_systemd.is_driver(action.unit):
                raise DeployError(
                    f"{error}\n{base_systemd.sandbox_failure(action.unit, self.local.runner)}"
                    f"Its last log lines: {one_line(base_systemd.last_log_lines(action.unit, self.local.runner))}"
                ) from None
        self.actions_done.append(action)

    def _owed_actions(self) -> list[UnitAction]:
        """Return the actions that an interrupted run still owes. If its note can't be read, restart everything."""
        watched = [name for name in actions.watched_units(self.new_files) if name.endswith(".service")]
        return self.local.pending.read_actions(name for name in watched if name != base_systemd.ENUMERATOR)

    # Verifying

    def wait_until_serving(self, seconds: float, patient: bool = False) -> VerifyResult:
        """Wait for at most SECONDS until upsd has fresh data for every UPS and lists this host's upsmon as a client."""
        if self.absent:
            return VerifyResult({})
        served = frozenset(self.served_names)
        # ups.conf also has the UPSes that were found on the bus
        declared = frozenset(map(str.lower, NutFiles(self.wanted or {}).ups_conf.sections))
        verifier = Verifier(
            self.new_files,
            self.local.runner,
            self.tls,
            self.clock,
            self.pause,
            served,
            declared,
            self._scan_bus,
            self._is_on_mains,
        )
        return verifier.wait_until_serving(seconds, patient)

    def _is_on_mains(self) -> bool:
        """Return whether upsd has fresh data for every UPS that powers this host, and all are plainly on mains.

        An upsmon that is restarted forgets that a UPS was on battery before its data stopped.
        """
        try:
            self.require_mains()
            for monitor in self.new_files.monitors:
                ca = self.tls.ca if self.tls else ""
                with login.open_as_upsmon(monitor, self.new_files["upsmon.conf"], ca) as client:
                    if monitor.power and not all(
                        state.fresh for state in snapshot.take_snapshot(client, [monitor.ups])
                    ):
                        return False
        except (DeployError, UpsdFailure):
            return False
        return True

    def _scan_bus(self) -> tuple[UsbDevice, ...]:
        """Return the devices on the host's USB bus. Raises UsbError."""
        try:
            places = self._choose_policy()
        except DeployError:
            places = UsbPolicy()
        return scan_bus(Path(places.sysfs), Path(places.dev))


def _list_sections(ups_conf_text: str) -> list[str]:
    return list(ups_conf.parse_ups_conf(ups_conf_text).sections)
