# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    Guest,
    Host,
    Policy,
    PolicyError,
    Ups,
)
from hypothesis import given
from hypothesis import strategies as st

WHOLE: dict[str, Any] = {
    "version": 1,
    "upses": [{"name": "ups", "host": "localhost", "port": 3493}],
    "hosts": [
        {
            "name": "truenas",
            "addresses": ["192.0.2.20", "fd00::20", "nas.example"],
            "ports": [22, 80],
            "guest": None,
            "expected": 60,
            "limit": 120,
        },
        {"name": "vm", "guest": {"kind": "pct", "id": 101}, "expected": 10, "limit": 10.5},
    ],
    "settle": 3.0,
    "reserve": 60,
    "least": 30,
    "longest": 600,
    "flag": "/run/nut-killpower",
    "stages": [{"name": "first"}],
}


def test_a_policy_is_read() -> None:
    assert policy.read_policy(json.dumps(WHOLE).encode()) == Policy(
        (Ups("ups", "localhost", 3493),),
        (
            Host("truenas", ("192.0.2.20", "fd00::20", "nas.example"), (22, 80), None, 60.0, 120.0),
            Host("vm", (), (), Guest("pct", 101), 10.0, 10.5),
        ),
        settle=3.0,
        reserve=60.0,
        longest=600.0,
        stages=({"name": "first"},),
        least=30.0,
        flag="/run/nut-killpower",
    )


def test_what_may_be_left_out_of_a_policy() -> None:
    small = {"version": 1, "upses": [{"name": "ups"}], "hosts": [], "reserve": 0, "longest": 1}
    assert policy.check_policy(small) == Policy((Ups("ups", "localhost", 3493),), (), 3.0, 0.0, 1.0)


def _changed(*path: str | int, to: object) -> dict[str, Any]:
    data: Any = json.loads(json.dumps(WHOLE))
    at = data
    for key in path[:-1]:
        at = at[key]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return dict(data)


@pytest.mark.parametrize(
    ("path", "to", "words"),
    [
        (["version"], 2, "$.version: must be 1"),
        (["version"], True, "$.version: must be 1"),
        (["version"], ..., "$: lacks version"),
        (["hosts"], ..., "$: lacks hosts"),
        (["upses"], ..., "$: lacks upses"),
        (["reserve"], ..., "$: lacks reserve"),
        (["longest"], ..., "$: lacks longest"),
        (["surprise"], 1, "$: has no member 'surprise'"),
        (["hosts"], {}, "$.hosts: must be a list"),
        (["hosts"], [{}] * 101, "$.hosts: has more than 100 entries"),
        (["hosts", 0], 7, "$.hosts[0]: must be an object"),
        (["hosts", 0, "name"], ..., "$.hosts[0]: lacks name"),
        (["hosts", 0, "name"], "a b", "$.hosts[0].name: must be a host's name"),
        (["hosts", 0, "name"], "vm", "$.hosts: vm stands there twice"),
        (["hosts", 0, "expected"], ..., "$.hosts[0]: lacks expected"),
        (["hosts", 0, "limit"], ..., "$.hosts[0]: lacks limit"),
        (["hosts", 0, "limit"], 59, "$.hosts[0].limit: is less than expected (60 s)"),
        (["hosts", 0, "limit"], float("nan"), "$.hosts[0].limit: must be a number of seconds from 0 to 86400"),
        (["hosts", 0, "expected"], -1, "$.hosts[0].expected: must be a number of seconds"),
        (["hosts", 0, "expected"], True, "$.hosts[0].expected: must be a number of seconds"),
        (["hosts", 0, "addresses"], [], "$.hosts[0]: needs addresses"),
        (["hosts", 0, "addresses"], ["-x"], "$.hosts[0].addresses[0]: must be an IP address"),
        (["hosts", 0, "addresses"], ["fd00::x"], "$.hosts[0].addresses[0]: must be an IP address"),
        (["hosts", 0, "addresses"], [7], "$.hosts[0].addresses[0]: must be an IP address"),
        (["hosts", 0, "ports"], [65536], "$.hosts[0].ports[0]: must be a TCP port"),
        (["hosts", 0, "ports"], [0], "$.hosts[0].ports[0]: must be a TCP port"),
        (["hosts", 0, "ports"], [True], "$.hosts[0].ports[0]: must be a TCP port"),
        (["hosts", 0, "ports"], ["22"], "$.hosts[0].ports[0]: must be a TCP port"),
        (["hosts", 1, "guest", "kind"], "lxc", "$.hosts[1].guest.kind: must be qm"),
        (["hosts", 1, "guest", "id"], 0, "$.hosts[1].guest.id: must be the guest's number"),
        (["hosts", 1, "guest", "id"], ..., "$.hosts[1].guest: lacks id"),
        (["upses", 0, "name"], "a@b", "$.upses[0].name: must be a UPS's name"),
        (["upses", 0, "name"], ..., "$.upses[0]: lacks name"),
        (["upses", 0, "port"], 0, "$.upses[0].port: must be a TCP port"),
        (["upses", 0, "host"], "", "$.upses[0].host: must be an IP address"),
        (["upses"], [{"name": "a"}, {"name": "a"}], "$.upses: a@localhost:3493 stands there twice"),
        (["settle"], 0, "$.settle: must be a number of seconds from 0.5 to 60"),
        (["reserve"], "60", "$.reserve: must be a number of seconds"),
        (["least"], -1, "$.least: must be a number of seconds"),
        (["flag"], "killpower", "$.flag: must be the path of a file"),
        (["flag"], 1, "$.flag: must be the path of a file"),
        (["flag"], "/run/\n", "$.flag: must be the path of a file"),
        (["longest"], 0, "$.longest: must be a number of seconds from 1 to 86400"),
        (["longest"], 10**400, "$.longest: must be a number of seconds"),
        (["stages"], [7], "$.stages[0]: must be an object"),
    ],
)
def test_what_is_wrong_with_a_policy_is_told(path: list[str | int], to: object, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy.check_policy(_changed(*path, to=to))
    assert any(line.startswith(words) for line in str(caught.value).splitlines()), str(caught.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "shutdown.json"
    path.write_text(json.dumps({**WHOLE, "reserve": -1, "longest": -1}))
    with pytest.raises(PolicyError) as caught:
        policy.load_policy(path)
    assert [line.partition(" must")[0] for line in str(caught.value).splitlines()] == [
        f"{path}: $.reserve:",
        f"{path}: $.longest:",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "$: not UTF-8"),
        ("{", "$: no JSON, line 1, column 2"),
        ("[" * 100000, "$: too many brackets"),
        ("1" * 5000, "$: "),
        (" " * (1 << 20) + "1", "$: more than"),
        ("[]", "$: must be an object"),
        ('{"version": 1, "version": 1}', "$: has a member twice"),
    ],
)
def test_what_is_no_policy(text: str | bytes, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy.read_policy(text)
    assert str(caught.value).startswith(words)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"shutdown\.json: it can't be read: No such file.*nut_server"):
        policy.load_policy(tmp_path / "shutdown.json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "upses", "hosts", "name", "guest", "id", "limit", "x"]), inner, max_size=4
            )
        ),
    )
)
def test_whatever_is_no_policy_is_refused(data: object) -> None:
    for whole in (data, {**WHOLE, "hosts": data}, {**WHOLE, "upses": data}, {**WHOLE, "hosts": [data]}):
        with contextlib.suppress(PolicyError):
            policy.read_policy(json.dumps(whole))
