# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is broken is named, and nothing else. A run sees also that what was broken before it has been mended."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from homelab import CHECKOUT, Lab
from support import nut_processes, passwords, status, until
from testinfra.host import Host

SECONDS = 60
Bad = set[tuple[str, str, str]]
On = Callable[[str], Host]


@dataclass(frozen=True)
class Break:
    """A thing to break. named: (check, host, verdict) that the table must have. besides: (check, host) that may be there, too.

    host: where the commands run. settled: waits until it shows, and until it is mended.
    """

    named: Bad
    host: str
    do: str
    undo: str
    besides: set[tuple[str, str]] = field(default_factory=set)
    settled: str = ""
    mended: str = ""


def changed(path: str, by: str) -> tuple[str, str]:
    """Return how a file is changed by sed, and how it comes back as it was, its time too."""
    return f"cp -p {path} {path}.kept && sed -i '{by}' {path}", f"mv {path}.kept {path}"


LOGGED_IN = "upsc -c ups@localhost 2>/dev/null | grep -cvE '^(127|::1)' | grep -qx 2"
UPSMON, USERS, UPSD = (f"/etc/nut/{name}" for name in ("upsmon.conf", "upsd.users", "upsd.conf"))
POLICY = "/etc/nut/shutdown.json"
GATE = "/etc/systemd/system/nut-shutdown.service"

shutdowncmd, shutdowncmd_back = changed(UPSMON, 's,^SHUTDOWNCMD.*,SHUTDOWNCMD "/bin/true",')
users, users_back = changed(USERS, "/^.media/,/^$/s/password = .*/password = other/")
listen, listen_back = changed(UPSD, "s/^LISTEN.*/LISTEN 127.0.0.1 3493/")
policy, policy_back = changed(POLICY, "s/.version.: 1/version: 1/")
mode, mode_back = changed("/etc/nut/nut.conf", "s/^MODE=.*/MODE=none/")

BREAKS = {
    # without nut-hotplug, which would start it again
    "a driver stopped, and nut-hotplug": Break(
        {("units", "pve8", "failure"), ("driver", "pve8", "failure"), ("hotplug", "pve8", "failure")},
        "pve8",
        "systemctl stop nut-hotplug.timer; until systemctl is-active nut-hotplug | grep -qx inactive; do sleep 0.2; done; "
        "systemctl stop nut-driver@ups",
        "systemctl start nut-driver@ups nut-hotplug.timer",
        settled="! upsc ups@localhost ups.status",
        mended="upsc ups@localhost ups.status | grep -q OL",
        besides={("port", "media")},
    ),
    "upsmon masked": Break(
        {("units", "media", "failure"), ("login", "media", "failure")},
        "media",
        "systemctl mask --now --runtime nut-monitor",
        "systemctl unmask --runtime nut-monitor; systemctl start nut-monitor",
    ),
    "a secondary's upsmon stopped": Break(
        {("units", "media", "failure"), ("login", "media", "failure")},
        "media",
        "systemctl stop nut-monitor",
        "systemctl start nut-monitor",
    ),
    # the doctor forgives a file one second, and the test before this one may have started upsmon just now
    "SHUTDOWNCMD changed by hand": Break(
        {("shutdowncmd", "media", "failure"), ("restarted", "media", "warning")},
        "media",
        f"sleep 3 && {shutdowncmd}",
        shutdowncmd_back,
    ),
    "a password changed in upsd.users": Break(
        {("users", "pve8", "failure")}, "pve8", users, users_back, besides={("restarted", "pve8")}
    ),
    "upsd listening on loopback alone": Break(
        {("listening", "pve8", "failure"), ("port", "media", "failure"), ("login", "truenas", "failure")},
        "pve8",
        f"{listen} && systemctl restart nut-server",
        f"{listen_back} && systemctl restart nut-server",
        besides={("files", "pve8"), ("login", "media"), ("restarted", "pve8")},
        settled="upsc ups@localhost ups.status | grep -q OL",
    ),
    # what is sent from port 3493 is dropped, as by a firewall
    "port 3493 shut": Break(
        {("port", "media", "failure")},
        "pve8",
        "ip rule add priority 100 ipproto tcp sport 3493 blackhole",
        "ip rule del priority 100",
        besides={("login", "media"), ("login", "truenas")},
        # upsd lists the old connections until each upsmon, at its next poll, has noticed and logged in again
        mended="sleep 12",
    ),
    "a flag left over": Break(
        {("killpower", "pve8", "failure")}, "pve8", "echo left > /run/nut-killpower", "rm /run/nut-killpower"
    ),
    "the gate's unit removed": Break(
        {("gate", "pve8", "failure")},
        "pve8",
        f"mv {GATE} /root/ && systemctl daemon-reload",
        f"mv /root/nut-shutdown.service {GATE} && systemctl daemon-reload",
    ),
    "the policy broken": Break({("policy", "pve8", "failure")}, "pve8", policy, policy_back),
    # nut-hotplug refuses to work then, if it looks meanwhile
    "MODE=none": Break(
        {("mode", "pve8", "failure")},
        "pve8",
        mode,
        f"{mode_back}; systemctl start nut-hotplug",
        besides={("files", "pve8"), ("hotplug", "pve8")},
    ),
    "upsd not started at boot": Break(
        {("units", "pve8", "warning")}, "pve8", "systemctl disable nut-server", "systemctl enable nut-server"
    ),
    "TrueNAS's service stopped": Break(
        {("service", "truenas", "failure"), ("login", "truenas", "failure")},
        "truenas",
        "midclt call -j service.control STOP ups",
        "midclt call -j service.control START ups",
    ),
}


