# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import JournalEntry
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import ExpectedClient
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    UNKNOWN,
    WARNING,
    Finding,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import HostObservation
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.vocabulary import ABSENT
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.opened import OpenedNode
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    DEVICE,
    EXPECTED,
    FILES,
    NOW,
    SEEN,
    VARIABLES,
    find_problems,
    make_unit,
    make_ups,
    upsd_answer,
    with_text,
    with_unit,
    with_ups,
    with_variables,
)

if TYPE_CHECKING:
    from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice


def test_placeholder_counts_as_missing_ups() -> None:
    seen = with_text(
        "ups.conf", lambda _text: "maxretry = 3\n[ups]\n  driver = dummy-ups\n  port = nut-hotplug-absent.dev\n"
    )
    absent = make_ups(status=(ABSENT,))
    seen = replace(seen, served=upsd_answer(absent), watched={"ups@localhost:3493": upsd_answer(absent)}, devices=())
    assert [(finding.check, finding.verdict) for finding in find_problems(seen)] == [("usb", FAILURE)]


def test_section_without_keys_is_present_if_served() -> None:
    plain = {**FILES, "ups.conf": "maxretry = 3\n[ups]\n  driver = usbhid-ups\n  port = auto\n"}
    seen = with_text("ups.conf", lambda _text: plain["ups.conf"])
    unclear = replace(DEVICE, hid_power=None)
    assert find_problems(replace(seen, devices=(unclear,)), replace(EXPECTED, files=plain)) == []
    mouse = replace(DEVICE, hid_power=False)
    stale = make_ups(fresh=False, error="DATA-STALE", variables={})
    gone = replace(
        seen, devices=(mouse,), served=upsd_answer(stale), watched={"ups@localhost:3493": upsd_answer(stale)}
    )
    assert [finding.check for finding in find_problems(gone, replace(EXPECTED, files=plain))] == ["usb", "driver"]


# USB

KEYBOARD = replace(
    DEVICE, name="1-2", vendor_id="046d", product_id="c31c", product="USB Keyboard", serial="", device=5, hid_power=False,
    accessible=False,
)  # fmt: skip
BLUETOOTH = replace(KEYBOARD, name="1-3", vendor_id="8087", product_id="0026", product="", device=6)


def usb_findings(section: str, *devices: UsbDevice, ups: Any = None, **more: Any) -> list[tuple[str, str, str]]:
    """Return the doctor's findings of USB on a host whose ups.conf has a section with these lines."""
    seen = with_text("ups.conf", lambda _text: f"[ups]\n{section}")
    state = make_ups() if ups is None else ups
    seen = replace(
        seen, devices=devices, served=upsd_answer(state), watched={"ups@localhost:3493": upsd_answer(state)}, **more
    )
    found = examine_host(seen, EXPECTED)
    return [
        (finding.check, finding.verdict, finding.seen) for finding in found if finding.check in ("usb", "permissions")
    ]


KEYLESS = "driver = usbhid-ups\nport = auto\n"
STALE = make_ups(fresh=False, error="DATA-STALE", variables={})


@pytest.mark.parametrize("hid_power", [True, None])
@pytest.mark.parametrize("ups", [None, STALE])
def test_section_without_keys_takes_no_keyboard_for_its_ups(hid_power: bool | None, ups: Any) -> None:
    ups_there = replace(DEVICE, hid_power=hid_power)
    assert usb_findings(KEYLESS, BLUETOOTH, KEYBOARD, ups_there, ups=ups) == [
        ("permissions", OK, "ups: group nut can use /dev/bus/usb/001/004"),
        ("usb", OK, "ups: 051d:0002 Back-UPS"),
    ]


def test_section_without_keys_goes_by_the_ids_that_its_driver_reports() -> None:
    """A UPS that is no HID Power Device looks like any other device."""
    qx = replace(DEVICE, vendor_id="0665", product_id="5161", product="", hid_power=False)
    ups = make_ups(variables={**VARIABLES, "ups.vendorid": "0665", "ups.productid": "5161"})
    section = "driver = nutdrv_qx\nport = auto\n"
    assert usb_findings(section, KEYBOARD, qx, ups=ups)[-1] == ("usb", OK, "ups: 0665:5161")
    assert usb_findings(section, KEYBOARD, qx, ups=STALE)[0][:2] == ("usb", FAILURE)
    assert usb_findings(section, KEYBOARD, qx, ups=STALE, usb_ids={"0665:5161": ""})[-1] == (
        "usb",
        OK,
        "ups: 0665:5161",
    )


