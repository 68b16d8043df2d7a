# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Known problems of NUT releases: since which release, until which, whether they matter to these files, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Callable

from .directives import DETAILED_TYPES, Release
from .feeds import Feeds
from .files import NutFiles
from .release import format_release
from .upsd import IDLE_SECONDS, is_loopback

_FIRST: Release = (0, 0, 0)
_NEVER: Release = (999, 0, 0)


@dataclass(frozen=True)
class _Advice:
    since: Release  # the first release with the problem
    fixed: Release  # the first release without it
    file: str  # the problem does not matter to a host without this file
    # returns what the message is about, to fill its {}; empty if the problem does not matter
    concerned: Callable[[NutFiles], Iterable[str]]
    message: str  # two sentences: the problem, and the remedy
    is_due: bool = False  # whether the remedy is to be applied now; else it is good to know


@dataclass(frozen=True)
class Advice:
    """A known problem of a release that matters to a host's files."""

    problem: str
    remedy: str
    is_due: bool  # whether something has to be done

    def __str__(self) -> str:
        return f"{self.problem}. {self.remedy}."


def _concerns_all(_files: NutFiles) -> Iterable[str]:
    return [""]


def _concerned_if(condition: Callable[[NutFiles], bool]) -> Callable[[NutFiles], Iterable[str]]:
    return lambda files: [""] if condition(files) else []


def _has_directive(file: str, directive: str) -> Callable[[NutFiles], bool]:
    return lambda files: any(line.words[0] == directive for line in files.statements(file))


def _logs_out(files: NutFiles) -> bool:
    """Return whether upsmon is told to stay logged in for longer than upsd keeps a silent client."""
    held = (files.directive("upsmon.conf", "SHUTDOWNEXIT") or "yes").lower()
    if held in ("yes", "true", "on"):
        return False
    return re.fullmatch("[0-9]{1,9}", held) is None or int(held) > IDLE_SECONDS


def _messages_for_a_shell(files: NutFiles) -> list[str]:
    """Return the types of events whose NOTIFYMSG has characters that mean something to the shell which NOTIFYCMD goes through."""
    if not _has_directive("upsmon.conf", "NOTIFYCMD")(files):
        return []
    lines = [line.words for line in files.statements("upsmon.conf") if line.words[0] == "NOTIFYMSG"]
    kinds = [words[1] for words in lines if len(words) > 2 and re.search(r"[$`\"\\]", words[2])]
    return [", ".join(dict.fromkeys(kinds))] if kinds else []


def _details_for_a_shell(files: NutFiles) -> list[str]:
    """Return the first type of event that NOTIFYCMD gets, and whose message contains text from the UPS."""
    return (
        [kind for kind, flags in files.notify_flags.items() if "EXEC" in flags and kind in DETAILED_TYPES][:1]
        if _has_directive("upsmon.conf", "NOTIFYCMD")(files)
        else []
    )


def _listen_addresses(files: NutFiles) -> list[str]:
    return [address for address, _port in files.listening]


def _only_v6(files: NutFiles) -> bool:
    return "::" in _listen_addresses(files) and all(
        ":" in address or is_loopback(address) for address in _listen_addresses(files)
    )


def _redundant_upses(files: NutFiles) -> list[str]:
    """Return the UPSes of a host that goes on without one of them."""
    power = {monitor.ups: monitor.power for monitor in files.monitors}
    needed = files.directive("upsmon.conf", "MINSUPPLIES") or "1"
    feeds = Feeds(power, int(needed) if needed.isdigit() else 1)
    return [" and ".join(feeds.upses)] if feeds.is_redundant else []


def _sections_with(key: str) -> Callable[[NutFiles], Iterable[str]]:
    return lambda files: [name for name, section in files.ups_conf.sections.items() if key in dict(section.keys)]


# fit_files() makes loopback the one that counts, if it is among them
_several_listen = _concerned_if(
    lambda files: len(files.listening) > 1 and not any(map(is_loopback, _listen_addresses(files)))
)
_ONE_LISTEN = (
    "of several LISTEN addresses, upsd insists only on the {} one, and merely logs if it can't bind another. "
    "Check with ss -ltn, or use a single one: LISTEN 0.0.0.0 for IPv4, or LISTEN {} for IPv6 and IPv4"
)
_KEEPS_THE_ORDER = "The primary must wait until this host is down (nut_server_gate), or long enough (FINALDELAY)"

