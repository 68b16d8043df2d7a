# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import quiet, quiet_note
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.vocabulary import ABSENT
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, serve_answers
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

ONLINE = {"GET VAR ups ups.status": 'VAR ups ups.status "OL CHRG"\n', "GET VAR rack ups.status": "ERR DATA-STALE\n"}
# modules that Python has loaded before the first line of an archive
IN_ANY_CASE = ("os", "os.path", "stat", "_stat", "genericpath", "posixpath", "_collections_abc")
EXPECTED = {"ups": "OL", "rack": "ERR DATA-STALE"}


class Host:
    """A bus, a file, an upsd, and a note that matches them."""

    def __init__(self, folder: Path, server: FakeUpsd) -> None:
        self.folder = folder
        self.server = server
        self.conf, self.missing, self.note = folder / "ups.conf", folder / "pending", folder / "quiet"
        self.conf.write_text("[ups]\n")
        self.plug("1-1", 4)
        self.leave()

    def plug(self, name: str, number: int) -> None:
        device = self.folder / "sys/bus/usb/devices" / name
        device.mkdir(parents=True, exist_ok=True)
        (device / "uevent").write_text(f"BUSNUM=001\nDEVNUM={number:03d}\n")

    def leave(self, until: float = 3600, answers: dict[str, str] | None = None) -> None:
        sysfs = str(self.folder / "sys")
        files = {str(path): quiet.identify_file(str(path)) for path in (self.conf, self.missing)}
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        place = ("127.0.0.1", self.server.port)
        said = EXPECTED if answers is None else answers
        self.note.write_text(
            quiet_note.compose_note(sysfs, quiet.describe_bus(sysfs), files, place, said, until=now + until)
        )

    @property
    def is_quiet(self) -> bool:
        return quiet.is_quiet(str(self.note))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with serve_answers(ONLINE) as server:
        yield Host(tmp_path, server)


@pytest.fixture
def lonely(tmp_path: Path) -> Host:
    """A host without a running upsd."""
    with serve_answers(ONLINE) as server:
        return Host(tmp_path, server)


def test_unchanged_host_is_quiet(host: Host) -> None:
    assert host.is_quiet
    assert host.is_quiet
    assert host.server.asked == ["GET VAR ups ups.status", "GET VAR rack ups.status"] * 2


def test_charging_flag_is_ignored(host: Host) -> None:
    host.server.answers["GET VAR ups ups.status"] = 'VAR ups ups.status "OL"\n'
    assert host.is_quiet


@pytest.mark.parametrize(
    "answer",
    [
        'VAR ups ups.status "OB DISCHRG"\n',
        'VAR ups ups.status "OL CAL"\n',
        'VAR ups ups.status "OL LB"\n',
        'VAR ups ups.status "WAIT"\n',
        'VAR ups ups.status ""\n',
        "ERR DATA-STALE\n",
        "ERR DRIVER-NOT-CONNECTED\n",
        "ERR UNKNOWN-UPS\n",
        "OL\n",
        "\n",
    ],
)
def test_changed_status_is_not_quiet(host: Host, answer: str) -> None:
    host.server.answers["GET VAR ups ups.status"] = answer
    assert not host.is_quiet


def test_reappeared_ups_is_not_quiet(host: Host) -> None:
    host.server.answers["GET VAR rack ups.status"] = 'VAR rack ups.status "OL"\n'
    assert not host.is_quiet


def test_known_battery_status_is_quiet(host: Host) -> None:
    host.server.answers["GET VAR ups ups.status"] = 'VAR ups ups.status "OB DISCHRG"\n'
    host.leave(answers={"ups": "OB", "rack": "ERR DATA-STALE"})
    assert host.is_quiet


def test_new_device_is_not_quiet(host: Host) -> None:
    host.plug("1-2", 5)
    assert not host.is_quiet


def test_replugged_device_is_not_quiet(host: Host) -> None:
    host.plug("1-1", 5)
    assert not host.is_quiet


def test_removed_device_is_not_quiet(host: Host) -> None:
    (host.folder / "sys/bus/usb/devices/1-1/uevent").unlink()
    assert not host.is_quiet


def test_missing_bus_is_not_quiet(host: Host) -> None:
    (host.folder / "sys").rename(host.folder / "gone")
    assert not host.is_quiet


def test_file_with_other_time_is_not_quiet(host: Host) -> None:
    os.utime(host.conf, ns=(1, 1))
    assert not host.is_quiet


