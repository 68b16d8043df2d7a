# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.events.catalog import Event
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify import targets
from ansible_collections.homelab.nut.plugins.module_utils._nut.notify.targets import Target

SECRET = "tgram://123456:s3cr3t-token/987654"


def make_event(name: str) -> Event:
    return Event(name, "ups", "", 0.0, "upsmon")


@pytest.mark.parametrize(
    ("target", "wanted", "unwanted"),
    [
        (Target(1, url=SECRET), ["mains-failed", "mains-returned", "test"], ["guest-down"]),
        (Target(1, url=SECRET, severity="critical"), ["battery-low", "test"], ["mains-failed", "mains-returned"]),
        (Target(1, url=SECRET, severity="detail"), ["guest-down"], []),
        (Target(1, url=SECRET, events=("guest-down",)), ["guest-down", "test"], ["battery-low"]),
    ],
)
def test_a_target_gets_what_it_wants(target: Target, wanted: list[str], unwanted: list[str]) -> None:
    assert [name for name in wanted + unwanted if target.wants(make_event(name))] == wanted


MISTAKES: dict[str, tuple[Any, str]] = {
    "neither": ({}, "nut_server_notify[0]: must have either url or mail"),
    "both": ({"url": SECRET, "mail": "root"}, "nut_server_notify[0]: must have either url or mail"),
    "no url": ({"url": "ntfy.sh/topic-with-s3cr3t-token"}, "nut_server_notify[0].url: must be a URL of Apprise"),
    "an option as an address": ({"mail": "-oQ/tmp"}, "nut_server_notify[0].mail: must be a user of the host"),
    "two lines": ({"mail": "root\nBcc: x"}, "nut_server_notify[0].mail: must be a user of the host"),
    "no event": ({"mail": "root", "events": ["main-failed"]}, "nut_server_notify[0].events[0]: must be an event of"),
    "no severity": ({"mail": "root", "severity": "loud"}, "nut_server_notify[0].severity: must be one of detail, info"),
    "events and severity": (
        {"mail": "root", "events": ["test"], "severity": "info"},
        "nut_server_notify[0]: has both events and severity",
    ),
    "unknown key": ({"mail": "root", "token": "s3cr3t-token"}, "nut_server_notify[0].token: is unknown"),
    "no object": (SECRET, "nut_server_notify[0]: must be an object"),
}


@pytest.mark.parametrize(("target", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_without_the_secret(target: Any, message: str) -> None:
    with pytest.raises(targets.NotifyPolicyError) as caught:
        targets.compose_policy([target])
    assert message in str(caught.value)
    assert "s3cr3t-token" not in str(caught.value)


def test_what_the_role_writes_is_what_the_host_reads(tmp_path: Path) -> None:
    given = [{"url": SECRET, "events": [], "severity": None}, {"mail": "root", "severity": "critical"}]
    path = tmp_path / "notify.json"
    path.write_text(json.dumps(targets.compose_policy(given)))
    assert targets.load_policy(path) == (Target(1, url=SECRET), Target(2, mail="root", severity="critical"))


def test_the_same_target_twice_is_refused() -> None:
    with pytest.raises(targets.NotifyPolicyError, match="target 2 is the same as target 1"):
        targets.compose_policy([{"mail": "root"}, {"mail": "root", "severity": "critical"}])


def test_a_file_that_is_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    text = json.dumps(targets.compose_policy([{"url": SECRET}, {"mail": "root"}]))
    path = tmp_path / "notify.json"
    for end in range(len(text)):
        path.write_text(text[:end])
        with pytest.raises(targets.NotifyPolicyError) as caught:
            targets.load_policy(path)
        assert "s3cr3t-token" not in str(caught.value)


def test_a_label_and_a_key_have_no_secret() -> None:
    target = Target(3, url=SECRET)
    assert target.label == "target 3 (tgram)"
    assert "s3cr3t" not in target.key
    assert target.key == Target(1, url=SECRET, severity="critical").key
