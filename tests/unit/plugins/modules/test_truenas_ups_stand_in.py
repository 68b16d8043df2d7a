# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it, with nothing replaced, against the lab's TrueNAS over TLS on the loopback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.modules import truenas_ups
from truenas import accounts, server
from truenas.middleware import Middleware
from truenas.releases import RELEASES
from truenas.service import ServiceState, StateFile

KEY = "7-" + "k" * 64
NEW_PASSWORD = "Canary-new_1"
USERS: dict[str, dict[str, Any]] = {
    "nut": {"password": "Canary-login", "roles": ["SYSTEM_GENERAL_WRITE", "SERVICE_WRITE", "SERVICE_READ"]},
    "reader": {"password": "Canary-login", "roles": ["READONLY_ADMIN"]},
    "blind": {"password": "Canary-login", "roles": ["SYSTEM_GENERAL_WRITE", "SERVICE_WRITE"]},
    "careful": {"password": "Canary-login", "otp_token": "123456"},
}


class Upsmon:
    """What systemd would run."""

    def __init__(self) -> None:
        self.running = False
        self.starts = 0

    def start(self, files: Mapping[str, str]) -> str:
        assert files
        self.running = True
        self.starts += 1
        return ""

    def stop(self) -> None:
        self.running = False

    def state(self) -> ServiceState:
        return ServiceState(self.running, (4242,) if self.running else ())


class Box:
    """A TrueNAS that listens."""

    def __init__(self, release: str, data: Path) -> None:
        self.upsmon = Upsmon()
        self.faults: dict[str, Any] = {}
        self.middleware = Middleware(
            release=RELEASES[release],
            accounts=accounts.parse(USERS, [{"id": 7, "name": "nut", "username": "nut", "key": KEY}]),
            state=StateFile(data / "truenas.json"),
            runner=self.upsmon,
            clock=time.time,
            faults=lambda: self.faults,
        )
        self.plain = self.tls = 0
        self.certificate = data / "https.crt"

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()


@pytest.fixture(params=sorted(RELEASES))
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Box]:
    made = Box(request.param, tmp_path)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(timeout=30)

    config = server.Config(data=str(tmp_path), ui_address="127.0.0.1", ui_port=0, ui_httpsport=0)
    runners = run(server.listen(made.middleware, config))
    made.plain, made.tls = (runner.addresses[0][1] for runner in runners)
    yield made
    for runner in runners:
        run(runner.cleanup())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=30)
    loop.close()


@pytest.fixture
def run(box: Box, capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*, check: bool = False, **params: Any) -> dict[str, Any]:
        given: dict[str, Any] = {
            "url": f"https://localhost:{box.tls}",
            "username": "nut",
            "api_key": KEY,
            "ca_path": str(box.certificate),
            "remotehost": "192.0.2.10",
            "monuser": "truenas",
            "monpwd": NEW_PASSWORD,
            **params,
        }
        given = {name: value for name, value in given.items() if value is not None}
        given.update(_ansible_check_mode=check, _ansible_diff=True)
        with patch_module_args(given), pytest.raises(SystemExit):
            truenas_ups.main()
        out, err = capfd.readouterr()
        assert [secret for secret in ("Canary", KEY, "fixmepass") if secret in out + err] == []
        result: dict[str, Any] = json.loads(out)
        return result

    return run


def unchanged(result: dict[str, Any]) -> bool:
    """Well, and nothing to do. A failure too may report changed: false."""
    return result["changed"] is False and "failed" not in result


def test_whole_life(box: Box, run: Any) -> None:
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


def test_certificate(box: Box, run: Any) -> None:
    shown = run(ca_path=None)["msg"].rpartition(" ")[2]
    assert shown.replace(":", "").lower() == box.fingerprint
    assert run(ca_path=None, fingerprint=shown, check=True)["changed"] is True
    assert "not the pinned one" in run(fingerprint="00" * 32)["msg"]


def test_restart_that_leaves_it_stopped(box: Box, run: Any) -> None:
    run()
    box.faults["restart_leaves_stopped"] = True
    result = run(monuser="other")
    assert result["actions"][1] == "found the UPS service not running after that, and stopped and started it"
    assert box.upsmon.running


def test_saved_but_failed(box: Box, run: Any) -> None:
    run()
    box.faults["service_start"] = "nut-monitor.service: failed, said Canary-new_1"
    failed = run(remotehost="192.0.2.11")
    assert (failed["failed"], failed["changed"]) == (True, True)
    assert "the settings were saved, but the UPS service failed to start" in failed["msg"]
    again = run(remotehost="192.0.2.11")
    assert again["failed"] is True
    assert "nut-monitor.service: failed" in again["msg"]
    assert again["changed"] is False
    box.faults.clear()
    assert run(remotehost="192.0.2.11")["actions"] == ["started the UPS service"]


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"api_key": "7-" + "x" * 64}, "wrong API key for user 'nut'"),
        ({"username": "reader"}, "wrong API key for user 'reader'"),
        ({"username": "reader", "api_key": None, "password": "Canary-login"}, "SYSTEM_GENERAL_WRITE"),
        ({"username": "blind", "api_key": None, "password": "Canary-login"}, "it takes the role SERVICE_READ"),
        ({"username": "careful", "api_key": None, "password": "Canary-login"}, "needs a one-time code"),
        ({"username": "careful", "api_key": None, "password": "Canary-login", "otp": "000000"}, "was not accepted"),
        ({"driver": "usbhid-ups"}, "TrueNAS refuses driver: Driver selected does not match"),
    ],
)
def test_refusals(run: Any, params: dict[str, Any], words: str) -> None:
    result = run(**params)
    assert (result["failed"], result["changed"]) == (True, False)
    assert words in result["msg"]


def test_one_time_code(run: Any) -> None:
    params = {"username": "careful", "api_key": None, "password": "Canary-login", "otp": "123456"}
    assert run(**params)["changed"] is True


def test_revoked_key(box: Box, run: Any) -> None:
    box.faults["revoked_keys"] = [7]
    assert "is revoked or expired" in run()["msg"]


def test_plain_http_never_costs_the_key(box: Box, run: Any) -> None:
    assert "api_key: refused over plain http" in run(url=f"http://localhost:{box.plain}")["msg"]
    assert run()["changed"] is True
    result = run(url=f"ws://localhost:{box.plain}", api_key=None, password="Canary-login", ca_path=None)
    assert unchanged(result)


def test_rate_limit(run: Any) -> None:
    for _unused in range(20):
        assert "wrong API key" in run(api_key="7-wrong")["msg"]
    assert "Wait ten minutes" in run()["msg"]
