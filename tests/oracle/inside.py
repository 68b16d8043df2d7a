# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The part that runs in a container with NUT: it reads requests and writes answers, one line of JSON each, until its input ends.

Nothing here knows the expected answers. Only `check_files`, `attack_checks` and `block_upsd` use the library.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

HERE = Path("/run/oracle")
PORT = 4000
SECONDS = 20  # time limit of each step
ENVIRONMENT = {**os.environ, "NUT_CONFPATH": str(HERE), "NUT_STATEPATH": str(HERE), "NUT_ALTPIDPATH": str(HERE)}
# where NUT's own programs are; in Debian 12 and 13, those in sbin are wrappers
PLACES = ("/lib/nut", "/usr/libexec/nut", "/usr/sbin")
ENUMERATOR = Path("/usr/libexec/nut-driver-enumerator.sh")


def find_nut(name: str) -> str:
    """Return the path of a program of NUT."""
    return next(str(path) for place in PLACES if (path := Path(place, name)).exists())


def write_files(files: Mapping[str, str]) -> None:
    """Make a fresh scratch directory with these files, accessible to the user nut."""
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for name, text in files.items():
        path = HERE / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    for path in (HERE, *HERE.rglob("*")):
        shutil.chown(path, "root", "nut")
        path.chmod(0o770)


