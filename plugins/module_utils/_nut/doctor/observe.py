# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Observe everything on a host that concerns its UPSes. checks_*.py judge it.

Nothing is changed: no file is written, no unit is touched, and nothing logs in to upsd. A part that can't be observed raises
nothing; HostObservation.troubles has the reason.

One file, because the parts share what was read before: the files, the units and the answer of upsd.
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

from ..base import hostnames, paths, records, sets, tcp_table, trust
from ..base.clock import name_system_start, read_boot_id, read_boottime
from ..base.process import Find, find_program, read_status
from ..base.systemd import (
    ALL,
    MONITOR,
    SERVER,
    WATCHER,
    JournalEntry,
    Run,
    Unit,
    driver_unit,
    read_container,
    read_journal,
    show_units,
)
from ..conf import host
from ..conf.directives import Release
from ..conf.files import NutFiles
from ..conf.release import find_release
from ..deploy import actions, past, sandbox
from ..deploy import kits as deploy_kits
from ..net import access, snapshot
from ..net.client import UpsdClient
from ..net.errors import UpsdFailure
from ..plan.node import NodeTimes, compute_node_times
from ..proxmox import firewall, startup
from ..proxmox.guests import is_node
from ..shutdown import flag, gate, report, watch
from ..shutdown import policy as shutdown_policy
from ..shutdown.names import AddressCache
from ..shutdown.open_starts import OpenStarts, read_open_starts
from ..shutdown.returns import describe_return
from ..usb import bus, liveness, policy
from ..usb.opened import OpenedNode, read_claims, read_opened_nodes

SECONDS = 4.0
"""Time limit of one query over the network."""

LINES = 1500
"""How many lines of the journal to read, from its end."""

LOG_BYTES = 1 << 18  # read of the end of a log
TEXT_BYTES = 1 << 20  # read of a file whose text matters
PROGRAM_BYTES = 16 << 20  # read of a program, for its digest; ours are slightly larger than 1 MiB

# adjtimex(2) returns this for a clock that is not synchronized.
_TIME_ERROR = 5
_TIMEX_BYTES = 512

_T = TypeVar("_T")
Open = Callable[[str, int], UpsdClient]


@dataclass(frozen=True)
class File:
    """A file on the host."""

    mode: int
    uid: int
    gid: int
    changed: float  # seconds since 1970
    digest: str  # SHA-256, hex
    text: str = ""  # "" for programs, of which only the digest matters


@dataclass(frozen=True)
class Process:
    """A process of upsd or upsmon."""

    name: str
    pid: int
    user: str


@dataclass(frozen=True)
class Socket:
    """A listening TCP socket."""

    address: str
    port: int
    process: str  # name, "" if unknown


@dataclass(frozen=True)
class UpsdAnswer:
    """What an upsd answered, and the address from which this host reaches it."""

    report: snapshot.UpsdReport
    own_address: str


@dataclass(frozen=True)
class TlsResult:
    """The result of STARTTLS with this host's upsd."""

    version: str  # of TLS
    ends: float  # when the certificate expires, seconds since 1970
    trouble: str = ""  # why it failed


@dataclass(frozen=True)
class CutFlag:
    """Whether POWERDOWNFLAG, which makes the UPS cut the power, could be written."""

    path: str
    spare: str  # state of its spare file, as flag.py names it
    space: int  # free bytes on its file system
    files: int | None  # how many more files its file system can hold, None if unlimited


