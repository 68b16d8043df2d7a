# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The client of upsd, and the commands given by it, tested against a real upsd."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import grammar
from ansible_collections.homelab.nut.plugins.plugin_utils import certificates
from hypothesis import given, settings
from hypothesis import strategies as st

PASSWORD = 's3 cr"et#=\\'
USERS = f"""[admin]
password = {grammar.quote_word(PASSWORD)}
actions = SET
actions = FSD
instcmds = ALL
[quiet]
password = x
instcmds = beeper.mute
[look]
password = x
upsmon secondary
[first]
password = x
upsmon primary
"""
UPS = '[a]\ndriver = fake\nport = x\ndesc = "Rack \\"A\\" \\#1 \\\\"\n'
LINES = [
    'SETINFO ups.status "OL CHRG"',
    'SETINFO ups.delay.shutdown "020"',
    "SETFLAGS ups.delay.shutdown RW",
    "ADDRANGE ups.delay.shutdown 0 300",
    "ADDRANGE ups.delay.shutdown 600 900",
    'SETINFO input.sensitivity "medium"',
    "SETFLAGS input.sensitivity RW STRING",
    "SETAUX input.sensitivity 10",
    'ADDENUM input.sensitivity "low"',
    'ADDENUM input.sensitivity "me dium"',
    'SETINFO ups.id "x"',
    "SETFLAGS ups.id RW STRING",
    "SETAUX ups.id 500",
    'SETINFO battery.charge "100"',
    'SETINFO device.serial "000123"',
]
COMMANDS = {
    "beeper.mute": "done",
    "beeper.enable": "unknown",
    "beeper.disable": "failed",
    "beeper.toggle": "invalid",
    "load.on": "mute",
    "test.battery.start.quick": [
        [0.0, 'SETINFO ups.status "OB DISCHRG"'],
        [0.6, 'SETINFO ups.test.result "In progress"'],
        [0.6, 'SETINFO ups.status "OL CHRG"'],
        [0.1, 'SETINFO ups.test.result "Done and passed"'],
    ],
}


def run_job(nut: Any, operation: str, drivers: Any = None, files: Any = None, **job: Any) -> Any:
    job = {
        "operation": operation,
        "drivers": {"a": {"lines": LINES, "commands": COMMANDS}} if drivers is None else drivers,
        **job,
    }
    files = {
        "ups.conf": UPS,
        "upsd.conf": "LISTEN 127.0.0.1 4000\n",
        "upsd.users": USERS,
        **(files or {}),
        "job.json": json.dumps(job),
    }
    ((code, output),) = nut.call_inside(
        "run_programs", files=files, commands=[["/usr/bin/python3", "/opt/inside/upsd_inside.py"]]
    )
    assert code == 0, output
    # the last line; errors of threads that are ending may come before it
    return json.loads(output.splitlines()[-1])


def test_every_request_is_answered(nut: Any) -> None:
    asked = {
        ("get_version",): ".".join(map(str, nut.version)),
        ("get_net_version",): "1.3",
        ("list_ups",): {"a": 'Rack "A" #1 \\'},
        ("ups_desc", "A"): 'Rack "A" #1 \\',
        ("list_rw", "a"): {"input.sensitivity": "medium", "ups.delay.shutdown": "020", "ups.id": "x"},
        ("list_cmds", "a"): sorted(COMMANDS),
        ("list_enum", "a", "input.sensitivity"): ["low", "me dium"],
        ("list_enum", "a", "ups.delay.shutdown"): [],
        ("list_range", "a", "ups.delay.shutdown"): [[0, 300], [600, 900]],
        ("list_range", "a", "ups.id"): [],
        ("get_type", "a", "ups.id"): {"writable": True, "enum": False, "range": False, "length": 500, "number": False},
        ("get_type", "a", "input.sensitivity"): {"writable": True, "enum": True, "range": False, "length": 10, "number": False},
        ("get_type", "a", "ups.delay.shutdown"): {"writable": True, "enum": False, "range": True, "length": None, "number": True},
        # why the library does not trust upsd's type NUMBER
        ("get_type", "a", "device.serial"): {"writable": False, "enum": False, "range": False, "length": None, "number": True},
        ("get_desc", "a", "battery.charge"): "Battery charge (percent of full)",
        ("get_desc", "a", "battery.nix"): "Description unavailable",
        ("get_cmddesc", "a", "load.on"): "Turn on the load immediately",
        ("get_var", "a", "ups.delay.shutdown"): "020",
        ("num_logins", "a"): 0,
        ("list_clients", "a"): [],
    }  # fmt: skip
    answers = run_job(nut, "hold_conversation", ask=[list(request) for request in asked])
    assert dict(zip(asked, answers, strict=True)) == asked


