# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import paths
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.selection import Selector
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.policy import (
    AwaitedMachine,
    GuestId,
    ShutdownPolicy,
    ShutdownPolicyError,
    Stage,
    StageGuest,
    UpsAddress,
    read_stages,
)
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import POLICY
from ansible_collections.homelab.nut.tests.unit.support.stages_world import CHARGE, EARLY, FSD, NAS
from hypothesis import given
from hypothesis import strategies as st

WHOLE: dict[str, Any] = {
    "version": 1,
    "upses": [{"name": "ups", "host": "localhost", "port": 3493}],
    "machines": [
        {
            "name": "truenas",
            "addresses": ["192.0.2.20", "fd00::20", "nas.example"],
            "ports": [22, 80],
            "guest": None,
            "shutdown_time": 60,
            "shutdown_limit": 120,
        },
        {"name": "vm", "guest": {"kind": "pct", "id": 101}, "shutdown_time": 10, "shutdown_limit": 10.5},
    ],
    "settle": 3.0,
    "reserve": 60,
    "reserve_minimum": 30,
    "timeout": 600,
    "flag": "/run/nut-killpower",
    "stages": [{"name": "first"}],
}


def test_policy_is_read() -> None:
    assert policy.read_policy(json.dumps(WHOLE).encode()) == ShutdownPolicy(
        (UpsAddress("ups", "localhost", 3493),),
        (
            AwaitedMachine("truenas", ("192.0.2.20", "fd00::20", "nas.example"), (22, 80), None, 60.0, 120.0),
            AwaitedMachine("vm", (), (), GuestId("pct", 101), 10.0, 10.5),
        ),
        settle=3.0,
        reserve=60.0,
        timeout=600.0,
        stages=({"name": "first"},),
        reserve_minimum=30.0,
        flag="/run/nut-killpower",
    )


