# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandboxes of NUT's units: they are tight, they withstand attacks, and NUT works inside them."""

from __future__ import annotations

import json
import re
import shlex
import time

import pytest
from homelab.podman import run_podman
from support import count_changes, extra_vars, read_status, show_unit, wait_until

PRIMARIES = ("pve8", "pve9")
DROP_IN = "/etc/systemd/system/{}.d/homelab-nut-hardening.conf"
LAB = "/etc/systemd/system/nut-driver@.service.d/lab-usb.conf"
SERVER, MONITOR, DRIVER = "nut-server.service", "nut-monitor.service", "nut-driver@ups.service"

# The highest exposure allowed in `systemd-analyze security`, of 10. Without the drop-ins: 9.6, and 7.0 for nut-hotplug.
# nut-stages has no sandbox (9.6), because it starts the user's guests; comments in its unit give the details.
EXPOSURE = {
    SERVER: 1.6,
    DRIVER: 1.6,
    "nut-hotplug.service": 3.4,
    MONITOR: 4.4,
    "nut-shutdown.service": 5.4,
}

# Runs as nut in a unit like upsd's and prints the names of the attacks that succeeded.
ATTACKS = r"""
import ctypes, mmap, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
upsd = int(sys.argv[1])
CLONE_NEWUSER, CLONE_NEWNS, PTRACE_SEIZE, PER_LINUX32 = 0x10000000, 0x20000, 0x4206, 8

def call(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")

def write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW))

def elsewhere(function):
    # in a child process, because the attack changes the process for good
    child = os.fork()
    if not child:
        try:
            function()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise OSError("refused")

ATTACKS = {
    "writes NUT's memory": lambda: write("/var/lib/nut/attack"),
    "writes /tmp": lambda: write("/tmp/attack"),
    "writes NUT's files": lambda: write("/etc/nut/upsd.conf"),
    "writes /etc": lambda: write("/etc/attack"),
    "writes /sys": lambda: write("/sys/power/state"),
    "reads /home": lambda: open("/home/secret").read(),
    "lists /tmp": lambda: os.listdir("/tmp"),
    "sees processes of others": lambda: os.stat("/proc/1/stat"),
    "traces upsd": lambda: call(libc.ptrace(PTRACE_SEIZE, upsd, 0, 0)),
    "signals systemd": lambda: os.kill(1, 0),
    "becomes root": lambda: elsewhere(lambda: os.setuid(0)),
    "makes a namespace": lambda: elsewhere(lambda: call(libc.unshare(CLONE_NEWUSER))),
    "mounts": lambda: call(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "speaks raw": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "speaks oddly": lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET).close(),
    "writes code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close(),
    "is another machine": lambda: elsewhere(lambda: call(libc.personality(PER_LINUX32))),
    "is in a hurry": lambda: elsewhere(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))),
    "reads the kernel's log": lambda: os.close(os.open("/dev/kmsg", os.O_RDONLY)),
    "leaves a program of its own rights": lambda: os.chmod("/run/nut/attack", 0o4755),
}
write("/run/nut/attack")
for name, attack in ATTACKS.items():
    try:
        attack()
        print(name)
    except (OSError, ValueError):
        pass
os.remove("/run/nut/attack")
"""
# What nut can do without a sandbox. If these failed too, the attacks would prove nothing.
ALLOWED = {
    "writes NUT's memory",
    "writes /tmp",
    "reads /home",
    "lists /tmp",
    "sees processes of others",
    "writes code",
    "is another machine",
    "leaves a program of its own rights",
}


def read_exposure(host, name):
    output = host.check_output("systemd-analyze security --no-pager %s", name)
    return float(re.search(r"exposure level for \S+: ([\d.]+)", output).group(1))


def read_directives(host, name):
    """Return the directives of a unit's drop-in."""
    text = host.file(DROP_IN.format(name)).content_string
    return [line for line in text.splitlines() if re.match("[A-Za-z]+=", line)]


