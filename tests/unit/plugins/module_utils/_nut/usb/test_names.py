# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus, fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import FOUND_MOST, resolve_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy, check_policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.resolution import NameResolution
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    APC,
    APC_ELSEWHERE,
    APC_TWO,
    AUTO,
    CPS,
    CPS_BUS2,
    CPS_ELSEWHERE,
    CPS_HUB,
    CPS_TWIN,
    DEFAULT,
    POWERCOM,
    R80,
    R81,
    SERIAL,
    TWO,
    NamedHost,
    known_after,
    list_steps,
    make_known,
    make_ups,
    parse_conf,
    section_keys,
)

# Which UPS is which


def test_first_ups_gets_the_declared_name() -> None:
    res = NamedHost().resolve_names(APC)
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


def test_undeclared_upses_are_found() -> None:
    host = NamedHost(None)
    res = host.settle_names(APC, CPS_ELSEWHERE, CPS_BUS2)
    assert list(res.conf.sections) == ["ups", "ups2", "ups3"]
    assert res.found == {"ups", "ups2", "ups3"}


def test_declared_ups_never_plugged_in_is_absent() -> None:
    res = NamedHost().resolve_names()
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
def test_replugging_leaves_ups_conf_alone(
    before: tuple[UsbUps, ...], now: tuple[UsbUps, ...], release: tuple[int, int, int]
) -> None:
    host = NamedHost(TWO, release=release)
    was = host.settle_names(*before)
    res = host.resolve_names(*now)
    # 2.8.0 can't distinguish twins on one bus, so the section of the absent one changes: it must not take the other
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
def test_replacement_ups_takes_over_the_name(new: UsbUps, driver: str) -> None:
    host = NamedHost()
    host.settle_names(APC)
    res = host.resolve_names(new)
    assert section_keys(res.conf.sections["ups"])["driver"] == driver
    assert section_keys(res.conf.sections["ups"])["vendorid"] == new.device.vendor_id
    assert "serial" not in section_keys(res.conf.sections["ups"])
    assert res.memory["ups"] == fingerprint.make_fingerprint(new.device)


def test_without_takeover_only_unused_declared_names_are_given() -> None:
    host = NamedHost(TWO, UsbPolicy(takeover=False))
    host.settle_names(APC)
    assert list(host.resolve_names(CPS).plugged) == ["spare"]
    host.settle_names(APC, CPS_ELSEWHERE)
    res = host.resolve_names(POWERCOM)
    assert list(res.plugged) == ["ups2"]
    # without the state, ups.conf itself identifies the UPSes
    host.known = replace(host.known, memory={}, written={})
    assert list(host.resolve_names(POWERCOM).plugged) == ["ups2"]


def test_replacement_prefers_a_name_of_the_same_model() -> None:
    host = NamedHost(TWO)
    host.settle_names(CPS, APC_TWO)
    assert list(host.resolve_names(APC).plugged) == ["spare"]
    assert list(host.resolve_names(POWERCOM).plugged) == ["ups"]


def test_declared_name_is_preferred_to_a_found_name() -> None:
    host = NamedHost()
    host.settle_names(CPS, APC_TWO)
    assert list(host.known.conf.sections) == ["ups", "ups2"]
    host.known = replace(host.known, conf=UpsConf((), dict(reversed(host.known.conf.sections.items()))))
    assert list(host.resolve_names(POWERCOM).plugged) == ["ups"]


def test_second_ups_leaves_the_first_section_alone() -> None:
    host = NamedHost()
    was = host.settle_names(APC)
    res = host.resolve_names(APC, CPS_ELSEWHERE)
    assert res.found == {"ups2"}
    assert res.conf.sections["ups"] == was.conf.sections["ups"]
    assert list(res.conf.sections) == ["ups", "ups2"]


def test_undeclared_upses_are_left_alone_without_default_name() -> None:
    host = NamedHost(policy=UsbPolicy(default_name=""))
    host.settle_names(APC)
    res = host.resolve_names(APC, CPS_ELSEWHERE)
    assert list(res.conf.sections) == ["ups"]
    assert [(found_ups, "policy" in why) for found_ups, why in res.unserved] == [(CPS_ELSEWHERE, True)]


def test_names_are_compared_ignoring_case() -> None:
    host = NamedHost(None)
    host.known = make_known(None, SERIAL.replace("old", "UPS") + "\n" + SERIAL.replace("old", "Ups2"))
    assert list(host.resolve_names(APC).plugged) == ["ups3"]


