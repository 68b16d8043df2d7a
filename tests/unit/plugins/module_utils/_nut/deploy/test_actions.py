# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import actions as library
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.change import Change, UnitAction
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    ENUMERATE,
    FAILED,
    OFF,
    PRIMARY,
    RELOAD_SERVER,
    RESTART_MONITOR,
    RESTART_SERVER,
    SECONDARY,
    SPARE,
    START_UPS,
    STOP_UPS,
    STOPPED,
    TWO,
    UPS,
    describe_actions,
    healthy_units,
    with_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PLANS: dict[str, tuple[Mapping[str, str], Mapping[str, str], dict[str, Unit], list[str], list[str]]] = {
    "nothing changed": (PRIMARY, PRIMARY, healthy_units(), [], []),
    "comment in ups.conf": (
        PRIMARY,
        with_text("ups.conf", "[ups]", "# rack\n[ups]"),
        healthy_units(),
        ["ups.conf"],
        [RELOAD_SERVER],
    ),
    "key of a section": (
        PRIMARY,
        with_text("ups.conf", '"auto"\n', '"auto"\n    ignorelb\n'),
        healthy_units(),
        ["ups.conf"],
        [STOP_UPS, ENUMERATE, START_UPS, RELOAD_SERVER],
    ),
    "one section of two": (
        {**PRIMARY, "ups.conf": TWO},
        {**PRIMARY, "ups.conf": TWO + "    pollonly\n"},
        healthy_units(UPS, SPARE),
        ["ups.conf"],
        [f"stop {SPARE}", ENUMERATE, f"start {SPARE}", RELOAD_SERVER],
    ),
    "order of keys": (
        PRIMARY,
        with_text("ups.conf", 'driver = "usbhid-ups"\n    port = "auto"', 'port = "auto"\n    driver = "usbhid-ups"'),
        healthy_units(),
        ["ups.conf"],
        [STOP_UPS, ENUMERATE, START_UPS, RELOAD_SERVER],
    ),
    "globals of ups.conf": (
        {**PRIMARY, "ups.conf": TWO},
        {**PRIMARY, "ups.conf": TWO.replace("maxretry = 3", "maxretry = 5")},
        healthy_units(UPS, SPARE),
        ["ups.conf"],
        [STOP_UPS, f"stop {SPARE}", ENUMERATE, START_UPS, f"start {SPARE}", RELOAD_SERVER],
    ),
    "new section": (
        PRIMARY,
        {**PRIMARY, "ups.conf": TWO},
        healthy_units(UPS),
        ["ups.conf"],
        [ENUMERATE, RELOAD_SERVER],
    ),
    "section gone": (
        {**PRIMARY, "ups.conf": TWO},
        PRIMARY,
        healthy_units(UPS, SPARE),
        ["ups.conf"],
        [ENUMERATE, RELOAD_SERVER],
    ),
    # upssched reads it at each event
    "upssched.conf": (PRIMARY, with_text("upssched.conf", "true", "false"), healthy_units(), ["upssched.conf"], []),
    "MAXAGE": (PRIMARY, with_text("upsd.conf", "15", "20"), healthy_units(), ["upsd.conf"], [RELOAD_SERVER]),
    **{
        f"{line} of upsd.conf": (
            PRIMARY,
            {**PRIMARY, "upsd.conf": PRIMARY["upsd.conf"] + line + "\n"},
            healthy_units(),
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
        healthy_units(),
        ["upsd.conf"],
        [RESTART_SERVER],  # which of them may fail depends on it
    ),
    "quotes of LISTEN": (
        PRIMARY,
        with_text("upsd.conf", '"127.0.0.1"', "127.0.0.1"),
        healthy_units(),
        ["upsd.conf"],
        [RELOAD_SERVER],
    ),
    "upsd.users": (
        PRIMARY,
        with_text("upsd.users", "secret1", "secret9"),
        healthy_units(),
        ["upsd.users"],
        [RELOAD_SERVER],
    ),
    "upsmon.conf": (
        PRIMARY,
        with_text("upsmon.conf", "FINALDELAY 5", "FINALDELAY 65"),
        healthy_units(),
        ["upsmon.conf"],
        [RESTART_MONITOR],
    ),
    "MODE": (
        {**PRIMARY, "nut.conf": "MODE=none\n"},
        PRIMARY,
        healthy_units(),
        ["nut.conf"],
        [RESTART_SERVER, RESTART_MONITOR],
    ),
    "POWEROFF_WAIT": (
        PRIMARY,
        {**PRIMARY, "nut.conf": "MODE=netserver\nPOWEROFF_WAIT=10m\nPOWEROFF_QUIET=true\n"},
        healthy_units(),
        ["nut.conf"],
        [],
    ),
    "password everywhere": (
        PRIMARY,
        with_text("upsmon.conf", "secret1", "s9", with_text("upsd.users", "secret1", "s9")),
        healthy_units(),
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
            "upssched.conf": "#\n",
            "upsmon.conf": "#\n",
        },
        healthy_units(UPS),
        ["nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upssched.conf", "upsmon.conf"],
        [STOP_UPS, ENUMERATE, START_UPS, RESTART_SERVER, RESTART_MONITOR],
    ),
    "first deployment": (
        {"nut.conf": "MODE=none\n", "ups.conf": "maxretry = 3\n", "upsd.conf": "# LISTEN\n", "upsmon.conf": "# \n"},
        PRIMARY,
        {**healthy_units(server=FAILED, monitor=FAILED), UPS: ABSENT},
        ["nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upssched.conf", "upsmon.conf"],
        [ENUMERATE, RESTART_SERVER, RESTART_MONITOR],
    ),
    "no file at all": (
        {},
        PRIMARY,
        {**healthy_units(server=FAILED, monitor=FAILED), UPS: ABSENT},
        ["nut.conf", "upsd.users", "upsd.conf", "ups.conf", "upssched.conf", "upsmon.conf"],
        [ENUMERATE, RESTART_SERVER, RESTART_MONITOR],
    ),
    "unknown unit": (PRIMARY, PRIMARY, {**healthy_units(), UPS: ABSENT}, [], [ENUMERATE]),
    "driver disabled": (PRIMARY, PRIMARY, healthy_units(ups=Unit("active", "disabled", 5)), [], [ENUMERATE]),
    "driver idle": (PRIMARY, PRIMARY, healthy_units(ups=STOPPED), [], [f"start {UPS}"]),
    "driver about to start": (PRIMARY, PRIMARY, healthy_units(ups=Unit("activating", "enabled", 0)), [], []),
    "driver idle, and changed": (
        PRIMARY,
        with_text("ups.conf", '"auto"\n', '"auto"\n    ignorelb\n'),
        healthy_units(ups=FAILED),
        ["ups.conf"],
        [STOP_UPS, ENUMERATE, START_UPS, RELOAD_SERVER],
    ),
    "upsd down": (PRIMARY, PRIMARY, healthy_units(server=FAILED), [], [RESTART_SERVER]),
    "upsd down, and its users changed": (
        PRIMARY,
        with_text("upsd.users", "secret1", "secret9"),
        healthy_units(server=STOPPED),
        ["upsd.users"],
        [RESTART_SERVER],
    ),
    "upsmon down": (PRIMARY, PRIMARY, healthy_units(monitor=FAILED), [], [RESTART_MONITOR]),
    "not enabled": (
        PRIMARY,
        PRIMARY,
        healthy_units(server=Unit("active", "disabled", 11), monitor=Unit("inactive", "disabled", 0)),
        [],
        [RESTART_MONITOR, f"enable {systemd.SERVER}", f"enable {systemd.MONITOR}"],
    ),
    "secondary: nothing changed": (SECONDARY, SECONDARY, healthy_units(), [], []),
    "secondary: upsmon.conf": (
        SECONDARY,
        with_text("upsmon.conf", "secret2", "secret3", SECONDARY),
        healthy_units(),
        ["upsmon.conf"],
        [RESTART_MONITOR],
    ),
    "secondary: first deployment": (
        {"nut.conf": "MODE=none\n", "upsmon.conf": "#\n"},
        SECONDARY,
        healthy_units(monitor=Unit("inactive", "disabled", 0)),
        ["nut.conf", "upssched.conf", "upsmon.conf"],
        [RESTART_MONITOR, f"enable {systemd.MONITOR}"],
    ),
    "secondary: its own drivers and upsd are not our business": (
        SECONDARY,
        SECONDARY,
        healthy_units(server=Unit("failed", "disabled", 0), ups=FAILED, watcher=Unit("active", "enabled", 0)),
        [],
        [],
    ),
}


