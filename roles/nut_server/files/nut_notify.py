# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entry point of /usr/local/sbin/nut-notify."""

import os
import sys

from _nut.programs import nut_notify


def tell(file):
    """Return a function that writes a line to a file."""
    return lambda line: print(line, file=file, flush=True)


if __name__ == "__main__":
    sys.exit(nut_notify.main(sys.argv[1:], tell(sys.stdout), tell(sys.stderr), os.environ))
