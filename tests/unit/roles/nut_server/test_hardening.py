# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sandboxes of NUT's units permit everything that the inventory needs. Rendered by a real play."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import sandbox
from ansible_collections.homelab.nut.tests.unit.support.plays import make_role, run_roles

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[4]
ROLE = CHECKOUT / "roles" / "nut_server"
SERVER, DRIVER, MONITOR = "nut-server-hardening.conf", "nut-driver-hardening.conf", "nut-monitor-hardening.conf"
UPSD, FLAG = "nut-server.conf", "tmpfiles"

HOSTS: dict[str, dict[str, Any]] = {
    "bare": {},
    "off": {"nut_server_hardening": "no"},
    "state": {
        "nut_server_upsd_conf": {"STATEPATH": "/run/ups"},
        "nut_server_ups_conf": {"statepath": "/srv/ups"},
        "nut_server_extra_lines": {"nut.conf": "NUT_ALTPIDPATH=/run/pids"},
    },
    "extra_state": {"nut_server_extra_lines": {"upsd.conf": 'statepath "/run/ups-2"'}},
    "home": {"nut_server_upsd_conf": {"CERTPATH": "/root/certificates"}},
    "home_file": {"nut_server_devices": [{"name": "ups", "driver": "dummy-ups", "port": "/home/me/ups.dev"}]},
    "comment": {"nut_server_extra_lines": {"ups.conf": "# not /home/me, nor\n# user = root"}},
    "temporary": {"nut_server_devices": [{"name": "ups", "driver": "dummy-ups", "port": "/tmp/ups.dev"}]},  # noqa: S108
    "user": {"nut_server_ups_conf": {"user": "root"}},
    "device_user": {"nut_server_devices": [{"name": "ups", "driver": "nut-ipmipsu", "port": "id1", "user": "root"}]},
    "extra_user": {"nut_server_extra_lines": {"ups.conf": "user=bob"}},
    "chroot": {"nut_server_extra_lines": {"ups.conf": "chroot = /srv/nut"}},
    "low_port": {"nut_server_port": 1023},
    "low_extra": {"nut_server_extra_lines": {"upsd.conf": "LISTEN 127.0.0.1 80"}},
    "high_port": {"nut_server_port": 1024, "nut_server_listen": [{"address": "10.0.0.1"}]},
    "no_flag": {"nut_server_upsmon_conf": {"POWERDOWNFLAG": None}},
    "no_gate": {"nut_server_gate": {"enabled": False}},
    "notify": {"nut_server_upsmon_conf": {"NOTIFYCMD": "/usr/local/bin/tell"}},
    "upssched": {"nut_server_upssched_rules": [{"notifytype": "ONBATT", "command": "EXECUTE", "name": "x"}]},
    "shutdown": {"nut_server_upsmon_conf": {"SHUTDOWNCMD": "/root/bye; /bin/systemctl start nut-shutdown.service"}},
    "extra": {"nut_server_extra_lines": {"upsmon.conf": "NOTIFYCMD /usr/local/bin/tell"}},
}
TASKS = """\
- ansible.builtin.set_fact:
    seen: "{{ dict(names | zip(names | map('extract', __nut_server_shutdown_files))) }}"
  vars:
    names: NAMES
"""


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Return the drop-ins of each host."""
    root = tmp_path_factory.mktemp("site")
    make_role(root, "nut_server", TASKS.replace("NAMES", str([SERVER, DRIVER, MONITOR, UPSD, FLAG])))
    return run_roles(root, {"pve": "nut_server"}, {"pve": {"hosts": HOSTS}})


Rendered = dict[str, dict[str, str]]


def test_hardening_can_be_turned_off(rendered: Rendered) -> None:
    assert [rendered["off"][name] for name in (SERVER, DRIVER, MONITOR)] == ["", "", ""]


@pytest.mark.parametrize("host", [name for name in HOSTS if name != "off"])
def test_hardening_files_are_valid_drop_ins(rendered: Rendered, host: str) -> None:
    for text in (rendered[host][name] for name in (SERVER, DRIVER, MONITOR)):
        assert text.startswith("# Written by Ansible")
        assert "nut_server_hardening: false" in text
        # only comments, one section, and settings that the host can try one by one
        other = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert other == ["[Service]", *sandbox.list_settings(text)]
        # no setting that changes what a unit does
        assert not re.search(r"(?m)^(Exec|Restart|Type|Environment|Timeout|Root|Bind|Temporary|PrivateUsers)", text)


@pytest.mark.parametrize(
    ("host", "name", "line"),
    [
        ("bare", SERVER, "User=nut"),
        ("bare", SERVER, "CapabilityBoundingSet="),
        ("bare", SERVER, "ReadWritePaths=-/run/nut"),
        ("bare", SERVER, "ProtectHome=yes"),
        ("bare", SERVER, "InaccessiblePaths=-/tmp -/var/tmp"),
        ("bare", DRIVER, "User=nut"),
        ("bare", DRIVER, "DeviceAllow=char-usb_device rw"),
        ("bare", MONITOR, "NoNewPrivileges=yes"),
        ("state", SERVER, "ReadWritePaths=-/run/nut -/run/pids -/run/ups -/srv/ups"),
        ("state", DRIVER, "ReadWritePaths=-/run/nut -/run/pids -/run/ups -/srv/ups"),
        ("extra_state", SERVER, "ReadWritePaths=-/run/nut -/run/ups-2"),
        ("home", SERVER, "ProtectHome=read-only"),
        ("home_file", DRIVER, "ProtectHome=read-only"),
        ("comment", DRIVER, "ProtectHome=yes"),
        ("comment", DRIVER, "User=nut"),
        ("low_port", SERVER, "AmbientCapabilities=CAP_NET_BIND_SERVICE"),
        ("low_extra", SERVER, "AmbientCapabilities=CAP_NET_BIND_SERVICE"),
        ("high_port", SERVER, "CapabilityBoundingSet="),
        ("no_gate", MONITOR, "NoNewPrivileges=yes"),
    ],
)
def test_unit_keeps_necessary_permissions(rendered: Rendered, host: str, name: str, line: str) -> None:
    assert line in sandbox.list_settings(rendered[host][name])


@pytest.mark.parametrize("host", ["user", "device_user", "extra_user", "chroot"])
def test_drivers_with_another_user_start_as_root(rendered: Rendered, host: str) -> None:
    lines = sandbox.list_settings(rendered[host][DRIVER])
    assert "User=nut" not in lines
    assert any(line.startswith("CapabilityBoundingSet=CAP_SETUID CAP_SETGID") for line in lines)
    assert lines.index("SystemCallFilter=@setuid @chown chroot") > lines.index(
        "SystemCallFilter=~@privileged @resources"
    )


def test_dummy_file_in_tmp_is_readable(rendered: Rendered) -> None:
    assert "InaccessiblePaths" not in "".join(sandbox.list_settings(rendered["temporary"][DRIVER]))


@pytest.mark.parametrize("host", ["notify", "upssched", "shutdown", "extra"])
def test_user_commands_inherit_no_sandbox(rendered: Rendered, host: str) -> None:
    assert sandbox.list_settings(rendered[host][MONITOR]) == []


@pytest.mark.parametrize("host", ["bare", "no_gate"])
def test_upsmon_needs_no_namespace(rendered: Rendered, host: str) -> None:
    """On hosts without namespaces upsmon would not start, and nothing would shut down."""
    names = {line.partition("=")[0] for line in sandbox.list_settings(rendered[host][MONITOR])}
    assert not {name for name in names if name.startswith(("Protect", "Private", "ReadWrite", "Inaccessible"))}
    assert "DevicePolicy" not in names


@pytest.mark.parametrize("host", HOSTS)
def test_upsd_does_not_wait_for_the_network(rendered: Rendered, host: str) -> None:
    """After an outage the switch may be dead, but the host must still monitor its own UPS."""
    assert "network" not in "".join(sandbox.list_settings(rendered[host][UPSD]))


def test_powerdownflag_has_a_spare(rendered: Rendered) -> None:
    assert '"/run/nut-killpower.spare"' in rendered["bare"][FLAG]
    assert rendered["no_flag"][FLAG] == ""


@pytest.mark.parametrize(("host", "tried"), [("high_port", True), ("low_extra", False)])
def test_upsd_is_restarted_without_limit_if_an_address_may_be_missing(
    rendered: Rendered, host: str, tried: bool
) -> None:
    assert ("StartLimitIntervalSec=0" in sandbox.list_settings(rendered[host][UPSD])) is tried


@pytest.mark.parametrize("name", ["nut-shutdown.service", "nut-stages.service"])
def test_units_that_power_off_need_no_namespace(name: str) -> None:
    text = (ROLE / "templates" / f"{name}.j2").read_text()
    assert not re.search(
        r"(?m)^(Protect|Private|ReadWrite|ReadOnly|Inaccessible|Root|Bind|Temporary|Dynamic|User)", text
    )


def test_guests_inherit_no_sandbox_from_the_stages() -> None:
    text = (ROLE / "templates/nut-stages.service.j2").read_text()
    names = {line.partition("=")[0] for line in sandbox.list_settings(text)}
    assert not {name for name in names if re.match("Restrict|SystemCall|Capab|Lock|Memory|NoNew|UMask|OOM|Limit", name)}
