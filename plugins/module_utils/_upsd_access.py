# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: who may connect to this host's upsd, as the module upsd_access keeps it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _host
from ._command import warn_with_host
from ._nut.base import systemd, tcp_table
from ._nut.base.allow import AccessError
from ._nut.base.hostnames import is_address, normal_address, resolve_name
from ._nut.conf import upsd
from ._nut.deploy import kits
from ._nut.deploy.change import CommandStep
from ._nut.deploy.installation import Installation, InstallError, InstallPlan
from ._nut.net import access, snapshot
from ._nut.net.client import UpsdClient
from ._nut.net.errors import UpsdFailure
from ._service import Service

if TYPE_CHECKING:
    from ._module import Module


class AccessService(Service):
    """nut-access and its table. A table that can't be loaded is a warning, and all else is in place."""

    def __init__(self, module: Module) -> None:
        super().__init__(module, kits.ACCESS)
        self.allowed: dict[str, list[str]] = {}
        self.table = ""  # that should be; "" if none
        self.table_problem = ""  # how the kernel's table is not as it should be
        self.loaded = False  # whether it is; told of what has come to its end

    def find_wanted(self) -> Mapping[str, str]:
        """Return the kit's files, with the table of those who may connect. Raises InstallError."""
        try:
            return {kits.ACCESS_TABLE: self._make_table(), **super().find_wanted()}
        except AccessError as error:
            raise InstallError(str(error)) from None

    def _make_table(self) -> str:
        params = self.module.params
        sources = [access.make_source(source["name"], source["address"]) for source in params["sources"]]
        found, problems = access.resolve_sources(sources, resolve_name)
        known_before = access.parse_sources(read_file(_host.ROOT / kits.ACCESS.places[kits.ACCESS_TABLE].path))
        known, warnings = access.keep_known_addresses(found, problems, known_before)
        self.allowed = {source.name: list(those) for source, those in known.items()}
        for words in warnings:
            warn_with_host(self.module, words)
        # upsd keeps its port until the module config has changed it, and must not be open if that fails
        ports = {*params["ports"], *(find_ports() if params["ports"] else ())}
        self.table = access.render_table(ports, known)
        return self.table

    def make_plan(self, installation: Installation) -> InstallPlan:
        """Return what is to be done. Raises InstallError if it would do harm now."""
        loaded = access.read_table(self.runner)
        self.table_problem = "" if self.absent else access.find_difference(loaded, self.table)
        plan = self._add_table_steps(installation.plan_install())
        if kits.ACCESS_TABLE in plan.written_files:
            self._check_cut_offs(loaded)
        return plan

    def _add_table_steps(self, plan: InstallPlan) -> InstallPlan:
        """Add to a plan what the kernel's table needs."""
        if self.absent:
            # stopping the unit removes it, too, and then there is none
            if any("disable" in step.command for step in plan.before) or not self._is_loaded():
                return plan
            return replace(plan, before=(*plan.before, CommandStep(access.DELETE, "it is removed from this host")))
        if self.table_problem and not any(map(_starts_unit, plan.after)):
            return replace(
                plan, after=(*plan.after, CommandStep(("systemctl", "restart", kits.ACCESS_UNIT), self.table_problem))
            )
        return plan

    def _is_loaded(self) -> bool:
        """Return whether the kernel has a table of this name, whatever it holds."""
        return self.runner(access.LIST)[0] == 0

    def _check_cut_offs(self, loaded: access.LoadedTable | None) -> None:
        """Raise InstallError if a table that is new or changes would do harm now; warn of who is cut off besides."""
        module, force = self.module, self.module.params["force"]
        states = ask_upsd()
        busy = snapshot.list_not_on_mains(states)
        # one who is cut off on battery may shut down at once
        if busy and not module.check_mode and not force:
            raise InstallError(
                f"upsd on this host says that {', '.join(busy)}: not plainly on mains. A secondary that is cut off "
                "now may shut down at once, so nothing was changed. Run again when the mains are back, or with "
                "force if you know that it is safe"
            )
        logged_in, connected = find_shut_out(self.table, loaded, states)
        if logged_in and not force:
            raise InstallError(
                f"{describe_logged_in(logged_in)}. Nothing was changed. To cut it off all the same: force"
            )
        if logged_in:
            warn_with_host(module, describe_logged_in(logged_in))
        for address in connected:
            warn_with_host(
                module,
                f"{address} is connected to upsd now, and may no longer connect. If it is yours, such as a dashboard, add it to "
                "nut_server_allow",
            )

    def apply_plan(self, installation: Installation) -> None:
        """Do what was decided; what loads the table comes last, and may fail."""
        loading = tuple(filter(_starts_unit, self.plan.after))
        installation.apply_plan(
            replace(self.plan, after=tuple(step for step in self.plan.after if step not in loading))
        )
        try:
            installation.apply_plan(InstallPlan(after=loading))
            self.table_problem = ""
        except systemd.UnitError as error:
            self.table_problem = str(error)
        if self.absent and self._is_loaded():
            # its unit is gone: one that failed at boot, and that nut-access loaded later
            left = InstallPlan(after=(CommandStep(access.DELETE, "it is still loaded"),))
            installation.apply_plan(left)
            self.plan = replace(self.plan, after=(*self.plan.after, *left.after))
        if not self.absent and not self.table_problem:
            self.table_problem = access.find_difference(access.read_table(self.runner), self.table)

    def warn_about_outcome(self) -> None:
        """Warn, where the table is not loaded."""
        self.loaded = not self.absent and not self.table_problem
        if self.absent or self.loaded or self.module.check_mode:
            return
        said = systemd.last_log_lines(kits.ACCESS_UNIT, self.runner)
        warn_with_host(
            self.module,
            "ACCESS TO UPSD IS NOT LIMITED on this host, and blocking upsd takes no login: the table that "
            f"limits who may connect can't be loaded: {self.table_problem.rstrip('.')}. {said.rstrip('.')}. What to do: systemctl status "
            f"{kits.ACCESS_UNIT}; or, if everybody on the network may connect, nut_server_allow: any",
        )

    def make_result(self) -> dict[str, Any]:
        """Return what was done in the form that RETURN describes."""
        return {"allowed": self.allowed, "loaded": self.loaded, **super().make_result()}


