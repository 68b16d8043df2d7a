# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of a role, evaluated by Ansible's own templating with this collection's filters, in a second instead of a play's ten."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[3]

# in a process of its own, because Ansible's loader of collections does not get along with packages that are already imported
PROGRAM = """
import json, sys
from pathlib import Path
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar, trust_as_template

def trust(value):
    if isinstance(value, dict):
        return {name: trust(member) for name, member in value.items()}
    if isinstance(value, list):
        return [trust(member) for member in value]
    return trust_as_template(value) if isinstance(value, str) else value

collections, role, given, expression = sys.argv[1:]
init_plugin_loader([collections])
variables = {}
for name in ("defaults", "vars"):
    variables.update(yaml.safe_load(Path(role, name, "main.yml").read_text()))
variables = {**trust(variables), "ansible_search_path": [role], **json.loads(given)}
print(json.dumps(Templar(DataLoader(), variables=variables).template(trust_as_template("{{ " + expression + " }}"))))
"""


def evaluate(role: str, expression: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of a Jinja2 expression, with a role's variables and those that are given."""
    arguments = [str(CHECKOUT / ".collections"), str(CHECKOUT / "roles" / role), json.dumps(variables), expression]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
