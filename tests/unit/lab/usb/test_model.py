# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test the emulated UPS at its USB interface. One file, because all tests share the UPS and its clock."""

from __future__ import annotations

import struct

import pytest
from usb.model import NAK, SETTINGS, STALL, EmulatedUps, Setup, make_ups, report_descriptor, reports_of, text_as_read
from usb.profiles import PROFILES, USAGES, ReportItem

FEATURE, INPUT = 3, 1


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ups(clock: Clock) -> EmulatedUps:
    return make_ups("apc", clock=clock, wall=lambda: 0.0)


def parse_report(raw: bytes) -> dict[tuple[str, str], tuple[int, int, int, int, int]]:
    """A HID parser of its own: (kind, path) -> report number, bit offset, bits, logical minimum, logical maximum."""
    names = {value: name for name, value in USAGES.items()}
    state: dict[int, int] = {}
    offsets: dict[tuple[str, int], int] = {}
    path: list[str] = []
    usages: list[str] = []
    found = {}
    page = 0
    while raw:
        tag, size = raw[0] & 0xFC, (0, 1, 2, 4)[raw[0] & 3]
        data, raw = raw[1 : 1 + size], raw[1 + size :]
        value, signed = int.from_bytes(data, "little"), int.from_bytes(data, "little", signed=True)
        if tag == 0x04:
            page = value
        elif tag == 0x08:
            usages.append(names[page << 16 | value])
        elif tag == 0xA0:
            path.append(usages.pop())
        elif tag == 0xC0:
            path.pop()
        elif tag in (0xB0, 0x80):
            kind = "feature" if tag == 0xB0 else "input"
            at = offsets.get((kind, state[0x84]), 0)
            if usages:
                where = ".".join([*path, usages.pop()][1:])
                found[kind, where] = (state[0x84], at, state[0x74], state[0x14], state[0x24])
            offsets[kind, state[0x84]] = at + state[0x74] * state[0x94]
        else:
            state[tag] = signed if tag in (0x14, 0x24) else value
    assert not path
    assert all(bits % 8 == 0 for bits in offsets.values())
    return found


def read_report(ups: EmulatedUps, path: str, kind: int = FEATURE) -> int:
    raw = ups.control_transfer(Setup(0x81, 6, 0x2200, 0, 4096))
    assert isinstance(raw, bytes)
    number, at, bits, low, _high = parse_report(raw)["feature" if kind == FEATURE else "input", path]
    report = ups.control_transfer(Setup(0xA1, 1, kind << 8 | number, 0, 64))
    assert isinstance(report, bytes)
    assert report[0] == number
    value = int.from_bytes(report[1:], "little") >> at & ((1 << bits) - 1)
    return value - (1 << bits) if low < 0 and value >> (bits - 1) else value


