# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import DeployError
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import memory
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import make_answers, serve_answers
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    RESTART_SERVER,
    SECONDARY,
    Place,
    describe_actions,
    primary_at,
    secondary_at,
    with_text,
)

if TYPE_CHECKING:
    pass


def test_mains_are_checked_again_before_upsd_restart(place: Place) -> None:
    """Drivers and certificates take time, and an outage may begin in between."""
    with serve_answers(make_answers(ups="OL")) as fake:
        files = primary_at(fake.port)
        place.write_files(files)
        new = with_text(
            "upsd.conf", "127.0.0.1", "0.0.0.0", with_text("ups.conf", '"auto"\n', '"auto"\n    ignorelb\n', files)
        )
        deployment = place.make_deployment(new)
        decided = deployment.plan_change()
        assert RESTART_SERVER in describe_actions(decided.after)
        deployment.require_mains()
        place.systemd.enumerator = lambda: fake.answers.update(make_answers(ups="OB"))
        with pytest.raises(DeployError, match=r"ups \(OB\).*so upsd was not restarted\. The files are in place"):
            deployment.apply_change(decided)
        assert RESTART_SERVER not in place.systemd.told
        # the next run, with the mains back, does the rest
        place.systemd.enumerator = lambda: None
        fake.answers.update(make_answers(ups="OL"))
        assert RESTART_SERVER in describe_actions(place.make_deployment(new).plan_change().after)
        place.make_deployment(new).apply_change(place.make_deployment(new).plan_change())
        assert RESTART_SERVER in place.systemd.told


def test_force_continues_on_battery(place: Place) -> None:
    with serve_answers(make_answers(ups="OB")) as fake:
        place.write_files(primary_at(fake.port))
        deployment = place.make_deployment(primary_at(fake.port))
        deployment.require_mains(force=True)
        assert deployment.served_names == {"ups"}


def test_guard_of_primary_checks_monitored_upses_of_other_hosts(place: Place, unused_port: int) -> None:
    with serve_answers(make_answers(far="OB", theirs="OL")) as fake:
        line = f"MONITOR far@127.0.0.1:{fake.port} 0 u p secondary\n"
        files = primary_at(unused_port)
        place.write_files(files)
        with pytest.raises(DeployError, match=r"far \(OB\)"):
            place.make_deployment({**files, "upsmon.conf": files["upsmon.conf"] + line}).require_mains()


@pytest.mark.parametrize("status", ["OB DISCHRG", "OL LB", "FSD OL", "OFF"])
@pytest.mark.parametrize("where", ["old", "new"])
def test_guard_of_primary_refuses_on_battery(place: Place, unused_port: int, where: str, status: str) -> None:
    with serve_answers(make_answers(spare="OL", ups=status)) as fake:
        ports = (fake.port, unused_port) if where == "old" else (unused_port, fake.port)
        place.write_files(primary_at(ports[0]))
        with pytest.raises(DeployError) as caught:
            place.make_deployment(primary_at(ports[1])).require_mains()
    assert f"upsd at 127.0.0.1:{fake.port} reports ups ({status}): not plainly on mains" in str(caught.value)
    assert "spare" not in str(caught.value)


@pytest.mark.parametrize("status", ["OL", "OL CHRG", "ERR DATA-STALE", "ERR DRIVER-NOT-CONNECTED"])
def test_guard_accepts_mains(place: Place, status: str) -> None:
    """A UPS without data does not stop the run, which may be what repairs it."""
    with serve_answers(make_answers(ups=status)) as fake:
        place.write_files(primary_at(fake.port))
        place.make_deployment(primary_at(fake.port)).require_mains()
        assert fake.looks == 2  # as this host's upsd, and as the one that its upsmon monitors
        assert "LIST VAR ups" in fake.asked


