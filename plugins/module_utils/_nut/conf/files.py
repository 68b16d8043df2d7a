# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's files of a host, as text and as data. Each file is parsed once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

from . import statements, ups_conf, upsd, upsmon
from .statements import Statement
from .ups_conf import UpsConf
from .upsd import User
from .upsmon import Monitor


class NutFiles(Mapping[str, str]):
    """Name -> text. As data, a missing file counts as empty."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = dict(texts)
        self._statements: dict[str, tuple[Statement, ...]] = {}

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> NutFiles:
        """Return the files as NutFiles; unchanged if they are NutFiles already."""
        return texts if isinstance(texts, cls) else cls(texts)

    def __getitem__(self, name: str) -> str:
        return self._texts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def statements(self, name: str) -> tuple[Statement, ...]:
        """Return the lines of a file. Not of nut.conf, which a shell reads."""
        if name not in self._statements:
            self._statements[name] = statements.read_statements(name, self.get(name, ""))
        return self._statements[name]

    def directive(self, name: str, directive: str) -> str | None:
        """Return the value of a directive of upsd.conf or upsmon.conf, None if it has none. As in NUT, the last counts."""
        values = [line.values[0] for line in self.statements(name) if line.words[0] == directive and line.values]
        return values[-1] if values else None

    @cached_property
    def ups_conf(self) -> UpsConf:
        """ups.conf's settings and sections."""
        return ups_conf.parse_ups_conf(self.get("ups.conf", ""))

    @cached_property
    def listening(self) -> list[tuple[str, int]]:
        """Address and port of each LISTEN of upsd.conf."""
        return upsd.read_listen_lines(self.get("upsd.conf", ""))

    @property
    def ports(self) -> list[int]:
        """The ports that upsd listens on, in the order of LISTEN."""
        return [port for _address, port in self.listening] or [upsd.PORT]

    @property
    def local_upsd(self) -> list[tuple[str, int]]:
        """Where this host's upsd can be asked, the best place first."""
        return upsd.local_upsd(self.get("upsd.conf", ""))

    @cached_property
    def users(self) -> dict[str, User]:
        """The users of upsd.users by name."""
        return upsd.read_users(self.get("upsd.users", ""))

    @cached_property
    def monitors(self) -> tuple[Monitor, ...]:
        """The MONITOR lines of upsmon.conf."""
        return upsmon.read_monitors(self.get("upsmon.conf", ""))

    @cached_property
    def notify_flags(self) -> dict[str, list[str]]:
        """Type of event -> the flags of its NOTIFYFLAG. As in NUT, the last line counts."""
        lines = [line.values for line in self.statements("upsmon.conf") if line.words[0] == "NOTIFYFLAG"]
        return {values[0].upper(): values[1].split("+") for values in lines if len(values) > 1}
