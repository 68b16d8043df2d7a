# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths, records
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.clock import Clock
from ansible_collections.homelab.nut.plugins.module_utils._nut.events.catalog import Event
from ansible_collections.homelab.nut.plugins.module_utils._nut.events.report import Reporter
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify import outbox
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.notifier import INBOX_STEP, Notifier
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.sender import Attempt, Post
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.targets import Target
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import report as gate_report

PHONE, MAIL = Target(1, url="ntfy://topic"), Target(2, mail="root", severity="critical")
NOW = 1_800_000_000.0


class Service:
    """A target's service: it takes a message, refuses it, or never answers."""

    def __init__(self) -> None:
        self.answer: str | None = ""
        self.taken: list[str] = []
        self.asked = 0

    def begin(self, target: Target, post: Post) -> Attempt:
        service = self
        service.asked += 1

        class Asked(Attempt):
            def poll(self) -> str | None:
                if service.answer == "":
                    service.taken.append(post.title.partition("] ")[2])
                return service.answer

        return Asked(target, None, 0.0, lambda: 0.0)


class Host:
    """A host with nut-notify, whose time passes with each round."""

    def __init__(self, root: Path) -> None:
        self.root, self.now, self.boot = root, NOW, "boot 1"
        self.services = {PHONE.key: Service(), MAIL.key: Service()}
        self.said: list[str] = []
        self.upsmon: list[Event] = []
        (root / paths.NUT).mkdir(parents=True)
        (root / paths.NOTIFY_POLICY).touch()
        self.start()

    def start(self, targets: Sequence[Target] = (PHONE, MAIL)) -> None:
        """Start the service, after a crash or a reboot."""
        self.notifier = Notifier(
            tuple(targets),
            lambda target, post: self.services[target.key].begin(target, post),
            self.said.append,
            self.take_upsmon,
            lambda _event: "As upsd says.",
            self.root,
            Clock(lambda: self.now, lambda: self.now, lambda _seconds: None, lambda: self.boot),
            "pve",
        )
        self.notifier.load()

    def take_upsmon(self) -> list[Event]:
        taken, self.upsmon = self.upsmon, []
        return taken

    def report(self, name: str, subject: str = "nas") -> None:
        Reporter("gate", lambda _path, work: work(), lambda: self.now, self.root)(name, subject)

    def run(self, rounds: int = 4, seconds: float = 1.0) -> None:
        for _round in range(rounds):
            self.notifier.run_round()
            self.now += seconds

    def list_inbox(self) -> list[Path]:
        folder = self.root / paths.NOTIFY_INBOX
        return list(folder.iterdir()) if folder.exists() else []

    def list_events(self) -> list[Any]:
        return [json.loads(line) for line in (self.root / paths.EVENTS_LOG).read_text().splitlines()]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_each_target_gets_what_it_wants_in_order(host: Host) -> None:
    host.upsmon.append(Event("mains-failed", "ups", "", host.now, "upsmon"))
    host.run()
    for name, subject in (("gate-begun", "pve"), ("machine-down", "nas"), ("gate-ended", "pve")):
        host.report(name, subject)
        host.now += 1
    host.run(8)
    begins, ends = "pve waits for the other machines, then powers off", "pve powers off now"
    assert host.services[PHONE.key].taken == ["Mains failed: ups is on battery", begins, "nas is down", ends]
    assert host.services[MAIL.key].taken == [begins, ends]
    assert host.list_inbox() == []
    seen = host.list_events()
    assert [(event["event"], event["source"]) for event in seen[:2]] == [
        ("mains-failed", "upsmon"),
        ("gate-begun", "gate"),
    ]
    assert seen[0]["text"] == "As upsd says."


@pytest.mark.parametrize("answer", [None, "refused"])
def test_a_target_that_hangs_or_refuses_delays_no_other(host: Host, answer: str | None) -> None:
    host.services[PHONE.key].answer = answer
    host.report("gate-ended", "pve")
    host.run()
    assert host.services[MAIL.key].taken == ["pve powers off now"]
    assert host.services[PHONE.key].asked == 1


