# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Damaged and hostile JSON, read by the parser and by every loader of a file of ours."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import jsontext, records, sets, systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import findings
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import memory
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import data as plan_data
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import model, planner
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import selection
from ansible_collections.homelab.nut.plugins.module_utils._nut.rehearsal import aftermath, job, notes
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import (
    gate,
    report,
    stages,
    stages_loop,
    watch,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import policy as shutdown_policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.names import AddressCache
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.fingerprint import Fingerprint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DEEP = "[" * 200_000

# texts that replace a value in a file
EVIL = [
    "null", "true", "-1", "0.5", '""', '"x"', '"\\ud800"', "[]", "{}", "[[]]", '{"": null}', '[1, "a", null]',
    "1e308", "-1e308", "1e999", "NaN", "Infinity", "-Infinity", "9" * 16, "9" * 30, "-" + "9" * 400, "9" * 400, "9" * 5000,
    "[" * 500 + "]" * 500, "[" * 5000 + "]" * 5000, '{"a":' * 500 + "1" + "}" * 500, DEEP,
]  # fmt: skip


def list_paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path to each value in this value, including the value itself."""
    found = [path]
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        found += list_paths(inner, (*path, key))
    return found


def replace_value(whole: Any, where: tuple[Any, ...], evil: str | None) -> str:
    """Return a document as text, with the value at a path replaced, or removed if EVIL is None."""
    if not where:
        return evil or ""
    mark = "<here>"
    copied = copy.deepcopy(whole)
    outer = copied
    for key in where[:-1]:
        outer = outer[key]
    if evil is None:
        del outer[where[-1]]
        return json.dumps(copied)
    outer[where[-1]] = mark
    return json.dumps(copied).replace(json.dumps(mark), evil, 1)


@pytest.mark.parametrize("text", EVIL)
def test_evil_text_gives_a_value_or_a_value_error(text: str) -> None:
    try:
        value = jsontext.parse_json(text)
    except ValueError:
        return
    json.dumps(value)
    repr(value)


@pytest.mark.parametrize(
    "text", [DEEP, "[" * 61 + "]" * 61, '{"a":' * 500 + "1" + "}" * 500, "", "nonsense", b"\xff\xff"]
)
def test_text_that_is_not_plain_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        jsontext.parse_json(text)
    assert not isinstance(caught.value, RecursionError)


def test_plain_json_is_parsed() -> None:
    assert jsontext.parse_json('{"a": [1, 2.5, "b", null, true, -9223372036854775808]}') == {
        "a": [1, 2.5, "b", None, True, -(2**63)]
    }
    assert jsontext.parse_json("[" * 60 + "]" * 60)
    assert jsontext.parse_json('{"a": 1}', pairs=list) == [("a", 1)]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (-2.5, -2.5),
        (10**300, 1e300),
        (10**400, None),
        (-(10**400), None),
        (math.nan, None),
        (math.inf, None),
        (True, None),
        ("1", None),
        (None, None),
        ([1], None),
    ],
)
def test_only_finite_numbers_are_accepted(value: object, number: float | None) -> None:
    assert jsontext.to_finite_number(value) == number


# --- loaders


FINGERPRINT = Fingerprint("051d", "0002", "5B1234T56789", "1-4")
FINDER = selection.GuestFinder({"nas": selection.Selector(ids=((100, None),), tags=("nas",))}, Path("/dev/null"))
NOTED = notes.MachineNotes(True, 1010.0, 1020.0)
ENTRY = '{"__REALTIME_TIMESTAMP": "1000000000000000", "MESSAGE": "m", "MESSAGE_ID": "i", "_SYSTEMD_UNIT": "u"}'
POLICY = {
    "version": 1,
    "upses": [{"name": "ups", "host": "localhost", "port": 3493}],
    "machines": [
        {"name": "nas", "addresses": ["192.0.2.20"], "ports": [22], "shutdown_time": 60, "shutdown_limit": 120},
        {"name": "vm", "guest": {"kind": "qm", "id": 100}, "shutdown_time": 10, "shutdown_limit": 40},
    ],
    "settle": 3,
    "reserve": 60,
    "reserve_minimum": 10,
    "timeout": 600,
    "flag": "/run/flag",
    "stages": [],
}


def as_json(text: str) -> Any:
    return json.loads(text)


def load_kept_guests(path: Path) -> object:
    return selection.GuestFinder(FINDER.selectors, path).read_kept()


def load_plan(path: Path) -> object:
    try:
        data = jsontext.parse_json(path.read_bytes())
        return plan_data.plan_from_dict(data)
    except (ValueError, model.PlanError):
        return None


def load_manifest(text: str) -> object:
    try:
        return sets._load_manifest(text)
    except (ValueError, TypeError, LookupError):
        return None


def load_report(path: Path) -> object:
    try:
        return findings.from_json(jsontext.parse_json(path.read_bytes()))
    except (KeyError, TypeError, ValueError):
        return None


def allow_error(load: Callable[[Any], object], error: type[Exception]) -> Callable[[Any], object]:
    """Return a loader that may raise only ERROR."""

    def loaded(given: Any) -> object:
        try:
            return load(given)
        except error as caught:
            return str(caught)

    return loaded


def load_text(load: Callable[[str], object]) -> Callable[[Path], object]:
    return lambda path: load(path.read_text(encoding="utf-8"))


GATE = gate.GateState(
    "boot",
    "upsmon",
    10.0,
    20.0,
    {"nas": gate.MachineState(1.0, None, None, False)},
    {"ups": gate.GateReading(True, 600.0, 15.0)},
    ("rule", "reason"),
    True,
)
GATE_REPORT = report.GateReport(
    "gate", 1e9, 24.5, "down", "all are down", (report.MachineReport("nas", 60.0, 120.0, 20.0, False, False),),
    (report.PowerReport("ups", True, 600.0, 2.0),), ((0.0, "step"),),
)  # fmt: skip
STAGES = stages.StagesState(
    boot="boot", outage_since=1.0, mains_since=2.0, upses_on_battery=frozenset({"ups"}), low_since={"nas": 3.0},
    begun_at={"nas": 4.0}, stop_decided_at={"qm/100": 5.0},
    stop_outcomes={"qm/101": "why"}, fsd_set_at=6.0, shutdown_since=7.0, guests_to_start={"qm/101": True},
    failed_starts={"qm/101": (7.0, 8.0)},
)  # fmt: skip
HOTPLUG = memory.HotplugState(
    boot="boot", identities={"ups": FINGERPRINT}, written={"ups": "w"}, intended={"ups": "i"},
    plugged={"ups": memory.Plugging(1, 2, 3.0)}, silent_since={"ups": 4.0}, tries={"ups": memory.Tries(1, 5.0, 6.0)},
    last_status={"ups": ("l",)}, deferred={"ups": 7.0}, remarks_made=("t",), scanned=("a",), bus="b",
    history=(memory.HistoryEntry(8.0, "ups", "what", "why"),),
)  # fmt: skip
NOTES = notes.Notes("token", "boot", "pve", 1000.0, 1030.0, {"nas": NOTED}, 1001.5, 1025.0, ((0.5, "step"),))
GUESTS = json.loads(
    records.dump_record(
        selection.KeptSelections(
            {
                "nas": selection.KeptStage(
                    FINDER.selectors["nas"], (selection.KeptGuest("qm", 100, "mail", 60.0, "why"),)
                )
            }
        ),
        selection.VERSION,
    )
)
JOB = job.Job(shutdown_policy.check_policy(POLICY), dict(job.TIMING), 900.0, 10.0, "pve")
PLAN = plan_data.plan_to_dict(
    planner.make_plan(
        [
            model.PlanMachine("pve", model.PRIMARY, "pve"),
            model.PlanMachine("nas", model.SECONDARY, "truenas"),
            model.PlanMachine("mail", model.GUEST, "qm", needs=("nas",), guest_id=101),
        ],
        [model.Supply(runtime=1500, runtime_low=480)],
        model.Timing(),
        [],
    )
)
USB_POLICY = {
    "version": 1,
    "absent": "keep",
    "patterns": ["*ups*"],
    "rules": [
        {"vendor": "051d", "name": "ups", "driver": "usbhid-ups", "options": {"pollinterval": 5, "offdelay": "20"}}
    ],
}
WATCHED = watch.WatchMemory(
    "boot", (1.0,), ("192.0.2.1 3493",), (watch.WatchEvent("blocked", "192.0.2.5", "w", 2.0, 3.0, 4),), "2.8.0"
)
REPORT = {"findings": [{"check": "c", "host": "h", "verdict": "ok", "seen": "s", "todo": ""}]}

MANIFEST = {
    "version": 1,
    "files": [{"path": "/etc/nut/ups.conf", "staged": "/etc/nut/.homelab-nut-x", "kept": None, "digest": "d"}],
    "note": {"path": "/run/note", "text": "t"},
}
NFT = {
    "nftables": [
        {"set": {"name": "ports", "elem": [3493]}},
        {"set": {"name": "allowed4", "elem": ["192.0.2.0/24", {"elem": {"val": "192.0.2.9"}}]}},
        {"chain": {"hook": "input", "policy": "accept"}},
        {"rule": {}},
        {"counter": {"name": "refused", "packets": 7}},
    ]
}

LOADERS: dict[str, tuple[Any, Callable[[Path], object]]] = {
    "gate.resume_state": (as_json(gate.dump_state(GATE)), load_text(lambda text: gate.resume_state(text, "boot", "upsmon", 25.0))),
    "stages_loop.load_state": (
        as_json(records.dump_record(STAGES, stages_loop.VERSION)),
        lambda path: stages_loop.load_state(path, "boot")),
    "state.load": (as_json(records.dump_record(HOTPLUG, memory.VERSION)), memory.load_state),
    "GuestFinder.read_kept": (GUESTS, load_kept_guests),
    "notes.read_notes": (as_json(NOTES.to_json()), allow_error(notes.read_notes, job.RehearsalError)),
    "aftermath._gate_result": (as_json(records.dump_record(GATE_REPORT, report.VERSION)), lambda path: aftermath._gate_result(path, NOTES)),
    "systemd.read_journal": (as_json(ENTRY), load_text(lambda text: list(systemd.read_journal([], lambda _command: (0, text))))),
    "AddressCache": ({"version": 1, "addresses": {"nas": ["192.0.2.20"]}}, lambda path: AddressCache(path).known),
    "policy.load_policy": (POLICY, allow_error(shutdown_policy.load_policy, shutdown_policy.ShutdownPolicyError)),
    "policy.read_policy": (USB_POLICY, allow_error(policy.read_policy, policy.UsbPolicyError)),
    "job.read_job": (as_json(JOB.to_json()), load_text(allow_error(job.read_job, job.RehearsalError))),
    "plan.from_dict": (PLAN, load_plan),
    "findings.from_json": (REPORT, load_report),
    "sets._load_manifest": (MANIFEST, load_text(load_manifest)),
    "access.parse_table": (NFT, load_text(access.parse_table)),
    "watch.load_memory": (as_json(watch.dump_memory(WATCHED)), load_text(lambda text: watch.load_memory(text, "boot"))),
    "report.read_report": (as_json(records.dump_record(GATE_REPORT, report.VERSION)), report.read_report),
}  # fmt: skip


@pytest.mark.parametrize("name", LOADERS)
def test_written_file_is_read_back(tmp_path: Path, name: str) -> None:
    """Otherwise the tests below would also pass for loaders that read nothing."""
    whole, load = LOADERS[name]
    path = tmp_path / "file.json"
    path.write_text(json.dumps(whole))
    wanted = {
        "gate.resume_state": GATE,
        "stages_loop.load_state": (STAGES, ""),
        "state.load": HOTPLUG,
        "notes.read_notes": NOTES,
        "job.read_job": JOB,
        "aftermath._gate_result": ("all are down", 1e9 + 24.5),
        "AddressCache": {"nas": ("192.0.2.20",)},
        "watch.load_memory": WATCHED,
        "report.read_report": GATE_REPORT,
    }
    found = load(path)
    assert found == wanted[name] if name in wanted else found and not isinstance(found, str)


@pytest.mark.parametrize("name", LOADERS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_loaders_survive_any_damage(tmp_path: Path, name: str, data: st.DataObject) -> None:
    whole, load = LOADERS[name]
    where = data.draw(st.sampled_from(list_paths(whole)))
    evil = data.draw(st.sampled_from([None, *EVIL]))
    path = tmp_path / "file.json"
    path.write_text(replace_value(whole, where, evil), encoding="utf-8")
    repr(load(path))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("evil", ["9" * 400, "NaN", "Infinity", "1e999", DEEP])
def test_loaders_survive_damage_at_every_place(tmp_path: Path, name: str, evil: str) -> None:
    whole, load = LOADERS[name]
    path = tmp_path / "file.json"
    for where in list_paths(whole):
        path.write_text(replace_value(whole, where, evil), encoding="utf-8")
        repr(load(path))


@pytest.mark.parametrize("stamp", ["9" * 400, "9" * 5000, "-1", "", "1.5", 10**400, None, [], True])
def test_journal_entry_with_invalid_time_is_skipped(stamp: object) -> None:
    line = json.dumps({"__REALTIME_TIMESTAMP": stamp})
    assert list(systemd.read_journal([], lambda _command: (0, line))) == []
