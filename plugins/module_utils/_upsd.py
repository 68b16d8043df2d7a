# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the connection options of modules that talk to upsd. The fragment homelab.nut.upsd documents them."""

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
    """Return a function that makes an UpsdClient, not yet connected. Fails the module if the options contradict each other."""
    options = module.params
    ca = options["ca"]
    if options["timeout"] <= 0:
        module.fail_json(msg=f"timeout is {options['timeout']}: set it to a positive number of seconds, such as 5")
    if options["ca_path"]:
        try:
            ca = Path(options["ca_path"]).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            module.fail_json(msg=f"can't read ca_path {options['ca_path']}: {error}")
    wanted = options["tls"]
    if wanted is None:
        wanted = ca is not None or bool(options["server_name"])
    if not wanted and (ca is not None or options["server_name"]):
        module.fail_json(
            msg="tls is false, but ca, ca_path or server_name is set: remove these options, or set tls: true"
        )
    tls = net_connection.TlsOptions(ca, options["server_name"] or "") if wanted else None
    return lambda: client.UpsdClient(options["host"], options["port"], options["timeout"], tls)
