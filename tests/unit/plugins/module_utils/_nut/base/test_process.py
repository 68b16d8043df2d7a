# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.homelab.nut.plugins.module_utils._nut.base.process import runner


def test_what_a_program_says_and_how_it_ends() -> None:
    assert runner(10)(("sh", "-c", "echo a; echo b >&2; exit 3")) == (3, "a\nb\n")


def test_a_program_that_is_not_there() -> None:
    assert runner(10)(("/no/such/program",))[0] == 127


def test_a_program_that_hangs() -> None:
    assert runner(0.2)(("sleep", "60")) == (124, "sleep did not end within 0.2 s")
