# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Deployments of NUT's files: what is checked, written and restarted. For other aspects, see test_deployment_*.py."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import enumerator
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import actions
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import deployment as deploy_deployment
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.deployment import DeployError, Deployment
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.verify import VerifyResult
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import make_answers, serve_answers
from ansible_collections.homelab.nut.tests.unit.support.nut_host import (
    FAILED,
    OFF,
    PRIMARY,
    RELOAD_SERVER,
    RESTART_MONITOR,
    RESTART_SERVER,
    SECONDARY,
    SPARE,
    SPARE_SECTION,
    UPS,
    Place,
    describe_actions,
    healthy_units,
    primary_at,
    with_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "not none"),
        ({"nut.conf": ""}, "not nut.conf"),
        ({**PRIMARY, "hosts.conf": ""}, "hosts.conf"),
        ({name: PRIMARY[name] for name in PRIMARY if name != "nut.conf"}, "not ups.conf, upsd.conf"),
    ],
)
def test_incomplete_set_of_files_is_refused(place: Place, files: Mapping[str, str], said: str) -> None:
    with pytest.raises(DeployError, match=said):
        place.make_deployment(files)


def test_first_deployment_writes_files_and_starts_units(place: Place) -> None:
    place.write_files({"nut.conf": "MODE=none\n", "ups.conf": "maxretry = 3\n"})
    place.systemd.shipped = "".join(
        f" {path} {hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}\n"
        for path in place.folder.iterdir()
    )
    place.systemd.found = {
        **healthy_units(server=FAILED, monitor=FAILED, watcher=Unit("active", "enabled", 0)),
        UPS: ABSENT,
    }
    deployment = place.make_deployment(PRIMARY)
    decided = deployment.plan_change()
    written: list[str] = []
    place.systemd.enumerator = lambda: written.extend(sorted(place.read_texts()))
    deployment.apply_change(decided)
    assert {name: place.read_texts()[name] for name in PRIMARY} == PRIMARY
    assert deployment.files_written == list(actions.PRIMARY_FILES)
    assert written == sorted(PRIMARY)  # all files were written before the enumerator ran
    assert place.systemd.told == [
        f"disable --now {systemd.WATCHER}",
        f"reset-failed {systemd.ENUMERATOR}",
        f"start {systemd.ENUMERATOR}",
        f"reset-failed {systemd.SERVER}",
        f"restart {systemd.SERVER}",
        f"reset-failed {systemd.MONITOR}",
        f"restart {systemd.MONITOR}",
    ]
    assert describe_actions(deployment.actions_done) == [
        *describe_actions(decided.before),
        *describe_actions(decided.after),
    ]
    assert not list(place.room.iterdir())


def test_planning_changes_nothing(place: Place) -> None:
    place.write_files(PRIMARY)
    deployment = place.make_deployment(with_text("upsd.conf", "15", "20"))
    deployment.plan_change().render_diff()
    assert place.read_texts() == PRIMARY
    assert place.systemd.told == []
    assert not list(place.room.iterdir())


def test_files_are_readable_only_by_root_and_nut(place: Place) -> None:
    place.write_files(PRIMARY)
    (place.folder / "upsd.users").chmod(0o644)
    umask = os.umask(0)
    try:
        deployment = place.make_deployment(with_text("upsd.users", "secret1", "secret9"))
        deployment.apply_change(deployment.plan_change())
    finally:
        os.umask(umask)
    found = (place.folder / "upsd.users").stat()
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert (found.st_uid, found.st_gid) == (os.getuid(), os.getgid())


def test_files_are_replaced_not_rewritten(place: Place) -> None:
    """A process that has the old file open can read it to the end."""
    place.write_files(PRIMARY)
    with (place.folder / "upsd.conf").open() as reader:
        deployment = place.make_deployment(with_text("upsd.conf", "15", "20"))
        deployment.apply_change(deployment.plan_change())
        assert reader.read() == PRIMARY["upsd.conf"]
    assert "MAXAGE 20" in place.read_texts()["upsd.conf"]


def test_only_changed_files_are_written(place: Place) -> None:
    place.write_files(PRIMARY)
    before = {path.name: path.stat().st_ino for path in place.folder.iterdir()}
    deployment = place.make_deployment(with_text("upsd.conf", "15", "20"))
    deployment.apply_change(deployment.plan_change())
    after = {path.name: path.stat().st_ino for path in place.folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"upsd.conf"} == set(deployment.files_written)
    assert after.keys() - before.keys() == {f"upsd.conf{deploy_deployment.KEPT}"}


