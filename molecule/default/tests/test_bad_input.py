# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mistakes stop the play before, or at, the affected host with one clear message; running daemons are left alone."""

from __future__ import annotations

import pytest
from support import count_changes, extra_vars, keep_first, nut_processes, read_status, wait_until

HOSTS = ("pve8", "truenas", "media")
KEY = "1-" + "LabOnly0" * 8


CASES = {
    "unknown option of a device": (
        extra_vars(nut_server_devices=[{"name": "ups", "options": {"nonsense": "1"}}]),
        ["ups.conf, [ups]", "nonsense", "nothing was restarted"],
    ),
    "missing driver": (
        extra_vars(nut_server_devices=[{"name": "ups", "driver": "usbhid-upps"}]),
        ["no driver 'usbhid-upps'"],
    ),
    "misspelled directive": (
        extra_vars(nut_server_upsmon_conf={"OFDURATION": 30}),
        ["nut_server_upsmon_conf: OFDURATION is not a directive of upsmon.conf. Did you mean OFFDURATION?"],
    ),
    "misspelled key of a device": (
        extra_vars(nut_server_devices=[{"name": "ups", "ofdelay": 30}]),
        ["nut_server_devices: device ups: there is no key ofdelay. Did you mean offdelay?"],
    ),
    "two devices with the same name": (
        extra_vars(nut_server_devices=[{"name": "ups"}, {"name": "ups"}]),
        ["two devices are called ups"],
    ),
    "password that NUT would corrupt": (
        extra_vars(nut_client_password="with blank"),
        ["nut_client_password can't be used: it contains"],
    ),
    "password that TrueNAS would corrupt": (
        extra_vars(nut_client_password="a=b"),
        ["nut_client_password can't be used: it contains"],
    ),
    "Proxmox before TrueNAS": (
        extra_vars(nut_server_gate={"enabled": False}, nut_server_upsmon_conf={"FINALDELAY": 5}),
        ["would shut down before its secondaries", "FINALDELAY allows 5 s"],
    ),
    "host that never goes down": (
        extra_vars(nut_server_upsmon_conf={"SHUTDOWNCMD": ""}),
        ["SHUTDOWNCMD is missing or empty"],
    ),
    "secondary without a primary": (
        extra_vars(nut_client_primary="nobody"),
        ["is a secondary without a primary", "nut_client_primary is nobody"],
    ),
    # logins: upsmon does not repeat one that was refused
    "secondary with another password than its primary knows": (
        ("--limit", "media", *extra_vars(nut_client_password="Another.Password-1")),
        ["does not accept the login media to ups (ACCESS-DENIED). Nothing was changed", "limit=pve8,media"],
    ),
    "TrueNAS with another password than its primary knows": (
        ("--limit", "truenas", *extra_vars(nut_client_password="Another.Password-1")),
        [
            "does not accept the login truenas to ups (ACCESS-DENIED). Nothing was changed on truenas",
            "limit=pve8,truenas",
        ],
    ),
    "primary with other passwords than the deployed ones": (
        ("--limit", "pve8", *extra_vars(nut_client_password="Another.Password-1")),
        [
            "the password of truenas and media in",
            "differs from the deployed one",
            "make rotate limit=pve8,truenas,media",
        ],
    ),
    "primary whose passwords are on another machine": (
        ("--limit", "pve8", *extra_vars(nut_password_directory="/nonexistent/passwords")),
        ["no password of monitor, truenas or media is kept in", "was this site deployed from another machine?"],
    ),
    "secondary whose password is on another machine": (
        ("--limit", "media", *extra_vars(nut_password_directory="/nonexistent/passwords")),
        ["no password of media is kept in", "make rotate limit=pve8,media"],
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
    "unreachable TrueNAS": (
        ("--limit", "truenas", *extra_vars(nut_client_truenas_url="wss://127.0.0.1:1/api/current")),
        ["127.0.0.1:1", "refused"],
    ),
    "TrueNAS with another certificate": (
        ("--limit", "truenas", *extra_vars(nut_client_truenas_fingerprint="00" * 32)),
        ["fingerprint"],
    ),
}


# mistakes that the inventory alone reveals: a run that can't succeed must not even install NUT
IN_PREFLIGHT = (
    "misspelled directive",
    "misspelled key of a device",
    "two devices with the same name",
    "password that NUT would corrupt",
    "Proxmox before TrueNAS",
    "secondary without a primary",
)


# those that the inventory alone reveals are tested without a host as well
@pytest.mark.parametrize("case", [*(case for case in CASES if case not in IN_PREFLIGHT), *keep_first(IN_PREFLIGHT)])
def test_mistake_stops_the_play_and_restarts_nothing(on, play, case):
    """The message names the mistake, and every process of NUT keeps running."""
    arguments, texts = CASES[case]
    before = {name: nut_processes(on(name)) for name in HOSTS}
    limit = () if "--limit" in arguments else ("--limit", ",".join(HOSTS))
    done = play(*limit, *arguments)
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    for text in texts:
        assert text in output, output
    assert "Traceback" not in output
    assert count_changes(output) == 0
    assert case not in IN_PREFLIGHT or "nut_server : Install NUT" not in output, output
    assert KEY not in output
    assert all(before[name].items() <= nut_processes(on(name)).items() for name in HOSTS)


def test_failed_primary_leaves_secondaries_unchanged(on, play):
    """A mistake at one site has one message, and the other site is deployed. The last words name the primary."""
    before = {name: nut_processes(on(name)) for name in HOSTS}
    bad = "{{ [{'name': 'ups', 'driver': 'auto', 'options': {'nonsense': '1'} if inventory_hostname == 'pve8' else {}}] }}"
    done = play(*extra_vars(nut_server_devices=bad))
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert output.count("fatal: [") == 2, output
    assert "Not protected, or not reached: pve8." in output, output
    for name in ("truenas", "media"):
        assert f"{name} is not changed, because its primary pve8 failed" in output
    assert "truenas9 is not changed" not in output
    assert all(before[name].items() <= nut_processes(on(name)).items() for name in HOSTS)


def test_api_key_still_works(play):
    """TrueNAS revokes a key that is sent unencrypted; none of the tests above did that."""
    done = play("--limit", "truenas")
    assert done.returncode == 0, done.stdout


def test_change_waits_for_mains(on, play, lab):
    """A restart on battery could shut down every secondary."""
    before = nut_processes(on("pve8"))
    lab.control_ups("pve8", "mains", "off")
    try:
        wait_until(lambda: "OB" in read_status(on("pve8")), 30, "the UPS to be on battery")
        done = play("--limit", "pve8", *extra_vars(nut_server_upsd_conf={"MAXAGE": 20}))
        assert done.returncode != 0
        assert "not plainly on mains" in done.stdout + done.stderr
        assert "MAXAGE 15" in on("pve8").file("/etc/nut/upsd.conf").content_string
    finally:
        lab.control_ups("pve8", "mains", "on")
    wait_until(lambda: "OL" in read_status(on("pve8")), 30, "the UPS to be on mains again")
    assert before.items() <= nut_processes(on("pve8")).items()
