# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each release of TrueNAS is configured by its API or by midclt over ssh, idempotently, and logs in to the primary."""

from __future__ import annotations

import json

import pytest
from support import extra_vars, read_passwords, read_status, wait_until

CONFIG = "/etc/truenas-lab.json"
FAULTS = "/etc/lab/faults.json"
STATE = "/data/truenas.json"
CALLED = "/run/truenas-lab/midclt.log"
KEY = "1-" + "LabOnly0" * 8
# release -> variables, and a text that the output of the run must contain
RELEASES = {
    "25.04": ({}, ""),
    "25.10": ({}, ""),
    "26": ({}, ""),
    # the inventory has an API key, but this release has no API that takes it
    "24.10": ({}, "Continuing with midclt"),
    "13.0": ({"nut_client_truenas_api_key": ""}, ""),
    "26 by midclt": ({"nut_client_truenas_transport": "midclt"}, ""),
}


@pytest.fixture(scope="module")
def truenas(on, play):
    """Return the TrueNAS. At the end, restore its release and deploy it again."""
    host = on("truenas")
    before = host.file(CONFIG).content_string.strip()
    yield host
    host.run(f"rm -f {FAULTS}")
    reset_stand_in(host, before)
    done = play("--limit", "truenas")
    assert done.returncode == 0, done.stdout


def reset_stand_in(host, config: str) -> None:
    """Restart the stand-in as a fresh system with this configuration."""
    host.run(f"systemctl stop nut-monitor; rm -f {STATE} {CALLED}; printf %s {json.dumps(config)} > {CONFIG}")
    host.check_output("systemctl restart truenas-lab.service")
    wait_until(lambda: host.socket("tcp://443").is_listening, 20, "the stand-in to listen")


def read_saved_state(host) -> dict:
    """Return the state that the stand-in has saved."""
    return json.loads(host.file(STATE).content_string)


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_is_configured_and_logs_in(truenas, on, play, release):
    """The second run changes nothing."""
    variables, text = RELEASES[release]
    reset_stand_in(truenas, json.dumps({"release": release.split()[0]}))
    first = play("--limit", "truenas", *extra_vars(**variables))
    assert first.returncode == 0, first.stdout
    assert text in first.stdout
    saved = read_saved_state(truenas)
    assert saved["ups"]["mode"] == "SLAVE"
    assert saved["ups"]["shutdown"] == "LOWBATT"
    assert saved["ups"]["powerdown"] is False
    assert saved["enable"] is True
    address = on("pve8").check_output("getent ahostsv4 truenas").split()[0]
    assert address in on("pve8").check_output("upsc -c ups@localhost").split()
    second = play("--limit", "truenas", *extra_vars(**variables))
    assert "changed=0" in second.stdout, second.stdout
    output = first.stdout + first.stderr + second.stdout + second.stderr
    assert not [secret for secret in (*read_passwords(), KEY) if secret in output]


def test_midclt_gets_no_secret_on_its_command_line(truenas):
    """The last release was configured by midclt; the stand-in logs each of its command lines."""
    command_lines = truenas.file(CALLED).content_string
    assert "ups.config" in command_lines
    assert read_saved_password(truenas) not in command_lines


def read_saved_password(host) -> str:
    """Return the UPS password that TrueNAS has saved."""
    return read_saved_state(host)["ups"]["monpwd"]


def test_change_of_settings_waits_for_mains(truenas, on, play, lab):
    """On battery, a run without a change passes; a run that would change something stops before it does."""
    before = read_saved_state(truenas)
    lab.control_ups("pve8", "mains", "off")
    try:
        wait_until(lambda: "OB" in read_status(on("pve8")), 30, "the UPS to be on battery")
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
        assert read_saved_state(truenas) == before
    finally:
        lab.control_ups("pve8", "mains", "on")
    wait_until(lambda: "OL" in read_status(on("pve8")), 30, "the UPS to be on mains again")


def test_settings_saved_without_a_running_service_are_reported_and_repaired(truenas, play):
    """The next run repairs the service."""
    midclt = {"nut_client_truenas_transport": "midclt"}
    truenas.run(f"""printf '{{"service_start": "no UPS for you"}}' > {FAULTS}""")
    broken = play("--limit", "truenas", *extra_vars(nut_client_upsmon_conf={"HOSTSYNC": 41}, **midclt))
    assert broken.returncode != 0
    assert "the settings were saved" in broken.stdout
    assert "NOT protected" in broken.stdout
    truenas.run(f"rm {FAULTS}")
    repaired = play("--limit", "truenas", *extra_vars(nut_client_upsmon_conf={"HOSTSYNC": 41}, **midclt))
    assert repaired.returncode == 0, repaired.stdout
    assert read_saved_state(truenas)["ups"]["hostsync"] == 41
