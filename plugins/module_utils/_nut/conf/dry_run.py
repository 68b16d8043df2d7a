# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A dry run: the host's own NUT reads a configuration in a scratch directory, before any file is installed.

NUT has no option for this, and the daemons' exit codes are unreliable (a driver that finds an unknown key prints
"Fatal error" and exits with 0), so their output is judged. Tested with the programs of Debian 12 (2.8.0) and 13 (2.8.1).

The programs run as the user nut, in a directory that root owns, so an attacker who already is nut gains nothing. The running
NUT is not touched: paths for state, pid and configuration point to the scratch directory, and upsd listens on a free loopback
port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..base import trust
from ..base.files import Owner
from ..base.process import Find, find_program
from ..base.systemd import Run
from . import nss, packages, ups_conf

# An unused process id. Without it, upsmon -K of 2.8.0 stops because another upsmon is running.
NO_PID = "4194303"
# upsd prints nothing when it is ready, so it runs for this long. It reads its files in the first few milliseconds.
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


def check_files(
    files: Mapping[str, str],
    runner: Run,
    finder: Find = find_program,
    owner: Owner = ("root", "nut"),
    *,
    # the path of a unix socket may have 107 bytes, so the scratch directory must have a short path
    room: Path = Path("/run"),
    tls: nss.TlsMaterial | None = None,
) -> list[str]:
    """Have the host's own NUT read the files, in a scratch directory. Return its complaints; none if NUT is not installed.

    tls: the certificates that the files refer to.
    """
    upsmon, server = finder("upsmon"), finder("upsd")
    if upsmon is None or ("ups.conf" in files and server is None):
        return []
    with trust.open_scratch(room, owner) as scratch:
        if tls:
            # before share_scratch(), while only root can read the directory
            try:
                nss.make_database(scratch.folder / "tls", tls, runner, owner)
            except nss.NssError as error:
                return [f"TLS: {error}"]
            files = {
                name: text.replace(str(nss.database_path(tls)), f"{scratch.folder}/tls") for name, text in files.items()
            }
        trust.share_scratch(
            scratch,
            {name: _without_listen(text) if name == "upsd.conf" else text for name, text in files.items()},
            owner,
        )
        return [
            complaint.replace(f"{scratch.folder}/", "")
            for complaint in _complaints_of_nut(files, scratch, finder, runner)
        ]


def _complaints_of_nut(files: Mapping[str, str], scratch: trust.Scratch, finder: Find, runner: Run) -> list[str]:
    """Have NUT's programs read the files in a scratch directory, as the user nut. Return their complaints."""
    wrong: list[str] = []
    if "ups.conf" in files:
        conf = ups_conf.parse_ups_conf(files["ups.conf"])
        wrong += [
            words for name in conf.sections for words in _complaints_of_driver(conf, name, finder, scratch, runner)
        ]
        if not wrong:
            code, said = runner(["timeout", UPSD_SECONDS, *scratch.command, str(finder("upsd")), "-F"])
            complaints = _find_complaints(_UPSD, said)
            # 124: upsd was running when timeout stopped it
            if code != 124 and not complaints:
                complaints = [f"does not start: {_last_output_line(said)}"]
            wrong += [f"upsd: {words}" for words in complaints]
    if "upsmon.conf" in files:
        check = [str(finder("upsmon")), "-P", NO_PID, "-K", "-f", str(scratch.folder / "upsmon.conf")]
        wrong += [f"upsmon.conf: {words}" for words in _complaints_of_program(scratch, check, _UPSMON, runner)]
    if "upssched.conf" in files and (upssched := finder("upssched")):
        # no AT line has this event, so upssched reads the file and runs nothing
        check = ["UPSNAME=__none", "NOTIFYTYPE=__none", str(upssched)]
        wrong += [
            f"upssched.conf: {words}"
            for words in dict.fromkeys(_complaints_of_program(scratch, check, _UPSSCHED, runner))
        ]
    return wrong


def _complaints_of_program(
    scratch: trust.Scratch, check: Sequence[str], pattern: re.Pattern[str], runner: Run
) -> list[str]:
    """Run a program whose exit code is unreliable. Return its complaints, or why it could not be run."""
    code, said = runner([*scratch.command, *check])
    # 126, 127: from env, or from setpriv if it can't run env; setpriv prefixes its own errors
    not_run = [_last_output_line(said)] if code in (126, 127) or said.startswith("setpriv: ") else []
    return _find_complaints(pattern, said) or not_run


def check_sections(
    text: str,
    names: Iterable[str],
    runner: Run,
    finder: Find = find_program,
    owner: Owner = ("root", "nut"),
    *,
    room: Path = Path("/run"),
) -> dict[str, list[str]]:
    """Have the drivers of some sections read an ups.conf, in a scratch directory. Return their complaints by section.

    Raises OSError, and LookupError if the user does not exist.
    """
    conf = ups_conf.parse_ups_conf(text)
    with trust.open_scratch(room, owner) as scratch:
        trust.share_scratch(scratch, {"ups.conf": text}, owner)
        found = {name: _complaints_of_driver(conf, name, finder, scratch, runner) for name in names}
        return {name: [words.replace(f"{scratch.folder}/", "") for words in said] for name, said in found.items()}


def _complaints_of_driver(
    conf: ups_conf.UpsConf, name: str, finder: Find, scratch: trust.Scratch, runner: Run
) -> list[str]:
    driver = dict(conf.sections[name].keys).get("driver") or ""
    where = f"ups.conf, [{name}]"
    path = finder(driver) if re.fullmatch(r"[A-Za-z0-9_-]+", driver) else None
    if path is None:
        package = packages.find_package(driver)
        source = f"It is not in this host's {package}, or {package} is not installed" if package else "Check its name"
        return [f"{where}: this host has no driver {driver!r}. {source}"]
    code, said = runner([*scratch.command, str(path), "-a", name, "-V"])
    complaints = _find_complaints(_DRIVER, said)
    if code and not complaints:
        complaints = [_last_output_line(said)]
    return [f"{where}: {words}" for words in complaints]


def _find_complaints(pattern: re.Pattern[str], said: str) -> list[str]:
    # after an unknown directive, the daemons print the rest of the line: with a misspelled MONITOR, a password
    lines = [re.sub(r"(invalid directive \S+).*", r"\1", line.strip()) for line in said.splitlines()]
    return [line for line in lines if pattern.fullmatch(line)]


def _last_output_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip() if lines else "no output"


def _without_listen(upsd_conf: str) -> str:
    """Return an upsd.conf that listens on a free loopback port."""
    kept = [line for line in upsd_conf.splitlines() if not re.match(r"\s*\"?LISTEN\b", line)]
    return "\n".join([*kept, "LISTEN 127.0.0.1 0", ""])
