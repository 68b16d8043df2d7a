# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils._nut import picture, plan
from ansible_collections.homelab.nut.plugins.modules import shutdown_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES = {
    "battery.charge": "100",
    "battery.charge.low": "10",
    "battery.runtime": "1500",
    "battery.runtime.low": "480",
    "device.mfr": "American Power Conversion",
    "driver.flag.ignorelb": "enabled",
    "driver.name": "usbhid-ups",
    "driver.parameter.pollfreq": "20",
    "driver.parameter.pollinterval": "1",
    "ups.delay.shutdown": "25",
    "ups.delay.start": "70",
    "ups.status": "OL",
    "ups.vendorid": "051d",
}
MACHINES = [
    {"name": "pve", "role": "primary", "kind": "pve"},
    {"name": "truenas", "role": "secondary", "kind": "truenas"},
    {
        "name": "media",
        "role": "guest",
        "kind": "qm",
        "shutdown_time": 40,
        "limit": 60,
        "needs": ["truenas"],
        "guest_id": 9,
    },
]
STAGES = [{"name": "nas-guests", "runtime": 700, "guests": ["media"], "fsd": True}]
GIVEN = {
    "machines": MACHINES,
    "stages": STAGES,
    "supplies": [{"runtime": 1500, "runtime_low": 480, "ignorelb": True}],
    "timing": {"guests_time": 120},
}