def test_device_that_is_not_certainly_the_ups_is_not_blamed() -> None:
    found = usb_findings("driver = nutdrv_qx\nport = auto\n", KEYBOARD, BLUETOOTH)
    assert found == [
        ("permissions", OK, "ups: upsd has fresh data from it"),
        ("usb", OK, "ups: one of 046d:c31c USB Keyboard, 8087:0026"),
    ]


def test_usbhid_ups_can_not_have_fresh_data_of_a_device_that_it_does_not_take() -> None:
    (finding,) = usb_findings(KEYLESS, KEYBOARD, BLUETOOTH)
    assert finding[:2] == ("usb", FAILURE)
    assert finding[2].endswith("so the data that upsd calls fresh may be old")


TABLE = {"051d:0002": "usbhid-ups", "0665:5161": "nutdrv_qx", "1a86:7523": "nutdrv_qx", "4234:0002": "usbhid-ups"}
MEGATEC = replace(
    DEVICE, name="1-4", vendor_id="0665", product_id="5161", product="", serial="", device=8, hid_power=False
)
CH340 = replace(MEGATEC, name="1-5", vendor_id="1a86", product_id="7523", device=9)
POWERVAR = replace(MEGATEC, name="1-6", vendor_id="4234", product_id="0002", device=10)


@pytest.mark.parametrize(
    ("driver", "ups", "others"),
    [
        ("usbhid-ups", DEVICE, (MEGATEC, CH340, KEYBOARD)),
        ("nutdrv_qx", MEGATEC, (DEVICE, CH340, KEYBOARD)),
        ("blazer_usb", MEGATEC, (DEVICE, CH340, KEYBOARD)),
        ("powervar_cx_usb", POWERVAR, (DEVICE, MEGATEC, CH340)),
    ],
)
def test_section_without_keys_means_a_ups_of_its_driver(
    driver: str, ups: UsbDevice, others: tuple[UsbDevice, ...]
) -> None:
    section = f"driver = {driver}\nport = auto\n"
    assert usb_findings(section, *others, ups, ups=STALE, usb_ids=TABLE)[-1] == (
        "usb",
        OK,
        f"ups: {ups.ids} {ups.product}".rstrip(),
    )
    (finding,) = usb_findings(section, *others, ups=STALE, usb_ids=TABLE)
    assert finding[:2] == ("usb", FAILURE)


def test_keys_that_match_a_keyboard_too_mean_the_ups() -> None:
    mouse = replace(KEYBOARD, vendor_id="051d", product_id="0099")
    assert usb_findings(KEYLESS + 'vendorid = "051d"\n', mouse, DEVICE) == [
        ("permissions", OK, "ups: group nut can use /dev/bus/usb/001/004"),
        ("usb", OK, "ups: 051d:0002 Back-UPS"),
    ]


@pytest.mark.parametrize(
    "section",
    [
        "driver = nutdrv_qx\nport = /dev/ttyS0\n",
        "driver = nutdrv_qx\nport = /dev/ttyACM0\n",
        "driver = nutdrv_qx\nport = /dev/usb/ttyUSB0\n",
        "driver = apcsmart\nport = /dev/usb/tts/0\n",
        "driver = blazer_ser\nport = /dev/ttyUSB0\n",
        "driver = snmp-ups\nport = 192.0.2.9\n",
        "driver = netxml-ups\nport = http://192.0.2.9\n",
        "driver = generic_modbus\nport = /dev/ttyUSB0\n",
        "driver = apc_modbus\nport = 192.0.2.9:502\nporttype = tcp\n",
        "driver = apc_modbus\nport = auto\nporttype = serial\n",
        "driver = nut-ipmipsu\nport = id1\n",
        "driver = nhs_ser\nport = auto\n",
        "driver = hwmon_ina219\nport = auto\n",
    ],
)
def test_ups_that_is_not_on_usb_has_no_usb_row(section: str) -> None:
    assert usb_findings(section, KEYBOARD, BLUETOOTH) == []
    assert usb_findings(section, troubles={"usb": "UsbError: no bus"}) == []


def test_apc_modbus_on_usb_is_looked_for_on_the_bus() -> None:
    section = 'driver = apc_modbus\nport = auto\nvendorid = "051d"\n'
    assert usb_findings(section, DEVICE)[-1] == ("usb", OK, "ups: 051d:0002 Back-UPS")


