# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server that stands in for upsd, on a real socket."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ansible_collections.homelab.nut.plugins.module_utils._nut.net.client import UpsdClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ANSWERS = {
    "VER": "Network UPS Tools upsd 2.8.1 - http://www.networkupstools.org/\n",
    "NETVER": "1.3\n",
    "LIST UPS": 'BEGIN LIST UPS\nUPS ups "Rack \\"A\\" \\#1 \\\\"\nUPS spare "Description unavailable"\nEND LIST UPS\n',
    "LIST VAR ups": (
        "BEGIN LIST VAR ups\n"
        'VAR ups battery.charge "100"\n'
        'VAR ups ups.mfr "A \\"q\\" \\# \\\\ b"\n'
        'VAR ups ups.status "OL CHRG"\n'
        "END LIST VAR ups\n"
    ),
    "LIST VAR spare": "ERR DATA-STALE\n",
    "LIST CLIENT ups": "BEGIN LIST CLIENT ups\nCLIENT ups 127.0.0.1\nCLIENT ups ::ffff:192.0.2.3\nEND LIST CLIENT ups\n",
    "LIST CLIENT spare": "BEGIN LIST CLIENT spare\nEND LIST CLIENT spare\n",
    "GET NUMLOGINS ups": "NUMLOGINS ups 2\n",
    "GET NUMLOGINS spare": "ERR DATA-STALE\n",
    "GET VAR ups ups.status": 'VAR ups ups.status "OL CHRG"\n',
    "GET VAR ups nix": "ERR VAR-NOT-SUPPORTED\n",
    'GET VAR ups "x \\"\\#"': "ERR INVALID-ARGUMENT some words\n",
    "LIST VAR nix": "ERR UNKNOWN-UPS\n",
    "LIST VAR dead": "ERR DRIVER-NOT-CONNECTED\n",
    "LIST CLIENT secret": "ERR ACCESS-DENIED\n",
    "LIST RW ups": 'BEGIN LIST RW ups\nRW ups ups.delay.shutdown "020"\nRW ups ups.id "x y"\nEND LIST RW ups\n',
    "LIST CMD ups": "BEGIN LIST CMD ups\nCMD ups beeper.mute\nCMD ups load.off\nEND LIST CMD ups\n",
    "LIST CMD spare": "ERR DATA-STALE\n",
    "LIST ENUM ups ups.id": 'BEGIN LIST ENUM ups ups.id\nENUM ups ups.id "x y"\nENUM ups ups.id "z"\nEND LIST ENUM ups ups.id\n',
    "LIST RANGE ups ups.delay.shutdown": (
        "BEGIN LIST RANGE ups ups.delay.shutdown\n"
        'RANGE ups ups.delay.shutdown "-1" "300"\n'
        "END LIST RANGE ups ups.delay.shutdown\n"
    ),
    "GET TYPE ups ups.id": "TYPE ups ups.id RW ENUM STRING:32\n",
    "GET TYPE ups ups.delay.shutdown": "TYPE UPS ups.delay.shutdown RW RANGE NUMBER\n",
    "GET TYPE ups ups.odd": "TYPE ups ups.odd\n",
    "GET DESC ups ups.id": 'DESC ups ups.id "Description unavailable"\n',
    "GET DESC ups ups.delay.shutdown": 'DESC ups ups.delay.shutdown "Seconds"\n',
    "GET CMDDESC ups beeper.mute": 'CMDDESC ups beeper.mute "Be quiet"\n',
    "GET CMDDESC ups load.off": 'CMDDESC ups load.off "Description unavailable"\n',
    "GET UPSDESC ups": 'UPSDESC ups "Rack"\n',
    "USERNAME admin": "OK\n",
    'PASSWORD "a \\"b\\" \\#="': "OK\n",
    "SET TRACKING ON": "OK\n",
    "INSTCMD ups beeper.mute": "OK TRACKING 1d\n",
    "INSTCMD ups load.off": "ERR USERNAME-REQUIRED\n",
    "INSTCMD ups nix": "ERR CMD-NOT-SUPPORTED\n",
    'INSTCMD ups load.on.delay "a b"': "OK\n",
    "SET VAR ups a 0": "OK TRACKING 2d\n",
    "SET VAR ups a 1": "ERR READONLY\n",
    "SET VAR ups a 2": "ERR INVALID-VALUE\n",
    "SET VAR ups a 3": "ERR TOO-LONG\n",
    "SET VAR ups a 4": "ERR SET-FAILED\n",
    'SET VAR ups a "\\"\\\\\\# ="': "OK\n",
    'SET VAR ups a ""': "OK\n",
    "GET TRACKING pending": "PENDING\n",
    "GET TRACKING done": "SUCCESS\n",
    "GET TRACKING failed": "ERR FAILED\n",
    "GET TRACKING invalid": "ERR INVALID-ARGUMENT\n",
    "GET TRACKING unknown": "ERR UNKNOWN\n",
    "GET TRACKING denied": "ERR ACCESS-DENIED\n",
    "GET TRACKING off": "ERR FEATURE-NOT-CONFIGURED\n",
    "FSD ups": "OK FSD-SET\n",
    "PRIMARY ups": "OK PRIMARY-GRANTED\n",
    "PRIMARY old": "ERR UNKNOWN-COMMAND\n",
    "MASTER old": "OK MASTER-GRANTED\n",
    "PRIMARY denied": "ERR ACCESS-DENIED\n",
    "LOGIN ups": "OK\n",
    "LOGOUT": "OK Goodbye\n",
}


