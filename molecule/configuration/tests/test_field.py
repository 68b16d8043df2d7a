# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Configurations that NUT accepts and that deceive their owner, as public bug reports show them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import count_changes, extra_vars, keep_first, nut_processes, read_status, show_unit, wait_until
from testinfra.host import Host

PORT = 13493
ETC = "/etc/nut"
LEFT = "rack-left"
FILES = ("nut.conf", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf", "upssched.conf")
SCRIPT = "/usr/local/bin/tell-me"
RULES = [{"notifytype": "ONBATT", "command": "EXECUTE", "name": "at-once"}]
EXEC = {"ONBATT": ["SYSLOG", "EXEC"]}


def run_at_events(path: str) -> dict[str, Any]:
    """Return the variables of a site whose upsmon runs a program."""
    conf = {"MINSUPPLIES": 2, "NOTIFYCMD": path, "NOTIFYFLAG": EXEC}
    return {"nut_server_upsmon_conf": conf, "nut_server_upssched_rules": []}


# case -> the command that makes a path, the path, variables, and the texts that the message must contain
UNUSABLE: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    "NOTIFYCMD that only root may run": (
        f"printf '#!/bin/sh\\n' >{SCRIPT}; chmod 0700 {SCRIPT}",
        SCRIPT,
        run_at_events(SCRIPT),
        ["upsmon.conf: NOTIFYCMD", SCRIPT, "user nut", "chmod 0755"],
    ),
    "NOTIFYCMD that only root may read": (
        f"printf '#!/bin/sh\\n' >{SCRIPT}; chmod 0711 {SCRIPT}",
        SCRIPT,
        run_at_events(SCRIPT),
        ["upsmon.conf: NOTIFYCMD", SCRIPT, "user nut"],
    ),
    "NOTIFYCMD in a directory of root's": (
        "printf '#!/bin/sh\\n' >/root/tell-me; chmod 0755 /root/tell-me; chmod 0700 /root",
        "/root/tell-me",
        run_at_events("/root/tell-me"),
        ["upsmon.conf: NOTIFYCMD", "/root/tell-me", "/root", "/usr/local/bin"],
    ),
    "NOTIFYCMD without its interpreter": (
        f"printf '#!/usr/bin/python2\\n' >{SCRIPT}; chmod 0755 {SCRIPT}",
        SCRIPT,
        run_at_events(SCRIPT),
        ["upsmon.conf: NOTIFYCMD", SCRIPT, "/usr/bin/python2"],
    ),
    "CMDSCRIPT with CRLF": (
        f"printf '#!/bin/sh\\r\\necho\\r\\n' >{SCRIPT}; chmod 0755 {SCRIPT}",
        SCRIPT,
        {"nut_server_upssched_conf": {"CMDSCRIPT": SCRIPT}, "nut_server_upssched_rules": RULES},
        ["upssched.conf: CMDSCRIPT", SCRIPT, "CRLF"],
    ),
    "PIPEFN in /etc/nut": (
        "true",
        "",
        {
            "nut_server_upssched_conf": {"CMDSCRIPT": "/usr/local/bin/ups-event", "PIPEFN": f"{ETC}/upssched.pipe"},
            "nut_server_upssched_rules": RULES,
        },
        [f"upssched.conf: PIPEFN {ETC}/upssched.pipe", "user nut", "/run/nut"],
    ),
    "LOCKFN in /etc/nut": (
        "true",
        "",
        {
            "nut_server_upssched_conf": {"CMDSCRIPT": "/usr/local/bin/ups-event", "LOCKFN": f"{ETC}/upssched.lock"},
            "nut_server_upssched_rules": RULES,
        },
        [f"upssched.conf: LOCKFN {ETC}/upssched.lock", "user nut", "/run/nut"],
    ),
}

# variables that have no effect, or lack their counterpart, and the texts of the warning
WARNED: dict[str, tuple[dict[str, Any], list[str]]] = {
    # the scenario's own inventory
    "a low mark without ignorelb": ({}, [f"[{LEFT}]: override.battery.charge.low has no effect without ignorelb"]),
    "a timer that nothing cancels": (
        {
            "nut_server_upssched_rules": [
                {"notifytype": "ONBATT", "command": "START-TIMER", "name": "early", "seconds": 30},
                {"notifytype": "ONLINE", "command": "CANCEL-TIMER", "name": "erly"},
            ]
        },
        ["CANCEL-TIMER erly names a timer that no START-TIMER starts", "timer early starts at ONBATT"],
    ),
    "an event that nothing executes": (
        {"nut_server_extra_lines": {"upssched.conf": "AT COMMBAD * EXECUTE lost"}},
        ["AT COMMBAD is never used"],
    ),
}


