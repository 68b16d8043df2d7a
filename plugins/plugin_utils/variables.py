# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds mistakes in an inventory's variables: names that no role has, and logins that NUT can't send."""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ansible.module_utils.common.yaml import yaml_load

from ..module_utils._nut.base.spelling import suggest
from ..module_utils._nut.conf import grammar, settings

ROLES = Path(__file__).resolve().parents[2] / "roles"
# how many of the hosts that share a mistake a message names
_HOSTS_SHOWN = 3
# the variables with logins to the upsd of another host
_MONITORS = ("nut_server_extra_monitors", "nut_client_extra_monitors")

Specs = Mapping[str, Mapping[str, Any]]


@cache
def read_specs() -> dict[str, dict[str, Any]]:
    """Return the argument specifications of all roles' variables by their names."""
    specs: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        for entry_point in yaml_load(path.read_text(encoding="utf-8"))["argument_specs"].values():
            specs.update(entry_point["options"])
    return specs


def list_prefixes() -> tuple[str, ...]:
    """Return the prefixes of the roles' variables, one for each role."""
    return tuple(f"{path.name}_" for path in sorted(ROLES.iterdir()) if path.is_dir())


def find_problems(hostvars: Mapping[str, Mapping[str, Any]], context: Mapping[str, Iterable[str]]) -> list[str]:
    """Return one message for each variable, or key in a dictionary, that no role has, and for each login that NUT can't send.

    context: for each host the names of more variables, such as those of the play.
    """
    hosts_by_problem: dict[str, list[str]] = {}
    for host in dict.fromkeys([*hostvars, *context]):
        own: Mapping[str, Any] = hostvars.get(host, {})
        names = dict.fromkeys([*own, *context.get(host, ())])
        for problem in dict.fromkeys(_host_problems(own, names)):
            hosts_by_problem.setdefault(problem, []).append(host)
    return [f"{_join_hosts(hosts)}: {problem}" for problem, hosts in hosts_by_problem.items()]


def join_problems(problems: Mapping[str, Iterable[str]]) -> list[str]:
    """Return each problem once, with the hosts that have it. problems: by host. A problem that begins with a host's name is about that."""
    hosts_by_problem: dict[str, list[str]] = {}
    for host, found in problems.items():
        for problem in dict.fromkeys(found):
            hosts_by_problem.setdefault(problem, []).append(host)
    return [
        problem if re.split(r"[: ]", problem, maxsplit=1)[0] in problems else f"{_join_hosts(hosts)}: {problem}"
        for problem, hosts in hosts_by_problem.items()
    ]


def _host_problems(own: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    specs = read_specs()
    prefixes = list_prefixes()
    for name in names:
        if not name.startswith(prefixes):
            continue
        if name not in specs:
            yield f"{name} is not a variable of this collection. {_suggest_variable(name)}"
        elif "options" in specs[name]:
            with contextlib.suppress(Exception):  # a template that fails is reported by the task that uses it
                yield from _key_problems(name, own[name], specs[name]["options"])
        if name in _MONITORS:
            with contextlib.suppress(Exception):
                yield from _login_problems(name, own[name])


def _key_problems(path: str, value: Any, options: Specs) -> Iterator[str]:
    """Yield a message for each unknown key in nested dictionaries and lists."""
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


def _login_problems(path: str, monitors: Any) -> Iterator[str]:
    """Yield a message for each user name or password for the upsd of another host that NUT can't send. No password is shown."""
    for number, monitor in enumerate(monitors):
        for key, what, find_problem in (
            ("username", "user name", grammar.find_user_problem),
            ("password", "password", grammar.find_password_problem),
        ):
            problem = find_problem(str(monitor[key])) if monitor.get(key) is not None else None
            if problem:
                where = f"{path}[{number}] ({monitor.get('system')})"
                yield f"{where}: the {what} {problem}. Change it there and here, on the host that serves this UPS first"


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
