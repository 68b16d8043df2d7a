# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown import policy as shutdown_policy
from ansible_collections.homelab.nut.plugins.module_utils._nut.shutdown.names import AddressCache


def test_cached_addresses_replace_failed_lookup(tmp_path: Path) -> None:
    path = tmp_path / "lib" / "addresses.json"
    path.parent.mkdir()
    known = {"nas": ("192.0.2.20", "fd00::20")}

    waited: list[float] = []

    def resolve(name: str, seconds: float) -> tuple[str, ...]:
        waited.append(seconds)
        if name not in known:
            raise OSError("no such name")
        return known[name]

    assert AddressCache(path, resolve)("nas", 1) == known["nas"]
    was = known.pop("nas")
    assert AddressCache(path, resolve)("nas", 1) == was
    assert waited == [1, 0.5]  # leaves time to return the cached addresses
    with pytest.raises(OSError, match="no such name"):
        AddressCache(path, resolve)("media", 1)
    known["nas"] = ("192.0.2.21",)
    assert AddressCache(path, resolve)("nas", 1) == ("192.0.2.21",)
    del known["nas"]
    assert AddressCache(path, resolve)("nas", 1) == ("192.0.2.21",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "\x00",
        *(f'{{"version": 1, "addresses": {{"nas": {found}}}}}' for found in ('"x"', "[1]", '["no address"]')),
    ],
)
def test_invalid_address_cache_is_ignored(tmp_path: Path, text: str) -> None:
    path = tmp_path / "addresses.json"
    path.write_text(text)

    def resolve(_name: str, _seconds: float) -> tuple[str, ...]:
        raise OSError("no such name")

    with pytest.raises(OSError, match="no such name"):
        AddressCache(path, resolve)("nas", 1)


def test_unwritable_cache_does_not_fail_lookup(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    names = AddressCache(tmp_path / "file" / "addresses.json", lambda _name, _seconds: ("192.0.2.20",))
    assert names("nas", 1) == ("192.0.2.20",)


def test_policy_names_are_resolved(tmp_path: Path) -> None:
    policy = shutdown_policy.check_policy(
        {
            "version": 1,
            "upses": [],
            "machines": [
                {
                    "name": name,
                    "addresses": [address],
                    "ports": [],
                    "guest": guest,
                    "shutdown_time": 1,
                    "shutdown_limit": 2,
                }
                for name, address, guest in (
                    ("nas", "nas", None),
                    ("media", "media", None),
                    ("db", "192.0.2.9", None),
                    ("vm", "vm", {"kind": "qm", "id": 100}),
                )
            ],
            "reserve": 1,
            "timeout": 10,
        }
    )

    def resolve(name: str, _seconds: float) -> tuple[str, ...]:
        if name == "media":
            raise OSError("no such name")
        return ("192.0.2.20",)

    assert AddressCache(tmp_path / "addresses.json", resolve).resolve_policy_names(policy, 1) == ["media"]
    assert json.loads((tmp_path / "addresses.json").read_text()) == {
        "version": 1,
        "addresses": {"nas": ["192.0.2.20"]},
    }