def _starts_unit(step: CommandStep) -> bool:
    return bool({"start", "restart"} & set(step.command))


def read_file(path: Path) -> str:
    """Return the text of a file, "" if there is none."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def ask_upsd() -> tuple[snapshot.UpsState, ...]:
    """Return what this host's upsd says of its UPSes; () if it does not answer."""
    host, port = upsd.local_upsd(read_file(_host.ROOT / "etc/nut/upsd.conf"))[0]
    try:
        with UpsdClient(host, port, timeout=5) as client:
            return snapshot.take_snapshot(client)
    except UpsdFailure:
        return ()


def find_ports() -> list[int]:
    """Return the ports that upsd listens on by the configuration that is on the host now."""
    listening = upsd.read_listen_lines(read_file(_host.ROOT / "etc/nut/upsd.conf"))
    return [port for _address, port in listening if 0 < port < 65536]


def find_shut_out(
    table: str, loaded: access.LoadedTable | None, states: Iterable[snapshot.UpsState]
) -> tuple[list[str], list[str]]:
    """Return whom a table would cut off now: those who are logged in to upsd, and others who are connected."""
    peers, own = tcp_table.find_peers(_host.ROOT, access.parse_ports(table))
    clients = {normal_address(client) for state in states for client in state.clients}
    logged_in = {client for client in clients if is_address(client)} - own
    return access.find_shut_out(logged_in, table, loaded), access.find_shut_out(peers - logged_in, table, loaded)


def describe_logged_in(addresses: Sequence[str]) -> str:
    """Return what it means to cut off somebody whose upsmon is logged in, and the remedy."""
    return (
        f"{', '.join(addresses)} is logged in to upsd now, and not among those who may connect. Shut out, it would not hear of "
        "a power cut, and would lose its power while it runs (an upsmon of NUT 2.8.1 or 2.8.2 on battery would shut it down at "
        "once). If it is a secondary of the inventory, set nut_client_address of that host to this address; "
        "otherwise add the address to nut_server_allow. If it is to be cut off, stop its upsmon first"
    )
