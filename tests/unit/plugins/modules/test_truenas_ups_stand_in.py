# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test truenas_ups as Ansible runs it, with nothing replaced, against the lab's TrueNAS.

It connects over TLS on the loopback, and through the lab's midclt as a process in PATH. One file, because all tests
share one lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import shutil
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common import warnings as given_warnings
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils._truenas import jsonrpc, midclt, middleware
from ansible_collections.homelab.nut.plugins.module_utils._truenas.module import Transports
from ansible_collections.homelab.nut.plugins.modules import truenas_ups
from ansible_collections.homelab.nut.tests.unit.support.truenas_units import FakeUnits
from truenas import accounts, server
from truenas.errors import call_error
from truenas.middleware import Middleware
from truenas.releases import RELEASES
from truenas.service import StateFile

pytestmark = pytest.mark.slow

KEY = "7-" + "k" * 64
NEW_PASSWORD = "Canary-new_1"
USERS: dict[str, dict[str, Any]] = {
    "nut": {"password": "Canary-login", "roles": ["SYSTEM_GENERAL_WRITE", "SERVICE_WRITE", "SERVICE_READ"]},
    "reader": {"password": "Canary-login", "roles": ["READONLY_ADMIN"]},
    "blind": {"password": "Canary-login", "roles": ["SYSTEM_GENERAL_WRITE", "SERVICE_WRITE"]},
    "careful": {"password": "Canary-login", "otp_token": "123456"},
    "nobody": {"password": "Canary-login", "roles": []},
}
# On TrueNAS from before, and given anew: in every place where a secret may be.
OLD_SECRETS = {
    "monpwd": "Canary-old_2",
    "extrausers": "[old]\n  password = Canary-old_3",
    "options": 'community = "Canary-old_4"',
    "optionsupsd": "CERTIDENT x Canary-old_5",
}
NEW_SECRETS = {
    "monpwd": NEW_PASSWORD,
    "extrausers": '[new]\n  password = "Canary-new_6"',
    "options": "authPassword = Canary-new_7\nprivPassword = Canary \u00e4 8",
    "optionsupsd": "CERTIDENT x Canary-new_9",
}
KEYS: list[dict[str, Any]] = [
    {"id": 7, "name": "nut", "username": "nut", "key": KEY},
    {"id": 8, "name": "nobody", "username": "nobody", "key": "8-" + "k" * 64},
]
WITH_JSON_RPC = sorted(name for name, release in RELEASES.items() if release.json_rpc)
WITHOUT = sorted(set(RELEASES) - set(WITH_JSON_RPC))

Run = Callable[..., dict[str, Any]]


class Box:
    """A TrueNAS that listens."""

    def __init__(self, release: str, data: Path) -> None:
        self.upsmon = FakeUnits()
        self.now = 1_700_000_000.0
        self.faults: dict[str, Any] = {}
        self.release = release
        self.data = data
        self.middleware = Middleware(
            release=RELEASES[release],
            accounts=accounts.parse_accounts(USERS, KEYS),
            state=StateFile(data / "truenas.json"),
            runner=self.upsmon,
            clock=lambda: self.now,
            faults=lambda: self.faults,
        )
        self.plain = self.tls = 0
        self.certificate = data / "https.crt"
        self.admins = {0, os.getuid()}  # whom its midclt lets in
        self.unix: asyncio.AbstractServer | None = None

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()

    @property
    def socket(self) -> Path:
        return self.data / "run" / "middlewared.sock"

    @property
    def arguments(self) -> list[list[str]]:
        """What the list of processes showed of each midclt."""
        return [json.loads(line)["argv"] for line in (self.socket.parent / "midclt.log").read_text().splitlines()]


Make = Callable[[str], Box]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making one takes a while, and all may have the same."""
    directory = tmp_path_factory.mktemp("certificate")
    server.load_certificate(directory)
    return directory


@pytest.fixture
def make(tmp_path: Path, certificate: Path) -> Iterator[Make]:
    """make(release) is one more TrueNAS."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runners: list[Any] = []
    boxes: list[Box] = []

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=30)

    def make(release: str) -> Box:
        data = tmp_path / f"box{len(boxes)}"
        shutil.copytree(certificate, data)
        box = Box(release, data)
        boxes.append(box)
        config = server.ServerConfig(data=str(data), ui_address="127.0.0.1", ui_port=0, ui_httpsport=0)
        runners.extend(run(server.open_ports(box.middleware, config)))
        box.plain, box.tls = (runner.addresses[0][1] for runner in runners[-2:])
        box.unix = run(server.open_midclt_socket(box.middleware, box.socket, release, box.admins))
        return box

    yield make

    async def close() -> None:
        for runner in runners:
            await runner.cleanup()
        for box in boxes:
            assert box.unix is not None
            box.unix.close()

    run(close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=30)
    loop.close()


@pytest.fixture(params=WITH_JSON_RPC)
def box(request: pytest.FixtureRequest, make: Make) -> Box:
    return make(request.param)


def call(capfd: pytest.CaptureFixture[str], box: Box, *, check: bool = False, **params: Any) -> dict[str, Any]:
    """Run the module, and check that its output contains no secret. Its time between two looks is the time of the box."""
    given: dict[str, Any] = {"remotehost": "192.0.2.10", "monuser": "truenas", "monpwd": NEW_PASSWORD, **params}
    given = {name: value for name, value in given.items() if value is not None}
    given.update(_ansible_check_mode=check, _ansible_diff=True, _ansible_inject_invocation=True)
    given_warnings._global_warnings.clear()  # of the last run: Ansible runs each module in a process of its own
    with patch_module_args(given), pytest.raises(SystemExit):
        truenas_ups.main(Transports(sleep=box.sleep))
    out, err = capfd.readouterr()
    assert [secret for secret in ("Canary", "fixmepass", KEY, "123456", "\u00e4 8") if secret in out + err] == []
    result: dict[str, Any] = json.loads(out)
    assert "Traceback" not in out + err
    return result


