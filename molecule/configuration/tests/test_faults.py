# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Failures during a deployment. Afterwards upsd serves, the files belong together, and the play has reported the failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from homelab import Lab
from homelab.podman import run_podman
from support import (
    count_changes,
    extra_vars,
    keep_first,
    kill_upsd_when_replaced,
    nut_processes,
    read_status,
    show_unit,
    wait_for_end,
    wait_until,
)
from testinfra.host import Host

PORT = 13493
UPSES = ("rack-left", "Rack_Right", "desk-3_EATON")
FILES = ("nut.conf", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf", "upssched.conf")
ETC = "/etc/nut"

# file -> variables with a mistake, and the texts that the message must contain
MISTAKES = {
    "nut.conf": (
        extra_vars(nut_server_nut_conf={"NUT_DEBUG_LEVEL": "much"}),
        ["nut_server_nut_conf: NUT_DEBUG_LEVEL", "much"],
    ),
    "nut.conf, extra lines": (
        extra_vars(nut_server_extra_lines={"nut.conf": "MODE=none"}),
        ["nut.conf", "MODE", "none"],
    ),
    "ups.conf": (
        extra_vars(nut_server_extra_lines={"ups.conf": "maxstartdelay = soon"}),
        ["ups.conf", "maxstartdelay", "soon"],
    ),
    "ups.conf, a device": (
        extra_vars(
            nut_server_devices=[{"name": ups, "powervalue": 1, "options": {"offdelay": "soon"}} for ups in UPSES]
        ),
        ["nut_server_devices", "offdelay", "soon"],
    ),
    "upsd.conf": (
        extra_vars(nut_server_extra_lines={"upsd.conf": "TRACKINGDELAY soon"}),
        ["upsd.conf", "TRACKINGDELAY", "soon"],
    ),
    "upsd.users": (
        extra_vars(nut_server_extra_lines={"upsd.users": "[eve]\n    password = Abc.123\n    upsmon boss\n"}),
        ["upsd.users", "[eve]", "upsmon"],
    ),
    "upsmon.conf": (
        extra_vars(nut_server_extra_lines={"upsmon.conf": "NOTIFYFLAG ONBATT SHOUT"}),
        ["upsmon.conf", "NOTIFYFLAG"],
    ),
    "upsmon.conf, a number": (
        extra_vars(nut_server_upsmon_conf={"OFFDURATION": "soon"}),
        ["nut_server_upsmon_conf: OFFDURATION", "soon"],
    ),
    "upssched.conf": (
        extra_vars(nut_server_extra_lines={"upssched.conf": "AT ONBATT * START-TIMER x soon"}),
        ["upssched.conf", "AT ONBATT", "START-TIMER x"],
    ),
}


@pytest.fixture
def rack(on: Callable[[str], Host]) -> Host:
    """Return the primary."""
    return on("rack")


def read_files(host: Host) -> dict[str, str]:
    """Return NUT's files on a host: name -> text."""
    return {name: host.file(f"{ETC}/{name}").content_string for name in FILES}


def is_serving(host: Host) -> bool:
    """Return whether upsd has fresh data of each UPS."""
    return all(read_status(host, ups, PORT)[:1] == ["OL"] for ups in UPSES)


def list_litter(host: Host) -> list[str]:
    """Return the names in /etc/nut besides NUT's files, those of our programs and one directory of certificates."""
    rest = {*host.check_output("ls -A %s", ETC).split()} - {*FILES, "hotplug.json", "shutdown.json", "access.nft"}
    folders = sorted(name for name in rest if name.startswith("tls-"))
    return sorted(rest - {*folders}) + folders[1:]


@pytest.mark.parametrize("case", keep_first(MISTAKES))
def test_mistake_is_reported_with_file_and_directive(rack, play, case):
    """No daemon is restarted and no file is written."""
    arguments, texts = MISTAKES[case]
    before, processes = read_files(rack), nut_processes(rack)
    done = play("--limit", "rack", *arguments)
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    for text in texts:
        assert text in output, output
    assert "Abc.123" not in output
    assert "Traceback" not in output
    assert count_changes(output) == 0
    assert read_files(rack) == before
    assert processes.items() <= nut_processes(rack).items()


@pytest.fixture
def full_disk(lab: Lab, rack: Host) -> Iterator[None]:
    """Move /etc/nut to a file system that is full, and back at the end."""

    def run_on_container(command: str) -> str:
        # a container of the lab can't mount file systems itself
        return run_podman("exec", "--privileged", lab.container_name("rack"), "sh", "-euc", command).stdout

    run_on_container(
        f"cp -a {ETC} /root/nut.kept && mount -t tmpfs -o size=256k,mode=0755 tmpfs {ETC}"
        f" && chown root:nut {ETC} && cp -a /root/nut.kept/. {ETC} && (cat /dev/zero >{ETC}/.fill 2>/dev/null || true)"
    )
    yield
    # lazily, because the daemons keep the database of certificates open
    run_on_container(f"umount --lazy {ETC} && rm -r /root/nut.kept")


@pytest.mark.usefixtures("full_disk")
def test_full_disk_leaves_all_old_files_and_can_be_retried(rack, play):
    """The old files stay complete, and the message says what to do."""
    before, processes = read_files(rack), nut_processes(rack)
    done = play(
        "--limit",
        "rack",
        *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}, nut_server_upsmon_conf={"MINSUPPLIES": 2, "DEADTIME": 16}),
    )
    output = done.stdout + done.stderr
    assert done.returncode != 0, output
    assert "No space left on device" in output
    assert ETC in output
    assert "Traceback" not in output
    assert read_files(rack) == before
    assert processes.items() <= nut_processes(rack).items()
    assert is_serving(rack)
    # with free space the same play succeeds
    rack.check_output("rm %s", f"{ETC}/.fill")
    assert list_litter(rack) == []
    done = play(
        "--limit",
        "rack",
        *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}, nut_server_upsmon_conf={"MINSUPPLIES": 2, "DEADTIME": 16}),
    )
    assert done.returncode == 0, done.stdout
    assert "\nMAXAGE 16\n" in read_files(rack)["upsd.conf"]
    # restore the content that will be there when this file system is gone
    assert play("--limit", "rack").returncode == 0
    assert read_files(rack) == before


