# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import resolve_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import check_policy
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    APC,
    APC_TWO,
    AUTO,
    CPS,
    CPS_ELSEWHERE,
    CPS_TWIN,
    DEFAULT,
    POWERCOM,
    R81,
    R83,
    SERIAL,
    TWO,
    NamedHost,
    known_after,
    make_known,
    make_ups,
    parse_conf,
    section_keys,
)


def test_fixed_section_claims_a_matching_ups() -> None:
    wanted = '[mine]\n    driver = "usbhid-ups"\n    port = "auto"\n    vendorid = "0764"\n\n' + AUTO
    host = NamedHost(wanted)
    res = host.settle_names(CPS)
    assert list(res.plugged) == ["mine"]
    assert res.fixed == {"mine"}
    assert res.conf.sections["mine"] == parse_conf(wanted).sections["mine"]
    assert list(host.resolve_names(CPS, APC_TWO).plugged) == ["mine", "ups"]


def test_fixed_section_without_keys_claims_a_ups_of_the_same_driver() -> None:
    wanted = '[mine]\n    driver = "nutdrv_qx"\n    port = "auto"\n\n' + AUTO
    assert list(resolve_names(make_known(wanted), [CPS], DEFAULT, R81).plugged) == ["ups"]
    assert list(resolve_names(make_known(wanted), [POWERCOM], DEFAULT, R81).plugged) == ["mine"]


@pytest.mark.parametrize(
    ("driver", "ids", "listed", "is_claimed"),
    [
        ("blazer_usb", "0665:5161", "nutdrv_qx", True),
        ("blazer_usb", "0925:1234", "nutdrv_qx", False),
        ("richcomm_usb", "0925:1234", "nutdrv_qx", True),
        ("nutdrv_qx", "0925:1234", "richcomm_usb", True),
        ("nutdrv_atcl_usb", "0001:0000", "nutdrv_qx", True),
        ("bcmxcp_usb", "06da:0002", "nutdrv_qx", True),
        ("powervar_cx_usb", "4234:0002", "usbhid-ups", True),
        ("apc_modbus", "051d:0003", "usbhid-ups", True),
        ("apc_modbus", "051d:0002", "usbhid-ups", False),
        ("usbhid-ups", "0665:5161", "nutdrv_qx", False),
        ("nutdrv_qx", "051d:0002", "usbhid-ups", False),
    ],
)
def test_fixed_section_without_keys_claims_what_its_driver_takes(
    driver: str, ids: str, listed: str, is_claimed: bool
) -> None:
    """Otherwise a second driver for the same UPS would be found."""
    wanted = f'[mine]\n    driver = "{driver}"\n    port = "auto"\n'
    seen = make_ups(ids, driver=listed, hid_power=False)
    assert list(resolve_names(make_known(wanted), [seen], DEFAULT, R83).plugged) == ["mine" if is_claimed else "ups"]


def test_fixed_section_prefers_the_ups_that_is_listed_for_its_driver() -> None:
    other = make_ups("0925:1234", driver="richcomm_usb", port="1-1", hid_power=False)
    own = make_ups("0665:5161", driver="nutdrv_qx", port="1-2", hid_power=False, device=5)
    wanted = '[mine]\n    driver = "nutdrv_qx"\n    port = "auto"\n'
    assert resolve_names(make_known(wanted), [other, own], DEFAULT, R81).plugged["mine"].device == own.device


def test_bare_key_of_a_found_section_names_no_ups() -> None:
    """With the port that we add, its driver would look on the bus."""
    was = make_known(None, '[ups]\n    driver = "nutdrv_qx"\n    vendorid\n    port\n', found=frozenset({"ups"}))
    res = resolve_names(was, [APC], DEFAULT, None)
    again = resolve_names(known_after(was, res), [APC], DEFAULT, None)
    assert again.conf == res.conf


def test_most_specific_fixed_section_claims_first() -> None:
    wanted = (
        '[all]\n    driver = "usbhid-ups"\n    port = "auto"\n\n'
        '[one]\n    driver = "usbhid-ups"\n    port = "auto"\n    serial = "5B1234T56789"\n'
    )
    assert resolve_names(make_known(wanted), [APC], DEFAULT, R81).plugged == {"one": APC}
    assert resolve_names(make_known(wanted), [APC, CPS], DEFAULT, R81).plugged == {"all": CPS, "one": APC}


