# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut import deploy, units, upsd
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import (
    Action,
    DeployError,
    Deployment,
    Plan,
    Verdict,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.units import ABSENT, Unit
from ansible_collections.homelab.nut.tests.unit.plugins.module_utils._nut.test_upsd import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

UPS = "nut-driver@ups.service"
SPARE = "nut-driver@spare.service"

PRIMARY = {
    "nut.conf": "MODE=netserver\n",
    "upsd.users": '[monitor]\n    password = "secret1"\n    upsmon primary\n',
    "upsd.conf": 'LISTEN "127.0.0.1" 3493\nMAXAGE 15\n',
    "ups.conf": 'maxretry = 3\n\n[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n',
    "upsmon.conf": "MONITOR ups@localhost:3493 1 monitor secret1 primary\nMINSUPPLIES 1\nFINALDELAY 5\nSHUTDOWNCMD /bin/true\n",
}
SECONDARY = {
    "nut.conf": "MODE=netclient\n",
    "upsmon.conf": "MONITOR ups@192.0.2.1:3493 1 media secret2 secondary\nMINSUPPLIES 1\nSHUTDOWNCMD /bin/true\n",
}
TWO = PRIMARY["ups.conf"] + '\n[spare]\n    driver = "usbhid-ups"\n    port = "auto"\n'


def with_text(name: str, old: str, new: str, files: Mapping[str, str] | None = None) -> dict[str, str]:
    files = files or PRIMARY
    assert old in files[name]
    return {**files, name: files[name].replace(old, new)}


def standing(*drivers: str, **changes: Unit) -> dict[str, Unit]:
    """How the units of a host stand on which all is well. changes: by the last word of the unit's name."""
    running = Unit("active", "enabled", 1)
    found = {
        units.SERVER: replace(running, pid=11),
        units.MONITOR: replace(running, pid=12),
        units.ALL: replace(running, pid=0),
        units.DRIVERS: replace(running, pid=0),
        units.ENUMERATOR: Unit("inactive", "enabled", 0),
        units.WATCHER: Unit("inactive", "disabled", 0),
    }
    found.update({name: replace(running, pid=20 + number) for number, name in enumerate(drivers or (UPS,))})
    names = {"server": units.SERVER, "monitor": units.MONITOR, "watcher": units.WATCHER, "ups": UPS}
    found.update({names[name]: unit for name, unit in changes.items()})
    return found


def told(actions: Sequence[Action]) -> list[str]:
    return [f"{one.verb} {one.unit}" for one in actions]


STOPPED = Unit("inactive", "enabled", 0)
FAILED = Unit("failed", "enabled", 0)
ENUMERATE = f"start {units.ENUMERATOR}"
RESTART_SERVER = f"restart {units.SERVER}"
RESTART_MONITOR = f"restart {units.MONITOR}"
RELOAD_SERVER = f"reload {units.SERVER}"

PLANS: dict[str, tuple[Mapping[str, str], Mapping[str, str], dict[str, Unit], list[str], list[str]]] = {
    "nothing changed": (PRIMARY, PRIMARY, standing(), [], []),
    "comment in ups.conf": (
        PRIMARY,
        with_text("ups.conf", "[ups]", "# rack\n[ups]"),
        standing(),
        ["ups.conf"],
        [RELOAD_SERVER],
    ),
    "key of a section": (
        PRIMARY,
        with_text("ups.conf", '"auto"\n', '"auto"\n    ignorelb\n'),
        standing(),
        ["ups.conf"],
        [ENUMERATE, f"refresh {UPS}", RELOAD_SERVER],
    ),
    "one section of two": (
        {**PRIMARY, "ups.conf": TWO},
        {**PRIMARY, "ups.conf": TWO + "    pollonly\n"},
        standing(UPS, SPARE),
        ["ups.conf"],
        [ENUMERATE, f"refresh {SPARE}", RELOAD_SERVER],
    ),
    "order of keys": (
        PRIMARY,
        with_text("ups.conf", 'driver = "usbhid-ups"\n    port = "auto"', 'port = "auto"\n    driver = "usbhid-ups"'),
        standing(),
        ["ups.conf"],
        [ENUMERATE, f"refresh {UPS}", RELOAD_SERVER],
    ),
    "globals of ups.conf": (
        {**PRIMARY, "ups.conf": TWO},
        {**PRIMARY, "ups.conf": TWO.replace("maxretry = 3", "maxretry = 5")},
        standing(UPS, SPARE),
        ["ups.conf"],
        [ENUMERATE, f"refresh {UPS}", f"refresh {SPARE}", RELOAD_SERVER],
    ),
    "new section": (PRIMARY, {**PRIMARY, "ups.conf": TWO}, standing(UPS), ["ups.conf"], [ENUMERATE, RELOAD_SERVER]),
    "section gone": (
        {**PRIMARY, "ups.conf": TWO},
        PRIMARY,
        standing(UPS, SPARE),
        ["ups.conf"],
        [ENUMERATE, RELOAD_SERVER],
    ),
    "MAXAGE": (PRIMARY, with_text("upsd.conf", "15", "20"), standing(), ["upsd.conf"], [RELOAD_SERVER]),
    **{
        f"{line} of upsd.conf": (
            PRIMARY,
            {**PRIMARY, "upsd.conf": PRIMARY["upsd.conf"] + line + "\n"},
            standing(),
            ["upsd.conf"],
            [RESTART_SERVER],
        )
        for line in (
            "LISTEN 192.0.2.1",
            "MAXCONN 100",
            "CERTFILE /x",
            "CERTPATH /x",
            "STATEPATH /x",
            'CERTIDENT "a" "b"',
        )
    },
    "order of LISTEN": (
        {**PRIMARY, "upsd.conf": "LISTEN 127.0.0.1\nLISTEN ::1\n"},
        {**PRIMARY, "upsd.conf": "LISTEN ::1\nLISTEN 127.0.0.1\n"},
        standing(),
        ["upsd.conf"],
        [RESTART_SERVER],  # which of them may fail depends on it
    ),
    "quotes of LISTEN": (
        PRIMARY,
        with_text("upsd.conf", '"127.0.0.1"', "127.0.0.1"),
        standing(),
        ["upsd.conf"],
        [RELOAD_SERVER],
    ),
    "upsd.users": (PRIMARY, with_text("upsd.users", "secret1", "secret9"), standing(), ["upsd.users"], [RELOAD_SERVER]),
    "upsmon.conf": (
        PRIMARY,
        with_text("upsmon.conf", "FINALDELAY 5", "FINALDELAY 65"),
        standing(),
        ["upsmon.conf"],
        [RESTART_MONITOR],
    ),
    "MODE": (
        {**PRIMARY, "nut.conf": "MODE=none\n"},
        PRIMARY,
        standing(),
        ["nut.conf"],
        [RESTART_SERVER, RESTART_MONITOR],
    ),
    "POWEROFF_WAIT": (
        PRIMARY,
        {**PRIMARY, "nut.conf": "MODE=netserver\nPOWEROFF_WAIT=10m\nPOWEROFF_QUIET=true\n"},
        standing(),
        ["nut.conf"],
        [],
    ),
    "password everywhere": (
        PRIMARY,
        with_text("upsmon.conf", "secret1", "s9", with_text("upsd.users", "secret1", "s9")),
        standing(),
        ["upsd.users", "upsmon.conf"],
        [RELOAD_SERVER, RESTART_MONITOR],
    ),
    "all of it": (
        PRIMARY,
        {
            "nut.conf": "MODE=standalone\n",
            "upsd.users": "#\n",
            "upsd.conf": "#\n",
            "ups.conf": TWO.replace("maxretry = 3", ""),
            "upsmon.conf": "#\n",
        },
        standing(UPS),
        ["nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upsmon.conf"],
        [ENUMERATE, f"refresh {UPS}", RESTART_SERVER, RESTART_MONITOR],
    ),
    "first deployment": (
        {"nut.conf": "MODE=none\n", "ups.conf": "maxretry = 3\n", "upsd.conf": "# LISTEN\n", "upsmon.conf": "# \n"},
        PRIMARY,
        {**standing(server=FAILED, monitor=FAILED), UPS: ABSENT},
        ["nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upsmon.conf"],
        [ENUMERATE, RESTART_SERVER, RESTART_MONITOR],
    ),
    "no file at all": (
        {},
        PRIMARY,
        {**standing(server=FAILED, monitor=FAILED), UPS: ABSENT},
        ["nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upsmon.conf"],
        [ENUMERATE, RESTART_SERVER, RESTART_MONITOR],
    ),
    "unknown unit": (PRIMARY, PRIMARY, {**standing(), UPS: ABSENT}, [], [ENUMERATE]),
    "driver disabled": (PRIMARY, PRIMARY, standing(ups=Unit("active", "disabled", 5)), [], [ENUMERATE]),
    "driver idle": (PRIMARY, PRIMARY, standing(ups=STOPPED), [], [f"start {UPS}"]),
    "driver about to start": (PRIMARY, PRIMARY, standing(ups=Unit("activating", "enabled", 0)), [], []),
    "driver idle, and changed": (
        PRIMARY,
        with_text("ups.conf", '"auto"\n', '"auto"\n    ignorelb\n'),
        standing(ups=FAILED),
        ["ups.conf"],
        [ENUMERATE, f"refresh {UPS}", RELOAD_SERVER],
    ),
    "upsd down": (PRIMARY, PRIMARY, standing(server=FAILED), [], [RESTART_SERVER]),
    "upsd down, and its users changed": (
        PRIMARY,
        with_text("upsd.users", "secret1", "secret9"),
        standing(server=STOPPED),
        ["upsd.users"],
        [RESTART_SERVER],
    ),
    "upsmon down": (PRIMARY, PRIMARY, standing(monitor=FAILED), [], [RESTART_MONITOR]),
    "not enabled": (
        PRIMARY,
        PRIMARY,
        standing(server=Unit("active", "disabled", 11), monitor=Unit("inactive", "disabled", 0)),
        [],
        [RESTART_MONITOR, f"enable {units.SERVER}", f"enable {units.MONITOR}"],
    ),
    "secondary: nothing changed": (SECONDARY, SECONDARY, standing(), [], []),
    "secondary: upsmon.conf": (
        SECONDARY,
        with_text("upsmon.conf", "secret2", "secret3", SECONDARY),
        standing(),
        ["upsmon.conf"],
        [RESTART_MONITOR],
    ),
    "secondary: first deployment": (
        {"nut.conf": "MODE=none\n", "upsmon.conf": "#\n"},
        SECONDARY,
        standing(monitor=Unit("inactive", "disabled", 0)),
        ["nut.conf", "upsmon.conf"],
        [RESTART_MONITOR, f"enable {units.MONITOR}"],
    ),
    "secondary: its own drivers and upsd are not our business": (
        SECONDARY,
        SECONDARY,
        standing(server=Unit("failed", "disabled", 0), ups=FAILED, watcher=Unit("active", "enabled", 0)),
        [],
        [],
    ),
}


@pytest.mark.parametrize(("old", "new", "found", "changed", "after"), PLANS.values(), ids=PLANS.keys())
def test_plan(
    old: Mapping[str, str], new: Mapping[str, str], found: dict[str, Unit], changed: list[str], after: list[str]
) -> None:
    decided = deploy.plan(old, new, found)
    assert list(decided.changed) == changed
    assert told(decided.after) == after
    assert decided.before == ()
    assert bool(decided) == bool(changed or after)
    assert all(one.reason for one in decided.after)


@pytest.mark.parametrize(
    "watcher",
    [Unit("active", "enabled", 0), Unit("inactive", "enabled", 0), Unit("active", "disabled", 0)],
    ids=lambda unit: f"{unit.active}, {unit.enabled}",
)
def test_the_watcher_goes_first(watcher: Unit) -> None:
    decided = deploy.plan(PRIMARY, PRIMARY, standing(watcher=watcher))
    assert told(decided.before) == [f"disable --now {units.WATCHER}"]
    assert (decided.changed, decided.after) == ((), ())
    assert decided


def test_a_secondary_is_not_asked_for_upsd_and_drivers() -> None:
    assert deploy.watched_units(SECONDARY) == (units.MONITOR, units.ALL)
    assert set(deploy.watched_units({**PRIMARY, "ups.conf": TWO})) == {*standing(UPS, SPARE)}


LEFT: dict[str, tuple[Mapping[str, str], dict[str, Unit], list[str], list[str]]] = {
    "nothing new": (
        PRIMARY,
        standing(),
        [ENUMERATE, f"refresh {UPS}", RELOAD_SERVER, RESTART_MONITOR],
        [ENUMERATE, f"refresh {UPS}", RELOAD_SERVER, RESTART_MONITOR],
    ),
    "the same again": (PRIMARY, standing(monitor=FAILED), [RESTART_MONITOR], [RESTART_MONITOR]),
    "each in its place": (
        PRIMARY,
        standing(monitor=FAILED),
        [RELOAD_SERVER, f"refresh {UPS}", ENUMERATE],
        [ENUMERATE, f"refresh {UPS}", RELOAD_SERVER, RESTART_MONITOR],
    ),
    "a restart does what a reload does": (PRIMARY, standing(server=FAILED), [RELOAD_SERVER], [RESTART_SERVER]),
    "a reload left and a restart left": (PRIMARY, standing(), [RELOAD_SERVER, RESTART_SERVER], [RESTART_SERVER]),
    "a driver's restart does what its refresh does": (
        PRIMARY,
        standing(),
        [f"refresh {UPS}", f"restart {UPS}"],
        [f"restart {UPS}"],
    ),
    "a driver that is gone": (PRIMARY, standing(), [f"refresh {SPARE}", RELOAD_SERVER], [RELOAD_SERVER]),
    "no primary any more": (
        SECONDARY,
        standing(),
        [ENUMERATE, f"refresh {UPS}", RESTART_SERVER, RESTART_MONITOR],
        [RESTART_MONITOR],
    ),
    "enabled last": (
        PRIMARY,
        standing(),
        [f"enable {units.SERVER}", RESTART_SERVER],
        [RESTART_SERVER, f"enable {units.SERVER}"],
    ),
}


@pytest.mark.parametrize(("new", "found", "left", "after"), LEFT.values(), ids=LEFT.keys())
def test_what_an_earlier_run_left(
    new: Mapping[str, str], found: dict[str, Unit], left: list[str], after: list[str]
) -> None:
    actions = [Action(*one.split(), reason="left") for one in left]
    decided = deploy.plan(new, new, found, actions)
    assert told(decided.after) == after
    assert decided
    # where this run has a reason of its own, that is the one to tell
    assert set(deploy.plan(new, new, found).after) <= set(decided.after)


STATES = {
    "OL": False,
    "OL CHRG": False,
    "OL RB": False,
    "OL ALARM": False,
    "OL TRIM": False,
    "OB": True,
    "OB DISCHRG": True,
    "OL LB": True,
    "FSD OB LB": True,
    "OL FSD": True,
    "OL CAL": True,
    "OL BYPASS": True,
    "OFF": True,
    "OL OFF": True,
}


@pytest.mark.parametrize(("status", "busy"), STATES.items(), ids=STATES.keys())
def test_careful(status: str, busy: bool) -> None:
    state = upsd.UpsState("ups", "", tuple(status.split()), True, None, {}, (), 0)
    assert deploy.careful([state]) == ([f"ups ({status})"] if busy else [])
    assert deploy.careful([replace(state, fresh=False)]) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ("127.0.0.1", 3493)),
        ("LISTEN 0.0.0.0\n", ("127.0.0.1", 3493)),
        ("LISTEN * 1234\n", ("127.0.0.1", 1234)),
        ("LISTEN localhost 1234\n", ("127.0.0.1", 1234)),
        ("LISTEN 192.0.2.1 1\nLISTEN 127.0.0.1 2\n", ("127.0.0.1", 2)),
        ("LISTEN :: 1\nLISTEN 127.0.0.1 2\n", ("127.0.0.1", 2)),
        ("LISTEN 192.0.2.1 1\nLISTEN ::1 2\n", ("::1", 2)),
        ("LISTEN :: 5\n", ("::1", 5)),
        ('LISTEN "192.0.2.1" "7"\nLISTEN 192.0.2.2\n', ("192.0.2.1", 7)),
        ("LISTEN\nLISTEN 192.0.2.1 nut\n", ("192.0.2.1", 3493)),
        ("# LISTEN 192.0.2.1\n", ("127.0.0.1", 3493)),
    ],
)
def test_where_upsd_is_asked(text: str, place: tuple[str, int]) -> None:
    assert deploy.local_upsd(text) == place


