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

SERVED = 240.0  # seconds from plug to OL; 15 to 25 on two cores that have nothing else to do
STALE = 240.0  # and for all that is shorter

READY_TO_DIE = {
    # the section is written, its driver is stopped, and nothing has been started yet
    "written": 'was=$(stat -c %i /etc/nut/ups.conf); until [ "$(stat -c %i /etc/nut/ups.conf)" != "$was" ]; do sleep 0.05; done',
    "begun": "until systemctl show --property=ActiveState nut-hotplug.service | grep -q =activating; do sleep 0.05; done",
}


def served(host: Host, ups: str = "ups") -> bool:
    """Say whether upsd serves a UPS, on mains."""
    return read_status(host, ups)[:1] == ["OL"]


def maker(host: Host, ups: str = "ups") -> str:
    """Return who made the UPS that upsd serves under a name."""
    return host.run("upsc %s@localhost device.mfr 2>/dev/null", ups).stdout.strip()


def trouble(host: Host, ups: str = "ups") -> str:
    """Return what upsd says of a UPS that it has no data of."""
    return host.run("upsc %s@localhost ups.status 2>&1 >/dev/null", ups).stdout.strip().rpartition("Error: ")[2]


def sections(host: Host) -> dict[str, dict[str, str]]:
    """Return ups.conf's sections, each with its keys."""
    found: dict[str, dict[str, str]] = {}
    for line in host.check_output("cat /etc/nut/ups.conf").splitlines():
        if match := re.fullmatch(r"\[(.+)\]", line.strip()):
            found[match[1]] = {}
        elif found and (match := re.fullmatch(r'(\w+) = "(.*)"', line.strip())):
            found[list(found)[-1]][match[1]] = match[2]
    return found


def told(host: Host) -> Mapping[str, Any]:
    """Return what `nut-hotplug status` says."""
    return json.loads(host.check_output("nut-hotplug status --json"))


def node(host: Host, ids: str) -> str:
    """Return owner, group and mode of the device node that has these ids."""
    match = re.search(rf"Bus (\d+) Device (\d+): ID {ids}", host.check_output("lsusb"))
    assert match, f"{ids} is not on the bus"
    return host.check_output("stat --format='%%U:%%G %%a' /dev/bus/usb/%s/%s", match[1], match[2])


def at_rest(host: Host) -> bool:
    """Say whether no run of the agent is at work."""
    return show_unit(host, "nut-hotplug.service", "ActiveState") == "inactive"


def settled(host: Host, vendor: str, ups: str = "ups") -> bool:
    """Say whether a UPS of this vendor id is served, and the agent done."""
    seen = host.run("upsc %s@localhost ups.vendorid 2>/dev/null", ups).stdout.strip()
    return seen == vendor and served(host, ups) and at_rest(host)


def test_plugged_in(vm: Vm, host: Host) -> None:
    """Udev's rule starts the agent, which completes the section, and the driver gives data; nothing stays behind."""
    assert trouble(host) == "Driver not connected"
    assert "vendorid" not in sections(host)["ups"]
    vm.control_ups("plug", "apc", "--port", "1")
    wait_until(lambda: settled(host, "051d"), SERVED, "the UPS is served")
    assert maker(host) == "American Power Conversion"
    section = sections(host)["ups"]
    assert section["driver"] == "usbhid-ups"
    assert node(host, "051d:0002") == "root:nut 664"
    # by udev, and not by the timer
    assert "SYSTEMD_WANTS=nut-hotplug.service" in host.check_output(
        "udevadm info --query=property /sys/bus/usb/devices/1-1"
    )
    seen = told(host)
    assert [ups["name"] for ups in seen["upses"]] == ["ups"]
    assert seen["would_do"] == []
    journal = host.check_output("journalctl --unit=nut-hotplug.service --output=cat")
    if "vendorid" in section:
        assert (section["vendorid"], section["productid"]) == ("051d", "0002")
        assert "[ups] is 051d:0002" in journal
    else:
        # systemd tries the driver every 15 s, and one that was faster than the agent is not restarted for its section's sake
        assert "deferred: [ups]" in journal
    # mains fail and return: the driver listens to the interrupt pipe
    vm.control_ups("mains", "off")
    wait_until(lambda: read_status(host)[:1] == ["OB"], STALE, "on battery")
    vm.control_ups("mains", "on")
    wait_until(lambda: served(host), STALE, "on mains again")