def test_guard_warns_that_data_on_mains_may_be_old(place: Place) -> None:
    """nut-hotplug has seen that the driver of [ups] lost its device."""
    state = memory.HotplugState(boot="this boot", lost_since={"UPS": 100.0})
    memory.save_state(place.room / "state.json", state)
    with serve_answers(make_answers(spare="OL", ups="OL")) as fake:
        place.write_files(primary_at(fake.port))
        deployment = place.make_deployment(primary_at(fake.port), boot=lambda: "this boot")
        for _time in range(2):
            deployment.require_mains()
        (warning,) = deployment.warnings
        assert warning.startswith("upsd's data of ups (OL) may be old: ")
        assert "may be on battery. make doctor" in warning
        later = place.make_deployment(primary_at(fake.port), boot=lambda: "another boot")
        later.require_mains()
        assert later.warnings == []
        fake.answers.update(make_answers(ups="OB"))
        with pytest.raises(DeployError, match=r"ups \(OB\), which is old data \(make doctor says what to do\): not"):
            deployment.require_mains()


def test_guard_accepts_unreachable_upsd(place: Place, unused_port: int) -> None:
    place.write_files(primary_at(unused_port))
    place.make_deployment(primary_at(unused_port)).require_mains()


@pytest.mark.parametrize(("name", "served"), [("ups", "ups"), ("UPS", "ups"), ("ups", "Ups")])
@pytest.mark.parametrize("where", ["old", "new"])
def test_guard_of_secondary_refuses_on_battery(
    place: Place, unused_port: int, where: str, name: str, served: str
) -> None:
    with serve_answers(make_answers(**{served: "OB", "spare": "OL"})) as fake:
        ports = (fake.port, unused_port) if where == "old" else (unused_port, fake.port)
        place.write_files(secondary_at(ports[0], name))
        with pytest.raises(DeployError, match=rf"{served} \(OB\): not plainly on mains"):
            place.make_deployment(secondary_at(ports[1], name)).require_mains()


def test_guard_of_secondary_ignores_unmonitored_upses(place: Place) -> None:
    with serve_answers(make_answers(ups="OL", spare="OB")) as fake:
        place.write_files(secondary_at(fake.port))
        place.make_deployment(secondary_at(fake.port)).require_mains()
        assert "LIST UPS" in fake.asked


def test_guard_asks_every_upsd(place: Place) -> None:
    with serve_answers(make_answers(ups="OL")) as well, serve_answers(make_answers(spare="OB")) as busy:
        watching, also_watching = (secondary_at(fake.port, name) for fake, name in ((well, "ups"), (busy, "spare")))
        both = {**watching, "upsmon.conf": watching["upsmon.conf"] + also_watching["upsmon.conf"]}
        place.write_files(both)
        with pytest.raises(DeployError, match=rf"127\.0\.0\.1:{busy.port} reports spare \(OB\)"):
            place.make_deployment(both).require_mains()


def test_guard_ignores_invalid_old_file(place: Place) -> None:
    place.write_files(with_text("upsmon.conf", "192.0.2.1:3493", "127.0.0.1:nut", SECONDARY))
    with serve_answers(make_answers(ups="OL")) as fake:
        place.make_deployment(secondary_at(fake.port)).require_mains()
        assert fake.looks == 1


def test_guard_protects_removal_of_primary(place: Place) -> None:
    with serve_answers(make_answers(ups="OB")) as fake:
        place.write_files(primary_at(fake.port))
        with pytest.raises(DeployError, match="not plainly on mains"):
            place.make_deployment(None).require_mains()


@pytest.mark.parametrize(
    ("status", "is_on_mains"),
    [("OL", True), ("OL CHRG", True), ("OB", False), ("ERR DATA-STALE", False), ("ERR DRIVER-NOT-CONNECTED", False)],
)
def test_upsmon_is_restarted_for_a_login_only_with_fresh_data_on_mains(
    place: Place, status: str, is_on_mains: bool
) -> None:
    """A restarted upsmon forgets that a UPS was on battery before its data stopped."""
    with serve_answers(make_answers(ups=status)) as fake:
        assert place.make_deployment(secondary_at(fake.port))._is_on_mains() is is_on_mains


def test_upsmon_is_not_restarted_for_a_login_while_another_upsd_is_silent(place: Place, unused_port: int) -> None:
    with serve_answers(make_answers(ups="OL")) as fake:
        files = secondary_at(fake.port)
        line = f"MONITOR far@127.0.0.1:{unused_port} 1 u p secondary\n"
        assert not place.make_deployment({**files, "upsmon.conf": files["upsmon.conf"] + line})._is_on_mains()
