# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus, fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import resolve_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy, check_policy
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    APC,
    APC_ELSEWHERE,
    APC_TWO,
    AUTO,
    CPS,
    CPS_ELSEWHERE,
    CPS_TWIN,
    DEFAULT,
    ECOFLOW,
    NAMELESS,
    POWERCOM,
    R80,
    R81,
    R83,
    SERIAL,
    TWO,
    NamedHost,
    known_after,
    make_known,
    section_keys,
)

# Rules


def test_rule_sets_name_driver_and_options() -> None:
    policy = check_policy(
        {"rules": [{"serial": "3B*", "name": "rack", "driver": "tripplite_usb", "options": {"offdelay": 30}}]}
    )
    res = resolve_names(make_known(), [APC, APC_TWO], policy, R81)
    assert list(res.plugged) == ["ups", "rack"]
    assert (res.plugged["rack"].driver, res.plugged["rack"].why) == ("tripplite_usb", "rule 1")
    assert section_keys(res.conf.sections["rack"])["offdelay"] == "30"
    assert res.found == {"rack"}


def test_rule_ignores_a_ups() -> None:
    policy = check_policy({"rules": [{"serial": "5B*", "ignore": True}]})
    res = resolve_names(make_known(), [APC], policy, R81)
    assert (res.plugged, res.unserved, res.absent) == ({}, (), ("ups",))
    # other sections' drivers must not take the ignored UPS
    policy = check_policy({"rules": [{"port": "1-1", "ignore": True}]})
    res = resolve_names(make_known(), [CPS, CPS_TWIN], policy, R81)
    assert not fingerprint.matches_device(res.conf.sections["ups"], CPS.device)


def test_rule_precedes_memory_and_adopts_the_declared_spelling() -> None:
    host = NamedHost(AUTO.replace("ups", "Main"))
    host.settle_names(APC)
    host.policy = check_policy({"rules": [{"vendor": "0764", "name": "main"}]})
    res = host.resolve_names(APC, CPS_ELSEWHERE)
    assert {name: found_ups.device.ids for name, found_ups in res.plugged.items()} == {
        "Main": "0764:0501",
        "ups": "051d:0002",
    }


def test_name_in_a_rule_is_reserved_for_matching_upses() -> None:
    policy = check_policy({"rules": [{"serial": "5B*", "name": "ups"}]})
    assert list(resolve_names(make_known(None), [CPS], policy, R81).plugged) == ["ups2"]
    assert list(resolve_names(make_known(), [CPS], policy, R81).plugged) == ["ups2"]


def test_second_ups_with_the_same_rule_gets_another_name() -> None:
    policy = check_policy({"rules": [{"vendor": "0764", "name": "rack"}]})
    res = resolve_names(make_known(None), [CPS, CPS_TWIN], policy, R81)
    assert {name: found_ups.device.name for name, found_ups in res.plugged.items()} == {"rack": "1-1", "ups": "1-4"}
    assert any("rule 1 names it rack" in remark and "1.4" not in remark for remark in res.remarks)
    memory = {"rack": fingerprint.make_fingerprint(CPS_TWIN.device)}
    res = resolve_names(make_known(None, memory=memory), [CPS, CPS_TWIN], policy, R81)
    assert res.plugged["rack"] == CPS_TWIN


def test_name_of_a_shared_rule_follows_the_ups_to_another_port() -> None:
    policy = check_policy({"rules": [{"vendor": "051d", "name": "rack"}]})
    memory = {"rack": fingerprint.make_fingerprint(APC.device)}
    assert (
        resolve_names(make_known(None, memory=memory), [APC_TWO, APC_ELSEWHERE], policy, R81).plugged["rack"]
        == APC_ELSEWHERE
    )


def test_rule_can_not_take_the_name_of_a_fixed_section() -> None:
    policy = check_policy({"rules": [{"vendor": "0764", "name": "OLD"}]})
    res = resolve_names(make_known(SERIAL + AUTO), [CPS], policy, R81)
    assert list(res.plugged) == ["ups"]
    assert any("rule 1" in remark and "[old]" in remark for remark in res.remarks)


def test_rule_can_not_take_a_name_declared_for_another_ups() -> None:
    policy = check_policy({"rules": [{"vendor": "0764", "name": "apc"}]})
    res = resolve_names(make_known('[apc]\n    driver = "auto"\n    vendorid = "051d"\n'), [CPS], policy, R81)
    assert list(res.plugged) == ["ups"]
    assert any("rule 1" in remark and "vendorid" in remark for remark in res.remarks)


# Drivers


def test_ups_without_known_driver_gets_no_name() -> None:
    res = resolve_names(make_known(), [NAMELESS], DEFAULT, R81)
    assert (list(res.plugged), res.absent) == ([], ("ups",))
    assert [(found_ups, "rule" in why) for found_ups, why in res.unserved] == [(NAMELESS, True)]
    policy = check_policy({"rules": [{"vendor": "ffff", "name": "rack"}]})
    assert list(resolve_names(make_known(), [NAMELESS], policy, R81).plugged) == []
    policy = check_policy({"rules": [{"vendor": "ffff", "driver": "blazer_usb"}]})
    assert resolve_names(make_known(), [NAMELESS], policy, R81).plugged["ups"].driver == "blazer_usb"


def test_hid_power_device_gets_usbhid_ups() -> None:
    power_device = replace(NAMELESS, device=replace(NAMELESS.device, hid_power=True))
    assert resolve_names(make_known(), [power_device], DEFAULT, R81).plugged["ups"].driver == "usbhid-ups"