@pytest.mark.parametrize(("old", "new", "found", "changed", "after"), PLANS.values(), ids=PLANS.keys())
def test_deployment_needs_fewest_actions(
    old: Mapping[str, str], new: Mapping[str, str], found: dict[str, Unit], changed: list[str], after: list[str]
) -> None:
    decided = library.plan_deployment(old, new, found)
    assert list(decided.written_files) == changed
    assert describe_actions(decided.after) == after
    assert decided.before == ()
    assert bool(decided) == bool(changed or after)
    assert all(action.reason for action in decided.after)


@pytest.mark.parametrize(
    "watcher",
    [Unit("active", "enabled", 0), Unit("inactive", "enabled", 0), Unit("active", "disabled", 0)],
    ids=lambda unit: f"{unit.active}, {unit.enabled}",
)
def test_enumerator_path_unit_is_disabled_first(watcher: Unit) -> None:
    decided = library.plan_deployment(PRIMARY, PRIMARY, healthy_units(watcher=watcher))
    assert describe_actions(decided.before) == [f"disable --now {systemd.WATCHER}"]
    assert (decided.written_files, decided.after) == ((), ())
    assert decided


def test_secondary_has_no_upsd_and_driver_units() -> None:
    assert library.watched_units(SECONDARY) == (systemd.MONITOR, systemd.ALL)
    assert set(library.watched_units({**PRIMARY, "ups.conf": TWO})) == {*healthy_units(UPS, SPARE)}


