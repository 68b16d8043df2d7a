# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace

from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.checks import examine_host
from ansible_collections.homelab.nut.plugins.module_utils._nut.doctor.findings import (
    NOTE,
    OK,
)
from ansible_collections.homelab.nut.tests.unit.support.doctor_host import (
    DEVICE,
    EXPECTED,
    FILES,
    NOW,
    SEEN,
    find_problems,
    make_file,
    make_unit,
    make_ups,
    upsd_answer,
    with_text,
    with_unit,
)


def test_sections_added_by_nut_hotplug_are_not_reported() -> None:
    seen = with_text(
        "ups.conf",
        lambda text: text + '  serial = "123"\n[found]\n  driver = usbhid-ups\n  port = auto\n  vendorid = "0463"\n',
    )
    seen = replace(
        with_unit("nut-driver@found.service", make_unit(), seen),
        devices=(DEVICE, replace(DEVICE, vendor_id="0463")),
        served=upsd_answer(make_ups(), make_ups(name="found", clients=())),
    )
    assert find_problems(seen) == []


def test_auto_driver_is_compared_with_wanted_file() -> None:
    wanted = {**FILES, "ups.conf": "[ups]\n  driver = auto\n  port = auto\n"}
    seen = replace(SEEN, files={**SEEN.files, "ups.conf.wanted": make_file(wanted["ups.conf"])})
    assert find_problems(seen, replace(EXPECTED, files=wanted)) == []
    serial = with_text("ups.conf", lambda text: text.replace("port = auto", "port = /dev/ttyUSB0"), seen)
    assert find_problems(serial, replace(EXPECTED, files=wanted)) == []
    other = replace(
        SEEN, files={**SEEN.files, "ups.conf.wanted": make_file("[ups]\n  driver = auto\n  port = auto\n  desc = x\n")}
    )
    assert [finding.check for finding in find_problems(other, replace(EXPECTED, files=wanted))] == ["files"]


def test_changed_comment_is_not_reported() -> None:
    changed = make_file("# another\n" + FILES["upsmon.conf"], changed=NOW - 10)
    found = examine_host(replace(SEEN, files={**SEEN.files, "upsmon.conf": changed}), EXPECTED)
    assert [(finding.check, finding.verdict) for finding in found if finding.check in ("files", "restarted")] == [
        ("files", OK),
        ("restarted", OK),
    ]


def test_directives_unknown_to_release_are_not_expected() -> None:
    wanted = {**FILES, "upsmon.conf": FILES["upsmon.conf"] + "OBLBDURATION 5\n"}
    assert find_problems(SEEN, replace(EXPECTED, files=wanted)) == []
    assert [
        finding.check for finding in find_problems(replace(SEEN, release=(2, 8, 4)), replace(EXPECTED, files=wanted))
    ] == ["files"]


def test_known_problem_of_release_is_a_note_only_if_something_is_to_be_done() -> None:
    found = [finding for finding in examine_host(SEEN, EXPECTED) if finding.check == "release"]
    assert found
    assert {finding.verdict for finding in found} == {OK}
    assert all(finding.seen.startswith("NUT 2.8.1: ") for finding in found)
    seen = with_text("ups.conf", lambda text: text + "  device = 004\n")
    due = [finding for finding in examine_host(seen, EXPECTED) if (finding.check, finding.verdict) == ("release", NOTE)]
    assert [(finding.seen[:36], finding.todo[:10]) for finding in due] == [
        ("NUT 2.8.1: [ups] is identified by de", "Use serial")
    ]
    assert [
        finding.verdict
        for finding in examine_host(replace(SEEN, release=(2, 9, 9)), EXPECTED)
        if finding.check == "release"
    ] == [OK]
