# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut import gate, moments, probe, upsd
from ansible_collections.homelab.nut.plugins.module_utils._nut.gate import (
    Decision,
    Guest,
    Host,
    Policy,
    PolicyError,
    Reading,
    State,
    Ups,
    Watched,
)
from ansible_collections.homelab.nut.tests.unit.plugins.module_utils._nut.test_upsd import serving
from hypothesis import given
from hypothesis import strategies as st

NAS = Host("nas", ("192.0.2.20",), (22, 443), None, 60.0, 120.0)
VM = Host("vm", (), (), Guest("qm", 100), 30.0, 90.0)
UPS = Ups("ups")
POLICY = Policy((UPS,), (NAS,), settle=3.0, reserve=60.0, longest=600.0)
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
    "flag": "/run/nut/killpower",
    "stages": [{"name": "first"}],
}


# The policy


def test_a_policy_is_read() -> None:
    assert gate.read_policy(json.dumps(WHOLE).encode()) == Policy(
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
        flag="/run/nut/killpower",
    )


def test_what_may_be_left_out_of_a_policy() -> None:
    small = {"version": 1, "upses": [{"name": "ups"}], "hosts": [], "reserve": 0, "longest": 1}
    assert gate.check_policy(small) == Policy((Ups("ups", "localhost", 3493),), (), 3.0, 0.0, 1.0)


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
        gate.check_policy(_changed(*path, to=to))
    assert any(line.startswith(words) for line in str(caught.value).splitlines()), str(caught.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "shutdown.json"
    path.write_text(json.dumps({**WHOLE, "reserve": -1, "longest": -1}))
    with pytest.raises(PolicyError) as caught:
        gate.load_policy(path)
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
        gate.read_policy(text)
    assert str(caught.value).startswith(words)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"shutdown\.json: it can't be read: No such file.*nut_server"):
        gate.load_policy(tmp_path / "shutdown.json")


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
            gate.read_policy(json.dumps(whole))


# The pure core


class Course:
    """A gate that is taken from look to look by hand; times are seconds from its beginning."""

    def __init__(self, policy: Policy = POLICY, state: State | None = None) -> None:
        self.policy = policy
        self.state = state or gate.begin("boot", "unit", 1000.0)
        self.words: list[str] = []
        self.decision = Decision(False, "", "", ())

    def at(
        self,
        now: float,
        seen: Mapping[str, bool | None] | bool | None = True,
        power: Reading | Mapping[str, Reading] | None = None,
        asked: float | None = None,
    ) -> Decision:
        seen = seen if isinstance(seen, Mapping) else {host.name: seen for host in self.policy.hosts}
        readings = {str(UPS): power} if isinstance(power, Reading) else power or {}
        then = None if asked is None else 1000.0 + asked
        self.state, self.decision, words = gate.step(self.policy, self.state, 1000.0 + now, seen, readings, asked=then)
        self.words += [f"+{now:g} {line}" for line in words]
        return self.decision


def _on(runtime: float | None, at: float, battery: bool | None = True) -> Reading:
    return Reading(battery, runtime, 1000.0 + at)


def test_it_opens_when_the_host_has_been_silent_for_the_settle_time() -> None:
    course = Course()
    assert course.at(1) == Decision(False, "", "still waiting for nas", ("nas",))
    assert not course.at(20, False, asked=19).go
    assert not course.at(21.9, False, asked=21).go
    assert course.at(22, False, asked=21) == Decision(True, "down", "all are down", ())
    assert course.words == ["+20 nas is silent", "+22 nas is down (silent for 3.0 s; 60 s were expected)"]


def test_a_host_that_answers_in_between_begins_anew() -> None:
    course = Course()
    course.at(1, False)
    course.at(3, True)
    assert course.words == ["+1 nas is silent", "+3 nas answers again"]
    assert not course.at(4, False).go
    assert not course.at(6.9, False).go
    assert course.at(7, False).rule == "down"


def test_nobody_to_wait_for() -> None:
    assert Course(replace(POLICY, hosts=())).at(0) == Decision(True, "down", "there is nobody to wait for", ())


def test_all_hosts_are_waited_for() -> None:
    course = Course(replace(POLICY, hosts=(NAS, replace(NAS, name="media"))))
    course.at(0, {"nas": False, "media": True})
    assert course.at(10, {"nas": False, "media": True}).waiting == ("media",)
    course.at(11, {"nas": False, "media": False})
    assert course.at(14, {"nas": False, "media": False}).rule == "down"


def test_a_guest_that_has_stopped_is_down_at_once() -> None:
    course = Course(replace(POLICY, hosts=(VM,)))
    assert not course.at(1, True).go
    assert course.at(2, False).rule == "down"
    assert course.words == ["+2 vm is down (qm status 100 says stopped; 30 s were expected)"]


def test_a_host_is_given_up_at_its_limit_and_the_others_are_waited_for() -> None:
    course = Course(replace(POLICY, hosts=(NAS, replace(NAS, name="media", limit=200.0))))
    assert course.at(119.9).waiting == ("nas", "media")
    assert course.at(120).waiting == ("media",)
    assert course.words == ["+120 nas is given up: 120.0 s are over, and its limit is 120 s"]
    course.at(130, {"nas": True, "media": False})
    assert course.at(133, {"nas": True, "media": False}) == Decision(
        True, "limit", "nas did not go down within the limit; nobody else is waited for", ()
    )


