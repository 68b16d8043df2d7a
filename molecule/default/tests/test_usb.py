# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes on the USB bus: several at once, several who look at them, one that is pulled out and put back."""

from __future__ import annotations

import pytest
from support import extra_vars, nut_processes, read_status, wait_until

PRIMARIES = {"pve8": "051d:0002", "pve9": "0764:0501"}
TWO = [
    {"name": "ups", "desc": 'the "rack" #1', "options": {"vendorid": "051d"}},
    {"name": "second", "options": {"vendorid": "0463", "offdelay": 30, "pollonly": True}},
]


def said(done) -> str:
    """Return all that a play said, without the line ends that Ansible puts into a long warning."""
    return " ".join((done.stdout + done.stderr).split())


def driver(host, ups: str = "ups") -> str:
    """Return the process of a UPS's driver."""
    return host.check_output("systemctl show --property=MainPID --value nut-driver@%s", ups)


@pytest.mark.parametrize(("name", "ids"), PRIMARIES.items())
def test_others_may_look_while_the_driver_works(on, name, ids):
    """nut-scanner and lsusb read the same device that the driver holds."""
    host = on(name)
    before = driver(host)
    for _round in range(5):
        assert 'driver = "usbhid-ups"' in host.check_output("nut-scanner -U -q 2>/dev/null")
        seen = host.check_output("lsusb -v")
        assert ids in seen
        assert "Human Interface Device" in seen
    assert read_status(host)[0] == "OL"
    assert driver(host) == before


@pytest.mark.parametrize("name", PRIMARIES)
def test_pulled_out_and_put_back(on, lab, name):
    """The driver finds its UPS again by itself, under another device number; nothing is restarted."""
    host = on(name)
    before = nut_processes(host)
    lab.control_ups(name, "unplug", "--port", "1")
    try:
        wait_until(lambda: read_status(host) == [], 30, "data are stale")
    finally:
        lab.control_ups(name, "replug", "--port", "1")
    wait_until(lambda: read_status(host)[:1] == ["OL"], 30, "on mains again")
    assert before.items() <= nut_processes(host).items()


def test_a_second_ups(on, lab, play):
    """Each has a driver of its own; one more and one less leaves the other's alone."""
    host = on("pve8")
    lab.control_ups("pve8", "plug", "eaton", "--port", "2")
    try:
        # else nut-hotplug serves the second all the same when it is no longer declared, under a name of its own
        quiet = {"nut_hotplug_default_name": ""}
        done = play("--limit", "pve8", *extra_vars(nut_server_devices=TWO, **quiet))
        assert done.returncode == 0, done.stdout
        assert read_status(host)[0] == "OL"
        assert read_status(host, "second")[0] == "OL"
        assert host.check_output("upsc second@localhost device.mfr 2>/dev/null") == "EATON"
        assert 'the "rack" #1' in host.check_output("upsc -L localhost 2>/dev/null")
        first = driver(host)
        done = play("--limit", "pve8", *extra_vars(nut_server_devices=TWO[:1], **quiet))
        assert done.returncode == 0, done.stdout
        assert driver(host) == first
        assert not host.service("nut-driver@second").is_running
        assert not host.service("nut-driver@second").is_enabled
        assert host.check_output("upsc -l localhost 2>/dev/null") == "ups"
    finally:
        lab.control_ups("pve8", "unplug", "--port", "2")
        done = play("--limit", "pve8")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", PRIMARIES)
def test_a_ups_that_is_not_there(on, lab, play, name):
    """It is no mistake of the host's: all else is deployed, and the run says what is missing. Unless it must be there."""
    lab.control_ups(name, "unplug", "--port", "1")
    try:
        wait_until(lambda: read_status(on(name)) == [], 30, "data are stale")
        done = play("--limit", name, *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}))
        assert done.returncode == 0, done.stdout
        assert f"{name}: upsd has no fresh data for ups: DATA-STALE. Is the UPS plugged in and switched on?" in said(
            done
        )
        # its driver ends, too, where it never found one
        on(name).check_output("systemctl restart nut-driver@ups || true")
        done = play("--limit", name, *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}))
        assert done.returncode == 0, done.stdout
        assert (
            f"{name}: upsd has no fresh data for ups: DRIVER-NOT-CONNECTED. Is the UPS plugged in and switched on?"
            in said(done)
        )
        done = play(
            "--limit",
            name,
            *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}, nut_server_require_ups=True, nut_server_wait=3),
        )
        assert done.returncode != 0
        assert "has no fresh data for ups: DRIVER-NOT-CONNECTED" in said(done)
    finally:
        lab.control_ups(name, "replug", "--port", "1")
    wait_until(lambda: read_status(on(name))[:1] == ["OL"], 60, "on mains again")
    done = play("--limit", name)
    assert done.returncode == 0, done.stdout


def test_a_driver_that_does_not_find_its_ups_among_others(on, play):
    """The UPS is there, and another one is meant: this driver finds none, which is said."""
    wanted = [{"name": "ups"}, {"name": "other", "vendorid": "09ae"}]
    try:
        done = play("--limit", "pve9", *extra_vars(nut_server_devices=wanted))
        assert done.returncode == 0, done.stdout
        assert "pve9: upsd has no fresh data for other: DRIVER-NOT-CONNECTED" in said(done)
        assert read_status(on("pve9"))[0] == "OL"
    finally:
        done = play("--limit", "pve9")
    assert done.returncode == 0, done.stdout
