# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.plugin_utils import variables

UNKNOWN = "is not a variable of this collection."


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        (
            {"nut_client_shutdwon_time": 45},
            f"nut_client_shutdwon_time {UNKNOWN} Did you mean nut_client_shutdown_time?",
        ),
        ({"nut_server_portt": 1}, f"nut_server_portt {UNKNOWN} Did you mean nut_server_port?"),
        (
            {"nut_hotplug_xyz": 1},
            f"nut_hotplug_xyz {UNKNOWN} `ansible-doc -t role homelab.nut.nut_hotplug` lists them.",
        ),
        (
            {"nut_server_users": [{"name": "me", "actons": ["SET"]}]},
            "nut_server_users[0] has no key actons. Did you mean actions?",
        ),
        (
            {"nut_server_offduration": 30},
            f"nut_server_offduration {UNKNOWN} Did you mean nut_server_upsmon_conf.OFFDURATION?",
        ),
        ({"nut_server_user": "me"}, f"nut_server_user {UNKNOWN} Did you mean nut_server_upsmon_user?"),
        ({"nut_server_upsmon": {}}, f"nut_server_upsmon {UNKNOWN} Did you mean nut_server_upsmon_conf?"),
        ({"nut_server_at": []}, f"nut_server_at {UNKNOWN} Did you mean nut_server_upssched_rules?"),
        (
            {"nut_server_upsd_debug_min": 1},
            f"nut_server_upsd_debug_min {UNKNOWN} Did you mean nut_server_upsd_conf.DEBUG_MIN?",
        ),
        (
            {"nut_client_pollfrq": 3},
            f"nut_client_pollfrq {UNKNOWN} Did you mean nut_client_upsmon_conf.POLLFREQ?",
        ),
        ({"nut_client_guest": {"xyz": 1}}, "nut_client_guest has no key xyz. Its keys are kind, id."),
    ],
)
def test_unknown_name_is_reported_with_the_closest_name(own: Mapping[str, Any], problem: str) -> None:
    assert variables.find_problems({"nas": own}, {}) == [f"nas: {problem}"]


@pytest.mark.parametrize("variable", ["nut_client_extra_monitors", "nut_server_extra_monitors"])
@pytest.mark.parametrize(
    ("login", "problem"),
    [
        ({"username": "watcher", "password": "p#w d"}, "the password contains a space and a '#'"),
        ({"username": "watcher", "password": "a\\b"}, "the password contains a backslash"),
        ({"username": "watcher", "password": ""}, "the password is empty"),
        ({"username": "watcher", "password": "päss"}, "the password contains a character outside ASCII"),
        ({"username": "my user", "password": "secret"}, "the user name contains a space"),
    ],
)
def test_login_that_nut_cannot_send_is_reported(variable: str, login: Mapping[str, Any], problem: str) -> None:
    """Before anything is changed, not when the host has waited in vain for its login."""
    (found,) = variables.find_problems({"media": {variable: [{"system": "rack@192.0.2.50", **login}]}}, {})
    assert found.startswith(f"media: {variable}[0] (rack@192.0.2.50): {problem}")
    assert "p#w" not in found


def test_login_that_is_not_known_yet_is_no_problem() -> None:
    monitors = [{"system": "rack@192.0.2.50", "username": "watcher"}, {"username": "watcher", "password": "secret1"}]
    assert variables.find_problems({"media": {"nut_client_extra_monitors": monitors}}, {}) == []


def test_known_and_foreign_names_are_no_problem() -> None:
    own = dict.fromkeys(variables.read_specs())
    assert variables.find_problems({"pve": {**own, "nutshell": 1, "__nut_server_plan": {}, "nut_servers": 1}}, {}) == []


def test_hosts_that_share_a_mistake_share_a_message() -> None:
    hostvars = {f"nas{number}": {"nut_client_portt": 1} for number in range(5)}
    problems = variables.find_problems(hostvars, {})
    assert len(problems) == 1
    assert problems[0].startswith("nas0, nas1, nas2 and 2 more: nut_client_portt ")


def test_names_of_the_play_are_checked() -> None:
    problems = variables.find_problems({"pve": {}}, {"pve": ["nut_server_stagess", "other"]})
    assert problems == [f"pve: nut_server_stagess {UNKNOWN} Did you mean nut_server_stages?"]


def test_template_that_fails_hides_no_other_problem() -> None:
    class Templates(Mapping[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __iter__(self) -> Iterator[str]:
            return iter(("nut_server_devices", "nut_server_listenn"))

        def __len__(self) -> int:
            return 2

    assert [problem.split()[1] for problem in variables.find_problems({"pve": Templates()}, {})] == [
        "nut_server_listenn"
    ]


def test_every_default_is_documented() -> None:
    """The check accepts only documented variables, so a default without documentation would stop every run."""
    defaults = {
        name
        for path in variables.ROLES.glob("*/defaults/main.yml")
        for name in variables.yaml_load(path.read_text())
        if not name.startswith("__")
    }
    assert defaults - set(variables.read_specs()) == set()