# From here on with a folder, and a stand-in for systemd


class Systemd:
    """Units that start when they are told to, and note what they were told."""

    def __init__(self, found: dict[str, Unit]) -> None:
        self.found = dict(found)
        self.told: list[str] = []
        self.refused: dict[str, str] = {}
        self.enumerator: Callable[[], None] = lambda: None
        self.journal: dict[str, str] = {}
        self._pid = 1000

    def __call__(self, command: Sequence[str]) -> tuple[int, str]:
        program, *words = command
        if program == "journalctl":
            return 0, self.journal.get(words[0].partition("=")[2], "")
        assert program == "systemctl"
        names = words[words.index("--") + 1 :] if "--" in words else words[1:]
        if words[0] == "show":
            return 0, "\n".join(map(self._shown, names))
        (name,) = names
        verb = " ".join(word for word in words if word not in ("--", name))
        self.told.append(f"{verb} {name}")
        if self.told[-1] in self.refused:
            return 1, self.refused[self.told[-1]]
        if verb in ("start", "restart"):
            self.begin(name)
            if name == units.ENUMERATOR:
                self.enumerator()
        return 0, ""

    def begin(self, name: str) -> None:
        """Give a unit a process of its own."""
        self._pid += 1
        self.found[name] = Unit("active", "enabled", self._pid)

    def _shown(self, name: str) -> str:
        unit = self.found.get(name, ABSENT)
        load = "not-found" if unit == ABSENT else "loaded"
        return (
            f"Id={name}\nLoadState={load}\nActiveState={unit.active or 'inactive'}\n"
            f"UnitFileState={unit.enabled}\nMainPID={unit.pid}\n"
        )


