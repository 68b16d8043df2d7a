# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import data, model, placement, planner, text
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import guests
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
        "shutdown_limit": 60,
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
def serve_upsd(variables: dict[str, str], release: str = "2.8.1") -> Iterator[int]:
    """Answer one connection as upsd does. Yield the port."""
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


def run_module(capfd: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        shutdown_plan.main()
    result: dict[str, Any] = json.loads(capfd.readouterr().out)
    return result


def run_with_upsd(
    capfd: pytest.CaptureFixture[str], variables: dict[str, str], release: str = "2.8.1", **options: Any
) -> dict[str, Any]:
    with serve_upsd(variables, release) as port:
        return run_module(
            capfd, **{**GIVEN, "supplies": [{"name": "UPS"}], **options}, ask=True, host="127.0.0.1", port=port
        )


@pytest.mark.parametrize("check_mode", [False, True])
def test_module_returns_plan_and_table(capfd: pytest.CaptureFixture[str], check_mode: bool) -> None:
    result = run_module(capfd, **GIVEN, _ansible_check_mode=check_mode)
    assert result["changed"] is False
    assert result["holds"] is True
    expected = planner.make_plan(
        [
            model.PlanMachine("pve", "primary", "pve"),
            model.PlanMachine("truenas", "secondary", "truenas"),
            model.PlanMachine("media", "guest", "qm", 10, 40, 60, ("truenas",), 9),
        ],
        [model.Supply(runtime=1500, runtime_low=480, ignorelb=True)],
        model.Timing(guests_time=120),
        [model.StagePlan("nas-guests", runtime=700, guests=("media",), fsd=True)],
    )
    assert result["plan"] == data.plan_to_dict(expected)
    assert result["msg"] == text.draw_table(expected)


def test_primary_without_secondaries_is_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    assert "warnings" not in run_module(capfd, **GIVEN)
    alone = {**GIVEN, "machines": MACHINES[:1], "stages": []}
    assert (
        "pve has no secondaries, so it waits for no machine: machines on its UPS must be in one of the groups truenas"
        in str(run_module(capfd, **alone)["warnings"])
    )


def test_failing_plan_fails_task_only_if_enforced(capfd: pytest.CaptureFixture[str]) -> None:
    options = {**GIVEN, "timing": {"hostsync": 2, "guests_time": 120}}
    result = run_module(capfd, **options)
    assert "failed" not in result
    assert result["holds"] is False
    result = run_module(capfd, **options, enforce="limits")
    assert result["failed"] is True
    assert result["holds"] is False
    assert "truenas begins to go down up to 10 s after FSD; HOSTSYNC gives 2 s" in result["msg"]
    assert "-> write into host_vars/pve.yml, under nut_server_upsmon_conf: HOSTSYNC: 30" in result["msg"]
    assert result["plan"]["holds"] is False


def test_undecided_plan_never_fails_task(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_module(capfd, **{**GIVEN, "supplies": [{}]}, enforce="limits")
    assert "failed" not in result
    assert result["holds"] is None
    assert "can't be judged" in result["msg"]


def test_invalid_input_fails(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_module(capfd, **{**GIVEN, "machines": MACHINES[1:]})
    assert result["failed"] is True
    assert "a plan is for exactly one primary" in result["msg"]


def test_upsd_values_fill_supply(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_with_upsd(capfd, VARIABLES, "2.8.0")
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
        "reports_runtime": True,
        "powervalue": 1,
        "watched": None,
    }
    assert result["holds"] is True
    assert result["asked"] is True


def test_options_override_upsd_values(capfd: pytest.CaptureFixture[str]) -> None:
    given = {
        "runtime": 1, "runtime_low": 2, "charge": 3, "charge_low": 4, "offdelay": 0, "ondelay": 6, "mfr": "M",
        "driver": "nutdrv_qx", "vendorid": "1234", "ignorelb": False, "pollfreq": 7, "pollinterval": 8,
        "reports_runtime": False, "powervalue": 2,
    }  # fmt: skip
    result = run_with_upsd(capfd, VARIABLES, supplies=[{"name": "ups", **given}])
    assert result["plan"]["supplies"] == [{"name": "ups", **given, "watched": None}]
    auto = run_with_upsd(capfd, VARIABLES, supplies=[{"name": "ups", "driver": "auto"}])
    assert auto["plan"]["supplies"][0]["driver"] == "usbhid-ups"


def test_invalid_upsd_values_count_as_unknown(capfd: pytest.CaptureFixture[str]) -> None:
    odd = {
        "ups.status": "OL",
        "battery.runtime": "-1",
        "battery.runtime.low": "soon",
        "ups.mfr": "CPS",
        "device.mfr": "",
    }
    (supply,) = run_with_upsd(capfd, odd)["plan"]["supplies"]
    assert (supply["runtime"], supply["runtime_low"], supply["ignorelb"]) == (None, None, False)
    assert supply["mfr"] == "CPS"
    assert supply["pollinterval"] == 2
    # with ignorelb NUT would take -1 for a low battery
    assert supply["reports_runtime"] is False
    del odd["battery.runtime"]
    assert run_with_upsd(capfd, odd)["plan"]["supplies"][0]["reports_runtime"] is False


def test_ups_that_always_reports_runtime_0_is_accepted(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_with_upsd(capfd, {**VARIABLES, "battery.runtime": "0"}, enforce="expected")
    assert "failed" not in result
    assert result["feasible"] is None
    (supply,) = result["plan"]["supplies"]
    assert (supply["runtime"], supply["charge"], supply["reports_runtime"]) == (None, 100, False)


def test_stale_ups_leaves_plan_undecided(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_with_upsd(capfd, {}, enforce="limits")
    assert "failed" not in result
    assert (result["holds"], result["feasible"], result["asked"]) == (None, None, True)
    assert result["plan"]["supplies"][0]["reports_runtime"] is None


@pytest.mark.parametrize(("release", "off"), [("2.8.1", 0), ("2.8.3", 60)])
def test_release_is_given_or_from_upsd(capfd: pytest.CaptureFixture[str], release: str, off: int) -> None:
    variables = {**VARIABLES, "device.mfr": "CPS"}
    del variables["ups.delay.shutdown"]
    del variables["ups.delay.start"]

    def have(result: dict[str, Any]) -> float:
        (constraint,) = (each for each in result["plan"]["constraints"] if each["name"] == "offdelay")
        return float(constraint["have"])

    assert have(run_with_upsd(capfd, variables, release)) == off
    assert have(run_with_upsd(capfd, variables, "2.8.2", timing={"guests_time": 120, "release": release})) == off


@pytest.mark.parametrize("release", ["2.8.0", "2.8.1", "2.8.3"])
def test_delays_that_are_written_for_a_cyberpower_count(capfd: pytest.CaptureFixture[str], release: str) -> None:
    """upsd may still have those of the driver, from before the run that writes them."""
    variables = {**VARIABLES, "device.mfr": "CPS", "ups.delay.shutdown": "20", "ups.delay.start": "30"}

    def delays(driver: str, **more: Any) -> list[tuple[float, bool]]:
        result = run_with_upsd(capfd, variables, release, supplies=[{"name": "ups", "driver": driver, **more}])
        found = {
            each["name"]: (float(each["have"]), each["holds"])
            for each in result["plan"]["constraints"]
            if each["have"] is not None
        }
        return [found[name] for name in ("offdelay", "ondelay")]

    assert delays("auto") == [(60, True), (120, True)]
    assert delays("auto", ondelay=60) == [(60, True), (60, False)]
    assert delays("auto", offdelay=120) == [(120, True), (0, False)]
    assert delays("usbhid-ups", vendorid="0764") == [(60, True), (120, True)]
    # nothing says what this is, so the section is written as it is declared
    assert delays("usbhid-ups")[0] == (0, False)
    variables["device.mfr"] = "American Power Conversion"
    assert delays("auto") == [(20, True), (30, True)]


def test_unreachable_upsd_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = run_module(capfd, **GIVEN, ask=True, host="127.0.0.1", port=port)
    assert result["failed"] is True
    assert f"upsd at 127.0.0.1:{port} cannot be reached" in result["msg"]


def test_unknown_ups_fails(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_with_upsd(capfd, VARIABLES, supplies=[{"name": "nix"}])
    assert result["failed"] is True
    assert "nix" in result["msg"]


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("machines", model.PlanMachine),
        ("supplies", model.Supply),
        ("timing", model.Timing),
        ("stages", model.StagePlan),
    ],
)
def test_fields_are_options_with_same_default(option: str, kind: Any) -> None:
    asked_for = shutdown_plan.build_spec()[option]["options"]
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    choosing = {"tags", "storage_of"} if option == "stages" else set()
    assert set(asked_for) == {*fields, *choosing} - {"watched", "deployed_runtime_low"}
    documented = yaml.safe_load(shutdown_plan.DOCUMENTATION)["options"][option]["suboptions"]
    assert set(documented) == set(asked_for)
    for name, spec in asked_for.items():
        default = spec.get("default")
        if default is not None and name not in choosing:
            assert (tuple(default) if isinstance(default, list) else default) == fields[name]
        assert {key: value for key, value in documented[name].items() if key != "description"} == spec


def test_options_are_documented() -> None:
    documented = yaml.safe_load(shutdown_plan.DOCUMENTATION)["options"]
    asked_for = shutdown_plan.build_spec()
    assert set(documented) == set(asked_for)
    for name, option in asked_for.items():
        said = {key: value for key, value in documented[name].items() if key not in {"description", "suboptions"}}
        assert said == {key: value for key, value in option.items() if key != "options"}


def test_return_values_are_documented(capfd: pytest.CaptureFixture[str]) -> None:
    documented = yaml.safe_load(shutdown_plan.RETURN)
    result = run_module(capfd, **GIVEN)
    assert set(documented) == set(result) - {"changed", "invocation"}
    assert set(documented["plan"]["contains"]) == set(result["plan"])
    (guest,) = result["guests"]
    assert set(documented["guests"]["contains"]) == set(guest)
    assert set(documented["guests"]["sample"][0]) == set(guest)
    for example in yaml.safe_load(shutdown_plan.EXAMPLES)[:2]:
        options = example["homelab.nut.shutdown_plan"]
        for name, given in options.items():
            suboptions = shutdown_plan.build_spec()[name].get("options")
            if isinstance(given, list) and suboptions:
                assert {key for item in given for key in item} <= set(suboptions)


# --- enforce


# low battery is reported too late, even for the usual times
LATE = {
    **GIVEN,
    "supplies": [{"runtime": 1500, "runtime_low": 90, "ignorelb": True}],
    "stages": [],
    "machines": MACHINES[:2],
}
TIGHT = {**GIVEN, "timing": {"hostsync": 2, "guests_time": 120}}
HANGS = {**GIVEN, "stages": []}


@pytest.mark.parametrize(
    ("options", "enforce", "fails"),
    [
        (TIGHT, "none", False), (TIGHT, "expected", False), (TIGHT, "limits", True),
        (LATE, "none", False), (LATE, "expected", True), (LATE, "limits", True),
        # a guest that hangs because its NAS goes down first must not stop a deployment
        (HANGS, "expected", False), (HANGS, "limits", True),
        (GIVEN, "limits", False), (GIVEN, "expected", False),
    ],
)  # fmt: skip
def test_enforce_decides_which_plan_fails_task(
    capfd: pytest.CaptureFixture[str], options: dict[str, Any], enforce: Any, fails: bool
) -> None:
    result = run_module(capfd, **options, enforce=enforce)
    assert result.get("failed", False) is fails
    assert result["feasible"] is (options is not LATE)
    assert result["holds"] is (options is GIVEN)
    assert "Slack: seconds to spare" in result["msg"]


# --- before a first deployment


def test_unreachable_upsd_is_accepted_without_must_answer(capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = run_module(capfd, **GIVEN, ask=True, host="127.0.0.1", port=port, must_answer=False, enforce="limits")
    assert "failed" not in result
    assert (result["asked"], result["holds"]) == (False, True)
    assert run_module(capfd, **GIVEN)["asked"] is False


def test_unknown_ups_is_accepted_without_must_answer(capfd: pytest.CaptureFixture[str]) -> None:
    result = run_with_upsd(capfd, VARIABLES, must_answer=False, supplies=[{"name": "ups"}, {"name": "new"}])
    assert result["asked"] is False
    old, new = result["plan"]["supplies"]
    assert (old["runtime"], new["runtime"]) == (1500, None)
    assert run_with_upsd(capfd, VARIABLES, must_answer=False)["asked"] is True


# --- the stages


def test_stage_options_of_role_are_accepted(capfd: pytest.CaptureFixture[str]) -> None:
    whole = {
        "name": "nas-guests", "on_battery": 60, "charge": 60, "runtime": 700, "guests": [9000, {"id": 9001, "seconds": 20}],
        "tags": ["nas"], "storage_of": ["truenas"], "seconds": 90, "fsd": True,
    }  # fmt: skip
    machines = [*MACHINES[:2], {**MACHINES[2], "guest_id": 9001}]
    result = run_module(capfd, **{**GIVEN, "machines": machines, "stages": [whole]})
    (stage,) = result["plan"]["stages"]
    assert stage == {
        "name": "nas-guests", "on_battery": 60, "charge": 60, "runtime": 700, "guests": ["media"], "fsd": True, "seconds": 90,
    }  # fmt: skip
    assert result["guests"][0]["stage"] == "nas-guests"


def test_guests_are_read_only_if_requested(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def look(_run: object, root: Path) -> placement.ProxmoxHost:
        assert root == Path("/")
        raise guests.GuestsError("/etc/pve/x can't be read")

    monkeypatch.setattr(placement, "observe_host", look)
    result = run_module(capfd, **GIVEN, guests=True)
    assert (result["failed"], result["msg"]) == (True, "/etc/pve/x can't be read")
    assert "failed" not in run_module(capfd, **GIVEN)
    assert "failed" not in run_module(capfd, **GIVEN, guests=True, must_answer=False)