@pytest.fixture
def run_at(capfd: pytest.CaptureFixture[str]) -> Run:
    """run_at(box, ...) talks to this one over TLS."""

    def run(box: Box, **params: Any) -> dict[str, Any]:
        url, path = f"https://localhost:{box.tls}", str(box.certificate)
        return call(capfd, box, **{"url": url, "username": "nut", "api_key": KEY, "ca_path": path, **params})

    return run


@pytest.fixture
def run(box: Box, run_at: Run) -> Run:
    return lambda **params: run_at(box, **params)


def unchanged(result: dict[str, Any]) -> bool:
    """Return whether the run succeeded without a change; a failure may also report changed: false."""
    return result["changed"] is False and "failed" not in result


def test_service_is_configured_changed_and_removed(box: Box, run: Any) -> None:
    checked = run(check=True)
    assert box.middleware.settings["mode"] == "MASTER"
    first = run()
    for name in ("changed", "actions", "settings", "service", "diff"):
        assert checked[name] == first[name], name
    assert first["changed"] is True
    assert first["service"] == {"enable": True, "state": "RUNNING"}
    assert first["version"] == box.middleware.release.version
    assert box.middleware.settings["monpwd"] == NEW_PASSWORD
    assert box.upsmon.starts == 1

    assert unchanged(run())
    changed = run(remotehost="192.0.2.11")
    assert changed["actions"] == ["set remotehost; TrueNAS restarted its UPS service"]
    assert box.upsmon.starts == 2  # by TrueNAS, and not once more by the module

    gone = run(state="absent")
    assert gone["actions"] == ["stopped the UPS service", "disabled the UPS service on boot", "set monuser, monpwd"]
    assert (box.upsmon.running, box.middleware.enabled) == (False, False)
    assert unchanged(run(state="absent"))


def test_certificate_is_verified_or_pinned(box: Box, run: Any) -> None:
    shown = run(ca_path=None)["msg"].rpartition(" ")[2]
    assert shown.replace(":", "").lower() == box.fingerprint
    assert run(ca_path=None, fingerprint=shown, check=True)["changed"] is True
    assert "not the pinned one" in run(fingerprint="00" * 32)["msg"]


def test_service_left_stopped_by_a_restart_is_started(box: Box, run: Any) -> None:
    run()
    box.faults["restart_leaves_stopped"] = True
    result = run(monuser="other")
    assert result["actions"][1] == "restarted the UPS service, which was not running after the change"
    assert box.upsmon.running


def warnings(result: dict[str, Any]) -> str:
    """Return all warnings as one text."""
    return " ".join(each["event"]["msg"] for each in result.get("warnings", []))


DUMMY = "dummy-ups$the lab's own"
DRIVER_FAILS = "systemctl disable --now nut-driver@own.service in TrueNAS's shell"


def make_former_master(box: Box) -> None:
    """Let the TrueNAS have a UPS of its own, named own, whose service runs."""
    box.middleware.settings.update(mode="MASTER", driver=DUMMY, port="auto", identifier="own")
    assert box.middleware.service.start(silent=False) is True


def test_ups_that_moves_to_another_host_is_configured(box: Box, run: Any) -> None:
    """From 26 on TrueNAS reports a failure each time, because the driver of its former UPS fails."""
    make_former_master(box)
    is_strict = box.release == "26"
    first = run()
    assert first["changed"] is True
    assert first["actions"][0].endswith("; TrueNAS restarted its UPS service")
    assert first["service"] == {"enable": True, "state": "RUNNING"}
    assert ("reports a failure, but the service is running" in warnings(first)) is is_strict
    assert ("The ups service failed to start" in warnings(first)) is is_strict
    again = run()
    assert unchanged(again)
    assert "warnings" not in again
    changed = run(hostsync=21)
    assert changed["actions"] == ["set hostsync; TrueNAS restarted its UPS service"]
    assert ("but the service is running" in warnings(changed)) is is_strict
    assert run(state="absent")["service"] == {"enable": False, "state": "STOPPED"}
    present = run(hostsync=21)
    assert present["actions"][-1] == "started the UPS service"
    assert present["service"] == {"enable": True, "state": "RUNNING"}
    assert (DRIVER_FAILS in warnings(present)) is is_strict
    assert ("FATAL: The '/etc/nut/ups.conf' file does not exist" in warnings(present)) is is_strict


# A TrueNAS that has the UPS on its USB, and a Proxmox VE host that is its secondary.
PRIMARY = {
    "mode": "MASTER",
    "driver": "usbhid-ups$Back-UPS ES 700G",
    "port": "auto",
    "identifier": "rack",
    "description": "the UPS below the desk",
    "options": "pollinterval = 15",
    "rmonitor": True,
    "powerdown": True,
    "monuser": "local",
    "extrausers": "[pve]\n\tpassword = Canary-pve\n\tupsmon secondary",
}


