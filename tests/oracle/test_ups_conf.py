# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""conf/ups_conf parses any ups.conf as upsd, the drivers and nut-driver-enumerator do."""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.homelab.nut.plugins.module_utils._nut.conf import enumerator, ups_conf
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.ups_conf import UpsConf
from hypothesis import example, given, settings
from hypothesis import strategies as st

REPEATABLE = settings(derandomize=True, deadline=None)

# bytes of the longest socket name (driver-section) with which upsd starts
SOCKET = 107

JUNK = st.lists(
    st.sampled_from(
        [
            *('"', "#", "\\", "=", " ", "\t", "\n", "\\\n", "\r", "\f", "[", "]", "'", "é", "\x01", "\x7f"),
            *("[a]", "[b]", '"[c d]"', "driver", "port", "desc", "desc = ", " = ", "x", "y z", "w" * 513, "v " * 33),
        ]
    ),
    max_size=8,
).map("".join)
NAMES = st.sampled_from(["[a]", "[b]", " \t[b] # the second", '"[c d]"', "[e] = 1", "[f]x]", "[]", "[g"])
LINES = st.one_of(
    JUNK,
    NAMES,
    st.builds("{}\ndriver = x\nport = y".format, NAMES),
    st.builds(
        "{}{} = {}".format, st.sampled_from(["", "\t "]), st.sampled_from(["driver", "port", "desc", "Port"]), JUNK
    ),
    st.builds('desc = "{}"'.format, JUNK),
)
TEXTS = st.builds("{}{}".format, st.lists(LINES, max_size=10).map("\n".join), st.sampled_from(["\n", ""]))


def served_by_upsd(conf: UpsConf) -> list[tuple[str, str, str | None]]:
    """Return the UPSes of a ups.conf that upsd should serve: driver, name, desc."""
    found: list[tuple[str, str, str | None]] = []
    names: set[str] = set()
    for section in reversed(list(conf.sections.values())):
        keys = dict(section.keys)
        driver, port = keys.get("driver"), keys.get("port")
        # upsd takes the last of several sections with the same name, ignoring case
        if driver is not None and port is not None and section.name.lower() not in names:
            names.add(section.name.lower())
            found.insert(0, (driver, section.name, keys.get("desc")))
    return found


def format_description(desc: str | None) -> str:
    """Return a description as upsd sends it; its buffer has 512 bytes."""
    text = "Description unavailable" if desc is None else desc
    return re.sub(r'([\\"#])', r"\\\1", text)[: ups_conf.ANSWER_LIMIT - 1]


def is_fatal(conf: UpsConf, version: tuple[int, int, int]) -> bool:
    """Return whether upsd crashes or exits because of a ups.conf."""
    bare = any(
        value is None and key in ("driver", "port", "desc")
        for section in conf.sections.values()
        for key, value in section.keys
    )
    return (bare and version < (2, 8, 1)) or any(
        len(f"{driver}-{name}") > SOCKET for driver, name, _desc in served_by_upsd(conf)
    )


@settings(REPEATABLE, max_examples=250)
@given(TEXTS)
@example("[a]\ndriver = x\nport = y\ndesc\n")
@example("[a]\ndriver = x\ndriver\nport = y\n")
@example("[a]\ndriver = x\nport = y\n[A]\ndriver = x\nport = y\ndesc = 1\n[B]\ndriver = x\nport = y\n[b]\n")
@example(f"[{'a' * 105}]\ndriver = x\nport = y\n")
@example(f"[{'a' * 106}]\ndriver = x\nport = y\n")
def test_upsd_serves_the_sections_that_parse_ups_conf_returns(nut: Any, text: str) -> None:
    conf = ups_conf.parse_ups_conf(text)
    found = nut.call_inside("ask_upsd", files={"ups.conf": text}, conversations=[["LIST UPS"]])
    if is_fatal(conf, nut.version):
        assert found["answers"] is None
        return
    (left,) = found["answers"]
    for _driver, name, desc in served_by_upsd(conf):
        line = f'UPS {name} "{format_description(desc)}"\n'[: ups_conf.ANSWER_LIMIT]
        assert line in left
        # the order does not matter
        left = left.replace(line, "", 1)
    assert left == "BEGIN LIST UPS\nEND LIST UPS\n"


