# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A single cause is a single finding. One file with the hosts of a site, because causes are found across hosts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import checks_others, findings, merge
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.exam import Expected, ExpectedClient
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    FAILURE,
    NOTE,
    OK,
    WARNING,
    DoctorReport,
    Finding,
)
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.observe import HostObservation, Socket
from ansible_collections.homelab.nut.plugins.module_utils._nut.net import access
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    CLIENT,
    CLIENT_EXPECTED,
    EXPECTED,
    FILES,
    LOADED,
    NOW,
    SEEN,
    TABLE_PATH,
    make_file,
    make_unit,
    make_ups,
    upsd_answer,
    with_text,
    with_unit,
    with_ups,
)

HOSTS = ("pve", "media", "nas")
PRIMARIES = {"media": "pve", "nas": "pve"}
BOTH = replace(
    EXPECTED,
    clients=(ExpectedClient("nas", "192.0.2.20", "ups"), ExpectedClient("media", "192.0.2.30", "ups")),
)
ALL_IN = ("127.0.0.1", "192.0.2.20", "192.0.2.30")
ADDRESSES = {"nas": ("192.0.2.20",), "media": ("192.0.2.30",)}
NAS = {"actions": [], "service": {"state": "RUNNING"}, "version": "25.10"}


def see_primary(seen: HostObservation = SEEN, clients: Iterable[str] = ALL_IN) -> HostObservation:
    """Return a primary that both secondaries may reach, and to which these clients are logged in."""
    networks = ["192.0.2.20", "192.0.2.30"]
    table = access.render_table([3493], {access.make_source("all", "lan"): networks})
    seen = replace(
        seen,
        own_files={**seen.own_files, TABLE_PATH: make_file(table)},
        access=replace(LOADED, allowed=access.collapse_networks(networks)),
    )
    if isinstance(seen.served, str) or seen.served is None:
        return replace(seen, addresses=ADDRESSES)
    states = tuple(replace(state, clients=tuple(clients)) for state in seen.served.report.upses)
    return replace(
        seen,
        addresses=ADDRESSES,
        served=upsd_answer(*states),
        watched={"ups@localhost:3493": upsd_answer(*states)},
    )


def report(
    primary: HostObservation | None,
    media: HostObservation | None,
    nas: dict[str, object] | None,
    expected: Expected = BOTH,
) -> DoctorReport:
    """Return the report on the site. None: that host is off."""
    found: list[Finding] = []
    for name, seen, about in (("pve", primary, expected), ("media", media, CLIENT_EXPECTED)):
        off = {"unreachable": True, "msg": "no route"}
        found += [checks_others.judge_unexamined(name, off)] if seen is None else examine_host(seen, about)
    found += checks_others.judge_truenas("nas", {"failed": True, "msg": "timed out"} if nas is None else nas)
    return merge.merge_findings(HOSTS, found, PRIMARIES)


def list_rows(made: DoctorReport) -> list[tuple[str, str, str]]:
    """Return what needs action, as people see it."""
    return [
        (finding.host, finding.check, finding.verdict)
        for finding in made.findings
        if finding.verdict != OK and not finding.because
    ]


UNREACHABLE = replace(CLIENT, watched={"ups@pve:3493": "upsd at pve:3493 cannot be reached: no"})
STALE_CLIENT = replace(
    CLIENT,
    watched={
        "ups@pve:3493": upsd_answer(
            make_ups(fresh=False, error="DRIVER-NOT-CONNECTED", variables={}, clients=("192.0.2.30",)),
            own_address="192.0.2.30",
        )
    },
)
OUT_CLIENT = replace(
    CLIENT, watched={"ups@pve:3493": upsd_answer(make_ups(clients=("127.0.0.1",)), own_address="192.0.2.30")}
)
SILENT = replace(SEEN, served="upsd at localhost:3493 cannot be reached: no", watched={})
STALE = with_ups(fresh=False, error="DRIVER-NOT-CONNECTED", variables={})
WITHOUT_NAS = ("127.0.0.1", "192.0.2.30")
WITHOUT_MEDIA = ("127.0.0.1", "192.0.2.20")
OTHER_MONITOR = with_text("upsmon.conf", lambda text: text.replace("three secondary", "three primary"), CLIENT)

