#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What benchmarks/hotplug.py measures on a host of the lab. Each part prints one line of JSON."""

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
# The lab's small scripts, which show the emulated bus to each program, cost more than the programs: so without them.
ASIDE = "/usr/lib/lab-usb"
ON_THE_BUS = {**os.environ, "LD_PRELOAD": "libumockdev-preload.so.0", "UMOCKDEV_DIR": "/run/usb/bus"}
SEED = [
    "sh",
    "-c",
    f"{ASIDE}/nut-scanner -U 2>/dev/null; {ASIDE}/lsusb | grep -E '(051d|0764|0463|09ae|06da|3746:ffff|UPS)' | sort",
]
ROUNDS = 40
SECTION = '\n[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n'


def cpu(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Return what a command and its children cost: milliseconds of CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=False, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000


def full() -> float:
    """Return what a run costs that looks at all."""
    NOTE.unlink(missing_ok=True)
    return cpu(AGENT)


def settled() -> None:
    """Run the agent until it has nothing to do."""
    for _run in range(5):
        subprocess.run(AGENT, check=False)
        if NOTE.exists():
            return
    sys.exit("the agent finds something to do at each run; see nut-hotplug plan")


def quiet() -> dict[str, object]:
    """Measure the run that finds nothing to do beside the seed's pipeline, in turn on the same bus."""
    settled()
    runs = [(cpu(AGENT), cpu(SEED, ON_THE_BUS)) for _round in range(ROUNDS)]
    agent, seed = (statistics.median(column) for column in zip(*runs))
    return {"agent": agent, "seed": seed, "full": statistics.median(full() for _round in range(5))}


def tree(root: Path, count: int) -> None:
    """Make a bus with so many devices, as Linux lays out sysfs: sticks with a storage interface, and no UPS."""
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


def sizes() -> dict[str, object]:
    """Measure both kinds of runs with 1, 10 and 100 devices on the bus."""
    before = POLICY.read_text()
    costs: dict[str, object] = {}
    try:
        for count in (1, 10, 100):
            root = Path(f"/run/hotplug-benchmark-{count}")
            shutil.rmtree(root, ignore_errors=True)
            tree(root, count)
            POLICY.write_text(json.dumps({**json.loads(before), "sysfs": str(root)}))
            settled()
            quick = [cpu(AGENT) for _round in range(ROUNDS)]
            whole = [full() for _round in range(9)]
            costs[str(count)] = {"quiet": statistics.median(quick), "full": statistics.median(whole)}
            shutil.rmtree(root)
    finally:
        POLICY.write_text(before)
        settled()
    return costs


def status() -> str:
    """Ask upsd for the status of the UPS."""
    try:
        with socket.create_connection(("127.0.0.1", 3493), timeout=2) as upsd:
            upsd.sendall(b"GET VAR ups ups.status\n")
            return upsd.recv(1000).decode("ascii", "replace")
    except OSError as error:
        return str(error)


def devices() -> set[str]:
    """Name what is on the bus."""
    return {path.name for path in BUS.iterdir() if not path.name.startswith("usb") and ":" not in path.name}


def prepare(conf: str) -> None:
    """Leave the host with this ups.conf, and no driver."""
    CONF.write_text(conf)
    for command in (
        ["systemctl", "stop", "nut-hotplug.timer", "nut-driver@ups.service"],
        ["systemctl", "start", "nut-driver-enumerator.service"],
        ["systemctl", "stop", "nut-driver@ups.service"],
        ["systemctl", "reset-failed"],
        ["systemctl", "restart", "nut-server.service"],
    ):
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def plug(how: str) -> dict[str, object]:
    """Wait for a UPS to be plugged in, start the agent or the driver at once, and time until upsd says that it is on mains.

    how: "hand": the driver alone. "known": the agent, on a host whose ups.conf has the UPS, and whose driver looks for it in
    vain. "new": the agent, on a host that has had no UPS.
    """
    header = "".join(f"{line}\n" for line in CONF.read_text().split("\n[")[0].splitlines() if line)
    Path("/var/lib/nut-hotplug/state.json").unlink(missing_ok=True)
    prepare(header if how == "new" else header + SECTION)
    if how == "known":
        subprocess.run(["systemctl", "start", "--no-block", "nut-driver@ups.service"], check=False)
        time.sleep(20)  # until it has given up for the first time
    if how != "hand":
        settled()
    driver = next(path for path in ("/usr/lib/nut/usbhid-ups", "/lib/nut/usbhid-ups") if Path(path).exists())
    print("ready", flush=True)
    while not devices():
        time.sleep(0.005)
    begin = time.monotonic()
    command = AGENT if how != "hand" else [driver, "-a", "ups"]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while '"OL' not in (last := status()):
        if time.monotonic() > begin + 60:
            sys.exit(f"the UPS is not served after a minute: {last}")
        time.sleep(0.01)
    took = time.monotonic() - begin
    started.wait()
    if how == "hand":
        pid = Path("/run/nut/usbhid-ups-ups.pid").read_text().strip()
        subprocess.run(["kill", pid], check=False)
    return {"seconds": took}


def enumerator() -> dict[str, object]:
    """Time NUT's own script that makes the unit of a new section, of which nut-hotplug waits for the end."""
    header = "".join(f"{line}\n" for line in CONF.read_text().split("\n[")[0].splitlines() if line)
    prepare(header)
    CONF.write_text(header + SECTION)
    begin = time.monotonic()
    subprocess.run(["systemctl", "start", "nut-driver-enumerator.service"], check=False)
    return {"seconds": time.monotonic() - begin}


if __name__ == "__main__":
    PARTS = {"quiet": quiet, "sizes": sizes, "enumerator": enumerator}
    part = sys.argv[1]
    print(json.dumps(PARTS[part]() if part in PARTS else plug(part)))
