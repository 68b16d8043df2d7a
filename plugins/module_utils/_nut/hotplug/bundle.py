# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""quiet.py and glance.py as one piece of compiled code, for the program's start.

A program in an archive is compiled at each run, and to look into the archive takes longer than to look at the bus. So the
run that leaves a note for the next ones leaves them the code that compares it, too. roles/nut_hotplug/files/start.sh runs it.
"""

from __future__ import annotations
import __future__

import marshal
import sys
from pathlib import Path
from types import ModuleType

from . import glance, quiet

# Each import costs. os is Python's own face of posix, and has been loaded by nobody yet.
_SPARED = {
    "from __future__ import annotations\n": "",
    "from .glance import bus\n": "",
    "import os\n": "import posix as os\n",
}


def place(room: Path) -> Path:
    """Name the file: code is good for the very Python that has made it."""
    return room / f"nut-hotplug.{sys.hexversion:x}.code"


def make(note: Path) -> bytes:
    """Return code that ends the program at once, with 0, if all is as NOTE has it; see quiet.is_quiet().

    Raises ValueError if the sources can't be had.
    """
    text = _source(glance) + _source(quiet) + f"\nif is_quiet({str(note)!r}):\n    os._exit(0)\n"
    for line, instead in _SPARED.items():
        text = text.replace(line, instead)
    flags = __future__.annotations.compiler_flag
    return marshal.dumps(compile(text, "nut-hotplug", "exec", flags=flags, dont_inherit=True, optimize=2))


def _source(module: ModuleType) -> str:
    get_source = getattr(module.__loader__, "get_source", None)
    source = get_source(module.__name__) if get_source else None
    if not isinstance(source, str):
        raise ValueError(f"{module.__name__} has no source")
    return source
