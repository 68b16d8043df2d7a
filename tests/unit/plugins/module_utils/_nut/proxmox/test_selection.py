# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox import guests, selection
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.guests import Guest, GuestsError, Mount, Storage
from ansible_collections.homelab.nut.plugins.module_utils._nut.proxmox.selection import (
    ChosenGuest,
    GuestFinder,
    LocalGuests,
    Selector,
)
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ADDRESSES = {"nas.lan": ("192.0.2.20",), "truenas": ("192.0.2.20", "2001:db8::20"), "other": ("192.0.2.30",)}

MAIL = Guest(101, "qm", "mail", tags=("nas", "web"), down=40)
FILMS = Guest(102, "pct", "films", storages=frozenset({"nfs"}))
BACKUP = Guest(103, "qm", "backup", tags=("NAS",), storages=frozenset({"nfs"}), paths=frozenset({"/srv/x"}))
ROUTER = Guest(104, "qm", "router", storages=frozenset({"local"}))
MODEL = Guest(105, "qm", "model", tags=("nas",), storages=frozenset({"nfs"}), template=True)
HERE = LocalGuests(
    (BACKUP, MAIL, MODEL, ROUTER, FILMS),
    {"nfs": Storage("nfs", "nfs", ("truenas",), "/mnt/pve/nfs"), "local": Storage("local", "dir", (), "/var/lib/vz")},
    (Mount("/", ""), Mount("/srv", "nas.lan")),
)


def resolve(name: str, seconds: float = 1.0) -> tuple[str, ...]:
    if name.replace(".", "").isdigit():
        return (name,)
    if name not in ADDRESSES:
        raise OSError(f"{name} is not known")
    return ADDRESSES[name]


def numbers(selector: Selector) -> list[int]:
    return [choice.guest.id for choice in selection.choose_guests(selector, HERE, resolve)]


# Who is chosen


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        (Selector(), []),
        (Selector(ids=((104, None), (101, 5.0))), [101, 104]),
        (Selector(ids=((999, None),)), []),
        (Selector(ids=((105, None),)), []),
        (Selector(tags=("nas",)), [101, 103]),
        (Selector(tags=("Web", "none")), [101]),
        (Selector(storage_of=("192.0.2.20",)), [102, 103]),
        (Selector(storage_of=("nas.lan",)), [102, 103]),
        (Selector(storage_of=("other", "192.0.2.99", "nobody.knows")), []),
        (Selector(((104, None),), ("web",), ("nas.lan",)), [101, 102, 103, 104]),
    ],
)
def test_selector_chooses_guests(selector: Selector, wanted: list[int]) -> None:
    assert numbers(selector) == wanted


def test_case_of_tags_matters_if_proxmox_says_so(tmp_path: Path) -> None:
    host(tmp_path)
    (tmp_path / "etc/pve/local/qemu-server/103.conf").write_text("tags: NAS\n")

    def chosen() -> list[int]:
        here = selection.read_local_guests(tmp_path)
        return [choice.guest.id for choice in selection.choose_guests(Selector(tags=("nas",)), here, resolve)]

    assert chosen() == [101, 103]
    (tmp_path / "etc/pve/datacenter.cfg").write_text("tag-style: case-sensitive=1\n")
    assert chosen() == [101]


def test_shutdown_seconds_of_each_guest() -> None:
    def seconds(selector: Selector) -> dict[int, float]:
        return {choice.guest.id: choice.seconds for choice in selection.choose_guests(selector, HERE, resolve)}

    # its own entry, else the selector's, else Proxmox's own, else what Proxmox gives those without
    assert seconds(Selector(((101, 5.0), (104, None)), ("nas",), (), 90.0)) == {101: 5.0, 103: 90.0, 104: 90.0}
    assert seconds(Selector(((101, None), (104, None)))) == {101: 40.0, 104: 180.0}
    assert seconds(Selector(tags=("nas",))) == {101: 40.0, 103: 180.0}
    # no time at all is a time
    assert seconds(Selector(((101, 0.0),), ("nas",), (), 9.0)) == {101: 0.0, 103: 9.0}
    assert seconds(Selector(tags=("web",), seconds=0.0)) == {101: 0.0}