def test_two_parallel_plays_leave_the_files_of_one(rack, start, play):
    """One may be refused because the other holds the lock. The files are all from one of them."""
    assert play("--limit", "rack").returncode == 0
    both = [
        start(
            *("--limit", "rack"),
            *extra_vars(
                nut_server_upsd_conf={"MAXAGE": age}, nut_server_upsmon_conf={"MINSUPPLIES": 2, "DEADTIME": age}
            ),
        )
        for age in (17, 18)
    ]
    done = [wait_for_end(process) for process in both]
    failed = [run for run in done if run.returncode]
    assert len(failed) < 2, [run.stdout for run in done]
    for run in failed:
        assert "another run is configuring NUT on this host" in run.stdout + run.stderr, run.stdout
    after = read_files(rack)
    written = (
        grammar.find_directive(after["upsd.conf"], "MAXAGE"),
        grammar.find_directive(after["upsmon.conf"], "DEADTIME"),
    )
    assert written in [(age, age) for age, run in zip(("17", "18"), done, strict=True) if run.returncode == 0]
    assert is_serving(rack)
    assert list_litter(rack) == []
    assert rack.check_output("systemctl --failed --no-legend") == ""


def test_upsd_killed_during_a_play_is_started_again(rack, lab, start):
    """Killed at the worst moment: the files are replaced, and no daemon has read them yet."""
    before = show_unit(rack, "nut-server")
    killer = kill_upsd_when_replaced(lab, "rack", f"{ETC}/upsd.conf")
    done = wait_for_end(start("--limit", "rack", *extra_vars(nut_server_upsd_conf={"MAXAGE": 19})))
    assert wait_for_end(killer, 60).returncode == 0
    assert show_unit(rack, "nut-server") != before
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode:
        assert "nut-server" in done.stdout + done.stderr, done.stdout
    wait_until(lambda: is_serving(rack), 30, "upsd to serve again")
    assert "\nMAXAGE 19\n" in read_files(rack)["upsd.conf"]


def test_plain_play_repairs_everything(rack, play):
    """After all tests above. The play after it changes nothing."""
    done = play("--limit", "rack")
    assert done.returncode == 0, done.stdout
    assert "\nMAXAGE 15\n" in read_files(rack)["upsd.conf"]
    assert is_serving(rack)
    assert list_litter(rack) == []
    again = play()
    assert again.returncode == 0
    assert again.stdout.count("changed=0") == 6
