# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes on the USB bus: several at once, scans while drivers run, replugs, missing UPSes."""

from __future__ import annotations

import pytest
from support import NEWEST, extra_vars, nut_processes, read_status, wait_until

PRIMARIES = {"pve8": "051d:0002", "pve9": "0764:0501", **dict.fromkeys(NEWEST, "051d:0002")}
TWO = [
    {"name": "ups", "powervalue": 1, "desc": 'the "rack" #1', "options": {"vendorid": "051d"}},
    {"name": "second", "powervalue": 0, "options": {"vendorid": "0463", "offdelay": 30, "pollonly": True}},
]


def read_output(done) -> str:
    """Return a play's output on one line, because Ansible wraps long warnings."""
    return " ".join((done.stdout + done.stderr).split())


def read_driver_pid(host, ups: str = "ups") -> str:
    """Return the process id of a UPS's driver."""
    return host.check_output("systemctl show --property=MainPID --value nut-driver@%s", ups)


@pytest.mark.parametrize(("name", "ids"), PRIMARIES.items())
def test_scans_do_not_disturb_the_running_driver(on, name, ids):
    """nut-scanner and lsusb read the device that the driver holds."""
    host = on(name)
    before = read_driver_pid(host)
    for _round in range(5):
        assert 'driver = "usbhid-ups"' in host.check_output("nut-scanner -U -q 2>/dev/null")
        listed = host.check_output("lsusb -v")
        assert ids in listed
        assert "Human Interface Device" in listed
    assert read_status(host)[0] == "OL"
    assert read_driver_pid(host) == before


@pytest.mark.parametrize("name", PRIMARIES)
def test_driver_finds_replugged_ups_without_a_restart(on, lab, name):
    """The UPS has another device number then."""
    host = on(name)
    before = nut_processes(host)
    lab.control_ups(name, "unplug", "--port", "1")
    try:
        wait_until(lambda: read_status(host) == [], 30, "the data to become stale")
    finally:
        lab.control_ups(name, "replug", "--port", "1")
    wait_until(lambda: read_status(host)[:1] == ["OL"], 30, "the UPS to be on mains again")
    assert before.items() <= nut_processes(host).items()


def test_second_ups_can_be_added_and_removed(on, lab, play):
    """Each UPS has its own driver. Adding or removing one leaves the other's driver alone."""
    host = on("pve8")
    lab.control_ups("pve8", "plug", "eaton", "--port", "2")
    try:
        # otherwise nut-hotplug would give the second UPS an automatic name once it is not declared any more
        quiet = {"nut_hotplug_default_name": ""}
        done = play("--limit", "pve8", *extra_vars(nut_server_devices=TWO, **quiet))
        assert done.returncode == 0, done.stdout
        assert read_status(host)[0] == "OL"
        assert read_status(host, "second")[0] == "OL"
        assert host.check_output("upsc second@localhost device.mfr 2>/dev/null") == "EATON"
        assert 'the "rack" #1' in host.check_output("upsc -L localhost 2>/dev/null")
        first = read_driver_pid(host)
        done = play("--limit", "pve8", *extra_vars(nut_server_devices=TWO[:1], **quiet))
        assert done.returncode == 0, done.stdout
        assert read_driver_pid(host) == first
        assert not host.service("nut-driver@second").is_running
        assert not host.service("nut-driver@second").is_enabled
        assert host.check_output("upsc -l localhost 2>/dev/null") == "ups"
    finally:
        lab.control_ups("pve8", "unplug", "--port", "2")
        done = play("--limit", "pve8")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", PRIMARIES)
def test_missing_ups_is_reported_but_fails_only_if_required(on, lab, play, name):
    """A missing UPS is no mistake of the host, so the rest is deployed; with nut_server_require_ups the run fails."""
    lab.control_ups(name, "unplug", "--port", "1")
    try:
        wait_until(lambda: read_status(on(name)) == [], 30, "the data to become stale")
        done = play("--limit", name, *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}))
        assert done.returncode == 0, done.stdout
        assert (
            f"{name}: upsd has no fresh data for ups: DATA-STALE. Is the UPS plugged in and switched on?"
            in read_output(done)
        )
        # after a restart the driver ends, because it finds no UPS
        on(name).check_output("systemctl restart nut-driver@ups || true")
        done = play("--limit", name, *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}))
        assert done.returncode == 0, done.stdout
        assert (
            f"{name}: upsd has no fresh data for ups: DRIVER-NOT-CONNECTED. Is the UPS plugged in and switched on?"
            in read_output(done)
        )
        done = play(
            "--limit",
            name,
            *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}, nut_server_require_ups=True, nut_server_wait=3),
        )
        assert done.returncode != 0
        assert "has no fresh data for ups: DRIVER-NOT-CONNECTED" in read_output(done)
    finally:
        lab.control_ups(name, "replug", "--port", "1")
    wait_until(lambda: read_status(on(name))[:1] == ["OL"], 60, "the UPS to be on mains again")
    done = play("--limit", name)
    assert done.returncode == 0, done.stdout


def test_driver_without_its_ups_is_reported_beside_a_working_one(on, play):
    """The second section wants a UPS that is not plugged in."""
    wanted = [{"name": "ups", "powervalue": 1}, {"name": "other", "powervalue": 0, "vendorid": "09ae"}]
    try:
        done = play("--limit", "pve9", *extra_vars(nut_server_devices=wanted))
        assert done.returncode == 0, done.stdout
        assert "pve9: upsd has no fresh data for other: DRIVER-NOT-CONNECTED" in read_output(done)
        assert read_status(on("pve9"))[0] == "OL"
    finally:
        done = play("--limit", "pve9")
    assert done.returncode == 0, done.stdout
