# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""usb/bus and usb/fingerprint are right about the drivers, udev rules and nut-scanner of each release in Debian."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import bus as usb_bus
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint, unread
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.pins import find_pins
from homelab import CHECKOUT, Lab
from homelab.images import build_image
from homelab.podman import limit_options, run_podman

RULES = "/lib/udev/rules.d/62-nut-usbups.rules"
# number of ids in the rules
COUNTS = {(2, 8, 0): 120, (2, 8, 1): 124, (2, 8, 5): 132}
# the first release whose nut-scanner knows an EcoFlow
KNOWS_ECOFLOW = (2, 8, 3)
# Debian has this driver in a separate package
ELSEWHERE = {"apc_modbus"}

UPS = UsbDevice("1-1.4", "051d", "0002", "APC", "Back-UPS", "5B1234T56789", 1, 4, "")
TWIN = UsbDevice("2-2", "051d", "0002", "APC", "Smart-UPS", "5B1234T56789", 2, 5, "")


def run_in_container(nut: Any, *command: str) -> tuple[int, str]:
    code, output = nut.call_inside("run_programs", files={}, commands=[command])[0]
    return code, output


def list_drivers(nut: Any) -> set[str]:
    return set(run_in_container(nut, "/bin/ls", nut.drivers)[1].split())


def known_drivers(nut: Any) -> frozenset[str]:
    """Return the USB drivers that the library knows to be in a release."""
    return usb_bus.DRIVERS | (usb_bus.NEWER_DRIVERS if nut.version >= (2, 8, 4) else frozenset())


def list_keys(nut: Any, driver: str) -> set[str]:
    """Return the keys of ups.conf that a driver lists."""
    _code, output = run_in_container(nut, driver, "-L")
    return set(re.findall(r"^(?:VALUE|FLAG) ([a-z_]+) ", output, re.MULTILINE))


@pytest.fixture
def shipped_rules(nut: Any, tmp_path: Path) -> dict[str, str]:
    (tmp_path / Path(RULES).name).write_text(run_in_container(nut, "/bin/cat", RULES)[1])
    return usb_bus.read_id_table([tmp_path])


def test_read_id_table_reads_every_rule(nut: Any, shipped_rules: dict[str, str]) -> None:
    assert len(shipped_rules) == COUNTS[nut.version]
    text = run_in_container(nut, "/bin/cat", RULES)[1]
    found = re.findall(r'idVendor\}=="(.{4})".*idProduct\}=="(.{4})"', text)
    assert set(shipped_rules) == {f"{vendor}:{product}".lower() for vendor, product in found}


def test_each_rule_names_an_installed_driver(nut: Any, shipped_rules: dict[str, str]) -> None:
    drivers = set(shipped_rules.values())
    assert drivers - ELSEWHERE <= known_drivers(nut) & list_drivers(nut)
    assert usb_bus.HID_DRIVER in drivers
    assert not ELSEWHERE & list_drivers(nut)


def test_all_usb_drivers_are_installed(nut: Any) -> None:
    assert list_drivers(nut) >= known_drivers(nut)


@pytest.mark.parametrize("driver", sorted(usb_bus.DRIVERS))
def test_drivers_support_the_pinned_keys(nut: Any, driver: str) -> None:
    known = list_keys(nut, driver)
    some = [key for key, _value in find_pins(UPS, [TWIN], nut.version, driver).keys]
    assert set(some) <= known
    # nothing is pinned only if the driver has no such keys
    assert bool(some) == ("vendorid" in known)
    assert ("busport" in known) == (bool(some) and nut.version >= (2, 8, 1))


def test_scanner_fails_without_a_bus(nut: Any) -> None:
    def runner(command: Sequence[str]) -> tuple[int, str]:
        return run_in_container(nut, f"/usr/bin/{command[0]}", *command[1:])

    assert usb_bus.ask_scanner(runner) == {}
    with pytest.raises(usb_bus.ScannerError, match="nut-scanner"):
        usb_bus.ask_scanner(lambda command: runner([*command, "--no-such-option"]))


# The emulated bus


