# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-access: keeps the table that limits who may connect to upsd true, between two deployments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import access, hostnames, sets, writing
from .command_line import Say, for_terminals
from .programs import runner
from .units import Run
from .words import printable

FILE = "etc/nut/access.nft"
USAGE = """\
Usage: nut-access refresh    also allow the current addresses of the names in /etc/nut/access.nft,
                             and load the table if it is not loaded
       nut-access status     show who may connect to upsd, and who was refused"""
_SECONDS = 20


@dataclass
class Host:
    """A host with the table's file. Only this class touches it."""

    out: Say
    err: Say
    root: Path = Path("/")
    run: Run = field(default_factory=lambda: runner(_SECONDS))
    resolve: access.Resolve = hostnames.resolve

    def __post_init__(self) -> None:
        """Keep what names and nft say from being obeyed by a terminal."""
        self.out, self.err = for_terminals(self.out), for_terminals(self.err)

    def read(self) -> str:
        """Return the text of the table's file."""
        return (self.root / FILE).read_bytes().decode("utf-8", "replace")

    def look(self) -> access.Loaded | None:
        """Return the table as the kernel has it."""
        code, said = self.run(access.LIST)
        return None if code else access.parse_table(said)

    def refresh(self) -> int:
        """Do what is to be done, and say it. Returns the exit code."""
        # name servers may take their time, and nobody shall wait for them
        text = self.read()
        wider = access.widen(text, self.resolve)
        if wider == text and not access.find_difference(self.look(), text):
            return 0
        path = self.root / FILE
        manifest = self.root / sets.MANIFEST.relative_to("/")
        with sets.alone(self.root / "run", 0, [path.parent], manifest=manifest) as left:
            if left:
                self.out(left)
            if self.read() != text:
                return 0  # a deployment was at work: the timer comes again
            if wider != text:
                writing.replace({path: wider}, path.stat().st_mode & 0o777)
                self.out(f"now also allowed to connect to upsd: {_describe_new(text, wider)}")
            else:
                self.out(f"{access.find_difference(self.look(), text)}; it is loaded again")
            code, said = self.run(("nft", "-f", str(self.root / FILE)))
        if code:
            self.err(
                f"access to upsd is NOT limited: nft can't load /etc/nut/access.nft: {printable(said.strip(), 500)}"
            )
        return 1 if code else 0

    def status(self) -> int:
        """Say who may connect. Returns the exit code: 1 if the table is not as the file has it."""
        text, loaded = self.read(), self.look()
        for source, those in access.known_sources(text).items():
            self.out(f"{source.name}: {', '.join(those) or 'has no address'}")
        difference = access.find_difference(loaded, text)
        self.out(difference or f"loaded; refused {loaded.refused if loaded else 0} packets since then")
        self.out(access.explain_refusals(loaded) or "refused nobody in the last day")
        return 1 if difference else 0


def _describe_new(text: str, wider: str) -> str:
    before, after = access.known_sources(text), access.known_sources(wider)
    added = {source.name: [one for one in those if one not in before[source]] for source, those in after.items()}
    return "; ".join(f"{name} from {', '.join(those)}" for name, those in added.items() if those)


def main(arguments: Sequence[str], host: Host) -> int:
    """Do what the command line says. Returns the exit code."""
    word = arguments[0] if len(arguments) == 1 else ""
    if word in ("-h", "--help"):
        host.out(USAGE)
        return 0
    work = {"refresh": host.refresh, "status": host.status}.get(word)
    if work is None:
        host.err(USAGE)
        return 2
    try:
        return work()
    except writing.Busy:
        return 0  # the timer comes again
    except (OSError, access.AccessError, writing.WriteError) as error:
        host.err(f"nut-access: {printable(str(error), 300)}")
        return 1
