# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.redact import redact_text
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.change import (
    Change,
    FileChange,
    UnitAction,
    order_actions,
    stop_watcher_actions,
)

DRIVER = "nut-driver@ups.service"
USERS = "[monitor]\n    password = {}\n    upsmon primary\n"


def users(old: str | None, new: str | None, kind: str = "upsd.users") -> list[str]:
    return FileChange(
        "upsd.users", Path("/etc/nut/upsd.users"), old, new, partial(redact_text, kind) if kind else None
    ).diff_lines()


def test_diff_of_removed_file() -> None:
    assert users("x", None) == ["/etc/nut/upsd.users: removed"]


def test_diff_of_changed_mode() -> None:
    assert users("x", "x") == ["/etc/nut/upsd.users: mode or owner is corrected"]


@pytest.mark.parametrize(("old", "new"), [("secret1", "secret2"), ("s\n# why", "s\n# why not")])
def test_diff_of_changed_secret_or_comment(old: str, new: str) -> None:
    said = users(USERS.format(old), USERS.format(new))
    assert said == ["/etc/nut/upsd.users: only a secret or a comment changes"]


def test_diff_of_new_file_hides_secrets_and_comments() -> None:
    said = "\n".join(users(None, "# as shipped\n" + USERS.format("secret1")))
    assert "+    upsmon primary" in said
    assert "secret1" not in said
    assert "shipped" not in said


def test_diff_of_file_without_secrets_shows_comments() -> None:
    assert "+# why" in users("a\n", "a\n# why\n", kind="")


def test_diff_is_safe_for_a_terminal() -> None:
    change: Change[UnitAction] = Change(files=(FileChange("unit", Path("/unit"), "", "a\x1b[31m\udcff\n"),))
    assert change.render_diff().endswith("+a\\x1b[31m\\udcff\n")


def test_change_lists_written_and_removed_files() -> None:
    written, gone = FileChange("a", Path("/a"), None, "x\n"), FileChange("b", Path("/b"), "x", None)
    stop, start = UnitAction("stop", DRIVER, "[ups] changed"), UnitAction("start", DRIVER, "[ups] changed")
    change = Change((stop,), (written, gone), (start,))
    assert (change.written_files, change.removed_paths) == (("a",), (Path("/b"),))
    assert change.steps == (f"stop {DRIVER}: [ups] changed", f"start {DRIVER}: [ups] changed")
    assert change.render_diff().splitlines()[-3:] == ["/b: removed", *change.steps]
    assert change
    assert not Change()


def test_actions_are_ordered_by_dependency() -> None:
    units = (systemd.MONITOR, systemd.SERVER, DRIVER, systemd.ENUMERATOR)
    actions = [UnitAction("enable", systemd.ALL, ""), *(UnitAction("start", unit, "") for unit in units)]
    ordered = order_actions([*actions, UnitAction("stop", "nut-driver@b.service", "")])
    assert [action.verb for action in ordered] == ["stop", "start", "start", "start", "start", "enable"]
    assert [action.unit for action in ordered[1:5]] == list(reversed(units))


def test_no_reload_after_restart() -> None:
    reload, restart = UnitAction("reload", systemd.SERVER, "a"), UnitAction("restart", systemd.SERVER, "b")
    assert order_actions([reload, restart, UnitAction("restart", systemd.SERVER, "c")]) == (restart,)


@pytest.mark.parametrize(
    ("watcher", "stops"),
    [
        (systemd.ABSENT, False),
        (systemd.Unit("inactive", "disabled", 0), False),
        (systemd.Unit("inactive", "enabled", 0), True),
        (systemd.Unit("active", "disabled", 0), True),
    ],
)
def test_enumerator_path_unit_is_disabled_if_active(watcher: systemd.Unit, stops: bool) -> None:
    assert bool(stop_watcher_actions(watcher)) is stops
