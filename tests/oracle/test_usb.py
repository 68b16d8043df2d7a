# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What bus.py and fingerprint.py know of NUT's drivers, rules and scanner is so in each release that Debian ships."""

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
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.pins import find_pins
from homelab import CHECKOUT, Lab
from homelab.images import build_image
from homelab.podman import limit_options, run_podman

RULES = "/lib/udev/rules.d/62-nut-usbups.rules"
# ids in the rules
COUNTS = {(2, 8, 0): 120, (2, 8, 1): 124}
# Debian has it in a package of its own
ELSEWHERE = {"apc_modbus"}

UPS = UsbDevice("1-1.4", "051d", "0002", "APC", "Back-UPS", "5B1234T56789", 1, 4, "")
TWIN = UsbDevice("2-2", "051d", "0002", "APC", "Smart-UPS", "5B1234T56789", 2, 5, "")


def run(nut: Any, *command: str) -> tuple[int, str]:
    code, said = nut.ask("run", files={}, commands=[command])[0]
    return code, said


def installed(nut: Any) -> set[str]:
    return set(run(nut, "/bin/ls", "/lib/nut")[1].split())


def keys(nut: Any, driver: str) -> set[str]:
    """Name the keys of ups.conf that a driver knows, as it lists them itself."""
    _code, said = run(nut, driver, "-L")
    return set(re.findall(r"^(?:VALUE|FLAG) ([a-z_]+) ", said, re.MULTILINE))


@pytest.fixture
def shipped(nut: Any, tmp_path: Path) -> dict[str, str]:
    (tmp_path / Path(RULES).name).write_text(run(nut, "/bin/cat", RULES)[1])
    return usb_bus.read_id_table([tmp_path])


def test_the_rules_are_read_completely(nut: Any, shipped: dict[str, str]) -> None:
    assert len(shipped) == COUNTS[nut.version]
    text = run(nut, "/bin/cat", RULES)[1]
    found = re.findall(r'idVendor\}=="(.{4})".*idProduct\}=="(.{4})"', text)
    assert set(shipped) == {f"{vendor}:{product}".lower() for vendor, product in found}


def test_each_of_them_has_a_driver(nut: Any, shipped: dict[str, str]) -> None:
    drivers = set(shipped.values())
    assert drivers - ELSEWHERE <= usb_bus.DRIVERS & installed(nut)
    assert usb_bus.HID_DRIVER in drivers
    assert not ELSEWHERE & installed(nut)


def test_all_drivers_are_there(nut: Any) -> None:
    assert installed(nut) >= usb_bus.DRIVERS


@pytest.mark.parametrize("driver", sorted(usb_bus.DRIVERS))
def test_a_driver_knows_what_is_pinned(nut: Any, driver: str) -> None:
    known = keys(nut, driver)
    some = [key for key, _value in find_pins(UPS, [TWIN], nut.version, driver).keys]
    assert set(some) <= known
    # and where nothing is pinned, it is because the driver knows nothing of it
    assert bool(some) == ("vendorid" in known)
    assert ("busport" in known) == (bool(some) and nut.version >= (2, 8, 1))


def test_the_scanner_without_a_bus(nut: Any) -> None:
    def runner(command: Sequence[str]) -> tuple[int, str]:
        return run(nut, f"/usr/bin/{command[0]}", *command[1:])

    assert usb_bus.ask_scanner(runner) == {}
    with pytest.raises(usb_bus.ScannerError, match="nut-scanner"):
        usb_bus.ask_scanner(lambda command: runner([*command, "--no-such-option"]))


# The emulated bus


