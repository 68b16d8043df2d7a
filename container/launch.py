#!/usr/bin/python3 -Es
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start the program of the library that has the name of this file: in the image, it is nut-container and nut-hotplug."""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, "/usr/lib/homelab-nut")


def main() -> int:
    """Run the command line and return the exit code."""
    path = Path(sys.argv[0]).absolute()
    program = importlib.import_module(f"_nut.programs.{path.name.replace('-', '_')}")
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        return program.main(sys.argv[1:], print, lambda line: print(line, file=sys.stderr), str(path))
    except BrokenPipeError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
