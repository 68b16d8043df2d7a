# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who hangs on which UPS: the wiring between a primary and its secondaries, from the inventory alone."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from .base.allow import ANY, AccessError, parse_allow, parse_source
from .conf import grammar, settings, upsmon

# Beside the inventory, for secrets. Ansible takes all that is in an inventory's directory for inventory, each password for
# the name of a host; but not what begins with a dot.
SECRETS_FOLDER = ".homelab-nut"
# the role's default of nut_server_upsmon_user, which other hosts' variables don't show
PRIMARY_USER = "monitor"

# NUT's defaults, and the role's, for a secondary's poll and its FINALDELAY. TrueNAS can't be told others.
POLL_SECONDS = 5
FINAL_SECONDS = 5
BEGIN_SECONDS = POLL_SECONDS + FINAL_SECONDS


# what a variable that is not set looks like
UNSET_VALUES: tuple[Any, ...] = (None, "", [])


@dataclass(frozen=True)
class Kind:
    """A kind of secondary: all that differs from one kind to another. The role nut_client has tasks/GROUP.yml for it."""

    group: str  # whose hosts are of this kind
    name: str  # in the plan of the shutdown
    # seconds from the start of a shutdown to the moment that the machine is down, if the inventory does not say
    shutdown_time: int
    # on which a machine that is up says at least no; tried where it does not answer a ping
    ports: tuple[int, ...]
    is_configured: (
        bool  # whether its upsmon has the inventory's POLLFREQ, FINALDELAY and MONITOR lines, or NUT's defaults
    )


PRIMARIES = "pve"
"""The group of the primaries, and their kind in the plan."""
# A TrueNAS stops its services and exports its pools; a Linux box stops its services.
TRUENAS = Kind("truenas", "truenas", 60, (22, 80, 443, 445, 111, 2049), is_configured=False)
LINUX = Kind("ups_clients", "linux", 30, (22, 80, 443, 3389), is_configured=True)
KINDS = {kind.group: kind for kind in (TRUENAS, LINUX)}

_Seconds = TypeVar("_Seconds", int, float)


class InventoryError(ValueError):
    """The inventory does not fit together; the message names the host, the variable and what to do."""


@dataclass(frozen=True)
class Secondary:
    """A secondary."""

    name: str
    kind: str  # the group of its Kind
    primary: str
    primary_address: str  # as its upsmon is told
    primary_port: int
    ups: str  # as its upsmon is told
    user: str
    begin_time: int  # seconds from FSD until it begins to shut down, at most
    shutdown_time: int  # seconds from there until it is down
    shutdown_limit: int  # seconds from there that the primary waits for it at most
    address: str  # where the primary can see whether it is up
    guest: dict[str, Any] | None  # {"kind": "qm" or "pct", "id": number}, if it is a guest of the primary


