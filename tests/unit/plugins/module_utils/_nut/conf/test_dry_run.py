# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import dry_run, nss
from ansible_collections.homelab.nut.tests.unit.support.nut_files import PRIMARY, SECONDARY, with_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUIET = {
    "usbhid-ups": (0, "Network UPS Tools - Generic HID driver 0.52 (2.8.1)\nUSB communication driver (libusb 1.0) 0.46\n"),
    # upsd prints this on every start, and is stopped by `timeout`
    "upsd": (124, "upsd 2.8.1\nlistening on 127.0.0.1 port 0\nCan't connect to UPS [ups] (usbhid-ups-ups): No such file\n"),
    # upsmon -K exits with 1 if no flag is set, which is fine
    "upsmon": (1, "Network UPS Tools upsmon 2.8.1\nUPS: ups@localhost:3493 (primary) (power value 1)\n"),
}  # fmt: skip


class Nut:
    """Simulates NUT's programs: exit code and output for each name. Records commands and files."""

    def __init__(self, **outputs: tuple[int, str]) -> None:
        self.outputs = {**QUIET, **{name.replace("_", "-"): words for name, words in outputs.items()}}
        self.run: list[list[str]] = []
        self.files: dict[str, str] = {}
        self.modes: dict[str, int] = {}

    def find(self, name: str) -> Path | None:
        return Path("/nut", name) if name in self.outputs else None

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        self.run.append(list(command))
        here = Path(next(word for word in command if word.startswith("NUT_CONFPATH=")).partition("=")[2])
        self.files = {path.name: path.read_text(encoding="utf-8") for path in here.iterdir() if path.is_file()}
        self.modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (here, *here.iterdir())}
        self.modes["."] = self.modes.pop(here.name)
        name = next(word for word in command if word.startswith("/nut/"))
        code, output = self.outputs[name.rpartition("/")[2]]
        return code, output.replace("HERE", str(here))


def find_nut_program(command: Sequence[str]) -> str:
    return next(word for word in command if word.startswith("/nut/"))


def check_files(nut: Nut, files: Mapping[str, str], room: Path) -> list[str]:
    wrong = dry_run.check_files(files, nut, nut.find, (os.getuid(), os.getgid()), room=room)
    assert not list(room.iterdir())
    return wrong


def test_programs_of_a_primary_check_the_files(tmp_path: Path) -> None:
    nut = Nut()
    assert check_files(nut, PRIMARY, tmp_path) == []
    here = nut.run[0][7].partition("=")[2]
    assert Path(here).parent == tmp_path
    assert re.fullmatch(r"homelab-nut-check-\w{8}", Path(here).name)
    as_nut = ["setpriv", f"--reuid={os.getuid()}", f"--regid={os.getgid()}", "--init-groups", "--no-new-privs", "--"]
    paths = [f"NUT_{name}={here}/state" for name in ("STATEPATH", "ALTPIDPATH", "PIDPATH")]
    environment = [*as_nut, "env", f"NUT_CONFPATH={here}", *paths]
    assert nut.run == [
        [*environment, "/nut/usbhid-ups", "-a", "ups", "-V"],
        ["timeout", "1.5", *environment, "/nut/upsd", "-F"],
        [*environment, "/nut/upsmon", "-P", "4194303", "-K", "-f", f"{here}/upsmon.conf"],
    ]
    # the check must not take upsd's port or leave files that others can read
    assert nut.files == {**PRIMARY, "upsd.conf": "MAXAGE 15\nLISTEN 127.0.0.1 0\n"}
    assert nut.modes == {".": 0o750, "state": 0o770, **dict.fromkeys(PRIMARY, 0o640)}


def test_programs_of_a_secondary_check_the_files(tmp_path: Path) -> None:
    nut = Nut()
    assert check_files(nut, SECONDARY, tmp_path) == []
    assert [find_nut_program(command) for command in nut.run] == ["/nut/upsmon"]
    assert nut.files == SECONDARY