def test_invalid_utf8_is_preserved(place: Place) -> None:
    """Ansible passes such bytes as surrogates. NUT reads bytes."""
    (place.folder / "upsd.conf").write_bytes(b"# B\xfcro\nMAXAGE 15\n")
    place.write_files({name: PRIMARY[name] for name in PRIMARY if name != "upsd.conf"})
    deployment = place.make_deployment({**PRIMARY, "upsd.conf": "# B\udcfcro\nMAXAGE 20\n"})
    assert deployment.old_files["upsd.conf"] == "# B\udcfcro\nMAXAGE 15\n"
    deployment.apply_change(deployment.plan_change())
    assert (place.folder / "upsd.conf").read_bytes() == b"# B\xfcro\nMAXAGE 20\n"


def edited(place: Place) -> Deployment:
    place.write_files(PRIMARY)
    return place.make_deployment(with_text("ups.conf", '"auto"\n', '"auto"\n    ignorelb\n'))


def test_driver_is_stopped_before_enumerator_runs(place: Place) -> None:
    """The enumerator of 2.8.1 would tell a running driver to reload, which applies only half of the change."""
    deployment = edited(place)
    deployment.apply_change(deployment.plan_change())
    assert place.systemd.told == [
        f"stop {UPS}",
        f"reset-failed {systemd.ENUMERATOR}",
        f"start {systemd.ENUMERATOR}",
        f"reset-failed {UPS}",
        f"start {UPS}",
        f"reload {systemd.SERVER}",
    ]


@pytest.mark.parametrize(("kept", "stale"), [("right", []), ("0123", ["ups"]), ("", [])])
def test_stale_checksum_stops_driver(place: Place, kept: str, stale: list[str]) -> None:
    """The enumerator keeps a checksum of each section beside the unit."""
    digest = enumerator.section_checksum(PRIMARY["ups.conf"], "ups")
    folder = place.boot.parent / f"{UPS}.d"
    folder.mkdir()
    if kept:
        sums = digest if kept == "right" else kept
        text = f"[Service]\nEnvironment='SECTION_CHECKSUM={sums}'\n"
        (folder / "nut-driver-enumerator-generated-checksum.conf").write_text(text)
    place.write_files(PRIMARY)
    new = {**PRIMARY, "ups.conf": PRIMARY["ups.conf"] + SPARE_SECTION}
    decided = place.make_deployment(new).plan_change()
    assert [step for step in describe_actions(decided.after) if step.startswith("stop")] == [
        f"stop {systemd.driver_unit(name)}" for name in stale
    ]


def test_primary_of_somebody_else_does_not_become_secondary(place: Place) -> None:
    """upsd and the drivers would keep running without a client."""
    place.write_files(PRIMARY)
    with pytest.raises(DeployError, match=r"ups\.conf declares a UPS, and was not written by this collection"):
        place.make_deployment(SECONDARY).plan_change()
    place.write_files({"ups.conf": "# none\n"})
    assert place.make_deployment(SECONDARY).plan_change()


def test_ups_lost_during_run_is_broken_not_absent(place: Place) -> None:
    with serve_answers(make_answers(ups="OL")) as fake:
        place.write_files(primary_at(fake.port))
        deployment = place.make_deployment(primary_at(fake.port))
        deployment.require_mains()
        fake.answers.update(make_answers(ups="ERR DATA-STALE"))
        verdict = deployment.wait_until_serving(0)
        assert [trouble.unit for trouble in verdict.broken] == [UPS]
        assert verdict.absent == ()
        # upsd never served this UPS: it may well be unplugged
        assert place.make_deployment(primary_at(fake.port)).wait_until_serving(0).broken == ()


def test_carriage_returns_converge(place: Place) -> None:
    new = with_text("upsmon.conf", "MINSUPPLIES 1\n", "MINSUPPLIES 1\r\n")
    deployment = place.make_deployment(new)
    deployment.apply_change(deployment.plan_change())
    assert not place.make_deployment(new).plan_change()


def test_systemd_error_is_raised(place: Place) -> None:
    deployment = place.make_deployment(PRIMARY, runner=lambda _command: (1, "Failed to connect to bus\n"))
    with pytest.raises(systemd.UnitError, match="Failed to connect to bus"):
        deployment.plan_change()


def test_diff_hides_secrets_and_comments(place: Place) -> None:
    place.write_files({**PRIMARY, "upsd.users": "# as shipped\n" + PRIMARY["upsd.users"]})
    new = with_text("upsmon.conf", "FINALDELAY 5", "FINALDELAY 65", with_text("upsd.users", "secret1", "geheim9"))
    deployment = place.make_deployment(new)
    shown = deployment.plan_change().render_diff()
    assert "secret1" not in shown
    assert "geheim9" not in shown
    assert "as shipped" not in shown
    assert f"{place.folder}/upsd.users: only a secret or a comment changes\n" in shown
    assert "-FINALDELAY 5\n+FINALDELAY 65\n" in shown
    assert shown.endswith(f"{RELOAD_SERVER}: upsd.users changed\n{RESTART_MONITOR}: upsmon.conf changed\n")