def read_process_status(host, pid):
    """Return /proc/PID/status as a dict; it holds the process's capabilities."""
    return dict(line.split(":\t", 1) for line in host.check_output("cat /proc/%s/status", pid).splitlines())


def is_served(host, ups="ups"):
    return "OL" in read_status(host, ups)


@pytest.fixture(scope="module", params=PRIMARIES)
def primary(request, on, play):
    """Return a deployed primary, and deploy it again at the end."""
    host = on(request.param)
    wait_until(lambda: is_served(host), 60, "upsd to serve the UPS")
    yield host
    host.run(
        "test -d /run/systemd/propagate.aside && rm -f /run/systemd/propagate && "
        "mv /run/systemd/propagate.aside /run/systemd/propagate"
    )
    done = play("--limit", request.param)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def name(primary):
    return primary.check_output("hostname")


@pytest.fixture
def run_privileged(lab, name):
    """Return a function that runs a script on the primary with all capabilities and returns its output."""
    return lambda script: run_podman(
        "exec", "--privileged", lab.container_name(name), "sh", "-c", script
    ).stdout.strip()


@pytest.mark.parametrize("unit_name", EXPOSURE)
def test_exposure_of_each_unit_is_low(primary, unit_name):
    assert read_exposure(primary, unit_name) <= EXPOSURE[unit_name]


def test_running_daemons_are_sandboxed(primary, run_privileged):
    """Checks the processes themselves, not what the units claim."""
    init = run_privileged("readlink /proc/1/ns/mnt")
    for unit_name in (SERVER, DRIVER):
        pid = show_unit(primary, unit_name)
        found = read_process_status(primary, pid)
        assert int(found["CapBnd"], 16) == 0
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert primary.check_output("stat -c %%U /proc/%s", pid) == "nut"
        assert run_privileged(f"readlink /proc/{pid}/ns/mnt") != init
        # as root, which could write there outside of the sandbox
        closed = "/etc/attack /etc/nut/attack /usr/attack /var/lib/nut/attack /root/attack /sys/attack"
        script = f"touch /run/nut/attack; rm /run/nut/attack; for at in {closed}; do ! touch $at 2>/dev/null || echo $at; done"
        assert run_privileged(f"nsenter --target {pid} --mount -- sh -euc {shlex.quote(script)}") == ""
        hidden = "ls -A /home /root /tmp /var/tmp | grep -v -e ':$' -e '^$' || :"
        assert run_privileged(f"nsenter --target {pid} --mount -- sh -c {shlex.quote(hidden)}") == ""
    # upsmon's root half, which starts the shutdown, has no namespace that could fail, and few capabilities
    found = read_process_status(primary, show_unit(primary, MONITOR))
    assert 0 < int(found["CapBnd"], 16) < 0x100
    assert found["NoNewPrivs"] == "1"
    assert run_privileged(f"readlink /proc/{show_unit(primary, MONITOR)}/ns/mnt") == init


def test_sandbox_withstands_attacks(primary):
    """Run each attack as nut, in units like upsd's and the driver's, and for comparison in a unit without a sandbox."""
    primary.check_output("echo x >/home/secret; chmod 644 /home/secret; touch /tmp/others")
    primary.check_output("printf %%s %s >/usr/local/share/attacks.py", ATTACKS)
    try:
        found = {}
        for kind, given in (
            ("free", ["User=nut", "Group=nut"]),
            ("upsd", read_directives(primary, SERVER)),
            ("driver", read_directives(primary, "nut-driver@.service")),
        ):
            properties = " ".join(f"--property={shlex.quote(line)}" for line in given)
            command = f"systemd-run --quiet --wait --collect --pipe {properties} -- /usr/bin/python3 -I"
            done = primary.run(f"{command} /usr/local/share/attacks.py {show_unit(primary, SERVER)}")
            assert done.rc == 0, done.stderr
            found[kind] = set(done.stdout.splitlines())
        assert found["free"] >= ALLOWED
        assert found["upsd"] == set()
        assert found["driver"] == set()
    finally:
        primary.run(
            "rm -f /usr/local/share/attacks.py /home/secret /tmp/others /tmp/attack /var/lib/nut/attack /run/nut/attack"
        )