@pytest.fixture
def rack(on: Callable[[str], Host]) -> Host:
    """Return the primary."""
    return on("rack")


def read_files(host: Host) -> dict[str, str]:
    """Return NUT's files on a host: name -> text."""
    return {name: host.file(f"{ETC}/{name}").content_string for name in FILES}


def squeeze(text: str) -> str:
    """Return a text without blanks and line ends, because Ansible wraps long messages, also at hyphens."""
    return "".join(text.split())


def assert_has(output: str, texts: list[str]) -> None:
    """Fail unless a play's output contains these texts."""
    for text in texts:
        assert squeeze(text) in squeeze(output), output
    assert "Traceback" not in output


def change_device(site: dict[str, Any], name: str, **keys: object) -> list[dict[str, Any]]:
    """Return the site's UPSes with other keys of one of them."""
    return [{**device, **(keys if device["name"] == name else {})} for device in site["nut_server_devices"]]


# Programs and files of the user nut


@pytest.fixture
def made(rack: Host) -> Iterator[Callable[[str, str], None]]:
    """Return a function that runs a command on the host and removes the path that it made at the end."""
    paths: list[str] = []

    def make_path(command: str, path: str) -> None:
        paths.extend([path] if path else [])
        rack.check_output(command)

    mode = rack.check_output("stat -c %a /root")
    yield make_path
    rack.check_output("chmod %s /root", mode)
    for path in paths:
        rack.check_output("rm -f %s", path)


@pytest.mark.parametrize("case", keep_first(UNUSABLE))
def test_path_that_user_nut_can_not_use_is_refused(rack, play, made, case):
    """Root can use each of them. Nothing is changed."""
    command, path, variables, texts = UNUSABLE[case]
    made(command, path)
    before, processes = read_files(rack), nut_processes(rack)
    done = play("--limit", "rack", *extra_vars(**variables))
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    assert_has(output, texts)
    assert count_changes(output) == 0
    assert read_files(rack) == before
    assert processes.items() <= nut_processes(rack).items()


def test_notifycmd_of_everyone_is_run_by_user_nut(rack, lab, play, made):
    """The same script with another mode is taken, and it runs when the mains fail."""
    told = "/run/nut/told"
    script = f'#!/bin/sh\necho "$NOTIFYTYPE $(id -un)" >>{told}\n'
    made(f"printf %s {shlex.quote(script)} >{SCRIPT}; chmod 0755 {SCRIPT}; rm -f {told}", SCRIPT)
    try:
        done = play("--limit", "rack", *extra_vars(**run_at_events(SCRIPT)))
        assert done.returncode == 0, done.stdout
        lab.control_ups("rack", "mains", "off", "--port", "1")
        wait_until(
            lambda: "ONBATT nut" in rack.run("cat %s", told).stdout.splitlines(), 30, "NOTIFYCMD to run as the user nut"
        )
    finally:
        lab.control_ups("rack", "mains", "on", "--port", "1")
        wait_until(lambda: read_status(rack, LEFT, PORT)[:1] == ["OL"], 30, "the UPS to be on mains again")
        done = play("--limit", "rack")
    assert done.returncode == 0, done.stdout


# Settings without an effect


@pytest.mark.parametrize("case", keep_first(WARNED))
def test_setting_without_effect_is_named(rack, play, case):
    """In check mode: the run warns, and it is no mistake."""
    variables, texts = WARNED[case]
    before = read_files(rack)
    done = play("--limit", "rack", "--check", *extra_vars(**variables))
    assert done.returncode == 0, done.stdout
    assert_has(done.stdout + done.stderr, texts)
    assert read_files(rack) == before