def test_driver_from_nut_table_replaces_a_guess() -> None:
    host = NamedHost()
    host.settle_names(replace(POWERCOM, driver="usbhid-ups", why=bus.GUESS))
    assert section_keys(host.resolve_names(POWERCOM).conf.sections["ups"])["driver"] == "nutdrv_qx"


def test_driver_of_another_model_is_not_kept() -> None:
    host = NamedHost()
    host.settle_names(POWERCOM)
    guessed = replace(CPS, why=bus.GUESS)
    assert host.resolve_names(guessed).plugged["ups"].driver == "usbhid-ups"
    # the memory is ahead of ups.conf, which had to wait
    host.known = replace(host.known, memory=host.resolve_names(guessed).memory)
    assert host.resolve_names(guessed).plugged["ups"].driver == "usbhid-ups"


@pytest.mark.parametrize(("release", "served"), [(R80, False), (R81, False), (R83, True)])
def test_ecoflow_is_served_since_283(release: tuple[int, int, int], served: bool) -> None:
    res = resolve_names(make_known(), [replace(ECOFLOW, driver="usbhid-ups")], DEFAULT, release)
    assert bool(res.plugged) is served
    assert all("2.8.3" in why for _unused, why in res.unserved)
    policy = check_policy({"rules": [{"vendor": "3746", "driver": "usbhid-ups"}]})
    assert resolve_names(make_known(), [ECOFLOW], policy, release).plugged


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
    was = make_known(None if found else TWO, now, memory=memory, found=frozenset(found))
    res = resolve_names(was, [unknown], DEFAULT, R81)
    assert {name: served.driver for name, served in res.plugged.items()} == {"ups": "usbhid-ups"}
    again = resolve_names(known_after(was, res), [unknown], DEFAULT, R81)
    assert (again.conf, again.plugged) == (res.conf, res.plugged)


def test_ups_without_known_driver_gets_old_name_back_once_the_twin_is_named() -> None:
    moved = replace(CPS_ELSEWHERE, driver="", device=replace(CPS_ELSEWHERE.device, hid_power=None))
    plain = '[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n'
    memory = {"ups": fingerprint.make_fingerprint(CPS.device)}
    was = make_known(None, plain, found=frozenset({"ups"}), memory=memory)
    res = resolve_names(was, [moved, CPS_TWIN], UsbPolicy(takeover=False), R81)
    assert {name: served.device.name for name, served in res.plugged.items()} == {"ups": "1-2", "ups2": "1-4"}
    again = resolve_names(known_after(was, res), [moved, CPS_TWIN], UsbPolicy(takeover=False), R81)
    assert (again.conf, again.plugged) == (res.conf, res.plugged)


def test_ids_in_the_options_of_a_rule_do_not_hide_the_driver() -> None:
    policy = check_policy({"rules": [{"port": "1-1", "options": {"vendorid": "07.."}}]})
    unknown = replace(APC, driver="", device=replace(APC.device, hid_power=None))
    was = make_known(AUTO, memory={"ups": fingerprint.make_fingerprint(APC.device)})
    res = resolve_names(was, [unknown], policy, R81)
    assert section_keys(res.conf.sections["ups"])["vendorid"] == "07.."
    again = resolve_names(known_after(was, res), [unknown], policy, R81)
    assert (again.conf, again.plugged) == (res.conf, res.plugged)


def test_dropped_found_name_does_not_make_a_moved_ups_ambiguous() -> None:
    """[ups2] goes because [mine] has its UPS, so the UPS that moved can only be that of [ups]."""
    plain = '    driver = "usbhid-ups"\n    port = "auto"\n'
    moved = replace(CPS_TWIN, driver="", device=replace(CPS_TWIN.device, hid_power=False))
    was = make_known(
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
    again = resolve_names(known_after(was, res), [CPS_ELSEWHERE, moved], UsbPolicy(takeover=False), R81)
    assert (again.conf, again.plugged) == (res.conf, res.plugged)


DELAYS = {"offdelay": "60", "ondelay": "120"}


def delays_of(section: Section) -> dict[str, str | None]:
    return {key: value for key, value in section.keys if key in DELAYS}


@pytest.mark.parametrize(
    ("wanted", "ups", "delays"),
    [
        (AUTO, CPS, DELAYS),
        (None, CPS, DELAYS),
        (AUTO + "    ondelay = 0\n", CPS, {"offdelay": "60", "ondelay": "0"}),
        (AUTO + "    OffDelay = 120\n", CPS, {}),
        (AUTO, APC, {}),
        (AUTO, replace(CPS, driver="nutdrv_qx"), {}),
    ],
)
def test_cyberpower_gets_delays_of_whole_minutes(wanted: str | None, ups: UsbUps, delays: dict[str, str]) -> None:
    host = NamedHost(wanted=wanted)
    host.settle_names(ups)
    (written,) = host.known.conf.sections.values()
    assert delays_of(written) == delays
    # they stay while it is unplugged, and when it is back
    for there in ((), (ups,), ()):
        res = host.resolve_names(*there)
        assert res.conf == host.known.conf
        host.known = known_after(host.known, res)


def test_delays_of_a_rule_take_precedence() -> None:
    rules = {"rules": [{"vendor": "0764", "options": {"ondelay": -1}}]}
    host = NamedHost(policy=check_policy(rules))
    host.settle_names(CPS)
    assert delays_of(host.known.conf.sections["ups"]) == {"offdelay": "60", "ondelay": "-1"}
    assert host.resolve_names().conf == host.known.conf


def test_other_ups_loses_the_delays_of_a_cyberpower() -> None:
    host = NamedHost()
    host.settle_names(CPS)
    host.known = known_after(host.known, host.resolve_names(APC))
    assert delays_of(host.known.conf.sections["ups"]) == {}