@pytest.mark.parametrize("release", [R80, R81])
@pytest.mark.parametrize(
    ("twin", "alike"),
    [
        pytest.param(CPS_TWIN, (R80,), id="same bus"),
        pytest.param(CPS_BUS2, (), id="other bus"),
        pytest.param(CPS_HUB, (R80, R81), id="behind a hub"),
    ],
)
def test_identical_upses_are_distinguished_if_possible(
    twin: UsbUps, alike: tuple[tuple[int, int, int], ...], release: tuple[int, int, int]
) -> None:
    host = NamedHost(TWO, release=release)
    res = host.settle_names(CPS, twin)
    means = [
        [name for name, section in res.conf.sections.items() if fingerprint.matches_device(section, found_ups.device)]
        for found_ups in (CPS, twin)
    ]
    if release in alike:
        assert any("can't be distinguished" in remark for remark in res.remarks)
        assert {remark[:5] for remark in res.remarks} <= {"[ups]", "[spar"}
    else:
        assert means == [["ups"], ["spare"]]
        assert res.remarks == ()
    # each keeps its name even if they are listed in another order
    assert {name: found_ups.device.name for name, found_ups in host.resolve_names(twin, CPS).plugged.items()} == {
        "ups": CPS.device.name,
        "spare": twin.device.name,
    }


def test_pins_by_place_are_dropped_after_a_move() -> None:
    host = NamedHost(TWO)
    host.settle_names(CPS, CPS_TWIN)
    assert "busport" in section_keys(host.known.conf.sections["spare"])
    moved = make_ups("0764:0501", port="1-3.2")
    res = host.resolve_names(moved)
    (name,) = res.plugged
    assert "busport" not in section_keys(res.conf.sections[name])


def test_unneeded_pins_are_dropped() -> None:
    host = NamedHost(None)
    res = host.settle_names(APC)
    pinned = Section("ups", (*res.conf.sections["ups"].keys, ("device", "004")))
    host.known = replace(host.known, conf=UpsConf((), {"ups": pinned}), written={})
    assert host.resolve_names(APC).conf == res.conf


def test_upses_with_the_same_serial_are_told_apart_by_place() -> None:
    host = NamedHost(TWO)
    copy = replace(APC, device=replace(APC.device, name="1-4", place=CPS_TWIN.device.place))
    host.settle_names(APC, copy)
    assert host.resolve_names(copy, APC).plugged == {"ups": APC, "spare": copy}


def test_twins_moved_together_share_the_old_names() -> None:
    host = NamedHost(TWO)
    host.settle_names(CPS, CPS_TWIN)
    res = host.resolve_names(CPS_BUS2, make_ups("0764:0501", port="2-2"))
    assert list(res.plugged) == ["ups", "spare"]
    assert not res.found


def test_section_of_absent_ups_is_parked_beside_a_rival() -> None:
    host = NamedHost(TWO)
    res = host.settle_names(CPS)
    assert section_keys(res.conf.sections["spare"])["vendorid"] == "none"
    assert not fingerprint.matches_device(res.conf.sections["spare"], CPS.device)
    # another driver would not take the UPS
    host = NamedHost(TWO)
    assert "vendorid" not in section_keys(host.settle_names(POWERCOM).conf.sections["spare"])
    # a parked section does not count as having had a UPS
    host = NamedHost(TWO, UsbPolicy(takeover=False))
    host.settle_names(CPS)
    host.known = replace(host.known, memory={"ups": host.known.memory["ups"]})
    assert host.resolve_names(CPS, APC_TWO).plugged["spare"] == APC_TWO


def test_declared_keys_matching_a_rival_are_remarked_on() -> None:
    host = NamedHost(AUTO + '[spare]\n    driver = "auto"\n    vendorid = "07.*"\n')
    host.known = replace(host.known, memory={"ups": fingerprint.make_fingerprint(CPS.device)})
    res = host.resolve_names(CPS)
    assert section_keys(res.conf.sections["spare"])["vendorid"] == "07.*"
    assert any(remark.startswith("[spare]") and "0764:0501" in remark for remark in res.remarks)


NODELESS = replace(APC, device=replace(APC.device, accessible=None, has_node=False))


