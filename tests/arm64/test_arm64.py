# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Debian's NUT and Python for arm64, as on a Raspberry Pi, in an emulator: `make test-arm64`.

The emulator runs one program at a time, with the libraries of an unpacked Debian. Nothing is registered in the kernel, and none of
the packages' scripts is run. What needs a kernel of its own (USB devices, systemd) is not tested here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.tests.unit.support.sysfs_tree import SysfsTree

CHECKOUT = Path(__file__).resolve().parents[2]
RELEASE = "trixie"
PACKAGES = ("nut-client", "nut-server", "python3-minimal", "python3")
START_SECONDS = 60
# Python compiles what it imports, which takes minutes in the emulator: no script of the packages has done it
PYTHON_SECONDS = 600

LIBRARY = """
import json, platform, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from _nut.net.client import UpsdClient
from _nut.net.snapshot import take_snapshot
from _nut.programs import nut_hotplug, nut_shutdown
from _nut.usb.bus import scan_bus
from _nut.usb.fingerprint import trusted_serial
for main, more in ((nut_hotplug.main, ["program"]), (nut_shutdown.main, [])):
    try:
        main(["--help"], print, print, *more)
    except SystemExit:
        pass
devices = scan_bus(Path(sys.argv[2]), Path(sys.argv[3]))
with UpsdClient("127.0.0.1", int(sys.argv[4]), timeout=30) as client:
    release, upses = client.get_version(), take_snapshot(client, None)
print("RESULT " + json.dumps({
    "machine": platform.machine(),
    "serials": [trusted_serial(device) for device in devices if device.ids == "051d:0002"],
    "release": release,
    "upses": {ups.name: ups.variables["ups.status"] for ups in upses},
}))
"""


class Arm64:
    """Runs programs of an unpacked Debian for arm64."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = dict(os.environ)

    def unpack(self) -> None:
        """Unpack Debian's packages."""
        words = [
            "--quiet",
            "--mode=root" if os.geteuid() == 0 else "--mode=unshare",
            "--arch=arm64",
            "--variant=extract",
        ]
        subprocess.run(["mmdebstrap", *words, f"--include={','.join(PACKAGES)}", RELEASE, str(self.root)], check=True)
        for name in ("bin", "lib", "sbin"):  # base-files has them, but nothing that is only extracted makes them
            if not (self.root / name).exists():
                (self.root / name).symlink_to(f"usr/{name}")

    def command(self, program: str, *arguments: str) -> list[str]:
        """Return a command that emulates a program."""
        emulator = os.environ.get("QEMU_ARM64", "qemu-aarch64-static")
        return [emulator, "-L", str(self.root), str((self.root / program).resolve()), *arguments]

    def run(self, program: str, *arguments: str, seconds: float = START_SECONDS) -> str:
        """Run a program, and return its output."""
        command = self.command(program, *arguments)
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Arm64:
    """Return an unpacked Debian."""
    machine = Arm64(tmp_path_factory.mktemp("arm64") / "root")
    machine.unpack()
    return machine


@pytest.fixture(scope="module")
def port(arm64: Arm64, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start a driver and upsd, and yield upsd's port."""
    folder = tmp_path_factory.mktemp("nut")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    device = folder / "pi.dev"
    device.write_text("ups.status: OL\nbattery.charge: 100\n")
    (folder / "ups.conf").write_text(f"[pi]\n\tdriver = dummy-ups\n\tport = {device}\n")
    (folder / "upsd.conf").write_text(f"LISTEN 127.0.0.1 {number}\nSTATEPATH {folder}\n")
    (folder / "upsd.users").write_text("")
    paths = ("NUT_CONFPATH", "NUT_STATEPATH", "NUT_PIDPATH", "NUT_ALTPIDPATH")
    arm64.environment.update(dict.fromkeys(paths, str(folder)))
    user = ["-u", "root"] if os.geteuid() == 0 else []
    daemons = [("usr/lib/nut/dummy-ups", "-a", "pi", "-F", *user), ("usr/lib/nut/upsd", "-F", *user)]
    started = []
    try:
        with (folder / "log").open("w") as log:
            for words in daemons:
                started.append(
                    subprocess.Popen(arm64.command(*words), env=arm64.environment, stdout=log, stderr=subprocess.STDOUT)
                )
        wait_for_ups(arm64, number, folder / "log")
        yield number
    finally:
        for daemon in started:
            daemon.terminate()
            daemon.wait(START_SECONDS)


def wait_for_ups(arm64: Arm64, port: int, log: Path) -> None:
    """Wait until upsd serves the UPS."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        words = arm64.command("usr/bin/upsc", f"pi@127.0.0.1:{port}", "ups.status")
        done = subprocess.run(words, env=arm64.environment, capture_output=True, text=True, timeout=30, check=False)
        if done.stdout.strip() == "OL":
            return
        time.sleep(1)
    pytest.fail(f"upsd does not serve the UPS: {log.read_text()}")


def test_programs_are_those_of_arm64(arm64: Arm64) -> None:
    for program in ("upsd", "usbhid-ups"):
        header = (arm64.root / "usr/lib/nut" / program).read_bytes()[:20]
        assert header[:4] == b"\x7fELF"
        assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64
    assert "Network UPS Tools upsd 2.8.1" in arm64.run("usr/lib/nut/upsd", "-V")


def test_usb_driver_starts_and_knows_its_options(arm64: Arm64) -> None:
    assert "usbhid-ups" in arm64.run("usr/lib/nut/usbhid-ups", "-h")


def test_driver_and_upsd_serve_a_ups(arm64: Arm64, port: int) -> None:
    lines = arm64.run("usr/bin/upsc", f"pi@127.0.0.1:{port}").splitlines()
    assert "ups.status: OL" in lines
    assert "driver.name: dummy-ups" in lines


def test_library_reads_the_bus_and_asks_upsd(arm64: Arm64, port: int, tmp_path: Path) -> None:
    bus = SysfsTree(tmp_path)
    bus.plug_in()
    output = arm64.run(
        *("usr/bin/python3", "-IS", "-c", LIBRARY, str(CHECKOUT / "plugins/module_utils")),
        *(str(bus.sysfs), str(bus.dev), str(port)),
        seconds=PYTHON_SECONDS,
    )
    assert "usage: nut-hotplug" in output
    assert "usage: nut-shutdown" in output
    assert json.loads(output.rpartition("RESULT ")[2]) == {
        "machine": "aarch64",
        "serials": ["5B1234T56789"],
        "release": "2.8.1",
        "upses": {"pi": "OL"},
    }
