# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: how its modules that speak with upsd find it. Documented by the fragment homelab.nut.upsd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._nut.conf import upsd
from ._nut.net import client
from ._nut.net import connection as net_connection

if TYPE_CHECKING:
    from ._module import Module

OPTIONS: dict[str, Any] = {
    "host": {"type": "str", "default": "localhost"},
    "port": {"type": "int", "default": upsd.PORT},
    "timeout": {"type": "int", "default": 5},
    "tls": {"type": "bool"},
    "ca": {"type": "str"},
    "ca_path": {"type": "path"},
    "server_name": {"type": "str"},
}
MUTUALLY_EXCLUSIVE = [("ca", "ca_path")]


def make_client_opener(module: Module) -> Callable[[], client.UpsdClient]:
    """Return what makes an UpsdClient as the options say, not yet connected. Ends the module if they don't fit together."""
    options = module.params
    ca = options["ca"]
    if options["timeout"] <= 0:
        module.fail_json(msg=f"timeout is {options['timeout']}: give the seconds that one look may take, such as 5")
    if options["ca_path"]:
        try:
            ca = Path(options["ca_path"]).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            module.fail_json(msg=f"{options['ca_path']} (ca_path) can't be read: {error}")
    wanted = options["tls"]
    if wanted is None:
        wanted = ca is not None or bool(options["server_name"])
    if not wanted and (ca is not None or options["server_name"]):
        module.fail_json(msg="tls is false, and ca, ca_path or server_name are given: take them away, or say tls: true")
    tls = net_connection.TlsOptions(ca, options["server_name"] or "") if wanted else None
    return lambda: client.UpsdClient(options["host"], options["port"], options["timeout"], tls)