class Place:
    """A host: a folder for NUT's files, one for what is gone with a reboot, its systemd, and a clock that waits."""

    def __init__(self, root: Path) -> None:
        self.folder, self.room = root / "nut", root / "run"
        self.folder.mkdir()
        self.room.mkdir()
        self.systemd = Systemd(standing())
        self.now = 0.0

    def holds(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o640)

    def texts(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir() if path.is_file()}

    def deployment(self, new: Mapping[str, str], **changes: Any) -> Deployment:
        def pause(seconds: float) -> None:
            self.now += seconds

        given: dict[str, Any] = {
            "folder": self.folder,
            "room": self.room,
            "owner": (os.getuid(), os.getgid()),
            "runner": self.systemd,
            "finder": lambda _name: None,
            "clock": lambda: self.now,
            "pause": pause,
        }
        return Deployment(new, **{**given, **changes})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("files", [PRIMARY, SECONDARY], ids=["primary", "secondary"])
def test_a_known_set(place: Place, files: Mapping[str, str]) -> None:
    place.deployment(files).known()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "not none"),
        ({"nut.conf": ""}, "not nut.conf"),
        ({**PRIMARY, "upssched.conf": ""}, "upssched.conf"),
        ({name: PRIMARY[name] for name in PRIMARY if name != "nut.conf"}, "not ups.conf, upsd.conf"),
    ],
)
def test_a_set_that_is_none(place: Place, files: Mapping[str, str], said: str) -> None:
    with pytest.raises(DeployError, match=said):
        place.deployment(files).known()


