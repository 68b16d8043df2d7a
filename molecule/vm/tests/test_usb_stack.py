# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes at the ports of a real kernel: only what the roles installed acts, the tests plug and read.

An emulated processor takes ten to twenty times as long for all that is Python or shell, so the times allowed here say nothing of how
long it takes on a host.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest
from support import nut_processes, read_status, show_unit, wait_until
from testinfra.host import Host
from vm.client import Vm

SERVED = 240.0  # seconds from plug to OL; 15 to 25 on two idle cores
STALE = 240.0  # seconds for shorter waits

READY_TO_DIE = {
    # the section is written, its driver is stopped, and nothing is started yet
    "written": 'was=$(stat -c %i /etc/nut/ups.conf); until [ "$(stat -c %i /etc/nut/ups.conf)" != "$was" ]; do sleep 0.05; done',
    "begun": "until systemctl show --property=ActiveState nut-hotplug.service | grep -q =activating; do sleep 0.05; done",
}


def is_served(host: Host, ups: str = "ups") -> bool:
    """Return whether upsd serves a UPS that is on mains."""
    return read_status(host, ups)[:1] == ["OL"]


def read_manufacturer(host: Host, ups: str = "ups") -> str:
    """Return the manufacturer of the UPS that upsd serves under a name."""
    return host.run("upsc %s@localhost device.mfr 2>/dev/null", ups).stdout.strip()


def read_error(host: Host, ups: str = "ups") -> str:
    """Return upsd's error for a UPS without data."""
    return host.run("upsc %s@localhost ups.status 2>&1 >/dev/null", ups).stdout.strip().rpartition("Error: ")[2]


def read_sections(host: Host) -> dict[str, dict[str, str]]:
    """Return the sections of ups.conf with their keys."""
    found: dict[str, dict[str, str]] = {}
    for line in host.check_output("cat /etc/nut/ups.conf").splitlines():
        if match := re.fullmatch(r"\[(.+)\]", line.strip()):
            found[match[1]] = {}
        elif found and (match := re.fullmatch(r'(\w+) = "(.*)"', line.strip())):
            found[list(found)[-1]][match[1]] = match[2]
    return found


def read_hotplug_status(host: Host) -> Mapping[str, Any]:
    """Return the output of `nut-hotplug status --json`."""
    return json.loads(host.check_output("nut-hotplug status --json"))


def read_node_permissions(host: Host, ids: str) -> str:
    """Return owner, group and mode of the device node with these ids."""
    match = re.search(rf"Bus (\d+) Device (\d+): ID {ids}", host.check_output("lsusb"))
    assert match, f"{ids} is not on the bus"
    return host.check_output("stat --format='%%U:%%G %%a' /dev/bus/usb/%s/%s", match[1], match[2])


def is_agent_idle(host: Host) -> bool:
    """Return whether nut-hotplug is not running."""
    return show_unit(host, "nut-hotplug.service", "ActiveState") == "inactive"


def is_settled(host: Host, vendor: str, ups: str = "ups") -> bool:
    """Return whether upsd serves a UPS with this vendor id, and nut-hotplug has ended."""
    seen = host.run("upsc %s@localhost ups.vendorid 2>/dev/null", ups).stdout.strip()
    return seen == vendor and is_served(host, ups) and is_agent_idle(host)


def test_udev_starts_the_agent_and_upsd_serves_the_ups(vm: Vm, host: Host) -> None:
    """udev's rule starts nut-hotplug, which completes the section."""
    assert read_error(host) == "Driver not connected"
    assert "vendorid" not in read_sections(host)["ups"]
    vm.control_ups("plug", "apc", "--port", "1")
    wait_until(lambda: is_settled(host, "051d"), SERVED, "upsd to serve the UPS")
    assert read_manufacturer(host) == "American Power Conversion"
    section = read_sections(host)["ups"]
    assert section["driver"] == "usbhid-ups"
    assert read_node_permissions(host, "051d:0002") == "root:nut 664"
    # started by udev, not by the timer
    assert "SYSTEMD_WANTS=nut-hotplug.service" in host.check_output(
        "udevadm info --query=property /sys/bus/usb/devices/1-1"
    )
    seen = read_hotplug_status(host)
    assert [ups["name"] for ups in seen["upses"]] == ["ups"]
    assert seen["would_do"] == []
    journal = host.check_output("journalctl --unit=nut-hotplug.service --output=cat")
    if "vendorid" in section:
        assert (section["vendorid"], section["productid"]) == ("051d", "0002")
        assert "[ups] is 051d:0002" in journal
    else:
        # systemd starts the driver every 15 s. If it was faster than nut-hotplug, it is not restarted just for its section.
        assert "deferred: [ups]" in journal
    # cut and restore the mains: the driver reads the interrupt pipe
    vm.control_ups("mains", "off")
    wait_until(lambda: read_status(host)[:1] == ["OB"], STALE, "the UPS to be on battery")
    vm.control_ups("mains", "on")
    wait_until(lambda: is_served(host), STALE, "the UPS to be on mains again")


