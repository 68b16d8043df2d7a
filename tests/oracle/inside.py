# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The oracle itself. Runs in a container that has NUT: asked a line of JSON, it answers with one, until its input ends.

Nothing here knows what the answers should be, and all but `check` runs without the library.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path("/run/oracle")
PORT = 4000
SECONDS = 20  # that anything here may take
ENVIRONMENT = {**os.environ, "NUT_CONFPATH": str(HERE), "NUT_STATEPATH": str(HERE), "NUT_ALTPIDPATH": str(HERE)}
# the real programs; what stands in sbin are wrappers
PROGRAMS = Path("/lib/nut")
ENUMERATOR = Path("/usr/libexec/nut-driver-enumerator.sh")


def put(files: Mapping[str, str]) -> None:
    """Make the scratch directory anew, as NUT's user can use it."""
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for name, text in files.items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for path in (HERE, *HERE.rglob("*")):
        shutil.chown(path, "root", "nut")
        path.chmod(0o770)


def runner(command: Sequence[str], **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        command,
        check=False,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=SECONDS,
    )
    return done.returncode, done.stdout.decode("utf-8", "surrogateescape")


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon, with all of its processes, for a while. What it says goes into a file."""
    log = HERE / f"{Path(command[0]).name}.log"
    with log.open("wb") as said:
        daemon = subprocess.Popen(command, env=ENVIRONMENT, stdout=said, stderr=said, start_new_session=True)
    try:
        yield daemon
    finally:
        # it may be gone already
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def said(program: str) -> str:
    return (HERE / f"{program}.log").read_text(encoding="utf-8", errors="surrogateescape")


def connect(upsd: subprocess.Popen[bytes]) -> socket.socket | None:
    """Connect to upsd as soon as it listens. None if it ends first."""
    deadline = time.monotonic() + SECONDS
    while upsd.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", PORT), timeout=SECONDS)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
    return None


def talk(connection: socket.socket, lines: Sequence[str]) -> str:
    """Send lines, as they are, and return all that upsd answers until it hangs up; nothing if it dies meanwhile."""
    answer = b""
    with connection:
        try:
            connection.sendall("".join(f"{line}\n" for line in [*lines, "LOGOUT"]).encode("utf-8", "surrogateescape"))
            while received := connection.recv(65536):
                answer += received
        except ConnectionError:
            return ""
    return answer.decode("utf-8", "surrogateescape").removesuffix("OK Goodbye\n")


def ask_upsd(files: Mapping[str, str], conversations: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Let upsd read the files, and ask it: a connection a conversation. answers is None if it did not live to answer."""
    put({"upsd.users": "", "upsd.conf": f"LISTEN 127.0.0.1 {PORT}\nALLOW_NO_DEVICE true\n", **files})
    answers: list[str] = []
    with started(str(PROGRAMS / "upsd"), "-F") as upsd:
        for lines in conversations:
            connection = connect(upsd)
            answer = talk(connection, lines) if connection else ""
            if not answer:
                upsd.wait(SECONDS)
                return {"answers": None, "code": upsd.returncode, "said": said("upsd")}
            answers.append(answer)
    return {"answers": answers, "said": said("upsd")}


