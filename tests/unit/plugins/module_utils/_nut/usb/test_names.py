# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf_text import (
    compose_text,
    found_sections,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus, fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import FOUND_MOST, resolve_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy, check_policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.resolution import KnownUpses, NameResolution
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    APC,
    APC_ELSEWHERE,
    APC_TWO,
    AUTO,
    BUSES,
    CPS,
    CPS_BUS2,
    CPS_ELSEWHERE,
    CPS_HUB,
    CPS_TWIN,
    DEFAULT,
    ECOFLOW,
    NAMELESS,
    POLICIES,
    POWERCOM,
    R80,
    R81,
    R83,
    RELEASES,
    SERIAL,
    TWO,
    Host,
    after,
    conf,
    keys,
    known,
    knowns,
    told,
    ups,
)
from hypothesis import given

if TYPE_CHECKING:
    pass

# Which UPS is which


def test_the_first_ups_gets_the_declared_name() -> None:
    res = Host().resolve(APC)
    pins = (("vendorid", "051d"), ("productid", "0002"), ("serial", "5B1234T56789"))
    assert res.conf.sections["ups"].keys == (
        ("driver", "usbhid-ups"),
        ("port", "auto"),
        ("desc", "Rack"),
        *pins,
        ("pollinterval", "5"),
    )
    assert (res.found, res.absent, res.unserved, res.remarks) == (frozenset(), (), (), ())
    assert res.plugged == {"ups": APC}
    assert res.memory == {"ups": fingerprint.make_fingerprint(APC.device)}


def test_without_a_wish_each_ups_is_found() -> None:
    host = Host(None)
    res = host.settle(APC, CPS_ELSEWHERE, CPS_BUS2)
    assert list(res.conf.sections) == ["ups", "ups2", "ups3"]
    assert res.found == {"ups", "ups2", "ups3"}


def test_a_declared_ups_that_was_never_there() -> None:
    res = Host().resolve()
    assert res.conf.sections["ups"].keys == (
        ("driver", "usbhid-ups"),
        ("port", "auto"),
        ("desc", "Rack"),
        ("pollinterval", "5"),
    )
    assert res.absent == ("ups",)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param((APC,), (), id="unplug"),
        pytest.param((APC,), (APC_ELSEWHERE,), id="replug elsewhere, with a serial"),
        pytest.param((CPS,), (CPS_ELSEWHERE,), id="replug elsewhere, without a serial"),
        pytest.param((CPS,), (CPS_BUS2,), id="replug on another bus, without a serial"),
        pytest.param((CPS,), (CPS_HUB,), id="replug behind a hub"),
        pytest.param((CPS,), (replace(CPS, device=replace(CPS.device, device=99)),), id="new device number"),
        pytest.param((POWERCOM,), (replace(POWERCOM, driver="", why="ups.conf names it"),), id="nut-scanner failing"),
        pytest.param((POWERCOM,), (replace(POWERCOM, driver="usbhid-ups", why=bus.GUESS),), id="a guess is no news"),
        pytest.param((APC, CPS_TWIN), (CPS_TWIN, APC_ELSEWHERE), id="two, one moved"),
        pytest.param((CPS, CPS_TWIN), (CPS,), id="a twin goes"),
        pytest.param((CPS, CPS_TWIN), (), id="both twins go"),
    ],
)
@pytest.mark.parametrize("release", [R80, R81])
def test_the_file_stays(before: tuple[UsbUps, ...], now: tuple[UsbUps, ...], release: tuple[int, int, int]) -> None:
    host = Host(TWO, release=release)
    was = host.settle(*before)
    res = host.resolve(*now)
    # on 2.8.0 twins on one bus can't be told apart: the absent one must not take the other
    names = (
        ["ups"] if release == R80 and len(now) == 1 and len(before) == 2 and before[0] == CPS else [*was.conf.sections]
    )
    assert {name: res.conf.sections[name] for name in names} == {name: was.conf.sections[name] for name in names}
    assert res.remarks == () or release == R80
    assert list(res.plugged) == [name for name in was.plugged if name in res.plugged]


@pytest.mark.parametrize(
    ("new", "driver"),
    [pytest.param(CPS, "usbhid-ups", id="same driver"), pytest.param(POWERCOM, "nutdrv_qx", id="other driver")],
)
def test_a_swapped_ups_takes_the_name(new: UsbUps, driver: str) -> None:
    host = Host()
    host.settle(APC)
    res = host.resolve(new)
    assert keys(res.conf.sections["ups"])["driver"] == driver
    assert keys(res.conf.sections["ups"])["vendorid"] == new.device.vendor_id
    assert "serial" not in keys(res.conf.sections["ups"])
    assert res.memory["ups"] == fingerprint.make_fingerprint(new.device)