LEFT: dict[str, tuple[Mapping[str, str], dict[str, Unit], list[str], list[str]]] = {
    "nothing new": (
        PRIMARY,
        healthy_units(),
        [ENUMERATE, f"start {UPS}", RELOAD_SERVER, RESTART_MONITOR],
        [ENUMERATE, f"start {UPS}", RELOAD_SERVER, RESTART_MONITOR],
    ),
    "the same again": (PRIMARY, healthy_units(monitor=FAILED), [RESTART_MONITOR], [RESTART_MONITOR]),
    "each in its place": (
        PRIMARY,
        healthy_units(monitor=FAILED),
        [RELOAD_SERVER, f"start {UPS}", ENUMERATE],
        [ENUMERATE, f"start {UPS}", RELOAD_SERVER, RESTART_MONITOR],
    ),
    "a restart does what a reload does": (PRIMARY, healthy_units(server=FAILED), [RELOAD_SERVER], [RESTART_SERVER]),
    "a reload left and a restart left": (PRIMARY, healthy_units(), [RELOAD_SERVER, RESTART_SERVER], [RESTART_SERVER]),
    "a driver's restart does what its start does": (
        PRIMARY,
        healthy_units(),
        [f"start {UPS}", f"restart {UPS}"],
        [f"restart {UPS}"],
    ),
    "a driver that is gone": (PRIMARY, healthy_units(), [f"start {SPARE}", RELOAD_SERVER], [RELOAD_SERVER]),
    "no primary any more": (
        SECONDARY,
        healthy_units(),
        [ENUMERATE, f"start {UPS}", RESTART_SERVER, RESTART_MONITOR],
        [RESTART_MONITOR],
    ),
    "enabled last": (
        PRIMARY,
        healthy_units(),
        [f"enable {systemd.SERVER}", RESTART_SERVER],
        [RESTART_SERVER, f"enable {systemd.SERVER}"],
    ),
}


@pytest.mark.parametrize(("new", "found", "left", "after"), LEFT.values(), ids=LEFT.keys())
def test_pending_actions_of_interrupted_run_are_added(
    new: Mapping[str, str], found: dict[str, Unit], left: list[str], after: list[str]
) -> None:
    actions = [UnitAction(*line.split(), reason="left") for line in left]
    decided = library.plan_deployment(new, new, found, pending=actions)
    assert describe_actions(decided.after) == after
    assert decided
    # an action that this run also decided on has its own reason
    assert set(library.plan_deployment(new, new, found).after) <= set(decided.after)


def test_empty_change_is_false() -> None:
    assert not Change()
    assert Change(after=(UnitAction("restart", UPS, "not running"),))


def test_driver_without_section_is_disabled() -> None:
    """systemd would try forever to start it. It is disabled after the enumerator has run."""
    decided = library.plan_deployment(
        PRIMARY, with_text("ups.conf", "[ups]", "[UPS1]"), healthy_units(), strays=[SPARE]
    )
    assert describe_actions(decided.after) == [ENUMERATE, f"disable --now {SPARE}", RELOAD_SERVER]


def test_pending_disable_is_decided_again() -> None:
    left = [UnitAction("disable --now", UPS, "ups.conf has no such section")]
    assert not library.plan_deployment(PRIMARY, PRIMARY, healthy_units(), pending=left)


GONE = {name: library.STUBS[name] for name in PRIMARY}