def test_a_host_that_goes_down_after_it_was_given_up_is_told() -> None:
    course = Course(replace(POLICY, hosts=(NAS, replace(NAS, name="media", limit=200.0))))
    course.at(120)
    course.at(121, {"nas": False, "media": True})
    course.at(124, {"nas": False, "media": True})
    assert course.words[-1] == "+124 nas is down, after it was given up (silent for 3.0 s; 60 s were expected)"
    assert course.state.hosts["nas"] == Watched(silent=1121.0, down=1124.0, given_up=True)
    assert course.at(200).rule == "limit"


def test_a_host_that_comes_back_is_waited_for_again_but_not_beyond_its_limit() -> None:
    course = Course(replace(POLICY, hosts=(NAS, replace(NAS, name="media", limit=200.0))))
    course.at(1, {"nas": False, "media": True})
    assert course.at(4, {"nas": False, "media": True}).waiting == ("media",)
    assert course.at(50).waiting == ("nas", "media")
    assert course.words[-1] == "+50 nas answers again"
    assert course.at(119).waiting == ("nas", "media")
    assert course.at(120).waiting == ("media",)


def test_a_host_that_comes_back_after_its_limit_is_not_waited_for() -> None:
    course = Course(replace(POLICY, hosts=(NAS, replace(NAS, name="media", limit=200.0))))
    course.at(1, {"nas": False, "media": True})
    course.at(4, {"nas": False, "media": True})
    assert course.at(150).waiting == ("media",)


def test_the_battery_ends_it() -> None:
    course = Course()
    assert not course.at(10, power=_on(61, at=10)).go
    assert course.words == ["+10 ups is on battery, 61 s left"]
    assert course.at(12, power=_on(60, at=12)) == Decision(
        True, "battery", "ups has 60 s left, and this host needs 60 s itself; still waiting for nas", ("nas",)
    )


def test_while_nobody_is_late_only_the_least_is_kept() -> None:
    # 60 s are expected of it, and 3 s of silence
    course = Course(replace(POLICY, least=20.0))
    assert not course.at(10, power=_on(21, at=10)).go
    assert course.at(12, power=_on(20, at=12)).reason.startswith("ups has 20 s left, and this host needs 20 s itself")
    course = Course(replace(POLICY, least=20.0))
    assert not course.at(62.9, power=_on(60, at=62.9)).go
    assert course.at(63, power=_on(60, at=63)).reason.startswith("ups has 60 s left, and this host needs 60 s itself")


def test_the_least_is_never_more_than_the_reserve() -> None:
    course = Course(replace(POLICY, least=90.0))
    assert not course.at(10, power=_on(61, at=10)).go
    assert course.at(12, power=_on(60, at=12)).go


def test_without_upsd_the_last_runtime_counts_less_what_has_passed() -> None:
    course = Course()
    course.at(10, power=_on(100, at=9))
    assert not course.at(48.9).go
    assert course.at(49).rule == "battery"


def test_a_reading_that_says_less_does_not_hide_what_was_known() -> None:
    course = Course()
    course.at(10, power=_on(100, at=10))
    course.at(30, power=_on(None, at=30, battery=None))
    assert not course.at(49.9, power=_on(None, at=49, battery=True)).go
    assert course.at(50).rule == "battery"


def test_the_emptiest_ups_counts() -> None:
    rack = Ups("rack", "192.0.2.9")
    course = Course(replace(POLICY, upses=(UPS, rack)))
    assert not course.at(1, power={str(UPS): _on(500, at=1), str(rack): _on(61, at=1)}).go
    assert course.at(3, power={str(UPS): _on(500, at=3)}).reason.startswith("rack has 59 s left")
    other = Course(replace(POLICY, upses=(UPS, rack)))
    # the one on mains does not count, however empty it is
    assert not other.at(1, power={str(UPS): _on(500, at=1), str(rack): _on(1, at=1, battery=False)}).go


def test_on_mains_again_the_battery_is_no_reason_any_more() -> None:
    course = Course()
    course.at(10, power=_on(100, at=10))
    assert not course.at(20, power=_on(20, at=20, battery=False)).go
    assert course.words[-1] == "+20 ups is on mains; the shutdown goes on: FSD can't be taken back"
    assert not course.at(100).go
    # upsd that says nothing of it does not put it on battery again
    assert not course.at(101, power=_on(20, at=101, battery=None)).go
    course.at(102, False)
    assert course.at(105, False).rule == "down"


def test_on_battery_again_it_counts_again() -> None:
    course = Course()
    course.at(10, power=_on(20, at=10, battery=False))
    assert course.at(12, power=_on(20, at=12)).rule == "battery"


def test_an_older_reading_changes_nothing() -> None:
    course = Course()
    course.at(10, power=_on(500, at=10))
    assert not course.at(11, power=_on(10, at=5)).go
    assert not course.at(13).go


def test_a_reading_of_a_moment_that_is_to_come_is_one_of_now() -> None:
    course = Course()
    assert not course.at(12, power=_on(61, at=100)).go
    assert course.at(13).rule == "battery"


def test_runtime_is_not_known_and_only_the_longest_time_counts() -> None:
    course = Course(replace(POLICY, hosts=(replace(NAS, limit=900.0),)))
    assert not course.at(599.9, power=_on(None, at=599)).go
    assert course.at(600) == Decision(
        True,
        "longest",
        "600 s are over, the longest that is waited at all; still waiting for nas",
        ("nas",),
    )


