# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A policy of the gate, of one machine and one UPS, for tests."""

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    AwaitedMachine,
    GuestId,
    ShutdownPolicy,
    UpsAddress,
)

NAS = AwaitedMachine("nas", ("192.0.2.20",), (22, 443), None, 60.0, 120.0)
VM = AwaitedMachine("vm", (), (), GuestId("qm", 100), 30.0, 90.0)
UPS = UpsAddress("ups")
POLICY = ShutdownPolicy((UPS,), (NAS,), settle=3.0, reserve=60.0, timeout=600.0)
