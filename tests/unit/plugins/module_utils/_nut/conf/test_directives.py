# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import directives
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.directives import (
    DEVICE,
    DIRECTIVES,
    NOTIFY_TYPES,
    Release,
)

BOOKWORM, TRIXIE, SID = (2, 8, 0), (2, 8, 1), (2, 8, 5)
RELEASES = [(2, 7, 4), BOOKWORM, TRIXIE, (2, 8, 2), (2, 8, 3), (2, 8, 4), SID]

ENTRIES = {
    f"{place}: {name}": directive
    for place, table in (*DIRECTIVES.items(), ("section", DEVICE), ("AT", directives.AT_COMMANDS))
    for name, directive in table.items()
}


@pytest.mark.parametrize("directive", ENTRIES.values(), ids=ENTRIES.keys())
def test_every_entry_is_complete(directive: directives.Directive) -> None:
    assert directive.kind in directives.KINDS or "|" in directive.kind
    # at most one of: always refused, refused where unknown, omitted where unknown
    assert [bool(directive.needed), bool(directive.never), bool(directive.without)].count(True) <= 1
    assert not (directive.needed + directive.never + directive.without).endswith(".")
    assert RELEASES[0] <= directive.since <= (2, 8, 6)


SINCE: dict[str, Release] = {
    "upsmon.conf: SHUTDOWNEXIT": TRIXIE,
    "upsmon.conf: OBLBDURATION": (2, 8, 3),
    "upsd.conf: ALLOW_NOT_ALL_LISTENERS": (2, 8, 2),
    "nut.conf: NUT_DEBUG_PROCNAME": SID,
    "upssched.conf: DEBUG_MIN": SID,
    "section: busport": TRIXIE,
    # always valid as a global key, but NUT 2.8.1 rejects it in a section
    "section: maxstartdelay": (2, 8, 3),
    "section: usb_hid_ep_in": (2, 8, 2),
    "section: onlinedischarge_onbattery": (2, 8, 2),
    "section: powercom_sdcmd_discrete_delay": (2, 8, 4),
}


@pytest.mark.parametrize(("name", "since"), SINCE.items())
def test_directive_has_the_right_release(name: str, since: Release) -> None:
    assert ENTRIES[name].since == since


def test_number_of_notification_types_of_each_release() -> None:
    counted = [len([name for name, since in NOTIFY_TYPES.items() if since <= release]) for release in RELEASES]
    assert counted == [10, 11, 15, 16, 30, 30, 31]