class FakeUpsd:
    """A server that answers each line with what ``answers`` holds for it, or hands the connection to ``misbehave``."""

    def __init__(self, answers: dict[str, str], misbehave: Callable[[socket.socket, str], None] | None) -> None:
        self.answers = answers
        self.misbehave = misbehave
        self.asked: list[str] = []
        self.looks = 0
        self.done = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept_clients)]
        self._threads[0].start()

    def _accept_clients(self) -> None:
        while True:
            try:
                connection, _unused = self._listener.accept()
            except OSError:
                return
            if self.done.is_set():
                connection.close()
                return
            self.looks += 1
            thread = threading.Thread(target=self._answer_client, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _answer_client(self, connection: socket.socket) -> None:
        with connection, connection.makefile("r", encoding="ascii", newline="\n") as lines:
            try:
                for line in lines:
                    request = line.rstrip("\n")
                    self.asked.append(request)
                    if self.misbehave is not None:
                        self.misbehave(connection, request)
                        return
                    connection.sendall(self.answers.get(request, "ERR UNKNOWN-COMMAND\n").encode("latin-1"))
            except OSError:
                pass  # the client had enough

    def close_server(self) -> None:
        self.done.set()
        # A last connection wakes up accept().
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        for thread in self._threads:
            thread.join(timeout=5)
            assert not thread.is_alive()
        self._listener.close()

    def open_client(self, timeout: float = 5.0) -> UpsdClient:
        return UpsdClient("127.0.0.1", self.port, timeout=timeout)


@contextmanager
def serve_answers(
    answers: dict[str, str] | None = None, misbehave: Callable[[socket.socket, str], None] | None = None
) -> Iterator[FakeUpsd]:
    """Yield a server that says what ANSWERS holds, and `answers` besides or instead."""
    server = FakeUpsd({**ANSWERS, **(answers or {})}, misbehave)
    try:
        yield server
    finally:
        server.close_server()


def make_answers(**status: str) -> dict[str, str]:
    """Return what upsd says of UPSes, each by its status, or by an ERR."""
    said = {"LIST UPS": "BEGIN LIST UPS\n" + "".join(f'UPS {name} "x"\n' for name in status) + "END LIST UPS\n"}
    for name, text in status.items():
        stale = text.startswith("ERR")
        variable = f'BEGIN LIST VAR {name}\nVAR {name} ups.status "{text}"\nEND LIST VAR {name}\n'
        said[f"LIST VAR {name}"] = f"{text}\n" if stale else variable
        said[f"GET NUMLOGINS {name}"] = f"{text}\n" if stale else f"NUMLOGINS {name} 1\n"
        said[f"LIST CLIENT {name}"] = f"BEGIN LIST CLIENT {name}\nCLIENT {name} 127.0.0.1\nEND LIST CLIENT {name}\n"
    return said
