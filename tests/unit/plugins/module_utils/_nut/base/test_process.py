# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import process
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.process import make_runner, run_timeout, run_within


def test_runner_returns_exit_code_and_output() -> None:
    assert make_runner(10)(("sh", "-c", "echo a; echo b >&2; exit 3")) == (3, "a\nb\n")


def test_missing_program_gives_127() -> None:
    assert make_runner(10)(("/no/such/program",))[0] == 127


def test_hanging_program_gives_124() -> None:
    assert make_runner(0.2)(("sleep", "60")) == (124, "sleep did not end within 0.2 s")


def test_run_timeout_waits_for_the_end_of_the_program() -> None:
    # timeout prints nothing; an abandoned program would be named
    assert run_timeout(["timeout", "--kill-after=5", "0.05", "sleep", "1000"]) == (124, "")
    assert run_timeout(["timeout", "--kill-after=5", "60", "sh", "-c", "sleep 0.3; echo a"]) == (0, "a\n")


def test_program_runs_in_the_c_locale_and_may_print_any_bytes() -> None:
    assert make_runner(10)(("sh", "-c", r"printf '%s \377' $LC_ALL")) == (0, "C \ufffd")


def test_unknown_program_is_not_found() -> None:
    assert process.find_program("no-such-program-of-nut") is None


def test_program_is_found_in_the_first_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / name for name in ("a", "b", "c")]
    for place in places:
        place.mkdir()
    monkeypatch.setattr(process, "NUT_PLACES", tuple(map(str, places)))
    for place in places[1:]:
        (place / "upsd").touch()
    assert process.find_program("upsd") == places[1] / "upsd"
    assert process.find_program("upsmon") is None


def test_usr_sbin_is_searched_last() -> None:
    """On Debian 12 and 13 /usr/sbin has shell scripts of the same names, which succeed for any arguments."""
    assert process.NUT_PLACES[-1] == "/usr/sbin"
    assert {"/lib/nut", "/usr/lib/nut", "/usr/libexec/nut"} == set(process.NUT_PLACES[:-1])


def test_work_within_the_timeout_returns_the_result() -> None:
    assert run_within(60, lambda: 42) == 42


def test_failing_work_raises_the_original_error() -> None:
    with pytest.raises(ZeroDivisionError):
        run_within(60, lambda: 1 // 0)


def test_hanging_work_is_abandoned() -> None:
    never = threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"it did not end within 0\.01 s"):
            run_within(0.01, lambda: never.wait(60))
    finally:
        never.set()


def test_program_gets_no_standard_input() -> None:
    assert make_runner(10)(("cat",)) == (0, "")
