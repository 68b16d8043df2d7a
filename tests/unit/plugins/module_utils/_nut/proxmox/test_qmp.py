# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import control, qmp
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

GREETING = b'{"QMP": {"version": {"qemu": {"major": 9}}, "capabilities": []}}\r\n'
EVENT = b'{"event": "POWERDOWN", "timestamp": {"seconds": 1}}\r\n'


class Qemu:
    """A QEMU that speaks QMP on the socket of VM 104."""

    def __init__(self, root: Path) -> None:
        (root / "run/qemu-server").mkdir(parents=True)
        self.root = root
        self.told: list[str] = []
        self.answer = b'{"return": {}}\r\n'
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(str(root / "run/qemu-server/104.qmp"))
        self.server.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _from = self.server.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                stream.write(GREETING)
                stream.flush()
                for line in stream:
                    command = json.loads(line)["execute"]
                    self.told.append(command)
                    if command == "quit":
                        break
                    stream.write(EVENT + (self.answer if command != "qmp_capabilities" else b'{"return": {}}\r\n'))
                    stream.flush()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Qemu]:
    new = Qemu(tmp_path)
    yield new
    new.server.close()


def test_qemu_is_told_to_power_down(qemu: Qemu) -> None:
    qmp.tell_qemu(104, qmp.POWERDOWN, qemu.root)
    assert qemu.told == ["qmp_capabilities", "system_powerdown"]


def test_qemu_that_ends_at_once_has_quit(qemu: Qemu) -> None:
    qmp.tell_qemu(104, qmp.QUIT, qemu.root)
    assert qemu.told == ["qmp_capabilities", "quit"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b'{"error": {"class": "GenericError", "desc": "no"}}\r\n', "QEMU refuses"),
        (b"[]\r\n", "QEMU gives no answer"),
        (b"nonsense\r\n", "Expecting value"),
        (EVENT * 200, "QEMU gives no answer"),
    ],
)
def test_bad_answer_is_reported(qemu: Qemu, answer: bytes, reason: str) -> None:
    qemu.answer = answer
    with pytest.raises(qmp.QmpError, match=reason):
        qmp.tell_qemu(104, qmp.POWERDOWN, qemu.root)


def test_missing_socket_is_reported(tmp_path: Path) -> None:
    with pytest.raises(qmp.QmpError, match=r"104\.qmp.*No such file"):
        qmp.tell_qemu(104, qmp.POWERDOWN, tmp_path)


@pytest.mark.parametrize(("hangs", "outcome"), [(False, "stopped"), (True, "forced")])
def test_vm_that_ha_cannot_stop_is_told_directly(qemu: Qemu, hangs: bool, outcome: str) -> None:
    now = 0.0

    def run(command: Sequence[str]) -> tuple[int, str]:
        nonlocal now
        words = list(command[3:])
        if words[0] == "test":
            return 1, ""
        if words[1] == "status":
            is_down = "quit" in qemu.told or ("system_powerdown" in qemu.told and not hangs)
            return 0, f"status: {'stopped' if is_down else 'running'}\n"
        assert words[1] == "shutdown"
        now += 12
        return 255, "Requesting HA stop for VM 104\ncfs-lock 'domain-ha' error: no quorum!\n"

    def pause(seconds: float) -> None:
        nonlocal now
        now += seconds

    found = control.stop_guest(run, Guest(104, "qm"), 60, qemu.root, clock=lambda: now, pause=pause)
    assert (found.outcome, found.by_ha) == (outcome, False)
    assert qemu.told.count("system_powerdown") == 1