@dataclass(frozen=True)
class HostObservation:
    """Everything observed on a host."""

    now: float  # seconds since 1970
    group: int | None = None  # id of the group nut
    release: Release | None = None
    installed: tuple[str, ...] = ()
    files: Mapping[str, File] = field(default_factory=dict)  # NUT's, by name
    own_files: Mapping[str, File] = field(default_factory=dict)  # of our programs, by path
    units: Mapping[str, Unit] = field(default_factory=dict)
    processes: tuple[Process, ...] = ()
    sockets: tuple[Socket, ...] = ()
    devices: tuple[bus.UsbDevice, ...] = ()
    has_usb: bool = True  # whether the kernel has a USB bus
    usb_ids: Mapping[str, str] = field(default_factory=dict)  # ids of the UPSes that NUT's udev rules know -> driver
    container: str = ""  # what systemd says that this host is, such as lxc; "" if it is no container
    # section -> the USB devices that its driver has open; without those whose files can't be seen
    opened: Mapping[str, tuple[OpenedNode, ...]] = field(default_factory=dict)
    claims: Mapping[str, bool] = field(default_factory=dict)  # opened.read_claims()
    # UPS on battery -> for how many seconds nothing that it measures has changed, according to nut-hotplug
    still: Mapping[str, float] = field(default_factory=dict)
    served: UpsdAnswer | str | None = None  # answer of this host's upsd, or why there is none; None on a secondary
    # MONITOR's system -> answer of that upsd, or why there is none
    watched: Mapping[str, UpsdAnswer | str] = field(default_factory=dict)
    # expected client -> its addresses, or why it has none
    addresses: Mapping[str, tuple[str, ...] | str] = field(default_factory=dict)
    local_names: frozenset[str] = frozenset()  # in /etc/hosts, in lower case
    tls: TlsResult | None = None
    flags: Mapping[str, float] = field(default_factory=dict)  # path of an existing POWERDOWNFLAG -> since when
    cut: CutFlag | None = None  # None without POWERDOWNFLAG
    untrusted: Mapping[str, str] = field(default_factory=dict)  # path that root trusts -> why others could change it
    refused_sandboxes: Mapping[str, str] = field(default_factory=dict)  # sandbox that this host can't apply -> why
    gate_state: gate.GateState | None = None  # of the last gate of this boot
    open_starts: OpenStarts = field(default_factory=OpenStarts)  # guests that should run, and do not
    returned: tuple[str, ...] = ()  # lines about the machines after the last outage
    guest_start: startup.GuestStart | None = None  # how far Proxmox VE is with it; None if this is no node
    last_gate: report.GateReport | str | None = None  # report of the last gate, or why it can't be read
    upsd_events: tuple[watch.WatchEvent, ...] = ()  # what nut-watch did for upsd
    firewall: tuple[str, ...] | None = None  # what is missing, then how to add it; None without Proxmox VE's firewall
    access: access.LoadedTable | None = None  # the table that limits access to upsd, None if not loaded
    node_times: NodeTimes | None = None  # how long a secondary that is a Proxmox VE node takes; None if it is none
    synchronized: bool | None = None  # the clock; None if unknown
    journal: tuple[JournalEntry, ...] = ()
    deployed: past.Deployment = past.NEVER  # the last deployment that changed something
    shutdown_log: str = ""  # the end of nut-shutdown's log
    troubles: Mapping[str, str] = field(default_factory=dict)  # part that could not be observed -> why