_ROWS: tuple[_Advice, ...] = (
    # seen with dummy-ups: OL CAL, OL, OB LB, and upsmon of 2.8.0 and 2.8.1 says "it is also calibrating" for ever
    _Advice(
        (2, 8, 0), (2, 8, 2), "upsmon.conf", _concerns_all,
        "once a UPS has calibrated (status CAL, also in some self-tests), upsmon believes that it is still calibrating, "
        "and never shuts down. Restart nut-monitor after each calibration, while on mains",
    ),
    _Advice(
        (2, 8, 1), (2, 8, 3), "upsmon.conf", _concerns_all,
        "upsmon ignores DEADTIME if it loses contact while on battery, and shuts this host down at once. "
        "Never restart NUT or the network during an outage; this role doesn't",
    ),
    _Advice(
        _FIRST, (2, 8, 1), "upsmon.conf", _redundant_upses,
        "a UPS that has switched itself off (OFF) still counts as a supply of this host, so it only shuts down if {} are low at the "
        "same moment. Set MINSUPPLIES to the sum of their power values, or use NUT 2.8.1 or newer",
        is_due=True,
    ),
    _Advice(
        (2, 8, 1), _NEVER, "upsmon.conf", _concerned_if(lambda files: not _has_directive("upsmon.conf", "OFFDURATION")(files)),
        "a UPS that reports OFF for 30 s counts as lost, even without OFFDURATION. "
        "Set OFFDURATION to -1 if your UPS reports OFF while it powers this host",
    ),
    _Advice(
        _FIRST, (2, 8, 1), "upsmon.conf", _concerned_if(lambda files: "ups.conf" not in files),
        "this secondary logs out when its shutdown begins, and this release has no SHUTDOWNEXIT to prevent that. "
        + _KEEPS_THE_ORDER,
    ),
    _Advice(
        (2, 8, 1), (2, 8, 5), "upsmon.conf", _concerned_if(_logs_out),
        "SHUTDOWNEXIT keeps the login for 60 s at most, because upsd then drops silent clients. " + _KEEPS_THE_ORDER,
    ),
    _Advice(
        _FIRST, (2, 8, 6), "upsmon.conf", _messages_for_a_shell,
        "the message for NOTIFYCMD goes through a shell, and NOTIFYMSG {} has $, a backtick, a backslash or a quote (CVE-2026-54161). "
        "Write it without these characters",
        is_due=True,
    ),
    _Advice(
        (2, 8, 3), (2, 8, 6), "upsmon.conf", _details_for_a_shell,
        "upsmon passes a UPS's alarm texts to a shell (CVE-2026-54161), and NOTIFYFLAG {} has EXEC. "
        "Remove EXEC, unless your distribution has fixed this",
        is_due=True,
    ),
    _Advice(
        (2, 8, 0), (2, 8, 1), "upssched.conf",
        _concerned_if(lambda files: any("START-TIMER" in line.words for line in files.statements("upssched.conf"))),
        "upssched uses a whole processor core while a timer runs. Keep timers short, or use EXECUTE",
    ),
    # seen on 2.8.0 and 2.8.1: upsd waits for the rest of a handshake without a limit, and upsmon reads without one
    _Advice(
        _FIRST, _NEVER, "upsd.conf", _concerned_if(lambda files: bool(files.directive("upsd.conf", "CERTPATH"))),
        "with TLS, a machine that begins a handshake and does not finish it blocks every shutdown until nut-watch restarts upsd: "
        "after 6 s, or after up to 20 s on battery. Allow only machines that you trust (nut_server_allow)",
    ),
    _Advice(_FIRST, (2, 8, 1), "upsd.conf", _several_listen, _ONE_LISTEN.format("last", "::")),
    _Advice((2, 8, 1), (2, 8, 2), "upsd.conf", _several_listen, _ONE_LISTEN.format("first", "*")),
    _Advice(
        (2, 8, 1), _NEVER, "upsd.conf", _concerned_if(_only_v6),
        "LISTEN :: covers only IPv6. For IPv4 clients, add LISTEN 0.0.0.0",
        is_due=True,
    ),
    _Advice(
        (2, 8, 2), (2, 8, 3), "ups.conf", _concerned_if(lambda files: bool(files.ups_conf.sections)),
        "the enumerator does not restart a driver whose section was changed by hand. "
        "Change ups.conf with this role, or restart nut-driver@NAME while on mains",
    ),
    _Advice(
        (2, 8, 1), (2, 8, 3), "ups.conf", _sections_with("allow_killpower"),
        "allow_killpower of [{}] has no effect in ups.conf. Set it with upsrw when you need it",
        is_due=True,
    ),
    _Advice(
        (2, 8, 1), (2, 8, 2), "ups.conf", _sections_with("onlinedischarge_calibration"),
        "onlinedischarge_calibration of [{}] makes every discharge look like a calibration, after which upsmon never shuts down. "
        "Remove it, or use NUT 2.8.2 or newer",
        is_due=True,
    ),
    _Advice(
        _FIRST, _NEVER, "ups.conf", _sections_with("device"),
        "[{}] is identified by device, a number that changes whenever the UPS is plugged in or resets, "
        "so its driver would not find it again. Use serial, or vendorid and productid",
        is_due=True,
    ),
)  # fmt: skip


def list_advice(texts: Mapping[str, str], release: Release) -> list[Advice]:
    """Return the known problems of this release that matter to these files, and what to do about them. Never raises."""
    files = NutFiles.of(texts)
    return [
        Advice(f"NUT {format_release(release)}: {problem.format(name)}", remedy.format(name), row.is_due)
        for row in _ROWS
        if row.file in files and row.since <= release < row.fixed
        for problem, _stop, remedy in (row.message.partition(". "),)
        for name in row.concerned(files)
    ]
