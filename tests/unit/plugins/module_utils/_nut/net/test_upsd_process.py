# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""upsd's process and its sockets, as the kernel shows them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import upsd_process
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.upsd_process import Activity, UpsdProcess, parse_stat
from ansible_collections.homelab.nut.tests.unit.support.blocked_upsd import wait_until


def test_ipv4_client_of_an_ipv6_socket_keeps_the_ipv4_address() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _place = listener.accept()
            with accepted:
                client.sendall(b"GET VAR ups ups.status\n")
                process = UpsdProcess(os.getpid())
                wait_until(lambda: process.read_sockets().has_work, "what was sent arrives")
                ours = [peer for peer in process.read_sockets().connections if peer.port == client.getsockname()[1]]
                assert [(peer.address, peer.unread, peer.is_full) for peer in ours] == [("127.0.0.1", 23, False)]
                assert str(ours[0]) == f"127.0.0.1:{ours[0].port}"
                process.close()


def test_ended_process_is_recognized() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = UpsdProcess(child.pid)
    assert not process.has_ended()
    child.communicate()
    assert process.has_ended()
    with pytest.raises(upsd_process.ProcessEnded):
        process.read_activity()
    with pytest.raises(upsd_process.ProcessEnded):
        process.read_sockets()
    with pytest.raises(upsd_process.ProcessEnded):
        UpsdProcess(child.pid)
    process.close()


def test_process_is_read_from_proc() -> None:
    text = "780 (a) S) (upsd) T 1 780 780 0 -1 4194560 1 0 0 0 17 25 0 0 20 0 1 0 9000 1 1 1 1 1"
    assert parse_stat(text, 100, 1000.0) == Activity("T", 42, 910.0)
