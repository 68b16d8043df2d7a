# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A complete deployment: what upsd serves, which secondaries are logged in, what starts at boot, file permissions."""

from __future__ import annotations

import json
import stat

import pytest
from homelab import CHECKOUT, cases
from support import NEWEST, count_changes, nut_processes, read_passwords, wait_until

PRIMARIES = ("pve8", "pve9", *NEWEST)
RELEASES = cases.RELEASES
SECONDARIES = {"truenas": "pve8", "media": "pve8", "truenas9": "pve9"}
if NEWEST:
    SECONDARIES |= {"truenas14": "pve14", "media14": "pve14"}
FILES = ("nut.conf", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf")


@pytest.mark.parametrize("name", PRIMARIES)
def test_primary_serves_its_ups(on, name):
    """Debian's driver reads the UPS on the USB bus."""
    host = on(name)
    served = dict(line.split(": ", 1) for line in host.check_output("upsc ups@localhost 2>/dev/null").splitlines())
    assert served["ups.status"].split()[0] == "OL"
    assert served["driver.name"] == "usbhid-ups"
    assert served["driver.version"].startswith(RELEASES[name])
    assert 0 < int(served["battery.charge"]) <= 100
    assert int(served["battery.runtime"]) > 0


@pytest.mark.parametrize(("name", "primary"), SECONDARIES.items())
def test_each_secondary_is_logged_in_to_its_primary(on, name, primary):

    clients = on(primary).check_output("upsc -c ups@localhost 2>/dev/null").split()
    address = on(primary).check_output("getent hosts %s", name).split()[0]
    assert address in clients


@pytest.mark.parametrize("name", [*PRIMARIES, "media"])
def test_exactly_the_needed_units_start_at_boot(on, name):
    """After a power cut nobody may be there to start anything by hand."""
    host = on(name)
    wanted = (
        ["nut-monitor"] if name == "media" else ["nut-server", "nut-monitor", "nut-driver@ups", "nut-driver.target"]
    )
    for unit in wanted:
        assert host.service(unit).is_enabled, unit
        assert host.service(unit).is_running, unit
    if name != "media":
        # the path unit would race with the role each time ups.conf is written
        assert not host.service("nut-driver-enumerator.path").is_enabled
        assert host.run("systemctl is-active nut-driver-enumerator.path").stdout.strip() == "inactive"
    assert host.check_output("systemctl --failed --no-legend") == ""


@pytest.mark.parametrize("name", [*PRIMARIES, "media"])
def test_files_are_readable_by_root_and_nut_only(on, name):
    """They contain passwords."""
    host = on(name)
    for file in FILES if name != "media" else ("nut.conf", "upsmon.conf"):
        found = host.file(f"/etc/nut/{file}")
        assert (found.user, found.group, oct(found.mode)) == ("root", "nut", "0o640"), file
        assert found.content_string.endswith("\n")
        assert "Written by Ansible" in found.content_string.splitlines()[0]
    # no scratch directory or file is left
    assert (
        host.check_output("find /etc/nut /run -maxdepth 1 -name '.*.conf*' -o -maxdepth 1 -name 'nut-*' -type d") == ""
    )


@pytest.mark.parametrize("name", PRIMARIES)
def test_shutdown_waits_for_truenas(on, name):
    """HOSTSYNC ends when TrueNAS begins to go down. After that nut-shutdown waits; it watches each secondary."""
    served = on(name).file("/etc/nut/upsmon.conf").content_string
    assert "\nFINALDELAY 2\n" in served
    assert '\nSHUTDOWNCMD "/bin/systemctl start --no-block nut-shutdown.service || /sbin/shutdown -h +0"\n' in served
    assert "\nHOSTSYNC 30\n" in served
    status = json.loads(on(name).check_output("nut-shutdown status --json"))
    expected = {secondary for secondary, primary in SECONDARIES.items() if primary == name}
    assert {host["name"]: host["up"] for host in status["machines"]} == dict.fromkeys(expected, True)
    assert [(ups["on_battery"], ups["runtime"] > 60) for ups in status["upses"]] == [(False, True)]
    assert "\nPOWERDOWNFLAG /run/nut-killpower\n" in served


def test_each_login_has_only_the_rights_it_needs(on):
    """A secondary's password does not allow a shutdown of the others."""
    served = on("pve8").file("/etc/nut/upsd.users").content_string
    assert served.count("upsmon primary") == 1
    assert served.count("upsmon secondary") == 2
    assert "actions" not in served
    assert "instcmds" not in served


def test_passwords_are_readable_by_their_owner_only():
    """There is one per host."""
    folder = CHECKOUT / "inventories" / "lab" / ".homelab-nut" / "passwords"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in (*PRIMARIES, *SECONDARIES):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    assert len(set(read_passwords())) == len(read_passwords())


def test_second_play_restarts_nothing(on, play):
    """Checked by the processes, not by Ansible's report."""
    hosts = (*PRIMARIES, *SECONDARIES)
    before = {name: nut_processes(on(name)) for name in hosts}
    assert all(before.values())
    done = play("-vvv")
    assert done.returncode == 0, done.stdout
    assert count_changes(done.stdout) == 0, done.stdout
    # the last words
    assert "logged in: truenas, media" in done.stdout
    assert "logged in: truenas9" in done.stdout
    gone = {name: dict(before[name].items() - nut_processes(on(name)).items()) for name in hosts}
    assert not any(gone.values()), gone
    for secret in read_passwords():
        assert secret not in done.stdout + done.stderr


USERS = "/etc/nut/upsd.users"


@pytest.fixture
def refused_media(on):
    """Let upsd refuse media's login, and know it again once upsmon has tried; upsmon does not try again."""
    primary, media = on("pve8"), on("media")
    primary.check_output(
        f"cp -p {USERS} /run/users.kept && sed -i '/^.media/,/^$/s/password = .*/password = other/' {USERS}"
    )
    primary.check_output("systemctl reload nut-server")
    media.check_output("systemctl restart nut-monitor")
    wait_until(
        lambda: "ACCESS-DENIED" in media.check_output("journalctl -u nut-monitor -n 20"), 30, "upsd to refuse the login"
    )
    primary.check_output(f"cp -p /run/users.kept {USERS} && rm /run/users.kept && systemctl reload nut-server")
    yield media
    media.check_output("systemctl restart nut-monitor")


def test_refused_login_is_repeated_by_the_next_run(on, play, refused_media):
    """Nothing of the host differs from the inventory; only its upsmon does not try again."""
    address = on("pve8").check_output("getent hosts media").split()[0]
    assert address not in on("pve8").check_output("upsc -c ups@localhost 2>/dev/null").split()
    done = play("--limit", "media")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "upsd had refused the login media on ups@" in done.stdout + done.stderr
    assert address in on("pve8").check_output("upsc -c ups@localhost 2>/dev/null").split()
    assert "ups on pve8: logged in: media" in done.stdout
    again = play("--limit", "media")
    assert count_changes(again.stdout) == 0, again.stdout


# files that a primary has and a secondary does not
DROP_IN = "/etc/systemd/system/nut-monitor.service.d/homelab-nut.conf"
PRIMARY_FILES = (
    "/etc/nut/shutdown.json",
    "/usr/local/sbin/nut-shutdown",
    DROP_IN,
    "/etc/systemd/system/nut-shutdown.service",
)


def test_all_that_is_left_of_a_primary_is_taken_away(on, play):
    """As if media had been a primary before it became a secondary."""
    media = on("media")
    for path in PRIMARY_FILES:
        media.check_output("mkdir -p $(dirname %s) && printf '[Unit]\\n' > %s", path, path)
    media.check_output(
        "printf '# Written by Ansible (homelab.nut.nut_server).\\n[old]\\n driver = dummy-ups\\n port = old.dev\\n' > /etc/nut/ups.conf"
    )
    media.check_output("systemctl daemon-reload")
    checked = play("--limit", "media", "--check")
    assert (
        "media was a primary. Would take away what is left of that: its UPSes in ups.conf, nut-shutdown."
        in checked.stdout
    )
    assert all(media.file(path).exists for path in PRIMARY_FILES)
    done = play("--limit", "media")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "media was a primary. Taking away what is left of that: its UPSes in ups.conf, nut-shutdown." in done.stdout
    # a secondary has a drop-in of its own in the same place
    assert [path for path in PRIMARY_FILES if media.file(path).exists] == [DROP_IN]
    assert "Type=simple" in media.file(DROP_IN).content_string
    assert "[old]" not in media.file("/etc/nut/ups.conf").content_string
    assert count_changes(play("--limit", "media").stdout) == 0


def test_process_list_shows_no_password(on):
    """Every user can read command lines."""
    for name in (*PRIMARIES, *SECONDARIES):
        listed = on(name).check_output("ps -e -o args=")
        assert not any(secret in listed for secret in read_passwords())
