# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.module_utils import _internal
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils._module import Module
from ansible_collections.homelab.nut.tests.unit.support.hostile import NASTY, find_unfit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SECRET = "pass\x1b\tword"
ALL = " | ".join(NASTY)


@pytest.fixture
def ends(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run a module that does this, on a host, and return its result."""
    monkeypatch.setattr(_internal, "is_controller", False)

    def run(work: Callable[[Module], None]) -> dict[str, Any]:
        monkeypatch.setattr(warnings, "_global_warnings", {})
        with patch_module_args({"password": SECRET}), pytest.raises(SystemExit):
            work(Module(argument_spec={"password": {"type": "str", "no_log": True}}))
        result: dict[str, Any] = json.loads(capfd.readouterr().out)
        return result

    return run


def texts(data: Any) -> list[str]:
    """Return all texts in data."""
    if isinstance(data, dict):
        return [text for pair in data.items() for each in pair for text in texts(each)]
    return (
        [text for each in data for text in texts(each)]
        if isinstance(data, list)
        else [data]
        if isinstance(data, str)
        else []
    )


def test_failure_is_cleaned_for_the_terminal(ends: Callable[..., dict[str, Any]]) -> None:
    """Ansible shows the message unchanged, and the whole result."""
    result = ends(
        lambda module: module.fail_json(msg=f"TrueNAS says {ALL}", actions=[ALL], **{"deep": {ALL: [{"er": (ALL,)}]}})
    )
    assert result["failed"] is True
    assert result["msg"].startswith("TrueNAS says \\x1b[2J\\x1b]0;pwned\\x07")
    assert [text for text in texts(result) if find_unfit(text)] == []
    assert max(map(len, texts(result))) < 10_000


def test_warning_is_one_line(ends: Callable[..., dict[str, Any]]) -> None:
    def work(module: Module) -> None:
        module.warn(ALL)
        module.exit_json()

    (warning,) = ends(work)["warnings"]
    said = warning["event"]["msg"] if isinstance(warning, dict) else warning
    assert "\\r\\nok: [pve]" in said
    assert not find_unfit(said)
    assert "\n" not in said


def test_success_cleans_shown_members_and_keeps_data(ends: Callable[..., dict[str, Any]]) -> None:
    data = {"ups.model": "B\x1bx", "number": 7, "none": None, "true": True}
    diff = [{"prepared": f"+{ALL}\n-b\tc\n"}]
    result = ends(
        lambda module: module.exit_json(changed=True, msg=f"a\n{ALL}", diff=diff, variables=data, half="caf\udce9")
    )
    assert not find_unfit(result["msg"])
    assert result["msg"].splitlines()[0] == "a"
    assert not find_unfit(result["diff"][0]["prepared"])
    assert result["diff"][0]["prepared"].splitlines()[-1] == "-b      c"
    assert result["variables"] == data
    # JSON can't hold what is no character
    assert result["half"] == "caf\ufffd"


def test_secret_is_masked_before_characters_are_escaped(ends: Callable[..., dict[str, Any]]) -> None:
    def work(module: Module) -> None:
        module.warn(f"w {SECRET}")
        module.fail_json(msg=f"m {SECRET}", others=[SECRET], changed=True)

    result = ends(work)
    assert "word" not in json.dumps(result)
    assert result["msg"] == "m ********"
    assert result["changed"] is True


def test_ansibles_own_failure_is_cleaned(ends: Callable[..., dict[str, Any]]) -> None:
    """Such as that a program is missing, or an option is wrong."""
    result = ends(lambda module: module.get_bin_path("no\x1b[2Jsuch", required=True))
    assert result["failed"] is True
    assert not find_unfit(result["msg"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_any_message_is_cleaned(ends: Callable[..., dict[str, Any]], text: str) -> None:
    assert not find_unfit(ends(lambda module: module.fail_json(msg=text))["msg"])
