# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every query of upsd against a hostile upsd: each ends in time, as documented, and with printable text.

400 cases, the same in each run; HOSTILE_TIMES=10 makes 4000, HOSTILE_SEED=1 others.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import is_dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import quiet
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import client as net_client
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import connection as net_connection
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import errors as net_errors
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import snapshot
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import (
    observe,
    policy,
    stages_loop,
    watch,
    watch_loop,
)
from ansible_collections.homelab.nut.plugins.plugin_utils import certificates
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import ANSWERS, FakeUpsd
from ansible_collections.homelab.nut.tests.unit.support.hostile import make_cases

pytestmark = pytest.mark.slow

CA = certificates.make_ca("our CA", datetime.now(timezone.utc))
CASES = 400
# the timeout of a query, the longest time that a query may take, and how long an attack goes on
SECONDS = 0.15
LATEST = 10.0
PATIENCE = 30.0

Attack = Callable[[socket.socket, bytes, random.Random], bool]
NASTY = (
    b"\x1b[2J",
    b"\x1b]0;pwned\x07",
    b"\x9b31m",
    b"\x00",
    b"\x7f",
    b"\r",
    b"\t",
    b"\xff\xfe",
    b"\xc3\x28",
    b'"',
    b"\\",
    b"#",
)
NUMBERS = (b"9" * 400, b"-1", b"1e999", b"NaN", b"-0", b"0x10", b"\xb2", b"9" * 5000)
NAMES = (b"UPS", b"upsx", b'"a b"', b"\xff\xfe", b"[evil]", b"", b"$(reboot)", b'"\x1b[2J"', b"x" * 600)
LINES = (
    *(b"ERR\n", b"ERR \x1b[2J\n", b"ERR DATA-STALE \x1b]0;pwned\x07\n", b'ERR "a\\\n', b"ERR " + b"x" * 4000 + b"\n"),
    *(b"OK\n", b"\n" * 1000, b"VAR " * 500 + b"\n", bytes(range(256)) + b"\n", b'"' * 400 + b"\n", b"\\\n\\\n"),
    *(
        b"ERR " + word + b"\n"
        for word in (b"DATA-STALE", b"DRIVER-NOT-CONNECTED", b"VAR-NOT-SUPPORTED", b"ACCESS-DENIED")
    ),
)
RECORDS = (
    b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xf0",
    b"\x15\x03\x03\x00\x02\x02\x28",
    b'VAR ups ups.status "OL"\n' * 10,
    b"",
)


def silence(peer: socket.socket, _answer: bytes, _chance: random.Random) -> bool:
    return bool(peer.recv(1))


def drip(peer: socket.socket, answer: bytes, _chance: random.Random) -> bool:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        peer.sendall(answer[:1])
        time.sleep(0.01)
    return False


def pour(block: bytes, peer: socket.socket) -> bool:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        peer.sendall(block)
    return False


def endless_line(peer: socket.socket, answer: bytes, _chance: random.Random) -> bool:
    return pour(answer.rstrip(b"\n") * 500, peer)


def endless_list(peer: socket.socket, answer: bytes, _chance: random.Random) -> bool:
    lines = answer.splitlines(keepends=True)
    peer.sendall(lines[0])
    return pour(lines[1 % len(lines)] * 500, peer)


def torn(peer: socket.socket, answer: bytes, chance: random.Random) -> bool:
    peer.sendall(answer[: chance.randrange(len(answer))])
    return False


def reset(peer: socket.socket, answer: bytes, chance: random.Random) -> bool:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return torn(peer, answer, chance)


def reordered(peer: socket.socket, answer: bytes, chance: random.Random) -> bool:
    lines = answer.splitlines(keepends=True)
    peer.sendall(b"".join(chance.sample(lines, len(lines))))
    return True


def doubled(peer: socket.socket, answer: bytes, chance: random.Random) -> bool:
    peer.sendall(b"".join(line * chance.choice((1, 2, 3)) for line in answer.splitlines(keepends=True)))
    return True


def spoiled(peer: socket.socket, answer: bytes, chance: random.Random) -> bool:
    for _each in range(chance.randint(1, 5)):
        place = chance.choice([at for at, byte in enumerate(answer) if byte != ord("\n")])
        answer = answer[:place] + chance.choice(NASTY) + answer[place + chance.choice((0, 1)) :]
    peer.sendall(answer)
    return True


def numbers(peer: socket.socket, answer: bytes, chance: random.Random) -> bool:
    peer.sendall(re.sub(rb"[0-9]+", lambda _found: chance.choice(NUMBERS), answer))
    return True


def renamed(peer: socket.socket, answer: bytes, chance: random.Random) -> bool:
    peer.sendall(re.sub(rb"\bups\b|\bspare\b", lambda _found: chance.choice(NAMES), answer))
    return True


def said(peer: socket.socket, _answer: bytes, chance: random.Random) -> bool:
    peer.sendall(chance.choice(LINES))
    return True


def broken_tls(peer: socket.socket, _answer: bytes, chance: random.Random) -> bool:
    peer.sendall(b"OK STARTTLS\n")
    peer.recv(4096)
    peer.sendall(chance.choice((*RECORDS, chance.randbytes(200))))
    return False