@dataclass
class HostObserver:
    """Observes this host."""

    primary: bool
    runner: Run
    clients: Mapping[str, str] = field(default_factory=dict)  # expected client -> its address or name
    kits: Sequence[deploy_kits.Kit] = ()  # our programs that should be installed
    ca: str = ""  # certificates (PEM) to check TLS with, "" without TLS
    server: str = ""  # name in upsd's certificate
    check_firewall: bool = True
    since: float = 86400.0  # seconds of the journal to read
    root: Path = Path("/")
    open_client: Open = lambda host, port: UpsdClient(host, port, timeout=SECONDS)
    resolve: Callable[[str, float], Sequence[str]] = hostnames.resolve_name
    finder: Find = find_program
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    ask_clock: Callable[[], bool | None] | None = None
    troubles: dict[str, str] = field(default_factory=dict, init=False)

    def observe_host(self) -> HostObservation:
        """Observe everything. No state of the host makes this raise."""
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
        units: dict[str, Unit] = self.try_part("units", lambda: self._show_units(names), {})
        nothing_there: tuple[bus.UsbDevice, ...] | None = ()
        scanned = self.try_part("usb", self._scan_usb, nothing_there) if self.primary else nothing_there
        devices = scanned or ()
        return HostObservation(
            now=now,
            group=_nut_group(),
            release=self.try_part("release", lambda: find_release(self.runner, self.finder), None),
            installed=installed,
            files=files,
            own_files=self.try_part("own files", self._read_own_files, {}),
            units=units,
            processes=processes,
            sockets=sockets,
            devices=devices,
            has_usb=scanned is not None,
            claims=self.try_part("claims", lambda: self._read_claims(devices), {}),
            opened=self.try_part("opened", lambda: self._read_opened(names, units), {}) if self.primary else {},
            still=self.try_part("still", self._read_stillness, {}) if self.primary else {},
            usb_ids=self.try_part("usb ids", self._read_usb_ids, {}) if self.primary else {},
            container=read_container(self.root),
            served=served,
            watched=self._ask_watched_upsds(nut),
            addresses=self._look_up_clients(),
            local_names=self.try_part("local names", self._read_local_names, frozenset()),
            tls=self._try_tls(nut) if self.primary and self.ca else None,
            flags=self.try_part("flags", lambda: self._find_flags(nut), {}),
            cut=self.try_part("cut", lambda: self._observe_cut(nut), None) if self.primary else None,
            untrusted=self.try_part("trust", lambda: self._find_untrusted(nut), {}),
            refused_sandboxes=self.try_part("sandboxes", lambda: sandbox.read_refused(self.root), {}),
            gate_state=records.recall_record(gate.GateState, self._path_below_root(paths.GATE_STATE), gate.VERSION),
            open_starts=self.try_part("late guests", self._read_open_starts, OpenStarts()),
            returned=self.try_part("return", self._describe_return, ()),
            guest_start=self.try_part("guest start", self._observe_guest_start, None),
            last_gate=report.read_report(self._path_below_root(paths.GATE_REPORT)),
            upsd_events=self._upsd_events(),
            firewall=self.try_part("firewall", lambda: self._firewall_hints(nut), None)
            if self.primary and self.check_firewall
            else None,
            access=self.try_part("access", self._read_access_table, None) if self.primary else None,
            node_times=None if self.primary else self.try_part("guests", self._observe_node, None),
            shutdown_log=self.try_part("shutdown log", self._read_shutdown_log, "") if self.primary else "",
            deployed=past.recall_deployment(self._path_below_root(str(sets.MANIFEST.parent))),
            synchronized=self.try_part("clock", self.ask_clock or is_synchronized, None),
            journal=self.try_part("journal", lambda: self._read_journal(names, now), ()),
            troubles=dict(self.troubles),
        )

    def try_part(self, part: str, work: Callable[[], _T], otherwise: _T) -> _T:
        """Return the result of WORK. If it fails, note why in troubles and return OTHERWISE."""
        try:
            return work()
        except Exception as error:  # one odd part of a host must not hide the others
            self.troubles[part] = str(error) if isinstance(error, bus.UsbError) else f"{type(error).__name__}: {error}"
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
        files = {name: self._read_file(self._path_below_root(paths.NUT) / name) for name in names}
        return {name: file for name, file in files.items() if file}

    def _read_own_files(self) -> dict[str, File]:
        files: dict[str, File | None] = {}
        for kit in self.kits:
            files[kit.program] = self._read_file(self._path_below_root(kit.program), text=False)
            files.update(
                {place.path: self._read_file(self._path_below_root(place.path)) for place in kit.places.values()}
            )
        return {path: file for path, file in files.items() if file}

    def _upsd_events(self) -> tuple[watch.WatchEvent, ...]:
        return watch.recall_memory(self._path_below_root(paths.WATCH_STATE), "").events if self.primary else ()

    def _find_flags(self, nut: NutFiles) -> dict[str, float]:
        paths = dict.fromkeys([nut.directive("upsmon.conf", "POWERDOWNFLAG") or "", *host.COMMON_FLAGS])
        flags = {path: self._path_below_root(path) for path in paths if path}
        return {path: file.lstat().st_mtime for path, file in flags.items() if file.is_file()}

    def _observe_cut(self, nut: NutFiles) -> CutFlag | None:
        path = nut.directive("upsmon.conf", "POWERDOWNFLAG")
        if not path:
            return None
        room = os.statvfs(self._path_below_root(path).parent)
        # A file system without a limit reports 0 files.
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
        """Yield the programs that shutdown stages run as root."""
        # check_policy() reports a broken policy, and nothing in it is run.
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
        # Of the units that a timer starts each minute, read only their own lines, not systemd's.
        matches = [f"_SYSTEMD_UNIT={name}" for name in (*daemons, *quiet)] + [f"UNIT={name}" for name in daemons]
        joined = [word for match in matches for word in (match, "+")][:-1]
        options = [f"--lines={LINES}", f"--since=@{max(now - self.since, 0):.0f}", *joined]
        # Daemons log both to syslog and to stderr: count a line that appears twice in a second once.
        entries: dict[tuple[int, str], JournalEntry] = {}
        for entry in read_journal(options, self.runner):
            if entry.words:
                entries.setdefault((int(entry.at), entry.words), entry)
        return tuple(entries.values())

    def _read_shutdown_log(self) -> str:
        """Return the end of nut-shutdown's log, and of the one before."""
        log = self._path_below_root(paths.SHUTDOWN_LOG)
        return "".join(_read_end(path) for path in (log.with_name(f"{log.name}.1"), log))

    # Processes and sockets

    def _find_sockets(self) -> tuple[tuple[Socket, ...], tuple[Process, ...]]:
        processes, owners = [], {}
        for folder in sorted(self._path_below_root("proc").glob("[0-9]*")):
            with contextlib.suppress(OSError):
                name = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
                if name not in ("upsd", "upsmon") or _is_of_container(folder):
                    continue
                processes.append(Process(name, int(folder.name), _user_name(folder.stat().st_uid)))
                owners.update(dict.fromkeys(_socket_inodes(folder), name))
        sockets = [
            Socket(socket.address, socket.port, owners.get(socket.inode, ""))
            for socket in tcp_table.read_sockets(self.root, tcp_table.LISTEN)
        ]
        return tuple(sockets), tuple(processes)

    # USB

    def _read_usb_policy(self) -> policy.UsbPolicy:
        return policy.read_policy(self._path_below_root(paths.HOTPLUG_POLICY)) or policy.UsbPolicy()

    def _scan_usb(self) -> tuple[bus.UsbDevice, ...] | None:
        """Return the devices on the bus; None without one."""
        places = self._read_usb_policy()
        try:
            return bus.scan_bus(self._path_below_root(places.sysfs), self._path_below_root(places.dev))
        except bus.NoUsbBus:
            return None

    def _read_usb_ids(self) -> dict[str, str]:
        return bus.read_id_table([self._path_below_root(str(folder)) for folder in bus.FOLDERS])

    def _read_opened(self, sections: Sequence[str], units: Mapping[str, Unit]) -> dict[str, tuple[OpenedNode, ...]]:
        dev, proc = self._path_below_root(self._read_usb_policy().dev), self._path_below_root("proc")
        pids = {name: units[driver_unit(name)].pid for name in sections if driver_unit(name) in units}
        found = {name: read_opened_nodes(pid, dev, proc) for name, pid in pids.items()}
        return {name: nodes for name, nodes in found.items() if nodes is not None}

    def _read_claims(self, devices: Sequence[bus.UsbDevice]) -> dict[str, bool]:
        return read_claims(devices, self._path_below_root(self._read_usb_policy().sysfs)) if devices else {}

    def _read_stillness(self) -> dict[str, float]:
        return liveness.read_stillness(self._path_below_root(paths.HOTPLUG_STATE), read_boot_id())

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
        return {monitor.system: self._ask_upsd(monitor.host, monitor.port, [monitor.ups]) for monitor in nut.monitors}

    def _read_local_names(self) -> frozenset[str]:
        file = self._read_file(self._path_below_root("/etc/hosts"))
        lines = (line.partition("#")[0].split() for line in file.text.splitlines()) if file else ()
        return frozenset(name.lower() for line in lines for name in line[1:])

    def _look_up_clients(self) -> dict[str, tuple[str, ...] | str]:
        places = dict(self.clients)
        resolved, problems = hostnames.resolve_names(places.values(), SECONDS, self.resolve)
        # The same as nut-shutdown does. Don't run it instead: it would save the addresses that it finds.
        kept = AddressCache(self._path_below_root(paths.ADDRESSES)).known
        addresses: dict[str, tuple[str, ...] | str] = {}
        for name, place in places.items():
            known = resolved[place] or [
                each for part in hostnames.split_addresses(place) for each in kept.get(part, ())
            ]
            addresses[name] = tuple(dict.fromkeys(map(hostnames.normal_address, known)))
            if not known:
                addresses[name] = f"can't resolve {place} ({problems[place].strerror or problems[place]})"
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
        every_address = [part for place in self.clients.values() for part in hostnames.split_addresses(place)]
        sources = [access.make_source(address, address) for address in every_address]
        resolved, problems = access.resolve_sources(sources, self.resolve)
        known = {source.address: networks for source, networks in resolved.items()}
        every_network = [network for networks in known.values() for network in networks]
        verdict = firewall.judge_host(firewall.read_files(folder), every_network, port, self.root)
        hints = firewall.describe_missing_rules(verdict, known, port, folder / firewall.HOST)
        return (*hints, *([] if verdict.off_reason else problems.values()))

    def _observe_node(self) -> NodeTimes | None:
        return compute_node_times(self.runner, self.root) if is_node(self.root) else None

    def _observe_guest_start(self) -> startup.GuestStart | None:
        return startup.observe_start(self.runner, self.root) if is_node(self.root) else None

    def _read_open_starts(self) -> OpenStarts:
        folder = self._path_below_root(paths.SHUTDOWN_FOLDER)
        return read_open_starts(folder, name_system_start(self.root), self.runner, self.root)

    def _describe_return(self) -> tuple[str, ...]:
        path = self._path_below_root(paths.RETURN_STATE)
        return describe_return(path, name_system_start(self.root), read_boottime())

    def _read_access_table(self) -> access.LoadedTable | None:
        return access.read_table(self.runner)


