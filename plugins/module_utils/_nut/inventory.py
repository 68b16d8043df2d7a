# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work out from the inventory which secondaries each primary has, and which UPS powers them.

One file, because all of it reads the same variables of the hosts, and no fact is worked out in two places.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from .base import hostnames
from .base.allow import ANY, AccessError, parse_allow, parse_source
from .base.spelling import list_words
from .conf import grammar, settings, upsmon
from .conf.feeds import Feeds, FeedsError, read_feeds
from .kinds import (
    KINDS,
    PRIMARIES,
    Groups,
    GroupsError,
    Kind,
    explain_unknown_host,
    find_stray_hosts,
    find_unused_hosts,
    read_groups,
)

# The directory for secrets, beside the inventory. Ansible reads every file in an inventory's directory as inventory, and would
# take a password for a host name; it skips names that begin with a dot.
SECRETS_FOLDER = ".homelab-nut"
# the role's default of nut_server_upsmon_user, which is not among the variables that other hosts see
PRIMARY_USER = "monitor"

# NUT's defaults, and the role's, for a secondary's poll and its FINALDELAY. On TrueNAS they can't be changed.
POLL_SECONDS = 5
FINAL_SECONDS = 5
BEGIN_SECONDS = POLL_SECONDS + FINAL_SECONDS


# values of a variable that count as not set
# keys of nut_server_devices that the plan needs
_SUPPLY_KEYS = ("powervalue", "offdelay", "ondelay", "pollfreq", "pollinterval", "driver", "vendorid", "ignorelb")
UNSET_VALUES: tuple[Any, ...] = (None, "", [])


_Seconds = TypeVar("_Seconds", int, float)


class InventoryError(ValueError):
    """The inventory is inconsistent. The message names the host, the variable and the remedy."""


@dataclass(frozen=True)
class Secondary:
    """A secondary."""

    name: str
    kind: str  # the group of its Kind
    primary: str
    primary_address: str  # for its MONITOR line
    primary_port: int
    ups: str  # for its MONITOR line
    user: str
    begin_time: int  # seconds from FSD until it begins to shut down, at most
    shutdown_time: int  # seconds from then until it is down
    shutdown_limit: int  # seconds from then for which the primary waits for it, at most
    # at which the primary checks whether it is up, and from which it logs in; several are separated by commas
    address: str
    guest: dict[str, Any] | None  # {"kind": "qm" or "pct", "id": number} if it is a guest of the primary
    wake: dict[str, Any] | None  # {"mac": text, "command": list} if it is switched on after an outage
    present: bool  # whether it is a secondary; else NUT is taken away from it (nut_client_state)
    managed: bool  # whether Ansible logs in to it; else its NUT client was set up by hand


