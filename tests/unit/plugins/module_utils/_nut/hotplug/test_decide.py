# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import enumerator, ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf_text import (
    MARK,
    compose,
    found_in,
    header_of,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decide import (
    BACKOFF,
    DUMMY_AFTER,
    GRACE,
    HUNG,
    OUTAGE,
    SETTLED,
    Plan,
    Seen,
    Tries,
    plan,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import names as usb_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import Ups, UsbDevice
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import FOUND_MOST, Known, Resolution, resolve
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import Policy, check
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

R80, R81, R83 = (2, 8, 0), (2, 8, 1), (2, 8, 3)
RUNS = Unit("active", "enabled", 7)
STOPPED = Unit("inactive", "enabled", 0)
FAILED = Unit("failed", "enabled", 0)
WAITING = Unit("activating", "enabled", 0)
SERVER = Unit("active", "enabled", 9)
NOW = 100_000.0
LONG = NOW - 10_000
ENDED = Unit("activating", "enabled", 0, "auto-restart")
STOPS = Unit("deactivating", "enabled", 7, "stop-sigterm")
DEFAULT = Policy()


def ups(ids: str = "051d:0002", serial: str = "", port: str = "1-1", driver: str = "usbhid-ups", **more: Any) -> Ups:
    vendor, product = ids.split(":")
    bus, path = port.split("-")
    controller = more.pop("controller", f"0000:00:1{bus}.0")
    device = UsbDevice(
        name=port,
        vendor_id=vendor,
        product_id=product,
        manufacturer=more.pop("manufacturer", "Maker"),
        product=more.pop("product", "Model"),
        serial=serial,
        bus=int(bus),
        device=more.pop("device", 4),
        place=f"pci-{controller}-usb-0:{path}",
        accessible=more.pop("accessible", True),
        hid_power=more.pop("hid_power", True),
    )
    return Ups(device, driver, more.pop("why", "NUT's table"))


APC = ups("051d:0002", "5B1234T56789")
APC_ELSEWHERE = ups("051d:0002", "5B1234T56789", "2-3", device=9)
APC_TWO = ups("051d:0002", "3B9876X54321", "1-2", device=5)
CPS = ups("0764:0501", port="1-1", device=5)
CPS_ELSEWHERE = ups("0764:0501", port="1-2", device=6)
CPS_TWIN = ups("0764:0501", port="1-4", device=7)
CPS_BUS2 = ups("0764:0501", port="2-1", device=2)
CPS_HUB = ups("0764:0501", port="1-3.1", device=8)
POWERCOM = ups("0d9f:00a2", port="1-1", driver="nutdrv_qx", device=6)
NAMELESS = ups("ffff:0001", driver="", why="pattern ffff:*", hid_power=False)
ECOFLOW = ups("3746:ffff", driver="", why="its HID report descriptor")

AUTO = '[ups]\n    driver = "auto"\n    desc = "Rack"\n    pollinterval = "5"\n'
TWO = AUTO + '\n[spare]\n    driver = "auto"\n'
SERIAL = '[old]\n    driver = "apcsmart"\n    port = "/dev/ttyS0"\n'
NUL = UpsConf((), {})


def conf(text: str) -> UpsConf:
    return ups_conf.parse(text)


def keys(section: Section) -> dict[str, str | None]:
    return dict(section.keys)


def known(wanted: str | None = AUTO, now: str | UpsConf = NUL, **more: Any) -> Known:
    parsed = conf(wanted) if wanted is not None else None
    return Known(parsed, conf(now) if isinstance(now, str) else now, **more)


def noted(was: Known, now: UpsConf, res: Resolution) -> dict[str, str]:
    """The notes of what was written: what is not ours was not written by us."""
    made = {name: ups_conf.render((one,)) for name, one in now.sections.items() if name not in res.fixed}
    return {**{name: text for name, text in was.written.items() if name in res.fixed}, **made}


def after(was: Known, res: Resolution) -> Known:
    """What is known when a resolution was put in place."""
    written = noted(was, res.conf, res)
    return Known(was.wanted, res.conf, res.found, res.memory, written)


@dataclass
class Host:
    """A host that does what resolve() and plan() say, with drivers that do as they are told."""

    wanted: str | None = AUTO
    policy: Policy = DEFAULT
    release: tuple[int, int, int] = R81
    now: float = NOW
    known: Known = field(init=False)
    seen: dict[str, Seen] = field(default_factory=dict)
    tries: Mapping[str, Tries] = field(default_factory=dict)
    incarnations: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = known(self.wanted)

    def resolve(self, *upses: Ups) -> Resolution:
        return resolve(self.known, upses, self.policy, self.release)

    def settle(self, *upses: Ups) -> Resolution:
        """Have UPSes plugged in for long, and all drivers serve."""
        res = self.resolve(*upses)
        self.known = after(self.known, res)
        for name in res.conf.sections:
            there = name in res.plugged
            self.seen[name] = Seen(
                RUNS if there else WAITING,
                ("OL",) if there else (),
                "" if there else "DATA-STALE",
                LONG,
                LONG if there else None,
                last=("OL",) if there else (),
            )
        return res

    def plan(
        self, *upses: Ups, power: Sequence[str] | None = (), server: Unit = SERVER, **seen: dict[str, Any]
    ) -> Plan:
        res = self.resolve(*upses)
        for name, changes in seen.items():
            self.seen[name] = replace(self.seen.get(name, Seen(ABSENT)), **changes)
        made = plan(res, self.known, self.seen, server, power, self.tries, self.now, self.policy)
        self.tries = made.tries
        return made

    def apply(self, made: Plan, *upses: Ups) -> None:
        res = self.resolve(*upses)
        self.known = replace(self.known, memory=res.memory)
        if made.conf is not None:
            written = noted(self.known, made.conf, res)
            self.known = replace(self.known, conf=made.conf, found=made.found, written=written)


def told(made: Plan) -> list[str]:
    """The plan in short, in its order."""
    short = [f"permit {node}" for node, _unused in made.permits]
    short += [_short(f"{one.verb} {one.unit}") for one in made.before]
    short += ["write"] if made.conf is not None else []
    return short + [_short(f"{one.verb} {one.unit}") for one in made.after]


def _short(text: str) -> str:
    return text.replace("nut-driver@", "").replace(".service", "").replace("start nut-driver-enumerator", "enumerate")


GONE = {"status": (), "error": "DATA-STALE", "plugged": None, "since": NOW - 5}
ANEW = {"status": (), "error": "DATA-STALE", "plugged": NOW, "since": NOW - 3, "new": True}
MUTE = {"status": (), "error": "DATA-STALE"}


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
    assert res.memory == {"ups": fingerprint.fingerprint(APC.device)}


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
        pytest.param(
            (POWERCOM,), (replace(POWERCOM, driver="usbhid-ups", why=usb_names._GUESS),), id="a guess is no news"
        ),
        pytest.param((APC, CPS_TWIN), (CPS_TWIN, APC_ELSEWHERE), id="two, one moved"),
        pytest.param((CPS, CPS_TWIN), (CPS,), id="a twin goes"),
        pytest.param((CPS, CPS_TWIN), (), id="both twins go"),
    ],
)
@pytest.mark.parametrize("release", [R80, R81])
def test_the_file_stays(before: tuple[Ups, ...], now: tuple[Ups, ...], release: tuple[int, int, int]) -> None:
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
def test_a_swapped_ups_takes_the_name(new: Ups, driver: str) -> None:
    host = Host()
    host.settle(APC)
    res = host.resolve(new)
    assert keys(res.conf.sections["ups"])["driver"] == driver
    assert keys(res.conf.sections["ups"])["vendorid"] == new.device.vendor_id
    assert "serial" not in keys(res.conf.sections["ups"])
    assert res.memory["ups"] == fingerprint.fingerprint(new.device)


