# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each remedy of a plan can be carried out as it is written: the next run accepts what it says."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import consistency, settings, values
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import supplies
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import AUTO, PlanMachine, Supply
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import DRIVERS
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import NO_USB
from ansible_collections.homelab.nut.plugins.plugin_utils import variables
from ansible_collections.homelab.nut.tests.unit.support.plans import DOCKER, SITE, UNSTAGED, PlanSite, draw_site
from hypothesis import given

# the variables of a host, as remedies name them, with the reason for an entry
FILE = r"write into host_vars/(?P<host>[^/\s]+)\.yml"
# each form of a setting that a remedy may have
FORMS = {
    "variable": FILE + r"(?: \(.*?\))?: nut_server_(?P<variable>[a-z_]+): (?P<value>[0-9.]+|auto)",
    "member": FILE + r", under nut_server_(?P<variable>gate): (?P<member>[a-z_]+): (?P<value>[0-9.]+|[a-z]+)",
    "directive": FILE + r", under nut_server_(?P<file>[a-z]+_conf): (?P<directive>[A-Z_]+): (?P<value>[0-9.]+s?)",
    "delays": FILE
    + r", under \S+ in nut_server_devices: (?P<first>o[nf]f?delay): (?P<value>[0-9.]+)(?:, ondelay: (?P<on>[0-9.]+))?",
    "limit": FILE + r": nut_client_shutdown_limit: (?P<value>[0-9.]+)",
    "mark": r"set ignorelb: true and override: \{battery\.(?P<what>charge|runtime)\.low: (?P<value>[0-9.]+|that charge)\}",
    "stage": r"set runtime of stage (?P<stage>\S+) to (?P<value>[0-9]+)",
    "added stage": r"add (?P<stage>\{name: guests, .*?\}) to nut_server_stages",
    "freeze": r"set shutdown_policy to freeze",
    "choice": r"set nut_server_guests_time(?! to)",
}
# drivers -> the delays with which they start, from their sources (addvar, and the ranges that they check)
TAKEN = {
    "usbhid-ups": range(0, 1 << 31),
    "snmp-ups": range(0, 1 << 31),
    "clone": range(0, 1 << 31),
    "nutdrv_qx": range(12, 601),
    "huawei-ups2000": range(6, 5941, 6),
}
ALL_DRIVERS = sorted({*DRIVERS, *NO_USB, *TAKEN, "apcsmart", "mge-shut", "blazer_ser", "optiups", "auto", "newer_usb"})


