# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that was configured by hand: taken over with nothing lost, then rid of NUT with nothing left that acts, then taken on again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from homelab import Lab
from support import (
    extra_vars,
    kill_upsd_when_replaced,
    nut_processes,
    read_passwords,
    read_status,
    wait_for_end,
    wait_until,
)
from testinfra.host import Host

BEFORE = Path(__file__).resolve().parents[1] / "files"
FILES = ("nut.conf", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf", "upssched.conf")
COPIES = tuple(f"{name}.before-homelab-nut" for name in FILES)
UNITS = ("nut-server.service", "nut-monitor.service", "nut-driver.target", "nut-driver-enumerator.path", "nut.target")
# in the files that were there before
OLD_SECRETS = ("adm1n", "local#pass", "remote-pass")
ABSENT = ("--limit", "pve8", *extra_vars(nut_server_state="absent"))


@pytest.fixture(scope="module")
def pve(on: Callable[[str], Host]) -> Host:
    """Return the host."""
    return on("pve8")


def who_may(host: Host, name: str) -> tuple[str, str, str]:
    """Return owner, group and mode of a file of NUT's."""
    found = host.file(f"/etc/nut/{name}")
    return found.user, found.group, oct(found.mode)


def instances(host: Host) -> set[str]:
    """Name the drivers' units that start at boot, and those that run, or try to."""
    found = host.check_output("ls /etc/systemd/system/*.wants/").split()
    listed = host.check_output("systemctl list-units --all --plain --no-legend 'nut-driver@*'")
    found += [line.split()[0] for line in listed.splitlines()]
    return {one for one in found if one.startswith("nut-driver@")}


def test_what_was_there_was_odd(pve):
    """So that the rest proves something: two sections whose names are none for a unit, which got others, and never worked."""
    assert list(ups_conf.parse_ups_conf((BEFORE / "ups.conf").read_text()).sections) == [
        "myups",
        "ups",
        "old,ups",
        "old/ups",
    ]
    said = pve.check_output("journalctl -o cat -u nut-driver-enumerator.service")
    assert "Enabled instance: 'nut-driver@MD5_" in said
    assert "/etc/systemd/system/nut-driver.target.wants/nut-driver@old\\x2cups.service" in said


def test_it_serves_what_the_inventory_says(pve):
    """The name ups was a dummy's; now it is the UPS on the bus, which had another name."""
    assert pve.check_output("upsc -l localhost 2>/dev/null").split() == ["ups"]
    told = dict(line.split(": ", 1) for line in pve.check_output("upsc ups@localhost 2>/dev/null").splitlines())
    assert told["driver.name"] == "usbhid-ups"
    assert told["ups.status"].split()[0] == "OL"
    assert told["device.serial"] == "5B1234T56789"
    clients = pve.check_output("upsc -c ups@localhost 2>/dev/null").split()
    addresses = {pve.check_output("getent ahostsv4 %s", name).split()[0] for name in ("truenas", "media")}
    assert addresses < set(clients)


def test_old_sections_leave_no_unit(pve):
    """One that stays would look for a UPS for ever, or hold the one that another needs."""
    assert instances(pve) == {"nut-driver@ups.service"}
    listed = pve.check_output("ps -e -o args=").splitlines()
    assert not [line for line in listed if "dummy-ups" in line or "myups" in line]
    assert not pve.service("nut-driver-enumerator.path").is_enabled
    assert pve.check_output("systemctl --failed --no-legend") == ""


def test_the_daemons_run_as_they_should(pve):
    """RUN_AS_USER root is gone with the file that said so."""
    assert pve.check_output("ps -o user= -C upsd").split() == ["nut"]
    assert sorted(pve.check_output("ps -o user= -C upsmon").split()) == ["nut", "root"]


def test_everybody_could_read_the_passwords(pve):
    """And can no more."""
    for name in FILES:
        assert who_may(pve, name) == ("root", "nut", "0o640"), name


@pytest.mark.parametrize("name", FILES)
def test_what_somebody_wrote_is_kept(pve, name):
    """To the letter, beside the new file, and also for nobody else to read."""
    copy = pve.file(f"/etc/nut/{name}.before-homelab-nut")
    assert copy.content_string == (BEFORE / name).read_text()
    assert who_may(pve, f"{name}.before-homelab-nut") == ("root", "nut", "0o640")
    assert "Written by Ansible" in pve.file(f"/etc/nut/{name}").content_string.splitlines()[0]


def test_a_drop_in_is_its_owners(pve):
    """Only the enumerator's own ones come and go."""
    drop_in = pve.file("/etc/systemd/system/nut-driver@.service.d/wait-for-usb.conf")
    assert drop_in.content_string == (BEFORE / "wait-for-usb.conf").read_text()
    assert "sleep" in pve.check_output("systemctl show --property=ExecStartPre --value nut-driver@ups.service")


@pytest.fixture(scope="module")
def said() -> str:
    """Return what the play said that took the host over."""
    told = Path(os.environ["PLAYS_LOG"]).read_text()
    prepared = told.rindex("PLAY [A host with NUT, configured by hand]")
    return told[told.index("PLAY [Check the command line", prepared) :]


def test_a_flag_that_was_left_was_reported(pve, said):
    """It would have cut the power at the next reboot. Whether it may go is for its owner to say."""
    assert re.search(r"WARNING\]?:\s+pve8:\s+/etc/killpower ", said)
    assert pve.file("/etc/killpower").exists


def test_the_take_over_gave_nothing_away(said):
    """The differences that it showed are those of files with passwords, old ones and new ones."""
    assert "+++" in said
    assert not [secret for secret in (*OLD_SECRETS, *read_passwords()) if secret in said]


def test_a_second_play_changes_nothing(pve, play):
    """The copies, too, stay those of the first."""
    before = nut_processes(pve)
    done = play()
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == 3
    assert before.items() <= nut_processes(pve).items()
    assert pve.file("/etc/nut/ups.conf.before-homelab-nut").content_string == (BEFORE / "ups.conf").read_text()


def test_upsd_is_killed_during_a_play(pve, lab, start):
    """NUT of Debian 12 does not start a daemon again that dies."""
    killer = kill_upsd_when_replaced(lab, "pve8", "/etc/nut/upsd.conf")
    again = ("--limit", "pve8", *extra_vars(nut_server_upsd_conf={"MAXAGE": 19}))
    done = wait_for_end(start(*again))
    assert wait_for_end(killer, 60).returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode:
        # then it says what is dead, and that much is done by the next one
        assert "nut-server" in done.stdout + done.stderr, done.stdout
        assert wait_for_end(start(*again)).returncode == 0
    wait_until(lambda: read_status(pve)[:1] == ["OL"], 30, "upsd serves again")
    assert "\nMAXAGE 19\n" in pve.file("/etc/nut/upsd.conf").content_string


# Away with it


@pytest.fixture(scope="module")
def absent(pve, play):
    """Take NUT's configuration away."""
    done = play(*ABSENT)
    assert done.returncode == 0, done.stdout
    return done


@pytest.mark.usefixtures("absent")
def test_nothing_of_nut_runs_or_will(pve):
    """Not now and not at boot."""
    assert nut_processes(pve) == {}
    assert instances(pve) == set()
    for name in UNITS:
        assert pve.run("systemctl is-active %s", name).stdout.strip() == "inactive", name
        assert pve.run("systemctl is-enabled %s", name).stdout.strip() != "enabled", name
    assert pve.check_output("systemctl --failed --no-legend") == ""


@pytest.mark.usefixtures("absent")
def test_no_secret_of_ours_is_left(pve):
    """What somebody wrote by hand is theirs, and stays, for nobody else to read."""
    listed = pve.check_output("ls -A /etc/nut").split()
    for name in listed:
        if name not in COPIES and pve.file(f"/etc/nut/{name}").is_file:
            text = pve.file(f"/etc/nut/{name}").content_string
            assert not [secret for secret in (*read_passwords(), *OLD_SECRETS) if secret in text], name
    assert set(COPIES) <= set(listed)
    assert all(who_may(pve, name) == ("root", "nut", "0o640") for name in COPIES)


@pytest.mark.usefixtures("absent")
def test_the_end_of_a_shutdown_leaves_the_ups_alone(pve: Host, lab: Lab):
    """With MODE=none and a section in ups.conf, Debian's NUT would cut the power at every reboot; so would a flag that is left."""
    assert not ups_conf.parse_ups_conf(pve.file("/etc/nut/ups.conf").content_string).sections
    assert pve.file("/etc/killpower").exists
    told = json.loads(lab.control_ups("pve8", "status", "--json"))["upses"][0]["events"]
    pve.run("/sbin/upsdrvctl shutdown")
    pve.check_output("/lib/systemd/system-shutdown/nutshutdown poweroff; true")
    (ups,) = json.loads(lab.control_ups("pve8", "status", "--json"))["upses"]
    assert ups["events"] == told
    assert ups["outlets"]
    assert ups["shutdown_in"] < 0


@pytest.mark.usefixtures("absent")
def test_away_is_away(play):
    """A second such play has nothing to do."""
    done = play(*ABSENT)
    assert done.returncode == 0, done.stdout
    assert "changed=0" in done.stdout


@pytest.mark.usefixtures("absent")
def test_and_back_again(pve, play):
    """As if it were a new host; the copies are still those of the first time."""
    done = play()
    assert done.returncode == 0, done.stdout
    wait_until(lambda: read_status(pve)[:1] == ["OL"], 30, "it serves")
    assert instances(pve) == {"nut-driver@ups.service"}
    assert pve.file("/etc/nut/ups.conf.before-homelab-nut").content_string == (BEFORE / "ups.conf").read_text()
    again = play()
    assert again.stdout.count("changed=0") == 3
