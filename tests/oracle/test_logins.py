# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library refuses names and passwords with which a real upsmon can't log in, and reads upsd.users as upsd does."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import dry_run, grammar, upsd, upsmon
from hypothesis import example, given, settings
from hypothesis import strategies as st

ODD = [
    *("s3cret", "a'b!$%&*()+,-./:;<>?@[]^_`{|}~", "'a b'", "$HOME", "`id`", "%s%n", "-", "*", "[", "[a", "[a]", "a]", "a]b", "]"),
    *("a b", " a", "a ", "a=b", "=a", "a=", "a#b", "#a", "a#", "a\\b", "a\\", "\\a", 'a"b', 'a"', '"a', '"a"', "a\\ b", "a\\=b"),
    *("a\x7fb", "x" * 400, "x" * grammar.CREDENTIAL_LIMIT, "x" * (grammar.CREDENTIAL_LIMIT + 1), "x" * 510),
]  # fmt: skip


def test_logins_are_refused_exactly_if_upsmon_fails_with_them(nut: Any) -> None:
    logins = [*((f"u{n}", odd) for n, odd in enumerate(ODD)), *((odd, f"p{n}") for n, odd in enumerate(ODD))]
    written = [
        (grammar.quote_word(f"[{user}]"), grammar.quote_word(user), grammar.quote_word(secret))
        for user, secret in logins
    ]
    files = {
        "ups.conf": "".join(f"[w{n}]\ndriver = x\nport = y\n" for n in range(len(logins))),
        "upsd.users": "".join(
            f"{header}\npassword = {secret}\nupsmon secondary\n" for header, _user, secret in written
        ),
    }
    watching = [
        f"MONITOR w{n}@127.0.0.1:4000 1 {user} {secret} secondary\nSHUTDOWNCMD /bin/true\n"
        for n, (_header, user, secret) in enumerate(written)
    ]
    entered = nut.call_inside("log_in", files=files, monitors=watching)
    problems = [grammar.find_user_problem(user) or grammar.find_password_problem(secret) for user, secret in logins]
    assert {
        login: problem
        for login, inside, problem in zip(logins, entered, problems, strict=True)
        if inside != (not problem)
    } == {}


NAMES = ("a", "b")
PASSWORDS = ("p", 'q "#\\=', "r")

LINES = st.one_of(
    st.sampled_from(["[a]", " [a] # one", '"[b]"', "[b]", "[a", "[b] x", "[c]", "# x", "", '"open']),
    st.builds(
        "{} {} {}{}".format,
        st.sampled_from(["password", "\tPassWord", '"password"', "pasword"]),
        st.sampled_from(["=", "=", "=", ""]),
        st.sampled_from(PASSWORDS).flatmap(
            lambda word: st.sampled_from([grammar.quote_word(word), word.replace(" ", "\\ ")])
        ),
        st.sampled_from(["", " # x", " more"]),
    ),
    st.builds(
        "{} {}".format,
        st.sampled_from(["upsmon", "UPSMON", "upsmon ="]),
        st.sampled_from(["primary", "secondary", "master", "slave", "Primary", "none", ""]),
    ),
)
TEXTS = st.builds("{}{}".format, st.lists(LINES, max_size=8).map("\n".join), st.sampled_from(["\n", ""]))


@settings(derandomize=True, deadline=None, max_examples=150)
@given(TEXTS)
@example(
    "[a]\npassword = p\npassword = r\nupsmon primary\n[b]\nupsmon secondary\npassword = p\n[a]\nupsmon secondary\n"
)
def test_read_users_returns_the_logins_that_upsd_accepts(nut: Any, text: str) -> None:
    tried = [(name, password) for name in NAMES for password in PASSWORDS]
    found = nut.call_inside(
        "ask_upsd",
        files={"ups.conf": "[w]\ndriver = x\nport = y\n", "upsd.users": text},
        conversations=[
            [f"USERNAME {name}", f"PASSWORD {grammar.quote_word(password)}", "LOGIN w", "PRIMARY w"]
            for name, password in tried
        ],
    )
    seen = [tuple(line.startswith("OK") for line in answer.splitlines()[2:]) for answer in found["answers"]]
    users = upsd.read_users(text)
    expected = []
    for name, password in tried:
        user = users.get(name)
        right = user is not None and user.password == password
        expected.append(
            (
                right and user is not None and user.type in upsd.PRIMARY + upsd.SECONDARY,
                right and user is not None and user.type in upsd.PRIMARY,
            )
        )
    assert seen == expected


SYSTEMS = st.sampled_from(["a@b", "ups@localhost:3493", "ups", '"d e@f"', "g#h@i", '"j=k@l"', "m\\@n", "[::1]", "\x7f"])
MONITORS = st.one_of(
    st.builds(
        "{} {} {} {} {}{}{}".format,
        st.sampled_from(["MONITOR", " \tMONITOR", '"MONITOR"', "monitor", "#MONITOR"]),
        SYSTEMS,
        st.sampled_from(["1", "0", '"2"', "003"]),
        st.sampled_from(["u", '"u v"', "\\u"]),
        st.sampled_from(["p", "p=", '"#', '"p\\#" ', ""]),
        st.sampled_from([" primary", " secondary", "\\\n master", " slave", " Primary", "", " x"]),
        st.sampled_from(["", " # x", " more", '"']),
    ),
    st.sampled_from(["", '"open', "DEADTIME 15"]),
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(MONITORS, max_size=5).map("\n".join), st.sampled_from(["\n", ""]))
def test_read_monitors_returns_the_upses_that_upsmon_monitors(nut: Any, lines: str, end: str) -> None:
    text = lines + end
    # with -K alone, 2.8.5 does not say what it monitors
    command = [
        "upsmon",
        *(["-D"] if nut.version >= (2, 8, 5) else []),
        "-P",
        dry_run.NO_PID,
        "-K",
        "-f",
        "/run/oracle/upsmon.conf",
    ]
    ((_code, output),) = nut.call_inside("run_programs", files={"upsmon.conf": text}, commands=[command])
    expected = []
    for monitor in upsmon.read_monitors(text):
        kind = "primary" if monitor.type.lower() in upsd.PRIMARY else "secondary"
        expected.append(
            f"UPS: {monitor.system} "
            + (f"({kind}) (power value {monitor.power})" if monitor.power else "(monitoring only)")
        )
    seen = re.findall(r"^(?: *[0-9]+\.[0-9]+\t)?(UPS: .*)$", output, re.MULTILINE)
    # upsmon stops at a line that lacks only the last word
    short = [line for line in grammar.parse_lines(text) if line.words[0] == "MONITOR" and len(line.words) == 5]
    assert ("unusable configuration" in output) == bool(short)
    assert seen == (expected[: len(seen)] if short else expected)
