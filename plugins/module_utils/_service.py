# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: what its modules for programs of our own on a host have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _host
from ._command import make_runner, warn_with_host
from ._nut.base import files, sets, systemd
from ._nut.deploy.change import FileChange
from ._nut.deploy.installation import Installation, InstallError, InstallPlan
from ._nut.deploy.kits import Kit

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


class Service:
    """A kit that is put in place on this host, or taken away: one run of a module."""

    def __init__(self, module: Module, kit: Kit) -> None:
        self.module, self.kit, self.runner = module, kit, make_runner(module)
        self.absent = module.params["state"] == "absent"
        self.plan = InstallPlan()

    def run(self) -> None:
        """Do it, or tell what would be done. Exits the module."""
        module, check = self.module, self.module.check_mode
        diff = ""
        try:
            wanted = None if self.absent else self.find_wanted()
            lacks = "" if self.absent else self.explain_missing()
            if lacks and check:
                warn_with_host(module, f"all would be installed as soon as NUT is there. {lacks}")
                self.plan = InstallPlan(files=tuple(FileChange(name, Path(), None, "") for name in wanted or ()))
                module.exit_json(changed=True, **self.make_result())
            if lacks:
                raise InstallError(lacks)
            # looking disturbs nobody
            with contextlib.nullcontext("") if check else self.hold_lock() as found:
                if found:
                    warn_with_host(module, found)
                log = Path(module.params["log"]) if module.params.get("log") else None
                renewed = bool(module.params.get("renewed"))
                # a check starts nothing, not even what only tries whether it would start
                installation = Installation(
                    wanted, self.runner, log, _host.ROOT, OWNERS, self.kit, renewed, try_sandboxes=not check
                )
                self.plan = self.make_plan(installation)
                for words in installation.list_warnings():
                    warn_with_host(module, words)
                diff = self.plan.render_diff()
                if not check:
                    self.apply_plan(installation)
        except (InstallError, systemd.UnitError, files.WriteError, files.Busy, OSError, LookupError) as error:
            # LookupError: there is no group nut
            module.fail_json(msg=str(error), **self.make_result())
        self.warn_about_outcome()
        module.exit_json(
            changed=bool(self.plan), **self.make_result(), **({"diff": [{"prepared": diff}]} if diff else {})
        )

    def hold_lock(self) -> AbstractContextManager[str]:
        """Keep other runs out, and put right what killed ones have left."""
        folders = [
            *((_host.ROOT / place.path).parent for place in self.kit.places.values()),
            *(_host.ROOT / trace for trace in self.kit.leftovers),
        ]
        manifest = _host.ROOT / sets.MANIFEST.relative_to("/")
        return sets.hold_lock_and_recover(_host.ROOT / "run", self.module.params["wait"], folders, manifest=manifest)

    # What may differ from kit to kit

    def find_wanted(self) -> Mapping[str, str]:
        """Return the kit's files. None at all passes required_if, and must not be taken for absent."""
        return {name: str(text) for name, text in (self.module.params["files"] or {}).items()}

    def explain_missing(self) -> str:
        """Return what the host must have first, and the remedy; "" if it has all."""
        return _host.explain_missing_nut()

    def make_plan(self, installation: Installation) -> InstallPlan:
        """Return what is to be done."""
        return installation.plan_install()

    def apply_plan(self, installation: Installation) -> None:
        """Do what was decided."""
        installation.apply_plan(self.plan)

    def warn_about_outcome(self) -> None:
        """Warn of what has come of it."""

    def make_result(self) -> dict[str, Any]:
        """Return what was done in the form that the module's RETURN describes."""
        return {
            "files": list(self.plan.written_files),
            "removed": [str(path) for path in self.plan.removed_paths],
            "actions": list(self.plan.steps),
        }
