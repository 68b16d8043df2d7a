# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: what its modules for programs of our own on a host have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _host
from ._command import runner, warn
from ._nut.base import files, sets, systemd
from ._nut.deploy.kits import Installation, InstallError, Kit, Plan

if TYPE_CHECKING:
    from ._module import Module

OPTIONS: dict[str, Any] = {
    "state": {"choices": ["present", "absent"], "default": "present"},
    "files": {"type": "dict"},
    "log": {"type": "path"},
    "wait": {"type": "int", "default": 60},
}
REQUIRED_IF = [("state", "present", ["files"])]
OWNERS: dict[str, tuple[int, int]] = {}  # group -> ids, for who is not root


def run(module: Module, kit: Kit, lacking: Callable[[], str]) -> None:
    """Put a kit in place, or take it away. lacking: says what the host must have first; "" if it has all. Exits the module."""
    wanted = None
    if module.params["state"] == "present":
        # none at all passes required_if, and must not be taken for absent
        wanted = {name: str(text) for name, text in (module.params["files"] or {}).items()}
    log = Path(module.params["log"]) if module.params["log"] else None
    # looking disturbs nobody
    locked = contextlib.nullcontext("") if module.check_mode else alone(module, kit)
    plan = Plan()
    try:
        renewed = bool(module.params.get("renewed"))
        # a check starts nothing, not even what only tries whether it would start
        probing = not module.check_mode
        installation = Installation(wanted, runner(module), log, _host.ROOT, OWNERS, kit, renewed, probing)
        missing = "" if wanted is None else lacking()
        if missing and module.check_mode:
            warn(module, f"all would be installed as soon as NUT is there. {missing}")
            module.exit_json(changed=True, **returned(Plan(changed=tuple(wanted or ()))))
        if missing:
            raise InstallError(missing)
        with locked as found:
            if found:
                warn(module, found)
            plan = installation.plan()
            for words in installation.warnings():
                warn(module, words)
            diff = installation.diff(plan)
            if not module.check_mode:
                installation.apply(plan)
    except (InstallError, systemd.UnitError, files.WriteError, files.Busy, OSError, LookupError) as error:
        # LookupError: there is no group nut
        module.fail_json(msg=str(error), **returned(plan))
    module.exit_json(changed=bool(plan), **returned(plan), **({"diff": [{"prepared": diff}]} if plan else {}))


def alone(module: Module, kit: Kit) -> AbstractContextManager[str]:
    """Keep other runs out, and put right what killed ones have left."""
    folders = [
        *((_host.ROOT / place.path).parent for place in kit.places.values()),
        *(_host.ROOT / one for one in kit.traces),
    ]
    manifest = _host.ROOT / sets.MANIFEST.relative_to("/")
    return sets.alone(_host.ROOT / "run", module.params["wait"], folders, manifest=manifest)


def returned(plan: Plan) -> dict[str, list[str]]:
    """Return a plan in the form that the modules' RETURN describes."""
    return {
        "files": list(plan.changed),
        "removed": [str(path) for path in plan.gone],
        "actions": [str(step) for step in (*plan.before, *plan.after, *plan.later)],
    }