def test_without_takeover_only_a_name_that_never_had_a_ups_is_taken() -> None:
    host = Host(TWO, UsbPolicy(takeover=False))
    host.settle(APC)
    assert list(host.resolve(CPS).plugged) == ["spare"]
    host.settle(APC, CPS_ELSEWHERE)
    res = host.resolve(POWERCOM)
    assert list(res.plugged) == ["ups2"]
    # the state was lost, but the file still says whose the names are
    host.known = replace(host.known, memory={}, written={})
    assert list(host.resolve(POWERCOM).plugged) == ["ups2"]


def test_a_swap_takes_the_name_of_its_model_first() -> None:
    host = Host(TWO)
    host.settle(CPS, APC_TWO)
    assert list(host.resolve(APC).plugged) == ["spare"]
    assert list(host.resolve(POWERCOM).plugged) == ["ups"]


def test_a_declared_name_comes_before_a_found_one() -> None:
    host = Host()
    host.settle(CPS, APC_TWO)
    assert list(host.known.conf.sections) == ["ups", "ups2"]
    host.known = replace(host.known, conf=UpsConf((), dict(reversed(host.known.conf.sections.items()))))
    assert list(host.resolve(POWERCOM).plugged) == ["ups"]


def test_a_second_ups_is_found_and_changes_nothing() -> None:
    host = Host()
    was = host.settle(APC)
    res = host.resolve(APC, CPS_ELSEWHERE)
    assert res.found == {"ups2"}
    assert res.conf.sections["ups"] == was.conf.sections["ups"]
    assert list(res.conf.sections) == ["ups", "ups2"]


def test_unknown_ones_are_left_alone_if_so_wished() -> None:
    host = Host(policy=UsbPolicy(default_name=""))
    host.settle(APC)
    res = host.resolve(APC, CPS_ELSEWHERE)
    assert list(res.conf.sections) == ["ups"]
    assert [(one, "policy" in why) for one, why in res.unserved] == [(CPS_ELSEWHERE, True)]


def test_a_name_is_free_in_no_case() -> None:
    host = Host(None)
    host.known = known(None, SERIAL.replace("old", "UPS") + "\n" + SERIAL.replace("old", "Ups2"))
    assert list(host.resolve(APC).plugged) == ["ups3"]


@pytest.mark.parametrize("release", [R80, R81])
@pytest.mark.parametrize(
    ("twin", "alike"),
    [
        pytest.param(CPS_TWIN, (R80,), id="same bus"),
        pytest.param(CPS_BUS2, (), id="other bus"),
        pytest.param(CPS_HUB, (R80, R81), id="behind a hub"),
    ],
)
def test_two_identical(twin: UsbUps, alike: tuple[tuple[int, int, int], ...], release: tuple[int, int, int]) -> None:
    host = Host(TWO, release=release)
    res = host.settle(CPS, twin)
    means = [
        [name for name, section in res.conf.sections.items() if fingerprint.matches_device(section, one.device)]
        for one in (CPS, twin)
    ]
    if release in alike:
        assert any("can't be told" in remark for remark in res.remarks)
        assert {remark[:5] for remark in res.remarks} <= {"[ups]", "[spar"}
    else:
        assert means == [["ups"], ["spare"]]
        assert res.remarks == ()
    # each keeps its name, also when they are seen in another order
    assert {name: one.device.name for name, one in host.resolve(twin, CPS).plugged.items()} == {
        "ups": CPS.device.name,
        "spare": twin.device.name,
    }


def test_pins_by_place_go_when_they_are_no_longer_true() -> None:
    host = Host(TWO)
    host.settle(CPS, CPS_TWIN)
    assert "busport" in keys(host.known.conf.sections["spare"])
    moved = ups("0764:0501", port="1-3.2")
    res = host.resolve(moved)
    (name,) = res.plugged
    assert "busport" not in keys(res.conf.sections[name])


def test_pins_that_we_would_not_make_go() -> None:
    host = Host(None)
    res = host.settle(APC)
    pinned = Section("ups", (*res.conf.sections["ups"].keys, ("device", "004")))
    host.known = replace(host.known, conf=UpsConf((), {"ups": pinned}), written={})
    assert host.resolve(APC).conf == res.conf