def list_secondaries(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the secondaries of an inventory. Raises InventoryError.

    groups, hostvars: Ansible's variables. This uses the groups of kinds.py; of each secondary nut_client_primary,
    nut_client_primary_address, nut_client_ups, nut_client_user, nut_client_shutdown_time, nut_client_shutdown_limit,
    nut_client_address, nut_client_guest, nut_client_wake, nut_client_state and, on Linux, nut_client_upsmon_conf, nut_client_powervalue and
    nut_client_extra_monitors; and of each primary nut_server_state, nut_server_upsmon_user, nut_server_address,
    nut_server_port, nut_server_devices, nut_server_upsmon_conf and nut_server_extra_monitors.
    """
    machines = find_groups(groups, hostvars)
    primaries = list(machines.hosts[PRIMARIES])
    for name in primaries:
        _check_user(name, "nut_server_upsmon_user", str(hostvars[name].get("nut_server_upsmon_user") or PRIMARY_USER))
        _check_supplies_of_primary(name, hostvars[name])
    found: list[dict[str, Any]] = []
    for kind in KINDS.values():
        for name in machines.hosts[kind.group]:
            own = machines.list_groups_of(name)
            if len(own) > 1:
                why = "; a host is either a primary or a secondary" if name in primaries else ""
                raise InventoryError(f"{name} is in the groups {list_words(own)}: remove it from one of them{why}")
            found.append(asdict(_make_secondary(name, kind, machines, hostvars)))
    _check_shared_users(found, hostvars)
    return found


def _check_shared_users(secondaries: Sequence[Mapping[str, Any]], hostvars: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InventoryError if two secondaries of a primary have the same user.

    Machines with a login that can't be changed, such as two Synologys, may share it: they have the same password, too.
    """
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for client in secondaries:
        other = first.setdefault((client["primary"], client["user"]), client)
        if other is client:
            continue
        who = f"{other['name']} and {client['name']} have the same user {client['user']}"
        if client["managed"] or other["managed"]:
            raise InventoryError(f"{who}: set another nut_client_user for one of them")
        passwords = [str(hostvars[name].get("nut_client_password") or "") for name in (other["name"], client["name"])]
        if not all(passwords) or len(set(passwords)) > 1:
            raise InventoryError(
                f"{who}: set another nut_client_user for one of them, or, if they can't have another one, the same nut_client_password "
                "for both"
            )


def find_problems(
    groups: Mapping[str, Sequence[str]],
    hostvars: Mapping[str, Mapping[str, Any]],
    host: str = "",
    role: str = "",
    sources: Sequence[str] = (),
) -> list[str]:
    """Return what is wrong with the machines of an inventory.

    host, role: a host, and the role that is applied to it. sources: the files of the inventory.
    """
    try:
        machines = find_groups(groups, hostvars)
        if not machines.hosts[PRIMARIES]:
            return [_explain_no_primary(machines, sources)]
        list_secondaries(groups, hostvars)
    except InventoryError as error:
        return [str(error).rstrip(".")]
    strays = list(find_stray_hosts(machines, groups, hostvars))
    unknown = explain_unknown_host(host, role, machines, groups)
    return [*strays, *([unknown] if unknown else [])]


def _explain_no_primary(machines: Groups, sources: Sequence[str]) -> str:
    where = f"The inventory {', '.join(map(str, sources))}".rstrip()
    return (
        f"{where} has no host in the group {list_words(machines.names[PRIMARIES], 'or')}, so there is nothing to do: put the host with "
        "the UPS there (inventories/example, in the collection's directory, shows how), or name its group in nut_groups"
    )


def find_remarks(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return remarks about hosts of an inventory that are perhaps meant to be secondaries."""
    return find_unused_hosts(find_groups(groups, hostvars), groups, hostvars)


def find_groups(groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]) -> Groups:
    """Return the hosts of an inventory by kind. Raises InventoryError."""
    try:
        return read_groups(groups, hostvars)
    except GroupsError as error:
        raise InventoryError(str(error)) from None


def _check_user(host: str, variable: str, user: str) -> None:
    problem = grammar.find_user_problem(user)
    if problem:
        raise InventoryError(f"{host}: {variable} {user!r} is not a valid user name: it {problem}")


def usual_limit(shutdown_time: _Seconds) -> _Seconds:
    """Return the default shutdown_limit in seconds: shutdown_time plus one half, but plus 30 s at least."""
    return shutdown_time + max(30, shutdown_time // 2)


def _make_secondary(name: str, kind: Kind, machines: Groups, hostvars: Mapping[str, Mapping[str, Any]]) -> Secondary:
    variables = hostvars[name]
    primaries = list(machines.hosts[PRIMARIES])
    primary = variables.get("nut_client_primary") or (primaries[0] if len(primaries) == 1 else "")
    if primary not in primaries:
        if not primaries:
            where = "it" if len(machines.names[PRIMARIES]) == 1 else "one of them"
            why = f"{machines.describe(PRIMARIES)} no host; add the host with the UPS to {where}"
        elif primary:
            why = f"nut_client_primary is {primary}, but {machines.describe(PRIMARIES)} {', '.join(primaries)}; set it to one of these"
        else:
            why = f"{machines.describe(PRIMARIES)} {', '.join(primaries)}; set nut_client_primary to one of them"
        raise InventoryError(f"{name} is a secondary without a primary: {why}")
    primary_variables = hostvars[primary]
    minsupplies = _merge_upsmon_conf(primary, "nut_server", primary_variables).get("MINSUPPLIES")
    ups = _choose_ups(
        name,
        variables.get("nut_client_ups"),
        primary,
        find_feeds(primary, _list_devices(primary, primary_variables), minsupplies),
    )
    if kind.is_configured:
        _check_supplies_of_secondary(name, ups, primary, variables)
    user = str(variables.get("nut_client_user") or re.sub(r"[^A-Za-z0-9._-]", "_", name))
    _check_user(name, "nut_client_user", user)
    # two sections of one name in upsd.users are one user to upsd, with one password
    if user == (primary_variables.get("nut_server_upsmon_user") or PRIMARY_USER):
        raise InventoryError(
            f"{name}: {primary} itself logs in as {user}: set another nut_client_user or nut_server_upsmon_user"
        )
    shutdown_time = _read_seconds(name, "nut_client_shutdown_time", variables, kind.shutdown_time)
    shutdown_limit = _read_seconds(name, "nut_client_shutdown_limit", variables, usual_limit(shutdown_time))
    if shutdown_limit < shutdown_time:
        raise InventoryError(
            f"{name}: nut_client_shutdown_limit ({shutdown_limit}) is less than nut_client_shutdown_time ({shutdown_time}), so the "
            "primary would not wait until this host is down: raise the limit"
        )
    return Secondary(
        name=name,
        kind=kind.group,
        primary=primary,
        primary_address=_choose_primary_address(name, variables, primary, primary_variables),
        primary_port=_read_port(primary, primary_variables),
        ups=ups,
        user=user,
        begin_time=_add_begin_time(name, variables) if kind.is_configured else BEGIN_SECONDS,
        shutdown_time=shutdown_time,
        shutdown_limit=shutdown_limit,
        address=_list_addresses(name, variables),
        guest=_parse_guest(name, variables.get("nut_client_guest")),
        wake=_parse_wake(name, variables.get("nut_client_wake")),
        present=str(variables.get("nut_client_state") or primary_variables.get("nut_server_state")) != "absent",
        managed=kind.is_managed,
    )


def _check_supplies_of_primary(name: str, variables: Mapping[str, Any]) -> None:
    """Raise InventoryError if no UPS powers a primary, or if nothing says when it goes down although one of another host powers it.

    Whether its own UPSes say so is asked where they are used.
    """
    devices = _list_devices(name, variables)
    others = _list_other_supplies(variables.get("nut_server_extra_monitors"))
    if others:
        find_feeds(name, [*devices, *others], _merge_upsmon_conf(name, "nut_server", variables).get("MINSUPPLIES"))
    elif all(str(device.get("powervalue")) == "0" for device in devices):
        listed = list_words([str(device.get("name")) for device in devices])
        raise InventoryError(
            f"{name}: the powervalue of {listed} is 0, so no UPS powers it, and it would never shut down: set powervalue in "
            f"nut_server_devices to the number of power supplies of {name} on that UPS"
        )


def _check_supplies_of_secondary(name: str, ups: str, primary: str, variables: Mapping[str, Any]) -> None:
    """Raise InventoryError if a secondary would not go down with its UPS, or if nothing says whether it does."""
    power = variables.get("nut_client_powervalue")
    own = {"name": ups, "powervalue": 1 if power in (None, "") else power}
    others = _list_other_supplies(variables.get("nut_client_extra_monitors"))
    minsupplies = _merge_upsmon_conf(name, "nut_client", variables).get("MINSUPPLIES")
    if not find_feeds(name, [own, *others], minsupplies, "nut_client").is_powered_by(ups):
        raise InventoryError(
            f"{name}: nut_client_powervalue is 0, so it would not go down with {ups}, and {primary} would wait for it in vain: set it to "
            f"the number of power supplies of {name} on {ups}"
        )


def _list_other_supplies(monitors: Any) -> list[dict[str, Any]]:
    """Return the UPSes of other hosts that power this one, in the form of nut_server_devices. monitors: its ROLE_extra_monitors."""
    return [
        {"name": str(line.get("system")), "powervalue": line["powervalue"]}
        for line in monitors or ()
        if isinstance(line, Mapping) and str(line.get("powervalue") or 0) != "0"
    ]


def find_feeds(
    primary: str, devices: Sequence[Mapping[str, Any]], minsupplies: Any = None, role: str = "nut_server"
) -> Feeds:
    """Return which UPSes power a host. Raises InventoryError if nothing says so.

    devices: as nut_server_devices. minsupplies: MINSUPPLIES of ROLE_upsmon_conf, None if that does not set it.
    """
    try:
        return read_feeds(primary, devices, minsupplies, role)
    except FeedsError as error:
        raise InventoryError(str(error)) from None


def list_upses_elsewhere(
    primary: str, devices: Sequence[Mapping[str, Any]], monitors: Any, minsupplies: Any = None
) -> list[str]:
    """Return the UPSes of other hosts, as ups@host, if they keep a primary up when its own are low. Raises InventoryError.

    devices: as nut_server_devices. monitors: as nut_server_extra_monitors. minsupplies: as in find_feeds().
    """
    others = _list_other_supplies(monitors)
    names = [other["name"] for other in others]
    feeds = find_feeds(primary, [*devices, *others], minsupplies) if others else Feeds({})
    return names if names and feeds.is_enough(names) else []


def _choose_ups(name: str, given: Any, primary: str, powered: Feeds) -> str:
    """Return the UPS that powers a secondary: as given, or the one that powers its primary."""
    if not given and len(powered.upses) != 1:
        listed = " and ".join(powered.upses) or "no UPS"
        raise InventoryError(
            f"{name}: nut_client_ups is not set, and {primary} itself is powered by {listed}: set it to the UPS that powers {name}"
        )
    ups = str(given or powered.upses[0])
    if ups not in powered.power:
        raise InventoryError(
            f"{name}: nut_client_ups is {ups}, but {primary} has {', '.join(powered.power)}: set it to a name in nut_server_devices"
        )
    return ups


def _list_addresses(name: str, variables: Mapping[str, Any]) -> str:
    """Return the addresses of a secondary, separated by commas. A loopback ansible_host is a tunnel: not one of them."""
    host = str(variables.get("ansible_host") or name)
    is_tunnel = host in ("localhost", "::1") or host.startswith("127.")
    given = variables.get("nut_client_address") or (name if is_tunnel else host)
    return ",".join(hostnames.split_addresses(",".join(map(str, [given] if isinstance(given, str) else given))))


def _parse_guest(name: str, given: Any) -> dict[str, Any] | None:
    if not given:
        return None
    kind, number = (given.get("kind"), str(given.get("id"))) if isinstance(given, Mapping) else (None, "")
    if kind not in ("qm", "pct") or not number.isdigit() or len(number) > 9 or set(given) != {"kind", "id"}:
        raise InventoryError(
            f"{name}: nut_client_guest must look like {{kind: qm, id: 100}} (pct instead of qm for a container), not {given!r}"
        )
    return {"kind": kind, "id": int(number)}


def _parse_wake(name: str, given: Any) -> dict[str, Any] | None:
    if not given:
        return None
    mac, command = (given.get("mac") or "", given.get("command") or []) if isinstance(given, Mapping) else ("", [])
    is_command = not isinstance(command, str) and all(isinstance(word, str) for word in command)
    if not (mac or command) or (mac and not hostnames.MAC.fullmatch(str(mac))) or not is_command:
        raise InventoryError(
            f"{name}: nut_client_wake must look like {{mac: '52:54:00:12:34:56'}} or {{command: [/usr/local/bin/wake, {name}]}}, not "
            f"{given!r}"
        )
    return {"mac": str(mac), "command": list(command)}


def _list_devices(primary: str, variables: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    devices = variables.get("nut_server_devices") or [{"name": "ups"}]
    if isinstance(devices, (str, Mapping)) or not all(isinstance(device, Mapping) for device in devices):
        raise InventoryError(f"{primary}: nut_server_devices must be a list of UPSes, each with a name")
    return list(devices)


def _read_port(primary: str, variables: Mapping[str, Any]) -> int:
    port = str(variables.get("nut_server_port") or 3493)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InventoryError(f"{primary}: nut_server_port must be a number from 1 to 65535, not {port!r}")
    return int(port)


def _name_primary(primary: str, variables: Mapping[str, Any]) -> str:
    return str(variables.get("nut_server_address") or variables.get("ansible_host") or primary)


def find_primary_address(primary: str, variables: Mapping[str, Any]) -> str:
    """Return the address at which secondaries reach a primary: nut_server_address, else Ansible's. Raises InventoryError."""
    address = _name_primary(primary, variables)
    if address in ("localhost", "::1") or address.startswith("127."):
        raise InventoryError(
            f"{primary}: secondaries can't reach this host at {address}: set nut_server_address to its address on the network"
        )
    return f"[{address}]" if ":" in address and not address.startswith("[") else address


def _choose_primary_address(
    name: str, variables: Mapping[str, Any], primary: str, primary_variables: Mapping[str, Any]
) -> str:
    """Return the address at which a secondary reaches its primary: its own nut_client_primary_address, else that of all."""
    given = variables.get("nut_client_primary_address")
    if not given:
        return find_primary_address(primary, primary_variables)
    try:
        return find_primary_address(primary, {"nut_server_address": given})
    except InventoryError:
        raise InventoryError(
            f"{name}: nut_client_primary_address {given} is the host itself: set it to an address of {primary} on the network"
        ) from None


def upsd_access(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], primary: str, allow: Any = ()
) -> dict[str, Any]:
    """Return which machines may connect to a primary's upsd, and the default of nut_server_listen. Raises InventoryError.

    limited: whether other machines are refused. sources: name and address of each secondary, of each host that only monitors one
    of its UPSes, and of each entry of nut_server_allow. listen: in the form of nut_server_listen.
    """
    try:
        given = parse_allow(allow)
        secondaries = [client for client in list_secondaries(groups, hostvars) if client["primary"] == primary]
        sources = [
            {"name": client["name"], "address": address}
            for client in secondaries
            if client["present"]
            for address in hostnames.split_addresses(client["address"])
        ]
        sources += _list_watchers(groups, hostvars, primary, {source["name"] for source in sources})
        for source in sources:
            source["address"] = parse_source(source["address"])
    except AccessError as error:
        raise InventoryError(f"{primary}: in nut_server_allow, or in the address of a secondary: {error}") from None
    sources += [{"name": source, "address": source} for source in given if source != ANY]
    limited = ANY not in given
    reached = [_name_primary(primary, hostvars[primary]), *(client["primary_address"] for client in secondaries)]
    listen = _choose_listen(reached) if sources or not limited else ["127.0.0.1"]
    return {"limited": limited, "sources": sources, "listen": [{"address": address} for address in listen]}


def _list_watchers(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], primary: str, known: Collection[str]
) -> list[dict[str, str]]:
    """Return the other hosts whose nut_server_extra_monitors or nut_client_extra_monitors has a UPS of this primary."""
    own = hostvars[primary]
    names = {
        str(name).strip("[]") for name in (primary, own.get("nut_server_address"), own.get("ansible_host")) if name
    }
    watchers = []
    machines = find_groups(groups, hostvars)
    for group in (PRIMARIES, *(kind.group for kind in KINDS.values() if kind.is_configured)):
        for name in machines.hosts[group]:
            variables = hostvars[name]
            lines = (
                variables.get("nut_server_extra_monitors" if group == PRIMARIES else "nut_client_extra_monitors") or ()
            )
            hosts = {
                upsmon.Monitor(str(line.get("system")), 0, "", "", "").host
                for line in lines
                if isinstance(line, Mapping)
            }
            if name != primary and name not in known and hosts & names:
                addresses = hostnames.split_addresses(_list_addresses(name, variables))
                watchers += [{"name": name, "address": address} for address in addresses]
    return watchers