def test_a_first_deployment(place: Place) -> None:
    place.holds({"nut.conf": "MODE=none\n", "ups.conf": "maxretry = 3\n"})
    place.systemd.found = {**standing(server=FAILED, monitor=FAILED, watcher=Unit("active", "enabled", 0)), UPS: ABSENT}
    deployment = place.deployment(PRIMARY)
    decided = deployment.plan()
    written: list[str] = []
    place.systemd.enumerator = lambda: written.extend(sorted(place.texts()))
    deployment.apply(decided)
    assert place.texts() == PRIMARY
    assert deployment.written == ["nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upsmon.conf"]
    assert written == sorted(PRIMARY)  # the enumerator met the whole set
    assert place.systemd.told == [
        f"disable --now {units.WATCHER}",
        f"reset-failed {units.ENUMERATOR}",
        f"start {units.ENUMERATOR}",
        f"reset-failed {units.SERVER}",
        f"restart {units.SERVER}",
        f"reset-failed {units.MONITOR}",
        f"restart {units.MONITOR}",
    ]
    assert told(deployment.done) == [*told(decided.before), *told(decided.after)]
    assert not list(place.room.iterdir())


def test_nothing_is_touched_by_looking(place: Place) -> None:
    place.holds(PRIMARY)
    deployment = place.deployment(with_text("upsd.conf", "15", "20"))
    deployment.diff(deployment.plan())
    assert place.texts() == PRIMARY
    assert place.systemd.told == []
    assert not list(place.room.iterdir())


