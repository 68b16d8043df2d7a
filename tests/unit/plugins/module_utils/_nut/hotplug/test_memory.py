# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import files, records
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug import memory
from ansible_collections.homelab.nut.plugins.module_utils._nut.hotplug.memory import (
    HistoryEntry,
    HotplugState,
    Plugging,
    Tries,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.fingerprint import Fingerprint
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

FULL = HotplugState(
    boot="b1",
    identities={"ups": Fingerprint("051d", "0002", "5B1234T56789", "pci-0000:00:14.0-usb-0:1")},
    written={"ups": "[ups]\n"},
    intended={"rack": "[rack]\n"},
    plugged={"ups": Plugging(1, 4, 12.5)},
    silent_since={"rack": 20.0},
    tries={"ups": Tries(2, 30.0, None), "rack": Tries(1, 5.0, 6.0)},
    last_status={"ups": ("OL", "CHRG")},
    deferred={"restart ups waits": 1000.0},
    remarks_made=("a remark",),
    scanned=("1234:5678 1 4",),
    bus="0000abcd",
    history=(HistoryEntry(1000.0, "ups", "restart nut-driver@ups.service", "it hangs"),),
)

# including surrogates, for invalid UTF-8 in a device's texts
texts = st.text(st.characters(), max_size=30)
times = st.floats(-9e9, 9e9)
hexes = st.text("0123456789abcdef", min_size=4, max_size=4)
prints = st.builds(Fingerprint, hexes, hexes, st.text("ABC123", max_size=9), st.text("abc:-.0", max_size=9))
counts = st.integers(0, 1_000_000)
states = st.builds(
    HotplugState,
    boot=texts,
    identities=st.dictionaries(texts, prints, max_size=3),
    written=st.dictionaries(texts, texts, max_size=3),
    intended=st.dictionaries(texts, texts, max_size=3),
    plugged=st.dictionaries(texts, st.builds(Plugging, counts, counts, times), max_size=3),
    silent_since=st.dictionaries(texts, times, max_size=3),
    tries=st.dictionaries(texts, st.builds(Tries, counts, times, st.none() | times), max_size=3),
    last_status=st.dictionaries(texts, st.lists(texts, max_size=3).map(tuple), max_size=3),
    deferred=st.dictionaries(texts, times, max_size=3),
    remarks_made=st.lists(texts, max_size=3).map(tuple),
    scanned=st.lists(texts, max_size=3).map(tuple),
    bus=texts,
    history=st.lists(st.builds(HistoryEntry, times, texts, texts, texts), max_size=3).map(tuple),
)
nonsense = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(states)
def test_saved_state_is_loaded(tmp_path_factory: pytest.TempPathFactory, state: HotplugState) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    memory.save_state(path, state)
    assert memory.load_state(path) == state


def test_state_is_readable_only_by_root(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    memory.save_state(path, FULL)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert memory.load_state(path) == FULL
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folder_gives_empty_state(tmp_path: Path) -> None:
    with pytest.raises(files.WriteError, match=r"state\.json"):
        memory.save_state(tmp_path / "no" / "state.json", FULL)


def test_missing_file_gives_empty_state(tmp_path: Path) -> None:
    assert memory.load_state(tmp_path / "state.json") == HotplugState()


def test_truncated_file_gives_empty_state(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    whole = records.dump_record(FULL, memory.VERSION).encode("ascii")
    for length in range(len(whole) - 2):
        path.write_bytes(whole[:length])
        assert memory.load_state(path) == HotplugState(), whole[:length]


@given(st.binary(max_size=300))
def test_random_bytes_give_empty_state(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    path.write_bytes(data)
    assert memory.load_state(path) == HotplugState()


FIELDS = sorted(json.loads(records.dump_record(FULL, memory.VERSION)))


@given(st.sampled_from(FIELDS), nonsense)
def test_wrong_type_anywhere_gives_empty_state(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: Any
) -> None:
    path = tmp_path_factory.mktemp("state") / "state.json"
    path.write_text(json.dumps({**json.loads(records.dump_record(FULL, memory.VERSION)), field: value}))
    found = memory.load_state(path)
    # the result can be saved and read again
    memory.save_state(path, found)
    assert memory.load_state(path) == found


def test_state_of_another_version_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(records.dump_record(FULL, memory.VERSION - 1))
    assert memory.load_state(path) == HotplugState()


def test_oversized_state_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    text = records.dump_record(FULL, memory.VERSION)
    path.write_text(text + " " * (records.FILE_BYTES - len(text)))
    assert memory.load_state(path) == FULL
    path.write_text(text + " " * (records.FILE_BYTES - len(text) + 1))
    assert memory.load_state(path) == HotplugState()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_fifo_or_directory_gives_empty_state(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "state.json")
    assert memory.load_state(tmp_path / "state.json") == HotplugState()


def test_history_is_bounded() -> None:
    many = [HistoryEntry(float(number), "ups", "restart", "why") for number in range(60)]
    state = HotplugState()
    for decision in many:
        state = state.with_history(decision)
    assert state.history == tuple(many[-50:])


def test_reboot_drops_times_and_devices() -> None:
    assert FULL.for_boot("b1") is FULL
    then = FULL.for_boot("b2")
    assert then == HotplugState(
        boot="b2",
        identities=FULL.identities,
        written=FULL.written,
        intended=FULL.intended,
        deferred=FULL.deferred,
        history=FULL.history,
    )
