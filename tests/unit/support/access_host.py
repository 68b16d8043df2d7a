# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with the table that limits who may connect to upsd, and an nft, for tests of nut-access."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.access_keeper import AccessKeeper
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_access
from ansible_collections.homelab.nut.tests.unit.support.nft import list_table

NAS = access.make_source("nas", "nas.lan")
TEXT = access.render_table([3493], {NAS: ["192.0.2.5"]})


class AccessMachine:
    """A host with the table's file, and an nft that loads it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file = root / paths.ACCESS_TABLE
        self.file.parent.mkdir(parents=True)
        (root / "run").mkdir()
        self.file.write_text(TEXT)
        self.loaded: list[str] | None = ["192.0.2.5"]
        self.refuses = False
        self.now: list[str] = ["192.0.2.5"]
        self.commands: list[tuple[str, ...]] = []
        self.out: list[str] = []
        self.err: list[str] = []

    def run_nft(self, command: Sequence[str]) -> tuple[int, str]:
        if tuple(command) == access.LIST:
            return (1, "No such file or directory") if self.loaded is None else (0, list_table(self.loaded))
        self.commands.append(tuple(command))
        if self.refuses:
            return 1, "\x1b[2JOperation not permitted\n"
        those = access.parse_sources(self.file.read_text()).values()
        self.loaded = [address for addresses in those for address in addresses]
        return 0, ""

    def resolve_name(self, _name: str, _seconds: float) -> Sequence[str]:
        if not self.now:
            raise OSError("no name server")
        return self.now

    def run_main(self, *arguments: str) -> int:
        self.out.clear()
        self.err.clear()
        keeper = AccessKeeper(self.out.append, self.err.append, self.root, self.run_nft, self.resolve_name)
        return nut_access.main(arguments, keeper)
