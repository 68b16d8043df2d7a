# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""compose.yaml, the Containerfile, the lab and docs/container.md agree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.homelab.nut.plugins.module_utils._nut.container.settings import DEFAULTS
from homelab.container import OPTIONS, VOLUMES

CHECKOUT = Path(__file__).resolve().parents[3]
FOLDER = CHECKOUT / "container"
CONTAINERFILE = (FOLDER / "Containerfile").read_text(encoding="utf-8")
PAGE = (CHECKOUT / "docs/container.md").read_text(encoding="utf-8")


@pytest.fixture
def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]["nut"]
    return found


def test_container_has_no_more_rights_than_it_needs(service: dict[str, Any]) -> None:
    assert "privileged" not in service
    assert "network_mode" not in service
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["device_cgroup_rules"] == ["c 189:* rmw"]


def test_lab_runs_the_container_with_the_same_options(service: dict[str, Any]) -> None:
    options = [
        *(["--read-only"] if service["read_only"] else []),
        *(word for folder in service["tmpfs"] for word in ("--tmpfs", folder)),
        *(word for value in service["security_opt"] for word in ("--security-opt", value)),
        *(word for name in service["cap_drop"] for word in ("--cap-drop", name)),
        *("--cap-add", ",".join(service["cap_add"])),
    ]
    assert list(OPTIONS) == options
    assert set(VOLUMES.values()) == {volume.split(":")[1] for volume in service["volumes"] if volume.startswith("ups-")}


def test_variables_of_compose_exist_with_the_same_defaults(service: dict[str, Any]) -> None:
    for name, value in service["environment"].items():
        assert value == f"${{{name}:-{DEFAULTS[name]}}}"


@pytest.mark.parametrize("name", DEFAULTS)
def test_page_describes_the_variable_with_its_default(name: str) -> None:
    row = re.search(rf"^\| `{name}` \| ([^|]*) \|", PAGE, re.MULTILINE)
    assert row, name
    default = DEFAULTS[name]
    assert row[1].strip() == (f"`{default}`" if default else "-")


def test_healthcheck_is_the_same_in_both(service: dict[str, Any]) -> None:
    words = ", ".join(f'"{word}"' for word in service["healthcheck"]["test"][1:])
    assert f"CMD [{words}]" in CONTAINERFILE
    for key in ("interval", "timeout", "retries"):
        assert f"--{key}={service['healthcheck'][key]}" in CONTAINERFILE
    assert f"--start-period={service['healthcheck']['start_period']}" in CONTAINERFILE


def test_everything_that_the_image_copies_exists() -> None:
    copied = [words.split()[-2] for words in re.findall(r"^COPY (.*)$", CONTAINERFILE, re.MULTILINE)]
    assert copied
    assert not [name for name in copied if not (CHECKOUT / name).exists()]