def _choose_listen(reached: Iterable[str]) -> list[str]:
    """Return loopback and the addresses at which machines reach a primary, if all are addresses; else those that mean all.

    reached: addresses and names. If one is an IPv6 address, all of both families are meant.
    """
    addresses = []
    is_v6 = False
    for text in dict.fromkeys(place.strip("[]") for place in reached):
        try:
            addresses.append(ipaddress.ip_address(text.partition("%")[0]))
        except ValueError:
            continue
        is_v6 = is_v6 or addresses[-1].version == 6
    names = [text for text in dict.fromkeys(reached) if not hostnames.is_address(text.strip("[]"))]
    if names or any(address.is_unspecified or address.is_link_local or address.is_loopback for address in addresses):
        # NUT 2.8.0 can't bind both, and serves IPv4 at :: as well; there conf/fit.py leaves 0.0.0.0 out
        return ["::", "0.0.0.0"] if is_v6 else ["0.0.0.0"]
    # loopback first, because every host has it
    return ["127.0.0.1", *map(str, addresses)]


def _add_begin_time(name: str, variables: Mapping[str, Any]) -> int:
    """Return the sum of a Linux secondary's longest poll and its FINALDELAY, which come before its shutdown command."""
    upsmon_conf = _merge_upsmon_conf(name, "nut_client", variables)
    polls = [int(upsmon_conf.get(directive, POLL_SECONDS)) for directive in ("POLLFREQ", "POLLFREQALERT")]
    return max(polls) + int(upsmon_conf.get("FINALDELAY", FINAL_SECONDS))


