# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import enumerator, ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import Section, UpsConf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf_text import (
    MARK,
    compose_text,
    found_sections,
    header_of,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.names import resolve_names
from ansible_collections.homelab.nut.tests.unit.support.named_upses import (
    APC,
    AUTO,
    CPS_ELSEWHERE,
    DEFAULT,
    NUL,
    R81,
    make_known,
)

if TYPE_CHECKING:
    pass


def test_file_has_header_settings_and_marked_sections() -> None:
    res = resolve_names(make_known("maxretry = 3\n" + AUTO), [APC, CPS_ELSEWHERE], DEFAULT, R81)
    text = compose_text("# Written by Ansible.\n# Twice.\n", res.conf, res.found)
    assert text == (
        '# Written by Ansible.\n# Twice.\n\nmaxretry = "3"\n\n'
        '[ups]\n    driver = "usbhid-ups"\n    port = "auto"\n    desc = "Rack"\n    vendorid = "051d"\n'
        '    productid = "0002"\n    serial = "5B1234T56789"\n    pollinterval = "5"\n\n'
        f'{MARK}\n[ups2]\n    driver = "usbhid-ups"\n    port = "auto"\n    vendorid = "0764"\n    productid = "0501"\n'
        '    offdelay = "60"\n    ondelay = "120"\n'
    )
    assert ups_conf.parse_ups_conf(text) == res.conf
    assert found_sections(text) == {"ups2"}
    assert header_of(text) == "# Written by Ansible.\n# Twice.\n"
    assert compose_text(header_of(text), res.conf, res.found, text) == text
    assert compose_text(header_of(text), res.conf, res.found) == text


OLD = """# Mine.

# how often
maxretry = 3   # three

# the old one
[old]
  port = /dev/ttyS0
  driver = apcsmart
  desc = "two words"   # and more
# in between

# Found on the bus by nut-hotplug.
[ups]
driver = usbhid-ups
port = auto
"""


def test_unchanged_sections_keep_their_text() -> None:
    was = ups_conf.parse_ups_conf(OLD)
    changed = UpsConf(
        was.settings, {**was.sections, "ups": Section("ups", (("driver", "nutdrv_qx"), ("port", "auto")))}
    )
    text = compose_text("# Yours.", changed, frozenset(), OLD)
    assert text == OLD.replace("# Mine.", "# Yours.").replace(MARK + "\n", "").replace(
        "driver = usbhid-ups\nport = auto\n", '    driver = "nutdrv_qx"\n    port = "auto"\n'
    )
    assert enumerator.section_checksum(text, "old") == enumerator.section_checksum(OLD, "old")
    assert enumerator.section_checksum(text, "") == enumerator.section_checksum(OLD, "")
    assert compose_text(header_of(OLD), was, found_sections(OLD), OLD) == OLD


def test_changed_settings_are_rewritten() -> None:
    was = ups_conf.parse_ups_conf(OLD)
    text = compose_text("", replace(was, settings=(("maxretry", "5"),)), frozenset(), OLD)
    assert text.startswith('maxretry = "5"\n\n# the old one\n')


@pytest.mark.parametrize(
    "old",
    [
        '[a]\n  desc = "one\\\n# two"\n[b]\n  driver = x\n',
        '[a]\n  driver = x\n  desc = "open\n[b]\n  driver = y\n',
        "[a]\n  driver = x\n[b]\n  driver = y\n[a]\n  port = z\n",
        "# a \\\n[a]\n  driver = x\n[b]\ndriver = z",
    ],
)
def test_odd_file_is_read_as_by_nut(old: str) -> None:
    was = ups_conf.parse_ups_conf(old)
    for wish in (was, UpsConf(was.settings, {**was.sections, "n": Section("n", (("driver", "x"),))})):
        for found in (frozenset[str](), frozenset({"a"})):
            text = compose_text("# H", wish, found, old)
            assert ups_conf.parse_ups_conf(text) == wish
            assert found_sections(text) == found & wish.sections.keys()


def test_header_is_the_leading_comment() -> None:
    assert compose_text("[x]\n  driver = y\n", NUL, ()) == ""
    assert header_of(f"# a\n{MARK}\n[x]\n") == "# a\n"
    assert header_of("\n# a\n") == ""
    assert found_sections(f"{MARK}\n\n[x]\n") == frozenset()