def test_a_file_can_be_read_by_nut_alone(place: Place) -> None:
    place.holds(PRIMARY)
    (place.folder / "upsd.users").chmod(0o644)
    umask = os.umask(0)
    try:
        deployment = place.deployment(with_text("upsd.users", "secret1", "secret9"))
        deployment.apply(deployment.plan())
    finally:
        os.umask(umask)
    found = (place.folder / "upsd.users").stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())


def test_a_file_is_replaced_and_not_rewritten(place: Place) -> None:
    """Who has the old one open reads it to its end."""
    place.holds(PRIMARY)
    with (place.folder / "upsd.conf").open() as reader:
        deployment = place.deployment(with_text("upsd.conf", "15", "20"))
        deployment.apply(deployment.plan())
        assert reader.read() == PRIMARY["upsd.conf"]
    assert "MAXAGE 20" in place.texts()["upsd.conf"]


def test_only_what_changed_is_written(place: Place) -> None:
    place.holds(PRIMARY)
    before = {path.name: path.stat().st_ino for path in place.folder.iterdir()}
    deployment = place.deployment(with_text("upsd.conf", "15", "20"))
    deployment.apply(deployment.plan())
    after = {path.name: path.stat().st_ino for path in place.folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"upsd.conf"} == set(deployment.written)


def test_bytes_that_are_no_utf8_survive(place: Place) -> None:
    """Ansible carries such bytes as surrogates. NUT reads bytes."""
    (place.folder / "upsd.conf").write_bytes(b"# B\xfcro\nMAXAGE 15\n")
    place.holds({name: PRIMARY[name] for name in PRIMARY if name != "upsd.conf"})
    deployment = place.deployment({**PRIMARY, "upsd.conf": "# B\udcfcro\nMAXAGE 20\n"})
    assert deployment.old["upsd.conf"] == "# B\udcfcro\nMAXAGE 15\n"
    deployment.apply(deployment.plan())
    assert (place.folder / "upsd.conf").read_bytes() == b"# B\xfcro\nMAXAGE 20\n"


def test_a_failure_in_the_middle(place: Place) -> None:
    place.holds(PRIMARY)
    new = {**{name: f"{text}#\n" for name, text in PRIMARY.items()}, "nut.conf": "MODE=standalone\n"}
    deployment = place.deployment(new)
    decided = deployment.plan()
    (place.folder / "upsd.conf").unlink()
    (place.folder / "upsd.conf").mkdir()  # which no file can replace
    with pytest.raises(DeployError, match=r"nut/upsd\.conf could not be written: Is a directory\. It is as it was"):
        deployment.apply(decided)
    assert deployment.written == ["nut.conf", "upsd.users"]
    assert deployment.done == []
    assert place.systemd.told == []
    later = ("ups.conf", "upsmon.conf")
    assert place.texts() == {name: PRIMARY[name] if name in later else new[name] for name in new if name != "upsd.conf"}
    # what was written is taken up by the next run, even if it finds nothing to write
    (place.folder / "upsd.conf").rmdir()
    place.holds(new)
    assert told(place.deployment(new).plan().after) == [RESTART_SERVER, RESTART_MONITOR]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"owner": ("root", "no-such-group")}, r"nut\.conf could not be written: no such group"),
        ({"room": "nowhere"}, r"pending\.json could not be written: No such file"),
    ],
    ids=["group", "directory"],
)
def test_what_cannot_be_written_is_said(place: Place, changes: dict[str, Any], said: str) -> None:
    if "room" in changes:
        changes = {"room": place.room / changes["room"]}
    deployment = place.deployment(PRIMARY, **changes)
    with pytest.raises(DeployError, match=said):
        deployment.apply(deployment.plan())
    assert deployment.written == []
    assert place.texts() == {}
    assert not list(place.folder.iterdir())


def test_a_run_cut_short_is_ended_by_the_next(place: Place) -> None:
    """Between writing and restarting: the files are new, the daemons are old, and nothing else tells of it."""
    place.holds(PRIMARY)
    new = with_text("upsmon.conf", "FINALDELAY 5", "FINALDELAY 65", with_text("upsd.conf", "127.0.0.1", "0.0.0.0"))
    first = place.deployment(new)

    def killed(command: Sequence[str]) -> tuple[int, str]:
        if "restart" in command:
            raise KeyboardInterrupt
        return place.systemd(command)

    first.runner = killed
    with pytest.raises(KeyboardInterrupt):
        first.apply(first.plan())
    assert place.texts() == new
    (note,) = place.room.iterdir()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600

    second = place.deployment(new)
    decided = second.plan()
    assert decided.changed == ()
    assert told(decided.after) == [RESTART_SERVER, RESTART_MONITOR]
    assert decided.after[0].reason == "upsd.conf changed in what a reload leaves alone"
    second.apply(decided)
    assert [one for one in place.systemd.told if one.startswith("restart")] == [RESTART_SERVER, RESTART_MONITOR]
    assert not list(place.room.iterdir())
    assert not place.deployment(new).plan()


def test_a_failed_restart_is_tried_again(place: Place) -> None:
    place.holds(PRIMARY)
    new = with_text("upsmon.conf", "FINALDELAY 5", "FINALDELAY 65", with_text("upsd.conf", "15", "20"))
    place.systemd.refused[RESTART_MONITOR] = "Job for nut-monitor.service failed."
    place.systemd.journal[units.MONITOR] = "Fatal error: insufficient power configured!\n"
    deployment = place.deployment(new)
    with pytest.raises(DeployError) as caught:
        deployment.apply(deployment.plan())
    assert "systemctl restart nut-monitor.service failed: Job for nut-monitor.service failed." in str(caught.value)
    assert "Its last words: Fatal error: insufficient power configured!" in str(caught.value)
    assert told(deployment.done) == [RELOAD_SERVER]
    assert place.texts() == new
    place.systemd.refused.clear()
    again = place.deployment(new)
    again.apply(again.plan())
    assert place.systemd.told[-1] == RESTART_MONITOR
    assert not place.deployment(new).plan()