def test_file_with_other_size_is_not_quiet(host: Host) -> None:
    seen = host.conf.stat()
    host.conf.write_text("[other]\n")
    os.utime(host.conf, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert not host.is_quiet


def test_file_with_other_inode_is_not_quiet(host: Host) -> None:
    seen = host.conf.stat()
    other = host.folder / "new"
    other.write_text(host.conf.read_text())
    os.utime(other, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    other.replace(host.conf)
    assert not host.is_quiet


def test_removed_file_is_not_quiet(host: Host) -> None:
    host.conf.unlink()
    assert not host.is_quiet


def test_new_file_is_not_quiet(host: Host) -> None:
    host.missing.write_text("[]")
    assert not host.is_quiet


def test_expired_note_is_not_quiet(host: Host) -> None:
    host.leave(until=0)
    assert not host.is_quiet


def test_without_upses_upsd_is_not_asked(lonely: Host) -> None:
    lonely.leave(answers={})
    assert lonely.is_quiet


def test_unreachable_upsd_is_not_quiet(lonely: Host) -> None:
    assert not lonely.is_quiet


def test_missing_note_is_not_quiet(host: Host) -> None:
    host.note.unlink()
    assert not host.is_quiet


def test_symlinked_note_is_not_read(host: Host) -> None:
    host.note.rename(host.folder / "elsewhere")
    host.note.symlink_to(host.folder / "elsewhere")
    assert not host.is_quiet


def test_fifo_does_not_block(host: Host) -> None:
    host.note.unlink()
    os.mkfifo(host.note)
    assert not host.is_quiet


def test_truncated_note_is_not_quiet(host: Host) -> None:
    whole = host.note.read_bytes()
    for length in range(len(whole)):
        host.note.write_bytes(whole[:length])
        assert not host.is_quiet, whole[:length]


@given(st.binary(max_size=200))
def test_random_text_is_not_quiet(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    note = tmp_path_factory.mktemp("any") / "quiet"
    note.write_bytes(data)
    assert not quiet.is_quiet(str(note))


@given(st.integers(0, 1000), st.integers(1, 255))
def test_any_changed_byte_is_not_quiet(
    tmp_path_factory: pytest.TempPathFactory, position: int, difference: int
) -> None:
    """Random changes of the note never raise, and only irrelevant ones are quiet."""
    folder = tmp_path_factory.mktemp("byte")
    sysfs = str(folder)
    conf = folder / "ups.conf"
    conf.write_text("x")
    files = {str(conf): quiet.identify_file(str(conf)), str(folder / "none"): "-"}
    whole = bytearray(
        quiet_note.compose_note(sysfs, quiet.describe_bus(sysfs), files, ("-", 0), {}, until=1e9).encode()
    )
    note = folder / "quiet"
    note.write_bytes(whole)
    assert quiet.is_quiet(str(note))
    position %= len(whole)
    line = whole[:position].count(b"\n")
    whole[position] ^= difference
    note.write_bytes(whole)
    # the changes that do not matter: a later time, an upsd that is not asked, another missing path, another folder without a bus
    harmless = line in (1, 2, 4, 5)
    assert harmless or not quiet.is_quiet(str(note))
    quiet.is_quiet(str(note))


def test_silent_upsd_times_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(TimeoutError):
            quiet.ask_upsd("127.0.0.1", port, ["ups"], seconds=0.05)


def test_endless_upsd_times_out() -> None:
    def drip(connection: socket.socket, _line: str) -> None:
        for _byte in range(1000):
            connection.sendall(b"x")
            time.sleep(0.01)

    with serve_answers(misbehave=drip) as server, pytest.raises(OSError, match=r".*"):
        quiet.ask_upsd("127.0.0.1", server.port, ["ups"], seconds=0.2)


def test_flooding_upsd_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet, "LIMIT", 1000)

    def flood(connection: socket.socket, _line: str) -> None:
        connection.sendall(b"x" * 5000)
        connection.sendall(b"\n")

    with serve_answers(misbehave=flood) as server, pytest.raises(TimeoutError):
        quiet.ask_upsd("127.0.0.1", server.port, ["ups", "rack"], seconds=5)


def test_closed_connection_is_not_quiet() -> None:
    def hang_up(connection: socket.socket, _line: str) -> None:
        connection.shutdown(socket.SHUT_RDWR)

    with serve_answers(misbehave=hang_up) as server, pytest.raises(OSError, match=r"hung up|reset"):
        quiet.ask_upsd("127.0.0.1", server.port, ["ups"])


KINDS = {
    'VAR ups ups.status "OL"': "OL",
    'VAR ups ups.status "CHRG OL"': "OL",
    'VAR ups ups.status "LB OB DISCHRG"': "OB LB",
    'VAR ups ups.status "FSD OB LB"': "OB LB FSD",
    'VAR ups ups.status "OL BYPASS"': "OL BYPASS",
    'VAR ups ups.status "OL OFF"': "OL OFF",
    'VAR ups ups.status "OL CAL"': "OL CAL",
    'VAR ups ups.status "WAIT"': "WAIT",
    'VAR ups ups.status "OLX"': "",
    f'VAR ups ups.status "{ABSENT}"': "",
    "ERR DATA-STALE": "ERR DATA-STALE",
    'ERR "OL"': 'ERR "OL"',
    'VAR ups ups.status "OL" "OB"': "?",
    "OL": "?",
    "": "?",
}


@pytest.mark.parametrize(("answer", "kind"), KINDS.items(), ids=KINDS.keys())
def test_classified_answers(answer: str, kind: str) -> None:
    assert quiet.classify_answer(answer) == kind


@pytest.mark.parametrize("name", ["a b", "a\nLIST", 'a"', "", "é", "a.b"])
def test_note_refuses_name_that_breaks_a_line(name: str) -> None:
    with pytest.raises(ValueError, match="a line of the note"):
        quiet_note.compose_note("/sys", "", {}, ("127.0.0.1", 1), {name: "OL"}, until=1)


def test_note_refuses_path_that_breaks_a_line() -> None:
    with pytest.raises(ValueError, match="a line of the note"):
        quiet_note.compose_note("/sys", "", {"/etc/a\nfile - b": "-"}, ("127.0.0.1", 1), {}, until=1)


def test_quiet_imports_only_builtin_modules() -> None:
    """Importing one module takes about as long as the whole run may. quiet.py is run as in start.sh, without its package."""
    code = (
        f"import sys; before = set(sys.modules); exec(open({quiet.__file__!r}).read()); "
        "print(*sorted(set(sys.modules) - before))"
    )
    printed = subprocess.run([sys.executable, "-IS", "-c", code], check=True, capture_output=True, text=True).stdout
    loaded = {name for name in printed.split() if name not in IN_ANY_CASE}
    assert loaded <= {"__future__", "_socket", "time"}