def test_truenas_becomes_a_primary(box: Box, run: Any) -> None:
    checked = run(check=True, **PRIMARY)
    first = run(**PRIMARY)
    for name in ("changed", "actions", "settings", "service", "diff"):
        assert checked[name] == first[name], name
    assert first["actions"] == [
        "set identifier, remotehost, monuser, monpwd, shutdown, powerdown, rmonitor, driver, port, options, description, "
        "extrausers",
        "enabled the UPS service on boot",
        "started the UPS service",
    ]
    assert first["service"] == {"enable": True, "state": "RUNNING"}
    assert first["settings"]["complete_identifier"] == "rack@localhost:3493"
    assert (first["settings"]["extrausers"], first["settings"]["options"]) == ("(hidden)", "(hidden)")
    files = box.upsmon.files
    assert files["nut.conf"] == "MODE=netserver\n"
    assert files["ups.conf"].startswith("[rack]\n\tdriver = usbhid-ups\n\tport = auto\n")
    assert "\tpollinterval = 15\n" in files["ups.conf"]
    assert files["upsd.conf"].startswith("LISTEN 0.0.0.0 3493\nLISTEN ::0 3493\n")
    assert f"[local]\n\tpassword = {NEW_PASSWORD}\n\tupsmon master\n" in files["upsd.users"]
    assert files["upsd.users"].endswith("[pve]\n\tpassword = Canary-pve\n\tupsmon secondary\n")
    assert "POWERDOWNFLAG /etc/killpower\n" in files["upsmon.conf"]
    assert unchanged(run(**PRIMARY))


def test_primary_is_changed_and_removed(box: Box, run: Any) -> None:
    run(**PRIMARY)
    changed = run(**{**PRIMARY, "options": "pollinterval = 30", "rmonitor": False})
    assert changed["actions"] == ["set rmonitor, options; TrueNAS restarted its UPS service"]
    assert box.upsmon.files["upsd.conf"].startswith("LISTEN 127.0.0.1 3493\nLISTEN ::1 3493\n")
    assert "\tpollinterval = 30\n" in box.upsmon.files["ups.conf"]
    gone = run(state="absent")
    # its own UPS and login stay, because only a secondary has a login at another host
    assert gone["actions"] == ["stopped the UPS service", "disabled the UPS service on boot"]
    assert box.middleware.settings["driver"] == PRIMARY["driver"]
    assert unchanged(run(state="absent"))
    again = run(**PRIMARY)
    assert again["actions"][-1] == "started the UPS service"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        (
            {"driver": "usbhid-ups"},
            "TrueNAS refuses driver: Driver selected does not match local machine's driver list",
        ),
        ({"driver": None}, "driver: required for mode MASTER, and not set on TrueNAS either"),
        ({"port": None}, "port: required for mode MASTER"),
        ({"driver": "", "port": ""}, "driver and port: required for mode MASTER"),
        ({"description": 'my "UPS"'}, "description: must be one line"),
    ],
)
def test_impossible_primary_is_refused(box: Box, run: Any, params: dict[str, Any], words: str) -> None:
    result = run(**{**PRIMARY, **params})
    assert (result["failed"], result["changed"]) == (True, False)
    assert words in result["msg"]
    assert box.upsmon.calls == []


def test_secondary_becomes_a_primary_and_back(box: Box, run: Any) -> None:
    run()
    primary = run(**PRIMARY)
    assert primary["actions"][0].endswith("; TrueNAS restarted its UPS service")
    assert primary["settings"]["mode"] == "MASTER"
    assert "warnings" not in primary
    secondary = run()
    assert secondary["settings"]["complete_identifier"] == "ups@192.0.2.10:3493"
    assert ("but the service is running" in warnings(secondary)) is (box.release == "26")
    assert unchanged(run())


def test_service_that_dies_after_its_start_is_an_error(box: Box, run: Any) -> None:
    box.faults["dies"] = {"after": 0.3}
    for _run in range(2):
        failed = run()
        assert (failed["failed"], failed["changed"]) == (True, True)
        assert "the UPS service was started twice but is STOPPED. TrueNAS is NOT protected now" in failed["msg"]
        assert "started the UPS service" in failed["actions"]
    box.faults.clear()
    assert run()["actions"] == ["started the UPS service"]


def test_service_that_keeps_dying_is_an_error(box: Box, run: Any) -> None:
    """systemd starts it again and again, so TrueNAS answers RUNNING."""
    box.faults["dies"] = {"after": 0.3, "restarts": True}
    failed = run()
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert "started twice but is RESTARTING: it dies a moment after each start" in failed["msg"]
    assert box.middleware.service.read_state().running is True
    unchanged_settings = run()
    assert (unchanged_settings["failed"], unchanged_settings["changed"]) == (True, True)
    assert unchanged_settings["actions"] == ["restarted the UPS service, which was not running"]
    box.faults.clear()
    assert unchanged(run())


def test_check_mode_does_not_wait_for_the_service(box: Box, run: Any) -> None:
    run()
    before = box.now
    assert unchanged(run(check=True))
    assert box.now == before


def test_saved_settings_with_a_running_service_are_a_success_with_a_warning(make: Make, run_at: Run) -> None:
    """From 26 on TrueNAS restarts netdata after upsmon, and reports netdata's error as its own."""
    box = make("26")
    run_at(box)
    box.faults["after_start"] = "netdata: Job for netdata.service failed"
    changed = run_at(box, identifier="ups2")
    assert (changed["changed"], changed["actions"]) == (True, ["set identifier; TrueNAS restarted its UPS service"])
    assert changed["settings"]["identifier"] == "ups2"
    assert "Job for netdata.service failed" in warnings(changed)
    assert unchanged(run_at(box, identifier="ups2"))
    run_at(box, state="absent")
    started = run_at(box, identifier="ups2")
    assert started["service"] == {"enable": True, "state": "RUNNING"}
    assert "Job for netdata.service failed" in warnings(started)


def test_service_that_truenas_did_not_restart_is_restarted(box: Box, run: Any) -> None:
    """The settings are saved, then TrueNAS fails to write NUT's files: upsmon goes on with the old ones."""
    run()
    box.faults["etc"] = "no space left on device"
    failed = run(remotehost="192.0.2.11")
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert failed["actions"] == ["set remotehost"]
    assert "no space left on device" in failed["msg"]
    assert "The UPS service is STOPPED. TrueNAS is NOT protected now" in failed["msg"]
    assert "TrueNAS has saved the settings nevertheless" in warnings(failed)
    box.faults.clear()
    repaired = run(remotehost="192.0.2.11")
    assert repaired["actions"] == ["started the UPS service"]
    assert "192.0.2.11" in box.upsmon.files["upsmon.conf"]


