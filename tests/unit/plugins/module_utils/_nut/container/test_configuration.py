# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NUT's files as the container writes them, on a host with a bus and a fake NUT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import consistency, ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.container import configuration
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.configuration import (
    ConfigurationError,
    compose_files,
    compose_policy,
    read_local_files,
    write_configuration,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.settings import ContainerSettings
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import make_answers, serve_answers
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import APC, HotplugMachine

SETTINGS = ContainerSettings("my-ups", 60, False, "UTC", "dummy", "0.0.0.0", 3493, "nas", "s3cret")
OWN_UPS = '[rack]\n    driver = snmp-ups\n    port = "192.0.2.1"\n'


def test_files_are_consistent_and_serve_the_ups_by_its_name() -> None:
    files = compose_files(SETTINGS, {})
    assert consistency.find_inconsistencies({**files, "ups.conf": files["ups.conf"]}) == []
    assert [*ups_conf.parse_ups_conf(files["ups.conf"]).sections] == ["my-ups"]
    assert "LISTEN" in files["upsd.conf"]
    assert "upsmon secondary" in files["upsd.users"]


def test_nobody_may_log_in_without_a_password() -> None:
    assert "[" not in compose_files(replace(SETTINGS, password=""), {})["upsd.users"]


def test_own_lines_are_added() -> None:
    local = {
        "ups.conf": f"pollinterval = 5\n{OWN_UPS}",
        "upsd.conf": "MAXAGE 30\n",
        "upsd.users": "[me]\n    password = x\n",
    }
    files = compose_files(SETTINGS, local)
    conf = ups_conf.parse_ups_conf(files["ups.conf"])
    assert [*conf.sections] == ["rack", "my-ups"]
    assert dict(conf.settings) == {"maxretry": "3", "pollinterval": "5"}
    assert files["upsd.conf"].endswith("MAXAGE 30\n")
    assert "[nas]" in files["upsd.users"]
    assert "[me]" in files["upsd.users"]


def test_own_section_of_the_same_name_and_own_listen_lines_replace_ours() -> None:
    local = {"ups.conf": OWN_UPS.replace("rack", "my-ups"), "upsd.conf": "LISTEN 127.0.0.1\n"}
    files = compose_files(SETTINGS, local)
    (section,) = ups_conf.parse_ups_conf(files["ups.conf"]).sections.values()
    assert dict(section.keys)["driver"] == "snmp-ups"
    assert files["upsd.conf"].count("LISTEN") == 1


def test_policy_has_the_environment_and_the_own_keys() -> None:
    local = {"hotplug.json": '{"patterns": ["3746:ffff"], "absent": "keep"}'}
    data = json.loads(compose_policy(replace(SETTINGS, has_debug=True), local))
    assert data == {"version": 1, "absent": "keep", "debug": True, "patterns": ["3746:ffff"]}


@pytest.mark.parametrize("text", ["{", "[]", '{"paterns": []}', '{"absent": "maybe"}'])
def test_wrong_policy_is_refused_by_the_name_of_its_file(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"local/hotplug\.json: "):
        compose_policy(SETTINGS, {"hotplug.json": text})


def test_additions_are_read_and_others_refused(tmp_path: Path) -> None:
    assert read_local_files(tmp_path) == {}
    (tmp_path / "local").mkdir()
    (tmp_path / "local/upsd.conf").write_text("MAXAGE 30")
    (tmp_path / "local/.swp").touch()
    assert read_local_files(tmp_path) == {"upsd.conf": "MAXAGE 30\n"}
    (tmp_path / "local/upsmon.conf").touch()
    with pytest.raises(ConfigurationError, match=r"upsmon\.conf can't be added"):
        read_local_files(tmp_path)


# On a host


@pytest.fixture
def machine(tmp_path: Path) -> HotplugMachine:
    with serve_answers({"LIST UPS": "BEGIN LIST UPS\nEND LIST UPS\n"}) as server:
        made = HotplugMachine(tmp_path, server)
        made.units.clear()
        for path in made.folder.iterdir():
            path.unlink()
        made.policy = {"absent": "dummy"}
        yield made


def configure(machine: HotplugMachine, local: dict[str, str] | None = None) -> tuple[str, ...]:
    """Write the configuration, with upsd on the port of the fake one."""
    machine.did.clear()
    given = replace(SETTINGS, listen="127.0.0.1", port=machine.server.port)
    return write_configuration(machine.make_host(), given, local or {})


def start_everything(machine: HotplugMachine) -> None:
    """Start what the supervisor starts."""
    machine.units["nut-server.service"] = ("active", "enabled")
    for name in machine.conf.sections:
        machine.units[f"nut-driver@{name}.service"] = ("active", "enabled")
    machine.update_upsd()


def test_first_configuration_finds_the_ups_and_starts_nothing(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    assert configure(machine) == ()
    assert machine.did == []
    assert any(line.startswith("[my-ups] is 051d:0002") and "driver usbhid-ups" in line for line in machine.said)
    (section,) = machine.conf.sections.values()
    assert (section.name, dict(section.keys)["driver"]) == ("my-ups", "usbhid-ups")
    assert "driver = auto" in (machine.folder / "ups.conf.wanted").read_text()
    assert (machine.folder / "upsd.users").stat().st_mode & 0o777 == 0o640


def test_second_configuration_changes_nothing_that_runs(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    configure(machine)
    start_everything(machine)
    before = machine.path.read_text()
    assert configure(machine) == ()
    assert machine.path.read_text() == before


def test_only_what_changed_is_restarted(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    configure(machine)
    start_everything(machine)
    done = configure(machine, {"upsd.users": "[me]\n    password = x\n"})
    assert machine.did == ["reload nut-server.service"]
    assert len(done) == 1
    assert "[me]" in (machine.folder / "upsd.users").read_text()


def test_nothing_is_changed_on_battery(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    configure(machine)
    start_everything(machine)
    machine.server.answers.update(make_answers(**{"my-ups": "OB"}))
    before = (machine.folder / "upsd.users").read_text()
    machine.status["my-ups"] = "OB"
    machine.update_upsd()
    with pytest.raises(ConfigurationError, match=r"waiting until the mains are back, because of my-ups \(OB\)"):
        configure(machine, {"upsd.users": "[me]\n    password = x\n"})
    assert machine.did == []
    assert (machine.folder / "upsd.users").read_text() == before


def test_wrong_line_is_refused_before_anything_is_written(machine: HotplugMachine) -> None:
    with pytest.raises(ConfigurationError, match=r"upsd\.conf"):
        configure(machine, {"upsd.conf": "MAXAGE soon\n"})
    assert not machine.path.exists()


def test_file_of_the_user_stays(machine: HotplugMachine) -> None:
    machine.bus.plug_in("1-1", APC)
    own = {"upsd.conf": "LISTEN 127.0.0.1 4000\n", "ups.conf": "[mine]\n    driver = usbhid-ups\n    port = auto\n"}
    for name, text in own.items():
        (machine.folder / name).write_text(text)
    configure(machine)
    assert {name: (machine.folder / name).read_text() for name in own} == own
    assert (machine.folder / "ups.conf.wanted").read_text() == configuration.HEADER
    assert "MODE=netserver" in (machine.folder / "nut.conf").read_text()
