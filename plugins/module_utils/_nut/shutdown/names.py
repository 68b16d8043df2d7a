# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The addresses of names, remembered: when it matters, the name server may be down already."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..base import files, hostnames, records
from .policy import ShutdownPolicy

VERSION = 1


@dataclass(frozen=True)
class KnownAddresses:
    """The addresses that names had last."""

    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is no address."""
        for found in self.addresses.values():
            for address in found:
                if not hostnames.is_address(address):
                    raise ValueError(f"{address!r} is no address")


class AddressCache:
    """Finds the addresses of names, by the file where the system does not know them. keep: whether it writes that file."""

    def __init__(self, path: Path, resolve: hostnames.Resolve = hostnames.resolve_name, *, keep: bool = True) -> None:
        self.path, self.resolve, self.keep = path, resolve, keep
        self.lock = threading.Lock()
        self.known = dict((records.recall_record(KnownAddresses, path, VERSION) or KnownAddresses()).addresses)

    def __call__(self, name: str, seconds: float) -> tuple[str, ...]:
        """Return the addresses as the system has them now, else those that it had before. Raises OSError if there are none."""
        # who waits for this gives up after SECONDS, and a dead name server must not take all of it
        patience = seconds / 2 if self.known.get(name) else seconds
        try:
            found = tuple(self.resolve(name, patience))
        except OSError:
            if not self.known.get(name):
                raise
            return self.known[name]
        with self.lock:
            if self.known.get(name) != found and not hostnames.is_address(name):
                self.known[name] = found
                if self.keep:
                    # no reason to wait less well: this time they are known
                    with contextlib.suppress(OSError, files.WriteError):
                        files.replace_private_file(self.path, records.dump_record(KnownAddresses(self.known), VERSION))
        return found

    def resolve_policy_names(self, policy: ShutdownPolicy, seconds: float) -> list[str]:
        """Look all names of a policy up. Return those that have no address, neither now nor before."""
        names = sorted({address for host in policy.machines if not host.guest for address in host.addresses})
        return list(hostnames.resolve_names(names, seconds, self)[1])
