# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run of nut-hotplug: observe, decide and act until there is nothing left to do.

observe.py observes, decide.py decides, act.py acts. The program nut-hotplug and the module hotplug start here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..base import files as base_files
from ..base import hostnames, sets
from ..base.text import printable
from ..conf import nut_conf
from . import quiet, quiet_note
from .act import Actor, HotplugOutcome
from .decide import HUNG
from .observation import HotplugObservation
from .observe import UPSD_SECONDS, ReconcileError, digest_text

LOCK_SECONDS = 60.0
QUIET = "nut-hotplug.quiet"
# After a change, wait until the bus has not changed for SETTLE seconds, but at most SETTLE_MOST
SETTLE = 0.2
SETTLE_MOST = 3.0
# Seconds between questions to upsd while waiting for a driver to reconnect
POLL = 0.25
# Limits of a run, so that a plan that never succeeds does not keep the host busy
RUN_SECONDS = 60.0
MAX_OBSERVATIONS = 40
# Anything that is due later than this is left to a later run
PATIENCE = 15.0
# A full run is due after this time even if nothing has changed
QUIET_SECONDS = 3600.0


@dataclass
class HotplugHost(Actor):
    """One host with its USB bus and its NUT."""

    @contextlib.contextmanager
    def hold_lock(self, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock against other runs and the module config, and recover from interrupted runs.

        Raises files.Busy after SECONDS, and ReconcileError.
        """
        try:
            with self.local.hold_lock(seconds, self.pause) as recovery:
                if recovery:
                    self.say(printable(recovery, 500))
                yield
        except sets.UnfinishedSet as error:
            raise ReconcileError(str(error)) from None

    def run(self, seconds: float = RUN_SECONDS) -> HotplugOutcome:
        """Observe and act until there is nothing left to do, for at most SECONDS. Then write the note that lets the next run end early.

        Takes the lock. Raises files.Busy and ReconcileError.
        """
        with self.hold_lock():
            lacks = nut_conf.find_lack(self.local.conf_dir)
            if lacks:
                raise ReconcileError(lacks)
            self._state = None  # another run may have saved a newer one while this one waited for the lock
            (self.local.run_dir / QUIET).unlink(missing_ok=True)
            end = self.clock() + seconds
            self._wait_for_bus()
            done: list[str] = []
            failed: list[str] = []
            excused: list[str] = []
            written = False
            for _look in range(MAX_OBSERVATIONS):
                observation = self.observe_host()
                outcome = self.apply_plan(observation)
                done += outcome.done
                failed += outcome.failed
                excused += outcome.excused
                written = written or outcome.written
                late = self.clock() >= end
                again = outcome.changed or (outcome.failed and observation.new_text is not None)
                if not late and (again or self._wait_for_drivers(observation, end)):
                    continue
                if not outcome.changed and not outcome.failed:
                    self._leave_quiet(observation)
                # Check as late as possible, because udev starts no second run while this service is active.
                if late or quiet.describe_bus(self.policy.sysfs) == observation.bus_text:
                    break
            return HotplugOutcome(
                observation, tuple(done), tuple(dict.fromkeys(failed)), written, tuple(dict.fromkeys(excused))
            )

    def _wait_for_bus(self) -> None:
        """If the bus has changed since the last run, wait until it settles: the devices of a hub appear one by one."""
        seen = quiet.describe_bus(self.policy.sysfs)
        if digest_text(seen) == self._load_state().bus:
            return
        end = self.clock() + SETTLE_MOST
        while self.clock() < end:
            self.pause(SETTLE)
            before, seen = seen, quiet.describe_bus(self.policy.sysfs)
            if seen == before:
                return
        self.debug("devices on the USB bus keep changing")

    def _wait_for_drivers(self, observation: HotplugObservation, end: float) -> bool:
        """Wait until a driver connects or disconnects, a wait of the plan is over, or the bus changes.

        Returns False if there is nothing to wait for; long waits are left to a later run.
        """
        soon = {name: until for name, until in observation.plan.waits.items() if until <= observation.time + PATIENCE}
        if not soon:
            return False
        while True:
            self.pause(POLL)
            now = self.clock()
            if now >= min([end, *soon.values()]) or quiet.describe_bus(self.policy.sysfs) != observation.bus_text:
                return True
            status = self._ask_upsd(list(soon)).status
            if any(
                name in observation.drivers and (name in status) != observation.drivers[name].is_fresh for name in soon
            ):
                return True

    def _leave_quiet(self, observation: HotplugObservation) -> None:
        """Write the note that lets the next run end early, if there is nothing to do until something changes."""
        if observation.has_changes or observation.owed or observation.is_incomplete:
            return
        wanted = {}
        for name in observation.known.conf.sections:
            seen = observation.drivers[name]
            answer = f'VAR {name} ups.status "{" ".join(seen.status)}"' if seen.is_fresh else f"ERR {seen.error}"
            wanted[name] = quiet.classify_answer(answer)
        try:
            place = self._find_upsd(wanted) if wanted else ("-", 0)
            files = {
                **observation.files,
                str(self.local.hotplug_state): quiet.identify_file(str(self.local.hotplug_state)),
            }
            # in a container no event tells that a node is there now
            lacks_node = any(not ups.device.has_node for ups, _why in observation.resolution.unserved)
            until = observation.time + (HUNG if lacks_node else QUIET_SECONDS)
            until = min([until, *observation.plan.waits.values()])
            text = quiet_note.compose_note(self.policy.sysfs, observation.bus_text, files, place, wanted, until=until)
            base_files.replace_files({self.local.run_dir / QUIET: text}, 0o600)
        except (OSError, ValueError, base_files.WriteError) as error:
            self.debug(f"can't write the note that lets the next run finish early: {error}")

    def _find_upsd(self, wanted: Mapping[str, str]) -> tuple[str, int]:
        """Return the address and port at which upsd gives these answers. Raises OSError if there is none."""
        host, port = self.upsd_address()
        for address in hostnames.resolve_name(host, UPSD_SECONDS):
            with contextlib.suppress(OSError):
                if quiet.ask_upsd(address, port, list(wanted)) == list(wanted.values()):
                    return address, port
        raise OSError("upsd's answers have changed")