def test_two_of_one_serial_number_keep_their_places() -> None:
    host = Host(TWO)
    copy = replace(APC, device=replace(APC.device, name="1-4", place=CPS_TWIN.device.place))
    host.settle(APC, copy)
    assert host.resolve(copy, APC).plugged == {"ups": APC, "spare": copy}


def test_twins_that_both_moved_keep_their_names_somehow() -> None:
    host = Host(TWO)
    host.settle(CPS, CPS_TWIN)
    res = host.resolve(CPS_BUS2, ups("0764:0501", port="2-2"))
    assert list(res.plugged) == ["ups", "spare"]
    assert not res.found


def test_an_absent_driver_keeps_its_hands_off_another_ups() -> None:
    host = Host(TWO)
    res = host.settle(CPS)
    assert keys(res.conf.sections["spare"])["vendorid"] == "none"
    assert not fingerprint.matches_device(res.conf.sections["spare"], CPS.device)
    # another driver would not take it
    host = Host(TWO)
    assert "vendorid" not in keys(host.settle(POWERCOM).conf.sections["spare"])
    # and it is no pin of a UPS that it had
    host = Host(TWO, UsbPolicy(takeover=False))
    host.settle(CPS)
    host.known = replace(host.known, memory={"ups": host.known.memory["ups"]})
    assert host.resolve(CPS, APC_TWO).plugged["spare"] == APC_TWO


def test_declared_keys_that_mean_another_are_not_parked_but_told() -> None:
    host = Host(AUTO + '[spare]\n    driver = "auto"\n    vendorid = "07.*"\n')
    host.known = replace(host.known, memory={"ups": fingerprint.make_fingerprint(CPS.device)})
    res = host.resolve(CPS)
    assert keys(res.conf.sections["spare"])["vendorid"] == "07.*"
    assert any(remark.startswith("[spare]") and "0764:0501" in remark for remark in res.remarks)


def test_a_hundred_devices() -> None:
    upses = [
        ups("051d:0002", f"5B{number}T{number * 7919 % 99991:05d}", f"{number // 50 + 1}-{number % 50 + 1}")
        for number in range(100, 200)
    ]
    host = Host()
    res = host.settle(*upses)
    assert len(res.plugged) == 100
    assert [*res.conf.sections][:3] == ["ups", "ups2", "ups3"]
    assert {name: one.device.serial for name, one in host.resolve(*reversed(upses)).plugged.items()} == {
        name: one.device.serial for name, one in res.plugged.items()
    }


# What is declared


def test_declared_keys_are_stronger_than_pins_and_options() -> None:
    wanted = '[ups]\n    driver = "auto"\n    VendorID = "051."\n    pollinterval = "7"\n'
    policy = check_policy(
        {"rules": [{"vendor": "051d", "options": {"pollinterval": 9, "pollonly": True, "productid": "000."}}]}
    )
    section = resolve_names(known(wanted), [APC], policy, R81).conf.sections["ups"]
    assert section.keys == (
        ("driver", "usbhid-ups"),
        ("port", "auto"),
        ("serial", "5B1234T56789"),
        ("VendorID", "051."),
        ("pollinterval", "7"),
        ("pollonly", None),
        ("productid", "000."),
    )


def test_a_declared_ups_is_no_other() -> None:
    wanted = '[apc]\n    driver = "auto"\n    vendorid = "051d"\n\n[any]\n    driver = "auto"\n'
    assert list(resolve_names(known(wanted), [CPS], DEFAULT, R81).plugged) == ["any"]
    assert list(resolve_names(known(wanted), [APC], DEFAULT, R81).plugged) == ["apc"]
    # memory does not help against what is declared anew
    memory = {"apc": fingerprint.make_fingerprint(CPS.device)}
    assert list(resolve_names(known(wanted, memory=memory), [CPS], DEFAULT, R81).plugged) == ["any"]


def test_the_most_particular_declaration_comes_first() -> None:
    wanted = '[any]\n    driver = "auto"\n\n[apc]\n    driver = "auto"\n    vendorid = "051d"\n'
    assert list(resolve_names(known(wanted), [APC, CPS], DEFAULT, R81).plugged) == ["any", "apc"]
    assert resolve_names(known(wanted), [APC], DEFAULT, R81).plugged == {"apc": APC}


