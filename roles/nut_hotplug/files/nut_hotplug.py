# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-hotplug: the main program of the archive /usr/local/sbin/nut-hotplug, which start.sh runs unless there is nothing to do."""

import os
import sys

from _nut.programs import nut_hotplug


def print_line(stream, line):
    """Print a line. Ignores a reader that is gone, and escapes characters that the encoding lacks."""
    try:
        stream.write(
            line.encode(stream.encoding or "ascii", "backslashreplace").decode(stream.encoding or "ascii") + "\n"
        )
        stream.flush()
    except OSError:
        pass


def main():
    """Run the command line and return the exit code."""
    return nut_hotplug.main(
        sys.argv[1:],
        lambda line: print_line(sys.stdout, line),
        lambda line: print_line(sys.stderr, line),
        os.path.abspath(sys.argv[0]),  # noqa: PTH100 - does not resolve links
    )


if __name__ == "__main__":
    sys.exit(main())