def test_without_takeover_only_a_name_that_never_had_a_ups_is_taken() -> None:
    host = Host(TWO, Policy(takeover=False))
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
    host = Host(policy=Policy(unknown=""))
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
def test_two_identical(twin: Ups, alike: tuple[tuple[int, int, int], ...], release: tuple[int, int, int]) -> None:
    host = Host(TWO, release=release)
    res = host.settle(CPS, twin)
    means = [
        [name for name, section in res.conf.sections.items() if fingerprint.means(section, one.device)]
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
    assert not fingerprint.means(res.conf.sections["spare"], CPS.device)
    # another driver would not take it
    host = Host(TWO)
    assert "vendorid" not in keys(host.settle(POWERCOM).conf.sections["spare"])
    # and it is no pin of a UPS that it had
    host = Host(TWO, Policy(takeover=False))
    host.settle(CPS)
    host.known = replace(host.known, memory={"ups": host.known.memory["ups"]})
    assert host.resolve(CPS, APC_TWO).plugged["spare"] == APC_TWO


def test_declared_keys_that_mean_another_are_not_parked_but_told() -> None:
    host = Host(AUTO + '[spare]\n    driver = "auto"\n    vendorid = "07.*"\n')
    host.known = replace(host.known, memory={"ups": fingerprint.fingerprint(CPS.device)})
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
    policy = check(
        {"rules": [{"vendor": "051d", "options": {"pollinterval": 9, "pollonly": True, "productid": "000."}}]}
    )
    section = resolve(known(wanted), [APC], policy, R81).conf.sections["ups"]
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
    assert list(resolve(known(wanted), [CPS], DEFAULT, R81).plugged) == ["any"]
    assert list(resolve(known(wanted), [APC], DEFAULT, R81).plugged) == ["apc"]
    # memory does not help against what is declared anew
    memory = {"apc": fingerprint.fingerprint(CPS.device)}
    assert list(resolve(known(wanted, memory=memory), [CPS], DEFAULT, R81).plugged) == ["any"]


def test_the_most_particular_declaration_comes_first() -> None:
    wanted = '[any]\n    driver = "auto"\n\n[apc]\n    driver = "auto"\n    vendorid = "051d"\n'
    assert list(resolve(known(wanted), [APC, CPS], DEFAULT, R81).plugged) == ["any", "apc"]
    assert resolve(known(wanted), [APC], DEFAULT, R81).plugged == {"apc": APC}


def test_what_is_declared_anew_reaches_an_absent_ups() -> None:
    host = Host(policy=check({"rules": [{"vendor": "051d", "options": {"pollonly": True}}]}))
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
    policy = check({"rules": [{"vendor": "051d", "options": {"subdriver": "apc", "pollonly": True}}]})
    res = resolve(known(), [APC], policy, R80)
    assert "subdriver" not in keys(res.conf.sections["ups"])
    assert "pollonly" in keys(res.conf.sections["ups"])
    assert any("subdriver" in remark for remark in res.remarks)
    assert "subdriver" in keys(resolve(known(), [APC], policy, R81).conf.sections["ups"])


def test_an_unknown_release_is_the_oldest() -> None:
    assert resolve(known(TWO), [CPS, CPS_TWIN], DEFAULT, None) == resolve(known(TWO), [CPS, CPS_TWIN], DEFAULT, R80)


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
    assert list(resolve(known(wanted), [CPS], DEFAULT, R81).plugged) == ["ups"]
    assert list(resolve(known(wanted), [POWERCOM], DEFAULT, R81).plugged) == ["mine"]


def test_the_most_particular_fixed_section_claims_first() -> None:
    wanted = (
        '[all]\n    driver = "usbhid-ups"\n    port = "auto"\n\n'
        '[one]\n    driver = "usbhid-ups"\n    port = "auto"\n    serial = "5B1234T56789"\n'
    )
    assert resolve(known(wanted), [APC], DEFAULT, R81).plugged == {"one": APC}
    assert resolve(known(wanted), [APC, CPS], DEFAULT, R81).plugged == {"all": CPS, "one": APC}


def test_a_fixed_section_leaves_others_theirs_and_its_looseness_is_told() -> None:
    wanted = '[mine]\n    driver = "usbhid-ups"\n    port = "auto"\n\n' + AUTO
    memory = {"ups": fingerprint.fingerprint(APC.device)}
    res = resolve(known(wanted, memory=memory), [APC, CPS_ELSEWHERE], DEFAULT, R81)
    assert res.plugged == {"mine": CPS_ELSEWHERE, "ups": APC}
    assert any(remark.startswith("[mine]") and "051d:0002" in remark for remark in res.remarks)
    memory = {"mine": fingerprint.fingerprint(CPS_TWIN.device)}
    res = resolve(known(wanted, memory=memory), [CPS, CPS_TWIN], DEFAULT, R81)
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
    res = resolve(known(section + AUTO), [replace(POWERCOM)], DEFAULT, R81)
    assert list(res.plugged) == ["ups"]
    assert res.absent == ()


@pytest.mark.parametrize("port", ["auto", "/dev/bus/usb/001/002", "anything"])
def test_a_usb_driver_does_not_care_for_its_port(port: str) -> None:
    wanted = f'[mine]\n    driver = "usbhid-ups"\n    port = "{port}"\n'
    assert list(resolve(known(wanted), [APC], DEFAULT, R81).plugged) == ["mine"]
    assert resolve(known(wanted), [], DEFAULT, R81).absent == ("mine",)


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
    res = resolve(known(AUTO, made), [APC], DEFAULT, R81)
    assert res.conf.sections["mine"] == conf(made).sections["mine"]
    assert any(remark.startswith("[mine]") and "by hand" in remark for remark in res.remarks)
    # with no inventory there is nobody who does not know it
    assert resolve(known(None, made), [APC], DEFAULT, R81).remarks == ()


def test_a_fixed_section_follows_the_inventory_and_not_the_agent() -> None:
    old, new = SERIAL, SERIAL.replace("ttyS0", "ttyS1")
    assert resolve(known(new, old, play=True), [], DEFAULT, R81).conf == conf(new)
    # a play has left out what this release does not know, and people may have changed it since
    assert resolve(known(new, old), [], DEFAULT, R81).conf == conf(old)
    assert resolve(known(new), [], DEFAULT, R81).conf == conf(new)


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
    assert resolve(known(wanted, now, play=True), [], DEFAULT, R81).conf.settings == (("maxretry", "3"),)
    assert resolve(known(wanted, now), [], DEFAULT, R81).conf.settings == (("maxretry", "9"),)
    assert resolve(known(wanted), [], DEFAULT, R81).conf.settings == (("maxretry", "3"),)
    assert resolve(known(None, "maxretry = 9\n"), [], DEFAULT, R81).conf.settings == (("maxretry", "9"),)


def test_the_order_of_the_file_stays_and_news_stand_where_the_inventory_has_them() -> None:
    wanted = "".join(f'[{name}]\n    driver = "auto"\n' for name in "abcd")
    now = "".join(f'[{name}]\n    driver = "usbhid-ups"\n    port = "auto"\n' for name in ("z", "d", "b"))
    assert list(resolve(known(wanted, now), [], DEFAULT, R81).conf.sections) == ["a", "z", "d", "b", "c"]


# Rules


def test_a_rule_gives_name_driver_and_options() -> None:
    policy = check(
        {"rules": [{"serial": "3B*", "name": "rack", "driver": "tripplite_usb", "options": {"offdelay": 30}}]}
    )
    res = resolve(known(), [APC, APC_TWO], policy, R81)
    assert list(res.plugged) == ["ups", "rack"]
    assert (res.plugged["rack"].driver, res.plugged["rack"].why) == ("tripplite_usb", "rule 1")
    assert keys(res.conf.sections["rack"])["offdelay"] == "30"
    assert res.found == {"rack"}


def test_a_rule_ignores() -> None:
    policy = check({"rules": [{"serial": "5B*", "ignore": True}]})
    res = resolve(known(), [APC], policy, R81)
    assert (res.plugged, res.unserved, res.absent) == ({}, (), ("ups",))
    # a driver looks at it nevertheless
    policy = check({"rules": [{"port": "1-1", "ignore": True}]})
    res = resolve(known(), [CPS, CPS_TWIN], policy, R81)
    assert not fingerprint.means(res.conf.sections["ups"], CPS.device)


def test_a_rule_comes_before_memory_and_takes_the_name_as_it_is_spelled() -> None:
    host = Host(AUTO.replace("ups", "Main"))
    host.settle(APC)
    host.policy = check({"rules": [{"vendor": "0764", "name": "main"}]})
    res = host.resolve(APC, CPS_ELSEWHERE)
    assert {name: one.device.ids for name, one in res.plugged.items()} == {"Main": "0764:0501", "ups": "051d:0002"}


def test_a_name_of_a_rule_waits_for_whom_the_rule_means() -> None:
    policy = check({"rules": [{"serial": "5B*", "name": "ups"}]})
    assert list(resolve(known(None), [CPS], policy, R81).plugged) == ["ups2"]
    assert list(resolve(known(), [CPS], policy, R81).plugged) == ["ups2"]


def test_one_name_for_two() -> None:
    policy = check({"rules": [{"vendor": "0764", "name": "rack"}]})
    res = resolve(known(None), [CPS, CPS_TWIN], policy, R81)
    assert {name: one.device.name for name, one in res.plugged.items()} == {"rack": "1-1", "ups": "1-4"}
    assert any("calls" in remark and "1.4" not in remark for remark in res.remarks)
    memory = {"rack": fingerprint.fingerprint(CPS_TWIN.device)}
    res = resolve(known(None, memory=memory), [CPS, CPS_TWIN], policy, R81)
    assert res.plugged["rack"] == CPS_TWIN


def test_of_two_for_one_name_the_one_that_had_it_keeps_it_also_elsewhere() -> None:
    policy = check({"rules": [{"vendor": "051d", "name": "rack"}]})
    memory = {"rack": fingerprint.fingerprint(APC.device)}
    assert resolve(known(None, memory=memory), [APC_TWO, APC_ELSEWHERE], policy, R81).plugged["rack"] == APC_ELSEWHERE


def test_a_fixed_name_is_not_given_away() -> None:
    policy = check({"rules": [{"vendor": "0764", "name": "OLD"}]})
    res = resolve(known(SERIAL + AUTO), [CPS], policy, R81)
    assert list(res.plugged) == ["ups"]
    assert any("rule 1" in remark and "[old]" in remark for remark in res.remarks)


def test_a_name_that_is_declared_for_another() -> None:
    policy = check({"rules": [{"vendor": "0764", "name": "apc"}]})
    res = resolve(known('[apc]\n    driver = "auto"\n    vendorid = "051d"\n'), [CPS], policy, R81)
    assert list(res.plugged) == ["ups"]
    assert any("rule 1" in remark and "vendorid" in remark for remark in res.remarks)


# Drivers


def test_a_ups_without_a_driver_takes_no_name() -> None:
    res = resolve(known(), [NAMELESS], DEFAULT, R81)
    assert (list(res.plugged), res.absent) == ([], ("ups",))
    assert [(one, "rule" in why) for one, why in res.unserved] == [(NAMELESS, True)]
    policy = check({"rules": [{"vendor": "ffff", "name": "rack"}]})
    assert list(resolve(known(), [NAMELESS], policy, R81).plugged) == []
    policy = check({"rules": [{"vendor": "ffff", "driver": "blazer_usb"}]})
    assert resolve(known(), [NAMELESS], policy, R81).plugged["ups"].driver == "blazer_usb"


def test_a_hid_power_device_gets_usbhid_ups() -> None:
    one = replace(NAMELESS, device=replace(NAMELESS.device, hid_power=True))
    assert resolve(known(), [one], DEFAULT, R81).plugged["ups"].driver == "usbhid-ups"


def test_a_driver_of_the_table_corrects_an_older_guess() -> None:
    host = Host()
    host.settle(replace(POWERCOM, driver="usbhid-ups", why=usb_names._GUESS))
    assert keys(host.resolve(POWERCOM).conf.sections["ups"])["driver"] == "nutdrv_qx"


def test_the_driver_of_another_ups_is_not_kept() -> None:
    host = Host()
    host.settle(POWERCOM)
    guessed = replace(CPS, why=usb_names._GUESS)
    assert host.resolve(guessed).plugged["ups"].driver == "usbhid-ups"
    # the file had to wait, while the memory knows already
    host.known = replace(host.known, memory=host.resolve(guessed).memory)
    assert host.resolve(guessed).plugged["ups"].driver == "usbhid-ups"


@pytest.mark.parametrize(("release", "served"), [(R80, False), (R81, False), (R83, True)])
def test_ecoflow(release: tuple[int, int, int], served: bool) -> None:
    res = resolve(known(), [replace(ECOFLOW, driver="usbhid-ups")], DEFAULT, release)
    assert bool(res.plugged) is served
    assert all("2.8.3" in why for _unused, why in res.unserved)
    policy = check({"rules": [{"vendor": "3746", "driver": "usbhid-ups"}]})
    assert resolve(known(), [ECOFLOW], policy, release).plugged


# What is done

ENUMERATE = "enumerate"
RELOAD = "reload nut-server"
LOCKED = replace(APC, device=replace(APC.device, accessible=False))
NODE = APC.device.node
PERMIT = f"permit {NODE}"


def scene(
    before: Sequence[Ups], now: Sequence[Ups], *steps: str, of: dict[str, dict[str, Any]] | None = None, **more: Any
) -> tuple[Sequence[Ups], Sequence[Ups], dict[str, Any], list[str]]:
    return before, now, {**(of or {}), **more}, list(steps)


SCENES = {
    "nothing happens": scene([APC], [APC]),
    "plug, for the first time": scene(
        [], [APC], "stop ups", "write", ENUMERATE, "start ups", of={"ups": {**ANEW, "unit": WAITING}}
    ),
    "plug, unknown": scene([APC], [APC, CPS_TWIN], "write", ENUMERATE, RELOAD),
    "plug again, driver between two tries": scene([APC], [APC], "restart ups", of={"ups": {**ANEW, "unit": WAITING}}),
    "plug again, driver dead": scene([APC], [APC], "start ups", of={"ups": {**ANEW, "unit": FAILED}}),
    "plug again, driver stopped": scene([APC], [APC], "start ups", of={"ups": {**ANEW, "unit": STOPPED}}),
    "plug again, driver masked": scene([APC], [APC], of={"ups": {**ANEW, "unit": Unit("inactive", "masked", 0)}}),
    "plug again, no unit": scene([APC], [APC], ENUMERATE, of={"ups": {**ANEW, "unit": ABSENT}}),
    "unplug": scene([APC], [], of={"ups": GONE}),
    "unplug, and long ago": scene([APC], [], of={"ups": {**GONE, "since": LONG}}),
    "replug elsewhere, driver recovered": scene([CPS], [CPS_HUB], of={"ups": {"new": True, "plugged": NOW}}),
    "replug elsewhere, driver did not recover yet": scene([CPS], [CPS_HUB], of={"ups": ANEW}),
    "new device number, driver did not recover": scene(
        [CPS],
        [CPS],
        "restart ups",
        of={"ups": {**ANEW, "new": False, "plugged": NOW - GRACE, "since": NOW - GRACE - 3}},
    ),
    "new device number, data gone only later": scene(
        [CPS], [CPS], "restart ups", of={"ups": {**MUTE, "plugged": NOW - GRACE - 2, "since": NOW - GRACE}}
    ),
    "new device number, counted from the latest": scene(
        [CPS], [CPS], of={"ups": {**ANEW, "new": False, "plugged": NOW - GRACE + 1, "since": NOW - 500}}
    ),
    "swap, same driver": scene([APC], [CPS], "stop ups", "write", ENUMERATE, "start ups", of={"ups": ANEW}),
    "swap, other driver": scene(
        [APC], [POWERCOM], "stop ups", "write", ENUMERATE, "start ups", RELOAD, of={"ups": ANEW}
    ),
    "swap, driver dead": scene([APC], [CPS], "write", ENUMERATE, "start ups", of={"ups": {**ANEW, "unit": FAILED}}),
    "swap, driver masked": scene(
        [APC], [CPS], "write", ENUMERATE, of={"ups": {**ANEW, "unit": Unit("inactive", "masked", 0)}}
    ),
    "swap, driver stopped, long ago": scene(
        [APC], [CPS], "write", ENUMERATE, of={"ups": {**MUTE, "unit": STOPPED, "since": LONG}}
    ),
    "second UPS": scene([APC], [APC, CPS_ELSEWHERE], "write", ENUMERATE, RELOAD),
    "UPS absent at boot": scene([APC], [], of={"ups": {**GONE, "unit": WAITING, "since": NOW, "last": ()}}),
    "driver dead": scene([APC], [APC], "start ups", of={"ups": {**MUTE, "unit": FAILED}}),
    "driver stopped by hand": scene([APC], [APC], of={"ups": {**MUTE, "unit": STOPPED}}),
    "driver starts": scene([APC], [APC], of={"ups": {**MUTE, "unit": WAITING, "since": NOW - HUNG + 1}}),
    "driver does not come up": scene(
        [APC], [APC], "restart ups", of={"ups": {**MUTE, "unit": WAITING, "since": NOW - HUNG}}
    ),
    "driver hung, not for long": scene([APC], [APC], of={"ups": {**MUTE, "since": NOW - HUNG + 1}}),
    "driver hung": scene([APC], [APC], "restart ups", of={"ups": {**MUTE, "since": NOW - HUNG}}),
    "driver killed, systemd waits": scene(
        [APC], [APC], "restart ups", of={"ups": {**MUTE, "unit": ENDED, "since": NOW - 1}}
    ),
    "driver is being stopped": scene([APC], [APC], of={"ups": {**MUTE, "unit": STOPS, "since": LONG}}),
    "driver hung, last on battery": scene(
        [APC], [APC], of={"ups": {**MUTE, "since": NOW - 600, "last": ("OB", "DISCHRG")}}
    ),
    "driver hung, last OL LB": scene([APC], [APC], of={"ups": {**MUTE, "since": NOW - 600, "last": ("OL", "LB")}}),
    "driver hung, last on battery long ago": scene(
        [APC], [APC], "restart ups", of={"ups": {**MUTE, "since": NOW - OUTAGE, "last": ("OB", "LB")}}
    ),
    "on battery when pulled out, and back without data": scene(
        [APC],
        [APC],
        "restart ups",
        of={"ups": {**MUTE, "since": NOW - 100, "plugged": NOW - GRACE, "last": ("OB", "LB")}},
    ),
    "driver hung, last in FSD": scene([APC], [APC], of={"ups": {**MUTE, "since": NOW - 600, "last": ("FSD", "OL")}}),
    "driver dead, last on battery": scene(
        [APC], [APC], "start ups", of={"ups": {**MUTE, "unit": FAILED, "last": ("OB",)}}
    ),
    "no rights": scene([APC], [LOCKED], PERMIT, of={"ups": {**ANEW, "since": NOW}}),
    "no rights, driver dead": scene([APC], [LOCKED], PERMIT, "start ups", of={"ups": {**ANEW, "unit": FAILED}}),
    "no rights, at the first time": scene(
        [], [LOCKED], PERMIT, "stop ups", "write", ENUMERATE, "start ups", of={"ups": {**ANEW, "unit": WAITING}}
    ),
    "no rights, and none needed": scene([APC], [LOCKED]),
    "a twin appears, and all work": scene([CPS], [CPS, CPS_TWIN], "write", ENUMERATE, RELOAD),
    "upsd failed": scene([APC], [APC], "restart nut-server", server=Unit("failed", "enabled", 0), power=None),
    "upsd failed, and nobody wants it": scene([APC], [APC], server=Unit("failed", "disabled", 0), power=None),
    "upsd stopped by hand": scene([APC], [APC], server=Unit("inactive", "enabled", 0), power=None),
    "upsd stopped by hand, a new UPS": scene(
        [APC], [APC, CPS_TWIN], "write", ENUMERATE, server=Unit("inactive", "enabled", 0), power=None
    ),
    "upsd failed, a new UPS": scene(
        [APC],
        [APC, CPS_TWIN],
        "write",
        ENUMERATE,
        "restart nut-server",
        server=Unit("failed", "enabled", 0),
        power=None,
    ),
    "upsd is silent, driver hung": scene([APC], [APC], power=None, of={"ups": {**MUTE, "since": LONG}}),
    "upsd does not run, driver hung": scene(
        [APC], [APC], server=Unit("inactive", "enabled", 0), of={"ups": {**MUTE, "since": LONG}}
    ),
    "upsd is silent, driver dead": scene([APC], [APC], "start ups", power=None, of={"ups": {**MUTE, "unit": FAILED}}),
    "upsd is silent, swap": scene([APC], [CPS], power=None, of={"ups": ANEW}),
    "upsd is silent, swap, driver dead": scene(
        [APC], [CPS], "write", ENUMERATE, "start ups", power=None, of={"ups": {**ANEW, "unit": FAILED}}
    ),
    "on battery, nothing else": scene([APC], [APC], power=["ups (OB)"]),
    "on battery, second UPS": scene([APC], [APC, CPS_ELSEWHERE], power=["ups (OB)"]),
    "on battery, swap": scene([APC], [CPS], power=["other (OB)"], of={"ups": ANEW}),
    "on battery, swap, driver dead": scene([APC], [CPS], power=["other (OB)"], of={"ups": {**ANEW, "unit": FAILED}}),
    "on battery, driver hung": scene([APC], [APC], power=["other (OB)"], of={"ups": {**MUTE, "since": LONG}}),
    "on battery, driver between two tries": scene(
        [APC], [APC], power=["other (OB)"], of={"ups": {**ANEW, "unit": WAITING}}
    ),
    "on battery, driver dead": scene(
        [APC], [APC], "start ups", power=["other (OB)"], of={"ups": {**MUTE, "unit": FAILED}}
    ),
    "on battery, driver dead, no rights": scene(
        [APC], [LOCKED], PERMIT, "start ups", power=["other (OB)"], of={"ups": {**MUTE, "unit": FAILED}}
    ),
    "on battery, driver stopped, UPS plugged in": scene(
        [APC], [APC], "start ups", power=["other (OB)"], of={"ups": {**ANEW, "unit": STOPPED}}
    ),
    "on battery, driver stopped by hand": scene(
        [APC], [APC], power=["other (OB)"], of={"ups": {**MUTE, "unit": STOPPED}}
    ),
    "on battery, no unit": scene([APC], [APC], power=["other (OB)"], of={"ups": {**ANEW, "unit": ABSENT}}),
}
QUIET = (
    "nothing happens",
    "unplug",
    "unplug, and long ago",
    "UPS absent at boot",
    "replug elsewhere, driver recovered",
    "no rights, and none needed",
    "on battery, nothing else",
    "upsd failed, and nobody wants it",
    "upsd stopped by hand",
)
DEFERRED = tuple(name for name, one in SCENES.items() if not one[3] and name not in QUIET)
WAITS = (
    "replug elsewhere, driver did not recover yet",
    "new device number, counted from the latest",
    "driver starts",
    "driver hung, not for long",
    "driver is being stopped",
)


def play(name: str, host: Host | None = None) -> tuple[Host, Plan]:
    before, now, more, _steps = SCENES[name]
    host = host or Host()
    host.settle(*before)
    return host, host.plan(*now, **more)


@pytest.mark.parametrize("name", SCENES)
def test_the_smallest_list_of_actions(name: str) -> None:
    _host, made = play(name)
    assert told(made) == SCENES[name][3]
    assert bool(made) is bool(SCENES[name][3])
    assert all(one.reason for one in (*made.before, *made.after))


@pytest.mark.parametrize("name", DEFERRED)
def test_what_is_not_done_is_said(name: str) -> None:
    _host, made = play(name)
    if name in WAITS:
        assert made.waits["ups"] > NOW
    else:
        assert made.deferred
        assert "mains" in made.deferred[0] or not name.startswith("on battery") or "by hand" in made.deferred[0]


@pytest.mark.parametrize("name", QUIET)
def test_what_needs_nothing_is_not_mentioned(name: str) -> None:
    _host, made = play(name)
    assert (made.deferred, dict(made.tries)) == ((), {})


def test_reasons_name_the_ups_and_its_place() -> None:
    _host, made = play("swap, other driver")
    place = POWERCOM.device.place
    assert made.before[0].reason == f"[ups] is 0d9f:00a2 at {place}, which takes over from 051d:0002 5B1234T56789"
    _host, made = play("driver hung")
    assert (
        made.after[0].reason
        == f"051d:0002 at {APC.device.place} is there as [ups], and its driver has had no data for 60 s"
    )


# Time


def test_a_driver_is_watched_after_its_ups_came_anew() -> None:
    host = Host()
    host.settle(APC)
    made = host.plan(APC, ups={"new": True, "plugged": NOW - 3})
    assert (told(made), dict(made.waits)) == ([], {"ups": NOW - 3 + GRACE})
    assert not host.plan(APC, ups={"plugged": NOW - GRACE}).waits
    # not one that was started for it
    host.tries = {"ups": Tries(1, NOW - 3)}
    assert not host.plan(APC, ups={"plugged": NOW - 3}).waits


def test_backoff_doubles_and_is_forgotten_after_a_while() -> None:
    host = Host()
    host.settle(APC)
    host.plan(APC, ups={**MUTE, "since": NOW - HUNG})
    gaps = []
    for _unused in range(11):
        started = host.now
        until = host.plan(APC).waits["ups"]
        gaps.append(until - started)
        host.now = until - 1
        assert told(host.plan(APC)) == []
        host.now = until
        assert told(host.plan(APC)) == ["restart ups"]
    assert gaps == [15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    # data for a moment change nothing
    for fresh, count in ((True, 12), (False, 12), (True, 12)):
        host.now += SETTLED / 2 + 1
        host.plan(
            APC, ups={"status": ("OL",), "error": "", "since": host.now} if fresh else {**MUTE, "since": host.now}
        )
        assert host.tries["ups"].count == count
    host.now += SETTLED
    host.plan(APC)
    assert not host.tries


def test_flapping_is_no_storm() -> None:
    host = Host()
    host.settle(APC)
    done: list[tuple[float, str]] = []
    for step in range(400):
        host.now = NOW + 3 * step
        # dead in each second run, with a new device number in each
        unit = (RUNS, FAILED, WAITING, STOPPED)[step % 4]
        device = replace(APC.device, device=5 + step)
        made = host.plan(
            replace(APC, device=device), ups={**ANEW, "unit": unit, "plugged": host.now, "since": host.now}
        )
        done += [(host.now, line) for line in told(made)]
        host.apply(made, APC)
    assert 3 < len(done) <= 9
    gaps = [later - earlier for (earlier, _a), (later, _b) in zip(done, done[1:])]
    assert all(gap >= 15 * 2**number for number, gap in enumerate(gaps))


def test_a_start_that_had_to_wait_is_not_forgotten() -> None:
    host = Host()
    host.settle(APC)
    host.tries = {"ups": Tries(2, NOW - 5)}
    made = host.plan(APC, ups={**ANEW, "unit": STOPPED, "plugged": NOW})
    assert (told(made), dict(made.waits)) == ([], {"ups": NOW + 25})
    host.now = NOW + 25
    assert told(host.plan(APC, ups={"new": False})) == ["start ups"]


def test_counts_from_before_a_reboot_hold_nothing_up() -> None:
    host = Host()
    host.settle(APC)
    host.tries = {"ups": Tries(9, NOW + 50_000, NOW + 60_000)}
    assert told(host.plan(APC, ups={**MUTE, "since": NOW - HUNG})) == ["restart ups"]
    assert host.tries["ups"] == Tries(1, NOW)


def test_another_ups_starts_anew() -> None:
    host = Host()
    host.settle(APC)
    host.tries = {"ups": Tries(7, NOW - 5)}
    assert told(host.plan(CPS, ups=ANEW)) == ["stop ups", "write", ENUMERATE, "start ups"]
    assert host.tries["ups"] == Tries(1, NOW)


def test_a_section_is_not_rewritten_again_and_again() -> None:
    host = Host()
    host.settle(CPS)
    host.tries = {"ups": Tries(3, NOW - 5)}
    host.known = replace(host.known, wanted=conf(AUTO.replace("Rack", "Cellar")))
    made = host.plan(CPS)
    assert (told(made), dict(made.waits)) == ([], {"ups": NOW - 5 + 60})
    host.now = NOW + 55
    assert told(host.plan(CPS)) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]


def test_upsd_is_restarted_with_backoff() -> None:
    host = Host()
    host.settle(APC)
    failed = Unit("failed", "enabled", 0)
    assert told(host.plan(APC, power=None, server=failed)) == ["restart nut-server"]
    host.now += 14
    made = host.plan(APC, power=None, server=failed)
    assert (told(made), dict(made.waits)) == ([], {"": NOW + 15})
    host.now += 1
    assert told(host.plan(APC, power=None, server=failed)) == ["restart nut-server"]
    assert host.tries[""].count == 2
    host.plan(APC)
    host.now += SETTLED
    host.plan(APC)
    assert not host.tries


def test_counts_of_sections_that_are_gone_go() -> None:
    host = Host()
    host.settle(APC)
    host.tries = {"gone": Tries(3, NOW)}
    assert not host.plan(APC).tries


# Twins


def with_twin() -> Host:
    """A host with a working UPS, beside which its twin was plugged in a moment ago."""
    host = Host()
    host.settle(CPS)
    host.apply(host.plan(CPS, CPS_TWIN), CPS, CPS_TWIN)
    host.seen["ups2"] = Seen(WAITING, (), "DRIVER-NOT-CONNECTED", NOW, NOW)
    return host


def test_a_twin_that_appears_disturbs_nobody() -> None:
    host = with_twin()
    assert "busport" in keys(host.known.conf.sections["ups2"])
    assert "busport" not in keys(host.known.conf.sections["ups"])
    assert "busport" in keys(host.resolve(CPS, CPS_TWIN).conf.sections["ups"])
    made = host.plan(CPS, CPS_TWIN)
    assert told(made) == []
    assert any("[ups]" in line and "when it next stands still" in line for line in made.deferred)
    # for ever, if both work
    host.now += 10_000
    assert told(host.plan(CPS, CPS_TWIN, ups2={"unit": RUNS, "status": ("OL",), "error": ""})) == []


def test_a_twin_whose_driver_gets_nothing_has_both_pinned() -> None:
    host = with_twin()
    host.now += BACKOFF
    made = host.plan(CPS, CPS_TWIN, ups2={"unit": RUNS})
    assert told(made) == ["stop ups", "write", ENUMERATE, "start ups", "restart ups2"]
    assert made.conf is not None
    assert "busport" in keys(made.conf.sections["ups"])


def test_pins_are_set_when_the_driver_stands_still() -> None:
    host = with_twin()
    host.now += BACKOFF
    made = host.plan(CPS, CPS_TWIN, ups={**MUTE, "unit": FAILED}, ups2={"unit": RUNS, "status": ("OL",), "error": ""})
    assert told(made) == ["write", ENUMERATE, "start ups"]


def test_more_than_pins_by_place_does_not_wait() -> None:
    host = with_twin()
    host.now += BACKOFF
    host.known = replace(host.known, wanted=conf(AUTO.replace('"5"', '"9"')))
    assert told(host.plan(CPS, CPS_TWIN))[:1] == ["stop ups"]


# A driver that found its UPS before we did


def by_itself(*upses: Ups) -> Host:
    """A host whose UPS was absent when it was deployed, and was then found by the driver's own next try."""
    host = Host()
    host.settle()
    host.now += 100
    fresh = {"unit": RUNS, "status": ("OL",), "error": "", "plugged": host.now, "since": host.now, "new": True}
    host.seen["ups"] = replace(host.seen["ups"], **fresh)
    made = host.plan(*upses)
    assert not [one for one in told(made) if one.endswith(" ups")]
    host.apply(made, *upses)
    return host


def test_a_driver_that_found_its_ups_first_is_not_restarted() -> None:
    host = by_itself(APC)
    assert "vendorid" not in keys(host.known.conf.sections["ups"])
    host.now += 10_000
    assert told(host.plan(APC, ups={"new": False})) == []


def test_it_is_told_which_one_it_is_when_it_stands_still() -> None:
    host = by_itself(APC)
    made = host.plan(APC, ups={**MUTE, "unit": FAILED})
    assert told(made)[0] == "write"
    assert made.conf is not None
    assert keys(made.conf.sections["ups"])["vendorid"] == "051d"


def test_it_may_have_found_another_ones() -> None:
    """Two were plugged in at once: who has which shows when the other driver gets nothing."""
    host = by_itself(APC, CPS)
    assert "ups2" in host.known.conf.sections
    host.seen["ups2"] = Seen(RUNS, (), "DRIVER-NOT-CONNECTED", host.now, host.now)
    assert told(host.plan(APC, CPS)) == []
    host.now += BACKOFF
    assert told(host.plan(APC, CPS))[:2] == ["stop ups", "write"]


def test_what_it_has_is_not_what_was_swapped_for_it() -> None:
    host = by_itself(APC)
    host.now += 100
    swapped = {"plugged": host.now, "new": True}
    # upsd may still say what the other one said last
    assert told(host.plan(CPS, ups=swapped))[:2] == ["stop ups", "write"]


def test_a_driver_that_ends_again_and_again_is_tried_ever_more_rarely() -> None:
    host = Host()
    host.settle(APC)
    ended = {**MUTE, "unit": ENDED, "since": host.now}
    tried = []
    for _second in range(400):
        if told(host.plan(APC, ups=ended)):
            tried.append(host.now - NOW)
        host.now += 1
    assert tried == [0, BACKOFF, 3 * BACKOFF, 7 * BACKOFF, 15 * BACKOFF]


# Found first, declared later


def declared_later(wanted: str, *upses: Ups) -> Resolution:
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
    host.policy = check({"rules": [{"serial": APC.device.serial, "name": "desk"}]})
    res = host.resolve(APC)
    assert (list(res.conf.sections), set(res.plugged)) == (["desk"], {"desk"})
    assert told(host.plan(APC))[:2] == ["stop ups", "write"]
    host.policy = check({"rules": [{"serial": APC.device.serial, "ignore": True}]})
    assert list(host.resolve(APC).conf.sections) == []


def test_names_that_are_found_come_to_an_end() -> None:
    host = Host(None, policy=Policy(takeover=False))
    for number in range(FOUND_MOST + 3):
        res = host.settle(ups("051d:0002", f"5B{number}T{number * 7919 % 99991:05d}"))
    assert len(res.found) == FOUND_MOST
    assert "found here already" in res.unserved[0][1]


def test_an_absent_section_is_not_parked_for_a_moment() -> None:
    host = Host(TWO, release=R80)
    host.settle(CPS, CPS_TWIN)
    made = host.plan(CPS, spare={**GONE, "since": NOW - 5})
    assert (told(made), dict(made.waits)) == ([], {"spare": NOW - 5 + DUMMY_AFTER})
    made = host.plan(CPS, spare={**GONE, "since": NOW - DUMMY_AFTER})
    assert told(made) == ["stop spare", "write", ENUMERATE]


# Stand-ins

DUMMIES = Policy(absent="dummy")


def is_dummy(made: Plan, name: str = "ups") -> bool:
    return made.conf is not None and made.conf.sections[name].keys[:2] == (
        ("driver", "dummy-ups"),
        ("port", "nut-hotplug-absent.dev"),
    )


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (("OL",), True),
        (("OL", "CHRG"), True),
        (("OB", "DISCHRG"), False),
        (("OL", "LB"), False),
        (("FSD", "OL"), False),
        (("OFF",), False),
        ((), False),
    ],
)
def test_a_stand_in_only_after_mains(last: tuple[str, ...], expected: bool) -> None:
    host = Host(policy=DUMMIES)
    host.settle(APC)
    made = host.plan(ups={**GONE, "since": NOW - DUMMY_AFTER, "last": last})
    assert is_dummy(made) is expected
    assert told(made) == (["stop ups", "write", ENUMERATE, "start ups", RELOAD] if expected else [])
    assert bool(made.deferred) is not expected