@pytest.mark.parametrize("release", ["25.10", "26"])
def test_job_that_does_not_end_is_judged_by_the_service(
    make: Make, run_at: Run, monkeypatch: pytest.MonkeyPatch, release: str
) -> None:
    monkeypatch.setattr(middleware, "ACTION_SECONDS", 0.0)
    box = make(release)
    box.faults["job_hangs"] = True
    started = run_at(box, timeout=2)
    assert started["service"] == {"enable": True, "state": "RUNNING"}
    assert "did not end within 2 s" in warnings(started)
    run_at(box, timeout=2, state="absent")
    box.faults["dies"] = {"after": 0.3}
    failed = run_at(box, timeout=2)
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert "START ups (job 3) did not end within 2 s" in failed["msg"]
    assert "The UPS service is STOPPED. TrueNAS is NOT protected now" in failed["msg"]


def test_state_that_truenas_does_not_know_for_a_moment_changes_nothing(box: Box, run: Any) -> None:
    run()
    starts = box.upsmon.starts
    box.faults["state_unknown"] = True
    sleep = box.sleep

    def recover(seconds: float) -> None:
        box.faults.clear()
        sleep(seconds)

    box.sleep = recover  # type: ignore[method-assign]
    assert unchanged(run())
    assert box.upsmon.starts == starts


def test_state_that_truenas_never_knows_is_an_error(box: Box, run: Any) -> None:
    run()
    box.faults["state_unknown"] = True
    failed = run()
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert "was started twice but is UNKNOWN. Nobody can tell whether TrueNAS is protected" in failed["msg"]
    assert box.upsmon.running


@pytest.mark.parametrize("errname", ["EFAULT", "EINVAL"])
def test_update_that_was_not_saved_is_no_change(box: Box, run: Any, errname: str) -> None:
    run()
    box.faults["methods"] = {"ups.update": {"errname": errname, "reason": "no luck today"}}
    failed = run(remotehost="192.0.2.11")
    assert (failed["failed"], failed["changed"], failed["actions"]) == (True, False, [])
    assert box.middleware.settings["remotehost"] == "192.0.2.10"


def test_update_whose_result_is_unknown_counts_as_a_change(box: Box, run: Any) -> None:
    run()
    box.faults["etc"] = "no space left on device"
    answer = box.middleware.service.update_settings

    def update_then_hang_up(values: Any) -> dict[str, Any]:
        box.faults["drop"] = {"ups.config": "before"}
        return answer(values)

    box.middleware.service.update_settings = update_then_hang_up  # type: ignore[method-assign]
    failed = run(remotehost="192.0.2.11")
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert "TrueNAS may have saved the settings before that; it could not be asked" in failed["msg"]


def test_failed_start_is_an_error(box: Box, run: Any) -> None:
    run()
    box.faults["service_start"] = "nut-monitor.service: failed, said Canary-new_1"
    failed = run(remotehost="192.0.2.11")
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert "the settings were saved, but the UPS service failed to start" in failed["msg"]
    again = run(remotehost="192.0.2.11")
    assert again["failed"] is True
    assert "nut-monitor.service: failed" in again["msg"]
    assert "The UPS service is STOPPED. TrueNAS is NOT protected now" in again["msg"]
    assert again["changed"] is False
    box.faults.clear()
    assert run(remotehost="192.0.2.11")["actions"] == ["started the UPS service"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"api_key": "7-" + "x" * 64}, "wrong API key for user 'nut'"),
        ({"username": "reader"}, "wrong API key for user 'reader'"),
        ({"username": "reader", "api_key": None, "password": "Canary-login"}, "SYSTEM_GENERAL_WRITE"),
        ({"username": "blind", "api_key": None, "password": "Canary-login"}, "which needs the role SERVICE_READ"),
        ({"username": "careful", "api_key": None, "password": "Canary-login"}, "needs a one-time code"),
        ({"username": "careful", "api_key": None, "password": "Canary-login", "otp": "000000"}, "was not accepted"),
        ({"driver": "usbhid-ups"}, "TrueNAS refuses driver: Driver selected does not match"),
        ({"username": "nobody", "api_key": "8-" + "x" * 64}, "or is in no group with a privilege"),
    ],
)
def test_refused_logins_are_explained(run: Any, params: dict[str, Any], words: str) -> None:
    result = run(**params)
    assert (result["failed"], result["changed"]) == (True, False)
    assert words in result["msg"]


def test_login_with_one_time_code(run: Any) -> None:
    params = {"username": "careful", "api_key": None, "password": "Canary-login", "otp": "123456"}
    assert run(**params)["changed"] is True


def test_revoked_key_is_explained(box: Box, run: Any) -> None:
    box.faults["revoked_keys"] = [7]
    assert "is revoked or expired" in run()["msg"]
    box.faults.clear()
    box.faults["expired_keys"] = [7]
    assert "is revoked or expired" in run()["msg"]


@pytest.mark.parametrize(
    "params", [{"api_key": None, "password": "Canary-login"}, {"api_key": "8-" + "k" * 64}], ids=["password", "key"]
)
def test_user_without_a_privilege_is_explained(box: Box, run: Any, params: dict[str, Any]) -> None:
    """26 says so for a password; with SCRAM it dies, and the others answer as for a wrong secret."""
    message = run(username="nobody", **params)["msg"]
    words = "user 'nobody' may not use the API" if box.release == "26" else "or is in no group with a privilege"
    assert words in message
    assert "privilege with the roles SYSTEM_GENERAL_WRITE, SERVICE_WRITE and SERVICE_READ" in message