def test_daemons_reload_and_restart_inside_sandbox(primary):
    before = show_unit(primary, SERVER)
    primary.check_output("systemctl reload nut-server")
    primary.check_output("systemctl reload nut-monitor")
    time.sleep(1)  # long enough to see a daemon die of the signal
    assert show_unit(primary, SERVER) == before
    wait_until(lambda: is_served(primary), 15, "upsd to serve the UPS after its reload")
    primary.check_output(f"systemctl restart {DRIVER}")
    primary.check_output("systemctl restart nut-server nut-monitor")
    wait_until(lambda: is_served(primary), 30, "upsd to serve the UPS after a restart")
    wait_until(
        lambda: "127.0.0.1" in primary.run("upsc -c ups@localhost 2>/dev/null").stdout.split(),
        30,
        "upsmon to log in",
    )


@pytest.mark.long
def test_daemons_start_with_a_full_disk(primary):
    """PrivateTmp= and PrivateDevices= would fail, because they create directories in /tmp."""
    primary.check_output("for at in /tmp /var/tmp; do mount -t tmpfs -o nr_inodes=1 none $at; done")
    try:
        assert primary.run("touch /tmp/x").rc != 0
        primary.check_output(f"systemctl restart nut-server nut-monitor {DRIVER}; systemctl start nut-hotplug")
        wait_until(lambda: is_served(primary), 30, "upsd to serve the UPS")
    finally:
        primary.check_output("umount /tmp /var/tmp")