def test_what_is_declared_anew_reaches_an_absent_ups() -> None:
    host = Host(policy=check_policy({"rules": [{"vendor": "051d", "options": {"pollonly": True}}]}))
    host.settle(APC)
    host.known = replace(host.known, wanted=conf('[ups]\n    driver = "auto"\n    desc = "Cellar"\n'))
    assert host.resolve().conf.sections["ups"].keys == (
        ("driver", "usbhid-ups"),
        ("port", "auto"),
        ("desc", "Cellar"),
        ("vendorid", "051d"),
        ("productid", "0002"),
        ("serial", "5B1234T56789"),
        ("pollonly", None),
    )


def test_a_key_that_the_release_lacks_is_left_out() -> None:
    policy = check_policy({"rules": [{"vendor": "051d", "options": {"subdriver": "apc", "pollonly": True}}]})
    res = resolve_names(known(), [APC], policy, R80)
    assert "subdriver" not in keys(res.conf.sections["ups"])
    assert "pollonly" in keys(res.conf.sections["ups"])
    assert any("subdriver" in remark for remark in res.remarks)
    assert "subdriver" in keys(resolve_names(known(), [APC], policy, R81).conf.sections["ups"])


def test_an_unknown_release_is_the_oldest() -> None:
    assert resolve_names(known(TWO), [CPS, CPS_TWIN], DEFAULT, None) == resolve_names(
        known(TWO), [CPS, CPS_TWIN], DEFAULT, R80
    )


# Fixed sections


def test_a_fixed_section_claims_its_ups() -> None:
    wanted = '[mine]\n    driver = "usbhid-ups"\n    port = "auto"\n    vendorid = "0764"\n\n' + AUTO
    host = Host(wanted)
    res = host.settle(CPS)
    assert list(res.plugged) == ["mine"]
    assert res.fixed == {"mine"}
    assert res.conf.sections["mine"] == conf(wanted).sections["mine"]
    assert list(host.resolve(CPS, APC_TWO).plugged) == ["mine", "ups"]


def test_a_fixed_section_without_a_key_claims_one_of_its_driver() -> None:
    wanted = '[mine]\n    driver = "nutdrv_qx"\n    port = "auto"\n\n' + AUTO
    assert list(resolve_names(known(wanted), [CPS], DEFAULT, R81).plugged) == ["ups"]
    assert list(resolve_names(known(wanted), [POWERCOM], DEFAULT, R81).plugged) == ["mine"]


def test_the_most_particular_fixed_section_claims_first() -> None:
    wanted = (
        '[all]\n    driver = "usbhid-ups"\n    port = "auto"\n\n'
        '[one]\n    driver = "usbhid-ups"\n    port = "auto"\n    serial = "5B1234T56789"\n'
    )
    assert resolve_names(known(wanted), [APC], DEFAULT, R81).plugged == {"one": APC}
    assert resolve_names(known(wanted), [APC, CPS], DEFAULT, R81).plugged == {"all": CPS, "one": APC}


def test_a_fixed_section_leaves_others_theirs_and_its_looseness_is_told() -> None:
    wanted = '[mine]\n    driver = "usbhid-ups"\n    port = "auto"\n\n' + AUTO
    memory = {"ups": fingerprint.make_fingerprint(APC.device)}
    res = resolve_names(known(wanted, memory=memory), [APC, CPS_ELSEWHERE], DEFAULT, R81)
    assert res.plugged == {"mine": CPS_ELSEWHERE, "ups": APC}
    assert any(remark.startswith("[mine]") and "051d:0002" in remark for remark in res.remarks)
    memory = {"mine": fingerprint.make_fingerprint(CPS_TWIN.device)}
    res = resolve_names(known(wanted, memory=memory), [CPS, CPS_TWIN], DEFAULT, R81)
    assert res.plugged["mine"] == CPS_TWIN


@pytest.mark.parametrize(
    "section",
    [
        SERIAL,
        '[old]\n    driver = "dummy-ups"\n    port = "auto"\n',
        '[old]\n    driver = "snmp-ups"\n    port = "192.0.2.7"\n',
        '[old]\n    driver = "nutdrv_qx"\n    port = "/dev/ttyUSB0"\n',
        '[old]\n    port = "auto"\n',
    ],
)
def test_a_section_of_no_usb_driver_claims_nothing(section: str) -> None:
    res = resolve_names(known(section + AUTO), [replace(POWERCOM)], DEFAULT, R81)
    assert list(res.plugged) == ["ups"]
    assert res.absent == ()


