# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be seen on a host that has to do with its UPSes. checks_*.py judge it.

Nothing is changed: no file is written, no unit is touched, and nobody logs in to upsd. What can't be seen is no error here: it
stands in Seen.troubles, by the name of what was looked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import hashlib
import os
import pwd
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, TypeVar

from ..base import hostnames, paths, records, tcp_table, trust
from ..base.process import Find, find_program
from ..base.systemd import ALL, MONITOR, SERVER, WATCHER, JournalEntry, Run, Unit, driver_unit, read_journal, show_units
from ..conf import host
from ..conf.directives import Release
from ..conf.files import NutFiles
from ..conf.release import find_release
from ..deploy import actions, sandbox
from ..deploy import kits as deploy_kits
from ..net import access, snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..proxmox import firewall
from ..shutdown import flag, gate, report, watch
from ..shutdown import policy as shutdown_policy
from ..shutdown.names import AddressCache
from ..usb import bus, policy

SECONDS = 4.0
"""How long one question over the network may take."""

LINES = 1500
"""Lines of the journal, the last ones."""

TEXT_BYTES = 1 << 20  # of a file whose text counts
PROGRAM_BYTES = 16 << 20  # of a program, of which only the digest counts; ours have somewhat more than 1 MiB

# adjtimex(2): what it returns if nobody keeps the clock right
_TIME_ERROR = 5
_TIMEX_BYTES = 512

_T = TypeVar("_T")
Open = Callable[[str, int], UpsdClient]


@dataclass(frozen=True)
class File:
    """A file as it is. text: "" where only its digest (SHA-256, hex) counts. changed: when, in seconds since 1970."""

    mode: int
    uid: int
    gid: int
    changed: float
    digest: str
    text: str = ""


@dataclass(frozen=True)
class Process:
    """A process of NUT."""

    name: str
    pid: int
    user: str


@dataclass(frozen=True)
class Socket:
    """Where something listens. process: its name, "" if that is not known."""

    address: str
    port: int
    process: str


@dataclass(frozen=True)
class UpsdAnswer:
    """What an upsd said, and as whom it sees this host."""

    report: snapshot.UpsdReport
    own_address: str


@dataclass(frozen=True)
class TlsResult:
    """What STARTTLS came to. ends: when the certificate expires, in seconds since 1970."""

    version: str
    ends: float
    trouble: str = ""


@dataclass(frozen=True)
class CutFlag:
    """What it takes to tell the UPS to cut the power. spare: how the spare of the flag at ``path`` stands, as flag.py says.

    space, files: bytes, and files, that its file system still takes; None if it takes any number.
    """

    path: str
    spare: str
    space: int
    files: int | None


@dataclass(frozen=True)
class Observation:
    """All that was seen on a host. troubles: what could not be looked at -> why.

    files: those of NUT, by their names. own: those of our programs, by paths. served: what this host's upsd said, None if it has
    none. watched: system of each MONITOR line -> what that upsd said, or why it can't be asked. addresses: name of an expected
    client -> its addresses, or why it has none. flags: path of a POWERDOWNFLAG that is there -> since when. firewall: what lacks,
    in lines; None if there is no Proxmox VE's firewall. untrusted: path that root goes by -> why others could change it. cut: None
    without a POWERDOWNFLAG. access: the table that limits who may connect to upsd, None if none is loaded. synchronized: whether
    something keeps the clock right, None if that can't
    be told.
    """

    now: float
    group: int | None = None
    release: Release | None = None
    installed: tuple[str, ...] = ()
    files: Mapping[str, File] = field(default_factory=dict)
    own_files: Mapping[str, File] = field(default_factory=dict)
    units: Mapping[str, Unit] = field(default_factory=dict)
    processes: tuple[Process, ...] = ()
    sockets: tuple[Socket, ...] = ()
    devices: tuple[bus.UsbDevice, ...] = ()
    served: UpsdAnswer | str | None = None
    watched: Mapping[str, UpsdAnswer | str] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...] | str] = field(default_factory=dict)
    tls: TlsResult | None = None
    flags: Mapping[str, float] = field(default_factory=dict)
    cut: CutFlag | None = None
    untrusted: Mapping[str, str] = field(default_factory=dict)
    # sandboxes that this host can't apply
    refused_sandboxes: Mapping[str, str] = field(default_factory=dict)
    gate_state: gate.GateState | None = None  # of the last gate of this boot
    last_gate: report.GateReport | str | None = None  # of the last gate; why it can't be used
    upsd_events: tuple[watch.WatchEvent, ...] = ()  # what nut-watch did for upsd
    firewall: tuple[str, ...] | None = None
    access: access.LoadedTable | None = None
    synchronized: bool | None = None
    journal: tuple[JournalEntry, ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict)