def run(files: Mapping[str, str], commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Run programs where they find the files. A command without a path is one of NUT's own."""
    put(files)
    return [runner([str(PROGRAMS / name) if "/" not in name else name, *words]) for name, *words in commands]


def log_in(files: Mapping[str, str], monitors: Sequence[str]) -> list[bool]:
    """Let real upsmons log in to a real upsd, one for each upsmon.conf, which watches w0, w1... Says who got in."""
    put({"upsd.conf": f"LISTEN 127.0.0.1 {PORT}\n", **files, **{f"w{n}.conf": one for n, one in enumerate(monitors)}})
    verdicts: dict[str, bool] = {}
    waiting = [f"w{n}" for n in range(len(monitors))]
    with ExitStack() as stack:
        upsd = stack.enter_context(started(str(PROGRAMS / "upsd"), "-F"))
        for name in waiting:
            # its file with the process id has the name of the program
            (HERE / name).symlink_to(PROGRAMS / "upsmon")
            stack.enter_context(started(str(HERE / name), "-F", "-f", str(HERE / f"{name}.conf")))
        deadline = time.monotonic() + SECONDS
        while waiting:
            time.sleep(0.1)
            if upsd.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{said('upsd')}\nno verdict: {[said(name) for name in waiting]}")
            inside = set(re.findall(r" logged into UPS \[(.*)\]", said("upsd")))
            for name in list(waiting):
                # an upsmon that fails says so: set username, set password, or login
                if name in inside or re.search(r"^(?:Set|Login).* failed", said(name), re.MULTILINE):
                    verdicts[name] = name in inside
                    waiting.remove(name)
    return [verdicts[f"w{n}"] for n in range(len(monitors))]


def dump(texts: Sequence[str], names: Sequence[Sequence[str]]) -> list[list[tuple[int, str]]]:
    """Let a driver tell all it knows: of each text, a ups.conf, a run for each of the names of its sections."""
    put(
        {
            f"{number}/{name}": one
            for number, text in enumerate(texts)
            for name, one in (("ups.conf", text), ("y.dev", ""))
        }
    )
    jobs = [(number, name) for number, own in enumerate(names) for name in own]

    def drive(job: tuple[int, str]) -> tuple[int, str]:
        return runner([str(PROGRAMS / "dummy-ups"), "-a", job[1], "-d", "1"], NUT_CONFPATH=str(HERE / str(job[0])))

    # each of them sleeps for three seconds
    with ThreadPoolExecutor(len(jobs)) as pool:
        done = iter(list(pool.map(drive, jobs)))
    return [[next(done) for _unused in own] for own in names]


def checksums(texts: Sequence[str], names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Ask nut-driver-enumerator for the checksums of sections: of each text those of its names, "" if it has none.

    The script has no option for it. Its functions are used as they are; its main program, behind them, is left out.
    """
    script = ENUMERATOR.read_text()
    functions = script[: script.index('\nUPSCONF_CHECKSUM_START="')]
    files = {f"{number}.conf": text for number, text in enumerate(texts)}
    asked = "".join(
        f"UPSCONF={HERE}/{number}.conf UPSCONF_DATA= UPSCONF_DATA_SDP=\n"
        + "".join(
            f'upsconf_getSection "{name}" >/dev/null && upsconf_getSection_MD5 "{name}" || echo\n' for name in own
        )
        for number, own in enumerate(names)
    )
    put({**files, "enumerator.sh": f"{functions}\n{asked}"})
    done = subprocess.run(
        ["sh", str(HERE / "enumerator.sh")],
        check=True,
        env={**ENVIRONMENT, "SERVICE_FRAMEWORK": "selftest"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=SECONDS,
    )
    sums = iter(done.stdout.split("\n"))
    return [[next(sums) for _unused in own] for own in names]


def check(files: Mapping[str, str], tls: Mapping[str, str]) -> list[str]:
    """Let the library check the files with this machine's NUT, as the module does on a host."""
    from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import dry_run, nss

    return dry_run.check_files(files, runner, tls=nss.TlsMaterial(**tls))


# What the user nut may do to whatever the library makes below /run while it checks files, again and again. Its arguments: names to
# put a file of its own in place of; names to put a link to one of root's files, or to one of root's directories, in place of.
ATTACK = """
import contextlib, json, sys
from pathlib import Path
names, links, folders = map(json.loads, sys.argv[1:])
conf = "CMDSCRIPT /run/evil/run\\nPIPEFN /run/nut/p\\nLOCKFN /run/nut/l\\nAT __none * EXECUTE x\\n"
while True:
    for scratch in [path for path in Path("/run").iterdir() if path.name.startswith(("nut-", "homelab-nut-"))]:
        for folder in (scratch, scratch / "state"):
            for name in names:
                with contextlib.suppress(OSError):
                    (folder / ".new").write_text(conf)
                    (folder / ".new").rename(folder / name)
            for name in links + folders:
                with contextlib.suppress(OSError):
                    (folder / ".link").symlink_to("/root/precious" if name in folders else "/root/victim")
                    (folder / ".link").rename(folder / name)
"""
AIMS: Mapping[str, tuple[list[str], list[str], list[str]]] = {
    "run something": (["upssched.conf"], [], []),
    "overwrite a file": (
        [],
        ["upsmon.conf", "upsd.users", "upsd.pid", "upsmon.pid", "usbhid-ups-ups", "dummy-ups-ups"],
        [],
    ),
    "own a directory": ([], [], ["tls", "tls.new"]),
}


def attack(files: Mapping[str, str], tls: Mapping[str, str], aim: str, times: int) -> dict[str, Any]:
    """Check files again and again while the user nut does what it can about it. Says what was read, run, lost and left behind."""
    evil, victim, precious = Path("/run/evil"), Path("/root/victim"), Path("/root/precious")
    for folder in (evil, precious):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    evil.chmod(0o777)
    (evil / "run").write_text("#!/bin/sh\nid -u >>/run/evil/ran\n")
    (evil / "run").chmod(0o755)
    (precious / "file").write_text("kept")
    victim.unlink(missing_ok=True)
    victim.write_text("kept")
    command = [sys.executable, "-c", ATTACK, *map(json.dumps, AIMS[aim])]
    attacker = subprocess.Popen(command, user="nut", group="nut", extra_groups=[])
    wrong: set[str] = set()
    try:
        for _time in range(times):
            try:
                wrong.update(check(files, tls))
            except OSError as error:
                wrong.add(f"{type(error).__name__}: {error.strerror}")
    finally:
        attacker.kill()
        attacker.wait()
    return {
        "wrong": sorted(wrong),
        "ran as": sorted(set((evil / "ran").read_text().split())) if (evil / "ran").exists() else [],
        "kept": [victim.read_text(), (precious / "file").read_text()],
        "owners": [victim.stat().st_gid, precious.stat().st_gid],
        "left": [path.name for path in Path("/run").iterdir() if path.name.startswith(("nut-", "homelab-nut-"))],
    }


def block(cure: str) -> dict[str, Any]:
    """Send upsd commands and read nothing, and let it be cured: by "limit", by "close", or not. Says whether it answers."""
    from ansible_collections.homelab.nut.plugins.module_utils._nut.net import upsd_process
    from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import watch

    put({"upsd.users": "", "upsd.conf": f"LISTEN 127.0.0.1 {PORT}\nALLOW_NO_DEVICE true\n", "ups.conf": ""})
    with started(str(PROGRAMS / "upsd"), "-F") as upsd, ExitStack() as stack:
        peer = stack.enter_context(connect(upsd) or socket.socket())
        process = upsd_process.UpsdProcess(upsd.pid)
        if cure == "limit":
            process.limit_write_time()
            # one that is accepted from now on has the limit, too
            peer = stack.enter_context(connect(upsd) or socket.socket())
        dropped = not _overfill(peer)
        before = _answers(2.0)
        seen = process.read_sockets()
        time.sleep(0.2)
        stuck = watch.blocking_connections(seen, process.read_sockets())
        if cure == "close":
            process.close_connections(frozenset(connection.inode for connection in stuck))
        return {"dropped": dropped, "before": before, "stuck": len(stuck), "after": _answers(5.0)}


def _overfill(peer: socket.socket) -> bool:
    """Send commands until nothing more can be sent for a second. Says whether upsd still has the connection."""
    peer.settimeout(1.0)
    try:
        while True:
            peer.sendall(b"LIST UPS\n" * 50)
    except socket.timeout:
        return True
    except ConnectionError:
        return False


def _answers(seconds: float) -> bool:
    with socket.create_connection(("127.0.0.1", PORT), timeout=seconds) as client:
        try:
            client.sendall(b"VER\n")
            return client.recv(100).startswith(b"Network UPS Tools")
        except socket.timeout:
            return False


OPERATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (ask_upsd, run, log_in, dump, checksums, check, attack, block)
}


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": OPERATIONS[request["operation"]](**request["arguments"])}
        except Exception:
            answer = {"failed": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
