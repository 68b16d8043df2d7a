# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A rehearsal shuts nothing down, whether it succeeds, breaks or turns hostile."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import sandbox
from drill.primary import INVENTORY, UNIT
from support import wait_for_end, wait_for_mains, wait_until

WATCH = "for _ in $(seq 3000); do upsc ups@localhost ups.status 2>/dev/null; sleep 0.2; done"


@pytest.fixture(scope="module")
def rehearsed(primaries, drill):
    """Run a drill on both primaries; return the playbook's output, and each status that the real upsd reported."""
    watches = {name: primary.start_ssh(WATCH) for name, primary in primaries.items()}
    try:
        done = wait_for_end(drill())
    finally:
        for process in watches.values():
            process.terminate()
    statuses = {name: set(process.communicate()[0].split()) for name, process in watches.items()}
    assert done.returncode == 0, done.stdout
    return done.stdout, statuses


def test_each_site_reports_the_last_machine_down(rehearsed):
    out, _statuses = rehearsed
    # on a busy machine media may begin so late that it is down after truenas, which takes 20 s
    assert re.search("The order held: the last machine down was (truenas|media),", out), out
    assert "The order held: the last machine down was truenas9," in out
    for name in ("pve8", "pve9"):
        lines = [line for line in out.splitlines() if f"{name}: " in line or "truenas" in line]
        assert any("upsmon runs its SHUTDOWNCMD" in line for line in lines)
        assert any(f"{name}: would power off now" in line for line in lines)
    assert re.search(r"pve8 .*unreachable=0 .*failed=0", out)


def test_a_drill_says_who_would_be_told(rehearsed):
    out, _statuses = rehearsed
    for name in ("truenas", "truenas9"):
        told = "target 1 (mail to root) would be told: Mains failed: ups is on battery; Battery low: ups"
        assert any(told in line and f"; {name} is down; " in line for line in out.splitlines())


def test_picture_shows_plan_and_measurement(rehearsed):
    """Each site has a self-contained page."""
    assert rehearsed
    for name, secondary in (("pve8", "truenas"), ("pve9", "truenas9")):
        page = (INVENTORY / ".homelab-nut" / f"shutdown-{name}-drill.html").read_text()
        assert secondary in page
        assert "seen" in page
        assert "http://" not in page.replace("http://www.w3.org", "")


def test_nothing_went_down(primaries, rehearsed):
    """No machine or daemon was restarted; the real UPS stayed on mains, and FSD was never set."""
    _out, statuses = rehearsed
    for name, primary in primaries.items():
        primary.assert_unchanged()
        assert {"OL"} <= statuses[name]
        assert not {"FSD", "OB", "LB"} & statuses[name]


# Drills that break


