# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's files of a primary and of a secondary on which all is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIMARY = {
    "nut.conf": "# as shipped: MODE = none\nMODE=netserver\n",
    "upsd.users": '[monitor]\n    password = "secret1"\n    upsmon primary\n\n[media]\n    password = "s"\n    upsmon secondary\n',
    "upsd.conf": "LISTEN 0.0.0.0 3493\nMAXAGE 15\n",
    "ups.conf": '[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n',
    "upsmon.conf": 'MONITOR ups@localhost:3493 1 monitor "secret1" primary\nMINSUPPLIES 1\nSHUTDOWNCMD /bin/true\n',
}
SECONDARY = {
    "nut.conf": "MODE=netclient\n",
    "upsmon.conf": "MONITOR ups@192.0.2.1:3493 1 media s secondary\nMINSUPPLIES 1\nSHUTDOWNCMD /bin/true\n",
}


def with_text(name: str, old: str, new: str, files: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the files with a text of one of them replaced. files: of a primary, if not given."""
    files = files or PRIMARY
    assert old in files[name]
    return {**files, name: files[name].replace(old, new)}
