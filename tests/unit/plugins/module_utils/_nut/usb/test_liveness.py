# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.records import dump_record
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import memory
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import liveness
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.liveness import BusView, IoError, Loss, Stillness
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.opened import OpenedNode
from ansible_collections.homelab.nut.tests.unit.support.usb_devices import APC, device_at

CPS = device_at("1-2")
GONE = IoError("nut_libusb_get_report: No such device (it may have been disconnected)", 9)
HUB = APC.__class__("usb1", "1d6b", "0002", "", "", "", 1, 1, "", hub=True)


@pytest.mark.parametrize(
    ("release", "status", "flags"),
    [
        ((2, 8, 0), "OB DISCHRG", ()),
        ((2, 8, 0), "OB LB", ("LB",)),
        ((2, 8, 0), "OL CAL", ()),
        ((2, 8, 1), "OL CHRG LB", ()),
        ((2, 8, 1), "OB DISCHRG", ("OB",)),
        ((2, 8, 2), "OB DISCHRG", ("OB",)),
        ((2, 8, 2), "OL CAL", ("CAL",)),
        ((2, 8, 3), "OB DISCHRG", ()),
        ((2, 8, 3), "ALARM OB", ("ALARM",)),
        ((2, 8, 5), "OL BYPASS", ("BYPASS",)),
        (None, "OB", ("OB",)),
        ((2, 8, 0), "FSD OL", ("FSD",)),
        ((2, 8, 5), "OL", ()),
    ],
)
def test_flags_that_forbid_a_restart_depend_on_release(
    release: tuple[int, int, int] | None, status: str, flags: tuple[str, ...]
) -> None:
    assert liveness.forbidding_flags(status.split(), release) == flags


def test_loss_is_not_proven_by_absence_alone() -> None:
    section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), ("vendorid", "051d")))
    unclear = BusView((HUB, CPS))
    assert liveness.find_loss("ups", section, unclear) == Loss("its UPS is not on the USB bus", is_proven=False)
    assert liveness.find_loss("ups", section, BusView((HUB, CPS), claims={CPS.name: True})) is None
    proofs = [
        liveness.find_loss("ups", section, unclear, GONE),
        liveness.find_loss("ups", section, BusView((HUB, CPS), claims={CPS.name: False})),
        liveness.find_loss("ups", section, BusView((HUB, CPS), plugged={"rack": CPS})),
        liveness.find_loss("ups", section, BusView((HUB, CPS), opened={"ups": (OpenedNode(1, 8),)})),
        liveness.find_loss("ups", section, BusView(())),
    ]
    assert [proof is not None and proof.is_proven for proof in proofs] == [True] * 5


def test_driver_that_holds_another_ups_is_not_lost() -> None:
    section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), ("serial", "of another")))
    held = (OpenedNode(APC.bus, APC.device),)
    assert liveness.find_loss("ups", section, BusView((APC,), opened={"ups": held}), GONE) is None
    plain = Section("ups", (("driver", "usbhid-ups"), ("port", "auto")))
    claims = {CPS.name: False, APC.name: True}
    assert liveness.find_loss("ups", plain, BusView((APC, CPS), claims=claims, plugged={"ups": CPS})) is None


def test_ups_that_the_kernel_has_is_lost() -> None:
    section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto"), ("vendorid", "051d")))
    for claims, is_lost in (({}, False), ({APC.name: True}, False), ({APC.name: False}, True)):
        view = BusView((HUB, APC), claims=claims, plugged={"ups": APC})
        assert (liveness.find_loss("ups", section, view) is not None) is is_lost


@pytest.mark.parametrize(
    "keys",
    [
        (("driver", "snmp-ups"), ("port", "192.0.2.9")),
        (("driver", "nutdrv_qx"), ("port", "/dev/ttyS0")),
        (("driver", "dummy-ups"), ("port", "auto.dev")),
    ],
)
def test_driver_without_usb_is_not_lost(keys: tuple[tuple[str, str], ...]) -> None:
    assert liveness.find_loss("ups", Section("ups", keys), BusView(())) is None


def test_section_without_keys_is_lost_only_on_an_empty_bus() -> None:
    section = Section("ups", (("driver", "usbhid-ups"), ("port", "auto")))
    assert liveness.find_loss("ups", section, BusView((HUB, APC))) is None
    assert liveness.find_loss("ups", section, BusView((HUB,))) is not None


@pytest.mark.parametrize("words", ["No such device", "libusb_open: No such device", "Can't open: No such device"])
def test_device_is_gone_only_if_a_transfer_says_so(words: str) -> None:
    assert not IoError(words, 9).is_device_gone


def test_marks_and_nominal_values_are_not_measured() -> None:
    marks = {
        "battery.charge.low": "10",
        "battery.voltage.nominal": "24",
        "input.voltage.nominal": "230",
        "ups.load": "9",
    }
    assert liveness.read_measured(marks) == ""
    measured = {**marks, "battery.charge": "97", "battery.runtime": "900", "input.L1.voltage": "230.1"}
    assert liveness.read_measured(measured) == "battery.charge=97 battery.runtime=900 input.L1.voltage=230.1 ups.load=9"


def test_stillness_is_read_from_the_state_of_nut_hotplug(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = memory.HotplugState(boot="b", still={"ups": Stillness("battery.charge=97", 100.0, 350.0)})
    path.write_text(dump_record(state, memory.VERSION))
    assert memory.load_state(path) == state
    assert liveness.read_stillness(path, "b") == {"ups": 250.0}
    assert liveness.read_stillness(path, "c") == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"boot": "b", "still": []}', '{"boot": "b", "still": {"ups": 1}}'])
def test_damaged_state_tells_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(text)
    assert liveness.read_stillness(path, "b") == {}
    assert liveness.read_stillness(tmp_path / "none", "b") == {}