FAULTS = {
    "the inner half is killed": f"systemctl kill --kill-who=main --signal=KILL {UNIT}",
    "the outer half is killed": "pkill -KILL -f '^/usr/bin/python3 .*nut-shutdown drill --outag[e]'",
    "the simulated upsd is killed": "kill -KILL $(pgrep -x upsd | grep -vx $(systemctl show --property=MainPID --value nut-server))",
    "the primary's simulated upsmon is killed": "pkill -KILL -x drill-primary",
    "the simulated driver is killed": "pkill -KILL -x dummy-ups",
    "its unit is stopped": f"systemctl stop {UNIT}",
    "the mains fail": None,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_drill_fails_soon_and_changes_nothing(primaries, fault):

    def try_on(primary):
        process = primary.start_ssh("nut-shutdown drill --outage 60")
        output = []
        for line in process.stdout:
            output.append(line)
            if "on battery" in line:
                break
        assert "on battery" in output[-1], output
        if FAULTS[fault]:
            assert primary.host.run(FAULTS[fault]).rc == 0
        else:
            primary.lab.control_ups(primary.name, "mains", "off")
        begun = time.monotonic()
        try:
            rest = process.communicate(timeout=60)[0]
        finally:
            if not FAULTS[fault]:
                primary.lab.control_ups(primary.name, "mains", "on")
        # less than the outage of 60 s, so the drill did not simply finish
        assert time.monotonic() - begun < 45
        assert process.returncode not in (0, None), output
        assert "would power off" not in rest
        if not FAULTS[fault]:
            assert "is on battery. Stopping the drill" in rest
            wait_for_mains(primary.host)
        primary.assert_unchanged()

    with ThreadPoolExecutor() as pool:
        list(pool.map(try_on, primaries.values()))


def test_drill_is_refused_without_upsd(primaries):

    def try_on(primary):
        primary.host.check_output("systemctl stop nut-server")
        done = primary.host.run("nut-shutdown drill")
        primary.host.check_output("systemctl start nut-server")
        assert done.rc == 2
        assert "cannot tell whether a real shutdown is imminent" in done.stderr
        primary.before["nut-server"] = primary.read_state()["nut-server"]
        wait_until(lambda: len(primary.list_clients()) > len(primary.secondaries), 90, "all upsmons to log in again")
        primary.assert_unchanged()

    with ThreadPoolExecutor() as pool:
        list(pool.map(try_on, primaries.values()))


# Attacks from inside the sandbox

ATTACKS = {
    "systemctl poweroff": "systemctl poweroff",
    "systemctl poweroff, past systemd": "systemctl poweroff --force --force",
    "shutdown": "shutdown -h now",
    "reboot(2)": "python3 -c 'import ctypes; raise SystemExit(ctypes.CDLL(None, use_errno=True).reboot(0x4321FEDC) and 1)'",
    "a signal to systemd": "kill -s RTMIN+4 1",
    "a signal to upsmon": "kill -s USR1 PID",
    "the end of upsmon": "kill -s KILL PID",
    "upsmon -c fsd": "/sbin/upsmon -c fsd",
    "upsmon -c fsd, past its wrapper": "$(ls /usr/lib/nut/upsmon /lib/nut/upsmon 2>/dev/null | head -1) -P PID -c fsd",
    "FSD at the real upsd": "upsc ups@127.0.0.1 ups.status",
    "the real upsd from outside": "upsc ups@ADDRESS ups.status",
    "NUT's passwords": "cat /etc/nut/upsd.users",
    "the gate's unit": "systemctl start nut-shutdown.service",
    "logind, by D-Bus": "busctl call org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager PowerOff b false",
    "the USB bus": "ls /dev/bus/usb/*",
    "sysrq": "sh -c 'echo o >/proc/sysrq-trigger'",
    "its own cgroup": "sh -c 'echo 1 >/sys/fs/cgroup/cgroup.procs'",
    "another user's rights": "su -c true",
    "namespaces": "unshare --user --map-root-user true",
    "the driver's order to cut": "sh $RUNTIME_DIRECTORY/cut",
    "a file at boot": "touch /etc/systemd/system/evil.service",
}

# as nutshutdown does at the end of a shutdown, with its own files
CUT = """
cd "$RUNTIME_DIRECTORY"
printf '[ups]\\ndriver = usbhid-ups\\nport = auto\\n' >ups.conf
export NUT_CONFPATH=$PWD NUT_STATEPATH=$PWD
for driver in /usr/lib/nut/usbhid-ups /lib/nut/usbhid-ups; do
    [ ! -x "$driver" ] || exec "$driver" -a ups -k
done
exit 1
"""


def test_attacks_from_inside_the_sandbox_fail(primaries):
    """A program in the sandbox tries every way to power off, to request it, or to cut the power."""

    def try_on(primary):
        pid = primary.host.check_output("cat /run/nut/upsmon.pid")
        address = primary.host.check_output("hostname -i").split()[0]
        lines = ["cd /", "touch /run/nut/killpower", f"cat >$RUNTIME_DIRECTORY/cut <<'CUT'\n{CUT}CUT"]
        for number, attack in enumerate(ATTACKS.values()):
            tried = attack.replace("PID", pid).replace("ADDRESS", address)
            lines.append(f"timeout 20 {tried} </dev/null >$RUNTIME_DIRECTORY/said 2>&1 && echo did {number}")
        lines.append("echo tried all")
        script = "\n".join(lines)
        primary.host.check_output(f"cat >/usr/local/bin/evil <<'END'\n{script}\nEND")
        given = " ".join(f"'--property={value}'" for value in sandbox.list_sandbox_properties(300))
        done = primary.host.run(
            f"systemd-run --quiet --pipe --wait --collect --unit={UNIT} {given} -- /bin/sh /usr/local/bin/evil"
        )
        assert done.stdout.splitlines()[-1:] == ["tried all"], done.stderr
        names = list(ATTACKS)
        assert [names[int(line.split()[1])] for line in done.stdout.splitlines()[:-1]] == []
        # the real /run/nut has no killpower
        primary.assert_unchanged()

    with ThreadPoolExecutor() as pool:
        list(pool.map(try_on, primaries.values()))


def test_attacks_work_outside_the_sandbox(primaries):
    """Otherwise their failure inside would prove nothing."""
    for primary in primaries.values():
        assert primary.host.run("upsc ups@127.0.0.1 ups.status").rc == 0
        assert primary.host.run("kill -s 0 $(cat /run/nut/upsmon.pid)").rc == 0
        assert primary.host.run("cat /etc/nut/upsd.users").rc == 0
        assert primary.host.run("systemctl show nut-shutdown.service").rc == 0
