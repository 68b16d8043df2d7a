# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Messages that reach a web server and a mail server in the lab, and those that reach them only after a power cut."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from homelab import CHECKOUT, Lab
from homelab.outage import cut_power
from support import count_changes, read_status, wait_until
from testinfra.host import Host

SCENARIO = Path(__file__).resolve().parents[1]
SITES = {"pve8": ("truenas", "media"), "pve9": ("truenas9",)}
RECORD = "/root/arrived.jsonl"
SECRET = "c4n4ry-s3cr3t"


class Primary:
    """A primary, and the recorder on it."""

    def __init__(self, lab: Lab, host: Host, name: str) -> None:
        self.lab, self.host, self.name = lab, host, name

    def start_recorder(self) -> None:
        """Start the servers, with nothing recorded yet."""
        text = (SCENARIO / "recorder.py").read_text()
        self.host.check_output("printf %%s %s >/root/recorder.py", text)
        self.stop_recorder()
        self.host.check_output("rm -f %s", RECORD)
        self.host.check_output("systemd-run --unit=recorder --collect /usr/bin/python3 /root/recorder.py %s", RECORD)
        wait_until(lambda: self.host.run("ss -ltn | grep -c '8099\\|8025'").stdout.strip() == "2", 20, "the recorder")

    def stop_recorder(self) -> None:
        """Stop the servers: nobody can be reached any more."""
        self.host.run("systemctl stop recorder")

    def list_arrived(self, to: str = "/ok") -> list[dict[str, Any]]:
        """Return what has arrived at one of the servers."""
        lines = self.host.run("cat %s", RECORD).stdout.splitlines()
        return [found for found in map(json.loads, lines) if found["to"] == to]

    def list_titles(self, to: str = "/ok") -> list[str]:
        """Return the titles of what has arrived, without the name of the host."""
        return [found["title"].partition(f"[{self.name}] ")[2] for found in self.list_arrived(to)]

    def wait_for_title(self, title: str, seconds: float = 60, to: str = "/ok") -> None:
        """Wait until a message has arrived."""
        wait_until(lambda: title in self.list_titles(to), seconds, f"{title!r} to reach {to} of {self.name}")


@pytest.fixture(scope="module", params=SITES)
def primary(request: pytest.FixtureRequest, lab: Lab, on: Callable[[str], Host]) -> Primary:
    """Return the primary of a site, whose recorder runs."""
    found = Primary(lab, on(request.param), request.param)
    wait_until(lambda: read_status(found.host)[:1] == ["OL"], 60, f"{found.name} to serve its UPS")
    found.start_recorder()
    return found


