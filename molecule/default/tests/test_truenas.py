# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each release of TrueNAS is deployed once and left alone then, by its API or by midclt over ssh, and logs in to the primary."""

from __future__ import annotations

import json

import pytest
from support import extra_vars, read_passwords, read_status, wait_until

CONFIG = "/etc/truenas-lab.json"
FAULTS = "/etc/lab/faults.json"
STATE = "/data/truenas.json"
CALLED = "/run/truenas-lab/midclt.log"
KEY = "1-" + "LabOnly0" * 8
# release -> what the inventory says, and what the run must say on the way
RELEASES = {
    "25.04": ({}, ""),
    "25.10": ({}, ""),
    "26": ({}, ""),
    # a key is given, and there is no API that would take it
    "24.10": ({}, "Continuing with midclt"),
    "13.0": ({"nut_client_truenas_api_key": ""}, ""),
    "26 by midclt": ({"nut_client_truenas_transport": "midclt"}, ""),
}


@pytest.fixture(scope="module")
def truenas(on, play):
    """Return the host; in the end it is what it was before, and deployed."""
    host = on("truenas")
    before = host.file(CONFIG).content_string.strip()
    yield host
    host.run(f"rm -f {FAULTS}")
    become(host, before)
    done = play("--limit", "truenas")
    assert done.returncode == 0, done.stdout


def become(host, config: str) -> None:
    """Make a fresh system of the stand-in."""
    host.run(f"systemctl stop nut-monitor; rm -f {STATE} {CALLED}; printf %s {json.dumps(config)} > {CONFIG}")
    host.check_output("systemctl restart truenas-lab.service")
    wait_until(lambda: host.socket("tcp://443").is_listening, 20, "the stand-in listens")


def settings(host) -> dict:
    """Return what the stand-in has saved."""
    return json.loads(host.file(STATE).content_string)


@pytest.mark.parametrize("release", RELEASES)
def test_a_release(truenas, on, play, release):
    """Changed once, then not; and the primary sees it each time."""
    variables, words = RELEASES[release]
    become(truenas, json.dumps({"release": release.split()[0]}))
    first = play("--limit", "truenas", *extra_vars(**variables))
    assert first.returncode == 0, first.stdout
    assert words in first.stdout
    saved = settings(truenas)
    assert saved["ups"]["mode"] == "SLAVE"
    assert saved["ups"]["shutdown"] == "LOWBATT"
    assert saved["ups"]["powerdown"] is False
    assert saved["enable"] is True
    address = on("pve8").check_output("getent ahostsv4 truenas").split()[0]
    assert address in on("pve8").check_output("upsc -c ups@localhost").split()
    second = play("--limit", "truenas", *extra_vars(**variables))
    assert "changed=0" in second.stdout, second.stdout
    said = first.stdout + first.stderr + second.stdout + second.stderr
    assert not [secret for secret in (*read_passwords(), KEY) if secret in said]


def test_no_secret_was_in_a_command_line(truenas):
    """The last release was asked by midclt; each of its command lines was noted by the stand-in."""
    called = truenas.file(CALLED).content_string
    assert "ups.config" in called
    assert saved_password(truenas) not in called


def saved_password(host) -> str:
    """Return the password that TrueNAS has been given."""
    return settings(host)["ups"]["monpwd"]


def test_a_change_waits_for_the_mains(truenas, on, play, lab):
    """On battery a run that changes nothing passes, and one that would change something stops and has changed nothing."""
    before = settings(truenas)
    lab.control_ups("pve8", "mains", "off")
    try:
        wait_until(lambda: "OB" in read_status(on("pve8")), 30, "on battery")
        same = play("--limit", "truenas", *extra_vars(nut_client_truenas_transport="midclt"))
        assert same.returncode == 0, same.stdout
        other = play(
            "--limit",
            "truenas",
            *extra_vars(nut_client_truenas_transport="midclt", nut_client_upsmon_conf={"HOSTSYNC": 40}),
        )
        assert other.returncode != 0
        assert "not plainly on mains" in other.stdout
        assert "set hostsync" in other.stdout
        assert settings(truenas) == before
    finally:
        lab.control_ups("pve8", "mains", "on")
    wait_until(lambda: "OL" in read_status(on("pve8")), 30, "on mains again")


def test_settings_that_were_saved_though_the_service_failed(truenas, play):
    """It is told as what it is, and the next run mends it."""
    midclt = {"nut_client_truenas_transport": "midclt"}
    truenas.run(f"""printf '{{"service_start": "no UPS for you"}}' > {FAULTS}""")
    broken = play("--limit", "truenas", *extra_vars(nut_client_upsmon_conf={"HOSTSYNC": 41}, **midclt))
    assert broken.returncode != 0
    assert "the settings were saved" in broken.stdout
    assert "NOT protected" in broken.stdout
    truenas.run(f"rm {FAULTS}")
    mended = play("--limit", "truenas", *extra_vars(nut_client_upsmon_conf={"HOSTSYNC": 41}, **midclt))
    assert mended.returncode == 0, mended.stdout
    assert settings(truenas)["ups"]["hostsync"] == 41
