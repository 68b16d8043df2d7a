# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each release of TrueNAS is configured by its API or by midclt over ssh, idempotently, and logs in to the primary."""

from __future__ import annotations

import json

import pytest
from support import count_changes, extra_vars, read_passwords, read_status, wait_until

CONFIG = "/etc/truenas-lab.json"
FAULTS = "/etc/lab/faults.json"
STATE = "/data/truenas.json"
CALLED = "/run/truenas-lab/midclt.log"
KEY = "1-" + "LabOnly0" * 8
# A TrueNAS and its primary. 26 is based on Debian 13, with NUT 2.8.1, and the others are played on Debian 12.
PRIMARIES = {"truenas": "pve8", "truenas9": "pve9"}
# release -> host, variables, and a text that the output of the run must contain
RELEASES = {
    "25.04": ("truenas", {}, ""),
    # the inventory has an API key, but this release has no API that takes it
    "24.10": ("truenas", {}, "Continuing with midclt"),
    "13.0": ("truenas", {"nut_client_truenas_api_key": ""}, ""),
    "25.10": ("truenas", {}, ""),
    "26": ("truenas9", {}, ""),
    "26 by midclt": ("truenas9", {"nut_client_truenas_transport": "midclt"}, ""),
}
NUT = {"truenas": "2.8.0", "truenas9": "2.8.1"}


@pytest.fixture(scope="module")
def stand_ins(on, play):
    """Return the TrueNAS machines by name. At the end, restore their releases and deploy them again."""
    hosts = {name: on(name) for name in PRIMARIES}
    before = {name: host.file(CONFIG).content_string.strip() for name, host in hosts.items()}
    yield hosts
    for name, host in hosts.items():
        host.run(f"rm -f {FAULTS}")
        reset_stand_in(host, before[name])
    done = play("--limit", ",".join(PRIMARIES))
    assert done.returncode == 0, done.stdout


@pytest.fixture
def truenas(stand_ins):
    """Return the TrueNAS that plays the releases up to 25.10."""
    return stand_ins["truenas"]


@pytest.fixture
def truenas9(stand_ins):
    """Return the TrueNAS that plays 26."""
    return stand_ins["truenas9"]


@pytest.mark.parametrize("name", NUT)
def test_each_release_runs_on_the_nut_of_its_debian(stand_ins, name):
    assert NUT[name] in stand_ins[name].check_output("upsmon -V 2>&1")


def reset_stand_in(host, config: str) -> None:
    """Restart the stand-in as a fresh system with this configuration."""
    host.run(f"systemctl stop nut-monitor; rm -f {STATE} {CALLED}; printf %s {json.dumps(config)} > {CONFIG}")
    host.check_output("systemctl restart truenas-lab.service")
    wait_until(lambda: host.socket("tcp://443").is_listening, 20, "the stand-in to listen")


def read_saved_state(host) -> dict:
    """Return the state that the stand-in has saved."""
    return json.loads(host.file(STATE).content_string)


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_is_configured_and_logs_in(stand_ins, on, play, release):
    """The second run changes nothing."""
    name, variables, text = RELEASES[release]
    truenas = stand_ins[name]
    reset_stand_in(truenas, json.dumps({"release": release.split()[0]}))
    first = play("--limit", name, *extra_vars(**variables))
    assert first.returncode == 0, first.stdout
    assert text in first.stdout
    saved = read_saved_state(truenas)
    assert saved["ups"]["mode"] == "SLAVE"
    assert saved["ups"]["shutdown"] == "LOWBATT"
    assert saved["ups"]["powerdown"] is False
    assert saved["enable"] is True
    primary = on(PRIMARIES[name])
    address = primary.check_output("getent ahostsv4 %s", name).split()[0]
    assert address in primary.check_output("upsc -c ups@localhost").split()
    second = play("--limit", name, *extra_vars(**variables))
    assert count_changes(second.stdout) == 0, second.stdout
    output = first.stdout + first.stderr + second.stdout + second.stderr
    assert not [secret for secret in (*read_passwords(), KEY) if secret in output]


def test_midclt_gets_no_secret_on_its_command_line(truenas9):
    """The last release was configured by midclt; the stand-in logs each of its command lines."""
    command_lines = truenas9.file(CALLED).content_string
    assert "ups.config" in command_lines
    assert read_saved_password(truenas9) not in command_lines


# The driver dummy-ups reads a UPS from this file; /etc/nut is emptied at each start.
DUMMY = "/opt/lab/own.dev"
OWN_UPS = {"mode": "MASTER", "driver": "dummy-ups$the lab's own", "port": DUMMY, "identifier": "own"}


def test_ups_that_moves_from_truenas_to_proxmox_is_configured(truenas9, play):
    """The driver of the former UPS keeps failing, so TrueNAS 26 reports each start as failed; the run looks, and warns."""
    reset_stand_in(truenas9, json.dumps({"release": "26"}))
    truenas9.check_output(f"printf 'ups.status: OL\\n' > {DUMMY}")
    truenas9.check_output("midclt call ups.update %s", json.dumps(OWN_UPS))
    truenas9.check_output("midclt call -j service.control START ups '{\"silent\": false}'")
    wait_until(
        lambda: "OL" in truenas9.run("upsc own@localhost ups.status").stdout, 30, "the UPS of TrueNAS to be served"
    )
    moved = play("--limit", "truenas9")
    assert moved.returncode == 0, moved.stdout
    assert "reports a failure, but the service is running" in moved.stdout + moved.stderr
    assert read_saved_state(truenas9)["ups"]["mode"] == "SLAVE"
    assert truenas9.service("nut-monitor").is_running
    again = play("--limit", "truenas9")
    assert count_changes(again.stdout) == 0, again.stdout
    truenas9.check_output("systemctl disable --now nut-driver@own.service")
    changed = play("--limit", "truenas9", *extra_vars(nut_client_upsmon_conf={"HOSTSYNC": 42}))
    assert changed.returncode == 0, changed.stdout
    assert "reports a failure" not in changed.stdout + changed.stderr


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