def test_a_stand_in_waits_first() -> None:
    host = Host(policy=DUMMIES)
    host.settle(APC)
    made = host.plan(ups=GONE)
    assert (told(made), dict(made.waits)) == ([], {"ups": NOW - 5 + DUMMY_AFTER})
    # the driver has not noticed
    assert told(host.plan(ups={"plugged": None, "status": ("OL",), "error": "", "since": NOW - 99})) == []


def test_a_stand_in_for_a_ups_that_was_never_there() -> None:
    host = Host(policy=DUMMIES)
    host.settle()
    made = host.plan(ups={**GONE, "since": NOW - DUMMY_AFTER, "unit": WAITING, "last": ()})
    assert is_dummy(made)
    assert made.conf is not None
    assert keys(made.conf.sections["ups"])["desc"] == "Rack"
    # its pins say that there was one, when the state is lost
    host = Host(policy=DUMMIES)
    host.settle(APC)
    host.known = replace(host.known, memory={}, written={})
    assert not host.plan(ups={**GONE, "since": NOW - DUMMY_AFTER, "last": ()})


def test_no_stand_in_for_one_without_pins_that_said_nothing() -> None:
    host = Host(policy=DUMMIES)
    host.settle(replace(POWERCOM, driver="richcomm_usb"))
    assert "vendorid" not in keys(host.known.conf.sections["ups"])
    made = host.plan(ups={**GONE, "since": NOW - DUMMY_AFTER, "last": ()})
    assert (told(made), bool(made.deferred)) == ([], True)


