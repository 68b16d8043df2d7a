# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mistakes stop the play before or at the host they are about, with one clear message, and what runs goes on."""

from __future__ import annotations

import pytest
from support import extra_vars, nut_processes, read_status, wait_until

HOSTS = ("pve8", "truenas", "media")
KEY = "1-" + "LabOnly0" * 8


CASES = {
    "unknown option of a device": (
        extra_vars(nut_server_devices=[{"name": "ups", "options": {"nonsense": "1"}}]),
        ["ups.conf, [ups]", "nonsense", "nothing was restarted"],
    ),
    "driver that is not there": (
        extra_vars(nut_server_devices=[{"name": "ups", "driver": "usbhid-upps"}]),
        ["no driver 'usbhid-upps'"],
    ),
    "directive that is misspelled": (
        extra_vars(nut_server_upsmon_conf={"OFDURATION": 30}),
        ["nut_server_upsmon_conf: OFDURATION is not a directive of upsmon.conf. Did you mean OFFDURATION?"],
    ),
    "key of a device that is misspelled": (
        extra_vars(nut_server_devices=[{"name": "ups", "ofdelay": 30}]),
        ["nut_server_devices: device ups: there is no key ofdelay. Did you mean offdelay?"],
    ),
    "two devices of one name": (
        extra_vars(nut_server_devices=[{"name": "ups"}, {"name": "ups"}]),
        ["two devices are called ups"],
    ),
    "password that NUT can't carry": (
        extra_vars(nut_client_password="with blank"),
        ["nut_client_password can't be used: it contains"],
    ),
    "password that TrueNAS can't carry": (
        extra_vars(nut_client_password="a=b"),
        ["nut_client_password can't be used: it contains"],
    ),
    "Proxmox before TrueNAS": (
        extra_vars(nut_server_gate={"enabled": False}, nut_server_upsmon_conf={"FINALDELAY": 5}),
        ["would go down before its secondaries", "FINALDELAY gives them 5 s"],
    ),
    "a host that never goes down": (
        extra_vars(nut_server_upsmon_conf={"SHUTDOWNCMD": ""}),
        ["SHUTDOWNCMD is missing or empty"],
    ),
    "secondary without a primary": (
        extra_vars(nut_client_primary="nobody"),
        ["is a secondary without a primary", "nut_client_primary is nobody"],
    ),
    "wrong API key": (
        ("--limit", "truenas", *extra_vars(nut_client_truenas_api_key="1-" + "x" * 64)),
        ["127.0.0.1", "API key"],
    ),
    "wrong password": (
        ("--limit", "truenas", *extra_vars(nut_client_truenas_api_key="", nut_client_truenas_password="wrong")),
        ["127.0.0.1", "password"],
    ),
    "API key without encryption": (
        ("--limit", "truenas", *extra_vars(nut_client_truenas_url="ws://127.0.0.1/api/current")),
        ["revoke"],
    ),
    "TrueNAS that can't be reached": (
        ("--limit", "truenas", *extra_vars(nut_client_truenas_url="wss://127.0.0.1:1/api/current")),
        ["127.0.0.1:1", "refused"],
    ),
    "TrueNAS with another certificate": (
        ("--limit", "truenas", *extra_vars(nut_client_truenas_fingerprint="00" * 32)),
        ["fingerprint"],
    ),
}


# what the inventory alone shows is found before anything is touched
AT_ONCE = (
    "directive that is misspelled",
    "key of a device that is misspelled",
    "two devices of one name",
    "password that NUT can't carry",
    "Proxmox before TrueNAS",
    "secondary without a primary",
)


@pytest.mark.parametrize("case", AT_ONCE)
def test_it_stops_before_anything_is_installed(play, case):
    """A host that never had NUT must not get it by a run that could not succeed."""
    done = play("--limit", "pve8", *CASES[case][0])
    assert done.returncode != 0
    assert "Install NUT" not in done.stdout


@pytest.mark.parametrize(("arguments", "words"), CASES.values(), ids=CASES.keys())
def test_a_mistake_stops_the_play(on, play, arguments, words):
    """The play fails, says why, and leaves every process of NUT running."""
    before = {name: nut_processes(on(name)) for name in HOSTS}
    limit = () if "--limit" in arguments else ("--limit", ",".join(HOSTS))
    done = play(*limit, *arguments)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    for word in words:
        assert word in said, said
    assert "Traceback" not in said
    assert "changed=0" in said
    assert KEY not in said
    assert all(before[name].items() <= nut_processes(on(name)).items() for name in HOSTS)


def test_a_failed_primary_leaves_its_secondaries_alone(on, play):
    """One site's mistake has one message; the other site is deployed."""
    before = {name: nut_processes(on(name)) for name in HOSTS}
    bad = "{{ [{'name': 'ups', 'options': {'nonsense': '1'} if inventory_hostname == 'pve8' else {}}] }}"
    done = play(*extra_vars(nut_server_devices=bad))
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert said.count("fatal: [") == 1, said
    for name in ("truenas", "media"):
        assert f"{name} is left as it is, because its primary pve8 failed" in said
    assert "truenas9 is left" not in said
    assert all(before[name].items() <= nut_processes(on(name)).items() for name in HOSTS)


def test_the_api_key_still_works(play):
    """None of the above cost the key: TrueNAS revokes one that comes unencrypted."""
    done = play("--limit", "truenas")
    assert done.returncode == 0, done.stdout


def test_nothing_is_touched_while_on_battery(on, play, lab):
    """A restart then could shut down every secondary, so a change waits for the mains."""
    before = nut_processes(on("pve8"))
    lab.control_ups("pve8", "mains", "off")
    try:
        wait_until(lambda: "OB" in read_status(on("pve8")), 30, "on battery")
        done = play("--limit", "pve8", *extra_vars(nut_server_upsd_conf={"MAXAGE": 20}))
        assert done.returncode != 0
        assert "not plainly on mains" in done.stdout + done.stderr
        assert "MAXAGE 15" in on("pve8").file("/etc/nut/upsd.conf").content_string
    finally:
        lab.control_ups("pve8", "mains", "on")
    wait_until(lambda: "OL" in read_status(on("pve8")), 30, "on mains again")
    assert before.items() <= nut_processes(on("pve8")).items()
