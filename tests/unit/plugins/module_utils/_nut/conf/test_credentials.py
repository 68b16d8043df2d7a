# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A password and a user name are judged alike at each door: the lookup, upsd.users, MONITOR on either side, TrueNAS."""

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


def looked_up(user: str, password: str) -> list[str]:
    lookup = LookupModule()
    lookup.set_options = lambda **_options: None
    lookup.get_option = {"user": user, "given": password}.__getitem__
    host = {"nut_client_password": password, "nut_password_directory": "/proc/nowhere"}
    try:
        lookup.run(["nas"], {"hostvars": {"nas": host}, "groups": {}})
    except AnsibleError as error:
        return [str(error)]
    return []


def of_a_client(user: str, password: str) -> list[str]:
    return consistency.find_inconsistencies(
        {"upsmon.conf": CLIENT.format(grammar.quote_word(user), grammar.quote_word(password))}
    )


def of_a_server(user: str, password: str) -> list[str]:
    line = f"MONITOR ups@192.0.2.1 0 {grammar.quote_word(user)} {grammar.quote_word(password)} secondary\n"
    return consistency.find_inconsistencies({**SERVER, "upsmon.conf": SERVER["upsmon.conf"] + line})


def of_upsd(user: str, password: str) -> list[str]:
    login = f"{grammar.quote_word(f'[{user}]')}\npassword = {grammar.quote_word(password)}\n"
    return consistency.find_inconsistencies({**SERVER, "upsd.users": SERVER["upsd.users"] + login})


def of_truenas(user: str, password: str) -> list[str]:
    return [str(problem) for problem in truenas.find_problems({"monuser": user, "monpwd": password})]


DOORS: Mapping[str, Callable[[str, str], list[str]]] = {
    "lookup": looked_up,
    "nut_client's MONITOR": of_a_client,
    "nut_server's MONITOR": of_a_server,
    "upsd.users": of_upsd,
    "TrueNAS": of_truenas,
}


@pytest.mark.parametrize("login", DOORS.values(), ids=DOORS.keys())
@pytest.mark.parametrize(("text", "verdict"), VERDICTS.items(), ids=[text[:9] for text in VERDICTS])
def test_password_is_judged_alike_everywhere(login: Callable[[str, str], list[str]], text: str, verdict: str) -> None:
    wrong = login("user", text)
    assert len(wrong) == bool(verdict)
    assert all(verdict in line and (not text or text not in line) for line in wrong)


@pytest.mark.parametrize("login", DOORS.values(), ids=DOORS.keys())
@pytest.mark.parametrize(("text", "verdict"), VERDICTS.items(), ids=[text[:9] for text in VERDICTS])
def test_user_name_is_judged_alike_everywhere(login: Callable[[str, str], list[str]], text: str, verdict: str) -> None:
    wrong = login(text, "s3cret")
    assert len(wrong) == bool(verdict)
    assert all(verdict in line for line in wrong)


@pytest.mark.parametrize("login", [of_a_client, of_a_server, of_upsd, of_truenas])
def test_a_login_without_a_name_or_a_password_is_refused(login: Callable[[str, str], list[str]]) -> None:
    for wrong in (login("", "s3cret"), login("user", "")):
        assert [line for line in wrong if "is empty" in line]


def test_message_names_line_and_safe_characters() -> None:
    assert of_a_client("media", "a#b=c") == [
        "upsmon.conf: MONITOR ups@192.0.2.1: the password contains a '#' and a '=': upsmon sends it unquoted, and upsd would read"
        " a different password. Safe characters are letters, digits, '.', '_' and '-'"
    ]
    assert of_upsd("admin", "a#b=c")[0].startswith("upsd.users, [admin]: the password contains a '#' and a '='")


def test_rest_of_password_with_blanks_is_not_shown() -> None:
    """Without quotes, the fifth word is a part of it, and the sixth another."""
    wrong = consistency.find_inconsistencies({"upsmon.conf": CLIENT.format("media", "open sesame")})
    assert wrong
    assert not [line for line in wrong if "open" in line or "sesame" in line]
