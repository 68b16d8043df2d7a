# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a set of NUT's files is right: checked together, and by the host's own NUT, before any of it is put in place.

NUT has no option for this. The daemons' exit codes say nothing either (a driver that meets an unknown key prints
"Fatal error" and exits 0), so what they print is judged. Seen with the binaries of Debian 12 (2.8.0) and 13 (2.8.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Optional

from ..base import trust
from ..base.files import Owner
from ..base.systemd import Run
from . import grammar, nss, releases, ups_conf
from . import upsmon as conf_upsmon
from .upsmon import IDLE_SECONDS

# Where Debian keeps the drivers and the real daemons: 2.8.0, 2.8.1, and 2.8.4 or newer, whose daemons are in sbin. What
# stands in sbin on the first two are shell wrappers, which do nothing unless nut.conf's MODE tells them to.
PLACES = ("/lib/nut", "/usr/lib/nut", "/usr/libexec/nut", "/usr/sbin")
# The other modes don't start upsd. Worse, with none Debian 12 and 13 let each reboot cut the power of the UPSes in ups.conf.
PRIMARY_MODES = ("netserver", "standalone")
SECONDARY_MODES = ("netclient",)

# A process id that no process has: without it upsmon -K of 2.8.0 stops at the upsmon that runs already.
NO_PID = "4194303"
# upsd says nothing when it is ready, so it is watched for this long. It reads its files in the first few milliseconds.
UPSD_SECONDS = "1.5"

_DRIVER = re.compile(r"Fatal error.*|Parse error.*|.*discarding invalid.*|.*is not a valid.*", re.IGNORECASE)
_UPSMON = re.compile(
    r".*(?:invalid directive|Parse error|invalid notify|not a valid notify|ignoring invalid|Fatal|discarding|unusable configuration).*",
    re.IGNORECASE,
)
_UPSD = re.compile(
    r".*(?:invalid directive|Unknown upsmon type|Unrecognized user setting|Parse error|ignoring incomplete|"
    r"Ignoring duplicate|discarding|Fatal error|not listening|no listening|Invalid|"
    r"Can not (?:find|initialize|enable|get)|certificate name is not specified).*",
    re.IGNORECASE,
)

_UPSSCHED = re.compile(r".*(?:invalid directive|Parse error|must be set before|discarding|Fatal).*", re.IGNORECASE)

Find = Callable[[str], Optional[Path]]


def find(name: str) -> Path | None:
    """Find a driver or the real program of a daemon on this host. None if it is not installed."""
    found = (Path(place, name) for place in PLACES)
    return next((path for path in found if path.exists()), None)


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


def by_nut(
    files: Mapping[str, str],
    runner: Run,
    finder: Find = find,
    owner: Owner = ("root", "nut"),
    *,
    # a unix socket's path is at most 107 bytes long, so the scratch directory stands near the root
    room: Path = Path("/run"),
    tls: nss.Tls | None = None,
) -> list[str]:
    """Let the host's own NUT read the files, in a scratch directory. Returns what it complained of, in words.

    The programs run as the user nut, in a directory of root's: who is nut already gains nothing by what they are made to do.
    Nothing of the running NUT is touched: paths for state, pid and configuration point to the scratch directory, and
    upsd listens on a port of the kernel's choice on loopback. tls: the certificates that the files refer to. Where NUT is
    not installed, nothing is found wrong.
    """
    upsmon, server = finder("upsmon"), finder("upsd")
    if upsmon is None or ("ups.conf" in files and server is None):
        return []
    with trust.open_scratch(room, owner) as scratch:
        if tls:
            # in a directory that is still root's alone
            try:
                nss.make(scratch.folder / "tls", tls, runner, owner)
            except nss.NssError as error:
                return [f"TLS: {error}"]
            files = {name: text.replace(str(nss.path_of(tls)), f"{scratch.folder}/tls") for name, text in files.items()}
        trust.share(
            scratch, {name: _deaf(text) if name == "upsd.conf" else text for name, text in files.items()}, owner
        )
        return [words.replace(f"{scratch.folder}/", "") for words in _complaints_of_nut(files, scratch, finder, runner)]


def _complaints_of_nut(files: Mapping[str, str], scratch: trust.Scratch, finder: Find, runner: Run) -> list[str]:
    """Have NUT's programs read the files in a scratch directory, as the user nut. Returns complaints."""
    wrong: list[str] = []
    if "ups.conf" in files:
        wrong += drivers(ups_conf.parse(files["ups.conf"]), finder, scratch, runner)
        if not wrong:
            code, said = runner(["timeout", UPSD_SECONDS, *scratch.command, str(finder("upsd")), "-F"])
            complaints = _complaints(_UPSD, said)
            # 124: it came up, and was stopped when its time was over
            if code != 124 and not complaints:
                complaints = [f"it does not start: {_last(said)}"]
            wrong += [f"upsd: {words}" for words in complaints]
    check = [str(finder("upsmon")), "-P", NO_PID, "-K", "-f", str(scratch.folder / "upsmon.conf")]
    wrong += [f"upsmon.conf: {words}" for words in _ask(scratch, check, _UPSMON, runner)]
    if "upssched.conf" in files and (upssched := finder("upssched")):
        # an event that no AT line names: the file is read, and nothing runs
        check = ["UPSNAME=__none", "NOTIFYTYPE=__none", str(upssched)]
        wrong += [f"upssched.conf: {words}" for words in dict.fromkeys(_ask(scratch, check, _UPSSCHED, runner))]
    return wrong


def _ask(scratch: trust.Scratch, check: Sequence[str], pattern: re.Pattern[str], runner: Run) -> list[str]:
    """Run a program whose exit code says nothing. Returns its complaints, or why it could not be run."""
    code, said = runner([*scratch.command, *check])
    # 126, 127: env, and setpriv where it can't run env; setpriv's own failures say so
    not_run = [_last(said)] if code in (126, 127) or said.startswith("setpriv: ") else []
    return _complaints(pattern, said) or not_run


def drivers(conf: ups_conf.UpsConf, finder: Find, scratch: trust.Scratch, runner: Run) -> list[str]:
    """Let each section's driver read it in a scratch directory that has ups.conf. Returns complaints."""
    wrong = []
    for name, one in conf.sections.items():
        driver = dict(one.keys).get("driver") or ""
        where = f"ups.conf, [{name}]"
        path = finder(driver) if re.fullmatch(r"[A-Za-z0-9_-]+", driver) else None
        if path is None:
            wrong.append(f"{where}: this host has no driver {driver!r}. Its name may be wrong, or its package missing")
            continue
        code, said = runner([*scratch.command, str(path), "-a", name, "-V"])
        complaints = _complaints(_DRIVER, said)
        if code and not complaints:
            complaints = [_last(said)]
        wrong += [f"{where}: {words}" for words in complaints]
    return wrong


def _complaints(pattern: re.Pattern[str], said: str) -> list[str]:
    # behind a directive that they don't know the daemons print the rest of its line: a password, if it is a MONITOR misspelled
    told = [re.sub(r"(invalid directive \S+).*", r"\1", line.strip()) for line in said.splitlines()]
    return [line for line in told if pattern.fullmatch(line)]


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _deaf(upsd_conf: str) -> str:
    """Make an upsd.conf listen where it disturbs nobody: port 0 is any free one."""
    kept = [line for line in upsd_conf.splitlines() if not re.match(r"\s*\"?LISTEN\b", line)]
    return "\n".join([*kept, "LISTEN 127.0.0.1 0", ""])