def test_inconsistent_files_are_refused(place: Place) -> None:
    with pytest.raises(DeployError, match=r"the old one was kept.*\n.*the password differs from that of .monitor."):
        place.make_deployment(with_text("upsd.users", "secret1", "secret9")).check_files()


def test_files_refused_by_installed_nut_are_refused(place: Place) -> None:
    asked: list[str] = []

    def nut(command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "systemctl":
            return place.systemd(command)
        asked.append(command[-1])
        if len(command) == 2:
            return 0, "Network UPS Tools upsmon 2.8.1\n"
        return 0, "Fatal error: 'x' is not a valid flag for this driver.\n"

    deployment = place.make_deployment(PRIMARY, runner=nut, finder=lambda name: place.room / name)
    deployment.plan_change()
    with pytest.raises(DeployError, match=r"nothing was restarted:\nups\.conf, .ups.: Fatal error: 'x'"):
        deployment.check_files()
    assert asked[0] == "-V"
    assert not list(place.room.iterdir())


def test_consistent_files_are_accepted(place: Place) -> None:
    place.make_deployment(PRIMARY).check_files()
    place.make_deployment(SECONDARY).check_files()


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o666])
def test_world_readable_file_is_corrected(place: Place, mode: int) -> None:
    """The text is right, so nothing else would correct the mode, and upsd might fail at the next start."""
    place.write_files(PRIMARY)
    (place.folder / "upsd.users").chmod(mode)
    deployment = place.make_deployment(PRIMARY)
    decided = deployment.plan_change()
    assert decided.written_files == ("upsd.users",)
    assert "upsd.users: mode or owner is corrected" in decided.render_diff()
    deployment.apply_change(decided)
    assert (place.folder / "upsd.users").stat().st_mode & 0o777 == 0o640
    assert not place.make_deployment(PRIMARY).plan_change()


@pytest.mark.parametrize("name", [systemd.SERVER, systemd.MONITOR, systemd.driver_unit("ups")])
def test_masked_unit_stops_run_before_any_change(place: Place, name: str) -> None:
    place.systemd.found[name] = Unit("inactive", "masked", 0)
    with pytest.raises(DeployError, match=f"Run: systemctl unmask {name}"):
        place.make_deployment(PRIMARY).plan_change()
    assert place.read_texts() == {}


def test_foreign_file_is_backed_up(place: Place) -> None:
    """Files of the package and files that the roles wrote are not backed up."""
    ours, by_hand = "# Written by Ansible (homelab.nut.nut_server).\nMAXAGE 15\n", "[ups]\n  driver=usbhid-ups\n"
    place.write_files({**PRIMARY, "upsd.conf": ours, "ups.conf": by_hand, "upsd.users": "# as shipped\n"})
    sums = hashlib.md5(b"# as shipped\n", usedforsecurity=False).hexdigest()
    place.systemd.shipped = f" {place.folder}/upsd.users {sums}\n {place.folder}/ups.conf {sums}\n"
    deployment = place.make_deployment(PRIMARY)
    deployment.apply_change(deployment.plan_change())
    copy = place.folder / f"ups.conf{deploy_deployment.KEPT}"
    assert deployment.backups == [str(copy)]
    assert copy.read_text() == by_hand
    assert stat.S_IMODE(copy.stat().st_mode) == 0o640


def test_first_backup_is_never_overwritten(place: Place) -> None:
    place.write_files({**PRIMARY, f"ups.conf{deploy_deployment.KEPT}": "the first\n"})
    deployment = place.make_deployment(with_text("ups.conf", "3", "5"))
    deployment.apply_change(deployment.plan_change())
    assert place.read_texts()[f"ups.conf{deploy_deployment.KEPT}"] == "the first\n"
    assert deployment.backups == []


def test_driver_enabled_by_hand_is_disabled(place: Place) -> None:
    place.write_files(PRIMARY)
    place.systemd.found[SPARE] = Unit("active", "enabled", 77)
    for name in (UPS, SPARE):
        (place.boot / name).touch()
    decided = place.make_deployment(PRIMARY).plan_change()
    assert describe_actions(decided.after) == [f"disable --now {SPARE}"]


def test_driver_that_fails_to_start_does_not_stop_run(place: Place) -> None:
    """The driver of a missing UPS fails at once. Whether that is a failure is decided at the end."""
    place.write_files(PRIMARY)
    place.systemd.found[UPS] = FAILED
    place.systemd.refused[f"start {UPS}"] = "Job for nut-driver@ups.service failed."
    deployment = place.make_deployment(with_text("upsmon.conf", "5", "6"))
    deployment.apply_change(deployment.plan_change())
    assert describe_actions(deployment.actions_done) == [f"start {UPS}", RESTART_MONITOR]


