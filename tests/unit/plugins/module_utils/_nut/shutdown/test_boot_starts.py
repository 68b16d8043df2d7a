# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import records
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest, GuestsError
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.selection import ChosenGuest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import boot_starts
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.boot_starts import BootReport, BootStarts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.control import StartResult


class Boot:
    """A Proxmox VE host after a boot, whose NAS is there later."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "etc/pve/local").mkdir(parents=True)
        self.now = 60.0
        self.guests = [Guest(101, "qm", "mail", onboot=True, storages=frozenset({"nas"}))]
        self.states: list[tuple[float, str]] = [(0, "active")]  # of pve-guests.service, by the second from which on
        self.online_at = 300.0
        self.power_returns_at = 0.0
        self.start: Callable[[int], tuple[int, str]] = self.start_guest
        self.owed: list[str] = []
        self.given_up: list[tuple[str, str]] = []
        self.runs: set[int] = set()
        self.started: list[int] = []
        self.lines: list[str] = []
        self.error: Exception | None = None
        self.hold: Callable[[], str] = lambda: "the power is out" if self.now < self.power_returns_at else ""
        self.events: list[tuple[float, Callable[[], None]]] = []
        (root / "run/qemu-server").mkdir(parents=True)

    def find_guests(self) -> Mapping[str, Sequence[ChosenGuest]]:
        if self.error:
            raise self.error
        chosen = [ChosenGuest(guest, 180.0, "its disk is on storage nas") for guest in self.guests]
        return {
            boot_starts.STAGE: [choice for choice in chosen if choice.guest.storages],
            boot_starts.OWED: [choice for choice in chosen if choice.guest.key in self.owed],
        }

    def settle_starts(self, keys: Collection[str]) -> None:
        self.owed = [key for key in self.owed if key not in keys]

    def give_up_start(self, guest: Guest, result: StartResult) -> None:
        self.given_up.append((str(guest), result.message))

    def set_running(self, *numbers: int) -> None:
        """Create the processes of VMs, as Proxmox VE has them, in place of those that ran."""
        self.runs = set(numbers)
        for path in (self.root / "run/qemu-server").glob("*.pid"):
            path.unlink()
        for number in numbers:
            process = self.root / f"proc/{number}"
            process.mkdir(parents=True, exist_ok=True)
            (process / "cmdline").write_text(f"/usr/bin/kvm\0-pidfile\0/run/qemu-server/{number}.pid\0")
            (self.root / f"run/qemu-server/{number}.pid").write_text(f"{number}\n")

    def start_guest(self, number: int) -> tuple[int, str]:
        self.runs.add(number)
        return 0, ""

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        words = list(command[3:])
        if words[0] == "systemctl":
            state = [state for since, state in self.states if self.now >= since][-1]
            return 0, f"LoadState=loaded\nActiveState={state}\n"
        if words[0] == "pvesm":
            return 0, f"{words[3]} nfs {'active' if self.now >= self.online_at else 'inactive'} 0 0 0 0%\n"
        if words[0] == "test":
            return 1, ""  # qm is asked
        number = int(words[2])
        if words[1] == "status":
            return 0, f"status: {'running' if number in self.runs else 'stopped'}\n"
        assert words[1] == "start"
        self.started.append(number)
        return self.start(number)

    def pause(self, seconds: float) -> None:
        self.now += seconds
        for event in [event for event in self.events if event[0] <= self.now]:
            self.events.remove(event)
            event[1]()

    def go(self, boot: str = "b", booted: float = 0.0) -> None:
        BootStarts(
            self,
            self.root / "boot-starts.json",
            boot,
            self.run,
            self.lines.append,
            self,
            owed=tuple(self.owed),
            hold=self.hold,
            clock=lambda: self.now,
            pause=self.pause,
            root=self.root,
            booted=booted,
        ).run_to_end()

    @property
    def report(self) -> BootReport | None:
        return boot_starts.recall_report(self.root / "boot-starts.json", "b")


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    return Boot(tmp_path)


def test_guest_starts_when_its_storage_is_online(boot: Boot) -> None:
    boot.go()
    assert boot.runs == {101}
    assert boot.started == [101]
    assert 300 <= boot.now <= 315
    assert boot.lines == [
        "VM 101 (mail) was not started at boot: it is started when its storage is online: its disk is on storage nas",
        "can't start VM 101 (mail) yet: storage nas is not online. Trying again",
        "VM 101 (mail) is started",
    ]
    assert boot.report == BootReport("b", have_run=("qm/101",), has_ended=True)


def test_proxmox_tries_first(boot: Boot) -> None:
    boot.states = [(0, "inactive"), (90, "activating"), (400, "active")]
    boot.online_at = 0
    boot.go()
    assert boot.now >= 400
    assert boot.started == [101]


def test_start_that_waits_for_the_quorum_is_waited_for(boot: Boot) -> None:
    boot.states = [(0, "activating"), (7200, "active")]
    boot.go()
    assert boot.runs == {101}
    assert boot.now >= 7200


@pytest.mark.parametrize("states", [[(0, "inactive")], [(0, "activating"), (100, "deactivating")]])
def test_nothing_is_started_where_proxmox_starts_nothing(boot: Boot, states: list[tuple[float, str]]) -> None:
    boot.states = states
    boot.go()
    assert boot.started == []


@pytest.mark.parametrize(
    "guest",
    [
        Guest(101, "qm", onboot=False, storages=frozenset({"nas"})),
        Guest(101, "qm", onboot=True, template=True, storages=frozenset({"nas"})),
    ],
    ids=["not at boot", "template"],
)
def test_guest_that_does_not_start_at_boot_stays_off(boot: Boot, guest: Guest) -> None:
    boot.guests = [guest]
    boot.go()
    assert boot.started == []


def test_guest_of_ha_is_left_to_ha(boot: Boot) -> None:
    (boot.root / "etc/pve/ha").mkdir()
    (boot.root / "etc/pve/ha/resources.cfg").write_text("vm: 101\n\tstate stopped\n")
    boot.go()
    assert boot.started == []


def test_guest_that_runs_is_left_alone(boot: Boot) -> None:
    boot.runs = {101}
    boot.go()
    assert (boot.started, boot.lines) == ([], [])


def test_guest_that_the_user_starts_is_not_started_again(boot: Boot) -> None:
    boot.guests.append(Guest(102, "pct", onboot=True, storages=frozenset({"nas"})))
    boot.run_before, started = boot.run, False  # type: ignore[attr-defined]

    def run(command: Sequence[str]) -> tuple[int, str]:
        nonlocal started
        if boot.now >= 200 and not started:
            started = True
            boot.runs.add(101)
        elif boot.now >= 250:
            boot.runs.discard(101)  # and stops it: that is the user's business
        return boot.run_before(command)  # type: ignore[attr-defined, no-any-return]

    boot.run = run  # type: ignore[method-assign]
    boot.go()
    assert boot.started == [102]


def test_nothing_is_started_during_an_outage(boot: Boot) -> None:
    boot.power_returns_at = 1000
    boot.go()
    assert boot.now >= 1000
    assert boot.runs == {101}
    assert "can't start VM 101 (mail) yet: the power is out. Trying again" in boot.lines


def test_guest_is_tried_for_at_least_half_an_hour_and_then_given_up(boot: Boot) -> None:
    boot.online_at = 1e9
    boot.go()
    assert boot.now >= 60 + 1800
    assert boot.given_up == [("VM 101 (mail)", "storage nas is not online")]
    assert boot.report == BootReport("b", has_ended=True)


def test_failed_start_is_tried_again(boot: Boot) -> None:
    def fail(number: int) -> tuple[int, str]:
        if boot.now < 600:
            return 255, "storage 'nas' is not online\n"
        return boot.start_guest(number)

    boot.start = fail
    boot.go()
    assert boot.runs == {101}
    assert len(boot.started) > 10
    assert len(boot.lines) == 4


def test_missing_guest_is_given_up_at_once(boot: Boot) -> None:
    boot.start = lambda _number: (255, "Configuration file 'nodes/pve/qemu-server/101.conf' does not exist\n")
    boot.go()
    assert boot.started == [101]
    assert boot.given_up == [("VM 101 (mail)", "it does not exist on this host")]
    assert boot.report == BootReport("b", has_ended=True)


def test_guest_is_started_only_soon_after_a_boot(boot: Boot) -> None:
    boot.now = boot_starts.FRESH_SECONDS
    boot.go()
    assert (boot.started, boot.report) == ([], None)


def test_container_that_booted_later_than_its_host_starts_guests(boot: Boot) -> None:
    boot.now, boot.online_at = 60_000.0, 60_300.0
    boot.go(booted=59_940.0)
    assert boot.started == [101]


def test_restarted_program_continues(boot: Boot) -> None:
    boot.now, boot.online_at = 2000.0, 0.0
    path = boot.root / "boot-starts.json"
    path.write_text(records.dump_record(BootReport("b"), boot_starts.VERSION))
    boot.go()
    assert boot.started == [101]
    boot.runs = set()
    boot.go()
    assert boot.started == [101]
    # the next boot starts it again
    boot.now = 60.0
    boot.go("c")
    assert boot.started == [101, 101]


def test_unreadable_proxmox_is_logged_once_and_read_again(boot: Boot) -> None:
    boot.error = GuestsError("/etc/pve is broken")
    boot.events = [(700, lambda: setattr(boot, "error", None))]
    boot.go()
    assert boot.lines[0] == "can't find the guests that are to be started after the boot: /etc/pve is broken"
    assert (boot.started, len(boot.lines)) == ([101], 3)


def test_owed_guest_is_given_up_if_proxmox_stays_unreadable(boot: Boot) -> None:
    boot.owed, boot.error = ["qm/101"], GuestsError("/etc/pve is broken")
    boot.go()
    assert (boot.started, boot.owed, boot.given_up) == ([], [], [("VM 101", "/etc/pve is broken")])


def test_guests_are_selected_by_their_storage_and_by_number() -> None:
    selectors = boot_starts.select_starts(["192.0.2.5", "nas", "192.0.2.5"], [101])
    assert selectors[boot_starts.STAGE].storage_of == ("192.0.2.5", "nas")
    assert selectors[boot_starts.OWED].ids == ((101, None),)


# Guests that a stage shut down before the boot

LOCAL = Guest(101, "qm", "mail", onboot=False)


@pytest.fixture
def owed(boot: Boot) -> Boot:
    """Return a host one of whose guests, which does not start at boot, was shut down by a stage."""
    boot.guests, boot.owed = [LOCAL], ["qm/101"]
    return boot


def test_owed_guest_starts_after_a_boot(owed: Boot) -> None:
    owed.go()
    assert (owed.started, owed.owed) == ([101], [])
    assert owed.lines == [
        "VM 101 (mail) was not started at boot: a stage had shut it down",
        "VM 101 (mail) is started",
    ]


def test_owed_guest_waits_for_its_storage(owed: Boot) -> None:
    owed.guests = [replace(LOCAL, storages=frozenset({"nas"}))]
    owed.go()
    assert owed.now >= 300
    assert (owed.started, owed.owed) == ([101], [])


def test_guest_that_is_not_owed_stays_off(owed: Boot) -> None:
    owed.guests.append(Guest(102, "qm", onboot=False, storages=frozenset({"nas"})))
    owed.go()
    assert owed.started == [101]


@pytest.mark.parametrize("onboot", [True, False])
@pytest.mark.parametrize("state", ["activating", "inactive"])
def test_owed_guest_that_has_run_since_the_boot_stays_off(owed: Boot, onboot: bool, state: str) -> None:
    """It was started, by Proxmox VE or by the user, and the user has stopped it."""
    owed.guests = [replace(LOCAL, onboot=onboot, storages=frozenset({"nas"}))]
    owed.states = [(0, state), (400, "active")]
    owed.events = [(100, lambda: owed.set_running(101)), (200, owed.set_running)]
    owed.go()
    assert (owed.started, owed.owed) == ([], [])
    assert owed.now >= 400


def test_process_of_a_failing_start_does_not_count_as_a_run(owed: Boot) -> None:
    owed.states = [(0, "activating"), (400, "active")]
    owed.events = [(100, lambda: owed.set_running(101)), (105, owed.set_running)]
    owed.go()
    assert owed.started == [101]


def test_guest_that_was_started_once_is_not_started_by_the_next_process(owed: Boot) -> None:
    owed.guests.append(Guest(102, "qm", onboot=True, storages=frozenset({"nas"})))
    owed.online_at = 1e9

    def kill() -> None:
        raise KeyboardInterrupt

    owed.events = [(200, kill)]
    with pytest.raises(KeyboardInterrupt):
        owed.go()
    assert owed.started == [101]
    owed.runs = set()  # the user stops it
    owed.online_at = 0
    owed.go()
    assert owed.started == [101, 102]


def test_owed_guest_survives_another_power_cut(owed: Boot) -> None:
    owed.states = [(0, "activating"), (100, "deactivating")]
    owed.go()
    assert (owed.started, owed.owed) == ([], ["qm/101"])
    owed.now, owed.states = 60.0, [(0, "active")]
    owed.go("c")
    assert (owed.started, owed.owed) == ([101], [])


def test_owed_guest_starts_where_proxmox_starts_no_guest_at_boot(owed: Boot) -> None:
    owed.guests.append(Guest(102, "qm", onboot=True, storages=frozenset({"nas"})))
    owed.states = [(0, "inactive")]
    owed.go()
    assert owed.started == [101]


def test_owed_guest_of_ha_is_left_to_ha(owed: Boot) -> None:
    (owed.root / "etc/pve/ha").mkdir()
    (owed.root / "etc/pve/ha/resources.cfg").write_text("vm: 101\n\tstate stopped\n")
    owed.go()
    assert (owed.started, owed.owed) == ([], [])


def test_owed_guest_that_has_moved_is_forgotten(owed: Boot) -> None:
    owed.guests = []
    owed.go()
    assert (owed.started, owed.owed, owed.given_up) == ([], [], [])


def test_late_start_of_nut_stages_gives_owed_guests_up(owed: Boot) -> None:
    owed.now = 1800.0
    owed.owed.append("qm/103")
    owed.set_running(103)
    owed.go()
    assert (owed.started, owed.owed) == ([], [])
    assert owed.given_up == [
        (
            "VM 101",
            "a stage had shut it down, and nut-stages began only 30 min after the boot. You may have stopped it since",
        )
    ]


def test_outage_does_not_use_up_the_patience(owed: Boot) -> None:
    owed.power_returns_at = 9000
    owed.go()
    assert (owed.started, owed.given_up) == ([101], [])


def test_guests_wait_for_the_charge_without_losing_patience(boot: Boot) -> None:
    boot.online_at = 0.0
    charged_at = 60.0 + 2 * boot_starts.START_PATIENCE_SECONDS
    boot.hold = lambda: "the battery has less than 30 %" if boot.now < charged_at else ""
    boot.go()
    assert boot.started == [101]
    assert charged_at <= boot.now <= charged_at + 30
    assert "can't start VM 101 (mail) yet: the battery has less than 30 %. Trying again" in boot.lines
