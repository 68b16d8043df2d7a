# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tell which device on the bus is the UPS of a section in ups.conf, and whether this host has the device's node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..base.text import printable
from ..conf.directives import NEWEST, Release
from ..conf.ups_conf import Section
from .bus import HID_DRIVER, UsbDevice, takes_ids
from .fingerprint import BLANKS, identifying_pairs, matches_device
from .generic import is_generic
from .sections import get_value

# what to do if a container has no node for a device, or one that NUT may not use and udev there can't change
GRANT_NODE = (
    "share the whole folder /dev/bus/usb with the container, because the node's number changes at each re-plug (docs/doctor.md, "
    "USB in a container); or run NUT on the container's host"
)
GRANT_RIGHTS = (
    "on the container's host, let a udev rule give the node a mode or group that NUT can write with (docs/doctor.md, USB in a "
    "container); or run NUT on that host"
)


def find_candidates(
    section: Section,
    devices: Sequence[UsbDevice],
    id_table: Mapping[str, str],
    variables: Mapping[str, str],
    release: Release = NEWEST,
) -> tuple[UsbDevice, ...]:
    """Return the devices that may be the UPS of a section whose driver is for USB: one, several if nothing tells them apart, or none.

    id_table: from bus.read_id_table(). variables: what upsd serves for the section, {} without fresh data. Of several devices that
    the section's keys match, those count that the driver says it has, else those that it may take by NUT's table or their HID
    descriptor. Keys may match a keyboard, too, and a section without keys matches every device.
    """
    driver = get_value(section, "driver")
    keys = Section(section.name, identifying_pairs(section.keys))
    matching = [device for device in devices if not device.hub and matches_device(keys, device, release)]
    if keys.keys and len(matching) < 2:
        return tuple(matching)
    if served := _find_served(matching, variables):
        return tuple(served)
    if known := [device for device in matching if _may_take(driver, device, id_table)]:
        return tuple(known)
    # fresh data come from somewhere, but usbhid-ups can only have a HID device
    return tuple(matching if keys.keys or (variables and driver != HID_DRIVER) else ())


def _may_take(driver: str, device: UsbDevice, id_table: Mapping[str, str]) -> bool:
    """Return whether a driver may take a device without keys that name it. An adapter may be in any device, so it does not count."""
    if device.ids in id_table:
        is_adapter = is_generic(device.vendor_id, device.product_id) and not device.hid_power
        return not is_adapter and takes_ids(driver, device.ids, id_table[device.ids])
    # while a driver has the HID interface, nothing shows whether the device is a UPS
    return driver == HID_DRIVER and device.hid_power is not False


def _find_served(devices: Sequence[UsbDevice], variables: Mapping[str, str]) -> list[UsbDevice]:
    """Return the devices that have the ids which the driver reports, and of these the ones with its serial number."""
    vendor, product = (variables.get(f"ups.{name}", "").lower() for name in ("vendorid", "productid"))
    found = [device for device in devices if (device.vendor_id, device.product_id) == (vendor, product)]
    serials = {variables[name].strip(BLANKS) for name in ("ups.serial", "device.serial") if variables.get(name)}
    return [device for device in found if device.serial.strip(BLANKS) in serials] or found


def describe_candidates(devices: Sequence[UsbDevice]) -> str:
    """Return the ids and products of devices, for messages."""
    names = [f"{device.ids} {printable(device.product or '', 60)}".rstrip() for device in devices]
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def explain_missing_node(devices: Sequence[UsbDevice], container: str = "") -> str:
    """Return why NUT can't open the only devices that a UPS may be; "" if one of them has a node.

    container: what systemd says that this host is, such as "lxc"; "" if it is none, or unknown.
    """
    if not devices or any(device.has_node for device in devices):
        return ""
    node = devices[0].node
    if container:
        return f"{node} does not exist in this container ({container}): the kernel shows the device, but the container has no node for it"
    return f"{node} does not exist, although the kernel shows the device, as in a container that was not given the node"