def test_policy_defaults() -> None:
    small = {"version": 1, "upses": [{"name": "ups"}], "machines": [], "reserve": 0, "timeout": 1}
    assert policy.check_policy(small) == ShutdownPolicy((UpsAddress("ups", "localhost", 3493),), (), 3.0, 0.0, 1.0)


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
        (["machines"], ..., "$: lacks machines"),
        (["upses"], ..., "$: lacks upses"),
        (["reserve"], ..., "$: lacks reserve"),
        (["timeout"], ..., "$: lacks timeout"),
        (["surprise"], 1, "$.surprise: is unknown"),
        (["machines"], {}, "$.machines: must be a list"),
        (["machines"], [{}] * 101, "$.machines: has 101 entries"),
        (["machines", 0], 7, "$.machines[0]: must be an object"),
        (["machines", 0, "name"], ..., "$.machines[0]: lacks name"),
        (["machines", 0, "name"], "a b", "$.machines[0].name: must be a host name"),
        (["machines", 0, "name"], "vm", "$.machines: vm is listed twice"),
        (["machines", 0, "shutdown_time"], ..., "$.machines[0]: lacks shutdown_time"),
        (["machines", 0, "shutdown_limit"], ..., "$.machines[0]: lacks shutdown_limit"),
        (["machines", 0, "shutdown_limit"], 59, "$.machines[0].shutdown_limit: is less than shutdown_time (60 s)"),
        (
            ["machines", 0, "shutdown_limit"],
            float("nan"),
            "$.machines[0].shutdown_limit: must be a number of seconds from 0 to 86400",
        ),
        (["machines", 0, "shutdown_time"], -1, "$.machines[0].shutdown_time: must be a number of seconds"),
        (["machines", 0, "shutdown_time"], True, "$.machines[0].shutdown_time: must be a number of seconds"),
        (["machines", 0, "addresses"], [], "$.machines[0]: needs addresses"),
        (["machines", 0, "addresses"], ["-x"], "$.machines[0].addresses[0]: must be an IP address"),
        (["machines", 0, "addresses"], ["fd00::x"], "$.machines[0].addresses[0]: must be an IP address"),
        (["machines", 0, "addresses"], [7], "$.machines[0].addresses[0]: must be an IP address"),
        (["machines", 0, "ports"], [65536], "$.machines[0].ports[0]: must be a TCP port"),
        (["machines", 0, "ports"], [0], "$.machines[0].ports[0]: must be a TCP port"),
        (["machines", 0, "ports"], [True], "$.machines[0].ports[0]: must be a TCP port"),
        (["machines", 0, "ports"], ["22"], "$.machines[0].ports[0]: must be a TCP port"),
        (["machines", 1, "guest", "kind"], "lxc", "$.machines[1].guest.kind: must be qm"),
        (["machines", 1, "guest", "id"], 0, "$.machines[1].guest.id: must be the number of a guest"),
        (["machines", 1, "guest", "id"], ..., "$.machines[1].guest: lacks id"),
        (["upses", 0, "name"], "a@b", "$.upses[0].name: must be the name of a UPS"),
        (["upses", 0, "name"], ..., "$.upses[0]: lacks name"),
        (["upses", 0, "port"], 0, "$.upses[0].port: must be a TCP port"),
        (["upses", 0, "host"], "", "$.upses[0].host: must be an IP address"),
        (["upses"], [{"name": "a"}, {"name": "a"}], "$.upses: a@localhost:3493 is listed twice"),
        (["settle"], 0, "$.settle: must be a number of seconds from 0.5 to 60"),
        (["reserve"], "60", "$.reserve: must be a number of seconds"),
        (["reserve_minimum"], -1, "$.reserve_minimum: must be a number of seconds"),
        (["flag"], "killpower", "$.flag: must be an absolute path"),
        (["flag"], 1, "$.flag: must be an absolute path"),
        (["flag"], "/run/\n", "$.flag: must be an absolute path"),
        (["timeout"], 0, "$.timeout: must be a number of seconds from 1 to 86400"),
        (["timeout"], 10**400, "$.timeout: must be a number of seconds"),
        (["stages"], [7], "$.stages[0]: must be an object"),
        (["machines", 0, "wake"], {"mac": "52:54:00:12:34"}, "$.machines[0].wake.mac: must be the hardware address"),
        (["machines", 0, "wake"], {"command": ["wake"]}, "$.machines[0].wake.command[0]: must be the absolute path"),
        (["machines", 0, "wake"], {"ipmi": "x"}, "$.machines[0].wake.ipmi: is unknown"),
        (["after"], {"limit": 0}, "$.after.limit: must be a number of seconds from 1 to 86400"),
        (["after"], {"charge": 101}, "$.after.charge: must be a percentage from 0 to 100"),
        (["after"], {"charge_limit": "1h"}, "$.after.charge_limit: must be a number of seconds"),
    ],
)
def test_invalid_policy_member_is_named(path: list[str | int], to: object, words: str) -> None:
    with pytest.raises(ShutdownPolicyError) as caught:
        policy.check_policy(_changed(*path, to=to))
    assert any(line.startswith(words) for line in str(caught.value).splitlines()), str(caught.value)


def test_all_policy_problems_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "shutdown.json"
    path.write_text(json.dumps({**WHOLE, "reserve": -1, "timeout": -1}))
    with pytest.raises(ShutdownPolicyError) as caught:
        policy.load_policy(path)
    assert [line.partition(" must")[0] for line in str(caught.value).splitlines()] == [
        f"{path}: $.reserve:",
        f"{path}: $.timeout:",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\xff", "$: not UTF-8"),
        ("{", "$: not valid JSON: line 1, column 2"),
        ("[" * 100000, "$: brackets are nested too deeply"),
        ("1" * 5000, "$: "),
        (" " * (1 << 20) + "1", "$: more than"),
        ("[]", "$: must be an object"),
        ('{"version": 1, "version": 1}', "$.version: is given twice"),
    ],
)
def test_non_policy_is_refused(text: str | bytes, words: str) -> None:
    with pytest.raises(ShutdownPolicyError) as caught:
        policy.read_policy(text)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(("written", "deployed"), [({"runtime_low": 360}, 360), ({}, None), ({"settle": "x"}, None)])