def test_stig_mode_is_explained(box: Box, run: Any) -> None:
    box.faults["stig"] = True
    assert "this TrueNAS accepts no API keys, because it requires two-factor authentication (STIG mode)" in run()["msg"]
    login = {"api_key": None, "password": "Canary-login"}
    assert "In STIG mode, TrueNAS also refuses users without two-factor authentication" in run(**login)["msg"]
    assert run(username="careful", otp="123456", **login)["changed"] is True


def record_logins(box: Box) -> list[dict[str, Any]]:
    """Return a list that each login_ex adds its data to."""
    seen: list[dict[str, Any]] = []
    log_in = box.middleware.logins.log_in_ex

    def record(connection: Any, data: dict[str, Any]) -> dict[str, Any]:
        seen.append(data)
        return log_in(connection, data)

    box.middleware.logins.log_in_ex = record  # type: ignore[method-assign]
    return seen


def test_password_that_breaks_the_graphs_of_truenas_is_warned_of(box: Box, run: Any) -> None:
    result = run(monpwd="{Canary}[y]")
    assert result["changed"] is True
    assert ("breaks that file: TrueNAS shows no graphs of the UPS" in warnings(result)) is (box.release == "26")
    assert "warnings" not in run()


def test_number_in_the_options_masks_no_address(box: Box, run: Any) -> None:
    box.middleware.settings["options"] = "x = 1\npollinterval = 15\nport = auto"
    message = run(remotehost="fd00::5")["msg"]
    assert message.startswith(f"localhost:{box.tls}: remotehost: ")
    box.faults["methods"] = {"ups.update": {"errname": "EFAULT", "reason": "127.0.0.1:21527 is auto, 15 of 60"}}
    assert "127.0.0.1:21527 is auto, 15 of 60" in run()["msg"]


def test_key_is_proved_and_not_sent_where_the_release_can(box: Box, run: Any) -> None:
    seen = record_logins(box)
    assert run()["changed"] is True
    secret = KEY.partition("-")[2]
    if box.release != "26":
        assert [each["mechanism"] for each in seen] == ["API_KEY_PLAIN"]
        return
    assert [each["scram_type"] for each in seen] == ["CLIENT_FIRST_MESSAGE", "CLIENT_FINAL_MESSAGE"]
    assert seen[0]["rfc_str"].startswith("p=tls-server-end-point,,n=nut:7,r=")
    assert secret not in json.dumps(seen)


def test_key_over_an_unverified_certificate(box: Box, run: Any) -> None:
    """Where it is only proved, it may; a key that would be sent is not sent."""
    seen = record_logins(box)
    result = run(ca_path=None, validate_certs=False)
    if box.release == "26":
        assert result["changed"] is True
        assert "only the login with the API key proves that this is TrueNAS" in warnings(result)
        assert len(seen) == 2
    else:
        assert (result["failed"], result["changed"], seen) == (True, False, [])
        assert "the API key was not sent. The certificate is not verified" in result["msg"]


def test_login_is_bound_to_the_certificate(make: Make, run_at: Run) -> None:
    """A machine in between has another certificate than TrueNAS, so TrueNAS refuses the login that it passes on."""
    box = make("26")
    box.middleware.logins.certificate_hash = hashlib.sha256(b"another certificate").digest()
    result = run_at(box, ca_path=None, validate_certs=False)
    assert (result["failed"], result["changed"]) == (True, False)
    assert (
        "If another server with a certificate of its own stands before TrueNAS, set url to TrueNAS itself"
        in result["msg"]
    )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"rfc_str": "v=" + "A" * 86 + "=="}, "this machine does not know the key, so it may not be TrueNAS"),
        ({"rfc_str": "e=other-error"}, "this machine did not prove that it knows the key"),
        ({"rfc_str": "v=A"}, "this machine sent a message that is not in base64"),
        ({"response_type": "SUCCESS"}, "accepts the login without a proof that it knows the API key"),
        ({"response_type": "SCRAM_RESPONSE", "rfc_str": None}, "this machine did not prove"),
        ({"response_type": "SCRAM_RESPONSE", "rfc_str": ["v"]}, "this machine did not prove"),
    ],
)
def test_machine_that_does_not_know_the_key_is_not_trusted(
    make: Make, run_at: Run, answer: dict[str, Any], words: str
) -> None:
    box = make("26")
    log_in = box.middleware.logins.log_in_ex

    def pose(connection: Any, data: dict[str, Any]) -> dict[str, Any]:
        real = log_in(connection, data)
        return {**real, **answer} if data["scram_type"] == "CLIENT_FINAL_MESSAGE" else real

    box.middleware.logins.log_in_ex = pose  # type: ignore[method-assign]
    result = run_at(box)
    assert (result["failed"], result["changed"]) == (True, False)
    assert words in result["msg"]
    assert box.middleware.settings["mode"] == "MASTER"


@pytest.mark.parametrize(
    ("challenge", "words"),
    [
        ("", "sent a challenge that can't be read"),
        ("r=abc", "sent a challenge that can't be read"),
        ("r=abc,s=c2FsdA==,i=50000", "answered another login than this one"),
        ("{nonce}x,s=c2FsdA==,i=1", "asks for 1 iterations"),
        ("{nonce}x,s=c2FsdA==,i=999999999", "asks for 999999999 iterations"),
        ("{nonce}x,s=c2Fsd,i=50000", "sent a message that is not in base64"),
    ],
)
def test_challenge_that_truenas_would_not_send_is_refused(make: Make, run_at: Run, challenge: str, words: str) -> None:
    box = make("26")

    def pose(_unused: Any, data: dict[str, Any]) -> dict[str, Any]:
        nonce = "r=" + data["rfc_str"].partition(",r=")[2]
        return {"response_type": "SCRAM_RESPONSE", "rfc_str": challenge.format(nonce=nonce)}

    box.middleware.logins.log_in_ex = pose  # type: ignore[method-assign]
    result = run_at(box)
    assert (result["failed"], result["changed"]) == (True, False)
    assert words in result["msg"]