def test_who_is_down_is_a_better_reason_than_the_battery() -> None:
    course = Course()
    course.at(10, False)
    assert course.at(600, False, power=_on(1, at=600)).rule == "down"


def test_the_battery_is_named_before_the_longest_time() -> None:
    course = Course(replace(POLICY, hosts=(replace(NAS, limit=900.0),)))
    assert course.at(600, power=_on(1, at=600)).rule == "battery"


def test_where_nobody_can_tell_the_expected_time_is_waited() -> None:
    course = Course()
    course.at(1, None)
    assert not course.at(59.9, None).go
    assert course.at(60, None) == Decision(
        True, "assumed", "nobody can tell about nas, whose time is over; nobody else is waited for", ()
    )
    assert course.words == [
        "+1 nobody can tell whether nas is up; it is waited for at least 60 s",
        "+60 nas is taken as down (nobody can tell, and the 60 s that it takes are over)",
    ]


def test_a_network_that_goes_late_must_be_gone_for_the_settle_time() -> None:
    course = Course()
    course.at(70, True)
    assert not course.at(71, None).go
    assert not course.at(73.9, None).go
    assert course.at(74, None).rule == "assumed"


def test_who_is_down_stays_so_when_nobody_can_tell_any_more() -> None:
    course = Course(replace(POLICY, hosts=(NAS, replace(NAS, name="media"))))
    course.at(1, {"nas": False, "media": True})
    course.at(4, {"nas": False, "media": True})
    assert course.at(5, {"media": True}).waiting == ("media",)
    course.at(6, {"media": False})
    assert course.at(9, {"media": False}).rule == "down"


def test_silence_before_the_network_went_does_not_count() -> None:
    course = Course()
    course.at(1, False)
    course.at(2, None)
    assert not course.at(5, False).go
    assert course.at(8, False).rule == "down"


def test_a_clock_that_goes_back_is_not_believed() -> None:
    course = Course()
    course.at(100)
    assert course.at(5).go is False
    assert course.state.now == 1100.0
    assert course.at(5, False, asked=-50).go is False
    assert course.state.hosts["nas"].silent == 1100.0


def test_status_and_runtime_as_upsd_says_them() -> None:
    assert gate.reading("FSD OB LB", "120", 5) == Reading(True, 120.0, 5)
    assert gate.reading("FSD OL CHRG", "120.5", 5) == Reading(False, 120.5, 5)
    assert gate.reading("OL OB", None, 5) == Reading(True, None, 5)
    assert gate.reading("FSD", "", 5) == Reading(None, None, 5)
    for nonsense in ("x", "-1", "nan", "inf", "604801"):
        assert gate.reading("OB", nonsense, 5).runtime is None, nonsense
    # many a UPS says 0 always, or once in a while
    for nothing in ("0", "0.0", "-0"):
        assert gate.reading("OB", nothing, 5).runtime is None


ANSWER = st.sampled_from([True, False, None])
SECONDS = st.floats(0, 40, allow_nan=False)


@st.composite
def policies(draw: Callable[..., Any]) -> Policy:
    hosts = []
    for name in draw(st.sampled_from(["", "a", "ab", "abc"])):
        expected = draw(st.integers(0, 60))
        limit = expected + draw(st.integers(0, 100))
        guest = draw(st.sampled_from([None, Guest("qm", 7)]))
        hosts.append(Host(name, ("192.0.2.1",), (), guest, float(expected), float(limit)))
    upses = tuple(Ups(name) for name in draw(st.sampled_from(["", "u", "uv"])))
    return Policy(
        upses,
        tuple(hosts),
        draw(st.sampled_from([0.5, 3.0, 10.0])),
        float(draw(st.integers(0, 100))),
        float(draw(st.integers(1, 200))),
        least=draw(st.sampled_from([None, 0.0, 10.0, 50.0])),
    )


@dataclass(frozen=True)
class Look:
    """dt: seconds since the last look. late: how long the machines took to (not) answer. back: seconds the clock goes back."""

    dt: float
    late: float
    seen: tuple[bool | None, ...]
    on: tuple[bool | None, ...]
    runtime: tuple[float | None, ...]
    answered: tuple[bool, ...]
    back: float
    restarted: bool


LOOKS = st.lists(
    st.builds(
        Look,
        SECONDS,
        st.floats(0, 1),
        st.tuples(ANSWER, ANSWER, ANSWER),
        st.tuples(ANSWER, ANSWER),
        st.tuples(*[st.none() | st.floats(0, 400)] * 2),
        st.tuples(st.booleans(), st.booleans()),
        st.sampled_from([0.0, 0.0, 0.0, 5.0]),
        st.booleans(),
    ),
    max_size=25,
)


def _was_silent(policy: Policy, host: Host, history: list[tuple[float, float, bool | None]]) -> bool:
    """Say, from all that was seen, whether it has been silent long enough since it last answered, without a doubt between."""
    start: float | None = None
    silent = False
    for asked, now, answer in history:
        if answer is True:
            silent, start = False, None
        elif answer is False:
            start = asked if start is None else start
            silent = silent or host.guest is not None or now - start >= policy.settle
        elif not silent:
            start = None
    return silent


def _kept(policy: Policy, state: State, elapsed: float) -> float:
    """Say what the battery must have: least, as long as nobody who is waited for is late."""
    late = [
        host for host in policy.hosts if not state.hosts[host.name].settled and elapsed >= host.expected + policy.settle
    ]
    return policy.reserve if late or policy.least is None else min(policy.least, policy.reserve)