EDITED = make_file(FILES["upsmon.conf"].replace("DELAY 5", "DELAY 6"), changed=NOW - 10)

# the hosts, and the only rows
SITES: dict[
    str, tuple[HostObservation | None, HostObservation | None, dict[str, object] | None, set[tuple[str, str, str]]]
] = {
    "healthy": (see_primary(), CLIENT, NAS, set()),
    "media is off": (see_primary(clients=WITHOUT_MEDIA), None, NAS, {("media", "reachable", FAILURE)}),
    "the NAS is off": (see_primary(clients=WITHOUT_NAS), CLIENT, None, {("nas", "login", FAILURE)}),
    "the primary is off": (None, UNREACHABLE, NAS, {("pve", "reachable", FAILURE)}),
    "upsd is stopped": (
        see_primary(with_unit("nut-server.service", make_unit("inactive"), SILENT)),
        UNREACHABLE, NAS, {("pve", "units", FAILURE)},
    ),
    "upsd hangs": (see_primary(SILENT), UNREACHABLE, NAS, {("pve", "upsd", FAILURE)}),
    "MODE=none, and all is down": (
        see_primary(
            with_unit(
                "nut-server.service", make_unit("inactive"),
                with_unit("nut-monitor.service", make_unit("inactive"),
                          with_text("nut.conf", lambda text: text.replace("netserver", "none"), SILENT)),
            )
        ),
        UNREACHABLE, NAS, {("pve", "mode", FAILURE)},
    ),
    "the UPS is unplugged": (
        see_primary(with_unit("nut-driver@ups.service", make_unit("failed"), replace(STALE, devices=()))),
        STALE_CLIENT, NAS, {("pve", "usb", FAILURE)},
    ),
    "the driver is stopped": (
        see_primary(with_unit("nut-driver@ups.service", make_unit("inactive"), STALE)),
        STALE_CLIENT, NAS, {("pve", "units", FAILURE)},
    ),
    "upsd does not serve the UPS": (
        see_primary(replace(SEEN, served=upsd_answer(make_ups(name="other")))), CLIENT, NAS, {("pve", "driver", FAILURE)},
    ),
    "upsmon of media is stopped": (
        see_primary(clients=WITHOUT_MEDIA),
        with_unit("nut-monitor.service", make_unit("inactive"), OUT_CLIENT),
        NAS, {("media", "units", FAILURE)},
    ),
    "NUT is not installed on media": (
        see_primary(clients=WITHOUT_MEDIA), HostObservation(now=NOW), NAS, {("media", "installed", FAILURE)},
    ),
    "upsd listens on loopback": (
        see_primary(replace(SEEN, sockets=(Socket("127.0.0.1", 3493, "upsd"),)), ("127.0.0.1",)),
        UNREACHABLE, NAS, {("pve", "listening", FAILURE)},
    ),
    "a firewall": (
        see_primary(replace(SEEN, firewall=("no rule lets in nas, media", "add this")), ("127.0.0.1",)),
        UNREACHABLE, NAS, {("pve", "firewall", FAILURE)},
    ),
    "the service of the NAS is stopped": (
        see_primary(clients=WITHOUT_NAS), CLIENT, {**NAS, "actions": ["started the UPS service"]}, {("nas", "service", FAILURE)},
    ),
    "another password on the NAS": (
        see_primary(clients=WITHOUT_NAS), CLIENT, {**NAS, "actions": ["set monpwd"]}, {("nas", "settings", FAILURE)},
    ),
    "another password of the NAS in upsd.users": (
        see_primary(with_text("upsd.users", lambda text: text.replace("two", "three")), WITHOUT_NAS),
        CLIENT, NAS, {("pve", "users", FAILURE)},
    ),
    "media believes to be a primary": (
        see_primary(clients=WITHOUT_MEDIA),
        replace(OTHER_MONITOR, watched=OUT_CLIENT.watched),
        NAS, {("media", "upsmon", FAILURE)},
    ),
    "a file edited and not read": (
        see_primary(
            replace(SEEN, files={**SEEN.files, "upsmon.conf": EDITED})
        ),
        CLIENT, NAS, {("pve", "files", WARNING)},
    ),
    # causes of their own stay
    "upsmon of media stopped, and the NAS is off": (
        see_primary(clients=("127.0.0.1",)),
        with_unit("nut-monitor.service", make_unit("inactive"), OUT_CLIENT),
        None, {("media", "units", FAILURE), ("nas", "login", FAILURE)},
    ),
    "upsmon of the primary stopped, and the NAS is off": (
        see_primary(with_unit("nut-monitor.service", make_unit("inactive")), WITHOUT_NAS),
        CLIENT, None, {("pve", "units", FAILURE), ("nas", "login", FAILURE)},
    ),
    "a driver stale, and the NAS is off": (
        see_primary(STALE, WITHOUT_NAS), STALE_CLIENT, None, {("pve", "driver", FAILURE), ("nas", "login", FAILURE)},
    ),
    "another password in upsd.users, and the NAS is off": (
        see_primary(with_text("upsd.users", lambda text: text.replace("one", "three")), WITHOUT_NAS),
        CLIENT, None, {("pve", "users", FAILURE), ("nas", "login", FAILURE)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SITES)
def test_cause_is_a_single_row(name: str) -> None:
    primary, media, nas, rows = SITES[name]
    made = report(primary, media, nas)
    assert {row for row in list_rows(made) if row[2] != NOTE} == rows
    bad = [finding.verdict for finding in made.findings if finding.verdict not in (OK, NOTE) and not finding.because]
    assert made.worst_verdict == min(bad, key=findings.VERDICTS.index, default=OK)


def test_row_names_what_else_fails_because_of_it() -> None:
    made = report(*SITES["upsd is stopped"][:3])
    shown = " ".join(findings.format_table(made, width=2000).split())
    assert "(so also: upsd, plan" not in shown
    assert "(so also: upsd, login of media, port of media, login of nas)" in shown
    assert "1 failure, 4 more because of it" in shown
    assert "because of pve: units" in findings.format_table(made, everything=True, width=2000)


def test_finding_of_another_ups_is_a_cause_of_its_own() -> None:
    found = [
        Finding("usb", "pve", FAILURE, "left is gone", "", ("left",)),
        Finding("driver", "pve", FAILURE, "left is stale", "", ("left",)),
        Finding("driver", "pve", FAILURE, "right is stale", "", ("right",)),
    ]
    made = merge.merge_findings(["pve"], found)
    assert [(finding.seen, finding.because) for finding in made.findings] == [
        ("left is gone", ""),
        ("right is stale", ""),
        ("left is stale", "pve: usb"),
    ]


def test_lesser_finding_hides_no_worse_one() -> None:
    found = [Finding("usb", "pve", WARNING, "gone"), Finding("driver", "pve", FAILURE, "stale")]
    assert [finding.because for finding in merge.merge_findings(["pve"], found).findings] == ["", ""]


def test_cause_given_by_a_host_does_not_count() -> None:
    """A host that lies about a cause would hide its failure."""
    lie = replace(Finding("driver", "pve", FAILURE, "stale"), because="pve: usb")
    assert [finding.because for finding in merge.merge_findings(["pve"], [lie]).findings] == [""]


def test_circle_of_causes_keeps_a_row() -> None:
    found = [Finding("login", "nas", findings.UNKNOWN, "x"), Finding("settings", "nas", findings.UNKNOWN, "y")]
    assert list_rows(merge.merge_findings(["nas"], found))
