# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import directives
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.redact import redact_text
from hypothesis import given
from hypothesis import strategies as st

# mostly characters that are special to the parser
TRICKY = st.text(st.one_of(st.sampled_from('"\\#= \n\t\rab[]é\x01\x7f'), st.characters()), max_size=80)

USERS = """\
# users of upsd
[admin]
    password = "hunter2"
    actions = SET FSD   # all of it
    instcmds = ALL

[upsmon]
    PASSWORD=hunter2
    upsmon primary
"""


def test_only_secrets_are_redacted() -> None:
    assert redact_text("/etc/nut/upsd.users", USERS) == USERS.replace('"hunter2"', "<redacted>").replace(
        "hunter2", "<redacted>"
    )


@pytest.mark.parametrize(
    ("name", "line", "shown"),
    [
        ("upsmon.conf", "MONITOR ups@pve 1 mon hunter2 primary", "MONITOR ups@pve 1 mon <redacted> primary"),
        ("upsmon.conf", r'MONITOR ups@pve 1 mon "h\"unter2" secondary', "MONITOR ups@pve 1 mon <redacted> secondary"),
        ("upsmon.conf", "MONITOR ups@pve 1 mon hunter2 SLAVE", "MONITOR ups@pve 1 mon <redacted> SLAVE"),
        ("upsmon.conf", 'CERTIDENT "nick" "hunter2"', 'CERTIDENT "nick" <redacted>'),
        ("upsd.conf", "CERTIDENT nick hunter2", "CERTIDENT nick <redacted>"),
        ("upsd.users", "  password = hunter2  # hunter1", "  password = <redacted>  # <redacted>"),
        ("upsd.users", '"password" = hunter2', '"password" = <redacted>'),
        ("upsd.users", "# password = hunter2", "# <redacted>"),
        ("upsmon.conf", "# MONITOR ups@pve 1 mon hunter2 primary", "# <redacted>"),
        ("ups.conf", "    privPassword = hunter2", "    privPassword = <redacted>"),
        ("ups.conf", "    community = hunter2", "    community = <redacted>"),
        # malformed, so any word may be the password
        ("upsd.users", "password = hunter2 hunter3", "<redacted>"),
        ("upsd.users", "password hunter2", "<redacted>"),
        ("upsd.users", "pasword = hunter2", "<redacted>"),
        ("upsd.users", "[admin password = hunter2", "<redacted>"),
        ("upsd.users", "[admin] password = hunter2", "<redacted>"),
        ("upsd.users", '"password=hunter2"', "<redacted>"),
        ("upsd.users", 'password = "hun#ter2"', "<redacted>"),
        ("upsd.users", "password = hun#ter2", "password = <redacted># <redacted>"),
        ("upsd.users", "password = hünter2", "<redacted>"),
        ("upsd.users", "actions = SET password = hunter2", "<redacted>"),
        ("upsd.users", "hunter2", "<redacted>"),
        ("upsmon.conf", "MONITOR ups@pve 1 mon hun=ter2 primary", "<redacted>"),
        ("upsmon.conf", "MONITOR ups@pve 1 mon hunter 2 primary", "<redacted>"),
        ("upsmon.conf", "MONITOR ups@pve 1 hunter2 primary", "<redacted>"),
        ("upsmon.conf", "MONITOR ups@pve 1 mo n hunter2", "<redacted>"),
        ("upsmon.conf", "MONTOR ups@pve 1 mon hunter2 primary", "<redacted>"),
        ("upsmon.conf", "monitor ups@pve 1 mon hun#ter2 primary", "<redacted>"),
        ("upsd.conf", "LISTEN 0.0.0.0 CERTIDENT nick hunter2", "<redacted>"),
        ("ups.conf", "    snmp_password_2 hunter2", "<redacted>"),
        ("upsd.users.bak", "anything", "<redacted>"),
    ],
)
def test_secret_in_a_line_is_redacted(name: str, line: str, shown: str) -> None:
    assert redact_text(name, line + "\n") == shown + "\n"
    assert redact_text(name, f"\n{line}\n\n") == f"\n{shown}\n\n"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("upsmon.conf", 'NOTIFYMSG ONBATT "UPS \\#1 on battery"'),
        ("upsmon.conf", "POWERDOWNFLAG /etc/killpower"),
        ("upsd.conf", "LISTEN 0.0.0.0 3493 # everywhere"),
        ("upsd.conf", "CERTPATH /etc/nut/cert"),
        ("ups.conf", '    desc = "a UPS"'),
        ("ups.conf", "    ignorelb"),
        ("upsd.users", "[admin]"),
        ("nut.conf", "MODE=netserver"),
        ("upssched.conf", "AT ONBATT * EXECUTE password"),
    ],
)
def test_harmless_line_is_unchanged(name: str, line: str) -> None:
    for text in (line, line + "\n", f"\n\n{line}\r\n\n"):
        assert redact_text(name, text) == text


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("upsd.users", 'password = "one\nhunter2"\n[b]\n', "<redacted>\n<redacted>\n[b]\n"),
        ("upsd.users", "password = \\\nhunter2\n[b]\n", "<redacted>\n<redacted>\n[b]\n"),
        ("upsd.users", 'password = "a#actions = "\nhunter2\n"\n[b]\n', "<redacted>\n<redacted>\n<redacted>\n[b]\n"),
        ("upsd.users", 'password = "a# b "\nactions = SET\n"\n[b]\n', "<redacted>\n<redacted>\n<redacted>\n[b]\n"),
        (
            "upsmon.conf",
            'NOTIFYMSG ONLINE "open\nMONITOR a@b 1 m \\\nhunter2 primary\n"\nDEADTIME 15\n',
            "<redacted>\n<redacted>\n<redacted>\n<redacted>\nDEADTIME 15\n",
        ),
        ("upsd.users", "actions = SET \\\n  FSD\n", "actions = SET \\\n  FSD\n"),
        ("upsd.users", "[a]\npassword = hunter2", "[a]\npassword = <redacted>"),
        ("upsd.users", "[a]\nhunter2", "[a]\n<redacted>"),
    ],
)
def test_secret_over_several_lines_is_redacted(name: str, text: str, shown: str) -> None:
    assert redact_text(name, text) == shown