@given(policies(), LOOKS)
def test_whatever_happens_it_ends_in_time_and_not_before_unless_a_rule_says_so(  # noqa: PLR0912, PLR0915 - it tells the rules anew
    policy: Policy, looks: list[Look]
) -> None:
    state = gate.begin("boot", "", 1000.0)
    now = 1000.0
    history: dict[str, list[tuple[float, float, bool | None]]] = {host.name: [] for host in policy.hosts}
    status: dict[str, bool | None] = {}
    runtime: dict[str, tuple[float, float]] = {}
    for look in looks:
        asked = now + look.dt
        now = asked + look.late
        seen = dict(zip([host.name for host in policy.hosts], look.seen))
        readings = {}
        for place, ups in enumerate(policy.upses):
            if look.answered[place]:
                name = str(ups)
                readings[name] = Reading(look.on[place], look.runtime[place], asked)
                status[name] = look.on[place] if look.on[place] is not None else status.get(name)
                left = look.runtime[place]
                if left is not None:
                    # the clock that went back counts: nothing is newer than now
                    runtime[name] = (left, min(asked, max(now - look.back, state.now)))
                elif look.on[place] is False:
                    runtime.pop(name, None)
        if look.restarted:
            state = gate.resume(gate.dump(state), "boot", "", now)
        state, decision, _words = gate.step(policy, state, now - look.back, seen, readings, asked=asked)
        # the clock went back: to us it has stood still
        now = state.now
        asked = min(asked, now)
        for name, answer in seen.items():
            history[name].append((asked, now, answer))
        elapsed = now - state.began
        down = {host.name: _was_silent(policy, host, history[host.name]) for host in policy.hosts}
        lefts = [
            runtime[name][0] - (now - runtime[name][1])
            for name in map(str, policy.upses)
            if name in runtime and status.get(name) is not False
        ]
        if not decision.go:
            assert elapsed < policy.longest
            assert not all(down[host.name] or elapsed >= host.limit for host in policy.hosts)
            assert not lefts or min(lefts) > _kept(policy, state, elapsed)
            assert set(decision.waiting) == {host.name for host in policy.hosts if not state.hosts[host.name].settled}
            continue
        assert decision.reason
        if decision.rule == "down":
            assert all(down.values())
        elif decision.rule == "assumed":
            assert all(down[host.name] or elapsed >= host.expected for host in policy.hosts)
            assert not all(down.values())
        elif decision.rule == "limit":
            assert all(down[host.name] or elapsed >= min(host.limit, host.expected) for host in policy.hosts)
            assert any(not down[host.name] and elapsed >= host.limit for host in policy.hosts)
        elif decision.rule == "battery":
            assert lefts
            assert min(lefts) <= _kept(policy, state, elapsed) + 1e-6
        else:
            assert decision.rule == "longest"
            assert elapsed >= policy.longest
        return
    # it goes on without news, and with hosts that never go down
    for _unused in range(1000):
        now += 1
        state, decision, _words = gate.step(policy, state, now, {host.name: True for host in policy.hosts}, {})
        elapsed = now - state.began
        by = min(policy.longest, max([host.limit for host in policy.hosts], default=0.0))
        if decision.go:
            assert elapsed <= by + 1 or decision.rule == "battery"
            return
        assert elapsed < by
    raise AssertionError("it does not end")


# What is kept


def _state(**changes: Any) -> State:
    whole = State(
        "boot",
        "unit",
        100.0,
        150.0,
        {"nas": Watched(120.0, None, 123.0, False), "vm": Watched(None, 130.0, None, True)},
        {"ups@localhost:3493": Reading(True, 300.0, 149.0), "x": Reading(None, None, 1.0)},
    )
    return replace(whole, **changes)


def test_what_is_kept_comes_back() -> None:
    for state in (_state(), _state(ended=("down", "all are down")), _state(flag=b"\xff\n")):
        assert gate.resume(gate.dump(state), "boot", "unit", 160.0) == state


@pytest.mark.parametrize(
    ("state", "boot", "by", "now"),
    [
        (_state(), "other boot", "unit", 160.0),
        (_state(boot=""), "", "unit", 160.0),
        (_state(), "boot", "other", 160.0),
        (_state(ended=("down", "x")), "boot", "other", 160.0),
        (_state(), "boot", "unit", 270.1),
        (_state(), "boot", "unit", 149.0),  # written in the future
        (_state(began=151.0), "boot", "unit", 160.0),
    ],
)
def test_what_is_not_of_this_shutdown_begins_anew(state: State, boot: str, by: str, now: float) -> None:
    assert gate.resume(gate.dump(state), boot, by, now) == gate.begin(boot, by, now)


def test_a_gate_that_was_ended_comes_back_within_two_minutes() -> None:
    assert gate.resume(gate.dump(_state()), "boot", "unit", 270.0) == _state()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"boot": 1},
        {"began": None},
        {"began": "100"},
        {"began": True},
        {"now": float("nan")},
        {"hosts": []},
        {"hosts": {"nas": [1]}},
        {"hosts": {"nas": [None, None, None, 1]}},
        {"hosts": {"nas": ["1", None, None, False]}},
        {"power": {"ups": [1, 2.0, 3.0]}},
        {"power": {"ups": [True, 2.0, None]}},
        {"ended": ["down"]},
        {"ended": [1, 2]},
        {"flag": "x"},
        {"flag": None},
    ],
)
def test_a_damaged_state_begins_anew(change: dict[str, object]) -> None:
    whole = json.loads(gate.dump(_state()))
    assert gate.resume(json.dumps({**whole, **change}), "boot", "unit", 160.0) == gate.begin("boot", "unit", 160.0)


