# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failures: drivers that die or hang, power cuts, a killed run, lost memory, files edited by hand."""

from __future__ import annotations

import json
import shlex

import pytest
from homelab.podman import run_podman
from hotplug.primary import CONF, LOCK, SERVICE, STATE, TIMER, HotplugPrimary, driver_unit
from support import read_status, wait_until

UNIT = driver_unit("ups")
SOON = 12  # seconds, for one run of nut-hotplug on a busy machine; a back-off begins with 15


def without_ups_driver(processes: dict[str, str]) -> dict[str, str]:
    """Return the processes except the driver of `ups`."""
    return {unit: pid for unit, pid in processes.items() if unit != UNIT}


def test_dead_driver_is_started_at_once(run_on_both):
    """systemd would wait for 15 s."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.run_shell(f"kill -9 {before[UNIT]}")
        wait_until(lambda: primary.list_processes().get(UNIT) != before[UNIT], 5, "systemd to notice")
        primary.start_service()
        primary.wait_until_served()
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)

    run_on_both(run_case)


def test_hanging_driver_is_restarted_once(run_on_both):
    """Its UPS is plugged in, and upsd has had no data for a minute."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.run_shell(f"kill -STOP {before[UNIT]}")
        wait_until(lambda: not primary.is_served(), 30, "its data to become stale")
        primary.run_service()
        primary.assert_untouched(before)
        primary.pass_time(70)
        primary.start_service()
        primary.wait_until_served()
        after = primary.list_processes()
        assert after[UNIT] != before[UNIT]
        assert without_ups_driver(after) == without_ups_driver(before)
        # on a slow machine, a second restart comes if the first has not helped within 15 s
        assert primary.count_restarts() in (1, 2)

    run_on_both(run_case)


def test_hanging_ups_costs_one_driver_restart_at_most(run_on_both):
    """A restart does not help. When the UPS works again, so does its driver."""

    def run_case(primary: HotplugPrimary) -> None:
        primary.control_ups("hang", "nak")
        before = primary.list_processes()
        if primary.name == "pve8":
            wait_until(lambda: not primary.is_served(), 40, "its data to become stale")
        # the driver of 2.8.1 treats a missing answer as "no news", so upsd still serves the UPS
        primary.run_service()
        primary.assert_untouched(before)
        primary.pass_time(70)
        primary.start_service()
        if primary.name == "pve8":
            wait_until(lambda: primary.list_processes().get(UNIT) != before[UNIT], 20, "the driver to be restarted")
        primary.control_ups("unhang")
        primary.wait_until_served()
        primary.run_service()
        assert primary.count_restarts() == (1 if primary.name == "pve8" else 0)
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)

    run_on_both(run_case)


