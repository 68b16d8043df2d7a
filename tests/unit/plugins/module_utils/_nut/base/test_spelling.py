# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.spelling import read_truth, suggest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("upsmon", "Did you mean upsmon.conf?"),
        ("UPSD.CONF", "Did you mean upsd.conf?"),
        ("upsmn.conf", "Did you mean upsmon.conf?"),
        ("elsewhere", ""),
        (7, ""),
    ],
)
def test_closest_name_is_suggested(name: object, message: str) -> None:
    assert suggest(name, ("ups.conf", "upsd.conf", "upsmon.conf")) == message


@pytest.mark.parametrize("value", [True, "yes", "True", "ON", 1, "1"])
def test_spellings_of_true_are_read(value: object) -> None:
    assert read_truth(value) is True


@pytest.mark.parametrize("value", [False, "no", "False", "OFF", 0, "0"])
def test_spellings_of_false_are_read(value: object) -> None:
    assert read_truth(value) is False


@pytest.mark.parametrize("value", ["perhaps", "", None, 2, []])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="is neither true nor false"):
        read_truth(value)