def test_key_is_never_sent_over_plain_http(box: Box, run: Any) -> None:
    assert "api_key: refused over plain http" in run(url=f"http://localhost:{box.plain}")["msg"]
    assert run()["changed"] is True
    result = run(url=f"ws://localhost:{box.plain}", api_key=None, password="Canary-login", ca_path=None)
    assert unchanged(result)


def test_rate_limit_is_explained(box: Box, run: Any) -> None:
    for _unused in range(10 if box.release == "26" else 20):  # a proof takes two calls
        assert "wrong API key" in run(api_key="7-wrong")["msg"]
    assert "Wait a minute" in run()["msg"]


# --- faults ----------------------------------------------------------------------------------------------------------

READS = ("auth.login_ex", "auth.mechanism_choices", "ups.config", "service.query")
WRITES = ("ups.update", "service.update", "service.control", "core.get_jobs")


def all_secrets() -> str:
    """What a log of TrueNAS's might quote: values of several lines come line by line."""
    lines = [line for text in (*OLD_SECRETS.values(), *NEW_SECRETS.values()) for line in text.splitlines()]
    return "MONITOR x 1 y\n" + "\n".join(lines) + "\n" + json.dumps({**OLD_SECRETS, **NEW_SECRETS}) + repr(NEW_SECRETS)


def method_on(box: Box, method: str) -> str:
    """25.04 starts a service without a job."""
    here = {"service.control": "service.start", "core.get_jobs": "service.start"}
    return method if box.middleware.release.service_control else here.get(method, method)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", [*READS, *WRITES])
def test_broken_connection_is_an_error(box: Box, run: Run, method: str, when: str) -> None:
    method, changed = method_on(box, method), method in WRITES
    box.faults["drop"] = {method: when}
    result = run()
    assert (result["failed"], result["changed"]) == (True, changed)
    assert result["msg"].startswith(
        f"localhost:{box.tls}: the connection broke while waiting for {method}. TrueNAS may or may not"
    )
    box.faults.clear()
    run()
    assert unchanged(run())
    assert box.upsmon.running
    assert box.middleware.settings["monpwd"] == NEW_PASSWORD


def test_connection_broken_at_once_is_an_error(box: Box, run: Run) -> None:
    box.faults["drop"] = {"connect": "before"}
    result = run()
    assert (result["failed"], result["changed"]) == (True, False)
    assert "the connection broke" in result["msg"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("method", [*READS, *WRITES])
def test_slow_method_times_out(box: Box, run: Run, method: str) -> None:
    method, changed = method_on(box, method), method in WRITES
    box.faults["slow"] = {method: 600}
    result = run(timeout=1)
    assert (result["failed"], result["changed"]) == (True, changed)
    assert f"no answer within 1 s while waiting for {method}" in result["msg"]


@pytest.mark.parametrize("method", [*READS, *WRITES])
def test_garbage_is_not_an_answer(box: Box, run: Run, method: str) -> None:
    method, changed = method_on(box, method), method in WRITES
    box.faults["garbage"] = {method: "Canary Canary"}
    result = run()
    assert (result["failed"], result["changed"]) == (True, changed)
    assert f"the reply to {method} is not an answer of TrueNAS, but 13 characters that are not JSON" in result["msg"]


def test_rate_limited_address_is_explained(box: Box, run: Run) -> None:
    box.faults["busy"] = True
    assert "accepts no more logins from this address for now" in run()["msg"]


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("DENIED", "user 'nut' may not use the API"),
        ("EXPIRED", "the API key of user 'nut' is revoked or expired"),
        ("OTP_REQUIRED", "user 'nut' needs a one-time code"),
        ("AUTH_ERR", "login refused: wrong API key for user 'nut'"),
        ("LATER", "the login of user 'nut' had an unknown outcome ('LATER')"),
    ],
)
def test_login_outcome_is_explained(box: Box, run: Run, outcome: str, words: str) -> None:
    box.faults["login"] = outcome
    result = run()
    assert (result["failed"], result["changed"]) == (True, False)
    assert words in result["msg"]


@pytest.mark.parametrize("method", ["ups.config", "service.query", *WRITES])
def test_failed_method_is_an_error(box: Box, run: Run, method: str) -> None:
    method = method_on(box, method)
    box.faults["methods"] = {method: {"errname": "EFAULT", "reason": "no luck today"}}
    result = run()
    assert f"{method} failed: [EFAULT] no luck today" in result["msg"]
    # What was done before stays done; the call itself did nothing.
    assert result["changed"] is (method in ("service.update", "service.control", "service.start", "core.get_jobs"))


@pytest.mark.parametrize("release", ["25.10", "26"])
def test_failed_job_is_an_error(make: Make, run_at: Run, release: str) -> None:
    box = make(release)
    box.faults["job"] = "nobody wants to"
    result = run_at(box)
    assert (result["failed"], result["changed"]) == (True, True)
    assert "service.control START ups failed: [EFAULT] nobody wants to" in result["msg"]
    assert "Already done: set mode" in result["msg"]


def test_standby_node_leads_to_the_active_node(make: Make, run_at: Run) -> None:
    standby, active = make("25.10"), make("25.10")
    standby.faults["standby"] = ["http://localhost:1", f"https://localhost:{active.tls}"]
    result = run_at(standby)
    assert (result["changed"], result["host"]) == (True, "localhost")
    assert (standby.upsmon.running, active.upsmon.running) == (False, True)
    assert (
        f"localhost:{standby.tls} is the standby node of a pair; continuing with localhost:{active.tls}."
        in json.dumps(result["warnings"])
    )
    assert unchanged(run_at(standby))
    # The other one must prove itself as well.
    assert "not the pinned one" in run_at(standby, fingerprint="00" * 32)["msg"]
    assert "wrong API key" in run_at(standby, api_key="7-wrong")["msg"]


