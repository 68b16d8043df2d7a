# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: the common code of its modules that install this collection's own programs on a host."""

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
OWNERS: dict[str, tuple[int, int]] = {}  # user and group id by group, for tests, which do not run as root


class Service:
    """One run of a module that installs a kit on this host, or removes it."""

    def __init__(self, module: Module, kit: Kit) -> None:
        self.module, self.kit, self.runner = module, kit, make_runner(module)
        self.absent = module.params["state"] == "absent"
        self.plan = InstallPlan()

    def run(self) -> None:
        """Install or remove the kit; in check mode report what would change. Exits the module."""
        module, check = self.module, self.module.check_mode
        diff = ""
        try:
            wanted = None if self.absent else self.find_wanted()
            lacks = "" if self.absent else self.explain_missing()
            if lacks and check:
                self.warn_about_order()
                self.plan = InstallPlan(files=tuple(FileChange(name, Path(), None, "") for name in wanted or ()))
                module.exit_json(changed=True, **self.make_result())
            if lacks:
                raise InstallError(lacks)
            # check mode only reads, so it needs no lock
            with contextlib.nullcontext("") if check else self.hold_lock() as found:
                if found:
                    warn_with_host(module, found)
                log = Path(module.params["log"]) if module.params.get("log") else None
                renewed = bool(module.params.get("renewed"))
                # check mode starts nothing, not even a trial run of a sandbox
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
            # LookupError: the group nut does not exist
            module.fail_json(msg=str(error), **self.make_result())
        self.warn_about_outcome()
        module.exit_json(
            changed=bool(self.plan), **self.make_result(), **({"diff": [{"prepared": diff}]} if diff else {})
        )

    def hold_lock(self) -> AbstractContextManager[str]:
        """Take the lock against other runs, and repair what a killed run has left."""
        folders = [
            *((_host.ROOT / place.path).parent for place in self.kit.places.values()),
            *(_host.ROOT / trace for trace in self.kit.leftovers),
        ]
        manifest = _host.ROOT / sets.MANIFEST.relative_to("/")
        return sets.hold_lock_and_recover(_host.ROOT / "run", self.module.params["wait"], folders, manifest=manifest)

    # Methods that a kit's module may override

    def find_wanted(self) -> Mapping[str, str]:
        """Return the kit's files. An empty dict passes required_if, and does not mean absent."""
        return {name: str(text) for name, text in (self.module.params["files"] or {}).items()}

    def explain_missing(self) -> str:
        """Return what this host needs first, and the remedy; "" if nothing is missing."""
        return _host.explain_missing_nut()

    def warn_about_order(self) -> None:
        """Warn in check mode that NUT is not installed yet. Here not: the role nut_server would have installed it just before."""

    def make_plan(self, installation: Installation) -> InstallPlan:
        """Return the plan."""
        return installation.plan_install()

    def apply_plan(self, installation: Installation) -> None:
        """Apply the plan."""
        installation.apply_plan(self.plan)

    def warn_about_outcome(self) -> None:
        """Warn about the outcome."""

    def make_result(self) -> dict[str, Any]:
        """Return the module's result, see its RETURN."""
        return {
            "files": list(self.plan.written_files),
            "removed": [str(path) for path in self.plan.removed_paths],
            "actions": list(self.plan.steps),
        }
