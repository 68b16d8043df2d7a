# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import random
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files, systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.process import Find
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import enumerator, ups_conf, ups_conf_text
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.apply import LocalNut
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import decide, quiet, reconcile
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import memory as hotplug_memory
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.reconcile import Host, ReconcileError
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_hotplug
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint, policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.sections import DUMMY_PORT
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import FakeUpsd, answers, serving
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, cases
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import SysfsTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

APC, CPS = "051d:0002", "0764:0501"
RULES = """\
#  various models  - usbhid-ups
ATTR{idVendor}=="051d", ATTR{idProduct}=="0002", MODE="664", GROUP="nut"
#  various models  - usbhid-ups
ATTR{idVendor}=="0764", ATTR{idProduct}=="0501", MODE="664", GROUP="nut"
#  various models  - nutdrv_qx
ATTR{idVendor}=="0665", ATTR{idProduct}=="5161", MODE="664", GROUP="nut"
"""
WANTED = "# Written by Ansible\nmaxretry = 3\n\n[ups]\n    driver = auto\n    port = auto\n"
ENUMERATE = "start nut-driver-enumerator.service"


class Machine:
    """A host with a bus, files, systemd and upsd; drivers find their UPS as soon as they are started."""

    def __init__(self, root: Path, server: FakeUpsd) -> None:
        self.root, self.server = root, server
        self.bus = SysfsTree(root)
        self.bus.root_hub()
        self.folder, self.room = root / "nut", root / "run"
        for folder in (self.folder, self.room, root / "rules", root / "bin"):
            folder.mkdir()
        (root / "rules/62-nut-usbups.rules").write_text(RULES)
        (self.folder / "nut.conf").write_text("MODE=netserver\n")
        (self.folder / "ups.conf").write_text("")
        (self.folder / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {server.port}\n")
        self.now = 1000.0
        self.asked: list[list[str]] = []
        self.did: list[str] = []
        self.said: list[str] = []
        self.units: dict[str, tuple[str, str]] = {"nut-server.service": ("active", "enabled")}
        self.status: dict[str, str] = {}  # what upsd says of each UPS; others are as their units are
        self.refuses: dict[str, str] = {}  # driver -> its words
        self.fails: set[str] = set()  # commands of systemctl that fail
        self.lsusb = ""
        self.ends_at = ""  # the command that finds its unit ended
        self.scanner: tuple[int, str] = (0, "")
        self.events: list[Any] = []  # called one after another while the agent pauses
        self.boot = "boot"
        self.policy: dict[str, Any] = {}
        self.coarse = 0.0  # the least that a pause takes

    # what the host is made of

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        words = list(command)
        self.asked.append(words)
        if words[0] == "systemctl":
            return self.systemctl(words[1:])
        if words[0] == "nut-scanner":
            return self.scanner
        if words[0] == "lsusb":
            return 0, self.lsusb
        if words[0] == "setpriv":
            words = words[words.index("env") :]
            name = Path(next(word for word in words[1:] if "=" not in word)).name
            self.checked = (Path(words[1].partition("=")[2]) / "ups.conf").read_text()
            return 0, self.refuses.get(name, "Network UPS Tools")
        raise AssertionError(words)

    def systemctl(self, words: list[str]) -> tuple[int, str]:
        verb, names = words[0], words[words.index("--") + 1 :] if "--" in words else words[-1:]
        if verb == "show":
            blocks = []
            for name in names:
                active, enabled = self.units.get(name, ("", ""))
                load = "loaded" if active else "not-found"
                pid = 7 if active == "active" else 0
                blocks.append(
                    f"Id={name}\nLoadState={load}\nActiveState={active}\nUnitFileState={enabled}\nMainPID={pid}\n"
                )
            return 0, "\n".join(blocks)
        if verb == "reset-failed":
            return 0, ""
        self.did.append(f"{verb} {names[0]}")
        if f"{verb} {names[0]}" == self.ends_at:
            self.units[names[0]] = ("failed", "enabled")
        if f"{verb} {names[0]}" in self.fails:
            return 1, "it failed"
        if names[0] == "nut-driver-enumerator.service":
            for name in self.conf.sections:
                self.units.setdefault(f"nut-driver@{name}.service", ("active", "enabled"))
        else:
            active = {"stop": "inactive", "disable": "inactive"}.get(verb, "active")
            self.units[names[0]] = (active, self.units.get(names[0], ("", "enabled"))[1])
        self.serve()
        return 0, ""

    def serve(self) -> None:
        """Let upsd say what follows from the units."""
        running = list(self.conf.sections)
        of = {
            name: self.status.get(
                name,
                "OL"
                if self.units.get(f"nut-driver@{name}.service", ("",))[0] == "active"
                else "ERR DRIVER-NOT-CONNECTED",
            )
            for name in running
        }
        self.server.answers.update(answers(**of))
        for name, text in of.items():
            self.server.answers[f"GET VAR {name} ups.status"] = (
                f"{text}\n" if text.startswith("ERR") else f'VAR {name} ups.status "{text}"\n'
            )

    def pause(self, seconds: float) -> None:
        self.now += max(seconds, self.coarse)
        if self.events:
            self.events.pop(0)()

    # what a test looks at

    @property
    def path(self) -> Path:
        return self.folder / "ups.conf"

    @property
    def conf(self) -> ups_conf.UpsConf:
        return ups_conf.parse(self.path.read_text() if self.path.exists() else "")

    @property
    def memory(self) -> hotplug_memory.State:
        return hotplug_memory.load(self.root / "state/state.json")

    @property
    def leaves(self) -> Path:
        return self.room / "nut-hotplug.quiet"

    @property
    def is_quiet(self) -> bool:
        return quiet.is_quiet(str(self.leaves), self.now)

    def local(self, finder: Find) -> LocalNut:
        return LocalNut(
            self.run,
            folder=self.folder,
            memory=self.root / "state/state.json",
            room=self.room,
            manifest=self.root / "ours/set.json",
            systemd=self.root / "systemd",
            owner=(os.getuid(), os.getgid()),
            finder=finder,
        )

    def host(self, **more: Any) -> Host:
        rules = policy.check({"sysfs": str(self.bus.sysfs), "dev": str(self.bus.dev), **self.policy})
        for driver in ("usbhid-ups", "nutdrv_qx", "dummy-ups"):
            (self.root / "bin" / driver).touch()
        given = {
            "release": (2, 8, 1),
            "tables": [self.root / "rules"],
            "say": self.said.append,
            "boot": lambda: self.boot,
            **more,
        }
        return Host(
            rules,
            self.local(lambda name: path if (path := self.root / "bin" / name).exists() else None),
            clock=lambda: self.now,
            wall=lambda: 1_700_000_000.0 + self.now,
            pause=self.pause,
            **given,
        )

    def go(self, **more: Any) -> reconcile.Outcome:
        """Run the agent once, and forget what was done before."""
        self.did.clear()
        self.said.clear()
        self.asked.clear()
        self.serve()
        return self.host(**more).run()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with serving({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}) as server:
        yield Machine(tmp_path, server)


@pytest.fixture
def served(machine: Machine) -> Machine:
    """A host that serves an APC as [ups]."""
    machine.bus.plug("1-1", APC)
    machine.go()
    assert machine.status == {}
    assert machine.units["nut-driver@ups.service"] == ("active", "enabled")
    return machine


# Plug


def test_a_ups_is_plugged_in_and_served(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    outcome = machine.go()
    assert outcome.changed
    assert outcome.written
    assert outcome.failed == ()
    assert dict(machine.conf.sections["ups"].keys)["vendorid"] == "051d"
    assert ups_conf_text.found_in(machine.path.read_text()) == {"ups"}
    assert machine.did == [ENUMERATE, "reload nut-server.service"]
    assert stat.S_IMODE(machine.path.stat().st_mode) == 0o640
    assert [line.partition(": ")[0] for line in outcome.done] == [
        f"write {machine.path}",
        ENUMERATE,
        "reload nut-server.service",
    ]
    assert machine.said == list(outcome.done)
    assert "051d:0002 American Power Conversion Back-UPS" in outcome.done[0]
    assert [one.what for one in machine.memory.history] == [line.partition(": ")[0] for line in outcome.done]


def test_nothing_to_do(served: Machine) -> None:
    before = served.path.stat()
    outcome = served.go()
    assert (served.did, served.said, outcome.changed) == ([], [], False)
    assert served.path.stat() == before
    assert served.is_quiet


def test_an_empty_bus_is_quiet(machine: Machine) -> None:
    machine.go()
    assert machine.did == []
    assert machine.is_quiet
    assert machine.path.read_text() == ""


def test_a_look_changes_nothing(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    machine.serve()
    before = {path: path.stat() for path in machine.root.rglob("*")}
    look = machine.host().look()
    assert look.changes
    assert look.steps[1:] == (
        f"{ENUMERATE}: [ups] is 051d:0002 at pci-0000:00:14.0-usb-0:1, which is new",
        "reload nut-server.service: ups.conf has other sections",
    )
    assert look.steps[0].startswith(f"write {machine.path}: [ups] is 051d:0002 American")
    assert "+[ups]\n" in look.diff()
    assert {path: path.stat() for path in machine.root.rglob("*") if "bin" not in path.parts} == {
        path: seen for path, seen in before.items() if "bin" not in path.parts
    }
    assert machine.did == []


def test_the_inventory_has_the_header_and_the_settings(machine: Machine) -> None:
    (machine.folder / "ups.conf.wanted").write_text(WANTED)
    machine.bus.plug("1-1", APC)
    machine.go()
    assert machine.path.read_text().startswith('# Written by Ansible\n\nmaxretry = "3"\n')
    assert ups_conf_text.found_in(machine.path.read_text()) == frozenset()


def test_the_watcher_is_stopped_before_ups_conf_is_written(machine: Machine) -> None:
    machine.units["nut-driver-enumerator.path"] = ("active", "enabled")
    machine.bus.plug("1-1", APC)
    machine.go()
    assert machine.did[0] == "disable nut-driver-enumerator.path"


def test_the_bus_changes_while_it_works(machine: Machine) -> None:
    """A hub brings its devices one by one: one run serves them all."""
    machine.bus.plug("1-1", APC)
    machine.events = [lambda: machine.bus.plug("1-2", CPS, serial="CPS123456789")]
    machine.go()
    assert set(machine.conf.sections) == {"ups", "ups2"}
    assert machine.did.count(ENUMERATE) == 1


def test_the_bus_changes_after_it_was_read(served: Machine) -> None:
    host = served.host()
    acted = host.act

    def act(look: reconcile.Look) -> reconcile.Outcome:
        if "ups2" not in look.known.conf.sections and not list(served.bus.sysfs.glob("bus/usb/devices/1-2")):
            served.bus.plug("1-2", CPS, serial="CPS123456789")
        return acted(look)

    host.act = act  # type: ignore[method-assign]
    host.run()
    assert set(served.conf.sections) == {"ups", "ups2"}


def test_a_bus_that_never_rests(machine: Machine) -> None:
    numbers = iter(range(10, 10000))
    machine.bus.plug("1-1", APC)

    def again() -> None:
        machine.bus.unplug("1-1")
        machine.bus.plug("1-1", APC, device=next(numbers))
        machine.events.append(again)

    machine.events = [again]
    begin = machine.now
    machine.go()
    assert machine.now - begin < 62


# Unplug, replug


def test_unplugged_keeps_section_and_name(served: Machine) -> None:
    text = served.path.read_text()
    served.bus.unplug("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.go()
    assert served.did == []
    assert served.path.read_text() == text
    assert served.is_quiet


def test_replugged_and_found_again_by_the_driver_itself(served: Machine) -> None:
    served.bus.unplug("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.go()
    served.bus.plug("1-2", APC)
    served.events = [lambda: None] * 4 + [served.status.clear, served.serve]
    begin = served.now
    served.go()
    assert served.did == []
    assert served.now - begin < 12
    assert served.is_quiet


def test_replugged_and_not_found_again(served: Machine) -> None:
    served.bus.unplug("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.go()
    served.bus.plug("1-2", APC)
    served.now += 1
    begin = served.now

    def found() -> None:
        served.status.clear()

    served.events = [lambda: None] * 46 + [found]
    served.go()
    assert served.did == ["restart nut-driver@ups.service"]
    assert served.now - begin >= 10


def test_swapped(served: Machine) -> None:
    served.bus.unplug("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.go()
    served.bus.plug("1-1", CPS, serial="CPS123456789")
    served.status.clear()
    served.server.answers.update(answers(ups="ERR DATA-STALE"))
    served.units["nut-driver@ups.service"] = ("inactive", "enabled")
    outcome = served.go()
    assert list(served.conf.sections) == ["ups"]
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"
    assert "start nut-driver@ups.service" in served.did
    assert outcome.written


def test_dummy(machine: Machine) -> None:
    machine.policy["absent"] = "dummy"
    (machine.folder / "ups.conf.wanted").write_text(WANTED)
    (machine.folder / "ups.conf").write_text(WANTED.replace("auto\n    port", "usbhid-ups\n    port"))
    machine.go()
    machine.now += 31
    machine.go()
    keys = dict(machine.conf.sections["ups"].keys)
    assert (keys["driver"], keys["port"]) == ("dummy-ups", DUMMY_PORT)
    assert (machine.folder / DUMMY_PORT).read_text() == reconcile.DUMMY
    (machine.folder / DUMMY_PORT).unlink()
    machine.go()
    assert (machine.folder / DUMMY_PORT).read_text() == reconcile.DUMMY


def test_what_dummy_ups_says_is_neither_mains_nor_battery() -> None:
    status = next(line for line in reconcile.DUMMY.splitlines() if line.startswith("ups.status:"))
    assert quiet.kind(f'VAR ups ups.status "{status.partition(": ")[2]}"') == ""


# Drivers


def test_a_driver_that_died(served: Machine) -> None:
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.go()
    assert served.did == ["start nut-driver@ups.service"]
    assert served.asked.index(["systemctl", "reset-failed", "nut-driver@ups.service"]) < served.asked.index(
        ["systemctl", "start", "--no-block", "--", "nut-driver@ups.service"]
    )


def test_a_driver_that_can_not_be_started(served: Machine) -> None:
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.fails.add("start nut-driver@ups.service")
    outcome = served.go()
    assert outcome.failed == ()
    assert served.did == ["start nut-driver@ups.service"]
    assert "It did not come up" in served.said[0]
    assert served.memory.tries["ups"].count == 2  # the first one was when it was plugged in


def test_backoff_over_runs(served: Machine) -> None:
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.fails.add("start nut-driver@ups.service")
    starts = []
    for _minute in range(30):
        served.go()
        starts.append(served.did.count("start nut-driver@ups.service"))
        served.now += 60
    assert 4 <= sum(starts) <= 8


def test_what_takes_long_is_left_to_a_later_run(served: Machine) -> None:
    served.now += 400
    served.go()
    served.units["nut-driver@ups.service"] = ("activating", "enabled")
    served.status["ups"] = "ERR DRIVER-NOT-CONNECTED"
    begin = served.now
    served.go()
    assert served.now - begin < 1
    assert served.did == []
    assert served.is_quiet
    served.now = begin + 61
    assert not served.is_quiet
    served.go()
    assert served.did[0] == "restart nut-driver@ups.service"


def test_what_is_awaited_is_not_looked_at_all_the_time(served: Machine) -> None:
    """upsd still has data of before the UPS was pulled out and put back."""
    served.bus.unplug("1-1")
    served.bus.plug("1-1", APC)
    served.go()
    shown = [words for words in served.asked if words[:2] == ["systemctl", "show"]]
    assert 2 <= len(shown) <= 4


def test_a_upsd_that_can_not_be_reloaded_because_it_has_ended_is_restarted(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    machine.fails.add("reload nut-server.service")
    machine.ends_at = "reload nut-server.service"
    outcome = machine.go()
    assert machine.did[-1] == "restart nut-server.service"
    assert outcome.failed == ()


def test_a_upsd_that_runs_is_not_restarted_because_a_reload_fails(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    machine.fails.add("reload nut-server.service")
    outcome = machine.go()
    assert "restart nut-server.service" not in machine.did
    assert any("reload nut-server.service" in line for line in outcome.failed)


def test_an_enumerator_that_fails(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    machine.fails.add(ENUMERATE)
    outcome = machine.go()
    assert any(ENUMERATE in line for line in outcome.failed)
    assert not machine.leaves.exists()


# Power


def test_on_battery_nothing_that_works_is_touched_and_later_it_is_done(served: Machine) -> None:
    text = served.path.read_text()
    served.status["ups"] = "OB DISCHRG"
    served.bus.plug("1-2", CPS, serial="CPS123456789")
    served.go()
    assert (served.did, served.path.read_text()) == ([], text)
    assert [line for line in served.said if line.startswith("deferred: ")]
    served.status["ups"] = "OB LB DISCHRG"
    served.now += 60
    served.go()
    assert served.said == []
    served.status.clear()
    served.now += 60
    served.go()
    assert "ups2" in served.conf.sections
    assert [line for line in served.said if line.startswith("now done (deferred since ")]
    assert served.memory.deferred == {}


def test_what_is_deferred_keeps_its_time(served: Machine) -> None:
    served.status["ups"] = "OB"
    served.bus.plug("1-2", CPS, serial="CPS123456789")
    served.go()
    first = served.memory.deferred
    served.now += 100
    served.status["ups"] = "OB LB"
    served.go()
    assert served.memory.deferred == first
    assert list(first.values()) == [pytest.approx(1_700_001_000, abs=20)]


def test_on_battery_is_quiet_once_it_is_known(served: Machine) -> None:
    served.status["ups"] = "OB"
    served.serve()
    assert not served.is_quiet
    served.go()
    assert served.is_quiet
    assert served.memory.last == {"ups": ("OB",)}


# What goes wrong


def test_ups_conf_that_nut_refuses(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    machine.refuses["usbhid-ups"] = "Fatal error: 'x' is not a valid variable name for this driver."
    outcome = machine.go()
    assert machine.path.read_text() == ""
    assert machine.did == []
    assert not outcome.written
    assert len(outcome.failed) == 1
    assert "'x' is not a valid variable" in outcome.failed[0]
    assert machine.said == list(outcome.failed)
    assert machine.memory.tries == {}
    assert not machine.leaves.exists()
    assert "[ups]" in machine.checked
    assert [path.name for path in machine.room.iterdir()] == ["homelab-nut.lock"]


def test_a_refusal_is_said_once(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    machine.refuses["usbhid-ups"] = "Fatal error: no"
    machine.go()
    machine.now += 60
    outcome = machine.go()
    assert machine.said == []
    assert outcome.failed
    assert len(machine.memory.history) == 1
    machine.refuses.clear()
    assert machine.go().written


def test_what_is_refused_does_not_keep_a_dead_driver_from_being_started(served: Machine) -> None:
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.bus.plug("1-2", "0665:5161", hid=False)
    served.refuses["nutdrv_qx"] = "Fatal error: no"
    served.go()
    assert served.did == ["start nut-driver@ups.service"]
    assert list(served.conf.sections) == ["ups"]


def test_what_is_refused_counts_as_no_try(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    machine.refuses["usbhid-ups"] = "Fatal error: no"
    machine.serve()
    host = machine.host()
    look = host.look()
    assert look.plan.tries["ups"].count == 1
    assert host.act(look).failed
    assert machine.memory.tries == {}


def test_a_driver_that_this_host_lacks(machine: Machine) -> None:
    machine.bus.plug("1-1", "0665:5161", hid=False)
    host = machine.host()
    (machine.root / "bin/nutdrv_qx").unlink()
    machine.serve()
    outcome = host.run()
    assert "no driver 'nutdrv_qx'" in outcome.failed[0]
    assert machine.path.read_text() == ""


def test_a_disk_that_is_full(served: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    text = served.path.read_text()
    real = files.replace

    def full(texts: Any, mode: int, owner: Any = None) -> None:
        if served.path in texts:
            raise files.WriteError("no space left")
        real(texts, mode, owner)

    monkeypatch.setattr(files, "replace", full)
    served.bus.plug("1-2", CPS, serial="CPS123456789")
    outcome = served.go()
    assert [line for line in outcome.failed if "no space left" in line]
    assert served.path.read_text() == text
    assert served.units["nut-driver@ups.service"][0] == "active"


def test_a_memory_that_can_not_be_kept(machine: Machine) -> None:
    (machine.root / "state").write_text("a file")
    machine.bus.plug("1-1", APC)
    outcome = machine.go()
    assert outcome.written
    assert [line for line in machine.said if "can't be remembered" in line]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "tries": 7}', "\0\1"])
def test_a_memory_that_is_broken_costs_one_scan(served: Machine, text: str) -> None:
    (served.root / "state/state.json").write_text(text)
    assert not served.is_quiet
    served.go()
    assert served.did == []
    served.go()
    assert served.is_quiet


def test_systemd_that_does_not_answer(machine: Machine) -> None:
    machine.systemctl = lambda words: (1, "no bus")  # type: ignore[method-assign]
    with pytest.raises(ReconcileError, match=r"systemd can't be asked.*no bus"):
        machine.host().look()


def test_ups_conf_that_can_not_be_read(machine: Machine) -> None:
    machine.path.unlink()
    machine.path.mkdir()
    with pytest.raises(ReconcileError, match=r"ups\.conf can't be read"):
        machine.host().look()


def test_a_upsd_that_is_down(served: Machine) -> None:
    (served.folder / "upsd.conf").write_text("LISTEN 127.0.0.1 1\n")
    served.go()
    assert served.did == []
    assert not served.leaves.exists()


def test_sysfs_that_can_not_be_read(machine: Machine) -> None:
    machine.policy["sysfs"] = str(machine.root / "none")
    machine.scanner = (0, "")
    run = machine.run

    def with_lsusb(command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "lsusb":
            return 0, "Bus 001 Device 004: ID 051d:0002 American Power Conversion Uninterruptible Power Supply\n"
        return run(command)

    machine.run = with_lsusb  # type: ignore[method-assign]
    machine.go()
    assert "ups" in machine.conf.sections
    assert [line for line in machine.said if "lsusb is asked instead" in line]


def test_neither_sysfs_nor_lsusb(machine: Machine) -> None:
    machine.policy["sysfs"] = str(machine.root / "none")
    run = machine.run
    machine.run = lambda command: (127, "not found") if command[0] == "lsusb" else run(command)  # type: ignore[method-assign]
    with pytest.raises(ReconcileError, match="USB bus"):
        machine.go()


# nut-scanner


def test_the_scanner_is_asked_for_what_nobody_knows(machine: Machine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.scanner = (0, 'USB:driver="nutdrv_qx",port="auto",vendorid="1234",productid="5678",bus="001"\n')
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert dict(machine.conf.sections["ups"].keys)["driver"] == "nutdrv_qx"
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked


@pytest.mark.parametrize("ids", [APC, CPS])
def test_the_scanner_is_not_asked_for_what_is_known(machine: Machine, ids: str) -> None:
    machine.bus.plug("1-1", ids)
    machine.bus.plug("1-2", "8087:0024", hid=False)
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked


def test_what_the_scanner_does_not_know_is_asked_once(machine: Machine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert machine.asked.count(["nut-scanner", "-U", "-q", "-P"]) == 1
    assert [line for line in machine.said if "is not served" in line]
    assert machine.is_quiet
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked
    assert machine.said == []
    machine.bus.unplug("1-1")
    machine.go()
    assert machine.memory.asked == ()
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert machine.asked.count(["nut-scanner", "-U", "-q", "-P"]) == 1


def test_a_scanner_that_fails_is_asked_again(machine: Machine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.scanner = (255, "no such option")
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert [line for line in machine.said if "no such option" in line]
    assert not machine.leaves.exists()
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] in machine.asked


def test_a_rule_with_a_driver_needs_no_scanner(machine: Machine) -> None:
    machine.policy["patterns"] = ["1234:*"]
    machine.policy["rules"] = [{"vendor": "1234", "driver": "nutdrv_qx"}]
    machine.bus.plug("1-1", "1234:5678", hid=False)
    machine.go()
    assert ["nut-scanner", "-U", "-q", "-P"] not in machine.asked
    assert "ups" in machine.conf.sections


# Cut short


class Killed(BaseException):
    """The run ends here, as by a power cut."""


def killed_at(machine: Machine, step: int) -> bool:
    """Run the agent, and cut it at its STEP-th touch of disk or systemd. False if it came to its end."""
    left = [step]
    run, write = machine.run, files.replace

    def touch() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    def dying_run(command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "systemctl" and command[1] not in ("show", "reset-failed"):
            touch()
        return run(command)

    def dying_replace(texts: Any, mode: int, owner: Any = None) -> None:
        touch()
        write(texts, mode, owner)

    machine.run, files.replace = dying_run, dying_replace  # type: ignore[method-assign]
    try:
        machine.go()
        return False
    except Killed:
        return True
    finally:
        machine.run, files.replace = run, write  # type: ignore[method-assign]


@pytest.mark.parametrize("reboot", [False, True])
def test_a_run_that_is_killed_at_any_step_is_finished_by_the_next(tmp_path: Path, reboot: bool) -> None:
    step, killed = 0, True
    while killed:
        with serving({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}) as server:
            root = tmp_path / f"{reboot}{step}"
            root.mkdir()
            machine = Machine(root, server)
            machine.coarse = 1.0
            machine.bus.plug("1-1", APC)
            machine.go()
            machine.bus.unplug("1-1")
            machine.status["ups"] = "ERR DATA-STALE"
            machine.go()
            machine.bus.plug("1-1", CPS, serial="CPS123456789")
            machine.now += 100

            def restarted(machine: Machine = machine) -> None:
                # only a driver that is started anew finds the other UPS
                if [
                    line
                    for line in machine.did
                    if line in ("start nut-driver@ups.service", "restart nut-driver@ups.service")
                ]:
                    machine.status.clear()

            machine.events = [restarted] * 400
            killed = killed_at(machine, step)
            restarted()
            if killed and reboot:
                (machine.room / "homelab-nut-pending.json").unlink(missing_ok=True)
                machine.boot = "another"
                machine.now = 50.0
                machine.units["nut-driver@ups.service"] = ("active", "enabled")
                if "0764" in machine.path.read_text():
                    machine.status.clear()
            for _run in range(3):
                machine.events = [restarted] * 400
                machine.go()
                restarted()
                machine.now += 60
            machine.go()
            assert dict(machine.conf.sections["ups"].keys)["vendorid"] == "0764", step
            assert machine.status == {}, (step, machine.did)
            assert machine.units["nut-driver@ups.service"][0] == "active", step
            assert not [one for one in machine.host().look().remarks if "by hand" in one], step
            assert machine.did == [], step
            assert machine.is_quiet, step
        step += 1
    assert step > 6


def test_what_was_about_to_be_written_is_not_taken_for_somebodys(served: Machine) -> None:
    """The power went behind ups.conf and before the notes, and another UPS is there afterwards."""
    path = served.root / "state/state.json"
    ours = ups_conf.render([served.conf.sections["ups"]])
    hotplug_memory.save(
        path, replace(served.memory, written={"ups": "[ups]\n    driver = x\n"}, intended={"ups": ours})
    )
    served.bus.unplug("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.bus.plug("1-1", CPS, serial="CPS123456789")
    served.units["nut-driver@ups.service"] = ("failed", "enabled")
    served.go()
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"


def test_the_note_has_a_driver_restarted_that_may_run_with_its_old_section(served: Machine) -> None:
    served.bus.unplug("1-1")
    served.status["ups"] = "ERR DATA-STALE"
    served.go()
    served.now += 100
    served.bus.plug("1-1", CPS, serial="CPS123456789")
    run = served.run

    def dying(command: Sequence[str]) -> tuple[int, str]:
        if command[:2] == ["systemctl", "start"]:
            raise Killed
        return run(command)

    served.run = dying  # type: ignore[method-assign]
    with pytest.raises(Killed):
        served.go()
    noted = json.loads((served.room / "homelab-nut-pending.json").read_text())
    assert [one["verb"] for one in noted if one["unit"] == "nut-driver@ups.service"] == ["restart"]


def test_a_note_that_can_not_be_read(served: Machine) -> None:
    (served.room / "homelab-nut-pending.json").write_text("{")
    served.go()
    assert served.did == [f"restart {unit}" for unit in ("nut-driver@ups.service", systemd.SERVER, systemd.MONITOR)]
    served.go()
    assert served.did == []


@pytest.mark.parametrize(
    "note", ["[1]", '[{"verb": "restart"}]', "{}x", '[{"verb": "restart", "unit": "sshd.service", "reason": ""}]']
)
def test_a_note_of_anything_touches_no_other_unit(served: Machine, note: str) -> None:
    (served.room / "homelab-nut-pending.json").write_text(note)
    served.go()
    ours = ("nut-driver@ups.service", systemd.SERVER, systemd.MONITOR)
    assert set(served.did) <= {f"restart {unit}" for unit in ours}


def test_what_was_left_waits_for_the_mains_if_it_works(served: Machine) -> None:
    note = [{"verb": "restart", "unit": "nut-driver@ups.service", "reason": "[ups] changed"}]
    (served.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    served.status["ups"] = "OB"
    served.go()
    assert served.did == []
    assert not served.leaves.exists()
    assert served.said == ["deferred: restart nut-driver@ups.service waits: ups (OB): [ups] changed"]
    served.status.clear()
    served.go()
    assert served.did == ["restart nut-driver@ups.service"]
    assert not (served.room / "homelab-nut-pending.json").exists()


def test_what_was_left_and_does_not_run_is_started_at_once(served: Machine) -> None:
    note = [{"verb": "restart", "unit": "nut-driver@ups.service", "reason": "[ups] changed"}]
    (served.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    served.units["nut-driver@ups.service"] = ("inactive", "enabled")
    served.units["nut-driver@other.service"] = ("active", "enabled")
    served.path.write_text(served.path.read_text() + "\n[other]\n    driver = snmp-ups\n    port = 192.0.2.1\n")
    served.status["other"] = "OB"
    served.go()
    assert served.did == ["restart nut-driver@ups.service"]


@pytest.mark.parametrize("more", [[], [{"verb": "restart", "unit": "nut-driver@ups.service", "reason": "its sandbox"}]])
def test_a_driver_that_a_play_meant_to_stop_is_down_while_the_enumerator_looks(
    served: Machine, more: list[dict[str, str]]
) -> None:
    """The play died when ups.conf was new and the driver still ran. 2.8.1's enumerator would have it reload, and spin."""
    driver = "nut-driver@ups.service"
    steps = [("stop", driver), ("start", systemd.ENUMERATOR), ("start", driver)]
    note = [*more, *({"verb": verb, "unit": unit, "reason": "[ups] changed"} for verb, unit in steps)]
    (served.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    served.go()
    assert served.did == [" ".join(step) for step in steps]


def test_a_noted_restart_waits_until_the_mains_are_back_though_the_enumerator_is_noted_too(served: Machine) -> None:
    note = [
        {"verb": "restart", "unit": "nut-driver@ups.service", "reason": "its sandbox"},
        {"verb": "start", "unit": systemd.ENUMERATOR, "reason": "[ups] changed"},
    ]
    (served.room / "homelab-nut-pending.json").write_text(json.dumps(note))
    served.status["ups"] = "OB"
    served.go()
    assert served.did == []


def test_a_host_that_waited_for_another_run_knows_what_that_did(served: Machine) -> None:
    host = served.host()
    host.look()
    other = hotplug_memory.Decision(1.0, "ups", "something", "of another run")
    hotplug_memory.save(served.root / "state/state.json", served.memory.with_history(other))
    host.run()
    assert other in served.memory.history


def test_no_secret_in_a_diff(machine: Machine) -> None:
    machine.path.write_text(
        "[net]\n    driver = snmp-ups\n    port = 192.0.2.1\n    community = s3cret\n    privPassword = s3cret\n"
    )
    machine.bus.plug("1-1", APC)
    machine.serve()
    diff = machine.host().look().diff()
    assert "+[ups]" in diff
    assert "s3cret" not in diff


def test_two_at_once(served: Machine) -> None:
    with (
        files.alone(served.room / "homelab-nut.lock", 1),
        pytest.raises(files.Busy),
        served.host().alone(0.0),
    ):
        pass


# The play


def test_complete_for_a_play(machine: Machine) -> None:
    machine.bus.plug("1-1", APC)
    text, resolution = machine.host().complete(WANTED)
    conf = ups_conf.parse(text)
    assert dict(conf.sections["ups"].keys)["vendorid"] == "051d"
    assert conf.settings == (("maxretry", "3"),)
    assert text.startswith("# Written by Ansible\n")
    assert resolution.plugged["ups"].device.ids == APC
    assert machine.did == []


def test_a_play_overrules_what_was_edited_by_hand(served: Machine) -> None:
    (served.folder / "ups.conf.wanted").write_text(WANTED)
    served.go()
    served.path.write_text(
        served.path.read_text().replace("[ups]", "[ups]\n    pollfreq = 7")
        + "\n[mine]\n    driver = snmp-ups\n    port = x\n"
    )
    text, _resolution = served.host().complete(WANTED)
    assert "pollfreq" not in text
    assert "[mine]" not in text


def test_what_a_play_wrote_is_not_an_edit_by_hand(served: Machine) -> None:
    """The agent has its own notes of what stood there before the play."""
    wanted = WANTED + "    pollinterval = 5\n"
    text, resolution = served.host().complete(wanted)
    (served.folder / "ups.conf.wanted").write_text(wanted)
    served.path.write_text(text)
    served.host().adopt(text, resolution)
    served.bus.unplug("1-1")
    served.bus.plug("1-1", CPS, serial="CPS123456789")
    served.go()
    assert not [line for line in served.said if "by hand" in line]
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"


def test_what_agrees_with_us_is_ours(served: Machine) -> None:
    wanted = WANTED + "    pollinterval = 5\n"
    text, _resolution = served.host().complete(wanted)
    (served.folder / "ups.conf.wanted").write_text(wanted)
    served.path.write_text(text)
    assert not served.go().written
    assert served.memory.written["ups"] == ups_conf.render([served.conf.sections["ups"]])


def test_a_play_leaves_a_driver_that_works_as_the_agent_does(machine: Machine) -> None:
    """The UPS was absent at the first play, and its driver found it by itself."""
    (machine.folder / "ups.conf.wanted").write_text(WANTED)
    machine.path.write_text('[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n')
    machine.units["nut-driver@ups.service"] = ("active", "enabled")
    machine.bus.plug("1-1", APC)
    machine.go()
    text, _resolution = machine.host().complete(WANTED)
    assert "vendorid" not in text
    machine.status["ups"] = "ERR DATA-STALE"
    machine.serve()
    text, _resolution = machine.host().complete(WANTED)
    assert "vendorid" in text
    # what people declare is more than a pin of ours
    machine.status.clear()
    machine.serve()
    text, _resolution = machine.host().complete(WANTED + "    serial = 5B.*\n")
    assert "5B.*" in text


def test_one_bad_section_does_not_keep_back_another(served: Machine) -> None:
    served.policy["rules"] = [{"vendor": "0665", "driver": "nutdrv_qx", "options": {"nonsense": "1"}}]
    served.refuses["nutdrv_qx"] = "Fatal error: 'nonsense' is not a valid variable name for this driver."
    served.bus.plug("1-2", "0665:5161", "Maker", "Model", None)
    outcome = served.go()
    assert any("nonsense" in line for line in outcome.failed)
    served.bus.unplug("1-1")
    served.bus.plug("1-1", CPS, serial="CPS123456789")
    served.go()
    assert dict(served.conf.sections["ups"].keys)["vendorid"] == "0764"
    assert list(served.conf.sections) == ["ups"]


def test_of_what_lsusb_tells_nothing_that_is_there_is_changed(served: Machine) -> None:
    before = served.path.read_text()
    served.bus.unplug("1-1")
    shutil.rmtree(served.bus.sysfs / "bus")
    served.lsusb = f"Bus 001 Device 009: ID {APC} American Power Conversion\n"
    served.go()
    assert served.path.read_text() == before


@pytest.mark.parametrize("by_hand", [True, False])
def test_the_enumerator_restarts_no_driver_that_we_leave_alone(served: Machine, by_hand: bool) -> None:
    """Somebody edited a section and restarted its driver; the enumerator has not seen that yet."""
    seen = {name: systemd.checksum(name, served.root / "systemd") for name in ("ups", "")}
    for name, path in seen.items():
        path.parent.mkdir(parents=True)
        what = "SECTION_CHECKSUM" if name else "SECTION_CHECKSUM_GLOBAL"
        path.write_text(f"[Service]\nEnvironment='{what}={enumerator.checksum(served.path.read_text(), name)}'\n")
    before = {name: path.read_text() for name, path in seen.items()}
    if by_hand:
        served.path.write_text("debug_min = 1\n" + served.path.read_text().replace("[ups]", "[ups]\n    pollfreq = 7"))
    served.bus.plug("1-2", CPS, serial="CPS123456789")
    served.go()
    text = served.path.read_text()
    for name, path in seen.items():
        assert str(enumerator.checksum(text, name)) in path.read_text()
        assert (path.read_text() != before[name]) is by_hand
    assert ("daemon-reload daemon-reload" in served.did) is by_hand
    if by_hand:
        assert served.did.index("daemon-reload daemon-reload") < served.did.index(ENUMERATE)


def test_a_memory_that_was_lost_makes_nothing_new(served: Machine) -> None:
    (served.root / "state/state.json").unlink()
    begin = served.now
    served.go()
    assert served.now - begin < decide.GRACE
    assert served.did == []


def test_lsusb_makes_no_new_names_of_what_is_declared(machine: Machine) -> None:
    """It tells no serials, so the UPS that a fixed section means by its serial could be taken for an unknown one."""
    fixed = '[rack]\n    driver = "usbhid-ups"\n    port = "auto"\n    serial = "5B1234T56789"\n'
    shutil.rmtree(machine.bus.sysfs / "bus")
    machine.lsusb = f"Bus 001 Device 009: ID {APC} American Power Conversion\n"
    text, resolution = machine.host().complete(fixed)
    assert list(ups_conf.parse(text).sections) == ["rack"]
    assert set(resolution.plugged) == {"rack"}
    # nor does a name that waits for any UPS take it
    text, resolution = machine.host().complete(fixed + '\n[other]\n    driver = "auto"\n    port = "auto"\n')
    assert set(resolution.plugged) == {"rack"}


def test_while_nut_is_installed_anew_nothing_is_changed(served: Machine) -> None:
    (served.folder / "ups.conf.wanted").write_text(WANTED + "    waitbeforereconnect = 3\n")
    served.go()
    before = served.path.read_text()
    served.bus.plug("1-2", CPS, serial="CPS123456789")
    outcome = served.go(release=None)
    assert not [name for name in served.did if "driver@ups." in name]
    assert served.path.read_text().startswith(before)
    assert outcome.look.troubled


def test_what_was_edited_by_hand_outlives_our_own_writing(served: Machine) -> None:
    edited = served.path.read_text().replace("[ups]", "[ups]\n    pollfreq = 7")
    served.path.write_text(edited)
    for name, serial in (("1-2", "CPS123456789"), ("1-3", "CPS987654321")):
        served.bus.plug(name, CPS, serial=serial)
        assert served.go().written
        assert ("pollfreq", "7") in served.conf.sections["ups"].keys, "it is left as it is, however often we write"


def test_nothing_is_left_to_the_host_any_more(served: Machine) -> None:
    (served.folder / "ups.conf.wanted").write_text("# emptied\n")
    outcome = served.go()
    assert not [one for one in outcome.look.remarks if "by hand" in one]
    assert not outcome.changed


@pytest.mark.parametrize("mode", ["none", "netclient"])
def test_where_nut_does_not_serve_nothing_is_done(machine: Machine, mode: str) -> None:
    """With MODE=none and a section in ups.conf, the next reboot cuts the UPS's power."""
    (machine.folder / "nut.conf").write_text(f"MODE={mode}\n")
    machine.bus.plug("1-1", APC)
    with pytest.raises(ReconcileError, match="make pve tags=ups"):
        machine.go()
    assert machine.path.read_text() == ""


def test_found_ones_stay_through_a_play(served: Machine) -> None:
    served.bus.plug("1-2", CPS, serial="CPS123456789")
    served.go()
    text, _resolution = served.host().complete(WANTED.replace("[ups]", "[rack]"))
    assert {"rack"} < set(ups_conf.parse(text).sections)


# Permissions


def test_permit(tmp_path: Path) -> None:
    node = tmp_path / "bus/usb/001/004"
    node.parent.mkdir(parents=True)
    os.mkfifo(node, 0o600)
    reconcile.permit(tmp_path, "/dev/bus/usb/001/004", os.getgid())
    assert stat.S_IMODE(node.stat().st_mode) == 0o660


@pytest.mark.parametrize("node", ["/etc/passwd", "/dev/../etc/passwd", "/dev", "/dev/bus/../../x", "bus/usb/001/004"])
def test_permit_nothing_but_nodes(tmp_path: Path, node: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)):
        reconcile.permit(tmp_path, node, os.getgid())


def test_permit_no_file(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("")
    (tmp_path / "node").chmod(0o600)
    with pytest.raises(ValueError, match="no device"):
        reconcile.permit(tmp_path, "/dev/node", os.getgid())
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o600


def test_permit_follows_no_link(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)
    (tmp_path / "node").symlink_to(fifo)
    (tmp_path / "real").mkdir()
    os.mkfifo(tmp_path / "real/node", 0o600)
    (tmp_path / "dir").symlink_to(tmp_path / "real")
    for node in ("/dev/node", "/dev/dir/node"):
        with pytest.raises((ValueError, OSError)):
            reconcile.permit(tmp_path, node, os.getgid())
    assert stat.S_IMODE(fifo.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "real/node").stat().st_mode) == 0o600


def test_permit_leaves_no_handle(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _round in range(3):
        with pytest.raises(FileNotFoundError):
            reconcile.permit(tmp_path, "/dev/none", os.getgid())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


HOSTILE = ["a\nb", 'x"]\n[evil]\n driver = x', "# \\", "$(reboot)", "\x1b[2J", "é" * 126, "", "\u202e", "a]b[c"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_device_breaks_nothing(machine: Machine, text: str) -> None:
    machine.bus.plug("1-1", APC, manufacturer=text, product=text, serial=text)
    machine.go()
    assert list(machine.conf.sections) == ["ups"]
    assert "evil" not in machine.conf.sections
    assert all(line.isprintable() for line in machine.said)
    assert all(line.isprintable() for line in machine.host().look().steps)
    assert machine.path.read_text().isascii()


# What devices say, and the drivers that are theirs: by the rules, and the last one by its descriptor and nut-scanner
DRIVER_OF = {APC: "usbhid-ups", CPS: "usbhid-ups", "0665:5161": "nutdrv_qx", "0463:ffff": "usbhid-ups"}
PIECES = (
    *(*HOSTILE, *NASTY[:-1]),
    *("\n[evil]\n\tdriver = dummy-ups\n", "]\n[evil]", '"', "\\", "#", "'", "`id`", "$(touch /tmp/pwned)", "{{ lookup('pipe', 'id') }}"),
    *("{% raw %}", "\nuser = root\n", "\n# Found", "=", "\t", "%s%n", "((((", "[[:alpha:]]*", "\\0", "x" * 300, "\udcff\udc80", "\x00"),
    *("5B1234T56789", "A1", "ABC-77231", " ", "Back-UPS", ".", "ups", "漢" * 100),
)  # fmt: skip
SCANNED = 'USB:driver="usbhid-ups",port="auto",vendorid="0463",productid="FFFF"'
LINE = re.compile(
    r"#.*|\[ups[0-9]*\]|    (?:driver|port|vendorid|productid|serial|product|bus|busport) = \"(?:[^\"\\#]|\\[\"\\#])*\"|"
)


def evil(chance: random.Random) -> bytes:
    """Return what a device says of itself."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randint(0, 250))
    text = "".join(chance.choice(PIECES) for _piece in range(chance.randint(1, 4)))
    return text.encode("utf-8", "surrogatepass")[:300]


def replug(machine: Machine, plugged: set[str], chance: random.Random) -> None:
    """Pull some devices out, put others in, and let nut-scanner repeat what they say, as it does."""
    for name in [name for name in sorted(plugged) if chance.random() < 0.4]:
        machine.bus.unplug(name)
        plugged.discard(name)
    for port in chance.sample(range(1, 8), chance.randint(1, 4)):
        if (name := f"1-{port}") not in plugged:
            ids, strings = chance.choice([*DRIVER_OF]), [evil(chance) for _string in range(3)]
            machine.bus.plug(name, ids, *strings)
            plugged.add(name)
            product = strings[1].decode("latin-1")
            machine.scanner = 0, f'{SCANNED},product="{product}"\n'


def check_no_harm(machine: Machine, plugged: set[str]) -> int:
    """Hold ups.conf and all that is said against what is plugged in. Return how many sections there are."""
    text, look = machine.path.read_text(), machine.host().look()
    assert text.isascii()
    assert [line for line in text.split("\n") if not LINE.fullmatch(line)] == []
    conf = ups_conf.parse(text)
    assert conf.settings == ()
    # each has one section, which is for it alone
    assert {ups.device.name for ups in look.resolution.plugged.values()} == plugged
    for name, ups in look.resolution.plugged.items():
        section, device = conf.sections[name], ups.device
        keys = dict(section.keys)
        assert len(keys) == len(section.keys)
        wanted = {
            "driver": DRIVER_OF[device.ids],
            "port": "auto",
            "vendorid": device.vendor_id,
            "productid": device.product_id,
        }
        assert keys.items() >= wanted.items()
        due = look.resolution.conf.sections[name]
        waits = [line for line in look.deferred if line.startswith(f"[{name}] of ups.conf stays as it is for now")]
        assert section == due or waits
        assert [seen.name for seen in look.devices if fingerprint.means(due, seen)] == [device.name]
    told = [*machine.said, *look.steps, *look.remarks, *look.deferred]
    told += [f"{entry.name} {entry.what} {entry.reason}" for entry in machine.memory.history]
    for shown in (nut_hotplug.status_text(look), nut_hotplug.plan_text(look), look.diff()):
        told += shown.split("\n")
    assert [line for line in told if not line.isprintable()] == []
    assert set(machine.units) <= {"nut-server.service", *(systemd.driver(name) for name in conf.sections)}
    return len(conf.sections)


def test_hostile_buses(tmp_path: Path, machine: Machine) -> None:
    """30 buses, the same in each run; HOSTILE_TIMES=10 makes 300, HOSTILE_SEED=1 others."""
    sections = 0
    for number, (case, chance) in enumerate(cases(30)):
        print(case)  # seen if it fails
        (root := tmp_path / str(number)).mkdir()
        bus, plugged = Machine(root, machine.server), set[str]()
        for _round in range(3):
            replug(bus, plugged, chance)
            bus.go()
            sections += check_no_harm(bus, plugged)
    assert sections > 200
