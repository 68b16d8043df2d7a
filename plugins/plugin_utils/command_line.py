# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line of ansible-playbook."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ansible import context

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
_COLLECTION = "homelab.nut."
# what Ansible itself gives a meaning
_SPECIAL_TAGS = ("all", "tagged", "untagged", "always", "never")
# what molecule skips whenever it runs a playbook
_MOLECULE_TAGS = ("molecule-notest", "molecule-idempotence-notest", "notest")


def find_unknown_tags(requested: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the requested tags that the running playbook does not have.

    A playbook of the user's that imports ours, or runs beside it, may have any tag; then no tag is unknown.
    """
    if not _is_own_playbook_alone():
        return []
    return sorted(set(requested) - {*_SPECIAL_TAGS, *_MOLECULE_TAGS, *known})


def _is_own_playbook_alone() -> bool:
    """Return whether the command line names one playbook only, and it is one of this collection."""
    names = context.CLIARGS.get("args", ())
    return len(names) == 1 and (names[0].startswith(_COLLECTION) or Path(names[0]).resolve().parent == PLAYBOOKS)