SECRET = "hunter2hunter2"
JUNK = st.text(st.sampled_from('"\\#= \tab\x01é[]'), max_size=6)


@given(before=TRICKY, glue=JUNK, left=JUNK, right=JUNK, after=TRICKY)
def test_password_is_redacted_in_any_context(before: str, glue: str, left: str, right: str, after: str) -> None:
    text = f"{before}\npassword ={glue}{left}{SECRET}{right}\n{after}"
    shown = redact_text("upsd.users", text)
    assert SECRET not in shown
    assert shown.count("\n") == text.count("\n")


@given(before=TRICKY, left=JUNK, right=JUNK, after=TRICKY)
def test_password_of_a_monitor_line_is_redacted(before: str, left: str, right: str, after: str) -> None:
    text = f"{before}\nMONITOR ups@pve 1 mon {left}{SECRET}{right} primary\n{after}"
    shown = redact_text("upsmon.conf", text)
    assert SECRET not in shown
    assert shown.count("\n") == text.count("\n")


@given(st.sampled_from(["ups.conf", "upsd.conf", "upsd.users", "upsmon.conf", "other"]), TRICKY)
def test_any_text_is_redacted_quickly(name: str, text: str) -> None:
    shown = redact_text(name, text)
    assert shown.count("\n") == text.count("\n")


@pytest.mark.parametrize("name", ["upsd.conf", "upsd.users", "upsmon.conf", "ups.conf"])
def test_only_directives_with_secrets_are_redacted(name: str) -> None:
    for word, directive in directives.DIRECTIVES[name].items():
        shown = redact_text(name, f"{word} something\n")
        assert ("<redacted>" in shown) == (directive.kind in ("monitor", "identity", "password")), word