def test_two_standby_nodes_are_explained(make: Make, run_at: Run) -> None:
    one, two = make("26"), make("26")
    one.faults["standby"], two.faults["standby"] = [f"https://localhost:{two.tls}"], [f"https://localhost:{one.tls}"]
    result = run_at(one)
    assert (result["failed"], result["changed"]) == (True, False)
    assert result["msg"].startswith(
        f"localhost:{one.tls}: both nodes of the pair say that they are on standby; this one names localhost:{two.tls}"
    )


@pytest.mark.parametrize("urls", [[], ["http://localhost"], ["nonsense://"]])
def test_standby_node_without_active_node_is_an_error(make: Make, run_at: Run, urls: list[str]) -> None:
    box = make("26")
    box.faults["standby"] = urls
    assert "this is the standby node of a pair and accepts no logins" in run_at(box)["msg"]


@pytest.mark.parametrize("release", WITHOUT)
def test_missing_api_without_midclt_is_an_error(make: Make, run_at: Run, release: str) -> None:
    result = run_at(make(release))
    assert (result["failed"], result["changed"], result["reason"]) == (True, False, "no_jsonrpc")
    assert "a release before 25.04" in result["msg"]


def every_fault() -> list[dict[str, Any]]:
    text = all_secrets()
    methods = [*READS, *WRITES, "service.start", "service.stop"]
    own = "Canary-login " + "\n".join(NEW_SECRETS.values())  # nobody can know the others before they are read
    faults: list[dict[str, Any]] = [
        {},
        *[{"drop": {name: when}} for name in ("connect", *methods) for when in ("before", "after")],
        *[{"garbage": {name: text}} for name in methods],
        *[{"garbage": {name: json.dumps({"jsonrpc": "2.0", "id": 99, "result": text})}} for name in methods],
        *[
            {"methods": {name: {"errname": "EINVAL", "reason": own if name in READS else text}}}
            for name in methods
            if not name.startswith("auth.")
        ],
        *[{"login": name} for name in ("DENIED", "EXPIRED", "OTP_REQUIRED", "AUTH_ERR", own)],
        {"standby": ["nonsense", "ws://localhost"]},
        {"busy": True},
        {"job": text},
        {"service_start": text},
        {"restart_leaves_stopped": True, "service_start": text},
    ]
    return faults


@pytest.mark.parametrize("fault", every_fault(), ids=lambda fault: json.dumps(fault)[:50])
@pytest.mark.parametrize("release", ["25.04", "26"])
def test_output_contains_no_secret(make: Make, run_at: Run, release: str, fault: dict[str, Any]) -> None:
    """`call` looks for them in all that is said. Once as a fresh machine, and once with a service that runs."""
    login = {"username": "careful", "api_key": None, "password": "Canary-login", "otp": "123456"}
    box = make(release)
    for runs in (False, True):
        for state in ("present", "absent"):
            box.middleware.settings.update(OLD_SECRETS, mode="SLAVE", remotehost="192.0.2.9", monuser="old")
            box.upsmon.running = runs
            box.faults = dict(fault)
            run_at(box, **login, **NEW_SECRETS, state=state)


# --- midclt ----------------------------------------------------------------------------------------------------------

MIDCLT = """\
#!{python}
import sys
sys.path.insert(0, {lab!r})
from truenas.midclt import run_console
if __name__ == "__main__":
    sys.exit(run_console())
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """here(box, ...) runs the module on that box, where its midclt is."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "midclt"
    program.write_text(MIDCLT.format(python=sys.executable, lab=str(Path(server.__file__).parents[1])))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def run(box: Box, **params: Any) -> dict[str, Any]:
        monkeypatch.setenv("TRUENAS_LAB_SOCKET", str(box.socket))
        result = call(capfd, box, **{"transport": "midclt", **params})
        with contextlib.suppress(FileNotFoundError):
            shown = json.dumps(box.arguments)
            assert [secret for secret in ("Canary", "fixmepass", "monpwd") if secret in shown] == []
        return result

    return run


@pytest.mark.parametrize("release", RELEASES)
def test_midclt_configures_changes_and_removes_the_service(make: Make, here: Run, release: str) -> None:
    box = make(release)
    checked = here(box, check=True, **NEW_SECRETS)
    assert box.middleware.settings["mode"] == "MASTER"
    first = here(box, **NEW_SECRETS)
    for name in ("changed", "actions", "settings", "service", "diff"):
        assert checked[name] == first[name], name
    assert (first["changed"], first["transport"], first["host"]) == (True, "midclt", platform.node())
    assert first["service"] == {"enable": True, "state": "RUNNING"}
    assert first["version"] == RELEASES[release].version
    assert {name: box.middleware.settings[name] for name in NEW_SECRETS} == NEW_SECRETS
    assert (box.middleware.settings["powerdown"], box.upsmon.starts) == (False, 1)

    assert unchanged(here(box, **NEW_SECRETS))
    assert unchanged(here(box, check=True, **NEW_SECRETS))
    changed = here(box, remotehost="192.0.2.11")
    assert changed["actions"] == ["set remotehost; TrueNAS restarted its UPS service"]
    assert box.upsmon.starts == 2

    gone = here(box, state="absent")
    assert gone["actions"] == ["stopped the UPS service", "disabled the UPS service on boot", "set monuser, monpwd"]
    assert (box.upsmon.running, box.middleware.enabled) == (False, False)
    assert unchanged(here(box, state="absent"))
    updates = [argv for argv in box.arguments if not {"call"} & set(argv) or "ups.update" in argv]
    assert len(updates) >= 3
    for argv in updates:
        assert argv[-1] == "-" if RELEASES[release].stdin_payload else argv[1] == "-c"


