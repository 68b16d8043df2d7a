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
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.homelab.nut.plugins.module_utils._truenas import jsonrpc, midclt
from ansible_collections.homelab.nut.plugins.modules import truenas_ups
from truenas import accounts, server
from truenas.middleware import Middleware
from truenas.releases import RELEASES
from truenas.service import ServiceState, StateFile

pytestmark = pytest.mark.slow

KEY = "7-" + "k" * 64
NEW_PASSWORD = "Canary-new_1"
USERS: dict[str, dict[str, Any]] = {
    "nut": {"password": "Canary-login", "roles": ["SYSTEM_GENERAL_WRITE", "SERVICE_WRITE", "SERVICE_READ"]},
    "reader": {"password": "Canary-login", "roles": ["READONLY_ADMIN"]},
    "blind": {"password": "Canary-login", "roles": ["SYSTEM_GENERAL_WRITE", "SERVICE_WRITE"]},
    "careful": {"password": "Canary-login", "otp_token": "123456"},
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
WITH_JSON_RPC = sorted(name for name, release in RELEASES.items() if release.json_rpc)
WITHOUT = sorted(set(RELEASES) - set(WITH_JSON_RPC))

Run = Callable[..., dict[str, Any]]


class Upsmon:
    """What systemd would run."""

    def __init__(self) -> None:
        self.running = False
        self.starts = 0

    def start_service(self, files: Mapping[str, str]) -> str:
        assert files
        self.running = True
        self.starts += 1
        return ""

    def stop_service(self) -> None:
        self.running = False

    def read_state(self) -> ServiceState:
        return ServiceState(self.running, (4242,) if self.running else ())


class Box:
    """A TrueNAS that listens."""

    def __init__(self, release: str, data: Path) -> None:
        self.upsmon = Upsmon()
        self.faults: dict[str, Any] = {}
        self.release = release
        self.data = data
        self.middleware = Middleware(
            release=RELEASES[release],
            accounts=accounts.parse_accounts(USERS, [{"id": 7, "name": "nut", "username": "nut", "key": KEY}]),
            state=StateFile(data / "truenas.json"),
            runner=self.upsmon,
            clock=time.time,
            faults=lambda: self.faults,
        )
        self.plain = self.tls = 0
        self.certificate = data / "https.crt"
        self.admins = {0, os.getuid()}  # whom its midclt lets in
        self.unix: asyncio.AbstractServer | None = None

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


def call(capfd: pytest.CaptureFixture[str], *, check: bool = False, **params: Any) -> dict[str, Any]:
    """Run the module, and check that its output contains no secret."""
    given: dict[str, Any] = {"remotehost": "192.0.2.10", "monuser": "truenas", "monpwd": NEW_PASSWORD, **params}
    given = {name: value for name, value in given.items() if value is not None}
    given.update(_ansible_check_mode=check, _ansible_diff=True, _ansible_inject_invocation=True)
    with patch_module_args(given), pytest.raises(SystemExit):
        truenas_ups.main()
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
        return call(capfd, **{"url": url, "username": "nut", "api_key": KEY, "ca_path": path, **params})

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


def test_failed_start_is_an_error(box: Box, run: Any) -> None:
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
        ({"username": "blind", "api_key": None, "password": "Canary-login"}, "which needs the role SERVICE_READ"),
        ({"username": "careful", "api_key": None, "password": "Canary-login"}, "needs a one-time code"),
        ({"username": "careful", "api_key": None, "password": "Canary-login", "otp": "000000"}, "was not accepted"),
        ({"driver": "usbhid-ups"}, "TrueNAS refuses driver: Driver selected does not match"),
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


def test_key_is_never_sent_over_plain_http(box: Box, run: Any) -> None:
    assert "api_key: refused over plain http" in run(url=f"http://localhost:{box.plain}")["msg"]
    assert run()["changed"] is True
    result = run(url=f"ws://localhost:{box.plain}", api_key=None, password="Canary-login", ca_path=None)
    assert unchanged(result)


def test_rate_limit_is_explained(run: Any) -> None:
    for _unused in range(20):
        assert "wrong API key" in run(api_key="7-wrong")["msg"]
    assert "Wait ten minutes" in run()["msg"]


# --- faults ----------------------------------------------------------------------------------------------------------

READS = ("auth.login_ex", "ups.config", "service.query")
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
        result = call(capfd, **{"transport": "midclt", **params})
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