@given(st.text(max_size=20) | st.integers(0, 400).map(lambda end: gate.dump(_state())[:-end]))
def test_whatever_stands_there_never_stops_it(text: str) -> None:
    begun = gate.begin("boot", "unit", 160.0)
    assert gate.resume(text, "boot", "unit", 160.0) in (begun, _state())


# The edge


class Killed(BaseException):
    """The program ends here, as by a signal."""


class World:
    """Machines that go down at their times, a UPS, and a clock that goes on when somebody sleeps or looks."""

    def __init__(self, folder: Path, policy: Policy = POLICY) -> None:
        self.folder, self.policy = folder, policy
        self.now = 5000.0
        self.start = self.now
        self.down: dict[str, float] = {}
        self.power: Callable[[float], dict[str, Reading]] = lambda now: {}
        self.killed: list[float] = []
        self.at: dict[float, Callable[[], None]] = {}
        self.said: list[str] = []
        self.slept: list[float] = []
        self.looked: list[float] = []
        self.rounds = 0
        self.broken = ""

    @property
    def elapsed(self) -> float:
        return self.now - self.start

    def prober(self) -> dict[str, bool | None]:
        self.looked.append(self.elapsed)
        for moment in [one for one in self.at if one <= self.elapsed]:
            self.at.pop(moment)()
        if self.killed and self.elapsed >= self.killed[0]:
            raise Killed(self.killed.pop(0))
        if self.broken:
            raise ValueError(self.broken)
        up = {host.name: self.elapsed < self.down.get(host.name, 1e9) for host in self.policy.hosts}
        self.now += 0.1 if all(up.values()) else 1.0
        return dict(up)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def alive(self) -> None:
        self.rounds += 1

    def run(self, **more: Any) -> gate.Report:
        options: dict[str, Any] = {
            "state_path": self.folder / "run/gate.json",
            "report_path": self.folder / "lib/last.json",
            "log_path": self.folder / "log/shutdown.log",
            "boot": "boot",
            "by": "unit",
            **more,
        }
        return gate.run(
            self.policy,
            log=self.said.append,
            prober=self.prober,
            ask_upsd=lambda: self.power(self.now),
            clock=lambda: self.now,
            wall=lambda: 1e9 + self.elapsed,
            sleep=self.sleep,
            alive=self.alive,
            **options,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("content", ["upsmon-shutdown-file", ""])
@pytest.mark.parametrize("by", ["systemd", "hand"])
def test_the_killpower_flag_outlives_an_upsmon_that_is_restarted(
    world: World, tmp_path: Path, content: str, by: str
) -> None:
    flag = tmp_path / "killpower"
    if content:
        flag.write_text(content)
    world.policy = replace(world.policy, flag=str(flag))
    world.down["nas"] = 20
    world.at[10] = lambda: flag.unlink(missing_ok=True)
    world.run(by=by)
    if content and by == "systemd":
        assert flag.read_text() == content
        assert any("killpower was gone, and is there again" in line for line in world.said)
    else:
        # nothing that was not there is made up: it would cut the power at the next reboot
        assert not flag.exists()


def test_a_gate_that_is_started_again_remembers_the_killpower_flag(world: World, tmp_path: Path) -> None:
    flag = tmp_path / "killpower"
    flag.write_text("upsmon-shutdown-file")
    world.policy = replace(world.policy, flag=str(flag))
    world.down["nas"] = 20
    world.killed = [5]
    with pytest.raises(Killed):
        world.run(by="systemd")
    flag.unlink()
    world.run(by="systemd")
    assert flag.read_text() == "upsmon-shutdown-file"


def test_a_killpower_flag_that_can_not_be_written_is_told(world: World, tmp_path: Path) -> None:
    flag = tmp_path / "run" / "killpower"
    flag.parent.mkdir()
    flag.write_text("upsmon-shutdown-file")
    (tmp_path / "victim").write_text("mine")
    world.policy = replace(world.policy, flag=str(flag))
    world.down["nas"] = 20

    def swap() -> None:
        flag.unlink()
        flag.symlink_to(tmp_path / "victim")

    world.at[10] = swap
    world.run(by="systemd")
    assert (tmp_path / "victim").read_text() == "mine"
    assert any("can't be written" in line for line in world.said)


def test_a_run(world: World, tmp_path: Path) -> None:
    world.down["nas"] = 20
    report = world.run()
    assert report.ended == ("down", "all are down")
    assert report.began == pytest.approx(1e9)
    assert 23 <= report.elapsed <= 25
    assert world.said[0] == "+0.0 s  the gate begins: waiting for nas (at most 120 s)"
    assert world.said[-2].endswith("nas is down (silent for 3.0 s; 60 s were expected)")
    assert world.said[-1] == f"+{report.elapsed:.1f} s  the gate ends (down): all are down"
    assert report.hosts == (
        {"name": "nas", "expected": 60.0, "limit": 120.0, "down": 20.0, "assumed": False, "given_up": False},
    )
    written = json.loads((tmp_path / "lib/last.json").read_text())
    assert written == json.loads(json.dumps(report.to_json()))
    assert (written["rule"], written["mode"], written["steps"][0][0]) == ("down", "gate", 0.0)
    lines = (tmp_path / "log/shutdown.log").read_text().splitlines()
    assert [line.split(" ", 3)[3] for line in lines] == world.said
    assert lines[0].startswith("2001-09-0")
    # once a second, and somebody is told so each time
    assert world.looked[:4] == pytest.approx([0, 1, 2, 3])
    assert world.rounds == len(world.looked)
    for path, mode in (("run/gate.json", 0o600), ("lib/last.json", 0o600), ("log/shutdown.log", 0o640)):
        assert (tmp_path / path).stat().st_mode & 0o777 & ~mode == 0


def test_what_upsd_says_is_asked_for_in_each_round(world: World) -> None:
    world.power = lambda now: {str(UPS): Reading(True, 100 - (now - 5000), now)}
    report = world.run()
    assert report.ended
    assert report.ended[0] == "battery"
    assert 40 <= report.elapsed <= 42
    assert report.power[0]["on_battery"] is True
    assert report.power[0]["at"] == pytest.approx(report.elapsed)


def test_killed_it_goes_on_where_it_stood(world: World) -> None:
    world.policy = replace(POLICY, hosts=(NAS, replace(NAS, name="media", limit=50.0)))
    world.power = lambda now: {str(UPS): Reading(True, 1000.0, now)} if now < 5010 else {}
    world.down["nas"] = 10
    world.killed = [20, 40]
    for _unused in range(2):
        with pytest.raises(Killed):
            world.run()
        world.now += 3
    report = world.run()
    assert report.ended == ("limit", "media did not go down within the limit; nobody else is waited for")
    # its limit counts from the first beginning
    assert 50 <= report.elapsed < 53
    assert report.began == pytest.approx(1e9)
    assert [line for line in world.said if "the gate was started again" in line] == [
        "+23.0 s  the gate was started again, and goes on",
        "+43.0 s  the gate was started again, and goes on",
    ]
    assert len([line for line in world.said if "nas is down" in line]) == 1
    assert report.power[0]["runtime"] == 1000.0


def test_ended_it_ends_at_once_when_it_is_started_again(world: World) -> None:
    world.down["nas"] = 0
    first = world.run()
    looked = len(world.looked)
    second = world.run()
    assert len(world.looked) == looked
    assert second.ended == first.ended
    assert world.said[-1].endswith("the gate has ended before: all are down")


def test_ended_by_hand_it_begins_anew_for_systemd(world: World) -> None:
    world.down["nas"] = 0
    world.run()
    world.down["nas"] = world.elapsed + 20
    report = world.run(by="other")
    assert 23 <= report.elapsed <= 25
    assert any("is not of this shutdown, or damaged: the gate begins anew" in line for line in world.said)


def test_a_damaged_state_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/gate.json").write_bytes(b"\xff{")
    world.down["nas"] = 2
    assert world.run().ended
    assert any("begins anew" in line for line in world.said)


def test_nothing_can_be_written_and_it_waits_all_the_same(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("state", "log"):
        (tmp_path / name).mkdir()
    world.down["nas"] = 10
    report = world.run(
        state_path=tmp_path / "file/gate.json", report_path=tmp_path / "file/last.json", log_path=tmp_path / "log"
    )
    assert report.ended == ("down", "all are down")
    assert 13 <= report.elapsed <= 15
    # each is told once
    for path in ("file/gate.json", "file/last.json", "log"):
        assert len([line for line in world.said if f"{tmp_path / path} can't be written" in line]) == 1


def test_when_looking_fails_nobody_can_tell(world: World) -> None:
    world.broken = "odd"
    report = world.run()
    assert report.ended
    assert report.ended[0] == "assumed"
    assert 60 <= report.elapsed <= 62
    assert [line for line in world.said if "odd" in line] == ["+0.0 s  looking at the machines failed: ValueError: odd"]
    assert report.hosts[0]["assumed"] is True


def test_a_drill_says_so(world: World, tmp_path: Path) -> None:
    world.down["nas"] = 0
    assert world.run(mode="drill").mode == "drill"
    assert " drill: +0.0 s  the gate begins" in (tmp_path / "log/shutdown.log").read_text()


def test_each_line_lasts_over_a_power_cut(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: kept.append(Path(f"/proc/self/fd/{handle}").readlink().name))
    world.down["nas"] = 0
    world.run()
    assert len([path for path in kept if path == "shutdown.log"]) == len(world.said)


def test_without_report_and_log(world: World, tmp_path: Path) -> None:
    world.down["nas"] = 0
    world.run(report_path=None, log_path=None)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_told_has_no_signs_of_its_own(world: World) -> None:
    world.broken = "a\nb\x1b[1m"
    world.policy = replace(POLICY, hosts=(replace(NAS, expected=0.0),))
    world.run()
    assert any("a?b?[1m" in line for line in world.said)
    assert all(line.isprintable() for line in world.said)


def test_a_disk_that_is_stuck_holds_nobody_up() -> None:
    said: list[str] = []
    writer = gate.Writer(said.append)
    writer.start()
    stuck = threading.Event()
    writer.jobs.put((Path("x"), lambda: [None, stuck.wait()][0]))
    writer.append(Path("/nowhere/at/all"), "line")
    writer.finish(0.01)
    assert writer.is_alive()
    stuck.set()
    writer.join(10)
    assert not writer.is_alive()


# What looks and asks


def test_guests_and_hosts_are_looked_at() -> None:
    asked: list[list[str]] = []
    answers = {"100": (0, "status: running\n"), "101": (0, "status: stopped\n"), "102": (2, "no such guest\n")}

    def run(command: Any) -> tuple[int, str]:
        asked.append(list(command))
        return answers[command[2]]

    hosts = [
        replace(VM, name="runs"),
        replace(VM, name="stopped", guest=Guest("pct", 101)),
        replace(VM, name="unknown", guest=Guest("qm", 102)),
        replace(NAS, name="here", addresses=("localhost",), ports=(1,)),
        replace(NAS, name="nobody knows", addresses=("nas.invalid",), ports=(1,)),
    ]

    def resolve(name: str, seconds: float) -> tuple[str, ...]:
        if name != "localhost":
            raise OSError(name)
        return ("127.0.0.1",)

    looker = gate.Looker(hosts, run, moments.boottime, resolve=resolve)
    try:
        assert looker() == {
            "runs": True,
            "stopped": False,
            "unknown": None,
            "here": True,
            "nobody knows": None,
        }
        assert looker.targets[0] == probe.Target("here", ("127.0.0.1",), (1,))
    finally:
        looker.close()
    assert {tuple(one) for one in asked} == {("qm", "status", "100"), ("pct", "status", "101"), ("qm", "status", "102")}


def test_what_proxmox_said_long_ago_does_not_count() -> None:
    now = [1000.0]
    looker = gate.Looker([VM], lambda command: (0, "status: running"), lambda: now[0])
    try:
        assert looker() == {"vm": True}
        looker.close()
        looker.guests["vm"].join(10)
        now[0] += gate.GUEST_OLD
        assert looker() == {"vm": True}
        now[0] += 0.1
        assert looker() == {"vm": None}
    finally:
        looker.close()


def test_a_guest_whose_program_hangs_holds_nobody_up() -> None:
    stuck = threading.Event()

    def run(command: Any) -> tuple[int, str]:
        stuck.wait()
        return 0, "status: running"

    looker = gate.Looker([VM], run, moments.boottime, seconds=0.01)
    try:
        assert looker() == {"vm": None}
    finally:
        looker.close()
        stuck.set()


def test_a_name_that_takes_too_long_holds_nobody_up() -> None:
    stuck = threading.Event()

    def resolve(name: str, seconds: float) -> tuple[str, ...]:
        stuck.wait()
        return ("127.0.0.1",)

    looker = gate.Looker(
        [replace(NAS, addresses=("slow.example", "192.0.2.7"))],
        lambda c: (1, ""),
        moments.boottime,
        seconds=0.01,
        resolve=resolve,
    )
    stuck.set()
    assert looker.targets == [probe.Target("nas", ("192.0.2.7",), (22, 443))]


def test_upsd_is_asked() -> None:
    answers = {
        "GET VAR ups ups.status": 'VAR ups ups.status "FSD OB LB"\n',
        "GET VAR ups battery.runtime": 'VAR ups battery.runtime "240"\n',
        "GET VAR bare ups.status": 'VAR bare ups.status "OL"\n',
        "GET VAR bare battery.runtime": "ERR VAR-NOT-SUPPORTED\n",
        "GET VAR stale ups.status": "ERR DATA-STALE\n",
    }
    with serving(answers) as server:
        here = {"host": "127.0.0.1", "port": server.port}
        assert gate.read_ups(Ups("ups", **here), lambda: 7.0) == Reading(True, 240.0, 7.0)
        assert gate.read_ups(Ups("bare", **here), lambda: 7.0) == Reading(False, None, 7.0)
        with pytest.raises(upsd.DataStale):
            gate.read_ups(Ups("stale", **here), lambda: 7.0)
        upses = [Ups("ups", **here), Ups("stale", **here)]
        asker = gate.Asker(upses, lambda: 7.0)
        for one in asker.asked.values():
            assert one.tried.wait(10)
        assert asker() == {str(upses[0]): Reading(True, 240.0, 7.0)}
        asker.close()
        for one in asker.asked.values():
            one.join(10)


# FSD again


KNOWN = {
    "GET VAR ups battery.runtime": 'VAR ups battery.runtime "100"\n',
    "USERNAME monitor": "OK\n",
    "PASSWORD secret": "OK\n",
}
LOGIN = ("monitor", "secret")


def test_fsd_is_set_again_where_upsd_has_forgotten_it(tmp_path: Path) -> None:
    said: list[str] = []
    answers = {**KNOWN, "GET VAR ups ups.status": 'VAR ups ups.status "OL"\n', "FSD ups": "OK FSD-SET\n"}
    with serving(answers) as server:
        ups = Ups("ups", "127.0.0.1", server.port)
        orders = gate.Orders({str(ups): LOGIN}, said.append)
        assert gate.read_ups(ups, lambda: 7.0, orders=orders).on_battery is False
        asked = [line for line in server.asked if "GET" not in line]
        assert asked[:3] == ["USERNAME monitor", "PASSWORD secret", "FSD ups"]
        # a LOGIN would count as a secondary that is still there
        assert not any(line.startswith("LOGIN") for line in asked)
        gate.read_ups(ups, lambda: 8.0, orders=orders)
    assert said == ["upsd does not say FSD of ups: it was told again, so that all go down"]


@pytest.mark.parametrize(("status", "known"), [("OB LB FSD", True), ("FSD OL", True), ("OL", False)])
def test_fsd_is_set_only_where_it_lacks_and_is_ours(status: str, known: bool) -> None:
    with serving({**KNOWN, "GET VAR ups ups.status": f'VAR ups ups.status "{status}"\n'}) as server:
        ups = Ups("ups", "127.0.0.1", server.port)
        gate.read_ups(ups, lambda: 7.0, orders=gate.Orders({str(ups): LOGIN} if known else {}, pytest.fail))
        assert not [line for line in server.asked if "FSD" in line or "USERNAME" in line]


def test_an_order_that_is_refused_is_told_and_the_reading_counts() -> None:
    said: list[str] = []
    answers = {**KNOWN, "GET VAR ups ups.status": 'VAR ups ups.status "OB"\n', "FSD ups": "ERR ACCESS-DENIED\n"}
    with serving(answers) as server:
        ups = Ups("ups", "127.0.0.1", server.port)
        orders = gate.Orders({str(ups): LOGIN}, said.append)
        for _unused in range(2):
            assert gate.read_ups(ups, lambda: 7.0, orders=orders).on_battery is True
    assert len(said) == 1
    assert "could not be told again" in said[0]


def test_whose_login_it_is(tmp_path: Path) -> None:
    conf = tmp_path / "upsmon.conf"
    conf.write_text(
        'MONITOR ups@localhost:3493 1 monitor "pass word" primary\nMONITOR other@localhost 0 x y secondary\n'
        "MONITOR rack@localhost 1 old secret master\nMONITOR ups@192.0.2.9 1 far away primary\n"
    )
    upses = [Ups("ups"), Ups("other"), Ups("rack")]
    assert gate.logins(conf, upses) == {str(upses[0]): ("monitor", "pass word"), str(upses[2]): ("old", "secret")}
    assert gate.logins(tmp_path / "none", upses) == {}


@pytest.mark.parametrize(
    ("by", "flag", "kept", "earnest"),
    [
        ("systemd", True, False, True),
        ("systemd", False, True, True),
        ("systemd", False, False, False),
        ("hand", True, True, False),
    ],
)
def test_nothing_is_ordered_unless_upsmon_has_begun_it(
    tmp_path: Path, by: str, flag: bool, kept: bool, earnest: bool
) -> None:
    path, state = tmp_path / "killpower", tmp_path / "gate.json"
    if flag:
        path.write_text("upsmon-shutdown-file")
    if kept:
        now = moments.boottime()
        state.write_text(gate.dump(replace(gate.begin(moments.boot_id(), by, now), flag=b"x")))
    assert gate.in_earnest(replace(POLICY, flag=str(path)), state, by) is earnest
    assert gate.in_earnest(POLICY, state, by) is False


def test_what_is_done_beside_it_is_told(world: World) -> None:
    world.down["nas"] = 20
    waiting = ["first", "second"]
    report = world.run(news=lambda: [waiting.pop(0)] if waiting else [])
    assert [words for _at, words in report.steps if words in ("first", "second")] == ["first", "second"]


# Names


def test_names_are_kept_for_when_nobody_knows_them(tmp_path: Path) -> None:
    path = tmp_path / "lib" / "addresses.json"
    path.parent.mkdir()
    known = {"nas": ("192.0.2.20", "fd00::20")}

    waited: list[float] = []

    def resolve(name: str, seconds: float) -> tuple[str, ...]:
        waited.append(seconds)
        if name not in known:
            raise OSError("no such name")
        return known[name]

    assert gate.Names(path, resolve)("nas", 1) == known["nas"]
    was = known.pop("nas")
    assert gate.Names(path, resolve)("nas", 1) == was
    assert waited == [1, 0.5]  # time is left for what was kept
    with pytest.raises(OSError, match="no such name"):
        gate.Names(path, resolve)("media", 1)
    known["nas"] = ("192.0.2.21",)
    assert gate.Names(path, resolve)("nas", 1) == ("192.0.2.21",)
    del known["nas"]
    assert gate.Names(path, resolve)("nas", 1) == ("192.0.2.21",)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"nas": "x"}', '{"nas": [1]}', '{"nas": ["not a number"]}', "\x00"])
def test_kept_names_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "addresses.json"
    path.write_text(text)

    def resolve(_name: str, _seconds: float) -> tuple[str, ...]:
        raise OSError("no such name")

    with pytest.raises(OSError, match="no such name"):
        gate.Names(path, resolve)("nas", 1)


def test_a_disk_that_can_t_be_written_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    names = gate.Names(tmp_path / "file" / "addresses.json", lambda _name, _seconds: ("192.0.2.20",))
    assert names("nas", 1) == ("192.0.2.20",)


def test_the_names_of_a_policy(tmp_path: Path) -> None:
    policy = gate.check_policy(
        {
            "version": 1,
            "upses": [],
            "hosts": [
                {"name": name, "addresses": [address], "ports": [], "guest": guest, "expected": 1, "limit": 2}
                for name, address, guest in (
                    ("nas", "nas", None),
                    ("media", "media", None),
                    ("db", "192.0.2.9", None),
                    ("vm", "vm", {"kind": "qm", "id": 100}),
                )
            ],
            "reserve": 1,
            "longest": 10,
        }
    )

    def resolve(name: str, _seconds: float) -> tuple[str, ...]:
        if name == "media":
            raise OSError("no such name")
        return ("192.0.2.20",)

    assert gate.Names(tmp_path / "addresses.json", resolve).learn(policy, 1) == ["media"]
    assert json.loads((tmp_path / "addresses.json").read_text()) == {"nas": ["192.0.2.20"]}
