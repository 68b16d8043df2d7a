# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the work of the module config."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import _host
from ._command import warn_with_host
from ._nut.base.files import Busy, WriteError
from ._nut.base.systemd import MONITOR, UnitError, last_log_lines, sandbox_failure
from ._nut.conf import nss
from ._nut.deploy import kits, past, secrets
from ._nut.deploy.apply import LocalNut
from ._nut.deploy.change import Change, UnitAction
from ._nut.deploy.deployment import DeployError, Deployment
from ._nut.hotplug.act import Actor
from ._nut.hotplug.observe import ReconcileError
from ._nut.proxmox.guests import is_node
from ._nut.usb.policy import UsbPolicyError, check_policy

if TYPE_CHECKING:
    from ._module import Module


def run(module: Module) -> None:
    """Deploy NUT's files, or report what would change in check mode. Exits the module."""
    # check mode only reads, so it needs no lock
    local, began = _host.local_nut(module), time.time()
    alone = contextlib.nullcontext("") if module.check_mode else local.hold_lock(module.params["wait"])
    try:
        with alone as recovery:
            if recovery:
                warn_with_host(module, recovery)
            deployment, result = deploy_files(module, local)
            if not module.check_mode:
                try:
                    result["upses"] = verify_serving(module, deployment, result)
                finally:
                    note_end(module, local, result, began)
    except (Busy, WriteError, OSError) as error:
        module.fail_json(msg=f"{error}", changed=False)
    module.exit_json(**result)


def deploy_files(module: Module, local: LocalNut) -> tuple[Deployment, dict[str, Any]]:
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
    result: dict[str, Any] = {}
    force = module.params["force"]
    try:
        former = list_former(deployment)
        if deployment.is_former_primary and not deployment.absent and not module.check_mode:
            raise DeployError(
                f"this host is still a primary ({', '.join(former)}). Remove that first, as the role nut_client does. Nothing was changed"
            )
        plan = deployment.plan_change()
        deployment.warn_of_risks()
        if plan:
            _check_change(module, deployment, plan)
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
        proxmox=is_node(_host.ROOT),
        former=former,
    )
    return deployment, result


def _check_change(module: Module, deployment: Deployment, plan: Change[UnitAction]) -> None:
    """Check a change before anything is written. Raises DeployError."""
    tls = module.params["tls"]
    if module.params["secrets"]:
        kept = not tls or tls["kept"]
        deployment.require_kept_secrets(secrets.SecretsPolicy(**module.params["secrets"], authority_kept=kept))
    deployment.require_mains(module.params["force"])
    if module.params["login_remedy"]:
        deployment.require_logins(plan, module.params["login_remedy"])
    missing = deployment.list_missing_packages() if module.check_mode else []
    if module.check_mode and tls and deployment.release is not None and not module.get_bin_path("certutil"):
        lack = "certutil, which prepares their certificates,"
        warn_with_host(module, f"the files were not checked: {lack} is not installed yet")
    elif missing:
        # as in a run with --check, which installs nothing
        warn_with_host(
            module, f"the files were not checked: {', '.join(missing)} with a UPS's driver is not installed yet"
        )
    else:
        deployment.check_files()


def list_former(deployment: Deployment) -> list[str]:
    """Return what this host still has of a primary, although it shall not be one."""
    if "ups.conf" in deployment.new_files:
        return []
    return [*(["its UPSes in ups.conf"] if deployment.is_former_primary else []), *kits.find_installed(_host.ROOT)]


def verify_serving(module: Module, deployment: Deployment, result: dict[str, Any]) -> dict[str, str]:
    """Wait until NUT works. Returns the status of each UPS; fails the module if something is broken."""
    patient = module.params["require_ups"]
    verdict = deployment.wait_until_serving(module.params["wait"], patient)
    for unit in verdict.restarted:
        warn_with_host(module, f"{unit} had exited and was started again; see journalctl -u {unit}")
    if verdict.repeated:
        warn_with_host(
            module,
            f"upsd had refused the login {', '.join(verdict.repeated)}, and accepts it now: {MONITOR} was restarted, because upsmon itself "
            "does not try again",
        )
        result.update(changed=True, actions=[*result["actions"], f"restart {MONITOR}: a refused login is accepted now"])
    wrong = [*verdict.broken, *(verdict.absent if patient else ())]
    if not patient:
        for trouble in verdict.absent:
            warn_with_host(
                module, f"{trouble.message}. Is the UPS plugged in and switched on? NUT will serve it once it is there"
            )
    for trouble in verdict.undeclared:
        warn_with_host(
            module,
            f"{trouble.message}. This UPS was found on the bus and is not declared, so no machine depends on it. If it is gone for good, "
            "remove its section from /etc/nut/ups.conf",
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


def note_end(module: Module, local: LocalNut, result: Mapping[str, object], began: float) -> None:
    """Record for the doctor when this run ended, if it changed anything."""
    if result["changed"] and module.params["state"] == "present":
        # the record only saves the doctor some lines
        with contextlib.suppress(OSError, WriteError):
            past.note_deployment(local.manifest.parent, past.Deployment(began, time.time()))


def quote_lines(text: str) -> str:
    """Return foreign text indented, so that none of its lines looks like one of Ansible's."""
    return "\n".join(f"  {line}" for line in text.splitlines())
