# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The kinds of machines, and the groups of an inventory that say which kind a host is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .base.spelling import list_words, suggest

VARIABLE = "nut_groups"
"""The variable that names the groups, for all hosts."""


@dataclass(frozen=True)
class Kind:
    """A kind of secondary, with everything that differs between kinds."""

    group: str  # the group of its hosts, unless nut_groups names others
    name: str  # in the plan of the shutdown
    shutdown_time: int  # seconds from the start of a shutdown until the machine is down, unless the inventory sets it
    # a machine that is up accepts or refuses connections to these ports; tried if it does not answer a ping
    ports: tuple[int, ...]
    # whether its upsmon takes POLLFREQ, FINALDELAY and MONITOR lines from the inventory; else it has NUT's defaults
    is_configured: bool
    # whether Ansible logs in to it: the role nut_client then has tasks/GROUP.yml and tasks/doctor_GROUP.yml
    is_managed: bool = True


PRIMARIES = "pve"  # a group of primaries, their kind in the plan, and the key of all primaries in Groups
SERVERS = "ups_servers"  # the other group of primaries: for a machine with a UPS that is no Proxmox VE host, or for both kinds
# TrueNAS stops its services and exports its pools; a Linux machine stops its services.
TRUENAS = Kind("truenas", "truenas", 60, (22, 80, 443, 445, 111, 2049), is_configured=False)
LINUX = Kind("ups_clients", "linux", 30, (22, 80, 443, 3389), is_configured=True)
# Anything with a NUT client of its own: another NAS, a router, a desktop. The longest times that are usual, and all their ports.
UNMANAGED = Kind(
    *("unmanaged", "unmanaged", 90, (22, 80, 443, 445, 3389, 5000, 5001, 5900, 8080, 8123, 8443)),
    is_configured=False,
    is_managed=False,
)
KINDS = {kind.group: kind for kind in (TRUENAS, LINUX, UNMANAGED)}
GROUPS = (PRIMARIES, SERVERS, *KINDS)
# the beginnings of the variables of a host of each group
_PREFIXES = {"nut_server_": (PRIMARIES,), "nut_client_": tuple(KINDS)}


class GroupsError(ValueError):
    """nut_groups is wrong. The message says what, and what to do."""


@dataclass(frozen=True)
class Groups:
    """The hosts of an inventory by kind. The keys are the usual names of the groups."""

    names: Mapping[str, tuple[str, ...]]  # the groups that the inventory has them in
    hosts: Mapping[str, Mapping[str, str]]  # host -> the one of these groups that it is in

    def describe(self, group: str) -> str:
        """Return the names of the groups of a kind, as the subject of a sentence: "group pve has" or "groups a and b have"."""
        names = self.names[group]
        return f"group {names[0]} has" if len(names) == 1 else f"groups {list_words(names)} have"

    def list_groups_of(self, host: str) -> list[str]:
        """Return the groups that a host is in, of those that say what it is."""
        return [hosts[host] for hosts in self.hosts.values() if host in hosts]

    def list_managed(self) -> list[str]:
        """Return the hosts that Ansible logs in to: primaries first."""
        groups = (PRIMARIES, *(kind.group for kind in KINDS.values() if kind.is_managed))
        return list(dict.fromkeys(host for group in groups for host in self.hosts[group]))


