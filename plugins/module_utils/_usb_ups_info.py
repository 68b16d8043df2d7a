# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the implementation of the module usb_ups_info."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _host
from ._hotplug import choose_policy, make_host
from ._nut.conf.release import find_release
from ._nut.conf.ups_conf import UpsConf
from ._nut.hotplug.observe import ReconcileError
from ._nut.usb import bus, fingerprint, names, policy
from ._nut.usb.resolution import KnownUpses, NameResolution

if TYPE_CHECKING:
    from ._module import Module


def run(module: Module) -> None:
    """Run the module, and exit."""
    configured = not _host.explain_missing_primary()
    status: dict[str, tuple[str, ...]] = {}
    try:
        rules = choose_policy(module)
        if configured:
            look = make_host(module, rules).observe_host()
            devices, upses, resolution, remarks = look.devices, look.upses, look.resolution, look.remarks
            status = {name: seen.status for name, seen in look.drivers.items()}
        else:
            devices, upses, resolution = scan_without_nut(module, rules)
            remarks = resolution.remarks
    except (policy.UsbPolicyError, ReconcileError, bus.UsbError, OSError) as error:
        module.fail_json(msg=str(error))
    listed = [ups.device for ups in upses]
    if module.params["all"]:
        listed += [device for device in devices if device not in listed]
    module.exit_json(
        changed=False,
        configured=configured,
        devices=[describe_device(device, upses, resolution, status) for device in listed],
        absent=list(resolution.absent),
        remarks=list(remarks),
    )


def scan_without_nut(
    module: Module, rules: policy.UsbPolicy
) -> tuple[tuple[bus.UsbDevice, ...], tuple[bus.UsbUps, ...], NameResolution]:
    """Scan the bus of a host where NUT is not configured. Raises bus.UsbError."""
    local = _host.local_nut(module)
    try:
        devices, _why = bus.scan_devices(Path(rules.sysfs), Path(rules.dev), local.runner)
    except bus.NoUsbBus:
        devices = ()
    upses = bus.find_upses(
        devices,
        bus.read_id_table(),
        rules,
        lambda _device: False,
        installed=lambda driver: local.finder(driver) is not None,
    )
    known = KnownUpses(None, UpsConf((), {}))
    return devices, upses, names.resolve_names(known, upses, rules, find_release(local.runner, local.finder))


def describe_device(
    device: bus.UsbDevice,
    upses: tuple[bus.UsbUps, ...],
    resolution: NameResolution,
    status: dict[str, tuple[str, ...]],
) -> dict[str, Any]:
    """Return a device in the form that the module's RETURN documents."""
    ups = next((candidate for candidate in upses if candidate.device == device), None)
    name = next((name for name, plugged in resolution.plugged.items() if plugged.device == device), "")
    named = resolution.plugged[name] if name else ups
    return {
        "ids": device.ids,
        "manufacturer": device.manufacturer,
        "product": device.product,
        "serial": device.serial,
        "serial_trusted": bool(fingerprint.trusted_serial(device)),
        "bus": f"{device.bus:03d}",
        "device": f"{device.device:03d}",
        "busport": f"{device.port:03d}",
        "port": device.name,
        "place": device.place,
        "accessible": device.accessible,
        "ups": ups is not None,
        "why": ups.why if ups else "",
        "driver": named.driver if named else "",
        "name": name,
        "unserved": next((why for candidate, why in resolution.unserved if candidate.device == device), ""),
        "status": list(status.get(name, ())),
    }
