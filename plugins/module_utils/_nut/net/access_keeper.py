# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table that limits who may connect to upsd, kept true between two deployments. access.py has what it says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..base import files, hostnames, sets
from ..base.cli import PrintText, make_printing
from ..base.paths import ACCESS_TABLE
from ..base.process import make_runner
from ..base.systemd import Run
from ..base.text import printable
from . import access

SECONDS = 20
"""How long one nft may take."""


@dataclass
class AccessKeeper:
    """Keeps the loaded table as its file has it, and the file as the names in it have it. out, err: take lines."""

    out: PrintText
    err: PrintText
    root: Path = Path("/")
    run: Run = field(default_factory=lambda: make_runner(SECONDS))
    resolve: access.Resolve = hostnames.resolve_name

    def __post_init__(self) -> None:
        """Keep what names and nft say from being obeyed by a terminal."""
        self.out, self.err = make_printing(self.out), make_printing(self.err)

    def read_file(self) -> str:
        """Return the text of the table's file."""
        return (self.root / ACCESS_TABLE).read_bytes().decode("utf-8", "replace")

    def read_table(self) -> access.LoadedTable | None:
        """Return the table as the kernel has it."""
        return access.read_table(self.run)

    def refresh_table(self) -> int:
        """Do what is to be done, and say it. Returns the exit code."""
        # what is known first: name servers may take their time, and may be down
        code = self.repair_table()
        text = self.read_file()
        # without the lock: nobody shall wait for name servers
        wider = access.widen_table(text, self.resolve)
        if wider == text:
            return code
        with self.lock_others_out():
            if self.read_file() != text:
                return 0  # a deployment was at work: the timer comes again
            path = self.root / ACCESS_TABLE
            files.replace_files({path: wider}, path.stat().st_mode & 0o777)
            self.out(f"now also allowed to connect to upsd: {_describe_new(text, wider)}")
            return self.load_table()

    def repair_table(self) -> int:
        """Load the table of the file if the kernel has none or another, and finish what a killed run has left. Returns the exit code."""
        pending = os.path.lexists(self.root / sets.MANIFEST.relative_to("/"))
        if not pending and not access.find_difference(self.read_table(), self.read_file()):
            return 0
        with self.lock_others_out():
            # a deployment may have been at work until now
            difference = access.find_difference(self.read_table(), self.read_file())
            if not difference:
                return 0
            self.out(f"{difference}; it is loaded again")
            return self.load_table()

    @contextlib.contextmanager
    def lock_others_out(self) -> Iterator[None]:
        """Keep other runs out, and tell what a killed one had left. Raises what sets.hold_lock_and_recover raises."""
        manifest = self.root / sets.MANIFEST.relative_to("/")
        with sets.hold_lock_and_recover(
            self.root / "run", 0, [(self.root / ACCESS_TABLE).parent], manifest=manifest
        ) as left:
            if left:
                self.out(left)
            yield

    def load_table(self) -> int:
        """Load the table of the file. Returns the exit code."""
        code, said = self.run(("nft", "-f", str(self.root / ACCESS_TABLE)))
        if code:
            self.err(
                f"access to upsd is NOT limited: nft can't load /etc/nut/access.nft: {printable(said.strip(), 500)}"
            )
        return 1 if code else 0

    def show_status(self) -> int:
        """Show who may connect. Returns the exit code: 1 if the table is not as the file has it."""
        text, loaded = self.read_file(), self.read_table()
        for source, those in access.parse_sources(text).items():
            self.out(f"{source.name}: {', '.join(those) or 'has no address'}")
        difference = access.find_difference(loaded, text)
        self.out(difference or f"loaded; refused {loaded.refused if loaded else 0} packets since then")
        self.out(access.explain_refusals(loaded) or "refused nobody in the last day")
        return 1 if difference else 0


def _describe_new(text: str, wider: str) -> str:
    before, after = access.parse_sources(text), access.parse_sources(wider)
    added = {
        source.name: [address for address in those if address not in before[source]] for source, those in after.items()
    }
    return "; ".join(f"{name} from {', '.join(those)}" for name, those in added.items() if those)