def test_what_was_not_sent_is_sent_after_the_reboot_with_its_true_time(host: Host) -> None:
    host.services[PHONE.key].answer = "network is unreachable"
    host.report("gate-begun", "pve")
    host.now += 2
    host.report("machine-down", "nas")
    host.run(30)
    assert host.services[PHONE.key].taken == []
    posts: list[Post] = []
    begin = host.services[PHONE.key].begin

    def note_post(target: Target, post: Post) -> Attempt:
        posts.append(post)
        return begin(target, post)

    host.services[PHONE.key].begin = note_post  # type: ignore[method-assign]
    host.services[PHONE.key].answer = ""
    host.now += 7200
    host.boot = "boot 2"
    host.start()
    host.run(6)
    assert host.services[PHONE.key].taken == ["pve waits for the other machines, then powers off", "nas is down"]
    assert [post.at for post in posts] == [NOW, NOW + 2]
    assert all("This message is late" in post.body for post in posts)


def test_a_service_that_is_killed_at_any_write_loses_nothing(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.services[PHONE.key].answer = "refused"
    host.report("gate-ended", "pve")

    class Killed(BaseException):
        pass

    def die(*_arguments: object) -> None:
        raise Killed

    for place in ("replace_private_file",):
        with monkeypatch.context() as patch:
            patch.setattr(f"{Notifier.__module__}.files.{place}", die)
            with pytest.raises(Killed):
                host.run()
        assert len(host.list_inbox()) == 1
        host.start()
    host.services[PHONE.key].answer = ""
    host.run(20)
    assert host.services[PHONE.key].taken == ["pve powers off now"]


def test_a_full_disk_stops_no_message(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.report("gate-ended", "pve")

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"{Notifier.__module__}.files.replace_private_file", fail)
    monkeypatch.setattr(f"{Notifier.__module__}.append_line", fail)
    host.run(10)
    assert host.services[PHONE.key].taken == ["pve powers off now"]
    assert len([line for line in host.said if "No space left" in line]) == 2


def test_a_damaged_file_in_the_inbox_is_reported_once_and_removed(host: Host) -> None:
    host.report("machine-down", "nas")
    folder = host.root / paths.NOTIFY_INBOX
    (folder / "0000.json").write_text("{")
    host.run()
    assert host.list_inbox() == []
    assert len([line for line in host.said if "0000.json" in line]) == 1
    assert host.services[PHONE.key].taken == ["nas is down"]


def test_a_damaged_state_is_reported_and_replaced(host: Host) -> None:
    (host.root / paths.NOTIFY_STATE).write_text("{")
    host.start()
    host.report("machine-down", "nas")
    host.run()
    assert any("messages that were not sent yet are lost" in line for line in host.said)
    assert host.services[PHONE.key].taken == ["nas is down"]


def test_a_target_that_is_removed_is_forgotten(host: Host) -> None:
    host.services[PHONE.key].answer = "refused"
    host.report("gate-ended", "pve")
    host.run()
    host.start([MAIL])
    host.run()
    state = records.read_record(outbox.Outbox, host.root / paths.NOTIFY_STATE, outbox.VERSION)
    assert PHONE.key not in state.queues


def write_gate_report(host: Host, began: float, mode: str = "gate") -> None:
    nas = gate_report.MachineReport("nas", 60, 90, None, assumed=False, given_up=True)
    report = gate_report.GateReport(mode, began, 95.0, "limit", "nas did not go down", (nas,), (), ())
    path = host.root / paths.GATE_REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(records.dump_record(report, gate_report.VERSION))


def test_after_a_shutdown_the_host_reports_that_it_is_up_again(host: Host) -> None:
    write_gate_report(host, host.now + 100)
    host.now += 3600
    host.boot = "boot 2"
    host.start()
    host.run()
    assert host.services[PHONE.key].taken == ["pve is up again"]
    assert "nas did not go down before the power was cut." in host.list_events()[0]["text"]
    host.start()  # a restart within the same boot is no return
    host.run()
    assert host.services[PHONE.key].taken == ["pve is up again"]


def test_what_was_reported_before_the_shutdown_comes_before_the_return(host: Host) -> None:
    for number in range(INBOX_STEP + 10):
        host.report("machine-down", f"nas{number}")
    write_gate_report(host, host.now + 100)
    host.now += 3600
    host.boot = "boot 2"
    host.start()
    host.run()
    assert [event["event"] for event in host.list_events()] == ["machine-down"] * (INBOX_STEP + 10) + ["host-returned"]


@pytest.mark.parametrize(("began", "mode"), [(-5000, "gate"), (100, "drill")])
def test_an_ordinary_reboot_is_no_return_from_a_shutdown(host: Host, began: float, mode: str) -> None:
    write_gate_report(host, host.now + began, mode)
    host.now += 3600
    host.boot = "boot 2"
    host.start()
    host.run()
    assert host.services[PHONE.key].taken == []
