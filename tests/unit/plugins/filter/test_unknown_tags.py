# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible import context
from ansible.module_utils.common.collections import ImmutableDict
from ansible_collections.homelab.nut.plugins.filter.unknown_tags import FilterModule
from ansible_collections.homelab.nut.plugins.plugin_utils import command_line

unknown_tags = FilterModule().filters()["unknown_tags"]

PVE = str(command_line.PLAYBOOKS / "pve.yml")


def give_playbooks(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(context, "CLIARGS", ImmutableDict(args=names))


@pytest.mark.parametrize("name", [PVE, os.path.relpath(PVE), "homelab.nut.pve"])
def test_unknown_tags_of_own_playbook_are_found(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    give_playbooks(monkeypatch, name)
    requested = ["ups", "upss", "all", "never", "hotplg", "molecule-notest", "notest", "molecule-idempotence-notest"]
    assert unknown_tags(requested, ["ups", "hotplug"]) == ["hotplg", "upss"]


def test_unknown_tags_are_found_through_a_link(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "collection").symlink_to(command_line.PLAYBOOKS.parent)
    give_playbooks(monkeypatch, str(tmp_path / "collection/playbooks/pve.yml"))
    assert unknown_tags(["upss"], []) == ["upss"]


@pytest.mark.parametrize(
    "names", [(), ("site.yml",), ("homelab.other.pve",), (PVE, "site.yml"), ("homelab.nut.pve", "homelab.nut.doctor")]
)
def test_tags_of_other_playbooks_are_not_judged(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    give_playbooks(monkeypatch, *names)
    assert unknown_tags(["power"], ["ups"]) == []
