# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A NUT that is none: programs of a page in the place of upsd, its driver and upsmon, as far as a drill needs them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

FAKE = """\
import os, re, signal, socket, subprocess, sys, threading, time
from pathlib import Path
name, here = Path(sys.argv[0]).name, Path(os.environ["NUT_CONFPATH"])
with open(os.environ["NUT_CONFPATH"] + "/../pids", "a") as file:
    file.write(f"{os.getpid()}\\n")
modes = (here / "../mode").read_text().split()
if name + "-dies" in modes:
    print("no mood for it")
    sys.exit(1)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in modes else signal.SIG_DFL)

def variables():
    return dict(line.split(": ", 1) for line in (here / "drill.dev").read_text().splitlines())

def serve(connection):
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            words = line.split()
            if words[:2] == ["GET", "NUMLOGINS"]:
                count = len(list((here / "state").glob("login-*")))
                answer = f"NUMLOGINS drill {count}"
            elif words[:2] == ["GET", "VAR"]:
                value = variables().get(words[3])
                answer = f'VAR drill {words[3]} "{value}"' if value else "ERR VAR-NOT-SUPPORTED"
            else:
                answer = "OK Goodbye"
            lines.write(answer + "\\n")
            lines.flush()

if name == "dummy-ups":
    time.sleep(1000)
elif name == "upsd":
    port = int(re.search(r"LISTEN \\S+ (\\d+)", (here / "upsd.conf").read_text())[1])
    server = socket.create_server(("127.0.0.1", port))
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
else:
    # a child, as upsmon has one
    child = subprocess.Popen(["sleep", "1000"])
    with open(os.environ["NUT_CONFPATH"] + "/../pids", "a") as file:
        file.write(f"{child.pid}\\n")
    (here / "state" / f"login-{name}").touch()
    text = Path(sys.argv[sys.argv.index("-f") + 1]).read_text()
    command = re.search(r'SHUTDOWNCMD "(.*)"', text)[1].replace('\\\\"', '"')
    while "LB" not in variables()["ups.status"]:
        time.sleep(0.02)
    time.sleep(0.3 if name == "drill-primary" else 0.05)
    while name in modes:
        time.sleep(1)
    subprocess.run(["/bin/sh", "-c", command])
    if "deaf" not in modes:
        child.kill()
"""


class FakeNut:
    """A NUT that is none, in a folder, and what it left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "fake.py").write_text(FAKE)
        for name in ("dummy-ups", "upsd", "upsmon"):
            path = folder / name
            path.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.argv[0] = sys.argv.pop(1); "
                            f"exec(open(\"{folder}/fake.py\").read())' \"$0\" \"$@\"\n")  # fmt: skip
            path.chmod(0o755)
        self.set_mode()

    def set_mode(self, *words: str) -> None:
        (self.folder / "mode").write_text(" ".join(words))

    def find_program(self, name: str) -> Path | None:
        path = self.folder / name
        return path if path.exists() else None

    def read_pids(self) -> list[int]:
        path = self.folder / "pids"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def list_running(self) -> list[int]:
        """Return what still runs. What was killed, and is nobody's child any more, takes a moment to go."""
        deadline = time.monotonic() + 10
        while (found := self._find_running()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _find_running(self) -> list[int]:
        found = []
        for pid in self.read_pids():
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            found += [pid] if state != "Z" else []
        return found

    def list_folders(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if path.is_dir()]
