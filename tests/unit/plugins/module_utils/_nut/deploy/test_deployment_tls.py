# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import nss
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import DeployError
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    PRIMARY,
    RESTART_MONITOR,
    RESTART_SERVER,
    Place,
    describe_actions,
)

if TYPE_CHECKING:
    pass


def test_foreign_directory_is_not_removed(place: Place, databases: list[Path]) -> None:
    mine = place.folder / "tls-mine"
    mine.mkdir()
    place.write_files(PRIMARY)
    deployment = place.make_deployment(WITH_TLS, tls=TLS)
    deployment.apply_change(deployment.plan_change())
    assert mine.is_dir()
    assert databases


TLS = nss.TlsMaterial("ca", "certificate", "key")
WITH_TLS = {**PRIMARY, "upsd.conf": PRIMARY["upsd.conf"] + f"CERTPATH {nss.database_path(TLS)}\n"}


@pytest.fixture
def databases(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A stand-in for certutil."""
    made: list[Path] = []

    def make(folder: Path, *_arguments: Any, **_options: Any) -> None:
        folder.mkdir()
        made.append(folder)

    monkeypatch.setattr(nss, "make_database", make)
    monkeypatch.setattr(nss, "is_sound", lambda folder, _owner: folder.is_dir())
    return made


def test_certificates_are_written_before_files(place: Place, databases: list[Path]) -> None:
    place.write_files(PRIMARY)
    old = place.folder / f"{nss.PREFIX}0123456789ab"
    old.mkdir()
    deployment = place.make_deployment(WITH_TLS, tls=TLS)
    decided = deployment.plan_change()
    assert RESTART_SERVER in describe_actions(decided.after)
    refuse = {RESTART_SERVER: "no"}
    place.systemd.refused = refuse
    with pytest.raises(DeployError):
        deployment.apply_change(decided)
    assert databases == [nss.database_path(TLS, place.folder)]
    assert old.is_dir()  # upsd may still have it open
    refuse.clear()
    again = place.make_deployment(WITH_TLS, tls=TLS)
    again.apply_change(again.plan_change())
    again.remove_old_certificates()
    assert not old.is_dir()
    assert databases[0].is_dir()
    assert not place.make_deployment(WITH_TLS, tls=TLS).plan_change()


def test_lost_database_is_recreated(place: Place, databases: list[Path]) -> None:
    place.write_files(WITH_TLS)
    deployment = place.make_deployment(WITH_TLS, tls=TLS)
    assert describe_actions(deployment.plan_change().after) == [RESTART_SERVER, RESTART_MONITOR]
    deployment.apply_change(deployment.plan_change())
    assert len(databases) == 1


def test_unusable_certificates_change_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_arguments: Any, **_options: Any) -> None:
        raise nss.NssError("the key does not fit the certificate")

    monkeypatch.setattr(nss, "make_database", make)
    place.write_files(PRIMARY)
    deployment = place.make_deployment(WITH_TLS, tls=TLS)
    with pytest.raises(DeployError, match=r"the key does not fit the certificate\. Nothing was changed"):
        deployment.apply_change(deployment.plan_change())
    assert place.read_texts() == PRIMARY
    assert place.systemd.told == []