@pytest.mark.long
def test_tls_and_file_reading_drivers_work_inside_sandbox(primary, play, name):
    """upsd reads its certificates as nut; one driver reads a file, another reads from an upsd."""
    primary.check_output(
        "printf 'ups.status: OL\\ndevice.model: of a file\\n' >/etc/nut/file.dev; chmod 644 /etc/nut/file.dev"
    )
    devices = [
        {"name": "ups", "driver": "auto", "powervalue": 1},
        {"name": "file", "driver": "dummy-ups", "port": "file.dev", "powervalue": 0},
        {"name": "far", "driver": "dummy-ups", "port": "file@localhost", "powervalue": 0},
    ]
    done = play(
        "--limit", name, "--tags", "ups", *extra_vars(nut_server_tls={"enabled": True}, nut_server_devices=devices)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for ups in ("ups", "file", "far"):
        wait_until(lambda ups=ups: is_served(primary, ups), 60, f"upsd to serve {ups}")
    found = read_process_status(primary, show_unit(primary, "nut-driver@file.service"))
    assert int(found["CapBnd"], 16) == 0
    # The play has already verified TLS. Ask once more, without Ansible.
    client = "import socket; s = socket.create_connection(('127.0.0.1', 3493), 5); s.sendall(b'STARTTLS\\n'); print(s.recv(99))"
    assert "OK STARTTLS" in primary.check_output(f'python3 -c "{client}"')
    assert read_exposure(primary, SERVER) <= EXPOSURE[SERVER]


@pytest.mark.long
def test_sandbox_change_waits_for_mains(primary, play, lab, name):
    """The change restarts the daemons, which would shut down every secondary during a power cut."""
    assert play("--limit", name, "--tags", "ups").returncode == 0
    before = {unit_name: show_unit(primary, unit_name) for unit_name in (SERVER, DRIVER, MONITOR)}
    lab.control_ups(name, "mains", "off")
    wait_until(lambda: "OB" in read_status(primary), 30, "NUT to notice the power cut")
    try:
        done = play("--limit", name, "--tags", "ups", *extra_vars(nut_server_hardening=False))
        assert done.returncode != 0
        assert "not plainly on mains" in done.stdout + done.stderr
        assert {unit_name: show_unit(primary, unit_name) for unit_name in before} == before
    finally:
        lab.control_ups(name, "mains", "on")
    wait_until(lambda: is_served(primary), 30, "the UPS to be on mains again")
    # the next play makes the change that the first one refused
    done = play("--limit", name, "--tags", "ups", *extra_vars(nut_server_hardening=False))
    assert done.returncode == 0, done.stdout + done.stderr
    for unit_name in (SERVER, DRIVER, MONITOR):
        assert not primary.file(DROP_IN.format(re.sub("@ups", "@", unit_name))).exists
        assert show_unit(primary, unit_name) != before[unit_name]
        assert read_process_status(primary, show_unit(primary, unit_name))["NoNewPrivs"] == "0"
    assert read_exposure(primary, SERVER) > 9


@pytest.mark.long
def test_host_without_namespaces_runs_nut_unsandboxed_with_a_warning(primary, play, name):
    """For example a container without nesting."""
    primary.check_output("mv /run/systemd/propagate /run/systemd/propagate.aside; touch /run/systemd/propagate")
    try:
        done = play("--limit", name, "--tags", "ups")
        output = re.sub(r"\s+", " ", done.stdout + done.stderr)
        assert done.returncode == 0, output
        for unit_name in (SERVER, "nut-driver@.service"):
            assert f"{unit_name} runs without its sandbox (homelab-nut-hardening.conf)" in output
            assert not primary.file(DROP_IN.format(unit_name)).exists
        assert "226/NAMESPACE" in output
        assert "nut_server_hardening=false" in output
        # upsmon's sandbox needs no namespace
        assert "nut-monitor.service runs without" not in output
        assert read_process_status(primary, show_unit(primary, MONITOR))["NoNewPrivs"] == "1"
        assert is_served(primary)
    finally:
        primary.check_output("rm /run/systemd/propagate; mv /run/systemd/propagate.aside /run/systemd/propagate")
    done = play("--limit", name, "--tags", "ups")
    assert done.returncode == 0, done.stdout
    assert "runs without" not in done.stdout + done.stderr
    for unit_name in (SERVER, DRIVER, MONITOR):
        assert read_process_status(primary, show_unit(primary, unit_name))["NoNewPrivs"] == "1"
    assert count_changes(play("--limit", name, "--tags", "ups").stdout) == 0


@pytest.mark.long
def test_host_that_loses_namespaces_gets_an_error_with_the_way_out(primary, play, name):
    """The sandbox is configured, but systemd can't create it any more. The remedy in the message works."""
    primary.check_output("mv /run/systemd/propagate /run/systemd/propagate.aside; touch /run/systemd/propagate")
    try:
        done = play(
            "--limit", name, "--tags", "ups", *extra_vars(nut_server_upsd_conf={"MAXCONN": 200}, nut_server_wait=15)
        )
        output = re.sub(r"\s+", " ", done.stdout + done.stderr)
        assert done.returncode != 0, output
        assert "can't start nut-server.service in its sandbox (226/NAMESPACE)" in output
        assert DROP_IN.format(SERVER) in output
        assert "nut_server_hardening=false" in output
        # the lab's drop-in for the emulated USB devices needs a namespace too
        primary.check_output(f"mv {LAB} /run/lab-usb.conf; systemctl daemon-reload")
        done = play(
            "--limit",
            name,
            "--tags",
            "ups",
            *extra_vars(nut_server_upsd_conf={"MAXCONN": 200}, nut_server_hardening=False),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert is_served(primary)
    finally:
        primary.check_output("rm /run/systemd/propagate; mv /run/systemd/propagate.aside /run/systemd/propagate")
        primary.run(f"mv /run/lab-usb.conf {LAB}; systemctl daemon-reload")


@pytest.mark.long
def test_absent_removes_every_drop_in(primary, play, name):
    done = play("--limit", name, *extra_vars(nut_server_state="absent"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = primary.check_output("find /etc/systemd/system -name 'homelab-nut*'")
    assert found == ""
    assert json.loads(primary.run("cat /run/homelab-nut-pending.json 2>/dev/null || echo []").stdout) == []
