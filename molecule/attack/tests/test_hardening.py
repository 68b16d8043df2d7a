# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandboxes of NUT's units: how tight they are, that they hold, and that all of NUT does its work in them."""

from __future__ import annotations

import json
import re
import shlex
import time

import pytest
from homelab.podman import run_podman
from support import extra, status, unit, until

PRIMARIES = ("pve8", "pve9")
DROP_IN = "/etc/systemd/system/{}.d/homelab-nut-hardening.conf"
LAB = "/etc/systemd/system/nut-driver@.service.d/lab-usb.conf"
SERVER, MONITOR, DRIVER = "nut-server.service", "nut-monitor.service", "nut-driver@ups.service"

# What `systemd-analyze security` says at most, of 10. Without the drop-ins these are 9.6, and 7.0 for nut-hotplug.
# nut-stages has none (9.6): what it starts are people's guests, and its unit says what each line would do to them.
EXPOSURE = {
    SERVER: 1.6,
    DRIVER: 1.6,
    "nut-hotplug.service": 3.4,
    MONITOR: 4.4,
    "nut-shutdown.service": 5.4,
}

# Tried as nut in a unit like upsd's: prints the names of those that succeeded.
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
    # in a child: what takes a right away, or is undone by nothing
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
# What nut may do where nothing is taken from it: else the attacks would prove nothing.
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


def exposure(host, name):
    said = host.check_output("systemd-analyze security --no-pager %s", name)
    return float(re.search(r"exposure level for \S+: ([\d.]+)", said).group(1))


def lines(host, name):
    """Return what the drop-in of a unit says to systemd."""
    text = host.file(DROP_IN.format(name)).content_string
    return [line for line in text.splitlines() if re.match("[A-Za-z]+=", line)]


def status_of(host, pid):
    """Return what the kernel says of a process's rights."""
    return dict(line.split(":\t", 1) for line in host.check_output("cat /proc/%s/status", pid).splitlines())


def serves(host, ups="ups"):
    return "OL" in status(host, ups)


@pytest.fixture(scope="module", params=PRIMARIES)
def primary(request, on, play):
    """Return a primary that is deployed as the lab has it, and leave it so."""
    host = on(request.param)
    until(lambda: serves(host), 60, "upsd serves")
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
def privileged(lab, name):
    """Return a function that runs a script on the primary with all rights, and returns what it says."""
    return lambda script: run_podman(
        "exec", "--privileged", lab.container_name(name), "sh", "-c", script
    ).stdout.strip()


@pytest.mark.parametrize("which", EXPOSURE)
def test_how_much_a_unit_may_do(primary, which):
    assert exposure(primary, which) <= EXPOSURE[which]


def test_the_daemons_run_in_them(primary, privileged):
    """Not only what the units say: the processes."""
    init = privileged("readlink /proc/1/ns/mnt")
    for which in (SERVER, DRIVER):
        pid = unit(primary, which)
        found = status_of(primary, pid)
        assert int(found["CapBnd"], 16) == 0
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert primary.check_output("stat -c %%U /proc/%s", pid) == "nut"
        assert privileged(f"readlink /proc/{pid}/ns/mnt") != init
        # as root, who may write there anywhere else
        closed = "/etc/attack /etc/nut/attack /usr/attack /var/lib/nut/attack /root/attack /sys/attack"
        script = f"touch /run/nut/attack; rm /run/nut/attack; for at in {closed}; do ! touch $at 2>/dev/null || echo $at; done"
        assert privileged(f"nsenter --target {pid} --mount -- sh -euc {shlex.quote(script)}") == ""
        hidden = "ls -A /home /root /tmp /var/tmp | grep -v -e ':$' -e '^$' || :"
        assert privileged(f"nsenter --target {pid} --mount -- sh -c {shlex.quote(hidden)}") == ""
    # upsmon's root half, which starts the shutdown, has no namespace that could fail, and few capabilities
    found = status_of(primary, unit(primary, MONITOR))
    assert 0 < int(found["CapBnd"], 16) < 0x100
    assert found["NoNewPrivs"] == "1"
    assert privileged(f"readlink /proc/{unit(primary, MONITOR)}/ns/mnt") == init


