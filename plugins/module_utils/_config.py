# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the work of the module config."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from . import _host
from ._command import warn_with_host
from ._nut.base.files import Busy, WriteError
from ._nut.base.systemd import UnitError, last_log_lines, sandbox_failure
from ._nut.conf import nss
from ._nut.deploy.apply import LocalNut
from ._nut.deploy.deployment import DeployError, Deployment
from ._nut.hotplug.act import Actor
from ._nut.hotplug.observe import ReconcileError
from ._nut.usb.policy import UsbPolicyError, check_policy

if TYPE_CHECKING:
    from ._module import Module


def run(module: Module) -> None:
    """Deploy NUT's files, or report what would change in check mode. Exits the module."""
    # check mode only reads, so it needs no lock
    local = _host.local_nut(module)
    alone = contextlib.nullcontext("") if module.check_mode else local.hold_lock(module.params["wait"])
    try:
        with alone as recovery:
            if recovery:
                warn_with_host(module, recovery)
            deployment, result = deploy_files(module, local)
            if not module.check_mode:
                result["upses"] = verify_serving(module, deployment, result)
    except (Busy, WriteError, OSError) as error:
        module.fail_json(msg=f"{error}", changed=False)
    module.exit_json(**result)


def deploy_files(module: Module, local: LocalNut) -> tuple[Deployment, dict[str, object]]:
    """Deploy the files. Returns the deployment and the module's result; fails the module if that is impossible."""
    files = None
    if module.params["state"] == "present":
        files = {name: str(text) for name, text in (module.params["files"] or {}).items()}
    tls = module.params["tls"]
    material = nss.TlsMaterial(tls["ca"], tls["certificate"], tls["key"], tls["nickname"]) if tls else None
    try:
        policy = None if module.params["policy"] is None else check_policy(module.params["policy"])
        deployment = Deployment(files, local, Actor, tls=material, policy=policy)
    except (DeployError, UsbPolicyError, ReconcileError, OSError) as error:
        module.fail_json(msg=str(error), changed=False, files=[], actions=[])
    result: dict[str, object] = {}
    force = module.params["force"]
    try:
        plan = deployment.plan_change()
        deployment.warn_of_risks()
        if plan:
            deployment.require_mains(force)
            if module.check_mode and material and not module.get_bin_path("certutil"):
                warn_with_host(
                    module,
                    "the files were not checked: certutil, which prepares their certificates, is not installed yet",
                )
            else:
                deployment.check_files()
            result["diff"] = [{"prepared": plan.render_diff()}]
        if plan and not module.check_mode:
            # the checks took seconds, so check the mains again
            deployment.require_mains(force)
            deployment.apply_change(plan, force)
        if not module.check_mode:
            deployment.remove_old_certificates()
    except (DeployError, UnitError, OSError, LookupError) as error:  # LookupError: no group nut
        done = {"files": deployment.files_written, "actions": [str(action) for action in deployment.actions_done]}
        module.fail_json(msg=str(error), changed=any(done.values()), **done)
    finally:
        for warning in deployment.warnings:
            warn_with_host(module, warning)
    result.update(
        changed=bool(plan),
        files=list(plan.written_files),
        actions=[str(action) for action in (*plan.before, *plan.after)],
        kept=deployment.backups,
        release=".".join(str(part) for part in deployment.release or ()),
        advice=deployment.list_advice(),
    )
    return deployment, result


def verify_serving(module: Module, deployment: Deployment, result: dict[str, object]) -> dict[str, str]:
    """Wait until NUT works. Returns the status of each UPS; fails the module if something is broken."""
    patient = module.params["require_ups"]
    verdict = deployment.wait_until_serving(module.params["wait"], patient)
    for unit in verdict.restarted:
        warn_with_host(module, f"{unit} had exited and was started again; see journalctl -u {unit}")
    wrong = [*verdict.broken, *(verdict.absent if patient else ())]
    if not patient:
        for trouble in verdict.absent:
            warn_with_host(
                module, f"{trouble.message}. Is the UPS plugged in and switched on? NUT will serve it once it is there"
            )
    if wrong:
        suspects = dict.fromkeys(trouble.unit for trouble in wrong)
        logs = "\n".join(
            f"{sandbox_failure(unit, deployment.local.runner)}last log lines of {unit}:\n"
            f"{quote_lines(last_log_lines(unit, deployment.local.runner))}"
            for unit in suspects
        )
        module.fail_json(
            msg=f"the configuration is in place, but after {module.params['wait']} s NUT still does not serve: "
            f"{'; '.join(trouble.message for trouble in wrong)}.\n{logs}",
            **{**result, "upses": dict(verdict.status)},
        )
    return dict(verdict.status)


def quote_lines(text: str) -> str:
    """Return foreign text indented, so that none of its lines looks like one of Ansible's."""
    return "\n".join(f"  {line}" for line in text.splitlines())
