# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Action plugin of M(homelab.nut.zipapp): installs a script and a package of this collection as one executable file."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MODULE_UTILS = Path(__file__).resolve().parents[1] / "module_utils"

OPTIONS = {
    "main": {"type": "path", "required": True},
    "package": {"type": "str", "default": "_nut"},
    "dest": {"type": "path", "required": True},
    "shebang": {"type": "str", "default": "/usr/bin/python3 -IS"},
    "head": {"type": "path"},
    "first": {"type": "str"},
    "owner": {"type": "str"},
    "group": {"type": "str"},
    "mode": {"type": "raw", "default": "0755"},
}


def build_program(
    main: Path, package: str, head: bytes, *, first: str | None = None, folder: Path = MODULE_UTILS
) -> bytes:
    """Return an archive with a script, as __main__.py, and a package in FOLDER. The same sources always give the same bytes.

    head: the start of the file, such as #! and an interpreter. first: the file of the package to put first, right after the
    head. Nothing is compressed, because unpacking at each start costs more than the saved bytes are worth.
    """
    sources = {first: folder / first} if first else {}
    sources["__main__.py"] = main
    sources |= {path.relative_to(folder).as_posix(): path for path in sorted((folder / package).rglob("*.py"))}
    archive = io.BytesIO(head)
    archive.seek(0, io.SEEK_END)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_STORED) as pack:
        for name, path in sources.items():
            # its default date is 1980-01-01, the earliest in a zip archive
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3  # Unix, also on other controllers
            entry.external_attr = 0o644 << 16
            pack.writestr(entry, path.read_bytes())
    return archive.getvalue()


class ActionModule(ActionBase):
    """Builds the archive on the controller, and copies it with ansible.builtin.copy."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the task, and return the result of copy."""
        super().run(tmp, task_vars)
        _unused, options = self.validate_argument_spec(OPTIONS)
        package = str(options["package"])
        if not package.isidentifier() or not (MODULE_UTILS / package / "__init__.py").is_file():
            raise AnsibleActionFail(f"package: this collection's module_utils has no package {package!r}")
        main = Path(self._find_needle("files", options["main"]))
        head = self._find_needle("files", options["head"]) if options["head"] else None
        try:
            start = Path(head).read_bytes() if head else f"#!{options['shebang']}\n".encode()
            data = build_program(main, package, start, first=options["first"])
        except OSError as error:
            raise AnsibleActionFail(f"{error.filename} can't be read: {error.strerror}") from error
        with tempfile.NamedTemporaryFile(prefix="zipapp-") as archive:
            archive.write(data)
            archive.flush()
            result = self._copy(archive.name, options, task_vars)
        if self._task.diff and result.get("changed"):
            result["diff"] = [{"prepared": f"{options['dest']}: the program, its owner or its mode changes\n"}]
        return result

    def _copy(self, source: str, options: Mapping[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        task = self._task.copy()
        task.diff = False  # the file is binary
        given = {key: options[key] for key in ("owner", "group", "mode") if options[key] is not None}
        task.args = {**given, "dest": options["dest"], "src": source}
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        result: dict[str, Any] = copy.run(task_vars=task_vars)
        return result
