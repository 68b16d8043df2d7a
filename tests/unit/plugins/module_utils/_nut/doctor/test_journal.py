# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base.systemd import JournalEntry
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.past import NEVER, Deployment
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor import journal

MONITOR, SERVER, DRIVER = "nut-monitor.service", "nut-server.service", "nut-driver@ups.service"


@pytest.mark.parametrize(
    ("said", "words", "bad"),
    [
        ("UPS ups@localhost:3493 on battery", "power failure: ups is on battery", False),
        ("UPS ups@localhost on line power", "power is back: ups is on mains", False),
        ("UPS ups@pve battery is low", "battery of ups is low", False),
        ("UPS ups@pve: forced shutdown in progress", "shutdown of all machines on ups began (FSD)", False),
        ("Auto logout and shutdown proceeding", "this host is shutting down", False),
        ("Executing automatic power-fail shutdown", "upsmon is starting the shutdown", False),
        ("Communications with UPS ups@pve lost", "lost contact with ups", True),
        ("Communications with UPS ups@pve established", "contact with ups restored", False),
        ("UPS ups@pve is unavailable", "no contact with ups for a long time", True),
        ("UPS ups@pve battery needs to be replaced", "battery of ups needs to be replaced", True),
        ("upsmon parent process died - shutdown impossible", "upsmon's parent died, so it could not shut down", True),
        (
            "Login on UPS [ups@pve:3493] failed - got [ERR ACCESS-DENIED]",
            "upsd rejected upsmon's login to ups (ERR ACCESS-DENIED)",
            True,
        ),
        ("Poll UPS [ups@pve] failed - Data stale", "upsmon could not query ups: Data stale", True),
        (
            "UPS [ups@pve]: connect failed: Connection failure: Connection refused",
            "upsmon could not reach the upsd of ups: Connection failure: Connection refused",
            True,
        ),
        ("Data for UPS [ups] is stale - check driver", "driver of ups gets no data from it", True),
        ("UPS [ups] data is no longer stale", "driver of ups gets data again", False),
        (
            "Can't connect to UPS [ups] (usbhid-ups-ups): No such file or directory",
            "upsd can't reach the driver of ups: No such file or directory",
            True,
        ),
        ("Connected to UPS [ups]: usbhid-ups-ups", "upsd connected to the driver of ups", False),
        ("User nas@192.0.2.20 logged into UPS [ups]", "nas (192.0.2.20) logged in to ups", False),
        ("User nas@192.0.2.20 logged out from UPS [ups]", "nas (192.0.2.20) logged out from ups", False),
        ("Client monitor@127.0.0.1 set FSD on UPS [ups]", "monitor (127.0.0.1) started the shutdown of ups", False),
        ("not listening on 192.0.2.1 port 3493", "upsd could not listen on 192.0.2.1 port 3493", True),
        ("upsmon.conf line 3: invalid directive SHUTDOWNCND", "upsmon ignores line 3 of upsmon.conf", True),
    ],
)
def test_log_line_of_daemon_is_explained(said: str, words: str, bad: bool) -> None:
    assert journal.explain_line(MONITOR, said) == (words, bad)


@pytest.mark.parametrize(
    "said",
    [
        "libusb1: Could not open any HID devices: insufficient permissions on everything",
        "nut_libusb_get_report: No such device (it may have been disconnected)",
        "No matching HID UPS found",
        "Can't claim USB device [051d:0002]@0/0: Entity not found",
        "Fatal error: 'x' is not a valid variable name for this driver.",
    ],
)
def test_log_line_of_driver_names_its_unit(said: str) -> None:
    words, bad = journal.explain_line(DRIVER, said) or ("", False)
    assert bad
    assert words.endswith(" (nut-driver@ups)")


def test_lines_of_systemd_are_recognized() -> None:
    assert journal.is_from_systemd(
        "Started nut-monitor.service - Network UPS Tools - power device monitor and shutdown controller."
    )
    assert journal.is_from_systemd("nut-server.service: Failed with result 'exit-code'.")
    assert not journal.is_from_systemd("UPS ups@localhost on battery")
    assert journal.explain_line(
        MONITOR, "Started Network UPS Tools - power device monitor and shutdown controller."
    ) == (
        "upsmon was started",
        False,
    )
    assert journal.explain_line(SERVER, "Stopped Network UPS Tools - power devices information server.") == (
        "upsd was stopped",
        False,
    )
    assert journal.explain_line(SERVER, "nut-server.service: Failed with result 'exit-code'.") == (
        "the unit failed (exit-code) (nut-server)",
        True,
    )


def test_lines_of_own_programs_are_kept() -> None:
    assert journal.explain_line("nut-shutdown.service", "waiting for nas") == ("nut-shutdown: waiting for nas", False)
    assert journal.explain_line("nut-hotplug.service", "nut-hotplug.service: Deactivated successfully.") is None
    assert journal.explain_line(MONITOR, "some chatter") is None


def entries(*said: str) -> list[JournalEntry]:
    return [JournalEntry(float(at), MONITOR, words) for at, words in enumerate(said)]


def test_events_are_sorted_and_repeats_merged() -> None:
    lost, back = "Communications with UPS ups@pve lost", "Communications with UPS ups@pve established"
    told = journal.list_events(entries(back, lost, lost, lost, "chatter", back), 2)
    assert told == [(3.0, "lost contact with ups (3 times)"), (5.0, "contact with ups restored")]
    assert journal.list_events(reversed(entries(lost, back)), 9) == [
        (0.0, "lost contact with ups"),
        (1.0, "contact with ups restored"),
    ]
    assert journal.list_events(entries(lost, back, lost), 9)[-1] == (2.0, "lost contact with ups")