# Files as people write them
CORPUS: dict[str, str] = {
    "as the manual shows it": """\
# Network UPS Tools: example ups.conf
pollinterval = 1
maxretry = 3

[office]
\tdriver = dummy-ups\t# no real one
\tport = y.dev
\tdesc = "The office's UPS"

[lab]
    driver = dummy-ups
    port = y.dev
    default.battery.charge.low = 30
    override.battery.runtime.low = 300
""",
    "no blanks, no quotes": "pollinterval=1\n[a]\ndriver=dummy-ups\nport=y.dev\ndesc=rack\n[b]\ndriver=dummy-ups\nport=y.dev\n",
    "port before driver, others before both": "[a]\nsdorder = 1\ndesc = last\nport = y.dev\ndriver = dummy-ups\n",
    "comments where a line ends": '[a]#a\ndriver = dummy-ups#b\nport = "y.dev" # c\ndesc = a\\#b "#" d\n',
    "quotes and backslashes": '[a]\ndriver = "dummy-ups"\nport = "y".dev\nport = y\\.dev\ndesc = "the \\"new\\" \\#1 C:\\\\temp"\n',
    "flags": "nowait\n[a]\ndriver = dummy-ups\nport = y.dev\n  nolock\nignorelb # no\noverride.battery.charge = 3\n"
    "override.battery.charge.low = 20\n",
    "lines that go on": "[a]\ndriver = \\\ndummy-ups\nport \\\n= y.dev\ndesc = \"one \\\ntwo\"\n",
    "quotes left open": '[a]\ndriver = dummy-ups\nport = y.dev\ndesc = "one\n[b]\ndriver = dummy-ups\nport = y.dev\n',
    "a number sign in quotes": '[a]\ndriver = dummy-ups\nport = y.dev\ndesc = "UPS #1"\nsdorder = 2\n',
    "a key twice": "pollinterval = 9\npollinterval = 1\n[a]\ndriver = dummy-ups\nport = auto\ndesc = old\n"
    "port = y.dev\ndriver = dummy-ups\ndesc = new\nmode = dummy-loop\nMODE = dummy-once\n",
    "a section in two parts": "[a]\ndriver = dummy-ups\n[b]\ndriver = dummy-ups\nport = y.dev\n[a]\nport = y.dev\ndesc = 2\n",
    "global settings behind a section": "[a]\ndriver = dummy-ups\nport = y.dev\n\npollinterval = 1\nmaxretry = 3\n",
    "ends of lines as in Windows": "pollinterval = 1\r\n\r\n[a]\r\n\tdriver = dummy-ups\r\n\tport = y.dev\r\n\tdesc = \"x\"\r\n",
    "no end of the last line": "[a]\ndriver = dummy-ups\nport = y.dev\ndesc = x",
    "no end of a last flag": "[a]\ndriver = dummy-ups\nport = y.dev\nnolock",
    "capital letters": "[UPS]\nDRIVER = usbhid-ups\nPort = auto\ndriver = dummy-ups\nport = y.dev\nMode = dummy-once\n"
    "DEFAULT.battery.charge = 4\n",
    "lines that NUT skips": "pollinterval 5\n[a] b = c\ndriver dummy-ups\ndriver = dummy-ups\nport = y.dev\nport =\ndesc is x\n",
    "odd names": '[a.b]\ndriver = dummy-ups\nport = y.dev\n[c@d]\ndriver = dummy-ups\nport = y.dev\n"[e f]"\n'
    "driver = dummy-ups\nport = y.dev\n[empty]\n",
    "not only ASCII": "# B\u00fcro\n[a]\ndriver = dummy-ups\nport = y.dev\ndesc = \"B\u00fcro\t1\x7f\"\n",
    "nothing": "",
    "comments alone": "\n# nothing yet\n",
    "global settings alone": "maxretry = 3\n",
}  # fmt: skip


def parse_variables(said: str) -> list[str]:
    """Pick what a driver tells of itself and its UPS out of all that it says, or why it does not run."""
    return re.findall(r"^(?:\w+[.][\w.]+|Fatal error): .*$", said, re.MULTILINE)


def test_upsd_and_drivers_see_the_same_when_a_ups_conf_is_written_anew(nut: Any) -> None:
    before = list(CORPUS.values())
    after = [ups_conf.render_conf(ups_conf.parse_ups_conf(text)) for text in before]
    asked = [["LIST UPS"]]
    for kind, old, new in zip(CORPUS, before, after, strict=True):
        seen = nut.call_inside("ask_upsd", files={"ups.conf": old}, conversations=asked)["answers"]
        assert seen is not None
        assert nut.call_inside("ask_upsd", files={"ups.conf": new}, conversations=asked)["answers"] == seen, kind
    names = [[name for _driver, name, _desc in served_by_upsd(ups_conf.parse_ups_conf(text))] for text in before]
    told = nut.call_inside("dump_variables", texts=[*before, *after], names=[*names, *names])
    for kind, old, new in zip(CORPUS, told[: len(before)], told[len(before) :], strict=True):
        for (old_code, old_said), (new_code, new_said) in zip(old, new, strict=True):
            assert (old_code, new_code) == (0, 0), (kind, old_said, new_said)
            assert parse_variables(old_said)
            assert parse_variables(new_said) == parse_variables(old_said), kind


# Texts that the enumerator's shell tools interpret differently from NUT
SCRIPTED = st.sampled_from(
    [
        "\\\\",
        "\\\\n",
        "\\\\c",
        "\\\\101",
        "\\\\0101",
        "\\\\0",
        "\\\\777",
        '"a b"',
        '="b"',
        '"\\"',
        '" \\"',
        " \\#",
        " \\x\\y",
        "a b",
        "# x",
        "&",
        "-n",
        "\u20ac",
    ]
)
CONFS = st.builds(
    "{}{}".format,
    st.lists(
        st.one_of(
            LINES,
            st.builds("{}{}{}{}".format, JUNK, SCRIPTED, SCRIPTED, JUNK),
            st.builds(
                '{} ={}"{}"'.format, st.sampled_from(["x", " y", "# z"]), st.sampled_from([" ", "\t\\"]), SCRIPTED
            ),
        ),
        max_size=8,
    ).map("\n".join),
    st.sampled_from(["\n", ""]),
)


@settings(REPEATABLE, max_examples=20)
@given(st.lists(CONFS, min_size=1, max_size=5))
@example(list(CORPUS.values()))
@example(['driver =\ndesc = "desc = \\"\n', "[a]\nx = \\# y \\#\\#\n", "[a]\nx = \\# y \\#z\n"])
def test_section_checksum_equals_the_checksum_of_the_enumerator(nut: Any, texts: list[str]) -> None:
    names = ["", "a", "b", "f]x"]
    found = nut.call_inside("read_checksums", texts=texts, names=[names] * len(texts))
    assert found == [[enumerator.section_checksum(text, name) or "" for name in names] for text in texts]