@pytest.mark.parametrize("port", ["auto", "/dev/bus/usb/001/002", "anything"])
def test_a_usb_driver_does_not_care_for_its_port(port: str) -> None:
    wanted = f'[mine]\n    driver = "usbhid-ups"\n    port = "{port}"\n'
    assert list(resolve_names(known(wanted), [APC], DEFAULT, R81).plugged) == ["mine"]
    assert resolve_names(known(wanted), [], DEFAULT, R81).absent == ("mine",)


def test_ups_conf_edited_by_hand() -> None:
    host = Host(TWO)
    host.settle(APC, CPS_ELSEWHERE)
    edited = Section("ups", (*host.known.conf.sections["ups"].keys, ("pollonly", None)))
    host.known = replace(host.known, conf=UpsConf((), {**host.known.conf.sections, "ups": edited}))
    for upses in ((APC, CPS_ELSEWHERE), (POWERCOM, CPS_ELSEWHERE), ()):
        res = host.resolve(*upses)
        assert res.conf.sections["ups"] == edited
        assert res.fixed == {"ups"}
        assert [remark for remark in res.remarks if "[ups]" in remark and "by hand" in remark]
    assert "ups" not in host.resolve(POWERCOM).plugged
    # a play overrules it
    host.known = replace(host.known, written={})
    assert "pollonly" not in keys(host.resolve(APC, CPS_ELSEWHERE).conf.sections["ups"])


def test_notes_that_are_behind_the_file_are_no_edit() -> None:
    host = Host()
    host.settle(APC)
    old = host.known.written
    host.settle(CPS)
    host.known = replace(host.known, written=old)
    assert host.resolve(CPS).fixed == frozenset()
    assert host.resolve(CPS).remarks == ()


def test_a_found_section_edited_by_hand_stays() -> None:
    host = Host(None)
    host.settle(APC)
    edited = Section("ups", (*host.known.conf.sections["ups"].keys, ("pollonly", None)))
    host.known = replace(host.known, conf=UpsConf((), {"ups": edited}))
    res = host.resolve(APC)
    assert (res.conf.sections, res.found, res.fixed) == ({"ups": edited}, {"ups"}, {"ups"})


def test_a_section_made_by_hand_stays() -> None:
    made = '[mine]\n    driver = "blazer_usb"\n    port = "auto"\n'
    res = resolve_names(known(AUTO, made), [APC], DEFAULT, R81)
    assert res.conf.sections["mine"] == conf(made).sections["mine"]
    assert any(remark.startswith("[mine]") and "by hand" in remark for remark in res.remarks)
    # with no inventory there is nobody who does not know it
    assert resolve_names(known(None, made), [APC], DEFAULT, R81).remarks == ()


def test_a_fixed_section_follows_the_inventory_and_not_the_agent() -> None:
    old, new = SERIAL, SERIAL.replace("ttyS0", "ttyS1")
    assert resolve_names(known(new, old, play=True), [], DEFAULT, R81).conf == conf(new)
    # a play has left out what this release does not know, and people may have changed it since
    assert resolve_names(known(new, old), [], DEFAULT, R81).conf == conf(old)
    assert resolve_names(known(new), [], DEFAULT, R81).conf == conf(new)


def test_the_inventory_takes_a_found_name() -> None:
    host = Host(None)
    host.settle(APC)
    host.known = replace(host.known, wanted=conf(AUTO))
    res = host.resolve(APC)
    assert (res.found, keys(res.conf.sections["ups"])["desc"]) == (frozenset(), "Rack")
    # in another case, too: upsd makes no difference
    host.known = replace(host.known, wanted=conf(AUTO.replace("ups", "UPS")))
    res = host.resolve(APC)
    assert list(res.conf.sections) == ["UPS"]
    assert "[ups]" in res.remarks[0]


def test_settings_come_from_the_inventory() -> None:
    wanted, now = "maxretry = 3\n" + AUTO, 'maxretry = 9\n[x]\n driver = "d"\n'
    assert resolve_names(known(wanted, now, play=True), [], DEFAULT, R81).conf.settings == (("maxretry", "3"),)
    assert resolve_names(known(wanted, now), [], DEFAULT, R81).conf.settings == (("maxretry", "9"),)
    assert resolve_names(known(wanted), [], DEFAULT, R81).conf.settings == (("maxretry", "3"),)
    assert resolve_names(known(None, "maxretry = 9\n"), [], DEFAULT, R81).conf.settings == (("maxretry", "9"),)


