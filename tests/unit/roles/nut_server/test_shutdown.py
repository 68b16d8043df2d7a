# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a primary waits for its secondaries: the unit that powers off, upsmon's settings and the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.feeds import Feeds
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.inventory import list_secondaries
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import policy as shutdown_policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.compose import compose_policy
from ansible_collections.homelab.nut.tests.unit.support import role_variables

CHECKOUT = Path(__file__).parents[4]
ROLE = CHECKOUT / "roles" / "nut_server"


def load_yaml(path: str) -> Any:
    return yaml.safe_load((ROLE / path).read_text())


def render_unit(timeout: float) -> list[str]:
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined)  # noqa: S701 - no HTML
    text = environment.from_string((ROLE / "templates/nut-shutdown.service.j2").read_text()).render(
        __nut_server_shutdown_policy={"timeout": timeout},
        __nut_server_shutdown_program=load_yaml("vars/main.yml")["__nut_server_shutdown_program"],
    )
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(("timeout", "limit"), [(30, 90), (120.0, 180), (99.5, 160)])
def test_unit_always_ends_in_a_poweroff(timeout: float, limit: int) -> None:
    """However the unit ends. The ways were found with systemd 252 and 257."""
    lines = render_unit(timeout)
    starts = [line for line in lines if line.startswith("ExecStart=")]
    assert starts == [
        "ExecStart=/usr/local/sbin/nut-shutdown gate",
        "ExecStart=/bin/systemctl start --no-block --job-mode=replace-irreversibly poweroff.target",
    ]
    for line in ("StartLimitAction=poweroff", "JobTimeoutAction=poweroff", "Restart=on-failure", "StartLimitBurst=3"):
        assert line in lines
    assert f"JobTimeoutSec={limit}s" in lines
    assert "[Install]" not in lines  # would power off at boot


def test_systemd_watches_the_process_that_starts_shutdowncmd() -> None:
    """Whatever the unit of the installed NUT says: the drop-in overrides what 2.8.5 has changed."""
    lines = (ROLE / "templates/nut-monitor.conf.j2").read_text().splitlines()
    for line in ("Type=simple", "NotifyAccess=none", "PIDFile=", "WatchdogSec=0", "Restart=on-failure"):
        assert lines.count(line) == 1, line
    # only the order with the guests depends on anything
    assert [line for line in lines if "{" in line] == ["{% if __nut_server_proxmox %}", "{% endif %}"]
    on_secondaries = role_variables.evaluate("nut_client", "__nut_client_unit_files", {})
    assert set(on_secondaries) == set(kits.SECONDARY.places)
    plain = [*lines[: lines.index("{% if __nut_server_proxmox %}")], *lines[lines.index("{% endif %}") + 1 :]]
    assert on_secondaries["nut-monitor.conf"].splitlines() == plain


def test_role_and_library_use_the_same_paths() -> None:
    variables = load_yaml("vars/main.yml")
    assert set(variables["__nut_server_shutdown_files"]) == set(kits.SHUTDOWN.places)
    assert variables["__nut_server_shutdown_program"] == f"/{kits.SHUTDOWN.program}"
    assert kits.SHUTDOWN.places["shutdown.json"].path == paths.SHUTDOWN_POLICY
    assert kits.SHUTDOWN.service in variables["__nut_server_shutdowncmd"]
    assert kits.SHUTDOWN.service in variables["__nut_server_gated"]
    assert f"/{paths.SHUTDOWN_LOG}" in (ROLE / "templates/nut-shutdown-logrotate.j2").read_text()


def test_role_defaults_are_a_valid_policy() -> None:
    defaults = load_yaml("defaults/main.yml")
    gate = load_yaml("meta/argument_specs.yml")["argument_specs"]["main"]["options"]["nut_server_gate"]["options"]
    policy = compose_policy(
        [],
        Feeds({"ups": 1}),
        3493,
        settle=gate["settle"]["default"],
        reserve=defaults["nut_server_shutdown_time"],
        reserve_minimum=defaults["nut_server_shutdown_time"] + 10,
        flag=load_yaml("vars/main.yml")["__nut_server_own_settings"]["upsmon.conf"]["POWERDOWNFLAG"],
        stages=defaults["nut_server_stages"],
    )
    read = shutdown_policy.check_policy(shutdown_policy.to_data(policy))
    assert (read.reserve, read.reserve_minimum, read.flag, read.stages) == (30, 40, "/run/nut-killpower", ())


