# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deployment that stands: what upsd serves, who logged in, what runs at boot, who may read what."""

from __future__ import annotations

import json
import stat

import pytest
from homelab import CHECKOUT
from support import nut_processes, read_passwords

PRIMARIES = ("pve8", "pve9")
RELEASES = {"pve8": "2.8.0", "pve9": "2.8.1"}
SECONDARIES = {"truenas": "pve8", "media": "pve8", "truenas9": "pve9"}
FILES = ("nut.conf", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf")


@pytest.mark.parametrize("name", PRIMARIES)
def test_the_primary_serves_its_ups(on, name):
    """Debian's own driver reads the UPS on the USB bus."""
    host = on(name)
    told = dict(line.split(": ", 1) for line in host.check_output("upsc ups@localhost 2>/dev/null").splitlines())
    assert told["ups.status"].split()[0] == "OL"
    assert told["driver.name"] == "usbhid-ups"
    assert told["driver.version"].startswith(RELEASES[name])
    assert 0 < int(told["battery.charge"]) <= 100
    assert int(told["battery.runtime"]) > 0


@pytest.mark.parametrize(("name", "primary"), SECONDARIES.items())
def test_each_secondary_is_a_client_of_its_primary(on, name, primary):
    """What upsd lists is who really logged in."""
    clients = on(primary).check_output("upsc -c ups@localhost 2>/dev/null").split()
    address = on(primary).check_output("getent hosts %s", name).split()[0]
    assert address in clients


@pytest.mark.parametrize("name", [*PRIMARIES, "media"])
def test_all_starts_at_boot_and_only_what_should(on, name):
    """After a power cut nobody is there to start anything."""
    host = on(name)
    wanted = (
        ["nut-monitor"] if name == "media" else ["nut-server", "nut-monitor", "nut-driver@ups", "nut-driver.target"]
    )
    for unit in wanted:
        assert host.service(unit).is_enabled, unit
        assert host.service(unit).is_running, unit
    if name != "media":
        # it would race with the role at each write of ups.conf
        assert not host.service("nut-driver-enumerator.path").is_enabled
        assert host.run("systemctl is-active nut-driver-enumerator.path").stdout.strip() == "inactive"
    assert host.check_output("systemctl --failed --no-legend") == ""


@pytest.mark.parametrize("name", [*PRIMARIES, "media"])
def test_files_are_for_nut_alone(on, name):
    """Passwords are in them."""
    host = on(name)
    for file in FILES if name != "media" else ("nut.conf", "upsmon.conf"):
        found = host.file(f"/etc/nut/{file}")
        assert (found.user, found.group, oct(found.mode)) == ("root", "nut", "0o640"), file
        assert found.content_string.endswith("\n")
        assert "Written by Ansible" in found.content_string.splitlines()[0]
    # nothing is left of the scratch directories and files
    assert (
        host.check_output("find /etc/nut /run -maxdepth 1 -name '.*.conf*' -o -maxdepth 1 -name 'nut-*' -type d") == ""
    )


@pytest.mark.parametrize("name", PRIMARIES)
def test_the_shutdown_waits_for_truenas(on, name):
    """HOSTSYNC ends when TrueNAS begins to go down. From there on nut-shutdown waits, which knows each secondary and sees it."""
    told = on(name).file("/etc/nut/upsmon.conf").content_string
    assert "\nFINALDELAY 2\n" in told
    assert '\nSHUTDOWNCMD "/bin/systemctl start --no-block nut-shutdown.service || /sbin/shutdown -h +0"\n' in told
    assert "\nHOSTSYNC 30\n" in told
    seen = json.loads(on(name).check_output("nut-shutdown status --json"))
    mine = {secondary for secondary, primary in SECONDARIES.items() if primary == name}
    assert {one["name"]: one["up"] for one in seen["hosts"]} == dict.fromkeys(mine, True)
    assert [(one["on_battery"], one["runtime"] > 60) for one in seen["upses"]] == [(False, True)]
    assert "\nPOWERDOWNFLAG /run/nut-killpower\n" in told


def test_each_login_can_do_no_more_than_it_must(on):
    """A secondary's password does not let anybody shut down the others."""
    told = on("pve8").file("/etc/nut/upsd.users").content_string
    assert told.count("upsmon primary") == 1
    assert told.count("upsmon secondary") == 2
    assert "actions" not in told
    assert "instcmds" not in told


def test_passwords_are_kept_for_the_owner_alone():
    """They are made once, one a host."""
    folder = CHECKOUT / "inventories" / "lab" / ".homelab-nut" / "passwords"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in (*PRIMARIES, *SECONDARIES):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert len(set(read_passwords())) == len(read_passwords())


def test_a_second_play_restarts_nothing(on, play):
    """Seen by the processes themselves, not by Ansible's word."""
    hosts = (*PRIMARIES, *SECONDARIES)
    before = {name: nut_processes(on(name)) for name in hosts}
    assert all(before.values())
    done = play("-vvv")
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout
    assert all(before[name].items() <= nut_processes(on(name)).items() for name in hosts)
    for secret in read_passwords():
        assert secret not in done.stdout + done.stderr


def test_no_password_in_a_process_list(on):
    """Command lines are for all to read."""
    for name in (*PRIMARIES, *SECONDARIES):
        listed = on(name).check_output("ps -e -o args=")
        assert not any(secret in listed for secret in read_passwords())
