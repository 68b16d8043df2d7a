# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell a VM's QEMU something directly, without Proxmox VE's programs: for a VM that qm can't or won't shut down.

Sources: QEMU's docs/interop/qmp-spec.rst; qemu-server (QemuServer.pm, _do_vm_stop: system_powerdown is a shutdown, quit a stop).
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Callable

POWERDOWN, QUIT = "system_powerdown", "quit"

# QEMU answers at once, but it has one client at a time, and pvestatd asks it every 10 s
_SECONDS = 5.0
_LINES = 100  # QEMU may send events before its answer
_LINE_BYTES = 1 << 16


class QmpError(Exception):
    """QEMU could not be told. The message says why."""


def tell_qemu(number: int, command: str, root: Path = Path("/")) -> None:
    """Send a command without arguments to the QEMU of a VM of this host. Raise QmpError."""
    path = root / f"run/qemu-server/{number}.qmp"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(str(path))
            with connection.makefile("rwb") as stream:
                for name in ("qmp_capabilities", command):
                    stream.write(json.dumps({"execute": name}).encode() + b"\n")
                    stream.flush()
                    _read_answer(stream.readline)
    except (OSError, ValueError) as error:
        if command == QUIT and isinstance(error, ConnectionError):
            return  # it has quit
        raise QmpError(f"can't tell QEMU ({path}): {getattr(error, 'strerror', None) or error}") from error


def _read_answer(read_line: Callable[[int], bytes]) -> None:
    """Skip the greeting and events, and read the answer. Raise ValueError for an error, OSError if the connection ends."""
    for _line in range(_LINES):
        line = read_line(_LINE_BYTES)
        if not line:
            raise ConnectionResetError("the connection has ended")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            break
        if "return" in answer:
            return
        if "error" in answer:
            raise ValueError(f"QEMU refuses: {str(answer['error'])[:200]}")
    raise ValueError("QEMU gives no answer")