def _read_end(path: Path) -> str:
    """Return the end of a text file, "" if there is none. The group nut can write to the folder of our logs."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        file.seek(max(os.fstat(handle).st_size - LOG_BYTES, 0))
        return file.read(LOG_BYTES).decode("utf-8", "replace")


def _nut_group() -> int | None:
    """Return the id of the group nut, None if there is no such group."""
    try:
        return grp.getgrnam("nut").gr_gid
    except KeyError:
        return None


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _is_of_container(folder: Path) -> bool:
    """Return whether a process belongs to a container of this host. folder: /proc/PID. It then has a number there, too."""
    return len(read_status(folder).get("NSpid", "").split()) > 1


def _socket_inodes(folder: Path) -> Iterable[str]:
    """Yield the inodes of the sockets that a process has open."""
    with contextlib.suppress(OSError):
        for descriptor in (folder / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    yield target[len("socket:[") : -1]


def is_synchronized(libc: Any = None) -> bool | None:
    """Return whether the kernel considers the clock synchronized (by chrony, systemd-timesyncd, ...). None if unknown.

    Uses adjtimex(2), because timedatectl would start a service.
    """
    # struct timex begins with modes: 0 changes nothing
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = (libc or ctypes.CDLL(None)).adjtimex(buffer)
    return None if state < 0 else state != _TIME_ERROR
