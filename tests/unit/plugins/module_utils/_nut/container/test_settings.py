# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.settings import (
    DEFAULTS,
    SECRET,
    ContainerSettings,
    SettingsError,
    read_settings,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "usr/share/zoneinfo/Europe").mkdir(parents=True)
    for zone in ("UTC", "Europe/Berlin"):
        (tmp_path / "usr/share/zoneinfo" / zone).touch()
    (tmp_path / "run/secrets").mkdir(parents=True)
    (tmp_path / SECRET).write_text("from-the-secret\n")
    (tmp_path / "run/secrets/other").write_text("from-another\n")
    return tmp_path


def test_defaults_are_those_of_the_table(root: Path) -> None:
    (root / SECRET).unlink()
    expected = ContainerSettings("my-ups", 60, False, "UTC", "dummy", "0.0.0.0", 3493, "monitor", "")
    assert read_settings({}, root) == expected
    # docker compose passes on variables that are not set as empty ones
    assert read_settings(dict.fromkeys(DEFAULTS, ""), root) == expected


def test_all_variables_are_read(root: Path) -> None:
    given = {
        "UPS_NAME": "rack",
        "SCAN_INTERVAL": "5",
        "DEBUG": "1",
        "TZ": "Europe/Berlin",
        "ABSENT": "keep",
        "LISTEN": "::",
        "PORT": "3494",
        "API_USER": "nas",
        "API_PASSWORD": "s3cret",
    }
    assert read_settings(given, root) == ContainerSettings(
        "rack", 5, True, "Europe/Berlin", "keep", "::", 3494, "nas", "s3cret"
    )


def test_password_is_a_secret_of_the_usual_name_or_the_file_that_is_named(root: Path) -> None:
    assert read_settings({}, root).password == "from-the-secret"
    assert read_settings({"API_PASSWORD_FILE": "/run/secrets/other"}, root).password == "from-another"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("UPS_NAME", "my ups", "UPS_NAME=my ups: must have 1 to 64 letters"),
        ("UPS_NAME", "default", "UPS_NAME=default: must have"),
        ("UPS_NAME", "u" * 65, "must have 1 to 64"),
        ("SCAN_INTERVAL", "0", "SCAN_INTERVAL=0: must be a number of seconds from 1 to 3600"),
        ("SCAN_INTERVAL", "1m", "SCAN_INTERVAL=1m: must be"),
        ("SCAN_INTERVAL", "-5", "SCAN_INTERVAL=-5: must be"),
        ("SCAN_INTERVAL", "²", "must be a number"),
        ("DEBUG", "maybe", "DEBUG=maybe: must be 1 or 0"),
        ("TZ", "Mars/Olympus", "TZ=Mars/Olympus: is not a time zone"),
        ("TZ", "../../../run/secrets/other", "is not a time zone"),
        ("ABSENT", "stub", "ABSENT=stub: must be keep or dummy"),
        ("LISTEN", "1.2.3.4.5", "LISTEN=1.2.3.4.5: with PORT=3493 is not an address"),
        ("PORT", "65536", "LISTEN=0.0.0.0: with PORT=65536 is not"),
        ("API_USER", "a b", "API_USER=a b: the user name contains a space"),
        ("API_PASSWORD", "s3cret#=", "API_PASSWORD: the password contains a '#' and a '='"),
        ("API_PASSWORD_FILE", "/run/secrets/none", "API_PASSWORD_FILE: can't be read: No such file or directory"),
    ],
)
def test_bad_value_is_refused_by_name(root: Path, name: str, value: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({name: value}, root)
    assert why in str(refused.value)
    # the name of the variable is given, its secret never
    assert "PASSWORD" not in name or value == "/run/secrets/none" or value not in str(refused.value)


def test_all_problems_are_listed_at_once(root: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({"DEBUG": "x", "TZ": "x", "API_PASSWORD": "a", "API_PASSWORD_FILE": "/run/secrets/other"}, root)
    lines = str(refused.value).splitlines()
    assert [line.partition("=")[0].partition(":")[0] for line in lines] == ["DEBUG", "TZ", "API_PASSWORD_FILE"]