@pytest.mark.parametrize(
    "text", ["", "[", '[{"verb": "restart", "un', '["restart"]', '[{"verb": "restart"}]', "7", "\udcff"]
)
def test_a_note_that_cannot_be_read_restarts_all(place: Place, text: str) -> None:
    place.holds(PRIMARY)
    deployment = place.deployment(PRIMARY)
    deployment.pending.write_text(text, errors="surrogateescape")
    decided = deployment.plan()
    assert told(decided.after) == [f"restart {UPS}", RESTART_SERVER, RESTART_MONITOR]
    deployment.apply(decided)
    assert not place.deployment(PRIMARY).plan()


def test_a_note_that_cannot_be_read_on_a_secondary(place: Place) -> None:
    place.holds(SECONDARY)
    deployment = place.deployment(SECONDARY)
    deployment.pending.write_text("[")
    assert told(deployment.plan().after) == [RESTART_MONITOR]


def test_the_note_of_an_earlier_run_is_passed_on(place: Place) -> None:
    place.holds(PRIMARY)
    left = [{"verb": "refresh", "unit": UPS, "reason": "[ups] changed"}]
    deployment = place.deployment(with_text("upsd.conf", "15", "20"))
    deployment.pending.write_text(json.dumps(left))
    place.systemd.refused[f"restart {UPS}"] = "no"
    with pytest.raises(DeployError, match="no"):
        deployment.apply(deployment.plan())
    assert [one["verb"] for one in json.loads(deployment.pending.read_text())] == ["refresh", "reload"]


def edited(place: Place) -> Deployment:
    place.holds(PRIMARY)
    return place.deployment(with_text("ups.conf", '"auto"\n', '"auto"\n    ignorelb\n'))


def test_refresh_restarts_a_driver_that_only_reloaded(place: Place) -> None:
    deployment = edited(place)
    deployment.apply(deployment.plan())
    assert place.systemd.told == [
        f"reset-failed {units.ENUMERATOR}",
        f"start {units.ENUMERATOR}",
        f"reset-failed {UPS}",
        f"restart {UPS}",
        f"reload {units.SERVER}",
    ]


def test_refresh_leaves_a_driver_that_the_enumerator_restarted(place: Place) -> None:
    deployment = edited(place)
    place.systemd.enumerator = lambda: place.systemd.begin(UPS)
    deployment.apply(deployment.plan())
    assert f"restart {UPS}" not in place.systemd.told
    assert f"refresh {UPS}" in told(deployment.done)


def test_refresh_starts_a_driver_that_did_not_run(place: Place) -> None:
    deployment = edited(place)
    place.systemd.found[UPS] = FAILED
    deployment.apply(deployment.plan())
    assert f"restart {UPS}" in place.systemd.told


def test_systemd_that_does_not_answer(place: Place) -> None:
    deployment = place.deployment(PRIMARY, runner=lambda _command: (1, "Failed to connect to bus\n"))
    with pytest.raises(units.UnitError, match="Failed to connect to bus"):
        deployment.plan()


def test_a_diff_shows_no_secret_and_no_comment(place: Place) -> None:
    place.holds({**PRIMARY, "upsd.users": "# as shipped\n" + PRIMARY["upsd.users"]})
    new = with_text("upsmon.conf", "FINALDELAY 5", "FINALDELAY 65", with_text("upsd.users", "secret1", "geheim9"))
    deployment = place.deployment(new)
    shown = deployment.diff(deployment.plan())
    assert "secret1" not in shown
    assert "geheim9" not in shown
    assert "as shipped" not in shown
    assert f"{place.folder}/upsd.users: only a secret or a comment changes\n" in shown
    assert "-FINALDELAY 5\n+FINALDELAY 65\n" in shown
    assert shown.endswith(f"{RELOAD_SERVER}: upsd.users changed\n{RESTART_MONITOR}: upsmon.conf changed\n")


def test_files_that_do_not_fit_are_refused(place: Place) -> None:
    with pytest.raises(DeployError, match=r"the old one stays.*\n.*the password is not the one of .monitor."):
        place.deployment(with_text("upsd.users", "secret1", "secret9")).check()


def test_files_that_this_nut_does_not_take_are_refused(place: Place) -> None:
    asked: list[str] = []

    def nut(command: Sequence[str]) -> tuple[int, str]:
        asked.append(command[-1])
        return 0, "Fatal error: 'x' is not a valid flag for this driver.\n"

    with pytest.raises(DeployError, match=r"nothing was restarted:\nups\.conf, .ups.: Fatal error: 'x'"):
        place.deployment(PRIMARY, runner=nut, finder=lambda name: place.room / name).check()
    assert asked[0] == "-V"
    assert not list(place.room.iterdir())


def test_files_that_fit(place: Place) -> None:
    place.deployment(PRIMARY).check()
    place.deployment(SECONDARY).check()


# From here on with a stand-in for upsd


