# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""UPSes, and a simulated host that names them and runs their drivers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import ABSENT, Unit
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decide import (
    make_plan,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.decision import DriverState, HotplugPlan
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.memory import Tries
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus as bus_module
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice, UsbUps
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import resolve_names
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.policy import UsbPolicy, check_policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.resolution import KnownUpses, NameResolution
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
DEFAULT = UsbPolicy()


def make_ups(
    ids: str = "051d:0002", serial: str = "", port: str = "1-1", driver: str = "usbhid-ups", **more: Any
) -> UsbUps:
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
        unread=more.pop("unread", frozenset()),
        has_node=more.pop("has_node", True),
    )
    return UsbUps(device, driver, more.pop("why", "NUT's table"), more.pop("support", bus_module.MODEL))


APC = make_ups("051d:0002", "5B1234T56789")
APC_ELSEWHERE = make_ups("051d:0002", "5B1234T56789", "2-3", device=9)
APC_TWO = make_ups("051d:0002", "3B9876X54321", "1-2", device=5)
CPS = make_ups("0764:0501", port="1-1", device=5)
CPS_ELSEWHERE = make_ups("0764:0501", port="1-2", device=6)
CPS_TWIN = make_ups("0764:0501", port="1-4", device=7)
CPS_BUS2 = make_ups("0764:0501", port="2-1", device=2)
CPS_HUB = make_ups("0764:0501", port="1-3.1", device=8)
POWERCOM = make_ups("0d9f:00a2", port="1-1", driver="nutdrv_qx", device=6)
NAMELESS = make_ups("ffff:0001", driver="", why="pattern ffff:*", hid_power=False)
ECOFLOW = make_ups("3746:ffff", driver="", why="its HID report descriptor")

AUTO = '[ups]\n    driver = "auto"\n    desc = "Rack"\n    pollinterval = "5"\n'
TWO = AUTO + '\n[spare]\n    driver = "auto"\n'
SERIAL = '[old]\n    driver = "apcsmart"\n    port = "/dev/ttyS0"\n'
NUL = UpsConf((), {})


def parse_conf(text: str) -> UpsConf:
    return ups_conf.parse_ups_conf(text)


def section_keys(section: Section) -> dict[str, str | None]:
    return dict(section.keys)


def make_known(wanted: str | None = AUTO, now: str | UpsConf = NUL, **more: Any) -> KnownUpses:
    parsed = parse_conf(wanted) if wanted is not None else None
    return KnownUpses(parsed, parse_conf(now) if isinstance(now, str) else now, **more)


def note_sections(was: KnownUpses, now: UpsConf, res: NameResolution) -> dict[str, str]:
    """Return the notes after writing ups.conf; fixed sections keep theirs."""
    made = {
        name: ups_conf.render_sections((section,)) for name, section in now.sections.items() if name not in res.fixed
    }
    return {**{name: text for name, text in was.written.items() if name in res.fixed}, **made}


def known_after(was: KnownUpses, res: NameResolution) -> KnownUpses:
    """Return what is known after a resolution was applied."""
    written = note_sections(was, res.conf, res)
    edited = {name: ups_conf.render_sections((res.conf.sections[name],)) for name in res.edited}
    return replace(was, conf=res.conf, found=res.found, memory=res.memory, written=written, edited=edited)


@dataclass
class NamedHost:
    """A host that applies resolutions and plans; its drivers always obey."""

    wanted: str | None = AUTO
    policy: UsbPolicy = DEFAULT
    release: tuple[int, int, int] = R81
    now: float = NOW
    make_known: KnownUpses = field(init=False)
    seen: dict[str, DriverState] = field(default_factory=dict)
    tries: Mapping[str, Tries] = field(default_factory=dict)
    incarnations: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = make_known(self.wanted)

    def resolve_names(self, *upses: UsbUps) -> NameResolution:
        return resolve_names(self.known, upses, self.policy, self.release)

    def settle_names(self, *upses: UsbUps) -> NameResolution:
        """Apply the resolution for these UPSes. Afterwards all drivers have had data for a while."""
        res = self.resolve_names(*upses)
        self.known = known_after(self.known, res)
        for name in res.conf.sections:
            there = name in res.plugged
            self.seen[name] = DriverState(
                RUNS if there else WAITING,
                ("OL",) if there else (),
                "" if there else "DATA-STALE",
                LONG,
                LONG if there else None,
                last_status=("OL",) if there else (),
            )
        return res

    def make_plan(
        self, *upses: UsbUps, power: Sequence[str] | None = (), server: Unit = SERVER, **seen: dict[str, Any]
    ) -> HotplugPlan:
        res = self.resolve_names(*upses)
        for name, changes in seen.items():
            self.seen[name] = replace(self.seen.get(name, DriverState(ABSENT)), **changes)
        made = make_plan(res, self.known, self.seen, server, power, self.tries, self.now, self.policy)
        self.tries = made.tries
        return made

    def apply_plan(self, made: HotplugPlan, *upses: UsbUps) -> None:
        res = self.resolve_names(*upses)
        self.known = replace(self.known, memory=res.memory)
        if made.conf is not None:
            written = note_sections(self.known, made.conf, res)
            self.known = replace(self.known, conf=made.conf, found=made.found, written=written)