def run_program(command: Sequence[str], **environment: str) -> tuple[int, str]:
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
def run_daemon(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon with its output in a log file, and kill all of its processes at the end."""
    log = HERE / f"{Path(command[0]).name}.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(command, env=ENVIRONMENT, stdout=output, stderr=output, start_new_session=True)
    try:
        yield daemon
    finally:
        # it may have ended already
        with suppress(ProcessLookupError):
            os.killpg(daemon.pid, signal.SIGKILL)
        daemon.wait()


def read_log(program: str) -> str:
    return (HERE / f"{program}.log").read_text(encoding="utf-8", errors="surrogateescape")


def connect_to_upsd(upsd: subprocess.Popen[bytes]) -> socket.socket | None:
    """Connect to upsd as soon as it listens. Return None if it ends first."""
    deadline = time.monotonic() + SECONDS
    while upsd.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", PORT), timeout=SECONDS)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)
    return None


def send_lines(connection: socket.socket, lines: Sequence[str]) -> str:
    """Send lines unchanged and return upsd's answers until it closes the connection; "" if upsd dies."""
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
    """Start upsd with these files and hold the conversations, one connection each. `answers` is None if upsd died."""
    write_files({"upsd.users": "", "upsd.conf": f"LISTEN 127.0.0.1 {PORT}\nALLOW_NO_DEVICE true\n", **files})
    answers: list[str] = []
    with run_daemon(find_nut("upsd"), "-F") as upsd:
        for lines in conversations:
            connection = connect_to_upsd(upsd)
            answer = send_lines(connection, lines) if connection else ""
            if not answer:
                upsd.wait(SECONDS)
                return {"answers": None, "code": upsd.returncode, "output": read_log("upsd")}
            answers.append(answer)
    return {"answers": answers, "output": read_log("upsd")}


def run_programs(files: Mapping[str, str], commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Run programs that read these files. A command without a path is a program of NUT."""
    write_files(files)
    return [run_program([find_nut(name) if "/" not in name else name, *words]) for name, *words in commands]


def log_in(files: Mapping[str, str], monitors: Sequence[str]) -> list[bool]:
    """Run upsd and one upsmon for each text of upsmon.conf; they monitor w0, w1... Return which of them logged in."""
    write_files(
        {"upsd.conf": f"LISTEN 127.0.0.1 {PORT}\n", **files, **{f"w{n}.conf": text for n, text in enumerate(monitors)}}
    )
    verdicts: dict[str, bool] = {}
    waiting = [f"w{n}" for n in range(len(monitors))]
    with ExitStack() as stack:
        upsd = stack.enter_context(run_daemon(find_nut("upsd"), "-F"))
        for name in waiting:
            # upsmon's pid file has the name of the program
            (HERE / name).symlink_to(find_nut("upsmon"))
            stack.enter_context(run_daemon(str(HERE / name), "-F", "-f", str(HERE / f"{name}.conf")))
        deadline = time.monotonic() + SECONDS
        while waiting:
            time.sleep(0.1)
            if upsd.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{read_log('upsd')}\nno verdict: {[read_log(name) for name in waiting]}")
            inside = set(re.findall(r" logged into UPS \[(.*)\]", read_log("upsd")))
            for name in list(waiting):
                # an upsmon that fails logs it: set username, set password, or login
                if name in inside or re.search(r"^(?:Set|Login).* failed", read_log(name), re.MULTILINE):
                    verdicts[name] = name in inside
                    waiting.remove(name)
    return [verdicts[f"w{n}"] for n in range(len(monitors))]


class UpsdScript(socketserver.StreamRequestHandler):
    """A upsd of which each answer to a question for ups.status is the next word of a script; the last one stays."""

    scripts: ClassVar[dict[str, list[str]]] = {}  # of each UPS
    asked: ClassVar[dict[str, int]] = {}  # how often it was asked for

    def handle(self) -> None:
        for line in self.rfile:
            words = line.decode().split()
            answer = "OK"
            if words[:2] == ["GET", "VAR"] and words[3] == "ups.status":
                number = self.asked[words[2]]
                script = self.scripts[words[2]]
                answer = f'VAR {words[2]} ups.status "{script[min(number, len(script) - 1)]}"'
                self.asked[words[2]] = number + 1
            elif words[0] in ("GET", "LIST"):
                answer = "ERR VAR-NOT-SUPPORTED"
            elif words[0] == "STARTTLS":
                answer = "ERR FEATURE-NOT-CONFIGURED"
            self.wfile.write(f"{answer}\n".encode())


def play_statuses(scripts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Have one upsmon watch a UPS for each script, of words of ups.status. Return its exit code, None if it lives, and its output."""
    names = [f"u{number}" for number in range(len(scripts))]
    UpsdScript.scripts = dict(zip(names, map(list, scripts)))
    UpsdScript.asked = dict.fromkeys(names, 0)
    monitors = "".join(f"MONITOR {name}@127.0.0.1:{PORT} 1 a b secondary\n" for name in names)
    settings = "MINSUPPLIES 1\nSHUTDOWNCMD /bin/true\nPOLLFREQ 1\nPOLLFREQALERT 1\nDEADTIME 5\n"
    silent = "".join(
        f"NOTIFYFLAG {kind} IGNORE\n" for kind in ("ONLINE", "ONBATT", "COMMOK", "COMMBAD", "OTHER", "NOTOTHER")
    )
    write_files({"upsmon.conf": f"{monitors}{settings}{silent}"})
    # of the upsmon of an earlier call, which was killed
    for pid_file in [*Path("/run").glob("upsmon*.pid"), *Path("/run/nut").glob("upsmon*.pid")]:
        pid_file.unlink()
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with ExitStack() as stack:
        server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", PORT), UpsdScript))
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack.callback(server.shutdown)
        upsmon = stack.enter_context(run_daemon(find_nut("upsmon"), "-F"))
        deadline = time.monotonic() + SECONDS
        # one more question, because it answers for the one before it
        while any(UpsdScript.asked[name] <= len(script) for name, script in UpsdScript.scripts.items()):
            if upsmon.poll() is not None:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"upsmon asked too seldom: {UpsdScript.asked}\n{read_log('upsmon')}")
            time.sleep(0.1)
        return {"code": upsmon.poll(), "output": read_log("upsmon")}


def dump_variables(texts: Sequence[str], names: Sequence[Sequence[str]]) -> list[list[tuple[int, str]]]:
    """Return a driver's exit code and variables for each section (`names`) of each text of ups.conf."""
    write_files(
        {
            f"{number}/{name}": content
            for number, text in enumerate(texts)
            for name, content in (("ups.conf", text), ("y.dev", ""))
        }
    )
    jobs = [(number, name) for number, own in enumerate(names) for name in own]

    def run_driver(job: tuple[int, str]) -> tuple[int, str]:
        return run_program([find_nut("dummy-ups"), "-a", job[1], "-d", "1"], NUT_CONFPATH=str(HERE / str(job[0])))

    # in parallel, because each sleeps for three seconds
    with ThreadPoolExecutor(len(jobs)) as pool:
        done = iter(list(pool.map(run_driver, jobs)))
    return [[next(done) for _unused in own] for own in names]


def read_checksums(texts: Sequence[str], names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return nut-driver-enumerator's checksums of the sections `names` of each text; "" for a section that is missing.

    The script has no option for that, so use its functions without the main program behind them.
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
    write_files({**files, "enumerator.sh": f"{functions}\n{asked}"})
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


def check_files(files: Mapping[str, str], tls: Mapping[str, str]) -> list[str]:
    """Have the library check the files with the NUT of this container, as the module does on a host."""
    from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import dry_run, nss

    return dry_run.check_files(files, run_program, tls=nss.TlsMaterial(**tls))


# The user nut attacks the directories that the library makes below /run while it checks files. Arguments: names to replace by a
# file of nut; names to replace by a link to a file of root; names to replace by a link to a directory of root.
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


def attack_checks(files: Mapping[str, str], tls: Mapping[str, str], aim: str, times: int) -> dict[str, Any]:
    """Check files `times` times under attack. Return the wrong findings, what nut's script ran as, what was lost and left behind."""
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
                wrong.update(check_files(files, tls))
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


def look_up_primary(known: bool, seconds: float) -> int:
    """Return the exit code of upsc for a upsd that does not run, with a dead name server; 124 if it does not end in time."""
    Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    try:
        hosts.write_text(before + ("127.0.0.1 primary.test\n" if known else ""))
        return run_program(["timeout", str(seconds), "upsc", "ups@primary.test:34999"])[0]
    finally:
        hosts.write_text(before)


def block_upsd(cure: str) -> dict[str, Any]:
    """Block upsd by never reading its answers, and apply a cure: "limit", "close", or "". Return whether it answers before and after."""
    from ansible_collections.homelab.nut.plugins.module_utils._nut.net import upsd_process
    from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import watch

    write_files({"upsd.users": "", "upsd.conf": f"LISTEN 127.0.0.1 {PORT}\nALLOW_NO_DEVICE true\n", "ups.conf": ""})
    with run_daemon(find_nut("upsd"), "-F") as upsd, ExitStack() as stack:
        peer = stack.enter_context(connect_to_upsd(upsd) or socket.socket())
        process = upsd_process.UpsdProcess(upsd.pid)
        if cure == "limit":
            process.limit_write_time()
            # a connection that is accepted later must have the limit too
            peer = stack.enter_context(connect_to_upsd(upsd) or socket.socket())
        dropped = not _overfill(peer)
        before = _is_answering(2.0)
        seen = process.read_sockets()
        time.sleep(0.2)
        stuck = watch.blocking_connections(seen, process.read_sockets())
        if cure == "close":
            process.close_connections(frozenset(connection.inode for connection in stuck))
        return {"dropped": dropped, "before": before, "stuck": len(stuck), "after": _is_answering(5.0)}


def _overfill(peer: socket.socket) -> bool:
    """Send commands until the socket is full for a second. Return whether upsd has kept the connection."""
    peer.settimeout(1.0)
    try:
        while True:
            peer.sendall(b"LIST UPS\n" * 50)
    except socket.timeout:
        return True
    except ConnectionError:
        return False


def _is_answering(seconds: float) -> bool:
    with socket.create_connection(("127.0.0.1", PORT), timeout=seconds) as client:
        try:
            client.sendall(b"VER\n")
            return client.recv(100).startswith(b"Network UPS Tools")
        except socket.timeout:
            return False


OPERATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        ask_upsd,
        run_programs,
        log_in,
        play_statuses,
        dump_variables,
        read_checksums,
        check_files,
        attack_checks,
        block_upsd,
        look_up_primary,
    )
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
