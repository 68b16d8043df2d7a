# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real shutdown, at one site. The test is the UPS: it gives the power back."""

from __future__ import annotations

import json
import re
import threading

import pytest
from drill.primary import INVENTORY
from support import extra_vars, read_status, wait_for_end, wait_until

SECONDS = 12  # what TrueNAS takes


def live(**more):
    return (*extra_vars(**more), "--limit", "pve8")


def test_nothing_happens_without_the_confirmation(primaries, drill_live):
    """No terminal, and no name; or a wrong one; or two primaries; or check mode. Each at once, for none may do anything."""
    runs = {
        "Nothing was done. To start a real shutdown, type the name of the primary": live(),
        "type the name of the primary, pve8": live(nut_server_live_confirm="pve9"),
        "A live drill shuts down one primary at a time": extra_vars(nut_server_live_confirm="pve8"),
        "Ready for a real shutdown. Check mode ends here.": (*live(nut_server_live_confirm="pve8"), "--check"),
    }
    running = {words: drill_live(*arguments) for words, arguments in runs.items()}
    for words, one in running.items():
        done = wait_for_end(one)
        assert words in re.sub(r"\s+", " ", done.stdout), done.stdout
        assert (done.returncode == 0) == ("Check mode" in words)
    for one in primaries.values():
        one.still_stands()
        assert one.host.run("systemctl is-active nut-shutdown-record").stdout.strip() == "inactive"


def test_it_refuses(primaries, on, drill_live):
    """A secondary would not hear of it."""
    one = primaries["pve8"]
    on("truenas").check_output("systemctl stop nut-monitor")
    try:
        wait_until(lambda: len(one.clients()) == 2, 30, "it has logged out")
        done = wait_for_end(drill_live(*live(nut_server_live_confirm="pve8")))
    finally:
        on("truenas").check_output("systemctl start nut-monitor")
    assert done.returncode != 0
    assert "truenas is not logged in to upsd" in done.stdout
    assert "Nothing was done" in done.stdout
    wait_until(lambda: len(one.clients()) == 3, 60, "it has logged in")
    one.still_stands()


@pytest.fixture(scope="module")
def lived(primaries, lab, on, drill_live):
    """Hold a live drill; return what the playbook said, and how the machines went down, as they say themselves."""
    assert primaries
    on("truenas").check_output(f"echo {SECONDS} >/etc/lab/shutdown-seconds")
    process = drill_live(*live(nut_server_live_confirm="pve8", nut_server_live_timeout=300))
    said = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()

    def states():
        return {
            host.name: state for host, state in lab.read_states().items() if host.name in ("pve8", "truenas", "media")
        }

    try:
        wait_until(
            lambda: process.poll() is not None or all(one.down for one in states().values()), 180, "all are down"
        )
        assert process.poll() is None, "".join(said)
        seen = states()
        lab.start_sites(["pve8"])
        assert process.wait(240) == 0, "".join(said)
    finally:
        process.kill()
        reader.join(10)
    return "".join(said), seen


def test_all_went_down_in_their_order(lived):
    """TrueNAS first, completely; then the primary."""
    _out, seen = lived
    assert max(seen["truenas"].down, seen["media"].down) < seen["pve8"].began < seen["pve8"].down
    assert SECONDS <= seen["truenas"].down - seen["truenas"].began < SECONDS + 8


def test_what_was_measured_is_right(lived, on):
    """Within 3 s of what the machines say themselves."""
    _out, seen = lived
    shown = json.loads(on("pve8").check_output("nut-shutdown record --show --json --own 30"))
    for name, state in seen.items():
        assert shown["took"][name] == pytest.approx(state.down - state.began, abs=3), name
    assert shown["held"]
    assert shown["restarted"]


def test_the_measured_times_are_offered(lived):
    """As lines to paste, where the inventory says something else; and drawn."""
    out, _seen = lived
    offered = re.search(
        r"host_vars/truenas.yml: nut_client_shutdown_time: (\d+) +# measured ([\d.]+) s plus 20 %, rounded up",
        out,
    )
    assert offered, out
    # the measured time is shown to a tenth of a second
    assert (float(offered[2]) - 0.05) * 1.2 <= int(offered[1]) <= (float(offered[2]) + 0.05) * 1.2 + 1
    assert "nut_server_shutdown_time: " in out
    assert "The order held" in out
    assert "All machines are back" in out
    assert "seen" in (INVENTORY / ".homelab-nut" / "shutdown-pve8-live.html").read_text()


def test_all_is_as_before(lived, on):
    """The UPS is served, all are logged in, and nothing is left that would make the next shutdown another one."""
    assert lived
    host = on("pve8")
    wait_until(lambda: read_status(host)[:1] == ["OL"], 60, "the UPS is served")
    wait_until(lambda: len(host.run("upsc -c ups@localhost 2>/dev/null").stdout.split()) == 3, 60, "all are logged in")
    assert not host.file("/run/nut-killpower").exists
    assert not host.file("/run/nut-shutdown/live").exists
    assert host.run("systemctl is-active nut-shutdown-record").stdout.strip() == "inactive"
