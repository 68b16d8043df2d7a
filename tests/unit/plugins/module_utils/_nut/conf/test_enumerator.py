# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import enumerator, ups_conf

# checksums by nut-driver-enumerator.sh of 2.8.0 and 2.8.1 for a section; "" is the global part
DIGESTS: dict[str, tuple[str, str, str | None]] = {
    "a section": ("[a]\ndriver = x\n", "a", "57b756fc0a8a008ce8a8edb74f455d59"),
    "blanks and comments": ('# c\n\n \t[a] # d\n\n\t driver\t=  "x" \n#e\n[b]\nport = y\n', "a", "57b756fc0a8a008ce8a8edb74f455d59"),
    "no global settings": ("[a]\ndriver = x\n", "", "68b329da9893e34099c7d8ad5cb9c940"),
    "no such section": ("[a]\ndriver = x\n", "b", None),
    "only global settings": ("maxretry = 3\n", "", "68b329da9893e34099c7d8ad5cb9c940"),
    "no file": ("", "a", None),
    "Windows line ends": ("[a]\r\ndriver = x\r\n", "a", None),
    "a header in quotes": ('"[a]"\ndriver = x\n', "a", None),
}  # fmt: skip


@pytest.mark.parametrize(("text", "name", "digest"), DIGESTS.values(), ids=DIGESTS.keys())
def test_checksum_is_that_of_the_enumerator(text: str, name: str, digest: str | None) -> None:
    assert enumerator.section_checksum(text, name) == digest


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("[a]\nx=1\ny=2\n[b]\n", True),
        ('[a]\n  x = "1"\n\ny=2', True),
        ("[a]\nx=1\ny=2\n[b]\nz=3\n[a]\nz=3\n", True),
        ("z=3\n[a]\nx=1\ny=2\n", True),
        ("[a]\ny=2\nx=1\n", False),
        ("[a]\nx=1 # one\ny=2\n", False),
        ("[a]\nx=1\ny=2\nz\n", False),
        ("[a]\nx=1\ny=2\nz z\n", True),
        ("[a]\nx=1\ny=3\n", False),
    ],
)
def test_only_relevant_changes_change_the_checksum(text: str, same: bool) -> None:
    assert (enumerator.section_checksum(text, "a") == enumerator.section_checksum("[a]\nx = 1\ny = 2\n", "a")) is same


def test_checksum_of_rendered_text() -> None:
    conf = ups_conf.parse_ups_conf('z\n[a]\nport = y\ndriver = x\ndesc = "one \\\\101 \\\\t \\\\cut"\n')
    text = ups_conf.render_conf(conf)
    assert [enumerator.section_checksum(conf, name) for name in ("", "a")] == [
        enumerator.section_checksum(text, name) for name in ("", "a")
    ]
    # echo of the shell stops at \c
    assert enumerator.section_checksum(text, "a") == enumerator.section_checksum(text.replace("cut", "c"), "a")
    assert enumerator.section_checksum(text, "a") == enumerator.section_checksum(text.replace("\\\\101", "A"), "a")
    assert enumerator.section_checksum(text, "a") != enumerator.section_checksum(text.replace("one", "two"), "a")
