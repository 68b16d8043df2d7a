# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nut-hotplug run by hand, and the play: neither undoes the work of the other."""

from __future__ import annotations

import json
from collections.abc import Callable

from hotplug.primary import CONF, LOG, SERVICE, TIMER, HotplugPrimary


def test_status_plan_and_log_show_every_decision(run_on_both):
    """`status` and `plan` change nothing."""

    def run_case(primary: HotplugPrimary) -> None:
        assert primary.run_shell("nut-hotplug plan") == "nothing to do\n"
        primary.swap_ups(primary.other_model)
        before = primary.list_processes()
        plan = json.loads(primary.run_shell("nut-hotplug plan --json"))
        assert plan["changes"]
        assert any("nut-driver@ups" in step for step in plan["steps"])
        assert f"+++ {CONF}" in plan["diff"]
        assert "nut-driver@ups" in primary.run_shell("nut-hotplug plan")
        assert primary.read_file(CONF) == primary.files[CONF]
        primary.assert_untouched(before)
        primary.run_service()
        primary.wait_until_served()
        (ups,) = primary.read_hotplug_status()["upses"]
        ids = {"apc": "051d:0002", "cps": "0764:0501"}[primary.other_model]
        assert (ups["name"], ups["ids"], ups["driver"], ups["port"]) == ("ups", ids, "usbhid-ups", "1-1")
        assert ups["status"].startswith("OL")
        assert any(CONF in decision["what"] for decision in primary.read_hotplug_status()["history"])
        assert primary.run_shell("nut-hotplug --help")
        # both have one line per decision, with its reason
        journal = primary.run_shell(f"journalctl --output=cat --unit={SERVICE} --since=-2min")
        lines = primary.read_file(LOG).splitlines()
        assert lines
        for line in lines:
            assert line.split(" ", 3)[3] in journal

    run_on_both(run_case)


def test_play_keeps_sections_made_by_nut_hotplug(
    run_on_both, play: Callable[..., object], primaries: list[HotplugPrimary]
):
    """After a second UPS and a swap, the play reports no change and restarts nothing."""

    def plug_and_swap(primary: HotplugPrimary) -> None:
        primary.control_ups("plug", "eaton", "--port", "2")
        primary.swap_ups(primary.other_model)
        primary.run_service()
        primary.wait_until_served("ups")
        primary.wait_until_served("ups2")

    run_on_both(plug_and_swap)
    before = [primary.list_processes() for primary in primaries]
    files = [primary.read_file(CONF) for primary in primaries]
    run_on_both(lambda primary: primary.run_shell(f"systemctl start {TIMER}"))
    try:
        for arguments in (("--tags", "hotplug"), ()):
            done = play("--diff", *arguments)
            assert done.returncode == 0, done.stdout + done.stderr
            changed = [line for line in done.stdout.splitlines() if "changed=" in line and "changed=0" not in line]
            assert not changed, done.stdout
            for primary, processes, file in zip(primaries, before, files, strict=True):
                primary.assert_untouched(processes)
                assert primary.read_file(CONF) == file
    finally:
        run_on_both(lambda primary: primary.run_shell(f"systemctl stop {TIMER}"))
