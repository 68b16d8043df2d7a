# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An attacker who has become the user nut on a primary can neither become root nor have the power cut."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import trust
from support import extra_vars, read_status, show_unit

PRIMARIES = ("pve8", "pve9")
FLAG = "/run/nut-killpower"
PROGRAM = "/usr/local/sbin/nut-shutdown"
TEXT = "upsmon-shutdown-file"

# The user nut replaces each configuration file that root's programs read while a play checks the files.
ATTACK = """
import contextlib
from pathlib import Path
conf = "CMDSCRIPT /run/nut/evil\\nPIPEFN /run/nut/p\\nLOCKFN /run/nut/l\\nAT __none * EXECUTE x\\n"
while True:
    for folder in [path for path in Path("/run").iterdir() if path.name.startswith(("nut-", "homelab-nut-"))]:
        for name in ("upssched.conf", "state/upssched.conf"):
            with contextlib.suppress(OSError):
                (folder / ".new").write_text(conf)
                (folder / ".new").rename(folder / name)
"""
EVIL = "#!/bin/sh\\nid -u >>/run/nut/ran\\n"


def as_nut(host, script: str, *arguments: str):
    """Run a script on a host as the user nut."""
    return host.run(f"runuser -u nut -- sh -c {script!r}", *arguments)


def run_check_mode(play, host, **directives):
    """Run the play on a primary in check mode, with other directives in upsmon.conf, so that it checks every file."""
    settings = extra_vars(nut_server_upsmon_conf=directives)
    return play("--limit", host.backend.host.name, "--tags", "ups", "--check", *settings)


@pytest.fixture(params=PRIMARIES)
def host(on, request) -> Iterator:
    """Return a primary. At the end, check that its processes are still the same."""
    found = on(request.param)
    before = [show_unit(found, name) for name in ("nut-server", "nut-monitor")]
    yield found
    found.run(f"rm -f {FLAG} /run/nut/evil /run/nut/ran /run/nut/filler")
    assert [show_unit(found, name) for name in ("nut-server", "nut-monitor")] == before
    assert read_status(found)[:1] == ["OL"]


def test_only_root_can_write_to_directories_that_root_trusts(host):
    """Verify the table in docs/architecture.md on a real host."""
    for path in trust.ROOTS_OWN:
        # nut can't create a directory that is missing
        assert as_nut(host, f"test -w {path}").rc == 1, path
        assert as_nut(host, f"test -e {path} || test -w $(dirname {path})").rc == (
            0 if host.file(path).exists else 1
        ), path
        assert (
            as_nut(
                host,
                f"find {path} -xdev -writable -type f,d -not -perm -1000 -not -path '/run/nut/*' -not -path /run/nut 2>/dev/null",
            ).stdout
            == ""
        ), path
    for path in trust.NUTS_OWN:
        assert as_nut(host, f"test -w {path}").rc == 0, path


