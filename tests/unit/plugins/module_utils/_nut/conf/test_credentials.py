# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Passwords and user names are checked alike everywhere: in the lookup, upsd.users, MONITOR on either side, and TrueNAS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from ansible.errors import AnsibleError
from ansible_collections.homelab.nut.plugins.lookup.password import LookupModule
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import consistency, grammar
from ansible_collections.homelab.nut.plugins.module_utils._truenas import ups as truenas

VERDICTS = {
    "s3cret": "",
    'ab"cd': "",
    "a'b!$%&*()+,-./:;<>?@[]^_`{|}~": "",
    "x" * 501: "",
    "a#b=c": "contains a '#' and a '='",
    "a b": "contains a space",
    "a\\b": "contains a backslash",
    '"ab': "begins with a double quote",
    "x" * 502: "has 502 characters",
}


CLIENT = "MONITOR ups@192.0.2.1 1 {} {} secondary\nSHUTDOWNCMD /bin/true\n"
SERVER = {
    "ups.conf": "[ups]\ndriver = dummy-ups\nport = x\n",
    "upsd.users": "[monitor]\npassword = s\nupsmon primary\n",
    "upsmon.conf": "MONITOR ups@localhost 1 monitor s primary\nSHUTDOWNCMD /bin/true\n",
}


def check_lookup(user: str, password: str) -> list[str]:
    lookup = LookupModule()
    lookup.set_options = lambda **_options: None
    lookup.get_option = {"user": user, "given": password}.__getitem__
    host = {"nut_client_password": password, "nut_password_directory": "/proc/nowhere"}
    try:
        lookup.run(["nas"], {"hostvars": {"nas": host}, "groups": {}})
    except AnsibleError as error:
        return [str(error)]
    return []


def check_client_monitor(user: str, password: str) -> list[str]:
    return consistency.find_inconsistencies(
        {"upsmon.conf": CLIENT.format(grammar.quote_word(user), grammar.quote_word(password))}
    )


def check_server_monitor(user: str, password: str) -> list[str]:
    line = f"MONITOR ups@192.0.2.1 0 {grammar.quote_word(user)} {grammar.quote_word(password)} secondary\n"
    return consistency.find_inconsistencies({**SERVER, "upsmon.conf": SERVER["upsmon.conf"] + line})


def check_upsd_users(user: str, password: str) -> list[str]:
    login = f"{grammar.quote_word(f'[{user}]')}\npassword = {grammar.quote_word(password)}\n"
    return consistency.find_inconsistencies({**SERVER, "upsd.users": SERVER["upsd.users"] + login})


def check_truenas(user: str, password: str) -> list[str]:
    return [str(problem) for problem in truenas.find_problems({"monuser": user, "monpwd": password})]


CHECKS: Mapping[str, Callable[[str, str], list[str]]] = {
    "lookup": check_lookup,
    "nut_client's MONITOR": check_client_monitor,
    "nut_server's MONITOR": check_server_monitor,
    "upsd.users": check_upsd_users,
    "TrueNAS": check_truenas,
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
@pytest.mark.parametrize(("text", "verdict"), VERDICTS.items(), ids=[text[:9] for text in VERDICTS])
def test_password_gets_the_same_verdict_everywhere(
    check: Callable[[str, str], list[str]], text: str, verdict: str
) -> None:
    wrong = check("user", text)
    assert len(wrong) == bool(verdict)
    assert all(verdict in line and (not text or text not in line) for line in wrong)


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
@pytest.mark.parametrize(("text", "verdict"), VERDICTS.items(), ids=[text[:9] for text in VERDICTS])
def test_user_name_gets_the_same_verdict_everywhere(
    check: Callable[[str, str], list[str]], text: str, verdict: str
) -> None:
    wrong = check(text, "s3cret")
    assert len(wrong) == bool(verdict)
    assert all(verdict in line for line in wrong)


@pytest.mark.parametrize("check", [check_client_monitor, check_server_monitor, check_upsd_users, check_truenas])
def test_empty_user_name_or_password_is_refused(check: Callable[[str, str], list[str]]) -> None:
    for wrong in (check("", "s3cret"), check("user", "")):
        assert [line for line in wrong if "is empty" in line]


def test_message_names_line_and_remedy() -> None:
    assert check_client_monitor("media", "a#b=c") == [
        "upsmon.conf: MONITOR ups@192.0.2.1: the password contains a '#' and a '=': upsmon sends it unquoted, and upsd would read"
        " a different password. Safe characters are letters, digits, '.', '_' and '-'"
    ]
    assert check_upsd_users("admin", "a#b=c")[0].startswith(
        "upsd.users, [admin]: the password contains a '#' and a '='"
    )


def test_no_part_of_a_password_with_blanks_is_shown() -> None:
    """Without quotes, the fifth and sixth words of the line are parts of the password."""
    wrong = consistency.find_inconsistencies({"upsmon.conf": CLIENT.format("media", "open sesame")})
    assert wrong
    assert not [line for line in wrong if "open" in line or "sesame" in line]
