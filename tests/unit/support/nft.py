# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nft says of the table of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def list_table(
    allowed: Sequence[Any] = (), refused: Sequence[Any] = (), rules: int = 7, ports: Sequence[int] = (3493,)
) -> str:
    """Return the output of `nft --json list table` (1.0.6 and 1.1.3) for our table, without irrelevant details."""
    about = {"family": "inet", "table": "homelab_nut"}
    v4 = [address for address in allowed if ":" not in json.dumps(address).replace('": ', "")]
    v6 = [address for address in allowed if address not in v4]
    chain = {**about, "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": -10, "policy": "accept"}
    return json.dumps(
        {
            "nftables": [
                {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
                {"table": {"family": "inet", "name": "homelab_nut", "handle": 3}},
                {"counter": {**about, "name": "refused", "packets": 5, "bytes": 300}},
                {"set": {**about, "name": "ports", "type": "inet_service", "elem": list(ports)}},
                {"set": {**about, "name": "allowed4", "type": "ipv4_addr", "flags": ["interval"], "elem": v4}},
                {"set": {**about, "name": "allowed6", "type": "ipv6_addr", "flags": ["interval"], "elem": v6}},
                {"set": {**about, "name": "refused4", "type": "ipv4_addr", "elem": list(refused)}},
                {"set": {**about, "name": "refused6", "type": "ipv6_addr", "flags": ["timeout"]}},
                {"chain": chain},
                *({"rule": {**about, "chain": "input", "handle": number, "expr": []}} for number in range(rules)),
            ]
        }
    )