def test_errors_of_upsd_have_the_right_class(nut: Any) -> None:
    admin = ("authenticate", "admin", PASSWORD)
    asked: list[tuple[tuple[str, ...], Any]] = [
        (("list_vars", "nix"), "UnknownUps"),
        (("list_vars", "b"), "DriverNotConnected"),
        (("get_var", "a", "nix"), "VarNotSupported"),
        (("get_type", "a", "nix"), "VarNotSupported"),
        (("set_tracking",), "AccessDenied"),
        (("get_tracking", "x"), "NoTls"),
        (("instcmd", "a", "beeper.mute"), "AccessDenied"),
        (("set_var", "a", "ups.id", "y"), "AccessDenied"),
        (("fsd", "a"), "AccessDenied"),
        (("check_primary", "a"), "AccessDenied"),
        (admin, None),
        (admin, "UpsdError"),
        (("instcmd", "a", "nix"), "CmdNotSupported"),
        (("set_var", "a", "nix", "y"), "VarNotSupported"),
        (("set_var", "a", "battery.charge", "1"), "ReadOnly"),
        (("set_var", "a", "input.sensitivity", "high"), "InvalidValue"),
        (("set_var", "a", "input.sensitivity", "x" * 11), "TooLong"),
        (("set_var", "a", "ups.delay.shutdown", "301"), "InvalidValue"),
        (("login", "a"), "AccessDenied"),
        (("check_primary", "a"), "AccessDenied"),
        (("set_var", "a", "ups.id", 'a "b" #\\='), None),
        (("logout",), None),
        (("get_version",), "Unreachable"),
    ]
    two = {"ups.conf": UPS + "[b]\ndriver = fake\nport = x\n"}
    answers = run_job(nut, "hold_conversation", ask=[list(request) for request, _unused in asked], files=two)
    kinds = [answer[0] if isinstance(answer, list) else answer for answer in answers]
    assert list(zip(asked, kinds, strict=True)) == [(request, request[1]) for request in asked]


def test_commands_are_tracked_until_their_result(nut: Any) -> None:
    commands = ["beeper.mute", "beeper.enable", "beeper.disable", "beeper.toggle", "load.on"]
    asked = [["authenticate", "admin", PASSWORD], ["set_tracking"]]
    for command in commands:
        asked += [["instcmd", "a", command], ["get_tracking", "$"]]
    asked += [["set_var", "a", "ups.delay.shutdown", "30"], ["get_tracking", "$"], ["get_tracking", "nix"]]
    answers = run_job(nut, "hold_conversation", ask=asked)
    assert answers == [
        *(None, None, "an id", "SUCCESS", "an id", "UNKNOWN", "an id", "FAILED", "an id", "INVALID-ARGUMENT"),
        *("an id", "PENDING", "an id", "SUCCESS", "UNKNOWN"),
    ]


def test_primary_can_log_in_and_set_fsd(nut: Any) -> None:
    asked = [
        ["authenticate", "first", "x"],
        ["check_primary", "a"],
        ["num_logins", "a"],
        ["login", "a"],
        ["num_logins", "a"],
        ["list_clients", "a"],
    ]
    assert run_job(nut, "hold_conversation", ask=asked) == [None, None, 0, None, 1, ["127.0.0.1"]]
    asked = [["authenticate", "admin", PASSWORD], ["fsd", "a"], ["get_var", "a", "ups.status"]]
    assert run_job(nut, "hold_conversation", ask=asked) == [None, None, "FSD OL CHRG"]


VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=100)


@settings(derandomize=True, deadline=None, max_examples=5)
@given(st.lists(VALUES, min_size=10, max_size=40))
def test_values_reach_the_driver_and_back_unchanged(nut: Any, values: list[str]) -> None:
    assert run_job(nut, "echo_values", values=values, password=PASSWORD) == values