def write_report(ups: EmulatedUps, path: str, value: int) -> object:
    raw = ups.control_transfer(Setup(0x81, 6, 0x2200, 0, 4096))
    assert isinstance(raw, bytes)
    number, _at, bits, _low, _high = parse_report(raw)["feature", path]
    data = bytes((number,)) + (value & ((1 << bits) - 1)).to_bytes(bits // 8, "little")
    return ups.control_transfer(Setup(0x21, 9, FEATURE << 8 | number, 0, len(data)), data)


def list_events(ups: EmulatedUps) -> list[str]:
    return [event["event"] for event in ups.events]


@pytest.mark.parametrize("model", PROFILES)
def test_descriptor_holds_every_item(model: str) -> None:
    found = parse_report(report_descriptor(reports_of(PROFILES[model].items)))
    for item in PROFILES[model].items:
        number, _at, bits, low, high = found["feature", item.path]
        assert (bits, low, high) == (item.bits, item.low, item.high)
        assert (("input", item.path) in found) == item.volatile
        assert number


@pytest.mark.parametrize("model", PROFILES)
def test_every_report_can_be_read(model: str) -> None:
    ups = make_ups(model)
    for number in range(1, len(reports_of(ups.profile.items)) + 1):
        answer = ups.control_transfer(Setup(0xA1, 1, FEATURE << 8 | number, 0, 64))
        assert isinstance(answer, bytes)
        assert answer[0] == number
        assert len(answer) <= 8, "the interrupt endpoint takes 8 bytes"
    assert ups.control_transfer(Setup(0xA1, 1, FEATURE << 8 | 0xEE, 0, 64)) is STALL


def test_bits_of_one_collection_share_a_report() -> None:
    items = (
        ReportItem("A.x", "x", 1, 0, 1),
        ReportItem("A.y", "y", 1, 0, 1),
        ReportItem("B.x", "z", 1, 0, 1),
        ReportItem("B.w", "w"),
    )
    assert [len(report.items) for report in reports_of(items)] == [2, 1, 1]


def test_descriptors_are_those_of_the_device(ups: EmulatedUps) -> None:
    device = ups.control_transfer(Setup(0x80, 6, 0x0100, 0, 18))
    assert isinstance(device, bytes)
    assert struct.unpack("<HH", device[8:12]) == (0x051D, 0x0002)
    config = ups.control_transfer(Setup(0x80, 6, 0x0200, 0, 255))
    assert isinstance(config, bytes)
    assert struct.unpack("<H", config[2:4])[0] == len(config)
    assert ups.control_transfer(Setup(0x80, 6, 0x0200, 0, 9)) == config[:9]
    hid = ups.control_transfer(Setup(0x81, 6, 0x2100, 0, 9))
    assert isinstance(hid, bytes)
    assert hid in config
    report = ups.control_transfer(Setup(0x81, 6, 0x2200, 0, 4096))
    assert isinstance(report, bytes)
    assert struct.unpack("<H", hid[7:9])[0] == len(report)
    assert ups.control_transfer(Setup(0x80, 6, 0x0303, 0x0409, 255)) == b"\x1a\x03" + "5B1234T56789".encode("utf-16-le")
    assert ups.control_transfer(Setup(0x80, 6, 0x0600, 0, 10)) is STALL


def test_no_serial_is_string_index_0() -> None:
    cps = make_ups("cps")
    assert cps.device_descriptor[16] == 0
    assert cps.control_transfer(Setup(0x80, 6, 0x0303, 0x0409, 255)) is STALL
    assert make_ups("cps", {"serial": "X"}).device_descriptor[16] == 3


@pytest.mark.parametrize("text", ["x" * 300, 'a"b\n#\\ é', "\udcff\ud800", "\0", "🔌" * 100])
def test_strings_survive_any_text(text: str) -> None:
    answer = make_ups("apc", {"serial": text}).control_transfer(Setup(0x80, 6, 0x0303, 0x0409, 255))
    assert isinstance(answer, bytes)
    assert answer[0] == len(answer) <= 254
    assert len(answer) % 2 == 0


def read_string(ups: EmulatedUps, index: int) -> str:
    answer = ups.control_transfer(Setup(0x80, 6, 3 << 8 | index, 0x0409, 255))
    assert isinstance(answer, bytes)
    return answer[2:].decode("utf-16-le")


def test_text_as_read() -> None:
    assert text_as_read("CPS") == "CPS"
    assert text_as_read("ä" * 200) == "ä" * 126


def test_fickle_ups_changes_a_string_each_time(ups: EmulatedUps) -> None:
    assert read_string(ups, 2) == read_string(ups, 2) == ups.identity.product
    ups.fickle = True
    assert [read_string(ups, 3), read_string(ups, 3)] == ["5B1234T56789 1", "5B1234T56789 2"]
    ups.control_transfer(Setup(0x80, 6, 0x0100, 0, 18))
    assert read_string(ups, 1) == "American Power Conversion 3"


def test_unreadable_strings_have_a_broken_table_of_languages_only(ups: EmulatedUps) -> None:
    """libusb reads that table first, and refuses another type of descriptor."""
    languages = Setup(0x80, 6, 0x0300, 0, 255)
    assert ups.control_transfer(languages) == bytes((4, 3, 9, 4))
    ups.unreadable_strings = True
    assert ups.control_transfer(languages) == bytes((4, 0, 9, 4))
    assert read_string(ups, 3) == "5B1234T56789"


def test_serial_adapter_is_no_hid_device() -> None:
    adapter = make_ups("ch340")
    assert adapter.config_descriptor[14] == 0xFF
    assert len(adapter.config_descriptor) == adapter.config_descriptor[2]
    assert read_string(adapter, 2) == "USB Serial"
    assert adapter.control_transfer(Setup(0x81, 6, 0x2200, 0, 255)) is STALL
    assert adapter.control_transfer(Setup(0xA1, 1, FEATURE << 8 | 1, 0, 64)) is STALL
    assert adapter.interrupt_in() is None


def test_lost_mains_change_the_reports(ups: EmulatedUps) -> None:
    assert (read_report(ups, "PowerSummary.PresentStatus.ACPresent"), read_report(ups, "Input.Voltage")) == (1, 231)
    assert ups.describe_status()["status"] == "OL"
    ups.set_mains(False)
    status = "PowerSummary.PresentStatus."
    assert [read_report(ups, status + name) for name in ("ACPresent", "Discharging", "FullyCharged")] == [0, 1, 0]
    assert read_report(ups, status + "ACPresent", INPUT) == 0
    assert read_report(ups, "Input.Voltage") == 0
    assert ups.describe_status()["status"] == "OB DISCHRG"
    ups.set_values({"charge": 60})
    ups.set_mains(True)
    assert [read_report(ups, status + name) for name in ("ACPresent", "Charging", "FullyCharged")] == [1, 1, 0]
    assert list_events(ups) == ["mains off", "set", "mains on"]


@pytest.mark.parametrize(
    ("values", "low"),
    [({"charge": 11}, 0), ({"charge": 10}, 1), ({"runtime": 121}, 0), ({"runtime": 120}, 1), ({"charge_low": 100}, 1)],
)
def test_battery_is_low_below_each_threshold(ups: EmulatedUps, values: dict[str, int], low: int) -> None:
    ups.set_values(values)
    assert read_report(ups, "PowerSummary.PresentStatus.BelowRemainingCapacityLimit") == low


def test_forced_low_ends_with_mains(ups: EmulatedUps) -> None:
    ups.set_mains(False)
    ups.force_low()
    assert ups.describe_status()["status"] == "OB LB DISCHRG"
    assert read_report(ups, "PowerSummary.RemainingCapacity") == 10
    ups.set_mains(True)
    assert ups.describe_status()["status"] == "OL"
    assert read_report(ups, "PowerSummary.RemainingCapacity") == 100


@pytest.mark.parametrize("values", [{"nonsense": 1}, {"charge": 101}, {"charge": "5"}, {"charge": True}])
def test_set_refuses_and_changes_nothing(ups: EmulatedUps, values: dict[str, object]) -> None:
    before = dict(ups.state)
    with pytest.raises(ValueError, match=next(iter(values))):
        ups.set_values({"load": 50, **values})  # type: ignore[dict-item]
    assert ups.state == before


def test_interrupt_pipe_reports_each_change_once(ups: EmulatedUps) -> None:
    assert ups.interrupt_in() is None
    ups.set_mains(False)
    ups.set_values({"charge": 70})
    seen = []
    while (report := ups.interrupt_in()) is not None:
        seen.append(report)
    assert len(seen) == len({report[0] for report in seen}) == 3  # charge, runtime, status
    assert bytes((70,)) in {report[1:] for report in seen}
    ups.set_mains(False)
    assert ups.interrupt_in() is None


def test_hanging_ups_answers_nothing(ups: EmulatedUps) -> None:
    request = Setup(0xA1, 1, FEATURE << 8 | 1, 0, 64)
    ups.set_hang(NAK)
    ups.set_mains(False)
    assert ups.control_transfer(request) is NAK
    assert ups.interrupt_in() is None
    ups.set_hang(STALL)
    assert ups.control_transfer(request) is STALL
    assert isinstance(ups.control_transfer(Setup(0x80, 6, 0x0100, 0, 18)), bytes)
    ups.set_hang(None)
    assert isinstance(ups.control_transfer(request), bytes)
    assert ups.interrupt_in() is not None


@pytest.mark.parametrize("model", ["apc", "cps", "eaton"])
def test_killpower_switches_the_outlets(model: str, clock: Clock) -> None:
    ups = make_ups(model, clock=clock)
    at = "Output." if model == "cps" else "PowerSummary."
    ups.set_mains(False)
    assert write_report(ups, f"{at}DelayBeforeStartup", 30) == b""  # NUT's shutdown.return: first this, then that
    assert write_report(ups, f"{at}DelayBeforeShutdown", 20) == b""
    assert read_report(ups, f"{at}DelayBeforeShutdown") == 20
    assert ups.deadline == 1020
    clock.now = 1019.0
    ups.update_outlets()
    assert ups.outlets
    clock.now = 1020.0
    ups.update_outlets()
    assert not ups.outlets
    assert read_report(ups, "PowerSummary.PresentStatus.Good") == 0
    clock.now = 2000.0
    ups.update_outlets()
    assert not ups.outlets, "no mains, no outlets"
    ups.set_mains(True)
    assert ups.deadline == 2030
    clock.now = 2010.0
    ups.set_mains(False)
    clock.now = 2040.0
    ups.update_outlets()
    assert not ups.outlets, "mains went before the start delay was over"
    ups.set_mains(True)
    clock.now = 2070.0
    ups.update_outlets()
    assert ups.outlets
    assert list_events(ups)[-3:] == ["mains off", "mains on", "outlets on"]


def test_killpower_with_mains_back_early_still_cuts_and_restores(ups: EmulatedUps, clock: Clock) -> None:
    ups.set_mains(False)
    write_report(ups, "PowerSummary.DelayBeforeStartup", 30)
    write_report(ups, "PowerSummary.DelayBeforeShutdown", 20)
    ups.set_mains(True)
    for clock.now in (1020.0, 1050.0):
        ups.update_outlets()
    assert list_events(ups)[-2:] == ["outlets off", "outlets on"]


def test_shutdown_stop_and_stayoff(ups: EmulatedUps, clock: Clock) -> None:
    write_report(ups, "PowerSummary.DelayBeforeShutdown", 20)
    write_report(ups, "PowerSummary.DelayBeforeShutdown", -1)
    assert ups.deadline is None
    assert read_report(ups, "PowerSummary.DelayBeforeShutdown") == -1
    write_report(ups, "PowerSummary.DelayBeforeStartup", -1)
    write_report(ups, "PowerSummary.DelayBeforeShutdown", 0)
    ups.update_outlets()
    assert not ups.outlets
    assert ups.deadline is None
    write_report(ups, "PowerSummary.DelayBeforeStartup", 5)
    clock.now += 5
    ups.update_outlets()
    assert ups.outlets


def test_reboot_switches_the_outlets_off_and_on(ups: EmulatedUps, clock: Clock) -> None:
    write_report(ups, "PowerSummary.DelayBeforeReboot", 10)
    for clock.now in (1010.0, 1012.0):
        ups.update_outlets()
    assert list_events(ups)[-2:] == ["outlets off", "outlets on"]


def test_host_may_write_settings_only(ups: EmulatedUps) -> None:
    assert write_report(ups, "PowerSummary.RemainingCapacityLimit", 25) == b""
    assert ups.state["charge_low"] == 25
    assert write_report(ups, "PowerSummary.RemainingCapacityLimit", 101) is STALL
    assert write_report(ups, "PowerSummary.RemainingCapacity", 5) is STALL
    assert ups.control_transfer(Setup(0x21, 9, FEATURE << 8 | 9, 0, 0), b"") is STALL
    assert ups.state["charge"] == 100


@pytest.fixture
def megatec(clock: Clock) -> EmulatedUps:
    return make_ups("megatec", clock=clock, wall=lambda: 0.0)


def read_answer(ups: EmulatedUps) -> bytes:
    said = b""
    while (part := ups.interrupt_in()) is not None:
        assert len(part) == 8
        said += part
    return said.rstrip(b"\0")


def ask_megatec(ups: EmulatedUps, command: str) -> str:
    """Say a command in pieces of eight bytes, padded as NUT pads them, and return the answer without its end."""
    raw = command.encode() + b"\r"
    for at in range(0, len(raw), 8):
        assert ups.control_transfer(Setup(0x21, 9, 0x0200, 0, 8), raw[at : at + 8].ljust(8, b"\0")) == b""
    said = read_answer(ups).decode()
    assert said.endswith("\r")
    return said[:-1]


def test_megatec_is_not_a_power_device(megatec: EmulatedUps) -> None:
    descriptor = megatec.control_transfer(Setup(0x81, 6, 0x2200, 0, 255))
    assert isinstance(descriptor, bytes)
    assert descriptor.startswith(bytes.fromhex("06a0ff"))
    assert megatec.control_transfer(Setup(0xA1, 1, FEATURE << 8 | 1, 0, 64)) is STALL
    assert megatec.control_transfer(Setup(0x21, 10, 0, 0, 0)) == b""


def test_megatec_answers_known_commands(megatec: EmulatedUps) -> None:
    assert megatec.interrupt_in() is None
    assert ask_megatec(megatec, "Q1") == "(231.0 231.0 230.0 012 50.0 13.5 25.0 00000001"
    assert ask_megatec(megatec, "F") == "#230.0 002 012.0 50.0"
    assert ask_megatec(megatec, "I") == "#INNO TECH       USB to Ser 2         "
    assert ask_megatec(megatec, "QPI") == "QPI"
    assert ask_megatec(megatec, "QGS and more than one report") == "QGS and more than one report"
    megatec.set_mains(False)
    megatec.force_low()
    megatec.set_values({"beeper": 1})
    assert ask_megatec(megatec, "Q1") == "(000.0 000.0 230.0 012 50.0 13.5 25.0 11000000"


def test_megatec_input_buffer_is_bounded(megatec: EmulatedUps) -> None:
    """Whoever never ends a command is answered in the end, and the next command is a new one."""
    for _unused in range(16):
        megatec.control_transfer(Setup(0x21, 9, 0x0200, 0, 8), b"xxxxxxxx")
    assert read_answer(megatec) == b"x" * 128 + b"\r"
    assert ask_megatec(megatec, "F").startswith("#")


def test_hanging_megatec_answers_nothing(megatec: EmulatedUps) -> None:
    megatec.control_transfer(Setup(0x21, 9, 0x0200, 0, 8), b"F\r")
    megatec.set_hang(NAK)
    assert megatec.interrupt_in() is None
    assert megatec.control_transfer(Setup(0x21, 9, 0x0200, 0, 8), b"F\r") is NAK


def test_megatec_shutdown_switches_the_outlets(megatec: EmulatedUps, clock: Clock) -> None:
    assert ask_megatec(megatec, "S.5R0002") == ""
    assert megatec.deadline == 1030
    assert ask_megatec(megatec, "Q1").endswith("00000101")
    assert ask_megatec(megatec, "C") == ""
    assert megatec.deadline is None
    ask_megatec(megatec, "S.5R0002")
    clock.now = 1030.0
    megatec.update_outlets()
    assert not megatec.outlets
    assert megatec.deadline == 1150
    clock.now = 1150.0
    megatec.update_outlets()
    assert megatec.outlets
    ask_megatec(megatec, "S01")
    assert megatec.deadline == 1210
    clock.now = 1210.0
    megatec.update_outlets()
    assert not megatec.outlets
    assert megatec.deadline is None, "it stays off"
    assert list_events(megatec)[-2:] == ["host said S01", "outlets off"]


def test_overrides_replace_values() -> None:
    ups = make_ups("eaton", {"serial": "S", "manufacturer": "M", "product": "P", "id": "1234:abcd"})
    assert ups.identity == ups.profile.identity.__class__(0x1234, 0xABCD, 0x0100, "M", "P", "S")


@pytest.mark.parametrize(
    ("model", "wishes", "message"),
    [
        ("nosuch", {}, "known: apc"),
        ("apc", {"id": "12:34"}, "VVVV:PPPP"),
        ("apc", {"id": "xxxx:0000"}, "VVVV:PPPP"),
        ("apc", {"serial": 5}, "must be a string"),
        ("apc", {"colour": "red"}, "colour"),
    ],
)
def test_invalid_overrides_are_refused(model: str, wishes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_ups(model, wishes)


def test_defaults_are_allowed() -> None:
    for name, setting in SETTINGS.items():
        assert setting.low <= setting.default <= setting.high, name


def list_outlets(ups: EmulatedUps) -> list[str]:
    return [event["event"] for event in ups.events if event["event"].startswith("outlets")]


def test_empty_battery_cuts_the_outlets(ups: EmulatedUps, clock: Clock) -> None:
    """Without mains all is off at once; with them it is on again, as soon as they are back."""
    ups.empty_battery()
    assert ups.outlets
    ups.set_mains(False)
    ups.empty_battery()
    assert not ups.outlets
    ups.empty_battery()
    clock.now += 100
    ups.update_outlets()
    assert not ups.outlets
    ups.set_mains(True)
    assert not ups.outlets
    clock.now += 2
    ups.update_outlets()
    assert ups.outlets
    assert list_outlets(ups) == ["outlets off", "outlets on"]


def test_empty_battery_after_an_order_to_stay_off(ups: EmulatedUps, clock: Clock) -> None:
    ups._start_delay = None
    ups.set_mains(False)
    ups.empty_battery()
    ups.set_mains(True)
    clock.now += 2
    ups.update_outlets()
    assert ups.outlets


def test_hurry_outlets_skips_the_delay(ups: EmulatedUps, clock: Clock) -> None:
    """It spares the wait, and nothing else: one switching at a time, and none that was not to come."""
    ups.hurry_outlets()
    assert ups.outlets
    ups.set_mains(False)
    ups._write_value("delay_startup", 30)
    ups._write_value("delay_shutdown", 20)
    ups.hurry_outlets()
    assert not ups.outlets
    ups.hurry_outlets()
    assert not ups.outlets
    ups.set_mains(True)
    assert not ups.outlets
    ups.hurry_outlets()
    assert ups.outlets
    clock.now += 100
    ups.update_outlets()
    assert list_outlets(ups) == ["outlets off", "outlets on"]
