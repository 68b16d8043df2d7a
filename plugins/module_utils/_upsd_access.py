# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Private to this collection: limit who may connect to this host's upsd, for the module upsd_access."""

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
    """The program nut-access and its table. A table that can't be loaded is only a warning."""

    def __init__(self, module: Module) -> None:
        super().__init__(module, kits.ACCESS)
        self.allowed: dict[str, list[str]] = {}
        self.table = ""  # the wanted table; "" if none
        self.table_problem = ""  # how the kernel's table differs from it
        self.loaded = False  # whether the kernel has the wanted table at the end

    def find_wanted(self) -> Mapping[str, str]:
        """Return the kit's files, including the table. Raises InstallError."""
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
        for warning in warnings:
            warn_with_host(self.module, warning)
        # upsd keeps its old port until the module config has changed it; if that fails, the old port must stay covered
        ports = {*params["ports"], *(find_ports() if params["ports"] else ())}
        self.table = access.render_table(ports, known)
        return self.table

    def make_plan(self, installation: Installation) -> InstallPlan:
        """Return the plan. Raises InstallError if it is not safe now."""
        loaded = access.read_table(self.runner)
        self.table_problem = "" if self.absent else access.find_difference(loaded, self.table)
        plan = self._add_table_steps(installation.plan_install())
        if kits.ACCESS_TABLE in plan.written_files:
            self._check_cut_offs(loaded)
        return plan

    def _add_table_steps(self, plan: InstallPlan) -> InstallPlan:
        """Add the steps for the kernel's table to a plan."""
        if self.absent:
            # stopping the unit removes the table, too
            if any("disable" in step.command for step in plan.before) or not self._is_loaded():
                return plan
            return replace(plan, before=(*plan.before, CommandStep(access.DELETE, "the limit is removed")))
        if self.table_problem and not any(map(_starts_unit, plan.after)):
            return replace(
                plan, after=(*plan.after, CommandStep(("systemctl", "restart", kits.ACCESS_UNIT), self.table_problem))
            )
        return plan

    def _is_loaded(self) -> bool:
        """Return whether the kernel has a table of this name, with any content."""
        return self.runner(access.LIST)[0] == 0

    def _check_cut_offs(self, loaded: access.LoadedTable | None) -> None:
        """Raise InstallError if the new table is not safe now; warn about other machines that it would cut off."""
        module, force = self.module, self.module.params["force"]
        states = ask_upsd()
        busy = snapshot.list_not_on_mains(states)
        # a secondary that is cut off on battery may shut down at once
        if busy and not module.check_mode and not force:
            raise InstallError(
                f"upsd on this host reports {', '.join(busy)}: not plainly on mains. A secondary that is cut off "
                "now may shut down at once, so nothing was changed. Run again when mains power is back. If you know that "
                "it is safe, run with force (nut_server_force)"
            )
        logged_in, connected = find_shut_out(self.table, loaded, states)
        if logged_in and not force:
            raise InstallError(
                f"{describe_logged_in(logged_in)}. Nothing was changed. To cut it off anyway, run with force (nut_server_force)"
            )
        if logged_in:
            warn_with_host(module, describe_logged_in(logged_in))
        for address in connected:
            warn_with_host(
                module,
                f"{address} is connected to upsd, but may not connect any more. If it is a machine of yours, such as a dashboard, "
                "add it to nut_server_allow",
            )

    def apply_plan(self, installation: Installation) -> None:
        """Apply the plan. Loading the table comes last, and may fail."""
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
            # the unit had failed at boot, and nut-access loaded the table later, so stopping the unit did not remove it
            left = InstallPlan(after=(CommandStep(access.DELETE, "the table is still loaded"),))
            installation.apply_plan(left)
            self.plan = replace(self.plan, after=(*self.plan.after, *left.after))
        if not self.absent and not self.table_problem:
            self.table_problem = access.find_difference(access.read_table(self.runner), self.table)

    def warn_about_outcome(self) -> None:
        """Warn if the table is not loaded."""
        self.loaded = not self.absent and not self.table_problem
        if self.absent or self.loaded or self.module.check_mode:
            return
        said = systemd.last_log_lines(kits.ACCESS_UNIT, self.runner)
        warn_with_host(
            self.module,
            "ACCESS TO UPSD IS NOT LIMITED on this host: its nftables table can't be loaded: "
            f"{self.table_problem.rstrip('.')}. {said.rstrip('.')}. Any machine that can connect can block upsd, without a login. "
            f"Check systemctl status {kits.ACCESS_UNIT}; or, to let every machine connect, set nut_server_allow: any",
        )

    def make_result(self) -> dict[str, Any]:
        """Return the module's result, see RETURN."""
        return {"allowed": self.allowed, "loaded": self.loaded, **super().make_result()}


def _starts_unit(step: CommandStep) -> bool:
    return bool({"start", "restart"} & set(step.command))


def read_file(path: Path) -> str:
    """Return the text of a file; "" if it does not exist."""
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def ask_upsd() -> tuple[snapshot.UpsState, ...]:
    """Return the state of the UPSes from this host's upsd; () if it does not answer."""
    host, port = upsd.local_upsd(read_file(_host.ROOT / "etc/nut/upsd.conf"))[0]
    try:
        with UpsdClient(host, port, timeout=5) as client:
            return snapshot.take_snapshot(client)
    except UpsdFailure:
        return ()


def find_ports() -> list[int]:
    """Return the ports in upsd's current configuration on this host."""
    listening = upsd.read_listen_lines(read_file(_host.ROOT / "etc/nut/upsd.conf"))
    return [port for _address, port in listening if 0 < port < 65536]


def find_shut_out(
    table: str, loaded: access.LoadedTable | None, states: Iterable[snapshot.UpsState]
) -> tuple[list[str], list[str]]:
    """Return the addresses that a table would cut off now: those logged in to upsd, and others that are connected."""
    peers, own = tcp_table.find_peers(_host.ROOT, access.parse_ports(table))
    clients = {normal_address(client) for state in states for client in state.clients}
    logged_in = {client for client in clients if is_address(client)} - own
    return access.find_shut_out(logged_in, table, loaded), access.find_shut_out(peers - logged_in, table, loaded)


def describe_logged_in(addresses: Sequence[str]) -> str:
    """Return what happens if machines with a logged-in upsmon are cut off, and the remedy."""
    return (
        f"{', '.join(addresses)} is logged in to upsd, but is not allowed to connect. If it were cut off, it would get no "
        "warning of a power cut and lose power while it is running (on battery, an upsmon of NUT 2.8.1 or 2.8.2 would shut it "
        "down at once). If it is a secondary in the inventory, set its nut_client_address to this address; "
        "otherwise add the address to nut_server_allow. To cut it off on purpose, stop its upsmon first"
    )