def test_play_runs_no_script_of_nut_as_root(host, play):
    """The attacker replaces upssched.conf while root's programs read it."""
    assert as_nut(host, f"printf '{EVIL}' >/run/nut/evil && chmod +x /run/nut/evil").rc == 0
    pid = host.check_output("runuser -u nut -- python3 -c %s >/dev/null 2>&1 & echo $!", ATTACK)
    try:
        # a changed directive, so that the play checks every file
        done = run_check_mode(play, host, RBWARNTIME=40001)
    finally:
        host.run(f"pkill -P {pid}; kill {pid}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not host.file("/run/nut/ran").exists
    assert host.check_output("find /run -maxdepth 1 -name 'homelab-nut-check-*'") == ""


@pytest.mark.parametrize("how", ["by hand", "in the place of the file"])
def test_nut_shutdown_fsd_ignores_forged_pid_file(host, how):
    """`upsmon -c fsd` signals the process that the file names. nut-shutdown asks systemd. No signal is sent here."""
    victim = host.check_output("sleep 600 >/dev/null 2>&1 & echo $!")
    kept = host.check_output("cat /run/nut/upsmon.pid")
    try:
        if how == "by hand":
            as_nut(host, f"rm -f /run/nut/upsmon.pid; echo {victim} >/run/nut/upsmon.pid")
        else:
            as_nut(host, f"echo {victim} >/run/nut/new.pid; mv -f /run/nut/new.pid /run/nut/upsmon.pid")
        assert host.check_output("cat /run/nut/upsmon.pid") == victim
        # find out which process it would signal, without sending the signal
        found = host.check_output(
            "python3 -IS -c %s",
            f"""
import sys; sys.path.insert(0, "{PROGRAM}")
import signal, subprocess
from _nut.shutdown import fsd
told = []
def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
def send(held, number):
    lines = open(f"/proc/self/fdinfo/{{held}}").read().splitlines()
    told.append(next(line.split()[1] for line in lines if line.startswith("Pid:")))
    assert number == signal.SIGUSR1
fsd.request_fsd(run, send=send)
print(*told)
""",
        )
        assert found == kept
        assert host.check_output(f"ps -o user= -p {found}") == "nut"
        assert host.run(f"kill -0 {victim}").rc == 0
    finally:
        host.run(f"rm -f /run/nut/upsmon.pid; echo {kept} >/run/nut/upsmon.pid; kill {victim}")


def test_nut_can_not_create_powerdownflag(host):
    """A flag created by nut would cut the power of all machines at the next reboot."""
    for place in (FLAG, f"{FLAG}.spare"):
        assert as_nut(host, f"printf {TEXT} >{place}").rc != 0
        assert as_nut(host, f"ln -sf /root/victim {place}").rc != 0
        assert as_nut(host, f"rm -f {place} && ! test -e {place}").rc != 0 or place == FLAG
    assert host.run("/lib/nut/upsmon -P 4194303 -K").rc != 0
    # nothing reads a flag where nut can write
    as_nut(host, f"printf {TEXT} >/run/nut/killpower")
    assert host.run("/lib/nut/upsmon -P 4194303 -K").rc != 0
    host.run("rm -f /run/nut/killpower")


def test_powerdownflag_in_directory_of_nut_is_refused(host, play):
    done = run_check_mode(play, host, POWERDOWNFLAG="/run/nut/killpower")
    assert done.returncode != 0
    # Debian 13 gives the directory to the user, Debian 12 to the group
    assert re.search(
        r"POWERDOWNFLAG /run/nut/killpower: (users other than root can write /run/nut|/run/nut belongs to the user nut)",
        done.stdout,
    )
    host.check_output(f"ln -s /root/victim {FLAG}")
    done = run_check_mode(play, host, RBWARNTIME=40001)
    assert done.returncode != 0
    assert f"POWERDOWNFLAG {FLAG}: {FLAG} is a link" in done.stdout


def test_spare_flag_exists_and_is_restored(host, play):
    spare = host.file(f"{FLAG}.spare")
    assert (spare.user, spare.mode, spare.content_string) == ("root", 0o644, TEXT)
    assert host.run("rm %s", spare.path).rc == 0
    done = play("--limit", host.backend.host.name, "--tags", "ups")
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.file(spare.path).content_string == TEXT
    # at boot it is created before any program of nut runs
    assert f'f+ "{spare.path}" 0644 root root - {TEXT}' in host.file("/etc/tmpfiles.d/nut-shutdown.conf").content_string


def test_gate_fills_empty_powerdownflag(host):
    """upsmon leaves an empty flag if /run is full. The gate runs outside of its unit, so nothing powers off."""
    policy = json.loads(host.check_output("cat /etc/nut/shutdown.json"))
    script = f"""
import sys; sys.path.insert(0, "{PROGRAM}")
from pathlib import Path
from _nut.shutdown import gate_loop, policy as shutdown_policy
policy = shutdown_policy.check_policy({dict(policy, machines=[])!r})
gate_loop.Gate(policy, print, dict, dict, Path("/run/nut-trust/gate.json"), by=gate_loop.SYSTEMD).run()
"""
    host.check_output(f": >{FLAG}; python3 -IS -c %s", script)
    assert host.file(FLAG).content_string == TEXT
    assert host.run("/lib/nut/upsmon -P 4194303 -K").rc == 0
    host.run(f"rm -rf {FLAG} /run/nut-trust")