@pytest.mark.parametrize(("container", "words"), [("lxc", "in this container (lxc)"), ("", "as in a container")])
def test_missing_node_names_the_container(container: str, words: str) -> None:
    nodeless = replace(DEVICE, accessible=None, has_node=False)
    (finding, *_rest) = [
        finding
        for finding in examine_host(replace(SEEN, devices=(nodeless,), container=container), EXPECTED)
        if finding.check == "permissions"
    ]
    assert finding.verdict == FAILURE
    assert "/dev/bus/usb/001/004 does not exist" in finding.seen
    assert words in finding.seen
    assert "/dev/bus/usb with the container" in finding.todo
    assert "docs/doctor.md" in finding.todo


def test_node_without_rights_in_a_container_is_changed_on_its_host() -> None:
    seen = replace(SEEN, devices=(replace(DEVICE, accessible=False),), container="lxc")
    (problem,) = find_problems(seen)
    assert "group nut has no write permission" in problem.seen
    assert problem.todo.startswith("on the container's host")


def test_rights_are_unknown_without_the_group_nut() -> None:
    (problem,) = find_problems(replace(SEEN, devices=(replace(DEVICE, accessible=None),)))
    assert (problem.check, problem.verdict) == ("permissions", UNKNOWN)


# Several UPSes


def with_upses(*monitored: tuple[str, int], minsupplies: int = 1, clients: Any = (), **states: Any) -> tuple[Any, Any]:
    """Return an observation and the expectation of a host with several UPSes. monitored: each with its power value."""
    names = [*dict.fromkeys([*(name for name, _power in monitored), *states])]
    texts = {
        **FILES,
        "ups.conf": "".join(f"[{name}]\n  driver = snmp-ups\n  port = {name}.lan\n" for name in names),
        "upsmon.conf": FILES["upsmon.conf"]
        .replace(
            "MONITOR ups@localhost:3493 1 monitor one primary\n",
            "".join(f"MONITOR {name}@localhost:3493 {power} monitor one primary\n" for name, power in monitored),
        )
        .replace("MINSUPPLIES 1", f"MINSUPPLIES {minsupplies}"),
    }
    seen = SEEN
    for name, text in texts.items():
        seen = with_text(name, lambda _text, text=text: text, seen)
    upses = [make_ups(name=name, clients=("127.0.0.1", "192.0.2.20"), **states.get(name, {})) for name in names]
    answer = upsd_answer(*upses)
    seen = replace(
        seen,
        devices=(),
        served=answer,
        watched={f"{name}@localhost:3493": answer for name, _power in monitored},
        units={**seen.units, **{f"nut-driver@{name}.service": make_unit() for name in names}},
    )
    return seen, replace(EXPECTED, files=texts, clients=clients)


LOW = {"status": ("OB", "LB")}
MUTE = {"fresh": False, "error": "DATA-STALE", "variables": {}, "status": ()}
NAS_ON_ROUTER = (ExpectedClient("nas", "192.0.2.20", "router"),)
ROUTER = (("rack", 1), ("router", 0))
PAIR = (("rack", 1), ("desk", 1))


@pytest.mark.parametrize("flags", [("OB",), ("OB", "LB"), ("OL", "LB"), ("OFF",), ("OL", "OVER")])
def test_ups_that_powers_nothing_gives_warnings_only(flags: tuple[str, ...]) -> None:
    seen, expected = with_upses(*ROUTER, router={"status": flags})
    found = [finding for finding in find_problems(seen, expected) if finding.check == "status"]
    assert {finding.verdict for finding in found} == {WARNING}
    assert all("router: " in finding.seen and "it powers nothing" in finding.seen for finding in found)


def test_low_ups_of_secondaries_is_a_warning_that_names_them() -> None:
    seen, expected = with_upses(*ROUTER, clients=NAS_ON_ROUTER, router=LOW)
    found = [finding for finding in find_problems(seen, expected) if finding.check == "status"]
    assert {finding.verdict for finding in found} == {WARNING}
    assert all(finding.seen.endswith("it powers nas") for finding in found)


def test_low_ups_of_this_host_is_a_failure() -> None:
    seen, expected = with_upses(*ROUTER, rack=LOW)
    assert FAILURE in {finding.verdict for finding in find_problems(seen, expected) if finding.check == "status"}


def test_redundant_host_stays_up_on_its_other_ups() -> None:
    seen, expected = with_upses(*PAIR, rack=LOW)
    found = [finding for finding in find_problems(seen, expected) if finding.check == "status"]
    assert all(finding.seen.endswith("this host stays up on desk") for finding in found)
    both, expected = with_upses(*PAIR, minsupplies=2, rack=LOW)
    assert not [finding for finding in find_problems(both, expected) if "stays up" in finding.seen]


