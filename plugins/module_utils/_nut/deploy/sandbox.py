# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sandboxes of units, as drop-ins. They are tried before they are installed; those that the host can't apply are recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from ..base import files, jsontext, systemd

REFUSED = "var/lib/homelab-nut/refused.json"
"""Name of a sandbox -> why this host could not apply it at the last try. Check mode and the doctor read it instead of trying again."""

# a command without + or !, which systemd runs as the unit's user and with its restrictions
_CONFINED = re.compile(r"^Exec(?:StartPre|StartPost)[ \t]*=[ \t]*[-@:|]*(?![-@:|+!])\S", re.MULTILINE)


def list_settings(drop_in: str) -> list[str]:
    """Return the settings of a drop-in, without comments, which are no reason for a restart."""
    return [line for line in drop_in.splitlines() if re.match(r"[A-Za-z]+=", line)]


def try_sandbox(text: str, runner: systemd.Run) -> str:
    """Run /bin/true in the sandbox of a drop-in. Return why that fails; "" if it works."""
    options = [f"--property={line}" for line in list_settings(text)]
    code, _output = runner(["systemd-run", "--quiet", "--wait", "--collect", "--pipe", *options, "--", "/bin/true"])
    # any other code is a failure of systemd-run, not of the sandbox
    return systemd.SANDBOX_CODES.get(code, "")


def read_refused(root: Path) -> dict[str, str]:
    """Return name of a sandbox -> why this host runs without it, from REFUSED; {} if that is missing or damaged. Raises OSError."""
    try:
        data = jsontext.parse_json((root / REFUSED).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    record = data if isinstance(data, dict) else {}
    return {name: why for name, why in record.items() if isinstance(why, str)}


def write_refused(root: Path, refused: Mapping[str, str]) -> None:
    """Record the sandboxes that this host can't apply. Raises OSError and files.WriteError."""
    path = root / REFUSED
    if refused:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace_files({path: json.dumps(refused, indent=1) + "\n"}, 0o600)
    else:
        path.unlink(missing_ok=True)


def drops_root(drop_in: str) -> bool:
    """Return whether a sandbox runs the unit's commands as another user than root."""
    return any(line.startswith("User=") for line in list_settings(drop_in))


def find_confined(root: Path, names: Iterable[str], ours: Container[str], runner: systemd.Run) -> list[str]:
    """Return foreign drop-ins of these units that add commands which no longer run as root."""
    names = [*names]
    code, output = runner(["systemctl", "show", "--property=DropInPaths", "--", *names]) if names else (0, "")
    paths = [] if code else re.findall(r"(?<=[= ])/\S+", output)
    return [path for path in dict.fromkeys(paths) if path not in ours and _CONFINED.search(_read_text(root, path))]


def _read_text(root: Path, path: str) -> str:
    try:
        return (root / path.lstrip("/")).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # removed since systemd read it