NODES = list_secondaries(
    {"pve": ["pve1"], "truenas": ["nas"], "ups_clients": ["pve2"]},
    {
        "pve1": {"ansible_host": "192.0.2.1"},
        "nas": {"ansible_host": "192.0.2.5", "nut_client_shutdown_time": 60},
        "pve2": {"ansible_host": "192.0.2.2", "nut_client_shutdown_time": 90, "nut_client_shutdown_limit": 300},
    },
)


def render_policy(gate: dict[str, Any], cluster_nodes: list[str]) -> shutdown_policy.ShutdownPolicy:
    """Return the policy in the shutdown.json that Ansible renders."""
    variables = {
        "inventory_hostname": "pve1",
        "nut_server_devices": [{"name": "ups"}],
        "nut_server_gate": gate,
        "__nut_server_clients": NODES,
        "__nut_server_plan": {"plan": {"cluster_nodes": cluster_nodes, "needed": {"reserve": 77}, "runtime_low": 300}},
    }
    text = role_variables.evaluate("nut_server", "__nut_server_shutdown_files['shutdown.json']", variables)
    return shutdown_policy.read_policy(text)


@pytest.mark.parametrize(
    ("gate", "nodes", "awaited", "timeout", "cluster"),
    [
        ({}, ["pve2"], ["nas", "pve2"], 330, ""),
        ({"cluster": "together"}, ["pve2"], ["nas"], 120, "together"),
        ({"cluster": "together"}, [], ["nas", "pve2"], 330, "together"),
        ({"cluster": "together", "timeout": 200}, ["pve2"], ["nas"], 200, "together"),
        ({"cluster": "disarm"}, ["pve2"], ["nas", "pve2"], 330, "disarm"),
        ({"cluster": ""}, ["pve2"], ["nas", "pve2"], 330, ""),
    ],
)
def test_rendered_policy_has_the_chosen_way_of_a_cluster(
    gate: dict[str, Any], nodes: list[str], awaited: list[str], timeout: float, cluster: str
) -> None:
    policy = render_policy(gate, nodes)
    assert [machine.name for machine in policy.machines] == awaited
    assert (policy.timeout, policy.cluster, policy.reserve, policy.runtime_low) == (timeout, cluster, 77, 300)


@pytest.mark.parametrize(
    ("given", "after", "holds"),
    [
        ({}, shutdown_policy.ReturnPolicy(), False),
        ({"limit": 600}, shutdown_policy.ReturnPolicy(limit=600), False),
        ({"charge": 30, "charge_limit": 7200}, shutdown_policy.ReturnPolicy(1800, 30, 7200), True),
    ],
)
def test_rendered_files_say_what_is_done_after_an_outage(
    given: dict[str, Any], after: shutdown_policy.ReturnPolicy, holds: bool
) -> None:
    variables = {
        "inventory_hostname": "pve1",
        "nut_server_devices": [{"name": "ups"}],
        "nut_server_return": given,
        "__nut_server_clients": NODES,
        "__nut_server_plan": {},
    }
    wanted = "[__nut_server_shutdown_policy, __nut_server_shutdown_files['pve-guests.conf'], __nut_server_return_limit]"
    policy, drop_in, limit = role_variables.evaluate("nut_server", wanted, variables)
    assert shutdown_policy.check_policy(policy).after == after
    assert ("ExecStartPre=-/usr/local/sbin/nut-shutdown hold" in drop_in) == holds
    assert holds or not drop_in
    # the live drill waits as long
    assert limit == after.limit


@pytest.mark.parametrize(("given", "seconds"), [("LOWBATT", ""), (45, "45"), ("45", "45"), ("45 s", "")])
def test_truenas_shuts_down_after_seconds_or_when_the_battery_is_low(given: object, seconds: str) -> None:
    variables = {"nut_client_truenas_shutdown": given}
    assert role_variables.evaluate("nut_client", "__nut_client_truenas_seconds", variables) == seconds