@pytest.fixture(scope="module")
def doctor() -> Callable[[], Bad]:
    """Return a function that runs the doctor on the site, and returns what is not well; notes are well."""

    def run() -> Bad:
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
            (one["check"], one["host"], one["verdict"])
            for one in report["findings"]
            if one["verdict"] not in ("ok", "note")
        }

    return run


@contextmanager
def broken(on: On, one: Break) -> Iterator[None]:
    """Break a thing, and mend it in the end."""
    host = on(one.host)
    assert host.run(one.do).rc == 0
    try:
        if one.settled:
            until(lambda: host.run(one.settled).rc == 0, SECONDS, "it shows")
        yield
    finally:
        assert host.run(one.undo).rc == 0
        if one.mended:
            until(lambda: host.run(one.mended).rc == 0, SECONDS, "it is mended")
        until(lambda: status(on("pve8")) == ["OL"] and on("pve8").run(LOGGED_IN).rc == 0, SECONDS, "all are logged in")


def judged(bad: Bad, named: Bad, besides: set[tuple[str, str]]) -> None:
    """See that what is broken is named, and that there is nothing else."""
    assert named <= bad, f"not named: {named - bad}; the table has {bad}"
    others = {one for one in bad - named if one[:2] not in besides}
    assert not others, f"nobody has broken {others}"


def test_all_is_well_as_deployed(doctor: Callable[[], Bad]) -> None:
    assert doctor() == set()


@pytest.mark.parametrize("name", BREAKS)
def test_it_is_named(on: On, doctor: Callable[[], Bad], name: str) -> None:
    one = BREAKS[name]
    with broken(on, one):
        judged(doctor(), one.named, one.besides)


def test_a_ups_that_is_pulled_out(lab: Lab, on: On, doctor: Callable[[], Bad]) -> None:
    lab.control_ups("pve8", "unplug", "--port", "1")
    try:
        until(lambda: status(on("pve8")) == [], SECONDS, "its data are stale")
        judged(
            doctor(),
            {("usb", "pve8", "failure"), ("driver", "pve8", "failure")},
            {("port", "media"), ("units", "pve8")},
        )
    finally:
        lab.control_ups("pve8", "plug", "apc", "--port", "1")
        until(lambda: status(on("pve8")) == ["OL"], SECONDS, "it is served again")