def test_the_order_of_the_file_stays_and_news_stand_where_the_inventory_has_them() -> None:
    wanted = "".join(f'[{name}]\n    driver = "auto"\n' for name in "abcd")
    now = "".join(f'[{name}]\n    driver = "usbhid-ups"\n    port = "auto"\n' for name in ("z", "d", "b"))
    assert list(resolve_names(known(wanted, now), [], DEFAULT, R81).conf.sections) == ["a", "z", "d", "b", "c"]


# Rules


def test_a_rule_gives_name_driver_and_options() -> None:
    policy = check_policy(
        {"rules": [{"serial": "3B*", "name": "rack", "driver": "tripplite_usb", "options": {"offdelay": 30}}]}
    )
    res = resolve_names(known(), [APC, APC_TWO], policy, R81)
    assert list(res.plugged) == ["ups", "rack"]
    assert (res.plugged["rack"].driver, res.plugged["rack"].why) == ("tripplite_usb", "rule 1")
    assert keys(res.conf.sections["rack"])["offdelay"] == "30"
    assert res.found == {"rack"}


def test_a_rule_ignores() -> None:
    policy = check_policy({"rules": [{"serial": "5B*", "ignore": True}]})
    res = resolve_names(known(), [APC], policy, R81)
    assert (res.plugged, res.unserved, res.absent) == ({}, (), ("ups",))
    # a driver looks at it nevertheless
    policy = check_policy({"rules": [{"port": "1-1", "ignore": True}]})
    res = resolve_names(known(), [CPS, CPS_TWIN], policy, R81)
    assert not fingerprint.matches_device(res.conf.sections["ups"], CPS.device)


def test_a_rule_comes_before_memory_and_takes_the_name_as_it_is_spelled() -> None:
    host = Host(AUTO.replace("ups", "Main"))
    host.settle(APC)
    host.policy = check_policy({"rules": [{"vendor": "0764", "name": "main"}]})
    res = host.resolve(APC, CPS_ELSEWHERE)
    assert {name: one.device.ids for name, one in res.plugged.items()} == {"Main": "0764:0501", "ups": "051d:0002"}


def test_a_name_of_a_rule_waits_for_whom_the_rule_means() -> None:
    policy = check_policy({"rules": [{"serial": "5B*", "name": "ups"}]})
    assert list(resolve_names(known(None), [CPS], policy, R81).plugged) == ["ups2"]
    assert list(resolve_names(known(), [CPS], policy, R81).plugged) == ["ups2"]


def test_one_name_for_two() -> None:
    policy = check_policy({"rules": [{"vendor": "0764", "name": "rack"}]})
    res = resolve_names(known(None), [CPS, CPS_TWIN], policy, R81)
    assert {name: one.device.name for name, one in res.plugged.items()} == {"rack": "1-1", "ups": "1-4"}
    assert any("calls" in remark and "1.4" not in remark for remark in res.remarks)
    memory = {"rack": fingerprint.make_fingerprint(CPS_TWIN.device)}
    res = resolve_names(known(None, memory=memory), [CPS, CPS_TWIN], policy, R81)
    assert res.plugged["rack"] == CPS_TWIN


def test_of_two_for_one_name_the_one_that_had_it_keeps_it_also_elsewhere() -> None:
    policy = check_policy({"rules": [{"vendor": "051d", "name": "rack"}]})
    memory = {"rack": fingerprint.make_fingerprint(APC.device)}
    assert (
        resolve_names(known(None, memory=memory), [APC_TWO, APC_ELSEWHERE], policy, R81).plugged["rack"]
        == APC_ELSEWHERE
    )


def test_a_fixed_name_is_not_given_away() -> None:
    policy = check_policy({"rules": [{"vendor": "0764", "name": "OLD"}]})
    res = resolve_names(known(SERIAL + AUTO), [CPS], policy, R81)
    assert list(res.plugged) == ["ups"]
    assert any("rule 1" in remark and "[old]" in remark for remark in res.remarks)


def test_a_name_that_is_declared_for_another() -> None:
    policy = check_policy({"rules": [{"vendor": "0764", "name": "apc"}]})
    res = resolve_names(known('[apc]\n    driver = "auto"\n    vendorid = "051d"\n'), [CPS], policy, R81)
    assert list(res.plugged) == ["ups"]
    assert any("rule 1" in remark and "vendorid" in remark for remark in res.remarks)


# Drivers


