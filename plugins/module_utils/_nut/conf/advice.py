# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a release of NUT is known to be bad at, as rows: from which release to which, where it matters, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Callable

from .directives import DETAILED_TYPES, Release
from .files import NutFiles
from .release import format_release
from .upsd import IDLE_SECONDS, is_loopback

_FIRST: Release = (0, 0, 0)
_NEVER: Release = (999, 0, 0)


@dataclass(frozen=True)
class _Advice:
    since: Release  # the first release that is bad at it
    mended: Release  # the first one that is not
    file: str  # where this is not among the host's files, it does not matter
    concerned: Callable[
        [NutFiles], Iterable[str]
    ]  # what the sentence is said of, each for its {}; nothing: it does not matter
    words: str


def _concerns_all(_files: NutFiles) -> Iterable[str]:
    return [""]


def _concerned_if(condition: Callable[[NutFiles], bool]) -> Callable[[NutFiles], Iterable[str]]:
    return lambda files: [""] if condition(files) else []


def _has_directive(file: str, directive: str) -> Callable[[NutFiles], bool]:
    return lambda files: any(line.words[0] == directive for line in files.statements(file))


def _logs_out(files: NutFiles) -> bool:
    """Return whether upsmon is to hold its login for longer than upsd waits for a client that is silent."""
    held = (files.directive("upsmon.conf", "SHUTDOWNEXIT") or "yes").lower()
    if held in ("yes", "true", "on"):
        return False
    return re.fullmatch("[0-9]{1,9}", held) is None or int(held) > IDLE_SECONDS


def _details_for_a_shell(files: NutFiles) -> list[str]:
    """Return the first type that NOTIFYCMD is told of and whose text has a second part, which upsd says."""
    flags = [line.values for line in files.statements("upsmon.conf") if line.words[0] == "NOTIFYFLAG"]
    told = [values[0].upper() for values in flags if len(values) > 1 and "EXEC" in values[1]]
    return (
        [kind for kind in told if kind in DETAILED_TYPES][:1]
        if _has_directive("upsmon.conf", "NOTIFYCMD")(files)
        else []
    )


def _listen_addresses(files: NutFiles) -> list[str]:
    return [address for address, _port in files.listening]


def _only_v6(files: NutFiles) -> bool:
    return "::" in _listen_addresses(files) and all(
        ":" in address or is_loopback(address) for address in _listen_addresses(files)
    )


def _sections_with(key: str) -> Callable[[NutFiles], Iterable[str]]:
    return lambda files: [name for name, section in files.ups_conf.sections.items() if key in dict(section.keys)]


# fit_files() sees to it that loopback, where it is among them, is the one that counts
_several_listen = _concerned_if(
    lambda files: len(files.listening) > 1 and not any(map(is_loopback, _listen_addresses(files)))
)
_ONE_LISTEN = (
    "of several LISTEN only the {} one must work, and upsd merely logs that it can't have another. "
    "See which it has with ss -ltn, or LISTEN on 0.0.0.0 alone"
)
_BEFORE_A_SHELL = (
    "before 2.8.6 the message for NOTIFYCMD goes through a shell. Keep $, backticks and quotes out of NOTIFYMSG, "
    "and from 2.8.3 on EXEC off the type ALARM (CVE-2026-54161)"
)
_KEEPS_THE_ORDER = (
    "Only a primary that waits until this host is down (nut_server_gate) or long enough (FINALDELAY), keeps the order"
)