@pytest.mark.parametrize("state", [MUTE, {**MUTE, "error": "DRIVER-NOT-CONNECTED"}])
@pytest.mark.parametrize(
    ("clients", "verdict"), [((), WARNING), (NAS_ON_ROUTER, FAILURE)], ids=["powers nothing", "powers nas"]
)
def test_silent_ups_fails_only_if_a_machine_needs_it(state: Any, clients: Any, verdict: str) -> None:
    seen, expected = with_upses(*ROUTER, clients=clients, router=state)
    found = [finding for finding in find_problems(seen, expected) if finding.check == "driver"]
    assert [finding.verdict for finding in found] == [verdict]


def test_found_ups_that_is_gone_is_no_failure() -> None:
    seen, expected = with_upses(("ups", 1), ups2={**MUTE, "error": "DRIVER-NOT-CONNECTED"})
    text = "[ups]\n  driver = snmp-ups\n  port = ups.lan\n[ups2]\n  driver = usbhid-ups\n  port = auto\n  vendorid = 0764\n"
    seen = with_unit("nut-driver@ups2.service", make_unit("failed"), with_text("ups.conf", lambda _text: text, seen))
    problems = [finding for finding in find_problems(seen, expected) if finding.check not in ("login", "files")]
    assert {finding.check for finding in problems} == {"units", "usb", "driver"}
    assert {finding.verdict for finding in problems} == {WARNING}


def upsmon_findings(seen: Any, expected: Any) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.seen) for finding in examine_host(seen, expected) if finding.check == "upsmon"]


def test_upsmon_row_says_what_each_ups_powers() -> None:
    assert upsmon_findings(*with_upses(*ROUTER, clients=NAS_ON_ROUTER))[-1] == (
        OK,
        "rack powers this host; router powers nas; this host goes down when rack is low",
    )
    assert "is redundant: it stays up on rack or desk alone" in upsmon_findings(*with_upses(*PAIR))[-1][1]
    assert "it goes down when rack or desk is low" in upsmon_findings(*with_upses(*PAIR, minsupplies=2))[-1][1]


@pytest.mark.parametrize("state", [MUTE, {"status": (ABSENT,)}])
def test_silent_redundant_ups_keeps_upsmon_waiting(state: Any) -> None:
    """A UPS without data counts as one that gives power (real upsmon 2.8.0)."""
    seen, expected = with_upses(*PAIR, desk=state)
    (found,) = [finding for finding in upsmon_findings(seen, expected) if "upsmon waits for desk" in finding[1]]
    assert found[0] == FAILURE
    assert "nut-stages, which would do it, does not run" in found[1]
    covered = with_unit("nut-stages.service", make_unit(), seen)
    (found,) = [finding for finding in upsmon_findings(covered, expected) if "upsmon waits for desk" in finding[1]]
    assert found[0] == WARNING
    assert found[1].endswith("nut-stages does it instead")


def test_silent_ups_of_a_host_that_needs_both_keeps_nothing_waiting() -> None:
    seen, expected = with_upses(*PAIR, minsupplies=2, desk=MUTE)
    assert not [finding for finding in upsmon_findings(seen, expected) if "waits" in finding[1]]


def test_driver_without_usb_needs_no_device() -> None:
    snmp = {**FILES, "ups.conf": "maxretry = 3\n[ups]\n  driver = snmp-ups\n  port = 192.0.2.9\n"}
    seen = replace(with_text("ups.conf", lambda _text: snmp["ups.conf"]), devices=())
    assert find_problems(seen, replace(EXPECTED, files=snmp)) == []


# Battery


@pytest.mark.parametrize(
    ("date", "verdict"), [("2024/01/01", OK), ("2023/01/01", NOTE), ("06/01/20", WARNING), ("not set", OK)]
)
def test_battery_verdict_depends_on_age(date: str, verdict: str) -> None:
    assert [
        finding.verdict
        for finding in examine_host(with_variables(battery_date=date), EXPECTED)
        if finding.check == "battery"
    ] == [verdict]


def test_battery_of_unknown_age_is_ok() -> None:
    seen = with_ups(variables={key: value for key, value in VARIABLES.items() if key != "battery.date"})
    assert "does not report its battery's age" in next(
        finding.seen for finding in examine_host(seen, EXPECTED) if finding.check == "battery"
    )


# Fresh is not alive


HELD = OpenedNode(DEVICE.bus, DEVICE.device)
GONE_LINE = "nut_libusb_get_report: No such device (it may have been disconnected)"