def test_a_ups_without_a_driver_takes_no_name() -> None:
    res = resolve_names(known(), [NAMELESS], DEFAULT, R81)
    assert (list(res.plugged), res.absent) == ([], ("ups",))
    assert [(one, "rule" in why) for one, why in res.unserved] == [(NAMELESS, True)]
    policy = check_policy({"rules": [{"vendor": "ffff", "name": "rack"}]})
    assert list(resolve_names(known(), [NAMELESS], policy, R81).plugged) == []
    policy = check_policy({"rules": [{"vendor": "ffff", "driver": "blazer_usb"}]})
    assert resolve_names(known(), [NAMELESS], policy, R81).plugged["ups"].driver == "blazer_usb"


def test_a_hid_power_device_gets_usbhid_ups() -> None:
    one = replace(NAMELESS, device=replace(NAMELESS.device, hid_power=True))
    assert resolve_names(known(), [one], DEFAULT, R81).plugged["ups"].driver == "usbhid-ups"


def test_a_driver_of_the_table_corrects_an_older_guess() -> None:
    host = Host()
    host.settle(replace(POWERCOM, driver="usbhid-ups", why=bus.GUESS))
    assert keys(host.resolve(POWERCOM).conf.sections["ups"])["driver"] == "nutdrv_qx"


def test_the_driver_of_another_ups_is_not_kept() -> None:
    host = Host()
    host.settle(POWERCOM)
    guessed = replace(CPS, why=bus.GUESS)
    assert host.resolve(guessed).plugged["ups"].driver == "usbhid-ups"
    # the file had to wait, while the memory knows already
    host.known = replace(host.known, memory=host.resolve(guessed).memory)
    assert host.resolve(guessed).plugged["ups"].driver == "usbhid-ups"


@pytest.mark.parametrize(("release", "served"), [(R80, False), (R81, False), (R83, True)])
def test_ecoflow(release: tuple[int, int, int], served: bool) -> None:
    res = resolve_names(known(), [replace(ECOFLOW, driver="usbhid-ups")], DEFAULT, release)
    assert bool(res.plugged) is served
    assert all("2.8.3" in why for _unused, why in res.unserved)
    policy = check_policy({"rules": [{"vendor": "3746", "driver": "usbhid-ups"}]})
    assert resolve_names(known(), [ECOFLOW], policy, release).plugged


@pytest.mark.parametrize(
    ("now", "found"),
    [
        pytest.param("", (), id="file lost"),
        pytest.param('[ups]\n    driver = "dummy-ups"\n    port = "nut-hotplug-absent.dev"\n', ("ups",), id="stand-in"),
    ],
)
def test_remembered_ups_without_section_or_known_driver_gets_usbhid_ups_at_once(
    now: str, found: tuple[str, ...]
) -> None:
    device = replace(APC.device, hid_power=None)
    unknown = UsbUps(device, "", "ups.conf names it")
    memory = {"ups": fingerprint.make_fingerprint(device), "spare": fingerprint.make_fingerprint(device)}
    was = known(None if found else TWO, now, memory=memory, found=frozenset(found))
    res = resolve_names(was, [unknown], DEFAULT, R81)
    assert {name: served.driver for name, served in res.plugged.items()} == {"ups": "usbhid-ups"}
    again = resolve_names(after(was, res), [unknown], DEFAULT, R81)
    assert (again.conf, again.plugged) == (res.conf, res.plugged)


def test_found_name_whose_ups_a_fixed_section_has_does_not_make_a_moved_ups_ambiguous() -> None:
    """[ups2] goes because [mine] has its UPS, so the UPS that moved can only be that of [ups]."""
    plain = '    driver = "usbhid-ups"\n    port = "auto"\n'
    moved = replace(CPS_TWIN, driver="", device=replace(CPS_TWIN.device, hid_power=False))
    was = known(
        None,
        f"[ups]\n{plain}[ups2]\n{plain}[mine]\n{plain}",
        found=frozenset({"ups", "ups2"}),
        memory={
            "ups": fingerprint.make_fingerprint(CPS.device),
            "ups2": fingerprint.make_fingerprint(CPS_ELSEWHERE.device),
        },
    )
    res = resolve_names(was, [CPS_ELSEWHERE, moved], UsbPolicy(takeover=False), R81)
    assert {name: served.device.name for name, served in res.plugged.items()} == {"mine": "1-2", "ups": "1-4"}
    again = resolve_names(after(was, res), [CPS_ELSEWHERE, moved], UsbPolicy(takeover=False), R81)
    assert (again.conf, again.plugged) == (res.conf, res.plugged)


# Declared since


