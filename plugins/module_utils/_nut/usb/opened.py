# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which program has a USB device open, according to the kernel.

A device that is replugged or reset gets a new number and a new node. A driver that goes on with the old node reads nothing any more,
whatever it tells upsd. Two places show it: the files that the driver has open, which takes CAP_SYS_PTRACE, and sysfs, which shows to
anybody whether the kernel's own driver has an interface (usbhid, which NUT's driver has to detach) or a program has (usbfs).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .bus import UsbDevice

# The kernel adds " (deleted)" if the node is gone. After 127 devices a bus uses a number again, so that the name alone does not tell.
_NODE = re.compile(r"/bus/usb/([0-9]{3})/([0-9]{3})( \(deleted\))?")
_USBFS = "usbfs"  # the kernel's driver of interfaces that programs have claimed
_CHILDREN = 64  # of a process, that are looked at


@dataclass(frozen=True)
class OpenedNode:
    """The node of a USB device that a process has open."""

    bus: int
    device: int  # number on the bus
    is_deleted: bool = False  # whether the node is gone

    @property
    def path(self) -> str:
        """Return the path that the node has, or had."""
        return f"/dev/bus/usb/{self.bus:03d}/{self.device:03d}"


def read_opened_nodes(pid: int, dev: Path = Path("/dev"), proc: Path = Path("/proc")) -> tuple[OpenedNode, ...] | None:
    """Return the USB devices that a process and its children have open. None if there is no such process, or it can't be read.

    dev: the directory of the device nodes.
    """
    if pid <= 0:
        return None
    prefix = os.path.realpath(dev)
    nodes: dict[OpenedNode, None] = {}
    try:
        targets = list(_read_links(proc / str(pid) / "fd"))
    except OSError:
        return None
    for child in _list_children(pid, proc):
        try:
            targets += _read_links(proc / str(child) / "fd")
        except OSError:
            continue  # it has ended
    for target in targets:
        match = _NODE.fullmatch(target[len(prefix) :]) if target.startswith(f"{prefix}/") else None
        if match:
            nodes[OpenedNode(int(match[1]), int(match[2]), bool(match[3]))] = None
    return tuple(nodes)


def _read_links(folder: Path) -> Iterable[str]:
    """Yield what a process has open. Raise OSError if that can't be read."""
    for name in os.listdir(folder):  # noqa: PTH208 - texts are enough
        try:
            yield os.readlink(folder / name)  # noqa: PTH115 - a Path would normalize the text
        except FileNotFoundError:
            continue  # closed meanwhile


def _list_children(pid: int, proc: Path) -> list[int]:
    try:
        text = (proc / f"{pid}/task/{pid}/children").read_text(encoding="ascii")
    except (OSError, ValueError):
        return []
    return [int(word) for word in text.split()[:_CHILDREN] if word.isdigit()]


def read_claims(devices: Iterable[UsbDevice], sysfs: Path = Path("/sys")) -> dict[str, bool]:
    """Return name of a device -> whether a program has an interface of it, without devices of which sysfs does not tell; no hubs.

    False means that the kernel's drivers have all interfaces.
    """
    inside = os.path.realpath(sysfs / "devices") + "/"
    claims = {}
    for device in devices:
        path = os.path.realpath(sysfs / "bus/usb/devices" / device.name)
        if device.hub or not path.startswith(inside):
            continue
        drivers = _interface_drivers(path, device.name)
        if _USBFS in drivers:
            claims[device.name] = True
        elif drivers and all(drivers):
            claims[device.name] = False
    return claims


def _interface_drivers(path: str, name: str) -> list[str]:
    """Return the driver of each interface of a device; "" for one without."""
    drivers = []
    try:
        for interface in os.listdir(path):  # noqa: PTH208 - texts are enough
            if interface.startswith(f"{name}:"):
                drivers.append(_link_target(f"{path}/{interface}/driver"))
    except OSError:
        return []  # unplugged meanwhile
    return drivers


def _link_target(link: str) -> str:
    try:
        return os.readlink(link).rpartition("/")[2]  # noqa: PTH115 - as above
    except OSError:
        return ""


def find_lost_node(nodes: Sequence[OpenedNode] | None, devices: Iterable[UsbDevice]) -> OpenedNode | None:
    """Return a node that is open but whose device is gone from the bus; None if another node is alive, or nothing is known.

    devices: those on the bus.
    """
    if not nodes:
        return None
    present = {device.incarnation for device in devices}
    if any(not node.is_deleted and (node.bus, node.device) in present for node in nodes):
        return None
    return nodes[-1]