def test_loose_fixed_section_leaves_other_upses_and_is_remarked_on() -> None:
    wanted = '[mine]\n    driver = "usbhid-ups"\n    port = "auto"\n\n' + AUTO
    memory = {"ups": fingerprint.make_fingerprint(APC.device)}
    res = resolve_names(make_known(wanted, memory=memory), [APC, CPS_ELSEWHERE], DEFAULT, R81)
    assert res.plugged == {"mine": CPS_ELSEWHERE, "ups": APC}
    assert any(remark.startswith("[mine]") and "051d:0002" in remark for remark in res.remarks)
    memory = {"mine": fingerprint.make_fingerprint(CPS_TWIN.device)}
    res = resolve_names(make_known(wanted, memory=memory), [CPS, CPS_TWIN], DEFAULT, R81)
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
def test_section_without_usb_driver_claims_nothing(section: str) -> None:
    res = resolve_names(make_known(section + AUTO), [replace(POWERCOM)], DEFAULT, R81)
    assert list(res.plugged) == ["ups"]
    assert res.absent == ()


@pytest.mark.parametrize("port", ["auto", "/dev/bus/usb/001/002", "anything"])
def test_port_of_a_usb_driver_is_irrelevant(port: str) -> None:
    wanted = f'[mine]\n    driver = "usbhid-ups"\n    port = "{port}"\n'
    assert list(resolve_names(make_known(wanted), [APC], DEFAULT, R81).plugged) == ["mine"]
    assert resolve_names(make_known(wanted), [], DEFAULT, R81).absent == ("mine",)


def test_section_edited_by_hand_is_left_alone_by_the_agent() -> None:
    host = NamedHost(TWO)
    host.settle_names(APC, CPS_ELSEWHERE)
    edited = Section("ups", (*host.known.conf.sections["ups"].keys, ("pollonly", None)))
    host.known = replace(host.known, conf=UpsConf((), {**host.known.conf.sections, "ups": edited}))
    for upses in ((APC, CPS_ELSEWHERE), (POWERCOM, CPS_ELSEWHERE), ()):
        res = host.resolve_names(*upses)
        assert res.conf.sections["ups"] == edited
        assert res.fixed == {"ups"}
        assert [remark for remark in res.remarks if "[ups]" in remark and "by hand" in remark]
    assert "ups" not in host.resolve_names(POWERCOM).plugged
    # a play restores it
    host.known = replace(host.known, written={})
    assert "pollonly" not in section_keys(host.resolve_names(APC, CPS_ELSEWHERE).conf.sections["ups"])


def test_outdated_notes_do_not_count_as_an_edit() -> None:
    host = NamedHost()
    host.settle_names(APC)
    old = host.known.written
    host.settle_names(CPS)
    host.known = replace(host.known, written=old)
    assert host.resolve_names(CPS).fixed == frozenset()
    assert host.resolve_names(CPS).remarks == ()


def test_edited_section_stays_even_if_only_another_edit_makes_a_difference() -> None:
    """[ups] would be parked only because the edited [ups2] has the same driver."""
    plain = '    driver = "nutdrv_qx"\n    port = "auto"\n'
    names = ("ups", "ups2")
    was = make_known(
        None,
        f'[ups]\n{plain}[ups2]\n{plain}    vendorid = "0764"\n',
        found=frozenset(names),
        memory={"ups": fingerprint.make_fingerprint(APC.device), "ups2": fingerprint.make_fingerprint(CPS.device)},
        written=dict.fromkeys(names, "something else"),
    )
    res = resolve_names(was, [CPS], DEFAULT, R81)
    assert (list(res.plugged), res.fixed, res.conf) == (["ups2"], set(names), was.conf)