def declared_later(wanted: str, *upses: UsbUps) -> NameResolution:
    """A host whose UPSes were found, and whose inventory then names one."""
    host = Host(None)
    host.settle(*upses)
    assert "ups" in host.known.found
    host.known = replace(host.known, wanted=conf(wanted))
    res = host.resolve(*upses)
    host.known = after(host.known, res)
    assert host.resolve(*upses).conf == res.conf
    return res


def test_a_found_ups_is_declared_under_another_name() -> None:
    res = declared_later(AUTO.replace("ups", "my-ups"), APC)
    assert {name: one.device for name, one in res.plugged.items()} == {"my-ups": APC.device}
    assert (list(res.conf.sections), res.found) == (["my-ups"], frozenset())


def test_keys_say_which_of_two_is_declared() -> None:
    res = declared_later('[desk]\n    driver = "auto"\n    vendorid = "0764"\n', APC, CPS_ELSEWHERE)
    assert {name: one.device.ids for name, one in res.plugged.items()} == {"ups": APC.device.ids, "desk": "0764:0501"}
    assert res.found == {"ups"}


def test_which_of_two_is_declared_nobody_can_tell_without_keys() -> None:
    res = declared_later(AUTO.replace("ups", "desk"), APC, CPS_ELSEWHERE)
    assert {"ups", "ups2"} <= set(res.plugged)
    assert "desk" in res.absent


def test_a_name_that_had_a_ups_does_not_take_one_that_was_found() -> None:
    host = Host()
    host.settle(APC)
    host.settle(APC, CPS_ELSEWHERE)
    assert set(host.resolve(CPS_ELSEWHERE).plugged) == {"ups2"}
    assert host.resolve(CPS_ELSEWHERE).absent == ("ups",)


def test_a_found_name_goes_when_a_rule_gives_another() -> None:
    host = Host(None)
    host.settle(APC)
    host.policy = check_policy({"rules": [{"serial": APC.device.serial, "name": "desk"}]})
    res = host.resolve(APC)
    assert (list(res.conf.sections), set(res.plugged)) == (["desk"], {"desk"})
    assert told(host.plan(APC))[:2] == ["stop ups", "write"]
    host.policy = check_policy({"rules": [{"serial": APC.device.serial, "ignore": True}]})
    assert list(host.resolve(APC).conf.sections) == []


def test_names_that_are_found_come_to_an_end() -> None:
    host = Host(None, policy=UsbPolicy(takeover=False))
    for number in range(FOUND_MOST + 3):
        res = host.settle(ups("051d:0002", f"5B{number}T{number * 7919 % 99991:05d}"))
    assert len(res.found) == FOUND_MOST
    assert "found here already" in res.unserved[0][1]


# Anything


@given(knowns(), BUSES, POLICIES, RELEASES)
def test_properties_of_a_resolution(
    was: KnownUpses, upses: tuple[UsbUps, ...], policy: UsbPolicy, release: Any
) -> None:
    res = resolve_names(was, upses, policy, release)
    # NUT reads what is meant
    text = compose_text("# Header", res.conf, res.found)
    assert ups_conf.parse_ups_conf(text) == res.conf
    assert found_sections(text) == res.found
    assert res.found <= res.conf.sections.keys()
    # no fixed section changes
    wanted = was.wanted.sections if was.wanted else {}
    for name in res.fixed:
        assert res.conf.sections[name] in (was.conf.sections.get(name), wanted.get(name))
    for name, section in was.conf.sections.items():
        if name not in was.found and name not in wanted:
            assert res.conf.sections[name] == section
    # each UPS has one name, or a reason
    served = [*res.plugged.values()]
    devices = [one.device for one in (*served, *(one for one, _why in res.unserved))]
    assert len(devices) == len({device.name for device in devices})
    ignored = {one.device.name for one in upses if policy.is_ignored(one.device)}
    assert {device.name for device in devices} == {one.device.name for one in upses} - ignored
    assert not res.plugged.keys() & set(res.absent)
    assert all(ups_conf.NAME.fullmatch(name) for name in res.conf.sections)
    # what is ours has a driver
    for name, section in res.conf.sections.items():
        if name not in res.fixed:
            assert section.keys[0][0] == "driver"
            assert keys(section)["driver"] not in ("", "auto")
    # it says nothing that a device said
    for remark in (*res.remarks, *(why for _one, why in res.unserved)):
        assert remark.isprintable()
    # again, with the same
    again = resolve_names(after(was, res), upses, policy, release)
    assert again.conf == res.conf
    assert [*again.conf.sections] == [*res.conf.sections]
    assert (again.found, again.memory, dict(again.plugged)) == (res.found, res.memory, dict(res.plugged))