def test_running_driver_finds_ups_at_another_port(vm: Vm, host: Host) -> None:
    """The name stays while the UPS is unplugged, and upsd reports stale data."""
    vm.control_ups("plug", "apc", "--port", "1")
    wait_until(lambda: is_settled(host, "051d"), SERVED, "upsd to serve the UPS")
    vm.control_ups("unplug")
    wait_until(lambda: read_error(host) == "Data stale", STALE, "upsd to report stale data")
    wait_until(lambda: is_agent_idle(host), STALE, "nut-hotplug to end")
    assert list(read_sections(host)) == ["ups"]
    assert [ups["name"] for ups in read_hotplug_status(host)["absent"]] == ["ups"]
    before = nut_processes(host)
    vm.control_ups("replug", "--port", "1", "--to", "5")
    wait_until(lambda: is_served(host), SERVED, "upsd to serve the UPS from the other port")
    wait_until(lambda: is_agent_idle(host), STALE, "nut-hotplug to end")
    # the driver found it itself, so no process was restarted
    assert before.items() <= nut_processes(host).items()


def test_ups_of_another_manufacturer_takes_over_the_name(vm: Vm, host: Host) -> None:

    vm.control_ups("plug", "apc", "--port", "1")
    wait_until(lambda: is_settled(host, "051d"), SERVED, "upsd to serve the first UPS")
    vm.control_ups("unplug")
    vm.control_ups("plug", "cps", "--port", "1")
    wait_until(
        lambda: read_manufacturer(host) == "CPS" and is_served(host),
        SERVED,
        "upsd to serve the second UPS under the same name",
    )
    assert list(read_sections(host)) == ["ups"]


def test_two_upses_plugged_in_together_get_two_names(vm: Vm, host: Host) -> None:
    """One gets the declared name, the other the next automatic one."""
    vm.control_ups("plug", "apc", "--port", "1")
    vm.control_ups("plug", "cps", "--port", "2")
    wait_until(lambda: is_served(host) and is_served(host, "ups2"), 2 * SERVED, "upsd to serve both")
    assert {read_manufacturer(host), read_manufacturer(host, "ups2")} == {"American Power Conversion", "CPS"}
    assert list(read_sections(host)) == ["ups", "ups2"]


def test_ups_without_a_shipped_udev_rule_is_accessible_and_reported(vm: Vm, host: Host) -> None:
    """Our udev rule gives nut access, and nut-hotplug reports why upsd does not serve it."""
    vm.control_ups("plug", "ecoflow", "--port", "1")
    wait_until(lambda: bool(read_hotplug_status(host)["upses"]), SERVED, "nut-hotplug to find it")
    assert read_node_permissions(host, "3746:ffff") == "root:nut 664"
    (ups,) = read_hotplug_status(host)["upses"]
    assert ups["ids"] == "3746:ffff"
    assert ups["driver"] == "usbhid-ups"
    # NUT supports it from 2.8.3 on
    assert "2.8.3" in ups["not_served"]
    wait_until(lambda: "3746:ffff" in host.run("cat /var/log/nut/hotplug.log").stdout, STALE, "the log to mention it")


def test_ups_with_recovered_firmware_is_served_again(vm: Vm, host: Host) -> None:
    """By the driver that was running, or by one that nut-hotplug restarted with a reason."""
    vm.control_ups("plug", "apc", "--port", "1")
    wait_until(lambda: is_settled(host, "051d"), SERVED, "upsd to serve the UPS")
    vm.control_ups("hang", "nak")
    wait_until(lambda: read_error(host) != "", STALE, "upsd to have no data")
    vm.control_ups("unhang")
    wait_until(lambda: is_served(host), 2 * SERVED, "upsd to serve the UPS again")
    for entry in read_hotplug_status(host)["history"]:
        assert entry["reason"], entry


def test_cold_boot_without_ups_succeeds(vm: Vm, host: Host) -> None:
    """No unit fails, and upsd serves the UPS when it is plugged in."""
    host.check_output("sync")
    vm.cut_power()
    vm.boot_machine()
    assert read_error(host) == "Driver not connected"
    assert list(read_sections(host)) == ["ups"]
    assert host.service("nut-server").is_running
    assert host.service("nut-hotplug.timer").is_running
    vm.control_ups("plug", "cps", "--port", "3")
    wait_until(lambda: is_served(host), SERVED, "upsd to serve the UPS")


@pytest.mark.parametrize("moment", READY_TO_DIE)
def test_next_boot_finishes_the_work_of_a_run_cut_by_power_loss(vm: Vm, host: Host, moment: str) -> None:
    """The result is the same as without the power loss."""
    waits = subprocess.Popen(
        ["ssh", "-F", str(vm.ssh_config), vm.name, f"echo ready; {READY_TO_DIE[moment]}; echo now"],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert waits.stdout
    assert waits.stdout.readline().strip() == "ready"
    # the second UPS has no section yet, so nut-hotplug has something to write
    vm.control_ups("plug", "apc", "--port", "1")
    vm.control_ups("plug", "cps", "--port", "2")
    assert waits.stdout.readline().strip() == "now"
    vm.cut_power()
    waits.wait(timeout=30)
    vm.boot_machine()
    wait_until(
        lambda: is_served(host) and is_served(host, "ups2") and is_agent_idle(host), 2 * SERVED, "upsd to serve both"
    )
    assert {read_manufacturer(host), read_manufacturer(host, "ups2")} == {"American Power Conversion", "CPS"}
    assert list(read_sections(host)) == ["ups", "ups2"]
    assert host.check_output("findmnt --noheadings --output=OPTIONS /").startswith("rw")
    assert read_hotplug_status(host)["would_do"] == []
    left = host.check_output("ls -A /etc/nut /var/lib/nut-hotplug").split()
    assert not [name for name in left if name.startswith(".") or "tmp" in name]