def test_section_edited_by_hand_stays_so_even_if_we_would_write_the_same_now() -> None:
    """The edit names the new UPS. Once [ups] is known to have that UPS, we would write the same text."""
    host, other = NamedHost(policy=check_policy({"takeover": False})), NamedHost()
    host.settle_names(APC)
    other.settle_names(CPS)
    edited = other.known.conf.sections["ups"]
    host.known = replace(host.known, conf=UpsConf((), {"ups": edited}))
    for _run in range(3):
        res = host.resolve_names(CPS)
        assert (res.conf.sections, res.edited, res.fixed) == ({"ups": edited}, {"ups"}, {"ups"})
        assert "edited by hand" in res.remarks[0]
        host.known = known_after(host.known, res)
    # another edit is judged anew
    host.known = replace(host.known, edited={"ups": "another text"})
    assert host.resolve_names(CPS).edited == frozenset()


def test_found_section_edited_by_hand_stays() -> None:
    host = NamedHost(None)
    host.settle_names(APC)
    edited = Section("ups", (*host.known.conf.sections["ups"].keys, ("pollonly", None)))
    host.known = replace(host.known, conf=UpsConf((), {"ups": edited}))
    res = host.resolve_names(APC)
    assert (res.conf.sections, res.found, res.fixed) == ({"ups": edited}, {"ups"}, {"ups"})


def test_declared_section_edited_by_hand_is_not_found() -> None:
    host = NamedHost(None)
    host.settle_names(APC)
    edited = Section("ups", (*host.known.conf.sections["ups"].keys, ("pollonly", None)))
    host.known = replace(host.known, wanted=parse_conf(AUTO), conf=UpsConf((), {"ups": edited}))
    res = host.resolve_names(APC)
    assert (res.conf.sections, res.found, res.fixed) == ({"ups": edited}, frozenset(), {"ups"})


def test_section_added_by_hand_stays() -> None:
    made = '[mine]\n    driver = "blazer_usb"\n    port = "auto"\n'
    res = resolve_names(make_known(AUTO, made), [APC], DEFAULT, R81)
    assert res.conf.sections["mine"] == parse_conf(made).sections["mine"]
    assert any(remark.startswith("[mine]") and "by hand" in remark for remark in res.remarks)
    # no remark without an inventory
    assert resolve_names(make_known(None, made), [APC], DEFAULT, R81).remarks == ()


def test_only_a_play_changes_fixed_sections() -> None:
    old, new = SERIAL, SERIAL.replace("ttyS0", "ttyS1")
    assert resolve_names(make_known(new, old, play=True), [], DEFAULT, R81).conf == parse_conf(new)
    # the file lacks keys that this release does not know, and may have been edited
    assert resolve_names(make_known(new, old), [], DEFAULT, R81).conf == parse_conf(old)
    assert resolve_names(make_known(new), [], DEFAULT, R81).conf == parse_conf(new)


def test_declaration_takes_over_a_found_name() -> None:
    host = NamedHost(None)
    host.settle_names(APC)
    host.known = replace(host.known, wanted=parse_conf(AUTO))
    res = host.resolve_names(APC)
    assert (res.found, section_keys(res.conf.sections["ups"])["desc"]) == (frozenset(), "Rack")
    # ignoring case, as upsd does
    host.known = replace(host.known, wanted=parse_conf(AUTO.replace("ups", "UPS")))
    res = host.resolve_names(APC)
    assert list(res.conf.sections) == ["UPS"]
    assert "[ups]" in res.remarks[0]


def test_only_a_play_changes_global_settings() -> None:
    wanted, now = "maxretry = 3\n" + AUTO, 'maxretry = 9\n[x]\n driver = "d"\n'
    assert resolve_names(make_known(wanted, now, play=True), [], DEFAULT, R81).conf.settings == (("maxretry", "3"),)
    assert resolve_names(make_known(wanted, now), [], DEFAULT, R81).conf.settings == (("maxretry", "9"),)
    assert resolve_names(make_known(wanted), [], DEFAULT, R81).conf.settings == (("maxretry", "3"),)
    assert resolve_names(make_known(None, "maxretry = 9\n"), [], DEFAULT, R81).conf.settings == (("maxretry", "9"),)


def test_new_sections_follow_the_order_of_the_inventory() -> None:
    wanted = "".join(f'[{name}]\n    driver = "auto"\n' for name in "abcd")
    now = "".join(f'[{name}]\n    driver = "usbhid-ups"\n    port = "auto"\n' for name in ("z", "d", "b"))
    assert list(resolve_names(make_known(wanted, now), [], DEFAULT, R81).conf.sections) == ["a", "z", "d", "b", "c"]
