#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The parts of benchmarks/hotplug.py that run on a host of the lab. Each prints one line of JSON."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

AGENT = ["/usr/local/sbin/nut-hotplug", "run"]
NOTE = Path("/run/nut-hotplug.quiet")
POLICY = Path("/etc/nut/hotplug.json")
CONF = Path("/etc/nut/ups.conf")
BUS = Path("/run/usb/bus/sys/bus/usb/devices")
# The lab wraps these programs in scripts that show them the emulated bus. The scripts would cost more than the programs.
UNWRAPPED = "/usr/lib/lab-usb"
ON_THE_BUS = {**os.environ, "LD_PRELOAD": "libumockdev-preload.so.0", "UMOCKDEV_DIR": "/run/usb/bus"}
POLLING_SCRIPT = [
    "sh",
    "-c",
    f"{UNWRAPPED}/nut-scanner -U 2>/dev/null; {UNWRAPPED}/lsusb | grep -E '(051d|0764|0463|09ae|06da|3746:ffff|UPS)' | sort",
]
ROUNDS = 40
SECTION = '\n[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n'


def measure_cpu(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Return the milliseconds of CPU time that a command and its children take."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def measure_full_run() -> float:
    """Return the milliseconds of CPU time of a run that examines every device."""
    NOTE.unlink(missing_ok=True)
    return measure_cpu(AGENT)


def settle_agent() -> None:
    """Run the agent until it has nothing to do."""
    for _run in range(5):
        subprocess.run(AGENT, check=False)
        if NOTE.exists():
            return
    sys.exit("nut-hotplug has something to do on every run; see `nut-hotplug plan`")


def compare_quiet_run() -> dict[str, object]:
    """Measure a run with nothing to do and the polling script, in turn on the same bus."""
    settle_agent()
    runs = [(measure_cpu(AGENT), measure_cpu(POLLING_SCRIPT, ON_THE_BUS)) for _round in range(ROUNDS)]
    agent, polling = (statistics.median(column) for column in zip(*runs))
    full = statistics.median(measure_full_run() for _round in range(5))
    return {"agent": agent, "polling": polling, "full": full}


def make_bus(root: Path, count: int) -> None:
    """Make a bus with `count` USB sticks and no UPS, laid out like Linux's sysfs."""
    links = root / "bus/usb/devices"
    links.mkdir(parents=True)
    for number in range(count):
        bus, port = number // 10 + 1, number % 10 + 1
        name = f"{bus}-{port}"
        folder = root / f"devices/pci0000:00/0000:00:14.0/usb{bus}/{name}"
        inner = folder / f"{name}:1.0"
        inner.mkdir(parents=True)
        texts = {
            "idVendor": "0781",
            "idProduct": "5567",
            "manufacturer": "SanDisk",
            "product": "Cruzer Blade",
            "serial": f"4C5300012{number:05d}",
            "busnum": f"{bus}",
            "devnum": f"{port + 1}",
            "bDeviceClass": "00",
            "uevent": f"MAJOR=189\nMINOR={number}\nDEVTYPE=usb_device\nDRIVER=usb\nPRODUCT=781/5567/100\nTYPE=0/0/0\n"
            f"BUSNUM={bus:03d}\nDEVNUM={port + 1:03d}",
        }
        for key, text in texts.items():
            (folder / key).write_text(f"{text}\n")
        (inner / "bInterfaceClass").write_text("08\n")
        (links / name).symlink_to(os.path.relpath(folder, links))


def measure_bus_sizes() -> dict[str, object]:
    """Measure quiet and full runs with 1, 10 and 100 devices on the bus."""
    before = POLICY.read_text()
    costs: dict[str, object] = {}
    try:
        for count in (1, 10, 100):
            root = Path(f"/run/hotplug-benchmark-{count}")
            shutil.rmtree(root, ignore_errors=True)
            make_bus(root, count)
            POLICY.write_text(json.dumps({**json.loads(before), "sysfs": str(root)}))
            settle_agent()
            quiet = [measure_cpu(AGENT) for _round in range(ROUNDS)]
            full = [measure_full_run() for _round in range(9)]
            costs[str(count)] = {"quiet": statistics.median(quiet), "full": statistics.median(full)}
            shutil.rmtree(root)
    finally:
        POLICY.write_text(before)
        settle_agent()
    return costs


def read_status() -> str:
    """Return upsd's answer about the status of the UPS, or the error."""
    try:
        with socket.create_connection(("127.0.0.1", 3493), timeout=2) as upsd:
            upsd.sendall(b"GET VAR ups ups.status\n")
            return upsd.recv(1000).decode("ascii", "replace")
    except OSError as error:
        return str(error)


def list_devices() -> set[str]:
    """Return the names of the devices on the bus."""
    return {path.name for path in BUS.iterdir() if not path.name.startswith("usb") and ":" not in path.name}


def prepare_host(conf: str) -> None:
    """Write this ups.conf, and leave no driver running."""
    CONF.write_text(conf)
    for command in (
        ["systemctl", "stop", "nut-hotplug.timer", "nut-driver@ups.service"],
        ["systemctl", "start", "nut-driver-enumerator.service"],
        ["systemctl", "stop", "nut-driver@ups.service"],
        ["systemctl", "reset-failed"],
        ["systemctl", "restart", "nut-server.service"],
    ):
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def time_plugging(how: str) -> dict[str, object]:
    """Wait for a UPS, start the agent or the driver at once, and time until upsd reports OL.

    how: "hand" runs the driver alone; "known" runs the agent on a host that has the UPS in ups.conf and whose driver has
    failed to find it; "new" runs the agent on a host without a UPS in ups.conf.
    """
    header = "".join(f"{line}\n" for line in CONF.read_text().split("\n[")[0].splitlines() if line)
    Path("/var/lib/nut-hotplug/state.json").unlink(missing_ok=True)
    prepare_host(header if how == "new" else header + SECTION)
    if how == "known":
        subprocess.run(["systemctl", "start", "--no-block", "nut-driver@ups.service"], check=False)
        time.sleep(20)  # until the driver has given up for the first time
    if how != "hand":
        settle_agent()
    driver = next(path for path in ("/usr/lib/nut/usbhid-ups", "/lib/nut/usbhid-ups") if Path(path).exists())
    print("ready", flush=True)
    while not list_devices():
        time.sleep(0.005)
    begin = time.monotonic()
    command = AGENT if how != "hand" else [driver, "-a", "ups"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while '"OL' not in (answer := read_status()):
        if time.monotonic() > begin + 60:
            sys.exit(f"upsd does not serve the UPS after a minute: {answer}")
        time.sleep(0.01)
    took = time.monotonic() - begin
    started.wait()
    if how == "hand":
        pid = Path("/run/nut/usbhid-ups-ups.pid").read_text().strip()
        subprocess.run(["kill", pid], check=False)
    return {"seconds": took}


def time_enumerator() -> dict[str, object]:
    """Time the script of NUT that creates the unit of a new section. nut-hotplug waits for it to end."""
    header = "".join(f"{line}\n" for line in CONF.read_text().split("\n[")[0].splitlines() if line)
    prepare_host(header)
    CONF.write_text(header + SECTION)
    begin = time.monotonic()
    subprocess.run(["systemctl", "start", "nut-driver-enumerator.service"], check=False)
    return {"seconds": time.monotonic() - begin}


if __name__ == "__main__":
    PARTS = {"quiet": compare_quiet_run, "sizes": measure_bus_sizes, "enumerator": time_enumerator}
    part = sys.argv[1]
    print(json.dumps(PARTS[part]() if part in PARTS else time_plugging(part)))