def test_no_stand_in_where_power_is_in_doubt_or_the_section_is_fixed() -> None:
    host = Host(policy=DUMMIES)
    host.settle(APC)
    gone = {**GONE, "since": NOW - DUMMY_AFTER}
    assert not host.plan(power=["x (OB)"], ups=gone)
    assert not host.plan(power=None, ups=gone)
    host = Host('[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n', policy=DUMMIES)
    host.settle(APC)
    assert not host.plan(ups=gone)


def stood_in(*upses: Ups, policy: Policy = DUMMIES) -> Host:
    host = Host(policy=DUMMIES)
    host.settle(*upses)
    host.apply(host.plan(ups={**GONE, "since": NOW - DUMMY_AFTER, "last": ("OL",)}))
    assert usb_names.is_dummy(host.known.conf.sections["ups"])
    host.seen["ups"] = Seen(RUNS, ("OL",), "", NOW, None, last=("OL",))
    host.policy = policy
    return host


def test_a_stand_in_stays_until_its_ups_is_there() -> None:
    host = stood_in(APC)
    assert (host.resolve().absent, told(host.plan())) == (("ups",), [])
    made = host.plan(APC, ups={"plugged": NOW, "new": True})
    assert told(made) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]
    assert made.conf is not None
    assert keys(made.conf.sections["ups"])["serial"] == "5B1234T56789"
    assert told(host.plan(APC, power=["x (OB)"])) == []


