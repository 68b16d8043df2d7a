# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The output of `nut-shutdown guests`: this host's guests, and when each is stopped in an outage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..base.systemd import Run
from ..base.table import format_grid
from ..proxmox import guests, running
from ..proxmox.guests import Guest
from ..proxmox.selection import SelectionResult


class GuestListing:
    """This host's guests, without templates, and when each is stopped in an outage."""

    def __init__(self, found: SelectionResult, root: Path, run: Run) -> None:
        self.found, self.down = found, guests.DOWN_SECONDS
        self.guests = [guest for guest in found.local.guests if not guest.template]
        self.running = (
            running.list_running(run, [(guest.kind, guest.id) for guest in self.guests], root)
            if self.guests
            else frozenset()
        )
        try:
            self.ha = guests.read_ha(root)
        except guests.GuestsError as error:
            self.ha = guests.HaSetup(remarks=(str(error),))

    def to_data(self) -> dict[str, Any]:
        """Return the listing for --json. stage: the first that stops the guest; None: Proxmox VE stops it with the host."""
        return {
            "guests": [self._describe_guest(guest) for guest in self.guests],
            "ha": list(self.ha.remarks),
            "idle": list(self.found.unmatched),
        }

    def _describe_guest(self, guest: Guest) -> dict[str, Any]:
        stages = {
            name: choice
            for name, chosen in self.found.guests_by_stage.items()
            for choice in chosen
            if choice.guest.id == guest.id
        }
        name, first = next(iter(stages.items()), (None, None))
        return {
            "id": guest.id,
            "kind": guest.kind,
            "name": guest.name,
            "running": None if self.running is None else guest.id in self.running,
            "ha": guest.id in self.ha.managed,
            "stage": name,
            "stages": list(stages),
            "seconds": first.seconds if first else self.down if guest.down is None else guest.down,
            "why": first.why if first else "",
        }

    def to_text(self) -> str:
        """Return the listing for people, without a newline at the end."""
        labels = {True: "running", False: "stopped", None: "unknown"}
        rows = []
        for guest in self.guests:
            data = self._describe_guest(guest)
            stop = (
                f"stops in stage {', '.join(data['stages'])} ({data['why']})"
                if data["stages"]
                else "stops with the host"
            )
            managed = "; managed by HA" if data["ha"] else ""
            rows.append((str(guest), labels[data["running"]], f"{stop}, within {data['seconds']:g} s{managed}"))
        lines = format_grid(rows) or ["this host has no guests"]
        notes = [*self.ha.remarks, *self.found.unmatched]
        return "\n".join([*lines, *(["", *notes] if notes else [])])
