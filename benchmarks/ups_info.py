#!/usr/bin/env python3
# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long ups_info takes with a server of many UPSes, on each release of NUT that the lab has.

    benchmarks/ups_info.py [UPSES]      (default: 500)

A container with upsd and so many dummy-ups, each with the variables of a common line-interactive UPS. The module runs as Ansible runs it on
a host, as a program of its own, in this machine's network. For comparison, in the same run: upsc, which is NUT's own, a call for each UPS;
and the bytes alone, asked for and thrown away, which is what upsd itself needs.

Aim: the module takes less than 2 s.
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
from homelab.images import image
from homelab.podman import PODMAN, limits, podman

DEBIANS = ("bookworm", "trixie")
ROUNDS = 3
MOST = 2.0
SOME = 20  # UPSes that are enough for upsc, a minute for 500
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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def best(do: Callable[[], object]) -> float:
    """Return the seconds of the best of some rounds: what is measured is not how busy the machine is."""
    took = []
    for _round in range(ROUNDS):
        begin = time.monotonic()
        do()
        took.append(time.monotonic() - begin)
    return min(took)


def module(port: int, **options: object) -> dict[str, object]:
    """Run the module, as Ansible does. Returns its result."""
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


def bytes_alone(port: int, names: list[str]) -> None:
    """Ask what the module asks, and look at nothing that comes."""
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


def by_upsc(container: str, port: int, names: list[str]) -> None:
    each = f'for name in {" ".join(names)}; do upsc "$name@127.0.0.1:{port}" >/dev/null 2>&1; done'
    podman("exec", container, "sh", "-c", each)


def measure(debian: str, count: int) -> bool:
    """Print a release's table. Says whether the aim is met."""
    container, port = Lab(os.environ.get("LAB", "bench")).container(f"many-{debian}"), free_port()
    podman("rm", "--force", "--ignore", "--time", "0", container)
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
        options = ["--rm", "--name", container, "--network", "host", *limits(), "--volume", f"{folder}:/in:ro"]
        command = [*PODMAN, "run", *options, image("nut", debian), "bash", "/in/start", str(count)]
        with subprocess.Popen(command) as running:
            try:
                return table(debian, container, port, names)
            finally:
                # so many processes take a while to end
                podman("rm", "--force", "--ignore", "--time", "30", container, check=False)
                running.wait(60)


def table(debian: str, container: str, port: int, names: list[str]) -> bool:
    wait = time.monotonic() + 120
    while True:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                break
        if time.monotonic() > wait:
            sys.exit(f"{debian}: upsd does not listen")
        time.sleep(0.5)
    seen = module(port, wait=60)
    upses = seen["upses"]
    if not isinstance(upses, list) or not seen["ok"] or len(upses) != len(names):
        sys.exit(f"{debian}: {seen['msg']}")
    floor = best(lambda: bytes_alone(port, names))
    default = best(lambda: module(port))
    status = best(lambda: module(port, gather=["clients"]))
    everything = best(lambda: module(port, gather=["variables", "clients", "commands", "writable"]))
    one = best(lambda: module(port, ups=[names[0]]))
    some = names[:SOME]
    upsc = best(lambda: by_upsc(container, port, some)) * len(names) / len(some)
    print(f"\n{debian}: {len(names)} UPSes, {sum(len(one['variables']) for one in upses)} variables")
    for words, seconds in (
        ("ups_info, as it is by default (below 2 s)", default),
        ("ups_info, status and clients", status),
        ("ups_info, all that can be gathered", everything),
        ("ups_info, one UPS only", one),
        (f"upsc, a call for each UPS (by {len(some)} of them)", upsc),
        ("the bytes alone", floor),
    ):
        print(f"  {words:<44} {seconds:8.2f} s   {seconds / default:6.2f} of the first line")
    return default < MOST


def main() -> None:
    """Print a table for each release. Exits with 1 if the aim is missed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    met = [measure(debian, count) for debian in DEBIANS]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
