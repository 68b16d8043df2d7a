# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import sys

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils._command import make_runner


@pytest.fixture
def module() -> AnsibleModule:
    """A module of no options."""
    with patch_module_args({}):
        return AnsibleModule(argument_spec={})


def test_program_runs_without_a_shell(module: AnsibleModule) -> None:
    script = "import sys; print(sys.argv[1:]); sys.stderr.write('err'); sys.exit(3)"
    code, said = make_runner(module)([sys.executable, "-c", script, "$HOME; `id`", "~"])
    assert code == 3
    assert "['$HOME; `id`', '~']" in said
    assert "err" in said


def test_output_outside_utf8_is_accepted(module: AnsibleModule) -> None:
    script = "import sys; sys.stdout.buffer.write(b'B\\xfcro')"
    assert make_runner(module)([sys.executable, "-c", script]) == (0, "B\ufffdro")


def test_missing_program_has_exit_code_127(module: AnsibleModule) -> None:
    code, said = make_runner(module)(["/no/such/program"])
    assert code == 127
    assert "/no/such/program" in said


def test_hanging_program_has_exit_code_124(module: AnsibleModule) -> None:
    code, said = make_runner(module, seconds=0.1)([sys.executable, "-c", "import time; time.sleep(60)"])
    assert (code, said) == (124, "")
