# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the doctor says of a primary that is no Proxmox VE host does not mention Proxmox VE."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits as deploy_kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import checks, status
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import HostObservation
from ansible_collections.homelab.nut.tests.unit.support import doctor_host
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import CLIENT, CLIENT_EXPECTED, EXPECTED, SEEN

PROXMOX = re.compile("proxmox|pve", re.IGNORECASE)
PI = replace(EXPECTED, name="pi")
CONDITIONS = {
    "good": SEEN,
    "not installed": replace(SEEN, installed=(), release=None),
    "no files": replace(SEEN, files={}),
    "no programs": replace(SEEN, own_files={}),
    "no units": replace(SEEN, units={}, processes=()),
    "no gate": doctor_host.without_kit(deploy_kits.SHUTDOWN),
    "no agent": doctor_host.without_kit(deploy_kits.HOTPLUG),
    "upsd is silent": replace(SEEN, served="connection refused"),
    "no client": doctor_host.with_ups(clients=("127.0.0.1",)),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_findings_on_a_plain_primary_do_not_mention_proxmox(name: str) -> None:
    found = checks.examine_host(replace(CONDITIONS[name], firewall=None), PI)
    assert found
    assert [line for line in map(str, found) if PROXMOX.search(line)] == []
    assert [line for line in map(str, status.collect_facts(CONDITIONS[name]).values()) if PROXMOX.search(line)] == []


def test_secondary_that_can_not_reach_its_primary_does_not_take_it_for_proxmox() -> None:
    text = CLIENT.files["upsmon.conf"].text.replace("@pve", "@pi")
    seen: HostObservation = replace(
        CLIENT,
        files={**CLIENT.files, "upsmon.conf": doctor_host.make_file(text)},
        watched={"ups@pi:3493": "connection refused"},
    )
    expected = replace(CLIENT_EXPECTED, files={**CLIENT_EXPECTED.files, "upsmon.conf": text})
    found = checks.examine_host(seen, expected)
    assert any("can't be reached from here" in finding.seen for finding in found)
    assert [line for line in map(str, found) if PROXMOX.search(line)] == []
