# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the work of the module hotplug, which is one run of nut-hotplug."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._command import warn_with_host
from ._host import explain_missing_primary
from ._hotplug import choose_policy, make_host
from ._nut.base import files, systemd
from ._nut.hotplug.observation import HotplugObservation, describe_device, diff_ups_conf
from ._nut.hotplug.observe import ReconcileError
from ._nut.hotplug.reconcile import HotplugHost
from ._nut.programs import nut_hotplug
from ._nut.usb.policy import UsbPolicyError

if TYPE_CHECKING:
    from ._module import Module


def run(module: Module) -> None:
    """Run nut-hotplug once, or report what it would do in check mode. Exits the module."""
    lacks = explain_missing_primary()
    if lacks and module.check_mode:
        # the module hotplug_service, which installs nut-hotplug just before, warns about this
        module.exit_json(changed=False, msg=f"can't tell what would be done. {lacks}", **describe_observation(None))
    if lacks:
        module.fail_json(msg=lacks)
    try:
        observation, actions, failed, before, after = reconcile_host(module, make_host(module, choose_policy(module)))
    except (UsbPolicyError, ReconcileError, files.Busy, files.WriteError, systemd.UnitError, OSError) as error:
        module.fail_json(msg=str(error))
    result = describe_observation(observation)
    for warning in (*result["remarks"], *(f"deferred: {line}" for line in result["deferred"])):
        warn_with_host(module, warning)
    for name, ups in result["names"].items():
        if not ups["status"] and not module.check_mode:
            warn_with_host(
                module, f"{name} ({ups['ids']}) is plugged in, but upsd has no fresh data for it: {ups['error']}"
            )
    result.update(changed=bool(actions), actions=actions, msg="; ".join(actions) or "nothing to do")
    if before != after:
        result["diff"] = [{"prepared": diff_ups_conf(before, after)}]
    if failed:
        module.fail_json(**{**result, "msg": f"failed: {'; '.join(failed)}"})
    module.exit_json(**result)


def reconcile_host(
    module: Module, here: HotplugHost
) -> tuple[HotplugObservation, list[str], tuple[str, ...], str, str]:
    """Run nut-hotplug, or only observe in check mode. Warns of failed actions for UPSes that were merely found.

    Returns the last observation, the actions, the other failed actions, and the text of ups.conf before and after.
    """
    if module.check_mode:
        observation = here.observe_host()
        before = observation.old_text
        after = before if observation.new_text is None else observation.new_text
        return observation, list(observation.steps), (), before, after
    # the log that runs started by udev use, too; module.log writes to the journal
    log = nut_hotplug.HotplugLog(Path(module.params["log"]), module.log, here.wall, here.policy.debug)
    here.say, here.debug = log.write_decision, log.write_debug
    before = here.local.read_file("ups.conf") or ""
    outcome = here.run(module.params["wait"])
    for line in outcome.excused:
        warn_with_host(module, f"failed for a UPS that is not declared, so no machine depends on it: {line}")
    failed = tuple(line for line in outcome.failed if line not in outcome.excused)
    return outcome.observation, list(outcome.done), failed, before, here.local.read_file("ups.conf") or ""


def describe_observation(observation: HotplugObservation | None) -> dict[str, Any]:
    """Return an observation in the form that RETURN of the module documents."""
    if observation is None:
        return {"actions": [], "names": {}, "absent": [], "unserved": [], "deferred": [], "remarks": []}
    names = {}
    for name, ups in observation.resolution.plugged.items():
        seen, device = observation.drivers.get(name), ups.device
        names[name] = {
            "ids": device.ids,
            "manufacturer": device.manufacturer,
            "product": device.product,
            "serial": device.serial,
            "place": device.place,
            "driver": ups.driver,
            "status": list(seen.status) if seen else [],
            "error": seen.error if seen else "",
        }
    return {
        "names": names,
        "absent": list(observation.resolution.absent),
        "unserved": [f"{describe_device(ups.device)}: {why}" for ups, why in observation.resolution.unserved],
        "deferred": list(observation.plan.deferred),
        "remarks": [*observation.faults, *observation.remarks],
    }