def _merge_upsmon_conf(name: str, role: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a host's own ROLE_upsmon_conf sets."""
    try:
        return settings.merge_settings(variables.get(f"{role}_upsmon_conf"), {}, "upsmon.conf", role)
    except settings.SettingsError as error:
        raise InventoryError(f"{name}: {error}") from None


def _read_seconds(name: str, variable: str, variables: Mapping[str, Any], default: int) -> int:
    value = variables.get(variable)
    if value is None:
        return default
    try:
        seconds = int(str(value))
    except ValueError:
        seconds = -1
    if seconds < 0:
        raise InventoryError(f"{name}: {variable} must be a number of seconds, not {value!r}")
    return seconds


def plan_site(
    primary: str,
    secondaries: Sequence[Mapping[str, Any]],
    devices: Sequence[Mapping[str, Any]],
    stages: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the machines, supplies and stages of a site, as input of the shutdown plan (plan/planner.py).

    secondaries: from list_secondaries(). devices: nut_server_devices; only the keys that NUT itself uses count. stages:
    nut_server_stages, of which the plan ignores the notifications.
    """
    machines: list[dict[str, Any]] = [{"name": primary, "role": "primary", "kind": PRIMARIES}]
    for secondary in secondaries:
        machine = {key: secondary[key] for key in ("name", "ups", "begin_time", "shutdown_time", "shutdown_limit")}
        # the name, too: storage on a NAS is often configured by name, and may be at another of its addresses
        addresses = dict.fromkeys((*hostnames.split_addresses(secondary["address"]), secondary["name"]))
        machine.update(role="secondary", kind=KINDS[secondary["kind"]].name, address=list(addresses))
        if secondary["guest"]:
            machine["guest_id"] = secondary["guest"]["id"]
        machines.append(machine)
    planned = [
        {key: stage[key] for key in stage if key not in ("notify", "message") and stage[key] not in UNSET_VALUES}
        for stage in stages
    ]
    return {"machines": machines, "supplies": [_make_supply(device) for device in devices], "stages": planned}


def _make_supply(device: Mapping[str, Any]) -> dict[str, Any]:
    # the driver's settings take precedence over the UPS's own values
    forced = {**(device.get("default") or {}), **(device.get("override") or {}), **(device.get("options") or {})}
    names_of: dict[str, tuple[str, ...]] = {key: (key,) for key in _SUPPLY_KEYS}
    if device.get("ignorelb") or forced.get("ignorelb"):
        # without ignorelb NUT only shows these, and the UPS goes by its own
        for key in ("runtime_low", "charge_low"):
            variable = f"battery.{key.replace('_', '.')}"
            names_of[key] = (f"override.{variable}", variable)
    supply: dict[str, Any] = {"name": device["name"]}
    for key, names in names_of.items():
        values = [given[name] for name in names for given in (forced, device) if given.get(name) not in (None, "")]
        # a value that is not a number is reported with file and line when ups.conf is written
        is_restore_at_once = key == "ondelay" and str(values[:1]) in ("[-1]", "['-1']")
        if values and (key in ("driver", "vendorid", "ignorelb") or is_restore_at_once or _is_number(values[0])):
            supply[key] = values[0]
    return supply


def _is_number(value: object) -> bool:
    try:
        return float(str(value)) >= 0
    except ValueError:
        return False