def test_ups_without_a_node_takes_no_name_from_one_that_has_a_node() -> None:
    """A container sees all UPSes of its host, but has the nodes of its own only."""
    res = resolve_names(make_known(), [NODELESS, CPS_ELSEWHERE], DEFAULT, R81)
    assert res.plugged == {"ups": CPS_ELSEWHERE}
    ((refused, why),) = res.unserved
    assert refused == NODELESS
    assert "/dev/bus/usb/001/004 does not exist" in why


def test_ups_without_a_node_keeps_the_name_that_it_had_or_that_is_declared_for_it() -> None:
    memory = {"ups": fingerprint.make_fingerprint(APC.device)}
    assert resolve_names(make_known(memory=memory), [NODELESS, CPS_ELSEWHERE], DEFAULT, R81).plugged["ups"] == NODELESS
    wanted = AUTO + '    vendorid = "051d"\n'
    assert resolve_names(make_known(wanted), [NODELESS, CPS_ELSEWHERE], DEFAULT, R81).plugged["ups"] == NODELESS
    assert resolve_names(make_known(), [NODELESS], DEFAULT, R81).absent == ("ups",)


def test_hundred_upses_keep_their_names() -> None:
    upses = [
        make_ups("051d:0002", f"5B{number}T{number * 7919 % 99991:05d}", f"{number // 50 + 1}-{number % 50 + 1}")
        for number in range(100, 200)
    ]
    host = NamedHost()
    res = host.settle_names(*upses)
    assert len(res.plugged) == 100
    assert [*res.conf.sections][:3] == ["ups", "ups2", "ups3"]
    assert {
        name: found_ups.device.serial for name, found_ups in host.resolve_names(*reversed(upses)).plugged.items()
    } == {name: found_ups.device.serial for name, found_ups in res.plugged.items()}


# What is declared


def test_declared_keys_override_pins_and_options() -> None:
    wanted = '[ups]\n    driver = "auto"\n    VendorID = "051."\n    pollinterval = "7"\n'
    policy = check_policy(
        {"rules": [{"vendor": "051d", "options": {"pollinterval": 9, "pollonly": True, "productid": "000."}}]}
    )
    section = resolve_names(make_known(wanted), [APC], policy, R81).conf.sections["ups"]
    assert section.keys == (
        ("driver", "usbhid-ups"),
        ("port", "auto"),
        ("serial", "5B1234T56789"),
        ("VendorID", "051."),
        ("pollinterval", "7"),
        ("pollonly", None),
        ("productid", "000."),
    )


def test_declared_keys_exclude_other_upses() -> None:
    wanted = '[apc]\n    driver = "auto"\n    vendorid = "051d"\n\n[any]\n    driver = "auto"\n'
    assert list(resolve_names(make_known(wanted), [CPS], DEFAULT, R81).plugged) == ["any"]
    assert list(resolve_names(make_known(wanted), [APC], DEFAULT, R81).plugged) == ["apc"]
    # a new declaration overrides the memory
    memory = {"apc": fingerprint.make_fingerprint(CPS.device)}
    assert list(resolve_names(make_known(wanted, memory=memory), [CPS], DEFAULT, R81).plugged) == ["any"]


def test_most_specific_declaration_comes_first() -> None:
    wanted = '[any]\n    driver = "auto"\n\n[apc]\n    driver = "auto"\n    vendorid = "051d"\n'
    assert list(resolve_names(make_known(wanted), [APC, CPS], DEFAULT, R81).plugged) == ["any", "apc"]
    assert resolve_names(make_known(wanted), [APC], DEFAULT, R81).plugged == {"apc": APC}


def test_changed_declaration_updates_section_of_absent_ups() -> None:
    host = NamedHost(policy=check_policy({"rules": [{"vendor": "051d", "options": {"pollonly": True}}]}))
    host.settle_names(APC)
    host.known = replace(host.known, wanted=parse_conf('[ups]\n    driver = "auto"\n    desc = "Cellar"\n'))
    assert host.resolve_names().conf.sections["ups"].keys == (
        ("driver", "usbhid-ups"),
        ("port", "auto"),
        ("desc", "Cellar"),
        ("vendorid", "051d"),
        ("productid", "0002"),
        ("serial", "5B1234T56789"),
        ("pollonly", None),
    )


def test_key_unknown_to_the_release_is_left_out() -> None:
    policy = check_policy({"rules": [{"vendor": "051d", "options": {"subdriver": "apc", "pollonly": True}}]})
    res = resolve_names(make_known(), [APC], policy, R80)
    assert "subdriver" not in section_keys(res.conf.sections["ups"])
    assert "pollonly" in section_keys(res.conf.sections["ups"])
    assert any("subdriver" in remark for remark in res.remarks)
    assert "subdriver" in section_keys(resolve_names(make_known(), [APC], policy, R81).conf.sections["ups"])