SOFT = (reordered, doubled, spoiled, numbers, renamed, said)
# only few attacks that cause a timeout, to save time
ATTACKS: tuple[Attack, ...] = (*SOFT * 3, silence, drip, endless_line, endless_list, torn, torn, reset, broken_tls)


class HostileUpsd(FakeUpsd):
    """Answers a few requests correctly, then attacks, and goes on at random if there are more requests."""

    def prepare(self, chance: random.Random, attack: Attack) -> None:
        """Choose the attack on the next connection."""
        self.plan = chance, attack, chance.choice((0, 0, 0, 1, 1, 2, 3, 4, 5, 8, 12, 15))

    def _answer_client(self, connection: socket.socket) -> None:
        chance, attack, honest = self.plan
        connection.settimeout(PATIENCE)
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            for number, line in enumerate(lines):
                answer = self.answers.get(line.decode("latin-1").rstrip("\n"), "ERR UNKNOWN-COMMAND\n").encode(
                    "latin-1"
                )
                if number < honest:
                    connection.sendall(answer)
                elif not attack(connection, answer, chance):
                    return
                elif chance.random() < 0.5:
                    attack = chance.choice(SOFT)


class Asker:
    """The queries of the library's programs. Each returns its answer."""

    def __init__(self, port: int, conf: Path) -> None:
        self.port, self.conf = port, conf
        conf.write_text(f"LISTEN 127.0.0.1 {port}\n")

    def look(self) -> Any:
        with net_client.UpsdClient("127.0.0.1", self.port, SECONDS) as client:
            return snapshot.observe_upsd(client, None, ["192.0.2.3"], lambda name, _seconds: [name], snapshot.GATHER)

    def encrypted(self) -> Any:
        with net_client.UpsdClient(
            "127.0.0.1", self.port, SECONDS, net_connection.TlsOptions(CA.certificate, "localhost")
        ):
            raise AssertionError("the server has no certificate")

    def read_ups(self) -> Any:
        return observe.read_ups(policy.UpsAddress("ups", "127.0.0.1", self.port), time.monotonic, SECONDS)

    def ask_upsd(self) -> Any:
        return stages_loop.ask_upsd(policy.UpsAddress("ups", "127.0.0.1", self.port))

    def quiet(self) -> Any:
        # the answers are only compared, and never shown
        return len(quiet.ask_upsd("127.0.0.1", self.port, ["ups", "spare"], SECONDS))

    def watch(self) -> Any:
        memory = watch.WatchMemory("b")
        watcher = watch_loop.UpsdWatcher(self.conf, memory, print, print, lambda _command: (1, ""), lambda: None)
        try:
            return watcher.ask_statuses(SECONDS), watcher.memory.release
        finally:
            if watcher._client is not None:
                watcher._client.close()


FAILURES = (net_errors.UpsdFailure, grammar.Unencodable)
# query -> the exceptions that it may raise
ASKS: dict[str, tuple[type[Exception], ...]] = {
    **dict.fromkeys(("look", "encrypted", "read_ups"), FAILURES),
    **{"ask_upsd": (), "quiet": (OSError,), "watch": (*FAILURES, OSError)},
}


def list_texts(answer: Any) -> list[str]:
    """Return all texts in an answer."""
    if isinstance(answer, str):
        return [answer]
    parts = vars(answer) if is_dataclass(answer) else answer
    if isinstance(parts, Mapping):
        return [text for pair in parts.items() for part in pair for text in list_texts(part)]
    return [text for part in parts for text in list_texts(part)] if isinstance(parts, (list, tuple)) else []


@pytest.fixture
def server() -> Iterator[HostileUpsd]:
    hostile = HostileUpsd(
        {**ANSWERS, "STARTTLS": "OK STARTTLS\n", "GET VAR ups battery.runtime": 'VAR ups battery.runtime "900"\n'}, None
    )
    yield hostile
    hostile.close_server()


def test_queries_survive_a_hostile_upsd(server: HostileUpsd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_loop, "ASK_SECONDS", SECONDS)
    asker = Asker(server.port, tmp_path / "upsd.conf")
    faults: list[str] = []
    seen: set[tuple[str, bool]] = set()
    for case, chance in make_cases(CASES):
        attack, name = chance.choice(ATTACKS), chance.choice([*ASKS])
        server.prepare(chance, attack)
        began = time.monotonic()
        try:
            shown, came = list_texts(getattr(asker, name)()), True
        except ASKS[name] as error:
            shown, came = [str(error)], False
        except Exception as error:
            shown, came = [], False
            faults.append(f"{case}: {name} with {attack.__name__} raised {error!r}")
        seen.add((name, came))
        elapsed = time.monotonic() - began
        faults += [f"{case}: {name} with {attack.__name__} says {text!r}" for text in shown if not text.isprintable()]
        assert elapsed < LATEST, f"{case}: {name} with {attack.__name__}"
    assert faults == []
    # each query succeeded and failed at least once; ask_upsd returns None on failure, and the server has no certificate
    assert seen == {*((name, True) for name in ASKS), *((name, False) for name in ASKS)} - {
        ("encrypted", True),
        ("ask_upsd", False),
    }