def test_low_mark_without_ignorelb_does_not_begin_low_battery(rack, lab):
    """NUT shows the mark of the inventory, 35 %, and the UPS still goes by its own, 10 %."""
    lab.control_ups("rack", "set", "charge=30", "--port", "1")
    try:
        wait_until(
            lambda: rack.run("upsc %s@localhost:%s battery.charge", LEFT, str(PORT)).stdout.strip() == "30",
            60,
            "upsd to serve the charge",
        )
        assert rack.check_output("upsc %s@localhost:%s battery.charge.low", LEFT, str(PORT)) == "35"
        assert "LB" not in read_status(rack, LEFT, PORT)
    finally:
        lab.control_ups("rack", "set", "charge=100", "--port", "1")
    wait_until(
        lambda: rack.run("upsc %s@localhost:%s battery.charge", LEFT, str(PORT)).stdout.strip() == "100",
        60,
        "upsd to serve the charge",
    )


# Low marks that are wrong on the other side


def test_wrong_low_mark_is_reported_and_can_be_corrected_on_mains(rack, play, site):
    """The battery lasts 2400 s, so with this mark it is always low: OL LB at 100 %. The correction must not wait for its end."""
    upsmon = show_unit(rack, "nut-monitor")
    wrong = change_device(site, LEFT, ignorelb=True, override={"battery.runtime.low": 90000})
    try:
        done = play("--limit", "rack", *extra_vars(nut_server_devices=wrong, nut_server_plan_enforce="none"))
        assert done.returncode == 0, done.stdout
        assert_has(done.stdout + done.stderr, ["shuts everything down"])
        wait_until(lambda: "LB" in read_status(rack, LEFT, PORT), 30, "NUT to call the battery low")
        assert read_status(rack, LEFT, PORT)[:1] == ["OL"]
        assert rack.check_output("upsc %s@localhost:%s battery.charge 2>/dev/null", LEFT, str(PORT)) == "100"
        right = change_device(site, LEFT, ignorelb=True, override={"battery.runtime.low": 600})
        done = play("--limit", "rack", *extra_vars(nut_server_devices=right))
        assert done.returncode == 0, done.stdout
        assert "not plainly on mains" not in done.stdout + done.stderr
        assert "shuts everything down" not in done.stdout + done.stderr
        wait_until(lambda: read_status(rack, LEFT, PORT) == ["OL"], 30, "the battery not to be low any more")
        assert show_unit(rack, "nut-monitor") == upsmon
    finally:
        done = play("--limit", "rack")
    assert done.returncode == 0, done.stdout


def test_correction_of_a_low_mark_waits_for_mains(rack, lab, play, site):
    """Only on mains is the change let through."""
    before = read_files(rack)
    lab.control_ups("rack", "mains", "off", "--port", "1")
    try:
        wait_until(lambda: "OB" in read_status(rack, LEFT, PORT), 30, "the UPS to be on battery")
        devices = change_device(site, LEFT, ignorelb=True, override={"battery.runtime.low": 600})
        done = play("--limit", "rack", *extra_vars(nut_server_devices=devices))
        assert done.returncode != 0
        assert_has(done.stdout + done.stderr, ["not plainly on mains"])
        assert read_files(rack) == before
    finally:
        lab.control_ups("rack", "mains", "on", "--port", "1")
    wait_until(lambda: read_status(rack, LEFT, PORT)[:1] == ["OL"], 30, "the UPS to be on mains again")


# Several UPSes


def test_powervalue_of_several_upses_is_asked_for_in_one_sentence(rack, play, site):
    before = read_files(rack)
    devices = [
        {key: value for key, value in device.items() if key != "powervalue" or value == 0}
        for device in site["nut_server_devices"]
    ]
    done = play("--limit", "rack", *extra_vars(nut_server_devices=devices))
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    question = (
        "rack has 3 UPSes (rack-left, Rack_Right, desk-3_EATON), and nut_server_devices does not say whether rack-left or Rack_Right "
        "powers rack: set powervalue of each"
    )
    assert_has(output, [question])
    assert count_changes(output) == 0
    assert read_files(rack) == before


def test_minsupplies_of_two_power_supplies_is_asked_for_in_one_sentence(rack, play):
    before = read_files(rack)
    done = play("--limit", "rack", *extra_vars(nut_server_upsmon_conf={"NOTIFYCMD": "/sbin/upssched"}))
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    question = "rack is powered by rack-left and Rack_Right, and nothing says whether it stays up on one of them: set MINSUPPLIES"
    assert_has(output, [question, "to 1 if it does, or to 2 if it needs them all"])
    assert count_changes(output) == 0
    assert read_files(rack) == before
