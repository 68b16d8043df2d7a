# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.filter import printable
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, find_unfit, values
from ansible_collections.homelab.nut.tests.unit.support.plays import list_tasks
from hypothesis import given

CHECKOUT = Path(__file__).resolve().parents[4]
printable_lines = printable.FilterModule().filters()["printable"]


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ("a\nb\n", ["a", "b"]),
        (["a\nb", ["c", ["d"]]], ["a", "b", "c", "d"]),
        (None, []),
        ([], []),
        ("", [""]),
        (7, ["7"]),
        ("\x1b[2J\u202e", ["\\x1b[2J\\u202e"]),
        ({"\x1b": 1}, ["(1 values)"]),
    ],
)
def test_output_becomes_printable_lines(output: Any, lines: list[str]) -> None:
    assert printable_lines(output) == lines


@given(values)
def test_any_output_is_printable(output: Any) -> None:
    assert not find_unfit("".join(printable_lines(output)))
    assert not find_unfit("".join(printable_lines([output, *NASTY])))


# variables with answers of hosts, except for those that are harmless
UNTRUSTED = re.compile(
    r"\b(__nut_server_plan|__nut_server_drill|__nut_upsd|ansible_failed_result"
    r"|__nut_\w+_(deployed|checked|firewall|recorded|drilled|so_far|returned|against))\b(?!\.ok\b)"
)
SAFE_FILTERS = re.compile(r"homelab\.nut\.(printable|shutdown_times|shutdown_picture|nut_status|doctor_table)")


FILES = sorted([*CHECKOUT.glob("roles/*/tasks/*.yml"), *CHECKOUT.glob("playbooks/*.yml")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:]))
def test_tasks_filter_all_output_of_hosts(path: Path) -> None:
    """Ansible prints messages unfiltered."""
    bare = []
    for task in list_tasks(yaml.safe_load(path.read_text())):
        for name, keys in (("debug", ("msg",)), ("assert", ("fail_msg", "success_msg")), ("fail", ("msg",))):
            options = task.get(f"ansible.builtin.{name}") or {}
            for template in re.findall(r"{{.*?}}", str([options.get(key) for key in keys])):
                if UNTRUSTED.search(template) and not SAFE_FILTERS.search(template):
                    bare.append((task.get("name"), template))
            if "var" in options:
                bare.append((task.get("name"), options["var"]))
    assert bare == []