def answers(**status: str) -> dict[str, str]:
    """What upsd says, by UPS: a status, or an ERR."""
    said = {"LIST UPS": "BEGIN LIST UPS\n" + "".join(f'UPS {name} "x"\n' for name in status) + "END LIST UPS\n"}
    for name, text in status.items():
        stale = text.startswith("ERR")
        variable = f'BEGIN LIST VAR {name}\nVAR {name} ups.status "{text}"\nEND LIST VAR {name}\n'
        said[f"LIST VAR {name}"] = f"{text}\n" if stale else variable
        said[f"GET NUMLOGINS {name}"] = f"{text}\n" if stale else f"NUMLOGINS {name} 1\n"
        said[f"LIST CLIENT {name}"] = f"BEGIN LIST CLIENT {name}\nCLIENT {name} 127.0.0.1\nEND LIST CLIENT {name}\n"
    return said


@pytest.fixture
def unused_port() -> int:
    with serving() as fake:
        return fake.port


def primary_at(port: int) -> dict[str, str]:
    files = with_text("upsmon.conf", "3493", str(port))
    return with_text("upsd.conf", "3493", str(port), files)


@pytest.mark.parametrize("status", ["OB DISCHRG", "OL LB", "FSD OL", "OFF"])
@pytest.mark.parametrize("where", ["old", "new"])
def test_the_guard_of_a_primary(place: Place, unused_port: int, where: str, status: str) -> None:
    with serving(answers(spare="OL", ups=status)) as fake:
        ports = (fake.port, unused_port) if where == "old" else (unused_port, fake.port)
        place.holds(primary_at(ports[0]))
        with pytest.raises(DeployError) as caught:
            place.deployment(primary_at(ports[1])).guard()
    assert f"upsd at 127.0.0.1:{fake.port} says that ups ({status}): not plainly on mains" in str(caught.value)
    assert "spare" not in str(caught.value)


@pytest.mark.parametrize("status", ["OL", "OL CHRG", "ERR DATA-STALE", "ERR DRIVER-NOT-CONNECTED"])
def test_the_guard_lets_pass(place: Place, status: str) -> None:
    """One without data is no reason to stop: it may be what this run repairs."""
    with serving(answers(ups=status)) as fake:
        place.holds(primary_at(fake.port))
        place.deployment(primary_at(fake.port)).guard()
        assert fake.looks == 1
        assert "LIST VAR ups" in fake.asked


def test_the_guard_lets_pass_where_nobody_answers(place: Place, unused_port: int) -> None:
    place.holds(primary_at(unused_port))
    place.deployment(primary_at(unused_port)).guard()


def secondary_at(port: int, ups: str = "ups") -> dict[str, str]:
    return with_text("upsmon.conf", "ups@192.0.2.1:3493", f"{ups}@127.0.0.1:{port}", SECONDARY)


@pytest.mark.parametrize(("name", "served"), [("ups", "ups"), ("UPS", "ups"), ("ups", "Ups")])
@pytest.mark.parametrize("where", ["old", "new"])
def test_the_guard_of_a_secondary(place: Place, unused_port: int, where: str, name: str, served: str) -> None:
    with serving(answers(**{served: "OB", "spare": "OL"})) as fake:
        ports = (fake.port, unused_port) if where == "old" else (unused_port, fake.port)
        place.holds(secondary_at(ports[0], name))
        with pytest.raises(DeployError, match=rf"{served} \(OB\): not plainly on mains"):
            place.deployment(secondary_at(ports[1], name)).guard()


def test_the_guard_of_a_secondary_asks_for_its_own_ups_alone(place: Place) -> None:
    with serving(answers(ups="OL", spare="OB")) as fake:
        place.holds(secondary_at(fake.port))
        place.deployment(secondary_at(fake.port)).guard()
        assert "LIST UPS" in fake.asked


def test_the_guard_asks_every_upsd(place: Place) -> None:
    with serving(answers(ups="OL")) as well, serving(answers(spare="OB")) as busy:
        one, other = (secondary_at(fake.port, name) for fake, name in ((well, "ups"), (busy, "spare")))
        both = {**one, "upsmon.conf": one["upsmon.conf"] + other["upsmon.conf"]}
        place.holds(both)
        with pytest.raises(DeployError, match=rf"127\.0\.0\.1:{busy.port} says that spare \(OB\)"):
            place.deployment(both).guard()


def test_the_guard_survives_an_old_file_that_is_no_good(place: Place) -> None:
    place.holds(with_text("upsmon.conf", "192.0.2.1:3493", "127.0.0.1:nut", SECONDARY))
    with serving(answers(ups="OL")) as fake:
        place.deployment(secondary_at(fake.port)).guard()
        assert fake.looks == 1


def test_verified_at_the_first_look(place: Place) -> None:
    with serving(answers(ups="OL CHRG")) as fake:
        verdict = place.deployment(primary_at(fake.port)).verify(60)
    assert verdict == deploy.Verdict({"ups": "OL CHRG"}, [], [])
    assert place.now == 0


def test_verified_after_a_while(place: Place) -> None:
    with serving(answers(ups="ERR DRIVER-NOT-CONNECTED")) as fake:

        def pause(seconds: float) -> None:
            place.now += seconds
            if place.now >= 7:
                fake.answers.update(answers(ups="OL"))

        verdict = place.deployment(primary_at(fake.port), pause=pause).verify(60)
    assert verdict == deploy.Verdict({"ups": "OL"}, [], [])
    assert place.now == 7