def list_secondaries(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """List the secondaries of an inventory.

    groups, hostvars: as Ansible has them. Used are the groups pve, truenas and ups_clients, of each secondary
    nut_client_primary, nut_client_ups, nut_client_user, nut_client_shutdown_time, nut_client_shutdown_limit, nut_client_address,
    nut_client_guest and, on Linux, nut_client_upsmon_conf, and of each primary nut_server_upsmon_user, nut_server_address,
    nut_server_port and nut_server_devices. Raises InventoryError.
    """
    primaries = list(groups.get(PRIMARIES, ()))
    for name in primaries:
        _check_user(name, "nut_server_upsmon_user", str(hostvars[name].get("nut_server_upsmon_user") or PRIMARY_USER))
    found: list[dict[str, Any]] = []
    for kind in KINDS.values():
        for name in groups.get(kind.group, ()):
            if name in primaries:
                raise InventoryError(
                    f"{name} is in group {PRIMARIES} and in group {kind.group}. A host is a primary or a secondary"
                )
            other = next((client["kind"] for client in found if client["name"] == name), "")
            if other:
                raise InventoryError(f"{name} is in group {other} and in group {kind.group}. It is one or the other")
            found.append(asdict(_make_secondary(name, kind, primaries, hostvars)))
    users: dict[tuple[str, str], str] = {}
    for client in found:
        other = users.setdefault((client["primary"], client["user"]), client["name"])
        if other != client["name"]:
            raise InventoryError(
                f"{other} and {client['name']} have the same user {client['user']}: set nut_client_user of one of them"
            )
    return found


def _check_user(host: str, variable: str, user: str) -> None:
    problem = grammar.find_user_problem(user)
    if problem:
        raise InventoryError(f"{host}: {variable} {user!r} can't be used: the user name {problem}")


def usual_limit(shutdown_time: _Seconds) -> _Seconds:
    """Return how many seconds a machine is waited for at most if nobody says so: half as long again, and 30 s more at least."""
    return shutdown_time + max(30, shutdown_time // 2)


def _make_secondary(
    name: str, kind: Kind, primaries: Sequence[str], hostvars: Mapping[str, Mapping[str, Any]]
) -> Secondary:
    own = hostvars[name]
    primary = own.get("nut_client_primary") or (primaries[0] if len(primaries) == 1 else "")
    if primary not in primaries:
        if not primaries:
            why = f"group {PRIMARIES} is empty; put the host with the UPS into it"
        elif primary:
            why = f"nut_client_primary is {primary}, and group {PRIMARIES} has {', '.join(primaries)}"
        else:
            why = f"group {PRIMARIES} has {', '.join(primaries)}; set nut_client_primary to one of them"
        raise InventoryError(f"{name} is a secondary without a primary: {why}")
    its = hostvars[primary]
    names = _list_ups_names(primary, its)
    ups = str(own.get("nut_client_ups") or names[0])
    if ups not in names:
        raise InventoryError(f"{name}: nut_client_ups is {ups}, and {primary} has {', '.join(names)}")
    user = str(own.get("nut_client_user") or re.sub(r"[^A-Za-z0-9._-]", "_", name))
    _check_user(name, "nut_client_user", user)
    # two sections of one name in upsd.users are one user to upsd, with one password
    if user == (its.get("nut_server_upsmon_user") or PRIMARY_USER):
        raise InventoryError(
            f"{name}: {primary} itself logs in as {user}: set another nut_client_user or nut_server_upsmon_user"
        )
    shutdown_time = _read_seconds(name, "nut_client_shutdown_time", own, kind.shutdown_time)
    shutdown_limit = _read_seconds(name, "nut_client_shutdown_limit", own, usual_limit(shutdown_time))
    if shutdown_limit < shutdown_time:
        raise InventoryError(
            f"{name}: nut_client_shutdown_limit is {shutdown_limit}, and nut_client_shutdown_time {shutdown_time}: the primary would not "
            "wait until it is down"
        )
    return Secondary(
        name=name,
        kind=kind.group,
        primary=primary,
        primary_address=find_primary_address(primary, its),
        primary_port=_read_port(primary, its),
        ups=ups,
        user=user,
        begin_time=_begin_time(name, own) if kind.is_configured else BEGIN_SECONDS,
        shutdown_time=shutdown_time,
        shutdown_limit=shutdown_limit,
        address=_find_ping_address(name, own),
        guest=_parse_guest(name, own.get("nut_client_guest")),
    )


def _find_ping_address(name: str, own: Mapping[str, Any]) -> str:
    """Return where the primary can see whether a secondary is up. Ansible's own way there may be a tunnel, which tells nothing."""
    host = str(own.get("ansible_host") or name)
    return str(
        own.get("nut_client_address") or (name if host in ("localhost", "::1") or host.startswith("127.") else host)
    )


def _parse_guest(name: str, given: Any) -> dict[str, Any] | None:
    if not given:
        return None
    kind, number = (given.get("kind"), str(given.get("id"))) if isinstance(given, Mapping) else (None, "")
    if kind not in ("qm", "pct") or not number.isdigit() or len(number) > 9 or set(given) != {"kind", "id"}:
        raise InventoryError(
            f"{name}: nut_client_guest must be such as {{kind: qm, id: 100}} for a virtual machine, or with pct for a container, not "
            f"{given!r}"
        )
    return {"kind": kind, "id": int(number)}


def _list_ups_names(primary: str, its: Mapping[str, Any]) -> list[str]:
    devices = its.get("nut_server_devices") or [{"name": "ups"}]
    if isinstance(devices, (str, Mapping)) or not all(isinstance(device, Mapping) for device in devices):
        raise InventoryError(f"{primary}: nut_server_devices must be a list of UPSes, each with a name")
    return [str(device.get("name")) for device in devices]


def _read_port(primary: str, its: Mapping[str, Any]) -> int:
    port = str(its.get("nut_server_port") or 3493)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InventoryError(f"{primary}: nut_server_port must be a number from 1 to 65535, not {port!r}")
    return int(port)


def find_primary_address(primary: str, its: Mapping[str, Any]) -> str:
    """Return under which address secondaries reach a primary: nut_server_address, else what Ansible itself uses."""
    found = str(its.get("nut_server_address") or its.get("ansible_host") or primary)
    if found in ("localhost", "::1") or found.startswith("127."):
        raise InventoryError(
            f"{primary}: secondaries can't reach it as {found}: set nut_server_address to its address on the network"
        )
    return f"[{found}]" if ":" in found and not found.startswith("[") else found


def upsd_access(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], primary: str, allow: Any = ()
) -> dict[str, Any]:
    """Work out who may connect to a primary's upsd, and where it listens if nobody says so.

    limited: whether anybody is refused. sources: name and address of each secondary, of each host that only watches one of its UPSes,
    and of what nut_server_allow has besides. listen: as nut_server_listen. Raises InventoryError.
    """
    try:
        given = parse_allow(allow)
        sources = [
            {"name": client["name"], "address": client["address"]}
            for client in list_secondaries(groups, hostvars)
            if client["primary"] == primary
        ]
        sources += _list_watchers(groups, hostvars, primary, {source["name"] for source in sources})
        for source in sources:
            source["address"] = parse_source(source["address"])
    except AccessError as error:
        raise InventoryError(f"{primary}: nut_server_allow, or the address of a secondary: {error}") from None
    sources += [{"name": source, "address": source} for source in given if source != ANY]
    limited = ANY not in given
    listen = _choose_listen(primary, hostvars[primary]) if sources or not limited else ["127.0.0.1"]
    return {"limited": limited, "sources": sources, "listen": [{"address": address} for address in listen]}


def _list_watchers(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Mapping[str, Any]], primary: str, known: Collection[str]
) -> list[dict[str, str]]:
    """Find the hosts whose nut_server_extra_monitors or nut_client_extra_monitors names a primary by one of its names."""
    its = hostvars[primary]
    names = {
        str(name).strip("[]") for name in (primary, its.get("nut_server_address"), its.get("ansible_host")) if name
    }
    found = []
    for group in (PRIMARIES, *(kind.group for kind in KINDS.values() if kind.is_configured)):
        for name in groups.get(group, ()):
            own = hostvars[name]
            lines = own.get("nut_server_extra_monitors" if group == PRIMARIES else "nut_client_extra_monitors") or ()
            hosts = {
                upsmon.Monitor(str(line.get("system")), 0, "", "", "").host
                for line in lines
                if isinstance(line, Mapping)
            }
            if name != primary and name not in known and hosts & names:
                found.append({"name": name, "address": _find_ping_address(name, own)})
    return found