def test_reasons_are_listed() -> None:
    found = selection.choose_guests(Selector(((103, None),), ("nas", "web"), ("nas.lan",)), HERE, resolve)
    assert {choice.guest.id: choice.why for choice in found} == {
        101: "it has the tag nas; it has the tag web",
        102: "its disk is on storage nfs, on truenas",
        103: "its number is listed; it has the tag nas; its disk is on storage nfs, on truenas; it uses /srv/x, on nas.lan",
    }
    assert found[0] == ChosenGuest(MAIL, 40.0, "it has the tag nas; it has the tag web")


def test_names_are_not_resolved_without_storage_selectors() -> None:
    def never(name: str) -> Any:
        raise AssertionError(name)

    assert len(selection.choose_guests(Selector(((101, None),), ("nas",)), HERE, never)) == 2


def test_unmatched_selectors_are_reported() -> None:
    whole = Selector(((101, None), (105, None), (999, 3.0)), ("nas", "none"), ("nas.lan", "other", "nobody.knows"))
    assert selection.list_missing_ids(whole, HERE) == (105, 999)
    assert selection.list_unmatched(whole, HERE, resolve) == (
        "no guest here has the number 105",
        "no guest here has the number 999",
        "no guest here has the tag none",
        "no guest here uses storage of other",
        "can't resolve nobody.knows, so can't tell which guests use its storage",
    )
    assert selection.list_unmatched(Selector(((104, None),), ("web",), ("truenas",)), HERE, resolve) == ()


def test_empty_selector_is_false() -> None:
    assert not Selector(seconds=9.0)
    assert not selection.NO_GUESTS
    assert [
        bool(selector) for selector in (Selector(((1, None),)), Selector(tags=("a",)), Selector(storage_of=("a",)))
    ] == [True] * 3


# What is here


def host(root: Path) -> None:
    for name in ("etc/pve/local/qemu-server", "etc/pve/local/lxc", "proc/self"):
        (root / name).mkdir(parents=True)
    (root / "etc/pve/local/qemu-server/101.conf").write_text("name: mail\ntags: nas\nscsi0: nfs:101/a.qcow2\n")
    (root / "etc/pve/local/lxc/102.conf").write_text("hostname: films\nmp0: /srv/films,mp=/films\n")
    (root / "etc/pve/storage.cfg").write_text("nfs: nfs\n\tserver truenas\n\tpath /mnt/pve/nfs\n")
    (root / "etc/fstab").write_text("nas.lan:/x /srv nfs defaults 0 0\n")
    (root / "proc/self/mounts").write_text("other:/y /opt nfs4 rw 0 0\n")


def test_local_guests_are_read(tmp_path: Path) -> None:
    assert selection.read_local_guests(tmp_path) == LocalGuests((), {}, ())
    host(tmp_path)
    here = selection.read_local_guests(tmp_path)
    assert [(guest.id, guest.kind, guest.name) for guest in here.guests] == [(101, "qm", "mail"), (102, "pct", "films")]
    assert here.storages == {
        "nfs": Storage("nfs", "nfs", ("truenas",), "/mnt/pve/nfs"),
        "local": Storage("local", "dir", (), "/var/lib/vz"),
    }
    assert here.mounts == (Mount("/srv", "nas.lan"), Mount("/opt", "other"))


def test_host_without_proxmox_reads_no_other_files(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fstab").write_text("nas.lan:/x /srv nfs defaults 0 0\n")
    assert selection.read_local_guests(tmp_path) == LocalGuests()


def test_unmounted_pmxcfs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "etc/pve").mkdir(parents=True)
    with pytest.raises(GuestsError, match="etc/pve/local: start Proxmox"):
        selection.read_local_guests(tmp_path)


# Names


def test_names_to_resolve_are_listed() -> None:
    asked = [Selector(storage_of=("b",)), Selector(tags=("x",)), Selector(storage_of=("a", "b"))]
    assert selection.list_names(asked, HERE) == ("a", "b", "nas.lan", "truenas")
    assert selection.list_names([Selector(tags=("x",))], HERE) == ()


def test_resolver_answers_from_results() -> None:
    asked: list[tuple[str, float]] = []

    def find_addresses(name: str, seconds: float) -> tuple[str, ...]:
        asked.append((name, seconds))
        if name == "odd":
            raise ValueError("label too long")
        return resolve(name)

    answer = selection.prepare_resolver(("nas.lan", "nobody", "odd"), find_addresses, 3.0)
    assert answer("nas.lan") == ("192.0.2.20",)
    assert sorted(asked) == [("nas.lan", 3.0), ("nobody", 3.0), ("odd", 3.0)]
    for name in ("nobody", "odd", "never.asked.for"):
        with pytest.raises(OSError, match=f"{name} has no address"):
            answer(name)


