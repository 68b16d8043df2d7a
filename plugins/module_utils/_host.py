# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the host that a module runs on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ._command import make_runner
from ._nut.conf import nut_conf
from ._nut.deploy.apply import LocalNut

if TYPE_CHECKING:
    from ._module import Module

# tests have another one
ROOT = Path("/")


def explain_missing_nut() -> str:
    """Return what the host must have first, NUT, and the remedy; "" if it is there."""
    if (ROOT / "etc/nut").is_dir():
        return ""
    return "NUT is not installed on this host: there is no /etc/nut. Deploy it first: `make pve tags=ups`, or the role nut_server"


def explain_missing_primary() -> str:
    """Return what keeps this host from having USB UPSes served, and the remedy; "" if NUT is configured here."""
    return nut_conf.find_lack(ROOT / "etc/nut")


def local_nut(module: Module) -> LocalNut:
    """Return the NUT of this host."""
    return LocalNut.below_root(ROOT, make_runner(module))