def _choose_listen(primary: str, its: Mapping[str, Any]) -> list[str]:
    """Return loopback and the address at which others reach a primary, if that is plainly an address of its own; else all."""
    given = str(its.get("nut_server_address") or its.get("ansible_host") or primary).strip("[]")
    try:
        found = ipaddress.ip_address(given)
    except ValueError:
        return ["0.0.0.0"]
    if found.is_loopback or found.is_unspecified or found.is_link_local:
        return ["0.0.0.0"]
    # loopback first, as there is no host without
    return ["127.0.0.1", str(found)]


def _begin_time(name: str, own: Mapping[str, Any]) -> int:
    """Add up a Linux secondary's longest poll and its FINALDELAY, which come before its shutdown command."""
    variable = "nut_client_upsmon_conf"
    try:
        upsmon_conf = settings.merge_settings(own.get(variable), {}, "upsmon.conf", "nut_client")
    except settings.SettingsError as error:
        raise InventoryError(f"{name}: {error}") from None
    polls = [int(upsmon_conf.get(directive, POLL_SECONDS)) for directive in ("POLLFREQ", "POLLFREQALERT")]
    return max(polls) + int(upsmon_conf.get("FINALDELAY", FINAL_SECONDS))


def _read_seconds(name: str, variable: str, own: Mapping[str, Any], otherwise: int) -> int:
    value = own.get(variable)
    if value is None:
        return otherwise
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
    """Return what the plan of a shutdown (plan/planner.py) has to know of a site: machines, supplies, stages.

    secondaries: as `clients` lists them. devices: as nut_server_devices; of their keys those count that NUT itself goes by. stages:
    as nut_server_stages; whom they tell is no matter of the plan's.
    """
    machines: list[dict[str, Any]] = [{"name": primary, "role": "primary", "kind": PRIMARIES}]
    for secondary in secondaries:
        machine = {key: secondary[key] for key in ("name", "begin_time", "shutdown_time", "shutdown_limit")}
        # the name, too: storage of a NAS is often named by it, and may be on another of its addresses
        addresses = dict.fromkeys((secondary["address"].strip("[]"), secondary["name"]))
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
    # what the driver is told counts, whatever the UPS says of itself
    forced = {**(device.get("default") or {}), **(device.get("override") or {}), **(device.get("options") or {})}
    found: dict[str, Any] = {"name": device["name"]}
    for key, names in (
        ("runtime_low", ("override.battery.runtime.low", "battery.runtime.low")),
        ("charge_low", ("override.battery.charge.low", "battery.charge.low")),
        *(
            (key, (key,))
            for key in ("offdelay", "ondelay", "pollfreq", "pollinterval", "driver", "vendorid", "ignorelb")
        ),
    ):
        values = [given[name] for name in names for given in (forced, device) if given.get(name) not in (None, "")]
        # what is no number is a mistake in ups.conf, which is judged where that is made, by its file and line
        if values and (key in ("driver", "vendorid", "ignorelb") or _is_number(values[0])):
            found[key] = values[0]
    return found


def _is_number(value: object) -> bool:
    try:
        return float(str(value)) >= 0
    except ValueError:
        return False