def released(place: Place, new: Mapping[str, str], release: str) -> Deployment:
    def runner(command: Sequence[str]) -> tuple[int, str]:
        if command[-1] == "-V":
            return 0, f"Network UPS Tools upsmon {release}\n"
        return place.systemd(command)

    return place.make_deployment(new, runner=runner, finder=lambda name: Path("/nut", name))


NEWER = with_text("upsmon.conf", "FINALDELAY 5\n", "FINALDELAY 5\nOFFDURATION 60\n")


def test_directives_unknown_to_release_are_left_out(place: Place) -> None:
    deployment = released(place, NEWER, "2.8.0")
    assert "OFFDURATION" not in deployment.new_files["upsmon.conf"]
    assert "OFFDURATION" in deployment.warnings[0]
    assert deployment.release == (2, 8, 0)
    place.write_files(PRIMARY)
    assert not released(place, NEWER, "2.8.0").plan_change()  # so a second run has nothing to do


def test_directives_known_to_release_stay(place: Place) -> None:
    deployment = released(place, NEWER, "2.8.1")
    assert deployment.new_files == NEWER
    assert deployment.warnings == []


def test_without_nut_no_directive_is_left_out(place: Place) -> None:
    deployment = place.make_deployment(NEWER)
    assert deployment.new_files == NEWER
    assert deployment.release is None
    assert deployment.list_advice() == []


def test_removal_of_primary_stops_units_and_empties_files(place: Place) -> None:
    place.write_files(PRIMARY)
    (place.boot / UPS).touch()
    at_write: list[str] = []
    place.systemd.enumerator = lambda: at_write.append(place.read_texts()["ups.conf"])
    deployment = place.make_deployment(None)
    deployment.check_files()
    deployment.apply_change(deployment.plan_change())
    assert {name: place.read_texts()[name] for name in PRIMARY} == {name: actions.STUBS[name] for name in PRIMARY}
    assert at_write == [actions.STUBS["ups.conf"]]
    assert place.systemd.told[0] == f"disable --now {systemd.MONITOR}"
    place.systemd.found = dict.fromkeys(healthy_units(), OFF)
    (place.boot / UPS).unlink()
    assert not place.make_deployment(None).plan_change()


def test_removal_without_nut_changes_nothing(place: Place) -> None:
    place.systemd.found = {}
    assert not place.make_deployment(None).plan_change()
    assert place.make_deployment(None).wait_until_serving(60) == VerifyResult({})


def test_removal_names_clients_still_logged_in(place: Place) -> None:
    said = {
        **make_answers(ups="OL"),
        "LIST CLIENT ups": "BEGIN LIST CLIENT ups\nCLIENT ups 192.0.2.7\nCLIENT ups ::1\nEND LIST CLIENT ups\n",
    }
    with serve_answers(said) as fake:
        place.write_files(primary_at(fake.port))
        deployment = place.make_deployment(None)
        deployment.warn_of_risks()
    assert [warning for warning in deployment.warnings if "logged in" in warning] == [
        "still logged in to upsd, and about to lose their UPS: 192.0.2.7"
    ]


def test_exited_daemon_is_restarted_instead_of_reloaded(place: Place) -> None:
    """The daemon was killed after the plan was made."""
    place.write_files(PRIMARY)
    deployment = place.make_deployment(with_text("upsd.conf", "15", "20"))
    decided = deployment.plan_change()
    place.systemd.refused[RELOAD_SERVER] = "Job for nut-server.service failed: code=killed"
    place.systemd.found[systemd.SERVER] = FAILED
    deployment.apply_change(decided)
    assert place.systemd.told[-3:] == [RELOAD_SERVER, f"reset-failed {systemd.SERVER}", RESTART_SERVER]
    assert describe_actions(deployment.actions_done) == [RESTART_SERVER]


def test_running_daemon_is_not_restarted_after_failed_reload(place: Place) -> None:
    place.write_files(PRIMARY)
    deployment = place.make_deployment(with_text("upsd.conf", "15", "20"))
    decided = deployment.plan_change()
    place.systemd.refused[RELOAD_SERVER] = "Job timed out"
    with pytest.raises(DeployError, match="Job timed out"):
        deployment.apply_change(decided)
    assert RESTART_SERVER not in place.systemd.told


def test_invalid_utf8_is_shown_escaped(place: Place) -> None:
    """Ansible refuses a result with surrogates."""
    place.write_files(PRIMARY)
    (place.folder / "ups.conf").write_bytes(b'[ups]\n driver = usbhid-ups\n port = auto\n desc = "caf\xe9"\n')
    deployment = place.make_deployment(PRIMARY)
    deployment.plan_change().render_diff().encode("utf-8")