def test_changes_wait_for_mains(run_on_both):
    """Running drivers are left alone. Deferred changes are made when the mains are back."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.control_ups("mains", "off")
        wait_until(lambda: "OB" in read_status(primary.host), 30, "the UPS to be on battery")
        primary.control_ups("plug", "eaton", "--port", "2")
        for _run in range(2):
            primary.run_service()
        primary.assert_untouched(before)
        assert "OB" in read_status(primary.host)
        assert [words.split()[0] for words in primary.read_hotplug_status()["power"]] == ["ups"]
        if "ups2" not in primary.read_sections():
            assert primary.read_hotplug_status()["deferred"]
            assert primary.read_log().count("deferred") == 1
        primary.control_ups("mains", "on")
        primary.wait_until_served()
        primary.start_service()
        primary.wait_until_served("ups2")
        assert primary.read_hotplug_status()["deferred"] == []
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_dummy_replaces_absent_ups(run_on_both):
    """Dashboards keep the name, upsmon shuts nothing down, and the UPS gets its name back when it returns."""

    def run_case(primary: HotplugPrimary) -> None:
        primary.change_policy(absent="dummy")
        before = primary.list_processes()
        primary.control_ups("unplug", "--port", "1")
        primary.run_service()
        wait_until(lambda: not primary.is_served(), 20, "its data to become stale")
        primary.run_service()
        assert primary.read_sections()["ups"]["driver"] == "usbhid-ups", "replaced too early: the UPS may come back"
        primary.pass_time(40)
        primary.run_service()
        wait_until(lambda: primary.read_sections()["ups"]["driver"] == "dummy-ups", 20, "ups.conf to have the dummy")
        wait_until(lambda: read_status(primary.host) != [], 20, "upsd to serve the dummy")
        assert {"OB", "LB", "FSD"}.isdisjoint(read_status(primary.host))
        assert primary.run_shell("upsc -l localhost 2>/dev/null").split() == ["ups"]
        # upsmon polls every five seconds, here and on the secondaries
        wait_until(lambda: primary.list_clients() == {*primary.secondaries}, 20, "the secondaries to log in")
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)
        primary.run_service()
        primary.control_ups("replug", "--port", "1")
        primary.start_service()
        primary.wait_until_served(driver_name="usbhid-ups")
        assert primary.read_sections()["ups"]["driver"] == "usbhid-ups"
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)

    run_on_both(run_case)


@pytest.mark.long
def test_dummy_goes_at_once_whenever_its_ups_returns(run_on_both):
    """Somebody tries this several times, or the plug is loose. While the dummy answers, a power cut would go unnoticed."""

    def run_case(primary: HotplugPrimary) -> None:
        primary.change_policy(absent="dummy")
        for number in range(3):
            primary.control_ups("unplug", "--port", "1")
            primary.run_service()
            wait_until(lambda: not primary.is_served(), 20, "its data to become stale")
            primary.run_service()
            primary.pass_time(40)
            primary.run_service()
            wait_until(
                lambda: primary.read_sections()["ups"]["driver"] == "dummy-ups", 20, "ups.conf to have the dummy"
            )
            primary.control_ups("replug", "--port", "1")
            primary.start_service()
            wait_until(
                lambda: primary.read_sections()["ups"]["driver"] == "usbhid-ups",
                SOON,
                f"ups.conf to have the UPS again, round {number + 1}",
            )
            primary.wait_until_served(driver_name="usbhid-ups")

    run_on_both(run_case)


def test_broken_nut_scanner_affects_unknown_upses_only(run_on_both):
    """UPSes in NUT's tables need no nut-scanner. An unknown one gets no section."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.run_shell("cp -P /usr/bin/nut-scanner /root/; ln -sf /bin/false /usr/bin/nut-scanner")
        try:
            primary.control_ups("plug", "eaton", "--port", "2")
            primary.control_ups("plug", "megatec", "--port", "3", "--id", "4242:0001")
            primary.start_service()
            primary.wait_until_served("ups2")
            primary.assert_untouched(before)
            assert set(primary.read_sections()) == {"ups", "ups2"}
        finally:
            primary.run_shell("mv /root/nut-scanner /usr/bin/nut-scanner")

    run_on_both(run_case)


def test_failing_driver_is_retried_rarely_and_affects_no_other(run_on_both):
    """A rule names a driver that does not support this UPS."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.change_policy(
            rules=[{"vendor": "0463", "name": "rack", "driver": "nutdrv_qx", "options": {"novendor": True}}]
        )
        primary.control_ups("plug", "eaton", "--port", "2")
        for _run in range(4):
            primary.run_service()
        assert primary.read_sections()["rack"]["driver"] == "nutdrv_qx"
        assert "novendor" in primary.read_sections()["rack"]
        primary.assert_untouched(before)
        assert primary.count_restarts("rack") <= 3
        assert "rack" in primary.run_shell("nut-hotplug status")
        primary.change_policy()
        primary.pass_time(4000)
        primary.run_service()
        primary.wait_until_served("rack", device_mfr="EATON", driver_name="usbhid-ups")
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_section_added_by_hand_survives_changes(run_on_both):
    """It stays in ups.conf when nut-hotplug writes the file."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.run_shell("printf 'ups.status: OL\\n' >/etc/nut/hand.dev")
        primary.run_shell(
            f"printf '[hand]\\n\\tdriver = dummy-ups\\n\\tport = hand.dev\\n\\tdesc = \"a \\\\#1\"\\n' >>{CONF}"
        )
        primary.run_service()
        primary.assert_untouched(before)
        primary.control_ups("plug", "eaton", "--port", "2")
        primary.start_service()
        primary.wait_until_served("ups2")
        assert primary.read_sections()["hand"] == {"driver": "dummy-ups", "port": "hand.dev", "desc": "a #1"}
        primary.wait_until_served("hand")
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_line_added_by_hand_to_an_automatic_section_survives(run_on_both):
    """Also when another UPS is plugged in, and after a replug."""

    def run_case(primary: HotplugPrimary) -> None:
        primary.run_shell(f"sed -i '/^\\[ups\\]/a pollinterval = 3' {CONF}")
        primary.run_service()
        primary.control_ups("plug", "eaton", "--port", "2")
        primary.start_service()
        primary.wait_until_served("ups2")
        primary.control_ups("replug", "--port", "1")
        primary.run_service()
        primary.wait_until_served("ups")
        assert primary.read_sections()["ups"]["pollinterval"] == "3"

    run_on_both(run_case)