class Bus:
    """A container with NUT, and with the lab's emulated bus. Its sysfs is in a directory here."""

    def __init__(self, nut: Any, folder: Path) -> None:
        self.version = nut.version
        self._folder = folder
        self._name = Lab("oracle").container_name(f"usb-{nut.debian}")
        self.close()
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

    def plug(self, port: int, model: str, **wishes: str) -> None:
        request = {"command": "plug", "port": port, "model": model, **wishes}
        self._control.sendall(json.dumps(request).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self._control.recv(65536)
        assert json.loads(answer)["ok"], answer

    def devices(self) -> list[UsbDevice]:
        """Return what is plugged in, but for the root hub, the last first: the order in which drivers look at them."""
        root = self._folder / "bus"
        found = [device for device in usb_bus.scan_bus(root / "sys", root / "dev") if not device.hub]
        return sorted(found, key=lambda device: -device.device)

    def runner(self, command: Sequence[str]) -> tuple[int, str]:
        shown = ["--env", "LD_PRELOAD=libumockdev-preload.so.0", "--env", "UMOCKDEV_DIR=/run/usb/bus"]
        done = run_podman("exec", *shown, "--env", "NUT_CONFPATH=/run/usb", self._name, *command, check=False)
        return done.returncode, f"{done.stdout}{done.stderr}"

    def taken(self, section: Section) -> str:
        """Let the real driver look for the device of a section, and return its name; "" if it takes none."""
        (self._folder / "ups.conf").write_text(ups_conf.render_sections([section]))
        _code, said = self.runner(["/lib/nut/usbhid-ups", "-u", "root", "-a", section.name, "-d", "1", "-DD"])
        verdicts = re.findall(r"Checking device|Device (matches|does not match)", said)
        looked = [one for one in verdicts if one]
        devices = self.devices()
        if "matches" not in looked:
            assert "No matching HID UPS found" in said, said
            return ""
        return devices[looked.index("matches")].name

    def close(self) -> None:
        run_podman("rm", "--force", "--ignore", "--time", "0", self._name)


@pytest.fixture
def bus(nut: Any, tmp_path: Path) -> Iterator[Bus]:
    one = Bus(nut, tmp_path)
    yield one
    one.close()


def test_the_scanner_names_what_is_there(bus: Bus, shipped: dict[str, str]) -> None:
    assert usb_bus.ask_scanner(bus.runner) == {}
    for port, model in enumerate(("apc", "cps", "eaton", "ecoflow"), 1):
        bus.plug(port, model)
    scanned = usb_bus.ask_scanner(bus.runner, bus.devices())

    assert scanned == dict.fromkeys(("051d:0002", "0764:0501", "0463:ffff"), "usbhid-ups")
    assert all(shipped[ids] == driver for ids, driver in scanned.items())


def test_a_driver_takes_the_interface_from_the_kernel(bus: Bus) -> None:
    bus.plug(1, "ecoflow")
    bus.plug(2, "apc")
    assert [device.hid_power for device in bus.devices()] == [True, True]
    assert bus.taken(Section("ups", (("driver", "usbhid-ups"), ("port", "auto")))) == "1-2"
    assert [device.hid_power for device in bus.devices()] == [None, True]


def test_the_scanner_and_a_liar(bus: Bus) -> None:
    """What a device says of itself reaches nut-scanner's output as it is."""
    bus.plug(1, "cps", product='"\nUSB:driver="riello_usb",port="auto",vendorid="046d",productid="c31c",serial="')
    bus.plug(2, "apc", product='x",driver="evil",vendorid="dead"')

    assert usb_bus.ask_scanner(bus.runner)["046d:c31c"] == "riello_usb"
    assert usb_bus.ask_scanner(bus.runner, bus.devices()) == {}
    assert usb_bus.ask_scanner(bus.runner)["051d:0002"] == "usbhid-ups"


def test_lsusb_agrees_with_sysfs(bus: Bus) -> None:
    bus.plug(1, "apc")
    bus.plug(4, "cps")
    seen = {(device.ids, device.incarnation) for device in usb_bus.scan_with_lsusb(bus.runner) if not device.hub}
    assert seen == {(device.ids, device.incarnation) for device in bus.devices()}


TWINS: tuple[dict[str, str], ...] = (
    {"serial": "5B1234T56789"},
    {"serial": "5B9999T56789  "},
    {"serial": "A7.B*(72)[93]{2}|$+?"},
    {"serial": "000000000", "product": "Back-UPS (old) *"},
    {"serial": "FW-2263 E", "product": "Back-UPS [new].? "},
)


def test_pins_bind_a_driver_to_its_device(bus: Bus) -> None:
    for port, texts in enumerate(TWINS, 1):
        bus.plug(port, "apc", **texts)
    bus.plug(6, "cps")
    devices = bus.devices()
    assert len(devices) == 6
    for device in devices:
        pins = find_pins(device, devices, bus.version)
        assert not pins.remark
        section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), *pins.keys))
        assert bus.taken(section) == device.name


def test_twins_without_serials(bus: Bus) -> None:
    for port in (1, 2, 3):
        bus.plug(port, "cps")
    devices = bus.devices()
    for device in devices:
        pins = find_pins(device, devices, bus.version)
        section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), *pins.keys))
        # 2.8.0 takes the one that was plugged in last
        assert bus.taken(section) == (device if bus.version >= (2, 8, 1) else devices[0]).name
        assert bool(pins.remark) == (bus.version < (2, 8, 1))


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


def test_patterns_mean_what_the_driver_makes_of_them(bus: Bus) -> None:
    bus.plug(1, "apc")
    bus.plug(2, "apc", serial="Käse12345", product="\t tail \n")
    bus.plug(3, "cps", product="a\vb")
    bus.plug(4, "eaton", product="😀x", serial="ab")
    devices = bus.devices()
    for key, value in PATTERNS:
        section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), (key, value)))
        meant = [device for device in devices if fingerprint.matches_device(section, device, bus.version)]
        assert bus.taken(section) == (meant[0].name if meant else ""), (key, value)
