# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When NUT was last deployed on a host. What its daemons logged until then is no trouble: the deployment restarted them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..base import files, records

NAME = "deployed.json"
"""Beside the manifest."""

_VERSION = 1


SETTLE = 30.0
"""Seconds after a deployment until all upsmons are logged in again."""


@dataclass(frozen=True)
class Deployment:
    """A deployment that changed something. Seconds since 1970."""

    began: float
    ended: float

    def is_after(self, moment: float) -> bool:
        """Return whether something happened before its effects were over."""
        return self.ended > 0 and moment <= self.ended + SETTLE

    def covers(self, moment: float) -> bool:
        """Return whether something may have happened because of it."""
        return self.began <= moment and self.is_after(moment)


NEVER = Deployment(0.0, 0.0)
"""No deployment is known."""


def note_deployment(folder: Path, deployment: Deployment) -> None:
    """Record the last deployment. Raises OSError and files.WriteError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.replace_files({folder / NAME: records.dump_record(deployment, _VERSION)}, 0o600)


def recall_deployment(folder: Path) -> Deployment:
    """Return the last deployment, NEVER if none is known."""
    return records.recall_record(Deployment, folder / NAME, _VERSION) or NEVER
