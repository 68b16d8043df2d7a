# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks a set of NUT's files on their own. dry_run.py has the host's NUT read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from . import grammar, upsd
from .directives import Release
from .files import NutFiles
from .upsd import IDLE_SECONDS
from .values import find_wrong_values

# The other modes don't start upsd. Worse, with none Debian 12 and 13 let each reboot cut the power of the UPSes in ups.conf.
PRIMARY_MODES = ("netserver", "standalone")
SECONDARY_MODES = ("netclient",)
# sockaddr_un.sun_path, without the end of the text
_SOCKET_PATH = 107
# nut-stages, nut-watch, nut-shutdown, nut-hotplug, and a person with upsc
_OWN_CONNECTIONS = 5


def find_inconsistencies(texts: Mapping[str, str], release: Release | None = None) -> list[str]:
    """Return mistakes that no daemon reports, in words: wrong values, and files that contradict each other.

    texts: name -> text, all of a primary's or of a secondary's. release: of the NUT that will read them; None if unknown.
    """
    files = NutFiles.of(texts)
    wrong = []
    for name, text in files.items():
        if not text.endswith("\n"):
            wrong.append(f"{name}: the last line has no newline, so NUT drops it")
        if name != "nut.conf":
            wrong += [f"{name}, line {problem.line}: {problem.message}" for problem in grammar.find_problems(text)]
    # a shell reads it: the last one counts, and blanks before it do not
    mode = ["", *re.findall(r"^[ \t]*MODE=(.*)$", files.get("nut.conf", ""), re.MULTILINE)][-1].strip("\"'")
    modes = PRIMARY_MODES if "ups.conf" in files else SECONDARY_MODES
    if "nut.conf" in files and mode not in modes:
        wrong.append(
            f"nut.conf: MODE is {mode or 'not set'}, must be {' or '.join(modes)}, without blanks around the ="
        )
    names = [*files.ups_conf.sections]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            wrong.append(
                f"ups.conf: [{name}]: the name of a UPS may have only letters, digits, dots, hyphens and underscores"
            )
        if [other.lower() for other in names].count(name.lower()) > 1:
            wrong.append(f"ups.conf: [{name}]: two names differ only in case, and upsd treats them as the same")
    wrong += _find_overlapping_listens(files.listening)
    if files.directive("upsmon.conf", "CERTVERIFY") == "1" and not files.directive("upsmon.conf", "CERTPATH"):
        wrong.append("upsmon.conf: CERTVERIFY without CERTPATH: upsmon could not connect to any upsd. Set both")
    if files.directive("upsd.conf", "CERTIDENT") and not files.directive("upsd.conf", "CERTPATH"):
        wrong.append("upsd.conf: CERTIDENT without CERTPATH: upsd would silently offer no TLS. Set both")
    wrong += _find_lacking_connections(files) + _find_wrong_sockets(files)
    return wrong + find_wrong_values(files, release) + _find_wrong_logins(files) + _find_wrong_monitors(files)


def _find_lacking_connections(files: NutFiles) -> list[str]:
    """Return a sentence if MAXCONN is too small: upsd then ignores clients, and in the end every new connection."""
    given = files.directive("upsd.conf", "MAXCONN") or ""
    parts = (len(files.ups_conf.sections), max(len(files.listening), 1), len(files.users), len(files.monitors))
    needed = sum(parts) + _OWN_CONNECTIONS
    if not given.isdigit() or int(given) >= needed:
        return []
    return [
        f"upsd.conf: MAXCONN is {given}, but upsd needs {needed}: one for each UPS, LISTEN, user and MONITOR, and {_OWN_CONNECTIONS} for "
        "other programs. It would ignore the others. Leave it out"
    ]


def _find_wrong_sockets(files: NutFiles) -> list[str]:
    """Return why upssched could not use its socket (PIPEFN) and its lock (LOCKFN)."""
    pipe, lock = (files.directive("upssched.conf", name) for name in ("PIPEFN", "LOCKFN"))
    wrong = []
    if pipe and len(pipe) > _SOCKET_PATH:
        wrong.append(
            f"upssched.conf: PIPEFN has {len(pipe)} characters, and the path of a socket may have {_SOCKET_PATH}: no timer would run"
        )
    if pipe and pipe == lock:
        wrong.append("upssched.conf: PIPEFN and LOCKFN are the same file, so no timer would run. Give each its own")
    return wrong


