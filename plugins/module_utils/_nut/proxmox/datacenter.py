# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of datacenter.cfg that this library needs.

Sources: pve-cluster, src/PVE/DataCenterConfig.pm, and pve-common, src/PVE/JSONSchema.pm (parse_config); releases 8 and 9.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from . import grammar
from .grammar import PropertyFormat

_HA = PropertyFormat({"shutdown_policy": "freeze|failover|conditional|migrate"})
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_COLORS = rf"{_TAG}:[0-9a-fA-F]{{6}}(?::[0-9a-fA-F]{{6}})?"
_TAG_STYLE = PropertyFormat(
    {
        "shape": "full|circle|dense|none",
        "color-map": rf"{_COLORS}(?:;{_COLORS})*",
        "ordering": "config|alphabetical",
        "case-sensitive": grammar.BOOLEAN,
    }
)


@dataclass(frozen=True)
class DatacenterOptions:
    """Options of datacenter.cfg; the defaults are Proxmox's."""

    shutdown_policy: str = "conditional"  # of HA
    max_workers: int | None = None  # how many guests are started or stopped at the same time; None: not set
    has_case_sensitive_tags: bool = False  # whether the tags Nas and nas differ


def parse_datacenter(text: str) -> DatacenterOptions:
    """Return the options in a text of datacenter.cfg.

    Blanks around a line do not count; of an option that is given twice, the last one counts, also if it is invalid. An invalid
    option counts as not given, all of it.
    """
    values: dict[str, str] = {}
    for line in text.split("\n"):
        if match := re.fullmatch(r"\s*([^\s#]\S*?):\s*(.*?)\s*", line, re.ASCII):
            values[match.group(1)] = match.group(2)
    ha = grammar.parse_properties(values.get("ha", ""), _HA) or {}
    style = grammar.parse_properties(values.get("tag-style", ""), _TAG_STYLE) or {}
    workers = values.get("max_workers", "")
    return DatacenterOptions(
        ha.get("shutdown_policy", DatacenterOptions.shutdown_policy),
        int(workers) if grammar.is_match(grammar.POSITIVE, workers) else None,
        bool(grammar.parse_boolean(style.get("case-sensitive", "0"))),
    )