@dataclass
class HostObserver:
    """A host to look at. clients: name of each machine that ought to be logged in -> its address or name.

    kits: our programs that ought to be here. open_client: opens upsd at a place. ca: what TLS is checked by, "" without it; server:
    the name in upsd's certificate. pve: where Proxmox VE keeps its configuration. since: seconds of the journal to read.
    """

    primary: bool
    runner: Run
    clients: Mapping[str, str] = field(default_factory=dict)
    kits: Sequence[deploy_kits.Kit] = ()
    ca: str = ""
    server: str = ""
    check_firewall: bool = True
    since: float = 86400.0
    root: Path = Path("/")
    open_client: Open = lambda host, port: UpsdClient(host, port, timeout=SECONDS)
    resolve: Callable[[str, float], Sequence[str]] = hostnames.resolve_name
    finder: Find = find_program
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    ask_clock: Callable[[], bool | None] | None = None
    troubles: dict[str, str] = field(default_factory=dict, init=False)

    def observe_host(self) -> Observation:
        """Look at all there is. Raises nothing that a host's state could bring about."""
        now = self.clock()
        installed = tuple(
            name for name in (("upsmon", "upsd") if self.primary else ("upsmon",)) if self.finder(name) is not None
        )
        nothing: dict[str, File] = {}
        files = self.try_part("files", self._read_nut_files, nothing)
        nut = NutFiles({name: file.text for name, file in files.items()})
        names = tuple(nut.ups_conf.sections)
        none: tuple[tuple[Socket, ...], tuple[Process, ...]] = ((), ())
        sockets, processes = self.try_part("sockets", self._find_sockets, none)
        served = self._ask_own_upsd(nut) if self.primary and installed else None
        return Observation(
            now=now,
            group=_nut_group(),
            release=self.try_part("release", lambda: find_release(self.runner, self.finder), None),
            installed=installed,
            files=files,
            own_files=self.try_part("own files", self._read_own_files, {}),
            units=self.try_part("units", lambda: self._show_units(names), {}),
            processes=processes,
            sockets=sockets,
            devices=self.try_part("usb", self._scan_usb, ()) if self.primary else (),
            served=served,
            watched=self._ask_watched_upsds(nut),
            addresses=self._look_up_clients(),
            tls=self._try_tls(nut) if self.primary and self.ca else None,
            flags=self.try_part("flags", lambda: self._find_flags(nut), {}),
            cut=self.try_part("cut", lambda: self._observe_cut(nut), None) if self.primary else None,
            untrusted=self.try_part("trust", lambda: self._find_untrusted(nut), {}),
            refused_sandboxes=self.try_part("sandboxes", lambda: sandbox.read_refused(self.root), {}),
            gate_state=records.recall_record(gate.GateState, self._path_below_root(paths.GATE_STATE), gate.VERSION),
            last_gate=report.read_report(self._path_below_root(paths.GATE_REPORT)),
            upsd_events=self._upsd_events(),
            firewall=self.try_part("firewall", lambda: self._firewall_hints(nut), None)
            if self.primary and self.check_firewall
            else None,
            access=self.try_part("access", self._read_access_table, None) if self.primary else None,
            synchronized=self.try_part("clock", self.ask_clock or is_synchronized, None),
            journal=self.try_part("journal", lambda: self._read_journal(names, now), ()),
            troubles=dict(self.troubles),
        )

    def try_part(self, what: str, work: Callable[[], _T], otherwise: _T) -> _T:
        """Look at one thing; what goes wrong is noted."""
        try:
            return work()
        except Exception as error:  # whatever is odd on a host, the other checks still say what they see
            self.troubles[what] = f"{type(error).__name__}: {error}"
            return otherwise

    # Files

    def _path_below_root(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _read_file(self, path: Path, text: bool = True) -> File | None:
        try:
            about = path.stat()
            data = b""
            if stat.S_ISREG(about.st_mode):
                with path.open("rb") as file:
                    data = file.read(TEXT_BYTES if text else PROGRAM_BYTES)
        except FileNotFoundError:
            return None
        return File(
            mode=stat.S_IMODE(about.st_mode),
            uid=about.st_uid,
            gid=about.st_gid,
            changed=about.st_mtime,
            digest=hashlib.sha256(data).hexdigest(),
            text=data.decode("utf-8", "surrogateescape") if text else "",
        )

    def _read_nut_files(self) -> dict[str, File]:
        names = (*actions.PRIMARY_FILES, actions.WANTED) if self.primary else actions.SECONDARY_FILES
        found = {name: self._read_file(self._path_below_root(paths.NUT) / name) for name in names}
        return {name: one for name, one in found.items() if one}

    def _read_own_files(self) -> dict[str, File]:
        found: dict[str, File | None] = {}
        for kit in self.kits:
            found[kit.program] = self._read_file(self._path_below_root(kit.program), text=False)
            found.update(
                {place.path: self._read_file(self._path_below_root(place.path)) for place in kit.places.values()}
            )
        return {path: one for path, one in found.items() if one}

    def _upsd_events(self) -> tuple[watch.WatchEvent, ...]:
        return watch.recall_memory(self._path_below_root(paths.WATCH_STATE), "").events if self.primary else ()

    def _find_flags(self, nut: NutFiles) -> dict[str, float]:
        paths = dict.fromkeys([nut.directive("upsmon.conf", "POWERDOWNFLAG") or "", *host.COMMON_FLAGS])
        seen = {path: self._path_below_root(path) for path in paths if path}
        return {path: one.lstat().st_mtime for path, one in seen.items() if one.is_file()}

    def _observe_cut(self, nut: NutFiles) -> CutFlag | None:
        path = nut.directive("upsmon.conf", "POWERDOWNFLAG")
        if not path:
            return None
        room = os.statvfs(self._path_below_root(path).parent)
        # a file system that does not count its files has 0 of them
        files = room.f_favail if room.f_files else None
        return CutFlag(
            path,
            flag.read_flag(flag.spare_path(str(self._path_below_root(path)))),
            room.f_bavail * room.f_frsize,
            files,
        )

    def _find_untrusted(self, nut: NutFiles) -> dict[str, str]:
        given = nut.directive("upsmon.conf", "POWERDOWNFLAG")
        paths = [*trust.ROOTS_OWN, *([str(Path(given).parent)] if given else []), *self._notify_programs()]
        return {path: why for path in paths if (why := trust.find_untrusted(self._path_below_root(path)))}

    def _notify_programs(self) -> Iterator[str]:
        """Yield the programs that stages run as root."""
        # a policy that is wrong is told of elsewhere, and nothing of it is run
        with contextlib.suppress(shutdown_policy.ShutdownPolicyError):
            policy = shutdown_policy.load_policy(self._path_below_root(paths.SHUTDOWN_POLICY))
            yield from (stage.notify[0] for stage in shutdown_policy.read_stages(policy.stages) if stage.notify)

    # systemd

    def _show_units(self, sections: Sequence[str]) -> dict[str, Unit]:
        names = [MONITOR, ALL]
        if self.primary:
            names += [SERVER, WATCHER, *map(driver_unit, sections)]
        for kit in self.kits:
            names += kit.units
        return show_units(names, self.runner, booted=self.clock() - self.monotonic())

    def _read_journal(self, sections: Sequence[str], now: float) -> tuple[JournalEntry, ...]:
        daemons = [MONITOR, SERVER, *map(driver_unit, sections)] if self.primary else [MONITOR]
        quiet = [name for kit in self.kits for name in kit.units if name.endswith(".service")]
        # of what a timer starts each minute only its own words, not systemd's
        matches = [f"_SYSTEMD_UNIT={name}" for name in (*daemons, *quiet)] + [f"UNIT={name}" for name in daemons]
        joined = [word for match in matches for word in (match, "+")][:-1]
        options = [f"--lines={LINES}", f"--since=@{max(now - self.since, 0):.0f}", *joined]
        # what is said twice in a second, to syslog and to the standard error, counts once
        told: dict[tuple[int, str], JournalEntry] = {}
        for entry in read_journal(options, self.runner):
            if entry.words:
                told.setdefault((int(entry.at), entry.words), entry)
        return tuple(told.values())

    # Processes and sockets

    def _find_sockets(self) -> tuple[tuple[Socket, ...], tuple[Process, ...]]:
        processes, owners = [], {}
        for folder in sorted(self._path_below_root("proc").glob("[0-9]*")):
            with contextlib.suppress(OSError):
                name = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
                if name not in ("upsd", "upsmon"):
                    continue
                processes.append(Process(name, int(folder.name), _user_name(folder.stat().st_uid)))
                owners.update(dict.fromkeys(_socket_inodes(folder), name))
        sockets = [
            Socket(found.address, found.port, owners.get(found.inode, ""))
            for found in tcp_table.read_sockets(self.root, tcp_table.LISTEN)
        ]
        return tuple(sockets), tuple(processes)

    # USB

    def _scan_usb(self) -> tuple[bus.UsbDevice, ...]:
        places = policy.read_policy(self._path_below_root(paths.HOTPLUG_POLICY)) or policy.UsbPolicy()
        return bus.scan_bus(self._path_below_root(places.sysfs), self._path_below_root(places.dev))

    # upsd

    def _ask_own_upsd(self, nut: NutFiles) -> UpsdAnswer | str:
        return self._ask_upsd(*nut.local_upsd[0])

    def _ask_upsd(self, host: str, port: int, names: Sequence[str] | None = None) -> UpsdAnswer | str:
        try:
            with self.open_client(host, port) as client:
                report = snapshot.observe_upsd(client, names)
                return UpsdAnswer(report, client.local_address)
        except (UpsdFailure, ValueError) as error:
            return str(error)

    def _ask_watched_upsds(self, nut: NutFiles) -> dict[str, UpsdAnswer | str]:
        return {one.system: self._ask_upsd(one.host, one.port, [one.ups]) for one in nut.monitors}

    def _look_up_clients(self) -> dict[str, tuple[str, ...] | str]:
        places = {name: place.strip("[]") for name, place in self.clients.items()}
        found, problems = hostnames.resolve_names(places.values(), SECONDS, self.resolve)
        # as nut-shutdown would; it must not be asked itself, because it keeps what it finds
        kept = AddressCache(self._path_below_root(paths.ADDRESSES)).known
        addresses: dict[str, tuple[str, ...] | str] = {}
        for name, place in places.items():
            known = found[place] or kept.get(place, ())
            addresses[name] = tuple(dict.fromkeys(map(hostnames.normal_address, known)))
            if not known:
                addresses[name] = (
                    f"the name {place} has no address here ({problems[place].strerror or problems[place]})"
                )
        return addresses

    def _try_tls(self, nut: NutFiles) -> TlsResult:
        try:
            with self.open_client(*nut.local_upsd[0]) as client:
                client.starttls(self.ca, self.server)
                ends = client.peer_not_after
                return TlsResult(client.tls_version or "", ends.timestamp() if isinstance(ends, datetime) else 0.0)
        except UpsdFailure as error:
            return TlsResult("", 0.0, str(error))

    # Proxmox VE

    def _firewall_hints(self, nut: NutFiles) -> tuple[str, ...] | None:
        folder = self._path_below_root("etc/pve")
        if not folder.is_dir():
            return None
        port = nut.ports[0]
        sources = [access.make_source(one, one) for one in self.clients.values()]
        found, problems = access.resolve_sources(sources, self.resolve)
        known = {source.address: those for source, those in found.items()}
        state = firewall.state(*firewall.read(folder), [one for those in known.values() for one in those], port)
        return (*firewall.hint(state, known, port, folder / firewall.HOST), *([] if state.off else problems.values()))

    def _read_access_table(self) -> access.LoadedTable | None:
        return access.read_table(self.runner)


def _nut_group() -> int | None:
    try:
        return grp.getgrnam("nut").gr_gid
    except KeyError:
        return None


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _socket_inodes(folder: Path) -> Iterable[str]:
    """Yield the sockets that a process has open, by their inodes."""
    with contextlib.suppress(OSError):
        for one in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(one.readlink())
                if target.startswith("socket:["):
                    yield target[len("socket:[") : -1]


def is_synchronized(libc: Any = None) -> bool | None:
    """Ask the kernel whether something (chrony, systemd-timesyncd) keeps its clock right. None if it does not say.

    adjtimex(2), without a change. No program is asked: timedatectl would start a service.
    """
    # struct timex: modes, the first number, 0 asks for nothing to be changed
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = (libc or ctypes.CDLL(None)).adjtimex(buffer)
    return None if state < 0 else state != _TIME_ERROR