def test_pulled_out_and_put_into_another_port(vm: Vm, host: Host) -> None:
    """The name stays while the UPS is away, upsd tells the truth, and it is served from any port."""
    vm.control_ups("plug", "apc", "--port", "1")
    wait_until(lambda: settled(host, "051d"), SERVED, "the UPS is served")
    vm.control_ups("unplug")
    wait_until(lambda: trouble(host) == "Data stale", STALE, "upsd says that the data are stale")
    wait_until(lambda: at_rest(host), STALE, "the agent has ended")
    assert list(sections(host)) == ["ups"]
    assert [ups["name"] for ups in told(host)["absent"]] == ["ups"]
    before = nut_processes(host)
    vm.control_ups("replug", "--port", "1", "--to", "5")
    wait_until(lambda: served(host), SERVED, "the UPS is served from the other port")
    wait_until(lambda: at_rest(host), STALE, "the agent has ended")
    # the driver found it by itself, so nobody touched it
    assert before.items() <= nut_processes(host).items()


def test_swapped_for_another_make(vm: Vm, host: Host) -> None:
    """Another UPS takes over the name."""
    vm.control_ups("plug", "apc", "--port", "1")
    wait_until(lambda: settled(host, "051d"), SERVED, "the first is served")
    vm.control_ups("unplug")
    vm.control_ups("plug", "cps", "--port", "1")
    wait_until(lambda: maker(host) == "CPS" and served(host), SERVED, "the second is served under the same name")
    assert list(sections(host)) == ["ups"]


def test_two_at_once(vm: Vm, host: Host) -> None:
    """Both are served, one under the name that was declared, one under the next."""
    vm.control_ups("plug", "apc", "--port", "1")
    vm.control_ups("plug", "cps", "--port", "2")
    wait_until(lambda: served(host) and served(host, "ups2"), 2 * SERVED, "both are served")
    assert {maker(host), maker(host, "ups2")} == {"American Power Conversion", "CPS"}
    assert list(sections(host)) == ["ups", "ups2"]


def test_a_ups_that_no_shipped_rule_knows(vm: Vm, host: Host) -> None:
    """Drivers may use it by our rule, and the agent says why it is not served."""
    vm.control_ups("plug", "ecoflow", "--port", "1")
    wait_until(lambda: bool(told(host)["upses"]), SERVED, "the agent sees it")
    assert node(host, "3746:ffff") == "root:nut 664"
    (ups,) = told(host)["upses"]
    assert ups["ids"] == "3746:ffff"
    assert ups["driver"] == "usbhid-ups"
    # NUT has a subdriver for it from 2.8.3 on
    assert "2.8.3" in ups["not_served"]
    wait_until(lambda: "3746:ffff" in host.run("cat /var/log/nut/hotplug.log").stdout, STALE, "the log tells of it")


def test_a_firmware_that_hangs(vm: Vm, host: Host) -> None:
    """It answers nothing for a while, then works again: served again, by a driver that recovered or was restarted with a reason."""
    vm.control_ups("plug", "apc", "--port", "1")
    wait_until(lambda: settled(host, "051d"), SERVED, "the UPS is served")
    vm.control_ups("hang", "nak")
    wait_until(lambda: trouble(host) != "", STALE, "upsd has no data")
    vm.control_ups("unhang")
    wait_until(lambda: served(host), 2 * SERVED, "the UPS is served again")
    for entry in told(host)["history"]:
        assert entry["reason"], entry


def test_cold_boot_without_it(vm: Vm, host: Host) -> None:
    """A machine that starts while its UPS is away is a machine without trouble, and serves the UPS when that comes."""
    host.check_output("sync")
    vm.cut_power()
    vm.boot_machine()
    assert trouble(host) == "Driver not connected"
    assert list(sections(host)) == ["ups"]
    assert host.service("nut-server").is_running
    assert host.service("nut-hotplug.timer").is_running
    vm.control_ups("plug", "cps", "--port", "3")
    wait_until(lambda: served(host), SERVED, "the UPS is served")


@pytest.mark.parametrize("moment", READY_TO_DIE)
def test_power_loss_in_a_run(vm: Vm, host: Host, moment: str) -> None:
    """The machine dies while the agent works. It boots, and ends where it would have come without that."""
    waits = subprocess.Popen(
        ["ssh", "-F", str(vm.ssh_config), vm.name, f"echo ready; {READY_TO_DIE[moment]}; echo now"],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert waits.stdout
    assert waits.stdout.readline().strip() == "ready"
    # the second one has no section yet, so that there is something to write
    vm.control_ups("plug", "apc", "--port", "1")
    vm.control_ups("plug", "cps", "--port", "2")
    assert waits.stdout.readline().strip() == "now"
    vm.cut_power()
    waits.wait(timeout=30)
    vm.boot_machine()
    wait_until(lambda: served(host) and served(host, "ups2") and at_rest(host), 2 * SERVED, "both are served")
    assert {maker(host), maker(host, "ups2")} == {"American Power Conversion", "CPS"}
    assert list(sections(host)) == ["ups", "ups2"]
    assert host.check_output("findmnt --noheadings --output=OPTIONS /").startswith("rw")
    assert told(host)["would_do"] == []
    left = host.check_output("ls -A /etc/nut /var/lib/nut-hotplug").split()
    assert not [name for name in left if name.startswith(".") or "tmp" in name]