def test_a_stand_in_can_be_taken_over() -> None:
    assert list(stood_in(APC).resolve(CPS).plugged) == ["ups"]


def test_without_the_wish_the_truth_comes_back() -> None:
    host = stood_in(APC, policy=DEFAULT)
    section = host.resolve().conf.sections["ups"]
    assert section.keys[:2] == (("driver", "usbhid-ups"), ("port", "auto"))
    assert keys(section)["vendorid"] == "051d"
    assert told(host.plan()) == ["stop ups", "write", ENUMERATE, RELOAD]


# Settings, marks, order


def test_a_driver_that_needs_no_rights_gets_none() -> None:
    host = Host()
    host.settle(LOCKED)
    host.known = replace(host.known, wanted=conf(AUTO.replace("Rack", "Cellar")))
    assert told(host.plan(LOCKED)) == ["stop ups", "write", ENUMERATE, "start ups", RELOAD]


def test_a_mark_alone_disturbs_nobody() -> None:
    host = Host(None)
    host.settle(APC)
    found = host.known.conf.sections["ups"]
    host.known = replace(host.known, wanted=UpsConf((), {"ups": Section("ups", (("driver", "auto"),))}))
    made = host.plan(APC)
    assert (told(made), made.found) == (["write"], frozenset())
    assert made.conf is not None
    assert made.conf.sections["ups"] == found
    made = host.plan(APC, power=["x (OB)"])
    assert (made.conf, made.found) == (None, {"ups"})


