# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import DeployError
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import answers, serving
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    RESTART_SERVER,
    SECONDARY,
    Place,
    primary_at,
    secondary_at,
    told,
    with_text,
)

if TYPE_CHECKING:
    pass


def test_mains_are_checked_again_before_upsd_restart(place: Place) -> None:
    """Drivers and certificates take time, and an outage may begin in between."""
    with serving(answers(ups="OL")) as fake:
        files = primary_at(fake.port)
        place.holds(files)
        new = with_text(
            "upsd.conf", "127.0.0.1", "0.0.0.0", with_text("ups.conf", '"auto"\n', '"auto"\n    ignorelb\n', files)
        )
        deployment = place.deployment(new)
        decided = deployment.plan_change()
        assert RESTART_SERVER in told(decided.after)
        deployment.require_mains()
        place.systemd.enumerator = lambda: fake.answers.update(answers(ups="OB"))
        with pytest.raises(DeployError, match=r"ups \(OB\).*so upsd was not restarted\. The files are in place"):
            deployment.apply_change(decided)
        assert RESTART_SERVER not in place.systemd.told
        # the next run, with the mains back, does the rest
        place.systemd.enumerator = lambda: None
        fake.answers.update(answers(ups="OL"))
        assert RESTART_SERVER in told(place.deployment(new).plan_change().after)
        place.deployment(new).apply_change(place.deployment(new).plan_change())
        assert RESTART_SERVER in place.systemd.told


def test_force_continues_on_battery(place: Place) -> None:
    with serving(answers(ups="OB")) as fake:
        place.holds(primary_at(fake.port))
        deployment = place.deployment(primary_at(fake.port))
        deployment.require_mains(force=True)
        assert deployment.served_names == {"ups"}


def test_guard_of_primary_checks_monitored_upses_of_other_hosts(place: Place, unused_port: int) -> None:
    with serving(answers(far="OB", theirs="OL")) as fake:
        line = f"MONITOR far@127.0.0.1:{fake.port} 0 u p secondary\n"
        files = primary_at(unused_port)
        place.holds(files)
        with pytest.raises(DeployError, match=r"far \(OB\)"):
            place.deployment({**files, "upsmon.conf": files["upsmon.conf"] + line}).require_mains()


@pytest.mark.parametrize("status", ["OB DISCHRG", "OL LB", "FSD OL", "OFF"])
@pytest.mark.parametrize("where", ["old", "new"])
def test_guard_of_primary_refuses_on_battery(place: Place, unused_port: int, where: str, status: str) -> None:
    with serving(answers(spare="OL", ups=status)) as fake:
        ports = (fake.port, unused_port) if where == "old" else (unused_port, fake.port)
        place.holds(primary_at(ports[0]))
        with pytest.raises(DeployError) as caught:
            place.deployment(primary_at(ports[1])).require_mains()
    assert f"upsd at 127.0.0.1:{fake.port} reports ups ({status}): not plainly on mains" in str(caught.value)
    assert "spare" not in str(caught.value)


@pytest.mark.parametrize("status", ["OL", "OL CHRG", "ERR DATA-STALE", "ERR DRIVER-NOT-CONNECTED"])
def test_guard_accepts_mains(place: Place, status: str) -> None:
    """A UPS without data does not stop the run, which may be what repairs it."""
    with serving(answers(ups=status)) as fake:
        place.holds(primary_at(fake.port))
        place.deployment(primary_at(fake.port)).require_mains()
        assert fake.looks == 2  # as this host's upsd, and as the one that its upsmon monitors
        assert "LIST VAR ups" in fake.asked


def test_guard_accepts_unreachable_upsd(place: Place, unused_port: int) -> None:
    place.holds(primary_at(unused_port))
    place.deployment(primary_at(unused_port)).require_mains()


@pytest.mark.parametrize(("name", "served"), [("ups", "ups"), ("UPS", "ups"), ("ups", "Ups")])
@pytest.mark.parametrize("where", ["old", "new"])
def test_guard_of_secondary_refuses_on_battery(
    place: Place, unused_port: int, where: str, name: str, served: str
) -> None:
    with serving(answers(**{served: "OB", "spare": "OL"})) as fake:
        ports = (fake.port, unused_port) if where == "old" else (unused_port, fake.port)
        place.holds(secondary_at(ports[0], name))
        with pytest.raises(DeployError, match=rf"{served} \(OB\): not plainly on mains"):
            place.deployment(secondary_at(ports[1], name)).require_mains()


def test_guard_of_secondary_ignores_unmonitored_upses(place: Place) -> None:
    with serving(answers(ups="OL", spare="OB")) as fake:
        place.holds(secondary_at(fake.port))
        place.deployment(secondary_at(fake.port)).require_mains()
        assert "LIST UPS" in fake.asked


def test_guard_asks_every_upsd(place: Place) -> None:
    with serving(answers(ups="OL")) as well, serving(answers(spare="OB")) as busy:
        watching, also_watching = (secondary_at(fake.port, name) for fake, name in ((well, "ups"), (busy, "spare")))
        both = {**watching, "upsmon.conf": watching["upsmon.conf"] + also_watching["upsmon.conf"]}
        place.holds(both)
        with pytest.raises(DeployError, match=rf"127\.0\.0\.1:{busy.port} reports spare \(OB\)"):
            place.deployment(both).require_mains()


def test_guard_ignores_invalid_old_file(place: Place) -> None:
    place.holds(with_text("upsmon.conf", "192.0.2.1:3493", "127.0.0.1:nut", SECONDARY))
    with serving(answers(ups="OL")) as fake:
        place.deployment(secondary_at(fake.port)).require_mains()
        assert fake.looks == 1


def test_guard_protects_removal_of_primary(place: Place) -> None:
    with serving(answers(ups="OB")) as fake:
        place.holds(primary_at(fake.port))
        with pytest.raises(DeployError, match="not plainly on mains"):
            place.deployment(None).require_mains()
