# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import kits as deploy_kits
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import Expected, ExpectedClient
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    UNKNOWN,
    WARNING,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import (
    HostObservation,
    Socket,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    CLIENT,
    CLIENT_EXPECTED,
    EXPECTED,
    FILES,
    LOADED,
    SEEN,
    TABLE,
    TABLE_PATH,
    find_problems,
    make_file,
    make_unit,
    with_own_file,
    with_text,
    with_unit,
    with_ups,
    without_kit,
)


def logins(seen: HostObservation, expected: Expected = EXPECTED) -> list[tuple[str, str]]:
    return [(finding.host, finding.verdict) for finding in find_problems(seen, expected) if finding.check == "login"]


def test_missing_login_is_a_failure_of_the_secondary() -> None:
    assert logins(with_ups(clients=("127.0.0.1",))) == [("nas", FAILURE)]


def test_missing_login_of_an_unmanaged_machine_says_what_to_check_there() -> None:
    client = ExpectedClient("syno", "192.0.2.40", "ups", "192.0.2.10", managed=False)
    seen = replace(with_ups(clients=("127.0.0.1",)), addresses={"syno": ("192.0.2.40",)})
    (finding,) = [
        finding for finding in find_problems(seen, replace(EXPECTED, clients=(client,))) if finding.check == "login"
    ]
    assert (finding.host, finding.verdict) == ("syno", FAILURE)
    assert "what is entered there (docs/clients.md): the UPS is ups@192.0.2.10:3493" in finding.todo
    assert "make ups" not in finding.todo


def test_login_to_another_ups_does_not_count() -> None:
    assert logins(SEEN, replace(EXPECTED, clients=(ExpectedClient("nas", "192.0.2.20", "other"),))) == [
        ("nas", FAILURE)
    ]


def test_secondary_without_address_is_unknown() -> None:
    assert logins(replace(SEEN, addresses={"nas": "no address"})) == [("nas", UNKNOWN)]


def test_silent_upsd_fails_logins_of_all_secondaries() -> None:
    assert logins(replace(SEEN, served="no", watched={})) == [("nas", FAILURE)]


def test_login_from_any_address_of_secondary_counts() -> None:
    seen = replace(
        with_ups(clients=("127.0.0.1", "::ffff:192.0.2.21")), addresses={"nas": ("192.0.2.20", "192.0.2.21")}
    )
    assert logins(seen) == []
    assert not [
        finding for finding in examine_host(seen, EXPECTED) if finding.check == "strangers" and finding.verdict != OK
    ]


def test_client_missing_from_inventory_is_a_note() -> None:
    found = [
        finding
        for finding in examine_host(with_ups(clients=("127.0.0.1", "192.0.2.20", "192.0.2.99")), EXPECTED)
        if finding.check == "strangers"
    ]
    assert [(finding.verdict, "192.0.2.99" in finding.seen) for finding in found] == [(NOTE, True)]


@pytest.mark.parametrize(
    ("places", "wanted", "verdict"),
    [
        ([("127.0.0.1", 3493)], "LISTEN localhost 3493\n", OK),
        ([("::1", 3493)], "LISTEN localhost\n", OK),
        ([("0.0.0.0", 3493), ("::", 3493)], "LISTEN * 3493\n", OK),
        ([("192.0.2.1", 3493)], "LISTEN pve.lan\n", OK),
        ([("192.0.2.1", 3494)], "LISTEN pve.lan\n", FAILURE),
        ([("192.0.2.1", 3493)], "LISTEN 192.0.2.1\n", OK),
        ([("192.0.2.1", 3493)], "LISTEN 192.0.2.1\nLISTEN 127.0.0.1\n", FAILURE),
        ([("127.0.0.1", 3493)], "LISTEN *\n", FAILURE),
    ],
)
def test_listening_addresses_are_compared(places: list[tuple[str, int]], wanted: str, verdict: str) -> None:
    files = {**FILES, "upsd.conf": wanted}
    seen = replace(
        with_text("upsd.conf", lambda _text: wanted), sockets=tuple(Socket(*place, "upsd") for place in places)
    )
    assert [
        finding.verdict
        for finding in examine_host(seen, replace(EXPECTED, files=files))
        if finding.check == "listening"
    ] == [verdict]


def test_sockets_of_unknown_owner_count_as_upsds() -> None:
    seen = replace(SEEN, sockets=(Socket("0.0.0.0", 22, ""), Socket("0.0.0.0", 3493, "")))
    found = [finding for finding in examine_host(seen, EXPECTED) if finding.check == "listening"]
    assert [(finding.verdict, finding.seen) for finding in found] == [(OK, "upsd listens on 0.0.0.0:3493")]
    assert [
        finding.verdict
        for finding in find_problems(replace(SEEN, sockets=(Socket("0.0.0.0", 22, ""),)))
        if finding.check == "listening"
    ] == [FAILURE]


def access_findings(seen: HostObservation, expected: Expected = EXPECTED) -> list[tuple[str, str, str]]:
    found = [finding for finding in examine_host(seen, expected) if finding.check == "access" and finding.verdict != OK]
    return [(finding.verdict, finding.host, finding.seen) for finding in found]


