# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import resolve_names
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
    SERIAL,
    TWO,
    Host,
    conf,
    keys,
    known,
)


def test_fixed_section_claims_a_matching_ups() -> None:
    wanted = '[mine]\n    driver = "usbhid-ups"\n    port = "auto"\n    vendorid = "0764"\n\n' + AUTO
    host = Host(wanted)
    res = host.settle(CPS)
    assert list(res.plugged) == ["mine"]
    assert res.fixed == {"mine"}
    assert res.conf.sections["mine"] == conf(wanted).sections["mine"]
    assert list(host.resolve(CPS, APC_TWO).plugged) == ["mine", "ups"]


def test_fixed_section_without_keys_claims_a_ups_of_the_same_driver() -> None:
    wanted = '[mine]\n    driver = "nutdrv_qx"\n    port = "auto"\n\n' + AUTO
    assert list(resolve_names(known(wanted), [CPS], DEFAULT, R81).plugged) == ["ups"]
    assert list(resolve_names(known(wanted), [POWERCOM], DEFAULT, R81).plugged) == ["mine"]


def test_most_specific_fixed_section_claims_first() -> None:
    wanted = (
        '[all]\n    driver = "usbhid-ups"\n    port = "auto"\n\n'
        '[one]\n    driver = "usbhid-ups"\n    port = "auto"\n    serial = "5B1234T56789"\n'
    )
    assert resolve_names(known(wanted), [APC], DEFAULT, R81).plugged == {"one": APC}
    assert resolve_names(known(wanted), [APC, CPS], DEFAULT, R81).plugged == {"all": CPS, "one": APC}


def test_loose_fixed_section_leaves_other_upses_and_is_remarked_on() -> None:
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
def test_section_without_usb_driver_claims_nothing(section: str) -> None:
    res = resolve_names(known(section + AUTO), [replace(POWERCOM)], DEFAULT, R81)
    assert list(res.plugged) == ["ups"]
    assert res.absent == ()


@pytest.mark.parametrize("port", ["auto", "/dev/bus/usb/001/002", "anything"])
def test_port_of_a_usb_driver_is_irrelevant(port: str) -> None:
    wanted = f'[mine]\n    driver = "usbhid-ups"\n    port = "{port}"\n'
    assert list(resolve_names(known(wanted), [APC], DEFAULT, R81).plugged) == ["mine"]
    assert resolve_names(known(wanted), [], DEFAULT, R81).absent == ("mine",)


def test_section_edited_by_hand_is_left_alone_by_the_agent() -> None:
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
    # a play restores it
    host.known = replace(host.known, written={})
    assert "pollonly" not in keys(host.resolve(APC, CPS_ELSEWHERE).conf.sections["ups"])


def test_outdated_notes_do_not_count_as_an_edit() -> None:
    host = Host()
    host.settle(APC)
    old = host.known.written
    host.settle(CPS)
    host.known = replace(host.known, written=old)
    assert host.resolve(CPS).fixed == frozenset()
    assert host.resolve(CPS).remarks == ()


def test_edited_section_stays_even_if_only_another_edit_makes_a_difference() -> None:
    """[ups] would be parked only because the edited [ups2] has the same driver."""
    plain = '    driver = "nutdrv_qx"\n    port = "auto"\n'
    names = ("ups", "ups2")
    was = known(
        None,
        f'[ups]\n{plain}[ups2]\n{plain}    vendorid = "0764"\n',
        found=frozenset(names),
        memory={"ups": fingerprint.make_fingerprint(APC.device), "ups2": fingerprint.make_fingerprint(CPS.device)},
        written=dict.fromkeys(names, "something else"),
    )
    res = resolve_names(was, [CPS], DEFAULT, R81)
    assert (list(res.plugged), res.fixed, res.conf) == (["ups2"], set(names), was.conf)


def test_found_section_edited_by_hand_stays() -> None:
    host = Host(None)
    host.settle(APC)
    edited = Section("ups", (*host.known.conf.sections["ups"].keys, ("pollonly", None)))
    host.known = replace(host.known, conf=UpsConf((), {"ups": edited}))
    res = host.resolve(APC)
    assert (res.conf.sections, res.found, res.fixed) == ({"ups": edited}, {"ups"}, {"ups"})


def test_declared_section_edited_by_hand_is_not_found() -> None:
    host = Host(None)
    host.settle(APC)
    edited = Section("ups", (*host.known.conf.sections["ups"].keys, ("pollonly", None)))
    host.known = replace(host.known, wanted=conf(AUTO), conf=UpsConf((), {"ups": edited}))
    res = host.resolve(APC)
    assert (res.conf.sections, res.found, res.fixed) == ({"ups": edited}, frozenset(), {"ups"})


def test_section_added_by_hand_stays() -> None:
    made = '[mine]\n    driver = "blazer_usb"\n    port = "auto"\n'
    res = resolve_names(known(AUTO, made), [APC], DEFAULT, R81)
    assert res.conf.sections["mine"] == conf(made).sections["mine"]
    assert any(remark.startswith("[mine]") and "by hand" in remark for remark in res.remarks)
    # no remark without an inventory
    assert resolve_names(known(None, made), [APC], DEFAULT, R81).remarks == ()


def test_only_a_play_changes_fixed_sections() -> None:
    old, new = SERIAL, SERIAL.replace("ttyS0", "ttyS1")
    assert resolve_names(known(new, old, play=True), [], DEFAULT, R81).conf == conf(new)
    # the file lacks keys that this release does not know, and may have been edited
    assert resolve_names(known(new, old), [], DEFAULT, R81).conf == conf(old)
    assert resolve_names(known(new), [], DEFAULT, R81).conf == conf(new)


def test_declaration_takes_over_a_found_name() -> None:
    host = Host(None)
    host.settle(APC)
    host.known = replace(host.known, wanted=conf(AUTO))
    res = host.resolve(APC)
    assert (res.found, keys(res.conf.sections["ups"])["desc"]) == (frozenset(), "Rack")
    # ignoring case, as upsd does
    host.known = replace(host.known, wanted=conf(AUTO.replace("ups", "UPS")))
    res = host.resolve(APC)
    assert list(res.conf.sections) == ["UPS"]
    assert "[ups]" in res.remarks[0]


def test_only_a_play_changes_global_settings() -> None:
    wanted, now = "maxretry = 3\n" + AUTO, 'maxretry = 9\n[x]\n driver = "d"\n'
    assert resolve_names(known(wanted, now, play=True), [], DEFAULT, R81).conf.settings == (("maxretry", "3"),)
    assert resolve_names(known(wanted, now), [], DEFAULT, R81).conf.settings == (("maxretry", "9"),)
    assert resolve_names(known(wanted), [], DEFAULT, R81).conf.settings == (("maxretry", "3"),)
    assert resolve_names(known(None, "maxretry = 9\n"), [], DEFAULT, R81).conf.settings == (("maxretry", "9"),)


def test_new_sections_follow_the_order_of_the_inventory() -> None:
    wanted = "".join(f'[{name}]\n    driver = "auto"\n' for name in "abcd")
    now = "".join(f'[{name}]\n    driver = "usbhid-ups"\n    port = "auto"\n' for name in ("z", "d", "b"))
    assert list(resolve_names(known(wanted, now), [], DEFAULT, R81).conf.sections) == ["a", "z", "d", "b", "c"]
