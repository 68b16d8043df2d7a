# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-shutdown: what the archive /usr/local/sbin/nut-shutdown starts with."""

import contextlib
import os
import stat
import sys


def tell(number, line):
    """Write a line to a file descriptor. Who reads it may have gone, or may not read: that must not stop anything."""
    with contextlib.suppress(OSError):
        os.write(number, (line + "\n").encode("utf-8", "backslashreplace"))


def main():
    """Do what the command line says. Returns the exit code."""
    for number in (1, 2):
        # the journal's is a socket: when that hangs, a full one would hang us
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.set_blocking(number, False)
    from _nut.programs import nut_shutdown  # noqa: PLC0415 - first of all, nothing may hang

    return nut_shutdown.main(sys.argv[1:], lambda line: tell(1, line), lambda line: tell(2, line))


if __name__ == "__main__":
    # no threads are waited for, and nothing is tidied up: what hangs, hangs alone
    os._exit(main())
