# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a set of NUT's files is right, as far as the files themselves show; what the host's NUT says of them: dry_run.py."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from . import grammar, releases, ups_conf
from . import upsmon as conf_upsmon
from .upsmon import IDLE_SECONDS

# The other modes don't start upsd. Worse, with none Debian 12 and 13 let each reboot cut the power of the UPSes in ups.conf.
PRIMARY_MODES = ("netserver", "standalone")
SECONDARY_MODES = ("netclient",)


def together(files: Mapping[str, str], release: releases.Release | None = None) -> list[str]:
    """Check what no daemon checks: values, and that the files fit each other. Returns what is wrong, in words.

    files: name -> text, all of a primary's or of a secondary's. release: of the NUT that will read them; None if unknown.
    """
    wrong = []
    for name, text in files.items():
        if not text.endswith("\n"):
            wrong.append(f"{name}: the last line has no newline, and NUT loses it")
        if name != "nut.conf":
            wrong += [f"{name}, line {one.line}: {one.message}" for one in grammar.problems(text)]
    # a shell reads it: the last one counts, and blanks before it do not
    mode = ["", *re.findall(r"^[ \t]*MODE=(.*)$", files.get("nut.conf", ""), re.MULTILINE)][-1].strip("\"'")
    modes = PRIMARY_MODES if "ups.conf" in files else SECONDARY_MODES
    if "nut.conf" in files and mode not in modes:
        wrong.append(
            f"nut.conf: MODE is {mode or 'not set'}, and must be {' or '.join(modes)}, without blanks around the ="
        )
    names = [*ups_conf.parse(files.get("ups.conf", "")).sections]
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            wrong.append(
                f"ups.conf: [{name}]: a name is made of letters, digits, dot, hyphen and underscore, as a unit's is"
            )
        if [one.lower() for one in names].count(name.lower()) > 1:
            wrong.append(f"ups.conf: [{name}]: upsd makes no difference between names that differ in case alone")
    wrong += _overlapping(conf_upsmon.listening(files.get("upsd.conf", "")))
    upsmon_conf = files.get("upsmon.conf", "")
    if conf_upsmon.directive(upsmon_conf, "CERTVERIFY") == "1" and not conf_upsmon.directive(upsmon_conf, "CERTPATH"):
        wrong.append("upsmon.conf: CERTVERIFY without CERTPATH: upsmon would connect to nobody. Give both")
    upsd_conf = files.get("upsd.conf", "")
    if conf_upsmon.directive(upsd_conf, "CERTIDENT") and not conf_upsmon.directive(upsd_conf, "CERTPATH"):
        wrong.append("upsd.conf: CERTIDENT without CERTPATH: upsd would offer no TLS, and not say so. Give both")
    return wrong + releases.wrong_values(files, release) + _wrong_logins(files) + _watched(files)


def _overlapping(places: Sequence[tuple[str, int]]) -> list[str]:
    """Say which addresses of LISTEN another one includes: upsd gets one of them, and only logs that (2.8.1: the smaller)."""
    wrong = []
    for everything, form in ((("0.0.0.0", "*"), "[0-9.]+"), (("::",), "[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*")):
        for port in {port for name, port in places if name in everything}:
            # a name may be of the other family
            parts = [
                name for name, its in places if its == port and name not in everything and re.fullmatch(form, name)
            ]
            wrong += [
                f"upsd.conf: LISTEN {name} {port} is a part of LISTEN {everything[0]} {port}, and upsd can't have both. Leave one out"
                for name in parts
            ]
    return wrong