def test_deployed_runtime_low_is_read_from_the_policy(
    tmp_path: Path, written: dict[str, Any], deployed: float | None
) -> None:
    assert policy.find_deployed_runtime_low(tmp_path) is None
    (tmp_path / paths.NUT).mkdir(parents=True)
    (tmp_path / paths.SHUTDOWN_POLICY).write_text(json.dumps({**POLICY, **written}))
    assert policy.find_deployed_runtime_low(tmp_path) == deployed


def test_missing_policy_names_role(tmp_path: Path) -> None:
    with pytest.raises(ShutdownPolicyError, match=r"shutdown\.json: can't be read: No such file.*nut_server"):
        policy.load_policy(tmp_path / "shutdown.json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "upses", "machines", "name", "guest", "id", "shutdown_limit", "x"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_other_data_is_refused(data: object) -> None:
    # generated data never have all members that are needed
    for whole in (data, {**WHOLE, "machines": [data]}):
        with pytest.raises(ShutdownPolicyError):
            policy.read_policy(json.dumps(whole))
    for name in ("machines", "upses"):
        try:
            read = policy.read_policy(json.dumps({**WHOLE, name: data}))
        except ShutdownPolicyError:
            continue
        assert isinstance(data, list)
        assert len(getattr(read, name)) == len(data)


# Stages


def test_stages_are_parsed() -> None:
    assert read_stages([NAS, FSD, {**CHARGE, "name": "n", "notify": ["/bin/x"], "message": "m", "runtime": 3}]) == (
        Stage(
            "nas-guests",
            on_battery=120,
            guests=(StageGuest("qm", 101, 100), StageGuest("pct", 102, 60)),
            fsd=True,
            select=Selector(((101, 100), (102, 60))),
        ),
        Stage("the-end", charge=30, fsd=True),
        Stage("n", charge=50, runtime=3, notify=("/bin/x",), message="m", fsd=True),
    )
    assert read_stages([]) == ()
    assert read_stages([{**EARLY, "guests": [{"kind": "qm", "id": 101}]}])[0].guests[0].seconds == 180


def test_stage_guests_are_parsed() -> None:
    whole = {
        "name": "nas",
        "charge": 50,
        "guests": [
            101,
            {"id": 102, "seconds": 60},
            {"id": 103, "kind": "pct"},
            {"id": 104, "kind": "qm", "seconds": 0},
        ],
        "tags": ["nas", "Web", "nas"],
        "storage_of": ["192.0.2.20", "nas.lan", "2001:db8::1"],
        "seconds": 90,
    }
    stage = read_stages([whole])[0]
    assert stage.select == Selector(
        ((101, None), (102, 60), (103, None), (104, 0)), ("nas", "Web"), ("192.0.2.20", "nas.lan", "2001:db8::1"), 90
    )
    # without asking Proxmox, only guests with a kind are known
    assert stage.guests == (StageGuest("pct", 103, 90), StageGuest("qm", 104, 0))
    for selection in ({"tags": ["nas"]}, {"storage_of": ["nas"]}, {"guests": [101]}):
        assert read_stages([{"name": "n", "charge": 3, **selection}])[0].select


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, r"^\$\.stages: must be a list"),
        ([3], r"^\$\.stages\[0\]: must be an object"),
        ([{"charge": 3}], r"^\$\.stages\[0\]: lacks name"),
        ([{**FSD, "name": ""}], r"^\$\.stages\[0\]\.name: must be a string"),
        ([{**FSD, "name": "a\nb"}], r"^\$\.stages\[0\]\.name: must be a string"),
        ([FSD, EARLY, FSD], r"^\$\.stages: the-end is listed twice"),
        ([{**FSD, "extra": 1}], r"^\$\.stages\[0\]\.extra: is unknown. The known members are name, on_battery"),
        ([{**FSD, "charge": None}], r"^\$\.stages\[0\]: never begins"),
        ([{**FSD, "charge": 101}], r"^\$\.stages\[0\]\.charge: must be a percentage from 0 to 100"),
        ([{**FSD, "charge": True}], r"^\$\.stages\[0\]\.charge: must be a percentage"),
        ([{**FSD, "runtime": "3"}], r"^\$\.stages\[0\]\.runtime: must be a number"),
        ([{**FSD, "on_battery": -1}], r"^\$\.stages\[0\]\.on_battery: must be a number"),
        ([{**FSD, "on_battery": float("nan")}], r"^\$\.stages\[0\]\.on_battery: must be a number"),
        ([{**FSD, "guests": {"kind": "qm"}}], r"^\$\.stages\[0\]\.guests: must be a list"),
        ([{**FSD, "guests": [{"kind": "vm", "id": 100}]}], r"^\$\.stages\[0\]\.guests\[0\]\.kind: must be qm"),
        ([{**FSD, "guests": [{"kind": "qm", "id": 99}]}], r"guests\[0\]\.id: must be the number"),
        ([{**FSD, "guests": [{"kind": "qm", "id": "100"}]}], r"guests\[0\]\.id: must be the number"),
        ([{**FSD, "guests": [{"kind": "qm", "id": True}]}], r"guests\[0\]\.id: must be the number"),
        ([{**FSD, "guests": [{"kind": "qm", "id": 100, "seconds": "x"}]}], r"guests\[0\]\.seconds: must be a number"),
        ([{**FSD, "guests": [{"kind": "qm"}]}], r"guests\[0\]: lacks id"),
        ([{**FSD, "guests": [{"id": 100, "secs": 3}]}], r"guests\[0\]\.secs: is unknown"),
        ([{**FSD, "guests": [99]}], r"^\$\.stages\[0\]\.guests\[0\]: must be the number of a guest"),
        ([{**FSD, "guests": [1000000000]}], r"^\$\.stages\[0\]\.guests\[0\]: must be the number of a guest"),
        ([{**FSD, "guests": ["101"]}], r"^\$\.stages\[0\]\.guests\[0\]: must be the number of a guest"),
        ([{**FSD, "guests": [101, {"id": 101}]}], r"^\$\.stages\[0\]\.guests: 101 is listed twice"),
        ([{**FSD, "tags": "nas"}], r"^\$\.stages\[0\]\.tags: must be a list"),
        ([{**FSD, "tags": ["nas", "a b"]}], r"^\$\.stages\[0\]\.tags\[1\]: must be a tag"),
        ([{**FSD, "tags": [""]}], r"^\$\.stages\[0\]\.tags\[0\]: must be a tag"),
        ([{**FSD, "tags": ["\x1b"]}], r"^\$\.stages\[0\]\.tags\[0\]: must be a tag"),
        ([{**FSD, "storage_of": [3]}], r"^\$\.stages\[0\]\.storage_of\[0\]: must be the name or address of a machine"),
        (
            [{**FSD, "storage_of": ["[2001:db8::1]:3260"]}],
            r"^\$\.stages\[0\]\.storage_of\[0\]: must be the name or address of a machine",
        ),
        ([{**FSD, "seconds": -1}], r"^\$\.stages\[0\]\.seconds: must be a number"),
        (
            [{"name": "x", "charge": 3, "guests": [], "tags": [], "storage_of": []}],
            r"^\$\.stages\[0\]: does nothing. Set",
        ),
        ([{**FSD, "notify": "/bin/x"}], r"^\$\.stages\[0\]\.notify: must be a list"),
        ([{**FSD, "notify": ["mail"]}], r"^\$\.stages\[0\]\.notify\[0\]: must be the absolute path of a program"),
        ([{**FSD, "notify": ["/bin/x", 3]}], r"^\$\.stages\[0\]\.notify\[1\]: must be a string"),
        ([{**FSD, "message": 3}], r"^\$\.stages\[0\]\.message: must be a string"),
        ([{**FSD, "fsd": 1}], r"^\$\.stages\[0\]\.fsd: must be true or false"),
        ([{"name": "x", "charge": 3}], r"^\$\.stages\[0\]: does nothing"),
    ],
)
def test_invalid_stage_member_is_named(data: Any, words: str) -> None:
    with pytest.raises(ShutdownPolicyError, match=words):
        read_stages(data)