def test_next_run_finishes_the_work_of_a_killed_run(run_on_both):
    """Killed at several moments, also between writing ups.conf and starting the driver."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        for turn, after in enumerate((0.3, 0.7, 1.2)):
            model = (primary.other_model, primary.model)[turn % 2]
            primary.swap_ups(model)
            primary.run_shell(f"timeout -s KILL {after} nut-hotplug run || [ $? = 137 ]")
            primary.pass_time(600)
            primary.run_service()
            primary.wait_until_served(ups_vendorid={"apc": "051d", "cps": "0764"}[model])
            assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)
        primary.swap_ups(primary.model)
        is_old = f"[ $(stat -c %i {CONF}) = $was ]"
        wait_for_change = (
            f"was=$(stat -c %i {CONF}); for i in $(seq 500); do {is_old} || exit 0; sleep 0.01; done; exit 1"
        )
        primary.run_shell(f"systemctl start --no-block {SERVICE}; {wait_for_change}; systemctl kill -s KILL {SERVICE}")
        wait_until(
            lambda: "activ" not in primary.host.run(f"systemctl is-active {SERVICE}").stdout.replace("inactive", ""),
            30,
            "the service to be killed",
        )
        primary.run_service()
        primary.wait_until_served(ups_vendorid={"apc": "051d", "cps": "0764"}[primary.model])
        assert without_ups_driver(primary.list_processes()) == without_ups_driver(before)

    run_on_both(run_case)


def test_lost_or_broken_memory_is_rebuilt(run_on_both):
    """The next run rebuilds it, and restarts nothing."""

    def run_case(primary: HotplugPrimary) -> None:
        before = primary.list_processes()
        primary.control_ups("replug", "--port", "1")
        for broken in ("{", '{"version": 1, "identities": {"ups": 5}, "tries": []}', None):
            primary.run_shell(f"rm -f {STATE}" if broken is None else f"printf %b {shlex.quote(broken)} >{STATE}")
            primary.start_service()
            wait_until(
                lambda: primary.host.run(f"grep -c '\"serial\"' {STATE}").rc == 0, 10, "nut-hotplug to write its memory"
            )
            primary.run_shell(f"systemctl stop {SERVICE}")
            assert json.loads(primary.read_file(STATE))["identities"]["ups"]
        primary.wait_until_served()
        assert primary.read_file(CONF) == primary.files[CONF]
        primary.assert_untouched(before)

    run_on_both(run_case)


def test_run_waits_for_a_play_that_holds_the_lock(run_on_both):

    def run_case(primary: HotplugPrimary) -> None:
        primary.swap_ups(primary.other_model)
        primary.run_shell(f"flock {LOCK} sleep 3 >/dev/null 2>&1 & sleep 0.3; systemctl start --no-block {SERVICE}")
        assert primary.read_file(CONF) == primary.files[CONF]
        assert primary.count_restarts() == 0
        wait_until(lambda: primary.read_file(CONF) != primary.files[CONF], 15, "ups.conf to be written")
        primary.run_service()
        primary.wait_until_served()

    run_on_both(run_case)


def test_ups_plugged_in_after_boot_is_served(run_on_both):
    """The host boots without its UPS. The lab has no udevd, so the timer starts nut-hotplug."""

    def run_case(primary: HotplugPrimary) -> None:
        primary.control_ups("unplug", "--port", "1")
        container = primary.lab.container_name(primary.name)
        run_podman("kill", container)
        run_podman("start", container)
        up = ("exec", container, "systemctl", "is-system-running")
        wait_until(
            lambda: run_podman(*up, check=False).stdout.strip() in ("running", "degraded"), 60, "the host to boot"
        )
        wait_until(lambda: primary.host.run("true").rc == 0, 20, "the host to answer by ssh")
        assert primary.read_file(CONF) == primary.files[CONF]
        wait_until(lambda: "nut-server.service" in primary.list_processes(), 10, "upsd to run")
        server = primary.list_processes()["nut-server.service"]
        primary.control_ups("replug", "--port", "1")
        primary.wait_until_served()
        assert primary.list_processes()["nut-server.service"] == server
        primary.run_shell(f"systemctl is-active {TIMER}; systemctl stop {TIMER}")
        wait_until(lambda: primary.list_clients() == {*primary.secondaries}, 30, "the secondaries to log in")

    run_on_both(run_case)
