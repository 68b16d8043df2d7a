# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.homelab.nut.plugins.module_utils._nut.base import systemd
from ansible_collections.homelab.nut.plugins.module_utils._nut.conf.files import NutFiles
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy import verify
from ansible_collections.homelab.nut.plugins.module_utils._nut.deploy.verify import Trouble, Verifier, VerifyResult
from ansible_collections.homelab.nut.tests.unit.support import usb_devices
from ansible_collections.homelab.nut.tests.unit.support.fake_upsd import make_answers, serve_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible_collections.homelab.nut.plugins.module_utils._nut.usb.bus import UsbDevice

UPS = systemd.driver_unit("ups")


def primary_at(port: int, *names: str) -> dict[str, str]:
    sections = "".join(f"[{name}]\n    driver = usbhid-ups\n    port = auto\n" for name in names or ("ups",))
    return {
        "upsd.conf": f"LISTEN 127.0.0.1 {port}\n",
        "ups.conf": sections,
        "upsmon.conf": f"MONITOR ups@localhost:{port} 1 monitor secret1 primary\n",
    }


def secondary_at(port: int) -> dict[str, str]:
    return {"upsmon.conf": f"MONITOR ups@127.0.0.1:{port} 1 media secret2 secondary\n"}


class Host:
    """systemd, a journal and a clock that only advances by waiting. events: second -> what happens then."""

    def __init__(self, **running: str) -> None:
        self.active = {systemd.SERVER: "active", systemd.MONITOR: "active", UPS: "active"}
        self.journal: dict[str, str] = {}
        self.told: list[str] = []
        self.now = 0.0
        self.events: dict[float, Any] = {}
        self.on_start: Any = None
        self.on_restart: Any = None
        self.on_mains = True
        self.devices: tuple[UsbDevice, ...] = ()

    def clock(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds
        for when in [when for when in self.events if when <= self.now]:
            self.events.pop(when)()

    def runner(self, command: Sequence[str]) -> tuple[int, str]:
        if command[0] == "journalctl":
            return 0, self.journal.get(command[1].partition("=")[2], "")
        if command[1] == "show":
            names = command[command.index("--") + 1 :]
            shown = [
                f"Id={name}\nLoadState=loaded\nActiveState={self.active[name]}\nUnitFileState=enabled\nMainPID=0\n"
                for name in names
            ]
            return 0, "\n".join(shown)
        self.told.append(" ".join(command[1:]))
        if command[1] == "start" and self.on_start:
            self.on_start(command[2])
        if command[1] == "restart" and self.on_restart:
            self.on_restart()
        return 0, ""

    def verify(
        self, files: Mapping[str, str], seconds: float, patient: bool = False, declared: frozenset[str] | None = None
    ) -> VerifyResult:
        verifier = Verifier(
            NutFiles.of(files), self.runner, None, self.clock, self.pause, declared=declared, scan=lambda: self.devices
        )
        verifier.on_mains = lambda: self.on_mains
        return verifier.wait_until_serving(seconds, patient)


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def unused_port() -> int:
    with serve_answers() as fake:
        return fake.port


def test_first_check_succeeds(host: Host) -> None:
    with serve_answers(make_answers(ups="OL CHRG")) as fake:
        assert host.verify(primary_at(fake.port), 60) == VerifyResult({"ups": "OL CHRG"})
    assert host.now == 0
    assert host.told == []


def test_waits_until_upsmon_has_logged_in(host: Host) -> None:
    """A driver and upsd work at once, but upsmon needs a moment."""
    nobody = {"LIST CLIENT ups": "BEGIN LIST CLIENT ups\nEND LIST CLIENT ups\n"}
    with serve_answers({**make_answers(ups="OL"), **nobody}) as fake:
        host.events[3] = lambda: fake.answers.update(make_answers(ups="OL"))
        assert host.verify(primary_at(fake.port), 60) == VerifyResult({"ups": "OL"})
    assert host.now == 3


@pytest.mark.parametrize("said", ["", "WAIT", "ERR DRIVER-NOT-CONNECTED"])
def test_waits_for_slow_driver(host: Host, said: str) -> None:
    with serve_answers(make_answers(ups=said)) as fake:
        host.events[17] = lambda: fake.answers.update(make_answers(ups="OL"))
        assert host.verify(primary_at(fake.port), 60) == VerifyResult({"ups": "OL"})
    assert host.now == 17


@pytest.mark.parametrize(("said", "status"), [("", "no data"), ("ERR DRIVER-NOT-CONNECTED", "DRIVER-NOT-CONNECTED")])
@pytest.mark.parametrize("seconds", [0, 30])
def test_hung_driver_is_broken(host: Host, said: str, status: str, seconds: int) -> None:
    host.journal[UPS] = "Can't claim USB device [051d:0002]@0/0: Resource busy\n"
    with serve_answers(make_answers(ups=said)) as fake:
        verdict = host.verify(primary_at(fake.port), seconds)
    assert verdict == VerifyResult({"ups": status}, (Trouble(f"upsd has no fresh data for ups: {status}", UPS),))
    assert seconds <= host.now < seconds + 1


@pytest.mark.parametrize("said", ["DATA-STALE", "DRIVER-NOT-CONNECTED"])
def test_ups_without_a_node_is_broken_and_the_cause_is_named(host: Host, said: str) -> None:
    """The driver finds nothing then, as if the UPS were not plugged in."""
    host.devices = (replace(usb_devices.APC, accessible=None, has_node=False),)
    host.journal[UPS] = "No matching HID UPS found\n"
    with serve_answers(make_answers(ups=f"ERR {said}")) as fake:
        verdict = host.verify(primary_at(fake.port), 1)
    (trouble,) = verdict.broken
    assert f"{usb_devices.APC.node} does not exist" in trouble.message
    assert "share the whole folder /dev/bus/usb with the container" in trouble.message
    assert verdict.absent == ()


@pytest.mark.parametrize("patient", [False, True])
@pytest.mark.parametrize(
    ("said", "journal"), [("DRIVER-NOT-CONNECTED", "Can't claim USB device\n"), ("DATA-STALE", ""), ("", "")]
)
def test_undeclared_ups_is_never_broken(host: Host, said: str, journal: str, patient: bool) -> None:
    """It was merely found on the bus, so it must not fail a run, nor delay it for a minute."""
    found = systemd.driver_unit("ups2")
    host.journal[found] = journal
    with serve_answers(make_answers(ups="OL", ups2=f"ERR {said}" if said else "")) as fake:
        verdict = host.verify(primary_at(fake.port, "ups", "ups2"), 60, patient, declared=frozenset({"ups"}))
    assert (verdict.broken, verdict.absent) == ((), ())
    assert [trouble.unit for trouble in verdict.undeclared] == [found]
    assert host.now == verify.SETTLE_SECONDS


ABSENT = {"DATA-STALE": "", "DRIVER-NOT-CONNECTED": "No matching HID UPS found\n"}


@pytest.mark.parametrize(("said", "journal"), ABSENT.items())
def test_missing_ups_is_absent(host: Host, said: str, journal: str) -> None:
    """This is not a fault of the host, and the run does not wait a minute for it."""
    host.journal[UPS] = journal
    with serve_answers(make_answers(ups=f"ERR {said}")) as fake:
        verdict = host.verify(primary_at(fake.port), 60)
        assert verdict == VerifyResult({"ups": said}, (), (Trouble(f"upsd has no fresh data for ups: {said}", UPS),))
        assert host.now == verify.SETTLE_SECONDS
        assert host.verify(primary_at(fake.port), 60, patient=True) == verdict
    assert host.now == verify.SETTLE_SECONDS + 60


def test_one_missing_ups_of_two_is_absent(host: Host) -> None:
    with serve_answers(make_answers(ups="OL", spare="ERR DATA-STALE")) as fake:
        verdict = host.verify(primary_at(fake.port, "ups", "spare"), 60)
    assert verdict.status == {"ups": "OL", "spare": "DATA-STALE"}
    assert [trouble.unit for trouble in verdict.absent] == [systemd.driver_unit("spare")]
    assert verdict.broken == ()


def test_ups_unknown_to_upsd_is_broken(host: Host) -> None:
    with serve_answers(
        {**make_answers(other="OL"), "LIST CLIENT ups": make_answers(ups="")["LIST CLIENT ups"]}
    ) as fake:
        verdict = host.verify(primary_at(fake.port), 1)
    (trouble,) = verdict.broken
    assert "answered UNKNOWN-UPS" in trouble.message
    assert trouble.unit == systemd.SERVER


def test_unreachable_upsd_is_broken(host: Host, unused_port: int) -> None:
    verdict = host.verify(primary_at(unused_port), 0)
    assert verdict.status == {}
    assert [trouble.unit for trouble in verdict.broken] == [systemd.SERVER, systemd.MONITOR]
    assert all("connection refused" in trouble.message for trouble in verdict.broken)


def test_exited_daemon_is_started_again(host: Host) -> None:
    """upsd was killed during the run. Debian 12 does not restart it."""
    with serve_answers(make_answers(ups="OL")) as fake:
        files = primary_at(fake.port)
        nobody = {"LIST CLIENT ups": "BEGIN LIST CLIENT ups\nEND LIST CLIENT ups\n"}
        fake.answers.update(nobody)
        host.active[systemd.MONITOR] = "failed"
        host.on_start = lambda _name: fake.answers.update(make_answers(ups="OL"))
        assert host.verify(files, 60) == VerifyResult({"ups": "OL"}, restarted=(systemd.MONITOR,))
    assert host.told == [f"reset-failed {systemd.MONITOR}", f"start {systemd.MONITOR}"]


def test_crashing_daemon_is_given_up(host: Host, unused_port: int) -> None:
    host.active[systemd.SERVER] = "failed"
    verdict = host.verify(primary_at(unused_port), 30)
    assert host.told.count(f"start {systemd.SERVER}") == verify.STARTS
    assert verdict.restarted == (systemd.SERVER,)
    assert verdict.broken


def test_running_daemon_is_not_restarted(host: Host, unused_port: int) -> None:
    host.verify(primary_at(unused_port), 30)
    assert host.told == []


@pytest.mark.parametrize(
    ("clients", "there"),
    [
        ([], False),
        (["192.0.2.9"], False),
        (["192.0.2.9", "127.0.0.1"], True),
        (["::ffff:127.0.0.1"], True),
        (["::1"], True),
    ],
)
def test_missing_login_of_upsmon_is_broken(host: Host, clients: list[str], there: bool) -> None:
    listed = (
        "BEGIN LIST CLIENT ups\n" + "".join(f"CLIENT ups {client}\n" for client in clients) + "END LIST CLIENT ups\n"
    )
    with serve_answers({**make_answers(ups="OL"), "LIST CLIENT ups": listed}) as fake:
        verdict = host.verify(secondary_at(fake.port), 0)
    assert verdict.status == {}
    words = (
        f"upsmon on this host (127.0.0.1) has not logged in to ups@127.0.0.1:{fake.port} as media; "
        f"clients that upsd lists: {', '.join(clients) or 'none'}"
    )
    assert [(trouble.message.partition("; upsd at")[0], trouble.unit) for trouble in verdict.broken] == (
        [] if there else [(words, systemd.MONITOR)]
    )


NOBODY = {"LIST CLIENT ups": "BEGIN LIST CLIENT ups\nEND LIST CLIENT ups\n"}
KNOWN = {"USERNAME media": "OK\n", "PASSWORD secret2": "OK\n"}
STRANGER = {**KNOWN, "LOGIN ups": "ERR ACCESS-DENIED\n"}


def test_refused_login_is_repeated_once_upsd_accepts_it(host: Host) -> None:
    """upsmon itself does not try again."""
    with serve_answers({**make_answers(ups="OL"), **NOBODY, **KNOWN}) as fake:
        host.on_restart = lambda: fake.answers.update(make_answers(ups="OL"))
        verdict = host.verify(secondary_at(fake.port), 60)
        assert fake.asked.count("LOGIN ups") == fake.asked.count("LOGOUT") == 1
    assert host.told == [f"restart {systemd.MONITOR}"]
    assert verdict.repeated == (f"media on ups@127.0.0.1:{fake.port}",)
    assert verdict.broken == ()
    assert host.now == pytest.approx(verify.LOGIN_SECONDS, abs=1)


def test_upsmon_is_restarted_only_once(host: Host) -> None:
    with serve_answers({**make_answers(ups="OL"), **NOBODY, **KNOWN}) as fake:
        (trouble,) = host.verify(secondary_at(fake.port), 60).broken
    assert host.told == [f"restart {systemd.MONITOR}"]
    assert "upsd accepts this login" in trouble.message


def test_login_that_upsd_refuses_is_not_repeated(host: Host) -> None:
    with serve_answers({**make_answers(ups="OL"), **NOBODY, **STRANGER}) as fake:
        (trouble,) = host.verify(secondary_at(fake.port), 60).broken
        # each try is a line in upsd's log
        assert fake.asked.count("LOGIN ups") < 6
    assert host.told == []
    assert "does not accept the login media to ups (ACCESS-DENIED)" in trouble.message
    assert "secret2" not in trouble.message


def test_login_is_not_repeated_on_battery(host: Host) -> None:
    host.on_mains = False
    with serve_answers({**make_answers(ups="OB"), **NOBODY, **KNOWN}) as fake:
        assert host.verify(secondary_at(fake.port), 60).repeated == ()
    assert host.told == []


def test_upsmon_with_long_polls_has_longer_to_log_in(host: Host) -> None:
    files = secondary_at(0)
    with serve_answers({**make_answers(ups="OL"), **NOBODY, **KNOWN}) as fake:
        host.events[25] = lambda: fake.answers.update(make_answers(ups="OL"))
        files["upsmon.conf"] = secondary_at(fake.port)["upsmon.conf"] + "POLLFREQ 20\n"
        assert host.verify(files, 120).repeated == ()
    assert host.told == []


def test_unreachable_monitored_upsd_is_absent(host: Host, unused_port: int) -> None:
    """That UPS does not feed this host (powervalue 0), so a warning is enough."""
    with serve_answers(make_answers(ups="OL")) as fake:
        files = primary_at(fake.port)
        files["upsmon.conf"] += f"MONITOR far@127.0.0.1:{unused_port} 0 u p secondary\n"
        verdict = host.verify(files, 60)
    assert verdict.broken == ()
    assert [trouble.message.partition(":")[0] for trouble in verdict.absent] == ["far@127.0.0.1"]


def test_secondary_that_cannot_reach_its_primary_is_told_which_address_to_set(host: Host, unused_port: int) -> None:
    files = {"upsmon.conf": f"MONITOR rack@127.0.0.1:{unused_port} 1 desk p secondary\n"}
    (trouble,) = host.verify(files, 0).broken
    assert trouble.message.startswith(
        f"rack@127.0.0.1:{unused_port}: upsd at 127.0.0.1:{unused_port} cannot be reached"
    )
    assert (
        "set nut_client_primary_address to an address of its primary that it can reach, or nut_server_address"
        in trouble.message
    )
