# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entry point of /usr/local/sbin/nut-shutdown."""

import contextlib
import os
import stat
import sys


def tell(number, line):
    """Write a line to a file descriptor. Errors are ignored: a reader that is gone or blocked must not stop the shutdown."""
    with contextlib.suppress(OSError):
        os.write(number, (line + "\n").encode("utf-8", "backslashreplace"))


def main():
    """Run the command line and return the exit code."""
    for number in (1, 2):
        # output to the journal is a socket: if the journal hangs, a full socket would block us
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.set_blocking(number, False)
    from _nut.programs import nut_shutdown  # noqa: PLC0415 - only once output can't block

    return nut_shutdown.main(sys.argv[1:], lambda line: tell(1, line), lambda line: tell(2, line))


if __name__ == "__main__":
    # exit without waiting for threads or cleaning up, because something may be hanging
    os._exit(main())