def test_they_hold(primary):
    """Each attack, as nut: in a unit like upsd's, and for comparison in one of nut's without a sandbox."""
    primary.check_output("echo x >/home/secret; chmod 644 /home/secret; touch /tmp/others")
    primary.check_output("printf %%s %s >/usr/local/share/attacks.py", ATTACKS)
    try:
        found = {}
        for kind, given in (
            ("free", ["User=nut", "Group=nut"]),
            ("upsd", lines(primary, SERVER)),
            ("driver", lines(primary, "nut-driver@.service")),
        ):
            properties = " ".join(f"--property={shlex.quote(line)}" for line in given)
            command = f"systemd-run --quiet --wait --collect --pipe {properties} -- /usr/bin/python3 -I"
            done = primary.run(f"{command} /usr/local/share/attacks.py {unit(primary, SERVER)}")
            assert done.rc == 0, done.stderr
            found[kind] = set(done.stdout.splitlines())
        assert found["free"] >= ALLOWED
        assert found["upsd"] == set()
        assert found["driver"] == set()
    finally:
        primary.run(
            "rm -f /usr/local/share/attacks.py /home/secret /tmp/others /tmp/attack /var/lib/nut/attack /run/nut/attack"
        )


def test_reloads_and_restarts_work_in_them(primary):
    before = unit(primary, SERVER)
    primary.check_output("systemctl reload nut-server")
    primary.check_output("systemctl reload nut-monitor")
    time.sleep(1)  # long enough for a signal that ends it
    assert unit(primary, SERVER) == before
    until(lambda: serves(primary), 15, "upsd serves after its reload")
    primary.check_output(f"systemctl restart {DRIVER}")
    primary.check_output("systemctl restart nut-server nut-monitor")
    until(lambda: serves(primary), 30, "upsd serves after a restart")
    until(
        lambda: "127.0.0.1" in primary.run("upsc -c ups@localhost 2>/dev/null").stdout.split(),
        30,
        "upsmon is logged in",
    )


@pytest.mark.long
def test_a_full_disk_keeps_none_of_them_from_starting(primary):
    """PrivateTmp= and PrivateDevices= would: they make folders in /tmp."""
    primary.check_output("for at in /tmp /var/tmp; do mount -t tmpfs -o nr_inodes=1 none $at; done")
    try:
        assert primary.run("touch /tmp/x").rc != 0
        primary.check_output(f"systemctl restart nut-server nut-monitor {DRIVER}; systemctl start nut-hotplug")
        until(lambda: serves(primary), 30, "upsd serves")
    finally:
        primary.check_output("umount /tmp /var/tmp")


@pytest.mark.long
def test_tls_and_drivers_that_read_files(primary, play, name):
    """Certificates are read by upsd as nut, in its sandbox; a driver of files, one of another upsd, and one of another driver."""
    primary.check_output(
        "printf 'ups.status: OL\\ndevice.model: of a file\\n' >/etc/nut/file.dev; chmod 644 /etc/nut/file.dev"
    )
    devices = [
        {"name": "ups", "driver": "auto"},
        {"name": "file", "driver": "dummy-ups", "port": "file.dev", "powervalue": 0},
        {"name": "far", "driver": "dummy-ups", "port": "file@localhost", "powervalue": 0},
    ]
    done = play("--limit", name, "--tags", "ups", *extra(nut_server_tls={"enabled": True}, nut_server_devices=devices))
    assert done.returncode == 0, done.stdout + done.stderr
    for ups in ("ups", "file", "far"):
        until(lambda ups=ups: serves(primary, ups), 60, f"{ups} is served")
    found = status_of(primary, unit(primary, "nut-driver@file.service"))
    assert int(found["CapBnd"], 16) == 0
    # the play has believed nothing but TLS already; this asks once more, from outside of Ansible
    client = "import socket; s = socket.create_connection(('127.0.0.1', 3493), 5); s.sendall(b'STARTTLS\\n'); print(s.recv(99))"
    assert "OK STARTTLS" in primary.check_output(f'python3 -c "{client}"')
    assert exposure(primary, SERVER) <= EXPOSURE[SERVER]


