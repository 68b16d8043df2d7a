# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import allow
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.allow import AccessError
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access
from ansible_collections.homelab.nut.plugins.module_utils._nut.net.access import AllowedSource, make_source
from ansible_collections.homelab.nut.tests.unit.support.nft import list_table
from hypothesis import given
from hypothesis import strategies as st

NAS, BOX = make_source("nas", "nas.lan"), make_source("192.0.2.0/24", "192.0.2.0/24")
ALLOWED = {NAS: ("198.51.100.5", "2001:db8::5"), BOX: ("192.0.2.0/24",)}
TEXT = access.render_table([3493], ALLOWED)


def list_rules(text: str) -> list[str]:
    """Return the rules in all chains of a file."""
    chains = re.findall(r"chain \w+ \{\n(.*?)\n\t\}", text, re.DOTALL)
    return [line.strip() for chain in chains for line in chain.splitlines()]


# Sources


@pytest.mark.parametrize(
    ("given_text", "usual"),
    [
        ("192.0.2.5", "192.0.2.5"),
        (" 192.0.2.0/24 ", "192.0.2.0/24"),
        ("192.0.2.0/255.255.255.0", "192.0.2.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("192.0.2.5/32", "192.0.2.5/32"),
        ("2001:DB8:0::5", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.5", "192.0.2.5"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("nas", "nas"),
        ("home-assistant.lan", "home-assistant.lan"),
        ("my_box", "my_box"),
        ("7of9", "7of9"),
    ],
)
def test_source_is_an_address_a_network_or_a_name(given_text: str, usual: str) -> None:
    assert allow.parse_source(given_text) == usual


HOSTILE = [
    "",
    " ",
    "nas lan",
    "nas\nlan",
    "nas;reboot",
    "$(reboot)",
    "`id`",
    "{ 0.0.0.0/0 }",
    "192.0.2.1 }",
    "192.0.2.1, 192.0.2.2",
    "192.0.2.1-192.0.2.9",
    "@allowed4",
    '"nas"',
    "#nas",
    "nas\\",
    "include",
    "-x",
    "a" * 64,
    ".".join(["a" * 60] * 5),
    "nas..lan",
    "nas.",
    "nas\0",
    "\x1b[2Jnas",
    "192.0.2.300",
    "192.0.2",
    "1",
    "192.0.2.0/33",
    "192.0.2/24",
    "2001:db8::/129",
    "::1::2",
    "nas/24",
    "any ",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ünïcode",
]


@pytest.mark.parametrize("text", [text for text in HOSTILE if text not in ("include", "any ")])
def test_invalid_source_is_refused(text: str) -> None:
    with pytest.raises(AccessError) as error:
        allow.parse_source(text)
    assert str(error.value).isprintable()


def test_network_with_host_bits_is_refused_with_both_remedies() -> None:
    with pytest.raises(AccessError, match=r"write 192\.0\.2\.0/24 for the network, or 192\.0\.2\.5 for the host"):
        allow.parse_source("192.0.2.5/24")


def test_any_allows_all_addresses() -> None:
    assert allow.parse_allow("any") == allow.parse_allow(["any"]) == ("any",)
    assert allow.parse_allow(["192.0.2.5", "any", "192.0.2.5"]) == ("192.0.2.5", "any")
    assert allow.parse_allow(None) == allow.parse_allow("") == allow.parse_allow([]) == ()
    with pytest.raises(AccessError, match="must be a list"):
        allow.parse_allow({"address": "192.0.2.5"} and 5)
    with pytest.raises(AccessError, match="Write any to let everybody connect"):
        allow.parse_allow(["0.0.0.0"])


@given(st.text())
def test_any_text_is_a_safe_word_or_refused(text: str) -> None:
    """An accepted text is safe in a file for nft, and on its own line there."""
    try:
        source = make_source(text, text)
    except AccessError:
        return
    assert re.fullmatch(r"[A-Za-z0-9_.:/-]+", source.address)
    assert re.fullmatch(r"[A-Za-z0-9_.:/-]+", source.name)


# Names


def test_only_names_are_resolved() -> None:
    asked = []

    def resolve(name: str, seconds: float) -> Sequence[str]:
        asked.append((name, seconds))
        if name == "away":
            raise OSError("no such name")
        return {"nas.lan": ["2001:db8::5", "198.51.100.7", "fe80::5%eth0", "198.51.100.7"], "self": ["127.0.1.1"]}[name]

    sources = [NAS, BOX, NAS, make_source("away", "away"), make_source("self", "self")]
    addresses, problems = access.resolve_sources(sources, resolve)
    assert addresses == {NAS: ("198.51.100.7", "2001:db8::5", "fe80::5"), BOX: ("192.0.2.0/24",)}
    assert sorted(asked) == [("away", 5.0), ("nas.lan", 5.0), ("self", 5.0)]
    assert problems[AllowedSource("away", "away")].startswith("away does not resolve on this host (no such name)")
    assert "self resolves to 127.0.1.1 on this host" in problems[AllowedSource("self", "self")]
    assert all("nut_client_address of that host, or nut_server_allow" in words for words in problems.values())


def test_known_addresses_are_kept_and_failures_reported() -> None:
    before = access.parse_sources(TEXT)
    new = make_source("tv", "tv.lan")
    allowed, warnings = access.keep_known_addresses(
        {}, {NAS: "nas does not resolve", new: "tv does not resolve"}, before
    )
    assert allowed == {NAS: ALLOWED[NAS], new: ()}
    assert warnings == [
        "nas does not resolve. Until then it may connect from 198.51.100.5, 2001:db8::5, as before",
        "tv does not resolve. Until then it can't connect, and is not told about a power cut",
    ]
    # an old address of a source that is now written differently does not count
    assert access.keep_known_addresses({}, {make_source("nas", "nas.home"): "x"}, before)[0] == {
        make_source("nas", "nas.home"): ()
    }


def test_new_address_is_added_and_none_removed() -> None:
    wider = access.widen_table(TEXT, lambda _name, _seconds: ["198.51.100.77"])
    assert access.parse_sources(wider) == {**ALLOWED, NAS: ("198.51.100.5", "2001:db8::5", "198.51.100.77")}
    assert access.parse_ports(wider) == {3493}
    # the same addresses, or fewer: nothing is written
    assert access.widen_table(wider, lambda _name, _seconds: ["198.51.100.77"]) == wider

    def fails(_name: str, _seconds: float) -> Sequence[str]:
        raise OSError("no name server")

    assert access.widen_table(wider, fails) == wider
    assert access.widen_table(TEXT, lambda _name, _seconds: ["127.0.0.1"]) == TEXT


def test_number_of_addresses_of_a_name_is_limited() -> None:
    text = TEXT
    for number in range(200):
        text = access.widen_table(text, lambda _name, _seconds, number=number: [f"203.0.113.{number}"])  # type: ignore[misc]
    assert access.parse_sources(text)[NAS] == tuple(f"203.0.113.{number}" for number in range(192, 200))


# The file


def test_file_has_sources_ports_and_rules() -> None:
    assert access.parse_sources(TEXT) == ALLOWED
    assert access.parse_ports(TEXT) == {3493}
    assert "elements = { 192.0.2.0/24, 198.51.100.5 }" in TEXT
    assert "elements = { 2001:db8::5 }" in TEXT
    # one transaction, whether the table exists or not
    body = [line for line in TEXT.splitlines() if not line.startswith("#")]
    assert body[:3] == ["table inet homelab_nut", "delete table inet homelab_nut", "table inet homelab_nut {"]
    assert "flush" not in TEXT


SOURCES = st.dictionaries(
    st.builds(
        lambda name, address: AllowedSource(re.sub("[^A-Za-z0-9_.:/-]", "_", name) or "_", address),
        st.text(),
        st.ip_addresses().map(str),
    ),
    st.lists(
        st.ip_addresses().map(str) | st.sampled_from(["0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16"]), max_size=4
    ),
    max_size=4,
)


@given(st.sets(st.integers(1, 65535), min_size=1, max_size=5), SOURCES)
def test_rules_concern_only_ports_of_upsd(ports: set[int], allowed: dict[AllowedSource, list[str]]) -> None:
    text = access.render_table(ports, allowed)
    hook, *rules = list_rules(text)
    assert hook == "type filter hook input priority -10; policy accept;"
    assert rules
    assert all(rule.startswith("tcp dport @ports ") for rule in rules)
    assert text.count("chain ") == 1
    assert re.findall(r"set ports \{\n\t\ttype inet_service\n\t\telements = \{ (.*) \}\n", text) == [
        ", ".join(map(str, sorted(ports)))
    ]
    # the first rule accepts this host, and the last one rejects
    assert rules[0] == 'tcp dport @ports iifname "lo" accept'
    assert rules[-1].endswith("reject with tcp reset")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert set(re.findall(r"table (\S+ \S+)", body)) == {"inet homelab_nut"}
    assert access.parse_ports(text) == ports


@pytest.mark.parametrize("ports", [[], [0], [65536], [-1], [22, 70000], [True]])
def test_invalid_port_is_refused(ports: list[int]) -> None:
    with pytest.raises(AccessError, match="port must be a number from 1 to 65535"):
        access.render_table(ports, {})


@given(SOURCES)
def test_networks_of_a_set_never_overlap(allowed: dict[AllowedSource, list[str]]) -> None:
    """nft would reject the whole file."""
    networks = access.collapse_networks(text for texts in allowed.values() for text in texts)
    for number, network in enumerate(networks):
        assert not any(network.version == other.version and network.overlaps(other) for other in networks[:number])


@given(st.text())
def test_any_file_can_be_parsed(text: str) -> None:
    for source, networks in access.parse_sources(f"# allowed: {text}\n# allowed: a a {text}").items():
        access.render_table([1], {source: networks})


# The table in the kernel


NETWORK = {"prefix": {"addr": "192.0.2.0", "len": 24}}
EXPECTED = [NETWORK, "198.51.100.5", "2001:db8::5"]


def test_loaded_table_is_parsed() -> None:
    listing = list_table(EXPECTED, [{"elem": {"val": "203.0.113.9", "timeout": 86400, "expires": 86000}}])
    loaded = access.parse_table(listing)
    assert loaded is not None
    assert loaded.refused == 5
    assert loaded.refused_from == ("203.0.113.9",)
    assert access.find_difference(loaded, TEXT) == ""
    assert "203.0.113.9. If one of them is yours" in access.explain_refusals(loaded)
    assert access.explain_refusals(access.parse_table(list_table())) == access.explain_refusals(None) == ""


def test_range_of_addresses_is_parsed() -> None:
    loaded = access.parse_table(list_table([{"range": ["192.0.2.4", "192.0.2.6"]}]))
    assert loaded is not None
    assert loaded.allowed == access.collapse_networks(["192.0.2.4", "192.0.2.5", "192.0.2.6"])


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (
            list_table([*EXPECTED, "203.0.113.9"]),
            "the loaded table allows 192.0.2.0/24, 198.51.100.5, 203.0.113.9, 2001:db8::5",
        ),
        (list_table(EXPECTED[:1]), "the loaded table allows 192.0.2.0/24"),
        (list_table([]), "the loaded table allows no address"),
        (list_table(EXPECTED, rules=6), "the rules of the loaded table were changed"),
        (list_table(EXPECTED, rules=8), "the rules of the loaded table were changed"),
        (list_table(EXPECTED).replace('"input"', '"forward"'), "the rules of the loaded table were changed"),
        (
            list_table(EXPECTED).replace('"policy": "accept"', '"policy": "drop"'),
            "the rules of the loaded table were changed",
        ),
        (list_table(EXPECTED, ports=[3493, 22]), "the loaded table covers other ports"),
        (list_table(EXPECTED, ports=[]), "the loaded table covers other ports"),
        ("", "the table inet homelab_nut is not loaded"),
        ("[]", "the table inet homelab_nut is not loaded"),
        ("[" * 100000, "the table inet homelab_nut is not loaded"),
        ('{"nftables": [{"set": {}}]}', "the table inet homelab_nut is not loaded"),
    ],
)
def test_difference_of_the_loaded_table_is_described(listing: str, words: str) -> None:
    assert access.find_difference(access.parse_table(listing), TEXT) == words


def test_address_in_a_network_is_allowed() -> None:
    networks = access.collapse_networks(["192.0.2.0/24", "2001:db8::/32"])
    assert [access.is_allowed(address, networks) for address in ("192.0.2.9", "2001:db8::9", "127.0.0.1", "::1")] == [
        True
    ] * 4
    assert not access.is_allowed("198.51.100.1", networks)
    assert not access.is_allowed(str(ipaddress.ip_address("2001:db9::1")), networks)