def test_a_section_that_goes_is_the_enumerators() -> None:
    host = Host(None)
    host.settle(APC)
    host.known = replace(host.known, wanted=conf(AUTO.replace("ups", "UPS")))
    made = host.plan(APC)
    assert told(made) == ["stop ups", "write", ENUMERATE, RELOAD]
    assert "[ups] is gone" in made.after[0].reason
    made = host.plan(APC, power=["x (OB)"])
    assert (told(made), bool(made.deferred)) == ([], True)


# The file


def test_the_file_as_it_is_written() -> None:
    res = resolve(known("maxretry = 3\n" + AUTO), [APC, CPS_ELSEWHERE], DEFAULT, R81)
    text = compose("# Written by Ansible.\n# Twice.\n", res.conf, res.found)
    assert text == (
        '# Written by Ansible.\n# Twice.\n\nmaxretry = "3"\n\n'
        '[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n    desc = "Rack"\n    vendorid = "051d"\n'
        '    productid = "0002"\n    serial = "5B1234T56789"\n    pollinterval = "5"\n\n'
        f'{MARK}\n[ups2]\n    driver = "usbhid-ups"\n    port = "auto"\n    vendorid = "0764"\n    productid = "0501"\n'
    )
    assert ups_conf.parse(text) == res.conf
    assert found_in(text) == {"ups2"}
    assert header_of(text) == "# Written by Ansible.\n# Twice.\n"
    assert compose(header_of(text), res.conf, res.found, text) == text
    assert compose(header_of(text), res.conf, res.found) == text