@pytest.mark.long
def test_a_change_waits_for_the_mains(primary, play, lab, name):
    """It restarts the daemons, and that in an outage would shut down every secondary."""
    assert play("--limit", name, "--tags", "ups").returncode == 0
    before = {which: unit(primary, which) for which in (SERVER, DRIVER, MONITOR)}
    lab.control_ups(name, "mains", "off")
    until(lambda: "OB" in status(primary), 30, "NUT noticed")
    try:
        done = play("--limit", name, "--tags", "ups", *extra(nut_server_hardening=False))
        assert done.returncode != 0
        assert "not plainly on mains" in done.stdout + done.stderr
        assert {which: unit(primary, which) for which in before} == before
    finally:
        lab.control_ups(name, "mains", "on")
    until(lambda: serves(primary), 30, "on mains again")
    # what was not done is not forgotten: it is in no file any more
    done = play("--limit", name, "--tags", "ups", *extra(nut_server_hardening=False))
    assert done.returncode == 0, done.stdout + done.stderr
    for which in (SERVER, DRIVER, MONITOR):
        assert not primary.file(DROP_IN.format(re.sub("@ups", "@", which))).exists
        assert unit(primary, which) != before[which]
        assert status_of(primary, unit(primary, which))["NoNewPrivs"] == "0"
    assert exposure(primary, SERVER) > 9


@pytest.mark.long
def test_a_host_without_namespaces_does_without(primary, play, name):
    """As a container without nesting. NUT serves, and a warning says what is missing."""
    primary.check_output("mv /run/systemd/propagate /run/systemd/propagate.aside; touch /run/systemd/propagate")
    try:
        done = play("--limit", name, "--tags", "ups")
        said = re.sub(r"\s+", " ", done.stdout + done.stderr)
        assert done.returncode == 0, said
        for which in (SERVER, "nut-driver@.service"):
            assert f"{which} runs without its sandbox (homelab-nut-hardening.conf)" in said
            assert not primary.file(DROP_IN.format(which)).exists
        assert "226/NAMESPACE" in said
        assert "nut_server_hardening=false" in said
        # upsmon's needs none
        assert "nut-monitor.service runs without" not in said
        assert status_of(primary, unit(primary, MONITOR))["NoNewPrivs"] == "1"
        assert serves(primary)
    finally:
        primary.check_output("rm /run/systemd/propagate; mv /run/systemd/propagate.aside /run/systemd/propagate")
    done = play("--limit", name, "--tags", "ups")
    assert done.returncode == 0, done.stdout
    assert "runs without" not in done.stdout + done.stderr
    for which in (SERVER, DRIVER, MONITOR):
        assert status_of(primary, unit(primary, which))["NoNewPrivs"] == "1"
    assert "changed=0" in play("--limit", name, "--tags", "ups").stdout


@pytest.mark.long
def test_a_host_that_loses_them_is_told_of(primary, play, name):
    """The sandbox stands, and systemd can't make it any more: the message has its name and the way out, and that works."""
    primary.check_output("mv /run/systemd/propagate /run/systemd/propagate.aside; touch /run/systemd/propagate")
    try:
        done = play("--limit", name, "--tags", "ups", *extra(nut_server_upsd_conf={"MAXCONN": 200}, nut_server_wait=15))
        said = re.sub(r"\s+", " ", done.stdout + done.stderr)
        assert done.returncode != 0, said
        assert "can't start nut-server.service in its sandbox (226/NAMESPACE)" in said
        assert DROP_IN.format(SERVER) in said
        assert "nut_server_hardening=false" in said
        # the lab's own way to its devices takes a namespace, too
        primary.check_output(f"mv {LAB} /run/lab-usb.conf; systemctl daemon-reload")
        done = play(
            "--limit", name, "--tags", "ups", *extra(nut_server_upsd_conf={"MAXCONN": 200}, nut_server_hardening=False)
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert serves(primary)
    finally:
        primary.check_output("rm /run/systemd/propagate; mv /run/systemd/propagate.aside /run/systemd/propagate")
        primary.run(f"mv /run/lab-usb.conf {LAB}; systemctl daemon-reload")


@pytest.mark.long
def test_what_is_removed_leaves_no_drop_in(primary, play, name):
    done = play("--limit", name, *extra(nut_server_state="absent"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = primary.check_output("find /etc/systemd/system -name 'homelab-nut*'")
    assert found == ""
    assert json.loads(primary.run("cat /run/homelab-nut-pending.json 2>/dev/null || echo []").stdout) == []
