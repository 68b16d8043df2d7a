# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Addresses of host names, cached in a file: during a shutdown the name server may already be down."""

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
    """The contents of the cache file."""

    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name -> last known addresses

    def __post_init__(self) -> None:
        """Raise ValueError if a value is not an IP address."""
        for addresses in self.addresses.values():
            for address in addresses:
                if not hostnames.is_address(address):
                    raise ValueError(f"{address!r} is not an IP address")


class AddressCache:
    """Resolves names, and falls back to the cache file. keep: whether new addresses are written to that file."""

    def __init__(self, path: Path, resolve: hostnames.Resolve = hostnames.resolve_name, *, keep: bool = True) -> None:
        self.path, self.resolve, self.keep = path, resolve, keep
        self.lock = threading.Lock()
        self.known = dict((records.recall_record(KnownAddresses, path, VERSION) or KnownAddresses()).addresses)

    def __call__(self, name: str, seconds: float) -> tuple[str, ...]:
        """Return a name's current addresses, or the cached ones if it can't be resolved. Raise OSError if there are none."""
        # the caller gives up after SECONDS: leave time to return the cached addresses if the name server is dead
        limit = seconds / 2 if self.known.get(name) else seconds
        try:
            addresses = tuple(self.resolve(name, limit))
        except OSError:
            if not self.known.get(name):
                raise
            return self.known[name]
        with self.lock:
            if self.known.get(name) != addresses and not hostnames.is_address(name):
                self.known[name] = addresses
                if self.keep:
                    # a failed write does no harm now: the addresses are known this time
                    with contextlib.suppress(OSError, files.WriteError):
                        files.replace_private_file(self.path, records.dump_record(KnownAddresses(self.known), VERSION))
        return addresses

    def resolve_policy_names(self, policy: ShutdownPolicy, seconds: float) -> list[str]:
        """Resolve and cache all names of a policy. Return the names that have no address, not even a cached one."""
        names = sorted({address for host in policy.machines if not host.guest for address in host.addresses})
        return list(hostnames.resolve_names(names, seconds, self)[1])
