# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import fnmatch
import re
from typing import Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb import policy, udev
from hypothesis import given
from hypothesis import strategies as st

ECOFLOW = 'ATTR{idVendor}=="3746", ATTR{idProduct}=="ffff", MODE="0664", GROUP="nut"\n'
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40)


def test_empty_policy_permits_only_ids_missing_in_nut() -> None:
    assert udev.render_permissions({}) == ECOFLOW
    assert udev.render_permissions({"patterns": None, "rules": None}) == ECOFLOW
    # without a duplicate
    assert udev.render_permissions({"patterns": ["3746:FFFF"]}) == ECOFLOW


def test_pattern_permits_ids_or_texts() -> None:
    assert udev.render_permissions({"patterns": ["12AB:*", "1234:00fF", "*d-2*"]}) == ECOFLOW + (
        'ATTR{idVendor}=="12ab", MODE="0664", GROUP="nut"\n'
        'ATTR{idVendor}=="1234", ATTR{idProduct}=="00ff", MODE="0664", GROUP="nut"\n'
        'ATTR{manufacturer}=="*[dD]-2*", MODE="0664", GROUP="nut"\n'
        'ATTR{product}=="*[dD]-2*", MODE="0664", GROUP="nut"\n'
    )


def test_rules_precede_patterns_and_the_first_match_counts() -> None:
    rules: list[dict[str, Any]] = [
        {"vendor": "3746", "serial": "a?1", "ignore": True},
        {"vendor": "apc*", "product": "00FF", "name": "x", "driver": "y", "ignore": False},
        {"product": "*", "port": "1-1.*"},
    ]
    assert (
        udev.render_permissions({"rules": rules})
        == (
            'ENV{ID_PATH}=="", IMPORT{builtin}="path_id"\n'
            'ATTR{idVendor}=="3746", ATTR{serial}=="[aA]?1", GOTO="nut_hotplug_decided"\n'
            'ATTR{manufacturer}=="[aA][pP][cC]*", ATTR{idProduct}=="00ff",'
            ' MODE="0664", GROUP="nut", GOTO="nut_hotplug_decided"\n'
            'ATTR{product}=="*", KERNEL=="1-1.*", MODE="0664", GROUP="nut", GOTO="nut_hotplug_decided"\n'
            'ATTR{product}=="*", ENV{ID_PATH}=="1-1.*", MODE="0664", GROUP="nut", GOTO="nut_hotplug_decided"\n'
        )
        + ECOFLOW
    )


def test_pattern_of_wildcards_permits_nothing() -> None:
    """Otherwise NUT could use every device of the host."""
    assert (
        udev.render_permissions({"patterns": ["\u4e9a*", "*?*"], "rules": [{"vendor": "*", "product": "\u4e9a"}]})
        == ECOFLOW
    )


def test_path_id_is_imported_only_for_ports() -> None:
    assert "IMPORT" not in udev.render_permissions({"rules": [{"vendor": "1234"}]})


@pytest.mark.parametrize(
    ("pattern", "made"),
    [
        ("*", "*"),
        ("a***b**", "[aA]*[bB]*"),
        ('x", RUN+="/bin/sh', "[xX]?, [rR][uU][nN]+=?/[bB][iI][nN]/[sS][hH]"),
        ("a|b", "[aA]?[bB]"),
        ("\\$%", "???"),
        ("[a-c]x[!]]y", "?[xX]?[yY]"),
        ("[]z]", "?"),
        ("[open", "?[oO][pP][eE][nN]"),
        ("close]", "[cC][lL][oO][sS][eE]?"),
        ("größe", "[gG][rR]*[eE]"),
        ("a\nb\x7f", "[aA]?[bB]?"),
    ],
)
def test_glob_is_converted(pattern: str, made: str) -> None:
    assert udev.convert_glob(pattern) == made


@given(ASCII, st.data())
def test_converted_glob_matches_at_least_the_same_texts(pattern: str, data: st.DataObject) -> None:
    """Draw texts similar to the pattern, in either case."""
    text = "".join(
        data.draw(st.sampled_from((sign, sign.swapcase(), ""))) if sign in "*?" else sign for sign in pattern
    )
    text = data.draw(st.sampled_from((text, text.upper(), text.lower())))
    try:
        wanted = fnmatch.fnmatchcase(text.lower(), pattern.lower())
    except re.error:
        wanted = False
    if wanted:
        assert fnmatch.fnmatchcase(text, udev.convert_glob(pattern))


@given(st.text(max_size=policy.GLOB_LIMIT))
def test_converted_glob_is_safe_between_quotes(pattern: str) -> None:
    made = udev.convert_glob(pattern)
    assert re.fullmatch(r"(?:[ -~])*", made)
    assert not set(made) & set('"\\|$%')
    assert re.fullmatch(r"(?:\[[a-z][A-Z]\]|[^\[\]])*", made)
    assert "**" not in made


def test_lines_are_short_enough_for_udev() -> None:
    """udev ignores lines of 16 KiB and more."""
    longest = "a" * policy.GLOB_LIMIT
    rule = dict.fromkeys(("vendor", "product", "serial", "port"), longest)
    assert max(map(len, udev.render_permissions({"rules": [rule], "patterns": [longest]}).splitlines())) < 8192
