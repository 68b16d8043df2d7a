# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answers of Proxmox VE's qm and pct in recordings/proxmox/commands.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_RECORDED = json.loads((Path(__file__).parents[1] / "recordings/proxmox/commands.json").read_text())
CALLS: list[dict[str, Any]] = _RECORDED["calls"]


def _make_answer(call: dict[str, Any]) -> dict[str, Any]:
    """Return what the library gets of a call: both outputs in one text."""
    kind, _verb, number = call["call"].split()[:3]
    return {"kind": kind, "number": int(number), "output": call["stdout"] + call["stderr"], **call}


_ANSWERS = [_make_answer(call) for call in CALLS if call["call"].split()[0] in ("qm", "pct")]
# of a call that is there with and without a quorum, the answer with it
_BY_CALL = {answer["call"]: answer for answer in sorted(_ANSWERS, key=lambda answer: answer.get("quorum", True))}
STATUS = [*(answer for answer in _ANSWERS if "expected" in answer), *_RECORDED["status"]]
START = [*(answer for answer in _ANSWERS if "outcome" in answer), *_RECORDED["start"]]
STOP = [
    {
        **row,
        "answers": [{**_BY_CALL[answer["as"]], **answer} if "as" in answer else answer for answer in row["answers"]],
    }
    for row in _RECORDED["stop"]
]