def test_verified_when_upsmon_has_logged_in(place: Place) -> None:
    """A driver and upsd serve at once, and upsmon needs a moment."""
    nobody = {"LIST CLIENT ups": "BEGIN LIST CLIENT ups\nEND LIST CLIENT ups\n"}
    with serving({**answers(ups="OL"), **nobody}) as fake:

        def pause(seconds: float) -> None:
            place.now += seconds
            if place.now >= 3:
                fake.answers.update(answers(ups="OL"))

        verdict = place.deployment(primary_at(fake.port), pause=pause).verify(60)
    assert verdict == deploy.Verdict({"ups": "OL"}, [], [])
    assert place.now == 3


UNSERVED = {
    "stale": (answers(ups="ERR DATA-STALE"), {"ups": "DATA-STALE"}, "upsd does not serve ups fresh: DATA-STALE"),
    "no status yet": (answers(ups=""), {"ups": "no data"}, "upsd does not serve ups fresh: no data"),
    "waiting": (answers(ups="WAIT"), {"ups": "no data"}, "upsd does not serve ups fresh: no data"),
    "unknown": (answers(other="OL"), {}, "answered UNKNOWN-UPS"),
}


@pytest.mark.parametrize(("said", "status", "words"), UNSERVED.values(), ids=UNSERVED.keys())
@pytest.mark.parametrize("seconds", [0, 10])
def test_a_ups_that_is_not_served(
    place: Place, said: dict[str, str], status: dict[str, str], words: str, seconds: int
) -> None:
    with serving({**said, "LIST CLIENT ups": answers(ups="")["LIST CLIENT ups"]}) as fake:
        verdict = place.deployment(primary_at(fake.port)).verify(seconds)
    assert verdict.status == status
    (found,) = verdict.unserved
    assert words in found
    assert verdict.logged_out == []
    assert seconds <= place.now < seconds + 1


def test_every_ups_must_be_served(place: Place) -> None:
    with serving(answers(ups="OL", spare="ERR DATA-STALE")) as fake:
        verdict = place.deployment({**primary_at(fake.port), "ups.conf": TWO}).verify(0)
    assert verdict.status == {"ups": "OL", "spare": "DATA-STALE"}
    assert verdict.unserved == ["upsd does not serve spare fresh: DATA-STALE"]


def test_a_upsd_that_is_down(place: Place, unused_port: int) -> None:
    verdict = place.deployment(primary_at(unused_port)).verify(0)
    assert verdict.status == {}
    assert "connection refused" in verdict.unserved[0]
    assert f"ups@localhost:{unused_port}: " in verdict.logged_out[0]


@pytest.mark.parametrize(
    ("clients", "there"),
    [
        ([], False),
        (["192.0.2.9"], False),
        (["192.0.2.9", "127.0.0.1"], True),
        (["::ffff:127.0.0.1"], True),
        (["::1"], True),
    ],
)
def test_whether_upsmon_has_logged_in(place: Place, clients: list[str], there: bool) -> None:
    listed = "BEGIN LIST CLIENT ups\n" + "".join(f"CLIENT ups {one}\n" for one in clients) + "END LIST CLIENT ups\n"
    with serving({**answers(ups="OL"), "LIST CLIENT ups": listed}) as fake:
        verdict = place.deployment(secondary_at(fake.port)).verify(0)
    assert (verdict.status, verdict.unserved) == ({}, [])
    assert bool(verdict.logged_out) != there
    if not there:
        assert verdict.logged_out == [
            f"upsmon of this host (127.0.0.1) has not logged in to ups@127.0.0.1:{fake.port} as media; "
            f"upsd lists {', '.join(clients) or 'nobody'}"
        ]


def test_an_empty_plan_is_nothing() -> None:
    assert not Plan((), (), ())
    assert Plan(("nut.conf",), (), ())


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o666])
def test_a_file_for_others_is_mended(place: Place, mode: int) -> None:
    """Its text is right, so nothing else would touch it; upsd may die of it at the next start."""
    place.holds(PRIMARY)
    (place.folder / "upsd.users").chmod(mode)
    deployment = place.deployment(PRIMARY)
    decided = deployment.plan()
    assert decided.changed == ("upsd.users",)
    assert "upsd.users: mode or owner is mended" in deployment.diff(decided)
    deployment.apply(decided)
    assert (place.folder / "upsd.users").stat().st_mode & 0o777 == 0o640
    assert not place.deployment(PRIMARY).plan()


@pytest.mark.parametrize("name", [units.SERVER, units.MONITOR, units.driver("ups")])
def test_a_masked_unit_stops_the_run_before_anything(place: Place, name: str) -> None:
    place.systemd.found[name] = Unit("inactive", "masked", 0)
    with pytest.raises(DeployError, match=f"Run: systemctl unmask {name}"):
        place.deployment(PRIMARY).plan()
    assert place.texts() == {}


@pytest.mark.parametrize(
    ("verdict", "suspects"),
    [
        (Verdict({"ups": "OL"}, (), ()), ()),
        (Verdict({}, ("upsd can't be reached",), ("nobody",)), (units.SERVER,)),
        (Verdict({"ups": "OL", "b": "x"}, ("upsd does not serve b fresh: x",), ()), (units.driver("b"),)),
        (Verdict({"ups": "OL"}, (), ("not logged in",)), (units.MONITOR,)),
    ],
)
def test_who_may_know_why(verdict: Verdict, suspects: tuple[str, ...]) -> None:
    assert verdict.suspects == suspects
