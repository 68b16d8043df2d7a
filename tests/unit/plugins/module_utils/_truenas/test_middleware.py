# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Test that secrets in TrueNAS's messages are masked."""

from __future__ import annotations

import json

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._truenas.middleware import mask_secrets

LINES = '[x]\n  password = "Canary one"\n\tcommunity=Canary2 # see\n'


@pytest.mark.parametrize(
    ("text", "secrets", "clean"),
    [
        ("bad word Secret-123.", ["Secret-123"], "bad word ********."),
        ("xSecret-123x", ["Secret-123"], "x********x"),
        ("nothing", [], "nothing"),
        ("nothing", [""], "nothing"),
        ("nothing ", [" ", "\n"], "nothing "),
        # The longest first, else a rest of it stays.
        ("Secret-123-more", ["Secret-123", "Secret-123-more"], "********"),
        # A short one only by itself.
        ("the ups service of nas.lan: nas", ["nas"], "the ups service of ********.lan: ********"),
        ("canasta nas_1 nas1", ["nas"], "canasta nas_1 nas1"),
        ("a.b axb", [".", "x"], "a.b axb"),
        # As JSON and Python write it.
        (json.dumps({"p": 'Say "cheese" \u00e4'}), ['Say "cheese" \u00e4'], '{"p": "********"}'),
        (repr("it's a\\secret"), ["it's a\\secret"], '"********"'),
        (ascii("it's \u00e4 secret"), ["it's \u00e4 secret"], '"********"'),
        # Lines of a file: all of them, each, or a value.
        (f"all: {' '.join(LINES.split())}", [LINES], "all: ********"),
        ('line 2: password = "Canary one"', [LINES], "line 2: ********"),
        ("bad value Canary one", [LINES], "bad value ********"),
        ("community=Canary2 # see", [LINES], "********"),
        ("a word like see or community stays", [LINES], "a word like see or community stays"),
    ],
)
def test_secrets_are_masked(text: str, secrets: list[str], clean: str) -> None:
    assert mask_secrets(text, secrets) == clean