def test_problems_that_recur_in_turn_are_merged() -> None:
    lost, poll = "Communications with UPS ups@pve lost", "Poll UPS [ups@pve] failed - Data stale"
    back = "Communications with UPS ups@pve established"
    assert journal.list_events(entries(lost, poll, lost, poll, poll, back, poll, back, back), 9) == [
        (2.0, "lost contact with ups (2 times)"),
        (4.0, "upsmon could not query ups: Data stale (3 times)"),
        (5.0, "contact with ups restored"),
        (6.0, "upsmon could not query ups: Data stale"),
        (8.0, "contact with ups restored (2 times)"),
    ]


LOST, BACK = "Communications with UPS ups@pve lost", "Communications with UPS ups@pve established"
POLL = "Poll UPS [ups@pve] failed - Write error: Broken pipe"
REFUSED = "UPS [ups@pve]: connect failed: Connection failure: Connection refused"
STARTED = "Started nut-monitor.service - Network UPS Tools - power device monitor and shutdown controller."


def at(*said: tuple[float, str]) -> list[JournalEntry]:
    return [JournalEntry(moment, MONITOR, words) for moment, words in said]


TROUBLES: dict[str, tuple[list[JournalEntry], Deployment, list[str]]] = {
    "lost for good": (at((9, LOST)), NEVER, ["lost contact with ups"]),
    "a brief interruption": (at((9, POLL), (9, LOST), (14, REFUSED), (30, BACK)), NEVER, []),
    "a long interruption": (at((9, LOST), (100, BACK)), NEVER, ["lost contact with ups"]),
    "a brief one of another UPS": (at((9, LOST), (30, BACK.replace("ups@", "desk@"))), NEVER, ["lost contact with ups"]),
    "two brief ones": (at((9, LOST), (30, BACK), (99, LOST), (120, BACK)), NEVER, []),
    "three brief ones": (
        at((9, LOST), (30, BACK), (99, LOST), (120, BACK), (199, LOST), (220, BACK)), NEVER, ["lost contact with ups"],
    ),
    "a boot while the primary boots": (at((9, STARTED), (10, REFUSED), (300, REFUSED), (320, BACK)), NEVER, []),
    "a primary that was gone long after the boot": (
        at((9, STARTED), (900, LOST), (1200, BACK)), NEVER, ["lost contact with ups"],
    ),
    "a shutdown": (at((9, "Auto logout and shutdown proceeding"), (10, LOST), (11, POLL)), NEVER, []),
    "the boot after a shutdown": (
        at((9, "Auto logout and shutdown proceeding"), (10, LOST), (99, STARTED), (2000, LOST)), NEVER, ["lost contact with ups"],
    ),
    "before a deployment": (at((9, LOST), (10, "Parse error: /etc/nut/upsmon.conf: line 3: x")), Deployment(20, 30), []),
    "during a deployment": (at((22, LOST), (40, LOST)), Deployment(20, 30), []),
    "after a deployment": (at((22, LOST), (61, LOST)), Deployment(20, 30), ["lost contact with ups"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TROUBLES)
def test_troubles_are_what_needs_a_look(name: str) -> None:
    journal_read, deployment, meanings = TROUBLES[name]
    assert [meaning for meaning, _times, _last in journal.list_troubles(journal_read, deployment)] == meanings


def test_events_of_a_deployment_are_a_single_event() -> None:
    read = at((5, LOST), (21, LOST), (22, STARTED), (24, BACK), (90, LOST))
    assert journal.list_events(read, 9, deployment=Deployment(20, 30)) == [
        (5, "lost contact with ups"),
        (24, "NUT was deployed"),
        (90, "lost contact with ups"),
    ]


def test_logins_in_a_row_are_folded() -> None:
    came = "User {0}@192.0.2.{1} logged into UPS [ups]"
    left = "User {0}@192.0.2.{1} logged out from UPS [ups]"
    read = at(
        (1, came.format("nas", 1)), (2, came.format("media", 2)), (3, left.format("nas", 1)), (4, LOST), (5, came.format("nas", 1))
    )  # fmt: skip
    assert journal.list_events(read, 9) == [
        (3, "logged in: media (192.0.2.2); logged out: nas (192.0.2.1)"),
        (4, "lost contact with ups"),
        (5, "logged in: nas (192.0.2.1)"),
    ]


def test_troubles_are_counted_most_recent_first() -> None:
    lost = "Communications with UPS ups@pve lost"
    stale = "Data for UPS [ups] is stale - check driver"
    assert journal.list_troubles(entries(lost, "UPS ups@pve on battery", stale, stale)) == [
        ("driver of ups gets no data from it", 2, 3.0),
        ("lost contact with ups", 1, 0.0),
    ]


@pytest.mark.parametrize(
    "system", ["rack@[fd00:99:7::11]:3493", "rack@[fd00:99:7::11]", "rack@10.99.7.11:3500", "rack@pve.lan", "rack"]
)
@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        (
            "UPS [{}]: connect failed: Connection failure: No route to host",
            "upsmon could not reach the upsd of rack: Connection failure",
        ),
        ("UPS {} on battery", "power failure: rack is on battery"),
        (
            "Login on UPS [{}] failed - got [ERR ACCESS-DENIED]",
            "upsd rejected upsmon's login to rack (ERR ACCESS-DENIED)",
        ),
        ("Poll UPS [{}] failed - Server disconnected", "upsmon could not query rack: Server disconnected"),
        ("Communications with UPS {} lost", "lost contact with rack"),
        ("UPS {}: forced shutdown in progress", "shutdown of all machines on rack began (FSD)"),
    ],
)
def test_ups_is_named_whatever_its_address(system: str, line: str, meaning: str) -> None:
    explained = journal.explain_line("nut-monitor.service", line.format(system))
    assert explained is not None
    assert explained[0].startswith(meaning)