def read_groups(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> Groups:
    """Return the hosts of an inventory by kind. Raise GroupsError.

    groups, hostvars: Ansible's variables. Only the first host is asked for nut_groups, because this is called often, and the
    variables of a host are expensive; find_stray_hosts() checks that all hosts agree.
    """
    names = _parse_choice(_read_choice(groups, hostvars), groups)
    servers = (*names[PRIMARIES], *names.pop(SERVERS))
    names[PRIMARIES] = tuple(name for name in servers if name in groups) or servers
    return Groups(
        names,
        {group: {host: name for name in own for host in groups.get(name, ())} for group, own in names.items()},
    )


def _first_host(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> str:
    return next(iter(groups.get("all") or hostvars), "")


def _read_choice(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> Any:
    first = _first_host(groups, hostvars)
    return hostvars[first].get(VARIABLE) if first in hostvars else None


def _parse_choice(given: Any, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    if not isinstance(given or {}, Mapping):
        raise GroupsError(f"{VARIABLE} must be a dictionary, such as {{truenas: storage}}, not {given!r}")
    names: dict[str, tuple[str, ...]] = {group: (group,) for group in GROUPS}
    for key, value in (given or {}).items():
        if key not in names:
            hint = suggest(key, GROUPS) or f"Its keys are {', '.join(GROUPS)}."
            raise GroupsError(f"{VARIABLE} has no key {key}. {hint}")
        chosen = (value,) if isinstance(value, str) else tuple(map(str, value or ()))
        unknown = [name for name in chosen if name not in groups]
        if unknown or not chosen:
            wrong = f"is {unknown[0]}, but the inventory has no such group" if unknown else "names no group"
            known = ", ".join(name for name in groups if name not in ("all", "ungrouped")) or "none"
            raise GroupsError(f"{VARIABLE}.{key} {wrong}: use one of its groups ({known}), or leave {key} out")
        names[key] = chosen
    taken: dict[str, str] = {}
    for key, chosen in names.items():
        for name in chosen:
            other = taken.setdefault(name, key)
            if other != key:
                raise GroupsError(
                    f"{VARIABLE}: {name} is the group of both {other} and {key}: a group has hosts of one kind"
                )
    return names


def find_stray_hosts(
    found: Groups, groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield what is wrong with the hosts that are in none of the groups, or do not agree on nut_groups."""
    own = {host: {str(name) for name in hostvars[host]} for host in hostvars}
    first = _first_host(groups, hostvars)
    choice = _read_choice(groups, hostvars)
    for host in hostvars:
        if hostvars[host].get(VARIABLE) != choice:
            yield f"{VARIABLE} of {host} differs from that of {first}: set it once for all hosts, in group_vars/all.yml"
            return
    # variables that all hosts have do not say that a host is a machine of ours
    common = set.intersection(*own.values()) if own else set()
    for host, variables in own.items():
        if found.list_groups_of(host):
            continue
        for prefix, wanted in _PREFIXES.items():
            mine = sorted(name for name in variables - common if name.startswith(prefix))
            if mine:
                yield f"{host} has {mine[0]}, but is {_describe_place(host, groups)}: {_tell_to_move(host, found, groups, wanted)}"
                break


def find_unused_hosts(
    found: Groups, groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return remarks about hosts that are perhaps meant to be secondaries: there is none, or a group is called almost like ours."""
    others = [host for host in groups.get("all") or hostvars if not found.list_groups_of(host)]
    if others and not any(found.hosts[group] for group in KINDS):
        return [
            f"No host is a secondary: {list_words(_shorten(others))} {'are' if len(others) > 1 else 'is'} in none of the groups "
            f"{list_words(_list_names(found, tuple(KINDS)))}, so nothing shuts down before the primary. "
            f"If one of them is powered by its UPS, {_tell_to_move(others[0], found, groups, tuple(KINDS))}"
        ]
    known = _list_names(found, tuple(KINDS))
    remarks = []
    for name, hosts in groups.items():
        strays = [host for host in hosts if host in others]
        hint = (
            suggest(name, [group for group in known if len(group) > len(PRIMARIES)])
            if strays and name not in known
            else ""
        )
        if hint:
            remarks.append(f"No role uses the group {name} ({list_words(_shorten(strays))}). {hint}")
    return remarks


def _shorten(hosts: Sequence[str], most: int = 5) -> list[str]:
    return [*hosts] if len(hosts) <= most else [*hosts[: most - 1], f"{len(hosts) - most + 1} others"]


def _list_names(found: Groups, wanted: Sequence[str]) -> list[str]:
    return [name for group in wanted for name in found.names[group]]


def _list_own_groups(host: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for name, hosts in groups.items() if host in hosts and name not in ("all", "ungrouped")]


def _describe_place(host: str, groups: Mapping[str, Sequence[str]]) -> str:
    own = _list_own_groups(host, groups)
    if not own:
        return "in no group"
    return f"in the group{'s' if len(own) > 1 else ''} {list_words(own)}, by which the roles do not find it"


def _tell_to_move(host: str, found: Groups, groups: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> str:
    return f"put it into {_name_wanted(found, wanted)}, or {_tell_choice(host, found, groups, wanted)}"


def _name_wanted(found: Groups, wanted: Sequence[str]) -> str:
    names = _list_names(found, wanted)
    return f"the group {names[0]}" if len(names) == 1 else f"one of the groups {list_words(names, 'or')}"


def _tell_choice(host: str, found: Groups, groups: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> str:
    """Return how to make the group of a host one of the wanted groups."""
    usual = LINUX.group if LINUX.group in wanted else wanted[0]
    own = next(iter(_list_own_groups(host, groups)), "YOUR_GROUP")
    names = [*found.names[usual], own] if found.hosts[usual] else [own]
    chosen = f"[{', '.join(names)}]" if len(names) > 1 else own
    return f"name its group for all hosts, such as {VARIABLE}: {{{usual}: {chosen}}} in group_vars/all.yml"


def explain_unknown_host(host: str, role: str, found: Groups, groups: Mapping[str, Sequence[str]]) -> str:
    """Return why a role can't be applied to a host that is in none of its groups; "" if it is in one, or the role needs none."""
    wanted = _PREFIXES.get(f"{role}_", ())
    kind = next((KINDS[group] for group in wanted if group in KINDS and host in found.hosts[group]), None)
    if kind and not kind.is_managed:
        where = found.hosts[kind.group][host]
        return f"{host} gets the role {role}, but is in the group {where}: set it up by its own means (docs/clients.md)"
    wanted = tuple(group for group in wanted if group not in KINDS or KINDS[group].is_managed)
    if not wanted or any(host in found.hosts[group] for group in wanted):
        return ""
    what = "primaries" if wanted == (PRIMARIES,) else "secondaries"
    return (
        f"{host} gets the role {role}, but is not in {_name_wanted(found, wanted)}, by which the roles find {what}: "
        f"put it there, or {_tell_choice(host, found, groups, wanted)}"
    )
