# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of the roles: their documentation, their defaults and the library agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut import inventory
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import directives, settings, upsd

CHECKOUT = Path(__file__).parents[3]
ROLES = ("nut_server", "nut_client")


def load_yaml(role: str, path: str) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((CHECKOUT / "roles" / role / path).read_text())
    return data


def read_options(role: str) -> dict[str, Any]:
    options: dict[str, Any] = load_yaml(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return options


@pytest.mark.parametrize("role", ROLES)
def test_documented_defaults_are_the_real_defaults(role: str) -> None:
    """A default that is a template, or NUT's own, is described in words. Some options have no default."""
    options = read_options(role)
    defaults = load_yaml(role, "defaults/main.yml")
    assert set(defaults) <= set(options)
    for name, value in defaults.items():
        if value is None or (isinstance(value, str) and "{{" in value):
            assert "default" not in options[name], name
        else:
            assert (options[name]["default"], type(options[name]["default"])) == (value, type(value)), name
    documented = {name for name, option in options.items() if "default" in option}
    assert documented <= set(defaults)
    # an option without a default cannot be used in a template
    used = {name for name in options if name not in defaults}
    texts = "".join(path.read_text() for path in (CHECKOUT / "roles" / role / "templates").iterdir())
    assert not [name for name in used if re.search(rf"\b{name}\b", texts)]


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_the_prefix_of_the_role_and_is_used(role: str) -> None:
    options = read_options(role)
    assert all(name.startswith(f"{role}_") for name in options)
    folders = [CHECKOUT / "roles", CHECKOUT / "plugins"]
    paths = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".yml", ".j2")]
    texts = "".join(path.read_text() for path in paths if path.name != "argument_specs.yml")
    defaults = (CHECKOUT / "roles" / role / "defaults/main.yml").read_text()
    for name in options:
        declared = sum(line.startswith(f"{name}:") for line in defaults.splitlines())
        assert len(re.findall(rf"\b{name}\b", texts)) > declared, name


def test_library_has_the_same_defaults() -> None:
    """The variables of other hosts lack a role's defaults, so the library has its own copy."""
    defaults = load_yaml("nut_server", "defaults/main.yml")
    assert defaults["nut_server_upsmon_user"] == inventory.PRIMARY_USER
    assert defaults["nut_server_port"] == upsd.PORT
    (nas,) = inventory.list_secondaries({"pve": ["pve"], "truenas": ["nas"]}, {"pve": {}, "nas": {}})
    (device,) = defaults["nut_server_devices"]
    assert (nas["ups"], nas["primary_port"]) == (device["name"], defaults["nut_server_port"])


@pytest.mark.parametrize("role", ROLES)
def test_variable_of_each_file_documents_the_role_settings(role: str) -> None:
    options, own = read_options(role), load_yaml(role, "vars/main.yml")[f"__{role}_own_settings"]
    assert set(own) == set(settings.FILES[role])
    for file, values in own.items():
        option = options[settings.variable_of(role, file)]
        assert (option["type"], option["default"]) == ("dict", {})
        description = " ".join(option["description"])
        assert f"directives of {file}".lower() in description.lower().replace("c(", "").replace(")", "")
        assert "does not merge dictionaries" in description
        assert [name for name in values if name not in description] == []
        assert set(values) <= set(directives.DIRECTIVES[file])


def test_users_can_have_every_directive_of_upsd_users() -> None:
    users = {name for name, directive in directives.DIRECTIVES["upsd.users"].items() if not directive.never}
    assert users < set(read_options("nut_server")["nut_server_users"]["options"])
