# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How our own programs on a host run other programs. Modules of Ansible have their own way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from .systemd import Run


def runner(seconds: float) -> Run:
    """Return what the library runs programs with. One that hangs for SECONDS is left behind, with exit code 124."""
    environment = {**os.environ, "LC_ALL": "C"}

    def run(command: Sequence[str]) -> tuple[int, str]:
        try:
            # a program of its own on the host: there is no AnsibleModule whose run_command could be called
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                list(command),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as error:
            return 127, str(error)
        try:
            said, _nothing = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # subprocess.run() would wait for its end; but what hangs in the kernel has none
            process.kill()
            if process.stdout:
                process.stdout.close()
            return 124, f"{command[0]} did not end within {seconds:g} s"
        return process.returncode, said.decode("utf-8", "replace")

    return run
