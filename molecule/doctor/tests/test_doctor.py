# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Break one thing after another: the doctor reports it, and nothing else. Each run also shows that the last repair has worked."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from homelab import CHECKOUT, Lab
from support import nut_processes, read_passwords, read_status, wait_until
from testinfra.host import Host

SECONDS = 60
Problems = set[tuple[str, str, str]]  # (check, host, verdict)
On = Callable[[str], Host]


@dataclass(frozen=True)
class Fault:
    """A fault, and the findings that it causes."""

    expected: Problems
    host: str  # where the commands run
    cause: str
    repair: str
    tolerated: set[tuple[str, str]] = field(default_factory=set)  # (check, host) of findings that may come with it
    # commands that succeed once the fault, or the repair, has taken effect
    has_taken_effect: str = ""
    is_repaired: str = ""


def edit_file(path: str, script: str) -> tuple[str, str]:
    """Return the commands that edit a file with a sed script, and that restore it, including its time."""
    return f"cp -p {path} {path}.kept && sed -i '{script}' {path}", f"mv {path}.kept {path}"


LOGGED_IN = "upsc -c ups@localhost 2>/dev/null | grep -cvE '^(127|::1)' | grep -qx 2"
UPSMON, USERS, UPSD = (f"/etc/nut/{name}" for name in ("upsmon.conf", "upsd.users", "upsd.conf"))
POLICY = "/etc/nut/shutdown.json"
GATE = "/etc/systemd/system/nut-shutdown.service"

shutdowncmd, shutdowncmd_restored = edit_file(UPSMON, 's,^SHUTDOWNCMD.*,SHUTDOWNCMD "/bin/true",')
users, users_restored = edit_file(USERS, "/^.media/,/^$/s/password = .*/password = other/")
listen, listen_restored = edit_file(UPSD, "s/^LISTEN.*/LISTEN 127.0.0.1 3493/")
policy, policy_restored = edit_file(POLICY, "s/.version.: 1/version: 1/")
mode, mode_restored = edit_file("/etc/nut/nut.conf", "s/^MODE=.*/MODE=none/")

FAULTS = {
    # nut-hotplug would start the driver again
    "driver and nut-hotplug stopped": Fault(
        {("units", "pve8", "failure"), ("hotplug", "pve8", "failure")},
        "pve8",
        "systemctl stop nut-hotplug.timer; until systemctl is-active nut-hotplug | grep -qx inactive; do sleep 0.2; done; "
        "systemctl stop nut-driver@ups",
        "systemctl start nut-driver@ups nut-hotplug.timer",
        has_taken_effect="! upsc ups@localhost ups.status",
        is_repaired="upsc ups@localhost ups.status | grep -q OL",
    ),
    "upsmon masked": Fault(
        {("units", "media", "failure")},
        "media",
        "systemctl mask --now --runtime nut-monitor",
        "systemctl unmask --runtime nut-monitor; systemctl start nut-monitor",
    ),
    "upsmon stopped": Fault(
        {("units", "media", "failure")},
        "media",
        "systemctl stop nut-monitor",
        "systemctl start nut-monitor",
    ),
    # the doctor tolerates a file one second newer than its daemon, and the last repair has just started upsmon
    "SHUTDOWNCMD edited": Fault(
        {("shutdowncmd", "media", "failure")},
        "media",
        f"sleep 3 && {shutdowncmd}",
        shutdowncmd_restored,
    ),
    "password in upsd.users edited": Fault({("users", "pve8", "failure")}, "pve8", users, users_restored),
    "upsd listening only on loopback": Fault(
        {("listening", "pve8", "failure")},
        "pve8",
        f"{listen} && systemctl restart nut-server",
        f"{listen_restored} && systemctl restart nut-server",
        tolerated={("files", "pve8")},
        has_taken_effect="upsc ups@localhost ups.status | grep -q OL",
    ),
    # packets sent from port 3493 are dropped, as by a firewall
    "port 3493 blocked": Fault(
        {("port", "media", "failure")},
        "pve8",
        "ip rule add priority 100 ipproto tcp sport 3493 blackhole",
        "ip rule del priority 100",
        tolerated={("login", "truenas")},
        # a poll every 5 s, and 5 s for its answer: by then each upsmon has noticed a broken connection, and upsd has
        # dropped it from its list
        is_repaired="sleep 12",
    ),
    "POWERDOWNFLAG left over": Fault(
        {("killpower", "pve8", "failure")}, "pve8", "echo left > /run/nut-killpower", "rm /run/nut-killpower"
    ),
    "unit of the gate removed": Fault(
        {("gate", "pve8", "failure")},
        "pve8",
        f"mv {GATE} /root/ && systemctl daemon-reload",
        f"mv /root/nut-shutdown.service {GATE} && systemctl daemon-reload",
    ),
    "policy invalid": Fault({("policy", "pve8", "failure")}, "pve8", policy, policy_restored),
    # nut-hotplug, if its timer starts it meanwhile, refuses to run
    "MODE=none": Fault(
        {("mode", "pve8", "failure")},
        "pve8",
        mode,
        f"{mode_restored}; systemctl start nut-hotplug",
        tolerated={("hotplug", "pve8")},
    ),
    "upsd disabled": Fault(
        {("units", "pve8", "warning")}, "pve8", "systemctl disable nut-server", "systemctl enable nut-server"
    ),
    "UPS service of TrueNAS stopped": Fault(
        {("service", "truenas", "failure")},
        "truenas",
        "midclt call -j service.control STOP ups",
        "midclt call -j service.control START ups",
    ),
}