# how told() shows these actions
ENUMERATE = "enumerate"
RELOAD = "reload nut-server"


def list_steps(made: HotplugPlan) -> list[str]:
    """Return a short form of a plan's steps, in order."""
    short = [f"permit {node}" for node, _unused in made.permits]
    short += [_shorten_step(f"{action.verb} {action.unit}") for action in made.before]
    short += ["write"] if made.conf is not None else []
    return short + [_shorten_step(f"{action.verb} {action.unit}") for action in made.after]


def _shorten_step(text: str) -> str:
    return text.replace("nut-driver@", "").replace(".service", "").replace("start nut-driver-enumerator", "enumerate")


GONE = {"status": (), "error": "DATA-STALE", "plugged_since": None, "silent_since": NOW - 5}
ANEW = {"status": (), "error": "DATA-STALE", "plugged_since": NOW, "silent_since": NOW - 3, "is_new_device": True}
MUTE = {"status": (), "error": "DATA-STALE"}


# Anything

HOSTILE = st.text(st.sampled_from("\"'\n\r\t#\\][=$`;|&<>() aZ0\x00\x7fäß\udcff") | st.characters(), max_size=12)
SERIALS = st.one_of(st.sampled_from(["", "5B1234T56789", "3B9876X54321", "AB12.C*D34", "000000", "CPS"]), HOSTILE)
IDS = st.sampled_from(["051d:0002", "0764:0501", "0d9f:00a2", "ffff:0001", "3746:ffff", "1a86:7523"])
PORTS = st.sampled_from(["1-1", "1-2", "1-4", "1-3.1", "1-3.2", "2-1", "2-1.1", "3-1"])
UPSES = st.builds(
    make_ups,
    IDS,
    SERIALS,
    PORTS,
    st.sampled_from(["usbhid-ups", "usbhid-ups", "nutdrv_qx", "richcomm_usb", ""]),
    manufacturer=HOSTILE,
    product=st.one_of(st.sampled_from(["Model", "UPS 1500"]), HOSTILE),
    device=st.integers(1, 127),
    accessible=st.sampled_from([True, False, None]),
    hid_power=st.sampled_from([True, False, None]),
    why=st.sampled_from(["NUT's table", bus_module.GUESS, "ups.conf names it"]),
    support=st.sampled_from([bus_module.MODEL, bus_module.MODEL, bus_module.VENDOR, bus_module.NOTHING]),
    unread=st.sampled_from([frozenset(), frozenset(), frozenset(bus_module.TEXT_KEYS)]),
    has_node=st.sampled_from([True, True, False]),
)
BUSES = st.lists(UPSES, max_size=6, unique_by=lambda ups: ups.device.name).map(tuple)
VALUES = st.sampled_from(
    ["auto", "051d", "0764", ".*", "5B1234T56789", "001", "x y", "#", "\\", '"', "=", "nut-hotplug-absent.dev", ""]
)
KEY = st.sampled_from(
    ["desc", "vendorid", "serial", "bus", "busport", "pollonly", "offdelay", "override.x", "subdriver", "port"]
)
DRIVERS = st.sampled_from(["auto", "auto", "auto", "usbhid-ups", "nutdrv_qx", "dummy-ups", "apcsmart", "richcomm_usb"])
NAMES = st.sampled_from(["ups", "ups2", "UPS3", "rack", "old", "a-b"])


@st.composite
def draw_sections(draw: st.DrawFn, drivers: st.SearchStrategy[str]) -> dict[str, Section]:
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
def draw_known(draw: st.DrawFn) -> KnownUpses:
    wanted = UpsConf((("maxretry", "3"),), draw(draw_sections(DRIVERS))) if draw(st.booleans()) else None
    now = draw(draw_sections(st.sampled_from(["usbhid-ups", "nutdrv_qx", "dummy-ups", "apcsmart"])))
    names = [*now, *(wanted.sections if wanted else ())]
    some = st.sets(st.sampled_from(names)) if names else st.just(set[str]())
    prints = st.builds(lambda ups: fingerprint.make_fingerprint(ups.device), UPSES)
    written = {
        name: ups_conf.render_sections((now[name],)) + ("" if draw(st.booleans()) else "#")
        for name in draw(some)
        if name in now
    }
    return KnownUpses(
        wanted,
        UpsConf(draw(st.sampled_from([(), (("maxretry", "3"),), (("pollinterval", "9"),)])), now),
        frozenset(draw(some)) & now.keys(),
        {name: draw(prints) for name in sorted(draw(some))},
        written,
        proven=frozenset(map(str, draw(st.lists(prints, max_size=3)))),
    )


POLICIES = st.builds(
    check_policy,
    st.fixed_dictionaries(
        {},
        optional={
            "default_name": st.sampled_from(["", "ups", "my-ups"]),
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
                                st.sampled_from(["051d", "0764"]),
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
