# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The supervisor with real processes, in place of a container: shells that stand for upsd, drivers and nut-hotplug."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ansible_collections.homelab.nut.plugins.module_utils._nut.base.services import Supervised
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import driver_unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.processes import ProcessTable
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.supervisor import Places, Supervisor
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.uevents import UeventReader

# says its arguments, counts SIGHUPs, ends at SIGTERM
DAEMON = """\
#!/bin/sh
trap 'echo reloaded' HUP
trap 'exit 0' TERM
echo "$(basename "$0") $*"
while :; do sleep 0.05; done
"""
UPS_CONF = "[ups]\n    driver = usbhid-ups\n    port = auto\n"
APC_UNIT, RACK_UNIT = driver_unit("ups"), driver_unit("rack")


class Container:
    """A supervisor and what it runs."""

    def __init__(self, root: Path) -> None:
        self.root, self.said = root, []  # type: ignore[var-annotated]
        self.places = Places(root / "etc", root / "run", root / "run/nut", root / "log/hotplug.log", os.getgid())
        for folder in (root / "etc", root / "bin"):
            folder.mkdir()
        self.write_ups_conf(UPS_CONF)
        for name in ("upsd", "usbhid-ups", "dummy-ups"):
            self.write_program(name, DAEMON)
        self.write_program("agent", "#!/bin/sh\necho run >>$0.runs\n")
        self.write_program("configure", "#!/bin/sh\necho run >>$0.runs\n")
        self.kernel, self.events = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kernel.setblocking(False)
        self.has_uevents = True
        self.is_quiet = False
        self.interval = 60.0

    def write_ups_conf(self, text: str) -> None:
        (self.root / "etc/ups.conf").write_text(text)

    def write_program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        # a running shell goes on reading its script: give it a new file
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def open_uevents(self) -> UeventReader:
        if not self.has_uevents:
            raise OSError(93, "Protocol not supported")
        return UeventReader(self.kernel)

    @property
    def manager(self) -> Supervised:
        return Supervised(self.places.socket)

    def count_runs(self, name: str) -> int:
        path = self.root / f"bin/{name}.runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def find_pid(self, unit: str) -> int:
        return self.manager.show_units([unit])[unit].pid

    def supervise(self, act: Callable[[], object], *, stop: bool = True) -> int:
        """Run the supervisor, and ACT meanwhile in another thread. Then send SIGTERM. Return the exit code."""
        failed: list[BaseException] = []
        has_ended = threading.Event()

        def act_and_stop() -> None:
            try:
                wait_until(lambda: has_ended.is_set() or self.places.socket.exists())
                act()
            except BaseException as error:
                failed.append(error)
            # the signal of a supervisor that has ended would end the tests
            if (stop or failed) and not has_ended.is_set():
                os.kill(os.getpid(), signal.SIGTERM)

        table = ProcessTable({"PATH": os.environ["PATH"]}, self.said.append)
        supervisor = Supervisor(
            table,
            (str(self.root / "bin/agent"), "run"),
            (str(self.root / "bin/configure"),),
            {"SECRET": "of the configuration"},
            self.interval,
            self.said.append,
            self.places,
            finder=lambda name: path if (path := self.root / "bin" / name).exists() else None,
            is_quiet=lambda _note: self.is_quiet,
            open_uevents=self.open_uevents,
        )
        thread = threading.Thread(target=act_and_stop)
        thread.start()
        try:
            code = supervisor.run()
        finally:
            has_ended.set()
            thread.join(30)
            for service in table.list_running():
                os.kill(service.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        if failed:
            print("\n".join(self.said), file=sys.stderr)
            raise failed[0]
        return code


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until a condition holds; fail after SECONDS."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