def test_unknown_release_counts_as_the_oldest() -> None:
    assert resolve_names(make_known(TWO), [CPS, CPS_TWIN], DEFAULT, None) == resolve_names(
        make_known(TWO), [CPS, CPS_TWIN], DEFAULT, R80
    )


# Declared since


def declared_later(wanted: str, *upses: UsbUps) -> NameResolution:
    """Return the resolution on a host whose UPSes were found before the inventory declared one."""
    host = NamedHost(None)
    host.settle_names(*upses)
    assert "ups" in host.known.found
    host.known = replace(host.known, wanted=parse_conf(wanted))
    res = host.resolve_names(*upses)
    host.known = known_after(host.known, res)
    assert host.resolve_names(*upses).conf == res.conf
    return res


def test_declared_name_replaces_a_found_name() -> None:
    res = declared_later(AUTO.replace("ups", "my-ups"), APC)
    assert {name: found_ups.device for name, found_ups in res.plugged.items()} == {"my-ups": APC.device}
    assert (list(res.conf.sections), res.found) == (["my-ups"], frozenset())


def test_declared_name_replaces_a_found_name_even_if_the_ups_moved_at_the_same_time() -> None:
    host = NamedHost(None)
    host.settle_names(CPS)
    host.known = replace(host.known, wanted=parse_conf(AUTO.replace("ups", "my-ups")))
    res = host.resolve_names(CPS_ELSEWHERE)
    assert list(res.plugged) == ["my-ups"]
    assert list(res.conf.sections) == ["my-ups"]


def test_replacement_of_a_found_ups_gets_the_newly_declared_name() -> None:
    host = NamedHost(None)
    host.settle_names(CPS, APC_TWO)
    host.known = replace(host.known, wanted=parse_conf(AUTO + AUTO.replace("[ups]", "[desk]")))
    host.settle_names(CPS)
    res = host.settle_names(CPS, APC_ELSEWHERE)
    assert {name: served.device.name for name, served in res.plugged.items()} == {"ups": "1-1", "desk": "2-3"}
    assert host.resolve_names(CPS, APC_ELSEWHERE).conf == res.conf


def test_declared_keys_select_among_found_upses() -> None:
    res = declared_later('[desk]\n    driver = "auto"\n    vendorid = "0764"\n', APC, CPS_ELSEWHERE)
    assert {name: found_ups.device.ids for name, found_ups in res.plugged.items()} == {
        "ups": APC.device.ids,
        "desk": "0764:0501",
    }
    assert res.found == {"ups"}


def test_ambiguous_declaration_changes_no_found_name() -> None:
    res = declared_later(AUTO.replace("ups", "desk"), APC, CPS_ELSEWHERE)
    assert {"ups", "ups2"} <= set(res.plugged)
    assert "desk" in res.absent


def test_declared_name_with_history_does_not_take_a_found_ups() -> None:
    host = NamedHost()
    host.settle_names(APC)
    host.settle_names(APC, CPS_ELSEWHERE)
    assert set(host.resolve_names(CPS_ELSEWHERE).plugged) == {"ups2"}
    assert host.resolve_names(CPS_ELSEWHERE).absent == ("ups",)


def test_found_name_is_dropped_when_a_rule_sets_another() -> None:
    host = NamedHost(None)
    host.settle_names(APC)
    host.policy = check_policy({"rules": [{"serial": APC.device.serial, "name": "desk"}]})
    res = host.resolve_names(APC)
    assert (list(res.conf.sections), set(res.plugged)) == (["desk"], {"desk"})
    assert list_steps(host.make_plan(APC))[:2] == ["stop ups", "write"]
    host.policy = check_policy({"rules": [{"serial": APC.device.serial, "ignore": True}]})
    assert list(host.resolve_names(APC).conf.sections) == []


def test_number_of_found_upses_is_limited() -> None:
    host = NamedHost(None, policy=UsbPolicy(takeover=False))
    for number in range(FOUND_MOST + 3):
        res = host.settle_names(make_ups("051d:0002", f"5B{number}T{number * 7919 % 99991:05d}"))
    assert len(res.found) == FOUND_MOST
    assert "already has the limit of 128 found UPSes" in res.unserved[0][1]