def test_a_battery_that_has_too_little_left_when_it_is_low(lab: Lab, on: On, doctor: Callable[[], Bad]) -> None:
    def becomes(low: str, replace: str) -> None:
        lab.control_ups("pve8", "set", f"runtime_low={low}", f"replace_battery={replace}")
        # it reads that one at its start only
        on("pve8").check_output("systemctl restart nut-driver@ups")
        until(lambda: says(low, replace), SECONDS, "the UPS says so")

    def says(low: str, replace: str) -> bool:
        seen, flags = (
            on("pve8").run("upsc ups@localhost battery.runtime.low 2>/dev/null").stdout.strip(),
            status(on("pve8")),
        )
        return seen == low and "OL" in flags and ("RB" in flags) == (replace == "1")

    try:
        becomes("5", "1")
        judged(doctor(), {("plan", "pve8", "failure"), ("status", "pve8", "warning")}, set())
    finally:
        becomes("120", "0")


def test_a_wrong_password_on_truenas(on: On, doctor: Callable[[], Bad]) -> None:
    """TrueNAS calls its service running all the same."""
    host = on("truenas")
    right = json.loads(host.check_output("midclt call ups.config"))["monpwd"]
    assert right in passwords()
    assert host.run("midclt call ups.update %s", json.dumps({"monpwd": "wrong"})).rc == 0
    try:
        until(lambda: on("pve8").run(LOGGED_IN).rc != 0, SECONDS, "it is out")
        judged(doctor(), {("settings", "truenas", "failure"), ("login", "truenas", "failure")}, set())
    finally:
        assert host.run("midclt call ups.update %s", json.dumps({"monpwd": right})).rc == 0
        until(lambda: on("pve8").run(LOGGED_IN).rc == 0, SECONDS, "it is logged in again")


def test_a_host_that_is_off(lab: Lab, on: On, doctor: Callable[[], Bad]) -> None:
    """It is a finding like any other, and the others are looked at."""
    on("media").run("systemd-run --on-active=1 systemctl poweroff")
    until(lambda: lab.read_states()[lab.find_host("media")].condition == "exited", SECONDS, "it is off")
    try:
        judged(doctor(), {("reachable", "media", "failure"), ("login", "media", "failure")}, set())
    finally:
        lab.start_sites(lab.started_sites())
        until(lambda: on("pve8").run(LOGGED_IN).rc == 0, SECONDS, "all are logged in")


def test_it_is_all_well_again_and_nothing_was_restarted(on: On, doctor: Callable[[], Bad]) -> None:
    """The doctor itself changes nothing: all processes are those from before it, and so are the files."""
    until(lambda: on("pve8").run(LOGGED_IN).rc == 0, SECONDS, "all are logged in")
    files = (
        "find /etc/nut /etc/systemd/system /usr/local/sbin /var/lib/nut-shutdown -newer /run/before 2>/dev/null || true"
    )
    before = {name: nut_processes(on(name)) for name in ("pve8", "media")}
    for name in before:
        on(name).check_output("touch /run/before")
    assert doctor() == set()
    assert {name: nut_processes(on(name)) for name in before} == before
    assert {name: on(name).check_output(files) for name in before} == {"pve8": "", "media": ""}


def test_the_status_shows_everyone(on: On) -> None:
    shown = subprocess.run(
        [str(CHECKOUT / "tools" / "doctor"), "status", "--inventory", str(CHECKOUT / "inventories" / "lab")],
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    ).stdout
    assert "on mains" in shown
    assert "truenas (logged in" in shown
    assert "media (logged in" in shown
    assert "upsmon could not query ups" in shown or "lost contact with ups" in shown
