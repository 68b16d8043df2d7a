# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LAB = next(parent / "lab" for parent in Path(__file__).resolve().parents if (parent / "lab/usb/emulator.py").exists())


@pytest.fixture(scope="module")
def cli() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("lab_ups", os.fspath(LAB / "ups"))
    spec = importlib.util.spec_from_loader("lab_ups", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def host(tmp_path: Path, cli: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A running emulator of the host `pve`, in a directory whose path is too long for a socket's address."""
    base = tmp_path / ("long" * 30)
    base.mkdir()
    monkeypatch.setattr(cli, "hosts_directory", lambda: base)
    with tempfile.TemporaryDirectory() as short:
        (base / "pve").symlink_to(short)
        command = [sys.executable, os.fspath(LAB / "usb/emulator.py"), short, "--plug", "apc", "--plug", "cps@4"]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 10
            while not (Path(short) / "control").exists():
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield base / "pve"
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            assert process.stderr
            assert process.stderr.read() == b""
        assert not (Path(short) / "control").exists()
        assert not (Path(short) / "bus/dev").exists()


def read_status(cli: ModuleType, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["pve", "status", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert isinstance(answer, dict)
    return answer


def test_commands_control_the_ups(host: Path, cli: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert [ups["port"] for ups in read_status(cli, capsys)["upses"]] == [1, 4]
    assert cli.main(["pve", "plug", "eaton", "--serial", "", "--vendor-string", 'a"b', "--id", "0463:0001"]) == 0
    assert capsys.readouterr().out == "pve: port 2, device 004\n"
    eaton = read_status(cli, capsys)["upses"][1]
    assert (eaton["id"], eaton["serial"], eaton["manufacturer"]) == ("0463:0001", "", 'a"b')
    for words in (["mains", "off"], ["low", "--port", "4"], ["set", "charge=70", "load=3"], ["hang", "nak"]):
        assert cli.main(["pve", *words]) == 0
    answer = read_status(cli, capsys)
    assert answer["mains"] is False
    assert [ups["low_battery"] for ups in answer["upses"]] == [False, False, True]
    assert {ups["hang"] for ups in answer["upses"]} == {"nak"}
    assert {ups["state"]["charge"] for ups in answer["upses"]} == {70}
    assert cli.main(["pve", "empty", "--port", "4"]) == 0
    assert [ups["outlets"] for ups in read_status(cli, capsys)["upses"]] == [True, True, False]
    assert cli.main(["pve", "mains", "on"]) == 0
    assert cli.main(["pve", "hurry"]) == 0
    assert [ups["outlets"] for ups in read_status(cli, capsys)["upses"]] == [True, True, True]
    for words in (["mains", "on"], ["unhang"], ["unplug", "--port", "2"], ["replug", "--port", "1", "--to", "8"]):
        assert cli.main(["pve", *words]) == 0
    assert [ups["port"] for ups in read_status(cli, capsys)["upses"]] == [4, 8]
    assert cli.main(["pve", "status"]) == 0
    text = capsys.readouterr().out
    assert "pve: mains on" in text
    assert "unplugged from port 2: eaton ''" in text


def test_hostile_strings_are_passed_unchanged(host: Path, cli: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """The shelf has no malicious UPS, so each string may be anything that a command line can hold."""
    evil = ']\n[evil]\ndriver = "x" # $(id) `id` \\'
    assert cli.main(["pve", "plug", "apc", "--serial", evil, "--product-string", "ü" * 200, "--fickle"]) == 0
    seen = read_status(cli, capsys)["upses"][1]
    assert (seen["serial"], seen["product"]) == (evil, "ü" * 200)
    sysfs = host / "bus/sys/bus/usb/devices/1-2"
    assert (sysfs / "serial").read_text() == evil + "\n"
    assert (sysfs / "product").read_text() == "ü" * 126 + "\n"


def test_models_are_listed(host: Path, cli: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pve", "models"]) == 0
    assert "cps      0764:0501  CPS CP1500EPFCLCD  serial ''" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nas", "status"], "this lab has no host 'nas' with a USB bus; it has pve"),
        (["pve", "unplug", "--port", "7"], "pve: nothing is plugged in at port 7"),
        (["pve", "set", "charge"], "expected KEY=NUMBER, not 'charge'"),
        (["pve", "set", "charge=1000"], "pve: charge must be a whole number from 0 to 100"),
    ],
)
def test_mistakes_are_reported(
    host: Path, cli: ModuleType, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(words) == 1
    assert message in capsys.readouterr().err


def test_missing_lab_is_reported(
    tmp_path: Path, cli: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "hosts_directory", lambda: tmp_path / "usb")
    assert cli.main(["pve", "status"]) == 1
    assert "the lab is not up" in capsys.readouterr().err
    (tmp_path / "usb/pve").mkdir(parents=True)
    assert cli.main(["pve", "status"]) == 1
    assert "make lab" in capsys.readouterr().err


def test_help_names_every_state_key(cli: ModuleType) -> None:
    text = cli.make_parser().format_help()
    assert all(name in text for name in cli.SETTINGS)