def test_commands_of_the_module(nut: Any) -> None:
    admin = ["admin", PASSWORD]
    given = [
        [*admin, "give_command", ["BEEPER.mute", None], {}],
        [*admin, "give_command", ["beeper.disable", None], {}],
        [*admin, "give_command", ["load.on", None], {"wait": 0.5}],
        ["quiet", "x", "give_command", ["beeper.enable", None], {}],
        ["admin", "wrong", "give_command", ["beeper.mute", None], {}],
        [*admin, "set_variables", [{"ups.delay.shutdown": "20.0", "ups.id": "new"}], {}],
        [*admin, "set_variables", [{"ups.delay.shutdown": "400"}], {}],
        ["quiet", "x", "set_variables", [{"ups.id": "y"}], {}],
        [*admin, "test_battery", ["quick"], {"interval": 0.1, "wait": 10}],
        ["quiet", "x", "set_fsd", [], {"permission": {"cut_power": True}}],
        [*admin, "set_fsd", [], {"permission": {"cut_power": True}}],
        [*admin, "test_battery", ["quick"], {"interval": 0.1, "wait": 10}],
    ]
    answers = run_job(nut, "give_orders", orders=given)
    done, failed, pending, no_right, wrong, set_, invalid, no_set, tested, no_fsd, forced, busy = answers
    assert done == {"result": "success", "explanation": "the driver did it", "value": None}
    assert failed["result"] == "failed"
    assert "FAILED" in failed["explanation"]
    assert pending["result"] == "pending"
    assert no_right[0] == wrong[0] == no_set[0] == no_fsd[0] == "OrderRefused"
    assert "`instcmds = beeper.enable` in the section [quiet]" in no_right[1]
    assert "`actions = SET` in the section [quiet]" in no_set[1]
    assert "`actions = FSD` in the section [quiet]" in no_fsd[1]
    assert set_ == [
        [
            {"name": "ups.id", "before": "x", "after": "new"},
            {"result": "success", "explanation": "it is new now", "value": "new"},
        ]
    ]
    assert invalid[0] == "OrderRefused"
    assert "0 to 300, 600 to 900" in invalid[1]
    assert (tested["verdict"], tested["result"]) == ("passed", "Done and passed")
    assert forced["result"] == "success"
    assert busy == [
        "OrderRefused",
        "the battery of a can't be tested now: it is not plainly on mains (ups.status: FSD OL CHRG)",
    ]


def test_tls_connection_verifies_authority_and_name(nut: Any) -> None:
    now = datetime.now(timezone.utc)
    ca, other = certificates.make_ca("ours", now), certificates.make_ca("another", now)
    pair = certificates.issue_certificate(ca, "pve", ["pve.home.lan", "127.0.0.1"], now)
    tls = {"ca": ca.certificate, "certificate": pair.certificate, "key": pair.key, "nickname": "pve"}
    conf = 'LISTEN 127.0.0.1 4000\nCERTPATH /run/oracle/tls\nCERTIDENT "pve" ""\nDISABLE_WEAK_SSL true\n'
    trust = [[ca.certificate, ""], [ca.certificate, "pve.home.lan"], [ca.certificate, "nas"], [other.certificate, ""]]
    by_host, by_name, wrong, untrusted = run_job(
        nut, "connect_with_tls", trust=trust, tls=tls, files={"upsd.conf": conf}
    )
    expires = (now + certificates.LIFE).replace(microsecond=0)
    assert by_host[:3] == by_name[:3] == [".".join(map(str, nut.version)), "TLSv1.3", expires.isoformat()]
    assert by_host[3]["device.serial"] == "000123"
    assert (wrong[0], untrusted[0]) == ("WrongName", "UnknownIssuer")
    assert run_job(nut, "connect_with_tls", trust=[[ca.certificate, ""]])[0][0] == "NoTls"


def test_snapshot_of_many_upses(nut: Any) -> None:
    """With real dummy-ups drivers, and a client that is logged in."""
    names = ["a", *(f"d{number}" for number in range(12))]
    sections = UPS.replace("fake", "dummy-ups").replace("port = x", "port = d.dev")
    sections += "".join(f"[{name}]\ndriver = dummy-ups\nport = d.dev\n" for name in names[1:])
    values = "ups.status: OL CHRG\nbattery.charge: 80\nups.delay.shutdown: 020\ndevice.serial: 000123\n"
    files = {"ups.conf": f"pollinterval = 1\n{sections}", "d.dev": values}
    report, logins = run_job(
        nut, "take_look", drivers={}, dummies=names, files=files, expected=["127.0.0.1", "192.0.2.9"]
    )
    assert [ups["name"] for ups in report["upses"]] == names
    assert all(ups["fresh"] and ups["status"] == ["OL", "CHRG"] for ups in report["upses"])
    assert all(ups["writable"]["ups.delay.shutdown"]["value"] == "020" for ups in report["upses"])
    assert all(ups["commands"]["load.off"] == "Turn off the load immediately" for ups in report["upses"])
    assert [len(ups["clients"]) for ups in report["upses"]] == [1] + [0] * 12
    assert [ups["name"] for ups in report["missing"]] == ["192.0.2.9"]
    assert (report["unexpected"], logins) == ([], 0)