def test_table_not_loaded_is_a_failure() -> None:
    ((verdict, host, words),) = access_findings(replace(SEEN, access=None))
    assert (verdict, host) == (FAILURE, "pve")
    assert "the table inet homelab_nut is not loaded" in words


def test_table_with_other_networks_is_a_failure() -> None:
    loaded = replace(LOADED, allowed=access.collapse_networks(["192.0.2.0/24"]))
    ((verdict, _host, words),) = access_findings(replace(SEEN, access=loaded))
    assert verdict == FAILURE
    assert words.endswith("the loaded table allows 192.0.2.0/24")


@pytest.mark.parametrize("kept", ["192.0.2.20", ""])
def test_secondary_with_refused_address_is_reported(kept: str) -> None:
    """Wholly another: it is not told of a power cut. One more: it may come from there."""
    those = ("192.0.2.21", *([kept] if kept else []))
    ((verdict, host, words),) = access_findings(replace(SEEN, addresses={"nas": those}))
    assert (verdict, host) == (WARNING if kept else FAILURE, "nas")
    assert "nas has the address 192.0.2.21, which /etc/nut/access.nft does not allow" in words


def test_port_missing_from_table_is_a_failure() -> None:
    seen = with_text("upsd.conf", lambda text: text + "LISTEN 0.0.0.0 4000\n")
    ((verdict, _host, words),) = access_findings(seen)
    assert verdict == FAILURE
    assert "upsd listens on port 4000, which /etc/nut/access.nft does not cover" in words


def test_previous_port_may_remain_in_table() -> None:
    table = access.render_table([3493, 4000], access.parse_sources(TABLE))
    seen = with_own_file(TABLE_PATH, lambda file: replace(file, text=table))
    assert access_findings(replace(seen, access=replace(LOADED, ports=frozenset({3493, 4000})))) == []


def test_missing_nut_access_is_a_failure() -> None:
    ((verdict, _host, words),) = access_findings(replace(without_kit(deploy_kits.ACCESS), access=None))
    assert verdict == FAILURE
    assert "nut-access is not installed" in words


def test_stopped_timer_of_nut_access_is_a_failure() -> None:
    ((verdict, _host, words),) = access_findings(with_unit("nut-access-refresh.timer", make_unit("inactive", "static")))
    assert verdict == FAILURE
    assert "nut-access-refresh.timer is not running" in words


def test_unlimited_access_is_a_note() -> None:
    """Unlimited access is what the inventory asks for, so it is only a note. It does not matter if upsd listens on loopback only."""
    kits = {name: texts for name, texts in EXPECTED.kits.items() if name != "nut-access"}
    open_to_all = replace(without_kit(deploy_kits.ACCESS), access=None)
    ((verdict, _host, words),) = access_findings(open_to_all, replace(EXPECTED, kits=kits))
    assert verdict == NOTE
    assert "can block it without a login" in words
    at_home = with_text("upsd.conf", lambda _text: "LISTEN 127.0.0.1 3493\n", open_to_all)
    assert access_findings(at_home, replace(EXPECTED, kits=kits)) == []


def test_missing_login_lists_refused_addresses() -> None:
    seen = replace(with_ups(clients=("127.0.0.1",)), access=replace(LOADED, refused_from=("192.0.2.99",)))
    ((verdict, _host, words),) = access_findings(seen)
    assert verdict == NOTE
    assert words == "refused in the last day: 192.0.2.99"
    (login,) = [
        finding for finding in examine_host(seen, EXPECTED) if finding.check == "login" and finding.host == "nas"
    ]
    assert "Addresses refused in the last day: 192.0.2.99" in login.seen


def test_unreadable_table_is_unknown() -> None:
    ((verdict, _host, _words),) = access_findings(replace(SEEN, troubles={"access": "OSError: no"}))
    assert verdict == UNKNOWN


def names_of_primaries(*hosts: str, known: str = "") -> list[str]:
    """Return the findings about the names of a secondary's primaries."""
    text = "".join(f"MONITOR ups@{host} 1 media x secondary\n" for host in hosts)
    seen = replace(CLIENT, files={**CLIENT.files, "upsmon.conf": make_file(text)}, local_names=frozenset(known.split()))
    return [
        f"{finding.verdict} {finding.seen}"
        for finding in examine_host(seen, CLIENT_EXPECTED)
        if finding.check == "primary-name"
    ]


def test_address_of_primary_needs_no_name_server() -> None:
    assert names_of_primaries("192.0.2.10", "[fd00::5]:3493", "localhost") == []


def test_name_of_primary_in_etc_hosts_needs_no_name_server() -> None:
    (row,) = names_of_primaries("PVE.lan", known="pve.lan")
    assert row.startswith("ok PVE.lan is in /etc/hosts")


def test_each_name_of_a_primary_is_looked_up() -> None:
    (row,) = names_of_primaries("pve", "rack", "desk", known="pve")
    assert row.startswith("warning upsmon needs a name server to find rack, desk.")