class EmulatedBus:
    """A container with NUT and the lab's emulated USB bus. Its sysfs is a directory on this machine."""

    def __init__(self, nut: Any, folder: Path) -> None:
        self.version = nut.version
        self._usbhid_ups = f"{nut.drivers}/usbhid-ups"
        self._folder = folder
        self._name = Lab("oracle").container_name(f"usb-{nut.debian}")
        self.remove_container()
        options = ["--detach", "--rm", "--name", self._name, "--network", "none", *limit_options()]
        options += ["--volume", f"{CHECKOUT / 'lab'}:/opt/lab:ro", "--volume", f"{folder}:/run/usb"]
        options += ["--env", "PYTHONDONTWRITEBYTECODE=1"]
        run_podman("run", *options, build_image("nut", nut.debian), "python3", "/opt/lab/usb/emulator.py", "/run/usb")
        self._control = self._connect()

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + 20
        while True:
            control = socket.socket(socket.AF_UNIX)
            try:
                control.connect(str(self._folder / "control"))
            except OSError:
                control.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return control

    def plug_ups(self, port: int, model: str, **wishes: str) -> None:
        request = {"command": "plug", "port": port, "model": model, **wishes}
        self._control.sendall(json.dumps(request).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self._control.recv(65536)
        assert json.loads(answer)["ok"], answer

    def list_devices(self) -> list[UsbDevice]:
        """Return the plugged-in devices in the order in which drivers examine them: the latest first."""
        root = self._folder / "bus"
        found = [device for device in usb_bus.scan_bus(root / "sys", root / "dev") if not device.hub]
        return sorted(found, key=lambda device: -device.device)

    def run_program(self, command: Sequence[str]) -> tuple[int, str]:
        shown = ["--env", "LD_PRELOAD=libumockdev-preload.so.0", "--env", "UMOCKDEV_DIR=/run/usb/bus"]
        done = run_podman("exec", *shown, "--env", "NUT_CONFPATH=/run/usb", self._name, *command, check=False)
        return done.returncode, f"{done.stdout}{done.stderr}"

    def find_taken_device(self, section: Section) -> str:
        """Return the name of the device that the real driver takes for a section; "" if it takes none."""
        (self._folder / "ups.conf").write_text(ups_conf.render_sections([section]))
        _code, output = self.run_program([self._usbhid_ups, "-u", "root", "-a", section.name, "-d", "1", "-DD"])
        verdicts = re.findall(r"Checking device|Device (matches|does not match)", output)
        looked = [verdict for verdict in verdicts if verdict]
        devices = self.list_devices()
        if "matches" not in looked:
            assert "No matching HID UPS found" in output, output
            return ""
        return devices[looked.index("matches")].name

    def remove_container(self) -> None:
        run_podman("rm", "--force", "--ignore", "--time", "0", self._name)


@pytest.fixture
def emulated_bus(nut: Any, tmp_path: Path) -> Iterator[EmulatedBus]:
    bus_container = EmulatedBus(nut, tmp_path)
    yield bus_container
    bus_container.remove_container()


def test_scanner_names_the_driver_of_each_device(emulated_bus: EmulatedBus, shipped_rules: dict[str, str]) -> None:
    assert usb_bus.ask_scanner(emulated_bus.run_program) == {}
    for port, model in enumerate(("apc", "cps", "eaton", "ecoflow"), 1):
        emulated_bus.plug_ups(port, model)
    scanned = usb_bus.ask_scanner(emulated_bus.run_program, emulated_bus.list_devices())

    known = ["051d:0002", "0764:0501", "0463:ffff", *(["3746:ffff"] if emulated_bus.version >= KNOWS_ECOFLOW else [])]
    assert scanned == dict.fromkeys(known, "usbhid-ups")
    assert all(shipped_rules[ids] == driver for ids, driver in scanned.items())


def test_scanner_shows_the_texts_that_the_kernel_shows(emulated_bus: EmulatedBus) -> None:
    for port, model in enumerate(("apc", "cps", "eaton"), 1):
        emulated_bus.plug_ups(port, model)
    devices = emulated_bus.list_devices()
    lines = usb_bus.read_scanner(emulated_bus.run_program, devices)
    assert lines
    assert [unread.find_unread(device, lines) for device in devices] == [frozenset()] * 3


def test_driver_takes_the_interface_from_the_kernel(emulated_bus: EmulatedBus) -> None:
    emulated_bus.plug_ups(1, "ecoflow")
    emulated_bus.plug_ups(2, "apc")
    assert [device.hid_power for device in emulated_bus.list_devices()] == [True, True]
    assert emulated_bus.find_taken_device(Section("ups", (("driver", "usbhid-ups"), ("port", "auto")))) == "1-2"
    assert [device.hid_power for device in emulated_bus.list_devices()] == [None, True]


def test_scanner_output_forged_by_a_device_is_ignored(emulated_bus: EmulatedBus) -> None:
    """nut-scanner prints a device's strings without escaping them."""
    emulated_bus.plug_ups(
        1, "cps", product='"\nUSB:driver="riello_usb",port="auto",vendorid="046d",productid="c31c",serial="'
    )
    emulated_bus.plug_ups(2, "apc", product='x",driver="evil",vendorid="dead"')

    assert usb_bus.ask_scanner(emulated_bus.run_program)["046d:c31c"] == "riello_usb"
    assert usb_bus.ask_scanner(emulated_bus.run_program, emulated_bus.list_devices()) == {}
    assert usb_bus.ask_scanner(emulated_bus.run_program)["051d:0002"] == "usbhid-ups"


def test_lsusb_agrees_with_sysfs(emulated_bus: EmulatedBus) -> None:
    emulated_bus.plug_ups(1, "apc")
    emulated_bus.plug_ups(4, "cps")
    seen = {
        (device.ids, device.incarnation)
        for device in usb_bus.scan_with_lsusb(emulated_bus.run_program)
        if not device.hub
    }
    assert seen == {(device.ids, device.incarnation) for device in emulated_bus.list_devices()}


TWINS: tuple[dict[str, str], ...] = (
    {"serial": "5B1234T56789"},
    {"serial": "5B9999T56789  "},
    {"serial": "A7.B*(72)[93]{2}|$+?"},
    {"serial": "000000000", "product": "Back-UPS (old) *"},
    {"serial": "FW-2263 E", "product": "Back-UPS [new].? "},
)


def test_pins_bind_a_driver_to_its_device(emulated_bus: EmulatedBus) -> None:
    for port, texts in enumerate(TWINS, 1):
        emulated_bus.plug_ups(port, "apc", **texts)
    emulated_bus.plug_ups(6, "cps")
    devices = emulated_bus.list_devices()
    assert len(devices) == 6
    for device in devices:
        pins = find_pins(device, devices, emulated_bus.version)
        assert not pins.remark
        section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), *pins.keys))
        assert emulated_bus.find_taken_device(section) == device.name