_ROWS: tuple[_Advice, ...] = (
    # seen with dummy-ups: OL CAL, OL, OB LB, and upsmon of 2.8.0 and 2.8.1 says "it is also calibrating" for ever
    _Advice(
        (2, 8, 0), (2, 8, 2), "upsmon.conf", _concerns_all,
        "once a UPS has calibrated (status CAL, also in some self-tests), upsmon takes it for calibrating for ever "
        "and never shuts down. Restart nut-monitor after each calibration, while on mains",
    ),
    _Advice(
        (2, 8, 1), (2, 8, 3), "upsmon.conf", _concerns_all,
        "upsmon ignores DEADTIME when contact is lost while on battery, and shuts this host down at once. "
        "Never restart NUT or the network in an outage; this role does not",
    ),
    _Advice(
        (2, 8, 1), _NEVER, "upsmon.conf", _concerned_if(lambda files: not _has_directive("upsmon.conf", "OFFDURATION")(files)),
        "a UPS that says OFF for 30 s counts as lost, although OFFDURATION is not set. "
        "Set OFFDURATION to -1 if yours says OFF while it feeds this host",
    ),
    _Advice(
        _FIRST, (2, 8, 1), "upsmon.conf", _concerned_if(lambda files: "ups.conf" not in files),
        "this secondary logs out as soon as its shutdown begins, and has no SHUTDOWNEXIT to change that. "
        + _KEEPS_THE_ORDER,
    ),
    _Advice(
        (2, 8, 1), (2, 8, 5), "upsmon.conf", _concerned_if(_logs_out),
        "SHUTDOWNEXIT holds the login for 60 s at most, because upsd drops a silent client then. " + _KEEPS_THE_ORDER,
    ),
    _Advice(_FIRST, (2, 8, 3), "upsmon.conf", _concerned_if(_has_directive("upsmon.conf", "NOTIFYCMD")), _BEFORE_A_SHELL),
    _Advice(
        (2, 8, 3), (2, 8, 6), "upsmon.conf", _details_for_a_shell,
        "upsmon gives what a UPS says of its alarms to a shell (CVE-2026-54161), and NOTIFYFLAG {} has EXEC. "
        "Take EXEC from it, unless your distribution has mended that",
    ),
    _Advice(
        (2, 8, 3), (2, 8, 6), "upsmon.conf",
        _concerned_if(lambda files: _has_directive("upsmon.conf", "NOTIFYCMD")(files) and not _details_for_a_shell(files)),
        _BEFORE_A_SHELL,
    ),
    _Advice(
        (2, 8, 0), (2, 8, 1), "upssched.conf",
        _concerned_if(lambda files: any("START-TIMER" in line.words for line in files.statements("upssched.conf"))),
        "upssched takes a whole processor while a timer runs. Keep the timers short, or use EXECUTE",
    ),
    # seen on 2.8.0 and 2.8.1: upsd waits for the rest of a handshake without a limit, and upsmon reads without one
    _Advice(
        _FIRST, _NEVER, "upsd.conf", _concerned_if(lambda files: bool(files.directive("upsd.conf", "CERTPATH"))),
        "with TLS, a machine that begins a handshake and does not finish it blocks every shutdown until nut-watch restarts upsd: "
        "after 6 s, on battery up to 20 s. Keep nut_server_allow to machines that you trust",
    ),
    _Advice(_FIRST, (2, 8, 1), "upsd.conf", _several_listen, _ONE_LISTEN.format("last")),
    _Advice((2, 8, 1), (2, 8, 2), "upsd.conf", _several_listen, _ONE_LISTEN.format("first")),
    _Advice(
        (2, 8, 1), _NEVER, "upsd.conf", _concerned_if(_only_v6),
        "LISTEN :: is for IPv6 alone. Clients that come by IPv4 need LISTEN 0.0.0.0 beside it",
    ),
    _Advice(
        (2, 8, 2), (2, 8, 3), "ups.conf", _concerned_if(lambda files: bool(files.ups_conf.sections)),
        "the enumerator does not restart a driver whose section was changed by hand. "
        "Change ups.conf by this role, or restart nut-driver@NAME while on mains",
    ),
    _Advice(
        (2, 8, 1), (2, 8, 3), "ups.conf", _sections_with("allow_killpower"),
        "allow_killpower of [{}] does nothing in ups.conf. Set it with upsrw when it is needed",
    ),
    _Advice(
        (2, 8, 1), (2, 8, 2), "ups.conf", _sections_with("onlinedischarge_calibration"),
        "onlinedischarge_calibration of [{}] makes a calibration of each discharge, after which upsmon never shuts down. "
        "Leave it out before NUT 2.8.2",
    ),
    _Advice(
        _FIRST, _NEVER, "ups.conf", _sections_with("device"),
        "[{}] is told by device, a number that changes each time the UPS is plugged in or resets, "
        "and its driver would never find it again. Tell it by serial, or by vendorid and productid",
    ),
)  # fmt: skip


def list_advice(texts: Mapping[str, str], release: Release) -> list[str]:
    """Return what this release is known to be bad at, as far as these files are concerned, and what to do. Never raises."""
    files = NutFiles.of(texts)
    return [
        f"NUT {format_release(release)}: {row.words.format(name)}."
        for row in _ROWS
        if row.file in files and row.since <= release < row.mended
        for name in row.concerned(files)
    ]
