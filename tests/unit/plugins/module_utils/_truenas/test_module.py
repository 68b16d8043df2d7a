# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test what the module makes of the release of TrueNAS."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._truenas.module import manage_service, read_major_version
from ansible_collections.homelab.nut.plugins.module_utils._truenas.ups import Progress, WantedSettings


@pytest.mark.parametrize(
    ("version", "major"),
    [
        ("TrueNAS-25.04.2.6", 25),
        ("TrueNAS-25.10.7", 25),
        ("TrueNAS-26.0.0-RC.1", 26),
        ("TrueNAS-27.0.0-BETA.1", 27),
        ("TrueNAS-26.10.0-MASTER-20261130-123456", 26),
        ("TrueNAS-SCALE-24.10.2.4", 24),
        ("TrueNAS-13.0-U6.8", 13),
        ("TRUENAS-26.0", 26),
        ("26.04", 26),
        ("26", 26),
        ("100.1", 100),
        ("", None),
        (None, None),
        ("TrueNAS", None),
        ("TrueNAS-MASTER-20261130", None),
        ("20261130-123456", None),
        ("9" * 5000, None),
        ("-26", None),
        (" 26", None),
        ("v26", None),
        ("\u0662\u0666.0", None),
    ],
)
def test_major_version_is_the_first_number(version: str | None, major: int | None) -> None:
    assert read_major_version(version) == major


class StoredSecondary:
    """A Middleware of a secondary that runs with these settings."""

    host = "nas.lan"
    certificate = None

    def __init__(self, version: object, **settings: str) -> None:
        stored = {"mode": "SLAVE", "remotehost": "192.0.2.10", "monuser": "nas", "monpwd": "secret-1", **settings}
        self.answers: dict[str, Any] = {
            "ups.config": stored,
            "service.query": {"enable": True, "state": "RUNNING", "pids": [7]},
            "system.version": version,
        }

    def call(self, method: str, *_unused: Any) -> Any:
        return self.answers[method]

    def call_job(self, method: str, *_unused: Any) -> Any:
        raise AssertionError(method)

    def close(self) -> None:
        raise AssertionError("not its owner")


@pytest.mark.parametrize(
    ("settings", "names", "remedy"),
    [
        ({"monpwd": "*x"}, "monpwd", "use only letters, digits, '.', '_' and '-' in monuser and monpwd"),
        ({"monuser": "@x", "monpwd": "*x"}, "monuser and monpwd", "in monuser and monpwd"),
        ({"remotehost": "[fd00::5]"}, "remotehost", "use a host name or an IPv4 address in remotehost"),
        (
            {"remotehost": "[fd00::5]", "monpwd": "{x}"},
            "remotehost and monpwd",
            "in remotehost, and only letters, digits, '.', '_' and '-' in monuser and monpwd",
        ),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_settings_that_break_the_graphs_are_warned_of(
    settings: dict[str, str], names: str, remedy: str, given: bool
) -> None:
    """Also of settings that are on TrueNAS and do not change."""
    progress = Progress()
    wanted = WantedSettings(True, {"mode": "SLAVE", **(settings if given else {})})
    manage_service(StoredSecondary("TrueNAS-26.0.0", **settings), wanted, True, progress)
    (warning,) = progress.warnings
    assert warning.startswith(f"nas.lan: TrueNAS 26 and newer write {names} without quotes into a YAML file")
    assert warning.endswith(remedy)


@pytest.mark.parametrize("version", ["TrueNAS-25.10.7", "junk", None, 26])
def test_older_or_unknown_release_has_no_such_graphs(version: object) -> None:
    progress = Progress()
    result = manage_service(StoredSecondary(version, monpwd="*x"), WantedSettings(True, {}), True, progress)
    assert progress.warnings == []
    assert result["version"] == (version if isinstance(version, str) else None)
