# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The program by hand, and the play: neither undoes what the other has done."""

from __future__ import annotations

import json
from collections.abc import Callable

from hotplug.primary import CONF, LOG, SERVICE, TIMER, Primary


def test_status_plan_and_log(both):
    """They show what is, what would be done, and what was done, and do nothing."""

    def case(one: Primary) -> None:
        assert one.sh("nut-hotplug plan") == "nothing to do\n"
        one.swap(one.other)
        before = one.processes()
        plan = json.loads(one.sh("nut-hotplug plan --json"))
        assert plan["changes"]
        assert any("nut-driver@ups" in step for step in plan["steps"])
        assert f"+++ {CONF}" in plan["diff"]
        assert "nut-driver@ups" in one.sh("nut-hotplug plan")
        assert one.text(CONF) == one.files[CONF]
        one.untouched(before)
        one.run()
        one.await_service()
        (ups,) = one.status()["upses"]
        ids = {"apc": "051d:0002", "cps": "0764:0501"}[one.other]
        assert (ups["name"], ups["ids"], ups["driver"], ups["port"]) == ("ups", ids, "usbhid-ups", "1-1")
        assert ups["status"].startswith("OL")
        assert any(CONF in decision["what"] for decision in one.status()["history"])
        assert one.sh("nut-hotplug --help")
        # one line a decision, with its reason, in both
        journal = one.sh(f"journalctl --output=cat --unit={SERVICE} --since=-2min")
        lines = one.text(LOG).splitlines()
        assert lines
        for line in lines:
            assert line.split(" ", 3)[3] in journal

    both(case)


def test_the_play_keeps_what_was_found(both, play: Callable[..., object], primaries: list[Primary]):
    """A second UPS and a swapped one are there to stay: nothing is reported as changed, nothing is restarted."""

    def plug(one: Primary) -> None:
        one.ups("plug", "eaton", "--port", "2")
        one.swap(one.other)
        one.run()
        one.await_service("ups")
        one.await_service("ups2")

    both(plug)
    before = [one.processes() for one in primaries]
    files = [one.text(CONF) for one in primaries]
    both(lambda one: one.sh(f"systemctl start {TIMER}"))
    try:
        for arguments in (("--tags", "hotplug"), ()):
            done = play("--diff", *arguments)
            assert done.returncode == 0, done.stdout + done.stderr
            changed = [line for line in done.stdout.splitlines() if "changed=" in line and "changed=0" not in line]
            assert not changed, done.stdout
            for one, processes, file in zip(primaries, before, files, strict=True):
                one.untouched(processes)
                assert one.text(CONF) == file
    finally:
        both(lambda one: one.sh(f"systemctl stop {TIMER}"))