def driver_finding(seen: HostObservation) -> Finding:
    (finding,) = [finding for finding in examine_host(seen, EXPECTED) if finding.check == "driver"]
    return finding


def log_driver(line: str, *ages: float) -> tuple[JournalEntry, ...]:
    return tuple(JournalEntry(NOW - age, "nut-driver@ups.service", line) for age in ages)


def test_driver_with_its_device_open_is_ok() -> None:
    assert driver_finding(replace(SEEN, opened={"ups": (HELD,)})).verdict == OK


@pytest.mark.parametrize(
    "node", [OpenedNode(1, 3), OpenedNode(1, 4, is_deleted=True)], ids=["old number", "number used again"]
)
def test_driver_of_reset_ups_fails(node: OpenedNode) -> None:
    finding = driver_finding(replace(SEEN, opened={"ups": (node,)}))
    assert finding.verdict == FAILURE
    assert finding.seen == (
        f"ups: upsd serves old data as fresh (OL CHRG): its driver has {node.path} open, which is gone; its UPS is now "
        "/dev/bus/usb/001/004"
    )
    assert finding.todo == "systemctl restart nut-driver@ups"


@pytest.mark.parametrize(
    ("release", "is_hasty"), [((2, 8, 0), False), ((2, 8, 1), True), ((2, 8, 3), False), (None, True)]
)
def test_remedy_on_battery_depends_on_release(release: tuple[int, int, int] | None, is_hasty: bool) -> None:
    seen = replace(with_ups(status=("OB", "DISCHRG")), opened={"ups": (OpenedNode(1, 3),)}, release=release)
    todo = driver_finding(seen).todo
    assert ("stop upsmon on each machine" in todo) is is_hasty
    assert "systemctl restart nut-driver@ups" in todo


def test_fresh_data_of_absent_ups_are_a_failure() -> None:
    seen = replace(SEEN, devices=(replace(DEVICE, vendor_id="8087", device=2),))
    (failure,) = find_problems(seen)
    assert (failure.check, failure.verdict) == ("usb", FAILURE)
    assert failure.seen.endswith("so the data that upsd calls fresh may be old")
    assert driver_finding(seen).seen == "ups: upsd calls its data fresh (OL CHRG), but its UPS is not on the USB bus"


def test_served_ups_of_a_host_without_usb_is_not_blamed() -> None:
    seen = replace(SEEN, devices=(), has_usb=False)
    assert find_problems(seen) == []
    assert driver_finding(seen).verdict == OK


def test_unserved_ups_of_a_host_without_usb_is_a_failure() -> None:
    seen = replace(
        with_ups(fresh=False, status=(), variables={}, error="DRIVER-NOT-CONNECTED"), devices=(), has_usb=False
    )
    (failure,) = [finding for finding in find_problems(seen) if finding.check == "usb"]
    assert (
        failure.seen
        == "ups is not on the USB bus (this host has none; a virtual machine needs the UPS passed through to it)"
    )


def test_driver_whose_ups_the_kernel_has_fails() -> None:
    assert driver_finding(replace(SEEN, claims={"1-1": True})).verdict == OK
    finding = driver_finding(replace(SEEN, claims={"1-1": False}))
    assert (finding.verdict, finding.seen) == (
        FAILURE,
        "ups: upsd serves old data as fresh (OL CHRG): its driver does not have its UPS open, /dev/bus/usb/001/004, which the "
        "kernel's own driver has",
    )


def test_repeated_error_is_a_warning() -> None:
    finding = driver_finding(replace(SEEN, journal=log_driver("nut_libusb_get_report: Input/output error", 2, 4, 6)))
    assert finding.verdict == WARNING
    assert "may serve old data" in finding.seen


def test_repeated_loss_fails_if_open_files_are_unknown() -> None:
    assert driver_finding(replace(SEEN, journal=log_driver(GONE_LINE, 2, 4, 6))).verdict == FAILURE
    assert driver_finding(replace(SEEN, journal=log_driver(GONE_LINE, 2))).verdict == OK


@pytest.mark.parametrize(
    ("status", "seconds", "verdict"),
    [(("OB", "DISCHRG"), 200, WARNING), (("OB", "DISCHRG"), 100, OK), (("OL",), 5000, OK)],
)
def test_still_values_on_battery_are_a_warning(status: tuple[str, ...], seconds: float, verdict: str) -> None:
    assert driver_finding(replace(with_ups(status=status), still={"ups": seconds})).verdict == verdict