def test_names_are_resolved_at_the_same_time() -> None:
    both = threading.Barrier(3)

    def find_addresses(name: str, seconds: float) -> tuple[str, ...]:
        both.wait(60)
        return ("192.0.2.1",)

    answer = selection.prepare_resolver(("a", "b", "c"), find_addresses, 60.0)
    assert answer("a") == answer("b") == answer("c") == ("192.0.2.1",)


def test_name_resolution_has_a_time_limit() -> None:
    never, ended = threading.Event(), threading.Event()

    def find_addresses(name: str, seconds: float) -> tuple[str, ...]:
        never.wait(60)
        ended.set()
        return ("192.0.2.1",)

    answer = selection.prepare_resolver(("hangs",), find_addresses, 0.01)
    never.set()
    assert ended.wait(60)
    # what comes late is not taken: one look has one answer
    with pytest.raises(OSError, match="hangs has no address"):
        answer("hangs")


# What is found, and what is kept


STAGES = {"nas": Selector(((102, 60.0), (999, None)), ("nas",)), "late": Selector(storage_of=("truenas",), seconds=9.0)}


def finder(root: Path, stages: Mapping[str, Selector] | None = None) -> GuestFinder:
    return GuestFinder(STAGES if stages is None else stages, root / "lib/guests.json", lambda: resolve, root)


def plain(found: Mapping[str, Any]) -> dict[str, list[tuple[str, int, str, float, str]]]:
    return {
        name: [(choice.guest.kind, choice.guest.id, choice.guest.name, choice.seconds, choice.why) for choice in chosen]
        for name, chosen in found.items()
    }


FOUND = {
    "nas": [("qm", 101, "mail", 180.0, "it has the tag nas"), ("pct", 102, "films", 60.0, "its number is listed")],
    "late": [
        ("qm", 101, "mail", 9.0, "its disk is on storage nfs, on truenas"),
        ("pct", 102, "films", 9.0, "it uses /srv/films, on nas.lan"),
    ],
}


def test_guests_of_all_stages_are_found(tmp_path: Path) -> None:
    host(tmp_path)
    assert plain(finder(tmp_path).find_guests()) == FOUND
    found = finder(tmp_path).select_guests()
    assert plain(found.guests_by_stage) == FOUND
    assert [guest.id for guest in found.local.guests] == [101, 102]
    assert found.unmatched == ("stage nas: no guest here has the number 999",)


def test_each_search_has_a_new_resolver(tmp_path: Path) -> None:
    host(tmp_path)
    given: list[int] = []

    def fresh() -> Any:
        given.append(1)
        return resolve

    guest_finder = GuestFinder(STAGES, tmp_path / "g", fresh, tmp_path)
    guest_finder.find_guests()
    guest_finder.find_guests()
    assert len(given) == 2


def test_kept_guests_are_read_back(tmp_path: Path) -> None:
    host(tmp_path)
    guest_finder = finder(tmp_path)
    assert guest_finder.read_kept() == {}
    assert guest_finder.keep_guests(guest_finder.find_guests()) is True
    assert plain(guest_finder.read_kept()) == FOUND
    assert plain(finder(tmp_path).read_kept()) == FOUND
    path = tmp_path / "lib/guests.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_unchanged_guests_are_not_written(tmp_path: Path) -> None:
    host(tmp_path)
    guest_finder = finder(tmp_path)
    guest_finder.keep_guests(guest_finder.find_guests())
    before = (tmp_path / "lib/guests.json").stat().st_ino
    assert guest_finder.keep_guests(guest_finder.find_guests()) is False
    assert (tmp_path / "lib/guests.json").stat().st_ino == before
    assert guest_finder.keep_guests({}) is True
    assert guest_finder.read_kept() == {"nas": (), "late": ()}


def test_stage_with_changed_selector_has_no_kept_guests(tmp_path: Path) -> None:
    host(tmp_path)
    guest_finder = finder(tmp_path)
    guest_finder.keep_guests(guest_finder.find_guests())
    for other in (Selector(((102, 61.0), (999, None)), ("nas",)), Selector(((102, 60.0), (999, None)), ("nas", "x"))):
        assert plain(finder(tmp_path, {**STAGES, "nas": other, "new": Selector()}).read_kept()) == {
            "late": FOUND["late"]
        }
    other = Selector(storage_of=("truenas",), seconds=8.0)
    assert plain(finder(tmp_path, {**STAGES, "late": other}).read_kept()) == {"nas": FOUND["nas"]}
    other = Selector(storage_of=("nas.lan",), seconds=9.0)
    assert plain(finder(tmp_path, {**STAGES, "late": other}).read_kept()) == {"nas": FOUND["nas"]}