COMPLAINTS = {
    "unknown key, exit code 0": (
        "usbhid_ups",
        (0, "Fatal error: 'nonsense' is not a valid variable name for this driver.\n\nLook in the man page or call\n"),
        ["ups.conf, [ups]: Fatal error: 'nonsense' is not a valid variable name for this driver."],
    ),
    "unknown flag": (
        "usbhid_ups",
        (0, "\nFatal error: 'x' is not a valid flag for this driver.\n"),
        ["ups.conf, [ups]: Fatal error: 'x' is not a valid flag for this driver."],
    ),
    "parse error": (
        "usbhid_ups",
        (0, "Parse error: HERE/ups.conf:3: Unbalanced word due to unescaped # in quotes\n"),
        ["ups.conf, [ups]: Parse error: ups.conf:3: Unbalanced word due to unescaped # in quotes"],
    ),
    "another fatal error, exit code 0": (
        "usbhid_ups", (0, "Fatal error: pollfreq is out of range\n"), ["ups.conf, [ups]: Fatal error: pollfreq is out of range"],
    ),
    "a driver with an unknown error": (
        "usbhid_ups", (1, "Generic HID driver 0.52\nsomething else\n"), ["ups.conf, [ups]: something else"],
    ),
    "a driver that fails silently": ("usbhid_ups", (1, " \n"), ["ups.conf, [ups]: no output"]),
    "upsd.conf": (
        "upsd",
        (124, "HERE/upsd.conf: invalid directive CERTFILE /x\n"),
        ["upsd: upsd.conf: invalid directive CERTFILE"],
    ),
    "upsd.users": (
        "upsd",
        (124, "Unknown upsmon type =\nUnrecognized user setting passwort\n"),
        ["upsd: Unknown upsmon type =", "upsd: Unrecognized user setting passwort"],
    ),
    "upsd: incomplete section": (
        "upsd", (124, "ignoring incomplete configuration for UPS [x]\n"), ["upsd: ignoring incomplete configuration for UPS [x]"],
    ),
    "upsd: duplicate password": ("upsd", (124, "Ignoring duplicate password for x\n"), ["upsd: Ignoring duplicate password for x"]),
    "upsd with a fatal error": (
        "upsd", (1, "Network UPS Tools upsd 2.8.1\nFatal error: at least one UPS must be defined in ups.conf\n"),
        ["upsd: Fatal error: at least one UPS must be defined in ups.conf"],
    ),
    "upsd with an unknown error": ("upsd", (1, "Network UPS Tools upsd 2.8.1\nCan't chdir\n"), ["upsd: does not start: Can't chdir"]),
    "upsd exits": ("upsd", (0, ""), ["upsd: does not start: no output"]),
    "upsmon.conf, exit code 1": (
        "upsmon", (1, "HERE/upsmon.conf line 7: invalid directive FINALDELY 5\n"),
        ["upsmon.conf: upsmon.conf line 7: invalid directive FINALDELY"],
    ),
    "upsmon.conf, exit code 0": ("upsmon", (0, "invalid notify type FOO\n"), ["upsmon.conf: invalid notify type FOO"]),
    "upsmon: invalid flag": ("upsmon", (1, "Invalid notify flag: FOO\n"), ["upsmon.conf: Invalid notify flag: FOO"]),
    "upsmon: no user": (
        "upsmon", (1, "Fatal error: unusable configuration\n"), ["upsmon.conf: Fatal error: unusable configuration"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("program", "output", "wrong"), COMPLAINTS.values(), ids=COMPLAINTS.keys())
def test_complaints_of_nut_are_reported(
    tmp_path: Path, program: str, output: tuple[int, str], wrong: list[str]
) -> None:
    assert check_files(Nut(**{program: output}), PRIMARY, tmp_path) == wrong


def test_upsd_is_not_run_if_a_driver_complains(tmp_path: Path) -> None:
    nut = Nut(usbhid_ups=(0, "Fatal error: 'x' is not a valid flag for this driver.\n"))
    check_files(nut, PRIMARY, tmp_path)
    assert "/nut/upsd" not in [word for command in nut.run for word in command]


@pytest.mark.parametrize("driver", ["usbhid-upps", "../../bin/sh", "", "a b"])
def test_missing_driver_is_reported(tmp_path: Path, driver: str) -> None:
    nut = Nut()
    (wrong,) = check_files(nut, with_text("ups.conf", "usbhid-ups", driver), tmp_path)
    assert wrong.startswith(f"ups.conf, [ups]: this host has no driver {driver!r}.")
    assert [find_nut_program(command) for command in nut.run] == ["/nut/upsmon"]


def test_driver_must_not_be_a_path(tmp_path: Path) -> None:
    """A driver's name that is a path is rejected before the search."""
    asked: list[str] = []

    def find(name: str) -> Path:
        asked.append(name)
        return Path("/nut", name)

    nut = Nut()
    files = with_text("ups.conf", "usbhid-ups", "../upsd")
    dry_run.check_files(files, nut, find, (os.getuid(), os.getgid()), room=tmp_path)
    assert set(asked) == {"upsmon", "upsd"}


def test_driver_of_each_section_is_run(tmp_path: Path) -> None:
    nut = Nut(dummy_ups=(0, "Fatal error: 'x' is not a valid flag for this driver.\n"))
    text = PRIMARY["ups.conf"] + "[dummy]\n    driver = dummy-ups\n    x\n"
    wrong = check_files(nut, {**PRIMARY, "ups.conf": text}, tmp_path)
    assert wrong == ["ups.conf, [dummy]: Fatal error: 'x' is not a valid flag for this driver."]
    assert [command[command.index("-a") - 1 :][:3] for command in nut.run[:2]] == [
        ["/nut/usbhid-ups", "-a", "ups"],
        ["/nut/dummy-ups", "-a", "dummy"],
    ]


@pytest.mark.parametrize("absent", ["upsmon", "upsd"])
def test_missing_nut_skips_the_check(tmp_path: Path, absent: str) -> None:
    """In check mode before the first installation, there is no NUT to check the files."""
    nut = Nut()
    del nut.outputs[absent]
    assert check_files(nut, PRIMARY, tmp_path) == []
    assert nut.run == []


def test_secondary_needs_no_upsd(tmp_path: Path) -> None:
    nut = Nut(upsmon=(1, "invalid directive X\n"))
    del nut.outputs["upsd"]
    assert check_files(nut, SECONDARY, tmp_path) == ["upsmon.conf: invalid directive X"]


@pytest.mark.parametrize("line", ["LISTEN 0.0.0.0", '"LISTEN" ::', "   LISTEN 192.0.2.1 1234", "\tLISTEN *"])
def test_upsd_listens_on_a_free_port(tmp_path: Path, line: str) -> None:
    nut = Nut()
    check_files(nut, {**PRIMARY, "upsd.conf": f"{line}\n# LISTEN here\nMAXAGE 15\n"}, tmp_path)
    assert nut.files["upsd.conf"] == "# LISTEN here\nMAXAGE 15\nLISTEN 127.0.0.1 0\n"


def test_comments_may_have_any_characters(tmp_path: Path) -> None:
    nut = Nut()
    files = {name: f"# Büro\n{text}" for name, text in PRIMARY.items()}
    assert check_files(nut, files, tmp_path) == []
    assert nut.files["ups.conf"] == files["ups.conf"]


def test_interrupted_check_leaves_no_files(tmp_path: Path) -> None:
    def cut(_command: Sequence[str]) -> tuple[int, str]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dry_run.check_files(PRIMARY, cut, Nut().find, (os.getuid(), os.getgid()), room=tmp_path)
    assert not list(tmp_path.iterdir())


UPSSCHED = {
    "CMDSCRIPT must be set before any ATs in the config file!\n": "CMDSCRIPT must be set before any ATs in the config file!",
    "upssched.conf: invalid directive AT ONBATT\n": "upssched.conf: invalid directive AT",
    # printed on both streams
    "Parse error: HERE/upssched.conf:1: Unbalanced word\n" * 2: "Parse error: upssched.conf:1: Unbalanced word",
}


@pytest.mark.parametrize(("output", "wrong"), UPSSCHED.items())
def test_upssched_checks_upssched_conf(tmp_path: Path, output: str, wrong: str) -> None:
    files = {**SECONDARY, "upssched.conf": "CMDSCRIPT /bin/true\n"}
    nut = Nut(upssched=(0, output))
    assert check_files(nut, files, tmp_path) == [f"upssched.conf: {wrong}"]
    # an event without an AT line
    assert nut.run[-1][-3:] == ["UPSNAME=__none", "NOTIFYTYPE=__none", "/nut/upssched"]
    assert check_files(Nut(upssched=(0, "")), files, tmp_path) == []


@pytest.mark.parametrize(
    ("program", "code", "output"),
    [
        ("upsmon", 1, "setpriv: setresuid failed: Operation not permitted"),
        ("upsmon", 126, "env: '/nut/upsmon': Permission denied"),
        ("upssched", 127, "env: '/nut/upssched': No such file or directory"),
    ],
)
def test_program_that_cannot_run_is_reported(tmp_path: Path, program: str, code: int, output: str) -> None:
    files = {**SECONDARY, "upssched.conf": "CMDSCRIPT /bin/true\n"}
    nut = Nut(upssched=(0, "")) if program == "upsmon" else Nut()
    nut.outputs[program] = (code, f"{output}\n")
    assert check_files(nut, files, tmp_path) == [f"{program}.conf: {output}"]


TLS = nss.TlsMaterial("ca", "certificate", "key", "pve")


def test_certificates_are_checked_in_a_scratch_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(folder: Path, tls: nss.TlsMaterial, *_arguments: object) -> None:
        assert tls is TLS
        made.append(folder)

    monkeypatch.setattr(nss, "make_database", make)
    files = {
        **PRIMARY,
        "upsd.conf": f'CERTPATH "{nss.database_path(TLS)}"\n',
        "upsmon.conf": f"CERTPATH {nss.database_path(TLS)}\n",
    }
    nut = Nut()
    assert dry_run.check_files(files, nut, nut.find, (os.getuid(), os.getgid()), room=tmp_path, tls=TLS) == []
    assert made[0].parent.parent == tmp_path
    assert nut.files["upsd.conf"].startswith(f'CERTPATH "{made[0]}"\n')
    assert nut.files["upsmon.conf"] == f"CERTPATH {made[0]}\n"
    assert not list(tmp_path.iterdir())


def test_unusable_certificates_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_arguments: object) -> None:
        raise nss.NssError("the key does not fit")

    monkeypatch.setattr(nss, "make_database", make)
    nut = Nut()
    owner = (os.getuid(), os.getgid())
    assert dry_run.check_files(PRIMARY, nut, nut.find, owner, room=tmp_path, tls=TLS) == ["TLS: the key does not fit"]
    assert nut.run == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("line", ["monitor ups@x 1 u tOpSeCrEt secondary", "certident nick tOpSeCrEt"])
def test_password_in_an_invalid_line_is_not_shown(tmp_path: Path, line: str) -> None:
    """NUT prints the whole line, and a misspelled MONITOR line has a password."""
    nut = Nut(upsmon=(1, f"HERE/upsmon.conf line 7: invalid directive {line}\n"))
    (output,) = check_files(nut, SECONDARY, tmp_path)
    assert output == f"upsmon.conf: upsmon.conf line 7: invalid directive {line.split(maxsplit=1)[0]}"