def _find_overlapping_listens(places: Sequence[tuple[str, int]]) -> list[str]:
    """Return LISTEN addresses that another one includes: upsd can bind only one of them, and merely logs it (2.8.1: the smaller)."""
    wrong = []
    for everything, form in ((("0.0.0.0", "*"), "[0-9.]+"), (("::",), "[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")):
        for everywhere in {port for address, port in places if address in everything}:
            # a name may be of the other family
            parts = [
                address
                for address, port in places
                if port == everywhere and address not in everything and re.fullmatch(form, address)
            ]
            wrong += [
                f"upsd.conf: LISTEN {address} {everywhere} is part of LISTEN {everything[0]} {everywhere}, and upsd can't bind"
                " both. Remove one"
                for address in parts
            ]
    return wrong


def _find_wrong_logins(files: NutFiles) -> list[str]:
    """Return what is wrong with the logins in the files: each [user] and each MONITOR. No password is shown."""
    logins = [(f"upsd.users, [{user.name}]", user.name, user.password) for user in files.users.values()]
    logins += [(f"upsmon.conf: MONITOR {monitor.system}", monitor.user, monitor.password) for monitor in files.monitors]
    wrong = []
    for where, user, password in logins:
        for what, problem in (
            ("user name", grammar.find_user_problem(user)),
            ("password", grammar.find_password_problem(password)),
        ):
            if problem:
                wrong.append(f"{where}: the {what} {problem}")
    return wrong


def _find_wrong_monitors(files: NutFiles) -> list[str]:
    if "upsmon.conf" not in files:
        return []
    wrong = []
    served = files.ups_conf.sections if "ups.conf" in files else None
    for monitor in files.monitors:
        where = f"upsmon.conf: MONITOR {monitor.system}"
        # NUT silently takes any other word for secondary, and then no upsmon sets FSD
        if monitor.type not in upsd.PRIMARY + upsd.SECONDARY:
            # the word may be a piece of a password, so it is not shown
            wrong.append(f"{where}: the last word is neither primary nor secondary")
        if not monitor.port:
            wrong.append(f"{where}: the port is not a number. Write UPS@HOST:PORT, with an IPv6 address in brackets")
        if served is None or monitor.host not in ("localhost", "127.0.0.1", "::1"):
            continue
        # without a LISTEN, upsd listens on its own port
        ports = upsd.local_ports(files["upsd.conf"]) if files.listening else [upsd.PORT]
        if "upsd.conf" in files and monitor.port not in ports:
            wrong.append(f"{where}: no LISTEN line of upsd.conf lets this host connect to port {monitor.port}")
        is_encrypted = "upsd.conf" not in files or files.directive("upsd.conf", "CERTPATH")
        if files.directive("upsmon.conf", "FORCESSL") == "1" and not is_encrypted:
            wrong.append(
                f"{where}: FORCESSL is 1, but upsd.conf has no CERTPATH: upsmon could not connect. Set nut_server_tls"
            )
        if monitor.ups not in served:
            wrong.append(f"{where}: ups.conf has no [{monitor.ups}]. It has: {', '.join(served) or 'none'}")
        user = files.users.get(monitor.user)
        if user is None:
            wrong.append(f"{where}: upsd.users has no [{monitor.user}]")
        elif user.password != monitor.password:
            wrong.append(f"{where}: the password differs from that of [{monitor.user}] in upsd.users")
        elif monitor.type in upsd.PRIMARY and user.type not in upsd.PRIMARY:
            wrong.append(f"{where}: [{monitor.user}] in upsd.users is not a primary, so upsmon could not set FSD")
    return wrong + _find_shutdown_blockers(files)


def _find_shutdown_blockers(files: NutFiles) -> list[str]:
    """Return settings with which the host would not shut down, or upsmon would not run."""
    wrong = []
    if not (files.directive("upsmon.conf", "SHUTDOWNCMD") or "").strip():
        wrong.append("upsmon.conf: SHUTDOWNCMD is missing or empty, so this host would never shut down")
    for name in ("POLLFREQ", "POLLFREQALERT"):
        seconds = files.directive("upsmon.conf", name) or "5"
        if not seconds.isdigit() or not 0 < int(seconds) < IDLE_SECONDS:
            wrong.append(
                f"upsmon.conf: {name} is {seconds}, must be 1 to {IDLE_SECONDS - 1}: upsd drops clients that are silent for longer"
            )
    needed = files.directive("upsmon.conf", "MINSUPPLIES") or "1"
    power = sum(monitor.power for monitor in files.monitors)
    if needed.isdigit() and int(needed) == 0:
        wrong.append("upsmon.conf: MINSUPPLIES is 0, so this host would never shut down")
    elif not needed.isdigit() or power < int(needed):
        wrong.append(
            f"upsmon.conf: MINSUPPLIES is {needed}, but the power values of the MONITOR lines add up to {power}: upsmon would not start"
        )
    return wrong
