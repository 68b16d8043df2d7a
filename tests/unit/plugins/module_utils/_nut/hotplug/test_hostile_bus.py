# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.programs import nut_hotplug
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import fingerprint
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, make_cases
from ansible_collections.homelab.nut.tests.unit.support.hotplug_machine import (
    APC,
    CPS,
    HotplugMachine,
)

if TYPE_CHECKING:
    pass


HOSTILE = ["a\nb", 'x"]\n[evil]\n driver = x', "# \\", "$(reboot)", "\x1b[2J", "é" * 126, "", "\u202e", "a]b[c"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_device_breaks_nothing(machine: HotplugMachine, text: str) -> None:
    machine.bus.plug_in("1-1", APC, manufacturer=text, product=text, serial=text)
    machine.run_hotplug()
    assert list(machine.conf.sections) == ["ups"]
    assert "evil" not in machine.conf.sections
    assert all(line.isprintable() for line in machine.said)
    assert all(line.isprintable() for line in machine.make_host().observe_host().steps)
    assert machine.path.read_text().isascii()


# Texts of devices, and their drivers: by the rules, and for the last one by its descriptor and nut-scanner
DRIVER_OF = {APC: "usbhid-ups", CPS: "usbhid-ups", "0665:5161": "nutdrv_qx", "0463:ffff": "usbhid-ups"}


PIECES = (
    *(*HOSTILE, *NASTY[:-1]),
    *("\n[evil]\n\tdriver = dummy-ups\n", "]\n[evil]", '"', "\\", "#", "'", "`id`", "$(touch /tmp/pwned)", "{{ lookup('pipe', 'id') }}"),
    *("{% raw %}", "\nuser = root\n", "\n# Found", "=", "\t", "%s%n", "((((", "[[:alpha:]]*", "\\0", "x" * 300, "\udcff\udc80", "\x00"),
    *("5B1234T56789", "A1", "ABC-77231", " ", "Back-UPS", ".", "ups", "漢" * 100),
)  # fmt: skip


SCANNED = 'USB:driver="usbhid-ups",port="auto",vendorid="0463",productid="FFFF"'


LINE = re.compile(
    r"#.*|\[ups[0-9]*\]|    (?:driver|port|vendorid|productid|serial|product|bus|busport) = \"(?:[^\"\\#]|\\[\"\\#])*\"|"
    r"    (?:offdelay = \"60\"|ondelay = \"120\")|"  # what a CyberPower gets
)


def evil(chance: random.Random) -> bytes:
    """Return the texts that a device reports."""
    if chance.random() < 0.2:
        return chance.randbytes(chance.randint(0, 250))
    text = "".join(chance.choice(PIECES) for _piece in range(chance.randint(1, 4)))
    return text.encode("utf-8", "surrogatepass")[:300]


def replug(machine: HotplugMachine, plugged: set[str], chance: random.Random) -> None:
    """Unplug some devices, plug in others, and let nut-scanner repeat their texts, as the real one does."""
    for name in [name for name in sorted(plugged) if chance.random() < 0.4]:
        machine.bus.unplug_device(name)
        plugged.discard(name)
    for port in chance.sample(range(1, 8), chance.randint(1, 4)):
        if (name := f"1-{port}") not in plugged:
            ids, strings = chance.choice([*DRIVER_OF]), [evil(chance) for _string in range(3)]
            machine.bus.plug_in(name, ids, *strings)
            plugged.add(name)
            product = strings[1].decode("latin-1")
            machine.scanner = 0, f'{SCANNED},product="{product}"\n'


def check_no_harm(machine: HotplugMachine, plugged: set[str]) -> int:
    """Check ups.conf and all messages against the devices that are plugged in. Return the number of sections."""
    text, look = machine.path.read_text(), machine.make_host().observe_host()
    assert text.isascii()
    assert [line for line in text.split("\n") if not LINE.fullmatch(line)] == []
    conf = ups_conf.parse_ups_conf(text)
    assert conf.settings == ()
    # each has exactly one section
    assert {ups.device.name for ups in look.resolution.plugged.values()} == plugged
    for name, ups in look.resolution.plugged.items():
        section, device = conf.sections[name], ups.device
        keys = dict(section.keys)
        assert len(keys) == len(section.keys)
        wanted = {
            "driver": DRIVER_OF[device.ids],
            "port": "auto",
            "vendorid": device.vendor_id,
            "productid": device.product_id,
        }
        assert keys.items() >= wanted.items()
        due = look.resolution.conf.sections[name]
        waits = [line for line in look.deferred if line.startswith(f"[{name}] in ups.conf is not changed yet")]
        assert section == due or waits
        assert [seen.name for seen in look.devices if fingerprint.matches_device(due, seen)] == [device.name]
    told = [*machine.said, *look.steps, *look.remarks, *look.deferred]
    told += [f"{entry.name} {entry.what} {entry.reason}" for entry in machine.memory.history]
    for shown in (nut_hotplug.status_text(look), nut_hotplug.plan_text(look), look.render_diff()):
        told += shown.split("\n")
    assert [line for line in told if not line.isprintable()] == []
    assert set(machine.units) <= {"nut-server.service", *(systemd.driver_unit(name) for name in conf.sections)}
    return len(conf.sections)


def test_hostile_buses_break_nothing(tmp_path: Path, machine: HotplugMachine) -> None:
    """30 buses, the same in each run; HOSTILE_TIMES=10 makes 300, HOSTILE_SEED=1 others."""
    sections = 0
    for number, (case, chance) in enumerate(make_cases(30)):
        print(case)  # shown if the test fails
        (root := tmp_path / str(number)).mkdir()
        bus, plugged = HotplugMachine(root, machine.server), set[str]()
        for _round in range(3):
            replug(bus, plugged, chance)
            bus.run_hotplug()
            sections += check_no_harm(bus, plugged)
    assert sections > 200