def test_failed_write_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lib").write_text("no folder")
    with pytest.raises(files.WriteError, match=r"guests\.json could not be written: "):
        finder(tmp_path).keep_guests({})


KEPT = {"kind": "qm", "id": 101, "name": "mail", "seconds": 9.0, "why": "w"}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "vm"},
        {"id": 99},
        {"id": True},
        {"id": 101.0},
        {"id": "101"},
        {"id": 10**9},
        {"name": None},
        {"seconds": -1},
        {"seconds": "9"},
        {"seconds": True},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"why": 3},
    ],
)
def test_damaged_file_is_ignored(tmp_path: Path, changes: dict[str, Any]) -> None:
    guest_finder = finder(tmp_path)
    guest_finder.keep_guests({})
    path = tmp_path / "lib/guests.json"
    data = json.loads(path.read_text())
    data["stages"]["nas"]["guests"] = [KEPT]
    path.write_text(json.dumps(data))
    assert plain(guest_finder.read_kept())["nas"] == [("qm", 101, "mail", 9.0, "w")]
    data["stages"]["nas"]["guests"] = [KEPT, {**KEPT, "id": 102, **changes}]
    path.write_text(json.dumps(data))
    assert guest_finder.read_kept() == {}
    del data["stages"]["nas"]["guests"][1]["why"]
    path.write_text(json.dumps(data))
    assert guest_finder.read_kept() == {}


def test_control_characters_in_kept_guests_are_escaped(tmp_path: Path) -> None:
    guest_finder = finder(tmp_path)
    guest_finder.keep_guests({"nas": [ChosenGuest(Guest(101, "qm", "a\x1b"), 3.0, "b\n")]})
    assert plain(guest_finder.read_kept())["nas"] == [("qm", 101, "a\\x1b", 3.0, "b\\n")]


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"version": 1}', '{"version": 2, "stages": {}}', "[" * 99999])
def test_invalid_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/guests.json").write_text(text)
    assert finder(tmp_path).read_kept() == {}


def test_file_of_another_version_is_ignored(tmp_path: Path) -> None:
    guest_finder = finder(tmp_path)
    guest_finder.keep_guests({})
    path = tmp_path / "lib/guests.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    assert guest_finder.read_kept() == {}


def test_fifo_instead_of_the_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    os.mkfifo(tmp_path / "lib/guests.json")
    came: list[Any] = []
    # the loop itself reads it, and nobody will ever write into it
    reading = threading.Thread(target=lambda: came.append(finder(tmp_path).read_kept()), daemon=True)
    reading.start()
    reading.join(30)
    assert came == [{}]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_any_json_is_ignored(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    root = tmp_path_factory.mktemp("kept")
    (root / "lib").mkdir()
    for whole in (value, {"version": 1, "stages": value}, {"version": 1, "stages": {"nas": value, "late": value}}):
        (root / "lib/guests.json").write_text(json.dumps(whole))
        assert finder(root).read_kept() == {}


@given(
    st.lists(st.sampled_from([101, 102, 103, 104, 105, 106]), unique=True),
    st.lists(st.sampled_from(["nas", "WEB", "none"]), unique=True),
    st.lists(st.sampled_from(["nas.lan", "192.0.2.20", "other", "nobody"]), unique=True),
    st.none() | st.floats(0, 900),
    st.permutations(HERE.guests),
)
def test_guests_are_unique_and_sorted(
    ids: list[int], tags: list[str], machines: list[str], seconds: float | None, order: list[Guest]
) -> None:
    selector = Selector(tuple((number, None) for number in ids), tuple(tags), tuple(machines), seconds)
    found = selection.choose_guests(selector, LocalGuests(tuple(order), HERE.storages, HERE.mounts), resolve)
    assert found == selection.choose_guests(selector, HERE, resolve)
    chosen = [choice.guest.id for choice in found]
    assert chosen == sorted(set(chosen))
    assert MODEL.id not in chosen
    assert {number for number in ids if number < 105} <= set(chosen)
    assert all(choice.why for choice in found)
    assert guests.DOWN_SECONDS == 180