OLD = """# Mine.

# how often
maxretry = 3   # three

# the old one
[old]
  port = /dev/ttyS0
  driver = apcsmart
  desc = "two words"   # and more
# in between

# Found on the bus by nut-hotplug.
[ups]
driver = usbhid-ups
port = auto
"""


def test_what_does_not_change_keeps_its_text() -> None:
    was = ups_conf.parse(OLD)
    changed = UpsConf(
        was.settings, {**was.sections, "ups": Section("ups", (("driver", "nutdrv_qx"), ("port", "auto")))}
    )
    text = compose("# Yours.", changed, frozenset(), OLD)
    assert text == OLD.replace("# Mine.", "# Yours.").replace(MARK + "\n", "").replace(
        "driver = usbhid-ups\nport = auto\n", '    driver = "nutdrv_qx"\n    port = "auto"\n'
    )
    assert enumerator.checksum(text, "old") == enumerator.checksum(OLD, "old")
    assert enumerator.checksum(text, "") == enumerator.checksum(OLD, "")
    assert compose(header_of(OLD), was, found_in(OLD), OLD) == OLD


def test_other_settings_are_written_anew() -> None:
    was = ups_conf.parse(OLD)
    text = compose("", replace(was, settings=(("maxretry", "5"),)), frozenset(), OLD)
    assert text.startswith('maxretry = "5"\n\n# the old one\n')


@pytest.mark.parametrize(
    "old",
    [
        '[a]\n  desc = "one\\\n# two"\n[b]\n  driver = x\n',
        '[a]\n  driver = x\n  desc = "open\n[b]\n  driver = y\n',
        "[a]\n  driver = x\n[b]\n  driver = y\n[a]\n  port = z\n",
        "# a \\\n[a]\n  driver = x\n[b]\ndriver = z",
    ],
)
def test_an_odd_file_is_read_as_nut_reads_it(old: str) -> None:
    was = ups_conf.parse(old)
    for wish in (was, UpsConf(was.settings, {**was.sections, "n": Section("n", (("driver", "x"),))})):
        for found in (frozenset[str](), frozenset({"a"})):
            text = compose("# H", wish, found, old)
            assert ups_conf.parse(text) == wish
            assert found_in(text) == found & wish.sections.keys()


def test_a_header_is_comment() -> None:
    assert compose("[x]\n  driver = y\n", NUL, ()) == ""
    assert header_of(f"# a\n{MARK}\n[x]\n") == "# a\n"
    assert header_of("\n# a\n") == ""
    assert found_in(f"{MARK}\n\n[x]\n") == frozenset()


# Properties

HOSTILE = st.text(st.sampled_from("\"'\n\r\t#\\][=$`;|&<>() aZ0\x00\x7fäß\udcff") | st.characters(), max_size=12)
SERIALS = st.one_of(st.sampled_from(["", "5B1234T56789", "3B9876X54321", "AB12.C*D34", "000000", "CPS"]), HOSTILE)
IDS = st.sampled_from(["051d:0002", "0764:0501", "0d9f:00a2", "ffff:0001", "3746:ffff"])
PORTS = st.sampled_from(["1-1", "1-2", "1-4", "1-3.1", "1-3.2", "2-1", "2-1.1", "3-1"])
UPSES = st.builds(
    ups,
    IDS,
    SERIALS,
    PORTS,
    st.sampled_from(["usbhid-ups", "usbhid-ups", "nutdrv_qx", "richcomm_usb", ""]),
    manufacturer=HOSTILE,
    product=st.one_of(st.sampled_from(["Model", "UPS 1500"]), HOSTILE),
    device=st.integers(1, 127),
    accessible=st.sampled_from([True, False, None]),
    hid_power=st.sampled_from([True, False, None]),
    why=st.sampled_from(["NUT's table", usb_names._GUESS, "ups.conf names it"]),
)
BUSES = st.lists(UPSES, max_size=6, unique_by=lambda one: one.device.name).map(tuple)
VALUES = st.sampled_from(
    ["auto", "051d", "0764", ".*", "5B1234T56789", "001", "x y", "#", "\\", '"', "=", "nut-hotplug-absent.dev", ""]
)
KEY = st.sampled_from(
    ["desc", "vendorid", "serial", "bus", "busport", "pollonly", "offdelay", "override.x", "subdriver", "port"]
)
DRIVERS = st.sampled_from(["auto", "auto", "auto", "usbhid-ups", "nutdrv_qx", "dummy-ups", "apcsmart", "richcomm_usb"])
NAMES = st.sampled_from(["ups", "ups2", "UPS3", "rack", "old", "a-b"])


