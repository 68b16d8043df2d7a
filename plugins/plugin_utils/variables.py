# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The variables of the roles: finds the names in an inventory that no role knows."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

from ..module_utils._nut.base.spelling import suggest
from ..module_utils._nut.conf import settings

ROLES = Path(__file__).resolve().parents[2] / "roles"
# a message names this many hosts that share a mistake
_HOSTS_SHOWN = 3

Specs = Mapping[str, Mapping[str, Any]]


@cache
def read_specs() -> dict[str, dict[str, Any]]:
    """Return what meta/argument_specs.yml of all roles says of each variable, by its name."""
    specs: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        for entry_point in yaml_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            specs.update(entry_point["options"])
    return specs


def list_prefixes() -> tuple[str, ...]:
    """Return what the variables of each role begin with."""
    return tuple(f"{path.name}_" for path in sorted(ROLES.iterdir()) if path.is_dir())


def find_problems(hostvars: Mapping[str, Mapping[str, Any]], context: Mapping[str, Iterable[str]]) -> list[str]:
    """List the variables, and the keys of their dictionaries, that no role knows, one message for each.

    context: names of variables that hosts have besides, such as those of the play.
    """
    hosts_by_problem: dict[str, list[str]] = {}
    for host in dict.fromkeys([*hostvars, *context]):
        own: Mapping[str, Any] = hostvars.get(host, {})
        names = dict.fromkeys([*own, *context.get(host, ())])
        for problem in dict.fromkeys(_host_problems(own, names)):
            hosts_by_problem.setdefault(problem, []).append(host)
    return [f"{_join_hosts(hosts)}: {problem}" for problem, hosts in hosts_by_problem.items()]


def _host_problems(own: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    specs = read_specs()
    prefixes = list_prefixes()
    for name in names:
        if not name.startswith(prefixes):
            continue
        if name not in specs:
            yield f"{name} is not a variable of this collection. {_suggest_variable(name)}"
        elif "options" in specs[name]:
            with contextlib.suppress(Exception):  # a template that fails now is reported where it is used
                yield from _key_problems(name, own[name], specs[name]["options"])


def _key_problems(path: str, value: Any, options: Specs) -> Iterator[str]:
    """Find unknown keys in a dictionary, or in a list of dictionaries, and below."""
    if isinstance(value, (list, tuple)):
        for number, element in enumerate(value):
            yield from _key_problems(f"{path}[{number}]", element, options)
    elif isinstance(value, Mapping):
        for key in value:
            if key not in options:
                hint = suggest(key, options) or f"Its keys are {', '.join(options)}."
                yield f"{path} has no key {key}. {hint}"
            elif "options" in options[key]:
                yield from _key_problems(f"{path}.{key}", value[key], options[key]["options"])


def _suggest_variable(name: str) -> str:
    """Return a question with the role's nearest variable, key of a variable that is a dictionary, or NUT directive."""
    role = next(prefix for prefix in list_prefixes() if name.startswith(prefix))
    places = settings.places_of_directives(role.rstrip("_"))
    for variable, spec in read_specs().items():
        prefix, _underscore, suffix = variable.partition(role)
        if not prefix:
            places[suffix] = variable
            if spec["type"] == "dict":
                places.update({f"{suffix}_{key}": f"{variable}.{key}" for key in spec.get("options", ())})
    near = _find_nearest(name.removeprefix(role), places)
    if near:
        return f"Did you mean {near}?"
    return f"`ansible-doc -t role homelab.nut.{role.rstrip('_')}` lists them."


def _find_nearest(name: str, places: Mapping[str, str]) -> str:
    """Return the place with this name, else one whose name has all its words and more, else one spelled alike; "" if none.

    Of several with more words, a variable is preferred to a key of a dictionary, and a short name to a long one.
    """
    words = set(name.split("_"))
    longer = [key for key in places if words < set(key.split("_"))]
    if name not in places and longer:
        return places[min(longer, key=lambda key: ("." in places[key], len(key)))]
    alike = difflib.get_close_matches(name, places, 1)
    return places[alike[0]] if alike else ""


def _join_hosts(hosts: list[str]) -> str:
    shown = ", ".join(hosts[:_HOSTS_SHOWN])
    more = len(hosts) - _HOSTS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
