#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Time the module ups_info with a server of many UPSes, on each release of NUT in the lab.

    benchmarks/ups_info.py [UPSES]      (default: 500)

A container runs upsd and one dummy-ups per UPS, each with the variables of a common line-interactive UPS. The module runs in this
machine's network as a separate program, as Ansible runs it on a host. For comparison, in the same run: NUT's upsc, called once
per UPS; and the raw bytes, requested and discarded, which is the time that upsd itself needs.

Target: the module takes less than 2 s.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "lab"))

from homelab import Lab
from homelab.images import build_image
from homelab.podman import PODMAN, limit_options, run_podman

DEBIANS = ("bookworm", "trixie")
ROUNDS = 3
TARGET = 2.0  # seconds
UPSC_SAMPLE = 20  # UPSes to time upsc with; all 500 would take a minute
VALUES = """ups.status: OL CHRG
battery.charge: 100
battery.charge.low: 10
battery.charge.warning: 50
battery.date: 2001/09/25
battery.mfr.date: 2020/02/18
battery.runtime: 2460
battery.runtime.low: 120
battery.type: PbAc
battery.voltage: 27.3
battery.voltage.nominal: 24.0
device.serial: 000123456789
input.sensitivity: medium
input.transfer.high: 266
input.transfer.low: 180
input.transfer.reason: input voltage out of range
input.voltage: 233.0
input.voltage.nominal: 230
ups.beeper.status: enabled
ups.delay.shutdown: 20
ups.firmware: 947.d10 .I
ups.load: 17
ups.mfr: American Power Conversion
ups.mfr.date: 2020/02/18
ups.productid: 0002
ups.realpower.nominal: 865
ups.test.result: Done and passed
ups.timer.reboot: 0
ups.timer.shutdown: -1
ups.vendorid: 051d
"""
START = """set -e
mkdir -p /run/nut /run/many
cd /run/many
cp /in/* .
chown -R root:nut . /run/nut
chmod -R 770 . /run/nut
export NUT_CONFPATH=/run/many NUT_STATEPATH=/run/many NUT_ALTPIDPATH=/run/many
for n in $(seq "$1"); do /lib/nut/dummy-ups -a "u$n" >/dev/null 2>&1 & done
wait
exec /lib/nut/upsd -F >/run/many/log 2>&1
"""


def find_free_port() -> int:
    """Return a TCP port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def time_best(action: Callable[[], object]) -> float:
    """Return the seconds of the time_best of several rounds, because a busy machine only ever adds time."""
    times = []
    for _round in range(ROUNDS):
        begin = time.monotonic()
        action()
        times.append(time.monotonic() - begin)
    return min(times)


def run_module(port: int, **options: object) -> dict[str, object]:
    """Run the module as Ansible does and return its result."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as arguments:
        given = {"host": "127.0.0.1", "port": port, "timeout": 60, "_ansible_remote_tmp": "/tmp", **options}  # noqa: S108
        json.dump({"ANSIBLE_MODULE_ARGS": given}, arguments)
        arguments.flush()
        command = [sys.executable, "-m", "ansible_collections.homelab.nut.plugins.modules.ups_info", arguments.name]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".collections")}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=CHECKOUT)
    result: dict[str, object] = json.loads(done.stdout or '{"failed": true}')
    if result.get("failed"):
        sys.exit(f"ups_info: {result.get('msg') or done.stderr}")
    return result


def request_raw_bytes(port: int, names: list[str]) -> None:
    """Send the module's requests and discard the answers."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        for name in names:
            for question, end in (
                (f"LIST VAR {name}", f"END LIST VAR {name}\n"),
                (f"GET NUMLOGINS {name}", "\n"),
                (f"LIST CLIENT {name}", f"END LIST CLIENT {name}\n"),
            ):
                connection.sendall(f"{question}\n".encode())
                answer = b""
                while not answer.endswith(end.encode()):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                    answer += connection.recv(65536)


def run_upsc(container: str, port: int, names: list[str]) -> None:
    """Run upsc in the container, once per UPS."""
    loop = f'for name in {" ".join(names)}; do upsc "$name@127.0.0.1:{port}" >/dev/null 2>&1; done'
    run_podman("exec", container, "sh", "-c", loop)


def measure_release(debian: str, count: int) -> bool:
    """Start `count` UPSes on a release of Debian and print its table. Return whether it meets the target."""
    container, port = Lab(os.environ.get("LAB", "bench")).container_name(f"many-{debian}"), find_free_port()
    run_podman("rm", "--force", "--ignore", "--time", "0", container)
    names = [f"u{number}" for number in range(1, count + 1)]
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "ups.conf": "pollinterval = 60\n"
            + "".join(f"[{name}]\ndriver = dummy-ups\nport = v.dev\n" for name in names),
            "upsd.conf": f"LISTEN 127.0.0.1 {port}\nMAXAGE 3600\nMAXCONN 2048\n",
            "upsd.users": "",
            "v.dev": VALUES,
            "start": START,
        }
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        options = ["--rm", "--name", container, "--network", "host", *limit_options(), "--volume", f"{folder}:/in:ro"]
        command = [*PODMAN, "run", *options, build_image("nut", debian), "bash", "/in/start", str(count)]
        with subprocess.Popen(command) as running:
            try:
                return print_table(debian, container, port, names)
            finally:
                # so many processes take a while to end
                run_podman("rm", "--force", "--ignore", "--time", "30", container, check=False)
                running.wait(60)


def wait_for_upsd(debian: str, port: int) -> None:
    """Wait until upsd listens. Exit if it does not within two minutes."""
    deadline = time.monotonic() + 120
    while True:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > deadline:
            sys.exit(f"{debian}: upsd does not listen on port {port}")
        time.sleep(0.5)


def print_table(debian: str, container: str, port: int, names: list[str]) -> bool:
    """Print a release's table. Return whether the module meets the target."""
    wait_for_upsd(debian, port)
    result = run_module(port, wait=60)
    upses = result["upses"]
    if not isinstance(upses, list) or not result["ok"] or len(upses) != len(names):
        sys.exit(f"{debian}: {result['msg']}")
    floor = time_best(lambda: request_raw_bytes(port, names))
    default = time_best(lambda: run_module(port))
    status = time_best(lambda: run_module(port, gather=["clients"]))
    everything = time_best(lambda: run_module(port, gather=["variables", "clients", "commands", "writable"]))
    single = time_best(lambda: run_module(port, ups=[names[0]]))
    sample = names[:UPSC_SAMPLE]
    upsc = time_best(lambda: run_upsc(container, port, sample)) * len(names) / len(sample)
    print(f"\n{debian}: {len(names)} UPSes, {sum(len(ups['variables']) for ups in upses)} variables")
    for label, seconds in (
        (f"ups_info with its defaults (below {TARGET:g} s)", default),
        ("ups_info, status and clients", status),
        ("ups_info, everything that it can gather", everything),
        ("ups_info, one UPS only", single),
        (f"upsc, once per UPS (estimated from {len(sample)})", upsc),
        ("the raw bytes", floor),
    ):
        print(f"  {label:<44} {seconds:8.2f} s   {seconds / default:6.2f} x the first line")
    return default < TARGET


def main() -> None:
    """Print a table for each release. Exit with 1 if the target is missed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    met = [measure_release(debian, count) for debian in DEBIANS]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