@pytest.mark.parametrize("release", RELEASES)
def test_value_refused_over_midclt_is_explained(make: Make, here: Run, release: str) -> None:
    box = make(release)
    result = here(box, driver="usbhid-ups")
    assert (result["failed"], result["changed"]) == (True, False)
    assert "TrueNAS refuses driver: Driver selected does not match" in result["msg"]


def test_saved_settings_over_midclt_are_a_success_with_a_warning(make: Make, here: Run) -> None:
    """midclt prints the error of TrueNAS's netdata like a refused value."""
    box = make("26")
    here(box)
    update = box.middleware.service.update_settings

    def update_then_fail(values: Any) -> Any:
        update(values)
        raise call_error("EINVAL", "netdata: no room")

    box.middleware.service.update_settings = update_then_fail  # type: ignore[method-assign]
    changed = here(box, remotehost="192.0.2.11")
    assert (changed["changed"], changed["settings"]["remotehost"]) == (True, "192.0.2.11")
    assert "netdata: no room" in warnings(changed)


@pytest.mark.parametrize("release", RELEASES)
def test_failed_start_over_midclt_is_an_error(make: Make, here: Run, release: str) -> None:
    box = make(release)
    here(box)
    box.faults["service_start"] = "nut-monitor.service: failed, said Canary-new_1"
    failed = here(box, remotehost="192.0.2.11")
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert "the settings were saved, but the UPS service failed to start" in failed["msg"]
    again = here(box, remotehost="192.0.2.11")
    assert (again["failed"], again["changed"]) == (True, False)
    why = "the UPS service did not start" if RELEASES[release].core else "nut-monitor.service: failed"
    assert why in again["msg"]
    box.faults.clear()
    assert here(box, remotehost="192.0.2.11")["actions"] == ["started the UPS service"]


@pytest.mark.parametrize("release", RELEASES)
def test_midclt_needs_root(make: Make, here: Run, release: str) -> None:
    box = make(release)
    box.admins.clear()
    result = here(box)
    assert (result["failed"], result["changed"]) == (True, False)
    assert "midclt could not log in. midclt needs root" in result["msg"]


@pytest.mark.parametrize("release", RELEASES)
def test_missing_middleware_is_explained(make: Make, here: Run, release: str) -> None:
    box = make(release)
    box.socket.unlink()
    result = here(box)
    assert (result["failed"], result["changed"]) == (True, False)
    assert "midclt can't reach TrueNAS's middleware. If TrueNAS is booting" in result["msg"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["ups.config", "ups.update", "service.update", "service.control"])
@pytest.mark.parametrize("release", ["13.0", "24.10", "26"])
def test_broken_connection_of_midclt_is_an_error(make: Make, here: Run, release: str, method: str, when: str) -> None:
    box = make(release)
    method, changed = method_on(box, method), method in WRITES
    box.faults["drop"] = {method: when}
    result = here(box)
    assert (result["failed"], result["changed"]) == (True, changed)
    assert f"the connection broke while waiting for {method}. TrueNAS may or may not" in result["msg"]
    box.faults.clear()
    here(box)
    assert unchanged(here(box))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call may take longer than `timeout`."""
    for module in (jsonrpc, midclt):
        monkeypatch.setattr(module, "ACTION_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", ["slow", "garbage"])
@pytest.mark.parametrize("method", ["ups.config", "ups.update", "service.control"])
@pytest.mark.parametrize("release", ["22.12", "25.10"])
def test_slow_method_over_midclt_times_out(make: Make, here: Run, release: str, method: str, fault: str) -> None:
    """Garbage too: midclt goes on waiting for its answer."""
    box = make(release)
    method, changed = method_on(box, method), method in WRITES
    box.faults[fault] = {method: 600 if fault == "slow" else "Canary"}
    result = here(box, timeout=1)
    assert (result["failed"], result["changed"]) == (True, changed)
    assert f"no answer within 1 s while waiting for {method}" in result["msg"]


def test_failed_job_over_midclt_is_an_error(make: Make, here: Run) -> None:
    box = make("25.10")
    box.middleware.settings.update(OLD_SECRETS)
    box.faults["job"] = all_secrets()
    assert "service.control START ups failed: [EFAULT] MONITOR" in here(box, **NEW_SECRETS)["msg"]


@pytest.mark.parametrize("release", WITHOUT)
def test_auto_falls_back_to_midclt(make: Make, here: Run, release: str) -> None:
    box = make(release)
    login = {"url": f"https://localhost:{box.tls}", "username": "nut", "api_key": KEY, "ca_path": str(box.certificate)}
    result = here(box, transport="auto", **login)
    assert (result["changed"], result["transport"]) == (True, "midclt")
    assert "Continuing with midclt on this machine" in json.dumps(result["warnings"])
    assert here(box, transport="jsonrpc", **login)["reason"] == "no_jsonrpc"


@pytest.mark.parametrize("release", RELEASES)
def test_auto_without_url_uses_midclt(make: Make, here: Run, release: str) -> None:
    result = here(make(release), transport="auto")
    assert (result["changed"], result["transport"], "warnings" in result) == (True, "midclt", False)


@pytest.mark.parametrize("release", WITH_JSON_RPC)
def test_auto_with_url_uses_json_rpc(make: Make, here: Run, release: str) -> None:
    box = make(release)
    login = {"url": f"https://localhost:{box.tls}", "username": "nut", "ca_path": str(box.certificate)}
    assert here(box, transport="auto", api_key=KEY, **login)["transport"] == "jsonrpc"
    assert "login refused" in here(box, transport="auto", api_key="7-wrong", **login)["msg"]
    assert box.arguments == []
