# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-hotplug: what the archive /usr/local/sbin/nut-hotplug starts with, if start.sh did not find that all is quiet."""

import os
import sys

from _nut.programs import nut_hotplug


def tell(stream, line):
    """Print a line. Who reads it may have gone, or not know its characters."""
    try:
        stream.write(
            line.encode(stream.encoding or "ascii", "backslashreplace").decode(stream.encoding or "ascii") + "\n"
        )
        stream.flush()
    except OSError:
        pass


def main():
    """Do what the command line says. Returns the exit code."""
    return nut_hotplug.main(
        sys.argv[1:],
        lambda line: tell(sys.stdout, line),
        lambda line: tell(sys.stderr, line),
        os.path.abspath(sys.argv[0]),  # noqa: PTH100 - a link stays one
    )


if __name__ == "__main__":
    sys.exit(main())