@st.composite
def sections(draw: st.DrawFn, drivers: st.SearchStrategy[str]) -> dict[str, Section]:
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    made = {}
    for name in names:
        more = draw(st.lists(st.tuples(KEY, st.one_of(st.none(), VALUES)), max_size=3, unique_by=lambda pair: pair[0]))
        pairs = [
            ("driver", draw(drivers)),
            *([("port", "auto")] if all(key != "port" for key, _v in more) else []),
            *more,
        ]
        made[name] = Section(name, tuple(draw(st.permutations(pairs)) if draw(st.booleans()) else pairs))
    return made


@st.composite
def knowns(draw: st.DrawFn) -> Known:
    wanted = UpsConf((("maxretry", "3"),), draw(sections(DRIVERS))) if draw(st.booleans()) else None
    now = draw(sections(st.sampled_from(["usbhid-ups", "nutdrv_qx", "dummy-ups", "apcsmart"])))
    names = [*now, *(wanted.sections if wanted else ())]
    some = st.sets(st.sampled_from(names)) if names else st.just(set[str]())
    prints = st.builds(lambda one: fingerprint.fingerprint(one.device), UPSES)
    written = {
        name: ups_conf.render((now[name],)) + ("" if draw(st.booleans()) else "#") for name in draw(some) if name in now
    }
    return Known(
        wanted,
        UpsConf(draw(st.sampled_from([(), (("maxretry", "3"),), (("pollinterval", "9"),)])), now),
        frozenset(draw(some)) & now.keys(),
        {name: draw(prints) for name in sorted(draw(some))},
        written,
    )


POLICIES = st.builds(
    check,
    st.fixed_dictionaries(
        {},
        optional={
            "unknown": st.sampled_from(["", "ups", "my-ups"]),
            "takeover": st.booleans(),
            "absent": st.sampled_from(["keep", "dummy"]),
            "rules": st.lists(
                st.one_of(
                    st.fixed_dictionaries({"vendor": st.sampled_from(["0764", "051d"]), "ignore": st.just(True)}),
                    st.fixed_dictionaries(
                        {"port": st.sampled_from(["1-*", "2-1", "*"])},
                        optional={
                            "name": st.sampled_from(["rack", "ups", "new"]),
                            "driver": st.sampled_from(["usbhid-ups", "nutdrv_qx"]),
                            "options": st.dictionaries(
                                st.sampled_from(["pollonly", "subdriver", "vendorid", "x"]),
                                st.sampled_from(["a", "0764"]),
                            ),
                        },
                    ),
                ),
                max_size=2,
            ),
        },
    ),
)
RELEASES = st.sampled_from([None, R80, R81, R83, (2, 8, 5)])
UNITS = st.sampled_from(
    [RUNS, STOPPED, FAILED, WAITING, ABSENT, Unit("inactive", "masked", 0), Unit("reloading", "enabled", 3)]
)
TIMES = st.sampled_from([0.0, 1.0, 9.0, 10.0, 29.0, 31.0, 59.0, 61.0, 9000.0]).map(lambda ago: NOW - ago)
STATES = st.sampled_from([(), ("OL",), ("OL", "CHRG"), ("OB", "DISCHRG"), ("OB", "LB"), ("FSD", "OL")])
SEENS = st.builds(
    lambda unit, status, since, plugged, new, last: Seen(
        unit, status, "" if status else "DATA-STALE", NOW if status else since, plugged, new, status or last
    ),
    UNITS,
    STATES,
    TIMES,
    st.one_of(st.none(), TIMES),
    st.booleans(),
    STATES,
)
TRIES = st.builds(Tries, st.integers(0, 9), TIMES, st.one_of(st.none(), TIMES))


@given(knowns(), BUSES, POLICIES, RELEASES)
def test_properties_of_a_resolution(was: Known, upses: tuple[Ups, ...], policy: Policy, release: Any) -> None:
    res = resolve(was, upses, policy, release)
    # NUT reads what is meant
    text = compose("# Header", res.conf, res.found)
    assert ups_conf.parse(text) == res.conf
    assert found_in(text) == res.found
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
    ignored = {one.device.name for one in upses if policy.ignores(one.device)}
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
    again = resolve(after(was, res), upses, policy, release)
    assert again.conf == res.conf
    assert [*again.conf.sections] == [*res.conf.sections]
    assert (again.found, again.memory, dict(again.plugged)) == (res.found, res.memory, dict(res.plugged))


@given(
    knowns(),
    BUSES,
    POLICIES,
    RELEASES,
    st.lists(st.tuples(SEENS, TRIES), min_size=9, max_size=9),
    st.tuples(st.sampled_from([(), ("ups (OB)",), None]), st.sampled_from([SERVER, Unit("failed", "enabled", 0)])),
)
def test_properties_of_a_plan(  # noqa: PLR0917 - one for each strategy
    was: Known,
    upses: tuple[Ups, ...],
    policy: Policy,
    release: Any,
    drivers: list[tuple[Seen, Tries]],
    upsd: tuple[Any, Unit],
) -> None:
    res = resolve(was, upses, policy, release)
    power, server = upsd
    names = list(dict.fromkeys([*res.conf.sections, *was.conf.sections]))
    seen = {
        name: replace(
            state,
            plugged=(state.plugged or NOW) if name in res.plugged else None,
            new=state.new and name in res.plugged,
        )
        for name, (state, _tries) in zip(names, drivers)
    }
    tries = {name: count for name, (_seen, count) in zip(names, drivers)}
    made = plan(res, was, seen, server, power, tries, NOW, policy)
    running = {f"nut-driver@{name}.service" for name, state in seen.items() if state.unit.runs}
    acts = (*made.before, *made.after)
    if power or power is None:
        assert not [one for one in acts if one.unit in running]
    if power:
        assert made.conf is None
        assert not [one for one in acts if one.unit.startswith("nut-driver-enumerator") or one.verb == "reload"]
    for name in res.fixed:
        # one that is not in the file yet may have to wait
        if made.conf is not None and name in made.conf.sections:
            assert made.conf.sections[name] in (was.conf.sections.get(name), res.conf.sections[name])
    if made.conf is not None:
        text = compose("# Header", made.conf, made.found)
        assert (ups_conf.parse(text), found_in(text)) == (made.conf, made.found)
    assert len({(one.verb, one.unit) for one in acts}) == len(acts)
    assert all(until > NOW for until in made.waits.values())
    assert all(line.isprintable() for line in (*made.deferred, *(one.reason for one in acts)))
    assert all(count.count for count in made.tries.values())


@given(knowns(), BUSES, POLICIES, RELEASES)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
    was: Known, upses: tuple[Ups, ...], policy: Policy, release: Any
) -> None:
    for _unused in range(3):
        res = resolve(was, upses, policy, release)
        seen = {
            name: Seen(RUNS, ("OL",), "", NOW, LONG, last=("OL",))
            if name in res.plugged
            else Seen(WAITING, (), "DRIVER-NOT-CONNECTED", LONG, last=("OL",))
            for name in (*res.conf.sections, *was.conf.sections)
        }
        made = plan(res, was, seen, SERVER, (), {}, NOW, policy)
        now = made.conf or was.conf
        written = noted(was, now, res)
        was = Known(was.wanted, now, made.found if made.conf else was.found, res.memory, written)
    assert told(made) == []