def list_settings(remedy: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the form and the parts of each setting in a remedy. Fails for a setting of any other form."""
    found = [(form, match) for form, pattern in FORMS.items() for match in re.finditer(pattern, remedy)]
    places = {match.start() for _form, match in found}
    told = {match.start() for match in re.finditer(r"\bset (?=[a-zA-Z_]+(?::| |$))|\bwrite into ", remedy)}
    assert told <= places, f"a setting of a form that this test does not know: {remedy}"
    yield from ((form, match.groupdict()) for form, match in found)


def check_setting(form: str, parts: dict[str, str], supply: Supply | None) -> None:
    """Check a setting as the next run does."""
    specs = variables.read_specs()
    if form == "variable":
        assert f"nut_server_{parts['variable']}" in specs
        assert parts["value"] != AUTO or parts["variable"] == "runtime_low"
    elif form == "member":
        option = specs[f"nut_server_{parts['variable']}"]["options"][parts["member"]]
        assert parts["value"] in option["choices"] if "choices" in option else float(parts["value"]) >= 0
    elif form == "directive":
        file = {"nut_conf": "nut.conf", "upsd_conf": "upsd.conf", "upsmon_conf": "upsmon.conf"}[parts["file"]]
        merged = settings.merge_settings({parts["directive"]: parts["value"]}, {}, file, "nut_server")
        text = settings.write_settings(merged, file)
        assert values.find_wrong_values({file: text}, None) == []
        if parts["directive"].startswith("POLLFREQ"):
            assert 0 < float(parts["value"]) < consistency.IDLE_SECONDS
    elif form == "limit":
        assert specs["nut_client_shutdown_limit"]["type"] == "int"
        assert parts["value"].isdigit()
    elif form in ("delays", "mark"):
        assert supply is not None
        check_device(form, parts, supply)


def check_device(form: str, parts: dict[str, str], supply: Supply) -> None:
    driver = supply.driver or "usbhid-ups"
    device: dict[str, Any] = {"name": supply.name, "driver": driver, "port": "auto"}
    if form == "mark":
        value = 30 if parts["value"] == "that charge" else float(parts["value"])
        device.update(ignorelb=True, override={f"battery.{parts['what']}.low": value})
        # drivers/main.c: fatal if the driver does not know what the mark is compared with
        is_known = supply.charge is not None if parts["what"] == "charge" else supply.reports_runtime is not False
        assert is_known or (supply.runtime is None and supply.reports_runtime is None)
        assert parts["what"] != "charge" or 0 < value <= 100
    else:
        given = {parts["first"]: parts["value"], **({"ondelay": parts["on"]} if parts["on"] else {})}
        device["options"] = given
        real = "usbhid-ups" if driver == "auto" else driver
        assert real in TAKEN, f"{driver} has no {parts['first']}"
        if parts["first"] == "offdelay":
            assert int(parts["value"]) in TAKEN[real]
    assert settings.write_devices([device])


def check_remedies(site: PlanSite) -> int:
    """Check all remedies of a plan. Return how many settings they have."""
    count = 0
    plan = site.make_plan()
    for constraint in plan.constraints:
        supply = next((each for each in site.supplies if each.name == constraint.about), site.supplies[0])
        named = re.search(r"(?:for|under) (\S+) in nut_server_devices", constraint.remedy)
        supply = next((each for each in site.supplies if named and each.name == named[1]), supply)
        for form, parts in list_settings(constraint.remedy):
            check_setting(form, parts, supply)
            count += 1
    return count


@pytest.mark.parametrize("driver", ALL_DRIVERS)
def test_delays_of_each_driver_are_ones_that_it_takes(driver: str) -> None:
    checked = 0
    makers = ("APC", "CPS") if driver in ("usbhid-ups", "auto") else ("APC",)
    for off, on, killpower, mfr in itertools.product((None, 3, 61), (None, 5), (10, 650, 7000), makers):
        ups = {"driver": driver, "offdelay": off, "ondelay": on, "mfr": mfr}
        checked += check_remedies(UNSTAGED.change_ups(**ups).change_timing(killpower=killpower))
    assert checked > 0


@pytest.mark.parametrize("driver", ["usbhid-ups", "nutdrv_qx", "huawei-ups2000", "snmp-ups"])
@pytest.mark.parametrize("killpower", [10, 65, 300])
def test_delays_of_a_remedy_satisfy_the_plan(driver: str, killpower: int) -> None:
    site = UNSTAGED.change_ups(driver=driver, offdelay=6, ondelay=60).change_timing(killpower=killpower)
    found = {form: parts for each in site.make_plan().constraints for form, parts in list_settings(each.remedy)}
    delays = found["delays"]
    site = site.change_ups(offdelay=float(delays["value"]), ondelay=float(delays["on"] or 60))
    assert [
        each.remedy for each in site.make_plan().constraints if each.name in ("offdelay", "ondelay") and not each.holds
    ] == []


@pytest.mark.parametrize("reports_runtime", [None, True, False])
@pytest.mark.parametrize("ignorelb", [True, False])
@pytest.mark.parametrize("runtime_low", [None, AUTO, 200])
def test_marks_of_a_battery_are_ones_with_which_its_driver_starts(
    reports_runtime: bool | None, ignorelb: bool, runtime_low: float | str | None
) -> None:
    checked = 0
    for runtime, low, charge, charge_low in itertools.product(
        (None, 400, 3000), (None, 50, 2990), (None, 50), (None, 100)
    ):
        if reports_runtime is False and low is not None:
            continue
        ups = {"runtime": runtime, "runtime_low": low, "charge": charge, "charge_low": charge_low}
        site = UNSTAGED.change_ups(**ups, reports_runtime=reports_runtime, ignorelb=ignorelb)
        site = site.change_timing(runtime_low=runtime_low)
        checked += check_remedies(site)
        other = replace(site.supplies[0], name="router", powervalue=0)
        desk = PlanMachine("desk", "secondary", "linux", shutdown_time=30, ups="router")
        checked += check_remedies(replace(site.add_machines(desk), supplies=(UNSTAGED.supplies[0], other)))
    assert checked > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"hostsync": 1, "deadtime": 5, "maxage": 2, "poweroff_wait": 20},
        {"pollfreq": 90, "pollfreqalert": 100},
        {"reserve": 2000, "reserve_minimum": 1500},
        {"guests_time": 1},
        {"guests_time": None},
        {"release": "2.8.0", "settle": 0.5, "finaldelay": 40},
    ],
)
def test_directives_and_variables_of_a_remedy_are_accepted(changes: dict[str, Any]) -> None:
    for site in (
        SITE,
        UNSTAGED,
        SITE.add_machines(DOCKER),
        SITE.change_stage(runtime=10),
        SITE.change_machine("truenas", begin_time=90),
    ):
        check_remedies(site.change_timing(**changes))
    assert check_remedies(SITE.change_stage(runtime=10).change_timing(**changes)) > 0


@given(draw_site())
def test_any_plan_has_remedies_that_the_next_run_accepts(site: PlanSite) -> None:
    check_remedies(site)


@pytest.mark.parametrize("driver", ["tripplite_usb", "blazer_usb", "netxml-ups", "apcsmart"])
def test_driver_that_cannot_be_told_leaves_nothing_open(driver: str) -> None:
    plan = UNSTAGED.change_ups(driver=driver, offdelay=None, ondelay=None).make_plan()
    (constraint,) = [each for each in plan.constraints if each.name == "offdelay"]
    assert (constraint.holds, constraint.remedy) == (True, "")
    assert constraint.reason.endswith("Test it: make drill-live")


def test_simulated_ups_has_no_delays() -> None:
    plan = UNSTAGED.change_ups(driver=supplies.NO_UPS, offdelay=None, ondelay=None).make_plan()
    assert [each.name for each in plan.constraints if "delay" in each.name] == []