@pytest.fixture(scope="module")
def doctor() -> Callable[[], Problems]:
    """Return a function that runs the doctor on the site, and returns its rows: no ok, no note, nothing that only follows from another."""

    def run_doctor() -> Problems:
        done = subprocess.run(
            [str(CHECKOUT / "tools" / "doctor"), "--json", "--inventory", str(CHECKOUT / "inventories" / "lab")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        )
        assert done.returncode in (0, 1, 2), done.stderr
        report = json.loads(done.stdout)
        assert report["code"] == done.returncode
        return {
            (finding["check"], finding["host"], finding["verdict"])
            for finding in report["findings"]
            if finding["verdict"] not in ("ok", "note") and not finding["because"]
        }

    return run_doctor


@contextmanager
def inject_fault(on: On, fault: Fault) -> Iterator[None]:
    """Cause a fault, and repair it at the end."""
    host = on(fault.host)
    assert host.run(fault.cause).rc == 0
    try:
        if fault.has_taken_effect:
            wait_until(lambda: host.run(fault.has_taken_effect).rc == 0, SECONDS, "the fault to take effect")
        yield
    finally:
        assert host.run(fault.repair).rc == 0
        if fault.is_repaired:
            wait_until(lambda: host.run(fault.is_repaired).rc == 0, SECONDS, "the repair to take effect")
        wait_until(
            lambda: read_status(on("pve8")) == ["OL"] and is_everyone_logged_in(on), SECONDS, "all upsmons to log in"
        )


def is_everyone_logged_in(on: On) -> bool:
    return on("pve8").run(LOGGED_IN).rc == 0


def assert_only_reports(problems: Problems, expected: Problems, tolerated: set[tuple[str, str]]) -> None:
    """Fail unless all expected problems are reported, and no others except tolerated ones."""
    assert expected <= problems, f"not reported: {expected - problems}; reported: {problems}"
    others = {problem for problem in problems - expected if problem[:2] not in tolerated}
    assert not others, f"reported without a fault: {others}"


def test_doctor_reports_nothing_after_deployment(doctor: Callable[[], Problems]) -> None:
    assert doctor() == set()


@pytest.mark.parametrize("name", FAULTS)
def test_doctor_reports_fault(on: On, doctor: Callable[[], Problems], name: str) -> None:
    fault = FAULTS[name]
    with inject_fault(on, fault):
        assert_only_reports(doctor(), fault.expected, fault.tolerated)


def test_doctor_reports_unplugged_ups(lab: Lab, on: On, doctor: Callable[[], Problems]) -> None:
    lab.control_ups("pve8", "unplug", "--port", "1")
    try:
        wait_until(lambda: read_status(on("pve8")) == [], SECONDS, "its data to become stale")
        assert_only_reports(
            doctor(),
            {("usb", "pve8", "failure")},
            set(),
        )
    finally:
        lab.control_ups("pve8", "plug", "apc", "--port", "1")
        wait_until(lambda: read_status(on("pve8")) == ["OL"], SECONDS, "upsd to serve the UPS again")


def test_doctor_reports_battery_too_weak_for_plan(lab: Lab, on: On, doctor: Callable[[], Problems]) -> None:
    """nut-stages would begin the shutdown early, but no mark helps a battery that lasts 100 s."""

    def set_battery(runtime: str, low: str, replace: str) -> None:
        lab.control_ups("pve8", "set", f"runtime={runtime}", f"runtime_low={low}", f"replace_battery={replace}")
        # the driver reads battery.runtime.low only when it starts
        on("pve8").check_output("systemctl restart nut-driver@ups")
        wait_until(lambda: has_battery(runtime, low, replace), SECONDS, "upsd to serve the new values")

    def has_battery(runtime: str, low: str, replace: str) -> bool:
        served = on("pve8").run("upsc ups@localhost 2>/dev/null").stdout.splitlines()
        flags = read_status(on("pve8"))
        marks = {f"battery.runtime: {runtime}", f"battery.runtime.low: {low}"} <= {*served}
        return marks and "OL" in flags and "LB" not in flags and ("RB" in flags) == (replace == "1")

    try:
        set_battery("100", "5", "1")
        assert_only_reports(doctor(), {("plan", "pve8", "failure"), ("status", "pve8", "warning")}, set())
    finally:
        set_battery("2400", "120", "0")


def test_doctor_reports_wrong_password_on_truenas(on: On, doctor: Callable[[], Problems]) -> None:
    """TrueNAS reports its service as running nevertheless."""
    host = on("truenas")
    right = json.loads(host.check_output("midclt call ups.config"))["monpwd"]
    assert right in read_passwords()
    assert host.run("midclt call ups.update %s", json.dumps({"monpwd": "wrong"})).rc == 0
    try:
        wait_until(lambda: not is_everyone_logged_in(on), SECONDS, "TrueNAS to be logged out")
        assert_only_reports(doctor(), {("settings", "truenas", "failure")}, set())
    finally:
        assert host.run("midclt call ups.update %s", json.dumps({"monpwd": right})).rc == 0
        wait_until(lambda: is_everyone_logged_in(on), SECONDS, "TrueNAS to log in again")


def test_doctor_reports_host_that_is_off(lab: Lab, on: On, doctor: Callable[[], Problems]) -> None:
    """The other hosts are checked nevertheless."""
    on("media").run("systemd-run --on-active=1 systemctl poweroff")
    wait_until(lambda: lab.read_states()[lab.find_host("media")].condition == "exited", SECONDS, "media to power off")
    try:
        assert_only_reports(doctor(), {("reachable", "media", "failure")}, set())
    finally:
        lab.start_sites(lab.started_sites())
        wait_until(lambda: is_everyone_logged_in(on), SECONDS, "all upsmons to log in")


def test_doctor_changes_no_file_and_restarts_no_process(on: On, doctor: Callable[[], Problems]) -> None:
    wait_until(lambda: is_everyone_logged_in(on), SECONDS, "all upsmons to log in")
    # nut-stages notes who is logged in, whatever the doctor does
    notes = "! -path /var/lib/nut-shutdown ! -name return.json"
    folders = "/etc/nut /etc/systemd/system /usr/local/sbin /var/lib/nut-shutdown"
    files = f"find {folders} {notes} -newer /run/before 2>/dev/null || true"
    before = {name: nut_processes(on(name)) for name in ("pve8", "media")}
    for name in before:
        on(name).check_output("touch /run/before")
    assert doctor() == set()
    assert {name: nut_processes(on(name)) for name in before} == before
    assert {name: on(name).check_output(files) for name in before} == {"pve8": "", "media": ""}


def run_status(*options: str) -> str:
    return subprocess.run(
        [str(CHECKOUT / "tools" / "doctor"), "status", *options, "--inventory", str(CHECKOUT / "inventories" / "lab")],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    ).stdout


def test_status_as_json_lists_all_logins() -> None:
    hosts = {host["host"]: host for host in json.loads(run_status("--json"))["hosts"]}
    logins = {login["name"]: login for ups in hosts["pve8"]["upses"] for login in ups["logins"]}
    assert [logins[name]["logged_in"] for name in ("pve8", "truenas", "media")] == [True, True, True]


def test_status_shows_all_machines(on: On) -> None:
    shown = run_status()
    assert "on mains" in shown
    assert "truenas (logged in" in shown
    assert "media (logged in" in shown
    assert "upsmon could not query ups" in shown or "lost contact with ups" in shown
