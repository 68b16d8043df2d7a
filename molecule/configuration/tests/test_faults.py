# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong while a site is deployed. In the end upsd serves, the files are one set, and the play has said what was wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from homelab import Lab
from homelab.podman import run_podman
from support import extra_vars, kill_upsd_when_replaced, nut_processes, read_status, show_unit, wait_for_end, wait_until
from testinfra.host import Host

PORT = 13493
UPSES = ("rack-left", "Rack_Right", "desk-3_EATON")
FILES = ("nut.conf", "ups.conf", "upsd.conf", "upsd.users", "upsmon.conf", "upssched.conf")
ETC = "/etc/nut"

# file -> what the inventory says, and the words that name the mistake
MISTAKES = {
    "nut.conf": (
        extra_vars(nut_server_nut_conf={"NUT_DEBUG_LEVEL": "much"}),
        ["nut_server_nut_conf: NUT_DEBUG_LEVEL", "much"],
    ),
    "nut.conf by its hatch": (
        extra_vars(nut_server_extra_lines={"nut.conf": "MODE=none"}),
        ["nut.conf", "MODE", "none"],
    ),
    "ups.conf": (
        extra_vars(nut_server_extra_lines={"ups.conf": "maxstartdelay = soon"}),
        ["ups.conf", "maxstartdelay", "soon"],
    ),
    "ups.conf, a device": (
        extra_vars(nut_server_devices=[{"name": ups, "options": {"offdelay": "soon"}} for ups in UPSES]),
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


def texts(host: Host) -> dict[str, str]:
    """Return the files of NUT on a host."""
    return {name: host.file(f"{ETC}/{name}").content_string for name in FILES}


def serves(host: Host) -> bool:
    """Say whether each UPS is served fresh."""
    return all(read_status(host, ups, PORT)[:1] == ["OL"] for ups in UPSES)


def litter(host: Host) -> list[str]:
    """Name what stands in /etc/nut besides NUT's files, those of our programs and one folder of certificates."""
    rest = {*host.check_output("ls -A %s", ETC).split()} - {*FILES, "hotplug.json", "shutdown.json", "access.nft"}
    folders = sorted(name for name in rest if name.startswith("tls-"))
    return sorted(rest - {*folders}) + folders[1:]


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_names_its_file_and_its_directive(rack, play, case):
    """Nothing is restarted, nothing is written."""
    arguments, words = MISTAKES[case]
    before, processes = texts(rack), nut_processes(rack)
    done = play("--limit", "rack", *arguments)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    for word in words:
        assert word in said, said
    assert "Abc.123" not in said
    assert "Traceback" not in said
    assert "changed=0" in said
    assert texts(rack) == before
    assert processes.items() <= nut_processes(rack).items()


@pytest.fixture
def full(lab: Lab, rack: Host) -> Iterator[None]:
    """Put /etc/nut on a file system of its own that has no room left, and take it away in the end."""

    def as_root_of_the_machine(command: str) -> str:
        # the machines of the lab may not mount anything themselves
        return run_podman("exec", "--privileged", lab.container_name("rack"), "sh", "-euc", command).stdout

    as_root_of_the_machine(
        f"cp -a {ETC} /root/nut.kept && mount -t tmpfs -o size=256k,mode=0755 tmpfs {ETC}"
        f" && chown root:nut {ETC} && cp -a /root/nut.kept/. {ETC} && (cat /dev/zero >{ETC}/.fill 2>/dev/null || true)"
    )
    yield
    # lazily: with TLS the daemons keep their certificates' database open
    as_root_of_the_machine(f"umount --lazy {ETC} && rm -r /root/nut.kept")


@pytest.mark.usefixtures("full")
def test_a_full_disk(rack, play):
    """The old files stay, all of them complete; and whoever reads the message knows what to do."""
    before, processes = texts(rack), nut_processes(rack)
    done = play(
        "--limit", "rack", *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}, nut_server_upsmon_conf={"DEADTIME": 16})
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "No space left on device" in said
    assert ETC in said
    assert "Traceback" not in said
    assert texts(rack) == before
    assert processes.items() <= nut_processes(rack).items()
    assert serves(rack)
    # room again: the same play goes through as if nothing had been
    rack.check_output("rm %s", f"{ETC}/.fill")
    assert litter(rack) == []
    done = play(
        "--limit", "rack", *extra_vars(nut_server_upsd_conf={"MAXAGE": 16}, nut_server_upsmon_conf={"DEADTIME": 16})
    )
    assert done.returncode == 0, done.stdout
    assert "\nMAXAGE 16\n" in texts(rack)["upsd.conf"]
    # the daemons must have read what will lie there when this file system is gone
    assert play("--limit", "rack").returncode == 0
    assert texts(rack) == before


def test_two_plays_at_once(rack, start, play):
    """Two people, or a person and a timer. One may be told to come back; the files are those of one of them."""
    assert play("--limit", "rack").returncode == 0
    both = [
        start(
            *("--limit", "rack"),
            *extra_vars(nut_server_upsd_conf={"MAXAGE": age}, nut_server_upsmon_conf={"DEADTIME": age}),
        )
        for age in (17, 18)
    ]
    done = [wait_for_end(one) for one in both]
    failed = [one for one in done if one.returncode]
    assert len(failed) < 2, [one.stdout for one in done]
    for one in failed:
        assert "another run is configuring NUT on this host" in one.stdout + one.stderr, one.stdout
    after = texts(rack)
    written = (
        grammar.find_directive(after["upsd.conf"], "MAXAGE"),
        grammar.find_directive(after["upsmon.conf"], "DEADTIME"),
    )
    assert written in [(age, age) for age, one in zip(("17", "18"), done, strict=True) if one.returncode == 0]
    assert serves(rack)
    assert litter(rack) == []
    assert rack.check_output("systemctl --failed --no-legend") == ""


def test_upsd_is_killed_during_a_play(rack, lab, start):
    """In the worst moment, when the files are replaced and nothing has been told to read them."""
    before = show_unit(rack, "nut-server")
    killer = kill_upsd_when_replaced(lab, "rack", f"{ETC}/upsd.conf")
    done = wait_for_end(start("--limit", "rack", *extra_vars(nut_server_upsd_conf={"MAXAGE": 19})))
    assert wait_for_end(killer, 60).returncode == 0
    assert show_unit(rack, "nut-server") != before
    assert "Traceback" not in done.stdout + done.stderr
    if done.returncode:
        assert "nut-server" in done.stdout + done.stderr, done.stdout
    wait_until(lambda: serves(rack), 30, "upsd serves again")
    assert "\nMAXAGE 19\n" in texts(rack)["upsd.conf"]


def test_a_plain_play_sets_all_of_it_right(rack, play):
    """After all of the above; and the play after it has nothing to do."""
    done = play("--limit", "rack")
    assert done.returncode == 0, done.stdout
    assert "\nMAXAGE 15\n" in texts(rack)["upsd.conf"]
    assert serves(rack)
    assert litter(rack) == []
    again = play()
    assert again.returncode == 0
    assert again.stdout.count("changed=0") == 6
