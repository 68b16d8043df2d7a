# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-access: options and exit codes."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import allow, files
from ..base.cli import FAILED, OK, Parser, ProgramExit
from ..base.text import printable
from ..net.access_keeper import AccessKeeper

EPILOG = """\
exit codes:
  0  done, or another run is busy
  1  something failed (status: or the loaded table differs from its file)
  2  the command line is wrong

files:
  /etc/nut/access.nft  the nftables table, written by Ansible
"""


def main(arguments: Sequence[str], keeper: AccessKeeper) -> int:
    """Run the command and return the exit code."""
    description = "Limit which machines may connect to upsd, also when their addresses change between deployments."
    parser = Parser(prog="nut-access", description=description, epilog=EPILOG, out=keeper.out, err=keeper.err)
    summary = "load the table if it is not loaded, and add new addresses of the host names in it"
    parser.add_command("refresh", summary).set_defaults(do=keeper.refresh_table)
    parser.add_command("status", "show which addresses may connect to upsd, and which were refused").set_defaults(
        do=keeper.show_status
    )
    try:
        return int(parser.parse_args(list(arguments)).do())
    except ProgramExit as left:
        return left.code
    except files.Busy:
        return OK  # the timer will run this again
    except (OSError, allow.AccessError, files.WriteError) as error:
        keeper.err(f"nut-access: {printable(str(error), 300)}")
        return FAILED
