# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import model, observe
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import guests, selection
from ansible_collections.homelab.nut.plugins.modules import shutdown_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def test_stage_guest_may_be_machine_with_numeric_name() -> None:
    machine = model.PlanMachine("101", "guest", "qm")
    options = {
        "name": "s",
        "guests": [103, "101", "102"],
        "tags": [],
        "storage_of": [],
        "seconds": 7.0,
        "runtime": 9.0,
    }
    plan, chooses = observe.read_stage(options, [machine])
    assert plan == model.StagePlan("s", runtime=9, guests=("101",), seconds=7)
    assert chooses == selection.Selector(((103, None), (102, None)), (), (), 7)


@pytest.mark.parametrize(
    "wrong", [5, 10**9, "x1", True, -101, 1.5, None, {"id": 101, "second": 5}, {"seconds": 5}, {"id": 101, "seconds": "soon"},
              {"id": 101, "seconds": -1}, {"id": 101, "seconds": "inf"}, {"id": 101, "seconds": 10**400}, "\u0661\u0660\u0661", "9" * 5000],
)  # fmt: skip
def test_guest_without_valid_number_is_refused(wrong: Any) -> None:
    with pytest.raises(model.PlanError, match=r"stage s: .* is not a guest"):
        observe.read_guest(wrong, "s")


def test_guest_may_be_number_or_dictionary() -> None:
    assert observe.read_guest("101", "s") == (101, None)
    assert observe.read_guest({"id": "102", "seconds": "60"}, "s") == (102, 60)
    assert observe.read_guest({"id": 999_999_999, "seconds": 0}, "s") == (999_999_999, 0)


def write_proxmox(root: Path) -> Path:
    local = root / "etc/pve/local"
    (local / "qemu-server").mkdir(parents=True)
    (local / "lxc").mkdir()
    (local / "qemu-server/100.conf").write_text("name: nas\nonboot: 1\n")
    (local / "qemu-server/101.conf").write_text("name: web\nscsi0: shared:101/d.raw,size=8G\n")
    (local / "lxc/105.conf").write_text(
        "hostname: dns\nrootfs: local:105/d.raw,size=8G\nstartup: down=20\ntags: small\n"
    )
    (local / "lxc/106.conf").write_text("hostname: off\nrootfs: local:106/d.raw\n")
    (root / "etc/pve/storage.cfg").write_text(
        "nfs: shared\n\tserver 192.0.2.20\n\tpath /mnt/pve/shared\n\nzfspool: local\n\tpool x\n"
    )
    (root / "etc/fstab").write_text("")
    return root


def make_runner(*numbers: int) -> Callable[[Sequence[str]], tuple[int, str]]:
    def run(command: Sequence[str]) -> tuple[int, str]:
        if "qm" in command:
            return 0, "".join(f" {number} name running 512 8.00 77{number}\n" for number in numbers if number < 105)
        return 0, "".join(f"{number}  running  name\n" for number in numbers if number >= 105)

    return run


NAS = {"name": "nas", "role": "secondary", "kind": "truenas", "guest_id": 100, "address": ["192.0.2.20"]}
SITE = {
    "machines": [{"name": "pve", "role": "primary", "kind": "pve"}, NAS],
    "supplies": [{"runtime": 1500, "runtime_low": 480, "ignorelb": True}],
    "stages": [],
    "guests": True,
}


def parse_options(**given: Any) -> dict[str, Any]:
    """Return options as Ansible passes them to a module."""
    checked = ArgumentSpecValidator(shutdown_plan.build_spec()).validate(given)
    assert not checked.error_messages
    options: dict[str, Any] = checked.validated_parameters
    return options


def test_guests_of_host_are_planned(tmp_path: Path) -> None:
    stage = {"name": "nas", "runtime": 900, "storage_of": ["nas"], "seconds": 60, "fsd": True}
    options = parse_options(**{**SITE, "stages": [stage]})
    plan, asked_for = observe.plan_for_host(options, make_runner(100, 101, 105), write_proxmox(tmp_path))
    assert asked_for is False
    assert [(machine.name, machine.role, machine.shutdown_limit) for machine in plan.machines] == [
        ("pve", "primary", 90), ("nas", "secondary", 90), ("101 web", "guest", 72), ("105 dns", "guest", 32),
    ]  # fmt: skip
    web, dns = plan.guests
    assert (web.stage, web.seconds, web.needs) == ("nas", 60, ("nas",))
    assert web.why == "its disk is on storage shared, on 192.0.2.20"
    assert (dns.stage, dns.seconds, dns.why) == ("", 20, "")
    assert plan.needed["guests_time"] == 5 + 32 + 2
    assert plan.holds is True


def test_primary_without_proxmox_is_planned_as_a_plain_host(tmp_path: Path) -> None:
    plan, _asked_for = observe.plan_for_host(parse_options(**SITE), make_runner(), tmp_path)
    assert [(machine.name, machine.kind) for machine in plan.machines] == [("pve", "linux"), ("nas", "truenas")]
    assert plan.guests == ()
    plan, _asked_for = observe.plan_for_host(parse_options(**SITE), make_runner(), write_proxmox(tmp_path))
    assert plan.machines[0].kind == "pve"


def test_unreadable_guests_fail_only_if_required(tmp_path: Path) -> None:
    (tmp_path / "etc/pve").mkdir(parents=True)
    with pytest.raises(guests.GuestsError):
        observe.plan_for_host(parse_options(**SITE), make_runner(), tmp_path)
    plan, _asked = observe.plan_for_host(parse_options(**SITE, must_answer=False), make_runner(), tmp_path)
    (constraint,) = (constraint for constraint in plan.constraints if constraint.name == "guests_time")
    assert constraint.holds is None
    assert "etc/pve/local: start Proxmox" in constraint.reason
    assert plan.needed["guests_time"] == 180


def test_host_without_proxmox_has_no_guests(tmp_path: Path) -> None:
    plan, _asked = observe.plan_for_host(parse_options(**SITE), make_runner(), tmp_path)
    assert plan.needed["guests_time"] == 0
    assert plan.guests == ()