@contextmanager
def serving(variables: dict[str, str], release: str = "2.8.1") -> Iterator[int]:
    """Answer one connection as upsd does; give the port."""
    listed = "".join(f'VAR Ups {name} "{value}"\n' for name, value in variables.items())
    answers = {
        "VER": f"Network UPS Tools upsd {release} - http://www.networkupstools.org/\n",
        "LIST UPS": 'BEGIN LIST UPS\nUPS Ups "Rack"\nEND LIST UPS\n',
        "LIST VAR Ups": f"BEGIN LIST VAR Ups\n{listed}END LIST VAR Ups\n" if variables else "ERR DATA-STALE\n",
        "LIST CLIENT Ups": "BEGIN LIST CLIENT Ups\nEND LIST CLIENT Ups\n",
        "GET NUMLOGINS Ups": "NUMLOGINS Ups 1\n",
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _unused = listener.accept()
            with connection, connection.makefile("r") as lines:
                for line in lines:
                    connection.sendall(answers[line.rstrip("\n")].encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=5)
        assert not thread.is_alive()


def run(capfd: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        shutdown_plan.main()
    result: dict[str, Any] = json.loads(capfd.readouterr().out)
    return result


def asked(
    capfd: pytest.CaptureFixture[str], variables: dict[str, str], release: str = "2.8.1", **options: Any
) -> dict[str, Any]:
    with serving(variables, release) as port:
        return run(capfd, **{**GIVEN, "supplies": [{"name": "UPS"}], **options}, ask=True, host="127.0.0.1", port=port)


@pytest.mark.parametrize("check_mode", [False, True])
def test_what_it_returns(capfd: pytest.CaptureFixture[str], check_mode: bool) -> None:
    result = run(capfd, **GIVEN, _ansible_check_mode=check_mode)
    assert result["changed"] is False
    assert result["holds"] is True
    expected = plan.plan(
        [
            plan.Machine("pve", "primary", "pve"),
            plan.Machine("truenas", "secondary", "truenas"),
            plan.Machine("media", "guest", "qm", 10, 40, 60, ("truenas",), 9),
        ],
        [plan.Supply(runtime=1500, runtime_low=480, ignorelb=True)],
        plan.Timing(guests_time=120),
        [plan.StagePlan("nas-guests", runtime=700, guests=("media",), fsd=True)],
    )
    assert result["plan"] == plan.to_dict(expected)
    assert result["msg"] == plan.table(expected)
    assert result["picture"].startswith("<!DOCTYPE html>")


def test_a_plan_that_fails_is_no_failure_unless_it_is_enforced(capfd: pytest.CaptureFixture[str]) -> None:
    options = {**GIVEN, "timing": {"hostsync": 2, "guests_time": 120}}
    result = run(capfd, **options)
    assert "failed" not in result
    assert result["holds"] is False
    result = run(capfd, **options, enforce=True)
    assert result["failed"] is True
    assert result["holds"] is False
    assert "truenas begins to go down up to 10 s after FSD; HOSTSYNC gives 2 s" in result["msg"]
    assert "-> set nut_server_hostsync to 30" in result["msg"]
    assert result["plan"]["holds"] is False
    assert result["picture"]


def test_what_is_not_known_is_no_failure(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, **{**GIVEN, "supplies": [{}]}, enforce=True)
    assert "failed" not in result
    assert result["holds"] is None
    assert "can't be judged" in result["msg"]


def test_what_is_no_plan_fails(capfd: pytest.CaptureFixture[str]) -> None:
    result = run(capfd, **{**GIVEN, "machines": MACHINES[1:]})
    assert result["failed"] is True
    assert "a plan is for one primary" in result["msg"]


def test_upsd_is_asked(capfd: pytest.CaptureFixture[str]) -> None:
    result = asked(capfd, VARIABLES, "2.8.0")
    (supply,) = result["plan"]["supplies"]
    assert supply == {
        "name": "UPS",
        "runtime": 1500,
        "runtime_low": 480,
        "charge": 100,
        "charge_low": 10,
        "offdelay": 25,
        "ondelay": 70,
        "mfr": "American Power Conversion",
        "driver": "usbhid-ups",
        "vendorid": "051d",
        "ignorelb": True,
        "pollfreq": 20,
        "pollinterval": 1,
    }
    assert result["holds"] is True


def test_what_is_given_counts_more_than_what_upsd_says(capfd: pytest.CaptureFixture[str]) -> None:
    given = {
        "runtime": 1, "runtime_low": 2, "charge": 3, "charge_low": 4, "offdelay": 0, "ondelay": 6, "mfr": "M",
        "driver": "nutdrv_qx", "vendorid": "1234", "ignorelb": False, "pollfreq": 7, "pollinterval": 8,
    }  # fmt: skip
    result = asked(capfd, VARIABLES, supplies=[{"name": "ups", **given}])
    assert result["plan"]["supplies"] == [{"name": "ups", **given}]
    auto = asked(capfd, VARIABLES, supplies=[{"name": "ups", "driver": "auto"}])
    assert auto["plan"]["supplies"][0]["driver"] == "usbhid-ups"


def test_what_upsd_does_not_say_well_is_not_known(capfd: pytest.CaptureFixture[str]) -> None:
    odd = {
        "ups.status": "OL",
        "battery.runtime": "-1",
        "battery.runtime.low": "soon",
        "ups.mfr": "CPS",
        "device.mfr": "",
    }
    (supply,) = asked(capfd, odd)["plan"]["supplies"]
    assert (supply["runtime"], supply["runtime_low"], supply["ignorelb"]) == (None, None, False)
    assert supply["mfr"] == "CPS"
    assert supply["pollinterval"] == 2


def test_a_stale_ups_is_not_known(capfd: pytest.CaptureFixture[str]) -> None:
    result = asked(capfd, {}, enforce=True)
    assert "failed" not in result
    assert result["holds"] is None


@pytest.mark.parametrize(("release", "off"), [("2.8.1", 0), ("2.8.3", 60)])
def test_the_release_is_that_of_upsd_or_given(capfd: pytest.CaptureFixture[str], release: str, off: int) -> None:
    variables = {**VARIABLES, "device.mfr": "CPS"}
    del variables["ups.delay.shutdown"]
    del variables["ups.delay.start"]

    def have(result: dict[str, Any]) -> float:
        (one,) = (each for each in result["plan"]["constraints"] if each["name"] == "offdelay")
        return float(one["have"])

    assert have(asked(capfd, variables, release)) == off
    assert have(asked(capfd, variables, "2.8.2", timing={"guests_time": 120, "release": release})) == off


def test_no_upsd_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = run(capfd, **GIVEN, ask=True, host="127.0.0.1", port=port)
    assert result["failed"] is True
    assert f"upsd at 127.0.0.1:{port} cannot be reached" in result["msg"]


def test_an_unknown_ups_fails(capfd: pytest.CaptureFixture[str]) -> None:
    result = asked(capfd, VARIABLES, supplies=[{"name": "nix"}])
    assert result["failed"] is True
    assert "nix" in result["msg"]


@pytest.mark.parametrize(
    ("option", "kind"),
    [("machines", plan.Machine), ("supplies", plan.Supply), ("timing", plan.Timing), ("stages", plan.StagePlan)],
)
def test_each_field_is_an_option_with_the_same_default(option: str, kind: Any) -> None:
    asked_for = shutdown_plan.spec()[option]["options"]
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    assert set(asked_for) == set(fields)
    documented = yaml.safe_load(shutdown_plan.DOCUMENTATION)["options"][option]["suboptions"]
    assert set(documented) == set(fields)
    for name, one in asked_for.items():
        default = one.get("default")
        if default is not None:
            assert (tuple(default) if isinstance(default, list) else default) == fields[name]
        assert {key: value for key, value in documented[name].items() if key != "description"} == one


def test_what_was_seen_is_drawn(capfd: pytest.CaptureFixture[str]) -> None:
    planned = run(capfd, **GIVEN)["picture"]
    drawn = run(capfd, **GIVEN, seen={"truenas": [12, 71.5], "pve": [80, None], "media": [None, None]})["picture"]
    assert "The shutdown, as planned" in planned
    assert "The shutdown, planned and seen" in drawn
    assert drawn == picture.html(
        plan.plan(
            [plan.Machine(**{**one, "needs": tuple(one.get("needs", ()))}) for one in MACHINES],
            [plan.Supply(runtime=1500, runtime_low=480, ignorelb=True)],
            plan.Timing(guests_time=120),
            [plan.StagePlan("nas-guests", runtime=700, guests=("media",), fsd=True)],
        ),
        seen={"truenas": (12.0, 71.5), "pve": (80.0, None), "media": (None, None)},
    )


@pytest.mark.parametrize("pair", [[1], [1, 2, 3], 7, None, ["soon", 2], [1, "nan"], ["inf", 1], {}])
def test_what_was_seen_must_be_times(capfd: pytest.CaptureFixture[str], pair: Any) -> None:
    result = run(capfd, **GIVEN, seen={"truenas": pair})
    assert result["failed"] is True
    assert "seen: truenas must be two numbers of seconds" in result["msg"]
