# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the host on which a module runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._command import make_runner
from ._nut.conf import nut_conf
from ._nut.deploy.apply import LocalNut

if TYPE_CHECKING:
    from ._module import Module

# tests replace this
ROOT = Path("/")


def explain_missing_nut() -> str:
    """Return that NUT is missing, and the remedy; "" if it is installed."""
    if (ROOT / "etc/nut").is_dir():
        return ""
    return "NUT is not installed on this host: there is no /etc/nut. Install it first with `make ups tags=ups`, or with the role nut_server"


def explain_missing_primary() -> str:
    """Return why this host can't serve USB UPSes, and the remedy; "" if NUT is configured here."""
    return nut_conf.find_lack(ROOT / "etc/nut")


def local_nut(module: Module) -> LocalNut:
    """Return the NUT of this host."""
    return LocalNut.below_root(ROOT, make_runner(module))
