# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of nut-access: what it takes, and its exit codes."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import allow, files
from ..base.cli import FAILED, OK, Parser, ProgramExit
from ..base.text import printable
from ..net.access_keeper import AccessKeeper

EPILOG = """\
exit codes:
  0  done, or another run is at work
  1  something went wrong; of status: the table is not loaded as its file has it
  2  the command line is wrong

files: /etc/nut/access.nft (the table, which Ansible writes)
"""


def main(arguments: Sequence[str], keeper: AccessKeeper) -> int:
    """Do what the command line says. Returns the exit code."""
    words = "Keep the table that limits who may connect to upsd true, between two deployments."
    parser = Parser(prog="nut-access", description=words, epilog=EPILOG, out=keeper.out, err=keeper.err)
    words = "load the table if it is not loaded, and also allow the current addresses of the names in it"
    parser.add_command("refresh", words).set_defaults(do=keeper.refresh_table)
    parser.add_command("status", "show who may connect to upsd, and who was refused").set_defaults(
        do=keeper.show_status
    )
    try:
        return int(parser.parse_args(list(arguments)).do())
    except ProgramExit as left:
        return left.code
    except files.Busy:
        return OK  # the timer comes again
    except (OSError, allow.AccessError, files.WriteError) as error:
        keeper.err(f"nut-access: {printable(str(error), 300)}")
        return FAILED
