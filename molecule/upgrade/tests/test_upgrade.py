# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host whose NUT was configured by hand: taken over without a loss, then removed without a trace that acts, then deployed again."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from homelab import Lab, run_podman
from support import (
    count_changes,
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
# in the hand-written files
OLD_SECRETS = ("adm1n", "local#pass", "remote-pass")
ABSENT = ("--limit", "pve8", *extra_vars(nut_server_state="absent"))


@pytest.fixture(scope="module")
def pve(on: Callable[[str], Host]) -> Host:
    """Return the host that is taken over."""
    return on("pve8")


def read_permissions(host: Host, name: str) -> tuple[str, str, str]:
    """Return owner, group and mode of a file in /etc/nut."""
    found = host.file(f"/etc/nut/{name}")
    return found.user, found.group, oct(found.mode)


def list_driver_units(host: Host) -> set[str]:
    """Return the drivers' units that start at boot, and those that are loaded."""
    found = host.check_output("ls /etc/systemd/system/*.wants/").split()
    listed = host.check_output("systemctl list-units --all --plain --no-legend 'nut-driver@*'")
    found += [line.split()[0] for line in listed.splitlines()]
    return {unit for unit in found if unit.startswith("nut-driver@")}


def test_hand_written_configuration_is_odd_enough(pve):
    """Else the other tests prove nothing. Two sections have names unfit for a unit; the enumerator chose others."""
    assert list(ups_conf.parse_ups_conf((BEFORE / "ups.conf").read_text()).sections) == [
        "myups",
        "ups",
        "old,ups",
        "old/ups",
    ]
    output = pve.check_output("journalctl -o cat -u nut-driver-enumerator.service")
    assert "Enabled instance: 'nut-driver@MD5_" in output
    assert "/etc/systemd/system/nut-driver.target.wants/nut-driver@old\\x2cups.service" in output


def test_upsd_serves_the_ups_of_the_inventory(pve):
    """The name `ups` belonged to a dummy; now it is the UPS on the USB bus, which had another name."""
    assert pve.check_output("upsc -l localhost 2>/dev/null").split() == ["ups"]
    told = dict(line.split(": ", 1) for line in pve.check_output("upsc ups@localhost 2>/dev/null").splitlines())
    assert told["driver.name"] == "usbhid-ups"
    assert told["ups.status"].split()[0] == "OL"
    assert told["device.serial"] == "5B1234T56789"
    clients = pve.check_output("upsc -c ups@localhost 2>/dev/null").split()
    addresses = {pve.check_output("getent ahostsv4 %s", name).split()[0] for name in ("truenas", "media")}
    assert addresses < set(clients)


def test_old_sections_leave_no_unit(pve):
    """A leftover driver would look for a UPS forever, or hold the UPS of another driver."""
    assert list_driver_units(pve) == {"nut-driver@ups.service"}
    listed = pve.check_output("ps -e -o args=").splitlines()
    assert not [line for line in listed if "dummy-ups" in line or "myups" in line]
    assert not pve.service("nut-driver-enumerator.path").is_enabled
    assert pve.check_output("systemctl --failed --no-legend") == ""


def test_daemons_run_as_nut_again(pve):
    """The hand-written file had RUN_AS_USER root."""
    assert pve.check_output("ps -o user= -C upsd").split() == ["nut"]
    assert sorted(pve.check_output("ps -o user= -C upsmon").split()) == ["nut", "root"]


def test_files_are_readable_by_root_and_nut_only(pve):
    """The hand-written files were readable by every user."""
    for name in FILES:
        assert read_permissions(pve, name) == ("root", "nut", "0o640"), name


@pytest.mark.parametrize("name", FILES)
def test_hand_written_file_is_kept_as_a_copy(pve, name):
    """Unchanged, beside the new file, and readable by root and nut only."""
    copy = pve.file(f"/etc/nut/{name}.before-homelab-nut")
    assert copy.content_string == (BEFORE / name).read_text()
    assert read_permissions(pve, f"{name}.before-homelab-nut") == ("root", "nut", "0o640")
    assert "Written by Ansible" in pve.file(f"/etc/nut/{name}").content_string.splitlines()[0]


def test_drop_in_of_the_user_is_kept(pve):
    """Only the enumerator's own drop-ins come and go."""
    drop_in = pve.file("/etc/systemd/system/nut-driver@.service.d/wait-for-usb.conf")
    assert drop_in.content_string == (BEFORE / "wait-for-usb.conf").read_text()
    assert "sleep" in pve.check_output("systemctl show --property=ExecStartPre --value nut-driver@ups.service")


@pytest.fixture(scope="module")
def output() -> str:
    """Return the output of the play that took the host over."""
    told = Path(os.environ["PLAYS_LOG"]).read_text()
    prepared = told.rindex("PLAY [Configure NUT as a user would by hand]")
    return told[told.index("PLAY [Check the command line", prepared) :]


def test_leftover_powerdownflag_is_reported(pve, output):
    """It would cut the power at the next reboot. Only the user can decide whether to remove it."""
    assert re.search(r"WARNING\]?:\s+pve8:\s+an\s+earlier\s+shutdown\s+left\s+/etc/killpower\s", output)
    assert pve.file("/etc/killpower").exists


def test_diff_of_the_takeover_shows_no_secret(output):
    """The diff is of files that contain old and new passwords."""
    assert "+++" in output
    assert not [secret for secret in (*OLD_SECRETS, *read_passwords()) if secret in output]


def test_second_play_changes_nothing(pve, play):
    """The copies stay those of the first play."""
    before = nut_processes(pve)
    done = play()
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("changed=0") == 3
    assert before.items() <= nut_processes(pve).items()
    assert pve.file("/etc/nut/ups.conf.before-homelab-nut").content_string == (BEFORE / "ups.conf").read_text()


def test_upsd_killed_during_a_play_is_started_again(pve, lab, start):
    """In Debian 12, systemd does not restart a daemon of NUT that dies."""
    killer = kill_upsd_when_replaced(lab, "pve8", "/etc/nut/upsd.conf")
    again = ("--limit", "pve8", *extra_vars(nut_server_upsd_conf={"MAXAGE": 19}))
    done = wait_for_end(start(*again))
    assert wait_for_end(killer, 60).returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode:
        # the play may report the dead daemon; then the next play starts it
        assert "nut-server" in done.stdout + done.stderr, done.stdout
        assert wait_for_end(start(*again)).returncode == 0
    wait_until(lambda: read_status(pve)[:1] == ["OL"], 30, "upsd to serve the UPS again")
    assert "\nMAXAGE 19\n" in pve.file("/etc/nut/upsd.conf").content_string


# Uninstalling


@pytest.fixture(scope="module")
def removed(pve, play):
    """Remove NUT's configuration."""
    done = play(*ABSENT)
    assert done.returncode == 0, done.stdout
    return done


@pytest.mark.usefixtures("removed")
def test_absent_stops_and_disables_every_unit(pve):
    """No process of NUT runs, and none starts at boot."""
    assert nut_processes(pve) == {}
    assert list_driver_units(pve) == set()
    for name in UNITS:
        assert pve.run("systemctl is-active %s", name).stdout.strip() == "inactive", name
        assert pve.run("systemctl is-enabled %s", name).stdout.strip() != "enabled", name
    assert pve.check_output("systemctl --failed --no-legend") == ""


@pytest.mark.usefixtures("removed")
def test_absent_removes_every_secret_of_the_role(pve):
    """The copies of hand-written files stay, readable by root and nut only."""
    listed = pve.check_output("ls -A /etc/nut").split()
    for name in listed:
        if name not in COPIES and pve.file(f"/etc/nut/{name}").is_file:
            text = pve.file(f"/etc/nut/{name}").content_string
            assert not [secret for secret in (*read_passwords(), *OLD_SECRETS) if secret in text], name
    assert set(COPIES) <= set(listed)
    assert all(read_permissions(pve, name) == ("root", "nut", "0o640") for name in COPIES)


@pytest.mark.usefixtures("removed")
def test_shutdown_without_nut_leaves_the_ups_alone(pve: Host, lab: Lab):
    """With a section in ups.conf or a leftover flag, Debian's NUT would cut the power at every reboot, even with MODE=none."""
    assert not ups_conf.parse_ups_conf(pve.file("/etc/nut/ups.conf").content_string).sections
    assert pve.file("/etc/killpower").exists
    told = json.loads(lab.control_ups("pve8", "status", "--json"))["upses"][0]["events"]
    pve.run("/sbin/upsdrvctl shutdown")
    pve.check_output("/lib/systemd/system-shutdown/nutshutdown poweroff; true")
    (ups,) = json.loads(lab.control_ups("pve8", "status", "--json"))["upses"]
    assert ups["events"] == told
    assert ups["outlets"]
    assert ups["shutdown_in"] < 0


@pytest.mark.usefixtures("removed")
def test_absent_is_idempotent(play):
    done = play(*ABSENT)
    assert done.returncode == 0, done.stdout
    assert count_changes(done.stdout) == 0


@pytest.mark.usefixtures("removed")
def test_host_can_be_deployed_again(pve, play):
    """Like a new host. The copies are still those of the first play."""
    done = play()
    assert done.returncode == 0, done.stdout
    wait_until(lambda: read_status(pve)[:1] == ["OL"], 30, "upsd to serve the UPS")
    assert list_driver_units(pve) == {"nut-driver@ups.service"}
    assert pve.file("/etc/nut/ups.conf.before-homelab-nut").content_string == (BEFORE / "ups.conf").read_text()
    again = play()
    assert again.stdout.count("changed=0") == 3


@pytest.mark.long
@pytest.mark.usefixtures("removed")
def test_host_is_upgraded_in_place_to_the_next_debian(pve: Host, lab: Lab, play):
    """As docs/troubleshooting.md says: dpkg keeps the files, and a run before the reboot writes what the new NUT knows."""
    pve.check_output("sed -i s/bookworm/trixie/ /etc/apt/sources.list && apt-get --quiet update")
    before = {name: pve.file(f"/etc/nut/{name}").content_string for name in FILES}
    pve.check_output(
        "DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes -o Dpkg::Options::=--force-confold dist-upgrade"
    )
    assert pve.check_output("dpkg-query --show --showformat='${Version}' nut-server").startswith("2.8.1")
    assert {name: pve.file(f"/etc/nut/{name}").content_string for name in FILES} == before
    done = play()
    assert done.returncode == 0, done.stdout
    run_podman("restart", lab.container_name("pve8"))
    wait_until(lambda: read_status(pve)[:1] == ["OL"], 120, "upsd to serve the UPS after the reboot")
    wait_until(
        lambda: len(pve.run("upsc -c ups@localhost 2>/dev/null").stdout.split()) == 3, 60, "all upsmons to log in"
    )
    again = play()
    assert again.returncode == 0, again.stdout
    assert count_changes(again.stdout) == 0
