# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import NOTIFY_TYPES
from ansible_collections.homelab.nut.plugins.module_utils._nut.events import catalog
from ansible_collections.homelab.nut.plugins.module_utils._nut.events.catalog import Event

LIBRARY = Path(__file__).parents[6] / "plugins" / "module_utils" / "_nut"
PAGE = Path(__file__).parents[6] / "docs" / "notifications.md"


@pytest.mark.parametrize("name", catalog.KINDS)
def test_each_event_says_what_happened_in_one_sentence(name: str) -> None:
    kind = catalog.KINDS[name]
    assert kind.severity in catalog.SEVERITIES
    assert kind.title.count("{}") == 1
    assert not kind.title.endswith(".")
    assert kind.advice == "" or kind.advice.endswith(".") or kind.advice.endswith("nut-monitor")


@pytest.mark.parametrize("name", catalog.KINDS)
def test_each_event_is_reported_somewhere(name: str) -> None:
    texts = "".join(path.read_text() for path in LIBRARY.rglob("*.py") if path.name != "preview.py")
    reported = len(re.findall(rf'"{name}"', texts))
    # once in the table itself
    assert reported >= 2


@pytest.mark.parametrize("name", catalog.KINDS)
def test_each_event_is_on_the_page_with_its_severity(name: str) -> None:
    assert f"| `{name}` | {catalog.KINDS[name].severity} |" in PAGE.read_text()


def test_events_of_upsmon_are_types_that_upsmon_sends() -> None:
    assert set(catalog.OF_UPSMON) <= set(NOTIFY_TYPES)
    assert set(catalog.OF_UPSMON.values()) <= set(catalog.KINDS)
    first = {kind for kind, since in NOTIFY_TYPES.items() if since == min(NOTIFY_TYPES.values())}
    assert first <= set(catalog.OF_UPSMON), "the role sets EXEC for these"


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(ValueError, match="no event"):
        Event("made-up", "ups", "", 0.0, "upsmon")
