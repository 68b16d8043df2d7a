# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Proxmox VE cluster: its other nodes, and whether HA's watchdog resets this node when it loses the quorum.

A node on which HA manages a guest, or did so in the last minutes, is reset a minute after it has lost the quorum, with its guests
running. So it can't wait until the other nodes are down. What helps is chosen by nut_server_gate.cluster, see WAYS. Sources: corosync
(exec/coroparse.c), pve-ha-manager (LRM.pm, CRM.pm, Manager.pm, Config.pm).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..base import files, jsontext
from ..base.cli import PrintText
from ..base.systemd import Run
from ..base.text import one_line, printable
from .guests import GuestsError, read_text
from .running import run_bounded

TOGETHER, DISARM = "together", "disarm"
WAYS = ("", TOGETHER, DISARM)
"""The values of nut_server_gate.cluster. TOGETHER: the gate does not wait for the other nodes, so that all go down at the same time.
DISARM: HA is disarmed during an outage."""

# the first release of pve-ha-manager that can be disarmed
DISARM_RELEASE = (5, 1, 3)
# until a request to HA has failed without a quorum
_HA_SECONDS = 30.0
_KEY = re.compile(r"([A-Za-z0-9_.]+)\s*:\s*(.*?)\s*")


@dataclass(frozen=True)
class Node:
    """Another node of the cluster."""

    name: str
    addresses: tuple[str, ...]  # addresses or names, one for each of corosync's links


@dataclass(frozen=True)
class Cluster:
    """The cluster of this node, as far as a shutdown is concerned."""

    nodes: tuple[Node, ...] = ()  # the others; () without a cluster
    is_ha_active: bool = False  # HA's local resource manager holds its lock, and with it the watchdog
    ha_release: str = ""  # of pve-ha-manager; "" if unknown

    @property
    def can_disarm(self) -> bool:
        """Return whether this release of HA can be disarmed."""
        numbers = tuple(int(number) for number in re.findall(r"[0-9]+", self.ha_release)[:3])
        return numbers >= DISARM_RELEASE


def read_cluster(root: Path = Path("/")) -> Cluster:
    """Return the cluster of this node. Raises GuestsError."""
    pve = root / "etc/pve"
    nodes = parse_nodes(read_text(pve / "corosync.conf"))
    if not nodes:
        return Cluster()
    own = _own_name(root)
    status = _parse_object(read_text(pve / "local/lrm_status"))
    return Cluster(
        tuple(node for node in nodes if node.name != own),
        status.get("state") in ("active", "lost_agent_lock"),
        _read_release(root, "pve-ha-manager"),
    )


@dataclass(frozen=True)
class Quorum:
    """The quorum of a cluster, as pmxcfs sees it."""

    is_there: bool
    online: int  # number of nodes, with this one
    offline: tuple[str, ...]  # names of nodes


def read_quorum(root: Path = Path("/")) -> Quorum | None:
    """Return the quorum; None without a cluster, or if pmxcfs does not run. Raises GuestsError.

    Source: pve-cluster (status.c, cfs_create_memberlist_msg).
    """
    members = _parse_object(read_text(root / "etc/pve/.members"))
    cluster, nodes = members.get("cluster"), members.get("nodelist")
    if not isinstance(cluster, Mapping) or not isinstance(nodes, Mapping):
        return None
    offline = [name for name, node in nodes.items() if not (isinstance(node, Mapping) and node.get("online"))]
    return Quorum(cluster.get("quorate") == 1, len(nodes) - len(offline), tuple(map(printable, offline)))


def parse_nodes(text: str) -> tuple[Node, ...]:
    """Return the nodes in a corosync.conf."""
    found: list[Node] = []
    sections: list[str] = []
    for line in (line.strip() for line in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if match := re.fullmatch(r"([A-Za-z0-9_.]+)\s*\{", line):
            sections.append(match.group(1))
            if sections == ["nodelist", "node"]:
                found.append(Node("", ()))
        elif line == "}":
            sections = sections[:-1]
        elif sections == ["nodelist", "node"] and (match := _KEY.fullmatch(line)):
            key, value = match.groups()
            if key == "name":
                found[-1] = replace(found[-1], name=printable(value))
            elif re.fullmatch(r"ring[0-7]_addr", key) and value:
                found[-1] = replace(found[-1], addresses=(*found[-1].addresses, value))
    # Proxmox VE always names its nodes; corosync itself falls back to the address
    return tuple(node if node.name else replace(node, name="".join(node.addresses[:1])) for node in found)


def _own_name(root: Path) -> str:
    try:
        return Path((root / "etc/pve/local").readlink()).name
    except OSError as error:
        raise GuestsError(
            f"can't read {root / 'etc/pve/local'}: {error.strerror}. Check systemctl status pve-cluster"
        ) from error


def _read_release(root: Path, package: str) -> str:
    """Return the release of an installed package; "" if it is unknown."""
    try:
        text = (root / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for block in text.split("\n\n"):
        if block.startswith(f"Package: {package}\n") and "\nStatus: install ok installed\n" in block:
            match = re.search(r"^Version: (?:[0-9]+:)?(\S+)$", block, re.MULTILINE)
            return printable(match.group(1)) if match else ""
    return ""


def _parse_object(text: str) -> Mapping[str, Any]:
    try:
        data = jsontext.parse_json(text or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, Mapping) else {}


# Disarming HA


@dataclass
class HaSwitch:
    """Disarms HA for an outage, and arms it again. The marker says, also after a boot, that it was this program that disarmed it."""

    run: Run
    marker: Path
    log: PrintText
    root: Path = Path("/")

    @property
    def is_ours(self) -> bool:
        """Return whether this program has disarmed HA."""
        return self.marker.exists()

    def disarm(self) -> bool:
        """Have HA ignore its guests and release its watchdogs, in the whole cluster. Return whether it takes the request, or has.

        Without a quorum it can't. HA that someone else has disarmed is left alone.
        """
        if not self.is_ours and self._is_disarmed():
            return True
        try:
            files.replace_private_file(self.marker, "HA is disarmed for an outage\n")
        except (OSError, files.WriteError) as error:
            self.log(
                f"can't write {self.marker}: {error}. Arm HA by hand after the outage: ha-manager crm-command arm-ha"
            )
        return self._tell("disarm-ha", "ignore")

    def arm(self) -> bool:
        """Have HA manage its guests again, if this program has disarmed it. Return whether there is nothing left to do."""
        if not self.is_ours:
            return True
        if not self._tell("arm-ha"):
            return False
        self.marker.unlink(missing_ok=True)
        return True

    def _is_disarmed(self) -> bool:
        try:
            return bool(_parse_object(read_text(self.root / "etc/pve/ha/manager_status")).get("disarm"))
        except GuestsError:
            return False

    def _tell(self, *words: str) -> bool:
        code, said = run_bounded(self.run, _HA_SECONDS, "ha-manager", "crm-command", *words)
        what = "disarmed" if words[0] == "disarm-ha" else "armed again"
        if code:
            self.log(f"HA can't be {what}: {one_line(said)[-200:] or f'exit code {code}'}")
            return False
        self.log(f"HA is being {what}")
        return True