def _wrong_logins(files: Mapping[str, str]) -> list[str]:
    """Judge every login that the files know: each [user] and each MONITOR. No password is told."""
    users = conf_upsmon.users(files.get("upsd.users", "")).values()
    monitors = conf_upsmon.monitors(files.get("upsmon.conf", ""))
    logins = [(f"upsd.users, [{user.name}]", user.name, user.password) for user in users]
    logins += [(f"upsmon.conf: MONITOR {watched.system}", watched.user, watched.password) for watched in monitors]
    wrong = []
    for where, user, password in logins:
        for what, problem in (
            ("user name", grammar.user_problem(user)),
            ("password", grammar.password_problem(password)),
        ):
            if problem:
                wrong.append(f"{where}: the {what} {problem}")
    return wrong


def _watched(files: Mapping[str, str]) -> list[str]:
    if "upsmon.conf" not in files:
        return []
    wrong = []
    watched = conf_upsmon.monitors(files["upsmon.conf"])
    users = conf_upsmon.users(files.get("upsd.users", ""))
    served = ups_conf.parse(files["ups.conf"]).sections if "ups.conf" in files else None
    for one in watched:
        where = f"upsmon.conf: MONITOR {one.system}"
        # any other word is taken for secondary in silence, and then nobody sets FSD
        if one.type not in conf_upsmon.PRIMARY + conf_upsmon.SECONDARY:
            # what stands there may be a piece of a password
            wrong.append(f"{where}: its sixth word, the type, is neither primary nor secondary")
        if not one.port:
            wrong.append(f"{where}: its port is no number. Write UPS@HOST:PORT, and an IPv6 address in brackets")
        if served is None or one.host not in ("localhost", "127.0.0.1", "::1"):
            continue
        if "upsd.conf" in files and not _listens(files["upsd.conf"], one.port):
            wrong.append(f"{where}: no LISTEN of upsd.conf serves this host itself on port {one.port}")
        if one.ups not in served:
            wrong.append(f"{where}: ups.conf has no [{one.ups}]. It has {', '.join(served) or 'none'}")
        if one.user not in users:
            wrong.append(f"{where}: upsd.users has no [{one.user}]")
        elif users[one.user].password != one.password:
            wrong.append(f"{where}: the password is not the one of [{one.user}] in upsd.users")
        elif one.type in conf_upsmon.PRIMARY and users[one.user].type not in conf_upsmon.PRIMARY:
            wrong.append(f"{where}: [{one.user}] in upsd.users is no primary, so it could not set FSD")
    return wrong + _never_down(files["upsmon.conf"], sum(one.power for one in watched))


def _never_down(upsmon_conf: str, power: int) -> list[str]:
    """Say by what a host would not shut down, or its upsmon not run. power: what the MONITOR lines add up to."""
    wrong = []
    if not (conf_upsmon.directive(upsmon_conf, "SHUTDOWNCMD") or "").strip():
        wrong.append("upsmon.conf: SHUTDOWNCMD is missing or empty, so this host would never shut down")
    for name in ("POLLFREQ", "POLLFREQALERT"):
        seconds = conf_upsmon.directive(upsmon_conf, name) or "5"
        if not seconds.isdigit() or not 0 < int(seconds) < IDLE_SECONDS:
            wrong.append(
                f"upsmon.conf: {name} is {seconds}, and must be 1 to {IDLE_SECONDS - 1}: upsd drops clients that are silent longer"
            )
    needed = conf_upsmon.directive(upsmon_conf, "MINSUPPLIES") or "1"
    if needed.isdigit() and int(needed) == 0:
        wrong.append("upsmon.conf: MINSUPPLIES is 0, so this host would never shut down")
    elif not needed.isdigit() or power < int(needed):
        wrong.append(
            f"upsmon.conf: MINSUPPLIES {needed} can't be met, the MONITOR lines add up to {power}. upsmon would not start"
        )
    return wrong


def _listens(upsd_conf: str, port: int) -> bool:
    """Say whether upsd can be reached from its own host under a loopback address."""
    places = conf_upsmon.listening(upsd_conf)
    here = conf_upsmon.LOOPBACK + conf_upsmon.LOOPBACK_6
    return port in [own for host, own in places if host in here] if places else port == conf_upsmon.PORT