def test_twins_without_serial_numbers_are_distinguished_from_2_8_1_on(emulated_bus: EmulatedBus) -> None:
    for port in (1, 2, 3):
        emulated_bus.plug_ups(port, "cps")
    devices = emulated_bus.list_devices()
    for device in devices:
        pins = find_pins(device, devices, emulated_bus.version)
        section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), *pins.keys))
        # 2.8.0 takes the UPS that was plugged in last
        assert (
            emulated_bus.find_taken_device(section)
            == (device if emulated_bus.version >= (2, 8, 1) else devices[0]).name
        )
        assert bool(pins.remark) == (emulated_bus.version < (2, 8, 1))


PATTERNS: tuple[tuple[str, str], ...] = (
    ("serial", "5b1234t56789"),
    ("serial", "5B[[:digit:]]+T.*"),
    ("serial", "5B1234"),
    ("serial", "K.se[0-9]+"),
    ("serial", r"K\?se\w*"),
    ("serial", ""),
    ("serial", "a"),
    ("product", "tail"),
    ("product", "a.b"),
    ("product", r"\?\?x"),
    ("vendor", "CPS|EATON"),
    ("vendorid", "0764"),
    ("vendorid", "764"),
    ("productid", "000[13]"),
    ("bus", "1"),
    ("bus", "001"),
    ("device", "003"),
    ("device", "3"),
)


def test_matches_device_agrees_with_the_driver(emulated_bus: EmulatedBus) -> None:
    emulated_bus.plug_ups(1, "apc")
    emulated_bus.plug_ups(2, "apc", serial="Käse12345", product="\t tail \n")
    emulated_bus.plug_ups(3, "cps", product="a\vb")
    emulated_bus.plug_ups(4, "eaton", product="😀x", serial="ab")
    devices = emulated_bus.list_devices()
    for key, value in PATTERNS:
        section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), (key, value)))
        meant = [device for device in devices if fingerprint.matches_device(section, device, emulated_bus.version)]
        assert emulated_bus.find_taken_device(section) == (meant[0].name if meant else ""), (key, value)
