# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan import placement
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.model import (
    Plan,
    PlanError,
    PlanMachine,
    StagePlan,
    Supply,
    Timing,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.placement import (
    GuestPlacement,
    ProxmoxHost,
    place_guests,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.plan.planner import make_plan
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import guests, selection
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import (
    Guest,
    GuestsError,
    HaSetup,
    Mount,
    Storage,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.selection import LocalGuests, Selector
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.turns import POLL_SECONDS
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PVE = PlanMachine("pve", "primary", "pve")
NAS = PlanMachine("nas", "secondary", "truenas", address=("192.0.2.20", "nas"))
SHARED, LOCAL = frozenset({"shared"}), frozenset({"local"})
WEB = Guest(101, "qm", "web", tags=("small",), onboot=True, storages=SHARED)
DNS = Guest(102, "pct", "dns", onboot=True, down=20, storages=LOCAL)
OLD = Guest(103, "qm", "old", storages=SHARED)
TEMPLATE = Guest(104, "qm", "template", onboot=True, template=True)
STORAGES = {"shared": Storage("shared", "nfs", ("192.0.2.20",)), "local": Storage("local", "zfspool")}
HERE = LocalGuests((WEB, DNS, OLD, TEMPLATE), STORAGES, (Mount("/", ""),))
HOST = ProxmoxHost(HERE, frozenset({101}), workers=4)
STAGE = StagePlan("stage", runtime=900)
# stopping by force, and one poll
FORCE = 12


def fail_to_resolve(name: str) -> Sequence[str]:
    raise OSError(name)


def place_on(
    host: ProxmoxHost = HOST,
    selectors: dict[str, Selector] | None = None,
    machines: Sequence[PlanMachine] = (PVE, NAS),
    stages: Sequence[StagePlan] = (STAGE,),
) -> GuestPlacement:
    return place_guests(machines, stages, selectors or {}, host, fail_to_resolve)


def plan_for(placed: GuestPlacement) -> Plan:
    """Make a plan of a placement."""
    supply = Supply(runtime=5000, runtime_low=2000, ignorelb=True)
    return make_plan(placed.machines, [supply], Timing(), placed.stages, placed.proxmox)


def with_guests(*found: Guest, **changes: Any) -> ProxmoxHost:
    return replace(HOST, here=replace(HERE, guests=found), running=frozenset(guest.id for guest in found), **changes)


# --- which guests are planned, and their names


def test_running_and_boot_guests_are_planned() -> None:
    def names(host: ProxmoxHost, ids: tuple[int, ...] = ()) -> list[str]:
        placed = place_on(host, {"stage": Selector(tuple((number, None) for number in ids))})
        return [machine.name for machine in placed.machines if machine.role == "guest"]

    assert names(HOST) == ["101 web", "102 dns"]
    assert names(replace(HOST, running=frozenset({103, 104}))) == ["101 web", "102 dns", "103 old"]
    assert names(replace(HOST, running=None)) == ["101 web", "102 dns", "103 old"]
    assert names(HOST, (103, 104)) == ["101 web", "102 dns", "103 old"]
    assert names(ProxmoxHost()) == []


def test_guest_becomes_machine() -> None:
    placed = place_on()
    assert placed.machines == (
        PVE,
        NAS,
        PlanMachine("101 web", "guest", "qm", 0, 30, 180 + FORCE, ("nas",), 101),
        PlanMachine("102 dns", "guest", "pct", 0, 30, 20 + FORCE, (), 102),
    )
    web, dns = placed.proxmox.guests
    assert (web.machine, web.id, web.kind, web.name, web.stage, web.seconds, web.ha) == (
        "101 web", 101, "qm", "web", "", 180, False,
    )  # fmt: skip
    assert (web.why, web.needs) == ("its disk is on storage shared, on 192.0.2.20", ("nas",))
    assert (dns.seconds, dns.why, dns.needs) == (20, "", ())
    assert placed.stages == (STAGE,)
    assert plan_for(placed).guests == placed.proxmox.guests


def test_guest_names_are_unique() -> None:
    host = with_guests(replace(WEB, name=""), replace(DNS, name=""), replace(OLD, name="x"))
    machines = (PVE, PlanMachine("103 x", "secondary", "linux"), PlanMachine("103 x (qm)", "secondary", "linux"))
    assert [machine.name for machine in place_on(host, machines=machines).machines[3:]] == [
        "VM 101", "container 102", "103 x (qm) (qm)",
    ]  # fmt: skip
    plan_for(place_on(host, machines=machines))


def test_listed_guest_keeps_name_and_times() -> None:
    known = PlanMachine("web", "guest", "qm", shutdown_time=11, shutdown_limit=33, needs=("pve",), guest_id=101)
    late = PlanMachine("late", "guest", "qm", guest_id=103)
    free = PlanMachine("free", "guest", "qm")
    placed = place_on(machines=(PVE, known, NAS, late, free))
    assert [machine.name for machine in placed.machines] == ["pve", "web", "nas", "late", "free", "102 dns"]
    assert placed.machines[1] == replace(known, needs=("pve", "nas"))
    assert [(guest.machine, guest.name, guest.seconds) for guest in placed.proxmox.guests] == [
        ("web", "web", 33), ("102 dns", "dns", 20), ("late", "old", 90),
    ]  # fmt: skip
    # limits 33, 32 and 90 s, all stopped at once
    assert (placed.proxmox.stop_limit, placed.proxmox.stop_time) == (5 + 90 + 2, 5 + 60 + 2)
    chosen = place_on(selectors={"stage": Selector(((101, 5.0),))}, machines=(PVE, NAS, known))
    assert chosen.stages[0].guests == ("web",)
    assert chosen.proxmox.guests[0].seconds == 33
    # a stage may also list the guest by name
    by_name = place_on(machines=(PVE, NAS, known), stages=(replace(STAGE, guests=("web",)),))
    assert (by_name.proxmox.stop_limit, by_name.stages[0].guests) == (5 + 32 + 2, ("web",))
    assert plan_for(by_name).guests[0].stage == "stage"


def test_secondary_on_host_is_not_planned_as_guest() -> None:
    """It goes down by itself at FSD, and the gate waits for it."""
    host = with_guests(Guest(100, "qm", "truenas", onboot=True), DNS)
    machines = (PVE, replace(NAS, guest_id=100))
    placed = place_on(host, machines=machines)
    assert [machine.name for machine in placed.machines] == ["pve", "nas", "102 dns"]
    assert placed.proxmox.stop_limit == 5 + 32 + 2
    assert placed.proxmox.remarks == ()


def test_guest_number_used_twice_is_refused() -> None:
    with pytest.raises(PlanError, match="b: guest_id 101 is also that of a"):
        place_on(
            machines=(
                PVE,
                PlanMachine("a", "guest", "qm", guest_id=101),
                PlanMachine("b", "secondary", "linux", guest_id=101),
            )
        )


# --- what the stages select


def test_stage_selects_guests_by_number_and_storage() -> None:
    selectors = {"stage": Selector(((101, 50.0),), ("nothing",), ("192.0.2.20",), 70)}
    placed = place_on(replace(HOST, running=frozenset({103})), selectors)
    assert placed.stages == (replace(STAGE, guests=("101 web", "103 old")),)
    web, dns, old = placed.proxmox.guests
    assert (web.stage, web.seconds) == ("stage", 50)
    assert web.why == "its number is listed; its disk is on storage shared, on 192.0.2.20"
    assert (old.stage, old.seconds) == ("stage", 70)
    assert dns.stage == ""
    assert [machine.shutdown_limit for machine in placed.machines[2:]] == [50 + FORCE, 20 + FORCE, 70 + FORCE]
    assert [machine.shutdown_time for machine in placed.machines[2:]] == [30, 30, 30]
    # Proxmox need not stop guests that a stage has stopped
    assert placed.proxmox.stop_limit == 5 + 32 + 2
    assert placed.proxmox.remarks == ()
    assert plan_for(placed).feasible is True


def test_stage_ignores_guest_that_is_off() -> None:
    placed = place_on(selectors={"stage": Selector(storage_of=("192.0.2.20",))})
    assert placed.stages[0].guests == ("101 web",)


def test_first_stage_that_selects_guest_stops_guest() -> None:
    stages = (replace(STAGE, guests=("own",)), replace(STAGE, name="second"), replace(STAGE, name="third"))
    selectors = {"second": Selector(tags=("SMALL",), seconds=7), "third": Selector(((101, 9.0), (102, 9.0)))}
    own = PlanMachine("own", "guest", "qm")
    placed = place_on(selectors=selectors, stages=stages, machines=(PVE, NAS, own))
    assert [stage.guests for stage in placed.stages] == [("own",), ("101 web",), ("102 dns",)]
    assert [(guest.stage, guest.seconds, guest.why) for guest in placed.proxmox.guests] == [
        ("second", 7, "it has the tag SMALL"), ("third", 9, "its number is listed"),
    ]  # fmt: skip
    assert placed.proxmox.stop_limit == 0


def test_stage_that_selects_secondary_is_reported() -> None:
    host = with_guests(Guest(100, "qm", "truenas", tags=("nas",)), DNS)
    placed = place_on(host, {"stage": Selector(tags=("nas",))}, (PVE, replace(NAS, guest_id=100)))
    (remark,) = placed.proxmox.remarks
    assert (remark.name, remark.about, remark.holds) == ("stage stage", "nas", False)
    assert (
        remark.reason
        == "stage stage would stop VM 100 (truenas) before FSD (it has the tag nas), but this is the secondary nas"
    )
    assert remark.remedy == "exclude 100 from stage stage: nas goes down by itself at FSD"
    assert placed.stages == (STAGE,)
    assert (plan_for(placed).holds, plan_for(placed).feasible) == (False, True)


def test_number_without_guest_is_reported() -> None:
    placed = place_on(
        selectors={"stage": Selector(((101, None), (104, None), (777, None)))}, stages=(replace(STAGE, runtime=4000),)
    )
    assert [(remark.name, remark.about, remark.holds) for remark in placed.proxmox.remarks] == [
        ("stage stage", "104", None), ("stage stage", "777", None),
    ]  # fmt: skip
    assert "stage stage lists guest 777" in placed.proxmox.remarks[1].reason
    assert (plan_for(placed).holds, plan_for(placed).feasible) == (None, True)


def test_machine_names_in_selector_become_addresses() -> None:
    selector = Selector(((101, None),), ("a",), ("nas", "pve", "192.0.2.9", "192.0.2.20"), 5)
    assert placement.with_addresses(selector, (PVE, NAS)) == replace(
        selector, storage_of=("192.0.2.20", "nas", "pve", "192.0.2.9")
    )


def test_guest_with_script_on_nas_needs_nas() -> None:
    script = replace(DNS, scripts=frozenset({"shared:snippets/x.pl"}))
    placed = place_on(with_guests(script))
    (row,) = placed.proxmox.guests
    assert (row.why, row.needs) == ("its script shared:snippets/x.pl is on 192.0.2.20", ("nas",))
    placed = place_on(with_guests(script), {"stage": Selector(storage_of=("192.0.2.20",))})
    assert placed.stages[0].guests == ("102 dns",)


def test_guest_may_need_two_machines() -> None:
    storages = {**STORAGES, "more": Storage("more", "nfs", ("192.0.2.30",))}
    web = replace(WEB, storages=frozenset({"shared", "more"}))
    host = replace(HOST, here=replace(HERE, guests=(web,), storages=storages))
    second = PlanMachine("second", "secondary", "linux", address=("192.0.2.30",))
    deaf = PlanMachine("deaf", "secondary", "linux")
    placed = place_on(host, machines=(PVE, replace(PVE, name="p", address=("192.0.2.30",)), NAS, second, deaf))
    assert placed.machines[-1].needs == ("nas", "second")
    assert placed.proxmox.guests[0].why == (
        "its disk is on storage shared, on 192.0.2.20; its disk is on storage more, on 192.0.2.30"
    )
    hangs = [constraint for constraint in plan_for(place_on()).constraints if constraint.name == "storage"]
    assert [(constraint.about, constraint.holds, constraint.remedy) for constraint in hangs] == [
        ("101 web", False, "add storage_of: [nas] to a stage of nut_server_stages")
    ]
    assert plan_for(place_on()).feasible is True


def test_proposed_stage_makes_plan_hold() -> None:
    without = place_on(with_guests(WEB, DNS, OLD), stages=())
    words = {constraint.remedy for constraint in plan_for(without).constraints if constraint.name == "storage"}
    # low battery at 2000 s, noticed up to 35 s late, and 192 s for web
    assert words == {"add {name: guests, runtime: 2227, storage_of: [nas], fsd: true} to nut_server_stages"}
    stage = StagePlan("guests", runtime=2227, fsd=True)
    selector = placement.with_addresses(Selector(storage_of=("nas",)), without.machines)
    assert plan_for(place_on(with_guests(WEB, DNS, OLD), {"guests": selector}, stages=(stage,))).holds is True


# --- how long Proxmox and HA take for the others


def seconds(placed: GuestPlacement) -> tuple[float | None, float | None]:
    return placed.proxmox.stop_limit, placed.proxmox.stop_time


def test_time_of_proxmox_to_stop_guests() -> None:
    # 5 s until Proxmox begins, and 2 s after each guest
    assert seconds(place_on()) == (5 + 192 + 2, 5 + 30 + 2)
    # one after the other
    assert seconds(place_on(replace(HOST, workers=1))) == (5 + 32 + 2 + 192 + 2, 5 + 30 + 2 + 30 + 2)
    # one startup order after the other
    assert seconds(place_on(with_guests(replace(WEB, order=1), DNS))) == (5 + 32 + 2 + 192 + 2, 5 + 30 + 2 + 30 + 2)
    assert seconds(place_on(ProxmoxHost())) == (0, 0)
    known = PlanMachine("web", "guest", "qm", shutdown_time=20.5, shutdown_limit=30.5, guest_id=101)
    assert seconds(place_on(with_guests(WEB), machines=(PVE, NAS, known))) == (5 + 31 + 2, 5 + 21 + 2)
    assert seconds(place_on(with_guests(replace(WEB, down=0)))) == (5 + 12 + 2, 5 + 12 + 2)


def test_time_of_ha_to_stop_guests() -> None:
    ha = HaSetup("freeze", frozenset({101, 900}), ("HA manages 2 guests",))
    placed = place_on(with_guests(replace(WEB, down=300), DNS, OLD, ha=ha, ha_workers=2))
    # first Proxmox's own guests, all at once; then HA's, which always have 60 s, and 20 s until HA acts
    assert seconds(placed) == (199 + 72 + 20, 37 + 30 + 20)
    assert placed.proxmox.turns == {"101 web": (37, 199), "102 dns": (5, 5), "103 old": (5, 5)}
    web, dns, _old = placed.proxmox.guests
    assert (web.seconds, web.ha, dns.ha) == (60, True, False)
    both = place_on(
        with_guests(replace(WEB, order=1), DNS, ha=replace(ha, managed=frozenset({101, 102})), ha_workers=2)
    )
    assert seconds(both) == (5 + 72 + 20, 5 + 30 + 20)
    one_by_one = place_on(with_guests(WEB, DNS, ha=replace(ha, managed=frozenset({101, 102})), ha_workers=1))
    assert seconds(one_by_one) == (5 + 144 + 20, 5 + 60 + 20)
    # a guest that a stage has stopped takes no time
    staged = place_on(with_guests(WEB, DNS, ha=ha), {"stage": Selector(((101, None),))})
    assert seconds(staged) == (5 + 32 + 2, 5 + 30 + 2)
    assert (placed.proxmox.ha, placed.proxmox.migrates) == (("HA manages 2 guests",), False)


def test_guests_are_stopped_by_startup_order() -> None:
    found = with_guests(replace(WEB, order=1), replace(DNS, order=2), OLD, workers=2)
    placed = place_on(found)
    # guests without an order first, then from the highest order down
    assert placed.proxmox.turns == {"103 old": (5, 5), "102 dns": (37, 199), "101 web": (69, 233)}
    events = {event.machine: (event.at, event.until) for event in plan_for(placed).worst if event.what == "goes down"}
    begin = plan_for(placed).time_of("power off", worst=True) or 0
    assert events["103 old"] == (begin + 5, begin + 197)
    assert events["102 dns"] == (begin + 199, begin + 231)
    assert events["101 web"] == (begin + 233, begin + 233 + 192)
    # no guest outlives a guests_time that is too short
    short = make_plan(placed.machines, [Supply()], Timing(guests_time=200), placed.stages, placed.proxmox)
    cut = {event.machine: (event.at - begin, event.until - begin) for event in short.worst if event.what == "goes down"}
    assert (cut["102 dns"], cut["101 web"]) == ((199, 200), (200, 200))


@given(
    st.lists(st.tuples(st.none() | st.integers(0, 3), st.integers(0, 90)), max_size=12),
    st.integers(1, 4),
)
def test_last_turn_ends_with_stop_limit(drawn: list[tuple[int | None, int]], workers: int) -> None:
    found = [Guest(100 + place, "qm", order=order, down=down) for place, (order, down) in enumerate(drawn)]
    placed = place_on(with_guests(*found, workers=workers))
    ends = [
        placed.proxmox.turns[machine.name][1] + machine.shutdown_limit
        for machine in placed.machines
        if machine.role == "guest"
    ]
    assert placed.proxmox.stop_limit == (max(ends) + POLL_SECONDS if ends else 0)


@pytest.mark.parametrize(
    ("policy", "managed", "migrates"),
    [("migrate", {101}, True), ("freeze", {101}, False), ("conditional", {101}, False), ("migrate", set(), False)],
)
def test_only_migrating_ha_makes_plan_infeasible(policy: str, managed: set[int], migrates: bool) -> None:
    words = ("words",) if managed else ()
    placed = place_on(replace(HOST, ha=HaSetup(policy, frozenset(managed), words)))
    assert placed.proxmox.migrates is migrates
    assert plan_for(placed).feasible is not migrates


# --- on a host


def proxmox(root: Path, datacenter: str = "") -> Path:
    local = root / "etc/pve/local"
    (local / "qemu-server").mkdir(parents=True)
    (local / "lxc").mkdir()
    (local / "qemu-server/101.conf").write_text("name: web\nonboot: 1\nscsi0: shared:101/d.raw,size=8G\n")
    (root / "etc/pve/storage.cfg").write_text("nfs: shared\n\tserver 192.0.2.20\n")
    (root / "etc/pve/datacenter.cfg").write_text(datacenter)
    (root / "etc/pve/ha").mkdir()
    (root / "etc/pve/ha/resources.cfg").write_text("vm: 101\n\tstate started\n")
    return root


def run_quietly(command: Sequence[str]) -> tuple[int, str]:
    return 0, "  101 web running 512 8.00 4711\n" if "qm" in command else ""


def test_host_is_observed(tmp_path: Path) -> None:
    found = placement.observe_host(run_quietly, proxmox(tmp_path), cpus=6)
    assert [guest.id for guest in found.here.guests] == [101]
    assert found.here.storages["shared"].servers == ("192.0.2.20",)
    assert found.running == frozenset({101})
    assert found.ha.managed == frozenset({101})
    assert (found.workers, found.ha_workers) == (5, 4)


@pytest.mark.parametrize(("release", "workers"), [("8.4.21", 6), ("9.1.1", 6), ("9.1.2", 5), ("10.0.1", 5)])
def test_workers_depend_on_release_of_pve_manager(tmp_path: Path, release: str, workers: int) -> None:
    module = tmp_path / "usr/share/perl5/PVE/pvecfg.pm"
    module.parent.mkdir(parents=True)
    module.write_text(f"package PVE::pvecfg;\n\nsub version {{\n    return '{release}';\n}}\n")
    assert placement.observe_host(run_quietly, proxmox(tmp_path), cpus=6).workers == workers


def test_max_workers_of_datacenter_cfg_is_read(tmp_path: Path) -> None:
    found = placement.observe_host(lambda _command: (1, "no"), proxmox(tmp_path, "max_workers: 2\n"))
    assert (found.workers, found.ha_workers) == (2, 2)
    assert found.running is None


def test_host_without_proxmox_is_empty(tmp_path: Path) -> None:
    def run(_command: Sequence[str]) -> tuple[int, str]:
        raise AssertionError("no program may run")

    found = placement.observe_host(run, tmp_path, cpus=2)
    assert found == ProxmoxHost(workers=1)


def test_unreadable_host_raises_guests_error(tmp_path: Path) -> None:
    (tmp_path / "etc/pve").mkdir(parents=True)
    with pytest.raises(GuestsError, match="etc/pve/local: start Proxmox"):
        placement.observe_host(run_quietly, tmp_path)


def test_hanging_cluster_file_system_raises_guests_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(_root: Path) -> LocalGuests:
        release.wait(60)
        return LocalGuests()

    monkeypatch.setattr(selection, "read_local_guests", hang)
    try:
        with pytest.raises(GuestsError, match=r"etc/pve did not answer within 0\.05 s"):
            placement.observe_host(run_quietly, tmp_path, patience=0.05)
    finally:
        release.set()


def test_names_are_resolved_in_parallel() -> None:
    asked: list[str] = []

    def resolve(name: str, seconds: float) -> tuple[str, ...]:
        assert seconds == placement.NAME_SECONDS
        asked.append(name)
        return ("192.0.2.20",) if name == "filer" else ()

    by_name = replace(HERE, storages={"shared": Storage("shared", "nfs", ("filer",))})
    host = replace(HOST, here=by_name)
    found = placement.look_up_names((PVE, NAS), [Selector(storage_of=("other",))], host, resolve)
    assert sorted(asked) == ["filer", "nas", "other"]
    assert found("filer") == ("192.0.2.20",)
    with pytest.raises(OSError, match="nas"):
        found("nas")
    placed = place_guests((PVE, NAS), (), {}, host, found)
    assert placed.machines[2].needs == ("nas",)


def test_force_seconds_match_library() -> None:
    assert guests.FORCE_SECONDS + 1 == FORCE


# --- guests that wait for their storage after a boot


@pytest.mark.parametrize(
    ("guest", "ha", "late"),
    [
        (WEB, frozenset(), ("101 web",)),
        (DNS, frozenset(), ()),
        (OLD, frozenset(), ()),
        (TEMPLATE, frozenset(), ()),
        (WEB, frozenset({101}), ()),
    ],
    ids=["on the NAS", "on this host", "not at boot", "template", "of HA"],
)
def test_guest_waits_for_its_storage_if_it_starts_at_boot(
    guest: Guest, ha: frozenset[int], late: tuple[str, ...]
) -> None:
    placed = place_on(with_guests(guest, ha=HaSetup(managed=ha)))
    assert placed.proxmox.late == late
    named = [constraint.reason for constraint in plan_for(placed).constraints if constraint.name == "start"]
    assert [reason.partition(":")[0] for reason in named] == list(late)
