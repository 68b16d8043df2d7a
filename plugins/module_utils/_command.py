# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: run programs for the library, and warn, from a module."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._module import Module
    from ._nut.base.systemd import Run

# Longer than any single step should take: a driver gives up on an absent UPS after 3 tries of 5 s and some delays.
SECONDS = 120


def make_runner(module: Module, seconds: float = SECONDS) -> Run:
    """Return a function that runs a program for the library. A program that takes longer than `seconds` gets exit code 124."""

    def run(command: Sequence[str]) -> tuple[int, str]:
        bounded = ["timeout", "--kill-after=5", str(seconds), *command]
        try:
            code, out, err = module.run_command(
                bounded, handle_exceptions=False, expand_user_and_vars=False, errors="replace"
            )
        except OSError as error:
            return 127, str(error)
        return code, out + err

    return run


def warn_with_host(module: Module, message: str) -> None:
    """Warn, with this host's name. Ansible itself shows a warning without its host, and identical ones only once."""
    module.warn(f"{platform.node()}: {message}")