def run_playbook(name: str, limit: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook as a user does."""
    return subprocess.run(
        [
            "ansible-playbook",
            str(CHECKOUT / "playbooks" / name),
            "-i",
            str(SCENARIO / "inventory"),
            "--limit",
            limit,
            "-vv",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
    )


def test_a_test_message_shows_what_each_service_answered(primary: Primary) -> None:
    """One hangs and one refuses, so the play fails, and says which."""
    done = run_playbook("notify_test.yml", primary.name)
    assert done.returncode == 2, done.stdout
    assert "target 1 (json): sent" in done.stdout
    assert "target 2 (json): no answer within 30 s" in done.stdout
    assert "target 3 (json): " in done.stdout
    assert "error=403" in done.stdout
    assert "target 4 (mailto): sent" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert f"Test message of {primary.name}" in primary.list_titles()
    assert f"Test message of {primary.name}" in primary.list_titles("mail")


def test_a_run_that_changes_nothing_shows_no_secret(primary: Primary) -> None:
    """The deployment itself, as verbose as a user may have it."""
    done = run_playbook("pve.yml", f"{primary.name},{','.join(SITES[primary.name])}")
    assert done.returncode == 0, done.stdout
    assert count_changes(done.stdout) == 0, done.stdout
    assert SECRET not in done.stdout + done.stderr


def test_mains_that_fail_and_return_are_told_in_this_order(primary: Primary) -> None:
    """Although one target hangs and another refuses."""
    primary.lab.control_ups(primary.name, "mains", "off")
    try:
        primary.wait_for_title("Mains failed: ups is on battery")
    finally:
        primary.lab.control_ups(primary.name, "mains", "on")
    primary.wait_for_title("Mains are back: ups")
    titles = [title for title in primary.list_titles() if title.startswith("Mains")]
    assert titles == ["Mains failed: ups is on battery", "Mains are back: ups"]
    failed = next(found for found in primary.list_arrived() if "Mains failed" in found["title"])
    assert failed["kind"] == "warning"
    assert "The battery has " in failed["body"]
    assert "reported by upsmon on" in failed["body"]
    primary.wait_for_title("Mains failed: ups is on battery", to="mail")
    assert "Mains are back: ups" not in primary.list_titles("mail")  # it is not grave enough


def test_a_ups_that_is_lost_is_told(primary: Primary) -> None:
    """Its cable is pulled, and plugged in again."""
    primary.lab.control_ups(primary.name, "unplug", "--port", "1")
    primary.wait_for_title("No data from ups", 120)
    primary.lab.control_ups(primary.name, "replug", "--port", "1")
    primary.wait_for_title("Data from ups again", 120)


def test_what_happens_while_nobody_can_be_reached_is_told_after_the_reboot(primary: Primary) -> None:
    """In order, with the true times, and the shutdown takes no longer."""
    wait_until(lambda: read_status(primary.host)[:1] == ["OL"], 120, "the UPS to be on mains")
    time.sleep(11)  # every upsmon has heard of it
    primary.stop_recorder()
    begun = time.time()
    stops = {stop.host: stop for stop in cut_power(primary.lab, primary.name, print)}
    last = stops[primary.name]
    assert last.down is not None
    # the machines that it waits for were down, and then it went within the time that it also takes without notifications
    others = [stops[name].down for name in SITES[primary.name]]
    assert all(down is not None and last.began is not None and down < last.began for down in others)
    assert last.down - max(down for down in others if down is not None) < 30
    ended = time.time()
    primary.lab.start_sites([primary.name])
    wait_until(lambda: read_status(primary.host)[:1] == ["OL"], 120, "the UPS to be on mains again")
    primary.start_recorder()
    primary.wait_for_title(f"{primary.name} is up again", 400)
    titles = primary.list_titles()
    expected = [
        "Mains failed: ups is on battery",
        "Battery low: ups",
        f"{primary.name} waits for the other machines, then powers off",
        *(f"{name} is down" for name in SITES[primary.name]),
        f"{primary.name} powers off now",
        f"{primary.name} is up again",
    ]
    assert set(expected) <= set(titles), titles
    places = [titles.index(title) for title in expected if not title.endswith(" is down")]
    assert places == sorted(places), titles
    gate = next(found for found in primary.list_arrived() if found["title"].endswith("powers off now"))
    assert "This message is late" in gate["body"]
    events = [json.loads(line) for line in primary.host.check_output("cat /var/log/nut/events.jsonl").splitlines()]
    times = [
        time.mktime(time.strptime(event["time"], "%Y-%m-%d %H:%M:%S %z"))
        for event in events
        if event["event"] == "gate-ended"
    ]
    assert any(begun - 5 < at < ended + 5 for at in times)


def test_the_secret_is_nowhere_but_in_the_file_for_root(primary: Primary) -> None:
    """Not in a log, in the journal, in a process list, in another file, or in the environment of a process that is not root's."""
    script = f"""
        grep -rlF {SECRET} /etc /run /var/log /var/lib/nut* /usr/local 2>/dev/null
        journalctl --no-pager | grep -cF {SECRET}
        for process in /proc/[0-9]*; do tr '\\0' ' ' <$process/cmdline; echo; done | grep -F {SECRET} | grep -vcF grep
        stat -c '%U %G %a' /etc/nut/notify.json
    """
    assert primary.host.run(script).stdout.split("\n") == ["/etc/nut/notify.json", "0", "0", "root root 600", ""]


def test_the_user_nut_reads_nothing_and_reports_little(primary: Primary) -> None:
    """It may hand in events of upsmon, a few at a time, and nothing else."""
    for path in ("/etc/nut/notify.json", "/var/lib/nut-notify/outbox.json", "/var/lib/nut-notify/new/"):
        assert primary.host.run("runuser -u nut -- cat %s", path).rc != 0
    assert primary.host.run("runuser -u nobody -- env NOTIFYTYPE=ONBATT nut-notify event").rc != 0
    flood = "for i in $(seq 60); do NOTIFYTYPE=OVER UPSNAME=ups$i@localhost nut-notify event; done"
    primary.host.run("runuser -u nut -- sh -c %s", flood)
    primary.wait_for_title(f"Events of upsmon were dropped on {primary.name}", 240)
    forged = [title for title in primary.list_titles() if "overloaded" in title]
    assert 0 < len(forged) <= 40


def test_a_drill_shows_who_would_be_told(primary: Primary) -> None:
    """Nothing is sent for it."""
    shown = primary.host.check_output("nut-notify preview")
    assert "target 1 (json) would be told: Mains failed: ups is on battery; " in shown
    assert f"; {SITES[primary.name][0]} is down; " in shown