def test_removal_of_primary_disables_units_and_empties_files() -> None:
    """upsmon is stopped first, so that it does not react to the rest. nut.conf is written last, once ups.conf has no sections."""
    decided = library.plan_removal(PRIMARY, healthy_units(watcher=Unit("active", "enabled", 0)), [UPS])
    assert describe_actions(decided.before) == [
        f"disable --now {name}" for name in (systemd.MONITOR, systemd.WATCHER, systemd.SERVER)
    ]
    assert decided.written_files == ("upsmon.conf", "upssched.conf", "ups.conf", "upsd.conf", "upsd.users", "nut.conf")
    assert describe_actions(decided.after) == [
        ENUMERATE,
        *(f"disable --now {name}" for name in (UPS, systemd.ENUMERATOR, systemd.DRIVERS, systemd.ALL)),
    ]


def test_removal_of_removed_primary_changes_nothing() -> None:
    assert not library.plan_removal(GONE, dict.fromkeys(healthy_units(), OFF), [])
    assert not library.plan_removal(GONE, {}, [])


def test_removal_of_secondary_disables_upsmon_and_empties_files() -> None:
    found = {systemd.MONITOR: Unit("active", "enabled", 5), systemd.ALL: Unit("active", "enabled", 0)}
    decided = library.plan_removal(SECONDARY, found, [])
    assert describe_actions(decided.before) == [f"disable --now {systemd.MONITOR}"]
    assert decided.written_files == ("upsmon.conf", "upssched.conf", "nut.conf")
    assert describe_actions(decided.after) == [f"disable --now {systemd.ALL}"]


def test_stub_files_contain_only_mode_none() -> None:
    """With MODE=none, Debian's nutshutdown shuts down the UPS of every section of ups.conf."""
    assert library.STUBS["nut.conf"].endswith("MODE=none\n")
    for name, text in library.STUBS.items():
        told_of = [line for line in text.splitlines() if not line.startswith("#")]
        assert told_of == (["MODE=none"] if name == "nut.conf" else [])


def test_stale_section_stops_driver_before_enumerator() -> None:
    """Otherwise the enumerator of 2.8.1 reloads this driver, which then spins, although another section was edited."""
    old, new = {**PRIMARY, "ups.conf": TWO}, {**PRIMARY, "ups.conf": TWO + "    pollonly\n"}
    decided = library.plan_deployment(old, new, healthy_units(UPS, SPARE), stale=["ups", "gone"])
    assert describe_actions(decided.after) == [
        f"stop {SPARE}",
        STOP_UPS,
        ENUMERATE,
        f"start {SPARE}",
        START_UPS,
        RELOAD_SERVER,
    ]
    # the enumerator does not run, so nothing is stopped
    assert not library.plan_deployment(old, old, healthy_units(UPS, SPARE), stale=["ups"])


@pytest.mark.parametrize("left", [(), (UnitAction("restart", UPS, "its sandbox changed"),)])
def test_pending_restart_does_not_replace_stop(left: Sequence[UnitAction]) -> None:
    """The enumerator of 2.8.1 would reload a running driver, which would then spin."""
    new = with_text("ups.conf", '"auto"', '"auto"\n    pollonly')
    assert describe_actions(library.plan_deployment(PRIMARY, new, healthy_units(), pending=left).after) == [
        STOP_UPS,
        ENUMERATE,
        START_UPS,
        RELOAD_SERVER,
    ]
    noted = [
        UnitAction("stop", UPS, ""),
        UnitAction("start", systemd.ENUMERATOR, ""),
        UnitAction("start", UPS, ""),
        *left,
    ]
    assert describe_actions(library.plan_deployment(new, new, healthy_units(), pending=noted).after) == [
        STOP_UPS,
        ENUMERATE,
        START_UPS,
    ]


@pytest.mark.parametrize("change", ["# a comment\n", "\n\n", "   \n"])
def test_comment_in_upsmon_conf_restarts_nothing(change: str) -> None:
    new = {**PRIMARY, "upsmon.conf": change + PRIMARY["upsmon.conf"]}
    decided = library.plan_deployment(PRIMARY, new, healthy_units())
    assert (decided.written_files, decided.after) == (("upsmon.conf",), ())


@pytest.mark.parametrize("name", ["UPSD_OPTIONS", "UPSMON_OPTIONS", "POWEROFF_WAIT"])
def test_unused_variable_in_nut_conf_restarts_nothing(name: str) -> None:
    new = {**PRIMARY, "nut.conf": f"{PRIMARY['nut.conf']}{name}=30\n"}
    assert library.plan_deployment(PRIMARY, new, healthy_units()).after == ()


def test_blanks_before_variable_in_nut_conf_are_ignored() -> None:
    new = {**PRIMARY, "nut.conf": f"{PRIMARY['nut.conf']}  NUT_DEBUG_LEVEL=1\n"}
    assert describe_actions(library.plan_deployment(PRIMARY, new, healthy_units()).after) == [
        RESTART_SERVER,
        RESTART_MONITOR,
    ]
